/* shell.c -- see shell.h.
 * The child stays a zombie until its end was told, so that its number cannot name another process
 * while signals may still be sent to it. */
#include "agent/shell.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "agent/log.h"
#include "agent/random.h"

#define READ_BYTES ((size_t)64 << 10) /* what is read before anybody is told of it */
#define QUIET_MS 200      /* after the child's end: so long without output is the end of output */
#define DRAIN_MS 5000     /* a background program that writes on and on is cut here */
#define KILL_AFTER_MS 2000
/* Above this a connection without verdicts is read no more. One message fits in any case. */
#define CONGESTED_BYTES (SHELL_INPUT_BYTES_MAX - PTY2_FRAME_BYTES_MAX - (128u << 10))

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

static pid_t foreground_group(const struct shell *s)
{
	pid_t group = -1;
	if (s->master.fd < 0 || ioctl(s->master.fd, TIOCGPGRP, &group) != 0)
		return -1;
	return group;
}

/* Signals the shell's own group and the one in the foreground. */
static void signal_groups(struct shell *s, int number)
{
	pid_t front = foreground_group(s);
	if (front > 0 && front != s->pid)
		(void)kill(-front, number);
	if (!s->reaped && kill(-s->pid, number) != 0)
		(void)kill(s->pid, number); /* not yet a group of its own */
}

static void reap(struct shell *s)
{
	if (!s->reaped)
		(void)waitpid(s->pid, NULL, 0);
	s->reaped = true;
}

static void close_master(struct shell *s)
{
	if (s->master.fd < 0)
		return;
	loop_unwatch(s->loop, &s->master);
	close(s->master.fd);
	s->master.fd = -1;
	queue_fini(&s->input);
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
		events |= EPOLLIN;
		loop_timer_clear(&s->stall_timer);
		if (s->state == SHELL_DRAINING && !s->quiet_timer.armed)
			loop_timer_set(s->loop, &s->quiet_timer, QUIET_MS);
	} else {
		loop_timer_clear(&s->quiet_timer); /* not quiet, but stopped by us */
		if (s->flow.guard == FLOW_READER && !s->stall_timer.armed)
			loop_timer_set(s->loop, &s->stall_timer, s->stall_ms);
	}
	if (s->input.size > 0)
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

static void finish(struct shell *s)
{
	loop_timer_clear(&s->quiet_timer);
	loop_timer_clear(&s->drain_timer);
	loop_timer_clear(&s->stall_timer);
	loop_timer_clear(&s->lost_timer);
	loop_timer_clear(&s->alone_timer);
	signal_groups(s, SIGHUP);
	signal_groups(s, SIGCONT);
	close_master(s);
	/* Somebody asked for the end: who ignores the hang-up is killed when the time comes. */
	if (!s->kill_timer.armed)
		reap(s);
	enter(s, SHELL_ENDED);
	if (s->ready || !s->unused_timer.armed)
		loop_timer_set(s->loop, &s->unused_timer, s->linger_ms);
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

static bool write_spans(struct shell *s)
{
	struct iovec spans[2];
	int count = queue_spans(&s->input, spans);
	ssize_t size = writev(s->master.fd, spans, count);
	if (size > 0)
		queue_drop(&s->input, (size_t)size);
	return size > 0;
}

static void write_input(struct shell *s)
{
	while (s->input.size > 0 && write_spans(s))
		;
	if (s->input_congested && s->input.size <= CONGESTED_BYTES) {
		s->input_congested = false;
		LIST_FOREACH(node, &s->viewers)
		{
			struct shell_viewer *v = CONTAINER_OF(node, struct shell_viewer, node);
			v->input_drained(v);
		}
	}
}

void shell_type(struct shell *s, const uint8_t *data, size_t size)
{
	if (s->state >= SHELL_DRAINING || queue_append(&s->input, data, size) < 0)
		return;
	write_input(s);
	if (s->input.size > CONGESTED_BYTES)
		s->input_congested = true;
	watch_master(s);
}

enum pty2_verdict shell_input(struct shell *s, const uint8_t client[INPUT_CLIENT_BYTES], uint64_t seq,
			      const uint8_t *data, size_t size, uint64_t *expected)
{
	enum input_seq_verdict verdict = INPUT_SEQ_NEXT;
	if (seq != 0) {
		verdict = input_seq_check(s->seen, client, seq, expected);
		if (verdict == INPUT_SEQ_REPEAT)
			return PTY2_REPEATED;
	}
	if (s->state >= SHELL_DRAINING)
		return PTY2_ENDED;
	if (verdict == INPUT_SEQ_GAP)
		return PTY2_GAP;
	if (s->input.size + size > SHELL_INPUT_BYTES_MAX || queue_reserve(&s->input, size) < 0)
		return PTY2_FULL;
	if (seq != 0) {
		if (input_seq_accept(s->seen, client, seq) < 0)
			return PTY2_FULL;
		*expected = seq + 1;
	}
	shell_type(s, data, size);
	return PTY2_QUEUED;
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
	if (number < 1 || number > SIGRTMAX)
		return EINVAL;
	if (s->state >= SHELL_DRAINING)
		return ESRCH;
	pid_t group = foreground_group(s);
	if (group <= 0)
		return ESRCH;
	return kill(-group, number) == 0 ? 0 : errno;
}

void shell_hang_up(struct shell *s)
{
	if (s->hanging_up || s->state == SHELL_ENDED)
		return;
	s->hanging_up = true;
	log_debug("shell hangs up shell=%s", s->id);
	signal_groups(s, SIGHUP);
	signal_groups(s, SIGCONT); /* a stopped one would not hear it */
	loop_timer_set(s->loop, &s->kill_timer, KILL_AFTER_MS);
}

static void on_kill_timer(struct loop_timer *t)
{
	struct shell *s = CONTAINER_OF(t, struct shell, kill_timer);
	signal_groups(s, SIGKILL);
	if (s->state == SHELL_ENDED)
		reap(s);
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
	siginfo_t info = { 0 };
	if (waitid(P_PID, (id_t)s->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0)
		return;
	if (s->state == SHELL_STARTING) /* the pipe has something to tell first */
		return;
	s->exit_kind = info.si_code == CLD_EXITED ? PTY2_EXITED : PTY2_SIGNALED_EXIT;
	s->exit_value = (uint8_t)info.si_status;
	enter(s, SHELL_DRAINING);
	close_slave(s);
	queue_fini(&s->input);
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

void shell_detach(struct shell *s, struct shell_viewer *v, bool clean)
{
	list_remove(&v->node);
	if (s->holder == v) {
		s->holder = NULL;
		loop_timer_clear(&s->stall_timer);
		if (s->alone_ms > 0 && s->state < SHELL_ENDED)
			loop_timer_set(s->loop, &s->alone_timer, s->alone_ms);
		if (clean) {
			guard_others(s);
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
		loop_timer_set(s->loop, &s->unused_timer, s->linger_ms);
	else
		loop_timer_clear(&s->unused_timer);
	if (s->flow.guard == FLOW_UNREAD)
		guard_others(s);
	tell_viewers(s);
	if (s->state == SHELL_ENDED)
		s->events->over(s);
}

/* --- birth and death --- */

static void init_timers(struct shell *s)
{
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
	if (s->alone_ms > 0)
		loop_timer_set(s->loop, &s->alone_timer, s->alone_ms);
}

int shell_create(struct loop *loop, const struct shell_options *options, struct shell **ret,
		 struct spawn_failure *failure)
{
	*failure = (struct spawn_failure){ .stage = SPAWN_FORK, .error = ENOMEM };
	struct shell *s = calloc(1, sizeof(*s));
	if (s == NULL)
		return -1;
	s->seen = input_seq_create();
	if (s->seen == NULL)
		goto free_shell;
	const struct spawn_request *request = &options->spawn;
	if (ring_init(&s->ring, options->ring_bytes, request->cols, request->rows) < 0)
		goto destroy_seen;
	struct spawn_child child;
	if (spawn(request, &child, failure) < 0)
		goto fini_ring;

	assert(strlen(options->id) < sizeof(s->id) && strlen(options->token) < sizeof(s->token));
	strcpy(s->id, options->id);
	strcpy(s->token, options->token);
	snprintf(s->command, sizeof(s->command), "%s", request->argv[0]);
	random_bytes(&s->epoch, sizeof(s->epoch));
	s->epoch |= s->epoch == 0;
	s->owner = options->owner;
	s->events = options->events;
	s->loop = loop;
	s->pid = child.pid;
	s->slave = child.slave;
	s->alone_ms = options->alone_ms;
	s->linger_ms = options->linger_ms;
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
destroy_seen:
	input_seq_destroy(s->seen);
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
		signal_groups(s, SIGKILL);
	reap(s);
	if (s->start.fd >= 0) {
		loop_unwatch(s->loop, &s->start);
		close(s->start.fd);
	}
	close_master(s);
	close_slave(s);
	struct loop_timer *timers[] = { &s->stall_timer, &s->lost_timer,  &s->alone_timer, &s->unused_timer,
					&s->quiet_timer, &s->drain_timer, &s->kill_timer };
	for (size_t i = 0; i < sizeof(timers) / sizeof(*timers); i++)
		loop_timer_clear(timers[i]);
	list_remove(&s->node);
	queue_fini(&s->input);
	input_seq_destroy(s->seen);
	ring_fini(&s->ring);
	free(s);
}
