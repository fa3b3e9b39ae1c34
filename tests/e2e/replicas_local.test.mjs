// replicas_local.test.mjs -- shells of provider local belong to a machine: another replica takes one over when the very agent
// answers where it was, and else says that the session is lost.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { describe } from 'node:test';
import { Cluster } from './lib/cluster.mjs';
import { Follower } from './lib/follower.mjs';
import { PatternShell, assertPattern } from './lib/pattern.mjs';
import { Agent, isSanitized, test } from './lib/service.mjs';
import { EventStream } from './lib/sse.mjs';
import { DEADLINE_MS, until } from './lib/wait.mjs';

const LONG_MS = DEADLINE_MS * 3;
const setUp = (t, options = {}) => Cluster.of(t, { replicas: 2, args: ['--retry-ms', '100'], ...options });
const name = (what) => `${what}-${randomBytes(4).toString('hex')}`;
const follow = (shell, replica) =>
  new Follower(() => replica.as(), shell.id, { take: (bytes, at) => assertPattern('lines', at, bytes) });

const commandOf = (pid) => readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ');
const agents = (cluster) => cluster.strays().filter((pid) => commandOf(pid).includes('ptycast-agent'));

// The port that a process listens on.
function portOf(pid) {
  const sockets = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
  for (const line of readFileSync(`/proc/${pid}/net/tcp`, 'latin1').split('\n').slice(1)) {
    const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
    if (state === '0A' && sockets.includes(`socket:[${inode}]`)) return parseInt(local.split(':')[1], 16);
  }
  return assert.fail(`${pid} listens nowhere`);
}

async function isLost(replica, shell) {
  const session = await until(async () => {
    const { json } = await replica.as().get(shell.path);
    return json.state === 'ended' && json;
  }, `end of ${shell.id}`, LONG_MS);
  assert.equal(session.ended.reason, 'lost');
  assert.match(session.ended.text, /\S/, 'it is said why');
  const late = await EventStream.open(replica.as(), shell.id);
  assert.equal((await late.rest()).events.at(-1).data.reason, 'lost');
}

describe('a shell of a machine', { concurrency: isSanitized ? 1 : 4 }, () => {
  test('is taken over by a replica beside the one that was killed', { timeout: LONG_MS }, async (t) => {
    const cluster = await setUp(t);
    const [a, b] = cluster.replicas;
    const shell = await PatternShell.create(a.as(), 'lines', { id: name('kept') });
    const viewer = follow(shell, b);
    await shell.write(1_200_000, 200);
    await viewer.reached(100_000);
    const [agent] = agents(cluster);
    await a.kill();
    await cluster.taken(shell.id, a);
    await viewer.reached(shell.written, LONG_MS);
    assert.equal(viewer.connections, 1);
    assert.deepEqual(agents(cluster), [agent], 'it is the same agent');
    shell.client = b.as();
    await shell.exit(4);
    assert.deepEqual(await viewer.ended(), { reason: 'exited', exit_code: 4, signal: null });
    await viewer.close();
  });

  test('is handed over by a replica that drains and keeps it', { timeout: LONG_MS }, async (t) => {
    const cluster = await setUp(t);
    const [a, b] = cluster.replicas;
    const shell = await PatternShell.create(a.as(), 'lines', { id: name('handed') });
    const viewer = follow(shell, b);
    await shell.write(1_000_000, 200);
    await viewer.reached(100_000);
    await a.drain();
    await cluster.taken(shell.id, a);
    await viewer.reached(shell.written, LONG_MS);
    assert.deepEqual(viewer.seenResets, []);
    await viewer.close();
  });

  test('ends with a replica that drains and ends it', { timeout: LONG_MS }, async (t) => {
    const cluster = await setUp(t, { args: ['--local-on-stop', 'end'] });
    const [a, b] = cluster.replicas;
    const shell = await PatternShell.create(a.as(), 'lines', { id: name('ended') });
    const viewer = follow(shell, b);
    await viewer.reached(64);
    await a.drain();
    const exit = await viewer.ended();
    assert.notEqual(exit.reason, 'failed');
    await until(() => agents(cluster).length === 0, 'end of its agent');
    await until(async () => (await b.as().get(shell.path)).json.state === 'ended', 'its end');
  });

  test('is lost with its machine: viewers elsewhere are told', { timeout: LONG_MS }, async (t) => {
    const cluster = await setUp(t);
    const [a, b] = cluster.replicas;
    const shell = await PatternShell.create(a.as(), 'lines', { id: name('lost'), first: 5000 });
    const unwatched = await PatternShell.create(a.as(), 'lines', { id: name('lost'), first: 100 });
    const viewer = follow(shell, b);
    await viewer.reached(5000);
    const all = agents(cluster);
    assert.equal(all.length, 2);
    await a.kill();
    for (const pid of all) process.kill(pid, 'SIGKILL');
    const exit = await viewer.ended(LONG_MS);
    assert.deepEqual(exit, { reason: 'lost', exit_code: null, signal: null });
    assert.equal(viewer.offset, 5000);
    await isLost(b, shell);
    await isLost(b, unwatched);
    // The id is free.
    await PatternShell.create(b.as(), 'lines', { id: shell.id, first: 10 });
  });

  test('is not mistaken for what listens at its address now', { timeout: LONG_MS }, async (t) => {
    const cluster = await setUp(t);
    const [a, b] = cluster.replicas;
    const shell = await PatternShell.create(a.as(), 'lines', { id: name('gone') });
    const [pid] = agents(cluster);
    const port = portOf(pid);
    await a.kill();
    process.kill(pid, 'SIGKILL');
    const other = await until(() => Agent.start({ args: [`--port=${port}`] }).catch(() => false), 'another agent there');
    t.cleanup(() => other.kill());
    await isLost(b, shell);
    assert.equal(readFileSync(`/proc/${other.process.pid}/task/${other.process.pid}/children`, 'latin1').trim(), '');
  });

  test('is left to the machine that can reach it, and lost where none can', { timeout: LONG_MS * 2 }, async (t) => {
    const cluster = await setUp(t, { replicas: 3, elsewhere: ['C'] });
    const [a, b, c] = cluster.replicas;
    if (!c.machine) return t.skip('no network namespace of its own is to be had');
    const shells = await Promise.all(
      Array.from({ length: 6 }, () => PatternShell.create(a.as(), 'lines', { id: name('here'), first: 300 })),
    );
    const there = await PatternShell.create(c.as(), 'lines', { id: name('there') });
    const viewers = shells.map((shell) => follow(shell, c));
    for (const viewer of viewers) await viewer.reached(300);
    await a.kill();
    for (const shell of shells) assert.equal(await cluster.taken(shell.id, a, LONG_MS), b);
    for (const [i, shell] of shells.entries()) {
      shell.client = c.as();
      await shell.write(500);
      await viewers[i].reached(800, LONG_MS);
      assert.deepEqual(viewers[i].seenResets, []);
    }
    await b.kill();
    for (const viewer of viewers) {
      assert.deepEqual(await viewer.ended(LONG_MS), { reason: 'lost', exit_code: null, signal: null });
      await viewer.close();
    }
    for (const shell of shells) await isLost(c, shell);
    assert.equal((await there.info()).state, 'open');
  });
});
