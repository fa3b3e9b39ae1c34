/* runloop_memory.h -- what is known of devboxes, so that the next opening there asks nobody. Bounded: the one not used
 * for longest goes first. An entry is good for RUNLOOP_MEMORY_US after the API has last accepted the API key for it: one
 * that was withdrawn does not open for longer. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RUNLOOP_MEMORY_ENTRIES 4096
#define RUNLOOP_MEMORY_US (UINT64_C(600) * 1000000)

struct runloop_memory;

/* A devbox as one account sees it: a keyed hash, so that it says nothing of the API key, and another API
 * key is another devbox. */
struct runloop_key {
	uint8_t bytes[32];
};

struct runloop_known {
	char tunnel_key[64];
	char tunnel_token[512]; /* secret; "" for an open tunnel */
	bool tunnel_wakes;
	int64_t boot_ms;
	uint16_t port; /* of the agent */
	uint64_t pid;
	uint64_t instance;
	char token[257]; /* secret: the agent's control token */
};

struct runloop_memory *runloop_memory_create(size_t entries_max); /* NULL without memory */
void runloop_memory_destroy(struct runloop_memory *m);            /* wipes */

void runloop_memory_key(const struct runloop_memory *m, const char *base_url, const char *devbox,
			const char *api_key, struct runloop_key *ret);

/* now_us: of CLOCK_MONOTONIC. False: nothing is known. */
bool runloop_memory_get(struct runloop_memory *m, const struct runloop_key *key, uint64_t now_us,
			struct runloop_known *ret);
/* Without memory nothing is remembered. */
void runloop_memory_put(struct runloop_memory *m, const struct runloop_key *key, uint64_t now_us,
			const struct runloop_known *known);
/* The API has accepted the API key for the devbox. */
void runloop_memory_confirm(struct runloop_memory *m, const struct runloop_key *key,
			    uint64_t now_us);
/* True once in interval_us for a devbox that is known, for the first who asks; for one that is not known always:
 * many sessions keep one devbox awake. */
bool runloop_memory_take_turn(struct runloop_memory *m, const struct runloop_key *key,
			      uint64_t now_us, uint64_t interval_us);
void runloop_memory_forget(struct runloop_memory *m, const struct runloop_key *key);
