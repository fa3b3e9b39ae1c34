/* ws_handshake.c -- SHA-1 made small rather than fast: it runs once a connection, also in the
 * agent. */
#include "wire/ws_handshake.h"

#include <assert.h>
#include <string.h>

#include "wire/base64.h"
#include "wire/bytes.h"

#define SHA1_BYTES 20
#define SHA1_BLOCK_BYTES 64

struct sha1 {
	uint32_t hash[5];
	uint64_t size;
	uint8_t block[SHA1_BLOCK_BYTES]; /* size % 64 bytes of it are waiting */
};

static uint32_t rotate_left(uint32_t x, unsigned bits)
{
	return x << bits | x >> (32 - bits);
}

static void sha1_block(struct sha1 *s)
{
	uint32_t w[80];
	for (size_t i = 0; i < 16; i++)
		w[i] = bytes_load_be32(s->block + 4 * i);
	for (size_t i = 16; i < 80; i++)
		w[i] = rotate_left(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);

	uint32_t a = s->hash[0], b = s->hash[1], c = s->hash[2], d = s->hash[3], e = s->hash[4];
	for (size_t i = 0; i < 80; i++) {
		uint32_t f;
		if (i < 20)
			f = ((b & c) | (~b & d)) + 0x5a827999;
		else if (i < 40)
			f = (b ^ c ^ d) + 0x6ed9eba1;
		else if (i < 60)
			f = ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc;
		else
			f = (b ^ c ^ d) + 0xca62c1d6;
		uint32_t next = rotate_left(a, 5) + f + e + w[i];
		e = d;
		d = c;
		c = rotate_left(b, 30);
		b = a;
		a = next;
	}
	s->hash[0] += a;
	s->hash[1] += b;
	s->hash[2] += c;
	s->hash[3] += d;
	s->hash[4] += e;
}

static void sha1_add(struct sha1 *s, const void *data, size_t size)
{
	const uint8_t *bytes = data;
	for (size_t i = 0; i < size; i++) {
		s->block[s->size++ % SHA1_BLOCK_BYTES] = bytes[i];
		if (s->size % SHA1_BLOCK_BYTES == 0)
			sha1_block(s);
	}
}

static void sha1_end(struct sha1 *s, uint8_t ret[SHA1_BYTES])
{
	uint8_t bits[8];
	bytes_store_be64(bits, s->size * 8);
	sha1_add(s, "\x80", 1);
	while (s->size % SHA1_BLOCK_BYTES != SHA1_BLOCK_BYTES - sizeof(bits))
		sha1_add(s, "\0", 1);
	sha1_add(s, bits, sizeof(bits));
	for (size_t i = 0; i < 5; i++)
		bytes_store_be32(ret + 4 * i, s->hash[i]);
}

void ws_accept(const char *key, char ret[WS_ACCEPT_CHARS + 1])
{
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	struct sha1 s = {
		.hash = { 0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0 },
	};
	uint8_t hash[SHA1_BYTES];
	sha1_add(&s, key, strlen(key));
	sha1_add(&s, guid, sizeof(guid) - 1);
	sha1_end(&s, hash);

	static_assert(BASE64_CHARS(SHA1_BYTES) == WS_ACCEPT_CHARS, "the accept value is one SHA-1");
	ret[base64_encode(ret, hash, sizeof(hash))] = '\0';
}

bool ws_key_valid(const char *key)
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	return key != NULL && strspn(key, alphabet) == 22 && strcmp(key + 22, "==") == 0;
}
