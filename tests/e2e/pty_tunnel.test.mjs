// pty_tunnel.test.mjs -- the original's dialect. First the fake of the original bus and our own agent
// speak it alike, then the service is put before the fake: each attach is an epoch, the exit is not
// known, a size of 0 never gets through, and repeats are typed once.
import assert from 'node:assert/strict';

import WebSocket from 'ws';
import { PtyTunnel } from '../fakes/pty_tunnel.mjs';
import { scaled } from './lib/flavour.mjs';
import { assertPattern, pattern } from './lib/pattern.mjs';
import { Proxy } from './lib/proxy.mjs';
import { Agent, Service, test } from './lib/service.mjs';
import { EventStream } from './lib/sse.mjs';
import { deferred, until, within } from './lib/wait.mjs';

const sandbox = { provider: 'url' };

// A client of the original kind.
class OldClient {
  static async open(url, options = {}) {
    const client = new OldClient();
    client.ws = new WebSocket(url, { perMessageDeflate: false, ...options });
    client.messages = [];
    client.closed = deferred();
    client.ws.on('message', (data, isBinary) => {
      assert.ok(isBinary, 'output is always binary');
      client.messages.push(data);
    });
    client.ws.on('close', (code) => client.closed.resolve(code));
    client.status = await new Promise((resolve, reject) => {
      client.ws.on('open', () => resolve(101));
      client.ws.on('unexpected-response', (request, response) => {
        response.resume();
        resolve(response.statusCode);
      });
      client.ws.on('error', reject);
    });
    return client;
  }

  get text() {
    return Buffer.concat(this.messages).toString();
  }

  says(text) {
    return until(() => this.text.includes(text), `${JSON.stringify(text)} in ${JSON.stringify(this.text)}`);
  }

  frame(type, payload = []) {
    this.ws.send(Buffer.from([type, ...Buffer.from(payload)]));
  }
}

const fars = {
  'the fake': async (t, command) => {
    const bus = await PtyTunnel.start(
      command === 'echo' ? { run: (terminal) => (terminal.write('hi\r\n'), terminal.exit()) } : {},
    );
    t.cleanup(() => bus.stop());
    return { url: bus.url(), port: bus.port, processId: bus.processId, token: bus.token };
  },
  'our agent': async (t, command) => {
    const agent = await Agent.start({
      mode: 'client',
      command: command === 'echo' ? ['echo', 'hi'] : ['env', 'PS1=$ ', 'sh'],
    });
    t.cleanup(() => agent.stop().catch(() => {}));
    return {
      url: agent.url(),
      port: agent.port,
      processId: String(agent.handshake.processId),
      token: agent.handshake.token,
    };
  },
};

for (const [name, start] of Object.entries(fars)) {
  test(`${name} speaks as the original: the recorded session`, async (t) => {
    const { url } = await start(t);
    const one = await OldClient.open(url);
    assert.equal(one.status, 101);
    one.frame(2);
    await one.says('$ ');
    assert.ok(
      one.messages.some((m) => m.length === 0),
      'an empty message answers ready',
    );
    one.ws.send('echo text-frame\r');
    await one.says('echo text-frame\r\ntext-frame\r\n$ ');
    one.frame(1, [0, 100, 0, 40, 9, 9]);
    one.frame(0, 'stty size\r');
    await one.says('stty size\r\n40 100\r\n$ ');
    const two = await OldClient.open(url);
    two.frame(0x99, [1]);
    two.ws.send(Buffer.alloc(0));
    two.frame(0, 'echo x\r');
    await one.says('echo x\r\nx\r\n$ ');
    await two.says('echo x\r\nx\r\n$ ');
    assert.ok(!two.text.includes('text-frame'), 'no replay');
    one.frame(0, 'exit 7\r');
    await within(Promise.all([one.closed.promise, two.closed.promise]), 'close');
    assert.ok(one.text.endsWith('exit 7\r\n'));
  });

  test(`${name} speaks as the original: output waits for ready, and for a program that has ended`, async (t) => {
    const { url } = await start(t, 'echo');
    const client = await OldClient.open(url);
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(client.text, '');
    client.frame(2);
    await within(client.closed.promise, 'close');
    assert.equal(client.text, 'hi\r\n');
  });

  test(`${name} speaks as the original: statuses and their order`, async (t) => {
    const { port, processId, token } = await start(t);
    const encoded = encodeURIComponent(token);
    const statusOf = async (path, options) => (await OldClient.open(`ws://127.0.0.1:${port}${path}`, options)).status;
    assert.equal(await statusOf(`/ws/client?processId=${processId}`), 400);
    assert.equal(await statusOf(`/ws/client?token=${encoded}`), 400);
    assert.equal(await statusOf(`/ws/other?processId=${processId}&token=${encoded}`), 400);
    assert.equal(await statusOf(`/ws/client?processId=${processId}&token=wrong`), 401);
    assert.equal(await statusOf('/ws/client?processId=none&token=wrong'), 401);
    assert.equal(await statusOf(`/ws/client?processId=999999999&token=${encoded}`), 404);
    assert.equal(await statusOf('/nothing'), 404);
    assert.equal(
      await statusOf(`/ws/client?processId=${processId}&token=${encoded}`, { headers: { Origin: 'http://evil.org' } }),
      403,
    );
    const last = await OldClient.open(`ws://127.0.0.1:${port}/ws/client?token=${encoded}&more=1&processId=${processId}`);
    assert.equal(last.status, 101);
    last.frame(2); // else the output of the shell, which is ended now, waits for somebody
    await last.says('$ ');
    const health = await fetch(`http://127.0.0.1:${port}/health`, { method: 'POST' });
    assert.deepEqual([health.status, await health.text()], [200, 'OK']);
    const plain = await fetch(`http://127.0.0.1:${port}/ws/client?processId=${processId}&token=${encoded}`);
    assert.deepEqual(
      [plain.status, plain.headers.get('sec-websocket-version'), await plain.text()],
      [400, '13', 'Bad Request\n'],
    );
  });
}

// A service before a far end of that kind.
async function before(t, url, args = []) {
  const service = await t.start({
    providers: 'url',
    args: ['--tunnel-transport', 'pty-tunnel', '--input-gap-ms', '300', ...args],
    env: { PTYCAST_TUNNEL_URL: url },
  });
  return { service, client: service.client() };
}

async function open(client, parameters = {}) {
  const session = await client.createOpen({ sandbox, ...parameters });
  const stream = await EventStream.open(client, session.id);
  let text = '';
  const says = async (wanted) => {
    while (!text.includes(wanted)) text += (await stream.first('output')).data.data;
  };
  return { ...session, stream, says, text: () => text };
}

test('is served as a session: output, input, size', async (t) => {
  const bus = await PtyTunnel.start();
  t.cleanup(() => bus.stop());
  const { client } = await before(t, bus.url());
  const { providers } = (await client.get('/providers')).is(200).json;
  assert.equal(providers[0].transport, 'pty-tunnel');
  const { exit_code, replay, signal, resize } = providers[0].capabilities;
  assert.deepEqual(
    { exit_code, replay, signal, resize },
    { exit_code: false, replay: false, signal: false, resize: true },
  );
  const session = await open(client, { cols: 90, rows: 30 });
  assert.equal(session.provider, 'url');
  await session.says('$ ');
  await until(() => bus.size.join() === '90,30', 'the size of the session');
  (await client.type(session.id, 'echo {"data":"x"}\r')).is(204);
  await session.says('{"data":"x"}\r\n$ ');
  (await client.post(`/sessions/${session.id}/resize`, { json: { cols: 100, rows: 40 } })).is(204);
  (await client.type(session.id, 'stty size\r')).is(204);
  await session.says('40 100\r\n$ ');
  (await client.post(`/sessions/${session.id}/resize`, { json: { cols: 0, rows: 40 } })).is(400);
  (await client.type(session.id, 'echo on\r')).is(204);
  await session.says('on\r\n$ ');
  assert.ok(!bus.inputDead);
  (await client.post(`/sessions/${session.id}/signal`, { json: { signal: 'INT' } })).isProblem(501, 'not-supported');
  assert.equal(bus.frames.filter(([type]) => type === 2).length >= 1, true);
});

test('retries while the process is not registered yet', async (t) => {
  const bus = await PtyTunnel.start({ registerAfter: 2 });
  t.cleanup(() => bus.stop());
  const { client } = await before(t, bus.url());
  const session = await open(client);
  await session.says('$ ');
});

test('ends when the far end closes without a code: how is not known', async (t) => {
  const bus = await PtyTunnel.start();
  t.cleanup(() => bus.stop());
  const { client } = await before(t, bus.url(), ['--reconnect-s', '2']);
  const session = await open(client);
  await session.says('$ ');
  (await client.type(session.id, 'exit 7\r')).is(204);
  const exit = await session.stream.first('exit');
  assert.ok(['exited', 'lost'].includes(exit.data.reason));
  assert.deepEqual([exit.data.exit_code, exit.data.signal], [null, null]);
  const { ended } = (await client.get(`/sessions/${session.id}`)).json;
  assert.deepEqual([ended.exit_code, ended.signal], [null, null]);
  const late = await (await EventStream.open(client, session.id)).rest();
  assert.match(late.text, /exit 7\r\n$/);
});

test('starts a new epoch at each attach and says so, as what was said between is lost', async (t) => {
  const bus = await PtyTunnel.start();
  t.cleanup(() => bus.stop());
  const proxy = await Proxy.start(bus.port);
  t.cleanup(() => proxy.stop());
  const { client } = await before(t, bus.url(proxy.port));
  const session = await open(client);
  await session.says('$ ');
  const epochs = new Set([session.epoch]);
  for (let round = 0; round < 3; round++) {
    proxy.refusing = true;
    proxy.cut();
    await session.stream.until((e) => e.data.state === 'reconnecting');
    bus.terminal.write('nobody hears this');
    proxy.refusing = false;
    const reset = (await session.stream.until((e) => e.event === 'reset')).at(-1);
    assert.deepEqual(reset.data, { reason: 'epoch', offset: 0 });
    assert.ok(!epochs.has(reset.epoch));
    epochs.add(reset.epoch);
    (await client.type(session.id, `echo round-${round}\r`)).is(204);
    const output = [];
    while (!output.join('').includes(`\r\nround-${round}\r\n$ `))
      output.push((await session.stream.first('output')).data.data);
    assert.ok(!output.join('').includes('nobody'));
  }
  assert.equal(bus.attaches, 4);
  const info = (await client.get(`/sessions/${session.id}`)).json;
  assert.equal(info.epoch, [...epochs].at(-1));
  // A viewer with an id of an earlier epoch is told, too.
  const old = await EventStream.open(client, session.id, { lastEventId: `${session.epoch}:2` });
  assert.equal((await old.first('reset')).data.reason, 'epoch');
  old.close();
});

test('types numbered input once, over a new attach too', async (t) => {
  const bus = await PtyTunnel.start();
  t.cleanup(() => bus.stop());
  const { client } = await before(t, bus.url());
  const session = await open(client);
  await session.says('$ ');
  const numbered = (seq, text) => client.type(session.id, text, { 'Input-Client': 'c', 'Input-Seq': String(seq) });
  const third = numbered(3, 'c');
  (await numbered(1, 'a')).is(204);
  (await numbered(2, 'b')).is(204);
  (await third).is(204);
  (await numbered(2, 'REPEAT')).is(204);
  bus.cut();
  await session.stream.until((e) => e.event === 'reset');
  (await numbered(3, 'REPEAT')).is(204);
  (await numbered(4, 'd\r')).is(204);
  (await numbered(6, 'x')).isProblem(409, 'input-gap', { expected: 5 });
  const typed = () => Buffer.concat(bus.frames.filter(([type]) => type === 0).map(([, p]) => p)).toString();
  await until(() => typed().includes('\r'), 'typed');
  assert.equal(typed(), 'abcd\r');
});

test('passes a flood in messages of any size, and 1 MiB of input', async (t) => {
  const size = scaled(8 << 20);
  let typed = 0;
  const bus = await PtyTunnel.start({
    run: (terminal) => {
      terminal.onInput = (bytes) => {
        typed += bytes.length;
        if (bytes.at(-1) !== 0x21) return;
        for (let at = 0, piece = 1; at < size; piece = (piece * 7) % 40_961) {
          terminal.write(pattern('lines', at, Math.min(size, at + piece)));
          at += piece;
        }
      };
    },
  });
  t.cleanup(() => bus.stop());
  const { client } = await before(t, bus.url());
  const { id } = await client.createOpen({ sandbox });
  const stream = await EventStream.open(client, id, {
    format: 'base64',
    discard: (e) => assertPattern('lines', e.from, e.bytes),
  });
  (await client.type(id, Buffer.concat([Buffer.alloc((1 << 20) - 1, 'x'), Buffer.from('!')]))).is(204);
  await stream.when(() => stream.position?.offset >= size, 'the flood');
  assert.equal(typed, 1 << 20);
  assert.equal(stream.outputBytes, size);
  stream.close();
});

test('cuts characters as the far end does, and never splits one in text', async (t) => {
  const text = 'aé€😀'.repeat(20);
  const bus = await PtyTunnel.start({
    run: (terminal) => {
      terminal.onInput = () => {
        for (const byte of Buffer.from(text)) terminal.write(Buffer.from([byte]));
      };
    },
  });
  t.cleanup(() => bus.stop());
  const { client } = await before(t, bus.url());
  const { id } = await client.createOpen({ sandbox });
  const stream = await EventStream.open(client, id);
  (await client.type(id, 'go')).is(204);
  const { text: got } = await stream.to(Buffer.byteLength(text));
  assert.equal(got, text);
  stream.close();
});

test('serves our own agent by the old dialect', async (t) => {
  const agent = await Agent.start({ mode: 'client', command: ['env', 'PS1=$ ', 'sh'] });
  t.cleanup(() => agent.stop().catch(() => {}));
  const { client } = await before(t, agent.url());
  const session = await open(client, { cols: 101, rows: 33 });
  await session.says('$ ');
  (await client.type(session.id, 'stty size; echo do""ne\r')).is(204);
  await session.says('33 101\r\ndone\r\n$ ');
  (await client.type(session.id, 'exit 3\r')).is(204);
  const exit = await session.stream.first('exit');
  assert.ok(['exited', 'lost'].includes(exit.data.reason));
});
