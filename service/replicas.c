/* replicas.c -- see replicas.h. One thread of its own takes over, as it has to wait for the store. */
#include "service/replicas.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "service/app.h"
#include "service/config.h"
#include "service/log.h"
#include "service/loop.h"
#include "service/metrics.h"
#include "service/registry.h"
#include "service/session.h"
#include "service/slots.h"
#include "store/bus.h"
#include "store/store.h"
#include "wire/bus_frame.h"

#define PULLS_MAX 16
#define SWEEP_MS 200         /* and as much again at random */
#define THOROUGH_US 30000000 /* between two looks at all records */
#define ELSEWHERE_US \
	3000000 /* another machine's local sessions are left to that machine for so long */
#define ORPHANS_MAX 16384 /* of one sweep */
#define OFFERS_MAX 4096

struct orphan {
	char id[SESSION_ID_MAX + 1];
	uint64_t owner, fence, host;
	uint64_t seen_us; /* when it was met first */
};

struct replicas {
	struct app *app;
	struct bus_subscription *direct, *offers_line;
	pthread_t thread;
	bool running;
	pthread_mutex_t lock; /* guards these */
	pthread_cond_t wake;
	bool stop;
	struct orphan *offers; /* said to be nobody's */
	size_t offers_count;
	_Atomic(struct registry *) registry; /* once it is there */
	_Atomic uint64_t reset_us;           /* when records may have been lost last */

	/* The thread's own. */
	uint64_t trusted_us; /* before that it may be we who were away: nothing is taken */
	uint64_t thorough_us;
	uint64_t kept_us;     /* the reset_us behind which the store was given its values back */
	bool differs;         /* it has others than we have: said once */
	struct orphan *found; /* in this sweep */
	size_t found_count, found_capacity;
	struct orphan *unsure; /* taken, perhaps: the answer was lost */
	size_t unsure_count, unsure_capacity;
	struct orphan *elsewhere; /* local ones of other machines, met in the last sweep */
	size_t elsewhere_count;
};

/* ---- who we are ---- */

/* What is listened to on loopback here can be reached by those in the same network namespace. */
static uint64_t machine_id(void)
{
	char boot[64] = "";
	struct stat ns = { 0 };
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		ssize_t n = read(fd, boot, sizeof(boot) - 1);
		boot[n > 0 ? n : 0] = '\0';
		close(fd);
	}
	stat("/proc/self/ns/net", &ns);
	char text[128];
	int size = snprintf(text, sizeof(text), "%s %" PRIu64, boot, (uint64_t)ns.st_ino);
	unsigned char hash[crypto_generichash_BYTES_MIN];
	crypto_generichash(hash, sizeof(hash), (unsigned char *)text, (unsigned long long)size,
			   NULL, 0);
	uint64_t id;
	memcpy(&id, hash, sizeof(id));
	return id | 1;
}

void replicas_identify(struct app *app)
{
	if (!app->store_ops->shared)
		return;
	randombytes_buf(&app->replica, sizeof(app->replica));
	app->replica |= 1;
	app->machine = machine_id();
}

/* ---- the bus ---- */

/* Thread: the bus's. */
static void on_reset(void *arg)
{
	struct replicas *r = arg;
	atomic_store(&r->reset_us, loop_now_us());
	log_warn("the store may have lost records", "text=\"%s\"", "owners write theirs again");
	struct registry *registry = atomic_load(&r->registry);
	if (registry != NULL)
		registry_rewrite(registry);
}

/* What owners send to this replica alone. Thread: the bus's. */
static void on_direct(void *arg, enum bus_news news, const uint8_t *data, size_t size)
{
	struct replicas *r = arg;
	struct bus_frame f;
	struct registry *registry = atomic_load(&r->registry);
	if (news != BUS_MESSAGE || registry == NULL || bus_frame_decode(data, size, &f) < 0)
		return;
	struct session *s = registry_find(registry, f.head.session, NULL);
	if (s != NULL)
		session_bus_deliver(s, data, size);
	session_unref(s);
}

/* " HEX" at *at, which moves behind it. */
static bool read_hex(char **at, uint64_t *ret)
{
	char *end;
	if (**at != ' ' || !isxdigit((unsigned char)(*at)[1]))
		return false;
	errno = 0;
	*ret = strtoull(*at + 1, &end, 16);
	*at = end;
	return errno == 0;
}

/* "ID FENCE HOST", numbers in hex. */
static bool read_offer(char *text, struct orphan *ret)
{
	char *at = text + strcspn(text, " ");
	size_t size = (size_t)(at - text);
	if (size > SESSION_ID_MAX)
		return false;
	memcpy(ret->id, text, size);
	ret->id[size] = '\0';
	return session_id_valid(ret->id) && read_hex(&at, &ret->fence) &&
	       read_hex(&at, &ret->host) && *at == '\0';
}

/* A session is nobody's. Thread: the bus's. */
static void on_offer(void *arg, enum bus_news news, const uint8_t *data, size_t size)
{
	struct replicas *r = arg;
	struct orphan o = { 0 };
	char text[128];
	if (news != BUS_MESSAGE || size >= sizeof(text))
		return;
	memcpy(text, data, size);
	text[size] = '\0';
	if (!read_offer(text, &o))
		return;
	pthread_mutex_lock(&r->lock);
	if (r->offers_count < OFFERS_MAX)
		r->offers[r->offers_count++] = o;
	pthread_cond_signal(&r->wake);
	pthread_mutex_unlock(&r->lock);
}

void replicas_offer(struct app *app, const char *id, uint64_t fence, uint64_t host)
{
	char *text = NULL;
	int size = asprintf(&text, "%s %" PRIx64 " %" PRIx64, id, fence, host);
	if (size > 0)
		app->bus_ops->publish(app->bus, "offers", (uint8_t *)text, (size_t)size);
}

/* ---- what has no owner ---- */

/* True: it is there. Not so while the store cannot be asked, or is full. */
static bool keep_value(struct replicas *r, const char *name, const void *value, size_t size)
{
	const struct app *app = r->app;
	struct error err = { 0 };
	int rc = app->store_ops->keep(app->store, name, value, size, &err);
	if (rc == -EEXIST && !r->differs) {
		r->differs = true;
		log_error("the store has other keys", "text=\"%s\"",
			  "restart this replica: what it signs is not good at others");
	}
	return rc == 0 || rc == -EEXIST;
}

/* Keys that replicas share are written by the first of them; those that have them still give them back, or one
 * that starts later would draw others. */
static void keep_values(struct replicas *r)
{
	const struct app *app = r->app;
	uint64_t reset_us = atomic_load(&r->reset_us);
	if (reset_us != r->kept_us &&
	    keep_value(r, "cookie-key", app->cookie_key, sizeof(app->cookie_key)) &&
	    keep_value(r, "params-key", app->params_key, sizeof(app->params_key)))
		r->kept_us = reset_us;
}

/* ---- taking over ---- */

/* Grows a list for one more. */
static struct orphan *add_orphan(struct orphan **list, size_t *count, size_t *capacity)
{
	if (*count == *capacity) {
		size_t more = *capacity == 0 ? 64 : *capacity * 2;
		struct orphan *grown = more > ORPHANS_MAX
					       ? NULL
					       : reallocarray(*list, more, sizeof(*grown));
		if (grown == NULL)
			return NULL;
		*list = grown;
		*capacity = more;
	}
	return &(*list)[(*count)++];
}

static int note_orphan(void *arg, const struct store_session *record)
{
	struct replicas *r = arg;
	struct orphan *o = add_orphan(&r->found, &r->found_count, &r->found_capacity);
	if (o == NULL)
		return -ENOMEM; /* the rest in the next sweep */
	*o = (struct orphan){ .owner = record->owner,
			      .fence = record->fence,
			      .host = record->host };
	snprintf(o->id, sizeof(o->id), "%s", record->id);
	return 0;
}

/* False: it is not known what came of it, so the same has to be asked again: if the record names us by now nobody
 * else will ever take it. */
static bool try_to_take(struct replicas *r, const struct orphan *o)
{
	struct app *app = r->app;
	struct store_session record = { 0 };
	struct error err = { 0 };
	int rc = app->store_ops->take_session(app->store, o->id, o->owner, app->replica,
					      o->fence + 1, &record, &err);
	if (rc == 0) {
		metric_add(METRIC_TAKEOVERS, 1);
		registry_adopt(app->registry, &record);
	} else if (rc != -ESTALE && rc != -ENOENT) {
		log_warn("session not taken over", "session=%s text=\"%s\"", o->id, err.text);
	}
	store_session_fini(&record);
	return rc != -EHOSTUNREACH;
}

static void take(struct replicas *r, const struct orphan *o)
{
	if (try_to_take(r, o))
		return;
	struct orphan *unsure = add_orphan(&r->unsure, &r->unsure_count, &r->unsure_capacity);
	if (unsure != NULL)
		*unsure = *o;
}

static void take_unsure(struct replicas *r)
{
	while (r->unsure_count > 0 && try_to_take(r, &r->unsure[r->unsure_count - 1]))
		r->unsure_count--;
}

/* A shell of another machine is left to that one for a while: who can reach it keeps it alive. */
static bool is_elsewhere(const struct replicas *r, struct orphan *o, uint64_t now_us)
{
	if (o->host == 0 || o->host == r->app->machine)
		return false;
	o->seen_us = now_us;
	for (size_t i = 0; i < r->elsewhere_count; i++)
		if (strcmp(r->elsewhere[i].id, o->id) == 0)
			o->seen_us = r->elsewhere[i].seen_us;
	return now_us < o->seen_us + ELSEWHERE_US;
}

/* In an order of our own, so that several replicas each get a part. */
static void shuffle(struct orphan *list, size_t count)
{
	for (size_t i = count; i > 1; i--) {
		size_t j = randombytes_uniform((uint32_t)i);
		struct orphan swap = list[i - 1];
		list[i - 1] = list[j];
		list[j] = swap;
	}
}

static bool stopping(struct replicas *r)
{
	pthread_mutex_lock(&r->lock);
	bool stop = r->stop;
	pthread_mutex_unlock(&r->lock);
	return stop;
}

static void take_all(struct replicas *r, struct orphan *list, size_t count)
{
	uint64_t now_us = loop_now_us();
	size_t kept = 0;
	shuffle(list, count);
	for (size_t i = 0; i < count && !stopping(r); i++) {
		if (is_elsewhere(r, &list[i], now_us))
			list[kept++] = list[i];
		else
			take(r, &list[i]);
	}
	struct orphan *elsewhere = kept == 0 ? NULL : calloc(kept, sizeof(*elsewhere));
	if (elsewhere != NULL)
		memcpy(elsewhere, list, kept * sizeof(*elsewhere));
	free(r->elsewhere);
	r->elsewhere = elsewhere;
	r->elsewhere_count = elsewhere == NULL ? 0 : kept;
}

/* While our own sign of life does not arrive, those of others may be missing for the same reason; and for one
 * TTL after that. */
static bool trusts_store(struct replicas *r, uint64_t now_us)
{
	const struct app *app = r->app;
	uint64_t ttl_us = app->config->replica_ttl_ms * UINT64_C(1000);
	uint64_t alive_us = app->bus_ops->alive_us(app->bus);
	uint64_t reset_us = atomic_load(&r->reset_us);
	if (!app->bus_ops->connected(app->bus) || alive_us == 0 || now_us > alive_us + ttl_us / 2)
		r->trusted_us = now_us + ttl_us;
	if (reset_us != 0 && reset_us + ttl_us + ttl_us / 2 > r->trusted_us)
		r->trusted_us = reset_us + ttl_us + ttl_us / 2;
	return now_us >= r->trusted_us;
}

static void sweep(struct replicas *r)
{
	struct app *app = r->app;
	uint64_t now_us = loop_now_us();
	struct error err = { 0 };
	take_unsure(r);
	if (!trusts_store(r, now_us))
		return;
	bool thorough = now_us > r->thorough_us + THOROUGH_US || r->elsewhere_count > 0 ||
			atomic_load(&r->reset_us) > r->thorough_us;
	r->found_count = 0;
	int rc = app->store_ops->orphans(app->store, thorough, note_orphan, r, &err);
	if (rc < 0 && rc != -ENOMEM)
		return;
	if (thorough)
		r->thorough_us = now_us;
	if (r->found_count > 0)
		log_info("sessions without an owner", "count=%zu", r->found_count);
	take_all(r, r->found, r->found_count);
}

static void take_offers(struct replicas *r)
{
	struct orphan *list = calloc(OFFERS_MAX, sizeof(*list));
	size_t count;
	if (list == NULL)
		return;
	pthread_mutex_lock(&r->lock);
	count = r->offers_count;
	memcpy(list, r->offers, count * sizeof(*list));
	r->offers_count = 0;
	pthread_mutex_unlock(&r->lock);
	if (trusts_store(r, loop_now_us()))
		take_all(r, list, count);
	free(list);
}

/* Until offers came, it is time to sweep, or the end. */
static bool wait_for_work(struct replicas *r, unsigned ms)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += ms % 1000 * 1000000L;
	until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000L;
	until.tv_nsec %= 1000000000L;
	pthread_mutex_lock(&r->lock);
	while (!r->stop && r->offers_count == 0)
		if (pthread_cond_timedwait(&r->wake, &r->lock, &until) == ETIMEDOUT)
			break;
	bool offered = r->offers_count > 0;
	pthread_mutex_unlock(&r->lock);
	return offered;
}

static void *run(void *arg)
{
	struct replicas *r = arg;
	while (!stopping(r)) {
		if (wait_for_work(r, SWEEP_MS + randombytes_uniform(SWEEP_MS))) {
			take_offers(r);
		} else if (!stopping(r)) {
			keep_values(r);
			sweep(r);
		}
	}
	return NULL;
}

/* ---- its life ---- */

int replicas_open(struct app *app, const char *location, struct replicas **ret, struct error *err)
{
	struct replicas *r = calloc(1, sizeof(*r));
	if (r == NULL)
		return error_set(err, -ENOMEM, "no memory");
	r->app = app;
	r->offers = calloc(OFFERS_MAX, sizeof(*r->offers));
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&r->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	*ret = r;
	app->pull_slots = slots_create(PULLS_MAX);
	struct bus_params params = { .location = location,
				     .replica = app->replica,
				     .ttl_ms = app->config->replica_ttl_ms,
				     .reset = on_reset,
				     .arg = r };
	if (r->offers == NULL || app->pull_slots == NULL)
		return error_set(err, -ENOMEM, "no memory");
	int rc = app->bus_ops->open(&params, &app->bus, err);
	if (rc < 0)
		return rc;
	char channel[32];
	snprintf(channel, sizeof(channel), "replica:%016" PRIx64, app->replica);
	rc = app->bus_ops->subscribe(app->bus, channel, on_direct, r, &r->direct);
	if (rc == 0)
		rc = app->bus_ops->subscribe(app->bus, "offers", on_offer, r, &r->offers_line);
	r->trusted_us = loop_now_us() + app->config->replica_ttl_ms * UINT64_C(1000);
	return rc < 0 ? error_set(err, rc, "no memory for the bus") : 0;
}

int replicas_start(struct replicas *r, struct error *err)
{
	atomic_store(&r->registry, r->app->registry);
	int rc = pthread_create(&r->thread, NULL, run, r);
	if (rc != 0)
		return error_set(err, -rc, "no thread: %s", strerror(rc));
	r->running = true;
	return 0;
}

void replicas_stop(struct replicas *r)
{
	if (r == NULL || !r->running)
		return;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	pthread_cond_signal(&r->wake);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->thread, NULL);
	r->running = false;
}

void replicas_close(struct replicas *r)
{
	if (r == NULL)
		return;
	replicas_stop(r);
	if (r->app->bus != NULL)
		r->app->bus_ops->close(r->app->bus);
	slots_destroy(r->app->pull_slots);
	free(r->offers);
	free(r->found);
	free(r->elsewhere);
	free(r->unsure);
	pthread_cond_destroy(&r->wake);
	pthread_mutex_destroy(&r->lock);
	free(r);
}
