/* throttle.h -- how often an address failed lately, in a table of fixed size. An address that was
 * pushed out by others starts anew. Thread: any. */
#pragma once

#include <pthread.h>
#include <stdint.h>
#include <sys/socket.h>

#define THROTTLE_SLOTS 1024
#define THROTTLE_WINDOW_S 60

struct throttle {
	pthread_mutex_t lock; /* guards the slots */
	struct {
		uint64_t key; /* of the address; 0: free */
		uint64_t window_end_s;
		unsigned count;
	} slots[THROTTLE_SLOTS];
};

void throttle_init(struct throttle *t);
void throttle_fini(struct throttle *t);

/* An IPv4 address, or the /64 of an IPv6 one (one customer has all of it). */
uint64_t throttle_key(const struct sockaddr *address);

/* Counts one failure of key at now_s (monotonic). Returns 0 while there were at most limit in this
 * minute (limit 0: always), else the seconds until the next begins. */
unsigned throttle_fail(struct throttle *t, uint64_t key, unsigned limit, uint64_t now_s);
