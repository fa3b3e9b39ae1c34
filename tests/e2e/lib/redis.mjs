// redis.mjs -- a real redis-server on a loopback port, with a directory of its own: it is killed, stopped,
// emptied and restarted under those who use it.
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { Child } from './service.mjs';
import { until, within } from './wait.mjs';

/**
 * A port that is free now and outside of those that the kernel gives to connections: nobody has it when the server
 * comes back to it.
 */
export async function freePort() {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 22_000);
    const server = net.createServer();
    const isFree = await new Promise((resolve) => {
      server.on('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => resolve(true));
    });
    await new Promise((resolve) => server.close(resolve));
    if (isFree) return port;
  }
}

const encode = (words) =>
  Buffer.concat([
    Buffer.from(`*${words.length}\r\n`),
    ...words.map((word) => Buffer.from(String(word))).flatMap((b) => [
      Buffer.from(`$${b.length}\r\n`),
      b,
      Buffer.from('\r\n'),
    ]),
  ]);

// The RESP2 reply at the start of text (latin1): [value, characters read], or null while it is not whole.
function parseReply(text, start = 0) {
  const lineEnd = text.indexOf('\r\n', start);
  if (lineEnd < 0) return null;
  const rest = text.slice(start + 1, lineEnd);
  let at = lineEnd + 2;
  switch (text[start]) {
    case '+':
      return [rest, at];
    case '-':
      return [new Error(rest), at];
    case ':':
      return [Number(rest), at];
    case '$':
      if (rest === '-1') return [null, at];
      if (text.length < at + Number(rest) + 2) return null;
      return [Buffer.from(text.slice(at, at + Number(rest)), 'latin1').toString(), at + Number(rest) + 2];
    case '*': {
      const list = [];
      for (let i = 0; i < Number(rest); i++) {
        const one = parseReply(text, at);
        if (one === null) return null;
        list.push(one[0]);
        at = one[1];
      }
      return [list, at];
    }
    default:
      throw new Error(`no reply of Redis: ${JSON.stringify(text.slice(start, start + 40))}`);
  }
}

export class Redis {
  /** options: args (as on the command line of redis-server, without port and directory). */
  static async start(options = {}) {
    const redis = new Redis(options);
    await redis.#launch();
    return redis;
  }

  constructor({ args = [] } = {}) {
    this.args = args;
    this.dir = mkdtempSync('/tmp/ptc-redis-');
  }

  async #launch() {
    for (let tries = 1; ; tries++) {
      this.port ??= await freePort();
      this.process = new Child(
        'redis-server',
        [
          '--port', this.port, '--bind', '127.0.0.1', '--dir', this.dir, '--daemonize', 'no', '--save', '',
          // What it has acknowledged outlives a kill -9.
          '--appendonly', 'yes', '--appendfsync', 'no', '--maxmemory-policy', 'noeviction', ...this.args,
        ].map(String),
        { dir: this.dir },
      );
      try {
        await this.process.line((line) => /Ready to accept connections/.test(line), 'ready');
        this.isKnown = true;
        return;
      } catch (error) {
        const taken = /Address already in use/.test(this.process.stdout);
        if (!taken || tries === 5) throw new Error(`${error.message}\n${this.process.stdout}`);
        if (!this.isKnown) this.port = undefined; // else somebody was told, and must find it there
      }
    }
  }

  /** As in --store. */
  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }

  get isRunning() {
    return !this.process.ended;
  }

  /** kill -9. What it had acknowledged is in its file. */
  async kill() {
    this.process.signal('SIGKILL');
    await within(this.process.exit, 'death of Redis');
  }

  /** SIGTERM. */
  async terminate() {
    this.process.signal('SIGTERM');
    await within(this.process.exit, 'end of Redis');
  }

  /** On the same port, with its data; empty: without; from: as they were then (see keep()). */
  async restart({ empty = false, from } = {}) {
    if (this.isRunning) await this.kill();
    if (empty || from) rmSync(`${this.dir}/appendonlydir`, { recursive: true, force: true });
    if (from) cpSync(from, `${this.dir}/appendonlydir`, { recursive: true });
    await this.#launch();
  }

  /** Kills it, takes down its data as they are, and starts it again: what restart({from}) is given. */
  async keep() {
    await this.kill();
    const copy = `${this.dir}/kept-${Date.now()}`;
    cpSync(`${this.dir}/appendonlydir`, copy, { recursive: true });
    await this.#launch();
    return copy;
  }

  /** SIGSTOP: connections stay, and nothing is answered. */
  pause() {
    process.kill(this.process.pid, 'SIGSTOP');
  }

  resume() {
    if (this.isRunning) process.kill(this.process.pid, 'SIGCONT');
  }

  /** One command on a connection of its own: the reply, as text, number, null or an array of such. Rejects on an error. */
  cli(...words) {
    const socket = net.connect(this.port, '127.0.0.1');
    const reply = new Promise((resolve, reject) => {
      let text = '';
      socket.on('error', reject);
      socket.on('close', () => reject(new Error(`Redis closed the connection at ${words[0]}`)));
      socket.on('data', (chunk) => {
        text += chunk.toString('latin1');
        const whole = parseReply(text);
        if (whole === null) return;
        if (whole[0] instanceof Error) reject(whole[0]);
        else resolve(whole[0]);
      });
      socket.write(encode(words));
    });
    return within(reply, `answer of Redis to ${words[0]}`).finally(() => socket.destroy());
  }

  /** A hash as an object; {} when there is none. */
  async hash(key) {
    const flat = await this.cli('HGETALL', key);
    const object = {};
    for (let i = 0; i < flat.length; i += 2) object[flat[i]] = flat[i + 1];
    return object;
  }

  /** All keys that fit the pattern, sorted. */
  async keys(glob) {
    return (await this.cli('KEYS', glob)).sort();
  }

  /** How many clients are subscribed to channels. */
  async subscribers() {
    const list = await this.cli('CLIENT', 'LIST', 'TYPE', 'pubsub');
    return list.split('\n').filter((line) => line.includes('id=')).length;
  }

  /** Waits until it answers. */
  answers() {
    return until(() => this.cli('PING').catch(() => false), 'answer of Redis');
  }

  async stop() {
    this.process.signal('SIGKILL'); // also when it is stopped
    await within(this.process.exit, 'end of Redis');
    rmSync(this.dir, { recursive: true, force: true });
  }
}
