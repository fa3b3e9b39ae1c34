/* sse_reader.h -- takes the bytes of one event stream (with the HTTP head in front) cut anywhere, and
 * counts what is in it: events, the offset in their ids, marks. Lines are found by memchr(), which is
 * what lets one core read more than a service can write; the order id, event, data is relied on. */
#pragma once

#include "bench/bench.h"

struct sse_reader {
	int status; /* of the HTTP head; 0 until it came */
	bool in_body;
	char event; /* first character of the event's type: o(utput), s(tate), r(eset), e(xit) */
	bool exited;
	uint64_t id_offset;   /* of the id line of the event that is under way */
	uint64_t base_offset; /* where the first state event said the head was */
	uint64_t offset;      /* behind the last byte of output received */
	uint64_t outputs, states, resets, comments, marks;
	unsigned mark_digits; /* a mark was cut here by the end of an event; 0: none */
	uint64_t mark;
	char *line; /* owned: the start of a line whose end is still to come */
	size_t line_size, line_capacity;
	void (*on_mark)(void *arg, uint64_t ns); /* may be NULL, as on_output */
	void (*on_output)(void *arg);
	void *arg;
};

/* Goes on with a mark at its next digits. */
static inline const char *sse_take_mark(struct sse_reader *r, const char *at, const char *end)
{
	while (at < end && r->mark_digits < BENCH_MARK_DIGITS && *at >= '0' && *at <= '9') {
		r->mark = r->mark * 10 + (uint64_t)(*at++ - '0');
		r->mark_digits++;
	}
	if (r->mark_digits == BENCH_MARK_DIGITS) {
		r->mark_digits = 0;
		r->marks++;
		if (r->on_mark != NULL)
			r->on_mark(r->arg, r->mark);
	}
	return at;
}

static inline void sse_take_output(struct sse_reader *r, const char *data, size_t size)
{
	const char *at = data + strlen("{\"data\":\""), *end = data + size;
	r->outputs++;
	r->offset = r->id_offset;
	if (r->mark_digits > 0 && at < end)
		at = sse_take_mark(r, at, end);
	while (at < end && (at = memchr(at, BENCH_MARK, (size_t)(end - at))) != NULL) {
		r->mark = 0;
		at = sse_take_mark(r, at + 1, end);
	}
	if (r->on_output != NULL)
		r->on_output(r->arg);
}

static inline void sse_take_state(struct sse_reader *r, const char *data, size_t size)
{
	const char *at = memmem(data, size, "\"offset\":", 9);
	if (r->states++ == 0 && at != NULL && data[size - 1] == '}')
		r->base_offset = r->offset = strtoull(at + 9, NULL, 10);
}

static inline void sse_take_line(struct sse_reader *r, const char *line, size_t size)
{
	if (!r->in_body) {
		if (r->status == 0)
			r->status = atoi(line + strlen("HTTP/1.1 "));
		r->in_body = size == 1; /* "\r" */
	} else if (size > 6 && memcmp(line, "data: ", 6) == 0) {
		if (r->event == 'o')
			sse_take_output(r, line + 6, size - 6);
		else if (r->event == 's')
			sse_take_state(r, line + 6, size - 6);
		else if (r->event == 'r' && line[7] == '"' && line[8] == 'r') /* not a resize */
			r->resets++;
		else if (r->event == 'e')
			r->exited = true;
	} else if (size > 7 && memcmp(line, "event: ", 7) == 0) {
		r->event = line[7];
	} else if (size > 4 && memcmp(line, "id: ", 4) == 0) {
		const char *colon = memchr(line + 4, ':', size - 4);
		if (colon != NULL)
			r->id_offset = strtoull(colon + 1, NULL, 10);
	} else if (size > 0 && line[0] == ':') {
		r->comments++;
	}
}

static inline void sse_read(struct sse_reader *r, const char *data, size_t size)
{
	const char *end = data + size;
	while (data < end) {
		const char *newline = memchr(data, '\n', (size_t)(end - data));
		size_t n = (size_t)((newline == NULL ? end : newline) - data);
		if (newline == NULL || r->line_size > 0) {
			if (r->line_size + n + 1 > r->line_capacity) {
				r->line_capacity = r->line_size + n + 1;
				r->line = realloc(r->line, r->line_capacity);
				if (r->line == NULL)
					bench_die("no memory");
			}
			memcpy(r->line + r->line_size, data, n);
			r->line_size += n;
			if (newline != NULL) {
				sse_take_line(r, r->line, r->line_size);
				free(r->line);
				r->line = NULL;
				r->line_size = r->line_capacity = 0;
			}
		} else {
			sse_take_line(r, data, n);
		}
		data += n + 1;
	}
}
