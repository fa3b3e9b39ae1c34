// agent_v2.mjs -- a client of the agent's version 2 (docs/agent-protocol.md), for tests. It starts agents,
// speaks frames over the npm package `ws`, and keeps in order what it was told.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { after } from 'node:test';
import WebSocket from 'ws';
import { program } from './flavour.mjs';
import { reset } from './proxy.mjs';
import { DEADLINE_MS, within } from './wait.mjs';

export const AGENT = program('ptycast-agent');
export const OLDEST = 2n ** 64n - 1n;
const PATH = '/ws/client?v=2';

export const TYPE = {
  OPEN: 0x10, ATTACH: 0x11, INPUT: 0x12, RESIZE: 0x13, SIGNAL: 0x14, ACK: 0x15, CLOSE: 0x16, FORGET: 0x17,
  HELLO: 0x20, OPENED: 0x21, ATTACHED: 0x22, DATA: 0x23, SIZE: 0x24, INPUT_ACK: 0x25, SIGNALED: 0x26,
  EXIT: 0x27, ERROR: 0x28,
};
export const VERDICT = { QUEUED: 0, REPEATED: 1, FULL: 2, GAP: 3, ENDED: 4 };
export const EXIT = { EXITED: 0, SIGNAL: 1, UNKNOWN: 2 };
export const ERR = {
  BAD_FRAME: 1, NO_SHELL: 2, COMMAND: 3, NO_PTY: 4, LIMIT: 5, DENIED: 6, CWD: 7, DIFFERS: 8, INTERNAL: 9,
};

const number = (size, write) => (n) => {
  const b = Buffer.alloc(size);
  b[write](n);
  return b;
};
const u8 = number(1, 'writeUInt8');
const u16 = number(2, 'writeUInt16BE');
const u32 = number(4, 'writeUInt32BE');
const u64 = (n) => number(8, 'writeBigUInt64BE')(BigInt(n));
const bytes = (x) => (Buffer.isBuffer(x) ? x : Buffer.from(x));
const counted = (count, x) => Buffer.concat([count(bytes(x).length), bytes(x)]);
const strings = (list) => Buffer.concat([u16(list.length), ...list.map((s) => counted(u32, s))]);

/** Frames from client to agent. */
export const encode = {
  open: ({ id, command = [], env = {}, cwd = '', cols = 80, rows = 24, alone = 0, linger = 0, ring = 0 }) =>
    Buffer.concat([
      u8(TYPE.OPEN), counted(u8, id), u16(cols), u16(rows), u32(alone), u32(linger), u32(ring),
      counted(u16, cwd), strings(command), strings(Object.entries(env).map(([k, v]) => `${k}=${v}`)),
    ]),
  attach: ({ id, fence = 0, epoch = 0n, offset = OLDEST }) =>
    Buffer.concat([u8(TYPE.ATTACH), counted(u8, id), u64(fence), u64(epoch), u64(offset)]),
  input: ({ data, request = 0, client = Buffer.alloc(16), seq = 0 }) =>
    Buffer.concat([u8(TYPE.INPUT), u64(request), client, u64(seq), bytes(data)]),
  resize: (cols, rows) => Buffer.concat([u8(TYPE.RESIZE), u16(cols), u16(rows)]),
  signal: (signal, request = 0) => Buffer.concat([u8(TYPE.SIGNAL), u64(request), u8(signal)]),
  ack: (offset) => Buffer.concat([u8(TYPE.ACK), u64(offset)]),
  close: () => u8(TYPE.CLOSE),
  forget: () => u8(TYPE.FORGET),
};

/** A frame from the agent, as an object with the name of its type. */
export function decode(b) {
  const u64At = (at) => b.readBigUInt64BE(at);
  switch (b[0]) {
    case TYPE.HELLO:
      return { type: 'hello', version: b[1], instance: u64At(2) };
    case TYPE.OPENED:
      return {
        type: 'opened', created: b[1] === 1, epoch: u64At(2), pid: b.readUInt32BE(10),
        token: b.toString('latin1', 15, 15 + b[14]),
      };
    case TYPE.ATTACHED:
      return {
        type: 'attached', epoch: u64At(1), start: u64At(9), head: u64At(17), fence: u64At(25),
        cols: b.readUInt16BE(33), rows: b.readUInt16BE(35),
      };
    case TYPE.DATA:
      return { type: 'data', offset: u64At(1), bytes: b.subarray(9) };
    case TYPE.SIZE:
      return { type: 'size', offset: u64At(1), cols: b.readUInt16BE(9), rows: b.readUInt16BE(11) };
    case TYPE.INPUT_ACK:
      return { type: 'input_ack', request: u64At(1), verdict: b[9], expected: u64At(10) };
    case TYPE.SIGNALED:
      return { type: 'signaled', request: u64At(1), error: b[9] };
    case TYPE.EXIT:
      return { type: 'exit', end: u64At(1), kind: b[9], value: b[10] };
    case TYPE.ERROR:
      return { type: 'error', code: b.readUInt16BE(1), text: b.toString('utf8', 3) };
    default:
      throw new Error(`unknown type ${b[0]} of ${b.length} bytes`);
  }
}

// What a failed test leaves behind would keep the test's process alive.
const children = new Set();
after(() => {
  for (const child of children) child.kill('SIGKILL');
});

/** A running agent, or a runner of --mode=client. */
export class Agent {
  /** Starts it and reads its handshake line. */
  static async start(args = [], { mode = 'agent', env = {}, prefix = [], file = AGENT } = {}) {
    const agent = new Agent([...prefix, file, `--mode=${mode}`, '--listen=127.0.0.1', ...args], env);
    await agent.handshakes();
    return agent;
  }

  constructor([file, ...args], env = {}) {
    this.stdout = '';
    this.stderr = '';
    this.child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    children.add(this.child);
    this.child.on('exit', () => children.delete(this.child));
    this.child.stdout.on('data', (d) => (this.stdout += d));
    this.child.stderr.on('data', (d) => (this.stderr += d));
    this.exited = once(this.child, 'exit').then(([code, signal]) => ({ code, signal }));
    this.closed = once(this.child, 'close').then(([code, signal]) => ({ code, signal }));
  }

  async handshakes() {
    await within(
      new Promise((resolve, reject) => {
        const look = () => this.stdout.includes('\n') && resolve();
        this.child.stdout.on('data', look);
        this.closed.then(({ code }) => reject(new Error(`status ${code} before the handshake: ${this.stderr}`)));
      }),
      'handshake line',
    );
    this.handshake = JSON.parse(this.stdout.slice(0, this.stdout.indexOf('\n')));
    this.port = this.handshake.port;
    this.control = this.handshake.control ?? this.handshake.token;
  }

  /** Ends it in order. */
  async stop() {
    this.child.kill('SIGTERM');
    return within(this.exited, 'end of the agent');
  }
}

let requests = 0;

/** One connection of version 2. What comes is in `frames`, output apart in `chunks`. */
export class Tunnel {
  static async connect(agent, options) {
    const t = new Tunnel(agent, options);
    await within(t.opened, 'upgrade');
    return t;
  }

  /** A connection with a new shell on it. */
  static async open(agent, open, { attach, ...options } = {}) {
    const t = await Tunnel.connect(agent, options);
    await t.start({ id: randomId(), ...open }, attach);
    return t;
  }

  constructor(agent, { token = agent.control, ackEvery = 128 * 1024, onBytes, headers = {}, path = PATH } = {}) {
    this.frames = [];
    this.chunks = []; // {offset, bytes}
    this.gaps = []; // {expected, offset}
    this.next = undefined; // offset expected
    this.acked = 0n;
    this.ackEvery = ackEvery; // 0: never
    this.onBytes = onBytes; // (offset, bytes): takes the output in place of chunks
    this.waiters = new Set();
    this.ws = new WebSocket(`ws://127.0.0.1:${agent.port}${path}`, { headers: { 'Ptycast-Token': token, ...headers } });
    this.ws.on('upgrade', (response) => (this.upgrade = response));
    this.ws.on('message', (data, binary) => this.#take(data, binary));
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
  }

  #take(data, binary) {
    if (!binary) throw new Error('a text message from the agent');
    const frame = decode(data);
    if (frame.type !== 'data') {
      if (frame.type === 'attached') this.next = this.acked = frame.start;
      this.frames.push(frame);
    } else {
      if (frame.offset !== this.next) this.gaps.push({ expected: this.next, offset: frame.offset });
      if (this.onBytes) this.onBytes(frame.offset, frame.bytes);
      else this.chunks.push({ offset: frame.offset, bytes: frame.bytes });
      this.next = frame.offset + BigInt(frame.bytes.length);
      if (this.ackEvery && this.next - this.acked >= BigInt(this.ackEvery)) this.ack();
    }
    this.#wake();
  }

  #wake() {
    for (const look of [...this.waiters]) look();
  }

  /** Waits until look() gives something truthy, and resolves to it. */
  until(look, what, ms = DEADLINE_MS) {
    let again;
    const promise = new Promise((resolve, reject) => {
      again = () => {
        const found = look();
        if (found) this.waiters.delete(again); // at once: look() may take something
        if (found) resolve(found);
        else if (this.close) reject(new Error(`closed with ${this.close.code} while waiting for ${what}`));
      };
      this.waiters.add(again);
      again();
    });
    return within(promise, what, ms).finally(() => this.waiters.delete(again));
  }

  /** The next frame of a type that was not taken yet. */
  frame(type, matches = () => true) {
    const take = () => {
      const i = this.frames.findIndex((f) => f.type === type && matches(f));
      return i >= 0 && this.frames.splice(i, 1)[0];
    };
    return this.until(take, `frame ${type}`);
  }

  get output() {
    return Buffer.concat(this.chunks.map((c) => c.bytes));
  }

  get text() {
    return this.output.toString();
  }

  /** Waits until the output holds text. */
  sees(text) {
    return this.until(() => this.text.includes(text), `output ${JSON.stringify(text)}`);
  }

  send(frame) {
    this.ws.send(frame);
  }

  /** All before the offset is done with; without one, all that came. */
  ack(offset = this.next) {
    this.acked = offset;
    this.send(encode.ack(offset));
  }

  /** OPEN and ATTACH in one go. */
  async start(open, attach = {}) {
    this.id = open.id;
    this.send(encode.open(open));
    this.send(encode.attach({ id: open.id, ...attach }));
    this.openedFrame = await this.frame('opened');
    this.attachedFrame = await this.frame('attached');
  }

  async attach(options) {
    this.id = options.id;
    this.send(encode.attach(options));
    return (this.attachedFrame = await this.frame('attached'));
  }

  /** Types, and resolves to the answer. */
  input(data, more = {}) {
    const request = BigInt(++requests);
    this.send(encode.input({ data, ...more, request }));
    return this.frame('input_ack', (f) => f.request === request);
  }

  signal(signal) {
    const request = BigInt(++requests);
    this.send(encode.signal(signal, request));
    return this.frame('signaled', (f) => f.request === request);
  }

  /** Leaves with a close frame. */
  leave(code = 1000) {
    this.ws.close(code);
    return within(this.closed, 'close');
  }

  /** Cuts the connection. */
  cut() {
    reset(this.ws._socket);
    return within(this.closed, 'end of a connection that was cut');
  }

  /** Reads nothing more until go(). */
  stall() {
    this.ws._socket.pause();
  }

  go() {
    this.ws._socket.resume();
  }
}

export const randomId = () => `t-${randomBytes(8).toString('hex')}`;
export const randomClient = () => randomBytes(16);

export function isRunning(pid) {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
