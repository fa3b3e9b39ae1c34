/* test_runloop_pty.c -- the control side of the native PTY: its own host, its own token. */
#include "tests/unit/providers/support.h"

#define TOKEN "pty-token-77"
#define OPEN "GET /prefix/pty/pc-9f2?cols=80&rows=24 "
#define CONTROL "POST /prefix/pty/pc-9f2/control "
#define OPENED "{\"connect_url\":\"/pty/pc-9f2/attach?a=b\",\"created\":true,\"attached\":false}"

#define PTY(name, server)                                                    \
	API(name, server);                                                   \
	char pty_url[128];                                                   \
	snprintf(pty_url, sizeof(pty_url), "%s/prefix", canned_url(server)); \
	(name).base_url = "http://127.0.0.1:1" /* nothing may go there */

static void makes_a_tunnel_with_the_key(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = "POST /v1/devboxes/d1/create_pty_tunnel ",
		  .body = "{\"tunnel_key\":\"k3y\",\"auth_token\":\"t0k\"}" },
		{ .when = "POST ", .body = "{\"tunnel_key\":\"k3y\",\"auth_token\":null}" },
		{ .when = "POST ", .body = "{\"auth_token\":\"t0k\"}" },
	};
	struct canned_server *s = CANNED_START(steps);
	API(a, s);
	struct runloop_pty_tunnel t;
	assert_int_equal(runloop_create_pty_tunnel(&a, "d1", &t, NULL), 0);
	assert_string_equal(t.key, "k3y");
	assert_string_equal(t.token, "t0k");
	assert_header(canned_request(s, 0), "authorization", "Bearer " API_KEY);
	assert_string_equal(canned_request(s, 0)->body, "{}");
	assert_int_equal(runloop_create_pty_tunnel(&a, "d1", &t, NULL), -EBADMSG);
	assert_int_equal(runloop_create_pty_tunnel(&a, "d1", &t, NULL), -EBADMSG);
	assert_int_equal(runloop_create_pty_tunnel(&a, "d/1", &t, NULL), -ENOENT);
	canned_stop(s);
}

static void opens_with_the_tunnels_token_alone(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = OPEN, .status = 502 },
		{ .when = OPEN, .status = 503 },
		{ .when = OPEN, .body = OPENED },
		{ .when = "GET /prefix/pty/pc-9f2?cols=1000&rows=1 ", .body = OPENED },
	};
	struct canned_server *s = CANNED_START(steps);
	PTY(a, s);
	struct runloop_pty p;
	struct error err;
	assert_int_equal(runloop_pty_open(&a, pty_url, TOKEN, "pc-9f2", 80, 24, &p, &err), 0);
	assert_string_equal(p.connect_path, "/pty/pc-9f2/attach?a=b");
	assert_true(p.created);
	assert_false(p.attached);
	for (size_t i = 0; i < 3; i++) {
		const struct canned_request *r = canned_request(s, i);
		assert_header(r, "authorization", "Bearer " TOKEN);
		assert_header(r, "x-runloop-tunnel-authorization", "Bearer " TOKEN);
		assert_null(strstr(r->head, API_KEY));
	}
	/* A young tunnel is asked again sooner than the SDK would, but not at once. */
	assert_true(canned_request(s, 1)->at_us - canned_request(s, 0)->at_us >= 400000);
	assert_true(canned_request(s, 2)->at_us - canned_request(s, 1)->at_us >= 800000);
	assert_int_equal(runloop_pty_open(&a, pty_url, NULL, "pc-9f2", 1001, 0, &p, &err), 0);
	assert_null(canned_header(canned_request(s, 3), "authorization"));
	canned_stop(s);
}

static void refuses_a_path_that_leads_elsewhere(void **state)
{
	(void)state;
	static const char *const bodies[] = {
		"{}",
		"{\"created\":true,\"attached\":false}",
		"{\"connect_url\":null,\"created\":true,\"attached\":false}",
		"{\"connect_url\":\"/a\",\"attached\":false}",
		"{\"connect_url\":\"/a\",\"created\":true,\"attached\":0}",
		"{\"connect_url\":\"\",\"created\":true,\"attached\":false}",
		"{\"connect_url\":\"a\",\"created\":true,\"attached\":false}",
		"{\"connect_url\":\"//evil/a\",\"created\":true,\"attached\":false}",
		"{\"connect_url\":\"/\\\\evil\",\"created\":true,\"attached\":false}",
		"{\"connect_url\":\"wss://evil/a\",\"created\":true,\"attached\":false}",
		"{\"connect_url\":\"/a@b\",\"created\":true,\"attached\":false}",
		"{\"connect_url\":\"/a b\",\"created\":true,\"attached\":false}",
		"{\"connect_url\":\"/a\\r\\nX: y\",\"created\":true,\"attached\":false}",
		"{\"connect_url\":\"/a\\u0000\",\"created\":true,\"attached\":false}",
		"{\"connect_url\":\"/\xc3\xbc\",\"created\":true,\"attached\":false}",
		"{\"connect_url\":\"/a#b\",\"created\":true,\"attached\":false}",
	};
	for (size_t i = 0; i < COUNT_OF(bodies); i++) {
		const struct canned_step step = { .when = OPEN, .body = bodies[i] };
		struct canned_server *s = canned_start(&step, 1);
		PTY(a, s);
		struct runloop_pty p;
		struct error err;
		if (runloop_pty_open(&a, pty_url, TOKEN, "pc-9f2", 80, 24, &p, &err) != -EBADMSG)
			fail_msg("took %s", bodies[i]);
		assert_string_equal(err.slug, "provider-error");
		canned_stop(s);
	}
	static char body[2048], path[1100];
	memset(path, 'a', 1022);
	for (unsigned more = 0; more < 2; more++) { /* 1023 bytes fit */
		snprintf(body, sizeof(body),
			 "{\"connect_url\":\"/%s%s\",\"created\":false,\"attached\":true}", path,
			 more ? "a" : "");
		const struct canned_step step = { .when = OPEN, .body = body };
		struct canned_server *s = canned_start(&step, 1);
		PTY(a, s);
		struct runloop_pty p;
		assert_int_equal(runloop_pty_open(&a, pty_url, TOKEN, "pc-9f2", 80, 24, &p, NULL),
				 more ? -EBADMSG : 0);
		canned_stop(s);
	}
}

static void hides_the_tunnels_token(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = OPEN, .status = 401, .body = "{\"message\":\"not " TOKEN "\"}" },
		{ .when = OPEN, .status = 422, .body = "{\"message\":\"not " TOKEN "\"}" }
	};
	struct canned_server *s = CANNED_START(steps);
	PTY(a, s);
	struct runloop_pty p;
	struct error err;
	assert_int_equal(runloop_pty_open(&a, pty_url, TOKEN, "pc-9f2", 80, 24, &p, &err), -EIO);
	assert_error(&err, -EIO, "tunnel-failed",
		     "runloop: pty-open failed: the tunnel answered 401");
	assert_int_equal(runloop_pty_open(&a, pty_url, TOKEN, "pc-9f2", 80, 24, &p, &err), -EIO);
	assert_error(&err, -EIO, "provider-error", "runloop: pty-open failed: 422: not [hidden]");
	assert_int_equal(runloop_pty_open(&a, pty_url, "a\r\nb", "pc-9f2", 80, 24, &p, &err),
			 -EACCES);
	assert_int_equal(runloop_pty_open(&a, pty_url, TOKEN, "pc/9", 80, 24, &p, &err), -EINVAL);
	assert_int_equal(canned_count(s), 2);
	canned_stop(s);
}

static void resizes_signals_and_closes(void **state)
{
	(void)state;
	static const struct canned_step steps[] = {
		{ .when = CONTROL, .body = "{}" },
		{ .when = CONTROL },
		{ .when = CONTROL, .body = "not looked at" },
		{ .when = CONTROL, .status = 204 },
	};
	static const char *const bodies[] = {
		"{\"action\":\"resize\",\"cols\":120,\"rows\":40}",
		"{\"action\":\"resize\",\"cols\":1,\"rows\":1000}",
		"{\"action\":\"signal\",\"signal\":\"SIGINT\"}",
		"{\"action\":\"close\"}",
	};
	struct canned_server *s = CANNED_START(steps);
	PTY(a, s);
	assert_int_equal(runloop_pty_resize(&a, pty_url, TOKEN, "pc-9f2", 120, 40, NULL), 0);
	assert_int_equal(runloop_pty_resize(&a, pty_url, TOKEN, "pc-9f2", 0, 1001, NULL), 0);
	assert_int_equal(runloop_pty_signal(&a, pty_url, TOKEN, "pc-9f2", "SIGINT", NULL), 0);
	assert_int_equal(runloop_pty_close(&a, pty_url, TOKEN, "pc-9f2", NULL), 0);
	for (size_t i = 0; i < 4; i++) {
		const struct canned_request *r = canned_request(s, i);
		assert_string_equal(r->body, bodies[i]);
		assert_header(r, "x-runloop-tunnel-authorization", "Bearer " TOKEN);
		assert_header(r, "content-type", "application/json");
		assert_non_null(canned_header(r, "x-request-id"));
		assert_null(strstr(r->head, API_KEY));
	}
	canned_stop(s);
}

static void tells_why_a_signal_was_refused(void **state)
{
	(void)state;
	static const struct {
		unsigned status;
		const char *body;
		int code;
	} cases[] = {
		{ 400, "{\"message\":\"no foreground process group\"}", -ESRCH },
		{ 400, "{\"message\":\"Invalid: foreground group has ended\"}", -ESRCH },
		{ 400, "", -ESRCH },
		{ 400, "{\"message\":\"Unknown signal SIGFOO\"}", -EINVAL },
		{ 400, "unsupported signal", -EINVAL },
		{ 404, "no such session", -EIO },
		{ 422, "", -EIO },
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		const struct canned_step step = { .when = CONTROL,
						  .status = cases[i].status,
						  .body = cases[i].body };
		struct canned_server *s = canned_start(&step, 1);
		PTY(a, s);
		struct error err;
		assert_int_equal(runloop_pty_signal(&a, pty_url, TOKEN, "pc-9f2", "SIGINT", &err),
				 cases[i].code);
		assert_int_equal(err.code, cases[i].code);
		assert_non_null(err.slug);
		canned_stop(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(makes_a_tunnel_with_the_key),
		cmocka_unit_test(opens_with_the_tunnels_token_alone),
		cmocka_unit_test(refuses_a_path_that_leads_elsewhere),
		cmocka_unit_test(hides_the_tunnels_token),
		cmocka_unit_test(resizes_signals_and_closes),
		cmocka_unit_test(tells_why_a_signal_was_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
