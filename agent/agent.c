/* agent.c -- see agent.h. */
#include "agent/agent.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "agent/conn.h"
#include "agent/conn_v2.h"
#include "agent/environment.h"
#include "agent/json.h"
#include "agent/log.h"
#include "agent/random.h"
#include "agent/registration.h"
#include "agent/registry.h"
#include "agent/server.h"
#include "agent/version.h"
#include "wire/base64.h"

#define STOP_MS 5000       /* SIGTERM: until everything is cut off */
#define ID_BYTES 8         /* of a shell that came without an id */
#define PROCESS_ID_BITS 53 /* exact as a JSON number */

/* --- names and secrets --- */

void agent_random_token(char ret[AGENT_TOKEN_CHARS + 1])
{
	uint8_t bytes[32];
	random_bytes(bytes, sizeof(bytes));
	ret[base64_encode(ret, bytes, sizeof(bytes))] = '\0';
	for (char *c = ret; *c != '\0'; c++) {
		if (*c == '+')
			*c = '-';
		else if (*c == '/')
			*c = '_';
	}
}

/* Tells equal strings from others in a time that says nothing of where they differ. */
static bool token_equals(const char *token, const char *offered)
{
	size_t size = strlen(offered);
	unsigned differs = size != strlen(token);
	for (size_t i = 0; i < size; i++)
		differs |= (unsigned char)(offered[i] ^ token[differs ? 0 : i]);
	return differs == 0 && size > 0;
}

bool agent_is_control_token(const struct agent *agent, const char *token)
{
	return token_equals(agent->control_token, token);
}

struct shell *agent_find_token(struct agent *agent, const char *token)
{
	struct shell *found = NULL;
	LIST_FOREACH(node, &agent->shells)
	{
		struct shell *s = CONTAINER_OF(node, struct shell, node);
		if (token_equals(s->token, token))
			found = s;
	}
	return found;
}

struct shell *agent_find(struct agent *agent, const void *id, size_t id_size)
{
	LIST_FOREACH(node, &agent->shells)
	{
		struct shell *s = CONTAINER_OF(node, struct shell, node);
		if (strlen(s->id) == id_size && memcmp(s->id, id, id_size) == 0)
			return s;
	}
	return NULL;
}

struct shell *agent_find_process(struct agent *agent, uint64_t process_id)
{
	LIST_FOREACH(node, &agent->shells)
	{
		struct shell *s = CONTAINER_OF(node, struct shell, node);
		if (s->process_id == process_id && process_id != 0)
			return s;
	}
	return NULL;
}

void agent_handshake(const struct agent *agent, const struct shell *s,
		     char ret[AGENT_HANDSHAKE_BYTES_MAX])
{
	char control[JSON_STRING_BYTES(SHELL_TOKEN_BYTES_MAX) + 1];
	char token[JSON_STRING_BYTES(SHELL_TOKEN_BYTES_MAX) + 1];
	control[json_string(control, agent->control_token)] = '\0';
	token[json_string(token, s != NULL ? s->token : agent->control_token)] = '\0';
	unsigned long long process = s != NULL ? s->process_id : (unsigned long long)getpid();
	size_t size = 0;
	ret[size++] = '{';
	if (s != NULL)
		size += (size_t)snprintf(ret + size, AGENT_HANDSHAKE_BYTES_MAX - size,
					 "\"control\":\"%s\",", control);
	size += (size_t)
		snprintf(ret + size, AGENT_HANDSHAKE_BYTES_MAX - size,
			 "\"instance\":\"%016llx\",\"port\":%d,\"processId\":%llu,\"proto\":2,"
			 "\"serverProcessId\":%d,",
			 (unsigned long long)agent->instance, agent->port, process, (int)getpid());
	if (s != NULL)
		size += (size_t)snprintf(ret + size, AGENT_HANDSHAKE_BYTES_MAX - size,
					 "\"shell\":\"%s\",", s->id);
	snprintf(ret + size, AGENT_HANDSHAKE_BYTES_MAX - size,
		 "\"token\":\"%s\",\"version\":\"" AGENT_VERSION "\"}\n", token);
}

/* --- shells --- */

static void shell_gone(struct agent *agent, struct shell *s)
{
	shell_destroy(s);
	if (--agent->shell_count == 0)
		loop_timer_set(&agent->loop, &agent->idle_timer, agent->options->idle_exit_ms);
}

void agent_forget(struct agent *agent, struct shell *s)
{
	log_debug("shell forgotten shell=%s", s->id);
	shell_gone(agent, s);
}

static bool gives_way_before(const struct shell *s, const struct shell *other)
{
	if (other == NULL || s->exit_told != other->exit_told)
		return other == NULL || s->exit_told;
	return s->ended_ms < other->ended_ms;
}

bool agent_make_room(struct agent *agent)
{
	if (agent->shell_count < AGENT_SHELLS_MAX)
		return true;
	struct shell *first = NULL;
	LIST_FOREACH(node, &agent->shells)
	{
		struct shell *s = CONTAINER_OF(node, struct shell, node);
		if (s->state == SHELL_ENDED && s->process_id == 0 && gives_way_before(s, first))
			first = s;
	}
	if (first != NULL)
		agent_forget(agent, first);
	return first != NULL;
}

static void on_started(struct shell *s)
{
	struct agent *agent = s->owner;
	LIST_FOREACH(node, &agent->conns)
	{
		struct conn *c = CONTAINER_OF(node, struct conn, node);
		if (c->opening != s)
			continue;
		conn_v2_opened(c);
		conn_resume(c);
	}
	if (s->process_id != 0)
		agent->runner->started(agent, s);
}

static void on_failed(struct shell *s, const struct spawn_failure *failure)
{
	struct agent *agent = s->owner;
	log_debug("shell failed shell=%s stage=%d errno=%d", s->id, (int)failure->stage,
		  failure->error);
	LIST_FOREACH(node, &agent->conns)
	{
		struct conn *c = CONTAINER_OF(node, struct conn, node);
		if (c->opening == s)
			conn_v2_failed(c, s->command, failure);
	}
	if (s->process_id != 0)
		agent->runner->failed(agent, s, failure);
	shell_gone(agent, s);
}

static void on_over(struct shell *s)
{
	struct agent *agent = s->owner;
	if (s->process_id != 0)
		agent->runner->over(agent, s);
}

static void on_unused(struct shell *s)
{
	struct agent *agent = s->owner;
	if (s->process_id != 0 && !s->ready)
		agent->runner->unused(agent, s);
	agent_forget(agent, s);
}

static const struct shell_events shell_events = {
	.started = on_started,
	.failed = on_failed,
	.over = on_over,
	.unused = on_unused,
};

/* The command, or the user's shell when there is none. */
static char **command_or_shell(const struct agent_open *open, char *fallback[2])
{
	if (open->argv[0] != NULL)
		return open->argv;
	char *shell = environment_get(open->env, "SHELL");
	if (shell == NULL) {
		static char bash[] = "/bin/bash", sh[] = "/bin/sh";
		shell = access(bash, X_OK) == 0 ? bash : sh;
	}
	fallback[0] = shell;
	fallback[1] = NULL;
	return fallback;
}

static size_t ring_bytes(const struct agent *agent, uint32_t wanted)
{
	if (wanted == 0)
		return agent->options->ring_bytes;
	if (wanted < OPTIONS_RING_BYTES_MIN)
		return OPTIONS_RING_BYTES_MIN;
	return wanted < OPTIONS_RING_BYTES_MAX ? wanted : OPTIONS_RING_BYTES_MAX;
}

static void random_id(char ret[2 * ID_BYTES + 1])
{
	uint64_t id;
	random_bytes(&id, sizeof(id));
	snprintf(ret, 2 * ID_BYTES + 1, "%016llx", (unsigned long long)id);
}

int agent_open(struct agent *agent, const struct agent_open *open, struct shell **ret,
	       struct spawn_failure *failure)
{
	const struct options *o = agent->options;
	char id[2 * ID_BYTES + 1], token[AGENT_TOKEN_CHARS + 1];
	char *fallback[2];
	random_id(id);
	agent_random_token(token);
	struct shell_options options = {
		.id = open->id != NULL ? open->id : id,
		.token = open->token != NULL ? open->token : token,
		.spawn = { .argv = command_or_shell(open, fallback),
			   .env = open->env,
			   .cwd = open->cwd,
			   .cols = open->cols,
			   .rows = open->rows },
		.ring_bytes = ring_bytes(agent, open->ring_bytes),
		.alone_ms = open->alone_s != 0 ? open->alone_s * UINT64_C(1000) : o->alone_ms,
		.linger_ms = open->linger_s != 0 ? open->linger_s * UINT64_C(1000) : o->linger_ms,
		.stall_ms = o->stall_ms,
		.lost_ms = o->lost_ms,
		.unready_ms = open->unready_ms,
		.owner = agent,
		.events = &shell_events,
	};
	if (open->unready_ms > 0)
		options.alone_ms = 0; /* its clients of the old dialect may come and go */
	struct shell *s;
	if (shell_create(&agent->loop, &options, &s, failure) < 0)
		return -1;
	s->serial = ++agent->next_serial;
	s->parameters = open->parameters;
	if (open->unready_ms > 0) {
		random_bytes(&s->process_id, sizeof(s->process_id));
		s->process_id = s->process_id >> (64 - PROCESS_ID_BITS) | 1;
	}
	list_append(&agent->shells, &s->node);
	agent->shell_count++;
	agent->had_shells = true;
	loop_timer_clear(&agent->idle_timer);
	log_debug("shell opened shell=%s pid=%d cols=%u rows=%u", s->id, (int)s->child.pid,
		  open->cols, open->rows);
	*ret = s;
	return 0;
}

/* --- signals, the end --- */

void agent_stop(struct agent *agent, int status)
{
	if (agent->stopping)
		return;
	log_debug("agent stops status=%d shells=%d connections=%d", status, agent->shell_count,
		  agent->conn_count);
	agent->stopping = true;
	agent->status = status;
	registration_withdraw(agent->registration);
	server_close(agent);
	registry_close(agent->registry);
	LIST_FOREACH(node, &agent->shells)
	shell_hang_up(CONTAINER_OF(node, struct shell, node));
}

static void on_signal(struct loop_watch *w, uint32_t events)
{
	struct agent *agent = CONTAINER_OF(w, struct agent, signals);
	struct signalfd_siginfo info;
	(void)events;
	while (read(w->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGCHLD) {
			LIST_FOREACH(node, &agent->shells)
			shell_check_child(CONTAINER_OF(node, struct shell, node));
		} else {
			agent_stop(agent, 0);
			loop_timer_set(&agent->loop, &agent->stop_timer, STOP_MS);
		}
	}
}

static void on_stop_timer(struct loop_timer *t)
{
	CONTAINER_OF(t, struct agent, stop_timer)->done = true;
}

static void on_idle_timer(struct loop_timer *t)
{
	struct agent *agent = CONTAINER_OF(t, struct agent, idle_timer);
	if (agent->options->mode == MODE_SERVER)
		return;
	agent_stop(agent, 0);
	loop_timer_set(&agent->loop, &agent->stop_timer, STOP_MS);
}

/* When it stops: closes those who have all they wait for. */
static void close_satisfied(struct agent *agent)
{
	LIST_FOREACH(node, &agent->conns)
	{
		struct conn *c = CONTAINER_OF(node, struct conn, node);
		if (c->state == CONN_HEAD)
			conn_drop(c, false);
		else if (c->shell == NULL || c->exit_told)
			conn_close(c, 1001, "the agent stops");
	}
}

static bool all_shells_ended(struct agent *agent)
{
	LIST_FOREACH(node, &agent->shells)
	{
		if (CONTAINER_OF(node, struct shell, node)->state != SHELL_ENDED)
			return false;
	}
	return true;
}

static void free_dead(struct agent *agent)
{
	if (agent->dead_count == 0)
		return;
	LIST_FOREACH(node, &agent->conns)
	{
		struct conn *c = CONTAINER_OF(node, struct conn, node);
		if (c->state == CONN_DEAD)
			conn_destroy(c);
	}
	agent->dead_count = 0;
}

/* After each round: is there anything left to do? */
static void look_for_the_end(struct agent *agent)
{
	if (agent->stopping) {
		close_satisfied(agent);
		if (agent->conn_count == 0 && all_shells_ended(agent))
			agent->done = true;
	} else if (agent->had_shells && agent->shell_count == 0 && agent->conn_count == 0 &&
		   agent->options->mode != MODE_SERVER && agent->registration == NULL &&
		   registry_idle(agent->registry)) {
		agent->done = true;
	}
	free_dead(agent);
}

int agent_run(struct agent *agent)
{
	while (!agent->done) {
		int rc = loop_once(&agent->loop);
		if (rc < 0) {
			log_error("agent cannot wait: %s", strerror(-rc));
			return 1;
		}
		look_for_the_end(agent);
	}
	return agent->status;
}

static int watch_signals(struct agent *agent)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	(void)signal(SIGCHLD, SIG_DFL); /* ignored by who started us, children end without a word */
	int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	agent->signals = (struct loop_watch){ .fd = fd, .ready = on_signal };
	loop_watch(&agent->loop, &agent->signals, EPOLLIN);
	return 0;
}

int agent_init(struct agent *agent, const struct options *options)
{
	agent->options = options;
	agent->listener.fd = -1;
	list_init(&agent->shells);
	list_init(&agent->conns);
	agent->stop_timer.due = on_stop_timer;
	agent->idle_timer.due = on_idle_timer;
	random_bytes(&agent->instance, sizeof(agent->instance));
	if (options->token != NULL && (options->mode == MODE_AGENT || options->mode == MODE_SERVER))
		snprintf(agent->control_token, sizeof(agent->control_token), "%s", options->token);
	else
		agent_random_token(agent->control_token);
	int rc = loop_init(&agent->loop);
	if (rc < 0)
		return rc;
	rc = watch_signals(agent);
	if (rc < 0) {
		loop_fini(&agent->loop);
		return rc;
	}
	loop_timer_set(&agent->loop, &agent->idle_timer, options->idle_exit_ms);
	return 0;
}

void agent_fini(struct agent *agent)
{
	registration_withdraw(agent->registration);
	server_close(agent);
	LIST_FOREACH(node, &agent->conns)
	conn_drop(CONTAINER_OF(node, struct conn, node), false);
	free_dead(agent);
	LIST_FOREACH(node, &agent->shells)
	shell_destroy(CONTAINER_OF(node, struct shell, node));
	registry_destroy(agent->registry);
	loop_unwatch(&agent->loop, &agent->signals);
	close(agent->signals.fd);
	loop_fini(&agent->loop);
}
