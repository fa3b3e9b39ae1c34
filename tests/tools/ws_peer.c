/* ws_peer.c -- one end of a WebSocket that echoes, built on wire/ alone: to be tried against other
 * implementations.
 *
 *   ws_peer server [MAX_MESSAGE_BYTES [FRAGMENT_BYTES]]
 *   ws_peer client PORT [MAX_MESSAGE_BYTES [FRAGMENT_BYTES]]
 *
 * The server listens on a port of loopback, prints "port N", and serves each connection in a
 * process of its own until its input ends. The client connects to PORT, and ends with its
 * connection. Both send back each message; with FRAGMENT_BYTES (not 0) in frames of that size with
 * an empty ping between them. The text message "close CODE REASON" makes them close. What ended a
 * connection is printed: "close CODE REASON" (by the other end), "error CODE" or "cut". */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire/base64.h"
#include "wire/ws_frame.h"
#include "wire/ws_handshake.h"

#define HEAD_BYTES_MAX 8192
#define TIMEOUT_S 60 /* for a peer that says nothing more */

struct peer {
	int fd;
	enum ws_role role; /* our own */
	size_t max_message_bytes;
	size_t fragment_bytes; /* 0: whole messages */
	uint8_t buffer[1 << 16];
	size_t buffered; /* bytes that came behind the head */
};

static void die(const char *what)
{
	perror(what);
	_exit(1);
}

/* False when the connection is gone. */
static bool send_all(int fd, const void *data, size_t size)
{
	const uint8_t *at = data;
	while (size > 0) {
		ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		at += sent;
		size -= (size_t)sent;
	}
	return true;
}

static bool send_frame(struct peer *p, enum ws_opcode opcode, bool fin, const uint8_t *data,
		       size_t size)
{
	uint8_t header[WS_HEADER_BYTES_MAX], mask[4];
	if (p->role == WS_ROLE_SERVER)
		return send_all(p->fd, header, ws_header_encode(header, opcode, fin, size, NULL)) &&
		       send_all(p->fd, data, size);

	if (getrandom(mask, sizeof(mask), 0) != sizeof(mask))
		die("getrandom");
	uint8_t *masked = malloc(size + 1);
	if (masked == NULL)
		die("malloc");
	if (size > 0)
		memcpy(masked, data, size);
	ws_mask(masked, size, mask, 0);
	bool sent = send_all(p->fd, header, ws_header_encode(header, opcode, fin, size, mask)) &&
		    send_all(p->fd, masked, size);
	free(masked);
	return sent;
}

static bool send_message(struct peer *p, enum ws_opcode opcode, const uint8_t *data, size_t size)
{
	while (p->fragment_bytes > 0 && size > p->fragment_bytes) {
		if (!send_frame(p, opcode, false, data, p->fragment_bytes) ||
		    !send_frame(p, WS_PING, true, NULL, 0))
			return false;
		opcode = WS_CONTINUATION;
		data += p->fragment_bytes;
		size -= p->fragment_bytes;
	}
	return send_frame(p, opcode, true, data, size);
}

static bool send_close(struct peer *p, uint16_t code, const char *reason)
{
	uint8_t payload[WS_CONTROL_BYTES_MAX];
	return send_frame(p, WS_CLOSE, true, payload, ws_close_encode(payload, code, reason));
}

static bool answer_text(struct peer *p, const struct ws_event *event)
{
	if (event->size < 6 || memcmp(event->data, "close ", 6) != 0)
		return send_message(p, WS_TEXT, event->data, event->size);
	char *text = strndup((const char *)event->data + 6, event->size - 6);
	if (text == NULL)
		die("strndup");
	char *reason;
	unsigned long code = strtoul(text, &reason, 10);
	bool sent = send_close(p, (uint16_t)code, reason + (*reason == ' '));
	free(text);
	return sent;
}

/* Does what an event asks for. False when the connection has ended. */
static bool answer(struct peer *p, const struct ws_event *event)
{
	switch (event->type) {
	case WS_EVENT_TEXT:
		return answer_text(p, event);
	case WS_EVENT_BINARY:
		return send_message(p, WS_BINARY, event->data, event->size);
	case WS_EVENT_PING:
		return send_frame(p, WS_PONG, true, event->data, event->size);
	case WS_EVENT_CLOSE:
		printf("close %u %.*s\n", event->close_code, (int)event->size,
		       (const char *)event->data);
		send_close(p, event->close_code, NULL);
		return false;
	case WS_EVENT_ERROR:
		printf("error %u\n", event->close_code);
		send_close(p, event->close_code, "broken");
		return false;
	default:
		return true;
	}
}

/* Talks until one end closes. */
static void talk(struct peer *p)
{
	struct ws_decoder decoder;
	ws_decoder_init(&decoder, p->role, p->max_message_bytes);
	bool open = true;
	while (open) {
		uint8_t *at = p->buffer;
		struct ws_event event;
		do {
			ssize_t taken = ws_decoder_feed(&decoder, at, p->buffered, &event);
			if (taken < 0)
				die("ws_decoder_feed");
			at += taken;
			p->buffered -= (size_t)taken;
			open = answer(p, &event);
		} while (open && event.type != WS_EVENT_NONE);

		if (open) {
			ssize_t got = recv(p->fd, p->buffer, sizeof(p->buffer), 0);
			if (got < 0 && errno == EINTR)
				continue;
			if (got <= 0) {
				printf("cut\n");
				break;
			}
			p->buffered = (size_t)got;
		}
	}
	ws_decoder_fini(&decoder);
	fflush(stdout);

	/* The last bytes arrive before the end does: the other end closes first. */
	shutdown(p->fd, SHUT_WR);
	while (recv(p->fd, p->buffer, sizeof(p->buffer), 0) > 0)
		;
	close(p->fd);
}

/* Reads up to the empty line, 0-terminates the head there, and keeps what follows it in p->buffer.
 * False when there is none. */
static bool read_head(struct peer *p, char head[HEAD_BYTES_MAX])
{
	size_t size = 0;
	for (;;) {
		if (size == HEAD_BYTES_MAX - 1)
			return false;
		ssize_t got = recv(p->fd, head + size, HEAD_BYTES_MAX - 1 - size, 0);
		if (got <= 0)
			return false;
		size += (size_t)got;
		char *end = memmem(head, size, "\r\n\r\n", 4);
		if (end == NULL)
			continue;
		p->buffered = size - (size_t)(end + 4 - head);
		memcpy(p->buffer, end + 4, p->buffered);
		end[2] = '\0';
		return true;
	}
}

/* Copies the value of a header, or "" when it is not there. */
static void header_value(const char *head, const char *name, char *value, size_t value_size)
{
	size_t name_size = strlen(name);
	*value = '\0';
	for (const char *line = strchr(head, '\n'); line != NULL; line = strchr(line + 1, '\n')) {
		if (strncasecmp(line + 1, name, name_size) != 0 || line[1 + name_size] != ':')
			continue;
		line += 2 + name_size;
		line += strspn(line, " ");
		snprintf(value, value_size, "%.*s", (int)strcspn(line, "\r"), line);
		return;
	}
}

static bool accept_upgrade(struct peer *p)
{
	static const char refusal[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n"
				      "Connection: close\r\n\r\n";
	char head[HEAD_BYTES_MAX], key[64], accept[WS_ACCEPT_CHARS + 1], response[256];
	if (!read_head(p, head))
		return false;
	header_value(head, "Sec-WebSocket-Key", key, sizeof(key));
	if (!ws_key_valid(key)) {
		send_all(p->fd, refusal, sizeof(refusal) - 1);
		return false;
	}
	ws_accept(key, accept);
	int size = snprintf(response, sizeof(response),
			    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
			    "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			    accept);
	return send_all(p->fd, response, (size_t)size);
}

static bool ask_upgrade(struct peer *p)
{
	uint8_t random[16];
	char key[BASE64_CHARS(sizeof(random)) + 1], expected[WS_ACCEPT_CHARS + 1];
	char request[512], head[HEAD_BYTES_MAX], accept[64];
	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		die("getrandom");
	key[base64_encode(key, random, sizeof(random))] = '\0';
	int size = snprintf(request, sizeof(request),
			    "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
			    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
			    "Sec-WebSocket-Key: %s\r\n\r\n",
			    key);
	if (!send_all(p->fd, request, (size_t)size) || !read_head(p, head))
		return false;
	header_value(head, "Sec-WebSocket-Accept", accept, sizeof(accept));
	ws_accept(key, expected);
	return strncmp(head, "HTTP/1.1 101 ", 13) == 0 && strcmp(accept, expected) == 0;
}

static void set_options(int fd)
{
	struct timeval timeout = { .tv_sec = TIMEOUT_S };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
}

static int serve(struct peer *p)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) < 0 ||
	    listen(listener, 16) < 0 ||
	    getsockname(listener, (struct sockaddr *)&address, &size) < 0)
		die("listen");
	printf("port %u\n", ntohs(address.sin_port));
	fflush(stdout);
	signal(SIGCHLD, SIG_IGN);

	struct pollfd fds[] = { { .fd = listener, .events = POLLIN },
				{ .fd = 0, .events = POLLIN } };
	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			die("poll");
		if (fds[1].revents != 0)
			return 0;
		if ((fds[0].revents & POLLIN) == 0)
			continue;
		p->fd = accept(listener, NULL, NULL);
		if (p->fd < 0)
			continue;
		if (fork() == 0) {
			close(listener);
			set_options(p->fd);
			if (accept_upgrade(p))
				talk(p);
			return 0;
		}
		close(p->fd);
	}
}

static int connect_and_talk(struct peer *p, uint16_t port)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				       .sin_port = htons(port) };
	p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (p->fd < 0 || connect(p->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("connect");
	set_options(p->fd);
	if (!ask_upgrade(p)) {
		printf("not upgraded\n");
		return 1;
	}
	talk(p);
	return 0;
}

int main(int argc, char **argv)
{
	static struct peer p = { .max_message_bytes = 16u << 20 };
	bool client = argc > 2 && strcmp(argv[1], "client") == 0;
	if (!client && (argc < 2 || strcmp(argv[1], "server") != 0)) {
		fprintf(stderr, "usage: ws_peer server|client PORT [MAX [FRAGMENT]]\n");
		return 2;
	}
	int options = client ? 3 : 2;
	if (argc > options)
		p.max_message_bytes = strtoul(argv[options], NULL, 10);
	if (argc > options + 1)
		p.fragment_bytes = strtoul(argv[options + 1], NULL, 10);
	p.role = client ? WS_ROLE_CLIENT : WS_ROLE_SERVER;
	return client ? connect_and_talk(&p, (uint16_t)strtoul(argv[2], NULL, 10)) : serve(&p);
}
