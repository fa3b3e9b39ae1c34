/* http_client.c -- see http_client.h. Each thread drives a curl_multi of its own, which keeps connections,
 * TLS sessions and names that were looked up. */
#include "providers/http_client.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <strings.h>

#include "service/log.h"
#include "service/metrics.h"

#define POLL_MS_MAX 100 /* how late a cancellation may be seen */
#define POLL_AT_ONCE_US 50
#define POLLS_AT_ONCE_MAX 8
#define CONNECT_TIMEOUT_MS 10000L
#define KEPT_CONNECTIONS_MAX 16L
#define HEADER_BYTES_MAX 65536 /* of one answer */
#define SYSTEM_CA_DIR "/etc/ssl/certs"
#define REQUESTS_MAX 2

struct http_client {
	CURLM *multi;
	char *ca_file; /* owned; NULL: the system's alone */
};

/* One request under way. */
struct transfer {
	const struct http_request *request;
	struct http_answer *answer;
	CURL *easy;
	CURLU *url; /* what was checked is what curl is given */
	struct curl_slist *headers;
	curl_mime *form;
	size_t capacity;     /* of answer->body */
	size_t header_bytes; /* of the answer */
	uint64_t started_us, end_us;
	enum http_result result; /* why a callback stopped it; HTTP_DONE: none did */
	bool text_cut;           /* an error's text was longer than wanted */
	bool added, over;
};

/* ---- one client a thread ---- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool ready;

static void client_destroy(void *value)
{
	struct http_client *c = value;
	curl_multi_cleanup(c->multi);
	free(c->ca_file);
	free(c);
}

static void init_once(void)
{
	ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK &&
		pthread_key_create(&key, client_destroy) == 0;
}

static bool same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

struct http_client *http_client_of_thread(const char *ca_file)
{
	pthread_once(&once, init_once);
	if (!ready)
		return NULL;
	struct http_client *c = pthread_getspecific(key);
	if (c != NULL && same_text(c->ca_file, ca_file))
		return c;
	if (c != NULL) { /* connections that the old file vouched for go with it */
		pthread_setspecific(key, NULL);
		client_destroy(c);
	}
	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return NULL;
	c->multi = curl_multi_init();
	c->ca_file = ca_file == NULL ? NULL : strdup(ca_file);
	if (c->multi == NULL || (ca_file != NULL && c->ca_file == NULL) ||
	    pthread_setspecific(key, c) != 0) {
		client_destroy(c);
		return NULL;
	}
	curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, KEPT_CONNECTIONS_MAX);
	return c;
}

/* ---- what comes in ---- */

/* Not realloc(): it would leave a secret behind. */
static bool body_reserve(struct transfer *t, size_t size)
{
	if (size <= t->capacity)
		return true;
	size_t capacity = t->capacity == 0 ? 4096 : t->capacity;
	while (capacity < size)
		capacity *= 2;
	char *body = malloc(capacity);
	if (body == NULL)
		return false;
	if (t->answer->body != NULL) {
		memcpy(body, t->answer->body, t->answer->body_size);
		sodium_memzero(t->answer->body, t->answer->body_size);
		free(t->answer->body);
	}
	t->answer->body = body;
	t->capacity = capacity;
	return true;
}

static unsigned status_of(CURL *easy)
{
	long status = 0;
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	return status > 0 ? (unsigned)status : 0;
}

/* CURLOPT_WRITEFUNCTION: less than size ends the transfer. */
static size_t on_data(char *data, size_t one, size_t size, void *arg)
{
	struct transfer *t = arg;
	struct http_answer *a = t->answer;
	unsigned status = status_of(t->easy);
	(void)one; /* always 1 */
	if (t->request->on_body != NULL && status == 200) {
		if (t->request->on_body(t->request->arg, data, size))
			return size;
		t->result = HTTP_ENOUGH;
		return 0;
	}
	bool too_large = size > t->request->answer_bytes_max - a->body_size;
	bool good = status >= 200 && status < 300;
	if (too_large && good) {
		t->result = HTTP_TOO_LARGE;
		return 0;
	}
	size_t taken = too_large ? t->request->answer_bytes_max - a->body_size : size;
	if (!body_reserve(t, a->body_size + taken + 1)) {
		t->result = HTTP_NO_MEMORY;
		return 0;
	}
	memcpy(a->body + a->body_size, data, taken);
	a->body_size += taken;
	a->body[a->body_size] = '\0';
	if (taken == size)
		return size;
	t->text_cut = true; /* its start is enough */
	return 0;
}

/* Copies the value of a header, or nothing when it does not fit: half of it could mean something else. */
static void copy_header(const char *line, size_t size, const char *name, char *ret, size_t room)
{
	size_t name_size = strlen(name);
	if (size <= name_size || line[name_size] != ':' || strncasecmp(line, name, name_size) != 0)
		return;
	line += name_size + 1;
	size -= name_size + 1;
	while (size > 0 && (*line == ' ' || *line == '\t')) {
		line++;
		size--;
	}
	while (size > 0 && (line[size - 1] == '\r' || line[size - 1] == '\n' ||
			    line[size - 1] == ' ' || line[size - 1] == '\t'))
		size--;
	if (size >= room)
		return;
	memcpy(ret, line, size);
	ret[size] = '\0';
}

/* CURLOPT_HEADERFUNCTION: whole lines, of a 1xx too. */
static size_t on_header(char *line, size_t one, size_t size, void *arg)
{
	struct transfer *t = arg;
	struct http_answer *a = t->answer;
	(void)one;
	t->header_bytes += size;
	if (t->header_bytes > HEADER_BYTES_MAX) {
		t->result = HTTP_TOO_LARGE;
		return 0;
	}
	if (size > 5 && memcmp(line, "HTTP/", 5) == 0)
		a->retry_after[0] = a->retry_after_ms[0] = a->should_retry[0] = '\0';
	copy_header(line, size, "retry-after", a->retry_after, sizeof(a->retry_after));
	copy_header(line, size, "retry-after-ms", a->retry_after_ms, sizeof(a->retry_after_ms));
	copy_header(line, size, "x-should-retry", a->should_retry, sizeof(a->should_retry));
	return size;
}

/* ---- what goes out ---- */

static bool is_loopback(const char *host)
{
	struct in_addr v4;
	return strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
	       (inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127);
}

/* https, or http to this machine; no user or password. */
static bool url_allowed(CURLU *url)
{
	char *scheme = NULL, *host = NULL, *user = NULL, *password = NULL;
	curl_url_get(url, CURLUPART_USER, &user, 0);
	curl_url_get(url, CURLUPART_PASSWORD, &password, 0);
	bool allowed = user == NULL && password == NULL &&
		       curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		       curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
		       (strcmp(scheme, "https") == 0 ||
			(strcmp(scheme, "http") == 0 && is_loopback(host)));
	curl_free(scheme);
	curl_free(host);
	curl_free(user);
	curl_free(password);
	return allowed;
}

static bool add_header(struct transfer *t, const char *line)
{
	struct curl_slist *longer = curl_slist_append(t->headers, line);
	if (longer == NULL)
		return false;
	t->headers = longer;
	return true;
}

static bool add_headers(struct transfer *t)
{
	/* No "Expect: 100-continue", which costs a round trip, and no Content-Type that curl makes up. */
	bool good = add_header(t, "Expect:");
	bool typed = false;
	for (unsigned i = 0; good && i < t->request->headers_count; i++) {
		good = add_header(t, t->request->headers[i]);
		typed |= strncasecmp(t->request->headers[i], "content-type:", 13) == 0;
	}
	if (good && !typed && t->request->upload_path == NULL)
		good = add_header(t, "Content-Type:");
	return good;
}

static bool add_form(struct transfer *t)
{
	t->form = curl_mime_init(t->easy);
	curl_mimepart *path = t->form == NULL ? NULL : curl_mime_addpart(t->form);
	curl_mimepart *file = path == NULL ? NULL : curl_mime_addpart(t->form);
	return file != NULL && curl_mime_name(path, "path") == CURLE_OK &&
	       curl_mime_data(path, t->request->upload_path, CURL_ZERO_TERMINATED) == CURLE_OK &&
	       curl_mime_name(file, "file") == CURLE_OK &&
	       curl_mime_filename(file, "file") == CURLE_OK &&
	       curl_mime_type(file, "application/octet-stream") == CURLE_OK &&
	       curl_mime_data(file, t->request->upload_data, t->request->upload_size) == CURLE_OK &&
	       curl_easy_setopt(t->easy, CURLOPT_MIMEPOST, t->form) == CURLE_OK;
}

static bool add_body(struct transfer *t)
{
	const struct http_request *r = t->request;
	if (r->upload_path != NULL)
		return add_form(t);
	if (strcmp(r->method, "GET") == 0)
		return curl_easy_setopt(t->easy, CURLOPT_HTTPGET, 1L) == CURLE_OK;
	return curl_easy_setopt(t->easy, CURLOPT_POST, 1L) == CURLE_OK &&
	       curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE,
				(curl_off_t)(r->body == NULL ? 0 : r->body_size)) == CURLE_OK &&
	       curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, r->body == NULL ? "" : r->body) ==
		       CURLE_OK &&
	       (strcmp(r->method, "POST") == 0 ||
		curl_easy_setopt(t->easy, CURLOPT_CUSTOMREQUEST, r->method) == CURLE_OK);
}

/* False when an option was refused: then nothing is sent, since it may be one that keeps a secret. */
static bool set_options(struct transfer *t, const struct http_client *c)
{
	CURL *e = t->easy;
	CURLcode bad = CURLE_OK;
#define SET(option, value)                                        \
	do {                                                      \
		if (bad == CURLE_OK)                              \
			bad = curl_easy_setopt(e, option, value); \
	} while (0)
	SET(CURLOPT_CURLU, t->url);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PROXY, ""); /* nor one of the environment */
	SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	/* CURLOPT_CAINFO takes the place of the system's bundle, CURLOPT_CAPATH stands beside it: OpenSSL
	 * asks both. Nor has the whole bundle to be read for each connection, as only the one certificate
	 * that is needed is looked up in the folder. */
	SET(CURLOPT_CAINFO, c->ca_file);
	SET(CURLOPT_CAPATH, SYSTEM_CA_DIR);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	SET(CURLOPT_NOSIGNAL, 1L);
	/* Without it, giving up on a name that is being looked up waits for the resolver's thread. */
	SET(CURLOPT_QUICK_EXIT, 1L);
	SET(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	SET(CURLOPT_TCP_NODELAY, 1L);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_TCP_KEEPIDLE, 30L);
	SET(CURLOPT_TCP_KEEPINTVL, 10L);
	SET(CURLOPT_FRESH_CONNECT, t->request->once ? 1L : 0L);
	SET(CURLOPT_LOW_SPEED_LIMIT, t->request->low_speed_s > 0 ? 1L : 0L);
	SET(CURLOPT_LOW_SPEED_TIME, (long)t->request->low_speed_s);
	SET(CURLOPT_USERAGENT, "ptycast");
	SET(CURLOPT_WRITEFUNCTION, on_data);
	SET(CURLOPT_WRITEDATA, t);
	SET(CURLOPT_HEADERFUNCTION, on_header);
	SET(CURLOPT_HEADERDATA, t);
	SET(CURLOPT_PRIVATE, t);
	SET(CURLOPT_HTTPHEADER, t->headers);
#undef SET
	return bad == CURLE_OK;
}

static void stop(struct transfer *t, enum http_result result, const char *text)
{
	t->over = true;
	t->answer->result = result;
	snprintf(t->answer->text, sizeof(t->answer->text), "%s", text);
}

static void start(struct http_client *c, const struct provider_call *call, struct transfer *t)
{
	t->started_us = provider_now_us();
	t->end_us = t->started_us + (uint64_t)t->request->timeout_ms * 1000;
	if (t->end_us > call->deadline_us)
		t->end_us = call->deadline_us;
	t->url = curl_url();
	t->easy = curl_easy_init();
	if (t->url == NULL || t->easy == NULL) {
		stop(t, HTTP_NO_MEMORY, "no memory");
		return;
	}
	if (curl_url_set(t->url, CURLUPART_URL, t->request->url, 0) != CURLUE_OK ||
	    !url_allowed(t->url)) {
		stop(t, HTTP_UNREACHABLE,
		     "the URL must be https (or http to this machine), without a user");
		t->answer->hopeless = true;
		return;
	}
	if (!add_headers(t) || !set_options(t, c) || !add_body(t) ||
	    curl_multi_add_handle(c->multi, t->easy) != CURLM_OK) {
		stop(t, HTTP_NO_MEMORY, "no memory, or curl refused an option");
		return;
	}
	t->added = true;
	metric_add(METRIC_PROVIDER_CALLS, 1);
}

/* What libcurl's end of a transfer means. */
static void finish(struct transfer *t, CURLcode code)
{
	struct http_answer *a = t->answer;
	long request_bytes = 0;
	curl_easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &request_bytes);
	a->sent = request_bytes > 0;
	a->status = status_of(t->easy);
	if (code == CURLE_OK || t->text_cut) {
		stop(t, HTTP_DONE, "");
	} else if (t->result != HTTP_DONE) {
		stop(t, t->result,
		     t->result == HTTP_TOO_LARGE   ? "the answer is too large"
		     : t->result == HTTP_NO_MEMORY ? "no memory"
						   : "");
	} else if (a->status >= 200) {
		stop(t, HTTP_CUT, "the answer broke off");
	} else if (code == CURLE_OUT_OF_MEMORY) {
		stop(t, HTTP_NO_MEMORY, "no memory");
	} else if (code == CURLE_OPERATION_TIMEDOUT && a->sent) {
		stop(t, HTTP_TIMEOUT, "no answer in time");
	} else {
		/* libcurl's own text would have the host in it, which may be as good as a key. */
		stop(t, HTTP_UNREACHABLE, curl_easy_strerror(code));
		a->hopeless = code == CURLE_PEER_FAILED_VERIFICATION ||
			      code == CURLE_SSL_CACERT_BADFILE;
	}
}

/* Ends what has taken too long; true when something still runs. */
static bool check_time(const struct provider_call *call, struct transfer *all, unsigned count,
		       uint64_t *next_us)
{
	bool cancelled = call->cancelled != NULL && atomic_load(call->cancelled);
	uint64_t now = provider_now_us();
	bool running = false;
	*next_us = UINT64_MAX;
	for (struct transfer *t = all; t < all + count; t++) {
		if (t->over)
			continue;
		if (cancelled || now >= t->end_us) {
			finish(t, CURLE_OPERATION_TIMEDOUT); /* for what was sent */
			stop(t, cancelled ? HTTP_CANCELLED : HTTP_TIMEOUT,
			     cancelled ? "it was cancelled" : "no answer in time");
			continue;
		}
		running = true;
		if (t->end_us - now < *next_us)
			*next_us = t->end_us - now;
	}
	return running;
}

/* Waits for news. While an upload by HTTP/2 waits for the server to take more, libcurl 7.88 wants to write, which
 * poll() grants at once, again and again. */
static CURLMcode poll_transfers(struct http_client *c, unsigned ms, unsigned *polls_in_vain)
{
	uint64_t from_us = provider_now_us();
	CURLMcode bad = curl_multi_poll(c->multi, NULL, 0, (int)ms, NULL);
	if (provider_now_us() - from_us >= POLL_AT_ONCE_US) {
		*polls_in_vain = 0;
	} else if (++*polls_in_vain == POLLS_AT_ONCE_MAX) {
		*polls_in_vain = 0;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return bad;
}

/* Runs the transfers until all are over. */
static void drive(struct http_client *c, const struct provider_call *call, struct transfer *all,
		  unsigned count)
{
	uint64_t next_us;
	unsigned polls_in_vain = 0;
	while (check_time(call, all, count, &next_us)) {
		int running, queued;
		CURLMcode bad = curl_multi_perform(c->multi, &running);
		bool news = false;
		for (CURLMsg *m; (m = curl_multi_info_read(c->multi, &queued)) != NULL;) {
			struct transfer *t = NULL;
			curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t);
			if (m->msg != CURLMSG_DONE || t == NULL)
				continue;
			finish(t, m->data.result);
			news = true;
		}
		if (news)
			continue;
		uint64_t ms = next_us / 1000 + 1;
		if (bad == CURLM_OK)
			bad = poll_transfers(c, ms < POLL_MS_MAX ? (unsigned)ms : POLL_MS_MAX,
					     &polls_in_vain);
		if (bad != CURLM_OK)
			for (struct transfer *t = all; t < all + count; t++)
				if (!t->over)
					stop(t, HTTP_NO_MEMORY, curl_multi_strerror(bad));
	}
}

static void transfer_fini(struct http_client *c, struct transfer *t)
{
	if (t->added)
		curl_multi_remove_handle(c->multi, t->easy);
	curl_easy_cleanup(t->easy);
	curl_mime_free(t->form);
	curl_url_cleanup(t->url);
	for (struct curl_slist *h = t->headers; h != NULL; h = h->next)
		sodium_memzero(h->data, strlen(h->data));
	curl_slist_free_all(t->headers);
}

static void log_transfer(const struct transfer *t)
{
	static const char *const names[] = {
		[HTTP_DONE] = "done",
		[HTTP_ENOUGH] = "enough",
		[HTTP_CUT] = "cut",
		[HTTP_UNREACHABLE] = "unreachable",
		[HTTP_TIMEOUT] = "timeout",
		[HTTP_TOO_LARGE] = "too-large",
		[HTTP_CANCELLED] = "cancelled",
		[HTTP_NO_MEMORY] = "no-memory",
	};
	/* Neither path nor host: both may hold what nobody should read. */
	log_debug("provider request", "call=%s method=%s status=%u result=%s duration_ms=%llu",
		  t->request->what, t->request->method, t->answer->status, names[t->answer->result],
		  (unsigned long long)((provider_now_us() - t->started_us) / 1000));
}

void http_client_perform(struct http_client *c, const struct provider_call *call,
			 const struct http_request *requests, unsigned count,
			 struct http_answer *answers)
{
	struct transfer all[REQUESTS_MAX] = { 0 };
	if (count > REQUESTS_MAX)
		abort(); /* our own mistake */
	for (unsigned i = 0; i < count; i++) {
		answers[i] = (struct http_answer){ 0 };
		all[i].request = &requests[i];
		all[i].answer = &answers[i];
		start(c, call, &all[i]);
	}
	drive(c, call, all, count);
	for (unsigned i = 0; i < count; i++) {
		log_transfer(&all[i]);
		transfer_fini(c, &all[i]);
	}
}

void http_answer_fini(struct http_answer *a)
{
	if (a->body != NULL)
		sodium_memzero(a->body, a->body_size);
	free(a->body);
	*a = (struct http_answer){ 0 };
}
