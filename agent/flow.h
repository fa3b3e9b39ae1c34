/* flow.h -- may the PTY be read, though the ring would then overwrite what somebody has not got yet?
 * The bounds in time are the owner's: it sets `overwriting` when one has passed. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum flow_guard {
	FLOW_FREE,   /* nobody waits for bytes: overwrite */
	FLOW_READER, /* somebody is attached: wait for it, a bounded time without progress */
	FLOW_LOST,   /* one was lost, or is still to come: wait for it, a bounded time at all */
	FLOW_UNREAD, /* old dialect before the first ready: wait until the inactivity deadline */
};

/* Embedded in its user; zero-initialised it is FLOW_FREE. */
struct flow {
	enum flow_guard guard;
	uint64_t kept; /* this byte and all after it are kept */
	bool overwriting;
};

void flow_guard(struct flow *f, enum flow_guard guard, uint64_t kept);

/* The reader has all before kept. Returns true when that is progress. */
bool flow_progress(struct flow *f, uint64_t kept);

/* How many bytes may be read into a ring of this head and capacity; 0: not now. */
size_t flow_room(const struct flow *f, uint64_t head, size_t capacity);
