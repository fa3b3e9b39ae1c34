/* event_pty.c -- what the viewers of the original's surface get: output and the end of it. They are told of no
 * states and sizes; lost output is told by a line in the output itself. */
#include "service/event_private.h"

#include <stdio.h>
#include <string.h>

#include "service/journal.h"
#include "wire/sse.h"
#include "wire/term_query.h"
#include "wire/utf8.h"

#define MESSAGE_BYTES_MAX 160

/* CAN ends what the terminal may be in the middle of. */
static const char lost_notice[] = "\x18\r\n[ptycast: output was lost here]\r\n";

static size_t put_text(char *out, enum viewer_format format, const struct feed *feed,
		       uint64_t offset, const uint8_t *data, size_t size)
{
	char *payload = out + WS_HEADER_BYTES_MAX;
	switch (format) {
	case VIEWER_PTY_SSE:
		return sse_output_text(out, feed->epoch, offset, data, size);
	case VIEWER_PTY_WS:
		return event_frame(out, WS_TEXT, utf8_replace((uint8_t *)payload, data, size));
	default:
		memcpy(payload, data, size);
		return event_frame(out, WS_BINARY, size);
	}
}

static size_t put_output(struct event_scratch *scratch, char *out, enum viewer_format format,
			 const struct feed *feed, struct position *pos)
{
	uint64_t head = journal_head(feed->journal);
	while (pos->offset < head) {
		bool replay = pos->offset < pos->live;
		uint64_t end = replay && pos->live < head ? pos->live : head;
		const uint8_t *data = NULL;
		size_t size = event_bytes(scratch, feed, format, pos, end, &data);
		if (size == 0)
			return 0;
		if (replay) {
			/* What is cut at the end of the replay is not asked yet. */
			bool last = end == pos->live && end - pos->offset <= EVENT_OUTPUT_BYTES;
			size_t taken;
			size = term_query_remove(scratch->filtered, data, size, last, &taken);
			if (taken == 0)
				return 0; /* more of the replay is to come */
			data = scratch->filtered;
			pos->offset += taken;
		} else {
			pos->live = 0; /* so that all who are here share what is made of it */
			pos->offset += size;
		}
		if (size > 0)
			return put_text(out, format, feed, pos->offset, data, size);
	}
	return 0;
}

/* The end, said by an event where the format has one. */
static size_t put_end(char *out, enum viewer_format format, const struct feed *feed,
		      const struct position *pos)
{
	if (format != VIEWER_PTY_SSE)
		return 0; /* the close says it */
	char json[JSON_ESCAPE_BYTES(MESSAGE_BYTES_MAX) + 32];
	const char *failure = event_failure(feed);
	size_t n;
	if (failure != NULL) {
		size_t size = strnlen(failure, MESSAGE_BYTES_MAX);
		n = (size_t)sprintf(json, "{\"message\":\"");
		n += json_escape(json + n, (const uint8_t *)failure, size);
		memcpy(json + n, "\"}", 2);
		return sse_event(out, true, feed->epoch, pos->offset + 1, "error", json, n + 2);
	}
	static const char name[] = "\"exit_code\":";
	const char *code = strstr(feed->exit_json, name);
	code = code == NULL ? "null" : code + sizeof(name) - 1;
	n = (size_t)snprintf(json, sizeof(json), "{\"code\":%.*s,%s", (int)strcspn(code, ",}"),
			     code, feed->exit_json + 1);
	return sse_event(out, true, feed->epoch, pos->offset + 1, "exit", json, n);
}

size_t event_pty_next(struct event_scratch *scratch, char *out, enum viewer_format format,
		      const struct feed *feed, struct position *pos)
{
	pos->notice = feed->notices + 1;
	if (!feed->ready || pos->exited)
		return 0;
	event_settle(feed, format, pos);
	if (pos->exited)
		return 0;
	if (pos->reset != 0) {
		pos->reset = 0;
		return put_text(out, format, feed, pos->offset, (const uint8_t *)lost_notice,
				sizeof(lost_notice) - 1);
	}
	size_t size = put_output(scratch, out, format, feed, pos);
	if (size > 0)
		return size;
	if (feed->exit_json == NULL || pos->offset != journal_head(feed->journal))
		return 0;
	pos->exited = true;
	return put_end(out, format, feed, pos);
}

const char *event_failure(const struct feed *feed)
{
	static const char failed[] = "{\"reason\":\"failed\"", lost[] = "{\"reason\":\"lost\"";
	if (feed->exit_json == NULL)
		return NULL;
	if (strncmp(feed->exit_json, failed, sizeof(failed) - 1) == 0)
		return feed->reason != NULL ? feed->reason : "the session could not be started";
	if (strncmp(feed->exit_json, lost, sizeof(lost) - 1) == 0)
		return feed->reason != NULL ? feed->reason : "the session was lost";
	return NULL;
}
