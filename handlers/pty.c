/* pty.c -- /pty/:sandbox/ and /tty/:sandbox/: the original's surface. A session has no name there: it is found by
 * subject, sandbox and ?sessionId=, and made when there is none. What follows then is as in the native
 * handlers; the dialects are event_pty.c's and viewer_pty.c's. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handlers/handlers.h"
#include "service/app.h"
#include "service/config.h"
#include "service/json_body.h"
#include "service/registry.h"
#include "service/request.h"
#include "service/sandbox.h"
#include "service/session.h"
#include "store/store.h"

#define KEY_CHARS_MAX 128
#define HASH_BYTES 32
#define WAIT_OPEN_MS_MAX 30000

/* Of a request while it is with a clerk. */
struct pty_work {
	const char *key; /* ?sessionId=, "" without: the request's memory */
	bool makes;      /* a session is wanted, and not only the head of an answer */
	json_int_t cols, rows;
};

/* --- which session --- */

/* Each part with its end, so that no two triples make the same bytes. */
static void make_id(const char *subject, const char *sandbox, const char *key,
		    char ret[SESSION_ID_MAX + 1])
{
	const char *parts[] = { "ptycast pty session v1", subject, sandbox, key };
	unsigned char hash[HASH_BYTES];
	crypto_generichash_state state;
	crypto_generichash_init(&state, NULL, 0, sizeof(hash));
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		crypto_generichash_update(&state, (const unsigned char *)parts[i],
					  strlen(parts[i]) + 1);
	crypto_generichash_final(&state, hash, sizeof(hash));
	const size_t prefix = sizeof(PTY_ID_PREFIX) - 1;
	memcpy(ret, PTY_ID_PREFIX, prefix);
	sodium_bin2base64(ret + prefix, SESSION_ID_MAX + 1 - prefix, hash, sizeof(hash),
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

/* Who owns the sandbox, and what the role must be to open a shell there. False: *problem. */
static bool find_owner(struct request *r, struct session_spec *spec, char **owner,
		       enum role *needed, struct reply *problem)
{
	const struct provider_ops *provider = provider_find(r->app->providers, r->sandbox);
	if (provider != NULL && !provider->needs_target) { /* built in: as POST /sessions */
		*owner = strdup(r->principal.subject);
		*needed = ROLE_ADMIN;
		*problem = reply_problem(503, "busy", "no memory");
	} else {
		bool any = r->principal.role == ROLE_OPERATOR;
		if (!sandbox_find(r->app, r->sandbox, any ? NULL : r->principal.subject, &provider,
				  owner, problem))
			return false;
		*needed = ROLE_WRITE;
		spec->stored = true;
	}
	spec->subject = *owner;
	spec->sandbox = r->sandbox;
	spec->provider = provider->name;
	return *owner != NULL;
}

/* True when a stream wants the rest of that session and not another one: then its end is told, too. */
static bool goes_on_with(const struct request *r, struct session *known)
{
	struct session_info info;
	if (!r->viewer.has_since || session_info(known, &info) != 0)
		return false;
	bool same = info.epoch == r->viewer.since_epoch;
	session_info_fini(&info);
	return same;
}

/* Sets r->session, with a new one when that is needed. Thread: one that may block. */
static bool find_session(struct request *r, struct reply *reply)
{
	const struct pty_work *w = r->work;
	struct session_spec spec = { .cols = 80,
				     .rows = 24,
				     .idle_timeout_s = r->app->config->pty_idle_timeout_s,
				     .params = "{\"pty\":1}" };
	char *owner = NULL, id[SESSION_ID_MAX + 1];
	enum role needed;
	if (!find_owner(r, &spec, &owner, &needed, reply)) {
		/* An EventSource is not told to give up because the store is away. */
		if (reply->status == 503 && r->app->store_ops->shared &&
		    (r->route->flags & ROUTE_STREAM) != 0)
			reply->slug = "store-unavailable";
		free(owner);
		return true;
	}
	make_id(owner, r->sandbox, w->key, id);
	spec.id = id;
	struct session *known = NULL;
	if (registry_look_up(r->app->registry, id, owner, &known, reply) == 503) {
		free(owner);
		return true;
	}
	*reply = reply_ok(200);
	bool joins = known != NULL && (goes_on_with(r, known) || r->principal.role < needed);
	if (!w->makes || joins) {
		r->session = known;
	} else {
		session_unref(known);
		if (r->principal.role < needed)
			*reply = reply_problem(403, "forbidden",
					       "there is no shell yet, and opening one needs the "
					       "role %s",
					       role_name(needed));
		else
			registry_open(r->app->registry, &spec, &r->session, reply);
	}
	free(owner);
	return true;
}

/* "" is one: that of those who give none. */
static bool is_key(const char *key)
{
	const char *c = key;
	while (*c >= ' ' && *c <= '~')
		c++;
	return *c == '\0' && c - key <= KEY_CHARS_MAX;
}

/* Reads what all four have; finish is called once r->session is there. */
static void with_session(struct request *r, const struct pty_work *values, request_fn *finish)
{
	const char *key = request_query(r, "sessionId");
	struct problem problem;
	if (key == NULL)
		key = "";
	struct pty_work *w = malloc(sizeof(*w));
	if (w == NULL || !is_key(key)) {
		problem = w == NULL ? problem_make(503, "busy", "no memory")
				    : problem_bad_request("sessionId", "",
							  "sessionId: at most %d printable ASCII "
							  "characters",
							  KEY_CHARS_MAX);
		free(w);
		request_answer_problem(r, &problem);
		return;
	}
	if (atomic_load(&r->app->draining)) {
		free(w);
		request_answer_draining(r);
		return;
	}
	*w = *values;
	w->key = key;
	r->work = w;
	r->free_work = free;
	request_block(r, find_session, finish);
}

/* --- stream and WebSocket --- */

static void finish_stream(struct request *r, const struct reply *reply)
{
	if (reply->slug != NULL)
		request_answer_reply(r, reply);
	else
		stream_open(r);
}

void handle_pty_stream(struct request *r)
{
	r->viewer = (struct viewer_params){ .format = VIEWER_PTY_SSE,
					    .expires_ms = r->principal.expires_ms,
					    .ended = request_give_back,
					    .arg = r };
	if (stream_read_since(r))
		with_session(r, &(struct pty_work){ .makes = !r->head }, finish_stream);
}

static void finish_ws(struct request *r, const struct reply *reply)
{
	if (reply->slug != NULL)
		request_answer_reply(r, reply);
	else
		ws_open(r);
}

void handle_pty_ws(struct request *r)
{
	static const char *const modes[] = { "binary", NULL };
	const char *mode = request_query(r, "mode");
	r->viewer = (struct viewer_params){ .format = mode == NULL ? VIEWER_PTY_WS
								   : VIEWER_PTY_WS_BINARY,
					    .may_write = r->principal.role >= ROLE_WRITE,
					    .expires_ms = r->principal.expires_ms,
					    .ended = request_give_back,
					    .arg = r };
	if (!ws_acceptable(r))
		return;
	if (mode != NULL && strcmp(mode, "binary") != 0) {
		struct problem problem = problem_bad_request("mode", "", "mode: binary, or none");
		problem.allowed_list = modes;
		request_answer_problem(r, &problem);
		return;
	}
	with_session(r, &(struct pty_work){ .makes = true }, finish_ws);
}

/* --- input --- */

static void finish_wait(struct request *r, const struct reply *reply)
{
	if (reply->slug != NULL)
		request_answer_reply(r, reply);
	else if (!answer_if_start_failed(r))
		input_raw(r);
}

static void finish_input(struct request *r, const struct reply *reply)
{
	if (reply->slug != NULL) {
		request_answer_reply(r, reply);
		return;
	}
	enum session_state state = session_state(r->session);
	if (state != SESSION_PROVISIONING && state != SESSION_CONNECTING) {
		input_raw(r);
		return;
	}
	request_wait(r, finish_wait);
	session_wait_open(r->session, WAIT_OPEN_MS_MAX, request_resume, r);
}

void handle_pty_input(struct request *r)
{
	with_session(r, &(struct pty_work){ .makes = true }, finish_input);
}

/* --- size --- */

static void finish_resize(struct request *r, const struct reply *reply)
{
	const struct pty_work *w = r->work;
	if (reply->slug != NULL) {
		request_answer_reply(r, reply);
		return;
	}
	request_wait(r, request_answer_reply);
	session_resize(r->session, (uint16_t)w->cols, (uint16_t)w->rows, request_resume, r);
}

void handle_pty_resize(struct request *r)
{
	static const char *const names[] = { "cols", "rows", NULL };
	struct pty_work w = { .makes = true };
	struct problem problem;
	json_auto_t *body = json_body_parse(r->body == NULL ? (const void *)"" : r->body,
					    r->body_size, names, &problem);
	if (body != NULL && json_body_int(body, "cols", true, 1, CELLS_MAX, &w.cols, &problem) &&
	    json_body_int(body, "rows", true, 1, CELLS_MAX, &w.rows, &problem)) {
		with_session(r, &w, finish_resize);
		return;
	}
	problem.error = "Invalid cols/rows";
	request_answer_problem(r, &problem);
}
