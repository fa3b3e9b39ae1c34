// auth.test.mjs -- JSON Web Tokens, tickets and the stream's cookie: the good ones, and every bad one.
// Keys and roles are in routes.test.mjs.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, before } from 'node:test';
import { jwt, keyPair } from './lib/jwt.mjs';
import { PatternShell } from './lib/pattern.mjs';
import { Service, keys, test } from './lib/service.mjs';
import { EventStream } from './lib/sse.mjs';
import { until } from './lib/wait.mjs';
import { Socket } from './lib/ws.mjs';

const SECRET = 'an operator secret of good length';
const noLimit = ['--unauthorized-per-minute', '100000'];
let service, alice, bob;

before(async () => {
  service = await Service.start({ args: [...noLimit, '--log-level', 'debug'], env: { PTYCAST_JWT_SECRET: SECRET } });
  alice = service.client();
  bob = service.client(keys.stranger);
});
after(() => service?.stop());

const good = (claims = {}, key = SECRET, alg = 'HS256') => jwt(alg, key, { sub: 'alice', ...claims });
const status = async (credential, where = service, path = '/sessions') =>
  (await where.client(credential).get(path)).status;

test('takes a JWT of its secret, with its subject and role', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const get = (token) => status(token, service, shell.path);
  assert.equal(await get(good()), 200);
  assert.equal(await get(good({ exp: 1e6 })), 200);
  assert.equal(await get(jwt('HS256', SECRET, { sub: 'bob' })), 404);
  assert.equal(await get(jwt('HS256', SECRET, { sub: 'alice', did: 'alice' })), 200);
  assert.equal(await get(jwt('HS256', SECRET, { sub: 'bob', did: 'alice' })), 401, 'which of the two it is for');
  assert.equal(await get(jwt('HS256', SECRET, { did: 'alice' })), 200);
  assert.equal(await get(good({ header: { kid: 'x' } })), 200);
  const asRole = (role) => service.client(good({ role }));
  (await asRole('view').type(shell.id, '\n')).isProblem(403, 'forbidden');
  (await asRole('write').type(shell.id, '\n')).is(204);
  (await asRole('write').delete(shell.path)).isProblem(403, 'forbidden');
  (await service.client(good()).post('/sessions', { json: { sandbox: 'local', command: ['true'] } })).is(201);
  (await asRole('admin').delete(shell.path)).is(204);
  // A key works beside it.
  (await alice.get(shell.path)).is(200);
});

test('refuses every other token', async () => {
  const [head, body, mac] = good().split('.');
  const rsa = keyPair('RS256');
  const bad = {
    expired: good({ exp: -10 }),
    'no exp': good({ exp: null }),
    'not yet': good({ nbf: Math.floor(Date.now() / 1000) + 3600 }),
    'wrong secret': good({}, 'another secret of good length'),
    none: jwt('none', null, { sub: 'alice' }),
    'none with a signature': `${jwt('none', null, { sub: 'alice' })}${mac}`,
    NONE: jwt('none', null, { sub: 'alice', header: { alg: 'NONE' } }),
    'another algorithm': good({}, SECRET, 'HS512'),
    RS256: jwt('RS256', rsa.privateKey, { sub: 'alice' }),
    'no subject': jwt('HS256', SECRET, {}),
    'empty subject': good({ sub: '' }),
    'subject that is no text': good({ sub: 5 }),
    'unknown role': good({ role: 'root' }),
    'no signature': `${head}.${body}.`,
    'no signature and no dot': `${head}.${body}`,
    'cut signature': good().slice(0, -2),
    'changed signature': `${head}.${body}.${mac.startsWith('A') ? 'B' : 'A'}${mac.slice(1)}`,
    'changed body': `${head}.${Buffer.from('{"sub":"root","exp":9999999999}').toString('base64url')}.${mac}`,
    'more parts': `${good()}.x`,
    dots: '..',
    'long subject': good({ sub: 'x'.repeat(4000) }),
    'control characters': good({ sub: 'ali\0ce' }),
  };
  for (const [what, token] of Object.entries(bad)) assert.equal(await status(token), 401, what);
});

for (const alg of ['RS256', 'ES256'])
  test(`takes ${alg} tokens by a public key, and nothing else`, async (t) => {
    const own = keyPair(alg);
    const foreign = keyPair(alg);
    const file = `${service.dir}/${alg}.pem`;
    writeFileSync(file, own.pem);
    const other = await t.start({ args: [...noLimit, '--jwt-public-key-file', file] });
    assert.equal(await status(jwt(alg, own.privateKey, { sub: 'alice' }), other), 200);
    const bad = {
      foreign: jwt(alg, foreign.privateKey, { sub: 'alice' }),
      expired: jwt(alg, own.privateKey, { sub: 'alice', exp: -5 }),
      'the public key as secret': jwt('HS256', own.pem, { sub: 'alice' }),
      none: jwt('none', null, { sub: 'alice' }),
      'says HS256': jwt('HS256', '', { sub: 'alice' }),
      'the other kind': jwt(
        alg === 'RS256' ? 'ES256' : 'RS256',
        keyPair(alg === 'RS256' ? 'ES256' : 'RS256').privateKey,
        { sub: 'alice' },
      ),
    };
    for (const [what, token] of Object.entries(bad)) assert.equal(await status(token, other), 401, what);
  });

test('takes tokens that never expire when the operator says so', async (t) => {
  const other = await t.start({ args: [...noLimit, '--jwt-require-exp', '0'], env: { PTYCAST_JWT_SECRET: SECRET } });
  assert.equal(await status(good({ exp: null }), other), 200);
  assert.equal(await status(good({ exp: -10 }), other), 401);
});

test('ends streams and sockets when their token expires', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const client = service.client(good({ exp: 3 }));
  const stream = await EventStream.open(client, shell.id);
  const socket = await Socket.open(client, shell.id);
  const { names } = await stream.rest();
  assert.ok(!names.includes('exit'));
  assert.equal(await socket.end(), 4401);
  const again = await EventStream.open(client, shell.id, { since: shell.idAt(64) });
  assert.equal(again.status, 401);
  assert.equal((await shell.info()).state, 'open');
});

test('makes tickets for one session, one role, one use', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const other = await PatternShell.create(alice, 'lines');
  const nobody = service.client(null);
  const made = (await alice.post(`${shell.path}/tickets`, { json: { role: 'view' } })).is(201).json;
  assert.equal(made.role, 'view');
  const left = Date.parse(made.expires_at) - Date.now();
  assert.ok(left > 10_000 && left <= 61_000, `60 s by default: ${left}`);
  const { ticket } = made;
  // Elsewhere it is nothing, and does not get spent.
  for (const path of ['/sessions', other.path, `${other.path}/stream`, '/providers', '/metrics'])
    assert.equal((await nobody.get(`${path}?ticket=${ticket}`)).status, 401, path);
  (await nobody.post(`/sessions?ticket=${ticket}`, { json: { sandbox: 'local' } })).is(401);
  (await nobody.post(`${shell.path}/tickets?ticket=${ticket}`, { json: { role: 'write' } })).is(401);
  (await nobody.delete(`${shell.path}?ticket=${ticket}`)).is(401);
  for (const forged of [`${ticket}x`, ticket.slice(1), ticket.replace('view', 'write'), ticket.replace('once', 'many')])
    (await nobody.get(`${shell.path}?ticket=${forged}`)).isProblem(401, 'unauthorized');
  const first = await EventStream.open(nobody, shell.id, { ticket });
  assert.equal(first.status, 200);
  shell.assert(0, (await first.to(64)).bytes);
  assert.equal((await EventStream.open(nobody, shell.id, { ticket })).status, 401, 'spent');
  assert.equal((await Socket.open(nobody, shell.id, { ticket })).refused.status, 401);
  first.close();
});

test('gives the first use of a ticket on a stream a cookie for that stream alone', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const other = await PatternShell.create(alice, 'lines');
  const nobody = service.client(null);
  const ticket = await alice.ticket(shell.id);
  const first = await EventStream.open(nobody, shell.id, { ticket });
  assert.equal(first.headers['set-cookie'].length, 1);
  const [pair, ...attributes] = first.headers['set-cookie'][0].split(/; */);
  assert.ok(pair.startsWith(`pt_${shell.id}=`));
  assert.ok(!pair.includes(ticket));
  const named = Object.fromEntries(attributes.map((a) => a.toLowerCase().split('=')));
  assert.ok('httponly' in named);
  assert.equal(named.samesite, 'strict');
  assert.equal(named.path, `${shell.path}/stream`.toLowerCase());
  assert.ok(Number(named['max-age']) > 0 && Number(named['max-age']) <= 300);
  assert.ok(!('secure' in named), 'the listener is on loopback');
  assert.ok(!('domain' in named));
  first.close();

  const cookie = { Cookie: pair };
  // With the spent ticket, without one, among other cookies: it opens this stream, renewed.
  for (const options of [
    { ticket, headers: cookie },
    { headers: cookie },
    { headers: { Cookie: `a=b; ${pair}; c="d"` } },
    { ticket: 'nonsense', headers: cookie },
  ]) {
    const stream = await EventStream.open(nobody, shell.id, { ...options, lastEventId: shell.idAt(10) });
    assert.equal(stream.status, 200, JSON.stringify(options));
    assert.match(stream.headers['set-cookie'][0], new RegExp(`^pt_${shell.id}=`));
    assert.equal((await stream.to(64)).from, 10);
    stream.close();
  }
  // Nowhere else, and in no other form.
  const value = pair.slice(pair.indexOf('=') + 1);
  const elsewhere = { Cookie: `pt_${other.id}=${value}; ${pair}` };
  assert.equal((await EventStream.open(nobody, other.id, { headers: elsewhere })).status, 401);
  (await nobody.get(shell.path, { headers: cookie })).is(401);
  (await nobody.post(`${shell.path}/input`, { body: 'x', headers: cookie })).is(401);
  (await nobody.post(`${shell.path}/resize`, { json: { cols: 1, rows: 1 }, headers: cookie })).is(401);
  (await nobody.delete(shell.path, { headers: cookie })).is(401);
  assert.equal((await Socket.open(nobody, shell.id, { headers: cookie })).refused.status, 401);
  const parts = value.split('.');
  const forged = [
    value.slice(0, -1),
    `${value}x`,
    '',
    'x',
    value.replace('view', 'admin'),
    value.replace('view', 'write'),
    ...parts.map((_, i) => parts.map((p, j) => (i === j ? `${p}0` : p)).join('.')),
    ...parts.map((_, i) => parts.map((p, j) => (i === j ? '' : p)).join('.')),
    'x'.repeat(3000),
  ].filter((v) => v !== value);
  for (const v of forged)
    assert.equal(
      (await EventStream.open(nobody, shell.id, { headers: { Cookie: `pt_${shell.id}=${v}` } })).status,
      401,
      v.slice(0, 80),
    );
  // A key or no ticket sets none.
  const plain = await EventStream.open(alice, shell.id);
  assert.equal(plain.headers['set-cookie'], undefined);
  plain.close();
});

test('makes tickets that may be used again, for their time', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const nobody = service.client(null);
  const lasting = await alice.ticket(shell.id, { role: 'view', reusable: true, ttl_s: 3600 });
  for (let i = 0; i < 3; i++) {
    const stream = await EventStream.open(nobody, shell.id, { ticket: lasting });
    assert.equal(stream.status, 200);
    stream.close();
    const socket = await Socket.open(nobody, shell.id, { ticket: lasting });
    assert.equal((await socket.next()).event, 'state');
    socket.close();
  }
  const brief = await alice.ticket(shell.id, { role: 'view', reusable: true, ttl_s: 1 });
  await until(async () => {
    const stream = await EventStream.open(nobody, shell.id, { ticket: brief });
    stream.close();
    return stream.status === 401;
  }, 'the ticket has expired');
});

test('gives a ticket the role it is made for', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const nobody = service.client(null);
  const viewer = await Socket.open(nobody, shell.id, { ticket: await alice.ticket(shell.id, { role: 'view' }) });
  viewer.send({ type: 'input', data: 'w 10\n' });
  assert.equal((await viewer.first('error')).type, '/problems/forbidden');
  viewer.close();
  const writer = await Socket.open(nobody, shell.id, { ticket: await alice.ticket(shell.id, { role: 'write' }) });
  writer.send({ type: 'client', id: 'by-ticket' });
  writer.send({ type: 'input', data: 'w 10\n', seq: 1 });
  await writer.first('ack');
  await writer.to(74);
  writer.close();
  // Who may only look or type makes tickets for that, and shares nothing.
  const ask = (credential, json) => service.client(credential).post(`${shell.path}/tickets`, { json });
  (await ask(keys.viewer, { role: 'view' })).is(201);
  (await ask(keys.writer, { role: 'write' })).is(201);
  (await ask(keys.viewer, { role: 'write' })).isProblem(403, 'forbidden');
  for (const credential of [keys.viewer, keys.writer])
    (await ask(credential, { role: 'view', reusable: true })).isProblem(403, 'forbidden');
  (await bob.post(`${shell.path}/tickets`, { json: { role: 'view' } })).isProblem(404, 'not-found');
});

test('lets a ticket that may be used again read and type where it is for', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const nobody = service.client(null);
  const viewing = await alice.ticket(shell.id, { role: 'view', reusable: true });
  const writing = await alice.ticket(shell.id, { role: 'write', reusable: true });
  (await nobody.get(`${shell.path}?ticket=${viewing}`)).is(200);
  const posts = { input: { data: 'w 10\n' }, resize: { cols: 81, rows: 25 }, signal: { signal: 'CONT' } };
  for (const [name, json] of Object.entries(posts)) {
    (await nobody.post(`${shell.path}/${name}?ticket=${viewing}`, { json })).isProblem(403, 'forbidden');
    (await nobody.post(`${shell.path}/${name}?ticket=${writing}`, { json })).is(204);
  }
  (await nobody.delete(`${shell.path}?ticket=${writing}`)).isProblem(401, 'unauthorized');
  assert.equal((await shell.reached(74)).cols, 81);
});

test('refuses tickets that cannot be', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const make = (json) => alice.post(`${shell.path}/tickets`, { json });
  for (const [json, field] of [
    [{}, 'role'],
    [{ role: 'admin' }, 'role'],
    [{ role: 'operator' }, 'role'],
    [{ role: 5 }, 'role'],
    [{ role: 'view', ttl_s: 0 }, 'ttl_s'],
    [{ role: 'view', ttl_s: 3601 }, 'ttl_s'],
    [{ role: 'view', ttl_s: '60' }, 'ttl_s'],
    [{ role: 'view', ttl_s: 1.5 }, 'ttl_s'],
    [{ role: 'view', reusable: 1 }, 'reusable'],
    [{ role: 'view', session: 'x' }, 'session'],
  ])
    (await make(json)).isProblem(400, 'bad-request', { field });
  (await alice.post(`${shell.path}/tickets`, { body: 'x', headers: { 'Content-Type': 'application/json' } })).isProblem(
    400,
    'bad-json',
  );
  (await alice.post(`${shell.path}/tickets`, { body: '{"role":"view"}' })).isProblem(415, 'unsupported-media-type');
  (await alice.post('/sessions/none/tickets', { json: { role: 'view' } })).isProblem(404, 'not-found');
});

test('does not outlive the token that made it', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const maker = service.client(good({ exp: 20 }));
  const { expires_at } = (await maker.post(`${shell.path}/tickets`, { json: { role: 'view', ttl_s: 3600 } })).is(
    201,
  ).json;
  assert.ok(Date.parse(expires_at) <= Date.now() + 21_000);
});

test('spends no more tickets than it can remember, and limits failures of one address', async (t) => {
  const small = await t.start({ args: ['--max-tickets', '3', '--unauthorized-per-minute', '5'] });
  const client = small.client();
  const nobody = small.client(null);
  const shell = await PatternShell.create(client, 'lines');
  const tickets = [];
  for (let i = 0; i < 4; i++) tickets.push(await client.ticket(shell.id)); // made without a limit
  for (const ticket of tickets.slice(0, 3)) (await nobody.get(`${shell.path}?ticket=${ticket}`)).is(200);
  for (let i = 0; i < 2; i++) {
    const full = (await nobody.get(`${shell.path}?ticket=${tickets[3]}`)).isProblem(503, 'busy');
    assert.ok(Number(full.headers['retry-after']) > 0);
  }
  (await nobody.get(`${shell.path}/stream?ticket=${tickets[3]}`)).isProblem(503, 'busy');
  (await nobody.get(`${shell.path}?ticket=${tickets[0]}`)).isProblem(401, 'unauthorized');
  const reusable = await client.ticket(shell.id, { role: 'view', reusable: true });
  for (let i = 0; i < 4; i++) (await nobody.get(`${shell.path}?ticket=${reusable}`)).is(200);
  const answers = [];
  for (let i = 0; i < 12; i++) answers.push(await small.client(`guess-${i}`).get('/sessions'));
  assert.deepEqual(new Set(answers.map((a) => a.status)), new Set([401, 429]));
  answers.at(-1).isProblem(429, 'rate-limit');
  (await small.client(null).get('/healthz')).is(200);
});

test('takes no ticket of a process before it', async (t) => {
  const own = await t.start();
  const shell = await PatternShell.create(own.client(), 'lines');
  const path = `${shell.path}?ticket=${await own.client().ticket(shell.id, { role: 'view', reusable: true })}`;
  (await own.client(null).get(path)).is(200);
  await own.kill();
  await own.restart();
  (await own.client(null).get(path)).isProblem(401, 'unauthorized');
});

test('makes a key when none is configured, and says it on stdout alone', async (t) => {
  const own = await t.start({ keys: null });
  const { key } = JSON.parse(own.process.stdout.split('\n')[0]); // for people it is in the URL's fragment
  assert.match(key, /^[A-Za-z0-9_-]{22,}$/);
  assert.ok(!own.log.includes(key));
  (await own.client(key).get('/sessions')).is(200);
  (await own.client(null).get('/sessions')).is(401);
});

test('starts on loopback only when nobody needs a credential', async (t) => {
  await assert.rejects(t.start({ keys: null, listen: '0.0.0.0:0' }), /loopback/);
});

test('logs nothing that is secret', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const token = good();
  const wrong = 'wrong-key-tried-by-somebody';
  await status(token);
  await status(wrong);
  const ticket = await alice.ticket(shell.id);
  const spent = await EventStream.open(service.client(null), shell.id, { ticket });
  const cookie = spent.headers['set-cookie'][0].split(';')[0].split('=')[1];
  await EventStream.open(service.client(null), shell.id, { ticket });
  const back = await EventStream.open(service.client(null), shell.id, {
    headers: { Cookie: `pt_${shell.id}=${cookie}` },
  });
  await shell.print('hunter2-typed');
  const socket = await Socket.open(service.client(null), shell.id, {
    ticket: await alice.ticket(shell.id, { role: 'write' }),
  });
  socket.send({ type: 'input', data: 't typed-by-socket\n' });
  await socket.until((m) => m.data?.includes('typed-by-socket'));
  (
    await alice.post('/sessions', {
      json: { sandbox: 'local', command: ['sh', '-c', 'echo command-secret'], env: { PASSWORD: 'env-secret' } },
    })
  ).is(201);
  (
    await alice.post('/sessions', { body: '{"sandbox":"body-secret"', headers: { 'Content-Type': 'application/json' } })
  ).is(400);
  const gone = await alice.get(`/sessions/none?ticket=query-secret`);
  gone.is(404);
  for (const stream of [spent, back]) stream.close();
  socket.close();
  const { text } = await alice.get('/metrics');
  assert.ok(service.log.length > 500, 'it does log');
  for (const secret of [
    ...Object.values(keys),
    SECRET,
    token,
    token.split('.')[2],
    wrong,
    ticket,
    cookie,
    'hunter2',
    'typed-by-socket',
    'command-secret',
    'env-secret',
    'body-secret',
    'query-secret',
  ]) {
    assert.ok(
      !service.log.includes(secret),
      `the log has ${secret}:\n${service.log.split('\n').find((l) => l.includes(secret))}`,
    );
    assert.ok(!text.includes(secret), `the metrics have ${secret}`);
  }
  for (const line of service.log.trim().split('\n')) assert.doesNotThrow(() => JSON.parse(line), line);
});
