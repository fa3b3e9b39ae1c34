/* tools_import.c -- `ptycast import`. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "service/json_body.h"
#include "service/sandbox.h"
#include "service/sandbox_change.h"
#include "service/tools_private.h"
#include "store/store.h"

#define LINE_BYTES_MAX ((size_t)128 << 10) /* as POST /sandboxes takes */

static const char *const import_members[] = { "id",          "subject",    "provider",
					      "external_id", "credential", "credential_sealed",
					      "name",        "metadata",   "transport",
					      "agent",       "resume",     NULL };

static enum sandbox_result import_line(struct app *app, const char *line, size_t size, bool update,
				       struct problem *problem)
{
	json_auto_t *object = json_body_parse(line, size, import_members, problem);
	if (object == NULL)
		return SANDBOX_REFUSED;
	struct store_sandbox record = { 0 };
	enum sandbox_result result = SANDBOX_REFUSED;
	if (sandbox_read(app, object, true, &record, problem))
		result = sandbox_put(app, &record, update, problem);
	store_sandbox_fini(&record);
	return result;
}

static bool is_blank(const char *line, size_t size)
{
	while (size > 0 && memchr(" \t\r\n", line[size - 1], 4) != NULL)
		size--;
	return size == 0;
}

/* Counts by enum sandbox_result. */
static int import_lines(struct app *app, FILE *in, bool update, unsigned counts[4])
{
	char *line = NULL;
	size_t room = 0;
	ssize_t size;
	for (unsigned number = 1; (size = getline(&line, &room, in)) >= 0; number++) {
		struct problem problem = { 0 };
		enum sandbox_result result = SANDBOX_REFUSED;
		if (is_blank(line, (size_t)size))
			continue;
		if ((size_t)size > LINE_BYTES_MAX)
			problem = problem_make(413, "payload-too-large", "more than 128 KiB");
		else
			result = import_line(app, line, (size_t)size, update, &problem);
		explicit_bzero(line, (size_t)size);
		counts[result]++;
		if (result == SANDBOX_REFUSED)
			fprintf(stderr, "line %u: %s%s%s%s\n", number, problem.reply.detail,
				problem.allowed[0] == '\0' ? "" : " (possible: ", problem.allowed,
				problem.allowed[0] == '\0' ? "" : ")");
	}
	int rc = ferror(in) != 0 ? -errno : 0;
	free(line);
	return rc;
}

int tool_import(int argc, char **argv)
{
	if (tool_wants_help(argc, argv)) {
		printf("usage: ptycast import [--update] [--FLAG VALUE ...] [FILE|-]\n"
		       "Stores sandboxes: each line of FILE, else of stdin, is a JSON object as POST /sandboxes takes it, with its\n"
		       "subject. One that is stored with other content is an error; with --update it is changed. An error is told\n"
		       "with its line, and the others go on. Exit status 1: some failed.\n");
		return 0;
	}
	bool update = tool_take_flag(&argc, argv, "--update");
	/* The file comes last, and is no flag's value. */
	const char *path = "-";
	const char *last = argc > 0 ? argv[argc - 1] : "--";
	bool is_value = argc > 1 && strncmp(argv[argc - 2], "--", 2) == 0 &&
			strchr(argv[argc - 2], '=') == NULL;
	if (strncmp(last, "--", 2) != 0 && !is_value) {
		path = last;
		argc--;
	}
	struct tool_bench b;
	int status = tool_open(&b, true, argc, argv);
	if (status != 0)
		return status;
	bool is_stdin = strcmp(path, "-") == 0;
	FILE *in = is_stdin ? stdin : fopen(path, "re");
	if (in == NULL) {
		status = tool_fail("%.200s: %s", path, strerror(errno));
		tool_close(&b);
		return status;
	}
	unsigned counts[4] = { 0 };
	int rc = import_lines(&b.app, in, update, counts);
	if (rc != 0)
		tool_fail("%.200s: %s", path, strerror(-rc));
	if (!is_stdin)
		fclose(in);
	printf("%u created, %u unchanged, %u changed, %u failed\n", counts[SANDBOX_CREATED],
	       counts[SANDBOX_UNCHANGED], counts[SANDBOX_CHANGED], counts[SANDBOX_REFUSED]);
	tool_close(&b);
	return tool_flushed(rc != 0 || counts[SANDBOX_REFUSED] > 0 ? 1 : 0);
}
