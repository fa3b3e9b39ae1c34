/* app.h -- what main() wires together; every part borrows it. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct app {
	/* Set by main() before the threads start, then never changed. */
	const struct config *config;
	const struct store_ops *store_ops;
	struct store *store;
	struct seal_keys *seal_keys;
	/* Of the store, which may lose them: then we give them back. */
	uint8_t cookie_key[32]; /* cookies and tickets are signed by it */
	uint8_t params_key[32]; /* of the hashes that sessions' parameters are compared by */
	struct auth *auth;
	struct registry *registry;
	struct loop **loops;
	unsigned loops_count;
	struct provisioner *provisioner; /* calls to providers: may take half a minute each */
	struct provisioner
		*attendants;        /* calls for sessions that are there, and built-in sandboxes */
	struct provisioner *clerks; /* what is asked of the store for requests: quick */
	const struct provider_config *providers;
	/* Replicas; with a store of our own alone replica is 0 and the rest NULL. */
	uint64_t replica; /* our id, another one for each process */
	uint64_t
		machine; /* what can be reached on loopback from here: machine and network namespace */
	const struct bus_ops *bus_ops;
	struct bus *bus;
	struct replicas *replicas;
	struct slots *pull_slots; /* pieces of history on their way to us */
	struct http *http;
	uint16_t port; /* of the listener, once it is there */

	atomic_bool draining;    /* set at the stop: new sessions and streams get 503 draining */
	_Atomic int64_t viewers; /* reserved, of all sessions */
};
