/* http_head.h -- the head of an HTTP/1.1 request, as far as this server needs it; no I/O.
 * Strict: what RFC 9112 forbids is refused, not repaired. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define HTTP_HEAD_BYTES_MAX 8192

/* Strings point into the parsed text; absent headers are NULL. */
struct http_head {
	const char *method;
	const char *path;  /* without the query, not decoded */
	const char *query; /* behind the ?, not decoded; "" without one */
	const char *host;
	const char *origin;
	const char *websocket_key;
	const char *token;   /* Ptycast-Token */
	bool asks_upgrade;   /* Connection names "upgrade" */
	bool asks_websocket; /* Upgrade names "websocket" */
	bool version_13;     /* Sec-WebSocket-Version names "13" */
};

/* Bytes of the head in text, its empty line among them; 0 while that has not come. */
size_t http_head_find_end(const char *text, size_t size);

/* Parses a whole head of size bytes, which it changes. Returns 0, or -EBADMSG with ret undefined. */
int http_head_parse(char *text, size_t size, struct http_head *ret);

/* Finds the first parameter of that name in a query and writes it decoded and 0-terminated. Returns
 * true when it is there; one that is not well-formed, holds a NUL or does not fit is not. */
bool http_query_find(const char *query, const char *name, char *ret, size_t capacity);

/* True when the host of an Origin is the one of the Host header. */
bool http_origin_is_host(const char *origin, const char *host);
