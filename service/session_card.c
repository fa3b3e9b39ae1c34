/* session_card.c -- a session as an object: its birth, its references, its memory, and the card that
 * tells other threads of it. */
#include <errno.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/app.h"
#include "service/config.h"
#include "service/intern.h"
#include "service/journal.h"
#include "service/metrics.h"
#include "service/session_private.h"
#include "store/seal.h"
#include "store/store.h"

#define PARAMS_HASH_BYTES 32
/* A replay of a whole ring fits, and what comes before the tunnel is paused for viewers at its start. */
#define REPLAY_SLACK 16 /* a part in so many */

bool session_id_valid(const char *id)
{
	size_t size = strspn(id,
			     "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");
	return size >= 1 && size <= SESSION_ID_MAX && id[size] == '\0';
}

const char *session_id(const struct session *s)
{
	return s->id;
}

const char *session_subject(const struct session *s)
{
	return s->subject;
}

int64_t session_created_ms(const struct session *s)
{
	return s->created_ms;
}

/* They are only compared, and their env may hold secrets: with a key, so that nobody can try them out. */
static void hash_params(const struct app *app, const char *params,
			char hex[2 * PARAMS_HASH_BYTES + 1])
{
	unsigned char hash[PARAMS_HASH_BYTES];
	crypto_generichash(hash, sizeof(hash), (const unsigned char *)params, strlen(params),
			   app->params_key, sizeof(app->params_key));
	sodium_bin2hex(hex, 2 * PARAMS_HASH_BYTES + 1, hash, sizeof(hash));
}

bool session_params_are(const struct app *app, const char *stored, const char *params)
{
	char hex[2 * PARAMS_HASH_BYTES + 1];
	hash_params(app, params, hex);
	return strcmp(stored, hex) == 0;
}

bool session_same_params(const struct session *s, const char *params)
{
	return session_params_are(s->app, s->params, params);
}

bool session_is_mirror(const struct session *s)
{
	return atomic_load(&s->mirror);
}

void session_touch(struct session *s)
{
	atomic_store_explicit(&s->touched_us, loop_now_us(), memory_order_relaxed);
}

void session_set_dropped(struct session *s)
{
	atomic_store(&s->dropped, true);
}

bool session_is_dropped(const struct session *s)
{
	return atomic_load(&s->dropped);
}

uint64_t session_touched_us(const struct session *s)
{
	return atomic_load_explicit(&s->touched_us, memory_order_relaxed);
}

uint64_t session_birth(const struct session *s)
{
	return s->birth;
}

void session_set_number(struct session *s, uint64_t fence)
{
	s->fence = fence;
}

/* ---- memory ---- */

static void strings_free(char **strings)
{
	for (size_t i = 0; strings != NULL && strings[i] != NULL; i++)
		free(strings[i]);
	free(strings);
}

static char **strings_copy(const char *const *strings)
{
	size_t count = 0;
	while (strings != NULL && strings[count] != NULL)
		count++;
	char **copy = calloc(count + 1, sizeof(*copy));
	for (size_t i = 0; copy != NULL && i < count; i++) {
		copy[i] = strdup(strings[i]);
		if (copy[i] == NULL) {
			strings_free(copy);
			return NULL;
		}
	}
	return copy;
}

struct session *session_ref(struct session *s)
{
	atomic_fetch_add_explicit(&s->references, 1, memory_order_relaxed);
	return s;
}

void session_unref(struct session *s)
{
	if (s == NULL || atomic_fetch_sub_explicit(&s->references, 1, memory_order_acq_rel) != 1)
		return;
	metric_add((enum metric)((unsigned)METRIC_SESSIONS_PROVISIONING + s->state), -1);
	journal_destroy(s->journal);
	endpoint_fini(&s->endpoint);
	input_seq_destroy(s->dedupe);
	session_owner_free(s);
	strings_free(s->command);
	strings_free(s->env);
	free(s->cwd);
	free(s->endpoint_sealed);
	free(s->steps_text);
	free(s->subject);
	free(s->sandbox);
	free(s->target_sealed);
	free(s->want_transport);
	free(s->want_agent);
	free(s->target_text);
	free(s->params);
	free(s->provider_name);
	free(s->ended_json);
	pthread_mutex_destroy(&s->card_lock);
	free(s);
}

static struct session *session_alloc(struct app *app, const char *id, const char *subject,
				     const char *sandbox, const char *provider, const char *params,
				     uint16_t cols, uint16_t rows)
{
	struct session *s = calloc(1, sizeof(*s));
	if (s == NULL)
		return NULL;
	s->app = app;
	pthread_mutex_init(&s->card_lock, NULL);
	atomic_init(&s->references, 1);
	atomic_init(&s->viewers_reserved, 0);
	atomic_init(&s->card_head, 0);
	atomic_init(&s->cancelled, false);
	snprintf(s->id, sizeof(s->id), "%s", id);
	unsigned hash = 5381;
	for (const char *c = s->id; *c != '\0'; c++)
		hash = hash * 33 + (unsigned char)*c;
	s->loop = app->loops[hash % app->loops_count];
	s->subject = strdup(subject);
	s->sandbox = strdup(sandbox);
	s->params = strdup(params);
	s->provider_name = strdup(provider);
	s->provider = provider_find(app->providers, provider);
	s->cols = cols;
	s->rows = rows;
	s->journal = journal_create(app->config->journal_bytes +
					    app->config->journal_bytes / REPLAY_SLACK,
				    cols, rows);
	s->feed.journal = s->journal;
	s->feed.now.state = session_state_name(SESSION_PROVISIONING);
	s->inputs_end = &s->inputs;
	s->fence = 1;
	atomic_init(&s->mirror, false);
	atomic_init(&s->dropped, false);
	/* Late answers to an object of this id that was here before are not for this one. */
	randombytes_buf(&s->next_request, sizeof(s->next_request));
	s->next_request >>= 16;
	atomic_init(&s->touched_us, loop_now_us());
	randombytes_buf(&s->birth, sizeof(s->birth));
	s->birth |= 1;
	randombytes_buf(s->own_client, sizeof(s->own_client));
	uint8_t random[16];
	randombytes_buf(random, sizeof(random));
	sodium_bin2hex(s->shell, sizeof(s->shell), random, sizeof(random));
	metric_add(METRIC_SESSIONS_PROVISIONING, 1);
	if (s->subject == NULL || s->sandbox == NULL || s->params == NULL ||
	    s->provider_name == NULL || s->journal == NULL) {
		session_unref(s);
		return NULL;
	}
	return s;
}

static char *copy_or_null(const char *text)
{
	return text == NULL ? NULL : strdup(text);
}

/* Which sandbox it is in, for the store. */
static int make_target_text(struct session *s)
{
	if (!s->stored && s->target_sealed == NULL)
		return 0;
	json_t *root = json_pack("{s:b, s:s*, s:s*, s:s*}", "stored", s->stored, "sealed",
				 s->target_sealed, "transport", s->want_transport, "agent",
				 s->want_agent);
	s->target_text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
	json_decref(root);
	return s->target_text == NULL ? -ENOMEM : 0;
}

/* *sealed by the newest keys, so that older ones may be taken away. */
static void seal_anew(const struct session *s, char **sealed)
{
	char *anew;
	if (*sealed == NULL || reseal(s->app->seal_keys, *sealed, &anew) != 1)
		return;
	free(*sealed);
	*sealed = anew;
}

static void read_target_text(struct session *s, const char *text)
{
	json_t *root = json_loads(text, 0, NULL);
	s->stored = json_is_true(json_object_get(root, "stored"));
	s->target_sealed = copy_or_null(json_string_value(json_object_get(root, "sealed")));
	s->want_transport = copy_or_null(json_string_value(json_object_get(root, "transport")));
	s->want_agent = copy_or_null(json_string_value(json_object_get(root, "agent")));
	json_decref(root);
	seal_anew(s, &s->target_sealed);
	make_target_text(s);
}

int session_create(struct app *app, const struct session_spec *spec, struct session **ret)
{
	char params[2 * PARAMS_HASH_BYTES + 1];
	hash_params(app, spec->params, params);
	struct session *s = session_alloc(app, spec->id, spec->subject, spec->sandbox,
					  spec->provider, params, spec->cols, spec->rows);
	if (s == NULL)
		return -ENOMEM;
	s->command = strings_copy(spec->command);
	s->env = strings_copy(spec->env);
	s->cwd = spec->cwd == NULL ? NULL : strdup(spec->cwd);
	s->idle_timeout_s = spec->idle_timeout_s;
	s->created_ms = loop_wall_ms();
	if (strcmp(spec->provider, "local") == 0)
		s->machine = app->machine;
	s->stored = spec->stored;
	s->target_sealed = copy_or_null(spec->target);
	s->want_transport = copy_or_null(spec->transport);
	s->want_agent = copy_or_null(spec->agent);
	if (s->command == NULL || s->env == NULL || (spec->cwd != NULL && s->cwd == NULL) ||
	    s->provider == NULL || (spec->target != NULL && s->target_sealed == NULL) ||
	    make_target_text(s) < 0) {
		session_unref(s);
		return -ENOMEM;
	}
	*ret = s;
	return 0;
}

void session_adopt_target(struct session *s, const struct store_session *record)
{
	s->machine = record->host;
	if (record->target != NULL && s->target_text == NULL)
		read_target_text(s, record->target);
}

/* The end of one that has ended already; its output is fetched again. */
static void restore_end(struct session *s, const struct store_session *record)
{
	if (!record->ended || record->ended_json == NULL)
		return;
	s->refill = true;
	s->ended_ms = record->ended_ms;
	/* Of another machine's clock nothing is known. */
	int64_t forget_ms = s->app->config->forget_s * INT64_C(1000);
	int64_t ago_ms = s->app->store_ops->shared ? 0 : loop_wall_ms() - record->ended_ms;
	int64_t left_ms = ago_ms < 0 ? forget_ms : ago_ms > forget_ms ? 0 : forget_ms - ago_ms;
	s->forget_us = loop_now_us() + (uint64_t)left_ms * 1000;
	s->ended_json = strdup(record->ended_json);
	metric_add(METRIC_SESSIONS_PROVISIONING, -1);
	metric_add(METRIC_SESSIONS_ENDED, 1);
	s->state = SESSION_ENDED;
	s->feed.now.state = session_state_name(SESSION_ENDED);
}

static enum session_state state_named(const char *name)
{
	for (int state = 0; state < SESSION_STATE_COUNT; state++)
		if (strcmp(session_state_name((enum session_state)state), name) == 0)
			return (enum session_state)state;
	return SESSION_PROVISIONING;
}

/* The names are another replica's. */
static unsigned read_steps(const char *text, struct session_step steps[SESSION_STEPS_MAX])
{
	unsigned count = 0;
	json_t *list = text == NULL ? NULL : json_loads(text, 0, NULL);
	for (size_t i = 0; i < json_array_size(list) && count < SESSION_STEPS_MAX; i++) {
		const json_t *item = json_array_get(list, i);
		const json_t *name = json_object_get(item, "step");
		json_int_t ms = json_integer_value(json_object_get(item, "ms"));
		if (json_is_string(name) && ms >= 0 && ms <= UINT32_MAX)
			steps[count++] = (struct session_step){ intern(json_string_value(name),
								       json_string_length(name)),
								(uint32_t)ms };
	}
	json_decref(list);
	return count;
}

/* False for a record that was tampered with. */
static bool is_whole(const struct store_session *record)
{
	return session_id_valid(record->id) && record->subject != NULL && record->sandbox != NULL &&
	       record->provider != NULL && record->params != NULL && record->cols > 0 &&
	       record->rows > 0 && (!record->ended || record->ended_json != NULL);
}

static struct session *alloc_from(struct app *app, const struct store_session *record)
{
	if (!is_whole(record))
		return NULL;
	struct session *s = session_alloc(app, record->id, record->subject, record->sandbox,
					  record->provider, record->params, record->cols,
					  record->rows);
	if (s == NULL)
		return NULL;
	s->epoch = record->epoch;
	s->end = record->end;
	s->fence = record->fence;
	s->idle_timeout_s = record->idle_timeout_s;
	s->created_ms = record->created_ms;
	s->machine = record->host;
	s->steps_count = read_steps(record->steps, s->steps);
	s->steps_text = copy_or_null(record->steps);
	if (record->birth != 0)
		s->birth = record->birth;
	return s;
}

int session_mirror(struct app *app, const struct store_session *record, struct session **ret)
{
	struct session *s = alloc_from(app, record);
	if (s == NULL)
		return -ENOMEM;
	atomic_store(&s->mirror, true);
	atomic_store(&s->card_head, record->offset);
	enum session_state state = state_named(record->state);
	restore_end(s, record);
	if (s->state != SESSION_ENDED && state != SESSION_ENDED) {
		metric_add(METRIC_SESSIONS_PROVISIONING, -1);
		metric_add((enum metric)((unsigned)METRIC_SESSIONS_PROVISIONING + state), 1);
		s->state = state;
		s->feed.now.state = session_state_name(state);
	}
	*ret = s;
	return 0;
}

int session_restore(struct app *app, const struct store_session *record, struct session **ret)
{
	struct session *s = alloc_from(app, record);
	if (s == NULL)
		return -ENOMEM;
	s->restored = true;
	s->feed.epoch = record->epoch;
	if (!app->store_ops->shared) /* else it has been given a new one */
		s->fence++;
	else
		s->adopted_us = loop_now_us();
	s->closing = record->closing;
	s->close_reason = "closed";
	session_adopt_target(s, record);
	uint8_t *json = NULL;
	size_t size;
	if (record->endpoint != NULL &&
	    seal_open(app->seal_keys, record->endpoint, &json, &size) == 0) {
		if (endpoint_from_json((char *)json, &s->endpoint) == 0)
			s->endpoint_sealed = strdup(record->endpoint);
		seal_anew(s, &s->endpoint_sealed);
		seal_free(json, size);
	}
	restore_end(s, record);
	*ret = s;
	return 0;
}

/* ---- the card ---- */

int session_info(struct session *s, struct session_info *ret)
{
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->id, s->id, sizeof(ret->id));
	ret->subject = strdup(s->subject);
	ret->sandbox = strdup(s->sandbox);
	ret->provider = strdup(s->provider_name);
	ret->created_ms = s->created_ms;
	pthread_mutex_lock(&s->card_lock);
	ret->state = s->state;
	ret->cols = s->cols;
	ret->rows = s->rows;
	ret->epoch = s->epoch;
	ret->offset = s->state == SESSION_ENDED
			      ? s->end
			      : atomic_load_explicit(&s->card_head, memory_order_relaxed);
	const char *ended_json = s->state == SESSION_ENDED ? s->ended_json : NULL;
	ret->ended_json = copy_or_null(ended_json);
	ret->failed_start = s->failed_start;
	memcpy(ret->steps, s->steps, sizeof(ret->steps));
	ret->steps_count = s->steps_count;
	bool complete = ended_json == NULL || ret->ended_json != NULL;
	pthread_mutex_unlock(&s->card_lock);
	if (complete && ret->subject != NULL && ret->sandbox != NULL && ret->provider != NULL)
		return 0;
	session_info_fini(ret);
	return -ENOMEM;
}

int session_info_of_record(const struct store_session *record, struct session_info *ret)
{
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->id, record->id, sizeof(ret->id));
	ret->subject = copy_or_null(record->subject);
	ret->sandbox = copy_or_null(record->sandbox);
	ret->provider = copy_or_null(record->provider);
	ret->ended_json = copy_or_null(record->ended_json);
	ret->state = record->ended ? SESSION_ENDED : state_named(record->state);
	ret->cols = record->cols;
	ret->rows = record->rows;
	ret->epoch = record->epoch;
	ret->offset = record->ended ? record->end : record->offset;
	ret->steps_count = read_steps(record->steps, ret->steps);
	ret->created_ms = record->created_ms;
	if (ret->subject != NULL && ret->sandbox != NULL && ret->provider != NULL)
		return 0;
	session_info_fini(ret);
	return -ENOMEM;
}

void session_info_fini(struct session_info *info)
{
	free(info->subject);
	free(info->sandbox);
	free(info->provider);
	free(info->ended_json);
	info->subject = info->sandbox = info->provider = info->ended_json = NULL;
}

enum session_state session_state(struct session *s)
{
	pthread_mutex_lock(&s->card_lock);
	enum session_state state = s->state;
	pthread_mutex_unlock(&s->card_lock);
	return state;
}

bool session_is_closing(struct session *s)
{
	pthread_mutex_lock(&s->card_lock);
	bool closing = s->closing;
	pthread_mutex_unlock(&s->card_lock);
	return closing;
}

bool session_finished_at(struct session *s, uint64_t epoch, uint64_t offset)
{
	pthread_mutex_lock(&s->card_lock);
	bool finished = s->state == SESSION_ENDED && s->epoch == epoch && offset == s->end + 1;
	pthread_mutex_unlock(&s->card_lock);
	return finished;
}
