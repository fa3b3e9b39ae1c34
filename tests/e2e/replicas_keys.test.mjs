// replicas_keys.test.mjs -- the service's own keys are the same at all replicas, also when Redis lost them.
import assert from 'node:assert/strict';
import { Cluster } from './lib/cluster.mjs';
import { program } from './lib/flavour.mjs';
import { PatternShell } from './lib/pattern.mjs';
import { test } from './lib/service.mjs';
import { DEADLINE_MS, until } from './lib/wait.mjs';
const LONG_MS = DEADLINE_MS * 3;
const sandbox = { provider: 'url' };
test('is emptied: its keys come back from those that have them, and who starts later has the same', { timeout: LONG_MS * 2 }, async (t) => {
  const cluster = await Cluster.of(t, { agent: [] });
  const { redis, replicas: [a, b, c] } = cluster;
  const shell = await PatternShell.create(a.as(), 'lines', { sandbox, id: 'shell' });
  const ticket = await b.as().ticket(shell.id, { role: 'view', reusable: true });
  const keys = () => Promise.all(['cookie-key', 'params-key'].map((key) =>
    redis.cli('EVAL', "return redis.sha1hex(redis.call('GET', KEYS[1]) or '')", 1, `ptycast:value:${key}`)));
  const before = await keys();
  await c.drain();
  await redis.cli('FLUSHALL');
  await until(async () => (await keys()).join() === before.join(), 'the keys are back', LONG_MS);
  await c.launch();
  await until(async () => (await c.as().get(shell.path)).status === 200, 'its record is back', LONG_MS);
  (await c.client(null).get(`${shell.path}?ticket=${ticket}`)).is(200);
  (await c.as().post('/sessions', { json: { sandbox, id: shell.id, command: [program('tests/tools/pattern'), 'lines', '64'] } })).is(200);

  await redis.restart({ empty: true });
  await until(async () => (await keys()).join() === before.join(), 'the keys are back once more', LONG_MS);

  // Others came first: those stay, and who has the old ones says so, once.
  const said = (replica) => replica.process.log.match(/the store has other keys/g)?.length ?? 0;
  for (let i = 0; i < 2; i++) {
    await redis.cli('EVAL', "redis.call('FLUSHALL') redis.call('SET', KEYS[1], 'another')", 1, 'ptycast:value:cookie-key');
    await until(async () => (await keys())[1] === before[1], 'the other key is back', LONG_MS);
    assert.notEqual((await keys())[0], before[0]);
    for (const replica of [a, b, c]) await until(() => said(replica) > 0, `${replica.name} has to be restarted`, LONG_MS);
  }
  assert.deepEqual([a, b, c].map(said), [1, 1, 1]);
});
