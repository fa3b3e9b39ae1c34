/* redis_async.c -- see redis_async.h. The way of a connection: resolve, connect (each address), log in, up; when
 * it is lost: close the socket, wait, again. Only enter() changes the state, and only on_closed() lets go of what
 * a lost connection held, since fail() may be called from deep within the handling of a reply. */
#include "store/redis_async.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/log.h"
#include "store/redis_server.h"

#define PROBE_MS 500 /* a PING each, while it is up */
#define READER_KEEPS_BYTES (1u << 20)
/* A bigger pause between two probes is our own fault: what the server said meanwhile was not read yet. */
#define LATE_MS 1000

static uint64_t now_us(void)
{
	return uv_hrtime() / 1000;
}

static void enter(struct redis_async *c, enum redis_async_state state)
{
	static const char *const names[] = { "off", "resolving", "connecting", "greeting",
					     "up",  "closing",   "waiting" };
	log_debug("redis state", "connection=%s from=%s to=%s", c->ops->name, names[c->state],
		  names[state]);
	c->state = state;
}

static void start_timer(struct redis_async *c, uv_timer_cb fn, uint64_t ms)
{
	uv_update_time(c->loop); /* it may have stood still in a callback */
	uv_timer_start(&c->timer, fn, ms, 0);
}

static bool talks(const struct redis_async *c)
{
	return c->state == REDIS_ASYNC_GREETING || c->state == REDIS_ASYNC_UP;
}

/* --- losing it, and the next attempt --- */

static void resolve(struct redis_async *c);
static void connect_next(struct redis_async *c);

static void forget_addresses(struct redis_async *c)
{
	uv_freeaddrinfo(c->addresses);
	c->addresses = c->address = NULL;
}

static void on_retry(uv_timer_t *timer)
{
	resolve(timer->data);
}

static void wait_to_retry(struct redis_async *c)
{
	enter(c, REDIS_ASYNC_WAITING);
	/* Many replicas lose the same server at the same time. */
	uint64_t ms = c->retry_ms / 2 + randombytes_uniform(c->retry_ms / 2 + 1);
	unsigned next_ms = c->retry_ms * 2;
	c->retry_ms = next_ms < REDIS_ASYNC_RETRY_MAX_MS ? next_ms : REDIS_ASYNC_RETRY_MAX_MS;
	start_timer(c, on_retry, ms);
}

static void on_closed(uv_handle_t *handle)
{
	struct redis_async *c = handle->data;
	if (c->reader != NULL)
		redisReaderFree(c->reader);
	c->reader = NULL;
	assert(!c->writing);
	redis_out_reset(&c->out);
	redis_out_reset(&c->flight);
	if (c->closing)
		enter(c, REDIS_ASYNC_OFF);
	else if (c->address != NULL)
		connect_next(c);
	else
		wait_to_retry(c);
}

static void close_socket(struct redis_async *c)
{
	uv_timer_stop(&c->timer);
	uv_timer_stop(&c->probe);
	c->due_count = 0;
	enter(c, REDIS_ASYNC_CLOSING);
	uv_close((uv_handle_t *)&c->tcp, on_closed);
}

/* The error is the last: c may be in any later state when it returns. */
static void fail(struct redis_async *c, const struct error *err)
{
	if (c->state == REDIS_ASYNC_CONNECTING) {
		c->address = c->address->ai_next;
		close_socket(c);
		if (c->address != NULL)
			return;
	} else if (talks(c)) {
		c->address = NULL;
		close_socket(c);
	} else if (c->state == REDIS_ASYNC_RESOLVING) {
		wait_to_retry(c);
	} else {
		return; /* it is lost already */
	}
	c->ops->down(c->arg, err);
}

/* text may be "". */
static void fail_text(struct redis_async *c, int code, const char *what, const char *text)
{
	char safe[160];
	struct error err;
	error_set(&err, code,
		  strchr(c->url->host, ':') == NULL ? "redis: %s:%u: %s%s%s"
						    : "redis: [%s]:%u: %s%s%s",
		  c->url->host, c->url->port, what, *text == '\0' ? "" : ": ",
		  log_safe(safe, sizeof(safe), text));
	fail(c, &err);
}

static void fail_uv(struct redis_async *c, int status, const char *what)
{
	/* libuv has some of its own, which are no errno. */
	fail_text(c, status == UV_EOF ? -ECONNRESET : status, what, uv_strerror(status));
}

void redis_async_drop(struct redis_async *c, const struct error *err)
{
	if (talks(c))
		fail(c, err);
}

void redis_async_good(struct redis_async *c)
{
	c->retry_ms = REDIS_ASYNC_RETRY_MIN_MS;
}

/* --- writing --- */

void redis_async_begin_silent(struct redis_async *c, unsigned words)
{
	if (talks(c))
		redis_out_begin(&c->out, words);
}

void redis_async_begin(struct redis_async *c, redis_async_fn *fn, unsigned words)
{
	if (!talks(c))
		return;
	if (fn != NULL && c->due_count == REDIS_ASYNC_DUE_MAX) {
		c->overdue = true;
		return;
	}
	uint64_t now = fn != NULL || c->sent == c->answered ? now_us() : 0;
	if (c->sent == c->answered)
		c->heard_us = now;
	c->sent++;
	if (fn != NULL) {
		unsigned i = (c->due_first + c->due_count++) % REDIS_ASYNC_DUE_MAX;
		c->due[i].number = c->sent;
		c->due[i].sent_us = now;
		c->due[i].fn = fn;
	}
	redis_out_begin(&c->out, words);
}

void redis_async_word(struct redis_async *c, const char *head, size_t head_size, const void *tail,
		      size_t tail_size)
{
	if (talks(c))
		redis_out_word(&c->out, head, head_size, tail, tail_size);
}

void redis_async_words(struct redis_async *c, redis_async_fn *fn, const char *const *words)
{
	unsigned count = 0;
	while (words[count] != NULL)
		count++;
	redis_async_begin(c, fn, count);
	for (unsigned i = 0; i < count; i++)
		redis_async_word(c, words[i], strlen(words[i]), NULL, 0);
}

static void on_written(uv_write_t *write, int status)
{
	struct redis_async *c = write->data;
	c->writing = false;
	redis_out_reset(&c->flight);
	if (!talks(c))
		return; /* on_closed() comes next */
	if (status != 0) {
		fail_uv(c, status, "the connection was lost");
		return;
	}
	if (c->state == REDIS_ASYNC_UP && c->ops->drained != NULL)
		c->ops->drained(c->arg);
	redis_async_flush(c);
}

void redis_async_flush(struct redis_async *c)
{
	if (talks(c) && (c->out.broken || c->overdue))
		fail_text(c, -ENOBUFS, c->overdue ? "too many answers are due" : "no memory", "");
	if (!talks(c) || c->writing || c->out.size == 0)
		return;
	struct redis_out full = c->out;
	c->out = c->flight;
	c->flight = full;
	uv_buf_t buf = uv_buf_init(full.data, (unsigned)full.size);
	c->write.data = c;
	/* Writes at once what the socket takes. */
	int rc = uv_write(&c->write, (uv_stream_t *)&c->tcp, &buf, 1, on_written);
	if (rc == 0)
		c->writing = true;
	else
		fail_uv(c, rc, "the connection was lost");
}

bool redis_async_is_up(const struct redis_async *c)
{
	return c->state == REDIS_ASYNC_UP;
}

bool redis_async_has_room(const struct redis_async *c)
{
	return c->out.size < REDIS_ASYNC_CHUNK_BYTES;
}

unsigned redis_async_due(const struct redis_async *c)
{
	return c->due_count;
}

/* --- reading --- */

static void on_answer(struct redis_async *c, const redisReply *reply)
{
	if (c->answered == c->sent) {
		char kind[] = { (char)('0' + reply->type), '\0' };
		fail_text(c, -EBADMSG, "an answer to no question",
			  reply->type == REDIS_REPLY_ERROR ? reply->str : kind);
		return;
	}
	c->answered++;
	if (c->due_count > 0 && c->due[c->due_first].number == c->answered) {
		unsigned i = c->due_first;
		c->due_first = (i + 1) % REDIS_ASYNC_DUE_MAX;
		c->due_count--;
		c->due[i].fn(c->arg, reply, c->due[i].sent_us);
	} else if (reply->type == REDIS_REPLY_ERROR && c->ops->refused != NULL) {
		c->ops->refused(c->arg, reply);
	}
}

static void become_up(struct redis_async *c)
{
	uv_timer_stop(&c->timer);
	enter(c, REDIS_ASYNC_UP);
	c->ops->up(c->arg);
}

static void on_greeted(struct redis_async *c, const redisReply *reply)
{
	struct error err;
	c->answered++;
	if (reply->type == REDIS_REPLY_ERROR) {
		redis_server_refusal(reply->str, "login", &err);
		fail(c, &err);
	} else if (--c->greetings == 0) {
		become_up(c);
	}
}

static void on_reply(struct redis_async *c, const redisReply *reply)
{
	if (c->state == REDIS_ASYNC_GREETING)
		on_greeted(c, reply);
	else if (c->ops->push == NULL || !c->ops->push(c->arg, reply))
		on_answer(c, reply);
}

static void parse(struct redis_async *c, const char *data, size_t size)
{
	if (redisReaderFeed(c->reader, data, size) != REDIS_OK) {
		fail_text(c, -ENOMEM, "no memory", "");
		return;
	}
	while (talks(c)) {
		void *reply = NULL;
		if (redisReaderGetReply(c->reader, &reply) != REDIS_OK) {
			fail_text(c, -EBADMSG, "it does not speak Redis' protocol",
				  c->reader->errstr);
			return;
		}
		if (reply == NULL)
			break;
		on_reply(c, reply);
		freeReplyObject(reply);
	}
	if (talks(c) && c->reader->len > REDIS_ASYNC_REPLY_BYTES_MAX)
		fail_text(c, -EMSGSIZE, "a reply is too long", "");
}

static void on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *buf)
{
	(void)wanted;
	struct redis_async *c = handle->data;
	*buf = uv_buf_init(c->in, sizeof(c->in));
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
	struct redis_async *c = stream->data;
	if (size == 0)
		return;
	if (size < 0) {
		fail_uv(c, (int)size, "the connection was lost");
		return;
	}
	c->heard_us = now_us();
	parse(c, buf->base, (size_t)size);
	redis_async_flush(c);
}

static void on_pong(void *arg, const redisReply *reply, uint64_t sent_us)
{
	/* That it came is all: whatever it says. */
	(void)arg;
	(void)reply;
	(void)sent_us;
}

static void on_probe(uv_timer_t *timer)
{
	struct redis_async *c = timer->data;
	uint64_t now_ms = uv_now(c->loop), silent_since_us = now_us() - c->heard_us;
	if (now_ms - c->probed_ms > LATE_MS)
		c->heard_us = now_us();
	else if (c->answered != c->sent &&
		 silent_since_us > REDIS_ASYNC_SILENCE_MS * UINT64_C(1000))
		fail_text(c, -ETIMEDOUT, "it does not answer", "");
	c->probed_ms = now_ms;
	if (c->state == REDIS_ASYNC_UP)
		redis_async_command(c, on_pong, "PING");
	redis_async_flush(c);
}

/* --- making it --- */

static void greet(struct redis_async *c)
{
	const struct redis_url *url = c->url;
	c->sent = c->answered = 0;
	c->due_first = c->due_count = 0;
	c->greetings = 0;
	c->overdue = false;
	if (url->password != NULL) {
		c->greetings++;
		if (url->user != NULL)
			redis_async_command(c, NULL, "AUTH", url->user, url->password);
		else
			redis_async_command(c, NULL, "AUTH", url->password);
	}
	if (url->db != 0) {
		char db[16];
		c->greetings++;
		snprintf(db, sizeof(db), "%u", url->db);
		redis_async_command(c, NULL, "SELECT", db);
	}
	if (c->greetings == 0 && talks(c))
		become_up(c);
	redis_async_flush(c);
}

static void on_connected(uv_connect_t *connect, int status)
{
	struct redis_async *c = connect->data;
	if (c->state != REDIS_ASYNC_CONNECTING)
		return; /* given up */
	if (status != 0) {
		fail_uv(c, status, "cannot connect");
		return;
	}
	uv_timer_stop(&c->timer);
	forget_addresses(c);
	uv_tcp_nodelay(&c->tcp, 1);
	c->reader = redisReaderCreate();
	enter(c, REDIS_ASYNC_GREETING); /* so that fail() closes the socket */
	if (c->reader == NULL) {
		fail_text(c, -ENOMEM, "no memory", "");
		return;
	}
	/* Else it frees and makes its buffer anew with each read. */
	c->reader->maxbuf = READER_KEEPS_BYTES;
	c->probed_ms = uv_now(c->loop);
	uv_timer_start(&c->probe, on_probe, PROBE_MS, PROBE_MS);
	int rc = uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
	if (rc != 0)
		fail_uv(c, rc, "the connection was lost");
	else
		greet(c);
}

static void on_connect_timeout(uv_timer_t *timer)
{
	fail_text(timer->data, -ETIMEDOUT, "cannot connect: no answer in time", "");
}

static void connect_next(struct redis_async *c)
{
	uv_tcp_init(c->loop, &c->tcp);
	c->tcp.data = c;
	c->connect.data = c;
	enter(c, REDIS_ASYNC_CONNECTING);
	start_timer(c, on_connect_timeout, REDIS_ASYNC_CONNECT_MS);
	int rc = uv_tcp_connect(&c->connect, &c->tcp, c->address->ai_addr, on_connected);
	if (rc != 0)
		fail_uv(c, rc, "cannot connect");
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *addresses)
{
	struct redis_async *c = req->data;
	if (c->closing) {
		uv_freeaddrinfo(addresses);
		enter(c, REDIS_ASYNC_OFF);
	} else if (status != 0) {
		fail_text(c, -EHOSTUNREACH, "cannot resolve the name", uv_strerror(status));
	} else {
		forget_addresses(c);
		c->addresses = c->address = addresses;
		connect_next(c);
	}
}

static void resolve(struct redis_async *c)
{
	char port[8];
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC };
	snprintf(port, sizeof(port), "%u", c->url->port);
	enter(c, REDIS_ASYNC_RESOLVING);
	c->resolve.data = c;
	int rc = uv_getaddrinfo(c->loop, &c->resolve, on_resolved, c->url->host, port, &hints);
	if (rc != 0)
		fail_uv(c, rc, "cannot resolve");
}

void redis_async_start(struct redis_async *c, uv_loop_t *loop, const struct redis_url *url,
		       const struct redis_async_ops *ops, void *arg)
{
	*c = (struct redis_async){ .ops = ops, .arg = arg, .url = url, .loop = loop };
	c->retry_ms = REDIS_ASYNC_RETRY_MIN_MS;
	uv_timer_init(loop, &c->timer);
	uv_timer_init(loop, &c->probe);
	c->timer.data = c->probe.data = c;
	resolve(c);
}

void redis_async_close(struct redis_async *c)
{
	c->closing = true;
	if (c->state == REDIS_ASYNC_CONNECTING || talks(c))
		close_socket(c);
	else if (c->state == REDIS_ASYNC_RESOLVING)
		uv_cancel((uv_req_t *)&c
				  ->resolve); /* may be too late for that; then it is waited for */
	uv_close((uv_handle_t *)&c->timer, NULL);
	uv_close((uv_handle_t *)&c->probe, NULL);
}

void redis_async_fini(struct redis_async *c)
{
	forget_addresses(c);
	redis_out_fini(&c->out);
	redis_out_fini(&c->flight);
}
