/* session_viewers.c -- from the journal to the viewers: passes over all of them, held off so that they
 * take at most a quarter of the loop's time; and the way back, the pause of a tunnel that is faster than
 * the fastest viewer. */
#include <stddef.h>
#include <stdlib.h>

#include "service/app.h"
#include "service/config.h"
#include "service/journal.h"
#include "service/metrics.h"
#include "service/registry.h"
#include "service/session_private.h"
#include "store/store.h"

#define RING_SPARE_BYTES \
	(256u << 10) /* of the agent's ring: at least so much may come for whoever keeps up */
#define AWAIT_SLACK_BYTES (128u << 10) /* less than the slack of the journal */
#define SLICE_VIEWERS 128              /* flushed before other sessions have their turn */
#define HOLD_FACTOR \
	3 /* a pass may take a quarter of the time: no new one for three times its length */
#define SHRUNK_BYTES JOURNAL_CHUNK_BYTES /* what an idle session keeps when memory is short */
#define SAVE_OFFSET_US 5000000           /* how old the offset in a shared store may be */
#define IDLE_OUTPUT_US 10000000          /* no output for that long: its journal may shrink */

static struct session *of_host(struct viewer_host *host)
{
	return (struct session *)((char *)host - offsetof(struct session, host));
}

static void update_fastest(struct session *s)
{
	s->fastest = 0;
	s->slowest = UINT64_MAX;
	for (struct viewer *v = s->viewers.first; v != NULL; v = viewer_next(v)) {
		uint64_t offset = viewer_offset(v);
		if (offset > s->fastest)
			s->fastest = offset;
		if (offset != 0 && offset < s->slowest)
			s->slowest = offset;
	}
	session_owner_positions(s, &s->fastest, &s->slowest);
}

void session_viewers_moved(struct session *s)
{
	update_fastest(s);
	session_flow_check(s);
}

/* Here, or at a mirror. */
static bool is_watched(const struct session *s)
{
	return s->viewers.first != NULL || session_watched_elsewhere(s);
}

/* The far end keeps what it was not told that we have. We say so once the viewers have it, too: if this
 * process is killed, they go on where they were. Viewers far behind do not count. */
static void acknowledge(struct session *s)
{
	if (s->tunnel == NULL || !s->attached || s->transport->acknowledge == NULL ||
	    s->await_until_us != 0 || s->stopping)
		return;
	if (s->viewers.first != NULL && s->slowest == UINT64_MAX)
		return; /* one has just come: it is not known yet where it is */
	uint64_t head = journal_head(s->journal);
	uint64_t ring = s->app->config->agent_ring_bytes;
	uint64_t slack = ring > RING_SPARE_BYTES ? ring - RING_SPARE_BYTES : 0;
	uint64_t offset = s->slowest > head || !is_watched(s) ? head : s->slowest;
	if (head > slack && offset < head - slack)
		offset = head - slack;
	s->transport->acknowledge(s->tunnel, offset);
}

static void end_pass(struct session *s)
{
	s->in_pass = false;
	uint64_t hold_us = s->pass_us * HOLD_FACTOR;
	uint64_t longest_us = s->app->config->tick_ms * UINT64_C(1000);
	if (hold_us > longest_us)
		hold_us = longest_us;
	s->hold_until_us = hold_us < 1000 ? 0 : loop_now_us() + hold_us;
	update_fastest(s);
	session_flow_check(s);
	if (s->flush_again) {
		s->flush_again = false;
		session_changed(s);
	}
}

static bool run_pass(struct loop_work *work)
{
	struct session *s = (struct session *)((char *)work - offsetof(struct session, flush_work));
	uint64_t start_us = loop_now_us();
	if (!s->in_pass) {
		s->in_pass = true;
		s->flush_next = s->viewers.first;
		s->pass_us = 0;
	}
	for (unsigned n = 0; s->flush_next != NULL && n < SLICE_VIEWERS; n++) {
		struct viewer *v = s->flush_next;
		s->flush_next = viewer_next(v);
		if (viewer_flush(v) == VIEWER_MORE)
			s->flush_again = true;
	}
	s->pass_us += loop_now_us() - start_us;
	if (s->flush_next != NULL)
		return true;
	end_pass(s);
	return false;
}

static void on_flush_timer(uv_timer_t *timer)
{
	struct session *s = timer->data;
	loop_work_add(s->loop, &s->flush_work);
}

void session_changed(struct session *s)
{
	s->feed.version++;
	if (!s->mirror) /* else it is the owner's */
		atomic_store_explicit(&s->card_head, journal_head(s->journal),
				      memory_order_relaxed);
	session_owner_changed(s);
	if (s->viewers.first == NULL)
		return;
	if (s->in_pass) {
		s->flush_again = true;
		return;
	}
	if (s->flush_work.queued || uv_is_active((uv_handle_t *)&s->flush_timer))
		return;
	uint64_t now_us = loop_now_us();
	if (now_us >= s->hold_until_us)
		loop_work_add(s->loop, &s->flush_work);
	else
		session_timer(s, &s->flush_timer, on_flush_timer,
			      (s->hold_until_us - now_us + 999) / 1000);
}

void session_flush_final(struct session *s)
{
	s->feed.final = true;
	s->feed.version++;
	struct viewer *next;
	for (struct viewer *v = s->viewers.first; v != NULL; v = next) {
		next = viewer_next(v);
		viewer_flush(v);
	}
}

static void on_gone(struct viewer_host *host, struct viewer *v)
{
	struct session *s = of_host(host);
	if (s->flush_next == v)
		s->flush_next = viewer_next(v);
	session_release_viewer(s);
	s->idle_us = s->used_us = loop_now_us();
	if (s->viewers.first == NULL) { /* else the next pass finds who is the fastest now */
		session_viewers_moved(s);
		session_retire_step(s);
	}
}

static void on_writable(struct viewer_host *host, struct viewer *v)
{
	struct session *s = of_host(host);
	enum viewer_flushed flushed = viewer_flush(v);
	if (flushed == VIEWER_GONE)
		return;
	if (viewer_offset(v) > s->fastest)
		s->fastest = viewer_offset(v);
	session_flow_check(s);
	if (flushed == VIEWER_MORE) {
		if (s->in_pass)
			s->flush_again = true;
		else
			loop_work_add(s->loop, &s->flush_work);
	}
}

static void on_input(struct viewer_host *host, const struct input *in)
{
	session_input_add(of_host(host), in);
}

static void on_resize(struct viewer_host *host, uint16_t cols, uint16_t rows)
{
	session_resize_add(of_host(host), cols, rows, NULL, NULL);
}

static void on_signal(struct viewer_host *host, int number, reply_fn *done, void *arg)
{
	session_signal_add(of_host(host), number, done, arg);
}

static void on_flow_timer(uv_timer_t *timer)
{
	struct session *s = timer->data;
	if (!s->paused)
		return;
	/* Slow, but it moves: read a little, so that answers and pongs among the output come through; the
	 * next output pauses again. Or it does not move: read on. */
	s->paused_enough = s->fastest <= s->stall_offset;
	s->paused = false;
	if (s->tunnel != NULL && s->attached)
		s->transport->pause(s->tunnel, false);
}

/* After a restart of the service the viewers it had are on their way back: what they miss must not be
 * overtaken. A quiet program is not held up. */
static bool awaits_viewers(struct session *s)
{
	if (s->await_until_us == 0)
		return false;
	if (is_watched(s) || loop_now_us() >= s->await_until_us)
		s->await_until_us = 0;
	return s->await_until_us != 0 &&
	       journal_head(s->journal) > s->replay_end + AWAIT_SLACK_BYTES;
}

void session_flow_check(struct session *s)
{
	if (s->mirror)
		session_mirror_report(s);
	else
		acknowledge(s);
	uint64_t head = journal_head(s->journal);
	bool behind = s->feed.ready && is_watched(s) && s->fastest < head &&
		      head - s->fastest > s->app->config->journal_bytes / 2;
	bool awaits = awaits_viewers(s);
	if (s->paused_enough && (!behind || s->fastest > s->stall_offset))
		s->paused_enough = false;
	if (awaits) {
		if (!s->paused && s->tunnel != NULL && s->attached) {
			s->paused = true;
			s->transport->pause(s->tunnel, true);
		}
		return; /* until a viewer comes, or the second after the time is over */
	}
	if (behind == s->paused || (behind && s->paused_enough) || s->tunnel == NULL ||
	    !s->attached)
		return;
	s->paused = behind;
	s->transport->pause(s->tunnel, behind);
	if (!behind) {
		uv_timer_stop(&s->flow_timer);
		return;
	}
	metric_add(METRIC_FLOW_PAUSES, 1);
	s->stall_offset = s->fastest;
	session_timer(s, &s->flow_timer, on_flow_timer, s->app->config->flow_stall_ms);
}

/* True when all journals together are over their bound. */
static bool memory_short(const struct session *s)
{
	return metric_get(METRIC_JOURNAL_BYTES) > (int64_t)s->app->config->journals_total_bytes;
}

static void check_limits(struct session *s, uint64_t now_us)
{
	/* A viewer that went in this very second did so after it began. */
	uint64_t idle_us = now_us > s->idle_us ? now_us - s->idle_us : 0;
	bool quiet = session_is_ended(s) || idle_us > IDLE_OUTPUT_US;
	if (memory_short(s) && quiet && journal_memory(s->journal) > SHRUNK_BYTES) {
		journal_shrink(s->journal, SHRUNK_BYTES);
		session_changed(s);
	}
	bool moved = s->app->store_ops->shared && !s->mirror && !session_is_ended(s) &&
		     journal_head(s->journal) != s->saved_offset &&
		     now_us > s->saved_us + SAVE_OFFSET_US;
	if (s->unsaved || moved)
		session_save(s);
	bool expires = !session_is_ended(s) && !s->mirror && !s->closing && s->idle_timeout_s > 0 &&
		       !is_watched(s) && idle_us > s->idle_timeout_s * UINT64_C(1000000);
	if (expires && !session_look_in(s, now_us))
		session_hang_up(s, "expired");
}

static void on_second(struct loop_second *second, uint64_t now_us, int64_t wall_ms)
{
	struct session *s = (struct session *)((char *)second - offsetof(struct session, second));
	struct viewer *next;
	for (struct viewer *v = s->viewers.first; v != NULL; v = next) {
		next = viewer_next(v);
		viewer_tick(v, now_us, wall_ms);
	}
	session_sync_wake(s, 0, now_us);
	if (s->stopping)
		return;
	if (s->arrivals != NULL)
		session_arrivals_admit(s);
	check_limits(s, now_us);
	if (s->mirror) {
		session_mirror_second(s, now_us);
		return;
	}
	session_check_tunnel(s, now_us);
	session_owner_second(s, now_us);
	if (s->want_cols != 0 && s->attached && s->transport->readdressed)
		session_ask_resize(s);
	session_keep_alive(s, now_us);
	session_sleep_check(s, now_us);
	session_lease_check(s);
	if (s->await_until_us != 0)
		session_flow_check(s);
	if (session_is_ended(s) && now_us > s->forget_us)
		registry_forget(s->app->registry, s);
}

void session_viewers_init(struct session *s)
{
	s->host = (struct viewer_host){
		.app = s->app,
		.loop = s->loop,
		.feed = &s->feed,
		.gone = on_gone,
		.writable = on_writable,
		.input = on_input,
		.resize = on_resize,
		.signal = on_signal,
	};
	s->flush_work.run = run_pass;
	s->second.fn = on_second;
	loop_second_add(s->loop, &s->second);
}

void session_viewers_fini(struct session *s)
{
	loop_second_remove(s->loop, &s->second);
	loop_work_remove(s->loop, &s->flush_work);
	event_cache_forget(loop_event_cache(s->loop), &s->feed);
}

void session_viewers_add(struct session *s, const struct viewer_params *p)
{
	s->idle_us = loop_now_us();
	session_use(s);
	if (viewer_create(&s->host, &s->viewers, p) < 0) {
		session_release_viewer(s);
		return;
	}
	if (s->viewers.last == NULL)
		return; /* what came behind its request ended it at once */
	if (viewer_flush(s->viewers.last) == VIEWER_MORE)
		loop_work_add(s->loop, &s->flush_work);
	update_fastest(s);
	session_flow_check(s);
}
