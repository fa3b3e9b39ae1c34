// agent_legacy.test.mjs -- to clients of the original the agent is the original, without its defects: its
// transcript, statuses and order of checks, several clients, no tail lost.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { test } from 'node:test';
import WebSocket from 'ws';
import { Legacy } from './lib/agent_legacy.mjs';
import { Agent, Tunnel, isRunning } from './lib/agent_v2.mjs';
import { program, scaled } from './lib/flavour.mjs';
import { assertPattern, pattern } from './lib/pattern.mjs';
import { until, within } from './lib/wait.mjs';

const patternProgram = program('tests/tools/pattern');

const single = (command, args = [], env = {}) =>
  Agent.start([...args, '--', ...command], { mode: 'single', env: { PS1: '$ ', ...env } });

/** Writes text to the agent's port, and resolves to all it answers until the end. */
function request(port, text) {
  const answer = new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(text));
    let all = '';
    socket.on('data', (d) => {
      all += d;
      if (all.startsWith('HTTP/1.1 101')) socket.destroy();
    });
    socket.on('close', () => resolve(all));
    socket.on('error', reject);
  });
  return within(answer, `answer to ${JSON.stringify(text.slice(0, 60))}`);
}

const key = 'dGhlIHNhbXBsZSBub25jZQ==';
const upgrade = ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', `Sec-WebSocket-Key: ${key}`];
const get = (path, headers = [], method = 'GET') =>
  `${method} ${path} HTTP/1.1\r\nHost: agent.test:81\r\n${headers.map((h) => `${h}\r\n`).join('')}\r\n`;

test('the golden transcript of the original', async () => {
  const agent = await single(['sh']);
  const one = await Legacy.connect(agent.handshake);
  one.ready();
  await one.sees('$ ');
  assert.equal(one.messages[0].length, 0); // the answer to ready
  one.ws.send('echo text-frame\r'); // a text message
  await one.sees('echo text-frame\r\ntext-frame\r\n$ ');
  one.raw(1, 0, 0x64, 0, 0x28, 9, 9); // two stray bytes
  one.type('stty size\r');
  await one.sees('stty size\r\n40 100\r\n$ ');
  const before = one.text;

  const two = await Legacy.connect(agent.handshake);
  two.raw(0x99, 1);
  two.raw();
  two.type('echo x\r');
  await two.sees('echo x\r\nx\r\n$ ');
  assert.equal(two.text, 'echo x\r\nx\r\n$ '); // no replay
  await one.until(() => one.text === `${before}echo x\r\nx\r\n$ `, 'the same on the first client');
  two.type('exit 7\r');
  for (const c of [one, two]) {
    assert.deepEqual(await within(c.closed, 'close'), { code: 1000, reason: 'exited 7' });
    assert.ok(c.text.endsWith('$ exit 7\r\n'), JSON.stringify(c.text));
  }
  assert.deepEqual(await within(agent.closed, 'end'), { code: 0, signal: null });
  assert.equal(agent.stderr, '');
});

test('/health needs nothing; other paths are not there', async () => {
  const agent = await single(['cat']);
  const { port } = agent;
  for (const method of ['GET', 'POST', 'PUT']) {
    const answer = await request(port, get('/health?x=y', ['Content-Length: 0'], method));
    assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
    assert.match(answer, /\r\nContent-Type: text\/plain; charset=utf-8\r\n/);
    assert.match(answer, /\r\nContent-Length: 2\r\n.*\r\n\r\nOK$/s);
  }
  assert.match(await request(port, get('/health', [], 'HEAD')), /^HTTP\/1\.1 200 OK\r\n.*\r\n\r\n$/s);
  for (const path of ['/', '/ws', '/ws/', '/healthz', '/ws/client/x', '/wsx', '/health/'])
    assert.match(await request(port, get(path)), /^HTTP\/1\.1 404 .*\r\n\r\n404 page not found\n$/s, path);
  assert.match(await request(port, 'GET http://agent.test/health HTTP/1.1\r\nHost: x\r\n\r\n'), /200 OK/);
  assert.match(await request(port, 'GET /health HTTP/1.0\r\n\r\n'), /200 OK/);
  await agent.stop();
});

test('the checks come in the order of the original, with its statuses and bodies', async () => {
  const agent = await single(['cat']);
  const { processId, token } = agent.handshake;
  const path = (id, t, type = 'client') => `/ws/${type}?processId=${id}&token=${encodeURIComponent(t)}`;
  const empty = /\r\n\r\n$/;
  const foreign = 'Origin: http://elsewhere.test';
  const cases = [
    [get('/ws/client'), 400, empty],
    [get(`/ws/client?token=${encodeURIComponent(token)}`), 400, empty],
    [get(`/ws/client?processId=${processId}`), 400, empty],
    [get(path('', token), upgrade), 400, empty],
    [get(path(processId, ''), upgrade), 400, empty],
    [get(path(processId, token, 'process'), upgrade), 400, empty],
    [get(path(processId, token, 'other'), upgrade), 400, empty],
    [get(path(processId, 'wrong', 'process'), upgrade), 400, empty],
    [get(path(processId, 'wrong'), upgrade), 401, empty],
    [get(path(1, 'wrong'), upgrade), 401, empty], // not 404
    [get(path(processId, `${token}x`)), 401, empty], // not 400
    [get(path(processId, token.slice(0, -1)), upgrade), 401, empty],
    [get(path(1, token), upgrade), 404, empty],
    [get(path(`${processId}x`, token), upgrade), 404, empty],
    [get(path(1, token)), 404, empty], // not 400
    [get(path(processId, token)), 400, /\r\nSec-Websocket-Version: 13\r\n.*\r\n\r\nBad Request\n$/s],
    [get(path(processId, token), [foreign]), 400, /Bad Request\n$/], // not 403
    [get(path(processId, token), upgrade, 'POST'), 400, /Bad Request\n$/],
    ...upgrade.map((_, i) => [get(path(processId, token), upgrade.filter((_, j) => j !== i)), 400, /Bad Request\n$/]),
    [get(path(processId, token), [...upgrade.slice(0, 3), 'Sec-WebSocket-Key: c2hvcnQ=']), 400, /Bad Request\n$/],
    [get(path(processId, token), [...upgrade, foreign]), 403, /\r\n\r\nForbidden\n$/],
    [get(path(processId, token), [...upgrade, 'Origin: null']), 403, /Forbidden\n$/],
    [get(path(processId, token), [...upgrade, 'Origin: http://agent.test']), 403, /Forbidden\n$/],
    [get(path(processId, token), [...upgrade, 'Origin: https://AGENT.test:81/x']), 101, /./],
    [get(path(processId, token), upgrade), 101, /\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=\r\n/],
    [get(`/ws/client?x=%zz&%74oken=${encodeURIComponent(token)}&processId=+${processId}`), 404, empty],
    [get(`/ws/client?x&token=${encodeURIComponent(token)}&token=2&processId=${processId}`, upgrade), 101, /./],
    [get(path(processId, token), ['Connection: keep-alive, upgrade', ...upgrade.slice(1)]), 101, /./],
  ];
  for (const [text, status, body] of cases) {
    const answer = await request(agent.port, text);
    assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `), text);
    assert.match(answer, body, text);
  }
  const deflating = new WebSocket(
    `ws://127.0.0.1:${agent.port}${path(processId, token)}`, ['proto'], { perMessageDeflate: true });
  const error = await within(new Promise((resolve) => deflating.on('error', resolve)), 'no subprotocol');
  assert.match(error.message, /no subprotocol/);
  await agent.stop();
});

test('version 2 asks for the token in a header, then checks as the original', async () => {
  const agent = await single(['cat']);
  const token = `Ptycast-Token: ${agent.control}`;
  const cases = [
    [[...upgrade], 400], [[...upgrade, 'Ptycast-Token: '], 400], [[...upgrade, 'Ptycast-Token: wrong'], 401],
    [['Ptycast-Token: wrong'], 401], [[token], 400], [[...upgrade, token, 'Origin: http://x'], 403],
    [[...upgrade, token], 101], [[...upgrade, token, token], 400],
  ];
  for (const [headers, status] of cases)
    assert.match(await request(agent.port, get('/ws/client?v=2', headers)), new RegExp(`^HTTP/1\\.1 ${status} `));
  assert.match(await request(agent.port, get('/ws/process?v=2', [...upgrade, token])), /^HTTP\/1\.1 400 /);
  await agent.stop();
});

test('bad heads are refused: too long, not HTTP, without Host', async () => {
  const agent = await single(['cat']);
  const { port } = agent;
  const long = 'x'.repeat(9000);
  const cases = [
    [`GET /${long} HTTP/1.1\r\n`, 431], [get('/health', [`X: ${long}`]), 431], [get('/health', [`X: ${'x'.repeat(7000)}`]), 200],
    ['\x16\x03\x01\r\n\r\n', 400], ['GET /health HTTP/2\r\n\r\n', 400], ['GET /health HTTP/1.1\r\n\r\n', 400],
    [get('/health', ['bad header']), 400], [get('/health', ['Host: two']), 400], [get('/health', [' folded: x']), 400],
    [get('/health', ['X : y']), 400], ['GET  /health HTTP/1.1\r\nHost: x\r\n\r\n', 400], [get('/health', ['X: a\0b']), 400],
    ['GET /health HTTP/1.1\nHost: x\n\r\n\r\n', 400],
  ];
  for (const [text, status] of cases)
    assert.match(await request(port, text), new RegExp(`^HTTP/1\\.1 ${status} `), JSON.stringify(text.slice(0, 50)));
  const bytewise = new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    let all = '';
    socket.setNoDelay(true);
    socket.on('data', (d) => (all += d));
    socket.on('close', () => resolve(all));
    for (const byte of get('/health')) socket.write(byte);
  });
  assert.match(await within(bytewise, 'answer to single bytes'), /200 OK/);
  await agent.stop();
});

test('a head that is never finished is dropped, and disturbs nobody', async () => {
  const agent = await single(['cat']);
  const socket = connect(agent.port, '127.0.0.1', () => socket.write('GET /health HTTP/1.1\r\nX: '));
  const dropped = new Promise((resolve) => socket.on('close', resolve));
  const trickle = setInterval(() => socket.write('x'), 100);
  const c = await Legacy.connect(agent.handshake, { ready: true });
  c.type('x\r');
  await c.sees('x\r\nx');
  await within(dropped, 'end of the connection');
  clearInterval(trickle);
  await agent.stop();
});

test('JSON-looking text is typed verbatim, as text and as binary message', async () => {
  const agent = await single(['cat']);
  const c = await Legacy.connect(agent.handshake, { ready: true });
  const text = '{"type":"resize","cols":1,"rows":2}';
  c.ws.send(`${text}\r`);
  await c.sees(`${text}\r\n${text}\r\n`);
  c.type(`[${text}]\r`);
  await c.sees(`[${text}]\r\n[${text}]\r\n`);
  await agent.stop();
});

test('zero, short and huge resizes do no harm', async () => {
  const agent = await single(['sh']);
  const c = await Legacy.connect(agent.handshake, { ready: true });
  c.raw(1);
  c.raw(1, 0, 80);
  c.raw(1, 0, 80, 0);
  c.resize(0, 24);
  c.resize(80, 0);
  c.resize(65535, 65535);
  c.raw(0);
  c.type('stty size\r');
  await c.sees('24 80\r\n');
  c.resize(90, 30);
  c.type('stty size\r');
  await c.sees('30 90\r\n');
  await agent.stop();
});

test('a fast command keeps its output until a client is ready', async () => {
  const agent = await single(['sh', '-c', 'echo fast; exit 3']);
  const c = await Legacy.connect(agent.handshake);
  assert.equal(c.messages.length, 0);
  c.ready();
  assert.deepEqual(await within(c.closed, 'close'), { code: 1000, reason: 'exited 3' });
  assert.equal(c.text, 'fast\r\n');
  assert.deepEqual(await within(agent.closed, 'end'), { code: 0, signal: null });
});

test('more output than the ring waits for the first ready, none of it is lost', async () => {
  const size = 4 << 20;
  const agent = await single([patternProgram, 'bytes', String(size), 'exit', '0'], ['--ring-bytes=524288', '--reader-stall=60s']);
  const c = await Legacy.connect(agent.handshake, { ready: true });
  await within(c.closed, 'close');
  assert.equal(c.output.length, size);
  assertPattern('bytes', 0, c.output);
});

test('clients that wait before the first ready all get everything', async () => {
  const agent = await single(['sh', '-c', 'echo begin; cat']);
  const all = await Promise.all([1, 2, 3].map(() => Legacy.connect(agent.handshake)));
  all[1].ready();
  for (const c of all) await c.sees('begin\r\n');
  await agent.stop();
});

test('no tail is lost at exit', async () => {
  const size = 400_000;
  for (let i = 0; i < scaled(20); i++) {
    const agent = await single([patternProgram, 'bytes', String(size), 'exit', '0']);
    const c = await Legacy.connect(agent.handshake, { ready: true });
    assert.deepEqual(await within(c.closed, 'close'), { code: 1000, reason: 'exited 0' });
    assert.equal(c.output.length, size, `run ${i}`);
    assertPattern('bytes', 0, c.output);
    await within(agent.closed, 'end');
  }
});

test('no tail is lost at exit with 1 MiB under way to a client that does not read yet', async () => {
  const size = 1 << 20;
  const agent = await single([patternProgram, 'bytes', '64']);
  const c = await Legacy.connect(agent.handshake, { ready: true });
  await c.until(() => c.output.length === 64, 'the first bytes');
  c.ws._socket.pause();
  c.type(`w ${size}\rx 9\r`);
  const child = childrenOf(agent.child.pid)[0];
  await until(() => !isRunning(child), 'end of the program');
  c.ws._socket.resume();
  assert.deepEqual(await within(c.closed, 'close'), { code: 1000, reason: 'exited 9' });
  assert.ok(c.output.equals(pattern('bytes', 0, 64 + size)));
});

test('a stalled client does not stall another, and is closed rather than given a hole', async () => {
  const size = scaled(64 << 20);
  const agent = await single([patternProgram, 'bytes', '64']);
  const stalled = await Legacy.connect(agent.handshake, { ready: true });
  await stalled.until(() => stalled.output.length === 64, 'the first bytes');
  const c = await Legacy.connect(agent.handshake);
  stalled.ws._socket.pause();
  let got = 64;
  c.ws.removeAllListeners('message');
  c.ws.on('message', (data) => {
    assertPattern('bytes', got, data);
    got += data.length;
  });
  c.type(`w ${size}\r`);
  await until(() => got === 64 + size, 'all of it on the other client');
  stalled.ws._socket.resume();
  const { code, reason } = await within(stalled.closed, 'close of the stalled client');
  assert.equal(code, 4408);
  assert.match(reason, /too slow/);
  assertPattern('bytes', 0, stalled.output); // what it got has no hole
  await agent.stop();
});

test('a client alone that stalls stops the terminal for no longer than its bound', async () => {
  const size = 32 << 20;
  const agent = await single([patternProgram, 'bytes', String(size), 'exit', '0'], ['--reader-stall=200ms', '--ring-bytes=524288']);
  const c = await Legacy.connect(agent.handshake, { ready: true });
  await c.until(() => c.messages.length > 1, 'some output');
  c.ws._socket.pause();
  const child = childrenOf(agent.child.pid)[0];
  await until(() => !isRunning(child), 'end of the program');
  c.ws._socket.resume();
  assert.equal((await within(c.closed, 'close')).code, 4408);
});

test('input waits for a program that does not read, and nothing of it is dropped', async () => {
  const size = 24 << 20; // more than the queue and the sockets' buffers
  const agent = await single(['sh', '-c', `stty raw -echo; echo set; head -c ${size + 1} | wc -c`]);
  const c = await Legacy.connect(agent.handshake, { ready: true });
  await c.sees('set');
  const [child] = childrenOf(agent.child.pid);
  for (const pid of [child, ...childrenOf(child)]) process.kill(pid, 'SIGSTOP');
  for (let sent = 0; sent < size; sent += 1 << 20) c.type(Buffer.alloc(1 << 20, 'x'));
  c.ws.ping();
  let answered = false;
  c.ws.on('pong', () => (answered = true));
  await until(() => c.ws._socket.writableLength > 0, 'the agent to stop reading');
  assert.equal(answered, false);
  for (const pid of [child, ...childrenOf(child)]) process.kill(pid, 'SIGCONT');
  c.type('y');
  await c.sees(String(size + 1));
  await within(c.closed, 'close');
  assert.ok(answered);
});

test('nobody ready in time: the shell ends, clients are told, status 1', async () => {
  const agent = await single(['cat'], ['--inactivity-deadline=300ms']);
  const c = await Legacy.connect(agent.handshake);
  assert.equal((await within(c.closed, 'close')).code, 4408);
  assert.deepEqual(await within(agent.closed, 'end'), { code: 1, signal: null });
  assert.match(agent.stderr, /inactivity timeout waiting for remote connection/);
  assert.equal(JSON.parse(agent.stderr).level, 'error');
});

test('the deadline is over with the first ready, or an attach of version 2', async () => {
  for (const be of [
    (agent) => Legacy.connect(agent.handshake, { ready: true }),
    async (agent) => (await Tunnel.connect(agent)).attach({ id: agent.handshake.shell }),
  ]) {
    const agent = await single(['sh', '-c', 'sleep 1; echo later; sleep 30'], ['--inactivity-deadline=600ms']);
    await be(agent);
    const c = await Legacy.connect(agent.handshake);
    await c.sees('later');
    await agent.stop();
  }
});

test('signals of the shell are told in the close reason', async () => {
  const agent = await single(['sh', '-c', 'kill -9 $$']);
  const c = await Legacy.connect(agent.handshake, { ready: true });
  assert.deepEqual(await within(c.closed, 'close'), { code: 1000, reason: 'signal 9' });
});

test('closes are answered with their code, pings with pongs, fragments are joined', async () => {
  const agent = await single(['cat']);
  const c = await Legacy.connect(agent.handshake, { ready: true });
  c.ws.ping('abc');
  assert.equal((await within(new Promise((resolve) => c.ws.on('pong', resolve)), 'pong')).toString(), 'abc');
  c.ws.send(Buffer.from('\0one '), { fin: false });
  c.ws.send(Buffer.from('two\r'), { fin: true });
  await c.sees('one two\r\none two\r\n');
  assert.equal((await c.leave()).code, 1000);
  const other = await Legacy.connect(agent.handshake);
  other.ws.close(4321, 'mine');
  assert.equal((await within(other.closed, 'close')).code, 4321);
  await agent.stop();
});

test('a shell of the old dialect serves version 2 beside old clients', async () => {
  const agent = await single(['sh']);
  const c = await Legacy.connect(agent.handshake, { ready: true });
  await c.sees('$ ');
  const t = await Tunnel.connect(agent, { token: agent.handshake.token });
  await t.attach({ id: agent.handshake.shell });
  await t.sees('$ '); // replay
  await t.input('echo both\r');
  await t.sees('\r\nboth\r\n');
  await c.sees('\r\nboth\r\n');
  c.type('exit 4\r');
  assert.equal((await t.frame('exit')).value, 4);
  assert.equal((await within(c.closed, 'close')).reason, 'exited 4');
  assert.deepEqual(await within(agent.closed, 'end'), { code: 0, signal: null });
});

function childrenOf(pid) {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
}
