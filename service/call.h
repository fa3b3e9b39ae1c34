/* call.h -- a connection that libmicrohttpd leaves alone while another thread has it: an answer is
 * worked out, or a viewer writes to its socket. Giving it back is one call, from any thread. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "service/reply.h"

struct MHD_Connection;
struct MHD_UpgradeResponseHandle;

struct call {
	struct MHD_Connection *connection;          /* suspended */
	struct MHD_UpgradeResponseHandle *upgraded; /* or upgraded; else NULL */
	atomic_uint *pending; /* borrowed: calls that are under way, for the stop */

	/* HTTP thread only, and after the connection was given back. */
	bool answered;
	struct reply reply;
};

/* Suspends the connection. To be called before anybody may answer, and in the callbacks of its own
 * HTTP thread, which looks at the resume only after they have returned: so an answer may come from any
 * thread at any time from here on, this one included. */
void call_begin(struct call *c, struct MHD_Connection *connection, atomic_uint *pending);

/* The same for an upgraded connection; its answer closes it. */
void call_begin_upgraded(struct call *c, struct MHD_UpgradeResponseHandle *upgraded,
			 atomic_uint *pending);

/* A reply_fn, arg is the call. Gives the connection back, after which c may be gone. reply may be
 * NULL: over. Exactly once for each call_begin(). Thread: any. */
void call_answer(void *arg, const struct reply *reply);
