/* What a log line looks like, and that nothing a caller passes can break it. */
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "service/log.h"

/* stderr goes to a file in memory between capture() and captured(). */
static int saved_stderr, memory;

static void capture(void)
{
	saved_stderr = dup(STDERR_FILENO);
	memory = memfd_create("log", MFD_CLOEXEC);
	dup2(memory, STDERR_FILENO);
}

static char text[1 << 20];

static const char *captured(void)
{
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	ssize_t size = pread(memory, text, sizeof(text) - 1, 0);
	assert_true(size >= 0);
	text[size] = '\0';
	close(memory);
	return text;
}

/* True when the line begins as in "2026-11-23T02:15:36.123Z ". */
static bool has_time(const char *line)
{
	static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ";
	for (size_t i = 0; form[i] != '\0'; i++)
		if (form[i] == 'd' ? !isdigit((unsigned char)line[i]) : line[i] != form[i])
			return false;
	return true;
}

#define TIME_CHARS 24

static void writes_time_level_event_and_pairs(void **state)
{
	(void)state;
	log_init(LOG_INFO, false);
	capture();
	log_info("listening", "url=%s port=%d", "http://127.0.0.1/", 8080);
	const char *line = captured();
	assert_true(has_time(line));
	assert_string_equal(line + TIME_CHARS, " info listening url=http://127.0.0.1/ port=8080\n");
}

static void leaves_out_what_is_below_its_level(void **state)
{
	(void)state;
	log_init(LOG_WARN, false);
	assert_false(log_enabled(LOG_INFO));
	assert_true(log_enabled(LOG_WARN));
	capture();
	log_debug("a", "n=%d", 1);
	log_info("b", "n=%d", 2);
	log_warn("c", "n=%d", 3);
	log_error("d", "n=%d", 4);
	const char *lines = captured();
	assert_null(strstr(lines, " a "));
	assert_null(strstr(lines, " b "));
	assert_non_null(strstr(lines, " warn c n=3\n"));
	assert_non_null(strstr(lines, " error d n=4\n"));
}

/* Calls log_info() with format "%s" and pairs, and parses the JSON line. */
static json_t *json_line(const char *event, const char *pairs)
{
	log_init(LOG_INFO, true);
	capture();
	log_info(event, "%s", pairs);
	const char *line = captured();
	size_t size = strlen(line);
	assert_true(size > 0 && line[size - 1] == '\n');
	json_t *json = json_loadb(line, size - 1, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(json);
	return json;
}

static void writes_json_with_numbers_as_numbers(void **state)
{
	(void)state;
	json_t *json = json_line(
		"tunnel lost", "session=s1 close_code=1006 rc=-5 zero=0 id=007 "
			       "epoch=1234567890123456 half=1.5 text=\"no route to\" quoted=\"5\"");
	assert_true(has_time(json_string_value(json_object_get(json, "time"))));
	assert_string_equal(json_string_value(json_object_get(json, "level")), "info");
	assert_string_equal(json_string_value(json_object_get(json, "event")), "tunnel lost");
	assert_string_equal(json_string_value(json_object_get(json, "session")), "s1");
	assert_int_equal(json_integer_value(json_object_get(json, "close_code")), 1006);
	assert_int_equal(json_integer_value(json_object_get(json, "rc")), -5);
	assert_true(json_is_integer(json_object_get(json, "zero")));
	assert_string_equal(json_string_value(json_object_get(json, "id")), "007");
	assert_string_equal(json_string_value(json_object_get(json, "epoch")), "1234567890123456");
	assert_string_equal(json_string_value(json_object_get(json, "half")), "1.5");
	assert_string_equal(json_string_value(json_object_get(json, "text")), "no route to");
	assert_string_equal(json_string_value(json_object_get(json, "quoted")), "5");
	json_decref(json);
}

static void json_stays_json_whatever_the_pairs_hold(void **state)
{
	(void)state;
	static const char *const pairs[] = {
		"",        " ",        "word",   "a=",    "=a",         "a=\"",
		"a=\"b",   "a=\"\"",   "a=b\"c", "a=\\",  "a\\=b \"=c", "a=\"b\"c=d",
		"a=b=c",   "  a=b   ", "a=-",    "a=--1", "a=\"1\"",    "a=\x01\x7f\xff\xc3\xa9",
		"a={b=c}",
	};
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
		json_decref(json_line("event", pairs[i]));
}

static void no_text_can_end_a_line_or_speak_to_a_terminal(void **state)
{
	(void)state;
	log_init(LOG_INFO, false);
	capture();
	log_info("got", "name=%s", "a\nb\r\x1b[31m\x9b\xc2\x9bz");
	assert_string_equal(captured() + TIME_CHARS, " info got name=a?b??[31m???z\n");
}

static void a_line_has_2_kib_at_most(void **state)
{
	(void)state;
	static char long_text[5000];
	memset(long_text, 'x', sizeof(long_text) - 1);
	log_init(LOG_INFO, false);
	capture();
	log_info("long", "a=%s", long_text);
	const char *line = captured();
	assert_true(strlen(line) <= 2048);
	assert_true(strlen(line) > 2000);
	assert_string_equal(line + strlen(line) - 2, "x\n");
}

static void a_cut_json_line_is_whole_json_and_says_so(void **state)
{
	(void)state;
	static char pairs[4000];
	for (size_t size = 1850; size < 2100; size++) {
		snprintf(pairs, sizeof(pairs), "first=1 second=%0*d", (int)size, 0);
		json_t *json = json_line("long", pairs);
		assert_int_equal(json_integer_value(json_object_get(json, "first")), 1);
		bool is_cut = json_is_true(json_object_get(json, "cut"));
		assert_true(is_cut == (json_object_get(json, "second") == NULL));
		json_decref(json);
	}
}

static void safe_text_is_printable_and_ends(void **state)
{
	(void)state;
	char out[8];
	assert_string_equal(log_safe(out, sizeof(out), "plain"), "plain");
	assert_string_equal(log_safe(out, sizeof(out), "a\"b\\c\n"), "a?b?c?");
	assert_string_equal(log_safe(out, sizeof(out), "\xc3\xa9\x7f"), "???");
	assert_string_equal(log_safe(out, sizeof(out), "longer than that"), "longer ");
	assert_string_equal(log_safe(out, 1, "x"), "");
}

static void leaves_errno_alone(void **state)
{
	(void)state;
	log_init(LOG_INFO, false);
	int closed = dup(STDERR_FILENO);
	close(STDERR_FILENO);
	errno = ENOTTY;
	log_info("nobody listens", "n=%d", 1);
	int after = errno;
	dup2(closed, STDERR_FILENO);
	close(closed);
	assert_int_equal(after, ENOTTY);
}

#define WRITERS 4
#define LINES_EACH 200

static void *write_lines(void *arg)
{
	for (int i = 0; i < LINES_EACH; i++)
		log_info("line", "writer=%d n=%d end=yes", *(int *)arg, i);
	return NULL;
}

static void lines_of_many_threads_never_mix(void **state)
{
	(void)state;
	log_init(LOG_INFO, false);
	capture();
	int pipe_ends[2];
	assert_int_equal(pipe(pipe_ends), 0);
	dup2(pipe_ends[1], STDERR_FILENO);
	close(pipe_ends[1]);
	pthread_t threads[WRITERS];
	int numbers[WRITERS];
	for (int i = 0; i < WRITERS; i++) {
		numbers[i] = i;
		pthread_create(&threads[i], NULL, write_lines, &numbers[i]);
	}
	FILE *lines = fdopen(pipe_ends[0], "r");
	char line[200];
	int whole = 0;
	while (whole < WRITERS * LINES_EACH && fgets(line, sizeof(line), lines) != NULL)
		whole += has_time(line) && strstr(line, " end=yes\n") != NULL;
	for (int i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	captured();
	fclose(lines);
	assert_int_equal(whole, WRITERS * LINES_EACH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_time_level_event_and_pairs),
		cmocka_unit_test(leaves_out_what_is_below_its_level),
		cmocka_unit_test(writes_json_with_numbers_as_numbers),
		cmocka_unit_test(json_stays_json_whatever_the_pairs_hold),
		cmocka_unit_test(no_text_can_end_a_line_or_speak_to_a_terminal),
		cmocka_unit_test(a_line_has_2_kib_at_most),
		cmocka_unit_test(a_cut_json_line_is_whole_json_and_says_so),
		cmocka_unit_test(safe_text_is_printable_and_ends),
		cmocka_unit_test(leaves_errno_alone),
		cmocka_unit_test(lines_of_many_threads_never_mix),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
