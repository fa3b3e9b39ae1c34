/* fuzz_base64.c -- what is encoded decodes to itself, and a text that decodes is the only one of
 * its bytes. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>

#include "wire/base64.h"

static void round_trip(const uint8_t *data, size_t size)
{
	size_t chars = BASE64_CHARS(size);
	uint8_t *copy = exact_copy(data, size);
	char *text = exactly(chars);
	require(base64_encode(text, copy, size) == chars);
	free(copy);
	uint8_t *back = exactly(chars / 4 * 3);
	require(base64_decode(back, text, chars) == (ssize_t)size);
	require(memcmp(back, data, size) == 0);
	free(back);
	free(text);
}

static void one_text_each(const char *text, size_t size)
{
	uint8_t *bytes = exactly(size / 4 * 3);
	ssize_t decoded = base64_decode(bytes, text, size);
	if (decoded >= 0) {
		char *again = exactly(size);
		require(BASE64_CHARS((size_t)decoded) == size);
		require(base64_encode(again, bytes, (size_t)decoded) == size);
		require(memcmp(again, text, size) == 0);
		free(again);
	} else {
		require(decoded == -EBADMSG);
	}
	free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	round_trip(data, size);
	one_text_each((const char *)data, size);
	return 0;
}
