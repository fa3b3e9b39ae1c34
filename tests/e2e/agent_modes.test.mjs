// agent_modes.test.mjs -- ptycast-agent as a program: flags, statuses, handshake, secrets, and several
// shells in one agent by --mode=client.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Legacy } from './lib/agent_legacy.mjs';
import { AGENT, Agent, ERR, Tunnel, encode, randomId } from './lib/agent_v2.mjs';
import { until, within } from './lib/wait.mjs';

let base;
before(() => {
  base = mkdtempSync(join(tmpdir(), 'ptycast-agent-'));
});
after(() => {
  for (const pid of background) {
    try {
      process.kill(pid, 'SIGTERM');
    } catch {
      /* ended already */
    }
  }
  rmSync(base, { recursive: true, force: true });
});

const background = new Set();
let directories = 0;
const freshConfig = () => join(base, `d${++directories}`, 'config.json');

/** A runner of --mode=client, with the agent of its config. */
async function client(config, command, args = [], options = {}) {
  const flags = ['--mode=client', '--listen=127.0.0.1', `--config=${config}`];
  const runner = new Agent([AGENT, ...flags, ...args, ...command], options.env);
  await runner.handshakes();
  background.add(runner.handshake.serverProcessId);
  return runner;
}

/** A file of /proc; empty when its process has just ended. */
function readOr(path) {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

/** Runs the agent to its end. */
const run = (args, options = {}) => spawnSync(AGENT, args, { encoding: 'utf8', timeout: 60_000, ...options });

test('exit statuses and outputs of the original', async () => {
  const handshake = /^\{"control":.*"token":"[^"]+","version":"[^"]+"\}\n$/;
  const config = `--config=${freshConfig()}`;
  const cases = [
    [['--help'], 0, /^usage: /, /^$/],
    [['-h'], 0, /^usage: /, /^$/],
    [['--version'], 0, /^ptycast-agent \S+\n$/, /^$/],
    [['-version'], 0, /^ptycast-agent \S+\n$/, /^$/],
    [['--mode=other', 'sh'], 1, /^usage: /, /^$/],
    [['--mode', 'other', 'sh'], 1, /^usage: /, /^$/],
    [['--no-such-flag'], 2, /^$/, /not defined: -no-such-flag\nusage: /],
    [['--inactivity-deadline=soon', 'sh'], 2, /^$/, /invalid value for flag -inactivity-deadline\n/],
    [['--cols=0', 'sh'], 2, /^$/, /invalid value for flag -cols/],
    [['--rows=1001', 'sh'], 2, /^$/, /invalid value for flag -rows/],
    [['--port=65536', 'sh'], 2, /^$/, /invalid value for flag -port/],
    [['--port'], 2, /^$/, /needs an argument: -port/],
    [['--ring-bytes=1', 'sh'], 2, /^$/, /ring-bytes/],
    [['--listen=localhost', 'sh'], 1, /^$/, /cannot listen/],
  ];
  for (const mode of [['--mode=single'], ['-mode', 'client', config]]) {
    const quick = ['--listen=127.0.0.1', '--inactivity-deadline=200ms'];
    cases.push(
      [[...mode, ...quick, 'no-such-program'], 1, handshake, /no-such-program: executable file not found in \$PATH/],
      [[...mode, ...quick, '/no/such/program'], 1, handshake, /\/no\/such\/program: No such file or directory/],
      [[...mode, ...quick], 1, handshake, /no command specified/],
      [[...mode, ...quick, '--', 'cat', '--help'], 1, handshake, /inactivity timeout waiting for remote connection/],
      [[...mode, ...quick, '--cwd=/no/such/directory', 'cat'], 1, handshake, /working directory: No such file/],
    );
  }
  for (const [args, status, stdout, stderr] of cases) {
    const result = run(args);
    assert.equal(result.status, status, `${args}: ${result.stdout}${result.stderr}`);
    assert.match(result.stdout, stdout, String(args));
    assert.match(result.stderr, stderr, String(args));
    if (result.stdout.startsWith('{')) background.add(JSON.parse(result.stdout).serverProcessId);
  }
});

test('the status of the shell is not that of the agent', async () => {
  for (const make of [
    (command) => Agent.start(command, { mode: 'single' }),
    (command) => client(freshConfig(), command),
  ]) {
    const agent = await make(['sh', '-c', 'exit 7']);
    const c = await Legacy.connect(agent.handshake, { ready: true });
    assert.equal((await within(c.closed, 'close')).reason, 'exited 7');
    assert.deepEqual(await within(agent.closed, 'end'), { code: 0, signal: null });
    assert.equal(agent.stderr, '');
    assert.equal(agent.stdout.indexOf('\n'), agent.stdout.length - 1);
  }
});

test('a port that is taken ends the agent with a message', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await within(new Promise((resolve) => server.on('listening', resolve)), 'listening');
  const port = `--port=${server.address().port}`;
  for (const mode of ['single', 'agent', 'server', 'client']) {
    const result = run([`--mode=${mode}`, '--listen=127.0.0.1', port, `--config=${freshConfig()}`, 'cat']);
    assert.equal(result.status, 1, mode);
    assert.equal(result.stdout, '', mode);
    assert.match(result.stderr, /cannot listen: Address (already )?in use/, mode);
  }
  server.close();
});

test('the handshake line of the old modes has the four keys of the original, and ours', async () => {
  for (const agent of [await Agent.start(['cat'], { mode: 'single' }), await client(freshConfig(), ['cat'])]) {
    const { handshake } = agent;
    const keys = ['control', 'instance', 'port', 'processId', 'proto', 'serverProcessId', 'shell', 'token', 'version'];
    assert.deepEqual(Object.keys(handshake), keys);
    for (const key of ['port', 'processId', 'serverProcessId', 'proto']) assert.equal(typeof handshake[key], 'number');
    assert.ok(Number.isSafeInteger(handshake.processId));
    assert.notEqual(handshake.token, handshake.control);
    assert.ok(handshake.port >= 8000 && handshake.port <= 9000);
    await agent.stop();
  }
});

test('the token comes from a file or the environment and is seen nowhere', async () => {
  const secret = `se+cr/et&<">\\=${randomId()}`;
  const file = join(base, 'token');
  writeFileSync(file, `${secret}\n`);
  const config = freshConfig();
  const ways = [
    [['--mode=single', `--token=${secret}`], {}],
    [['--mode=single', '-token', secret], {}],
    [['--mode=single', `--token-file=${file}`], {}],
    [['--mode=single'], { PTYCAST_AGENT_TOKEN: secret }],
    [['--mode=agent', `--token=${secret}`], {}],
    [['--mode=agent'], { PTYCAST_AGENT_TOKEN: secret }],
    [['--mode=client', `--config=${config}`, `--token=${secret}`], {}],
    [['--mode=client', `--config=${config}`], { PTYCAST_AGENT_TOKEN: secret }],
  ];
  for (const [args, env] of ways) {
    const mode = args[0];
    const agent = new Agent([AGENT, ...args, '--debug', '--listen=127.0.0.1', ...(mode === '--mode=agent' ? [] : ['sh'])], env);
    await agent.handshakes();
    assert.equal(agent.handshake.token, secret, String(args));
    if (mode === '--mode=client') background.add(agent.handshake.serverProcessId);
    let shell;
    if (mode === '--mode=agent') {
      shell = await Tunnel.open(agent, { command: ['sh'] });
    } else {
      shell = await Legacy.connect(agent.handshake, { ready: true });
      const wrong = await fetch(`http://127.0.0.1:${agent.port}/ws/client?processId=1&token=wrong-${secret.slice(3)}`);
      assert.equal(wrong.status, 401);
    }
    shell.type ? shell.type('env; echo done $((6*7))\r') : await shell.input('env; echo done $((6*7))\r');
    await shell.sees('done 42');
    assert.ok(!shell.text.includes(secret));
    const pids = new Set([agent.child.pid, agent.handshake.serverProcessId]);
    for (const pid of [...pids]) {
      const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
      for (const child of children ? children.split(' ') : []) pids.add(Number(child));
    }
    assert.ok(pids.size >= 2);
    for (const pid of pids) {
      const all = readOr(`/proc/${pid}/cmdline`) + readOr(`/proc/${pid}/environ`);
      assert.ok(!all.includes(secret), `${args}: in cmdline or environ of ${pid}`);
    }
    await agent.stop();
    assert.ok(!agent.stderr.includes(secret), agent.stderr);
    assert.ok(!agent.stderr.includes(agent.handshake.control), agent.stderr);
    assert.ok(agent.stderr !== '' || mode === '--mode=client');
    for (const line of agent.stderr.trim().split('\n').filter(Boolean)) JSON.parse(line);
  }
});

test('--env, --cwd, --cols and --rows reach the command, in both modes', async () => {
  const flags = ['--env', 'ONE=1 1', '-env=TWO=2=2', '--cwd=/usr', '--cols', '101', '-rows=31'];
  const command = ['sh', '-c', 'echo "$ONE|$TWO|$PWD|$(stty size)|$TERM|$OUTER"'];
  const env = { TERM: '', OUTER: 'outer', ONE: 'not this' };
  for (const agent of [
    await Agent.start([...flags, ...command], { mode: 'single', env }),
    await client(freshConfig(), command, flags, { env }),
  ]) {
    const c = await Legacy.connect(agent.handshake, { ready: true });
    await within(c.closed, 'close');
    assert.equal(c.text, '1 1|2=2|/usr|31 101|xterm-256color|outer\r\n');
  }
});

test('a second --mode=client gets its shell in the agent that runs', async () => {
  const config = freshConfig();
  const one = await client(config, ['sh'], ['--linger=1s'], { env: { PS1: 'one$ ', MINE: 'first' } });
  const two = await client(config, ['sh'], ['--port=1', '--token=mine'], { env: { PS1: 'two$ ', MINE: 'second' } });
  const [a, b] = [one.handshake, two.handshake];
  for (const key of ['port', 'serverProcessId', 'instance', 'control']) assert.equal(a[key], b[key], key);
  for (const key of ['processId', 'shell', 'token']) assert.notEqual(a[key], b[key], key);
  assert.equal(b.token, 'mine');
  const clients = [await Legacy.connect(a, { ready: true }), await Legacy.connect(b, { ready: true })];
  for (const c of clients) c.type('echo I am $MINE\r');
  await clients[0].sees('I am first');
  await clients[1].sees('I am second');
  assert.ok(!clients[0].text.includes('second'));

  const status = async (handshake) =>
    (await fetch(`http://127.0.0.1:${a.port}/ws/client?${new URLSearchParams(handshake)}`)).status;
  assert.equal(await status({ processId: a.processId, token: b.token }), 401); // of another shell
  assert.equal(await status({ processId: a.processId, token: a.token }), 400); // only not an upgrade
  assert.equal(await status({ processId: a.processId, token: a.control }), 400);

  clients[0].type('exit\r');
  assert.deepEqual(await within(one.closed, 'end of the first runner'), { code: 0, signal: null });
  clients[1].type('echo still $((6*7))\r');
  await clients[1].sees('still 42');
  assert.equal(await status({ processId: a.processId, token: a.token }), 404);
  clients[1].type('exit\r');
  assert.deepEqual(await within(two.closed, 'end of the second runner'), { code: 0, signal: null });
  await until(() => !existsSync(`/proc/${a.serverProcessId}`), 'end of the agent with its last shell');
  const three = await client(config, ['cat']); // beside a stale socket
  assert.notEqual(three.handshake.serverProcessId, a.serverProcessId);
  await three.stop();
});

test('runners that start together make one agent', async () => {
  const config = freshConfig();
  const runners = await Promise.all(Array.from({ length: 12 }, () => client(config, ['cat'])));
  assert.equal(new Set(runners.map((r) => r.handshake.serverProcessId)).size, 1);
  assert.equal(new Set(runners.map((r) => r.handshake.shell)).size, 12);
  await Promise.all(runners.map((r) => r.stop()));
});

test('a runner that is killed takes its shell with it, and no other', async () => {
  const config = freshConfig();
  const one = await client(config, ['cat']);
  const two = await client(config, ['cat']);
  const c = await Legacy.connect(one.handshake, { ready: true });
  const other = await Legacy.connect(two.handshake, { ready: true });
  one.child.kill('SIGKILL');
  assert.deepEqual(await within(c.closed, 'close'), { code: 1000, reason: 'signal 1' });
  other.type('still\r');
  await other.sees('still\r\nstill');
  await two.stop();
});

test('an agent that is killed ends its runners with status 1', async () => {
  const runner = await client(freshConfig(), ['cat']);
  process.kill(runner.handshake.serverProcessId, 'SIGKILL');
  assert.deepEqual(await within(runner.closed, 'end'), { code: 1, signal: null });
  assert.match(runner.stderr, /the agent ended/);
});

test('--mode=server waits for runners; its line is the original one', async () => {
  const config = freshConfig();
  const flags = ['--mode=server', '--listen=127.0.0.1', `--config=${config}`, '--token=ctl', '--idle-exit=100ms'];
  const server = new Agent([AGENT, ...flags]);
  await until(() => server.stdout.includes('\n'), 'line of the server');
  const [, port] = server.stdout.match(/^port=(\d+) token=ctl\n$/);
  const runner = await client(config, ['sh', '-c', 'exit 2']);
  assert.equal(runner.handshake.serverProcessId, server.child.pid);
  assert.equal(runner.handshake.port, Number(port));
  assert.equal(runner.handshake.control, 'ctl');
  assert.equal(run(['--mode=server', '--listen=127.0.0.1', `--config=${config}`]).status, 1);
  const c = await Legacy.connect(runner.handshake, { ready: true });
  await within(c.closed, 'close');
  await within(runner.closed, 'end of the runner');
  assert.equal(server.child.exitCode, null);
  assert.deepEqual(await server.stop(), { code: 0, signal: null });
});

test('the meeting place is ours alone: mode 0700, no link, no world-readable file', async () => {
  const config = freshConfig();
  const runner = await client(config, ['cat']);
  const parent = join(config, '..');
  const [name] = readdirSync(parent);
  assert.equal(name, `ptycast-${process.getuid()}`);
  assert.equal(statSync(join(parent, name)).mode & 0o777, 0o700);
  for (const file of readdirSync(join(parent, name))) {
    const { mode } = statSync(join(parent, name, file));
    if (file === 'lock') assert.equal(mode & 0o077, 0);
  }
  await runner.stop();

  const refused = (prepare) => {
    const place = freshConfig();
    const directory = join(place, '..');
    mkdirSync(directory);
    prepare(join(directory, name));
    const result = run(['--mode=client', '--listen=127.0.0.1', `--config=${place}`, 'cat']);
    assert.equal(result.status, 1);
    assert.equal(result.stdout, '');
    assert.match(result.stderr, /must be ours, of mode 0700 and no link/);
  };
  refused((path) => {
    mkdirSync(path);
    chmodSync(path, 0o755);
  });
  refused((path) => {
    mkdirSync(`${path}-real`, { mode: 0o700 });
    symlinkSync(`${path}-real`, path);
  });
  refused((path) => writeFileSync(path, ''));
});

test('a directory with a long name serves as well', async () => {
  const config = join(base, 'x'.repeat(150), 'config.json');
  const runner = await client(config, ['cat']);
  await runner.stop();
});

const unshare = spawnSync('unshare', ['-m', 'sh', '-c', 'mount --bind /dev/null /dev/ptmx']).status === 0;
test('a machine without PTYs is told of, in all modes', { skip: !unshare && 'mounts are not allowed here' }, async () => {
  const prefix = ['unshare', '-m', 'sh', '-c', 'mount --bind /dev/null /dev/ptmx; exec "$@"', 'sh'];
  for (const mode of ['single', 'client']) {
    const flags = [`--mode=${mode}`, '--listen=127.0.0.1', `--config=${freshConfig()}`, '--idle-exit=100ms'];
    const [program, ...rest] = [...prefix, AGENT, ...flags, 'cat'];
    const result = spawnSync(program, rest, { encoding: 'utf8', timeout: 60_000 });
    assert.equal(result.status, 1);
    assert.equal(result.stdout, '');
    assert.match(result.stderr, /this machine gives no PTY: /);
  }
  const agent = await Agent.start([], { prefix });
  const t = await Tunnel.connect(agent);
  t.send(encode.open({ id: 'x', command: ['cat'] }));
  const error = await t.frame('error');
  assert.equal(error.code, ERR.NO_PTY);
  assert.match(error.text, /no PTY/);
  await agent.stop();
});

test('without descriptors 0 to 2 the agent works as well', async () => {
  const line = join(base, 'handshake');
  const script = '"$0" --mode=client --config="$1" --listen=127.0.0.1 --inactivity-deadline=200ms cat >"$2" <&- 2>&-';
  const result = spawnSync('sh', ['-c', script, AGENT, freshConfig(), line]);
  assert.equal(result.status, 1);
  const handshake = JSON.parse(readFileSync(line, 'utf8'));
  background.add(handshake.serverProcessId);
  assert.equal(typeof handshake.port, 'number');
});
