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
#include "store/store.h"

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

/* The status of a start that failed, by why. */
static unsigned start_status(const char *slug)
{
	static const struct {
		const char *slug;
		unsigned status;
	} known[] = {
		{ "sandbox-unknown", 409 },     { "sandbox-stopped", 409 },
		{ "sandbox-failed", 409 },      { "sandbox-gone", 409 },
		{ "credential-refused", 409 },  { "credential-unreadable", 409 },
		{ "not-possible", 409 },        { "start-cancelled", 409 },
		{ "provider-rate-limit", 503 }, { "start-timeout", 504 },
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(known[i].slug, slug) == 0)
			return known[i].status;
	return 502;
}

static void answer_start_failed(struct request *r, const struct session_info *info)
{
	json_auto_t *ended = json_loads(info->ended_json, 0, NULL);
	const char *text = json_string_value(json_object_get(ended, "text"));
	const char *slug = json_string_value(json_object_get(ended, "error"));
	if (slug == NULL)
		slug = "start-failed";
	struct problem p = problem_make(start_status(slug), slug, "%s",
					text != NULL ? text : "it could not be started");
	p.session = info->id;
	request_answer_problem(r, &p);
}

bool answer_if_start_failed(struct request *r)
{
	struct session_info info;
	if (session_info(r->session, &info) != 0) {
		request_answer_json(r, 200, NULL);
		return true;
	}
	if (info.failed_start)
		answer_start_failed(r, &info);
	session_info_fini(&info);
	return r->answered;
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

/* A session that is being made; r->work. */
struct opening {
	struct new_session n;
	bool wait;              /* for the state open */
	struct problem problem; /* why there is none: reply.status is not 0 */
};

static void free_opening(void *work)
{
	struct opening *o = work;
	new_session_fini(&o->n);
	free(o);
}

static void finish_open(struct request *r, const struct reply *reply)
{
	const struct opening *o = r->work;
	if (o->problem.reply.status != 0)
		request_answer_problem(r, &o->problem);
	else if (reply->slug != NULL)
		request_answer_reply(r, reply);
	else
		answer_created(r, r->status, o->wait);
}

/* Thread: HTTP, or one that may block. False: request_resume() will be called by somebody else. */
static bool open_session(struct request *r, struct reply *reply)
{
	struct opening *o = r->work;
	unsigned status = registry_open(r->app->registry, &o->n.spec, &r->session,
					&o->problem.reply);
	*reply = reply_ok(200);
	if (status != 200 && status != 201)
		return true;
	o->problem.reply.status = 0;
	r->status = status;
	if (!o->wait)
		return true;
	/* A little more, so that an opening that fails for its time is answered as such. */
	unsigned timeout_ms = r->app->config->open_timeout_ms + 500;
	if (timeout_ms > WAIT_OPEN_MS_MAX)
		timeout_ms = WAIT_OPEN_MS_MAX;
	session_wait_open(r->session, timeout_ms, request_resume, r);
	return false;
}

static bool find_and_open(struct request *r, struct reply *reply)
{
	struct opening *o = r->work;
	*reply = reply_ok(200);
	if (o->n.remote && !new_session_find(r->app, &r->principal, &o->n, &o->problem))
		return true;
	return open_session(r, reply);
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
	struct opening *o = calloc(1, sizeof(*o));
	struct problem problem;
	if (o == NULL) {
		problem = problem_make(503, "busy", "no memory");
	} else if (!new_session_read(body, r->app->providers, providers,
				     r->app->config->idle_timeout_s, &o->n, &problem)) {
		free(o);
	} else if (wait != NULL && strcmp(wait, "open") != 0) {
		problem = problem_bad_request("wait", "open", "wait: open");
		free_opening(o);
	} else if (atomic_load(&r->app->draining)) {
		free_opening(o);
		request_answer_draining(r);
		return;
	} else {
		o->n.spec.subject = r->principal.subject;
		o->wait = wait != NULL;
		r->work = o;
		r->free_work = free_opening;
		request_drop_body(r);
		if (o->n.remote || r->app->store_ops->shared) {
			request_block(r, find_and_open, finish_open);
		} else if (o->wait) {
			struct reply reply;
			request_wait(r, finish_open);
			if (open_session(r, &reply))
				request_resume(r, &reply);
		} else {
			struct reply reply;
			open_session(r, &reply);
			finish_open(r, &reply);
		}
		return;
	}
	request_answer_problem(r, &problem);
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

/* A page of the sessions of all replicas; r->work. */
struct listing {
	size_t limit, count;
	const char *after, *state; /* the request's memory */
	json_t *list;
	char last[SESSION_ID_MAX + 1];
};

static void free_listing(void *work)
{
	struct listing *l = work;
	json_decref(l->list);
	free(l);
}

/* Of what this replica has it knows better than the store. */
static int list_one(void *arg, const struct store_session *record)
{
	struct request *r = arg;
	struct listing *l = r->work;
	if (l->count++ == l->limit)
		return 0; /* there is more */
	struct session *s = registry_find(r->app->registry, record->id, record->subject);
	struct session_info info;
	int rc = s != NULL && !session_is_mirror(s) ? session_info(s, &info)
						    : session_info_of_record(record, &info);
	session_unref(s);
	if (rc < 0)
		return 0; /* a record that is not whole hides none of the others */
	snprintf(l->last, sizeof(l->last), "%s", record->id);
	json_array_append_new(l->list, json_session(&info));
	session_info_fini(&info);
	return 0;
}

/* Thread: one that may block. */
static bool read_listing(struct request *r, struct reply *reply)
{
	struct listing *l = r->work;
	struct error err = { 0 };
	bool all = r->principal.role == ROLE_OPERATOR;
	*reply = reply_ok(200);
	int rc = r->app->store_ops->list_sessions(r->app->store, all ? NULL : r->principal.subject,
						  l->state, l->after, l->limit + 1, list_one, r,
						  &err);
	if (rc < 0)
		*reply = registry_store_problem(rc);
	return true;
}

static void answer_listing(struct request *r, const struct reply *reply)
{
	struct listing *l = r->work;
	if (reply->slug != NULL) {
		request_answer_reply(r, reply);
		return;
	}
	request_answer_json(r, 200,
			    json_pack("{s:O, s:s?}", "sessions", l->list, "next",
				      l->count > l->limit ? l->last : NULL));
}

static void list_stored(struct request *r, size_t limit, const char *after, const char *state)
{
	struct listing *l = calloc(1, sizeof(*l));
	json_t *list = json_array();
	if (l == NULL || list == NULL) {
		free(l);
		json_decref(list);
		request_answer_json(r, 200, NULL);
		return;
	}
	*l = (struct listing){ .limit = limit, .after = after, .state = state, .list = list };
	r->work = l;
	r->free_work = free_listing;
	request_block(r, read_listing, answer_listing);
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
	if (r->app->store_ops->shared) {
		list_stored(r, limit, after, state_name);
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
