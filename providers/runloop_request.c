/* runloop_request.c -- one call of Runloop's API: its headers, its retries, and what its answer means. */
#include "providers/runloop_api_private.h"

#include <errno.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TIMEOUT_MS 30000
#define ANSWER_BYTES_MAX (1u << 20)
#define NAP_US_MAX 100000
#define POLL_FAST_US 1000000
#define POLL_PAUSE_MS 200
#define PTY_RETRIES_MAX 5
#define PTY_DELAY_MS 400
#define PTY_DELAY_MS_MAX 10000
#define MESSAGE_BYTES 121
#define ACCEPT_AT 0 /* places in request.headers */
#define CONTENT_TYPE_AT 1

/* ---- writing it ---- */

static void add_header(struct ask *k, const char *header)
{
	k->request.headers[k->request.headers_count++] = header;
}

/* "Name: Bearer SECRET"; a line's end in the secret would be a header of its own. */
static void add_secret(struct ask *k, const char *name, char buffer[ASK_SECRET_BYTES])
{
	if (!runloop_token_valid(k->secret, strlen(k->secret)) ||
	    snprintf(buffer, ASK_SECRET_BYTES, "%s: Bearer %s", name, k->secret) >=
		    ASK_SECRET_BYTES)
		k->bad = -EACCES;
	else
		add_header(k, buffer);
}

static int64_t wall_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void print_uuid(uint8_t b[16], unsigned version, char ret[UUID_BYTES])
{
	b[6] = (uint8_t)((b[6] & 0x0f) | version << 4);
	b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
	char hex[33];
	sodium_bin2hex(hex, sizeof(hex), b, 16);
	snprintf(ret, UUID_BYTES, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16,
		 hex + 20);
}

void runloop_uuid7(char ret[UUID_BYTES])
{
	uint8_t b[16];
	uint64_t ms = (uint64_t)wall_ms();
	randombytes_buf(b, sizeof(b));
	for (int i = 0; i < 6; i++)
		b[i] = (uint8_t)(ms >> (40 - 8 * i));
	print_uuid(b, 7, ret);
}

static void set_request_id(struct ask *k)
{
	uint8_t b[16];
	char uuid[UUID_BYTES];
	randombytes_buf(b, sizeof(b));
	print_uuid(b, 4, uuid);
	snprintf(k->request_id, sizeof(k->request_id), "x-request-id: %s", uuid);
	add_header(k, k->request_id);
}

static void init(struct ask *k, struct runloop_api *a, const char *what, const char *method,
		 const char *base_url, const char *path_format, va_list args)
{
	*k = (struct ask){ .api = a, .what = what };
	int n = snprintf(k->url, sizeof(k->url), "%s", base_url);
	if (n < 0 || (size_t)n >= sizeof(k->url)) {
		k->bad = -EINVAL;
		return;
	}
	int m = vsnprintf(k->url + n, sizeof(k->url) - (size_t)n, path_format, args);
	if (m < 0 || (size_t)m >= sizeof(k->url) - (size_t)n) {
		k->bad = -EINVAL;
		return;
	}
	k->request = (struct http_request){
		.what = what,
		.method = method,
		.url = k->url,
		.timeout_ms = TIMEOUT_MS,
		.answer_bytes_max = ANSWER_BYTES_MAX,
	};
	add_header(k, "Accept: application/json");
	if (strcmp(method, "GET") != 0) {
		add_header(k, "Content-Type: application/json");
		set_request_id(k);
	}
}

void ask_init(struct ask *k, struct runloop_api *a, const char *what, const char *method,
	      const char *path_format, ...)
{
	va_list args;
	va_start(args, path_format);
	init(k, a, what, method, a->base_url, path_format, args);
	va_end(args);
	k->secret = a->api_key;
	add_secret(k, "Authorization", k->authorization);
}

void ask_init_pty(struct ask *k, struct runloop_api *a, const char *what, const char *method,
		  const char *pty_url, const char *token, const char *path_format, ...)
{
	va_list args;
	va_start(args, path_format);
	init(k, a, what, method, pty_url, path_format, args);
	va_end(args);
	k->pty = true;
	if (token == NULL || token[0] == '\0')
		return;
	k->secret = token;
	add_secret(k, "Authorization", k->authorization);
	add_secret(k, "X-Runloop-Tunnel-Authorization", k->tunnel_authorization);
}

void ask_set_json(struct ask *k, json_t *json)
{
	k->body = json == NULL ? NULL : json_dumps(json, JSON_COMPACT);
	runloop_json_wipe(json);
	json_decref(json);
	if (k->body == NULL)
		k->bad = -EINVAL; /* no memory, or a text that is no UTF-8 */
	k->request.body = k->body;
	k->request.body_size = k->body == NULL ? 0 : strlen(k->body);
}

void ask_set_upload(struct ask *k, const char *path, const void *data, size_t size)
{
	/* libcurl writes the form's own Content-Type. */
	struct http_request *r = &k->request;
	r->headers[CONTENT_TYPE_AT] = r->headers[--r->headers_count];
	r->upload_path = path;
	r->upload_data = data;
	r->upload_size = size;
}

void ask_accept_events(struct ask *k)
{
	k->request.headers[ACCEPT_AT] = "Accept: text/event-stream";
}

void ask_fini(struct ask *k)
{
	if (k->body != NULL)
		sodium_memzero(k->body, strlen(k->body));
	free(k->body);
	http_answer_fini(&k->answer);
	sodium_memzero(k, sizeof(*k));
}

/* ---- tries ---- */

bool ask_nap(const struct provider_call *call, int64_t ms)
{
	uint64_t until = provider_now_us() + (uint64_t)ms * 1000;
	while (provider_call_check(call, NULL) == 0) {
		uint64_t now = provider_now_us();
		if (now >= until)
			return true;
		uint64_t us = until - now < NAP_US_MAX ? until - now : NAP_US_MAX;
		nanosleep(&(struct timespec){ .tv_nsec = (long)us * 1000 }, NULL);
	}
	return false;
}

bool ask_nap_after_poll(const struct provider_call *call, uint64_t started_us)
{
	return provider_now_us() - started_us >= POLL_FAST_US || ask_nap(call, POLL_PAUSE_MS);
}

static int64_t sdk_delay(const struct ask *k)
{
	return http_retry_delay_ms(&k->answer, k->attempts - 1,
				   (double)randombytes_random() / UINT32_MAX, wall_ms());
}

/* How long to wait for the next try, or -1: there is none. */
static int64_t next_delay(const struct ask *k)
{
	const struct http_answer *a = &k->answer;
	unsigned status = a->result == HTTP_DONE ? a->status : 0;
	switch (k->retry) {
	case ASK_RETRY_POLL:
		return status == 408 ? -1 : sdk_delay(k);
	case ASK_RETRY_START:
		if (status != 429 && status != 503 && (a->sent || a->status != 0))
			return -1;
		return sdk_delay(k);
	case ASK_RETRY_LOST:
		return status == 409 ? -1 : sdk_delay(k);
	case ASK_RETRY_PTY:
		if (status != 502 && status != 503)
			return sdk_delay(k);
		if (k->attempts > PTY_RETRIES_MAX)
			return -1;
		int64_t ms = PTY_DELAY_MS << (k->attempts - 1);
		return ms < PTY_DELAY_MS_MAX ? ms : PTY_DELAY_MS_MAX;
	case ASK_RETRY_SDK:
		return sdk_delay(k);
	default:
		return -1;
	}
}

int64_t ask_delay(const struct ask *k)
{
	int64_t ms = next_delay(k);
	uint64_t now = provider_now_us(), deadline = k->api->call->deadline_us;
	if (ms < 0 || now >= deadline || (uint64_t)ms * 1000 >= deadline - now)
		return -1;
	return ms;
}

void ask_try(struct ask *asks, unsigned count)
{
	struct http_request requests[2];
	struct http_answer answers[2];
	struct ask *under_way[2];
	unsigned n = 0;
	for (struct ask *k = asks; k < asks + count && n < 2; k++) {
		if (k->bad < 0)
			k->over = true;
		if (k->over)
			continue;
		under_way[n] = k;
		requests[n++] = k->request;
	}
	if (n == 0)
		return;
	http_client_perform(asks->api->http, asks->api->call, requests, n, answers);
	for (unsigned i = 0; i < n; i++) {
		http_answer_fini(&under_way[i]->answer);
		under_way[i]->answer = answers[i];
		under_way[i]->attempts++;
		under_way[i]->over = next_delay(under_way[i]) < 0;
	}
}

void ask_run(struct ask *k)
{
	if (k->attempts == 0)
		ask_try(k, 1);
	while (!k->over) {
		int64_t ms = ask_delay(k);
		if (ms < 0) {
			k->over = true;
		} else if (!ask_nap(k->api->call, ms)) {
			k->over = true;
			k->answer.result =
				HTTP_CANCELLED; /* or the time is over: ask_result() looks */
		} else {
			ask_try(k, 1);
		}
	}
}

/* ---- what came of it ---- */

int ask_not_understood(struct error *err, const char *what, const char *why)
{
	return error_set_slug(err, -EBADMSG, "provider-error", "runloop: %s: %s", what, why);
}

int ask_status_error(struct error *err, const char *what, unsigned status, const char *text,
		     size_t size, const char *secret)
{
	static const struct {
		unsigned status;
		int code;
		const char *slug;
	} known[] = {
		{ 401, -EACCES, "credential-refused" }, { 403, -EACCES, "credential-refused" },
		{ 404, -ENOENT, "sandbox-unknown" },    { 409, -EALREADY, "provider-error" },
		{ 429, -EBUSY, "provider-rate-limit" },
	};
	char message[MESSAGE_BYTES];
	runloop_error_message(text, size, secret, message, sizeof(message));
	int code = -EIO;
	const char *slug = "provider-error";
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].status == status) {
			code = known[i].code;
			slug = known[i].slug;
		}
	return error_set_slug(err, code, slug, "runloop: %s failed: %u: %s", what, status, message);
}

int ask_result(const struct ask *k, struct error *err)
{
	const struct http_answer *a = &k->answer;
	if (k->bad == -EACCES)
		return error_set_slug(err, -EACCES, "credential-refused",
				      "runloop: %s: the credential has characters that none has",
				      k->what);
	if (k->bad < 0)
		return error_set_slug(err, -EINVAL, "provider-error",
				      "runloop: %s: the request could not be written", k->what);
	switch (a->result) {
	case HTTP_DONE:
		if (a->status >= 200 && a->status < 300)
			return 0;
		if (k->pty && (a->status == 401 || a->status == 403 || a->status == 404))
			return error_set_slug(err, -EIO, "tunnel-failed",
					      "runloop: %s failed: the tunnel answered %u", k->what,
					      a->status);
		return ask_status_error(err, k->what, a->status, a->body == NULL ? "" : a->body,
					a->body_size, k->secret);
	case HTTP_NO_MEMORY:
		return error_set(err, -ENOMEM, "runloop: %s: no memory", k->what);
	case HTTP_TOO_LARGE:
		return ask_not_understood(err, k->what, a->text);
	default:
		break;
	}
	int rc = provider_call_check(k->api->call, err);
	if (rc == -ECANCELED || (rc < 0 && a->result == HTTP_TIMEOUT))
		return rc; /* else the reason is known, though it was the last try */
	return error_set_slug(err, -EHOSTUNREACH, "provider-unreachable", "runloop: %s failed: %s",
			      k->what, a->text);
}

int ask_json(const struct ask *k, json_t **ret, struct error *err)
{
	*ret = NULL;
	int rc = ask_result(k, err);
	if (rc < 0)
		return rc;
	/* A terminal may say NUL. */
	json_t *root = json_loadb(k->answer.body == NULL ? "" : k->answer.body, k->answer.body_size,
				  JSON_ALLOW_NUL, NULL);
	if (!json_is_object(root)) {
		json_decref(root);
		return ask_not_understood(err, k->what, "the answer is no JSON object");
	}
	*ret = root;
	return 0;
}

int ask_run_json(struct ask *k, json_t **ret, struct error *err)
{
	ask_run(k);
	return ask_json(k, ret, err);
}
