/* main.c -- ptycast-agent: a pty server for sandboxes. Reads the flags and starts one of its modes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/log.h"
#include "agent/meeting.h"
#include "agent/options.h"
#include "agent/registration.h"
#include "agent/registry.h"
#include "agent/runner.h"
#include "agent/server.h"
#include "agent/single.h"
#include "agent/spawn.h"

#define RUNNER_TRIES 3

/* Descriptors 0 to 2 must exist, or a socket would get one of these numbers. */
static void open_standard(void)
{
	int fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= 2)
		fd = dup(fd);
	if (fd > 2)
		close(fd);
}

static void redirect_to_null(int first, int last)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = first; null >= 0 && fd <= last; fd++)
		(void)dup2(null, fd);
	if (null >= 0)
		close(null);
}

static int print(const char *line)
{
	size_t size = strlen(line);
	return write(STDOUT_FILENO, line, size) == (ssize_t)size ? 0 : -1;
}

/* Initialises the agent and listens. Returns 0, or -1 with text why not. */
static int begin(struct agent *agent, const struct options *options, char text[RUNNER_TEXT_BYTES])
{
	int rc = agent_init(agent, options);
	if (rc < 0) {
		snprintf(text, RUNNER_TEXT_BYTES, "agent cannot start: %s", strerror(-rc));
		return -1;
	}
	rc = server_listen(agent);
	if (rc < 0) {
		snprintf(text, RUNNER_TEXT_BYTES, "agent cannot listen: %s", strerror(-rc));
		agent_fini(agent);
		return -1;
	}
	return 0;
}

/* Version 2 alone. */
static int main_agent(struct agent *agent, const struct options *options)
{
	char text[RUNNER_TEXT_BYTES], line[AGENT_HANDSHAKE_BYTES_MAX];
	(void)setsid(); /* whoever started us may end together with its terminal */
	if (begin(agent, options, text) < 0) {
		log_error("%s", text);
		return 1;
	}
	agent_handshake(agent, NULL, line);
	int status = 1;
	if (print(line) == 0) {
		redirect_to_null(0, options->debug ? 1 : 2);
		status = agent_run(agent);
	}
	agent_fini(agent);
	return status;
}

static int main_single(struct agent *agent, const struct options *options)
{
	char text[RUNNER_TEXT_BYTES];
	if (begin(agent, options, text) < 0) {
		log_error("%s", text);
		return 1;
	}
	(void)single_start(agent); /* when it fails, the agent stops at once */
	int status = agent_run(agent);
	agent_fini(agent);
	return status;
}

/* An agent that takes shells from runners, for main_server() and behind main_client(). The caller holds
 * the lock of the meeting. Returns as begin(). */
static int begin_registry(struct agent *agent, const struct options *options,
			  const struct meeting *meeting, char text[RUNNER_TEXT_BYTES])
{
	if (begin(agent, options, text) < 0)
		return -1;
	int fd = meeting_listen(meeting);
	int rc = fd < 0 ? fd : registry_create(agent, fd);
	if (rc < 0) {
		snprintf(text, RUNNER_TEXT_BYTES, "agent cannot be found: %s", strerror(-rc));
		agent_fini(agent);
	}
	return rc < 0 ? -1 : 0;
}

static int main_server(struct agent *agent, const struct options *options, struct meeting *meeting)
{
	char text[RUNNER_TEXT_BYTES], line[SHELL_TOKEN_BYTES_MAX + 32];
	if (meeting_lock(meeting) < 0) {
		log_error("another agent does not come up");
		return 1;
	}
	int fd = meeting_connect(meeting);
	if (fd >= 0) {
		log_error("an agent runs already");
		close(fd);
		return 1;
	}
	if (begin_registry(agent, options, meeting, text) < 0) {
		log_error("%s", text);
		return 1;
	}
	meeting_unlock(meeting);
	snprintf(line, sizeof(line), "port=%d token=%s\n", agent->port, agent->control_token);
	(void)print(line);
	int status = agent_run(agent);
	agent_fini(agent);
	return status;
}

/* Forks a process in the background, with a session of its own and nothing of our standard descriptors:
 * who waits for their end waits for us alone. Returns its process id, 0 in it, or -1 (said); *ret is the
 * end of a pipe, to read there and to write here. */
static pid_t fork_background(int *ret)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) != 0) {
		log_error("pipe: %s", strerror(errno));
		return -1;
	}
	pid_t pid = fork();
	if (pid == 0) {
		(void)setsid();
		redirect_to_null(0, 2);
	} else if (pid < 0) {
		log_error("fork: %s", strerror(errno));
		close(ends[0]);
	}
	close(ends[pid == 0 ? 0 : 1]);
	*ret = ends[pid == 0 ? 1 : 0];
	return pid;
}

/* Waits for the fate of a process in the background, which it tells through the pipe: why it failed, or
 * a 0 and then text for us. Returns 0 with that, or -1 (said). */
static int await_background(int pipe_end, char ret[AGENT_HANDSHAKE_BYTES_MAX])
{
	char text[AGENT_HANDSHAKE_BYTES_MAX + 1] = "agent ended at once";
	size_t size = 0;
	ssize_t got;
	while (size < sizeof(text) - 1 &&
	       (got = read(pipe_end, text + size, sizeof(text) - 1 - size)) > 0)
		size += (size_t)got;
	close(pipe_end);
	if (size > 0)
		text[size] = '\0';
	if (text[0] != '\0') {
		log_error("%s", text);
		return -1;
	}
	memcpy(ret, text + 1, AGENT_HANDSHAKE_BYTES_MAX);
	return 0;
}

/* The agent behind a runner. */
static int main_background(struct agent *agent, const struct options *options,
			   struct meeting *meeting, int ready)
{
	char text[RUNNER_TEXT_BYTES];
	if (begin_registry(agent, options, meeting, text) < 0) {
		(void)!write(ready, text, strlen(text));
		return 1;
	}
	meeting_unlock(meeting);
	(void)!write(ready, "", 1);
	close(ready);
	int status = agent_run(agent);
	agent_fini(agent);
	return status;
}

/* Starts an agent in the background and waits until it can be found. Returns 0 or -1 (said), and in the
 * background process, at its end, 1 with its status. */
static int start_background(struct agent *agent, const struct options *options,
			    struct meeting *meeting, int *status)
{
	int pipe_end;
	char nothing[AGENT_HANDSHAKE_BYTES_MAX];
	pid_t pid = fork_background(&pipe_end);
	if (pid == 0) {
		*status = main_background(agent, options, meeting, pipe_end);
		return 1;
	}
	return pid > 0 ? await_background(pipe_end, nothing) : -1;
}

/* Returns a connection to the agent, started if need be; -1 (said), or -2 in the background process. */
static int find_agent(struct agent *agent, const struct options *options, struct meeting *meeting,
		      int *status)
{
	int fd = meeting_connect(meeting);
	if (fd >= 0)
		return fd;
	int rc = meeting_lock(meeting);
	if (rc == 0) {
		fd = meeting_connect(meeting); /* somebody else was first */
		if (fd == -ECONNREFUSED) {
			rc = start_background(agent, options, meeting, status);
			if (rc != 0)
				return rc < 0 ? -1 : -2;
			fd = meeting_connect(meeting);
		}
		meeting_unlock(meeting);
	}
	if (rc < 0 || fd < 0) {
		log_error("agent cannot be reached: %s", strerror(rc < 0 ? -rc : -fd));
		return -1;
	}
	return fd;
}

static int main_client(struct agent *agent, const struct options *options, struct meeting *meeting)
{
	int status = -EAGAIN;
	/* An agent may be found in the moment in which it ends. */
	for (int i = 0; i < RUNNER_TRIES && status == -EAGAIN; i++) {
		int fd = find_agent(agent, options, meeting, &status);
		if (fd == -2)
			return status;
		if (fd < 0)
			return 1;
		status = runner_run(fd, options);
		close(fd);
	}
	if (status == -EAGAIN)
		log_error("the agent ends again and again");
	return status < 0 ? 1 : status;
}

/* The agent of a registration, in the background. */
static int main_registered(struct agent *agent, const struct options *options,
			   struct registration *registration, int ready)
{
	char text[RUNNER_TEXT_BYTES], line[1 + AGENT_HANDSHAKE_BYTES_MAX] = "";
	if (begin(agent, options, text) < 0) {
		(void)!write(ready, text, strlen(text));
		return 1;
	}
	int status = 1;
	agent->registration = registration;
	agent_handshake(agent, NULL, line + 1);
	int rc = registration_publish(registration, line + 1);
	if (rc < 0) {
		int size = snprintf(text, sizeof(text), "%.160s: %s", options->registration,
				    strerror(-rc));
		(void)!write(ready, text, (size_t)size);
	} else {
		(void)!write(ready, line, 1 + strlen(line + 1));
		close(ready);
		status = agent_run(agent);
	}
	agent_fini(agent);
	return status;
}

/* Prints the handshake of the agent that runs for the registration, or starts it. */
static int main_starter(struct agent *agent, const struct options *options)
{
	struct registration registration;
	char line[AGENT_HANDSHAKE_BYTES_MAX];
	close_from(3); /* nobody shall wait for what we got without our knowledge */
	int rc = registration_find(&registration, options->registration, line);
	if (rc < 0) {
		const char *why = strerror(-rc);
		if (rc == -EPERM)
			why = "it, its .lock and its directory must be ours, not open to others and no links";
		else if (rc == -ETIMEDOUT)
			why = "its agent does not come up, or does not end";
		log_error("%.160s: %s", options->registration, why);
		return 1;
	}
	int pipe_end, status = 0;
	pid_t pid = rc == REGISTRATION_FREE ? fork_background(&pipe_end) : 1;
	if (pid == 0)
		status = main_registered(agent, options, &registration, pipe_end);
	registration_fini(&registration);
	if (pid == 0)
		return status;
	if (rc == REGISTRATION_FREE && (pid < 0 || await_background(pipe_end, line) < 0))
		return 1;
	return print(line) == 0 ? 0 : 1;
}

static int with_meeting(struct agent *agent, const struct options *options,
			int (*run)(struct agent *, const struct options *, struct meeting *))
{
	struct meeting meeting;
	int rc = meeting_init(&meeting, options);
	if (rc < 0) {
		log_error("directory of the agent's socket: %s",
			  rc == -EPERM ? "it must be ours, of mode 0700 and no link"
				       : strerror(-rc));
		return 1;
	}
	int status = run(agent, options, &meeting);
	meeting_fini(&meeting);
	return status;
}

int main(int argc, char **argv)
{
	static struct agent agent;
	struct options options;
	int status = 1;
	open_standard();
	if (options_parse(argc, argv, &options, &status) == OPTIONS_EXIT)
		return status;
	log_set_debug(options.debug);
	switch (options.mode) {
	case MODE_AGENT:
		status = options.registration != NULL ? main_starter(&agent, &options)
						      : main_agent(&agent, &options);
		break;
	case MODE_SINGLE:
		status = main_single(&agent, &options);
		break;
	case MODE_SERVER:
		status = with_meeting(&agent, &options, main_server);
		break;
	case MODE_CLIENT:
		status = with_meeting(&agent, &options, main_client);
		break;
	}
	free(options.token);
	return status;
}
