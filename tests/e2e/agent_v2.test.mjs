// agent_v2.test.mjs -- version 2 of the agent: opening, attaching at an offset, sizes, signals, fencing,
// and how shells end.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { createServer, request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { constants } from 'node:os';
import { after, before, test } from 'node:test';
import { Agent, ERR, EXIT, OLDEST, Tunnel, VERDICT, encode, isRunning, randomId } from './lib/agent_v2.mjs';
import { program } from './lib/flavour.mjs';
import { pattern } from './lib/pattern.mjs';
import { until, within } from './lib/wait.mjs';

const patternProgram = program('tests/tools/pattern');
const { SIGINT, SIGKILL, SIGUSR1 } = constants.signals;
let agent;

before(async () => {
  agent = await Agent.start();
});
after(() => agent?.stop());

const open = (settings, options) => Tunnel.open(agent, settings, options);

/** A shell that wrote size bytes of the pattern and waits. */
async function openPattern(mode, size, options = {}) {
  const t = await open({ command: [patternProgram, mode, String(size)], ...options.open }, options);
  await t.until(() => t.next === BigInt(size), 'the whole pattern');
  return t;
}

async function assertError(t, code, text = /./) {
  const error = await t.frame('error');
  assert.equal(error.code, code, error.text);
  assert.match(error.text, text);
  assert.equal((await within(t.closed, 'close after an error')).code, 4400);
}

test('the handshake line has all keys, in order, and nothing follows it', async () => {
  const { handshake, stdout } = agent;
  const keys = ['instance', 'port', 'processId', 'proto', 'serverProcessId', 'token', 'version'];
  assert.deepEqual(Object.keys(handshake), keys);
  assert.match(handshake.instance, /^[0-9a-f]{16}$/);
  assert.equal(handshake.proto, 2);
  assert.equal(handshake.processId, agent.child.pid);
  assert.equal(handshake.serverProcessId, agent.child.pid);
  assert.match(handshake.token, /^[A-Za-z0-9_-]{43}=$/);
  assert.equal(stdout.indexOf('\n'), stdout.length - 1);
});

test('HELLO is the first frame, and the upgrade names the instance', async () => {
  const t = await Tunnel.connect(agent);
  const hello = await t.frame('hello');
  assert.equal(hello.version, 2);
  assert.equal(hello.instance.toString(16).padStart(16, '0'), agent.handshake.instance);
  assert.equal(t.upgrade.headers['ptycast-agent-instance'], agent.handshake.instance);
  assert.equal(t.upgrade.headers['sec-websocket-extensions'], undefined);
  await t.leave();
});

test('a shell gets arguments, environment, working directory and size', async () => {
  const t = await open({
    command: ['sh', '-c', 'printf "%s|" "$@"; echo "$FOO|$TERM|$PWD|$(stty size)|$(tty | cut -c1-8)"', 'x', 'a b', '', 'ü'],
    env: { FOO: 'ba r', TERM: 'vt220' }, cwd: '/usr', cols: 123, rows: 45,
  });
  await t.frame('exit');
  assert.equal(t.text, 'a b||ü|ba r|vt220|/usr|45 123|/dev/pts\r\n');
});

test('a shell gets no descriptor above 2, no signal ignored or blocked, and is a session leader', async () => {
  const t = await open({ command: ['cat'] });
  const { pid } = t.openedFrame;
  await t.input('running\r');
  await t.sees('running\r\nrunning');
  assert.deepEqual(readdirSync(`/proc/${pid}/fd`), ['0', '1', '2']);
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  assert.match(status, /^SigBlk:\t0{16}$/m);
  assert.match(status, /^SigIgn:\t0{8}[08]0{7}$/m); // 32 belongs to libc, which lets nobody touch it
  const [, session, terminal] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ').slice(2);
  assert.equal(Number(session), pid);
  assert.notEqual(Number(terminal), 0);
});

test('without a command the user gets a shell', async () => {
  const t = await open({ env: { SHELL: '/bin/sh', PS1: 'prompt> ' } });
  await t.sees('prompt> ');
  await t.input('echo $0; exit\r');
  await t.frame('exit');
  assert.match(t.text, /\/bin\/sh/);
});

test('TERM is xterm-256color when nobody set it', async () => {
  const plain = await Agent.start([], { env: { TERM: '' } });
  const t = await Tunnel.open(plain, { command: ['sh', '-c', 'echo $TERM'] });
  await t.frame('exit');
  assert.equal(t.text, 'xterm-256color\r\n');
  await plain.stop();
});

test('OPEN is idempotent by id; other parameters are refused', async () => {
  const request = { id: randomId(), command: ['cat'] };
  const first = await open(request);
  assert.equal(first.openedFrame.created, true);
  const second = await Tunnel.connect(agent);
  second.send(encode.open(request));
  const again = await second.frame('opened');
  assert.deepEqual({ ...again, created: true }, first.openedFrame);
  assert.equal(again.created, false);
  second.send(encode.open({ ...request, cols: 81 }));
  await assertError(second, ERR.DIFFERS);
  first.send(encode.close());
  await first.frame('exit');
});

test('two OPENs of one id at once make one shell', async () => {
  const request = { id: randomId(), command: ['cat'] };
  const both = await Promise.all([Tunnel.connect(agent), Tunnel.connect(agent)]);
  for (const t of both) t.send(encode.open(request));
  const frames = await Promise.all(both.map((t) => t.frame('opened')));
  assert.deepEqual(frames.map((f) => f.created).sort(), [false, true]);
  assert.equal(frames[0].pid, frames[1].pid);
  await both[0].attach({ id: request.id });
  both[0].send(encode.close());
  await both[0].frame('exit');
});

test('what cannot be started says why', async () => {
  const cases = [
    [{ command: ['/no/such/program'] }, ERR.COMMAND, /^\/no\/such\/program: No such file or directory$/],
    [{ command: ['no-such-program'] }, ERR.COMMAND, /^no-such-program: No such file or directory$/],
    [{ command: ['/etc/passwd'] }, ERR.COMMAND, /Permission denied/],
    [{ command: ['sh'], cwd: '/no/such/directory' }, ERR.CWD, /No such file or directory/],
  ];
  for (const [settings, code, text] of cases) {
    const t = await Tunnel.connect(agent);
    const id = randomId();
    t.send(encode.open({ id, ...settings }));
    t.send(encode.attach({ id }));
    await assertError(t, code, text);
    const later = await Tunnel.connect(agent);
    later.send(encode.attach({ id }));
    await assertError(later, ERR.NO_SHELL);
  }
});

test('frames that are wrong are refused and close the connection', async () => {
  const cases = [
    Buffer.alloc(0), Buffer.from([0x99]), Buffer.from([0x23, 0]), encode.input({ data: 'x' }), encode.close(),
    encode.resize(80, 24), encode.open({ id: '', command: ['cat'] }), encode.open({ id: 'a/b', command: ['cat'] }),
    encode.open({ id: randomId(), cols: 1001 }), encode.open({ id: randomId() }).subarray(0, 20),
    Buffer.from([0, 0x78]),
  ];
  for (const frame of cases) {
    const t = await Tunnel.connect(agent);
    t.send(frame);
    await assertError(t, ERR.BAD_FRAME);
  }
  const t = await Tunnel.connect(agent);
  t.ws.send('text');
  await assertError(t, ERR.BAD_FRAME);
  const twice = await open({ command: ['cat'] });
  twice.send(encode.attach({ id: twice.id }));
  await assertError(twice, ERR.BAD_FRAME);
});

test('a token of a shell opens that shell and nothing else', async () => {
  const one = await open({ command: ['cat'] });
  const two = await open({ command: ['cat'] });
  const { token } = one.openedFrame;
  const t = await Tunnel.connect(agent, { token });
  t.send(encode.open({ id: randomId(), command: ['cat'] }));
  await assertError(t, ERR.DENIED);
  const other = await Tunnel.connect(agent, { token });
  other.send(encode.attach({ id: two.id }));
  await assertError(other, ERR.DENIED);
  const right = await Tunnel.connect(agent, { token });
  await right.attach({ id: one.id });
  await right.input('hello\r');
  await right.sees('hello');
  for (const s of [right, two]) {
    s.send(encode.close());
    await s.frame('exit');
  }
});

test('attach gives exactly what stands from each offset on', async () => {
  const size = 1000;
  const t = await openPattern('bytes', size);
  const whole = pattern('bytes', 0, size);
  await t.leave();
  for (let offset = 0; offset <= size; offset += offset < 70 || offset > size - 70 ? 1 : 37) {
    const a = await Tunnel.connect(agent);
    const attached = await a.attach({ id: t.id, offset });
    assert.equal(attached.start, BigInt(offset));
    assert.equal(attached.head, BigInt(size));
    await a.until(() => a.next === BigInt(size), `bytes from ${offset} on`);
    assert.ok(a.output.equals(whole.subarray(offset)), `bytes from ${offset} on`);
    await a.leave();
  }
});

test('an offset ahead starts at the head, another epoch at the oldest byte', async () => {
  const t = await openPattern('bytes', 100);
  const { epoch } = t.attachedFrame;
  const cases = [
    [{ offset: 101n }, 100n], [{ offset: 101n, epoch }, 100n], [{ offset: OLDEST - 1n, epoch }, 100n],
    [{ offset: 50n, epoch }, 50n], [{ offset: 50n, epoch: epoch + 1n }, 0n], [{ offset: OLDEST, epoch }, 0n],
  ];
  for (const [where, start] of cases) {
    const a = await Tunnel.connect(agent);
    assert.equal((await a.attach({ id: t.id, ...where })).start, start);
    assert.equal(a.attachedFrame.epoch, epoch);
    await a.leave();
  }
});

test('what left the ring is not invented: an old offset starts at the oldest byte held', async () => {
  const ring = 512 * 1024;
  const size = 3 * ring + 12345;
  const t = await openPattern('bytes', size, { open: { ring } });
  await t.leave();
  const oldest = BigInt(size - ring);
  for (const offset of [0n, oldest - 1n, oldest, oldest + 1n]) {
    const a = await Tunnel.connect(agent);
    const attached = await a.attach({ id: t.id, offset });
    assert.equal(attached.start, offset > oldest ? offset : oldest);
    await a.until(() => a.next === BigInt(size), 'the rest');
    assert.ok(a.output.equals(pattern('bytes', Number(attached.start), size)));
    await a.leave();
  }
});

test('size changes stand at their offset, live and in a replay from every offset', async () => {
  const t = await openPattern('bytes', 10);
  const events = [];
  const write = async (n) => {
    const want = t.next + BigInt(n);
    await t.input(`w ${n}\r`);
    await t.until(() => t.next === want, 'the next bytes');
  };
  const resize = async (cols, rows) => {
    t.send(encode.resize(cols, rows));
    const { offset } = await t.frame('size', (f) => f.cols === cols && f.rows === rows);
    events.push({ offset, cols, rows });
  };
  await resize(100, 30);
  await write(5);
  await resize(101, 31);
  await resize(102, 32); // replaces the one at the same offset
  t.send(encode.resize(102, 32)); // no change, no mark
  await write(5);
  await resize(103, 33);
  assert.deepEqual(events.map((e) => e.offset), [10n, 15n, 15n, 20n]);
  assert.ok(t.output.equals(pattern('bytes', 0, 20)));
  await t.input('z\r');
  await t.sees('[103x33]');
  const head = t.next;
  await t.leave();

  const marks = [{ offset: 0n, cols: 80, rows: 24 }, events[0], events[2], events[3]];
  for (let offset = 0n; offset <= head; offset++) {
    const a = await Tunnel.connect(agent);
    const attached = await a.attach({ id: t.id, offset });
    const { cols, rows } = marks.findLast((m) => m.offset <= offset);
    assert.deepEqual([attached.cols, attached.rows], [cols, rows], `size at ${offset}`);
    await a.until(() => a.next === head, 'the rest');
    const sizes = a.frames.filter((f) => f.type === 'size').map(({ type, ...mark }) => mark);
    assert.deepEqual(sizes, marks.filter((m) => m.offset > offset), `sizes after ${offset}`);
    for (const { offset: at, bytes } of a.chunks) {
      const cut = marks.filter((m) => m.offset > at && m.offset < at + BigInt(bytes.length));
      assert.deepEqual(cut, [], 'a frame goes across a size change');
    }
    await a.leave();
  }
});

test('sizes out of 1 to 1000 are ignored', async () => {
  const t = await openPattern('bytes', 0);
  t.send(encode.resize(1001, 24));
  t.send(encode.resize(80, 65535));
  t.send(encode.resize(1000, 1));
  await t.frame('size');
  await t.input('z\r');
  await t.sees('[1000x1]');
  assert.equal(t.frames.filter((f) => f.type === 'size').length, 0);
});

test('signals go to the foreground group at once, and say when there is none', async () => {
  const t = await open({ command: ['sh', '-i'], env: { PS1: '$ ' } });
  await t.sees('$ ');
  await t.input(`sh -c 'trap "echo got USR1" USR1; echo in front; while :; do sleep 0.05; done'\r`);
  await t.sees('\r\nin front');
  assert.equal((await t.signal(SIGUSR1)).error, 0);
  await t.sees('\r\ngot USR1');
  assert.equal((await t.signal(0)).error, constants.errno.EINVAL);
  assert.equal((await t.signal(SIGKILL)).error, 0);
  await t.sees('Killed');
  await t.input('echo back $((6*7))\r');
  await t.sees('back 42');
  await t.input('exit\r');
  await t.frame('exit');
  assert.equal((await t.signal(SIGINT)).error, constants.errno.ESRCH);
});

test('EXIT follows the last byte and tells status or signal', async () => {
  const size = 1 << 20;
  const cases = [
    [[patternProgram, 'bytes', String(size), 'exit', '7'], size, EXIT.EXITED, 7],
    [['sh', '-c', 'kill -9 $$'], 0, EXIT.SIGNAL, 9],
    [['sh', '-c', 'kill -15 $$'], 0, EXIT.SIGNAL, 15],
    [['true'], 0, EXIT.EXITED, 0],
    [['sh', '-c', 'exit 255'], 0, EXIT.EXITED, 255],
  ];
  for (const [command, bytes, kind, value] of cases) {
    const t = await open({ command });
    const exit = await t.frame('exit');
    assert.deepEqual(exit, { type: 'exit', end: BigInt(bytes), kind, value });
    assert.equal(t.next, exit.end);
    assert.equal((await t.input('x')).verdict, VERDICT.ENDED);
    await t.leave();
  }
});

test('EXIT comes also when a background child holds the terminal, and after what it wrote', async () => {
  const t = await open({ command: ['sh', '-c', 'trap "" HUP; (echo from the child; sleep 30) & echo $!; exit 3'] });
  const exit = await t.frame('exit');
  assert.deepEqual([exit.kind, exit.value], [EXIT.EXITED, 3]);
  assert.equal(t.next, exit.end);
  assert.match(t.text, /from the child/);
  process.kill(Number(t.text.match(/\d+/)[0]));
});

test('EXIT comes also when a background child writes on and on', { timeout: 60_000 }, async () => {
  const t = await open({ command: ['sh', '-c', 'trap "" HUP; yes & echo pid $!; exit 4'] }, { onBytes: () => {} });
  const exit = await t.frame('exit');
  assert.deepEqual([exit.kind, exit.value], [EXIT.EXITED, 4]);
  assert.equal(t.next, exit.end);
});

test('ended shells give replay and EXIT to those who come later, and are forgotten when asked', async () => {
  const t = await open({ command: ['sh', '-c', 'echo once; exit 5'] });
  const exit = await t.frame('exit');
  const { text, id } = t;
  await t.leave();
  const late = await Tunnel.connect(agent);
  late.send(encode.open({ id, command: ['sh', '-c', 'echo once; exit 5'] }));
  assert.equal((await late.frame('opened')).created, false);
  const attached = await late.attach({ id });
  assert.equal(attached.head, exit.end);
  assert.deepEqual(await late.frame('exit'), exit);
  assert.equal(late.text, text);
  late.send(encode.forget());
  late.send(encode.open({ id, command: ['sh', '-c', 'echo twice'] })); // the id is free again
  late.send(encode.attach({ id }));
  assert.equal((await late.frame('opened')).created, true);
  await late.sees('twice');
  await late.frame('exit');
});

test('FORGET of a shell that runs is ignored', async () => {
  const t = await open({ command: ['cat'] });
  t.send(encode.forget());
  await t.input('still\r');
  await t.sees('still');
  t.send(encode.close());
  await t.frame('exit');
});

test('ended shells are forgotten after their linger time, and who is attached is told', async () => {
  const t = await open({ command: ['true'], linger: 1 });
  await t.frame('exit');
  assert.deepEqual(await within(t.closed, 'close'), { code: 1000, reason: 'forgotten' });
  const late = await Tunnel.connect(agent);
  late.send(encode.attach({ id: t.id }));
  await assertError(late, ERR.NO_SHELL);
});

/** A shell that nobody held and that has ended. */
async function openUnheld(on, settings) {
  const t = await Tunnel.connect(on);
  const id = randomId();
  t.send(encode.open({ id, command: ['sh', '-c', 'echo last; exit 3'], ...settings }));
  const { pid } = await t.frame('opened');
  await until(() => !isRunning(pid), 'end of a shell without a holder');
  await t.leave();
  return id;
}

/** Comes back when a shell that ends now, told, would be forgotten after seconds. */
async function linger(on, seconds) {
  const t = await Tunnel.open(on, { command: ['true'], linger: seconds, alone: 600 });
  await t.frame('exit');
  assert.equal((await within(t.closed, 'close')).reason, 'forgotten');
}

test('how a shell ended is kept for as long as it might be alone, until a holder was told; then for linger', async () => {
  const long = await openUnheld(agent, { linger: 1, alone: 600 });
  const short = await openUnheld(agent, { linger: 1, alone: 1 });
  await linger(agent, 2);
  const late = await Tunnel.connect(agent);
  late.send(encode.attach({ id: short }));
  await assertError(late, ERR.NO_SHELL);
  const t = await Tunnel.connect(agent);
  await t.attach({ id: long });
  assert.equal((await t.frame('exit')).value, 3);
  assert.equal(t.text, 'last\r\n');
  assert.deepEqual(await within(t.closed, 'close'), { code: 1000, reason: 'forgotten' });
});

test('a told shell lingers for a time of its own, also when its holder went', async () => {
  const id = await openUnheld(agent, { linger: 1, alone: 600 });
  const t = await Tunnel.connect(agent);
  await t.attach({ id });
  await t.frame('exit');
  await t.leave();
  await linger(agent, 2);
  const late = await Tunnel.connect(agent);
  late.send(encode.attach({ id }));
  await assertError(late, ERR.NO_SHELL);
});

test('with --alone=0 how a shell ended is kept until a holder was told', async () => {
  const patient = await Agent.start(['--alone=0', '--linger=1s']);
  const id = await openUnheld(patient, {});
  await linger(patient, 2);
  const t = await Tunnel.connect(patient);
  await t.attach({ id });
  assert.equal((await t.frame('exit')).value, 3);
  assert.deepEqual(await within(t.closed, 'close'), { code: 1000, reason: 'forgotten' });
  await patient.stop();
});

test('a holder whose socket is full has not been told', async () => {
  const quick = await Agent.start(['--reader-stall=100ms']);
  const size = 32 << 20; // more than sockets hold
  const t = await Tunnel.open(quick, { command: [patternProgram, 'bytes', String(size), 'exit', '7'], linger: 1, alone: 600 });
  t.stall();
  await until(() => !isRunning(t.openedFrame.pid), 'end of the shell');
  await linger(quick, 2);
  await t.cut();
  const late = await Tunnel.connect(quick);
  await late.attach({ id: t.id });
  assert.equal((await late.frame('exit')).value, 7);
  await quick.stop();
});

test('CLOSE hangs up; who ignores it is killed', async () => {
  const polite = await open({ command: ['cat'] });
  polite.send(encode.close());
  assert.deepEqual(await polite.frame('exit').then((f) => [f.kind, f.value]), [EXIT.SIGNAL, 1]);
  const stubborn = await open({ command: ['sh', '-c', 'trap "" HUP TERM; echo set; while :; do sleep 1; done'] });
  await stubborn.sees('set');
  stubborn.send(encode.close());
  assert.deepEqual(await stubborn.frame('exit').then((f) => [f.kind, f.value]), [EXIT.SIGNAL, 9]);
});

test('CLOSE ends a stopped program too', async () => {
  const t = await open({ command: ['sh', '-c', 'echo pid $$; kill -STOP $$'] });
  await t.sees('pid');
  t.send(encode.close());
  assert.deepEqual(await t.frame('exit').then((f) => [f.kind, f.value]), [EXIT.SIGNAL, 1]);
});

test('a shell without a holder is hung up after its time alone', async () => {
  const t = await open({ command: ['cat'], alone: 1 });
  const { pid } = t.openedFrame;
  await t.leave();
  await until(() => !isRunning(pid), 'hang-up of a shell alone');
  const late = await Tunnel.connect(agent);
  await late.attach({ id: t.id });
  assert.deepEqual(await late.frame('exit').then((f) => [f.kind, f.value]), [EXIT.SIGNAL, 1]);
});

test('a holder with an equal or higher fence replaces the one there is', async () => {
  const one = await open({ command: ['cat'] }, { attach: { fence: 5 } });
  const two = await Tunnel.connect(agent);
  assert.equal((await two.attach({ id: one.id, fence: 5 })).fence, 5n);
  assert.deepEqual(await within(one.closed, 'close'), { code: 4409, reason: '5' });
  const three = await Tunnel.connect(agent);
  await three.attach({ id: one.id, fence: 2n ** 63n });
  assert.deepEqual(await within(two.closed, 'close'), { code: 4409, reason: '9223372036854775808' });
  await three.input('mine\r');
  await three.sees('mine');
});

test('a holder with a lower fence is closed and told the highest, also when nobody holds', async () => {
  const one = await open({ command: ['cat'] }, { attach: { fence: 7 } });
  const low = await Tunnel.connect(agent);
  low.send(encode.attach({ id: one.id, fence: 6 }));
  assert.deepEqual(await within(low.closed, 'close'), { code: 4409, reason: '7' });
  await one.input('undisturbed\r');
  await one.sees('undisturbed');
  await one.leave();
  const later = await Tunnel.connect(agent);
  later.send(encode.attach({ id: one.id, fence: 6 }));
  assert.deepEqual(await within(later.closed, 'close'), { code: 4409, reason: '7' });
});

const SHELLS_MAX = 256;
const CONNECTIONS_MAX = 320;

test('as many shells as there may be and no more; another agent lives', async () => {
  const full = await Agent.start();
  const t = await Tunnel.connect(full);
  for (let i = 0; i < SHELLS_MAX; i++) t.send(encode.open({ id: `s${i}`, command: ['cat'] }));
  for (let i = 0; i < SHELLS_MAX; i++) await t.frame('opened');
  t.send(encode.open({ id: 'more', command: ['cat'] }));
  await assertError(t, ERR.LIMIT);
  assert.deepEqual(await full.stop(), { code: 0, signal: null });
});

test('when there are as many shells the longest ended one gives way, first of those that were told', async () => {
  const full = await Agent.start();
  const untold = [await openUnheld(full, {}), await openUnheld(full, {})];
  const told = [];
  for (let i = 0; i < 2; i++) {
    const t = await Tunnel.open(full, { command: ['true'] });
    await t.frame('exit');
    told.push(t); // still attached
  }
  const t = await Tunnel.connect(full);
  const openCat = async (id) => {
    t.send(encode.open({ id, command: ['cat'] }));
    return t.frame('opened');
  };
  for (let i = 4; i < SHELLS_MAX; i++) await openCat(`s${i}`);
  const missing = async (id) => {
    const late = await Tunnel.connect(full);
    late.send(encode.attach({ id }));
    await assertError(late, ERR.NO_SHELL);
  };

  await openCat('one');
  assert.deepEqual(await within(told[0].closed, 'close'), { code: 1000, reason: 'forgotten' });
  assert.equal(told[1].close, undefined);
  await openCat('two');
  assert.deepEqual(await within(told[1].closed, 'close'), { code: 1000, reason: 'forgotten' });
  await openCat('three');
  await missing(untold[0]);
  const last = await Tunnel.connect(full);
  await last.attach({ id: untold[1] });
  await last.frame('exit');
  last.send(encode.open({ id: 'four', command: ['cat'] })); // in the place of its own
  assert.deepEqual(await within(last.closed, 'close'), { code: 1000, reason: 'forgotten' });
  await openCat('four');
  await t.attach({ id: 'one' });
  t.send(encode.open({ id: 'five', command: ['cat'] }));
  await assertError(t, ERR.LIMIT);
  const other = await Tunnel.connect(full); // nobody was harmed
  await other.attach({ id: 'three' });
  await other.input('still\r');
  await other.sees('still');
  await full.stop();
});

test('an agent behind a reverse proxy: another Host, a prefix that the proxy strips, headers of its own', async () => {
  const proxy = createServer();
  const upstream = (request) => ({
    host: '127.0.0.1', port: agent.port, method: request.method, path: request.url.replace(/^\/prefix/, ''),
    headers: {
      ...request.headers, host: '8000-box.example.com', via: '1.1 edge', 'x-forwarded-for': '192.0.2.1',
      'x-forwarded-host': 'box.example.com', 'x-forwarded-proto': 'https', forwarded: 'for=192.0.2.1;proto=https',
    },
  });
  proxy.on('request', (request, response) => {
    httpRequest(upstream(request), (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    }).end();
  });
  proxy.on('upgrade', (request, socket, head) => {
    const up = httpRequest(upstream(request));
    up.on('upgrade', (answer, far, first) => {
      const lines = Object.entries(answer.headers).map(([name, value]) => `${name}: ${value}\r\n`);
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join('')}\r\n`);
      socket.write(first);
      far.write(head);
      far.pipe(socket).pipe(far);
      for (const s of [far, socket]) s.on('error', () => {});
    });
    up.end();
  });
  proxy.listen(0, '127.0.0.1');
  await within(once(proxy, 'listening'), 'listening');
  const { port } = proxy.address();
  const health = await fetch(`http://127.0.0.1:${port}/prefix/health`);
  assert.deepEqual([health.status, await health.text()], [200, 'OK']);
  const t = await Tunnel.open({ ...agent, port, control: agent.control }, { command: ['cat'] }, { path: '/prefix/ws/client?v=2' });
  await t.input('through\r');
  await t.sees('through\r\nthrough');
  assert.equal(t.upgrade.headers['ptycast-agent-instance'], agent.handshake.instance);
  t.send(encode.close());
  await t.frame('exit');
  await t.leave();
  proxy.close();
});

test('connections beyond the limit are refused; one that shows no token gives way', async () => {
  const full = await Agent.start();
  const idle = Array.from({ length: CONNECTIONS_MAX }, () => connect(full.port, '127.0.0.1').on('error', () => {}));
  await Promise.all(idle.map((s) => new Promise((resolve) => s.on('connect', resolve))));
  const tunnels = [];
  for (let i = 0; i < CONNECTIONS_MAX; i++) tunnels.push(await Tunnel.connect(full));
  await assert.rejects(Tunnel.connect(full));
  await tunnels.pop().leave();
  await until(() => Tunnel.connect(full).catch(() => false), 'a place for one more');
  await full.stop();
});

test('who says nothing is dropped, who answers pings is not', async () => {
  const strict = await Agent.start(['--ping-interval=100ms', '--ping-timeout=500ms', '--lost-holder=1s']);
  const t = await Tunnel.open(strict, { command: ['cat'] });
  const silent = await Tunnel.connect(strict);
  silent.stall();
  let pings = 0;
  await new Promise((resolve) => t.ws.on('ping', () => ++pings === 20 && resolve()));
  assert.equal(t.close, undefined);
  silent.go();
  assert.equal((await within(silent.closed, 'close')).code, 1006);
  await strict.stop();
});

test('SIGTERM hangs up the shells, tells their end, and the status is 0', async () => {
  const ending = await Agent.start();
  const polite = await Tunnel.open(ending, { command: ['cat'] });
  const stubborn = await Tunnel.open(ending, { command: ['sh', '-c', 'trap "" HUP; echo set; while :; do sleep 1; done'] });
  const idle = await Tunnel.connect(ending);
  await stubborn.sees('set');
  const stopped = ending.stop();
  assert.equal((await polite.frame('exit')).value, 1);
  assert.equal((await stubborn.frame('exit')).value, 9);
  for (const t of [polite, stubborn, idle]) assert.equal((await within(t.closed, 'close')).code, 1001);
  assert.deepEqual(await stopped, { code: 0, signal: null });
  assert.equal(isRunning(stubborn.openedFrame.pid), false);
});

test('the agent survives who started it, without its terminal and pipes', async () => {
  const orphan = await Agent.start(['--idle-exit=60s']);
  orphan.child.stdout.destroy();
  orphan.child.stderr.destroy();
  orphan.child.kill('SIGHUP');
  orphan.child.kill('SIGPIPE');
  const t = await Tunnel.open(orphan, { command: ['sh', '-c', 'echo alive'] });
  await t.frame('exit');
  assert.equal(t.text, 'alive\r\n');
  for (const fd of [0, 1, 2]) assert.equal(readlinkSync(`/proc/${orphan.child.pid}/fd/${fd}`), '/dev/null');
  await orphan.stop();
});

test('who started the agent may ignore signals; the ends of shells are noticed all the same', async () => {
  const stubborn = await Agent.start([], { prefix: ['env', '--ignore-signal=CHLD,TERM'] });
  const t = await Tunnel.open(stubborn, { command: ['sh', '-c', 'exit 3'] });
  assert.equal((await t.frame('exit')).value, 3);
  await t.leave();
  assert.deepEqual(await stubborn.stop(), { code: 0, signal: null });
});

test('the agent ends after its last shell was forgotten, and when it never had one', async () => {
  const one = await Agent.start(['--idle-exit=60s']);
  const t = await Tunnel.open(one, { command: ['true'] });
  await t.frame('exit');
  t.send(encode.forget());
  await t.leave();
  assert.deepEqual(await within(one.exited, 'end'), { code: 0, signal: null });
  const none = await Agent.start(['--idle-exit=100ms']);
  assert.deepEqual(await within(none.exited, 'end'), { code: 0, signal: null });
});

const arm64 = program('ptycast-agent-arm64');
const qemu = '/usr/bin/qemu-aarch64-static';
const skip = !existsSync(arm64) ? 'build/ptycast-agent-arm64 is not built' : !existsSync(qemu) && 'no qemu-aarch64-static';
test('the arm64 agent runs a shell', { skip }, async () => {
  const arm = await Agent.start([], { prefix: [qemu], file: arm64 });
  const t = await Tunnel.open(arm, { command: ['sh', '-c', 'echo $((6*7)); read x; echo got $x; exit 9'] });
  await t.sees('42');
  await t.input('typed\r');
  assert.deepEqual(await t.frame('exit').then((f) => [f.kind, f.value]), [EXIT.EXITED, 9]);
  assert.match(t.text, /got typed/);
  await arm.stop();
});
