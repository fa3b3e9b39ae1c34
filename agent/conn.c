/* conn.c -- see conn.h. */
#include "agent/conn.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/log.h"
#include "agent/server.h"
#include "wire/pty_frame.h"

#define HEAD_MS 10000 /* a request head and its answer */
#define END_MS 10000  /* without progress of the last bytes, or until the peer's end */
/* Small answers wait behind the rest of one data frame; with more than this the peer sends faster than
 * it reads, and is read no more until it has read. */
#define OUT_BYTES_MAX (CONN_DATA_BYTES_MAX + (32u << 10))
#define NOT_SENT_BYTES (256 << 10)

static const struct {
	const char *name;
	unsigned next; /* bit set of the states that may follow */
} conn_states[CONN_STATE_COUNT] = {
	[CONN_HEAD] = { "head", (1u << CONN_OPEN) | (1u << CONN_CLOSING) | (1u << CONN_DEAD) },
	[CONN_OPEN] = { "open", (1u << CONN_CLOSING) | (1u << CONN_DEAD) },
	[CONN_CLOSING] = { "closing", (1u << CONN_CLOSED) | (1u << CONN_DEAD) },
	[CONN_CLOSED] = { "closed", 1u << CONN_DEAD },
	[CONN_DEAD] = { "dead", 0 },
};

/* The only writer of c->state. */
static void enter(struct conn *c, enum conn_state next)
{
	assert(conn_states[c->state].next & (1u << next));
	log_debug("connection state fd=%d from=%s to=%s", c->watch.fd, conn_states[c->state].name,
		  conn_states[next].name);
	c->state = next;
}

static bool is_paused(const struct conn *c)
{
	return c->state == CONN_OPEN && (c->out.size > OUT_BYTES_MAX || c->dialect->paused(c));
}

static void watch_socket(struct conn *c)
{
	if (c->state == CONN_DEAD)
		return;
	uint32_t events = is_paused(c) ? 0 : EPOLLIN;
	if (c->out.size > 0 || c->socket_full)
		events |= EPOLLOUT;
	loop_watch(&c->agent->loop, &c->watch, events);
}

static void leave_shell(struct conn *c, bool clean)
{
	if (c->shell != NULL)
		shell_detach(c->shell, &c->viewer, clean);
	c->shell = NULL;
	c->opening = NULL;
}

void conn_drop(struct conn *c, bool clean)
{
	if (c->state == CONN_DEAD)
		return;
	enter(c, CONN_DEAD);
	leave_shell(c, clean);
	loop_timer_clear(&c->timeout);
	loop_timer_clear(&c->ping);
	loop_unwatch(&c->agent->loop, &c->watch);
	close(c->watch.fd);
	c->agent->conn_count--;
	c->agent->dead_count++;
}

void conn_destroy(struct conn *c)
{
	list_remove(&c->node);
	ws_decoder_fini(&c->decoder);
	queue_fini(&c->in);
	queue_fini(&c->out);
	free(c);
}

/* --- out --- */

/* Takes over what sendmsg() said of size bytes. Returns how many went out, or -1 when it is over. */
static ssize_t sent(struct conn *c, ssize_t result, size_t size)
{
	if (result < 0 && errno != EAGAIN && errno != EINTR) {
		conn_drop(c, false);
		return -1;
	}
	if (result < 0)
		result = 0;
	if ((size_t)result < size)
		c->socket_full = true;
	if (result > 0 && c->state == CONN_CLOSING)
		loop_timer_set(&c->agent->loop, &c->timeout, END_MS);
	return result;
}

static void send_queue(struct conn *c)
{
	struct iovec spans[2];
	struct msghdr message = { .msg_iov = spans };
	message.msg_iovlen = (size_t)queue_spans(&c->out, spans);
	ssize_t size = sent(c, sendmsg(c->watch.fd, &message, MSG_NOSIGNAL), c->out.size);
	if (size > 0)
		queue_drop(&c->out, (size_t)size);
}

void conn_flush(struct conn *c)
{
	while (c->state < CONN_CLOSED && !c->socket_full) {
		if (c->out.size > 0)
			send_queue(c);
		else if (c->state != CONN_OPEN || !c->dialect->next(c))
			break;
	}
	if (c->state == CONN_CLOSING && c->out.size == 0) {
		/* Not close(): with bytes of the peer still unread that would cut off what it has
		 * not received yet. */
		(void)shutdown(c->watch.fd, SHUT_WR);
		enter(c, CONN_CLOSED);
	}
	watch_socket(c);
}

static void queue_out(struct conn *c, const void *data, size_t size)
{
	if (c->state < CONN_CLOSING && queue_append(&c->out, data, size) < 0)
		conn_drop(c, false);
}

void conn_send(struct conn *c, enum ws_opcode opcode, const void *payload, size_t size)
{
	uint8_t header[WS_HEADER_BYTES_MAX];
	queue_out(c, header, ws_header_encode(header, opcode, true, size, NULL));
	queue_out(c, payload, size);
}

bool conn_send_data(struct conn *c, const void *head, size_t head_size, const struct iovec *spans,
		    int span_count)
{
	size_t size = head_size;
	for (int i = 0; i < span_count; i++)
		size += spans[i].iov_len;
	uint8_t front[WS_HEADER_BYTES_MAX + PTY2_DATA_HEADER_BYTES];
	assert(head_size <= PTY2_DATA_HEADER_BYTES && span_count <= 2 && c->out.size == 0);
	size_t front_size = ws_header_encode(front, WS_BINARY, true, size, NULL);
	if (head_size > 0)
		memcpy(front + front_size, head, head_size);
	front_size += head_size;
	size += front_size - head_size;

	struct iovec all[3] = { { front, front_size } };
	for (int i = 0; i < span_count; i++)
		all[1 + i] = spans[i];
	struct msghdr message = { .msg_iov = all, .msg_iovlen = (size_t)span_count + 1 };
	ssize_t done = sent(c, sendmsg(c->watch.fd, &message, MSG_NOSIGNAL), size);
	if (done <= 0)
		return false;
	/* The ring may overwrite the rest before the socket takes it. */
	size_t skip = (size_t)done;
	for (int i = 0; i <= span_count; i++) {
		size_t part = skip < all[i].iov_len ? skip : all[i].iov_len;
		queue_out(c, (const uint8_t *)all[i].iov_base + part, all[i].iov_len - part);
		skip -= part;
	}
	return true;
}

/* --- the end --- */

static void begin_close(struct conn *c, uint16_t code, const char *reason, bool clean)
{
	if (c->state != CONN_OPEN)
		return;
	uint8_t payload[WS_CONTROL_BYTES_MAX];
	/* 1005 stands for "no code"; it is answered with none. */
	size_t size = code == 1005 ? 0 : ws_close_encode(payload, code, reason);
	conn_send(c, WS_CLOSE, payload, size);
	leave_shell(c, clean);
	if (c->state == CONN_OPEN) {
		loop_timer_clear(&c->ping);
		conn_finish(c);
	}
}

void conn_close(struct conn *c, uint16_t code, const char *reason)
{
	begin_close(c, code, reason, false);
}

void conn_finish(struct conn *c)
{
	if (c->state >= CONN_CLOSING)
		return;
	enter(c, CONN_CLOSING);
	loop_timer_set(&c->agent->loop, &c->timeout, END_MS);
	conn_flush(c);
}

/* --- in --- */

static void handle(struct conn *c, const struct ws_event *event)
{
	switch (event->type) {
	case WS_EVENT_TEXT:
	case WS_EVENT_BINARY:
		c->dialect->message(c, event);
		break;
	case WS_EVENT_PING:
		conn_send(c, WS_PONG, event->data, event->size);
		break;
	case WS_EVENT_CLOSE:
		begin_close(c, event->close_code, "", true);
		break;
	case WS_EVENT_ERROR:
		begin_close(c, event->close_code, "", false);
		break;
	case WS_EVENT_PONG:
	case WS_EVENT_NONE:
		break;
	}
}

static void feed(struct conn *c, uint8_t *data, size_t size)
{
	while (size > 0 && c->state == CONN_OPEN) {
		if (is_paused(c)) {
			if (queue_append(&c->in, data, size) < 0)
				conn_drop(c, false);
			return;
		}
		struct ws_event event;
		ssize_t taken = ws_decoder_feed(&c->decoder, data, size, &event);
		if (taken < 0) {
			conn_drop(c, false);
			return;
		}
		data += taken;
		size -= (size_t)taken;
		handle(c, &event);
	}
}

void conn_resume(struct conn *c)
{
	if (c->in.size > 0 && c->state == CONN_OPEN && !is_paused(c)) {
		struct queue in = c->in;
		c->in = (struct queue){ 0 };
		struct iovec spans[2];
		int count = queue_spans(&in, spans);
		for (int i = 0; i < count; i++)
			feed(c, spans[i].iov_base, spans[i].iov_len);
		queue_fini(&in);
	}
	conn_flush(c);
}

static void receive(struct conn *c)
{
	uint8_t *data = c->agent->received;
	ssize_t size = recv(c->watch.fd, data, AGENT_RECEIVE_BYTES, 0);
	if (size < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (size <= 0) {
		conn_drop(c, false);
		return;
	}
	c->heard_ms = loop_now_ms();
	if (c->state == CONN_HEAD)
		server_receive(c, data, (size_t)size);
	else
		feed(c, data, (size_t)size);
}

static void on_socket(struct loop_watch *w, uint32_t events)
{
	struct conn *c = CONTAINER_OF(w, struct conn, watch);
	if (events & EPOLLOUT) {
		c->socket_full = false;
		c->heard_ms = loop_now_ms(); /* the peer took something, else there was no room */
	}
	if (events & EPOLLIN)
		receive(c);
	else if (events & (EPOLLERR | EPOLLHUP))
		conn_drop(c, false);
	conn_resume(c);
}

static void on_timeout(struct loop_timer *t)
{
	struct conn *c = CONTAINER_OF(t, struct conn, timeout);
	if (c->state == CONN_OPEN) {
		uint64_t dead_ms = c->agent->options->dead_ms;
		uint64_t silent_ms = loop_now_ms() - c->heard_ms;
		if (is_paused(c)) /* it is we who do not listen */
			silent_ms = 0;
		if (silent_ms < dead_ms) {
			loop_timer_set(&c->agent->loop, t, dead_ms - silent_ms);
			return;
		}
		log_debug("connection silent fd=%d silent_ms=%llu", c->watch.fd,
			  (unsigned long long)silent_ms);
	}
	conn_drop(c, false);
}

static void on_ping(struct loop_timer *t)
{
	struct conn *c = CONTAINER_OF(t, struct conn, ping);
	loop_timer_set(&c->agent->loop, t, c->agent->options->ping_ms);
	if (c->out.size == 0 && !c->socket_full)
		conn_send(c, WS_PING, NULL, 0);
	conn_flush(c);
}

struct conn *conn_create(struct agent *agent, int fd)
{
	struct conn *c = calloc(1, sizeof(*c));
	if (c == NULL) {
		close(fd);
		return NULL;
	}
	int on = 1, unsent = NOT_SENT_BYTES;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	c->agent = agent;
	c->watch = (struct loop_watch){ .fd = fd, .ready = on_socket };
	c->timeout.due = on_timeout;
	c->ping.due = on_ping;
	ws_decoder_init(&c->decoder, WS_ROLE_SERVER, PTY2_FRAME_BYTES_MAX);
	list_append(&agent->conns, &c->node);
	agent->conn_count++;
	loop_timer_set(&agent->loop, &c->timeout, HEAD_MS);
	watch_socket(c);
	return c;
}

void conn_upgrade(struct conn *c, const struct conn_dialect *dialect, struct shell *s)
{
	enter(c, CONN_OPEN);
	c->dialect = dialect;
	c->heard_ms = loop_now_ms();
	loop_timer_set(&c->agent->loop, &c->timeout, c->agent->options->dead_ms);
	loop_timer_set(&c->agent->loop, &c->ping, c->agent->options->ping_ms);
	dialect->opened(c, s);
}
