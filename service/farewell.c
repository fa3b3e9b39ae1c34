/* farewell.c -- see farewell.h. */
#include "service/farewell.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <uv.h>

#include "service/loop.h"

#define FAREWELL_MS 1000            /* less than what http.c waits for at the stop */
#define FAREWELL_BYTES (256u << 10) /* more, and it does not listen */

struct farewell {
	struct message message;
	uv_poll_t poll;
	uv_timer_t timer;
	unsigned handles; /* not closed yet */
	bool over;
	int fd;
	size_t discarded;
	void (*ended)(void *arg);
	void *arg;
};

static void on_closed(uv_handle_t *handle)
{
	struct farewell *f = handle->data;
	if (--f->handles == 0)
		free(f);
}

static void finish(struct farewell *f)
{
	if (f->over)
		return;
	f->over = true;
	uv_close((uv_handle_t *)&f->timer, on_closed);
	uv_close((uv_handle_t *)&f->poll, on_closed); /* out of epoll, before fd may be used anew */
	f->ended(f->arg);
}

static void on_timeout(uv_timer_t *timer)
{
	finish(timer->data);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct farewell *f = poll->data;
	char buffer[16384];
	(void)events;
	ssize_t n = status < 0 ? 0 : recv(f->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
	if (n > 0)
		f->discarded += (size_t)n;
	bool waits = n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
	if (!waits || f->discarded > FAREWELL_BYTES)
		finish(f);
}

static void run_farewell(struct message *m, struct loop *l)
{
	struct farewell *f = (struct farewell *)m;
	if (uv_poll_init(loop_uv(l), &f->poll, f->fd) < 0) {
		f->ended(f->arg);
		free(f);
		return;
	}
	uv_timer_init(loop_uv(l), &f->timer);
	f->handles = 2;
	f->poll.data = f->timer.data = f;
	uv_update_time(loop_uv(l));
	uv_timer_start(&f->timer, on_timeout, FAREWELL_MS, 0);
	uv_poll_start(&f->poll, UV_READABLE | UV_DISCONNECT, on_readable);
}

void farewell_begin(struct loop *l, int fd, void (*ended)(void *arg), void *arg)
{
	struct farewell *f = calloc(1, sizeof(*f));
	if (f == NULL) {
		ended(arg);
		return;
	}
	f->message.run = run_farewell;
	f->fd = fd;
	f->ended = ended;
	f->arg = arg;
	if (loop_post(l, &f->message) == 0)
		return;
	free(f);
	ended(arg);
}
