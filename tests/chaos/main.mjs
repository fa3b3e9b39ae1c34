// main.mjs [--seconds N] [--seed N] [--sessions N] [--viewers N] [--rate BYTES]: three replicas and a Redis in trouble. Shells write
// numbered streams, viewers check every byte of them, typists type, while replicas are killed, stopped, drained and cut off and
// Redis fails. Nothing may be lost or doubled, nothing may stand still for 15 s, no session may be left behind.
// The same seed does the same to the same ones. Ends with the line "N passed, N failed".
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { Cluster } from '../e2e/lib/cluster.mjs';
import { keys } from '../e2e/lib/service.mjs';
import { until } from '../e2e/lib/wait.mjs';
import { Trouble } from './faults.mjs';
import { HANG_MS, Passerby, Watched, insist } from './people.mjs';
import { Random } from './random.mjs';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string' },
    sessions: { type: 'string', default: '6' },
    viewers: { type: 'string', default: '2' }, // of each
    rate: { type: 'string', default: '200000' },
  },
});
const seed = values.seed === undefined ? Date.now() % 2 ** 32 : Number(values.seed);
const seconds = Number(values.seconds);
const start = performance.now();
const timeline = [];
const delay = monitorEventLoopDelay({ resolution: 20 });
delay.enable();

function log(text) {
  const line = `${((performance.now() - start) / 1000).toFixed(2).padStart(8)} s  ${text}`;
  timeline.push(line);
  console.log(line);
}

const FORGET_S = 20;

// Every record, key and process that a session leaves. doubtful: ids of sessions that may be there once more. A replica
// that was killed right behind its answer to DELETE has not always written that down: such a session goes in time.
async function nothingIsLeft(cluster, sessions, doubtful) {
  const { redis, replicas } = cluster;
  const connect = () => cluster.balancer.as();
  for (const { path } of sessions) await insist(connect, 'DELETE', path, [204, 404]);
  for (const replica of replicas) {
    let left;
    let isSaid = false;
    await until(async () => {
      left = (await replica.as(keys.operator).get('/sessions?limit=200')).is(200).json.sessions;
      for (const { id } of left.filter((one) => doubtful.has(one.id)))
        await insist(connect, 'DELETE', `/sessions/${id}`, [204, 404]);
      if (left.length && !isSaid) log(`${replica.name} has still ${left.map(({ id, state }) => `${id} (${state})`).join(', ')}`);
      isSaid = true;
      return left.length === 0;
    }, `no session at ${replica.name}`, FORGET_S * 1000 + HANG_MS).catch((error) => {
      throw new Error(`${error.message}, but ${JSON.stringify(left)}`);
    });
  }
  await until(async () => (await redis.keys('ptycast:session:*')).length === 0, 'no record of a session', HANG_MS).catch(
    async (error) => {
      throw new Error(`${error.message}, but ${await redis.keys('ptycast:session:*')}`);
    },
  );
  const { pid } = cluster.agent.process;
  const children = () => (cluster.agent.process.ended ? '' : readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim());
  await until(() => children() === '', 'no shell in the agent', HANG_MS);
  // An agent itself stays until nobody can ask any more how its shell ended.
  const commandOf = (one) => {
    try {
      return readFileSync(`/proc/${one}/cmdline`, 'latin1').replaceAll('\0', ' ');
    } catch {
      return ''; // it has just ended
    }
  };
  const shells = () => cluster.strays().map(commandOf).filter((command) => command !== '' && !command.includes('ptycast-agent'));
  await until(() => shells().length === 0, 'no shell of a local session', HANG_MS).catch((error) => {
    throw new Error(`${error.message}, but ${shells().join('; ')}`);
  });
}

async function run(cluster) {
  const random = new Random(seed);
  const [trouble, people] = [random.fork(), random.fork()];
  let isOver = false;
  let report;
  const failed = new Promise((_, reject) => (report = reject));
  failed.catch(() => {});
  // What anybody finds ends the run at once.
  const watch = (promise) => {
    promise.catch(report);
    return promise;
  };
  const sandboxes = [{ provider: 'url' }, { provider: 'url' }, 'local'];
  const sessions = await Promise.all(
    Array.from({ length: Number(values.sessions) }, (_, i) =>
      Watched.open(cluster, people.fork(), {
        id: `stream-${i}`,
        sandbox: sandboxes[i % 3],
        rate: Number(values.rate),
        viewers: Number(values.viewers),
      })),
  );
  for (const { viewers } of sessions) for (const { viewer } of viewers) viewer.finished.promise.catch(report);
  log(`${sessions.length} sessions are open`);
  const typing = sessions.map((session) => watch(session.type(() => isOver)));
  const passersby = sandboxes.slice(1).map((sandbox, i) => new Passerby(cluster, people.fork(), `brief-${i}`, sandbox));
  const passing = passersby.map((one) => watch(one.run(() => isOver)));
  // Nobody has been without a byte for long.
  const bearable = () =>
    sessions.every((session) => session.viewers.every(({ viewer }) => performance.now() - viewer.lastByteAt < HANG_MS / 10));
  const faults = new Trouble(cluster, trouble, { log, fail: report, bearable });
  const troubling = watch(faults.run());
  const work = (async () => {
    await new Promise((resolve) => setTimeout(resolve, Math.max(1, seconds - 12) * 1000));
    faults.stop();
    await troubling;
    log('no more faults');
    for (const replica of cluster.replicas) await replica.ready();
    isOver = true;
    await Promise.all([...typing, ...passing]);
    await Promise.all(sessions.map((session) => session.finish()));
    log('all streams are whole');
    await nothingIsLeft(cluster, sessions, new Set(passersby.flatMap((one) => [...one.doubtful])));
  })();
  work.catch(() => {});
  await Promise.race([work, failed]);

  const viewers = sessions.flatMap((session) => session.viewers);
  const sum = (list, value) => list.reduce((total, one) => total + value(one), 0);
  const late = viewers.reduce((a, b) => (a.viewer.longestGapMs > b.viewer.longestGapMs ? a : b));
  const most = (list, value) => Math.round(Math.max(...list.map(value)));
  log(
    `${sum(Object.values(faults.count), (n) => n)} faults (${Object.entries(faults.count).map(([name, n]) => `${n} ${name}`).join(', ')}); ` +
      `${(sum(viewers, ({ judge }) => judge.seen.bytes) / 1e6).toFixed(0)} MB checked by ${viewers.length} viewers ` +
      `on ${sum(viewers, ({ viewer }) => viewer.connections)} connections, ` +
      `at most ${Math.round(late.viewer.longestGapMs)} ms without a byte (${late.viewer.id} by ${late.where}, ` +
      `until ${((late.viewer.longestGapEnd - start) / 1000).toFixed(1)} s); ` +
      `${sum(sessions, ({ typist }) => typist.seq)} messages typed, ${sum(sessions, ({ typist }) => typist.repeats)} repeats, ` +
      `at most ${most(sessions, ({ typist }) => typist.longestMs)} ms for one; ` +
      `${sum(passersby, ({ made }) => made)} short sessions, of which never began: ${passersby.flatMap((one) => one.failed).join(', ') || 'none'}`,
  );
}

function tell(cluster, error) {
  console.log(`\nFAILED with seed ${seed}: ${error.stack ?? error}\n`);
  console.log(`This process was held up for at most ${Math.round(delay.max / 1e6)} ms.`);
  mkdirSync('build/log/chaos', { recursive: true });
  writeFileSync('build/log/chaos/timeline.log', `seed ${seed}\n${timeline.join('\n')}\n${error.stack ?? error}\n`);
  for (const replica of cluster?.replicas ?? []) {
    const file = `build/log/chaos/${replica.name}.log`;
    const { log: text = '' } = replica.process ? replica : {};
    writeFileSync(file, text);
    console.log(`\n--- replica ${replica.name} (${replica.key}), the last of ${file}\n${text.trimEnd().split('\n').slice(-25).join('\n')}`);
  }
}

console.log(`seed ${seed}, ${seconds} s: again by --seed ${seed}`);
let cluster;
let failure;
try {
  cluster = await Cluster.start({
    agent: [],
    providers: 'url,local',
    args: ['--retry-ms', '100', '--forget-s', String(FORGET_S), '--max-stream-age-s', '20', '--alone-s', '60'],
  });
  await run(cluster);
} catch (error) {
  failure = error;
  tell(cluster, error);
}
try {
  await cluster?.stop();
} catch (error) {
  if (!failure) tell(cluster, error);
  failure ??= error;
}
console.log(failure ? '0 passed, 1 failed' : '1 passed, 0 failed');
process.exit(failure ? 1 : 0);
