// tools.test.mjs -- ptycast keygen, seal, import and reseal, beside a service and without one: above all that keys can be
// changed, and that nothing secret is said on the way.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { scaled } from './lib/flavour.mjs';
import { makePair, open, seal } from './lib/sealing.mjs';
import { keys, test } from './lib/service.mjs';
import { run } from './lib/tool.mjs';

const SECRET = 'ak_secret-0123456789abcdef-LAST';

function folder(t) {
  const dir = mkdtempSync('/tmp/ptc-');
  t.cleanup(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

async function keygen(dir) {
  const { status, out } = await run(dir, ['keygen']);
  assert.equal(status, 0);
  const [, publicKey, privateKey] = out.match(/^PTYCAST_PUBLIC_KEY=([0-9a-f]{64})\nPTYCAST_PRIVATE_KEY=([0-9a-f]{64})\n$/);
  return { publicKey, privateKey };
}

const envOf = (...pairs) => ({
  PTYCAST_PRIVATE_KEY: pairs.map(({ privateKey }) => privateKey).join(','),
  PTYCAST_PROVIDERS: 'local,runloop',
  PTYCAST_STORE: 'sqlite:p.db',
});
const line = (more) =>
  `${JSON.stringify({ subject: 'alice', provider: 'runloop', external_id: 'dbx_1', credential: SECRET, ...more })}\n`;
const filesOf = (dir) => readdirSync(dir).map((name) => readFileSync(`${dir}/${name}`, 'latin1'));

test('tells how each is called, and refuses what is not', async (t) => {
  const dir = folder(t);
  for (const tool of ['keygen', 'seal', 'reseal', 'import']) {
    const { status, out, err } = await run(dir, [tool, '--help']);
    assert.equal(status, 0);
    assert.equal(err, '');
    assert.match(out, new RegExp(`^usage: ptycast ${tool}`));
    assert.ok((await run(dir, ['--help'])).out.includes(`ptycast ${tool} `));
    const secret = (await run(dir, [tool, '--private-key', SECRET, '--nonsense', SECRET])).err;
    assert.match(secret, /^ptycast: /);
    assert.ok(!secret.includes(SECRET), secret);
    assert.equal((await run(dir, [tool, '--nonsense', 'x'])).status, 2);
    assert.ok(!(await run(dir, [tool, '--private-key', SECRET])).err.includes(SECRET));
  }
  assert.deepEqual(readdirSync(dir), [], 'and leaves nothing behind');
});

test('makes pairs that JavaScript can use, another one each time', async (t) => {
  const dir = folder(t);
  const [one, other] = [await keygen(dir), await keygen(dir)];
  assert.notEqual(one.privateKey, other.privateKey);
  assert.equal(open(seal(SECRET, one.publicKey), one), SECRET);
  const { out } = await run(dir, ['keygen', '--public'], { env: envOf(other, one) });
  assert.equal(out, `PTYCAST_PUBLIC_KEY=${other.publicKey}\n`);
});

test('seals what JavaScript opens', async (t) => {
  const dir = folder(t);
  const [newest, older] = [await keygen(dir), await keygen(dir)];
  const sealed = async (args, options) => {
    const { status, out, err } = await run(dir, ['seal', ...args], options);
    assert.equal(status, 0, err);
    assert.equal(err, '');
    assert.match(out, /^[A-Za-z0-9_-]+\n$/);
    return open(out.trim(), newest);
  };
  const input = `${SECRET}\n`;
  assert.equal(await sealed(['--public-key', newest.publicKey], { input }), SECRET);
  assert.equal(await sealed([`--public-key=${newest.publicKey}`], { input: `${SECRET}\n\n` }), `${SECRET}\n`);
  assert.equal(await sealed([], { input: SECRET, env: { PTYCAST_PUBLIC_KEY: newest.publicKey } }), SECRET);
  assert.equal(await sealed([], { input, env: envOf(newest, older) }), SECRET);
  assert.equal(await sealed([], { input: '', env: envOf(newest) }), '');
  for (const [args, env] of [
    [['--public-key', 'abc'], {}],
    [[], {}], // no key anywhere: it makes none
    [[], { PTYCAST_PUBLIC_KEY: 'x' }],
  ]) {
    const { status, out, err } = await run(dir, ['seal', ...args], { input, env });
    assert.equal(status, 1);
    assert.equal(out, '');
    assert.ok(!err.includes(SECRET));
  }
  assert.deepEqual(readdirSync(dir), []);
});

test('seals by the key that a service has made beside its store', async (t) => {
  const service = await t.start({ providers: 'local,runloop' });
  const store = `--store=sqlite:${service.dir}/p.db`;
  const { out } = await run(service.dir, ['seal', store], { input: `${SECRET}\n` });
  const json = { provider: 'runloop', external_id: 'x', credential_sealed: out.trim() };
  assert.deepEqual((await service.client().post('/sandboxes', { json })).is(201).json.credential, {
    api_key: '...LAST',
  });
  const [publicKey] = readFileSync(`${service.dir}/p.db.keys`, 'utf8').split('\n');
  assert.equal((await run(service.dir, ['keygen', '--public', store])).out, `PTYCAST_PUBLIC_KEY=${publicKey}\n`);
});

test('imports lines, tells the bad ones by their number, and goes on', async (t) => {
  const dir = folder(t);
  const pair = await keygen(dir);
  const env = envOf(pair);
  const input = [
    line({ id: 'a' }), // 1
    '\n',
    line({ id: 'b', credential: undefined, credential_sealed: { api_key: seal(`${SECRET}\n`, pair.publicKey) } }),
    line({ id: 'c', subject: undefined }), // 4
    `{"id":"d","credential":"${SECRET}"\n`,
    line({ id: 'e', provider: 'vercel' }),
    line({ id: 'f', external_id: '../x' }),
    line({ id: 'g', credential: undefined, credential_sealed: seal(SECRET, makePair().publicKey) }), // 8
    line({ id: 'a' }),
    line({ id: 'a', name: 'other' }), // 10
    line({ id: 'a', subject: 'bob' }),
    `[${JSON.stringify(SECRET)}]\n`,
    line({ id: 'h', metadata: { text: 'x'.repeat(200_000) } }), // 13
    line({ id: 'i', metadata: { more: 1 } }).trimEnd(), // without a newline
  ].join('');
  const first = await run(dir, ['import'], { input, env });
  assert.equal(first.out, '3 created, 1 unchanged, 0 changed, 9 failed\n');
  assert.equal(first.status, 1);
  const told = first.err.trimEnd().split('\n');
  assert.deepEqual(told.map((text) => Number(text.match(/^line (\d+): ./)[1])), [4, 5, 6, 7, 8, 10, 11, 12, 13]);
  assert.match(told[0], /subject is missing/);
  assert.match(told[2], /possible: runloop/);
  assert.match(told[4], /credential_sealed.api_key: sealed for another key pair/);
  assert.match(told[5], /stored with another name/);
  assert.ok(!first.err.includes(SECRET), first.err);

  writeFileSync(`${dir}/good.jsonl`, line({ id: 'a' }) + line({ id: 'b', name: 'new', subject: 'alice' }));
  const { out, status, err } = await run(dir, ['import', '--update', 'good.jsonl'], { env });
  assert.equal(out, '0 created, 1 unchanged, 1 changed, 0 failed\n', err);
  assert.equal(status, 0);
  const missing = await run(dir, ['import', 'nothing.jsonl'], { env });
  assert.equal(missing.status, 1);
  assert.match(missing.err, /nothing.jsonl: No such file/);
  assert.equal(statSync(`${dir}/p.db`).mode & 0o777, 0o600);
  for (const data of filesOf(dir).filter((text) => text.startsWith('SQLite')))
    assert.ok(!data.includes('ak_secret'), 'the store holds nothing in clear');

  // The same again, into a service that runs: it sees them at once.
  const service = await t.start({ providers: 'local,runloop', env: { PTYCAST_PRIVATE_KEY: pair.privateKey } });
  const args = ['import', '--store', `sqlite:${service.dir}/p.db`, `${dir}/good.jsonl`];
  assert.equal((await run(dir, args, { env })).out, '2 created, 0 unchanged, 0 changed, 0 failed\n');
  assert.equal((await service.client().get('/sandboxes/b')).is(200).json.name, 'new');
  (await service.client(keys.stranger).get('/sandboxes/b')).isProblem(404, 'not-found');
});

// Whether the service can open the credential of a sandbox: only then it knows that it is the same again.
async function opens(client, id) {
  const { metadata } = (await client.get(`/sandboxes/${id}`)).is(200).json;
  const json = { id, provider: 'runloop', external_id: 'dbx_1', credential: SECRET, metadata };
  return (await client.post('/sandboxes', { json })).status === 200;
}

test('changes the keys of a service step by step, and nothing is lost', async (t) => {
  const dir = folder(t);
  const [first, second] = [await keygen(dir), await keygen(dir)];
  const service = await t.start({ providers: 'local,runloop', env: { PTYCAST_PRIVATE_KEY: first.privateKey } });
  const alice = service.client();
  const ids = Array.from({ length: scaled(40) }, (_, i) => `box-${i}`);
  for (const id of ids)
    (await alice.post('/sandboxes', { json: { id, provider: 'runloop', external_id: 'dbx_1', credential: SECRET } })).is(201);
  const session = await alice.createOpen({ sandbox: 'local', id: 'lives', command: ['cat'] });
  const store = ['--store', `sqlite:${service.dir}/p.db`];

  // 1. The new key goes in front.
  await service.kill();
  await service.restart({ env: { PTYCAST_PRIVATE_KEY: `${second.privateKey},${first.privateKey}` } });
  for (const id of ids) assert.ok(await opens(alice, id), id);

  // 2. All is sealed anew, while it is used.
  const both = envOf(second, first);
  const busy = Array.from({ length: 4 }, async (_, n) => {
    for (const id of ids) (await alice.request('PATCH', `/sandboxes/${id}`, { json: { metadata: { n } } })).is(200);
  });
  const [resealed] = await Promise.all([run(dir, ['reseal', ...store], { env: both }), ...busy]);
  assert.equal(resealed.status, 0, resealed.err);
  assert.match(resealed.out, new RegExp(`^sandboxes: ${ids.length} rewritten, 0 already new, 0 unreadable\nsessions: `));
  assert.match(
    (await run(dir, ['reseal', ...store], { env: both })).out,
    new RegExp(`^sandboxes: 0 rewritten, ${ids.length} already new, 0 unreadable\nsessions: 0 rewritten`),
  );

  // 3. The old key goes. Sandboxes open, and the session finds its shell.
  await service.kill();
  const without = await run(dir, ['reseal', ...store], { env: envOf(first) });
  assert.equal(without.status, 1);
  assert.match(without.out, new RegExp(`^sandboxes: 0 rewritten, 0 already new, ${ids.length} unreadable\n`));
  assert.match(without.err, /^ptycast: sandbox box-0: sealed for a key that is not configured$/m);
  await service.restart({ env: { PTYCAST_PRIVATE_KEY: second.privateKey } });
  for (const id of ids) assert.ok(await opens(alice, id), id);
  const { json } = await alice.get(`/sandboxes/${ids[0]}`);
  assert.ok(json.metadata.n >= 0 && json.credential.api_key === '...LAST');
  (await alice.type('lives', 'still here\n')).is(204);
  assert.equal((await alice.get('/sessions/lives')).json.epoch, session.epoch);
  for (const text of [resealed.out, resealed.err, without.out, without.err, service.log])
    for (const secret of [SECRET, first.privateKey, second.privateKey]) assert.ok(!text.includes(secret));
});

test('changes the keys in the file beside the store too', async (t) => {
  const service = await t.start({ providers: 'local,runloop' });
  const alice = service.client();
  const box = { id: 'box', provider: 'runloop', external_id: 'dbx_1', credential: SECRET };
  (await alice.post('/sandboxes', { json: box })).is(201);
  await service.kill();
  const file = `${service.dir}/p.db.keys`;
  const old = readFileSync(file, 'utf8');
  const next = await keygen(service.dir);
  writeFileSync(file, `${next.publicKey}\n${next.privateKey}\n${old}`);
  const store = ['--store', `sqlite:${service.dir}/p.db`];
  assert.match((await run(service.dir, ['reseal', ...store])).out, /^sandboxes: 1 rewritten, 0 already new, 0 unreadable/);
  writeFileSync(file, `${next.publicKey}\n${next.privateKey}\n`);
  await service.restart();
  assert.ok(await opens(alice, 'box'));
});

test('seals a session anew only where nobody else has written', async (t) => {
  const dir = folder(t);
  const [first, second] = [await keygen(dir), await keygen(dir)];
  const service = await t.start({ args: ['--local-on-stop', 'keep'], env: { PTYCAST_PRIVATE_KEY: first.privateKey } });
  const alice = service.client();
  await alice.createOpen({ sandbox: 'local', id: 'one', command: ['cat'] });
  await service.stop({ remove: false }); // in order: then all of it is in the file
  const env = { ...envOf(second, first), PTYCAST_STORE: `sqlite:${service.dir}/p.db` };
  const { out } = await run(dir, ['reseal'], { env });
  assert.equal(out, 'sandboxes: 0 rewritten, 0 already new, 0 unreadable\nsessions: 1 rewritten, 0 already new, 0 unreadable\n');
  await service.restart({ args: [], env: { PTYCAST_PRIVATE_KEY: second.privateKey } });
  (await service.client().type('one', 'still here\n')).is(204);
});

test('does not make a store in order to reseal it', async (t) => {
  const dir = folder(t);
  const { status, err } = await run(dir, ['reseal'], { env: envOf(makePair()) });
  assert.equal(status, 1);
  assert.match(err, /--store: p.db: No such file/);
  assert.deepEqual(readdirSync(dir), []);
});
