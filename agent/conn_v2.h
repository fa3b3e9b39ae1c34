/* conn_v2.h -- what the agent tells connections of version 2. Thread: one. */
#pragma once

struct conn;
struct shell;
struct spawn_failure;

/* The shell that c asked for runs. */
void conn_v2_opened(struct conn *c);

/* The shell that c asked for could not be started. */
void conn_v2_failed(struct conn *c, const char *command, const struct spawn_failure *failure);
