// ws.mjs -- a viewer of GET /sessions/{id}/ws by the npm package ws; its messages are held against
// openapi.yaml, and their offsets against each other.
import assert from 'node:assert/strict';
import WebSocket from 'ws';
import { holdMessage } from './contract.mjs';
import { parseId } from './sse.mjs';
import { DEADLINE_MS, deferred, within } from './wait.mjs';

export class Socket {
  /** Opens one and resolves when it is upgraded or refused ({refused: {status, body}}). */
  static async open(client, id, options = {}) {
    const socket = new Socket(client, id, options);
    await within(socket.#opened.promise, `upgrade of ${socket.path}`);
    return socket;
  }

  #opened = deferred();
  #queue = [];
  #wake = null;

  constructor(client, id, { mode, since, ticket, headers = {}, credential = client.credential, ...options }) {
    const query = new URLSearchParams({ ...(mode && { mode }), ...(since && { since }), ...(ticket && { ticket }) });
    this.path = `/sessions/${id}/ws${`${query}` && `?${query}`}`;
    this.mode = mode ?? 'text';
    this.position = null;
    this.closed = deferred();
    this.ws = new WebSocket(client.url.replace('http', 'ws') + this.path, {
      headers: { ...(credential && { Authorization: `Bearer ${credential}` }), ...headers },
      perMessageDeflate: false,
      ...options,
    });
    this.ws.on('open', () => this.#opened.resolve());
    this.ws.on('unexpected-response', (request, response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('end', () => {
        this.refused = { status: response.statusCode, body: Buffer.concat(chunks), headers: response.headers };
        this.#opened.resolve();
      });
    });
    this.ws.on('error', (error) => {
      this.error = error;
      this.#opened.reject(error);
      this.#opened.promise.catch(() => {});
    });
    this.ws.on('close', (code, reason) => {
      this.code = code;
      this.reason = reason.toString();
      this.closed.resolve(code);
      this.#wake?.();
    });
    this.ws.on('message', (data, isBinary) => {
      try {
        this.#queue.push(isBinary ? this.#binary(data) : this.#text(data));
      } catch (error) {
        this.failure = error;
      }
      this.#wake?.();
    });
  }

  #binary(data) {
    assert.equal(this.mode, 'binary', 'binary messages come in binary mode only');
    assert.ok(data.length > 8, 'output is not empty');
    const offset = Number(data.readBigUInt64BE(0));
    const bytes = data.subarray(8);
    const event = { event: 'output', offset, bytes, from: offset - bytes.length };
    if (this.position) assert.equal(event.from, this.position.offset, 'output goes on');
    this.position = { ...this.position, offset };
    return event;
  }

  #text(data) {
    let message;
    try {
      message = JSON.parse(data.toString());
    } catch (error) {
      throw new Error(`not JSON (${error.message}): ${data}`);
    }
    holdMessage(message);
    if (message.id) {
      Object.assign(message, { at: message.offset }, parseId(message.id));
      this.position = { epoch: message.epoch, offset: message.offset };
    }
    if (message.event === 'output') {
      assert.equal(this.mode, 'text', 'output is text in text mode only');
      message.bytes = Buffer.from(message.data);
      message.from = message.offset - message.bytes.length;
    }
    return message;
  }

  async next(what = 'message', ms = DEADLINE_MS) {
    while (this.#queue.length === 0) {
      if (this.failure) throw this.failure;
      if (this.refused || this.code !== undefined) return null;
      const woken = deferred();
      this.#wake = woken.resolve;
      await within(woken.promise, `${what} on ${this.path} (at ${JSON.stringify(this.position)})`, ms);
    }
    return this.#queue.shift();
  }

  async until(test, what = 'message', ms = DEADLINE_MS) {
    const messages = [];
    for (;;) {
      const message = await this.next(what, ms);
      assert.ok(message, `${what}: closed with ${this.code} ${this.reason} after ${messages.map((m) => m.event)}`);
      messages.push(message);
      if (test(message)) return messages;
    }
  }

  async first(event, ms) {
    return (await this.until((m) => m.event === event, event, ms)).at(-1);
  }

  /** Messages until the output has reached offset. */
  to(offset, ms) {
    return this.until((m) => m.event === 'output' && m.offset >= offset, `output to ${offset}`, ms);
  }

  send(message) {
    this.ws.send(typeof message === 'object' && !Buffer.isBuffer(message) ? JSON.stringify(message) : message);
  }

  /** Binary input: number (0 = none) and bytes. */
  input(seq, bytes) {
    const head = Buffer.alloc(8);
    head.writeBigUInt64BE(BigInt(seq));
    this.ws.send(Buffer.concat([head, Buffer.from(bytes)]));
  }

  /** Resolves with the close code. */
  end(ms) {
    return within(this.closed.promise, `close of ${this.path}`, ms);
  }

  close() {
    this.ws.terminate();
  }
}
