// wire_ws.test.mjs -- our WebSocket codec against the npm package ws, in both roles, and against frames
// that no proper peer sends. Our end is tests/tools/ws_peer.c, which echoes.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import WebSocket, { WebSocketServer } from 'ws';
import { program, scaled } from './lib/flavour.mjs';
import { within } from './lib/wait.mjs';

// A ws_peer and the lines that it prints.
class Peer {
  constructor(t, ...args) {
    this.child = spawn(program('tests/tools/ws_peer'), args.map(String), { stdio: ['pipe', 'pipe', 'inherit'] });
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
    this.exited = once(this.child, 'exit');
    t.after(() => this.child.kill('SIGKILL'));
  }

  async line() {
    return (await within(this.lines.next(), 'a line of ws_peer')).value;
  }

  static async server(t, ...args) {
    const peer = new Peer(t, 'server', ...args);
    peer.port = Number((await peer.line()).replace('port ', ''));
    return peer;
  }
}

/** The messages of a ws socket, in their order. */
function inbox(ws) {
  const queue = [];
  let wake = () => {};
  ws.on('message', (data, isBinary) => {
    queue.push({ data, isBinary });
    wake();
  });
  return async () => {
    while (queue.length === 0) {
      await within(new Promise((resolve) => (wake = resolve)), 'a message');
    }
    return queue.shift();
  };
}

// Both ways round: a function that connects the two ends and gives ours and theirs.
const directions = {
  'ws as client, ours as server': async (t, options, ...args) => {
    const peer = await Peer.server(t, ...args);
    const ws = new WebSocket(`ws://127.0.0.1:${peer.port}`, { perMessageDeflate: false, ...options });
    t.after(() => ws.terminate());
    await within(once(ws, 'open'), 'open');
    return { peer, ws };
  },
  'ours as client, ws as server': async (t, options, ...args) => {
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0, ...options });
    t.after(() => server.close());
    await within(once(server, 'listening'), 'listening');
    const peer = new Peer(t, 'client', server.address().port, ...args);
    const [ws] = await within(once(server, 'connection'), 'connection');
    t.after(() => ws.terminate());
    return { peer, ws };
  },
};

for (const [direction, open] of Object.entries(directions)) {
  test(`${direction}: messages of every form of length come back`, async (t) => {
    const { ws } = await open(t);
    const next = inbox(ws);
    for (const size of [0, 1, 2, 125, 126, 127, 65535, 65536, 65537, 1 << 20]) {
      const bytes = randomBytes(size);
      ws.send(bytes);
      const binary = await next();
      assert.ok(binary.isBinary);
      assert.ok(binary.data.equals(bytes), `${size} bytes`);

      const text = 'aä€😀'.repeat(Math.ceil(size / 10)).slice(0, size / 2);
      ws.send(text);
      const echo = await next();
      assert.ok(!echo.isBinary);
      assert.ok(echo.data.toString() === text, `text of ${text.length}`);
    }
  });

  test(`${direction}: many messages at once keep their order`, async (t) => {
    const { ws } = await open(t);
    const next = inbox(ws);
    const count = scaled(20_000);
    for (let i = 0; i < count; i++) ws.send(`message ${i} ${'x'.repeat(i % 300)}`);
    for (let i = 0; i < count; i++) {
      assert.equal((await next()).data.toString(), `message ${i} ${'x'.repeat(i % 300)}`);
    }
  });

  test(`${direction}: takes fragments with control frames between them`, async (t) => {
    const { ws } = await open(t);
    const next = inbox(ws);
    const pongs = [];
    ws.on('pong', (data) => pongs.push(data.toString()));
    const euro = Buffer.from('€');
    ws.send('one ', { fin: false });
    ws.ping('first');
    ws.send('two ', { fin: false });
    ws.send(euro.subarray(0, 1), { fin: false });
    ws.ping('inside a character');
    ws.pong('not asked for');
    ws.send('', { fin: false });
    ws.send(euro.subarray(1), { fin: true });
    const { data, isBinary } = await next();
    assert.equal(data.toString(), 'one two €');
    assert.ok(!isBinary);
    assert.deepEqual(pongs, ['first', 'inside a character']);

    const bytes = randomBytes(1 << 20);
    for (let at = 0; at < bytes.length; at += 100_000)
      ws.send(bytes.subarray(at, at + 100_000), { binary: true, fin: at + 100_000 >= bytes.length });
    assert.ok((await next()).data.equals(bytes));
  });

  test(`${direction}: sends fragments with pings between them`, async (t) => {
    const { ws } = await open(t, {}, 16 << 20, 1000);
    const next = inbox(ws);
    let pings = 0;
    ws.on('ping', () => pings++);
    const text = 'ä€😀x'.repeat(2000);
    ws.send(text);
    assert.equal((await next()).data.toString(), text);
    assert.equal(pings, Math.ceil(Buffer.byteLength(text) / 1000) - 1);
    // Not many more: ws gives up on a peer that pings faster than its pongs go out.
    const bytes = randomBytes(20_500);
    ws.send(bytes);
    assert.ok((await next()).data.equals(bytes));
  });

  test(`${direction}: answers pings with their bytes`, async (t) => {
    const { ws } = await open(t);
    for (const payload of ['', 'x', 'y'.repeat(125)]) {
      ws.ping(payload);
      const [data] = await within(once(ws, 'pong'), 'pong');
      assert.equal(data.toString(), payload);
    }
  });

  test(`${direction}: a close by ws is understood and answered`, async (t) => {
    for (const [args, printed, code] of [
      [[1000, 'bye'], 'close 1000 bye', 1000],
      [[4401, 'schön €'], 'close 4401 schön €', 4401],
      [[1013], 'close 1013 ', 1013],
      [[], 'close 1005 ', 1005],
    ]) {
      const { ws, peer } = await open(t);
      const closed = once(ws, 'close');
      ws.close(...args);
      assert.equal((await within(closed, 'close'))[0], code);
      assert.equal(await peer.line(), printed);
    }
  });

  test(`${direction}: ws understands our close`, async (t) => {
    for (const [code, reason] of [[1000, 'done'], [1001, ''], [3000, 'three'], [4999, 'ü€😀'.repeat(13)]]) {
      const { ws, peer } = await open(t);
      const closed = once(ws, 'close');
      ws.send(`close ${code} ${reason}`);
      const [gotCode, gotReason] = await within(closed, 'close');
      assert.equal(gotCode, code);
      assert.equal(gotReason.toString(), reason);
      assert.equal(await peer.line(), `close ${code} ${reason}`); // ws echoes it
    }
  });

  test(`${direction}: a close reason that is too long is cut at a character`, async (t) => {
    const { ws } = await open(t);
    const closed = once(ws, 'close');
    ws.send(`close 1000 ${'€'.repeat(100)}`);
    const [, reason] = await within(closed, 'close');
    assert.equal(reason.toString(), '€'.repeat(41));
  });

  test(`${direction}: a message over the limit is refused with 1009`, async (t) => {
    const { ws, peer } = await open(t, {}, 1000);
    const next = inbox(ws);
    ws.send('x'.repeat(1000));
    assert.equal((await next()).data.length, 1000);
    const closed = once(ws, 'close');
    ws.send('x'.repeat(600), { fin: false });
    ws.send('x'.repeat(401));
    assert.equal((await within(closed, 'close'))[0], 1009);
    assert.equal(await peer.line(), 'error 1009');
  });

  test(`${direction}: a connection that is cut is noticed`, async (t) => {
    const { ws, peer } = await open(t);
    ws.send('half', { fin: false });
    ws.terminate();
    assert.equal(await peer.line(), 'cut');
  });
}

test('an offer of compression is passed over', async (t) => {
  const { ws } = await directions['ws as client, ours as server'](t, { perMessageDeflate: true });
  const next = inbox(ws);
  ws.send('plain');
  assert.equal((await next()).data.toString(), 'plain');
  assert.equal(ws.extensions, '');
});

// --- raw sockets, for what ws does not send ---

const upgrade = (key = 'dGhlIHNhbXBsZSBub25jZQ==') =>
  `GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
  `Sec-WebSocket-Version: 13\r\n${key ? `Sec-WebSocket-Key: ${key}\r\n` : ''}\r\n`;

/** Sends bytes and resolves with all that comes until the other end closes. */
async function exchange(t, port, ...pieces) {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true });
  t.after(() => socket.destroy());
  const chunks = [];
  socket.on('data', (chunk) => chunks.push(chunk));
  for (const piece of pieces) socket.write(piece);
  await within(once(socket, 'end'), 'the end of the connection');
  return Buffer.concat(chunks);
}

function afterHead(bytes) {
  const end = bytes.indexOf('\r\n\r\n');
  assert.ok(bytes.subarray(0, end).toString().startsWith('HTTP/1.1 101 '), bytes.toString('latin1'));
  return bytes.subarray(end + 4);
}

const mask = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);
const masked = (first, bytes) =>
  Buffer.concat([Buffer.from([first, 0x80 | bytes.length]), mask, Buffer.from(bytes).map((b, i) => b ^ mask[i % 4])]);
const hex = (text) => Buffer.from(text.replaceAll(' ', ''), 'hex');

const broken = {
  'an unmasked frame': [hex('81 05 48656c6c6f'), 1002],
  'an unmasked close': [hex('88 00'), 1002],
  'a reserved bit': [masked(0xc1, Buffer.from('x')), 1002],
  'a reserved opcode': [masked(0x83, Buffer.from('x')), 1002],
  'a reserved control opcode': [masked(0x8b, Buffer.from('x')), 1002],
  'a continuation of nothing': [masked(0x80, Buffer.from('x')), 1002],
  'a message inside a message': [Buffer.concat([masked(0x01, Buffer.from('x')), masked(0x81, Buffer.from('y'))]), 1002],
  'a ping in fragments': [masked(0x09, Buffer.from('x')), 1002],
  'a ping of 126 bytes': [hex('89 fe 007e'), 1002],
  'a length in more bytes than it needs': [hex('82 fe 0001 00000000'), 1002],
  'a length with its top bit set': [hex('82 ff 8000000000000001 00000000'), 1002],
  'an announcement of 2^62 bytes': [hex('82 ff 4000000000000000 00000000'), 1009],
  'text that is not UTF-8': [masked(0x81, hex('ff')), 1007],
  'text that ends inside a character': [masked(0x81, hex('e282')), 1007],
  'a close payload of 1 byte': [masked(0x88, hex('03')), 1002],
  'a close code that may not be sent': [masked(0x88, hex('03ed')), 1002],
  'a close reason that is not UTF-8': [masked(0x88, hex('03e8 ff')), 1007],
};

test('broken frames end the connection with the right code', async (t) => {
  const peer = await Peer.server(t);
  for (const [what, [frame, code]] of Object.entries(broken)) {
    // Behind the first piece nothing is looked at any more.
    const answer = afterHead(await exchange(t, peer.port, upgrade(), Buffer.concat([frame, masked(0x89, Buffer.from('late'))])));
    assert.equal(answer[0], 0x88, `${what}: ${answer.toString('hex')}`);
    assert.equal(answer.readUInt16BE(2), code, what);
    assert.equal(answer.length, 2 + answer[1], what);
    assert.equal(await peer.line(), `error ${code}`, what);
  }
});

test('frames that come with the request are not lost', async (t) => {
  const peer = await Peer.server(t);
  const early = Buffer.concat([Buffer.from(upgrade()), masked(0x81, Buffer.from('early')), masked(0x88, hex('03e8'))]);
  const answer = afterHead(await exchange(t, peer.port, early));
  assert.equal(answer.toString('hex'), hex('81 05 6561726c79 88 02 03e8').toString('hex'));
});

test('a connection byte by byte', async (t) => {
  const peer = await Peer.server(t);
  const all = Buffer.concat([Buffer.from(upgrade()), masked(0x01, Buffer.from('on')), masked(0x89, Buffer.from('?')),
    masked(0x80, Buffer.from('e')), masked(0x88, hex('03e9'))]);
  const answer = afterHead(await exchange(t, peer.port, ...Array.from(all, (byte) => Buffer.from([byte]))));
  assert.equal(answer.toString('hex'), hex('8a 01 3f 81 03 6f6e65 88 02 03e9').toString('hex'));
});

test('a request without a proper key is refused', async (t) => {
  const peer = await Peer.server(t);
  for (const key of [null, 'short', 'dGhlIHNhbXBsZSBub25jZQ', 'dGhlIHNhbXBsZSBub25jZQAA'])
    assert.match((await exchange(t, peer.port, upgrade(key))).toString(), /^HTTP\/1\.1 400 /);
});

// What a client of ours makes of a server that sends these bytes after a proper or a wrong answer.
async function servedBy(t, accept, frames) {
  const server = createServer({ noDelay: true });
  t.after(() => server.close());
  server.listen(0, '127.0.0.1');
  await within(once(server, 'listening'), 'listening');
  const peer = new Peer(t, 'client', server.address().port);
  const [socket] = await within(once(server, 'connection'), 'connection');
  socket.on('error', () => {}); // the client may be gone before it has read all
  t.after(() => socket.destroy());
  const chunks = [];
  const [request] = await within(once(socket, 'data'), 'request');
  socket.on('data', (chunk) => chunks.push(chunk));
  const [, key] = /Sec-WebSocket-Key: (\S+)/.exec(request.toString());
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
    `Sec-WebSocket-Accept: ${accept(key)}\r\n\r\n`);
  socket.end(frames);
  const line = await peer.line();
  await within(peer.exited, 'exit of the client');
  return { line, answer: Buffer.concat(chunks) };
}

const rightAccept = (key) =>
  createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');

test('our client refuses a masked frame, and masks its close', async (t) => {
  const { line, answer } = await servedBy(t, rightAccept, masked(0x81, Buffer.from('Hello')));
  assert.equal(line, 'error 1002');
  assert.equal(answer[0], 0x88);
  assert.ok(answer[1] & 0x80);
  const payload = answer.subarray(6).map((byte, i) => byte ^ answer[2 + (i % 4)]);
  assert.equal(payload.readUInt16BE(0), 1002);
});

test('our client refuses a wrong accept value', async (t) => {
  const { line } = await servedBy(t, () => rightAccept('another key'), hex('81 02 6f6b'));
  assert.equal(line, 'not upgraded');
});
