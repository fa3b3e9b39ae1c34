/* error.c -- see error.h. */
#include "service/error.h"

#include <stdio.h>

int error_set(struct error *err, int code, const char *format, ...)
{
	if (err == NULL)
		return code;
	va_list args;
	va_start(args, format);
	vsnprintf(err->text, sizeof(err->text), format, args);
	va_end(args);
	err->code = code;
	err->slug = NULL;
	return code;
}

int error_set_slug(struct error *err, int code, const char *slug, const char *format, ...)
{
	if (err == NULL)
		return code;
	va_list args;
	va_start(args, format);
	vsnprintf(err->text, sizeof(err->text), format, args);
	va_end(args);
	err->code = code;
	err->slug = slug;
	return code;
}
