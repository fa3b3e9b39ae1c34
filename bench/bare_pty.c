/* bare_pty.c -- the bare limit of one session: a plain loop that runs a command on a PTY, types a line,
 * and reads all of its output, 64 KB at a time.
 *
 *   bare_pty COMMAND [ARGUMENT...] */
#include "bench/bench.h"

#include <pty.h>
#include <sys/wait.h>

#define READ_BYTES 65536

int main(int argc, char **argv)
{
	static char buffer[READ_BYTES];
	struct winsize size = { .ws_row = 24, .ws_col = 80 };
	int master;
	bench_start(120);
	if (argc < 2)
		bench_die("usage: bare_pty COMMAND [ARGUMENT...]");
	pid_t pid = forkpty(&master, NULL, NULL, &size);
	if (pid < 0)
		bench_die("no PTY: %s", strerror(errno));
	if (pid == 0) {
		execvp(argv[1], argv + 1);
		_exit(127);
	}
	usleep(100000); /* until it waits for the line */
	double cpu_s = bench_own_cpu_s();
	uint64_t start_ns = bench_now_ns(), end_ns = start_ns, bytes = 0, reads = 0;
	if (write(master, "\n", 1) != 1)
		bench_die("cannot type: %s", strerror(errno));
	for (;;) {
		ssize_t n = read(master, buffer, sizeof(buffer));
		if (n <= 0)
			break;
		end_ns = bench_now_ns();
		bytes += (uint64_t)n;
		reads++;
	}
	cpu_s = bench_own_cpu_s() - cpu_s;
	waitpid(pid, NULL, 0);
	printf("{\"seconds\":%.6f,\"bytes\":%llu,\"reads\":%llu,\"cpu_s\":%.3f}\n",
	       (double)(end_ns - start_ns) / 1e9, (unsigned long long)bytes,
	       (unsigned long long)reads, cpu_s);
	return 0;
}
