/* registry.h -- the agent's side of --mode=client: takes shells to start from a Unix socket, and tells
 * the runners how they went.
 *
 * A request is its size (32 bits, big-endian) and then strings, each with its 0: REGISTRY_VERSION,
 * cols, rows, inactivity deadline in ms, token (or empty), working directory, number of arguments, the
 * arguments, the environment. Answers are lines: "shell HANDSHAKE" when there is a handshake to print,
 * "end STATUS TEXT" when the runner has to end, with that status and TEXT (or none) on stderr. A runner
 * that goes away before its "end" takes its shell with it. Thread: one. */
#pragma once

#include <stdbool.h>

#define REGISTRY_VERSION "ptycast-1"
#define REGISTRY_REQUEST_BYTES_MAX (4u << 20)

struct agent;
struct registry;

/* Takes requests from the listening socket fd, which it owns from here on, and becomes
 * agent->registry and agent->runner. Returns 0 or -ENOMEM. */
int registry_create(struct agent *agent, int fd);

/* Takes no new requests. NULL is allowed, here and below. */
void registry_close(struct registry *r);
void registry_destroy(struct registry *r);

/* True when no runner waits for anything. */
bool registry_idle(const struct registry *r);
