/* wire_codecs.c -- how fast wire/ turns bytes into what is sent, beside memcpy of the same bytes.
 * A text is taken in pieces of 8 KiB, the most that one event covers. Each figure is the best of
 * ROUNDS rounds: a neighbour on the machine can only make it worse. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "wire/base64.h"
#include "wire/sse.h"
#include "wire/utf8.h"
#include "wire/ws_frame.h"

#define PIECE_BYTES 8192
#define TEXT_BYTES (256 * PIECE_BYTES)
#define ROUNDS 15

/* Takes one piece; writes at most JSON_ESCAPE_BYTES(size) to out. */
typedef void (*codec_fn)(uint8_t *out, uint8_t *data, size_t size);

static volatile size_t sink; /* what a codec computed is used, so that it is computed */

static void run_memcpy(uint8_t *out, uint8_t *data, size_t size)
{
	memcpy(out, data, size);
	sink = out[size / 2];
}

static void run_json_escape(uint8_t *out, uint8_t *data, size_t size)
{
	sink = json_escape((char *)out, data, size);
}

static void run_base64_encode(uint8_t *out, uint8_t *data, size_t size)
{
	sink = base64_encode((char *)out, data, size);
}

/* data is any bytes; the first characters of a fixed text are decoded instead. */
static void run_base64_decode(uint8_t *out, uint8_t *data, size_t size)
{
	static char text[BASE64_CHARS(PIECE_BYTES)];
	if (text[0] == '\0')
		base64_encode(text, data, size);
	sink = (size_t)base64_decode(out, text, BASE64_CHARS(size));
}

static void run_ws_mask(uint8_t *out, uint8_t *data, size_t size)
{
	(void)out;
	ws_mask(data, size, (const uint8_t[4]){ 0x12, 0x34, 0x56, 0x78 }, 3);
}

static void run_utf8_valid(uint8_t *out, uint8_t *data, size_t size)
{
	(void)out;
	for (size_t at = 0; at < size;) {
		bool valid;
		at += utf8_valid_prefix(data + at, size - at);
		sink = at;
		if (at < size)
			at += utf8_step(data + at, size - at, &valid);
	}
}

static void run_utf8_replace(uint8_t *out, uint8_t *data, size_t size)
{
	sink = utf8_replace(out, data, size);
}

static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Bytes of text a second, in MB. */
static double measure(codec_fn run, uint8_t *text)
{
	static uint8_t out[JSON_ESCAPE_BYTES(PIECE_BYTES)];
	double best_s = 0;
	for (int round = 0; round < ROUNDS; round++) {
		double start = now_s();
		for (size_t at = 0; at < TEXT_BYTES; at += PIECE_BYTES)
			run(out, text + at, PIECE_BYTES);
		double took_s = now_s() - start;
		if (round == 0 || took_s < best_s)
			best_s = took_s;
	}
	return TEXT_BYTES / best_s / 1e6;
}

static const char plain[] = "make[2]: Entering directory and compiling one more of the many files, "
			    "which takes a while, so there is a lot of output to look at here.\r\n";
static const char coloured[] = "\033[32m2024-05-01 12:00:00\033[0m \033[1mINFO\033[0m  "
			       "\033[36mhttp\033[0m GET /api/v1/things 200 in 3 ms \xe2\x9c\x94 "
			       "\033[2muser=\"m\xc3\xbcller\"\033[0m\r\n";
static const char cjk[] = "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe3\x81\xae\xe7\xab\xaf\xe6\x9c\xab"
			  "\xe5\x87\xba\xe5\x8a\x9b\xe3\x80\x81\xe4\xb8\xad\xe6\x96\x87 ok\r\n";
static const char cyrillic[] = "\xd0\xbf\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82, "
			       "\xd0\xbc\xd0\xb8\xd1\x80! \xd0\xb4\xd0\xb0\r\n";

/* Whole lines only, so that no piece starts or ends inside a character. */
static void fill_lines(uint8_t *text, const char *line)
{
	size_t size = strlen(line);
	memset(text, ' ', TEXT_BYTES);
	for (size_t piece = 0; piece < TEXT_BYTES; piece += PIECE_BYTES) {
		for (size_t at = 0; at + size <= PIECE_BYTES; at += size)
			memcpy(text + piece + at, line, size);
	}
}

static void fill_random(uint8_t *text)
{
	uint64_t x = 88172645463325252;
	for (size_t at = 0; at < TEXT_BYTES; at++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		text[at] = (uint8_t)x;
	}
}

int main(void)
{
	static const struct {
		const char *name;
		const char *line; /* NULL: random bytes */
	} texts[] = {
		{ "ASCII", plain },       { "coloured", coloured }, { "CJK", cjk },
		{ "Cyrillic", cyrillic }, { "random", NULL },
	};
	static const struct {
		const char *name;
		codec_fn run;
	} codecs[] = {
		{ "memcpy", run_memcpy },
		{ "json_escape", run_json_escape },
		{ "utf8_valid_prefix", run_utf8_valid },
		{ "utf8_replace", run_utf8_replace },
		{ "base64_encode", run_base64_encode },
		{ "base64_decode", run_base64_decode },
		{ "ws_mask", run_ws_mask },
	};
	uint8_t *text = malloc(TEXT_BYTES);
	if (text == NULL)
		return 1;
	printf("MB/s of text in pieces of %d bytes (how many times faster memcpy of them is)\n",
	       PIECE_BYTES);
	for (size_t t = 0; t < sizeof(texts) / sizeof(texts[0]); t++) {
		if (texts[t].line != NULL)
			fill_lines(text, texts[t].line);
		else
			fill_random(text);
		double memcpy_mb_s = 0;
		for (size_t c = 0; c < sizeof(codecs) / sizeof(codecs[0]); c++) {
			double mb_s = measure(codecs[c].run, text);
			if (c == 0)
				memcpy_mb_s = mb_s;
			printf("%-9s %-18s %8.0f (%.1f)\n", texts[t].name, codecs[c].name, mb_s,
			       memcpy_mb_s / mb_s);
		}
	}
	free(text);
	return 0;
}
