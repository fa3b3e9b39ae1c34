/* provisioner.c -- see provisioner.h. */
#include "service/provisioner.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "service/metrics.h"

/* A thread; on its own stack. */
struct worker {
	struct worker *next; /* in idle or running */
	pthread_cond_t wake;
	bool called;
	uint64_t key, owner; /* of the job that runs */
};

struct provisioner {
	pthread_mutex_t lock; /* guards all below */
	struct provisioner_job *first, **end;
	unsigned queued, queue_max;
	bool stop;
	struct worker *idle; /* the one that was busy last comes first */
	struct worker *running;
	unsigned threads_count, threads_max;
	pthread_t threads[];
};

/* ---- which job ---- */

static bool may_run_locked(const struct provisioner *p, const struct provisioner_job *job)
{
	unsigned of_owner = 0, share = (p->threads_max + 1) / 2;
	for (const struct worker *w = p->running; w != NULL; w = w->next) {
		if (job->key != 0 && w->key == job->key)
			return false;
		of_owner += job->owner != 0 && w->owner == job->owner;
	}
	return of_owner < share || p->stop;
}

/* The first one that may run now, or NULL. */
static struct provisioner_job **find_locked(struct provisioner *p)
{
	struct provisioner_job **at = &p->first;
	while (*at != NULL && !may_run_locked(p, *at))
		at = &(*at)->next;
	return *at == NULL ? NULL : at;
}

static struct provisioner_job *take_locked(struct provisioner *p)
{
	struct provisioner_job **at = find_locked(p);
	if (at == NULL)
		return NULL;
	struct provisioner_job *job = *at;
	*at = job->next;
	if (job->next == NULL)
		p->end = at;
	p->queued--;
	return job;
}

static void unlink_locked(struct worker **list, const struct worker *w)
{
	while (*list != w)
		list = &(*list)->next;
	*list = w->next;
}

/* ---- the threads ---- */

static void call_locked(struct provisioner *p)
{
	struct worker *w = p->idle;
	if (w == NULL)
		return;
	p->idle = w->next;
	w->called = true;
	pthread_cond_signal(&w->wake);
}

static void run_locked(struct provisioner *p, struct worker *w, struct provisioner_job *job)
{
	w->key = job->key;
	w->owner = job->owner;
	w->next = p->running;
	p->running = w;
	bool cancelled = p->stop;
	if (find_locked(p) != NULL)
		call_locked(p);
	pthread_mutex_unlock(&p->lock);
	job->run(job, cancelled);
	metric_add(METRIC_PROVISIONER_JOBS, -1);
	pthread_mutex_lock(&p->lock);
	unlink_locked(&p->running, w);
}

static void *provisioner_thread(void *arg)
{
	struct provisioner *p = arg;
	struct worker w = { 0 };
	pthread_cond_init(&w.wake, NULL);
	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct provisioner_job *job = take_locked(p);
		if (job != NULL) {
			run_locked(p, &w, job);
			continue;
		}
		if (p->stop && p->first == NULL)
			break;
		w.next = p->idle;
		p->idle = &w;
		w.called = false;
		while (!w.called)
			pthread_cond_wait(&w.wake, &p->lock);
	}
	while (p->idle != NULL) /* the others have to see the end, too */
		call_locked(p);
	pthread_mutex_unlock(&p->lock);
	pthread_cond_destroy(&w.wake);
	return NULL;
}

static int start_thread_locked(struct provisioner *p)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = pthread_create(&p->threads[p->threads_count], NULL, provisioner_thread, p);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc == 0)
		p->threads_count++;
	return rc;
}

int provisioner_create(unsigned threads, unsigned queue_max, struct provisioner **ret,
		       struct error *err)
{
	struct provisioner *p = calloc(1, sizeof(*p) + threads * sizeof(p->threads[0]));
	if (p == NULL)
		return error_set(err, -ENOMEM, "no memory for the provisioner");
	pthread_mutex_init(&p->lock, NULL);
	p->end = &p->first;
	p->queue_max = queue_max;
	p->threads_max = threads;
	/* One that is always there: a job is never without a thread. */
	int rc = start_thread_locked(p);
	if (rc != 0) {
		pthread_mutex_destroy(&p->lock);
		free(p);
		return error_set(err, -rc, "cannot start a thread: %s", strerror(rc));
	}
	*ret = p;
	return 0;
}

void provisioner_destroy(struct provisioner *p)
{
	if (p == NULL)
		return;
	pthread_mutex_lock(&p->lock);
	p->stop = true;
	while (p->idle != NULL)
		call_locked(p);
	unsigned count = p->threads_count;
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < count; i++)
		pthread_join(p->threads[i], NULL);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

int provisioner_submit(struct provisioner *p, struct provisioner_job *job)
{
	pthread_mutex_lock(&p->lock);
	bool full = p->queued >= p->queue_max || p->stop;
	if (!full) {
		job->next = NULL;
		*p->end = job;
		p->end = &job->next;
		p->queued++;
		if (p->idle != NULL)
			call_locked(p);
		else if (p->threads_count < p->threads_max)
			start_thread_locked(p); /* without it the job waits for another one's end */
	}
	pthread_mutex_unlock(&p->lock);
	if (full)
		return -EAGAIN;
	metric_add(METRIC_PROVISIONER_JOBS, 1);
	return 0;
}
