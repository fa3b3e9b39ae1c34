// runloop_regressions.test.mjs -- sessions in devboxes of Runloop when things happen at the wrong moment: what was
// wrong once, and must not be again.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { NATIVE, READY, TUNNEL, World, bring } from './lib/runloop.mjs';
import { keys, test } from './lib/service.mjs';
import { DEADLINE_MS, deferred, until } from './lib/wait.mjs';

const SOON_MS = DEADLINE_MS / 3; // for what must not take a time-out
const OPEN_MS = 2000; // of hasty

let world, client; // of a service as it is by default
let sleepyService, sleepy; // whose sessions fall asleep at once
let hasty; // a client of one that gives an opening little time

before(async () => {
  world = await World.start({ args: ['--max-sessions-per-subject', '1000'] });
  client = world.client;
  sleepyService = await world.serve({ args: ['--detach-s', '1'] });
  sleepy = world.clientOf(sleepyService);
  hasty = world.clientOf(await world.serve({ args: ['--open-timeout-ms', String(OPEN_MS)] }));
});
after(() => world?.stop());

async function isLost(id, error, text, at = client) {
  const { ended } = await world.ended(id, { client: at, ms: SOON_MS });
  assert.deepEqual([ended.reason, ended.error], ['lost', error]);
  assert.match(ended.text ?? '', text);
}

// How often the session has fallen asleep.
const sleeps = (service, id) =>
  service.log.split('\n').filter((line) => line.includes('"session sleeps"') && line.includes(`"${id}"`)).length;
const fallsAsleep = (id, { service = sleepyService, times = 1 } = {}) =>
  until(() => sleeps(service, id) >= times, `${id} sleeps`);

// Nothing is being asked of providers, and all answers are on their way to the sessions.
const isIdle = (at = client) =>
  until(async () => (await at.metric('ptycast_provisioner_jobs')) === 0, 'nothing is asked of providers');

const remove = async (id, at = client) => (await at.delete(`/sessions/${id}`)).is(204);

// What is typed comes back: for shells that are READY.
async function echoes(id, text, at = client) {
  const stream = await world.view(id, { client: at });
  (await at.type(id, `${text}\n`)).is(204);
  await stream.until((e) => e.bytes?.includes(text), `${text} from ${id}`);
  stream.close();
}

// Of the next tunnel into the box: what is said comes there, but no answer to it until release().
function lateAnswers(box) {
  const gate = deferred();
  world.misbehave(box, { on: 'tunnel', late: gate.promise });
  return { release: gate.resolve };
}

// A command that leaves a trace each time that it is run.
const traced = (n) => ['sh', '-c', `echo run >>"$HOME/trace"; exec sleep ${n}`];
const runs = (box, n) => world.others(box).filter(({ cmdline }) => cmdline.includes(`sleep ${n}`)).length;

// For sessions of transport native.
const withPty = (box) => {
  box.pty = { command: READY, replayBytes: 100 };
  return box;
};
const thePty = (box) => {
  assert.equal(box.ptySessions.size, 1);
  return [...box.ptySessions.values()][0];
};

// ---- a session that sleeps ----

test('a way back that is found when the session sleeps already is not gone; the next input wakes it', async () => {
  const box = world.box();
  const { id } = await world.open(box, {}, { client: sleepy });
  const stream = await world.view(id, { client: sleepy }); // it does not sleep yet
  const look = world.hold(box, 'retrieve');
  const down = world.misbehave(box, { on: 'tunnel', status: 502, times: 1000 });
  box.cutTunnels();
  await look.arrived();
  down.remove(); // it comes back by itself
  stream.close();
  await fallsAsleep(id);
  await until(() => box.sockets.size === 0, 'no tunnel');

  world.forgetCalls(box);
  const knock = world.hold(box, 'tunnel');
  look.release();
  await isIdle(sleepy);
  const typing = sleepy.type(id, 'good morning\n');
  await knock.arrived();
  knock.release();
  (await typing).is(204);
  const all = await world.view(id, { client: sleepy });
  assert.equal((await all.to(7 + 14)).bytes.toString(), 'ready\r\ngood morning\r\n');
  assert.equal(world.count(box, 'tunnel'), 1);
  all.close();
});

test('a session that sleeps is expired when its program is silent, and is not when it goes on printing', async () => {
  const [busyBox, silentBox] = [world.box(), world.box()];
  const limited = { idle_timeout_s: 2 };
  const building = ['sh', '-c', 'while :; do echo building; sleep 0.1; done'];
  const [busy, silent] = await Promise.all([
    world.open(busyBox, { ...limited, command: building }, { client: sleepy }),
    world.open(silentBox, limited, { client: sleepy }),
  ]);
  assert.equal((await world.ended(silent.id, { client: sleepy })).ended.reason, 'expired');
  await world.isClean(silentBox);
  // It is looked at whenever its time seems to be over, and let sleep again.
  await fallsAsleep(busy.id, { times: 2 });
  assert.equal((await world.info(busy.id, sleepy)).state, 'open');
  await remove(busy.id, sleepy);
  await world.isClean(busyBox);
});

// ---- between OPEN and its answer ----

test('a tunnel that is cut behind OPEN: the command runs once, and DELETE leaves nothing of it', async () => {
  const box = world.box();
  await world.open(box); // so the place is remembered
  lateAnswers(box);
  const { id } = await world.begin(box, { command: traced(777) });
  await until(() => runs(box, 777) === 1, 'the command runs');
  assert.equal((await world.info(id)).state, 'connecting');
  box.cutTunnels();
  await world.reached(id, 'open');
  assert.equal(runs(box, 777), 1);
  assert.equal(readFileSync(join(box.home, 'trace'), 'utf8'), 'run\n');
  await remove(id);
  await world.ended(id, { ms: SOON_MS });
  await until(() => runs(box, 777) === 0, 'it is ended');
  assert.equal(world.others(box).length, 1, 'the other session is as it was');
});

test('DELETE, or the end of the time to open, while the answer to OPEN is late: nothing is left', async () => {
  await Promise.all([
    (async () => {
      const box = world.box();
      await world.open(box);
      const { release } = lateAnswers(box);
      const { id } = await world.begin(box, { command: traced(778) });
      await until(() => runs(box, 778) === 1, 'the command runs');
      await remove(id);
      await until(() => runs(box, 778) === 0, 'it is ended, although we do not hear of it');
      assert.equal((await world.ended(id, { ms: DEADLINE_MS / 2 })).ended.reason, 'closed');
      release();
      assert.equal(world.others(box).length, 1);
    })(),
    (async () => {
      const box = world.box();
      await world.open(box, {}, { client: hasty });
      const { release } = lateAnswers(box);
      const { id } = await world.begin(box, { command: traced(779) }, { client: hasty });
      await until(() => runs(box, 779) === 1, 'the command runs');
      const { ended } = await world.ended(id, { client: hasty });
      assert.deepEqual([ended.reason, ended.error], ['failed', 'tunnel-failed']);
      await until(() => runs(box, 779) === 0, 'it is ended');
      release();
      assert.equal(readFileSync(join(box.home, 'trace'), 'utf8'), 'run\n');
    })(),
  ]);
});

// ---- a far end that takes the connection, and says nothing ----

test('nobody speaks at the far end: a new session fails in time, an open one waits for its return', async () => {
  await Promise.all([
    (async () => {
      const box = world.box();
      await world.open(box, {}, { client: hasty });
      world.misbehave(box, { on: 'tunnel', mute: true, times: Infinity });
      const { id } = await world.begin(box, {}, { client: hasty });
      const { ended } = await world.ended(id, { client: hasty, ms: OPEN_MS + SOON_MS });
      assert.deepEqual([ended.reason, ended.error], ['failed', 'tunnel-failed']);
      assert.match(ended.text, /does not answer/);
    })(),
    (async () => {
      const box = world.box();
      const { id } = await world.open(box, {}, { client: hasty });
      const mute = world.misbehave(box, { on: 'tunnel', mute: true, times: Infinity });
      box.cutTunnels();
      await until(() => mute.hits >= 2, 'it is tried again');
      assert.equal((await world.info(id, hasty)).state, 'reconnecting');
      mute.remove();
      await world.reached(id, 'open', { client: hasty });
      await echoes(id, 'at last', hasty);
    })(),
  ]);
});

// ---- what a gateway says once ----

test('one answer of the gateway to a connection ends no session', async () => {
  const kinds = { agent: [{}, 'tunnel'], 'pty-tunnel': [TUNNEL, 'tunnel'], native: [NATIVE, 'pty.attach'] };
  const cases = Object.entries(kinds).flatMap(([name, [parameters, on]]) =>
    [401, 404, 503].map((status) => ({ name, parameters, on, status })),
  );
  cases.push({ name: 'native', parameters: NATIVE, on: 'pty.connect', status: 404 });
  await Promise.all(
    cases.map(async ({ name, parameters, on, status }) => {
      const box = withPty(bring(world.box({ tunnel: 'authenticated' })));
      const command = parameters === NATIVE ? undefined : READY;
      const { id } = await world.open(box, { ...parameters, command });
      const rule = world.misbehave(box, { on, status });
      box.cutTunnels();
      await until(() => rule.hits === 1, `${status} for ${name}`);
      await world.reached(id, ['open', 'ended']);
      await echoes(id, 'still here');
      await remove(id);
    }),
  );
});

// ---- a devbox that sleeps is not woken ----

test('DELETE of a session that knocks at a remembered place: nobody asks for the devbox, or wakes it', async () => {
  const box = world.box();
  const first = await world.open(box);
  await remove(first.id);
  await world.ended(first.id);
  await isIdle();
  await box.suspend();
  world.forgetCalls(box);
  const knock = world.hold(box, 'tunnel', { status: 502 });
  const { id } = await world.begin(box);
  await knock.arrived();
  await remove(id);
  knock.release();
  assert.equal((await world.ended(id, { ms: SOON_MS })).ended.reason, 'closed');
  await isIdle();
  assert.deepEqual(world.names(box, { tunnels: true }), ['tunnel']);
  assert.equal(box.status, 'suspended');
});

test('a tunnel that would wake the devbox is not knocked at when the devbox was suspended', async () => {
  const waking = (box) => {
    box.tunnel.wake_on_http = true;
    return box;
  };
  const isLeftAsleep = (box) => {
    const names = world.names(box, { tunnels: true });
    assert.ok(names.includes('retrieve'), `${names}`);
    assert.deepEqual(names.filter((name) => name === 'tunnel' || name === 'resume'), []);
    assert.equal(box.status, 'suspended');
  };
  await Promise.all([
    ...[{}, TUNNEL].map(async (parameters) => {
      const box = waking(bring(world.box()));
      const { id } = await world.open(box, { ...parameters, command: READY });
      world.forgetCalls(box);
      await box.suspend();
      await isLost(id, 'sandbox-stopped', /suspended/);
      isLeftAsleep(box);
    }),
    (async () => {
      const box = waking(world.box());
      const { id } = await world.open(box, {}, { client: sleepy });
      await fallsAsleep(id);
      world.forgetCalls(box);
      await box.suspend();
      (await sleepy.type(id, 'good morning\n')).isProblem(409, 'session-ended');
      await isLost(id, 'sandbox-stopped', /suspended/, sleepy);
      isLeftAsleep(box);
    })(),
    (async () => {
      const box = waking(world.box());
      const { id } = await world.open(box);
      await remove(id);
      await world.ended(id);
      world.forgetCalls(box);
      await box.suspend();
      (await world.post(box, { sandbox: { resume: false } })).isProblem(409, 'sandbox-stopped');
      isLeftAsleep(box);
    })(),
  ]);
});

// ---- stored sandboxes that change while sessions are open ----

const store = async (box, at = client) => (await at.post('/sandboxes', { json: world.sandbox(box) })).is(201).json.id;

async function openIn(sandbox, parameters, at = client) {
  const answer = (await at.post('/sessions?wait=open', { json: { sandbox, ...parameters } })).is(201);
  assert.equal(answer.json.state, 'open', answer.text);
  world.learn();
  return answer.json.id;
}

const kindsIn = (sandbox, at) =>
  Promise.all([
    openIn(sandbox, { command: READY }, at),
    openIn(sandbox, { transport: 'native' }, at),
    openIn(sandbox, { transport: 'agent', agent: 'pty-tunnel', command: READY }, at),
  ]);

test('a stored sandbox becomes another devbox: sessions that are open stay in theirs, all their lives', async () => {
  const service = await world.serve({ args: ['--detach-s', '1', '--keep-alive-s', '1'] });
  const at = world.clientOf(service);
  const [old, next] = [withPty(bring(world.box())), withPty(bring(world.box()))];
  const sandbox = await store(old, at);
  const ids = await kindsIn(sandbox, at);
  const streams = await Promise.all(ids.map((id) => world.view(id, { client: at })));
  (await at.request('PATCH', `/sandboxes/${sandbox}`, { json: { external_id: next.id } })).is(200);
  world.forgetCalls(old);

  await until(() => old.keepAlives >= 1, 'a sign of life');
  // Lost for so long that the provider is asked.
  const down = world.misbehave(old, { on: 'tunnel', status: 502, times: 10 });
  const lost = world.misbehave(old, { on: 'pty.attach', status: 502 });
  old.cutTunnels();
  await until(() => down.hits === 10 && lost.hits === 1, 'they are lost');
  for (const id of ids) await world.reached(id, ['open', 'ended'], { client: at });
  for (const id of ids) await echoes(id, 'in the old one', at);
  assert.ok(world.count(old, 'retrieve') >= 3, 'the way back');
  (await at.post(`/sessions/${ids[1]}/resize`, { json: { cols: 99, rows: 33 } })).is(204);
  await until(() => thePty(old).cols === 99, 'its size');
  // The one that may sleep does, and its devbox is looked at.
  const looks = world.count(old, 'retrieve');
  for (const stream of streams) stream.close();
  await fallsAsleep(ids[0], { service });
  await until(() => world.count(old, 'retrieve') > looks, 'a look');

  for (const id of ids) await remove(id, at);
  await until(() => old.ptySessions.size === 0, 'the PTY is closed');
  await until(() => !old.processes().some(({ cmdline }) => cmdline === 'cat'), 'no shell is left');
  assert.deepEqual(world.names(next, { tunnels: true }), [], 'nobody has asked for the other one');
  await openIn(sandbox, { command: READY }, at);
  assert.ok(world.others(next).length >= 1, 'but a new session is there');
  await service.stop();
});

test('a stored sandbox is deleted: its native session can be used, and DELETE closes the PTY', async () => {
  const box = withPty(world.box());
  box.pty.command = ['sh', '-c', 'trap "echo caught" INT; echo ready; while :; do sleep 0.02; done'];
  const sandbox = await store(box);
  const id = await openIn(sandbox, { transport: 'native' });
  const stream = await world.view(id);
  await stream.until((e) => e.bytes?.includes('ready'), 'ready');
  (await client.delete(`/sandboxes/${sandbox}`)).is(204);
  (await client.post(`/sessions/${id}/resize`, { json: { cols: 101, rows: 41 } })).is(204);
  await until(() => thePty(box).cols === 101, 'its size');
  (await client.post(`/sessions/${id}/signal`, { json: { signal: 'SIGINT' } })).is(204);
  await stream.until((e) => e.bytes?.includes('caught'), 'the signal');
  await remove(id);
  await until(() => box.ptySessions.size === 0, 'the PTY is closed');
  await until(() => box.processes().length === 0, 'nothing runs');
});

// ---- native: signals and sizes ----

test('a signal whose answer is lost is sent once; what the provider cannot do now is 503, what it never can is 501', async () => {
  const box = withPty(world.box());
  box.pty.command = ['sh', '-c', 'trap "echo caught" INT; echo ready; while :; do sleep 0.02; done'];
  const { id } = await world.open(box, NATIVE);
  const stream = await world.view(id);
  await stream.until((e) => e.bytes?.includes('ready'), 'ready');
  const signal = () => client.post(`/sessions/${id}/signal`, { json: { signal: 'SIGINT' } });
  const controls = () => world.count(box, 'pty.control');

  world.misbehave(box, { on: 'pty.control', cutAfterBytes: 10 });
  (await signal()).isProblem(503, 'delivery-unknown');
  assert.equal(controls(), 1);
  await stream.until((e) => e.bytes?.includes('caught'), 'it came');

  for (const [status, message, ...wanted] of [
    [500, 'it is broken', 503, 'delivery-unknown'],
    [503, 'no room', 503, 'delivery-unknown'],
    [401, 'who is there', 503, 'delivery-unknown'],
    [404, 'no such session', 503, 'delivery-unknown'],
    [400, 'unknown signal', 501, 'not-supported'],
    [400, 'no foreground process group', 409, 'session-ended'],
  ]) {
    const rule = world.misbehave(box, {
      on: 'pty.control', status, headers: { 'x-should-retry': 'false' }, body: { message },
    });
    (await signal()).isProblem(...wanted);
    assert.equal(rule.hits, 1, message);
  }
  assert.equal((await world.info(id)).state, 'open');
  (await signal()).is(204);
  const said = await stream.until((e) => e.bytes?.includes('caught'), 'the next one');
  const text = Buffer.concat(said.map((e) => e.bytes ?? Buffer.alloc(0))).toString();
  assert.equal(text.match(/caught/g).length, 1, 'none came twice');
});

test('a native size that was not set is set later, and is the same after the tunnel was lost', async () => {
  const box = withPty(world.box());
  const { id } = await world.open(box, NATIVE);
  const rule = world.misbehave(box, { on: 'pty.control', status: 500, headers: { 'x-should-retry': 'false' } });
  (await client.post(`/sessions/${id}/resize`, { json: { cols: 120, rows: 40 } })).is(204);
  const pty = thePty(box);
  await until(() => pty.cols === 120 && pty.rows === 40, 'the size');
  assert.equal(rule.hits, 1);
  await until(async () => (await world.info(id)).cols === 120, 'the session has it, too');

  await pty.order('resize 50 10');
  Object.assign(pty, { cols: 50, rows: 10 });
  box.cutTunnels();
  await until(() => pty.cols === 120 && pty.rows === 40, 'the size again');
  await echoes(id, 'and it works');
  const { cols, rows } = await world.info(id);
  assert.deepEqual([cols, rows], [120, 40]);
});

// ---- many openings, and slow devboxes ----

test('a flood of openings in devboxes that do not answer is nobody else\'s trouble', async () => {
  const service = await world.serve();
  const at = world.clientOf(service);
  const bob = world.clientOf(service, keys.stranger);
  const nativeBox = withPty(world.box());
  const native = await world.open(nativeBox, NATIVE, { client: at });

  // One devbox that gets most, and as many others as there are threads.
  const stuck = Array.from({ length: 65 }, () => world.box());
  const gate = deferred();
  const ids = new Set(stuck.map(({ id }) => id));
  world.fake.misbehave({
    on: ({ box, name }) => ids.has(box) && name !== 'tunnel', times: Infinity, effect: () => gate.promise,
  });
  for (const box of [...Array(300).fill(stuck[0]), ...stuck.slice(1)]) await world.begin(box, {}, { client: at });
  assert.ok((await at.metric('ptycast_provisioner_jobs')) >= 364);

  const booting = world.box({ status: 'provisioning' });
  booting.boot();
  await Promise.all([
    world.open(world.box(), {}, { client: bob }),
    world.open(booting, {}, { client: bob }),
    bob.createOpen({ sandbox: 'local', command: READY }),
    at.createOpen({ sandbox: 'local', command: READY }),
    (async () => {
      (await at.post(`/sessions/${native.id}/resize`, { json: { cols: 77, rows: 22 } })).is(204);
      await until(() => thePty(nativeBox).cols === 77, 'its size', SOON_MS);
      await remove(native.id, at);
      await until(() => nativeBox.ptySessions.size === 0, 'the PTY is closed', SOON_MS);
    })(),
  ]);
  // All that waits is cancelled.
  const began = Date.now();
  await service.stop();
  assert.ok(Date.now() - began < DEADLINE_MS, 'and soon');
  gate.resolve();
  for (const box of stuck) assert.deepEqual(world.others(box), []);
});

// ---- two services that make a tunnel at once ----

for (const second of ['error', 'same', 'new'])
  test(`two services enable the tunnel of a devbox at once, the second call is answered by ${second}`, async (t) => {
    world.fake.secondTunnel = second;
    t.cleanup(() => (world.fake.secondTunnel = 'new'));
    const box = world.box({ tunnel: null });
    const both = world.hold(box, 'enable_tunnel', { count: 2 });
    const sessions = [
      [client, await world.begin(box)],
      [hasty, await world.begin(box, {}, { client: hasty })],
    ];
    await both.arrived();
    both.release();
    for (const [at, { id }] of sessions) {
      await world.reached(id, 'open', { client: at });
      await world.ready(id, { client: at });
      await echoes(id, 'hello', at);
    }
    const statuses = world.calls(box).filter(({ name }) => name === 'enable_tunnel').map(({ status }) => status);
    if (second === 'error') assert.deepEqual([...new Set(statuses)].sort(), [200, 409]);
    else assert.deepEqual(statuses, [200, 200]);
    assert.equal(world.agents(box).length, 1);
  });
