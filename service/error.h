/* error.h -- why something failed, for a person: a negative errno and one sentence. It lives on the
 * caller's stack and owns nothing. Texts never hold a secret. */
#pragma once

#include <stdarg.h>

struct error {
	int code; /* negative errno; 0 when nothing failed */
	char text[256];
	const char *slug; /* static: the kind, for a program, as in /problems/<slug>; NULL: none */
};

/* Fills err (NULL is allowed) and returns code, so that "return error_set(err, -EINVAL, ...)"
 * works. */
int error_set(struct error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* The same with a slug. */
int error_set_slug(struct error *err, int code, const char *slug, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
