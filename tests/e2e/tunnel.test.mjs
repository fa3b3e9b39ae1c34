// tunnel.test.mjs -- an agent that somebody runs elsewhere (provider url), behind a proxy that the tests
// cut, hold and refuse: no byte and no keystroke is lost or doubled.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { program, scaled } from './lib/flavour.mjs';
import { PatternShell } from './lib/pattern.mjs';
import { Proxy } from './lib/proxy.mjs';
import { Agent, Service, test } from './lib/service.mjs';
import { EventStream } from './lib/sse.mjs';
import { DEADLINE_MS, until, within } from './lib/wait.mjs';

const MB = 1 << 20;
const sandbox = { provider: 'url' };

// An agent, a proxy before it and a service that knows the proxy; stopped behind the test.
async function setUp(t, { args = [], agentArgs = [] } = {}) {
  const agent = await Agent.start({ args: ['--port=0', ...agentArgs] });
  t.cleanup(() => agent.stop());
  const proxy = await Proxy.start(agent.port);
  t.cleanup(() => proxy.stop());
  const service = new Service({
    providers: 'url',
    args: ['--tunnel-url', `ws://127.0.0.1:${proxy.port}/ws/client`, '--tunnel-transport', 'agent', ...args],
    env: { PTYCAST_TUNNEL_TOKEN: agent.token },
  });
  t.cleanup(() => service.stop());
  await service.launch();
  return { agent, proxy, service, client: service.client() };
}

async function typing(client, how = 'raw', bytes) {
  const file = `/tmp/ptc-typed-${randomBytes(8).toString('hex')}`;
  const command = [program('tests/tools/typed'), how, file, ...(bytes === undefined ? [] : [String(bytes)])];
  const { id } = await client.createOpen({ sandbox, command });
  const stream = await EventStream.open(client, id);
  await stream.until((e) => e.data.data === 'ready');
  return { id, stream, typed: () => readFileSync(file, 'latin1') };
}

test('opens, types, resizes, signals and ends a shell in an agent elsewhere', async (t) => {
  const { client } = await setUp(t);
  const shell = await PatternShell.create(client, 'lines', { sandbox, cols: 77, rows: 11 });
  assert.deepEqual((await shell.info()).sandbox, { provider: 'url' });
  assert.equal((await shell.info()).provider, 'url');
  const stream = await shell.view();
  await shell.write(100_000);
  shell.assert(0, (await stream.to(shell.written)).bytes);
  await shell.type('z\n');
  assert.equal((await stream.first('output')).bytes.toString(), '[77x11]');
  (await client.post(`${shell.path}/resize`, { json: { cols: 88, rows: 22 } })).is(204);
  await stream.first('resize');
  (await client.post(`${shell.path}/signal`, { json: { signal: 'INT' } })).is(204);
  assert.equal((await stream.first('output')).bytes.toString(), '[INT]');
  await shell.exit(12);
  assert.equal((await stream.first('exit')).data.exit_code, 12);
  const { providers } = (await client.get('/providers')).is(200).json;
  assert.deepEqual(
    providers.map(({ name, transport }) => [name, transport]),
    [['url', 'agent']],
  );
});

test(
  'loses no byte when the tunnel is cut in the middle of a flood, many times',
  { timeout: DEADLINE_MS * 8 },
  async (t) => {
    const { client, proxy } = await setUp(t);
    const shell = await PatternShell.create(client, 'lines', { sandbox });
    const viewers = await Promise.all([shell.view(), shell.view()]);
    const text = await shell.view({ format: 'text' });
    const rounds = scaled(16);
    for (let round = 0; round < rounds; round++) {
      proxy.cutAtBytesDown = proxy.bytesDown + 100_000 + ((round * 997_331) % MB);
      await shell.write(2 * MB);
      for (const viewer of viewers) {
        const { bytes, from, names } = await viewer.to(shell.written);
        assert.ok(!names.includes('reset'), 'no hole');
        shell.assert(from, bytes);
      }
    }
    assert.ok(proxy.accepted > rounds, `${proxy.accepted} connections`);
    const { events } = await text.to(shell.written);
    assert.ok(events.every((e) => e.event !== 'reset'));
    const states = events.filter((e) => e.event === 'state').map((e) => e.data.state);
    assert.equal(states.at(-1), 'open', states.join()); // one that is behind is told only the newest
    assert.ok((await client.metric('ptycast_tunnel_reconnects_total')) >= rounds);
    assert.equal((await shell.info()).epoch, shell.epoch);
  },
);

test('says that it reconnects, and holds the stream meanwhile', async (t) => {
  const { client, proxy } = await setUp(t);
  const shell = await PatternShell.create(client, 'lines', { sandbox, first: 500 });
  const stream = await shell.view();
  await stream.to(500);
  proxy.refusing = true;
  proxy.cut();
  const lost = (await stream.until((e) => e.event === 'state')).at(-1);
  assert.equal(lost.data.state, 'reconnecting');
  assert.equal((await shell.info()).state, 'reconnecting');
  // A viewer that comes now gets what is held, and waits.
  const late = await shell.view();
  assert.equal((await late.next()).data.state, 'reconnecting');
  shell.assert(0, (await late.to(500)).bytes);
  proxy.refusing = false;
  for (const viewer of [stream, late]) {
    const back = (await viewer.until((e) => e.event === 'state' && e.data.state === 'open')).at(-1);
    assert.equal(back.data.epoch, shell.epoch);
  }
  await shell.write(100);
  for (const viewer of [stream, late]) shell.assert(500, (await viewer.to(600)).bytes);
  stream.close();
  late.close();
});

test('types once what is typed while the tunnel is cut', async (t) => {
  const { client, proxy } = await setUp(t);
  const { id, typed } = await typing(client);
  let expected = '';
  for (let round = 0; round < scaled(24); round++) {
    proxy.refusing = round % 3 === 0;
    const before = client.type(id, `${round}a;`, { 'Input-Client': 'c', 'Input-Seq': String(2 * round + 1) });
    if (round % 2) await new Promise((resolve) => setImmediate(resolve));
    proxy.cut();
    const after = client.type(id, `${round}b;`, { 'Input-Client': 'c', 'Input-Seq': String(2 * round + 2) });
    proxy.refusing = false;
    for (const [answer, n] of [
      [await before, 1],
      [await after, 2],
    ]) {
      // What is not known to be typed is repeated.
      let { status } = answer;
      while (status === 503 || status === 409) {
        const again = await client.type(id, `${round}${n === 1 ? 'a' : 'b'};`, {
          'Input-Client': 'c',
          'Input-Seq': String(2 * round + n),
        });
        status = again.status;
      }
      assert.equal(status, 204);
    }
    expected += `${round}a;${round}b;`;
  }
  await until(() => typed().length >= expected.length, 'all typed');
  assert.equal(typed(), expected);
});

test('types unnumbered input once, or says that it does not know', async (t) => {
  const { client, proxy } = await setUp(t);
  const { id, typed } = await typing(client);
  const sure = [];
  const perhaps = [];
  for (let round = 0; round < scaled(24); round++) {
    const pending = client.type(id, `<${round}>`);
    proxy.cut();
    const answer = await pending;
    if (answer.status === 204) sure.push(`<${round}>`);
    else {
      answer.is(503);
      if (answer.json.type === '/problems/delivery-unknown') perhaps.push(`<${round}>`);
      else assert.equal(answer.json.type, '/problems/not-delivered');
    }
  }
  (await client.type(id, 'end')).is(204);
  await until(() => typed().includes('end'), 'all typed');
  const words = typed().match(/<\d+>|end/g);
  assert.equal(words.join(''), typed(), 'nothing is cut');
  assert.equal(new Set(words).size, words.length, 'nothing is doubled');
  for (const word of sure) assert.ok(words.includes(word), `${word} was acknowledged`);
  for (const word of words)
    assert.ok(word === 'end' || sure.includes(word) || perhaps.includes(word), `${word} was refused`);
});

test('refuses input with 503 when the tunnel does not come back in time, and does not type it later', async (t) => {
  const { client, proxy } = await setUp(t, { args: ['--input-timeout-ms', '300'] });
  const { id, typed } = await typing(client);
  (await client.type(id, 'before ')).is(204);
  proxy.refusing = true;
  proxy.cut();
  const stream = await EventStream.open(client, id);
  await until(async () => (await client.get(`/sessions/${id}`)).json.state === 'reconnecting', 'reconnecting');
  (await client.type(id, 'LOST ')).isProblem(503, 'not-delivered');
  (await client.type(id, 'LOST ', { 'Input-Client': 'c', 'Input-Seq': '1' })).isProblem(503, 'not-delivered');
  (await client.post(`/sessions/${id}/signal`, { json: { signal: 'INT' } })).isProblem(503, 'not-delivered');
  proxy.refusing = false;
  await stream.until((e) => e.data.state === 'open');
  (await client.type(id, 'numbered ', { 'Input-Client': 'c', 'Input-Seq': '1' })).is(204);
  (await client.type(id, 'after')).is(204);
  await until(() => typed().includes('after'), 'typed');
  assert.equal(typed(), 'before numbered after');
});

test('says delivery-unknown when no answer comes, and a numbered repeat types nothing twice', async (t) => {
  const { client, proxy } = await setUp(t, { args: ['--input-timeout-ms', '400'] });
  const { id, typed } = await typing(client);
  const numbered = () => client.type(id, 'once ', { 'Input-Client': 'c', 'Input-Seq': '1' });
  proxy.hold();
  const answer = (await numbered()).is(503);
  assert.ok(['/problems/delivery-unknown', '/problems/not-delivered'].includes(answer.json.type));
  proxy.release();
  await until(async () => (await numbered()).status === 204, 'delivered');
  (await numbered()).is(204);
  (await client.type(id, 'end', { 'Input-Client': 'c', 'Input-Seq': '2' })).is(204);
  await until(() => typed().includes('end'), 'typed');
  assert.equal(typed(), 'once end');
});

test('keeps a size that was set while the tunnel was cut', async (t) => {
  const { client, proxy } = await setUp(t);
  const shell = await PatternShell.create(client, 'lines', { sandbox });
  const stream = await shell.view();
  await stream.to(64);
  const resizing = client.post(`${shell.path}/resize`, { json: { cols: 111, rows: 22 } });
  proxy.cut();
  const { status } = await resizing;
  await stream.until((e) => e.event === 'state' && e.data.state === 'open').catch(() => {});
  if (status !== 204) (await client.post(`${shell.path}/resize`, { json: { cols: 111, rows: 22 } })).is(204);
  await until(async () => (await shell.info()).cols === 111, 'size');
  await shell.type('z\n');
  const late = await shell.view();
  const events = await late.until((e) => e.event === 'output' && e.bytes.toString().includes('[111x22]'));
  assert.equal(events.filter((e) => e.event === 'resize' && e.data.cols === 111).length, 1, 'one resize event');
  stream.close();
  late.close();
});

test('gives the end of a shell that ended while the tunnel was cut', async (t) => {
  const { client, proxy } = await setUp(t);
  const shell = await PatternShell.create(client, 'lines', { sandbox });
  const stream = await shell.view();
  await stream.to(64);
  await shell.write(600_000, 1000); // pieces with pauses
  await stream.to(20_000);
  (await client.type(shell.id, 'x 33\n')).is(204); // behind the pieces
  proxy.refusing = true;
  proxy.cut();
  await until(async () => (await shell.info()).state === 'reconnecting', 'reconnecting');
  proxy.refusing = false;
  const { events, bytes, from } = await stream.rest();
  shell.assert(from, bytes);
  assert.equal(stream.position.offset, shell.written + 1);
  assert.equal(events.at(-1).data.exit_code, 33);
});

test('replays to a service that comes new, from the oldest byte of the agent', async (t) => {
  const { client, service } = await setUp(t, { args: ['--local-on-stop', 'keep'] });
  const shell = await PatternShell.create(client, 'bytes', { sandbox, first: 2_000_000 });
  await service.kill();
  await service.restart();
  shell.client = service.client();
  const stream = await shell.view();
  const { bytes, from } = await stream.to(shell.written);
  assert.equal(from, 0);
  shell.assert(0, bytes);
  stream.close();
});

test('ends a session as lost when its agent is gone for good', async (t) => {
  const { agent, client } = await setUp(t, { args: ['--reconnect-s', '1'] });
  const shell = await PatternShell.create(client, 'lines', { sandbox, first: 3000 });
  const stream = await shell.view();
  await stream.to(3000);
  await agent.kill();
  const { events } = await stream.rest();
  assert.ok(events.some((e) => e.event === 'state' && e.data.state === 'reconnecting'));
  assert.deepEqual(events.at(-1).data, { reason: 'lost', exit_code: null, signal: null });
  assert.equal((await shell.info()).ended.reason, 'lost');
  const late = await (await shell.view()).rest();
  shell.assert(0, late.bytes);
  assert.equal(late.bytes.length, 3000);
});

test('ends a session as lost at once when its agent has been replaced', async (t) => {
  const { agent, proxy, client } = await setUp(t);
  const shell = await PatternShell.create(client, 'lines', { sandbox });
  const stream = await shell.view();
  await stream.to(64);
  const other = await Agent.start({ args: ['--port=0'], token: agent.token });
  t.cleanup(() => other.stop());
  proxy.targetPort = other.port;
  proxy.cut();
  const { events } = await stream.rest();
  assert.equal(events.at(-1).data.reason, 'lost');
  const info = await shell.info();
  assert.equal(info.ended.reason, 'lost');
});

test('says why a session cannot be had: wrong token, nobody there, not a WebSocket', async (t) => {
  const agent = await Agent.start({ args: ['--port=0'] });
  t.cleanup(() => agent.stop());
  for (const [url, token] of [
    [`ws://127.0.0.1:${agent.port}/ws/client`, 'wrong-token-wrong-token'],
    ['ws://127.0.0.1:9/ws/client', agent.token],
    [`ws://127.0.0.1:${agent.port}/health`, agent.token],
    ['ws://no-such-host.invalid/ws/client', agent.token],
  ]) {
    const service = await t.start({
      providers: 'url',
      args: ['--tunnel-url', url, '--open-timeout-ms', '1500'],
      env: { PTYCAST_TUNNEL_TOKEN: token },
    });
    const client = service.client();
    const answer = await client.post('/sessions?wait=open', { json: { sandbox, id: 'x' } });
    answer.isProblem(502, 'tunnel-failed', { session: 'x' });
    assert.ok(!answer.text.includes(token) && !service.log.includes(token));
    assert.equal((await client.get('/sessions/x')).json.ended.reason, 'failed');
  }
});

test('has many shells in one agent, which do not mix', async (t) => {
  const { client, proxy } = await setUp(t);
  const shells = await Promise.all(
    Array.from({ length: scaled(24) }, (_, i) => PatternShell.create(client, 'bytes', { sandbox, first: 100 + i })),
  );
  const streams = await Promise.all(shells.map((shell) => shell.view()));
  await Promise.all(shells.map((shell) => shell.write(100_000)));
  proxy.cut();
  await Promise.all(shells.map((shell, i) => shell.exit(i)));
  const results = await Promise.all(streams.map((stream) => within(stream.rest(), 'end of a shell', DEADLINE_MS * 2)));
  results.forEach(({ bytes, events }, i) => {
    assert.equal(bytes.length, shells[i].written);
    shells[i].assert(0, bytes);
    assert.equal(events.at(-1).data.exit_code, i);
  });
});
