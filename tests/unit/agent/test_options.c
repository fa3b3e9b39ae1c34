/* test_options.c -- agent/options.h, environment.h, json.h: Go's durations and flags, environments, JSON. */
#include "tests/unit/wire/test.h"

#include <errno.h>
#include <string.h>

#include "agent/environment.h"
#include "agent/json.h"
#include "agent/options.h"

static void reads_the_durations_of_go(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		uint64_t ms;
	} cases[] = {
		{ "0", 0 },
		{ "0s", 0 },
		{ "60s", 60000 },
		{ "1m", 60000 },
		{ "1h2m3s", 3723000 },
		{ "250ms", 250 },
		{ "1.5s", 1500 },
		{ ".5s", 500 },
		{ "1.s", 1000 },
		{ "2000us", 2 },
		{ "2000\xc2\xb5s", 2 },
		{ "999999ns", 0 },
		{ "1000000ns", 1 },
		{ "0.0000000001h", 0 },
		{ "1m0.001s", 60001 },
	};
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		uint64_t ms = 42;
		assert_int_equal(options_duration(cases[i].text, &ms), 0);
		assert_int_equal(ms, cases[i].ms);
	}
	static const char *const bad[] = { "",    "1",  "s",     "1x",   "1 s", "-1s",
					   "1s2", ".s", "1..2s", "soon", "1s ", "99999999999h",
					   "1e3s" };
	for (size_t i = 0; i < COUNT_OF(bad); i++) {
		uint64_t ms = 42;
		if (options_duration(bad[i], &ms) != -EINVAL)
			fail_msg("taken: %s", bad[i]);
		assert_int_equal(ms, 42);
	}
}

/* Parses copies of the words, which it may wipe. The strings live until the next call. */
static enum options_verdict parse(const char *const *words, struct options *ret, int *status)
{
	static char copies[16][64];
	static char *argv[17];
	int argc = 0;
	for (; words[argc] != NULL; argc++) {
		snprintf(copies[argc], sizeof(copies[argc]), "%s", words[argc]);
		argv[argc] = copies[argc];
	}
	argv[argc] = NULL;
	return options_parse(argc, argv, ret, status);
}

static void reads_flags_as_go_does(void **state)
{
	(void)state;
	struct options o;
	int status;
	const char *const words[] = {
		"agent",     "-mode=client",  "--port", "81", "-cols", "100", "--debug",
		"--rows=30", "--debug=false", "--",     "-x", "--y",   NULL
	};
	assert_int_equal(parse(words, &o, &status), OPTIONS_RUN);
	assert_int_equal(o.mode, MODE_CLIENT);
	assert_int_equal(o.port, 81);
	assert_int_equal(o.cols, 100);
	assert_int_equal(o.rows, 30);
	assert_false(o.debug);
	assert_null(o.token);
	assert_string_equal(o.command[0], "-x");
	assert_string_equal(o.command[1], "--y");
	assert_null(o.command[2]);

	const char *const stops[] = { "agent", "ls", "--mode=other", NULL };
	assert_int_equal(parse(stops, &o, &status), OPTIONS_RUN);
	assert_int_equal(o.mode, MODE_SINGLE);
	assert_int_equal(o.inactivity_ms, 60000);
	assert_string_equal(o.command[0], "ls");
	const char *const dash[] = { "agent", "-", NULL };
	assert_int_equal(parse(dash, &o, &status), OPTIONS_RUN);
	assert_string_equal(o.command[0], "-");
}

static void registers_in_mode_agent_alone(void **state)
{
	(void)state;
	struct options o;
	int status;
	const char *const right[] = { "agent", "--registration=/a/b", "--mode=agent", NULL };
	assert_int_equal(parse(right, &o, &status), OPTIONS_RUN);
	assert_string_equal(o.registration, "/a/b");
	const char *const without[] = { "agent", "--mode=agent", NULL };
	assert_int_equal(parse(without, &o, &status), OPTIONS_RUN);
	assert_null(o.registration);
	const char *const wrong[] = { "agent", "--registration=/a/b", "--token=x", "sh", NULL };
	assert_int_equal(parse(wrong, &o, &status), OPTIONS_EXIT);
	assert_int_equal(status, 2);
}

static void takes_the_token_out_of_sight(void **state)
{
	(void)state;
	struct options o;
	char program[] = "agent", flag[] = "--token=s3cr3t", next[] = "--token", value[] = "other";
	char *joined[] = { program, flag, NULL };
	int status;
	assert_int_equal(options_parse(2, joined, &o, &status), OPTIONS_RUN);
	assert_string_equal(o.token, "s3cr3t");
	assert_null(memmem(flag, sizeof(flag), "s3cr3t", 6));
	free(o.token);
	char *apart[] = { program, next, value, NULL };
	assert_int_equal(options_parse(3, apart, &o, &status), OPTIONS_RUN);
	assert_string_equal(o.token, "other");
	assert_null(memmem(value, sizeof(value), "other", 5));
	free(o.token);
	char empty[] = "--token=";
	char *random[] = { program, empty, NULL };
	assert_int_equal(options_parse(2, random, &o, &status), OPTIONS_RUN);
	assert_null(o.token);
	char long_flag[300] = "--token=";
	memset(long_flag + strlen(long_flag), 'x', 280);
	char *too_long[] = { program, long_flag, NULL };
	assert_int_equal(options_parse(2, too_long, &o, &status), OPTIONS_EXIT);
	assert_int_equal(status, 2);
	setenv("PTYCAST_AGENT_TOKEN", "from-environment", 1);
	char *none[] = { program, NULL };
	assert_int_equal(options_parse(1, none, &o, &status), OPTIONS_RUN);
	assert_string_equal(o.token, "from-environment");
	assert_null(getenv("PTYCAST_AGENT_TOKEN"));
	free(o.token);
}

static void merges_environments(void **state)
{
	(void)state;
	char a[] = "A=1", b[] = "B=2", ab[] = "AB=3", a2[] = "A=4", c[] = "C=", bad[] = "X",
	     bad2[] = "=y", c2[] = "C=5=6";
	char *base[] = { a, b, ab, NULL };
	char *extra[] = { a2, c, bad, bad2, c2, NULL };
	char **env = environment_merge(base, extra);
	assert_non_null(env);
	assert_string_equal(env[0], "A=4");
	assert_string_equal(env[1], "B=2");
	assert_string_equal(env[2], "AB=3");
	assert_string_equal(env[3], "C=5=6");
	assert_null(env[4]);
	assert_string_equal(environment_get(env, "C"), "5=6");
	assert_string_equal(environment_get(env, "AB"), "3");
	assert_null(environment_get(env, "D"));
	free(env);
	char *empty[] = { c, NULL };
	assert_null(environment_get(empty, "C"));
}

static void escapes_json_as_go_does(void **state)
{
	(void)state;
	char out[JSON_STRING_BYTES(32)];
	static const char expected[] = "a\\\"b\\\\c\\u0026\\u003c\\u003e\\u000a\\u007f\xc3\xa9";
	size_t size = json_string(out, "a\"b\\c&<>\n\x7f\xc3\xa9");
	assert_int_equal(size, sizeof(expected) - 1);
	assert_memory_equal(out, expected, size);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_the_durations_of_go),
		cmocka_unit_test(reads_flags_as_go_does),
		cmocka_unit_test(registers_in_mode_agent_alone),
		cmocka_unit_test(takes_the_token_out_of_sight),
		cmocka_unit_test(merges_environments),
		cmocka_unit_test(escapes_json_as_go_does),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
