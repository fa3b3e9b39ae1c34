/* sandboxes.c -- /sandboxes: stored ones, with the credentials to reach them, which never come back. The store and
 * the keys are asked on a clerk's thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handlers/handlers.h"
#include "handlers/json_out.h"
#include "service/app.h"
#include "service/json_body.h"
#include "service/request.h"
#include "service/sandbox.h"
#include "service/sandbox_change.h"
#include "service/session.h"
#include "store/store.h"

#define LIST_LIMIT_DEFAULT 100
#define LIST_LIMIT_MAX 200

/* What a request brings to the clerk's thread, and what it takes back. */
struct sandbox_work {
	json_t *body;
	char *subject; /* NULL: anybody's */
	char after[SANDBOX_ID_MAX + 1];
	size_t limit;

	struct problem problem; /* when its status is not 0 */
	unsigned status;
	struct store_sandbox record;
	json_t *list;
	char next[SANDBOX_ID_MAX + 1];
	bool more;
};

static void free_work(void *arg)
{
	struct sandbox_work *w = arg;
	json_decref(w->body);
	json_decref(w->list);
	free(w->subject);
	store_sandbox_fini(&w->record);
	free(w);
}

static void answer_no_memory(struct request *r)
{
	struct problem p = problem_make(503, "busy", "no memory");
	request_answer_problem(r, &p);
}

/* NULL: it was answered. */
static struct sandbox_work *make_work(struct request *r)
{
	struct sandbox_work *w = calloc(1, sizeof(*w));
	if (w == NULL) {
		answer_no_memory(r);
		return NULL;
	}
	r->work = w;
	r->free_work = free_work;
	if (r->principal.role == ROLE_OPERATOR)
		return w;
	w->subject = strdup(r->principal.subject);
	if (w->subject == NULL) {
		answer_no_memory(r);
		return NULL;
	}
	return w;
}

/* The body, which may hold a credential: its bytes are wiped. False: it was answered. */
static bool read_body(struct request *r, struct sandbox_work *w, const char *const *names)
{
	w->body = request_json(r, names);
	if (r->body != NULL)
		explicit_bzero(r->body, r->body_size);
	if (w->body == NULL)
		return false;
	request_drop_body(r);
	return true;
}

static json_t *sandbox_json(const struct store_sandbox *s)
{
	json_t *metadata = s->metadata == NULL ? json_null()
					       : json_loads(s->metadata, JSON_ALLOW_NUL, NULL);
	return json_pack("{s:s, s:s, s:s, s:s, s:o, s:s?, s:o, s:s, s:s, s:b, s:o, s:o}", "id",
			 s->id, "subject", s->subject, "provider", s->provider, "external_id",
			 s->external_id, "credential", json_loads(s->redacted, 0, NULL), "name",
			 s->name, "metadata", metadata, "transport", s->transport, "agent",
			 s->agent, "resume", (int)s->resume, "created_at", json_time(s->created_ms),
			 "updated_at", json_time(s->updated_ms));
}

/* Sets what finish_...() answers with. */
static bool done(struct sandbox_work *w, unsigned status)
{
	w->status = status;
	return true;
}

/* True when the work came to its end; else it was answered with why not. */
static bool has_result(struct request *r, const struct reply *reply)
{
	const struct sandbox_work *w = r->work;
	if (reply->slug != NULL)
		request_answer_reply(r, reply); /* it was not begun */
	else if (w->problem.reply.status != 0)
		request_answer_problem(r, &w->problem);
	else
		return true;
	return false;
}

static void finish_one(struct request *r, const struct reply *reply)
{
	if (!has_result(r, reply))
		return;
	const struct sandbox_work *w = r->work;
	request_answer_json(r, w->status, sandbox_json(&w->record));
	if (r->route->method == METHOD_POST) {
		char location[SANDBOX_ID_MAX + 16];
		snprintf(location, sizeof(location), "/sandboxes/%s", w->record.id);
		request_add_header(r, "Location", location);
	}
}

/* ---- create ---- */

static bool run_create(struct request *r, struct reply *reply)
{
	struct sandbox_work *w = r->work;
	*reply = reply_ok(200);
	w->record.subject = strdup(r->principal.subject);
	if (w->record.subject == NULL) {
		w->problem = problem_make(503, "busy", "no memory");
		return true;
	}
	if (!sandbox_read(r->app, w->body, true, &w->record, &w->problem))
		return true;
	switch (sandbox_put(r->app, &w->record, false, &w->problem)) {
	case SANDBOX_CREATED:
		return done(w, 201);
	case SANDBOX_UNCHANGED:
		return done(w, 200);
	default:
		return true;
	}
}

void handle_sandbox_create(struct request *r)
{
	static const char *const names[] = { "id",          "subject",    "provider",
					     "external_id", "credential", "credential_sealed",
					     "name",        "metadata",   "transport",
					     "agent",       "resume",     NULL };
	struct sandbox_work *w = make_work(r);
	if (w == NULL || !read_body(r, w, names))
		return;
	if (json_object_get(w->body, "subject") != NULL && r->principal.role != ROLE_OPERATOR) {
		struct problem p = problem_make(403, "forbidden",
						"subject: only an operator acts for others");
		request_answer_problem(r, &p);
		return;
	}
	request_block(r, run_create, finish_one);
}

/* ---- list ---- */

static int append(void *arg, const struct store_sandbox *record)
{
	struct sandbox_work *w = arg;
	if (json_array_size(w->list) == w->limit) {
		w->more = true;
		return 0;
	}
	snprintf(w->next, sizeof(w->next), "%s", record->id);
	return json_array_append_new(w->list, sandbox_json(record)) == 0 ? 0 : -1;
}

static bool run_list(struct request *r, struct reply *reply)
{
	struct sandbox_work *w = r->work;
	struct error err = { 0 };
	*reply = reply_ok(200);
	w->list = json_array();
	int rc = r->app->store_ops->list_sandboxes(r->app->store, w->subject, w->after,
						   w->limit + 1, append, w, &err);
	if (rc != 0)
		w->problem.reply = sandbox_store_failed(rc, &err);
	return true;
}

static void finish_list(struct request *r, const struct reply *reply)
{
	if (!has_result(r, reply))
		return;
	const struct sandbox_work *w = r->work;
	request_answer_json(r, 200,
			    json_pack("{s:O, s:s?}", "sandboxes", w->list, "next",
				      w->more ? w->next : NULL));
}

static bool read_limit(const char *text, size_t *ret)
{
	size_t digits = strspn(text, "0123456789");
	if (digits < 1 || digits > 3 || text[digits] != '\0')
		return false;
	*ret = strtoul(text, NULL, 10);
	return *ret >= 1 && *ret <= LIST_LIMIT_MAX;
}

/* False: it was answered. */
static bool read_query(struct request *r, struct sandbox_work *w)
{
	const char *limit = request_query(r, "limit"), *after = request_query(r, "after");
	const char *subject = request_query(r, "subject");
	struct problem problem;
	w->limit = LIST_LIMIT_DEFAULT;
	if (limit != NULL && !read_limit(limit, &w->limit)) {
		problem = problem_bad_request("limit", "1..200", "limit: 1 to %d", LIST_LIMIT_MAX);
	} else if (after != NULL && !session_id_valid(after)) {
		problem = problem_bad_request("after", "", "after: a sandbox's id");
	} else if (subject != NULL && w->subject != NULL && strcmp(subject, w->subject) != 0) {
		problem = problem_make(403, "forbidden",
				       "subject: only an operator sees those of others");
	} else if (subject != NULL && w->subject == NULL &&
		   (w->subject = strdup(subject)) == NULL) {
		problem = problem_make(503, "busy", "no memory");
	} else {
		snprintf(w->after, sizeof(w->after), "%s", after == NULL ? "" : after);
		return true;
	}
	request_answer_problem(r, &problem);
	return false;
}

void handle_sandbox_list(struct request *r)
{
	struct sandbox_work *w = make_work(r);
	if (w != NULL && read_query(r, w))
		request_block(r, run_list, finish_list);
}

/* ---- one ---- */

static bool run_get(struct request *r, struct reply *reply)
{
	struct sandbox_work *w = r->work;
	*reply = reply_ok(200);
	if (sandbox_get(r->app, r->sandbox, w->subject, &w->record, &w->problem))
		done(w, 200);
	return true;
}

void handle_sandbox_get(struct request *r)
{
	if (make_work(r) != NULL)
		request_block(r, run_get, finish_one);
}

static bool run_patch(struct request *r, struct reply *reply)
{
	struct sandbox_work *w = r->work;
	*reply = reply_ok(200);
	if (sandbox_patch(r->app, r->sandbox, w->subject, w->body, &w->record, &w->problem))
		done(w, 200);
	return true;
}

void handle_sandbox_patch(struct request *r)
{
	static const char *const names[] = { "external_id", "credential", "credential_sealed",
					     "name",        "metadata",   "transport",
					     "agent",       "resume",     NULL };
	struct sandbox_work *w = make_work(r);
	if (w != NULL && read_body(r, w, names))
		request_block(r, run_patch, finish_one);
}

static bool run_delete(struct request *r, struct reply *reply)
{
	struct sandbox_work *w = r->work;
	*reply = reply_ok(204);
	sandbox_delete(r->app, r->sandbox, w->subject, &w->problem);
	return true;
}

static void finish_delete(struct request *r, const struct reply *reply)
{
	if (has_result(r, reply))
		request_answer_reply(r, reply);
}

void handle_sandbox_delete(struct request *r)
{
	if (make_work(r) != NULL)
		request_block(r, run_delete, finish_delete);
}
