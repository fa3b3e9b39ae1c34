/* reply.c -- see reply.h. */
#include "service/reply.h"

#include <stdarg.h>
#include <stdio.h>

struct reply reply_ok(unsigned status)
{
	return (struct reply){ .status = status };
}

struct reply reply_problem(unsigned status, const char *slug, const char *format, ...)
{
	struct reply reply = { .status = status, .slug = slug };
	va_list args;
	va_start(args, format);
	vsnprintf(reply.detail, sizeof(reply.detail), format, args);
	va_end(args);
	return reply;
}
