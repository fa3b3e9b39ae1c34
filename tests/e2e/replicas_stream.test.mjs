// replicas_stream.test.mjs -- the output of a session that another replica has: the same events with the same ids, from any
// offset on, live and late, as Server-Sent Events and over WebSocket.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before } from 'node:test';
import { Cluster } from './lib/cluster.mjs';
import { scaled } from './lib/flavour.mjs';
import { PatternShell, assertPattern, pattern } from './lib/pattern.mjs';
import { test } from './lib/service.mjs';
import { EventStream } from './lib/sse.mjs';
import { DEADLINE_MS, until } from './lib/wait.mjs';
import { Socket } from './lib/ws.mjs';

const MB = 1 << 20;
let cluster, replicas, A, B, C;

before(async () => {
  cluster = await Cluster.start({ args: ['--journal-bytes', '1M', '--agent-ring-bytes', '1M'] });
  ({ replicas } = cluster);
  [A, B, C] = replicas.map((replica) => replica.as());
});
after(() => cluster?.stop());

const name = (what) => `${what}-${randomBytes(4).toString('hex')}`;
const everywhere = (fn) => Promise.all(replicas.map((replica, i) => fn(replica.as(), i)));
const create = (mode, options) => PatternShell.create(A, mode, { id: name(mode), ...options });
const view = (client, shell, options) => EventStream.open(client, shell.id, { format: 'base64', ...options });
const resize = async (client, shell, cols, rows) => (await client.post(`${shell.path}/resize`, { json: { cols, rows } })).is(204);
// What stands beside the bytes, with where it stands.
const marks = (events) => events.filter(({ event }) => ['resize', 'reset', 'exit'].includes(event)).map(({ event, id, data }) => [event, id, data]);

test('counts viewers where they are', async () => {
  const shell = await create('lines');
  const are = (counts) =>
    everywhere((client, i) =>
      until(async () => (await client.metric('ptycast_viewers{kind="sse"}')) === counts[i], `${counts[i]} viewers`));
  await are([0, 0, 0]);
  const streams = await Promise.all([B, B, C].map((client) => view(client, shell)));
  await are([0, 2, 1]);
  for (const stream of streams) stream.close();
  await are([0, 0, 0]);
});

test('gives the same bytes, sizes and exit with the same ids at every replica', async () => {
  const shell = await create('bytes');
  const viewers = await everywhere((client) => view(client, shell));
  for (let round = 0; round < 8; round++) {
    await shell.write(1000 + 37_777 * (round % 3), round % 2 ? 333 : undefined);
    await shell.reached(shell.written); // a size stands where the output was
    await resize([A, B, C][round % 3], shell, 100 + round, 40);
  }
  await shell.exit(17);
  const seen = await Promise.all(viewers.map((viewer) => viewer.rest()));
  for (const [i, { bytes, events }] of seen.entries()) {
    assert.equal(bytes.length, shell.written);
    shell.assert(0, bytes);
    assert.deepEqual(marks(events), marks(seen[0].events), `at ${replicas[i].name}: ${JSON.stringify(marks(events)[0])}`);
    assert.ok(!events.some(({ event }) => event === 'reset'));
  }
  const last = seen[0].events.at(-1);
  assert.deepEqual([last.id, last.data.exit_code], [shell.idAt(shell.written + 1), 17]);
  // Late ones are told the same, wherever nobody looked before.
  const late = await everywhere(async (client) => (await view(client, shell)).rest());
  for (const { bytes, events } of late) {
    shell.assert(0, bytes);
    assert.equal(bytes.length, shell.written);
    assert.deepEqual(marks(events), marks(late[0].events));
  }
  assert.deepEqual(marks(late[0].events).slice(-9), marks(seen[0].events).slice(-9));
});

test('opens at another replica with the same first event, before and after somebody looked there', async () => {
  const shell = await create('lines', { first: 5000, cols: 93, rows: 29 });
  for (let round = 0; round < 2; round++)
    await everywhere(async (client) => {
      const stream = await view(client, shell);
      assert.deepEqual((await stream.next()).data, { state: 'open', epoch: shell.epoch, offset: 5000, cols: 93, rows: 29 });
      const { from, bytes } = await stream.to(5000);
      assert.equal(from, 0);
      shell.assert(0, bytes);
      stream.close();
    });
});

test('resumes at any offset at any replica, and answers bad ids alike', async () => {
  const first = 3008; // whole characters
  const shell = await create('utf8', { first });
  const other = `${shell.epoch[0] === 'f' ? '0' : 'f'}${shell.epoch.slice(1)}`;
  for (const offset of [0, 1, 7, 63, 64, 1499, 2047, 2048, 3007])
    await everywhere(async (client, i) => {
      const id = shell.idAt(offset);
      const stream = await view(client, shell, i % 2 ? { since: id } : { lastEventId: id });
      const { from, bytes } = await stream.to(first);
      assert.equal(from, offset);
      shell.assert(from, bytes);
      stream.close();
      const text = await view(client, shell, { since: id, format: 'text' });
      const all = pattern('utf8', 0, first);
      let start = offset;
      while ((all[start] & 0xc0) === 0x80) start++;
      assert.equal((await text.to(first)).text, all.subarray(start).toString('utf8'));
      text.close();
    });
  for (const [id, reason] of [[shell.idAt(first + 1), 'ahead'], [`${other}:5`, 'epoch'], ['nonsense', 'epoch']])
    await everywhere(async (client) => {
      const stream = await view(client, shell, { lastEventId: id });
      assert.equal((await stream.next()).event, 'state');
      const reset = await stream.next();
      assert.deepEqual([reset.event, reset.data, reset.id], ['reset', { reason, offset: 0 }, shell.idAt(0)]);
      shell.assert(0, (await stream.to(first)).bytes);
      stream.close();
    });
  await everywhere(async (client) => {
    assert.equal((await view(client, shell, { since: 'x' })).status, 400);
    // At the head it waits for more.
    const stream = await view(client, shell, { since: shell.idAt(first) });
    assert.equal((await stream.next()).event, 'state');
    stream.close();
  });
  const heads = await everywhere((client) => view(client, shell, { since: shell.idAt(first) }));
  await shell.write(200);
  for (const stream of heads) {
    assert.equal((await stream.to(first + 200)).from, first);
    stream.close();
  }
});

test('resumes in the middle of what comes, again and again, at changing replicas', async () => {
  const shell = await create('bytes');
  await shell.write(scaled(600_000), 997);
  const pieces = [];
  for (let at = 0, hop = 0; at < shell.written; hop++) {
    const stream = await view([A, B, C][hop % 3], shell, { lastEventId: shell.idAt(at) });
    for (let events = 0; events <= hop % 5 && at < shell.written; ) {
      const event = await stream.next();
      assert.notEqual(event.event, 'reset');
      if (event.event !== 'output') continue;
      assert.equal(event.from, at);
      pieces.push(event.bytes);
      at = event.offset;
      events++;
    }
    stream.close();
  }
  shell.assert(0, Buffer.concat(pieces));
});

test('says gap where the bytes are gone, at the same place on every replica', async () => {
  const shell = await create('lines');
  // Nobody looks, so nothing holds it back.
  await shell.write(3 * MB);
  await shell.reached(shell.written);
  const seen = await everywhere(async (client) => {
    const stream = await view(client, shell, { since: shell.idAt(100) });
    const reset = (await stream.until((e) => e.event === 'reset')).at(-1);
    const { from, bytes } = await stream.to(shell.written);
    shell.assert(from, bytes);
    stream.close();
    // Without an id: all that is held.
    const whole = await view(client, shell);
    const held = await whole.to(shell.written);
    shell.assert(held.from, held.bytes);
    whole.close();
    assert.ok(held.bytes.length >= MB / 2, `${held.bytes.length} bytes are held`);
    return [reset.data, from];
  });
  const [{ reason, offset }, from] = seen[0];
  assert.deepEqual([reason, from, offset % 64], ['gap', offset, 0]);
  assert.ok(offset >= shell.written - 65536);
  for (const one of seen) assert.deepEqual(one, seen[0]);
});

// A viewer that checks all it gets against the pattern and keeps nothing. It is there when it has the first bytes: one without an
// id that comes later starts later.
async function checking(client, shell, more) {
  const discard = (event) => assertPattern('lines', event.from, event.bytes);
  const viewer = await view(client, shell, { checkEvery: 500, discard, ...more });
  await has(viewer, 64);
  return viewer;
}
const has = (viewer, offset) =>
  viewer.when(() => viewer.position?.offset >= offset, `output to ${offset}`, DEADLINE_MS * 6);

// Leaves; fails when it was told of a hole.
async function sawAll(viewer, shell) {
  await has(viewer, shell.written);
  const resets = [];
  for (let event = {}; event.offset !== shell.written || event.event !== 'output'; ) {
    event = await viewer.next();
    if (event.event === 'reset') resets.push(`${event.raw} of ${shell.written}`);
  }
  viewer.close();
  assert.deepEqual(resets, [], viewer.path);
  assert.equal(viewer.outputBytes, shell.written);
}

test('passes a flood to viewers at all replicas at once, every byte', { timeout: DEADLINE_MS * 8 }, async () => {
  const shell = await create('lines');
  const viewers = await Promise.all([
    ...[A, B, C, B].map((client) => checking(client, shell)),
    ...[B, C].map((client) => checking(client, shell, { format: 'text' })),
  ]);
  // As fast as the slowest takes it: it must never fall off.
  for (let left = scaled(24 * MB); left > 0; left -= MB / 4) {
    await shell.write(MB / 4);
    for (const viewer of viewers) await has(viewer, shell.written - MB / 2);
  }
  for (const viewer of viewers) await sawAll(viewer, shell);
});

test('slows a flood down for a viewer at another replica that keeps up', { timeout: DEADLINE_MS * 8 }, async () => {
  const shell = await create('lines');
  const viewer = await checking(B, shell);
  await shell.write(scaled(48 * MB));
  await sawAll(viewer, shell);
});

test('lets a viewer elsewhere that does not read fall behind, and holds up nobody else', { timeout: DEADLINE_MS * 8 }, async () => {
  const shell = await create('lines');
  const stopped = await checking(B, shell);
  stopped.pause();
  const fast = await checking(C, shell);
  await shell.write(scaled(120 * MB));
  await sawAll(fast, shell);
  stopped.resume();
  await has(stopped, shell.written);
  const events = [];
  while (events.at(-1)?.offset !== shell.written) events.push(await stopped.next());
  const reasons = new Set(events.filter((e) => e.event === 'reset').map(({ data }) => data.reason));
  assert.deepEqual([...reasons], ['gap']);
  stopped.close();
});

test('gives a stream at another replica before the session is open, and all that follows', async () => {
  const id = name('early');
  const command = ['sh', '-c', 'echo hello; exit 3'];
  (await A.post('/sessions', { json: { sandbox: 'local', id, command } })).is(201);
  const streams = await everywhere((client) => EventStream.open(client, id));
  for (const stream of streams) {
    const { text, events } = await stream.rest();
    assert.equal(text, 'hello\r\n');
    assert.deepEqual(events.at(-1).data, { reason: 'exited', exit_code: 3, signal: null });
  }
});

test('answers 204 behind the exit at every replica, and holds at none', async () => {
  const shell = await create('lines', { first: 500, exit: 9 });
  await shell.ended();
  await everywhere(async (client) => {
    for (let round = 0; round < 2; round++) {
      assert.equal((await view(client, shell, { lastEventId: shell.idAt(501) })).status, 204);
      const late = await view(client, shell, { lastEventId: shell.idAt(500) });
      const { events, bytes } = await late.rest();
      assert.deepEqual([bytes.length, events.at(-1).id, events.at(-1).data.exit_code], [0, shell.idAt(501), 9]);
      const whole = await (await view(client, shell)).rest();
      shell.assert(0, whole.bytes);
      assert.equal(whole.bytes.length, 500);
    }
    const ahead = await view(client, shell, { lastEventId: shell.idAt(502) });
    assert.equal((await ahead.until((e) => e.event === 'reset')).at(-1).data.reason, 'ahead');
    assert.equal((await ahead.rest()).events.at(-1).event, 'exit');
  });
});

test('serves a WebSocket at another replica: output, input in order, size, signal, exit', async () => {
  for (const mode of ['text', 'binary']) {
    const shell = await create('utf8', { first: 160 });
    const sockets = await Promise.all([B, C].map((client) => Socket.open(client, shell.id, { mode, since: shell.idAt(16) })));
    for (const socket of sockets) {
      const messages = await socket.to(160);
      assert.equal(messages[0].event, 'state');
      const outputs = messages.filter(({ event }) => event === 'output');
      assert.equal(outputs[0].from, 16);
      shell.assert(16, Buffer.concat(outputs.map(({ bytes }) => bytes)));
    }
    const [b, c] = sockets;
    b.send({ type: 'client', id: `${shell.id}-ws` });
    const count = scaled(40);
    for (let seq = 1; seq <= count; seq++) b.input(seq, 'w 16\n');
    for (let seq = 1; seq <= count; seq++) assert.equal((await b.first('ack')).seq, seq);
    b.input(1, 'w 16\n'); // once more
    assert.equal((await b.first('ack')).seq, 1);
    await shell.reached(160 + 16 * count);
    b.send({ type: 'resize', cols: 99, rows: 33 });
    const size = await c.first('resize');
    assert.deepEqual([size.cols, size.rows, size.offset], [99, 33, 160 + 16 * count]);
    c.send({ type: 'signal', signal: 'USR1' });
    const said = await b.until(({ event, offset }) => event === 'output' && offset >= 160 + 16 * count + 6);
    assert.match(Buffer.concat(said.filter(({ bytes }) => bytes).map(({ bytes }) => bytes)).toString('latin1'), /\[USR1\]$/);
    await shell.exit(4);
    for (const socket of sockets) {
      assert.equal((await socket.first('exit')).exit_code, 4);
      assert.equal(await socket.end(), 1000);
    }
  }
});

test('stops asking the owner when nobody looks, and asks again for the next', async () => {
  const shell = await create('lines', { first: 1000 });
  for (let round = 0; round < 3; round++) {
    const viewers = await Promise.all([view(B, shell), view(B, shell, { format: 'text' })]);
    for (const viewer of viewers) await viewer.to(shell.written);
    await shell.write(5000);
    for (const viewer of viewers) {
      await viewer.to(shell.written);
      viewer.close();
    }
    await shell.write(5000); // seen by nobody
    await shell.reached(shell.written);
  }
  const again = await view(B, shell);
  shell.assert(0, (await again.to(shell.written)).bytes);
  again.close();
});
