/* fuzz_term_query.c -- term_query.h on any bytes: nothing is asked in the result, and data in two pieces gives
 * what it gives in one. */
#include "tests/fuzz/fuzz.h"

#include "wire/term_query.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *once = exactly(size), *twice = exactly(size);
	size_t taken;
	size_t n = term_query_remove(once, data, size, true, &taken);
	require(taken == size && n <= size);
	size_t again = term_query_remove(twice, once, n, true, &taken);
	require(again == n && memcmp(once, twice, n) == 0);

	size_t first = term_query_remove(twice, data, size, false, &taken);
	require(first <= n && taken <= size && size - taken < TERM_QUERY_BYTES_MAX);
	require(memcmp(once, twice, first) == 0);
	free(twice);
	free(once);
	return 0;
}
