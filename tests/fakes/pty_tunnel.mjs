// pty_tunnel.mjs -- a fake of the original pty-tunnel bus with one process behind it, as
// protocols/pty-tunnel.md describes it: its statuses, frames and life, its quirks (404 at first, empty
// messages, no replay, a close without a code) and its defect that a bad resize kills input. The
// program in its terminal is a toy that echoes and knows a few words.
import { randomBytes, randomInt } from 'node:crypto';
import http from 'node:http';
import { WebSocketServer } from 'ws';

const EMPTY = Buffer.alloc(0);

export class PtyTunnel {
  /**
   * options: registerAfter (clients get 404 so many times), run(terminal) (the program; default: the
   * toy shell), inactivityMs (until the first ready).
   */
  static async start(options = {}) {
    const bus = new PtyTunnel(options);
    await new Promise((resolve) => bus.server.listen(0, '127.0.0.1', resolve));
    bus.port = bus.server.address().port;
    return bus;
  }

  constructor({ registerAfter = 0, run = toyShell } = {}) {
    this.token = randomBytes(32).toString('base64url') + '='; // padded, as the original's
    this.processId = String(randomInt(300, 65000));
    this.registerAfter = registerAfter;
    this.clients = new Set(); // sockets
    this.attaches = 0;
    this.ready = false;
    this.inputDead = false; // the defect
    this.ended = false;
    this.buffer = []; // output before the first ready
    this.frames = []; // what clients sent: [type, payload]
    this.size = [80, 24];
    this.sockets = new WebSocketServer({ noServer: true, perMessageDeflate: false });
    this.server = http.createServer((request, response) => this.#answer(request, response));
    this.server.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
    this.terminal = {
      write: (data) => this.#output(Buffer.from(data)),
      exit: () => this.#exit(),
      onInput: () => {},
      onResize: () => {},
      bus: this,
    };
    run(this.terminal);
  }

  url(port = this.port) {
    const query = new URLSearchParams({ processId: this.processId, token: this.token });
    return `ws://127.0.0.1:${port}/ws/client?${query}`;
  }

  async stop() {
    for (const socket of this.clients) socket.terminate();
    await new Promise((resolve) => this.server.close(resolve));
    this.server.closeAllConnections?.();
  }

  // The status before an upgrade; 101 when it may be.
  #status(request) {
    const { pathname, searchParams } = new URL(request.url, 'http://x');
    const type = pathname.match(/^\/ws\/(.+)$/)?.[1];
    if (!type) return 404;
    const token = searchParams.get('token');
    const processId = searchParams.get('processId');
    if (!token || !processId || !['client', 'process'].includes(type)) return 400;
    if (token !== this.token) return 401;
    if (type === 'process') return 404; // not offered by the fake
    if (processId !== this.processId || this.ended || this.registerAfter-- > 0) return 404;
    const { origin, host } = request.headers;
    if (origin && new URL(origin).host !== host) return 403;
    return 101;
  }

  #answer(request, response) {
    if (new URL(request.url, 'http://x').pathname === '/health') {
      response.writeHead(200, { 'Content-Type': 'text/plain; charset=utf-8' }).end('OK');
      return;
    }
    const status = this.#status(request);
    if (status === 101 || status === 403)
      response.writeHead(400, { 'Sec-Websocket-Version': '13' }).end('Bad Request\n');
    else if (status === 404 && !request.url.startsWith('/ws/client'))
      response.writeHead(404).end('404 page not found\n');
    else response.writeHead(status).end();
  }

  #upgrade(request, socket, head) {
    const status = this.#status(request);
    if (status !== 101) {
      const body = status === 403 ? 'Forbidden\n' : '';
      socket.end(
        `HTTP/1.1 ${status} ${http.STATUS_CODES[status]}\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
      );
      return;
    }
    this.sockets.handleUpgrade(request, socket, head, (client) => this.#attach(client));
  }

  #attach(client) {
    this.attaches++;
    client.warm = false;
    this.clients.add(client);
    client.on('close', () => this.clients.delete(client));
    client.on('error', () => {});
    client.on('message', (data, isBinary) => {
      if (!isBinary) this.#frame(0, data);
      else if (data.length > 0 && data[0] <= 2) this.#frame(data[0], data.subarray(1));
      // else: dropped with an error log
    });
  }

  #frame(type, payload) {
    this.frames.push([type, payload]);
    if (this.inputDead) return;
    if (type === 2 && !this.ready) {
      this.ready = true;
      this.#forward(Buffer.concat(this.buffer)); // an empty message when there is nothing
      this.buffer = [];
      if (this.exitDue) this.#exit();
    } else if (type === 1) {
      const size = payload.length >= 4 ? [payload.readUInt16BE(0), payload.readUInt16BE(2)] : [0, 0];
      if (size.includes(0)) {
        this.inputDead = true;
        return;
      }
      this.size = size;
      this.terminal.onResize(...size);
    } else if (type === 0) {
      this.terminal.onInput(payload);
    }
  }

  #output(data) {
    if (!this.ready) this.buffer.push(data);
    else this.#forward(data); // nobody attached: it is lost
  }

  #forward(data) {
    for (const client of this.clients) {
      if (!client.warm) client.send(EMPTY, { binary: true });
      client.warm = true;
      // One read of the runner is at most 32 KiB.
      if (data.length === 0) client.send(EMPTY, { binary: true });
      for (let at = 0; at < data.length; at += 32768) client.send(data.subarray(at, at + 32768), { binary: true });
    }
  }

  #exit() {
    if (!this.ready) {
      this.exitDue = true;
      return;
    }
    this.ended = true;
    for (const client of this.clients) client.close(); // empty payload: 1005
  }

  /** All clients lose their connection; the process goes on. */
  cut() {
    for (const client of this.clients) client.terminate();
  }
}

/** Echoes, and knows: echo TEXT, stty size, exit N, flood BYTES (lines of a known pattern). */
export function toyShell(terminal) {
  let line = '';
  terminal.write('$ ');
  terminal.onInput = (bytes) => {
    for (const c of bytes.toString('latin1')) {
      if (c !== '\r' && c !== '\n') {
        line += c;
        terminal.write(Buffer.from(c, 'latin1'));
        continue;
      }
      terminal.write('\r\n');
      const [word, ...rest] = line.split(' ');
      line = '';
      if (word === 'exit') {
        terminal.exit();
        return;
      }
      if (word === 'echo') terminal.write(`${rest.join(' ')}\r\n`);
      if (word === 'stty') terminal.write(`${terminal.bus.size[1]} ${terminal.bus.size[0]}\r\n`);
      terminal.write('$ ');
    }
  };
}
