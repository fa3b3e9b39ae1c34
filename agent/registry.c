/* registry.c -- see registry.h. */
#include "agent/registry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/log.h"
#include "agent/meeting.h"
#include "agent/queue.h"
#include "agent/runner.h"

#define REQUEST_MS 10000
#define SIZE_BYTES 4

struct registry {
	struct agent *agent; /* borrowed, outlives us */
	struct loop_watch listener;
	struct list_node clients; /* of struct client, owned */
};

/* One runner. */
struct client {
	struct list_node node;
	struct registry *registry;
	struct loop_watch watch;
	struct loop_timer timer; /* until its request is whole */
	struct queue in;
	struct shell *shell; /* borrowed; NULL: none yet, or none any more */
};

static void client_destroy(struct client *c)
{
	loop_timer_clear(&c->timer);
	loop_unwatch(&c->registry->agent->loop, &c->watch);
	close(c->watch.fd);
	list_remove(&c->node);
	queue_fini(&c->in);
	free(c);
}

/* What a runner is told is short and fits into the socket's buffer. */
static void tell(struct client *c, const char *text, size_t size)
{
	(void)!send(c->watch.fd, text, size, MSG_NOSIGNAL);
}

static void tell_shell(struct client *c, const struct shell *s)
{
	char line[AGENT_HANDSHAKE_BYTES_MAX + 8] = "shell ";
	agent_handshake(c->registry->agent, s, line + strlen(line));
	tell(c, line, strlen(line));
}

static void tell_end(struct client *c, int status, const char *text)
{
	char line[RUNNER_TEXT_BYTES + 32];
	int size = snprintf(line, sizeof(line), "end %d %s\n", status, text);
	tell(c, line, (size_t)size);
	c->shell = NULL;
}

/* --- requests --- */

/* Takes the next string, NULL when there is none. */
static char *take(char **at, const char *end)
{
	char *string = *at;
	char *zero = string < end ? memchr(string, '\0', (size_t)(end - string)) : NULL;
	if (zero == NULL)
		return NULL;
	*at = zero + 1;
	return string;
}

static bool take_number(char **at, const char *end, unsigned long max, unsigned long *ret)
{
	const char *string = take(at, end);
	char *rest;
	if (string == NULL || *string < '0' || *string > '9')
		return false;
	*ret = strtoul(string, &rest, 10);
	return *rest == '\0' && *ret <= max;
}

/* Takes the strings that are left: count arguments, then the environment. Returns an array of both,
 * each with NULL at its end, or NULL; *env points into it. */
static char **take_lists(char **at, const char *end, unsigned long count, char ***env)
{
	size_t total = 0;
	for (const char *p = *at; p < end; p++)
		total += *p == '\0';
	char **strings = count <= total ? calloc(total + 2, sizeof(*strings)) : NULL;
	if (strings == NULL)
		return NULL;
	char **next = strings;
	for (size_t i = 0; i < total; i++) {
		next += i == count; /* leaves the NULL behind the arguments */
		*next++ = take(at, end);
	}
	*env = strings + count + 1;
	return strings;
}

/* Starts what the size bytes at text ask for. Returns 0 or -EBADMSG; other failures are told. */
static int start(struct client *c, char *text, size_t size)
{
	const char *end = text + size;
	unsigned long cols, rows, unready_ms, count;
	const char *version = take(&text, end);
	if (version == NULL || strcmp(version, REGISTRY_VERSION) != 0 ||
	    !take_number(&text, end, SHELL_CELLS_MAX, &cols) ||
	    !take_number(&text, end, SHELL_CELLS_MAX, &rows) ||
	    !take_number(&text, end, UINT32_MAX, &unready_ms))
		return -EBADMSG;
	const char *token = take(&text, end);
	const char *cwd = take(&text, end);
	char **env;
	if (cwd == NULL || strlen(token) > SHELL_TOKEN_BYTES_MAX ||
	    !take_number(&text, end, REGISTRY_REQUEST_BYTES_MAX, &count))
		return -EBADMSG;
	char **argv = take_lists(&text, end, count, &env);
	if (argv == NULL)
		return -EBADMSG;

	struct agent_open open = { .token = *token != '\0' ? token : NULL,
				   .argv = argv,
				   .env = env,
				   .cwd = *cwd != '\0' ? cwd : NULL,
				   .cols = (uint16_t)cols,
				   .rows = (uint16_t)rows,
				   .unready_ms = unready_ms };
	struct spawn_failure failure;
	if (runner_open(c->registry->agent, &open, &c->shell, &failure) < 0) {
		char message[RUNNER_TEXT_BYTES];
		runner_describe(&failure, "", message);
		tell_end(c, 1, message);
	}
	free(argv);
	return 0;
}

static void take_request(struct client *c)
{
	if (c->in.size < SIZE_BYTES)
		return;
	const uint8_t *b = c->in.bytes; /* nothing was dropped from its front: it is in one piece */
	size_t size = (size_t)b[0] << 24 | (size_t)b[1] << 16 | (size_t)b[2] << 8 | b[3];
	if (size <= REGISTRY_REQUEST_BYTES_MAX && c->in.size < SIZE_BYTES + size)
		return;
	loop_timer_clear(&c->timer);
	if (size > REGISTRY_REQUEST_BYTES_MAX ||
	    start(c, (char *)c->in.bytes + SIZE_BYTES, size) < 0)
		tell_end(c, 1, "the agent that runs here does not understand this runner");
	queue_fini(&c->in);
}

static void on_client(struct loop_watch *w, uint32_t events)
{
	struct client *c = CONTAINER_OF(w, struct client, watch);
	struct agent *agent = c->registry->agent;
	(void)events;
	ssize_t size = recv(w->fd, agent->received, sizeof(agent->received), 0);
	if (size < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (size <= 0) {
		if (c->shell != NULL) /* the runner was killed */
			shell_hang_up(c->shell);
		client_destroy(c);
		return;
	}
	if (c->timer.armed && queue_append(&c->in, agent->received, (size_t)size) == 0)
		take_request(c);
}

static void on_request_timer(struct loop_timer *t)
{
	client_destroy(CONTAINER_OF(t, struct client, timer));
}

static void on_listener(struct loop_watch *w, uint32_t events)
{
	struct registry *r = CONTAINER_OF(w, struct registry, listener);
	(void)events;
	/* cppcheck-suppress nullPointer ; accept() allows it when nobody wants the address */
	int fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return;
	struct client *c = meeting_check_peer(fd) == 0 ? calloc(1, sizeof(*c)) : NULL;
	if (c == NULL) {
		close(fd);
		return;
	}
	c->registry = r;
	c->watch = (struct loop_watch){ .fd = fd, .ready = on_client };
	c->timer.due = on_request_timer;
	list_append(&r->clients, &c->node);
	loop_timer_set(&r->agent->loop, &c->timer, REQUEST_MS);
	loop_watch(&r->agent->loop, &c->watch, EPOLLIN);
}

/* --- what became of the shells --- */

static struct client *client_of(struct agent *agent, const struct shell *s)
{
	LIST_FOREACH(node, &agent->registry->clients)
	{
		struct client *c = CONTAINER_OF(node, struct client, node);
		if (c->shell == s)
			return c;
	}
	return NULL; /* its runner was killed */
}

static void on_started(struct agent *agent, struct shell *s)
{
	struct client *c = client_of(agent, s);
	if (c != NULL)
		tell_shell(c, s);
}

static void on_failed(struct agent *agent, struct shell *s, const struct spawn_failure *failure)
{
	struct client *c = client_of(agent, s);
	char message[RUNNER_TEXT_BYTES];
	if (c == NULL)
		return;
	if (failure->stage != SPAWN_PTY)
		tell_shell(c, s); /* as the original, which prints it first */
	runner_describe(failure, s->command, message);
	tell_end(c, 1, message);
}

static void on_over(struct agent *agent, struct shell *s)
{
	struct client *c = client_of(agent, s);
	if (c != NULL)
		tell_end(c, 0, "");
}

static void on_unused(struct agent *agent, struct shell *s)
{
	struct client *c = client_of(agent, s);
	if (c != NULL)
		tell_end(c, 1, RUNNER_INACTIVE);
}

static const struct agent_runner registry_runner = {
	.started = on_started,
	.failed = on_failed,
	.over = on_over,
	.unused = on_unused,
};

int registry_create(struct agent *agent, int fd)
{
	struct registry *r = calloc(1, sizeof(*r));
	if (r == NULL) {
		close(fd);
		return -ENOMEM;
	}
	r->agent = agent;
	r->listener = (struct loop_watch){ .fd = fd, .ready = on_listener };
	list_init(&r->clients);
	loop_watch(&agent->loop, &r->listener, EPOLLIN);
	agent->registry = r;
	agent->runner = &registry_runner;
	return 0;
}

void registry_close(struct registry *r)
{
	if (r == NULL || r->listener.fd < 0)
		return;
	loop_unwatch(&r->agent->loop, &r->listener);
	close(r->listener.fd);
	r->listener.fd = -1;
}

void registry_destroy(struct registry *r)
{
	if (r == NULL)
		return;
	registry_close(r);
	LIST_FOREACH(node, &r->clients)
	client_destroy(CONTAINER_OF(node, struct client, node));
	free(r);
}

bool registry_idle(const struct registry *r)
{
	return r == NULL || list_empty(&r->clients);
}
