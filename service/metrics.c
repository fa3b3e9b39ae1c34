/* metrics.c -- fixed-size tables of relaxed atomics. A reader may see one counter newer than
 * another; each by itself is exact. */
#include "service/metrics.h"

#include <assert.h>
#include <dirent.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* Metrics of one name stand together: HELP and TYPE are printed before the first. */
static const struct {
	const char *name;
	const char *type;
	const char *labels; /* with braces, or "" */
	const char *help;
} table[METRIC_COUNT] = {
#define STATE_HELP "Sessions by state."
#define VIEWER_HELP "Streams that are open now."
#define RESET_HELP "Viewers that were told to start again, by reason."
	[METRIC_VIEWERS_SSE] = { "ptycast_viewers", "gauge", "{kind=\"sse\"}", VIEWER_HELP },
	[METRIC_VIEWERS_WS] = { "ptycast_viewers", "gauge", "{kind=\"ws\"}", VIEWER_HELP },
	[METRIC_JOURNAL_BYTES] = { "ptycast_journal_bytes", "gauge", "",
				   "Memory that all journals hold." },
	[METRIC_INPUT_QUEUE_BYTES] = { "ptycast_input_queue_bytes", "gauge", "",
				       "Input that waits in the service for its tunnel." },
	[METRIC_MAILBOX_MESSAGES] = { "ptycast_mailbox_messages", "gauge", "",
				      "Messages that wait for a loop thread." },
	[METRIC_PROVISIONER_JOBS] = { "ptycast_provisioner_jobs", "gauge", "",
				      "Provider calls that wait or run." },
	[METRIC_TICKETS] = { "ptycast_tickets", "gauge", "",
			     "Single-use tickets that are spent and remembered; with Redis 0." },
	[METRIC_BODIES_BYTES] = { "ptycast_request_bodies_bytes", "gauge", "",
				  "Request bodies that are held now." },
	[METRIC_SESSIONS_PROVISIONING] = { "ptycast_sessions", "gauge", "{state=\"provisioning\"}",
					   STATE_HELP },
	[METRIC_SESSIONS_CONNECTING] = { "ptycast_sessions", "gauge", "{state=\"connecting\"}",
					 STATE_HELP },
	[METRIC_SESSIONS_OPEN] = { "ptycast_sessions", "gauge", "{state=\"open\"}", STATE_HELP },
	[METRIC_SESSIONS_RECONNECTING] = { "ptycast_sessions", "gauge", "{state=\"reconnecting\"}",
					   STATE_HELP },
	[METRIC_SESSIONS_ENDED] = { "ptycast_sessions", "gauge", "{state=\"ended\"}", STATE_HELP },
	[METRIC_MIRRORS] = { "ptycast_mirrors", "gauge", "",
			     "Sessions here that another replica has the tunnel of." },
	[METRIC_BUS_CONNECTED] = { "ptycast_bus_connected", "gauge", "",
				   "1 while messages go to and come from other replicas." },
	[METRIC_OUTPUT_BYTES] = { "ptycast_output_bytes_total", "counter", "",
				  "Terminal output received from tunnels." },
	[METRIC_DELIVERED_BYTES] = { "ptycast_delivered_bytes_total", "counter", "",
				     "Bytes written to viewers." },
	[METRIC_DELIVERED_EVENTS] = { "ptycast_delivered_events_total", "counter", "",
				      "Events written to viewers." },
	[METRIC_VIEWER_WRITES] = { "ptycast_viewer_writes_total", "counter", "",
				   "Send calls to viewers." },
	[METRIC_INPUT_BYTES] = { "ptycast_input_bytes_total", "counter", "",
				 "Input that the far end acknowledged." },
	[METRIC_INPUT_REPEATS] = { "ptycast_input_repeats_total", "counter", "",
				   "Input messages that were repeats, and not typed again." },
	[METRIC_INPUT_REFUSED] = { "ptycast_input_refused_total", "counter", "",
				   "Input messages that were refused." },
	[METRIC_RESETS_GAP] = { "ptycast_resets_total", "counter", "{reason=\"gap\"}", RESET_HELP },
	[METRIC_RESETS_AHEAD] = { "ptycast_resets_total", "counter", "{reason=\"ahead\"}",
				  RESET_HELP },
	[METRIC_RESETS_EPOCH] = { "ptycast_resets_total", "counter", "{reason=\"epoch\"}",
				  RESET_HELP },
	[METRIC_RECONNECTS] = { "ptycast_tunnel_reconnects_total", "counter", "",
				"Tunnels that were opened again." },
	[METRIC_FLOW_PAUSES] = { "ptycast_tunnel_pauses_total", "counter", "",
				 "Times that reading a tunnel waited for viewers." },
	[METRIC_SESSIONS_CREATED] = { "ptycast_sessions_created_total", "counter", "",
				      "Sessions created." },
	[METRIC_UNAUTHORIZED] = { "ptycast_unauthorized_total", "counter", "",
				  "Requests without a good credential." },
	[METRIC_STORE_ERRORS] = { "ptycast_store_errors_total", "counter", "",
				  "Writes to the store that failed, each try." },
	[METRIC_PROVIDER_CALLS] = { "ptycast_provider_calls_total", "counter", "",
				    "Requests to a provider's API, each try." },
	[METRIC_BUS_PUBLISHED_MESSAGES] = { "ptycast_bus_published_messages_total", "counter", "",
					    "Messages sent to other replicas." },
	[METRIC_BUS_PUBLISHED_BYTES] = { "ptycast_bus_published_bytes_total", "counter", "",
					 "Bytes of the messages sent to other replicas." },
	[METRIC_BUS_RECEIVED_MESSAGES] = { "ptycast_bus_received_messages_total", "counter", "",
					   "Messages received from replicas, own ones too." },
	[METRIC_BUS_RECEIVED_BYTES] = { "ptycast_bus_received_bytes_total", "counter", "",
					"Bytes of the messages received." },
	[METRIC_BUS_DROPPED_MESSAGES] = { "ptycast_bus_dropped_messages_total", "counter", "",
					  "Messages not sent: no connection, or too many waited." },
	[METRIC_BUS_RECONNECTS] = { "ptycast_bus_reconnects_total", "counter", "",
				    "Connections to Redis for messages that were made again." },
	[METRIC_TAKEOVERS] = { "ptycast_takeovers_total", "counter", "",
			       "Sessions of other replicas that this one took over." },
	[METRIC_STEP_DOWNS] = { "ptycast_step_downs_total", "counter", "",
				"Sessions of this replica that others took over." },
	[METRIC_MIRROR_PULLS] = { "ptycast_mirror_pulls_total", "counter", "",
				  "Pieces of output that mirrors here asked their owners for." },
};

/* A cache line each: threads that count different things do not slow each other down. */
static struct {
	alignas(64) _Atomic int64_t value;
} values[METRIC_COUNT];

#define BUCKET_COUNT 14
static const struct {
	uint64_t us;
	const char *le; /* the same in seconds */
} buckets[BUCKET_COUNT] = {
	{ 500, "0.0005" },  { 1000, "0.001" },  { 2500, "0.0025" }, { 5000, "0.005" },
	{ 10000, "0.01" },  { 25000, "0.025" }, { 50000, "0.05" },  { 100000, "0.1" },
	{ 250000, "0.25" }, { 500000, "0.5" },  { 1000000, "1" },   { 2500000, "2.5" },
	{ 5000000, "5" },   { 10000000, "10" },
};

#define CLASS_COUNT 5 /* 1xx to 5xx */
#define STATUS_COUNT (CLASS_COUNT * 100)

static struct {
	_Atomic(const char *) name; /* static text; NULL: not used yet */
	_Atomic uint64_t by_class[CLASS_COUNT];
	_Atomic uint64_t in_bucket[BUCKET_COUNT + 1]; /* the last: longer than any */
	_Atomic uint64_t sum_us;
} routes[METRIC_ROUTES_MAX];

static _Atomic uint64_t statuses[STATUS_COUNT];

void metric_add(enum metric m, int64_t n)
{
	atomic_fetch_add_explicit(&values[m].value, n, memory_order_relaxed);
}

int64_t metric_get(enum metric m)
{
	return atomic_load_explicit(&values[m].value, memory_order_relaxed);
}

static void count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static uint64_t get(_Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void metric_http(unsigned route, const char *route_name, unsigned status, uint64_t duration_us)
{
	assert(route < METRIC_ROUTES_MAX);
	assert(status >= 100 && status < 100 + STATUS_COUNT);
	unsigned bucket = 0;
	while (bucket < BUCKET_COUNT && duration_us > buckets[bucket].us)
		bucket++;
	count(&routes[route].by_class[status / 100 - 1], 1);
	count(&routes[route].in_bucket[bucket], 1);
	count(&routes[route].sum_us, duration_us);
	count(&statuses[status - 100], 1);
	atomic_store_explicit(&routes[route].name, route_name, memory_order_release);
}

static void head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void render_table(FILE *out)
{
	const char *previous = "";
	for (size_t i = 0; i < METRIC_COUNT; i++) {
		if (strcmp(previous, table[i].name) != 0)
			head(out, table[i].name, table[i].type, table[i].help);
		previous = table[i].name;
		fprintf(out, "%s%s %" PRId64 "\n", table[i].name, table[i].labels,
			metric_get((enum metric)i));
	}
}

static const char *route_label(size_t i)
{
	return atomic_load_explicit(&routes[i].name, memory_order_acquire);
}

static void render_histogram(FILE *out, size_t route, const char *label)
{
	static const char name[] = "ptycast_http_request_duration_seconds";
	uint64_t total = 0;
	for (size_t i = 0; i < BUCKET_COUNT; i++) {
		total += get(&routes[route].in_bucket[i]);
		fprintf(out, "%s_bucket{route=\"%s\",le=\"%s\"} %" PRIu64 "\n", name, label,
			buckets[i].le, total);
	}
	total += get(&routes[route].in_bucket[BUCKET_COUNT]);
	uint64_t sum_us = get(&routes[route].sum_us);
	fprintf(out, "%s_bucket{route=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", name, label, total);
	fprintf(out, "%s_sum{route=\"%s\"} %" PRIu64 ".%06u\n", name, label, sum_us / 1000000,
		(unsigned)(sum_us % 1000000));
	fprintf(out, "%s_count{route=\"%s\"} %" PRIu64 "\n", name, label, total);
}

static void render_http(FILE *out)
{
	head(out, "ptycast_http_requests_total", "counter",
	     "Answered requests by route and class of status.");
	for (size_t i = 0; i < METRIC_ROUTES_MAX; i++) {
		const char *label = route_label(i);
		for (unsigned c = 0; label != NULL && c < CLASS_COUNT; c++) {
			uint64_t n = get(&routes[i].by_class[c]);
			if (n > 0)
				fprintf(out,
					"ptycast_http_requests_total{route=\"%s\",class=\"%uxx\"} "
					"%" PRIu64 "\n",
					label, c + 1, n);
		}
	}
	head(out, "ptycast_http_responses_total", "counter", "Answered requests by status.");
	for (unsigned i = 0; i < STATUS_COUNT; i++) {
		uint64_t n = get(&statuses[i]);
		if (n > 0)
			fprintf(out, "ptycast_http_responses_total{status=\"%u\"} %" PRIu64 "\n",
				i + 100, n);
	}
	head(out, "ptycast_http_request_duration_seconds", "histogram",
	     "Time from a request to its answer, by route.");
	for (size_t i = 0; i < METRIC_ROUTES_MAX; i++)
		if (route_label(i) != NULL)
			render_histogram(out, i, route_label(i));
}

static bool read_file(const char *path, char *ret, size_t size)
{
	FILE *f = fopen(path, "re");
	if (f == NULL)
		return false;
	ret[fread(ret, 1, size - 1, f)] = '\0';
	fclose(f);
	return true;
}

static uint64_t resident_bytes(void)
{
	char statm[128];
	if (!read_file("/proc/self/statm", statm, sizeof(statm)))
		return 0;
	const char *second = strchr(statm, ' ');
	uint64_t pages = second != NULL ? strtoull(second, NULL, 10) : 0;
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static unsigned open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	if (dir == NULL)
		return 0;
	unsigned n = 0;
	for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
		if (entry->d_name[0] != '.')
			n++;
	closedir(dir);
	return n - 1; /* not the one that reads the directory */
}

static double seconds(struct timespec t)
{
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double start_time;

/* Read once: asked again after the clock was set it would be another. */
static void read_start_time(void)
{
	struct timespec wall, boot;
	clock_gettime(CLOCK_REALTIME, &wall);
	clock_gettime(CLOCK_BOOTTIME, &boot);
	start_time = seconds(wall);

	char stat[1024];
	if (!read_file("/proc/self/stat", stat, sizeof(stat)))
		return;
	/* Field 22, counted from behind the command, which may hold spaces: proc(5). */
	const char *at = strrchr(stat, ')');
	for (int field = 2; at != NULL && field < 22; field++)
		at = strchr(at + 1, ' ');
	if (at != NULL) {
		double ticks = strtod(at + 1, NULL);
		start_time += ticks / (double)sysconf(_SC_CLK_TCK) - seconds(boot);
	}
}

static void render_process(FILE *out)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, read_start_time);
	struct rusage used = { 0 };
	getrusage(RUSAGE_SELF, &used);
	double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
		     (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;

	head(out, "process_resident_memory_bytes", "gauge", "Resident memory.");
	fprintf(out, "process_resident_memory_bytes %" PRIu64 "\n", resident_bytes());
	head(out, "process_cpu_seconds_total", "counter", "User and system CPU time.");
	fprintf(out, "process_cpu_seconds_total %.6f\n", cpu);
	head(out, "process_open_fds", "gauge", "Open file descriptors.");
	fprintf(out, "process_open_fds %u\n", open_fds());
	head(out, "process_start_time_seconds", "gauge", "Unix time of the start.");
	fprintf(out, "process_start_time_seconds %.2f\n", start_time);
}

char *metrics_render(size_t *size)
{
	char *text = NULL;
	FILE *out = open_memstream(&text, size);
	if (out == NULL)
		return NULL;
	render_table(out);
	render_http(out);
	render_process(out);
	bool failed = ferror(out) != 0;
	if (fclose(out) != 0 || failed) {
		free(text);
		return NULL;
	}
	return text;
}
