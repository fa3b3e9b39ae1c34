// websocket.test.mjs -- GET /sessions/{id}/ws by the npm package ws: the same output as the stream's,
// and input with acknowledgements. Messages are held against openapi.yaml in lib/ws.mjs.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { after, before } from 'node:test';
import { program, scaled } from './lib/flavour.mjs';
import { PatternShell, assertPattern, pattern } from './lib/pattern.mjs';
import { Service, keys, test } from './lib/service.mjs';
import { until, within } from './lib/wait.mjs';
import { Socket } from './lib/ws.mjs';

const MiB = 1 << 20;
const ORIGIN = 'https://app.example.com';
let service, alice;

before(async () => {
  service = await Service.start({
    args: [
      '--cors-origins',
      ORIGIN,
      '--journal-bytes',
      '128K',
      '--unauthorized-per-minute',
      '100000',
      '--input-gap-ms',
      '400',
    ],
  });
  alice = service.client();
});
after(() => service?.stop());

const bytesOf = (messages) => Buffer.concat(messages.filter((m) => m.event === 'output').map((m) => m.bytes));
const names = (messages) => messages.map((m) => m.event);

async function typing(how = 'raw', bytes) {
  const file = `${service.dir}/ws-${randomBytes(6).toString('hex')}`;
  const command = [program('tests/tools/typed'), how, file, ...(bytes === undefined ? [] : [String(bytes)])];
  const { id } = await alice.createOpen({ sandbox: 'local', command });
  const socket = await Socket.open(alice, id, { mode: 'binary' });
  let text = '';
  const says = async (wanted) => {
    while (!text.includes(wanted)) text += (await socket.first('output')).bytes;
    text = '';
  };
  await says('ready');
  const has = async (expected) => {
    await until(() => readFileSync(file).length >= expected.length, `${expected.length} bytes typed`);
    assert.ok(readFileSync(file).equals(Buffer.from(expected)), readFileSync(file, 'latin1').slice(0, 300));
  };
  return { id, socket, says, has, file };
}

test('gives text messages with event and id, and closes with 1000 after exit', async () => {
  const shell = await PatternShell.create(alice, 'utf8', { first: 160, cols: 90, rows: 20 });
  const socket = await Socket.open(alice, shell.id);
  const [state, ...output] = await socket.to(160);
  assert.deepEqual(state, { event: 'state', state: 'open', epoch: shell.epoch, offset: 160, cols: 90, rows: 20 });
  shell.assert(0, bytesOf(output));
  (await alice.post(`${shell.path}/resize`, { json: { cols: 91, rows: 21 } })).is(204);
  const resize = await socket.next();
  assert.equal(resize.event, 'resize');
  assert.equal(resize.id, shell.idAt(160));
  assert.deepEqual([resize.cols, resize.rows], [91, 21]);
  await shell.exit(11);
  const exit = await socket.first('exit');
  assert.deepEqual([exit.reason, exit.exit_code, exit.signal, exit.id], ['exited', 11, null, shell.idAt(161)]);
  assert.equal(await socket.end(), 1000);
  assert.equal(await socket.next(), null);
});

test('gives binary messages of offset and bytes', async () => {
  const shell = await PatternShell.create(alice, 'bytes', { first: 30_000 });
  const socket = await Socket.open(alice, shell.id, { mode: 'binary' });
  const first = await socket.to(30_000);
  assert.equal(first[0].event, 'state');
  shell.assert(0, bytesOf(first));
  assert.equal(first[1].from, 0);
  await shell.write(70_000);
  const rest = await socket.to(shell.written);
  shell.assert(30_000, bytesOf(rest));
  await shell.exit(0);
  const exit = await socket.first('exit');
  assert.equal(exit.id, shell.idAt(shell.written + 1));
  assert.equal(await socket.end(), 1000);
});

test('resumes by since as the stream does', async () => {
  const shell = await PatternShell.create(alice, 'lines', { first: 1000 });
  const resumed = async (since, mode = 'binary') => {
    const socket = await Socket.open(alice, shell.id, { mode, since });
    const messages = await socket.to(1000);
    socket.close();
    return messages;
  };
  for (const offset of [0, 1, 500, 999])
    for (const mode of ['text', 'binary']) shell.assert(offset, bytesOf(await resumed(shell.idAt(offset), mode)));
  const ahead = await resumed(shell.idAt(1001));
  assert.deepEqual(names(ahead).slice(0, 2), ['state', 'reset']);
  assert.deepEqual([ahead[1].reason, ahead[1].offset, ahead[1].id], ['ahead', 0, shell.idAt(0)]);
  assert.equal((await resumed('0000000000000000:5', 'text'))[1].reason, 'epoch');
  await shell.write(1_000_000);
  await shell.reached(shell.written);
  const socket = await Socket.open(alice, shell.id, { mode: 'binary', since: shell.idAt(0) });
  const gap = await socket.first('reset');
  assert.equal(gap.reason, 'gap');
  assert.equal(gap.offset % 64, 0);
  shell.assert(gap.offset, bytesOf(await socket.to(shell.written)));
  socket.close();
});

test('closes at once behind the exit of an ended session, which it tells again to who had not got it', async () => {
  const shell = await PatternShell.create(alice, 'lines', { first: 100, exit: 2 });
  await shell.ended();
  const late = await Socket.open(alice, shell.id);
  assert.deepEqual(names(await late.until((m) => m.event === 'exit')), ['state', 'output', 'exit']);
  assert.equal(await late.end(), 1000);
  const finished = await Socket.open(alice, shell.id, { since: shell.idAt(101) });
  assert.equal(await finished.end(), 1000);
  const only = await finished.next();
  assert.ok(only === null || only.event === 'state');
  assert.equal(await finished.next(), null);
});

test('types binary input and acknowledges it by its number', async () => {
  const { socket, has } = await typing();
  socket.input(0, 'un');
  socket.send({ type: 'client', id: 'page-1' });
  socket.input(1, Buffer.from([0, 255, 13]));
  assert.deepEqual(await socket.next(), { event: 'ack', seq: 1 });
  socket.input(2, 'two');
  socket.input(3, 'three');
  socket.input(2, 'REPEAT');
  const acks = await socket.until((m) => m.seq === 2 && m.event === 'ack');
  const more = acks.length === 1 ? await socket.until((m) => m.seq === 2 && m.event === 'ack') : [];
  assert.ok([...acks, ...more].every((m) => m.event === 'ack'));
  await has(Buffer.concat([Buffer.from('un'), Buffer.from([0, 255, 13]), Buffer.from('twothree')]));
  socket.close();
});

test('types JSON input, with and without a number', async () => {
  const { socket, has } = await typing();
  socket.send({ type: 'input', data: 'é"\\\u0000' });
  socket.send({ type: 'input', base64: Buffer.from([1, 254]).toString('base64') });
  socket.send({ type: 'client', id: 'c' });
  socket.send({ type: 'input', data: 'x', seq: 1 });
  assert.deepEqual(await socket.next(), { event: 'ack', seq: 1 });
  socket.send({ type: 'input', data: '{"type":"input","data":"no"}', seq: 2 });
  assert.deepEqual(await socket.next(), { event: 'ack', seq: 2 });
  await has(
    Buffer.concat([Buffer.from('é"\\\0'), Buffer.from([1, 254]), Buffer.from('x{"type":"input","data":"no"}')]),
  );
  socket.close();
});

test('counts numbers by client, over sockets and POSTs alike', async () => {
  const { id, socket, has } = await typing();
  socket.send({ type: 'client', id: 'shared' });
  socket.input(1, 'a');
  assert.equal((await socket.next()).event, 'ack');
  (await alice.type(id, 'b', { 'Input-Client': 'shared', 'Input-Seq': '2' })).is(204);
  const other = await Socket.open(alice, id, { mode: 'binary' });
  other.send({ type: 'client', id: 'shared' });
  other.input(2, 'REPEAT');
  assert.deepEqual(await other.first('ack'), { event: 'ack', seq: 2 });
  other.input(3, 'c');
  assert.deepEqual(await other.first('ack'), { event: 'ack', seq: 3 });
  socket.input(5, 'e');
  const gap = await socket.first('error');
  assert.deepEqual([gap.type, gap.status, gap.seq, gap.expected], ['/problems/input-gap', 409, 5, 4]);
  socket.input(4, 'd');
  assert.deepEqual(await socket.first('ack'), { event: 'ack', seq: 4 });
  await has('abcd');
  socket.close();
  other.close();
});

test('takes 1 MiB in one message', async () => {
  const { socket, says, has } = await typing('raw', MiB);
  const bytes = randomBytes(MiB);
  socket.send({ type: 'client', id: 'big' });
  socket.input(1, bytes);
  assert.deepEqual(await socket.next(), { event: 'ack', seq: 1 });
  await says(`got ${MiB}`);
  await has(bytes);
});

test('takes fragments, pings and the largest messages, and refuses larger ones', async () => {
  const { socket, has } = await typing();
  socket.send({ type: 'client', id: 'f' });
  const head = Buffer.alloc(8);
  head.writeBigUInt64BE(1n);
  socket.ws.send(head, { binary: true, fin: false });
  const pong = new Promise((resolve) => socket.ws.once('pong', resolve));
  socket.ws.ping('between');
  socket.ws.send(Buffer.from('frag'), { binary: true, fin: false });
  socket.ws.send(Buffer.alloc(0), { binary: true, fin: false });
  socket.ws.send(Buffer.from('mented'), { binary: true, fin: true });
  assert.equal((await within(pong, 'pong')).toString(), 'between');
  assert.deepEqual(await socket.next(), { event: 'ack', seq: 1 });
  await has('fragmented');
  socket.input(2, Buffer.alloc(MiB + 1));
  const answer = await socket.next();
  if (answer !== null) assert.equal(answer.type, '/problems/payload-too-large');
  else assert.equal(socket.code, 1009);
  const huge = await Socket.open(alice, socket.path.split('/')[2], { mode: 'binary' });
  huge.ws.on('error', () => {});
  huge.input(0, Buffer.alloc(16 * MiB));
  assert.ok([1009, 1006].includes(await huge.end()));
  await has('fragmented');
});

test('resizes and signals', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const socket = await Socket.open(alice, shell.id);
  await socket.to(64);
  socket.send({ type: 'resize', cols: 120, rows: 50 });
  const resize = await socket.next();
  assert.deepEqual([resize.event, resize.cols, resize.rows], ['resize', 120, 50]);
  socket.send({ type: 'input', data: 'z\n' });
  assert.equal((await socket.first('output')).data, '[120x50]');
  for (const [signal, text] of [
    ['INT', '[INT]'],
    ['SIGUSR1', '[USR1]'],
  ]) {
    socket.send({ type: 'signal', signal });
    assert.equal((await socket.first('output')).data, text);
  }
  socket.send({ type: 'signal', signal: 'KILL' });
  assert.equal((await socket.first('exit')).signal, 'SIGKILL');
  assert.equal(await socket.end(), 1000);
});

test('answers messages that are none with an error, types nothing of them and goes on', async () => {
  const { socket, has } = await typing();
  const bad = [
    'x',
    '{',
    '[]',
    '5',
    'null',
    '{}',
    '{"type":5}',
    '{"type":"nope"}',
    '{"type":"input"}',
    '{"type":"input","data":5}',
    '{"type":"input","data":"x","base64":"eA=="}',
    '{"type":"input","base64":"!"}',
    '{"type":"input","data":"x","seq":-1}',
    '{"type":"input","data":"x","seq":"1"}',
    '{"type":"input","data":"x","seq":1}', // no client yet
    '{"type":"input","data":"x","more":1}',
    '{"type":"resize","cols":0,"rows":24}',
    '{"type":"resize","cols":80}',
    '{"type":"resize","cols":1001,"rows":1}',
    '{"type":"signal","signal":"NOPE"}',
    '{"type":"signal"}',
    '{"type":"client"}',
    '{"type":"client","id":""}',
    '{"type":"client","id":"a b"}',
    `{"type":"client","id":"${'x'.repeat(65)}"}`,
    '['.repeat(50_000),
  ];
  for (const text of bad) {
    socket.send(text);
    const answer = await socket.next(`answer to ${text.slice(0, 60)}`);
    assert.equal(answer?.event, 'error', `${text.slice(0, 60)} -> ${JSON.stringify(answer)} ${socket.code}`);
    assert.equal(answer.status, 400, text);
  }
  for (const short of [Buffer.alloc(0), Buffer.alloc(7)]) {
    socket.ws.send(short);
    assert.equal((await socket.next()).event, 'error');
  }
  socket.input(1, 'no client yet');
  assert.equal((await socket.next()).event, 'error');
  socket.input(0, 'good');
  await has('good');
  socket.close();
});

test('refuses what is not possible: programs get the status, pages the code of a close', async () => {
  const { id } = await alice.createOpen({ sandbox: 'local', command: ['cat'] });
  for (const [options, code, slug] of [
    [{ credential: null }, 4401, 'unauthorized'],
    [{ credential: 'wrong' }, 4401, 'unauthorized'],
    [{ ticket: 'nonsense', credential: null }, 4401, 'unauthorized'],
    [{ credential: keys.stranger }, 4404, 'not-found'],
    [{ since: 'nonsense' }, 4400, 'bad-request'],
    [{ mode: 'hex' }, 4400, 'bad-request'],
    [{ id: 'no-such-session' }, 4404, 'not-found'],
  ]) {
    const page = await Socket.open(alice, options.id ?? id, { ...options, headers: { Origin: ORIGIN } });
    assert.equal(page.refused, undefined, JSON.stringify(options));
    assert.equal(await page.end(), code, JSON.stringify(options));
    assert.equal(await page.next(), null, 'nothing is said before');
    assert.equal(page.reason, slug);
    const program = await Socket.open(alice, options.id ?? id, options);
    assert.equal(program.refused?.status, code - 4000, JSON.stringify(options));
    assert.equal(JSON.parse(program.refused.body).type, `/problems/${slug}`);
  }
});

test('lets a viewer see and not type', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const socket = await Socket.open(service.client(keys.viewer), shell.id, { mode: 'binary' });
  shell.assert(0, bytesOf(await socket.to(64)));
  socket.send({ type: 'client', id: 'v' });
  const sends = [
    () => socket.input(1, 'w 10\n'),
    () => socket.send({ type: 'input', data: 'w 10\n' }),
    () => socket.send({ type: 'resize', cols: 99, rows: 99 }),
    () => socket.send({ type: 'signal', signal: 'KILL' }),
  ];
  for (const send of sends) {
    send();
    const error = await socket.next();
    assert.deepEqual([error.event, error.type, error.status], ['error', '/problems/forbidden', 403]);
  }
  const { cols, offset, state } = await shell.info();
  assert.deepEqual([cols, offset, state], [80, 64, 'open']);
  socket.close();
});

test('is opened from its own and configured origins alone', async () => {
  const { id } = await alice.createOpen({ sandbox: 'local', command: ['cat'] });
  const open = (origin) => Socket.open(alice, id, { headers: { Origin: origin } });
  for (const origin of [service.url, ORIGIN]) {
    const socket = await open(origin);
    assert.equal(socket.refused, undefined, `${origin}: ${socket.refused?.body}`);
    assert.equal((await socket.next()).event, 'state');
    socket.close();
  }
  for (const origin of [
    'https://evil.org',
    'null',
    `${ORIGIN}.evil.org`,
    'http://app.example.com',
    `http://localhost:${service.port}`,
    `http://127.0.0.1:${service.port + 1}`,
    `https://127.0.0.1:${service.port}.evil.org`,
  ]) {
    const socket = await open(origin);
    assert.equal(socket.refused?.status, 403, origin);
    assert.equal(JSON.parse(socket.refused.body).type, '/problems/forbidden');
  }
});

test('refuses requests that are no upgrade', async () => {
  const { id } = await alice.createOpen({ sandbox: 'local', command: ['cat'] });
  for (const headers of [
    {},
    { Connection: 'Upgrade', Upgrade: 'h2c' },
    { Connection: 'Upgrade', Upgrade: 'websocket' },
    {
      Connection: 'Upgrade',
      Upgrade: 'websocket',
      'Sec-WebSocket-Version': '12',
      'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    },
    { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'short' },
  ])
    (await alice.get(`/sessions/${id}/ws`, { headers })).isProblem(400, 'bad-request');
});

test('closes with 1002 for frames that are none', async () => {
  const { id } = await alice.createOpen({ sandbox: 'local', command: ['cat'] });
  for (const frame of [
    [0x82, 0x01, 0x00], // not masked
    [0x83, 0x80, 0, 0, 0, 0], // reserved opcode
    [0xc2, 0x80, 0, 0, 0, 0], // reserved bit
    [0x09, 0x80, 0, 0, 0, 0], // a ping in fragments
    [0x89, 0xfe, 0x00, 0x7e, 0, 0, 0, 0], // a ping of 126 bytes
    [0x80, 0x80, 0, 0, 0, 0], // a continuation of nothing
  ]) {
    const raw = net.connect(service.port, '127.0.0.1');
    raw.write(
      `GET /sessions/${id}/ws HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${keys.admin}\r\nConnection: Upgrade\r\n` +
        'Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    );
    raw.write(Buffer.from(frame)); // early: in the same segment, perhaps
    const chunks = [];
    raw.on('data', (chunk) => chunks.push(chunk));
    raw.on('error', () => {});
    await within(new Promise((resolve) => raw.on('close', resolve)), `close after ${frame}`);
    const all = Buffer.concat(chunks);
    assert.match(all.toString('latin1'), /^HTTP\/1\.1 101[\s\S]*sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=/i);
    const close = all.indexOf(Buffer.from([0x03, 0xea])); // 1002
    assert.ok(close > 1 && all[close - 2] === 0x88, `close 1002 after ${frame}`);
  }
  (await alice.get(`/sessions/${id}`)).is(200);
});

test('takes frames that come in the same segment as the request', async () => {
  const { id, has } = await typing();
  const raw = net.connect(service.port, '127.0.0.1');
  raw.on('error', () => {});
  const text = Buffer.from('early');
  const frame = Buffer.concat([Buffer.from([0x82, 0x80 | (8 + text.length), 0, 0, 0, 0]), Buffer.alloc(8), text]);
  raw.write(
    Buffer.concat([
      Buffer.from(
        `GET /sessions/${id}/ws HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${keys.admin}\r\nConnection: keep-alive, Upgrade\r\n` +
          'Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
      ),
      frame,
    ]),
  );
  await has('early');
  raw.destroy();
});

test('echoes the close code of a client and forgets it', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const viewers = () => alice.metric('ptycast_viewers{kind="ws"}');
  const before = await viewers();
  for (const code of [1000, 1001, 3000, 4999]) {
    const socket = await Socket.open(alice, shell.id);
    await socket.first('output');
    socket.ws.close(code, 'bye');
    assert.equal(await socket.end(), code);
  }
  await until(async () => (await viewers()) <= before, 'they are forgotten');
});

test('tells a socket that stops reading once, and the others lose nothing', async () => {
  const size = scaled(24 * MiB);
  const shell = await PatternShell.create(alice, 'lines');
  const slow = await Socket.open(alice, shell.id, { mode: 'binary' });
  await slow.first('output');
  slow.ws.pause();
  const fast = await Socket.open(alice, shell.id, { mode: 'binary' });
  let at = 0;
  await shell.write(size);
  while (at < shell.written) {
    const { event, from, offset, bytes } = await fast.next();
    if (event !== 'output') {
      assert.equal(event, 'state');
      continue;
    }
    assert.equal(from, at);
    assertPattern('lines', from, bytes);
    at = offset;
  }
  slow.ws.resume();
  const messages = await slow.to(shell.written);
  const resets = messages.filter((m) => m.event === 'reset');
  assert.ok(resets.length === 1 || resets.length === 2, 'one, or another where the kernel took some more');
  assert.ok(shell.written - resets.at(-1).offset <= 65536);
  slow.close();
  fast.close();
});

test('never splits a character in text', async () => {
  const shell = await PatternShell.create(alice, 'utf8', { first: 16 });
  const socket = await Socket.open(alice, shell.id);
  await shell.write(1600, 1);
  const text = (await socket.to(1616)).map((m) => m.data ?? '').join('');
  assert.equal(text, pattern('utf8', 0, 1616).toString());
  socket.close();
});

test('drains with 1001, rotates with 1001, and refuses viewers over the limit with 1013', async (t) => {
  const small = await t.start({ args: ['--max-viewers-per-session', '1', '--max-stream-age-s', '2'] });
  const shell = await PatternShell.create(small.client(), 'lines');
  const one = await Socket.open(small.client(), shell.id);
  await one.first('output');
  const two = await Socket.open(small.client(), shell.id, { headers: { Origin: small.url } });
  assert.equal(await two.end(), 1013);
  assert.equal((await Socket.open(small.client(), shell.id)).refused.status, 503);
  assert.equal(await one.end(), 1001, 'rotated');
  let again;
  await until(async () => {
    again = await Socket.open(small.client(), shell.id, { since: shell.idAt(64) });
    const message = await again.next();
    return message?.event === 'state';
  }, 'room');
  small.terminate();
  assert.equal(await again.end(), 1001, 'drained');
});

test('pings a socket to which nothing is said', async (t) => {
  const quick = await t.start({ args: ['--ping-s', '1'] });
  const shell = await PatternShell.create(quick.client(), 'lines');
  const socket = await Socket.open(quick.client(), shell.id);
  await within(new Promise((resolve) => socket.ws.once('ping', resolve)), 'ping');
  socket.close();
});
