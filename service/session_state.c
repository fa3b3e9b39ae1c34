/* session_state.c -- the life of a session: its states, provisioning, its end. */
#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
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
#include "service/session_private.h"
#include "service/signals.h"
#include "store/store.h"
#include "wire/sse.h"

#define SAVE_WAIT_MS 1000
#define CLOSE_MS 4000 /* for a shell to go that was hung up; the agent kills it after 2 s */

static const struct {
	const char *name;
	unsigned next; /* bit set of the states that may follow */
	enum metric metric;
} states[SESSION_STATE_COUNT] = {
	[SESSION_PROVISIONING] = { "provisioning", 1u << SESSION_CONNECTING | 1u << SESSION_ENDED,
				   METRIC_SESSIONS_PROVISIONING },
	[SESSION_CONNECTING] = { "connecting", 1u << SESSION_OPEN | 1u << SESSION_ENDED,
				 METRIC_SESSIONS_CONNECTING },
	[SESSION_OPEN] = { "open", 1u << SESSION_RECONNECTING | 1u << SESSION_ENDED,
			   METRIC_SESSIONS_OPEN },
	[SESSION_RECONNECTING] = { "reconnecting", 1u << SESSION_OPEN | 1u << SESSION_ENDED,
				   METRIC_SESSIONS_RECONNECTING },
	[SESSION_ENDED] = { "ended", 0, METRIC_SESSIONS_ENDED },
};

const char *session_state_name(enum session_state state)
{
	return states[state].name;
}

bool session_is_ended(const struct session *s)
{
	return s->state == SESSION_ENDED; /* only this thread writes it */
}

/* Into the feed: what viewers are told of the state. */
static void set_notice(struct session *s, const char *step, uint32_t step_ms)
{
	s->feed.now = (struct feed_notice){ states[s->state].name, step, step_ms };
	feed_notify(&s->feed);
	session_changed(s);
}

/* The only writer of s->state after the birth. */
void session_enter(struct session *s, enum session_state next, const char *reason)
{
	assert(loop_is_current(s->loop));
	bool changed = next != s->state;
	if (changed) {
		char safe[160];
		assert(s->mirror || states[s->state].next & (1u << next));
		metric_add(states[s->state].metric, -1);
		metric_add(states[next].metric, 1);
		log_info("session state", "session=%s from=%s to=%s text=\"%s\"", s->id,
			 states[s->state].name, states[next].name,
			 log_safe(safe, sizeof(safe), reason == NULL ? "" : reason));
		pthread_mutex_lock(&s->card_lock);
		s->state = next;
		pthread_mutex_unlock(&s->card_lock);
	}
	s->feed.reason = s->feed.error = NULL;
	if (reason != NULL) {
		snprintf(s->reason_text, sizeof(s->reason_text), "%s", reason);
		s->feed.reason = s->reason_text;
	}
	if (next == SESSION_ENDED)
		s->feed.error = s->end_error;
	if (next == SESSION_OPEN || next == SESSION_ENDED)
		session_wake_waiters(s);
	/* Of an end the exit event tells, but not why it could not be opened. */
	s->feed.now = (struct feed_notice){ .state = states[next].name };
	if (next != SESSION_ENDED || s->feed.error != NULL)
		feed_notify(&s->feed);
	session_changed(s);
	session_owner_tell(s);
	if (changed && next != SESSION_ENDED && s->app->store_ops->shared && s->timers_open > 0)
		session_save(s); /* for lists, and those who take it over */
}

void session_step(struct session *s, const char *name, int64_t wall_ms)
{
	session_step_is(s, name, wall_ms > s->created_ms ? (uint32_t)(wall_ms - s->created_ms) : 0);
}

void session_step_is(struct session *s, const char *name, uint32_t ms)
{
	session_note_step(s, name, ms);
	set_notice(s, name, ms);
	session_owner_tell(s);
}

/* [{"step":..,"ms":..}] */
static void make_steps_text(struct session *s)
{
	if (!s->app->store_ops->shared)
		return;
	json_t *list = json_array();
	for (unsigned i = 0; i < s->steps_count; i++)
		json_array_append_new(list, json_pack("{s:s, s:I}", "step", s->steps[i].name, "ms",
						      (json_int_t)s->steps[i].ms));
	free(s->steps_text);
	s->steps_text = json_dumps(list, JSON_COMPACT);
	json_decref(list);
}

void session_note_step(struct session *s, const char *name, uint32_t ms)
{
	log_info("session step", "session=%s step=%s after_ms=%u", s->id, name, ms);
	pthread_mutex_lock(&s->card_lock);
	if (s->steps_count < SESSION_STEPS_MAX)
		s->steps[s->steps_count++] = (struct session_step){ name, ms };
	pthread_mutex_unlock(&s->card_lock);
	make_steps_text(s);
}

void session_record(const struct session *s, struct store_session *ret)
{
	bool ended = s->state == SESSION_ENDED;
	*ret = (struct store_session){
		.subject = s->subject,
		.sandbox = s->sandbox,
		.provider = s->provider_name,
		.params = s->params,
		.endpoint = s->endpoint_sealed,
		.target = ended ? NULL : s->target_text,
		.epoch = s->epoch,
		.end = s->end,
		.fence = s->fence,
		.cols = s->cols,
		.rows = s->rows,
		.created_ms = s->created_ms,
		.idle_timeout_s = s->idle_timeout_s,
		.ended = ended,
		.ended_json = s->ended_json,
		.ended_ms = s->ended_ms,
		.owner = s->stopping ? 0
				     : s->app->replica, /* nobody's: whoever is there takes it */
		.birth = s->birth,
		.host = s->machine,
		.offset = ended ? s->end : journal_head(s->journal),
		.steps = s->steps_text,
		.closing = s->closing,
	};
	snprintf(ret->id, sizeof(ret->id), "%s", s->id);
	snprintf(ret->state, sizeof(ret->state), "%s", session_state_name(s->state));
}

/* Whose sign of life has not arrived for a TTL may have lost its sessions without knowing it yet, and one of them
 * may be closed and forgotten by now: it would come back. */
static bool may_write(const struct app *app)
{
	return !app->store_ops->shared ||
	       loop_now_us() < app->bus_ops->alive_us(app->bus) +
				       app->config->replica_ttl_ms * UINT64_C(1000);
}

/* Returns false when it could not even be queued. */
static bool put_record(struct session *s, bool tells)
{
	struct store_session record;
	bool shared = s->app->store_ops->shared;
	session_record(s, &record);
	s->saved_us = loop_now_us();
	s->saved_offset = record.offset;
	s->unsaved = true; /* then once a second again */
	if (!may_write(s->app))
		return false;
	void *saved = shared ? session_saved_arg(s, tells) : NULL;
	int rc = s->app->store_ops->put_session(s->app->store, &record,
						shared ? session_saved : NULL, saved);
	s->unsaved = rc < 0;
	if (rc == 0)
		return true;
	session_saved_free(saved);
	metric_add(METRIC_STORE_ERRORS, 1);
	log_error("session not saved", "session=%s error=%d", s->id, -rc);
	return false;
}

static void save(struct session *s, reply_fn *done, void *arg)
{
	struct reply reply = reply_ok(204);
	bool waits = done != NULL && s->app->store_ops->shared;
	bool queued = !s->forgotten && !s->mirror && put_record(s, waits);
	if (waits && queued) {
		session_sync_wait(s, UINT64_MAX, false, SAVE_WAIT_MS, reply, done, arg);
	} else if (done != NULL) {
		if (waits) {
			reply = reply_problem(503, "not-delivered",
					      "it could not be stored: try again");
			reply.retry_after_s = 1;
		}
		done(arg, &reply);
	}
}

void session_save(struct session *s)
{
	save(s, NULL, NULL);
}

void session_save_then(struct session *s, reply_fn *done, void *arg)
{
	save(s, done, arg);
}

/* ---- the end ---- */

static void on_close_timeout(uv_timer_t *timer)
{
	struct session *s = timer->data;
	session_end(s, s->close_reason, NULL, PTY2_EXIT_UNKNOWN, 0);
}

void session_hang_up(struct session *s, const char *reason)
{
	if (session_is_ended(s))
		return;
	if (!s->closing)
		s->close_reason = reason;
	pthread_mutex_lock(&s->card_lock);
	s->closing = true;
	pthread_mutex_unlock(&s->card_lock);
	bool maybe_open = s->opened || s->restored || s->open_sent;
	if (s->state == SESSION_PROVISIONING || s->transport == NULL ||
	    ((!s->transport->keeps || !maybe_open) && !s->attached)) {
		session_end(s, s->close_reason, NULL, PTY2_EXIT_UNKNOWN, 0);
		return;
	}
	/* Also behind an opening that is not answered yet. */
	if (s->tunnel != NULL && !s->tunnel_over && s->transport->hang_up(s->tunnel) == 0) {
		session_timer(s, &s->close_timer, on_close_timeout, CLOSE_MS);
		return;
	}
	if (!s->transport->keeps) {
		session_end(s, s->close_reason, NULL, PTY2_EXIT_UNKNOWN, 0);
		return;
	}
	/* No tunnel now: told when it is back. Of a local shell that is soon or never; one far away would live
	 * on for long, so it is tried as long as a session may be without a tunnel. */
	session_use(s);
	if (!session_reopens(s))
		session_timer(s, &s->close_timer, on_close_timeout, CLOSE_MS);
}

/* {"reason":..,"exit_code":..,"signal":..} and the same with text and time for the API. */
static void make_exit(struct session *s, const char *reason, const char *text,
		      enum pty2_exit_kind kind, unsigned value)
{
	char code[16] = "null", name[16], signal[24] = "null";
	if (kind == PTY2_EXITED)
		snprintf(code, sizeof(code), "%u", value);
	else if (kind == PTY2_SIGNALED_EXIT)
		snprintf(signal, sizeof(signal), "\"%s\"", signal_name((int)value, name));
	snprintf(s->exit_text, sizeof(s->exit_text),
		 "{\"reason\":\"%s\",\"exit_code\":%s,\"signal\":%s}", reason, code, signal);
	char error[64] = "null";
	if (s->end_error != NULL)
		snprintf(error, sizeof(error), "\"%s\"", s->end_error);
	char quoted[JSON_ESCAPE_BYTES(200) + 3] = "null";
	if (text != NULL) {
		size_t size = strlen(text);
		size_t n = json_escape(quoted + 1, (const uint8_t *)text, size < 200 ? size : 200);
		quoted[0] = quoted[n + 1] = '"';
		quoted[n + 2] = '\0';
	}
	struct tm tm;
	time_t seconds = s->ended_ms / 1000;
	gmtime_r(&seconds, &tm);
	char at[40];
	size_t n = strftime(at, sizeof(at), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(at + n, sizeof(at) - n, ".%03dZ", (int)(s->ended_ms % 1000));
	char *json = NULL;
	if (asprintf(&json,
		     "{\"reason\":\"%s\",\"exit_code\":%s,\"signal\":%s,\"text\":%s,\"error\":%s,"
		     "\"at\":\"%s\"}",
		     reason, code, signal, quoted, error, at) < 0)
		abort();
	pthread_mutex_lock(&s->card_lock);
	s->ended_json = json;
	s->end = journal_head(s->journal);
	s->failed_start = !s->opened && !s->restored;
	pthread_mutex_unlock(&s->card_lock);
}

void session_end(struct session *s, const char *reason, const char *text, enum pty2_exit_kind kind,
		 unsigned value)
{
	if (session_is_ended(s))
		return;
	uv_timer_stop(&s->retry_timer);
	uv_timer_stop(&s->close_timer);
	uv_timer_stop(&s->flow_timer);
	atomic_store(&s->cancelled, true);
	s->ended_ms = loop_wall_ms();
	s->forget_us = loop_now_us() + s->app->config->forget_s * UINT64_C(1000000);
	make_exit(s, reason, text, kind, value);
	s->feed.exit_json = s->exit_text;
	s->feed.final = true;
	s->feed.ready = true;
	session_enter(s, SESSION_ENDED, text);
	session_save(s);
	session_owner_changed(s);
	session_input_end(s);
	if (s->open_sent && !s->opened && s->tunnel != NULL && !s->tunnel_over)
		s->transport->hang_up(s->tunnel); /* whatever comes of the opening */
	session_drop_tunnel(s, true);
	if (strcmp(reason, "exited") != 0)
		session_ask_close(s);
	if (s->retire_at_end)
		session_retire(s);
}
