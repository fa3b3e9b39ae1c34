// pty_surface_page.test.mjs -- pocketenv's web terminal in Chromium: a page on an origin of its own, xterm.js fed
// as its component does it. What is replayed must look right, and must not make xterm.js type answers.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { closeBrowser, launched } from './lib/page.mjs';
import { keys, test } from './lib/service.mjs';
import { DEADLINE_MS, until } from './lib/wait.mjs';

after(closeBrowser);

const xterm = (path) => readFileSync(fileURLToPath(new URL(`../../node_modules/@xterm/xterm/${path}`, import.meta.url)));

// apps/web/src/components/terminal/TtyTerminal.tsx, without React.
const component = `
  const term = new Terminal({ cols: 90, rows: 28, scrollback: 5000 });
  term.open(document.getElementById('terminal'));
  const query = new URLSearchParams(location.search);
  const token = query.get('token');
  const ws = new WebSocket(query.get('api') + '/' + query.get('sandbox') + '/ws' +
    (token ? '?token=' + encodeURIComponent(token) : ''));
  const state = (window.state = { closed: null, windowOpen: true, notStrings: 0, sent: [] });
  const send = (text) => {
    if (ws.readyState !== WebSocket.OPEN) return;
    state.sent.push(text);
    ws.send(text);
  };
  ws.onopen = () => send(JSON.stringify({ type: 'resize', cols: term.cols, rows: term.rows }));
  ws.onmessage = (event) => {
    if (typeof event.data !== 'string') state.notStrings++;
    term.write(event.data);
  };
  ws.onclose = (event) => {
    state.closed = { code: event.code, reason: event.reason };
    if (event.code === 1000) {
      term.write('\\r\\nProcess exited.\\r\\n');
      state.windowOpen = false;
    } else term.write('\\r\\nConnection lost.\\r\\n');
  };
  term.onData(send);
  term.onResize(({ cols, rows }) => send(JSON.stringify({ type: 'resize', cols, rows })));
  window.term = term;
  window.text = () => {
    const { active } = term.buffer;
    const lines = [];
    for (let i = 0; i < active.length; i++) lines.push(active.getLine(i).translateToString(true));
    return lines.join('\\n').trimEnd();
  };
`;
const html = `<!doctype html><meta charset="utf-8"><title>terminal</title>
<link rel="stylesheet" href="/xterm.css"><div id="terminal"></div>
<script src="/xterm.js"></script><script>${component}</script>`;

async function serve(t) {
  const files = {
    '/': ['text/html', html],
    '/xterm.js': ['text/javascript', xterm('lib/xterm.js')],
    '/xterm.css': ['text/css', xterm('css/xterm.css')],
  };
  const server = http.createServer((request, response) => {
    const file = files[request.url.split('?')[0]];
    if (file) response.writeHead(200, { 'Content-Type': file[0] }).end(file[1]);
    else response.writeHead(404).end();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.cleanup(() => server.closeAllConnections());
  t.cleanup(() => server.close());
  return `http://127.0.0.1:${server.address().port}`;
}

class Page {
  static async open(t, origin, service, { token = keys.admin, kind = 'pty', sandbox = 'local' } = {}) {
    const profile = await (await launched()).newContext({ viewport: { width: 1100, height: 700 } });
    t.cleanup(() => profile.close());
    const self = new Page();
    self.page = await profile.newPage();
    self.page.setDefaultTimeout(DEADLINE_MS);
    self.errors = [];
    self.page.on('pageerror', (error) => self.errors.push(error.stack));
    const api = `${service.url.replace('http', 'ws')}/${kind}`;
    await self.page.goto(`${origin}/?${new URLSearchParams({ api, sandbox, ...(token && { token }) })}`);
    t.cleanup(() => assert.deepEqual(self.errors, []));
    return self;
  }

  text() {
    return this.page.evaluate(() => window.text());
  }

  state() {
    return this.page.evaluate(() => window.state);
  }

  async shows(pattern) {
    let text;
    try {
      await until(async () => pattern.test((text = await this.text())), `${pattern} on the terminal`);
    } catch (error) {
      error.message += `; it shows:\n${text}`;
      throw error;
    }
    return text;
  }

  async type(text) {
    await this.page.locator('.xterm-helper-textarea').focus();
    await this.page.keyboard.type(text);
  }

  async closes() {
    await until(async () => (await this.state()).closed, 'the close');
    return this.state();
  }
}

async function setUp(t, options = {}) {
  const origin = await serve(t);
  const service = await t.start({ env: { SHELL: '/bin/sh' }, args: ['--cors-origins', origin], ...options });
  return { origin, service };
}

test('shows the prompt, what is typed and its output, and closes its window at the exit', async (t) => {
  const { origin, service } = await setUp(t);
  const page = await Page.open(t, origin, service);
  await page.shows(/[$#]/);
  await page.type('stty size; echo "sum: $((6 * 7))"; printf "\\303\\251\\342\\202\\254 \\360\\237\\230\\200\\n"\n');
  await page.shows(/^28 90\nsum: 42\né€ 😀$/m);
  await page.page.evaluate(() => window.term.resize(70, 20));
  await page.type('stty size\n');
  await page.shows(/^20 70$/m);
  await page.type('exit\n');
  const { closed, windowOpen, notStrings } = await page.closes();
  assert.deepEqual(closed, { code: 1000, reason: 'exit' });
  assert.equal(windowOpen, false);
  assert.equal(notStrings, 0);
  await page.shows(/Process exited\.$/);
});

test('shows the same again when it is loaded anew, and types no answers', async (t) => {
  const { origin, service } = await setUp(t);
  const page = await Page.open(t, origin, service, { kind: 'tty' });
  await page.shows(/[$#]/);
  // A program that asks all that xterm.js answers, and throws the answers away.
  const asks = ['[5n', '[6n', '[?6n', '[c', '[>c', '[?25$p', ']10;?\\007', ']11;?\\033\\\\', ']4;1;?\\007', 'P$qm\\033\\\\'];
  await page.type(`stty -echo -icanon; printf '\\033[?1004hasked: ${asks.map((a) => `\\033${a}`).join('')}'; `);
  await page.type('while [ "$(dd bs=1 count=1 2>/dev/null)" != q ]; do :; done; ');
  await page.type("stty sane; printf '\\033[?1004l\\na line of it\\n'\n");
  await page.shows(/^asked:/m);
  const answers = async () => (await page.state()).sent.filter((text) => text.startsWith('\x1b'));
  await until(async () => (await answers()).length >= asks.length, 'its answers while it is there');
  await page.type('q');
  await page.shows(/^a line of it\n[$#]/m);
  await page.type('kept=1; cat >/dev/null\n');
  await page.shows(/kept=1; cat >\/dev\/null$/);
  const before = await page.text();

  await page.page.reload();
  await page.shows(/kept=1; cat >\/dev\/null$/);
  assert.equal(await page.text(), before);
  // Nothing but the resize went out; and what is typed now is all that the shell gets.
  const { sent } = await page.state();
  assert.deepEqual(sent, [JSON.stringify({ type: 'resize', cols: 90, rows: 28 })]);
  await page.page.locator('.xterm-helper-textarea').focus();
  await page.page.keyboard.press('Control+d');
  await page.type('echo "still $kept"\n');
  await page.shows(/^still 1$/m);
  assert.doesNotMatch(await page.text(), /not found|\^\[/);
});

test('tells a page why it is refused, by closes that it can see', async (t) => {
  const { origin, service } = await setUp(t);
  const cases = [
    [{ token: null }, { code: 1008, reason: 'Invalid token' }],
    [{ token: 'null' }, { code: 1008, reason: 'Invalid token' }],
    [{ token: 'nonsense' }, { code: 1008, reason: 'Invalid token' }],
    [{ sandbox: 'nobodys' }, { code: 1011, reason: 'no such sandbox' }],
    [{ token: keys.viewer }, { code: 1011, reason: 'there is no shell yet, and opening one needs the role admin' }],
  ];
  for (const [options, expected] of cases) {
    const page = await Page.open(t, origin, service, options);
    const { closed, windowOpen } = await page.closes();
    assert.deepEqual(closed, expected);
    assert.equal(windowOpen, true);
  }
  // A page that is not among --cors-origins sees a lost connection.
  const foreign = await Page.open(t, await serve(t), service);
  assert.equal((await foreign.closes()).closed.code, 1006);
});

test('stays open when the connection is lost, and has its shell again when it is loaded anew', async (t) => {
  const { origin, service } = await setUp(t);
  const page = await Page.open(t, origin, service);
  await page.type('kept=yes; echo "and $kept"\n');
  await page.shows(/^and yes$/m);
  await service.kill();
  const { closed, windowOpen } = await page.closes();
  assert.equal(closed.code, 1006);
  assert.equal(windowOpen, true);
  await service.restart();
  await page.page.reload();
  await page.shows(/^and yes$/m);
  await page.type('echo "still $kept"\n');
  await page.shows(/^still yes$/m);
});
