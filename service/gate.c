/* gate.c -- see gate.h. */
#include "service/gate.h"

#include <assert.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "service/app.h"
#include "service/assets.h"
#include "service/config.h"
#include "service/http_private.h"
#include "service/loop.h"
#include "service/metrics.h"
#include "service/origin.h"
#include "service/registry.h"
#include "service/request.h"
#include "service/session.h"
#include "store/store.h"

#define METHOD_OPTIONS 16
#define WATCH_MS 1000 /* and for its output to be here */
#define SYNC_MS 2000  /* for the replica that has a session to say how it is */

/* --- framing --- */

struct framing {
	unsigned hosts, lengths, encodings;
	bool bad_name;
};

static enum MHD_Result look_at_header(void *arg, enum MHD_ValueKind kind, const char *name,
				      const char *value)
{
	(void)kind;
	(void)value;
	struct framing *f = arg;
	f->hosts += strcasecmp(name, MHD_HTTP_HEADER_HOST) == 0;
	f->lengths += strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0;
	f->encodings += strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0;
	if (name[strcspn(name, " \t")] != '\0')
		f->bad_name = true;
	return MHD_YES;
}

/* libmicrohttpd takes the first of several lengths, a length beside an encoding and any encoding: where a
 * proxy in front of us reads them otherwise, one request hides in another (RFC 9112 section 11.2). */
static bool check_framing(struct request *r, const char *version)
{
	struct framing f = { 0 };
	MHD_get_connection_values(r->connection, MHD_HEADER_KIND, look_at_header, &f);
	const char *encoding = request_header(r, MHD_HTTP_HEADER_TRANSFER_ENCODING);
	const char *length = request_header(r, MHD_HTTP_HEADER_CONTENT_LENGTH);
	r->host = request_header(r, MHD_HTTP_HEADER_HOST);
	r->origin = request_header(r, MHD_HTTP_HEADER_ORIGIN);
	r->announced = length == NULL ? 0 : strtoull(length, NULL, 10);
	if (encoding != NULL)
		r->announced = UINT64_MAX;

	/* What fits into the connection's memory beside no answer. Libmicrohttpd answers the larger ones,
	 * like this without a body. */
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	if (info != NULL && info->header_size > r->app->config->request_head_bytes) {
		r->close = true;
		request_answer_empty(r, MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE);
		return false;
	}

	struct problem p;
	if (f.bad_name)
		p = problem_bad_request("headers", "", "a header's name has a space");
	else if (f.encodings + f.lengths > 1 ||
		 (encoding != NULL && strcasecmp(encoding, "chunked") != 0))
		p = problem_bad_request("Transfer-Encoding", "",
					"one Content-Length, or Transfer-Encoding: chunked");
	else if (f.hosts > 1 || (f.hosts == 0 && strcmp(version, MHD_HTTP_VERSION_1_0) != 0))
		p = problem_bad_request("Host", "", "one Host header is needed");
	else
		return true;
	r->close = true;
	request_answer_problem(r, &p);
	return false;
}

/* --- route and method --- */

static const struct asset *asset_find(const char *path)
{
	if (strcmp(path, "/") == 0)
		path = "/index.html";
	for (size_t i = 0; i < assets_count; i++)
		if (strcmp(assets[i].path, path) == 0)
			return &assets[i];
	return NULL;
}

/* Compares path with "/sessions/:id/stream", "/sandboxes/:sandbox" or, for the embedded files, "*". */
static bool path_matches(struct request *r, const char *pattern, const char *path,
			 char id[SESSION_ID_MAX + 1])
{
	static_assert(SANDBOX_ID_MAX == SESSION_ID_MAX, "one form of ids");
	if (strcmp(pattern, "*") == 0) {
		r->asset = asset_find(path);
		return r->asset != NULL;
	}
	const char *variable = strchr(pattern, ':');
	if (variable == NULL)
		return strcmp(pattern, path) == 0;
	size_t before = (size_t)(variable - pattern);
	if (strncmp(pattern, path, before) != 0)
		return false;
	size_t length = strcspn(path + before, "/");
	const char *behind = variable + strcspn(variable, "/");
	if (length > SESSION_ID_MAX || strcmp(behind, path + before + length) != 0)
		return false;
	char *value = strncmp(variable, ":id", 3) == 0 ? id : r->sandbox;
	memcpy(value, path + before, length);
	value[length] = '\0';
	return session_id_valid(value);
}

static bool listener_has(const struct request *r, const struct route *route)
{
	bool apart = r->app->config->metrics_listen != NULL;
	if ((route->flags & ROUTE_METRICS) != 0)
		return r->listener->is_metrics == apart;
	return !r->listener->is_metrics;
}

static unsigned method_of(const char *name)
{
	if (strcmp(name, MHD_HTTP_METHOD_GET) == 0 || strcmp(name, MHD_HTTP_METHOD_HEAD) == 0)
		return METHOD_GET;
	if (strcmp(name, MHD_HTTP_METHOD_POST) == 0)
		return METHOD_POST;
	if (strcmp(name, MHD_HTTP_METHOD_DELETE) == 0)
		return METHOD_DELETE;
	if (strcmp(name, MHD_HTTP_METHOD_PATCH) == 0)
		return METHOD_PATCH;
	return strcmp(name, MHD_HTTP_METHOD_OPTIONS) == 0 ? METHOD_OPTIONS : 0;
}

static void answer_options(struct request *r, const char *allow)
{
	request_answer_empty(r, MHD_HTTP_NO_CONTENT);
	request_add_header(r, MHD_HTTP_HEADER_ALLOW, allow);
	if (r->origin == NULL || !list_has(r->app->config->cors_origins, r->origin))
		return;
	request_add_header(r, "Access-Control-Allow-Methods", allow);
	request_add_header(r, "Access-Control-Allow-Headers",
			   "Authorization, Content-Type, Input-Client, Input-Seq, Last-Event-ID");
	request_add_header(r, "Access-Control-Max-Age", "600");
}

/* Sets r->route; answers when there is none, or no such method, and to OPTIONS. */
static bool check_route(struct request *r, const char *path, const char *method,
			char id[SESSION_ID_MAX + 1])
{
	unsigned asked = method_of(method), possible = 0;
	const struct route *found = NULL;
	for (size_t i = 0; i < routes_count && path != NULL; i++) {
		const struct route *route = &routes[i];
		if (!listener_has(r, route) || (possible != 0 && strcmp(route->path, "*") == 0) ||
		    !path_matches(r, route->path, path, id))
			continue;
		possible |= route->method;
		if (route->method == asked)
			found = route;
	}
	if (possible == 0) {
		struct problem p = problem_make(404, "not-found", "there is nothing here");
		request_answer_problem(r, &p);
		return false;
	}
	char allow[64];
	snprintf(allow, sizeof(allow), "%s%s%s%sOPTIONS",
		 (possible & METHOD_GET) != 0 ? "GET, HEAD, " : "",
		 (possible & METHOD_POST) != 0 ? "POST, " : "",
		 (possible & METHOD_PATCH) != 0 ? "PATCH, " : "",
		 (possible & METHOD_DELETE) != 0 ? "DELETE, " : "");
	if (found == NULL && asked != METHOD_OPTIONS) {
		struct problem p = problem_make(405, "method-not-allowed", "possible here: %s",
						allow);
		request_answer_problem(r, &p);
		request_add_header(r, MHD_HTTP_HEADER_ALLOW, allow);
		return false;
	}
	if (r->listener->is_loopback && r->host != NULL &&
	    !host_is_local(r->host, r->app->config->allowed_hosts)) {
		struct problem p = problem_make(403, "forbidden",
						"this Host is foreign to a service on loopback");
		request_answer_problem(r, &p);
		return false;
	}
	if (asked == METHOD_OPTIONS) {
		answer_options(r, allow);
		return false;
	}
	r->route = found;
	r->head = strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
	return true;
}

/* --- who --- */

static void answer_unauthorized(struct request *r, const struct credentials *c, const char *text)
{
	metric_add(METRIC_UNAUTHORIZED, 1);
	struct problem p = problem_make(401, "unauthorized", "%s", text);
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	if (info != NULL && (c->authorization != NULL || c->ticket != NULL || c->cookie != NULL)) {
		/* Good credentials pass whatever their address did before: behind a load
		 * balancer all clients have one. */
		unsigned wait_s = throttle_fail(&r->listener->http->unauthorized,
						throttle_key(info->client_addr),
						r->app->config->unauthorized_per_minute,
						loop_now_us() / 1000000);
		if (wait_s != 0) {
			p = problem_make(429, "rate-limit", "too many bad credentials");
			p.reply.retry_after_s = wait_s;
			r->close = true;
		}
	}
	request_answer_problem(r, &p);
}

static bool is_granted(const struct request *r, const char *id, struct reply *problem)
{
	if (r->principal.session[0] != '\0' && strcmp(r->principal.session, id) != 0)
		*problem = reply_problem(401, "unauthorized",
					 "this credential is for another session");
	else if (r->principal.role < r->route->role)
		*problem = reply_problem(403, "forbidden", "this needs the role %s",
					 role_name(r->route->role));
	else
		return true;
	return false;
}

static bool check_credential(struct request *r, const char *id)
{
	if (r->route->role == ROLE_NONE || r->listener->is_metrics)
		return true;
	char cookie_name[SESSION_ID_MAX + 4];
	snprintf(cookie_name, sizeof(cookie_name), "pt_%s", id);
	struct credentials c = {
		.authorization = request_header(r, MHD_HTTP_HEADER_AUTHORIZATION),
		.session = id[0] != '\0' ? id : NULL,
		.is_stream = (r->route->flags & ROUTE_TICKET) != 0,
	};
	if ((r->route->flags & ROUTE_TICKET) != 0)
		c.ticket = request_query(r, "ticket");
	char *bearer = NULL;
	const char *token = (r->route->flags & ROUTE_TOKEN) != 0 ? request_query(r, "token") : NULL;
	if (token != NULL && token[0] != '\0' && strcmp(token, "null") != 0) {
		if (asprintf(&bearer, "Bearer %s", token) < 0)
			bearer = NULL;
		c.authorization = bearer;
	}
	if ((r->route->flags & ROUTE_STREAM) != 0)
		c.cookie = MHD_lookup_connection_value(r->connection, MHD_COOKIE_KIND, cookie_name);
	struct error err = { 0 };
	int rc = auth_check(r->app->auth, &c, &r->principal, &err);
	if (rc == -EAGAIN) {
		struct problem p = problem_make(503, "busy", "%s", err.text);
		request_answer_problem(r, &p);
	} else if (rc != 0) {
		answer_unauthorized(r, &c, err.text);
	}
	if (bearer != NULL)
		explicit_bzero(bearer, strlen(bearer));
	free(bearer);
	if (rc != 0)
		return false;
	if (r->principal.spend[0] != '\0')
		return true; /* judged when it is spent */
	struct reply problem;
	if (is_granted(r, id, &problem))
		return true;
	if (problem.status == 401) {
		answer_unauthorized(r, &c, problem.detail);
	} else {
		struct problem p = { .reply = problem };
		request_answer_problem(r, &p);
	}
	return false;
}

/* One that is not here may be another replica's; the store is asked once the request has come whole. */
static bool check_session(struct request *r, const char *id)
{
	if (id[0] == '\0')
		return true;
	bool any_subject = r->principal.role == ROLE_OPERATOR;
	if (r->principal.spend[0] == '\0')
		r->session = registry_find(r->app->registry, id,
					   any_subject ? NULL : r->principal.subject);
	if (r->session != NULL)
		return true;
	if (r->app->store_ops->shared) {
		snprintf(r->look_up, sizeof(r->look_up), "%s", id);
		return true;
	}
	struct problem p = problem_make(404, "not-found", "no such session");
	request_answer_problem(r, &p);
	return false;
}

/* --- the body that is announced --- */

static void answer_media_type(struct request *r, const char *field, const char *const *allowed)
{
	struct problem p = problem_make(415, "unsupported-media-type", "this %s is not taken here",
					field);
	snprintf(p.field, sizeof(p.field), "%s", field);
	p.allowed_list = allowed;
	request_answer_problem(r, &p);
}

static bool type_is(const char *type, const char *name)
{
	size_t length = strcspn(type, ";");
	while (length > 0 && (type[length - 1] == ' ' || type[length - 1] == '\t'))
		length--;
	return length == strlen(name) && strncasecmp(type, name, length) == 0;
}

static bool check_body(struct request *r)
{
	static const char *const json_types[] = { "application/json", NULL };
	static const char *const input_types[] = { "text/plain", "application/octet-stream",
						   "application/json", NULL };
	static const char *const codings[] = { "identity", NULL };
	bool is_input = (r->route->flags & ROUTE_INPUT) != 0;
	if ((r->route->flags & ROUTE_RAW) != 0) {
		r->body_bytes_max = r->app->config->input_bytes;
		if (r->announced == UINT64_MAX || r->announced <= r->body_bytes_max)
			return true;
		request_answer_too_large(r, r->body_bytes_max);
		return false;
	}
	if (!is_input && (r->route->flags & ROUTE_JSON) == 0)
		return true; /* what comes is thrown away */

	const char *type = request_header(r, MHD_HTTP_HEADER_CONTENT_TYPE);
	const char *coding = request_header(r, MHD_HTTP_HEADER_CONTENT_ENCODING);
	const char *const *known = is_input ? input_types : json_types;
	r->json = type != NULL && type_is(type, "application/json");
	bool ok = is_input && type == NULL;
	for (const char *const *t = known; *t != NULL && type != NULL; t++)
		ok = ok || type_is(type, *t);
	if (!ok) {
		answer_media_type(r, "Content-Type", known);
		return false;
	}
	if (coding != NULL && strcasecmp(coding, "identity") != 0) {
		answer_media_type(r, "Content-Encoding", codings);
		return false;
	}
	r->body_bytes_max = r->route->body_bytes_max;
	if (is_input) {
		size_t max = r->app->config->input_bytes;
		r->body_bytes_max = r->json ? max + max / 2 : max; /* base64 and escapes */
	}
	if (r->announced != UINT64_MAX && r->announced > r->body_bytes_max) {
		request_answer_too_large(r, r->body_bytes_max);
		return false;
	}
	return true;
}

void gate_check(struct request *r, const char *path, const char *method, const char *version)
{
	char id[SESSION_ID_MAX + 1] = "";
	if (!check_framing(r, version) || !check_route(r, path, method, id))
		return;
	bool refuses = atomic_load(&r->listener->http->quiesced) && !r->listener->is_metrics;
	if (refuses && r->route->role != ROLE_NONE) {
		request_answer_draining(r);
		return;
	}
	if (check_credential(r, id) && check_session(r, id))
		check_body(r);
}

/* --- what asks the store --- */

/* Thread: one that may block. */
static bool spend_ticket(struct request *r, struct reply *reply)
{
	const struct app *app = r->app;
	struct principal *p = &r->principal;
	struct error why = { 0 }, err = { 0 };
	if (p->spend[0] == '\0')
		return true;
	int status = app->store_ops->spend(app->store, p->spend, p->spend_ttl_ms, &why);
	int rc = auth_spent(p, status, &err);
	if (rc == 0)
		return is_granted(r, r->look_up, reply);
	*reply = rc == -EACCES ? reply_problem(401, "unauthorized", "%s", err.text)
			       : registry_store_problem(-EHOSTUNREACH);
	return false;
}

/* What is to be shown is the owner's to say; and who looks on misses nothing from the answer's head on. */
static bool needs_sync(const struct request *r)
{
	return r->session != NULL && (r->route->flags & (ROUTE_FRESH | ROUTE_WATCH)) != 0 &&
	       session_is_mirror(r->session);
}

static void sync_session(struct request *r)
{
	bool watch = (r->route->flags & ROUTE_WATCH) != 0;
	session_sync(r->session, watch, watch ? WATCH_MS : SYNC_MS, request_resume, r);
}

static bool needs_confirmation(const struct request *r)
{
	return r->app->store_ops->shared && r->session != NULL &&
	       (r->route->flags & (ROUTE_FRESH | ROUTE_WATCH)) != 0 &&
	       session_state(r->session) == SESSION_ENDED;
}

/* Thread: one that may block. */
static bool confirm(struct request *r, struct reply *reply)
{
	*reply = reply_ok(200);
	if (!registry_confirm(r->app->registry, r->session) || !needs_sync(r))
		return true;
	sync_session(r);
	return false;
}

static bool look_up(struct request *r, struct reply *reply)
{
	*reply = reply_ok(200);
	if (!spend_ticket(r, reply))
		return true;
	struct reply problem;
	bool any_subject = r->principal.role == ROLE_OPERATOR;
	unsigned status = registry_look_up(r->app->registry, r->look_up,
					   any_subject ? NULL : r->principal.subject, &r->session,
					   &problem);
	if (status != 200)
		*reply = problem;
	if (status != 200 || !needs_sync(r))
		return true;
	sync_session(r);
	return false;
}

static void go_on(struct request *r, const struct reply *reply)
{
	/* A mirror that proved to be of a session that is gone: its id may be another one's. */
	if (reply->slug == NULL && r->look_up[0] == '\0' && session_is_dropped(r->session)) {
		snprintf(r->look_up, sizeof(r->look_up), "%s", session_id(r->session));
		session_unref(r->session);
		r->session = NULL;
		request_block(r, look_up, go_on);
		return;
	}
	if (reply->slug != NULL)
		request_answer_reply(r, reply);
	else
		r->route->handle(r);
}

void gate_pass(struct request *r)
{
	if (r->look_up[0] != '\0') {
		request_block(r, look_up, go_on);
	} else if (needs_confirmation(r)) {
		request_block(r, confirm, go_on);
	} else if (needs_sync(r)) {
		request_wait(r, go_on);
		sync_session(r);
	} else {
		r->route->handle(r);
	}
}
