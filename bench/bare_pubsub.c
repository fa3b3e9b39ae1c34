/* bare_pubsub.c -- bare limit of what goes from replica to replica: one connection to Redis that publishes, one that
 * is subscribed, and nothing else.
 *
 *   bare_pubsub --port N --channels N --size BYTES --seconds N --rate N [--pid PID]
 *
 * At --rate messages a second, at uneven intervals, so as not to keep step with anything else; with rate 0 as many as
 * Redis takes, at most WINDOW under way. The latency is that from the call of send() to the return of recv(). */
#include "bench/bench.h"

#include <sys/epoll.h>

#define WINDOW 2000
#define BATCH 100 /* published at once when it goes as fast as it can */
#define SECOND_NS UINT64_C(1000000000)

static struct bench_latencies latencies;
static uint64_t received;

static void subscribe(int fd, unsigned channels)
{
	char text[128];
	for (unsigned i = 0; i < channels; i++) {
		char name[32];
		int n = snprintf(name, sizeof(name), "ptycast:session:{s%u}:out", i);
		int size = snprintf(text, sizeof(text), "*2\r\n$9\r\nSUBSCRIBE\r\n$%d\r\n%s\r\n", n,
				    name);
		bench_send_all(fd, text, (size_t)size);
	}
	/* Each is answered by one array, whose last line alone starts with a colon. */
	char last = '\0';
	for (unsigned answers = 0; answers < channels;) {
		ssize_t n = recv(fd, text, sizeof(text), 0);
		if (n <= 0)
			bench_die("no answer to SUBSCRIBE");
		for (ssize_t i = 0; i < n; last = text[i++])
			answers += text[i] == ':' && last == '\n';
	}
}

/* One PUBLISH to the next channel, with a mark of now in it. Returns its size. */
static size_t put_message(char *out, size_t size, unsigned channel, uint64_t due_ns)
{
	char name[32];
	int n = snprintf(name, sizeof(name), "ptycast:session:{s%u}:out", channel);
	int at = sprintf(out, "*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%zu\r\n", n, name, size);
	memset(out + at, '.', size);
	int mark = sprintf(out + at, "%c%016llu", BENCH_MARK, (unsigned long long)due_ns);
	out[at + mark] = '.';
	memcpy(out + at + size, "\r\n", 2);
	return (size_t)at + size + 2;
}

/* A number from half to one and a half of every. */
static uint64_t uneven(uint64_t every)
{
	static uint32_t x = 1;
	x = x * 1664525 + 1013904223;
	return every / 2 + (uint64_t)((double)every * (double)(x >> 8) / (double)(1u << 24));
}

/* Of what is pushed only the marks are looked at; one may be cut anywhere. */
static void take(const char *at, const char *end, uint64_t now_ns)
{
	static bool in_mark;
	static unsigned digits;
	static uint64_t sent_ns;
	while (at < end) {
		if (!in_mark) {
			at = memchr(at, BENCH_MARK, (size_t)(end - at));
			if (at == NULL)
				return;
			at++;
			in_mark = true;
			digits = 0;
			sent_ns = 0;
		} else {
			sent_ns = sent_ns * 10 + (uint64_t)(*at++ - '0');
			if (++digits < BENCH_MARK_DIGITS)
				continue;
			in_mark = false;
			received++;
			bench_latency_add(&latencies, now_ns - sent_ns);
		}
	}
}

static void read_messages(int fd)
{
	static char buffer[1 << 18];
	ssize_t n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		bench_die("Redis is gone");
	take(buffer, buffer + n, bench_now_ns());
}

int main(int argc, char **argv)
{
	(void)argc;
	unsigned port = (unsigned)bench_number(argv, "--port", 0);
	unsigned channels = (unsigned)bench_number(argv, "--channels", 1);
	size_t size = bench_number(argv, "--size", 100);
	uint64_t rate = bench_number(argv, "--rate", 0);
	uint64_t seconds = bench_number(argv, "--seconds", 5);
	int pid = (int)bench_number(argv, "--pid", 0);
	bench_start((unsigned)seconds + 30);
	char *out = malloc((size + 128) * (BATCH + 1));
	if (out == NULL || size < BENCH_MARK_DIGITS + 2)
		bench_die("no memory, or --size is too small");
	int publisher = bench_connect(port), subscriber = bench_connect(port);
	subscribe(subscriber, channels);
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event e = { .events = EPOLLIN, .data.fd = publisher };
	epoll_ctl(epoll, EPOLL_CTL_ADD, publisher, &e);
	e.data.fd = subscriber;
	epoll_ctl(epoll, EPOLL_CTL_ADD, subscriber, &e);

	double redis_s = bench_cpu_s(pid), own_s = bench_own_cpu_s();
	uint64_t start_ns = bench_now_ns(), end_ns = start_ns + seconds * SECOND_NS;
	uint64_t every_ns = rate == 0 ? 0 : SECOND_NS / rate, due_ns = start_ns + every_ns;
	uint64_t sent = 0;
	for (;;) {
		uint64_t now = bench_now_ns();
		bool over = now >= end_ns;
		if (over && (received == sent || now > end_ns + SECOND_NS))
			break;
		size_t used = 0;
		for (unsigned n = 0; n < BATCH && !over; n++) {
			if (rate > 0 ? due_ns > now : sent - received >= WINDOW)
				break;
			used += put_message(out + used, size, (unsigned)(sent++ % channels), now);
			due_ns += uneven(every_ns);
		}
		if (used > 0)
			bench_send_all(publisher, out, used);
		uint64_t wait_ns = 1000000;
		if (rate > 0 && !over) {
			now = bench_now_ns();
			wait_ns = due_ns > now ? due_ns - now : 0;
		} else if (!over && sent - received < WINDOW) {
			wait_ns = 0;
		}
		struct timespec wait = { .tv_sec = (time_t)(wait_ns / SECOND_NS),
					 .tv_nsec = (long)(wait_ns % SECOND_NS) };
		struct epoll_event events[2];
		int n = epoll_pwait2(epoll, events, 2, &wait, NULL);
		for (int i = 0; i < n; i++) {
			static char answers[1 << 16];
			if (events[i].data.fd == subscriber)
				read_messages(subscriber);
			else if (recv(publisher, answers, sizeof(answers), MSG_DONTWAIT) == 0)
				bench_die("Redis is gone");
		}
	}
	double took_s = (double)(bench_now_ns() - start_ns) / 1e9;
	printf("{\"sent\":%llu,\"received\":%llu,\"seconds\":%.4f,\"p50_ms\":%.4f,\"p90_ms\":%.4f,"
	       "\"p99_ms\":%.4f,\"max_ms\":%.4f,\"redis_cpu_s\":%.2f,\"own_cpu_s\":%.3f}\n",
	       (unsigned long long)sent, (unsigned long long)received, took_s,
	       bench_latency_ms(&latencies, 0.5), bench_latency_ms(&latencies, 0.9),
	       bench_latency_ms(&latencies, 0.99), (double)latencies.max_ns / 1e6,
	       bench_cpu_s(pid) - redis_s, bench_own_cpu_s() - own_s);
	return 0;
}
