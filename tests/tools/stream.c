/* stream.c -- a program for a terminal that never stops writing: a numbered pseudo-random stream, of which each byte
 * follows from the seed and its position. What is typed meanwhile is summed up. Its twin is
 * tests/chaos/stream.mjs.
 *
 *   stream SEED RATE
 *
 * The stream comes in 64-byte lines, about RATE bytes a second, in pieces of changing size. The byte 0x04 ends it:
 * then "=END BYTES CRC TYPED CRC" follows with a newline (how many bytes were written, and typed before that byte, with the
 * CRC-32 of each), and the program exits with 0. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 64
#define END_BYTE 0x04

struct sum {
	uint64_t bytes;
	uint32_t crc;
};

static void sum_add(struct sum *sum, const uint8_t *data, size_t size)
{
	uint32_t crc = ~sum->crc;
	for (size_t i = 0; i < size; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (0xedb88320u & (0u - (crc & 1)));
	}
	sum->crc = ~crc;
	sum->bytes += size;
}

/* The finaliser of MurmurHash3. */
static uint32_t mix(uint32_t h)
{
	h = (h ^ h >> 16) * 0x85ebca6bu;
	h = (h ^ h >> 13) * 0xc2b2ae35u;
	return h ^ h >> 16;
}

static void line_fill(uint32_t seed, uint32_t number, char line[LINE_BYTES + 1])
{
	static const char digits[] =
		"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+-";
	snprintf(line, LINE_BYTES + 1, "%08x ", number);
	uint32_t base = seed ^ number * 0x9e3779b1u;
	for (unsigned at = 9, word = 1; at < LINE_BYTES - 1; word++) {
		uint32_t random = mix(base + word * 0x7f4a7c15u);
		for (unsigned i = 0; i < 5 && at < LINE_BYTES - 1; i++, random >>= 6)
			line[at++] = digits[random & 63];
	}
	line[LINE_BYTES - 1] = '\n';
}

/* Fills data with what stands at position; returns how much of that is on one line. */
static size_t stream_fill(uint32_t seed, uint64_t position, uint8_t *data, size_t size)
{
	char line[LINE_BYTES + 1];
	size_t skip = (size_t)(position % LINE_BYTES);
	line_fill(seed, (uint32_t)(position / LINE_BYTES), line);
	size_t n = LINE_BYTES - skip < size ? LINE_BYTES - skip : size;
	memcpy(data, line + skip, n);
	return n;
}

static uint64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* Takes what was typed. Returns true once the end is among it. */
static bool take_typed(struct sum *typed)
{
	uint8_t data[65536];
	ssize_t n = read(STDIN_FILENO, data, sizeof(data));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0)
		_exit(92); /* hung up */
	const uint8_t *end = memchr(data, END_BYTE, (size_t)n);
	sum_add(typed, data, end == NULL ? (size_t)n : (size_t)(end - data));
	return end != NULL;
}

static void say_sums(const struct sum *written, const struct sum *typed)
{
	char text[128];
	int size = snprintf(text, sizeof(text), "=END %llu %08x %llu %08x\n",
			    (unsigned long long)written->bytes, written->crc,
			    (unsigned long long)typed->bytes, typed->crc);
	for (int at = 0; at < size;) {
		ssize_t n = write(STDOUT_FILENO, text + at, (size_t)(size - at));
		if (n > 0)
			at += (int)n;
		else if (errno != EINTR)
			_exit(93);
	}
}

int main(int argc, char **argv)
{
	struct termios tio;
	if (argc < 3 || tcgetattr(STDIN_FILENO, &tio) != 0)
		return 91;
	cfmakeraw(&tio);
	tcsetattr(STDIN_FILENO, TCSANOW, &tio);
	uint32_t seed = (uint32_t)strtoul(argv[1], NULL, 10);
	uint64_t rate = strtoull(argv[2], NULL, 10);
	int flags = fcntl(STDOUT_FILENO, F_GETFL);
	fcntl(STDOUT_FILENO, F_SETFL, flags | O_NONBLOCK);

	struct sum written = { 0 }, typed = { 0 };
	uint64_t due = LINE_BYTES, then = now_us(); /* how far it may have come by then */
	for (bool is_over = false; !is_over;) {
		uint64_t now = now_us();
		due += (now - then) * rate / 1000000u;
		then = now;
		if (due > written.bytes + rate / 2) /* it was held up: not all at once */
			due = written.bytes + rate / 2;
		bool may_write = due > written.bytes;
		struct pollfd fds[] = {
			{ .fd = STDIN_FILENO, .events = POLLIN },
			{ .fd = may_write ? STDOUT_FILENO : -1, .events = POLLOUT },
		};
		/* Pauses and pieces follow from the stream, too. */
		int pause_ms = 1 + (int)(mix(seed + (uint32_t)written.bytes) % 12);
		if (poll(fds, 2, may_write ? -1 : pause_ms) < 0 && errno != EINTR)
			return 94;
		if (fds[0].revents != 0)
			is_over = take_typed(&typed);
		if (!may_write || fds[1].revents == 0)
			continue;
		uint8_t data[8192];
		size_t size = 0;
		while (size < sizeof(data) && written.bytes + size < due) {
			uint64_t left = due - written.bytes - size;
			size_t room = sizeof(data) - size;
			size += stream_fill(seed, written.bytes + size, data + size,
					    left < room ? (size_t)left : room);
		}
		ssize_t n = write(STDOUT_FILENO, data, size);
		if (n > 0)
			sum_add(&written, data, (size_t)n);
		else if (errno != EAGAIN && errno != EINTR)
			return 95;
	}
	fcntl(STDOUT_FILENO, F_SETFL, flags);
	say_sums(&written, &typed);
	return 0;
}
