/* test_http_client.c -- http_client.h against a server on loopback: what is sent, what is refused, how a request
 * ends. */
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "service/metrics.h"
#include "tests/unit/providers/support.h"

static char url_text[2][256];

static const char *url_in(unsigned i, const struct canned_server *s, const char *path)
{
	snprintf(url_text[i], sizeof(url_text[i]), "%s%s", canned_url(s), path);
	return url_text[i];
}

static struct http_request get(const char *url)
{
	return (struct http_request){ .what = "test",
				      .method = "GET",
				      .url = url,
				      .timeout_ms = 10000,
				      .answer_bytes_max = 65536 };
}

static struct http_answer ask_within(const struct http_request *r, const struct provider_call *call)
{
	struct http_answer a;
	http_client_perform(http_client_of_thread(NULL), call, r, 1, &a);
	return a;
}

static struct http_answer ask(const struct http_request *r)
{
	CALL(call, 20000);
	return ask_within(r, &call);
}

static void sends_what_it_is_given_and_no_more(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = "POST /a?b=c",
		  .headers = "Retry-After:  7 \r\nRETRY-AFTER-MS: 120.5\r\n"
			     "x-should-retry: true\r\n",
		  .body = "{\"x\":1}" },
	};
	struct canned_server *s = CANNED_START(steps);
	struct http_request r = get(url_in(0, s, "/a?b=c"));
	r.method = "POST";
	r.headers[0] = "Authorization: Bearer secret";
	r.headers[1] = "Content-Type: application/json";
	r.headers_count = 2;
	r.body = "{\"y\":2} and not this";
	r.body_size = 7;
	int64_t calls = metric_get(METRIC_PROVIDER_CALLS);
	struct http_answer a = ask(&r);
	assert_int_equal(a.result, HTTP_DONE);
	assert_true(a.sent);
	assert_int_equal(a.status, 200);
	assert_string_equal(a.body, "{\"x\":1}");
	assert_int_equal(a.body_size, 7);
	assert_string_equal(a.retry_after, "7");
	assert_string_equal(a.retry_after_ms, "120.5");
	assert_string_equal(a.should_retry, "true");
	http_answer_fini(&a);
	assert_null(a.body);
	assert_int_equal(metric_get(METRIC_PROVIDER_CALLS), calls + 1);

	const struct canned_request *got = canned_request(s, 0);
	ASSERT_STARTS(got->head, "POST /a?b=c HTTP/1.1\r\n");
	assert_header(got, "authorization", "Bearer secret");
	assert_header(got, "content-type", "application/json");
	assert_header(got, "content-length", "7");
	assert_header(got, "user-agent", "ptycast");
	assert_string_equal(got->body, "{\"y\":2}");
	assert_null(canned_header(got, "expect"));
	assert_null(canned_header(got, "cookie"));
	assert_null(canned_header(got, "transfer-encoding"));
	canned_stop(s);
}

static void a_post_without_a_body_says_so(void **state)
{
	(void)state;
	static const struct canned_step steps[] = { { .when = "POST /", .status = 204 } };
	struct canned_server *s = CANNED_START(steps);
	struct http_request r = get(url_in(0, s, "/"));
	r.method = "POST";
	struct http_answer a = ask(&r);
	assert_int_equal(a.result, HTTP_DONE);
	assert_int_equal(a.status, 204);
	assert_null(a.body);
	assert_header(canned_request(s, 0), "content-length", "0");
	assert_null(canned_header(canned_request(s, 0), "content-type"));
	http_answer_fini(&a);
	canned_stop(s);
}

static void forgets_the_headers_of_an_interim_answer(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = "GET /",
		  .raw = "HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\n"
			 "HTTP/1.1 429 Slow\r\nx-should-retry: a text that is too long\r\n"
			 "Content-Length: 2\r\n\r\nno" },
	};
	struct canned_server *s = CANNED_START(steps);
	struct http_request r = get(url_in(0, s, "/"));
	struct http_answer a = ask(&r);
	assert_int_equal(a.result, HTTP_DONE);
	assert_int_equal(a.status, 429);
	assert_string_equal(a.retry_after, "");
	assert_string_equal(a.should_retry, "");
	assert_string_equal(a.body, "no");
	http_answer_fini(&a);
	canned_stop(s);
}

static void sends_a_file_behind_its_path_with_its_length(void **state)
{
	(void)state;
	static const struct canned_step steps[] = { { .when = "POST /" } };
	struct canned_server *s = CANNED_START(steps);
	struct http_request r = get(url_in(0, s, "/"));
	static const char data[] = "\x7f"
				   "ELF\0\r\n--binary";
	r.method = "POST";
	r.upload_path = "bin/x";
	r.upload_data = data;
	r.upload_size = sizeof(data) - 1;
	struct http_answer a = ask(&r);
	assert_int_equal(a.result, HTTP_DONE);
	assert_int_equal(a.status, 200);
	http_answer_fini(&a);

	const struct canned_request *got = canned_request(s, 0);
	char length[32], type[128];
	snprintf(type, sizeof(type), "%s", canned_header(got, "content-type"));
	ASSERT_STARTS(type, "multipart/form-data; boundary=");
	snprintf(length, sizeof(length), "%zu", got->body_size);
	assert_header(got, "content-length", length);
	assert_null(canned_header(got, "transfer-encoding"));
	assert_null(canned_header(got, "expect"));
	const char *path = strstr(got->body, "Content-Disposition: form-data; name=\"path\"\r\n\r\n"
					     "bin/x\r\n--");
	assert_non_null(path);
	const char *file = strstr(path,
				  "Content-Disposition: form-data; name=\"file\"; filename=\"");
	assert_non_null(file);
	assert_non_null(strstr(file, "Content-Type: application/octet-stream\r\n"));
	const char *bytes = strstr(file, "\r\n\r\n");
	assert_non_null(bytes);
	assert_memory_equal(bytes + 4, data, sizeof(data) - 1);
	canned_stop(s);
}

static void two_requests_are_under_way_at_once_and_connections_are_kept(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = "GET /one", .body = "1", .barrier = 2 },
		{ .when = "GET /two", .body = "2", .barrier = 2 },
		{ .when = "GET /one", .body = "1", .barrier = 4 },
		{ .when = "GET /two", .body = "2", .barrier = 4 },
	};
	struct canned_server *s = CANNED_START(steps);
	CALL(call, 20000);
	for (unsigned round = 0; round < 2; round++) {
		struct http_answer a[2];
		struct http_request r[] = { get(url_in(0, s, "/one")), get(url_in(1, s, "/two")) };
		http_client_perform(http_client_of_thread(NULL), &call, r, 2, a);
		assert_int_equal(a[0].result, HTTP_DONE);
		assert_int_equal(a[1].result, HTTP_DONE);
		assert_string_equal(a[0].body, "1");
		assert_string_equal(a[1].body, "2");
		http_answer_fini(&a[0]);
		http_answer_fini(&a[1]);
	}
	assert_int_equal(canned_connections(s), 2);
	canned_stop(s);
}

static void one_slow_request_does_not_spoil_the_other(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = "GET /slow", .hang = true },
		{ .when = "GET /fast", .body = "here" },
	};
	struct canned_server *s = CANNED_START(steps);
	CALL(call, 20000);
	struct http_answer a[2];
	struct http_request r[] = { get(url_in(0, s, "/slow")), get(url_in(1, s, "/fast")) };
	r[0].timeout_ms = 300;
	http_client_perform(http_client_of_thread(NULL), &call, r, 2, a);
	assert_int_equal(a[0].result, HTTP_TIMEOUT);
	assert_true(a[0].sent);
	assert_string_equal(a[0].text, "no answer in time");
	assert_int_equal(a[1].result, HTTP_DONE);
	assert_string_equal(a[1].body, "here");
	http_answer_fini(&a[0]);
	http_answer_fini(&a[1]);
	canned_stop(s);
}

static void what_must_not_be_sent_twice_gets_a_new_connection(void **state)
{
	(void)state;
	static const struct canned_step steps[] = { { .when = "GET /", .for_ever = true } };
	struct canned_server *s = CANNED_START(steps);
	struct http_request r = get(url_in(0, s, "/"));
	for (unsigned i = 0; i < 4; i++) {
		r.once = i == 2;
		struct http_answer a = ask(&r);
		assert_int_equal(a.result, HTTP_DONE);
		http_answer_fini(&a);
	}
	assert_int_equal(canned_request(s, 1)->connection, 0);
	assert_int_equal(canned_request(s, 2)->connection, 1);
	assert_int_equal(canned_connections(s), 2); /* and it is kept too */
	canned_stop(s);
}

static void does_not_follow_a_redirect(void **state)
{
	(void)state;
	static const struct canned_step target_steps[] = { { .when = "GET /" } };
	struct canned_server *target = CANNED_START(target_steps);
	char headers[128];
	snprintf(headers, sizeof(headers), "Location: %s/elsewhere\r\n", canned_url(target));
	const struct canned_step steps[] = {
		{ .when = "GET /", .status = 302, .headers = headers, .body = "go there" }
	};
	struct canned_server *s = CANNED_START(steps);
	struct http_request r = get(url_in(0, s, "/"));
	struct http_answer a = ask(&r);
	assert_int_equal(a.result, HTTP_DONE);
	assert_int_equal(a.status, 302);
	assert_int_equal(canned_count(target), 0);
	http_answer_fini(&a);
	canned_stop(s);
	canned_stop(target);
}

static void takes_no_proxy_from_the_environment(void **state)
{
	(void)state;
	static const struct canned_step steps[] = { { .when = "GET /" } };
	struct canned_server *s = CANNED_START(steps), *proxy = CANNED_START(steps);
	setenv("http_proxy", canned_url(proxy), 1);
	setenv("all_proxy", canned_url(proxy), 1);
	struct http_request r = get(url_in(0, s, "/"));
	struct http_answer a = ask(&r);
	unsetenv("http_proxy");
	unsetenv("all_proxy");
	assert_int_equal(a.result, HTTP_DONE);
	assert_int_equal(canned_count(s), 1);
	assert_int_equal(canned_count(proxy), 0);
	http_answer_fini(&a);
	canned_stop(s);
	canned_stop(proxy);
}

static void speaks_plain_http_to_this_machine_only(void **state)
{
	(void)state;
	static const char *const refused[] = {
		"http://example.com/",
		"http://10.0.0.1/",
		"http://0.0.0.0/",
		"http://128.0.0.1/",
		"http://localhost.evil/",
		"http://127.0.0.1.evil/",
		"http://[::2]/",
		"http://[::ffff:127.0.0.1]/",
		"HTTP://EXAMPLE.COM/",
		"ftp://127.0.0.1/",
		"file:///etc/passwd",
		"127.0.0.1:1/",
		"",
		"https://",
		"http://127.0.0.1@example.com/",
		"https://user@example.com/",
		"https://user:password@127.0.0.1/",
		"http://127.0.0.1\r\nX: y",
	};
	for (size_t i = 0; i < COUNT_OF(refused); i++) {
		struct http_request r = get(refused[i]);
		int64_t calls = metric_get(METRIC_PROVIDER_CALLS);
		struct http_answer a = ask(&r);
		if (a.result != HTTP_UNREACHABLE || !a.hopeless || a.sent)
			fail_msg("%s was not refused", refused[i]);
		assert_int_equal(metric_get(METRIC_PROVIDER_CALLS), calls);
		http_answer_fini(&a);
	}
	static const char *const forms[] = { "http://127.0.0.1:%s/", "http://localhost:%s/",
					     "http://127.1:%s/" };
	static const struct canned_step steps[] = { { .when = "GET /", .for_ever = true } };
	struct canned_server *s = CANNED_START(steps);
	const char *port = strrchr(canned_url(s), ':') + 1;
	for (size_t i = 0; i < COUNT_OF(forms); i++) {
		char url[128];
		snprintf(url, sizeof(url), forms[i], port);
		struct http_request r = get(url);
		struct http_answer a = ask(&r);
		assert_int_equal(a.result, HTTP_DONE);
		http_answer_fini(&a);
	}
	canned_stop(s);
}

/* A port of ours that nobody listens on, as long as the descriptor is open. */
static int closed_port(char url[64])
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	snprintf(url, 64, "http://127.0.0.1:%u/", ntohs(address.sin_port));
	return fd;
}

static void knows_when_nothing_was_sent(void **state)
{
	(void)state;
	char url[64];
	int fd = closed_port(url);
	struct http_request r = get(url);
	struct http_answer a = ask(&r);
	assert_int_equal(a.result, HTTP_UNREACHABLE);
	assert_false(a.sent);
	assert_false(a.hopeless);
	assert_int_equal(a.status, 0);
	assert_true(strlen(a.text) > 0);
	http_answer_fini(&a);

	memcpy(url, "https", 5); /* a TLS handshake with somebody who speaks plain HTTP */
	static const struct canned_step steps[] = { { .when = "GET /" } };
	struct canned_server *s = CANNED_START(steps);
	snprintf(url, sizeof(url), "https%s/", canned_url(s) + 4);
	r = get(url);
	CALL(call, 300);
	a = ask_within(&r, &call);
	assert_true(a.result == HTTP_UNREACHABLE || a.result == HTTP_TIMEOUT);
	assert_false(a.sent);
	assert_int_equal(canned_count(s), 0);
	http_answer_fini(&a);
	canned_stop(s);
	close(fd);
}

static void knows_when_something_was_sent(void **state)
{
	(void)state;
	static const struct {
		struct canned_step step;
		enum http_result result;
		unsigned status;
	} cases[] = {
		{ { .when = "GET /", .raw = "" }, HTTP_UNREACHABLE, 0 },
		{ { .when = "GET /", .raw = "HTTP/1.1 20" }, HTTP_UNREACHABLE, 0 },
		{ { .when = "GET /", .raw = "SSH-2.0-x\r\n" }, HTTP_UNREACHABLE, 0 },
		{ { .when = "GET /", .body = "{", .missing = 1 }, HTTP_CUT, 200 },
		{ { .when = "GET /", .status = 500, .body = "{", .missing = 1 }, HTTP_CUT, 500 },
		{ { .when = "GET /",
		    .raw = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab" },
		  HTTP_CUT,
		  200 },
		{ { .when = "GET /",
		    .raw = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" },
		  HTTP_CUT,
		  200 },
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct canned_server *s = canned_start(&cases[i].step, 1);
		struct http_request r = get(url_in(0, s, "/"));
		struct http_answer a = ask(&r);
		if (a.result != cases[i].result || !a.sent || a.status != cases[i].status)
			fail_msg("case %zu: result %d, sent %d, status %u, %s", i, a.result, a.sent,
				 a.status, a.text);
		http_answer_fini(&a);
		canned_stop(s);
	}
}

static void refuses_an_answer_that_is_too_large(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = "GET /exact", .filler = 65536 },
		{ .when = "GET /more", .filler = 65537 },
		{ .when = "GET /error", .status = 500, .body = "oops", .filler = 1000000 },
	};
	struct canned_server *s = CANNED_START(steps);
	struct http_request r = get(url_in(0, s, "/exact"));
	struct http_answer a = ask(&r);
	assert_int_equal(a.result, HTTP_DONE);
	assert_int_equal(a.body_size, 65536);
	assert_int_equal(a.body[65536], '\0');
	http_answer_fini(&a);
	r = get(url_in(0, s, "/more"));
	a = ask(&r);
	assert_int_equal(a.result, HTTP_TOO_LARGE);
	assert_int_equal(a.status, 200);
	http_answer_fini(&a);
	r = get(url_in(0, s, "/error")); /* its start is enough */
	a = ask(&r);
	assert_int_equal(a.result, HTTP_DONE);
	assert_int_equal(a.status, 500);
	assert_int_equal(a.body_size, 65536);
	ASSERT_STARTS(a.body, "oopsxxx");
	http_answer_fini(&a);
	canned_stop(s);
}

static void refuses_endless_headers(void **state)
{
	(void)state;
	static char raw[200000];
	size_t size = (size_t)sprintf(raw, "HTTP/1.1 200 OK\r\n");
	while (size < sizeof(raw) - 1000)
		size += (size_t)sprintf(raw + size, "X-Filler: %0900d\r\n", 0);
	sprintf(raw + size, "Content-Length: 0\r\n\r\n");
	const struct canned_step steps[] = { { .when = "GET /", .raw = raw } };
	struct canned_server *s = CANNED_START(steps);
	struct http_request r = get(url_in(0, s, "/"));
	struct http_answer a = ask(&r);
	assert_int_equal(a.result, HTTP_TOO_LARGE);
	http_answer_fini(&a);
	canned_stop(s);
}

struct taken {
	char text[64];
	size_t size, enough;
};

static bool take(void *arg, const char *data, size_t size)
{
	struct taken *t = arg;
	assert_true(t->size + size < sizeof(t->text));
	memcpy(t->text + t->size, data, size);
	t->size += size;
	return t->size < t->enough;
}

static void hands_the_body_over_until_it_is_enough(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = "GET /all", .body = "all of it" },
		{ .when = "GET /some", .body = "some of it", .missing = 1000 },
		{ .when = "GET /error", .status = 404, .body = "none of it" },
	};
	struct canned_server *s = CANNED_START(steps);
	struct taken t = { .enough = 60 };
	struct http_request r = get(url_in(0, s, "/all"));
	r.on_body = take;
	r.arg = &t;
	r.answer_bytes_max = 20;
	struct http_answer a = ask(&r);
	assert_int_equal(a.result, HTTP_DONE);
	assert_string_equal(t.text, "all of it");
	assert_null(a.body);
	http_answer_fini(&a);
	t = (struct taken){ .enough = 1 };
	r.url = url_in(0, s, "/some");
	a = ask(&r);
	assert_int_equal(a.result, HTTP_ENOUGH);
	assert_string_equal(t.text, "some of it");
	http_answer_fini(&a);
	t = (struct taken){ .enough = 1 };
	r.url = url_in(0, s, "/error"); /* an error is no stream */
	a = ask(&r);
	assert_int_equal(a.result, HTTP_DONE);
	assert_int_equal(t.size, 0);
	assert_string_equal(a.body, "none of it");
	http_answer_fini(&a);
	canned_stop(s);
}

static void gives_a_quiet_stream_up(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = "GET /", .hang = true },
	};
	struct canned_server *s = CANNED_START(steps);
	struct http_request r = get(url_in(0, s, "/"));
	r.low_speed_s = 1;
	struct http_answer a = ask(&r);
	assert_int_equal(a.result, HTTP_TIMEOUT);
	http_answer_fini(&a);
	canned_stop(s);
}

static void ends_at_the_deadline_of_the_call(void **state)
{
	(void)state;
	static const struct canned_step steps[] = { { .when = "GET /", .hang = true } };
	struct canned_server *s = CANNED_START(steps);
	struct http_request r = get(url_in(0, s, "/"));
	uint64_t started_us = provider_now_us();
	CALL(call, 300);
	struct http_answer a = ask_within(&r, &call);
	assert_int_equal(a.result, HTTP_TIMEOUT);
	assert_true(provider_now_us() >= call.deadline_us);
	assert_true(provider_now_us() - started_us < 2 * SECOND_US);
	http_answer_fini(&a);
	a = ask_within(&r, &call); /* it is over already */
	assert_int_equal(a.result, HTTP_TIMEOUT);
	assert_false(a.sent);
	http_answer_fini(&a);
	canned_stop(s);
}

struct background {
	const struct http_request *request;
	const struct provider_call *call;
	struct http_answer answer;
	uint64_t ended_us;
};

static void *ask_in_background(void *arg)
{
	struct background *b = arg;
	b->answer = ask_within(b->request, b->call);
	b->ended_us = provider_now_us();
	return NULL;
}

static void ends_soon_after_it_was_cancelled(void **state)
{
	(void)state;
	static const struct canned_step steps[] = { { .when = "GET /", .hang = true } };
	struct canned_server *s = CANNED_START(steps);
	struct http_request r = get(url_in(0, s, "/"));
	CALL(call, 20000);
	struct background b = { .request = &r, .call = &call };
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, ask_in_background, &b), 0);
	canned_await(s, 1);
	uint64_t cancelled_us = provider_now_us();
	atomic_store(&call_cancelled, true);
	pthread_join(thread, NULL); /* and its client goes with it */
	assert_int_equal(b.answer.result, HTTP_CANCELLED);
	assert_true(b.answer.sent);
	assert_true(b.ended_us - cancelled_us < SECOND_US);
	http_answer_fini(&b.answer);
	canned_stop(s);
}

static void each_thread_has_a_client_of_its_own(void **state)
{
	(void)state;
	static const struct canned_step steps[] = { { .when = "GET /", .for_ever = true } };
	struct canned_server *s = CANNED_START(steps);
	struct http_request r = get(url_in(0, s, "/"));
	CALL(call, 20000);
	struct background b[4];
	pthread_t threads[4];
	for (unsigned i = 0; i < 4; i++) {
		b[i] = (struct background){ .request = &r, .call = &call };
		assert_int_equal(pthread_create(&threads[i], NULL, ask_in_background, &b[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(b[i].answer.result, HTTP_DONE);
		http_answer_fini(&b[i].answer);
	}
	assert_int_equal(canned_connections(s), 4);
	struct http_client *mine = http_client_of_thread(NULL);
	assert_ptr_equal(http_client_of_thread(NULL), mine);
	assert_non_null(http_client_of_thread("/nowhere.pem")); /* other CAs, other connections */
	assert_non_null(http_client_of_thread(NULL));
	canned_stop(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sends_what_it_is_given_and_no_more),
		cmocka_unit_test(a_post_without_a_body_says_so),
		cmocka_unit_test(forgets_the_headers_of_an_interim_answer),
		cmocka_unit_test(sends_a_file_behind_its_path_with_its_length),
		cmocka_unit_test(two_requests_are_under_way_at_once_and_connections_are_kept),
		cmocka_unit_test(one_slow_request_does_not_spoil_the_other),
		cmocka_unit_test(what_must_not_be_sent_twice_gets_a_new_connection),
		cmocka_unit_test(does_not_follow_a_redirect),
		cmocka_unit_test(takes_no_proxy_from_the_environment),
		cmocka_unit_test(speaks_plain_http_to_this_machine_only),
		cmocka_unit_test(knows_when_nothing_was_sent),
		cmocka_unit_test(knows_when_something_was_sent),
		cmocka_unit_test(refuses_an_answer_that_is_too_large),
		cmocka_unit_test(refuses_endless_headers),
		cmocka_unit_test(hands_the_body_over_until_it_is_enough),
		cmocka_unit_test(gives_a_quiet_stream_up),
		cmocka_unit_test(ends_at_the_deadline_of_the_call),
		cmocka_unit_test(ends_soon_after_it_was_cancelled),
		cmocka_unit_test(each_thread_has_a_client_of_its_own),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
