/* What every implementation of store.h must do: each test runs over each of them. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
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
#include "tests/unit/redis_server.h"
#include "tests/unit/store/waiter.h"

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

/* --- one Redis for all, empty for each --- */

static struct redis_server *redis;
static struct target redis_target = { .ops = &store_redis };

static int start_redis(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	redis = redis_server_start(NULL);
	snprintf(redis_target.location, sizeof(redis_target.location), "%s",
		 redis_server_location(redis));
	return 0;
}

static int stop_redis(void **state)
{
	(void)state;
	redis_server_stop(redis);
	return 0;
}

static int make_redis_place(void **state)
{
	redis_server_do(redis, "FLUSHALL");
	*state = &redis_target;
	return 0;
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

/* All of them with success. */
static void wait_done(struct waiter *w, int count)
{
	assert_true(waiter_wait(w, count));
	assert_int_equal(w->failed, 0);
}

static void put_and_wait(const struct target *t, struct store *s,
			 const struct store_session *record)
{
	struct waiter w = WAITER_INIT;
	assert_int_equal(t->ops->put_session(s, record, waiter_note, &w), 0);
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

static int by_age(const void *a, const void *b)
{
	const struct store_session *x = a, *y = b;
	return x->created_ms != y->created_ms ? (x->created_ms < y->created_ms ? -1 : 1)
					      : strcmp(x->id, y->id);
}

/* All records, oldest first. */
static struct loaded *load(const struct target *t, struct store *s)
{
	static struct loaded l;
	while (l.count > 0)
		store_session_fini(&l.all[--l.count]);
	if (s != NULL && t->ops->shared) { /* loads none, but lists */
		assert_int_equal(t->ops->list_sessions(s, NULL, NULL, NULL, LOADED_MAX, keep, &l,
						       NULL),
				 0);
		qsort(l.all, (size_t)l.count, sizeof(l.all[0]), by_age);
	} else if (s != NULL) {
		assert_int_equal(t->ops->load_sessions(s, keep, &l, NULL), 0);
	}
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
	assert_text(a->target, b->target);
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

/* What only stores that replicas share keep. */
static void assert_same_owner(const struct store_session *a, const struct store_session *b)
{
	assert_true(a->owner == b->owner);
	assert_true(a->birth == b->birth);
	assert_true(a->host == b->host);
	assert_true(a->offset == b->offset);
	assert_string_equal(a->state, b->state);
	assert_int_equal(a->closing, b->closing);
}

static const struct store_session full_record = {
	.id = "a_session-with_the_longest-id_of_64_characters_xxxxxxxxxxxxxxxxx",
	.subject = (char[]){ "did:plc:zo\xc3\xab" },
	.sandbox = (char[]){ "{\"provider\":\"url\"}" },
	.provider = (char[]){ "url" },
	.params = (char[]){ "{\"command\":[\"bash\",\"-c\",\"echo 'a;b' \\u0000\"]}" },
	.endpoint = (char[]){ "c2VhbGVk" },
	.target = (char[]){ "{\"stored\":false,\"sealed\":\"c2VhbGVk\"}" },
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
	.owner = UINT64_MAX - 2,
	.birth = UINT64_C(0xfedcba9876543210),
	.host = 1,
	.offset = (UINT64_C(1) << 63) + 1,
	.state = "ended",
	.closing = true,
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
	if (t->ops->shared)
		assert_same_owner(&l->all[0], &full_record);
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
	record.birth = full_record.birth;
	record.fence = full_record.fence;
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
		assert_int_equal(t->ops->put_session(s, &record, waiter_note, &w), 0);
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
		assert_int_equal(t->ops->put_session(s, &record, waiter_note, &w), 0);
		if (i % 7 == 0)
			assert_int_equal(t->ops->delete_session(s, "even", 0, (uint64_t)i, NULL,
								NULL),
					 0);
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
	assert_int_equal(t->ops->delete_session(s, "s1", 0, 0, NULL, NULL), 0);
	assert_int_equal(t->ops->delete_session(s, "nobody", 0, 0, NULL, NULL), 0);
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
	return b->target->ops->put_session(b->store, &copy, waiter_note, &b->waiter);
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

/* A replica takes what nobody has. */
static void there_is_nothing_to_load(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	put_and_wait(t, s, &full_record);
	struct loaded l = { .count = 0 };
	assert_int_equal(t->ops->load_sessions(s, keep, &l, NULL), 0);
	assert_int_equal(l.count, 0);
	t->ops->close(s);
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
	assert_int_equal(t->ops->put_session(s, &record, waiter_note, &w), -EAGAIN);
	assert_int_equal(t->ops->delete_session(s, "s1", 0, 0, NULL, NULL), -EAGAIN);

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
		while (b->target->ops->put_session(b->store, &record, waiter_note, &b->waiter) != 0)
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

/* --- sandboxes --- */

static const struct store_sandbox full_sandbox = {
	.id = "a_sandbox-with_the_longest-id_of_64_characters_xxxxxxxxxxxxxxxxx",
	.subject = (char[]){ "did:plc:zo\xc3\xab" },
	.provider = (char[]){ "runloop" },
	.external_id = (char[]){ "dbx_3CqR$(x)'\";--" },
	.credential = (char[]){ "c2VhbGVk" },
	.redacted = (char[]){ "{\"api_key\":\"...abcd\"}" },
	.name = (char[]){ "the 'first' \xf0\x9f\x94\x91" },
	.metadata = (char[]){ "{\"a\":[1,{\"b\":\"\\u0000\"}]}" },
	.transport = (char[]){ "native" },
	.agent = (char[]){ "pty-tunnel" },
	.resume = true,
	.created_ms = INT64_C(1795401918700),
	.updated_ms = INT64_C(1795401918701),
	.revision = 1,
};

static struct store_sandbox sandbox_of(const char *id, const char *subject)
{
	struct store_sandbox record;
	assert_int_equal(store_sandbox_copy(&full_sandbox, &record), 0);
	snprintf(record.id, sizeof(record.id), "%s", id);
	free(record.subject);
	record.subject = strdup(subject);
	free(record.name);
	record.name = NULL;
	return record;
}

static void insert_sandbox(const struct target *t, struct store *s, const char *id,
			   const char *subject)
{
	struct store_sandbox record = sandbox_of(id, subject);
	struct error err = { 0 };
	if (t->ops->insert_sandbox(s, &record, &err) != 0)
		fail_msg("%s", err.text);
	store_sandbox_fini(&record);
}

static void assert_same_sandbox(const struct store_sandbox *a, const struct store_sandbox *b)
{
	assert_string_equal(a->id, b->id);
	assert_text(a->subject, b->subject);
	assert_text(a->provider, b->provider);
	assert_text(a->external_id, b->external_id);
	assert_text(a->credential, b->credential);
	assert_text(a->redacted, b->redacted);
	assert_text(a->name, b->name);
	assert_text(a->metadata, b->metadata);
	assert_text(a->transport, b->transport);
	assert_text(a->agent, b->agent);
	assert_int_equal(a->resume, b->resume);
	assert_true(a->created_ms == b->created_ms);
	assert_true(a->updated_ms == b->updated_ms);
	assert_true(a->revision == b->revision);
}

static void assert_stored(const struct target *t, struct store *s, const struct store_sandbox *r)
{
	struct store_sandbox stored;
	assert_int_equal(t->ops->get_sandbox(s, r->id, &stored, NULL), 0);
	assert_same_sandbox(&stored, r);
	store_sandbox_fini(&stored);
}

static void keeps_every_field_of_a_sandbox_also_when_it_is_opened_again(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	struct store_sandbox plain = sandbox_of("plain", "");
	plain.resume = false;
	free(plain.metadata);
	plain.metadata = NULL;
	assert_int_equal(t->ops->insert_sandbox(s, &full_sandbox, NULL), 0);
	assert_int_equal(t->ops->insert_sandbox(s, &plain, NULL), 0);
	assert_stored(t, s, &full_sandbox);
	assert_stored(t, s, &plain);
	t->ops->close(s);
	s = open_store(t);
	assert_stored(t, s, &full_sandbox);
	assert_stored(t, s, &plain);
	store_sandbox_fini(&plain);
	t->ops->close(s);
}

static void a_sandbox_that_is_not_there_is_told(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	struct store_sandbox none = { 0 };
	struct error err = { 0 };
	assert_int_equal(t->ops->get_sandbox(s, "nobody", &none, &err), -ENOENT);
	assert_string_equal(err.text, "there is no sandbox nobody");
	assert_null(none.subject);
	assert_int_equal(t->ops->update_sandbox(s, &full_sandbox, NULL), -ENOENT);
	assert_int_equal(t->ops->delete_sandbox(s, "nobody", NULL), -ENOENT);
	t->ops->close(s);
}

static void an_id_is_given_once(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	insert_sandbox(t, s, "one", "alice");
	struct store_sandbox other = sandbox_of("one", "bob"), stored;
	struct error err = { 0 };
	assert_int_equal(t->ops->insert_sandbox(s, &other, &err), -EEXIST);
	assert_string_equal(err.text, "there is a sandbox one");
	assert_int_equal(t->ops->get_sandbox(s, "one", &stored, NULL), 0);
	assert_string_equal(stored.subject, "alice");
	store_sandbox_fini(&stored);
	assert_int_equal(t->ops->delete_sandbox(s, "one", NULL), 0);
	assert_int_equal(t->ops->insert_sandbox(s, &other, NULL), 0);
	store_sandbox_fini(&other);
	t->ops->close(s);
}

static void an_update_is_of_the_revision_that_was_read(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	insert_sandbox(t, s, "one", "alice");
	insert_sandbox(t, s, "two", "alice");
	struct store_sandbox mine, theirs, two;
	assert_int_equal(t->ops->get_sandbox(s, "one", &mine, NULL), 0);
	assert_int_equal(t->ops->get_sandbox(s, "one", &theirs, NULL), 0);
	assert_int_equal(t->ops->get_sandbox(s, "two", &two, NULL), 0);
	mine.name = strdup("mine");
	mine.updated_ms++;
	assert_int_equal(t->ops->update_sandbox(s, &mine, NULL), 0);
	mine.revision = 2;
	assert_stored(t, s, &mine);
	assert_stored(t, s, &two);
	struct error err = { 0 };
	assert_int_equal(t->ops->update_sandbox(s, &theirs, &err), -ESTALE);
	assert_string_equal(err.text, "sandbox one was changed meanwhile");
	assert_stored(t, s, &mine);
	assert_int_equal(t->ops->update_sandbox(s, &mine, NULL), 0);
	store_sandbox_fini(&mine);
	store_sandbox_fini(&theirs);
	store_sandbox_fini(&two);
	t->ops->close(s);
}

static int join_ids(void *arg, const struct store_sandbox *record)
{
	strcat(strcat(arg, record->id), " ");
	return 0;
}

static void assert_list(const struct target *t, struct store *s, const char *subject,
			const char *after, size_t limit, const char *ids)
{
	char joined[1000] = "";
	assert_int_equal(t->ops->list_sandboxes(s, subject, after, limit, join_ids, joined, NULL),
			 0);
	assert_string_equal(joined, ids);
}

static int stop_with(void *arg, const struct store_sandbox *record)
{
	(void)record;
	++*(int *)arg;
	return -ECANCELED;
}

static void lists_a_subjects_sandboxes_by_id(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t);
	static const char *const ids[] = { "b", "a", "-", "Z", "_", "a1" };
	assert_list(t, s, NULL, NULL, 10, "");
	for (size_t i = 0; i < 6; i++)
		insert_sandbox(t, s, ids[i], i % 2 == 0 ? "alice" : "bob");
	assert_list(t, s, NULL, NULL, 10, "- Z _ a a1 b ");
	assert_list(t, s, NULL, NULL, SIZE_MAX, "- Z _ a a1 b ");
	assert_list(t, s, NULL, "_", 2, "a a1 ");
	assert_list(t, s, "alice", NULL, 10, "- _ b ");
	assert_list(t, s, "alice", "-", 1, "_ ");
	assert_list(t, s, "alice", "0", 10, "_ b ");
	assert_list(t, s, "bob", NULL, 10, "Z a a1 ");
	assert_list(t, s, "bob", "a1", 10, "");
	assert_list(t, s, "nobody", NULL, 10, "");
	int calls = 0;
	struct error err = { 0 };
	assert_int_equal(t->ops->list_sandboxes(s, NULL, NULL, 10, stop_with, &calls, &err),
			 -ECANCELED);
	assert_int_equal(calls, 1);
	assert_string_equal(err.text, "the list stopped at sandbox -");
	size_t count = 99;
	assert_int_equal(t->ops->count_sandboxes(s, "alice", &count, NULL), 0);
	assert_int_equal(count, 3);
	assert_int_equal(t->ops->count_sandboxes(s, "nobody", &count, NULL), 0);
	assert_int_equal(count, 0);
	t->ops->close(s);
}

#define CHANGES 50

/* Counts one up in the metadata of "shared", again when somebody was quicker. */
static void *count_up(void *arg)
{
	struct both *b = arg;
	const struct store_ops *ops = b->target->ops;
	for (int done = 0; done < CHANGES;) {
		struct store_sandbox r;
		assert_int_equal(ops->get_sandbox(b->store, "shared", &r, NULL), 0);
		r.updated_ms++;
		int rc = ops->update_sandbox(b->store, &r, NULL);
		assert_true(rc == 0 || rc == -ESTALE);
		done += rc == 0;
		store_sandbox_fini(&r);
	}
	return NULL;
}

static void loses_no_change_of_many_threads_and_processes(void **state)
{
	const struct target *t = *state;
	struct both service = { .target = t, .store = open_store(t), .waiter = WAITER_INIT };
	struct both tool = { .target = t, .waiter = WAITER_INIT };
	assert_int_equal(t->ops->open_tool(t->location, &tool.store, NULL), 0);
	insert_sandbox(t, service.store, "shared", "alice");
	pthread_t threads[WRITERS + 1];
	for (int i = 0; i < WRITERS; i++)
		pthread_create(&threads[i], NULL, count_up, i % 2 == 0 ? &service : &tool);
	pthread_create(&threads[WRITERS], NULL, write_many, &service);
	for (int i = 0; i <= WRITERS; i++)
		pthread_join(threads[i], NULL);
	wait_done(&service.waiter, WRITES);
	struct store_sandbox r;
	assert_int_equal(t->ops->get_sandbox(service.store, "shared", &r, NULL), 0);
	assert_true(r.revision == 1 + WRITERS * CHANGES);
	assert_true(r.updated_ms == full_sandbox.updated_ms + WRITERS * CHANGES);
	store_sandbox_fini(&r);
	t->ops->close(tool.store);
	t->ops->close(service.store);
}

static void a_tool_and_the_service_see_each_others_changes(void **state)
{
	const struct target *t = *state;
	struct store *tool = NULL, *s = NULL;
	assert_int_equal(t->ops->open_tool(t->location, &tool, NULL), 0); /* makes the store too */
	insert_sandbox(t, tool, "by-tool", "alice");
	s = open_store(t);
	insert_sandbox(t, s, "by-service", "alice");
	assert_list(t, s, NULL, NULL, 10, "by-service by-tool ");
	assert_list(t, tool, NULL, NULL, 10, "by-service by-tool ");
	assert_int_equal(t->ops->delete_sandbox(tool, "by-service", NULL), 0);
	assert_list(t, s, NULL, NULL, 10, "by-tool ");
	t->ops->close(s);
	t->ops->close(tool);
}

static void a_session_is_resealed_only_as_it_was_seen(void **state)
{
	const struct target *t = *state;
	struct store *s = open_store(t), *tool = NULL;
	struct store_session record = full_record;
	put_and_wait(t, s, &record);
	assert_int_equal(t->ops->open_tool(t->location, &tool, NULL), 0);
	assert_int_equal(t->ops->reseal_session(tool, &record, "new", record.target, NULL), 0);
	record.endpoint = (char[]){ "new" };
	assert_same(&load(t, s)->all[0], &record);
	struct error err = { 0 };
	assert_int_equal(t->ops->reseal_session(tool, &full_record, "other", "t", &err), -ESTALE);
	assert_non_null(strstr(err.text, "was changed meanwhile"));
	struct store_session none = { .id = "none" };
	assert_int_equal(t->ops->reseal_session(tool, &none, "other", NULL, NULL), -ESTALE);
	assert_same(&load(t, s)->all[0], &record);

	struct store_session bare = named("bare", 1); /* neither endpoint nor target yet */
	put_and_wait(t, s, &bare);
	assert_int_equal(t->ops->reseal_session(tool, &bare, NULL, "t", NULL), 0);
	assert_string_equal(load(t, s)->all[0].target, "t");
	assert_null(load(t, s)->all[0].endpoint);
	t->ops->close(tool);
	t->ops->close(s);
}

static void a_copy_of_a_sandbox_shares_nothing_with_it(void **state)
{
	(void)state;
	struct store_sandbox copy;
	assert_int_equal(store_sandbox_copy(&full_sandbox, &copy), 0);
	assert_same_sandbox(&copy, &full_sandbox);
	assert_ptr_not_equal(copy.credential, full_sandbox.credential);
	store_sandbox_fini(&copy);
	assert_null(copy.credential);
	store_sandbox_fini(&copy); /* twice is allowed */
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

/* Of what every store must do. */
#define SUITE(TEST)                                                       \
	TEST(a_new_store_holds_nothing)                                   \
	TEST(keeps_every_field_of_a_record)                               \
	TEST(tells_an_empty_text_from_none)                               \
	TEST(a_second_put_replaces_the_whole_record)                      \
	TEST(copies_the_record_that_is_put)                               \
	TEST(carries_writes_of_one_session_out_in_order)                  \
	TEST(deletes_what_is_there_and_minds_not_what_is_not)             \
	TEST(close_waits_for_all_that_is_queued)                          \
	TEST(a_value_is_made_once_and_stays)                              \
	TEST(a_value_of_another_size_is_refused)                          \
	TEST(says_when_its_queue_is_full)                                 \
	TEST(takes_writes_of_many_threads)                                \
	TEST(keeps_every_field_of_a_sandbox_also_when_it_is_opened_again) \
	TEST(a_sandbox_that_is_not_there_is_told)                         \
	TEST(an_id_is_given_once)                                         \
	TEST(an_update_is_of_the_revision_that_was_read)                  \
	TEST(lists_a_subjects_sandboxes_by_id)                            \
	TEST(loses_no_change_of_many_threads_and_processes)               \
	TEST(a_tool_and_the_service_see_each_others_changes)              \
	TEST(a_session_is_resealed_only_as_it_was_seen)

int main(void)
{
#define OVER_SQLITE(test) \
	cmocka_unit_test_setup_teardown(test, make_sqlite_place, remove_sqlite_place),
#define OVER_REDIS(test) cmocka_unit_test_setup(test, make_redis_place),
	/* clang-format off */
	const struct CMUnitTest over_sqlite[] = {
		SUITE(OVER_SQLITE)
		OVER_SQLITE(loads_the_oldest_first)
		OVER_SQLITE(loading_stops_when_told)
		OVER_SQLITE(the_store_may_be_used_while_it_is_loaded)
	};
	const struct CMUnitTest over_redis[] = {
		SUITE(OVER_REDIS)
		OVER_REDIS(there_is_nothing_to_load)
	};
	/* clang-format on */
	const struct CMUnitTest of_records[] = {
		cmocka_unit_test(a_copy_of_a_sandbox_shares_nothing_with_it),
		cmocka_unit_test(a_copy_shares_nothing_with_its_record),
	};
	int failed = cmocka_run_group_tests_name("sqlite", over_sqlite, NULL, NULL) +
		     cmocka_run_group_tests_name("redis", over_redis, start_redis, stop_redis) +
		     cmocka_run_group_tests_name("records", of_records, NULL, NULL);
	load(NULL, NULL);
	return failed;
}
