/* log.h -- structured lines on stderr: an event, then key=value with units.
 * Never a token, a key, input or output. Each line is one write(). Thread: any. */
#pragma once

#include <stdbool.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Before the first thread. json: one JSON object a line, else logfmt with a timestamp. */
void log_init(enum log_level level, bool json);

/* event is a fixed text without "="; format gives the pairs, "session=%s retry_ms=%u", values
 * without spaces; a value with spaces goes last as text="...". Outside texts are escaped by the
 * caller through log_safe(). */
void log_write(enum log_level level, const char *event, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

bool log_enabled(enum log_level level);

/* Copies text with quotes, control characters and non-ASCII bytes replaced, cut to size - 1.
 * Returns out. */
const char *log_safe(char *out, unsigned size, const char *text);

#define log_debug(event, ...) log_write(LOG_DEBUG, event, __VA_ARGS__)
#define log_info(event, ...) log_write(LOG_INFO, event, __VA_ARGS__)
#define log_warn(event, ...) log_write(LOG_WARN, event, __VA_ARGS__)
#define log_error(event, ...) log_write(LOG_ERROR, event, __VA_ARGS__)
