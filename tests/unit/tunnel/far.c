/* far.c -- see far.h. */
#include "tests/unit/tunnel/far.h"

#include "tests/unit/wire/test.h"

#include <libwebsockets.h>
#include <string.h>

#include "tunnel/ws_client.h"
#include "wire/ws_handshake.h"

/* --- the loop --- */

static void on_deadline(uv_timer_t *timer)
{
	*(bool *)timer->data = true;
}

static void on_lws_log(int level, const char *line)
{
	(void)level;
	(void)line;
}

void far_loop_init(struct far_loop *l)
{
	void *foreign[1] = { &l->uv };
	struct lws_context_creation_info info = {
		.port = CONTEXT_PORT_NO_LISTEN,
		.protocols = ws_client_protocols(),
		.options = LWS_SERVER_OPTION_LIBUV,
		.foreign_loops = foreign,
		.pt_serv_buf_size = WS_CLIENT_BUFFER_BYTES,
		.gid = -1,
		.uid = -1,
	};
	assert_int_equal(uv_loop_init(&l->uv), 0);
	uv_timer_init(&l->uv, &l->deadline);
	lws_set_log_level(LLL_ERR | LLL_WARN, on_lws_log);
	l->lws = lws_create_context(&info);
	assert_non_null(l->lws);
}

void far_loop_fini(struct far_loop *l)
{
	uv_close((uv_handle_t *)&l->deadline, NULL);
	/* Twice, as in service/loop.c. */
	lws_context_destroy(l->lws);
	uv_run(&l->uv, UV_RUN_DEFAULT);
	lws_context_destroy(l->lws);
	uv_run(&l->uv, UV_RUN_NOWAIT);
	assert_int_equal(uv_loop_close(&l->uv), 0);
}

static bool run(struct far_loop *l, uint64_t ms, bool (*look)(void *arg), void *arg)
{
	bool late = false;
	l->deadline.data = &late;
	uv_update_time(&l->uv);
	uv_timer_start(&l->deadline, on_deadline, ms, 0);
	bool found;
	while (!(found = look != NULL && look(arg)) && !late)
		uv_run(&l->uv, UV_RUN_ONCE);
	uv_timer_stop(&l->deadline);
	return found;
}

void far_run_until(struct far_loop *l, bool (*look)(void *arg), void *arg)
{
	if (!run(l, FAR_DEADLINE_MS, look, arg))
		fail_msg("it did not come to pass");
}

void far_run_for(struct far_loop *l, uint64_t ms)
{
	run(l, ms, NULL, NULL);
}

/* --- the far end --- */

struct write {
	uv_write_t request;
	uint8_t bytes[];
};

static void on_written(uv_write_t *request, int status)
{
	(void)status;
	free(request);
}

static void write_bytes(struct far_conn *c, const void *data, size_t size)
{
	struct write *w = malloc(sizeof(*w) + size);
	assert_non_null(w);
	memcpy(w->bytes, data, size);
	uv_buf_t buffer = uv_buf_init((char *)w->bytes, (unsigned)size);
	assert_int_equal(uv_write(&w->request, (uv_stream_t *)&c->socket, &buffer, 1, on_written),
			 0);
}

static void end_conn(struct far_conn *c)
{
	if (c->ended)
		return;
	c->ended = c->far->ended = true;
	if (c->far->conn == c)
		c->far->conn = NULL;
	uv_close((uv_handle_t *)&c->socket, NULL);
}

static void answer(struct far_conn *c)
{
	struct far *f = c->far;
	char text[256], accept[WS_ACCEPT_CHARS + 1] = "";
	char *key = strcasestr(f->head, "sec-websocket-key: ");
	assert_non_null(key);
	key += strlen("sec-websocket-key: ");
	char copy[64];
	snprintf(copy, sizeof(copy), "%.*s", (int)strcspn(key, "\r"), key);
	ws_accept(copy, accept);
	if (f->status == 101)
		snprintf(text, sizeof(text),
			 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
			 "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			 accept);
	else
		snprintf(text, sizeof(text),
			 "HTTP/1.1 %u No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
			 f->status);
	write_bytes(c, text, strlen(text));
	if (f->status != 101)
		return;
	c->upgraded = true;
	f->conn = c;
}

static void on_answer_timer(uv_timer_t *timer)
{
	struct far *f = timer->data;
	struct far_conn *c = f->conns[f->conns_count - 1];
	if (!c->ended)
		answer(c);
}

static void take_head(struct far_conn *c)
{
	struct far *f = c->far;
	if (memmem(c->in, c->in_size, "\r\n\r\n", 4) == NULL)
		return;
	assert_true(c->in_size < sizeof(f->head));
	memcpy(f->head, c->in, c->in_size);
	f->head[c->in_size] = '\0';
	if (f->answer_ms > 0)
		uv_timer_start(&f->answer_timer, on_answer_timer, f->answer_ms, 0);
	else
		answer(c);
}

static void take_frames(struct far_conn *c, uint8_t *data, size_t size)
{
	struct far *f = c->far;
	while (size > 0) {
		struct ws_event event;
		ssize_t n = ws_decoder_feed(&c->decoder, data, size, &event);
		assert_true(n >= 0);
		data += n;
		size -= (size_t)n;
		if (event.type == WS_EVENT_TEXT || event.type == WS_EVENT_BINARY) {
			f->text = f->text || event.type == WS_EVENT_TEXT;
			f->received = realloc(f->received, f->received_size + event.size + 1);
			assert_non_null(f->received);
			memcpy(f->received + f->received_size, event.data, event.size);
			f->received_size += event.size;
			f->messages_count++;
		} else if (event.type == WS_EVENT_CLOSE) {
			f->close_code = event.close_code;
			if (f->conn == c)
				far_close(f, event.close_code, "");
			return;
		} else if (n == 0) {
			return;
		}
	}
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	(void)handle;
	static char buffer[65536];
	(void)suggested;
	*ret = uv_buf_init(buffer, sizeof(buffer));
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
	struct far_conn *c = stream->data;
	if (size < 0) {
		end_conn(c);
	} else if (c->upgraded) {
		take_frames(c, (uint8_t *)buffer->base, (size_t)size);
	} else {
		assert_true(c->in_size + (size_t)size < sizeof(c->in));
		memcpy(c->in + c->in_size, buffer->base, (size_t)size);
		c->in_size += (size_t)size;
		take_head(c);
	}
}

static void on_connection(uv_stream_t *listener, int status)
{
	struct far *f = listener->data;
	struct far_conn *c = calloc(1, sizeof(*c));
	assert_int_equal(status, 0);
	assert_non_null(c);
	assert_true(f->conns_count < FAR_CONNS_MAX);
	f->conns[f->conns_count++] = c;
	f->ended = false;
	c->far = f;
	c->socket.data = c;
	ws_decoder_init(&c->decoder, WS_ROLE_SERVER, 16 << 20);
	uv_tcp_init(&f->loop->uv, &c->socket);
	assert_int_equal(uv_accept(listener, (uv_stream_t *)&c->socket), 0);
	uv_read_start((uv_stream_t *)&c->socket, on_alloc, on_read);
}

void far_start(struct far *f, struct far_loop *l, const char *address, uint16_t port)
{
	*f = (struct far){ .loop = l, .status = 101 };
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} name;
	int size = sizeof(name);
	if (strchr(address, ':') != NULL)
		assert_int_equal(uv_ip6_addr(address, port, &name.v6), 0);
	else
		assert_int_equal(uv_ip4_addr(address, port, &name.v4), 0);
	uv_tcp_init(&l->uv, &f->listener);
	uv_timer_init(&l->uv, &f->answer_timer);
	f->listener.data = f->answer_timer.data = f;
	assert_int_equal(uv_tcp_bind(&f->listener, &name.any, 0), 0);
	assert_int_equal(uv_listen((uv_stream_t *)&f->listener, 16, on_connection), 0);
	assert_int_equal(uv_tcp_getsockname(&f->listener, &name.any, &size), 0);
	f->port = ntohs(name.any.sa_family == AF_INET ? name.v4.sin_port : name.v6.sin6_port);
}

static bool is_closed(void *arg)
{
	const struct far *f = arg;
	return !uv_is_active((const uv_handle_t *)&f->listener);
}

void far_stop(struct far *f)
{
	for (unsigned i = 0; i < f->conns_count; i++)
		end_conn(f->conns[i]);
	uv_close((uv_handle_t *)&f->listener, NULL);
	uv_close((uv_handle_t *)&f->answer_timer, NULL);
	far_run_until(f->loop, is_closed, f);
	far_run_for(f->loop, 1);
	for (unsigned i = 0; i < f->conns_count; i++) {
		ws_decoder_fini(&f->conns[i]->decoder);
		free(f->conns[i]);
	}
	free(f->received);
}

void far_send(struct far *f, enum ws_opcode opcode, bool fin, const void *data, size_t size)
{
	uint8_t header[WS_HEADER_BYTES_MAX];
	assert_non_null(f->conn);
	write_bytes(f->conn, header, ws_header_encode(header, opcode, fin, size, NULL));
	if (size > 0)
		write_bytes(f->conn, data, size);
}

void far_close(struct far *f, uint16_t code, const char *reason)
{
	uint8_t payload[WS_CONTROL_BYTES_MAX];
	far_send(f, WS_CLOSE, true, payload, ws_close_encode(payload, code, reason));
}

void far_cut(struct far *f)
{
	assert_non_null(f->conn);
	end_conn(f->conn);
}

bool far_is_upgraded(void *arg)
{
	return ((struct far *)arg)->conn != NULL;
}

bool far_has_ended(void *arg)
{
	return ((struct far *)arg)->ended;
}
