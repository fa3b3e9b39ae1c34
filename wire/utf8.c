/* utf8.c -- table 3-7 in two forms: a word at a time for text that is valid, byte by byte where it
 * is cut or broken. */
#include "wire/utf8.h"

#include <string.h>

#include "wire/bytes.h"

/* Starts the character of a lead byte over 0x7f; false when no character begins with it. The ranges
 * are table 3-7: only the byte after the lead is ever narrower than 80..BF. */
static bool character_start(struct utf8_validator *v, uint8_t lead)
{
	if (lead < 0xc2 || lead > 0xf4)
		return false;
	v->need = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
	v->low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
	v->high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
	return true;
}

static bool character_continue(struct utf8_validator *v, uint8_t byte)
{
	if (byte < v->low || byte > v->high)
		return false;
	v->need--;
	v->low = 0x80;
	v->high = 0xbf;
	return true;
}

static bool is_continuation(uint8_t byte)
{
	return (byte & 0xc0) == 0x80;
}

/* Length, 2 to 4, of the character at data (size > 0) that begins with a byte over 0x7f; 0 when it
 * is not valid or not complete. The four bytes are tested as one little-endian word: its lowest
 * byte is the first. */
static size_t character_size(const uint8_t *data, size_t size)
{
	uint32_t word;
	if (size >= 4) {
		word = bytes_load_le32(data);
	} else {
		uint8_t padded[4] = { data[0] }; /* 0 is no continuation byte */
		if (size > 1)
			padded[1] = data[1];
		if (size > 2)
			padded[2] = data[2];
		word = bytes_load_le32(padded);
	}
	if ((word & 0x00c0c0f0) == 0x008080e0) {
		uint32_t high = word & 0x0000200f; /* E0 needs A0 and up, ED 9F and below */
		return high != 0 && high != 0x0000200d ? 3 : 0;
	}
	if ((word & 0x0000c0e0) == 0x000080c0)
		return (word & 0x0000001e) != 0 ? 2 : 0; /* C0 and C1 would be overlong */
	if ((word & 0xc0c0c0f8) == 0x808080f0) {
		uint32_t high = word & 0x00003007; /* F0 needs 90 and up, F4 8F and below */
		return high != 0 && ((high & 0x00000004) == 0 || high == 0x00000004) ? 4 : 0;
	}
	return 0;
}

/* Bytes at the start of data that are ASCII. */
static size_t ascii_run(const uint8_t *data, size_t size)
{
	size_t at = 0;
#ifdef __SSE2__
	for (; size - at >= 64; at += 64) {
		const __m128i *block = (const __m128i *)(const void *)(data + at);
		__m128i any = _mm_or_si128(_mm_or_si128(_mm_loadu_si128(block),
							_mm_loadu_si128(block + 1)),
					   _mm_or_si128(_mm_loadu_si128(block + 2),
							_mm_loadu_si128(block + 3)));
		if (_mm_movemask_epi8(any) != 0)
			break;
	}
	for (; size - at >= 16; at += 16) {
		const __m128i *block = (const __m128i *)(const void *)(data + at);
		unsigned high = (unsigned)_mm_movemask_epi8(_mm_loadu_si128(block));
		if (high != 0)
			return at + (size_t)__builtin_ctz(high);
	}
#endif
	for (; size - at >= 8; at += 8) {
		uint64_t high = BYTES_LE64(bytes_load64(data + at)) & BYTES_EACH(0x80);
		if (high != 0)
			return at + (size_t)__builtin_ctzll(high) / 8;
	}
	while (at < size && data[at] < 0x80)
		at++;
	return at;
}

size_t utf8_valid_prefix(const uint8_t *data, size_t size)
{
	size_t at = 0;
	while (at < size) {
		if (data[at] < 0x80) {
			at += ascii_run(data + at, size - at);
			continue;
		}
		size_t bytes = character_size(data + at, size - at);
		if (bytes == 0)
			break;
		at += bytes;
	}
	return at;
}

bool utf8_valid(const uint8_t *data, size_t size)
{
	return utf8_valid_prefix(data, size) == size;
}

size_t utf8_step(const uint8_t *data, size_t size, bool *valid)
{
	struct utf8_validator v = { 0 };
	size_t bytes = 1;
	if (data[0] >= 0x80 && !character_start(&v, data[0])) {
		*valid = false;
		return bytes;
	}
	while (v.need > 0 && bytes < size && character_continue(&v, data[bytes]))
		bytes++;
	*valid = v.need == 0;
	return bytes;
}

size_t utf8_incomplete_tail(const uint8_t *data, size_t size)
{
	/* A lead byte is nobody's continuation: every decoder starts anew at the last one. */
	for (size_t tail = 1; tail < UTF8_BYTES_MAX && tail <= size; tail++) {
		const uint8_t *last = data + size - tail;
		if (is_continuation(*last))
			continue;
		struct utf8_validator v = { 0 };
		return utf8_validator_feed(&v, last, tail) && v.need > 0 ? tail : 0;
	}
	return 0;
}

size_t utf8_rest_of_character(const uint8_t *before, size_t before_size, const uint8_t *data,
			      size_t size)
{
	size_t held = before_size;
	if (held > UTF8_BYTES_MAX - 1)
		held = UTF8_BYTES_MAX - 1;
	size_t continuations = 0;
	while (continuations < held && is_continuation(before[before_size - 1 - continuations]))
		continuations++;

	struct utf8_validator v = { 0 };
	if (continuations == held) { /* the lead is not held: any character that long may be it */
		v.need = (uint8_t)(UTF8_BYTES_MAX - 1 - held);
		v.low = 0x80;
		v.high = 0xbf;
	} else {
		size_t tail = utf8_incomplete_tail(before, before_size);
		utf8_validator_feed(&v, before + before_size - tail, tail);
	}
	size_t rest = 0;
	while (v.need > 0 && rest < size && character_continue(&v, data[rest]))
		rest++;
	return rest;
}

size_t utf8_replace(uint8_t *out, const uint8_t *data, size_t size)
{
	uint8_t *start = out;
	size_t at = 0;
	while (at < size) {
		size_t bytes = utf8_valid_prefix(data + at, size - at);
		memcpy(out, data + at, bytes);
		out += bytes;
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

bool utf8_validator_feed(struct utf8_validator *v, const uint8_t *data, size_t size)
{
	size_t at = 0;
	while (at < size) {
		if (v->need > 0) {
			if (!character_continue(v, data[at++]))
				return false;
			continue;
		}
		at += utf8_valid_prefix(data + at, size - at);
		if (at < size && !character_start(v, data[at++]))
			return false;
	}
	return true;
}

bool utf8_validator_complete(const struct utf8_validator *v)
{
	return v->need == 0;
}
