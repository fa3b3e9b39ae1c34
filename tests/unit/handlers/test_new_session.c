/* The body of POST /sessions: what it becomes, and what is refused at which member. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "handlers/new_session.h"
#include "providers/provider.h"
#include "service/json_body.h"
#include "wire/pty_frame.h"

static const char *const providers[] = { "local", "url", "runloop", NULL };
static const struct provider_config cfg = { .names = "local,url,runloop" };

static bool read(const char *text, struct new_session *ret, struct problem *problem)
{
	json_auto_t *body = json_body_parse(text, strlen(text), new_session_members, problem);
	return body != NULL && new_session_read(body, &cfg, providers, 60, ret, problem);
}

static void assert_refused(const char *text, const char *field)
{
	struct new_session n;
	struct problem problem = { 0 };
	assert_false(read(text, &n, &problem));
	assert_int_equal(problem.reply.status, 400);
	assert_string_equal(problem.reply.slug, "bad-request");
	assert_string_equal(problem.field, field);
	assert_true(problem.reply.detail[0] != '\0');
}

static void fills_in_the_defaults(void **state)
{
	(void)state;
	struct new_session n;
	struct problem problem;
	assert_true(read("{\"sandbox\":\"local\"}", &n, &problem));
	assert_string_equal(n.spec.sandbox, "local");
	assert_string_equal(n.spec.provider, "local");
	assert_null(n.spec.id);
	assert_null(n.spec.command);
	assert_null(n.spec.env);
	assert_null(n.spec.cwd);
	assert_int_equal(n.spec.cols, 80);
	assert_int_equal(n.spec.rows, 24);
	assert_int_equal(n.spec.idle_timeout_s, 60);
	assert_string_equal(n.spec.params,
			    "{\"cols\":80,\"command\":null,\"cwd\":null,\"env\":null,"
			    "\"idle_timeout_s\":60,\"rows\":24,\"sandbox\":\"local\"}");
	new_session_fini(&n);
}

static void reads_every_member(void **state)
{
	(void)state;
	struct new_session n;
	struct problem problem;
	assert_true(read(
		"{\"sandbox\":{\"provider\":\"url\"},\"id\":\"b-1\",\"command\":[\"sh\",\"\"],"
		"\"env\":{\"B\":\"2\",\"A_1\":\"x=y\"},\"cwd\":\"/srv\",\"cols\":1000,\"rows\":1,"
		"\"idle_timeout_s\":0}",
		&n, &problem));
	assert_string_equal(n.spec.sandbox, "{\"provider\":\"url\"}");
	assert_string_equal(n.spec.provider, "url");
	assert_string_equal(n.spec.id, "b-1");
	assert_string_equal(n.spec.command[0], "sh");
	assert_string_equal(n.spec.command[1], "");
	assert_null(n.spec.command[2]);
	assert_string_equal(n.spec.env[0], "B=2");
	assert_string_equal(n.spec.env[1], "A_1=x=y");
	assert_null(n.spec.env[2]);
	assert_string_equal(n.spec.cwd, "/srv");
	assert_int_equal(n.spec.cols, 1000);
	assert_int_equal(n.spec.rows, 1);
	assert_int_equal(n.spec.idle_timeout_s, 0);
	new_session_fini(&n);
}

static void params_do_not_depend_on_order_id_or_what_is_default(void **state)
{
	(void)state;
	struct new_session a, b;
	struct problem problem;
	assert_true(read("{\"sandbox\":\"local\",\"id\":\"a\",\"env\":{\"A\":\"1\",\"B\":\"2\"},"
			 "\"cols\":80}",
			 &a, &problem));
	assert_true(read("{\"rows\":24,\"env\":{\"B\":\"2\",\"A\":\"1\"},\"sandbox\":\"local\"}",
			 &b, &problem));
	assert_string_equal(a.spec.params, b.spec.params);
	new_session_fini(&a);
	new_session_fini(&b);
	assert_true(read("{\"sandbox\":\"local\",\"env\":{}}", &a, &problem));
	assert_true(read("{\"sandbox\":\"local\"}", &b, &problem));
	assert_string_equal(a.spec.params, b.spec.params);
	new_session_fini(&a);
	new_session_fini(&b);
}

static void leaves_remote_sandboxes_to_be_found(void **state)
{
	(void)state;
	struct new_session n;
	struct problem problem;
	assert_true(
		read("{\"sandbox\":\"box-1\",\"transport\":\"native\",\"agent\":\"pty-tunnel\"}",
		     &n, &problem));
	assert_true(n.remote && n.spec.stored);
	assert_string_equal(n.spec.sandbox, "box-1");
	assert_string_equal(n.spec.transport, "native");
	assert_string_equal(n.spec.agent, "pty-tunnel");
	assert_null(n.spec.provider);
	new_session_fini(&n);
	assert_true(read("{\"sandbox\":{\"provider\":\"runloop\",\"external_id\":\"d\"}}", &n,
			 &problem));
	assert_true(n.remote && !n.spec.stored);
	new_session_fini(&n);
	assert_true(read("{\"sandbox\":\"local\"}", &n, &problem));
	assert_false(n.remote);
	new_session_fini(&n);
}

static void names_the_member_at_fault(void **state)
{
	(void)state;
	assert_refused("{}", "sandbox");
	assert_refused("{\"sandbox\":7}", "sandbox");
	assert_refused("{\"sandbox\":\"no pe\"}", "sandbox");
	assert_refused("{\"sandbox\":\"runloop\"}", "sandbox");
	assert_refused("{\"sandbox\":{\"provider\":\"nope\"}}", "sandbox.provider");
	assert_refused("{\"sandbox\":\"local\",\"transport\":\"agent\"}", "transport");
	assert_refused("{\"sandbox\":\"box-1\",\"transport\":\"ssh\"}", "transport");
	assert_refused("{\"sandbox\":\"box-1\",\"agent\":7}", "agent");
	assert_refused("{\"sandbox\":{}}", "sandbox.provider");
	assert_refused("{\"sandbox\":{\"provider\":\"url\",\"credential\":\"x\"}}",
		       "sandbox.credential");
	assert_refused("{\"sandbox\":\"local\",\"colour\":1}", "colour");
	assert_refused("{\"sandbox\":\"local\",\"id\":\"a b\"}", "id");
	assert_refused("{\"sandbox\":\"local\",\"id\":\"\"}", "id");
	assert_refused("{\"sandbox\":\"local\",\"id\":null}", "id");
	assert_refused("{\"sandbox\":\"local\",\"command\":\"bash\"}", "command");
	assert_refused("{\"sandbox\":\"local\",\"command\":[]}", "command");
	assert_refused("{\"sandbox\":\"local\",\"command\":[\"\"]}", "command");
	assert_refused("{\"sandbox\":\"local\",\"command\":[\"a\",1]}", "command");
	assert_refused("{\"sandbox\":\"local\",\"command\":[\"a\\u0000b\"]}", "command");
	assert_refused("{\"sandbox\":\"local\",\"env\":[]}", "env");
	assert_refused("{\"sandbox\":\"local\",\"env\":{\"1A\":\"\"}}", "env");
	assert_refused("{\"sandbox\":\"local\",\"env\":{\"A=B\":\"\"}}", "env");
	assert_refused("{\"sandbox\":\"local\",\"env\":{\"\":\"\"}}", "env");
	assert_refused("{\"sandbox\":\"local\",\"env\":{\"A\":1}}", "env");
	assert_refused("{\"sandbox\":\"local\",\"env\":{\"OK\":\"\",\"A\":\"\\u0000\"}}", "env");
	assert_refused("{\"sandbox\":\"local\",\"cwd\":\"srv\"}", "cwd");
	assert_refused("{\"sandbox\":\"local\",\"cwd\":\"/\\u0000\"}", "cwd");
	assert_refused("{\"sandbox\":\"local\",\"cols\":0}", "cols");
	assert_refused("{\"sandbox\":\"local\",\"cols\":80.0}", "cols");
	assert_refused("{\"sandbox\":\"local\",\"rows\":1001}", "rows");
	assert_refused("{\"sandbox\":\"local\",\"idle_timeout_s\":604801}", "idle_timeout_s");
}

static void bounds_command_env_and_cwd_together(void **state)
{
	(void)state;
	/* Two strings: one of half the room with its 4 bytes of length, one that just fits. */
	size_t half = PTY2_STRINGS_BYTES_MAX / 2, rest = PTY2_STRINGS_BYTES_MAX - half;
	for (size_t more = 0; more <= 1; more++) {
		char *a = calloc(1, half), *b = calloc(1, rest + 1);
		memset(a, 'a', half - 4);
		memset(b, 'b', rest - 4 + more);
		json_auto_t *body = json_pack("{s:s, s:[s, s]}", "sandbox", "local", "command", a,
					      b);
		struct new_session n;
		struct problem problem;
		bool ok = new_session_read(body, &cfg, providers, 0, &n, &problem);
		assert_int_equal(ok, more == 0);
		if (ok)
			new_session_fini(&n);
		else
			assert_string_equal(problem.field, "command");
		free(a);
		free(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fills_in_the_defaults),
		cmocka_unit_test(reads_every_member),
		cmocka_unit_test(params_do_not_depend_on_order_id_or_what_is_default),
		cmocka_unit_test(leaves_remote_sandboxes_to_be_found),
		cmocka_unit_test(names_the_member_at_fault),
		cmocka_unit_test(bounds_command_env_and_cwd_together),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
