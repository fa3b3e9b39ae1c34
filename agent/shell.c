/* shell.c -- see shell.h. */
#include "agent/shell.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "agent/log.h"
#include "agent/random.h"

#define READ_BYTES ((size_t)64 << 10) /* what is read before anybody is told of it */
/* After so much output the PTY is left alone for a moment: the next read and the next frame are larger
 * then, which halves their cost in a flood of short lines. An echo does not come to wait. The kernel
 * holds 64 KiB meanwhile, so the writer does not wait either. */
#define BURST_BYTES 2048
#define PAUSE_US 300
#define QUIET_MS 200  /* after the child's end: so long without output is the end of output */
#define DRAIN_MS 5000 /* a background program that writes on and on is cut here */
#define KILL_AFTER_MS 2000
#define FOR_EVER UINT64_MAX

static const struct {
	const char *name;
	unsigned next; /* bit set of the states that may follow */
} shell_states[SHELL_STATE_COUNT] = {
	[SHELL_STARTING] = { "starting", (1u << SHELL_RUNNING) },
	[SHELL_RUNNING] = { "running", (1u << SHELL_DRAINING) },
	[SHELL_DRAINING] = { "draining", (1u << SHELL_ENDED) },
	[SHELL_ENDED] = { "ended", 0 },
};

/* The only writer of s->state. */
static void enter(struct shell *s, enum shell_state next)
{
	assert(shell_states[s->state].next & (1u << next));
	log_debug("shell state shell=%s from=%s to=%s", s->id, shell_states[s->state].name,
		  shell_states[next].name);
	s->state = next;
}

static void tell_viewers(struct shell *s)
{
	LIST_FOREACH(node, &s->viewers)
	{
		struct shell_viewer *v = CONTAINER_OF(node, struct shell_viewer, node);
		v->changed(v);
	}
}

static void close_master(struct shell *s)
{
	if (s->master.fd < 0)
		return;
	loop_unwatch(s->loop, &s->master);
	close(s->master.fd);
	s->master.fd = -1;
	queue_fini(&s->typing.queue);
}

static void close_slave(struct shell *s)
{
	if (s->slave >= 0)
		close(s->slave);
	s->slave = -1;
}

/* --- output and the flow rule --- */

/* What the master is watched for: output while it may be read, room while there is input. */
static void watch_master(struct shell *s)
{
	if (s->master.fd < 0)
		return;
	uint32_t events = 0;
	if (flow_room(&s->flow, s->ring.head, s->ring.capacity) > 0) {
		if (!s->pause_timer.armed)
			events |= EPOLLIN;
		loop_timer_clear(&s->stall_timer);
		if (s->state == SHELL_DRAINING && !s->quiet_timer.armed)
			loop_timer_set(s->loop, &s->quiet_timer, QUIET_MS);
	} else {
		loop_timer_clear(&s->quiet_timer); /* not quiet, but stopped by us */
		if (s->flow.guard == FLOW_READER && !s->stall_timer.armed)
			loop_timer_set(s->loop, &s->stall_timer, s->stall_ms);
	}
	if (s->typing.queue.size > 0)
		events |= EPOLLOUT;
	loop_watch(s->loop, &s->master, events);
}

static uint64_t fastest_viewer(const struct shell *s)
{
	uint64_t fastest = 0;
	LIST_FOREACH(node, &s->viewers)
	{
		const struct shell_viewer *v = CONTAINER_OF(node, struct shell_viewer, node);
		if (v->cursor.offset > fastest)
			fastest = v->cursor.offset;
	}
	return fastest;
}

/* Without a holder, present or awaited, the fastest of the others counts. */
static void guard_others(struct shell *s)
{
	if (!list_empty(&s->viewers) && s->ready)
		flow_guard(&s->flow, FLOW_READER, fastest_viewer(s));
	else
		flow_guard(&s->flow, FLOW_FREE, 0);
	watch_master(s);
}

static void progress(struct shell *s, uint64_t kept)
{
	if (flow_progress(&s->flow, kept)) {
		loop_timer_clear(&s->stall_timer);
		watch_master(s);
	}
}

static void on_pause_timer(struct loop_timer *t)
{
	watch_master(CONTAINER_OF(t, struct shell, pause_timer));
}

static void on_stall_timer(struct loop_timer *t)
{
	struct shell *s = CONTAINER_OF(t, struct shell, stall_timer);
	log_debug("shell overwrites shell=%s head=%llu kept=%llu", s->id,
		  (unsigned long long)s->ring.head, (unsigned long long)s->flow.kept);
	s->flow.overwriting = true;
	watch_master(s);
}

static void on_lost_timer(struct loop_timer *t)
{
	guard_others(CONTAINER_OF(t, struct shell, lost_timer));
}

/* How it ended is kept as long as it might have gone on alone, until somebody knows. */
static void keep_ended(struct shell *s)
{
	uint64_t ms = s->exit_told ? s->linger_ms : s->untold_ms;
	if (ms == FOR_EVER)
		loop_timer_clear(&s->unused_timer);
	else
		loop_timer_set(s->loop, &s->unused_timer, ms);
}

static uint64_t untold_ms(const struct shell_options *options)
{
	if (options->unready_ms > 0) /* old dialect */
		return options->linger_ms;
	if (options->alone_ms == 0)
		return FOR_EVER;
	return options->linger_ms > options->alone_ms ? options->linger_ms : options->alone_ms;
}

static void finish(struct shell *s)
{
	loop_timer_clear(&s->pause_timer);
	loop_timer_clear(&s->quiet_timer);
	loop_timer_clear(&s->drain_timer);
	loop_timer_clear(&s->stall_timer);
	loop_timer_clear(&s->lost_timer);
	loop_timer_clear(&s->alone_timer);
	child_signal(&s->child, s->master.fd, SIGHUP);
	child_signal(&s->child, s->master.fd, SIGCONT);
	close_master(s);
	/* Somebody asked for the end: who ignores the hang-up is killed when the time comes. */
	if (!s->kill_timer.armed)
		child_reap(&s->child);
	enter(s, SHELL_ENDED);
	s->ended_ms = loop_now_ms();
	if (s->ready || !s->unused_timer.armed)
		keep_ended(s);
	tell_viewers(s);
	if (s->ready)
		s->events->over(s);
}

/* Reads what there is, in large pieces when it comes fast: the next read is cheaper than a frame. */
static void read_output(struct shell *s)
{
	size_t total = 0, room;
	bool end = false;
	while (total < READ_BYTES &&
	       (room = flow_room(&s->flow, s->ring.head, s->ring.capacity)) > 0) {
		struct iovec spans[2];
		size_t max = READ_BYTES - total;
		int count = ring_space(&s->ring, room < max ? room : max, spans);
		ssize_t size = readv(s->master.fd, spans, count);
		if (size > 0) {
			ring_advance(&s->ring, (size_t)size);
			total += (size_t)size;
		} else if (size == 0 || (errno != EINTR && errno != EAGAIN)) {
			end = true; /* EIO: nobody has the terminal any more */
			break;
		} else if (errno == EAGAIN) {
			break;
		}
	}
	if (total > 0) {
		loop_timer_clear(&s->quiet_timer);
		tell_viewers(s);
	}
	s->burst_bytes += total;
	if (s->burst_bytes >= BURST_BYTES && !s->loop->coarse) {
		s->burst_bytes = 0;
		/* A whole batch means that there is more already. */
		if (total < READ_BYTES)
			loop_timer_set_us(s->loop, &s->pause_timer, PAUSE_US);
	}
	if (end && s->state == SHELL_DRAINING)
		finish(s);
	else
		watch_master(s);
}

static void on_quiet_timer(struct loop_timer *t)
{
	finish(CONTAINER_OF(t, struct shell, quiet_timer));
}

static void on_drain_timer(struct loop_timer *t)
{
	struct shell *s = CONTAINER_OF(t, struct shell, drain_timer);
	/* The bound is for programs that write on, not for readers that are slow. */
	if (flow_room(&s->flow, s->ring.head, s->ring.capacity) > 0)
		finish(s);
	else
		loop_timer_set(s->loop, &s->drain_timer, DRAIN_MS);
}

/* --- input --- */

static void write_input(struct shell *s)
{
	if (!typing_write(&s->typing, s->master.fd))
		return;
	LIST_FOREACH(node, &s->viewers)
	{
		struct shell_viewer *v = CONTAINER_OF(node, struct shell_viewer, node);
		v->input_drained(v);
	}
}

void shell_type(struct shell *s, const uint8_t *data, size_t size)
{
	if (s->state >= SHELL_DRAINING)
		return;
	typing_force(&s->typing, data, size);
	write_input(s);
	watch_master(s);
}

enum pty2_verdict shell_input(struct shell *s, const uint8_t client[INPUT_CLIENT_BYTES],
			      uint64_t seq, const uint8_t *data, size_t size, uint64_t *expected)
{
	bool ended = s->state >= SHELL_DRAINING;
	enum pty2_verdict verdict = typing_take(&s->typing, client, seq, data, size, ended,
						expected);
	if (verdict == PTY2_QUEUED) {
		write_input(s);
		watch_master(s);
	}
	return verdict;
}

static void on_master(struct loop_watch *w, uint32_t events)
{
	struct shell *s = CONTAINER_OF(w, struct shell, master);
	if (events & EPOLLOUT)
		write_input(s);
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		read_output(s);
	else
		watch_master(s);
}

/* --- size, signals, end --- */

void shell_resize(struct shell *s, uint16_t cols, uint16_t rows)
{
	if (cols < 1 || rows < 1 || cols > SHELL_CELLS_MAX || rows > SHELL_CELLS_MAX ||
	    s->master.fd < 0)
		return;
	struct winsize size = { .ws_col = cols, .ws_row = rows };
	if (ioctl(s->master.fd, TIOCSWINSZ, &size) == 0 && ring_resize(&s->ring, cols, rows) > 0)
		tell_viewers(s);
}

int shell_signal(struct shell *s, int number)
{
	return child_signal_front(s->state < SHELL_DRAINING ? s->master.fd : -1, number);
}

void shell_hang_up(struct shell *s)
{
	if (s->hanging_up || s->state == SHELL_ENDED)
		return;
	s->hanging_up = true;
	log_debug("shell hangs up shell=%s", s->id);
	child_signal(&s->child, s->master.fd, SIGHUP);
	child_signal(&s->child, s->master.fd, SIGCONT); /* a stopped one would not hear it */
	loop_timer_set(s->loop, &s->kill_timer, KILL_AFTER_MS);
}

static void on_kill_timer(struct loop_timer *t)
{
	struct shell *s = CONTAINER_OF(t, struct shell, kill_timer);
	child_signal(&s->child, s->master.fd, SIGKILL);
	if (s->state == SHELL_ENDED)
		child_reap(&s->child);
}

static void on_alone_timer(struct loop_timer *t)
{
	shell_hang_up(CONTAINER_OF(t, struct shell, alone_timer));
}

static void on_unused_timer(struct loop_timer *t)
{
	struct shell *s = CONTAINER_OF(t, struct shell, unused_timer);
	s->events->unused(s);
}

void shell_check_child(struct shell *s)
{
	if (s->state > SHELL_RUNNING)
		return;
	uint8_t kind, value;
	/* While it starts, the pipe has something to tell first. */
	if (s->state == SHELL_STARTING || !child_ended(&s->child, &kind, &value))
		return;
	s->exit_kind = kind;
	s->exit_value = value;
	enter(s, SHELL_DRAINING);
	close_slave(s);
	queue_fini(&s->typing.queue);
	loop_timer_set(s->loop, &s->drain_timer, DRAIN_MS);
	watch_master(s);
}

static void on_start(struct loop_watch *w, uint32_t events)
{
	struct shell *s = CONTAINER_OF(w, struct shell, start);
	(void)events;
	struct spawn_failure failure;
	ssize_t size = read(w->fd, &failure, sizeof(failure));
	if (size < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	loop_unwatch(s->loop, w);
	close(w->fd);
	w->fd = -1;
	if (size == (ssize_t)sizeof(failure)) {
		s->events->failed(s, &failure);
		return;
	}
	enter(s, SHELL_RUNNING);
	shell_check_child(s); /* its death may have been told before */
	s->events->started(s);
}

/* --- viewers --- */

void shell_attach(struct shell *s, struct shell_viewer *v)
{
	list_append(&s->viewers, &v->node);
	if (v->holder) {
		assert(s->holder == NULL);
		s->holder = v;
		loop_timer_clear(&s->lost_timer);
		loop_timer_clear(&s->alone_timer);
		flow_guard(&s->flow, FLOW_READER, v->cursor.offset);
		shell_set_ready(s);
		watch_master(s);
	} else if (s->flow.guard == FLOW_FREE) {
		guard_others(s);
	}
}

static void leave_alone(struct shell *s)
{
	uint64_t ms = s->heard || s->alone_ms < SHELL_UNHEARD_MS ? s->alone_ms : SHELL_UNHEARD_MS;
	if (s->alone_ms > 0)
		loop_timer_set(s->loop, &s->alone_timer, ms);
}

void shell_detach(struct shell *s, struct shell_viewer *v, bool clean)
{
	list_remove(&v->node);
	if (s->holder == v) {
		s->holder = NULL;
		loop_timer_clear(&s->stall_timer);
		if (s->state < SHELL_ENDED)
			leave_alone(s);
		if (clean || s->flow.overwriting) {
			guard_others(s); /* it wants nothing more, or lost bytes already */
		} else {
			flow_guard(&s->flow, FLOW_LOST, s->flow.kept);
			loop_timer_set(s->loop, &s->lost_timer, s->lost_ms);
			watch_master(s);
		}
	} else if (s->holder == NULL && s->flow.guard == FLOW_READER) {
		loop_timer_clear(&s->stall_timer);
		guard_others(s);
	}
}

void shell_acknowledge(struct shell *s, uint64_t offset)
{
	s->heard = true;
	progress(s, offset < s->ring.head ? offset : s->ring.head);
}

void shell_viewer_moved(struct shell *s)
{
	if (s->holder == NULL && s->flow.guard == FLOW_READER)
		progress(s, fastest_viewer(s));
}

void shell_set_ready(struct shell *s)
{
	if (s->ready)
		return;
	s->ready = true;
	if (s->state == SHELL_ENDED)
		keep_ended(s);
	else
		loop_timer_clear(&s->unused_timer);
	if (s->flow.guard == FLOW_UNREAD)
		guard_others(s);
	tell_viewers(s);
	if (s->state == SHELL_ENDED)
		s->events->over(s);
}

void shell_exit_told(struct shell *s)
{
	if (s->exit_told)
		return;
	s->exit_told = true;
	keep_ended(s);
}

/* --- birth and death --- */

static void init_timers(struct shell *s)
{
	s->pause_timer.due = on_pause_timer;
	s->stall_timer.due = on_stall_timer;
	s->lost_timer.due = on_lost_timer;
	s->alone_timer.due = on_alone_timer;
	s->unused_timer.due = on_unused_timer;
	s->quiet_timer.due = on_quiet_timer;
	s->drain_timer.due = on_drain_timer;
	s->kill_timer.due = on_kill_timer;
}

static void first_guards(struct shell *s, const struct shell_options *options)
{
	if (options->unready_ms > 0) {
		flow_guard(&s->flow, FLOW_UNREAD, 0);
		loop_timer_set(s->loop, &s->unused_timer, options->unready_ms);
		return;
	}
	/* Its first holder is on the way, and wants all from the first byte. */
	flow_guard(&s->flow, FLOW_LOST, 0);
	loop_timer_set(s->loop, &s->lost_timer, s->lost_ms);
	leave_alone(s);
}

int shell_create(struct loop *loop, const struct shell_options *options, struct shell **ret,
		 struct spawn_failure *failure)
{
	*failure = (struct spawn_failure){ .stage = SPAWN_FORK, .error = ENOMEM };
	struct shell *s = calloc(1, sizeof(*s));
	if (s == NULL)
		return -1;
	if (typing_init(&s->typing) < 0)
		goto free_shell;
	const struct spawn_request *request = &options->spawn;
	if (ring_init(&s->ring, options->ring_bytes, request->cols, request->rows) < 0)
		goto fini_typing;
	struct spawn_child child;
	if (spawn(request, &child, failure) < 0)
		goto fini_ring;

	assert(strlen(options->id) < sizeof(s->id) && strlen(options->token) < sizeof(s->token));
	snprintf(s->id, sizeof(s->id), "%s", options->id);
	snprintf(s->token, sizeof(s->token), "%s", options->token);
	snprintf(s->command, sizeof(s->command), "%s", request->argv[0]);
	random_bytes(&s->epoch, sizeof(s->epoch));
	s->epoch |= s->epoch == 0;
	s->owner = options->owner;
	s->events = options->events;
	s->loop = loop;
	s->child.pid = child.pid;
	s->slave = child.slave;
	s->alone_ms = options->alone_ms;
	s->linger_ms = options->linger_ms;
	s->untold_ms = untold_ms(options);
	s->stall_ms = options->stall_ms;
	s->lost_ms = options->lost_ms;
	list_init(&s->node);
	list_init(&s->viewers);
	init_timers(s);
	s->master = (struct loop_watch){ .fd = child.master, .ready = on_master };
	s->start = (struct loop_watch){ .fd = child.failed, .ready = on_start };
	first_guards(s, options);
	loop_watch(loop, &s->start, EPOLLIN);
	watch_master(s);
	*ret = s;
	return 0;

fini_ring:
	ring_fini(&s->ring);
fini_typing:
	typing_fini(&s->typing);
free_shell:
	free(s);
	return -1;
}

void shell_destroy(struct shell *s)
{
	if (s == NULL)
		return;
	LIST_FOREACH(node, &s->viewers)
	{
		struct shell_viewer *v = CONTAINER_OF(node, struct shell_viewer, node);
		list_remove(&v->node);
		v->dropped(v);
	}
	if (s->state < SHELL_ENDED || s->kill_timer.armed)
		child_signal(&s->child, s->master.fd, SIGKILL);
	child_reap(&s->child);
	if (s->start.fd >= 0) {
		loop_unwatch(s->loop, &s->start);
		close(s->start.fd);
	}
	close_master(s);
	close_slave(s);
	struct loop_timer *timers[] = { &s->pause_timer, &s->stall_timer,  &s->lost_timer,
					&s->alone_timer, &s->unused_timer, &s->quiet_timer,
					&s->drain_timer, &s->kill_timer,   NULL };
	for (size_t i = 0; timers[i] != NULL; i++)
		loop_timer_clear(timers[i]);
	list_remove(&s->node);
	typing_fini(&s->typing);
	ring_fini(&s->ring);
	free(s);
}
