/* redis_server.c -- see redis_server.h. */
#include "tests/unit/redis_server.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OPTIONS_MAX 32
#define ANSWER_MS 20000 /* a sanitizer's suites on few cores */

struct redis_server {
	pid_t pid; /* 0: not running */
	uint16_t port;
	char dir[64], location[64];
	char *options[OPTIONS_MAX + 1]; /* owned */
	char user[64], password[64];
	redisContext *context; /* NULL: none yet */
};

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "redis server: %s\n", what);
	abort();
}

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void pause_shortly(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
}

static uint16_t free_port(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0 &&
		     getsockname(fd, (struct sockaddr *)&address, &size) == 0,
	     "no port");
	close(fd);
	return ntohs(address.sin_port);
}

static void run(struct redis_server *s)
{
	char port[16], log[96];
	snprintf(port, sizeof(port), "%u", s->port);
	snprintf(log, sizeof(log), "%s/log", s->dir);
	const char *argv[OPTIONS_MAX + 32] = {
		"redis-server",
		"--port",
		"%",
		"--bind",
		"127.0.0.1",
		"--dir",
		s->dir,
		"--logfile",
		log,
		"--daemonize",
		"no",
		"--save",
		"",
		"--appendonly",
		"no",
		"--loglevel",
		"notice",
		"--databases",
		"16",
		"--io-threads",
		"1",
		"--tcp-backlog",
		"511",
		"--maxclients",
		"1000",
	};
	argv[2] = port;
	size_t argc = 0;
	while (argv[argc] != NULL)
		argc++;
	for (size_t i = 0; s->options[i] != NULL; i++)
		argv[argc++] = s->options[i];

	pid_t parent = getpid();
	s->pid = fork();
	must(s->pid >= 0, "no process");
	if (s->pid > 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == parent)
		execvp(argv[0], (char *const *)argv);
	_exit(127);
}

/* 1: it answers; 0: not yet; -1: it has ended. */
static int look(struct redis_server *s)
{
	if (waitpid(s->pid, NULL, WNOHANG) == s->pid) {
		s->pid = 0;
		return -1;
	}
	struct timeval timeout = { .tv_usec = 500000 };
	redisContext *c = redisConnectWithTimeout("127.0.0.1", s->port, timeout);
	must(c != NULL, "no memory");
	redisReply *reply = NULL;
	if (c->err == 0) {
		redisSetTimeout(c, timeout);
		reply = redisCommand(c, "PING");
	}
	bool answers = reply != NULL && strncmp(reply->str, "LOADING", 7) != 0;
	freeReplyObject(reply);
	redisFree(c);
	return answers;
}

static bool wait_for_answer(struct redis_server *s)
{
	int answers;
	for (uint64_t end_ms = now_ms() + ANSWER_MS; (answers = look(s)) == 0; pause_shortly())
		must(now_ms() < end_ms, "it does not answer");
	return answers > 0;
}

struct redis_server *redis_server_start(const char *const *options)
{
	struct redis_server *s = calloc(1, sizeof(*s));
	must(s != NULL, "no memory");
	for (size_t i = 0; options != NULL && options[i] != NULL; i++) {
		must(i < OPTIONS_MAX, "too many options");
		s->options[i] = strdup(options[i]);
	}
	strcpy(s->dir, "/tmp/ptycast-redis-XXXXXX");
	must(mkdtemp(s->dir) != NULL, "no directory");
	/* Somebody else may get the port between our look and its bind. */
	for (unsigned tries = 0;; tries++) {
		must(tries < 5,
		     "redis-server does not start: is it installed, are its options right?");
		s->port = free_port();
		run(s);
		if (wait_for_answer(s))
			break;
	}
	snprintf(s->location, sizeof(s->location), "//127.0.0.1:%u", s->port);
	return s;
}

static void forget_context(struct redis_server *s)
{
	if (s->context != NULL)
		redisFree(s->context);
	s->context = NULL;
}

static void end(struct redis_server *s, int signal)
{
	must(s->pid != 0, "it does not run");
	forget_context(s);
	kill(s->pid, signal);
	must(waitpid(s->pid, NULL, 0) == s->pid, "it does not end");
	s->pid = 0;
}

void redis_server_kill(struct redis_server *s)
{
	end(s, SIGKILL);
}

void redis_server_terminate(struct redis_server *s)
{
	end(s, SIGTERM);
}

void redis_server_restart(struct redis_server *s)
{
	must(s->pid == 0, "it still runs");
	run(s);
	must(wait_for_answer(s), "it does not start again");
}

void redis_server_freeze(struct redis_server *s)
{
	forget_context(s);
	int status;
	must(kill(s->pid, SIGSTOP) == 0 && waitpid(s->pid, &status, WUNTRACED) == s->pid &&
		     WIFSTOPPED(status),
	     "it does not stop");
}

void redis_server_thaw(struct redis_server *s)
{
	must(kill(s->pid, SIGCONT) == 0, "it does not go on");
}

static void remove_tree(const char *path)
{
	DIR *dir = opendir(path);
	for (const struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		char inner[512];
		snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
		if (entry->d_type == DT_DIR)
			remove_tree(inner);
		else
			unlink(inner);
	}
	if (dir != NULL)
		closedir(dir);
	rmdir(path);
}

void redis_server_stop(struct redis_server *s)
{
	if (s == NULL)
		return;
	if (s->pid != 0)
		end(s, SIGKILL);
	forget_context(s);
	remove_tree(s->dir);
	for (size_t i = 0; s->options[i] != NULL; i++)
		free(s->options[i]);
	free(s);
}

uint16_t redis_server_port(const struct redis_server *s)
{
	return s->port;
}

const char *redis_server_location(const struct redis_server *s)
{
	return s->location;
}

void redis_server_login(struct redis_server *s, const char *user, const char *password)
{
	snprintf(s->user, sizeof(s->user), "%s", user);
	snprintf(s->password, sizeof(s->password), "%s", password);
	forget_context(s);
}

static redisContext *context_of(struct redis_server *s)
{
	if (s->context != NULL && s->context->err == 0)
		return s->context;
	forget_context(s);
	struct timeval timeout = { .tv_sec = ANSWER_MS / 1000 };
	s->context = redisConnectWithTimeout("127.0.0.1", s->port, timeout);
	must(s->context != NULL && s->context->err == 0, "no connection");
	redisSetTimeout(s->context, timeout);
	if (s->password[0] != '\0') {
		redisReply *reply = redisCommand(s->context, "AUTH %s %s", s->user, s->password);
		must(reply != NULL && reply->type != REDIS_REPLY_ERROR, "it refuses the login");
		freeReplyObject(reply);
	}
	return s->context;
}

static redisReply *command(struct redis_server *s, const char *format, va_list args)
{
	va_list again;
	va_copy(again, args);
	redisReply *reply = redisvCommand(context_of(s), format, args);
	if (reply == NULL) /* an idle connection that was killed, as by CLIENT KILL */
		reply = redisvCommand(context_of(s), format, again);
	va_end(again);
	must(reply != NULL, "no reply");
	return reply;
}

struct redisReply *redis_server_command(struct redis_server *s, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	redisReply *reply = command(s, format, args);
	va_end(args);
	return reply;
}

long long redis_server_do(struct redis_server *s, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	redisReply *reply = command(s, format, args);
	va_end(args);
	if (reply->type == REDIS_REPLY_ERROR)
		fprintf(stderr, "redis server: %s: %s\n", format, reply->str);
	must(reply->type != REDIS_REPLY_ERROR, "a command failed");
	long long number = reply->type == REDIS_REPLY_INTEGER ? reply->integer : 0;
	freeReplyObject(reply);
	return number;
}
