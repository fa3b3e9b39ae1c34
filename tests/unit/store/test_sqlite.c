/* What store_sqlite alone promises: its file, its lock, kill -9, and disks that are full. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "service/metrics.h"
#include "store/store.h"

static char folder[64], path[100];

static int make_folder(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/ptycast-test-sqlite-XXXXXX");
	if (mkdtemp(folder) == NULL)
		return 1;
	snprintf(path, sizeof(path), "%s/store.db", folder);
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	char command[100];
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static struct store *open_store(void)
{
	struct store *s = NULL;
	struct error err = { 0 };
	if (store_sqlite.open(path, &s, &err) != 0)
		fail_msg("%s", err.text);
	return s;
}

static void assert_open_fails(int code, const char *text)
{
	struct store *s = NULL;
	struct error err = { 0 };
	assert_int_equal(store_sqlite.open(path, &s, &err), code);
	assert_null(s);
	if (strstr(err.text, text) == NULL)
		fail_msg("%s", err.text);
}

/* Runs sql on the file as another program would. */
static void run_sql(const char *sql)
{
	sqlite3 *db = NULL;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	char *text = NULL;
	if (sqlite3_exec(db, sql, NULL, NULL, &text) != SQLITE_OK)
		fail_msg("%s", text);
	sqlite3_close(db);
}

static struct store_session named(const char *id, uint64_t fence)
{
	struct store_session record = { .fence = fence };
	snprintf(record.id, sizeof(record.id), "%s", id);
	return record;
}

static void sleep_ms(long ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };
	nanosleep(&t, NULL);
}

/* Asks every 5 ms until it is so, for 20 s. */
static void wait_until(bool (*is_so)(void *arg), void *arg)
{
	for (int i = 0; i < 4000; i++) {
		if (is_so(arg))
			return;
		sleep_ms(5);
	}
	fail_msg("waited in vain");
}

/* The statuses of writes, in the order in which they were done. */
struct results {
	pthread_mutex_t lock;
	int count;
	int status[16];
};

#define RESULTS_INIT                              \
	{                                         \
		.lock = PTHREAD_MUTEX_INITIALIZER \
	}

static void note_result(void *arg, int status)
{
	struct results *r = arg;
	pthread_mutex_lock(&r->lock);
	r->status[r->count++ % 16] = status;
	pthread_mutex_unlock(&r->lock);
}

static int results_count(struct results *r)
{
	pthread_mutex_lock(&r->lock);
	int count = r->count;
	pthread_mutex_unlock(&r->lock);
	return count;
}

static bool has_a_result(void *arg)
{
	return results_count(arg) > 0;
}

static bool is_unhealthy(void *arg)
{
	return !store_sqlite.healthy(arg);
}

static int note_fence(void *arg, const struct store_session *record)
{
	*(uint64_t *)arg = record->fence;
	return 0;
}

static uint64_t loaded_fence(struct store *s)
{
	uint64_t fence = 0;
	assert_int_equal(store_sqlite.load_sessions(s, note_fence, &fence, NULL), 0);
	return fence;
}

/* --- the file --- */

static void its_files_are_for_the_owner_alone(void **state)
{
	(void)state;
	umask(0);
	struct store *s = open_store();
	struct store_session record = named("s1", 1);
	struct results r = RESULTS_INIT;
	assert_int_equal(store_sqlite.put_session(s, &record, note_result, &r), 0);
	wait_until(has_a_result, &r);
	umask(022);
	static const char *const suffixes[] = { "", "-wal", "-shm", ".lock" };
	for (size_t i = 0; i < 4; i++) {
		char name[120];
		snprintf(name, sizeof(name), "%s%s", path, suffixes[i]);
		struct stat st;
		assert_int_equal(stat(name, &st), 0);
		assert_int_equal(st.st_mode & 07777, 0600);
	}
	store_sqlite.close(s);
}

static void works_in_memory_too(void **state)
{
	(void)state;
	strcpy(path, ":memory:");
	struct store *a = open_store(), *b = open_store();
	struct store_session record = named("s1", 5);
	struct results r = RESULTS_INIT;
	assert_int_equal(store_sqlite.put_session(a, &record, note_result, &r), 0);
	wait_until(has_a_result, &r);
	assert_true(loaded_fence(a) == 5);
	assert_true(loaded_fence(b) == 0);
	store_sqlite.close(a);
	store_sqlite.close(b);
}

static void refuses_a_newer_schema_and_leaves_it(void **state)
{
	(void)state;
	store_sqlite.close(open_store());
	run_sql("PRAGMA user_version = 3");
	assert_open_fails(-EPROTONOSUPPORT,
			  "was written by a newer ptycast: its schema is 3, this one knows 2");
	run_sql("PRAGMA user_version = 2");
	store_sqlite.close(open_store());
}

/* Version 1 as it was made, with a session and a value. */
static const char version_1[] =
	"PRAGMA journal_mode = WAL; CREATE TABLE sessions ("
	" id TEXT PRIMARY KEY NOT NULL,"
	" subject TEXT, sandbox TEXT, provider TEXT, params TEXT, endpoint TEXT,"
	" epoch INTEGER, end_offset INTEGER, fence INTEGER, cols INTEGER, rows INTEGER,"
	" created_ms INTEGER, idle_timeout_s INTEGER,"
	" ended INTEGER, ended_json TEXT, ended_ms INTEGER);"
	"CREATE TABLE service_values (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL);"
	"INSERT INTO sessions VALUES ('s1', 'alice', 'local', 'local', 'p', 'sealed', -1, 7, 42, 80,"
	" 24, 1000, 60, 0, NULL, 0);"
	"INSERT INTO service_values VALUES ('cookie-key', x'01020304');"
	"PRAGMA application_id = 1886681443; PRAGMA user_version = 1";

static int check_old_session(void *arg, const struct store_session *r)
{
	++*(int *)arg;
	assert_string_equal(r->id, "s1");
	assert_string_equal(r->subject, "alice");
	assert_string_equal(r->endpoint, "sealed");
	assert_null(r->target);
	assert_true(r->epoch == UINT64_MAX);
	assert_int_equal(r->fence, 42);
	assert_int_equal(r->cols, 80);
	assert_false(r->ended);
	return 0;
}

static void assert_migrated(struct store *s)
{
	int count = 0;
	uint8_t key[4] = { 0 };
	assert_int_equal(store_sqlite.load_sessions(s, check_old_session, &count, NULL), 0);
	assert_int_equal(count, 1);
	assert_int_equal(store_sqlite.get_or_put(s, "cookie-key", key, sizeof(key), NULL), 0);
	assert_memory_equal(key, ((uint8_t[]){ 1, 2, 3, 4 }), 4);
	size_t sandboxes = 9;
	assert_int_equal(store_sqlite.count_sandboxes(s, "alice", &sandboxes, NULL), 0);
	assert_int_equal(sandboxes, 0);
}

static void brings_version_1_up_and_keeps_what_it_has(void **state)
{
	(void)state;
	run_sql(version_1);
	for (int i = 0; i < 2; i++) { /* the second time it is new */
		struct store *s = open_store();
		assert_migrated(s);
		store_sqlite.close(s);
	}
}

static void *open_at_once(void *arg)
{
	struct store **s = arg;
	assert_int_equal(store_sqlite.open_tool(path, s, NULL), 0);
	return NULL;
}

static void many_that_bring_it_up_at_once_do_it_once(void **state)
{
	(void)state;
	run_sql(version_1);
	pthread_t threads[6];
	struct store *stores[6];
	for (int i = 0; i < 6; i++)
		pthread_create(&threads[i], NULL, open_at_once, &stores[i]);
	for (int i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 6; i++) {
		assert_migrated(stores[i]);
		store_sqlite.close(stores[i]);
	}
}

static void a_migration_that_fails_leaves_version_1(void **state)
{
	(void)state;
	run_sql(version_1);
	run_sql("CREATE TABLE sandboxes (x)"); /* is in the way */
	assert_open_fails(-EIO, "table sandboxes already exists");
	run_sql("DROP TABLE sandboxes");
	struct store *s = open_store();
	assert_migrated(s);
	store_sqlite.close(s);
}

static void refuses_the_database_of_another_program(void **state)
{
	(void)state;
	run_sql("CREATE TABLE sessions (id TEXT)");
	assert_open_fails(-EBADMSG, "is the database of another program");
	run_sql("SELECT id FROM sessions"); /* is as it was */
}

static void refuses_a_file_that_is_no_database(void **state)
{
	(void)state;
	FILE *f = fopen(path, "w");
	for (int i = 0; i < 1000; i++)
		fputs("this is not a database\n", f);
	fclose(f);
	assert_open_fails(-EBADMSG, "file is not a database");
}

static void says_which_path_cannot_be_opened(void **state)
{
	(void)state;
	strcpy(path, "/nonexistent/store.db");
	assert_open_fails(-ENOENT, "store: /nonexistent/store.db.lock: No such file or directory");
	strcpy(path, folder);
	assert_open_fails(-EISDIR, "Is a directory");
	char command[200];
	snprintf(command, sizeof(command), "rm %s.lock", folder);
	assert_int_equal(system(command), 0);
}

/* --- one process at a time, and kill -9 --- */

static void a_second_one_is_refused_until_the_first_is_closed(void **state)
{
	(void)state;
	struct store *s = open_store();
	assert_open_fails(-EBUSY, "is in use by another process");
	store_sqlite.close(s);
	store_sqlite.close(open_store());
}

static void a_tool_needs_no_lock_and_takes_none(void **state)
{
	(void)state;
	struct store *s = open_store(), *tool = NULL, *other = NULL;
	assert_int_equal(store_sqlite.open_tool(path, &tool, NULL), 0);
	store_sqlite.close(s);
	s = open_store(); /* while the tool has it */
	assert_int_equal(store_sqlite.open_tool(path, &other, NULL), 0);
	assert_open_fails(-EBUSY, "is in use by another process");
	store_sqlite.close(other);
	store_sqlite.close(tool);
	store_sqlite.close(s);
}

static void *commit_later(void *arg)
{
	sleep_ms(1500); /* longer than a session's write would wait */
	assert_int_equal(sqlite3_exec(arg, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
	return NULL;
}

static void a_sandbox_waits_for_another_program(void **state)
{
	(void)state;
	struct store *s = open_store();
	sqlite3 *other = NULL;
	assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
	assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	pthread_t thread;
	pthread_create(&thread, NULL, commit_later, other);
	struct store_sandbox record = { .id = "one" };
	char text[] = "x";
	record.subject = record.provider = record.external_id = record.credential = text;
	record.redacted = record.transport = record.agent = text;
	assert_int_equal(store_sqlite.insert_sandbox(s, &record, NULL), 0);
	pthread_join(thread, NULL);
	sqlite3_close(other);
	store_sqlite.close(s);
}

static void write_number(void *arg, int status)
{
	uint32_t number = (uint32_t)(uintptr_t)arg;
	if (status != 0 || write(STDOUT_FILENO, &number, sizeof(number)) != sizeof(number))
		_exit(1);
}

/* Writes records as fast as it can, and each number to stdout once it is on disk. */
_Noreturn static void write_until_killed(void)
{
	struct store *s = open_store();
	for (uint32_t i = 1;; i++) {
		struct store_session record = named("s1", i);
		while (store_sqlite.put_session(s, &record, write_number, (void *)(uintptr_t)i) !=
		       0)
			;
	}
}

static void a_killed_process_loses_nothing_and_leaves_no_lock(void **state)
{
	(void)state;
	for (int round = 0; round < 5; round++) {
		int ends[2];
		assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
		pid_t child = fork();
		if (child == 0) {
			dup2(ends[1], STDOUT_FILENO);
			write_until_killed();
		}
		close(ends[1]);
		FILE *numbers = fdopen(ends[0], "r");
		uint32_t number = 0, last = 0;
		for (int i = 0; i < 500 * (round + 1); i++)
			assert_int_equal(fread(&last, sizeof(last), 1, numbers), 1);
		kill(child, SIGKILL);
		assert_int_equal(waitpid(child, NULL, 0), child);
		while (fread(&number, sizeof(number), 1, numbers) == 1)
			last = number; /* what it still said before it died */
		fclose(numbers);

		struct store *s = open_store();
		assert_true(loaded_fence(s) >= last);
		store_sqlite.close(s);
	}
}

/* --- writes that fail --- */

static void limit_file_size(rlim_t bytes)
{
	struct rlimit limit;
	getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void waits_for_a_full_disk_and_keeps_the_order(void **state)
{
	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	struct store *s = open_store();
	int64_t errors = metric_get(METRIC_STORE_ERRORS);
	struct results r = RESULTS_INIT;
	limit_file_size(1024);
	struct store_session big = named("s1", 1);
	big.params = malloc(100000);
	memset(big.params, 'x', 99999);
	big.params[99999] = '\0';
	assert_int_equal(store_sqlite.put_session(s, &big, note_result, &r), 0);
	free(big.params);
	wait_until(is_unhealthy, s);
	struct store_session next = named("s1", 2);
	assert_int_equal(store_sqlite.put_session(s, &next, note_result, &r), 0);
	sleep_ms(200); /* a few tries more */
	assert_int_equal(results_count(&r), 0);
	assert_true(metric_get(METRIC_STORE_ERRORS) > errors);

	limit_file_size(RLIM_INFINITY);
	wait_until(has_a_result, &r);
	store_sqlite.close(s);
	assert_int_equal(r.count, 2);
	assert_int_equal(r.status[0], 0);
	assert_int_equal(r.status[1], 0);
	s = open_store();
	assert_true(loaded_fence(s) == 2);
	assert_true(store_sqlite.healthy(s));
	store_sqlite.close(s);
}

static void tries_again_while_another_program_writes(void **state)
{
	(void)state;
	struct store *s = open_store();
	sqlite3 *other = NULL;
	assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
	assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	struct results r = RESULTS_INIT;
	struct store_session record = named("s1", 3);
	assert_int_equal(store_sqlite.put_session(s, &record, note_result, &r), 0);
	wait_until(is_unhealthy, s);
	assert_int_equal(results_count(&r), 0);
	assert_int_equal(sqlite3_exec(other, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(other);
	wait_until(has_a_result, &r);
	assert_int_equal(r.status[0], 0);
	assert_true(store_sqlite.healthy(s));
	assert_true(loaded_fence(s) == 3);
	store_sqlite.close(s);
}

static void closing_gives_up_in_the_end_and_says_so_to_each(void **state)
{
	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	struct store *s = open_store();
	limit_file_size(1024);
	struct results r = RESULTS_INIT;
	for (uint64_t i = 0; i < 4; i++) {
		struct store_session record = named((const char *[]){ "a", "b", "c", "d" }[i], i);
		assert_int_equal(store_sqlite.put_session(s, &record, note_result, &r), 0);
	}
	wait_until(is_unhealthy, s);
	struct timespec before, after;
	clock_gettime(CLOCK_MONOTONIC, &before);
	store_sqlite.close(s);
	clock_gettime(CLOCK_MONOTONIC, &after);
	limit_file_size(RLIM_INFINITY);
	assert_true(after.tv_sec - before.tv_sec < 10);
	assert_int_equal(r.count, 4);
	for (int i = 0; i < 4; i++)
		assert_true(r.status[i] < 0);
	s = open_store();
	assert_true(loaded_fence(s) == 0);
	store_sqlite.close(s);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
	const struct CMUnitTest tests[] = {
		IN_FOLDER(its_files_are_for_the_owner_alone),
		IN_FOLDER(works_in_memory_too),
		IN_FOLDER(refuses_a_newer_schema_and_leaves_it),
		IN_FOLDER(brings_version_1_up_and_keeps_what_it_has),
		IN_FOLDER(many_that_bring_it_up_at_once_do_it_once),
		IN_FOLDER(a_migration_that_fails_leaves_version_1),
		IN_FOLDER(refuses_the_database_of_another_program),
		IN_FOLDER(refuses_a_file_that_is_no_database),
		IN_FOLDER(says_which_path_cannot_be_opened),
		IN_FOLDER(a_second_one_is_refused_until_the_first_is_closed),
		IN_FOLDER(a_tool_needs_no_lock_and_takes_none),
		IN_FOLDER(a_sandbox_waits_for_another_program),
		IN_FOLDER(a_killed_process_loses_nothing_and_leaves_no_lock),
		IN_FOLDER(waits_for_a_full_disk_and_keeps_the_order),
		IN_FOLDER(tries_again_while_another_program_writes),
		IN_FOLDER(closing_gives_up_in_the_end_and_says_so_to_each),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
