/* redis_pool.c -- see redis_pool.h. */
#include "store/redis_pool.h"

#include <errno.h>
#include <stdlib.h>

#define POOL_MAX 8

struct redis_pool {
	struct redis_peer *peer;

	pthread_mutex_t lock; /* guards all below; taken alone */
	pthread_cond_t given;
	struct redis_conn *idle[POOL_MAX];
	unsigned idle_count, count; /* count: with those that are taken */
};

int redis_pool_create(struct redis_peer *peer, struct redis_pool **ret, struct error *err)
{
	struct redis_pool *p = calloc(1, sizeof(*p));
	if (p == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	int rc = redis_conn_open(peer, redis_now_ms() + REDIS_COMMAND_MS, &p->idle[0], err);
	if (rc != 0) {
		free(p);
		return rc;
	}
	p->peer = peer;
	p->idle_count = p->count = 1;
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&p->given, &attributes);
	pthread_condattr_destroy(&attributes);
	*ret = p;
	return 0;
}

void redis_pool_destroy(struct redis_pool *p)
{
	if (p == NULL)
		return;
	while (p->idle_count > 0)
		redis_conn_close(p->idle[--p->idle_count]);
	pthread_cond_destroy(&p->given);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

/* Waits for its turn. *ret: an idle connection, or NULL: a new one may be made. False: too late. */
static bool wait_for_one(struct redis_pool *p, int64_t deadline_ms, struct redis_conn **ret)
{
	struct timespec end = { .tv_sec = deadline_ms / 1000,
				.tv_nsec = deadline_ms % 1000 * 1000000 };
	pthread_mutex_lock(&p->lock);
	while (p->idle_count == 0 && p->count == POOL_MAX)
		if (pthread_cond_timedwait(&p->given, &p->lock, &end) == ETIMEDOUT)
			break;
	bool may = p->idle_count > 0 || p->count < POOL_MAX;
	*ret = p->idle_count > 0 ? p->idle[--p->idle_count] : NULL;
	p->count += may && *ret == NULL;
	pthread_mutex_unlock(&p->lock);
	return may;
}

static void put_back(struct redis_pool *p, struct redis_conn *c)
{
	pthread_mutex_lock(&p->lock);
	if (c != NULL)
		p->idle[p->idle_count++] = c;
	else
		p->count--;
	pthread_cond_signal(&p->given);
	pthread_mutex_unlock(&p->lock);
}

int redis_pool_take(struct redis_pool *p, struct redis_turn *turn, struct error *err)
{
	if (turn->deadline_ms == 0)
		turn->deadline_ms = redis_now_ms() + REDIS_COMMAND_MS;
	if (!wait_for_one(p, turn->deadline_ms, &turn->conn))
		return error_set(err, -EHOSTUNREACH, "store %s: too many wait for its answers",
				 p->peer->name);
	if (turn->conn != NULL && (turn->again || !redis_conn_usable(turn->conn))) {
		redis_conn_close(turn->conn);
		turn->conn = NULL;
	}
	if (turn->conn != NULL) {
		redis_conn_set_deadline(turn->conn, turn->deadline_ms);
		return 0;
	}
	struct error why = { 0 };
	int rc = redis_conn_open(p->peer, turn->deadline_ms, &turn->conn, &why);
	if (rc == 0)
		return 0;
	put_back(p, NULL);
	/* What the server is by now may pass, too: a replica of another. */
	return error_set(err, rc == -ENOMEM ? rc : -EHOSTUNREACH, "%s", why.text);
}

bool redis_pool_give(struct redis_pool *p, struct redis_turn *turn, bool repeatable, int rc)
{
	struct redis_conn *c = turn->conn;
	if (c == NULL)
		return false; /* there was none */
	bool usable = redis_conn_usable(c), refused = redis_conn_refused(c);
	turn->conn = NULL;
	if (!usable)
		redis_conn_close(c);
	put_back(p, usable ? c : NULL);
	bool again = !turn->again && rc != 0 && !usable && (refused || repeatable) &&
		     redis_now_ms() < turn->deadline_ms;
	turn->again = true;
	return again;
}
