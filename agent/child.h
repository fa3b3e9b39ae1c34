/* child.h -- the process on a PTY: its end, and signals to it and to what it put into the foreground.
 * It stays a zombie until it is reaped, so that until then its number cannot name another process.
 * master is the PTY's, or -1 when it is closed. Thread: one. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Embedded in its user. */
struct child {
	pid_t pid; /* a session leader */
	bool reaped;
};

/* True when it ended; sets kind (enum pty2_exit_kind) and value then. */
bool child_ended(const struct child *c, uint8_t *kind, uint8_t *value);

/* Signals its own process group and the one in the foreground. */
void child_signal(const struct child *c, int master, int number);

/* Signals the process group in the foreground. Returns 0 or an errno. */
int child_signal_front(int master, int number);

/* Lets go of its number; waits when it has not ended. May be called twice. */
void child_reap(struct child *c);
