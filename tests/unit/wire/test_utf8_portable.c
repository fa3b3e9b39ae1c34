/* test_utf8_portable.c -- the tests of utf8.h again, over the code for processors without SSE2. */
#undef __SSE2__

#include "wire/utf8.c"

#include "tests/unit/wire/test_utf8.c"
