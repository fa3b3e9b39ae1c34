// replicas_takeover.test.mjs -- the replica that has a session dies, hangs, is cut off or is stopped: another one takes it
// over at the exact byte. The sandbox is an agent that all replicas reach.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe } from 'node:test';
import { PtyTunnel } from '../fakes/pty_tunnel.mjs';
import { Cluster } from './lib/cluster.mjs';
import { program, scaled } from './lib/flavour.mjs';
import { Follower } from './lib/follower.mjs';
import { PatternShell, assertPattern } from './lib/pattern.mjs';
import { isSanitized, test } from './lib/service.mjs';
import { EventStream } from './lib/sse.mjs';
import { Typist } from './lib/typist.mjs';
import { DEADLINE_MS, until, within } from './lib/wait.mjs';

const LONG_MS = DEADLINE_MS * 3;
const RATE = isSanitized ? 50_000 : 200_000; // bytes a second of a stream
const sandbox = { provider: 'url' };
const name = (what) => `${what}-${randomBytes(4).toString('hex')}`;
const setUp = (t, { args = [], ...options } = {}) =>
  Cluster.of(t, { agent: [], args: ['--retry-ms', '100', '--detach-s', '3600', ...args], ...options });

// A session at the i-th replica.
const create = (cluster, i = 0, options = {}) =>
  PatternShell.create(cluster.at(i), 'lines', { sandbox, id: name('shell'), ...options });

// A viewer that comes back, and checks every byte. where: a replica, or the balancer.
const follow = (shell, where, options) =>
  new Follower(() => where.as(), shell.id, { take: (bytes, at) => assertPattern('lines', at, bytes), ...options });

// Lets it write for about that long, beside what else is done.
async function writeFor(shell, seconds) {
  await shell.write(Math.ceil(RATE * seconds), RATE / 1000);
}

// All of them have all of it; one that was never away was told no worse than that it reconnects.
async function haveAll(shell, followers, steady = []) {
  for (const follower of followers) {
    await follower.reached(shell.written, LONG_MS);
    assert.ok(follower.states.every((state) => ['open', 'reconnecting'].includes(state)), follower.states.join());
  }
  for (const follower of steady) assert.equal(follower.connections, 1, 'it was never cut');
  for (const follower of followers) await follower.close();
}

// The session is where it should be, and works from every living replica.
async function works(cluster, shell) {
  const { epoch } = shell;
  for (const replica of cluster.replicas.filter((one) => one.isRunning)) {
    shell.client = replica.as();
    const stream = await EventStream.open(replica.as(), shell.id, { format: 'base64', lastEventId: shell.idAt(shell.written) });
    const typist = new Typist(() => replica.as(), shell.id);
    await typist.type('w 100\n');
    shell.written += 100;
    const { bytes, from } = await stream.to(shell.written);
    shell.assert(from, bytes);
    stream.close();
    assert.equal((await shell.info()).epoch, epoch, 'the same shell');
  }
}

// Most of their time is waiting.
describe('another replica', { concurrency: isSanitized ? 1 : 4 }, () => {
  test('is killed in the middle of a stream: others go on at the exact byte', { timeout: LONG_MS * 2 }, async (t) => {
    const cluster = await setUp(t);
    const [a, b, c] = cluster.replicas;
    const shell = await create(cluster);
    assert.equal(await cluster.owner(shell.id), a);
    const [atB, atC, atA, balanced] = [follow(shell, b), follow(shell, c), follow(shell, cluster.balancer), follow(shell, cluster.balancer)];
    const all = [atB, atC, atA, balanced];
    await writeFor(shell, 8);
    for (const one of all) await one.reached(RATE / 2);
    for (const one of all) one.expects(true);
    const before = atB.offset;
    const start = performance.now();
    await a.kill();
    const owner = await cluster.taken(shell.id, a);
    assert.ok([b, c].includes(owner));
    await atB.reached(before + RATE, LONG_MS);
    const ms = performance.now() - start;
    if (!isSanitized) assert.ok(ms < 6000, `${Math.round(ms)} ms without the one that died`);
    await haveAll(shell, all, [atB, atC]);
    shell.client = b.as();
    assert.equal((await shell.info()).epoch, shell.epoch);
    // The next one dies, and the first one is back.
    await a.restart();
    await owner.kill();
    const third = await cluster.taken(shell.id, owner);
    await owner.restart();
    assert.notEqual(third, owner);
    await works(cluster, shell);
    assert.equal((await cluster.record(shell.id)).owner, third.key);
  });

  test('hangs and comes back: it is one of the others then, and types nothing twice', { timeout: LONG_MS * 2 }, async (t) => {
    const cluster = await setUp(t);
    const [a, b, c] = cluster.replicas;
    const shell = await create(cluster);
    // One looks on at the one that hangs all the time: its connection stands.
    const [atA, atB, atC] = [a, b, c].map((replica) => follow(shell, replica));
    await writeFor(shell, 8);
    for (const one of [atA, atB, atC]) await one.reached(RATE / 2);
    a.pause();
    const owner = await cluster.taken(shell.id, a);
    await atB.reached(atA.offset + RATE * 1.5, LONG_MS);
    a.resume();
    await haveAll(shell, [atA, atB, atC], [atA, atB, atC]);
    await works(cluster, shell);
    assert.equal(await cluster.owner(shell.id), owner, 'it stays where it is');
    const { fence } = await cluster.record(shell.id);
    await writeFor(shell, 0.5);
    await shell.reached(shell.written);
    assert.equal((await cluster.record(shell.id)).fence, fence, 'nobody fights about it');
  });

  test('is cut off from Redis: its session is taken over, and it finds back', { timeout: LONG_MS * 2 }, async (t) => {
    for (const how of ['cutOff', 'silence']) {
      const cluster = await setUp(t);
      const [a, b, c] = cluster.replicas;
      const shell = await create(cluster);
      const [atA, atB, atC] = [a, b, c].map((replica) => follow(shell, replica));
      await writeFor(shell, 8);
      for (const one of [atA, atB, atC]) await one.reached(RATE / 2);
      a[how]();
      const owner = await cluster.taken(shell.id, a, LONG_MS);
      await until(async () => (await a.as().get('/readyz')).status === 503, 'it says that it is not ready', LONG_MS);
      assert.equal((await a.as().get('/healthz')).status, 200);
      await atC.reached(atA.offset, LONG_MS);
      a.rejoin();
      await a.ready();
      await haveAll(shell, [atA, atB, atC], [atB, atC]);
      await works(cluster, shell);
      assert.equal(await cluster.owner(shell.id), owner);
      if (isSanitized) return;
    }
  });

  test('drains: hands over at once, without waiting for a lease', { timeout: LONG_MS * 2 }, async (t) => {
    const cluster = await setUp(t);
    const [a, b, c] = cluster.replicas;
    const shell = await create(cluster);
    const quiet = await Promise.all(Array.from({ length: scaled(16) }, () => create(cluster)));
    const [atB, atC, balanced] = [b, c, cluster.balancer].map((where) => follow(shell, where));
    await writeFor(shell, 6);
    for (const one of [atB, atC, balanced]) {
      await one.reached(RATE / 2);
      one.expects(true);
    }
    const start = performance.now();
    const ended = a.drain();
    await cluster.taken(shell.id, a);
    const ms = performance.now() - start;
    // A lease is 2 s.
    if (!isSanitized) assert.ok(ms < 1500, `taken after ${Math.round(ms)} ms`);
    await ended;
    await haveAll(shell, [atB, atC, balanced], [atB, atC]);
    if (!isSanitized)
      for (const one of [atB, atC]) assert.ok(one.longestGapMs < 1500, `${Math.round(one.longestGapMs)} ms without output`);
    // Those that nobody watched are taken as well, and are the same shells.
    for (const one of quiet) {
      await cluster.taken(one.id, a);
      one.client = c.as();
      assert.equal((await one.info()).epoch, one.epoch);
    }
    await works(cluster, shell);
  });

  test('restarts all replicas one by one under a stream and a typist', { timeout: LONG_MS * 3 }, async (t) => {
    const cluster = await setUp(t);
    const shell = await create(cluster);
    const file = `${cluster.redis.dir}/typed`;
    const { id } = await cluster.at(1).createOpen({ sandbox, command: [program('tests/tools/typed'), 'raw', file] });
    const ready = await EventStream.open(cluster.at(0), id);
    await ready.until((e) => e.data.data === 'ready');
    ready.close();
    const balanced = [follow(shell, cluster.balancer), follow(shell, cluster.balancer)];
    const typist = new Typist(() => cluster.balancer.as(), id);
    let expected = '';
    let isOver = false;
    const typing = (async () => {
      while (!isOver) {
        await typist.type(`${typist.seq + 1},`);
        expected += `${typist.seq},`;
      }
    })();
    typing.catch(() => {});
    await writeFor(shell, 6);
    for (const replica of cluster.replicas) {
      await replica.drain();
      await replica.restart();
      await replica.ready();
    }
    await haveAll(shell, balanced);
    isOver = true;
    await typing;
    await until(() => readFileSync(file, 'latin1').length >= expected.length, 'all typed');
    assert.equal(readFileSync(file, 'latin1'), expected);
    assert.ok(typist.seq > 20, `${typist.seq} messages`);
    await works(cluster, shell);
  });

  test('types numbered messages once while their owner dies, whichever replicas they come by', { timeout: LONG_MS * 3 }, async (t) => {
    const cluster = await setUp(t, { args: ['--input-timeout-ms', '2000'] });
    const id = name('typed');
    const file = `${cluster.redis.dir}/typed`;
    await cluster.at(0).createOpen({ sandbox, id, command: [program('tests/tools/typed'), 'raw', file] });
    const stream = await EventStream.open(cluster.at(1), id);
    await stream.until((e) => e.data.data === 'ready');
    stream.close();
    const living = () => {
      const list = cluster.replicas.filter((one) => one.isRunning && !one.isPaused);
      return list[Math.floor(Math.random() * list.length)].as();
    };
    const typists = [0, 1, 2].map(() => new Typist(living, id, { timeout: DEADLINE_MS / 3 }));
    let isOver = false;
    const typing = typists.map(async (typist, i) => {
      while (!isOver) await typist.type(`<${i}:${typist.seq + 1}>`, LONG_MS);
    });
    for (const one of typing) one.catch(() => {});
    for (const how of isSanitized ? ['kill'] : ['kill', 'hang', 'kill', 'drain']) {
      const { seq } = typists[0];
      await until(() => typists[0].seq >= seq + 5, 'progress', LONG_MS);
      const owner = await until(() => cluster.owner(id), 'an owner');
      // In the middle of messages, most likely: their answers are lost.
      if (how === 'kill') await owner.kill();
      else if (how === 'hang') owner.pause();
      else await owner.drain();
      await cluster.taken(id, owner, LONG_MS);
      if (how === 'hang') owner.resume();
      else await owner.restart();
    }
    isOver = true;
    await within(Promise.all(typing), 'the last messages', LONG_MS);
    const total = typists.reduce((sum, { seq }) => sum + seq, 0);
    const text = await until(() => {
      const all = readFileSync(file, 'latin1');
      return all.match(/>/g)?.length >= total && all;
    }, 'all typed');
    for (const [i, { seq }] of typists.entries())
      assert.deepEqual(
        [...text.matchAll(/<(\d):(\d+)>/g)].filter(([, who]) => Number(who) === i).map(([, , n]) => Number(n)),
        Array.from({ length: seq }, (_, n) => n + 1),
      );
    assert.equal(text.match(/>/g).length, total);
  });

  test('leaves sessions that nobody watches, and what they said meanwhile, to others', { timeout: LONG_MS * 2 }, async (t) => {
    const cluster = await setUp(t, { replicas: 2 });
    const [a, b] = cluster.replicas;
    const shells = await Promise.all(Array.from({ length: scaled(24) }, () => create(cluster, 0)));
    const done = await create(cluster, 0, { first: 777, exit: 5 });
    await done.ended();
    for (const shell of shells) await shell.write(50_000, 1000);
    await a.kill();
    for (const shell of shells) await cluster.taken(shell.id, a, LONG_MS);
    for (const shell of shells) {
      shell.client = b.as();
      await shell.reached(shell.written);
      const stream = await shell.view();
      shell.assert(0, (await stream.to(shell.written)).bytes);
      stream.close();
    }
    // One that had ended says how, to those who come later.
    done.client = b.as();
    assert.equal((await done.info()).ended.exit_code, 5);
    assert.equal((await done.view({ lastEventId: done.idAt(778) })).status, 204);
    const late = await (await done.view({ lastEventId: done.idAt(777) })).rest();
    assert.deepEqual(late.events.at(-1).data, { reason: 'exited', exit_code: 5, signal: null });
    // One that ends while nobody has it.
    const last = shells[0];
    await a.restart();
    await last.exit(8);
    await b.kill();
    await until(async () => (await a.as().get(last.path)).json?.state === 'ended', 'its end', LONG_MS);
    assert.deepEqual((await a.as().get(last.path)).json.ended.exit_code, 8);
  });

  // DELETE until it is done; each answer comes in time.
  const forget = async (replica, path) => {
    await until(async () => (await replica.as().delete(path, { timeout: DEADLINE_MS })).status === 204, `DELETE ${path}`, LONG_MS);
  };

  // Also where the news did not come at once, and not by what somebody who was away has still to write.
  async function isForgotten(cluster, { id, path }) {
    for (const replica of cluster.replicas)
      await until(async () => (await replica.as().get(path)).status === 404, `${id} is forgotten at ${replica.name}`);
    const mark = await create(cluster, 0, { exit: 0 });
    await mark.ended();
    await until(async () => (await cluster.record(mark.id)).ended === '1', 'what was written is there');
    assert.deepEqual(await cluster.record(id), {}, `${id} stays forgotten`);
  }

  test('forgets a session for good while the replica that had it is away', { timeout: LONG_MS * 2 }, async (t) => {
    const cluster = await setUp(t, { replicas: 2 });
    const [a, b] = cluster.replicas;
    const ended = await create(cluster, 0, { id: 'ended', exit: 3 });
    await ended.ended();
    const alive = await create(cluster, 0, { id: 'alive' });
    a.cutOff();
    for (const shell of [ended, alive]) await cluster.taken(shell.id, a, LONG_MS);
    await forget(b, ended.path);
    await forget(b, alive.path); // it is closed
    await until(async () => (await b.as().get(alive.path)).json.state === 'ended', 'its end');
    await forget(b, alive.path);
    a.rejoin();
    await a.ready();
    for (const shell of [ended, alive]) await isForgotten(cluster, shell);
  });

  test('answers in time who wants a session forgotten by a replica that is cut off', { timeout: LONG_MS * 2 }, async (t) => {
    const cluster = await setUp(t, { replicas: 2 });
    const [a] = cluster.replicas;
    const shell = await create(cluster, 0, { id: 'ended', exit: 4 });
    await shell.ended();
    a.cutOff();
    await cluster.taken(shell.id, a, LONG_MS);
    // If it says that it is done, it is.
    const { status, text } = await a.as().delete(shell.path, { timeout: DEADLINE_MS });
    assert.ok([204, 503].includes(status), text);
    a.rejoin();
    await a.ready();
    if (status !== 204) await forget(a, shell.path);
    await isForgotten(cluster, shell);
  });

  test('says by a reset that a terminal which replays nothing was attached anew', { timeout: LONG_MS * 2 }, async (t) => {
    const bus = await PtyTunnel.start();
    t.cleanup(() => bus.stop());
    const cluster = await Cluster.of(t, {
      replicas: 2,
      providers: 'url',
      args: ['--tunnel-transport', 'pty-tunnel', '--tunnel-url', bus.url(), '--retry-ms', '100'],
    });
    const [a, b] = cluster.replicas;
    const session = await a.as().createOpen({ sandbox });
    const stream = await EventStream.open(b.as(), session.id);
    await stream.first('output');
    assert.equal(stream.position.epoch, session.epoch);
    await a.kill();
    const reset = await stream.first('reset', LONG_MS);
    assert.equal(reset.data.reason, 'epoch');
    assert.notEqual(reset.epoch, session.epoch);
    (await b.as().type(session.id, 'hello\r')).is(204);
    let text = '';
    while (!text.includes('hello')) text += (await stream.first('output')).data.data;
    stream.close();
    const late = await EventStream.open(b.as(), session.id, { lastEventId: `${session.epoch}:1` });
    assert.equal((await late.until((e) => e.event === 'reset')).at(-1).data.reason, 'epoch');
    late.close();
  });
});
