/* agent.c -- transport "agent": version 2 of the protocol of our agent, docs/agent-protocol.md. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tunnel/tunnel.h"
#include "tunnel/ws_client.h"

#define ACK_EVERY_BYTES (128u << 10) /* not for each frame */
#define CONTROL_FRAME_BYTES_MAX 4096 /* any frame from the agent but DATA */
#define CLOSE_FENCED 4409
#define OFFSET_MAX (UINT64_C(1) << 62) /* no PTY says so much; beyond it sums could wrap */

struct tunnel {
	struct ws_client *client; /* NULL once it has ended */
	const struct tunnel_events *events;
	void *arg;
	/* What goes out when it is open: OPEN (if wanted) and ATTACH, encoded. Owned. */
	uint8_t *open_frame, *attach_frame;
	size_t open_size, attach_size;
	uint64_t instance;
	bool behind_gateway;
	uint64_t next_offset; /* expected */
	uint64_t acked;
	/* The message that is coming in: DATA goes on at once, others are collected. */
	bool in_data;
	size_t partial_size;
	uint8_t partial[CONTROL_FRAME_BYTES_MAX];
	bool failed;
	char error[200]; /* the agent's ERROR frame, until the close comes */
	enum tunnel_end error_end;
};

/* A protocol error of the far end: nothing it says is used any more. */
static void fail(struct tunnel *t, const char *text)
{
	if (t->failed)
		return;
	t->failed = true;
	struct ws_client *client = t->client;
	t->client = NULL;
	ws_client_destroy(client, 1002);
	t->events->ended(t->arg, TUNNEL_FAILED, 0, text); /* t may be gone now */
}

static int send_frame(struct tunnel *t, const struct pty_frame *frame)
{
	uint8_t out[64];
	assert(pty_frame_size(frame) <= sizeof(out));
	if (t->client == NULL)
		return -ENOTCONN;
	return ws_client_send(t->client, out, pty_frame_encode(frame, out), NULL, 0);
}

static void acknowledge(struct tunnel *t, uint64_t offset)
{
	if (offset < t->acked + ACK_EVERY_BYTES)
		return;
	struct pty_frame ack = { .type = PTY2_ACK, .ack_offset = offset };
	if (send_frame(t, &ack) == 0)
		t->acked = offset;
}

static void on_connected(void *arg)
{
	struct tunnel *t = arg;
	int rc = 0;
	if (t->open_frame != NULL) {
		t->events->opening(t->arg);
		rc = ws_client_send(t->client, t->open_frame, t->open_size, NULL, 0);
	}
	if (rc == 0)
		rc = ws_client_send(t->client, t->attach_frame, t->attach_size, NULL, 0);
	if (rc < 0)
		fail(t, "no memory for the opening");
}

static void on_error_frame(struct tunnel *t, const struct pty_frame *frame)
{
	int size = frame->error.text.size < 180 ? (int)frame->error.text.size : 180;
	snprintf(t->error, sizeof(t->error), "%.*s", size, (const char *)frame->error.text.data);
	t->error_end = frame->error.code == PTY2_ERR_NO_SHELL ? TUNNEL_GONE : TUNNEL_FAILED;
	if (t->error[0] == '\0')
		snprintf(t->error, sizeof(t->error), "agent error %u", frame->error.code);
}

/* False when an offset of the far end's cannot be. */
static bool offsets_possible(const struct pty_frame *frame)
{
	switch (frame->type) {
	case PTY2_ATTACHED:
		return frame->attached.start <= frame->attached.head &&
		       frame->attached.head < OFFSET_MAX && frame->attached.epoch != 0;
	case PTY2_SIZE:
		return frame->size.offset < OFFSET_MAX;
	case PTY2_EXIT:
		return frame->exit.end < OFFSET_MAX;
	case PTY2_DATA:
		return frame->data.offset < OFFSET_MAX;
	default:
		return true;
	}
}

static void on_frame(struct tunnel *t, const struct pty_frame *frame)
{
	if (!offsets_possible(frame)) {
		fail(t, "the agent gave an impossible offset");
		return;
	}
	switch (frame->type) {
	case PTY2_HELLO:
		if (frame->hello.version != 2) {
			fail(t, "the agent speaks another version");
			return;
		}
		t->instance = frame->hello.instance;
		break;
	case PTY2_OPENED:
		break;
	case PTY2_ATTACHED: {
		struct tunnel_attached attached = {
			.epoch = frame->attached.epoch,
			.start = frame->attached.start,
			.head = frame->attached.head,
			.instance = t->instance,
			.cols = frame->attached.cols,
			.rows = frame->attached.rows,
		};
		t->next_offset = t->acked = attached.start;
		/* It is known that the shell is there. */
		send_frame(t,
			   &(struct pty_frame){ .type = PTY2_ACK, .ack_offset = attached.start });
		t->events->attached(t->arg, &attached);
		break;
	}
	case PTY2_SIZE:
		t->events->resized(t->arg, frame->size.offset, frame->size.cols, frame->size.rows);
		break;
	case PTY2_INPUT_ACK:
		t->events->input_done(t->arg, frame->input_ack.request,
				      (enum pty2_verdict)frame->input_ack.verdict,
				      frame->input_ack.expected);
		break;
	case PTY2_SIGNALED:
		t->events->signaled(t->arg, frame->signaled.request, frame->signaled.error);
		break;
	case PTY2_EXIT:
		t->events->exited(t->arg, frame->exit.end, (enum pty2_exit_kind)frame->exit.kind,
				  frame->exit.value);
		break;
	case PTY2_ERROR:
		on_error_frame(t, frame);
		break;
	default:
		break; /* a later version's frame, or one for the other direction */
	}
}

static void on_data(struct tunnel *t, const uint8_t *data, size_t size)
{
	if (size == 0)
		return;
	uint64_t offset = t->next_offset;
	t->next_offset += size;
	t->events->output(t->arg, offset, data, size);
}

static void on_received(void *arg, const uint8_t *data, size_t size, bool first, bool final)
{
	struct tunnel *t = arg;
	if (t->client == NULL)
		return;
	if (first) {
		t->partial_size = 0;
		t->in_data = false;
	}
	if (!t->in_data) {
		/* The head of a DATA frame is enough to pass its bytes on as they come. */
		size_t want = sizeof(t->partial) - t->partial_size;
		bool is_data = t->partial_size > 0 ? t->partial[0] == PTY2_DATA
						   : size > 0 && data[0] == PTY2_DATA;
		if (is_data)
			want = PTY2_DATA_HEADER_BYTES - t->partial_size;
		size_t n = size < want ? size : want;
		memcpy(t->partial + t->partial_size, data, n);
		t->partial_size += n;
		data += n;
		size -= n;
		if (is_data && t->partial_size == PTY2_DATA_HEADER_BYTES) {
			struct pty_frame head;
			if (pty_frame_decode(t->partial, t->partial_size, &head) < 0 ||
			    !offsets_possible(&head)) {
				fail(t, "the agent sent a bad frame");
				return;
			}
			t->in_data = true;
			t->next_offset = head.data.offset;
		} else if (size > 0) {
			fail(t, "the agent sent a frame that is too long");
			return;
		}
	}
	if (t->in_data) {
		on_data(t, data, size);
	} else if (final) {
		struct pty_frame frame;
		int rc = pty_frame_decode(t->partial, t->partial_size, &frame);
		if (rc == 0)
			on_frame(t, &frame);
		else if (rc != -ENOTSUP)
			fail(t, "the agent sent a bad frame");
		return;
	}
}

static void on_drained(void *arg)
{
	(void)arg; /* the agent acknowledges input itself */
}

static void on_ended(void *arg, enum ws_client_end end, unsigned code, const char *text)
{
	struct tunnel *t = arg;
	t->client = NULL;
	if (t->error[0] != '\0')
		t->events->ended(t->arg, t->error_end, 0, t->error);
	else if (end == WS_CLIENT_CLOSED && code == CLOSE_FENCED)
		t->events->ended(t->arg, TUNNEL_FENCED, strtoull(text, NULL, 10),
				 "attached by another service");
	else if (end == WS_CLIENT_NOBODY)
		t->events->ended(t->arg, TUNNEL_GONE, 0, "the agent is gone");
	else if (end == WS_CLIENT_REFUSED && (code == 401 || code == 400) && !t->behind_gateway)
		t->events->ended(t->arg, TUNNEL_GONE, 0, "another agent is at that address");
	else
		t->events->ended(t->arg, TUNNEL_LOST, 0, text);
}

static const struct ws_client_events client_events = {
	.connected = on_connected,
	.received = on_received,
	.drained = on_drained,
	.ended = on_ended,
};

static size_t strings_size(const char *const *strings)
{
	size_t size = 0;
	for (; strings != NULL && *strings != NULL; strings++)
		size += 4 + strlen(*strings);
	return size;
}

static struct pty_strings strings_build(const char *const *strings, uint8_t *out)
{
	struct pty_strings ret = { .data = out };
	for (; strings != NULL && *strings != NULL; strings++) {
		ret.size += pty_strings_append(out + ret.size, *strings, strlen(*strings));
		ret.count++;
	}
	return ret;
}

static struct pty_span span(const char *text)
{
	return (struct pty_span){ .data = (const uint8_t *)text,
				  .size = text == NULL ? 0 : strlen(text) };
}

static uint8_t *encode(const struct pty_frame *frame, size_t *size)
{
	*size = pty_frame_size(frame);
	uint8_t *out = malloc(*size);
	if (out != NULL)
		pty_frame_encode(frame, out);
	return out;
}

static int encode_opening(struct tunnel *t, const struct tunnel_params *p)
{
	struct pty_frame attach = { .type = PTY2_ATTACH };
	attach.attach.id = span(p->shell);
	attach.attach.fence = p->fence;
	attach.attach.epoch = p->epoch;
	attach.attach.offset = p->offset;
	t->attach_frame = encode(&attach, &t->attach_size);
	if (t->attach_frame == NULL)
		return -ENOMEM;
	if (!p->open)
		return 0;
	uint8_t *strings = malloc(strings_size(p->command) + strings_size(p->env) + 1);
	if (strings == NULL)
		return -ENOMEM;
	struct pty_frame open = { .type = PTY2_OPEN };
	open.open.id = span(p->shell);
	open.open.cwd = span(p->cwd);
	open.open.cols = p->cols;
	open.open.rows = p->rows;
	open.open.alone_s = p->alone_s;
	open.open.linger_s = p->linger_s;
	open.open.ring_bytes = p->ring_bytes;
	open.open.argv = strings_build(p->command, strings);
	open.open.env = strings_build(p->env, strings + open.open.argv.size);
	t->open_frame = encode(&open, &t->open_size);
	free(strings);
	return t->open_frame == NULL ? -ENOMEM : 0;
}

static void destroy(struct tunnel *t, bool leave)
{
	if (t == NULL)
		return;
	ws_client_destroy(t->client, leave ? 1000 : 0);
	free(t->open_frame);
	free(t->attach_frame);
	free(t);
}

/* The path of the endpoint with v=2 in its query. */
static char *url_with_version(const char *url)
{
	size_t size = strlen(url) + 16;
	char *out = malloc(size);
	if (out == NULL)
		return NULL;
	const char *query = strchr(url, '?');
	if (query != NULL && (strstr(query, "?v=2") != NULL || strstr(query, "&v=2") != NULL))
		snprintf(out, size, "%s", url);
	else
		snprintf(out, size, "%s%sv=2", url, query == NULL ? "?" : "&");
	return out;
}

static int create(const struct tunnel_params *p, struct tunnel **ret, struct error *err)
{
	struct tunnel *t = calloc(1, sizeof(*t));
	char *url = url_with_version(p->url);
	int rc = -ENOMEM;
	if (t == NULL || url == NULL)
		goto out;
	t->events = p->events;
	t->arg = p->arg;
	t->behind_gateway = p->behind_gateway;
	rc = encode_opening(t, p);
	if (rc < 0)
		goto out;
	struct ws_header headers[1 + TUNNEL_HEADERS_MAX];
	size_t headers_count = 0;
	for (; headers_count < p->headers_count; headers_count++)
		headers[headers_count] = p->headers[headers_count];
	if (p->token != NULL)
		headers[headers_count++] = (struct ws_header){ "ptycast-token:", p->token };
	struct ws_client_params params = {
		.uv = p->uv,
		.lws = p->lws,
		.url = url,
		.headers = headers,
		.headers_count = headers_count,
		.events = &client_events,
		.arg = t,
	};
	rc = ws_client_create(&params, &t->client, err);
out:
	free(url);
	if (rc < 0) {
		destroy(t, false);
		return rc == -ENOMEM ? error_set(err, rc, "no memory for a tunnel") : rc;
	}
	*ret = t;
	return 0;
}

static int input(struct tunnel *t, uint64_t request, const uint8_t client[INPUT_CLIENT_BYTES],
		 uint64_t seq, const uint8_t *bytes, size_t size)
{
	struct pty_frame frame = { .type = PTY2_INPUT };
	uint8_t head[PTY2_INPUT_HEADER_BYTES];
	if (t->client == NULL)
		return -ENOTCONN;
	frame.input.request = request;
	memcpy(frame.input.client, client, INPUT_CLIENT_BYTES);
	frame.input.seq = seq;
	pty_frame_encode(&frame, head);
	return ws_client_send(t->client, head, sizeof(head), bytes, size);
}

static int resize(struct tunnel *t, uint16_t cols, uint16_t rows)
{
	struct pty_frame frame = { .type = PTY2_RESIZE, .resize = { .cols = cols, .rows = rows } };
	return send_frame(t, &frame);
}

static int send_signal(struct tunnel *t, uint64_t request, int number)
{
	struct pty_frame frame = { .type = PTY2_SIGNAL,
				   .signal = { .request = request, .number = (uint8_t)number } };
	return send_frame(t, &frame);
}

static void pause_reading(struct tunnel *t, bool pause)
{
	if (t->client != NULL)
		ws_client_pause(t->client, pause);
}

static int hang_up(struct tunnel *t)
{
	return send_frame(t, &(struct pty_frame){ .type = PTY2_CLOSE });
}

static int forget(struct tunnel *t)
{
	return send_frame(t, &(struct pty_frame){ .type = PTY2_FORGET });
}

const struct tunnel_ops tunnel_agent = {
	.name = "agent",
	.resends = true,
	.keeps = true,
	.signals = true,
	.create = create,
	.input = input,
	.resize = resize,
	.signal = send_signal,
	.pause = pause_reading,
	.acknowledge = acknowledge,
	.hang_up = hang_up,
	.forget = forget,
	.destroy = destroy,
};
