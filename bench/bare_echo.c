/* bare_echo.c -- the bare limit of echo: one key at a time to `cat` on a PTY in raw mode, and back.
 *
 *   bare_echo --keys N */
#include "bench/bench.h"

#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>
#include <utmp.h>

#define WARM_UP 50

int main(int argc, char **argv)
{
	(void)argc;
	static struct bench_latencies latencies;
	uint64_t keys = bench_number(argv, "--keys", 2000);
	struct termios raw;
	int master, slave;
	bench_start(60);
	if (openpty(&master, &slave, NULL, NULL, NULL) != 0 || tcgetattr(slave, &raw) != 0)
		bench_die("no PTY: %s", strerror(errno));
	cfmakeraw(&raw);
	tcsetattr(slave, TCSANOW, &raw);
	pid_t pid = fork();
	if (pid < 0)
		bench_die("no process: %s", strerror(errno));
	if (pid == 0) {
		close(master);
		login_tty(slave);
		execlp("cat", "cat", (char *)NULL);
		_exit(127);
	}
	for (uint64_t i = 0; i < keys + WARM_UP; i++) {
		char key = (char)('a' + i % 26), back = 0;
		uint64_t start_ns = bench_now_ns();
		if (write(master, &key, 1) != 1 || read(master, &back, 1) != 1 || back != key)
			bench_die("no echo of key %llu", (unsigned long long)i);
		if (i >= WARM_UP)
			bench_latency_add(&latencies, bench_now_ns() - start_ns);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	printf("{\"p50_ms\":%.4f,\"p90_ms\":%.4f,\"p99_ms\":%.4f,\"max_ms\":%.4f}\n",
	       bench_latency_ms(&latencies, 0.5), bench_latency_ms(&latencies, 0.9),
	       bench_latency_ms(&latencies, 0.99), (double)latencies.max_ns / 1e6);
	return 0;
}
