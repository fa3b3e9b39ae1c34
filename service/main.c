/* main.c -- `ptycast serve`: reads the configuration, wires the parts, waits for a signal, and undoes
 * it all in reverse. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "providers/provider.h"
#include "service/app.h"
#include "service/auth.h"
#include "service/config.h"
#include "service/config_keys.h"
#include "service/http.h"
#include "service/json_body.h"
#include "service/log.h"
#include "service/loop.h"
#include "service/provisioner.h"
#include "service/registry.h"
#include "service/replicas.h"
#include "service/tools.h"
#include "service/version.h"
#include "store/bus.h"
#include "store/seal.h"
#include "store/store.h"

#define ATTENDANT_THREADS 32
#define ATTENDANT_QUEUE 8192 /* a few for each session */
#define CLERK_THREADS 8
#define CLERK_QUEUE 1024   /* requests that wait for the store; then 503 */
#define STOP_EXTRA_MS 5000 /* beyond drain_s, for shells that are hung up */

static void usage(FILE *out)
{
	fprintf(out, "usage: ptycast serve [--FLAG VALUE ...]   run the service\n"
		     "       ptycast serve --help             list its flags\n"
		     "       ptycast --version\n");
	for (const struct tool *t = tools; t->name != NULL; t++)
		fprintf(out, "       ptycast %-25s%s\n", t->name, t->help);
}

static void set_log(const struct config *cfg)
{
	static const char *const levels[] = { "debug", "info", "warn", "error" };
	enum log_level level = LOG_INFO;
	for (unsigned i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
		if (strcmp(cfg->log_level, levels[i]) == 0)
			level = (enum log_level)i;
	log_init(level, strcmp(cfg->log_format, "json") == 0);
}

/* Signals reach sigwait() in main() alone; a child that ends leaves nothing behind. */
static void set_signals(sigset_t *wanted)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN };
	struct sigaction reap = { .sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT };
	sigaction(SIGPIPE, &ignore, NULL);
	sigaction(SIGCHLD, &reap, NULL);
	sigemptyset(wanted);
	sigaddset(wanted, SIGTERM);
	sigaddset(wanted, SIGINT);
	pthread_sigmask(SIG_BLOCK, wanted, NULL);
}

/* Shells of provider local run as the same user: they must not read our memory or environment. */
static void hide_memory(void)
{
#ifndef __SANITIZE_ADDRESS__ /* which looks into its own process for leaks */
	prctl(PR_SET_DUMPABLE, 0);
#endif
}

static void raise_descriptor_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int open_store(struct app *app, struct error *err)
{
	const char *store = app->config->store;
	const struct store_ops *ops = app->store_ops;
	size_t scheme = strcspn(store, ":");
	if (strlen(ops->scheme) != scheme || strncmp(store, ops->scheme, scheme) != 0)
		return error_set(err, -EINVAL, "--store: sqlite:PATH or redis://HOST:PORT");
	const char *location = store + scheme + 1;
	int rc = ops->open(location, &app->store, err);
	if (rc < 0)
		return rc;
	return config_seal_keys(app->config, true, &app->seal_keys, err);
}

static int start_loops(struct app *app, struct error *err)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned count = app->config->loop_threads;
	if (count == 0)
		count = cores < 1 ? 1 : (unsigned)cores;
	app->loops = calloc(count, sizeof(struct loop *));
	if (app->loops == NULL)
		return error_set(err, -ENOMEM, "no memory for loops");
	while (app->loops_count < count) {
		int rc = loop_create(app->config, app->loops_count, &app->loops[app->loops_count],
				     err);
		if (rc < 0)
			return rc;
		app->loops_count++;
	}
	return 0;
}

static int start(struct app *app, struct error *err)
{
	const struct config *cfg = app->config;
	replicas_identify(app);
	int rc = open_store(app, err);
	if (rc == 0)
		rc = app->store_ops->get_or_put(app->store, "cookie-key", app->cookie_key,
						sizeof(app->cookie_key), err);
	if (rc == 0)
		rc = app->store_ops->get_or_put(app->store, "params-key", app->params_key,
						sizeof(app->params_key), err);
	if (rc == 0)
		rc = auth_create(cfg, app->cookie_key, &app->auth, err);
	if (rc == 0 && app->store_ops->shared) {
		auth_share_tickets(app->auth);
		rc = replicas_open(app, strchr(cfg->store, ':') + 1, &app->replicas, err);
	}
	if (rc == 0)
		rc = start_loops(app, err);
	if (rc == 0)
		rc = provisioner_create(cfg->provisioner_threads, cfg->provisioner_queue,
					&app->provisioner, err);
	if (rc == 0)
		rc = provisioner_create(ATTENDANT_THREADS, ATTENDANT_QUEUE, &app->attendants, err);
	if (rc == 0)
		rc = provisioner_create(CLERK_THREADS, CLERK_QUEUE, &app->clerks, err);
	if (rc == 0)
		rc = registry_create(app, &app->registry);
	if (rc == 0)
		rc = registry_restore(app->registry, err);
	if (rc == 0 && app->store_ops->shared)
		rc = replicas_start(app->replicas, err);
	if (rc == 0)
		rc = http_create(app, &app->http, err);
	return rc;
}

/* In reverse; also after a start that failed half-way. */
static void stop(struct app *app)
{
	const struct config *cfg = app->config;
	bool all = true;
	atomic_store(&app->draining, true);
	if (app->http != NULL)
		http_quiesce(app->http);
	replicas_stop(app->replicas);
	if (app->registry != NULL)
		all = registry_stop(app->registry, strcmp(cfg->local_on_stop, "end") == 0,
				    cfg->drain_s * 1000 + STOP_EXTRA_MS);
	if (all)
		all = http_destroy(app->http);
	if (!all) { /* a part hangs: what was promised is in the store and the agents, so just go */
		if (app->store != NULL)
			app->store_ops->close(app->store);
		if (app->bus != NULL)
			app->bus_ops->close(app->bus);
		_exit(1);
	}
	provisioner_destroy(app->clerks);
	provisioner_destroy(app->provisioner);
	provisioner_destroy(app->attendants);
	if (app->store != NULL)
		app->store_ops->close(app->store);
	replicas_close(app->replicas); /* others are told of what the store just wrote */
	for (unsigned i = 0; i < app->loops_count; i++)
		loop_destroy(app->loops[i]);
	free(app->loops);
	registry_destroy(app->registry);
	auth_destroy(app->auth);
	seal_keys_destroy(app->seal_keys);
	sodium_memzero(app->cookie_key, sizeof(app->cookie_key));
	sodium_memzero(app->params_key, sizeof(app->params_key));
}

/* Says where it is to be found: for a person, or as one line of JSON. */
static void announce(const struct app *app)
{
	const struct config *cfg = app->config;
	char host[64];
	uint16_t port;
	config_split_listen(cfg->listen, host, &port);
	bool v6 = strchr(host, ':') != NULL;
	const char *key = auth_generated_key(app->auth);
	char url[128];
	snprintf(url, sizeof(url), "http://%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "",
		 app->port);
	log_info("listening", "url=%s providers=%s", url,
		 cfg->providers == NULL ? "none" : cfg->providers);
	bool local = provider_find(app->providers, "local") != NULL;
	if (local)
		log_warn("local shells run as this user", "text=\"%s\"",
			 "provider local gives every subject a shell under this Unix user");
	if (strcmp(cfg->log_format, "json") == 0) {
		printf("{\"event\":\"listening\",\"url\":\"%s\"%s%s%s}\n", url,
		       key == NULL ? "" : ",\"key\":\"", key == NULL ? "" : key,
		       key == NULL ? "" : "\"");
	} else {
		printf("\n  terminal  %s/%s%s%s\n", url,
		       key == NULL ? "" : "#key=", key == NULL ? "" : key,
		       key == NULL || !local ? "" : "&open=local");
		printf("  curl      curl -sS -H 'Authorization: Bearer %s' -H 'Content-Type: application/json' \\\n"
		       "              -d '{\"sandbox\":\"local\",\"id\":\"first\"}' '%s/sessions?wait=open'\n\n",
		       key == NULL ? "YOUR-KEY" : key, url);
	}
	fflush(stdout);
}

static int serve(int argc, char **argv)
{
	struct error err = { 0 };
	struct config *cfg = NULL;
	sigset_t wanted;
	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0) {
			config_help(stdout);
			return 0;
		}
	}
	if (config_load(argc, argv, environ, &cfg, &err) < 0) {
		fprintf(stderr, "ptycast: %s\n", err.text);
		return 2;
	}
	set_log(cfg);
	set_signals(&wanted);
	raise_descriptor_limit();
	hide_memory();
	unsetenv("http_proxy"); /* libwebsockets would send tunnels to local agents through it */
	char agent[PATH_MAX], agent_arm64[PATH_MAX + 8]; /* absolute: started elsewhere */
	struct provider_config providers = {
		.names = cfg->providers,
		.agent = realpath(cfg->agent, agent),
		.ca_file = cfg->ca_file,
		.keep_alive_s = cfg->keep_alive_s,
		.runloop_base_url = cfg->runloop_base_url,
		.runloop_tunnel_url = cfg->runloop_tunnel_url,
		.tunnel_url = cfg->tunnel_url,
		.tunnel_transport = cfg->tunnel_transport,
		.tunnel_token = cfg->tunnel_token,
	};
	snprintf(agent_arm64, sizeof(agent_arm64), "%s-arm64",
		 providers.agent == NULL ? "" : providers.agent);
	if (access(agent_arm64, R_OK) == 0)
		providers.agent_arm64 = agent_arm64;
	bool redis = strncmp(cfg->store, "redis:", 6) == 0;
	struct app app = { .config = cfg,
			   .providers = &providers,
			   .store_ops = redis ? &store_redis : &store_sqlite,
			   .bus_ops = redis ? &bus_redis : &bus_local };
	if (provider_find(&providers, "local") != NULL && access(cfg->agent, X_OK) < 0) {
		fprintf(stderr, "ptycast: --agent: cannot run %s: %s\n", cfg->agent,
			strerror(errno));
		config_destroy(cfg);
		return 2;
	}
	int rc = 0;
	if (provider_find(&providers, "runloop") != NULL)
		rc = runloop_create(&providers, &providers.runloop, &err);
	if (rc == 0)
		rc = start(&app, &err);
	if (rc < 0) {
		fprintf(stderr, "ptycast: %s\n", err.text[0] == '\0' ? strerror(-rc) : err.text);
	} else {
		int number = 0;
		announce(&app);
		sigwait(&wanted, &number);
		log_info("stopping", "signal=%d", number);
		/* Who presses Ctrl-C once more does not want to wait. */
		signal(SIGINT, SIG_DFL);
		sigdelset(&wanted, SIGTERM);
		pthread_sigmask(SIG_UNBLOCK, &wanted, NULL);
	}
	stop(&app);
	runloop_destroy(providers.runloop);
	log_info("stopped", "status=%d", rc < 0 ? 1 : 0);
	config_destroy(cfg);
	return rc < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
	if (sodium_init() < 0) {
		fprintf(stderr, "ptycast: libsodium does not start\n");
		return 1;
	}
	json_body_init();
	if (argc >= 2 && strcmp(argv[1], "serve") == 0)
		return serve(argc - 2, argv + 2);
	for (const struct tool *t = tools; argc >= 2 && t->name != NULL; t++)
		if (strcmp(argv[1], t->name) == 0)
			return t->run(argc - 2, argv + 2);
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		printf("ptycast " PTYCAST_VERSION "\n");
		return 0;
	}
	bool help = argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0);
	usage(help ? stdout : stderr);
	return help ? 0 : 2;
}
