/* test_runloop_api.c -- the calls about a devbox against canned answers: requests, retries, polls, errors. */
#include <jansson.h>

#include "tests/unit/providers/support.h"

#define BOX "GET /v1/devboxes/d1 "
#define AWAIT "POST /v1/devboxes/d1/wait_for_status "
#define EXECUTE "POST /v1/devboxes/d1/execute?last_n=100 "
#define AWAIT_COMMAND "POST /v1/devboxes/d1/executions/e1/wait_for_status?last_n=100 "
#define RUNNING "{\"id\":\"d1\",\"status\":\"running\",\"new_field\":[{}]}"
#define SOON "retry-after-ms: 10\r\n"
#define RETRY_ANYWAY "x-should-retry: true\r\n"
#define DONE                                                                                        \
	"{\"devbox_id\":\"d1\",\"execution_id\":\"e1\",\"status\":\"completed\",\"exit_status\":3," \
	"\"stdout\":\"out\\u0000\\n\",\"stderr\":null}"
#define NOT_DONE "{\"execution_id\":\"e1\",\"status\":\"running\",\"exit_status\":null}"

/* ---- devboxes ---- */

static void reads_a_devbox(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = BOX,
		  .body = "{\"id\":\"d1\",\"status\":\"suspended\","
			  "\"launch_parameters\":{\"architecture\":\"arm64\"},"
			  "\"state_transitions\":[{\"status\":\"running\",\"transition_time_ms\":7},"
			  "{\"status\":\"running\",\"transition_time_ms\":1790000009000.0},"
			  "{\"status\":\"running\",\"transition_time_ms\":\"9\"},{},7,"
			  "{\"status\":\"suspended\",\"transition_time_ms\":1790000010000}],"
			  "\"failure_reason\":null,\"shutdown_reason\":\"idle\\n\","
			  "\"tunnel\":{\"tunnel_key\":\"k3Yab-12\",\"auth_mode\":\"authenticated\","
			  "\"auth_token\":\"t0k~\"}}" },
	};
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct runloop_devbox box;
	struct error err;
	assert_int_equal(runloop_retrieve(&a, "d1", &box, &err), 0);
	assert_int_equal(box.status, RUNLOOP_SUSPENDED);
	assert_string_equal(box.status_text, "suspended");
	assert_true(box.arm64);
	assert_int_equal(box.boot_ms, 1790000009000);
	assert_string_equal(box.reason, "idle");
	assert_true(box.has_tunnel);
	assert_string_equal(box.tunnel_key, "k3Yab-12");
	assert_string_equal(box.tunnel_token, "t0k~");
	const struct canned_request *r = canned_request(s, 0);
	assert_header(r, "authorization", "Bearer " API_KEY);
	assert_header(r, "accept", "application/json");
	assert_null(canned_header(r, "x-request-id"));
	assert_null(canned_header(r, "content-type"));
	canned_stop(s);
}

static void knows_the_states_and_takes_new_ones_for_booting(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		enum runloop_status status;
	} cases[] = {
		{ "scheduled", RUNLOOP_BOOTING },    { "queued", RUNLOOP_BOOTING },
		{ "provisioning", RUNLOOP_BOOTING }, { "initializing", RUNLOOP_BOOTING },
		{ "resuming", RUNLOOP_BOOTING },     { "dreaming\\u0007", RUNLOOP_BOOTING },
		{ "running", RUNLOOP_RUNNING },      { "suspending", RUNLOOP_SUSPENDING },
		{ "suspended", RUNLOOP_SUSPENDED },  { "failure", RUNLOOP_FAILURE },
		{ "shutdown", RUNLOOP_SHUTDOWN },    { "", RUNLOOP_BOOTING },
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		char body[256];
		snprintf(body, sizeof(body), "{\"status\":\"%s\",\"tunnel\":null}", cases[i].text);
		const struct canned_step step = { .when = BOX, .body = body };
		struct canned_server *s = canned_start(&step, 1);
		API(a, s);
		struct runloop_devbox box;
		assert_int_equal(runloop_retrieve(&a, "d1", &box, NULL), 0);
		assert_int_equal(box.status, cases[i].status);
		assert_false(box.has_tunnel);
		assert_string_equal(box.tunnel_token, "");
		canned_stop(s);
	}
}

#define SIXTY "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff"
static void refuses_a_devbox_that_it_does_not_understand(void **state)
{
	(void)state;
	static const char *const bodies[] = {
		"",
		"[]",
		"null",
		"{",
		"{}",
		"{\"status\":1}",
		"{\"status\":\"running\"} x",
		"{\"status\":\"running\",\"tunnel\":{}}",
		"{\"status\":\"running\",\"tunnel\":\"k\"}",
		"{\"status\":\"running\",\"tunnel\":{\"tunnel_key\":\"\"}}",
		"{\"status\":\"running\",\"tunnel\":{\"tunnel_key\":\"-a\"}}",
		"{\"status\":\"running\",\"tunnel\":{\"tunnel_key\":\"a-\"}}",
		"{\"status\":\"running\",\"tunnel\":{\"tunnel_key\":\"a.b\"}}",
		"{\"status\":\"running\",\"tunnel\":{\"tunnel_key\":\"a/b\"}}",
		"{\"status\":\"running\",\"tunnel\":{\"tunnel_key\":\"a\\u0000\"}}",
		"{\"status\":\"running\",\"tunnel\":{\"tunnel_key\":\"a\",\"auth_token\":1}}",
		"{\"status\":\"running\",\"tunnel\":{\"tunnel_key\":\"a\",\"auth_token\":\"\"}}",
		"{\"status\":\"running\",\"tunnel\":{\"tunnel_key\":\"a\",\"auth_token\":\"a b\"}}",
		"{\"status\":\"running\",\"tunnel\":{\"tunnel_key\":\"a\",\"auth_token\":\"a\\r\\n\"}}",
		"{\"status\":\"running\",\"tunnel\":{\"tunnel_key\":\"" SIXTY "gggg\"}}",
	};
	for (size_t i = 0; i < COUNT_OF(bodies); i++) {
		const struct canned_step step = { .when = BOX, .body = bodies[i] };
		struct canned_server *s = canned_start(&step, 1);
		API(a, s);
		struct runloop_devbox box = { .boot_ms = 7 };
		struct error err;
		if (runloop_retrieve(&a, "d1", &box, &err) != -EBADMSG)
			fail_msg("understood %s", bodies[i]);
		assert_string_equal(err.slug, "provider-error");
		assert_int_equal(box.boot_ms, 7); /* untouched */
		canned_stop(s);
	}
}

static void an_answer_beyond_all_limits_is_not_understood(void **state)
{
	(void)state;
	static const struct canned_step steps[] = { { .when = BOX, .filler = 2u << 20 } };
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct runloop_devbox box;
	struct error err;
	assert_int_equal(runloop_retrieve(&a, "d1", &box, &err), -EBADMSG);
	assert_error(&err, -EBADMSG, "provider-error",
		     "runloop: retrieve: the answer is too large");
	canned_stop(s);
}

static void an_id_cannot_change_the_path(void **state)
{
	(void)state;
	static const char *const ids[] = { "",     ".",   "..",    "a/b",     "a?b",
					   "a%2f", "a b", "a\r\n", "\xc3\xbc" };
	struct canned_server *s = canned_start(NULL, 0);
	API(a, s);
	struct runloop_devbox box;
	struct runloop_execution e;
	struct error err;
	for (size_t i = 0; i < COUNT_OF(ids); i++) {
		assert_false(runloop_id_valid(ids[i]));
		assert_int_equal(runloop_retrieve(&a, ids[i], &box, &err), -ENOENT);
		assert_string_equal(err.slug, "sandbox-unknown");
		assert_int_equal(runloop_execute(&a, ids[i], "ls", &e, &err), -ENOENT);
		assert_int_equal(runloop_kill(&a, "d1", ids[i], &err), -ENOENT);
	}
	assert_true(runloop_id_valid("dbx_2abc-X.9"));
	char longest[RUNLOOP_ID_BYTES + 1];
	memset(longest, 'a', sizeof(longest));
	longest[RUNLOOP_ID_BYTES - 1] = '\0';
	assert_true(runloop_id_valid(longest));
	longest[RUNLOOP_ID_BYTES - 1] = 'a';
	longest[RUNLOOP_ID_BYTES] = '\0';
	assert_false(runloop_id_valid(longest));
	assert_int_equal(canned_count(s), 0);
	canned_stop(s);
}

static void a_key_that_would_be_a_header_is_refused(void **state)
{
	(void)state;
	static const char *const keys[] = { "", "a b", "a\r\nX: y", "\xc3\xbc" };
	struct canned_server *s = canned_start(NULL, 0);
	API(a, s);
	for (size_t i = 0; i < COUNT_OF(keys); i++) {
		struct runloop_devbox box;
		struct error err;
		a.api_key = keys[i];
		assert_int_equal(runloop_retrieve(&a, "d1", &box, &err), -EACCES);
		assert_string_equal(err.slug, "credential-refused");
	}
	assert_int_equal(canned_count(s), 0);
	canned_stop(s);
}

/* ---- retries ---- */

static void tries_again_with_the_same_request_id(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = "POST /v1/devboxes/d1/resume ",
		  .status = 429,
		  .headers = "retry-after-ms: 120\r\n" },
		{ .when = "POST ", .status = 409, .headers = "Retry-After: 0.2\r\n" },
		{ .when = "POST ", .status = 500, .headers = SOON },
		{ .when = "POST ", .status = 418, .headers = RETRY_ANYWAY SOON },
		{ .when = "POST ", .status = 204 },
		{ .when = "POST ", .body = RUNNING },
	};
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct error err;
	assert_int_equal(runloop_resume(&a, "d1", &err), 0);
	assert_int_equal(canned_count(s), 5);
	assert_int_equal(runloop_resume(&a, "d1", &err), 0);
	assert_int_equal(canned_count(s), 6);
	char id[64];
	snprintf(id, sizeof(id), "%s", canned_header(canned_request(s, 0), "x-request-id"));
	assert_int_equal(strlen(id), 36);
	assert_int_equal(id[14], '4'); /* a UUID of version 4 */
	for (size_t i = 0; i < 5; i++) {
		assert_header(canned_request(s, i), "x-request-id", id);
		assert_header(canned_request(s, i), "content-length", "0");
		assert_header(canned_request(s, i), "content-type", "application/json");
	}
	assert_string_not_equal(canned_header(canned_request(s, 5), "x-request-id"), id);
	assert_true(canned_request(s, 1)->at_us - canned_request(s, 0)->at_us >= 120000);
	assert_true(canned_request(s, 2)->at_us - canned_request(s, 1)->at_us >= 200000);
	canned_stop(s);
}

static void gives_up_after_five_retries(void **state)
{
	(void)state;
	static const struct canned_step steps[] = { { .when = BOX,
						      .status = 429,
						      .headers = SOON,
						      .body = "slow down",
						      .for_ever = true } };
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct runloop_devbox box;
	struct error err;
	assert_int_equal(runloop_retrieve(&a, "d1", &box, &err), -EBUSY);
	assert_error(&err, -EBUSY, "provider-rate-limit",
		     "runloop: retrieve failed: 429: slow down");
	assert_int_equal(canned_count(s), 6);
	canned_stop(s);
}

static void obeys_a_server_that_wants_no_retry(void **state)
{
	(void)state;
	static const struct canned_step steps[] = { { .when = BOX,
						      .status = 503,
						      .headers = "x-should-retry: false\r\n",
						      .for_ever = true } };
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct runloop_devbox box;
	struct error err;
	assert_int_equal(runloop_retrieve(&a, "d1", &box, &err), -EIO);
	assert_error(&err, -EIO, "provider-error",
		     "runloop: retrieve failed: 503: status code (no body)");
	assert_int_equal(canned_count(s), 1);
	canned_stop(s);
}

static void asks_again_when_an_answer_broke_off(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = BOX, .body = "{\"status\":", .missing = 10 },
		{ .when = BOX, .body = RUNNING },
	};
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct runloop_devbox box;
	assert_int_equal(runloop_retrieve(&a, "d1", &box, NULL), 0);
	assert_int_equal(box.status, RUNLOOP_RUNNING);
	assert_true(canned_request(s, 1)->at_us - canned_request(s, 0)->at_us >= 750000);
	canned_stop(s);
}

static void says_what_is_known_rather_than_wait_beyond_the_deadline(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = BOX, .status = 429, .headers = "Retry-After: 60\r\n", .for_ever = true }
	};
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	CALL(short_call, 5000);
	a.call = &short_call;
	struct runloop_devbox box;
	struct error err;
	uint64_t started_us = provider_now_us();
	assert_int_equal(runloop_retrieve(&a, "d1", &box, &err), -EBUSY);
	assert_true(provider_now_us() - started_us < 3 * SECOND_US);
	assert_int_equal(canned_count(s), 1);
	canned_stop(s);
}

static void says_when_nobody_answers(void **state)
{
	(void)state;
	struct canned_server *s = canned_start(NULL, 0);
	char url[128];
	snprintf(url, sizeof(url), "%s", canned_url(s));
	canned_stop(s); /* its port is free now */
	CALL(call, 500);
	struct runloop_api a = { .http = http_client_of_thread(NULL),
				 .call = &call,
				 .base_url = url,
				 .api_key = API_KEY };
	struct runloop_devbox box;
	struct error err;
	assert_int_equal(runloop_retrieve(&a, "d1", &box, &err), -EHOSTUNREACH);
	assert_string_equal(err.slug, "provider-unreachable");
	ASSERT_STARTS(err.text, "runloop: retrieve failed: ");
	a.base_url = "http://example.com";
	assert_int_equal(runloop_retrieve(&a, "d1", &box, &err), -EHOSTUNREACH);
	assert_string_equal(err.slug, "provider-unreachable");
}

/* ---- errors ---- */

static void maps_each_status_to_a_code_and_a_slug(void **state)
{
	(void)state;
	static const struct {
		unsigned status;
		int code;
		const char *slug;
	} cases[] = {
		{ 400, -EIO, "provider-error" },        { 401, -EACCES, "credential-refused" },
		{ 403, -EACCES, "credential-refused" }, { 404, -ENOENT, "sandbox-unknown" },
		{ 422, -EIO, "provider-error" },        { 302, -EIO, "provider-error" },
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		const struct canned_step step = { .when = BOX,
						  .status = cases[i].status,
						  .body = "{\"message\":\"no\"}" };
		struct canned_server *s = canned_start(&step, 1);
		API(a, s);
		struct runloop_devbox box;
		struct error err;
		char text[64];
		snprintf(text, sizeof(text), "runloop: retrieve failed: %u: no", cases[i].status);
		assert_int_equal(runloop_retrieve(&a, "d1", &box, &err), cases[i].code);
		assert_error(&err, cases[i].code, cases[i].slug, text);
		canned_stop(s);
	}
}

#define TEN "0123456789"
static void shows_each_kind_of_error_body_and_no_secret(void **state)
{
	(void)state;
	static const struct {
		const char *body, *message;
	} cases[] = {
		{ "{\"message\":\"devbox not found\",\"code\":7}", "devbox not found" },
		{ "{\"message\":{\"a\": [1]}}", "{\"a\":[1]}" },
		{ "{\"message\":null}", "null" },
		{ "{\"error\": \"x\"}", "{\"error\":\"x\"}" },
		{ "[1, 2]", "[1,2]" },
		{ "\"text\"", "\"text\"" },
		{ "<html>\r\n\t<b>Bad</b>\x1b[31m</html>\n", "<html> <b>Bad</b> [31m</html>" },
		{ "", "status code (no body)" },
		{ " \n", "status code (no body)" },
		{ "\xff\xc2\x85g\xc3\xbc", "\xef\xbf\xbd g\xc3\xbc" },
		{ "{\"message\":\"a\\u0000b\\u0085c\"}", "a b c" },
		{ "{\"message\":\"key " API_KEY "!\"}", "key [hidden]!" },
		{ "Bearer " API_KEY " is wrong, " API_KEY, "Bearer [hidden] is wrong, [hidden]" },
		{ "{\"seen\":\"" API_KEY "\"}", "{\"seen\":\"[hidden]\"}" },
		{ TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN "x",
		  TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN },
		{ TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN "012345678\xc3\xbc",
		  TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN "012345678" },
		/* a secret that the limit would cut */
		{ TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN "012" API_KEY,
		  TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN "012" },
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		const struct canned_step step = { .when = BOX,
						  .status = 400,
						  .body = cases[i].body };
		struct canned_server *s = canned_start(&step, 1);
		API(a, s);
		struct runloop_devbox box;
		struct error err;
		assert_int_equal(runloop_retrieve(&a, "d1", &box, &err), -EIO);
		ASSERT_STARTS(err.text, "runloop: retrieve failed: 400: ");
		assert_string_equal(err.text + strlen("runloop: retrieve failed: 400: "),
				    cases[i].message);
		canned_stop(s);
	}
}

static void the_key_goes_to_no_other_host(void **state)
{
	(void)state;
	static const struct canned_step target_steps[] = { { .when = "GET /", .body = RUNNING } };
	struct canned_server *target = CANNED_START(target_steps);
	char headers[128];
	snprintf(headers, sizeof(headers), "Location: %s/\r\n", canned_url(target));
	const struct canned_step steps[] = { { .when = BOX, .status = 307, .headers = headers } };
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct runloop_devbox box;
	struct error err;
	assert_int_equal(runloop_retrieve(&a, "d1", &box, &err), -EIO);
	assert_int_equal(canned_count(target), 0);
	canned_stop(s);
	canned_stop(target);
}

/* ---- long polls ---- */

static void waits_over_408s_and_passing_states(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = AWAIT, .status = 408, .headers = RETRY_ANYWAY },
		{ .when = AWAIT, .status = 408, .headers = RETRY_ANYWAY },
		{ .when = AWAIT, .body = "{\"status\":\"queued\"}" },
		{ .when = AWAIT, .status = 503, .headers = SOON },
		{ .when = AWAIT, .body = "{\"status\":\"suspending\"}" },
		{ .when = AWAIT, .body = RUNNING },
	};
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct runloop_devbox box;
	struct error err;
	assert_int_equal(runloop_await(&a, "d1", &box, &err), 0);
	assert_int_equal(box.status, RUNLOOP_RUNNING);
	assert_int_equal(canned_count(s), 6);
	json_t *body = json_loads(canned_request(s, 0)->body, 0, NULL);
	assert_int_equal(json_array_size(json_object_get(body, "statuses")), 4);
	json_decref(body);
	char ids[6][40];
	for (size_t i = 0; i < 6; i++)
		snprintf(ids[i], 40, "%s", canned_header(canned_request(s, i), "x-request-id"));
	assert_string_not_equal(ids[0], ids[1]); /* each round is a call of its own */
	assert_string_not_equal(ids[1], ids[2]);
	assert_string_equal(ids[3], ids[4]); /* and this was a retry */
	/* 408s that come at once are not asked for at once. */
	assert_true(canned_request(s, 1)->at_us - canned_request(s, 0)->at_us >= 100000);
	assert_true(canned_request(s, 3)->at_us - canned_request(s, 2)->at_us >= 100000);
	canned_stop(s);
}

static void the_wait_ends_with_a_final_state_or_an_error(void **state)
{
	(void)state;
	static const struct {
		const char *body;
		enum runloop_status status;
	} cases[] = {
		{ "{\"status\":\"failure\",\"failure_reason\":\"out_of_memory\"}",
		  RUNLOOP_FAILURE },
		{ "{\"status\":\"shutdown\"}", RUNLOOP_SHUTDOWN },
		{ "{\"status\":\"suspended\"}", RUNLOOP_SUSPENDED },
	};
	struct runloop_devbox box;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		const struct canned_step step = { .when = AWAIT, .body = cases[i].body };
		struct canned_server *s = canned_start(&step, 1);
		API(a, s);
		assert_int_equal(runloop_await(&a, "d1", &box, NULL), 0);
		assert_int_equal(box.status, cases[i].status);
		assert_string_equal(box.reason, i == 0 ? "out_of_memory" : "");
		canned_stop(s);
	}
	static const struct canned_step steps[] = { { .when = AWAIT, .status = 404 } };
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	assert_int_equal(runloop_await(&a, "d1", &box, NULL), -ENOENT);
	canned_stop(s);
}

static void the_wait_ends_at_the_deadline(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = AWAIT, .status = 408, .for_ever = true }
	};
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	CALL(short_call, 500);
	a.call = &short_call;
	struct runloop_devbox box;
	struct error err;
	assert_int_equal(runloop_await(&a, "d1", &box, &err), -ETIMEDOUT);
	assert_string_equal(err.slug, "start-timeout");
	assert_true(provider_now_us() - short_call.deadline_us < SECOND_US);
	assert_true(canned_count(s) <= 4);
	canned_stop(s);
}

/* ---- tunnel, keep-alive, upload ---- */

static void enables_an_authenticated_tunnel(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = "POST /v1/devboxes/d1/enable_tunnel ",
		  .body = "{\"tunnel_key\":\"k1\",\"auth_mode\":\"authenticated\",\"auth_token\":\"t1\"}" },
		{ .when = "POST /v1/devboxes/d1/enable_tunnel ", .body = "{}" },
	};
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct runloop_devbox box = { .status = RUNLOOP_RUNNING };
	struct error err;
	assert_int_equal(runloop_enable_tunnel(&a, "d1", &box, &err), 0);
	assert_true(box.has_tunnel);
	assert_string_equal(box.tunnel_key, "k1");
	assert_string_equal(box.tunnel_token, "t1");
	assert_int_equal(box.status, RUNLOOP_RUNNING);
	assert_string_equal(canned_request(s, 0)->body, "{\"auth_mode\":\"authenticated\","
							"\"http_keep_alive\":true,"
							"\"wake_on_http\":false}");
	assert_int_equal(runloop_enable_tunnel(&a, "d1", &box, &err), -EBADMSG);
	assert_false(box.has_tunnel);
	canned_stop(s);
}

static void keep_alive_takes_an_empty_answer(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = "POST /v1/devboxes/d1/keep_alive " },
		{ .when = "POST /v1/devboxes/d1/keep_alive ", .status = 204 },
		{ .when = "POST /v1/devboxes/d1/keep_alive ", .status = 404 },
	};
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	assert_int_equal(runloop_keep_alive(&a, "d1", NULL), 0);
	assert_int_equal(runloop_keep_alive(&a, "d1", NULL), 0);
	assert_int_equal(runloop_keep_alive(&a, "d1", NULL), -ENOENT);
	canned_stop(s);
}

static void uploads_and_enables_the_tunnel_at_once(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = "POST /v1/devboxes/d1/upload_file ", .barrier = 2 },
		{ .when = "POST /v1/devboxes/d1/enable_tunnel ",
		  .body = "{\"tunnel_key\":\"k1\"}",
		  .barrier = 2 },
		{ .when = "POST /v1/devboxes/d1/upload_file ", .status = 503, .headers = SOON },
		{ .when = "POST /v1/devboxes/d1/upload_file " },
	};
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct runloop_devbox box = { 0 };
	struct error err;
	assert_int_equal(runloop_upload(&a, "d1", "bin/x", "data", 4, &box, &err), 0);
	assert_string_equal(box.tunnel_key, "k1");
	assert_string_equal(box.tunnel_token, "");
	assert_int_equal(runloop_upload(&a, "d1", "bin/x", "data", 4, NULL, &err), 0);
	assert_int_equal(canned_count(s), 4);
	for (size_t i = 2; i < 4; i++) {
		const struct canned_request *r = canned_request(s, i);
		assert_header(r, "authorization", "Bearer " API_KEY);
		ASSERT_STARTS(canned_header(r, "content-type"), "multipart/form-data; boundary=");
		assert_non_null(strstr(r->body, "\r\n\r\nbin/x\r\n"));
		assert_non_null(strstr(r->body, "\r\n\r\ndata\r\n"));
	}
	char id[64];
	snprintf(id, sizeof(id), "%s", canned_header(canned_request(s, 2), "x-request-id"));
	assert_header(canned_request(s, 3), "x-request-id", id);
	canned_stop(s);
}

/* ---- commands ---- */

static void get_member(const struct canned_request *r, const char *name, char ret[128])
{
	json_t *body = json_loads(r->body, 0, NULL);
	assert_non_null(body);
	char *text = json_dumps(json_object_get(body, name), JSON_ENCODE_ANY);
	assert_non_null(text);
	snprintf(ret, 128, "%s", text);
	free(text);
	json_decref(body);
}

static void executes_and_repeats_the_command_id(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = EXECUTE, .status = 500, .headers = SOON },
		{ .when = EXECUTE, .raw = "" },
		{ .when = EXECUTE, .body = DONE },
		{ .when = EXECUTE, .body = DONE },
	};
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct runloop_execution e;
	struct error err;
	assert_int_equal(runloop_execute(&a, "d1", "say \"h\xc3\xbc\"", &e, &err), 0);
	assert_true(e.completed);
	assert_string_equal(e.id, "e1");
	assert_int_equal(e.exit_status, 3);
	assert_string_equal(e.out, "out?\n");
	assert_string_equal(e.err, "");
	runloop_execution_fini(&e);
	assert_null(e.out);
	char id[128], text[128];
	get_member(canned_request(s, 0), "command_id", id);
	assert_int_equal(strlen(id), 38);
	assert_int_equal(id[15], '7'); /* a UUID of version 7, in quotes */
	assert_non_null(strchr("89ab", id[20]));
	for (size_t i = 0; i < 3; i++) {
		get_member(canned_request(s, i), "command_id", text);
		assert_string_equal(text, id);
		get_member(canned_request(s, i), "command", text);
		assert_string_equal(text, "\"say \\\"h\xc3\xbc\\\"\"");
		get_member(canned_request(s, i), "optimistic_timeout", text);
		assert_string_equal(text, "20");
	}
	assert_int_equal(runloop_execute(&a, "d1", "ls", &e, &err), 0);
	runloop_execution_fini(&e);
	get_member(canned_request(s, 3), "command_id", text);
	assert_string_not_equal(text, id);
	canned_stop(s);
}

static void waits_for_a_command_that_takes_longer(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = EXECUTE, .body = NOT_DONE },
		{ .when = AWAIT_COMMAND, .status = 408, .headers = RETRY_ANYWAY },
		{ .when = AWAIT_COMMAND, .body = NOT_DONE },
		{ .when = AWAIT_COMMAND, .body = DONE },
	};
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct runloop_execution e;
	assert_int_equal(runloop_execute(&a, "d1", "make", &e, NULL), 0);
	assert_int_equal(e.exit_status, 3);
	runloop_execution_fini(&e);
	assert_int_equal(canned_count(s), 4);
	assert_string_equal(canned_request(s, 1)->body,
			    "{\"statuses\":[\"completed\"],\"timeout_seconds\":20}");
	canned_stop(s);
}

static void refuses_an_execution_that_it_does_not_understand(void **state)
{
	(void)state;
	static const char *const bodies[] = {
		"{}",
		"{\"execution_id\":\"e1\"}",
		"{\"execution_id\":1,\"status\":\"completed\"}",
		"{\"execution_id\":\"e/1\",\"status\":\"completed\"}",
		"{\"execution_id\":\"e\\u0000\",\"status\":\"completed\"}",
		"{\"execution_id\":\"e1\",\"status\":null}",
	};
	for (size_t i = 0; i < COUNT_OF(bodies); i++) {
		const struct canned_step step = { .when = EXECUTE, .body = bodies[i] };
		struct canned_server *s = canned_start(&step, 1);
		API(a, s);
		struct runloop_execution e;
		if (runloop_execute(&a, "d1", "ls", &e, NULL) != -EBADMSG)
			fail_msg("understood %s", bodies[i]);
		canned_stop(s);
	}
	const struct canned_step odd = {
		.when = EXECUTE,
		.body = "{\"execution_id\":\"e1\",\"status\":\"completed\","
			"\"exit_status\":1e300,\"stdout\":7}"
	};
	struct canned_server *s = canned_start(&odd, 1);
	API(a, s);
	struct runloop_execution e;
	assert_int_equal(runloop_execute(&a, "d1", "ls", &e, NULL), 0);
	assert_int_equal(e.exit_status, -1);
	assert_string_equal(e.out, "");
	runloop_execution_fini(&e);
	canned_stop(s);
}

static void looks_at_and_kills_an_execution(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = "GET /v1/devboxes/d1/executions/e1?last_n=100 ", .body = DONE },
		{ .when = "POST /v1/devboxes/d1/executions/e1/kill ", .body = NOT_DONE },
	};
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct runloop_execution e;
	assert_int_equal(runloop_execution_get(&a, "d1", "e1", &e, NULL), 0);
	assert_string_equal(e.out, "out?\n");
	runloop_execution_fini(&e);
	assert_int_equal(runloop_kill(&a, "d1", "e1", NULL), 0);
	assert_string_equal(canned_request(s, 1)->body, "{\"kill_process_group\":true}");
	canned_stop(s);
}

/* ---- both at once ---- */

static void retrieves_and_executes_at_once(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = BOX, .body = RUNNING, .barrier = 2 },
		{ .when = EXECUTE, .body = NOT_DONE, .barrier = 2 },
		{ .when = AWAIT_COMMAND, .body = DONE },
	};
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct runloop_devbox box;
	struct runloop_execution e;
	int box_rc, e_rc;
	struct error box_err, e_err;
	runloop_retrieve_and_execute(&a, "d1", "ls", &box, &box_rc, &box_err, &e, &e_rc, &e_err);
	assert_int_equal(box_rc, 0);
	assert_int_equal(e_rc, 0);
	assert_int_equal(box.status, RUNLOOP_RUNNING);
	assert_int_equal(e.exit_status, 3);
	runloop_execution_fini(&e);
	canned_stop(s);
}

static void does_not_insist_on_a_command_when_the_box_sleeps(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = BOX, .body = "{\"status\":\"suspended\"}" },
		{ .when = EXECUTE, .status = 409, .body = "asleep" },
	};
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct runloop_devbox box;
	struct runloop_execution e;
	int box_rc, e_rc;
	struct error box_err, e_err;
	runloop_retrieve_and_execute(&a, "d1", "ls", &box, &box_rc, &box_err, &e, &e_rc, &e_err);
	assert_int_equal(box_rc, 0);
	assert_int_equal(box.status, RUNLOOP_SUSPENDED);
	assert_int_equal(e_rc, -EALREADY);
	assert_error(&e_err, -EALREADY, "provider-error", "runloop: execute failed: 409: asleep");
	assert_int_equal(canned_count(s), 2);
	canned_stop(s);
}

static void each_of_both_has_an_error_of_its_own(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = BOX, .status = 401 },
		{ .when = EXECUTE, .status = 404 },
		{ .when = BOX, .status = 503, .headers = SOON },
		{ .when = EXECUTE, .status = 503, .headers = SOON },
		{ .when = BOX, .body = RUNNING },
		{ .when = EXECUTE, .body = DONE },
	};
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct runloop_devbox box;
	struct runloop_execution e;
	int box_rc, e_rc;
	struct error box_err, e_err;
	runloop_retrieve_and_execute(&a, "d1", "ls", &box, &box_rc, &box_err, &e, &e_rc, &e_err);
	assert_int_equal(box_rc, -EACCES);
	assert_int_equal(e_rc, -ENOENT);
	assert_string_equal(box_err.slug, "credential-refused");
	runloop_retrieve_and_execute(&a, "d1", "ls", &box, &box_rc, &box_err, &e, &e_rc, &e_err);
	assert_int_equal(box_rc, 0);
	assert_int_equal(e_rc, 0);
	runloop_execution_fini(&e);
	runloop_retrieve_and_execute(&a, "d/1", "ls", &box, &box_rc, &box_err, &e, &e_rc, &e_err);
	assert_int_equal(box_rc, -ENOENT);
	assert_int_equal(e_rc, -ENOENT);
	canned_stop(s);
}

/* ---- a start that must not happen twice ---- */

#define START "POST /v1/devboxes/d1/execute_async "

static void starts_again_only_what_was_surely_not_started(void **state)
{
	(void)state;
	static const struct canned_step good[] = {
		{ .when = START, .status = 429, .headers = SOON },
		{ .when = START, .status = 503, .headers = SOON },
		{ .when = START, .body = NOT_DONE },
	};
	struct canned_server *s = CANNED_START(good);
	API(a, s);
	struct runloop_execution e;
	assert_int_equal(runloop_execute_async(&a, "d1", "agent", &e, NULL), 0);
	assert_false(e.completed);
	assert_string_equal(e.id, "e1");
	runloop_execution_fini(&e);
	assert_int_equal(canned_count(s), 3);
	assert_string_equal(canned_request(s, 0)->body, "{\"command\":\"agent\"}");
	canned_stop(s);

	static const struct {
		struct canned_step step;
		int code;
	} cases[] = {
		{ { .when = START, .raw = "" }, -EHOSTUNREACH },
		{ { .when = START, .body = "{", .missing = 1 }, -EHOSTUNREACH },
		{ { .when = START, .status = 503, .missing = 1 }, -EHOSTUNREACH },
		{ { .when = START, .status = 500, .headers = RETRY_ANYWAY SOON }, -EIO },
		{ { .when = START, .status = 502, .headers = SOON }, -EIO },
		{ { .when = START, .status = 408, .headers = RETRY_ANYWAY SOON }, -EIO },
		{ { .when = START, .status = 409, .headers = SOON }, -EALREADY },
		{ { .when = START, .status = 503, .headers = "x-should-retry: false\r\n" }, -EIO },
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		s = canned_start(&cases[i].step, 1);
		a.base_url = canned_url(s);
		assert_int_equal(runloop_execute_async(&a, "d1", "agent", &e, NULL), cases[i].code);
		assert_int_equal(canned_count(s), 1);
		canned_stop(s);
	}
}

/* ---- cancelling ---- */

struct background {
	struct runloop_api *api;
	int rc;
	struct error err;
	uint64_t ended_us;
};

static void *execute_in_background(void *arg)
{
	struct background *b = arg;
	struct runloop_execution e;
	b->api->http = http_client_of_thread(NULL);
	b->rc = runloop_execute(b->api, "d1", "ls", &e, &b->err);
	b->ended_us = provider_now_us();
	return NULL;
}

static void ends_soon_after_it_was_cancelled(void **state)
{
	(void)state;
	static const struct canned_step cases[] = {
		{ .when = EXECUTE, .hang = true },
		{ .when = EXECUTE, .status = 429, .headers = "Retry-After: 15\r\n" },
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct canned_server *s = canned_start(&cases[i], 1);
		API(a, s);
		struct background b = { .api = &a };
		pthread_t thread;
		assert_int_equal(pthread_create(&thread, NULL, execute_in_background, &b), 0);
		canned_await(s, 1);
		uint64_t cancelled_us = provider_now_us();
		atomic_store(&a_call_cancelled, true);
		pthread_join(thread, NULL);
		assert_true(b.ended_us - cancelled_us < SECOND_US);
		assert_int_equal(canned_count(s), 1);
		assert_error(&b.err, -ECANCELED, "start-cancelled", "it was cancelled");
		canned_stop(s);
	}
}

static void ends_at_the_deadline(void **state)
{
	(void)state;
	static const struct canned_step steps[] = { { .when = EXECUTE, .hang = true } };
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	CALL(short_call, 300);
	a.call = &short_call;
	struct runloop_execution e;
	struct error err;
	assert_int_equal(runloop_execute(&a, "d1", "ls", &e, &err), -ETIMEDOUT);
	assert_string_equal(err.slug, "start-timeout");
	assert_true(provider_now_us() - short_call.deadline_us < SECOND_US);
	canned_stop(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_a_devbox),
		cmocka_unit_test(knows_the_states_and_takes_new_ones_for_booting),
		cmocka_unit_test(refuses_a_devbox_that_it_does_not_understand),
		cmocka_unit_test(an_answer_beyond_all_limits_is_not_understood),
		cmocka_unit_test(an_id_cannot_change_the_path),
		cmocka_unit_test(a_key_that_would_be_a_header_is_refused),
		cmocka_unit_test(tries_again_with_the_same_request_id),
		cmocka_unit_test(gives_up_after_five_retries),
		cmocka_unit_test(obeys_a_server_that_wants_no_retry),
		cmocka_unit_test(asks_again_when_an_answer_broke_off),
		cmocka_unit_test(says_what_is_known_rather_than_wait_beyond_the_deadline),
		cmocka_unit_test(says_when_nobody_answers),
		cmocka_unit_test(maps_each_status_to_a_code_and_a_slug),
		cmocka_unit_test(shows_each_kind_of_error_body_and_no_secret),
		cmocka_unit_test(the_key_goes_to_no_other_host),
		cmocka_unit_test(waits_over_408s_and_passing_states),
		cmocka_unit_test(the_wait_ends_with_a_final_state_or_an_error),
		cmocka_unit_test(the_wait_ends_at_the_deadline),
		cmocka_unit_test(enables_an_authenticated_tunnel),
		cmocka_unit_test(keep_alive_takes_an_empty_answer),
		cmocka_unit_test(uploads_and_enables_the_tunnel_at_once),
		cmocka_unit_test(executes_and_repeats_the_command_id),
		cmocka_unit_test(waits_for_a_command_that_takes_longer),
		cmocka_unit_test(refuses_an_execution_that_it_does_not_understand),
		cmocka_unit_test(looks_at_and_kills_an_execution),
		cmocka_unit_test(retrieves_and_executes_at_once),
		cmocka_unit_test(does_not_insist_on_a_command_when_the_box_sleeps),
		cmocka_unit_test(each_of_both_has_an_error_of_its_own),
		cmocka_unit_test(starts_again_only_what_was_surely_not_started),
		cmocka_unit_test(ends_soon_after_it_was_cancelled),
		cmocka_unit_test(ends_at_the_deadline),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
