/* pattern.c -- a program for a terminal whose output is known byte by byte: what stands at a position
 * follows from the position alone, so that a lost, doubled or moved byte shows. Its twin is
 * tests/e2e/lib/pattern.mjs.
 *
 *   pattern MODE FIRST [exit CODE]
 *
 * MODE is lines (64-byte lines, each with its number), line (the same without any newline), utf8
 * (16-byte cells with characters of 1 to 4 bytes) or bytes (every value, also NUL and no UTF-8).
 * It turns off echo and output processing, writes FIRST bytes, then obeys lines on its terminal:
 *
 *   w N      write the next N bytes, as fast as they are taken
 *   c N SIZE write the next N bytes in pieces of SIZE, a millisecond between them
 *   z        print the size of the terminal as "[COLSxROWS]" (outside of the pattern)
 *   t TEXT   print TEXT (outside of the pattern)
 *   x CODE   exit at once
 *   k        die of SIGKILL
 *   b        leave a child that holds the terminal, and exit 0
 *
 * With "exit CODE" it exits behind the first bytes. "[USR1]", "[INT]" and so on answer signals. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define CELL_BYTES_MAX 64

enum mode { LINES, LINE, UTF8, BYTES };

static const char *const mode_names[] = {
	[LINES] = "lines", [LINE] = "line", [UTF8] = "utf8", [BYTES] = "bytes"
};

static void write_all(const void *data, size_t size)
{
	const char *at = data;
	while (size > 0) {
		ssize_t n = write(STDOUT_FILENO, at, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(90);
		at += n;
		size -= (size_t)n;
	}
}

/* Fills cell with the piece of the pattern that holds position; returns the piece's size. */
static size_t cell_fill(enum mode mode, uint64_t position, uint8_t cell[CELL_BYTES_MAX])
{
	char text[CELL_BYTES_MAX + 1];
	if (mode == LINES || mode == LINE) {
		uint64_t line = position / 64;
		snprintf(text, sizeof(text), "%015llx ", (unsigned long long)line);
		memcpy(cell, text, 16);
		for (unsigned i = 16; i < 63; i++)
			cell[i] = (uint8_t)('!' + (line + i) % 90);
		cell[63] = mode == LINES ? '\n' : ' ';
		return 64;
	}
	if (mode == UTF8) {
		snprintf(text, sizeof(text), "%05llx\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80. ",
			 (unsigned long long)(position / 16) & 0xfffff);
		memcpy(cell, text, 16);
		return 16;
	}
	uint64_t start = position / 64 * 64;
	for (unsigned i = 0; i < 64; i++) {
		uint64_t p = start + i;
		cell[i] = (uint8_t)(p * 131 + (p >> 8) * 29 + (p >> 16) * 17);
	}
	return 64;
}

static void pattern_write(enum mode mode, uint64_t *position, uint64_t size, size_t piece)
{
	static uint8_t buffer[65536];
	size_t used = 0;
	const struct timespec millisecond = { .tv_nsec = 1000000 };
	while (size > 0) {
		uint8_t cell[CELL_BYTES_MAX];
		size_t cell_size = cell_fill(mode, *position, cell);
		size_t skip = (size_t)(*position % cell_size);
		size_t n = cell_size - skip;
		if (n > size)
			n = (size_t)size;
		size_t room = (piece > 0 ? piece : sizeof(buffer)) - used;
		if (n > room)
			n = room;
		memcpy(buffer + used, cell + skip, n);
		used += n;
		*position += n;
		size -= n;
		if (size > 0 && used < (piece > 0 ? piece : sizeof(buffer)))
			continue;
		write_all(buffer, used);
		used = 0;
		if (piece > 0 && size > 0)
			nanosleep(&millisecond, NULL);
	}
}

/* Reads one line without its end. Signals come while it waits in poll(): ThreadSanitizer holds back those
 * that come inside of read(). Returns -1 at the end of input. */
static int read_line(char *line, size_t size)
{
	size_t used = 0;
	while (used < size - 1) {
		struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
		if (poll(&in, 1, -1) <= 0)
			continue;
		if (read(STDIN_FILENO, line + used, 1) <= 0)
			return -1;
		if (line[used] == '\n')
			break;
		used++;
	}
	line[used] = '\0';
	return 0;
}

static void on_signal(int number)
{
	const char *name = number == SIGINT     ? "[INT]"
			   : number == SIGUSR1  ? "[USR1]"
			   : number == SIGTERM  ? "[TERM]"
			   : number == SIGWINCH ? "[WINCH]"
						: "[QUIT]";
	int saved = errno;
	write_all(name, strlen(name));
	errno = saved;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 91;
	unsigned mode = 0;
	while (mode < sizeof(mode_names) / sizeof(mode_names[0]) &&
	       strcmp(argv[1], mode_names[mode]) != 0)
		mode++;
	if (mode == sizeof(mode_names) / sizeof(mode_names[0]))
		return 91;

	struct termios tio;
	if (tcgetattr(STDIN_FILENO, &tio) == 0) {
		tio.c_lflag &= (tcflag_t) ~(ECHO | ECHONL);
		tio.c_oflag &= (tcflag_t)~OPOST;
		tcsetattr(STDIN_FILENO, TCSANOW, &tio);
	}
	const struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	const int answered[] = { SIGINT, SIGUSR1, SIGTERM, SIGQUIT };
	for (unsigned i = 0; i < sizeof(answered) / sizeof(answered[0]); i++)
		sigaction(answered[i], &action, NULL);

	uint64_t position = 0;
	pattern_write((enum mode)mode, &position, strtoull(argv[2], NULL, 10), 0);
	if (argc > 4 && strcmp(argv[3], "exit") == 0)
		return atoi(argv[4]);

	char line[4096];
	while (read_line(line, sizeof(line)) == 0) {
		unsigned long long size = 0;
		unsigned piece = 0;
		if (sscanf(line, "w %llu", &size) == 1) {
			pattern_write((enum mode)mode, &position, size, 0);
		} else if (sscanf(line, "c %llu %u", &size, &piece) == 2 && piece > 0 &&
			   piece <= 65536) {
			pattern_write((enum mode)mode, &position, size, piece);
		} else if (strncmp(line, "t ", 2) == 0) {
			write_all(line + 2, strlen(line + 2));
		} else if (line[0] == 'x') {
			_exit(atoi(line + 1));
		} else if (line[0] == 'k') {
			raise(SIGKILL);
		} else if (line[0] == 'b') {
			if (fork() == 0) {
				signal(SIGHUP, SIG_IGN);
				sleep(30);
				_exit(0);
			}
			_exit(0);
		} else if (line[0] == 'z') {
			struct winsize size_now = { 0 };
			char text[32];
			ioctl(STDIN_FILENO, TIOCGWINSZ, &size_now);
			int n = snprintf(text, sizeof(text), "[%ux%u]", size_now.ws_col,
					 size_now.ws_row);
			write_all(text, (size_t)n);
		}
	}
	return 0;
}
