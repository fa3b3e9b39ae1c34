/* log.c -- builds a line on the stack and gives it to the kernel in one write(2), so that lines of
 * many threads never mix. Whatever a caller passed, a line has no line end, no terminal escape and
 * at most LINE_BYTES in it. */
#include "service/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 2048

static const char *const level_names[] = {
	[LOG_DEBUG] = "debug",
	[LOG_INFO] = "info",
	[LOG_WARN] = "warn",
	[LOG_ERROR] = "error",
};

/* Set by log_init() before the first thread, then only read. */
static enum log_level lowest = LOG_INFO;
static bool as_json;

struct line {
	char text[LINE_BYTES];
	size_t size;
	bool full;
};

void log_init(enum log_level level, bool json)
{
	lowest = level;
	as_json = json;
}

bool log_enabled(enum log_level level)
{
	return level >= lowest;
}

static bool is_plain(char c)
{
	return c >= ' ' && c <= '~';
}

const char *log_safe(char *out, unsigned size, const char *text)
{
	unsigned i = 0;
	for (; size > 0 && i + 1 < size && text[i] != '\0'; i++)
		out[i] = is_plain(text[i]) && text[i] != '"' && text[i] != '\\' ? text[i] : '?';
	if (size > 0)
		out[i] = '\0';
	return out;
}

/* Appends all of text or, when reserve bytes would not be left behind it, nothing. */
static void append(struct line *line, const char *text, size_t size, size_t reserve)
{
	if (line->full || size + reserve > sizeof(line->text) - line->size) {
		line->full = true;
		return;
	}
	memcpy(line->text + line->size, text, size);
	line->size += size;
}

/* "2026-11-23T02:15:36.123Z" */
static void format_time(char out[32])
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	struct tm utc;
	gmtime_r(&now.tv_sec, &utc);
	char seconds[24];
	strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(out, 32, "%.20s.%03dZ", seconds, (int)(now.tv_nsec / 1000000));
}

/* Digits that every JSON reader takes as the same number: past 15 they may be rounded, and an epoch
 * or an id made of digits by chance is rather a string. */
static bool is_number(const char *value, size_t size)
{
	size_t sign = size > 1 && value[0] == '-';
	size_t digits = size - sign;
	if (digits == 0 || digits > 15 || (value[sign] == '0' && digits > 1))
		return false;
	return strspn(value + sign, "0123456789") >= digits;
}

static void append_json_string(struct line *line, const char *text, size_t size, size_t reserve)
{
	append(line, "\"", 1, reserve);
	for (size_t i = 0; i < size; i++) {
		if (text[i] == '"' || text[i] == '\\')
			append(line, "\\", 1, reserve);
		append(line, &text[i], 1, reserve);
	}
	append(line, "\"", 1, reserve);
}

static const char cut_json[] = ",\"cut\":true";

/* Appends ,"key":value whole, or nothing and the mark that the line was cut. */
static void append_json_member(struct line *line, const char *key, size_t key_size,
			       const char *value, size_t value_size, bool quoted)
{
	static const size_t reserve = sizeof(cut_json) + sizeof("}\n");
	size_t start = line->size;
	append(line, ",", 1, reserve);
	append_json_string(line, key, key_size, reserve);
	append(line, ":", 1, reserve);
	if (!quoted && is_number(value, value_size))
		append(line, value, value_size, reserve);
	else
		append_json_string(line, value, value_size, reserve);
	if (line->full)
		line->size = start;
}

static void append_json_pairs(struct line *line, const char *pairs)
{
	for (const char *at = pairs; *at != '\0';) {
		at += strspn(at, " ");
		const char *key = at;
		size_t key_size = strcspn(at, "= ");
		at += key_size;
		bool has_value = *at == '=';
		at += has_value;
		if (key_size == 0 || !has_value)
			continue; /* half a pair: a caller's slip, not worth a line */
		bool quoted = *at == '"';
		at += quoted;
		const char *value = at;
		at += strcspn(at, quoted ? "\"" : " ");
		append_json_member(line, key, key_size, value, (size_t)(at - value), quoted);
		at += *at == '"';
	}
}

static void format_json(struct line *line, const char *now, enum log_level level, const char *event,
			const char *pairs)
{
	static const char start[] = "{\"time\":\"";
	append(line, start, sizeof(start) - 1, 0);
	append(line, now, strlen(now), 0);
	append(line, "\"", 1, 0);
	append_json_member(line, "level", 5, level_names[level], strlen(level_names[level]), true);
	append_json_member(line, "event", 5, event, strlen(event), true);
	append_json_pairs(line, pairs);
	if (line->full) {
		line->full = false;
		append(line, cut_json, sizeof(cut_json) - 1, 0);
	}
	append(line, "}\n", 2, 0);
}

static void format_text(struct line *line, const char *now, enum log_level level, const char *event,
			const char *pairs)
{
	/* Two bytes stay free, for the line end and vsnprintf's 0. */
	int size = snprintf(line->text, sizeof(line->text) - 1, "%s %s %s%s%s", now,
			    level_names[level], event, *pairs == '\0' ? "" : " ", pairs);
	line->size = size < (int)sizeof(line->text) - 2 ? (size_t)size : sizeof(line->text) - 2;
	line->text[line->size++] = '\n';
}

void log_write(enum log_level level, const char *event, const char *format, ...)
{
	if (!log_enabled(level))
		return;
	int saved_errno = errno;

	char pairs[LINE_BYTES];
	va_list args;
	va_start(args, format);
	vsnprintf(pairs, sizeof(pairs), format, args);
	va_end(args);
	for (char *c = pairs; *c != '\0'; c++)
		if (!is_plain(*c))
			*c = '?';

	char now[32];
	format_time(now);
	struct line line;
	line.size = 0;
	line.full = false;
	if (as_json)
		format_json(&line, now, level, event, pairs);
	else
		format_text(&line, now, level, event, pairs);

	ssize_t written;
	do {
		written = write(STDERR_FILENO, line.text, line.size);
	} while (written < 0 && errno == EINTR);
	errno = saved_errno;
}
