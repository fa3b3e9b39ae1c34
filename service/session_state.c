/* session_state.c -- the life of a session: provisioning, its tunnel, the tunnel's loss, its end. */
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

#define BACKOFF_FIRST_MS 20
#define BACKOFF_LAST_MS 5000
#define BACKOFF_REFILL_MS 200
#define REFILL_ATTEMPTS 10
#define AWAIT_VIEWERS_US 10000000 /* as long as an agent keeps all for a holder that was lost */
#define STEADY_US 1000000         /* attached for that long: the next loss is a new one */
#define FLAPPING_ATTEMPTS 4       /* attached and lost at once: back-off from here, up to 0.3 s */
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

static int64_t wall_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
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

static void set_epoch(struct session *s, uint64_t epoch)
{
	s->feed.epoch = epoch;
	pthread_mutex_lock(&s->card_lock);
	s->epoch = epoch;
	pthread_mutex_unlock(&s->card_lock);
}

static void set_size(struct session *s, uint16_t cols, uint16_t rows)
{
	pthread_mutex_lock(&s->card_lock);
	s->cols = cols;
	s->rows = rows;
	pthread_mutex_unlock(&s->card_lock);
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

/* ---- the tunnel ---- */

/* The far end does not have what follows the head: the journal goes on at offset. What viewers have not
 * got of the old part is given to those that take it now. */
static void restart_journal(struct session *s, uint64_t offset, uint16_t cols, uint16_t rows)
{
	if (s->feed.ready)
		session_flush_final(s);
	s->feed.final = false;
	journal_restart(s->journal, offset, cols, rows);
	s->fastest = 0;
}

static void restart_after_gap(struct session *s, uint64_t offset)
{
	uint16_t cols, rows;
	journal_size_at(s->journal, journal_head(s->journal), &cols, &rows);
	restart_journal(s, offset, cols, rows);
}

/* Once all is here that was there when we attached: only now positions of viewers can be judged. */
static void check_replayed(struct session *s)
{
	if (s->feed.ready || journal_head(s->journal) < s->replay_end)
		return;
	s->feed.ready = true;
	if (!s->refill)
		session_enter(s, SESSION_OPEN, NULL, NULL);
}

/* The session is over, or what was to be fetched of an ended one is not to be had. */
static void give_up(struct session *s, const char *reason, const char *text)
{
	if (s->refill) {
		session_end_refill(s);
		session_drop_tunnel(s, true);
	} else {
		session_end(s, reason, text, PTY2_EXIT_UNKNOWN, 0);
	}
}

static void on_attached(void *arg, const struct tunnel_attached *a)
{
	struct session *s = arg;
	if (s->tunnel_over)
		return;
	if (s->endpoint.instance != 0 && a->instance != 0 && a->instance != s->endpoint.instance) {
		give_up(s, "lost", "another agent is at its address");
		return;
	}
	uint64_t head = journal_head(s->journal);
	bool same = s->known && a->epoch == s->feed.epoch;
	if (!same) {
		restart_journal(s, a->start, a->cols, a->rows);
		set_epoch(s, a->epoch);
	} else if (a->start > head) {
		restart_journal(s, a->start, a->cols, a->rows);
	} else if (a->start == head) {
		journal_resize(s->journal, a->cols, a->rows); /* it may have changed meanwhile */
	}
	if (!s->known || !same) {
		s->feed.ready = false;
		s->replay_end = a->head;
	}
	if (s->restored && !s->known && !s->refill)
		s->await_until_us = loop_now_us() + AWAIT_VIEWERS_US;
	s->known = s->attached = s->opened = true;
	s->paused = s->paused_enough = false;
	s->attached_us = loop_now_us();
	s->lost_us = 0;
	set_size(s, a->cols, a->rows);
	if (!same && !s->refill)
		session_save(s);
	if (s->feed.ready && !s->refill)
		session_enter(s, SESSION_OPEN, NULL, NULL);
	check_replayed(s);
	session_changed(s);
	if (s->refill)
		return;
	if (s->closing) {
		session_hang_up(s, s->close_reason);
		return;
	}
	if (s->want_cols != 0)
		s->transport->resize(s->tunnel, s->want_cols, s->want_rows);
	s->want_cols = s->want_rows = 0;
	session_input_send(s);
}

static void on_output(void *arg, uint64_t offset, const uint8_t *data, size_t size)
{
	struct session *s = arg;
	if (s->tunnel_over)
		return;
	uint64_t head = journal_head(s->journal);
	metric_add(METRIC_OUTPUT_BYTES, (int64_t)size);
	if (offset > head) {
		restart_after_gap(s, offset);
	} else if (offset < head) { /* had it already */
		uint64_t had = head - offset;
		if (had >= size)
			return;
		data += had;
		size -= (size_t)had;
	}
	if (s->refill) { /* nothing belongs to it behind its end */
		uint64_t left = s->end > journal_head(s->journal)
					? s->end - journal_head(s->journal)
					: 0;
		size = size < left ? size : (size_t)left;
	}
	size_t memory = journal_memory(s->journal);
	if (metric_get(METRIC_JOURNAL_BYTES) > (int64_t)s->app->config->journals_total_bytes &&
	    memory > (size_t)4 * JOURNAL_CHUNK_BYTES) /* memory is short: do not grow */
		journal_shrink(s->journal, memory - JOURNAL_CHUNK_BYTES);
	if (journal_append(s->journal, data, size) < 0) {
		log_error("output lost", "session=%s bytes=%zu text=\"no memory\"", s->id, size);
		return;
	}
	s->idle_us = loop_now_us();
	check_replayed(s);
	session_changed(s);
	session_flow_check(s);
	if (s->refill && journal_head(s->journal) >= s->end)
		give_up(s, NULL, NULL);
}

static void on_resized(void *arg, uint64_t offset, uint16_t cols, uint16_t rows)
{
	struct session *s = arg;
	if (s->tunnel_over)
		return;
	if (offset > journal_head(s->journal))
		restart_journal(s, offset, cols, rows);
	else
		journal_resize(s->journal, cols, rows);
	set_size(s, cols, rows);
	session_changed(s);
}

static void on_input_done(void *arg, uint64_t request, enum pty2_verdict verdict, uint64_t expected)
{
	session_input_done(arg, request, verdict, expected);
}

static void on_signaled(void *arg, uint64_t request, int error)
{
	session_signal_done(arg, request, error);
}

/* An ended session from the store has its output back, or what there is of it. */
void session_end_refill(struct session *s)
{
	s->refill = false;
	uv_timer_stop(&s->retry_timer);
	if (journal_head(s->journal) != s->end)
		journal_restart(s->journal, s->end, s->cols, s->rows);
	s->feed.exit_json = s->exit_text;
	s->feed.final = true;
	s->feed.ready = true;
	session_changed(s);
}

static void on_exited(void *arg, uint64_t end, enum pty2_exit_kind kind, unsigned value)
{
	struct session *s = arg;
	if (s->tunnel_over)
		return;
	if (s->refill) {
		give_up(s, NULL, NULL);
		return;
	}
	if (end > journal_head(s->journal)) /* the last bytes left the agent's ring */
		restart_after_gap(s, end);
	if (s->closing)
		s->transport->forget(s->tunnel);
	session_end(s, s->closing ? s->close_reason : "exited", NULL, kind, value);
}

static void on_retry(uv_timer_t *timer)
{
	session_connect(timer->data);
}

/* The far end is gone for good. */
static void end_lost(struct session *s, const char *text)
{
	if (s->closing)
		session_end(s, s->close_reason, NULL, PTY2_EXIT_UNKNOWN, 0);
	else
		session_end(s, s->opened || s->restored ? "lost" : "failed", text,
			    PTY2_EXIT_UNKNOWN, 0);
}

/* Tries again later, or gives up. */
static void reconnect(struct session *s, const char *text)
{
	const struct config *cfg = s->app->config;
	uint64_t now_us = loop_now_us();
	uint64_t limit_us = s->opened || s->restored ? cfg->reconnect_s * UINT64_C(1000000)
						     : (uint64_t)cfg->open_timeout_ms * 1000;
	if (s->lost_us == 0)
		s->lost_us = now_us;
	if (now_us - s->lost_us > limit_us) {
		end_lost(s, text);
		return;
	}
	unsigned shift = s->attempts < 8 ? s->attempts : 8;
	uint64_t ms = (uint64_t)BACKOFF_FIRST_MS << shift;
	if (ms > BACKOFF_LAST_MS)
		ms = BACKOFF_LAST_MS;
	ms = ms / 2 +
	     (now_us ^ (uintptr_t)s >> 4) % (ms / 2 + 1); /* so that many do not come at once */
	uint64_t left_us = s->lost_us + limit_us - now_us;
	if (ms * 1000 > left_us) /* then it gives up, and not some time later */
		ms = left_us / 1000 + 1;
	s->attempts++;
	metric_add(METRIC_RECONNECTS, 1);
	session_timer(s, &s->retry_timer, on_retry, ms);
}

static void on_tunnel_ended(void *arg, enum tunnel_end end, uint64_t fence, const char *text)
{
	struct session *s = arg;
	char safe[128];
	bool was_attached = s->attached;
	log_info("tunnel ended", "session=%s kind=%d text=\"%s\"", s->id, (int)end,
		 log_safe(safe, sizeof(safe), text));
	session_drop_tunnel(s, false);
	if (s->stopping)
		return;
	if (s->refill && end == TUNNEL_LOST && s->attempts < REFILL_ATTEMPTS) {
		s->attempts++;
		session_timer(s, &s->retry_timer, on_retry, BACKOFF_REFILL_MS);
		return;
	}
	if (s->refill) { /* there is nothing more to be had */
		session_end_refill(s);
		return;
	}
	if (session_is_ended(s))
		return;
	session_input_lost(s);
	switch (end) {
	case TUNNEL_LOST:
		if (was_attached && loop_now_us() - s->attached_us > STEADY_US)
			s->attempts = 0;
		else if (was_attached && s->attempts > FLAPPING_ATTEMPTS)
			s->attempts = FLAPPING_ATTEMPTS;
		if (s->state == SESSION_OPEN)
			session_enter(s, SESSION_RECONNECTING, NULL, text);
		reconnect(s, text);
		break;
	case TUNNEL_GONE:
	case TUNNEL_FAILED:
		end_lost(s, text);
		break;
	case TUNNEL_EXITED:
		session_end(s, s->closing ? s->close_reason : "exited", NULL, PTY2_EXIT_UNKNOWN, 0);
		break;
	case TUNNEL_FENCED:
		log_warn("session taken over", "session=%s fence=%" PRIu64, s->id, fence);
		session_end(s, "lost", text, PTY2_EXIT_UNKNOWN, 0);
		break;
	}
}

static const struct tunnel_events tunnel_events = {
	.attached = on_attached,
	.output = on_output,
	.resized = on_resized,
	.input_done = on_input_done,
	.signaled = on_signaled,
	.exited = on_exited,
	.ended = on_tunnel_ended,
};

void session_connect(struct session *s)
{
	const struct config *cfg = s->app->config;
	if (s->tunnel_over) { /* the old one goes first */
		session_timer(s, &s->retry_timer, on_retry, 1);
		return;
	}
	assert(s->tunnel == NULL);
	s->transport = tunnel_find(s->endpoint.transport);
	if (s->transport == NULL) {
		give_up(s, "failed", "its transport is not known here");
		return;
	}
	if (!s->transport->resends && s->dedupe == NULL)
		s->dedupe = input_seq_create();
	struct tunnel_params params = {
		.uv = loop_uv(s->loop),
		.lws = loop_lws(s->loop),
		.url = s->endpoint.url,
		.token = s->endpoint.token,
		.shell = s->endpoint.shell,
		.open = !s->opened && !s->restored,
		.command = (const char *const *)s->command,
		.env = (const char *const *)s->env,
		.cwd = s->cwd,
		.alone_s = cfg->alone_s,
		.linger_s = cfg->forget_s,
		.ring_bytes = (uint32_t)cfg->agent_ring_bytes,
		.cols = s->cols,
		.rows = s->rows,
		.fence = s->fence,
		.epoch = s->epoch,
		.offset = s->known ? journal_head(s->journal) : PTY2_OFFSET_OLDEST,
		.dedupe = s->dedupe,
		.events = &tunnel_events,
		.arg = s,
	};
	struct error err = { 0 };
	if (s->transport->create(&params, &s->tunnel, &err) < 0) {
		s->tunnel = NULL;
		give_up(s, "failed", err.text);
	}
}

static bool end_tunnel(struct loop_work *work)
{
	struct session *s = (struct session *)((char *)work -
					       offsetof(struct session, tunnel_work));
	struct tunnel *tunnel = s->tunnel;
	s->tunnel = NULL;
	s->tunnel_over = false;
	if (tunnel != NULL)
		s->transport->destroy(tunnel, s->tunnel_leave);
	session_retire_step(s);
	return false;
}

/* Its events may be what brought us here, so it goes a moment later. */
void session_drop_tunnel(struct session *s, bool leave)
{
	s->attached = false;
	if (s->tunnel == NULL || s->tunnel_over)
		return;
	s->tunnel_over = true;
	s->tunnel_leave = leave;
	s->tunnel_work.run = end_tunnel;
	loop_work_add(s->loop, &s->tunnel_work);
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
	s->ended_ms = wall_ms();
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
