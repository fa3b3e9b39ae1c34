// test.mjs [SUITE...]: builds and runs test suites, goes on to the end, and closes with the line
// "N passed, N failed" (", N skipped" may follow). A suite is unit:FLAVOUR, e2e:FLAVOUR, chaos:release,
// clang or fuzz; without any: all. Whole logs are in build/log/; only what failed is printed.
//
// T=TEXT runs only the unit programs, e2e files and fuzz targets whose path contains TEXT,
// N=PATTERN only the e2e tests of that name.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { basename, join } from 'node:path';

const jobs = availableParallelism?.() ?? cpus().length;
const { T = '', N = '', FUZZ_SECONDS } = process.env;
const minutes = 60_000;
const total = { passed: 0, failed: 0, skipped: 0 };
const running = new Set();

// Not the caller's make, and no proxy: libwebsockets would go through one even on loopback.
for (const name of ['MAKEFLAGS', 'MFLAGS', 'MAKELEVEL', 'FLAVOUR', 'http_proxy', 'https_proxy', 'all_proxy'])
  for (const n of [name, name.toUpperCase()]) delete process.env[n];
// gcc 12's ThreadSanitizer refuses some kernels' address layouts.
const fixedLayout = spawnSync('setarch', ['-R', 'true']).status === 0 ? ['setarch', '-R'] : [];

for (const signal of ['SIGINT', 'SIGTERM'])
  process.on(signal, () => {
    for (const pid of running) kill(pid);
    process.exit(130);
  });

function kill(pid) {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    /* gone already */
  }
}

// Runs a command in a process group of its own; ends the group with it.
function run(argv, { env = {}, timeout = 10 * minutes } = {}) {
  return new Promise((resolve) => {
    const child = spawn(argv[0], argv.slice(1), {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    const chunks = [];
    let note = '';
    const timer = setTimeout(() => {
      note = `\n${argv.join(' ')}: killed after ${timeout / 1000} s\n`;
      kill(child.pid);
    }, timeout);
    running.add(child.pid);
    child.stdout.on('data', (data) => chunks.push(data));
    child.stderr.on('data', (data) => chunks.push(data));
    child.on('error', (error) => {
      note = `${argv[0]}: ${error.message}\n`;
      finish(1);
    });
    // A descendant that outlives the program may hold the pipes: wait only a little for their end.
    child.on('exit', (code, signal) => {
      if (signal && !note) note = `\n${argv.join(' ')}: ended by ${signal}\n`;
      child.on('close', () => finish(code ?? 1));
      setTimeout(() => finish(code ?? 1), 2000).unref();
    });
    function finish(code) {
      if (!running.has(child.pid)) return;
      clearTimeout(timer);
      running.delete(child.pid);
      kill(child.pid);
      resolve({ ok: code === 0, output: Buffer.concat(chunks).toString() + note });
    }
  });
}

function find(dir, matches) {
  if (!existsSync(dir)) return [];
  return readdirSync(dir, { withFileTypes: true })
    .flatMap((entry) => {
      const path = join(dir, entry.name);
      if (entry.isDirectory()) return find(path, matches);
      return matches(entry.name) ? [path] : [];
    })
    .sort();
}

const chosen = (paths) => paths.filter((path) => path.includes(T));

async function forEachOf(list, limit, fn) {
  const queue = [...list];
  await Promise.all(
    Array.from({ length: limit }, async () => {
      while (queue.length) await fn(queue.shift());
    }),
  );
}

// What LeakSanitizer says of a process that a test killed while it looked for leaks; not of a leak.
const killedAtItsEnd = /^==\d+==Unable to get registers from thread \d+\.\s*$/gm;

// What the sanitizers wrote since the last call: see scripts/sanitizers.c.
function takeReports(buildDir) {
  const dir = join(buildDir, 'reports');
  const text = find(dir, () => true)
    .map((path) => [path, readFileSync(path, 'utf8').replaceAll(killedAtItsEnd, '')])
    .flatMap(([path, report]) => (report.trim() ? [`${path}:\n${report}`] : []));
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  return text.join('\n');
}

// A suite's body is given a result to count in, and returns what is worth printing when it failed.
async function suite(name, body) {
  const started = Date.now();
  const result = { passed: 0, failed: 0, skipped: 0, output: '', log: '' };
  await body(result);
  writeFileSync(`build/log/${name.replaceAll(/\W/g, '-')}.log`, result.log || result.output);
  for (const key of Object.keys(total)) total[key] += result[key];
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  const skipped = result.skipped ? `, ${result.skipped} skipped` : '';
  if (result.failed) console.log(result.output.trimEnd());
  console.log(`${name}: ${result.passed} passed, ${result.failed} failed${skipped} (${seconds} s)`);
  return result.failed === 0;
}

// Says nothing when all goes well; a build that fails counts as one failure.
async function build(flavour, targets) {
  const argv = ['make', '--no-print-directory', '--keep-going', `-j${jobs}`, `FLAVOUR=${flavour}`, ...targets];
  const { ok, output } = await run(argv);
  writeFileSync(`build/log/build-${flavour}.log`, output);
  if (!ok) {
    console.log(output.trimEnd());
    console.log(`build ${flavour}: failed`);
    total.failed++;
  }
  return ok;
}

const buildDirOf = (flavour) => (flavour === 'release' ? 'build' : `build/${flavour}`);
const envOf = (flavour) => ({ PTYCAST_BUILD_DIR: buildDirOf(flavour), PTYCAST_FLAVOUR: flavour });
const prefixOf = (flavour) => (flavour === 'tsan' ? fixedLayout : []);

const unitPrograms = (flavour) =>
  chosen(find('tests/unit', (name) => /^test_.*\.c$/.test(name))).map((source) =>
    join(buildDirOf(flavour), source.replace(/\.c$/, '')),
  );

async function unit(flavour, result) {
  await forEachOf(unitPrograms(flavour), jobs, async (program) => {
    const { ok, output } = await run([...prefixOf(flavour), program], {
      env: { ...envOf(flavour), CMOCKA_MESSAGE_OUTPUT: 'TAP' },
      timeout: 5 * minutes,
    });
    const count = (pattern) => output.match(pattern)?.length ?? 0;
    const skipped = count(/^(not )?ok \d+.*# SKIP/gm); // cmocka 1.1 says "not ok 2 # SKIP"
    const passed = count(/^ok \d+(?!.*# SKIP)/gm);
    let failed = count(/^not ok \d+(?!.*# SKIP)/gm);
    const planned = [...output.matchAll(/^1\.\.(\d+)/gm)].reduce((sum, [, n]) => sum + Number(n), 0);
    const ran = passed + failed + skipped;
    if (failed === 0 && (!ok || ran === 0 || ran < planned)) failed = 1; // crashed, or left early
    result.passed += passed;
    result.skipped += skipped;
    result.failed += failed;
    const text = `--- ${program}\n${output}\n`;
    result.log += text;
    if (failed) result.output += text;
  });
}

// A browser asks the service for nothing that other tests do not; it runs in release and under ASan.
const isBrowsers = (path) => /(web_(?!units)|_page)[^/]*$/.test(path);

// Most of a test's time is waiting for what happens elsewhere, but under ThreadSanitizer.
const filesAtOnce = (flavour) => (flavour === 'tsan' ? jobs + 1 : 2 * jobs);

async function e2e(flavour, result) {
  const files = chosen(find('tests/e2e', (name) => name.endsWith('.test.mjs'))).filter(
    (path) => flavour !== 'tsan' || T || !isBrowsers(path),
  );
  if (files.length === 0) return;
  const { ok, output } = await run(
    [
      ...prefixOf(flavour), process.execPath, '--test', `--test-concurrency=${filesAtOnce(flavour)}`,
      '--test-reporter=spec', '--test-reporter-destination=stdout',
      ...(N ? [`--test-name-pattern=${N}`] : []), ...files,
    ],
    { env: envOf(flavour) },
  );
  const plain = output.replaceAll(/\x1b\[[\d;]*m/g, '');
  const count = (word) => Number(plain.match(new RegExp(`^ℹ ${word} (\\d+)$`, 'm'))?.[1] ?? 0);
  result.passed = count('pass');
  result.skipped = count('skipped') + count('todo');
  result.failed = count('fail') + count('cancelled');
  if (!ok && result.failed === 0) result.failed = 1;
  result.output = plain;
}

async function fuzz(result) {
  const targets = chosen(find('tests/fuzz', (name) => /^fuzz_.*\.c$/.test(name)));
  const time = FUZZ_SECONDS ? `-max_total_time=${FUZZ_SECONDS}` : '-runs=0';
  await forEachOf(targets, jobs, async (source) => {
    const target = basename(source, '.c');
    const name = target.replace('fuzz_', '');
    const found = `build/fuzz/corpus/${name}`;
    mkdirSync(found, { recursive: true });
    const { ok, output } = await run(
      [`build/fuzz/${target}`, time, '-print_final_stats=1', `-artifact_prefix=build/fuzz/${name}-`, found,
        ...[`tests/fuzz/corpus/${name}`].filter((dir) => existsSync(dir))],
      { timeout: (FUZZ_SECONDS ?? 0) * 1000 + 10 * minutes },
    );
    result[ok ? 'passed' : 'failed']++;
    result.log += `--- ${target}\n${output}\n`;
    if (!ok) result.output += `--- ${target}\n${output}\n`;
  });
}

// The short form of `make test-chaos`.
async function chaos(flavour, result) {
  const { ok, output } = await run([process.execPath, 'tests/chaos/main.mjs', '--seconds', '60'], { env: envOf(flavour) });
  result[ok ? 'passed' : 'failed'] = 1;
  result.output = output;
}

const all = ['unit:release', 'e2e:release', 'chaos:release', 'unit:asan', 'e2e:asan', 'unit:tsan', 'e2e:tsan', 'clang', 'fuzz'];
const wanted = process.argv.length > 2 ? process.argv.slice(2) : all;
mkdirSync('build/log', { recursive: true });

for (const name of wanted) {
  const [kind, flavour = kind] = name.split(':');
  const targets = {
    unit: ['agents', ...(T ? unitPrograms(flavour) : ['unit-programs'])], // some run the agent
    e2e: ['programs', 'tool-programs'],
    chaos: ['programs', 'tool-programs'],
    clang: ['everything'],
    fuzz: ['fuzz-programs'],
  }[kind];
  if (targets.length === 0 || !(await build(flavour, targets)) || kind === 'clang') continue;
  await suite(name.replace(':', ' '), async (result) => {
    takeReports(buildDirOf(flavour));
    if (kind === 'unit') await unit(flavour, result);
    else if (kind === 'e2e') await e2e(flavour, result);
    else if (kind === 'chaos') await chaos(flavour, result);
    else await fuzz(result);
    const reports = takeReports(buildDirOf(flavour));
    if (reports) {
      result.failed++;
      result.output += reports;
      result.log += reports;
    }
  });
}

console.log(`${total.passed} passed, ${total.failed} failed${total.skipped ? `, ${total.skipped} skipped` : ''}`);
process.exitCode = total.failed || total.passed === 0 ? 1 : 0;
