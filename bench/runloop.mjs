// runloop.mjs -- how long it takes to come to a terminal in a devbox of Runloop, against the fake (tests/fakes/runloop) as a
// process of its own, without and with a delay of each API call; beside it the original's way to the same
// (runloop_original.mjs). Writes build/bench/runloop.md.
//
//   node bench/runloop.mjs [--runs N] [--rounds N]
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { loadavg, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const BUILD = resolve(process.env.PTYCAST_BUILD_DIR ?? here('../build'));
const KEYS = [0, 1, 2, 3].map((n) => `benchkey123456789${n}`); // of a subject each: one has at most half of the threads
const LATENCIES_MS = [0, 50];
const THREADS = [8, 16, 32];
const IN_ONE = 200; // sessions in one devbox; an agent takes 256

function option(name, otherwise) {
  const at = process.argv.indexOf(name);
  return at < 0 ? otherwise : Number(process.argv[at + 1]);
}
const RUNS = option('--runs', 11);
const ROUNDS = option('--rounds', 3);

const scratch = mkdtempSync(join(tmpdir(), 'ptycast-bench-'));
const running = new Set();
process.on('exit', () => {
  for (const child of running) child.kill('SIGTERM'); // the fake ends its devboxes
  rmSync(scratch, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

/** Starts a program; its lines of JSON come by next(). */
function start(path, args, env = {}) {
  const child = spawn(path, args.map(String), { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  running.add(child);
  let text = '', errors = '';
  const lines = [], waiting = [];
  child.stdin.on('error', () => {});
  child.stderr.on('data', (data) => { errors = (errors + data).slice(-2000); });
  child.stdout.on('data', (data) => {
    const parts = (text + data).split('\n');
    text = parts.pop();
    for (const line of parts.map(JSON.parse)) waiting.length > 0 ? waiting.shift().done(line) : lines.push(line);
  });
  const ended = new Promise((done) => child.on('close', (code, signal) => {
    running.delete(child);
    for (const w of waiting.splice(0)) w.failed(new Error(`${path} ended (${code ?? signal}): ${errors}`));
    done();
  }));
  return {
    pid: child.pid,
    next: () => new Promise((done, failed) => { lines.length > 0 ? done(lines.shift()) : waiting.push({ done, failed }); }),
    say: (object) => child.stdin.write(`${JSON.stringify(object)}\n`),
    stop: async () => { child.kill('SIGTERM'); await ended; },
  };
}

// --- the fake ---

const fake = start(process.execPath, [here('../tests/fakes/runloop/main.mjs'), '--boxes', 0], { PTYCAST_BUILD_DIR: BUILD });
const { tlsUrl, key, caFile, tunnelTemplate, control } = await fake.next();

async function order(method, path, body) {
  const response = await fetch(control + path, { method, body: body && JSON.stringify(body) });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  return response.json();
}
// As pocketenv makes its devboxes; the shell's first bytes are kept for whoever comes to the native PTY.
const newBox = () => order('POST', '/boxes', { tunnel: 'open', pty: { replayBytes: 4096 } });
const endBox = (box) => order('POST', `/boxes/${box.id}/close`);

// Calls since the last reset(): of the API, and to the hosts of tunnels.
async function counts() {
  const list = Object.entries((await order('GET', '/stats')).counts);
  const sum = (wanted) => list.filter(([name]) => /^(tunnel|pty)\b/.test(name) === wanted).reduce((all, [, n]) => all + n, 0);
  return { api: sum(false), tunnel: sum(true) };
}

// --- the service ---

let services = 0;
async function startService(more = {}) {
  const flags = {
    listen: '127.0.0.1:0', providers: 'runloop', agent: join(BUILD, 'ptycast-agent'), 'ca-file': caFile,
    store: `sqlite:${join(scratch, `${services++}.db`)}`, 'log-format': 'json', 'log-level': 'error',
    'max-sessions-per-subject': 10000, ...more,
  };
  const child = start(join(BUILD, 'ptycast'), ['serve', ...Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value])], {
    PTYCAST_API_KEYS: KEYS.map((text, n) => `${text}=bench${n}`).join(), RUNLOOP_BASE_URL: tlsUrl, RUNLOOP_TUNNEL_URL: tunnelTemplate,
  });
  let line;
  do line = await child.next(); while (line.event !== 'listening');
  return { ...child, url: line.url, agent: new http.Agent({ keepAlive: true }) };
}

function request(service, method, path, body, text = KEYS[0]) {
  return new Promise((done, failed) => {
    const headers = { Authorization: `Bearer ${text}`, ...(body && { 'Content-Type': 'application/json' }) };
    const r = http.request(service.url + path, { method, headers, agent: service.agent }, done);
    r.on('error', failed);
    r.end(body && JSON.stringify(body));
  });
}

async function ask(service, method, path, body, text) {
  const response = await request(service, method, path, body, text);
  let answer = '';
  for await (const data of response.setEncoding('utf8')) answer += data;
  return { status: response.statusCode, json: answer && JSON.parse(answer) };
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

const ofBox = (box, transport) => ({
  sandbox: { provider: 'runloop', external_id: box.id, credential: key, transport },
  ...(transport === 'agent' && { command: ['bash'] }),
});

const opened = []; // sessions that are to be closed
async function closeSessions() {
  for (const { service, id } of opened.splice(0)) {
    await ask(service, 'DELETE', `/sessions/${id}`);
    while ((await ask(service, 'GET', `/sessions/${id}`)).json.state !== 'ended') await sleep(5);
  }
}

/** Milliseconds from POST /sessions to the first byte of output at a viewer of its stream. */
async function open(service, box, transport = 'agent') {
  const from = performance.now();
  const { status, json } = await ask(service, 'POST', '/sessions', ofBox(box, transport));
  if (status !== 201) throw new Error(`POST: ${status} ${JSON.stringify(json)}`);
  const stream = await request(service, 'GET', `/sessions/${json.id}/stream`);
  let text = '', ms;
  for await (const data of stream.setEncoding('utf8')) {
    text += data;
    if (text.includes('event: output\n')) {
      ms = performance.now() - from;
      break;
    }
  }
  stream.destroy();
  if (ms === undefined) throw new Error(`no output: ${text}`);
  opened.push({ service, id: json.id });
  return ms;
}

// --- figures ---

const sorted = (list) => [...list].sort((a, b) => a - b);
const median = (list) => sorted(list)[Math.floor(list.length / 2)];
const digits = (x) => (x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x.toFixed(2));
const spread = (list) =>
  `**${digits(median(list))}**${list.length > 1 ? ` (${digits(Math.min(...list))} to ${digits(Math.max(...list))})` : ''}`;
const table = (rows) => [rows[0], rows[0].map(() => '---'), ...rows.slice(1)].map((cells) => `| ${cells.join(' | ')} |`).join('\n');

// --- one session ---

// Each: runs once and answers with milliseconds. before and after are not measured.
const ways = {};

ways['ptycast, cold: a fresh devbox, the agent is uploaded'] = async () => {
  const service = await startService();
  const other = await newBox();
  await open(service, other); // the service has done this before
  return {
    before: newBox,
    run: (box) => open(service, box),
    after: endBox,
    end: async () => { await endBox(other); await service.stop(); },
  };
};
ways['ptycast, warm: the agent runs there, the service has just been started'] = async () => {
  const box = await newBox();
  const first = await startService();
  await open(first, box);
  opened.length = 0; // it stays: its agent would go with it
  return {
    before: startService,
    run: (service) => open(service, box),
    after: (service) => service.stop(),
    end: async () => { await endBox(box); await first.stop(); },
  };
};
ways['ptycast, hot: another session in a devbox that has one'] = async () => {
  const box = await newBox();
  const service = await startService();
  await open(service, box);
  opened.length = 0;
  return {
    before: () => {},
    run: () => open(service, box),
    after: () => {},
    end: async () => { await endBox(box); await service.stop(); },
  };
};
ways['ptycast, native: a fresh devbox'] = async () => {
  const service = await startService();
  const other = await newBox();
  await open(service, other, 'native');
  return {
    before: newBox,
    run: (box) => open(service, box, 'native'),
    after: endBox,
    end: async () => { await endBox(other); await service.stop(); },
  };
};

let sessions = 0;
async function startOriginal() {
  const child = start(process.execPath, [here('runloop_original.mjs')], { NODE_EXTRA_CA_CERTS: caFile });
  const run = async (box) => {
    child.say({ url: tlsUrl, key, tunnel: tunnelTemplate, box: box.id, agent: join(BUILD, 'ptycast-agent'), session: sessions++ });
    const { ms, error } = await child.next();
    if (error) throw new Error(`the original's way: ${error}`);
    return ms;
  };
  return { run, stop: child.stop };
}
ways["the original's way, cold: a fresh devbox"] = async () => {
  const original = await startOriginal();
  const other = await newBox();
  await original.run(other);
  await endBox(other); // its port is the same in each
  return { before: newBox, run: original.run, after: endBox, end: original.stop };
};
ways["the original's way, warm, and each further session"] = async () => {
  const original = await startOriginal();
  const box = await newBox();
  await original.run(box);
  return {
    before: () => {},
    run: () => original.run(box),
    after: () => {},
    end: async () => { await endBox(box); await original.stop(); },
  };
};

async function measureOne() {
  const rows = [['until the first byte of the shell', 'API calls', 'to the tunnel', ...LATENCIES_MS.map((ms) => `ms, with ${ms} ms a call`), 'calls in sequence']];
  for (const [what, prepare] of Object.entries(ways)) {
    const medians = [], cells = [];
    const calls = { api: Infinity, tunnel: Infinity }; // the least: ends of sessions before may be among them
    for (const latencyMs of LATENCIES_MS) {
      await order('POST', '/reset');
      const way = await prepare();
      await closeSessions();
      await order('POST', '/set', { latencyMs });
      const list = [];
      for (let run = 0; run < RUNS; run++) {
        const with_ = await way.before();
        await order('POST', '/reset');
        await order('POST', '/set', { latencyMs });
        list.push(await way.run(with_));
        for (const [name, n] of Object.entries(await counts())) calls[name] = Math.min(calls[name], n);
        await closeSessions();
        await way.after(with_);
      }
      await order('POST', '/reset');
      await way.end();
      medians.push(median(list));
      cells.push(spread(list));
    }
    const inSequence = Math.max(0, medians.at(-1) - medians[0]) / (LATENCIES_MS.at(-1) - LATENCIES_MS[0]);
    rows.push([what, calls.api, calls.tunnel, ...cells, inSequence.toFixed(1)]);
    console.log(rows.at(-1).join(' | ').replaceAll('*', ''));
  }
  return table(rows);
}

// --- many sessions at once ---

const cpuSeconds = (pid) => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
};

/** [seconds until all are open, seconds of CPU of the service for that] */
async function openMany(threads, boxes, sessions) {
  const service = await startService({ 'provisioner-threads': threads, 'provisioner-queue': 2 * sessions });
  const [from, cpu] = [performance.now(), cpuSeconds(service.pid)];
  const answers = await Promise.all(Array.from({ length: sessions }, (_, i) =>
    ask(service, 'POST', '/sessions?wait=open', ofBox(boxes[i % boxes.length], 'agent'), KEYS[boxes.length > 1 ? i % KEYS.length : 0])));
  const took = [(performance.now() - from) / 1000, cpuSeconds(service.pid) - cpu];
  const late = answers.filter(({ status, json }) => status !== 201 || json.state !== 'open');
  if (late.length > 0) throw new Error(`${late.length} are not open: ${JSON.stringify(late[0])}`);
  await service.stop();
  return took;
}

async function measureMany() {
  const rows = [['sessions at once: seconds until all are open', 'a call takes', ...THREADS.map((n) => `${n} threads`), "the service's CPU"]];
  for (const [what, sessions, boxesCount, rounds] of [
    [`${IN_ONE} in one fresh devbox`, IN_ONE, 1, ROUNDS],
    ['50 in as many fresh devboxes', 50, 50, ROUNDS],
    ['200 in as many fresh devboxes', 200, 200, 1],
  ])
    for (const latencyMs of LATENCIES_MS) {
      const cells = [], cpus = [];
      for (const threads of THREADS) {
        const list = [];
        for (let round = 0; round < rounds; round++) {
          const boxes = await Promise.all(Array.from({ length: boxesCount }, newBox));
          await order('POST', '/set', { latencyMs });
          const [s, cpu] = await openMany(threads, boxes, sessions);
          list.push(s);
          cpus.push(cpu);
          await order('POST', '/reset');
          await Promise.all(boxes.map(endBox));
        }
        cells.push(spread(list));
      }
      rows.push([what, `${latencyMs} ms`, ...cells, digits(median(cpus))]);
      console.log(rows.at(-1).join(' | ').replaceAll('*', ''));
    }
  return table(rows);
}

const load = () => loadavg().map((x) => x.toFixed(2)).join(' ');
const loadBefore = load();
const one = await measureOne();
const many = await measureMany();
await fake.stop();
mkdirSync(join(BUILD, 'bench'), { recursive: true });
writeFileSync(join(BUILD, 'bench', 'runloop.md'), `Date: ${new Date().toISOString().slice(0, 10)}; medians of ${RUNS} runs (min to max), of ${ROUNDS} below; load average before ${loadBefore}, at the end ${load()}. 200 devboxes: one run each.

${one}

${many}
`);
