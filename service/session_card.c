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

bool session_same_params(const struct session *s, const char *params)
{
	char hex[2 * PARAMS_HASH_BYTES + 1];
	hash_params(s->app, params, hex);
	return strcmp(s->params, hex) == 0;
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
	strings_free(s->command);
	strings_free(s->env);
	free(s->cwd);
	free(s->endpoint_sealed);
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

int session_restore(struct app *app, const struct store_session *record, struct session **ret)
{
	struct session *s = session_alloc(app, record->id, record->subject, record->sandbox,
					  record->provider, record->params, record->cols,
					  record->rows);
	if (s == NULL)
		return -ENOMEM;
	s->restored = true;
	s->epoch = s->feed.epoch = record->epoch;
	s->end = record->end;
	s->fence = record->fence + 1;
	s->idle_timeout_s = record->idle_timeout_s;
	s->created_ms = record->created_ms;
	if (record->target != NULL)
		read_target_text(s, record->target);
	uint8_t *json = NULL;
	size_t size;
	if (record->endpoint != NULL &&
	    seal_open(app->seal_keys, record->endpoint, &json, &size) == 0) {
		if (endpoint_from_json((char *)json, &s->endpoint) == 0)
			s->endpoint_sealed = strdup(record->endpoint);
		seal_anew(s, &s->endpoint_sealed);
		seal_free(json, size);
	}
	if (record->ended && record->ended_json != NULL) {
		s->refill = true;
		s->ended_ms = record->ended_ms;
		s->ended_json = strdup(record->ended_json);
		metric_add(METRIC_SESSIONS_PROVISIONING, -1);
		metric_add(METRIC_SESSIONS_ENDED, 1);
		s->state = SESSION_ENDED;
		s->feed.now.state = session_state_name(SESSION_ENDED);
	}
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
