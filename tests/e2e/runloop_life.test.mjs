// runloop_life.test.mjs -- the life of a session in a devbox of Runloop: the service dies, the tunnel is cut, the devbox
// falls asleep or ends, the agent is killed; signs of life while it is used, and sleep while it is not.
import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { scaled } from './lib/flavour.mjs';
import { PatternShell, assertPattern, follow } from './lib/pattern.mjs';
import { READY, World } from './lib/runloop.mjs';
import { test } from './lib/service.mjs';
import { DEADLINE_MS, until } from './lib/wait.mjs';

const MB = 1 << 20;
const SOON_MS = DEADLINE_MS / 3; // for what must not take a time-out

let world, client; // of a service that never sleeps
let drowsy; // a client of one that does

before(async () => {
  world = await World.start({ args: ['--max-sessions-per-subject', '1000'] });
  client = world.client;
  drowsy = world.clientOf(await world.serve({ args: ['--detach-s', '1', '--keep-alive-s', '1'] }));
});
after(() => world?.stop());

const patternIn = (box, { at = client, mode = 'lines', sandbox = world.sandbox(box), ...more } = {}) =>
  PatternShell.create(at, mode, { sandbox, ...more }).then((shell) => {
    world.learn();
    return shell;
  });
const states = (events) => events.filter((e) => e.event === 'state' && !e.data.step).map(({ data }) => data.state);

// Looks at a session that is to be lost.
async function isLost(id, error, text, at = client) {
  const { ended } = await world.ended(id, { client: at, ms: SOON_MS });
  assert.deepEqual([ended.reason, ended.error, ended.exit_code, ended.signal], ['lost', error, null, null]);
  assert.match(ended.text ?? '', text);
}

// --- the service ---

for (const stored of [false, true])
  test(`the service is killed in a flood and comes back: no byte is lost, ${stored ? 'stored' : 'inline'} sandbox`, async (t) => {
    const service = await world.serve();
    t.cleanup(() => service.kill().catch(() => {}));
    const at = world.clientOf(service);
    const box = world.box({ tunnel: 'authenticated' });
    let sandbox = world.sandbox(box);
    if (stored) sandbox = (await at.post('/sandboxes', { json: sandbox })).is(201).json.id;
    const shell = await patternIn(box, { at, sandbox, id: `flood-${stored}` });
    const size = scaled(16 * MB);
    const progress = { offset: 0 };
    const viewer = follow(shell, service, 64 + size, progress);
    await shell.write(size);
    for (let round = 1; round <= 2; round++) {
      await until(() => progress.offset > (size / 3) * round, 'progress');
      await service.kill();
      world.forgetCalls(box);
      await service.restart();
    }
    shell.assert(0, await viewer);
    shell.client = world.clientOf(service);
    assert.equal((await shell.info()).epoch, shell.epoch, 'the same shell');
    assert.deepEqual(world.names(box), [], 'it knows the way, and asks nobody');
    // And what was typed while it was away is typed once: nothing was.
    await shell.type('t typed once\n');
    await until(async () => (await shell.info()).offset === 64 + size + 10, 'the answer');
    await shell.exit(21);
    assert.equal((await shell.ended()).ended.exit_code, 21);
    await world.isClean(box);
    await service.stop();
    assert.equal(service.process.ended.code, 0);
  });

test('a stop of the service leaves the shell alone; the next one has it, and an end that came meanwhile', async () => {
  const service = await world.serve();
  let at = world.clientOf(service);
  const box = world.box();
  const lives = await patternIn(box, { at, id: 'lives' });
  const ends = await patternIn(box, { at, id: 'ends' });
  await service.stop({ remove: false });
  assert.equal(world.others(box).length, 2);
  // The one of them exits on its own: its terminal's input is the only way in from here, so by a signal.
  const [{ pid }] = world.others(box).filter(({ cmdline }) => cmdline.includes('pattern')).slice(-1);
  process.kill(pid, 'SIGKILL');
  await service.restart();
  at = world.clientOf(service);
  const info = await Promise.all([lives, ends].map((shell) => world.reached(shell.id, ['open', 'ended'], { client: at })));
  const [dead, alive] = info[0].state === 'ended' ? info : [info[1], info[0]];
  assert.deepEqual([dead.ended?.reason, dead.ended?.signal], ['exited', 'SIGKILL']);
  assert.equal(alive.state, 'open');
  (await at.delete(`/sessions/${alive.id}`)).is(204);
  await world.ended(alive.id, { client: at });
  await world.isClean(box);
});

test('the devbox slept while the service was away: the session is lost, and the text says why', async () => {
  const service = await world.serve();
  let at = world.clientOf(service);
  const box = world.box();
  const { id } = await world.open(box, {}, { client: at });
  await service.kill();
  await box.suspend();
  await service.restart();
  at = world.clientOf(service);
  await isLost(id, 'sandbox-stopped', /suspended/, at);
  await service.stop();
});

// --- the tunnel ---

test('a tunnel that is cut again and again under a flood loses nothing', async () => {
  const box = world.box({ tunnel: 'authenticated' });
  const shell = await patternIn(box);
  const stream = await shell.view();
  const size = scaled(16 * MB);
  await shell.write(size);
  const events = [];
  for (let round = 1; round <= 4; round++) {
    events.push(...(await stream.until((e) => e.offset > (size / 5) * round, 'progress')));
    await until(() => box.sockets.size > 0, 'a tunnel');
    box.cutTunnels();
  }
  events.push(...(await stream.until((e) => e.offset >= 64 + size, 'the end')));
  assertPattern('lines', 0, Buffer.concat(events.filter((e) => e.bytes).map((e) => e.bytes)));
  // The last bytes may have come before the last cut.
  if (states(events).at(-1) !== 'open')
    events.push(...(await stream.until((e) => e.event === 'state' && e.data.state === 'open', 'open')));
  assert.deepEqual(states(events).slice(0, 3), ['open', 'reconnecting', 'open']);
  await world.reached(shell.id, 'open'); // that cut may not have been noticed yet
});

test('input is typed once although the tunnel is cut', async () => {
  const box = world.box();
  const shell = await patternIn(box);
  const stream = await shell.view();
  let expected = 64;
  for (let n = 0; n < 20; n++) {
    box.cutTunnels();
    const text = `<${n}>`;
    await shell.print(text); // 204, as it arrives in time
    expected += text.length;
  }
  const { bytes } = await stream.to(expected);
  assert.equal(bytes.subarray(64).toString(), Array.from({ length: 20 }, (_, n) => `<${n}>`).join(''));
});

test('goes on when the gateway is away for a while', async () => {
  const box = world.box();
  const shell = await patternIn(box);
  const stream = await shell.view();
  const rule = world.misbehave(box, { on: 'tunnel', status: 502, times: 6 });
  box.cutTunnels();
  await shell.write(MB);
  const { bytes, events } = await stream.to(64 + MB);
  assert.equal(rule.hits, 6);
  shell.assert(0, bytes);
  assert.ok(states(events).includes('reconnecting'));
});

// --- the devbox ---

test('the devbox is suspended while the session is open: it is lost in seconds, and there is no new shell', async () => {
  const box = world.box();
  const shell = await patternIn(box);
  const stream = await shell.view();
  await box.suspend();
  await isLost(shell.id, 'sandbox-stopped', /suspended/);
  const { events } = await stream.rest();
  assert.deepEqual(events.at(-1).data, { reason: 'lost', exit_code: null, signal: null });
  assert.deepEqual(states(events).slice(-1), ['ended']);
  assert.equal(events.findLast((e) => e.event === 'state').data.error, 'sandbox-stopped');
  assert.equal(world.count(box, 'resume'), 0, 'nobody wakes it for a shell that is gone');
  assert.deepEqual(box.processes(), []);
});

for (const [what, end, text] of [
  ['shut down', (box) => box.shutdown('keep_alive_timeout'), /shut down.*keep_alive_timeout/],
  ['broken', (box) => box.fail('out_of_memory'), /failed.*out_of_memory/],
])
  test(`the devbox is ${what} while the session is open: it is lost, and says so`, async () => {
    const box = world.box();
    const { id } = await world.open(box);
    await end(box);
    await isLost(id, what === 'broken' ? 'sandbox-failed' : 'sandbox-gone', text);
  });

test('the devbox is deleted while the session is open', async () => {
  const box = world.box();
  const { id } = await world.open(box);
  world.fake.boxes.delete(box.id);
  box.removeTunnel();
  try {
    await isLost(id, 'sandbox-gone', /not there any more/);
  } finally {
    world.fake.boxes.set(box.id, box); // to be ended with the others
  }
});

test('the devbox was suspended and resumed before anybody looked: the session is lost', async () => {
  const box = world.box();
  const { id } = await world.open(box);
  const held = world.hold(box, 'retrieve', { count: 1 });
  await box.suspend();
  await held.arrived();
  box.boot('resuming');
  await until(() => box.status === 'running', 'it runs again');
  held.release();
  await isLost(id, 'sandbox-stopped', /suspended/);
  assert.deepEqual(box.processes(), []);
  await world.open(box); // but a new one works
});

test('the agent is killed: the session is lost in seconds, the next one starts another', async () => {
  const box = world.box();
  const { id } = await world.open(box);
  const [agent] = world.agents(box);
  process.kill(agent.pid, 'SIGKILL');
  await isLost(id, 'tunnel-lost', /agent/);
  world.forgetCalls(box);
  const next = await world.open(box);
  assert.notEqual(world.agents(box)[0].pid, agent.pid);
  assert.equal(world.count(box, 'upload'), 0);
  (await client.delete(`/sessions/${next.id}`)).is(204);
});

test('input for a shell that is lost is refused, and not kept for another one', async () => {
  const box = world.box();
  const { id } = await world.open(box);
  const look = world.hold(box, 'retrieve');
  await Promise.all([box.suspend(), look.arrived()]);
  const typing = client.type(id, 'is anybody there\n');
  box.boot('resuming');
  look.release();
  (await typing).isProblem(409, 'session-ended');
  await isLost(id, 'sandbox-stopped', /suspended/);
  assert.deepEqual(box.processes(), []);
});

// --- signs of life ---

test('a session that is watched keeps its devbox awake; one that is not lets go of it and wakes when it is used', async () => {
  const box = world.box();
  const shell = await patternIn(box, { at: drowsy });
  const stream = await shell.view();
  await until(() => box.keepAlives >= 2, 'signs of life');
  assert.equal((await shell.info()).state, 'open');
  assert.equal(world.count(box, 'tunnel'), 1);
  await shell.write(1000, 10);
  stream.close();
  await until(() => box.sockets.size === 0, 'the tunnel is closed');
  assert.equal((await shell.info()).state, 'open', 'and the session is as it was');
  assert.equal(world.count(box, 'tunnel'), 1);
  // Nothing keeps the box awake any more, and it is looked at once a period.
  await until(() => world.count(box, 'retrieve') >= 2, 'a look'); // the first one was the opening
  const before = [box.keepAlives, world.count(box, 'retrieve'), Date.now()];
  await until(() => world.count(box, 'retrieve') >= before[1] + 2, 'two looks more');
  assert.equal(box.keepAlives, before[0]);
  assert.ok(Date.now() - before[2] > 900, 'at most one a second');
  assert.equal(world.count(box, 'tunnel'), 1);

  // Whoever comes finds all.
  const late = await shell.view();
  shell.assert(0, (await late.to(1064)).bytes);
  await until(() => box.sockets.size === 1, 'a tunnel again');
  await shell.write(64);
  shell.assert(1064, (await late.to(1128)).bytes);
  await until(() => box.keepAlives > before[0], 'a sign of life again');
  late.close();
});

// A session that has just fallen asleep.
async function asleep(box, parameters) {
  const { id } = await world.open(box, parameters, { client: drowsy });
  await until(() => box.sockets.size === 1, 'the tunnel');
  await until(() => box.sockets.size === 0, 'sleep');
  return id;
}

test('what a shell says while nobody listens is there afterwards, and input, size, signal and DELETE wake it', async () => {
  await Promise.all([
    (async () => {
      const box = world.box();
      const go = join(box.home, 'go');
      const script = `stty -echo; while [ ! -e "$1" ]; do sleep 0.01; done; head -c ${MB} /dev/zero | tr "\\0" x; touch "$1.done"; exec cat`;
      const id = await asleep(box, { command: ['sh', '-c', script, 'sh', go] });
      writeFileSync(go, '');
      await until(() => existsSync(`${go}.done`), 'it was all said');
      const stream = await world.view(id, { client: drowsy });
      const { bytes } = await stream.to(MB);
      assert.equal(bytes.length, MB);
      assert.ok(bytes.every((byte) => byte === 0x78));
      stream.close();
    })(),
    (async () => {
      const id = await asleep(world.box());
      (await drowsy.type(id, 'good morning\n')).is(204);
      assert.equal((await (await world.view(id, { client: drowsy })).to(7 + 14)).bytes.toString(), 'ready\r\ngood morning\r\n');
    })(),
    (async () => {
      const id = await asleep(world.box(), { command: ['sh', '-c', 'trap "stty size; exit" WINCH; stty -echo; while :; do sleep 0.01; done'] });
      (await drowsy.post(`/sessions/${id}/resize`, { json: { cols: 99, rows: 44 } })).is(204);
      const { bytes, events } = await (await world.view(id, { client: drowsy })).rest();
      assert.equal(bytes.toString(), '44 99\r\n');
      assert.equal(events.at(-1).data.exit_code, 0);
    })(),
    (async () => {
      const id = await asleep(world.box());
      (await drowsy.post(`/sessions/${id}/signal`, { json: { signal: 'SIGTERM' } })).is(204);
      assert.equal((await world.ended(id, { client: drowsy })).ended.signal, 'SIGTERM');
    })(),
    (async () => {
      const box = world.box();
      const id = await asleep(box);
      (await drowsy.delete(`/sessions/${id}`)).is(204);
      assert.equal((await world.ended(id, { client: drowsy, ms: SOON_MS })).ended.reason, 'closed');
      await world.isClean(box);
    })(),
  ]);
});

test('a session that sleeps is closed by its own time limit, and by DELETE although its devbox is asleep, too', async () => {
  await Promise.all([
    (async () => {
      const box = world.box();
      const { id } = await world.open(box, { idle_timeout_s: 3 }, { client: drowsy });
      await until(() => box.sockets.size === 0, 'sleep');
      assert.equal((await world.ended(id, { client: drowsy })).ended.reason, 'expired');
      await world.isClean(box);
    })(),
    (async () => {
      const box = world.box();
      const id = await asleep(box);
      const look = world.hold(box, 'retrieve', { count: 20 }); // so that it is not seen first
      await box.suspend();
      (await drowsy.delete(`/sessions/${id}`)).is(204);
      look.release();
      assert.equal((await world.ended(id, { client: drowsy, ms: SOON_MS })).ended.reason, 'closed');
      assert.equal(box.status, 'suspended');
    })(),
  ]);
});

test('a session that slept when the service was killed is there when it is back', async () => {
  const service = await world.serve({ args: ['--detach-s', '1'] });
  const box = world.box();
  const shell = await patternIn(box, { at: world.clientOf(service), id: 'slept' });
  await until(() => box.sockets.size === 0, 'sleep');
  await service.kill();
  await service.restart();
  shell.client = world.clientOf(service);
  await shell.write(1000);
  const stream = await shell.view();
  shell.assert(0, (await stream.to(1064)).bytes);
  assert.equal((await shell.info()).epoch, shell.epoch);
  stream.close();
  await service.stop();
});

test('a devbox that is suspended, or gone, while the session sleeps ends it at the next look', async () => {
  await Promise.all([
    (async () => {
      const box = world.box();
      const id = await asleep(box);
      await box.suspend();
      await isLost(id, 'sandbox-stopped', /suspended/, drowsy);
    })(),
    (async () => {
      const box = world.box();
      const id = await asleep(box);
      await box.shutdown('idle');
      await isLost(id, 'sandbox-gone', /shut down.*idle/, drowsy);
    })(),
    (async () => {
      const box = world.box();
      const id = await asleep(box);
      await box.suspend();
      box.boot('resuming');
      await isLost(id, 'sandbox-stopped', /suspended/, drowsy);
      assert.deepEqual(box.processes(), []);
    })(),
  ]);
});

test('an agent that was killed while the session slept is noticed when it is used', async () => {
  const box = world.box();
  const id = await asleep(box);
  process.kill(world.agents(box)[0].pid, 'SIGKILL');
  (await drowsy.type(id, 'hello\n')).isProblem(409, 'session-ended');
  await isLost(id, 'tunnel-lost', /agent/, drowsy);
});

test('a shell that says more than is kept while the session sleeps is not held up, and the gap is told', async () => {
  const box = world.box();
  const go = join(box.home, 'go');
  const script = 'stty raw -echo; while [ ! -e "$1" ]; do sleep 0.01; done; head -c 8000000 /dev/zero; touch "$1.done"; exec cat';
  const id = await asleep(box, { command: ['sh', '-c', script, 'sh', go] });
  writeFileSync(go, '');
  await until(() => existsSync(`${go}.done`), 'it was all said');
  assert.equal(box.sockets.size, 0, 'and nobody listened');
  const stream = await world.view(id, { client: drowsy });
  const events = await stream.until((e) => e.event === 'output' && e.offset === 8_000_000, 'the newest output');
  const [reset, ...more] = events.filter((e) => e.event === 'reset');
  assert.deepEqual(more, []);
  assert.equal(reset.data.reason, 'gap');
  assert.ok(reset.data.offset >= 3_000_000 && reset.data.offset <= 4_500_000, reset.raw);
  stream.close();
});

test('a shell that exits while the session sleeps is told with its exit code when it is used next', async () => {
  const box = world.box();
  const go = join(box.home, 'go');
  const id = await asleep(box, {
    command: ['sh', '-c', 'while [ ! -e "$1" ]; do sleep 0.01; done; echo bye; exit 7', 'sh', go],
  });
  writeFileSync(go, '');
  await until(() => world.others(box).length === 0, 'it has exited');
  const { bytes, events } = await (await world.view(id, { client: drowsy })).rest();
  assert.equal(bytes.toString(), 'bye\r\n');
  assert.deepEqual(events.at(-1).data, { reason: 'exited', exit_code: 7, signal: null });
});

test('a key that is withdrawn while the session is open does it no harm, but opens no other one', async (t) => {
  const own = await World.start({ args: ['--keep-alive-s', '1', '--provision-timeout-ms', '3000'] });
  t.cleanup(() => own.stop());
  const box = own.box();
  const { id } = await own.open(box);
  const stream = await own.view(id); // so that it is used
  await until(() => box.keepAlives >= 1, 'a sign of life');
  const sandbox = own.sandbox(box);
  own.fake.expireKey();
  const refused = () => own.calls(box).filter((call) => call.name === 'keep_alive' && call.status === 401).length;
  await until(() => refused() >= 2, 'signs of life that are refused');
  await until(() => /sandbox not kept awake/.test(own.service.log), 'and that is logged');
  (await own.client.type(id, 'still here\n')).is(204);
  assert.equal((await stream.to(7 + 12)).bytes.toString(), 'ready\r\nstill here\r\n');
  assert.equal((await own.info(id)).state, 'open');
  const answer = await own.client.post('/sessions?wait=open', { json: { sandbox, command: READY } });
  answer.isProblem(409, 'credential-refused');
  // The tunnel does not need it, either.
  box.cutTunnels();
  (await own.client.type(id, 'and here\n')).is(204);
  await stream.to(7 + 12 + 10);
  stream.close();
});
