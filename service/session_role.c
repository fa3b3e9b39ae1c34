/* session_role.c -- who has a session: from mirror to owner when its owner is gone, and back when another
 * replica has it. What viewers have got stays in the journal, so that they go on where they are. */
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/app.h"
#include "service/journal.h"
#include "service/log.h"
#include "service/metrics.h"
#include "service/provisioner.h"
#include "service/registry.h"
#include "service/replicas.h"
#include "service/session_private.h"
#include "store/seal.h"
#include "store/store.h"

#define FENCE_STEP_MAX (UINT64_C(1) << 32) /* no number grows by more in good order */

/* ---- it is another one's ---- */

void session_step_down(struct session *s, const char *why)
{
	if (s->mirror || s->stopping || s->owner == NULL)
		return;
	log_warn("session is another replica's", "session=%s number=%" PRIu64 " text=\"%s\"", s->id,
		 s->fence, why);
	metric_add(METRIC_STEP_DOWNS, 1);
	session_owner_stop(s);
	atomic_store(&s->mirror, true);
	session_drop_tunnel(s, false);
	uv_timer_stop(&s->retry_timer);
	uv_timer_stop(&s->close_timer);
	uv_timer_stop(&s->flow_timer);
	s->paused = s->paused_enough = s->asleep = false;
	session_input_lost(s);
	session_input_give_back(s);
	if (!session_is_ended(s)) {
		s->feed.ready = false;
		if (s->state == SESSION_OPEN)
			session_enter(s, SESSION_RECONNECTING, why);
	}
	session_arrivals_turn(s);
	s->refill = session_is_ended(s) && s->feed.exit_json == NULL; /* it was not complete */
	session_connect(s);
}

void session_superseded(struct session *s, const struct bus_head *by)
{
	if (by->birth != s->birth) {
		session_not_here(s, "another session has its id");
		return;
	}
	/* A mirror may only have heard of it; then its record tells. */
	s->fence = by->number;
	session_step_down(s, "another replica took it over");
}

void session_not_here(struct session *s, const char *why)
{
	log_info("session is not here any more", "session=%s text=\"%s\"", s->id, why);
	registry_drop(s->app->registry, s);
}

struct saved_note {
	struct message message;
	struct session *session; /* a reference */
	uint64_t fence;          /* that was refused */
	bool stale;
	bool tells; /* somebody waits for it */
};

static void on_saved(struct message *m, struct loop *l)
{
	struct reply stale = reply_problem(503, "not-delivered",
					   "another replica has this session now: try again");
	stale.retry_after_s = 1;
	struct saved_note *n = (struct saved_note *)m;
	(void)l;
	if (n->tells && n->stale)
		session_sync_answer(n->session, &stale);
	else if (n->tells)
		session_sync_wake(n->session, UINT64_MAX, loop_now_us());
	if (n->stale && n->fence == n->session->fence)
		session_step_down(n->session, "the store has a newer owner");
	session_unref(n->session);
	free(n);
}

/* Thread: the store's. */
void session_saved(void *arg, int status)
{
	struct saved_note *n = arg;
	n->stale = status == -ESTALE;
	if (n->stale || n->tells) {
		n->message.run = on_saved;
		loop_post_answer(n->session->loop, &n->message);
		return;
	}
	session_unref(n->session);
	free(n);
}

void session_saved_free(void *arg)
{
	struct saved_note *n = arg;
	if (n != NULL)
		session_unref(n->session);
	free(n);
}

void *session_saved_arg(struct session *s, bool tells)
{
	struct saved_note *n = calloc(1, sizeof(*n));
	if (n == NULL)
		abort();
	n->session = session_ref(s);
	n->fence = s->fence;
	n->tells = tells;
	return n;
}

struct offer {
	struct app *app;
	uint64_t fence, host;
	char id[SESSION_ID_MAX + 1];
};

/* Thread: the store's. */
static void on_released(void *arg, int status)
{
	struct offer *o = arg;
	if (status == 0)
		replicas_offer(o->app, o->id, o->fence, o->host);
	free(o);
}

void session_hand_over(struct session *s)
{
	struct store_session record;
	if (s->owner == NULL || s->mirror || s->forgotten)
		return;
	struct offer *o = calloc(1, sizeof(*o));
	if (o == NULL)
		return;
	*o = (struct offer){ .app = s->app, .fence = s->fence, .host = s->machine };
	snprintf(o->id, sizeof(o->id), "%s", s->id);
	session_record(s, &record);
	if (s->app->store_ops->put_session(s->app->store, &record, on_released, o) < 0)
		free(o); /* they find it when we are gone */
}

/* ---- it is ours ---- */

static void use_record(struct session *s, const struct store_session *record)
{
	uint8_t *json = NULL;
	size_t size;
	s->fence = record->fence;
	if (s->endpoint.url != NULL)
		return;
	if (record->endpoint == NULL ||
	    seal_open(s->app->seal_keys, record->endpoint, &json, &size) != 0)
		return;
	if (endpoint_from_json((char *)json, &s->endpoint) == 0)
		s->endpoint_sealed = strdup(record->endpoint);
	seal_free(json, size);
}

/* A mirror has no more than what its viewers need. */
static void forget_endpoint(struct session *s)
{
	endpoint_fini(&s->endpoint);
	s->endpoint = (struct endpoint){ 0 };
	free(s->endpoint_sealed);
	s->endpoint_sealed = NULL;
}

/* Of one that has ended the far end may still have what is missing here. */
static void take_over_ended(struct session *s, const struct store_session *record)
{
	if (!session_is_ended(s)) {
		pthread_mutex_lock(&s->card_lock);
		s->ended_json = record->ended_json == NULL ? NULL : strdup(record->ended_json);
		s->epoch = record->epoch;
		s->end = record->end;
		pthread_mutex_unlock(&s->card_lock);
		s->ended_ms = record->ended_ms;
		session_restore_exit(s);
		s->refill = true;
		session_enter(s, SESSION_ENDED, NULL);
		session_input_end(s);
	}
	if (s->refill)
		session_refill(s);
}

static void take_over(struct session *s, const struct store_session *record)
{
	atomic_store(&s->cancelled, false);
	if (record->ended || session_is_ended(s)) {
		s->forget_us = loop_now_us() + s->app->config->forget_s * UINT64_C(1000000);
		take_over_ended(s, record);
		return;
	}
	if (s->endpoint.url == NULL) {
		s->opened = s->restored = false; /* it never was open */
		session_end(s, "failed", "its replica died while it was opened", PTY2_EXIT_UNKNOWN,
			    0);
		return;
	}
	if (s->state == SESSION_PROVISIONING)
		session_enter(s, SESSION_CONNECTING, NULL);
	else if (s->state == SESSION_OPEN)
		session_enter(s, SESSION_RECONNECTING, "its replica is gone");
	s->closing = record->closing;
	s->close_reason = "closed";
	session_connect(s);
}

static void session_own(struct session *s, const struct store_session *record)
{
	bool is_whole = !record->ended || record->ended_json != NULL;
	if (s->stopping || record->fence < s->fence || !is_whole)
		return;
	if (!s->mirror) { /* a higher number for what we have */
		s->fence = record->fence;
		session_drop_tunnel(s, false);
		if (!session_is_ended(s))
			session_retry(s, "taken with a higher number");
		return;
	}
	log_info("session taken over", "session=%s number=%" PRIu64, s->id, record->fence);
	session_drop_tunnel(s, false);
	atomic_store(&s->mirror, false);
	forget_endpoint(s);
	use_record(s, record);
	session_adopt_target(s, record);
	s->restored = s->opened = true;
	s->adopted_us = s->lost_us = s->used_us = s->idle_us = loop_now_us();
	s->attempts = 0;
	s->owner_replica = 0;
	if (!session_is_ended(s))
		s->feed.ready = false; /* the far end may be further than we were told */
	session_input_lost(s);
	session_owner_start(s);
	take_over(s, record);
	session_forwards_here(s);
	session_arrivals_turn(s);
	session_arrivals_admit(s);
	session_save(s);
}

struct take_back {
	struct provisioner_job job;
	struct session *session; /* a reference */
	uint64_t owner, fence;
};

static void run_take_back(struct provisioner_job *job, bool cancelled)
{
	struct take_back *b = (struct take_back *)job;
	struct session *s = b->session;
	struct app *app = s->app;
	struct store_session record = { 0 };
	struct error err = { 0 };
	if (!cancelled && app->store_ops->take_session(app->store, s->id, b->owner, app->replica,
						       b->fence, &record, &err) == 0)
		registry_adopt(app->registry, &record);
	store_session_fini(&record);
	session_unref(s);
	free(b);
}

static void take_back(struct session *s, uint64_t owner, uint64_t fence)
{
	struct take_back *b = calloc(1, sizeof(*b));
	if (b == NULL)
		return;
	b->job.run = run_take_back;
	b->session = session_ref(s);
	b->owner = owner;
	b->fence = fence;
	if (provisioner_submit(s->app->attendants, &b->job) == 0)
		return;
	session_unref(s);
	free(b);
}

void session_take_back(struct session *s, const struct store_session *record)
{
	uint64_t fence = record->fence > s->fence ? record->fence : s->fence;
	take_back(s, s->app->replica, fence + 1);
}

void session_outnumbered(struct session *s, uint64_t fence)
{
	/* The far end knows a higher number: of an owner after us, or of one that Redis has forgotten. If the
	 * record is still ours, it is the latter. */
	if (fence > s->fence + FENCE_STEP_MAX) {
		session_end(s, "lost", "the far end names an owner that cannot be",
			    PTY2_EXIT_UNKNOWN, 0);
		return;
	}
	if (fence > s->fence)
		take_back(s, s->app->replica, fence + 1);
	session_step_down(s, "the far end has a newer owner");
}

struct own_note {
	struct message message;
	struct session *session; /* a reference */
	struct store_session record;
};

static void run_own(struct message *m, struct loop *l)
{
	struct own_note *n = (struct own_note *)m;
	(void)l;
	session_own(n->session, &n->record);
	store_session_fini(&n->record);
	session_unref(n->session);
	free(n);
}

void session_own_later(struct session *s, const struct store_session *record)
{
	struct own_note *n = calloc(1, sizeof(*n));
	if (n == NULL || store_session_copy(record, &n->record) < 0)
		abort();
	n->message.run = run_own;
	n->session = session_ref(s);
	loop_post_answer(s->loop, &n->message);
}
