// replicas_runloop.test.mjs -- sessions in devboxes (the fake Runloop) whose replica dies: by our agent without a byte lost, by
// the devbox's own PTY service with a reset that says so.
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { CA_FILE, Runloop } from '../fakes/runloop/runloop.mjs';
import { Cluster } from './lib/cluster.mjs';
import { program } from './lib/flavour.mjs';
import { Follower } from './lib/follower.mjs';
import { PatternShell, assertPattern } from './lib/pattern.mjs';
import { isSanitized, test } from './lib/service.mjs';
import { EventStream } from './lib/sse.mjs';
import { DEADLINE_MS, until } from './lib/wait.mjs';

const LONG_MS = DEADLINE_MS * 3;
const pattern = [program('tests/tools/pattern'), 'lines', '64'];

async function setUp(t) {
  const fake = await Runloop.start({ holdMs: 300, isolatePorts: true });
  t.cleanup(() => fake.close());
  const cluster = await Cluster.of(t, {
    replicas: 2,
    providers: 'runloop',
    args: ['--ca-file', CA_FILE, '--retry-ms', '100'],
    env: { RUNLOOP_BASE_URL: fake.url, RUNLOOP_TUNNEL_URL: fake.tunnelTemplate },
  });
  return { fake, cluster };
}

const sandboxOf = (fake, box, transport) => ({ provider: 'runloop', external_id: box.id, credential: fake.key, transport });
const agents = (box) => box.processes().filter(({ cmdline }) => cmdline.includes('/ptycast-agent-')).length;
const count = (fake, box, name) => fake.calls.filter((call) => call.box === box.id && call.name === name).length;

describe('a session in a devbox', { concurrency: isSanitized ? 1 : 2 }, () => {
  test('goes on by our agent when its replica is killed, without a new start', { timeout: LONG_MS * 2 }, async (t) => {
    const { fake, cluster } = await setUp(t);
    const [a, b] = cluster.replicas;
    const box = fake.createBox({ tunnel: 'open' });
    // A stored sandbox, so that any replica finds the way.
    const stored = sandboxOf(fake, box, 'agent');
    (await b.as().post('/sandboxes', { json: { ...stored, id: 'box' } })).is(201);
    const shell = await PatternShell.create(a.as(), 'lines', { sandbox: 'box', id: 'devbox' });
    const viewer = new Follower(() => b.as(), shell.id, { take: (bytes, at) => assertPattern('lines', at, bytes) });
    await shell.write(800_000, 200);
    await viewer.reached(100_000);
    await a.kill();
    await cluster.taken(shell.id, a, LONG_MS);
    await viewer.reached(shell.written, LONG_MS);
    assert.equal(viewer.connections, 1);
    await viewer.close();
    assert.deepEqual([count(fake, box, 'upload'), agents(box)], [1, 1], 'one agent was started');
    // The other way round, by a replica that stops.
    await a.restart();
    shell.client = a.as();
    await shell.write(400_000, 200);
    await b.drain();
    await cluster.taken(shell.id, b, LONG_MS);
    const late = await shell.view();
    shell.assert(0, (await late.to(shell.written, LONG_MS)).bytes);
    await shell.exit(7);
    assert.equal((await late.first('exit')).data.exit_code, 7);
    assert.deepEqual([count(fake, box, 'upload'), agents(box)], [1, 1]);
  });

  test('gets a new epoch and a reset where the devbox replays nothing', { timeout: LONG_MS * 2 }, async (t) => {
    const { fake, cluster } = await setUp(t);
    const [a, b] = cluster.replicas;
    const box = fake.createBox({ tunnel: 'open' });
    box.pty = { command: pattern, replayBytes: 0 };
    const { id, epoch } = await a.as().createOpen({ sandbox: sandboxOf(fake, box, 'native'), id: 'native' });
    const stream = await EventStream.open(b.as(), id, { format: 'base64' });
    await stream.first('state');
    (await a.as().type(id, 'w 1000\n')).is(204);
    await until(async () => (await b.as().get(`/sessions/${id}`)).json.offset >= 1000, 'output');
    await a.kill();
    const reset = await stream.first('reset', LONG_MS);
    assert.equal(reset.data.reason, 'epoch');
    assert.notEqual(reset.epoch, epoch);
    (await b.as().type(id, 't back\n')).is(204);
    const back = await stream.until((e) => e.event === 'output' && e.bytes.includes('back'));
    assert.ok(back.length > 0);
    stream.close();
    assert.equal(box.ptySessions.size, 1, 'it is the same shell');
  });
});
