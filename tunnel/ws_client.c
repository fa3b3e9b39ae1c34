/* ws_client.c -- see ws_client.h. Traps of libwebsockets 4.1 that shape it: it resolves names blocking;
 * it may report a failure before lws_client_connect_via_info() returns; one lws_write() a WRITEABLE. */
#include "tunnel/ws_client.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <libwebsockets.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PROTOCOL_NAME "ptycast-tunnel" /* local: it is not put on the wire */
#define RECEIVE_BUFFER_BYTES (512 << 10)
/* LWS_WRITE_CLOSE of its private header; the same in all versions from 2.4 on. */
#define WRITE_CLOSE ((enum lws_write_protocol)4)
#define CONNECT_MS 10000 /* name, TCP, TLS and upgrade together */
#define ADDRESSES_MAX 4  /* of a name that are tried, one after the other */
#define ATTEMPT_MS 2000  /* TCP and TLS at an address that others come after */
#define PROBE_MS 20      /* at most; the loop waits */
#define CLOSE_ANSWER_S 5 /* until the peer's close frame, behind ours */

struct chunk {
	struct chunk *next;
	size_t size;
	unsigned char space[]; /* LWS_PRE bytes for the header, then the message */
};

struct ws_client {
	uv_loop_t *uv;
	struct lws_context *lws;
	const struct ws_client_events *events; /* NULL once destroyed by its owner, or ended */
	void *arg;
	struct lws *wsi; /* libwebsockets' own; NULL before it has one and after its end */
	struct ws_url url;
	char *url_text;
	struct {
		char *name, *value; /* owned; the value is a secret */
	} headers[WS_CLIENT_HEADERS_MAX];
	size_t headers_count;
	char addresses[ADDRESSES_MAX][INET6_ADDRSTRLEN];
	unsigned address_count, address; /* that is tried */
	uint64_t deadline_ms;            /* of connecting, by the loop's clock */
	bool attempting; /* it is not known how the connection to that address goes */
	bool reached;    /* it stands, and TLS with it: no other address is tried */
	bool nobody;     /* so far nothing listened at any */
	uv_getaddrinfo_t resolve;
	uv_timer_t timer; /* of connecting; then, for events that must come later */
	bool resolving, timer_closed, open, in_message, drain_due;
	struct chunk *first, **end; /* unsent, owned */
	size_t queued_bytes;
	unsigned close_code; /* to be sent, once destroyed with a code */
	bool close_sent;
	enum ws_client_end end_kind; /* of the peer's close frame */
	unsigned end_code;
	char end_text[128];
};

static const lws_retry_bo_t idle_policy = {
	.secs_since_valid_ping = 20,
	.secs_since_valid_hangup = 35,
};

int ws_url_parse(const char *url, struct ws_url *ret)
{
	struct ws_url u = { 0 };
	if (strncmp(url, "ws://", 5) == 0) {
		url += 5;
	} else if (strncmp(url, "wss://", 6) == 0) {
		url += 6;
		u.tls = true;
	} else {
		return -EINVAL;
	}
	size_t authority = strcspn(url, "/?#");
	const char *host = url;
	size_t host_size = strcspn(url, ":/?#");
	if (*url == '[') {
		host++;
		host_size = strcspn(host, "]");
		if (host_size + 2 > authority)
			return -EINVAL;
	}
	const char *after = host + host_size + (*url == '[' ? 1 : 0);
	u.port = u.tls ? 443 : 80;
	if (*after == ':') {
		char *port_end;
		long port = strtol(after + 1, &port_end, 10);
		if (port < 1 || port > 65535 || port_end != url + authority)
			return -EINVAL;
		u.port = (uint16_t)port;
	} else if (after != url + authority) {
		return -EINVAL;
	}
	if (host_size == 0 || host_size >= sizeof(u.host) || memchr(host, '@', host_size) != NULL)
		return -EINVAL;
	memcpy(u.host, host, host_size);
	u.path = url[authority] == '\0' ? "/" : url + authority;
	if (*u.path != '/' || strpbrk(u.path, " \r\n\\#") != NULL)
		return -EINVAL;
	*ret = u;
	return 0;
}

static void free_chunks(struct ws_client *c)
{
	while (c->first != NULL) {
		struct chunk *next = c->first->next;
		free(c->first);
		c->first = next;
	}
	c->end = &c->first;
	c->queued_bytes = 0;
}

static void free_client(struct ws_client *c)
{
	free_chunks(c);
	free(c->url_text);
	for (size_t i = 0; i < c->headers_count; i++) {
		free(c->headers[i].name);
		if (c->headers[i].value != NULL)
			lws_explicit_bzero(c->headers[i].value, strlen(c->headers[i].value));
		free(c->headers[i].value);
	}
	free(c);
}

static void free_if_done(struct ws_client *c)
{
	if (c->wsi == NULL && !c->resolving && c->timer_closed && c->events == NULL)
		free_client(c);
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct ws_client *c = handle->data;
	c->timer_closed = true;
	free_if_done(c);
}

static void close_timer(struct ws_client *c)
{
	if (!uv_is_closing((uv_handle_t *)&c->timer))
		uv_close((uv_handle_t *)&c->timer, on_timer_closed);
}

/* Gives the last event; c may be gone afterwards. */
static void tell_end(struct ws_client *c)
{
	const struct ws_client_events *events = c->events;
	c->events = NULL;
	close_timer(c);
	if (events != NULL)
		events->ended(c->arg, c->end_kind, c->end_code, c->end_text);
	free_if_done(c);
}

static void on_end_timer(uv_timer_t *timer)
{
	tell_end(timer->data);
}

/* Notes why it ends, and tells so from the loop: never inside a call of our owner's. */
static void end_soon(struct ws_client *c, enum ws_client_end end, unsigned code, const char *text)
{
	c->end_kind = end;
	c->end_code = code;
	snprintf(c->end_text, sizeof(c->end_text), "%s", text);
	if (uv_is_closing((uv_handle_t *)&c->timer))
		free_if_done(c);
	else
		uv_timer_start(&c->timer, on_end_timer, 0, 0);
}

/* True when nothing listens at that address, of the loopback: libwebsockets does not tell. */
static bool nobody_listens(const char *address, uint16_t port)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	const struct sockaddr *to = NULL;
	if (strncmp(address, "127.", 4) == 0 && inet_pton(AF_INET, address, &v4.sin_addr) == 1)
		to = (const struct sockaddr *)&v4;
	else if (inet_pton(AF_INET6, address, &v6.sin6_addr) == 1 &&
		 IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr))
		to = (const struct sockaddr *)&v6;
	if (to == NULL)
		return false;
	int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return errno == EAFNOSUPPORT;
	int error = 0;
	socklen_t size = sizeof(error);
	if (connect(fd, to, to->sa_family == AF_INET ? sizeof(v4) : sizeof(v6)) < 0)
		error = errno;
	/* As a rule it is known by now; the loopback does not take long. */
	if (error == EINPROGRESS &&
	    poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, PROBE_MS) == 1)
		(void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	close(fd);
	return error == ECONNREFUSED || error == EADDRNOTAVAIL || error == ENETUNREACH;
}

static void connect_now(struct ws_client *c);

static void on_next_address(uv_timer_t *timer)
{
	connect_now(timer->data);
}

/* Goes on to the next address, from the loop, or ends. */
static void attempt_failed(struct ws_client *c, const char *text)
{
	c->attempting = false;
	c->nobody = c->nobody && nobody_listens(c->addresses[c->address], c->url.port);
	if (!c->reached && c->address + 1 < c->address_count && uv_now(c->uv) < c->deadline_ms) {
		c->address++;
		uv_timer_start(&c->timer, on_next_address, 0, 0);
		return;
	}
	end_soon(c, c->nobody ? WS_CLIENT_NOBODY : WS_CLIENT_FAILED, 0, text);
}

/* Its last word: libwebsockets calls back once more when it frees wsi, and c may be gone by then. */
static void forget_wsi(struct ws_client *c, struct lws *wsi)
{
	lws_set_wsi_user(wsi, NULL);
	c->wsi = NULL;
}

static void on_attempt_timeout(uv_timer_t *timer)
{
	struct ws_client *c = timer->data;
	struct lws *wsi = c->wsi;
	char text[sizeof(c->end_text)];
	snprintf(text, sizeof(text), "no connection within %d s", CONNECT_MS / 1000);
	if (wsi != NULL) {
		forget_wsi(c, wsi);
		lws_set_timeout(wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_ASYNC);
	}
	if (c->resolving)
		uv_cancel((uv_req_t *)&c->resolve);
	if (c->address_count > 0)
		attempt_failed(c, text);
	else
		end_soon(c, WS_CLIENT_FAILED, 0, text);
}

/* Starts the timer for what is under way now. */
static void bound_attempt(struct ws_client *c)
{
	uint64_t now_ms = uv_now(c->uv);
	uint64_t left_ms = now_ms < c->deadline_ms ? c->deadline_ms - now_ms : 0;
	bool last = c->reached || c->address + 1 >= c->address_count;
	uv_timer_start(&c->timer, on_attempt_timeout,
		       last || left_ms < ATTEMPT_MS ? left_ms : ATTEMPT_MS, 0);
}

static void connect_now(struct ws_client *c)
{
	struct lws_client_connect_info info = {
		.context = c->lws,
		.address = c->addresses[c->address],
		.port = c->url.port,
		.ssl_connection = c->url.tls ? LCCSCF_USE_SSL : 0,
		.path = c->url.path,
		.host = c->url.host,
		.alpn = "http/1.1",
		.userdata = c,
		.pwsi = &c->wsi,
		.retry_and_idle_policy = &idle_policy,
		.local_protocol_name = PROTOCOL_NAME,
	};
	bound_attempt(c);
	c->attempting = true;
	if (lws_client_connect_via_info(&info) == NULL && c->events != NULL && c->attempting)
		attempt_failed(c, "cannot connect");
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
	struct ws_client *c = request->data;
	c->resolving = false;
	if (c->events == NULL) {
		uv_freeaddrinfo(found);
		free_if_done(c);
		return;
	}
	if (c->end_text[0] != '\0') { /* it took too long, and that is being told */
		uv_freeaddrinfo(found);
		return;
	}
	if (status < 0) {
		end_soon(c, WS_CLIENT_FAILED, 0, uv_strerror(status));
		return;
	}
	for (struct addrinfo *a = found; a != NULL && c->address_count < ADDRESSES_MAX;
	     a = a->ai_next)
		if (getnameinfo(a->ai_addr, a->ai_addrlen, c->addresses[c->address_count],
				sizeof(c->addresses[0]), NULL, 0, NI_NUMERICHOST) == 0)
			c->address_count++;
	uv_freeaddrinfo(found);
	if (c->address_count > 0)
		connect_now(c);
	else
		end_soon(c, WS_CLIENT_FAILED, 0, "the name has no address");
}

static bool is_numeric(const char *host)
{
	struct in6_addr any;
	return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

int ws_client_create(const struct ws_client_params *p, struct ws_client **ret, struct error *err)
{
	struct ws_client *c = calloc(1, sizeof(*c));
	if (c == NULL)
		return error_set(err, -ENOMEM, "no memory for a tunnel");
	c->uv = p->uv;
	c->lws = p->lws;
	c->events = p->events;
	c->arg = p->arg;
	c->end = &c->first;
	c->url_text = strdup(p->url);
	bool complete = c->url_text != NULL;
	assert(p->headers_count <= WS_CLIENT_HEADERS_MAX);
	for (; c->headers_count < p->headers_count; c->headers_count++) {
		size_t i = c->headers_count;
		c->headers[i].name = strdup(p->headers[i].name);
		c->headers[i].value = strdup(p->headers[i].value);
		complete = complete && c->headers[i].name != NULL && c->headers[i].value != NULL;
	}
	if (!complete || ws_url_parse(c->url_text, &c->url) < 0) {
		free_client(c);
		return complete ? error_set(err, -EINVAL,
					    "the tunnel's URL is not ws://host:port/path")
				: error_set(err, -ENOMEM, "no memory for a tunnel");
	}
	uv_timer_init(c->uv, &c->timer);
	c->timer.data = c;
	c->deadline_ms = uv_now(c->uv) + CONNECT_MS;
	c->nobody = true;
	*ret = c;
	if (is_numeric(c->url.host)) {
		snprintf(c->addresses[c->address_count++], sizeof(c->addresses[0]), "%.45s",
			 c->url.host);
		connect_now(c);
		return 0;
	}
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
	c->resolve.data = c;
	c->resolving = true;
	bound_attempt(c);
	int rc = uv_getaddrinfo(c->uv, &c->resolve, on_resolved, c->url.host, NULL, &hints);
	if (rc < 0) {
		c->resolving = false;
		end_soon(c, WS_CLIENT_FAILED, 0, uv_strerror(rc));
	}
	return 0;
}

void ws_client_destroy(struct ws_client *c, unsigned code)
{
	if (c == NULL)
		return;
	c->events = NULL;
	close_timer(c);
	if (c->resolving)
		uv_cancel((uv_req_t *)&c->resolve);
	if (c->wsi == NULL)
		return; /* freed when the timer's handle is closed */
	if (code != 0 && c->open) {
		c->close_code = code;
		lws_rx_flow_control(c->wsi, 1);
		lws_callback_on_writable(c->wsi);
	} else {
		lws_set_timeout(c->wsi, PENDING_TIMEOUT_USER_OK, LWS_TO_KILL_ASYNC);
	}
}

int ws_client_send(struct ws_client *c, const void *head, size_t head_size, const void *body,
		   size_t body_size)
{
	if (!c->open || c->wsi == NULL)
		return -ENOTCONN;
	size_t size = head_size + body_size;
	if (!ws_client_has_room(c, size))
		return -EAGAIN;
	struct chunk *chunk = malloc(sizeof(*chunk) + LWS_PRE + size);
	if (chunk == NULL)
		return -EAGAIN;
	chunk->next = NULL;
	chunk->size = size;
	memcpy(chunk->space + LWS_PRE, head, head_size);
	if (body_size > 0)
		memcpy(chunk->space + LWS_PRE + head_size, body, body_size);
	*c->end = chunk;
	c->end = &chunk->next;
	c->queued_bytes += size;
	lws_callback_on_writable(c->wsi);
	return 0;
}

bool ws_client_has_room(const struct ws_client *c, size_t size)
{
	return c->open && c->queued_bytes + size <= WS_CLIENT_QUEUE_BYTES;
}

void ws_client_pause(struct ws_client *c, bool pause)
{
	if (c->wsi != NULL && c->open)
		lws_rx_flow_control(c->wsi, pause ? 0 : 1);
}

/* By hand: Debian's libwebsockets, built with _DEBUG, closes a second time at once on libuv, so that the
 * frame of lws_close_reason() is never sent. */
static int send_close(struct ws_client *c)
{
	unsigned char frame[LWS_PRE + 2];
	frame[LWS_PRE] = (unsigned char)(c->close_code >> 8);
	frame[LWS_PRE + 1] = (unsigned char)c->close_code;
	c->close_code = 0;
	c->close_sent = true;
	if (lws_write(c->wsi, frame + LWS_PRE, 2, WRITE_CLOSE) < 0)
		return -1;
	lws_set_timeout(c->wsi, PENDING_TIMEOUT_CLOSE_ACK, CLOSE_ANSWER_S);
	return 0;
}

/* Returns non-zero to end the connection. */
static int on_writeable(struct ws_client *c)
{
	struct chunk *chunk = c->first;
	if (chunk == NULL) {
		if (c->close_code != 0)
			return send_close(c);
		if (c->drain_due && c->events != NULL) {
			c->drain_due = false;
			c->events->drained(c->arg);
		}
		return 0;
	}
	c->first = chunk->next;
	if (c->first == NULL)
		c->end = &c->first;
	c->queued_bytes -= chunk->size;
	int n = lws_write(c->wsi, chunk->space + LWS_PRE, chunk->size, LWS_WRITE_BINARY);
	free(chunk);
	if (n < 0)
		return -1;
	c->drain_due = true;
	lws_callback_on_writable(c->wsi);
	return 0;
}

static void on_receive(struct ws_client *c, struct lws *wsi, const void *in, size_t size)
{
	bool final = lws_is_final_fragment(wsi) && lws_remaining_packet_payload(wsi) == 0;
	bool first = !c->in_message;
	c->in_message = !final;
	if (c->events != NULL)
		c->events->received(c->arg, in, size, first, final);
}

static int on_append_header(struct ws_client *c, struct lws *wsi, void *in, size_t size)
{
	unsigned char **at = in, *end = *at + size;
	for (size_t i = 0; i < c->headers_count; i++)
		if (lws_add_http_header_by_name(wsi, (const unsigned char *)c->headers[i].name,
						(const unsigned char *)c->headers[i].value,
						(int)strlen(c->headers[i].value), at, end) != 0)
			return -1;
	return 0;
}

static void on_connection_error(struct ws_client *c, struct lws *wsi, const char *text)
{
	unsigned status = lws_http_client_http_response(wsi);
	bool attempting = c->attempting;
	c->attempting = false;
	forget_wsi(c, wsi);
	if (c->events == NULL || !attempting)
		free_if_done(c);
	else if (status != 0 && status != 101)
		end_soon(c, WS_CLIENT_REFUSED, status, "the upgrade was refused");
	else
		attempt_failed(c, text == NULL ? "cannot connect" : text);
}

static void on_peer_close(struct ws_client *c, const uint8_t *payload, size_t size)
{
	c->end_kind = WS_CLIENT_CLOSED;
	c->end_code = 1005;
	if (size < 2)
		return;
	c->end_code = (unsigned)payload[0] << 8 | payload[1];
	size_t reason = size - 2 < sizeof(c->end_text) - 1 ? size - 2 : sizeof(c->end_text) - 1;
	memcpy(c->end_text, payload + 2, reason);
	c->end_text[reason] = '\0';
}

static void on_closed(struct ws_client *c, struct lws *wsi)
{
	forget_wsi(c, wsi);
	c->open = false;
	if (c->events == NULL)
		free_if_done(c);
	else if (c->end_code != 0)
		tell_end(c);
	else {
		c->end_kind = WS_CLIENT_LOST;
		c->end_code = 1006;
		snprintf(c->end_text, sizeof(c->end_text), "the connection was cut");
		tell_end(c);
	}
}

/* What lies in the kernel while reading is paused is in front of every answer. */
static void bound_receive_buffer(struct lws *wsi)
{
	int size = RECEIVE_BUFFER_BYTES;
	setsockopt(lws_get_socket_fd(wsi), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
}

static int on_lws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
		  size_t size)
{
	struct ws_client *c = user;
	if (c == NULL)
		return 0;
	switch (reason) {
	case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER:
		c->reached = true;
		if (c->events != NULL)
			bound_attempt(c);
		return on_append_header(c, wsi, in, size);
	case LWS_CALLBACK_CLIENT_ESTABLISHED:
		if (c->events == NULL)
			return -1;
		c->wsi = wsi;
		c->attempting = false;
		c->open = true;
		bound_receive_buffer(wsi);
		uv_timer_stop(&c->timer);
		c->events->connected(c->arg);
		return 0;
	case LWS_CALLBACK_CLIENT_RECEIVE:
		on_receive(c, wsi, in, size);
		return 0;
	case LWS_CALLBACK_CLIENT_WRITEABLE:
		return on_writeable(c);
	case LWS_CALLBACK_WS_PEER_INITIATED_CLOSE:
		on_peer_close(c, in, size);
		return c->close_sent ? -1 : 0; /* not answered when it is the answer */
	case LWS_CALLBACK_CLIENT_HTTP_REDIRECT:
		return -1; /* it goes where it was told to, and nowhere else */
	case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
		on_connection_error(c, wsi, in);
		return 0;
	case LWS_CALLBACK_CLIENT_CLOSED:
		on_closed(c, wsi);
		return 0;
	case LWS_CALLBACK_WSI_DESTROY:
		/* Reset at the very start there is no other word of it. */
		if (c->wsi == wsi && c->open)
			on_closed(c, wsi);
		else if (c->wsi == wsi)
			on_connection_error(c, wsi, "the connection was reset");
		return 0;
	default:
		return 0;
	}
}

static const struct lws_protocols protocols[] = {
	{ .name = PROTOCOL_NAME, .callback = on_lws, .rx_buffer_size = WS_CLIENT_BUFFER_BYTES },
	{ .name = NULL },
};

const struct lws_protocols *ws_client_protocols(void)
{
	return protocols;
}
