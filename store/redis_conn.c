/* redis_conn.c -- see redis_conn.h. */
#include "store/redis_conn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "service/log.h"

#define SETTLING_MS "4000" /* owners write their records again within a second or so */

struct redis_conn {
	redisContext *context;
	struct redis_peer *peer; /* borrowed */
	char run_id[REDIS_RUN_ID_BYTES];
	char sha[REDIS_SCRIPT_COUNT][41]; /* as the server calls our scripts */
	unsigned pending;                 /* replies that are still to come */
	bool refused;
	bool spent; /* the server may be another one, or in another state, when it is asked anew */
};

int64_t redis_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int redis_peer_init(struct redis_peer *peer, const char *location, struct error *err)
{
	*peer = (struct redis_peer){ 0 };
	int rc = redis_url_parse(location, &peer->url, err);
	if (rc != 0)
		return rc;
	bool v6 = strchr(peer->url.host, ':') != NULL;
	snprintf(peer->name, sizeof(peer->name), "redis://%s%.100s%s:%u", v6 ? "[" : "",
		 peer->url.host, v6 ? "]" : "", peer->url.port);
	pthread_mutex_init(&peer->lock, NULL);
	return 0;
}

void redis_peer_fini(struct redis_peer *peer)
{
	redis_url_fini(&peer->url);
	pthread_mutex_destroy(&peer->lock);
}

/* --- commands --- */

void redis_conn_append(struct redis_conn *c, const struct redis_args *a)
{
	/* It fails only without memory; then a reply will be missing, which is noticed. */
	redisAppendCommandArgv(c->context, a->count, (const char **)a->text, a->size);
	c->pending++;
}

void redis_conn_append_words(struct redis_conn *c, const char *words)
{
	struct redis_args a = { 0 };
	while (*words != '\0') {
		size_t size = strcspn(words, " ");
		redis_args_bytes(&a, words, size);
		words += size + (words[size] == ' ');
	}
	redis_conn_append(c, &a);
}

void redis_conn_script(const struct redis_conn *c, struct redis_args *a, enum redis_script script,
		       const char *prefix, const char *id)
{
	redis_args_init(a, "EVALSHA");
	redis_args_text(a, c->sha[script]);
	redis_args_text(a, "1");
	redis_args_key(a, prefix, id, "}");
}

/* --- replies --- */

static int set_lost(struct redis_conn *c, struct error *err)
{
	const char *text = c->context->errstr;
	if (c->context->err == REDIS_ERR_IO && (errno == EAGAIN || errno == ETIMEDOUT))
		text = "it does not answer in time";
	else if (c->context->err == REDIS_ERR_EOF)
		text = "it closed the connection";
	error_set(err, -EHOSTUNREACH, "store %s: %.100s", c->peer->name, text);
	return -EHOSTUNREACH;
}

/* What an error that the server answers is to us. */
static int code_of(const char *text)
{
	/* Within a script the older servers put their own words in front. */
	if (strstr(text, "OOM command not allowed") != NULL)
		return -ENOSPC;
	if (strstr(text, "WRONGTYPE") != NULL || strncmp(text, "ERR user_script:", 16) == 0)
		return -EINVAL;
	if (strncmp(text, "NOAUTH", 6) == 0 || strncmp(text, "WRONGPASS", 9) == 0 ||
	    strncmp(text, "NOPERM", 6) == 0)
		return -EACCES;
	return -EHOSTUNREACH; /* LOADING, BUSY, MISCONF, READONLY, ...: it may pass */
}

int redis_conn_reply(struct redis_conn *c, struct redisReply **ret, struct error *err)
{
	void *reply = NULL;
	assert(c->pending > 0);
	if (redisGetReply(c->context, &reply) != REDIS_OK)
		return set_lost(c, err);
	c->pending--;
	redisReply *r = reply;
	if (r->type != REDIS_REPLY_ERROR) {
		*ret = r;
		return 0;
	}
	int rc = code_of(r->str);
	c->refused = c->refused || strncmp(r->str, "NOSCRIPT", 8) == 0;
	c->spent = c->spent || rc == -EHOSTUNREACH;
	error_set(err, rc, "store %s: %.120s", c->peer->name, r->str);
	freeReplyObject(r);
	return rc;
}

int redis_conn_done(struct redis_conn *c, struct error *err)
{
	redisReply *r;
	int rc = redis_conn_reply(c, &r, err);
	if (rc == 0)
		freeReplyObject(r);
	return rc;
}

int redis_conn_number(struct redis_conn *c, int64_t *ret, struct error *err)
{
	redisReply *r;
	int rc = redis_conn_reply(c, &r, err);
	if (rc != 0)
		return rc;
	if (r->type == REDIS_REPLY_INTEGER)
		*ret = r->integer;
	else
		rc = redis_conn_nonsense(c, err);
	freeReplyObject(r);
	return rc;
}

int redis_conn_nonsense(struct redis_conn *c, struct error *err)
{
	return error_set(err, -EBADMSG, "store %s: a reply is not understood", c->peer->name);
}

bool redis_conn_usable(const struct redis_conn *c)
{
	char byte;
	if (c->context->err != 0 || c->pending > 0 || c->spent)
		return false;
	/* Nothing is to come now: what does is its end. */
	ssize_t n = recv(c->context->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

bool redis_conn_refused(const struct redis_conn *c)
{
	return c->refused;
}

static struct timeval until(int64_t deadline_ms)
{
	int64_t left_ms = deadline_ms - redis_now_ms();
	if (left_ms < 1)
		left_ms = 1; /* 0 would be for ever */
	return (struct timeval){ .tv_sec = left_ms / 1000, .tv_usec = left_ms % 1000 * 1000 };
}

void redis_conn_set_deadline(struct redis_conn *c, int64_t deadline_ms)
{
	redisSetTimeout(c->context, until(deadline_ms));
}

/* --- records that may be missing --- */

void redis_conn_append_settled(struct redis_conn *c)
{
	redis_conn_append_words(c, "GET ptycast:generation");
	redis_conn_append_words(c, "EXISTS ptycast:settling");
}

int redis_conn_settled(struct redis_conn *c, bool *ret, struct error *err)
{
	redisReply *generation = NULL;
	int64_t settling = 0;
	int rc = redis_conn_reply(c, &generation, err);
	if (rc != 0)
		return rc;
	bool same = generation->type == REDIS_REPLY_STRING &&
		    strcmp(generation->str, c->run_id) == 0;
	freeReplyObject(generation);
	rc = redis_conn_number(c, &settling, err);
	if (rc == 0)
		*ret = same && settling == 0;
	return rc;
}

int redis_conn_unsettled(struct redis_conn *c, struct error *err)
{
	return error_set(err, -EHOSTUNREACH, "store %s: records are being restored", c->peer->name);
}

/* A full server refuses this; the next connection tries it again. Until then no missing record is trusted. */
static void set_generation(struct redis_conn *c, bool settle, bool set)
{
	struct error err = { 0 };
	struct redis_args a;
	int rc = 0;
	/* In this order: who sees the new generation must see that it settles. */
	if (settle)
		redis_conn_append_words(c, "SET ptycast:settling 1 PX " SETTLING_MS);
	if (set) {
		redis_args_init(&a, "SET");
		redis_args_text(&a, "ptycast:generation");
		redis_args_text(&a, c->run_id);
		redis_conn_append(c, &a);
	}
	for (int i = 0; i < settle + set; i++) {
		int one = redis_conn_done(c, &err);
		rc = rc != 0 ? rc : one;
	}
	if (rc != 0) {
		char text[sizeof(err.text)];
		log_warn("store generation not set", "code=%d text=\"%s\"", rc,
			 log_safe(text, sizeof(text), err.text));
		return;
	}
	pthread_mutex_lock(&c->peer->lock);
	memcpy(c->peer->run_id, c->run_id, sizeof(c->run_id));
	pthread_mutex_unlock(&c->peer->lock);
}

static void note_generation(struct redis_conn *c, const char *generation)
{
	char before[REDIS_RUN_ID_BYTES];
	pthread_mutex_lock(&c->peer->lock);
	memcpy(before, c->peer->run_id, sizeof(before));
	pthread_mutex_unlock(&c->peer->lock);
	bool first = before[0] == '\0';
	bool restarted = !first && strcmp(before, c->run_id) != 0;
	bool other = generation != NULL && strcmp(generation, c->run_id) != 0;
	/* Emptied while it ran: left to the bus, which looks for just that. */
	bool emptied = generation == NULL && !first && !restarted;
	if (first || restarted || other || emptied)
		set_generation(c, restarted || other || emptied,
			       other || (generation == NULL && !emptied));
}

/* --- life --- */

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int connect_to(struct redis_conn *c, int64_t deadline_ms, struct error *err)
{
	const struct redis_url *url = &c->peer->url;
	struct timeval timeout = until(earlier(deadline_ms, redis_now_ms() + REDIS_CONNECT_MS));
	c->context = redisConnectWithTimeout(url->host, url->port, timeout);
	if (c->context == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	if (c->context->err != 0)
		return error_set(
			err, -EHOSTUNREACH,
			"store %s cannot be reached (%.60s): is it running, and is this its "
			"address?",
			c->peer->name, c->context->errstr);
	fcntl(c->context->fd, F_SETFD, FD_CLOEXEC); /* hiredis 0.14 does not */
	redis_conn_set_deadline(c, deadline_ms);
	return 0;
}

static void append_login(struct redis_conn *c)
{
	const struct redis_url *url = &c->peer->url;
	struct redis_args a;
	if (url->password != NULL) {
		redis_args_init(&a, "AUTH");
		if (url->user != NULL)
			redis_args_text(&a, url->user);
		redis_args_text(&a, url->password);
		redis_conn_append(c, &a);
	}
	if (url->db != 0) {
		redis_args_init(&a, "SELECT");
		redis_args_number(&a, url->db);
		redis_conn_append(c, &a);
	}
}

static int take_login(struct redis_conn *c, struct error *err)
{
	const struct redis_url *url = &c->peer->url;
	struct error why = { 0 };
	if (url->password != NULL && redis_conn_done(c, &why) != 0)
		return error_set(err, why.code,
				 why.code == -EACCES
					 ? "store %s refuses the user or the password of "
					   "--store"
					 : "store %s does not take the login: %.100s",
				 c->peer->name, why.text);
	return url->db != 0 ? redis_conn_done(c, err) : 0;
}

static int take_info(struct redis_conn *c, struct error *err)
{
	redisReply *info;
	struct error why = { 0 };
	int rc = redis_conn_reply(c, &info, &why);
	if (rc == -EACCES && c->peer->url.password == NULL)
		return error_set(err, rc,
				 "store %s wants a password: --store "
				 "redis://[USER]:PASSWORD@HOST:PORT",
				 c->peer->name);
	if (rc != 0)
		return error_set(err, rc, "%s", why.text);
	if (info->type != REDIS_REPLY_STRING)
		rc = redis_conn_nonsense(c, err);
	else if ((rc = redis_server_check(info->str, c->run_id, &why)) != 0)
		error_set(err, rc, "store %s: %.120s", c->peer->name, why.text);
	freeReplyObject(info);
	return rc;
}

static int take_sha(struct redis_conn *c, enum redis_script script, struct error *err)
{
	redisReply *r;
	int rc = redis_conn_reply(c, &r, err);
	if (rc != 0)
		return rc;
	if (r->type == REDIS_REPLY_STRING && r->len == sizeof(c->sha[script]) - 1)
		memcpy(c->sha[script], r->str, r->len + 1);
	else
		rc = redis_conn_nonsense(c, err);
	freeReplyObject(r);
	return rc;
}

/* All in one go: a connection costs two round trips. */
static int set_up(struct redis_conn *c, struct error *err)
{
	struct redis_args a;
	append_login(c);
	redis_conn_append_words(c, "INFO");
	redis_conn_append_words(c, "GET ptycast:generation");
	for (int i = 0; i < REDIS_SCRIPT_COUNT; i++) {
		redis_args_init(&a, "SCRIPT");
		redis_args_text(&a, "LOAD");
		redis_args_text(&a, redis_scripts[i]);
		redis_conn_append(c, &a);
	}
	int rc = take_login(c, err);
	if (rc == 0)
		rc = take_info(c, err);
	redisReply *generation = NULL;
	if (rc == 0)
		rc = redis_conn_reply(c, &generation, err);
	for (int i = 0; rc == 0 && i < REDIS_SCRIPT_COUNT; i++)
		rc = take_sha(c, (enum redis_script)i, err);
	if (rc == 0)
		note_generation(c, generation->str);
	freeReplyObject(generation);
	return rc;
}

int redis_conn_open(struct redis_peer *peer, int64_t deadline_ms, struct redis_conn **ret,
		    struct error *err)
{
	struct redis_conn *c = calloc(1, sizeof(*c));
	if (c == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	c->peer = peer;
	int rc = connect_to(c, deadline_ms, err);
	if (rc == 0)
		rc = set_up(c, err);
	if (rc != 0) {
		redis_conn_close(c);
		return rc;
	}
	*ret = c;
	return 0;
}

void redis_conn_close(struct redis_conn *c)
{
	if (c == NULL)
		return;
	if (c->context != NULL)
		redisFree(c->context);
	free(c);
}
