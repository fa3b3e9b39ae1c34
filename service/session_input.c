/* session_input.c -- input on its way to the far end: sent as it comes, kept until the far end has it.
 * Every input goes down with a client and a number, so that after a lost tunnel it can be sent again and
 * is not typed twice; those that the client did not number get a client and numbers of ours. */
#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "service/app.h"
#include "service/config.h"
#include "service/metrics.h"
#include "service/session_private.h"
#include "store/store.h"

enum input_stage {
	INPUT_WAITING, /* not on a tunnel yet, or not any more */
	INPUT_SENT,    /* no verdict yet */
	INPUT_GAP,     /* the far end misses numbers before it: waits for them */
};

struct pending_input {
	struct pending_input *next;
	struct input in; /* bytes are owned */
	uint64_t request;
	uint64_t deadline_us; /* of the answer */
	uint64_t gap_us;      /* until when missing numbers may come; 0: none are missing */
	uint64_t expected;    /* by the far end, when a gap was found */
	enum input_stage stage;
	uint64_t sent_us;
	bool was_sent; /* it may have been typed */
	bool numbered; /* by the client */
};

struct pending_signal {
	struct pending_signal *next;
	uint64_t request, deadline_us;
	int number;
	bool waits; /* for a tunnel: the session was asleep */
	reply_fn *done;
	void *arg;
};

void session_client_key(const char *input_client, uint8_t ret[INPUT_CLIENT_BYTES])
{
	crypto_generichash(ret, INPUT_CLIENT_BYTES, (const unsigned char *)input_client,
			   strlen(input_client), NULL, 0);
}

/* Takes p out of the list; prev is what points to it. */
static void unlink_input(struct session *s, struct pending_input **prev)
{
	struct pending_input *p = *prev;
	*prev = p->next;
	if (s->inputs_end == &p->next)
		s->inputs_end = prev;
	s->inputs_count--;
	s->inputs_bytes -= p->in.size;
	metric_add(METRIC_INPUT_QUEUE_BYTES, -(int64_t)p->in.size);
}

static void answer(struct pending_input *p, const struct reply *reply)
{
	if (reply->slug == NULL)
		metric_add(METRIC_INPUT_BYTES, (int64_t)p->in.size);
	else
		metric_add(METRIC_INPUT_REFUSED, 1);
	sodium_memzero(p->in.bytes, p->in.size); /* it may be a password */
	free(p->in.bytes);
	p->in.done(p->in.arg, reply);
	free(p);
}

static struct reply refuse_ended(void)
{
	return reply_problem(409, "session-ended", "the session has ended");
}

static struct reply refuse_stopping(void)
{
	struct reply reply = reply_problem(503, "draining",
					   "the service is being stopped: nothing was typed");
	reply.retry_after_s = 1;
	return reply;
}

static struct reply refuse_unknown(void)
{
	struct reply reply = reply_problem(
		503, "delivery-unknown", "the far end did not confirm it: it may have been typed");
	reply.retry_after_s = 1;
	return reply;
}

static struct reply refuse_late(const struct pending_input *p)
{
	if (p->was_sent)
		return refuse_unknown();
	struct reply reply =
		reply_problem(503, "not-delivered",
			      "the far end could not be reached in time: nothing was typed");
	reply.retry_after_s = 1;
	return reply;
}

static struct reply refuse_gap(const struct pending_input *p)
{
	struct reply reply =
		reply_problem(409, "input-gap",
			      "inputs with lower numbers are missing: the next is \"expected\"");
	reply.expected = p->expected;
	return reply;
}

static struct reply refuse_full(void)
{
	struct reply reply =
		reply_problem(429, "input-full",
			      "the program does not read: the queue has no room for this input");
	reply.retry_after_s = 1;
	return reply;
}

static void on_input_timer(uv_timer_t *timer);

static void arm_timer(struct session *s)
{
	uint64_t first_us = UINT64_MAX;
	for (const struct pending_input *p = s->inputs; p != NULL; p = p->next) {
		uint64_t at_us = p->stage == INPUT_GAP ? p->gap_us : p->deadline_us;
		first_us = at_us < first_us ? at_us : first_us;
	}
	for (const struct pending_signal *p = s->signals; p != NULL; p = p->next)
		first_us = p->deadline_us < first_us ? p->deadline_us : first_us;
	if (first_us == UINT64_MAX) {
		uv_timer_stop(&s->input_timer);
		return;
	}
	uint64_t now_us = loop_now_us();
	session_timer(s, &s->input_timer, on_input_timer,
		      first_us <= now_us ? 1 : (first_us - now_us) / 1000 + 1);
}

static void on_input_timer(uv_timer_t *timer)
{
	struct session *s = timer->data;
	uint64_t now_us = loop_now_us();
	struct pending_input *late = NULL, **late_end = &late;
	for (struct pending_input **at = &s->inputs; *at != NULL;) {
		struct pending_input *p = *at;
		uint64_t until_us = p->stage == INPUT_GAP ? p->gap_us : p->deadline_us;
		if (until_us > now_us) {
			at = &p->next;
			continue;
		}
		unlink_input(s, at);
		p->next = NULL;
		*late_end = p;
		late_end = &p->next;
	}
	while (late != NULL) {
		struct pending_input *p = late;
		late = p->next;
		if (!p->numbered && p->was_sent)
			s->own_refused = true; /* it leaves a hole in our numbers */
		struct reply reply = p->stage == INPUT_GAP && p->numbered ? refuse_gap(p)
									  : refuse_late(p);
		answer(p, &reply);
	}
	for (struct pending_signal **at = &s->signals; *at != NULL;) {
		struct pending_signal *p = *at;
		if (p->deadline_us > now_us) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		struct reply reply =
			p->waits ? reply_problem(503, "not-delivered",
						 "the far end cannot be reached now")
				 : reply_problem(503, "delivery-unknown",
						 "the far end did not confirm the signal in time");
		reply.retry_after_s = 1;
		p->done(p->arg, &reply);
		free(p);
	}
	arm_timer(s);
}

/* Goes on under another name, from 1. */
static void renumber(struct session *s)
{
	randombytes_buf(s->own_client, sizeof(s->own_client));
	s->own_seq = 0;
	s->own_refused = false;
}

/* Sends one; false when the tunnel takes no more now. */
static bool send_one(struct session *s, struct pending_input *p)
{
	if (!p->numbered && !p->was_sent) {
		memcpy(p->in.client, s->own_client, INPUT_CLIENT_BYTES);
		p->in.seq = ++s->own_seq;
	}
	p->request = ++s->next_request;
	p->stage = INPUT_SENT;
	p->sent_us = loop_now_us();
	bool was_sent = p->was_sent;
	p->was_sent = true; /* before: the verdict may come within the call */
	int rc = s->transport->input(s->tunnel, p->request, p->in.client, p->in.seq, p->in.bytes,
				     p->in.size);
	if (rc == 0)
		return true; /* p may be answered and gone already */
	if (!p->numbered && !was_sent)
		s->own_seq--;
	p->was_sent = was_sent;
	p->stage = INPUT_WAITING;
	return false;
}

static bool any_own_sent(const struct session *s)
{
	for (const struct pending_input *p = s->inputs; p != NULL; p = p->next)
		if (!p->numbered && p->stage == INPUT_SENT)
			return true;
	return false;
}

static void send_signals(struct session *s)
{
	for (struct pending_signal *p = s->signals; p != NULL; p = p->next)
		if (p->waits) {
			p->waits = false;
			s->transport->signal(s->tunnel, p->request, p->number);
		}
}

/* A far end that cannot tell an owner from the one before it gets nothing once we may not be the owner any
 * more: others take what gave no sign of life for a TTL. */
static bool may_type(const struct session *s)
{
	const struct app *app = s->app;
	if (!app->store_ops->shared || s->mirror || s->transport == NULL || s->transport->keeps)
		return true;
	return loop_now_us() <
	       app->bus_ops->alive_us(app->bus) + app->config->replica_ttl_ms * UINT64_C(500);
}

void session_lease_check(struct session *s)
{
	if (s->inputs != NULL && s->attached && !s->transport->keeps)
		session_input_send(s);
}

void session_input_send(struct session *s)
{
	if (!may_type(s)) {
		arm_timer(s);
		return;
	}
	if (s->attached && !s->tunnel_over)
		send_signals(s);
	s->send_again = true;
	if (s->in_send)
		return; /* a verdict came while one was being sent: another walk follows */
	s->in_send = true;
	while (s->send_again && s->attached && !s->tunnel_over) {
		s->send_again = false;
		bool hold_own = false;
		if (s->own_refused) {
			/* One of ours was refused, so those behind it on the way will be too: they all go
			 * again, in their order, under a new name, once every verdict is there. */
			hold_own = any_own_sent(s);
			if (!hold_own)
				renumber(s);
		}
		struct pending_input *next;
		for (struct pending_input *p = s->inputs; p != NULL; p = next) {
			next = p->next;
			if (p->stage != INPUT_WAITING || (hold_own && !p->numbered))
				continue;
			if (!send_one(s, p) || s->tunnel_over || !s->attached)
				break;
		}
	}
	s->in_send = false;
	arm_timer(s);
}

/* Typed or not is not known of this input, and will not be: a repeat gets the same answer. */
static bool is_unknown(const struct session *s, const struct input *in)
{
	for (size_t i = 0; in->seq != 0 && i < SESSION_UNKNOWN_INPUTS; i++)
		if (s->unknown_inputs[i].seq == in->seq &&
		    memcmp(s->unknown_inputs[i].client, in->client, INPUT_CLIENT_BYTES) == 0)
			return true;
	return false;
}

static void note_unknown(struct session *s, const struct input *in)
{
	if (in->seq == 0)
		return;
	size_t i = s->unknown_count++ % SESSION_UNKNOWN_INPUTS;
	memcpy(s->unknown_inputs[i].client, in->client, INPUT_CLIENT_BYTES);
	s->unknown_inputs[i].seq = in->seq;
}

void session_input_add(struct session *s, const struct input *in)
{
	const struct config *cfg = s->app->config;
	struct reply reply = { 0 };
	struct pending_input *p = NULL;
	if (session_is_ended(s)) {
		reply = refuse_ended();
	} else if (s->stopping) {
		reply = refuse_stopping();
	} else if (is_unknown(s, in)) {
		reply = refuse_unknown();
	} else if (s->inputs_count >= SESSION_INPUTS_MAX ||
		   s->inputs_bytes + in->size > cfg->input_queue_bytes) {
		reply = refuse_full();
	} else if (metric_get(METRIC_INPUT_QUEUE_BYTES) + (int64_t)in->size >
		   (int64_t)cfg->bodies_total_bytes) {
		reply = reply_problem(503, "busy",
				      "too much input of all sessions waits: try again");
		reply.retry_after_s = 1;
	} else {
		p = calloc(1, sizeof(*p));
		if (p == NULL)
			reply = reply_problem(503, "busy", "no memory");
	}
	if (p == NULL) {
		metric_add(METRIC_INPUT_REFUSED, 1);
		sodium_memzero(in->bytes, in->size);
		free(in->bytes);
		in->done(in->arg, &reply);
		return;
	}
	p->in = *in;
	p->numbered = in->seq != 0;
	p->deadline_us = loop_now_us() + cfg->input_timeout_ms * UINT64_C(1000);
	*s->inputs_end = p;
	s->inputs_end = &p->next;
	s->inputs_count++;
	s->inputs_bytes += in->size;
	metric_add(METRIC_INPUT_QUEUE_BYTES, (int64_t)in->size);
	s->idle_us = loop_now_us();
	session_use(s);
	session_input_send(s);
}

/* What was typed may be what others of that client wait for. */
static void wake_gaps(struct session *s, const uint8_t client[INPUT_CLIENT_BYTES], uint64_t typed)
{
	for (struct pending_input *p = s->inputs; p != NULL; p = p->next)
		if (p->stage == INPUT_GAP && p->in.seq <= typed + 1 &&
		    memcmp(p->in.client, client, INPUT_CLIENT_BYTES) == 0)
			p->stage = INPUT_WAITING;
}

void session_input_done(struct session *s, uint64_t request, enum pty2_verdict verdict,
			uint64_t expected)
{
	struct pending_input **at = &s->inputs;
	while (*at != NULL && ((*at)->request != request || (*at)->stage != INPUT_SENT))
		at = &(*at)->next;
	struct pending_input *p = *at;
	if (p == NULL)
		return; /* answered already: it was late */
	struct reply reply;
	switch (verdict) {
	case PTY2_GAP:
		p->was_sent = false; /* surely not typed */
		if (!p->numbered) {  /* one of ours before it was refused */
			p->stage = INPUT_WAITING;
			s->own_refused = true;
			session_input_send(s);
			return;
		}
		p->expected = expected;
		p->stage = INPUT_GAP;
		if (p->gap_us == 0)
			p->gap_us = loop_now_us() + s->app->config->input_gap_ms * UINT64_C(1000);
		arm_timer(s);
		return;
	case PTY2_QUEUED:
	case PTY2_REPEATED:
		if (verdict == PTY2_REPEATED)
			metric_add(METRIC_INPUT_REPEATS, 1);
		reply = reply_ok(204);
		wake_gaps(s, p->in.client, p->in.seq);
		break;
	case PTY2_FULL:
		reply = refuse_full();
		if (!p->numbered) /* its number was not used up: those behind it will be gaps */
			s->own_refused = true;
		break;
	case PTY2_ENDED:
	default:
		reply = refuse_ended();
		break;
	}
	unlink_input(s, at);
	answer(p, &reply);
	session_input_send(s);
}

/* The owner's answer to a signal. */
static void signal_answered(struct session *s, uint64_t request, const struct reply *reply)
{
	struct pending_signal **at = &s->signals;
	while (*at != NULL && (*at)->request != request)
		at = &(*at)->next;
	struct pending_signal *p = *at;
	if (p == NULL)
		return;
	*at = p->next;
	p->done(p->arg, reply);
	free(p);
}

static bool is_slug(const struct reply *reply, const char *slug)
{
	return reply->slug != NULL && strcmp(reply->slug, slug) == 0;
}

void session_input_answer(struct session *s, uint64_t request, const struct reply *reply)
{
	struct pending_input **at = &s->inputs;
	while (*at != NULL && ((*at)->request != request || (*at)->stage != INPUT_SENT))
		at = &(*at)->next;
	struct pending_input *p = *at;
	if (p == NULL) {
		signal_answered(s, request, reply);
		return;
	}
	bool gap = is_slug(reply, "input-gap") && !p->numbered;
	bool again = is_slug(reply, "draining") || is_slug(reply, "not-delivered") ||
		     is_slug(reply, "delivery-unknown");
	if (gap || (again && s->transport->resends)) {
		/* The owner goes, or the tunnel is being made anew: the next one drops a repeat. */
		p->stage = INPUT_WAITING;
		if (gap) {
			p->was_sent = false;
			s->own_refused = true;
			session_input_send(s);
		}
		return;
	}
	if (!p->numbered && reply->slug != NULL)
		s->own_refused = true;
	if (is_slug(reply, "delivery-unknown"))
		note_unknown(s, &p->in);
	unlink_input(s, at);
	struct reply copy = *reply;
	if (reply->slug == NULL)
		wake_gaps(s, p->in.client, p->in.seq);
	answer(p, &copy);
	session_input_send(s);
}

void session_input_again(struct session *s, uint64_t now_us, uint64_t after_us)
{
	for (struct pending_input *p = s->inputs; p != NULL; p = p->next)
		if (p->stage == INPUT_SENT && now_us > p->sent_us + after_us)
			p->stage = INPUT_WAITING;
	if (s->attached)
		session_input_send(s);
}

void session_input_give_back(struct session *s)
{
	struct reply reply = refuse_stopping();
	for (struct pending_input **at = &s->inputs; *at != NULL;) {
		struct pending_input *p = *at;
		if (!session_owner_asked(&p->in)) {
			at = &p->next;
			continue;
		}
		unlink_input(s, at);
		answer(p, &reply);
		at = &s->inputs;
	}
}

void session_input_lost(struct session *s)
{
	bool again = s->transport != NULL && s->transport->resends;
	struct pending_input *unknown = NULL, **unknown_end = &unknown;
	for (struct pending_input **at = &s->inputs; *at != NULL;) {
		struct pending_input *p = *at;
		if (p->stage == INPUT_SENT && !again) {
			unlink_input(s, at);
			p->next = NULL;
			*unknown_end = p;
			unknown_end = &p->next;
			continue;
		}
		p->stage = INPUT_WAITING;
		at = &p->next;
	}
	while (unknown != NULL) {
		struct pending_input *p = unknown;
		unknown = p->next;
		note_unknown(s, &p->in);
		struct reply reply = refuse_unknown();
		answer(p, &reply);
	}
}

void session_input_end(struct session *s)
{
	while (s->inputs != NULL) {
		struct pending_input *p = s->inputs;
		unlink_input(s, &s->inputs);
		struct reply reply = session_is_ended(s) ? refuse_ended() : refuse_late(p);
		answer(p, &reply);
	}
	while (s->signals != NULL) {
		struct pending_signal *p = s->signals;
		s->signals = p->next;
		struct reply reply = refuse_ended();
		p->done(p->arg, &reply);
		free(p);
	}
	uv_timer_stop(&s->input_timer);
}

void session_signal_add(struct session *s, int number, reply_fn *done, void *arg)
{
	struct reply reply;
	struct pending_signal *p;
	bool by_provider = s->transport != NULL && !s->transport->signals && s->provider != NULL &&
			   s->provider->signal != NULL && s->transport->readdressed;
	bool wakes = s->asleep; /* then it is as good as attached */
	session_use(s);
	if (session_is_ended(s)) {
		reply = refuse_ended();
	} else if (s->stopping) {
		reply = refuse_stopping();
	} else if (s->transport != NULL && !s->transport->signals && !by_provider) {
		reply = reply_problem(501, "not-supported",
				      "the far end of this session takes no signals");
	} else if (!s->attached && !wakes) {
		reply = reply_problem(503, "not-delivered", "the far end cannot be reached now");
		reply.retry_after_s = 1;
	} else if ((p = calloc(1, sizeof(*p))) == NULL) {
		reply = reply_problem(503, "busy", "no memory");
	} else {
		p->request = ++s->next_request;
		p->deadline_us = loop_now_us() + s->app->config->input_timeout_ms * UINT64_C(1000);
		p->done = done;
		p->arg = arg;
		p->next = s->signals;
		s->signals = p;
		s->idle_us = loop_now_us();
		assert(s->transport != NULL);
		p->number = number;
		p->waits = !by_provider && !s->attached;
		if (by_provider) /* else its deadline answers */
			session_ask_signal(s, p->request, number);
		else if (!p->waits)
			s->transport->signal(s->tunnel, p->request, number);
		arm_timer(s);
		return;
	}
	done(arg, &reply);
}

void session_signal_done(struct session *s, uint64_t request, int error)
{
	struct pending_signal **at = &s->signals;
	while (*at != NULL && (*at)->request != request)
		at = &(*at)->next;
	struct pending_signal *p = *at;
	if (p == NULL)
		return;
	*at = p->next;
	struct reply reply = reply_ok(204);
	if (error == ESRCH)
		reply = reply_problem(409, "session-ended",
				      "there is no foreground process any more");
	else if (error == EINVAL || error == ENOTSUP)
		reply = reply_problem(501, "not-supported", "the signal was refused: %s",
				      strerror(error));
	else if (error != 0)
		reply = reply_problem(503, "delivery-unknown",
				      "the provider did not confirm the signal");
	p->done(p->arg, &reply);
	free(p);
}
