// runloop_errors.test.mjs -- what goes wrong with Runloop, and what its user is told: answers of the API, devboxes that
// cannot run the agent, and openings that are given up.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { World, arm64Agent } from './lib/runloop.mjs';
import { isSanitized, test } from './lib/service.mjs';
import { DEADLINE_MS, until } from './lib/wait.mjs';

const SLOW = isSanitized ? 3 : 1;
const SOON_MS = DEADLINE_MS / 3; // for what must not take a time-out
const AT_ONCE_MS = 1000 * SLOW;
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

let world, client; // of a service that has time
let hasty; // a client of one that has not
// For an opening: tries begin 1, 3, 7 s after the first one at the latest, a quarter less at the soonest.
const HASTY_MS = isSanitized ? 5000 : 2000;

before(async () => {
  world = await World.start({ args: ['--max-sessions-per-subject', '1000', '--provisioner-threads', '16'] });
  client = world.client;
  const timeouts = ['--provision-timeout-ms', String(HASTY_MS), '--open-timeout-ms', String(2 * HASTY_MS)];
  hasty = world.clientOf(await world.serve({ args: [...timeouts, '--provisioner-threads', '32'] }));
});
after(() => world?.stop());

const steps = (session) => session.steps.map(({ step }) => step);
const requestIds = (box, name) => world.calls(box).filter((call) => call.name === name).map((call) => call.requestId);

// An opening that fails: the problem, and the session that says the same.
async function fails(box, status, slug, text, { at = client, ...parameters } = {}) {
  const answer = (await world.post(box, parameters, { client: at })).isProblem(status, slug);
  assert.match(answer.json.detail, text);
  const session = await world.info(answer.json.session, at);
  assert.equal(session.state, 'ended');
  const { reason, error, exit_code, signal } = session.ended;
  assert.deepEqual({ reason, error, exit_code, signal }, { reason: 'failed', error: slug, exit_code: null, signal: null });
  assert.match(session.ended.text, text);
  // A viewer is told as well.
  const { events } = await (await world.view(session.id, { client: at })).rest();
  assert.deepEqual(events.map((e) => e.event), ['state', 'exit']);
  assert.equal(events[0].data.error, slug);
  assert.equal(events[1].data.reason, 'failed');
  return session;
}

// --- what the API says ---

test('a key that is wrong, a devbox that is unknown, ids that are none', async () => {
  const box = world.box();
  await fails(box, 409, 'credential-refused', /401: invalid API key/, { sandbox: { credential: 'ak_wrong' } });
  await fails({ id: 'dbx_unknown' }, 409, 'sandbox-unknown', /404: devbox not found/);
  world.misbehave(box, { status: 403, times: 2, body: { message: 'not yours' } });
  await fails(box, 409, 'credential-refused', /403: not yours/);
  assert.deepEqual(box.processes(), []);
  for (const external_id of ['a/../b', '..', 'a?b', 'a b', 'a%2fb', '../evictions/watch', 'x'.repeat(257)]) {
    const before = world.fake.count();
    const answer = await world.post({ id: external_id });
    assert.ok([400, 409].includes(answer.status), answer.text);
    assert.equal(world.fake.count(), before, 'nobody is asked about such an id');
  }
});

test('an API that cannot be reached is told in bounded time', async () => {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  const service = await world.serve({
    args: ['--provision-timeout-ms', String(HASTY_MS)],
    env: { RUNLOOP_BASE_URL: `http://127.0.0.1:${port}` },
  });
  const start = Date.now();
  const session = await fails(world.box(), 502, 'provider-unreachable', /retrieve failed: .*connect/i, {
    at: world.clientOf(service),
  });
  assert.ok(Date.now() - start < HASTY_MS + AT_ONCE_MS);
  assert.doesNotMatch(session.ended.text, /127\.0\.0\.1/);
});

test('an API that never answers is given up when the time is over', async () => {
  const box = world.box();
  world.misbehave(box, { never: true, times: Infinity });
  const start = Date.now();
  await fails(box, 504, 'start-timeout', /time|not within/, { at: hasty });
  const took = Date.now() - start;
  assert.ok(took >= HASTY_MS - 50 && took < HASTY_MS + AT_ONCE_MS, `${took} ms`);
});

// Each kind of answer, on the devbox's view and on the script, until the end.
const lasting = [
  [{ status: 500 }, 502, 'provider-error', /500: status 500 on demand/],
  [{ status: 503, bodyKind: 'message' }, 502, 'provider-error', /503: it is broken/],
  [{ status: 502, bodyKind: 'html' }, 502, 'provider-error', /502: .*502 Bad Gateway/],
  [{ status: 500, bodyKind: 'text' }, 502, 'provider-error', /500: it is broken/],
  [{ status: 500, bodyKind: 'empty' }, 502, 'provider-error', /500: .*no body/],
  [{ status: 400, bodyKind: 'odd-message' }, 502, 'provider-error', /400: \{"code":17,"detail":"it is broken"\}/],
  [{ status: 422, bodyKind: 'json' }, 502, 'provider-error', /422: \{"code":17,"detail":"it is broken"\}/],
  [{ status: 429 }, 503, 'provider-rate-limit', /429: status 429 on demand/],
  [{ status: 408 }, 502, 'provider-error', /408/],
  [{ status: 409 }, 502, 'provider-error', /409/],
  [{ status: 200, body: 'no JSON at all' }, 502, 'provider-error', /no JSON/],
  [{ status: 200, body: '{"id":"dbx", "sta' }, 502, 'provider-error', /no JSON/],
  [{ status: 200, body: '[1]' }, 502, 'provider-error', /no JSON object/],
  [{ status: 200, body: 'null' }, 502, 'provider-error', /no JSON object/],
  [{ status: 200, body: '{}' }, 502, 'provider-error', /not understood/],
  [{ status: 200, body: { id: 'x', status: 17 } }, 502, 'provider-error', /not understood/],
  [{ status: 200, body: '' }, 502, 'provider-error', /no JSON/],
  [{ status: 204 }, 502, 'provider-error', /no JSON/],
  [{ status: 302, headers: { location: 'http://127.0.0.1:1/' } }, 502, 'provider-error', /302/],
  [{ cut: 'before' }, 502, 'provider-unreachable', /retrieve failed/],
  [{ cut: 'body' }, 502, 'provider-unreachable', /retrieve failed: .*broke off/],
];
test('answers of the API that do not get better are told as they are', async () => {
  const boxes = await Promise.all(
    lasting.map(async ([rule, status, slug, text]) => {
      const box = world.box();
      world.misbehave(box, { on: 'retrieve', ...rule, times: Infinity });
      try {
        await fails(box, status, slug, text, { at: hasty });
      } catch (error) {
        throw new Error(`${JSON.stringify(rule)}: ${error.message}`);
      }
      return box;
    }),
  );
  for (const box of boxes) await world.isClean(box); // looking for processes takes its time
});

test('what the API says of itself is told without what could do harm, and without the key', async () => {
  const box = world.box();
  const body = { message: `\u001b[31mred\u0007 ${'long '.repeat(500)} ${world.fake.key}\n<script>` };
  world.misbehave(box, { on: 'retrieve', status: 400, body, times: Infinity });
  const { ended } = await fails(box, 502, 'provider-error', /400: .*red/, { at: hasty });
  assert.doesNotMatch(ended.text, /[\x00-\x1f\x7f]/);
  assert.ok(ended.text.length < 250);
  const early = world.box();
  world.misbehave(early, { on: 'retrieve', status: 400, body: { message: `key ${world.fake.key} is bad` }, times: Infinity });
  const session = await fails(early, 502, 'provider-error', /400: key .* is bad/, { at: hasty });
  assert.ok(!session.ended.text.includes(world.fake.key));
});

test('goes on behind troubles that pass: limits, locks, gateways, cut answers, slow ones', async () => {
  const quick = { 'retry-after-ms': '30' };
  await Promise.all(
    [
      { status: 429, headers: { 'Retry-After': '0.3' } },
      { status: 429, headers: quick, times: 3 },
      { status: 408, headers: quick, times: 2 },
      { status: 409, headers: quick, times: 2 },
      { status: 500, headers: quick, times: 2 },
      { status: 503, headers: quick, times: 2, bodyKind: 'html' },
      { status: 400, headers: { ...quick, 'x-should-retry': 'true' } },
      { cut: 'before' },
      { cut: 'answer' },
      { cut: 'body' },
      { delayMs: 300, times: Infinity },
    ].flatMap((rule) =>
      ['retrieve', 'execute', 'upload', 'enable_tunnel'].map(async (on) => {
        const box = world.box({ tunnel: null });
        const made = world.misbehave(box, { on, ...rule });
        const what = `${on} ${JSON.stringify(rule)}`;
        const session = await world.open(box).catch((error) => assert.fail(`${what}: ${error.message}`));
        assert.ok(made.hits >= (rule.times === Infinity ? 1 : (rule.times ?? 1)), what);
        assert.equal(world.agents(box).length, 1, what);
        if (rule.headers?.['Retry-After']) {
          const [first, second] = world.calls(box).filter((call) => call.name === on);
          assert.ok(second.t - first.t >= 295, `${what}: ${second.t - first.t} ms`);
        }
        // A call that is tried again is the same call; but after a lock it is first looked who had it.
        const looksAgain = on === 'enable_tunnel' && rule.status === 409;
        if (on !== 'retrieve' && !looksAgain && rule.delayMs === undefined) {
          const ids = requestIds(box, on).slice(0, made.hits + 1);
          assert.equal(new Set(ids).size, 1, `${what}: ${ids}`);
          assert.match(ids[0], /^\S{10,}$/);
        }
        if (on === 'execute' && rule.delayMs === undefined) {
          const starts = world.calls(box).filter((call) => call.name === on);
          assert.equal(starts[0].body.command_id, starts[1].body.command_id, `${what}: a repeat is one command`);
        }
        (await client.delete(`/sessions/${session.id}`)).is(204);
      }),
    ),
  );
});

test('obeys an API that forbids another try', async () => {
  const box = world.box();
  world.misbehave(box, { on: 'retrieve', status: 503, headers: { 'x-should-retry': 'false' }, times: Infinity });
  await fails(box, 502, 'provider-error', /503/);
  assert.equal(world.count(box, 'retrieve'), 1);
});

test('waits no longer than it may when the API wants it to', async () => {
  const box = world.box();
  world.misbehave(box, { on: 'retrieve', status: 429, headers: { 'Retry-After': '3600' }, times: Infinity });
  const start = Date.now();
  await fails(box, 503, 'provider-rate-limit', /429/, { at: hasty });
  assert.ok(Date.now() - start < HASTY_MS + AT_ONCE_MS);
});

// --- commands and uploads ---

test('a command that takes its time is waited for', async () => {
  const box = world.box();
  const gate = join(box.dir, 'gate');
  // The start script asks for the machine first of all.
  box.addProgram('uname', `#!/bin/sh\nwhile [ ! -e '${gate}' ]; do sleep 0.02; done\nexec /usr/bin/uname "$@"\n`);
  const rule = world.misbehave(box, {
    on: 'execute',
    effect: ({ body }) => {
      rule.body = box.execute({ command: body.command, commandId: body.command_id }).view();
    },
  });
  const { id } = await world.begin(box);
  await until(() => world.count(box, 'execution_wait') >= 3, 'three polls');
  assert.equal(rule.body.status, 'running');
  assert.equal((await world.info(id)).state, 'provisioning');
  writeFileSync(gate, '');
  const session = await world.reached(id, 'open');
  assert.deepEqual(steps(session), ['devbox', 'install', 'start', 'connect']);
});

test('an upload that fails is told as such, and leaves nothing behind', async () => {
  const boxes = await Promise.all(
    [
      [{ status: 400, body: { message: 'disk is full' } }, 502, 'agent-install', /disk is full/],
      [{ status: 500, times: Infinity, bodyKind: 'text' }, 502, 'agent-install', /it is broken/],
      [{ status: 413, bodyKind: 'html' }, 502, 'agent-install', /413/],
      [{ status: 401, bodyKind: 'message' }, 409, 'credential-refused', /401/],
      [{ status: 429, times: Infinity }, 503, 'provider-rate-limit', /429/],
      [{ cut: 'before', times: Infinity }, 502, 'provider-unreachable', /upload/],
      [{ cut: 'answer', times: Infinity }, 502, 'provider-unreachable', /upload/], // it was written
    ].map(async ([rule, status, slug, text]) => {
      const box = world.box();
      world.misbehave(box, { on: 'upload', ...rule });
      await fails(box, status, slug, text, { at: hasty }).catch((error) =>
        assert.fail(`${JSON.stringify(rule)}: ${error.message}`),
      );
      return box;
    }),
  );
  for (const box of boxes) await world.isClean(box);
});

test('an upload that arrives damaged is not run', async () => {
  const box = world.box();
  const rule = world.misbehave(box, {
    on: 'execute',
    skip: 1,
    effect: () => writeFileSync(box.uploads[0].file, '#!/bin/sh\ntouch "$HOME/was-run"\n'),
  });
  await fails(box, 502, 'agent-install', /checksum/);
  assert.equal(rule.hits, 1);
  assert.ok(!existsSync(join(box.home, 'was-run')));
  await world.isClean(box);
});

test('an agent that was damaged on the disk is installed anew', async () => {
  const box = world.box();
  const { id } = await world.open(box);
  (await client.delete(`/sessions/${id}`)).is(204);
  await world.ended(id);
  await box.killProcesses();
  const dir = join(box.home, '.ptycast');
  const [name] = readdirSync(dir).filter((one) => /^ptycast-agent-[0-9a-f]+$/.test(one));
  chmodSync(join(dir, name), 0o755);
  writeFileSync(join(dir, name), 'damaged');
  await world.open(box);
  assert.equal(world.count(box, 'upload'), 2);
});

test('scripts that say nothing that is understood, or that cannot run', async () => {
  const done = { devbox_id: 'x', execution_id: 'y', status: 'completed', exit_status: 0, stdout: '', stderr: '' };
  await Promise.all(
    [
      [{ ...done, stdout: 'hello\n' }, /cannot be started/],
      [{ ...done, exit_status: 127, stderr: 'sh: not found\n' }, /sh: not found/],
      [{ ...done, exit_status: 1, stderr: '\u001b[1mOut of\u0007 space\n' }, /Out of ?.? ?space/],
      [{ ...done, stdout: '{"port":0,"token":""}\n' }, /./],
    ].map(async ([body, text]) => {
      const box = world.box();
      world.misbehave(box, { on: 'execute', body, times: Infinity });
      const { ended } = await fails(box, 502, 'agent-start', text);
      assert.doesNotMatch(ended.text, /[\x00-\x1f\x7f]/);
    }),
  );
});

// A devbox whose commands see directories of its own in place of those of this machine that the agent may go to, and
// its home directory after the shell text mounts.
const canMount = spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt']).status === 0;
const noMount = { skip: !canMount && 'mounting is not allowed' };
function mounted(mounts, options = {}) {
  const box = world.box(options);
  const scratch = join(box.dir, 'scratch');
  const kept = [box.dir, ...box.env.PATH.split(':')].filter((dir) => dir.startsWith('/tmp/'));
  for (const dir of ['/tmp', ...kept]) mkdirSync(scratch + dir, { recursive: true });
  box.shell = join(box.dir, 'shell');
  writeFileSync(
    box.shell,
    `#!/bin/sh
exec unshare -m /bin/sh -e -c '
home=${box.home}
${kept.map((dir) => `mount --bind ${dir} ${scratch}${dir}`).join('\n')}
chmod 1777 ${scratch}/tmp
mount --rbind ${scratch}/tmp /tmp
for dir in /var/tmp /dev/shm /usr/local/lib; do mount -t tmpfs -o mode=1777 tmpfs $dir; done
chmod 755 /usr/local/lib
${mounts}
cd "$home"
exec /bin/sh -c "$1"' sh "$2"
`,
  );
  chmodSync(box.shell, 0o755);
  return box;
}
const remountHome = (how) => `mount --bind "$home" "$home"; mount -o remount,bind,${how} "$home"\n`;

// --- machines ---

const noArm64 = arm64Agent ? noMount : { skip: 'there is no agent for it' };
test('an agent for arm64 goes to a devbox of arm64', noArm64, async () => {
  const box = mounted('', { arch: 'arm64' });
  const answer = await world.post(box);
  assert.equal(box.uploads[0]?.sha256, sha256(readFileSync(arm64Agent)));
  if (answer.status === 201) return; // this machine can run it
  answer.is(502);
  assert.match(answer.json.type, /agent-(install|start)$/);
  assert.match(answer.json.detail, /[Ee]xec format|cannot execute/);
  await world.isClean(box);
});

test('a machine that there is no agent for gets the native terminal, unless the agent is insisted on', async () => {
  const strange = () => {
    const box = world.box();
    box.addProgram('uname', '#!/bin/sh\necho riscv64\n');
    return box;
  };
  const box = strange();
  await fails(box, 502, 'agent-install', /no agent for this machine: riscv64/);
  assert.equal(world.count(box, 'upload'), 0);
  const other = strange();
  const session = await world.open(other, { sandbox: { transport: 'auto' }, command: undefined });
  assert.ok(steps(session).includes('pty-tunnel'), `${steps(session)}`);
  // A command cannot be had that way, and silence about it would be wrong.
  await fails(strange(), 502, 'agent-install', /riscv64/, { sandbox: { transport: 'auto' }, command: ['cat'] });
});

// --- directories ---

test('a home directory of any name will do', async () => {
  for (const name of [`it's "home" $(touch x) \`y\` & \\ *`, 'ünï cödé', '-rf']) {
    const box = world.box();
    world.moveHome(box, name);
    const { text } = await world.run(box, ['sh', '-c', 'echo "[$PWD]"; ls -A']);
    assert.ok(text.includes(`[${box.home}]`), text);
    assert.match(text, /^\.ptycast\r$/m);
    assert.deepEqual(readdirSync(box.home), ['.ptycast'], 'and nothing else was made');
    assert.equal(world.agents(box).length, 1);
  }
});

test('a devbox without tools that need not be there', async () => {
  const box = world.box({ without: ['sha256sum', 'getent', 'readlink', 'python3', 'perl', 'curl'], noBash: true });
  const first = await world.open(box);
  process.kill(world.agents(box)[0].pid, 'SIGKILL');
  assert.equal((await world.ended(first.id, { ms: SOON_MS })).ended.reason, 'lost');
  await world.open(box);
});

test('nothing of the agent can be read by others', async () => {
  const box = world.box();
  await world.open(box);
  const { stdout } = spawnSync('find', [join(box.home, '.ptycast'), '-printf', '%M %f\n'], { encoding: 'utf8' });
  for (const line of stdout.trim().split('\n')) {
    const [mode, name] = line.split(' ');
    if (mode.startsWith('d')) assert.equal(mode, 'drwx------', line);
    else if (/\.(json|lock)/.test(name)) assert.equal(mode, '-rw-------', line);
  }
  assert.doesNotMatch(box.processes().map(({ cmdline }) => cmdline).join('\n'), /token/);
});

test('a home directory that cannot be written to: the agent lives in /tmp', noMount, async () => {
  const box = mounted(remountHome('ro'));
  const session = await world.open(box);
  assert.deepEqual(readdirSync(box.home).filter((name) => name === '.ptycast'), []);
  const [agent] = world.agents(box);
  assert.match(agent.cmdline, /^\/tmp\/ptycast-\d+\/ptycast-agent-/);
  (await client.delete(`/sessions/${session.id}`)).is(204);
});

test('a home directory that cannot be executed from: the same', noMount, async () => {
  const box = mounted(remountHome('noexec'));
  await world.open(box);
  const [agent] = world.agents(box);
  assert.match(agent.cmdline, /^\/tmp\/ptycast-\d+\/ptycast-agent-/);
  // It is known by its registration in the home directory, also to the next one.
  const service = await world.serve();
  await world.open(box, {}, { client: world.clientOf(service) });
  assert.equal(world.agents(box).length, 1);
  assert.equal(world.count(box, 'upload'), 1);
});

test('nowhere to write: the reason is told', noMount, async () => {
  const box = mounted(
    'for dir in /var/tmp /dev/shm; do mount -o remount,ro $dir; done\n' +
      'mount -o remount,bind,ro /tmp\n' +
      remountHome('ro'),
  );
  await fails(box, 502, 'agent-install', /no directory can be written to/);
  await world.isClean(box).catch(() => {}); // the upload could be made, but not removed
});

test('nowhere to execute from: the reason is told', noMount, async () => {
  const box = mounted(
    'for dir in /var/tmp /dev/shm /usr/local/lib; do mount -o remount,noexec $dir; done\n' +
      'mount -o remount,bind,noexec /tmp\n' +
      remountHome('noexec'),
  );
  await fails(box, 502, 'agent-install', /executed|Permission denied/);
  await world.isClean(box);
});

// --- openings that are given up ---

// DELETE, and the end of it.
async function cancel(id, at = client) {
  const stream = await world.view(id, { client: at });
  const start = Date.now();
  (await at.delete(`/sessions/${id}`)).is(204);
  const { events } = await stream.rest(AT_ONCE_MS);
  assert.ok(Date.now() - start < AT_ONCE_MS, `${Date.now() - start} ms`);
  assert.deepEqual(events.at(-1).data, { reason: 'closed', exit_code: null, signal: null });
  const { ended } = await world.info(id, at);
  assert.equal(ended.reason, 'closed');
  return ended;
}
const idle = (at = client) =>
  until(async () => (await at.metric('ptycast_provisioner_jobs')) === 0, 'the provisioner has nothing to do');

for (const [when, on, options] of [
  ['the API hangs', 'retrieve', {}],
  ['the first script runs', 'execute', {}],
  ['the agent is uploaded', 'upload', {}],
  ['the tunnel is enabled', 'enable_tunnel', { tunnel: null }],
  ['the agent starts', 'execute', { skip: 1 }],
  ['the devbox boots', 'wait', { status: 'provisioning' }],
])
  test(`is closed while ${when}`, async () => {
    const { skip = 0, ...rest } = options;
    const box = world.box(rest);
    const held = world.hold(box, on, { skip, count: 1 });
    const { id } = await world.begin(box);
    await held.arrived();
    await cancel(id);
    await idle(); // although nothing was answered
    if (on !== 'upload') held.release(); // else it would be written now, whose sender is gone
    await world.isClean(box);
    // And the next one works.
    if (box.status !== 'running') box.setStatus('running');
    await world.open(box);
  });

test('is closed while the tunnel is not answered', async () => {
  const box = world.box();
  const held = world.hold(box, 'tunnel');
  const { id } = await world.begin(box);
  await held.arrived();
  assert.equal((await world.info(id)).state, 'connecting');
  await cancel(id);
  held.release();
  await world.isClean(box);
});

test('is closed while the tunnel refuses', async () => {
  const box = world.box();
  const rule = world.misbehave(box, { on: 'tunnel', status: 502, times: Infinity });
  const { id } = await world.begin(box);
  await until(() => rule.hits >= 2, 'refusals');
  await cancel(id);
  rule.remove();
  await world.isClean(box);
});

test('a tunnel that never works ends the opening in time', async () => {
  const at = world.clientOf(await world.serve({ args: ['--open-timeout-ms', '1500'] }));
  const box = world.box();
  world.misbehave(box, { on: 'tunnel', status: 502, times: Infinity });
  const { id } = await world.begin(box, {}, { client: at });
  const { ended } = await world.ended(id, { client: at, ms: SOON_MS });
  assert.deepEqual([ended.reason, ended.error], ['failed', 'tunnel-failed']);
  assert.match(ended.text, /upgrade was refused/);
  assert.ok(world.count(box, 'retrieve') <= 4, 'the devbox is not asked all the time');
});

test('a stop of the service does not wait for an API that hangs', async () => {
  const service = await world.serve();
  const at = world.clientOf(service);
  const box = world.box();
  const held = world.hold(box, 'upload');
  const { id } = await world.begin(box, {}, { client: at });
  await held.arrived();
  const start = Date.now();
  await service.stop({ remove: false });
  assert.ok(Date.now() - start < 3000 * SLOW, `${Date.now() - start} ms`);
  await service.restart();
  const { ended } = await world.ended(id, { client: world.clientOf(service) });
  assert.equal(ended.reason, 'failed');
  assert.match(ended.text, /stopped/);
  await world.isClean(box);
});
