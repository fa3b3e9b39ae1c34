/* session_arrival.c -- viewers that come to a replica with a place of their own, which this replica may not know
 * yet: the owner is asked, or it is made sure that we are the owner. Only then can it be said that there is nothing
 * at that place. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "service/app.h"
#include "service/journal.h"
#include "service/provisioner.h"
#include "service/session_private.h"
#include "store/store.h"

#define ARRIVAL_US 2500000 /* how long a viewer waits to be told where it is */

struct arrival {
	struct arrival *next;
	struct viewer_params params; /* extra is owned */
	uint64_t sync;               /* the answer that it waits for; 0: none */
	uint64_t until_us;
};

/* ---- what does the store say? ---- */

struct look_up {
	struct provisioner_job job;
	struct message answer;
	struct session *session; /* a reference */
	uint64_t number;
	int status;
	struct store_session record;
};

static void judge_mirror(struct session *s, const struct look_up *k)
{
	bool is_other = k->status == 0 && k->record.birth != s->birth;
	if (!session_mirror_is_lost(s))
		return;
	if (k->status == -ENOENT || is_other)
		session_not_here(s, "its record is gone");
	else if (k->status == 0 && k->record.owner == s->app->replica)
		session_take_back(s, &k->record);
}

static void judge_owner(struct session *s, const struct look_up *k)
{
	bool ours = k->status == 0 && k->record.birth == s->birth &&
		    k->record.owner == s->app->replica;
	if (ours) {
		s->confirmed = k->number;
		session_arrivals_admit(s);
	} else if (k->status == 0 && k->record.birth == s->birth && k->record.fence > s->fence) {
		session_step_down(s, "its record has another owner");
	}
}

static void on_looked_up(struct message *m, struct loop *l)
{
	struct look_up *k = (struct look_up *)((char *)m - offsetof(struct look_up, answer));
	struct session *s = k->session;
	(void)l;
	s->looking_up = false;
	if (!s->stopping && s->mirror)
		judge_mirror(s, k);
	else if (!s->stopping)
		judge_owner(s, k);
	store_session_fini(&k->record);
	session_unref(s);
	free(k);
}

static void run_look_up(struct provisioner_job *job, bool cancelled)
{
	struct look_up *k = (struct look_up *)job;
	const struct app *app = k->session->app;
	struct error err = { 0 };
	k->status = cancelled ? -ECANCELED
			      : app->store_ops->get_session(app->store, k->session->id, &k->record,
							    &err);
	loop_post_answer(k->session->loop, &k->answer);
}

void session_look_up(struct session *s)
{
	struct look_up *k = s->looking_up ? NULL : calloc(1, sizeof(*k));
	if (k == NULL)
		return;
	k->job.run = run_look_up;
	k->answer.run = on_looked_up;
	k->number = s->arrivals_count;
	k->session = session_ref(s);
	if (provisioner_submit(s->app->attendants, &k->job) == 0) {
		s->looking_up = true;
		return;
	}
	session_unref(s);
	free(k);
}

/* ---- viewers ---- */

static void release(struct session *s, struct arrival *w)
{
	session_release_viewer(s);
	w->params.ended(w->params.arg);
	free((void *)w->params.extra);
	free(w);
}

void session_arrivals_admit(struct session *s)
{
	uint64_t now_us = loop_now_us();
	for (struct arrival **at = &s->arrivals; *at != NULL;) {
		struct arrival *w = *at;
		bool told = w->sync == 0 ||
			    (s->mirror ? session_mirror_told(s, w->sync) : w->sync <= s->confirmed);
		if (!told && now_us < w->until_us) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		if (!told && !s->mirror) {
			release(s, w); /* it is not known who has the session: let it come again */
			continue;
		}
		if (!told)
			session_mirror_doubt(s); /* it holds until the owner can be asked */
		session_viewers_add(s, &w->params);
		free((void *)w->params.extra);
		free(w);
		at = &s->arrivals; /* it may have gone at once, and done anything */
	}
	if (s->sync_waiters != NULL)
		session_sync_wake(s, 0, now_us);
	if (s->arrivals != NULL && !s->mirror)
		session_look_up(s);
}

bool session_must_ask(const struct session *s, const struct viewer_params *p)
{
	if (!s->app->store_ops->shared)
		return false;
	if (s->mirror)
		return true;
	bool here = p->since_epoch == s->feed.epoch &&
		    p->since_offset <= journal_head(s->journal) + 1;
	return p->has_since && !here;
}

void session_arrive(struct session *s, const struct viewer_params *p, uint8_t *extra)
{
	session_use(s);
	if (s->mirror && !p->has_since && s->feed.ready) { /* it takes what there is */
		session_mirror_watch(s);
		session_viewers_add(s, p);
		free(extra);
		return;
	}
	struct arrival *w = calloc(1, sizeof(*w));
	if (w == NULL) {
		session_release_viewer(s);
		p->ended(p->arg);
		free(extra);
		return;
	}
	w->params = *p;
	w->params.extra = extra;
	w->until_us = loop_now_us() + ARRIVAL_US;
	w->next = s->arrivals;
	s->arrivals = w;
	s->arrivals_count++;
	w->sync = s->mirror ? session_mirror_watch(s) : s->arrivals_count;
	if (!s->mirror)
		session_look_up(s);
}

/* We have become the other one of the two: what they wait for is another answer. */
void session_arrivals_turn(struct session *s)
{
	for (struct arrival *w = s->arrivals; w != NULL; w = w->next)
		w->sync =
			s->mirror
				? 1
				: 0; /* its first answer; or none, as we have just been made the owner */
}

void session_arrivals_end(struct session *s)
{
	while (s->arrivals != NULL) {
		struct arrival *w = s->arrivals;
		s->arrivals = w->next;
		release(s, w);
	}
}
