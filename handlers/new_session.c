/* new_session.c -- see new_session.h. */
#include "handlers/new_session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handlers/handlers.h"
#include "providers/provider.h"
#include "service/auth.h"
#include "service/json_body.h"
#include "service/sandbox.h"
#include "wire/pty_frame.h"

#define COMMAND_MAX PTY2_STRINGS_MAX
#define ENV_MAX 1000 /* the agent adds some */
#define ENV_NAME_CHARS_MAX 128
#define CWD_BYTES_MAX 4095
#define STRING_BYTES(size) (4 + (size)) /* as in the frame OPEN */
#define IDLE_TIMEOUT_S_MAX 604800

const char *const new_session_members[] = {
	"sandbox", "id",   "transport", "agent",          "command", "env",
	"cwd",     "cols", "rows",      "idle_timeout_s", NULL
};

static bool no_memory(struct problem *problem)
{
	*problem = problem_make(503, "busy", "no memory");
	return false;
}

static bool refuse_sandbox(const char *field, const char *const *providers, struct problem *problem)
{
	*problem = problem_bad_request(
		field, "",
		"%s: the name of a built-in sandbox, the id of a stored one, or an object%s", field,
		providers[0] == NULL ? "; no provider is switched on" : "");
	problem->allowed_list = providers;
	return false;
}

/* A built-in sandbox is decided here; another one is looked up, or its credential sealed, by
 * new_session_find(). */
static bool read_sandbox(struct new_session *n, const struct provider_config *cfg,
			 const char *const *providers, struct problem *problem)
{
	static const char *const members[] = { "provider", NULL };
	const json_t *sandbox = json_object_get(n->body, "sandbox");
	bool is_object = json_is_object(sandbox);
	const char *field = is_object ? "sandbox.provider" : "sandbox";
	const char *name = json_string_value(is_object ? json_object_get(sandbox, "provider")
						       : sandbox);
	if (name == NULL)
		return refuse_sandbox(field, providers, problem);
	const struct provider_ops *p = provider_find(cfg, name);
	if (p == NULL && (is_object || provider_is_name(name) || !session_id_valid(name)))
		return refuse_sandbox(field, providers, problem);
	if (p == NULL || (p->needs_target && is_object)) {
		n->remote = true;
		n->spec.stored = !is_object;
		n->sandbox = is_object ? NULL : strdup(name);
		n->spec.sandbox = n->sandbox;
		return is_object || n->sandbox != NULL || no_memory(problem);
	}
	if (p->needs_target) {
		*problem = problem_bad_request(
			field, "",
			"sandbox: %s needs an object with external_id and credential, or the "
			"id of a stored sandbox",
			name);
		return false;
	}
	if (is_object && !json_body_only(sandbox, "sandbox.", members, problem))
		return false;
	n->sandbox = is_object ? json_dumps(sandbox, JSON_COMPACT) : strdup(name);
	n->spec.sandbox = n->sandbox;
	n->spec.provider = p->name;
	return n->sandbox != NULL || no_memory(problem);
}

static bool read_choice(const struct new_session *n, const char *name, const char *const *allowed,
			const char **ret, struct problem *problem)
{
	if (!json_body_string(n->body, name, false, ret, problem))
		return false;
	bool known = *ret == NULL;
	for (const char *const *a = allowed; *a != NULL; a++)
		known = known || strcmp(*ret, *a) == 0;
	if (known && (*ret == NULL || n->remote))
		return true;
	*problem = problem_bad_request(name, "",
				       known ? "%s: this sandbox has only one"
					     : "%s: one of those allowed",
				       name);
	problem->allowed_list = known ? NULL : allowed;
	return false;
}

/* How the sandbox is reached, when not as it says itself. */
static bool read_way(struct new_session *n, struct problem *problem)
{
	static const char *const transports[] = { "auto", "agent", "native", NULL };
	static const char *const agents[] = { "ptycast", "pty-tunnel", NULL };
	return read_choice(n, "transport", transports, &n->spec.transport, problem) &&
	       read_choice(n, "agent", agents, &n->spec.agent, problem);
}

bool new_session_find(struct app *app, const struct principal *principal, struct new_session *n,
		      struct problem *problem)
{
	const struct provider_ops *provider;
	if (n->spec.stored) {
		bool any = principal->role == ROLE_OPERATOR;
		*problem = (struct problem){ 0 };
		if (!sandbox_find(app, n->sandbox, any ? NULL : principal->subject, &provider,
				  &n->owner, &problem->reply))
			return false;
		n->spec.subject = n->owner;
	} else {
		if (!sandbox_read_inline(app, json_object_get(n->body, "sandbox"), &provider,
					 &n->sandbox, &n->target, problem))
			return false;
		n->spec.sandbox = n->sandbox;
		n->spec.target = n->target;
	}
	n->spec.provider = provider->name;
	return true;
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
	json_auto_t *params = json_pack("{s:O, s:s*, s:s*, s:O?, s:O?, s:s?, s:i, s:i, s:I}",
					"sandbox", json_object_get(n->body, "sandbox"), "transport",
					n->spec.transport, "agent", n->spec.agent, "command",
					command, "env", json_object_size(env) == 0 ? NULL : env,
					"cwd", n->spec.cwd, "cols", (int)n->spec.cols, "rows",
					(int)n->spec.rows, "idle_timeout_s",
					(json_int_t)n->spec.idle_timeout_s);
	n->params = json_dumps(params, JSON_SORT_KEYS | JSON_COMPACT);
	n->spec.params = n->params;
	return n->params != NULL || no_memory(problem);
}

bool new_session_read(json_t *body, const struct provider_config *cfg, const char *const *providers,
		      uint32_t idle_timeout_s, struct new_session *ret, struct problem *problem)
{
	struct new_session n = { .body = json_incref(body) };
	size_t bytes = 0;
	if (!read_sandbox(&n, cfg, providers, problem) || !read_way(&n, problem) ||
	    !json_body_string(body, "id", false, &n.spec.id, problem) ||
	    !read_command(&n, &bytes, problem) || !read_env(&n, &bytes, problem) ||
	    !read_cwd(&n, &bytes, problem) || !read_numbers(&n, idle_timeout_s, problem))
		goto failed;
	if (n.spec.id != NULL && !session_id_valid(n.spec.id)) {
		*problem = problem_bad_request("id", "", "id: 1 to %d of A-Z a-z 0-9 _ -",
					       SESSION_ID_MAX);
		goto failed;
	}
	if (n.spec.id != NULL && strncmp(n.spec.id, PTY_ID_PREFIX, strlen(PTY_ID_PREFIX)) == 0) {
		*problem = problem_bad_request("id", "",
					       "id: those that begin with %s are made by the "
					       "service",
					       PTY_ID_PREFIX);
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
	free(n->target);
	free(n->owner);
	free(n->params);
	json_decref(n->body);
}
