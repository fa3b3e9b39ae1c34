// typist.mjs -- somebody who types numbered messages, and repeats each with its number until it is surely typed, wherever the
// answers come from or get lost.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { DEADLINE_MS } from './wait.mjs';

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Typist {
  /** connect() gives the client for the next request. */
  constructor(connect, id, { retryMs = 20, timeout = DEADLINE_MS } = {}) {
    Object.assign(this, { connect, id, retryMs, timeout });
    this.client = randomBytes(8).toString('hex');
    this.seq = 0;
    this.repeats = 0;
    this.longestMs = 0; // until 204
  }

  /** Types the next message; resolves when it is typed. */
  type(body, ms = DEADLINE_MS * 2) {
    return this.#send(++this.seq, body, ms);
  }

  /** One message again. */
  again(seq, body, ms = DEADLINE_MS * 2) {
    return this.#send(seq, body, ms);
  }

  async #send(seq, body, ms) {
    const start = performance.now();
    let last;
    for (let tries = 0; ; tries++) {
      try {
        const answer = await this.connect().request('POST', `/sessions/${this.id}/input`, {
          body,
          headers: { 'Input-Client': this.client, 'Input-Seq': String(seq) },
          timeout: this.timeout,
        });
        last = `${answer.status} ${answer.text}`;
        if (answer.status === 204) break;
        const mayRepeat = [429, 503].includes(answer.status) || /input-gap/.test(answer.text);
        assert.ok(mayRepeat, `message ${seq} to ${this.id}: ${last}`);
      } catch (error) {
        if (error.name === 'AssertionError' || error.constructor.name === 'ContractError') throw error;
        last = error.message;
      }
      this.repeats++;
      if (performance.now() - start > ms) throw new Error(`message ${seq} to ${this.id} not typed in ${ms} ms: ${last}`);
      await pause(this.retryMs);
    }
    this.longestMs = Math.max(this.longestMs, performance.now() - start);
  }
}
