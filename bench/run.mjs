// run.mjs -- `make bench`: measures what bench/README.md lists, each figure with its bare limit in the same run,
// in turns (A B A B A B), and writes build/bench/results.md.
//
//   node bench/run.mjs [--rounds N] [--only PART,PART]     parts: fanout gateway pty echo idle journals codecs
//                                                       runloop replicas
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';

const BUILD = join(import.meta.dirname ?? new URL('.', import.meta.url).pathname, '..', 'build');
const bin = (name) => join(BUILD, 'bench', name);
const KEY = 'benchkey1234567890';
const MB = 1e6;

function option(name, otherwise) {
  const at = process.argv.indexOf(name);
  return at < 0 ? otherwise : process.argv[at + 1];
}
const ROUNDS = Number(option('--rounds', 3));
const ONLY = option('--only', '')?.split(',').filter(Boolean);
const scratch = mkdtempSync(join(tmpdir(), 'ptycast-bench-'));
const running = new Set();

function cleanUp() {
  for (const child of running) child.kill('SIGKILL');
  rmSync(scratch, { recursive: true, force: true });
}
process.on('exit', cleanUp);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// --- programs ---

/** Starts a program; its lines of JSON come by next(). */
function start(path, args, seconds) {
  const child = spawn(path, args.map(String), { stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  const timer = setTimeout(() => child.kill('SIGKILL'), seconds * 1000);
  let text = '', errors = '', taken = 0;
  const waiting = [];
  const look = () => {
    const lines = text.split('\n').slice(0, -1);
    while (waiting.length > 0 && taken < lines.length) waiting.shift().done(JSON.parse(lines[taken++]));
  };
  child.stdout.on('data', (data) => { text += data; look(); });
  child.stderr.on('data', (data) => { errors = (errors + data).slice(-2000); });
  const ended = new Promise((done) => child.on('close', (code, signal) => {
    clearTimeout(timer);
    running.delete(child);
    look();
    for (const w of waiting.splice(0)) w.failed(new Error(`${path} ended (${code ?? signal}): ${errors}`));
    done();
  }));
  return {
    pid: child.pid,
    ended,
    next: () => new Promise((done, failed) => { waiting.push({ done, failed }); look(); if (child.exitCode !== null) look(); }),
    stop: async (signal = 'SIGTERM') => { child.kill(signal); await ended; },
  };
}

async function run(name, args, seconds = 90) {
  const program = start(bin(name), args, seconds);
  const result = await program.next();
  await program.ended;
  return result;
}

/** name -> ["--name", value] */
const flags = (object) => Object.entries(object).flatMap(([name, value]) => [`--${name}`, value]);

const load = (service, session, more) => run('sse_load', flags({
  port: service.port, key: KEY, path: `/sessions/${session}/stream`, post: `/sessions/${session}/input`, pid: service.pid,
  ...more,
}));

// --- the service ---

let services = 0;
async function startService(more = {}) {
  const child = start(join(BUILD, 'ptycast'), ['serve', ...flags({
    listen: '127.0.0.1:0', providers: 'local,url', agent: join(BUILD, 'ptycast-agent'),
    store: `sqlite:${join(scratch, `${services++}.db`)}`, 'api-keys': `${KEY}=bench`, 'local-on-stop': 'end',
    'log-format': 'json', 'log-level': 'warn', 'tunnel-url': 'ws://127.0.0.1:1/', ...more,
  })], 480);
  let line;
  do line = await child.next(); while (line.event !== 'listening');
  return { ...child, port: Number(new URL(line.url).port) };
}

async function createSession(service, body) {
  const response = await fetch(`http://127.0.0.1:${service.port}/sessions?wait=open`, {
    method: 'POST',
    headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  const session = await response.json();
  if (response.status !== 201 || session.state !== 'open') throw new Error(`no session: ${JSON.stringify(session)}`);
  return session.id;
}

const ask = (service, method, path, body) => fetch(`http://127.0.0.1:${service.port}/sessions${path}`, {
  method, body, headers: { authorization: `Bearer ${KEY}` },
});

const closeSession = (service, id) => ask(service, 'DELETE', `/${id}`);

function statusKb(pid, name) {
  try {
    return Number(new RegExp(`${name}:\\s+(\\d+)`).exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

function cpuSeconds(pid) {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
  } catch {
    return 0;
  }
}

const sharedKb = (pid) => Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))[1]);

/** The agents that a service started, oldest first. */
function agentsOf(service) {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    try {
      const [, name, ppid] = /^\d+ \((.*)\) \S (\d+)/.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'));
      return Number(ppid) === service.pid && name.startsWith('ptycast-agent');
    } catch {
      return false;
    }
  }).sort((a, b) => a - b);
}

// --- figures ---

const rows = [];
const parts = {};

const sorted = (list) => [...list].sort((a, b) => a - b);
const median = (list) => sorted(list)[Math.floor(list.length / 2)];
const digits = (x) => (Math.abs(x) >= 100 ? x.toFixed(0) : Math.abs(x) >= 10 ? x.toFixed(1) : Math.abs(x) >= 1 ? x.toFixed(2) : x.toFixed(3));
const spread = (list) => {
  if (list.length === 1) return digits(list[0]);
  const s = sorted(list);
  return `**${digits(median(list))}** (${digits(s[0])} to ${digits(s.at(-1))})`;
};

/**
 * One line of the table. ours and bare are lists, one figure a round; ratio is ours to bare, or the other way round
 * where that is asked for; holds tells from the medians whether the target is met.
 */
function row({ what, unit = '', ours, bare, target = '', holds, original = '' }) {
  const ratio = bare && median(ours) / median(bare);
  const verdict = holds === undefined ? '' : holds(median(ours), ratio) ? 'yes' : '**no**';
  rows.push([what, unit, spread(ours), bare ? spread(bare) : '', bare ? ratio.toFixed(2) : '', target, verdict, original]);
  console.log(`${what}: ${spread(ours).replaceAll('*', '')} ${unit}${bare ? `, bare ${spread(bare).replaceAll('*', '')}, ratio ${ratio.toFixed(2)}` : ''}${verdict && `  [${target}: ${verdict.replaceAll('*', '')}]`}`);
}

const collect = () => {
  const lists = {};
  return { lists, add: (name, x) => { (lists[name] ??= []).push(x); } };
};

// --- parts ---

parts.fanout = async () => {
  const VIEWERS = 1000, RATE = 200, SECONDS = 5, SIZE = 100;
  const events = RATE * SECONDS;
  const { lists, add } = collect();
  const tunnel = start(bin('tunsim'), [], 120);
  const service = await startService({ 'tunnel-url': `ws://127.0.0.1:${(await tunnel.next()).port}/` });
  for (let round = 0; round < ROUNDS; round++) {
    const bare = start(bin('bare_fanout'), flags({ viewers: VIEWERS, size: SIZE, rate: RATE, seconds: SECONDS }), 90);
    const { port } = await bare.next();
    const seen = await run('sse_load', flags({ port, path: '/stream', post: '/', viewers: VIEWERS, marks: events }));
    const cost = await bare.next();
    await bare.ended;
    add('bare rate', seen.marks / seen.seconds);
    add('bare cpu', cost.cpu_s / cost.deliveries * 1e6);
    add('bare p50', seen.p50_ms);
    add('bare p99', seen.p99_ms);

    const session = await createSession(service, { sandbox: { provider: 'url' } });
    const r = await load(service, session, { viewers: VIEWERS, marks: events, body: `run ${SIZE} ${RATE} ${SIZE * events}` });
    if (r.marks !== events * VIEWERS || r.resets > 0) console.log(`  incomplete: ${JSON.stringify(r)}`);
    add('rate', r.marks / r.seconds);
    add('asked', r.marks === events * VIEWERS && r.resets === 0 ? 1 : 0);
    add('cpu', r.cpu_s[0] / r.marks * 1e6);
    add('p50', r.p50_ms);
    add('p99', r.p99_ms);
    add('max', r.max_ms);
    add('peak', r.peak_kb / 1024);
    add('client', r.own_cpu_s / r.seconds * 100);
    await closeSession(service, session);
  }
  await service.stop();
  await tunnel.stop();
  const name = 'fan-out, 1,000 viewers, 200 events/s of 100 bytes';
  row({ what: `${name}: delivered`, unit: 'events/s', ours: lists.rate, bare: lists['bare rate'], target: 'all 200,000 asked for', holds: (x) => x > 0.98 * VIEWERS * RATE && lists.asked.every(Boolean), original: '106,000' });
  row({ what: '... latency p50', unit: 'ms', ours: lists.p50, bare: lists['bare p50'], original: '7,600' });
  row({ what: '... latency p99', unit: 'ms', ours: lists.p99, bare: lists['bare p99'], target: '40', holds: (x) => x <= 40, original: '11,800' });
  row({ what: '... latency max', unit: 'ms', ours: lists.max, original: '12,600' });
  row({ what: '... CPU for 1M deliveries', unit: 's', ours: lists.cpu, bare: lists['bare cpu'], target: 'half of bare', holds: (x, ratio) => ratio <= 0.5, original: '10.7 (1.5 of bare)' });
  row({ what: '... peak RSS', unit: 'MiB', ours: lists.peak, original: '1,658' });
  row({ what: '... load client, of one core', unit: '%', ours: lists.client });
};

parts.gateway = async () => {
  const cases = [
    { size: 4096, total: 400 * MB, original: '97' }, { size: 256, total: 60 * MB, original: '27' },
    { size: 64, total: 30 * MB, original: '9.6' },
  ];
  const tunnel = start(bin('tunsim'), [], 240);
  const { port } = await tunnel.next();
  const service = await startService({ 'tunnel-url': `ws://127.0.0.1:${port}/` });
  for (const { size, total, original } of cases) {
    const { lists, add } = collect();
    for (let round = 0; round < ROUNDS; round++) {
      const bare = await run('bare_lws_count', flags({ port, size, total }));
      add('bare', bare.bytes / bare.seconds / MB);
      add('bare cpu', bare.cpu_s / bare.bytes * 100 * MB);
      const session = await createSession(service, { sandbox: { provider: 'url' } });
      const r = await load(service, session, { bytes: total, body: `run ${size} 0 ${total}` });
      if (r.bytes !== total || r.resets > 0) console.log(`  incomplete: ${JSON.stringify(r)}`);
      add('rate', r.bytes / r.seconds / MB);
      add('whole', r.bytes === total && r.resets === 0);
      add('cpu', r.cpu_s[0] / r.bytes * 100 * MB);
      add('peak', (r.peak_kb - r.rss_before_kb) / 1024);
      await closeSession(service, session);
    }
    row({ what: `service by itself, frames of ${size} bytes, 1 SSE viewer`, unit: 'MB/s', ours: lists.rate, bare: lists.bare, target: '0.70 of bare', holds: (x, ratio) => ratio >= 0.7 && lists.whole.every(Boolean), original });
    row({ what: '... CPU for 100 MB', unit: 's', ours: lists.cpu, bare: lists['bare cpu'] });
    row({ what: '... peak RSS above that before (a journal is 4)', unit: 'MiB', ours: lists.peak, target: '6', holds: (x) => x <= 6, original: size === 4096 ? '40' : '900' });
  }
  await service.stop();
  await tunnel.stop();
};

parts.pty = async () => {
  const cases = [
    { what: '`seq`', command: ['sh', '-c', 'read go; exec seq 1000000 9999999'], target: 0.9, original: '17.3 (82 %)' },
    { what: 'coloured log, writes of 8 KB', command: [bin('pty_source'), 'log', 150 * MB], target: 0.9, original: '42.8 (62 %)' },
    { what: 'coloured log, a write a line', command: [bin('pty_source'), 'lines', 40 * MB], original: '25.7 (91 %)' },
  ];
  const service = await startService();
  for (const c of cases) {
    const command = c.command.map(String);
    const { lists, add } = collect();
    for (let round = 0; round < ROUNDS; round++) {
      const bare = await run('bare_pty', command);
      add('bare', bare.bytes / bare.seconds / MB);
      add('bare cpu', bare.cpu_s / bare.bytes * 100 * MB);
      const session = await createSession(service, { sandbox: 'local', command });
      const agent = agentsOf(service).at(-1);
      const r = await load(service, session, { exit: 1, body: '\n', pid: `${service.pid},${agent}` });
      if (r.bytes !== bare.bytes || r.resets > 0) console.log(`  differs from ${bare.bytes}: ${JSON.stringify(r)}`);
      add('rate', r.bytes / r.seconds / MB);
      add('whole', r.bytes === bare.bytes && r.resets === 0);
      add('service cpu', r.cpu_s[0] / r.bytes * 100 * MB);
      add('agent cpu', r.cpu_s[1] / r.bytes * 100 * MB);
      await closeSession(service, session);
    }
    row({ what: `through agent and PTY, ${c.what}`, unit: 'MB/s', ours: lists.rate, bare: lists.bare, target: c.target && '0.90 of bare', holds: c.target && ((x, ratio) => ratio >= c.target && lists.whole.every(Boolean)), original: c.original });
    row({ what: '... CPU of the agent for 100 MB', unit: 's', ours: lists['agent cpu'], bare: lists['bare cpu'] });
    row({ what: '... CPU of the service for 100 MB', unit: 's', ours: lists['service cpu'] });
  }
  await service.stop();
};

parts.echo = async () => {
  const KEYS = 2000;
  const command = ['sh', '-c', 'stty raw -echo; exec cat'];
  const { lists, add } = collect();
  const service = await startService();
  const session = await createSession(service, { sandbox: 'local', command });
  await sleep(300); // until stty has run
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, result] of [
      ['bare', await run('bare_echo', flags({ keys: KEYS }))],
      ['post', await run('echo', flags({ port: service.port, session, key: KEY, keys: KEYS }))],
      ['ws', await run('echo', flags({ port: service.port, session, key: KEY, keys: KEYS, ws: 1 }))],
    ])
      for (const [figure, ms] of Object.entries(result)) add(`${name} ${figure}`, ms);
  }
  await closeSession(service, session);
  await service.stop();
  const limits = { post: { name: 'POST to SSE', p50: 0.3, p99: 1.5, original: ['0.70', '0.98', '4.5', '12.4'] }, ws: { name: 'WebSocket', p50: 0.2, p99: 0.6, original: ['0.43', '0.64', '3.1', '8.6'] } };
  for (const [kind, limit] of Object.entries(limits)) {
    ['p50', 'p90', 'p99', 'max'].forEach((figure, i) => {
      const most = limit[figure];
      row({ what: `${i === 0 ? `echo of a key, ${limit.name},` : '...'} ${figure}`, unit: 'ms', ours: lists[`${kind} ${figure}_ms`], bare: lists[`bare ${figure}_ms`], target: most && String(most), holds: most && ((x) => x <= most), original: limit.original[i] });
    });
    if (kind === 'post') row({ what: '... until the POST is answered, p50', unit: 'ms', ours: lists['post answer_p50_ms'], original: '0.39' });
  }
};

parts.idle = async () => {
  const SESSIONS = 500, VIEWERS = 10000, IDLE_S = 10;
  const service = await startService();
  await sleep(1000);
  const idleKb = statusKb(service.pid, 'VmRSS');
  row({ what: 'idle service, RSS', unit: 'MB', ours: [idleKb / 1024], target: '15', holds: (x) => x <= 15, original: '66' });

  const ids = [];
  const startMs = Date.now();
  for (let i = 0; i < SESSIONS; i += 10)
    ids.push(...await Promise.all(Array.from({ length: 10 }, () => createSession(service, { sandbox: 'local', command: ['sleep', '600'] }))));
  const tookMs = Date.now() - startMs;
  await sleep(500);
  const sessionsKb = statusKb(service.pid, 'VmRSS');
  const agents = agentsOf(service);
  row({ what: `${SESSIONS} sessions opened one after the other (10 at once)`, unit: 'ms each', ours: [tookMs / SESSIONS] });
  row({ what: 'a session before its output, in the service', unit: 'KB', ours: [(sessionsKb - idleKb) / SESSIONS], target: '64', holds: (x) => x <= 64, original: '100' });
  row({ what: 'its agent, RSS', unit: 'KB', ours: agents.map((pid) => statusKb(pid, 'VmRSS')), target: '1,024', holds: (x) => x <= 1024, original: '7,885' });
  row({ what: 'its agent, PSS', unit: 'KB', ours: agents.slice(0, 50).map(sharedKb), original: '1,126' });

  const agentsCpu = agents.reduce((sum, pid) => sum - cpuSeconds(pid), 0);
  const one = await run('sse_load', flags({ port: service.port, key: KEY, path: `/sessions/${ids[0]}/stream`, viewers: 1000, idle: 1, pid: service.pid }));
  row({ what: 'an idle SSE viewer, 1,000 of one session', unit: 'KB', ours: [(one.rss_open_kb - one.rss_before_kb) / 1000], target: '14', holds: (x) => x <= 14, original: '37' });
  await sleep(1500);
  const r = await run('sse_load', flags({ port: service.port, key: KEY, path: ids.map((id) => `/sessions/${id}/stream`).join(','), viewers: VIEWERS, idle: IDLE_S, pid: service.pid }));
  row({ what: `${VIEWERS.toLocaleString('en')} viewers of ${SESSIONS} sessions: all connected`, unit: 's', ours: [r.connect_s], target: 'say' });
  row({ what: '... CPU of the service for that', unit: 's', ours: [r.connect_cpu_s] });
  row({ what: '... an idle viewer', unit: 'KB', ours: [(r.rss_open_kb - r.rss_before_kb + Math.max(0, r.rss_before_kb - sessionsKb)) / VIEWERS], target: '14', holds: (x) => x <= 14, original: '37' });
  row({ what: `... CPU of the service in ${IDLE_S} s without output`, unit: 's', ours: [r.cpu_s[0]], target: 'near 0', holds: (x) => x <= 0.02 * IDLE_S });
  row({ what: `... CPU of ${SESSIONS} agents in that time and the connects`, unit: 's', ours: [agentsCpu + agents.reduce((sum, pid) => sum + cpuSeconds(pid), 0)] });
  row({ what: '... RSS of the service then', unit: 'MB', ours: [r.rss_kb / 1024] });
  await service.stop();
};

parts.journals = async () => {
  const SESSIONS = 40, BYTES = 8 * MB, BOUND_MIB = 64;
  const tunnel = start(bin('tunsim'), [], 120);
  const { port } = await tunnel.next();
  const service = await startService({ 'tunnel-url': `ws://127.0.0.1:${port}/`, 'journals-total-bytes': `${BOUND_MIB}M` });
  const flood = async () => {
    const session = await createSession(service, { sandbox: { provider: 'url' } });
    await ask(service, 'POST', `/${session}/input`, `run 4096 0 ${BYTES}`);
    while ((await (await ask(service, 'GET', `/${session}`)).json()).offset < BYTES) await sleep(10);
  };
  await sleep(1000);
  const idleKb = statusKb(service.pid, 'VmRSS');
  await flood();
  const firstKb = statusKb(service.pid, 'VmRSS') - idleKb;
  for (let i = 1; i < SESSIONS; i++) await flood();
  const extraMib = () => (statusKb(service.pid, 'VmRSS') - idleKb) / 1024;
  row({ what: 'a session after 8 MB of output (ring of 4,096 KB), and what its loop keeps', unit: 'KB', ours: [firstKb], target: '64 + 4,096 + 1,024', holds: (x) => x <= 64 + 4096 + 1024 });
  const what = `${SESSIONS} sessions after 8 MB each, all journals bounded to ${BOUND_MIB} MiB: RSS above idle`;
  row({ what, unit: 'MiB', ours: [extraMib()], target: `${BOUND_MIB} + 0.25 a session`, holds: (x) => x <= BOUND_MIB + SESSIONS / 4 });
  await sleep(12000); // whoever was silent for 10 s has given back by then
  row({ what: '... 12 s later', unit: 'MiB', ours: [extraMib()], target: `${BOUND_MIB} + 64 KB a session`, holds: (x) => x <= BOUND_MIB + SESSIONS / 16 });
  await service.stop();
  await tunnel.stop();
};

let codecs = '';
parts.codecs = () => {
  codecs = spawnSync(bin('wire_codecs'), { encoding: 'utf8', timeout: 60000 }).stdout;
  console.log(codecs);
};

/** Runs a script of this folder, which leaves its tables in build/bench/NAME.md. */
function script(name) {
  const path = new URL(`${name}.mjs`, import.meta.url).pathname;
  const { status } = spawnSync(process.execPath, [path, '--rounds', String(ROUNDS)], { stdio: ['ignore', 'inherit', 'inherit'], timeout: 1800000 });
  return status === 0 ? readFileSync(join(BUILD, 'bench', `${name}.md`), 'utf8') : '';
}

let runloop = '';
parts.runloop = () => { runloop = script('runloop'); };

let replicas = '';
parts.replicas = () => {
  if (spawnSync('redis-server', ['--version']).error) console.log('skipped: there is no redis-server here');
  else replicas = script('replicas');
};

// --- all ---

const begin = Date.now();
for (const [name, part] of Object.entries(parts)) {
  if (ONLY.length > 0 && !ONLY.includes(name)) continue;
  console.log(`\n== ${name}`);
  const from = Date.now();
  await part();
  console.log(`(${((Date.now() - from) / 1000).toFixed(0)} s)`);
}

const loadNow = readFileSync('/proc/loadavg', 'utf8').split(' ').slice(0, 3).join(' ');
const kernel = readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim();
const head = ['figure', 'unit', 'ptycast: median (min to max)', 'bare limit', 'ratio', 'target', 'met', 'the original'];
const table = [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
const sizes = ['ptycast', 'ptycast-agent'].map((name) => `${name} ${readFileSync(join(BUILD, name)).length.toLocaleString('en')} bytes`).join(', ');
const text = `Machine: ${cpus().length} x ${cpus()[0].model}, ${(totalmem() / 2 ** 30).toFixed(0)} GiB, Linux ${kernel}; server, program and load client share its cores.
Date: ${new Date().toISOString().slice(0, 10)}; ${ROUNDS} rounds, ours and bare in turns; ${((Date.now() - begin) / 1000).toFixed(0)} s in all; load average at the end ${loadNow}.
Programs: ${sizes}.

${table}
${codecs && `\nCodecs of \`wire/\` (\`build/bench/wire_codecs\`):\n\n\`\`\`\n${codecs}\`\`\`\n`}${runloop && `\n## Runloop\n\n${runloop}`}${replicas && `\n## Replicas\n\n${replicas}`}`;
writeFileSync(join(BUILD, 'bench', 'results.md'), text);
console.log(`\nbuild/bench/results.md is written (${((Date.now() - begin) / 1000).toFixed(0)} s)`);
