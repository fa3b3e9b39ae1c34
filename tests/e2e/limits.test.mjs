// limits.test.mjs -- what an outsider can make the service hold is bounded, and what it holds it gives
// back.
import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before } from 'node:test';
import { scaled } from './lib/flavour.mjs';
import { PatternShell } from './lib/pattern.mjs';
import { Service, isSanitized, keys, test } from './lib/service.mjs';
import { until, within } from './lib/wait.mjs';

const MB = 1 << 20;
let service, alice;

before(async () => {
  service = await Service.start({
    args: ['--request-timeout-s', '2', '--bodies-total-bytes', '4M', '--input-gap-ms', '3000'],
  });
  alice = service.client();
});
after(() => service?.stop());

test('serves a thousand viewers of one session', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const count = scaled(1000);
  const viewers = [];
  while (viewers.length < count) {
    const batch = Array.from({ length: Math.min(100, count - viewers.length) }, () => shell.view({ checkEvery: 20 }));
    viewers.push(...(await Promise.all(batch)));
  }
  await until(async () => (await alice.metric('ptycast_viewers{kind="sse"}')) === count, 'all are counted');
  for (let round = 0; round < 5; round++) await shell.write(1000);
  await shell.exit(0);
  for (const viewer of viewers) {
    const { bytes, names } = await viewer.rest();
    assert.equal(bytes.length, shell.written);
    shell.assert(0, bytes);
    assert.equal(names.at(-1), 'exit');
  }
  await until(async () => (await alice.metric('ptycast_viewers{kind="sse"}')) === 0, 'no viewers are left');
});

test('gives descriptors and memory back', async () => {
  const fds = () => alice.metric('process_open_fds');
  const round = async () => {
    const shells = await Promise.all(
      Array.from({ length: 8 }, () => PatternShell.create(alice, 'lines', { first: 200_000 })),
    );
    const viewers = (
      await Promise.all(shells.map((shell) => Promise.all(Array.from({ length: 10 }, () => shell.view()))))
    ).flat();
    await Promise.all(viewers.map((viewer) => viewer.to(200_000)));
    viewers.slice(0, 40).forEach((viewer) => viewer.close());
    await Promise.all(shells.map((shell) => alice.delete(shell.path)));
    await Promise.all(viewers.slice(40).map((viewer) => viewer.rest()));
    for (const shell of shells) {
      await shell.ended();
      await alice.delete(shell.path);
    }
    await until(async () => (await alice.metric('ptycast_viewers{kind="sse"}')) === 0, 'no viewers');
  };
  await round();
  const before = await fds();
  const memory = await alice.metric('ptycast_journal_bytes');
  for (let i = 0; i < scaled(4); i++) await round();
  await until(async () => (await fds()) <= before + 6, 'descriptors are closed');
  await until(async () => (await alice.metric('ptycast_journal_bytes')) <= memory, 'journals are freed');
});

test('does not wait for ever for the rest of a request', async () => {
  const pieces = [
    'GET /healthz HTT',
    'GET /healthz HTTP/1.1\r\nHost: loc',
    `POST /sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${keys.admin}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"sand`,
    '',
  ];
  await Promise.all(
    pieces.map((piece) =>
      within(
        new Promise((resolve) => {
          const socket = net.connect(service.port, '127.0.0.1', () => piece && socket.write(piece));
          socket.on('error', resolve);
          socket.on('close', resolve);
          socket.resume();
        }),
        `end of the connection that said ${JSON.stringify(piece.slice(0, 30))}`,
        60_000,
      ),
    ),
  );
  (await service.client(null).get('/healthz')).is(200);
});

test('holds many slow connections and serves others', async () => {
  const sockets = Array.from({ length: scaled(400) }, () => {
    const socket = net.connect(service.port, '127.0.0.1', () =>
      socket.write('GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: '),
    );
    socket.on('error', () => {});
    return socket;
  });
  await Promise.all(
    sockets.map((socket) => socket.connecting && new Promise((resolve) => socket.once('connect', resolve))),
  );
  for (let i = 0; i < 10; i++) (await alice.get('/sessions')).is(200);
  sockets.forEach((socket) => socket.destroy());
});

test('bounds the bodies it holds: those that wait for their turn too', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  // Each waits for the one before it, which never comes.
  const early = Array.from({ length: 10 }, (_, i) =>
    alice.type(shell.id, Buffer.alloc(MB, 'x'), { 'Input-Client': `c${i}`, 'Input-Seq': '2' }),
  );
  const answers = await Promise.all(early);
  const slugs = answers.map((a) => `${a.status} ${a.json.type}`);
  for (const slug of slugs)
    assert.ok(['409 /problems/input-gap', '503 /problems/busy', '429 /problems/input-full'].includes(slug), slug);
  assert.ok(
    slugs.some((slug) => !slug.startsWith('409')),
    `bounded: ${slugs}`,
  );
  assert.equal(
    await until(async () => (await alice.metric('ptycast_request_bodies_bytes')) === 0, 'all are given back'),
    true,
  );
  await shell.print('fine');
});

test('gives a busy client no more than its share of memory', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const before = service.rss();
  const answers = await Promise.all(
    Array.from({ length: scaled(200) }, (_, i) =>
      alice.type(shell.id, Buffer.alloc(100_000, 'y'), { 'Input-Client': 'one', 'Input-Seq': String(i + 2) }),
    ),
  );
  assert.ok(answers.every((a) => [409, 429, 503].includes(a.status)));
  if (!isSanitized) assert.ok(service.rss() - before < 48 * MB, `${service.rss() - before} more`);
});

test('answers a storm of creates and deletes', async () => {
  const count = scaled(60);
  await Promise.all(
    Array.from({ length: count }, async (_, i) => {
      const answer = await alice.post('/sessions', {
        json: { sandbox: 'local', command: ['cat'], id: `storm-${i % 20}` },
      });
      assert.ok([200, 201].includes(answer.status), answer.text);
      const { status } = await alice.delete(`/sessions/storm-${i % 20}`);
      assert.ok([204, 404].includes(status));
    }),
  );
  for (let i = 0; i < 20; i++)
    await until(async () => {
      const answer = await alice.get(`/sessions/storm-${i}`);
      return answer.status === 404 || answer.json.state === 'ended';
    }, `end of storm-${i}`);
});
