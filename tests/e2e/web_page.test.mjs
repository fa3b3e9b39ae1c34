// web_page.test.mjs -- the page around the terminal: key, address bar, roles, CSP, theme, phone.
import assert from 'node:assert/strict';
import { after } from 'node:test';
import { TerminalPage, closeBrowser } from './lib/page.mjs';
import { isSanitized, keys, test as everywhere } from './lib/service.mjs';
import { until } from './lib/wait.mjs';

after(closeBrowser);

// What the page does by itself is the same whatever the service was compiled with.
const test = (name, fn) => everywhere(name, { skip: isSanitized && 'once is enough' }, fn);

const PHONE = { viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 };

test('the key leaves the address bar at once and stays in this tab', async (t) => {
  const service = await t.start();
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}` });
  await page.page.locator('#sessions-note').getByText('None yet.').waitFor();
  assert.equal(page.page.url(), `${service.url}/`);
  assert.equal(await page.page.evaluate(() => history.length <= 2 && JSON.stringify(localStorage)), '{}');
  const id = await page.openTerminal();
  assert.equal(page.page.url(), `${service.url}/#session=${id}`);
  await page.page.reload();
  await page.state('Open');
  assert.equal(page.page.url(), `${service.url}/#session=${id}`);
});

test('a key is asked for when there is none, or it is refused', async (t) => {
  const service = await t.start();
  const page = await TerminalPage.open(t, service, { expected: [/401/] });
  await page.page.getByLabel('Key', { exact: true }).fill('wrong-key');
  await page.page.getByRole('button', { name: 'Continue' }).click();
  await page.page.locator('#key-error').getByText('not valid').waitFor();
  await page.page.getByLabel('Key', { exact: true }).fill(keys.admin);
  await page.page.keyboard.press('Enter');
  await page.page.locator('#key-dialog').waitFor({ state: 'hidden' });
  await page.openTerminal();
  await page.state('Open');
  // Keyboard alone: the terminal has the focus as soon as it is there.
  await page.page.keyboard.type('echo "$((40 + 2))."\n');
  await page.shows(/^42\.$/m);
});

test('a fragment can open a terminal by itself', async (t) => {
  const service = await t.start();
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}&open=local` });
  await page.state('Open');
  await page.page.reload(); // and not another one at each reload
  await page.state('Open');
  assert.equal((await service.client().get('/sessions')).json.sessions.length, 1);
});

test('the answer has the policy, and the page lives with it', async (t) => {
  const service = await t.start();
  const answer = (await service.client(null).get('/')).is(200);
  assert.equal(
    answer.headers['content-security-policy'],
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  );
  // The policy is in force: a script that came with the page's text would not run.
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}&transport=ws`, expected: [/CSP: script-src|Content Security Policy/] });
  await page.openTerminal();
  await page.state('Open');
  page.check();
  assert.deepEqual(page.errors, []); // all that a page does is allowed
  await page.page.evaluate(() => {
    const script = document.createElement('script');
    script.textContent = 'window.injected = true';
    document.body.append(script);
  });
  await until(() => page.errors.length > 0, 'the violation is reported');
  assert.equal(await page.page.evaluate(() => window.injected), undefined);
});

for (const role of ['view', null]) {
  test(`a view ticket shows one session and types nothing (${role ? 'said so' : 'found out'})`, async (t) => {
    const service = await t.start();
    const client = service.client();
    const { id } = await client.createOpen({ sandbox: 'local', cols: 70, rows: 20, command: ['/bin/sh', '-c', 'stty -echo; echo ready; exec cat -v'] });
    const ticket = await client.ticket(id, { role: 'view', reusable: true });
    const page = await TerminalPage.open(t, service, {
      fragment: `session=${id}&ticket=${ticket}${role ? '&role=view' : ''}`,
      expected: [/403/],
    });
    await page.shows(/^ready$/m);
    await page.page.locator('#read-only').waitFor();
    assert.doesNotMatch(page.page.url(), new RegExp(ticket));
    await page.type('sneaky\n');
    (await client.type(id, 'honest\n')).is(204);
    assert.doesNotMatch(await page.shows(/honest/), /sneaky/);
    assert.equal(await page.page.locator('#sidebar').isVisible(), false);
    assert.equal(await page.page.locator('#close').isVisible(), false);
    const session = (await client.get(`/sessions/${id}`)).json;
    assert.deepEqual([session.cols, session.rows], [70, 20]);
    await page.page.reload();
    await page.shows(/honest/);
  });
}

test('a key that may only look shows a session, and opens and shares none', async (t) => {
  const service = await t.start();
  const { id } = await service.client().createOpen({ sandbox: 'local', command: ['sh', '-c', 'echo ready; exec cat'] });
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.viewer}&session=${id}`, expected: [/403/] });
  await page.shows(/^ready$/m);
  await page.page.locator('#read-only').waitFor();
  await page.page.locator('#open').click();
  await page.page.locator('#notice').getByText('may not open sessions').waitFor();
});

test('a read-only link can be copied, and opens the session', async (t) => {
  const service = await t.start();
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}` });
  await page.page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  await page.openTerminal('echo ready; exec cat');
  await page.shows(/^ready$/m);
  await page.page.locator('#share').click();
  await page.page.locator('#notice').getByText('read-only link').waitFor();
  const link = await page.page.evaluate(() => navigator.clipboard.readText());
  const guest = await TerminalPage.open(t, service, { fragment: new URL(link).hash.slice(1) });
  await guest.shows(/^ready$/m);
  await guest.page.locator('#read-only').waitFor();
});

test('light and dark: as the system has it, or as chosen', async (t) => {
  const service = await t.start();
  const background = (page) => page.page.evaluate(() => getComputedStyle(document.querySelector('.main')).backgroundColor);
  const terminal = (page) => page.page.evaluate(() => getComputedStyle(document.querySelector('.xterm-scrollable-element')).backgroundColor);
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}&open=local`, context: { colorScheme: 'dark' } });
  await page.state('Open');
  const dark = 'rgb(16, 20, 24)';
  const light = 'rgb(255, 255, 255)';
  assert.deepEqual([await background(page), await terminal(page)], [dark, dark]);
  await page.page.emulateMedia({ colorScheme: 'light' });
  await until(async () => (await background(page)) === light && (await terminal(page)) === light, 'light with the system');
  await page.page.locator('#theme').click();
  await until(async () => (await background(page)) === dark && (await terminal(page)) === dark, 'dark by choice');
  await page.page.reload();
  await page.state('Open');
  assert.deepEqual([await background(page), await terminal(page)], [dark, dark]);
});

test('a phone: all fits, the key row types, the sessions slide in', async (t) => {
  const service = await t.start();
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}`, context: PHONE });
  await page.page.locator('#welcome-open').tap();
  await page.state('Open');
  const wide = await page.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.equal(wide, 0, 'nothing sticks out');
  await page.type('cat -v\n');
  const key = (name) => page.page.getByRole('toolbar', { name: 'Keys' }).getByRole('button', { name, exact: true });
  await key('Esc').tap();
  await key('Up').tap();
  await key('Tab').tap();
  await page.type('x\n');
  await page.shows(/\^\[\^\[\[A\s+x/);
  await key('Ctrl').tap();
  assert.equal(await key('Ctrl').getAttribute('aria-pressed'), 'true');
  await page.type('c');
  await page.shows(/\^C/);
  assert.equal(await key('Ctrl').getAttribute('aria-pressed'), 'false');
  await page.type('echo "$((5 + 5))."\n');
  await page.shows(/^10\.$/m);

  assert.equal(await page.page.locator('#open').isVisible(), false);
  await page.page.getByRole('button', { name: 'Sessions' }).tap();
  await page.page.locator('#open').waitFor();
  await page.page.locator('#shade').tap({ position: { x: 370, y: 400 } });
  await page.page.locator('#open').waitFor({ state: 'hidden' });

  // The keyboard comes up: the page is as high as what is left.
  const rows = async () => Number((await page.page.locator('#size').textContent()).split(' × ')[1]);
  const before = await rows();
  await page.page.setViewportSize({ width: 390, height: 420 });
  await until(async () => (await rows()) < before - 10, 'the session has fewer rows');
  const bottom = await page.page.locator('#keys').evaluate((keys) => keys.getBoundingClientRect().bottom);
  assert.ok(bottom <= 420, `the key row ends at ${bottom}`);
});

test('copies with Ctrl+Shift+C', async (t) => {
  const service = await t.start();
  const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}` });
  await page.page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  await page.openTerminal('echo copythisword; exec cat');
  await page.shows(/copythisword/);
  const { x, y, height } = await page.page.locator('.xterm-rows > div', { hasText: 'copythisword' }).boundingBox();
  await page.page.mouse.dblclick(x + 30, y + height / 2);
  await page.press('Control+Shift+C');
  await until(async () => (await page.page.evaluate(() => navigator.clipboard.readText())) === 'copythisword', 'the word is in the clipboard');
  await page.press('Control+Shift+V');
  await page.shows(/copythisword\s+copythisword/);
});

// PTYCAST_SCREENSHOT=docs/terminal.png makes the README's picture anew.
everywhere('the picture of the page', { skip: !process.env.PTYCAST_SCREENSHOT && 'PTYCAST_SCREENSHOT is not set' }, async (t) => {
  const service = await t.start();
  const client = service.client();
  const page = await TerminalPage.open(t, service, {
    fragment: `key=${keys.admin}`,
    context: { viewport: { width: 1120, height: 600 }, colorScheme: 'dark', deviceScaleFactor: 1.5 },
  });
  await client.createOpen({ sandbox: 'local', id: 'nightly-build', cols: 120, rows: 40, command: ['sleep', '600'] });
  await client.createOpen({ sandbox: 'local', id: 'unit-tests', cols: 80, rows: 24, command: ['true'] });
  await client.createOpen({ sandbox: 'local', id: 'demo', cols: 80, rows: 24, cwd: process.cwd(), command: ['bash', '--norc'], env: { PS1: '\\[\\e[32m\\]demo\\[\\e[0m\\]:\\[\\e[34m\\]ptycast\\[\\e[0m\\]\\$ ' } });
  await page.page.reload();
  await page.page.locator('#sessions .attach', { hasText: 'demo' }).click();
  await page.state('Open');
  const width = Number((await until(async () => (await page.page.locator('#size').textContent()) !== '80 × 24' && page.page.locator('#size').textContent(), 'the size')).split(' ')[0]);
  assert.ok(width > 80);
  await page.type('clear; ls --color=auto\n');
  await page.shows(/Makefile/);
  await page.type('wc -l web/*.js | sort -n | tail -4\n');
  await page.shows(/total/);
  await page.type("printf '\\e[1;32m%s\\e[0m %s\\n' ok 'the same session, from any browser'\n");
  await page.shows(/^ok the same/m);
  await page.type('# résumé, € and 😀 too');
  await page.shows(/too$/m);
  await page.page.locator('#sessions').getByText('Exited').waitFor();
  await page.page.screenshot({ path: process.env.PTYCAST_SCREENSHOT });
});
