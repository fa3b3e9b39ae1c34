/* config.c -- the table of all options, and how flags and environment are read by it. What a value
 * must look like beyond its kind is in config_check.c. Error texts name the flag and never hold a
 * secret. */
#include "service/config.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "service/config_check.h"

enum kind {
	KIND_STRING,
	KIND_SECRET, /* a string that is or may hold one: wiped from argv, as API keys are */
	KIND_API_KEYS,
	KIND_BOOL,
	KIND_UNSIGNED,
	KIND_SIZE,
};

#define K UINT64_C(1024)
#define M (K * K)
#define G (K * M)

/* The environment variable of "max-viewers" is PTYCAST_MAX_VIEWERS; a provider's own names stay as they
 * are: RUNLOOP_BASE_URL. */
struct option {
	const char *flag;
	size_t offset; /* of its member in struct config */
	enum kind kind;
	const char *fallback; /* the default, as it would be given; NULL: none */
	uint64_t min, max;    /* of numbers */
	const char *unit;     /* of numbers; of strings the form, or for a choice "a|b" */
	const char *help;
};

#define AT(member) offsetof(struct config, member)
/* clang-format off */
static const struct option options[] = {
	{ "listen", AT(listen), KIND_STRING, "127.0.0.1:8080", 0, 0, "ADDRESS:PORT",
	  "where to serve; without any credential configured only a loopback address" },
	{ "metrics-listen", AT(metrics_listen), KIND_STRING, NULL, 0, 0, "ADDRESS:PORT",
	  "a listener of its own for /metrics, which asks for no key" },
	{ "store", AT(store), KIND_SECRET, "sqlite:ptycast.db", 0, 0,
	  "sqlite:PATH or redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]",
	  "where sessions are remembered; those that share one Redis serve each other's" },
	{ "providers", AT(providers), KIND_STRING, NULL, 0, 0, "local,url,runloop",
	  "where sessions may run, comma-separated; local gives shells on this machine" },
	{ "agent", AT(agent), KIND_STRING, NULL, 0, 0, "PATH",
	  "the program ptycast-agent; else beside this one, else in ../lib/ptycast/" },
	{ "tunnel-url", AT(tunnel_url), KIND_SECRET, NULL, 0, 0, "ws[s]://HOST[:PORT][/PATH]",
	  "the pty server that provider url connects to" },
	{ "tunnel-transport", AT(tunnel_transport), KIND_STRING, "agent", 0, 0, "agent|pty-tunnel",
	  "what that server speaks" },
	{ "tunnel-token", AT(tunnel_token), KIND_SECRET, NULL, 0, 0, "TEXT",
	  "that server's control token" },
	{ "ca-file", AT(ca_file), KIND_STRING, NULL, 0, 0, "PATH",
	  "PEM file of private CAs to trust for wss://" },
	{ "runloop-base-url", AT(runloop_base_url), KIND_STRING, "https://api.runloop.ai", 0, 0,
	  "http[s]://HOST[:PORT]", "Runloop's API" },
	{ "runloop-tunnel-url", AT(runloop_tunnel_url), KIND_STRING, NULL, 0, 0, "URL",
	  "its tunnels, with {port} and {tunnel_key} in it; else wss://{port}-{tunnel_key}.tunnel.DOMAIN" },
	{ "cors-origins", AT(cors_origins), KIND_STRING, NULL, 0, 0, "ORIGIN,...",
	  "pages that may use the API, as in https://app.example.com" },
	{ "allowed-hosts", AT(allowed_hosts), KIND_STRING, NULL, 0, 0, "HOST,...",
	  "more Host names to accept on a loopback listener" },
	{ "local-on-stop", AT(local_on_stop), KIND_STRING, "keep", 0, 0, "keep|end",
	  "what a stop does with the shells of provider local" },
	{ "log-level", AT(log_level), KIND_STRING, "info", 0, 0, "debug|info|warn|error",
	  "the least that is logged" },
	{ "log-format", AT(log_format), KIND_STRING, "text", 0, 0, "text|json",
	  "how it is logged, to stderr" },

	{ "api-keys", AT(api_keys), KIND_API_KEYS, NULL, 0, 0, "KEY=SUBJECT[:ROLE],...",
	  "who may: role view, write, admin (default) or operator" },
	{ "jwt-secret", AT(jwt_secret), KIND_SECRET, NULL, 0, 0, "TEXT",
	  "accept JWTs signed with it by HS256; 16 bytes at the least" },
	{ "jwt-public-key-file", AT(jwt_public_key_file), KIND_STRING, NULL, 0, 0, "PATH",
	  "accept JWTs by this PEM key: RS256 for an RSA key, ES256 for a P-256 key" },
	{ "jwt-require-exp", AT(jwt_require_exp), KIND_BOOL, "1", 0, 0, "0|1",
	  "refuse JWTs that never expire" },
	{ "public-key", AT(public_key), KIND_STRING, NULL, 0, 0, "64 HEX DIGITS",
	  "the newest private key's other half; need not be given" },
	{ "private-key", AT(private_key), KIND_SECRET, NULL, 0, 0, "64 HEX DIGITS,...",
	  "the newest seals stored credentials, all open them; without one it is made beside the SQLite file" },

	{ "loop-threads", AT(loop_threads), KIND_UNSIGNED, "0", 0, 256, "threads",
	  "that carry sessions; 0: one a core" },
	{ "http-threads", AT(http_threads), KIND_UNSIGNED, "0", 0, 256, "threads",
	  "that answer requests; 0: one a core" },
	{ "provisioner-threads", AT(provisioner_threads), KIND_UNSIGNED, "64", 1, 256, "threads",
	  "that call providers" },
	{ "provisioner-queue", AT(provisioner_queue), KIND_UNSIGNED, "1024", 1, 65536, "jobs",
	  "that may wait for them; then 503" },
	{ "journal-bytes", AT(journal_bytes), KIND_SIZE, "4M", 64 * K, G, "bytes",
	  "of output kept of a session" },
	{ "journals-total-bytes", AT(journals_total_bytes), KIND_SIZE, "1G", M, 1024 * G, "bytes",
	  "of output kept of all sessions" },
	{ "agent-ring-bytes", AT(agent_ring_bytes), KIND_SIZE, "4M", 64 * K, G, "bytes",
	  "of output that an agent keeps of a shell" },
	{ "tick-ms", AT(tick_ms), KIND_UNSIGNED, "15", 1, 1000, "milliseconds",
	  "longest wait of output for a viewer that was just written to" },
	{ "flow-stall-ms", AT(flow_stall_ms), KIND_UNSIGNED, "2000", 0, 60000, "milliseconds",
	  "that viewers who stopped reading may hold a session's output" },
	{ "ping-s", AT(ping_s), KIND_UNSIGNED, "15", 1, 300, "seconds",
	  "between pings to an idle viewer" },
	{ "retry-ms", AT(retry_ms), KIND_UNSIGNED, "1500", 1, 600000, "milliseconds",
	  "that an EventSource waits before it reconnects" },
	{ "max-stream-age-s", AT(max_stream_age_s), KIND_UNSIGNED, "3600", 0, 604800, "seconds",
	  "after which a stream is closed to be opened anew; 0: never" },
	{ "drain-s", AT(drain_s), KIND_UNSIGNED, "5", 0, 3600, "seconds",
	  "within which streams end when the service stops" },
	{ "forget-s", AT(forget_s), KIND_UNSIGNED, "600", 1, 604800, "seconds",
	  "that an ended session is kept" },
	{ "alone-s", AT(alone_s), KIND_UNSIGNED, "600", 1, 604800, "seconds",
	  "that a shell lives on without the service" },
	{ "input-timeout-ms", AT(input_timeout_ms), KIND_UNSIGNED, "5000", 100, 600000,
	  "milliseconds",
	  "in which input must be delivered; then 503" },
	{ "input-gap-ms", AT(input_gap_ms), KIND_UNSIGNED, "2000", 0, 60000, "milliseconds",
	  "to wait for a missing Input-Seq; then 409" },
	{ "input-bytes", AT(input_bytes),KIND_SIZE, "1M", 1, M, "bytes",
	  "of input in one request" },
	{ "input-queue-bytes", AT(input_queue_bytes), KIND_SIZE, "4M", 4 * K, G, "bytes",
	  "of input that may wait for a session; then 429" },
	{ "bodies-total-bytes", AT(bodies_total_bytes), KIND_SIZE, "64M", M, 64 * G, "bytes",
	  "of request bodies held at once; then 503" },
	{ "open-timeout-ms", AT(open_timeout_ms), KIND_UNSIGNED, "30000", 100, 3600000,
	  "milliseconds",
	  "in which a new session must be open" },
	{ "provision-timeout-ms", AT(provision_timeout_ms), KIND_UNSIGNED, "180000", 1000, 3600000,
	  "milliseconds",
	  "until a remote sandbox runs and has its agent" },
	{ "detach-s", AT(detach_s), KIND_UNSIGNED, "300", 1, 604800, "seconds",
	  "without viewer and input after which a session lets go of its remote sandbox" },
	{ "keep-alive-s", AT(keep_alive_s), KIND_UNSIGNED, "60", 1, 3600, "seconds",
	  "between signs of life to a provider" },
	{ "remote-alone-s", AT(remote_alone_s), KIND_UNSIGNED, "172800", 1, 31536000, "seconds",
	  "that a shell in a remote sandbox lives on without the service" },
	{ "reconnect-s", AT(reconnect_s), KIND_UNSIGNED, "300", 1, 604800, "seconds",
	  "of reconnecting in vain; then the session is lost" },
	{ "replica-ttl-ms", AT(replica_ttl_ms), KIND_UNSIGNED, "2000", 500, 60000, "milliseconds",
	  "without a sign of life after which other replicas take a replica's sessions over" },
	{ "idle-timeout-s", AT(idle_timeout_s), KIND_UNSIGNED, "0", 0, 31536000, "seconds",
	  "without viewer, input and output that end a session; 0: none" },
	{ "pty-idle-timeout-s", AT(pty_idle_timeout_s), KIND_UNSIGNED, "3600", 0, 31536000,
	  "seconds",
	  "the same of sessions that were opened by /pty or /tty" },
	{ "max-sessions", AT(max_sessions), KIND_UNSIGNED, "2000", 1, 1000000, "sessions",
	  "that are not ended" },
	{ "max-sessions-per-subject", AT(max_sessions_per_subject), KIND_UNSIGNED, "500", 1, 1000000,
	  "sessions",
	  "that are not ended, of one subject" },
	{ "max-ended", AT(max_ended), KIND_UNSIGNED, "2000", 0, 1000000, "sessions",
	  "that have ended and are kept" },
	{ "max-sandboxes-per-subject", AT(max_sandboxes_per_subject), KIND_UNSIGNED, "10000", 0,
	  1000000, "sandboxes",
	  "stored of one subject" },
	{ "max-viewers", AT(max_viewers), KIND_UNSIGNED, "12000", 1, 1000000, "viewers",
	  "of all sessions" },
	{ "max-viewers-per-session", AT(max_viewers_per_session), KIND_UNSIGNED, "5000", 1, 1000000,
	  "viewers",
	  "of one session" },
	{ "max-connections", AT(max_connections), KIND_UNSIGNED, "16000", 1, 1000000, "connections",
	  "to the listener" },
	{ "max-tickets", AT(max_tickets), KIND_UNSIGNED, "10000", 1, 1000000, "tickets",
	  "for one use that are spent and have not expired; Redis remembers them without this limit" },
	{ "request-head-bytes", AT(request_head_bytes), KIND_UNSIGNED, "8192", 1024, 65536, "bytes",
	  "of a request's line and headers" },
	{ "request-timeout-s", AT(request_timeout_s), KIND_UNSIGNED, "30", 1, 3600, "seconds",
	  "for an unfinished request or an idle connection" },
	{ "unauthorized-per-minute", AT(unauthorized_per_minute), KIND_UNSIGNED, "120", 1, 1000000,
	  "requests",
	  "without a good credential that an address may make; then 429" },
};
/* clang-format on */
#define OPTION_COUNT (sizeof(options) / sizeof(options[0]))

/* What was given for each option: borrowed from argv, envp or the table; NULL: nothing. */
struct given {
	const char *value[OPTION_COUNT];
	char *in_argv[OPTION_COUNT]; /* to be wiped when it is secret */
};

static void env_name(const struct option *o, char ret[64])
{
	bool own = strncmp(o->flag, "runloop-", 8) == 0;
	size_t i = (size_t)snprintf(ret, 64, "%s%s", own ? "" : "PTYCAST_", o->flag);
	while (i-- > 0)
		if (ret[i] == '-')
			ret[i] = '_';
		else if (ret[i] >= 'a' && ret[i] <= 'z')
			ret[i] = (char)(ret[i] - 'a' + 'A');
}

/* --- reading --- */

/* Finds the option called name, of size bytes. */
static const struct option *find_option(const char *name, size_t size)
{
	for (size_t i = 0; i < OPTION_COUNT; i++)
		if (strlen(options[i].flag) == size && memcmp(options[i].flag, name, size) == 0)
			return &options[i];
	return NULL;
}

static void read_environment(char **envp, struct given *given)
{
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		char name[64];
		env_name(&options[i], name);
		size_t size = strlen(name);
		for (char **e = envp; e != NULL && *e != NULL; e++)
			/* Empty is as good as unset: compose files give it so. */
			if (strncmp(*e, name, size) == 0 && (*e)[size] == '=' &&
			    (*e)[size + 1] != '\0')
				given->value[i] = *e + size + 1;
	}
}

static void wipe_flag(const struct option *o, struct given *given)
{
	char *value = given->in_argv[o - options];
	if ((o->kind == KIND_SECRET || o->kind == KIND_API_KEYS) && value != NULL)
		memset(value, '*', strlen(value));
}

static int read_flags(int argc, char **argv, struct given *given, struct error *err)
{
	for (int i = 0; i < argc; i++) {
		char *arg = argv[i];
		if (strncmp(arg, "--", 2) != 0)
			/* Not repeated: it may be a secret that lost its flag. */
			return error_set(err, -EINVAL,
					 "argument %d is not a flag; see ptycast serve --help",
					 i + 1);
		char *name = arg + 2;
		size_t name_size = strcspn(name, "=");
		const struct option *o = find_option(name, name_size);
		if (o == NULL)
			return error_set(err, -EINVAL,
					 "unknown flag --%.*s; see ptycast serve --help",
					 name_size < 64 ? (int)name_size : 64, name);
		char *value = name + name_size + 1;
		if (name[name_size] == '\0') {
			if (++i == argc)
				return error_set(err, -EINVAL, "--%s needs a value: %s", o->flag,
						 o->unit);
			value = argv[i];
		}
		wipe_flag(o, given); /* given twice: the last wins, and none may stay readable */
		given->value[o - options] = value;
		given->in_argv[o - options] = value;
	}
	return 0;
}

/* --- values --- */

/* "64K" for 65536, if o is a size. */
static void format_number(const struct option *o, uint64_t n, char ret[24])
{
	const char *suffix = "";
	if (o->kind == KIND_SIZE)
		for (const char *next = "KMG"; *next != '\0' && n >= K && n % K == 0; next++) {
			suffix = next;
			n /= K;
		}
	snprintf(ret, 24, "%" PRIu64 "%.1s", n, suffix);
}

/* "1 to 300 seconds" */
static void format_range(const struct option *o, char ret[64])
{
	char min[24], max[24];
	format_number(o, o->min, min);
	format_number(o, o->max, max);
	snprintf(ret, 64, "%s to %s %s", min, max, o->unit);
}

static int set_unsigned(const struct option *o, const char *text, uint64_t *ret, struct error *err)
{
	char *end = NULL;
	errno = 0;
	uint64_t n = text[0] >= '0' && text[0] <= '9' ? strtoull(text, &end, 10) : 0;
	bool bad = end == NULL || errno != 0;
	if (!bad && o->kind == KIND_SIZE && *end != '\0') {
		uint64_t scale = *end == 'K' || *end == 'k'   ? K
				 : *end == 'M' || *end == 'm' ? M
				 : *end == 'G' || *end == 'g' ? G
							      : 0;
		bad = scale == 0 || n > UINT64_MAX / scale;
		n *= scale;
		end++;
	}
	if (bad || *end != '\0' || n < o->min || n > o->max) {
		char range[64];
		format_range(o, range);
		return error_set(err, -EINVAL, "--%s: %s, got \"%.40s\"", o->flag, range, text);
	}
	*ret = n;
	return 0;
}

/* True when text is one of choices, "a|b|c". */
static bool is_choice(const char *choices, const char *text)
{
	for (const char *at = choices; at != NULL; at = strchr(at, '|')) {
		at += *at == '|';
		size_t size = strcspn(at, "|");
		if (strlen(text) == size && memcmp(at, text, size) == 0)
			return true;
	}
	return false;
}

static int set_string(const struct option *o, const char *text, const char **ret, struct error *err)
{
	if (text == NULL || *text == '\0') {
		if (o->fallback == NULL)
			return 0;
		return error_set(err, -EINVAL, "--%s must not be empty: %s", o->flag, o->unit);
	}
	/* "a|b" is a choice. */
	if (strchr(o->unit, '|') != NULL && !is_choice(o->unit, text))
		return error_set(err, -EINVAL, "--%s: %s, got \"%.40s\"", o->flag, o->unit, text);
	*ret = strdup(text);
	return *ret == NULL ? error_set(err, -ENOMEM, "out of memory") : 0;
}

static int set_option(struct config *c, const struct option *o, const char *text, struct error *err)
{
	char *member = (char *)c + o->offset;
	uint64_t n = 0;
	int rc = 0;
	switch (o->kind) {
	case KIND_STRING:
	case KIND_SECRET:
		return set_string(o, text, (const char **)(void *)member, err);
	case KIND_API_KEYS:
		return config_add_api_keys(c, text, err);
	case KIND_BOOL:
		if (strlen(text) != 1 || (text[0] != '0' && text[0] != '1'))
			return error_set(err, -EINVAL, "--%s: 0 or 1, got \"%.40s\"", o->flag,
					 text);
		*(bool *)member = text[0] == '1';
		return 0;
	case KIND_UNSIGNED:
		rc = set_unsigned(o, text, &n, err);
		if (rc == 0)
			*(unsigned *)(void *)member = (unsigned)n;
		return rc;
	case KIND_SIZE:
		rc = set_unsigned(o, text, &n, err);
		if (rc == 0)
			*(size_t *)(void *)member = (size_t)n;
		return rc;
	}
	return rc;
}

/* The agent beside this program (a build), else where `make install` puts it. */
static int find_agent(struct config *c, struct error *err)
{
	if (c->agent != NULL)
		return 0;
	char program[PATH_MAX];
	ssize_t size = readlink("/proc/self/exe", program, sizeof(program) - 1);
	if (size < 0)
		return error_set(err, -errno,
				 "--agent is not given, and /proc/self/exe cannot be "
				 "read to look beside it");
	program[size] = '\0';
	char *slash = strrchr(program, '/');
	if (slash != NULL)
		*slash = '\0';
	char *beside = NULL, *installed = NULL;
	if (asprintf(&beside, "%s/ptycast-agent", program) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	if (asprintf(&installed, "%s/../lib/ptycast/ptycast-agent", program) < 0) {
		free(beside);
		return error_set(err, -ENOMEM, "out of memory");
	}
	bool is_installed = access(beside, X_OK) != 0 && access(installed, X_OK) == 0;
	c->agent = is_installed ? installed : beside;
	free(is_installed ? beside : installed);
	return 0;
}

/* --- the whole --- */

static int apply(struct config *c, const struct given *given, struct error *err)
{
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		const struct option *o = &options[i];
		const char *text = given->value[i] != NULL ? given->value[i] : o->fallback;
		int rc = set_option(c, o, text, err);
		if (rc != 0)
			return rc;
	}
	int rc = config_check(c, err);
	return rc != 0 ? rc : find_agent(c, err);
}

int config_load(int argc, char **argv, char **envp, struct config **ret, struct error *err)
{
	struct config *c = calloc(1, sizeof(*c));
	if (c == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	struct given given = { 0 };
	read_environment(envp, &given);
	int rc = read_flags(argc, argv, &given, err);
	if (rc == 0)
		rc = apply(c, &given, err);
	for (size_t i = 0; i < OPTION_COUNT; i++)
		wipe_flag(&options[i], &given);
	if (rc != 0) {
		config_destroy(c);
		return rc;
	}
	*ret = c;
	return 0;
}

static void free_text(const char *text)
{
	if (text == NULL)
		return;
	char *mine = (char *)text; /* const for readers; from strdup() */
	explicit_bzero(mine, strlen(mine));
	free(mine);
}

void config_destroy(struct config *c)
{
	if (c == NULL)
		return;
	for (size_t i = 0; i < c->api_keys_count; i++) {
		free_text(c->api_keys[i].key);
		free_text(c->api_keys[i].subject);
		free_text(c->api_keys[i].role);
	}
	free(c->api_keys);
	for (size_t i = 0; i < OPTION_COUNT; i++)
		if (options[i].kind == KIND_STRING || options[i].kind == KIND_SECRET)
			free_text(*(const char **)(void *)((char *)c + options[i].offset));
	free(c);
}

void config_help(FILE *out)
{
	fprintf(out,
		"Each flag has an environment variable; the flag wins. Sizes take K, M or G.\n");
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		const struct option *o = &options[i];
		bool is_number = o->kind == KIND_UNSIGNED || o->kind == KIND_SIZE;
		char name[64];
		env_name(o, name);
		fprintf(out, "\n  --%s %s\n      %s\n      %s, default %s", o->flag,
			is_number ? "N" : o->unit, o->help, name,
			o->fallback != NULL ? o->fallback : "none");
		if (is_number) {
			char range[64];
			format_range(o, range);
			fprintf(out, "; %s", range);
		}
		fputc('\n', out);
	}
}
