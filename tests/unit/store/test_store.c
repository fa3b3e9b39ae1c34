/* What every implementation of store.h must do: each test runs over each of them. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "store/store.h"

/* An implementation, and an empty place for it. */
struct target {
	const struct store_ops *ops;
	char location[200];
};

/* --- a folder for the SQLite file --- */

static char folder[64];
static struct target sqlite_target = { .ops = &store_sqlite };

static int make_sqlite_place(void **state)
{
	strcpy(folder, "/tmp/ptycast-test-store-XXXXXX");
	if (mkdtemp(folder) == NULL)
		return 1;
	snprintf(sqlite_target.location, sizeof(sqlite_target.location), "%s/store.db", folder);
	*state = &sqlite_target;
	return 0;
}

static int remove_sqlite_place(void **state)
{
	(void)state;
	char command[100];
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

/* --- helpers --- */

static struct store *open_store(const struct target *t)
{
	struct store *s = NULL;
	struct error err = { 0 };
	if (t->ops->open(t->location, &s, &err) != 0)
		fail_msg("%s", err.text);
	assert_true(t->ops->healthy(s));
	return s;
}

/* Waits for a number of done callbacks. */
struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int done, failed;
};

#define WAITER_INIT                                                                    \
	{                                                                              \
		.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER \
	}

static void note_done(void *arg, int status)
{
	struct waiter *w = arg;
	pthread_mutex_lock(&w->lock);
	w->done++;
	w->failed += status != 0;
	pthread_cond_signal(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

static void wait_done(struct waiter *w, int count)
{
	struct timespec deadline;
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += 20;
	pthread_mutex_lock(&w->lock);
	while (w->done < count)
		if (pthread_cond_timedwait(&w->changed, &w->lock, &deadline) != 0)
			break;
	int done = w->done, failed = w->failed;
	pthread_mutex_unlock(&w->lock);
	assert_int_equal(done, count);
	assert_int_equal(failed, 0);
}

static void put_and_wait(const struct target *t, struct store *s,
			 const struct store_session *record)
{
	struct waiter w = WAITER_INIT;
	assert_int_equal(t->ops->put_session(s, record, note_done, &w), 0);
	wait_done(&w, 1);
}

static struct store_session named(const char *id, int64_t created_ms)
{
	struct store_session record = { .created_ms = created_ms };
	snprintf(record.id, sizeof(record.id), "%s", id);
	return record;
}

#define LOADED_MAX 1000

struct loaded {
	struct store_session all[LOADED_MAX];
	int count;
};

static int keep(void *arg, const struct store_session *record)
{
	struct loaded *l = arg;
	assert_true(l->count < LOADED_MAX);
	return store_session_copy(record, &l->all[l->count++]);
}

/* All records, oldest first. */
static struct loaded *load(const struct target *t, struct store *s)
{
	static struct loaded l;
	while (l.count > 0)
		store_session_fini(&l.all[--l.count]);
	if (s != NULL)
		assert_int_equal(t->ops->load_sessions(s, keep, &l, NULL), 0);
	return &l;
}

static void assert_text(const char *a, const char *b)
{
	assert_int_equal(a == NULL, b == NULL);
	if (a != NULL)
		assert_string_equal(a, b);
}

static void assert_same(const struct store_session *a, const struct store_session *b)
{
	assert_string_equal(a->id, b->id);
	assert_text(a->subject, b->subject);
	assert_text(a->sandbox, b->sandbox);
	assert_text(a->provider, b->provider);
	assert_text(a->params, b->params);
	assert_text(a->endpoint, b->endpoint);
	assert_true(a->epoch == b->epoch);
	assert_true(a->end == b->end);
	assert_true(a->fence == b->fence);
	assert_int_equal(a->cols, b->cols);
	assert_int_equal(a->rows, b->rows);
	assert_true(a->created_ms == b->created_ms);
	assert_int_equal(a->idle_timeout_s, b->idle_timeout_s);
	assert_int_equal(a->ended, b->ended);
	assert_text(a->ended_json, b->ended_json);
	assert_true(a->ended_ms == b->ended_ms);
}

static const struct store_session full_record = {
	.id = "a_session-with_the_longest-id_of_64_characters_xxxxxxxxxxxxxxxxx",
	.subject = (char[]){ "did:plc:zo\xc3\xab" },
	.sandbox = (char[]){ "{\"provider\":\"url\"}" },
	.provider = (char[]){ "url" },
	.params = (char[]){ "{\"command\":[\"bash\",\"-c\",\"echo 'a;b' \\u0000\"]}" },
	.endpoint = (char[]){ "c2VhbGVk" },
	.epoch = UINT64_MAX,
	.end = UINT64_C(1) << 63,
	.fence = UINT64_MAX - 1,
	.cols = 1000,
	.rows = UINT16_MAX,
	.created_ms = INT64_C(1795401918700),
	.idle_timeout_s = UINT32_MAX,
	.ended = true,
	.ended_json = (char[]){ "{\"reason\":\"exited\",\"exit_code\":0}" },
	.ended_ms = INT64_C(1795401918701),
};

/* --- the suite --- */

static void a_new_store_holds_nothing(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	assert_int_equal(load(t, s)->count, 0);
	t->ops->close(s);
	t->ops->close(NULL);
}

static void keeps_every_field_of_a_record(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	put_and_wait(t, s, &full_record);
	struct loaded *l = load(t, s);
	assert_int_equal(l->count, 1);
	assert_same(&l->all[0], &full_record);
	t->ops->close(s);
}

static void tells_an_empty_text_from_none(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	struct store_session record = named("s1", 1);
	record.subject = (char[]){ "" };
	put_and_wait(t, s, &record);
	struct loaded *l = load(t, s);
	assert_int_equal(l->count, 1);
	assert_same(&l->all[0], &record);
	t->ops->close(s);
}

static void a_second_put_replaces_the_whole_record(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	put_and_wait(t, s, &full_record);
	struct store_session record = named(full_record.id, 7);
	put_and_wait(t, s, &record);
	struct loaded *l = load(t, s);
	assert_int_equal(l->count, 1);
	assert_same(&l->all[0], &record);
	t->ops->close(s);
}

static void copies_the_record_that_is_put(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	struct waiter w = WAITER_INIT;
	for (int i = 0; i < 100; i++) {
		struct store_session record = named("s1", i);
		record.subject = strdup("alice");
		assert_int_equal(t->ops->put_session(s, &record, note_done, &w), 0);
		memset(record.subject, 'x', 5);
		store_session_fini(&record);
	}
	wait_done(&w, 100);
	struct loaded *l = load(t, s);
	assert_int_equal(l->count, 1);
	assert_string_equal(l->all[0].subject, "alice");
	t->ops->close(s);
}

static void loads_the_oldest_first(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	static const char *const ids[] = { "c", "a", "d", "b" };
	static const int64_t created[] = { 30, 20, 10, 20 };
	for (int i = 0; i < 4; i++) {
		struct store_session record = named(ids[i], created[i]);
		put_and_wait(t, s, &record);
	}
	struct store_session again = named("d", 10); /* a later write does not make it younger */
	put_and_wait(t, s, &again);
	struct loaded *l = load(t, s);
	assert_int_equal(l->count, 4);
	assert_string_equal(l->all[0].id, "d");
	assert_string_equal(l->all[1].id, "a");
	assert_string_equal(l->all[2].id, "b");
	assert_string_equal(l->all[3].id, "c");
	t->ops->close(s);
}

static void carries_writes_of_one_session_out_in_order(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	struct waiter w = WAITER_INIT;
	for (int i = 0; i < 1000; i++) {
		struct store_session record = named(i % 2 == 0 ? "even" : "odd", i);
		record.fence = (uint64_t)i;
		assert_int_equal(t->ops->put_session(s, &record, note_done, &w), 0);
		if (i % 7 == 0)
			assert_int_equal(t->ops->delete_session(s, "even"), 0);
	}
	wait_done(&w, 1000); /* each exactly once, also those that the next one replaced */
	struct loaded *l = load(t, s);
	assert_int_equal(l->count, 2);
	assert_true(l->all[0].fence == 998);
	assert_true(l->all[1].fence == 999);
	t->ops->close(s);
}

static void deletes_what_is_there_and_minds_not_what_is_not(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	struct store_session first = named("s1", 1), second = named("s2", 2);
	put_and_wait(t, s, &first);
	assert_int_equal(t->ops->delete_session(s, "s1"), 0);
	assert_int_equal(t->ops->delete_session(s, "nobody"), 0);
	put_and_wait(t, s, &second);
	struct loaded *l = load(t, s);
	assert_int_equal(l->count, 1);
	assert_string_equal(l->all[0].id, "s2");
	t->ops->close(s);
}

static void close_waits_for_all_that_is_queued(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	for (int i = 0; i < 900; i++) {
		char id[16];
		snprintf(id, sizeof(id), "s%03d", i);
		struct store_session record = named(id, i);
		assert_int_equal(t->ops->put_session(s, &record, NULL, NULL), 0);
	}
	t->ops->close(s);
	s = open_store(t);
	struct loaded *l = load(t, s);
	assert_int_equal(l->count, 900);
	assert_string_equal(l->all[899].id, "s899");
	t->ops->close(s);
}

static int stop_at_second(void *arg, const struct store_session *record)
{
	int *calls = arg;
	return ++*calls == 2 && record->id[0] == 's' ? -ECANCELED : 0;
}

static void loading_stops_when_told(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	for (int i = 0; i < 3; i++) {
		struct store_session record = named((const char *[]){ "s1", "s2", "s3" }[i], i);
		put_and_wait(t, s, &record);
	}
	int calls = 0;
	struct error err = { 0 };
	assert_int_equal(t->ops->load_sessions(s, stop_at_second, &calls, &err), -ECANCELED);
	assert_int_equal(calls, 2);
	assert_string_equal(err.text, "loading stopped at session s2");
	t->ops->close(s);
}

struct both {
	const struct target *target;
	struct store *store;
	struct waiter waiter;
};

static int write_it_back(void *arg, const struct store_session *record)
{
	struct both *b = arg;
	struct store_session copy = *record;
	copy.fence++;
	uint8_t value[4] = { 0 };
	assert_int_equal(b->target->ops->get_or_put(b->store, "x", value, sizeof(value), NULL), 0);
	return b->target->ops->put_session(b->store, &copy, note_done, &b->waiter);
}

static void the_store_may_be_used_while_it_is_loaded(void **state)
{
	const struct target *t = *state;
	struct both b = { .target = t, .store = open_store(t), .waiter = WAITER_INIT };
	for (int i = 0; i < 3; i++) {
		struct store_session record = named((const char *[]){ "s1", "s2", "s3" }[i], i);
		put_and_wait(t, b.store, &record);
	}
	assert_int_equal(t->ops->load_sessions(b.store, write_it_back, &b, NULL), 0);
	wait_done(&b.waiter, 3);
	assert_true(load(t, b.store)->all[2].fence == 1);
	t->ops->close(b.store);
}

static void a_value_is_made_once_and_stays(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	uint8_t first[32] = { 1, 0, 2 }, second[32] = { 9 }, other[4] = { 7 };
	assert_int_equal(t->ops->get_or_put(s, "cookie-key", first, sizeof(first), NULL), 0);
	assert_memory_equal(first, ((uint8_t[32]){ 1, 0, 2 }), 32);
	assert_int_equal(t->ops->get_or_put(s, "cookie-key", second, sizeof(second), NULL), 0);
	assert_memory_equal(second, first, 32);
	assert_int_equal(t->ops->get_or_put(s, "other", other, sizeof(other), NULL), 0);
	assert_int_equal(other[0], 7);
	t->ops->close(s);

	s = open_store(t);
	memset(second, 0, sizeof(second));
	assert_int_equal(t->ops->get_or_put(s, "cookie-key", second, sizeof(second), NULL), 0);
	assert_memory_equal(second, first, 32);
	t->ops->close(s);
}

static void a_value_of_another_size_is_refused(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	uint8_t value[32] = { 1 }, shorter[16] = { 2 };
	struct error err = { 0 };
	assert_int_equal(t->ops->get_or_put(s, "cookie-key", value, sizeof(value), NULL), 0);
	assert_int_equal(t->ops->get_or_put(s, "cookie-key", shorter, sizeof(shorter), &err),
			 -EBADMSG);
	assert_int_equal(shorter[0], 2);
	assert_int_equal(err.code, -EBADMSG);
	t->ops->close(s);
}

/* Holds the store's thread in a callback until it is told to go on. */
struct gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool entered, open;
};

static void wait_at_gate(void *arg, int status)
{
	struct gate *g = arg;
	assert_int_equal(status, 0);
	pthread_mutex_lock(&g->lock);
	g->entered = true;
	pthread_cond_broadcast(&g->changed);
	while (!g->open)
		pthread_cond_wait(&g->changed, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void says_when_its_queue_is_full(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	struct gate g = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
	struct store_session record = named("s1", 1);
	assert_int_equal(t->ops->put_session(s, &record, wait_at_gate, &g), 0);
	pthread_mutex_lock(&g.lock);
	while (!g.entered)
		pthread_cond_wait(&g.changed, &g.lock);
	pthread_mutex_unlock(&g.lock);

	for (int i = 0; i < 8192; i++) {
		record.fence = (uint64_t)i;
		assert_int_equal(t->ops->put_session(s, &record, NULL, NULL), 0);
	}
	struct waiter w = WAITER_INIT;
	assert_int_equal(t->ops->put_session(s, &record, note_done, &w), -EAGAIN);
	assert_int_equal(t->ops->delete_session(s, "s1"), -EAGAIN);

	pthread_mutex_lock(&g.lock);
	g.open = true;
	pthread_cond_broadcast(&g.changed);
	pthread_mutex_unlock(&g.lock);
	t->ops->close(s);
	assert_int_equal(w.done, 0); /* what was refused is not carried out */
	s = open_store(t);
	assert_true(load(t, s)->all[0].fence == 8191);
	t->ops->close(s);
}

#define WRITERS 4
#define WRITES 200

static void *write_many(void *arg)
{
	struct both *b = arg;
	static _Atomic int next;
	int number = next++;
	for (int i = 0; i < WRITES; i++) {
		char id[16];
		snprintf(id, sizeof(id), "w%d-%d", number % WRITERS, i % 50);
		struct store_session record = named(id, i);
		while (b->target->ops->put_session(b->store, &record, note_done, &b->waiter) != 0)
			;
	}
	return NULL;
}

static void takes_writes_of_many_threads(void **state)
{
	const struct target *t = *state;
	struct both b = { .target = t, .store = open_store(t), .waiter = WAITER_INIT };
	pthread_t threads[WRITERS];
	for (int i = 0; i < WRITERS; i++)
		pthread_create(&threads[i], NULL, write_many, &b);
	for (int i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	wait_done(&b.waiter, WRITERS * WRITES);
	struct loaded *l = load(t, b.store);
	assert_int_equal(l->count, WRITERS * 50);
	assert_true(l->all[0].created_ms == WRITES - 50);
	assert_true(t->ops->healthy(b.store));
	t->ops->close(b.store);
}

static void a_copy_shares_nothing_with_its_record(void **state)
{
	(void)state;
	struct store_session copy;
	assert_int_equal(store_session_copy(&full_record, &copy), 0);
	assert_same(&copy, &full_record);
	assert_ptr_not_equal(copy.params, full_record.params);
	store_session_fini(&copy);
	assert_null(copy.params);
	store_session_fini(&copy); /* twice is allowed */
}

int main(void)
{
#define OVER_SQLITE(test) \
	cmocka_unit_test_setup_teardown(test, make_sqlite_place, remove_sqlite_place)
	const struct CMUnitTest over_sqlite[] = {
		OVER_SQLITE(a_new_store_holds_nothing),
		OVER_SQLITE(keeps_every_field_of_a_record),
		OVER_SQLITE(tells_an_empty_text_from_none),
		OVER_SQLITE(a_second_put_replaces_the_whole_record),
		OVER_SQLITE(copies_the_record_that_is_put),
		OVER_SQLITE(loads_the_oldest_first),
		OVER_SQLITE(carries_writes_of_one_session_out_in_order),
		OVER_SQLITE(deletes_what_is_there_and_minds_not_what_is_not),
		OVER_SQLITE(close_waits_for_all_that_is_queued),
		OVER_SQLITE(loading_stops_when_told),
		OVER_SQLITE(the_store_may_be_used_while_it_is_loaded),
		OVER_SQLITE(a_value_is_made_once_and_stays),
		OVER_SQLITE(a_value_of_another_size_is_refused),
		OVER_SQLITE(says_when_its_queue_is_full),
		OVER_SQLITE(takes_writes_of_many_threads),
		cmocka_unit_test(a_copy_shares_nothing_with_its_record),
	};
	int failed = cmocka_run_group_tests_name("sqlite", over_sqlite, NULL, NULL);
	load(NULL, NULL);
	return failed;
}
