/* conn_legacy.c -- the original's dialect: typed messages in, raw bytes out, many clients a shell.
 * It has no word for a hole in the output, so a client that falls behind the ring is closed. */
#include <stdio.h>

#include "agent/agent.h"
#include "agent/conn.h"

static void on_changed(struct shell_viewer *v)
{
	conn_flush(CONTAINER_OF(v, struct conn, viewer));
}

static void on_input_drained(struct shell_viewer *v)
{
	conn_resume(CONTAINER_OF(v, struct conn, viewer));
}

static void on_dropped(struct shell_viewer *v)
{
	struct conn *c = CONTAINER_OF(v, struct conn, viewer);
	c->shell = NULL;
	conn_close(c, CONN_CLOSE_CODE_BEHIND, "nobody was ready in time");
}

static void opened(struct conn *c, struct shell *s)
{
	/* All the output is for those who wait for it when the first of them is ready; who comes
	 * later sees what comes later. */
	c->shell = s;
	c->viewer = (struct shell_viewer){ .cursor = ring_cursor_at(&s->ring,
								    s->ready ? s->ring.head : 0),
					   .changed = on_changed,
					   .input_drained = on_input_drained,
					   .dropped = on_dropped };
	shell_attach(s, &c->viewer);
}

static void be_ready(struct conn *c)
{
	if (c->was_ready)
		return;
	c->was_ready = true;
	conn_send(c, WS_BINARY, NULL, 0); /* the original's answer; some clients wait for it */
	shell_set_ready(c->shell);
}

static void message(struct conn *c, const struct ws_event *event)
{
	struct pty_frame frame;
	if (event->type == WS_EVENT_TEXT) {
		shell_type(c->shell, event->data, event->size);
		return;
	}
	if (pty_frame_decode(event->data, event->size, &frame) < 0)
		return; /* the original drops what it does not know, and goes on */
	if (frame.type == PTY_MESSAGE)
		shell_type(c->shell, frame.message.data, frame.message.size);
	else if (frame.type == PTY_RESIZE)
		shell_resize(c->shell, frame.resize.cols, frame.resize.rows);
	else if (frame.type == PTY_READY)
		be_ready(c);
}

static void close_ended(struct conn *c)
{
	static const char *const texts[] = {
		[PTY2_EXITED] = "exited", [PTY2_SIGNALED_EXIT] = "signal"
	};
	const struct shell *s = c->shell;
	char reason[32];
	snprintf(reason, sizeof(reason), "%s %u", texts[s->exit_kind], s->exit_value);
	conn_close(c, 1000, reason);
}

static bool next(struct conn *c)
{
	struct shell *s = c->shell;
	if (!s->ready)
		return false;
	struct ring_cursor before;
	struct ring_item item;
	do {
		before = c->viewer.cursor;
		ring_next(&s->ring, &c->viewer.cursor, CONN_DATA_BYTES_MAX, &item);
	} while (item.type == RING_SIZE);

	if (item.type == RING_GAP) {
		conn_close(c, CONN_CLOSE_CODE_BEHIND, "too slow, output was overwritten");
		return false;
	}
	if (item.type == RING_END) {
		if (s->state == SHELL_ENDED)
			close_ended(c);
		return false;
	}
	if (!conn_send_data(c, NULL, 0, item.spans, item.span_count)) {
		c->viewer.cursor = before;
		return false;
	}
	if (c->shell != NULL)
		shell_viewer_moved(s);
	return true;
}

static bool paused(const struct conn *c)
{
	return c->shell->typing.congested;
}

const struct conn_dialect conn_legacy = {
	.opened = opened,
	.message = message,
	.next = next,
	.paused = paused,
};
