/* tools.c -- see tools.h: the table of them, and what they share. Secrets come by the environment, a file or stdin; what
 * is printed of errors never has one. */
#include "service/tools.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "service/config.h"
#include "service/config_keys.h"
#include "service/tools_private.h"
#include "store/seal.h"
#include "store/store.h"

int tool_fail(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fputs("ptycast: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	return 1;
}

bool tool_wants_help(int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		if (strcmp(argv[i], "--help") == 0)
			return true;
	return false;
}

bool tool_take_flag(int *argc, char **argv, const char *name)
{
	int kept = 0;
	for (int i = 0; i < *argc; i++)
		if (strcmp(argv[i], name) != 0)
			argv[kept++] = argv[i];
	bool found = kept < *argc;
	*argc = kept;
	return found;
}

void tool_hide_memory(void)
{
#ifndef __SANITIZE_ADDRESS__ /* which looks into its own process for leaks */
	prctl(PR_SET_DUMPABLE, 0);
#endif
}

void tool_close(struct tool_bench *b)
{
	if (b->app.store != NULL)
		b->app.store_ops->close(b->app.store);
	seal_keys_destroy(b->app.seal_keys);
	config_destroy(b->config);
}

int tool_open_keys(struct tool_bench *b, bool make, int argc, char **argv)
{
	struct error err = { 0 };
	*b = (struct tool_bench){ 0 };
	tool_hide_memory();
	if (config_load(argc, argv, environ, &b->config, &err) < 0) {
		tool_fail("%s", err.text);
		return 2;
	}
	if (config_seal_keys(b->config, make, &b->app.seal_keys, &err) == 0)
		return 0;
	tool_fail("%s", err.text);
	tool_close(b);
	return 1;
}

int tool_open(struct tool_bench *b, bool make, int argc, char **argv)
{
	int status = tool_open_keys(b, make, argc, argv);
	if (status != 0)
		return status;
	struct error err = { 0 };
	b->providers.names = b->config->providers;
	b->app.config = b->config;
	b->app.providers = &b->providers;
	bool redis = strncmp(b->config->store, "redis:", 6) == 0;
	b->app.store_ops = redis ? &store_redis : &store_sqlite;
	const char *location = b->config->store + strcspn(b->config->store, ":") + 1;
	signal(SIGPIPE, SIG_IGN); /* a Redis that goes away; of stdout tool_flushed() tells */
	if (!redis && !make && access(location, F_OK) != 0)
		error_set(&err, -errno, "--store: %.100s: %s", location, strerror(errno));
	else if (b->app.store_ops->open_tool(location, &b->app.store, &err) == 0)
		return 0;
	tool_fail("%s", err.text);
	tool_close(b);
	return 1;
}

int tool_flushed(int status)
{
	return fflush(stdout) == 0 && ferror(stdout) == 0
		       ? status
		       : tool_fail("stdout: %s", strerror(errno));
}

const struct tool tools[] = {
	{ "keygen", "make a key pair that seals credentials", tool_keygen },
	{ "seal", "seal a credential from stdin", tool_seal },
	{ "reseal", "seal all that is stored with the newest key", tool_reseal },
	{ "import", "store sandboxes from JSON lines", tool_import },
	{ 0 },
};
