/* sse_parse.h -- Server-Sent Events from bytes: the receiving side. Lines end with LF, CRLF or CR; one space
 * behind the colon is dropped; several data lines are joined by LF; a comment or an unknown field is nothing; a
 * name beyond 63 bytes is cut.
 * Source: the WHATWG's HTML standard, section 9.2.6. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sse_parser {
	char *data; /* owned; of the event that is being read */
	size_t size, capacity, max_bytes;
	char name[64];
	char *line; /* owned; an unfinished line */
	size_t line_size, line_capacity;
	bool has_data, after_cr, started, failed;
};

/* max_bytes: of one event's data, and of one line. */
void sse_parser_init(struct sse_parser *p, size_t max_bytes);
void sse_parser_fini(struct sse_parser *p); /* wipes */

/* Feeds size bytes; calls event for each that is complete (name "" when it has none; data is 0-terminated, good
 * during the call). event returns false to stop: the rest is not looked at. Returns 0, -ECANCELED when event
 * stopped, -EMSGSIZE, or -ENOMEM; after an error every call fails. */
int sse_parser_feed(struct sse_parser *p, const char *bytes, size_t size,
		    bool (*event)(void *arg, const char *name, const char *data, size_t data_size),
		    void *arg);
