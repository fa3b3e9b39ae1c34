/* session_mirror.c -- a session whose tunnel is held by another replica, the owner: its journal is fed from
 * the bus, and what is asked of it is asked of the owner. Messages may be lost: what is missing in the journal
 * is pulled, and what was not answered is asked again. */
#include <errno.h>
#include <sodium.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/app.h"
#include "service/config.h"
#include "service/intern.h"
#include "service/journal.h"
#include "service/log.h"
#include "service/metrics.h"
#include "service/provisioner.h"
#include "service/registry.h"
#include "service/session_private.h"
#include "store/store.h"

#define SILENT_US 2500000      /* the owner says something every second */
#define PULL_US 1000000        /* without a piece: it was lost */
#define AGAIN_US 1500000       /* without an answer: the call, or the answer, was lost */
#define LOOK_UP_US 2000000     /* between two looks at the record, while nobody answers */
#define LOOKED_AWAY_US 3000000 /* without a viewer: output is not asked for any more */
#define UNUSED_US 10000000     /* a mirror that nobody needs lives on for that long */
#define REPORT_BYTES (64u << 10)

struct tunnel {
	struct session *session; /* borrowed: we are its tunnel */
	bool up;                 /* we hear what the owner says to all */
	bool welcomed;           /* and it knows of us */
	bool watching;           /* output is wanted */
	bool placed;             /* the journal goes on where the owner's does */
	bool paused;
	uint64_t born_us, heard_us, looked_up_us, watched_us;
	uint64_t head; /* the owner's, as far as we know */
	uint64_t reported, reported_fastest;

	uint64_t pull; /* the request that is under way; 0: none */
	uint64_t pull_sent_us;
	bool has_slot;

	uint64_t syncs,
		synced; /* numbers of the last REGISTER that wanted an answer, and of that answer */
	uint64_t synced_head;
};

static struct tunnel *tunnel_of(struct session *s)
{
	return s->mirror && !s->tunnel_over ? s->tunnel : NULL;
}

/* ---- what we say ---- */

static void register_at(struct session *s, bool wants_welcome)
{
	struct tunnel *t = s->tunnel;
	uint64_t slowest = s->slowest;
	struct bus_frame f = { .head.type = BUS_REGISTER };
	f.reg = (struct bus_register){
		.request = wants_welcome ? ++t->syncs : 0,
		.watches = t->watching,
		.epoch = t->placed ? s->feed.epoch : 0,
		.received = t->placed ? journal_head(s->journal) : 0,
		.fastest = s->viewers.first == NULL ? 0 : s->fastest,
		.slowest = s->viewers.first == NULL ? UINT64_MAX : slowest,
	};
	t->reported = f.reg.received;
	t->reported_fastest = s->fastest;
	session_bus_send(s, "owner", &f);
}

void session_mirror_report(struct session *s)
{
	struct tunnel *t = tunnel_of(s);
	if (t == NULL || !t->placed || !t->watching)
		return;
	if (journal_head(s->journal) - t->reported >= REPORT_BYTES ||
	    (s->fastest > t->reported_fastest && s->fastest - t->reported_fastest >= REPORT_BYTES))
		register_at(s, false);
}

/* ---- pulling ---- */

static void release_slot(struct session *s)
{
	struct tunnel *t = s->tunnel;
	if (t->has_slot)
		slots_release(s->app->pull_slots);
	t->has_slot = false;
	t->pull = 0;
}

static void send_pull(struct session *s)
{
	struct tunnel *t = s->tunnel;
	struct bus_frame f = { .head.type = BUS_PULL };
	t->pull = ++s->next_request;
	t->pull_sent_us = loop_now_us();
	metric_add(METRIC_MIRROR_PULLS, 1);
	f.pull = (struct bus_pull){ .request = t->pull,
				    .epoch = s->known ? s->feed.epoch : 0,
				    .offset = journal_head(s->journal) };
	session_bus_send(s, "owner", &f);
}

struct slot_note {
	struct message message;
	struct session *session; /* the reference of wants_slot */
};

static void on_slot_note(struct message *m, struct loop *l)
{
	struct slot_note *n = (struct slot_note *)m;
	struct session *s = n->session;
	struct tunnel *t = tunnel_of(s);
	(void)l;
	s->wants_slot = false;
	if (t != NULL && t->watching && !t->paused && t->welcomed && t->pull == 0 && !t->has_slot) {
		t->has_slot = true;
		send_pull(s);
	} else {
		slots_release(s->app->pull_slots);
	}
	session_unref(s);
	free(n);
}

/* Thread: any. */
static void on_slot(struct slot_request *r)
{
	struct session *s = (struct session *)((char *)r - offsetof(struct session, slot));
	struct slot_note *n = calloc(1, sizeof(*n));
	if (n == NULL)
		abort();
	n->message.run = on_slot_note;
	n->session = s;
	loop_post_answer(s->loop, &n->message);
}

/* Asks for what follows the head: one piece after another, a bounded number of them for all sessions here, or
 * Redis would cut this replica's connection for what it has to hold. */
static void pull(struct session *s)
{
	struct tunnel *t = s->tunnel;
	if (!t->watching || t->paused || !t->welcomed || t->pull != 0 || s->wants_slot)
		return;
	if (!t->has_slot) {
		s->slot.granted = on_slot;
		s->wants_slot = true;
		session_ref(s);
		if (!slots_acquire(s->app->pull_slots, &s->slot))
			return;
		s->wants_slot = false;
		session_unref(s);
		t->has_slot = true;
	}
	send_pull(s);
}

/* ---- those that wait for what the owner knows now ---- */

void session_mirror_sync(struct session *s, bool watch, unsigned timeout_ms, reply_fn *done,
			 void *arg)
{
	struct tunnel *t = tunnel_of(s);
	struct reply reply = reply_ok(200);
	uint64_t sync;
	session_use(s);
	if (watch) {
		sync = session_mirror_watch(s);
	} else if (t == NULL) {
		done(arg, &reply);
		return;
	} else {
		if (t->up)
			register_at(s, true);
		sync = t->up ? t->syncs : t->syncs + 1;
	}
	session_sync_wait(s, sync, watch, timeout_ms, reply, done, arg);
}

/* ---- asking the owner ---- */

static int mirror_input(struct tunnel *t, uint64_t request,
			const uint8_t client[INPUT_CLIENT_BYTES], uint64_t seq,
			const uint8_t *bytes, size_t size)
{
	struct bus_call call = {
		.request = request, .kind = BUS_CALL_INPUT, .seq = seq, .bytes = bytes, .size = size
	};
	memcpy(call.client, client, sizeof(call.client));
	return session_call_owner(t->session, &call) < 0 ? -EAGAIN : 0;
}

static int mirror_resize(struct tunnel *t, uint16_t cols, uint16_t rows)
{
	struct bus_call call = { .request = ++t->session->next_request,
				 .kind = BUS_CALL_RESIZE,
				 .cols = cols,
				 .rows = rows };
	return session_call_owner(t->session, &call);
}

static int mirror_signal(struct tunnel *t, uint64_t request, int number)
{
	struct bus_call call = { .request = request, .kind = BUS_CALL_SIGNAL, .signal = number };
	return session_call_owner(t->session, &call);
}

static void mirror_pause(struct tunnel *t, bool pause)
{
	t->paused = pause;
	if (!pause && t->placed && journal_head(t->session->journal) < t->head)
		pull(t->session);
}

/* Never called: these are the owner's to do. */
static int mirror_nothing(struct tunnel *t)
{
	(void)t;
	return -ENOTCONN;
}

static void mirror_destroy(struct tunnel *t, bool leave)
{
	struct session *s = t->session;
	(void)leave;
	struct bus_frame f = { .head.type = BUS_LEAVE };
	metric_add(METRIC_MIRRORS, -1);
	session_bus_send(s, "owner", &f);
	if (s->wants_slot && slots_cancel(&s->slot)) {
		s->wants_slot = false;
		session_unref(s); /* its tunnel goes, so somebody has another one */
	}
	if (t->has_slot)
		slots_release(s->app->pull_slots);
	free(t);
}

#define MIRROR_OPS(resends_)                                                                \
	{                                                                                   \
		.name = "mirror", .resends = (resends_), .keeps = true, .signals = true,    \
		.input = mirror_input, .resize = mirror_resize, .signal = mirror_signal,    \
		.pause = mirror_pause, .hang_up = mirror_nothing, .forget = mirror_nothing, \
		.destroy = mirror_destroy,                                                  \
	}
static const struct tunnel_ops mirror_ops = MIRROR_OPS(true);
/* The far end cannot drop repeats: what was sent to an owner that died may have been typed. */
static const struct tunnel_ops mirror_ops_foreign = MIRROR_OPS(false);

static void take_answer(struct session *s, const struct bus_answer *a)
{
	struct reply reply = reply_ok(a->status);
	if (a->slug.size > 0) {
		reply = reply_problem(a->status, intern(a->slug.bytes, a->slug.size), "%.*s",
				      (int)a->detail.size,
				      a->detail.bytes == NULL ? "" : a->detail.bytes);
		reply.retry_after_s = a->retry_after_s;
		reply.expected = a->expected;
	}
	if (!session_forward_answer(s, a->request, &reply))
		session_input_answer(s, a->request, &reply);
}

/* ---- what the owner says ---- */

/* Nothing of it can be relied on now. */
static void lose_owner(struct session *s)
{
	struct tunnel *t = s->tunnel;
	t->welcomed = t->placed = false;
	s->feed.attached = false;
	release_slot(s);
	if (s->attached) {
		s->attached = false;
		session_input_lost(s);
	}
}

/* Viewers are told of those that are done while they watch; later only the session's description has them. */
static void take_steps(struct session *s, const struct bus_card *c)
{
	bool opening = c->state == SESSION_PROVISIONING || c->state == SESSION_CONNECTING;
	for (unsigned i = s->steps_count; i < c->steps_count; i++) {
		const char *name = intern(c->steps[i].name.bytes, c->steps[i].name.size);
		if (opening)
			session_step_is(s, name, c->steps[i].ms);
		else
			session_note_step(s, name, c->steps[i].ms);
	}
}

/* All of an ended session is here: its end may be told. */
static void check_end(struct session *s)
{
	bool complete = s->end == 0 || (s->known && journal_head(s->journal) >= s->end);
	if (s->refill && complete) {
		s->feed.epoch = s->epoch;
		session_end_refill(s);
		session_arrivals_admit(s);
	}
}

static void take_end(struct session *s, const struct bus_card *c)
{
	if (!session_is_ended(s) && c->ended_json.size > 0) {
		char *json = strndup(c->ended_json.bytes, c->ended_json.size);
		if (json == NULL)
			return;
		snprintf(s->exit_text, sizeof(s->exit_text), "%.*s", (int)c->exit_json.size,
			 c->exit_json.bytes == NULL ? "" : c->exit_json.bytes);
		if (c->error.size > 0)
			s->end_error = intern(c->error.bytes, c->error.size);
		s->ended_ms = loop_wall_ms();
		s->refill = true;
		pthread_mutex_lock(&s->card_lock);
		s->ended_json = json;
		s->end = c->head;
		s->failed_start = c->failed_start;
		pthread_mutex_unlock(&s->card_lock);
		char reason[161];
		snprintf(reason, sizeof(reason), "%.*s", (int)c->reason.size,
			 c->reason.bytes == NULL ? "" : c->reason.bytes);
		session_enter(s, SESSION_ENDED, c->reason.size > 0 ? reason : NULL);
		session_input_end(s);
	}
	check_end(s);
}

static void take_card(struct session *s, const struct bus_card *c)
{
	struct tunnel *t = s->tunnel;
	s->transport = c->keeps ? &mirror_ops : &mirror_ops_foreign;
	t->head = c->head;
	if (s->refill || c->epoch != s->feed.epoch || !t->watching) {
		pthread_mutex_lock(&s->card_lock);
		s->epoch = c->epoch;
		pthread_mutex_unlock(&s->card_lock);
	}
	session_size_is(s, c->cols, c->rows);
	if (c->head > atomic_load_explicit(&s->card_head, memory_order_relaxed) || !t->watching)
		atomic_store_explicit(&s->card_head, c->head, memory_order_relaxed);
	s->feed.attached = c->attached;
	s->feed.replayed = c->replayed;
	take_steps(s, c);
	if (c->state == SESSION_ENDED) {
		take_end(s, c);
		return;
	}
	if (c->state < SESSION_STATE_COUNT && c->state != s->state && !session_is_ended(s)) {
		char reason[161];
		snprintf(reason, sizeof(reason), "%.*s", (int)c->reason.size,
			 c->reason.bytes == NULL ? "" : c->reason.bytes);
		session_enter(s, (enum session_state)c->state, c->reason.size > 0 ? reason : NULL);
	}
}

/* From whom it comes, and whether it counts. */
static bool take_head(struct session *s, const struct bus_head *h)
{
	struct tunnel *t = s->tunnel;
	if (h->birth != s->birth) {
		if (h->number > s->fence)
			session_not_here(s, "another session has its id");
		return false;
	}
	if (h->number < s->fence)
		return false; /* an owner that was */
	if (h->number > s->fence || (s->owner_replica != h->sender && s->owner_replica != 0)) {
		lose_owner(s);
		t->up = true;
		s->fence = h->number;
	}
	s->owner_replica = h->sender;
	t->heard_us = loop_now_us();
	return true;
}

static void greet(struct session *s, const struct bus_card *c)
{
	struct tunnel *t = s->tunnel;
	if (!t->welcomed) {
		if (c->request == 0) { /* a beat of one that does not know us */
			register_at(s, true);
			return;
		}
		t->welcomed = true;
		s->attached = true;
		s->lost_us = 0;
		s->opened = true;
		session_forwards_send(s, loop_now_us());
		session_input_send(s);
	}
	if (c->request != 0)
		session_sync_wake(s, c->request, loop_now_us());
	/* Of an owner that has not everything itself yet it is not known where it is. */
	if (c->request > t->synced && c->ready) {
		t->synced = c->request;
		t->synced_head = c->head;
	} else if (c->request == 0 && c->ready && t->synced < t->syncs && s->arrivals != NULL) {
		register_at(s, true);
	}
	if (t->watching && c->ready && (!t->placed || journal_head(s->journal) < c->head))
		pull(s);
	session_arrivals_admit(s);
}

/* Puts the journal where the owner's goes on. */
static void place(struct session *s, const struct bus_output *o)
{
	struct tunnel *t = s->tunnel;
	bool same = s->known && o->epoch == s->feed.epoch;
	uint64_t head = journal_head(s->journal);
	if (!same || o->start > head)
		session_restart(s, same ? 0 : o->epoch, o->start, o->cols, o->rows);
	if (!same || !s->feed.ready) {
		s->feed.ready = false;
		s->replay_end = o->head;
	}
	s->known = true;
	t->placed = true;
}

static void deliver(struct session *s, const struct bus_output *o)
{
	struct bus_item item;
	size_t at = 0;
	if (o->start == journal_head(s->journal))
		session_resized_at(s, o->start, o->cols, o->rows);
	while (bus_item_next(o, &at, &item)) {
		if (item.data != NULL)
			session_take_output(s, item.offset, item.data, item.size);
		else if (item.offset >= journal_head(s->journal))
			session_resized_at(s, item.offset, item.cols, item.rows);
	}
	if (!s->feed.ready && !s->refill && journal_head(s->journal) >= s->replay_end) {
		s->feed.ready = true;
		if (s->viewers.first != NULL) /* they are told where it is now */
			session_enter(s, s->state, NULL);
		session_changed(s);
	}
	check_end(s);
	if (s->arrivals != NULL)
		session_arrivals_admit(s);
}

static void take_piece(struct session *s, const struct bus_output *o)
{
	struct tunnel *t = s->tunnel;
	if (o->request != t->pull || t->pull == 0)
		return;
	bool more = false;
	if (!t->placed || o->start > journal_head(s->journal) || o->epoch != s->feed.epoch)
		place(s, o);
	deliver(s, o);
	if (o->head > t->head)
		t->head = o->head;
	more = journal_head(s->journal) < o->head && o->items_size > 0;
	t->pull = 0;
	release_slot(s); /* to the end of the queue: all have their turn */
	if (more)
		pull(s);
}

static void take_output(struct session *s, const struct bus_output *o)
{
	struct tunnel *t = s->tunnel;
	if (o->head > t->head)
		t->head = o->head;
	atomic_store_explicit(&s->card_head, t->head, memory_order_relaxed);
	if (!t->watching || t->paused || !t->welcomed)
		return;
	if (!t->placed || o->epoch != s->feed.epoch || o->start > journal_head(s->journal)) {
		t->placed = t->placed && o->epoch == s->feed.epoch;
		pull(s);
		return;
	}
	deliver(s, o);
}

void session_mirror_frame(struct session *s, const struct bus_frame *f)
{
	if (tunnel_of(s) == NULL)
		return;
	if (f->head.type == BUS_ANSWER) {
		take_answer(s, &f->answer);
		return;
	}
	if (f->head.type < BUS_WELCOME || f->head.type == BUS_CLAIM || !take_head(s, &f->head))
		return;
	switch (f->head.type) {
	case BUS_WELCOME:
	case BUS_BEAT:
		take_card(s, &f->card);
		if (tunnel_of(s) != NULL)
			greet(s, &f->card);
		break;
	case BUS_PIECE:
		take_piece(s, &f->output);
		break;
	case BUS_OUTPUT:
		take_output(s, &f->output);
		break;
	case BUS_GONE:
	default:
		session_not_here(s, "it was forgotten");
		break;
	}
}

void session_mirror_line(struct session *s, bool up)
{
	struct tunnel *t = tunnel_of(s);
	if (t == NULL)
		return;
	t->up = up;
	if (up)
		register_at(s, true);
	else
		lose_owner(s);
}

/* Whether one waits for what the owner says first, and it has been said. */
bool session_mirror_told(struct session *s, uint64_t sync)
{
	const struct tunnel *t = tunnel_of(s);
	return t != NULL && s->feed.ready && sync <= t->synced &&
	       journal_head(s->journal) >= t->synced_head;
}

uint64_t session_mirror_watch(struct session *s)
{
	struct tunnel *t = tunnel_of(s);
	if (t == NULL)
		return 1; /* the first answer, once there is one */
	t->watching = true;
	t->watched_us = loop_now_us();
	if (t->up)
		register_at(s, true);
	return t->syncs > 0 ? t->syncs : 1;
}

void session_mirror_doubt(struct session *s)
{
	struct tunnel *t = tunnel_of(s);
	if (session_is_ended(s))
		return; /* it is complete, or will be once */
	s->feed.ready = false;
	s->replay_end = UINT64_MAX; /* a piece that is asked for from now on tells */
	if (t != NULL)
		t->placed = false;
}

bool session_mirror_is_lost(struct session *s)
{
	const struct tunnel *t = tunnel_of(s);
	return t != NULL && !t->welcomed;
}

/* ---- its life ---- */

static bool is_needed(const struct session *s, uint64_t now_us)
{
	return s->viewers.first != NULL || s->arrivals != NULL || s->inputs != NULL ||
	       s->forwards != NULL || s->sync_waiters != NULL || s->waiters != NULL ||
	       now_us < s->used_us + UNUSED_US;
}

void session_mirror_second(struct session *s, uint64_t now_us)
{
	struct tunnel *t = tunnel_of(s);
	if (t == NULL)
		return;
	if (!is_needed(s, now_us) && registry_drop_unused(s->app->registry, s, UNUSED_US))
		return;
	bool looked_at = s->viewers.first != NULL || s->arrivals != NULL;
	if (looked_at)
		t->watched_us = now_us;
	if (t->watching && now_us > t->watched_us + LOOKED_AWAY_US)
		t->watching = t->placed = false; /* no output is needed, and it may fall asleep */
	if (t->up)
		register_at(s, !t->welcomed);
	if (now_us > t->heard_us + SILENT_US) {
		if (t->welcomed)
			lose_owner(s);
		if (!session_is_ended(s)) {
			session_mirror_doubt(s);
			if (s->state == SESSION_OPEN)
				session_enter(s, SESSION_RECONNECTING,
					      "its replica does not answer");
		}
		if (now_us > t->looked_up_us + LOOK_UP_US) {
			t->looked_up_us = now_us;
			session_look_up(s);
		}
	}
	if (t->pull != 0 && now_us > t->pull_sent_us + PULL_US) {
		release_slot(s);
		pull(s);
	}
	if (t->placed && t->welcomed && journal_head(s->journal) < t->head)
		pull(s);
	session_forwards_send(s, now_us);
	session_input_again(s, now_us, AGAIN_US);
	session_arrivals_admit(s);
}

void session_mirror_connect(struct session *s)
{
	struct tunnel *t = calloc(1, sizeof(*t));
	if (t == NULL)
		abort();
	metric_add(METRIC_MIRRORS, 1);
	t->session = s;
	t->born_us = t->heard_us = loop_now_us();
	t->watching = s->viewers.first != NULL || s->arrivals != NULL;
	s->transport = &mirror_ops;
	s->tunnel = t;
	s->owner_replica = 0;
	session_bus_listen(s, "out");
}
