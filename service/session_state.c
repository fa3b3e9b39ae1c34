/* session_state.c -- the life of a session: its states, provisioning, its end. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
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
#include "service/provisioner.h"
#include "service/session_private.h"
#include "service/signals.h"
#include "store/seal.h"
#include "store/store.h"
#include "wire/sse.h"

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

/* The only writer of s->state after the birth. */
void session_enter(struct session *s, enum session_state next, const char *step, const char *reason)
{
	assert(loop_is_current(s->loop));
	if (next != s->state) {
		char safe[160];
		assert(states[s->state].next & (1u << next));
		metric_add(states[s->state].metric, -1);
		metric_add(states[next].metric, 1);
		log_info("session state", "session=%s from=%s to=%s text=\"%s\"", s->id,
			 states[s->state].name, states[next].name,
			 log_safe(safe, sizeof(safe), reason == NULL ? "" : reason));
		pthread_mutex_lock(&s->card_lock);
		s->state = next;
		pthread_mutex_unlock(&s->card_lock);
	}
	s->feed.state = states[next].name;
	s->feed.step = step;
	s->feed.reason = NULL;
	if (reason != NULL) {
		snprintf(s->reason_text, sizeof(s->reason_text), "%s", reason);
		s->feed.reason = s->reason_text;
	}
	if (next == SESSION_OPEN || next == SESSION_ENDED)
		session_wake_waiters(s);
	if (next != SESSION_ENDED) /* then the exit event says it */
		s->feed.notices++;
	session_changed(s);
}

void session_save(struct session *s)
{
	if (s->forgotten)
		return;
	struct store_session record = {
		.subject = s->subject,
		.sandbox = s->sandbox,
		.provider = s->provider_name,
		.params = s->params,
		.endpoint = s->endpoint_sealed,
		.epoch = s->epoch,
		.end = s->end,
		.fence = s->fence,
		.cols = s->cols,
		.rows = s->rows,
		.created_ms = s->created_ms,
		.idle_timeout_s = s->idle_timeout_s,
		.ended = s->state == SESSION_ENDED,
		.ended_json = s->ended_json,
		.ended_ms = s->ended_ms,
	};
	snprintf(record.id, sizeof(record.id), "%s", s->id);
	int rc = s->app->store_ops->put_session(s->app->store, &record, NULL, NULL);
	s->unsaved = rc < 0; /* then once a second again */
	if (rc < 0) {
		metric_add(METRIC_STORE_ERRORS, 1);
		log_error("session not saved", "session=%s error=%d", s->id, -rc);
	}
}

/* ---- provisioning ---- */

struct provision_job {
	struct provisioner_job job;
	struct message answer;   /* posted back when done */
	struct session *session; /* a reference */
	char shell[33]; /* its name at the far end: another one for each creation of an id */
	int status;
	struct endpoint endpoint;
	char *sealed;
	struct error error;
};

static void on_provisioned(struct message *m, struct loop *l)
{
	struct provision_job *j = (struct provision_job *)((char *)m -
							   offsetof(struct provision_job, answer));
	struct session *s = j->session;
	(void)l;
	if (!session_is_ended(s) && !s->stopping) {
		if (j->status < 0) {
			session_end(s, "failed", j->error.text, PTY2_EXIT_UNKNOWN, 0);
		} else {
			s->endpoint = j->endpoint;
			s->endpoint_sealed = j->sealed;
			j->endpoint = (struct endpoint){ 0 };
			j->sealed = NULL;
			session_save(s);
			session_enter(s, SESSION_CONNECTING, "connect", NULL);
			session_connect(s);
		}
	}
	/* Whoever comes too late leaves an agent without a shell, which ends by itself. */
	endpoint_fini(&j->endpoint);
	free(j->sealed);
	session_unref(s);
	free(j);
}

static void run_provision(struct provisioner_job *job, bool cancelled)
{
	struct provision_job *j = (struct provision_job *)job;
	struct session *s = j->session;
	if (cancelled)
		j->status = error_set(&j->error, -ECANCELED, "the service was stopped");
	else
		j->status = s->provider->open_pty(s->app->providers, j->shell,
						  s->app->config->open_timeout_ms, &j->endpoint,
						  &j->error);
	if (j->status == 0) {
		char *json = endpoint_to_json(&j->endpoint);
		if (json != NULL) {
			j->sealed = seal(s->app->seal_keys, json, strlen(json));
			explicit_bzero(json, strlen(json));
			free(json);
		}
		if (j->sealed == NULL)
			j->status = error_set(&j->error, -ENOMEM, "no memory");
	}
	loop_post_answer(s->loop, &j->answer);
}

/* Thread: any. */
int session_submit(struct session *s)
{
	struct provision_job *j = calloc(1, sizeof(*j));
	if (j == NULL)
		return -ENOMEM;
	j->job.run = run_provision;
	j->answer.run = on_provisioned;
	j->session = session_ref(s);
	uint8_t random[16];
	randombytes_buf(random, sizeof(random));
	sodium_bin2hex(j->shell, sizeof(j->shell), random, sizeof(random));
	int rc = provisioner_submit(s->app->provisioner, &j->job);
	if (rc < 0) {
		session_unref(s);
		free(j);
	}
	return rc;
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
	if (s->attached && s->transport->hang_up(s->tunnel) == 0) {
		session_timer(s, &s->close_timer, on_close_timeout, CLOSE_MS);
		return;
	}
	if (s->state == SESSION_PROVISIONING || (s->transport != NULL && !s->transport->keeps)) {
		session_end(s, s->close_reason, NULL, PTY2_EXIT_UNKNOWN, 0);
		return;
	}
	/* No tunnel now: told when it is back, if that is soon. */
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
		     "{\"reason\":\"%s\",\"exit_code\":%s,\"signal\":%s,\"text\":%s,\"at\":\"%s\"}",
		     reason, code, signal, quoted, at) < 0)
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
	s->ended_ms = loop_wall_ms();
	make_exit(s, reason, text, kind, value);
	s->feed.exit_json = s->exit_text;
	s->feed.final = true;
	s->feed.ready = true;
	session_enter(s, SESSION_ENDED, NULL, text);
	session_save(s);
	session_input_end(s);
	session_drop_tunnel(s, true);
	if (s->retire_at_end)
		session_retire(s);
}
