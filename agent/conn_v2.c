/* conn_v2.c -- version 2: frames with offsets, one holder a shell. docs/agent-protocol.md has every
 * byte; wire/pty_frame.h the codec. */
#include "agent/conn_v2.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/conn.h"
#include "agent/environment.h"
#include "agent/log.h"

#define SMALL_FRAME_BYTES 512 /* every frame but DATA */

static void send_frame(struct conn *c, const struct pty_frame *frame)
{
	uint8_t bytes[SMALL_FRAME_BYTES];
	conn_send(c, WS_BINARY, bytes, pty_frame_encode(frame, bytes));
}

static void fail(struct conn *c, enum pty2_error code, const char *text)
{
	size_t size = strnlen(text, SMALL_FRAME_BYTES / 2);
	send_frame(c, &(struct pty_frame){
			      .type = PTY2_ERROR,
			      .error = { (uint16_t)code, { (const uint8_t *)text, size } } });
	conn_close(c, CONN_CLOSE_CODE_ERROR, "");
}

/* --- OPEN --- */

static bool id_valid(struct pty_span id)
{
	static const char allowed[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
	for (size_t i = 0; i < id.size; i++) {
		if (id.data[i] == '\0' || strchr(allowed, id.data[i]) == NULL)
			return false;
	}
	return id.size >= 1 && id.size <= PTY2_ID_BYTES_MAX;
}

/* FNV-1a. It tells a repeated OPEN from another one; nobody gains by fooling it. */
static uint64_t hash(const uint8_t *data, size_t size)
{
	uint64_t h = 0xcbf29ce484222325;
	for (size_t i = 0; i < size; i++)
		h = (h ^ data[i]) * 0x100000001b3;
	return h;
}

/* A copy with a 0 at its end, at *at, which it moves behind it. */
static char *copy_string(struct pty_span span, char **at)
{
	char *string = *at;
	memcpy(string, span.data, span.size);
	string[span.size] = '\0';
	*at = string + span.size + 1;
	return string;
}

static void copy_strings(const struct pty_strings *strings, char **ret, char **at)
{
	struct pty_span span;
	size_t position = 0;
	while (pty_strings_next(strings, &position, &span))
		*ret++ = copy_string(span, at);
	*ret = NULL;
}

void conn_v2_opened(struct conn *c)
{
	const struct shell *s = c->opening;
	size_t token_size = strnlen(s->token, PTY2_TOKEN_BYTES_MAX);
	send_frame(c,
		   &(struct pty_frame){ .type = PTY2_OPENED,
					.opened = { c->opening_created,
						    s->epoch,
						    (uint32_t)s->child.pid,
						    { (const uint8_t *)s->token, token_size } } });
	c->opening = NULL;
}

void conn_v2_failed(struct conn *c, const char *command, const struct spawn_failure *failure)
{
	static const struct {
		enum pty2_error code;
		const char *what;
	} stages[] = {
		[SPAWN_PTY] = { PTY2_ERR_NO_PTY, "no PTY on this machine" },
		[SPAWN_CWD] = { PTY2_ERR_CWD, "working directory" },
		[SPAWN_COMMAND] = { PTY2_ERR_COMMAND, NULL },
		[SPAWN_FORK] = { PTY2_ERR_INTERNAL, "no process or memory" },
	};
	char text[SMALL_FRAME_BYTES / 2];
	const char *what = stages[failure->stage].what;
	snprintf(text, sizeof(text), "%.160s: %s", what != NULL ? what : command,
		 strerror(failure->error));
	c->opening = NULL;
	fail(c, stages[failure->stage].code, text);
}

/* Starts what the frame asks for. Answers at once only when that fails. */
static void start(struct conn *c, const struct pty_frame *f, uint64_t parameters)
{
	size_t pointers = (size_t)f->open.argv.count + f->open.env.count + 2;
	size_t bytes = f->open.argv.size + f->open.env.size + f->open.cwd.size + PTY2_ID_BYTES_MAX +
		       2 + pointers;
	char **strings = calloc(pointers, sizeof(char *));
	char *text = malloc(bytes);
	char **env = NULL;
	struct spawn_failure failure = { .stage = SPAWN_FORK, .error = ENOMEM };
	struct shell *s = NULL;
	int rc = -1;
	if (strings != NULL && text != NULL) {
		char *at = text;
		char *id = copy_string(f->open.id, &at);
		char *cwd = copy_string(f->open.cwd, &at);
		struct agent_open open = { .id = id,
					   .cwd = *cwd != '\0' ? cwd : c->agent->options->cwd,
					   .argv = strings,
					   .cols = f->open.cols,
					   .rows = f->open.rows,
					   .alone_s = f->open.alone_s,
					   .linger_s = f->open.linger_s,
					   .ring_bytes = f->open.ring_bytes,
					   .parameters = parameters };
		char **extra = strings + f->open.argv.count + 1;
		copy_strings(&f->open.argv, strings, &at);
		copy_strings(&f->open.env, extra, &at);
		env = environment_merge(environ, extra);
		open.env = env;
		if (env != NULL)
			rc = agent_open(c->agent, &open, &s, &failure);
	}
	if (rc == 0) {
		c->opening = s;
		c->opening_created = true;
	} else {
		conn_v2_failed(c, "", &failure);
	}
	free(env);
	free(text);
	free(strings);
}

static void open_shell(struct conn *c, const struct pty_frame *f, const struct ws_event *event)
{
	if (!c->control) {
		fail(c, PTY2_ERR_DENIED, "only the control token opens shells");
		return;
	}
	if (!id_valid(f->open.id) || f->open.cols > SHELL_CELLS_MAX ||
	    f->open.rows > SHELL_CELLS_MAX) {
		fail(c, PTY2_ERR_BAD_FRAME, "id or size out of its limits");
		return;
	}
	uint64_t parameters = hash(event->data, event->size);
	struct shell *s = agent_find(c->agent, f->open.id.data, f->open.id.size);
	if (s != NULL && s->parameters != parameters) {
		fail(c, PTY2_ERR_DIFFERS, "this id was opened with other parameters");
	} else if (s != NULL) {
		c->opening = s;
		c->opening_created = false;
		if (s->state != SHELL_STARTING)
			conn_v2_opened(c);
	} else if (!agent_make_room(c->agent)) {
		fail(c, PTY2_ERR_LIMIT, "too many shells");
	} else if (c->state == CONN_OPEN) { /* it may have held the shell that gave way */
		start(c, f, parameters);
	}
}

/* --- ATTACH --- */

static void on_changed(struct shell_viewer *v)
{
	conn_flush(CONTAINER_OF(v, struct conn, viewer));
}

static void on_input_drained(struct shell_viewer *v)
{
	(void)v; /* it gets a verdict on each message instead */
}

static void on_dropped(struct shell_viewer *v)
{
	struct conn *c = CONTAINER_OF(v, struct conn, viewer);
	c->shell = NULL;
	if (c->exit_told)
		conn_close(c, 1000, "forgotten");
	else
		fail(c, PTY2_ERR_NO_SHELL, "the shell is gone");
}

static void close_fenced(struct conn *c, uint64_t fence)
{
	char reason[24];
	snprintf(reason, sizeof(reason), "%llu", (unsigned long long)fence);
	conn_close(c, CONN_CLOSE_CODE_FENCED, reason);
}

static void attach(struct conn *c, const struct pty_frame *f)
{
	if (c->shell != NULL) {
		fail(c, PTY2_ERR_BAD_FRAME, "attached already");
		return;
	}
	struct shell *s = agent_find(c->agent, f->attach.id.data, f->attach.id.size);
	if (!c->control && (s == NULL || s->serial != c->allowed)) {
		fail(c, PTY2_ERR_DENIED, "the token is for another shell");
		return;
	}
	if (s == NULL) {
		fail(c, PTY2_ERR_NO_SHELL, "no such shell");
		return;
	}
	if (f->attach.fence < s->fence) {
		close_fenced(c, s->fence);
		return;
	}
	s->fence = f->attach.fence;
	if (s->holder != NULL)
		close_fenced(CONTAINER_OF(s->holder, struct conn, viewer), s->fence);

	bool other_epoch = f->attach.epoch != 0 && f->attach.epoch != s->epoch;
	bool oldest = other_epoch || f->attach.offset == PTY2_OFFSET_OLDEST;
	struct ring_cursor cursor = ring_cursor_at(&s->ring,
						   oldest ? s->ring.tail : f->attach.offset);
	struct pty_frame attached = { .type = PTY2_ATTACHED,
				      .attached = { .epoch = s->epoch,
						    .start = cursor.offset,
						    .head = s->ring.head,
						    .fence = s->fence } };
	ring_size_at(&s->ring, cursor.offset, &attached.attached.cols, &attached.attached.rows);
	send_frame(c, &attached);
	if (c->state != CONN_OPEN)
		return;
	c->shell = s;
	c->exit_told = false;
	c->viewer = (struct shell_viewer){ .cursor = cursor,
					   .holder = true,
					   .changed = on_changed,
					   .input_drained = on_input_drained,
					   .dropped = on_dropped };
	shell_attach(s, &c->viewer);
}

/* --- an attached one --- */

static void input(struct conn *c, const struct pty_frame *f)
{
	uint64_t expected = 0;
	enum pty2_verdict verdict = shell_input(c->shell, f->input.client, f->input.seq,
						f->input.bytes.data, f->input.bytes.size,
						&expected);
	send_frame(c, &(struct pty_frame){
			      .type = PTY2_INPUT_ACK,
			      .input_ack = { f->input.request, (uint8_t)verdict, expected } });
}

static void forget(struct conn *c)
{
	struct shell *s = c->shell;
	if (s->state != SHELL_ENDED)
		return;
	shell_detach(s, &c->viewer, true); /* so that this connection stays */
	c->shell = NULL;
	agent_forget(c->agent, s);
}

static void message_attached(struct conn *c, const struct pty_frame *f)
{
	switch (f->type) {
	case PTY2_INPUT:
		input(c, f);
		break;
	case PTY2_RESIZE:
		shell_resize(c->shell, f->resize.cols, f->resize.rows);
		break;
	case PTY2_SIGNAL: {
		int error = shell_signal(c->shell, f->signal.number);
		send_frame(c, &(struct pty_frame){
				      .type = PTY2_SIGNALED,
				      .signaled = { f->signal.request, (uint8_t)error } });
		break;
	}
	case PTY2_ACK:
		shell_acknowledge(c->shell, f->ack_offset);
		break;
	case PTY2_CLOSE:
		shell_hang_up(c->shell);
		break;
	case PTY2_FORGET:
		forget(c);
		break;
	default:
		fail(c, PTY2_ERR_BAD_FRAME, "not a frame for the agent");
		break;
	}
}

static void message(struct conn *c, const struct ws_event *event)
{
	struct pty_frame frame;
	if (event->type != WS_EVENT_BINARY ||
	    pty_frame_decode(event->data, event->size, &frame) < 0)
		fail(c, PTY2_ERR_BAD_FRAME, "not a frame of version 2");
	else if (frame.type == PTY2_OPEN)
		open_shell(c, &frame, event);
	else if (frame.type == PTY2_ATTACH)
		attach(c, &frame);
	else if (c->shell != NULL)
		message_attached(c, &frame);
	else
		fail(c, PTY2_ERR_BAD_FRAME, "not attached");
}

static bool next(struct conn *c)
{
	struct shell *s = c->shell;
	if (s == NULL)
		return false;
	struct ring_cursor before = c->viewer.cursor;
	struct ring_item item;
	ring_next(&s->ring, &c->viewer.cursor, CONN_DATA_BYTES_MAX, &item);
	switch (item.type) {
	case RING_BYTES: {
		struct pty_frame frame = { .type = PTY2_DATA, .data.offset = item.offset };
		uint8_t head[PTY2_DATA_HEADER_BYTES];
		size_t size = pty_frame_encode(&frame, head);
		if (conn_send_data(c, head, size, item.spans, item.span_count))
			return true;
		c->viewer.cursor = before;
		return false;
	}
	case RING_GAP:
	case RING_SIZE:
		send_frame(c, &(struct pty_frame){ .type = PTY2_SIZE,
						   .size = { item.offset, item.cols, item.rows } });
		return true;
	case RING_END:
		break;
	}
	if (s->state != SHELL_ENDED)
		return false;
	if (c->exit_told) {
		shell_exit_told(s); /* we are asked again, so the socket has taken all of it */
		return false;
	}
	send_frame(c, &(struct pty_frame){ .type = PTY2_EXIT,
					   .exit = { s->ring.head, s->exit_kind, s->exit_value } });
	c->exit_told = true;
	return true;
}

static void opened(struct conn *c, struct shell *s)
{
	(void)s; /* ATTACH says which */
	send_frame(c, &(struct pty_frame){
			      .type = PTY2_HELLO,
			      .hello = { .version = 2, .instance = c->agent->instance } });
}

static bool paused(const struct conn *c)
{
	return c->opening != NULL;
}

const struct conn_dialect conn_v2 = {
	.opened = opened,
	.message = message,
	.next = next,
	.paused = paused,
};
