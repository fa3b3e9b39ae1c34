/* pty_source.c -- what prints in a terminal for the throughput figures: waits for a line of input, then
 * prints BYTES of coloured log in writes of 8 KB, or with one write a line.
 *
 *   pty_source log|lines BYTES */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WRITE_BYTES 8192
#define TEXT_BYTES (1u << 20)

static const char *const levels[] = { "\033[32mINFO\033[0m", "\033[33mWARN\033[0m",
				      "\033[36mDEBUG\033[0m", "\033[1;31mERROR\033[0m" };

/* One line of about 100 bytes. */
static size_t make_line(char *out, size_t size, unsigned number)
{
	uint32_t x = number * 2654435761u;
	int n = snprintf(out, size,
			 "\033[2m2026-01-02T03:%02u:%02u.%03uZ\033[0m %s worker-%u request served "
			 "id=%08x path=/api/v1/things/%u in %u ms\n",
			 x >> 8 & 31, x >> 16 & 31, x >> 10 & 511, levels[x >> 30], x >> 28, x,
			 x >> 20, x >> 25);
	return (size_t)n;
}

static void write_all(const char *data, size_t size)
{
	while (size > 0) {
		ssize_t n = write(1, data, size);
		if (n <= 0)
			exit(1);
		data += n;
		size -= (size_t)n;
	}
}

int main(int argc, char **argv)
{
	static char text[TEXT_BYTES + 256];
	char go[256];
	if (argc < 3)
		return 2;
	bool by_line = strcmp(argv[1], "lines") == 0;
	uint64_t left = strtoull(argv[2], NULL, 10);
	/* Made beforehand: the terminal is to be measured, not printf(). */
	size_t size = 0;
	for (unsigned number = 0; size < TEXT_BYTES; number++)
		size += make_line(text + size, sizeof(text) - size, number);
	if (read(0, go, sizeof(go)) <= 0)
		return 1;
	for (size_t at = 0; left > 0;) {
		size_t n = size - at < WRITE_BYTES ? size - at : WRITE_BYTES;
		if (by_line)
			n = (size_t)((char *)memchr(text + at, '\n', n) + 1 - (text + at));
		n = left < n ? (size_t)left : n;
		write_all(text + at, n);
		left -= n;
		at = at + n == size ? 0 : at + n;
	}
	return 0;
}
