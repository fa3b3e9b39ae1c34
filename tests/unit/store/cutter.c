/* cutter.c -- see cutter.h. */
#include "tests/unit/store/cutter.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAIRS_MAX 32

struct cutter {
	pthread_t thread;
	uint16_t port, to_port;
	int listener, stop[2];
	int fds[2 * PAIRS_MAX]; /* client, server; -1: free. Its thread only */
	_Atomic int cut;        /* answers until one is cut; 0: none is */
	_Atomic unsigned cuts;
};

static void must(bool holds)
{
	if (!holds) {
		perror("cutter");
		abort();
	}
}

static struct sockaddr_in loopback(uint16_t port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
				     .sin_port = htons(port),
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

static void drop(struct cutter *c, int pair)
{
	for (int i = 2 * pair; i < 2 * pair + 2; i++) {
		close(c->fds[i]);
		c->fds[i] = -1;
	}
}

static void take_in(struct cutter *c)
{
	int pair = 0;
	while (pair < PAIRS_MAX && c->fds[2 * pair] >= 0)
		pair++;
	int client = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC);
	must(client >= 0 && pair < PAIRS_MAX);
	int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in to = loopback(c->to_port);
	if (connect(server, (struct sockaddr *)&to, sizeof(to)) < 0) {
		close(client);
		close(server);
		return;
	}
	c->fds[2 * pair] = client;
	c->fds[2 * pair + 1] = server;
}

static void carry(struct cutter *c, int from)
{
	char data[65536];
	ssize_t n = recv(c->fds[from], data, sizeof(data), 0);
	bool is_answer = from % 2 == 1;
	if (n > 0 && is_answer && atomic_load(&c->cut) > 0 && atomic_fetch_sub(&c->cut, 1) == 1) {
		atomic_fetch_add(&c->cuts, 1);
		n = 0;
	}
	for (ssize_t sent = 0, one; n > 0 && sent < n; sent += one) {
		one = send(c->fds[from ^ 1], data + sent, (size_t)(n - sent), MSG_NOSIGNAL);
		if (one <= 0)
			n = 0;
	}
	if (n <= 0)
		drop(c, from / 2);
}

static void *run(void *arg)
{
	struct cutter *c = arg;
	for (;;) {
		struct pollfd polled[2 * PAIRS_MAX + 2];
		for (int i = 0; i < 2 * PAIRS_MAX; i++)
			polled[i] = (struct pollfd){ .fd = c->fds[i], .events = POLLIN };
		polled[2 * PAIRS_MAX] = (struct pollfd){ .fd = c->listener, .events = POLLIN };
		polled[2 * PAIRS_MAX + 1] = (struct pollfd){ .fd = c->stop[0], .events = POLLIN };
		must(poll(polled, 2 * PAIRS_MAX + 2, -1) > 0);
		if (polled[2 * PAIRS_MAX + 1].revents != 0)
			return NULL;
		for (int i = 0; i < 2 * PAIRS_MAX; i++)
			if (polled[i].revents != 0 && c->fds[i] == polled[i].fd)
				carry(c, i);
		if (polled[2 * PAIRS_MAX].revents != 0)
			take_in(c);
	}
}

struct cutter *cutter_start(uint16_t to_port)
{
	struct cutter *c = calloc(1, sizeof(*c));
	struct sockaddr_in at = loopback(0);
	socklen_t size = sizeof(at);
	must(c != NULL && pipe(c->stop) == 0);
	c->to_port = to_port;
	for (int i = 0; i < 2 * PAIRS_MAX; i++)
		c->fds[i] = -1;
	c->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(bind(c->listener, (struct sockaddr *)&at, size) == 0 && listen(c->listener, 64) == 0 &&
	     getsockname(c->listener, (struct sockaddr *)&at, &size) == 0);
	c->port = ntohs(at.sin_port);
	must(pthread_create(&c->thread, NULL, run, c) == 0);
	return c;
}

void cutter_stop(struct cutter *c)
{
	close(c->stop[1]);
	pthread_join(c->thread, NULL);
	for (int pair = 0; pair < PAIRS_MAX; pair++)
		if (c->fds[2 * pair] >= 0)
			drop(c, pair);
	close(c->stop[0]);
	close(c->listener);
	free(c);
}

uint16_t cutter_port(const struct cutter *c)
{
	return c->port;
}

void cutter_cut(struct cutter *c, int skip)
{
	atomic_store(&c->cut, skip + 1);
}

unsigned cutter_cuts(const struct cutter *c)
{
	return atomic_load(&c->cuts);
}
