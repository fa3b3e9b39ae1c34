/* session.c -- the messages by which other threads reach a session, its start and its retirement. */
#include <errno.h>
#include <sodium.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "service/app.h"
#include "service/config.h"
#include "service/journal.h"
#include "service/log.h"
#include "service/metrics.h"
#include "service/registry.h"
#include "service/session_private.h"
#include "store/seal.h"
#include "store/store.h"

#define DELETE_WAIT_MS 3000

/* ---- messages to the loop ---- */

struct note {
	struct message message;
	struct session *session; /* a reference */
	void (*run)(struct session *s, struct note *note);
	reply_fn *done;
	void *arg;
	union {
		struct input input;
		struct viewer_params viewer;
		struct {
			uint16_t cols, rows;
		} size;
		struct {
			bool watch;
			unsigned timeout_ms;
		} sync;
		int number;
		unsigned timeout_ms;
		bool yes; /* forget, end_local */
	};
};

static void run_note(struct message *m, struct loop *l)
{
	struct note *n = (struct note *)m;
	(void)l;
	n->run(n->session, n);
	session_unref(n->session);
	free(n);
}

static struct note *new_note(struct session *s, void (*run)(struct session *, struct note *),
			     reply_fn *done, void *arg)
{
	struct note *n = calloc(1, sizeof(*n));
	if (n == NULL)
		return NULL;
	n->message.run = run_note;
	n->session = session_ref(s);
	n->run = run;
	n->done = done;
	n->arg = arg;
	return n;
}

/* Posts n, or says busy. n may be NULL. False when it was not posted. */
static bool send_note(struct session *s, struct note *n, reply_fn *done, void *arg)
{
	if (n != NULL && loop_post(s->loop, &n->message) == 0)
		return true;
	struct reply busy = reply_problem(503, "busy", "too much is under way: try again");
	busy.retry_after_s = 1;
	if (done != NULL)
		done(arg, &busy);
	if (n != NULL)
		session_unref(s);
	free(n);
	return false;
}

static void run_input(struct session *s, struct note *n)
{
	session_input_add(s, &n->input);
}

void session_input(struct session *s, const struct input *in)
{
	struct note *n = new_note(s, run_input, in->done, in->arg);
	uint8_t *bytes = in->bytes;
	size_t size = in->size;
	if (n != NULL)
		n->input = *in;
	if (!send_note(s, n, in->done, in->arg)) {
		sodium_memzero(bytes, size);
		free(bytes);
	}
}

static void say_ended(reply_fn *done, void *arg)
{
	struct reply reply = reply_problem(409, "session-ended", "the session has ended");
	if (done != NULL)
		done(arg, &reply);
}

bool session_resize_now(struct session *s, uint16_t cols, uint16_t rows)
{
	if (session_is_ended(s))
		return false;
	session_use(s);
	s->want_cols = cols; /* when the tunnel is there */
	s->want_rows = rows;
	if (!s->attached)
		return true;
	int rc = s->transport->resize(s->tunnel, cols, rows);
	if (rc == 0)
		s->want_cols = s->want_rows = 0;
	else if (rc == -ENOTSUP)
		session_ask_resize(s);
	return true;
}

void session_resize_add(struct session *s, uint16_t cols, uint16_t rows, reply_fn *done, void *arg)
{
	struct reply reply = reply_ok(204);
	if (s->mirror && !session_is_ended(s)) {
		session_forward(s,
				&(struct bus_call){
					.kind = BUS_CALL_RESIZE, .cols = cols, .rows = rows },
				done, arg);
	} else if (!session_resize_now(s, cols, rows)) {
		say_ended(done, arg);
	} else if (done != NULL) {
		done(arg, &reply);
	}
}

static void run_resize(struct session *s, struct note *n)
{
	session_resize_add(s, n->size.cols, n->size.rows, n->done, n->arg);
}

void session_resize(struct session *s, uint16_t cols, uint16_t rows, reply_fn *done, void *arg)
{
	struct note *n = new_note(s, run_resize, done, arg);
	if (n != NULL) {
		n->size.cols = cols;
		n->size.rows = rows;
	}
	send_note(s, n, done, arg);
}

static void run_signal(struct session *s, struct note *n)
{
	session_signal_add(s, n->number, n->done, n->arg);
}

void session_signal(struct session *s, int number, reply_fn *done, void *arg)
{
	struct note *n = new_note(s, run_signal, done, arg);
	if (n != NULL)
		n->number = number;
	send_note(s, n, done, arg);
}

/* ---- the end of its record ---- */

struct deleted_note {
	struct message message;
	struct session *session; /* a reference */
	int status;
};

static void run_deleted(struct message *m, struct loop *l)
{
	struct deleted_note *n = (struct deleted_note *)m;
	struct session *s = n->session;
	struct reply reply = reply_ok(204);
	(void)l;
	s->deleting = false;
	s->deleted = n->status != -ESTALE;
	if (!s->deleted) {
		reply = reply_problem(503, "not-delivered",
				      "another replica has this session now: try again");
		reply.retry_after_s = 1;
	}
	session_sync_answer(s, &reply);
	if (s->deleted) {
		session_owner_gone(s); /* after the answers: mirrors may wait for them */
		registry_forget(s->app->registry, s);
	} else {
		session_step_down(s, "the store has a newer owner");
	}
	session_unref(s);
	free(n);
}

/* Thread: the store's. */
static void on_deleted(void *arg, int status)
{
	struct deleted_note *n = arg;
	n->status = status;
	loop_post_answer(n->session->loop, &n->message);
}

static int delete_and_tell(struct session *s)
{
	struct deleted_note *n = calloc(1, sizeof(*n));
	if (n == NULL)
		return -ENOMEM;
	n->message.run = run_deleted;
	n->session = session_ref(s);
	int rc = s->app->store_ops->delete_session(s->app->store, s->id, s->birth, s->fence,
						   on_deleted, n);
	if (rc < 0) {
		session_unref(s); /* the caller has another one */
		free(n);
	}
	return rc;
}

/* It is forgotten, and nobody waits for it. */
static void delete_record(struct session *s)
{
	if (s->deleted)
		return;
	session_owner_gone(s);
	s->app->store_ops->delete_session(s->app->store, s->id, s->birth, s->fence, NULL, NULL);
}

/* Where replicas share the store an ended session is forgotten once no replica finds it any more: then who asked is
 * answered. */
static void forget_everywhere(struct session *s, reply_fn *done, void *arg)
{
	struct reply late = reply_problem(503, "not-delivered",
					  "the store did not answer in time: try again");
	late.retry_after_s = 1;
	if (!s->deleting && delete_and_tell(s) < 0) {
		done(arg, &late);
		return;
	}
	s->deleting = true;
	session_sync_wait(s, UINT64_MAX, false, DELETE_WAIT_MS, late, done, arg);
}

void session_close_add(struct session *s, bool forget, reply_fn *done, void *arg)
{
	struct reply reply = reply_ok(204);
	if (s->mirror || s->stopping) {
		enum bus_call_kind kind = forget ? BUS_CALL_FORGET : BUS_CALL_CLOSE;
		session_forward(s, &(struct bus_call){ .kind = kind }, done, arg);
	} else if (!session_is_ended(s)) {
		session_hang_up(s, "closed");
		session_save_then(s, done, arg); /* so that its id can be used again, anywhere */
	} else if (forget && s->app->store_ops->shared) {
		forget_everywhere(s, done, arg);
	} else {
		if (forget)
			registry_forget(s->app->registry, s);
		done(arg, &reply);
	}
}

static void run_close(struct session *s, struct note *n)
{
	session_close_add(s, session_is_ended(s), n->done, n->arg);
}

void session_close(struct session *s, reply_fn *done, void *arg)
{
	send_note(s, new_note(s, run_close, done, arg), done, arg);
}

/* ---- waiting for the opening ---- */

struct open_waiter {
	struct open_waiter *next;
	struct session *session; /* a reference, for its timer */
	uv_timer_t timer;
	reply_fn *done;
	void *arg;
};

static void on_waiter_closed(uv_handle_t *handle)
{
	struct open_waiter *w = handle->data;
	session_unref(w->session);
	free(w);
}

static void waiter_finish(struct open_waiter *w)
{
	struct reply reply = reply_ok(200);
	w->done(w->arg, &reply);
	uv_close((uv_handle_t *)&w->timer, on_waiter_closed);
}

static void on_waiter_timeout(uv_timer_t *timer)
{
	struct open_waiter *w = timer->data;
	struct open_waiter **at = &w->session->waiters;
	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	waiter_finish(w);
}

void session_wake_waiters(struct session *s)
{
	while (s->waiters != NULL) {
		struct open_waiter *w = s->waiters;
		s->waiters = w->next;
		waiter_finish(w);
	}
}

static void run_wait_open(struct session *s, struct note *n)
{
	struct open_waiter *w = NULL;
	if (s->state != SESSION_OPEN && s->state != SESSION_ENDED && !s->stopping)
		w = calloc(1, sizeof(*w));
	if (w == NULL) {
		struct reply reply = reply_ok(200);
		n->done(n->arg, &reply);
		return;
	}
	w->session = session_ref(s);
	w->done = n->done;
	w->arg = n->arg;
	w->next = s->waiters;
	s->waiters = w;
	uv_timer_init(loop_uv(s->loop), &w->timer);
	w->timer.data = w;
	uv_update_time(loop_uv(s->loop));
	uv_timer_start(&w->timer, on_waiter_timeout, n->timeout_ms, 0);
}

void session_wait_open(struct session *s, unsigned timeout_ms, reply_fn *done, void *arg)
{
	struct note *n = new_note(s, run_wait_open, done, arg);
	if (n != NULL)
		n->timeout_ms = timeout_ms;
	send_note(s, n, done, arg);
}

/* ---- viewers ---- */

bool session_reserve_viewer(struct session *s)
{
	const struct config *cfg = s->app->config;
	if (atomic_fetch_add(&s->viewers_reserved, 1) >= cfg->max_viewers_per_session) {
		atomic_fetch_sub(&s->viewers_reserved, 1);
		return false;
	}
	if (atomic_fetch_add(&s->app->viewers, 1) >= (int64_t)cfg->max_viewers) {
		session_release_viewer(s);
		return false;
	}
	return true;
}

void session_release_viewer(struct session *s)
{
	atomic_fetch_sub(&s->viewers_reserved, 1);
	atomic_fetch_sub(&s->app->viewers, 1);
}

static void run_add_viewer(struct session *s, struct note *n)
{
	if (s->stopping) {
		session_release_viewer(s);
		n->viewer.ended(n->viewer.arg);
	} else if (session_must_ask(s, &n->viewer)) {
		session_arrive(s, &n->viewer, (uint8_t *)n->viewer.extra);
		return;
	} else {
		session_viewers_add(s, &n->viewer);
	}
	free((void *)n->viewer.extra);
}

void session_add_viewer(struct session *s, const struct viewer_params *p)
{
	uint8_t *extra = malloc(p->extra_size + 1);
	struct note *n = extra == NULL ? NULL : new_note(s, run_add_viewer, NULL, NULL);
	if (n != NULL) {
		n->viewer = *p;
		n->viewer.extra = extra;
		memcpy(extra, p->extra == NULL ? (const uint8_t *)"" : p->extra, p->extra_size);
	}
	if (!send_note(s, n, NULL, NULL)) {
		free(extra);
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the caller holds a reference */
		session_release_viewer(s);
		p->ended(p->arg);
	}
}

/* ---- start and retirement ---- */

void session_timer(struct session *s, uv_timer_t *timer, uv_timer_cb cb, uint64_t ms)
{
	uv_update_time(loop_uv(s->loop));
	uv_timer_start(timer, cb, ms, 0);
}

/* {"reason":..,"exit_code":..,"signal":..} of the ended_json that the store had (make_exit() wrote it). */
void session_restore_exit(struct session *s)
{
	const char *text = strstr(s->ended_json, ",\"text\":");
	if (text == NULL)
		snprintf(s->exit_text, sizeof(s->exit_text),
			 "{\"reason\":\"lost\",\"exit_code\":null,\"signal\":null}");
	else
		snprintf(s->exit_text, sizeof(s->exit_text), "%.*s}", (int)(text - s->ended_json),
			 s->ended_json);
}

void session_refill(struct session *s)
{
	/* Only after an exit that was seen is there nobody in the shell any more. */
	if (s->endpoint.url != NULL && strstr(s->exit_text, "null,\"signal\":null") == NULL)
		session_connect(s);
	else
		session_end_refill(s);
}

static void run_start(struct session *s, struct note *n)
{
	(void)n;
	uv_timer_t *timers[] = { SESSION_TIMERS(s) };
	for (size_t i = 0; i < sizeof(timers) / sizeof(timers[0]); i++) {
		uv_timer_init(loop_uv(s->loop), timers[i]);
		timers[i]->data = s;
		s->timers_open++;
	}
	s->idle_us = s->lost_us = s->used_us = loop_now_us();
	session_viewers_init(s);
	if (s->mirror) {
		if (s->refill)
			session_restore_exit(s);
		session_connect(s);
		return;
	}
	session_owner_start(s);
	session_save(s); /* a restored one with its new number, before that is used */
	if (!s->restored)
		return;
	if (s->refill) {
		session_restore_exit(s);
		session_refill(s);
	} else if (s->endpoint.url != NULL) {
		session_enter(s, SESSION_CONNECTING, NULL);
		session_connect(s);
	} else {
		s->restored = false;
		session_end(s, "failed", "the service was stopped while it was opened",
			    PTY2_EXIT_UNKNOWN, 0);
	}
}

int session_start(struct session *s)
{
	struct note *n = new_note(s, run_start, NULL, NULL);
	if (n == NULL)
		return -ENOMEM;
	session_ref(s); /* the loop's own, until it is retired */
	loop_post_answer(s->loop, &n->message);
	return 0;
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct session *s = handle->data;
	if (--s->timers_open > 0)
		return;
	registry_gone(s->app->registry);
	session_unref(s);
}

void session_retire_step(struct session *s)
{
	if (!s->stopping || s->retired || s->viewers.first != NULL)
		return;
	if (s->tunnel !=
	    NULL) { /* not a clean leave when the shell lives on: it keeps what we miss */
		session_drop_tunnel(s, session_is_ended(s));
		return;
	}
	s->retired = true;
	session_bus_listen(s, NULL);
	session_owner_stop(s);
	session_forwards_end(s);
	session_input_end(s);
	session_wake_waiters(s);
	loop_work_remove(s->loop, &s->tunnel_work);
	session_viewers_fini(s);
	uv_timer_t *timers[] = { SESSION_TIMERS(s) };
	for (size_t i = 0; i < sizeof(timers) / sizeof(timers[0]); i++)
		uv_close((uv_handle_t *)timers[i], on_timer_closed);
}

void session_retire(struct session *s)
{
	if (s->stopping)
		return;
	s->stopping = true;
	atomic_store(&s->cancelled, true);
	uv_timer_stop(&s->retry_timer);
	session_arrivals_end(s);
	unsigned retry_ms = s->app->config->retry_ms;
	struct viewer *next;
	for (struct viewer *v = s->viewers.first; v != NULL; v = next) {
		next = viewer_next(v);
		viewer_drain(v, retry_ms + randombytes_uniform(2 * retry_ms + 1));
	}
	session_retire_step(s);
}

static void run_discard(struct session *s, struct note *n)
{
	s->forgotten = true;
	if (n->yes && !s->mirror) {
		delete_record(s);
	}
	if (s->closing && !s->mirror && !session_is_ended(s))
		s->retire_at_end = true;
	else
		session_retire(s);
}

static void run_stop(struct session *s, struct note *n)
{
	bool end = n->yes && !s->mirror && strcmp(s->provider_name, "local") == 0;
	if (end && !session_is_ended(s)) {
		s->retire_at_end = true;
		session_hang_up(s, "closed");
	} else {
		session_retire(s);
		session_hand_over(s);
	}
}

static void run_sync(struct session *s, struct note *n)
{
	struct reply reply = reply_ok(200);
	if (s->mirror && !s->stopping)
		session_mirror_sync(s, n->sync.watch, n->sync.timeout_ms, n->done, n->arg);
	else
		n->done(n->arg, &reply);
}

void session_sync(struct session *s, bool watch, unsigned timeout_ms, reply_fn *done, void *arg)
{
	struct note *n = new_note(s, run_sync, done, arg);
	if (n != NULL) {
		n->sync.watch = watch;
		n->sync.timeout_ms = timeout_ms;
	}
	send_note(s, n, done, arg);
}

/* A note that must arrive. */
static void must_post(struct session *s, void (*run)(struct session *, struct note *), bool yes)
{
	struct note *n = new_note(s, run, NULL, NULL);
	if (n == NULL)
		abort();
	n->yes = yes;
	loop_post_answer(s->loop, &n->message);
}

void session_discard(struct session *s, bool forget)
{
	must_post(s, run_discard, forget);
}

void session_stop(struct session *s, bool end_local)
{
	must_post(s, run_stop, end_local);
}

static void run_rewrite(struct session *s, struct note *n)
{
	(void)n;
	if (s->timers_open > 0)
		session_save(s);
}

void session_rewrite(struct session *s)
{
	must_post(s, run_rewrite, false);
}
