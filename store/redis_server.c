/* redis_server.c -- see redis_server.h. */
#include "store/redis_server.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "service/log.h"

/* The value on the line that starts with "name:", cut to size - 1; false: there is no such line, or the value
 * has characters that no value of ours has. */
static bool find(const char *info, const char *name, char *ret, size_t size)
{
	size_t name_size = strlen(name);
	for (const char *line = info; line != NULL;) {
		if (strncmp(line, name, name_size) == 0 && line[name_size] == ':') {
			const char *value = line + name_size + 1;
			size_t n = strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789.-_");
			if (n == 0 || n >= size || (value[n] != '\r' && value[n] != '\n'))
				return false;
			memcpy(ret, value, n);
			ret[n] = '\0';
			return true;
		}
		line = strchr(line, '\n');
		if (line != NULL)
			line++;
	}
	return false;
}

static bool new_enough(const char *version)
{
	char *end;
	unsigned long major = strtoul(version, &end, 10);
	unsigned long minor = *end == '.' ? strtoul(end + 1, NULL, 10) : 0;
	return major > 6 || (major == 6 && minor >= 2);
}

int redis_server_check(const char *info, char run_id[REDIS_RUN_ID_BYTES], struct error *err)
{
	char version[32], mode[32], role[32], policy[32], id[REDIS_RUN_ID_BYTES];
	const struct {
		const char *name;
		char *value;
		size_t size;
	} wanted[] = {
		{ "redis_version", version, sizeof(version) },
		{ "redis_mode", mode, sizeof(mode) },
		{ "role", role, sizeof(role) },
		{ "maxmemory_policy", policy, sizeof(policy) },
		{ "run_id", id, sizeof(id) },
	};
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		if (!find(info, wanted[i].name, wanted[i].value, wanted[i].size))
			return error_set(err, -EBADMSG, "redis: INFO does not say %s",
					 wanted[i].name);

	if (!new_enough(version))
		return error_set(err, -EPROTO,
				 "redis: the server is Redis %s; 6.2 or newer is needed", version);
	if (strcmp(mode, "standalone") != 0)
		return error_set(err, -EINVAL,
				 "redis: the server runs as %s; a single server is needed "
				 "(cluster-enabled no)",
				 mode);
	if (strcmp(role, "master") != 0)
		return error_set(
			err, -EROFS,
			"redis: the server is a replica of another; give the address of the "
			"master");
	if (strcmp(policy, "noeviction") != 0)
		return error_set(
			err, -EINVAL,
			"redis: the server may throw records away (maxmemory-policy %s); set "
			"it to noeviction",
			policy);
	memcpy(run_id, id, strlen(id) + 1);
	return 0;
}

int redis_server_refusal(const char *answer, const char *what, struct error *err)
{
	static const struct {
		const char *start;
		int code;
	} codes[] = {
		{ "NOAUTH", -EACCES },   { "WRONGPASS", -EACCES }, { "NOPERM", -EACCES },
		{ "ERR AUTH", -EACCES }, { "LOADING", -EAGAIN },   { "MASTERDOWN", -EAGAIN },
		{ "READONLY", -EAGAIN }, { "BUSY", -EAGAIN },      { "OOM", -ENOSPC },
	};
	int code = -EIO;
	if (answer == NULL)
		answer = "that is no answer to it";
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (strncmp(answer, codes[i].start, strlen(codes[i].start)) == 0)
			code = codes[i].code;
	char text[160];
	return error_set(err, code, "redis: %s refused: %s", what,
			 log_safe(text, sizeof(text), answer));
}
