/* provisioner.c -- see provisioner.h. */
#include "service/provisioner.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "service/metrics.h"

struct provisioner {
	pthread_mutex_t lock; /* guards all below but the threads */
	pthread_cond_t changed;
	struct provisioner_job *first, **end;
	unsigned queued, queue_max;
	bool stop;
	struct running *running; /* keys of the jobs that run */
	unsigned threads_count;
	pthread_t threads[];
};

/* On the stack of the thread that runs the job. */
struct running {
	struct running *next;
	uint64_t key;
};

static bool key_runs_locked(const struct provisioner *p, uint64_t key)
{
	for (const struct running *r = p->running; r != NULL; r = r->next)
		if (r->key == key && key != 0)
			return true;
	return false;
}

/* Takes the first job that may run now off the queue; NULL: there is none. */
static struct provisioner_job *take_locked(struct provisioner *p)
{
	struct provisioner_job **at = &p->first;
	while (*at != NULL && key_runs_locked(p, (*at)->key))
		at = &(*at)->next;
	struct provisioner_job *job = *at;
	if (job == NULL)
		return NULL;
	*at = job->next;
	if (job->next == NULL)
		p->end = at;
	p->queued--;
	return job;
}

static void *provisioner_thread(void *arg)
{
	struct provisioner *p = arg;
	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct provisioner_job *job = take_locked(p);
		if (job == NULL) {
			if (p->stop && p->first == NULL)
				break;
			pthread_cond_wait(&p->changed, &p->lock);
			continue;
		}
		struct running me = { .next = p->running, .key = job->key };
		p->running = &me;
		bool cancelled = p->stop;
		pthread_mutex_unlock(&p->lock);
		job->run(job, cancelled);
		metric_add(METRIC_PROVISIONER_JOBS, -1);
		pthread_mutex_lock(&p->lock);
		struct running **at = &p->running;
		while (*at != &me)
			at = &(*at)->next;
		*at = me.next;
		/* A job of this key, or the end, may have waited for us. */
		pthread_cond_broadcast(&p->changed);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

int provisioner_create(unsigned threads, unsigned queue_max, struct provisioner **ret,
		       struct error *err)
{
	struct provisioner *p = calloc(1, sizeof(*p) + threads * sizeof(p->threads[0]));
	if (p == NULL)
		return error_set(err, -ENOMEM, "no memory for the provisioner");
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	p->end = &p->first;
	p->queue_max = queue_max;
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = 0;
	while (p->threads_count < threads && rc == 0) {
		rc = pthread_create(&p->threads[p->threads_count], NULL, provisioner_thread, p);
		if (rc == 0)
			p->threads_count++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0) {
		provisioner_destroy(p);
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
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->threads_count; i++)
		pthread_join(p->threads[i], NULL);
	pthread_cond_destroy(&p->changed);
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
		pthread_cond_signal(&p->changed);
	}
	pthread_mutex_unlock(&p->lock);
	if (full)
		return -EAGAIN;
	metric_add(METRIC_PROVISIONER_JOBS, 1);
	return 0;
}
