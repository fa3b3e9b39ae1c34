// tools_redis.test.mjs -- ptycast import and reseal on a store that replicas share.
import assert from 'node:assert/strict';
import { scaled } from './lib/flavour.mjs';
import { Redis } from './lib/redis.mjs';
import { makePair, open, seal } from './lib/sealing.mjs';
import { test } from './lib/service.mjs';
import { run } from './lib/tool.mjs';

const SECRET = 'ak_secret-0123456789abcdef-LAST';
const PASSWORD = 'open-sesame';

async function redisOf(t, options) {
  const redis = await Redis.start(options);
  t.cleanup(() => redis.stop());
  return redis;
}

const envOf = (store, ...pairs) => ({
  PTYCAST_PRIVATE_KEY: pairs.map(({ privateKey }) => privateKey).join(','),
  PTYCAST_PROVIDERS: 'local,runloop',
  PTYCAST_STORE: store,
});
const line = (more) =>
  `${JSON.stringify({ subject: 'alice', provider: 'runloop', external_id: 'dbx_1', credential: SECRET, ...more })}\n`;
const hex = (n) => n.toString(16).padStart(16, '0');

test('imports into Redis and seals all of it anew', async (t) => {
  const redis = await redisOf(t);
  const [first, second] = [makePair(), makePair()];
  const input = Array.from({ length: 30 }, (_, i) => line({ id: `box-${i}` })).join('');
  const env = envOf(redis.url, first);
  assert.equal((await run('/', ['import'], { input, env })).out, '30 created, 0 unchanged, 0 changed, 0 failed\n');
  assert.equal(
    (await run('/', ['import', '--update'], { input: input + line({ id: 'box-7', name: 'new' }), env })).out,
    '0 created, 30 unchanged, 1 changed, 0 failed\n',
  );
  const box = await redis.hash('ptycast:sandbox:{box-7}');
  assert.equal(box.name, 'new');
  assert.equal(box.revision, '2');
  assert.deepEqual(JSON.parse(open(box.credential, first)), { api_key: SECRET });

  // Sessions, more than one page of them.
  const ids = Array.from({ length: scaled(450) }, (_, i) => `s-${i}`);
  for (const id of ids) {
    const target = JSON.stringify({ stored: false, sealed: seal('secret', first.publicKey) });
    const fields = { birth: hex(5), fence: hex(1), created_ms: 1, endpoint: seal(id, first.publicKey), target };
    await redis.cli('HSET', `ptycast:session:{${id}}`, ...Object.entries(fields).flat());
    await redis.cli('ZADD', 'ptycast:sessions', 0, id);
  }
  const both = envOf(redis.url, second, first);
  const resealed = await run('/', ['reseal'], { env: both });
  assert.equal(resealed.err, '');
  assert.equal(
    resealed.out,
    `sandboxes: 30 rewritten, 0 already new, 0 unreadable\nsessions: ${ids.length} rewritten, 0 already new, 0 unreadable\n`,
  );
  assert.deepEqual(JSON.parse(open((await redis.hash('ptycast:sandbox:{box-7}')).credential, second)), { api_key: SECRET });
  for (const id of [ids[0], ids.at(-1)]) {
    const session = await redis.hash(`ptycast:session:{${id}}`);
    assert.equal(open(session.endpoint, second), id);
    assert.equal(open(JSON.parse(session.target).sealed, second), 'secret');
  }
  const again = await run('/', ['reseal'], { env: both });
  assert.match(again.out, new RegExp(`^sandboxes: 0 rewritten, 30 already new.*\nsessions: 0 rewritten, ${ids.length} already new`));
  const without = await run('/', ['reseal'], { env: envOf(redis.url, first) });
  assert.equal(without.status, 1);
  assert.match(without.out, /^sandboxes: 0 rewritten, 0 already new, 30 unreadable\n/);
  assert.deepEqual(await redis.keys('*lock*'), []);
});

test('says what is wrong with a Redis, and never its password', async (t) => {
  const redis = await redisOf(t, { args: ['--requirepass', PASSWORD, '--maxmemory-policy', 'allkeys-lru'] });
  const url = `redis://:${PASSWORD}@127.0.0.1:${redis.port}`;
  const pair = makePair();
  for (const [store, env, status, text] of [
    [url, { PTYCAST_PRIVATE_KEY: '' }, 2, /--store redis:\/\/\.\.\. needs --private-key/],
    [url, {}, 1, /set it to noeviction/],
    [url.replace(PASSWORD, `${PASSWORD}x`), {}, 1, /refuses the user or the password/],
    [redis.url, {}, 1, /wants a password/],
    [`redis://:${PASSWORD}@127.0.0.1:1`, {}, 1, /redis:\/\/127\.0\.0\.1:1 cannot be reached/],
    [`redis://:${PASSWORD}@127.0.0.1:1:2`, {}, 2, /--store: /],
  ]) {
    for (const args of [['serve', '--listen', '127.0.0.1:0'], ['import'], ['reseal']]) {
      const result = await run('/', args, { env: { ...envOf(store, pair), ...env } });
      assert.equal(result.status, status, `${args[0]} ${text}: ${result.err}`);
      assert.match(result.err, text);
      assert.ok(!`${result.out}${result.err}`.includes(PASSWORD), result.err);
    }
  }
});
