// sessions.test.mjs -- sessions are made, found, listed, closed and forgotten; ids; what is refused.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { after, before } from 'node:test';
import { scaled } from './lib/flavour.mjs';
import { PatternShell } from './lib/pattern.mjs';
import { Service, keys, test } from './lib/service.mjs';
import { EventStream } from './lib/sse.mjs';
import { until } from './lib/wait.mjs';

let service, alice, bob;

before(async () => {
  service = await Service.start({ args: ['--max-sessions-per-subject', '1000'] });
  alice = service.client();
  bob = service.client(keys.stranger);
});
after(() => service?.stop());

const create = (json, client = alice, query = '') => client.post(`/sessions${query}`, { json });
const isAlive = (pid) =>
  existsSync(`/proc/${pid}`) && !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
const ended = (id, client = alice) =>
  until(async () => {
    const { json } = (await client.get(`/sessions/${id}`)).is(200);
    return json.state === 'ended' && json.ended;
  }, `end of ${id}`);
// The whole output of a command, as text.
async function outputOf(command, parameters = {}) {
  const { id } = await alice.createOpen({ sandbox: 'local', command, ...parameters });
  const stream = await EventStream.open(alice, id);
  const { text, events } = await stream.rest();
  return { id, text, exit: events.at(-1).data };
}

test('makes a session at once and says where everything is', async () => {
  const answer = (await create({ sandbox: 'local', command: ['cat'], id: 'links', cols: 100, rows: 30 })).is(201);
  const { links, ...session } = answer.json;
  assert.equal(answer.headers.location, '/sessions/links');
  assert.deepEqual(links, {
    self: '/sessions/links',
    stream: '/sessions/links/stream',
    input: '/sessions/links/input',
    resize: '/sessions/links/resize',
    signal: '/sessions/links/signal',
    ws: '/sessions/links/ws',
    tickets: '/sessions/links/tickets',
  });
  assert.ok(['provisioning', 'connecting', 'open'].includes(session.state), session.state);
  assert.equal(session.sandbox, 'local');
  assert.equal(session.provider, 'local');
  assert.deepEqual([session.cols, session.rows], [100, 30]);
  assert.ok(Math.abs(Date.parse(session.created_at) - Date.now()) < 600_000);
  const open = await until(async () => {
    const { json } = await alice.get('/sessions/links');
    return json.state === 'open' && json;
  }, 'open');
  assert.match(open.epoch, /^[0-9a-f]{16}$/);
  assert.equal(open.created_at, session.created_at);
  assert.equal('links' in open, false);
});

test('gives ids that are its own when none is asked for', async () => {
  const ids = new Set();
  for (let i = 0; i < 5; i++) ids.add((await create({ sandbox: 'local', command: ['cat'] })).is(201).json.id);
  assert.equal(ids.size, 5);
});

test('waits for the shell when asked to', async () => {
  const { json } = (await create({ sandbox: 'local', command: ['cat'] }, alice, '?wait=open')).is(201);
  assert.equal(json.state, 'open');
  assert.match(json.epoch, /^[0-9a-f]{16}$/);
  (await create({ sandbox: 'local' }, alice, '?wait=forever')).isProblem(400, 'bad-request', { field: 'wait' });
});

test('runs a shell when no command is given', async () => {
  const { id } = await alice.createOpen({ sandbox: 'local' });
  const stream = await EventStream.open(alice, id);
  (await alice.type(id, 'echo $((6*7)) is alive; exit 3\r')).is(204);
  const { text, events } = await stream.rest();
  assert.match(text, /42 is alive/);
  assert.deepEqual(events.at(-1).data, { reason: 'exited', exit_code: 3, signal: null });
});

test('gives the command its arguments, environment, directory and size', async () => {
  const script = 'printf "%s|" "$0" "$@"; printf "%s|" "$FOO" "$TERM" "$PWD"; stty size; tty >/dev/null && echo tty';
  const { text, exit } = await outputOf(['sh', '-c', script, 'zero', 'a b', '*', 'é', 'q\'"'], {
    env: { FOO: 'ba r=é\n2', TERM: 'vt100' },
    cwd: '/usr/share',
    cols: 123,
    rows: 45,
  });
  assert.equal(text, 'zero|a b|*|é|q\'"|ba r=é\r\n2|vt100|/usr/share|45 123\r\ntty\r\n');
  assert.deepEqual(exit, { reason: 'exited', exit_code: 0, signal: null });
});

test('keeps its own environment and descriptors from the shell', async () => {
  const { text } = await outputOf(['sh', '-c', 'env; echo "sid: $(ps -o sid= -p $$) $$"']);
  assert.match(text, /^TERM=xterm-256color\r$/m);
  const names = [...text.matchAll(/^(\w+)=/gm)].map((m) => m[1]);
  const expected = ['HOME', 'PATH', 'USER', 'SHELL', 'LANG', 'TZ', 'TERM', 'PWD', 'OLDPWD', 'SHLVL', '_', 'LOGNAME'];
  for (const name of names) assert.ok(expected.includes(name), `${name} is not the shell's business`);
  assert.doesNotMatch(text, /PTYCAST|TUNNEL/);
  const [, sid, pid] = text.match(/sid:\s+(\d+) (\d+)/);
  assert.equal(sid, pid, 'it leads its session');
  const fds = await outputOf(['ls', '-C', '/proc/self/fd']);
  assert.equal(fds.text, '0  1  2  3\r\n'); // 3 is the directory
});

test('tells how the command ended', async () => {
  for (const [script, expected] of [
    ['exit 0', { reason: 'exited', exit_code: 0, signal: null }],
    ['exit 7', { reason: 'exited', exit_code: 7, signal: null }],
    ['exit 255', { reason: 'exited', exit_code: 255, signal: null }],
    ['kill -9 $$', { reason: 'exited', exit_code: null, signal: 'SIGKILL' }],
    ['kill -TERM $$', { reason: 'exited', exit_code: null, signal: 'SIGTERM' }],
    ['kill -SEGV $$', { reason: 'exited', exit_code: null, signal: 'SIGSEGV' }],
  ]) {
    const { id, exit } = await outputOf(['sh', '-c', script]);
    assert.deepEqual(exit, expected, script);
    const { reason, exit_code, signal, at } = (await alice.get(`/sessions/${id}`)).is(200).json.ended;
    assert.deepEqual({ reason, exit_code, signal }, expected, script);
    assert.ok(!Number.isNaN(Date.parse(at)));
  }
});

test('ends although a child in the background holds the terminal', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const stream = await shell.view();
  await shell.write(5000);
  await shell.type('b\n');
  const { bytes, events } = await stream.rest();
  shell.assert(0, bytes);
  assert.equal(bytes.length, 5064);
  assert.deepEqual(events.at(-1).data, { reason: 'exited', exit_code: 0, signal: null });
});

test('says why a command could not be started, and keeps that', async () => {
  for (const [index, parameters] of [
    { command: ['no-such-program-anywhere'] },
    { command: ['/etc/passwd'] },
    { command: ['/'] },
    { command: ['cat'], cwd: '/no/such/directory' },
  ].entries()) {
    const id = `failed-${index}`;
    const answer = await create({ sandbox: 'local', id, ...parameters }, alice, '?wait=open');
    answer.isProblem(502, 'start-failed', { session: id });
    const session = (await alice.get(`/sessions/${id}`)).is(200).json;
    assert.equal(session.state, 'ended');
    assert.equal(session.ended.reason, 'failed');
    assert.ok(session.ended.text.length > 3);
    const stream = await EventStream.open(alice, id);
    const { events } = await stream.rest();
    assert.deepEqual(
      events.map((e) => e.event),
      ['state', 'exit'],
    );
    assert.equal(events[0].data.state, 'ended');
    assert.deepEqual(events[1].data, { reason: 'failed', exit_code: null, signal: null });
    const again = await EventStream.open(alice, id, { lastEventId: events[1].id });
    assert.equal(again.status, 204);
    (await alice.type(id, 'x')).isProblem(409, 'session-ended');
    // And it may be tried again under the same id.
    (await create({ sandbox: 'local', id, command: ['cat'] }, alice, '?wait=open')).is(201);
  }
});

const invalid = [
  [{}, 'sandbox'],
  [{ command: ['cat'] }, 'sandbox'],
  ...[
    'no pe',
    '',
    5,
    null,
    [],
    {},
    { provider: 'nope' },
    { provider: 5 },
    { provider: '' },
    { provider: 'local', more: 1 },
  ].map((sandbox) => [{ sandbox }, 'sandbox']),
  ...['', 'a b', 'a.b', 'é', 'a/b', 'x'.repeat(65), 5, null, true, ['a']].map((id) => [{ id }, 'id']),
  ...[
    [],
    'bash',
    [''],
    [5],
    [null],
    ['a', 5],
    {},
    null,
    7,
    ['a\0b'],
    ['a', 'b\0'],
    Array(1025).fill('x'),
    ['cat', 'x'.repeat(200 << 10)],
  ].map((command) => [{ command }, 'command']),
  ...[[], 'A=B', { 'A=B': 'x' }, { '': 'x' }, { A: 1 }, { A: null }, { A: 'x\0' }, { A: ['x'] }, null].map((env) => [
    { env },
    'env',
  ]),
  ...['relative', '', '.', 5, null, '/x\0y', `/${'x'.repeat(5000)}`].map((cwd) => [{ cwd }, 'cwd']),
  ...['cols', 'rows'].flatMap((name) =>
    [0, 1001, -1, 1.5, '80', null, true, 1e9, 65536, [80]].map((value) => [{ [name]: value }, name]),
  ),
  ...[-1, 604801, 1.5, '5', null, 1e12].map((idle_timeout_s) => [{ idle_timeout_s }, 'idle_timeout_s']),
  [{ foo: 1 }, 'foo'],
  [{ Cols: 80 }, 'Cols'],
  [{ state: 'open' }, 'state'],
];

test('refuses every parameter that is not possible, and names it', async () => {
  const before = (await alice.get('/sessions?limit=200')).json.sessions.length;
  for (const [part, field] of invalid) {
    const json = 'sandbox' in part || field === 'sandbox' ? part : { sandbox: 'local', command: ['cat'], ...part };
    const answer = await create(json);
    const what = `${JSON.stringify(json).slice(0, 120)} -> ${answer.text.slice(0, 200)}`;
    assert.equal(answer.status, 400, what);
    assert.equal(answer.json.type, '/problems/bad-request', what);
    assert.match(answer.json.field, new RegExp(`^${field}\\b`), what);
  }
  assert.equal((await alice.get('/sessions?limit=200')).json.sessions.length, before);
});

test('refuses bodies that are not JSON objects', async () => {
  const send = (body, type = 'application/json') =>
    alice.post('/sessions', { body, headers: { 'Content-Type': type } });
  const deep = `${'['.repeat(100_000)}${']'.repeat(100_000)}`;
  for (const body of [
    '',
    '{',
    '{"sandbox":"local"',
    '{"sandbox":"local"} x',
    "{'sandbox':'local'}",
    'null',
    '[]',
    '"local"',
    '5',
    '{"sandbox":"\xff"}',
    Buffer.from('{"sandbox":"\xff\xfe"}', 'latin1'),
    deep,
    '{"a":'.repeat(5000),
    '\0',
    '{"sandbox":"local","cols":1e999}',
  ]) {
    const answer = await send(body);
    assert.equal(answer.status, 400, `${String(body).slice(0, 40)} -> ${answer.text}`);
  }
  for (const body of ['', '{', '[1', deep]) (await send(body)).isProblem(400, 'bad-json');
  (await send('{"sandbox":"local","cols":80,"cols":90}')).is(400);
  for (const type of [
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/jsonp',
  ])
    (await send('{"sandbox":"local"}', type)).isProblem(415, 'unsupported-media-type');
  (await alice.post('/sessions', { body: '{"sandbox":"local"}' })).isProblem(415, 'unsupported-media-type');
  (await send(JSON.stringify({ sandbox: 'local', command: ['cat', 'x'.repeat(300 << 10)] }))).isProblem(
    413,
    'payload-too-large',
  );
  (
    await alice.post('/sessions', {
      body: JSON.stringify({ sandbox: 'local', command: ['cat', 'x'.repeat(2 << 20)] }),
      headers: { 'Content-Type': 'application/json', 'Transfer-Encoding': 'chunked' },
    })
  ).isProblem(413, 'payload-too-large');
  (await send('{"sandbox":"local","command":["true"]}', 'application/json; charset=utf-8')).is(201);
});

test('is asked twice for one id and gives the one session', async () => {
  const parameters = { sandbox: 'local', id: 'twice', command: ['cat'], env: { A: '1', B: '2' } };
  (await create(parameters, alice, '?wait=open')).is(201);
  const first = (await alice.get('/sessions/twice')).json;
  for (const same of [
    parameters,
    { ...parameters, cols: 80, rows: 24 },
    { id: 'twice', env: { B: '2', A: '1' }, command: ['cat'], sandbox: 'local' },
  ]) {
    const answer = (await create(same)).is(200);
    const { links, ...session } = answer.json;
    assert.deepEqual(session, first);
    assert.equal(links.self, '/sessions/twice');
    assert.equal(answer.headers.location, '/sessions/twice');
  }
});

test('refuses an id that is alive with other parameters, or of another subject', async () => {
  const parameters = { sandbox: 'local', id: 'taken', command: ['cat'] };
  (await create(parameters, alice, '?wait=open')).is(201);
  for (const other of [
    { command: ['cat', '-'] },
    { cols: 81 },
    { rows: 25 },
    { env: { A: '1' } },
    { cwd: '/tmp' },
    { idle_timeout_s: 9 },
  ])
    (await create({ ...parameters, ...other })).isProblem(409, 'id-differs');
  const taken = (await create(parameters, bob)).isProblem(409, 'id-taken');
  assert.doesNotMatch(taken.text, /alice/);
  (await create({ ...parameters, command: ['true'] }, bob)).isProblem(409, 'id-taken');
  // A resize later does not make the parameters differ.
  (await alice.post('/sessions/taken/resize', { json: { cols: 99, rows: 33 } })).is(204);
  (await create(parameters)).is(200);
});

test('replaces an ended session of the same id by a new one', async () => {
  const first = await PatternShell.create(alice, 'lines', { id: 'again' });
  await first.exit(5);
  await first.ended();
  (await create({ sandbox: 'local', id: 'again' }, bob)).isProblem(409, 'id-taken');
  const second = await PatternShell.create(alice, 'lines', { id: 'again', first: 128 });
  assert.notEqual(second.epoch, first.epoch);
  const stream = await second.view({ lastEventId: first.idAt(64) });
  const reset = await stream.first('reset');
  assert.deepEqual(reset.data, { reason: 'epoch', offset: 0 });
  const { bytes } = await stream.to(128);
  second.assert(0, bytes);
  stream.close();
});

test('makes one shell of simultaneous first requests', async () => {
  for (let round = 0; round < 3; round++) {
    const file = `${service.dir}/shells-${round}`;
    const parameters = {
      sandbox: 'local',
      id: `one-shell-${round}`,
      command: ['sh', '-c', `echo $$ >>${file}; exec cat`],
    };
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, i) => create(parameters, alice, i % 2 ? '?wait=open' : '')),
    );
    assert.equal(answers.filter((a) => a.status === 201).length, 1);
    assert.equal(answers.filter((a) => a.status === 200).length, 11);
    const epochs = new Set(answers.filter((_, i) => i % 2).map((a) => a.json.epoch));
    assert.equal(epochs.size, 1);
    const other = await alice.createOpen({ sandbox: 'local', command: ['cat'] }); // anything later is behind it
    await until(() => existsSync(file), 'shell');
    assert.equal(readFileSync(file, 'utf8').trim().split('\n').length, 1);
    await alice.delete(`/sessions/${other.id}`);
    await alice.delete(`/sessions/${parameters.id}`);
  }
});

test('lists sessions by id, page by page, each subject its own', async (t) => {
  const other = await t.start();
  const alice = other.client();
  const bob = other.client(keys.stranger);
  const ids = ['a', 'B', 'c-1', 'c_2', 'z', 'A0'];
  for (const id of ids) (await create({ sandbox: 'local', id, command: ['cat'] }, alice, '?wait=open')).is(201);
  (await create({ sandbox: 'local', id: 'bobs', command: ['cat'] }, bob, '?wait=open')).is(201);
  const sorted = [...ids].sort();
  const all = (await alice.get('/sessions')).is(200).json;
  assert.deepEqual(
    all.sessions.map((s) => s.id),
    sorted,
  );
  assert.equal(all.next, null);
  const pages = [];
  for (let after = ''; ;) {
    const { json } = (await alice.get(`/sessions?limit=2${after}`)).is(200);
    assert.ok(json.sessions.length <= 2);
    pages.push(...json.sessions.map((s) => s.id));
    if (json.next === null) break;
    assert.equal(json.next, json.sessions.at(-1).id);
    after = `&after=${json.next}`;
  }
  assert.deepEqual(pages, sorted);
  assert.deepEqual(
    (await alice.get('/sessions?after=b-not-there')).json.sessions.map((s) => s.id),
    sorted.filter((id) => id > 'b-not-there'),
  );
  assert.deepEqual(
    (await bob.get('/sessions')).json.sessions.map((s) => s.id),
    ['bobs'],
  );
  (await alice.delete('/sessions/z')).is(204);
  await ended('z', alice);
  assert.deepEqual(
    (await alice.get('/sessions?state=ended')).json.sessions.map((s) => s.id),
    ['z'],
  );
  assert.equal((await alice.get('/sessions?state=open&limit=200')).json.sessions.length, ids.length - 1);
  assert.deepEqual((await alice.get('/sessions?state=reconnecting')).json.sessions, []);
  for (const [query, field] of [
    ['limit=0', 'limit'],
    ['limit=201', 'limit'],
    ['limit=x', 'limit'],
    ['limit=-1', 'limit'],
    ['limit=1e2', 'limit'],
    ['state=foo', 'state'],
    ['state=', 'state'],
    ['after=a%20b', 'after'],
  ])
    (await alice.get(`/sessions?${query}`)).isProblem(400, 'bad-request', { field });
  (await alice.get('/sessions?unknown=1')).is(200);
});

test('closes a session: its program is gone, its viewers are told, it stays readable until it is forgotten', async () => {
  const { id } = await alice.createOpen({
    sandbox: 'local',
    command: ['sh', '-c', 'trap "" HUP; echo $$; sleep 1000 & wait'],
  });
  const stream = await EventStream.open(alice, id);
  const pid = Number((await stream.first('output')).data.data);
  assert.ok(isAlive(pid));
  (await alice.delete(`/sessions/${id}`)).is(204);
  const exit = await stream.first('exit');
  assert.equal(exit.data.reason, 'closed');
  assert.equal(await stream.next(), null);
  assert.equal((await ended(id)).reason, 'closed');
  await until(() => !isAlive(pid), 'end of the program');
  (await alice.type(id, 'x')).isProblem(409, 'session-ended');
  (await alice.post(`/sessions/${id}/resize`, { json: { cols: 80, rows: 24 } })).isProblem(409, 'session-ended');
  (await alice.post(`/sessions/${id}/signal`, { json: { signal: 'INT' } })).isProblem(409, 'session-ended');
  (await alice.delete(`/sessions/${id}`)).is(204);
  (await alice.get(`/sessions/${id}`)).isProblem(404, 'not-found');
  (await alice.delete(`/sessions/${id}`)).isProblem(404, 'not-found');
  assert.equal((await EventStream.open(alice, id)).status, 404);
});

test('closes a session that is just being made', async () => {
  for (let i = 0; i < scaled(16); i++) {
    const { id } = (await create({ sandbox: 'local', command: ['cat'] })).is(201).json;
    (await alice.delete(`/sessions/${id}`)).is(204);
    await until(async () => {
      const answer = await alice.get(`/sessions/${id}`);
      return answer.status === 200 && answer.json.state === 'ended' && answer.json.ended.reason === 'closed';
    }, `end of ${id}`);
  }
});

test('ends an idle session, and not one with a viewer', async () => {
  const parameters = { sandbox: 'local', command: ['cat'], idle_timeout_s: 1 };
  const watched = await alice.createOpen(parameters);
  const stream = await EventStream.open(alice, watched.id);
  const lonely = await alice.createOpen(parameters);
  assert.equal((await ended(lonely.id)).reason, 'expired');
  assert.equal((await alice.get(`/sessions/${watched.id}`)).json.state, 'open');
  stream.close();
  assert.equal((await ended(watched.id)).reason, 'expired');
});

test('has limits on sessions, of one subject and of all, and room again when one ends', async (t) => {
  const other = await t.start({ args: ['--max-sessions', '3', '--max-sessions-per-subject', '2'] });
  const alice = other.client();
  const bob = other.client(keys.stranger);
  const parameters = (id) => ({ sandbox: 'local', id, command: ['cat'] });
  for (const id of ['a1', 'a2']) (await create(parameters(id), alice, '?wait=open')).is(201);
  (await create(parameters('a3'), alice)).isProblem(429, 'session-limit');
  (await create(parameters('a1'), alice)).is(200);
  (await create(parameters('b1'), bob, '?wait=open')).is(201);
  (await create(parameters('b2'), bob)).isProblem(429, 'session-limit');
  (await alice.delete('/sessions/a1')).is(204);
  await ended('a1', alice);
  (await create(parameters('b2'), bob, '?wait=open')).is(201);
});

test('forgets ended sessions: after their time, and the oldest when there are too many', async (t) => {
  const brief = await t.start({ args: ['--forget-s', '1'] });
  const one = brief.client();
  const { id } = await one.createOpen({ sandbox: 'local', command: ['true'] });
  await until(async () => (await one.get(`/sessions/${id}`)).status === 404, 'forgotten');

  const few = await t.start({ args: ['--max-ended', '2'] });
  const two = few.client();
  for (const name of ['first', 'second', 'third', 'fourth']) {
    const stream = await EventStream.open(
      two,
      (await two.createOpen({ sandbox: 'local', id: name, command: ['true'] })).id,
    );
    await stream.rest();
  }
  await until(async () => (await two.get('/sessions')).json.sessions.length === 2, 'two are kept');
  assert.deepEqual(
    (await two.get('/sessions')).json.sessions.map((s) => s.id),
    ['fourth', 'third'],
  );
});

test('has many sessions at once, which do not mix', async () => {
  const count = scaled(48);
  const shells = await Promise.all(
    Array.from({ length: count }, (_, i) => PatternShell.create(alice, i % 2 ? 'lines' : 'bytes', { first: 100 + i })),
  );
  const streams = await Promise.all(shells.map((shell) => shell.view()));
  await Promise.all(shells.map((shell) => shell.write(20_000)));
  await Promise.all(shells.map((shell) => shell.exit(shell.written % 200)));
  const results = await Promise.all(streams.map((stream) => stream.rest()));
  results.forEach(({ bytes, events }, i) => {
    assert.equal(bytes.length, shells[i].written);
    shells[i].assert(0, bytes);
    assert.equal(events.at(-1).data.exit_code, shells[i].written % 200);
  });
  assert.equal(new Set(shells.map((shell) => shell.epoch)).size, count);
});

test('needs a provider that is switched on', async (t) => {
  const none = await t.start({
    providers: 'url',
    args: ['--tunnel-url', 'ws://127.0.0.1:9', '--tunnel-token', 'unused-token-unused'],
  });
  const client = none.client();
  (await create({ sandbox: 'local' }, client)).isProblem(400, 'bad-request', { field: 'sandbox' });
  (await create({ sandbox: { provider: 'local' } }, client)).isProblem(400, 'bad-request');
  (await create({ sandbox: 'nobody-stored-it' }, client)).isProblem(404, 'not-found');
  const { providers } = (await client.get('/providers')).is(200).json;
  assert.deepEqual(
    providers.map((p) => p.name),
    ['url'],
  );
});
