// agent_flow.test.mjs -- floods: what a holder acknowledged decides what the agent may overwrite; no byte is
// lost over cuts and takeovers, a hole is told, and nobody stops the terminal for longer than the bounds.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Agent, OLDEST, Tunnel, encode, isRunning, randomId } from './lib/agent_v2.mjs';
import { program, scaled } from './lib/flavour.mjs';
import { assertPattern } from './lib/pattern.mjs';
import { until, within } from './lib/wait.mjs';

const patternProgram = program('tests/tools/pattern');
const MiB = 1 << 20;
const flood = (size) => [patternProgram, 'bytes', String(size), 'exit', '0'];
let agent; // its bounds are so long that a hole is a mistake
let hasty; // its bounds are short

before(async () => {
  agent = await Agent.start(['--reader-stall=60s', '--lost-holder=60s']);
  hasty = await Agent.start(['--reader-stall=300ms', '--lost-holder=300ms', '--ring-bytes=524288']);
});
after(() => Promise.all([agent?.stop(), hasty?.stop()]));

/** Takes the output of one shell over many connections, and checks each byte by its offset. */
class Follower {
  next = 0n;

  async connect(on, { fence = 0 } = {}) {
    const t = await Tunnel.connect(on, {
      onBytes: (offset, bytes) => {
        if (t !== this.tunnel) return; // an old holder's last bytes
        assert.equal(offset, this.next, 'a hole');
        assertPattern('bytes', Number(offset), bytes);
        this.next += BigInt(bytes.length);
      },
    });
    this.tunnel = t;
    this.fence = fence;
    return t;
  }

  async attach(id, epoch) {
    const offset = this.next;
    const attached = await this.tunnel.attach({ id, epoch, offset, fence: this.fence });
    assert.equal(attached.start, offset, 'the bytes asked for are held');
    return attached;
  }
}

test('a holder that keeps up gets every byte of a flood', async () => {
  const size = scaled(100 * MiB);
  const f = new Follower();
  const t = await f.connect(agent);
  await t.start({ id: randomId(), command: flood(size) });
  const exit = await t.frame('exit');
  assert.equal(exit.end, BigInt(size));
  assert.equal(f.next, exit.end);
});

test('a connection that is cut again and again in a flood loses nothing', async () => {
  const size = scaled(64 * MiB);
  const id = randomId();
  const f = new Follower();
  const first = await f.connect(agent);
  await first.start({ id, command: flood(size) });
  const { epoch } = first.attachedFrame;
  let t = first;
  for (let cuts = 1; cuts <= 12; cuts++) {
    const at = BigInt(Math.floor((size / 13) * cuts));
    await t.until(() => f.next >= at, `byte ${at}`);
    if (cuts % 3 === 0) t.ws._socket.destroy(); // a FIN in the middle of things, then RST
    else await t.cut();
    t = await f.connect(agent);
    assert.equal((await f.attach(id, epoch)).epoch, epoch);
  }
  const exit = await t.frame('exit');
  assert.equal(exit.end, BigInt(size));
  assert.equal(f.next, exit.end);
});

test('a takeover under a flood loses nothing, and the old holder is told', async () => {
  const size = scaled(64 * MiB);
  const id = randomId();
  const f = new Follower();
  let t = await f.connect(agent, { fence: 1 });
  await t.start({ id, command: flood(size) }, { fence: 1 });
  for (let fence = 2; fence <= 8; fence++) {
    const at = BigInt(Math.floor((size / 9) * fence));
    await t.until(() => f.next >= at, `byte ${at}`);
    const old = t;
    t = await f.connect(agent, { fence });
    await f.attach(id);
    assert.deepEqual(await within(old.closed, 'close of the old holder'), { code: 4409, reason: String(fence) });
  }
  await t.frame('exit');
  assert.equal(f.next, BigInt(size));
});

test('a successor has all after the last acknowledgement, also of a holder that hangs', async () => {
  const id = randomId();
  const size = 8 * MiB;
  const hung = await Tunnel.connect(agent, { ackEvery: 0 });
  await hung.start({ id, command: flood(size) });
  await hung.until(() => hung.next >= 3n * BigInt(MiB), '3 MiB');
  hung.ack(BigInt(MiB));
  hung.stall();
  const f = new Follower();
  f.next = BigInt(MiB);
  const t = await f.connect(agent);
  await f.attach(id);
  await t.frame('exit');
  assert.equal(f.next, BigInt(size));
});

test('a holder that does not acknowledge stops the terminal for no longer than the bound, and sees the hole', async () => {
  const size = 16 * MiB;
  const t = await Tunnel.connect(hasty, { ackEvery: 0 });
  await t.start({ id: randomId(), command: flood(size) });
  await t.until(() => t.chunks.length > 0, 'some output');
  t.stall();
  const { pid } = t.openedFrame;
  await until(() => !isRunning(pid), 'end of the program');
  t.go();
  const exit = await t.frame('exit');
  assert.equal(exit.end, BigInt(size));
  assert.equal(t.next, exit.end);
  assert.ok(t.gaps.length > 0);
  for (const { offset, bytes } of t.chunks) assertPattern('bytes', Number(offset), bytes);
  for (const gap of t.gaps) { // each told by a size at the new offset
    assert.ok(gap.offset > gap.expected);
    assert.ok(t.frames.some((f) => f.type === 'size' && f.offset === gap.offset && f.cols === 80 && f.rows === 24));
  }
});

test('a late acknowledgement protects the ring again', async () => {
  const ring = 512 * 1024;
  const t = await Tunnel.connect(hasty, { ackEvery: 0 });
  await t.start({ id: randomId(), command: [patternProgram, 'bytes', String(4 * ring)] });
  await t.until(() => t.next === BigInt(4 * ring), 'the first bytes, past the bound');
  t.ack();
  t.input(`w ${ring}\r`);
  await t.until(() => t.next === BigInt(5 * ring), 'a ringful');
  const late = await Tunnel.connect(hasty);
  assert.equal((await late.attach({ id: t.id, offset: 4 * ring })).start, BigInt(4 * ring));
});

test('for a lost holder output is kept only for its time; then it is overwritten, and the hole shows', async () => {
  const size = 8 * MiB;
  const id = randomId();
  const t = await Tunnel.connect(hasty, { ackEvery: 0 });
  await t.start({ id, command: flood(size) });
  await t.until(() => t.next > 0n, 'some output');
  const { pid } = t.openedFrame;
  await t.cut();
  await until(() => !isRunning(pid), 'end of the program');
  const late = await Tunnel.connect(hasty);
  const attached = await late.attach({ id, offset: t.next });
  assert.equal(attached.start, BigInt(size - 512 * 1024));
  await late.frame('exit');
  assert.equal(late.next, BigInt(size));
});

test('after a close frame nothing is kept: the terminal does not wait', async () => {
  const size = 16 * MiB;
  const id = randomId();
  const t = await Tunnel.connect(agent); // whose bounds are long
  await t.start({ id, command: [patternProgram, 'bytes', '0'] });
  await t.input(`w ${size}\rx 0\r`);
  await t.until(() => t.next > 0n, 'some output');
  t.ackEvery = 0;
  await t.leave();
  const late = await Tunnel.connect(agent);
  await until(() => !isRunning(t.openedFrame.pid), 'end of the program');
  const attached = await late.attach({ id, offset: OLDEST });
  assert.equal(attached.head - attached.start, 4n * BigInt(MiB));
});

test('a shell that was only opened keeps its first output for the holder to come', async () => {
  const size = 8 * MiB;
  const id = randomId();
  const opener = await Tunnel.connect(agent);
  opener.send(encode.open({ id, command: flood(size) }));
  const { pid } = await opener.frame('opened');
  await until(async () => (await headOf(id)) >= 4n * BigInt(MiB), 'a full ring');
  assert.ok(isRunning(pid));
  const f = new Follower();
  const t = await f.connect(agent, { fence: 1 });
  await f.attach(id);
  await t.frame('exit');
  assert.equal(f.next, BigInt(size));
});

/** How much a shell has written: asked by an attach that holds everything and leaves by a cut. */
async function headOf(id) {
  const t = await Tunnel.connect(agent, { ackEvery: 0 });
  const { head } = await t.attach({ id, offset: 0 });
  await t.cut();
  return head;
}

test('signals and input pass a flood', async () => {
  const t = await Tunnel.connect(agent, { onBytes: () => {} });
  await t.start({ id: randomId(), command: ['yes'] });
  await t.until(() => t.next > 4n * BigInt(MiB), 'a flood');
  assert.equal((await t.input('x')).verdict, 0);
  assert.equal((await t.signal(2)).error, 0);
  const exit = await t.frame('exit');
  assert.deepEqual([exit.kind, exit.value], [1, 2]);
  assert.equal(t.next, exit.end);
});

test('a stopped reader does not keep the end of the agent waiting', async () => {
  const own = await Agent.start();
  const t = await Tunnel.connect(own, { ackEvery: 0 });
  await t.start({ id: randomId(), command: ['yes'] });
  await t.until(() => t.next > 0n, 'some output');
  t.stall();
  assert.deepEqual(await own.stop(), { code: 0, signal: null });
});
