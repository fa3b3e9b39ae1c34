/* What replicas rely on in a store that they share: two handles on one Redis are two of them. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "store/store.h"
#include "tests/unit/redis_server.h"
#include "tests/unit/store/waiter.h"

#define OPS (&store_redis)
#define DAY_MS 86400000

static struct redis_server *redis;
static struct store *one, *two; /* replicas 1 and 2 */

static int start_redis(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	redis = redis_server_start(NULL);
	return 0;
}

static int stop_redis(void **state)
{
	(void)state;
	redis_server_stop(redis);
	return 0;
}

static struct store *open_store(void)
{
	struct store *s = NULL;
	struct error err = { 0 };
	if (OPS->open(redis_server_location(redis), &s, &err) != 0)
		fail_msg("%s", err.text);
	return s;
}

static int open_both(void **state)
{
	(void)state;
	redis_server_do(redis, "FLUSHALL");
	one = open_store();
	two = open_store();
	return 0;
}

static int close_both(void **state)
{
	(void)state;
	OPS->close(one);
	OPS->close(two);
	return 0;
}

/* --- helpers --- */

static struct store_session alive(const char *id, uint64_t birth)
{
	struct store_session r = {
		.subject = (char *)"alice",
		.created_ms = 1000,
		.owner = 1,
		.fence = 1,
		.birth = birth,
		.state = "open",
	};
	snprintf(r.id, sizeof(r.id), "%s", id);
	return r;
}

static int put(struct store *s, const struct store_session *record)
{
	struct waiter w = WAITER_INIT;
	assert_int_equal(OPS->put_session(s, record, waiter_note, &w), 0);
	assert_true(waiter_wait(&w, 1));
	return w.status[0];
}

/* A delete tells nobody: a write behind it does. */
static void delete_now(struct store *s, const char *id, uint64_t birth, uint64_t fence)
{
	struct store_session last = alive("last", 1);
	assert_int_equal(OPS->delete_session(s, id, birth, fence, NULL, NULL), 0);
	assert_int_equal(put(s, &last), 0);
}

static int get(struct store *s, const char *id, struct store_session *ret)
{
	return OPS->get_session(s, id, ret, NULL);
}

/* The fence that is stored; 0: there is no record. */
static uint64_t fence_of(const char *id)
{
	struct store_session r;
	int rc = get(two, id, &r);
	if (rc == -ENOENT)
		return 0;
	assert_int_equal(rc, 0);
	uint64_t fence = r.fence;
	store_session_fini(&r);
	return fence;
}

static uint64_t owner_of(const char *id)
{
	struct store_session r;
	assert_int_equal(get(two, id, &r), 0);
	uint64_t owner = r.owner;
	store_session_fini(&r);
	return owner;
}

static int make(struct store *s, const char *id, uint64_t birth, uint64_t *fence)
{
	struct store_session r = alive(id, birth), known;
	r.fence = 77; /* is not looked at */
	int rc = OPS->create_session(s, &r, &known, NULL);
	if (rc == -EEXIST)
		store_session_fini(&known);
	else if (rc == 0 && fence != NULL)
		*fence = r.fence;
	return rc;
}

static bool is_member(const char *set, const char *member)
{
	redisReply *r = redis_server_command(redis, "ZSCORE %s %s", set, member);
	bool found = r->type != REDIS_REPLY_NIL;
	freeReplyObject(r);
	return found;
}

/* --- lookups --- */

static void a_lookup_gives_the_whole_record(void **state)
{
	(void)state;
	struct store_session r = alive("s1", UINT64_MAX), found;
	r.sandbox = r.provider = r.params = r.endpoint = r.target = r.ended_json = (char *)"text";
	r.epoch = r.end = r.fence = r.owner = r.host = r.offset = UINT64_MAX;
	r.cols = r.rows = UINT16_MAX;
	r.ended = r.closing = true;
	r.steps = (char *)"[]";
	assert_int_equal(put(one, &r), 0);
	assert_int_equal(get(two, "s1", &found), 0);
	assert_string_equal(found.id, "s1");
	assert_string_equal(found.subject, "alice");
	assert_string_equal(found.target, "text");
	assert_string_equal(found.ended_json, "text");
	assert_true(found.birth == UINT64_MAX && found.offset == UINT64_MAX &&
		    found.host == UINT64_MAX && found.owner == UINT64_MAX);
	assert_string_equal(found.state, "open");
	assert_true(found.ended && found.closing);
	assert_string_equal(found.steps, "[]");
	store_session_fini(&found);

	r.steps = NULL; /* what is not known any more goes */
	assert_int_equal(put(one, &r), 0);
	assert_int_equal(get(two, "s1", &found), 0);
	assert_null(found.steps);
	store_session_fini(&found);
}

static void a_lookup_says_when_there_is_none(void **state)
{
	(void)state;
	struct store_session r;
	struct error err = { 0 };
	assert_int_equal(OPS->get_session(one, "nobody", &r, &err), -ENOENT);
	assert_string_equal(err.text, "there is no session nobody");
}

/* --- creation --- */

static void the_first_creation_has_number_one(void **state)
{
	(void)state;
	uint64_t fence = 0;
	struct store_session r;
	assert_int_equal(make(one, "s1", 5, &fence), 0);
	assert_true(fence == 1);
	assert_int_equal(get(two, "s1", &r), 0);
	assert_true(r.fence == 1 && r.birth == 5 && r.owner == 1);
	assert_string_equal(r.subject, "alice");
	store_session_fini(&r);
	assert_true(is_member("ptycast:sessions", "s1"));
	assert_true(is_member("ptycast:sessions:alice", "s1"));
}

static void one_that_is_alive_is_given_back(void **state)
{
	(void)state;
	assert_int_equal(make(one, "s1", 5, NULL), 0);
	struct store_session mine = alive("s1", 6), known;
	struct error err = { 0 };
	assert_int_equal(OPS->create_session(two, &mine, &known, &err), -EEXIST);
	assert_string_equal(err.text, "there is a session s1");
	assert_true(known.birth == 5 && known.fence == 1);
	assert_string_equal(known.id, "s1");
	assert_string_equal(known.subject, "alice");
	store_session_fini(&known);
}

static void one_that_ended_or_is_closing_is_replaced_by_a_higher_number(void **state)
{
	(void)state;
	for (int closing = 0; closing < 2; closing++) {
		struct store_session old = alive("s1", 5 + (uint64_t)closing), r;
		uint64_t fence = 0;
		old.fence = UINT32_MAX + (uint64_t)closing * 100;
		old.ended = closing == 0;
		old.closing = closing != 0;
		old.endpoint = (char *)"old";
		old.ended_json = (char *)"{}";
		redis_server_do(redis, "DEL ptycast:session:{s1}");
		assert_int_equal(put(one, &old), 0);
		assert_int_equal(make(two, "s1", 50 + (uint64_t)closing, &fence), 0);
		assert_true(fence == old.fence + 1);
		assert_int_equal(get(one, "s1", &r), 0);
		assert_true(r.birth == 50 + (uint64_t)closing && r.fence == fence);
		assert_false(r.ended || r.closing);
		assert_null(r.endpoint); /* nothing of the old one is left */
		assert_null(r.ended_json);
		store_session_fini(&r);
		assert_int_equal(redis_server_do(redis, "PTTL ptycast:session:{s1}"), -1);
		assert_int_equal(put(one, &old), -ESTALE); /* its owner comes late */
		assert_true(fence_of("s1") == fence);
	}
}

static void another_subjects_is_never_replaced(void **state)
{
	(void)state;
	struct store_session theirs = alive("s1", 5), mine = alive("s1", 6), known;
	theirs.subject = (char *)"bob";
	theirs.ended = true;
	assert_int_equal(put(one, &theirs), 0);
	assert_int_equal(OPS->create_session(two, &mine, &known, NULL), -EEXIST);
	assert_string_equal(known.subject, "bob");
	store_session_fini(&known);
	assert_false(is_member("ptycast:sessions:alice", "s1"));
	assert_true(is_member("ptycast:sessions:bob", "s1"));
}

static void a_creation_that_is_repeated_is_the_same_one(void **state)
{
	(void)state;
	uint64_t fence = 0;
	assert_int_equal(make(one, "s1", 5, NULL), 0);
	assert_int_equal(make(one, "s1", 5, &fence), 0);
	assert_true(fence == 1);
}

#define RACERS 8
#define RACES 60

struct racer {
	pthread_barrier_t *start;
	struct store *store;
	uint64_t number;
	int result[RACES];
	uint64_t known[RACES]; /* who has it */
};

static void *race_to_create(void *arg)
{
	struct racer *r = arg;
	for (unsigned i = 0; i < RACES; i++) {
		char id[16];
		snprintf(id, sizeof(id), "race-%u", i);
		struct store_session record = alive(id, r->number), known = { 0 };
		pthread_barrier_wait(r->start);
		r->result[i] = OPS->create_session(r->store, &record, &known, NULL);
		r->known[i] = r->result[i] == 0 ? record.birth : known.birth;
		store_session_fini(&known);
	}
	return NULL;
}

static void *race_to_take(void *arg)
{
	struct racer *r = arg;
	for (unsigned i = 0; i < RACES; i++) {
		struct store_session record = { 0 };
		pthread_barrier_wait(r->start);
		r->result[i] = OPS->take_session(r->store, "race", i, r->number * 1000 + i + 1,
						 i + 2, &record, NULL);
		store_session_fini(&record);
		pthread_barrier_wait(r->start);
		if (r->number == 1) /* for the next round: its owner is i + 1 */
			redis_server_do(redis, "HSET ptycast:session:{race} owner %016" PRIx64,
					(uint64_t)i + 1);
	}
	return NULL;
}

static void race(struct racer racers[RACERS], void *(*run)(void *arg))
{
	pthread_barrier_t start;
	pthread_t threads[RACERS];
	pthread_barrier_init(&start, NULL, RACERS);
	for (unsigned i = 0; i < RACERS; i++) {
		racers[i] = (struct racer){ &start, i % 2 == 0 ? one : two, i + 1, { 0 }, { 0 } };
		pthread_create(&threads[i], NULL, run, &racers[i]);
	}
	for (unsigned i = 0; i < RACERS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&start);
}

static void of_many_creations_exactly_one_wins(void **state)
{
	(void)state;
	static struct racer racers[RACERS];
	race(racers, race_to_create);
	for (unsigned i = 0; i < RACES; i++) {
		unsigned winners = 0;
		for (unsigned k = 0; k < RACERS; k++) {
			winners += racers[k].result[i] == 0;
			assert_true(racers[k].result[i] == 0 || racers[k].result[i] == -EEXIST);
			assert_true(racers[k].known[i] == racers[0].known[i]);
		}
		assert_int_equal(winners, 1);
	}
}

/* --- owners --- */

static void a_session_is_taken_from_the_owner_that_was_seen(void **state)
{
	(void)state;
	struct store_session r = alive("s1", 5), taken;
	struct error err = { 0 };
	r.fence = 7;
	r.endpoint = (char *)"e";
	assert_int_equal(put(one, &r), 0);
	assert_int_equal(OPS->take_session(two, "s1", 9, 2, 8, &taken, &err), -ESTALE);
	assert_string_equal(err.text, "session s1 has another owner");
	assert_int_equal(OPS->take_session(two, "s1", 1, 2, 7, &taken, NULL), -ESTALE);
	assert_int_equal(OPS->take_session(two, "none", 1, 2, 8, &taken, &err), -ENOENT);
	assert_string_equal(err.text, "there is no session none");
	for (int i = 0; i < 2; i++) { /* once more gives the same */
		assert_int_equal(OPS->take_session(two, "s1", 1, 2, 8, &taken, NULL), 0);
		assert_true(taken.owner == 2 && taken.fence == 8 && taken.birth == 5);
		assert_string_equal(taken.id, "s1");
		assert_string_equal(taken.endpoint, "e");
		store_session_fini(&taken);
	}
	assert_int_equal(put(one, &r), -ESTALE); /* the owner before */
	assert_true(owner_of("s1") == 2);
	assert_int_equal(OPS->take_session(one, "s1", 1, 1, 9, &taken, NULL), -ESTALE);
}

static void numbers_are_compared_in_all_their_bits(void **state)
{
	(void)state;
	static const uint64_t numbers[] = { 9,
					    10,
					    UINT32_MAX,
					    UINT64_C(1) << 32,
					    (UINT64_C(1) << 53) + 1,
					    (UINT64_C(1) << 53) + 2,
					    UINT64_C(0x9fffffffffffffff),
					    UINT64_C(0xa000000000000000),
					    UINT64_MAX };
	struct store_session r = alive("s1", 5), taken;
	for (size_t i = 0; i + 1 < sizeof(numbers) / sizeof(numbers[0]); i++) {
		r.fence = numbers[i];
		assert_int_equal(put(one, &r), 0);
		assert_int_equal(OPS->take_session(two, "s1", 1, 2, numbers[i], &taken, NULL),
				 -ESTALE);
		assert_int_equal(OPS->take_session(two, "s1", 1, 2, numbers[i + 1], &taken, NULL),
				 0);
		store_session_fini(&taken);
		assert_int_equal(put(one, &r), -ESTALE);
		r.fence = numbers[i + 1];
		assert_int_equal(put(one, &r), 0);
	}
}

static void of_many_takers_exactly_one_wins(void **state)
{
	(void)state;
	static struct racer racers[RACERS];
	struct store_session r = alive("race", 5);
	r.owner = 0;
	assert_int_equal(put(one, &r), 0);
	race(racers, race_to_take);
	for (unsigned i = 0; i < RACES; i++) {
		unsigned winners = 0;
		for (unsigned k = 0; k < RACERS; k++)
			winners += racers[k].result[i] == 0;
		assert_int_equal(winners, 1);
	}
}

static void taking_an_ended_one_does_not_make_it_stay(void **state)
{
	(void)state;
	struct store_session r = alive("s1", 5), taken;
	r.ended = true;
	assert_int_equal(put(one, &r), 0);
	assert_int_equal(redis_server_do(redis, "PEXPIRE ptycast:session:{s1} 100000"), 1);
	assert_int_equal(OPS->take_session(two, "s1", 1, 2, 2, &taken, NULL), 0);
	assert_true(taken.ended);
	store_session_fini(&taken);
	long long ttl_ms = redis_server_do(redis, "PTTL ptycast:session:{s1}");
	assert_true(ttl_ms > 0 && ttl_ms <= 100000);
}

/* --- writes --- */

static void a_write_with_a_lower_number_is_stale(void **state)
{
	(void)state;
	struct store_session r = alive("s1", 5);
	r.fence = 3;
	assert_int_equal(put(one, &r), 0);
	r.fence = 2;
	r.owner = 9;
	assert_int_equal(put(one, &r), -ESTALE);
	assert_true(owner_of("s1") == 1);
	r.fence = 3;
	assert_int_equal(put(one, &r), 0);
	r.fence = 4;
	assert_int_equal(put(one, &r), 0);
	assert_true(fence_of("s1") == 4);
}

static void of_two_births_the_newer_creation_stays(void **state)
{
	(void)state;
	static const struct {
		const char *which;
		uint64_t fence, birth;
		int64_t created_ms;
		bool newer; /* than fence 5, birth 5, created a million ms ago */
	} others[] = {
		{ "higher fence", 6, 4, 1000000, true },
		{ "higher fence, clock a little behind", 6, 4, 950000, true },
		{ "lower fence", 4, 6, 1000000, false },
		{ "lower fence, clock a little ahead", 4, 6, 1050000, false },
		{ "much later", 4, 4, 1070000, true },
		{ "much earlier", 6, 6, 930000, false },
		{ "same fence, later", 5, 4, 1000001, true },
		{ "same fence, earlier", 5, 6, 999999, false },
		{ "same fence and time, birth above", 5, 6, 1000000, true },
		{ "same fence and time, birth below", 5, 4, 1000000, false },
	};
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		struct store_session a = alive("s1", 5), b = alive("s1", others[i].birth);
		a.fence = 5;
		a.created_ms = 1000000;
		a.endpoint = (char *)"a";
		b.fence = others[i].fence;
		b.created_ms = others[i].created_ms;
		b.target = (char *)"b";
		/* In either order the same one stays. */
		for (int order = 0; order < 2; order++) {
			struct store_session r;
			redis_server_do(redis, "DEL ptycast:session:{s1}");
			put(one, order == 0 ? &a : &b);
			put(two, order == 0 ? &b : &a);
			assert_int_equal(get(one, "s1", &r), 0);
			if (r.birth != (others[i].newer ? b.birth : a.birth))
				fail_msg("%s, order %d", others[i].which, order);
			assert_true((r.endpoint == NULL) == others[i].newer);
			assert_true((r.target != NULL) == others[i].newer);
			store_session_fini(&r);
		}
	}
}

static void what_was_lost_is_written_anew(void **state)
{
	(void)state;
	struct store_session r = alive("s1", 5);
	r.fence = 8;
	assert_int_equal(put(one, &r), 0);
	redis_server_do(redis, "FLUSHALL");
	assert_int_equal(put(one, &r), 0);
	assert_int_equal(redis_server_do(redis, "EXISTS ptycast:session:{s1}"), 1);
	assert_true(is_member("ptycast:sessions", "s1"));
	assert_true(is_member("ptycast:sessions:alice", "s1"));
}

static void a_missing_index_entry_comes_back_with_the_next_write(void **state)
{
	(void)state;
	struct store_session r = alive("s1", 5);
	assert_int_equal(put(one, &r), 0);
	redis_server_do(redis, "DEL ptycast:sessions ptycast:sessions:alice");
	assert_int_equal(put(one, &r), 0);
	assert_true(is_member("ptycast:sessions", "s1"));
	assert_true(is_member("ptycast:sessions:alice", "s1"));
}

static void only_ended_records_end_by_themselves(void **state)
{
	(void)state;
	struct store_session r = alive("s1", 5);
	assert_int_equal(put(one, &r), 0);
	assert_int_equal(redis_server_do(redis, "PTTL ptycast:session:{s1}"), -1);
	r.ended = true;
	assert_int_equal(put(one, &r), 0);
	long long ttl_ms = redis_server_do(redis, "PTTL ptycast:session:{s1}");
	assert_true(ttl_ms > DAY_MS - 60000 && ttl_ms <= DAY_MS);
	r.ended = false; /* a newer creation does so */
	r.birth = 6;
	r.fence = 2;
	assert_int_equal(put(one, &r), 0);
	assert_int_equal(redis_server_do(redis, "PTTL ptycast:session:{s1}"), -1);
}

static void a_delete_is_of_that_creation_only(void **state)
{
	(void)state;
	struct store_session r = alive("s1", 5);
	r.fence = 3;
	assert_int_equal(put(one, &r), 0);
	delete_now(one, "s1", 4, 3);
	assert_true(fence_of("s1") == 3);
	delete_now(one, "s1", 5, 2);
	assert_true(fence_of("s1") == 3);
	assert_true(is_member("ptycast:sessions:alice", "s1"));
	delete_now(one, "s1", 5, 3);
	assert_true(fence_of("s1") == 0);
	assert_false(is_member("ptycast:sessions", "s1"));
	assert_false(is_member("ptycast:sessions:alice", "s1"));
	delete_now(one, "s1", 5, 3);
}

/* Holds the store's thread, so that what is queued meanwhile is one batch. */
static void wait_at_gate(void *arg, int status)
{
	pthread_barrier_t *gate = arg;
	assert_int_equal(status, 0);
	pthread_barrier_wait(gate);
	pthread_barrier_wait(gate);
}

static void each_of_several_writes_hears_of_the_one_in_its_place(void **state)
{
	(void)state;
	struct store_session r = alive("s1", 5);
	struct waiter w = WAITER_INIT;
	pthread_barrier_t gate;
	pthread_barrier_init(&gate, NULL, 2);
	r.fence = 9;
	assert_int_equal(OPS->put_session(one, &r, wait_at_gate, &gate), 0);
	pthread_barrier_wait(&gate);
	for (uint64_t i = 0; i < 10; i++) {
		r.birth = i % 2 == 0 ? 5 : 6;
		r.fence = i;
		assert_int_equal(OPS->put_session(one, &r, waiter_note, &w), 0);
	}
	pthread_barrier_wait(&gate);
	assert_true(waiter_wait(&w, 10));
	for (int i = 0; i < 10; i++) /* of birth 6 the last one is newer than what was there */
		assert_int_equal(w.status[i], i % 2 == 0 ? -ESTALE : 0);
	assert_true(fence_of("s1") == 9);
	pthread_barrier_destroy(&gate);
}

/* --- lists --- */

static int join_ids(void *arg, const struct store_session *record)
{
	strcat(strcat(arg, record->id), " ");
	return 0;
}

static void assert_list(const char *subject, const char *state, const char *after, size_t limit,
			const char *ids)
{
	char joined[5000] = "";
	assert_int_equal(OPS->list_sessions(two, subject, state, after, limit, join_ids, joined,
					    NULL),
			 0);
	assert_string_equal(joined, ids);
}

static int stop_with(void *arg, const struct store_session *record)
{
	(void)record;
	++*(int *)arg;
	return -ECANCELED;
}

static void lists_by_id_subject_and_state(void **state)
{
	(void)state;
	static const char *const ids[] = { "b", "a", "-", "Z", "_", "a1" };
	assert_list(NULL, NULL, NULL, 10, "");
	for (unsigned i = 0; i < 6; i++) {
		struct store_session r = alive(ids[i], 5);
		r.subject = (char *)(i % 2 == 0 ? "alice" : "bob");
		strcpy(r.state, i < 3 ? "open" : "ended");
		r.ended = i >= 3;
		assert_int_equal(put(one, &r), 0);
	}
	assert_list(NULL, NULL, NULL, 10, "- Z _ a a1 b ");
	assert_list(NULL, NULL, NULL, SIZE_MAX, "- Z _ a a1 b ");
	assert_list(NULL, NULL, "_", 2, "a a1 ");
	assert_list("alice", NULL, NULL, 10, "- _ b ");
	assert_list("alice", NULL, "-", 1, "_ ");
	assert_list("bob", NULL, "a1", 10, "");
	assert_list("nobody", NULL, NULL, 10, "");
	assert_list(NULL, "open", NULL, 10, "- a b ");
	assert_list(NULL, "open", NULL, 2, "- a ");
	assert_list("bob", "ended", NULL, 10, "Z a1 ");
	assert_list(NULL, NULL, NULL, 0, "");
	int calls = 0;
	struct error err = { 0 };
	assert_int_equal(OPS->list_sessions(one, NULL, NULL, NULL, 9, stop_with, &calls, &err),
			 -ECANCELED);
	assert_int_equal(calls, 1);
	assert_string_equal(err.text, "the list stopped at session -");
	size_t count = 99;
	assert_int_equal(OPS->count_sessions(one, "alice", 10, &count, NULL), 0);
	assert_int_equal(count, 2);
	assert_int_equal(OPS->count_sessions(one, "alice", 1, &count, NULL), 0);
	assert_int_equal(count, 1);
	assert_int_equal(OPS->count_sessions(one, "nobody", 10, &count, NULL), 0);
	assert_int_equal(count, 0);
}

struct ordered {
	char last[65];
	int count;
};

static int check_order(void *arg, const struct store_session *record)
{
	struct ordered *o = arg;
	assert_true(strcmp(o->last, record->id) < 0);
	memcpy(o->last, record->id, sizeof(o->last));
	o->count++;
	return 0;
}

static void lists_more_than_it_asks_for_at_once(void **state)
{
	(void)state;
	struct waiter w = WAITER_INIT;
	for (int i = 0; i < 1203; i++) {
		char id[16];
		snprintf(id, sizeof(id), "s%d", i);
		struct store_session r = alive(id, 5);
		assert_int_equal(OPS->put_session(one, &r, waiter_note, &w), 0);
	}
	assert_true(waiter_wait(&w, 1203));
	struct ordered seen = { 0 };
	assert_int_equal(OPS->list_sessions(two, "alice", NULL, NULL, SIZE_MAX, check_order, &seen,
					    NULL),
			 0);
	assert_int_equal(seen.count, 1203);
	size_t count = 0;
	assert_int_equal(OPS->count_sessions(two, "alice", SIZE_MAX, &count, NULL), 0);
	assert_int_equal(count, 1203);
}

static void an_entry_without_a_record_is_taken_out_where_it_is_met(void **state)
{
	(void)state;
	struct store_session r = alive("real", 5);
	assert_int_equal(put(one, &r), 0);
	redis_server_do(redis, "ZADD ptycast:sessions 0 ghost");
	redis_server_do(redis, "ZADD ptycast:sessions:alice 0 ghost");
	redis_server_do(redis, "ZADD ptycast:sessions:bob 0 real");
	assert_list(NULL, NULL, NULL, 10, "real ");
	assert_list("alice", NULL, NULL, 10, "real ");
	assert_list("bob", NULL, NULL, 10, "");
	assert_false(is_member("ptycast:sessions", "ghost"));
	assert_false(is_member("ptycast:sessions:alice", "ghost"));
	assert_false(is_member("ptycast:sessions:bob", "real"));
	assert_true(is_member("ptycast:sessions:alice", "real"));

	size_t count = 99;
	redis_server_do(redis, "ZADD ptycast:sessions:bob 0 real");
	assert_int_equal(OPS->count_sessions(one, "bob", 10, &count, NULL), 0);
	assert_int_equal(count, 0);
	assert_false(is_member("ptycast:sessions:bob", "real"));
}

static void a_record_that_is_damaged_does_not_hide_others(void **state)
{
	(void)state;
	struct store_session r;
	struct error err = { 0 };
	for (int i = 0; i < 3; i++) {
		r = alive((const char *[]){ "a", "b", "c" }[i], 5);
		assert_int_equal(put(one, &r), 0);
	}
	redis_server_do(redis, "HSET ptycast:session:{b} fence 12");
	assert_list(NULL, NULL, NULL, 10, "a c ");
	assert_true(is_member("ptycast:sessions", "b"));
	assert_int_equal(OPS->get_session(one, "b", &r, &err), -EBADMSG);
	assert_non_null(strstr(err.text, "a reply is not understood"));
	redis_server_do(redis, "HSET ptycast:session:{c} from_a_newer_version 1");
	assert_list(NULL, NULL, "b", 10, "c ");
}

/* --- orphans --- */

static int join_orphans(void *arg, const struct store_session *record)
{
	char *joined = arg;
	snprintf(joined + strlen(joined), 200, "%s/%" PRIu64 "/%" PRIu64 "%s ", record->id,
		 record->owner, record->fence, record->ended ? "/ended" : "");
	return 0;
}

static void assert_orphans(bool thorough, const char *wanted)
{
	char joined[1000] = "";
	assert_int_equal(OPS->orphans(two, thorough, join_orphans, joined, NULL), 0);
	assert_string_equal(joined, wanted);
}

/* As the bus does. */
static void live(unsigned replica)
{
	redis_server_do(redis, "SET ptycast:replica:%016x 1 PX 60000", replica);
	redis_server_do(redis, "SADD ptycast:replicas %016x", replica);
}

static void die(unsigned replica)
{
	assert_int_equal(redis_server_do(redis, "DEL ptycast:replica:%016x", replica), 1);
}

static bool is_listed(unsigned replica)
{
	return redis_server_do(redis, "SISMEMBER ptycast:replicas %016x", replica) == 1;
}

static void sessions_of_the_dead_are_found(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		struct store_session r = alive((const char *[]){ "a", "b", "c", "d", "e", "f" }[i],
					       5);
		r.owner = i % 3 + 1;
		r.fence = i + 10;
		r.ended = i == 4;
		r.birth = r.host = UINT64_MAX - i;
		assert_int_equal(put(one, &r), 0);
	}
	for (unsigned i = 1; i <= 3; i++)
		live(i);
	assert_orphans(false, "");
	assert_orphans(true, "");
	die(2);
	assert_orphans(false, "b/2/11 e/2/14/ended ");
	assert_orphans(false, "b/2/11 e/2/14/ended "); /* until somebody takes them */
	assert_true(is_listed(2));
	struct store_session taken;
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(OPS->take_session(two, i == 0 ? "b" : "e", 2, 1, 20, &taken, NULL),
				 0);
		store_session_fini(&taken);
	}
	assert_orphans(false, "");
	assert_false(is_listed(2));
	assert_true(is_listed(1));
}

static int check_fields(void *arg, const struct store_session *r)
{
	(void)arg;
	assert_true(r->birth == UINT64_MAX && r->host == 7 && r->owner == 2 && r->fence == 1);
	assert_string_equal(r->state, "open");
	assert_null(r->subject);
	return -ECANCELED;
}

static void an_orphan_has_what_is_needed_to_take_it_and_may_end_the_sweep(void **state)
{
	(void)state;
	struct store_session r = alive("s1", UINT64_MAX);
	struct error err = { 0 };
	r.owner = 2;
	r.host = 7;
	assert_int_equal(put(one, &r), 0);
	strcpy(r.id, "s2");
	assert_int_equal(put(one, &r), 0);
	live(2);
	die(2);
	assert_int_equal(OPS->orphans(one, false, check_fields, NULL, &err), -ECANCELED);
	assert_string_equal(err.text, "the sweep was stopped");
	assert_true(is_listed(2));
}

static void a_session_that_is_written_as_nobodys_is_found_at_once(void **state)
{
	(void)state;
	struct store_session r = alive("s1", 5), taken;
	assert_int_equal(put(one, &r), 0);
	live(1);
	live(2);
	assert_orphans(false, "");
	r.owner = 0;
	assert_int_equal(put(one, &r), 0);
	for (int i = 0; i < 2; i++) /* until somebody takes it */
		assert_orphans(false, "s1/0/1 ");
	assert_int_equal(OPS->take_session(two, "s1", 0, 2, 2, &taken, NULL), 0);
	store_session_fini(&taken);
	assert_orphans(false, "");
	assert_false(is_listed(0));
	r.fence = 0; /* stale: it is not nobody's */
	r.owner = 0;
	assert_int_equal(put(one, &r), -ESTALE);
	assert_orphans(false, "");
}

static void an_owner_that_no_list_has_is_looked_for_by_the_thorough(void **state)
{
	(void)state;
	struct store_session r = alive("s1", 5);
	for (unsigned i = 0; i < 3; i++) {
		r.owner = i; /* of nobody, one that is dead, and one that lives */
		strcpy(r.id, (const char *[]){ "a", "b", "c" }[i]);
		assert_int_equal(put(one, &r), 0);
	}
	live(2);
	redis_server_do(redis, "DEL ptycast:replicas");
	assert_orphans(false, ""); /* it sees no reason */
	assert_orphans(true, "a/0/1 b/1/1 ");
	assert_true(is_listed(0) && is_listed(1) && is_listed(2));
	assert_orphans(false, "a/0/1 b/1/1 ");
}

/* --- values --- */

static void assert_kept(struct store *s, int rc, const uint8_t value[4], const char *text)
{
	struct error err = { 0 };
	assert_int_equal(OPS->keep(s, "key", value, 4, &err), rc);
	assert_string_equal(err.text, text);
}

static void a_value_that_was_lost_is_given_back(void **state)
{
	(void)state;
	static const uint8_t random[4] = { 9, 9, 9, 9 };
	const char *const another = "store: it has another \"key\"";
	uint8_t first[4] = { 0, 1, 0, 255 }, later[4], others[4];
	assert_int_equal(OPS->get_or_put(one, "key", first, 4, NULL), 0);
	assert_kept(one, 0, first, "");
	assert_kept(two, -EEXIST, random, another);

	redis_server_do(redis, "FLUSHALL");
	assert_kept(one, 0, first, "");
	assert_int_equal(redis_server_do(redis, "TTL ptycast:value:key"), -1);
	memcpy(later, random, 4);
	assert_int_equal(OPS->get_or_put(two, "key", later, 4, NULL), 0);
	assert_memory_equal(later, first, 4);

	/* One that started meanwhile was faster. */
	redis_server_do(redis, "FLUSHALL");
	memcpy(others, random, 4);
	assert_int_equal(OPS->get_or_put(two, "key", others, 4, NULL), 0);
	assert_kept(one, -EEXIST, first, another);
	assert_kept(two, 0, others, "");
	assert_int_equal(OPS->keep(two, "key", others, 3, NULL), -EEXIST);
}

/* --- tickets --- */

struct spender {
	pthread_barrier_t *start;
	struct store *store;
	int won;
};

static void *spend_many(void *arg)
{
	struct spender *s = arg;
	for (int i = 0; i < RACES; i++) {
		char name[16];
		snprintf(name, sizeof(name), "t%d", i);
		pthread_barrier_wait(s->start);
		int rc = OPS->spend(s->store, name, 60000, NULL);
		assert_true(rc == 0 || rc == -EEXIST);
		s->won += rc == 0;
	}
	return NULL;
}

static void a_ticket_is_spent_once(void **state)
{
	(void)state;
	pthread_barrier_t start;
	pthread_t threads[4];
	struct spender spenders[4];
	pthread_barrier_init(&start, NULL, 4);
	for (int i = 0; i < 4; i++) {
		spenders[i] = (struct spender){ &start, i % 2 == 0 ? one : two, 0 };
		pthread_create(&threads[i], NULL, spend_many, &spenders[i]);
	}
	int won = 0;
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		won += spenders[i].won;
	}
	pthread_barrier_destroy(&start);
	assert_int_equal(won, RACES);
	long long ttl_ms = redis_server_do(redis, "PTTL ptycast:ticket:t0");
	assert_true(ttl_ms > 0 && ttl_ms <= 60000);
	assert_int_equal(OPS->spend(one, "t0", 60000, NULL), -EEXIST);
	redis_server_do(redis, "DEL ptycast:ticket:t0"); /* it expired */
	assert_int_equal(OPS->spend(one, "t0", 60000, NULL), 0);
}

/* --- records that may be missing --- */

static void assert_unsettled(struct store *s)
{
	struct store_session r = alive("new", 9), known;
	struct error err = { 0 };
	assert_int_equal(OPS->get_session(s, "none", &r, &err), -EHOSTUNREACH);
	assert_non_null(strstr(err.text, "records are being restored"));
	assert_int_equal(OPS->create_session(s, &r, &known, &err), -EHOSTUNREACH);
	assert_non_null(strstr(err.text, "records are being restored"));
	assert_int_equal(redis_server_do(redis, "EXISTS ptycast:session:{new}"), 0);
	assert_false(is_member("ptycast:sessions", "new"));
}

static void a_first_start_has_nothing_to_wait_for(void **state)
{
	(void)state;
	assert_int_equal(redis_server_do(redis, "EXISTS ptycast:settling"), 0);
	assert_int_equal(redis_server_do(redis, "EXISTS ptycast:generation"), 1);
	assert_int_equal(make(one, "s1", 5, NULL), 0);
}

static void a_miss_proves_nothing_while_records_come_back(void **state)
{
	(void)state;
	struct store_session kept = alive("kept", 5), r;
	assert_int_equal(put(one, &kept), 0);
	redis_server_do(redis, "SET ptycast:settling 1 PX 60000");
	assert_unsettled(one);
	assert_int_equal(get(one, "kept", &r), 0);
	store_session_fini(&r);
	assert_int_equal(make(one, "kept", 6, NULL), -EEXIST);
	kept.ended = true;
	assert_int_equal(put(one, &kept), 0);
	assert_int_equal(make(one, "kept", 6, NULL), 0); /* takes the place of a known one */
	redis_server_do(redis, "DEL ptycast:settling");
	assert_int_equal(get(one, "none", &r), -ENOENT);
	assert_int_equal(make(one, "new", 9, NULL), 0);
}

static void an_emptied_server_proves_nothing_until_the_bus_saw_it(void **state)
{
	(void)state;
	redis_server_do(redis, "FLUSHALL");
	assert_unsettled(one);
	assert_unsettled(two);
	assert_int_equal(redis_server_do(redis, "EXISTS ptycast:generation"), 0);
}

static void another_generation_settles(void **state)
{
	(void)state;
	redis_server_do(redis, "SET ptycast:generation %s",
			"0123456789012345678901234567890123456789");
	assert_unsettled(one);
	struct store *third = open_store(); /* sets it right, and says so */
	assert_int_equal(redis_server_do(redis, "EXISTS ptycast:settling"), 1);
	assert_unsettled(one);
	redis_server_do(redis, "DEL ptycast:settling");
	struct store_session r;
	assert_int_equal(get(one, "none", &r), -ENOENT);
	OPS->close(third);
}

int main(void)
{
#define ON_BOTH(test) cmocka_unit_test_setup_teardown(test, open_both, close_both)
	const struct CMUnitTest tests[] = {
		ON_BOTH(a_lookup_gives_the_whole_record),
		ON_BOTH(a_lookup_says_when_there_is_none),
		ON_BOTH(the_first_creation_has_number_one),
		ON_BOTH(one_that_is_alive_is_given_back),
		ON_BOTH(one_that_ended_or_is_closing_is_replaced_by_a_higher_number),
		ON_BOTH(another_subjects_is_never_replaced),
		ON_BOTH(a_creation_that_is_repeated_is_the_same_one),
		ON_BOTH(of_many_creations_exactly_one_wins),
		ON_BOTH(a_session_is_taken_from_the_owner_that_was_seen),
		ON_BOTH(numbers_are_compared_in_all_their_bits),
		ON_BOTH(of_many_takers_exactly_one_wins),
		ON_BOTH(taking_an_ended_one_does_not_make_it_stay),
		ON_BOTH(a_write_with_a_lower_number_is_stale),
		ON_BOTH(of_two_births_the_newer_creation_stays),
		ON_BOTH(what_was_lost_is_written_anew),
		ON_BOTH(a_missing_index_entry_comes_back_with_the_next_write),
		ON_BOTH(only_ended_records_end_by_themselves),
		ON_BOTH(a_delete_is_of_that_creation_only),
		ON_BOTH(each_of_several_writes_hears_of_the_one_in_its_place),
		ON_BOTH(lists_by_id_subject_and_state),
		ON_BOTH(lists_more_than_it_asks_for_at_once),
		ON_BOTH(an_entry_without_a_record_is_taken_out_where_it_is_met),
		ON_BOTH(a_record_that_is_damaged_does_not_hide_others),
		ON_BOTH(sessions_of_the_dead_are_found),
		ON_BOTH(an_orphan_has_what_is_needed_to_take_it_and_may_end_the_sweep),
		ON_BOTH(a_session_that_is_written_as_nobodys_is_found_at_once),
		ON_BOTH(an_owner_that_no_list_has_is_looked_for_by_the_thorough),
		ON_BOTH(a_value_that_was_lost_is_given_back),
		ON_BOTH(a_ticket_is_spent_once),
		ON_BOTH(a_first_start_has_nothing_to_wait_for),
		ON_BOTH(a_miss_proves_nothing_while_records_come_back),
		ON_BOTH(an_emptied_server_proves_nothing_until_the_bus_saw_it),
		ON_BOTH(another_generation_settles),
	};
	return cmocka_run_group_tests_name("shared", tests, start_redis, stop_redis);
}
