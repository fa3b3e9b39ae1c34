// tunnel.mjs -- the hosts of the tunnels: looks at the head of each connection's first request, then
// carries bytes between the client and the process in the box. There is no DNS for
// {port}-{key}.tunnel.DOMAIN here, so the first part of the path may say the same: /{port}-{key}/...
import http from 'node:http';
import net from 'node:net';
import { encodeBody, ruleAnswer } from './rules.mjs';
import { listens } from './processes.mjs';

const HEAD_BYTES_MAX = 64 << 10;
const PTY_PORT = 13;

const bearer = (text) => text?.match(/^Bearer\s+(\S+)$/i)?.[1];

const PONG = Buffer.from([0x8a, 0]);
const NEVER = new Promise(() => {});

// For Pair: what the far end says behind the head of its answer waits for the promise.
function later(outer, promise) {
  const kept = [];
  let hasHead = false;
  let open = false;
  promise.then(() => {
    open = true;
    if (!outer.destroyed && !outer.writableEnded) outer.write(Buffer.concat(kept));
  });
  return (data) => {
    if (open) return data;
    const end = hasHead ? 0 : data.indexOf('\r\n\r\n') + 4;
    hasHead = true;
    kept.push(data.subarray(end));
    return data.subarray(0, end);
  };
}

// For Pair: a gateway that answers pings, and takes all else to nobody.
const deaf = (outer) => (data) => {
  if ((data[0] & 15) === 9) outer.write(PONG);
  return data.subarray(0, 0);
};

/** A connection through a tunnel: what comes out of one socket goes into the other. */
class Pair {
  #stalled = false;

  constructor(outer, inner, { watch, cutAfterBytes = Infinity, late, mute = false, box }) {
    this.ends = [outer, inner];
    this.box = box;
    this.bytes = { up: 0, down: 0 };
    box.sockets.add(this);
    const up = (data) => {
      this.bytes.up += data.length;
      watch(data);
    };
    const down = (data) => {
      this.bytes.down += data.length;
      if (this.bytes.down > cutAfterBytes) this.cut();
    };
    this.#carry(outer, inner, up, mute && deaf(outer));
    this.#carry(inner, outer, down, (late || mute) && later(outer, late ?? NEVER));
  }

  #carry(from, to, count, change) {
    from.on('data', (data) => {
      count(data);
      if (change) data = change(data);
      if (data.length === 0 || to.destroyed || to.writableEnded) return;
      if (!to.write(data)) {
        from.pause();
        to.once('drain', () => !this.#stalled && from.resume());
      }
    });
    from.on('end', () => to.end());
    from.on('error', () => to.destroy());
    from.on('close', () => {
      this.box.sockets.delete(this);
      if (!from.readableEnded) to.destroy();
    });
  }

  stall(stalled) {
    this.#stalled = stalled;
    for (const socket of this.ends) stalled ? socket.pause() : socket.resume();
  }

  cut() {
    for (const socket of this.ends) socket.destroy();
    this.box.sockets.delete(this);
  }
}

/** For servers of net and tls: serves a connection to a tunnel host. */
export function serveTunnel(fake, socket) {
  let bytes = Buffer.alloc(0);
  const take = (data) => {
    bytes = Buffer.concat([bytes, data]);
    const end = bytes.indexOf('\r\n\r\n');
    if (end < 0 && bytes.length <= HEAD_BYTES_MAX) return;
    socket.off('data', take);
    socket.pause();
    if (end < 0) refuse(socket, [431, {}, { message: 'the head is too large' }]);
    else
      route(fake, socket, bytes.subarray(0, end).toString('latin1'), bytes.subarray(end + 4)).catch((error) => {
        fake.failures.push(error);
        socket.destroy();
      });
  };
  socket.setNoDelay(true);
  socket.on('error', () => socket.destroy());
  socket.on('data', take);
}

function refuse(socket, [status, headers, body]) {
  const [bytes, type] = encodeBody(body);
  const lines = Object.entries({
    ...(type && { 'Content-Type': type }), 'Content-Length': bytes.length, Connection: 'close', ...headers,
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`HTTP/1.1 ${status} ${http.STATUS_CODES[status] ?? 'Status'}\r\n${lines.join('')}\r\n`);
  socket.end(bytes);
  socket.resume(); // a request body that nobody wants
}

// Head lines to [[name, value]].
const parseFields = (lines) =>
  lines.map((line) => {
    const colon = line.indexOf(':');
    return [line.slice(0, colon), line.slice(colon + 1).trim()];
  });

/** Looks for the API key, in any spelling, in what is sent to a tunnel host. */
function leakWatch(fake, where) {
  const spellings = [fake.key, encodeURIComponent(fake.key), Buffer.from(fake.key).toString('base64url').slice(0, -2)];
  const keep = Math.max(...spellings.map((text) => text.length));
  let tail = Buffer.alloc(0);
  return (data) => {
    const text = Buffer.concat([tail, data]);
    const found = spellings.some((spelling) => text.includes(spelling));
    tail = found ? Buffer.alloc(0) : Buffer.from(text.subarray(-keep));
    if (found) fake.leaks.push({ t: Date.now(), where, text: text.toString('latin1').slice(0, 2000) });
    return found;
  };
}

// Whether the request has the token, in one of the ways that such a tunnel takes.
function hasToken(fake, kind, token, headers, query) {
  const given = {
    'tunnel-header': bearer(headers['x-runloop-tunnel-authorization']),
    authorization: bearer(headers.authorization),
    subprotocol: headers['sec-websocket-protocol'],
    query: query.get('token'),
  };
  const ways = kind === 'pty' ? fake.ptyAuth : ['tunnel-header'];
  return ways.some((way) => given[way] === token);
}

async function route(fake, socket, head, rest) {
  const [requestLine, ...lines] = head.split('\r\n');
  const [method, target, version] = requestLine.split(' ');
  if (!/^HTTP\/1\.[01]$/.test(version ?? '') || !target.startsWith('/')) {
    refuse(socket, [400, {}, { message: 'not HTTP/1.1' }]);
    return;
  }
  const fields = parseFields(lines);
  const headers = Object.fromEntries(fields.map(([name, value]) => [name.toLowerCase(), value]));
  const byHost = (headers.host ?? '').match(/^(\d+)-([a-z0-9]+)\.tunnel\./i);
  const byPath = target.match(/^\/(\d+)-([a-z0-9]+)(?=[/?]|$)/i);
  const [prefix, portText, key] = byHost ? ['', byHost[1], byHost[2]] : (byPath ?? ['', '0', '']);
  let rewritten = target.slice(prefix.length);
  if (!rewritten.startsWith('/')) rewritten = `/${rewritten}`;
  const port = Number(portText);
  const { pathname, searchParams, search } = new URL(rewritten, 'http://fake');
  const entry = fake.tunnels.get(key);
  const kind = entry?.kind ?? 'tunnel';
  const isUpgrade = /\bupgrade\b/i.test(headers.connection ?? '');
  const ptyCall = isUpgrade ? 'attach' : method === 'POST' ? 'control' : 'connect';
  const call = fake.note({
    name: kind === 'pty' ? `pty.${ptyCall}` : 'tunnel',
    method,
    path: pathname,
    url: pathname + search,
    port,
    key,
    box: entry?.box.id,
    headers,
  });
  const no = (status, message) => {
    call.status = status;
    refuse(socket, [status, {}, { message }]);
  };

  const watch = leakWatch(fake, `${method} ${target}`);
  if (watch(Buffer.from(head, 'latin1')) | watch(rest)) {
    no(400, 'THE API KEY WAS SENT TO A TUNNEL HOST');
    return;
  }
  const rule = fake.rules.take(call);
  if (rule.delayMs) await new Promise((resolve) => setTimeout(resolve, rule.delayMs));
  await rule.effect?.(call);
  if (rule.never) return;
  if (rule.cut === 'before') {
    socket.destroy();
    return;
  }
  const instead = ruleAnswer(rule);
  if (instead) {
    call.status = instead[0];
    refuse(socket, instead);
    return;
  }

  if (!entry) return no(404, 'no such tunnel');
  const { box, tunnel } = entry;
  if (tunnel.auth_mode === 'authenticated' && !hasToken(fake, kind, tunnel.auth_token, headers, searchParams))
    return no(401, 'tunnel authorization is missing or wrong');
  if (box.status === 'suspended' && tunnel.wake_on_http) {
    box.resume();
    await new Promise((resolve) => {
      const look = (status) => status !== 'resuming' && (box.off('status', look), resolve());
      box.on('status', look);
    });
  }
  if (box.status !== 'running') return no(503, `devbox is in status ${box.status}`);
  const isPty = kind === 'pty' && port === PTY_PORT;
  if (kind === 'pty' && !isPty) return no(404, 'this tunnel has port 13 only');
  const pids = fake.isolatePorts && !isPty && !box.ports?.has(port) && box.processes().map(({ pid }) => pid);
  if (pids && !listens(pids, port)) return no(502, `nobody listens on port ${port}`);

  const inner = net.connect({ port: isPty ? fake.ptyPort : port, host: '127.0.0.1', allowHalfOpen: true });
  inner.setNoDelay(true);
  const failed = () => no(502, `nobody listens on port ${port}`);
  inner.on('error', failed);
  inner.on('connect', () => {
    inner.off('error', failed);
    if (socket.destroyed) {
      inner.destroy();
      return;
    }
    call.status = isUpgrade ? 101 : 200; // the far end's own is not looked at
    // One request a connection: the next one's head would not be seen here.
    const dropped = ['x-runloop-tunnel-authorization', 'x-fake-box'];
    if (!isUpgrade) dropped.push('connection', 'keep-alive');
    const kept = fields.filter(([name]) => !dropped.includes(name.toLowerCase()));
    if (!isUpgrade) kept.push(['Connection', 'close']);
    if (isPty) kept.push(['X-Fake-Box', box.id]);
    const text = kept.map((pair) => `${pair.join(': ')}\r\n`).join('');
    inner.write(`${method} ${rewritten} ${version}\r\n${text}\r\n`, 'latin1');
    inner.write(rest);
    new Pair(socket, inner, { watch, cutAfterBytes: rule.cutAfterBytes, late: rule.late, mute: rule.mute, box });
    socket.resume();
  });
}
