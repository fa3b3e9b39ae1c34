// main.js -- the page: who is logged in, which session is shown, and what the controls do.
import './app.css';
import { Api } from './api.js';
import { KeyDialog, TextDialog } from './dialogs.js';
import { KeyRow } from './key_row.js';
import { forgetKey, keepKey, linkWithTicket, readAddress, writeAddress } from './page_address.js';
import { SessionList } from './session_list.js';
import { SessionView } from './session_view.js';
import { describeEnd, describeStatus } from './session_words.js';
import { TerminalScreen, copyText } from './terminal.js';
import { onTheme, toggleTheme } from './themes.js';

const PHONE = matchMedia('(max-width: 720px)');
const TOUCH = matchMedia('(pointer: coarse)');
const ASLEEP_MS = 30_000; // a timer that is this late: the machine slept, its connections may be dead
const element = (id) => document.getElementById(id);

const address = readAddress();
const api = new Api(address.credential);
const guest = Boolean(address.credential.ticket); // sees one session and nothing else

/** @type {SessionView|null} */
let view = null;
let terminalTitle = '';
let endShown = false;

const transportChoice = element('transport');
const screenReaderChoice = element('screen-reader');
transportChoice.value = address.transport ?? localStorage.getItem('ptycast-transport') ?? 'stream';
screenReaderChoice.checked = localStorage.getItem('ptycast-screen-reader') === 'on';

const keyDialog = new KeyDialog((key) => {
  keepKey(key);
  api.credential = { key };
  hideNotice();
  list.refresh();
  if (view) view.reconnect();
  else begin();
});
const textDialog = new TextDialog();
const keyRow = new KeyRow(element('keys'), () => view?.screen ?? null);
const list = new SessionList(api, { list: element('sessions'), note: element('sessions-note') }, {
  attach: (id) => attach(id),
  remove,
  refused: () => askKey('That key is not valid, or not any more.'),
});

// ---- one session

async function openSession(parameters) {
  detach();
  hideNotice();
  showSidebar(false);
  showTerminal(true);
  let session;
  try {
    session = await api.openSession({ ...parameters, ...measure() });
  } catch (error) {
    detach();
    if (error.status === 401) askKey('That key is not valid, or not any more.');
    else showNotice(error.status === 403 ? 'This key may not open sessions.' : error.message);
    return;
  }
  attach(session.id, { created: true });
  list.refresh();
}

// How many cells a new terminal would have, before there is a session for it.
function measure() {
  const ignore = () => {};
  const on = { input: ignore, title: ignore, bell: ignore, parsed: ignore, resized: ignore };
  const screen = new TerminalScreen(element('terminal'), on, terminalOptions());
  const size = screen.proposedSize();
  screen.dispose();
  element('terminal').replaceChildren();
  return size ?? {};
}

function terminalOptions() {
  return { fontPx: PHONE.matches ? 12 : 14, screenReader: screenReaderChoice.checked };
}

function attach(id, { created = false } = {}) {
  if (view?.id === id && !created) {
    showSidebar(false);
    view.screen.focus();
    return;
  }
  detach();
  hideNotice();
  showSidebar(false);
  terminalTitle = '';
  showTerminal(true);
  view = new SessionView({
    api,
    id,
    created,
    parent: element('terminal'),
    transport: transportChoice.value,
    role: guest && address.role === 'view' ? 'view' : 'write',
    terminal: terminalOptions(),
    on: {
      status: showStatus,
      title: (text) => {
        terminalTitle = text;
        showTitle();
      },
      bell: flash,
      skipped: () => showNotice('Some output was skipped: more came than could be kept.'),
      trouble: (text) => (text ? showNotice(text) : hideNotice()),
      refused: refusedView,
    },
  });
  view.transform = (bytes) => keyRow.transform(bytes);
  view.start();
  list.setCurrent(id);
  rememberAddress();
  if (!TOUCH.matches) view.screen.focus();
}

function detach() {
  view?.dispose();
  view = null;
  element('terminal').replaceChildren();
  showTerminal(false);
  list.setCurrent(null);
  showStatus(null);
  rememberAddress();
}

function showTerminal(shown) {
  element('terminal').hidden = !shown;
  element('welcome').hidden = shown;
}

function refusedView(error) {
  if (error.status === 401 && guest) showNotice('This link is not valid any more.');
  else if (error.status === 401) askKey('That key is not valid, or not any more.');
  else if (error.status === 404) leave('That session is not there any more.');
  else showNotice(error.message);
}

function leave(why) {
  detach();
  showNotice(why);
  list.refresh();
}

async function remove(id, ended) {
  if (!ended && !confirm(`End session ${id}? The programs in it are stopped.`)) return;
  try {
    await api.closeSession(id);
  } catch (error) {
    if (error.status !== 404) showNotice(error.status === 403 ? 'This key may not end sessions.' : error.message);
  }
  if (ended && view?.id === id) detach();
  list.refresh();
}

async function share() {
  try {
    const { ticket } = await api.ticket(view.id, { role: 'view', reusable: true, ttl_s: 3600 });
    await copyText(linkWithTicket(view.id, ticket, 'view'));
    showNotice('A read-only link was copied. It opens this session for one hour.');
    if (!TOUCH.matches) view?.screen.focus();
  } catch (error) {
    showNotice(error.status === 403 ? 'This key may not share sessions.' : error.message);
  }
}

// ---- what is shown

function showStatus(status) {
  for (const id of ['state', 'show-text']) element(id).hidden = !status;
  element('size').hidden = !status?.cols;
  element('read-only').hidden = !status?.readOnly;
  element('share').hidden = !status || guest || Boolean(status.ended);
  element('close').hidden = !status || guest || status.readOnly || Boolean(status.ended);
  element('keys').hidden = !status || status.readOnly || Boolean(status.ended) || !(TOUCH.matches || PHONE.matches);
  if (status) {
    const { text, tone } = describeStatus(status);
    element('state').dataset.tone = tone;
    if (element('state-text').textContent !== text) element('state-text').textContent = text;
    element('state').title = [status.step, status.reason].filter(Boolean).join(': ');
    element('size').textContent = status.cols ? `${status.cols} × ${status.rows}` : '';
    if (status.ended && !endShown) sessionEnded(status);
  }
  endShown = Boolean(status?.ended);
  showTitle();
}

function sessionEnded({ ended, reason }) {
  const why = ended.reason === 'failed' && reason ? `: ${reason}` : '';
  showNotice(`${describeEnd(ended).text}${why}.`, guest ? null : { label: 'New terminal', run: openFromForm });
  list.refresh();
}

function showTitle() {
  const name = view ? terminalTitle || view.id : '';
  element('title').textContent = name || 'ptycast';
  element('title').title = view ? view.id : '';
  document.title = view ? `${name} · ${describeStatus(view.status).text} · ptycast` : 'ptycast';
}

function showNotice(text, action = null) {
  element('notice-text').textContent = text;
  const button = element('notice-action');
  button.hidden = !action;
  button.textContent = action?.label ?? '';
  button.onclick = action?.run ?? null;
  element('notice').hidden = false;
}

function hideNotice() {
  if (!view?.status.ended) element('notice').hidden = true;
}

function flash() {
  element('screen').classList.remove('bell');
  requestAnimationFrame(() => element('screen').classList.add('bell'));
}

function showSidebar(shown) {
  const open = shown && PHONE.matches;
  element('sidebar').classList.toggle('shown', open);
  element('shade').hidden = !open;
  element('menu').setAttribute('aria-expanded', String(open));
}

function askKey(why) {
  list.stop();
  keyDialog.show(api.credential.key ? why : '');
}

function rememberAddress() {
  writeAddress(view?.id ?? null, address.transport);
}

// ---- controls

function openFromForm() {
  const command = element('open-command').value.trim();
  const sandbox = element('open-sandbox').value.trim() || 'local';
  return openSession({ sandbox, ...(command && { command: ['/bin/sh', '-c', command] }) });
}

element('open-form').addEventListener('submit', (event) => {
  event.preventDefault();
  openFromForm();
});
element('welcome-open').addEventListener('click', openFromForm);
element('menu').addEventListener('click', () => showSidebar(!element('sidebar').classList.contains('shown')));
element('shade').addEventListener('click', () => showSidebar(false));
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && element('sidebar').classList.contains('shown')) showSidebar(false);
});
element('notice-dismiss').addEventListener('click', () => {
  element('notice').hidden = true;
  view?.screen.focus();
});
element('close').addEventListener('click', () => remove(view.id, false));
element('share').addEventListener('click', share);
element('show-text').addEventListener('click', () => textDialog.show(view.screen.text()));
element('theme').addEventListener('click', toggleTheme);
element('forget-key').addEventListener('click', () => {
  forgetKey();
  detach();
  api.credential = {};
  list.clear();
  keyDialog.show();
});
transportChoice.addEventListener('change', () => {
  localStorage.setItem('ptycast-transport', transportChoice.value);
  address.transport = null; // what the URL said is overruled
  rememberAddress();
  view?.setTransport(transportChoice.value);
});
screenReaderChoice.addEventListener('change', () => {
  localStorage.setItem('ptycast-screen-reader', screenReaderChoice.checked ? 'on' : 'off');
  view?.screen.setScreenReader(screenReaderChoice.checked);
});

onTheme((theme) => {
  element('theme').setAttribute('aria-pressed', String(theme === 'dark'));
  view?.screen.setColours();
});

// ---- the world around

new ResizeObserver(() => view?.windowResized()).observe(element('screen'));
// Whoever comes back to this window works here now: the session gets this window's size.
window.addEventListener('focus', () => view?.windowResized());
document.addEventListener('visibilitychange', () => view?.windowResized());
window.addEventListener('online', () => view?.reconnect());

let lastTick = Date.now();
setInterval(() => {
  const now = Date.now();
  // A hidden page's timers are slow without any sleep, but not by this much.
  if (now - lastTick > 5_000 + ASLEEP_MS + (document.hidden ? 60_000 : 0)) view?.reconnect();
  lastTick = now;
}, 5_000);

function fitKeyboard() {
  const { height, offsetTop } = window.visualViewport;
  document.documentElement.style.setProperty('--app-height', `${Math.round(height)}px`);
  if (offsetTop) window.scrollTo(0, 0); // iOS moves the page up instead of making it smaller
}
if (window.visualViewport) {
  window.visualViewport.addEventListener('resize', fitKeyboard);
  fitKeyboard();
}

function begin() {
  if (address.session) attach(address.session);
  else if (address.open) openSession({ sandbox: address.open });
  address.session = address.open = null; // once
}

if (guest) {
  element('app').classList.add('guest');
  begin();
} else if (api.credential.key) {
  list.refresh();
  begin();
} else {
  keyDialog.show();
}
