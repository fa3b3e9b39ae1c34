/* canned_server.c -- see canned_server.h. */
#include "tests/unit/providers/canned_server.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 64
#define REQUESTS_MAX 128
#define STEPS_MAX 64
#define HEAD_BYTES_MAX 16384

struct canned_server {
	const struct canned_step *steps;
	size_t steps_count;
	int fd;
	int stop_pipe[2];
	pthread_t acceptor;
	char url[64];

	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t news;
	bool stopping;
	bool used[STEPS_MAX];
	struct canned_request *requests[REQUESTS_MAX];
	size_t requests_count;
	struct connection {
		struct canned_server *server;
		pthread_t thread;
		int fd;
		unsigned number;
	} connections[CONNECTIONS_MAX];
	unsigned connections_count;
};

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "canned server: %s\n", what);
	abort();
}

static uint64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static bool send_all(int fd, const char *data, size_t size)
{
	while (size > 0) {
		ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
		if (n <= 0)
			return false;
		data += n;
		size -= (size_t)n;
	}
	return true;
}

const char *canned_header(const struct canned_request *r, const char *name)
{
	static _Thread_local char value[1024];
	size_t name_size = strlen(name);
	const char *line = r->head;
	while ((line = strstr(line, "\r\n")) != NULL) {
		line += 2;
		if (strncasecmp(line, name, name_size) != 0 || line[name_size] != ':')
			continue;
		line += name_size + 1;
		line += strspn(line, " ");
		snprintf(value, sizeof(value), "%.*s", (int)strcspn(line, "\r"), line);
		return value;
	}
	return NULL;
}

/* The next request; NULL when the client is gone. The client sends one at a time. */
static struct canned_request *read_request(int fd)
{
	char head[HEAD_BYTES_MAX + 1];
	size_t have = 0;
	char *end;
	do {
		ssize_t n = recv(fd, head + have, HEAD_BYTES_MAX - have, 0);
		if (n <= 0)
			return NULL;
		have += (size_t)n;
		head[have] = '\0';
	} while ((end = strstr(head, "\r\n\r\n")) == NULL);

	struct canned_request *r = calloc(1, sizeof(*r));
	must(r != NULL, "no memory");
	size_t head_size = (size_t)(end - head) + 2;
	r->head = strndup(head, head_size);
	const char *length = canned_header(r, "content-length");
	size_t wanted = length == NULL ? 0 : strtoul(length, NULL, 10);
	r->body = calloc(1, wanted + 1);
	must(r->body != NULL, "no memory");
	r->body_size = have - head_size - 2;
	must(r->body_size <= wanted, "more than a request");
	memcpy(r->body, end + 4, r->body_size);
	while (r->body_size < wanted) {
		ssize_t n = recv(fd, r->body + r->body_size, wanted - r->body_size, 0);
		if (n <= 0)
			break;
		r->body_size += (size_t)n;
	}
	r->at_us = now_us();
	return r;
}

static const struct canned_step *pick_locked(struct canned_server *s, const char *head)
{
	static const struct canned_step unexpected = { .status = 599, .body = "not expected" };
	for (size_t i = 0; i < s->steps_count; i++) {
		const struct canned_step *step = &s->steps[i];
		if (s->used[i] || strncmp(head, step->when, strlen(step->when)) != 0)
			continue;
		s->used[i] = !step->for_ever;
		return step;
	}
	return &unexpected;
}

static const struct canned_step *arrive(struct connection *c, struct canned_request *r)
{
	struct canned_server *s = c->server;
	r->connection = c->number;
	pthread_mutex_lock(&s->lock);
	must(s->requests_count < REQUESTS_MAX, "too many requests");
	s->requests[s->requests_count++] = r;
	const struct canned_step *step = pick_locked(s, r->head);
	pthread_cond_broadcast(&s->news);
	while (s->requests_count < step->barrier && !s->stopping)
		pthread_cond_wait(&s->news, &s->lock);
	pthread_mutex_unlock(&s->lock);
	return step;
}

/* False: the connection ends here. */
static bool answer(int fd, const struct canned_step *step)
{
	char byte, head[1024];
	if (step->hang) {
		while (recv(fd, &byte, 1, 0) > 0)
			;
		return false;
	}
	if (step->raw != NULL) {
		send_all(fd, step->raw, strlen(step->raw));
		return false;
	}
	const char *body = step->body == NULL ? "" : step->body;
	size_t body_size = strlen(body) + step->filler;
	snprintf(head, sizeof(head), "HTTP/1.1 %u Told\r\n%sContent-Length: %zu\r\n\r\n",
		 step->status == 0 ? 200 : step->status, step->headers == NULL ? "" : step->headers,
		 body_size + step->missing);
	char *all = malloc(strlen(head) + body_size + 1);
	must(all != NULL, "no memory");
	size_t size = (size_t)sprintf(all, "%s%s", head, body);
	memset(all + size, 'x', step->filler);
	bool good = send_all(fd, all, size + step->filler);
	free(all);
	return good && step->missing == 0;
}

static void *serve(void *arg)
{
	struct connection *c = arg;
	struct canned_request *r;
	while ((r = read_request(c->fd)) != NULL)
		if (!answer(c->fd, arrive(c, r)))
			break;
	shutdown(c->fd, SHUT_RDWR); /* closed at the stop: its number must stay ours until then */
	return NULL;
}

static void *accept_all(void *arg)
{
	struct canned_server *s = arg;
	for (;;) {
		struct pollfd fds[] = { { .fd = s->fd, .events = POLLIN },
					{ .fd = s->stop_pipe[0], .events = POLLIN } };
		poll(fds, 2, -1);
		if (fds[1].revents != 0)
			return NULL;
		int fd = accept(s->fd, NULL, NULL);
		if (fd < 0)
			continue;
		pthread_mutex_lock(&s->lock);
		must(s->connections_count < CONNECTIONS_MAX, "too many connections");
		struct connection *c = &s->connections[s->connections_count];
		*c = (struct connection){ .server = s, .fd = fd, .number = s->connections_count };
		must(pthread_create(&c->thread, NULL, serve, c) == 0, "no thread");
		s->connections_count++;
		pthread_mutex_unlock(&s->lock);
	}
}

struct canned_server *canned_start(const struct canned_step *steps, size_t count)
{
	struct canned_server *s = calloc(1, sizeof(*s));
	must(s != NULL && count <= STEPS_MAX, "no memory, or too many steps");
	s->steps = steps;
	s->steps_count = count;
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&s->news, &monotonic);
	pthread_condattr_destroy(&monotonic);
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	s->fd = socket(AF_INET, SOCK_STREAM, 0);
	must(s->fd >= 0 && bind(s->fd, (struct sockaddr *)&address, size) == 0 &&
		     listen(s->fd, CONNECTIONS_MAX) == 0 &&
		     getsockname(s->fd, (struct sockaddr *)&address, &size) == 0 &&
		     pipe(s->stop_pipe) == 0,
	     "no socket");
	snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%u", ntohs(address.sin_port));
	must(pthread_create(&s->acceptor, NULL, accept_all, s) == 0, "no thread");
	return s;
}

void canned_stop(struct canned_server *s)
{
	must(write(s->stop_pipe[1], "", 1) == 1, "no pipe");
	pthread_join(s->acceptor, NULL);
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_cond_broadcast(&s->news);
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < s->connections_count; i++) {
		shutdown(s->connections[i].fd, SHUT_RDWR);
		pthread_join(s->connections[i].thread, NULL);
		close(s->connections[i].fd);
	}
	for (size_t i = 0; i < s->requests_count; i++) {
		free(s->requests[i]->head);
		free(s->requests[i]->body);
		free(s->requests[i]);
	}
	close(s->fd);
	close(s->stop_pipe[0]);
	close(s->stop_pipe[1]);
	pthread_cond_destroy(&s->news);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

const char *canned_url(const struct canned_server *s)
{
	return s->url;
}

size_t canned_count(struct canned_server *s)
{
	pthread_mutex_lock(&s->lock);
	size_t count = s->requests_count;
	pthread_mutex_unlock(&s->lock);
	return count;
}

unsigned canned_connections(struct canned_server *s)
{
	pthread_mutex_lock(&s->lock);
	unsigned count = s->connections_count;
	pthread_mutex_unlock(&s->lock);
	return count;
}

void canned_await(struct canned_server *s, size_t count)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += 10;
	pthread_mutex_lock(&s->lock);
	while (s->requests_count < count)
		must(pthread_cond_timedwait(&s->news, &s->lock, &until) == 0,
		     "the requests did not come");
	pthread_mutex_unlock(&s->lock);
}

const struct canned_request *canned_request(struct canned_server *s, size_t index)
{
	pthread_mutex_lock(&s->lock);
	must(index < s->requests_count, "there was no such request");
	const struct canned_request *r = s->requests[index];
	pthread_mutex_unlock(&s->lock);
	return r;
}
