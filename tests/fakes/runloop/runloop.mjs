// runloop.mjs -- a fake of Runloop: its HTTP API, the hosts of its tunnels and its devboxes, which are
// real processes in scratch directories of this machine. protocols/runloop.md says what is faked;
// tests/e2e/runloop_fake.test.mjs holds it against Runloop's own client.
//
//   const fake = await Runloop.start();
//   const box = fake.createBox({ tunnel: 'open' });
//   ... fake.url, fake.key, fake.tunnelUrl(box.tunnel, port), box.id ...
//   fake.misbehave({ on: 'execute', status: 503, times: 2 });
//   await fake.close();
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import { join, resolve } from 'node:path';
import tls from 'node:tls';
import { fileURLToPath } from 'node:url';
import { answer } from './api.mjs';
import { Devbox } from './devbox.mjs';
import { PtyService } from './pty.mjs';
import { Rules } from './rules.mjs';
import { serveTunnel } from './tunnel.mjs';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const KEPT_HEADERS = [
  'accept', 'authorization', 'content-length', 'content-type', 'host', 'sec-websocket-protocol', 'user-agent',
  'x-request-id', 'x-runloop-tunnel-authorization', 'x-stainless-retry-count',
];
const CALLS_MAX = 100_000;

const running = new Set();
// A test runner that gives up must not leave them behind.
const closeAllNow = () => {
  for (const fake of running) fake.closeNow();
};
process.on('exit', closeAllNow);
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'])
  process.on(signal, () => {
    if (process.listenerCount(signal) > 1) return; // somebody else decides
    closeAllNow();
    process.exit(1);
  });

/** Certificate and CA of the tests, for "localhost". */
export const CA_FILE = here('../../e2e/keys/ca.pem');

export class Runloop {
  /**
   * options: key, latencyMs (of every API call), holdMs (the longest that the two wait_for_status hold;
   * 30 s and 25 s are the real ones), host (the address it listens on: '127.0.0.1'), name (what clients elsewhere
   * call it: its URLs name that, and so must certFile), port, tlsPort, plainPort, apiTlsPort (0: any),
   * record (true: calls are kept, not only counted), secondTunnel ('new', 'same', 'error': what another
   * enable_tunnel does), notRunningStatus (400: calls that need a running devbox), isolatePorts (a
   * tunnel reaches only ports that the box's own processes listen on, or that are in box.ports),
   * ptyAuth (what a PTY tunnel takes of 'authorization', 'tunnel-header', 'subprotocol', 'query'),
   * ptyTool (tests/tools/pty as built), certFile, keyFile.
   */
  static async start(options = {}) {
    const fake = new Runloop(options);
    await fake.#listen(options);
    running.add(fake);
    return fake;
  }

  constructor(options) {
    this.key = options.key ?? `ak_${randomBytes(16).toString('hex')}`;
    this.latencyMs = options.latencyMs ?? 0;
    this.holdMs = options.holdMs ?? 30_000;
    this.host = options.host ?? '127.0.0.1';
    this.record = options.record ?? true;
    this.secondTunnel = options.secondTunnel ?? 'new';
    this.notRunningStatus = options.notRunningStatus ?? 400;
    this.isolatePorts = options.isolatePorts ?? false;
    this.ptyAuth = options.ptyAuth ?? ['authorization', 'tunnel-header', 'subprotocol'];
    this.expired = false;
    this.sse = {}; // for all streams: see streamLog()
    this.boxes = new Map();
    this.tunnels = new Map(); // key -> {box, kind, tunnel}
    this.rules = new Rules();
    this.calls = []; // {t, name, method, path, url, box, status, requestId, retryCount, headers, body}
    this.counts = new Map();
    this.leaks = []; // of the API key, to tunnel hosts: {where, text}
    this.failures = []; // of the fake itself
    this.evictionWatchers = new Set();
  }

  async #listen({ name, port = 0, tlsPort = 0, plainPort = 0, apiTlsPort = 0, ptyTool, certFile, keyFile }) {
    const identity = {
      cert: readFileSync(certFile ?? here('../../e2e/keys/server.pem')),
      key: readFileSync(keyFile ?? here('../../e2e/keys/server.key.pem')),
    };
    const build = process.env.PTYCAST_BUILD_DIR ? resolve(process.env.PTYCAST_BUILD_DIR) : here('../../../build');
    const onRequest = (request, response) => void answer(this, request, response);
    const raw = { allowHalfOpen: true };
    this.ptyService = new PtyService(this, ptyTool ?? join(build, 'tests/tools/pty'));
    this.servers = [];
    this.sockets = new Set();
    const start = async (server, host, at) => {
      this.servers.push(server);
      server.on('connection', (socket) => {
        this.sockets.add(socket);
        socket.on('close', () => this.sockets.delete(socket));
      });
      server.on('tlsClientError', () => {}); // a client that refuses the certificate
      await new Promise((done, fail) => server.once('error', fail).listen(at, host, done));
      return server.address().port;
    };
    this.port = await start(http.createServer({ requestTimeout: 0 }, onRequest), this.host, port);
    this.apiTlsPort = await start(
      http2.createSecureServer({ ...identity, allowHTTP1: true }, onRequest),
      this.host,
      apiTlsPort,
    );
    this.tlsPort = await start(
      tls.createServer({ ...identity, ...raw }, (socket) => serveTunnel(this, socket)),
      this.host,
      tlsPort,
    );
    this.plainPort = await start(
      net.createServer(raw, (socket) => serveTunnel(this, socket)),
      this.host,
      plainPort,
    );
    this.ptyPort = await start(this.ptyService.server, '127.0.0.1', 0);
    this.names = { plain: name ?? '127.0.0.1', tls: name ?? 'localhost' };
    this.url = `http://${this.names.plain}:${this.port}`;
    this.tlsUrl = `https://${this.names.tls}:${this.apiTlsPort}`; // the API too; HTTP/2 or HTTP/1.1
    this.caFile = CA_FILE;
    // For a client that is told how the URL of a tunnel is made.
    this.tunnelTemplate = `wss://${this.names.tls}:${this.tlsPort}/{port}-{tunnel_key}`;
    this.plainTunnelTemplate = `ws://${this.names.plain}:${this.plainPort}/{port}-{tunnel_key}`;
  }

  /** URL of a port behind a tunnel (or a tunnel key), without a slash at its end; scheme: wss, https, ws, http. */
  tunnelUrl(tunnel, port, scheme = 'wss') {
    const secure = scheme === 'wss' || scheme === 'https';
    const host = secure ? `${this.names.tls}:${this.tlsPort}` : `${this.names.plain}:${this.plainPort}`;
    return `${scheme}://${host}/${port}-${tunnel.tunnel_key ?? tunnel}`;
  }

  /** See the constructor of Devbox for the options. */
  createBox(options = {}) {
    const box = new Devbox(this, options);
    this.boxes.set(box.id, box);
    return box;
  }

  /** See Rules.add(). */
  misbehave(rule) {
    return this.rules.add(rule);
  }

  /** From now on the API answers 401; renewKey() makes a new key that works. */
  expireKey() {
    this.expired = true;
  }

  renewKey(key = `ak_${randomBytes(16).toString('hex')}`) {
    this.key = key;
    this.expired = false;
  }

  /** Tells those who watch that a box will be taken away. */
  evict(box, deadlineMs = Date.now() + 60_000) {
    const event = { devbox_id: box.id, eviction_deadline_ms: deadlineMs };
    for (const out of this.evictionWatchers) out.write(`data: ${JSON.stringify(event)}\n\n`);
  }

  /** A request has come. */
  note(call) {
    this.counts.set(call.name, (this.counts.get(call.name) ?? 0) + 1);
    const { headers } = call;
    call.t = Date.now();
    call.status = null;
    call.body = null;
    call.requestId = headers['x-request-id'] ?? null;
    call.retryCount = Number(headers['x-stainless-retry-count'] ?? 0);
    const kept = KEPT_HEADERS.filter((name) => name in headers);
    call.headers = Object.fromEntries(kept.map((name) => [name, headers[name]]));
    if (this.record) this.calls.push(call);
    if (this.calls.length > CALLS_MAX) this.calls.splice(0, CALLS_MAX / 2);
    return call;
  }

  /** Requests so far: of a call by its name, or of all. */
  count(name) {
    return name ? (this.counts.get(name) ?? 0) : [...this.counts.values()].reduce((sum, n) => sum + n, 0);
  }

  /** Forgets calls, counts and rules; devboxes stay. */
  reset() {
    this.calls = [];
    this.counts.clear();
    this.rules.clear();
    this.latencyMs = 0;
    this.sse = {};
  }

  /** Ends and removes all it started. Rejects when a key has leaked or the fake itself has failed. */
  async close() {
    running.delete(this);
    await Promise.all([...this.boxes.values()].map((box) => box.close()));
    for (const server of this.servers) server.close();
    for (const socket of this.sockets) socket.destroy();
    const leaks = JSON.stringify(this.leaks, null, 2);
    if (this.leaks.length) throw new Error(`the API key was sent to tunnel hosts: ${leaks}`);
    if (this.failures.length) throw this.failures[0];
  }

  closeNow() {
    for (const box of this.boxes.values()) box.closeNow();
  }
}
