// pocketenv.mjs -- pocketenv's two terminal clients as they are, but for the screen they draw on: its web
// terminal (apps/web, TtyTerminal.tsx) and its CLI (apps/cli, cmd/ssh/tty.ts); and a reader of its streams.
import assert from 'node:assert/strict';
import http from 'node:http';
import WebSocket from 'ws';
import { holdAgainstContract, holdPtyEvent } from './contract.mjs';
import { DEADLINE_MS, deferred, within } from './wait.mjs';

class Terminal {
  text = ''; // all that was shown
  messages = 0;
  closed = deferred();
  opened = deferred();
  #wake = new Set();
  #early = []; // said before the connection was there

  /** options: token (left out when null), sessionId, mode, headers, size ([cols, rows]), kind ("pty"). */
  connect(base, sandbox, { token, sessionId, mode, headers = {}, size = [80, 24], kind = 'pty' } = {}) {
    const query = new URLSearchParams();
    if (token) query.set('token', token);
    if (sessionId) query.set('sessionId', sessionId);
    if (mode) query.set('mode', mode);
    this.path = `/${kind}/${sandbox}/ws`;
    this.opened.promise.catch(() => {});
    this.ws = new WebSocket(`${base.replace('http', 'ws')}${this.path}${`${query}` && `?${query}`}`, {
      headers,
      perMessageDeflate: false,
    });
    this.ws.on('open', () => {
      this.resize(...size);
      for (const [data, options] of this.#early.splice(0)) this.ws.send(data, options);
      this.opened.resolve();
    });
    this.ws.on('message', (data, isBinary) => {
      this.messages++;
      this.onMessage(data, isBinary);
      this.#woken();
    });
    this.ws.on('unexpected-response', (request, response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('end', () => {
        const body = Buffer.concat(chunks);
        holdAgainstContract({ method: 'GET', path: this.path, status: response.statusCode, headers: response.headers, body });
        this.refused = { status: response.statusCode, problem: JSON.parse(body) };
        this.onRefused();
        this.#end(1006, '');
      });
    });
    this.ws.on('error', (error) => {
      this.error = error;
      this.opened.reject(error);
    });
    this.ws.on('close', (code, reason) => this.#end(code, reason.toString()));
    return this;
  }

  #end(code, reason) {
    if (this.code !== undefined) return;
    Object.assign(this, { code, reason });
    this.onClose(code, reason);
    this.closed.resolve();
    this.#woken();
  }

  #woken() {
    for (const wake of this.#wake) wake();
    this.#wake.clear();
  }

  onRefused() {}

  send(data, options = { binary: typeof data !== 'string' }) {
    if (this.ws.readyState === WebSocket.CONNECTING) this.#early.push([data, options]);
    else this.ws.send(data, options);
  }

  resize(cols, rows) {
    this.send(JSON.stringify({ type: 'resize', cols, rows }));
  }

  /** Waits until what was shown from `from` on matches; returns the match. */
  async shows(pattern, { from = 0, ms = DEADLINE_MS } = {}) {
    const end = Date.now() + ms;
    for (;;) {
      const found = this.text.slice(from).match(pattern);
      if (found) return found;
      const tail = () => `${pattern} on ${this.path}; it shows ${JSON.stringify(this.text.slice(from).slice(-600))}`;
      assert.equal(this.code, undefined, `closed with ${this.code} ${this.reason} before ${tail()}`);
      const woken = deferred();
      this.#wake.add(woken.resolve);
      await within(woken.promise, tail(), end - Date.now());
    }
  }

  /** Waits for the close, and compares it. */
  async closes(code, reason, ms) {
    await within(this.closed.promise, `close of ${this.path}; it shows ${JSON.stringify(this.text.slice(-300))}`, ms);
    assert.equal(`${this.code} ${this.reason}`, `${code} ${reason ?? this.reason}`, this.text.slice(-300));
  }

  leave() {
    this.ws.terminate();
  }
}

/** In a browser: messages go to xterm.js as they are, and so must be strings. */
export class WebTerminal extends Terminal {
  windowOpen = true;

  onMessage(data, isBinary) {
    assert.ok(!isBinary, 'term.write() of a Blob writes nothing');
    this.text += data.toString();
  }

  onClose(code) {
    if (code === 1000) {
      this.text += '\r\nProcess exited.\r\n';
      this.windowOpen = false;
    } else this.text += '\r\nConnection lost.\r\n';
  }

  /** A key or a paste. */
  type(text) {
    this.send(text);
  }
}

/** In a terminal: what comes is written as it is; each chunk of stdin is decoded by itself. */
export class Cli extends Terminal {
  bytes = [];

  connect(base, sandbox, options) {
    return super.connect(base, sandbox, { size: [220, 50], ...options });
  }

  onMessage(data) {
    this.bytes.push(data);
    this.text += data.toString();
  }

  onRefused() {
    this.status = 1;
  }

  onClose(code, reason) {
    if (reason) this.said = `Connection closed: ${code} ${reason}`;
    this.status ??= 0;
  }

  stdin(chunk) {
    if (chunk.length === 1 && chunk[0] === 0x0b) this.ws.close(1000, 'client disconnect'); // Ctrl-K
    else this.send(chunk.toString('utf8'));
  }
}

/** GET /pty/:id/stream: its events, held against openapi.yaml. */
export class PtyStream {
  events = [];
  text = '';
  comments = 0;
  ended = deferred();
  #wake = new Set();

  static async open(client, sandbox, { kind = 'pty', query = {}, lastEventId, headers = {} } = {}) {
    const stream = new PtyStream();
    stream.path = `/${kind}/${sandbox}/stream?${new URLSearchParams(query)}`;
    await within(
      new Promise((resolve, reject) => {
        stream.request = http.get(client.url + stream.path, {
          headers: client.allHeaders({ ...(lastEventId !== undefined && { 'Last-Event-ID': lastEventId }), ...headers }),
          agent: false,
        });
        stream.request.on('error', reject);
        stream.request.on('response', (response) => stream.#respond(response, resolve));
      }),
      `answer to ${stream.path}`,
    );
    return stream;
  }

  #respond(response, resolve) {
    this.status = response.statusCode;
    let rest = Buffer.alloc(0);
    response.on('error', () => {});
    response.on('data', (chunk) => {
      rest = Buffer.concat([rest, chunk]);
      if (this.status !== 200) return;
      for (let end; (end = rest.indexOf('\n\n')) >= 0; rest = rest.subarray(end + 2))
        this.#block(rest.subarray(0, end).toString());
      for (const wake of this.#wake) wake();
      this.#wake.clear();
    });
    const hold = (body) =>
      holdAgainstContract({ method: 'GET', path: this.path, status: this.status, headers: response.headers, body });
    if (this.status === 200) {
      hold(null);
      resolve();
    }
    response.on('close', () => {
      if (this.status !== 200) {
        hold(rest);
        this.problem = rest.length ? JSON.parse(rest) : null;
        resolve();
      }
      this.isEnded = true;
      this.ended.resolve();
      for (const wake of this.#wake) wake();
    });
  }

  #block(block) {
    if (block.startsWith(':')) this.comments++;
    if (block.startsWith(':') || block.startsWith('retry:')) return;
    const [, id, event, json] = block.match(/^id: ([0-9a-f]{16}:\d+)\nevent: (\w+)\ndata: (.*)$/) ?? assert.fail(block);
    const data = JSON.parse(json);
    holdPtyEvent(event, data);
    this.events.push({ id, event, data });
    if (event === 'output') this.text += data.data;
  }

  async shows(pattern) {
    while (!pattern.test(this.text)) {
      assert.ok(!this.isEnded, `${pattern}: the stream ended at ${JSON.stringify(this.text.slice(-300))}`);
      const woken = deferred();
      this.#wake.add(woken.resolve);
      await within(woken.promise, `${pattern} on ${this.path}; it has ${JSON.stringify(this.text.slice(-300))}`);
    }
  }

  /** Waits until the server has ended it; the last event. */
  async end() {
    await within(this.ended.promise, `end of ${this.path}`);
    return this.events.at(-1);
  }

  close() {
    this.request.destroy();
  }
}
