// pty.mjs -- the native PTY service, port 13 of the tunnel that create_pty_tunnel makes: named shells
// on real terminals (tests/tools/pty.c), each with one WebSocket at a time. Who may come here has been
// looked at by the tunnel.
//
// box.pty may have: command (['bash', '--norc', '--noprofile', '-i']), env, idleTtlMs (300000), connectUrl
// (text instead, null for none), closeCode (4000, 1006 to cut; at the shell's end), secondAttach (409),
// replayBytes (0: what was printed while nobody was attached is lost).
import { spawn } from 'node:child_process';
import http from 'node:http';
import { constants } from 'node:os';
import { createInterface } from 'node:readline';
import { existsSync } from 'node:fs';
import { WebSocketServer } from 'ws';

const NAME = /^[A-Za-z0-9_-]{1,256}$/;
const BUFFERED_MAX = 1 << 20; // for a slow client, before the terminal must wait

const isSize = (value) => Number.isInteger(value) && value >= 1 && value <= 1000;

class Session {
  constructor(box, name, cols, rows, tool) {
    Object.assign(this, { box, name, cols, rows, socket: null, answers: [], replay: Buffer.alloc(0) });
    const fallback = box.hasBash ? ['bash', '--norc', '--noprofile', '-i'] : ['sh', '-i'];
    const command = box.pty.command ?? fallback;
    this.child = spawn(tool, [String(cols), String(rows), ...command], {
      cwd: box.home,
      env: { ...box.env, TERM: 'xterm-256color', PS1: '$ ', ...box.pty.env },
      stdio: ['pipe', 'pipe', 'ignore', 'pipe', 'pipe'],
      detached: true,
    });
    const [stdin, stdout, , orders, answers] = this.child.stdio;
    for (const pipe of [stdin, orders]) pipe.on('error', () => {});
    stdout.on('data', (data) => this.#output(data));
    createInterface({ input: answers }).on('line', (line) => this.answers.shift()?.(Number(line)));
    this.child.on('error', (error) => box.fake.failures.push(error));
    this.child.on('close', () => this.#ended());
    this.#leave();
  }

  get idleTtlMs() {
    return this.box.pty.idleTtlMs ?? 300_000;
  }

  #output(data) {
    const replay = this.box.pty.replayBytes ?? 0;
    if (replay) this.replay = Buffer.concat([this.replay, data]).subarray(-replay);
    if (!this.socket) return; // it is lost
    this.socket.send(data, { binary: true }, () => {
      if (this.socket === null || this.socket.bufferedAmount < BUFFERED_MAX) this.child.stdout.resume();
    });
    if (this.socket.bufferedAmount >= BUFFERED_MAX) this.child.stdout.pause();
  }

  #ended() {
    clearTimeout(this.timer);
    this.dead = true;
    for (const answer of this.answers) answer(constants.errno.ESRCH);
    if (this.box.ptySessions.get(this.name) === this) this.box.ptySessions.delete(this.name);
    const code = this.box.pty.closeCode ?? 4000;
    if (code === 1006) this.socket?.terminate();
    else this.socket?.close(code);
  }

  // Nobody is attached: after a time it ends.
  #leave() {
    this.socket = null;
    this.child.stdout.resume();
    clearTimeout(this.timer);
    if (!this.dead) this.timer = setTimeout(() => this.hangUp(), this.idleTtlMs);
  }

  attach(socket) {
    clearTimeout(this.timer);
    this.socket = socket;
    if (this.replay.length) socket.send(this.replay, { binary: true });
    socket.on('message', (data) => this.child.stdin.write(data));
    socket.on('error', () => {});
    socket.on('close', () => this.socket === socket && this.#leave());
  }

  /** An order of tests/tools/pty.c; resolves with its errno value. */
  order(line) {
    return new Promise((resolve) => {
      if (this.dead) resolve(constants.errno.ESRCH);
      this.answers.push(resolve);
      this.child.stdio[3].write(`${line}\n`);
    });
  }

  hangUp() {
    if (this.box.ptySessions.get(this.name) === this) this.box.ptySessions.delete(this.name);
    this.child.stdio[3].end();
  }

  view(created) {
    const { pty } = this.box;
    const url = pty.connectUrl === undefined ? `/pty/${this.name}/attach` : pty.connectUrl;
    return {
      session_name: this.name,
      status: 'ready',
      protocol_version: '1',
      ...(url !== null && { connect_url: url }),
      created,
      attached: this.socket !== null,
      cols: this.cols,
      rows: this.rows,
      idle_ttl_seconds: this.idleTtlMs / 1000,
    };
  }
}

export class PtyService {
  constructor(fake, tool) {
    this.fake = fake;
    this.tool = tool;
    this.upgrades = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: 16 << 20 });
    this.server = http.createServer((request, response) => {
      this.#answer(request).then(
        ([status, body]) => {
          response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body));
        },
        (error) => {
          fake.failures.push(error);
          response.writeHead(500).end();
        },
      );
    });
    this.server.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
  }

  async #answer(request) {
    const { pathname, searchParams } = new URL(request.url, 'http://fake');
    const [, name, control] = pathname.match(/^\/pty\/([^/]*)(\/control)?$/) ?? [];
    const box = this.fake.boxes.get(request.headers['x-fake-box']);
    if (name === undefined) return [404, { message: 'not found' }];
    if (!NAME.test(name)) return [400, { message: 'invalid session name' }];
    if (control) return request.method === 'POST' ? this.#control(request, box, name) : [405, { message: 'POST it' }];
    if (request.method !== 'GET') return [405, { message: 'GET it' }];
    const known = box.ptySessions.get(name);
    if (known) return [200, known.view(false)];
    if (!existsSync(this.tool)) throw new Error(`${this.tool} is not built`);
    const size = ['cols', 'rows'].map((key) => Number(searchParams.get(key)));
    const session = new Session(box, name, ...(size.every(isSize) ? size : [80, 24]), this.tool);
    box.ptySessions.set(name, session);
    return [200, session.view(true)];
  }

  async #control(request, box, name) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    let body;
    try {
      body = JSON.parse(Buffer.concat(chunks).toString() || '{}');
    } catch {
      return [400, { message: 'the body is not JSON' }];
    }
    const session = box.ptySessions.get(name);
    if (!session) return [404, { message: 'no such session' }];
    const done = [200, { session_name: name, status: 'ok' }];
    if (body.action === 'resize') {
      if (!isSize(body.cols) || !isSize(body.rows)) return [400, { message: 'cols and rows must be 1 to 1000' }];
      const error = await session.order(`resize ${body.cols} ${body.rows}`);
      if (error) return [400, { message: `resize failed: ${error}` }];
      Object.assign(session, { cols: body.cols, rows: body.rows });
      return done;
    }
    if (body.action === 'signal') {
      const number = constants.signals[body.signal];
      if (!number) return [400, { message: 'unknown signal' }];
      return (await session.order(`signal ${number}`)) ? [400, { message: 'no foreground process group' }] : done;
    }
    if (body.action !== 'close') return [400, { message: 'unknown action' }];
    session.hangUp();
    return done;
  }

  #upgrade(request, socket, head) {
    const refuse = (status) =>
      socket.end(`HTTP/1.1 ${status} ${http.STATUS_CODES[status]}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
    const { pathname } = new URL(request.url, 'http://fake');
    const box = this.fake.boxes.get(request.headers['x-fake-box']);
    const session = box.ptySessions.get(pathname.match(/^\/pty\/([^/]+)\/attach$/)?.[1]);
    socket.on('error', () => {});
    if (!session) refuse(404);
    else if (session.socket) refuse(box.pty.secondAttach ?? 409);
    else this.upgrades.handleUpgrade(request, socket, head, (client) => session.attach(client));
  }
}
