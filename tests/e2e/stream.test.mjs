// stream.test.mjs -- the rules of GET /sessions/{id}/stream, one by one. Those that hold for every
// event (state first, ids, nothing after exit, no byte lost or twice) are in lib/sse.mjs.
import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before } from 'node:test';
import { scaled } from './lib/flavour.mjs';
import { PatternShell, pattern } from './lib/pattern.mjs';
import { Service, keys, test } from './lib/service.mjs';
import { EventStream } from './lib/sse.mjs';
import { until, within } from './lib/wait.mjs';

let service, alice;

before(async () => {
  service = await Service.start({ args: ['--journal-bytes', '128K', '--retry-ms', '777'] });
  alice = service.client();
});
after(() => service?.stop());

const resize = (shell, cols, rows) => alice.post(`${shell.path}/resize`, { json: { cols, rows } });

test('starts with retry and state, and has the headers that keep proxies from holding it', async () => {
  const shell = await PatternShell.create(alice, 'lines', { first: 300, cols: 90, rows: 33 });
  const stream = await shell.view();
  const state = await stream.next();
  assert.deepEqual(state.data, { state: 'open', epoch: shell.epoch, offset: 300, cols: 90, rows: 33 });
  assert.deepEqual(stream.retries, [777]);
  const { headers } = stream;
  assert.match(headers['content-type'], /^text\/event-stream(; *charset=utf-8)?$/i);
  assert.equal(headers['cache-control'], 'no-cache, no-transform');
  assert.equal(headers['x-accel-buffering'], 'no');
  assert.equal(headers['content-length'], undefined);
  assert.equal(headers['set-cookie'], undefined);
  const { bytes, from, to } = await stream.to(300);
  assert.deepEqual([from, to], [0, 300]);
  shell.assert(0, bytes);
  stream.close();
});

test('is plain lines to an HTTP/1.0 client', async () => {
  const shell = await PatternShell.create(alice, 'lines', { first: 10, exit: 4 });
  await shell.ended();
  const socket = net.connect(service.port, '127.0.0.1');
  socket.write(`GET ${shell.path}/stream HTTP/1.0\r\nAuthorization: Bearer ${keys.admin}\r\n\r\n`);
  let text = '';
  socket.on('data', (chunk) => (text += chunk));
  await within(new Promise((resolve) => socket.on('close', resolve)), 'end');
  const body = text.slice(text.indexOf('\r\n\r\n') + 4);
  const state = `{"state":"ended","reason":"exited","epoch":"${shell.epoch}","offset":10,"cols":80,"rows":24}`;
  assert.match(body, /^retry: 777\n\n/);
  const blocks = body.split('\n\n');
  assert.match(blocks[1], /^event: state\ndata: \{"state":"ended"/);
  assert.equal(blocks[2], `id: ${shell.epoch}:10\nevent: output\ndata: {"data":"0000000000"}`);
  assert.equal(blocks[3], `id: ${shell.epoch}:11\nevent: exit\ndata: {"reason":"exited","exit_code":4,"signal":null}`);
  assert.equal(blocks[4], '');
  assert.ok(state);
});

test('gives output while it comes, with the offset behind it as id', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const stream = await shell.view({ since: shell.idAt(64) });
  assert.equal((await stream.next()).event, 'state');
  for (let round = 0; round < 20; round++) {
    await shell.write(100 + round);
    const { bytes, from, to } = await stream.to(shell.written);
    assert.deepEqual([from, to], [shell.written - 100 - round, shell.written]);
    shell.assert(from, bytes);
  }
  stream.close();
});

test('gives the same to all its viewers, whenever they came', async () => {
  const shell = await PatternShell.create(alice, 'utf8');
  const viewers = [];
  for (let i = 0; i < 30; i++) {
    viewers.push(await shell.view({ format: i % 3 ? 'base64' : 'text' }));
    await shell.write(500);
  }
  await shell.exit(9);
  const expected = pattern('utf8', 0, shell.written);
  for (const viewer of viewers) {
    const { bytes, events } = await viewer.rest();
    assert.ok(bytes.equals(viewer.format === 'text' ? Buffer.from(expected.toString('utf8')) : expected));
    assert.equal(events.at(-1).data.exit_code, 9);
  }
});

test('cuts output in events of at most 8 KiB', async () => {
  const shell = await PatternShell.create(alice, 'line', { first: 100_000 });
  const stream = await shell.view();
  const { events, bytes } = await stream.to(100_000);
  shell.assert(0, bytes);
  assert.ok(events.length >= 100_000 / 8192);
  stream.close();
});

test('opens on a session that is not open yet', async () => {
  const { id } = (
    await alice.post('/sessions', { json: { sandbox: 'local', command: ['sh', '-c', 'echo hello; exit 1'] } })
  ).is(201).json;
  const stream = await EventStream.open(alice, id);
  const { events, text } = await stream.rest();
  assert.equal(text, 'hello\r\n');
  const states = events.filter((e) => e.event === 'state').map((e) => e.data.state);
  const order = ['provisioning', 'connecting', 'open', 'ended'];
  assert.deepEqual(
    [...states].sort((a, b) => order.indexOf(a) - order.indexOf(b)),
    states,
  );
  assert.equal(events.at(-1).event, 'exit');
});

test('resumes behind since, and Last-Event-ID wins over it', async () => {
  const shell = await PatternShell.create(alice, 'lines', { first: 1000 });
  const from = async (options) => {
    const stream = await shell.view(options);
    const result = await stream.to(1000);
    stream.close();
    shell.assert(result.from, result.bytes);
    return result.from;
  };
  assert.equal(await from({ since: shell.idAt(0) }), 0);
  assert.equal(await from({ since: shell.idAt(700) }), 700);
  assert.equal(await from({ lastEventId: shell.idAt(999) }), 999);
  assert.equal(await from({ since: shell.idAt(200), lastEventId: shell.idAt(900) }), 900);
  assert.equal(await from({ since: shell.idAt(900), lastEventId: shell.idAt(200) }), 200);
  assert.equal(await from({ since: shell.idAt(500), lastEventId: '' }), 500);
  assert.equal(await from({ lastEventId: '' }), 0);
});

test('answers an id that is ahead, of another epoch, or none with a reset', async () => {
  const shell = await PatternShell.create(alice, 'lines', { first: 1000 });
  const other = `${'0123456789abcdef' === shell.epoch ? 'f' : '0'}123456789abcdef`;
  for (const [options, reason] of [
    [{ since: shell.idAt(1001) }, 'ahead'],
    [{ since: shell.idAt('9223372036854775807') }, 'ahead'],
    [{ lastEventId: shell.idAt(5000) }, 'ahead'],
    [{ since: `${other}:10` }, 'epoch'],
    [{ lastEventId: `${other}:0` }, 'epoch'],
    [{ lastEventId: 'nonsense' }, 'epoch'],
    [{ lastEventId: shell.epoch }, 'epoch'],
    [{ lastEventId: `${shell.epoch}:-1` }, 'epoch'],
    [{ lastEventId: `${shell.epoch}:99999999999999999999999` }, 'epoch'],
    [{ lastEventId: `${shell.epoch.toUpperCase().padEnd(17, 'x')}:0` }, 'epoch'],
    [{ lastEventId: 'x'.repeat(3000) }, 'epoch'],
  ]) {
    const stream = await shell.view(options);
    const state = await stream.next();
    assert.equal(state.data.offset, 1000);
    const reset = await stream.next();
    assert.equal(reset.event, 'reset', JSON.stringify(options).slice(0, 80));
    assert.deepEqual(reset.data, { reason, offset: 0 });
    assert.equal(reset.id, shell.idAt(0));
    const { bytes, from } = await stream.to(1000);
    assert.equal(from, 0);
    shell.assert(0, bytes);
    stream.close();
  }
});

test('refuses a since that is no id, and a format that is none', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  for (const since of [
    'nonsense',
    '5',
    `${shell.epoch}`,
    `${shell.epoch}:`,
    `${shell.epoch}:-1`,
    `${shell.epoch}:1x`,
    `:${64}`,
    `${shell.epoch}:99999999999999999999999`,
  ]) {
    const stream = await shell.view({ since });
    assert.equal(stream.status, 400, since);
    assert.equal(stream.problem.type, '/problems/bad-request');
    assert.equal(stream.problem.field, 'since');
  }
  for (const format of ['hex', 'TEXT', 'base64,text']) {
    const stream = await shell.view({ format });
    assert.equal(stream.status, 400, format);
    assert.equal(stream.problem.field, 'format');
  }
});

test('says gap when the bytes are gone, and goes on at a line start in the newest 64 KiB', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  await shell.write(1_000_000);
  await shell.reached(shell.written);
  const head = shell.written;
  for (const since of [0, 1, 64, 500_000]) {
    const stream = await shell.view({ since: shell.idAt(since) });
    const reset = (await stream.until((e) => e.event === 'reset')).at(-1);
    assert.equal(reset.data.reason, 'gap');
    const { offset } = reset.data;
    assert.ok(offset >= head - 65536 && offset < head - 65536 + 65, `${offset} of ${head}`);
    assert.equal(offset % 64, 0, 'a line starts there');
    const { bytes, from } = await stream.to(head);
    assert.equal(from, offset);
    shell.assert(from, bytes);
    stream.close();
  }
  // What is still held is served without one, and a viewer without an id starts at the oldest byte held.
  const near = await shell.view({ since: shell.idAt(head - 100_000) });
  assert.equal((await near.to(head)).from, head - 100_000);
  near.close();
  const stream = await shell.view();
  const all = await stream.to(head);
  assert.ok(all.names.every((name) => name !== 'reset'));
  assert.ok(
    head - all.from >= 128 << 10 && head - all.from <= (128 << 10) + (384 << 10),
    `${head - all.from} are held`,
  );
  shell.assert(all.from, all.bytes);
  stream.close();
});

test('goes on at a character start after a gap in output without lines', async () => {
  const shell = await PatternShell.create(alice, 'utf8');
  for (let i = 0; i < 6; i++) {
    await shell.write(700_000 + i);
    await shell.reached(shell.written);
    const stream = await shell.view({ since: shell.idAt(0), format: 'text' });
    const reset = await stream.first('reset');
    assert.equal(reset.data.reason, 'gap');
    assert.ok(shell.written - reset.data.offset <= 65536);
    const first = pattern('utf8', reset.data.offset, reset.data.offset + 1)[0];
    assert.notEqual(first & 0xc0, 0x80, 'a character starts there');
    const { text } = await stream.to(shell.written - 32);
    assert.doesNotMatch(text, /\ufffd/);
    stream.close();
  }
});

test('tells a change of size where it stands, and again to whom resumes there', async () => {
  const shell = await PatternShell.create(alice, 'lines', { first: 100, cols: 80, rows: 24 });
  const live = await shell.view();
  await live.to(100);
  (await resize(shell, 100, 30)).is(204);
  const event = await live.next();
  assert.equal(event.event, 'resize');
  assert.deepEqual(event.data, { cols: 100, rows: 30 });
  assert.equal(event.id, shell.idAt(100));
  await shell.type('z\n');
  assert.equal((await live.next()).bytes.toString(), '[100x30]');
  const head = 108;
  // The same size again is no change; the other events come at their places.
  (await resize(shell, 100, 30)).is(204);
  (await resize(shell, 1, 1)).is(204);
  (await resize(shell, 1000, 1000)).is(204);
  const events = await live.until((e) => e.event === 'resize' && e.data.cols === 1000);
  assert.ok(events.length <= 2);
  await shell.type('z\n');
  assert.equal((await live.next()).bytes.toString(), '[1000x1000]');
  const session = await shell.info();
  assert.deepEqual([session.cols, session.rows], [1000, 1000]);

  const resumed = async (offset) => {
    const stream = await shell.view({ since: shell.idAt(offset) });
    const seen = await stream.until((e) => e.offset === head + 11 && e.event === 'output');
    stream.close();
    return seen.map((e) =>
      e.event === 'output' ? `${e.from}-${e.offset}` : e.event === 'resize' ? `${e.data.cols}@${e.offset}` : e.event,
    );
  };
  const tail = events.length === 2 ? ['1@108', '1000@108', '108-119'] : ['1000@108', '108-119'];
  assert.deepEqual(await resumed(100), ['state', '100@100', '100-108', ...tail]);
  assert.deepEqual((await resumed(104)).slice(-1 - tail.length), ['104-108', ...tail]);
  assert.deepEqual(await resumed(108), ['state', ...tail]);
  assert.deepEqual(await resumed(0), ['state', '80@0', '0-100', '100@100', '100-108', ...tail]);
  live.close();
});

test('refuses sizes that are none', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  for (const [json, field] of [
    [{}, 'cols'],
    [{ cols: 80 }, 'rows'],
    [{ cols: 0, rows: 24 }, 'cols'],
    [{ cols: 80, rows: 1001 }, 'rows'],
    [{ cols: '80', rows: 24 }, 'cols'],
    [{ cols: 80.5, rows: 24 }, 'cols'],
    [{ cols: 80, rows: null }, 'rows'],
    [{ cols: 80, rows: 24, x: 1 }, 'x'],
    [{ cols: -1, rows: 24 }, 'cols'],
    [{ cols: 65616, rows: 24 }, 'cols'],
  ])
    (await alice.post(`${shell.path}/resize`, { json })).isProblem(400, 'bad-request', { field });
  (await alice.post(`${shell.path}/resize`, { body: '{', headers: { 'Content-Type': 'application/json' } })).isProblem(
    400,
    'bad-json',
  );
  (await alice.post(`${shell.path}/resize`, { body: '{}' })).isProblem(415, 'unsupported-media-type');
  (await alice.post(`${shell.path}/resize`, { json: { cols: 80, rows: 24, pad: 'x'.repeat(8192) } })).isProblem(
    413,
    'payload-too-large',
  );
  const { cols, rows } = await shell.info();
  assert.deepEqual([cols, rows], [80, 24]);
});

test('has exit as its last event, also for those who come late, and then 204', async () => {
  const shell = await PatternShell.create(alice, 'lines', { first: 500 });
  const live = await shell.view();
  await live.to(500);
  await shell.exit(42);
  const { events } = await live.rest();
  const exit = events.at(-1);
  assert.equal(exit.event, 'exit');
  assert.deepEqual(exit.data, { reason: 'exited', exit_code: 42, signal: null });
  assert.equal(exit.id, shell.idAt(501));

  const late = await (await shell.view()).rest();
  assert.equal(late.events[0].data.state, 'ended');
  assert.equal(late.events[0].data.offset, 500);
  shell.assert(0, late.bytes);
  assert.equal(late.bytes.length, 500);
  assert.deepEqual(late.events.at(-1).data, exit.data);
  assert.equal(late.events.at(-1).id, exit.id);

  const atEnd = await (await shell.view({ since: shell.idAt(500) })).rest();
  assert.deepEqual(atEnd.names, ['state', 'exit']);
  const middle = await (await shell.view({ lastEventId: shell.idAt(123) })).rest();
  assert.deepEqual([middle.from, middle.to], [123, 500]);

  for (const options of [
    { since: shell.idAt(501) },
    { lastEventId: shell.idAt(501) },
    { since: shell.idAt(0), lastEventId: shell.idAt(501) },
    { lastEventId: exit.id, format: 'text' },
  ]) {
    const stream = await shell.view(options);
    assert.equal(stream.status, 204);
  }
  const ahead = await (await shell.view({ since: shell.idAt(502) })).rest();
  assert.deepEqual(ahead.names.slice(0, 2), ['state', 'reset']);
  assert.deepEqual(ahead.events[1].data, { reason: 'ahead', offset: 0 });
  assert.equal(ahead.names.at(-1), 'exit');
  const stale = await (await shell.view({ lastEventId: `fedcba9876543210:501` })).rest();
  assert.equal(stale.events[1].data.reason, 'epoch');
});

test('tells of a program that is killed', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const stream = await shell.view();
  await shell.type('k\n');
  const { events } = await stream.rest();
  assert.deepEqual(events.at(-1).data, { reason: 'exited', exit_code: null, signal: 'SIGKILL' });
});

test('pings viewers to whom nothing is said', async (t) => {
  const quick = await t.start({ args: ['--ping-s', '1'] });
  const shell = await PatternShell.create(quick.client(), 'lines');
  const stream = await shell.view();
  await stream.when(() => stream.comments.length >= 2, 'two pings');
  assert.ok(
    stream.comments.every((comment) => comment === ': ping'),
    stream.comments.join(),
  );
  await shell.write(10);
  await stream.to(74);
  stream.close();
});

test('rotates old streams; a viewer that comes back misses nothing', async (t) => {
  const quick = await t.start({ args: ['--max-stream-age-s', '1'] });
  const shell = await PatternShell.create(quick.client(), 'lines');
  await shell.write(300_000, 100); // 3000 pieces with a pause: some seconds
  let stream = await shell.view();
  let rotations = 0;
  const pieces = [];
  for (;;) {
    const { bytes, events } = await stream.rest();
    assert.ok(events.every((e) => e.event !== 'exit' && e.event !== 'reset'));
    pieces.push(bytes);
    rotations++;
    if (stream.position.offset >= shell.written) break;
    stream = await shell.view({ lastEventId: shell.idAt(stream.position.offset) });
  }
  assert.ok(rotations >= 2, `${rotations} streams`);
  const all = Buffer.concat(pieces);
  assert.equal(all.length, shell.written);
  shell.assert(0, all);
});

test('drains at SIGTERM: viewers get what there is, another retry, and an end without exit', async () => {
  const stopped = await Service.start({ args: ['--local-on-stop', 'keep', '--alone-s', '1', '--retry-ms', '1000'] });
  let exit;
  try {
    const shell = await PatternShell.create(stopped.client(), 'lines', { first: 50_000 });
    const viewers = await Promise.all(Array.from({ length: 20 }, () => shell.view()));
    await Promise.all(viewers.map((viewer) => viewer.to(50_000)));
    stopped.terminate();
    const ends = await Promise.all(viewers.map((viewer) => viewer.rest()));
    for (const { names } of ends) assert.ok(!names.includes('exit') && !names.includes('reset'), names.join());
    const retries = viewers.map((viewer) => viewer.retries.at(-1));
    for (const viewer of viewers) assert.equal(viewer.retries.length, 2);
    assert.ok(new Set(retries).size > 3, `jittered: ${retries}`);
    exit = await within(stopped.process.exit, 'end of the service');
  } finally {
    await stopped.stop();
  }
  assert.deepEqual(exit, { code: 0, signal: null });
});

test('ends its local shells at SIGTERM when told so', async () => {
  const stopped = await Service.start();
  try {
    const shell = await PatternShell.create(stopped.client(), 'lines', { first: 100 });
    const viewer = await shell.view();
    await viewer.to(100);
    stopped.terminate();
    await viewer.rest();
    await within(stopped.process.exit, 'end of the service');
  } finally {
    await stopped.stop();
  }
});

test('has limits on viewers, of a session and of all, with 503 and a Retry-After that differs', async (t) => {
  const small = await t.start({ args: ['--max-viewers-per-session', '2', '--max-viewers', '3'] });
  const client = small.client();
  const one = await PatternShell.create(client, 'lines');
  const two = await PatternShell.create(client, 'lines');
  const held = [await one.view(), await one.view()];
  const refused = async (shell) => {
    const stream = await shell.view();
    assert.equal(stream.status, 503);
    assert.equal(stream.problem.type, '/problems/viewer-limit');
    return Number(stream.headers['retry-after']);
  };
  const times = new Set();
  for (let i = 0; i < 20; i++) times.add(await refused(one));
  assert.ok(times.size > 1, `jittered: ${[...times]}`);
  held.push(await two.view());
  await refused(two);
  held[0].close();
  const again = await until(async () => {
    const stream = await two.view();
    return stream.status === 200 && stream;
  }, 'room for a viewer');
  again.close();
  for (const stream of held) stream.close();
  await until(async () => (await client.metric('ptycast_viewers{kind="sse"}')) === 0, 'no viewers are counted');
});

test('forgets viewers that have gone, however they went', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  await until(async () => (await alice.metric('ptycast_viewers{kind="sse"}')) === 0, 'none at first');
  const viewers = await Promise.all(Array.from({ length: scaled(100) }, () => shell.view()));
  await until(async () => (await alice.metric('ptycast_viewers{kind="sse"}')) === viewers.length, 'all are counted');
  viewers.forEach((viewer, i) => (i % 2 ? viewer.close() : viewer.response.socket.resetAndDestroy()));
  await until(async () => (await alice.metric('ptycast_viewers{kind="sse"}')) === 0, 'none at last');
});

test('writes JSON that a strict reader takes, whatever the bytes', async () => {
  const { id } = await alice.createOpen({
    sandbox: 'local',
    command: ['printf', '\\001\\037"\\\\/\\177\\b\\f\\t\u2028\u2029\\357\\273\\277</script>\\033[31m'],
  });
  const { events, text } = await (await EventStream.open(alice, id)).rest();
  assert.equal(text, '\x01\x1f"\\/\x7f\b\f\t\u2028\u2029\ufeff</script>\x1b[31m');
  for (const { raw } of events.filter((e) => e.event === 'output')) assert.doesNotMatch(raw, /[\0-\x1f]/);
});
