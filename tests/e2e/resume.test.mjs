// resume.test.mjs -- the seam between what was and what comes: a resume at every offset, characters
// cut at every byte, and bytes that are no characters.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { isUtf8 } from 'node:buffer';
import { scaled } from './lib/flavour.mjs';
import { PatternShell, pattern } from './lib/pattern.mjs';
import { Service, test } from './lib/service.mjs';
import { EventStream } from './lib/sse.mjs';
import { Socket } from './lib/ws.mjs';

let service, alice;

before(async () => {
  service = await Service.start();
  alice = service.client();
});
after(() => service?.stop());

const decode = (bytes) => new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
// Where the first character at or behind offset starts.
function characterStart(bytes, offset) {
  while (offset < bytes.length && (bytes[offset] & 0xc0) === 0x80) offset++;
  return offset;
}

for (const mode of ['utf8', 'bytes']) {
  test(`resumes at every offset around the seam while output comes (base64, ${mode})`, async () => {
    const shell = await PatternShell.create(alice, mode, { first: 160 });
    for (let offset = 0; offset <= shell.written; offset += 1) {
      // The bytes may arrive before, in, or after the moment of the resume.
      const [stream] = await Promise.all([
        shell.view({ since: shell.idAt(offset) }),
        offset % 2 ? shell.write(1) : null,
      ]);
      const after = offset % 3 === 0 ? shell.write(2) : null;
      await after;
      if (offset === shell.written) {
        stream.close();
        continue;
      }
      const { from, bytes, names } = await stream.to(shell.written);
      assert.equal(from, offset);
      assert.ok(!names.includes('reset'));
      shell.assert(offset, bytes);
      stream.close();
      if (offset > scaled(300)) break;
    }
  });
}

test('resumes at every offset in text, and skips the rest of a character', async () => {
  const shell = await PatternShell.create(alice, 'utf8', { first: 256 });
  const all = pattern('utf8', 0, 4096);
  for (let offset = 0; offset < 256; offset += scaled(256) < 256 ? 3 : 1) {
    const stream = await shell.view({ since: shell.idAt(offset), format: 'text' });
    const pending = offset % 4 === 0 ? shell.write(16) : null;
    await pending;
    const { text } = await stream.to(shell.written);
    assert.equal(text, decode(all.subarray(characterStart(all, offset), shell.written)), `from ${offset}`);
    stream.close();
  }
});

test('hops from event to event by ids without a byte lost or twice', async () => {
  const shell = await PatternShell.create(alice, 'bytes');
  await shell.write(200_000, 997);
  const pieces = [];
  let at = 0;
  while (at < shell.written) {
    const stream = await shell.view({ lastEventId: shell.idAt(at), format: 'base64' });
    const event = (await stream.until((e) => e.event === 'output')).at(-1);
    assert.equal(event.from, at);
    pieces.push(event.bytes);
    at = event.offset;
    stream.close();
  }
  shell.assert(0, Buffer.concat(pieces));
});

test('hops through text by ids and gets every character once', async () => {
  const shell = await PatternShell.create(alice, 'utf8');
  await shell.write(48_000, 31);
  let text = '';
  for (let id = shell.idAt(0); ;) {
    const stream = await shell.view({ lastEventId: id, format: 'text' });
    const event = (await stream.until((e) => e.event === 'output')).at(-1);
    text += event.data.data;
    id = event.id;
    stream.close();
    if (event.offset >= shell.written) break;
  }
  assert.equal(text, decode(pattern('utf8', 0, shell.written)));
});

test('never splits a character that arrives cut at any byte', async () => {
  const shell = await PatternShell.create(alice, 'utf8', { first: 16 });
  const exact = await shell.view();
  const text = await shell.view({ format: 'text' });
  const socket = await Socket.open(alice, shell.id);
  let seen = '';
  await exact.to(16);
  for (let cut = 1; cut < 16; cut++) {
    for (const [size, isFirst] of [
      [cut, true],
      [16 - cut, false],
    ]) {
      await shell.write(size);
      await exact.to(shell.written); // so it was on its way to the others too
      if (isFirst) {
        // Who comes while a character is incomplete does not get its half either.
        const newcomer = await shell.view({ format: 'text', since: shell.idAt(shell.written - cut) });
        const whole = pattern('utf8', shell.written - cut, shell.written);
        const characters = decode(whole).replace(/\ufffd+$/, '');
        if (characters) assert.equal((await newcomer.first('output')).data.data, characters);
        newcomer.close();
      }
    }
  }
  const result = await text.to(shell.written);
  for (const event of result.events.filter((e) => e.event === 'output')) {
    assert.ok(
      isUtf8(pattern('utf8', event.from, event.offset)),
      `[${event.from}, ${event.offset}) are whole characters`,
    );
    seen += event.data.data;
  }
  assert.equal(seen, decode(pattern('utf8', 0, shell.written)));
  assert.doesNotMatch(seen, /\ufffd/);
  const messages = await socket.to(shell.written);
  assert.equal(
    messages
      .filter((m) => m.event === 'output')
      .map((m) => m.data)
      .join(''),
    seen,
  );
  socket.close();
  exact.close();
  text.close();
});

test('never splits a character when bytes come one by one', async () => {
  const shell = await PatternShell.create(alice, 'utf8');
  const viewers = await Promise.all(['text', 'base64', 'text'].map((format) => shell.view({ format })));
  const slow = await shell.view({ format: 'text' });
  slow.pause();
  await shell.write(scaled(640), 1);
  const expected = pattern('utf8', 0, shell.written);
  slow.resume();
  for (const viewer of [...viewers, slow]) {
    const { bytes } = await viewer.to(shell.written);
    assert.ok(bytes.equals(expected));
    viewer.close();
  }
});

test('replaces what is no UTF-8 as the WHATWG decoder does, NUL included', async () => {
  const shell = await PatternShell.create(alice, 'bytes', { first: 1000 });
  const live = await shell.view({ format: 'text' });
  const exact = await shell.view();
  await shell.write(6_000, 7);
  await shell.write(100_000);
  await shell.exit(0);
  const expected = pattern('bytes', 0, shell.written);
  assert.ok((await exact.rest()).bytes.equals(expected));
  assert.equal((await live.rest()).text, decode(expected));
  const late = await (await shell.view({ format: 'text' })).rest();
  assert.equal(late.text, decode(expected));
});

test('replaces each kind of broken character, alone and cut', async () => {
  const broken = [
    [0xc3],
    [0xe2, 0x82],
    [0xf0, 0x9f, 0x98],
    [0x80],
    [0xbf, 0xbf],
    [0xc0, 0xaf],
    [0xc1],
    [0xe0, 0x80, 0x80],
    [0xed, 0xa0, 0x80],
    [0xed, 0xbf, 0xbf],
    [0xf0, 0x80, 0x80, 0x80],
    [0xf4, 0x90, 0x80, 0x80],
    [0xf5],
    [0xff, 0xfe],
    [0xe2, 0x28, 0xa1],
    [0xf0, 0x9f, 0x41],
    [0xc3, 0xc3, 0xa9],
    [0xef, 0xbf, 0xbe],
    [0],
  ];
  const escaped = (bytes) => bytes.map((b) => `\\${b.toString(8).padStart(3, '0')}`).join('');
  const results = await Promise.all(
    broken
      .flatMap((bytes) =>
        [[...bytes], [0x61, ...bytes, 0x62], [0xc3, 0xa9, ...bytes, 0xe2, 0x82, 0xac], [...bytes, ...bytes]].map(
          async (whole) => {
            const { id } = await alice.createOpen({
              sandbox: 'local',
              command: ['sh', '-c', `stty raw -echo; printf '${escaped(whole)}'`],
            });
            const { text } = await (await EventStream.open(alice, id)).rest();
            return [whole, text];
          },
        ),
      )
      .slice(0, scaled(1000)),
  );
  for (const [whole, text] of results)
    assert.equal(text, decode(Buffer.from(whole)), `${whole.map((b) => b.toString(16))}`);
});

test('gives up an incomplete character at the exit', async () => {
  for (const [script, expected] of [
    ["printf 'ab\\342\\202'", 'ab\ufffd'],
    ["printf '\\360\\237\\230'", '\ufffd'],
    ["printf 'x\\303'", 'x\ufffd'],
  ]) {
    const { id } = await alice.createOpen({ sandbox: 'local', command: ['sh', '-c', `read x; ${script}`] });
    const live = await EventStream.open(alice, id);
    await live.next();
    (await alice.type(id, '\n')).is(204);
    const { text, events } = await live.rest();
    assert.equal(text.replace(/^\r\n/, ''), expected);
    assert.equal(events.at(-1).event, 'exit');
    const late = await (await EventStream.open(alice, id)).rest();
    assert.equal(late.text.replace(/^\r\n/, ''), expected);
    assert.equal(late.events.at(-1).id, events.at(-1).id);
  }
});

test('keeps the offsets of text and base64 the same', async () => {
  const shell = await PatternShell.create(alice, 'bytes');
  await shell.write(50_000);
  await shell.exit(0);
  const text = await (await shell.view({ format: 'text' })).rest();
  // Each id of the text is a place where the bytes can be gone on from.
  for (const event of text.events.filter((e) => e.event === 'output')) {
    if (event.offset === shell.written) continue;
    const stream = await shell.view({ since: event.id });
    const first = (await stream.until((e) => e.event === 'output')).at(-1);
    assert.equal(first.from, event.offset);
    shell.assert(first.from, first.bytes);
    stream.close();
  }
});
