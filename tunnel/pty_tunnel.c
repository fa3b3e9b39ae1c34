/* pty_tunnel.c -- transport "pty-tunnel": the original agent's dialect. It has no offsets, no replay, no
 * exit status, no acknowledgements and one shell a connection address; so each connection is an epoch of
 * its own, input counts as delivered when the socket has it, and repeats are dropped on our side.
 * Its quirks (protocols/pty-tunnel.md): output is raw, empty messages mean nothing, 404 until the runner
 * has registered, a resize with 0 kills its input. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "tunnel/tunnel.h"
#include "tunnel/ws_client.h"

#define PIECE_BYTES (32u << 10) /* of input in one message */
#define REQUESTS_MAX 256        /* inputs on their way into the socket */

struct tunnel {
	struct ws_client *client; /* NULL once it has ended */
	const struct tunnel_events *events;
	void *arg;
	struct input_seq *dedupe; /* borrowed from the session */
	uint64_t epoch, offset;
	bool was_attached; /* by an earlier connection */
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
	uint8_t ready = PTY_READY;
	send_resize(t);
	ws_client_send(t->client, &ready, 1, NULL, 0);
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

static void on_ended(void *arg, enum ws_client_end end, unsigned code, const char *text)
{
	struct tunnel *t = arg;
	t->client = NULL;
	if (end == WS_CLIENT_CLOSED && (code == 1000 || code == 1005))
		t->events->ended(t->arg, TUNNEL_EXITED, 0, "the far end closed");
	else if (end == WS_CLIENT_REFUSED && code == 404 && t->was_attached)
		t->events->ended(t->arg, TUNNEL_GONE, 0, "the far end does not know this shell");
	else if (end == WS_CLIENT_REFUSED && (code == 400 || code == 401 || code == 403))
		t->events->ended(t->arg, TUNNEL_FAILED, 0,
				 "the far end refused the tunnel's token");
	else
		t->events->ended(t->arg, TUNNEL_LOST, 0, text);
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

static int create(const struct tunnel_params *p, struct tunnel **ret, struct error *err)
{
	struct tunnel *t = calloc(1, sizeof(*t));
	if (t == NULL)
		return error_set(err, -ENOMEM, "no memory for a tunnel");
	t->events = p->events;
	t->arg = p->arg;
	t->dedupe = p->dedupe;
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
		int rc = ws_client_send(t->client, &type, 1, bytes + at, n);
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
	.create = create,
	.input = input,
	.resize = resize,
	.signal = send_signal,
	.pause = pause_reading,
	.hang_up = no_such_message,
	.forget = no_such_message,
	.destroy = destroy,
};
