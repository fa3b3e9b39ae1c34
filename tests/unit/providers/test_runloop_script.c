/* Quoting, what the scripts say, and the command of the original agent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/providers/runloop_sandbox.h"

#define LINE                                                                            \
	"{\"instance\":\"00000000000000ff\",\"port\":8000,\"processId\":7,\"proto\":2," \
	"\"serverProcessId\":7,\"token\":\"%s\",\"version\":\"0.1.0\"}"

static void quotes_a_word(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
		{ "", "''" },
		{ "a b", "'a b'" },
		{ "it's", "'it'\\''s'" },
		{ "''", "''\\'''\\'''" },
		{ "$(x) `y` \\ \" \n", "'$(x) `y` \\ \" \n'" },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *quoted = sh_quote(cases[i][0]);
		assert_string_equal(quoted, cases[i][1]);
		free(quoted);
	}
}

static void a_quoted_word_is_one_word_to_every_shell(void **state)
{
	(void)state;
	char all[256];
	static struct said said;
	for (unsigned i = 0; i < 255; i++)
		all[i] = (char)(i + 1);
	all[255] = '\0';
	char *quoted = sh_quote(all);
	for (const char *const *shell = sandbox_shells(); *shell != NULL; shell++) {
		struct sandbox s;
		char *command;
		sandbox_init(&s, *shell, "home");
		/* Twice: as it is, and as the scripts have it, inside another word. */
		assert_true(asprintf(&command, "sh -c 'printf %%s \"$1\"' x %s", quoted) > 0);
		char *inner = sh_quote(command);
		sandbox_run(&s, command, &said);
		assert_string_equal(said.out, all);
		assert_true(asprintf(&command, "sh -c %s", inner) > 0);
		sandbox_run(&s, command, &said);
		assert_string_equal(said.out, all);
		free(inner);
		sandbox_fini(&s);
	}
	free(quoted);
}

static void reads_the_last_verdict(void **state)
{
	(void)state;
	static const struct {
		const char *out;
		enum runloop_verdict verdict;
		const char *text;
	} cases[] = {
		{ "", RUNLOOP_NOTHING, "" },
		{ "Welcome to the box\n{\"port\":1}\n", RUNLOOP_NOTHING, "" },
		{ "motd\r\nptycast: need x86_64\r\n", RUNLOOP_NEED, "" },
		{ "ptycast: arch s390x\n", RUNLOOP_NO_AGENT, "s390x" },
		{ "ptycast: arch \n", RUNLOOP_NO_AGENT, "" },
		{ "ptycast: error install no\001 \033[31mspace\xff\n", RUNLOOP_NOT_INSTALLED,
		  "no [31mspace?" },
		{ "ptycast: error start its status was 1", RUNLOOP_NOT_STARTED,
		  "its status was 1" },
		{ "ptycast: alive\n", RUNLOOP_ALIVE, "" },
		{ "ptycast: gone\nbye\n", RUNLOOP_GONE, "" },
		{ " ptycast: gone\n", RUNLOOP_NOTHING, "" },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct runloop_said said;
		runloop_script_read(cases[i].out, &said);
		assert_int_equal(said.verdict, cases[i].verdict);
		assert_string_equal(said.text, cases[i].text);
	}
}

static void reads_the_handshake_of_our_agent_only(void **state)
{
	(void)state;
	struct runloop_said said;
	char out[1024];
	snprintf(out, sizeof(out), "motd\n" LINE "\n", "secret");
	runloop_script_read(out, &said);
	assert_int_equal(said.verdict, RUNLOOP_STARTED);
	assert_int_equal(said.handshake.port, 8000);
	assert_true(said.handshake.instance == 0xff);
	assert_string_equal(said.handshake.token, "secret");
	runloop_script_read("{\"port\":1,\"processId\":1,\"serverProcessId\":1,\"token\":\"x\"}\n",
			    &said);
	assert_int_equal(said.verdict, RUNLOOP_NOTHING);
}

static void tells_the_last_line_of_stderr_clean_and_short(void **state)
{
	(void)state;
	char text[RUNLOOP_TEXT_BYTES], longer[400],
		log[] = "{\"level\":\"error\",\"pid\":1,"
			"\"msg\":\"no \\u0007port\"}\n\n";
	runloop_script_last_line("", text);
	assert_string_equal(text, "");
	runloop_script_last_line("one\ntwo\033[0m\r\n \n", text);
	assert_string_equal(text, "two[0m");
	runloop_script_last_line(log, text);
	assert_string_equal(text, "no port");
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	runloop_script_last_line(longer, text);
	assert_int_equal(strlen(text), 120);
}

static void passes_command_environment_and_directory_on_as_they_are(void **state)
{
	(void)state;
	static struct said said;
	static const char *const command[] = { "it's", "-x", "", "$(touch y)\n*", NULL };
	static const char *const env[] = { "A=b c'd", "B=", "TERM=vt100", NULL };
	for (const char *const *shell = sandbox_shells(); *shell != NULL; shell++) {
		struct sandbox s;
		char cwd[600];
		sandbox_init(&s, *shell, "it's a home");
		snprintf(cwd, sizeof(cwd), "%s", s.home);
		s.home[0] = '\0';
		sandbox_program(&s, "pty-tunnel-server",
				"#!/bin/sh\n[ -e y ] && echo BAD\npwd\n"
				"printf '%s|' \"$A\" \"$B\" \"$TERM\" \"$@\"\n");
		struct pty_request request = {
			.command = command, .env = env, .cwd = cwd, .cols = 100, .rows = 30
		};
		sandbox_run(&s, runloop_script_pty_tunnel(&request), &said);
		char expected[1024];
		snprintf(expected, sizeof(expected),
			 "%s\nb c'd||vt100|--mode=client|--cols=100|--rows=30|--|it's|-x||"
			 "$(touch y)\n*|",
			 cwd);
		assert_string_equal(said.out, expected);
		assert_string_equal(said.err, "");

		request = (struct pty_request){ .cols = 80, .rows = 24 };
		sandbox_run(&s, runloop_script_pty_tunnel(&request), &said);
		snprintf(expected, sizeof(expected),
			 "%s\n||xterm-256color|--mode=client|--cols=80|--rows=24|--|bash|", s.root);
		assert_string_equal(said.out, expected);

		request.cwd = "/not there";
		sandbox_run(&s, runloop_script_pty_tunnel(&request), &said);
		assert_int_equal(said.status, 1);
		assert_string_equal(said.out, "");
		assert_non_null(strstr(said.err, "/not there"));
		sandbox_fini(&s);
	}
}

static void says_that_the_original_agent_is_missing(void **state)
{
	(void)state;
	static struct said said;
	for (const char *const *shell = sandbox_shells(); *shell != NULL; shell++) {
		struct sandbox s;
		const struct pty_request request = { .cols = 80, .rows = 24 };
		char text[RUNLOOP_TEXT_BYTES];
		sandbox_init(&s, *shell, "home");
		sandbox_run(&s, runloop_script_pty_tunnel(&request), &said);
		assert_int_equal(said.status, 127);
		runloop_script_last_line(said.err, text);
		assert_string_equal(text, "pty-tunnel-server is not in the sandbox");
		sandbox_fini(&s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(quotes_a_word),
		cmocka_unit_test(a_quoted_word_is_one_word_to_every_shell),
		cmocka_unit_test(reads_the_last_verdict),
		cmocka_unit_test(reads_the_handshake_of_our_agent_only),
		cmocka_unit_test(tells_the_last_line_of_stderr_clean_and_short),
		cmocka_unit_test(passes_command_environment_and_directory_on_as_they_are),
		cmocka_unit_test(says_that_the_original_agent_is_missing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
