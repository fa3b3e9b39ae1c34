// stream.mjs -- what tests/tools/stream.c writes, byte by byte, and the sums it gives at its end.
import assert from 'node:assert/strict';

const LINE_BYTES = 64;
const END = 0x3d; // "=", which is not in the stream
const digits = Buffer.from('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+-');

function mix(h) {
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function fillLine(line, seed, number) {
  line.latin1Write(`${number.toString(16).padStart(8, '0')} `, 0);
  const base = seed ^ Math.imul(number, 0x9e3779b1);
  for (let at = 9, word = 1; at < LINE_BYTES - 1; word++) {
    let random = mix(base + Math.imul(word, 0x7f4a7c15));
    for (let i = 0; i < 5 && at < LINE_BYTES - 1; i++, random >>>= 6) line[at++] = digits[random & 63];
  }
  line[LINE_BYTES - 1] = 0x0a;
}

/** The bytes [from, to) of a seed's stream. */
export function stream(seed, from, to) {
  const first = Math.floor(from / LINE_BYTES);
  const last = Math.ceil(to / LINE_BYTES);
  const buffer = Buffer.allocUnsafe((last - first) * LINE_BYTES);
  for (let number = first; number < last; number++)
    fillLine(buffer.subarray((number - first) * LINE_BYTES, (number - first + 1) * LINE_BYTES), seed, number);
  return buffer.subarray(from - first * LINE_BYTES, to - first * LINE_BYTES);
}

const table = Uint32Array.from({ length: 256 }, (_, i) => {
  let crc = i;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc >>> 0;
});

/** Bytes, counted and summed up (CRC-32). */
export class Sum {
  bytes = 0;
  #crc = 0xffffffff;

  add(data) {
    let crc = this.#crc;
    for (let i = 0; i < data.length; i++) crc = table[(crc ^ data[i]) & 255] ^ (crc >>> 8);
    this.#crc = crc;
    this.bytes += data.length;
  }

  toString() {
    return `${this.bytes} ${(~this.#crc >>> 0).toString(16).padStart(8, '0')}`;
  }
}

/** Judges what a viewer of one session sees, in order. */
export class Judge {
  constructor(seed) {
    this.seed = seed;
    this.seen = new Sum();
    this.end = null; // what follows the stream
  }

  take(bytes, at) {
    if (this.end !== null) {
      this.end += bytes.toString('latin1');
      return;
    }
    const expected = stream(this.seed, at, at + bytes.length);
    let good = bytes.length;
    if (!expected.equals(bytes)) for (good = 0; bytes[good] === expected[good]; ) good++;
    this.seen.add(bytes.subarray(0, good));
    if (good === bytes.length) return;
    const show = (b) => JSON.stringify(b.subarray(Math.max(0, good - 16), good + 80).toString('latin1'));
    assert.equal(bytes[good], END, `the stream differs at ${at + good}: got ${show(bytes)}, expected ${show(expected)}`);
    this.end = bytes.subarray(good).toString('latin1');
  }

  /** Fails unless the stream came to its end, and these were typed. */
  finish(typed) {
    assert.equal(this.end, `=END ${this.seen} ${typed}\n`, 'the sums at the end');
  }
}
