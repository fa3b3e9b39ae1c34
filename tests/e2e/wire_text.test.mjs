// wire_text.test.mjs -- what wire/ makes of bytes that are not quite UTF-8 is what a browser makes of them:
// a JSON string by our encoder reads as what TextDecoder gives, whole and in pieces.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { test } from 'node:test';
import { program, scaled } from './lib/flavour.mjs';

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

function escape(bytes, ...args) {
  const { status, stdout, stderr } = spawnSync(program('tests/tools/json_escape'), args, {
    input: bytes,
    maxBuffer: 1 << 30,
  });
  assert.equal(status, 0, stderr.toString());
  return stdout;
}

// Says where two long texts part, instead of printing both.
function assertSame(actual, expected, bytes, what) {
  if (actual === expected) return;
  let at = 0;
  while (actual[at] === expected[at]) at++;
  const near = Buffer.byteLength(expected.slice(0, at));
  assert.fail(
    `${what}: ${JSON.stringify(actual.slice(at, at + 20))} is not ${JSON.stringify(expected.slice(at, at + 20))}` +
      ` near input byte ${near}: ${bytes.subarray(Math.max(0, near - 8), near + 16).toString('hex')}`,
  );
}

function check(bytes, ...args) {
  const json = escape(bytes, ...args);
  assert.ok(!json.includes(0x0a) && !json.includes(0x0d), 'a data line of an event is one line');
  const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  assertSame(JSON.parse(strict.decode(json)), decoder.decode(bytes), bytes, `pieces of ${args[0] ?? 'all'}`);
}

const nasty = [
  ...Array.from({ length: 0x20 }, (_, c) => [c]),
  [0x22], [0x5c], [0x2f], [0x7f], [0x80], [0xbf], [0xc0], [0xc1], [0xf5], [0xff], [0xfe],
  [0xc3], [0xc3, 0xa4], [0xc2, 0x80], [0xdf, 0xbf],
  [0xe0, 0x80], [0xe0, 0xa0], [0xe0, 0xa0, 0x80], [0xe2, 0x82], [0xe2, 0x82, 0xac], [0xe2, 0x80, 0xa8],
  [0xed, 0x9f, 0xbf], [0xed, 0xa0, 0x80], [0xed, 0xb0, 0x80], [0xee, 0x80, 0x80], [0xef, 0xbb, 0xbf], [0xef, 0xbf, 0xbd],
  [0xf0, 0x80], [0xf0, 0x90], [0xf0, 0x90, 0x80, 0x80], [0xf0, 0x9f, 0x98], [0xf0, 0x9f, 0x98, 0x80],
  [0xf4, 0x8f, 0xbf, 0xbf], [0xf4, 0x90, 0x80, 0x80],
  [...Buffer.from('\x1b[32mok\x1b[0m')], [...Buffer.from('sixteen bytes ok')], [...Buffer.from('x')], [...Buffer.from('日本')],
].map((bytes) => Buffer.from(bytes));

const soup = (count) => Buffer.concat(Array.from({ length: count }, () => nasty[randomInt(nasty.length)]));

test('random bytes read as TextDecoder reads them', () => {
  check(randomBytes(scaled(2 << 20)));
});

test('characters, broken characters and what JSON escapes, in any order', () => {
  check(soup(scaled(300_000)));
});

test('every code point', () => {
  const characters = [];
  for (let code = 0; code <= 0x10ffff; code++) {
    if (code < 0xd800 || code > 0xdfff) characters.push(String.fromCodePoint(code));
  }
  check(Buffer.from(characters.join('')));
});

test('every pair of bytes, and every lead byte with every edge behind it', () => {
  const edges = [0x00, 0x22, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xe0, 0xed, 0xf0, 0xf4, 0xff];
  const parts = [];
  for (let a = 0; a < 256; a++) for (let b = 0; b < 256; b++) parts.push(a, b, 0x41);
  for (let lead = 0xc0; lead < 256; lead++)
    for (const a of edges) for (const b of edges) for (const c of edges) parts.push(lead, a, b, c, 0x41);
  check(Buffer.from(parts));
});

test('the text is the same in whatever pieces it is escaped', () => {
  const bytes = soup(scaled(4000));
  for (const size of [1, 2, 3, 4, 5, 7, 15, 16, 17, 31, 64, 1000, 8192]) check(bytes, size);
});

test('short texts of every length end as they should', () => {
  const bytes = Buffer.from('aä€😀"\x1b日本語', 'utf8');
  for (let size = 0; size <= bytes.length; size++) check(bytes.subarray(0, size));
});
