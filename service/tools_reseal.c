/* tools_reseal.c -- `ptycast reseal`. Each record is changed by itself, and only while it is still what was read: so
 * nothing that others write meanwhile is lost. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "service/tools_private.h"
#include "store/seal.h"
#include "store/store.h"

#define TRIES_MAX 64 /* in all of which somebody else was quicker */

struct resealing {
	struct app *app;
	char **ids; /* those that are to be looked at, owned */
	size_t count, room;
	unsigned rewritten, newest, unreadable;
	int rc; /* of the store: it ends the whole */
	struct error err;
};

static int note_id(void *arg, const struct store_sandbox *record)
{
	struct resealing *r = arg;
	if (r->count == r->room) {
		size_t room = r->room * 2 + 64;
		char **grown = reallocarray(r->ids, room, sizeof(char *));
		if (grown == NULL)
			return -ENOMEM;
		r->ids = grown;
		r->room = room;
	}
	r->ids[r->count] = strdup(record->id);
	return r->ids[r->count] == NULL ? -ENOMEM : (r->count++, 0);
}

enum outcome { NOTHING, NEWEST, REWRITTEN, UNREADABLE }; /* a later one outweighs those before */

/* *ret: sealed anew when the outcome is REWRITTEN, else NULL. */
static enum outcome reseal_text(struct resealing *r, const char *sealed, char **ret)
{
	int rc = reseal(r->app->seal_keys, sealed, ret);
	if (rc == -ENOMEM)
		r->rc = error_set(&r->err, rc, "no memory");
	return rc == 1 ? REWRITTEN : rc == 0 ? NEWEST : UNREADABLE;
}

static void count(struct resealing *r, enum outcome outcome, const char *kind, const char *id)
{
	r->newest += outcome == NEWEST;
	r->rewritten += outcome == REWRITTEN;
	r->unreadable += outcome == UNREADABLE;
	if (outcome == UNREADABLE)
		fprintf(stderr, "ptycast: %s %s: sealed for a key that is not configured\n", kind,
			id);
}

/* Until it is rewritten and nobody was quicker. */
static void reseal_sandbox(struct resealing *r, const char *id)
{
	struct app *app = r->app;
	enum outcome outcome = NOTHING;
	int rc = -ESTALE;
	for (int i = 0; rc == -ESTALE && i < TRIES_MAX; i++) {
		struct store_sandbox record = { 0 };
		char *sealed = NULL;
		rc = app->store_ops->get_sandbox(app->store, id, &record, &r->err);
		outcome = rc == 0 ? reseal_text(r, record.credential, &sealed) : NOTHING;
		if (sealed != NULL) {
			free(record.credential);
			record.credential = sealed;
			rc = app->store_ops->update_sandbox(app->store, &record, &r->err);
		}
		store_sandbox_fini(&record);
	}
	if (rc == 0)
		count(r, outcome, "sandbox", id);
	else if (rc != -ENOENT)
		r->rc = rc;
}

/* The sandbox that a session is in, as session_card.c writes it: only what is called "sealed" is. */
static enum outcome reseal_target(struct resealing *r, const char *target, char **ret)
{
	json_auto_t *root = json_loads(target, 0, NULL);
	const char *sealed = json_string_value(json_object_get(root, "sealed"));
	char *anew = NULL;
	enum outcome outcome = sealed == NULL ? NOTHING : reseal_text(r, sealed, &anew);
	if (anew != NULL) {
		json_object_set_new(root, "sealed", json_string(anew));
		*ret = json_dumps(root, JSON_COMPACT);
		if (*ret == NULL)
			r->rc = error_set(&r->err, -ENOMEM, "no memory");
	}
	free(anew);
	return outcome;
}

static int reseal_session(void *arg, const struct store_session *record)
{
	struct resealing *r = arg;
	const struct app *app = r->app;
	char *endpoint = NULL, *target = NULL;
	enum outcome of_endpoint = NOTHING, of_target = NOTHING;
	if (record->endpoint != NULL)
		of_endpoint = reseal_text(r, record->endpoint, &endpoint);
	if (record->target != NULL)
		of_target = reseal_target(r, record->target, &target);
	if (r->rc == 0 && (endpoint != NULL || target != NULL)) {
		int rc = app->store_ops->reseal_session(app->store, record,
							endpoint != NULL ? endpoint
									 : record->endpoint,
							target != NULL ? target : record->target,
							&r->err);
		if (rc != -ESTALE) /* what a service wrote meanwhile it sealed by its newest */
			r->rc = rc;
	}
	free(endpoint);
	free(target);
	if (r->rc == 0)
		count(r, of_endpoint > of_target ? of_endpoint : of_target, "session", record->id);
	return r->rc;
}

#define PAGE 200

struct page {
	struct store_session records[PAGE]; /* owned */
	size_t count;
};

static int note_session(void *arg, const struct store_session *record)
{
	struct page *page = arg;
	int rc = store_session_copy(record, &page->records[page->count]);
	page->count += rc == 0;
	return rc;
}

/* A store that replicas share loads nothing; it lists, and may not be used meanwhile. */
static void reseal_listed_sessions(struct resealing *r)
{
	const struct app *app = r->app;
	struct page *page = calloc(1, sizeof(*page));
	if (page == NULL) {
		r->rc = error_set(&r->err, -ENOMEM, "no memory");
		return;
	}
	char after[65] = "";
	bool more = true;
	while (r->rc == 0 && more) {
		page->count = 0;
		r->rc = app->store_ops->list_sessions(app->store, NULL, NULL, after, PAGE,
						      note_session, page, &r->err);
		more = page->count == PAGE;
		for (size_t i = 0; i < page->count; i++) {
			struct store_session *record = &page->records[i];
			memcpy(after, record->id, sizeof(after));
			if (r->rc == 0)
				reseal_session(r, record);
			store_session_fini(record);
		}
	}
	free(page);
}

static void reseal_sessions(struct resealing *r)
{
	const struct app *app = r->app;
	if (app->store_ops->shared)
		reseal_listed_sessions(r);
	else
		r->rc = app->store_ops->load_sessions(app->store, reseal_session, r, &r->err);
}

static void print_resealed(const char *kind, struct resealing *r)
{
	printf("%s: %u rewritten, %u already new, %u unreadable\n", kind, r->rewritten, r->newest,
	       r->unreadable);
	r->rewritten = r->newest = r->unreadable = 0;
}

int tool_reseal(int argc, char **argv)
{
	if (tool_wants_help(argc, argv)) {
		printf("usage: ptycast reseal [--FLAG VALUE ...]\n"
		       "Seals every stored secret with the newest key of PTYCAST_PRIVATE_KEY. A service that runs on this store must\n"
		       "have been started with that key before. Exit status 1: some could not be opened.\n");
		return 0;
	}
	struct tool_bench b;
	int status = tool_open(&b, false, argc, argv);
	if (status != 0)
		return status;
	struct resealing r = { .app = &b.app };
	r.rc = b.app.store_ops->list_sandboxes(b.app.store, NULL, NULL, SIZE_MAX, note_id, &r,
					       &r.err);
	for (size_t i = 0; i < r.count; i++) {
		if (r.rc == 0)
			reseal_sandbox(&r, r.ids[i]);
		free(r.ids[i]);
	}
	free(r.ids);
	bool bad = r.unreadable > 0;
	if (r.rc == 0) {
		print_resealed("sandboxes", &r);
		reseal_sessions(&r);
	}
	bad = bad || r.unreadable > 0;
	if (r.rc == 0)
		print_resealed("sessions", &r);
	else
		tool_fail("%s", r.err.text);
	tool_close(&b);
	return tool_flushed(r.rc != 0 || bad ? 1 : 0);
}
