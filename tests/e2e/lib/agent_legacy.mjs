// agent_legacy.mjs -- a client of the original's dialect, as far as the agent's tests need one.
import WebSocket from 'ws';
import { DEADLINE_MS, within } from './wait.mjs';

export class Legacy {
  /** Attaches to the shell of a handshake line. */
  static async connect(handshake, options) {
    const c = new Legacy(handshake, options);
    await within(c.opened, 'upgrade');
    return c;
  }

  constructor({ port, processId, token }, { ready = false } = {}) {
    this.messages = [];
    this.waiters = new Set();
    const query = new URLSearchParams({ processId: String(processId), token });
    this.ws = new WebSocket(`ws://127.0.0.1:${port}/ws/client?${query}`);
    this.ws.on('message', (data, binary) => {
      if (!binary) throw new Error('a text message from the agent');
      this.messages.push(data);
      this.#wake();
    });
    this.closed = new Promise((resolve) => {
      this.ws.on('close', (code, reason) => {
        this.close = { code, reason: reason.toString() };
        resolve(this.close);
        this.#wake();
      });
    });
    this.opened = new Promise((resolve, reject) => {
      this.ws.on('open', resolve);
      this.ws.on('error', reject);
    });
    this.opened.catch(() => {});
    if (ready) this.opened.then(() => this.ready());
  }

  #wake() {
    for (const look of [...this.waiters]) look();
  }

  until(look, what, ms = DEADLINE_MS) {
    let again;
    const promise = new Promise((resolve, reject) => {
      again = () => {
        if (look()) resolve();
        else if (this.close) reject(new Error(`closed with ${this.close.code} while waiting for ${what}`));
      };
      this.waiters.add(again);
      again();
    });
    return within(promise, what, ms).finally(() => this.waiters.delete(again));
  }

  get output() {
    return Buffer.concat(this.messages);
  }

  get text() {
    return this.output.toString();
  }

  sees(text) {
    return this.until(() => this.text.includes(text), `output ${JSON.stringify(text)}`);
  }

  raw(...bytes) {
    this.ws.send(Buffer.from(bytes));
  }

  type(data) {
    this.ws.send(Buffer.concat([Buffer.from([0]), Buffer.from(data)]));
  }

  resize(cols, rows) {
    this.raw(1, cols >> 8, cols & 255, rows >> 8, rows & 255);
  }

  ready() {
    this.raw(2);
  }

  leave() {
    this.ws.close(1000);
    return within(this.closed, 'close');
  }
}
