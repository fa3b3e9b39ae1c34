/* runner.h -- a shell of the old dialect as seen by who started it: the handshake line, the messages
 * and the statuses of the original; and --mode=client, the runner itself. Thread: one. */
#pragma once

#include <stddef.h>

#include "agent/agent.h"
#include "agent/meeting.h"

#define RUNNER_TEXT_BYTES 256
#define RUNNER_INACTIVE "inactivity timeout waiting for remote connection"

/* agent_open() for the old dialect: without a command it fails, there is no shell by default. */
int runner_open(struct agent *agent, struct agent_open *open, struct shell **ret,
		struct spawn_failure *failure);

/* Says why a program could not be started, in the original's words where it has some. */
void runner_describe(const struct spawn_failure *failure, const char *command,
		     char ret[RUNNER_TEXT_BYTES]);

/* --mode=client, once an agent runs: has it start the command, prints the handshake, waits for the
 * end. fd is the connection to the agent. Returns the status of the process, or -EAGAIN when the agent
 * went away before it took the request. */
int runner_run(int fd, const struct options *options);
