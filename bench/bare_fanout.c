/* bare_fanout.c -- the bare limit of fan-out: a plain loop that writes each event to each viewer with one
 * write(). It looks to sse_load like a service: GET is answered by an event stream, and POST starts the
 * output. Ends when that is over, and says what it cost.
 *
 *   bare_fanout --viewers N --size BYTES --rate EVENTS_A_SECOND --seconds N */
#include "bench/bench.h"

#define READ_BYTES 4096

static int accept_request(int listener, char *head)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		bench_die("accept: %s", strerror(errno));
	bench_no_delay(fd);
	size_t have = 0;
	head[0] = '\0';
	while (strstr(head, "\r\n\r\n") == NULL && have < READ_BYTES - 1) {
		ssize_t n = recv(fd, head + have, READ_BYTES - 1 - have, 0);
		if (n <= 0)
			bench_die("a client is gone");
		have += (size_t)n;
		head[have] = '\0';
	}
	return fd;
}

int main(int argc, char **argv)
{
	(void)argc;
	static const char stream[] =
		"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\n";
	static const char done[] = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
	static char head[READ_BYTES];
	bench_start((unsigned)bench_number(argv, "--timeout", 120));
	unsigned viewers = (unsigned)bench_number(argv, "--viewers", 1000);
	size_t size = (size_t)bench_number(argv, "--size", 100);
	uint64_t rate = bench_number(argv, "--rate", 200);
	uint64_t events = rate * bench_number(argv, "--seconds", 5);
	int *fds = calloc(viewers, sizeof(*fds));
	char *event = malloc(size + 256);
	if (fds == NULL || event == NULL || size < 32)
		bench_die("no memory");
	int listener = bench_listen();
	for (unsigned i = 0; i < viewers; i++) {
		fds[i] = accept_request(listener, head);
		bench_send_all(fds[i], stream, strlen(stream));
	}
	int starter = accept_request(listener, head);
	bench_send_all(starter, done, strlen(done));

	double cpu_s = bench_own_cpu_s();
	uint64_t start_ns = bench_now_ns();
	for (uint64_t n = 0; n < events; n++) {
		uint64_t due_ns = start_ns + n * (1000000000 / rate);
		while (bench_now_ns() < due_ns) {
			struct timespec until = { .tv_sec = (time_t)(due_ns / 1000000000),
						  .tv_nsec = (long)(due_ns % 1000000000) };
			clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		}
		int start = snprintf(
			event, 256,
			"id: 0123456789abcdef:%llu\nevent: output\ndata: {\"data\":\"%c%016llu ",
			(unsigned long long)((n + 1) * size), BENCH_MARK,
			(unsigned long long)due_ns);
		size_t at = (size_t)start + size - 18 - 2;
		memset(event + start, '.', at - (size_t)start);
		memcpy(event + at, "\\r\\n\"}\n\n", 9);
		at += 8;
		for (unsigned i = 0; i < viewers; i++)
			if (write(fds[i], event, at) != (ssize_t)at)
				bench_die("viewer %u: %s", i, strerror(errno));
	}
	printf("{\"seconds\":%.4f,\"cpu_s\":%.3f,\"deliveries\":%llu}\n",
	       (double)(bench_now_ns() - start_ns) / 1e9, bench_own_cpu_s() - cpu_s,
	       (unsigned long long)events * viewers);
	fflush(stdout);
	char rest[64];
	for (unsigned i = 0; i < viewers; i++) /* closed by the client: no bytes are lost */
		(void)!read(fds[i], rest, sizeof(rest));
	return 0;
}
