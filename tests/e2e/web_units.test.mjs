// web_units.test.mjs -- the parts of the page that need no browser: where the output stands, and the
// queue of what is typed.
import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import { test } from 'node:test';

globalThis.crypto ??= webcrypto; // Node 18
const { ApiError } = await import('../../web/api.js');
const { backoffMs } = await import('../../web/backoff.js');
const { InputQueue } = await import('../../web/input_queue.js');
const { OutputCursor, parseId } = await import('../../web/output_cursor.js');
const { ReplayMark } = await import('../../web/replay_mark.js');
const { describeAge, describeEnd, describeStatus } = await import('../../web/session_words.js');

const bytes = (text) => new TextEncoder().encode(text);
const text = (data) => new TextDecoder().decode(data);
const turn = () => new Promise((resolve) => setImmediate(resolve));

test('a cursor takes each byte once, wherever a repeat begins and ends', () => {
  const all = bytes('0123456789');
  for (let from = 0; from <= 6; from++)
    for (let to = from; to <= 10; to++) {
      const cursor = new OutputCursor();
      cursor.reset('00000000000000aa', 0);
      let shown = text(cursor.take(all.subarray(0, 6), 6));
      shown += text(cursor.take(all.subarray(from, to), to));
      assert.equal(shown, '0123456789'.slice(0, Math.max(6, to)), `repeat of ${from} to ${to}`);
      assert.equal(cursor.since, `00000000000000aa:${Math.max(6, to)}`);
    }
});

test('a cursor says when bytes are missing, and starts where the first bytes start', () => {
  const cursor = new OutputCursor();
  assert.equal(cursor.since, null);
  assert.equal(text(cursor.take(bytes('abc'), 103)), 'abc');
  assert.equal(cursor.take(bytes('x'), 105), null);
  assert.equal(cursor.offset, 103);
  cursor.reset('00000000000000bb', 500);
  assert.equal(text(cursor.take(bytes('yz'), 502)), 'yz');
  assert.equal(cursor.since, '00000000000000bb:502');
});

test('an id is EPOCH:OFFSET and nothing else', () => {
  assert.deepEqual(parseId('3f9c5a0e77b1d204:4096'), { epoch: '3f9c5a0e77b1d204', offset: 4096 });
  for (const bad of ['', null, undefined, '3f9c5a0e77b1d204', '3f9c5a0e77b1d204:', ':1', '3F9C5A0E77B1D204:1', 'x:1'])
    assert.equal(parseId(bad), null);
});

const EPOCH = '00000000000000aa';
const open = (offset, epoch = EPOCH) => ({ state: 'open', epoch, offset, cols: 80, rows: 24 });
// What a replica says of a session that it cannot ask for: without a size.
const notNow = { state: 'reconnecting', reason: 'the store cannot be asked for it now', epoch: null, offset: null };

function marked(answersAll, cursor, ...events) {
  const mark = new ReplayMark(answersAll);
  for (const event of events) {
    mark.streamBegins();
    mark.told(event, cursor);
  }
  return mark;
}

test('output that was there before this page came is a replay, unless the page opened the session', () => {
  const cursor = new OutputCursor();
  assert.equal(marked(false, cursor, open(100)).until, 100);
  assert.equal(marked(false, cursor, open(0)).until, null);
  assert.equal(marked(true, cursor, open(100)).until, null);
  cursor.reset(EPOCH, 60);
  assert.equal(marked(false, cursor, open(100)).until, 100);
  assert.equal(marked(false, cursor, open(60)).until, null);
  assert.equal(marked(false, cursor, open(50, '00000000000000bb')).until, 50, 'of another epoch nothing was seen');
  // Only what was missed meanwhile is one for the page that opened it.
  assert.equal(marked(true, cursor, open(60), open(100)).until, 100);
});

test('a state that knows nothing of the session changes nothing: the next one counts', () => {
  const cursor = new OutputCursor();
  const mark = marked(true, cursor, notNow, notNow);
  assert.deepEqual([mark.isOpen, mark.until], [true, null]);
  mark.told(open(100), cursor);
  assert.deepEqual([mark.isOpen, mark.until], [false, null], 'it is still the page that opened it');
  assert.equal(marked(false, cursor, notNow, open(100)).until, 100);
  // A replay that was cut goes on.
  cursor.reset(EPOCH, 30);
  const cut = marked(false, cursor, open(100), notNow);
  assert.equal(cut.until, 100);
  cut.told(open(120), cursor);
  assert.equal(cut.until, 120);
});

test('the head may be told after the first state, and no later than the output', () => {
  const cursor = new OutputCursor();
  const unknown = { ...open(null), state: 'reconnecting' };
  const told = marked(false, cursor, unknown);
  told.told(open(100), cursor);
  assert.equal(told.until, 100);
  const never = marked(false, cursor, unknown);
  never.outputGoesOn();
  never.told(open(100), cursor);
  assert.equal(never.until, null);
  // A shell that is only made now has said nothing yet.
  const made = marked(false, cursor, { state: 'provisioning', epoch: null, offset: null, cols: 80, rows: 24 });
  made.told(open(100), cursor);
  assert.deepEqual([made.isOpen, made.until], [false, null]);
});

// A far end that is answered by hand, and an agent behind it that drops repeats.
function farEnd(options = {}) {
  const requests = [];
  const events = [];
  const retries = []; // {fn, ms}: the times are the test's
  const queue = new InputQueue({
    client: 'first',
    later: (fn, ms) => {
      const retry = { fn, ms };
      retries.push(retry);
      return () => retries.splice(retries.indexOf(retry), 1);
    },
    send: (client, seq, data) =>
      new Promise((resolve, reject) => requests.push({ client, seq, data: text(data), resolve, reject })),
    on: {
      delayed: (error) => events.push(`delayed ${error.status}`),
      delivered: () => events.push('delivered'),
      refused: (error) => events.push(`refused ${error.slug}`),
    },
    ...options,
  });
  return { queue, requests, events, retries };
}

test('one request is under way, and what is typed meanwhile goes together', async () => {
  const { queue, requests } = farEnd();
  for (const key of 'hello') queue.push(bytes(key));
  assert.deepEqual(requests.map((r) => [r.seq, r.data]), [[1, 'h']]);
  requests[0].resolve();
  await turn();
  assert.deepEqual(requests.map((r) => [r.seq, r.data]), [[1, 'h'], [2, 'ello']]);
  assert.equal(queue.pendingBytes, 4);
});

test('a large paste goes in pieces of 64 KiB, and too large a one is not taken at all', async () => {
  const { queue, requests } = farEnd();
  assert.equal(queue.push(new Uint8Array(17 * 1024 * 1024)), false);
  assert.equal(queue.push(bytes('x'.repeat(150_000))), true);
  for (let i = 0; i < 3; i++) {
    requests[i].resolve();
    await turn();
  }
  assert.deepEqual(requests.map((r) => r.data.length), [65536, 65536, 150_000 - 2 * 65536]);
});

test('what failed is repeated under its number, and what came later waits', async () => {
  const { queue, requests, events, retries } = farEnd();
  queue.push(bytes('a'));
  requests[0].reject(new ApiError(0, 'network', ''));
  await turn();
  queue.push(bytes('b'));
  assert.equal(requests.length, 1);
  retries[0].fn();
  assert.deepEqual([requests[1].seq, requests[1].data], [1, 'a']);
  requests[1].reject(new ApiError(503, 'not-delivered', '', { retryAfterMs: 3000 }));
  await turn();
  assert.ok(retries[0].ms >= 3000, 'not before Retry-After');
  retries[0].fn();
  requests[2].resolve();
  await turn();
  assert.deepEqual([requests[3].seq, requests[3].data], [2, 'b']);
  assert.deepEqual(events, ['delayed 0', 'delayed 503', 'delivered']);
});

test('a way that opens again is used at once', async () => {
  const { queue, requests } = farEnd();
  queue.push(bytes('a'));
  requests[0].reject(new ApiError(0, 'network', ''));
  await turn();
  queue.retryNow();
  assert.equal(requests.length, 2);
  queue.retryNow(); // it is under way already
  assert.equal(requests.length, 2);
  queue.stop();
});

test('a far end that forgot our numbers gets them from a new client, in the same order', async () => {
  const { queue, requests, events, retries } = farEnd({ window: () => 3 });
  queue.push(bytes('a'));
  requests[0].resolve();
  await turn();
  for (const key of 'bcd') queue.push(bytes(key));
  assert.deepEqual(requests.slice(1).map((r) => r.seq), [2, 3, 4]);
  const gap = () => new ApiError(409, 'input-gap', '', { problem: { expected: 1 } });
  for (const r of requests.slice(1, 4)) r.reject(gap());
  await turn();
  while (retries.length) retries[0].fn();
  await turn();
  const again = requests.slice(4);
  assert.notEqual(queue.client, 'first');
  assert.deepEqual(again.slice(-3).map((r) => [r.client, r.seq, r.data]), [
    [queue.client, 1, 'b'],
    [queue.client, 2, 'c'],
    [queue.client, 3, 'd'],
  ]);
  assert.ok(!events.some((event) => event.startsWith('refused')));
});

test('an earlier message of ours that is late is waited for', async () => {
  const { queue, requests } = farEnd({ window: () => 2 });
  queue.push(bytes('a'));
  queue.push(bytes('b'));
  requests[1].reject(new ApiError(409, 'input-gap', '', { problem: { expected: 1 } }));
  await turn();
  assert.equal(queue.client, 'first');
  requests[0].reject(new ApiError(0, 'network', ''));
  await turn();
  queue.retryNow();
  assert.deepEqual(requests.slice(2).map((r) => [r.seq, r.data]), [[1, 'a'], [2, 'b']]);
  queue.stop();
});

test('an ended session drops what waits, a refused key keeps it', async () => {
  const ended = farEnd();
  ended.queue.push(bytes('a'));
  ended.requests[0].reject(new ApiError(409, 'session-ended', ''));
  await turn();
  assert.deepEqual(ended.events, ['refused session-ended']);
  assert.equal(ended.queue.pendingBytes, 0);

  const locked = farEnd();
  locked.queue.push(bytes('a'));
  locked.requests[0].reject(new ApiError(401, 'unauthorized', ''));
  await turn();
  locked.queue.push(bytes('b'));
  assert.equal(locked.requests.length, 1);
  locked.queue.unblock();
  assert.deepEqual([locked.requests[1].seq, locked.requests[1].data], [1, 'a']);
});

test('waiting grows, is jittered, and is never less than asked for', () => {
  const most = (failures, atLeast) => backoffMs(failures, atLeast, () => 1);
  const least = (failures, atLeast) => backoffMs(failures, atLeast, () => 0);
  assert.deepEqual([1, 2, 3, 20].map((n) => most(n)), [250, 500, 1000, 10_000]);
  assert.deepEqual([1, 2, 3, 20].map((n) => least(n)), [125, 250, 500, 5000]);
  assert.equal(least(1, 4000), 4000);
  assert.ok(most(1, 4000) > 4000);
});

test('says what is being done while a sandbox is made ready', () => {
  const told = (status) => describeStatus({ link: 'live', ...status }).text;
  assert.equal(told({ state: 'provisioning', step: 'install' }), 'Installing the agent…');
  assert.equal(told({ state: 'provisioning', step: 'something-new' }), 'Starting…');
  assert.equal(told({ state: 'connecting', step: 'connect' }), 'Connecting…');
  assert.equal(told({ state: 'open' }), 'Open');
});

test('words for ends and ages', () => {
  assert.equal(describeEnd({ reason: 'exited', exitCode: 0 }).text, 'Exited with code 0');
  assert.equal(describeEnd({ reason: 'exited', signal: 'SIGKILL' }).text, 'Ended by SIGKILL');
  assert.equal(describeEnd({ reason: 'exited' }).text, 'Exited');
  assert.deepEqual([0, 59_999, 60_000, 3_600_000, 90_000_000].map(describeAge), ['now', 'now', '1 min', '1 h', '1 d']);
});
