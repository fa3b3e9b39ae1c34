/* sandbox_change.c -- see sandbox_change.h. Several processes may change the same record at once: each change
 * names the revision that it is of, and is worked out again when another one was quicker. */
#include "service/sandbox_change.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "service/app.h"
#include "service/config.h"
#include "service/loop.h"
#include "service/sandbox.h"
#include "store/store.h"

#define TRIES_MAX 64 /* in all of which somebody else was quicker */

static enum sandbox_result store_failed(int rc, const struct error *err, struct problem *problem)
{
	*problem = (struct problem){ .reply = sandbox_store_failed(rc, err) };
	return SANDBOX_REFUSED;
}

static enum sandbox_result too_busy(struct problem *problem)
{
	*problem = problem_make(503, "busy", "this sandbox is being changed all the time");
	return SANDBOX_REFUSED;
}

/* Retries are not for those who lost; they are told to come again when they lost too often. */
static bool was_late(int rc)
{
	return rc == -ESTALE || rc == -EEXIST || rc == -ENOENT;
}

/* ---- put ---- */

static bool has_room(struct app *app, const char *subject, struct problem *problem)
{
	struct error err = { 0 };
	size_t count = 0;
	unsigned max = app->config->max_sandboxes_per_subject;
	int rc = app->store_ops->count_sandboxes(app->store, subject, &count, &err);
	if (rc != 0)
		return store_failed(rc, &err, problem) != SANDBOX_REFUSED;
	if (count < max)
		return true;
	*problem = problem_make(429, "sandbox-limit", "at most %u sandboxes of one subject", max);
	problem->reply.retry_after_s = retry_after_jittered(5, 10);
	return false;
}

static enum sandbox_result insert(struct app *app, struct store_sandbox *record, int *rc,
				  struct problem *problem)
{
	struct error err = { 0 };
	if (!has_room(app, record->subject, problem))
		return SANDBOX_REFUSED;
	record->created_ms = record->updated_ms = loop_wall_ms();
	*rc = app->store_ops->insert_sandbox(app->store, record, &err);
	if (*rc == 0)
		record->revision = 1;
	else if (!was_late(*rc))
		return store_failed(*rc, &err, problem);
	return SANDBOX_CREATED;
}

/* known has the id of *record. */
static enum sandbox_result replace_known(struct app *app, struct store_sandbox *record,
					 const struct store_sandbox *known, bool replace, int *rc,
					 struct problem *problem)
{
	struct error err = { 0 };
	if (strcmp(known->subject, record->subject) != 0) {
		*problem = problem_make(409, "id-taken", "this id is not available");
		return SANDBOX_REFUSED;
	}
	const char *difference = sandbox_difference(app, record, known);
	if (difference == NULL) {
		struct store_sandbox copy;
		if (store_sandbox_copy(known, &copy) != 0) {
			*problem = problem_make(503, "busy", "no memory");
			return SANDBOX_REFUSED;
		}
		store_sandbox_fini(record);
		*record = copy;
		return SANDBOX_UNCHANGED;
	}
	if (!replace || strcmp(difference, "provider") == 0) {
		*problem = problem_make(409, "id-differs",
					"a sandbox with this id is stored with another %s",
					difference);
		snprintf(problem->field, sizeof(problem->field), "%s", difference);
		return SANDBOX_REFUSED;
	}
	record->created_ms = known->created_ms;
	record->updated_ms = loop_wall_ms();
	record->revision = known->revision;
	*rc = app->store_ops->update_sandbox(app->store, record, &err);
	if (*rc == 0)
		record->revision++;
	else if (!was_late(*rc))
		return store_failed(*rc, &err, problem);
	return SANDBOX_CHANGED;
}

enum sandbox_result sandbox_put(struct app *app, struct store_sandbox *record, bool replace,
				struct problem *problem)
{
	for (int i = 0; i < TRIES_MAX; i++) {
		struct store_sandbox known = { 0 };
		struct error err = { 0 };
		int rc = app->store_ops->get_sandbox(app->store, record->id, &known, &err);
		enum sandbox_result result;
		if (rc == 0)
			result = replace_known(app, record, &known, replace, &rc, problem);
		else if (rc == -ENOENT)
			result = insert(app, record, &rc, problem);
		else
			result = store_failed(rc, &err, problem);
		store_sandbox_fini(&known);
		if (result == SANDBOX_REFUSED || rc == 0)
			return result;
	}
	return too_busy(problem);
}

/* ---- one that is there ---- */

bool sandbox_get(struct app *app, const char *id, const char *subject, struct store_sandbox *ret,
		 struct problem *problem)
{
	struct error err = { 0 };
	struct store_sandbox record = { 0 };
	int rc = app->store_ops->get_sandbox(app->store, id, &record, &err);
	if (rc == 0 && (subject == NULL || strcmp(record.subject, subject) == 0)) {
		*ret = record;
		return true;
	}
	if (rc != 0 && rc != -ENOENT)
		store_failed(rc, &err, problem);
	else
		*problem = problem_make(404, "not-found", "no such sandbox");
	store_sandbox_fini(&record);
	return false;
}

bool sandbox_patch(struct app *app, const char *id, const char *subject, const json_t *members,
		   struct store_sandbox *ret, struct problem *problem)
{
	for (int i = 0; i < TRIES_MAX; i++) {
		struct error err = { 0 };
		struct store_sandbox record;
		if (!sandbox_get(app, id, subject, &record, problem))
			return false;
		if (!sandbox_read(app, members, false, &record, problem)) {
			store_sandbox_fini(&record);
			return false;
		}
		record.updated_ms = loop_wall_ms();
		int rc = app->store_ops->update_sandbox(app->store, &record, &err);
		if (rc == 0) {
			record.revision++;
			*ret = record;
			return true;
		}
		store_sandbox_fini(&record);
		if (!was_late(rc)) {
			store_failed(rc, &err, problem);
			return false;
		}
	}
	too_busy(problem);
	return false;
}

bool sandbox_delete(struct app *app, const char *id, const char *subject, struct problem *problem)
{
	struct error err = { 0 };
	struct store_sandbox record;
	if (!sandbox_get(app, id, subject, &record, problem))
		return false;
	store_sandbox_fini(&record);
	int rc = app->store_ops->delete_sandbox(app->store, id, &err);
	if (rc == 0)
		return true;
	if (rc == -ENOENT)
		*problem = problem_make(404, "not-found", "no such sandbox");
	else
		store_failed(rc, &err, problem);
	return false;
}
