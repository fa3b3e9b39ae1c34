/* registry.c -- see registry.h. An array sorted by id: some thousand sessions, listed in order. */
#include "service/registry_private.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "service/app.h"
#include "service/config.h"
#include "service/log.h"
#include "service/metrics.h"
#include "store/store.h"

int registry_create(struct app *app, struct registry **ret)
{
	struct registry *r = calloc(1, sizeof(*r));
	if (r == NULL)
		return -ENOMEM;
	r->app = app;
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&r->stopped, &attributes);
	pthread_condattr_destroy(&attributes);
	*ret = r;
	return 0;
}

void registry_destroy(struct registry *r)
{
	if (r == NULL)
		return;
	for (size_t i = 0; i < r->count; i++)
		session_unref(r->sessions[i]);
	free(r->sessions);
	pthread_cond_destroy(&r->stopped);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

/* Where id is, or would be. */
size_t registry_find_locked(const struct registry *r, const char *id, bool *found)
{
	size_t low = 0, high = r->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(session_id(r->sessions[middle]), id);
		if (order == 0) {
			*found = true;
			return middle;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*found = false;
	return low;
}

/* Takes over the reference. */
int registry_insert_locked(struct registry *r, size_t at, struct session *s)
{
	if (r->count == r->capacity) {
		size_t capacity = r->capacity == 0 ? 64 : r->capacity * 2;
		struct session **sessions = realloc(r->sessions,
						    capacity * sizeof(struct session *));
		if (sessions == NULL)
			return -ENOMEM;
		r->sessions = sessions;
		r->capacity = capacity;
	}
	memmove(r->sessions + at + 1, r->sessions + at, (r->count - at) * sizeof(struct session *));
	r->sessions[at] = s;
	r->count++;
	return 0;
}

void registry_remove_locked(struct registry *r, size_t at)
{
	r->count--;
	memmove(r->sessions + at, r->sessions + at + 1, (r->count - at) * sizeof(struct session *));
}

/* Refuses one session more than the limits allow; names an ended one that is to make room. */
bool registry_has_room_locked(struct registry *r, const char *subject, struct session **evict,
			      struct reply *problem)
{
	const struct config *cfg = r->app->config;
	size_t alive = 0, alive_of_subject = 0, ended = 0;
	int64_t oldest_ms = INT64_MAX;
	*evict = NULL;
	for (size_t i = 0; i < r->count; i++) {
		struct session *s = r->sessions[i];
		if (session_is_mirror(s))
			continue;
		if (session_state(s) == SESSION_ENDED) {
			ended++;
			if (session_created_ms(s) < oldest_ms) {
				oldest_ms = session_created_ms(s);
				*evict = s;
			}
			continue;
		}
		alive++;
		if (strcmp(session_subject(s), subject) == 0)
			alive_of_subject++;
	}
	if (ended < cfg->max_ended)
		*evict = NULL;
	if (alive < cfg->max_sessions && alive_of_subject < cfg->max_sessions_per_subject)
		return true;
	if (alive >= cfg->max_sessions)
		*problem = reply_problem(429, "session-limit",
					 "at most %u sessions may be alive at once",
					 cfg->max_sessions);
	else
		*problem = reply_problem(429, "session-limit",
					 "at most %u sessions of one subject may be alive at once",
					 cfg->max_sessions_per_subject);
	problem->retry_after_s = 5;
	return false;
}

static void make_id(char id[SESSION_ID_MAX + 1])
{
	unsigned char random[15];
	randombytes_buf(random, sizeof(random));
	sodium_bin2base64(id, SESSION_ID_MAX + 1, random, sizeof(random),
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

/* What a known session means for this call; 0 when it is ended and is to be replaced. */
static unsigned judge_known(struct session *s, const struct session_spec *spec,
			    struct reply *problem)
{
	if (strcmp(session_subject(s), spec->subject) != 0)
		*problem = reply_problem(409, "id-taken", "this id is in use");
	else if (session_state(s) == SESSION_ENDED || session_is_closing(s))
		return 0;
	else if (session_same_params(s, spec->params))
		return 200;
	else
		*problem = reply_problem(
			409, "id-differs",
			"a session with this id is alive and was made with other parameters");
	return problem->status;
}

/* Makes the session and puts it on its loop before anybody can find it. */
static int make_locked(struct registry *r, const struct session_spec *spec, size_t at, bool replace,
		       struct session **ret, struct session **replaced)
{
	struct session *s;
	int rc = session_create(r->app, spec, &s);
	if (rc < 0)
		return rc;
	if (!replace)
		rc = registry_insert_locked(r, at, session_ref(s));
	if (rc < 0) {
		session_unref(s);
		session_unref(s);
		return rc;
	}
	rc = session_start(s);
	if (rc < 0) {
		if (!replace) {
			registry_remove_locked(r, at);
			session_unref(s);
		}
		session_unref(s);
		return rc;
	}
	r->running++;
	if (replace) {
		*replaced = r->sessions[at];
		r->sessions[at] = session_ref(s);
	}
	*ret = s;
	return 0;
}

unsigned registry_open(struct registry *r, const struct session_spec *spec, struct session **ret,
		       struct reply *problem)
{
	struct session_spec made = *spec;
	char id[SESSION_ID_MAX + 1];
	if (made.id == NULL) {
		make_id(id);
		made.id = id;
	}
	if (r->app->store_ops->shared)
		return registry_open_shared(r, &made, ret, problem);
	struct session *s = NULL, *replaced = NULL, *evicted = NULL;
	bool found;
	unsigned status = 201;
	pthread_mutex_lock(&r->lock);
	size_t at = registry_find_locked(r, made.id, &found);
	if (found) {
		unsigned known = judge_known(r->sessions[at], &made, problem);
		if (known == 200)
			*ret = session_ref(r->sessions[at]);
		if (known != 0) {
			pthread_mutex_unlock(&r->lock);
			return known;
		}
	}
	if (r->stopping) {
		*problem = reply_problem(503, "draining", "the service is being stopped");
		problem->retry_after_s = 1;
		status = 503;
	} else if (!registry_has_room_locked(r, made.subject, &evicted, problem)) {
		status = problem->status;
	} else if (make_locked(r, &made, at, found, &s, &replaced) < 0) {
		*problem = reply_problem(503, "busy", "no memory");
		problem->retry_after_s = 1;
		status = 503;
	}
	if (evicted == replaced)
		evicted = NULL;
	if (evicted != NULL)
		session_ref(evicted);
	pthread_mutex_unlock(&r->lock);
	if (replaced != NULL) {
		session_discard(replaced, false);
		session_unref(replaced);
	}
	if (evicted != NULL) {
		if (status == 201)
			registry_forget(r, evicted);
		session_unref(evicted);
	}
	if (status != 201)
		return status;
	if (session_submit(s) < 0) {
		registry_forget(r, s);
		session_unref(s);
		*problem = reply_problem(503, "busy",
					 "too many sessions are being opened: try again");
		problem->retry_after_s = 1;
		return 503;
	}
	metric_add(METRIC_SESSIONS_CREATED, 1);
	*ret = s;
	return 201;
}

struct session *registry_find(struct registry *r, const char *id, const char *subject)
{
	struct session *s = NULL;
	bool found;
	pthread_mutex_lock(&r->lock);
	size_t at = registry_find_locked(r, id, &found);
	if (found && (subject == NULL || strcmp(session_subject(r->sessions[at]), subject) == 0))
		s = session_ref(r->sessions[at]);
	if (s != NULL)
		session_touch(s);
	pthread_mutex_unlock(&r->lock);
	return s;
}

size_t registry_list(struct registry *r, const char *subject, int state, const char *after,
		     size_t limit, struct session **ret, bool *more)
{
	size_t count = 0;
	bool found = false;
	*more = false;
	pthread_mutex_lock(&r->lock);
	size_t at = after == NULL ? 0 : registry_find_locked(r, after, &found);
	for (at += found ? 1 : 0; at < r->count; at++) {
		struct session *s = r->sessions[at];
		if ((subject != NULL && strcmp(session_subject(s), subject) != 0) ||
		    (state >= 0 && (int)session_state(s) != state))
			continue;
		if (count == limit) {
			*more = true;
			break;
		}
		ret[count++] = session_ref(s);
	}
	pthread_mutex_unlock(&r->lock);
	return count;
}

bool registry_forget(struct registry *r, struct session *s)
{
	bool found;
	pthread_mutex_lock(&r->lock);
	size_t at = registry_find_locked(r, session_id(s), &found);
	found = found && r->sessions[at] == s;
	if (found) {
		registry_remove_locked(r, at);
		session_discard(
			s,
			true); /* in order with a new one of that id, which is on the same loop */
	}
	pthread_mutex_unlock(&r->lock);
	if (found)
		session_unref(s);
	return found;
}

static int restore_one(void *arg, const struct store_session *record)
{
	struct registry *r = arg;
	struct session *s;
	bool found;
	int rc = session_restore(r->app, record, &s);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&r->lock);
	size_t at = registry_find_locked(r, record->id, &found);
	rc = found ? -EEXIST : registry_insert_locked(r, at, s);
	pthread_mutex_unlock(&r->lock);
	if (rc < 0)
		session_unref(s);
	return rc;
}

int registry_restore(struct registry *r, struct error *err)
{
	int rc = r->app->store_ops->load_sessions(r->app->store, restore_one, r, err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < r->count; i++) { /* nobody else is there yet */
		if (session_start(r->sessions[i]) < 0)
			return error_set(err, -ENOMEM, "no memory for the sessions of the store");
		r->running++;
	}
	if (r->count > 0)
		log_info("sessions restored", "count=%zu", r->count);
	return 0;
}

void registry_gone(struct registry *r)
{
	pthread_mutex_lock(&r->lock);
	if (--r->running == 0)
		pthread_cond_signal(&r->stopped);
	pthread_mutex_unlock(&r->lock);
}

bool registry_stop(struct registry *r, bool end_local, unsigned timeout_ms)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += timeout_ms % 1000 * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	pthread_mutex_lock(&r->lock);
	r->stopping = true;
	for (size_t i = 0; i < r->count; i++)
		session_stop(r->sessions[i], end_local);
	while (r->running > 0)
		if (pthread_cond_timedwait(&r->stopped, &r->lock, &until) == ETIMEDOUT)
			break;
	size_t left = r->running;
	pthread_mutex_unlock(&r->lock);
	if (left > 0)
		log_error("sessions not stopped in time", "count=%zu", left);
	return left == 0;
}
