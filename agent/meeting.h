/* meeting.h -- where runners and the agent of one user meet: a directory of mode 0700, in it a Unix
 * socket and a lock. Nobody else can stand in for either side. Thread: one. */
#pragma once

#include "agent/options.h"

struct meeting {
	int directory;
	int lock; /* -1 while it is not held */
};

/* Opens the directory beside --config, or the one in /tmp, and makes it when it is not there. Returns
 * 0, or -errno: -EPERM when it belongs to somebody else, is open to others or is a link. */
int meeting_init(struct meeting *m, const struct options *options);
void meeting_fini(struct meeting *m);

/* Of those who want to start an agent one goes first. Blocks for at most 10 s. Returns 0 or -errno. */
int meeting_lock(struct meeting *m);
void meeting_unlock(struct meeting *m);

/* Returns a blocking socket to the agent that runs, or -errno: -ECONNREFUSED when there is none. */
int meeting_connect(const struct meeting *m);

/* Returns a listening non-blocking socket in place of what an agent that is gone left, or -errno.
 * Caller holds the lock. */
int meeting_listen(const struct meeting *m);

/* Returns 0 when the peer of the socket has our user id, else -EPERM. */
int meeting_check_peer(int fd);
