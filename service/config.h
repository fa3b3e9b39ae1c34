/* config.h -- what `ptycast serve` can be told: one struct, and in config.c one table with each
 * flag, its environment variable, default, unit and bounds. A flag wins over its variable. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "service/error.h"

struct config_api_key {
	const char *key;
	const char *subject;
	const char *role; /* "view", "write", "admin" or "operator" */
};

/* Strings are owned by the config. Set by config_load(), then read-only: any thread reads it. */
struct config {
	/* where and what */
	const char *listen; /* PTYCAST_LISTEN, "127.0.0.1:8080"; "[::1]:0" is allowed */
	/* PTYCAST_METRICS_LISTEN, none: /metrics is on the main listener, with a key */
	const char *metrics_listen;
	const char *store;     /* PTYCAST_STORE, "sqlite:ptycast.db" */
	const char *providers; /* PTYCAST_PROVIDERS, comma list of local, url; none */
	/* PTYCAST_AGENT, path of ptycast-agent; else beside the program or in ../lib/ptycast/ */
	const char *agent;
	const char *tunnel_url; /* PTYCAST_TUNNEL_URL, ws:// or wss:// */
	/* PTYCAST_TUNNEL_TRANSPORT, "agent" (default) or "pty-tunnel" */
	const char *tunnel_transport;
	const char *tunnel_token;     /* PTYCAST_TUNNEL_TOKEN, control token for transport agent */
	const char *ca_file;          /* PTYCAST_CA_FILE, PEM of private CAs for wss */
	const char *runloop_base_url; /* RUNLOOP_BASE_URL, https://api.runloop.ai */
	const char *
		runloop_tunnel_url; /* RUNLOOP_TUNNEL_URL, with {port} and {tunnel_key}; by the API's host */
	const char *cors_origins; /* PTYCAST_CORS_ORIGINS, comma list of exact origins */
	/* PTYCAST_ALLOWED_HOSTS, comma list of more Host names on loopback */
	const char *allowed_hosts;
	const char *local_on_stop; /* PTYCAST_LOCAL_ON_STOP, "keep" (default) or "end" */
	const char *log_level;     /* debug, info (default), warn, error */
	const char *log_format;    /* text (default), json */

	/* who may */
	struct config_api_key *api_keys; /* PTYCAST_API_KEYS, key=subject[:role],... */
	size_t api_keys_count;
	const char *jwt_secret;          /* PTYCAST_JWT_SECRET */
	const char *jwt_public_key_file; /* PTYCAST_JWT_PUBLIC_KEY_FILE */
	bool jwt_require_exp;            /* PTYCAST_JWT_REQUIRE_EXP, 1 */
	const char *public_key;          /* PTYCAST_PUBLIC_KEY, 64 hex digits: of the newest */
	const char *private_key;         /* PTYCAST_PRIVATE_KEY, comma list of such, newest first */

	/* limits; units in the names, defaults in config.c */
	unsigned loop_threads;        /* 0: one a core */
	unsigned http_threads;        /* 0: one a core */
	unsigned provisioner_threads; /* 64, started when needed */
	unsigned provisioner_queue;   /* 1024 jobs waiting, then 503 */
	size_t journal_bytes;         /* 4 MiB a session */
	size_t journals_total_bytes;  /* 1 GiB for all */
	size_t agent_ring_bytes;      /* 4 MiB: told to agents */
	unsigned tick_ms;             /* 15: longest wait of a viewer that was just written to */
	unsigned flow_stall_ms;    /* 2000: longest that no viewer's progress may hold a tunnel */
	unsigned ping_s;           /* 15 */
	unsigned retry_ms;         /* 1500: SSE retry */
	unsigned max_stream_age_s; /* 3600; 0: never rotated */
	unsigned drain_s;          /* 5: streams end within this at a stop */
	unsigned forget_s;         /* 600: ended sessions are kept */
	unsigned alone_s;          /* 600: a shell without service lives on */
	unsigned input_timeout_ms; /* 5000 */
	unsigned input_gap_ms;     /* 2000 */
	size_t input_bytes;        /* 1 MiB a request; an agent takes 4 MiB */
	size_t input_queue_bytes;  /* 4 MiB a session waiting */
	size_t bodies_total_bytes; /* 64 MiB of request bodies held at once */
	unsigned open_timeout_ms;  /* 30000: provisioning and first attach */
	unsigned provision_timeout_ms; /* 180000: until a remote sandbox runs and has its agent */
	unsigned detach_s;             /* 300: unused, a session lets go of its remote sandbox */
	unsigned keep_alive_s;         /* 60: between two signs of life to a provider */
	unsigned remote_alone_s; /* 172800: a shell in a remote sandbox without service lives on */
	unsigned reconnect_s;    /* 300: without a tunnel for that long a session ends, lost */
	unsigned
		replica_ttl_ms; /* 2000: without a sign of life others take over; the same for all replicas */
	unsigned idle_timeout_s;            /* 0: none; default of a session's idle_timeout_s */
	unsigned pty_idle_timeout_s;        /* 3600: the same of those that /pty and /tty make */
	unsigned max_sessions;              /* 2000 that are not ended, of all subjects */
	unsigned max_sessions_per_subject;  /* 500 */
	unsigned max_ended;                 /* 2000 kept, the oldest go first */
	unsigned max_sandboxes_per_subject; /* 10000 stored */
	unsigned max_viewers;               /* 12000 */
	unsigned max_viewers_per_session;   /* 5000 */
	unsigned max_connections;           /* 16000 */
	unsigned max_tickets;               /* 10000 spent and remembered; with Redis no limit */
	unsigned request_head_bytes;        /* 8192 */
	unsigned request_timeout_s;         /* 30: idle keep-alive or unfinished request */
	unsigned unauthorized_per_minute;   /* failed credentials an address before 429; 120 */
};

/* Reads argv (what comes behind "serve") and the environment. Returns 0, or a negative errno with a
 * sentence that names the flag and what is allowed. An empty variable counts as unset. The values
 * of secret flags in argv are overwritten, so that /proc/PID/cmdline does not show them: argv's
 * strings must be writable. */
int config_load(int argc, char **argv, char **envp, struct config **ret, struct error *err);
void config_destroy(struct config *c); /* wipes secrets */

/* Prints every flag with variable, default and unit. */
void config_help(FILE *out);

/* Splits "host:port", "[v6]:port" into a numeric address, without brackets, and a port; "localhost"
 * is 127.0.0.1. Returns 0 or -EINVAL, host and port untouched. */
int config_split_listen(const char *text, char host[64], uint16_t *port);

/* True for the addresses of 127.0.0.0/8 and ::1. */
bool config_is_loopback(const char *host);
