/* environment.h -- environments of programs to start. Thread: one. */
#pragma once

#include <stdbool.h>

/* base with the entries of extra in place of, or behind, its own; both end with NULL, entries of extra
 * without a name are left out. Returns an array for free(), its strings borrowed; NULL: no memory. */
char **environment_merge(char **base, char **extra);

/* The value of name in env, NULL when it is not there or empty. */
char *environment_get(char **env, const char *name);
