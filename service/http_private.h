/* http_private.h -- what http.c, gate.c and request.c share, and nobody else. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "service/throttle.h"

struct app;
struct http;
struct MHD_Daemon;

struct listener {
	struct http *http;
	struct MHD_Daemon *daemon; /* NULL: not listening */
	int fd;                    /* of the listening socket, ours */
	bool is_loopback;
	bool is_metrics; /* serves /metrics alone, and nothing else does then */
};

struct http {
	struct app *app;
	struct listener main, metrics;
	struct throttle unauthorized; /* failed credentials by address */
	atomic_uint requests;         /* that are under way */
	atomic_uint calls;            /* connections that are with other threads */
	_Atomic int64_t bodies_bytes; /* of all request bodies held */
	atomic_bool quiesced;
};
