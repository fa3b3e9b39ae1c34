// input.test.mjs -- what is typed arrives: whole, in order, once; or it is refused and nothing of it is.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before } from 'node:test';
import { program, scaled } from './lib/flavour.mjs';
import { PatternShell } from './lib/pattern.mjs';
import { Service, test } from './lib/service.mjs';
import { EventStream } from './lib/sse.mjs';
import { until } from './lib/wait.mjs';

const MiB = 1 << 20;
let service, alice;

before(async () => {
  service = await Service.start({ args: ['--input-gap-ms', '500'] });
  alice = service.client();
});
after(() => service?.stop());

// A session whose program keeps what is typed, in a file.
class Reader {
  static #count = 0;

  static async start(how = 'raw', bytes, client = alice) {
    const reader = new Reader();
    reader.client = client;
    reader.file = `${service.dir}/typed-${process.pid}-${Reader.#count++}`;
    const command = [program('tests/tools/typed'), how, reader.file, ...(bytes === undefined ? [] : [String(bytes)])];
    reader.id = (await client.createOpen({ sandbox: 'local', command })).id;
    reader.stream = await EventStream.open(client, reader.id);
    await reader.says('ready');
    return reader;
  }

  #text = '';

  async says(text) {
    while (!this.#text.includes(text)) {
      const { data } = await this.stream.first('output');
      this.#text += data.data;
    }
    this.#text = '';
  }

  post(body, headers = {}) {
    return this.client.type(this.id, body, headers);
  }

  numbered(client, seq, body) {
    return this.post(body, { 'Input-Client': client, 'Input-Seq': String(seq) });
  }

  json(json) {
    return this.client.post(`/sessions/${this.id}/input`, { json });
  }

  signal(signal) {
    return this.client.post(`/sessions/${this.id}/signal`, { json: { signal } });
  }

  get typed() {
    return readFileSync(this.file);
  }

  /** Waits until so many bytes were read, and that they are these. */
  async has(expected) {
    const bytes = Buffer.from(expected);
    await until(() => this.typed.length >= bytes.length, `${bytes.length} bytes typed`);
    assert.ok(
      this.typed.equals(bytes),
      `typed ${JSON.stringify(this.typed.toString('latin1').slice(0, 300))}, expected ${JSON.stringify(bytes.toString('latin1').slice(0, 300))}`,
    );
  }

  async close() {
    this.stream.close();
    await alice.delete(`/sessions/${this.id}`);
  }
}

test('types exactly the bytes of a raw body, whatever they look like', async () => {
  const reader = await Reader.start();
  const bodies = [
    'plain',
    '{"data":"not JSON for us"}',
    '{"base64":"eA=="}',
    '["keys"]',
    '{',
    'null',
    '"quoted"',
    '\0\x01\xff',
    'é€😀',
    '\r\n\t\x1b[A',
    ' ',
    '%41+b&c=d',
  ];
  let expected = Buffer.alloc(0);
  for (const body of bodies)
    for (const type of [
      undefined,
      'text/plain',
      'text/plain; charset=utf-8',
      'TEXT/PLAIN',
      'application/octet-stream',
    ]) {
      const bytes = Buffer.from(body, 'latin1');
      (await reader.post(bytes, type ? { 'Content-Type': type } : {})).is(204);
      expected = Buffer.concat([expected, bytes]);
    }
  await reader.has(expected);
  await reader.close();
});

test('takes data, base64 and keys as JSON', async () => {
  const reader = await Reader.start();
  (await reader.json({ data: 'text é€😀\u0000\r"\\' })).is(204);
  (await reader.json({ data: '' })).is(204);
  (await reader.json({ data: '{"data":"x"}' })).is(204);
  (await reader.json({ base64: Buffer.from([0, 255, 128, 10, 13]).toString('base64') })).is(204);
  (await reader.json({ keys: ['a', 'enter', 'é', '😀', '{'] })).is(204);
  (await reader.json({ keys: [] })).is(204);
  await reader.has(
    Buffer.concat([
      Buffer.from('text é€😀\0\r"\\{"data":"x"}'),
      Buffer.from([0, 255, 128, 10, 13]),
      Buffer.from('a\ré😀{'),
    ]),
  );
  await reader.close();
});

test('knows the keys of a terminal', async () => {
  const reader = await Reader.start();
  const named = {
    enter: '\r',
    tab: '\t',
    escape: '\x1b',
    backspace: '\x7f',
    space: ' ',
    up: '\x1b[A',
    down: '\x1b[B',
    right: '\x1b[C',
    left: '\x1b[D',
    home: '\x1b[H',
    end: '\x1b[F',
    insert: '\x1b[2~',
    delete: '\x1b[3~',
    'page-up': '\x1b[5~',
    'page-down': '\x1b[6~',
    'shift-tab': '\x1b[Z',
    f1: '\x1bOP',
    f2: '\x1bOQ',
    f3: '\x1bOR',
    f4: '\x1bOS',
    f5: '\x1b[15~',
    f6: '\x1b[17~',
    f7: '\x1b[18~',
    f8: '\x1b[19~',
    f9: '\x1b[20~',
    f10: '\x1b[21~',
    f11: '\x1b[23~',
    f12: '\x1b[24~',
    'ctrl-space': '\0',
    'ctrl-[': '\x1b',
    'ctrl-\\': '\x1c',
    'ctrl-]': '\x1d',
    'ctrl-^': '\x1e',
    'ctrl-_': '\x1f',
    'alt-x': '\x1bx',
    'alt-.': '\x1b.',
    'alt-é': '\x1bé',
  };
  for (let i = 0; i < 26; i++) named[`ctrl-${String.fromCharCode(97 + i)}`] = String.fromCharCode(i + 1);
  let expected = '';
  for (const [name, bytes] of Object.entries(named)) {
    (await reader.json({ keys: [name] })).is(204);
    expected += bytes;
  }
  (await reader.json({ keys: Object.keys(named) })).is(204);
  await reader.has(expected + Object.values(named).join(''));
  await reader.close();
});

test('refuses input that is none, and types nothing of it', async () => {
  const reader = await Reader.start();
  for (const [json, field] of [
    [{}, null],
    [{ data: 'x', base64: 'eA==' }, null],
    [{ data: 'x', keys: ['a'] }, null],
    [{ data: 5 }, 'data'],
    [{ data: null }, 'data'],
    [{ data: ['x'] }, 'data'],
    [{ base64: '!!!!' }, 'base64'],
    [{ base64: 'eA=' }, 'base64'],
    [{ base64: 'eA==eA==' }, 'base64'],
    [{ base64: 5 }, 'base64'],
    [{ base64: 'e\nA==' }, 'base64'],
    [{ keys: 'enter' }, 'keys'],
    [{ keys: ['a', 'nope'] }, 'keys'],
    [{ keys: [''] }, 'keys'],
    [{ keys: [5] }, 'keys'],
    [{ keys: ['ctrl-1'] }, 'keys'],
    [{ keys: ['f13'] }, 'keys'],
    [{ keys: ['Enter'] }, 'keys'],
    [{ keys: ['ab'] }, 'keys'],
    [{ keys: Array(1025).fill('a') }, 'keys'],
    [{ data: 'x', more: 1 }, 'more'],
    [{ text: 'x' }, 'text'],
  ]) {
    const answer = await reader.json(json);
    answer.isProblem(400, 'bad-request');
    if (field)
      assert.match(
        answer.json.field,
        new RegExp(`^${field}\\b`),
        `${JSON.stringify(json).slice(0, 60)}: ${answer.text}`,
      );
  }
  const bad = (body, headers = {}) => reader.post(body, { 'Content-Type': 'application/json', ...headers });
  for (const body of [
    '',
    'x',
    '{"data":"x"',
    '{"data":"\\ud800"}',
    '[]',
    'null',
    '{"data":"x"}{"data":"y"}',
    Buffer.from([0x22, 0xff, 0x22]),
  ])
    assert.equal((await bad(body)).status, 400, String(body));
  (await reader.post('x', { 'Content-Type': 'application/x-www-form-urlencoded' })).isProblem(
    415,
    'unsupported-media-type',
  );
  (await reader.post('x', { 'Content-Type': 'text/html' })).isProblem(415, 'unsupported-media-type');
  for (const [headers, field] of [
    [{ 'Input-Seq': '1' }, 'Input-Client'],
    [{ 'Input-Client': 'c' }, 'Input-Seq'],
    [{ 'Input-Client': 'c', 'Input-Seq': '0' }, 'Input-Seq'],
    [{ 'Input-Client': 'c', 'Input-Seq': '-1' }, 'Input-Seq'],
    [{ 'Input-Client': 'c', 'Input-Seq': '1.5' }, 'Input-Seq'],
    [{ 'Input-Client': 'c', 'Input-Seq': 'x' }, 'Input-Seq'],
    [{ 'Input-Client': 'c', 'Input-Seq': '1e3' }, 'Input-Seq'],
    [{ 'Input-Client': 'c', 'Input-Seq': '' }, 'Input-Seq'],
    [{ 'Input-Client': 'c', 'Input-Seq': '18446744073709551617' }, 'Input-Seq'],
    [{ 'Input-Client': 'c d', 'Input-Seq': '1' }, 'Input-Client'],
    [{ 'Input-Client': '', 'Input-Seq': '1' }, 'Input-Client'],
    [{ 'Input-Client': 'x'.repeat(65), 'Input-Seq': '1' }, 'Input-Client'],
  ])
    (await reader.post('x', headers)).isProblem(400, 'bad-request', { field });
  (await reader.post('end')).is(204);
  await reader.has('end');
  await reader.close();
});

test('types one message behind the other, in order', async () => {
  const reader = await Reader.start();
  let expected = '';
  for (let i = 0; i < scaled(500); i++) {
    (await reader.post(`${i};`)).is(204);
    expected += `${i};`;
  }
  await reader.has(expected);
  // Many at once: each is whole, whatever the order.
  const words = Array.from({ length: 64 }, (_, i) => `<${String(i).repeat(200)}>`);
  await Promise.all(words.map(async (word) => (await reader.post(word)).is(204)));
  await until(() => reader.typed.length === expected.length + words.join('').length, 'all typed');
  const rest = reader.typed.toString().slice(expected.length);
  assert.deepEqual(rest.split(/(?<=>)/).sort(), [...words].sort());
  await reader.close();
});

test('brings 1 MiB into a program that reads raw', async () => {
  const bytes = randomBytes(MiB);
  const reader = await Reader.start('raw', MiB);
  (await reader.post(bytes)).is(204);
  await reader.says(`got ${MiB}`);
  await reader.has(bytes);
  const again = await Reader.start('raw', MiB);
  (await again.json({ base64: bytes.toString('base64') })).is(204);
  await again.says(`got ${MiB}`);
  await again.has(bytes);
});

test('brings 1 MiB of lines into a program that reads lines', async () => {
  let text = '';
  for (let i = 0; text.length < MiB - 5000; i++)
    text += `${i} `.padEnd(1 + ((i * 997) % 4090), '.').slice(0, 4093) + '\n';
  const reader = await Reader.start('lines', text.length);
  (await reader.post(text)).is(204);
  await reader.says(`got ${text.length}`);
  await reader.has(text);
});

test('refuses more than 1 MiB at once', async () => {
  const reader = await Reader.start();
  (await reader.post(Buffer.alloc(MiB + 1))).isProblem(413, 'payload-too-large');
  (await reader.post(Buffer.alloc(3 * MiB), { 'Transfer-Encoding': 'chunked' })).isProblem(413, 'payload-too-large');
  (await reader.json({ data: 'x'.repeat(MiB + 1) })).isProblem(413, 'payload-too-large');
  (await reader.json({ base64: Buffer.alloc(MiB + 1).toString('base64') })).isProblem(413, 'payload-too-large');
  (await reader.post(Buffer.alloc(32 * MiB))).isProblem(413, 'payload-too-large');
  (await reader.post('ok')).is(204);
  await reader.has('ok');
  await reader.close();
});

test('puts numbered messages in order and types a repeat once', async () => {
  const reader = await Reader.start();
  (await reader.numbered('a', 1, 'one ')).is(204);
  const third = reader.numbered('a', 3, 'three ');
  const second = reader.numbered('a', 2, 'two ');
  (await second).is(204);
  (await third).is(204);
  for (const seq of [1, 2, 3, 3, 1]) (await reader.numbered('a', seq, 'repeat ')).is(204);
  (await reader.numbered('b', 1, 'other ')).is(204);
  (await reader.numbered('a', 4, 'four ')).is(204);
  (await reader.post('plain ')).is(204);
  await reader.has('one two three other four plain ');
  await reader.close();
});

test('puts a hundred messages that come shuffled in order', async () => {
  const reader = await Reader.start();
  const numbers = Array.from({ length: 100 }, (_, i) => i + 1);
  const shuffled = numbers.map((n) => [(n * 7919) % 101, n]).sort((x, y) => x[0] - y[0]);
  // In windows of 50, each message twice.
  for (const half of [shuffled.filter(([, n]) => n <= 50), shuffled.filter(([, n]) => n > 50)])
    await Promise.all([...half, ...half].map(async ([, n]) => (await reader.numbered('shuffle', n, `${n},`)).is(204)));
  await reader.has(numbers.map((n) => `${n},`).join(''));
  await reader.close();
});

test('says which number is missing when it does not come', async () => {
  const reader = await Reader.start();
  (await reader.numbered('a', 1, '1')).is(204);
  (await reader.numbered('a', 3, '3')).isProblem(409, 'input-gap', { expected: 2 });
  (await reader.numbered('new', 2, 'x')).isProblem(409, 'input-gap', { expected: 1 });
  (await reader.numbered('a', 2, '2')).is(204);
  (await reader.numbered('a', 3, '3')).is(204);
  (await reader.numbered('a', 9007199254740991, 'x')).isProblem(409, 'input-gap', { expected: 4 });
  await reader.has('123');
  await reader.close();
});

test('holds a message that comes early no longer than it must, and nobody else', async () => {
  const reader = await Reader.start();
  const early = reader.numbered('a', 2, 'late');
  (await reader.numbered('b', 1, 'B')).is(204);
  (await reader.post('C')).is(204);
  (await early).isProblem(409, 'input-gap', { expected: 1 });
  await reader.has('BC');
  await reader.close();
});

test('refuses what a program that does not read has no room for, loses nothing, and can interrupt it', async () => {
  const reader = await Reader.start('raw', 0);
  const accepted = [];
  const piece = 192 << 10;
  let refused;
  for (let i = 1; i < 200; i++) {
    const bytes = Buffer.alloc(piece, `${String.fromCharCode(33 + (i % 90))}${i};`);
    const answer = await reader.numbered('stuck', i, bytes);
    if (answer.status === 204) {
      accepted.push(bytes);
      continue;
    }
    answer.isProblem(429, 'input-full');
    refused = [i, bytes];
    break;
  }
  assert.ok(refused, 'the queue is bounded');
  const held = accepted.length * piece;
  assert.ok(held >= 2 * MiB && held <= 9 * MiB, `${held} bytes were taken`);
  (await reader.numbered('stuck', ...refused)).isProblem(429, 'input-full');
  (await reader.signal('SIGINT')).is(204);
  await reader.says('[INT]');
  (await reader.signal('USR2')).is(204);
  await reader.says('[0]');
  (await reader.signal('SIGUSR1')).is(204); // now it reads
  await until(() => reader.typed.length === held, 'all that was taken is typed');
  assert.ok(reader.typed.equals(Buffer.concat(accepted)));
  await until(async () => (await reader.numbered('stuck', ...refused)).status === 204, 'room again');
  (await reader.numbered('stuck', ...refused)).is(204);
  await reader.has(Buffer.concat([...accepted, refused[1]]));
  await reader.close();
});

test('takes small messages again as soon as there is room', async () => {
  const reader = await Reader.start('raw', 0);
  let sent = 0;
  while ((await reader.post(Buffer.alloc(MiB, 'x'))).status === 204) sent += MiB;
  assert.ok(sent >= 2 * MiB);
  (await reader.signal('USR1')).is(204);
  await until(async () => (await reader.post('!')).status === 204, 'room');
  await until(() => reader.typed.includes('!'), 'typed');
  await reader.close();
});

test('types into a session that is not open yet', async () => {
  const file = `${service.dir}/early`;
  const { id } = (
    await alice.post('/sessions', {
      json: { sandbox: 'local', command: [program('tests/tools/typed'), 'raw', file, '9'] },
    })
  ).is(201).json;
  (await alice.type(id, '123')).is(204);
  (await alice.type(id, '456')).is(204);
  (await alice.type(id, '789')).is(204);
  const stream = await EventStream.open(alice, id);
  const { events } = await stream.rest();
  assert.equal(events.at(-1).data.exit_code, 0);
  assert.equal(readFileSync(file, 'utf8'), '123456789');
});

test('signals the foreground group by every name there is', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  const stream = await shell.view();
  await stream.to(64);
  const signal = (name) => alice.post(`${shell.path}/signal`, { json: { signal: name } });
  for (const [name, text] of [
    ['INT', '[INT]'],
    ['SIGINT', '[INT]'],
    ['USR1', '[USR1]'],
    ['SIGTERM', '[TERM]'],
    ['QUIT', '[QUIT]'],
  ]) {
    (await signal(name)).is(204);
    assert.equal((await stream.first('output')).bytes.toString(), text);
  }
  for (const name of ['WINCH', 'SIGWINCH', 'CONT', 'SIGCONT']) (await signal(name)).is(204);
  (await signal('STOP')).is(204);
  (await signal('CONT')).is(204);
  await shell.print('still here');
  assert.equal((await stream.first('output')).bytes.toString(), 'still here');
  for (const json of [
    {},
    { signal: 'NOPE' },
    { signal: 'SIGSIGINT' },
    { signal: 2 },
    { signal: 'int' },
    { signal: '' },
    { signal: null },
    { signal: 'SEGV' },
  ])
    (await alice.post(`${shell.path}/signal`, { json })).isProblem(400, 'bad-request', { field: 'signal' });
  (await alice.post(`${shell.path}/signal`, { json: { signal: 'INT', pid: 1 } })).isProblem(400, 'bad-request', {
    field: 'pid',
  });
  (await signal('KILL')).is(204);
  assert.deepEqual((await stream.first('exit')).data, { reason: 'exited', exit_code: null, signal: 'SIGKILL' });
  for (const name of ['HUP', 'USR2']) {
    const { id } = await alice.createOpen({ sandbox: 'local', command: ['sleep', '1000'] });
    (await alice.post(`/sessions/${id}/signal`, { json: { signal: name } })).is(204);
    const { events } = await (await EventStream.open(alice, id)).rest();
    assert.deepEqual(events.at(-1).data, { reason: 'exited', exit_code: null, signal: `SIG${name}` });
  }
});

test('signals only what is in the foreground of an interactive shell', async () => {
  const { id } = await alice.createOpen({
    sandbox: 'local',
    command: ['bash', '--norc', '--noprofile', '-i'],
    env: { PS1: '$ ' },
  });
  const stream = await EventStream.open(alice, id);
  let text = '';
  const says = async (wanted) => {
    while (!text.includes(wanted)) text += (await stream.first('output')).data.data;
  };
  (await alice.type(id, "sh -c 'echo star''ted; exec sleep 1000'\r")).is(204);
  await says('started');
  (await alice.post(`/sessions/${id}/signal`, { json: { signal: 'INT' } })).is(204);
  (await alice.type(id, "echo al''ive $?\r")).is(204);
  await says('alive 130');
  // The same by a key.
  (await alice.type(id, "sh -c 'echo sec''ond; exec sleep 1000'\r")).is(204);
  await says('second');
  (await alice.post(`/sessions/${id}/input`, { json: { keys: ['ctrl-c'] } })).is(204);
  (await alice.type(id, "echo al''so $?\r")).is(204);
  await says('also 130');
  (await alice.post(`/sessions/${id}/input`, { json: { keys: ['e', 'x', 'i', 't', 'enter'] } })).is(204);
  await stream.first('exit');
});

test('echoes each keystroke to a viewer', async () => {
  const { id } = await alice.createOpen({ sandbox: 'local', command: ['cat'] });
  const stream = await EventStream.open(alice, id);
  for (const key of 'hello, world') {
    (await alice.type(id, key)).is(204);
    assert.equal((await stream.first('output')).data.data, key);
  }
  stream.close();
});

test('refuses input, size and signal of an ended session', async () => {
  const shell = await PatternShell.create(alice, 'lines');
  await shell.exit(0);
  await shell.ended();
  (await alice.type(shell.id, 'x')).isProblem(409, 'session-ended');
  (await alice.type(shell.id, 'x', { 'Input-Client': 'c', 'Input-Seq': '1' })).isProblem(409, 'session-ended');
  (await alice.post(`${shell.path}/resize`, { json: { cols: 1, rows: 1 } })).isProblem(409, 'session-ended');
  (await alice.post(`${shell.path}/signal`, { json: { signal: 'INT' } })).isProblem(409, 'session-ended');
});
