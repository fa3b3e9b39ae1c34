/* Jobs on threads: which may run at once, and what becomes of them at the end. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "service/provisioner.h"

#define JOBS_MAX 32
#define DEADLINE_S 30

/* What the jobs of a test did; they wait in it until it is opened. */
struct scene {
	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t changed;
	bool open;
	unsigned running, most, ended, cancelled;
	unsigned of_one_owner, most_of_one_owner; /* owner 1 */
	char order[JOBS_MAX + 1];                 /* names, as they began */
	pthread_t threads[JOBS_MAX];              /* where they ran */
	unsigned threads_count;
};

struct job {
	struct provisioner_job job;
	struct scene *scene;
	char name;
	bool waits; /* until the scene is open */
};

static void init_scene(struct scene *s)
{
	memset(s, 0, sizeof(*s));
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
}

static void fini_scene(struct scene *s)
{
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
}

static void open_scene(struct scene *s)
{
	pthread_mutex_lock(&s->lock);
	s->open = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

/* Waits until *counter, of the scene, is value; false: it took too long. */
static bool reaches(struct scene *s, const unsigned *counter, unsigned value)
{
	struct timespec end;
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += DEADLINE_S;
	int rc = 0;
	pthread_mutex_lock(&s->lock);
	while (*counter != value && rc == 0)
		rc = pthread_cond_timedwait(&s->changed, &s->lock, &end);
	bool good = *counter == value;
	pthread_mutex_unlock(&s->lock);
	return good;
}

static void note_thread(struct scene *s)
{
	for (unsigned i = 0; i < s->threads_count; i++)
		if (pthread_equal(s->threads[i], pthread_self()))
			return;
	s->threads[s->threads_count++] = pthread_self();
}

static void run(struct provisioner_job *job, bool cancelled)
{
	struct job *j = (struct job *)job;
	struct scene *s = j->scene;
	pthread_mutex_lock(&s->lock);
	if (cancelled) {
		s->cancelled++;
	} else {
		s->order[strlen(s->order)] = j->name;
		note_thread(s);
		s->most = ++s->running > s->most ? s->running : s->most;
		if (job->owner == 1 && ++s->of_one_owner > s->most_of_one_owner)
			s->most_of_one_owner = s->of_one_owner;
		pthread_cond_broadcast(&s->changed);
		while (j->waits && !s->open)
			pthread_cond_wait(&s->changed, &s->lock);
		s->running--;
		s->of_one_owner -= job->owner == 1;
	}
	s->ended++;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

static struct provisioner *create(unsigned threads, unsigned queue)
{
	struct provisioner *p = NULL;
	struct error err = { 0 };
	assert_int_equal(provisioner_create(threads, queue, &p, &err), 0);
	return p;
}

static void submit(struct provisioner *p, struct job *j)
{
	assert_int_equal(provisioner_submit(p, &j->job), 0);
}

/* ---- */

static void jobs_of_one_key_run_one_at_a_time_in_their_order(void **state)
{
	(void)state;
	struct scene s;
	struct job jobs[8], other = { .job = { .key = 6, .run = run }, .scene = &s, .name = 'o' };
	init_scene(&s);
	struct provisioner *p = create(4, 16);
	for (unsigned i = 0; i < 8; i++) {
		jobs[i] = (struct job){ .job = { .key = 5, .run = run },
					.scene = &s,
					.name = (char)('a' + i),
					.waits = true };
		submit(p, &jobs[i]);
	}
	assert_true(reaches(&s, &s.running, 1));
	submit(p, &other); /* it does not wait behind them */
	assert_true(reaches(&s, &s.ended, 1));
	assert_string_equal(s.order, "ao");
	open_scene(&s);
	assert_true(reaches(&s, &s.ended, 9));
	assert_string_equal(s.order, "aobcdefgh");
	assert_int_equal(s.most, 2);
	provisioner_destroy(p);
	fini_scene(&s);
}

static void jobs_without_a_key_run_at_once(void **state)
{
	(void)state;
	struct scene s;
	struct job jobs[4];
	init_scene(&s);
	struct provisioner *p = create(4, 16);
	for (unsigned i = 0; i < 4; i++) {
		jobs[i] = (struct job){
			.job = { .run = run }, .scene = &s, .name = 'x', .waits = true
		};
		submit(p, &jobs[i]);
	}
	assert_true(reaches(&s, &s.running, 4));
	open_scene(&s);
	assert_true(reaches(&s, &s.ended, 4));
	provisioner_destroy(p);
	fini_scene(&s);
}

static void one_owner_has_half_of_the_threads(void **state)
{
	(void)state;
	struct scene s;
	struct job jobs[8], others[2];
	init_scene(&s);
	struct provisioner *p = create(4, 16);
	for (unsigned i = 0; i < 8; i++) {
		jobs[i] = (struct job){ .job = { .key = 10 + i, .owner = 1, .run = run },
					.scene = &s,
					.name = 'm',
					.waits = true };
		submit(p, &jobs[i]);
	}
	assert_true(reaches(&s, &s.running, 2));
	for (unsigned i = 0; i < 2; i++) { /* the other half is there for others, at once */
		others[i] = (struct job){ .job = { .owner = 2 + i, .run = run },
					  .scene = &s,
					  .name = 'o',
					  .waits = true };
		submit(p, &others[i]);
	}
	assert_true(reaches(&s, &s.running, 4));
	assert_string_equal(s.order, "mmoo");
	open_scene(&s);
	assert_true(reaches(&s, &s.ended, 10));
	assert_int_equal(s.most_of_one_owner, 2);
	provisioner_destroy(p);
	fini_scene(&s);
}

static void threads_are_started_when_they_are_needed(void **state)
{
	(void)state;
	struct scene s;
	struct job jobs[12];
	init_scene(&s);
	struct provisioner *p = create(4, 16);
	for (unsigned i = 0; i < 12; i++)
		jobs[i] = (struct job){
			.job = { .run = run }, .scene = &s, .name = 'x', .waits = i
		};
	submit(p, &jobs[0]);
	assert_true(reaches(&s, &s.ended, 1));
	assert_int_equal(s.threads_count, 1);
	for (unsigned i = 1; i < 12; i++)
		submit(p, &jobs[i]);
	assert_true(reaches(&s, &s.running, 4)); /* and the rest waits */
	open_scene(&s);
	assert_true(reaches(&s, &s.ended, 12));
	assert_int_equal(s.most, 4);
	provisioner_destroy(p);
	assert_int_equal(s.threads_count, 4);
	fini_scene(&s);
}

static void a_full_queue_leaves_the_job_to_its_owner(void **state)
{
	(void)state;
	struct scene s;
	struct job jobs[4];
	init_scene(&s);
	struct provisioner *p = create(1, 2);
	for (unsigned i = 0; i < 4; i++)
		jobs[i] = (struct job){
			.job = { .run = run }, .scene = &s, .name = (char)('a' + i), .waits = true
		};
	submit(p, &jobs[0]);
	assert_true(reaches(&s, &s.running, 1));
	submit(p, &jobs[1]);
	submit(p, &jobs[2]);
	assert_int_equal(provisioner_submit(p, &jobs[3].job), -EAGAIN);
	open_scene(&s);
	assert_true(reaches(&s, &s.ended, 3));
	submit(p, &jobs[3]);
	assert_true(reaches(&s, &s.ended, 4));
	assert_string_equal(s.order, "abcd");
	provisioner_destroy(p);
	fini_scene(&s);
}

/* The one that waits for its owner's share is cancelled while the one that runs still does. */
static void *open_when_one_is_cancelled(void *arg)
{
	struct scene *s = arg;
	bool good = reaches(s, &s->cancelled, 1);
	open_scene(s);
	return good ? arg : NULL;
}

static void a_stop_waits_for_what_runs_and_cancels_the_rest(void **state)
{
	(void)state;
	struct scene s;
	struct job runs = {
		.job = { .key = 5, .owner = 1, .run = run }, .scene = &s, .name = 'r', .waits = true
	};
	struct job quick = { .job = { .run = run }, .scene = &s, .name = 'q' };
	struct job of_owner = { .job = { .key = 6, .owner = 1, .run = run }, .scene = &s };
	struct job of_key = { .job = { .key = 5, .run = run }, .scene = &s };
	init_scene(&s);
	struct provisioner *p = create(2, 16);
	submit(p, &runs);
	assert_true(reaches(&s, &s.running, 1));
	submit(p, &quick); /* there is another thread now */
	assert_true(reaches(&s, &s.ended, 1));
	submit(p, &of_key);
	submit(p, &of_owner);
	pthread_t helper;
	void *good;
	assert_int_equal(pthread_create(&helper, NULL, open_when_one_is_cancelled, &s), 0);
	provisioner_destroy(p);
	assert_int_equal(pthread_join(helper, &good), 0);
	assert_non_null(good);
	assert_int_equal(s.ended, 4);
	assert_int_equal(s.cancelled, 2);
	assert_string_equal(s.order, "rq");
	fini_scene(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(jobs_of_one_key_run_one_at_a_time_in_their_order),
		cmocka_unit_test(jobs_without_a_key_run_at_once),
		cmocka_unit_test(one_owner_has_half_of_the_threads),
		cmocka_unit_test(threads_are_started_when_they_are_needed),
		cmocka_unit_test(a_full_queue_leaves_the_job_to_its_owner),
		cmocka_unit_test(a_stop_waits_for_what_runs_and_cancels_the_rest),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
