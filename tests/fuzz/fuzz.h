/* fuzz.h -- what every fuzz target needs. A target is one libFuzzer function; the unit test of the
 * same name includes the target's .c file and replays tests/fuzz/corpus/ through it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Not assert(): it has to hold with NDEBUG too. */
static inline void require(bool holds)
{
	if (!holds)
		abort();
}

/* Exactly size bytes, so that AddressSanitizer sees the first one over; never NULL. */
static inline void *exactly(size_t size)
{
	void *block = malloc(size > 0 ? size : 1);
	require(block != NULL);
	return block;
}

static inline void *exact_copy(const void *data, size_t size)
{
	void *block = exactly(size);
	if (size > 0)
		memcpy(block, data, size);
	return block;
}
