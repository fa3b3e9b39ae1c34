// follower.mjs -- a viewer as a browser is one: whenever its stream ends or cannot be had, it comes back with the last
// id that it saw. No byte may be missing or come twice.
import assert from 'node:assert/strict';
import { EventStream } from './sse.mjs';
import { DEADLINE_MS, deferred, until } from './wait.mjs';

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Follower {
  /**
   * connect() gives the client for the next connection. options: take(bytes, offset) judges output; from (an id); hangMs: the
   * longest time without a byte while output is expected (isQuiet is false); resets: allowed reasons; retryMs.
   */
  constructor(connect, id, { take = () => {}, from = '', hangMs = DEADLINE_MS, resets = [], retryMs = 20, checkEvery = 20 } = {}) {
    Object.assign(this, { connect, id, take, hangMs, resets, retryMs, checkEvery });
    this.lastId = from;
    this.offset = from ? Number(from.split(':')[1]) : 0;
    this.isQuiet = true;
    this.connections = 0;
    this.states = []; // all that were told
    this.seenResets = [];
    this.sizes = [];
    this.lastByteAt = performance.now();
    this.longestGapMs = 0; // between bytes, while they were expected
    this.longestGapEnd = 0; // when it was over
    this.exit = null;
    this.finished = deferred();
    this.finished.promise.catch(() => {});
    this.#run().then(this.finished.resolve, (error) => {
      this.error = error;
      this.stream?.close();
      this.finished.reject(error);
    });
  }

  async #run() {
    while (!this.isClosed) {
      try {
        this.stream = await EventStream.open(this.connect(), this.id, {
          format: 'base64',
          lastEventId: this.lastId,
          checkEvery: this.checkEvery,
        });
      } catch (error) {
        if (error.name === 'AssertionError' || error.constructor.name === 'ContractError') throw error;
        await this.#later('a connection');
        continue;
      }
      this.connections++;
      if (this.stream.status === 204) {
        assert.ok(this.exit, `204 of ${this.id} without its exit`);
        return;
      }
      if (this.stream.status !== 200) {
        const { status, problem } = this.stream;
        assert.ok([429, 503].includes(status), `${this.stream.path} -> ${status} ${JSON.stringify(problem)}`);
        await this.#later(`a stream (${status} ${problem?.type})`);
        continue;
      }
      await this.#read();
      if (this.exit) return;
      if (!this.isClosed) await this.#later('a stream that goes on');
    }
  }

  async #read() {
    for (;;) {
      const event = await this.stream.next('output', 250).catch((error) => {
        if (!/^not within/.test(error.message)) throw error;
        return undefined;
      });
      if (event === undefined) this.#isLate('output');
      else if (event === null) return;
      else this.#event(event);
    }
  }

  #event(event) {
    if (event.id) this.lastId = event.id;
    if (event.event === 'output') this.#output(event);
    else if (event.event === 'resize') this.sizes.push({ ...event.data, offset: event.offset });
    else if (event.event === 'state') this.states.push(event.data.state);
    else if (event.event === 'exit') this.exit = event.data;
    else {
      this.seenResets.push(event.data);
      assert.ok(this.resets.includes(event.data.reason), `reset of ${this.id} at ${this.offset}: ${event.raw}`);
      this.offset = event.data.offset;
    }
  }

  #output({ bytes, from, offset }) {
    assert.equal(from, this.offset, `output of ${this.id} goes on at ${this.offset}`);
    const now = performance.now();
    if (!this.isQuiet && now - this.lastByteAt > this.longestGapMs) {
      this.longestGapMs = now - this.lastByteAt;
      this.longestGapEnd = now;
    }
    this.lastByteAt = now;
    this.take(bytes, from);
    this.offset = offset;
  }

  #isLate(what) {
    const ms = performance.now() - this.lastByteAt;
    if (this.isQuiet || ms < this.hangMs) return;
    throw new Error(`hang: ${this.id} waits for ${what} at ${this.offset} for ${Math.round(ms)} ms; states ${this.states.slice(-4)}`);
  }

  async #later(what) {
    this.#isLate(what);
    await pause(this.retryMs);
  }

  /** From now on output is expected, or not any more. */
  expects(isExpected) {
    this.lastByteAt = performance.now();
    this.isQuiet = !isExpected;
  }

  /** Waits until it has all before offset. */
  async reached(offset, ms = DEADLINE_MS * 2) {
    await until(
      () => {
        if (this.error) throw this.error;
        return this.offset >= offset;
      },
      `output to ${offset}`,
      ms,
    ).catch((error) => {
      error.message += ` of ${this.id}: at ${this.offset}, ${this.connections} connections, states ${this.states.slice(-6)}`;
      throw error;
    });
  }

  /** Waits for the exit event: its data. */
  async ended(ms = DEADLINE_MS * 2) {
    await until(
      () => {
        if (this.error) throw this.error;
        return this.exit;
      },
      `exit of ${this.id} (at ${this.offset})`,
      ms,
    );
    return this.exit;
  }

  /** Leaves; rejects when something was wrong. */
  async close() {
    this.isClosed = true;
    this.stream?.close();
    if (this.error) throw this.error;
  }
}
