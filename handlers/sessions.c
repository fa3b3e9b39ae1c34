/* sessions.c -- /sessions: create, list, look at, close. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handlers/handlers.h"
#include "handlers/json_out.h"
#include "handlers/new_session.h"
#include "providers/provider.h"
#include "service/app.h"
#include "service/config.h"
#include "service/registry.h"
#include "service/request.h"
#include "service/session.h"

#define PROVIDERS_MAX 32
#define LIST_LIMIT_DEFAULT 100
#define LIST_LIMIT_MAX 200
#define WAIT_OPEN_MS_MAX 30000

/* --- create --- */

static json_t *links_json(const char *id)
{
	return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "self",
			 json_sprintf("/sessions/%s", id), "stream",
			 json_sprintf("/sessions/%s/stream", id), "input",
			 json_sprintf("/sessions/%s/input", id), "resize",
			 json_sprintf("/sessions/%s/resize", id), "signal",
			 json_sprintf("/sessions/%s/signal", id), "ws",
			 json_sprintf("/sessions/%s/ws", id), "tickets",
			 json_sprintf("/sessions/%s/tickets", id));
}

static void answer_start_failed(struct request *r, const struct session_info *info)
{
	json_auto_t *ended = json_loads(info->ended_json, 0, NULL);
	const char *text = json_string_value(json_object_get(ended, "text"));
	struct problem p = problem_make(502, "start-failed", "%s",
					text != NULL ? text : "it could not be started");
	p.session = info->id;
	request_answer_problem(r, &p);
}

/* Answers with r->session as it is now. */
static void answer_created(struct request *r, unsigned status, bool waited)
{
	struct session_info info;
	if (session_info(r->session, &info) != 0) {
		struct problem p = problem_make(503, "busy", "no memory");
		request_answer_problem(r, &p);
		return;
	}
	if (waited && info.failed_start) {
		answer_start_failed(r, &info);
	} else {
		char location[SESSION_ID_MAX + 16];
		snprintf(location, sizeof(location), "/sessions/%s", info.id);
		json_t *session = json_session(&info);
		json_object_set_new(session, "links", links_json(info.id));
		request_answer_json(r, status, session);
		request_add_header(r, "Location", location);
	}
	session_info_fini(&info);
}

static void finish_open(struct request *r, const struct reply *reply)
{
	if (reply->slug != NULL)
		request_answer_reply(r, reply);
	else
		answer_created(r, r->status, true);
}

static void open_session(struct request *r, struct new_session *n, bool wait)
{
	struct reply refused;
	n->spec.subject = r->principal.subject;
	unsigned status = registry_open(r->app->registry, &n->spec, &r->session, &refused);
	if (status != 200 && status != 201) {
		request_answer_reply(r, &refused);
	} else if (wait) {
		/* A little more, so that an opening that fails for its time is answered as such. */
		unsigned timeout_ms = r->app->config->open_timeout_ms + 500;
		if (timeout_ms > WAIT_OPEN_MS_MAX)
			timeout_ms = WAIT_OPEN_MS_MAX;
		r->status = status;
		request_drop_body(r);
		request_wait(r, finish_open);
		session_wait_open(r->session, timeout_ms, request_resume, r);
	} else {
		answer_created(r, status, false);
	}
}

void handle_session_create(struct request *r)
{
	json_auto_t *body = request_json(r, new_session_members);
	if (body == NULL)
		return;
	const char *providers[PROVIDERS_MAX + 1] = { 0 };
	const struct provider_ops *p;
	for (size_t i = 0; i < PROVIDERS_MAX && (p = provider_at(r->app->providers, i)) != NULL;
	     i++)
		providers[i] = p->name;
	const char *wait = request_query(r, "wait");
	struct new_session n;
	struct problem problem;
	if (!new_session_read(body, providers, r->app->config->idle_timeout_s, &n, &problem)) {
		request_answer_problem(r, &problem);
		return;
	}
	if (wait != NULL && strcmp(wait, "open") != 0) {
		problem = problem_bad_request("wait", "open", "wait: open");
		request_answer_problem(r, &problem);
	} else if (atomic_load(&r->app->draining)) {
		request_answer_draining(r);
	} else {
		open_session(r, &n, wait != NULL);
	}
	new_session_fini(&n);
}

/* --- list --- */

static bool read_state(const char *name, int *ret)
{
	for (int state = 0; state < SESSION_STATE_COUNT; state++) {
		if (strcmp(name, session_state_name((enum session_state)state)) == 0) {
			*ret = state;
			return true;
		}
	}
	return false;
}

static bool read_limit(const char *text, size_t *ret)
{
	size_t digits = strspn(text, "0123456789");
	if (digits < 1 || digits > 3 || text[digits] != '\0')
		return false;
	*ret = strtoul(text, NULL, 10);
	return *ret >= 1 && *ret <= LIST_LIMIT_MAX;
}

static json_t *page_json(struct session *const *sessions, size_t count, bool more)
{
	json_t *list = json_array();
	for (size_t i = 0; i < count; i++) {
		struct session_info info;
		if (session_info(sessions[i], &info) != 0) {
			json_decref(list);
			return NULL;
		}
		json_array_append_new(list, json_session(&info));
		session_info_fini(&info);
	}
	return json_pack("{s:o, s:s?}", "sessions", list, "next",
			 more ? session_id(sessions[count - 1]) : NULL);
}

void handle_session_list(struct request *r)
{
	const char *limit_text = request_query(r, "limit");
	const char *after = request_query(r, "after");
	const char *state_name = request_query(r, "state");
	size_t limit = LIST_LIMIT_DEFAULT;
	int state = -1;
	struct problem problem;
	if (limit_text != NULL && !read_limit(limit_text, &limit)) {
		problem = problem_bad_request("limit", "1..200", "limit: 1 to %d", LIST_LIMIT_MAX);
		request_answer_problem(r, &problem);
		return;
	}
	if (after != NULL && !session_id_valid(after)) {
		problem = problem_bad_request("after", "", "after: a session's id");
		request_answer_problem(r, &problem);
		return;
	}
	if (state_name != NULL && !read_state(state_name, &state)) {
		problem = problem_bad_request("state", "", "state: the name of a session's state");
		request_answer_problem(r, &problem);
		return;
	}
	struct session *sessions[LIST_LIMIT_MAX];
	bool more = false, all = r->principal.role == ROLE_OPERATOR;
	size_t count = registry_list(r->app->registry, all ? NULL : r->principal.subject, state,
				     after, limit, sessions, &more);
	request_answer_json(r, 200, page_json(sessions, count, more && count > 0));
	for (size_t i = 0; i < count; i++)
		session_unref(sessions[i]);
}

/* --- one --- */

void handle_session_get(struct request *r)
{
	struct session_info info;
	if (session_info(r->session, &info) != 0) {
		request_answer_json(r, 200, NULL);
		return;
	}
	request_answer_json(r, 200, json_session(&info));
	session_info_fini(&info);
}

void handle_session_close(struct request *r)
{
	request_wait(r, request_answer_reply);
	session_close(r->session, request_resume, r);
}
