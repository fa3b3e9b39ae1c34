// agent_registration.test.mjs -- --registration=FILE: one agent for a file, however many want to start it, and
// whatever became of the one before.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, statSync,
  symlinkSync, writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { AGENT, Tunnel, encode, isRunning, randomId } from './lib/agent_v2.mjs';
import { until, within } from './lib/wait.mjs';

let base;
let directories = 0;
before(() => {
  base = mkdtempSync(join(tmpdir(), 'ptycast-registration-'));
});
after(() => {
  for (const pid of agentsOf(base)) process.kill(pid, 'SIGKILL');
  rmSync(base, { recursive: true, force: true });
});

/** A file to register in, in a directory of its own. */
function freshFile() {
  const directory = join(base, `d${++directories}`);
  mkdirSync(directory, { mode: 0o700 });
  return join(directory, 'agent-0.json');
}

/** Processes whose arguments hold text and that are no zombies. */
function agentsOf(text) {
  const read = (path) => {
    try {
      return readFileSync(path, 'latin1');
    } catch {
      return '';
    }
  };
  return readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid) && read(`/proc/${pid}/cmdline`).includes(`--registration=${text}`))
    .map(Number);
}

const flags = (file) => ['--mode=agent', '--listen=127.0.0.1', `--registration=${file}`];

/** Starts a starter; its `done` comes when it has ended and nobody holds one of its pipes any more. */
function starter(file, args = [], { stdio = ['pipe', 'pipe', 'pipe', 'pipe'], prefix = [] } = {}) {
  const [program, ...rest] = [...prefix, AGENT, ...flags(file), ...args];
  const child = spawn(program, rest, { stdio });
  const result = { stdout: '', stderr: '', child };
  child.stdout.on('data', (d) => (result.stdout += d));
  child.stderr.on('data', (d) => (result.stderr += d));
  child.stdio[3]?.on('data', () => {});
  const closed = new Promise((resolve) => {
    child.on('close', (code, signal) => resolve({ ...result, code, signal }));
  });
  result.done = within(closed, 'end of a starter and of its pipes');
  return result;
}

/** The outcome of a starter that must succeed, with what Tunnel wants of an agent. */
async function start(file, args, options) {
  const result = await starter(file, args, options).done;
  assert.deepEqual([result.code, result.stderr], [0, ''], result.stderr);
  assert.equal(result.stdout.indexOf('\n'), result.stdout.length - 1);
  const handshake = JSON.parse(result.stdout);
  return { ...result, handshake, pid: handshake.serverProcessId, port: handshake.port, control: handshake.token };
}

async function kill(agent, signal) {
  process.kill(agent.pid, signal);
  await until(() => agentsOf(agent.file).length === 0, 'end of an agent');
}

async function assertServes(agent, text = 'at your service') {
  const t = await Tunnel.open(agent, { command: ['echo', text] });
  await t.frame('exit');
  assert.equal(t.text, `${text}\r\n`);
  assert.equal((await t.upgrade).headers['ptycast-agent-instance'], agent.handshake.instance);
  await t.leave();
}

test('the first starter becomes the agent; its pipes end at once, the agent holds none of them', async () => {
  const file = freshFile();
  const agent = await start(file);
  const { handshake, child, pid } = agent;
  const keys = ['instance', 'port', 'processId', 'proto', 'serverProcessId', 'token', 'version'];
  assert.deepEqual(Object.keys(handshake), keys);
  assert.notEqual(pid, child.pid);
  assert.equal(handshake.processId, pid);
  assert.deepEqual(agentsOf(file), [pid]);
  assert.equal(readFileSync(file, 'utf8'), agent.stdout);
  for (const name of [file, `${file}.lock`]) assert.equal(statSync(name).mode & 0o777, 0o600);
  for (const fd of ['0', '1', '2']) assert.equal(readlinkSync(`/proc/${pid}/fd/${fd}`), '/dev/null');
  const links = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
  assert.deepEqual(links.filter((link) => /^pipe:/.test(link) || link === `${file}.lock`), []);
  assert.equal(links.filter((link) => /^socket:/.test(link)).length, 1, String(links));
  const [, , session] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ').slice(1);
  assert.equal(Number(session), pid);
  await assertServes(agent);
});

test('later starters find it, whatever they ask for, and its shells', async () => {
  const file = freshFile();
  const first = await start(file);
  const t = await Tunnel.open(first, { id: 'mine', command: ['cat'] });
  const second = await start(file, ['--port=1', '--token=other']);
  assert.equal(second.stdout, first.stdout);
  const other = await Tunnel.connect(second);
  await other.attach({ id: 'mine' });
  assert.equal((await within(t.closed, 'close')).code, 4409);
  assert.deepEqual(agentsOf(file), [first.pid]);
});

test('--debug, a name without a directory and descriptors that are closed are no hindrance', async () => {
  const file = freshFile();
  const script = `cd "$1" && exec "$0" --mode=agent --listen=127.0.0.1 --debug --registration=agent.json 2>&1 <&-`;
  const ran = spawnSync('sh', ['-c', script, AGENT, join(file, '..')], { encoding: 'utf8', timeout: 60_000 });
  assert.equal(ran.status, 0, ran.stdout);
  const again = await start(join(file, '..', 'agent.json'));
  assert.equal(again.stdout, ran.stdout);
  process.kill(again.pid, 'SIGKILL');
});

test('twenty starters at once make one agent, and all print its line', async () => {
  for (let round = 0; round < 3; round++) {
    const file = freshFile();
    const all = await Promise.all(Array.from({ length: 20 }, () => start(file)));
    assert.equal(new Set(all.map((s) => s.stdout)).size, 1);
    assert.deepEqual(agentsOf(file), [all[0].pid]);
    await assertServes(all[0]);
    // Again over the line of one that was killed: nobody may print that.
    process.kill(all[0].pid, 'SIGKILL');
    const next = await Promise.all(Array.from({ length: 20 }, () => start(file)));
    const lines = new Set(next.map((s) => s.stdout));
    if (lines.size === 2) lines.delete(all[0].stdout); // who looked before it was dead
    assert.equal(lines.size, 1);
    const pids = await until(() => agentsOf(file).length === 1 && agentsOf(file), 'one agent');
    assert.deepEqual(pids, [JSON.parse([...lines][0]).serverProcessId]);
  }
});

test('after kill -9 the next starter becomes the agent, with another instance', async () => {
  const file = freshFile();
  const first = { ...(await start(file)), file };
  await kill(first, 'SIGKILL');
  assert.equal(readFileSync(file, 'utf8'), first.stdout);
  const starters = await Promise.all(Array.from({ length: 20 }, () => start(file)));
  for (const s of starters) {
    assert.equal(s.stdout, starters[0].stdout);
    assert.notEqual(s.handshake.instance, first.handshake.instance);
    assert.notEqual(s.handshake.token, first.handshake.token);
  }
  await assertServes(starters[0]);
});

test('an agent that ends is waited for, and replaced', async () => {
  const file = freshFile();
  const first = { ...(await start(file)), file };
  const t = await Tunnel.open(first, { command: ['sh', '-c', 'trap "" HUP; echo set; while :; do sleep 1; done'] });
  await t.sees('set');
  process.kill(first.pid, 'SIGTERM'); // takes 2 s, until its shell is killed
  await until(() => readFileSync(file, 'utf8') === '', 'withdrawal of the line');
  assert.ok(isRunning(first.pid));
  const second = await start(file);
  assert.notEqual(second.handshake.instance, first.handshake.instance);
  assert.deepEqual(agentsOf(file), [second.pid]);
  assert.equal((await within(t.closed, 'close')).code, 1001);
  await assertServes(second);
});

test('at its end the agent leaves an empty file', async () => {
  const idle = freshFile();
  await start(idle, ['--idle-exit=100ms']);
  const told = { ...(await start(freshFile())) };
  told.file = told.child.spawnargs.find((a) => a.startsWith('--registration=')).slice(15);
  await kill(told, 'SIGTERM');
  const last = freshFile();
  // Not as soon as its last shell is forgotten: the next one may come.
  const handshake = await start(last, ['--idle-exit=500ms']);
  for (let i = 0; i < 2; i++) {
    const t = await Tunnel.open(handshake, { command: ['true'] });
    await t.frame('exit');
    t.send(encode.forget());
    await t.leave();
  }
  for (const file of [idle, told.file, last]) {
    await until(() => agentsOf(file).length === 0, 'end of the agent');
    assert.equal(readFileSync(file, 'utf8'), '');
  }
  await assertServes(await start(idle));
});

test('starters that are killed halfway leave nothing that is in the way', async () => {
  const file = freshFile();
  for (let round = 0; round < 10; round++) {
    const all = Array.from({ length: 4 }, () => starter(file));
    for (const [i, s] of all.entries()) setTimeout(() => s.child.kill('SIGKILL'), round + i);
    await Promise.all(all.map((s) => s.done));
    const agent = await start(file);
    await assertServes(agent);
    assert.deepEqual(agentsOf(file), [agent.pid]);
    if (round % 2) process.kill(agent.pid, 'SIGKILL');
  }
});

test('whatever stands in the file is no hindrance', async () => {
  const line = `{"instance":"0","port":1,"processId":1,"proto":2,"serverProcessId":1,"token":"x","version":"0"}\n`;
  for (const garbage of ['', '\n', 'garbage', '{', '{}\n', line, line.trim(), 'x'.repeat(100_000), '\0'.repeat(5000)]) {
    const file = freshFile();
    writeFileSync(file, garbage, { mode: 0o600 });
    const agent = await start(file);
    assert.equal(readFileSync(file, 'utf8'), agent.stdout);
    assert.equal((await start(file)).stdout, agent.stdout);
    process.kill(agent.pid, 'SIGKILL');
  }
});

test('a living agent whose line is gone is not doubled: the starter gives up in bounded time', { timeout: 60_000 }, async () => {
  const file = freshFile();
  const agent = await start(file);
  writeFileSync(file, 'garbage');
  const before = Date.now();
  const result = await starter(file).done;
  assert.deepEqual([result.code, result.stdout], [1, '']);
  assert.match(result.stderr, /does not come up, or does not end/);
  assert.ok(Date.now() - before >= 9_000);
  assert.deepEqual(agentsOf(file), [agent.pid]);
  writeFileSync(file, agent.stdout);
  assert.equal((await start(file)).stdout, agent.stdout);
});

test('files and directories that are not ours alone are refused', async () => {
  const refused = async (prepare, pattern = /must be ours, not open to others and no links/) => {
    const file = freshFile();
    const path = prepare(file, join(file, '..')) ?? file;
    const result = await starter(path).done;
    assert.deepEqual([result.code, result.stdout], [1, ''], String(prepare));
    assert.match(result.stderr, pattern, String(prepare));
    assert.deepEqual(agentsOf(path), []);
  };
  for (const mode of [0o777, 0o770, 0o720, 0o702, 0o1777]) await refused((file, dir) => chmodSync(dir, mode));
  await refused((file, dir) => {
    symlinkSync(dir, `${dir}-link`);
    return join(`${dir}-link`, 'agent.json');
  });
  for (const suffix of ['', '.lock']) {
    await refused((file) => {
      writeFileSync(`${file}-real`, '', { mode: 0o600 });
      symlinkSync(`${file}-real`, file + suffix);
    });
    await refused((file) => symlinkSync('/no/such/file', file + suffix));
    await refused((file) => writeFileSync(file + suffix, '', { mode: 0o644 }));
    await refused((file) => mkdirSync(file + suffix));
    await refused((file) => spawnSync('mkfifo', ['-m', '600', file + suffix]) && undefined);
    if (process.getuid() === 0)
      await refused((file) => {
        writeFileSync(file + suffix, '', { mode: 0o600 });
        chownSync(file + suffix, 1, 1);
      });
  }
  if (process.getuid() === 0) await refused((file, dir) => chownSync(dir, 1, 1));
  await refused((file) => {
    writeFileSync(file, '', { mode: 0o600 });
    return join(file, 'agent.json'); // a file for a directory
  });
  await refused((file, dir) => join(dir, 'none', 'agent.json'), /No such file or directory/);
  await refused((file, dir) => `${dir}/`, /Is a directory/);
  for (const mode of [0o755, 0o700]) {
    const file = freshFile();
    chmodSync(join(file, '..'), mode);
    process.kill((await start(file)).pid, 'SIGKILL');
  }
});

test('a failure says why on stderr alone, and lets go of the lock', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await within(new Promise((resolve) => server.on('listening', resolve)), 'listening');
  const file = freshFile();
  const all = await Promise.all(
    Array.from({ length: 5 }, () => starter(file, [`--port=${server.address().port}`]).done),
  );
  for (const result of all) {
    assert.deepEqual([result.code, result.stdout], [1, '']);
    assert.match(result.stderr, /^\{"level":"error","pid":\d+,"msg":"agent cannot listen: Address (already )?in use"\}\n$/);
  }
  server.close();
  await assertServes(await start(file));
});

const mounts = spawnSync('unshare', ['-m', 'true']).status === 0;
test('a full disk is told of', { skip: !mounts && 'mounts are not allowed here' }, async () => {
  const file = freshFile();
  // The names still find a place, the line does not.
  const script = `mount -t tmpfs -o size=8k,mode=700 none "$1" && cd / && : >"$2" && : >"$2.lock" &&
    chmod 600 "$2" "$2.lock" && { cat /dev/zero >"$1/fill" 2>&1; shift 2; exec "$@"; }`;
  const prefix = ['unshare', '-m', 'sh', '-c', script, 'sh', join(file, '..'), file];
  const result = await starter(file, [], { prefix }).done;
  assert.deepEqual([result.code, result.stdout], [1, ''], result.stderr);
  assert.match(result.stderr, /agent-0\.json: No space left on device/);
  await until(() => agentsOf(file).length === 0, 'end of the agent that could not say where it is');
});

test('only mode agent registers', () => {
  for (const mode of ['single', 'client', 'server']) {
    const file = freshFile();
    const args = [`--mode=${mode}`, '--listen=127.0.0.1', `--registration=${file}`, 'cat'];
    const result = spawnSync(AGENT, args, { encoding: 'utf8', timeout: 60_000 });
    assert.deepEqual([result.status, result.stdout], [2, '']);
    assert.match(result.stderr, /^flag -registration is for mode agent\nusage: /);
    assert.ok(!existsSync(file));
  }
});

test('the token of the first starter is in the file and the line, and nowhere else', async () => {
  const file = freshFile();
  const secret = `secret-${randomId()}`;
  const agent = await start(file, [`--token=${secret}`]);
  assert.equal(agent.control, secret);
  for (const name of ['cmdline', 'environ']) assert.ok(!readFileSync(`/proc/${agent.pid}/${name}`, 'utf8').includes(secret));
  await assertServes(agent);
});
