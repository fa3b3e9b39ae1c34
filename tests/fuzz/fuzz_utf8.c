/* fuzz_utf8.c -- utf8.h against the WHATWG decoder, written here as the standard words it, on any
 * bytes and at every cut. */
#include "tests/fuzz/fuzz.h"

#include "wire/utf8.h"

#define CUTS_MAX 64 /* all cuts of longer texts would take too long */

/* WHATWG Encoding, section 8.1.1, "utf-8 decoder". Code points go out as UTF-8 again; *all_valid
 * says whether one of them stood for an error. Returns the bytes written. */
static size_t whatwg_decode(uint8_t *out, const uint8_t *data, size_t size, bool *all_valid)
{
	uint8_t *start = out;
	unsigned needed = 0, seen = 0, lower = 0x80, upper = 0xbf;
	uint8_t pending[UTF8_BYTES_MAX];
	*all_valid = true;
	for (size_t i = 0; i <= size; i++) {
		bool error = false;
		if (i == size) {
			error = needed != 0;
		} else if (needed == 0) {
			uint8_t byte = data[i];
			if (byte <= 0x7f) {
				*out++ = byte;
			} else if (byte >= 0xc2 && byte <= 0xdf) {
				needed = 1;
			} else if (byte >= 0xe0 && byte <= 0xef) {
				if (byte == 0xe0)
					lower = 0xa0;
				if (byte == 0xed)
					upper = 0x9f;
				needed = 2;
			} else if (byte >= 0xf0 && byte <= 0xf4) {
				if (byte == 0xf0)
					lower = 0x90;
				if (byte == 0xf4)
					upper = 0x8f;
				needed = 3;
			} else {
				error = true;
			}
			pending[0] = byte;
		} else if (data[i] < lower || data[i] > upper) {
			needed = seen = 0;
			lower = 0x80;
			upper = 0xbf;
			i--; /* restore the byte */
			error = true;
		} else {
			lower = 0x80;
			upper = 0xbf;
			pending[++seen] = data[i];
			if (seen == needed) {
				memcpy(out, pending, needed + 1);
				out += needed + 1;
				needed = seen = 0;
			}
		}
		if (error) {
			*all_valid = false;
			memcpy(out, "\xef\xbf\xbd", 3);
			out += 3;
		}
	}
	return (size_t)(out - start);
}

/* As one decoder, so in two pieces with the incomplete tail held back. */
static void check_cut(const uint8_t *data, size_t size, size_t cut, const uint8_t *expected,
		      size_t expected_size)
{
	uint8_t *head = exact_copy(data, cut);
	size_t tail = utf8_incomplete_tail(head, cut);
	require(tail < UTF8_BYTES_MAX && tail <= cut);
	free(head);

	uint8_t *out = exactly(3 * size);
	size_t written = utf8_replace(out, data, cut - tail);
	written += utf8_replace(out + written, data + cut - tail, size - (cut - tail));
	require(written == expected_size && memcmp(out, expected, written) == 0);
	free(out);
}

/* A viewer that starts at the cut skips what belongs to the part in front of it. */
static void check_rest(const uint8_t *data, size_t size, size_t cut)
{
	size_t part_end = 0;
	while (part_end < cut) {
		bool valid;
		part_end += utf8_step(data + part_end, size - part_end, &valid);
	}
	uint8_t *after = exact_copy(data + cut, size - cut);
	if (cut >= 3) {
		uint8_t *before = exact_copy(data + cut - 3, 3);
		require(utf8_rest_of_character(before, 3, after, size - cut) == part_end - cut);
		free(before);
	}
	require(utf8_rest_of_character(data, cut, after, size - cut) <= 3);
	require(utf8_rest_of_character(NULL, 0, after, size - cut) <= 3);
	free(after);
}

static void check_validator(const uint8_t *data, size_t size, size_t cut, bool valid)
{
	struct utf8_validator v = { 0 };
	bool fed = utf8_validator_feed(&v, data, cut) &&
		   utf8_validator_feed(&v, data + cut, size - cut);
	require((fed && utf8_validator_complete(&v)) == valid);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *expected = exactly(3 * size);
	bool valid;
	size_t expected_size = whatwg_decode(expected, data, size, &valid);

	require(utf8_valid(data, size) == valid);
	require(utf8_valid(expected, expected_size));
	size_t prefix = utf8_valid_prefix(data, size);
	require(prefix <= size && utf8_valid(data, prefix));
	if (prefix < size) {
		bool step_valid;
		utf8_step(data + prefix, size - prefix, &step_valid);
		require(!step_valid);
	}
	for (size_t cut = 0; cut <= size && cut < CUTS_MAX; cut++) {
		check_cut(data, size, cut, expected, expected_size);
		check_rest(data, size, cut);
		check_validator(data, size, cut, valid);
	}
	free(expected);
	return 0;
}
