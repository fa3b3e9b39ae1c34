/* sse_load.c -- many viewers: one loop that opens event streams, starts the output with one POST, reads all
 * streams to the end, and says what came, how late, and what it cost the processes it was told of.
 *
 *   sse_load --port N --path /sessions/a/stream[,/sessions/b/stream...] --key K --viewers N
 *            --post PATH --body TEXT             what starts the output
 *            --marks N | --bytes N | --exit 1    when a viewer has all
 *            --idle SECONDS                      no output: they stay that long
 *            --pid PID[,PID...]                  whose CPU and memory (of the first) are told */
#include "bench/bench.h"
#include "bench/sse_reader.h"

#include <signal.h>
#include <sys/epoll.h>

#define READ_BYTES (1 << 20)
#define OPENING_MAX 256 /* streams that are being opened at once */
#define SETTLE_NS UINT64_C(500000000)
#define PIDS_MAX 16

struct viewer {
	int fd;
	bool open, done;
	struct sse_reader reader;
};

static struct viewer *viewers;
static unsigned viewers_count, started, open_count, done_count, lost_count;
static const char *paths[4096];
static unsigned paths_count;
static uint64_t want_marks, want_bytes, wire_bytes, reads, last_output_ns, first_output_ns;
static bool want_exit;
static struct bench_latencies latencies;
static char buffer[READ_BYTES];

static void on_mark(void *arg, uint64_t ns)
{
	(void)arg;
	bench_latency_add(&latencies, last_output_ns - ns);
}

static void start_viewer(int epoll, unsigned port, const char *key)
{
	struct viewer *v = &viewers[started];
	const char *path = paths[started % paths_count];
	struct sockaddr_in a = bench_loopback(port);
	char text[1024];
	int n = snprintf(text, sizeof(text),
			 "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nAuthorization: Bearer %s\r\n"
			 "Accept: text/event-stream\r\n\r\n",
			 path, port, key);
	v->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (v->fd < 0 || connect(v->fd, (struct sockaddr *)&a, sizeof(a)) != 0)
		bench_die("viewer %u: %s", started, strerror(errno));
	bench_send_all(v->fd, text, (size_t)n);
	fcntl(v->fd, F_SETFL, O_NONBLOCK);
	v->reader.on_mark = on_mark;
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = v };
	epoll_ctl(epoll, EPOLL_CTL_ADD, v->fd, &e);
	started++;
}

static void look_at(struct viewer *v)
{
	const struct sse_reader *r = &v->reader;
	if (!v->open && r->status != 0 && r->status != 200)
		bench_die("viewer: status %d", r->status);
	if (!v->open && (r->states > 0 || (r->in_body && r->comments > 0))) {
		v->open = true;
		open_count++;
	}
	if (v->done)
		return;
	v->done = (want_marks > 0 && r->marks >= want_marks) ||
		  (want_bytes > 0 && r->offset - r->base_offset >= want_bytes) ||
		  (want_exit && r->exited);
	done_count += v->done;
}

static void read_viewer(struct viewer *v)
{
	ssize_t n = recv(v->fd, buffer, sizeof(buffer), 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		close(v->fd);
		v->fd = -1;
		lost_count += !v->done;
		return;
	}
	uint64_t outputs = v->reader.outputs;
	uint64_t before_ns = last_output_ns;
	last_output_ns = bench_now_ns();
	wire_bytes += (uint64_t)n;
	reads++;
	sse_read(&v->reader, buffer, (size_t)n);
	if (v->reader.outputs == outputs)
		last_output_ns = before_ns;
	else if (first_output_ns == 0)
		first_output_ns = last_output_ns;
	look_at(v);
}

/* Reads until the time has come, or *count is wanted. */
static void run(int epoll, uint64_t until_ns, const unsigned *count, unsigned wanted)
{
	struct epoll_event events[256];
	for (;;) {
		uint64_t now_ns = bench_now_ns();
		if (now_ns >= until_ns || (count != NULL && *count + lost_count >= wanted))
			return;
		uint64_t left_ms = (until_ns - now_ns) / 1000000 + 1;
		int n = epoll_wait(epoll, events, 256, (int)(left_ms > 1000 ? 1000 : left_ms));
		for (int i = 0; i < n; i++) {
			struct viewer *v = events[i].data.ptr;
			if (v->fd >= 0)
				read_viewer(v);
		}
	}
}

static void split_paths(const char *text)
{
	char *copy = strdup(text), *save = NULL;
	for (char *p = strtok_r(copy, ",", &save); p != NULL && paths_count < 4096;
	     p = strtok_r(NULL, ",", &save))
		paths[paths_count++] = p;
}

int main(int argc, char **argv)
{
	(void)argc;
	unsigned timeout_s = (unsigned)bench_number(argv, "--timeout", 60);
	unsigned port = (unsigned)bench_number(argv, "--port", 0);
	const char *key = bench_text(argv, "--key", "none");
	const char *post = bench_text(argv, "--post", NULL);
	uint64_t idle_s = bench_number(argv, "--idle", 0);
	int pids[PIDS_MAX] = { 0 };
	double cpu_s[PIDS_MAX];
	int pids_count = 0;
	bench_start(timeout_s + 30);
	viewers_count = (unsigned)bench_number(argv, "--viewers", 1);
	want_marks = bench_number(argv, "--marks", 0);
	want_bytes = bench_number(argv, "--bytes", 0);
	want_exit = bench_number(argv, "--exit", 0) != 0;
	split_paths(bench_text(argv, "--path", "/"));
	char *pids_text = strdup(bench_text(argv, "--pid", "")), *save = NULL;
	for (char *p = strtok_r(pids_text, ",", &save); p != NULL && pids_count < PIDS_MAX;
	     p = strtok_r(NULL, ",", &save))
		pids[pids_count++] = atoi(p);
	viewers = calloc(viewers_count, sizeof(*viewers));
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	if (viewers == NULL || epoll < 0)
		bench_die("no memory");

	uint64_t rss_before_kb = bench_memory_kb(pids[0], "VmRSS:");
	double cpu_before_s = bench_cpu_s(pids[0]);
	uint64_t start_ns = bench_now_ns(),
		 deadline_ns = start_ns + timeout_s * UINT64_C(1000000000);
	while (open_count < viewers_count && lost_count == 0 && bench_now_ns() < deadline_ns) {
		while (started < viewers_count && started - open_count < OPENING_MAX)
			start_viewer(epoll, port, key);
		unsigned some = open_count + OPENING_MAX / 4;
		run(epoll, deadline_ns, &open_count, some < viewers_count ? some : viewers_count);
	}
	double connect_s = (double)(bench_now_ns() - start_ns) / 1e9;
	double connect_cpu_s = bench_cpu_s(pids[0]) - cpu_before_s;
	if (open_count < viewers_count)
		bench_die("%u of %u viewers are open, %u lost", open_count, viewers_count,
			  lost_count);
	run(epoll, bench_now_ns() + SETTLE_NS, NULL, 0);
	uint64_t rss_open_kb = bench_memory_kb(pids[0], "VmRSS:");

	bench_reset_peak(pids[0]);
	for (int i = 0; i < pids_count; i++)
		cpu_s[i] = bench_cpu_s(pids[i]);
	double own_s = bench_own_cpu_s();
	wire_bytes = reads = 0;
	start_ns = bench_now_ns();
	if (post != NULL) {
		int status = bench_post(port, post, key, bench_text(argv, "--body", ""));
		if (status / 100 != 2)
			bench_die("POST %s: status %d", post, status);
	}
	if (idle_s > 0)
		run(epoll, start_ns + idle_s * UINT64_C(1000000000), NULL, 0);
	else
		run(epoll, deadline_ns, &done_count, viewers_count);
	uint64_t end_ns = last_output_ns > start_ns && idle_s == 0 ? last_output_ns
								   : bench_now_ns();
	for (int i = 0; i < pids_count; i++)
		cpu_s[i] = bench_cpu_s(pids[i]) - cpu_s[i];
	own_s = bench_own_cpu_s() - own_s;

	uint64_t outputs = 0, marks = 0, bytes = 0, resets = 0, pings = 0;
	for (unsigned i = 0; i < viewers_count; i++) {
		const struct sse_reader *r = &viewers[i].reader;
		outputs += r->outputs;
		marks += r->marks;
		bytes += r->offset - r->base_offset;
		resets += r->resets;
		pings += r->comments;
	}
	printf("{\"viewers\":%u,\"done\":%u,\"lost\":%u,\"connect_s\":%.4f,\"connect_cpu_s\":%.2f,"
	       "\"seconds\":%.6f,\"first_output_s\":%.6f,"
	       "\"outputs\":%llu,\"marks\":%llu,\"bytes\":%llu,\"wire_bytes\":%llu,\"reads\":%llu,"
	       "\"resets\":%llu,\"comments\":%llu,"
	       "\"p50_ms\":%.3f,\"p90_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f,"
	       "\"rss_before_kb\":%llu,\"rss_open_kb\":%llu,\"rss_kb\":%llu,\"peak_kb\":%llu,"
	       "\"own_cpu_s\":%.3f,\"cpu_s\":[",
	       viewers_count, done_count, lost_count, connect_s, connect_cpu_s,
	       (double)(end_ns - start_ns) / 1e9,
	       first_output_ns > start_ns ? (double)(first_output_ns - start_ns) / 1e9 : 0.0,
	       (unsigned long long)outputs, (unsigned long long)marks, (unsigned long long)bytes,
	       (unsigned long long)wire_bytes, (unsigned long long)reads,
	       (unsigned long long)resets, (unsigned long long)pings,
	       bench_latency_ms(&latencies, 0.5), bench_latency_ms(&latencies, 0.9),
	       bench_latency_ms(&latencies, 0.99), (double)latencies.max_ns / 1e6,
	       (unsigned long long)rss_before_kb, (unsigned long long)rss_open_kb,
	       (unsigned long long)bench_memory_kb(pids[0], "VmRSS:"),
	       (unsigned long long)bench_memory_kb(pids[0], "VmHWM:"), own_s);
	for (int i = 0; i < pids_count; i++)
		printf("%s%.2f", i == 0 ? "" : ",", cpu_s[i]);
	printf("]}\n");

	/* Reset, not closed: thousands of ports would wait for a minute otherwise. */
	struct linger now = { .l_onoff = 1 };
	for (unsigned i = 0; i < viewers_count; i++)
		if (viewers[i].fd >= 0)
			setsockopt(viewers[i].fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	return 0;
}
