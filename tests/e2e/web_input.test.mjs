// web_input.test.mjs -- what is typed arrives in order, whole, and once; what the terminal answers by
// itself arrives only where somebody asked just now.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after } from 'node:test';
import { TerminalPage, closeBrowser } from './lib/page.mjs';
import { keys, test } from './lib/service.mjs';
import { until } from './lib/wait.mjs';

after(closeBrowser);

const TRANSPORTS = ['stream', 'ws'];
const open = (t, service, transport, more = {}) =>
  TerminalPage.open(t, service, { fragment: `key=${keys.admin}&transport=${transport}`, ...more });

for (const transport of TRANSPORTS) {
  test(`a paste of 200 KB arrives whole (${transport})`, async (t) => {
    const service = await t.start();
    const page = await open(t, service, transport);
    const file = `${service.dir}/pasted`;
    await page.openTerminal(`stty -echo; echo ready; cat >${file}; echo done`);
    await page.shows(/^ready$/m);
    const text = Array.from({ length: 4000 }, (_, i) => `${String(i).padStart(6, '0')} é😀 ${'x'.repeat(36)}`).join('\n') + '\n';
    assert.ok(Buffer.byteLength(text) > 200_000);
    await page.paste(text);
    await page.press('Control+d');
    await page.shows(/^done$/m);
    assert.ok(readFileSync(file, 'utf8') === text, 'the file is what was pasted');
  });

  test(`a paste is bracketed where the program asked for it (${transport})`, async (t) => {
    const service = await t.start();
    const page = await open(t, service, transport);
    await page.openTerminal('stty raw -echo; printf "\\033[?2004hready\\r\\n"; exec cat -v');
    await page.shows(/ready/);
    await page.paste('one\ntwo');
    await page.shows(/\^\[\[200~one\^Mtwo\^\[\[201~/);
  });

  test(`keystrokes keep their order over lost answers, and none comes twice (${transport})`, async (t) => {
    const service = await t.start();
    let lost = 0;
    const page = await open(t, service, transport, {
      expected: [/ERR_FAILED|Failed to load resource/],
      before: (p) =>
        p.route('**/input', async (route) => {
          // Each third request reaches the service, and its answer is lost on the way.
          if (lost++ % 3 !== 2) return route.continue();
          await route.fetch();
          return route.abort();
        }),
    });
    await page.openTerminal('stty -echo; echo ready; while read -r line; do echo "<$line>"; done');
    await page.shows(/^ready$/m);
    const words = Array.from({ length: 30 }, (_, i) => `word${i}`);
    for (const word of words) await page.type(`${word}\n`);
    await page.shows(/^<word29>$/m);
    assert.deepEqual(await page.lines(/^<.*>$/), words.map((word) => `<${word}>`));
    if (transport === 'stream') assert.ok(lost > 6, `${lost} requests`);
  });
}

// What xterm.js answers: DA1, DA2, DSR, cursor position, mode, status string, colours, focus.
const QUERIES = '\\033[c\\033[>c\\033[5n\\033[6n\\033[?6n\\033[4$p\\033[?1$p\\033P$qm\\033\\\\' +
  '\\033]4;1;?\\007\\033]10;?\\007\\033]11;?\\007\\033]12;?\\007\\033[?1004h';
const ANSWERS = [
  '^[[?1;2c', '^[[>0;276;0c', '^[[0n', '^[[4;2$y', '^[[?1;2$y', '^[P1$r0m^[\\', '^[]4;1;', '^[]10;', '^[]11;', '^[]12;', '^[[I',
];

for (const transport of TRANSPORTS) {
  test(`queries that were there before the page came are not answered (${transport})`, async (t) => {
    const service = await t.start();
    const client = service.client();
    const { id } = await client.createOpen({
      sandbox: 'local', cols: 80, rows: 24,
      command: ['/bin/sh', '-c', `stty raw -echo; printf '${QUERIES}ready\\r\\n'; exec cat -v`],
    });
    await until(async () => (await client.get(`/sessions/${id}`)).json.offset > 80, 'the queries are out');
    const page = await TerminalPage.open(t, service, { fragment: `key=${keys.admin}&session=${id}&transport=${transport}` });
    await page.shows(/ready/);
    // Typed while the replay may still be under way, and after it: all of that arrives, and no more.
    await page.page.locator('.xterm-helper-textarea').focus();
    await page.page.keyboard.insertText('typed');
    const shown = await page.shows(/typed/);
    assert.equal(shown.replace(/\s/g, '').replaceAll(/\^\[\[[IO]/g, ''), 'readytyped');
  });

  test(`a query that comes while the page looks on is answered (${transport})`, async (t) => {
    const service = await t.start();
    const page = await open(t, service, transport);
    await page.openTerminal(`stty raw -echo; printf 'ready\\r\\n'; dd bs=1 count=1 2>/dev/null; printf '${QUERIES}'; exec cat -v`);
    await page.shows(/ready/);
    await page.type('!');
    await page.shows(/\^\[\[I/);
    const text = (await page.text()).replaceAll('\n', '');
    for (const answer of ANSWERS) assert.ok(text.includes(answer), `${answer} in ${text}`);
  });
}

test('what a program asks at its very start is answered by the page that opened it', async (t) => {
  const service = await t.start();
  const page = await open(t, service, 'stream');
  await page.openTerminal("stty raw -echo; printf '\\033[c'; exec cat -v");
  await page.shows(/\^\[\[\?1;2c/);
});

test('text that fills the queue waits, and says so', async (t) => {
  const service = await t.start();
  let refusals = 3;
  const page = await open(t, service, 'stream', {
    expected: [/429/],
    before: (p) =>
      p.route('**/input', (route) =>
        refusals-- > 0
          ? route.fulfill({
              status: 429,
              headers: { 'Content-Type': 'application/problem+json', 'Retry-After': '1' },
              body: JSON.stringify({ type: '/problems/input-full', title: 'Too Many Requests', status: 429, detail: 'full' }),
            })
          : route.continue()),
  });
  await page.openTerminal('stty -echo; echo ready; read -r line; echo "<$line>"; exec cat');
  await page.shows(/^ready$/m);
  await page.type('late but whole\n');
  await page.page.locator('#notice').getByText('The program does not read its input').waitFor();
  await page.shows(/^<late but whole>$/m);
  await page.page.locator('#notice').waitFor({ state: 'hidden' });
});
