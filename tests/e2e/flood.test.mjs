// flood.test.mjs -- more output than anybody wants: nothing is lost to a viewer that keeps up, a viewer
// that stops costs nothing and is told once, and the end is never cut off.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { program, scaled } from './lib/flavour.mjs';
import { PatternShell, assertPattern } from './lib/pattern.mjs';
import { Service, isSanitized, test } from './lib/service.mjs';
import { DEADLINE_MS, until } from './lib/wait.mjs';

const MB = 1 << 20;
const LONG_MS = DEADLINE_MS * 4;
let service, alice;

before(async () => {
  service = await Service.start();
  alice = service.client();
});
after(() => service?.stop());

// A viewer that checks all it gets against the pattern and keeps nothing.
const checking = (shell, more = {}) =>
  shell.view({
    checkEvery: 500,
    discard: (event) => assertPattern(shell.mode, event.from, event.bytes),
    ...more,
  });

test('passes 100 MB of one line, and replays no more than is held', { timeout: LONG_MS * 2 }, async () => {
  const size = scaled(100 * MB);
  const shell = await PatternShell.create(alice, 'line');
  const viewer = await checking(shell);
  await shell.write(size);
  await viewer.when(() => viewer.position?.offset >= shell.written, 'all of the line', LONG_MS);
  assert.equal(viewer.outputBytes, shell.written);
  const late = await checking(shell);
  await late.when(() => late.position?.offset >= shell.written, 'replay');
  assert.ok(
    late.outputBytes >= Math.min(4 * MB, shell.written) && late.outputBytes <= 4 * MB + 512 * 1024,
    `${late.outputBytes}`,
  );
  const text = await shell.view({ format: 'text', checkEvery: 500, discard: () => {} });
  await text.when(() => text.position?.offset >= shell.written, 'replay as text');
  for (const stream of [viewer, late, text]) stream.close();
  await alice.delete(shell.path);
});

test(
  'lets a viewer stop reading while 200 MB pass: flat in memory, others keep pace, one reset',
  { timeout: LONG_MS * 3 },
  async () => {
    const size = scaled(200 * MB);
    const shell = await PatternShell.create(alice, 'lines');
    const stopped = await Promise.all([checking(shell), checking(shell), checking(shell, { format: 'text' })]);
    await Promise.all(stopped.map((viewer) => viewer.first('output')));
    stopped.forEach((viewer) => viewer.pause());
    const fast = await checking(shell);
    await fast.first('output');

    // Not so fast that they fall off before the kernel's buffers are full.
    for (let i = 0; i < 40; i++) {
      await shell.write(256 << 10);
      await fast.when(() => fast.position.offset >= shell.written, 'the first megabytes');
    }
    const before = service.rss();
    let most = 0;
    await shell.write(size - (10 << 20));
    await fast.when(
      () => {
        most = Math.max(most, service.rss());
        return fast.position.offset >= shell.written;
      },
      'the rest',
      LONG_MS,
    );
    assert.equal(fast.outputBytes, shell.written, 'the fast viewer has every byte');
    if (!isSanitized) assert.ok(most - before < 8 * MB, `resident memory grew from ${before} to ${most}`);

    for (const viewer of stopped) {
      viewer.resume();
      const resets = (await viewer.until((e) => e.offset >= shell.written, 'the head', LONG_MS)).filter(
        (e) => e.event === 'reset',
      );
      // One; another one where the kernel took some more while it was stopped.
      assert.ok(resets.length === 1 || resets.length === 2, `${resets.map((e) => e.id)}`);
      for (const reset of resets) {
        assert.equal(reset.data.reason, 'gap');
        assert.equal(reset.offset % 64, 0, 'a line starts there');
      }
      assert.ok(shell.written - resets.at(-1).offset <= 65536);
    }
    await shell.write(1000);
    await shell.exit(0);
    for (const viewer of [fast, ...stopped]) {
      const { names } = await viewer.rest();
      assert.ok(!names.includes('reset'), 'no more of them');
      assert.equal(names.at(-1), 'exit');
      assert.equal(viewer.position.offset, shell.written + 1);
    }
  },
);

test('runs on when nobody watches, and when nobody who watches reads', { timeout: LONG_MS }, async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const viewer = await checking(shell);
  await viewer.first('output');
  viewer.pause();
  await shell.write(scaled(24 * MB));
  await shell.exit(3);
  const lonely = await PatternShell.create(alice, 'lines');
  await lonely.write(scaled(24 * MB));
  await lonely.exit(4);
  assert.equal((await until(async () => (await shell.info()).ended, 'end', LONG_MS)).exit_code, 3);
  assert.equal((await until(async () => (await lonely.info()).ended, 'end', LONG_MS)).exit_code, 4);
  assert.equal((await shell.info()).offset, shell.written);
  viewer.resume();
  const { names } = await viewer.rest(LONG_MS);
  assert.equal(names.at(-1), 'exit');
  assert.equal(viewer.position.offset, shell.written + 1);
});

test('gives exit behind the last byte, with 1 MiB still in the pipe', { timeout: LONG_MS }, async () => {
  for (let round = 0; round < scaled(16); round++) {
    const size = round % 2 ? MB : 409_000 + round;
    const shell = await PatternShell.create(alice, 'lines', { first: size, exit: 7 });
    const { bytes, events } = await (await shell.view()).rest();
    assert.equal(bytes.length, size, `round ${round}`);
    shell.assert(0, bytes);
    assert.deepEqual(events.at(-1).data, { reason: 'exited', exit_code: 7, signal: null });
    assert.equal(events.at(-1).offset, size + 1);
  }
  const { id } = await alice.createOpen({
    sandbox: 'local',
    command: ['sh', '-c', `stty raw -echo; ${program('tests/tools/pattern')} line ${MB} exit 0 | cat; exit 9`],
  });
  const shell = new PatternShell(alice, 'line', { id });
  const { bytes, events } = await (await shell.view()).rest();
  assert.equal(bytes.length, MB);
  shell.assert(0, bytes);
  assert.equal(events.at(-1).data.exit_code, 9);
});

test('floods many viewers, each of which gets every byte', { timeout: LONG_MS }, async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const viewers = await Promise.all(Array.from({ length: scaled(40) }, () => checking(shell)));
  await shell.write(3 * MB); // less than is held: nobody can fall off
  await shell.exit(0);
  for (const viewer of viewers) {
    const { names } = await viewer.rest(LONG_MS);
    assert.ok(!names.includes('reset'));
    assert.equal(viewer.outputBytes, shell.written);
    assert.equal(names.at(-1), 'exit');
  }
});

test('keeps one session quick while another floods', { timeout: LONG_MS }, async () => {
  const flood = await PatternShell.create(alice, 'lines');
  const watcher = await checking(flood);
  const quiet = await PatternShell.create(alice, 'lines');
  const viewer = await quiet.view();
  await viewer.first('output');
  await flood.write(scaled(64 * MB));
  let rounds = 0;
  while (watcher.position === null || watcher.position.offset < flood.written) {
    await quiet.write(10);
    await viewer.to(quiet.written);
    rounds++;
    if (watcher.isEnded) break;
  }
  assert.equal(watcher.error ?? null, null);
  assert.ok(rounds >= 3, `${rounds} rounds of the quiet session during the flood`);
  watcher.close();
  viewer.close();
});

test('gives all journals together their bound', { timeout: LONG_MS }, async (t) => {
  const small = await t.start({ args: ['--journals-total-bytes', '8M'] });
  const client = small.client();
  const shells = await Promise.all(Array.from({ length: 6 }, () => PatternShell.create(client, 'lines')));
  for (const shell of shells) {
    const viewer = await checking(shell);
    await shell.write(5 * MB);
    await viewer.when(() => viewer.position?.offset >= shell.written, 'output');
    viewer.close();
  }
  const held = await client.metric('ptycast_journal_bytes');
  assert.ok(held <= 10 * MB, `${held} bytes are held`);
  // Each still serves what it holds.
  for (const shell of shells) {
    const viewer = await checking(shell);
    await shell.write(100);
    await viewer.when(() => viewer.position?.offset >= shell.written, 'output');
    viewer.close();
  }
});
