/* session_forward.c -- what a mirror asks of the owner until it is answered, and those that wait for an answer
 * of others: the owner's to what a mirror wants to know, the store's to a record that is to be written. */
#include <stdlib.h>

#include "service/app.h"
#include "service/config.h"
#include "service/session_private.h"

#define AGAIN_US 1500000 /* without an answer: the call, or the answer, was lost */

struct sync_waiter {
	struct sync_waiter *next;
	uint64_t sync, until_us;
	bool told; /* waits until the journal here is where the owner's was */
	struct reply reply;
	reply_fn *done;
	void *arg;
};

/* Asked of the owner until it answers: what may be done twice. */
struct forward {
	struct forward *next;
	struct bus_call call;
	uint64_t deadline_us, sent_us;
	reply_fn *done; /* or NULL */
	void *arg;
};

/* ---- waiting ---- */

void session_sync_wake(struct session *s, uint64_t synced, uint64_t now_us)
{
	for (struct sync_waiter **at = &s->sync_waiters; *at != NULL;) {
		struct sync_waiter *w = *at;
		bool due = w->told ? !s->mirror || session_mirror_told(s, w->sync)
				   : w->sync <= synced;
		if (!due && now_us < w->until_us) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		w->done(w->arg, &w->reply);
		free(w);
	}
}

void session_sync_answer(struct session *s, const struct reply *reply)
{
	for (struct sync_waiter **at = &s->sync_waiters; *at != NULL;) {
		struct sync_waiter *w = *at;
		if (w->sync != UINT64_MAX) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		w->done(w->arg, reply);
		free(w);
	}
}

void session_sync_wait(struct session *s, uint64_t sync, bool told, unsigned timeout_ms,
		       struct reply reply, reply_fn *done, void *arg)
{
	struct sync_waiter *w = calloc(1, sizeof(*w));
	if (w == NULL) {
		done(arg, &reply);
		return;
	}
	w->sync = sync;
	w->told = told;
	w->until_us = loop_now_us() + timeout_ms * UINT64_C(1000);
	w->reply = reply;
	w->done = done;
	w->arg = arg;
	w->next = s->sync_waiters;
	s->sync_waiters = w;
}

/* ---- asking ---- */

int session_call_owner(struct session *s, const struct bus_call *call)
{
	struct bus_frame f = { .head.type = BUS_CALL, .call = *call };
	return session_bus_send(s, "owner", &f);
}

static void finish_forward(struct forward **at, const struct reply *reply)
{
	struct forward *fw = *at;
	*at = fw->next;
	if (fw->done != NULL)
		fw->done(fw->arg, reply);
	free(fw);
}

void session_forward(struct session *s, const struct bus_call *call, reply_fn *done, void *arg)
{
	struct forward *fw = s->stopping ? NULL : calloc(1, sizeof(*fw));
	if (fw == NULL) {
		struct reply reply = reply_problem(503, "not-delivered",
						   "the session is not here any more: try again");
		reply.retry_after_s = 1;
		if (done != NULL)
			done(arg, &reply);
		return;
	}
	uint64_t now_us = loop_now_us();
	struct forward **end = &s->forwards;
	while (*end != NULL) {
		/* Only the newest size matters, and it must not be overtaken by an older one. */
		if (call->kind == BUS_CALL_RESIZE && (*end)->call.kind == BUS_CALL_RESIZE)
			finish_forward(end, &(struct reply){ .status = 204 });
		else
			end = &(*end)->next;
	}
	fw->call = *call;
	fw->call.request = ++s->next_request;
	fw->deadline_us = now_us + s->app->config->input_timeout_ms * UINT64_C(1000);
	fw->done = done;
	fw->arg = arg;
	*end = fw;
	session_use(s);
	if (s->attached && session_call_owner(s, &fw->call) == 0)
		fw->sent_us = now_us;
}

void session_forwards_send(struct session *s, uint64_t now_us)
{
	for (struct forward **at = &s->forwards; *at != NULL;) {
		struct forward *fw = *at;
		if (now_us >= fw->deadline_us) {
			struct reply late = reply_problem(
				503, fw->sent_us != 0 ? "delivery-unknown" : "not-delivered",
				"the replica that has this session did not answer in time");
			late.retry_after_s = 1;
			finish_forward(at, &late);
			continue;
		}
		if (s->attached && now_us >= fw->sent_us + AGAIN_US &&
		    session_call_owner(s, &fw->call) == 0)
			fw->sent_us = now_us;
		at = &fw->next;
	}
}

bool session_forward_answer(struct session *s, uint64_t request, const struct reply *reply)
{
	for (struct forward **at = &s->forwards; *at != NULL; at = &(*at)->next) {
		if ((*at)->call.request == request) {
			finish_forward(at, reply);
			return true;
		}
	}
	return false;
}

void session_forwards_here(struct session *s)
{
	struct forward *fw;
	while ((fw = s->forwards) != NULL) {
		s->forwards = fw->next;
		struct bus_call call = fw->call;
		reply_fn *done = fw->done;
		void *arg = fw->arg;
		free(fw);
		if (call.kind == BUS_CALL_RESIZE)
			session_resize_add(s, call.cols, call.rows, done, arg);
		else
			session_close_add(s, call.kind == BUS_CALL_FORGET, done, arg);
	}
}

void session_forwards_end(struct session *s)
{
	struct reply reply = reply_problem(503, "not-delivered",
					   "the session is not here any more");
	reply.retry_after_s = 1;
	while (s->forwards != NULL)
		finish_forward(&s->forwards, &reply);
	session_sync_wake(s, UINT64_MAX, UINT64_MAX);
}
