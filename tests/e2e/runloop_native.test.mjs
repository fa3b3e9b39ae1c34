// runloop_native.test.mjs -- sessions in devboxes of Runloop without our agent: by the PTY service that each devbox has
// (transport native), and by the agent that some images bring (agent pty-tunnel).
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { program, scaled } from './lib/flavour.mjs';
import { PatternShell, assertPattern } from './lib/pattern.mjs';
import { NATIVE, TUNNEL, World, bring } from './lib/runloop.mjs';
import { test } from './lib/service.mjs';
import { DEADLINE_MS, until } from './lib/wait.mjs';

const MB = 1 << 20;
const SOON_MS = DEADLINE_MS / 3; // for what must not take a time-out
const FIRST = 64; // bytes that a shell of patternIn() says by itself
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

let world, client;

before(async () => {
  // Devboxes share the ports of this machine: one that ended must not be mistaken for its successor.
  world = await World.start({ fake: { isolatePorts: true }, args: ['--max-sessions-per-subject', '1000'] });
  client = world.client;
});
after(() => world?.stop());

const steps = (session) => session.steps.map(({ step }) => step);
const joined = (events) => Buffer.concat(events.filter((e) => e.bytes).map((e) => e.bytes));
const remove = async (id, at = client) => (await at.delete(`/sessions/${id}`)).is(204);
const isQuiet = (box) =>
  until(() => box.processes().length === 0, 'nothing runs').catch(() => assert.fail(JSON.stringify(box.processes())));

async function isLost(id, text, { error = 'tunnel-lost', at = client } = {}) {
  const { ended } = await world.ended(id, { client: at, ms: SOON_MS });
  assert.deepEqual([ended.reason, ended.error, ended.exit_code, ended.signal], ['lost', error, null, null]);
  assert.match(ended.text ?? '', text);
}

async function hasExited(id, stream) {
  const { ended } = await world.ended(id, { ms: SOON_MS });
  assert.deepEqual([ended.reason, ended.error, ended.exit_code, ended.signal], ['exited', null, null, null]);
  if (!stream) return;
  const { events } = await stream.rest();
  assert.deepEqual(events.at(-1).data, { reason: 'exited', exit_code: null, signal: null });
}

// The problem, and the session that says the same.
async function fails(box, status, slug, text, parameters) {
  const answer = (await world.post(box, parameters)).isProblem(status, slug);
  assert.match(answer.json.detail, text);
  const { state, ended } = await world.info(answer.json.session);
  assert.deepEqual([state, ended.reason, ended.error], ['ended', 'failed', slug]);
  return answer.json.session;
}

// A shell whose output is a pattern. What it says at first is kept for whoever attaches first, and for no other.
async function patternIn(box, mode = 'lines', { at = client, ...more } = {}) {
  box.pty = { command: [program('tests/tools/pattern'), mode, String(FIRST)], replayBytes: FIRST, ...box.pty };
  const shell = new PatternShell(at, mode, await world.open(box, { ...NATIVE, ...more }, { client: at }));
  await shell.reached(FIRST);
  box.pty.replayBytes = 0;
  for (const session of box.ptySessions.values()) session.replay = Buffer.alloc(0);
  return shell;
}

// Events from now on up to a reset, and what came of them: the epoch and offset it names.
async function toReset(stream) {
  const events = await stream.until((e) => e.event === 'reset', 'reset');
  return events.at(-1);
}

// Lets the shell print more in its new epoch, and holds that against what it had printed before.
async function goesOn(shell, stream, had, size) {
  const reset = await toReset(stream);
  assert.notEqual(reset.epoch, shell.epoch);
  await shell.write(size);
  const { bytes, from } = await stream.to(reset.offset + size);
  assert.equal(from, reset.offset);
  assertPattern(shell.mode, had, bytes);
  const { epoch, state } = await shell.info();
  assert.deepEqual([epoch, state], [reset.epoch, 'open']);
  shell.epoch = epoch;
}

// ---- native: the shell ----

test('native opens with the view and the tunnel at once, then the shell; its prompt comes', async () => {
  const box = world.box({ tunnel: null });
  box.pty.replayBytes = 1000;
  const { id } = await world.begin(box, { ...NATIVE, cols: 91, rows: 31 });
  const stream = await world.view(id);
  await stream.when(() => stream.outputBytes >= 2, 'prompt');
  const session = await world.reached(id, 'open');
  assert.deepEqual(world.names(box).slice(0, 2).sort(), ['create_pty_tunnel', 'retrieve']);
  assert.deepEqual(world.names(box).slice(2), ['pty.connect', 'pty.attach']);
  assert.deepEqual(steps(session).slice(-1), ['connect']);
  assert.deepEqual([session.provider, session.sandbox.transport], ['runloop', 'native']);
  (await client.type(id, 'stty -echo; echo "<$(tty >/dev/null && stty size)>"\n')).is(204);
  const events = await stream.until((e) => e.bytes?.includes('<31 91>'), 'what stty says');
  assert.match(joined(events).toString(), /\$ stty/);
  assert.equal(box.tunnel, null, 'no tunnel is made that stays');
  assert.deepEqual(box.uploads, []);

  // Its PTY has one name, which nobody can guess; headers are the tunnel's.
  const [name, ...more] = box.ptySessions.keys();
  assert.match(name, /^ptycast-[0-9a-f]{32}/);
  assert.deepEqual(more, []);
  for (const call of world.calls(box).filter((one) => one.name.startsWith('pty.'))) {
    assert.match(call.headers.authorization, /^Bearer pt-/);
    assert.equal(call.headers['x-runloop-tunnel-authorization'], call.headers.authorization);
    assert.equal(call.port, 13);
  }
  await remove(id);
  assert.equal((await world.ended(id)).ended.reason, 'closed');
  await isQuiet(box);
});

test('a megabyte from a native shell comes as it is, whatever its bytes', async () => {
  const box = world.box();
  const shell = await patternIn(box, 'bytes');
  const stream = await shell.view();
  const size = scaled(MB);
  await shell.write(size);
  const { bytes } = await stream.to(FIRST + size);
  assert.equal(bytes.length, FIRST + size);
  shell.assert(0, bytes);
  stream.close();
});

test('a megabyte typed into a native shell arrives as it was', async () => {
  const box = world.box();
  const file = join(box.home, 'typed');
  const data = randomBytes(scaled(MB));
  box.pty = { command: [program('tests/tools/typed'), 'raw', file, String(data.length)], replayBytes: 100 };
  const { id } = await world.open(box, NATIVE);
  const stream = await world.view(id);
  await stream.when(() => stream.outputBytes >= 5, 'ready');
  for (let at = 0; at < data.length; at += 65_536) (await client.type(id, data.subarray(at, at + 65_536))).is(204);
  const { bytes } = await stream.rest();
  assert.match(bytes.toString(), new RegExp(`got ${data.length}`));
  assert.equal(sha256(readFileSync(file)), sha256(data));
  await hasExited(id);
});

test('sizes that come fast: the last one wins, and viewers see it', async () => {
  const box = world.box();
  const shell = await patternIn(box);
  const stream = await shell.view();
  const resize = async (cols, rows) => (await client.post(`${shell.path}/resize`, { json: { cols, rows } })).is(204);
  await resize(100, 50);
  const { data } = await stream.first('resize');
  assert.deepEqual([data.cols, data.rows], [100, 50]);

  // One is held under way: of those that come meanwhile only the last one counts.
  const held = world.hold(box, 'pty.control');
  const before = world.count(box, 'pty.control');
  await resize(101, 41);
  await held.arrived();
  for (let n = 0; n <= 20; n++) await resize(110 + n, 60 + n);
  held.release();
  const events = await stream.until((e) => e.event === 'resize' && e.data.cols === 130, 'the last size');
  assert.deepEqual(events.filter((e) => e.event === 'resize').map((e) => [e.data.cols, e.data.rows]), [[101, 41], [130, 80]]);
  assert.equal(world.count(box, 'pty.control') - before, 2);
  await shell.type('z\n');
  const said = await stream.until((e) => e.bytes?.includes(']'), 'the size');
  assert.match(joined(said).toString(), /\[130x80\]/);
  const info = await shell.info();
  assert.deepEqual([info.cols, info.rows], [130, 80]);

  // A size that the far end refuses changes nothing.
  const refused = world.misbehave(box, { on: 'pty.control', status: 400, body: { message: 'no' } });
  await resize(80, 24);
  await until(() => refused.hits === 1, 'the refusal');
  await resize(81, 25);
  assert.deepEqual((await stream.first('resize')).data.cols, 81);
  stream.close();
});

test('signals reach the foreground of a native shell; what is refused is told', async () => {
  const box = world.box();
  const shell = await patternIn(box);
  const stream = await shell.view();
  const signal = (name) => client.post(`${shell.path}/signal`, { json: { signal: name } });
  (await signal('INT')).is(204);
  await stream.until((e) => e.bytes?.includes('[INT]'), 'SIGINT');
  (await signal('SIGUSR1')).is(204);
  await stream.until((e) => e.bytes?.includes('[USR1]'), 'SIGUSR1');
  const before = world.count(box, 'pty.control');
  (await signal('SIGNONE')).isProblem(400, 'bad-request');
  assert.equal(world.count(box, 'pty.control'), before);
  world.misbehave(box, { on: 'pty.control', status: 400, body: { message: 'unknown signal' } });
  (await signal('HUP')).isProblem(501, 'not-supported');
  world.misbehave(box, { on: 'pty.control', status: 400, body: { message: 'no foreground process group' } });
  (await signal('HUP')).isProblem(409, 'session-ended');
  // The end that it causes may be told before its own answer has come.
  const killed = await signal('KILL');
  if (killed.status !== 204) killed.isProblem(409, 'session-ended');
  const exit = (await stream.rest()).events.at(-1);
  assert.deepEqual(exit.data, { reason: 'exited', exit_code: null, signal: null }, 'native tells no status');
});

for (const closeCode of [4000, 1000])
  test(`a native shell that exits with close code ${closeCode} has exited, its status is not known`, async () => {
    const box = world.box();
    const shell = await patternIn(box);
    box.pty.closeCode = closeCode;
    const stream = await shell.view();
    await shell.exit(3);
    await hasExited(shell.id, stream);
    assert.equal(world.count(box, 'pty.connect'), 1, 'nobody asks for it again');
    await isQuiet(box);
  });

test('a native shell that is gone without a word is lost, and the one made by looking is closed', async () => {
  const box = world.box();
  const shell = await patternIn(box);
  box.pty.closeCode = 1006;
  await shell.exit(0);
  await isLost(shell.id, /PTY session is gone/);
  assert.equal(world.count(box, 'pty.connect'), 2);
  assert.doesNotMatch(world.service.log, new RegExp(`shell left behind.*${shell.id}`));
  assert.equal(box.ptySessions.size, 0);
  await isQuiet(box);
});

test('DELETE ends the native shell in the sandbox, and what runs in it', async () => {
  const box = world.box();
  const { id } = await world.open(box, NATIVE);
  (await client.type(id, 'sh -c "sleep 1000 & sleep 1001"\n')).is(204);
  await until(() => box.processes().filter(({ cmdline }) => cmdline.startsWith('sleep')).length === 2, 'they run');
  await remove(id);
  assert.equal((await world.ended(id, { ms: SOON_MS })).ended.reason, 'closed');
  await isQuiet(box);
  assert.equal(box.ptySessions.size, 0);
});

test('a command, variables or a directory are not possible with native, and nobody is asked', async () => {
  const box = world.box();
  for (const more of [{ command: ['true'] }, { env: { A: 'b' } }, { cwd: '/' }])
    await fails(box, 409, 'not-possible', /the sandbox's shell only/, { ...NATIVE, ...more });
  assert.deepEqual(world.calls(box), []);
});

test('DELETE while a native shell is being made leaves none', async () => {
  const box = world.box();
  // It is made, but nobody is told.
  world.misbehave(box, { on: 'pty.connect', cutAfterBytes: 1, times: Infinity });
  const { id } = await world.begin(box, NATIVE);
  await until(() => box.ptySessions.size === 1, 'it is made');
  await remove(id);
  assert.equal((await world.ended(id, { ms: SOON_MS })).ended.reason, 'closed');
  await isQuiet(box);
  assert.equal(box.ptySessions.size, 0);
});

// ---- native: auto ----

const noAgent = (box) => box.addProgram('uname', '#!/bin/sh\necho riscv64\n');

test('auto takes the native shell where the agent cannot be had, and its steps say so', async () => {
  const box = world.box();
  noAgent(box);
  const auto = { command: undefined, sandbox: { transport: 'auto' } };
  const session = await world.open(box, auto);
  assert.deepEqual(steps(session), ['devbox', 'pty-tunnel', 'connect']);
  assert.deepEqual(world.names(box).slice(2), ['create_pty_tunnel', 'pty.connect', 'pty.attach']);
  assert.deepEqual(box.uploads, []);
  assert.match(world.service.log, new RegExp(`runloop without agent.*${box.id}.*riscv64`));
  // The first error says what to do, when neither can be had.
  await remove(session.id);
  world.misbehave(box, { on: 'create_pty_tunnel', status: 404, times: Infinity });
  await fails(box, 502, 'agent-install', /no agent for this machine.*riscv64/, auto);
  // And what native cannot give is not asked of it.
  world.forgetCalls(box);
  await fails(box, 502, 'agent-install', /no agent for this machine/, { ...auto, command: ['true'] });
  assert.equal(world.count(box, 'create_pty_tunnel'), 0);
  await isQuiet(box);
});

// ---- native: the way there ----

test('a socket that is cut: the same shell is attached again, as a new epoch', async () => {
  const box = world.box();
  const shell = await patternIn(box);
  const stream = await shell.view();
  let had = FIRST;
  for (let round = 1; round <= 3; round++) {
    box.cutTunnels();
    await goesOn(shell, stream, had, 6400);
    had += 6400;
    assert.equal(world.count(box, 'pty.connect'), 1 + round);
    assert.deepEqual([world.count(box, 'create_pty_tunnel'), box.ptySessions.size], [1, 1]);
  }
  await shell.exit(0);
  await hasExited(shell.id, stream);
});

test('while the old socket is still held the new one is refused, and tried again', async () => {
  const box = world.box();
  const shell = await patternIn(box);
  const stream = await shell.view();
  const rule = world.misbehave(box, { on: 'pty.attach', status: 409 });
  box.cutTunnels();
  await goesOn(shell, stream, FIRST, 640);
  assert.equal(rule.hits, 1);
  assert.deepEqual([world.count(box, 'pty.attach'), box.ptySessions.size], [3, 1]);
  stream.close();
});

test('the shell was ended for want of a client: it is lost, and the one made by looking is closed', async () => {
  const box = world.box();
  const shell = await patternIn(box);
  const look = world.hold(box, 'retrieve');
  box.pty.idleTtlMs = 1;
  box.cutTunnels();
  await look.arrived();
  await until(() => box.ptySessions.size === 0 && box.processes().length === 0, 'it is ended');
  box.pty.idleTtlMs = 300_000;
  look.release();
  await isLost(shell.id, /PTY session is gone/);
  assert.equal(box.ptySessions.size, 0);
  await isQuiet(box);
});

test('the tunnel lets nobody in any more: another one leads to the same shell', async () => {
  for (const spoil of [
    (entry) => (entry.tunnel.auth_token = `pt-${randomBytes(8).toString('hex')}`),
    (entry, key) => world.fake.tunnels.delete(key),
  ]) {
    const box = world.box();
    const shell = await patternIn(box);
    const stream = await shell.view();
    const [[key, entry]] = [...world.fake.tunnels].filter(([, one]) => one.box === box && one.kind === 'pty');
    spoil(entry, key);
    box.cutTunnels();
    await goesOn(shell, stream, FIRST, 640);
    assert.deepEqual([world.count(box, 'create_pty_tunnel'), box.ptySessions.size], [2, 1]);
    // What goes by the provider goes by the new one, too.
    (await client.post(`${shell.path}/signal`, { json: { signal: 'INT' } })).is(204);
    await stream.until((e) => e.bytes?.includes('[INT]'), 'SIGINT');
    stream.close();
  }
});

test('an address that is none, or leads elsewhere, is refused; the shell behind it does not stay', async () => {
  const odd = [null, 17, '', 'attach', '//evil/pty', '/pty/a@evil', '/pty\\evil', 'wss://evil/pty', '/a b', '/a\r\nX: y', '/a#b'];
  await Promise.all(
    odd.map(async (connectUrl) => {
      const box = world.box();
      box.pty.connectUrl = connectUrl;
      await fails(box, 502, 'provider-error', /no connect_url/, NATIVE);
      assert.equal(world.count(box, 'pty.attach'), 0, String(connectUrl));
      await isQuiet(box);
    }),
  );
});

test('a gateway that stumbles before the upgrade, and before the shell, is asked again: one shell', async () => {
  await Promise.all(
    [
      [{ on: 'pty.connect', status: 502, times: 2 }],
      [{ on: 'pty.attach', status: 502, times: 2 }],
      [{ on: 'pty.attach', status: 503, times: 2 }, { on: 'pty.connect', status: 503 }],
      [{ on: 'pty.attach', cut: 'before' }],
      [{ on: 'pty.attach', status: 409 }],
      [{ on: 'pty.connect', cutAfterBytes: 1 }], // made, but not told
    ].map(async (rules) => {
      const box = world.box();
      for (const rule of rules) world.misbehave(box, rule);
      const { id } = await world.open(box, NATIVE);
      assert.equal(box.ptySessions.size, 1, JSON.stringify(rules));
      await remove(id);
      await isQuiet(box);
    }),
  );
});

test('a gateway that does not let us in for long: the shell that was made is the one that opens', async () => {
  const box = world.box();
  const rule = world.misbehave(box, { on: 'pty.attach', status: 502, times: 3 });
  const { id } = await world.open(box, NATIVE);
  assert.equal(rule.hits, 3);
  const bash = () => box.processes().filter(({ cmdline }) => /^bash/.test(cmdline));
  await until(() => bash().length === 1, 'one shell').catch(() => assert.fail(JSON.stringify(box.processes())));
  assert.equal(box.ptySessions.size, 1);
  await remove(id);
  await isQuiet(box);
});

test('the devbox is suspended while a native shell is open: it is lost, and no shell is made', async () => {
  const box = world.box();
  const shell = await patternIn(box);
  await box.suspend();
  await isLost(shell.id, /suspended/, { error: 'sandbox-stopped' });
  assert.deepEqual([world.count(box, 'pty.connect'), world.count(box, 'resume')], [1, 0]);
  assert.deepEqual(box.processes(), []);
});

test('the service is killed and comes back: the same native shell', async () => {
  const service = await world.serve();
  const box = world.box();
  const shell = await patternIn(box, 'lines', { at: world.clientOf(service) });
  await service.kill();
  await service.restart();
  shell.client = world.clientOf(service);
  await world.reached(shell.id, 'open', { client: shell.client });
  const stream = await shell.view({ lastEventId: shell.idAt(FIRST) });
  await goesOn(shell, stream, FIRST, 6400);
  assert.equal(box.ptySessions.size, 1);
  await shell.exit(0);
  assert.equal((await world.ended(shell.id, { client: shell.client })).ended.reason, 'exited');
  await service.stop();
});

// ---- the agent that the image brings ----

const starts = (box) => [...box.executions.values()].filter(({ command }) => command.includes('pty-tunnel-server'));
const shellsOf = (box) => box.processes().filter(({ cmdline }) => !/pty-tunnel-server/.test(cmdline));

// A shell whose output is a pattern.
async function tunnelPattern(box, mode = 'lines', { at = client, ...more } = {}) {
  const command = [program('tests/tools/pattern'), mode, String(FIRST)];
  const shell = new PatternShell(at, mode, await world.open(box, { ...TUNNEL, command, ...more }, { client: at }));
  await shell.reached(FIRST);
  return shell;
}

test('pty-tunnel: command, directory and variables arrive as they are, and the exit is told without a status', async () => {
  const box = bring(world.box({ tunnel: 'authenticated' }));
  const cwd = join(box.home, `it's "a" $(place) \\ of -spaces`);
  mkdirSync(cwd);
  const env = { A: `'"$(false)\\ \n;`, EMPTY: '', U: 'é€😀' };
  const script = 'stty -opost; printf "<%s|%s|%s|%s|%s>" "$PWD" "$A" "$EMPTY" "$TERM" "$(stty size)"; printf "%s;" "$@"; printenv U; read x; exit 7';
  const command = ['sh', '-c', script, 'sh', `a'b`, '$HOME', '', '*'];
  const session = await world.open(box, { ...TUNNEL, command, cwd, env, cols: 91, rows: 31 });
  assert.deepEqual(steps(session), ['devbox', 'start', 'connect']);
  assert.deepEqual(world.names(box).slice(0, 3), ['retrieve', 'execute_async', 'stdout']);
  const stream = await world.view(session.id);
  const events = await stream.until((e) => e.bytes?.includes('é€😀'), 'all of it');
  assert.equal(
    joined(events).toString(),
    `<${cwd}|${env.A}||xterm-256color|31 91>a'b;$HOME;;*;é€😀\n`,
  );
  (await client.type(session.id, '\n')).is(204);
  await hasExited(session.id, stream);
  await until(() => shellsOf(box).length === 0, 'no shell');
});

test('pty-tunnel: without a command it is bash, or sh where there is none; a megabyte both ways', async () => {
  const plain = { ...TUNNEL, command: undefined };
  await Promise.all([
    (async () => {
      const box = bring(world.box());
      const { id } = await world.open(box, plain);
      await until(() => shellsOf(box).some(({ cmdline }) => cmdline === 'bash'), 'bash');
      await remove(id);
    })(),
    (async () => {
      const box = bring(world.box({ noBash: true }));
      const { id } = await world.open(box, plain);
      await until(() => shellsOf(box).some(({ cmdline }) => cmdline === 'sh'), 'sh');
      await remove(id);
    })(),
    (async () => {
      const shell = await tunnelPattern(bring(world.box()), 'bytes');
      const stream = await shell.view();
      const size = scaled(MB);
      await shell.write(size);
      shell.assert(0, (await stream.to(FIRST + size)).bytes);
      stream.close();
    })(),
    (async () => {
      const box = bring(world.box());
      const file = join(box.home, 'typed');
      const data = randomBytes(scaled(MB));
      const command = [program('tests/tools/typed'), 'raw', file, String(data.length)];
      const { id } = await world.open(box, { ...TUNNEL, command });
      const stream = await world.view(id);
      await stream.when(() => stream.outputBytes >= 5, 'ready');
      for (let at = 0; at < data.length; at += 65_536) (await client.type(id, data.subarray(at, at + 65_536))).is(204);
      await stream.rest();
      assert.equal(sha256(readFileSync(file)), sha256(data));
    })(),
  ]);
});

test('pty-tunnel: sizes go by the socket, signals do not go at all', async () => {
  const box = bring(world.box());
  const shell = await tunnelPattern(box);
  const stream = await shell.view();
  for (let n = 0; n <= 10; n++)
    (await client.post(`${shell.path}/resize`, { json: { cols: 100 + n, rows: 40 + n } })).is(204);
  await stream.until((e) => e.event === 'resize' && e.data.cols === 110, 'the last size');
  await shell.type('z\n');
  await stream.until((e) => e.bytes?.includes('[110x50]'), 'the size');
  (await client.post(`${shell.path}/signal`, { json: { signal: 'INT' } })).isProblem(501, 'not-supported');
  stream.close();
});

// How the handshake may come. first: of the first stream only.
const JSON_LINES = 'printf "%s\\n" "" "{}" "{\\"port\\":1}" "not JSON: é€😀" "[1]"';
const handshakes = {
  'byte by byte': { sse: { chunkBytes: 1, wireBytes: 7 } },
  'in twos, behind other lines': { before: JSON_LINES, sse: { chunkBytes: 2, eol: '\r\n' } },
  'in threes, a 408 in the middle, the last chunk once more': { before: JSON_LINES, first: { chunkBytes: 3, errorAfter: 20 }, times: 3 },
  'in threes, begun again some bytes before': { before: JSON_LINES, sse: { chunkBytes: 3, shift: -5 }, first: { chunkBytes: 3, errorAfter: 30 }, times: 2 },
  'without offsets, cut in the middle': { before: JSON_LINES, sse: { offsets: false }, first: { offsets: false, chunkBytes: 3, cutAfter: 30, cutMiddle: true }, times: 2 },
  'cut in the middle of an event': { sse: { chunkBytes: 2 }, first: { chunkBytes: 2, cutAfter: 25, cutMiddle: true }, times: 2 },
  'late, with 408s before': { before: 'sleep 0.3', sse: { idleMs: 50 } },
};
test('pty-tunnel: the handshake is found however its stream is cut', async () => {
  await Promise.all(
    Object.entries(handshakes).map(async ([name, { before, sse = {}, first, times }]) => {
      const box = bring(world.box(), before);
      box.sse = sse;
      const rule = first && world.misbehave(box, { on: 'stdout', sse: first, times });
      const shell = await tunnelPattern(box).catch((error) => assert.fail(`${name}: ${error.message}`));
      if (rule) assert.equal(rule.hits, times, name);
      await shell.write(6400);
      const stream = await shell.view();
      shell.assert(0, (await stream.to(FIRST + 6400)).bytes);
      stream.close();
      assert.equal(starts(box).length, 1, name);
    }),
  );
});

test('pty-tunnel: an image without it, a start that fails, a directory that is not there', async () => {
  await fails(world.box(), 502, 'agent-start', /pty-tunnel-server is not in the sandbox/, TUNNEL);

  const broken = world.box();
  broken.addProgram('pty-tunnel-server', '#!/bin/sh\necho first >&2\necho \'{"level":"error","msg":"no pty for you"}\' >&2\nexit 3\n');
  await fails(broken, 502, 'agent-start', /no pty for you/, TUNNEL);

  const box = bring(world.box());
  await fails(box, 502, 'agent-start', /nowhere/, { ...TUNNEL, cwd: '/nowhere' });
  for (const one of [broken, box]) {
    assert.equal(starts(one).length, 1);
    await isQuiet(one);
  }
});

test('pty-tunnel: a command that cannot be run ends the session', async () => {
  const box = bring(world.box());
  await fails(box, 502, 'start-failed', /pty-tunnel-server has ended: .*\/no\/such\/program/, { ...TUNNEL, command: ['/no/such/program'] });
  assert.equal(starts(box).length, 1);
});

test('pty-tunnel: DELETE while the handshake is awaited ends what was started, with all it started', async () => {
  const box = world.box();
  box.addProgram('pty-tunnel-server', '#!/bin/sh\nsleep 1000 &\nsleep 1001\n');
  const { id } = await world.begin(box, TUNNEL);
  await until(() => box.processes().filter(({ cmdline }) => cmdline.startsWith('sleep')).length === 2, 'it runs');
  await until(() => world.count(box, 'stdout') === 1, 'the handshake is awaited');
  await remove(id);
  assert.equal((await world.ended(id, { ms: SOON_MS })).ended.reason, 'closed');
  await isQuiet(box);
  const kills = world.calls(box).filter((call) => call.name === 'kill');
  assert.deepEqual(kills.map((call) => call.body), [{ kill_process_group: true }]);
});

test('pty-tunnel: DELETE of one that is open ends its shell', async () => {
  const box = bring(world.box());
  const { id } = await world.open(box, { ...TUNNEL, command: ['sh', '-c', 'trap "" HUP; sleep 1000 & sleep 1001'] });
  await until(() => shellsOf(box).filter(({ cmdline }) => cmdline.startsWith('sleep')).length === 2, 'it runs');
  await remove(id);
  assert.equal((await world.ended(id, { ms: SOON_MS })).ended.reason, 'closed');
  await until(() => starts(box).every(({ status }) => status === 'completed'), 'the execution has ended');
  await until(() => !shellsOf(box).some(({ cmdline }) => cmdline.startsWith('sh -c')), 'its shell is gone');
});

for (const [times, what] of [[3, 'not yet'], [6, 'not for long']])
  test(`pty-tunnel: a runner that is ${what} registered is tried again: one shell`, async () => {
    const box = bring(world.box());
    const rule = world.misbehave(box, { on: 'tunnel', status: 404, times });
    const shell = await tunnelPattern(box);
    assert.equal(rule.hits, times);
    assert.equal(starts(box).filter(({ status }) => status !== 'completed').length, 1);
    assert.equal(starts(box).length, 1);
    await shell.exit(0);
    await hasExited(shell.id);
  });

test('pty-tunnel: a start that was carried out but not told is not repeated', async () => {
  await Promise.all(
    [
      { status: 500, effect: (call) => void world.fake.boxes.get(call.box).execute({ command: call.body.command }) },
      { cut: 'answer' },
    ].map(async (rule) => {
      const box = bring(world.box());
      world.misbehave(box, { on: 'execute_async', ...rule });
      const answer = await world.post(box, TUNNEL);
      assert.ok(['/problems/provider-error', '/problems/provider-unreachable'].includes(answer.json.type), answer.text);
      assert.deepEqual([world.count(box, 'execute_async'), starts(box).length], [1, 1]);
    }),
  );
});

test('pty-tunnel: a start that was surely not carried out is repeated', async () => {
  const box = bring(world.box());
  world.misbehave(box, { on: 'execute_async', status: 503, headers: { 'retry-after-ms': '5' } });
  world.misbehave(box, { on: 'execute_async', status: 429, headers: { 'retry-after-ms': '5' } });
  const { id } = await world.open(box, TUNNEL);
  assert.deepEqual([world.count(box, 'execute_async'), starts(box).length], [3, 1]);
  await remove(id);
});

test('pty-tunnel: a socket that is cut is made again, to the same shell, as a new epoch', async () => {
  const box = bring(world.box());
  const shell = await tunnelPattern(box);
  const stream = await shell.view();
  box.cutTunnels();
  await goesOn(shell, stream, FIRST, 640);
  // The gateway is away for long: the devbox is looked at, and while that is answered the way may be open again.
  let had = FIRST + 640;
  for (const [times, answer] of [[4, {}], [1, { status: 400 }]]) {
    const look = world.hold(box, 'retrieve', answer);
    world.misbehave(box, { on: 'tunnel', status: 502, times });
    const connect = world.hold(box, 'tunnel');
    box.cutTunnels();
    await Promise.all([look.arrived(), connect.arrived()]);
    look.release();
    await until(() => world.calls(box).findLast(({ name }) => name === 'retrieve').status, 'it is answered');
    // And heard, by the loop that takes this behind it; nothing comes of it.
    await until(async () => (await client.metric('ptycast_provisioner_jobs')) === 0, 'its job is over');
    const { cols, rows } = await shell.info();
    (await client.post(`${shell.path}/resize`, { json: { cols, rows } })).is(204);
    connect.release();
    await goesOn(shell, stream, had, 640);
    had += 640;
  }
  assert.equal(starts(box).length, 1);
  stream.close();
});

test('pty-tunnel: the shell is gone when we are back, the devbox sleeps, the service is killed', async () => {
  await Promise.all([
    (async () => {
      const box = bring(world.box());
      const shell = await tunnelPattern(box);
      const connect = world.hold(box, 'tunnel');
      box.cutTunnels();
      await connect.arrived();
      await box.killProcesses();
      connect.release();
      await isLost(shell.id, /pty-tunnel-server has ended/);
      assert.equal(starts(box).length, 1);
    })(),
    (async () => {
      const box = bring(world.box());
      const shell = await tunnelPattern(box);
      await box.suspend();
      await isLost(shell.id, /suspended/, { error: 'sandbox-stopped' });
      assert.equal(starts(box).length, 1);
    })(),
    (async () => {
      const service = await world.serve();
      const box = bring(world.box());
      const shell = await tunnelPattern(box, 'lines', { at: world.clientOf(service) });
      await service.kill();
      await service.restart();
      shell.client = world.clientOf(service);
      await world.reached(shell.id, 'open', { client: shell.client });
      const stream = await shell.view({ lastEventId: shell.idAt(FIRST) });
      await goesOn(shell, stream, FIRST, 640);
      assert.equal(starts(box).length, 1);
      stream.close();
      await remove(shell.id, shell.client);
      await until(() => starts(box).every(({ status }) => status === 'completed'), 'the execution has ended');
      await service.stop();
    })(),
  ]);
});
