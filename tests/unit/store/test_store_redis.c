/* What store_redis does when its server fails, refuses, or is full. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "service/metrics.h"
#include "store/store.h"
#include "tests/unit/redis_server.h"
#include "tests/unit/store/cutter.h"
#include "tests/unit/store/waiter.h"

#define OPS (&store_redis)

static struct redis_server *redis; /* of the test */

static int start_redis(void **state)
{
	(void)state;
	redis = redis_server_start(NULL);
	return 0;
}

static int start_redis_that_keeps(void **state)
{
	(void)state;
	redis = redis_server_start(
		(const char *const[]){ "--appendonly", "yes", "--appendfsync", "always", NULL });
	return 0;
}

static int stop_redis(void **state)
{
	(void)state;
	redis_server_stop(redis);
	return 0;
}

static struct store *open_at(const char *location)
{
	struct store *s = NULL;
	struct error err = { 0 };
	if (OPS->open(location, &s, &err) != 0)
		fail_msg("%s", err.text);
	return s;
}

static struct store *open_store(void)
{
	return open_at(redis_server_location(redis));
}

static struct store_session named(const char *id, uint64_t fence)
{
	struct store_session r = {
		.subject = (char *)"alice",
		.created_ms = 1000,
		.owner = 1,
		.fence = fence,
		.birth = 5,
		.state = "open",
	};
	snprintf(r.id, sizeof(r.id), "%s", id);
	return r;
}

static void queue(struct store *s, const char *id, uint64_t fence, struct waiter *w)
{
	struct store_session r = named(id, fence);
	assert_int_equal(OPS->put_session(s, &r, waiter_note, w), 0);
}

static void put(struct store *s, const char *id, uint64_t fence)
{
	struct waiter w = WAITER_INIT;
	queue(s, id, fence, &w);
	assert_true(waiter_wait(&w, 1));
	assert_int_equal(w.status[0], 0);
}

static int get(struct store *s, const char *id, uint64_t *fence, struct error *err)
{
	struct store_session r;
	int rc = OPS->get_session(s, id, &r, err);
	if (rc != 0)
		return rc;
	*fence = r.fence;
	store_session_fini(&r);
	return 0;
}

static void assert_stored(struct store *s, const char *id, uint64_t fence)
{
	uint64_t stored = 0;
	struct error err = { 0 };
	if (get(s, id, &stored, &err) != 0)
		fail_msg("%s", err.text);
	assert_true(stored == fence);
}

static int create(struct store *s, const char *id, struct error *err)
{
	struct store_session r = named(id, 0), known;
	int rc = OPS->create_session(s, &r, &known, err);
	if (rc == -EEXIST)
		store_session_fini(&known);
	return rc;
}

static struct store_sandbox sandbox_of(const char *id)
{
	static char text[] = "x", alice[] = "alice";
	struct store_sandbox r = { .subject = alice, .provider = text, .external_id = text };
	r.credential = r.redacted = r.transport = r.agent = text;
	snprintf(r.id, sizeof(r.id), "%s", id);
	return r;
}

static bool is_healthy(void *arg)
{
	return OPS->healthy(arg);
}

static bool is_unhealthy(void *arg)
{
	return !OPS->healthy(arg);
}

static bool can_be_asked(void *arg)
{
	size_t count;
	return OPS->count_sandboxes(arg, "alice", &count, NULL) == 0;
}

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- opening --- */

static void assert_open_fails(int code, const char *text, const char *format, ...)
{
	char location[300];
	struct store *s = NULL;
	struct error err = { 0 };
	va_list args;
	va_start(args, format);
	vsnprintf(location, sizeof(location), format, args);
	va_end(args);
	int rc = OPS->open(location, &s, &err);
	if (rc != code || strstr(err.text, text) == NULL)
		fail_msg("%d: %s", rc, err.text);
	assert_null(s);
	assert_null(strstr(err.text, "sesame"));
	assert_int_equal(OPS->open_tool(location, &s, NULL), code);
}

static void opening_says_what_is_wrong(void **state)
{
	(void)state;
	unsigned port = redis_server_port(redis);
	assert_open_fails(-EINVAL, "redis://[user:password@]host:port", "nonsense");
	redis_server_do(redis, "CONFIG SET maxmemory-policy allkeys-lru");
	assert_open_fails(-EINVAL, "set it to noeviction", "//127.0.0.1:%u", port);
	redis_server_do(redis, "CONFIG SET maxmemory-policy noeviction");

	redis_server_do(redis, "REPLICAOF 127.0.0.1 1");
	assert_open_fails(-EROFS, "is a replica of another", "//127.0.0.1:%u", port);
	redis_server_do(redis, "REPLICAOF NO ONE");

	assert_open_fails(-EHOSTUNREACH, "does not take the login", "//:open-sesame@127.0.0.1:%u",
			  port); /* there is no password to be asked for */
	assert_open_fails(-EACCES, "refuses the user or the password",
			  "//x:open-sesame@127.0.0.1:%u", port);
	redis_server_do(redis, "CONFIG SET requirepass s3cret");
	redis_server_login(redis, "default", "s3cret");
	assert_open_fails(-EACCES, "refuses the user or the password",
			  "//:open-sesame@127.0.0.1:%u", port);
	assert_open_fails(-EACCES, "wants a password: --store redis://", "//127.0.0.1:%u", port);
	char location[100];
	snprintf(location, sizeof(location), "//:s3cret@127.0.0.1:%u/3", port);
	struct store *s = open_at(location);
	put(s, "s1", 1);
	OPS->close(s);
	redis_server_do(redis, "SELECT 3");
	assert_int_equal(redis_server_do(redis, "EXISTS ptycast:session:{s1}"), 1);

	redis_server_do(redis, "ACL SETUSER weak on >open-sesame ~* +ping");
	assert_open_fails(-EACCES, "NOPERM", "//weak:open-sesame@127.0.0.1:%u", port);
	redis_server_kill(redis);
	assert_open_fails(-EHOSTUNREACH, "cannot be reached (Connection refused): is it running",
			  "//:open-sesame@127.0.0.1:%u", port);
	assert_open_fails(-EHOSTUNREACH, "cannot be reached", "//no-such-host.invalid:%u", port);
}

/* The line of docs/redis.md that makes the user. */
static void make_documented_user(void)
{
	char line[1000] = "";
	FILE *f = fopen("docs/redis.md", "re");
	assert_non_null(f);
	while (strncmp(line, "    ACL SETUSER ", 16) != 0)
		assert_non_null(fgets(line, sizeof(line), f));
	fclose(f);
	const char *argv[64];
	int argc = 0;
	for (char *word = strtok(line, " \n"); word != NULL; word = strtok(NULL, " \n"))
		argv[argc++] = strcmp(word, ">PASSWORD") == 0 ? ">sesame" : word;
	struct timeval timeout = { .tv_sec = 5 };
	redisContext *c = redisConnectWithTimeout("127.0.0.1", redis_server_port(redis), timeout);
	assert_int_equal(c->err, 0);
	redisReply *r = redisCommandArgv(c, argc, argv, NULL);
	if (r == NULL || r->type != REDIS_REPLY_STATUS)
		fail_msg("%s", r == NULL ? "no reply" : r->str);
	freeReplyObject(r);
	redisFree(c);
}

static int ignore_session(void *arg, const struct store_session *record)
{
	(void)record;
	++*(int *)arg;
	return 0;
}

static int ignore_sandbox(void *arg, const struct store_sandbox *record)
{
	(void)record;
	++*(int *)arg;
	return 0;
}

#define DO(call)                                             \
	do {                                                 \
		struct error why = { 0 };                    \
		struct error *err = &why;                    \
		if ((call) != 0)                             \
			fail_msg("%s: %s", #call, why.text); \
	} while (0)

static void the_documented_user_may_do_all_that_is_needed(void **state)
{
	(void)state;
	make_documented_user();
	char location[100];
	snprintf(location, sizeof(location), "//ptycast:sesame@127.0.0.1:%u/1",
		 redis_server_port(redis));
	struct store *s = open_at(location);
	struct store_session r = named("s1", 0), known, found;
	int calls = 0;
	size_t count = 0;
	uint8_t value[4] = { 1 };
	DO(OPS->get_or_put(s, "key", value, sizeof(value), err));
	DO(OPS->create_session(s, &r, &known, err));
	assert_int_equal(create(s, "s1", NULL), 0); /* once more */
	put(s, "s1", 1);
	r = named("s2", 1);
	r.ended = true;
	struct waiter w = WAITER_INIT;
	assert_int_equal(OPS->put_session(s, &r, waiter_note, &w), 0);
	assert_true(waiter_wait(&w, 1));
	assert_int_equal(w.failed, 0);
	assert_int_equal(OPS->delete_session(s, "s2", 5, 1, NULL, NULL), 0);
	put(s, "s3", 1);
	DO(OPS->get_session(s, "s1", &found, err));
	DO(OPS->reseal_session(s, &found, "e", NULL, err));
	store_session_fini(&found);
	DO(OPS->list_sessions(s, "alice", "open", "a", 10, ignore_session, &calls, err));
	assert_int_equal(calls, 2);
	DO(OPS->count_sessions(s, "alice", 10, &count, err));
	assert_int_equal(count, 2);
	DO(OPS->take_session(s, "s1", 1, 2, 2, &found, err));
	store_session_fini(&found);
	DO(OPS->orphans(s, true, ignore_session, &calls, err));
	DO(OPS->orphans(s, false, ignore_session, &calls, err));
	DO(OPS->spend(s, "t", 1000, err));
	DO(OPS->keep(s, "key", value, sizeof(value), err));

	struct store_sandbox box = sandbox_of("b1"), stored;
	DO(OPS->insert_sandbox(s, &box, err));
	DO(OPS->get_sandbox(s, "b1", &stored, err));
	DO(OPS->update_sandbox(s, &stored, err));
	store_sandbox_fini(&stored);
	DO(OPS->list_sandboxes(s, NULL, NULL, 10, ignore_sandbox, &calls, err));
	DO(OPS->count_sandboxes(s, "alice", &count, err));
	DO(OPS->delete_sandbox(s, "b1", err));
	OPS->close(s);

	/* Another generation, and settling. */
	redis_server_do(redis, "SELECT 1");
	redis_server_do(redis, "SET ptycast:generation x");
	OPS->close(open_at(location));
	assert_int_equal(redis_server_do(redis, "EXISTS ptycast:settling"), 1);
}

/* --- a full server --- */

static void fill(void)
{
	/* Above its limit from now on: what needs memory is refused. */
	redis_server_do(redis, "CONFIG SET maxmemory 1");
}

static void empty(void)
{
	redis_server_do(redis, "CONFIG SET maxmemory 0");
}

static void a_full_server_refuses_and_writes_wait_for_room(void **state)
{
	(void)state;
	struct store *s = open_store();
	struct waiter w = WAITER_INIT;
	struct error err = { 0 };
	struct store_session taken;
	int64_t errors = metric_get(METRIC_STORE_ERRORS);
	put(s, "s1", 1);
	put(s, "s2", 1);
	assert_int_equal(OPS->get_or_put(s, "old", (uint8_t[]){ 1, 0, 0, 0 }, 4, NULL), 0);
	fill();
	for (int i = 0; i < 20; i++) {
		char id[16];
		snprintf(id, sizeof(id), "n%d", i);
		queue(s, id, 3, &w);
	}
	wait_until(is_unhealthy, s);
	assert_int_equal(waiter_done(&w), 0);
	assert_true(metric_get(METRIC_STORE_ERRORS) > errors);

	assert_int_equal(create(s, "new", &err), -ENOSPC);
	assert_non_null(strstr(err.text, "OOM command not allowed"));
	assert_int_equal(OPS->spend(s, "t", 1000, NULL), -ENOSPC);
	struct store_sandbox box = sandbox_of("b1");
	assert_int_equal(OPS->insert_sandbox(s, &box, NULL), -ENOSPC);
	uint8_t value[4] = { 1 };
	assert_int_equal(OPS->keep(s, "old", value, sizeof(value), NULL), 0); /* it is there */
	assert_int_equal(OPS->keep(s, "key", value, sizeof(value), NULL), -ENOSPC);
	assert_int_equal(OPS->get_or_put(s, "key", value, sizeof(value), NULL), -ENOSPC);
	assert_int_equal(create(s, "s1", NULL), 0); /* its own, once more: nothing is written */

	assert_stored(s, "s1", 1);
	assert_int_equal(get(s, "none", &(uint64_t){ 0 }, NULL), -ENOENT);
	assert_int_equal(OPS->take_session(s, "s1", 1, 2, 2, &taken, NULL), 0);
	store_session_fini(&taken);
	assert_stored(s, "s1", 2);

	assert_int_equal(waiter_done(&w), 0);
	empty();
	assert_true(waiter_wait(&w, 20));
	assert_int_equal(w.failed, 0);
	assert_stored(s, "n19", 3);
	assert_true(OPS->healthy(s));
	OPS->close(s);
}

static void closing_on_a_full_server_gives_up_in_the_end(void **state)
{
	(void)state;
	struct store *s = open_store();
	struct waiter w = WAITER_INIT;
	fill();
	queue(s, "s1", 1, &w);
	wait_until(is_unhealthy, s);
	int64_t before_ms = now_ms();
	OPS->close(s);
	assert_true(now_ms() - before_ms < 10000);
	assert_int_equal(w.done, 1);
	assert_int_equal(w.status[0], -ENOSPC);
	empty();
}

/* --- a server that goes and comes back --- */

static void a_restart_loses_no_write(void **state)
{
	(void)state;
	struct store *s = open_store();
	struct waiter w = WAITER_INIT;
	struct error err = { 0 };
	put(s, "before", 1);
	redis_server_kill(redis);
	for (uint64_t i = 0; i < 200; i++)
		queue(s, i % 2 == 0 ? "even" : "odd", i + 1, &w);
	wait_until(is_unhealthy, s);
	assert_int_equal(waiter_done(&w), 0);
	assert_int_equal(get(s, "before", &(uint64_t){ 0 }, &err), -EHOSTUNREACH);
	assert_non_null(strstr(err.text, "cannot be reached"));
	assert_int_equal(OPS->spend(s, "t", 1000, NULL), -EHOSTUNREACH);

	redis_server_restart(redis);
	assert_true(waiter_wait(&w, 200));
	assert_int_equal(w.failed, 0);
	assert_true(OPS->healthy(s));
	assert_stored(s, "before", 1);
	assert_stored(s, "even", 199);
	assert_stored(s, "odd", 200);

	/* It may have lost some: for a while a miss proves nothing. */
	assert_int_equal(redis_server_do(redis, "EXISTS ptycast:settling"), 1);
	assert_int_equal(get(s, "none", &(uint64_t){ 0 }, &err), -EHOSTUNREACH);
	assert_non_null(strstr(err.text, "records are being restored"));
	assert_int_equal(create(s, "none", NULL), -EHOSTUNREACH);
	long long ttl_ms = redis_server_do(redis, "PTTL ptycast:settling");
	assert_true(ttl_ms > 0 && ttl_ms <= 4000);
	redis_server_do(redis, "DEL ptycast:settling");
	assert_int_equal(create(s, "none", NULL), 0);
	OPS->close(s);
}

static void a_server_that_comes_back_empty_settles(void **state)
{
	(void)state;
	struct store *s = open_store(), *fresh;
	put(s, "lost", 1);
	redis_server_kill(redis);
	redis_server_restart(redis);
	/* A replica that starts now has never seen the records. */
	fresh = open_store();
	assert_int_equal(redis_server_do(redis, "EXISTS ptycast:settling"), 0);
	assert_int_equal(get(s, "lost", &(uint64_t){ 0 }, NULL), -EHOSTUNREACH);
	assert_int_equal(get(fresh, "lost", &(uint64_t){ 0 }, NULL), -EHOSTUNREACH);
	assert_int_equal(create(fresh, "lost", NULL), -EHOSTUNREACH);
	put(s, "lost", 1);
	assert_stored(fresh, "lost", 1);
	OPS->close(fresh);
	OPS->close(s);
}

static void a_server_that_hangs_is_not_waited_for(void **state)
{
	(void)state;
	struct store *s = open_store();
	struct waiter w = WAITER_INIT;
	struct error err = { 0 };
	put(s, "s1", 1);
	redis_server_freeze(redis);
	queue(s, "s1", 2, &w);
	int64_t before_ms = now_ms();
	assert_int_equal(get(s, "s1", &(uint64_t){ 0 }, &err), -EHOSTUNREACH);
	assert_true(now_ms() - before_ms < 4000);
	assert_non_null(strstr(err.text, "it does not answer in time"));
	wait_until(is_unhealthy, s);
	redis_server_thaw(redis);
	assert_true(waiter_wait(&w, 1));
	assert_int_equal(w.failed, 0);
	wait_until(can_be_asked, s);
	assert_stored(s, "s1", 2);
	OPS->close(s);
}

static void a_connection_that_was_cut_is_made_anew_at_once(void **state)
{
	(void)state;
	struct store *s = open_store();
	put(s, "s1", 1);
	for (uint64_t i = 2; i < 12; i++) {
		struct store_sandbox box = sandbox_of("b1");
		redis_server_do(redis, "CLIENT KILL TYPE normal SKIPME yes");
		assert_stored(s, "s1", i - 1);
		redis_server_do(redis, "CLIENT KILL TYPE normal SKIPME yes");
		put(s, "s1", i);
		redis_server_do(redis, "CLIENT KILL TYPE normal SKIPME yes");
		assert_int_equal(OPS->insert_sandbox(s, &box, NULL), 0);
		redis_server_do(redis, "CLIENT KILL TYPE normal SKIPME yes");
		/* Not repeated when its answer is lost; but of a dead connection it knows before. */
		assert_int_equal(OPS->delete_sandbox(s, "b1", NULL), 0);
	}
	assert_true(OPS->healthy(s));
	OPS->close(s);
}

/* The server does it, its answer, but for the first ones, is lost, and it is asked once more. */
#define DO_CUT_BEHIND(skip, call)                                \
	do {                                                     \
		unsigned cuts = cutter_cuts(cutter);             \
		cutter_cut(cutter, skip);                        \
		DO(call);                                        \
		assert_int_equal(cutter_cuts(cutter), cuts + 1); \
	} while (0)
#define DO_CUT(call) DO_CUT_BEHIND(0, call)

static void an_answer_that_is_lost_changes_nothing(void **state)
{
	(void)state;
	struct cutter *cutter = cutter_start(redis_server_port(redis));
	char location[64];
	snprintf(location, sizeof(location), "//127.0.0.1:%u", cutter_port(cutter));
	struct store *s = open_at(location);
	struct store_session r = named("s1", 0), found, known;
	struct store_sandbox box = sandbox_of("b1"), stored;
	int calls = 0;
	size_t count = 0;
	uint8_t value[4] = { 1 };
	DO_CUT(OPS->get_or_put(s, "key", value, sizeof(value), err));
	DO_CUT(OPS->get_session(s, "s1", &found, err) == -ENOENT ? 0 : -1);
	/* The first answer says that it may be made. */
	DO_CUT_BEHIND(1, OPS->create_session(s, &r, &known, err));
	assert_true(r.fence == 1);
	DO_CUT(OPS->get_session(s, "s1", &found, err));
	DO_CUT(OPS->reseal_session(s, &found, "e", NULL, err));
	store_session_fini(&found);
	DO_CUT(OPS->list_sessions(s, NULL, NULL, NULL, 9, ignore_session, &calls, err));
	assert_int_equal(calls, 1);
	DO_CUT(OPS->count_sessions(s, "alice", 9, &count, err));
	assert_int_equal(count, 1);
	DO_CUT(OPS->take_session(s, "s1", 1, 2, 2, &found, err));
	assert_true(found.owner == 2 && found.fence == 2);
	store_session_fini(&found);
	calls = 0; /* its owner gives no sign of life */
	DO_CUT(OPS->orphans(s, true, ignore_session, &calls, err));
	assert_int_equal(calls, 1);
	DO_CUT(OPS->spend(s, "t", 60000, err));
	assert_int_equal(OPS->spend(s, "t", 60000, NULL), -EEXIST);
	DO_CUT(OPS->keep(s, "key", value, sizeof(value), err));
	DO_CUT(OPS->keep(s, "other", value, sizeof(value), err));

	DO_CUT(OPS->insert_sandbox(s, &box, err));
	assert_int_equal(OPS->insert_sandbox(s, &box, NULL), -EEXIST);
	DO_CUT(OPS->get_sandbox(s, "b1", &stored, err));
	DO_CUT(OPS->update_sandbox(s, &stored, err));
	assert_int_equal(OPS->update_sandbox(s, &stored, NULL), -ESTALE);
	store_sandbox_fini(&stored);
	DO(OPS->get_sandbox(s, "b1", &stored, err));
	assert_true(stored.revision == 2);
	store_sandbox_fini(&stored);
	DO_CUT(OPS->list_sandboxes(s, NULL, NULL, 9, ignore_sandbox, &calls, err));
	DO_CUT(OPS->count_sandboxes(s, "alice", &count, err));
	assert_int_equal(count, 1);
	/* It cannot be told whether there was one. */
	DO_CUT(OPS->delete_sandbox(s, "b1", err) == -EHOSTUNREACH ? 0 : -1);
	assert_int_equal(OPS->get_sandbox(s, "b1", &stored, NULL), -ENOENT);

	put(s, "s2", 1);
	cutter_cut(cutter, 0);
	put(s, "s2", 2);
	assert_stored(s, "s2", 2);
	OPS->close(s);
	cutter_stop(cutter);
}

struct work {
	struct store *store;
	_Atomic bool *stop;
	unsigned number;
	_Atomic int done;
	int unreachable;
};

/* Creates and spends what nobody else does: each must succeed, or say that it could not ask. */
static void *work_on(void *arg)
{
	struct work *w = arg;
	for (unsigned i = 0; !*w->stop; i++) {
		char id[40];
		snprintf(id, sizeof(id), "w%u-%u", w->number, i);
		struct store_session r = named(id, 0), known = { 0 };
		int rc = OPS->create_session(w->store, &r, &known, NULL);
		store_session_fini(&known);
		if (rc == 0)
			rc = OPS->spend(w->store, id, 60000, NULL);
		if (rc == 0)
			w->done++;
		else if (rc == -EHOSTUNREACH)
			w->unreachable++;
		else
			fail_msg("%s: %d", id, rc);
	}
	return NULL;
}

static void calls_that_are_cut_in_the_middle_are_carried_out_once(void **state)
{
	(void)state;
	struct store *s = open_store();
	_Atomic bool stop = false;
	struct waiter w = WAITER_INIT;
	pthread_t threads[4];
	struct work work[4];
	for (unsigned i = 0; i < 4; i++) {
		work[i].store = s;
		work[i].stop = &stop;
		work[i].number = i;
		work[i].done = work[i].unreachable = 0;
		pthread_create(&threads[i], NULL, work_on, &work[i]);
	}
	for (uint64_t i = 1; i <= 200; i++) {
		queue(s, "s1", i, &w);
		redis_server_do(redis, "CLIENT KILL TYPE normal SKIPME yes");
	}
	/* On a busy machine no call may have come through between two cuts. */
	time_t until = time(NULL) + 20;
	while (work[0].done + work[1].done + work[2].done + work[3].done == 0)
		assert_true(time(NULL) < until && sched_yield() == 0);
	stop = true;
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_true(waiter_wait(&w, 200));
	assert_int_equal(w.failed, 0);
	assert_stored(s, "s1", 200);
	OPS->close(s);
}

static void scripts_that_were_thrown_away_are_loaded_again(void **state)
{
	(void)state;
	struct store *s = open_store();
	struct store_sandbox box = sandbox_of("b1");
	put(s, "s1", 1);
	assert_int_equal(OPS->insert_sandbox(s, &box, NULL), 0);
	redis_server_do(redis, "SCRIPT FLUSH");
	assert_int_equal(OPS->delete_sandbox(s, "b1", NULL), 0);
	redis_server_do(redis, "SCRIPT FLUSH");
	int64_t errors = metric_get(METRIC_STORE_ERRORS);
	put(s, "s1", 2);
	assert_stored(s, "s1", 2);
	assert_true(metric_get(METRIC_STORE_ERRORS) == errors);
	OPS->close(s);
}

static void a_key_that_is_something_else_stands_in_nobodys_way(void **state)
{
	(void)state;
	struct store *s = open_store();
	struct waiter w = WAITER_INIT;
	struct error err = { 0 };
	int calls = 0;
	redis_server_do(redis, "SET ptycast:session:{bad} 1");
	queue(s, "bad", 1, &w);
	assert_true(waiter_wait(&w, 1));
	assert_int_equal(w.status[0], -EINVAL);
	put(s, "good", 1);
	assert_true(OPS->healthy(s));
	assert_int_equal(get(s, "bad", &(uint64_t){ 0 }, &err), -EINVAL);
	assert_non_null(strstr(err.text, "WRONGTYPE"));
	assert_stored(s, "good", 1);
	assert_int_equal(OPS->list_sessions(s, NULL, NULL, NULL, 10, ignore_session, &calls, NULL),
			 0);
	assert_int_equal(calls, 1);
	OPS->close(s);
}

static void a_server_that_became_a_replica_is_left_when_it_is_one_no_more(void **state)
{
	(void)state;
	struct store *s = open_store();
	struct waiter w = WAITER_INIT;
	put(s, "s1", 1);
	redis_server_do(redis, "REPLICAOF 127.0.0.1 1");
	queue(s, "s1", 2, &w);
	wait_until(is_unhealthy, s);
	assert_int_equal(waiter_done(&w), 0);
	assert_int_equal(create(s, "new", NULL), -EHOSTUNREACH);
	redis_server_do(redis, "REPLICAOF NO ONE");
	assert_true(waiter_wait(&w, 1));
	assert_int_equal(w.failed, 0);
	wait_until(is_healthy, s);
	OPS->close(s);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
#define ON_REDIS(test) cmocka_unit_test_setup_teardown(test, start_redis, stop_redis)
	const struct CMUnitTest tests[] = {
		ON_REDIS(opening_says_what_is_wrong),
		ON_REDIS(the_documented_user_may_do_all_that_is_needed),
		ON_REDIS(a_full_server_refuses_and_writes_wait_for_room),
		ON_REDIS(closing_on_a_full_server_gives_up_in_the_end),
		cmocka_unit_test_setup_teardown(a_restart_loses_no_write, start_redis_that_keeps,
						stop_redis),
		ON_REDIS(a_server_that_comes_back_empty_settles),
		ON_REDIS(a_server_that_hangs_is_not_waited_for),
		ON_REDIS(a_connection_that_was_cut_is_made_anew_at_once),
		ON_REDIS(an_answer_that_is_lost_changes_nothing),
		ON_REDIS(calls_that_are_cut_in_the_middle_are_carried_out_once),
		ON_REDIS(scripts_that_were_thrown_away_are_loaded_again),
		ON_REDIS(a_key_that_is_something_else_stands_in_nobodys_way),
		ON_REDIS(a_server_that_became_a_replica_is_left_when_it_is_one_no_more),
	};
	return cmocka_run_group_tests_name("redis", tests, NULL, NULL);
}
