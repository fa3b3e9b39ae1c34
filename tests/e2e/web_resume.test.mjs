// web_resume.test.mjs -- the service dies, comes back, or lets go: no line is lost or shown twice.
import assert from 'node:assert/strict';
import { after } from 'node:test';
import { TerminalPage, closeBrowser } from './lib/page.mjs';
import { keys, test } from './lib/service.mjs';
import { until } from './lib/wait.mjs';

after(closeBrowser);

const LINES = 6000;
const COUNT = `i=0; while [ $i -lt ${LINES / 20} ]; do seq -f 'line %g' $((i * 20 + 1)) $((i * 20 + 20)); i=$((i + 1)); sleep 0.01; done`;
const whole = Array.from({ length: LINES }, (_, i) => `line ${i + 1}`);

for (const transport of ['stream', 'ws']) {
  test(`the service is killed and started again while output flows (${transport})`, async (t) => {
    const service = await t.start();
    const page = await TerminalPage.open(t, service, {
      fragment: `key=${keys.admin}&transport=${transport}`,
      expected: [/ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY|ERR_SOCKET|WebSocket|Failed to load/],
    });
    await page.openTerminal(`echo ready; read -r go; ${COUNT}; read -r line; echo "<$line>"; exec cat`);
    await page.shows(/^ready$/m);
    await page.type('go\n');
    for (const before of [500, 2000]) {
      await page.shows(new RegExp(`^line ${before}$`, 'm'));
      await service.kill();
      await page.state('Reconnecting…');
      await service.restart();
      await page.state('Open');
    }
    await page.shows(new RegExp(`^line ${LINES}$`, 'm'));
    assert.deepEqual(await page.lines(/^line/), whole);
    // Typing goes on as well.
    await page.type('still here\n');
    await page.shows(/^<still here>$/m);
  });

  test(`what is typed while the service is away arrives when it is back (${transport})`, async (t) => {
    const service = await t.start();
    const page = await TerminalPage.open(t, service, {
      fragment: `key=${keys.admin}&transport=${transport}`,
      expected: [/ERR_|WebSocket|Failed to load/],
    });
    await page.openTerminal('stty -echo; echo ready; while read -r line; do echo "<$line>"; done');
    await page.shows(/^ready$/m);
    await page.type('one\n');
    await page.shows(/^<one>$/m);
    await service.kill();
    await page.state('Reconnecting…');
    await page.type('two\nthree\n');
    await service.restart();
    await page.shows(/^<three>$/m);
    assert.deepEqual(await page.lines(/^<.*>$/), ['<one>', '<two>', '<three>']);
  });
}

test('the transport is changed while output flows', async (t) => {
  const service = await t.start();
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}` });
  await page.openTerminal(`echo ready; read -r go; ${COUNT}`);
  await page.shows(/^ready$/m);
  await page.type('go\n');
  for (const [at, transport] of [[400, 'ws'], [1200, 'stream'], [2400, 'ws'], [3600, 'stream']]) {
    await page.shows(new RegExp(`^line ${at}$`, 'm'));
    await page.page.locator('#transport').selectOption(transport);
  }
  await page.shows(new RegExp(`^line ${LINES}$`, 'm'));
  assert.deepEqual(await page.lines(/^line/), whole);
});

// Lets a test refuse the page's streams, as a load balancer without a backend does: an EventSource
// gives up for good.
function streamGate() {
  const gate = {
    refusing: false,
    since: [], // what each request asked for
    before: (page) =>
      page.route('**/stream?**', (route) => {
        gate.since.push(new URL(route.request().url()).searchParams.get('since'));
        return gate.refusing ? route.fulfill({ status: 502, body: 'Bad Gateway' }) : route.continue();
      }),
  };
  return gate;
}

const outage = [/ERR_|502|Failed to load/];

test('an EventSource that gave up is opened anew where it stopped', async (t) => {
  const service = await t.start();
  const gate = streamGate();
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}`, expected: outage, before: gate.before });
  await page.openTerminal(`echo ready; read -r go; ${COUNT}`);
  await page.shows(/^ready$/m);
  await page.type('go\n');
  await page.shows(/^line 500$/m);
  gate.refusing = true;
  await service.kill();
  await service.restart();
  await until(() => gate.since.length >= 3, 'two refusals');
  gate.refusing = false;
  await page.shows(new RegExp(`^line ${LINES}$`, 'm'));
  assert.deepEqual(await page.lines(/^line/), whole);
  assert.match(gate.since.at(-1), /^[0-9a-f]{16}:\d+$/);
});

test('a page that missed more than is kept is told so, and shows what there is', async (t) => {
  const service = await t.start({ args: ['--journal-bytes', '65536'] });
  const client = service.client();
  const { id } = await client.createOpen({
    sandbox: 'local', cols: 80, rows: 24,
    command: ['/bin/sh', '-c', 'echo before; read -r go; seq -f "line %g" 1 50000; echo over; exec cat'],
  });
  const gate = streamGate();
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}&session=${id}`, expected: outage, before: gate.before });
  await page.shows(/^before$/m);
  gate.refusing = true;
  await service.kill();
  await service.restart();
  await page.state('Reconnecting…');
  (await client.type(id, 'go\n')).is(204);
  await until(async () => (await client.get(`/sessions/${id}`)).json.offset > 550_000, 'the flood is over');
  gate.refusing = false;
  const text = await page.shows(/^over$/m);
  assert.doesNotMatch(text, /^before$/m);
  const lines = text.split('\n').filter((line) => line.startsWith('line '));
  assert.ok(lines.length > 100 && lines.length < 10_000, `${lines.length} lines`);
  assert.deepEqual(lines, Array.from({ length: lines.length }, (_, i) => `line ${50_000 - lines.length + 1 + i}`));
  await page.page.locator('#notice').getByText('Some output was skipped').waitFor();
});

// A stream of a replica that cannot ask the shared store: no size, and it ends. The browser comes again by itself.
const NOT_NOW = 'retry: 50\n\nevent: state\n' +
  'data: {"state":"reconnecting","reason":"the store cannot be asked for it now","epoch":null,"offset":null}\n\n';

function notNowGate() {
  const gate = {
    refusing: true,
    refusals: 0,
    before: (page) =>
      page.route('**/stream?**', (route) => {
        if (!gate.refusing) return route.continue();
        gate.refusals++;
        return route.fulfill({ status: 200, contentType: 'text/event-stream', body: NOT_NOW });
      }),
  };
  return gate;
}

test('a session that cannot be asked for now is shown as soon as it can', async (t) => {
  const service = await t.start();
  const gate = notNowGate();
  // What is there already asks the terminal something. Nobody waits for that answer any more.
  const command = ['/bin/sh', '-c', 'stty -echo; printf "before\\033[c\\n"; read -r line; echo "<$line>"; exec cat'];
  const { id } = await service.client().createOpen({ sandbox: 'local', command });
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}&session=${id}`, before: gate.before });
  await until(() => gate.refusals >= 3, 'three refusals');
  await page.state('Reconnecting');
  gate.refusing = false;
  await page.shows(/^before$/m);
  await page.state('Open');
  await page.type('typed\n');
  await page.shows(/^<typed>$/m);
});

test('a page whose new session cannot be asked for now is the one that answers it', async (t) => {
  const service = await t.start();
  const gate = notNowGate();
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}`, before: gate.before });
  await page.openTerminal(`exec bash -c 'stty -echo; printf "\\033[c"; IFS= read -r -d c answer; echo "answered \${answer:1}"; exec cat'`);
  await until(() => gate.refusals >= 3, 'three refusals');
  gate.refusing = false;
  await page.shows(/^answered \[\?[0-9;]+$/m);
});
