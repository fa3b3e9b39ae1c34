/* random.h -- random bytes of the kernel. Thread: any. */
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>

/* Cannot fail: without random numbers there are no tokens, so the program ends. */
static inline void random_bytes(void *out, size_t size)
{
	uint8_t *at = out;
	while (size > 0) {
		ssize_t got = getrandom(at, size, 0);
		if (got < 0 && errno != EINTR)
			abort();
		if (got > 0) {
			at += got;
			size -= (size_t)got;
		}
	}
}
