/* session_owner.c -- the owner of a session and its mirrors on other replicas: what they are told, what they
 * pull, and what they ask to be done here. */
#include <assert.h>
#include <inttypes.h>
#include <sodium.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "service/app.h"
#include "service/config.h"
#include "service/journal.h"
#include "service/log.h"
#include "service/registry.h"
#include "service/session_private.h"
#include "store/store.h"

#define PEERS_MAX 256
#define PEER_TTL_US 3500000       /* they register every second */
#define PUSH_HOLD_US 3000         /* between two messages of output */
#define WINDOW_BYTES (256u << 10) /* pushed ahead of what the fastest mirror says it has */

struct peer {
	uint64_t replica, seen_us;
	bool watches;
	uint64_t received, fastest, slowest;
};

/* Something that a mirror asked for and that is not done yet. */
struct owner_call {
	struct owner_call *next;
	struct session *session; /* a reference */
	uint64_t replica, request;
	uint8_t client[INPUT_CLIENT_BYTES];
	uint64_t seq; /* 0: not an input */
};

struct owner {
	struct peer *peers;
	unsigned count, capacity, watching;
	uint64_t epoch, pushed; /* what all of them were sent */
	uint16_t cols, rows;    /* and the size behind it */
	uint64_t pushed_us;
	struct loop_work work;
	struct session *session; /* borrowed: we are in it */
	struct owner_call *calls;
};

/* ---- what they are told ---- */

/* As much as there is: who encodes it cuts what is too long. */
static struct bus_text text_of(const char *text)
{
	size_t size = text == NULL ? 0 : strlen(text);
	return (struct bus_text){ text, (uint16_t)(size > UINT16_MAX ? UINT16_MAX : size) };
}

static void make_card(const struct session *s, struct bus_card *card)
{
	bool ended = session_is_ended(s);
	*card = (struct bus_card){
		.state = (uint8_t)s->state,
		.ready = s->feed.ready,
		.attached = s->feed.attached,
		.keeps = s->transport == NULL || s->transport->resends,
		.final = s->feed.final,
		.epoch = s->epoch,
		.oldest = journal_oldest(s->journal),
		.head = ended ? s->end : journal_head(s->journal),
		.replayed = s->feed.replayed,
		.cols = s->cols,
		.rows = s->rows,
		.reason = text_of(s->feed.reason),
		.error = text_of(s->feed.error),
		.ended_json = text_of(ended ? s->ended_json : NULL),
		.exit_json = text_of(ended ? s->exit_text : NULL),
		.failed_start = s->failed_start,
		.steps_count = s->steps_count,
	};
	static_assert(BUS_STEPS_MAX == SESSION_STEPS_MAX, "all of them");
	for (unsigned i = 0; i < s->steps_count; i++) {
		card->steps[i].name = text_of(s->steps[i].name);
		card->steps[i].ms = s->steps[i].ms;
	}
}

/* ---- output ---- */

/* From offset on, as much as one message holds; the output's end is returned. */
static uint64_t collect(const struct session *s, uint64_t offset, struct bus_output *out,
			struct bus_items *items)
{
	const struct journal *j = s->journal;
	uint64_t head = journal_head(j);
	if (offset < journal_oldest(j))
		offset = journal_oldest(j);
	if (offset > head)
		offset = head;
	*out = (struct bus_output){ .epoch = s->epoch, .start = offset, .head = head };
	journal_size_at(j, offset, &out->cols, &out->rows);
	uint64_t end = head - offset > BUS_PIECE_BYTES ? offset + BUS_PIECE_BYTES : head;
	uint64_t mark = journal_mark_from(j, offset + 1);
	int rc = 0;
	while (rc == 0) {
		const struct journal_mark *m = journal_mark(j, mark);
		uint64_t until = m != NULL && m->offset <= end ? m->offset : end;
		while (offset < until && rc == 0) {
			const uint8_t *data;
			size_t size = journal_peek(j, offset, &data);
			if (size > until - offset)
				size = (size_t)(until - offset);
			rc = bus_items_add_output(items, offset, data, size);
			offset += rc == 0 ? size : 0;
		}
		if (m == NULL || m->offset > end)
			break;
		if (rc == 0)
			rc = bus_items_add_size(items, m->offset, m->cols, m->rows);
		mark++;
	}
	out->items = items->data;
	out->items_size = items->size;
	return offset;
}

/* How far the fastest of those that watch is. */
static uint64_t furthest(const struct owner *o)
{
	uint64_t received = 0;
	for (unsigned i = 0; i < o->count; i++)
		if (o->peers[i].watches && o->peers[i].received > received)
			received = o->peers[i].received;
	return received;
}

/* Mirrors that lag behind pull; what is pushed stays small enough not to fill Redis' buffers. */
static void push(struct session *s)
{
	struct owner *o = s->owner;
	uint64_t head = journal_head(s->journal);
	if (!s->feed.ready || o->watching == 0)
		return;
	if (o->epoch != s->epoch || o->pushed > head) {
		o->epoch = s->epoch;
		o->pushed = journal_oldest(s->journal);
	}
	uint64_t window = furthest(o);
	window = (window > head ? head : window) + WINDOW_BYTES;
	uint16_t cols, rows;
	journal_size_at(s->journal, head, &cols, &rows);
	bool resized = o->pushed == head && (cols != o->cols || rows != o->rows);
	while (resized || (o->pushed < head && o->pushed < window)) {
		struct bus_frame f = { .head.type = BUS_OUTPUT };
		struct bus_items items = { 0 };
		uint64_t end = collect(s, o->pushed, &f.output, &items);
		int rc = session_bus_send(s, "out", &f);
		bus_items_fini(&items);
		if (rc < 0 || (end == o->pushed && !resized))
			break; /* they notice, and pull */
		resized = false;
		o->pushed = end;
		journal_size_at(s->journal, end, &o->cols, &o->rows);
	}
	o->pushed_us = loop_now_us();
}

void session_owner_tell(struct session *s)
{
	if (s->owner == NULL || s->mirror || s->owner->count == 0)
		return;
	push(s); /* so that the card's head is no hole */
	struct bus_frame f = { .head.type = BUS_BEAT };
	make_card(s, &f.card);
	session_bus_send(s, "out", &f);
}

static void welcome(struct session *s, uint64_t replica, uint64_t request)
{
	push(s);
	struct bus_frame f = { .head.type = BUS_WELCOME };
	make_card(s, &f.card);
	f.card.request = request;
	session_bus_reply(s, replica, &f);
}

static bool run_push(struct loop_work *work)
{
	struct owner *o = (struct owner *)((char *)work - offsetof(struct owner, work));
	push(o->session);
	return false;
}

static void on_push_timer(uv_timer_t *timer)
{
	struct session *s = timer->data;
	if (s->owner != NULL && !s->mirror)
		loop_work_add(s->loop, &s->owner->work);
}

void session_owner_changed(struct session *s)
{
	struct owner *o = s->owner;
	if (o == NULL || o->watching == 0 || s->mirror || o->work.queued ||
	    uv_is_active((uv_handle_t *)&s->push_timer))
		return;
	uint64_t now_us = loop_now_us();
	uint64_t due_us = o->pushed_us + PUSH_HOLD_US;
	if (now_us >= due_us)
		loop_work_add(s->loop, &o->work);
	else
		session_timer(s, &s->push_timer, on_push_timer, (due_us - now_us + 999) / 1000);
}

static void answer_pull(struct session *s, const struct bus_frame *f)
{
	const struct bus_pull *pull = &f->pull;
	struct bus_frame piece = { .head.type = BUS_PIECE };
	struct bus_items items = { 0 };
	bool same = pull->epoch == s->epoch;
	/* Of one that is ended, or is just being attached, the next card tells when it is complete. */
	if (s->feed.ready) {
		collect(s, same ? pull->offset : 0, &piece.output, &items);
		piece.output.request = pull->request;
		session_bus_reply(s, f->head.sender, &piece);
	}
	bus_items_fini(&items);
}

/* ---- who they are ---- */

static void count_watching(struct owner *o)
{
	o->watching = 0;
	for (unsigned i = 0; i < o->count; i++)
		o->watching += o->peers[i].watches;
}

static void remove_peer(struct owner *o, unsigned i)
{
	o->peers[i] = o->peers[--o->count];
	count_watching(o);
}

static struct peer *find_peer(struct owner *o, uint64_t replica)
{
	for (unsigned i = 0; i < o->count; i++)
		if (o->peers[i].replica == replica)
			return &o->peers[i];
	return NULL;
}

static struct peer *add_peer(struct owner *o, uint64_t replica)
{
	if (o->count == o->capacity) {
		unsigned capacity = o->capacity == 0 ? 4 : 2 * o->capacity;
		struct peer *peers = capacity > PEERS_MAX
					     ? NULL
					     : reallocarray(o->peers, capacity, sizeof(*peers));
		if (peers == NULL)
			return NULL;
		o->peers = peers;
		o->capacity = capacity;
	}
	struct peer *p = &o->peers[o->count++];
	*p = (struct peer){ .replica = replica };
	return p;
}

static void take_registration(struct session *s, const struct bus_frame *f)
{
	struct owner *o = s->owner;
	const struct bus_register *r = &f->reg;
	struct peer *p = find_peer(o, f->head.sender);
	if (p == NULL)
		p = add_peer(o, f->head.sender);
	if (p == NULL)
		return;
	bool here = r->epoch == s->epoch && r->received <= journal_head(s->journal);
	p->seen_us = loop_now_us();
	p->received = here ? r->received : 0;
	p->fastest = here ? r->fastest : 0;
	p->slowest = here ? r->slowest : UINT64_MAX;
	bool first = r->watches && o->watching == 0;
	p->watches = r->watches;
	count_watching(o);
	if (first) {
		o->epoch = s->epoch;
		o->pushed = journal_head(s->journal); /* what is before that they pull */
		journal_size_at(s->journal, o->pushed, &o->cols, &o->rows);
	}
	if (r->watches) {
		s->idle_us = loop_now_us();
		session_use(s);
	}
	if (r->request != 0)
		welcome(s, f->head.sender, r->request);
	session_viewers_moved(s);
	session_owner_changed(s);
}

bool session_watched_elsewhere(const struct session *s)
{
	return s->owner != NULL && !s->mirror && s->owner->watching > 0;
}

void session_owner_positions(const struct session *s, uint64_t *fastest, uint64_t *slowest)
{
	const struct owner *o = s->owner;
	for (unsigned i = 0; o != NULL && !s->mirror && i < o->count; i++) {
		const struct peer *p = &o->peers[i];
		if (!p->watches)
			continue;
		uint64_t fast = p->fastest == 0 ? p->received : p->fastest;
		uint64_t slow = p->slowest < p->received ? p->slowest : p->received;
		if (fast > *fastest)
			*fastest = fast;
		if (slow != 0 && slow < *slowest)
			*slowest = slow;
	}
}

void session_owner_second(struct session *s, uint64_t now_us)
{
	struct owner *o = s->owner;
	if (o == NULL || s->mirror)
		return;
	bool lost = false;
	for (unsigned i = o->count; i-- > 0;) {
		if (now_us > o->peers[i].seen_us + PEER_TTL_US) {
			remove_peer(o, i);
			lost = true;
		}
	}
	if (lost)
		session_viewers_moved(s);
	session_owner_tell(s);
	session_owner_changed(s); /* what could not be sent */
}

/* ---- what they ask for ---- */

static void on_call_done(void *arg, const struct reply *reply)
{
	struct owner_call *call = arg;
	struct session *s = call->session;
	struct owner_call **at = &s->owner->calls;
	while (*at != call)
		at = &(*at)->next;
	*at = call->next;
	struct bus_frame f = { .head.type = BUS_ANSWER };
	f.answer = (struct bus_answer){
		.request = call->request,
		.status = (uint16_t)reply->status,
		.retry_after_s = reply->retry_after_s,
		.expected = reply->expected,
		.slug = text_of(reply->slug),
		.detail = text_of(reply->slug == NULL ? NULL : reply->detail),
	};
	session_bus_reply(s, call->replica, &f);
	free(call);
	session_unref(s);
}

/* The same input again, since our answer may have been lost. */
static struct owner_call *find_input(const struct owner *o, uint64_t replica,
				     const struct bus_call *asked)
{
	for (struct owner_call *c = o->calls; c != NULL; c = c->next)
		if (c->seq != 0 && c->seq == asked->seq && c->replica == replica &&
		    memcmp(c->client, asked->client, INPUT_CLIENT_BYTES) == 0)
			return c;
	return NULL;
}

static void take_input(struct session *s, const struct bus_call *asked, struct owner_call *call)
{
	struct input in = {
		.seq = asked->seq, .size = asked->size, .done = on_call_done, .arg = call
	};
	memcpy(in.client, asked->client, sizeof(in.client));
	call->seq = asked->seq;
	memcpy(call->client, asked->client, sizeof(call->client));
	in.bytes = malloc(asked->size + 1);
	if (in.bytes == NULL) {
		struct reply busy = reply_problem(503, "busy", "no memory");
		on_call_done(call, &busy);
		return;
	}
	memcpy(in.bytes, asked->bytes, asked->size);
	session_input_add(s, &in);
}

static void take_call(struct session *s, const struct bus_frame *f)
{
	const struct bus_call *asked = &f->call;
	struct owner *o = s->owner;
	struct owner_call *call = NULL;
	if (asked->kind == BUS_CALL_INPUT)
		call = find_input(o, f->head.sender, asked);
	if (call != NULL) {
		call->request = asked->request;
		return;
	}
	call = calloc(1, sizeof(*call));
	if (call == NULL)
		return; /* it will be asked again, or is answered as late */
	call->session = session_ref(s);
	call->replica = f->head.sender;
	call->request = asked->request;
	call->next = o->calls;
	o->calls = call;
	switch (asked->kind) {
	case BUS_CALL_INPUT:
		take_input(s, asked, call);
		break;
	case BUS_CALL_RESIZE:
		session_resize_add(s, asked->cols, asked->rows, on_call_done, call);
		break;
	case BUS_CALL_SIGNAL:
		session_signal_add(s, asked->signal, on_call_done, call);
		break;
	case BUS_CALL_CLOSE:
	case BUS_CALL_FORGET:
	default:
		session_close_add(s, asked->kind == BUS_CALL_FORGET, on_call_done, call);
		break;
	}
}

bool session_owner_asked(const struct input *in)
{
	return in->done == on_call_done;
}

void session_owner_frame(struct session *s, const struct bus_frame *f)
{
	if (s->owner == NULL)
		return;
	bool same = f->head.birth == s->birth;
	if (f->head.number > s->fence && (same || f->head.type == BUS_CLAIM)) {
		session_superseded(s, &f->head);
		return;
	}
	if (!same) {
		/* It mirrors what had our id before: by our birth and number it sees that. */
		if (f->head.type == BUS_REGISTER || f->head.type == BUS_CALL)
			welcome(s, f->head.sender, 0);
		return;
	}
	switch (f->head.type) {
	case BUS_REGISTER:
		take_registration(s, f);
		break;
	case BUS_LEAVE: {
		struct peer *p = find_peer(s->owner, f->head.sender);
		if (p != NULL) {
			remove_peer(s->owner, (unsigned)(p - s->owner->peers));
			session_viewers_moved(s);
		}
		break;
	}
	case BUS_PULL:
		answer_pull(s, f);
		break;
	case BUS_CALL:
		take_call(s, f);
		break;
	default:
		break; /* of an owner before us */
	}
}

/* ---- its life ---- */

/* Tells who had it before, and those that mirror it, that it is ours. */
static void claim(struct session *s)
{
	struct bus_frame f = { .head.type = BUS_CLAIM };
	session_bus_send(s, "owner", &f);
	f = (struct bus_frame){ .head.type = BUS_BEAT };
	make_card(s, &f.card);
	session_bus_send(s, "out", &f);
}

void session_owner_line(struct session *s)
{
	claim(s);
}

void session_owner_start(struct session *s)
{
	if (!s->app->store_ops->shared)
		return;
	if (s->owner == NULL) {
		s->owner = calloc(1, sizeof(*s->owner));
		if (s->owner == NULL)
			abort();
		s->owner->session = s;
		s->owner->work.run = run_push;
	}
	session_bus_listen(s, "owner");
}

void session_owner_stop(struct session *s)
{
	if (s->owner == NULL)
		return;
	loop_work_remove(s->loop, &s->owner->work);
	uv_timer_stop(&s->push_timer);
	s->owner->count = s->owner->watching = 0;
}

void session_owner_gone(struct session *s)
{
	struct bus_frame f = { .head.type = BUS_GONE };
	if (s->owner != NULL && !s->mirror)
		session_bus_send(s, "out", &f);
}

void session_owner_free(struct session *s)
{
	if (s->owner == NULL)
		return;
	free(s->owner->peers);
	free(s->owner);
}
