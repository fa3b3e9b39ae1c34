/* mirror_load.c -- viewers of many sessions at two replicas: the owner A and another one, B. Starts the output of
 * the sessions' tunsim, and says when each message came at B, how much later than at A, and what it cost the
 * processes it was told of.
 *
 *   mirror_load --a PORT --b PORT --key K --prefix ID --count N [--watched N] [--both 1]
 *               --rate N --size BYTES --seconds N [--pid PID[,PID...]]
 *
 * The sessions are ID0, ID1, ...; all of them print --rate messages a second, the first --watched are watched, at
 * B, and with --both at A, too. With rate 0 nothing is printed. Says {"open":N} when all viewers are there, and
 * what it saw in the last line. */
#include "bench/bench.h"
#include "bench/sse_reader.h"

#include <sys/epoll.h>

#define OPENING_MAX 64 /* streams that are being opened at once */
#define PIDS_MAX 16
#define WARM_NS UINT64_C(1000000000)  /* of output that does not count: all are started by then */
#define AFTER_NS UINT64_C(3000000000) /* for what comes late */
#define SECOND_NS UINT64_C(1000000000)

enum side { SIDE_A, SIDE_B, SIDE_COUNT };

struct viewer {
	int fd;
	enum side side;
	bool open;
	uint64_t marks; /* that count */
	struct message *messages;
	struct sse_reader reader;
};

/* One that counts, by its number in its session. */
struct message {
	uint64_t due_ns[SIDE_COUNT], came_ns[SIDE_COUNT];
};

static struct viewer *viewers;
static unsigned viewers_count, open_count;
static uint64_t from_ns = UINT64_MAX, until_ns, now_ns;
static uint64_t messages_max; /* of a session */
static uint64_t done_marks;
static struct bench_latencies latencies[SIDE_COUNT];

static void on_mark(void *arg, uint64_t due_ns)
{
	struct viewer *v = arg;
	if (due_ns < from_ns || due_ns >= until_ns || v->marks == messages_max)
		return;
	struct message *m = &v->messages[v->marks++];
	m->due_ns[v->side] = due_ns;
	m->came_ns[v->side] = now_ns;
	bench_latency_add(&latencies[v->side], now_ns - due_ns);
	done_marks++;
}

static void open_viewer(int epoll, struct viewer *v, unsigned port, const char *key,
			const char *prefix, unsigned session)
{
	char text[1024];
	int n = snprintf(text, sizeof(text),
			 "GET /sessions/%s%u/stream HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
			 "Authorization: Bearer %s\r\nAccept: text/event-stream\r\n\r\n",
			 prefix, session, port, key);
	v->fd = bench_connect(port);
	bench_send_all(v->fd, text, (size_t)n);
	fcntl(v->fd, F_SETFL, O_NONBLOCK);
	v->reader.on_mark = on_mark;
	v->reader.arg = v;
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = v };
	epoll_ctl(epoll, EPOLL_CTL_ADD, v->fd, &e);
}

static void read_viewer(struct viewer *v)
{
	static char buffer[1 << 20];
	ssize_t n = recv(v->fd, buffer, sizeof(buffer), 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		bench_die("a stream has ended");
	now_ns = bench_now_ns();
	sse_read(&v->reader, buffer, (size_t)n);
	if (v->reader.status != 0 && v->reader.status != 200)
		bench_die("viewer: status %d", v->reader.status);
	if (!v->open && v->reader.states > 0) {
		v->open = true;
		open_count++;
	}
}

/* Reads until the time has come, or *count is wanted. */
static void run(int epoll, uint64_t end_ns, const unsigned *count, unsigned wanted)
{
	struct epoll_event events[256];
	for (uint64_t now; (now = bench_now_ns()) < end_ns && (count == NULL || *count < wanted);) {
		uint64_t left_ms = (end_ns - now) / 1000000 + 1;
		int n = epoll_wait(epoll, events, 256, (int)(left_ms > 1000 ? 1000 : left_ms));
		for (int i = 0; i < n; i++)
			read_viewer(events[i].data.ptr);
	}
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static double share_ms(const int64_t *list, uint64_t count, double share)
{
	return count == 0 ? 0.0 : (double)list[(uint64_t)(share * (double)(count - 1))] / 1e6;
}

/* How much later each message came at B. */
static void print_extra(unsigned watched)
{
	int64_t *extra = calloc(watched * messages_max + 1, sizeof(*extra));
	uint64_t count = 0, strange = 0;
	for (unsigned i = 0; i < watched && extra != NULL; i++) {
		const struct viewer *b = &viewers[2 * i], *a = b + 1;
		uint64_t marks = a->marks < b->marks ? a->marks : b->marks;
		for (uint64_t k = 0; k < marks; k++) {
			const struct message *m = &b->messages[k];
			if (m->due_ns[SIDE_A] != m->due_ns[SIDE_B])
				strange++;
			else
				extra[count++] = (int64_t)m->came_ns[SIDE_B] -
						 (int64_t)m->came_ns[SIDE_A];
		}
	}
	if (extra != NULL)
		qsort(extra, count, sizeof(*extra), compare);
	printf("\"pairs\":%llu,\"unpaired\":%llu,\"extra_p50_ms\":%.4f,\"extra_p90_ms\":%.4f,"
	       "\"extra_p99_ms\":%.4f,\"extra_max_ms\":%.4f,",
	       (unsigned long long)count, (unsigned long long)strange, share_ms(extra, count, 0.5),
	       share_ms(extra, count, 0.9), share_ms(extra, count, 0.99),
	       share_ms(extra, count, 1));
	free(extra);
}

static void print_side(const char *name, enum side side)
{
	uint64_t marks = 0, outputs = 0, resets = 0;
	for (unsigned i = 0; i < viewers_count; i++) {
		if (viewers[i].side != side)
			continue;
		marks += viewers[i].marks;
		outputs += viewers[i].reader.outputs;
		resets += viewers[i].reader.resets;
	}
	printf("\"%s\":{\"marks\":%llu,\"outputs\":%llu,\"resets\":%llu,\"p50_ms\":%.4f,"
	       "\"p99_ms\":%.4f,\"max_ms\":%.4f},",
	       name, (unsigned long long)marks, (unsigned long long)outputs,
	       (unsigned long long)resets, bench_latency_ms(&latencies[side], 0.5),
	       bench_latency_ms(&latencies[side], 0.99), (double)latencies[side].max_ns / 1e6);
}

static void start_output(unsigned port, const char *key, const char *prefix, unsigned count,
			 const char *body)
{
	char path[128];
	for (unsigned i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "/sessions/%s%u/input", prefix, i);
		int status = bench_post(port, path, key, body);
		if (status != 204)
			bench_die("POST %s: status %d", path, status);
	}
}

int main(int argc, char **argv)
{
	(void)argc;
	unsigned ports[] = { (unsigned)bench_number(argv, "--a", 0),
			     (unsigned)bench_number(argv, "--b", 0) };
	const char *key = bench_text(argv, "--key", "none");
	const char *prefix = bench_text(argv, "--prefix", "");
	unsigned count = (unsigned)bench_number(argv, "--count", 1);
	unsigned watched = (unsigned)bench_number(argv, "--watched", count);
	unsigned sides = bench_number(argv, "--both", 0) != 0 ? 2 : 1;
	uint64_t rate = bench_number(argv, "--rate", 0), size = bench_number(argv, "--size", 100);
	uint64_t seconds = bench_number(argv, "--seconds", 5);
	bench_start((unsigned)seconds + 60);
	int pids[PIDS_MAX], pids_count = 0;
	double cpu_s[PIDS_MAX];
	char *pids_text = strdup(bench_text(argv, "--pid", "")), *save = NULL;
	for (char *p = strtok_r(pids_text, ",", &save); p != NULL && pids_count < PIDS_MAX;
	     p = strtok_r(NULL, ",", &save))
		pids[pids_count++] = atoi(p);

	viewers_count = watched * sides;
	viewers = calloc(viewers_count + 1, sizeof(*viewers));
	messages_max = rate * seconds + 2;
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	if (viewers == NULL || epoll < 0)
		bench_die("no memory");
	uint64_t give_up_ns = bench_now_ns() + 30 * SECOND_NS;
	for (unsigned i = 0; i < viewers_count; i++) {
		struct viewer *v = &viewers[i];
		v->side = i % sides == 0 ? SIDE_B : SIDE_A;
		v->messages = v->side == SIDE_A ? viewers[i - 1].messages
						: calloc(messages_max, sizeof(*v->messages));
		if (v->messages == NULL)
			bench_die("no memory");
		open_viewer(epoll, v, ports[v->side], key, prefix, i / sides);
		if (i + 1 > OPENING_MAX)
			run(epoll, give_up_ns, &open_count, i + 1 - OPENING_MAX);
	}
	run(epoll, give_up_ns, &open_count, viewers_count);
	if (open_count < viewers_count)
		bench_die("%u of %u viewers are open", open_count, viewers_count);
	printf("{\"open\":%u}\n", open_count);
	fflush(stdout);

	if (rate > 0) {
		char body[96];
		snprintf(body, sizeof(body), "run %llu %llu %llu", (unsigned long long)size,
			 (unsigned long long)rate,
			 (unsigned long long)(rate * size * (seconds + 60)));
		/* As many as there is time for; the sessions are closed when it is over. */
		start_output(ports[SIDE_A], key, prefix, count, body);
	}
	from_ns = bench_now_ns() + WARM_NS;
	until_ns = from_ns + seconds * SECOND_NS;
	run(epoll, from_ns, NULL, 0);
	for (int i = 0; i < pids_count; i++)
		cpu_s[i] = bench_cpu_s(pids[i]);
	double own_s = bench_own_cpu_s();
	run(epoll, until_ns, NULL, 0);
	uint64_t end_ns = bench_now_ns();
	for (int i = 0; i < pids_count; i++)
		cpu_s[i] = bench_cpu_s(pids[i]) - cpu_s[i];
	own_s = bench_own_cpu_s() - own_s;
	uint64_t in_time = done_marks;
	if (rate > 0)
		run(epoll, end_ns + AFTER_NS, NULL, 0);

	printf("{\"seconds\":%.4f,\"expected\":%llu,\"in_time\":%llu,",
	       (double)(end_ns - from_ns) / 1e9,
	       (unsigned long long)(rate * seconds * viewers_count), (unsigned long long)in_time);
	print_side("a", SIDE_A);
	print_side("b", SIDE_B);
	if (sides == 2)
		print_extra(watched);
	printf("\"own_cpu_s\":%.3f,\"cpu_s\":[", own_s);
	for (int i = 0; i < pids_count; i++)
		printf("%s%.2f", i == 0 ? "" : ",", cpu_s[i]);
	printf("]}\n");
	return 0;
}
