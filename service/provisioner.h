/* provisioner.h -- threads that may block: calls to providers, from a bounded queue. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "service/error.h"

struct provisioner;

/* Embedded at the start of what the job needs. */
struct provisioner_job {
	struct provisioner_job *next;
	/* Of jobs with the same key one runs at a time, in the order in which they came: the second opening
	 * in a sandbox finds what the first one remembered. 0: any number. */
	uint64_t key;
	/* Whose it is: one owner's jobs take at most half of the threads, so that his slow sandboxes are not
	 * everybody's. 0: not counted. */
	uint64_t owner;
	/* Called on a provisioner thread; may block; frees or hands on the job. cancelled: the provisioner is
	 * being destroyed, so just do that. */
	void (*run)(struct provisioner_job *job, bool cancelled);
};

/* Threads are started when they are needed, threads at most; the one that was used last is used next, since it has
 * the warmest connections. */
int provisioner_create(unsigned threads, unsigned queue_max, struct provisioner **ret,
		       struct error *err);
/* Waits for the jobs that run; those still queued are cancelled. */
void provisioner_destroy(struct provisioner *p);

/* Thread: any. -EAGAIN when the queue is full; the job is then still the caller's. */
int provisioner_submit(struct provisioner *p, struct provisioner_job *job);
