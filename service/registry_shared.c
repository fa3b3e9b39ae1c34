/* registry_shared.c -- sessions that are found through a store that replicas share: made where nobody else
 * makes them, mirrored where another replica has them, taken over when that one is gone. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "service/app.h"
#include "service/config.h"
#include "service/log.h"
#include "service/loop.h"
#include "service/metrics.h"
#include "service/registry_private.h"
#include "store/store.h"

#define OURS_MS 1000 /* until a session that the store says is ours is listed here */

struct reply registry_store_problem(int rc)
{
	/* What the store said is in the log: it names servers. */
	struct reply reply = rc == -ENOSPC
				     ? reply_problem(503, "store-full",
						     "the store has no room for another session")
				     : reply_problem(503, "store-unavailable",
						     "the store cannot be asked at the moment");
	reply.retry_after_s = 1;
	return reply;
}

/* Puts s, which is new, in place of whatever has its id here. */
static int list_locked(struct registry *r, struct session *s, struct session **replaced)
{
	bool found;
	size_t at = registry_find_locked(r, session_id(s), &found);
	*replaced = NULL;
	int rc = r->stopping ? -ESHUTDOWN : 0;
	if (rc == 0 && !found)
		rc = registry_insert_locked(r, at, session_ref(s));
	if (rc < 0)
		return rc;
	rc = session_start(s);
	if (rc < 0) {
		if (!found) {
			registry_remove_locked(r, at);
			session_unref(s);
		}
		return rc;
	}
	if (found) {
		*replaced = r->sessions[at];
		r->sessions[at] = session_ref(s);
	}
	r->running++;
	return 0;
}

static void discard(struct session *replaced)
{
	if (replaced == NULL)
		return;
	session_set_dropped(replaced);
	session_discard(replaced, false);
	session_unref(replaced);
}

/* The session of a record, here: as the owner's, or as a mirror. -EAGAIN: it is ours, and not listed yet. */
static int find_or_mirror(struct registry *r, const struct store_session *record, bool insist,
			  struct session **ret)
{
	struct session *s = NULL, *replaced = NULL;
	bool found;
	int rc = 0;
	pthread_mutex_lock(&r->lock);
	size_t at = registry_find_locked(r, record->id, &found);
	if (found && session_birth(r->sessions[at]) == record->birth) {
		s = session_ref(r->sessions[at]);
		session_touch(s);
	} else if (record->owner == r->app->replica && !insist) {
		rc = -EAGAIN;
	} else {
		rc = session_mirror(r->app, record, &s);
		if (rc == 0)
			rc = list_locked(r, s, &replaced);
		if (rc < 0) {
			session_unref(s);
			s = NULL;
		}
	}
	pthread_mutex_unlock(&r->lock);
	discard(replaced);
	*ret = s;
	return rc;
}

static int wait_or_mirror(struct registry *r, const struct store_session *record,
			  struct session **ret)
{
	uint64_t until_us = loop_now_us() + OURS_MS * UINT64_C(1000);
	int rc;
	while ((rc = find_or_mirror(r, record, loop_now_us() > until_us, ret)) == -EAGAIN)
		nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
	return rc;
}

static unsigned no_memory(struct reply *problem)
{
	*problem = reply_problem(503, "busy", "no memory");
	problem->retry_after_s = 1;
	return 503;
}

unsigned registry_look_up(struct registry *r, const char *id, const char *subject,
			  struct session **ret, struct reply *problem)
{
	struct store_session record = { 0 };
	struct error err = { 0 };
	*ret = registry_find(r, id, subject);
	if (*ret != NULL)
		return 200;
	*problem = reply_problem(404, "not-found", "no such session");
	if (!r->app->store_ops->shared)
		return 404;
	int rc = r->app->store_ops->get_session(r->app->store, id, &record, &err);
	unsigned status = 200;
	if (rc == 0 && record.subject == NULL)
		rc = -EBADMSG; /* the store was tampered with */
	if (rc == -ENOENT || (rc == 0 && subject != NULL && strcmp(record.subject, subject) != 0)) {
		status = 404;
	} else if (rc < 0) {
		*problem = registry_store_problem(rc);
		status = problem->status;
	} else if (wait_or_mirror(r, &record, ret) < 0) {
		status = no_memory(problem);
	}
	store_session_fini(&record);
	return status;
}

/* What the session that has the id already means for this call. */
static unsigned judge(struct registry *r, const struct store_session *known,
		      const struct session_spec *spec, struct session **ret, struct reply *problem)
{
	if (known->subject == NULL || known->params == NULL ||
	    strcmp(known->subject, spec->subject) != 0)
		*problem = reply_problem(409, "id-taken", "this id is in use");
	else if (!session_params_are(r->app, known->params, spec->params))
		*problem = reply_problem(
			409, "id-differs",
			"a session with this id is alive and was made with other parameters");
	else if (wait_or_mirror(r, known, ret) < 0)
		no_memory(problem);
	else
		return 200;
	return problem->status;
}

static bool has_room(struct registry *r, const char *subject, struct reply *problem)
{
	const struct app *app = r->app;
	struct session *evict;
	struct error err = { 0 };
	size_t count = 0;
	pthread_mutex_lock(&r->lock);
	bool room = registry_has_room_locked(r, subject, &evict, problem);
	if (room && evict != NULL)
		session_ref(evict);
	bool stopping = r->stopping;
	pthread_mutex_unlock(&r->lock);
	if (stopping) {
		*problem = reply_problem(503, "draining", "the service is being stopped");
		problem->retry_after_s = 1;
	}
	if (!room || stopping) {
		if (room && evict != NULL)
			session_unref(evict);
		return false;
	}
	if (evict != NULL) {
		registry_forget(r, evict);
		session_unref(evict);
	}
	unsigned max = app->config->max_sessions_per_subject;
	int rc = app->store_ops->count_sessions(app->store, subject, max, &count, &err);
	if (rc < 0) {
		*problem = registry_store_problem(rc);
		return false;
	}
	if (count >= max) {
		*problem = reply_problem(429, "session-limit",
					 "at most %u sessions of one subject may be alive at once",
					 max);
		problem->retry_after_s = 5;
		return false;
	}
	return true;
}

/* The record is made: now it is listed, and opened. */
static unsigned start_made(struct registry *r, struct session *s, struct reply *problem)
{
	struct session *replaced = NULL;
	pthread_mutex_lock(&r->lock);
	int rc = list_locked(r, s, &replaced);
	pthread_mutex_unlock(&r->lock);
	discard(replaced);
	if (rc < 0)
		return no_memory(problem);
	if (session_submit(s) < 0) {
		registry_forget(r, s);
		*problem = reply_problem(503, "busy",
					 "too many sessions are being opened: try again");
		problem->retry_after_s = 1;
		return 503;
	}
	metric_add(METRIC_SESSIONS_CREATED, 1);
	return 201;
}

unsigned registry_open_shared(struct registry *r, const struct session_spec *spec,
			      struct session **ret, struct reply *problem)
{
	const struct app *app = r->app;
	struct store_session record, known = { 0 };
	struct error err = { 0 };
	struct session *s;
	/* One that is known needs no room. */
	int rc = app->store_ops->get_session(app->store, spec->id, &known, &err);
	if (rc == 0 && !known.ended && !known.closing) {
		unsigned status = judge(r, &known, spec, ret, problem);
		store_session_fini(&known);
		return status;
	}
	store_session_fini(&known);
	if (!has_room(r, spec->subject, problem))
		return problem->status;
	if (session_create(r->app, spec, &s) < 0)
		return no_memory(problem);
	session_record(s, &record);
	rc = app->store_ops->create_session(app->store, &record, &known, &err);
	unsigned status;
	if (rc == 0) {
		session_set_number(s, record.fence);
		status = start_made(r, s, problem);
		if (status == 201)
			*ret = session_ref(s);
		else
			app->store_ops->delete_session(app->store, spec->id, record.birth,
						       record.fence, NULL, NULL);
	} else if (rc == -EEXIST) {
		status = judge(r, &known, spec, ret, problem);
		store_session_fini(&known);
	} else {
		/* It may have been made, and only the answer was lost. */
		app->store_ops->delete_session(app->store, spec->id, record.birth, UINT64_MAX, NULL,
					       NULL);
		*problem = registry_store_problem(rc);
		status = problem->status;
	}
	session_unref(s);
	return status;
}

void registry_adopt(struct registry *r, const struct store_session *record)
{
	struct session *s = NULL, *replaced = NULL;
	bool found;
	int rc = 0;
	pthread_mutex_lock(&r->lock);
	size_t at = registry_find_locked(r, record->id, &found);
	if (found && session_birth(r->sessions[at]) == record->birth) {
		session_touch(r->sessions[at]); /* not to be dropped as unused meanwhile */
		session_own_later(r->sessions[at], record);
	} else {
		rc = session_restore(r->app, record, &s);
		if (rc == 0)
			rc = list_locked(r, s, &replaced);
		if (rc == 0)
			log_info("session taken over", "session=%s number=%" PRIu64, record->id,
				 record->fence);
	}
	pthread_mutex_unlock(&r->lock);
	session_unref(s);
	discard(replaced);
	if (rc < 0)
		log_error("session not taken over", "session=%s error=%d", record->id, -rc);
}

void registry_drop(struct registry *r, struct session *s)
{
	bool found;
	pthread_mutex_lock(&r->lock);
	size_t at = registry_find_locked(r, session_id(s), &found);
	found = found && r->sessions[at] == s;
	if (found)
		registry_remove_locked(r, at);
	pthread_mutex_unlock(&r->lock);
	if (found)
		discard(s);
}

bool registry_drop_unused(struct registry *r, struct session *s, uint64_t unused_us)
{
	bool found;
	pthread_mutex_lock(&r->lock);
	size_t at = registry_find_locked(r, session_id(s), &found);
	found = found && r->sessions[at] == s && session_is_mirror(s) &&
		loop_now_us() > session_touched_us(s) + unused_us;
	if (found)
		registry_remove_locked(r, at);
	pthread_mutex_unlock(&r->lock);
	if (found)
		discard(s);
	return found;
}

void registry_rewrite(struct registry *r)
{
	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < r->count; i++)
		if (!session_is_mirror(r->sessions[i]))
			session_rewrite(r->sessions[i]);
	pthread_mutex_unlock(&r->lock);
}

bool registry_confirm(struct registry *r, struct session *s)
{
	struct store_session record = { 0 };
	struct error err = { 0 };
	int rc = r->app->store_ops->get_session(r->app->store, session_id(s), &record, &err);
	bool is_other = rc == -ENOENT || (rc == 0 && record.birth != session_birth(s));
	store_session_fini(&record);
	if (is_other)
		registry_drop(r, s);
	return !is_other;
}
