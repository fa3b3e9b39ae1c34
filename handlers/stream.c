/* stream.c -- GET /sessions/:id/stream. libmicrohttpd sends the head and the first line; then its
 * connection is suspended and the socket belongs to the session's loop until that says it is over. */
#include <assert.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handlers/handlers.h"
#include "service/app.h"
#include "service/config.h"
#include "service/request.h"
#include "service/session.h"
#include "wire/sse.h"

#define COOKIE_S 300
/* The first line, "retry: ...": libmicrohttpd keeps a buffer of this size as long as the stream. */
#define FIRST_LINE_BYTES 32

bool stream_read_since(struct request *r)
{
	struct viewer_params *p = &r->viewer;
	const char *header = request_header(r, "Last-Event-ID");
	const char *query = request_query(r, "since");
	if (header != NULL && header[0] != '\0') {
		/* An EventSource gives up for good when it is refused: what is no id is one of another
		 * epoch, which is answered by a reset. */
		p->has_since = true;
		sse_id_parse(header, strlen(header), &p->since_epoch, &p->since_offset);
		return true;
	}
	p->has_since = query != NULL && query[0] != '\0';
	if (!p->has_since ||
	    sse_id_parse(query, strlen(query), &p->since_epoch, &p->since_offset) == 0)
		return true;
	struct problem problem = problem_bad_request("since", "", "since: an id as EPOCH:OFFSET");
	request_answer_problem(r, &problem);
	return false;
}

/* False: it was answered. */
static bool read_format(struct request *r, struct viewer_params *p)
{
	static const char *const formats[] = { "text", "base64", NULL };
	const char *format = request_query(r, "format");
	if (format == NULL || strcmp(format, "text") == 0) {
		p->format = VIEWER_SSE_TEXT;
		return true;
	}
	if (strcmp(format, "base64") == 0) {
		p->format = VIEWER_SSE_BASE64;
		return true;
	}
	struct problem problem = problem_bad_request("format", "", "format: text or base64");
	problem.allowed_list = formats;
	request_answer_problem(r, &problem);
	return false;
}

/* A ticket is spent by now, so an EventSource that connects again by itself comes with this. */
static void add_cookie(struct request *r)
{
	if (!r->principal.by_ticket && !r->principal.by_cookie)
		return;
	const char *id = session_id(r->session);
	char value[COOKIE_BYTES], header[COOKIE_BYTES + 256];
	auth_cookie(r->app->auth, id, &r->principal, value);
	snprintf(header, sizeof(header),
		 "pt_%s=%s; HttpOnly; SameSite=Strict; Path=/sessions/%s/stream; Max-Age=%d%s", id,
		 value, id, COOKIE_S, request_on_loopback(r) ? "" : "; Secure");
	request_add_header(r, "Set-Cookie", header);
}

static void hand_over(struct request *r)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	int on = 1;
	setsockopt(info->connect_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	struct viewer_params p = r->viewer;
	p.fd = info->connect_fd;
	r->viewer_reserved = false; /* the session's from here on */
	request_take_over(r);
	session_add_viewer(r->session, &p);
}

/* libmicrohttpd asks for more of the body: first for the first line; then, when that is in the kernel,
 * the socket is handed over; then, after it was given back, it is told to close. */
static ssize_t on_read(void *arg, uint64_t position, char *out, size_t max)
{
	struct request *r = arg;
	if (position == 0)
		return snprintf(out, max, "retry: %u\n\n", r->app->config->retry_ms);
	if (r->call.answered)
		return MHD_CONTENT_READER_END_OF_STREAM;
	hand_over(r);
	return 0;
}

static void answer_stream(struct request *r)
{
	r->call.answered = false; /* it may have waited before */
	struct MHD_Response *response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN,
									  FIRST_LINE_BYTES, on_read,
									  r, NULL);
	/* Neither chunked nor of a known length: one form of each event for HTTP/1.0 and 1.1. */
	if (response != NULL)
		MHD_set_response_options(response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END);
	request_answer_response(r, 200, response);
	request_add_header(r, "Content-Type", "text/event-stream");
	request_add_header(r, "Cache-Control", "no-cache, no-transform");
	request_add_header(r, "X-Accel-Buffering", "no");
	add_cookie(r);
}

/* While the store cannot be asked for the session: an EventSource that got another status would give up for
 * good, so it is told how things are, and comes again. */
bool refuse_stream(struct request *r, const struct problem *p)
{
	static const char state[] = "{\"state\":\"reconnecting\",\"reason\":\"the store cannot be "
				    "asked for it now\",\"epoch\":null,\"offset\":null}";
	if (strcmp(p->reply.slug, "store-unavailable") != 0 || r->head)
		return false;
	char *text = NULL;
	unsigned retry_ms = r->app->config->retry_ms;
	int size = asprintf(&text, "retry: %u\n\nevent: state\ndata: %s\n\n",
			    retry_ms + randombytes_uniform(retry_ms + 1), state);
	if (size < 0)
		return false;
	request_answer_owned(r, 200, "text/event-stream", text, (size_t)size);
	request_add_header(r, "Cache-Control", "no-cache, no-transform");
	request_add_header(r, "X-Accel-Buffering", "no");
	return true;
}

void handle_stream(struct request *r)
{
	r->viewer = (struct viewer_params){ .expires_ms = r->principal.expires_ms,
					    .ended = request_give_back,
					    .arg = r };
	if (read_format(r, &r->viewer) && stream_read_since(r))
		stream_open(r);
}

void stream_open(struct request *r)
{
	const struct viewer_params *p = &r->viewer;
	struct problem problem;
	if (p->has_since && r->session != NULL &&
	    session_finished_at(r->session, p->since_epoch, p->since_offset)) {
		request_answer_empty(r, 204);
	} else if (r->head) {
		answer_stream(r);
	} else if (atomic_load(&r->app->draining)) {
		request_answer_draining(r);
	} else if (!session_reserve_viewer(r->session)) {
		problem = problem_make(503, "viewer-limit",
				       "there are as many viewers as there may be");
		problem.reply.retry_after_s = retry_after_jittered(1, 10);
		request_answer_problem(r, &problem);
		add_cookie(r);
	} else {
		r->viewer_reserved = true;
		answer_stream(r);
	}
}
