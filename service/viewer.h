/* viewer.h -- one reader of a session: a socket that was taken over from libmicrohttpd, and a position
 * in the session's feed. It has no queue: what it has not got yet is in the journal. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/reply.h"

struct input;

enum viewer_format {
	VIEWER_SSE_TEXT,
	VIEWER_SSE_BASE64,
	VIEWER_WS_TEXT,   /* everything is JSON text */
	VIEWER_WS_BINARY, /* output is binary, the rest JSON text */
	/* The original's: output and the end, nothing else. Replayed output asks the terminal nothing. */
	VIEWER_PTY_SSE,
	VIEWER_PTY_WS,        /* text of the terminal, no JSON */
	VIEWER_PTY_WS_BINARY, /* the bytes */
	VIEWER_FORMAT_COUNT,
};

struct viewer_params {
	int fd; /* connected, non-blocking; stays the caller's, who closes it after ended() */
	enum viewer_format format;
	bool has_since; /* Last-Event-ID or ?since= */
	uint64_t since_epoch, since_offset;
	bool may_write;       /* WebSocket: the role lets it type and resize */
	int64_t expires_ms;   /* Unix time at which the credential ends; 0: never */
	const uint8_t *extra; /* WebSocket: bytes that came right behind the request; copied */
	size_t extra_size;
	void (*ended)(void *arg); /* must not block */
	void *arg;
};

/* The rest is for session.c; thread: the session's loop. */

struct app;
struct feed;
struct loop;
struct viewer;

/* What a viewer asks of its session. */
struct viewer_host {
	struct app *app;         /* borrowed */
	struct loop *loop;       /* borrowed */
	const struct feed *feed; /* borrowed */
	/* v is over and out of the list; it frees itself. */
	void (*gone)(struct viewer_host *host, struct viewer *v);
	/* v was blocked and can be written to again: flush it soon. */
	void (*writable)(struct viewer_host *host, struct viewer *v);
	/* A WebSocket viewer that may write typed; bytes is malloc'd and given away. */
	void (*input)(struct viewer_host *host, const struct input *in);
	void (*resize)(struct viewer_host *host, uint16_t cols, uint16_t rows);
	void (*signal)(struct viewer_host *host, int number, reply_fn *done, void *arg);
};

/* A list of viewers; zero-initialised is empty. */
struct viewer_list {
	struct viewer *first, *last;
	unsigned count;
};

/* Makes a viewer at the end of list. p->ended is called when it is over, also when this fails. */
int viewer_create(struct viewer_host *host, struct viewer_list *list,
		  const struct viewer_params *p);
struct viewer *viewer_next(const struct viewer *v);

enum viewer_flushed {
	VIEWER_IDLE,    /* it has everything */
	VIEWER_BLOCKED, /* its socket is full; writable() will be called */
	VIEWER_MORE,    /* it had its share of this round */
	VIEWER_GONE,
};
/* Writes what v has not got yet. */
enum viewer_flushed viewer_flush(struct viewer *v);

/* Offset in front of the first event that is not wholly in its socket; 0 before it started. */
uint64_t viewer_offset(const struct viewer *v);

/* Pings, ends what is too old, expired or stuck. Once a second. */
void viewer_tick(struct viewer *v, uint64_t now_us, int64_t wall_ms);

/* Ends it in order: an SSE viewer is told to come back after retry_ms, a WebSocket is closed 1001. */
void viewer_drain(struct viewer *v, unsigned retry_ms);
