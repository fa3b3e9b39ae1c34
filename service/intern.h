/* intern.h -- names that another replica sends where we hold static texts: states, steps, slugs of problems. */
#pragma once

#include <stddef.h>

#define INTERN_BYTES_MAX 64
#define INTERN_COUNT_MAX 512

/* A 0-terminated text that lives for ever, the same one for the same bytes. "unknown" for what is empty, longer
 * than INTERN_BYTES_MAX or not of a-z 0-9 and "-" alone, and for a new one when there are INTERN_COUNT_MAX.
 * text is borrowed and need not end with 0. Thread: any. */
const char *intern(const char *text, size_t size);
