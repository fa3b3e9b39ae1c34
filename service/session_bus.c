/* session_bus.c -- a session and the bus: the one channel that it listens to, what it says there, and how what
 * comes reaches its loop. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/app.h"
#include "service/log.h"
#include "service/session_private.h"
#include "store/bus.h"

#define CHANNEL_BYTES (SESSION_ID_MAX + 32)
#define WAITING_BYTES_MAX (64 << 20) /* of messages on their way to loops, all together */

/* What the bus holds of us: it lives until the bus says that it is over. */
struct session_line {
	struct session *session; /* a reference */
	unsigned number;
	struct bus_subscription *subscription;
};

struct bus_note {
	struct message message;
	struct session *session; /* a reference */
	unsigned line;           /* 0: sent to this replica */
	enum bus_news news;
	size_t size;
	uint8_t data[];
};

static atomic_llong waiting_bytes;

static void dispatch(struct session *s, const struct bus_note *n)
{
	struct bus_frame f;
	if (bus_frame_decode(n->data, n->size, &f) < 0) {
		log_warn("message not understood", "session=%s bytes=%zu", s->id, n->size);
		return;
	}
	if (strcmp(f.head.session, s->id) != 0 || f.head.sender == s->app->replica)
		return;
	if (s->mirror)
		session_mirror_frame(s, &f);
	else
		session_owner_frame(s, &f);
}

static void run_bus_note(struct message *m, struct loop *l)
{
	struct bus_note *n = (struct bus_note *)m;
	struct session *s = n->session;
	(void)l;
	atomic_fetch_sub(&waiting_bytes, (long long)n->size);
	bool ours = n->line == 0 || n->line == s->line_number;
	if (ours && !s->stopping) {
		if (n->news == BUS_MESSAGE)
			dispatch(s, n);
		else if (s->mirror)
			session_mirror_line(s, n->news == BUS_UP);
		else if (n->news == BUS_UP)
			session_owner_line(s);
	}
	session_unref(s);
	free(n);
}

/* What is dropped here is a hole, which the mirror notices. */
static void post_news(struct session *s, unsigned line, enum bus_news news, const uint8_t *data,
		      size_t size)
{
	if (news == BUS_MESSAGE && atomic_load(&waiting_bytes) > WAITING_BYTES_MAX)
		return;
	struct bus_note *n = malloc(sizeof(*n) + size);
	if (n == NULL)
		return;
	n->message.run = run_bus_note;
	n->session = session_ref(s);
	n->line = line;
	n->news = news;
	n->size = size;
	if (size > 0)
		memcpy(n->data, data, size);
	atomic_fetch_add(&waiting_bytes, (long long)size);
	if (news != BUS_MESSAGE) {
		loop_post_answer(s->loop, &n->message);
	} else if (loop_post(s->loop, &n->message) < 0) {
		atomic_fetch_sub(&waiting_bytes, (long long)size);
		session_unref(s);
		free(n);
	}
}

/* Thread: the bus's. */
static void on_line(void *arg, enum bus_news news, const uint8_t *data, size_t size)
{
	struct session_line *line = arg;
	if (news != BUS_ENDED) {
		post_news(line->session, line->number, news, data, size);
		return;
	}
	session_unref(line->session);
	free(line);
}

void session_bus_deliver(struct session *s, const uint8_t *data, size_t size)
{
	post_news(s, 0, BUS_MESSAGE, data, size);
}

static void channel_name(const struct session *s, const char *which, char name[CHANNEL_BYTES])
{
	snprintf(name, CHANNEL_BYTES, "session:{%s}:%s", s->id, which);
}

void session_bus_listen(struct session *s, const char *which)
{
	const struct app *app = s->app;
	s->line_number++; /* what is on its way from the old one is not ours any more */
	if (s->line != NULL)
		app->bus_ops->unsubscribe(app->bus, s->line->subscription);
	s->line = NULL;
	if (which == NULL)
		return;
	struct session_line *line = calloc(1, sizeof(*line));
	if (line == NULL)
		abort();
	char channel[CHANNEL_BYTES];
	channel_name(s, which, channel);
	line->session = session_ref(s);
	line->number = s->line_number;
	if (app->bus_ops->subscribe(app->bus, channel, on_line, line, &line->subscription) < 0) {
		session_unref(s); /* not the last one. The bus is being closed, and so are we */
		free(line);
		return;
	}
	s->line = line;
}

static int publish(struct session *s, const char *channel, struct bus_frame *f)
{
	snprintf(f->head.session, sizeof(f->head.session), "%s", s->id);
	f->head.sender = s->app->replica;
	f->head.birth = s->birth;
	f->head.number = s->fence;
	size_t size;
	uint8_t *data = bus_frame_encode(f, &size);
	if (data == NULL)
		return -EAGAIN;
	return s->app->bus_ops->publish(s->app->bus, channel, data, size);
}

int session_bus_send(struct session *s, const char *which, struct bus_frame *f)
{
	char channel[CHANNEL_BYTES];
	channel_name(s, which, channel);
	return publish(s, channel, f);
}

int session_bus_reply(struct session *s, uint64_t replica, struct bus_frame *f)
{
	char channel[CHANNEL_BYTES];
	snprintf(channel, sizeof(channel), "replica:%016" PRIx64, replica);
	return publish(s, channel, f);
}
