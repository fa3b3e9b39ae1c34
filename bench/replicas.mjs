// replicas.mjs -- what it costs that replicas share one Redis: how much later a viewer on another replica sees a message,
// how many messages go between two, how long the pause is when an owner dies or drains, and what many sessions cost that
// nobody looks at. Writes build/bench/replicas.md.
//
//   node bench/replicas.mjs [--only PART,PART] [--rounds N] [--runs N] [--seconds N] [--patience SECONDS]
//
// Parts: latency carries takeover many. On a machine that is not ours alone --patience is how long to wait for a calm moment
// before each measurement.
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { fileURLToPath } from 'node:url';

process.env.PTYCAST_BUILD_DIR ??= fileURLToPath(new URL('../build', import.meta.url));
const { program } = await import('../tests/e2e/lib/flavour.mjs');
const { Follower } = await import('../tests/e2e/lib/follower.mjs');
const { Redis } = await import('../tests/e2e/lib/redis.mjs');
const { Child, Service, keys } = await import('../tests/e2e/lib/service.mjs');
const { until } = await import('../tests/e2e/lib/wait.mjs');

function option(name, otherwise) {
  const at = process.argv.indexOf(name);
  return at < 0 ? otherwise : process.argv[at + 1];
}
const ONLY = option('--only', '').split(',').filter(Boolean);
const ROUNDS = Number(option('--rounds', 3)); // of latency
const RUNS = Number(option('--runs', 10)); // of each kind of takeover
const SECONDS = Number(option('--seconds', 40)); // that the cost of many sessions is looked at: tunnels are pinged every 20
const PATIENCE_S = Number(option('--patience', 0));
const MESSAGE_BYTES = 100;

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// --- programs ---

const flags = (object) => Object.entries(object).flatMap(([name, value]) => [`--${name}`, String(value)]);

/** A program of this folder: its lines of JSON come by next(). */
function start(name, options) {
  const child = new Child(program(`bench/${name}`), flags(options), { dir: '/tmp' });
  let taken = 0;
  const look = () => child.stdout.split('\n').slice(0, -1)[taken];
  return {
    pid: child.pid,
    async next() {
      const line = await until(() => {
        if (look() === undefined && child.ended) throw new Error(`${name} ended: ${child.log}`);
        return look();
      }, `a line of ${name}`, 300_000);
      taken++;
      return JSON.parse(line);
    },
    async stop() {
      child.signal('SIGKILL');
      await child.exit;
    },
  };
}

async function run(name, options) {
  const child = start(name, options);
  return child.next();
}

const cpuSeconds = (pid) => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
};
const rssMib = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024;

/** Seconds of CPU that all processes of the machine have taken. */
const busySeconds = () => {
  const [user, nice, system, , , irq, softirq] = readFileSync('/proc/stat', 'utf8').split('\n')[0].split(/ +/).slice(1).map(Number);
  return (user + nice + system + irq + softirq) / 100;
};

/** Waits until others take less than a tenth of a core. */
async function calm() {
  for (const end = performance.now() + PATIENCE_S * 1000; performance.now() < end;) {
    const before = busySeconds();
    await sleep(3000);
    if (busySeconds() - before < 0.3) return;
  }
}

// --- replicas ---

class Cluster {
  /** With isShared false each is a service by itself, with SQLite. */
  static async start(count, isShared = true) {
    const cluster = new Cluster();
    cluster.key = randomBytes(32).toString('hex');
    cluster.isShared = isShared;
    cluster.redis = await Redis.start();
    cluster.tunnel = start('tunsim', { timeout: 3600 });
    cluster.tunnelPort = (await cluster.tunnel.next()).port;
    cluster.replicas = [];
    for (let i = 0; i < count; i++) cluster.replicas.push(await cluster.replica());
    return cluster;
  }

  async replica() {
    const service = await Service.start({
      providers: 'local,url',
      args: [
        ...(this.isShared ? ['--store', this.redis.url] : []), '--tunnel-url', `ws://127.0.0.1:${this.tunnelPort}/`, '--local-on-stop', 'keep',
        '--log-level', 'warn', '--max-sessions', '10000', '--max-sessions-per-subject', '10000',
      ],
      env: { PTYCAST_PRIVATE_KEY: this.key },
    });
    service.caller = service.client();
    return service;
  }

  /** Opens sessions prefix0, prefix1, ... at a replica. */
  async open(replica, prefix, count, sandbox = { provider: 'url' }) {
    for (let i = 0; i < count; i += 20)
      await Promise.all(Array.from({ length: Math.min(20, count - i) }, async (_, k) => {
        const answer = await replica.caller.post('/sessions?wait=open', { json: { id: `${prefix}${i + k}`, sandbox }, checked: false });
        if (answer.status !== 201 || answer.json.state !== 'open') throw new Error(`no session: ${answer.text}`);
      }));
  }

  async close(replica, prefix, count) {
    for (let i = 0; i < count; i++) await replica.caller.delete(`/sessions/${prefix}${i}`, { checked: false });
  }

  /** How often each command was called, all together as total. */
  async calls() {
    const text = await this.redis.cli('INFO', 'commandstats');
    const list = [...text.matchAll(/^cmdstat_([^:]+):calls=(\d+)/gm)].map(([, name, n]) => [name, Number(n)]);
    return { ...Object.fromEntries(list), total: list.reduce((sum, [, n]) => sum + n, 0) };
  }

  async memoryMib() {
    return Number(/^used_memory:(\d+)/m.exec(await this.redis.cli('INFO', 'memory'))[1]) / 2 ** 20;
  }

  async stop() {
    for (const replica of this.replicas) replica.process.signal('SIGKILL');
    for (const replica of this.replicas) await replica.process.exit;
    for (const replica of this.replicas) replica.caller.close();
    await this.tunnel.stop();
    await this.redis.stop();
  }
}

// --- figures ---

const sorted = (list) => [...list].sort((a, b) => a - b);
const median = (list) => sorted(list)[Math.floor(list.length / 2)];
const digits = (x) => (x >= 100 ? Math.round(x).toLocaleString('en') : x >= 10 ? x.toFixed(1) : x >= 1 ? x.toFixed(2) : x.toFixed(3));
const spread = (list) => `**${digits(median(list))}**${list.length > 1 ? ` (${digits(Math.min(...list))} to ${digits(Math.max(...list))})` : ''}`;
const table = (rows) => [rows[0], rows[0].map(() => '---'), ...rows.slice(1)].map((cells) => `| ${cells.join(' | ')} |`).join('\n');

function say(rows, cells) {
  rows.push(cells);
  console.log(cells.join(' | ').replaceAll('*', ''));
}

const parts = {};

// The same message at a viewer on the owner and at one on another replica; plain PUBLISH/SUBSCRIBE at the same time.
parts.latency = async () => {
  const rows = [['messages a second', 'at the owner: p50', 'p99', 'at the other: p50', 'p99', '**later by: p50**', '**p99**', 'PUBLISH/SUBSCRIBE: p50', 'p99', 'ratio of p50', 'p99']];
  const cluster = await Cluster.start(2);
  const [a, b] = cluster.replicas;
  for (const [rate, seconds] of [[20, 25], [100, 10], [1000, 5]]) {
    const lists = {};
    const add = (name, x) => (lists[name] ??= []).push(x);
    for (let round = 0; round < ROUNDS; round++) {
      const prefix = `l${rate}-${round}-`;
      await cluster.open(a, prefix, 1);
      await calm();
      const viewers = start('mirror_load', { a: a.port, b: b.port, key: keys.admin, prefix, count: 1, both: 1, rate, size: MESSAGE_BYTES, seconds });
      await viewers.next();
      const [bare, seen] = await Promise.all([
        run('bare_pubsub', { port: cluster.redis.port, rate, size: MESSAGE_BYTES, seconds: seconds + 1 }), viewers.next(),
      ]);
      if (seen.pairs < seen.expected / 2 - 2 || seen.unpaired > 0 || seen.b.resets > 0) console.log(`  incomplete: ${JSON.stringify(seen)}`);
      add('a50', seen.a.p50_ms);
      add('a99', seen.a.p99_ms);
      add('b50', seen.b.p50_ms);
      add('b99', seen.b.p99_ms);
      add('x50', seen.extra_p50_ms);
      add('x99', seen.extra_p99_ms);
      add('p50', bare.p50_ms);
      add('p99', bare.p99_ms);
      await cluster.close(a, prefix, 1);
    }
    const ratio = (x, y) => (median(lists[x]) / median(lists[y])).toFixed(1);
    say(rows, [rate, ...['a50', 'a99', 'b50', 'b99', 'x50', 'x99', 'p50', 'p99'].map((name) => spread(lists[name])), ratio('x50', 'p50'), ratio('x99', 'p99')]);
  }
  await cluster.stop();
  return `### A message at another replica\n\nMilliseconds. Medians of ${ROUNDS} rounds (min to max).\n\n${table(rows)}`;
};

// Many sessions with a little output each, all of them watched at the other replica.
parts.carries = async () => {
  const SESSIONS = 200, WINDOW_S = 6;
  const rows = [['messages a second', 'arrived in time', 'PUBLISH a second', 'at the viewer: p50, p99 ms', 'owner', 'other', 'Redis', 'far end', 'viewers', 'bare: p50, p99 ms', 'Redis']];
  const cluster = await Cluster.start(2);
  const [a, b] = cluster.replicas;
  const pid = [a.process.pid, b.process.pid, cluster.redis.process.pid, cluster.tunnel.pid].join();
  let bytes = 0;
  for (const rate of [5, 25, 50, 100, 200, 400]) {
    const prefix = `c${rate}-`;
    await cluster.open(a, prefix, SESSIONS);
    await calm();
    const viewers = start('mirror_load', { a: a.port, b: b.port, key: keys.admin, prefix, count: SESSIONS, rate, size: MESSAGE_BYTES, seconds: WINDOW_S, pid });
    await viewers.next();
    await sleep(2000);
    const look = async () => ({
      at: performance.now(), busy: busySeconds(), calls: (await cluster.calls()).publish,
      bytes: await a.caller.metric('ptycast_bus_published_bytes_total'), messages: await a.caller.metric('ptycast_bus_published_messages_total'),
    });
    const first = await look();
    await sleep(WINDOW_S * 1000 - 2500);
    const last = await look();
    const published = (last.calls - first.calls) / (last.at - first.at) * 1000;
    bytes ||= Math.round((last.bytes - first.bytes) / (last.messages - first.messages));
    const seen = await viewers.next();
    await cluster.close(a, prefix, SESSIONS);
    const bare = await run('bare_pubsub', { port: cluster.redis.port, rate: Math.round(published), channels: SESSIONS, size: bytes, seconds: WINDOW_S, pid: cluster.redis.process.pid });
    const percent = (s) => `${(s / seen.seconds * 100).toFixed(0)} %`;
    const busy = (last.busy - first.busy) / (last.at - first.at) * 1000;
    const others = busy - [...seen.cpu_s, seen.own_cpu_s].reduce((sum, x) => sum + x) / seen.seconds;
    if (others > 0.2) console.log(`  others took ${percent(others * seen.seconds)} of a core meanwhile`);
    say(rows, [
      digits(rate * SESSIONS), `${(seen.in_time / seen.expected * 100).toFixed(1)} %${seen.b.resets > 0 ? `, ${seen.b.resets} resets` : ''}`, digits(published), `${digits(seen.b.p50_ms)}, ${digits(seen.b.p99_ms)}`,
      ...seen.cpu_s.map(percent), percent(seen.own_cpu_s),
      `${digits(bare.p50_ms)}, ${digits(bare.p99_ms)}`, `${(bare.redis_cpu_s / bare.seconds * 100).toFixed(0)} %`,
    ]);
  }
  const most = await run('bare_pubsub', { port: cluster.redis.port, channels: SESSIONS, size: bytes, seconds: WINDOW_S, pid: cluster.redis.process.pid });
  const least = `Bare, as fast as it goes, 2,000 under way: ${digits(most.received / most.seconds)} messages of ${bytes} bytes a second, Redis ${(most.redis_cpu_s / most.seconds * 100).toFixed(0)} % of a core.`;
  console.log(least);
  await cluster.stop();
  return `### How much goes through\n\n${SESSIONS} sessions; messages of ${MESSAGE_BYTES} bytes, ${bytes} on the bus; CPU in % of one core.\n\n${table(rows)}\n\n${least}`;
};

/**
 * What a viewer sees of a takeover: the longest time without a byte, when that was over, and when Redis had another owner
 * for the session; in ms, from what happens() does on.
 */
async function watchTakeover(cluster, id, follower, happens, seconds) {
  const arrivals = [];
  follower.take = () => arrivals.push(performance.now());
  await until(() => arrivals.length > 50, 'output');
  const owner = () => cluster.redis.cli('HGET', `ptycast:session:{${id}}`, 'owner');
  const before = await owner();
  const at = performance.now();
  happens();
  await until(async () => ![before, '0000000000000000'].includes(await owner()), 'another owner');
  const taken = performance.now() - at;
  // Behind the longest one the program goes on printing.
  await until(() => arrivals.at(-1) - at > seconds * 1000, 'output after the takeover', 60_000);
  let pause = 0, over = 0;
  for (let i = 1; i < arrivals.length; i++)
    if (arrivals[i] > at && arrivals[i] - arrivals[i - 1] > pause) [pause, over] = [arrivals[i] - arrivals[i - 1], arrivals[i] - at];
  return { taken, pause, over };
}

parts.takeover = async () => {
  const rows = [['', 'Redis names the new owner after, ms', 'longest pause at the viewer, ms', 'first new byte after, ms', 'aim', 'met']];
  const cluster = await Cluster.start(3);
  for (const [name, signal, seconds, aim] of [['`kill -9` of the owner', 'SIGKILL', 4, 3000], ['SIGTERM: it drains', 'SIGTERM', 1, 300]]) {
    const figures = [];
    for (let i = 0; i < RUNS; i++) {
      await calm();
      const [owner, other] = cluster.replicas;
      const id = `t${signal}${i}`;
      const body = { json: { id, sandbox: 'local', command: [program('tests/tools/pattern'), 'lines', '0'] }, checked: false };
      const made = await owner.caller.post('/sessions?wait=open', body);
      if (made.status !== 201) throw new Error(made.text);
      const follower = new Follower(() => other.caller, id);
      await owner.caller.type(id, 'c 1000000000 64\n'); // 64 bytes a millisecond
      await sleep(1000);
      figures.push(await watchTakeover(cluster, id, follower, () => owner.process.signal(signal), seconds));
      await follower.close();
      await owner.process.exit;
      owner.caller.close();
      await other.caller.delete(`/sessions/${id}`, { checked: false });
      // The new one is not the next to go: it takes nothing before it has been there for a while.
      cluster.replicas = [...cluster.replicas.slice(1), await cluster.replica()];
      await sleep(3000);
    }
    const list = (figure) => figures.map((one) => one[figure]);
    // A drain is over at once for some; what a viewer waits for is the pause.
    const judged = signal === 'SIGKILL' ? list('over') : list('pause');
    say(rows, [`${name}, ${RUNS} runs`, spread(list('taken')), spread(list('pause')), signal === 'SIGKILL' ? spread(list('over')) : '', `${aim.toLocaleString('en')} ms`,
      Math.max(...judged) < aim ? 'yes, all' : median(judged) < aim ? '**not all**' : '**no**']);
  }
  await cluster.stop();
  return `### When an owner goes\n\nThree replicas; a local session prints 64 bytes a millisecond, watched on a replica that is not its owner; no byte may be missing or come twice.\n\n${table(rows)}`;
};

// What it costs that sessions are there.
parts.many = async () => {
  const rows = [['', 'replicas: CPU s a minute', 'Redis: CPU s a minute', 'commands a second', 'of them PUBLISH', 'replicas: RSS MiB', 'Redis: MiB']];
  let cluster;
  const look = async (what) => {
    const pids = [...cluster.replicas.map((replica) => replica.process.pid), cluster.redis.process.pid];
    const sample = async () => ({ at: performance.now(), busy: busySeconds(), cpu: pids.map(cpuSeconds), calls: await cluster.calls() });
    const from = await sample();
    await sleep(SECONDS * 1000);
    const to = await sample();
    const s = (to.at - from.at) / 1000;
    const cpu = pids.map((_, i) => digits((to.cpu[i] - from.cpu[i]) / s * 60));
    const busy = (to.busy - from.busy - pids.reduce((sum, _, i) => sum + to.cpu[i] - from.cpu[i], 0)) / s;
    if (busy > 0.3) console.log(`  all others took ${(busy * 100).toFixed(0)} % of a core meanwhile`);
    const each = Object.entries(to.calls).map(([name, n]) => [name, (n - (from.calls[name] ?? 0)) / s]).sort(([, x], [, y]) => y - x);
    say(rows, [what, cpu.slice(0, -1).join(', '), ...(cluster.isShared ? [cpu.at(-1), digits((to.calls.total - from.calls.total) / s), digits((to.calls.publish - (from.calls.publish ?? 0)) / s)] : ['', '', '']),
      cluster.replicas.map((replica) => digits(rssMib(replica.process.pid))).join(', '), cluster.isShared ? digits(await cluster.memoryMib()) : '']);
    if (cluster.isShared) console.log(`  ${each.slice(1, 9).map(([name, n]) => `${name} ${n.toFixed(1)}`).join(', ')}`);
  };
  const openAll = async (prefix, count) => {
    const from = performance.now();
    await Promise.all(cluster.replicas.map((replica, i) => cluster.open(replica, `${prefix}${i}-`, Math.floor((count + i) / 3))));
    return (performance.now() - from) / count;
  };
  /** Viewers of half of the sessions, each set at the next replica; stopped by the result. */
  const watch = async (prefix, count, rate, seconds) => {
    const list = cluster.replicas.map((replica, i) => {
      const mine = Math.floor((count + i) / 3);
      const next = cluster.replicas[(i + 1) % 3];
      return start('mirror_load', { a: replica.port, b: next.port, key: keys.admin, prefix: `${prefix}${i}-`, count: mine, watched: Math.floor(mine / 2), rate, size: MESSAGE_BYTES, seconds });
    });
    await Promise.all(list.map((one) => one.next()));
    return list;
  };
  cluster = await Cluster.start(3);
  await calm();
  await sleep(2000);
  await look('three replicas, no session');
  const each = await openAll('m', 1000);
  await calm();
  await sleep(3000);
  await look('1,000 sessions, idle, nobody watches');
  let viewers = await watch('m', 1000, 0, SECONDS + 30);
  await sleep(3000);
  await look('... half of them watched at another replica');
  for (const one of viewers) await one.stop();
  await calm();
  viewers = await watch('m', 1000, 1, SECONDS + 10);
  await sleep(5000);
  await look('... and each prints 100 bytes a second');
  const seen = await Promise.all(viewers.map((one) => one.next()));
  const [got, expected] = ['in_time', 'expected'].map((name) => seen.reduce((sum, one) => sum + one[name], 0));
  const own = seen.reduce((sum, one) => sum + one.own_cpu_s / one.seconds * 60, 0);
  const note = `1,000 sessions were opened in ${digits(each)} ms each (60 at once). Of the messages of the last line ${(got / expected * 100).toFixed(1)} % arrived in time, p50 ${spread(seen.map((one) => one.b.p50_ms))} ms, p99 ${spread(seen.map((one) => one.b.p99_ms))} ms; the viewers took ${digits(own)} s of CPU a minute.`;
  console.log(note);
  await cluster.stop();
  for (const isShared of [true, false]) {
    cluster = await Cluster.start(3, isShared);
    await openAll('n', 2000);
    await calm();
    await sleep(3000);
    await look(isShared ? '2,000 sessions, idle, nobody watches' : 'the same in three services by themselves, with SQLite');
    await cluster.stop();
  }
  return `### Many sessions\n\nThree figures: each of the three replicas. CPU and commands over ${SECONDS} s.\n\n${table(rows)}\n\n${note}`;
};

// --- all ---

const load = () => loadavg().map((x) => x.toFixed(2)).join(' ');
const before = load();
const texts = [];
for (const [name, part] of Object.entries(parts)) {
  if (ONLY.length > 0 && !ONLY.includes(name)) continue;
  console.log(`\n== ${name}`);
  const from = performance.now();
  texts.push(await part());
  console.log(`(${((performance.now() - from) / 1000).toFixed(0)} s)`);
}
mkdirSync(program('bench'), { recursive: true });
writeFileSync(program('bench/replicas.md'), `Date: ${new Date().toISOString().slice(0, 10)}; load average before ${before}, at the end ${load()}.\n\n${texts.join('\n\n')}\n`);
process.exit(0);
