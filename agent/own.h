/* own.h -- files and directories that nobody else can stand in for, and locks on them. Thread: any. */
#pragma once

#include <sys/types.h>

/* Opens a directory. Returns a descriptor, or -errno: -EPERM when it belongs to somebody else, has a
 * bit of forbidden in its mode, or is a link or no directory. */
int own_directory(const char *path, mode_t forbidden);

/* Opens a file of mode 0600 to read and write, and makes it when it is not there. Returns as above:
 * -EPERM when it belongs to somebody else, is open to others, or is a link or no plain file. */
int own_file(int directory, const char *name);

/* Takes the lock of flock(), which goes with all copies of fd, also those of a fork. Blocks for at
 * most wait_ms. Returns 0 or -errno: -ETIMEDOUT when it is held. */
int own_lock(int fd, unsigned wait_ms);
