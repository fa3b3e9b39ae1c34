// runloop_agent.test.mjs -- sessions in devboxes of Runloop by our own agent: how it gets there and with how few
// calls, states of devboxes, tunnels, what a shell is given.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { program, scaled } from './lib/flavour.mjs';
import { PatternShell } from './lib/pattern.mjs';
import { World } from './lib/runloop.mjs';
import { test } from './lib/service.mjs';
import { DEADLINE_MS, until } from './lib/wait.mjs';

const MB = 1 << 20;
const SOON_MS = DEADLINE_MS / 3; // for what must not take a time-out
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

let world, client;

before(async () => {
  world = await World.start({ args: ['--max-sessions-per-subject', '1000'] });
  client = world.client;
});
after(() => world?.stop());

const steps = (session) => session.steps.map(({ step }) => step);
// What a viewer from the beginning is told: states, and steps within them.
const told = (events) =>
  events.filter((e) => e.event === 'state').map(({ data }) => data.step ?? `${data.state}${data.error ? `: ${data.error}` : ''}`);
const patternIn = (box) => PatternShell.create(client, 'lines', { sandbox: world.sandbox(box) });

// --- opening ---

test('the first session installs the agent: four calls, the second one at the same time as the first', async () => {
  const box = world.box();
  // Each of the two is held until the other one is there.
  const look = world.hold(box, 'retrieve');
  const start = world.hold(box, 'execute');
  const { id } = await world.begin(box);
  await Promise.all([look.arrived(), start.arrived()]);
  look.release();
  start.release();
  const session = await world.reached(id, 'open');
  assert.deepEqual(world.names(box).slice(0, 2).sort(), ['execute', 'retrieve']);
  assert.deepEqual(world.names(box).slice(2), ['upload', 'execute']);
  assert.deepEqual(steps(session), ['devbox', 'install', 'start', 'connect']);
  const times = session.steps.map(({ ms }) => ms);
  assert.deepEqual(times, [...times].sort((a, b) => a - b));
  assert.equal(box.uploads.length, 1);
  assert.equal(box.uploads[0].sha256, sha256(readFileSync(program('ptycast-agent'))));
  const [agent, ...more] = world.agents(box);
  assert.deepEqual(more, []);
  assert.ok(agent);
  assert.equal(session.provider, 'runloop');
  assert.deepEqual(session.sandbox, {
    provider: 'runloop',
    external_id: box.id,
    transport: 'agent',
    agent: 'ptycast',
    resume: true,
  });
  (await client.delete(`/sessions/${id}`)).is(204);
  assert.equal((await world.ended(id)).ended.reason, 'closed');
  await world.isClean(box);
});

test('a viewer that is there from the beginning is told each step', async () => {
  const box = world.box({ status: 'suspended', tunnel: null });
  const held = world.hold(box, 'retrieve');
  const { id } = await world.begin(box);
  await held.arrived();
  const stream = await world.view(id);
  held.release();
  const events = await stream.until((e) => e.event === 'state' && e.data.state === 'open', 'open');
  const expected = ['devbox', 'resume', 'start', 'install', 'start', 'connect'];
  assert.deepEqual(steps(await world.info(id)), expected);
  assert.deepEqual(told(events), ['devbox', 'resume', 'start', 'install', 'start', 'connecting', 'connect', 'open']);
  const notes = events.filter((e) => e.data.step);
  for (const { data } of notes) assert.equal(data.state, data.step === 'connect' ? 'connecting' : 'provisioning');
  assert.ok(notes.every(({ data }) => Number.isInteger(data.step_ms ?? data.ms)), JSON.stringify(notes[0].data));
  stream.close();
});

test('once it is known, a session takes no call; a service that is new there takes two', async () => {
  const box = world.box();
  const first = await world.open(box);
  const [agent] = world.agents(box);
  world.forgetCalls(box);
  const hot = await world.open(box);
  assert.deepEqual(world.names(box), []);
  assert.deepEqual(steps(hot), ['connect']);

  const service = await world.serve();
  const other = world.clientOf(service);
  const look = world.hold(box, 'retrieve');
  const start = world.hold(box, 'execute');
  const { id } = await world.begin(box, {}, { client: other });
  await Promise.all([look.arrived(), start.arrived()]); // at the same time
  start.release();
  look.release();
  const warm = await world.reached(id, 'open', { client: other });
  await world.ready(id, { client: other });
  assert.deepEqual(world.names(box).sort(), ['execute', 'retrieve']);
  assert.deepEqual(steps(warm), ['devbox', 'connect']);
  assert.deepEqual(world.agents(box), [agent], 'the same agent serves both');
  // Neither disturbs the other.
  for (const [one, at] of [[first.id, client], [hot.id, client], [id, other]]) {
    (await at.type(one, `this is ${one}\n`)).is(204);
    const { bytes } = await (await world.view(one, { client: at })).to(7 + 9 + one.length);
    assert.match(bytes.toString(), new RegExp(`^ready\r\nthis is ${one}\r\n$`));
  }
});

test('twenty sessions at once in one devbox share one installation and one agent', async () => {
  const box = world.box({ tunnel: null });
  const sessions = await Promise.all(Array.from({ length: 20 }, () => world.open(box)));
  assert.equal(world.count(box, 'upload'), 1);
  assert.equal(world.count(box, 'enable_tunnel'), 1);
  assert.equal(world.agents(box).length, 1);
  await Promise.all(
    sessions.map(async ({ id }, n) => {
      (await client.type(id, `number ${n}\n`)).is(204);
      const { bytes } = await (await world.view(id)).to(7 + `number ${n}\r\n`.length);
      assert.equal(bytes.toString(), `ready\r\nnumber ${n}\r\n`);
    }),
  );
  await Promise.all(sessions.map(async ({ id }) => (await client.delete(`/sessions/${id}`)).is(204)));
  await Promise.all(sessions.map(({ id }) => world.ended(id)));
  await world.isClean(box);
});

test('five devboxes are provisioned at the same time', async () => {
  const boxes = Array.from({ length: 5 }, () => world.box());
  const held = boxes.map((box) => world.hold(box, 'upload'));
  const sessions = await Promise.all(boxes.map((box) => world.begin(box)));
  await Promise.all(held.map((one) => one.arrived()));
  for (const one of held) one.release();
  for (const { id } of sessions) await world.reached(id, 'open');
  for (const box of boxes) assert.equal(world.agents(box).length, 1);
});

test('two services that come at once to a devbox without an agent end up with one', async () => {
  const box = world.box({ tunnel: null });
  const others = await Promise.all([world.serve(), world.serve()]);
  const clients = others.map((one) => world.clientOf(one));
  const held = world.hold(box, 'upload', { count: 2 });
  const sessions = await Promise.all(clients.map((one) => world.begin(box, {}, { client: one })));
  await held.arrived();
  held.release();
  for (const [n, { id }] of sessions.entries()) {
    await world.reached(id, 'open', { client: clients[n] });
    await world.ready(id, { client: clients[n] });
  }
  assert.equal(world.agents(box).length, 1, JSON.stringify(world.agents(box)));
  // Whoever came second with its tunnel must not have cut the first one off for good.
  for (const [n, { id }] of sessions.entries()) {
    (await clients[n].type(id, 'still here\n')).is(204);
    await (await world.view(id, { client: clients[n] })).to(7 + 12);
  }
});

test('sessions that come and go in one devbox always find an agent, though it may just be about to end', async () => {
  const box = world.box();
  const clients = [client, world.clientOf(await world.serve())];
  await Promise.all(
    clients.map(async (at) => {
      for (let n = 0; n < scaled(24); n++) {
        const { id } = await world.open(box, {}, { client: at });
        (await at.delete(`/sessions/${id}`)).is(204);
      }
    }),
  );
  await world.isClean(box);
});

test('sessions of two callers with different keys do not profit from each other', async () => {
  const box = world.box();
  await world.open(box);
  world.forgetCalls(box);
  (await world.post(box, { sandbox: { credential: 'wrong-key' } })).isProblem(409, 'credential-refused');
  assert.ok(world.count(box, 'retrieve') >= 1, 'the key was tried');
});

// --- states of the devbox ---

const booting = ['queued', 'provisioning', 'initializing', 'resuming', 'scheduled', 'defrosting'];
test(`waits for a devbox that is ${booting.join(', ')}`, async () => {
  await Promise.all(
    booting.map(async (status) => {
      const box = world.box({ status });
      const { id } = await world.begin(box);
      await until(() => world.count(box, 'wait') >= 3, `three polls of one that is ${status}`); // 408 is no failure
      assert.equal((await world.info(id)).state, 'provisioning');
      box.setStatus('running');
      const session = await world.reached(id, 'open');
      assert.deepEqual(steps(session), ['devbox', 'wait', 'start', 'install', 'start', 'connect'], status);
    }),
  );
});

test('waits through all the states of a boot, though the answer says one that was not asked for', async () => {
  const box = world.box({ status: 'running' });
  box.statuses = ['queued', 'provisioning', 'what-is-that', 'initializing', 'provisioning', 'running'];
  box.waitAnswersAll = true;
  const session = await world.open(box);
  assert.deepEqual(steps(session), ['devbox', 'wait', 'start', 'install', 'start', 'connect']);
});

test('wakes a devbox that is suspended, or on its way there', async () => {
  await Promise.all([
    (async () => {
      const box = world.box({ status: 'suspended' });
      const session = await world.open(box);
      assert.deepEqual(steps(session), ['devbox', 'resume', 'start', 'install', 'start', 'connect']);
      assert.equal(world.count(box, 'resume'), 1);
    })(),
    (async () => {
      const box = world.box({ status: 'suspending' });
      const { id } = await world.begin(box);
      await until(() => world.count(box, 'wait') >= 1, 'it waits');
      assert.equal(world.count(box, 'resume'), 0, 'not before it is down');
      box.setStatus('suspended');
      assert.deepEqual(steps(await world.reached(id, 'open')), [
        'devbox', 'wait', 'resume', 'start', 'install', 'start', 'connect',
      ]);
      assert.equal(world.count(box, 'resume'), 1);
    })(),
  ]);
});

test('leaves a devbox asleep when it is told so', async () => {
  const box = world.box({ status: 'suspended' });
  const answer = (await world.post(box, { sandbox: { resume: false } })).isProblem(409, 'sandbox-stopped');
  assert.match(answer.json.detail, /suspended/);
  assert.equal(world.count(box, 'resume'), 0);
  assert.equal(box.status, 'suspended');
  const { ended } = await world.info(answer.json.session);
  assert.equal(ended.reason, 'failed');
  assert.equal(ended.error, 'sandbox-stopped');
  // Another wish, another answer.
  await world.open(box, { sandbox: { resume: true } });
});

test('a session of before the devbox slept: the next one finds the agent gone and starts it', async () => {
  const box = world.box();
  const first = await world.open(box);
  await box.suspend();
  const { ended } = await world.ended(first.id, { ms: SOON_MS });
  assert.equal(ended.reason, 'lost');
  assert.equal(ended.error, 'sandbox-stopped');
  assert.match(ended.text, /suspended/);
  world.forgetCalls(box);
  const session = await world.open(box);
  assert.equal(world.count(box, 'upload'), 0, 'it is on the disk still');
  assert.deepEqual(steps(session), ['devbox', 'resume', 'start', 'connect']);
});

test('what is remembered of a devbox is dropped when it proves wrong', async () => {
  const box = world.box();
  const first = await world.open(box);
  (await client.delete(`/sessions/${first.id}`)).is(204);
  await world.ended(first.id);
  // It slept without anybody noticing.
  await box.suspend();
  box.boot('resuming');
  await until(() => box.status === 'running', 'it runs again');
  const session = await world.open(box);
  assert.deepEqual(steps(session), ['connect', 'devbox', 'connect']);
  assert.equal(world.count(box, 'upload'), 1);
});

// --- tunnels ---

test('makes an authenticated tunnel where there is none, and takes the one that is there', async () => {
  const bare = world.box({ tunnel: null });
  await world.open(bare);
  const [enable] = world.calls(bare).filter((call) => call.name === 'enable_tunnel');
  assert.equal(enable.body.auth_mode, 'authenticated');
  assert.equal(world.count(bare, 'enable_tunnel'), 1);
  for (const mode of ['open', 'authenticated']) {
    const box = world.box({ tunnel: mode });
    const key = box.tunnel.tunnel_key;
    await world.open(box);
    assert.equal(world.count(box, 'enable_tunnel'), 0);
    assert.equal(box.tunnel.tunnel_key, key);
  }
});

test('an authenticated tunnel gets its token, an open one none, and none of them the API key', async () => {
  for (const mode of ['open', 'authenticated']) {
    const box = world.box({ tunnel: mode });
    await world.open(box);
    const calls = world.calls(box, { tunnels: true }).filter((call) => call.name === 'tunnel');
    assert.ok(calls.length >= 1);
    for (const { headers, url } of calls) {
      const expected = mode === 'open' ? undefined : `Bearer ${box.tunnel.auth_token}`;
      assert.equal(headers['x-runloop-tunnel-authorization'], expected);
      assert.equal(headers.authorization, undefined);
      assert.equal(url, '/ws/client?v=2', 'no secret in a URL');
    }
  }
  assert.deepEqual(world.fake.leaks, []);
});

test('tries again while a new tunnel stumbles', async () => {
  await Promise.all(
    [404, 502, 503].map(async (status) => {
      const box = world.box();
      const rule = world.misbehave(box, { on: 'tunnel', status, times: 4 });
      const session = await world.open(box);
      assert.equal(rule.hits, 4);
      assert.equal(steps(session).at(-1), 'connect');
      assert.equal(world.count(box, 'upload'), 1);
    }),
  );
});

test('finds the new tunnel when the old one was replaced', async () => {
  const box = world.box({ tunnel: 'authenticated' });
  const shell = await patternIn(box);
  world.learn();
  box.enableTunnel({ auth_mode: 'authenticated' }); // and so the old one is cut
  await shell.write(1000);
  await shell.reached(1064);
  const hot = await world.open(box);
  assert.equal(hot.state, 'open');
  assert.equal(world.agents(box).length, 1);
});

// --- what the shell is given ---

test('gives the command its arguments, environment, directory and size', async () => {
  const box = world.box({ env: { OF_THE_BOX: 'yes' } });
  const script =
    'printf "%s|" "$0" "$@"; printf "%s|" "$FOO" "$TERM" "$PWD" "$OF_THE_BOX"; stty size; tty >/dev/null && echo tty';
  const { text, exit } = await world.run(box, ['sh', '-c', script, 'zero', 'a b', '*', 'é', 'q\'"'], {
    env: { FOO: 'ba r=é\n2', TERM: 'vt100' },
    cwd: '/usr/share',
    cols: 123,
    rows: 45,
  });
  assert.equal(text, 'zero|a b|*|é|q\'"|ba r=é\r\n2|vt100|/usr/share|yes|45 123\r\ntty\r\n');
  assert.deepEqual(exit, { reason: 'exited', exit_code: 0, signal: null });
});

test('a shell starts in the home directory, knows no secret, and is no child of the service', async () => {
  const box = world.box({ tunnel: 'authenticated' });
  const { text } = await world.run(box, ['sh', '-c', 'echo "dir $PWD"; echo "home $HOME"; env; umask; echo "[$(ls /proc/self/fd | tr "\\n" " ")]"']);
  assert.match(text, new RegExp(`^dir ${box.home}\r$`, 'm'));
  assert.match(text, new RegExp(`^home ${box.home}\r$`, 'm'));
  assert.match(text, /^TERM=xterm-256color\r$/m);
  assert.match(text, /^0022\r$/m, 'the umask of the box');
  assert.match(text, /^\[0 1 2 3 \]\r$/m, 'no descriptor of anybody else');
  assert.doesNotMatch(text, /PTYCAST|pc_|AGENT_TOKEN/);
  world.learn();
  for (const secret of world.secrets) assert.ok(!text.includes(secret), secret.slice(0, 6));
});

test('runs bash when no command is given, or sh where there is none', async () => {
  await Promise.all(
    [false, true].map(async (noBash) => {
      const box = world.box({ noBash, env: noBash ? { SHELL: '' } : {} });
      const { id } = await world.open(box, { command: undefined });
      (await client.type(id, 'echo "v=${BASH_VERSION:+bash}"; exit 4\n')).is(204);
      const { bytes, events } = await (await world.view(id)).rest();
      if (!noBash) assert.match(bytes.toString(), /v=bash/);
      assert.deepEqual(events.at(-1).data, { reason: 'exited', exit_code: 4, signal: null });
    }),
  );
});

test('tells exit codes and signals of the command, and passes signals and sizes', async () => {
  const box = world.box();
  for (const [script, expected] of [
    ['exit 0', { reason: 'exited', exit_code: 0, signal: null }],
    ['exit 255', { reason: 'exited', exit_code: 255, signal: null }],
    ['kill -9 $$', { reason: 'exited', exit_code: null, signal: 'SIGKILL' }],
  ]) {
    const { id, exit } = await world.run(box, ['sh', '-c', script]);
    assert.deepEqual(exit, expected, script);
    const { ended } = await world.info(id);
    assert.deepEqual([ended.reason, ended.exit_code, ended.signal], [expected.reason, expected.exit_code, expected.signal]);
    assert.equal(ended.error, null);
  }
  const shell = await patternIn(box);
  const stream = await shell.view();
  (await client.post(`${shell.path}/signal`, { json: { signal: 'SIGUSR1' } })).is(204);
  await stream.until((e) => e.bytes?.includes('[USR1]'), 'the signal');
  (await client.post(`${shell.path}/resize`, { json: { cols: 101, rows: 33 } })).is(204);
  await shell.type('z\n');
  await stream.until((e) => e.bytes?.includes('[101x33]'), 'the size');
  await shell.exit(9);
  assert.equal((await shell.ended()).ended.exit_code, 9);
});

test('says why a command cannot be run', async () => {
  const box = world.box();
  for (const parameters of [{ command: ['no-such-program-anywhere'] }, { command: ['/'] }, { cwd: '/no/such/directory' }]) {
    const answer = (await world.post(box, parameters)).isProblem(502, 'start-failed');
    assert.ok(answer.json.detail.length > 3, answer.text);
    assert.equal((await world.info(answer.json.session)).ended.reason, 'failed');
  }
  assert.equal(world.count(box, 'upload'), 1, 'that is no reason to install anything again');
});

test('carries a megabyte of any bytes both ways', async () => {
  const box = world.box();
  const bytes = randomBytes(MB);
  writeFileSync(join(box.home, 'bytes'), bytes);
  const script = `stty raw -echo; echo ready; head -c ${MB} | sha256sum; cat bytes`;
  const { id } = await world.open(box, { command: ['sh', '-c', script], cwd: box.home });
  const stream = await world.view(id);
  await stream.until((e) => e.bytes?.includes('ready\n'), 'ready');
  const data = randomBytes(MB);
  (await client.type(id, data)).is(204);
  const rest = await stream.rest();
  const end = rest.bytes.indexOf('\n');
  assert.equal(rest.bytes.subarray(0, end).toString(), `${sha256(data)}  -`);
  assert.equal(rest.bytes.length, end + 1 + MB);
  assert.equal(sha256(rest.bytes.subarray(end + 1)), sha256(bytes));
  assert.equal(rest.events.at(-1).data.exit_code, 0);
});
