/* base64.c -- encoding by arithmetic on eight characters at a time, decoding by a table. */
#include "wire/base64.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "wire/bytes.h"

/* The characters of eight 6-bit values, one in each byte of the word. No byte carries into the
 * next: the values are below 64 and every sum is the character itself in the end. */
static uint64_t characters(uint64_t values)
{
	const uint64_t one = BYTES_EACH(1);
	uint64_t from_26 = ((values + BYTES_EACH(128 - 26)) >> 7) & one;
	uint64_t from_52 = ((values + BYTES_EACH(128 - 52)) >> 7) & one;
	uint64_t from_62 = ((values + BYTES_EACH(128 - 62)) >> 7) & one;
	uint64_t from_63 = ((values + BYTES_EACH(128 - 63)) >> 7) & one;
	return values + BYTES_EACH('A') + from_26 * ('a' - 'Z' - 1) - from_52 * ('z' - '0' + 1) -
	       from_62 * ('9' - '+' + 1) + from_63 * ('/' - '+' - 1);
}

/* Spreads the upper 48 bits of a big-endian word over eight bytes, six bits each. */
static uint64_t sextets(uint64_t word)
{
	word = (word & UINT64_C(0xffffff0000000000)) >> 8 | (word & UINT64_C(0xffffff0000)) >> 16;
	word = (word & UINT64_C(0x00fff00000fff000)) << 4 | (word & UINT64_C(0x00000fff00000fff));
	return (word & UINT64_C(0x0fc00fc00fc00fc0)) << 2 | (word & UINT64_C(0x003f003f003f003f));
}

size_t base64_encode(char *out, const uint8_t *data, size_t size)
{
	size_t chars = 0;
	for (; size >= 8; size -= 6, data += 6, chars += 8) /* eight are loaded, six used */
		bytes_store64(out + chars, BYTES_BE64(characters(sextets(bytes_load_be64(data)))));

	for (; size > 0; chars += 4) {
		size_t bytes = size;
		if (bytes > 3)
			bytes = 3;
		uint8_t padded[8] = { 0 };
		uint8_t four[8];
		memcpy(padded, data, bytes);
		bytes_store_be64(four, characters(sextets(bytes_load_be64(padded))));
		memcpy(out + chars, four, 4);
		if (bytes < 3)
			out[chars + 3] = '=';
		if (bytes < 2)
			out[chars + 2] = '=';
		data += bytes;
		size -= bytes;
	}
	return chars;
}

#define VALUE_BITS 0x3f
#define VALUE_VALID 0x40

/* What a character stands for, with VALUE_VALID; 0 where it stands for nothing. Each row starts
 * with the character that it names. */
/* clang-format off */
static const uint8_t values[256] = {
	['A'] = 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x4b, 0x4c,
	['N'] = 0x4d, 0x4e, 0x4f, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59,
	['a'] = 0x5a, 0x5b, 0x5c, 0x5d, 0x5e, 0x5f, 0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66,
	['n'] = 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72, 0x73,
	['0'] = 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x7b, 0x7c, 0x7d,
	['+'] = 0x7e,
	['/'] = 0x7f,
};
/* clang-format on */

/* Decodes four characters to the lower 24 bits; false when one of them stands for nothing. */
static bool quad(const char *text, uint32_t *ret)
{
	uint8_t a = values[(uint8_t)text[0]];
	uint8_t b = values[(uint8_t)text[1]];
	uint8_t c = values[(uint8_t)text[2]];
	uint8_t d = values[(uint8_t)text[3]];
	*ret = (uint32_t)(a & VALUE_BITS) << 18 | (uint32_t)(b & VALUE_BITS) << 12 |
	       (uint32_t)(c & VALUE_BITS) << 6 | (uint32_t)(d & VALUE_BITS);
	return (a & b & c & d & VALUE_VALID) != 0;
}

ssize_t base64_decode(uint8_t *out, const char *text, size_t size)
{
	if (size % 4 != 0)
		return -EBADMSG;
	if (size == 0)
		return 0;

	uint8_t *start = out;
	uint32_t bits;
	for (; size > 4; size -= 4, text += 4) {
		if (!quad(text, &bits))
			return -EBADMSG;
		*out++ = (uint8_t)(bits >> 16);
		*out++ = (uint8_t)(bits >> 8);
		*out++ = (uint8_t)bits;
	}

	/* The last four may end in padding, and the bits under it have to be 0. */
	char last[4];
	memcpy(last, text, sizeof(last));
	unsigned padding = 0;
	for (; padding < 2 && last[3 - padding] == '='; padding++)
		last[3 - padding] = 'A';
	if (!quad(last, &bits) || (bits & ((1u << (8 * padding)) - 1)) != 0)
		return -EBADMSG;
	*out++ = (uint8_t)(bits >> 16);
	if (padding < 2)
		*out++ = (uint8_t)(bits >> 8);
	if (padding < 1)
		*out++ = (uint8_t)bits;
	return out - start;
}
