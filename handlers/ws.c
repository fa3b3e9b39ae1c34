/* ws.c -- GET /sessions/:id/ws. libmicrohttpd answers the upgrade; then the socket belongs to the
 * session's loop until that says it is over. */
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "handlers/handlers.h"
#include "service/app.h"
#include "service/config.h"
#include "service/farewell.h"
#include "service/origin.h"
#include "service/request.h"
#include "service/session.h"
#include "wire/sse.h"
#include "wire/ws_frame.h"
#include "wire/ws_handshake.h"

/* --- is it one? --- */

/* True when a header that is a comma list has token. */
static bool header_has(const struct request *r, const char *name, const char *token)
{
	return list_has(request_header(r, name), token);
}

static bool is_upgrade(const struct request *r)
{
	const char *key = request_header(r, "Sec-WebSocket-Key");
	return !r->head && header_has(r, "Upgrade", "websocket") &&
	       header_has(r, "Connection", "upgrade") && key != NULL && ws_key_valid(key);
}

static bool has_version(const struct request *r)
{
	const char *version = request_header(r, "Sec-WebSocket-Version");
	return version != NULL && strcmp(version, "13") == 0;
}

/* A page may open a WebSocket to anywhere, and the browser asks nobody: so we look who it is. Programs send
 * no Origin. */
static bool has_good_origin(const struct request *r)
{
	return r->origin == NULL || (r->host != NULL && origin_is_host(r->origin, r->host)) ||
	       list_has(r->app->config->cors_origins, r->origin);
}

/* --- the upgrade --- */

static void answer_upgrade(struct request *r, MHD_UpgradeHandler handler)
{
	char accept[WS_ACCEPT_CHARS + 1];
	ws_accept(request_header(r, "Sec-WebSocket-Key"), accept);
	request_answer_response(r, 101, MHD_create_response_for_upgrade(handler, r));
	request_add_header(r, "Upgrade", "websocket");
	request_add_header(r, "Sec-WebSocket-Accept", accept);
}

static void on_upgraded(void *arg, struct MHD_Connection *connection, void *context,
			const char *extra, size_t extra_size, MHD_socket fd,
			struct MHD_UpgradeResponseHandle *handle)
{
	(void)connection;
	(void)context;
	struct request *r = arg;
	int on = 1;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	struct viewer_params p = r->viewer;
	p.fd = fd;
	p.extra = (const uint8_t *)extra;
	p.extra_size = extra_size;
	r->viewer_reserved = false; /* the session's from here on */
	request_take_over_upgraded(r, handle);
	session_add_viewer(r->session, &p);
}

/* --- a refusal that a page can see --- */

static unsigned close_code(const struct reply *reply)
{
	if (reply->status == 503)
		return strcmp(reply->slug, "draining") == 0 ? 1001 : 1013;
	return 4000 + reply->status;
}

/* Says why and closes. The socket is fresh: these few bytes fit into its buffer. A page sends as soon as it is
 * connected, and must see them all the same. */
static void send_close(struct request *r, MHD_socket fd, struct MHD_UpgradeResponseHandle *handle,
		       unsigned code, const char *reason)
{
	uint8_t payload[WS_CONTROL_BYTES_MAX];
	uint8_t frame[WS_HEADER_BYTES_MAX + WS_CONTROL_BYTES_MAX];
	size_t size = ws_close_encode(payload, (uint16_t)code, reason);
	size_t n = ws_header_encode(frame, WS_CLOSE, true, size, NULL);
	memcpy(frame + n, payload, size);
	send(fd, frame, n + size, MSG_NOSIGNAL | MSG_DONTWAIT);
	shutdown(fd, SHUT_WR);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	request_take_over_upgraded(r, handle);
	farewell_begin(r->app->loops[(unsigned)fd % r->app->loops_count], fd, request_give_back, r);
}

static void on_refused(void *arg, struct MHD_Connection *connection, void *context,
		       const char *extra, size_t extra_size, MHD_socket fd,
		       struct MHD_UpgradeResponseHandle *handle)
{
	(void)connection;
	(void)context;
	(void)extra;
	(void)extra_size;
	struct request *r = arg;
	const struct reply *reply = &r->call.reply;
	send_close(r, fd, handle, close_code(reply), reply->slug);
}

/* Browsers hide the status of a refused upgrade from the page. Where a page asks, the upgrade is made
 * and closed at once, by a code that says why; programs get the status. */
static bool refuse_by(struct request *r, const struct problem *p, MHD_UpgradeHandler handler)
{
	if (r->origin == NULL || !is_upgrade(r) || !has_version(r) || !has_good_origin(r))
		return false;
	r->call.reply = p->reply;
	r->close = false; /* it will be, and is not to be announced beside the upgrade */
	answer_upgrade(r, handler);
	return true;
}

bool refuse_ws(struct request *r, const struct problem *p)
{
	return refuse_by(r, p, on_refused);
}

/* The same with the original's codes. */
static void on_refused_pty(void *arg, struct MHD_Connection *connection, void *context,
			   const char *extra, size_t extra_size, MHD_socket fd,
			   struct MHD_UpgradeResponseHandle *handle)
{
	(void)connection;
	(void)context;
	(void)extra;
	(void)extra_size;
	struct request *r = arg;
	const struct reply *reply = &r->call.reply;
	if (reply->status == 401)
		send_close(r, fd, handle, 1008, "Invalid token");
	else if (reply->status == 503 && strcmp(reply->slug, "draining") == 0)
		send_close(r, fd, handle, 1001, reply->detail);
	else if (reply->status == 503 || reply->status == 429)
		send_close(r, fd, handle, 1013, reply->detail);
	else
		send_close(r, fd, handle, 1011, reply->detail);
}

bool refuse_pty_ws(struct request *r, const struct problem *p)
{
	return refuse_by(r, p, on_refused_pty);
}

/* --- the handler --- */

static bool read_params(const struct request *r, struct viewer_params *p, struct problem *problem)
{
	static const char *const modes[] = { "text", "binary", NULL };
	const char *mode = request_query(r, "mode");
	const char *since = request_query(r, "since");
	p->format = mode != NULL && strcmp(mode, "binary") == 0 ? VIEWER_WS_BINARY : VIEWER_WS_TEXT;
	p->has_since = since != NULL && since[0] != '\0';
	if (mode != NULL && p->format == VIEWER_WS_TEXT && strcmp(mode, "text") != 0) {
		*problem = problem_bad_request("mode", "", "mode: text or binary");
		problem->allowed_list = modes;
		return false;
	}
	if (p->has_since &&
	    sse_id_parse(since, strlen(since), &p->since_epoch, &p->since_offset) < 0) {
		*problem = problem_bad_request("since", "", "since: an id as EPOCH:OFFSET");
		return false;
	}
	return true;
}

bool ws_acceptable(struct request *r)
{
	struct problem problem;
	if (!is_upgrade(r))
		problem = problem_bad_request("Upgrade", "websocket",
					      "this needs an upgrade to a WebSocket");
	else if (!has_version(r))
		problem = problem_bad_request("Sec-WebSocket-Version", "13",
					      "Sec-WebSocket-Version: 13");
	else if (!has_good_origin(r))
		problem = problem_make(403, "forbidden", "this Origin is foreign");
	else
		return true;
	request_answer_problem(r, &problem);
	if (r->status == 400 && !has_version(r))
		request_add_header(r, "Sec-WebSocket-Version", "13");
	return false;
}

void ws_open(struct request *r)
{
	if (atomic_load(&r->app->draining)) {
		request_answer_draining(r);
	} else if (!session_reserve_viewer(r->session)) {
		struct problem problem = problem_make(503, "viewer-limit",
						      "there are as many viewers as there may be");
		problem.reply.retry_after_s = retry_after_jittered(1, 10);
		request_answer_problem(r, &problem);
	} else {
		r->viewer_reserved = true;
		answer_upgrade(r, on_upgraded);
	}
}

void handle_ws(struct request *r)
{
	struct viewer_params *p = &r->viewer;
	*p = (struct viewer_params){ .may_write = r->principal.role >= ROLE_WRITE,
				     .expires_ms = r->principal.expires_ms,
				     .ended = request_give_back,
				     .arg = r };
	struct problem problem;
	if (!ws_acceptable(r))
		return;
	if (read_params(r, p, &problem))
		ws_open(r);
	else
		request_answer_problem(r, &problem);
}
