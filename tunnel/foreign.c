/* foreign.c -- transports of far ends that are not ours: no offsets, no replay, no exit status, no
 * acknowledgements and one shell a connection address. So each connection is an epoch of its own, input
 * counts as delivered when the socket has it, and repeats are dropped on our side. Two dialects of that:
 *
 * pty-tunnel, the original agent's (protocols/pty-tunnel.md): what is sent has a type byte, output is raw,
 * empty messages mean nothing, 404 until the runner has registered, a resize with 0 kills its input.
 *
 * raw, Runloop's own PTY (protocols/runloop.md, 7.5): bytes both ways and nothing else, so the size is the
 * provider's to set; one connection a shell at a time. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "tunnel/tunnel.h"
#include "tunnel/ws_client.h"

#define CLOSE_SHELL_ENDED 4000  /* raw */
#define PIECE_BYTES (32u << 10) /* of input in one message */
#define REQUESTS_MAX 256        /* inputs on their way into the socket */

struct dialect {
	bool typed; /* messages to the far end begin with a byte that says what they are */
	/* What the end of a connection means. code is a close code or an HTTP status; *text may be changed. */
	enum tunnel_end (*judge)(const struct tunnel *t, enum ws_client_end end, unsigned code,
				 const char **text);
};

struct tunnel {
	const struct dialect *dialect;
	struct ws_client *client; /* NULL once it has ended */
	const struct tunnel_events *events;
	void *arg;
	struct input_seq *dedupe; /* borrowed from the session */
	uint64_t epoch, offset;
	bool was_attached; /* by an earlier connection */
	bool behind_gateway;
	uint16_t cols, rows;
	unsigned requests_count;
	uint64_t requests[REQUESTS_MAX]; /* told done when the socket has taken all */
};

static int send_resize(struct tunnel *t)
{
	uint8_t out[8];
	struct pty_frame frame = { .type = PTY_RESIZE,
				   .resize = { .cols = t->cols, .rows = t->rows } };
	return ws_client_send(t->client, out, pty_frame_encode(&frame, out), NULL, 0);
}

static void on_connected(void *arg)
{
	struct tunnel *t = arg;
	if (t->dialect->typed) {
		uint8_t ready = PTY_READY;
		send_resize(t);
		ws_client_send(t->client, &ready, 1, NULL, 0);
	}
	struct tunnel_attached attached = { .epoch = t->epoch, .cols = t->cols, .rows = t->rows };
	t->events->attached(t->arg, &attached);
}

static void on_received(void *arg, const uint8_t *data, size_t size, bool first, bool final)
{
	struct tunnel *t = arg;
	(void)first;
	(void) final;
	if (size == 0)
		return;
	uint64_t offset = t->offset;
	t->offset += size;
	t->events->output(t->arg, offset, data, size);
}

static void on_drained(void *arg)
{
	struct tunnel *t = arg;
	unsigned count = t->requests_count;
	uint64_t requests[REQUESTS_MAX];
	memcpy(requests, t->requests, count * sizeof(*requests));
	t->requests_count = 0;
	for (unsigned i = 0; i < count; i++)
		t->events->input_done(t->arg, requests[i], PTY2_QUEUED, 0);
}

static enum tunnel_end judge_pty_tunnel(const struct tunnel *t, enum ws_client_end end,
					unsigned code, const char **text)
{
	if (end == WS_CLIENT_CLOSED && (code == 1000 || code == 1005)) {
		*text = "the far end closed";
		return TUNNEL_EXITED;
	}
	if (end == WS_CLIENT_REFUSED && code == 404 && t->was_attached) {
		*text = "the far end does not know this shell";
		return TUNNEL_GONE;
	}
	if (end == WS_CLIENT_REFUSED && (code == 400 || code == 401 || code == 403)) {
		*text = "the far end refused the tunnel's token";
		return TUNNEL_FAILED;
	}
	return TUNNEL_LOST;
}

static enum tunnel_end judge_raw(const struct tunnel *t, enum ws_client_end end, unsigned code,
				 const char **text)
{
	(void)t;
	if (end == WS_CLIENT_CLOSED && (code == CLOSE_SHELL_ENDED || code == 1000)) {
		*text = "the far end closed";
		return TUNNEL_EXITED;
	}
	if (end != WS_CLIENT_REFUSED)
		return TUNNEL_LOST;
	if (code == 404 || code == 410) {
		*text = "the far end does not know this shell";
		return TUNNEL_GONE;
	}
	if (code == 401 || code == 403) /* tokens are short-lived: the next one may do */
		*text = "the far end refused the tunnel's token";
	else if (code == 409) /* it may be our own last connection */
		*text = "somebody is attached to this shell";
	return TUNNEL_LOST;
}

static void on_ended(void *arg, enum ws_client_end end, unsigned code, const char *text)
{
	struct tunnel *t = arg;
	t->client = NULL;
	enum tunnel_end verdict = t->dialect->judge(t, end, code, &text);
	if (t->behind_gateway && end == WS_CLIENT_REFUSED)
		verdict = TUNNEL_LOST;
	t->events->ended(t->arg, verdict, 0, text);
}

static const struct ws_client_events client_events = {
	.connected = on_connected,
	.received = on_received,
	.drained = on_drained,
	.ended = on_ended,
};

static void destroy(struct tunnel *t, bool leave)
{
	if (t == NULL)
		return;
	ws_client_destroy(t->client, leave ? 1000 : 0);
	free(t);
}

static int create(const struct dialect *dialect, const struct tunnel_params *p, struct tunnel **ret,
		  struct error *err)
{
	struct tunnel *t = calloc(1, sizeof(*t));
	if (t == NULL)
		return error_set(err, -ENOMEM, "no memory for a tunnel");
	t->dialect = dialect;
	t->events = p->events;
	t->arg = p->arg;
	t->dedupe = p->dedupe;
	t->behind_gateway = p->behind_gateway;
	t->was_attached = p->epoch != 0;
	t->cols = p->cols;
	t->rows = p->rows;
	while (t->epoch == 0)
		if (getrandom(&t->epoch, sizeof(t->epoch), 0) < 0)
			abort();
	struct ws_client_params params = {
		.uv = p->uv,
		.lws = p->lws,
		.url = p->url,
		.headers = p->headers,
		.headers_count = p->headers_count,
		.events = &client_events,
		.arg = t,
	};
	int rc = ws_client_create(&params, &t->client, err);
	if (rc < 0) {
		free(t);
		return rc;
	}
	*ret = t;
	return 0;
}

static int create_pty_tunnel(const struct tunnel_params *p, struct tunnel **ret, struct error *err)
{
	static const struct dialect dialect = { .typed = true, .judge = judge_pty_tunnel };
	return create(&dialect, p, ret, err);
}

static int create_raw(const struct tunnel_params *p, struct tunnel **ret, struct error *err)
{
	static const struct dialect dialect = { .typed = false, .judge = judge_raw };
	return create(&dialect, p, ret, err);
}

static int input(struct tunnel *t, uint64_t request, const uint8_t client[INPUT_CLIENT_BYTES],
		 uint64_t seq, const uint8_t *bytes, size_t size)
{
	uint64_t expected = 0;
	if (t->client == NULL)
		return -ENOTCONN;
	if (t->requests_count == REQUESTS_MAX ||
	    !ws_client_has_room(t->client, size + size / 1024 + 64))
		return -EAGAIN;
	if (seq != 0) {
		switch (input_seq_check(t->dedupe, client, seq, &expected)) {
		case INPUT_SEQ_REPEAT:
			t->events->input_done(t->arg, request, PTY2_REPEATED, expected);
			return 0;
		case INPUT_SEQ_GAP:
			t->events->input_done(t->arg, request, PTY2_GAP, expected);
			return 0;
		case INPUT_SEQ_NEXT:
			break;
		}
	}
	/* Noted first, so that a repeat cannot be typed even when there is no memory later. */
	if (seq != 0 && input_seq_accept(t->dedupe, client, seq) < 0)
		return -EAGAIN;
	/* All pieces or none. */
	for (size_t at = 0; at < size;) {
		uint8_t type = PTY_MESSAGE;
		size_t n = size - at < PIECE_BYTES ? size - at : PIECE_BYTES;
		int rc = ws_client_send(t->client, &type, t->dialect->typed ? 1 : 0, bytes + at, n);
		if (rc < 0) { /* part of it may be on its way: the rest must not be typed alone */
			ws_client_destroy(t->client, 1011);
			t->client = NULL;
			t->events->ended(t->arg, TUNNEL_LOST, 0, "no memory for input");
			return 0;
		}
		at += n;
	}
	if (size == 0)
		t->events->input_done(t->arg, request, PTY2_QUEUED, seq + 1);
	else
		t->requests[t->requests_count++] = request;
	return 0;
}

static int resize(struct tunnel *t, uint16_t cols, uint16_t rows)
{
	if (!t->dialect->typed)
		return -ENOTSUP;
	if (t->client == NULL)
		return -ENOTCONN;
	t->cols = cols;
	t->rows = rows;
	int rc = send_resize(t);
	if (rc == 0)
		t->events->resized(t->arg, t->offset, cols, rows);
	return rc;
}

static int send_signal(struct tunnel *t, uint64_t request, int number)
{
	(void)t;
	(void)request;
	(void)number;
	return -ENOTSUP;
}

static void pause_reading(struct tunnel *t, bool pause)
{
	if (t->client != NULL)
		ws_client_pause(t->client, pause);
}

static int no_such_message(struct tunnel *t)
{
	(void)t;
	return -ENOTSUP;
}

const struct tunnel_ops tunnel_pty_tunnel = {
	.name = "pty-tunnel",
	.create = create_pty_tunnel,
	.input = input,
	.resize = resize,
	.signal = send_signal,
	.pause = pause_reading,
	.hang_up = no_such_message,
	.forget = no_such_message,
	.destroy = destroy,
};

const struct tunnel_ops tunnel_raw = {
	.name = "raw",
	.readdressed = true,
	.create = create_raw,
	.input = input,
	.resize = resize,
	.signal = send_signal,
	.pause = pause_reading,
	.hang_up = no_such_message,
	.forget = no_such_message,
	.destroy = destroy,
};
