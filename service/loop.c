/* loop.c -- see loop.h. libwebsockets runs on our libuv loop ("foreign loop"): its own poll() costs
 * O(connections) a wake-up, and a libuv loop of its own swallows signals. */
#include "service/loop.h"

#include <assert.h>
#include <errno.h>
#include <libwebsockets.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "service/event.h"
#include "service/log.h"
#include "service/metrics.h"
#include "tunnel/ws_client.h"

struct loop {
	/* Set by loop_create(). */
	pthread_t thread;
	unsigned number;

	pthread_mutex_t lock; /* guards the mailbox; nothing is called under it */
	struct message *mail_first, **mail_end;
	unsigned mail_count;

	/* Loop thread only, once it runs. */
	uv_loop_t uv;
	uv_async_t mail_wake;
	uv_check_t after_poll;
	uv_idle_t no_sleep; /* active while work is queued: the poll returns at once */
	uv_timer_t second_timer;
	struct lws_context *lws;
	struct event_cache *events;
	struct loop_work *work_first, *work_last;
	struct loop_second *seconds, *next_second;
	bool stop;
};

uint64_t loop_now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

int64_t loop_wall_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

uv_loop_t *loop_uv(struct loop *l)
{
	return &l->uv;
}

struct lws_context *loop_lws(struct loop *l)
{
	return l->lws;
}

struct event_cache *loop_event_cache(struct loop *l)
{
	return l->events;
}

bool loop_is_current(const struct loop *l)
{
	return pthread_equal(l->thread, pthread_self());
}

static int post(struct loop *l, struct message *m, bool bounded)
{
	pthread_mutex_lock(&l->lock);
	if (bounded && l->mail_count >= LOOP_MAILBOX_MAX) {
		pthread_mutex_unlock(&l->lock);
		return -EAGAIN;
	}
	m->next = NULL;
	*l->mail_end = m;
	l->mail_end = &m->next;
	bool wake = l->mail_count++ == 0;
	pthread_mutex_unlock(&l->lock);
	metric_add(METRIC_MAILBOX_MESSAGES, 1);
	if (wake)
		uv_async_send(&l->mail_wake);
	return 0;
}

int loop_post(struct loop *l, struct message *m)
{
	return post(l, m, true);
}

void loop_post_answer(struct loop *l, struct message *m)
{
	post(l, m, false);
}

static void on_mail(uv_async_t *wake)
{
	struct loop *l = wake->data;
	pthread_mutex_lock(&l->lock);
	struct message *m = l->mail_first;
	unsigned count = l->mail_count;
	l->mail_first = NULL;
	l->mail_end = &l->mail_first;
	l->mail_count = 0;
	pthread_mutex_unlock(&l->lock);
	metric_add(METRIC_MAILBOX_MESSAGES, -(int64_t)count);
	while (m != NULL) {
		struct message *next = m->next;
		m->run(m, l);
		m = next;
	}
	if (l->stop)
		uv_stop(&l->uv);
}

static void on_idle(uv_idle_t *idle)
{
	(void)idle; /* being active is all it is for */
}

void loop_work_add(struct loop *l, struct loop_work *w)
{
	assert(loop_is_current(l));
	if (w->queued)
		return;
	w->queued = true;
	w->next = NULL;
	w->prev = l->work_last;
	if (l->work_last != NULL)
		l->work_last->next = w;
	else
		l->work_first = w;
	l->work_last = w;
	uv_idle_start(&l->no_sleep, on_idle);
}

void loop_work_remove(struct loop *l, struct loop_work *w)
{
	if (!w->queued)
		return;
	w->queued = false;
	if (w->prev != NULL)
		w->prev->next = w->next;
	else
		l->work_first = w->next;
	if (w->next != NULL)
		w->next->prev = w->prev;
	else
		l->work_last = w->prev;
}

/* One turn for each that is queued now; what wants more goes behind the next round of events. */
static void after_poll(uv_check_t *check)
{
	struct loop *l = check->data;
	struct loop_work *last = l->work_last;
	while (l->work_first != NULL) {
		struct loop_work *w = l->work_first;
		loop_work_remove(l, w);
		if (w->run(w))
			loop_work_add(l, w);
		if (w == last)
			break;
	}
	if (l->work_first == NULL)
		uv_idle_stop(&l->no_sleep);
}

void loop_second_add(struct loop *l, struct loop_second *second)
{
	assert(!second->listed);
	second->listed = true;
	second->prev = NULL;
	second->next = l->seconds;
	if (l->seconds != NULL)
		l->seconds->prev = second;
	l->seconds = second;
}

void loop_second_remove(struct loop *l, struct loop_second *second)
{
	if (!second->listed)
		return;
	second->listed = false;
	if (l->next_second == second)
		l->next_second = second->next;
	if (second->prev != NULL)
		second->prev->next = second->next;
	else
		l->seconds = second->next;
	if (second->next != NULL)
		second->next->prev = second->prev;
}

static void on_second(uv_timer_t *timer)
{
	struct loop *l = timer->data;
	int64_t wall_ms = loop_wall_ms();
	uint64_t now_us = loop_now_us();
	for (struct loop_second *s = l->seconds; s != NULL; s = l->next_second) {
		l->next_second = s->next; /* corrected by loop_second_remove() */
		s->fn(s, now_us, wall_ms);
	}
}

static void *loop_thread(void *arg)
{
	struct loop *l = arg;
	uv_run(&l->uv, UV_RUN_DEFAULT);

	uv_close((uv_handle_t *)&l->mail_wake, NULL);
	uv_close((uv_handle_t *)&l->after_poll, NULL);
	uv_close((uv_handle_t *)&l->no_sleep, NULL);
	uv_close((uv_handle_t *)&l->second_timer, NULL);
	/* Twice, with the loop run between: LIBRARIES, libwebsockets on a foreign loop. */
	lws_context_destroy(l->lws);
	uv_run(&l->uv, UV_RUN_DEFAULT);
	lws_context_destroy(l->lws);
	uv_run(&l->uv, UV_RUN_NOWAIT);
	int rc = uv_loop_close(&l->uv);
	if (rc < 0)
		log_warn("loop left open", "loop=%u error=%s", l->number, uv_err_name(rc));
	return NULL;
}

static struct lws_context *create_lws(uv_loop_t *uv, const struct config *cfg)
{
	/* With TLS each context reads the system's certificates: megabytes that plain tunnels do not need. */
	bool tls = (cfg->tunnel_url != NULL && strncmp(cfg->tunnel_url, "wss:", 4) == 0) ||
		   (cfg->providers != NULL && strstr(cfg->providers, "runloop") != NULL);
	void *foreign[1] = { uv };
	struct lws_context_creation_info info = {
		.port = CONTEXT_PORT_NO_LISTEN,
		.protocols = ws_client_protocols(),
		.options = LWS_SERVER_OPTION_LIBUV |
			   (tls ? LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT : 0),
		.foreign_loops = foreign,
		.client_ssl_ca_filepath = cfg->ca_file,
		.pt_serv_buf_size = WS_CLIENT_BUFFER_BYTES,
		.gid = -1,
		.uid = -1,
		.fd_limit_per_thread = 0,
	};
	return lws_create_context(&info);
}

/* libwebsockets' own lines: only what it calls a warning or an error. */
static void on_lws_log(int level, const char *line)
{
	char safe[256];
	log_write(level == LLL_ERR ? LOG_WARN : LOG_DEBUG, "libwebsockets", "text=\"%s\"",
		  log_safe(safe, sizeof(safe), line));
}

int loop_create(const struct config *cfg, unsigned number, struct loop **ret, struct error *err)
{
	struct loop *l = calloc(1, sizeof(*l));
	if (l == NULL)
		return error_set(err, -ENOMEM, "no memory for a loop");
	l->number = number;
	l->mail_end = &l->mail_first;
	pthread_mutex_init(&l->lock, NULL);
	l->events = event_cache_create();
	uv_loop_init(&l->uv);
	uv_async_init(&l->uv, &l->mail_wake, on_mail);
	uv_check_init(&l->uv, &l->after_poll);
	uv_idle_init(&l->uv, &l->no_sleep);
	uv_timer_init(&l->uv, &l->second_timer);
	l->mail_wake.data = l->after_poll.data = l->no_sleep.data = l->second_timer.data = l;
	uv_check_start(&l->after_poll, after_poll);
	uv_timer_start(&l->second_timer, on_second, 1000, 1000);
	/* Two loops that log at once write into one static buffer of libwebsockets 4.1. */
	lws_set_log_level(log_enabled(LOG_DEBUG) ? LLL_ERR | LLL_WARN : 0, on_lws_log);
	l->lws = create_lws(&l->uv, cfg);
	if (l->lws == NULL || l->events == NULL)
		return error_set(
			err, -ENOMEM,
			"libwebsockets gave no context (is its libuv plugin there, and --ca-file readable?)");
	/* Signals are for the main thread. */
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = pthread_create(&l->thread, NULL, loop_thread, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0)
		return error_set(err, -rc, "cannot start a thread: %s", strerror(rc));
	*ret = l;
	return 0;
}

static void run_stop(struct message *m, struct loop *l)
{
	free(m);
	l->stop = true;
}

void loop_destroy(struct loop *l)
{
	if (l == NULL)
		return;
	struct message *m = calloc(1, sizeof(*m));
	if (m == NULL)
		abort();
	m->run = run_stop;
	loop_post_answer(l, m);
	pthread_join(l->thread, NULL);
	event_cache_destroy(l->events);
	pthread_mutex_destroy(&l->lock);
	free(l);
}
