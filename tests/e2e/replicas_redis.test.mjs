// replicas_redis.test.mjs -- Redis itself fails: viewers at the replica that has a session go on, others hold and are refilled,
// nothing is lost or doubled, and all comes back by itself.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe } from 'node:test';
import { Cluster } from './lib/cluster.mjs';
import { program } from './lib/flavour.mjs';
import { Follower } from './lib/follower.mjs';
import { PatternShell, assertPattern } from './lib/pattern.mjs';
import { isSanitized, test } from './lib/service.mjs';
import { EventStream } from './lib/sse.mjs';
import { DEADLINE_MS, until } from './lib/wait.mjs';

const LONG_MS = DEADLINE_MS * 3;
const RATE = isSanitized ? 50_000 : 200_000; // bytes a second of a stream
const sandbox = { provider: 'url' };
const name = (what) => `${what}-${randomBytes(4).toString('hex')}`;

const followAt = (replica, shell) =>
  new Follower(() => replica.as(), shell.id, { take: (bytes, at) => assertPattern('lines', at, bytes) });

// A session at A that writes for some seconds, viewers at A and B that check every byte, and a third replica where nobody looks.
async function setUp(t, seconds, { args = [], ...options } = {}) {
  const cluster = await Cluster.of(t, { agent: [], args: ['--retry-ms', '100', ...args], ...options });
  const [a, b, c] = cluster.replicas;
  const shell = await PatternShell.create(a.as(), 'lines', { sandbox, id: name('shell') });
  const [atA, atB] = [a, b].map((replica) => followAt(replica, shell));
  if (seconds) {
    await shell.write(seconds * RATE, RATE / 1000);
    for (const one of [atA, atB]) await one.reached(RATE / 2);
  }
  return { cluster, redis: cluster.redis, a, b, c, shell, atA, atB };
}

// As if nothing had been: the same owner and number, and not a byte missing.
async function isWhole({ cluster, a, b, c, shell, atA, atB }, { fence } = {}) {
  for (const replica of [a, b, c]) await replica.ready();
  for (const one of [atA, atB]) {
    await one.reached(shell.written, LONG_MS);
    assert.equal(one.connections, 1, 'it was never cut');
    assert.ok(one.states.every((state) => ['open', 'reconnecting'].includes(state)), one.states.join());
  }
  const record = await until(async () => {
    const now = await cluster.record(shell.id);
    return now.owner === a.key && now;
  }, 'the record names its owner');
  if (fence) assert.equal(record.fence, fence, 'nobody took it');
  for (const replica of [b, c, a]) {
    (await replica.as().type(shell.id, 'w 100\n')).is(204);
    shell.written += 100;
    for (const one of [atA, atB]) await one.reached(shell.written);
    assert.equal((await replica.as().get(shell.path)).is(200).json.epoch, shell.epoch);
  }
  for (const one of [atA, atB]) await one.close();
}

const isUnready = (replica) =>
  until(async () => {
    const { status, json } = await replica.as().get('/readyz');
    return status === 503 && json.status === 'unready' && Object.values(json.checks).includes('failed');
  }, 'it says that it is not ready', LONG_MS);

describe('Redis', { concurrency: isSanitized ? 1 : 4 }, () => {
  test('is killed and comes back with its data', { timeout: LONG_MS * 2 }, async (t) => {
    const world = await setUp(t, 8);
    const { cluster, redis, a, b, c, shell, atA, atB } = world;
    const { fence } = await cluster.record(shell.id);
    atA.expects(true);
    await redis.kill();
    const from = atA.offset;
    for (const replica of [a, b, c]) await isUnready(replica);
    await atA.reached(from + RATE * 3, LONG_MS); // longer than a lease
    if (!isSanitized) assert.ok(atA.longestGapMs < 1000, `${atA.longestGapMs} ms without output at the owner`);
    assert.ok(atB.offset < atA.offset, 'the other one holds');
    // What can be had is had; what cannot is not said to be gone.
    (await a.as().get(shell.path)).is(200);
    (await a.as().type(shell.id, '\n')).is(204);
    (await c.as().get(shell.path)).is(503);
    (await c.as().get(`/sessions/${name('unknown')}`)).is(503);
    (await c.as().post('/sessions', { json: { sandbox, id: shell.id } })).is(503);
    (await c.as().type(shell.id, 'x')).is(503);
    // A stream is never refused: an EventSource would give up.
    const [event] = await (await EventStream.open(c.as(), shell.id)).until(() => true);
    assert.equal(event.data.state, 'reconnecting');
    const held = followAt(c, shell);
    await redis.restart();
    await held.reached(atA.offset, LONG_MS);
    await held.close();
    await isWhole(world, { fence });
  });

  test('comes back empty: owners write their records again, and nothing is said to be gone', { timeout: LONG_MS * 2 }, async (t) => {
    const world = await setUp(t, 6);
    const { redis, c, b, shell } = world;
    const others = [];
    for (let i = 0; i < 5; i++) others.push(await PatternShell.create(b.as(), 'lines', { sandbox, id: name('other') }));
    const done = await PatternShell.create(b.as(), 'lines', { sandbox, id: name('done'), exit: 3 });
    await done.ended();
    const all = [shell, ...others, done];
    const command = [program('tests/tools/pattern'), 'lines', '64']; // of all of them
    const statuses = new Set();
    let isOver = false;
    // All the time somebody asks, and somebody makes what is there.
    const asking = (async () => {
      for (let i = 0; !isOver; i++) {
        const one = all[i % all.length];
        statuses.add(`GET ${(await c.as().get(one.path)).status}`);
        const { id } = others[i % others.length];
        const made = await c.as().post('/sessions', { json: { sandbox, id, command } });
        statuses.add(`POST ${made.status}`);
      }
    })();
    asking.catch(() => {});
    await redis.restart({ empty: true });
    for (const { id } of all)
      await until(async () => (await redis.hash(`ptycast:session:{${id}}`)).owner, `record of ${id}`, LONG_MS);
    await isWhole(world);
    isOver = true;
    await asking;
    const allowed = ['GET 200', 'GET 503', 'POST 200', 'POST 503'];
    assert.ok([...statuses].every((status) => allowed.includes(status)), [...statuses].join());
    const { sessions } = (await c.as().get('/sessions?limit=200')).json;
    assert.deepEqual(sessions.map(({ id }) => id), all.map(({ id }) => id).sort());
    assert.equal((await c.as().get(done.path)).json.ended.exit_code, 3);
  });

  test('comes back as it was before: who has a session stays, and newer ones are not forgotten', { timeout: LONG_MS * 2 }, async (t) => {
    const world = await setUp(t, 0);
    const { cluster, redis, a, b, c, shell, atA, atB } = world;
    const old = await redis.keep();
    await a.ready();
    // Since then: another owner, and another session.
    await b.ready();
    await a.kill();
    const owner = await cluster.taken(shell.id, a, LONG_MS);
    await a.restart();
    // Right after a restart an id that is not known may be one that will be written again.
    await until(async () => (await c.as().get('/sessions/nobody')).status === 404, 'records are trusted', LONG_MS);
    const later = await PatternShell.create(c.as(), 'lines', { sandbox, id: name('later') });
    const { fence } = await cluster.record(shell.id);
    shell.client = owner.as();
    await shell.write(4 * RATE, RATE / 1000);
    await atB.reached(RATE / 2, LONG_MS);
    await redis.restart({ from: old });
    const record = await until(async () => {
      const now = await cluster.record(shell.id);
      return now.owner === owner.key && now;
    }, 'its owner writes it again', LONG_MS);
    assert.equal(record.fence, fence);
    await until(async () => (await cluster.record(later.id)).owner === c.key, 'the later one is written again');
    for (const one of [atA, atB]) {
      await one.reached(shell.written, LONG_MS);
      await one.close();
    }
    assert.equal((await cluster.record(shell.id)).fence, fence, 'nobody took it');
    await later.write(100);
    later.client = a.as();
    await later.reached(164);
  });

  test('cuts its clients again and again', { timeout: LONG_MS * 2 }, async (t) => {
    const world = await setUp(t, 6);
    const { cluster, redis, shell, atA } = world;
    const { fence } = await cluster.record(shell.id);
    let cuts = 0;
    for (let at = atA.offset; at < shell.written - RATE; at += RATE / 4) {
      await atA.reached(at);
      cuts += await redis.cli('CLIENT', 'KILL', 'TYPE', cuts % 2 ? 'normal' : 'pubsub');
    }
    assert.ok(cuts >= 12, `${cuts} connections`);
    await isWhole(world, { fence });
  });

  test('cuts a subscriber for whom too much waits', { timeout: LONG_MS * 2 }, async (t) => {
    const world = await setUp(t, 0);
    const { cluster, redis, shell, atA } = world;
    const { fence } = await cluster.record(shell.id);
    const cuts = () => redis.process.stdout.match(/overcoming of output buffer limits/g)?.length ?? 0;
    // One message of output is more than that.
    await redis.cli('CONFIG', 'SET', 'client-output-buffer-limit', 'pubsub 32kb 0 0');
    for (const end = Date.now() + LONG_MS; cuts() < 4; ) {
      assert.ok(Date.now() < end, `${cuts()} cuts`);
      await shell.write(128 * 1024);
      await atA.reached(shell.written);
    }
    await redis.cli('CONFIG', 'SET', 'client-output-buffer-limit', 'pubsub 32mb 8mb 60');
    await isWhole(world, { fence });
  });

  test('stands still for ten seconds', { timeout: LONG_MS * 2 }, async (t) => {
    const seconds = 10;
    const world = await setUp(t, seconds + 4);
    const { cluster, redis, a, b, shell, atA } = world;
    const { fence } = await cluster.record(shell.id);
    atA.expects(true);
    redis.pause();
    await atA.reached(atA.offset + seconds * RATE, LONG_MS);
    if (!isSanitized) assert.ok(atA.longestGapMs < 1000, `${atA.longestGapMs} ms without output at the owner`);
    for (const replica of [a, b]) {
      await isUnready(replica);
      assert.equal((await replica.as().get('/healthz')).status, 200);
    }
    redis.resume();
    await isWhole(world, { fence });
  });

  test('is full: new sessions are refused, those that are there go on', { timeout: LONG_MS * 2 }, async (t) => {
    const world = await setUp(t, 6);
    const { cluster, redis, b, c, shell, atA, atB } = world;
    const { fence } = await cluster.record(shell.id);
    const doomed = await PatternShell.create(b.as(), 'lines', { sandbox, id: name('doomed') });
    await redis.cli('CONFIG', 'SET', 'maxmemory', '1');
    const id = name('new');
    const refused = (await c.as().post('/sessions', { json: { sandbox, id } })).is(503);
    assert.match(refused.json.detail, /full|memory|store/i);
    // Longer than a lease: signs of life need no memory.
    await atB.reached(atB.offset + 3 * RATE, LONG_MS);
    (await c.as().delete(doomed.path)).is(204);
    await until(async () => (await c.as().get(doomed.path)).json.state === 'ended', 'its end');
    assert.ok(atA.offset > 0);
    await redis.cli('CONFIG', 'SET', 'maxmemory', '0');
    await until(async () => (await c.as().post('/sessions', { json: { sandbox, id } })).status === 201, 'a new session');
    await until(async () => (await cluster.record(doomed.id)).ended === '1', 'the end is written down');
    await isWhole(world, { fence });
  });
});
