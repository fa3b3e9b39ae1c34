/* single.c -- see single.h. */
#include "agent/single.h"

#include <string.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/log.h"
#include "agent/runner.h"

static void on_started(struct agent *agent, struct shell *s)
{
	char line[AGENT_HANDSHAKE_BYTES_MAX];
	agent_handshake(agent, s, line);
	(void)!write(STDOUT_FILENO, line, strlen(line));
}

static void fail(struct agent *agent, const struct spawn_failure *failure, const char *command)
{
	char text[RUNNER_TEXT_BYTES];
	runner_describe(failure, command, text);
	log_error("%s", text);
	agent_stop(agent, 1);
}

static void on_failed(struct agent *agent, struct shell *s, const struct spawn_failure *failure)
{
	if (failure->stage != SPAWN_PTY)
		on_started(agent, s); /* as the original, which prints it first */
	fail(agent, failure, s->command);
}

static void on_over(struct agent *agent, struct shell *s)
{
	(void)s;
	agent_stop(agent, 0);
}

static void on_unused(struct agent *agent, struct shell *s)
{
	(void)s;
	log_error("%s", RUNNER_INACTIVE);
	agent_stop(agent, 1);
}

static const struct agent_runner single_runner = {
	.started = on_started,
	.failed = on_failed,
	.over = on_over,
	.unused = on_unused,
};

int single_start(struct agent *agent)
{
	const struct options *o = agent->options;
	agent->runner = &single_runner;
	struct agent_open open = { .token = o->token,
				   .argv = o->command,
				   .env = environ,
				   .cwd = o->cwd,
				   .cols = (uint16_t)o->cols,
				   .rows = (uint16_t)o->rows,
				   .unready_ms = o->inactivity_ms };
	struct shell *s;
	struct spawn_failure failure;
	if (runner_open(agent, &open, &s, &failure) < 0) {
		fail(agent, &failure, o->command[0] != NULL ? o->command[0] : "");
		return -1;
	}
	return 0;
}
