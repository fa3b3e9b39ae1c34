/* metrics.h -- counters, gauges and histograms in Prometheus' text form 0.0.4. Each is one atomic,
 * so that counting costs nothing; the names are in metrics.c. Thread: any. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum metric {
	/* gauges */
	METRIC_VIEWERS_SSE,           /* ptycast_viewers{kind="sse"} */
	METRIC_VIEWERS_WS,            /* ptycast_viewers{kind="ws"} */
	METRIC_JOURNAL_BYTES,         /* ptycast_journal_bytes */
	METRIC_INPUT_QUEUE_BYTES,     /* ptycast_input_queue_bytes: waiting in the service */
	METRIC_MAILBOX_MESSAGES,      /* ptycast_mailbox_messages */
	METRIC_PROVISIONER_JOBS,      /* ptycast_provisioner_jobs: waiting or running */
	METRIC_TICKETS,               /* ptycast_tickets */
	METRIC_BODIES_BYTES,          /* ptycast_request_bodies_bytes */
	METRIC_SESSIONS_PROVISIONING, /* ptycast_sessions{state="..."} */
	METRIC_SESSIONS_CONNECTING,
	METRIC_SESSIONS_OPEN,
	METRIC_SESSIONS_RECONNECTING,
	METRIC_SESSIONS_ENDED,
	METRIC_MIRRORS,       /* ptycast_mirrors: of the sessions, those that another replica has */
	METRIC_BUS_CONNECTED, /* ptycast_bus_connected: 1, both ways */
	/* counters */
	METRIC_OUTPUT_BYTES,     /* ptycast_output_bytes_total: from tunnels */
	METRIC_DELIVERED_BYTES,  /* ptycast_delivered_bytes_total: written to viewers */
	METRIC_DELIVERED_EVENTS, /* ptycast_delivered_events_total */
	METRIC_VIEWER_WRITES,    /* ptycast_viewer_writes_total: send calls */
	METRIC_INPUT_BYTES,      /* ptycast_input_bytes_total: acknowledged */
	METRIC_INPUT_REPEATS,    /* ptycast_input_repeats_total */
	METRIC_INPUT_REFUSED,    /* ptycast_input_refused_total */
	METRIC_RESETS_GAP,       /* ptycast_resets_total{reason="gap"} */
	METRIC_RESETS_AHEAD,
	METRIC_RESETS_EPOCH,
	METRIC_RECONNECTS,       /* ptycast_tunnel_reconnects_total */
	METRIC_FLOW_PAUSES,      /* ptycast_tunnel_pauses_total */
	METRIC_SESSIONS_CREATED, /* ptycast_sessions_created_total */
	METRIC_UNAUTHORIZED,     /* ptycast_unauthorized_total */
	METRIC_STORE_ERRORS,     /* ptycast_store_errors_total */
	METRIC_PROVIDER_CALLS,   /* ptycast_provider_calls_total: requests to a provider's API */
	METRIC_BUS_PUBLISHED_MESSAGES, /* ptycast_bus_published_messages_total */
	METRIC_BUS_PUBLISHED_BYTES,    /* ptycast_bus_published_bytes_total */
	METRIC_BUS_RECEIVED_MESSAGES,  /* ptycast_bus_received_messages_total */
	METRIC_BUS_RECEIVED_BYTES,     /* ptycast_bus_received_bytes_total */
	METRIC_BUS_DROPPED_MESSAGES,   /* ptycast_bus_dropped_messages_total */
	METRIC_BUS_RECONNECTS,         /* ptycast_bus_reconnects_total */
	METRIC_TAKEOVERS,              /* ptycast_takeovers_total: sessions of other replicas */
	METRIC_STEP_DOWNS,             /* ptycast_step_downs_total: sessions that others took */
	METRIC_MIRROR_PULLS,           /* ptycast_mirror_pulls_total: pieces of history asked for */
	METRIC_COUNT,
};

void metric_add(enum metric m, int64_t n);
int64_t metric_get(enum metric m);

/* One answered request; route is a number from http.c's table below METRIC_ROUTES_MAX. */
#define METRIC_ROUTES_MAX 64
void metric_http(unsigned route, const char *route_name, unsigned status, uint64_t duration_us);

/* The whole page, owned by the caller (free()); NULL without memory. */
char *metrics_render(size_t *size);
