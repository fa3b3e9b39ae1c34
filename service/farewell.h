/* farewell.h -- a socket on which we have said the last word and that is to be closed. Closed at once, what the
 * peer still sends would be answered by a reset, which takes our last word with it: so that is read and
 * thrown away until the peer closes, for a bounded time. Thread: any. */
#pragma once

struct loop;

/* fd: non-blocking, its sending side shut down; stays the caller's, who closes it after ended(), which is
 * called once, on the loop's thread or, when there is no memory, at once. It must not block. */
void farewell_begin(struct loop *l, int fd, void (*ended)(void *arg), void *arg);
