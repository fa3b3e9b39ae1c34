/* intern.c -- a hash table in static memory: it can only fill, and who sends us nonsense fills no more than that. It
 * is the process's own, not struct app's, as the texts that it stands for are. */
#include "service/intern.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define SLOTS (2u * INTERN_COUNT_MAX) /* a power of two; half of them stay empty */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static char texts[SLOTS][INTERN_BYTES_MAX + 1]; /* "": free; one that is set never changes */
static unsigned count;

static bool is_name(const char *text, size_t size)
{
	if (size == 0 || size > INTERN_BYTES_MAX)
		return false;
	for (size_t i = 0; i < size; i++) {
		char c = text[i];
		if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-')
			return false;
	}
	return true;
}

/* FNV-1a. Who finds names that collide makes us look at 512 slots. */
static uint32_t hash(const char *text, size_t size)
{
	uint32_t h = 2166136261u;
	for (size_t i = 0; i < size; i++)
		h = (h ^ (uint8_t)text[i]) * 16777619u;
	return h;
}

const char *intern(const char *text, size_t size)
{
	static const char unknown[] = "unknown";
	if (!is_name(text, size) ||
	    (size == sizeof(unknown) - 1 && memcmp(text, unknown, size) == 0))
		return unknown;
	uint32_t at = hash(text, size) % SLOTS;
	const char *found = unknown;
	pthread_mutex_lock(&lock);
	while (texts[at][0] != '\0' &&
	       (memcmp(texts[at], text, size) != 0 || texts[at][size] != '\0'))
		at = (at + 1) % SLOTS;
	if (texts[at][0] != '\0') {
		found = texts[at];
	} else if (count < INTERN_COUNT_MAX) {
		memcpy(texts[at], text, size);
		count++;
		found = texts[at];
	}
	pthread_mutex_unlock(&lock);
	return found;
}
