/* http.h -- the listener: libmicrohttpd (epoll, a pool of threads) parses, this file authenticates,
 * routes, limits and answers; handlers/ has one file a resource. libmicrohttpd's types stay in http.c
 * and stream.c/ws.c of handlers/. */
#pragma once

#include <stdbool.h>

#include "service/error.h"

struct app;
struct http;

int http_create(struct app *app, struct http **ret, struct error *err);
/* From now on requests are refused, but for those that anybody may make (/readyz); what is under way
 * goes on. */
void http_quiesce(struct http *h);
/* All viewers should be gone. Blocks until the threads have ended. False when a connection is still with
 * another thread: libmicrohttpd would abort, so nothing was freed and the process has to go. */
bool http_destroy(struct http *h);
