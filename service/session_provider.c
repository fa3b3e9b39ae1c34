/* session_provider.c -- what a session asks of its provider, on threads that may block: a place for its shell,
 * a way back to it, to keep the sandbox awake, and what its socket cannot say itself. One ask of a kind is
 * under way at a time; its answer comes back to the session's loop. */
#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "service/app.h"
#include "service/config.h"
#include "service/log.h"
#include "service/metrics.h"
#include "service/provisioner.h"
#include "service/sandbox.h"
#include "service/session_private.h"
#include "store/seal.h"

#define CALL_MS 30000 /* of an ask that nobody waits for */
#define RESIZE_TRIES 5
#define CLOSE_CALL_MS 5000
#define OPEN_ANEW_MAX 3      /* an agent may end just when it was found */
#define REOPEN_FIRST_MS 1000 /* between two looks for a way back */
#define REOPEN_LAST_MS 30000

enum ask_kind {
	ASK_OPEN,
	ASK_REOPEN,
	ASK_KEEP_ALIVE,
	ASK_RESIZE, /* this and the rest may do without the sandbox's record */
	ASK_SIGNAL,
	ASK_CLOSE,
};

struct ask {
	struct provisioner_job job;
	struct message answer;
	enum ask_kind kind;
	struct session *session; /* a reference */
	bool refresh;            /* OPEN */
	bool awake;              /* KEEP_ALIVE */
	uint16_t cols, rows;
	int number;       /* SIGNAL */
	uint64_t request; /* SIGNAL */
	uint64_t deadline_us;
	struct endpoint endpoint; /* a copy: where the session's shell is */

	/* The answer. */
	int status;
	struct error error;
	struct endpoint found; /* OPEN, REOPEN */
	char *sealed;          /* of found */
};

static void ask_free(struct ask *a)
{
	endpoint_fini(&a->endpoint);
	endpoint_fini(&a->found);
	free(a->sealed);
	session_unref(a->session);
	free(a);
}

/* ---- on the provisioner's threads ---- */

struct step_note {
	struct message message;
	struct session *session; /* a reference */
	const char *name;
	int64_t wall_ms;
};

static void on_step_note(struct message *m, struct loop *l)
{
	struct step_note *n = (struct step_note *)m;
	(void)l;
	if (n->session->state == SESSION_PROVISIONING || n->session->state == SESSION_CONNECTING)
		session_step(n->session, n->name, n->wall_ms);
	session_unref(n->session);
	free(n);
}

static void tell_step(void *arg, const char *name)
{
	struct ask *a = arg;
	struct step_note *n = a->kind == ASK_OPEN ? calloc(1, sizeof(*n)) : NULL;
	if (n == NULL)
		return;
	n->message.run = on_step_note;
	n->session = session_ref(a->session);
	n->name = name;
	n->wall_ms = loop_wall_ms();
	loop_post_answer(a->session->loop, &n->message);
}

static const char *const *list_or_null(char **list)
{
	return list == NULL || list[0] == NULL ? NULL : (const char *const *)list;
}

static int make_call(struct ask *a, const struct provider_call *call)
{
	const struct session *s = a->session;
	const struct provider_ops *p = s->provider;
	switch (a->kind) {
	case ASK_OPEN: {
		struct pty_request request = {
			.shell = s->shell,
			.command = list_or_null(s->command),
			.env = list_or_null(s->env),
			.cwd = s->cwd,
			.cols = a->cols,
			.rows = a->rows,
			.refresh = a->refresh,
		};
		return p->open_pty(call, &request, &a->found, &a->error);
	}
	case ASK_REOPEN:
		return p->reopen(call, &a->endpoint, &a->found, &a->error);
	case ASK_KEEP_ALIVE:
		return p->keep_alive(call, &a->endpoint, a->awake, &a->error);
	case ASK_RESIZE:
		return p->resize(call, &a->endpoint, a->cols, a->rows, &a->error);
	case ASK_SIGNAL:
		return p->signal(call, &a->endpoint, a->number, &a->error);
	case ASK_CLOSE:
		return p->close(call, &a->endpoint, &a->error);
	}
	return -EINVAL;
}

/* As the store is to have it. */
static int seal_found(struct ask *a)
{
	char *json = endpoint_to_json(&a->found);
	if (json != NULL) {
		a->sealed = seal(a->session->app->seal_keys, json, strlen(json));
		sodium_memzero(json, strlen(json));
		free(json);
	}
	return a->sealed != NULL ? 0 : error_set(&a->error, -ENOMEM, "no memory");
}

static void run_ask(struct provisioner_job *job, bool stopped)
{
	struct ask *a = (struct ask *)job;
	struct session *s = a->session;
	struct sandbox_target target = { 0 };
	if (a->kind == ASK_CLOSE) /* however long it waited */
		a->deadline_us = loop_now_us() + CLOSE_CALL_MS * UINT64_C(1000);
	struct provider_call call = {
		.cfg = s->app->providers,
		.deadline_us = a->deadline_us,
		.cancelled = a->kind == ASK_CLOSE ? NULL : &s->cancelled,
		.step = tell_step,
		.arg = a,
	};
	if (stopped)
		a->status = error_set(&a->error, -ECANCELED, "the service was stopped");
	else
		a->status = provider_call_check(&call, &a->error);
	if (a->status == 0 && s->provider->needs_target) {
		a->status = sandbox_target_of(s->app, s->stored ? s->sandbox : NULL, s->subject,
					      s->provider_name, s->target_sealed, &target,
					      &a->error);
		if (a->status == 0)
			a->status = session_override_target(s, &target);
		call.target = &target;
		/* What needs no credential goes on without the record. */
		if (a->status == -ENOENT && a->kind >= ASK_RESIZE) {
			a->status = 0;
			call.target = NULL;
		}
	}
	if (a->status == 0)
		a->status = make_call(a, &call);
	if (a->status == 0 && (a->kind == ASK_OPEN || a->kind == ASK_REOPEN))
		a->status = seal_found(a);
	sandbox_target_fini(&target);
	loop_post_answer(s->loop, &a->answer);
}

/* ---- asking: the session's loop, but for session_submit() ---- */

static uint64_t key_of(const char *a, const char *b, const char *c)
{
	const char *parts[] = { a, b, c };
	crypto_generichash_state state;
	uint64_t key;
	crypto_generichash_init(&state, NULL, 0, crypto_generichash_BYTES_MIN);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		crypto_generichash_update(&state, (const unsigned char *)parts[i],
					  strlen(parts[i]) + 1);
	unsigned char hash[crypto_generichash_BYTES_MIN];
	crypto_generichash_final(&state, hash, sizeof(hash));
	memcpy(&key, hash, sizeof(key));
	return key | 1;
}

/* Sandboxes are told apart by what names them; whose they are counts, too. */
static uint64_t sandbox_key(const struct session *s)
{
	return s->provider->needs_target ? key_of(s->provider_name, s->subject, s->sandbox) : 0;
}

static void on_answer(struct message *m, struct loop *l);

static struct ask *new_ask(struct session *s, enum ask_kind kind, uint64_t timeout_ms)
{
	struct ask *a = calloc(1, sizeof(*a));
	if (a == NULL)
		return NULL;
	a->job.run = run_ask;
	a->answer.run = on_answer;
	a->kind = kind;
	a->session = session_ref(s);
	a->cols = s->cols;
	a->rows = s->rows;
	a->deadline_us = loop_now_us() + timeout_ms * 1000;
	if (s->endpoint.url != NULL && endpoint_copy(&s->endpoint, &a->endpoint) < 0) {
		ask_free(a);
		return NULL;
	}
	return a;
}

/* Openings in one sandbox come one after another, the second finds what the first one learnt. Signals keep their
 * order. The rest waits for nobody. */
static int send_ask(struct session *s, struct ask *a)
{
	if (a->kind == ASK_OPEN)
		a->job.key = sandbox_key(s);
	else if (a->kind == ASK_SIGNAL)
		a->job.key = (uint64_t)(uintptr_t)s;
	a->job.owner = key_of(s->subject, "", "");
	bool waits = a->kind == ASK_OPEN && s->provider->needs_target;
	int rc = provisioner_submit(waits ? s->app->provisioner : s->app->attendants, &a->job);
	if (rc < 0)
		ask_free(a);
	return rc;
}

/* Thread: any, and then the loop for a second opening. */
static int ask_open(struct session *s, bool refresh)
{
	const struct config *cfg = s->app->config;
	bool remote = s->provider->needs_target;
	struct ask *a = new_ask(s, ASK_OPEN,
				remote ? cfg->provision_timeout_ms : cfg->open_timeout_ms);
	if (a == NULL)
		return -ENOMEM;
	a->refresh = refresh;
	return send_ask(s, a);
}

int session_override_target(const struct session *s, struct sandbox_target *target)
{
	if (s->want_transport != NULL) {
		free(target->transport);
		target->transport = strdup(s->want_transport);
	}
	if (s->want_agent != NULL) {
		free(target->agent);
		target->agent = strdup(s->want_agent);
	}
	return target->transport == NULL || target->agent == NULL ? -ENOMEM : 0;
}

int session_submit(struct session *s)
{
	return ask_open(s, false);
}

bool session_reopens(const struct session *s)
{
	return s->provider != NULL && s->provider->reopen != NULL;
}

bool session_open_anew(struct session *s)
{
	if (!session_reopens(s) || s->opened_anew >= OPEN_ANEW_MAX)
		return false;
	s->opened_anew++;
	if (!s->transport->keeps) /* the shell was made with its place, and there will be another */
		session_ask_close(s);
	return ask_open(s, true) == 0;
}

void session_reopen(struct session *s)
{
	uint64_t now_us = loop_now_us();
	if (!session_reopens(s) || s->reopening || now_us < s->reopen_at_us)
		return;
	struct ask *a = new_ask(s, ASK_REOPEN, CALL_MS);
	if (a != NULL && send_ask(s, a) == 0)
		s->reopening = true;
	if (s->reopen_wait_ms < REOPEN_FIRST_MS)
		s->reopen_wait_ms = REOPEN_FIRST_MS;
	s->reopen_at_us = now_us + s->reopen_wait_ms * 1000;
	if (s->reopen_wait_ms < REOPEN_LAST_MS)
		s->reopen_wait_ms *= 2;
}

/* Once a second: a session that is used keeps its sandbox awake; of one that sleeps it is only seen whether
 * its sandbox is still there. */
void session_keep_alive(struct session *s, uint64_t now_us)
{
	const struct config *cfg = s->app->config;
	if (s->provider == NULL || s->provider->keep_alive == NULL || s->state != SESSION_OPEN ||
	    s->closing || now_us < s->keep_alive_at_us)
		return;
	if (s->keep_alive_at_us == 0) { /* it has just been opened, so the sandbox is awake */
		s->keep_alive_at_us = now_us + cfg->keep_alive_s * UINT64_C(1000000);
		return;
	}
	s->keep_alive_at_us = now_us + cfg->keep_alive_s * UINT64_C(1000000);
	if (s->keeping_alive || (!s->asleep && !s->attached))
		return;
	struct ask *a = new_ask(s, ASK_KEEP_ALIVE, CALL_MS);
	if (a == NULL)
		return;
	a->awake = !s->asleep && session_is_used(s, now_us);
	if (send_ask(s, a) == 0)
		s->keeping_alive = true;
}

bool session_ask_resize(struct session *s)
{
	if (s->provider == NULL || s->provider->resize == NULL)
		return false;
	if (s->resizing)
		return true; /* the newest size goes when that is answered */
	struct ask *a = new_ask(s, ASK_RESIZE, CALL_MS);
	if (a == NULL)
		return false;
	a->cols = s->want_cols;
	a->rows = s->want_rows;
	if (send_ask(s, a) < 0)
		return false;
	s->resizing = true;
	s->want_cols = s->want_rows = 0;
	return true;
}

bool session_ask_signal(struct session *s, uint64_t request, int number)
{
	struct ask *a = new_ask(s, ASK_SIGNAL, s->app->config->input_timeout_ms);
	if (a == NULL)
		return false;
	a->number = number;
	a->request = request;
	return send_ask(s, a) == 0;
}

static void close_at(struct session *s, const struct endpoint *e)
{
	if (s->provider == NULL || s->provider->close == NULL)
		return;
	struct ask *a = new_ask(s, ASK_CLOSE, CLOSE_CALL_MS);
	if (a == NULL)
		return;
	endpoint_fini(&a->endpoint);
	if (endpoint_copy(e, &a->endpoint) < 0)
		ask_free(a);
	else if (send_ask(s, a) < 0)
		log_warn("shell left behind", "session=%s text=\"%s\"", s->id,
			 "too much is asked of providers");
}

void session_ask_close(struct session *s)
{
	if (s->endpoint.url != NULL)
		close_at(s, &s->endpoint);
}

/* ---- answers ---- */

static void fail_start(struct session *s, const struct error *err)
{
	s->end_error = err->slug != NULL ? err->slug : "start-failed";
	session_end(s, "failed", err->text, PTY2_EXIT_UNKNOWN, 0);
}

static void use_endpoint(struct session *s, struct ask *a)
{
	endpoint_fini(&s->endpoint);
	free(s->endpoint_sealed);
	s->endpoint = a->found;
	s->endpoint_sealed = a->sealed;
	a->found = (struct endpoint){ 0 };
	a->sealed = NULL;
	s->has_address = true;
	session_save(s);
}

/* Whoever takes the session over from here on finds the shell: so it is stored before there is one. */
static void on_endpoint_stored(void *arg, const struct reply *reply)
{
	struct session *s = arg;
	(void)reply; /* when the store is away it goes on without */
	if (!session_is_ended(s) && !s->stopping && !s->mirror &&
	    (s->state == SESSION_PROVISIONING || s->state == SESSION_CONNECTING)) {
		s->lost_us = loop_now_us();
		s->attempts = 0;
		session_enter(s, SESSION_CONNECTING, NULL);
		session_step(s, "connect", loop_wall_ms());
		session_connect(s);
	}
	session_unref(s);
}

static void on_opened(struct session *s, struct ask *a)
{
	if (session_is_ended(s) || s->stopping) {
		/* Whoever comes too late leaves nothing behind; an agent without a shell ends by itself. */
		if (a->status == 0)
			close_at(s, &a->found);
		return;
	}
	if (a->status < 0) {
		fail_start(s, &a->error);
		return;
	}
	use_endpoint(s, a);
	session_save_then(s, on_endpoint_stored, session_ref(s));
}

/* The way that is being tried already. */
static bool same_way(const struct endpoint *a, const struct endpoint *b)
{
	bool same = strcmp(a->url, b->url) == 0 && a->headers_count == b->headers_count;
	for (unsigned i = 0; same && i < a->headers_count; i++)
		same = strcmp(a->headers[i].value, b->headers[i].value) == 0;
	return same;
}

static void on_reopened(struct session *s, struct ask *a)
{
	s->reopening = false;
	if (session_is_ended(s) || s->stopping || s->attached)
		return; /* it is back by itself */
	if (s->asleep && a->status != -ESRCH)
		return; /* it was, and nobody needs it now */
	bool trying = s->tunnel != NULL && !s->tunnel_over;
	if (a->status == -ESRCH) {
		session_end_lost(s, a->error.slug, a->error.text);
	} else if (a->status < 0) {
		log_info("no way back yet", "session=%s code=%d", s->id, a->status);
		if (!trying)
			session_retry(s, a->error.text);
	} else if (!trying || !same_way(&a->found, &s->endpoint)) {
		session_drop_tunnel(s, false);
		use_endpoint(s, a);
		uv_timer_stop(&s->retry_timer);
		session_connect(s);
	}
}

static void on_kept_alive(struct session *s, const struct ask *a)
{
	s->keeping_alive = false;
	if (a->status == -ESRCH && !session_is_ended(s) && !s->stopping)
		session_end_lost(s, a->error.slug, a->error.text);
	else if (a->status < 0)
		log_warn("sandbox not kept awake", "session=%s code=%d", s->id, a->status);
}

static void on_size_set(struct session *s, const struct ask *a)
{
	s->resizing = false;
	if (session_is_ended(s) || s->stopping)
		return;
	if (a->status == 0) {
		s->resize_tries = 0;
		session_resized(s, a->cols, a->rows);
	} else {
		log_warn("not resized", "session=%s code=%d", s->id, a->status);
	}
	if (s->want_cols != 0 && s->attached) {
		session_ask_resize(s);
	} else if (a->status < 0 && s->resize_tries++ < RESIZE_TRIES) {
		s->want_cols = a->cols; /* in the next second again */
		s->want_rows = a->rows;
	}
}

static void on_answer(struct message *m, struct loop *l)
{
	struct ask *a = (struct ask *)((char *)m - offsetof(struct ask, answer));
	struct session *s = a->session;
	(void)l;
	if (s->mirror && a->kind != ASK_CLOSE) {
		/* It was the owner's to know. A shell that an opening made ends by itself, or here. */
		if (a->kind == ASK_OPEN && a->status == 0)
			close_at(s, &a->found);
		s->reopening = s->keeping_alive = s->resizing = false;
		ask_free(a);
		return;
	}
	switch (a->kind) {
	case ASK_OPEN:
		on_opened(s, a);
		break;
	case ASK_REOPEN:
		on_reopened(s, a);
		break;
	case ASK_KEEP_ALIVE:
		on_kept_alive(s, a);
		break;
	case ASK_RESIZE:
		on_size_set(s, a);
		break;
	case ASK_SIGNAL:
		session_signal_done(s, a->request, a->status < 0 ? -a->status : 0);
		break;
	case ASK_CLOSE:
		if (a->status < 0)
			log_warn("shell left behind", "session=%s code=%d", s->id, a->status);
		break;
	}
	ask_free(a);
}
