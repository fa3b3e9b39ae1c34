// pattern.mjs -- what tests/tools/pattern.c writes, and a session that runs it.
import assert from 'node:assert/strict';
import { program } from './flavour.mjs';
import { EventStream } from './sse.mjs';
import { DEADLINE_MS, until } from './wait.mjs';

const filler = Buffer.from(Array.from({ length: 90 + 64 }, (_, i) => 33 + (i % 90)));
const hex = Array.from({ length: 4096 }, (_, i) => i.toString(16).padStart(3, '0'));

const cells = {
  lines: [64, (cell, index) => textCell(cell, index, 0x0a)],
  line: [64, (cell, index) => textCell(cell, index, 0x20)],
  utf8: [16, (cell, index) => cell.write(`${(index & 0xfffff).toString(16).padStart(5, '0')}é€😀. `, 'utf8')],
  bytes: [
    64,
    (cell, index) => {
      for (let i = 0, p = index * 64; i < 64; i++, p++)
        cell[i] = p * 131 + Math.floor(p / 256) * 29 + Math.floor(p / 65536) * 17;
    },
  ],
};

function textCell(cell, line, last) {
  cell.latin1Write('000000', 0);
  cell.latin1Write(hex[Math.floor(line / 16777216) & 4095], 6);
  cell.latin1Write(hex[Math.floor(line / 4096) & 4095], 9);
  cell.latin1Write(hex[line & 4095], 12);
  cell[15] = 0x20;
  const from = (line + 16) % 90;
  filler.copy(cell, 16, from, from + 47);
  cell[63] = last;
}

/** The bytes [from, to) of a mode's pattern. */
export function pattern(mode, from, to) {
  const [size, fill] = cells[mode];
  const first = Math.floor(from / size);
  const last = Math.ceil(to / size);
  const buffer = Buffer.alloc((last - first) * size);
  for (let index = first; index < last; index++)
    fill(buffer.subarray((index - first) * size, (index - first + 1) * size), index);
  return buffer.subarray(from - first * size, to - first * size);
}

/** Fails unless bytes are what the pattern has from position on; says where they differ. */
export function assertPattern(mode, position, bytes) {
  const expected = pattern(mode, position, position + bytes.length);
  if (expected.equals(bytes)) return;
  let i = 0;
  while (bytes[i] === expected[i]) i++;
  const show = (b) => JSON.stringify(b.subarray(Math.max(0, i - 16), i + 48).toString('latin1'));
  assert.fail(
    `pattern ${mode} differs at ${position + i} (${i} of ${bytes.length}): ` +
      `got ${show(bytes)}, expected ${show(expected)}`,
  );
}

/** A session whose output is a pattern: its journal's offsets are the pattern's positions. */
export class PatternShell {
  /** options: id, sandbox, cols, rows, first (bytes written at the start), and all that POST takes. */
  static async create(client, mode, { first = 64, exit, sandbox = 'local', ...rest } = {}) {
    const command = [program('tests/tools/pattern'), mode, String(first)];
    if (exit !== undefined) command.push('exit', String(exit));
    const session = await client.createOpen({ sandbox, command, ...rest });
    const shell = new PatternShell(client, mode, session);
    shell.written = first;
    await shell.reached(first); // then echo is off
    return shell;
  }

  constructor(client, mode, session) {
    this.client = client;
    this.mode = mode;
    this.session = session;
    this.id = session.id;
    this.path = `/sessions/${session.id}`;
    this.epoch = session.epoch;
    this.written = 0;
  }

  /** An SSE viewer; base64 unless said otherwise. */
  view(options = {}) {
    return EventStream.open(this.client, this.id, { format: 'base64', ...options });
  }

  idAt(offset) {
    return `${this.epoch}:${offset}`;
  }

  async type(text) {
    const answer = await this.client.post(`${this.path}/input`, { body: text });
    answer.is(204);
  }

  /** Lets it write the next bytes, in pieces of that size with a pause between when given. */
  async write(bytes, piece) {
    this.written += bytes;
    await this.type(piece ? `c ${bytes} ${piece}\n` : `w ${bytes}\n`);
  }

  /** Lets it print text that is not of the pattern. */
  async print(text) {
    await this.type(`t ${text}\n`);
  }

  async exit(code = 0) {
    await this.type(`x ${code}\n`);
  }

  async info() {
    const answer = await this.client.get(this.path);
    return answer.is(200).json;
  }

  /** Waits until the head has reached offset; returns the session. */
  reached(offset) {
    return until(async () => {
      const session = await this.info();
      this.epoch = session.epoch;
      return session.offset >= offset && session;
    }, `offset ${offset} of ${this.id}`);
  }

  /** Waits until it has ended; returns the session. */
  ended() {
    return until(async () => {
      const session = await this.info();
      return session.state === 'ended' && session;
    }, `end of ${this.id}`);
  }

  assert(position, bytes) {
    assertPattern(this.mode, position, bytes);
  }
}

/** A viewer that comes back with its last id whenever its stream ends, until it has all up to end: the bytes it saw. */
export async function follow(shell, service, end, progress = {}) {
  const pieces = [];
  for (let id = ''; ;) {
    let stream;
    try {
      stream = await EventStream.open(service.client(), shell.id, { format: 'base64', lastEventId: id });
    } catch {
      await new Promise((resolve) => setImmediate(resolve)); // nobody listens at the moment
      continue;
    }
    assert.equal(stream.status, 200);
    for (let event; (event = await stream.next('output', DEADLINE_MS * 2)) !== null;) {
      assert.notEqual(event.event, 'reset', `no reset: ${event.raw}`);
      if (event.id) id = event.id;
      progress.offset = event.offset ?? progress.offset;
      if (event.bytes) pieces.push(event.bytes);
      if (event.offset >= end) {
        stream.close();
        return Buffer.concat(pieces);
      }
    }
  }
}
