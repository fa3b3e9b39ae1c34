/* event.h -- from a session's journal to the bytes that a viewer gets. A feed is what there is to see
 * of a session; a position is how far one viewer has seen it. Encoding is a pure function of the two, so
 * viewers at the same position share one encoding (a burst).
 * The order of events and their ids: DESIGN section 4. Thread: the session's loop. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/viewer.h"

struct journal;

#define EVENT_OUTPUT_BYTES (8u << 10) /* bytes of journal in one event */

/* A state that viewers are told of. */
#define FEED_NOTICES 12
struct feed_notice {
	const char *state; /* static text */
	const char *step;  /* static text or NULL */
	uint32_t step_ms;  /* since the session was created */
};

/* What a session shows. Embedded in it; it changes the fields and counts version up each time. */
struct feed {
	struct journal *journal; /* borrowed */
	uint64_t version;        /* +1 at each change of anything below or in the journal */
	bool ready;              /* the journal stands for the PTY: positions can be judged */
	uint64_t epoch;          /* 0: not known yet */
	struct feed_notice now;  /* what a new viewer is told first */
	const char *reason;      /* of now: owned by the session, or NULL */
	const char *error;       /* of now: a static slug, or NULL */
	uint32_t notices;        /* +1 each time viewers are to be told: feed_notify() */
	struct feed_notice told[FEED_NOTICES]; /* the newest of them, by number */
	bool attached;                         /* what the PTY writes comes at once */
	uint64_t replayed; /* what is in front of it was written when nobody was attached */
	bool final; /* nothing follows the head in this epoch: an incomplete character is over */
	const char *exit_json; /* set when it has ended: owned by the session */
};

enum position_start {
	POSITION_RUNNING = 0,
	POSITION_OLDEST, /* wants the oldest byte held */
	POSITION_RESUME, /* wants to go on at epoch and offset */
};

/* Where a viewer is. All-zero but for start is a new one. Compared as a whole by position_equal(). */
struct position {
	uint64_t epoch, offset;
	uint64_t mark;       /* number of the next size mark */
	uint32_t notice;     /* number of the next state event; 0 is due at once */
	uint16_t cols, rows; /* the size it was told last */
	uint8_t start;       /* enum position_start */
	bool exited;         /* it had the exit event */
	uint8_t reset;       /* 0, or the reset event that is due: enum reset_reason */
	uint64_t live;       /* VIEWER_PTY_...: what is in front of it is a replay */
};

/* Where a viewer starts that comes now; has_since: behind what it has had. */
struct position position_start(const struct feed *feed, enum viewer_format format, bool has_since,
			       uint64_t epoch, uint64_t offset);

bool position_equal(const struct position *a, const struct position *b);

/* Viewers are to be told of feed->now. */
void feed_notify(struct feed *feed);

struct burst_event {
	uint32_t end; /* offset in the burst's data behind this event */
	struct position after;
};

/* Events in a row, in one format. */
struct burst {
	const char *data;
	size_t size;
	unsigned count;
	const struct burst_event *events;
	struct position after; /* behind all of it; may differ from the start though count is 0 */
};

struct event_cache;
struct event_cache *event_cache_create(void);
void event_cache_destroy(struct event_cache *c);

/* The next events behind from: as many as fit into about 64 KiB; count 0 when there is nothing new.
 * The result is the cache's, good until the next call for that format. NULL without memory. */
const struct burst *event_burst(struct event_cache *c, const struct feed *feed,
				enum viewer_format format, const struct position *from);

/* Why there is no shell behind feed any more although it did not end: it could not be started, or was lost.
 * NULL when that is not so. As long-lived as the feed's texts. */
const char *event_failure(const struct feed *feed);

/* Drops what was kept for feed: it is going away. */
void event_cache_forget(struct event_cache *c, const struct feed *feed);
