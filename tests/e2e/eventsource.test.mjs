// eventsource.test.mjs -- the npm package eventsource, left to itself: it reconnects with its ticket's
// cookie and the last id, misses nothing, and stops when the session has ended.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { EventSource } from 'eventsource';
import { PatternShell, pattern } from './lib/pattern.mjs';
import { Service, keys, test } from './lib/service.mjs';
import { deferred, until, within } from './lib/wait.mjs';

let service, alice;

before(async () => {
  service = await Service.start({ args: ['--max-stream-age-s', '1', '--retry-ms', '50'] });
  alice = service.client();
});
after(() => service?.stop());

// A browser's part: cookies, kept and sent by path.
class Browser {
  requests = []; // {url, status, lastEventId, cookie}
  #cookies = new Map();

  fetch = async (url, init = {}) => {
    const { pathname } = new URL(url);
    const headers = new Headers(init.headers);
    const cookies = [...this.#cookies.values()].filter((c) => c.path === pathname).map((c) => c.pair);
    if (cookies.length) headers.set('Cookie', cookies.join('; '));
    const response = await fetch(url, { ...init, headers });
    for (const text of response.headers.getSetCookie?.() ?? [response.headers.get('set-cookie')].filter(Boolean)) {
      const [pair, ...attributes] = text.split(/; */);
      const named = Object.fromEntries(attributes.map((a) => [a.split('=')[0].toLowerCase(), a.split('=')[1] ?? true]));
      this.#cookies.set(pair.split('=')[0], { pair, path: named.path, ...named });
    }
    this.requests.push({
      url: String(url),
      status: response.status,
      lastEventId: headers.get('Last-Event-ID'),
      cookie: headers.get('Cookie'),
    });
    return response;
  };

  open(url) {
    const source = new EventSource(url, { fetch: this.fetch });
    source.closed = deferred();
    source.errors = [];
    source.addEventListener('error', (error) => {
      source.errors.push(error);
      if (source.readyState === EventSource.CLOSED) source.closed.resolve();
    });
    return source;
  }
}

test('follows a session through many rotations by one single-use ticket, and stops at its end', async () => {
  const shell = await PatternShell.create(alice, 'utf8');
  const browser = new Browser();
  const ticket = await alice.ticket(shell.id);
  const source = browser.open(`${service.url}${shell.path}/stream?ticket=${ticket}`);
  let text = '';
  const exits = [];
  const states = [];
  source.addEventListener('output', (event) => (text += JSON.parse(event.data).data));
  source.addEventListener('exit', (event) => exits.push(JSON.parse(event.data)));
  source.addEventListener('state', (event) => states.push(JSON.parse(event.data)));
  source.addEventListener('reset', (event) => assert.fail(`reset ${event.data}`));
  await until(() => states.length > 0, 'state');
  await shell.write(64_000, 32); // 2000 pieces with a pause
  await until(() => browser.requests.length >= 4, 'some reconnects', 60_000);
  await until(() => Buffer.byteLength(text) >= shell.written, 'all output', 60_000);
  await shell.exit(6);
  await within(source.closed.promise, 'the EventSource gives up');
  assert.equal(text, pattern('utf8', 0, shell.written).toString());
  assert.deepEqual(exits, [{ reason: 'exited', exit_code: 6, signal: null }]);
  const { requests } = browser;
  assert.ok(
    requests.every(({ url }) => url.includes(ticket)),
    'it repeats its URL',
  );
  assert.equal(requests[0].cookie, null);
  for (const request of requests.slice(1)) {
    assert.match(request.cookie, new RegExp(`^pt_${shell.id}=`));
    assert.match(request.lastEventId, /^[0-9a-f]{16}:\d+$/);
  }
  assert.deepEqual(
    requests.map(({ status }) => status).filter((status) => status !== 200),
    [204],
    'one request after the exit, and no more',
  );
  assert.equal(requests.at(-1).status, 204);
  assert.equal(requests.at(-1).lastEventId, shell.idAt(shell.written + 1));
});

test('follows one with a reusable ticket and without cookies', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const ticket = await alice.ticket(shell.id, { role: 'view', ttl_s: 60, reusable: true });
  const source = new EventSource(`${service.url}${shell.path}/stream?format=base64&ticket=${ticket}`);
  const pieces = [];
  let opened = 0;
  source.addEventListener('open', () => opened++);
  source.addEventListener('output', (event) => pieces.push(Buffer.from(JSON.parse(event.data).base64, 'base64')));
  await shell.write(3000, 1);
  await until(() => opened >= 2, 'a reconnect', 60_000);
  const done = deferred();
  source.addEventListener('exit', () => done.resolve());
  await shell.exit(0);
  await within(done.promise, 'exit');
  source.close();
  const bytes = Buffer.concat(pieces);
  assert.equal(bytes.length, shell.written);
  shell.assert(0, bytes);
});

test('gives up at once without a credential, and for another session', async () => {
  const one = await PatternShell.create(alice, 'lines');
  const two = await PatternShell.create(alice, 'lines');
  const ticket = await alice.ticket(one.id);
  for (const url of [
    `${one.path}/stream`,
    `${two.path}/stream?ticket=${ticket}`,
    `${one.path}/stream?ticket=${ticket}x`,
  ]) {
    const browser = new Browser();
    const source = browser.open(`${service.url}${url}`);
    await within(source.closed.promise, 'the EventSource gives up');
    assert.deepEqual(
      browser.requests.map(({ status }) => status),
      [401],
    );
  }
});

test('takes a key by a header of its own', async () => {
  const shell = await PatternShell.create(alice, 'lines', { first: 500, exit: 0 });
  const source = new EventSource(`${service.url}${shell.path}/stream`, {
    fetch: (url, init) => fetch(url, { ...init, headers: { ...init.headers, Authorization: `Bearer ${keys.viewer}` } }),
  });
  let text = '';
  source.addEventListener('output', (event) => (text += JSON.parse(event.data).data));
  await until(() => source.readyState === EventSource.CLOSED, 'end');
  assert.equal(text, pattern('lines', 0, 500).toString());
});

test('survives a restart of the service with its cookie', async (t) => {
  const other = await t.start({ args: ['--local-on-stop', 'keep', '--retry-ms', '50'] });
  const client = other.client();
  const shell = await PatternShell.create(client, 'lines');
  const browser = new Browser();
  const source = browser.open(`${other.url}${shell.path}/stream?ticket=${await client.ticket(shell.id)}`);
  let text = '';
  source.addEventListener('output', (event) => (text += JSON.parse(event.data).data));
  source.addEventListener('reset', (event) => assert.fail(`reset ${event.data}`));
  await until(() => text.length >= 64, 'output');
  await other.kill();
  await until(() => source.errors.length > 0, 'it notices');
  await other.restart({ args: ['--retry-ms', '50'] });
  shell.client = other.client();
  await shell.write(1000);
  await until(() => text.length >= shell.written, 'output after the restart', 60_000);
  assert.equal(text, pattern('lines', 0, shell.written).toString());
  await shell.exit(0);
  await within(source.closed.promise, 'the EventSource gives up');
});
