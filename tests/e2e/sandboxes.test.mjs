// sandboxes.test.mjs -- /sandboxes: what is stored, for whom, what is refused; and that no credential is to be found
// anywhere it should not be.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { after, before } from 'node:test';
import { scaled } from './lib/flavour.mjs';
import { makePair, open, seal } from './lib/sealing.mjs';
import { Service, keys, test } from './lib/service.mjs';

const SECRET = 'ak_secret-0123456789abcdef-LAST';
const pair = makePair();
const older = makePair();
let service, alice, bob, viewer, writer, operator;

const settings = {
  providers: 'local,runloop',
  env: { PTYCAST_PRIVATE_KEY: `${pair.privateKey},${older.privateKey}`, PTYCAST_PUBLIC_KEY: pair.publicKey },
};

before(async () => {
  service = await Service.start(settings);
  [alice, bob, viewer, writer, operator] = [
    keys.admin,
    keys.stranger,
    keys.viewer,
    keys.writer,
    keys.operator,
  ].map((key) => service.client(key));
});
after(() => service?.stop());

const runloop = (more) => ({ provider: 'runloop', external_id: 'dbx_1', credential: SECRET, ...more });
const create = (client, more) => client.post('/sandboxes', { json: runloop(more) });
const patch = (client, id, json) => client.request('PATCH', `/sandboxes/${id}`, { json });
const files = (dir) => readdirSync(dir).map((name) => [name, readFileSync(`${dir}/${name}`)]);

test('stores a sandbox and shows it without its credential', async () => {
  const answer = (await create(alice, { id: 'first', name: 'Örjans', metadata: { a: [1, { b: null }] } })).is(201);
  const { created_at, updated_at, ...rest } = answer.json;
  assert.deepEqual(rest, {
    id: 'first',
    subject: 'alice',
    provider: 'runloop',
    external_id: 'dbx_1',
    credential: { api_key: '...LAST' },
    name: 'Örjans',
    metadata: { a: [1, { b: null }] },
    transport: 'auto',
    agent: 'ptycast',
    resume: true,
  });
  assert.equal(created_at, updated_at);
  assert.ok(Math.abs(Date.parse(created_at) - Date.now()) < 60_000);
  assert.equal(answer.headers.location, '/sandboxes/first');
  for (const client of [alice, viewer, writer, operator])
    assert.deepEqual((await client.get('/sandboxes/first')).is(200).json, answer.json);
});

test('makes an id when none is given, another one each time', async () => {
  const one = (await create(alice)).is(201);
  const other = (await create(alice)).is(201);
  assert.notEqual(one.json.id, other.json.id);
  assert.equal(one.headers.location, `/sandboxes/${one.json.id}`);
  for (const { json } of [one, other]) (await alice.delete(`/sandboxes/${json.id}`)).is(204);
});

test('takes all that can be said', async () => {
  const said = {
    id: 'full',
    provider: 'runloop',
    external_id: '!a.b:c~',
    credential: { token_id: 'short', token_secret: '12345678901234567890' },
    name: '🔑'.repeat(200),
    metadata: { text: 'x'.repeat(16000), nul: '\0' },
    transport: 'native',
    agent: 'pty-tunnel',
    resume: false,
  };
  const { json } = (await alice.post('/sandboxes', { json: said })).is(201);
  for (const member of ['external_id', 'name', 'metadata', 'transport', 'agent', 'resume'])
    assert.deepEqual(json[member], said[member], member);
  assert.deepEqual(json.credential, { token_id: '***', token_secret: '...7890' });
  (await alice.delete('/sandboxes/full')).is(204);
});

test('the same again is the same sandbox; another under its id is not', async () => {
  const more = { id: 'again', name: 'n', metadata: { a: 1, b: 2 } };
  const first = (await create(alice, more)).is(201).json;
  assert.deepEqual((await create(alice, { ...more, metadata: { b: 2, a: 1 }, resume: true })).is(200).json, first);
  const sealed = { ...runloop(more), credential: undefined, credential_sealed: seal(SECRET, pair.publicKey) };
  assert.deepEqual((await alice.post('/sandboxes', { json: sealed })).is(200).json, first);
  for (const [member, value] of Object.entries({
    external_id: 'dbx_2',
    name: 'm',
    metadata: { a: 1 },
    transport: 'native',
    agent: 'pty-tunnel',
    resume: false,
    credential: `${SECRET}2`,
  }))
    (await create(alice, { ...more, [member]: value })).isProblem(409, 'id-differs', { field: member });
  for (const client of [bob, operator]) {
    const taken = (await create(client, more)).isProblem(409, 'id-taken');
    assert.ok(!taken.text.includes('alice'), taken.text);
  }
  (await operator.post('/sandboxes', { json: runloop({ ...more, subject: 'alice' }) })).is(200);
  assert.deepEqual((await alice.get('/sandboxes/again')).json, first);
  // Of many at once one makes it.
  const answers = await Promise.all(Array.from({ length: 10 }, () => create(alice, { id: 'at-once' })));
  assert.deepEqual(answers.map((a) => a.status).sort(), [...Array(9).fill(200), 201]);
  for (const id of ['again', 'at-once']) (await alice.delete(`/sandboxes/${id}`)).is(204);
});

test('refuses what cannot be, by its name', async () => {
  const sealed = (text) => seal(text, pair.publicKey);
  const bad = [
    [{ provider: undefined }, 'provider'],
    [{ provider: 'local' }, 'provider', { allowed: 'runloop' }],
    [{ provider: 'vercel' }, 'provider', { allowed: 'runloop' }],
    [{ external_id: undefined }, 'external_id'],
    [{ credential: undefined }, 'credential'],
    [{ credential_sealed: sealed('x') }, 'credential'],
    [{ shape: 'round' }, 'shape'],
    [{ id: 'a.b' }, 'id'],
    [{ id: '' }, 'id'],
    [{ id: 'x'.repeat(65) }, 'id'],
    [{ id: 'local' }, 'id'],
    [{ id: 'runloop' }, 'id'],
    ...['', 'a b', 'a/b', 'a?b', 'a#b', 'a%41', 'a\\b', 'ä', 'a\n', 'a\0', '.', '..', 'x'.repeat(257), 7, null].map(
      (external_id) => [{ external_id }, 'external_id'],
    ),
    ...[{}, [], 7, null, { api_key: 7 }, { 'api-key': 'x' }, { A: 'x' }, { '': 'x' }, { ['x'.repeat(33)]: 'x' }].map(
      (credential) => [{ credential }, 'credential'],
    ),
    [{ credential: Object.fromEntries([...'abcdefghi'].map((c) => [c, 'x'])) }, 'credential'],
    ...['', 'a\nb', 'a\0', 'ä', 'a\x7f', 'x'.repeat(4097)].map((credential) => [{ credential }, 'credential.api_key']),
    [{ credential: { good: 'x', bad: '\r' } }, 'credential.bad'],
    ...['', 'x'.repeat(201), 'a\x1b', 'a\0', 7].map((name) => [{ name }, 'name']),
    ...[[], 'x', { a: 'x'.repeat(16384) }, { a: [[[[[[[[]]]]]]]] }].map((metadata) => [{ metadata }, 'metadata']),
    [{ transport: 'raw' }, 'transport', { allowed: ['auto', 'agent', 'native'] }],
    [{ agent: 'bash' }, 'agent', { allowed: ['ptycast', 'pty-tunnel'] }],
    [{ resume: 'yes' }, 'resume'],
    ...['', ' \n', 'a\nb', 'a\0', 'ä'].map((text) => [
      { credential: undefined, credential_sealed: sealed(text) },
      'credential_sealed.api_key',
    ]),
  ];
  for (const [more, field, members] of bad)
    (await create(alice, { id: 'bad', ...more })).isProblem(400, 'bad-request', { field, ...members });
  const foreign = makePair();
  for (const text of [seal(SECRET, foreign.publicKey), sealed(SECRET).slice(1), `${sealed(SECRET)}=`, '', '!'])
    for (const credential_sealed of [text, { api_key: text }])
      (await create(alice, { credential: undefined, credential_sealed })).isProblem(400, 'credential-unreadable', {
        field: 'credential_sealed.api_key',
      });
  (await alice.post('/sandboxes', { body: '[]', headers: { 'Content-Type': 'application/json' } })).isProblem(
    400,
    'bad-json',
  );
  (await alice.post('/sandboxes', { body: '{}', headers: { 'Content-Type': 'text/plain' } })).isProblem(
    415,
    'unsupported-media-type',
  );
  (await create(alice, { name: 'x'.repeat(200_000) })).isProblem(413, 'payload-too-large');
  (await alice.get('/sandboxes/bad')).isProblem(404, 'not-found');
});

test('takes what JavaScript sealed, for the newest key and an older one', async () => {
  for (const [i, key] of [pair.publicKey, older.publicKey].entries()) {
    const json = {
      id: `sealed-${i}`,
      provider: 'runloop',
      external_id: 'x',
      credential_sealed: { api_key: seal(`${SECRET} \r\n`, key), other: seal('short', key) },
    };
    const { credential } = (await alice.post('/sandboxes', { json })).is(201).json;
    assert.deepEqual(credential, { api_key: '...LAST', other: '***' });
    (await alice.delete(`/sandboxes/sealed-${i}`)).is(204);
  }
});

test('lets each role and subject do what they may', async () => {
  (await create(alice, { id: 'alices' })).is(201);
  for (const client of [viewer, writer]) {
    (await create(client)).isProblem(403, 'forbidden');
    (await patch(client, 'alices', { name: 'x' })).isProblem(403, 'forbidden');
    (await client.delete('/sandboxes/alices')).isProblem(403, 'forbidden');
    (await client.get('/sandboxes')).is(200);
  }
  const theirs = [
    (await bob.get('/sandboxes/alices')).isProblem(404, 'not-found'),
    (await patch(bob, 'alices', { name: 'x' })).isProblem(404, 'not-found'),
    (await bob.delete('/sandboxes/alices')).isProblem(404, 'not-found'),
    (await bob.get('/sandboxes/none')).isProblem(404, 'not-found'),
  ];
  for (const { json } of theirs) assert.deepEqual(json, theirs[0].json);
  assert.deepEqual((await bob.get('/sandboxes')).json, { sandboxes: [], next: null });
  (await create(alice, { subject: 'bob' })).isProblem(403, 'forbidden');
  (await create(alice, { subject: 'alice' })).isProblem(403, 'forbidden');
  (await alice.get('/sandboxes?subject=bob')).isProblem(403, 'forbidden');
  (await alice.get('/sandboxes?subject=alice')).is(200);
  // An operator acts for anybody.
  assert.equal((await create(operator, { id: 'for-bob', subject: 'bob' })).is(201).json.subject, 'bob');
  assert.equal((await create(operator, { id: 'own' })).is(201).json.subject, 'root');
  assert.deepEqual(
    (await operator.get('/sandboxes?subject=bob')).json.sandboxes.map(({ id }) => id),
    ['for-bob'],
  );
  assert.deepEqual((await operator.get('/sandboxes?subject=nobody')).json, { sandboxes: [], next: null });
  assert.ok((await operator.get('/sandboxes')).json.sandboxes.some(({ id }) => id === 'alices'));
  assert.equal((await patch(operator, 'alices', { name: 'by root' })).is(200).json.name, 'by root');
  (await bob.get('/sandboxes/for-bob')).is(200);
  (await bob.delete('/sandboxes/for-bob')).is(204);
  for (const id of ['alices', 'own']) (await operator.delete(`/sandboxes/${id}`)).is(204);
  (await operator.delete('/sandboxes/own')).isProblem(404, 'not-found');
});

test('lists by page', async () => {
  const ids = Array.from({ length: 7 }, (_, i) => `page-${i}`);
  for (const id of ids) (await create(bob, { id })).is(201);
  const seen = [];
  let next = '';
  for (let pages = 0; next !== null; pages++) {
    assert.ok(pages < 5);
    const page = (await bob.get(`/sandboxes?limit=3${next && `&after=${next}`}`)).is(200).json;
    assert.ok(page.sandboxes.length <= 3);
    seen.push(...page.sandboxes.map(({ id }) => id));
    next = page.next;
  }
  assert.deepEqual(seen, ids);
  assert.equal((await bob.get('/sandboxes?limit=7')).json.next, null);
  assert.equal((await bob.get('/sandboxes?limit=6')).json.next, 'page-5');
  (await bob.delete('/sandboxes/page-5')).is(204);
  assert.deepEqual(
    (await bob.get('/sandboxes?after=page-5')).json.sandboxes.map(({ id }) => id),
    ['page-6'],
  );
  for (const limit of ['0', '201', '-1', 'x', ''])
    (await bob.get(`/sandboxes?limit=${limit}`)).isProblem(400, 'bad-request', { field: 'limit' });
  for (const after of ['a.b', ''])
    (await bob.get(`/sandboxes?after=${after}`)).isProblem(400, 'bad-request', { field: 'after' });
  for (const id of ids) if (id !== 'page-5') (await bob.delete(`/sandboxes/${id}`)).is(204);
});

test('changes what is named and leaves the rest', async () => {
  const first = (await create(alice, { id: 'change', name: 'n', metadata: { a: 1 } })).is(201).json;
  const changed = (json) => patch(alice, 'change', json).then((answer) => answer.is(200).json);
  const expected = { ...first };
  for (const [json, shown] of [
    [{}, {}],
    [{ name: 'm' }, { name: 'm' }],
    [{ metadata: { b: 2 } }, { metadata: { b: 2 } }],
    [{ name: null, metadata: null }, { name: null, metadata: null }],
    [{ external_id: 'dbx_9', resume: false }, { external_id: 'dbx_9', resume: false }],
    [{ transport: 'native', agent: 'pty-tunnel' }, { transport: 'native', agent: 'pty-tunnel' }],
    [{ credential: { token: 'abcdefghijklmnopqrstuvwxyz' } }, { credential: { token: '...wxyz' } }],
    [{ credential_sealed: seal(SECRET, pair.publicKey) }, { credential: { api_key: '...LAST' } }],
  ]) {
    Object.assign(expected, shown);
    const { updated_at, ...rest } = await changed(json);
    assert.ok(updated_at >= expected.updated_at);
    expected.updated_at = updated_at;
    assert.deepEqual({ ...rest, updated_at }, expected);
    assert.deepEqual((await alice.get('/sandboxes/change')).json, expected);
  }
  for (const [json, field] of [
    [{ provider: 'runloop' }, 'provider'],
    [{ id: 'x' }, 'id'],
    [{ subject: 'alice' }, 'subject'],
    [{ credential: 'x', credential_sealed: 'x' }, 'credential'],
    [{ external_id: null }, 'external_id'],
    [{ name: '' }, 'name'],
  ])
    (await patch(alice, 'change', json)).isProblem(400, 'bad-request', { field });
  (await patch(alice, 'change', { credential_sealed: 'x' })).isProblem(400, 'credential-unreadable');
  assert.deepEqual((await alice.get('/sandboxes/change')).json, expected);
  (await patch(alice, 'none', {})).isProblem(404, 'not-found');
  (await alice.delete('/sandboxes/change')).is(204);
  (await patch(alice, 'change', {})).isProblem(404, 'not-found');
});

test('keeps every one of many changes at once', async () => {
  (await create(alice, { id: 'race' })).is(201);
  const rounds = scaled(16);
  for (let i = 0; i < rounds; i++) {
    const wanted = { name: `name ${i}`, metadata: { i }, external_id: `dbx_${i}`, resume: i % 2 === 0 };
    const changes = Object.entries(wanted).map(([name, value]) => ({ [name]: value }));
    for (const answer of await Promise.all(changes.map((json) => patch(alice, 'race', json)))) answer.is(200);
    const { json } = await alice.get('/sandboxes/race');
    for (const [name, value] of Object.entries(wanted)) assert.deepEqual(json[name], value, name);
  }
  (await alice.delete('/sandboxes/race')).is(204);
});

test('limits how many a subject has', async (t) => {
  const small = await t.start({ ...settings, args: ['--max-sandboxes-per-subject', '2'] });
  const [one, other] = [small.client(), small.client(keys.stranger)];
  for (const id of ['a', 'b']) (await create(one, { id })).is(201);
  (await create(one, { id: 'c' })).isProblem(429, 'sandbox-limit');
  (await create(one, { id: 'b' })).is(200);
  (await create(other, { id: 'c' })).is(201);
  (await one.delete('/sandboxes/a')).is(204);
  (await create(one, { id: 'd' })).is(201);
});

test('keeps them when it is killed, and keeps their secrets to itself', async () => {
  const marker = 'ak_marker-Qz7-Qz7-Qz7-';
  const record = (await create(alice, { id: 'kept', credential: `${marker}end1` })).is(201).json;
  const sealed = seal(`${marker}end2`, older.publicKey);
  (await patch(alice, 'kept', { credential_sealed: { api_key: sealed } })).is(200);
  (await create(alice, { id: 'kept', credential: `${marker}\n` })).isProblem(400, 'bad-request');
  (await create(alice, { id: 'kept', [marker]: 1 })).isProblem(400, 'bad-request');
  await service.kill();
  const stored = files(service.dir);
  assert.ok(stored.some(([, data]) => data.includes('dbx_1')), 'the store is among the files');
  for (const [name, data] of stored) assert.ok(!data.includes(marker), `${name} holds a credential`);
  await service.restart({ args: ['--log-level', 'debug'] });
  const again = (await alice.get('/sandboxes/kept')).is(200).json;
  assert.deepEqual({ ...again, updated_at: record.updated_at }, { ...record, credential: { api_key: '...end2' } });
  // It is sealed anew by the newest key, as a whole; and the client's own text is kept nowhere.
  (await create(alice, { id: 'kept', credential: `${marker}end2` })).is(200);
  (await create(alice, { id: 'kept', credential: `${marker}end3` })).isProblem(409, 'id-differs');
  for (const [name, data] of files(service.dir)) assert.ok(!data.includes(sealed), `${name} holds what came sealed`);
  assert.ok(!service.log.includes(marker) && !service.log.includes(sealed), 'the log has no secret');
  assert.ok(!service.log.includes(pair.privateKey), 'nor a key');
  assert.equal(open(seal('x', pair.publicKey), pair), 'x');
  (await alice.delete('/sandboxes/kept')).is(204);
});

test('a deleted one is gone, and its id is free', async () => {
  (await create(alice, { id: 'gone' })).is(201);
  (await alice.delete('/sandboxes/gone')).is(204);
  (await alice.get('/sandboxes/gone')).isProblem(404, 'not-found');
  (await create(bob, { id: 'gone' })).is(201);
  (await bob.delete('/sandboxes/gone')).is(204);
});

test('a provider that is off takes no new ones, and keeps those there are', async (t) => {
  (await create(alice, { id: 'stays' })).is(201);
  const off = await t.start();
  (await create(off.client())).isProblem(400, 'bad-request', { field: 'provider' });
  await service.kill();
  await service.restart({ providers: 'local', args: [] });
  (await alice.get('/sandboxes/stays')).is(200);
  (await patch(alice, 'stays', { name: 'still' })).is(200);
  (await alice.delete('/sandboxes/stays')).is(204);
});
