/* utf8.h -- UTF-8 that arrives in pieces: where a character is cut, what is not valid.
 * What is not valid becomes U+FFFD exactly as the WHATWG decoder does it (one for each maximal
 * subpart), so that a browser's TextDecoder and ours agree. Source: Unicode 15 section 3.9 table
 * 3-7, WHATWG Encoding section 8.1. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_BYTES_MAX 4
#define UTF8_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */
#define UTF8_REPLACEMENT_BYTES 3

/* How many bytes at the end of data are the start of a character that is valid so far but not
 * complete: 0 to 3. Decoding data without them, and then them with what follows, gives the same
 * as decoding all at once. */
size_t utf8_incomplete_tail(const uint8_t *data, size_t size);

/* How many bytes at the start of data belong to a character, or an invalid part, that began in
 * before (the last bytes in front of data; 3 are enough): 0 to 3. With less than 3, and only
 * continuation bytes among them, before is taken to be cut out of a longer text: then as many
 * continuation bytes count as one character could still have, 3 of them with before_size 0. */
size_t utf8_rest_of_character(const uint8_t *before, size_t before_size, const uint8_t *data,
			      size_t size);

/* True when all of data is valid and complete UTF-8. */
bool utf8_valid(const uint8_t *data, size_t size);

/* Length of the valid prefix of data, at memory speed. */
size_t utf8_valid_prefix(const uint8_t *data, size_t size);

/* Decodes one character or one invalid part at data (size > 0). Returns the bytes it covers, 1 to
 * 4, and sets *valid. An incomplete end counts as invalid. */
size_t utf8_step(const uint8_t *data, size_t size, bool *valid);

/* Copies data to out with every invalid part replaced by U+FFFD; out holds 3 * size bytes.
 * Returns the bytes written. */
size_t utf8_replace(uint8_t *out, const uint8_t *data, size_t size);

/* Checks a text that comes in pieces. Zero-initialised is the start. */
struct utf8_validator {
	uint8_t need; /* continuation bytes still to come */
	uint8_t low;  /* smallest allowed next byte */
	uint8_t high; /* largest allowed next byte */
};

/* Returns false at the first byte that cannot stand there. */
bool utf8_validator_feed(struct utf8_validator *v, const uint8_t *data, size_t size);

/* True when the text may end here. */
bool utf8_validator_complete(const struct utf8_validator *v);
