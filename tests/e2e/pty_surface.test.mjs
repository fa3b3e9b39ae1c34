// pty_surface.test.mjs -- /pty and /tty, by what pocketenv's web terminal and CLI do (lib/pocketenv.mjs): the same
// paths, messages and closes, without the original's defects (docs/pocketenv.md; their numbers are in brackets).
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { EventSource } from 'eventsource';
import WebSocket from 'ws';
import { Runloop } from '../fakes/runloop/runloop.mjs';
import { Client } from './lib/client.mjs';
import { program, scaled } from './lib/flavour.mjs';
import { jwt } from './lib/jwt.mjs';
import { Cli, PtyStream, WebTerminal } from './lib/pocketenv.mjs';
import { Proxy } from './lib/proxy.mjs';
import { Agent, keys, test } from './lib/service.mjs';
import { DEADLINE_MS, until, within } from './lib/wait.mjs';

const DID = 'did:plc:alice';
const SECRET = 'a shared secret of the operator';
const session = 'sbx-1'; // a stored sandbox of alice, in remote()

/** A service with shells of this machine, in which "local" is a sandbox. They are plain: no line editing. */
async function local(t, { args = [], env = {}, ...rest } = {}) {
  const service = await t.start({ args, env: { SHELL: '/bin/sh', ...env }, ...rest });
  return { service, url: service.url, client: service.client() };
}

/** A service and a fake Runloop with one devbox, which is the stored sandbox sbx-1 of alice (and of DID). */
async function remote(t, { args = [], owner = 'alice', fake: options = {}, ...rest } = {}) {
  const fake = await Runloop.start({ holdMs: 300, ...options });
  t.cleanup(() => fake.close());
  const box = fake.createBox({ tunnel: 'open' });
  const service = await t.start({
    providers: 'local,runloop',
    args: ['--runloop-base-url', fake.url, '--runloop-tunnel-url', fake.plainTunnelTemplate, ...args],
    ...rest,
  });
  const client = service.client();
  const store = async (id, subject, of = box) =>
    (
      await client.as(keys.operator).post('/sandboxes', {
        json: { id, subject, provider: 'runloop', external_id: of.id, credential: fake.key },
      })
    ).is(201);
  await store(session, owner);
  return { fake, box, service, url: service.url, client, store };
}

/** Leaves it behind the test; a terminal that nobody waits for must not hold the process. */
function leaving(t, terminal) {
  t.cleanup(() => terminal.leave());
  return terminal;
}

const web = (t, url, sandbox, options) =>
  leaving(t, new WebTerminal().connect(url, sandbox, { token: keys.admin, ...options }));
const cli = (t, url, sandbox, options) => leaving(t, new Cli().connect(url, sandbox, { token: keys.admin, ...options }));

let marks = 0;
/** Types a command; resolves with what it printed. The command's own echo is not taken for it. */
async function run(terminal, command) {
  const mark = `m${++marks}`;
  const from = terminal.text.length;
  const line = `echo ${mark}'<'; ${command}; echo '>'${mark}\r`;
  if (terminal.stdin) terminal.stdin(Buffer.from(line));
  else terminal.type(line);
  const [, printed] = await terminal.shows(new RegExp(`${mark}<\r\n([^]*?)>${mark}\r\n`), { from });
  return printed.replaceAll(/\x1b\[\?2004[hl]\r?/g, '').replaceAll('\r\n', '\n').trimEnd();
}

const sessionsOf = async (client) => (await client.get('/sessions')).is(200).json.sessions;
const alive = async (client) => (await sessionsOf(client)).filter((s) => s.state !== 'ended');
const newFile = () => `/tmp/ptc-typed-${randomBytes(8).toString('hex')}`;

// --- the two clients ---

for (const kind of ['pty', 'tty'])
  test(`is what the web terminal and the CLI expect, on /${kind}`, async (t) => {
    const { url } = await remote(t);
    const page = web(t, url, session, { kind, size: [111, 33] });
    // What it sends with the first opening is not lost, though there is no shell yet.
    page.type("stty size; echo 'x y'\r");
    await page.shows(/33 111\r\n[^]*x y\r\n/);

    const other = cli(t, url, session, { kind });
    await other.shows(/x y/); // what was there (D3)
    assert.equal(await run(other, 'stty size'), '50 220', 'the last resize wins');
    await page.shows(/50 220/);
    assert.equal(await run(page, 'echo $((6 * 7))'), '42');
    await other.shows(/42/);

    other.stdin(Buffer.from([0x0b]));
    await other.closes(1000);
    assert.equal(other.status, 0);
    assert.equal(await run(page, 'echo still there'), 'still there');
    page.type('exit\r');
    await page.closes(1000, 'exit');
    assert.equal(page.windowOpen, false);
    assert.match(page.text, /Process exited\.\r\n$/);

    // The next one is a new shell.
    const next = cli(t, url, session, { kind });
    assert.equal(await run(next, 'echo new'), 'new');
    assert.doesNotMatch(next.text, /still there/);
    next.stdin(Buffer.from('exit 3\r'));
    await next.closes(1000, 'exit');
    assert.equal(next.status, 0);
  });

test('makes one shell of many first requests at once [L1]', async (t) => {
  const { box, url, client } = await remote(t);
  const terminals = Array.from({ length: 4 }, (_, i) => (i % 2 ? web : cli)(t, url, session, { kind: i < 2 ? 'pty' : 'tty' }));
  const streams = await Promise.all([PtyStream.open(client, session), PtyStream.open(client, session, { kind: 'tty' })]);
  const typed = await client.post(`/pty/${session}/input`, { body: 'echo pid=$$\r' });
  typed.is(204);
  const pids = await Promise.all(terminals.map((terminal) => terminal.shows(/pid=(\d+)/)));
  for (const stream of streams) await stream.shows(new RegExp(`pid=${pids[0][1]}`));
  assert.deepEqual(new Set(pids.map((m) => m[1])).size, 1);
  assert.equal((await sessionsOf(client)).length, 1);
  assert.equal(box.processes().filter((p) => /bash|\bsh\b/.test(p.command ?? '') && p.pid === Number(pids[0][1])).length <= 1, true);
  for (const stream of streams) stream.close();
});

test('types nothing by itself, however many come [D4]', async (t) => {
  const { url } = await local(t);
  const first = web(t, url, 'local');
  assert.equal(await run(first, 'echo ready'), 'ready');
  first.type('half a li');
  await first.shows(/half a li/);
  for (let i = 0; i < 3; i++) {
    const other = cli(t, url, 'local');
    await other.shows(/half a li$/);
    other.leave();
  }
  first.type('ne\x15echo status=$?\r'); // Ctrl-U
  await first.shows(/status=0\r\n/);
  assert.doesNotMatch(first.text, /not found/);
});

// --- who may ---

test('takes the token in the query or the header, with did or sub, and API keys [S1-S4]', async (t) => {
  const { service, url } = await remote(t, { owner: DID, env: { PTYCAST_JWT_SECRET: SECRET } });
  const login = jwt('HS256', SECRET, { did: DID });
  const terminal = jwt('HS256', SECRET, { sub: DID });
  const other = jwt('HS256', SECRET, { did: 'did:plc:bob' });
  const bearer = (token) => ({ headers: { Authorization: `Bearer ${token}` } });
  const good = [
    { token: login },
    { token: terminal },
    { token: null, ...bearer(login) },
    { token: 'null', ...bearer(terminal) },
    { token: login, ...bearer('nonsense') }, // the query wins
    { token: keys.operator }, // and gets the owner's
  ];
  const ids = [];
  for (const options of good) ids.push(await run(web(t, url, session, options), 'echo $$'));
  assert.equal(new Set(ids).size, 1, 'one and the same shell');

  const bad = [
    { token: null },
    { token: 'null' },
    { token: 'nonsense', ...bearer(login) },
    { token: jwt('HS256', 'another secret, as long as it is', { did: DID }) },
    { token: jwt('HS512', SECRET, { did: DID }) },
    { token: jwt('none', SECRET, { did: DID }) },
    { token: jwt('HS256', SECRET, { did: DID, exp: -10 }) },
    { token: jwt('HS256', SECRET, { sub: DID, exp: null }) },
  ];
  for (const options of bad) {
    const program = cli(t, url, session, options);
    await program.closes(1006);
    assert.equal(program.refused.status, 401, JSON.stringify(options));
    assert.equal(program.refused.problem.type, '/problems/unauthorized');
    assert.equal(program.status, 1);
    const page = web(t, url, session, { ...options, headers: { Origin: url, ...options.headers } });
    await page.closes(1008, 'Invalid token');
    assert.equal(page.windowOpen, true);
    const query = new URLSearchParams(options.token ? { token: options.token } : {});
    for (const [method, what] of [['GET', 'stream'], ['POST', 'input'], ['POST', 'resize']]) {
      const answer = await service.client(null).request(method, `/pty/${session}/${what}?${query}`, {
        headers: options.headers,
        ...(method === 'POST' && { json: { cols: 80, rows: 24 } }),
      });
      answer.isProblem(401, 'unauthorized');
    }
  }
  for (const token of [login, keys.operator])
    (await service.client(null).post(`/tty/${session}/input?token=${token}`, { body: ': typed\r' })).is(204);

  // Another subject's is as if it did not exist.
  const theirs = cli(t, url, session, { token: other });
  const none = cli(t, url, 'nobodys', { token: login });
  await theirs.closes(1006);
  await none.closes(1006);
  assert.equal(theirs.refused.status, 404);
  assert.deepEqual(theirs.refused.problem, none.refused.problem);
  const page = web(t, url, session, { token: other, headers: { Origin: url } });
  await page.closes(1011, 'no such sandbox');
  for (const what of ['input', 'resize'])
    (
      await service.client(other).post(`/pty/${session}/${what}`, { json: { cols: 80, rows: 24 } })
    ).isProblem(404, 'not-found');
  assert.equal((await PtyStream.open(service.client(other), session)).status, 404);
});

test('takes tokens that never expire when the operator says so', async (t) => {
  const { url } = await local(t, { env: { SHELL: '/bin/sh', PTYCAST_JWT_SECRET: SECRET, PTYCAST_JWT_REQUIRE_EXP: '0' } });
  assert.equal(await run(web(t, url, 'local', { token: jwt('HS256', SECRET, { sub: DID, exp: null }) }), 'echo in'), 'in');
});

test('closes with 1008 when the credential expires [S3]', async (t) => {
  const { url } = await local(t, { env: { SHELL: '/bin/sh', PTYCAST_JWT_SECRET: SECRET } });
  const page = web(t, url, 'local', { token: jwt('HS256', SECRET, { did: DID, exp: 2 }) });
  await page.closes(1008, 'the credential has expired');
  assert.equal(page.windowOpen, true);
});

test('lets no foreign page in [S11]', async (t) => {
  const { url } = await local(t, { args: ['--cors-origins', 'https://app.example'] });
  const foreign = web(t, url, 'local', { headers: { Origin: 'https://evil.example' } });
  await foreign.closes(1006);
  assert.equal(foreign.refused.status, 403);
  const own = web(t, url, 'local', { headers: { Origin: 'https://app.example' } });
  assert.equal(await run(own, 'echo in'), 'in');
});

test('keeps apart what another sessionId, subject or sandbox has [S5]', async (t) => {
  const { url, client, store } = await remote(t);
  await store('sbx-2', 'alice');
  await store('sbx-b', 'bob');
  const who = [
    [session, {}],
    [session, { sessionId: 'one' }],
    [session, { sessionId: 'two, with a space & more' }],
    [session, { sessionId: 'x'.repeat(128) }],
    [session, { sessionId: 'sbx-2' }], // not the way into another sandbox
    ['sbx-2', {}],
    ['sbx-2', { sessionId: 'one' }],
    ['sbx-b', { token: keys.stranger }],
    ['sbx-b', { token: keys.stranger, sessionId: 'one' }],
  ];
  const pids = await Promise.all(who.map(([sandbox, options]) => run(web(t, url, sandbox, options), 'echo $$')));
  assert.equal(new Set(pids).size, who.length);
  // The same again finds each of them; over HTTP too.
  for (const [i, [sandbox, options]] of who.entries()) {
    const query = new URLSearchParams(options.sessionId ? { sessionId: options.sessionId } : {});
    const again = cli(t, url, sandbox, options);
    await again.opened.promise;
    (await client.as(options.token ?? keys.admin).post(`/tty/${sandbox}/input?${query}`, { body: `echo again=$$\r` })).is(204);
    await again.shows(new RegExp(`again=${pids[i]}\r`));
  }
  for (const sessionId of ['x'.repeat(129), 'é', 'a\tb']) {
    const refused = cli(t, url, session, { sessionId });
    await refused.closes(1006);
    assert.equal(refused.refused.problem.field, 'sessionId');
  }
  const ids = (await sessionsOf(client)).map((s) => s.id);
  assert.ok(ids.every((id) => /^pty-[A-Za-z0-9_-]{43}$/.test(id)), ids.join());
  (await client.post('/sessions', { json: { sandbox: 'local', id: ids[0] } })).isProblem(400, 'bad-request', { field: 'id' });
  // The native routes have them, too; an operator gets the owner's.
  const [one] = await sessionsOf(client);
  assert.ok(['sbx-1', 'sbx-2'].includes(one.sandbox), one.sandbox);
  const operator = cli(t, url, session, { token: keys.operator });
  assert.equal(await run(operator, 'echo $$'), pids[0]);
});

test('shows all to the role view, and lets it change nothing', async (t) => {
  const { url, client } = await remote(t);
  const early = cli(t, url, session, { token: keys.viewer });
  await early.closes(1006);
  assert.equal(early.refused.status, 403);
  assert.equal((await PtyStream.open(client.as(keys.viewer), session)).status, 403);
  assert.deepEqual(await sessionsOf(client), []);

  const writer = web(t, url, session, { token: keys.writer, size: [90, 30] });
  assert.equal(await run(writer, 'echo by the writer'), 'by the writer');
  const viewer = web(t, url, session, { token: keys.viewer, size: [20, 10] });
  await viewer.shows(/by the writer/);
  viewer.type('echo by the viewer\r');
  const stream = await PtyStream.open(client.as(keys.viewer), session);
  for (const what of ['input', 'resize'])
    (await client.as(keys.viewer).post(`/pty/${session}/${what}`, { json: { cols: 9, rows: 9 } })).isProblem(403, 'forbidden');
  assert.equal(await run(writer, 'stty size'), '30 90');
  await viewer.shows(/30 90/);
  await stream.shows(/30 90/);
  assert.doesNotMatch(viewer.text, /by the viewer/);
  writer.type('exit\r');
  await viewer.closes(1000, 'exit');
  assert.equal((await stream.end()).event, 'exit');

  // A built-in sandbox asks for what it asks for elsewhere.
  const builtIn = cli(t, url, 'local', { token: keys.writer });
  await builtIn.closes(1006);
  assert.equal(builtIn.refused.status, 403);
});

test('opens no shell for what is no request for one', async (t) => {
  const { client } = await local(t);
  (await client.get('/pty/local/ws')).isProblem(400, 'bad-request');
  (await client.request('HEAD', '/pty/local/stream')).is(200);
  (await client.get('/pty/local/stream?since=x')).isProblem(400, 'bad-request');
  (await client.get('/pty/local/input')).isProblem(405, 'method-not-allowed');
  (await client.post('/pty/local/resize', { json: { cols: 0, rows: 1 } })).is(400);
  (await client.get('/pty/local')).isProblem(404, 'not-found');
  (await client.get('/pty/lo%63al/stream')).isProblem(404, 'not-found');
  (await client.request('HEAD', '/pty/nobodys/stream')).is(404);
  assert.deepEqual(await sessionsOf(client), []);
});

// --- bytes ---

test('never cuts a character, whatever the writes [D1]', async (t) => {
  const { url, client } = await local(t);
  const terminals = [web(t, url, 'local'), cli(t, url, 'local')];
  const binary = cli(t, url, 'local', { mode: 'binary' });
  await binary.opened.promise;
  const stream = await PtyStream.open(client, 'local');
  const [page] = terminals;
  assert.equal(await run(page, 'stty -echo'), '');
  // Each byte by a write of its own.
  page.type("for i in 1 2 3 4 5 6 7 8; do for b in 303 251 342 202 254 360 237 230 200; do printf \"\\\\$b\"; done; done\r");
  page.type("printf '\\377end\\342\\202.\\n'\r");
  const expected = /(é€😀){8}[^�]*�end�\.\r\n/;
  for (const terminal of terminals) await terminal.shows(expected);
  await stream.shows(expected);
  await binary.shows(/end.*\./);
  const bytes = Buffer.concat(binary.bytes).toString('latin1');
  assert.match(bytes, new RegExp(`(${Buffer.from('é€😀').toString('latin1')}){8}`));
  assert.match(bytes, /\xffend\xe2\x82\.\r\n/, 'the very bytes');
  stream.close();
});

// A program that keeps what is typed into it.
async function typing(terminal, bytes) {
  const file = newFile();
  const from = terminal.text.length;
  const line = `exec ${program('tests/tools/typed')} raw ${file} ${bytes}\r`;
  if (terminal.type) terminal.type(line);
  else terminal.send(Buffer.from(line));
  await terminal.shows(/ready$/, { from });
  return file;
}

test('types every byte as it is, in messages of text and of bytes [D2]', async (t) => {
  const { url } = await local(t);
  const all = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  const text = 'é€😀\x1b[200~{"type":"paste"}\r\x1b[201~\x00';
  for (const mode of [undefined, 'binary']) {
    const sessionId = `bytes ${mode}`;
    const terminal = cli(t, url, 'local', { mode, sessionId });
    await terminal.opened.promise;
    const expected = Buffer.concat([all, Buffer.from(text), Buffer.from('\xff\xfe', 'latin1')]);
    const file = await typing(terminal, expected.length);
    terminal.send(all);
    terminal.send(mode ? Buffer.from(text) : text);
    terminal.send(Buffer.from('\xff\xfe', 'latin1'));
    await terminal.closes(1000, 'exit');
    assert.deepEqual(readFileSync(file), expected);
  }
});

test('takes a large paste, and input before there is a shell, in order [P3]', async (t) => {
  const { fake, url, store } = await remote(t);
  await store('slow', 'alice', fake.createBox({ tunnel: 'open' }));
  fake.latencyMs = 150;
  const paste = Array.from({ length: scaled(200_000) / 8 }, (_, i) => `${i}`.padStart(7, '.')).join('\n');
  const file = newFile();
  const page = web(t, url, session);
  await page.opened.promise;
  page.type(`exec ${program('tests/tools/typed')} raw ${file} ${paste.length + 26}\r`);
  await page.shows(/ready$/);
  for (const letter of 'abcdefghijklmnopqrstuvwxyz') page.type(letter);
  page.type(paste);
  await page.closes(1000, 'exit');
  const typed = readFileSync(file);
  const hash = (data) => createHash('sha256').update(data).digest('hex');
  assert.equal(hash(typed), hash(`abcdefghijklmnopqrstuvwxyz${paste}`));

  // More than it holds without a shell.
  fake.latencyMs = 3000;
  const eager = web(t, url, 'slow');
  await eager.opened.promise;
  for (let i = 0; i < 5; i++) eager.type('x'.repeat(300_000));
  await eager.closes(1013);
  assert.equal(eager.windowOpen, true);
  fake.latencyMs = 0;
});

test('changes the size, and never types a resize [D5, D6]', async (t) => {
  const { url, client } = await local(t);
  const page = web(t, url, 'local', { size: [81, 25] });
  assert.equal(await run(page, 'stty size'), '25 81');
  const from = page.text.length;
  for (const bad of [0, -1, 1001, 65535, 65536, 70000, 1e9, '80', [80], null, 80.5, {}])
    for (const size of [[bad, 24], [80, bad]]) {
      page.resize(...size);
      page.send(Buffer.from(JSON.stringify({ type: 'resize', cols: size[0], rows: size[1] })));
      (await client.post('/pty/local/resize', { json: { cols: size[0], rows: size[1] } })).isProblem(400, 'bad-request', {
        error: 'Invalid cols/rows',
      });
    }
  for (const body of ['', '{', '[1]', '{"cols":80}'])
    assert.equal(
      (await client.post('/tty/local/resize', { body, headers: { 'Content-Type': 'application/json' } })).is(400).json.error,
      'Invalid cols/rows',
    );
  assert.equal(await run(page, 'stty size'), '25 81');
  assert.doesNotMatch(page.text.slice(from), /resize/);
  page.send(Buffer.from('{"type":"resize","cols":1000,"rows":1}'));
  await until(async () => (await run(page, 'stty size')) === '1 1000', 'the resize in a binary message');
  (await client.post('/pty/local/resize', { json: { cols: 70, rows: 20 } })).is(204);
  await until(async () => (await run(page, 'stty size')) === '20 70', 'the resize over HTTP');
  // What only looks like one is typed.
  page.type('#{"type":"resize","cols":80}\r');
  await page.shows(/#\{"type":"resize","cols":80\}/, { from });
});

test('types what POST brings, whatever its type says [D7]', async (t) => {
  const { client, url } = await local(t, { args: ['--input-bytes', '4K'] });
  const page = web(t, url, 'local');
  const body = '{"data":"x"}';
  const types = ['application/json', 'text/plain', 'application/octet-stream', 'application/x-www-form-urlencoded', 'x', undefined];
  const file = await typing(page, body.length * types.length + 2);
  for (const type of types)
    (await client.post('/pty/local/input', { body, headers: type ? { 'Content-Type': type } : {} })).is(204);
  (await client.post('/tty/local/input', { body: Buffer.from([0xff, 0x00]) })).is(204);
  await page.closes(1000, 'exit');
  assert.equal(readFileSync(file, 'latin1'), `${body.repeat(types.length)}\xff\x00`);
  (await client.post('/pty/local/input', { body: 'x'.repeat(5000) })).isProblem(413, 'payload-too-large');
  (await client.post('/pty/local/input', { body: '' })).is(204);
});

// --- the end ---

test('says 1000 for an end of the shell, and for nothing else [L5]', async (t) => {
  const agent = await Agent.start({ args: ['--port=0'] });
  t.cleanup(() => agent.stop());
  const { url, client } = await local(t, {
    providers: 'local,url',
    args: ['--tunnel-url', `ws://127.0.0.1:${agent.port}/ws/client`, '--reconnect-s', '1'],
    env: { PTYCAST_TUNNEL_TOKEN: agent.token, SHELL: '/bin/sh' },
  });
  const killed = web(t, url, 'local');
  killed.type('kill -9 $$\r');
  await killed.closes(1000, 'exit');

  const closed = web(t, url, 'local');
  const stream = await PtyStream.open(client, 'local');
  assert.equal(await run(closed, 'echo in'), 'in');
  const [{ id }] = await alive(client);
  (await client.delete(`/sessions/${id}`)).is(204);
  await closed.closes(1000, 'exit');
  assert.equal((await stream.end()).data.reason, 'closed');

  const lost = web(t, url, 'url');
  const lostStream = await PtyStream.open(client, 'url');
  assert.equal(await run(lost, 'echo in'), 'in');
  await agent.kill();
  await lost.closes(1011);
  assert.equal(lost.windowOpen, true);
  assert.ok(lost.reason.length > 0 && Buffer.byteLength(lost.reason) <= 123, lost.reason);
  const { event, data } = await lostStream.end();
  assert.equal(event, 'error');
  assert.ok(data.message.length > 0);
});

test('says why there is no shell, by each way that asks for one [L2]', async (t) => {
  const { box, url, client } = await remote(t);
  await box.shutdown();
  const page = web(t, url, session, { headers: { Origin: url } });
  page.type('echo never typed\r');
  await page.closes(1011);
  assert.match(page.reason, /\w+ \w+/);
  assert.equal(page.windowOpen, true);
  const stream = await PtyStream.open(client, session);
  const { event, data, id } = await stream.end();
  assert.equal(event, 'error');
  assert.ok(data.message.length > 0);
  // An EventSource that comes back with that id is told to stop.
  assert.equal((await PtyStream.open(client, session, { lastEventId: id })).status, 204);
  const typed = await client.post(`/pty/${session}/input`, { body: 'x' });
  assert.ok([409, 502].includes(typed.status), typed.text);
  assert.match(typed.json.session, /^pty-/);
});

test('says that input was not delivered', async (t) => {
  const agent = await Agent.start({ args: ['--port=0'] });
  t.cleanup(() => agent.stop());
  const proxy = await Proxy.start(agent.port);
  t.cleanup(() => proxy.stop());
  const { url } = await local(t, {
    providers: 'url',
    args: ['--tunnel-url', `ws://127.0.0.1:${proxy.port}/ws/client`, '--input-timeout-ms', '1500'],
    env: { PTYCAST_TUNNEL_TOKEN: agent.token },
  });
  const page = web(t, url, 'url');
  assert.equal(await run(page, 'echo in'), 'in');
  proxy.refusing = true;
  proxy.cut();
  page.type('echo lost\r');
  await page.closes(1011, 'input not delivered');
  assert.equal(page.windowOpen, true);
  proxy.refusing = false;
  assert.equal(await run(web(t, url, 'url'), 'echo in again'), 'in again');
});

test('streams output and the end, and then ends [L4]', async (t) => {
  const { client } = await local(t);
  const stream = await PtyStream.open(client, 'local');
  (await client.post('/pty/local/input', { body: 'echo one; echo t"w"o\r' })).is(204);
  await stream.shows(/two\r\n/);
  stream.close();
  // What was missed comes with the id, once.
  const { id } = stream.events.at(-1);
  (await client.post('/pty/local/input', { body: 'echo thr"e"e; exit 7\r' })).is(204);
  const rest = await PtyStream.open(client, 'local', { lastEventId: id });
  const last = await rest.end();
  assert.deepEqual([last.event, last.data], ['exit', { code: 7, reason: 'exited', exit_code: 7, signal: null }]);
  assert.match(stream.text + rest.text, /two\r\n[^]*three\r\n/);
  assert.doesNotMatch(rest.text, /two\r/);
  assert.ok(rest.events.slice(0, -1).every((e) => e.event === 'output'));
  // At its end nothing follows; from before it the end is told again; without an id it is a new shell.
  assert.equal((await PtyStream.open(client, 'local', { lastEventId: last.id })).status, 204);
  assert.equal((await PtyStream.open(client, 'local', { query: { since: last.id } })).status, 204);
  assert.deepEqual((await (await PtyStream.open(client, 'local', { lastEventId: id })).end()).data, last.data);
  assert.equal((await alive(client)).length, 0);
  const next = await PtyStream.open(client, 'local');
  (await client.post('/pty/local/input', { body: 'echo n"e"w; kill -9 $$\r' })).is(204);
  assert.deepEqual((await next.end()).data, { code: null, reason: 'exited', exit_code: null, signal: 'SIGKILL' });
  assert.match(next.text, /new\r\n/);
  assert.doesNotMatch(next.text, /two\r/);
});

test('pings a stream that is quiet, and a WebSocket [P2]', async (t) => {
  const { url, client } = await local(t, { args: ['--ping-s', '1'] });
  const stream = await PtyStream.open(client, 'local');
  const page = web(t, url, 'local');
  await within(new Promise((resolve) => page.ws.once('ping', resolve)), 'a ping');
  await until(() => stream.comments > 0, 'a comment');
  stream.close();
});

test('ends what everybody has left, after a time of its own [L10]', async (t) => {
  const { url, client } = await local(t, { args: ['--pty-idle-timeout-s', '1'] });
  const page = web(t, url, 'local');
  assert.equal(await run(page, 'echo in'), 'in');
  page.leave();
  const ended = await until(async () => (await sessionsOf(client)).find((s) => s.state === 'ended'), 'its end');
  assert.equal(ended.ended.reason, 'expired');
});

test('tells a terminal to come again when the service goes down', async (t) => {
  const { service, url } = await local(t);
  const page = web(t, url, 'local');
  assert.equal(await run(page, 'echo in'), 'in');
  service.terminate();
  await page.closes(1001);
  assert.equal(page.windowOpen, true);
});

test('is killed and comes back, and a client that connects again has its shell', async (t) => {
  const { service, url } = await remote(t);
  const page = web(t, url, session);
  assert.equal(await run(page, 'stty -echo; x=kept; echo $x $$').then((s) => s.split(' ')[0]), 'kept');
  page.type("printf 'where am I?\\033[6n\\033[c'; read -r -d R answer; echo answ\"e\"red\r");
  await page.shows(/where am I\?\x1b\[6n\x1b\[c/);
  page.send('\x1b[1;12R');
  await page.shows(/answered\r\n/); // what is on its way when the service dies may be lost
  await service.kill();
  await page.closes(1006);
  assert.equal(page.windowOpen, true);
  await service.restart();
  const again = await until(async () => {
    const next = web(t, url, session);
    return (await next.opened.promise.then(() => true, () => false)) && next;
  }, 'a connection');
  await again.shows(/where am I\?/);
  assert.equal(await run(again, 'echo $x'), 'kept');
  assert.doesNotMatch(again.text, /\x1b\[6n|\x1b\[c/, 'nothing is asked again');
});

test('finds a shell that nobody used for a while, and asks nothing that was asked meanwhile', async (t) => {
  const { service, url } = await remote(t, { args: ['--detach-s', '1'] });
  const [go, done] = [newFile(), newFile()];
  const page = web(t, url, session);
  await run(page, `x=kept; (until [ -e ${go} ]; do sleep 0.05; done; printf 'mean\\033[6nwhile'; touch ${done}) & :`);
  page.leave();
  await until(() => /"session sleeps"/.test(service.log), 'the sleep of the session');
  writeFileSync(go, '');
  await until(() => existsSync(done), 'output while it sleeps');
  const again = web(t, url, session);
  await again.shows(/meanwhile/);
  assert.equal(await run(again, "printf 'now\\033[6n'; echo $x"), 'now\x1b[6nkept');
  assert.equal(again.text.match(/\x1b\[6n/g).length, 1);
});

test('asks a terminal that comes later nothing, and one that is there all', async (t) => {
  const { url, client } = await local(t);
  const first = web(t, url, 'local');
  assert.equal(await run(first, 'stty -echo'), '');
  const queries = ['[5n', '[6n', '[?6n', '[c', '[>c', '[=c', '[?25$p', '[>q', '[14t', '[18t', ']10;?\\a', ']4;1;?\\a', ']52;c;?\\a'];
  const asked = queries.map((q) => `\\033${q}`).join('');
  first.type(`printf 'be${asked}\\033P$qm\\033\\\\\\005fore\\n'\r`);
  await first.shows(/be\x1b\[5n\x1b\[6n[^]*\x05fore/);
  for (const mode of [undefined, 'binary']) {
    const later = cli(t, url, 'local', { mode });
    await later.shows(/before\r\n/);
    later.leave();
  }
  const later = web(t, url, 'local');
  const stream = await PtyStream.open(client, 'local');
  await later.shows(/before\r\n/);
  await stream.shows(/before\r\n/);
  first.type("printf 'now\\033[6n!'\r");
  await later.shows(/now\x1b\[6n!/);
  await stream.shows(/now\x1b\[6n!/);
  stream.close();
});

test('gives a terminal that comes to a long history its newest 64 KiB, from a line on', async (t) => {
  const { url } = await local(t);
  const first = web(t, url, 'local');
  first.type('i=0; while [ $i -lt 4000 ]; do echo "line $i .............................."; i=$((i+1)); done; echo do""ne\r');
  await first.shows(/\ndone\r\n/);
  const later = web(t, url, 'local');
  await later.shows(/\ndone\r\n/);
  assert.match(later.text, /^line \d+ \.{30}\r\nline/);
  assert.ok(later.text.length <= 66_000, `${later.text.length}`);
});

test('says in the output where some of it was lost', async (t) => {
  const { url } = await local(t, { args: ['--journal-bytes', '64K', '--agent-ring-bytes', '64K', '--flow-stall-ms', '0'] });
  const slow = web(t, url, 'local');
  assert.equal(await run(slow, 'stty -echo'), '');
  slow.ws.pause();
  const fast = web(t, url, 'local');
  fast.type(`head -c ${scaled(24_000_000)} /dev/zero | tr '\\0' x; echo; echo do""ne\r`);
  await fast.shows(/\ndone\r\n/, { ms: DEADLINE_MS * 4 });
  slow.ws.resume();
  await slow.shows(/\x18\r\n\[ptycast: output was lost here\]\r\n/);
  await slow.shows(/\ndone\r\n/);
});

test('lets an EventSource go on by itself, and stop at the end', async (t) => {
  const { service, url, client } = await local(t, { args: ['--max-stream-age-s', '1', '--retry-ms', '50'] });
  const statuses = [];
  const source = new EventSource(`${url}/tty/local/stream?token=${keys.admin}`, {
    fetch: async (...args) => {
      const response = await fetch(...args);
      statuses.push(response.status);
      return response;
    },
  });
  t.cleanup(() => source.close());
  let text = '';
  const exits = [];
  source.addEventListener('output', (event) => (text += JSON.parse(event.data).data));
  source.addEventListener('exit', (event) => exits.push(JSON.parse(event.data)));
  (await client.post('/pty/local/input', { body: 'echo on"e"\r' })).is(204);
  await until(() => /one\r\n/.test(text), 'output');
  await until(() => statuses.length >= 2, 'a stream that was closed for its age, and one after it');
  (await client.post('/pty/local/input', { body: 'exit 4\r' })).is(204);
  await until(() => statuses.includes(204), 'the 204 that ends it');
  assert.deepEqual(exits, [{ code: 4, reason: 'exited', exit_code: 4, signal: null }]);
  assert.equal(text.match(/one\r\n/g).length, 1, text);
  assert.equal(source.readyState, 2, 'closed');
  assert.equal((await sessionsOf(service.client())).length, 1, 'and no shell was made for it');
});

test('keeps a WebSocket for as long as it is wanted, since its client does not come back', async (t) => {
  const { url } = await local(t, { args: ['--max-stream-age-s', '1'] });
  const page = web(t, url, 'local');
  const native = web(t, url, 'local', { kind: 'pty' });
  await run(page, 'echo in');
  const [{ id }] = await sessionsOf(new Client(url, keys.admin));
  const rotated = new WebSocket(`${url.replace('http', 'ws')}/sessions/${id}/ws`, {
    headers: { Authorization: `Bearer ${keys.admin}` },
  });
  const code = await within(new Promise((resolve) => rotated.on('close', resolve)), 'the close of a native one');
  assert.equal(code, 1001);
  assert.equal(await run(page, 'echo still'), 'still');
  assert.equal(await run(native, 'echo both'), 'both');
});

test('says that there is no room, and to come later', async (t) => {
  const { service, url } = await local(t, { args: ['--max-sessions-per-subject', '1', '--max-viewers-per-session', '1'] });
  const page = web(t, url, 'local');
  assert.equal(await run(page, 'echo in'), 'in');
  const headers = { Origin: url };
  const another = web(t, url, 'local', { sessionId: 'another', headers });
  await another.closes(1013, 'at most 1 sessions of one subject may be alive at once');
  const viewer = web(t, url, 'local', { headers });
  await viewer.closes(1013, 'there are as many viewers as there may be');
  const program = cli(t, url, 'local', { sessionId: 'another' });
  await program.closes(1006);
  assert.equal(program.refused.problem.type, '/problems/session-limit');
  assert.equal((await PtyStream.open(service.client(), 'local')).problem.type, '/problems/viewer-limit');
});
