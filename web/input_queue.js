// input_queue.js -- what is typed, in order and once. Keystrokes made while a request is under way
// go together as the next one; a request that failed is repeated under its old number, which the
// agent knows, so that a lost answer types nothing twice.
import { backoffMs, randomId } from './backoff.js';

const PIECE_BYTES = 64 * 1024;
const QUEUE_BYTES = 16 * 1024 * 1024;

function inTime(fn, ms) {
  const timer = setTimeout(fn, ms);
  return () => clearTimeout(timer);
}

export class InputQueue {
  #send;
  #window;
  #on;
  #client;
  #nextSeq = 1;
  #waiting = []; // Uint8Array, not numbered yet
  #waitingBytes = 0;
  #sent = []; // {seq, bytes, underway}: numbered, not acknowledged, in order
  #failures = 0;
  #resyncs = 0;
  #later;
  #cancelRetry = null; // set while the next try waits for its time
  #blocked = false;
  #stopped = false;

  /**
   * @param {object} options
   * @param {(client: string, seq: number, bytes: Uint8Array) => Promise<void>} options.send resolves
   *   when the shell has them; rejects with an ApiError
   * @param {() => number} [options.window] how many may be under way at once
   * @param {string} [options.client] the Input-Client to begin with
   * @param {(fn: () => void, ms: number) => () => void} [options.later] calls fn in ms; returns what prevents it
   * @param {object} [options.on] delayed(error), delivered(), refused(error): refused is what a repeat
   *   cannot mend: 401 keeps the bytes for unblock(), all others drop them
   */
  constructor({ send, window = () => 1, client = randomId(), later = inTime, on = {} }) {
    this.#send = send;
    this.#window = window;
    this.#client = client;
    this.#later = later;
    this.#on = on;
  }

  get client() {
    return this.#client;
  }

  /** Bytes that the shell is not known to have. */
  get pendingBytes() {
    return this.#sent.reduce((sum, item) => sum + item.bytes.length, this.#waitingBytes);
  }

  /** @returns {boolean} false when they do not fit; then none of them is taken */
  push(bytes) {
    if (this.#stopped || bytes.length === 0) return true;
    if (this.pendingBytes + bytes.length > QUEUE_BYTES) return false;
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    this.#pump();
    return true;
  }

  /** The way is open again: do not wait for the timer. */
  retryNow() {
    if (this.#cancelRetry) this.#retry();
  }

  /** There is a new credential. */
  unblock() {
    this.#blocked = false;
    this.#retry();
  }

  /** Forgets all that is not sent, for good. */
  stop() {
    this.#stopped = true;
    this.#drop();
    this.#cancelRetry?.();
    this.#cancelRetry = null;
  }

  #drop() {
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#sent = [];
  }

  #retry() {
    this.#cancelRetry?.();
    this.#cancelRetry = null;
    this.#pump();
  }

  #pump() {
    if (this.#stopped || this.#blocked || this.#cancelRetry) return;
    for (const item of this.#sent) if (!item.underway) this.#attempt(item);
    while (this.#waitingBytes > 0 && this.#sent.length < this.#window()) {
      const item = { seq: this.#nextSeq++, bytes: this.#takePiece(), underway: false };
      this.#sent.push(item);
      this.#attempt(item);
    }
  }

  #takePiece() {
    const piece = new Uint8Array(Math.min(PIECE_BYTES, this.#waitingBytes));
    let filled = 0;
    while (filled < piece.length) {
      const part = this.#waiting[0].subarray(0, piece.length - filled);
      piece.set(part, filled);
      filled += part.length;
      if (part.length === this.#waiting[0].length) this.#waiting.shift();
      else this.#waiting[0] = this.#waiting[0].subarray(part.length);
    }
    this.#waitingBytes -= piece.length;
    return piece;
  }

  async #attempt(item) {
    item.underway = true;
    const { seq } = item;
    try {
      await this.#send(this.#client, seq, item.bytes);
    } catch (error) {
      item.underway = false;
      if (!this.#stopped && this.#sent.includes(item)) this.#failed(item, error);
      return;
    }
    this.#sent = this.#sent.filter((other) => other !== item);
    this.#failures = 0;
    this.#resyncs = 0;
    if (this.#stopped) return;
    this.#on.delivered?.();
    this.#pump();
  }

  #failed(item, error) {
    if (error.status === 401) {
      this.#blocked = true;
      this.#on.refused?.(error);
    } else if (error.slug === 'input-gap' && this.#sent.some((other) => other.underway || other.seq === error.problem.expected)) {
      this.#delay(error); // an earlier one of ours is late, and comes again before this one
    } else if (error.slug === 'input-gap' && this.#resyncs < 3) {
      this.#resyncs++;
      this.#renumber();
      this.#pump();
    } else if (error.transient) {
      this.#delay(error);
    } else {
      this.#drop();
      this.#on.refused?.(error);
    }
  }

  #delay(error) {
    if (this.#cancelRetry) return;
    this.#failures++;
    this.#cancelRetry = this.#later(() => this.#retry(), backoffMs(this.#failures, error.retryAfterMs));
    this.#on.delayed?.(error);
  }

  // The far end does not know our numbers any more (it remembers so many clients): begin as a new
  // client. What it refused for the gap was not typed.
  #renumber() {
    this.#client = randomId();
    this.#nextSeq = 1;
    for (const item of this.#sent) item.seq = this.#nextSeq++;
  }
}
