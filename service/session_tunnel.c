/* session_tunnel.c -- a session and its far end: what the tunnel brings goes into the journal; a tunnel
 * that is lost is made again from the offset that we have, until it is clear that nobody is there. */
#include <assert.h>
#include <inttypes.h>

#include "service/app.h"
#include "service/config.h"
#include "service/journal.h"
#include "service/log.h"
#include "service/metrics.h"
#include "service/session_private.h"
#include "store/store.h"
#include "tunnel/ws_client.h"

#define BACKOFF_FIRST_MS 20
#define BACKOFF_LAST_MS 5000
#define BACKOFF_REFILL_MS 200
#define REFILL_ATTEMPTS 10
#define AWAIT_VIEWERS_US 10000000 /* as long as an agent keeps all for a holder that was lost */
#define ELSEWHERE_US 3000000      /* for a local shell that another replica had */
#define REOPEN_ATTEMPTS 3         /* to connect, before the provider is asked */
#define MUTE_US 15000000          /* longer than a connection may take; at most the time to open */
#define LOOK_US \
	10000000 /* for a session that sleeps to be there again, to see whether it is idle */
#define STEADY_US 1000000   /* attached for that long: the next loss is a new one */
#define FLAPPING_ATTEMPTS 4 /* attached and lost at once: back-off from here, up to 0.3 s */

static void set_epoch(struct session *s, uint64_t epoch)
{
	s->feed.epoch = epoch;
	pthread_mutex_lock(&s->card_lock);
	s->epoch = epoch;
	pthread_mutex_unlock(&s->card_lock);
}

void session_size_is(struct session *s, uint16_t cols, uint16_t rows)
{
	pthread_mutex_lock(&s->card_lock);
	s->cols = cols;
	s->rows = rows;
	pthread_mutex_unlock(&s->card_lock);
}

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

void session_restart(struct session *s, uint64_t epoch, uint64_t offset, uint16_t cols,
		     uint16_t rows)
{
	restart_journal(s, offset, cols, rows);
	if (epoch != 0)
		set_epoch(s, epoch);
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
	if (s->feed.ready || s->mirror || journal_head(s->journal) < s->replay_end)
		return;
	s->feed.ready = true;
	if (!s->refill)
		session_enter(s, SESSION_OPEN, NULL);
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

static void on_opening(void *arg)
{
	struct session *s = arg;
	s->open_sent = true;
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
	bool attached_before = s->opened || s->restored;
	bool same = s->known && a->epoch == s->feed.epoch;
	if (a->head > head) /* it has said something meanwhile */
		s->idle_us = loop_now_us();
	if (!same) {
		restart_journal(s, a->start, a->cols, a->rows);
		set_epoch(s, a->epoch);
	} else if (a->start > head) {
		restart_journal(s, a->start, a->cols, a->rows);
	} else if (a->start == head) {
		journal_resize(s->journal, a->cols, a->rows); /* it may have changed meanwhile */
	}
	if (!s->known || !same || !s->feed.ready) {
		s->feed.ready = false;
		s->replay_end = a->head;
	}
	s->feed.replayed = s->known || s->restored ? a->head : 0;
	s->feed.attached = true;
	if (s->restored && !s->known && !s->refill)
		s->await_until_us = loop_now_us() + AWAIT_VIEWERS_US;
	s->known = s->attached = s->opened = true;
	s->paused = s->paused_enough = false;
	s->attached_us = loop_now_us();
	s->lost_us = 0;
	s->reopen_wait_ms = s->reopen_at_us = 0;
	session_size_is(s, a->cols, a->rows);
	if (!same && !s->refill)
		session_save(s);
	if (s->feed.ready && !s->refill)
		session_enter(s, SESSION_OPEN, NULL);
	check_replayed(s);
	session_changed(s);
	session_owner_tell(s);
	if (s->refill)
		return;
	if (s->closing) {
		session_hang_up(s, s->close_reason);
		return;
	}
	if (s->transport->readdressed && attached_before && s->want_cols == 0) {
		s->want_cols = s->cols; /* its provider may have given it another size */
		s->want_rows = s->rows;
	}
	if (s->want_cols != 0)
		session_resize_now(s, s->want_cols, s->want_rows);
	session_input_send(s);
}

static void on_output(void *arg, uint64_t offset, const uint8_t *data, size_t size)
{
	struct session *s = arg;
	if (!s->tunnel_over)
		session_take_output(s, offset, data, size);
}

void session_take_output(struct session *s, uint64_t offset, const uint8_t *data, size_t size)
{
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
	s->idle_us = uv_now(loop_uv(s->loop)) *
		     1000; /* the loop's own clock: this is done for each message */
	check_replayed(s);
	session_changed(s);
	session_flow_check(s);
	if (s->refill && !s->mirror && journal_head(s->journal) >= s->end)
		give_up(s, NULL, NULL);
}

static void on_resized(void *arg, uint64_t offset, uint16_t cols, uint16_t rows)
{
	struct session *s = arg;
	if (!s->tunnel_over)
		session_resized_at(s, offset, cols, rows);
}

void session_resized_at(struct session *s, uint64_t offset, uint16_t cols, uint16_t rows)
{
	if (offset > journal_head(s->journal))
		restart_journal(s, offset, cols, rows);
	else
		journal_resize(s->journal, cols, rows);
	session_size_is(s, cols, rows);
	session_changed(s);
}

/* A size that the provider set: this tunnel does not tell. */
void session_resized(struct session *s, uint16_t cols, uint16_t rows)
{
	session_resized_at(s, journal_head(s->journal), cols, rows);
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
	session_owner_tell(s);
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
	struct session *s = timer->data;
	if (!s->stopping)
		session_connect(s);
}

/* The far end is gone for good. */
void session_end_lost(struct session *s, const char *slug, const char *text)
{
	bool failed = !s->opened && !s->restored;
	if (s->closing) {
		session_end(s, s->close_reason, NULL, PTY2_EXIT_UNKNOWN, 0);
		return;
	}
	s->end_error = slug != NULL ? slug : failed ? "start-failed" : "tunnel-lost";
	session_end(s, failed ? "failed" : "lost", text, PTY2_EXIT_UNKNOWN, 0);
}

/* How long it is tried to get a tunnel. */
static uint64_t patience_us(const struct session *s)
{
	const struct config *cfg = s->app->config;
	if (s->adopted_us != 0 && s->machine != 0 && s->attached_us < s->adopted_us)
		return ELSEWHERE_US;
	return s->opened || s->restored ? cfg->reconnect_s * UINT64_C(1000000)
					: (uint64_t)cfg->open_timeout_ms * 1000;
}

static void end_in_vain(struct session *s, const char *text)
{
	if (s->adopted_us != 0 && s->machine != 0 && s->attached_us < s->adopted_us)
		text = "its replica is gone, and its agent does not answer here: a local session "
		       "belongs to its machine";
	session_end_lost(s, s->opened || s->restored ? "tunnel-lost" : "tunnel-failed", text);
}

/* Tries again later, or gives up. */
void session_retry(struct session *s, const char *text)
{
	uint64_t now_us = loop_now_us();
	uint64_t limit_us = patience_us(s);
	if (s->lost_us == 0)
		s->lost_us = now_us;
	if (now_us - s->lost_us > limit_us) {
		end_in_vain(s, text);
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
	/* A gateway stumbles now and then. When it goes on: is the sandbox still there? */
	if (s->attempts > REOPEN_ATTEMPTS && (s->opened || s->restored || !s->transport->keeps))
		session_reopen(s);
}

static void on_tunnel_ended(void *arg, enum tunnel_end end, uint64_t fence, const char *text)
{
	struct session *s = arg;
	char safe[128];
	bool was_attached = s->attached;
	log_info("tunnel ended", "session=%s kind=%d text=\"%s\"", s->id, (int)end,
		 log_safe(safe, sizeof(safe), text));
	session_drop_tunnel(s, false);
	if (s->stopping || s->mirror)
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
	/* The agent of a sandbox that was suspended, say, or a tunnel that was replaced meanwhile. Where the
	 * shell is made with its place it is there already, and waited for. */
	bool wrong_place = end == TUNNEL_GONE ||
			   (end == TUNNEL_LOST && s->transport->keeps &&
			    (s->endpoint.remembered || s->attempts > REOPEN_ATTEMPTS));
	if (!s->opened && !s->restored && !s->closing && wrong_place && session_open_anew(s))
		return;
	switch (end) {
	case TUNNEL_LOST:
		if (was_attached && loop_now_us() - s->attached_us > STEADY_US)
			s->attempts = 0;
		else if (was_attached && s->attempts > FLAPPING_ATTEMPTS)
			s->attempts = FLAPPING_ATTEMPTS;
		if (s->state == SESSION_OPEN)
			session_enter(s, SESSION_RECONNECTING, text);
		session_retry(s, text);
		break;
	case TUNNEL_GONE:
		end_in_vain(s, text);
		break;
	case TUNNEL_FAILED:
		session_end_lost(s, NULL, text);
		break;
	case TUNNEL_EXITED:
		session_end(s, s->closing ? s->close_reason : "exited", NULL, PTY2_EXIT_UNKNOWN, 0);
		break;
	case TUNNEL_FENCED:
		log_warn("session taken over", "session=%s fence=%" PRIu64, s->id, fence);
		if (s->app->store_ops->shared)
			session_outnumbered(s, fence);
		else
			session_end(s, "lost", text, PTY2_EXIT_UNKNOWN, 0);
		break;
	}
}

static const struct tunnel_events tunnel_events = {
	.opening = on_opening,
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
	if (s->tunnel != NULL)
		return; /* it is being tried already */
	if (s->mirror) {
		session_mirror_connect(s);
		return;
	}
	if (session_is_ended(s) && !s->refill)
		return; /* not wanted any more */
	s->connect_us = loop_now_us();
	s->transport = tunnel_find(s->endpoint.transport);
	if (s->transport == NULL) {
		give_up(s, "failed", "its transport is not known here");
		return;
	}
	if (!s->transport->resends && s->dedupe == NULL)
		s->dedupe = input_seq_create();
	bool asks_first = s->transport->readdressed || s->endpoint.ask_first;
	if (asks_first && !s->has_address && s->refill) {
		give_up(s, NULL, NULL); /* what it said is gone */
		return;
	}
	if (asks_first && !s->has_address) {
		/* Its address was good for one connection, or knocking there would wake a sandbox that
		 * sleeps: the answer goes on. */
		session_reopen(s);
		session_retry(s, "there is no way back to it");
		return;
	}
	s->has_address = false;
	struct ws_header headers[TUNNEL_HEADERS_MAX];
	static_assert(TUNNEL_HEADERS_MAX == ENDPOINT_HEADERS_MAX, "all of an endpoint's");
	for (unsigned i = 0; i < s->endpoint.headers_count; i++)
		headers[i] = (struct ws_header){ s->endpoint.headers[i].name,
						 s->endpoint.headers[i].value };
	bool remote = session_reopens(s);
	struct tunnel_params params = {
		.uv = loop_uv(s->loop),
		.lws = loop_lws(s->loop),
		.url = s->endpoint.url,
		.token = s->endpoint.token,
		.headers = headers,
		.headers_count = s->endpoint.headers_count,
		.behind_gateway = remote,
		.shell = s->endpoint.shell,
		.open = !s->opened && !s->restored,
		.command = (const char *const *)s->command,
		.env = (const char *const *)s->env,
		.cwd = s->cwd,
		.alone_s = remote ? cfg->remote_alone_s : cfg->alone_s,
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
	s->attached = s->feed.attached = false;
	if (s->tunnel == NULL || s->tunnel_over)
		return;
	s->tunnel_over = true;
	s->tunnel_leave = leave;
	s->tunnel_work.run = end_tunnel;
	loop_work_add(s->loop, &s->tunnel_work);
}

/* ---- sleep: a session that nobody uses does not keep its sandbox awake ---- */

bool session_is_used(const struct session *s, uint64_t now_us)
{
	return s->viewers.first != NULL || s->inputs != NULL || session_watched_elsewhere(s) ||
	       now_us < s->used_us + s->app->config->detach_s * UINT64_C(1000000);
}

/* Only where the far end keeps the shell, and what it says, without us. */
void session_sleep_check(struct session *s, uint64_t now_us)
{
	if (s->provider == NULL || s->provider->keep_alive == NULL || !s->attached || s->mirror ||
	    s->state != SESSION_OPEN || !s->transport->keeps || s->closing ||
	    session_is_used(s, now_us))
		return;
	log_info("session sleeps", "session=%s", s->id);
	s->asleep = true;
	session_drop_tunnel(s, true);
}

/* A far end that takes the connection and then says nothing is as good as none. */
void session_check_tunnel(struct session *s, uint64_t now_us)
{
	static const char text[] = "the far end does not answer";
	uint64_t mute_us = s->app->config->open_timeout_ms * UINT64_C(1000);
	if (mute_us > MUTE_US)
		mute_us = MUTE_US;
	if (s->tunnel == NULL || s->tunnel_over || s->attached || s->refill || s->mirror ||
	    now_us < s->connect_us + mute_us)
		return;
	if (!session_is_ended(s) && s->lost_us != 0 && now_us - s->lost_us > patience_us(s)) {
		end_in_vain(s, text); /* over this tunnel: it may hear us */
		return;
	}
	session_drop_tunnel(s, false);
	if (!session_is_ended(s))
		session_retry(s, text);
}

static void wake(struct session *s)
{
	log_info("session wakes", "session=%s", s->id);
	s->asleep = false;
	s->attempts = 0;
	s->lost_us = loop_now_us();
	session_connect(s);
}

bool session_look_in(struct session *s, uint64_t now_us)
{
	if (s->asleep) {
		s->look_until_us = now_us + LOOK_US;
		wake(s);
	}
	return !s->attached && now_us < s->look_until_us;
}

void session_use(struct session *s)
{
	s->used_us = loop_now_us();
	if (s->asleep)
		wake(s);
}
