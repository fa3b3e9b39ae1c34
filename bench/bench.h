/* bench.h -- what the programs of this folder share: arguments, time, latencies, what /proc says of other
 * processes, sockets. Each program is short-lived and by itself: an error ends it. */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* A payload may hold marks: this character, then the time when it was due, as BENCH_MARK_DIGITS digits. */
#define BENCH_MARK '@'
#define BENCH_MARK_DIGITS 16

static inline void bench_die(const char *format, ...)
	__attribute__((format(printf, 1, 2), noreturn));
static inline void bench_die(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

/* Ends the program after timeout_s whatever happens, and lets it have all descriptors there are. */
static inline void bench_start(unsigned timeout_s)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	alarm(timeout_s);
}

/* The value behind --name, or otherwise. */
static inline const char *bench_text(char **argv, const char *name, const char *otherwise)
{
	for (argv++; *argv != NULL; argv++)
		if (strcmp(*argv, name) == 0)
			return argv[1] == NULL ? otherwise : argv[1];
	return otherwise;
}

static inline uint64_t bench_number(char **argv, const char *name, uint64_t otherwise)
{
	const char *text = bench_text(argv, name, NULL);
	return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

static inline uint64_t bench_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* CPU of this process, both of its kinds. */
static inline double bench_own_cpu_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* --- latencies: a histogram whose steps are 1.6 % wide --- */

#define BENCH_STEPS 64
struct bench_latencies {
	uint64_t count, max_ns;
	uint64_t counts[59 * BENCH_STEPS];
};

static inline void bench_latency_add(struct bench_latencies *l, uint64_t ns)
{
	unsigned power = ns < BENCH_STEPS ? 0 : 58 - (unsigned)__builtin_clzll(ns);
	uint64_t step = power == 0 ? ns : (ns >> (power - 1)) - BENCH_STEPS;
	l->counts[power * BENCH_STEPS + step]++;
	l->count++;
	if (ns > l->max_ns)
		l->max_ns = ns;
}

/* The upper end of the step that holds the given share of them, in ms. */
static inline double bench_latency_ms(const struct bench_latencies *l, double share)
{
	uint64_t wanted = (uint64_t)(share * (double)l->count), seen = 0;
	for (unsigned i = 0; i < sizeof(l->counts) / sizeof(l->counts[0]); i++) {
		seen += l->counts[i];
		if (seen > wanted) {
			unsigned power = i / BENCH_STEPS, step = i % BENCH_STEPS;
			uint64_t ns = power == 0
					      ? step
					      : (uint64_t)(BENCH_STEPS + step + 1) << (power - 1);
			return (double)(ns < l->max_ns ? ns : l->max_ns) / 1e6;
		}
	}
	return (double)l->max_ns / 1e6;
}

/* --- other processes --- */

static inline double bench_cpu_s(int pid)
{
	char path[64], text[1024];
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	FILE *f = fopen(path, "r");
	if (f == NULL)
		return 0;
	size_t n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	unsigned long user = 0, system = 0;
	const char *at = strrchr(text, ')'); /* the name before it may hold anything */
	if (at == NULL || sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
				 &user, &system) != 2)
		return 0;
	return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* A line of /proc/PID/status, as "VmRSS:"; 0 when there is none. */
static inline uint64_t bench_memory_kb(int pid, const char *name)
{
	char path[64], line[256];
	uint64_t kb = 0;
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	FILE *f = fopen(path, "r");
	if (f == NULL)
		return 0;
	while (fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, name, strlen(name)) == 0)
			kb = strtoull(line + strlen(name), NULL, 10);
	fclose(f);
	return kb;
}

/* VmHWM counts anew from now on. */
static inline void bench_reset_peak(int pid)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/clear_refs", pid);
	FILE *f = fopen(path, "w");
	if (f == NULL)
		return;
	fputs("5", f);
	fclose(f);
}

/* --- sockets --- */

static inline struct sockaddr_in bench_loopback(unsigned port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return a;
}

static inline void bench_no_delay(int fd)
{
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static inline int bench_connect(unsigned port)
{
	struct sockaddr_in a = bench_loopback(port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0)
		bench_die("cannot connect to port %u: %s", port, strerror(errno));
	bench_no_delay(fd);
	return fd;
}

/* Listens on a free port of loopback and says on stdout which. */
static inline int bench_listen(void)
{
	struct sockaddr_in a = bench_loopback(0);
	socklen_t size = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, size) != 0 || listen(fd, SOMAXCONN) != 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &size) != 0)
		bench_die("cannot listen: %s", strerror(errno));
	printf("{\"port\":%u}\n", (unsigned)ntohs(a.sin_port));
	fflush(stdout);
	return fd;
}

static inline void bench_send_all(int fd, const void *data, size_t size)
{
	const char *at = data;
	while (size > 0) {
		ssize_t n = send(fd, at, size, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			bench_die("a peer is gone: %s", strerror(errno));
		at += n;
		size -= (size_t)n;
	}
}

/* Reads until the end of an HTTP head and returns its status. What came behind it is in *data, *size
 * (a part of space, which holds space_size bytes). */
static inline int bench_http_head(int fd, char *space, size_t space_size, char **data, size_t *size)
{
	size_t have = 0;
	while (have < space_size - 1) {
		ssize_t n = recv(fd, space + have, space_size - 1 - have, 0);
		if (n <= 0)
			bench_die("no answer: %s", n == 0 ? "closed" : strerror(errno));
		have += (size_t)n;
		space[have] = '\0';
		char *end = strstr(space, "\r\n\r\n");
		if (end != NULL) {
			*data = end + 4;
			*size = have - (size_t)(end + 4 - space);
			return atoi(space + strlen("HTTP/1.1 "));
		}
	}
	bench_die("an HTTP head is too long");
}

/* Sends one POST on a fresh connection, and waits for its answer. Returns the status. */
static inline int bench_post(unsigned port, const char *path, const char *key, const char *body)
{
	char text[4096], *rest;
	size_t left;
	int fd = bench_connect(port);
	int n = snprintf(text, sizeof(text),
			 "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nAuthorization: Bearer %s\r\n"
			 "Connection: close\r\nContent-Length: %zu\r\n\r\n%s",
			 path, port, key, strlen(body), body);
	bench_send_all(fd, text, (size_t)n);
	int status = bench_http_head(fd, text, sizeof(text), &rest, &left);
	close(fd);
	return status;
}
