/* runner.c -- see runner.h. */
#include "agent/runner.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/log.h"
#include "agent/queue.h"
#include "agent/registry.h"

int runner_open(struct agent *agent, struct agent_open *open, struct shell **ret,
		struct spawn_failure *failure)
{
	static char *no_command[] = { "", NULL }; /* fails as every program that is not there */
	if (open->argv[0] == NULL)
		open->argv = no_command;
	if (open->unready_ms == 0)
		open->unready_ms = 1;
	return agent_open(agent, open, ret, failure);
}

void runner_describe(const struct spawn_failure *failure, const char *command,
		     char ret[RUNNER_TEXT_BYTES])
{
	const char *error = strerror(failure->error);
	if (failure->stage == SPAWN_PTY)
		snprintf(ret, RUNNER_TEXT_BYTES, "this machine gives no PTY: %s", error);
	else if (failure->stage == SPAWN_CWD)
		snprintf(ret, RUNNER_TEXT_BYTES, "working directory: %s", error);
	else if (failure->stage == SPAWN_FORK)
		snprintf(ret, RUNNER_TEXT_BYTES, "no process or memory: %s", error);
	else if (*command == '\0')
		snprintf(ret, RUNNER_TEXT_BYTES, "no command specified");
	else if (failure->error == ENOENT && strchr(command, '/') == NULL)
		snprintf(ret, RUNNER_TEXT_BYTES, "%s: executable file not found in $PATH", command);
	else
		snprintf(ret, RUNNER_TEXT_BYTES, "%s: %s", command, error);
}

static int put(struct queue *q, const char *string)
{
	return queue_append(q, string, strlen(string) + 1);
}

static int put_number(struct queue *q, size_t number)
{
	char text[24];
	snprintf(text, sizeof(text), "%zu", number);
	return put(q, text);
}

static int put_strings(struct queue *q, char **strings)
{
	int rc = 0;
	for (; *strings != NULL; strings++)
		rc |= put(q, *strings);
	return rc;
}

/* The request, without its size. Returns 0 or -errno. */
static int put_request(struct queue *q, const struct options *o)
{
	size_t count = 0;
	while (o->command[count] != NULL)
		count++;
	char *here = getcwd(NULL, 0);
	char *cwd = NULL;
	int rc = 0;
	/* A relative --cwd is relative to where the runner is, not to where the agent is. */
	if (o->cwd != NULL && (o->cwd[0] == '/' || here == NULL))
		cwd = strdup(o->cwd);
	else if (o->cwd != NULL)
		rc = asprintf(&cwd, "%s/%s", here, o->cwd) < 0 ? -1 : 0;
	rc |= put(q, REGISTRY_VERSION) | put_number(q, o->cols) | put_number(q, o->rows);
	rc |= put_number(q, o->inactivity_ms) | put(q, o->token != NULL ? o->token : "");
	rc |= put(q, cwd != NULL ? cwd : here != NULL ? here : "");
	rc |= put_number(q, count) | put_strings(q, o->command) | put_strings(q, environ);
	free(cwd);
	free(here);
	if (rc != 0)
		return -ENOMEM;
	return q->size <= REGISTRY_REQUEST_BYTES_MAX ? 0 : -E2BIG;
}

static int send_all(int fd, const void *data, size_t size)
{
	const char *at = data;
	while (size > 0) {
		ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
		if (sent < 0 && errno != EINTR)
			return -errno;
		if (sent > 0) {
			at += sent;
			size -= (size_t)sent;
		}
	}
	return 0;
}

static int send_request(int fd, const struct options *o)
{
	struct queue q = { 0 };
	int rc = put_request(&q, o);
	if (rc == 0) {
		size_t size = q.size;
		uint8_t head[4] = { (uint8_t)(size >> 24), (uint8_t)(size >> 16),
				    (uint8_t)(size >> 8), (uint8_t)size };
		rc = send_all(fd, head, sizeof(head));
		if (rc == 0)
			rc = send_all(fd, q.bytes, q.size);
	}
	queue_fini(&q);
	return rc;
}

int runner_run(int fd, const struct options *options)
{
	int rc = send_request(fd, options);
	if (rc == -E2BIG || rc == -ENOMEM) {
		log_error("request to the agent: %s", strerror(-rc));
		return 1;
	}
	FILE *answers = fdopen(dup(fd), "r");
	if (answers == NULL)
		return 1;
	char *line = NULL;
	size_t capacity = 0;
	int status = rc < 0 ? -EAGAIN : -ENODATA;
	bool has_shell = false;
	while (status == -ENODATA) {
		ssize_t size = getline(&line, &capacity, answers);
		if (size <= 0) {
			status = has_shell ? 1 : -EAGAIN;
			if (has_shell)
				log_error("the agent ended");
		} else if (strncmp(line, "shell ", 6) == 0) {
			has_shell = true;
			(void)!write(STDOUT_FILENO, line + 6, (size_t)size - 6);
		} else if (strncmp(line, "end ", 4) == 0) {
			char *text;
			status = (int)strtol(line + 4, &text, 10);
			text += *text == ' ';
			text[strcspn(text, "\n")] = '\0';
			if (*text != '\0')
				log_error("%s", text);
		}
	}
	free(line);
	fclose(answers);
	return status;
}
