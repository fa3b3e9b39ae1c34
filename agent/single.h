/* single.h -- --mode=single: one shell, and the agent ends with it. Thread: one. */
#pragma once

struct agent;

/* Starts the command. The handshake is printed when it runs; the status of the process follows the
 * original's table. Returns 0, or -1 when there is nothing to wait for (said on stderr). */
int single_start(struct agent *agent);
