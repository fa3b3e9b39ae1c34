/* log.c -- see log.h. */
#include "agent/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "agent/json.h"

/* Set once, in main(), before anything is logged. */
static bool debug;

void log_set_debug(bool on)
{
	debug = on;
}

static void log_line(const char *level, const char *format, va_list args)
{
	char text[512];
	vsnprintf(text, sizeof(text), format, args);
	char line[128 + JSON_STRING_BYTES(sizeof(text))];
	size_t size = (size_t)snprintf(line, sizeof(line),
				       "{\"level\":\"%s\",\"pid\":%d,\"msg\":\"", level,
				       (int)getpid());
	size += json_string(line + size, text);
	line[size++] = '"';
	line[size++] = '}';
	line[size++] = '\n';
	(void)!write(STDERR_FILENO, line, size);
}

void log_debug(const char *format, ...)
{
	if (!debug)
		return;
	va_list args;
	va_start(args, format);
	log_line("debug", format, args);
	va_end(args);
}

void log_error(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	log_line("error", format, args);
	va_end(args);
}
