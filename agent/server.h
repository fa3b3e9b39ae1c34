/* server.h -- the HTTP side: listens, answers /health, and makes WebSocket connections of those who
 * may attach. Thread: one. */
#pragma once

#include <stddef.h>

struct agent;
struct conn;

/* Listens where the options say. Returns 0 or -errno. */
int server_listen(struct agent *agent);

/* Takes no more connections. */
void server_close(struct agent *agent);

/* Takes bytes of a request head that c is waiting for; answers when it is complete. */
void server_receive(struct conn *c, const void *data, size_t size);
