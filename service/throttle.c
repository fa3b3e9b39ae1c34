/* throttle.c -- see throttle.h. */
#include "service/throttle.h"

#include <netinet/in.h>
#include <string.h>

#define PROBES 4

void throttle_init(struct throttle *t)
{
	memset(t, 0, sizeof(*t));
	pthread_mutex_init(&t->lock, NULL);
}

void throttle_fini(struct throttle *t)
{
	pthread_mutex_destroy(&t->lock);
}

uint64_t throttle_key(const struct sockaddr *address)
{
	uint64_t key = 0;
	if (address->sa_family == AF_INET) {
		key = ((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr;
	} else if (address->sa_family == AF_INET6) {
		const struct in6_addr *v6 =
			&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
		const uint8_t *bytes = v6->s6_addr;
		if (IN6_IS_ADDR_V4MAPPED(v6))
			memcpy(&key, bytes + 12, 4);
		else
			memcpy(&key, bytes, 8);
	}
	/* Spread over the slots, and never the mark of a free one. */
	key = (key ^ key >> 32) * UINT64_C(0x9e3779b97f4a7c15);
	return key | 1;
}

unsigned throttle_fail(struct throttle *t, uint64_t key, unsigned limit, uint64_t now_s)
{
	unsigned wait_s = 0;
	pthread_mutex_lock(&t->lock);
	size_t start = (size_t)(key >> 32) % THROTTLE_SLOTS, chosen = start;
	for (size_t i = 0; i < PROBES; i++) {
		size_t at = (start + i) % THROTTLE_SLOTS;
		if (t->slots[at].key == key) {
			chosen = at;
			break;
		}
		if (t->slots[at].window_end_s < t->slots[chosen].window_end_s)
			chosen = at;
	}
	if (t->slots[chosen].key != key || t->slots[chosen].window_end_s <= now_s) {
		t->slots[chosen].key = key;
		t->slots[chosen].window_end_s = now_s + THROTTLE_WINDOW_S;
		t->slots[chosen].count = 0;
	}
	if (t->slots[chosen].count < limit || limit == 0)
		t->slots[chosen].count++;
	else
		wait_s = (unsigned)(t->slots[chosen].window_end_s - now_s);
	pthread_mutex_unlock(&t->lock);
	return wait_s;
}
