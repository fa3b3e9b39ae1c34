/* system.c -- the service itself: /healthz, /readyz, /metrics, the page and the contract. */
#include <string.h>

#include "handlers/handlers.h"
#include "service/app.h"
#include "service/assets.h"
#include "service/config.h"
#include "service/metrics.h"
#include "service/request.h"
#include "store/bus.h"
#include "store/store.h"

void handle_health(struct request *r)
{
	static const char body[] = "{\"status\":\"ok\"}";
	request_answer_static(r, 200, "application/json", body, sizeof(body) - 1);
}

void handle_readiness(struct request *r)
{
	const struct app *app = r->app;
	bool store_ok = app->store_ops->healthy(app->store);
	bool full = metric_get(METRIC_PROVISIONER_JOBS) >=
		    (int64_t)app->config->provisioner_queue + app->config->provisioner_threads;
	bool shared = app->store_ops->shared;
	bool bus_ok = !shared || app->bus_ops->connected(app->bus);
	bool draining = atomic_load(&app->draining);
	const char *status = draining                      ? "draining"
			     : store_ok && bus_ok && !full ? "ready"
							   : "unready";
	request_answer_json(r, strcmp(status, "ready") == 0 ? 200 : 503,
			    json_pack("{s:s, s:{s:s, s:s, s:s*}}", "status", status, "checks",
				      "store", store_ok ? "ok" : "failed", "provisioner",
				      full ? "full" : "ok", "bus",
				      !shared  ? NULL
				      : bus_ok ? "ok"
					       : "failed"));
}

void handle_metrics(struct request *r)
{
	size_t size = 0;
	char *text = metrics_render(&size);
	request_answer_owned(r, 200, "text/plain; version=0.0.4; charset=utf-8", text, size);
}

/* True when the list of If-None-Match has etag, or is "*". Ours are strong, but a proxy that compresses
 * makes "W/" of them. */
static bool matches(const char *list, const char *etag)
{
	return list != NULL && (strcmp(list, "*") == 0 || strstr(list, etag) != NULL);
}

void handle_asset(struct request *r)
{
	const struct asset *a = r->asset;
	bool known = matches(request_header(r, "If-None-Match"), a->etag);
	/* With 304 libmicrohttpd sends the length of the body, and no body. */
	request_answer_static(r, known ? 304 : 200, a->type, a->data, a->size);
	request_add_header(r, "ETag", a->etag);
	request_add_header(r, "Cache-Control", "no-cache");
	if (strncmp(a->type, "text/html", 9) != 0)
		return;
	request_add_header(
		r, "Content-Security-Policy",
		"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
		"connect-src 'self'; img-src 'self' data:; base-uri 'none'; "
		"form-action 'none'; frame-ancestors 'none'");
	request_add_header(r, "Referrer-Policy", "no-referrer");
	request_add_header(r, "X-Frame-Options", "DENY");
}
