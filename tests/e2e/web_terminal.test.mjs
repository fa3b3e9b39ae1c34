// web_terminal.test.mjs -- the page as a terminal: open, type, see, resize, end; over both transports.
import assert from 'node:assert/strict';
import { after } from 'node:test';
import { TerminalPage, closeBrowser } from './lib/page.mjs';
import { keys, test } from './lib/service.mjs';
import { until } from './lib/wait.mjs';

after(closeBrowser);

const TRANSPORTS = ['stream', 'ws'];

for (const transport of TRANSPORTS) {
  test(`opens a session, types a command and shows its output (${transport})`, async (t) => {
    const service = await t.start();
    const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}&transport=${transport}` });
    const id = await page.openTerminal();
    await page.state('Open');
    await page.type('echo "sum: $((6 * 7))"; pwd\n');
    await page.shows(/^sum: 42$/m);

    const session = (await service.client().get(`/sessions/${id}`)).is(200).json;
    assert.equal(session.state, 'open');
    await page.page.locator('#size').getByText(`${session.cols} × ${session.rows}`).waitFor();
    assert.match(await page.page.title(), /Open · ptycast$/);
    await page.page.locator('#sessions [aria-current="true"]', { hasText: id }).waitFor();
  });

  test(`shows characters of many bytes, and types them (${transport})`, async (t) => {
    const service = await t.start();
    const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}&transport=${transport}` });
    await page.openTerminal('export LC_ALL=C.UTF-8; stty -echo; while read -r l; do echo "<$l>"; done');
    await page.state('Open');
    await page.paste('é € 😀 漢字 naïve 👩‍💻 ключ\n');
    await page.shows(/^<é € 😀 漢字 naïve 👩‍💻 ключ>$/m);
  });

  test(`tells how the program ended, and asks for nothing more (${transport})`, async (t) => {
    const service = await t.start();
    const streams = [];
    const page = await TerminalPage.open(t, service, {
      fragment: `key=${keys.admin}&transport=${transport}`,
      before: (p) => p.on('response', (response) => {
        if (/\/stream\?/.test(response.url())) streams.push(response.status());
      }),
    });
    await page.openTerminal('echo last words; read -r code; exit "$code"');
    await page.shows(/last words/);
    await page.type('7\n');
    await page.state('Exited with code 7');
    await page.page.locator('#notice').getByText('Exited with code 7').waitFor();
    assert.match(await page.page.title(), /Exited with code 7/);
    assert.equal(await page.page.locator('#close').isVisible(), false);
    if (transport === 'stream') {
      // The browser's EventSource asks once more by itself, is told that there is nothing, and stops.
      await until(() => streams.includes(204), 'the 204 that ends an EventSource');
      assert.deepEqual(streams, [200, 204]);
    }

    // Who comes later sees the same.
    const late = await TerminalPage.open(t, service, { fragment: new URL(page.page.url()).hash.slice(1) + `&key=${keys.admin}` });
    await late.state('Exited with code 7');
    await late.shows(/last words/);
    await page.page.locator('#notice-action').click();
    await page.state('Open');
  });
}

test('tells a signal and a close, and forgets an ended session', async (t) => {
  const service = await t.start();
  const client = service.client();
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}` });
  await page.openTerminal('echo ready; kill -TERM $$; sleep 60');
  await page.state('Ended by SIGTERM');

  const id = await page.openTerminal('echo ready; exec sleep 60');
  await page.state('Open');
  page.page.once('dialog', (dialog) => dialog.accept());
  await page.page.locator('#close').click();
  await page.state('Closed');
  assert.equal((await client.get(`/sessions/${id}`)).is(200).json.ended.reason, 'closed');

  await page.page.getByRole('button', { name: `Forget session ${id}` }).click();
  await until(async () => (await client.get(`/sessions/${id}`)).status === 404, 'the session is forgotten');
  await page.page.locator('#welcome-open').waitFor();
});

test('keeps the session through a reload, and moves between sessions', async (t) => {
  const service = await t.start();
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}` });
  const first = await page.openTerminal();
  await page.type('echo "first $((1 + 1))"\n');
  await page.shows(/^first 2$/m);
  await page.page.reload();
  await page.shows(/^first 2$/m);
  const second = await page.openTerminal();
  assert.notEqual(second, first);
  await page.type('echo "second $((2 + 2))"\n');
  assert.doesNotMatch(await page.shows(/^second 4$/m), /first/);
  await page.page.locator('#sessions .attach', { hasText: first }).click();
  assert.doesNotMatch(await page.shows(/^first 2$/m), /second/);
  await page.type('echo "again $((3 + 3))"\n');
  await page.shows(/^again 6$/m);
});

test('gives the session the size of its window, and shows every viewer the size it has', async (t) => {
  const service = await t.start();
  const client = service.client();
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}` });
  const id = await page.openTerminal();
  await page.state('Open');
  const size = async () => {
    const { cols, rows } = (await client.get(`/sessions/${id}`)).is(200).json;
    return { cols, rows };
  };
  const before = await size();
  const ticket = await client.ticket(id, { role: 'view', reusable: true });
  const viewer = await TerminalPage.open(t, service, {
    fragment: `session=${id}&ticket=${ticket}&role=view`,
    context: { viewport: { width: 390, height: 700 } },
  });
  await viewer.page.locator('#read-only').waitFor();
  await viewer.shows(/./);
  assert.deepEqual(await size(), before, 'a viewer does not resize');

  await page.page.setViewportSize({ width: 800, height: 500 });
  const after = await until(async () => {
    const now = await size();
    return now.cols < before.cols && now.rows < before.rows && now;
  }, 'the session is smaller');
  await page.type('echo "$(stty size)."\n');
  await page.shows(new RegExp(`^${after.rows} ${after.cols}\\.$`, 'm'));
  for (const one of [page, viewer])
    await until(
      async () => (await one.page.locator('#size').textContent()) === `${after.cols} × ${after.rows}`,
      'the size is shown',
    );
  // The whole width is there on the narrow page: the font is smaller.
  const overflow = await viewer.page.locator('.xterm-screen').evaluate(
    (screen) => screen.getBoundingClientRect().right - document.querySelector('#screen').getBoundingClientRect().right);
  assert.ok(overflow <= 0, `${overflow} px do not fit`);
});

test('takes the title from the program, and opens links', async (t) => {
  const service = await t.start();
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}` });
  await page.openTerminal('printf "\\033]0;my title\\007see https://example.invalid/x?y=1 there\\n"; exec cat');
  await page.shows(/see https/);
  await page.page.locator('#title').getByText('my title').waitFor();
  assert.match(await page.page.title(), /^my title · Open/);
  await page.page.evaluate(() => {
    window.open = (...args) => void (window.opened = args);
  });
  const row = page.page.locator('.xterm-rows > div', { hasText: 'see https' });
  const { x, y, height } = await row.boundingBox();
  // The link is marked when the pointer rests on it; cells are about 8.4 px wide.
  await until(async () => {
    await page.page.mouse.move(x + 100, y + height / 2);
    await page.page.mouse.move(x + 104, y + height / 2);
    await page.page.mouse.click(x + 104, y + height / 2);
    return page.page.evaluate(() => window.opened);
  }, 'the link is opened');
  assert.deepEqual(await page.page.evaluate(() => window.opened.slice(0, 2)), ['https://example.invalid/x?y=1', '_blank']);
});
