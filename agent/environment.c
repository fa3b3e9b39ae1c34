/* environment.c -- see environment.h. */
#include "agent/environment.h"

#include <stdlib.h>
#include <string.h>

static size_t count(char **strings)
{
	size_t n = 0;
	while (strings[n] != NULL)
		n++;
	return n;
}

/* Where the entry of the same name stands among the first n, or n. */
static size_t find(char **env, size_t n, const char *entry)
{
	size_t name_size = strcspn(entry, "=") + 1;
	size_t i = 0;
	while (i < n && strncmp(env[i], entry, name_size) != 0)
		i++;
	return i;
}

char **environment_merge(char **base, char **extra)
{
	size_t n = count(base);
	char **env = calloc(n + count(extra) + 1, sizeof(*env));
	if (env == NULL)
		return NULL;
	memcpy(env, base, n * sizeof(*env));
	for (; *extra != NULL; extra++) {
		if (**extra == '=' || strchr(*extra, '=') == NULL)
			continue;
		size_t i = find(env, n, *extra);
		env[i] = *extra;
		n += i == n;
	}
	return env;
}

char *environment_get(char **env, const char *name)
{
	size_t size = strlen(name);
	for (; *env != NULL; env++) {
		if (strncmp(*env, name, size) == 0 && (*env)[size] == '=')
			return (*env)[size + 1] != '\0' ? *env + size + 1 : NULL;
	}
	return NULL;
}
