/* viewer.c -- see viewer.h. */
#include "service/viewer.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "service/app.h"
#include "service/config.h"
#include "service/event.h"
#include "service/loop.h"
#include "service/metrics.h"
#include "service/session.h"
#include "service/viewer_ws.h"
#include "wire/ws_frame.h"

#define SHARE_BYTES (256u << 10)      /* written to one viewer before the next one's turn */
#define CONTROL_BYTES_MAX (16u << 10) /* frames that wait besides output; more and it is closed */
#define NOT_SENT_BYTES \
	(128 << 10) /* in the kernel for a peer that does not read: the rest is in the journal */
#define READS_MAX 4 /* of 16 KiB, before others have their turn */
#define STUCK_S 300 /* blocked that long without a byte taken: it is gone */
#define LINGER_US 2000000 /* WebSocket: from our close frame to the peer's */
#define WS_UNANSWERED 256
#define WS_UNANSWERED_BYTES (1u << 20) /* input under way before its socket is read on */

struct viewer {
	uv_poll_t poll;
	struct viewer *next, *prev;
	struct viewer_list *list; /* NULL once out of it */
	struct viewer_host *host;
	void (*ended)(void *arg);
	void *ended_arg;
	struct viewer_ws *ws; /* owned; NULL for SSE */
	struct position position;
	char *rest; /* owned: what follows in the middle of an event, and control frames */
	uint32_t rest_size, rest_sent, rest_capacity;
	uint32_t control_bytes; /* of rest, since it was empty */
	uint64_t rest_offset;   /* in front of the event whose rest that is */
	int fd;
	int poll_events;
	uint32_t unanswered; /* inputs whose reply is still to come: each knows this struct */
	uint32_t unanswered_bytes;
	uint64_t started_us, moved_us; /* moved: bytes went out, or it was not blocked */
	uint64_t max_age_us; /* 0: none; jittered, so that streams do not return together */
	uint64_t closing_us; /* 0, or since when it only sends its rest */
	int64_t expires_ms;
	uint8_t format;
	bool may_write;
	bool blocked;
	bool half_closed; /* WebSocket: close frame sent, waiting for the peer's end */
	bool gone;        /* out of the list; waits for libuv and for replies */
	bool handle_closed;
};

static void free_if_done(struct viewer *v)
{
	if (!v->handle_closed || v->unanswered > 0)
		return;
	viewer_ws_destroy(v->ws);
	free(v->rest);
	free(v);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct viewer *v = handle->data;
	v->handle_closed = true;
	free_if_done(v);
}

/* What a WebSocket speaks; NULL for SSE. */
static const struct viewer_ws_dialect *const dialects[VIEWER_FORMAT_COUNT] = {
	[VIEWER_WS_TEXT] = &viewer_ws_native,
	[VIEWER_WS_BINARY] = &viewer_ws_native,
	[VIEWER_PTY_WS] = &viewer_ws_pty,
	[VIEWER_PTY_WS_BINARY] = &viewer_ws_pty_binary,
};

static enum metric kind_metric(const struct viewer *v)
{
	return dialects[v->format] != NULL ? METRIC_VIEWERS_WS : METRIC_VIEWERS_SSE;
}

/* Ends it now: the socket goes back to its owner. */
static void finish(struct viewer *v)
{
	if (v->gone)
		return;
	v->gone = true;
	uv_poll_stop(&v->poll);
	if (v->prev != NULL)
		v->prev->next = v->next;
	else
		v->list->first = v->next;
	if (v->next != NULL)
		v->next->prev = v->prev;
	else
		v->list->last = v->prev;
	v->list->count--;
	v->list = NULL;
	metric_add(kind_metric(v), -1);
	v->host->gone(v->host, v);
	/* First: closing the handle takes the descriptor out of epoll, and it may be reused once it is
	 * given back. */
	uv_close((uv_handle_t *)&v->poll, on_handle_closed);
	v->ended(v->ended_arg);
}

static void on_socket(uv_poll_t *poll, int status, int events);

static void poll_for(struct viewer *v, int events)
{
	if (v->gone || v->poll_events == events)
		return;
	v->poll_events = events;
	uv_poll_start(&v->poll, events, on_socket);
}

/* A WebSocket with so much input under way is not read on. */
static bool asks_too_much(const struct viewer *v)
{
	return v->ws != NULL &&
	       (v->unanswered_bytes > WS_UNANSWERED_BYTES || v->unanswered > WS_UNANSWERED);
}

static void update_poll(struct viewer *v)
{
	/* An SSE client says nothing more: reading tells that it is gone. */
	int events = UV_READABLE | UV_DISCONNECT;
	if (asks_too_much(v))
		events = UV_DISCONNECT;
	if (v->blocked)
		events |= UV_WRITABLE;
	poll_for(v, events);
}

static int rest_append(struct viewer *v, const char *data, size_t size)
{
	if (v->rest_sent == v->rest_size)
		v->rest_sent = v->rest_size = 0;
	size_t need = v->rest_size + size;
	if (need > v->rest_capacity) {
		char *rest = realloc(v->rest, need);
		if (rest == NULL)
			return -ENOMEM;
		v->rest = rest;
		v->rest_capacity = (uint32_t)need;
	}
	assert(v->rest != NULL);
	memcpy(v->rest + v->rest_size, data, size);
	v->rest_size = (uint32_t)need;
	return 0;
}

static void rest_free(struct viewer *v)
{
	free(v->rest);
	v->rest = NULL;
	v->rest_size = v->rest_sent = v->rest_capacity = 0;
	v->control_bytes = 0;
	v->rest_offset = 0;
}

/* Returns the bytes taken, 0 when the socket is full, or -1 when it is gone. */
static ssize_t send_some(struct viewer *v, const char *data, size_t size)
{
	ssize_t n;
	do {
		n = send(v->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	metric_add(METRIC_VIEWER_WRITES, 1);
	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
	metric_add(METRIC_DELIVERED_BYTES, n);
	v->moved_us = loop_now_us();
	return n;
}

/* Sends what it holds itself. Returns 1 when all is out, 0 when the socket is full, -1 when gone. */
static int send_rest(struct viewer *v)
{
	while (v->rest_sent < v->rest_size) {
		ssize_t n = send_some(v, v->rest + v->rest_sent, v->rest_size - v->rest_sent);
		if (n <= 0)
			return (int)n;
		v->rest_sent += (uint32_t)n;
	}
	if (v->rest != NULL)
		rest_free(v);
	return 1;
}

/* All is sent of one that is closing. */
static void closing_done(struct viewer *v)
{
	if (v->ws == NULL) {
		finish(v);
		return;
	}
	/* Closing with unread bytes would reset the connection and take our last frames with it. */
	if (!v->half_closed) {
		v->half_closed = true;
		shutdown(v->fd, SHUT_WR);
	}
}

static void close_ws(struct viewer *v, uint16_t code, const char *reason);

/* It has had all there is of a session that is over. */
static void close_at_end(struct viewer *v)
{
	v->closing_us = loop_now_us();
	if (v->ws == NULL)
		return;
	const char *failure = dialects[v->format]->tells_failure ? event_failure(v->host->feed)
								 : NULL;
	if (failure != NULL)
		close_ws(v, 1011, failure);
	else
		close_ws(v, 1000, "exit");
}

enum viewer_flushed viewer_flush(struct viewer *v)
{
	if (v->gone)
		return VIEWER_GONE;
	if (v->ws != NULL && v->host->feed->ready)
		viewer_ws_opened(v->ws);
	if (v->gone)
		return VIEWER_GONE;
	size_t written = 0;
	v->blocked = false;
	for (;;) {
		int rc = send_rest(v);
		if (rc < 0) {
			finish(v);
			return VIEWER_GONE;
		}
		if (rc == 0) {
			v->blocked = true;
			update_poll(v);
			return VIEWER_BLOCKED;
		}
		if (v->closing_us != 0) {
			closing_done(v);
			break;
		}
		if (v->position.exited) {
			close_at_end(v);
			continue;
		}
		if (written >= SHARE_BYTES) {
			update_poll(v);
			return VIEWER_MORE;
		}
		const struct burst *burst = event_burst(loop_event_cache(v->host->loop),
							v->host->feed,
							(enum viewer_format)v->format,
							&v->position);
		if (burst == NULL)
			break; /* no memory: the next flush tries again */
		if (burst->count == 0) {
			bool exits = burst->after.exited;
			v->position = burst->after;
			if (exits)
				continue;
			break;
		}
		ssize_t n = send_some(v, burst->data, burst->size);
		if (n < 0) {
			finish(v);
			return VIEWER_GONE;
		}
		if ((size_t)n == burst->size) {
			v->position = burst->after;
			written += burst->size;
			metric_add(METRIC_DELIVERED_EVENTS, burst->count);
			continue;
		}
		/* It stopped inside an event: keep that event's rest, and the place behind it. */
		unsigned i = 0;
		while (burst->events[i].end <= (size_t)n)
			i++;
		size_t start = i == 0 ? 0 : burst->events[i - 1].end;
		v->rest_offset = i == 0 ? v->position.offset : burst->events[i - 1].after.offset;
		metric_add(METRIC_DELIVERED_EVENTS, i);
		if (start == (size_t)n) {
			if (i > 0)
				v->position = burst->events[i - 1].after;
		} else if (rest_append(v, burst->data + n, burst->events[i].end - (size_t)n) == 0) {
			v->position = burst->events[i].after;
			metric_add(METRIC_DELIVERED_EVENTS, 1);
		} else {
			finish(v);
			return VIEWER_GONE;
		}
		v->blocked = true;
		update_poll(v);
		return VIEWER_BLOCKED;
	}
	if (v->gone)
		return VIEWER_GONE;
	update_poll(v);
	return VIEWER_IDLE;
}

uint64_t viewer_offset(const struct viewer *v)
{
	bool here = v->position.start == POSITION_RUNNING &&
		    v->position.epoch == v->host->feed->epoch;
	if (!here)
		return 0;
	return v->rest_sent < v->rest_size && v->rest_offset != 0 ? v->rest_offset
								  : v->position.offset;
}

struct viewer *viewer_next(const struct viewer *v)
{
	return v->next;
}

/* Puts bytes behind the event that is under way. */
static void send_control(struct viewer *v, const char *data, size_t size)
{
	if (v->gone)
		return;
	v->control_bytes += (uint32_t)size;
	if (v->control_bytes > CONTROL_BYTES_MAX || rest_append(v, data, size) < 0) {
		finish(v); /* it asks and does not read the answers */
		return;
	}
	if (!v->blocked && send_rest(v) == 0) {
		v->blocked = true;
		update_poll(v);
	}
}

static void ws_send(void *arg, int opcode, const void *data, size_t size)
{
	struct viewer *v = arg;
	char frame[WS_HEADER_BYTES_MAX + 1024];
	assert(size <= 1024);
	if (v->closing_us != 0)
		return;
	size_t n = ws_header_encode((uint8_t *)frame, (enum ws_opcode)opcode, true, size, NULL);
	memcpy(frame + n, data, size);
	send_control(v, frame, n + size);
}

static void close_ws(struct viewer *v, uint16_t code, const char *reason)
{
	uint8_t payload[WS_CONTROL_BYTES_MAX];
	uint8_t frame[WS_HEADER_BYTES_MAX + WS_CONTROL_BYTES_MAX];
	size_t size = ws_close_encode(payload, code, reason);
	size_t n = ws_header_encode(frame, WS_CLOSE, true, size, NULL);
	memcpy(frame + n, payload, size);
	v->closing_us = loop_now_us();
	v->position.exited = true;
	if (rest_append(v, (const char *)frame, n + size) < 0)
		finish(v);
}

static void ws_close(void *arg, uint16_t code, const char *reason)
{
	struct viewer *v = arg;
	if (v->gone || v->closing_us != 0)
		return;
	close_ws(v, code, reason);
	viewer_flush(v);
}

/* One input of a WebSocket viewer until its reply has come. */
struct ws_input {
	struct viewer *viewer;
	uint64_t seq;
	size_t size;
};

static void on_input_reply(void *arg, const struct reply *reply)
{
	struct ws_input *input = arg;
	struct viewer *v = input->viewer;
	v->unanswered--;
	v->unanswered_bytes -= (uint32_t)input->size;
	if (!v->gone) {
		viewer_ws_answer(v->ws, input->seq, reply);
		update_poll(v);
	}
	free(input);
	if (v->gone)
		free_if_done(v);
}

static void ws_input(void *arg, const uint8_t client[INPUT_CLIENT_BYTES], uint64_t seq,
		     uint8_t *bytes, size_t size)
{
	struct viewer *v = arg;
	struct ws_input *input = malloc(sizeof(*input));
	if (input == NULL) {
		struct reply busy = reply_problem(503, "busy", "no memory");
		viewer_ws_answer(v->ws, seq, &busy);
		free(bytes);
		return;
	}
	*input = (struct ws_input){ .viewer = v, .seq = seq, .size = size };
	v->unanswered++;
	v->unanswered_bytes += (uint32_t)size;
	struct input in = {
		.seq = seq, .bytes = bytes, .size = size, .done = on_input_reply, .arg = input
	};
	memcpy(in.client, client, sizeof(in.client));
	v->host->input(v->host, &in);
}

static void ws_resize(void *arg, uint16_t cols, uint16_t rows)
{
	struct viewer *v = arg;
	v->host->resize(v->host, cols, rows);
}

static void ws_signal(void *arg, int number)
{
	struct viewer *v = arg;
	struct ws_input *input = malloc(sizeof(*input));
	if (input == NULL)
		return;
	*input = (struct ws_input){ .viewer = v };
	v->unanswered++;
	v->host->signal(v->host, number, on_input_reply, input);
}

static const struct viewer_ws_ops ws_ops = {
	.send = ws_send,
	.close = ws_close,
	.resize = ws_resize,
	.input = ws_input,
	.signal = ws_signal,
};

static void on_readable(struct viewer *v)
{
	uint8_t buffer[16384];
	for (int reads = 0; reads < READS_MAX; reads++) {
		ssize_t n = recv(v->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (n <= 0) {
			finish(v);
			return;
		}
		if (v->ws != NULL && v->closing_us == 0)
			viewer_ws_receive(v->ws, buffer, (size_t)n);
		if (v->gone)
			return;
		if (asks_too_much(v)) {
			update_poll(v);
			return;
		}
		if (n < (ssize_t)sizeof(buffer))
			return;
	}
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
	struct viewer *v = poll->data;
	if (status < 0 || (events & UV_DISCONNECT && v->ws == NULL)) {
		finish(v);
		return;
	}
	if (events & (UV_READABLE | UV_DISCONNECT))
		on_readable(v);
	if (!v->gone && events & UV_WRITABLE && v->blocked) {
		v->blocked = false;
		v->moved_us = loop_now_us();
		v->host->writable(v->host, v);
	}
}

int viewer_create(struct viewer_host *host, struct viewer_list *list, const struct viewer_params *p)
{
	assert(loop_is_current(host->loop));
	const struct config *cfg = host->app->config;
	struct viewer *v = calloc(1, sizeof(*v));
	if (v == NULL) {
		p->ended(p->arg);
		return -ENOMEM;
	}
	const struct viewer_ws_dialect *dialect = dialects[p->format];
	bool ws = dialect != NULL;
	if (ws)
		v->ws = viewer_ws_create(dialect, &ws_ops, v, p->may_write, cfg);
	if ((ws && v->ws == NULL) || uv_poll_init(loop_uv(host->loop), &v->poll, p->fd) < 0) {
		viewer_ws_destroy(v->ws);
		free(v);
		p->ended(p->arg);
		return -ENOMEM;
	}
	int unsent = NOT_SENT_BYTES;
	int stuck_ms = STUCK_S * 1000; /* a peer that is gone without a word */
	setsockopt(p->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &stuck_ms, sizeof(stuck_ms));
	setsockopt(p->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	v->poll.data = v;
	v->host = host;
	v->ended = p->ended;
	v->ended_arg = p->arg;
	v->fd = p->fd;
	v->format = (uint8_t)p->format;
	v->may_write = p->may_write;
	v->expires_ms = p->expires_ms;
	v->started_us = v->moved_us = loop_now_us();
	bool returns = !ws || dialect->returns;
	if (cfg->max_stream_age_s > 0 &&
	    returns) /* 90 to 110 %, by the address: no two need agree */
		v->max_age_us = cfg->max_stream_age_s * UINT64_C(10000) *
				(90 + ((uintptr_t)v >> 6) % 21);
	v->position = position_start(host->feed, p->format, p->has_since, p->since_epoch,
				     p->since_offset);
	v->list = list;
	v->prev = list->last;
	if (list->last != NULL)
		list->last->next = v;
	else
		list->first = v;
	list->last = v;
	list->count++;
	metric_add(kind_metric(v), 1);
	update_poll(v);
	for (size_t at = 0; ws && at < p->extra_size && v->closing_us == 0 && !v->gone;) {
		uint8_t extra[4096]; /* a copy, since it is unmasked in place */
		size_t size = p->extra_size - at < sizeof(extra) ? p->extra_size - at
								 : sizeof(extra);
		memcpy(extra, p->extra + at, size);
		viewer_ws_receive(v->ws, extra, size);
		at += size;
	}
	return 0;
}

static void start_closing(struct viewer *v, uint16_t code, const char *reason)
{
	if (v->gone || v->closing_us != 0)
		return;
	if (v->ws != NULL)
		close_ws(v, code, reason);
	else
		v->closing_us = loop_now_us();
	if (!v->gone && !v->blocked)
		viewer_flush(v);
}

static void expire(struct viewer *v)
{
	if (v->blocked)
		finish(v); /* it would go on reading what it has not got yet */
	else
		start_closing(v, v->ws == NULL ? 0 : dialects[v->format]->expired_code,
			      "the credential has expired");
}

void viewer_tick(struct viewer *v, uint64_t now_us, int64_t wall_ms)
{
	const struct config *cfg = v->host->app->config;
	if (v->ws != NULL && v->closing_us == 0)
		viewer_ws_tick(v->ws, now_us);
	if (v->gone)
		return;
	if (v->closing_us != 0) {
		uint64_t limit_us = v->half_closed ? LINGER_US : cfg->drain_s * UINT64_C(1000000);
		if (now_us - v->closing_us > limit_us)
			finish(v);
		return;
	}
	if (v->expires_ms != 0 && wall_ms >= v->expires_ms) {
		expire(v);
		return;
	}
	if (v->blocked) {
		if (now_us - v->moved_us > STUCK_S * UINT64_C(1000000))
			finish(v);
		return;
	}
	if (v->max_age_us != 0 && now_us - v->started_us >= v->max_age_us) {
		start_closing(v, 1001, "rotated: connect again");
	} else if (now_us - v->moved_us >= cfg->ping_s * UINT64_C(1000000)) {
		if (v->ws != NULL)
			ws_send(v, WS_PING, "", 0);
		else
			send_control(v, ": ping\n\n", 8);
	}
}

void viewer_drain(struct viewer *v, unsigned retry_ms)
{
	if (v->ws == NULL && v->closing_us == 0) {
		char text[32];
		int n = snprintf(text, sizeof(text), "retry: %u\n\n", retry_ms);
		send_control(v, text, (size_t)n);
	}
	start_closing(v, 1001, "draining: connect again");
}
