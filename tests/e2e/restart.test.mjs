// restart.test.mjs -- the service dies or is stopped, and comes back on the same store and port: the
// sessions are there, attached to the same shells, and nobody loses a byte or a keystroke.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { program, scaled } from './lib/flavour.mjs';
import { PatternShell, follow } from './lib/pattern.mjs';
import { Agent, Service, keys, test } from './lib/service.mjs';
import { EventStream } from './lib/sse.mjs';
import { DEADLINE_MS, until, within } from './lib/wait.mjs';

const MB = 1 << 20;
const isAlive = (pid) =>
  existsSync(`/proc/${pid}`) && !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));

test('is killed in the middle of a flood, and its viewer loses nothing', { timeout: DEADLINE_MS * 8 }, async (t) => {
  const service = await t.start({ args: ['--local-on-stop', 'end'] });
  const shell = await PatternShell.create(service.client(), 'lines');
  const size = scaled(24 * MB);
  const progress = { offset: 0 };
  const viewer = follow(shell, service, 64 + size, progress); // one: the flow waits for the fastest alone
  await shell.write(size);
  const rounds = 3;
  for (let round = 1; round <= rounds; round++) {
    await until(() => progress.offset > (size / (rounds + 1)) * round, 'progress');
    await service.kill();
    await service.restart();
  }
  const bytes = await viewer;
  assert.equal(bytes.length, 64 + size);
  shell.assert(0, bytes);
  shell.client = service.client();
  const session = await shell.info();
  assert.equal(session.epoch, shell.epoch, 'the same shell');
  await shell.exit(21);
  assert.equal((await shell.ended()).ended.exit_code, 21);
});

test('knows its sessions again: open ones, ended ones, their owners', async (t) => {
  const service = await t.start();
  let alice = service.client();
  const open = await PatternShell.create(alice, 'lines', { id: 'open', cols: 91, rows: 31, first: 700 });
  (await alice.post('/sessions/open/resize', { json: { cols: 92, rows: 32 } })).is(204);
  const done = await PatternShell.create(alice, 'lines', { id: 'done', first: 100, exit: 5 });
  await done.ended();
  await service.client(keys.stranger).createOpen({ sandbox: 'local', id: 'bobs', command: ['cat'] });
  const failed = await alice.post('/sessions?wait=open', {
    json: { sandbox: 'local', id: 'failed', command: ['no-such-program'] },
  });
  failed.is(502);
  const before = (await alice.get('/sessions')).json.sessions;
  assert.deepEqual(
    before.map((s) => s.id),
    ['done', 'failed', 'open'],
  );

  await service.kill();
  await service.restart();
  alice = open.client = done.client = service.client();
  await until(async () => (await open.info()).state === 'open', 'open again');
  const after = (await alice.get('/sessions')).json.sessions;
  // The steps are of the process that took them.
  assert.deepEqual(
    after,
    before.map((s) => ({ ...s, steps: [] })),
  );
  (await alice.get('/sessions/bobs')).isProblem(404, 'not-found');
  (await service.client(keys.stranger).get('/sessions/bobs')).is(200);
  (await service.client(keys.stranger).post('/sessions', { json: { sandbox: 'local', id: 'open' } })).isProblem(
    409,
    'id-taken',
  );

  const stream = await open.view();
  const events = await stream.until((e) => e.event === 'resize' && e.data.cols === 92);
  assert.equal(events.at(-1).offset, 700, 'the size changed there');
  assert.deepEqual(events.filter((e) => e.event === 'resize')[0].data, { cols: 91, rows: 31 });
  await open.type('z\n');
  assert.equal((await stream.first('output')).bytes.toString(), '[92x32]');
  const late = await EventStream.open(alice, 'done', { since: done.idAt(100) });
  assert.deepEqual((await late.rest()).events.at(-1).data, { reason: 'exited', exit_code: 5, signal: null });
  assert.equal((await EventStream.open(alice, 'done', { lastEventId: done.idAt(101) })).status, 204);
  // The same parameters are still the same, and others are others.
  (
    await alice.post('/sessions', {
      json: {
        sandbox: 'local',
        id: 'open',
        cols: 91,
        rows: 31,
        command: [program('tests/tools/pattern'), 'lines', '700'],
      },
    })
  ).is(200);
  (await alice.post('/sessions', { json: { sandbox: 'local', id: 'open' } })).isProblem(409, 'id-differs');
  await open.exit(3);
  assert.equal((await open.ended()).ended.exit_code, 3);
});

test('gives what a shell said, and how it ended, while nobody was there', async (t) => {
  const service = await t.start();
  const shell = await PatternShell.create(service.client(), 'lines', { first: 1000 });
  const marker = `${service.dir}/go`;
  const { id } = await service.client().createOpen({
    sandbox: 'local',
    command: ['sh', '-c', `while [ ! -e ${marker} ]; do sleep 0.02; done; printf 'said alone'; exit 17`],
  });
  await service.kill();
  const { writeFileSync } = await import('node:fs');
  writeFileSync(marker, '');
  await service.restart();
  const stream = await EventStream.open(service.client(), id);
  const { text, events } = await stream.rest();
  assert.equal(text, 'said alone');
  assert.deepEqual(events.at(-1).data, { reason: 'exited', exit_code: 17, signal: null });
  shell.client = service.client();
  const again = await shell.view({ since: shell.idAt(990) });
  assert.equal((await again.to(1000)).from, 990);
  again.close();
});

test('types a numbered message that is repeated over the restart once', async (t) => {
  const service = await t.start();
  const file = `${service.dir}/typed`;
  const { id } = await service
    .client()
    .createOpen({ sandbox: 'local', command: [program('tests/tools/typed'), 'raw', file] });
  const stream = await EventStream.open(service.client(), id);
  await stream.until((e) => e.data.data === 'ready');
  const typed = () => readFileSync(file, 'utf8');
  let expected = '';
  for (let round = 1; round <= 3; round++) {
    const post = (seq, text) =>
      service.client().type(id, text, { 'Input-Client': 'survivor', 'Input-Seq': String(seq) });
    (await post(2 * round - 1, `${round}a,`)).is(204);
    // Its answer is lost with the service, or it never came there: the caller cannot know.
    const unanswered = post(2 * round, `${round}b,`).catch(() => null);
    if (round === 2) await unanswered;
    await service.kill();
    await unanswered;
    await service.restart();
    (await post(2 * round - 1, `${round}a,`)).is(204);
    (await post(2 * round, `${round}b,`)).is(204);
    (await post(2 * round, `${round}b,`)).is(204);
    expected += `${round}a,${round}b,`;
  }
  await until(() => typed().length >= expected.length, 'typed');
  assert.equal(typed(), expected);
});

test('is stopped in order and started again: shells that are kept go on, byte for byte', async (t) => {
  const service = await t.start({ args: ['--local-on-stop', 'keep'] });
  const shell = await PatternShell.create(service.client(), 'lines');
  const size = scaled(8 * MB);
  const viewer = follow(shell, service, 64 + size);
  await shell.write(size);
  service.terminate();
  assert.deepEqual(await within(service.process.exit, 'end'), { code: 0, signal: null });
  await service.restart({ args: [] });
  const bytes = await viewer;
  assert.equal(bytes.length, 64 + size);
  shell.assert(0, bytes);
});

test('leaves no shell behind: at a stop that ends them, and after a time alone', async (t) => {
  const run = async (service) => {
    const { id } = await service
      .client()
      .createOpen({ sandbox: 'local', command: ['sh', '-c', 'echo $$; exec sleep 1000'] });
    const stream = await EventStream.open(service.client(), id);
    const pid = Number((await stream.first('output')).data.data);
    stream.close();
    assert.ok(isAlive(pid));
    return pid;
  };
  const ended = await t.start();
  const pids = [await run(ended), await run(ended)];
  ended.terminate();
  await within(ended.process.exit, 'end of the service');
  await until(() => !pids.some(isAlive), 'end of the shells');

  const killed = await t.start({ args: ['--alone-s', '1'] });
  const pid = await run(killed);
  await killed.kill();
  await until(() => !isAlive(pid), 'end of the shell that is alone');
  await killed.restart();
  const [session] = await until(async () => {
    const { sessions } = (await killed.client().get('/sessions')).json;
    return sessions[0].state === 'ended' && sessions;
  }, 'end of its session');
  assert.ok(['lost', 'exited', 'expired'].includes(session.ended.reason), session.ended.reason);
});

test('waits for a store and a port that are not free no longer than it must, and says why', async (t) => {
  const service = await t.start();
  await assert.rejects(t.start({ listen: `127.0.0.1:${service.port}` }), /in use/i);
  await assert.rejects(t.start({ args: ['--store', 'sqlite:/no/such/folder/p.db'] }), /store|open/i);
  await assert.rejects(t.start({ args: ['--agent', '/no/such/agent'] }), /agent/);
  await assert.rejects(t.start({ args: ['--no-such-flag', 'x'] }), /no-such-flag/);
  await assert.rejects(t.start({ args: ['--ping-s', '0'] }), /ping-s/);
  await assert.rejects(t.start({ keys: 'short=alice' }), /key/i);
  (await service.client().get('/sessions')).is(200);
});

test('is replaced at an agent elsewhere by a newer one', async (t) => {
  const agent = await Agent.start({ args: ['--port=0'] });
  t.cleanup(() => agent.stop());
  const settings = {
    providers: 'url',
    args: ['--tunnel-url', `ws://127.0.0.1:${agent.port}/ws/client`, '--local-on-stop', 'keep'],
    env: { PTYCAST_TUNNEL_TOKEN: agent.token },
  };
  const service = await t.start(settings);
  const shell = await PatternShell.create(service.client(), 'lines', { sandbox: { provider: 'url' }, first: 5000 });
  await service.kill();
  await service.restart();
  shell.client = service.client();
  const stream = await shell.view({ since: shell.idAt(4000) });
  shell.assert(4000, (await stream.to(5000)).bytes);
  await shell.write(1000);
  shell.assert(5000, (await stream.to(6000)).bytes);
  stream.close();
});
