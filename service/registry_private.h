/* registry_private.h -- what registry.c and registry_shared.c share. */
#pragma once

#include <pthread.h>

#include "service/registry.h"

struct registry {
	struct app *app;
	pthread_mutex_t lock; /* guards all below; a session's card may be locked under it */
	pthread_cond_t stopped;
	struct session **sessions; /* each with a reference of ours */
	size_t count, capacity;
	size_t running; /* started and not gone, those that are not listed any more included */
	bool stopping;  /* no new ones */
};

/* The caller holds the lock. Where id is, or would be. */
size_t registry_find_locked(const struct registry *r, const char *id, bool *found);
/* Takes over the reference. */
int registry_insert_locked(struct registry *r, size_t at, struct session *s);
void registry_remove_locked(struct registry *r, size_t at);
/* Refuses one session more than the limits allow; names an ended one that is to make room. */
bool registry_has_room_locked(struct registry *r, const char *subject, struct session **evict,
			      struct reply *problem);

/* registry_open() where the store decides who makes a session. spec->id is set. Blocks. */
unsigned registry_open_shared(struct registry *r, const struct session_spec *spec,
			      struct session **ret, struct reply *problem);
