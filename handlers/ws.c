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
#include "service/origin.h"
#include "service/request.h"
#include "service/session.h"
#include "wire/ws_handshake.h"
#include "wire/sse.h"

#define CLOSE_REASON_BYTES_MAX 32

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

/* Says why and closes. The socket is fresh: these few bytes fit into its buffer. */
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
	unsigned code = close_code(reply);
	size_t reason = strnlen(reply->slug, CLOSE_REASON_BYTES_MAX);
	uint8_t frame[4 + CLOSE_REASON_BYTES_MAX] = { 0x88, (uint8_t)(2 + reason),
						      (uint8_t)(code >> 8), (uint8_t)code };
	memcpy(frame + 4, reply->slug, reason);
	send(fd, frame, 4 + reason, MSG_NOSIGNAL | MSG_DONTWAIT);
	shutdown(fd, SHUT_WR);
	MHD_upgrade_action(handle, MHD_UPGRADE_ACTION_CLOSE);
}

/* Browsers hide the status of a refused upgrade from the page. Where a page asks, the upgrade is made
 * and closed at once, by a code that says why; programs get the status. */
bool refuse_ws(struct request *r, const struct problem *p)
{
	if (r->origin == NULL || !is_upgrade(r) || !has_version(r) || !has_good_origin(r))
		return false;
	r->call.reply = p->reply;
	r->close = false; /* it will be, and is not to be announced beside the upgrade */
	answer_upgrade(r, on_refused);
	return true;
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

void handle_ws(struct request *r)
{
	struct viewer_params *p = &r->viewer;
	*p = (struct viewer_params){ .may_write = r->principal.role >= ROLE_WRITE,
				     .expires_ms = r->principal.expires_ms,
				     .ended = request_give_back,
				     .arg = r };
	struct problem problem;
	if (!is_upgrade(r)) {
		problem = problem_bad_request("Upgrade", "websocket",
					      "this needs an upgrade to a WebSocket");
	} else if (!has_version(r)) {
		problem = problem_bad_request("Sec-WebSocket-Version", "13",
					      "Sec-WebSocket-Version: 13");
	} else if (!has_good_origin(r)) {
		problem = problem_make(403, "forbidden", "this Origin is foreign");
	} else if (!read_params(r, p, &problem)) {
		/* problem says why */
	} else if (atomic_load(&r->app->draining)) {
		request_answer_draining(r);
		return;
	} else if (!session_reserve_viewer(r->session)) {
		problem = problem_make(503, "viewer-limit",
				       "there are as many viewers as there may be");
		problem.reply.retry_after_s = retry_after_jittered(1, 10);
	} else {
		r->viewer_reserved = true;
		answer_upgrade(r, on_upgraded);
		return;
	}
	request_answer_problem(r, &problem);
	if (r->status == 400 && !has_version(r))
		request_add_header(r, "Sec-WebSocket-Version", "13");
}
