/* Counting, and the page in Prometheus' text form. Counters are global: each test has its own. */
#include <inttypes.h>
#include <pthread.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "service/metrics.h"

/* The value on the line that starts with series, or -1 when there is none. */
static double value_of(const char *page, const char *series)
{
	size_t size = strlen(series);
	for (const char *line = page; *line != '\0'; line = strchr(line, '\n') + 1)
		if (strncmp(line, series, size) == 0 && line[size] == ' ')
			return strtod(line + size + 1, NULL);
	return -1;
}

static double rendered(const char *series)
{
	size_t size = 0;
	char *page = metrics_render(&size);
	assert_non_null(page);
	assert_int_equal(strlen(page), size);
	double value = value_of(page, series);
	free(page);
	return value;
}

static void counts_up_and_down(void **state)
{
	(void)state;
	metric_add(METRIC_VIEWERS_WS, 3);
	metric_add(METRIC_VIEWERS_WS, -1);
	assert_int_equal(metric_get(METRIC_VIEWERS_WS), 2);
	assert_true(rendered("ptycast_viewers{kind=\"ws\"}") == 2);
	assert_true(rendered("ptycast_viewers{kind=\"sse\"}") == 0);
}

static void every_metric_has_its_own_series_and_a_name_for_its_kind(void **state)
{
	(void)state;
	for (enum metric m = 0; m < METRIC_COUNT; m++)
		metric_add(m, 1000 + (int)m - metric_get(m));
	size_t size = 0;
	char *page = metrics_render(&size);
	for (enum metric m = 0; m < METRIC_COUNT; m++) {
		char end[32];
		snprintf(end, sizeof(end), " %d\n", 1000 + (int)m);
		char *found = strstr(page, end);
		assert_non_null(found);
		assert_null(strstr(found + 1, end));
		while (found > page && found[-1] != '\n')
			found--;
		assert_int_equal(strncmp(found, "ptycast_", 8), 0);
		bool is_counter = m >= METRIC_OUTPUT_BYTES;
		size_t name_size = strcspn(found, "{ ");
		bool has_total = strncmp(found + name_size - 6, "_total", 6) == 0;
		assert_true(is_counter == has_total);
	}
	free(page);
	for (enum metric m = 0; m < METRIC_COUNT; m++)
		metric_add(m, -metric_get(m));
}

static void every_line_has_the_text_form(void **state)
{
	(void)state;
	metric_http(2, "GET /sessions/:id", 404, 10);
	regex_t form;
	assert_int_equal(regcomp(&form,
				 "^(# HELP [a-z_]+ [^ ].*|# TYPE [a-z_]+ (counter|gauge|histogram)|"
				 "[a-z_]+(\\{[a-z]+=\"[^\"\\]*\"(,[a-z]+=\"[^\"\\]*\")*\\})? "
				 "[0-9]+(\\.[0-9]+)?)$",
				 REG_EXTENDED | REG_NOSUB),
			 0);
	size_t size = 0;
	char *page = metrics_render(&size);
	assert_int_equal(page[size - 1], '\n');
	char *rest = page;
	for (char *line; (line = strsep(&rest, "\n")) != NULL && *line != '\0';)
		if (regexec(&form, line, 0, NULL, 0) != 0)
			fail_msg("%s", line);
	regfree(&form);
	free(page);
}

static void names_each_family_once(void **state)
{
	(void)state;
	size_t size = 0;
	char *page = metrics_render(&size);
	for (const char *at = page; (at = strstr(at, "# TYPE ")) != NULL; at++) {
		char type[100];
		size_t name_size = strcspn(at + 7, " ") + 8;
		assert_true(name_size < sizeof(type));
		memcpy(type, at, name_size);
		type[name_size] = '\0';
		assert_null(strstr(at + 1, type));
	}
	free(page);
}

static void counts_requests_by_route_class_and_status(void **state)
{
	(void)state;
	metric_http(3, "POST /sessions", 201, 100);
	metric_http(3, "POST /sessions", 409, 100);
	metric_http(3, "POST /sessions", 429, 100);
	assert_true(
		rendered("ptycast_http_requests_total{route=\"POST /sessions\",class=\"2xx\"}") ==
		1);
	assert_true(
		rendered("ptycast_http_requests_total{route=\"POST /sessions\",class=\"4xx\"}") ==
		2);
	assert_true(
		rendered("ptycast_http_requests_total{route=\"POST /sessions\",class=\"5xx\"}") ==
		-1);
	assert_true(rendered("ptycast_http_responses_total{status=\"409\"}") == 1);
	assert_true(rendered("ptycast_http_responses_total{status=\"410\"}") == -1);
}

#define DURATION "ptycast_http_request_duration_seconds"

static void puts_durations_into_buckets_that_include_their_bound(void **state)
{
	(void)state;
	static const uint64_t durations_us[] = { 0, 500, 501, 10000000, 10000001 };
	for (size_t i = 0; i < sizeof(durations_us) / sizeof(durations_us[0]); i++)
		metric_http(4, "GET /slow", 200, durations_us[i]);
	assert_true(rendered(DURATION "_bucket{route=\"GET /slow\",le=\"0.0005\"}") == 2);
	assert_true(rendered(DURATION "_bucket{route=\"GET /slow\",le=\"0.001\"}") == 3);
	assert_true(rendered(DURATION "_bucket{route=\"GET /slow\",le=\"5\"}") == 3);
	assert_true(rendered(DURATION "_bucket{route=\"GET /slow\",le=\"10\"}") == 4);
	assert_true(rendered(DURATION "_bucket{route=\"GET /slow\",le=\"+Inf\"}") == 5);
	assert_true(rendered(DURATION "_count{route=\"GET /slow\"}") == 5);
	assert_true(rendered(DURATION "_sum{route=\"GET /slow\"}") == 20.001002);
}

static void tells_of_the_process(void **state)
{
	(void)state;
	assert_true(rendered("process_resident_memory_bytes") > 1e5);
	assert_true(rendered("process_cpu_seconds_total") >= 0);
	double before = rendered("process_open_fds");
	FILE *opened = fopen("/dev/null", "r");
	assert_true(rendered("process_open_fds") == before + 1);
	fclose(opened);
	double started = rendered("process_start_time_seconds");
	double now = (double)time(NULL);
	assert_true(started > now - 3600 && started <= now + 1);
	assert_true(rendered("process_start_time_seconds") == started);
}

#define THREADS 4
#define TIMES 20000

static void *count_many(void *arg)
{
	(void)arg;
	for (int i = 0; i < TIMES; i++) {
		metric_add(METRIC_OUTPUT_BYTES, 2);
		metric_http(5, "GET /many", 200, 1);
	}
	return NULL;
}

static void loses_nothing_between_threads(void **state)
{
	(void)state;
	pthread_t threads[THREADS];
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, count_many, NULL);
	for (int i = 0; i < 20; i++)
		rendered("ptycast_output_bytes_total");
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(metric_get(METRIC_OUTPUT_BYTES), 2 * THREADS * TIMES);
	assert_true(rendered(DURATION "_count{route=\"GET /many\"}") == THREADS * TIMES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_up_and_down),
		cmocka_unit_test(every_metric_has_its_own_series_and_a_name_for_its_kind),
		cmocka_unit_test(every_line_has_the_text_form),
		cmocka_unit_test(names_each_family_once),
		cmocka_unit_test(counts_requests_by_route_class_and_status),
		cmocka_unit_test(puts_durations_into_buckets_that_include_their_bound),
		cmocka_unit_test(tells_of_the_process),
		cmocka_unit_test(loses_nothing_between_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
