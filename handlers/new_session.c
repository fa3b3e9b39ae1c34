/* new_session.c -- see new_session.h. */
#include "handlers/new_session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handlers/handlers.h"
#include "service/json_body.h"
#include "wire/pty_frame.h"

#define COMMAND_MAX PTY2_STRINGS_MAX
#define ENV_MAX 1000 /* the agent adds some */
#define ENV_NAME_CHARS_MAX 128
#define CWD_BYTES_MAX 4095
#define STRING_BYTES(size) (4 + (size)) /* as in the frame OPEN */
#define IDLE_TIMEOUT_S_MAX 604800

const char *const new_session_members[] = { "sandbox", "id",   "command",        "env", "cwd",
					    "cols",    "rows", "idle_timeout_s", NULL };

static bool no_memory(struct problem *problem)
{
	*problem = problem_make(503, "busy", "no memory");
	return false;
}

static bool read_sandbox(struct new_session *n, const char *const *providers,
			 struct problem *problem)
{
	static const char *const members[] = { "provider", NULL };
	const json_t *sandbox = json_object_get(n->body, "sandbox");
	const char *name = json_string_value(sandbox), *field = "sandbox";
	if (json_is_object(sandbox)) {
		if (!json_body_only(sandbox, "sandbox.", members, problem))
			return false;
		name = json_string_value(json_object_get(sandbox, "provider"));
		field = "sandbox.provider";
	}
	for (const char *const *p = providers; *p != NULL && name != NULL; p++) {
		if (strcmp(*p, name) != 0)
			continue;
		n->sandbox = json_is_string(sandbox) ? strdup(name)
						     : json_dumps(sandbox, JSON_COMPACT);
		n->spec.sandbox = n->sandbox;
		n->spec.provider = *p;
		return n->sandbox != NULL || no_memory(problem);
	}
	*problem = problem_bad_request(field, "",
				       "%s: the name of a provider that is switched on%s", field,
				       providers[0] == NULL ? "; there is none" : "");
	problem->allowed_list = providers;
	return false;
}

/* A string that can be one of a program's: it would end at a NUL. */
static bool is_argument(const json_t *value)
{
	return json_is_string(value) &&
	       strlen(json_string_value(value)) == json_string_length(value);
}

static bool read_command(struct new_session *n, size_t *bytes, struct problem *problem)
{
	const json_t *list = json_object_get(n->body, "command");
	size_t count = json_array_size(list);
	if (list == NULL)
		return true;
	bool ok = json_is_array(list) && count >= 1 && count <= COMMAND_MAX &&
		  json_string_length(json_array_get(list, 0)) > 0;
	for (size_t i = 0; i < count; i++)
		ok = ok && is_argument(json_array_get(list, i));
	if (!ok) {
		*problem = problem_bad_request("command", "",
					       "command: a list of 1 to %d strings without U+0000, "
					       "the first not empty",
					       COMMAND_MAX);
		return false;
	}
	n->command = calloc(count + 1, sizeof(*n->command));
	if (n->command == NULL)
		return no_memory(problem);
	for (size_t i = 0; i < count; i++) {
		const json_t *item = json_array_get(list, i);
		n->command[i] = json_string_value(item);
		*bytes += STRING_BYTES(json_string_length(item));
	}
	n->spec.command = n->command;
	return true;
}

static bool is_env_name(const char *name)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
	static const char more[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
	return name[0] != '\0' && strchr(letters, name[0]) != NULL &&
	       name[strspn(name, more)] == '\0' && strlen(name) <= ENV_NAME_CHARS_MAX;
}

static bool read_env(struct new_session *n, size_t *bytes, struct problem *problem)
{
	json_t *env = json_object_get(n->body, "env");
	if (env == NULL)
		return true;
	if (!json_is_object(env) || json_object_size(env) > ENV_MAX) {
		*problem = problem_bad_request("env", "", "env: an object of at most %d strings",
					       ENV_MAX);
		return false;
	}
	n->env = calloc(json_object_size(env) + 1, sizeof(*n->env));
	if (n->env == NULL)
		return no_memory(problem);
	n->spec.env = (const char *const *)n->env;
	const char *name;
	json_t *value;
	size_t count = 0;
	json_object_foreach(env, name, value)
	{
		if (!is_env_name(name) || !is_argument(value)) {
			*problem = problem_bad_request("env", "",
						       "env: names of A-Z a-z 0-9 _ and strings "
						       "without U+0000");
			return false;
		}
		if (asprintf(&n->env[count], "%s=%s", name, json_string_value(value)) < 0) {
			n->env[count] = NULL;
			return no_memory(problem);
		}
		*bytes += STRING_BYTES(strlen(n->env[count]));
		count++;
	}
	return true;
}

static bool read_cwd(struct new_session *n, size_t *bytes, struct problem *problem)
{
	if (!json_body_string(n->body, "cwd", false, &n->spec.cwd, problem))
		return false;
	if (n->spec.cwd == NULL)
		return true;
	*bytes += strlen(n->spec.cwd);
	if (n->spec.cwd[0] == '/' && strlen(n->spec.cwd) <= CWD_BYTES_MAX)
		return true;
	*problem = problem_bad_request("cwd", "", "cwd: an absolute path of at most %d bytes",
				       CWD_BYTES_MAX);
	return false;
}

static bool read_numbers(struct new_session *n, uint32_t idle_timeout_s, struct problem *problem)
{
	json_int_t cols = 80, rows = 24, idle_s = idle_timeout_s;
	if (!json_body_int(n->body, "cols", false, 1, CELLS_MAX, &cols, problem) ||
	    !json_body_int(n->body, "rows", false, 1, CELLS_MAX, &rows, problem) ||
	    !json_body_int(n->body, "idle_timeout_s", false, 0, IDLE_TIMEOUT_S_MAX, &idle_s,
			   problem))
		return false;
	n->spec.cols = (uint16_t)cols;
	n->spec.rows = (uint16_t)rows;
	n->spec.idle_timeout_s = (uint32_t)idle_s;
	return true;
}

/* What a second POST with this id has to agree in: all of it but the id, defaults filled in. */
static bool make_params(struct new_session *n, struct problem *problem)
{
	json_t *command = json_object_get(n->body, "command");
	json_t *env = json_object_get(n->body, "env");
	json_auto_t *params = json_pack("{s:O, s:O?, s:O?, s:s?, s:i, s:i, s:I}", "sandbox",
					json_object_get(n->body, "sandbox"), "command", command,
					"env", json_object_size(env) == 0 ? NULL : env, "cwd",
					n->spec.cwd, "cols", (int)n->spec.cols, "rows",
					(int)n->spec.rows, "idle_timeout_s",
					(json_int_t)n->spec.idle_timeout_s);
	n->params = json_dumps(params, JSON_SORT_KEYS | JSON_COMPACT);
	n->spec.params = n->params;
	return n->params != NULL || no_memory(problem);
}

bool new_session_read(json_t *body, const char *const *providers, uint32_t idle_timeout_s,
		      struct new_session *ret, struct problem *problem)
{
	struct new_session n = { .body = json_incref(body) };
	size_t bytes = 0;
	if (!read_sandbox(&n, providers, problem) ||
	    !json_body_string(body, "id", false, &n.spec.id, problem) ||
	    !read_command(&n, &bytes, problem) || !read_env(&n, &bytes, problem) ||
	    !read_cwd(&n, &bytes, problem) || !read_numbers(&n, idle_timeout_s, problem))
		goto failed;
	if (n.spec.id != NULL && !session_id_valid(n.spec.id)) {
		*problem = problem_bad_request("id", "", "id: 1 to %d of A-Z a-z 0-9 _ -",
					       SESSION_ID_MAX);
		goto failed;
	}
	if (bytes > PTY2_STRINGS_BYTES_MAX) {
		*problem = problem_bad_request("command", "",
					       "command, env and cwd have %zu bytes together, at "
					       "most %u are possible",
					       bytes, PTY2_STRINGS_BYTES_MAX);
		goto failed;
	}
	if (!make_params(&n, problem))
		goto failed;
	*ret = n;
	return true;

failed:
	new_session_fini(&n);
	return false;
}

void new_session_fini(struct new_session *n)
{
	for (char **e = n->env; e != NULL && *e != NULL; e++)
		free(*e);
	free(n->env);
	free(n->command);
	free(n->sandbox);
	free(n->params);
	json_decref(n->body);
}
