/* session.c -- birth and retirement of a session, its card, and the messages by which other threads
 * reach it. */
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

#define PARAMS_HASH_BYTES 32
/* A replay of a whole ring fits, and what comes before the tunnel is paused for viewers at its start. */
#define REPLAY_SLACK 16 /* a part in so many */

bool session_id_valid(const char *id)
{
	size_t size = strspn(id,
			     "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");
	return size >= 1 && size <= SESSION_ID_MAX && id[size] == '\0';
}

const char *session_id(const struct session *s)
{
	return s->id;
}

const char *session_subject(const struct session *s)
{
	return s->subject;
}

int64_t session_created_ms(const struct session *s)
{
	return s->created_ms;
}

/* They are only compared, and their env may hold secrets. */
static void hash_params(const char *params, char hex[2 * PARAMS_HASH_BYTES + 1])
{
	unsigned char hash[PARAMS_HASH_BYTES];
	crypto_generichash(hash, sizeof(hash), (const unsigned char *)params, strlen(params), NULL,
			   0);
	sodium_bin2hex(hex, 2 * PARAMS_HASH_BYTES + 1, hash, sizeof(hash));
}

bool session_same_params(const struct session *s, const char *params)
{
	char hex[2 * PARAMS_HASH_BYTES + 1];
	hash_params(params, hex);
	return strcmp(s->params, hex) == 0;
}

/* ---- memory ---- */

static void strings_free(char **strings)
{
	for (size_t i = 0; strings != NULL && strings[i] != NULL; i++)
		free(strings[i]);
	free(strings);
}

static char **strings_copy(const char *const *strings)
{
	size_t count = 0;
	while (strings != NULL && strings[count] != NULL)
		count++;
	char **copy = calloc(count + 1, sizeof(*copy));
	for (size_t i = 0; copy != NULL && i < count; i++) {
		copy[i] = strdup(strings[i]);
		if (copy[i] == NULL) {
			strings_free(copy);
			return NULL;
		}
	}
	return copy;
}

struct session *session_ref(struct session *s)
{
	atomic_fetch_add_explicit(&s->references, 1, memory_order_relaxed);
	return s;
}

void session_unref(struct session *s)
{
	if (s == NULL || atomic_fetch_sub_explicit(&s->references, 1, memory_order_acq_rel) != 1)
		return;
	metric_add((enum metric)((unsigned)METRIC_SESSIONS_PROVISIONING + s->state), -1);
	journal_destroy(s->journal);
	endpoint_fini(&s->endpoint);
	input_seq_destroy(s->dedupe);
	strings_free(s->command);
	strings_free(s->env);
	free(s->cwd);
	free(s->endpoint_sealed);
	free(s->subject);
	free(s->sandbox);
	free(s->params);
	free(s->provider_name);
	free(s->ended_json);
	pthread_mutex_destroy(&s->card_lock);
	free(s);
}

static struct session *session_alloc(struct app *app, const char *id, const char *subject,
				     const char *sandbox, const char *provider, const char *params,
				     uint16_t cols, uint16_t rows)
{
	struct session *s = calloc(1, sizeof(*s));
	if (s == NULL)
		return NULL;
	s->app = app;
	pthread_mutex_init(&s->card_lock, NULL);
	atomic_init(&s->references, 1);
	atomic_init(&s->viewers_reserved, 0);
	atomic_init(&s->card_head, 0);
	snprintf(s->id, sizeof(s->id), "%s", id);
	unsigned hash = 5381;
	for (const char *c = s->id; *c != '\0'; c++)
		hash = hash * 33 + (unsigned char)*c;
	s->loop = app->loops[hash % app->loops_count];
	s->subject = strdup(subject);
	s->sandbox = strdup(sandbox);
	s->params = strdup(params);
	s->provider_name = strdup(provider);
	s->provider = provider_find(app->providers, provider);
	s->cols = cols;
	s->rows = rows;
	s->journal = journal_create(app->config->journal_bytes +
					    app->config->journal_bytes / REPLAY_SLACK,
				    cols, rows);
	s->feed.journal = s->journal;
	s->feed.state = session_state_name(SESSION_PROVISIONING);
	s->inputs_end = &s->inputs;
	s->fence = 1;
	randombytes_buf(s->own_client, sizeof(s->own_client));
	metric_add(METRIC_SESSIONS_PROVISIONING, 1);
	if (s->subject == NULL || s->sandbox == NULL || s->params == NULL ||
	    s->provider_name == NULL || s->journal == NULL) {
		session_unref(s);
		return NULL;
	}
	return s;
}

static int64_t wall_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int session_create(struct app *app, const struct session_spec *spec, struct session **ret)
{
	char params[2 * PARAMS_HASH_BYTES + 1];
	hash_params(spec->params, params);
	struct session *s = session_alloc(app, spec->id, spec->subject, spec->sandbox,
					  spec->provider, params, spec->cols, spec->rows);
	if (s == NULL)
		return -ENOMEM;
	s->command = strings_copy(spec->command);
	s->env = strings_copy(spec->env);
	s->cwd = spec->cwd == NULL ? NULL : strdup(spec->cwd);
	s->idle_timeout_s = spec->idle_timeout_s;
	s->created_ms = wall_ms();
	if (s->command == NULL || s->env == NULL || (spec->cwd != NULL && s->cwd == NULL) ||
	    s->provider == NULL) {
		session_unref(s);
		return -ENOMEM;
	}
	*ret = s;
	return 0;
}

int session_restore(struct app *app, const struct store_session *record, struct session **ret)
{
	struct session *s = session_alloc(app, record->id, record->subject, record->sandbox,
					  record->provider, record->params, record->cols,
					  record->rows);
	if (s == NULL)
		return -ENOMEM;
	s->restored = true;
	s->epoch = s->feed.epoch = record->epoch;
	s->end = record->end;
	s->fence = record->fence + 1;
	s->idle_timeout_s = record->idle_timeout_s;
	s->created_ms = record->created_ms;
	uint8_t *json = NULL;
	size_t size;
	if (record->endpoint != NULL &&
	    seal_open(app->seal_keys, record->endpoint, &json, &size) == 0) {
		if (endpoint_from_json((char *)json, &s->endpoint) == 0)
			s->endpoint_sealed = strdup(record->endpoint);
		seal_free(json, size);
	}
	if (record->ended && record->ended_json != NULL) {
		s->refill = true;
		s->ended_ms = record->ended_ms;
		s->ended_json = strdup(record->ended_json);
		metric_add(METRIC_SESSIONS_PROVISIONING, -1);
		metric_add(METRIC_SESSIONS_ENDED, 1);
		s->state = SESSION_ENDED;
		s->feed.state = session_state_name(SESSION_ENDED);
	}
	*ret = s;
	return 0;
}

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

bool session_resize_now(struct session *s, uint16_t cols, uint16_t rows)
{
	if (session_is_ended(s))
		return false;
	if (!s->attached || s->transport->resize(s->tunnel, cols, rows) < 0) {
		s->want_cols = cols; /* when the tunnel is there */
		s->want_rows = rows;
	}
	return true;
}

static void run_resize(struct session *s, struct note *n)
{
	struct reply reply = reply_ok(204);
	if (!session_resize_now(s, n->size.cols, n->size.rows))
		reply = reply_problem(409, "session-ended", "the session has ended");
	n->done(n->arg, &reply);
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

static void run_close(struct session *s, struct note *n)
{
	struct reply reply = reply_ok(204);
	if (session_is_ended(s))
		registry_forget(s->app->registry, s);
	else
		session_hang_up(s, "closed");
	n->done(n->arg, &reply);
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

/* ---- the card ---- */

static char *copy_or_null(const char *text)
{
	return text == NULL ? NULL : strdup(text);
}

int session_info(struct session *s, struct session_info *ret)
{
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->id, s->id, sizeof(ret->id));
	ret->subject = strdup(s->subject);
	ret->sandbox = strdup(s->sandbox);
	ret->provider = strdup(s->provider_name);
	ret->created_ms = s->created_ms;
	pthread_mutex_lock(&s->card_lock);
	ret->state = s->state;
	ret->cols = s->cols;
	ret->rows = s->rows;
	ret->epoch = s->epoch;
	ret->offset = s->state == SESSION_ENDED
			      ? s->end
			      : atomic_load_explicit(&s->card_head, memory_order_relaxed);
	ret->ended_json = copy_or_null(s->ended_json);
	ret->failed_start = s->failed_start;
	bool complete = s->ended_json == NULL || ret->ended_json != NULL;
	pthread_mutex_unlock(&s->card_lock);
	if (complete && ret->subject != NULL && ret->sandbox != NULL && ret->provider != NULL)
		return 0;
	session_info_fini(ret);
	return -ENOMEM;
}

void session_info_fini(struct session_info *info)
{
	free(info->subject);
	free(info->sandbox);
	free(info->provider);
	free(info->ended_json);
	info->subject = info->sandbox = info->provider = info->ended_json = NULL;
}

enum session_state session_state(struct session *s)
{
	pthread_mutex_lock(&s->card_lock);
	enum session_state state = s->state;
	pthread_mutex_unlock(&s->card_lock);
	return state;
}

bool session_is_closing(struct session *s)
{
	pthread_mutex_lock(&s->card_lock);
	bool closing = s->closing;
	pthread_mutex_unlock(&s->card_lock);
	return closing;
}

bool session_finished_at(struct session *s, uint64_t epoch, uint64_t offset)
{
	pthread_mutex_lock(&s->card_lock);
	bool finished = s->state == SESSION_ENDED && s->epoch == epoch && offset == s->end + 1;
	pthread_mutex_unlock(&s->card_lock);
	return finished;
}

/* ---- start and retirement ---- */

void session_timer(struct session *s, uv_timer_t *timer, uv_timer_cb cb, uint64_t ms)
{
	uv_update_time(loop_uv(s->loop));
	uv_timer_start(timer, cb, ms, 0);
}

/* {"reason":..,"exit_code":..,"signal":..} of the ended_json that the store had (make_exit() wrote it). */
static void restore_exit(struct session *s)
{
	const char *text = strstr(s->ended_json, ",\"text\":");
	if (text == NULL)
		snprintf(s->exit_text, sizeof(s->exit_text),
			 "{\"reason\":\"lost\",\"exit_code\":null,\"signal\":null}");
	else
		snprintf(s->exit_text, sizeof(s->exit_text), "%.*s}", (int)(text - s->ended_json),
			 s->ended_json);
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
	s->idle_us = s->lost_us = loop_now_us();
	session_viewers_init(s);
	session_save(s); /* a restored one with its new number, before that is used */
	if (!s->restored)
		return;
	if (s->refill) {
		restore_exit(s);
		/* Only after an exit that was seen is there nobody in the shell any more. */
		if (s->endpoint.url != NULL && strstr(s->exit_text, "null,\"signal\":null") == NULL)
			session_connect(s);
		else
			session_end_refill(s);
	} else if (s->endpoint.url != NULL) {
		session_enter(s, SESSION_CONNECTING, "connect", NULL);
		session_connect(s);
	} else {
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
	uv_timer_stop(&s->retry_timer);
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
	if (n->yes)
		s->app->store_ops->delete_session(s->app->store, s->id);
	if (s->closing && !session_is_ended(s))
		s->retire_at_end = true;
	else
		session_retire(s);
}

static void run_stop(struct session *s, struct note *n)
{
	bool end = n->yes && strcmp(s->provider_name, "local") == 0;
	if (end && !session_is_ended(s)) {
		s->retire_at_end = true;
		session_hang_up(s, "closed");
	} else {
		session_retire(s);
	}
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
