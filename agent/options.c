/* options.c -- see options.h. */
#include "agent/options.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "agent/shell.h"
#include "agent/version.h"

#define TOKEN_VARIABLE "PTYCAST_AGENT_TOKEN"

static const char usage[] =
	"usage: ptycast-agent [flags] command [argument ...]\n"
	"\n"
	"  --mode NAME              single, client, server (as pty-tunnel-server), agent (version 2\n"
	"                           only, shells come over the wire); default single\n"
	"  --port N                 port to listen at; 0: the first free one of 8000 to 9000, in\n"
	"                           mode agent any; default 0\n"
	"  --listen ADDRESS         numeric address to listen at; default all\n"
	"  --token TEXT             better: --token-file FILE, or " TOKEN_VARIABLE " in the\n"
	"                           environment; default random\n"
	"  --cols N, --rows N       size of the terminal; default 80 and 24\n"
	"  --cwd DIRECTORY          where the command starts; default here\n"
	"  --env NAME=VALUE         for the command; may be given again\n"
	"  --config FILE            the agent of mode client and server is found beside this file;\n"
	"                           default in /tmp/ptycast-UID\n"
	"  --registration FILE      mode agent: print the handshake of the agent that runs for FILE, or\n"
	"                           start it in the background\n"
	"  --inactivity-deadline T  end a shell that no client was ready for; default 60s\n"
	"  --alone T                hang up a version 2 shell without a holder; 0 never; default 10m\n"
	"  --linger T               keep output and status of an ended shell, from when its status was\n"
	"                           told; until then for the longer of this and --alone; default 10m\n"
	"  --idle-exit T            end an agent that has no shell; default 60s\n"
	"  --ring-bytes N           output kept for each shell; default 4194304\n"
	"  --reader-stall T         how long a reader without progress may stop the terminal; default 2s\n"
	"  --lost-holder T          how long output waits for a holder that was lost; default 10s\n"
	"  --ping-interval T, --ping-timeout T  default 20s and 35s\n"
	"  --debug                  log on stderr\n"
	"  --help, --version\n";

enum kind {
	KIND_BOOL,
	KIND_TEXT,
	KIND_NUMBER,
	KIND_TIME,
	KIND_ENV,
};

struct flag {
	const char *name;
	enum kind kind;
	size_t offset; /* in struct options */
	uint64_t min, max;
};

#define SECOND_MS UINT64_C(1000)
#define MINUTE_MS (SECOND_MS * 60)
#define DAY_MS (MINUTE_MS * 60 * 24)
#define AT(member) offsetof(struct options, member)

static const struct flag flags[] = {
	{ "alone", KIND_TIME, AT(alone_ms), 0, DAY_MS * 365 },
	{ "cols", KIND_NUMBER, AT(cols), 1, SHELL_CELLS_MAX },
	{ "config", KIND_TEXT, AT(config), 0, 0 },
	{ "cwd", KIND_TEXT, AT(cwd), 0, 0 },
	{ "debug", KIND_BOOL, AT(debug), 0, 0 },
	{ "env", KIND_ENV, 0, 0, 0 },
	{ "h", KIND_BOOL, AT(help), 0, 0 },
	{ "help", KIND_BOOL, AT(help), 0, 0 },
	{ "idle-exit", KIND_TIME, AT(idle_exit_ms), 0, DAY_MS * 365 },
	{ "inactivity-deadline", KIND_TIME, AT(inactivity_ms), 0, DAY_MS * 365 },
	{ "linger", KIND_TIME, AT(linger_ms), 0, DAY_MS * 365 },
	{ "listen", KIND_TEXT, AT(listen), 0, 0 },
	{ "lost-holder", KIND_TIME, AT(lost_ms), 0, DAY_MS },
	{ "mode", KIND_TEXT, AT(mode_name), 0, 0 },
	{ "ping-interval", KIND_TIME, AT(ping_ms), 100, DAY_MS },
	{ "ping-timeout", KIND_TIME, AT(dead_ms), 100, DAY_MS },
	{ "port", KIND_NUMBER, AT(port), 0, 65535 },
	{ "reader-stall", KIND_TIME, AT(stall_ms), 0, DAY_MS },
	{ "registration", KIND_TEXT, AT(registration), 0, 0 },
	{ "ring-bytes", KIND_NUMBER, AT(ring_bytes), OPTIONS_RING_BYTES_MIN,
	  OPTIONS_RING_BYTES_MAX },
	{ "rows", KIND_NUMBER, AT(rows), 1, SHELL_CELLS_MAX },
	{ "token", KIND_TEXT, AT(token_flag), 0, 0 },
	{ "token-file", KIND_TEXT, AT(token_file), 0, 0 },
	{ "version", KIND_BOOL, AT(version), 0, 0 },
};

/* One "12.5s" of a duration, in nanoseconds. Returns what is behind it, or NULL. */
static const char *parse_part(const char *text, uint64_t *ret_ns)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = { { "ns", 1 },
		      { "us", 1000 },
		      { "\xc2\xb5s", 1000 },
		      { "ms", 1000000 },
		      { "s", 1000000000 },
		      { "m", UINT64_C(60000000000) },
		      { "h", UINT64_C(3600000000000) } };
	uint64_t value = 0, scale = 1;
	bool digits = false, fraction = false;
	for (; (*text >= '0' && *text <= '9') || (*text == '.' && !fraction); text++) {
		if (*text == '.') {
			fraction = true;
			continue;
		}
		digits = true;
		if (scale >= 1000000) /* finer than anybody means */
			continue;
		if (value > 1000000000)
			return NULL;
		value = value * 10 + (uint64_t)(*text - '0');
		scale *= fraction ? 10 : 1;
	}
	for (size_t i = 0; digits && i < sizeof(units) / sizeof(*units); i++) {
		size_t size = strlen(units[i].name);
		if (strncmp(text, units[i].name, size) != 0)
			continue;
		if (value > UINT64_MAX / 4 / units[i].ns)
			return NULL;
		*ret_ns = value * units[i].ns / scale;
		return text + size;
	}
	return NULL;
}

int options_duration(const char *text, uint64_t *ret_ms)
{
	uint64_t total = 0;
	if (strcmp(text, "0") == 0)
		text = "0s";
	if (*text == '\0')
		return -EINVAL;
	while (*text != '\0') {
		uint64_t ns = 0;
		text = parse_part(text, &ns);
		if (text == NULL || total > UINT64_MAX / 2)
			return -EINVAL;
		total += ns;
	}
	*ret_ms = total / 1000000;
	return 0;
}

static int parse_number(const char *text, uint64_t *ret)
{
	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end != '\0' || errno != 0)
		return -EINVAL;
	*ret = value;
	return 0;
}

static int parse_bool(const char *text, bool *ret)
{
	static const char *const names[2][3] = { { "0", "f", "false" }, { "1", "t", "true" } };
	for (int value = 0; value < 2; value++) {
		for (int i = 0; i < 3; i++) {
			if (strcasecmp(text, names[value][i]) == 0) {
				*ret = value;
				return 0;
			}
		}
	}
	return -EINVAL;
}

static int set_env(const char *entry)
{
	const char *equals = strchr(entry, '=');
	if (equals == NULL || equals == entry)
		return -EINVAL;
	char *name = strndup(entry, (size_t)(equals - entry));
	int rc = name != NULL ? setenv(name, equals + 1, 1) : -1;
	free(name);
	return rc == 0 ? 0 : -ENOMEM;
}

static int set_flag(const struct flag *flag, char *text, struct options *o)
{
	void *at = (char *)o + flag->offset;
	uint64_t number = 0;
	switch (flag->kind) {
	case KIND_BOOL:
		return parse_bool(text, at);
	case KIND_TEXT:
		*(char **)at = text;
		return 0;
	case KIND_ENV:
		return set_env(text);
	case KIND_NUMBER:
		if (parse_number(text, &number) < 0)
			return -EINVAL;
		break;
	case KIND_TIME:
		if (options_duration(text, &number) < 0)
			return -EINVAL;
		break;
	}
	if (number < flag->min || number > flag->max)
		return -EINVAL;
	*(uint64_t *)at = number;
	return 0;
}

static const struct flag *find_flag(const char *name, size_t size)
{
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		if (strlen(flags[i].name) == size && memcmp(flags[i].name, name, size) == 0)
			return &flags[i];
	}
	return NULL;
}

/* Reads the flag at argv[*at] and moves on. Returns 0, 1 when the flags end here, or -EINVAL, said. */
static int parse_flag(char **argv, int *at, struct options *o)
{
	char *word = argv[*at];
	if (word == NULL || word[0] != '-' || word[1] == '\0')
		return 1;
	++*at;
	if (strcmp(word, "--") == 0)
		return 1;
	char *name = word + (word[1] == '-' ? 2 : 1);
	size_t size = strcspn(name, "=");
	const struct flag *flag = find_flag(name, size);
	if (flag == NULL) {
		fprintf(stderr, "flag provided but not defined: -%.*s\n%s", (int)size, name, usage);
		return -EINVAL;
	}
	static char set[] = "true";
	char *value = set;
	if (name[size] == '=')
		value = name + size + 1;
	else if (flag->kind != KIND_BOOL)
		value = argv[*at] != NULL ? argv[(*at)++] : NULL;
	if (value == NULL) {
		fprintf(stderr, "flag needs an argument: -%s\n%s", flag->name, usage);
		return -EINVAL;
	}
	if (set_flag(flag, value, o) < 0) {
		fprintf(stderr, "invalid value for flag -%s\n%s", flag->name, usage);
		return -EINVAL;
	}
	return 0;
}

/* Copies a token and overwrites the place it came from, which other processes can read. */
static int take_token(struct options *o, char *from)
{
	char *copy = strdup(from);
	memset(from, '\0', strlen(from));
	if (copy == NULL || strlen(copy) > SHELL_TOKEN_BYTES_MAX) {
		free(copy);
		return -EINVAL;
	}
	o->token = copy;
	return 0;
}

static int read_token_file(struct options *o)
{
	char text[SHELL_TOKEN_BYTES_MAX + 2];
	int fd = open(o->token_file, O_RDONLY | O_CLOEXEC);
	ssize_t size = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (fd >= 0)
		close(fd);
	if (size < 0)
		return -EINVAL;
	text[size] = '\0';
	text[strcspn(text, "\r\n")] = '\0';
	return text[0] != '\0' ? take_token(o, text) : -EINVAL;
}

static int find_token(struct options *o)
{
	char *variable = getenv(TOKEN_VARIABLE);
	int rc = 0;
	if (o->token_flag != NULL && *o->token_flag != '\0')
		rc = take_token(o, o->token_flag);
	else if (o->token_file != NULL)
		rc = read_token_file(o);
	else if (variable != NULL && *variable != '\0')
		rc = take_token(o, variable);
	if (variable != NULL) {
		memset(variable, '\0', strlen(variable));
		unsetenv(TOKEN_VARIABLE);
	}
	if (rc < 0)
		fprintf(stderr, "token cannot be read, or has more than %d characters\n",
			SHELL_TOKEN_BYTES_MAX);
	return rc;
}

static int find_mode(struct options *o)
{
	static const char *const names[] = { [MODE_SINGLE] = "single",
					     [MODE_CLIENT] = "client",
					     [MODE_SERVER] = "server",
					     [MODE_AGENT] = "agent" };
	for (size_t i = 0; i < sizeof(names) / sizeof(*names) && o->mode_name != NULL; i++) {
		if (strcmp(o->mode_name, names[i]) == 0) {
			o->mode = (enum mode)i;
			return 0;
		}
	}
	return o->mode_name == NULL ? 0 : -EINVAL; /* the first is the default */
}

enum options_verdict options_parse(int argc, char **argv, struct options *ret, int *status)
{
	struct options o = { .cols = 80,
			     .rows = 24,
			     .ring_bytes = 4 << 20,
			     .inactivity_ms = MINUTE_MS,
			     .linger_ms = MINUTE_MS * 10,
			     .alone_ms = MINUTE_MS * 10,
			     .idle_exit_ms = MINUTE_MS,
			     .stall_ms = SECOND_MS * 2,
			     .lost_ms = SECOND_MS * 10,
			     .ping_ms = SECOND_MS * 20,
			     .dead_ms = SECOND_MS * 35 };
	int at = argc > 0 ? 1 : 0, rc;
	while ((rc = parse_flag(argv, &at, &o)) == 0)
		;
	*status = 2;
	if (find_token(&o) < 0 || rc < 0)
		goto free_token;
	if (o.help || o.version) {
		fputs(o.help ? usage : "ptycast-agent " AGENT_VERSION "\n", stdout);
		*status = 0;
		goto free_token;
	}
	if (find_mode(&o) < 0) {
		fputs(usage, stdout);
		*status = 1; /* as the original */
		goto free_token;
	}
	if (o.registration != NULL && o.mode != MODE_AGENT) {
		fprintf(stderr, "flag -registration is for mode agent\n%s", usage);
		goto free_token;
	}
	o.command = argv + at;
	const char *term = getenv("TERM");
	if (term == NULL || *term == '\0')
		setenv("TERM", "xterm-256color", 1);
	*ret = o;
	return OPTIONS_RUN;

free_token:
	free(o.token);
	return OPTIONS_EXIT;
}
