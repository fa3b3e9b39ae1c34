/* sse.c -- events and the JSON in them. All output of text viewers goes through json_escape(): it
 * checks the UTF-8 first, and then copies in blocks up to the next byte that needs an escape. */
#include "wire/sse.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "wire/base64.h"
#include "wire/bytes.h"
#include "wire/utf8.h"

#define ESCAPE_BYTES_MAX 6
#define EVENT_NAME_CHARS_MAX 32

/* Of the bytes that cannot stand in a JSON string; size is 0 for all others. */
/* clang-format off */
static const struct escape {
	char text[ESCAPE_BYTES_MAX + 1];
	uint8_t size;
} escapes[256] = {
	[0x00] = { "\\u0000", 6 }, { "\\u0001", 6 }, { "\\u0002", 6 }, { "\\u0003", 6 },
	[0x04] = { "\\u0004", 6 }, { "\\u0005", 6 }, { "\\u0006", 6 }, { "\\u0007", 6 },
	[0x08] = { "\\b", 2 },     { "\\t", 2 },     { "\\n", 2 },     { "\\u000b", 6 },
	[0x0c] = { "\\f", 2 },     { "\\r", 2 },     { "\\u000e", 6 }, { "\\u000f", 6 },
	[0x10] = { "\\u0010", 6 }, { "\\u0011", 6 }, { "\\u0012", 6 }, { "\\u0013", 6 },
	[0x14] = { "\\u0014", 6 }, { "\\u0015", 6 }, { "\\u0016", 6 }, { "\\u0017", 6 },
	[0x18] = { "\\u0018", 6 }, { "\\u0019", 6 }, { "\\u001a", 6 }, { "\\u001b", 6 },
	[0x1c] = { "\\u001c", 6 }, { "\\u001d", 6 }, { "\\u001e", 6 }, { "\\u001f", 6 },
	['"'] = { "\\\"", 2 },
	['\\'] = { "\\\\", 2 },
};
/* clang-format on */

/* Marks the high bit of bytes that need an escape: control characters, quote, backslash.
 * Subtracting borrows into the high bit of such a byte, and from there into later bytes only: the
 * lowest mark is always true. */
static inline uint64_t special_bytes(uint64_t block)
{
	uint64_t controls = block - BYTES_EACH(' ');
	uint64_t quotes = (block ^ BYTES_EACH('"')) - BYTES_EACH(1);
	uint64_t backslashes = (block ^ BYTES_EACH('\\')) - BYTES_EACH(1);
	return (controls | quotes | backslashes) & ~block & BYTES_EACH(0x80);
}

/* Copies the start of data as long as it needs no escape and whole blocks are left; writes up to a
 * block more than it returns. */
static inline size_t copy_plain(char *out, const uint8_t *data, size_t size)
{
	size_t at = 0;
#ifdef __SSE2__
	const __m128i last_control = _mm_set1_epi8(' ' - 1);
	const __m128i quote = _mm_set1_epi8('"');
	const __m128i backslash = _mm_set1_epi8('\\');
	for (; size - at >= 16; at += 16) {
		__m128i block = _mm_loadu_si128((const __m128i *)(const void *)(data + at));
		_mm_storeu_si128((__m128i *)(void *)(out + at), block);
		__m128i control = _mm_cmpeq_epi8(_mm_min_epu8(block, last_control), block);
		__m128i special = _mm_or_si128(control,
					       _mm_or_si128(_mm_cmpeq_epi8(block, quote),
							    _mm_cmpeq_epi8(block, backslash)));
		unsigned found = (unsigned)_mm_movemask_epi8(special);
		if (found != 0)
			return at + (size_t)__builtin_ctz(found);
	}
#endif
	for (; size - at >= 8; at += 8) {
		uint64_t block = bytes_load64(data + at);
		bytes_store64(out + at, block);
		uint64_t found = special_bytes(BYTES_LE64(block));
		if (found != 0)
			return at + (size_t)__builtin_ctzll(found) / 8;
	}
	return at;
}

/* Escapes valid UTF-8. Each input byte owns ESCAPE_BYTES_MAX of out: the copies of a fixed size,
 * which write more than they keep, stay inside. */
static char *escape_valid(char *out, const uint8_t *data, size_t size)
{
	size_t at = 0;
	while (at < size) {
		size_t plain = copy_plain(out, data + at, size - at);
		out += plain;
		at += plain;
		if (at == size)
			break;
		const struct escape *escape = &escapes[data[at]];
		if (escape->size > 0) {
			memcpy(out, escape->text, ESCAPE_BYTES_MAX);
			out += escape->size;
		} else { /* one of the last few, too short for a block */
			*out++ = (char)data[at];
		}
		at++;
	}
	return out;
}

size_t json_escape(char *out, const uint8_t *data, size_t size)
{
	char *start = out;
	size_t at = 0;
	while (at < size) {
		size_t bytes = utf8_valid_prefix(data + at, size - at);
		out = escape_valid(out, data + at, bytes);
		at += bytes;
		if (at == size)
			break;
		bool valid;
		at += utf8_step(data + at, size - at, &valid);
		memcpy(out, UTF8_REPLACEMENT, UTF8_REPLACEMENT_BYTES);
		out += UTF8_REPLACEMENT_BYTES;
	}
	return (size_t)(out - start);
}

static char *put(char *out, const char *text, size_t size)
{
	memcpy(out, text, size);
	return out + size;
}

#define PUT(out, literal) put(out, literal, sizeof(literal) - 1)

static char *put_id(char *out, uint64_t epoch, uint64_t offset)
{
	out = PUT(out, "id: ");
	for (int shift = 60; shift >= 0; shift -= 4)
		*out++ = "0123456789abcdef"[epoch >> shift & 0xf];
	*out++ = ':';

	char digits[20];
	size_t count = 0;
	do {
		digits[sizeof(digits) - ++count] = (char)('0' + offset % 10);
		offset /= 10;
	} while (offset > 0);
	out = put(out, digits + sizeof(digits) - count, count);
	*out++ = '\n';
	return out;
}

size_t sse_output_text(char *out, uint64_t epoch, uint64_t offset, const uint8_t *data, size_t size)
{
	char *at = put_id(out, epoch, offset);
	at = PUT(at, "event: output\ndata: {\"data\":\"");
	at += json_escape(at, data, size);
	at = PUT(at, "\"}\n\n");
	return (size_t)(at - out);
}

size_t sse_output_base64(char *out, uint64_t epoch, uint64_t offset, const uint8_t *data,
			 size_t size)
{
	char *at = put_id(out, epoch, offset);
	at = PUT(at, "event: output\ndata: {\"base64\":\"");
	at += base64_encode(at, data, size);
	at = PUT(at, "\"}\n\n");
	return (size_t)(at - out);
}

size_t sse_event(char *out, bool has_id, uint64_t epoch, uint64_t offset, const char *name,
		 const char *json, size_t json_size)
{
	assert(strlen(name) <= EVENT_NAME_CHARS_MAX);
	assert(memchr(json, '\n', json_size) == NULL && memchr(json, '\r', json_size) == NULL);
	char *at = has_id ? put_id(out, epoch, offset) : out;
	at = PUT(at, "event: ");
	at = put(at, name, strlen(name));
	at = PUT(at, "\ndata: ");
	at = put(at, json, json_size);
	at = PUT(at, "\n\n");
	return (size_t)(at - out);
}

static bool hex_digit(char c, uint64_t *ret)
{
	if (c >= '0' && c <= '9')
		*ret = (uint64_t)(c - '0');
	else if (c >= 'a' && c <= 'f')
		*ret = (uint64_t)(c - 'a') + 10;
	else
		return false;
	return true;
}

int sse_id_parse(const char *text, size_t size, uint64_t *epoch, uint64_t *offset)
{
	const size_t digits_at = SSE_EPOCH_CHARS + 1;
	if (size <= digits_at || text[SSE_EPOCH_CHARS] != ':')
		return -EBADMSG;
	if (text[digits_at] == '0' && size > digits_at + 1)
		return -EBADMSG;
	uint64_t hex = 0;
	for (size_t i = 0; i < SSE_EPOCH_CHARS; i++) {
		uint64_t digit;
		if (!hex_digit(text[i], &digit))
			return -EBADMSG;
		hex = hex << 4 | digit;
	}
	uint64_t decimal = 0;
	for (size_t i = digits_at; i < size; i++) {
		if (text[i] < '0' || text[i] > '9' ||
		    __builtin_mul_overflow(decimal, 10, &decimal) ||
		    __builtin_add_overflow(decimal, (uint64_t)(text[i] - '0'), &decimal))
			return -EBADMSG;
	}
	*epoch = hex;
	*offset = decimal;
	return 0;
}
