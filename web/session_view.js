// session_view.js -- one attached session: its output on a terminal, what is typed into it, its size
// and its state. The page around it (main.js) shows what this reports.
import { InputQueue } from './input_queue.js';
import { OutputCursor } from './output_cursor.js';
import { ReplayMark } from './replay_mark.js';
import { SessionLink } from './session_link.js';
import { TerminalScreen } from './terminal.js';

// xterm.js throws output away when 50 MB wait to be parsed. Long before, the stream is closed, and
// opened again where it stopped once most is parsed.
const PAUSE_AT_BYTES = 32 * 1024 * 1024;
const RESUME_AT_BYTES = 2 * 1024 * 1024;
const RESIZE_DELAY_MS = 120;
const SOCKET_WINDOW = 8; // input messages under way on a WebSocket

export class SessionView {
  #api;
  #id;
  #on;
  #screen;
  #link;
  #input;
  #cursor = new OutputCursor();
  #replay;
  #paused = false;
  #size = null; // {cols, rows} of the session, as last told
  #resizeTimer = null;
  #resizing = false;
  #troubleText = null;
  #transform = (bytes) => bytes;
  #status = { state: null, link: 'connecting', ended: null, readOnly: false };

  /**
   * @param {object} options
   * @param {import('./api.js').Api} options.api
   * @param {string} options.id the session
   * @param {HTMLElement} options.parent where the terminal is put
   * @param {'stream'|'ws'} options.transport
   * @param {'write'|'view'} options.role
   * @param {boolean} options.created this page opened it: nobody else answered its first queries
   * @param {{fontPx: number, screenReader: boolean}} options.terminal
   * @param {object} options.on status(status), title(text), bell(), skipped(), trouble(text), refused(error)
   */
  constructor({ api, id, parent, transport, role, created = false, terminal, on }) {
    this.#api = api;
    this.#id = id;
    this.#on = on;
    this.#replay = new ReplayMark(created);
    this.#status.readOnly = role === 'view';
    this.#screen = new TerminalScreen(parent, {
      input: (bytes) => this.#typed(bytes),
      title: (text) => on.title(text),
      bell: () => on.bell(),
      parsed: (unparsed) => this.#parsed(unparsed),
      resized: () => this.#scale(),
    }, terminal);
    this.#link = new SessionLink({
      api,
      id,
      transport,
      role,
      since: () => this.#cursor.since,
      on: {
        output: (bytes, end, epoch) => this.#output(bytes, end, epoch),
        event: (name, data, at) => this.#event(name, data, at),
        status: (link) => this.#linkStatus(link),
        role: () => this.#becomeReadOnly(),
        refused: (error) => this.#refused(error),
      },
    });
    this.#input = new InputQueue({
      send: (client, seq, bytes) =>
        this.#link.transport === 'ws'
          ? this.#link.sendInput(client, seq, bytes)
          : api.input(id, client, seq, bytes),
      window: () => (this.#link.transport === 'ws' ? SOCKET_WINDOW : 1),
      on: {
        delayed: (error) => this.#trouble(error.status === 429
          ? 'The program does not read its input. What you typed waits.'
          : 'What you typed waits until the session can be reached.'),
        delivered: () => this.#trouble(null),
        refused: (error) => this.#inputRefused(error),
      },
    });
    this.#screen.setReadOnly(this.#status.readOnly);
  }

  get id() {
    return this.#id;
  }

  get screen() {
    return this.#screen;
  }

  get status() {
    return this.#status;
  }

  start() {
    this.#link.start();
    this.#on.status(this.#status);
  }

  dispose() {
    clearTimeout(this.#resizeTimer);
    this.#input.stop();
    this.#link.stop();
    this.#screen.dispose();
  }

  setTransport(transport) {
    if (!this.#status.ended) this.#link.setTransport(transport);
  }

  /** The network is back, the machine woke up, or there is a new key. */
  reconnect() {
    if (this.#status.ended) return;
    if (!this.#paused) {
      this.#link.restart();
      this.#link.start();
    }
    this.#input.unblock();
  }

  /** Changes what is typed before it is sent, such as for a Ctrl that is held on screen. */
  set transform(fn) {
    this.#transform = fn;
  }

  /** The window may have another size: the session gets it, if this page may say so. */
  windowResized() {
    this.#scale();
    clearTimeout(this.#resizeTimer);
    this.#resizeTimer = setTimeout(() => this.#proposeSize(), RESIZE_DELAY_MS);
  }

  #update(change) {
    Object.assign(this.#status, change);
    this.#on.status(this.#status);
  }

  #trouble(text) {
    if (text === this.#troubleText) return;
    this.#troubleText = text;
    this.#on.trouble(text);
  }

  #linkStatus(link) {
    if (link === 'live') this.#replay.streamBegins();
    // After its exit a stream closes, and asks once more: that is no trouble.
    if (this.#status.ended) return;
    this.#update({ link });
    if (link === 'live') this.#input.retryNow();
  }

  // ---- output

  #output(bytes, end, epoch) {
    if (epoch !== null && this.#cursor.epoch === null) this.#cursor.epoch = epoch;
    this.#replay.outputGoesOn();
    const fresh = this.#cursor.take(bytes, end);
    if (fresh === null) {
      this.#link.retry(); // bytes between are missing: ask for them
      return;
    }
    const start = end - fresh.length;
    if (this.#replay.until !== null && end >= this.#replay.until) {
      const cut = Math.max(0, this.#replay.until - start);
      this.#screen.write(fresh.subarray(0, cut));
      this.#endReplay();
      this.#screen.write(fresh.subarray(cut));
    } else {
      this.#screen.write(fresh);
    }
    if (this.#screen.unparsedBytes > PAUSE_AT_BYTES && !this.#status.ended) {
      this.#paused = true;
      this.#link.stop();
    }
  }

  #parsed(unparsed) {
    if (!this.#paused || unparsed > RESUME_AT_BYTES) return;
    this.#paused = false;
    this.#link.start();
  }

  #endReplay() {
    this.#replay.end();
    this.#screen.setReplaying(false);
  }

  #event(name, data, at) {
    if (name === 'state') this.#state(data);
    else if (name === 'resize') this.#resized(data.cols, data.rows);
    else if (name === 'reset') this.#reset(data, at);
    else if (name === 'exit') this.#exit(data);
  }

  #state(event) {
    const { state, epoch, step, reason } = event;
    if (this.#replay.isOpen) this.#streamBegins(event);
    if (this.#cursor.epoch === null) this.#cursor.epoch = epoch;
    if (this.#status.ended) return;
    this.#update({ state, step, reason });
    if (state === 'open') this.windowResized();
  }

  #streamBegins(event) {
    const { cols, rows } = event;
    // Resize events come at their place, but the first of them may have left the ring. No size at all comes from a
    // replica that cannot ask for this session now.
    if (this.#cursor.offset === null && cols !== undefined) this.#resized(cols, rows);
    const before = this.#replay.until;
    this.#replay.told(event, this.#cursor);
    if (this.#replay.until !== before) this.#screen.setReplaying(this.#replay.until !== null);
  }

  #reset({ reason, offset }, at) {
    if (at) this.#cursor.reset(at.epoch, at.offset);
    else this.#cursor.reset(this.#cursor.epoch, offset);
    this.#replay.outputGoesOn();
    this.#screen.reset();
    if (this.#replay.until !== null && this.#cursor.offset >= this.#replay.until) this.#endReplay();
    if (reason === 'gap') this.#on.skipped();
  }

  #exit({ reason, exit_code: exitCode, signal }) {
    this.#link.finish();
    this.#input.stop();
    this.#update({ state: 'ended', link: 'live', ended: { reason, exitCode, signal } });
    this.#screen.setEnded();
    this.#trouble(null);
  }

  // ---- input

  #typed(bytes) {
    if (this.#status.readOnly || this.#status.ended) return;
    if (!this.#input.push(this.#transform(bytes)))
      this.#trouble('That is too much to be typed at once. Nothing of it was.');
  }

  #inputRefused(error) {
    if (error.status === 403) this.#becomeReadOnly();
    else if (error.status === 401) this.#on.refused(error);
    else if (error.slug !== 'session-ended') this.#trouble(error.message);
  }

  #becomeReadOnly() {
    this.#input.stop();
    this.#screen.setReadOnly(true);
    this.#update({ readOnly: true });
    this.#scale();
  }

  #refused(error) {
    if (this.#status.ended) return;
    this.#update({ link: 'stopped' });
    this.#on.refused(error);
  }

  // ---- size: the terminal has the session's size, always; the window only proposes one

  #resized(cols, rows) {
    this.#size = { cols, rows };
    this.#screen.resize(cols, rows);
    this.#update({ cols, rows });
  }

  #scale() {
    if (this.#status.readOnly) this.#screen.shrinkToFit();
    else this.#screen.usualFont();
  }

  async #proposeSize() {
    if (this.#status.readOnly || this.#status.ended || this.#status.state !== 'open') return;
    if (document.visibilityState !== 'visible') return;
    const size = this.#screen.proposedSize();
    if (!size || !this.#size || this.#resizing || same(size, this.#size)) return;
    this.#resizing = true;
    let laterMs = null;
    try {
      await this.#api.resize(this.#id, size.cols, size.rows);
      const now = this.#screen.proposedSize();
      if (now && !same(now, size)) laterMs = 0; // it changed meanwhile
    } catch (error) {
      if (error.status === 403) this.#becomeReadOnly();
      else if (error.transient) laterMs = Math.max(1000, error.retryAfterMs);
    }
    this.#resizing = false;
    if (laterMs === null) return;
    clearTimeout(this.#resizeTimer);
    this.#resizeTimer = setTimeout(() => this.#proposeSize(), laterMs);
  }
}

const same = (a, b) => a.cols === b.cols && a.rows === b.rows;
