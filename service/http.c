/* http.c -- see http.h. What libmicrohttpd does and does not was measured, and read in its source of
 * version 0.9.75. */
#include "service/http.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "service/app.h"
#include "service/config.h"
#include "service/gate.h"
#include "service/http_private.h"
#include "service/log.h"
#include "service/loop.h"
#include "service/metrics.h"
#include "service/origin.h"
#include "service/request.h"

/* A connection's memory holds the request's head, 64 bytes for each header and cookie in it, and the
 * head of our answer. */
#define HEAD_SLACK_BYTES 3072
/* So much of a refused body is read and thrown away, so that its sender sees the answer: a socket
 * that is closed with unread bytes sends a reset, which overtakes it. */
#define DISCARD_BYTES_MAX (64u << 20)
/* A body has to be complete within so many request timeouts. */
#define BODY_TIMEOUTS 10
/* What is still under way at the stop may finish for this time. */
#define STOP_MS 2000

/* A path with a percent sign. */
static char escaped_path;

/* --- one request --- */

static void *see_uri(void *arg, const char *uri, struct MHD_Connection *connection)
{
	(void)arg;
	(void)connection;
	/* The handler is given the path decoded, where "%2F" looks like "/" and "%00" like its end. No path
	 * of ours needs it. */
	return uri[strcspn(uri, "%?")] == '%' ? &escaped_path : NULL;
}

static unsigned route_number(const struct route *route)
{
	return route == NULL ? 0 : (unsigned)(route - routes) + 1;
}

/* True when the client sends nothing more. libmicrohttpd does not see an end that came together with the
 * bytes before it (its epoll is edge-triggered), and would wait for the timeout. */
static bool has_finished(const struct request *r)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	char byte;
	return recv(info->connect_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void add_common_headers(struct request *r)
{
	request_add_header(r, "X-Content-Type-Options", "nosniff");
	if (r->response != NULL &&
	    MHD_get_response_header(r->response, MHD_HTTP_HEADER_CACHE_CONTROL) == NULL)
		request_add_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (r->origin != NULL && list_has(r->app->config->cors_origins, r->origin)) {
		request_add_header(r, "Access-Control-Allow-Origin", r->origin);
		request_add_header(r, "Access-Control-Expose-Headers", "Retry-After, Location");
		request_add_header(r, MHD_HTTP_HEADER_VARY, MHD_HTTP_HEADER_ORIGIN);
	}
	if (r->close || (r->status != 101 && has_finished(r)))
		request_add_header(r, MHD_HTTP_HEADER_CONNECTION, "close");
}

/* Without a response the connection is closed: there was no memory, or that is the answer. */
static enum MHD_Result send_answer(struct request *r)
{
	add_common_headers(r);
	if (r->response == NULL)
		return MHD_NO;
	enum MHD_Result rc = MHD_queue_response(r->connection, r->status, r->response);
	MHD_destroy_response(r->response);
	r->response = NULL;

	uint64_t took_us = loop_now_us() - r->started_us;
	const char *name = r->route == NULL ? "none" : r->route->name;
	metric_http(route_number(r->route), name, r->status, took_us);
	log_debug("http answered", "status=%u duration_us=%llu text=\"%s\"", r->status,
		  (unsigned long long)took_us, name);
	return rc;
}

/* True when the rest of an answered request is not to be read: libmicrohttpd closes the connection
 * behind an answer that is queued before the body. */
static bool answers_early(const struct request *r)
{
	if (!r->answered)
		return false;
	bool large = r->announced != UINT64_MAX && r->announced > DISCARD_BYTES_MAX;
	return r->close || large || request_header(r, MHD_HTTP_HEADER_EXPECT) != NULL;
}

/* Called with the head of a request; then with each part of its body; then once more, and again after
 * each resume, until there is an answer. An answer in the first call would close the connection, and
 * in one with a body's part be refused. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *body,
				  size_t *body_size, void **context)
{
	struct listener *listener = arg;
	if (*context == NULL || *context == &escaped_path) {
		const char *path = *context == NULL ? url : NULL;
		struct request *r = request_create(listener, connection);
		*context = r;
		if (r == NULL)
			return MHD_NO;
		gate_check(r, path, method, version);
		return answers_early(r) ? send_answer(r) : MHD_YES;
	}
	struct request *r = *context;
	if (*body_size != 0) {
		request_feed(r, body, *body_size);
		r->bytes_received += *body_size;
		*body_size = 0;
		if (r->announced != UINT64_MAX && r->bytes_received < r->announced &&
		    has_finished(r))
			return MHD_NO;
		uint64_t limit_us = (uint64_t)r->app->config->request_timeout_s * 1000000 *
				    BODY_TIMEOUTS;
		bool late = loop_now_us() - r->started_us > limit_us;
		return late || r->bytes_discarded > DISCARD_BYTES_MAX ? MHD_NO : MHD_YES;
	}
	if (r->waiting) {
		r->waiting = false;
		r->finish(r, &r->call.reply);
	} else if (!r->answered) {
		gate_pass(r);
	}
	if (r->waiting)
		return MHD_YES;
	assert(r->answered);
	return send_answer(r);
}

/* The answer is sent, or its client has gone. */
static void on_completed(void *arg, struct MHD_Connection *connection, void **context,
			 enum MHD_RequestTerminationCode how)
{
	(void)arg;
	(void)connection;
	(void)how;
	if (*context != &escaped_path)
		request_destroy(*context);
	*context = NULL;
}

static void on_log(void *arg, const char *format, va_list args)
	__attribute__((format(printf, 2, 0)));
static void on_log(void *arg, const char *format, va_list args)
{
	(void)arg;
	if (!log_enabled(LOG_DEBUG))
		return; /* mostly a line for each client that vanished */
	char text[256], safe[256];
	vsnprintf(text, sizeof(text), format, args);
	log_debug("libmicrohttpd", "text=\"%s\"", log_safe(safe, sizeof(safe), text));
}

/* --- listening --- */

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static bool is_loopback(const union address *a)
{
	if (a->any.sa_family == AF_INET)
		return ntohl(a->v4.sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr);
}

/* Our own socket and not libmicrohttpd's: for a clear error, and its port. */
static int open_socket(struct listener *l, const char *listen_at, uint16_t *port, struct error *err)
{
	char host[64];
	union address a = { 0 };
	if (config_split_listen(listen_at, host, port) != 0)
		return error_set(err, -EINVAL, "%s is not an address and port to listen at",
				 listen_at);
	if (inet_pton(AF_INET, host, &a.v4.sin_addr) == 1) {
		a.v4.sin_family = AF_INET;
		a.v4.sin_port = htons(*port);
	} else if (inet_pton(AF_INET6, host, &a.v6.sin6_addr) == 1) {
		a.v6.sin6_family = AF_INET6;
		a.v6.sin6_port = htons(*port);
	} else {
		return error_set(err, -EINVAL, "%s is not a numeric address", host);
	}
	socklen_t size = a.any.sa_family == AF_INET ? sizeof(a.v4) : sizeof(a.v6);
	int on = 1, off = 0;
	l->fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd < 0)
		goto failed;
	setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (a.any.sa_family == AF_INET6) /* [::] takes IPv4 too */
		setsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(l->fd, &a.any, size) != 0 || listen(l->fd, SOMAXCONN) != 0 ||
	    getsockname(l->fd, &a.any, &size) != 0)
		goto failed;
	*port = ntohs(a.any.sa_family == AF_INET ? a.v4.sin_port : a.v6.sin6_port);
	l->is_loopback = is_loopback(&a);
	return 0;

failed:
	return error_set(err, -errno, "cannot listen at %s: %s", listen_at, strerror(errno));
}

static int start(struct listener *l, unsigned threads, unsigned connections, struct error *err)
{
	const struct config *cfg = l->http->app->config;
	struct MHD_OptionItem options[] = {
		/* First: options behind it may already log. */
		{ MHD_OPTION_EXTERNAL_LOGGER, (intptr_t)on_log, NULL },
		{ MHD_OPTION_LISTEN_SOCKET, l->fd, NULL },
		{ MHD_OPTION_URI_LOG_CALLBACK, (intptr_t)see_uri, NULL },
		{ MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)on_completed, NULL },
		{ MHD_OPTION_CONNECTION_LIMIT, (intptr_t)connections, NULL },
		{ MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		  (intptr_t)(cfg->request_head_bytes + HEAD_SLACK_BYTES), NULL },
		/* Of idle keep-alive and of unfinished requests; suspended ones have none. */
		{ MHD_OPTION_CONNECTION_TIMEOUT, (intptr_t)cfg->request_timeout_s, NULL },
		/* A pool of one is none, and warned about. */
		{ threads > 1 ? MHD_OPTION_THREAD_POOL_SIZE : MHD_OPTION_END, (intptr_t)threads,
		  NULL },
		{ MHD_OPTION_END, 0, NULL },
	};
	l->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME |
					     MHD_ALLOW_UPGRADE | MHD_USE_ERROR_LOG,
				     0, NULL, NULL, on_request, l, MHD_OPTION_ARRAY, options,
				     MHD_OPTION_END);
	if (l->daemon == NULL)
		return error_set(err, -EIO, "libmicrohttpd does not start");
	return 0;
}

static void stop(struct listener *l)
{
	if (l->daemon != NULL)
		MHD_stop_daemon(l->daemon); /* closes the socket, too */
	else if (l->fd >= 0)
		close(l->fd);
}

int http_create(struct app *app, struct http **ret, struct error *err)
{
	const struct config *cfg = app->config;
	struct http *h = calloc(1, sizeof(*h));
	if (h == NULL)
		return error_set(err, -ENOMEM, "no memory");
	assert(routes_count + 1 <= METRIC_ROUTES_MAX);
	h->app = app;
	h->main.http = h->metrics.http = h;
	h->main.fd = h->metrics.fd = -1;
	h->metrics.is_metrics = true;
	throttle_init(&h->unauthorized);

	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned threads = cfg->http_threads != 0 ? cfg->http_threads
						  : (unsigned)(cores < 1 ? 1 : cores);
	uint16_t metrics_port;
	int rc = open_socket(&h->main, cfg->listen, &app->port, err);
	if (rc == 0 && cfg->metrics_listen != NULL)
		rc = open_socket(&h->metrics, cfg->metrics_listen, &metrics_port, err);
	if (rc == 0 && cfg->metrics_listen != NULL)
		rc = start(&h->metrics, 1, 32, err);
	if (rc == 0)
		rc = start(&h->main, threads, cfg->max_connections, err);
	if (rc != 0) {
		stop(&h->main);
		stop(&h->metrics);
		throttle_fini(&h->unauthorized);
		free(h);
		return rc;
	}
	*ret = h;
	return 0;
}

void http_quiesce(struct http *h)
{
	/* The listener stays: MHD_quiesce_daemon() takes its socket out of each pool thread's epoll set
	 * while that thread may do the same, and the second of them aborts the process. And so load
	 * balancers go on being told by /readyz. */
	atomic_store(&h->quiesced, true);
}

bool http_destroy(struct http *h)
{
	if (h == NULL)
		return true;
	http_quiesce(h);
	/* Answers that are on their way. A connection that were still with another thread would make
	 * libmicrohttpd abort. */
	const struct timespec pause = { .tv_nsec = 5000000 };
	for (int waited_ms = 0; waited_ms < STOP_MS; waited_ms += 5) {
		if (atomic_load(&h->calls) == 0 && atomic_load(&h->requests) == 0)
			break;
		nanosleep(&pause, NULL);
	}
	if (atomic_load(&h->calls) != 0) {
		log_error("connections not given back in time", "count=%u", atomic_load(&h->calls));
		return false;
	}
	stop(&h->main);
	stop(&h->metrics);
	throttle_fini(&h->unauthorized);
	free(h);
	return true;
}
