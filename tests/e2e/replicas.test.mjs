// replicas.test.mjs -- three replicas on one Redis: whichever is asked, a session is the same one, and does as it is told.
// Output is in replicas_stream, the death of replicas in replicas_takeover, that of Redis in replicas_redis.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { after, before } from 'node:test';
import { Cluster } from './lib/cluster.mjs';
import { program, scaled } from './lib/flavour.mjs';
import { PatternShell } from './lib/pattern.mjs';
import { keys, test } from './lib/service.mjs';
import { EventStream } from './lib/sse.mjs';
import { Typist } from './lib/typist.mjs';
import { until } from './lib/wait.mjs';
import { Socket } from './lib/ws.mjs';

let cluster, replicas, A, B, C;

before(async () => {
  cluster = await Cluster.start({ args: ['--input-gap-ms', '500', '--unauthorized-per-minute', '100000'] });
  ({ replicas } = cluster);
  [A, B, C] = replicas.map((replica) => replica.as());
});
after(() => cluster?.stop());

const name = (what) => `${what}-${randomBytes(4).toString('hex')}`;
const fileOf = (id) => `${cluster.redis.dir}/${id}`;
const everywhere = (fn) => Promise.all(replicas.map((replica, i) => fn(replica.as(), i, replica)));
const any = (i) => replicas[i % replicas.length].as();

// A session at A whose program keeps what is typed.
async function typing(how = 'raw', bytes) {
  const id = name('typed');
  const command = [program('tests/tools/typed'), how, fileOf(id), ...(bytes === undefined ? [] : [String(bytes)])];
  await A.createOpen({ sandbox: 'local', id, command });
  const stream = await EventStream.open(A, id);
  await stream.until((e) => e.data.data === 'ready');
  stream.close();
  const typed = () => readFileSync(fileOf(id), 'latin1');
  const has = async (expected) => {
    await until(() => typed().length >= expected.length, `${expected.length} bytes typed`).catch(() => {});
    assert.equal(typed(), expected);
  };
  return { id, path: `/sessions/${id}`, typed, has };
}

test('finds a session at every replica, the same everywhere, and for its subject alone', async () => {
  const shell = await PatternShell.create(A, 'lines', { id: name('found'), first: 640, cols: 91, rows: 31 });
  const seen = await everywhere(async (client) => (await client.get(shell.path)).is(200).json);
  for (const session of seen) assert.deepEqual(session, seen[0]);
  assert.deepEqual([seen[0].state, seen[0].offset, seen[0].cols], ['open', 640, 91]);
  await everywhere(async (client, i, replica) => {
    const bob = replica.as(keys.stranger);
    (await bob.get(shell.path)).isProblem(404, 'not-found');
    (await bob.delete(shell.path)).isProblem(404, 'not-found');
    (await bob.type(shell.id, 'x')).isProblem(404, 'not-found');
    (await bob.post(`${shell.path}/resize`, { json: { cols: 10, rows: 10 } })).isProblem(404, 'not-found');
    (await bob.post(`${shell.path}/signal`, { json: { signal: 'INT' } })).isProblem(404, 'not-found');
    (await bob.post(`${shell.path}/tickets`, { json: { role: 'view' } })).isProblem(404, 'not-found');
    assert.equal((await EventStream.open(bob, shell.id)).status, 404);
    assert.equal((await Socket.open(bob, shell.id)).refused.status, 404);
    (await client.get(`/sessions/${name('nobody')}`)).isProblem(404, 'not-found');
    (await replica.as(keys.operator).get(shell.path)).is(200);
    (await replica.as(keys.viewer).type(shell.id, 'x')).isProblem(403, 'forbidden');
  });
  assert.equal((await shell.info()).state, 'open');
});

test('lists what all replicas have, by pages and by state', async () => {
  const prefix = name('list');
  const ids = [];
  for (let i = 0; i < 6; i++) ids.push((await any(i).createOpen({ sandbox: 'local', id: `${prefix}-${i}`, command: ['cat'] })).id);
  (await C.delete(`/sessions/${ids[0]}`)).is(204);
  await until(async () => (await C.get(`/sessions/${ids[0]}`)).json.state === 'ended', 'end of the first');
  await replicas[1].as(keys.stranger).createOpen({ sandbox: 'local', id: `${prefix}-bob`, command: ['cat'] });
  const mine = async (client, query = '') => {
    const { sessions } = (await client.get(`/sessions?limit=200${query}`)).is(200).json;
    return sessions.filter(({ id }) => id.startsWith(prefix));
  };
  const lists = await everywhere((client) => mine(client));
  for (const list of lists) assert.deepEqual(list, lists[0]);
  assert.deepEqual(lists[0].map(({ id }) => id), ids);
  assert.deepEqual(lists[0].map(({ state }) => state), ['ended', 'open', 'open', 'open', 'open', 'open']);
  await everywhere(async (client, i, replica) => {
    assert.deepEqual((await mine(client, '&state=ended')).map(({ id }) => id), ids.slice(0, 1));
    assert.deepEqual((await mine(client, '&state=open')).map(({ id }) => id), ids.slice(1));
    assert.deepEqual((await mine(replica.as(keys.stranger))).map(({ id }) => id), [`${prefix}-bob`]);
    assert.equal((await mine(replica.as(keys.operator))).length, 7);
    const paged = [];
    for (let at = `${prefix}-`; at !== null;) {
      const { sessions, next } = (await client.get(`/sessions?limit=2&after=${at}`)).is(200).json;
      assert.ok(sessions.length <= 2);
      paged.push(...sessions.map(({ id }) => id).filter((id) => id.startsWith(prefix)));
      at = next;
    }
    assert.deepEqual(paged, ids);
  });
});

test('makes one shell when all replicas are asked for it at once', async () => {
  for (let round = 0; round < scaled(16); round++) {
    const id = name('once');
    const json = { sandbox: 'local', id, command: ['sh', '-c', `echo started >>${fileOf(id)}; exec cat`] };
    const answers = await Promise.all(
      [0, 1, 2, 3, 4, 5].map((i) => any(i).post(`/sessions${i % 2 ? '' : '?wait=open'}`, { json })),
    );
    const statuses = answers.map(({ status }) => status).sort();
    assert.deepEqual(statuses, [200, 200, 200, 200, 200, 201], answers.map(({ text }) => text).join('\n'));
    const [made] = await everywhere((client) => until(async () => {
      const { json: session } = (await client.get(`/sessions/${id}`)).is(200);
      return session.state === 'open' && session;
    }, `${id} is open`));
    for (const answer of answers) if (answer.json.epoch) assert.equal(answer.json.epoch, made.epoch);
    const starts = () => existsSync(fileOf(id)) && readFileSync(fileOf(id), 'utf8');
    await until(starts, 'start');
    (await any(round).delete(`/sessions/${id}`)).is(204);
    await until(async () => (await A.get(`/sessions/${id}`)).json.state === 'ended', 'end');
    assert.equal(starts(), 'started\n');
  }
});

test('refuses an id that is in use, wherever that is', async () => {
  const id = name('taken');
  const json = { sandbox: 'local', id, command: ['cat'] };
  await A.createOpen(json);
  await everywhere(async (client, i, replica) => {
    (await client.post('/sessions', { json })).is(200);
    (await client.post('/sessions?wait=open', { json })).is(200);
    (await client.post('/sessions', { json: { ...json, command: ['sh'] } })).isProblem(409, 'id-differs');
    (await client.post('/sessions', { json: { ...json, cols: 99 } })).isProblem(409, 'id-differs');
    (await replica.as(keys.stranger).post('/sessions', { json })).isProblem(409, 'id-taken');
  });
});

test('gives an id that has ended to a new session, made at any replica', async () => {
  const id = name('again');
  let before = null;
  for (let round = 0; round < scaled(6) + 2; round++) {
    const shell = await PatternShell.create(any(round), 'lines', { id, first: 100 + round });
    assert.notEqual(shell.epoch, before?.epoch);
    const seen = await everywhere(async (client) => (await client.get(`/sessions/${id}`)).is(200).json);
    for (const [i, session] of seen.entries())
      assert.equal(session.epoch, shell.epoch, `round ${round}: ${replicas[i].name} says ${JSON.stringify(session)}`);
    if (before) {
      // Whoever has an id of the one before is told that this is another.
      const late = await EventStream.open(any(round + 1), id, { lastEventId: before.idAt(50), format: 'base64' });
      const reset = (await late.until((e) => e.event === 'reset')).at(-1);
      assert.deepEqual([reset.data.reason, reset.offset, reset.epoch], ['epoch', 0, shell.epoch]);
      shell.assert(0, (await late.to(shell.written)).bytes);
      late.close();
    }
    const viewer = await EventStream.open(any(round + 2), id);
    if (round % 2) await shell.exit(round);
    else (await any(round + 1).delete(shell.path)).is(204);
    await viewer.first('exit');
    await everywhere((client) =>
      until(async () => (await client.get(`/sessions/${id}`)).json.state === 'ended', 'end'));
    before = shell;
  }
});

test('takes a ticket that another replica made: one use is one use over all', async () => {
  const shell = await PatternShell.create(A, 'lines', { id: name('ticket') });
  const nobody = replicas.map((replica) => replica.client(null));
  for (let round = 0; round < scaled(8); round++) {
    const ticket = await any(round).ticket(shell.id);
    const streams = await Promise.all(nobody.map((client) => EventStream.open(client, shell.id, { ticket })));
    assert.deepEqual(streams.map(({ status }) => status).sort(), [200, 401, 401]);
    // The cookie that came with it is good everywhere, beside the spent ticket too.
    const opened = streams.find(({ status }) => status === 200);
    const cookie = opened.headers['set-cookie'][0].split(';')[0];
    for (const client of nobody) {
      const again = await EventStream.open(client, shell.id, { ticket, headers: { Cookie: cookie } });
      assert.equal(again.status, 200);
      again.close();
    }
    for (const stream of streams) stream.close();
  }
  const lasting = await B.ticket(shell.id, { role: 'write', reusable: true });
  for (const client of nobody) {
    (await client.get(`${shell.path}?ticket=${lasting}`)).is(200);
    (await client.post(`${shell.path}/input?ticket=${lasting}`, { body: 'w 10\n' })).is(204);
    const socket = await Socket.open(client, shell.id, { ticket: lasting });
    await socket.first('state');
    socket.close();
  }
  await shell.reached(64 + 30);
  const once = await C.ticket(shell.id, { role: 'write' });
  (await nobody[1].post(`${shell.path}/input?ticket=${once}`, { body: 'w 10\n' })).is(204);
  await everywhere(async (client, i) =>
    (await nobody[i].post(`${shell.path}/input?ticket=${once}`, { body: 'w 10\n' })).isProblem(401, 'unauthorized'));
  (await nobody[2].get(`${shell.path}?ticket=${'x'.repeat(40)}`)).isProblem(401, 'unauthorized');
});

test('types, resizes and signals from every replica', async () => {
  const shell = await PatternShell.create(A, 'lines', { id: name('told') });
  const viewers = await everywhere((client) => EventStream.open(client, shell.id, { format: 'base64', since: shell.idAt(64) }));
  await everywhere((client, i) => viewers[i].first('state'));
  let offset = 64;
  const all = async (text) => {
    offset += Buffer.byteLength(text);
    for (const viewer of viewers) assert.equal((await viewer.to(offset)).bytes.toString(), text);
  };
  for (const [i, client] of [A, B, C].entries()) {
    (await client.post(`${shell.path}/resize`, { json: { cols: 100 + i, rows: 30 + i } })).is(204);
    for (const viewer of viewers) {
      const { data, offset: at } = await viewer.first('resize');
      assert.deepEqual([data, at], [{ cols: 100 + i, rows: 30 + i }, offset]);
    }
    await everywhere(async (one) => assert.equal((await one.get(shell.path)).json.cols, 100 + i));
    (await client.type(shell.id, 'z\n')).is(204);
    await all(`[${100 + i}x${30 + i}]`);
    (await client.post(`${shell.path}/signal`, { json: { signal: 'SIGUSR1' } })).is(204);
    await all('[USR1]');
    (await client.post(`${shell.path}/input`, { json: { keys: ['ctrl-c'] } })).is(204);
    await all('[INT]');
    (await client.post(`${shell.path}/input`, { json: { base64: Buffer.from('t hé\n').toString('base64') } })).is(204);
    await all('hé');
  }
  (await B.post(`${shell.path}/resize`, { json: { cols: 0, rows: 5 } })).isProblem(400, 'bad-request');
  (await B.post(`${shell.path}/signal`, { json: { signal: 'NONE' } })).isProblem(400, 'bad-request');
  await shell.exit(6);
  for (const viewer of viewers) assert.deepEqual((await viewer.first('exit')).data, { reason: 'exited', exit_code: 6, signal: null });
  await everywhere(async (client) => {
    (await client.type(shell.id, 'x')).isProblem(409, 'session-ended');
    (await client.post(`${shell.path}/resize`, { json: { cols: 10, rows: 10 } })).isProblem(409, 'session-ended');
    (await client.post(`${shell.path}/signal`, { json: { signal: 'INT' } })).isProblem(409, 'session-ended');
  });
});

test('closes and forgets a session from every replica', async () => {
  for (const i of [0, 1, 2]) {
    const shell = await PatternShell.create(A, 'lines', { id: name('closed') });
    const viewers = await everywhere((client) => EventStream.open(client, shell.id));
    (await any(i).delete(shell.path)).is(204);
    for (const viewer of viewers) assert.equal((await viewer.first('exit')).data.reason, 'closed');
    const seen = await everywhere((client) => until(async () => {
      const { json } = (await client.get(shell.path)).is(200);
      return json.state === 'ended' && json;
    }, 'end'));
    for (const session of seen) assert.deepEqual(session, seen[0]);
    assert.equal(seen[0].ended.reason, 'closed');
    (await any(i + 1).delete(shell.path)).is(204);
    await everywhere((client) => until(async () => (await client.get(shell.path)).status === 404, 'forgotten'));
    assert.deepEqual(await cluster.record(shell.id), {});
    (await any(i + 2).delete(shell.path)).isProblem(404, 'not-found');
  }
});

test('types large input from another replica, whole or not at all', async () => {
  const { id, has } = await typing('raw');
  const large = randomBytes(1 << 19).toString('hex'); // 1 MiB
  (await B.type(id, large)).is(204);
  (await C.type(id, 'end')).is(204);
  await has(`${large}end`);
  (await B.type(id, `${large}x`)).isProblem(413, 'payload-too-large');
  await has(`${large}end`);

  // One that reads nothing.
  const full = await typing('raw', 0);
  let bytes = 0;
  for (let i = 0; bytes < 16 << 20; i++) {
    const answer = await any(1 + (i % 2)).type(full.id, large);
    if (answer.status !== 204) {
      answer.isProblem(429, 'input-full');
      break;
    }
    bytes += large.length;
  }
  assert.ok(bytes >= 1 << 20 && bytes <= 9 << 20, `${bytes} bytes were taken`);
  (await A.post(`${full.path}/signal`, { json: { signal: 'USR1' } })).is(204);
  await until(() => full.typed().length >= bytes, 'all that was taken');
  assert.ok(full.typed() === large.repeat(bytes / large.length));
  await everywhere(async (client) => (await client.delete(full.path)).is(204));
});

test('types numbered messages in order and once, whichever replicas they come by', async () => {
  const { id, has } = await typing();
  const post = (client, seq, body, caller = 'c') =>
    client.type(id, body, { 'Input-Client': caller, 'Input-Seq': String(seq) });
  // Many at once, each first seen by another replica, in any order.
  const count = scaled(240);
  const window = 12;
  let expected = '';
  for (let first = 1; first <= count; first += window) {
    const seqs = Array.from({ length: window }, (_, i) => first + i);
    const shuffled = seqs.map((seq) => [Math.random(), seq]).sort((a, b) => a[0] - b[0]).map(([, seq]) => seq);
    const answers = await Promise.all(shuffled.map((seq, i) => post(any(i), seq, `${seq};`)));
    for (const answer of answers) answer.is(204);
    expected += seqs.map((seq) => `${seq};`).join('');
  }
  await has(expected);
  const last = Math.ceil(count / window) * window;
  // Repeats are known everywhere; so are gaps.
  await everywhere(async (client) => {
    (await post(client, last, 'again')).is(204);
    (await post(client, 1, 'again')).is(204);
    (await post(client, last + 2, 'early')).isProblem(409, 'input-gap', { expected: last + 1 });
    (await post(client, 2, 'early', `d${Math.random().toString(36).slice(2)}`)).isProblem(409, 'input-gap', { expected: 1 });
  });
  (await post(B, last + 1, 'next;')).is(204);
  await has(`${expected}next;`);
  // Several callers at once, each in its own order.
  const typists = [0, 1, 2, 3].map(() => new Typist(() => any(Math.floor(Math.random() * 3)), id));
  const rounds = scaled(40);
  await Promise.all(
    typists.map(async (typist, t) => {
      for (let i = 0; i < rounds; i++) await typist.type(`<${t}:${i}>`);
    }),
  );
  const all = await until(() => {
    const text = readFileSync(fileOf(id), 'latin1').slice(expected.length + 5);
    return (text.match(/>/g)?.length ?? 0) >= 4 * rounds && text;
  }, 'what four have typed');
  for (const t of [0, 1, 2, 3])
    assert.deepEqual(
      [...all.matchAll(/<(\d):(\d+)>/g)].filter(([, who]) => who === String(t)).map(([, , i]) => Number(i)),
      Array.from({ length: rounds }, (_, i) => i),
    );
  assert.equal(all.match(/>/g).length, 4 * rounds);
});

test('forgets in time what has ended, everywhere', async (t) => {
  const small = await Cluster.of(t, { replicas: 2, args: ['--forget-s', '2'] });
  const shell = await PatternShell.create(small.at(0), 'lines', { id: 'brief', first: 100, exit: 0 });
  await shell.ended();
  (await small.at(1).get('/sessions/brief')).is(200);
  for (const i of [0, 1]) await until(async () => (await small.at(i).get('/sessions/brief')).status === 404, 'forgotten');
  assert.deepEqual((await small.redis.keys('ptycast:session:*')), []);
  assert.deepEqual((await small.at(1).get('/sessions')).json.sessions, []);
});
