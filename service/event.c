/* event.c -- see event.h. */
#include "service/event_private.h"

#include <assert.h>
#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/journal.h"
#include "service/metrics.h"
#include "wire/base64.h"
#include "wire/sse.h"
#include "wire/utf8.h"
#include "wire/ws_frame.h"

#define BURST_BYTES (64u << 10)
/* position.live of a viewer that came while nobody was attached: it is known when somebody is. */
#define LIVE_UNKNOWN UINT64_MAX
#define BURST_EVENTS 64
#define EVENT_BYTES_MAX (SSE_OUTPUT_BYTES(EVENT_OUTPUT_BYTES) + 1024) /* any one event */

enum reset_reason { RESET_NONE, RESET_GAP, RESET_AHEAD, RESET_EPOCH };

static const struct {
	const char *name;
	enum metric metric;
} reset_reasons[] = {
	[RESET_GAP] = { "gap", METRIC_RESETS_GAP },
	[RESET_AHEAD] = { "ahead", METRIC_RESETS_AHEAD },
	[RESET_EPOCH] = { "epoch", METRIC_RESETS_EPOCH },
};

struct cached_burst {
	const struct feed *feed; /* NULL: nothing is kept */
	uint64_t version;
	struct position from;
	struct burst burst;
	struct burst_event events[BURST_EVENTS];
	char data[BURST_BYTES + EVENT_BYTES_MAX];
};

struct event_cache {
	struct cached_burst *formats[VIEWER_FORMAT_COUNT]; /* made when first wanted */
	struct event_scratch scratch;
};

bool position_equal(const struct position *a, const struct position *b)
{
	return a->offset == b->offset && a->epoch == b->epoch && a->mark == b->mark &&
	       a->notice == b->notice && a->cols == b->cols && a->rows == b->rows &&
	       a->start == b->start && a->exited == b->exited && a->reset == b->reset &&
	       a->live == b->live;
}

static bool is_pty(enum viewer_format format)
{
	return format == VIEWER_PTY_SSE || format == VIEWER_PTY_WS ||
	       format == VIEWER_PTY_WS_BINARY;
}

struct position position_start(const struct feed *feed, enum viewer_format format, bool has_since,
			       uint64_t epoch, uint64_t offset)
{
	struct position pos = { .start = has_since ? POSITION_RESUME : POSITION_OLDEST,
				.epoch = epoch,
				.offset = offset };
	if (is_pty(format))
		pos.live = feed->ready && feed->attached ? journal_head(feed->journal)
							 : LIVE_UNKNOWN;
	return pos;
}

struct event_cache *event_cache_create(void)
{
	return calloc(1, sizeof(struct event_cache));
}

void event_cache_destroy(struct event_cache *c)
{
	if (c == NULL)
		return;
	for (size_t i = 0; i < VIEWER_FORMAT_COUNT; i++)
		free(c->formats[i]);
	free(c);
}

void event_cache_forget(struct event_cache *c, const struct feed *feed)
{
	for (size_t i = 0; i < VIEWER_FORMAT_COUNT; i++)
		if (c->formats[i] != NULL && c->formats[i]->feed == feed)
			c->formats[i]->feed = NULL;
}

static bool is_text(enum viewer_format format)
{
	return format == VIEWER_SSE_TEXT || format == VIEWER_WS_TEXT || format == VIEWER_PTY_SSE ||
	       format == VIEWER_PTY_WS;
}

static bool is_ws(enum viewer_format format)
{
	return format == VIEWER_WS_TEXT || format == VIEWER_WS_BINARY;
}

size_t event_frame(char *out, enum ws_opcode opcode, size_t payload)
{
	uint8_t header[WS_HEADER_BYTES_MAX];
	size_t size = ws_header_encode(header, opcode, true, payload, NULL);
	memmove(out + size, out + WS_HEADER_BYTES_MAX, payload);
	memcpy(out, header, size);
	return size + payload;
}

/* An event whose data is JSON; json starts with '{'. */
static size_t put_json(char *out, enum viewer_format format, const struct feed *feed, bool has_id,
		       uint64_t offset, const char *name, const char *json, size_t json_size)
{
	if (!is_ws(format))
		return sse_event(out, has_id, feed->epoch, offset, name, json, json_size);
	char *payload = out + WS_HEADER_BYTES_MAX;
	size_t size = (size_t)sprintf(payload, "{\"event\":\"%s\",", name);
	if (has_id)
		size += (size_t)sprintf(payload + size, "\"id\":\"%016" PRIx64 ":%" PRIu64 "\",",
					feed->epoch, offset);
	memcpy(payload + size, json + 1, json_size - 1);
	return event_frame(out, WS_TEXT, size + json_size - 1);
}

static size_t put_output(char *out, enum viewer_format format, const struct feed *feed,
			 uint64_t offset, const uint8_t *data, size_t size)
{
	char *payload = out + WS_HEADER_BYTES_MAX;
	size_t n;
	switch (format) {
	case VIEWER_SSE_TEXT:
		return sse_output_text(out, feed->epoch, offset, data, size);
	case VIEWER_SSE_BASE64:
		return sse_output_base64(out, feed->epoch, offset, data, size);
	case VIEWER_WS_TEXT:
		n = (size_t)sprintf(payload,
				    "{\"event\":\"output\",\"id\":\"%016" PRIx64 ":%" PRIu64
				    "\",\"data\":\"",
				    feed->epoch, offset);
		n += json_escape(payload + n, data, size);
		memcpy(payload + n, "\"}", 2);
		return event_frame(out, WS_TEXT, n + 2);
	case VIEWER_WS_BINARY:
		offset = htobe64(offset);
		memcpy(payload, &offset, sizeof(offset));
		memcpy(payload + 8, data, size);
		return event_frame(out, WS_BINARY, size + 8);
	default:
		assert(false);
		return 0;
	}
}

static size_t put_resize(char *out, enum viewer_format format, const struct feed *feed,
			 struct position *pos, uint16_t cols, uint16_t rows)
{
	char json[64];
	int n = snprintf(json, sizeof(json), "{\"cols\":%u,\"rows\":%u}", cols, rows);
	pos->cols = cols;
	pos->rows = rows;
	return put_json(out, format, feed, true, pos->offset, "resize", json, (size_t)n);
}

void feed_notify(struct feed *feed)
{
	feed->notices++;
	feed->told[feed->notices % FEED_NOTICES] = feed->now;
}

/* The notice that is due at pos, which moves behind it. A new viewer is told what is now, others each
 * one; *newest: it has the reason, too. */
static const struct feed_notice *take_notice(const struct feed *feed, struct position *pos,
					     bool *newest)
{
	if (pos->notice != 0 && feed->notices - pos->notice >= FEED_NOTICES)
		pos->notice = feed->notices - FEED_NOTICES + 1;
	*newest = pos->notice == 0 || pos->notice == feed->notices;
	if (*newest) {
		pos->notice = feed->notices + 1;
		return &feed->now;
	}
	return &feed->told[pos->notice++ % FEED_NOTICES];
}

static size_t put_state(char *out, enum viewer_format format, const struct feed *feed,
			struct position *pos)
{
	char json[1280];
	bool newest;
	const struct feed_notice *notice = take_notice(feed, pos, &newest);
	size_t n = (size_t)sprintf(json, "{\"state\":\"%s\"", notice->state);
	if (notice->step != NULL)
		n += (size_t)snprintf(json + n, 96, ",\"step\":\"%.40s\",\"step_ms\":%u",
				      notice->step, notice->step_ms);
	if (newest && feed->error != NULL)
		n += (size_t)snprintf(json + n, 64, ",\"error\":\"%.40s\"", feed->error);
	if (newest && feed->reason != NULL) {
		size_t size = strlen(feed->reason);
		n += (size_t)sprintf(json + n, ",\"reason\":\"");
		n += json_escape(json + n, (const uint8_t *)feed->reason, size < 140 ? size : 140);
		json[n++] = '"';
	}
	if (feed->epoch != 0)
		n += (size_t)sprintf(json + n, ",\"epoch\":\"%016" PRIx64 "\"", feed->epoch);
	else
		n += (size_t)sprintf(json + n, ",\"epoch\":null");
	uint16_t cols, rows;
	uint64_t head = journal_head(feed->journal);
	journal_size_at(feed->journal, head, &cols, &rows);
	if (pos->cols == 0) {
		pos->cols = cols;
		pos->rows = rows;
	}
	if (feed->ready)
		n += (size_t)sprintf(json + n, ",\"offset\":%" PRIu64, head);
	else
		n += (size_t)sprintf(json + n, ",\"offset\":null");
	n += (size_t)sprintf(json + n, ",\"cols\":%u,\"rows\":%u}", cols, rows);
	return put_json(out, format, feed, false, 0, "state", json, n);
}

static size_t put_reset(char *out, enum viewer_format format, const struct feed *feed,
			struct position *pos)
{
	char json[80];
	int n = snprintf(json, sizeof(json), "{\"reason\":\"%s\",\"offset\":%" PRIu64 "}",
			 reset_reasons[pos->reset].name, pos->offset);
	pos->reset = RESET_NONE;
	return put_json(out, format, feed, true, pos->offset, "reset", json, (size_t)n);
}

/* Moves pos to offset, in the feed's epoch; text does not start inside a character. */
static void jump(const struct feed *feed, enum viewer_format format, struct position *pos,
		 uint64_t offset)
{
	const struct journal *j = feed->journal;
	if (is_text(format) && offset > 0) {
		uint8_t around[3 + UTF8_BYTES_MAX];
		uint64_t from = offset - journal_oldest(j) < 3 ? journal_oldest(j) : offset - 3;
		size_t before = (size_t)(offset - from);
		uint64_t left = journal_head(j) - offset;
		size_t after = left < UTF8_BYTES_MAX ? (size_t)left : UTF8_BYTES_MAX;
		journal_copy(j, from, around, before + after);
		offset += utf8_rest_of_character(around, before, around + before, after);
	}
	pos->epoch = feed->epoch;
	pos->offset = offset;
	pos->mark = journal_mark_from(j, offset);
}

/* Where those start who have no place. */
static uint64_t first_offset(const struct journal *j, enum viewer_format format)
{
	return is_pty(format) ? journal_recent(j) : journal_oldest(j);
}

static void jump_with_reset(const struct feed *feed, enum viewer_format format,
			    struct position *pos, enum reset_reason reason)
{
	const struct journal *j = feed->journal;
	if (pos->start == POSITION_RUNNING && pos->epoch != feed->epoch &&
	    pos->live != LIVE_UNKNOWN)
		pos->live = 0; /* it was an offset of the old one */
	jump(feed, format, pos, reason == RESET_GAP ? journal_rejoin(j) : first_offset(j, format));
	pos->reset = (uint8_t)reason;
	metric_add(reset_reasons[reason].metric, 1);
}

void event_settle(const struct feed *feed, enum viewer_format format, struct position *pos)
{
	const struct journal *j = feed->journal;
	uint64_t head = journal_head(j);
	if (pos->live == LIVE_UNKNOWN && feed->exit_json != NULL)
		pos->live = head;
	else if (pos->live == LIVE_UNKNOWN && feed->attached)
		pos->live = feed->replayed;
	if (pos->start == POSITION_OLDEST) {
		jump(feed, format, pos, first_offset(j, format));
	} else if (pos->epoch != feed->epoch) {
		jump_with_reset(feed, format, pos, RESET_EPOCH);
	} else if (pos->start == POSITION_RESUME && feed->exit_json != NULL &&
		   pos->offset == head + 1) {
		jump(feed, format, pos, head); /* had all; it came by a way that cannot say 204 */
		pos->exited = true;
	} else if (pos->offset > head) {
		jump_with_reset(feed, format, pos, RESET_AHEAD);
	} else if (pos->offset < journal_oldest(j)) {
		jump_with_reset(feed, format, pos, RESET_GAP);
	} else if (pos->start == POSITION_RESUME) {
		jump(feed, format, pos, pos->offset);
	}
	pos->start = POSITION_RUNNING;
}

/* How many bytes of [pos->offset, end) a text event may cover. 0: wait for the rest of a character. */
static size_t text_span(const struct feed *feed, const struct position *pos, uint64_t end,
			const uint8_t *data)
{
	size_t size = (size_t)(end - pos->offset);
	size_t tail = utf8_incomplete_tail(data, size);
	uint64_t head = journal_head(feed->journal);
	if (tail == 0 || (feed->final && end == head))
		return size;
	if (tail < size)
		return size - tail;
	/* Nothing but the start of a character: look behind the mark that cuts it. */
	uint8_t one[UTF8_BYTES_MAX];
	size_t left = head - pos->offset < sizeof(one) ? (size_t)(head - pos->offset) : sizeof(one);
	journal_copy(feed->journal, pos->offset, one, left);
	if (utf8_incomplete_tail(one, left) == left && !feed->final)
		return 0;
	bool valid;
	return utf8_step(one, left, &valid);
}

size_t event_bytes(struct event_scratch *scratch, const struct feed *feed,
		   enum viewer_format format, const struct position *pos, uint64_t end,
		   const uint8_t **data)
{
	const struct journal *j = feed->journal;
	if (end - pos->offset > EVENT_OUTPUT_BYTES)
		end = pos->offset + EVENT_OUTPUT_BYTES;
	if (end == pos->offset)
		return 0;
	size_t size = (size_t)(end - pos->offset);
	if (journal_peek(j, pos->offset, data) < size) {
		journal_copy(j, pos->offset, scratch->straddling, size);
		*data = scratch->straddling;
	}
	if (is_text(format)) {
		size_t span = text_span(feed, pos, end, *data);
		if (span > size) { /* a character that a mark cuts */
			journal_copy(j, pos->offset, scratch->straddling, span);
			*data = scratch->straddling;
		}
		size = span;
	}
	return size;
}

static size_t put_next_output(struct event_cache *c, char *out, enum viewer_format format,
			      const struct feed *feed, struct position *pos)
{
	uint64_t end = journal_head(feed->journal);
	const struct journal_mark *mark = journal_mark(feed->journal, pos->mark);
	if (mark != NULL && mark->offset < end)
		end = mark->offset;
	const uint8_t *data = NULL;
	size_t size = event_bytes(&c->scratch, feed, format, pos, end, &data);
	pos->offset += size;
	return size == 0 ? 0 : put_output(out, format, feed, pos->offset, data, size);
}

/* Writes the one next event behind pos and moves pos. Returns 0 when there is none. */
static size_t put_next(struct event_cache *c, char *out, enum viewer_format format,
		       const struct feed *feed, struct position *pos)
{
	if (is_pty(format))
		return event_pty_next(&c->scratch, out, format, feed, pos);
	if (pos->notice != feed->notices + 1)
		return put_state(out, format, feed, pos);
	if (!feed->ready || pos->exited)
		return 0;
	event_settle(feed, format, pos);
	if (pos->exited)
		return 0;
	if (pos->reset != RESET_NONE)
		return put_reset(out, format, feed, pos);
	const struct journal *j = feed->journal;
	const struct journal_mark *mark = journal_mark(j, pos->mark);
	if (mark == NULL && pos->mark < journal_marks_end(j)) { /* fell out of the list of marks */
		pos->mark = journal_mark_from(j, pos->offset);
		mark = journal_mark(j, pos->mark);
	}
	if (mark != NULL && mark->offset <= pos->offset) {
		pos->mark++;
		return put_resize(out, format, feed, pos, mark->cols, mark->rows);
	}
	uint16_t cols, rows;
	journal_size_at(j, pos->offset, &cols, &rows);
	if (cols != pos->cols || rows != pos->rows)
		return put_resize(out, format, feed, pos, cols, rows);
	size_t size = put_next_output(c, out, format, feed, pos);
	if (size > 0)
		return size;
	if (feed->exit_json == NULL || pos->offset != journal_head(j))
		return 0;
	pos->exited = true;
	return put_json(out, format, feed, true, pos->offset + 1, "exit", feed->exit_json,
			strlen(feed->exit_json));
}

const struct burst *event_burst(struct event_cache *c, const struct feed *feed,
				enum viewer_format format, const struct position *from)
{
	assert(feed != NULL);
	struct cached_burst *b = c->formats[format];
	if (b == NULL) {
		b = c->formats[format] = calloc(1, sizeof(*b));
		if (b == NULL)
			return NULL;
	}
	if (b->feed == feed && b->version == feed->version && position_equal(&b->from, from))
		return &b->burst;
	b->feed = feed;
	b->version = feed->version;
	b->from = *from;
	struct position pos = *from;
	size_t size = 0;
	unsigned count = 0;
	while (count < BURST_EVENTS && size < BURST_BYTES) {
		size_t n = put_next(c, b->data + size, format, feed, &pos);
		if (n == 0)
			break;
		size += n;
		b->events[count++] = (struct burst_event){ .end = (uint32_t)size, .after = pos };
	}
	b->burst = (struct burst){
		.data = b->data, .size = size, .count = count, .events = b->events, .after = pos
	};
	return &b->burst;
}
