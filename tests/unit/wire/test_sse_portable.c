/* test_sse_portable.c -- the tests of sse.h again, over the code for processors without SSE2. */
#undef __SSE2__

#include "wire/sse.c"

#include "tests/unit/wire/test_sse.c"
