/* server.c -- see server.h. The statuses and the order of checks are the original's:
 * docs/agent-protocol.md. */
#include "agent/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/conn.h"
#include "agent/http_head.h"
#include "agent/log.h"
#include "wire/ws_handshake.h"

#define BACKLOG 128
#define LISTEN_AGAIN_MS 200
#define PORT_FIRST 8000 /* the original's range */
#define PORT_LAST 9000

/* --- listening --- */

struct address {
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	};
	socklen_t size;
};

/* Fills the address to listen at; without a name, all interfaces by IPv6, which takes IPv4 too. */
static bool parse_address(const char *name, struct address *ret)
{
	*ret = (struct address){ 0 };
	if (name == NULL || inet_pton(AF_INET6, name, &ret->v6.sin6_addr) == 1) {
		ret->v6.sin6_family = AF_INET6;
		ret->size = sizeof(ret->v6);
		return true;
	}
	if (inet_pton(AF_INET, name, &ret->v4.sin_addr) == 1) {
		ret->v4.sin_family = AF_INET;
		ret->size = sizeof(ret->v4);
		return true;
	}
	return false;
}

/* Returns a listening socket or -errno. */
static int listen_at(const struct address *base, int port)
{
	struct address address = *base;
	if (address.any.sa_family == AF_INET6)
		address.v6.sin6_port = htons((uint16_t)port);
	else
		address.v4.sin_port = htons((uint16_t)port);
	int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	int on = 1, off = 0;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (address.any.sa_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, &address.any, address.size) != 0 || listen(fd, BACKLOG) != 0) {
		int error = errno;
		close(fd);
		return -error;
	}
	return fd;
}

static int listen_in_range(const struct address *base)
{
	int fd = -EADDRINUSE;
	for (int port = PORT_FIRST; port <= PORT_LAST && fd == -EADDRINUSE; port++)
		fd = listen_at(base, port);
	return fd;
}

/* Drops the oldest connection that has not shown a token yet, or has all it gets; false when there is
 * none. */
static bool make_room(struct agent *agent)
{
	LIST_FOREACH(node, &agent->conns)
	{
		struct conn *c = CONTAINER_OF(node, struct conn, node);
		if (c->state == CONN_HEAD || c->state == CONN_CLOSED) {
			conn_drop(c, false);
			return true;
		}
	}
	return false;
}

static void on_listener(struct loop_watch *w, uint32_t events)
{
	struct agent *agent = CONTAINER_OF(w, struct agent, listener);
	(void)events;
	/* cppcheck-suppress nullPointer ; accept() allows it when nobody wants the address */
	int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			/* The connection stays in the backlog, and would be told again and again. */
			loop_watch(&agent->loop, w, 0);
			loop_timer_set(&agent->loop, &agent->listen_timer, LISTEN_AGAIN_MS);
		}
		return;
	}
	if (agent->conn_count >= AGENT_CONNS_MAX && !make_room(agent)) {
		log_debug("connection refused connections=%d", agent->conn_count);
		close(fd);
		return;
	}
	(void)conn_create(agent, fd);
}

static void on_listen_timer(struct loop_timer *t)
{
	struct agent *agent = CONTAINER_OF(t, struct agent, listen_timer);
	loop_watch(&agent->loop, &agent->listener, EPOLLIN);
}

int server_listen(struct agent *agent)
{
	struct address address;
	const char *name = agent->options->listen;
	if (!parse_address(name, &address))
		return -EINVAL;
	/* A bus is looked for by people, in the original's range; ours is told its port. */
	bool search = agent->options->port == 0 && agent->options->mode != MODE_AGENT;
	int port = (int)agent->options->port;
	int fd = search ? listen_in_range(&address) : listen_at(&address, port);
	if (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL) {
		if (name != NULL)
			return fd;
		(void)parse_address("0.0.0.0", &address); /* a machine without IPv6 */
		fd = search ? listen_in_range(&address) : listen_at(&address, port);
	}
	if (fd < 0)
		return fd;
	socklen_t size = sizeof(address);
	(void)getsockname(fd, &address.any, &size);
	agent->port = ntohs(address.any.sa_family == AF_INET6 ? address.v6.sin6_port
							      : address.v4.sin_port);
	agent->listener = (struct loop_watch){ .fd = fd, .ready = on_listener };
	agent->listen_timer.due = on_listen_timer;
	loop_watch(&agent->loop, &agent->listener, EPOLLIN);
	return 0;
}

void server_close(struct agent *agent)
{
	if (agent->listener.fd < 0)
		return;
	loop_timer_clear(&agent->listen_timer);
	loop_unwatch(&agent->loop, &agent->listener);
	close(agent->listener.fd);
	agent->listener.fd = -1;
}

/* --- answers --- */

static void answer(struct conn *c, const char *status, const char *headers, const char *body)
{
	char text[512];
	int size = snprintf(text, sizeof(text),
			    "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
			    status, headers, strlen(body), body);
	if (size < 0 || (size_t)size >= sizeof(text) ||
	    queue_append(&c->out, text, (size_t)size) < 0) {
		conn_drop(c, false);
		return;
	}
	log_debug("request answered fd=%d status=%.3s", c->watch.fd, status);
	conn_finish(c);
}

#define PLAIN "Content-Type: text/plain; charset=utf-8\r\n"
#define NOSNIFF "X-Content-Type-Options: nosniff\r\n"

static void refuse(struct conn *c, const char *status)
{
	answer(c, status, "", "");
}

/* Who asks for what, after the checks that come before the upgrade's own. */
struct wish {
	const struct conn_dialect *dialect;
	struct shell *shell; /* the old dialect's, else NULL */
	bool control;
	uint64_t allowed;
};

static bool check_legacy(struct conn *c, const struct http_head *head, const char *type,
			 struct wish *ret)
{
	char token[SHELL_TOKEN_BYTES_MAX + 1], process[64];
	if (!http_query_find(head->query, "token", token, sizeof(token)) || token[0] == '\0' ||
	    !http_query_find(head->query, "processId", process, sizeof(process)) ||
	    process[0] == '\0' || strcmp(type, "client") != 0) {
		refuse(c, "400 Bad Request");
		return false;
	}
	bool control = agent_is_control_token(c->agent, token);
	struct shell *owner = agent_find_token(c->agent, token);
	if (!control && owner == NULL) {
		refuse(c, "401 Unauthorized");
		return false;
	}
	char *end;
	errno = 0;
	unsigned long long id = strtoull(process, &end, 10);
	bool is_number = process[0] >= '0' && process[0] <= '9' && *end == '\0' && errno == 0;
	struct shell *s = is_number ? agent_find_process(c->agent, id) : NULL;
	/* One that ended is gone for those who come later, once its output found somebody. */
	if (s == NULL || (s->state == SHELL_ENDED && s->ready)) {
		refuse(c, "404 Not Found");
		return false;
	}
	if (!control && s != owner) {
		refuse(c, "401 Unauthorized");
		return false;
	}
	*ret = (struct wish){ .dialect = &conn_legacy, .shell = s };
	return true;
}

static bool check_v2(struct conn *c, const struct http_head *head, const char *type,
		     struct wish *ret)
{
	if (head->token == NULL || head->token[0] == '\0' || strcmp(type, "client") != 0) {
		refuse(c, "400 Bad Request");
		return false;
	}
	const struct shell *s = agent_find_token(c->agent, head->token);
	*ret = (struct wish){ .dialect = &conn_v2,
			      .control = agent_is_control_token(c->agent, head->token),
			      .allowed = s != NULL ? s->serial : 0 };
	if (!ret->control && s == NULL) {
		refuse(c, "401 Unauthorized");
		return false;
	}
	return true;
}

static bool check_upgrade(struct conn *c, const struct http_head *head)
{
	if (strcmp(head->method, "GET") != 0 || !head->asks_upgrade || !head->asks_websocket ||
	    !head->version_13 || head->websocket_key == NULL ||
	    !ws_key_valid(head->websocket_key)) {
		answer(c, "400 Bad Request", PLAIN "Sec-Websocket-Version: 13\r\n" NOSNIFF,
		       "Bad Request\n");
		return false;
	}
	if (head->origin != NULL && !http_origin_is_host(head->origin, head->host)) {
		answer(c, "403 Forbidden", PLAIN "Sec-Websocket-Version: 13\r\n" NOSNIFF,
		       "Forbidden\n");
		return false;
	}
	return true;
}

static void upgrade(struct conn *c, const struct http_head *head, const char *type,
		    size_t head_size)
{
	char version[8];
	bool is_v2 = http_query_find(head->query, "v", version, sizeof(version)) &&
		     strcmp(version, "2") == 0;
	struct wish wish;
	bool may = is_v2 ? check_v2(c, head, type, &wish) : check_legacy(c, head, type, &wish);
	if (!may || !check_upgrade(c, head))
		return;

	char accept[WS_ACCEPT_CHARS + 1];
	ws_accept(head->websocket_key, accept);
	char text[256];
	int size = snprintf(text, sizeof(text),
			    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
			    "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n"
			    "Ptycast-Agent-Instance: %016llx\r\n\r\n",
			    accept, (unsigned long long)c->agent->instance);
	if (queue_append(&c->out, text, (size_t)size) < 0) {
		conn_drop(c, false);
		return;
	}
	c->control = wish.control;
	c->allowed = wish.allowed;
	queue_drop(&c->in, head_size);
	conn_upgrade(c, wish.dialect, wish.shell);
}

static void route(struct conn *c, const struct http_head *head, size_t head_size)
{
	static const char prefix[] = "/ws/";
	const char *type = head->path + sizeof(prefix) - 1;
	if (strcmp(head->path, "/health") == 0) {
		bool body = strcmp(head->method, "HEAD") != 0;
		answer(c, "200 OK", PLAIN, body ? "OK" : "");
	} else if (strncmp(head->path, prefix, sizeof(prefix) - 1) == 0 && *type != '\0' &&
		   strchr(type, '/') == NULL) {
		upgrade(c, head, type, head_size);
	} else {
		answer(c, "404 Not Found", PLAIN NOSNIFF, "404 page not found\n");
	}
}

void server_receive(struct conn *c, const void *data, size_t size)
{
	if (queue_append(&c->in, data, size) < 0) {
		conn_drop(c, false);
		return;
	}
	/* Nothing was dropped from its front, so it is in one piece. */
	char *text = (char *)c->in.bytes;
	size_t head_size = http_head_find_end(text, c->in.size);
	if (head_size > HTTP_HEAD_BYTES_MAX ||
	    (head_size == 0 && c->in.size > HTTP_HEAD_BYTES_MAX)) {
		refuse(c, "431 Request Header Fields Too Large");
		return;
	}
	if (head_size == 0)
		return;
	struct http_head head;
	if (http_head_parse(text, head_size, &head) < 0)
		answer(c, "400 Bad Request", PLAIN, "400 Bad Request");
	else
		route(c, &head, head_size);
}
