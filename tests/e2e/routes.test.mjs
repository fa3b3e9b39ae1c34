// routes.test.mjs -- what holds for every route: credentials, roles, methods, HEAD and OPTIONS, CORS,
// Host, and requests that are none.
import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before } from 'node:test';
import { contract, operations, source } from './lib/contract.mjs';
import { Service, keys, test } from './lib/service.mjs';
import { DEADLINE_MS, within } from './lib/wait.mjs';

const ORIGIN = 'https://app.example.com';
let service, alice, nobody, id;

before(async () => {
  service = await Service.start({
    providers: 'local,runloop',
    args: ['--cors-origins', `${ORIGIN},http://localhost:5173`, '--unauthorized-per-minute', '100000'],
  });
  alice = service.client();
  nobody = service.client(null);
  ({ id } = await alice.createOpen({ sandbox: 'local', command: ['cat'] }));
  (await alice.post('/sandboxes', { json: { id: 'stored', ...bodies['/sandboxes'] } })).is(201);
});
after(() => service?.stop());

const pathOf = (template) => template.replace('{id}', id).replace('{sandbox_id}', 'stored');
const isOpen = (operation) => operation.security?.length === 0;
// A body that would be taken.
const bodies = {
  '/sandboxes': { provider: 'runloop', external_id: 'dbx_1', credential: 'ak_of-routes-test' },
  '/sandboxes/{sandbox_id}': { name: 'renamed' },
  '/sessions': { sandbox: 'local', id: 'made-by-nobody' },
  '/sessions/{id}/input': { data: 'x' },
  '/sessions/{id}/resize': { cols: 90, rows: 30 },
  '/sessions/{id}/signal': { signal: 'CONT' },
  '/sessions/{id}/tickets': { role: 'view' },
  '/pty/{sandbox_id}/resize': { cols: 90, rows: 30 },
  '/tty/{sandbox_id}/resize': { cols: 90, rows: 30 },
};
const call = (client, method, template, options) =>
  client.request(method, pathOf(template), {
    ...(['POST', 'PATCH'].includes(method) && { json: bodies[template] }),
    ...(template.endsWith('/ws') && {
      headers: { Upgrade: 'websocket', Connection: 'Upgrade', 'Sec-WebSocket-Version': '13' },
    }),
    ...options,
  });

// What a raw request is answered with: everything until the service closes, or until enough() likes it.
function raw(text, enough = () => false) {
  return within(
    new Promise((resolve, reject) => {
      const socket = net.connect(service.port, '127.0.0.1');
      const chunks = [];
      const got = () => Buffer.concat(chunks).toString('latin1');
      socket.on('data', (chunk) => {
        chunks.push(chunk);
        if (enough(got())) {
          socket.destroy();
          resolve(got());
        }
      });
      socket.on('error', (error) => (['ECONNRESET', 'EPIPE'].includes(error.code) ? resolve(got()) : reject(error)));
      socket.on('close', () => resolve(got()));
      for (const piece of [text].flat()) socket.write(piece);
    }),
    `answer to ${String(text).slice(0, 60)}`,
  );
}
const statusOf = (answer) => Number(answer.match(/^HTTP\/1\.[01] (\d{3})/)?.[1]);

test('serves the contract it is held against', async () => {
  const answer = (await nobody.get('/openapi.yaml')).is(200);
  assert.equal(answer.text, source);
  (await nobody.get('/openapi.yaml', { headers: { 'If-None-Match': answer.headers.etag } })).is(304);
});

test('serves the page and its files, which stay the same for their ETag', async () => {
  const page = (await nobody.get('/')).is(200);
  assert.match(page.text, /<!doctype html>/i);
  for (const file of ['/app.js', '/app.css']) {
    assert.ok(page.text.includes(file.slice(1)), `the page names ${file}`);
    const { headers } = (await nobody.get(file)).is(200);
    assert.equal(headers['x-content-type-options'], 'nosniff');
    (await nobody.get(file, { headers: { 'If-None-Match': headers.etag } })).is(304);
  }
});

test('says that it is alive and ready', async () => {
  assert.deepEqual((await nobody.get('/healthz')).is(200).json, { status: 'ok' });
  const ready = (await nobody.get('/readyz')).is(200).json;
  assert.equal(ready.checks.store, 'ok');
});

test('lists what providers there are and what they can do', async () => {
  const { providers } = (await alice.get('/providers')).is(200).json;
  assert.deepEqual(providers.map(({ name }) => name), ['local', 'runloop']);
  assert.deepEqual(providers.slice(0, 1), [
    {
      name: 'local',
      transport: 'agent',
      capabilities: {
        reattach: true,
        replay: true,
        exit_code: true,
        signal: true,
        resize: true,
        single_attach: false,
      },
    },
  ]);
});

test('refuses every route that is not open without a good credential', async () => {
  const bad = [null, 'wrong', `${keys.admin}x`, keys.admin.slice(0, -1), `${'A'.repeat(4000)}`, 'a.b.c'];
  const clients = bad.map((credential) => service.client(credential));
  for (const [method, template, operation] of operations) {
    if (isOpen(operation)) continue;
    for (const client of clients) {
      (await call(client, method, template)).isProblem(401, 'unauthorized');
    }
  }
  for (const authorization of ['', 'Bearer', 'Bearer ', `Basic ${keys.admin}`, keys.admin, `Bearer  ${keys.admin} x`])
    (await nobody.get('/sessions', { headers: { Authorization: authorization } })).isProblem(401, 'unauthorized');
  // The scheme's case does not count.
  (await nobody.get('/sessions', { headers: { Authorization: `bearer ${keys.admin}` } })).is(200);
  (await alice.get('/sessions/made-by-nobody')).isProblem(404, 'not-found');
});

test('hides a session from another subject, on every route of it, as if it did not exist', async () => {
  const bob = service.client(keys.stranger);
  for (const [method, template] of operations) {
    if (!template.includes('{id}')) continue;
    const theirs = (await call(bob, method, template)).isProblem(404, 'not-found');
    const none = await bob.request(method, template.replace('{id}', 'no-such-session'), {
      ...(method === 'POST' && { json: bodies[template] }),
    });
    assert.deepEqual(theirs.json, none.json);
  }
  assert.deepEqual((await bob.get('/sessions')).is(200).json, { sessions: [], next: null });
  assert.equal((await alice.get(`/sessions/${id}`)).is(200).json.state, 'open');
});

test('lets an operator act for any subject', async () => {
  const operator = service.client(keys.operator);
  (await operator.get(`/sessions/${id}`)).is(200);
  const { sessions } = (await operator.get('/sessions')).is(200).json;
  assert.ok(sessions.some((session) => session.id === id));
  (await operator.type(id, 'by the operator\n')).is(204);
});

test('gives each role what it may, and no more', async () => {
  const viewer = service.client(keys.viewer);
  const writer = service.client(keys.writer);
  const needs = (method, template) => {
    if (template === '/metrics') return 'admin';
    if (method === 'GET' || template.endsWith('/tickets')) return 'view'; // a ticket to view, used once
    return /\/(input|resize|signal)$/.test(template) ? 'write' : 'admin';
  };
  const rank = ['view', 'write', 'admin'];
  for (const [client, role] of [
    [viewer, 'view'],
    [writer, 'write'],
  ]) {
    for (const [method, template, operation] of operations) {
      if (isOpen(operation) || template.endsWith('/ws') || template.endsWith('/stream')) continue;
      if (/^\/[pt]ty\//.test(template)) continue; // opens shells: pty_surface.test.mjs
      const answer = await call(client, method, template);
      if (rank.indexOf(needs(method, template)) > rank.indexOf(role)) answer.isProblem(403, 'forbidden');
      else assert.ok(answer.status < 300, `${role}: ${method} ${template} -> ${answer.text}`);
    }
    (await client.request('HEAD', `/sessions/${id}/stream`)).is(200);
  }
  (await alice.get('/sessions/made-by-nobody')).isProblem(404, 'not-found');
});

test('answers 405 with Allow for methods that a path does not have', async () => {
  for (const template of Object.keys(contract.paths)) {
    const has = operations.filter(([, path]) => path === template).map(([method]) => method);
    const allowed = [...has, ...(has.includes('GET') ? ['HEAD'] : []), 'OPTIONS'].sort();
    for (const method of ['PUT', 'PATCH', 'DELETE', 'POST', 'GET', 'BREW'].filter((m) => !has.includes(m))) {
      if (method === 'BREW') {
        // node refuses to send it
        const answer = await raw(`BREW ${pathOf(template)} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n`);
        assert.equal(statusOf(answer), 405, `BREW ${template}`);
        continue;
      }
      const answer = (await alice.request(method, pathOf(template))).isProblem(405, 'method-not-allowed');
      assert.deepEqual(answer.headers.allow.split(', ').sort(), allowed, `${method} ${template}`);
    }
  }
});

test('answers 404 for what is no route, with and without a credential', async () => {
  const paths = [
    '/nothing',
    '/sessions/',
    `/sessions/${id}/`,
    `/sessions/${id}/nothing`,
    `/sessions/${id}/stream/more`,
    '/Sessions',
    '//sessions',
    '/sessions//stream',
    `/sessions/${id}/input%00`,
    '/app.js/x',
    '/etc/passwd',
    '/%2e%2e/%2e%2e/etc/passwd',
    '/..%2f..%2fetc%2fpasswd',
    '/index.php',
  ];
  for (const path of paths) for (const client of [alice, nobody]) (await client.get(path)).isProblem(404, 'not-found');
});

test('answers 404 for what cannot be an id', async () => {
  for (const bad of [
    'a%20b',
    'x'.repeat(65),
    'x'.repeat(3000),
    '%2e%2e',
    'a%2fb',
    'a.b',
    '%F0%9F%98%80',
    'a%00b',
    '%ff',
    '%',
    '%zz',
  ])
    for (const rest of ['', '/stream', '/input'])
      (await alice.request(rest === '/input' ? 'POST' : 'GET', `/sessions/${bad}${rest}`)).isProblem(404, 'not-found');
});

test('answers HEAD as GET, without a body', async () => {
  for (const [method, template, operation] of operations) {
    if (method !== 'GET' || template.endsWith('/ws')) continue;
    const client = isOpen(operation) ? nobody : alice;
    const head = (await client.request('HEAD', pathOf(template))).is(200);
    if (template.endsWith('/stream')) {
      assert.match(head.headers['content-type'], /^text\/event-stream/);
      continue;
    }
    const get = (await client.get(pathOf(template))).is(200);
    assert.equal(head.headers['content-type'], get.headers['content-type']);
    if (!isOpen(operation)) (await nobody.request('HEAD', pathOf(template))).is(401);
  }
});

test('answers OPTIONS on every path without a credential', async () => {
  for (const template of Object.keys(contract.paths)) {
    const { headers } = (await nobody.request('OPTIONS', pathOf(template))).is(204);
    assert.ok(headers.allow.includes('OPTIONS'));
    assert.equal(headers['access-control-allow-origin'], undefined);
  }
});

test('lets pages of configured origins in, and no others', async () => {
  const preflight = (origin, method = 'POST') =>
    nobody.request('OPTIONS', `/sessions/${id}/input`, {
      headers: {
        Origin: origin,
        'Access-Control-Request-Method': method,
        'Access-Control-Request-Headers': 'authorization,content-type,input-client,input-seq',
      },
    });
  for (const origin of [ORIGIN, 'http://localhost:5173']) {
    const { headers } = (await preflight(origin)).is(204);
    assert.equal(headers['access-control-allow-origin'], origin);
    assert.match(headers.vary, /Origin/i);
    assert.match(headers['access-control-allow-methods'], /POST/);
    const allowed = headers['access-control-allow-headers'].toLowerCase();
    for (const name of ['authorization', 'content-type', 'input-client', 'input-seq', 'last-event-id'])
      assert.ok(allowed.includes(name), name);
    assert.ok(Number(headers['access-control-max-age']) > 0);
    assert.equal(headers['access-control-allow-credentials'], undefined);
  }
  const others = [
    'https://app.example.com.evil.org',
    'http://app.example.com',
    'https://app.example.com:8443',
    'null',
    'https://evil.org',
    'https://app.example.co',
  ];
  for (const origin of others) {
    assert.equal((await preflight(origin)).is(204).headers['access-control-allow-origin'], undefined, origin);
    const { headers } = (await alice.get('/sessions', { headers: { Origin: origin } })).is(200);
    assert.equal(headers['access-control-allow-origin'], undefined, origin);
  }
  // Real answers, good and bad, and the stream's.
  const cors = { headers: { Origin: ORIGIN } };
  for (const answer of [
    (await alice.get('/sessions', cors)).is(200),
    (await nobody.get('/sessions', cors)).is(401),
    (await alice.get('/sessions/no-such', cors)).is(404),
    (await alice.request('HEAD', `/sessions/${id}/stream`, cors)).is(200),
  ]) {
    assert.equal(answer.headers['access-control-allow-origin'], ORIGIN);
    assert.match(answer.headers.vary, /Origin/i);
  }
  const created = await alice.get('/sessions', cors);
  assert.match(created.headers['access-control-expose-headers'], /retry-after/i);
});

test('refuses a foreign Host on a loopback listener', async () => {
  const { port } = service;
  for (const host of [
    `127.0.0.1:${port}`,
    `localhost:${port}`,
    '127.0.0.1',
    'localhost',
    `LocalHost:${port}`,
    `[::1]:${port}`,
  ])
    (await alice.get('/sessions', { headers: { Host: host } })).is(200);
  for (const host of [
    'evil.org',
    `evil.org:${port}`,
    'localhost.evil.org',
    '127.0.0.1.nip.io',
    '10.0.0.1',
    `x@localhost:${port}`,
  ])
    for (const path of ['/sessions', '/', '/healthz', '/openapi.yaml'])
      (await alice.get(path, { headers: { Host: host } })).isProblem(403, 'forbidden');
});

test('refuses heads of 64 KB and goes on serving', async () => {
  const big = 'x'.repeat(65536);
  const refusals = [
    `GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Big: ${big}\r\n\r\n`,
    `GET /healthz?${big} HTTP/1.1\r\nHost: localhost\r\n\r\n`,
    `GET /${big} HTTP/1.1\r\nHost: localhost\r\n\r\n`,
    `GET /healthz HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${big}\r\n\r\n`,
    `GET /healthz HTTP/1.1\r\nHost: localhost\r\n${Array.from({ length: 4000 }, (_, i) => `X-${i}: 1234567\r\n`).join('')}\r\n`,
    `GET /healthz HTTP/1.1\r\nHost: localhost\r\nCookie: ${'a=b; '.repeat(13000)}\r\n\r\n`,
  ];
  for (const text of refusals) {
    const status = statusOf(await raw(text));
    assert.ok([400, 413, 414, 431].includes(status) || Number.isNaN(status), `${text.slice(0, 40)} -> ${status}`);
  }
  (await nobody.get('/healthz')).is(200);
});

test('takes heads of 7 KB', async () => {
  (await alice.get('/sessions', { headers: { 'X-Long': 'x'.repeat(7000) } })).is(200);
});

test('survives requests that are none', async () => {
  const texts = [
    '\r\n\r\n',
    'GET\r\n\r\n',
    'GET / HTTP/9.9\r\n\r\n',
    '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
    'GET / HTTP/1.1\r\n\r\n', // no Host
    `POST /sessions/${id}/input HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n`,
    `POST /sessions/${id}/input HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n`,
    `POST /sessions/${id}/input HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${keys.admin}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n`,
    `GET / HTTP/1.1\r\nHost: localhost\r\nBad Header Line\r\n\r\n`,
    `GET / HTTP/1.1\r\nHost: localhost\r\n: no name\r\nConnection: close\r\n\r\n`,
    Buffer.alloc(3000, 0),
    'GET http://evil.org/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n',
  ];
  // Some wait for more, as they must: it is enough that others are served meanwhile.
  const held = texts.map((text) => {
    const socket = net.connect(service.port, '127.0.0.1', () => socket.write(text));
    socket.on('error', () => {});
    socket.resume();
    return socket;
  });
  for (let i = 0; i < 20; i++) (await nobody.get('/healthz')).is(200);
  for (const socket of held) socket.destroy();
  (await alice.get(`/sessions/${id}`)).is(200);
});

test('serves HTTP/1.0, pipelined requests and chunked bodies', async () => {
  const old = await raw(`GET /healthz HTTP/1.0\r\n\r\n`);
  assert.equal(statusOf(old), 200);
  const two = await raw(
    'GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n',
  );
  assert.match(two, /"ok"[\s\S]*"ready"/);
  const chunked = await alice.request('POST', `/sessions/${id}/resize`, {
    body: JSON.stringify({ cols: 91, rows: 31 }),
    headers: { 'Transfer-Encoding': 'chunked', 'Content-Type': 'application/json' },
  });
  chunked.is(204);
});

test('says 100 Continue to whom asks before a body', async () => {
  const answer = await raw(
    [
      `POST /sessions/${id}/input HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${keys.admin}\r\n` +
        'Content-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n',
      'x\n',
    ],
    (text) => /HTTP\/1\.1 204/.test(text),
  );
  assert.match(answer, /^HTTP\/1\.1 (100 Continue\r\n\r\nHTTP\/1\.1 )?204/i);
});

test('tells in Prometheus text what it does', async () => {
  const before = (await alice.get('/metrics')).is(200);
  assert.match(before.headers['content-type'], /version=0\.0\.4/);
  const seen = new Map(); // name -> type
  const samples = new Map();
  for (const line of before.text.split('\n').filter(Boolean)) {
    const type = line.match(/^# TYPE ([a-zA-Z_:][\w:]*) (counter|gauge|histogram|summary)$/);
    if (type) {
      assert.ok(!seen.has(type[1]), `${type[1]} is declared once`);
      seen.set(type[1], type[2]);
      continue;
    }
    if (/^# HELP [a-zA-Z_:][\w:]* .+$/.test(line)) continue;
    const sample = line.match(
      /^([a-zA-Z_:][\w:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*",?)*\})? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|[+-]Inf|NaN)$/,
    );
    assert.ok(sample, `not Prometheus text: ${line}`);
    const family = sample[1].replace(/_(bucket|sum|count)$/, (suffix, _, at) =>
      seen.get(sample[1].slice(0, at)) === 'histogram' ? '' : suffix,
    );
    assert.ok(seen.has(family), `${family} has a TYPE before it`);
    const series = sample[1] + (sample[2] ?? '');
    assert.ok(!samples.has(series), `${series} stands once`);
    samples.set(series, Number(sample[3].replace('Inf', 'Infinity')));
    if (seen.get(family) === 'counter') assert.match(family, /_total$/);
  }
  const kinds = [...seen.keys()].join(' ');
  for (const what of ['sessions', 'viewers', 'journal', 'resets', 'reconnects', 'queue', 'http_request'])
    assert.ok(kinds.includes(what), `there is a metric about ${what}: ${kinds}`);
  assert.ok(samples.get('ptycast_sessions{state="open"}') >= 1);
  for (const [name, type] of seen) {
    if (type !== 'histogram') continue;
    const buckets = [...samples].filter(([series]) => series.startsWith(`${name}_bucket{`));
    const byRoute = new Map();
    for (const [series, value] of buckets) {
      const route = series.replace(/,?le="[^"]*"/, '');
      assert.ok(value >= (byRoute.get(route) ?? 0), `${series} is cumulative`);
      byRoute.set(route, value);
    }
  }
  const input = await alice.metric('ptycast_input_bytes_total');
  const output = await alice.metric('ptycast_output_bytes_total');
  (await alice.type(id, '12345678\n')).is(204);
  assert.equal(await alice.metric('ptycast_input_bytes_total'), input + 9);
  const end = Date.now() + DEADLINE_MS;
  while ((await alice.metric('ptycast_output_bytes_total')) <= output) assert.ok(Date.now() < end, 'output is counted');
  const { text } = await alice.get('/metrics');
  assert.match(text, /^ptycast_http_requests_total\{.*class="4xx".*\} [1-9]/m);
});

test('puts metrics on a listener of their own when there is one', async (t) => {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.on('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  const other = await t.start({ args: ['--metrics-listen', `127.0.0.1:${port}`] });
  (await other.client().get('/metrics')).isProblem(404, 'not-found');
  const answer = await fetch(`http://127.0.0.1:${port}/metrics`);
  assert.equal(answer.status, 200);
  assert.match(await answer.text(), /^# HELP /);
});
