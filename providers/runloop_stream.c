/* runloop_stream.c -- a command's stdout, line by line, out of a stream of events that may be cut anywhere and
 * is opened again as often as needed (protocols/runloop.md, section 5).
 *
 * The stream is asked for from the start of the last chunk, so that chunk may come again, or a part of it in
 * another cut: what repeats is found by its offset and by its bytes. Without offsets all comes from the start
 * again, and whole lines are skipped, not bytes: the server repairs characters that its chunks cut, so that the
 * same text may have another length in other chunks. */
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "providers/runloop_api_private.h"
#include "wire/sse_parse.h"
#include "wire/utf8.h"

#define WHAT "read-stdout"
#define LINE_BYTES_MAX 16384
#define EVENT_BYTES_MAX (1u << 20)
#define LOW_SPEED_S 180

enum reader_end {
	READER_OPEN,
	READER_AGAIN, /* the server wants us to ask again */
	READER_FOUND,
	READER_FAILED, /* rc and err say why */
};

struct reader {
	bool (*line)(void *arg, const char *line, size_t size);
	void *arg;
	const char *secret;       /* the API key, never to be shown */
	struct sse_parser parser; /* of this connection */
	enum reader_end end;
	int rc;
	struct error *err;

	char text[LINE_BYTES_MAX]; /* an unfinished line */
	size_t text_size;
	uint64_t lines_done; /* given to line() */
	uint64_t lines_skip; /* to come again */

	bool has_offset; /* the last chunk's is known */
	bool resumed;    /* what comes may be a repetition */
	uint64_t offset;
	char *last; /* owned; the last chunk */
	size_t last_size;
};

static bool fail(struct reader *r, int rc)
{
	r->end = READER_FAILED;
	r->rc = rc;
	return false;
}

/* A line is whole; false: it was the one. */
static bool end_line(struct reader *r)
{
	size_t size = r->text_size;
	r->text_size = 0;
	if (r->lines_skip > 0) {
		r->lines_skip--;
		return true;
	}
	r->lines_done++;
	if (size > 0 && r->text[size - 1] == '\r')
		size--;
	if (!r->line(r->arg, r->text, size))
		return true;
	r->end = READER_FOUND;
	return false;
}

static bool take_text(struct reader *r, const char *text, size_t size)
{
	while (size > 0) {
		const char *newline = memchr(text, '\n', size);
		size_t n = newline == NULL ? size : (size_t)(newline - text);
		if (n > sizeof(r->text) - r->text_size)
			return fail(r, ask_not_understood(r->err, WHAT, "a line is too long"));
		memcpy(r->text + r->text_size, text, n);
		r->text_size += n;
		if (newline == NULL)
			return true;
		if (!end_line(r))
			return false;
		text += n + 1;
		size -= n + 1;
	}
	return true;
}

/* How many bytes at the start of a chunk we have had already. */
static size_t repeated_bytes(const struct reader *r, uint64_t offset, const char *text, size_t size)
{
	if (offset >= r->offset + r->last_size)
		return 0;
	size_t before = 0, from = 0;
	if (offset < r->offset) { /* it ignored the offset that we asked for */
		if (r->offset - offset >= size)
			return size;
		before = (size_t)(r->offset - offset);
	} else {
		from = (size_t)(offset - r->offset);
	}
	/* A character that was cut at the end of the last chunk may be whole now. */
	size_t sure = r->last_size;
	while (sure >= UTF8_REPLACEMENT_BYTES &&
	       memcmp(r->last + sure - UTF8_REPLACEMENT_BYTES, UTF8_REPLACEMENT,
		      UTF8_REPLACEMENT_BYTES) == 0)
		sure -= UTF8_REPLACEMENT_BYTES;
	const size_t ends[] = { r->last_size, sure };
	for (size_t i = 0; i < 2; i++) {
		size_t same = ends[i] > from ? ends[i] - from : 0;
		if (same > size - before)
			same = size - before;
		if (memcmp(r->last + from, text + before, same) == 0)
			return before + same;
	}
	return before; /* other bytes: rather twice than never */
}

static bool remember_chunk(struct reader *r, uint64_t offset, const char *text, size_t size)
{
	char *copy = malloc(size);
	if (copy == NULL)
		return false;
	memcpy(copy, text, size);
	if (r->last != NULL)
		sodium_memzero(r->last, r->last_size);
	free(r->last);
	r->last = copy;
	r->last_size = size;
	r->offset = offset;
	r->has_offset = true;
	return true;
}

static bool take_chunk(struct reader *r, const json_t *root)
{
	const json_t *output = json_object_get(root, "output");
	const json_t *offset = json_object_get(root, "offset");
	if (!json_is_string(output) || json_string_length(output) == 0)
		return true; /* nothing is said in it */
	const char *text = json_string_value(output);
	size_t size = json_string_length(output), skip = 0;
	bool known = json_is_integer(offset) && json_integer_value(offset) >= 0;
	uint64_t at = known ? (uint64_t)json_integer_value(offset) : 0;
	if (!known && r->has_offset) {
		known = true;
		at = r->offset + r->last_size;
	}
	if (known && r->resumed)
		skip = repeated_bytes(r, at, text, size);
	if (skip == size)
		return true;
	r->resumed = false;
	if (known && !remember_chunk(r, at, text, size))
		return fail(r, error_set(r->err, -ENOMEM, "runloop: " WHAT ": no memory"));
	return take_text(r, text + skip, size - skip);
}

/* {"code":408,"message":"..."}: a code may be a text of digits. */
static bool take_error(struct reader *r, const json_t *root, const char *data, size_t size)
{
	const json_t *code = json_object_get(root, "code");
	long status = 500;
	if (json_is_integer(code))
		status = (long)json_integer_value(code);
	else if (json_is_string(code))
		status = strtol(json_string_value(code), NULL, 10);
	if (status == 408) {
		r->end = READER_AGAIN;
		return false;
	}
	if (status < 100 || status > 999)
		status = 500;
	return fail(r, ask_status_error(r->err, WHAT, (unsigned)status, data, size, r->secret));
}

/* An event; false: no more of them. */
static bool on_event(void *arg, const char *name, const char *data, size_t size)
{
	struct reader *r = arg;
	bool go_on;
	json_t *root = json_loadb(data, size, JSON_ALLOW_NUL, NULL);
	if (strcmp(name, "error") == 0)
		go_on = take_error(r, root, data, size);
	else if (!json_is_object(root))
		go_on = fail(r, ask_not_understood(r->err, WHAT, "an event is no JSON object"));
	else
		go_on = take_chunk(r, root);
	runloop_json_wipe(root);
	json_decref(root);
	return go_on;
}

static bool on_body(void *arg, const char *data, size_t size)
{
	struct reader *r = arg;
	int rc = sse_parser_feed(&r->parser, data, size, on_event, r);
	if (rc == -ENOMEM)
		return fail(r, error_set(r->err, rc, "runloop: " WHAT ": no memory"));
	if (rc == -EMSGSIZE)
		return fail(r, ask_not_understood(r->err, WHAT, "an event is too large"));
	return rc == 0;
}

/* Opens the stream once and reads it to its end. */
static void read_once(struct reader *r, struct ask *k, struct runloop_api *a, const char *devbox,
		      const char *execution, unsigned failures)
{
	r->end = READER_OPEN;
	r->resumed = r->has_offset && r->last_size > 0;
	if (!r->has_offset) {
		r->lines_skip = r->lines_done;
		r->text_size = 0;
	}
	sse_parser_init(&r->parser, EVENT_BYTES_MAX);
	ask_init(k, a, WHAT, "GET",
		 "/v1/devboxes/%s/executions/%s/stream_stdout_updates?offset=%llu", devbox,
		 execution, (unsigned long long)(r->has_offset ? r->offset : 0));
	ask_accept_events(k);
	k->request.timeout_ms = UINT32_MAX; /* the call's deadline holds */
	k->request.low_speed_s = LOW_SPEED_S;
	k->request.on_body = on_body;
	k->request.arg = r;
	k->attempts = failures;
	ask_try(k, 1);
	sse_parser_fini(&r->parser);
}

/* After one connection: 1 to open it again, else how it ended. */
static int next(struct reader *r, const struct ask *k, uint64_t started_us, unsigned *failures)
{
	const struct provider_call *call = k->api->call;
	const struct http_answer *answer = &k->answer;
	bool opened = k->bad == 0 && answer->status == 200;
	if (r->end == READER_FOUND)
		return 0;
	if (r->end == READER_FAILED)
		return r->rc;
	if (r->end == READER_AGAIN || (opened && answer->result == HTTP_CUT)) {
		*failures = 0;
		return ask_nap_after_poll(call, started_us) ? 1 : provider_call_check(call, r->err);
	}
	int rc = ask_result(k, r->err);
	if (rc < 0) {
		int64_t ms = k->bad < 0 ? -1 : ask_delay(k);
		if (ms < 0)
			return rc;
		(*failures)++;
		return ask_nap(call, ms) ? 1 : provider_call_check(call, r->err);
	}
	if (r->text_size > 0 && !end_line(r))
		return 0;
	return error_set_slug(r->err, -ENODATA, "provider-error",
			      "runloop: " WHAT ": the command's output ended");
}

int runloop_read_stdout(struct runloop_api *a, const char *devbox, const char *execution,
			bool (*line)(void *arg, const char *line, size_t size), void *arg,
			struct error *err)
{
	if (!runloop_id_valid(devbox) || !runloop_id_valid(execution))
		return error_set_slug(err, -ENOENT, "sandbox-unknown",
				      "runloop: " WHAT ": that is no id");
	struct reader r = { .line = line, .arg = arg, .secret = a->api_key, .err = err };
	unsigned failures = 0;
	int rc;
	do {
		struct ask k;
		uint64_t started_us = provider_now_us();
		read_once(&r, &k, a, devbox, execution, failures);
		rc = next(&r, &k, started_us, &failures);
		ask_fini(&k);
	} while (rc > 0);
	if (r.last != NULL)
		sodium_memzero(r.last, r.last_size);
	free(r.last);
	sodium_memzero(&r, sizeof(r));
	return rc;
}
