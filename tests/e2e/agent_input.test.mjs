// agent_input.test.mjs -- what is typed through the agent arrives whole, in order and once, or is refused
// whole.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Agent, Tunnel, VERDICT, randomClient, randomId } from './lib/agent_v2.mjs';
import { program } from './lib/flavour.mjs';
import { until } from './lib/wait.mjs';

const typed = program('tests/tools/typed');
const MiB = 1 << 20;
const { SIGINT, SIGUSR1 } = constants.signals;
let agent, base;

before(async () => {
  base = mkdtempSync(join(tmpdir(), 'ptycast-agent-'));
  agent = await Agent.start();
});
after(async () => {
  await agent?.stop();
  rmSync(base, { recursive: true, force: true });
});

/** A shell that keeps what is typed in its file. */
async function reader(how, bytes) {
  const file = join(base, randomId());
  const t = await Tunnel.open(agent, { command: [typed, how, file, ...(bytes === undefined ? [] : [String(bytes)])] });
  await t.sees('ready');
  return Object.assign(t, { file, typed: () => readFileSync(file) });
}

/** Data without any byte that a terminal in line mode would act on. */
const letters = (size) => Buffer.from(randomBytes(size).map((b) => 97 + (b % 26)));

test('1 MiB of any bytes typed into a raw reader arrives whole', async () => {
  const data = randomBytes(MiB);
  const t = await reader('raw', MiB);
  assert.equal((await t.input(data)).verdict, VERDICT.QUEUED);
  await t.sees(`got ${MiB}`);
  assert.ok(t.typed().equals(data));
});

test('lines of up to 4,095 bytes typed fast into a line reader arrive whole', async () => {
  const lines = Array.from({ length: 200 }, (_, i) => Buffer.concat([letters([1, 80, 2000, 4094][i % 4]), Buffer.from('\n')]));
  const all = Buffer.concat(lines);
  const t = await reader('lines', all.length);
  const answers = await Promise.all(lines.map((line) => t.input(line)));
  assert.ok(answers.every((a) => a.verdict === VERDICT.QUEUED));
  await t.sees(`got ${all.length}`);
  assert.ok(t.typed().equals(all));
});

test('a repeat is acknowledged and not typed, also after a reconnect', async () => {
  const t = await reader('raw', 6);
  const client = randomClient();
  const { id } = t;
  assert.deepEqual(verdict(await t.input('one', { client, seq: 1 })), [VERDICT.QUEUED, 2n]);
  assert.deepEqual(verdict(await t.input('one', { client, seq: 1 })), [VERDICT.REPEATED, 2n]);
  await t.cut();
  const again = await Tunnel.connect(agent);
  await again.attach({ id });
  assert.deepEqual(verdict(await again.input('one', { client, seq: 1 })), [VERDICT.REPEATED, 2n]);
  assert.deepEqual(verdict(await again.input('two', { client, seq: 2 })), [VERDICT.QUEUED, 3n]);
  await again.sees('got 6');
  assert.equal(t.typed().toString(), 'onetwo');
  await again.frame('exit');
  assert.deepEqual(verdict(await again.input('two', { client, seq: 2 })), [VERDICT.REPEATED, 3n]);
  assert.equal((await again.input('more', { client, seq: 3 })).verdict, VERDICT.ENDED);
});

const verdict = (frame) => [frame.verdict, frame.expected];

test('input whose answer got lost is typed once, over many cuts', async () => {
  const rounds = 20;
  const t = await reader('raw', rounds * 8);
  const client = randomClient();
  const { id } = t;
  let tunnel = t;
  const all = [];
  for (let seq = 1; seq <= rounds; seq++) {
    const data = letters(8);
    all.push(data);
    tunnel.input(data, { client, seq }).catch(() => {}); // and the connection is cut
    await tunnel.cut();
    tunnel = await Tunnel.connect(agent);
    await tunnel.attach({ id });
    const { verdict: v } = await tunnel.input(data, { client, seq });
    assert.ok(v === VERDICT.QUEUED || v === VERDICT.REPEATED);
  }
  await tunnel.sees(`got ${rounds * 8}`);
  assert.ok(t.typed().equals(Buffer.concat(all)));
});

test('a gap is refused and says what is expected; clients are apart', async () => {
  const t = await reader('raw', 4);
  const [one, two] = [randomClient(), randomClient()];
  assert.deepEqual(verdict(await t.input('x', { client: one, seq: 2 })), [VERDICT.GAP, 1n]);
  assert.deepEqual(verdict(await t.input('a', { client: one, seq: 1 })), [VERDICT.QUEUED, 2n]);
  assert.deepEqual(verdict(await t.input('x', { client: one, seq: 3 })), [VERDICT.GAP, 2n]);
  assert.deepEqual(verdict(await t.input('b', { client: two, seq: 1 })), [VERDICT.QUEUED, 2n]);
  assert.deepEqual(verdict(await t.input('c', { client: one, seq: 2 })), [VERDICT.QUEUED, 3n]);
  assert.deepEqual(verdict(await t.input('d')), [VERDICT.QUEUED, 0n]); // without a number
  await t.sees('got 4');
  assert.equal(t.typed().toString(), 'abcd');
});

test('a program that does not read fills the queue; nothing is dropped, and signals pass', async () => {
  const t = await reader('raw', 0);
  const client = randomClient();
  const sent = [];
  let seq = 0, answer;
  for (;;) {
    const data = randomBytes(MiB / 2);
    answer = await t.input(data, { client, seq: ++seq });
    if (answer.verdict !== VERDICT.QUEUED) break;
    sent.push(data);
  }
  assert.deepEqual(verdict(answer), [VERDICT.FULL, BigInt(seq)]);
  const total = sent.length * (MiB / 2);
  assert.ok(total >= 4 * MiB - MiB / 2 && total <= 4 * MiB + MiB / 2, String(total));
  assert.equal((await t.signal(SIGINT)).error, 0);
  await t.sees('[INT]');
  assert.equal((await t.signal(SIGUSR1)).error, 0); // read on
  await until(() => statSync(t.file).size === total, 'all that was accepted');
  assert.ok(t.typed().equals(Buffer.concat(sent)));
  // Its number was refused before, so this is not a repeat.
  assert.deepEqual(verdict(await t.input('end', { client, seq })), [VERDICT.QUEUED, BigInt(seq) + 1n]);
});

test('SIGINT ends a program that does not read, with the queue full', async () => {
  const t = await Tunnel.open(agent, { command: ['sleep', '1000'] });
  let answer;
  do answer = await t.input(Buffer.alloc(MiB, 'x'));
  while (answer.verdict === VERDICT.QUEUED);
  assert.equal(answer.verdict, VERDICT.FULL);
  assert.equal((await t.signal(SIGINT)).error, 0);
  const exit = await t.frame('exit');
  assert.deepEqual([exit.kind, exit.value], [1, SIGINT]);
});

test('typed text with a large echo comes back whole', async () => {
  const t = await Tunnel.open(agent, { command: ['sh', '-c', 'stty raw -echo; echo set; exec cat'] });
  await t.sees('set');
  const from = t.output.length;
  const data = randomBytes(MiB);
  assert.equal((await t.input(data)).verdict, VERDICT.QUEUED);
  await t.until(() => t.next >= BigInt(from + data.length), 'the echo');
  assert.ok(t.output.subarray(from).equals(data) || t.output.subarray(t.output.length - data.length).equals(data));
});
