/* auth.c -- decides by what was brought: the Authorization header first, then, on a session's
 * stream alone, its cookie and the ticket. JWTs are jwt_verify.c's, how a ticket looks is ticket.c's, and
 * which are spent is spent.c's or the store's. */
#include "service/auth.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "service/jwt_verify.h"
#include "service/signed_text.h"
#include "service/spent.h"
#include "service/ticket.h"

#define HASH_BYTES 32
#define GENERATED_SUBJECT "local"
#define COOKIE_TTL_MS INT64_C(300000) /* 5 minutes */
/* However often it is renewed: an API key that was taken away must not live on in a cookie. */
#define COOKIE_LIFE_MS INT64_C(86400000) /* a day */
#define MAX_BEARER_BYTES 8192
#define GENERATED_CHARS 43
/* A store remembers a spent ticket that much longer than it is good: the replicas' clocks differ. */
#define CLOCKS_DIFFER_MS 60000

struct api_key {
	uint8_t hash[HASH_BYTES];
	enum role role;
	const char *subject; /* the config's */
};

/* Set by auth_create() and auth_share_tickets(), then never changed; spent has its own lock. */
struct auth {
	uint8_t hash_key[crypto_generichash_KEYBYTES];
	struct api_key *api_keys; /* owned */
	size_t api_keys_count;
	char generated[GENERATED_CHARS + 1]; /* "" when credentials are configured */
	struct jwt_verify *jwt;              /* NULL when none is configured */
	uint8_t cookie_key[SIGNED_TEXT_KEY_BYTES];
	uint8_t ticket_key[SIGNED_TEXT_KEY_BYTES];        /* of this process, or the next one */
	uint8_t shared_ticket_key[SIGNED_TEXT_KEY_BYTES]; /* the same in all replicas */
	struct spent *spent;                              /* NULL: the store remembers them */
};

static const char *const role_names[] = {
	[ROLE_NONE] = "none",   [ROLE_VIEW] = "view",         [ROLE_WRITE] = "write",
	[ROLE_ADMIN] = "admin", [ROLE_OPERATOR] = "operator",
};

const char *role_name(enum role role)
{
	return role_names[role];
}

static enum role role_from_name(const char *name)
{
	for (enum role role = ROLE_OPERATOR; role > ROLE_NONE; role--)
		if (strcmp(name, role_names[role]) == 0)
			return role;
	return ROLE_NONE;
}

static int64_t wall_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void hash_key(const struct auth *a, const char *key, size_t size, uint8_t ret[HASH_BYTES])
{
	crypto_generichash(ret, HASH_BYTES, (const uint8_t *)key, size, a->hash_key,
			   sizeof(a->hash_key));
}

/* --- life --- */

static int add_api_keys(struct auth *a, const struct config *cfg)
{
	a->api_keys = calloc(cfg->api_keys_count + 1, sizeof(struct api_key));
	if (a->api_keys == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < cfg->api_keys_count; i++) {
		const struct config_api_key *from = &cfg->api_keys[i];
		struct api_key *to = &a->api_keys[a->api_keys_count++];
		hash_key(a, from->key, strlen(from->key), to->hash);
		to->role = role_from_name(from->role);
		to->subject = from->subject;
	}
	return 0;
}

static void generate_api_key(struct auth *a)
{
	uint8_t secret[32];
	randombytes_buf(secret, sizeof(secret));
	sodium_bin2base64(a->generated, sizeof(a->generated), secret, sizeof(secret),
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	sodium_memzero(secret, sizeof(secret));
	struct api_key *key = &a->api_keys[a->api_keys_count++];
	hash_key(a, a->generated, strlen(a->generated), key->hash);
	key->role = ROLE_ADMIN;
	key->subject = GENERATED_SUBJECT;
}

int auth_create(const struct config *cfg, const uint8_t cookie_key[32], struct auth **ret,
		struct error *err)
{
	if (sodium_init() < 0)
		return error_set(err, -EIO, "libsodium cannot start: no random numbers");
	struct auth *a = calloc(1, sizeof(*a));
	if (a == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	randombytes_buf(a->hash_key, sizeof(a->hash_key));
	signed_text_key(cookie_key, "ptycast stream cookie v1", a->cookie_key);
	signed_text_key(cookie_key, "ptycast ticket v1", a->shared_ticket_key);
	randombytes_buf(a->ticket_key, sizeof(a->ticket_key));
	int rc = 0;
	if (add_api_keys(a, cfg) != 0 || spent_create(cfg->max_tickets, &a->spent) != 0)
		rc = error_set(err, -ENOMEM, "out of memory");
	bool has_jwt = cfg->jwt_secret != NULL || cfg->jwt_public_key_file != NULL;
	if (rc == 0 && has_jwt)
		rc = jwt_verify_create(cfg->jwt_secret, cfg->jwt_public_key_file,
				       cfg->jwt_require_exp, &a->jwt, err);
	if (rc == 0 && !has_jwt && a->api_keys_count == 0)
		generate_api_key(a);
	if (rc != 0) {
		auth_destroy(a);
		return rc;
	}
	*ret = a;
	return 0;
}

void auth_destroy(struct auth *a)
{
	if (a == NULL)
		return;
	spent_destroy(a->spent);
	jwt_verify_destroy(a->jwt);
	free(a->api_keys);
	sodium_memzero(a, sizeof(*a));
	free(a);
}

void auth_share_tickets(struct auth *a)
{
	memcpy(a->ticket_key, a->shared_ticket_key, sizeof(a->ticket_key));
	spent_destroy(a->spent);
	a->spent = NULL;
}

const char *auth_generated_key(const struct auth *a)
{
	return a->generated[0] != '\0' ? a->generated : NULL;
}

/* --- the Authorization header --- */

/* Copies what follows "Bearer", trimmed. False when there is none: also for other schemes, which a
 * proxy may use for itself, and for the "null" that web clients make of a missing token. */
static bool bearer(const char *header, char ret[MAX_BEARER_BYTES])
{
	static const char scheme[] = "Bearer ";
	if (header == NULL || strncasecmp(header, scheme, sizeof(scheme) - 1) != 0)
		return false;
	const char *at = header + sizeof(scheme) - 1;
	at += strspn(at, " \t");
	size_t size = strlen(at);
	while (size > 0 && (at[size - 1] == ' ' || at[size - 1] == '\t'))
		size--;
	/* What is too long is cut, and good for nothing then. */
	size = size < MAX_BEARER_BYTES ? size : MAX_BEARER_BYTES - 1;
	memcpy(ret, at, size);
	ret[size] = '\0';
	return size > 0 && strcmp(ret, "null") != 0 && strcmp(ret, "undefined") != 0;
}

/* Goes over all keys, found or not. */
static bool find_api_key(const struct auth *a, const char *given, struct principal *ret)
{
	uint8_t hash[HASH_BYTES];
	hash_key(a, given, strlen(given), hash);
	const struct api_key *found = NULL;
	for (size_t i = 0; i < a->api_keys_count; i++)
		if (sodium_memcmp(hash, a->api_keys[i].hash, HASH_BYTES) == 0)
			found = &a->api_keys[i];
	if (found == NULL)
		return false;
	*ret = (struct principal){ .role = found->role };
	snprintf(ret->subject, sizeof(ret->subject), "%s", found->subject);
	return true;
}

static int check_bearer(const struct auth *a, const char *given, struct principal *ret,
			struct error *err)
{
	if (find_api_key(a, given, ret))
		return 0;
	const char *dot = strchr(given, '.');
	if (a->jwt != NULL && dot != NULL && strchr(dot + 1, '.') != NULL)
		return jwt_verify_token(a->jwt, given, ret, err);
	return error_set(err, -EACCES, "the credential is not good");
}

/* --- the cookie: v1.ROLE.EXPIRES.UNTIL.SUBJECT.MAC --- */

size_t auth_cookie(struct auth *a, const char *session, const struct principal *p,
		   char ret[COOKIE_BYTES])
{
	int64_t now_ms = wall_ms();
	int64_t until_ms = now_ms + COOKIE_LIFE_MS;
	if (p->expires_ms != 0 && p->expires_ms < until_ms)
		until_ms = p->expires_ms;
	int64_t expires_ms = now_ms + COOKIE_TTL_MS;
	if (until_ms < expires_ms)
		expires_ms = until_ms;
	char subject[sodium_base64_ENCODED_LEN(SUBJECT_BYTES,
					       sodium_base64_VARIANT_URLSAFE_NO_PADDING)];
	signed_text_encode(p->subject, subject, sizeof(subject));
	size_t size = (size_t)snprintf(ret, COOKIE_BYTES, "v1.%s.%" PRId64 ".%" PRId64 ".%s",
				       role_name(p->role), expires_ms, until_ms, subject);
	assert(size + 1 + SIGNED_TEXT_MAC_CHARS < COOKIE_BYTES);
	return signed_text_sign(a->cookie_key, session, ret, size);
}

static bool check_cookie(const struct auth *a, const char *session, const char *cookie,
			 struct principal *ret)
{
	char text[COOKIE_BYTES];
	if (!signed_text_check(a->cookie_key, session, cookie, text, sizeof(text)))
		return false;
	/* From here on it is a text of our own. */
	char *rest = text;
	const char *version = strsep(&rest, "."), *role = strsep(&rest, ".");
	const char *expires = strsep(&rest, "."), *until = strsep(&rest, ".");
	const char *subject = strsep(&rest, ".");
	if (subject == NULL || strcmp(version, "v1") != 0)
		return false;
	*ret = (struct principal){ .role = role_from_name(role),
				   .expires_ms = strtoll(until, NULL, 10),
				   .by_cookie = true };
	snprintf(ret->session, sizeof(ret->session), "%s", session);
	return signed_text_decode(subject, ret->subject, sizeof(ret->subject)) &&
	       strtoll(expires, NULL, 10) > wall_ms();
}

/* --- tickets --- */

static const char not_good[] = "the ticket is unknown, spent, expired or for another session";

void auth_ticket(struct auth *a, const char *session, const char *subject, enum role role,
		 unsigned ttl_s, bool reusable, int64_t owner_expires_ms, char ret[TICKET_BYTES],
		 int64_t *expires_ms)
{
	struct ticket t = { .role = role,
			    .reusable = reusable,
			    .expires_ms = wall_ms() + (int64_t)ttl_s * 1000,
			    .until_ms = owner_expires_ms };
	if (owner_expires_ms != 0 && owner_expires_ms < t.expires_ms)
		t.expires_ms = owner_expires_ms;
	randombytes_buf(t.nonce, sizeof(t.nonce));
	snprintf(t.subject, sizeof(t.subject), "%s", subject);
	ticket_write(a->ticket_key, session, &t, ret);
	*expires_ms = t.expires_ms;
}

static struct principal what_it_grants(const struct ticket *t, const char *session)
{
	struct principal p = { .role = t->role,
			       .expires_ms = t->until_ms,
			       .by_ticket = !t->reusable };
	snprintf(p.subject, sizeof(p.subject), "%s", t->subject);
	snprintf(p.session, sizeof(p.session), "%s", session);
	return p;
}

/* Leaves the spending to the caller, and p as it is until then. */
static void fill_spend(struct principal *p, const struct ticket *t, const char *session,
		       int64_t now_ms)
{
	sodium_bin2hex(p->spend, sizeof(p->spend), t->nonce, sizeof(t->nonce));
	p->spend_ttl_ms = (unsigned)(t->expires_ms - now_ms + CLOCKS_DIFFER_MS);
	memcpy(p->ticket.subject, t->subject, sizeof(p->ticket.subject));
	p->ticket.role = t->role;
	p->ticket.expires_ms = t->until_ms;
	snprintf(p->session, sizeof(p->session), "%s", session);
}

int auth_spent(struct principal *p, int status, struct error *err)
{
	assert(p->spend[0] != '\0');
	int rc = 0;
	if (status == 0) {
		p->role = p->ticket.role;
		p->expires_ms = p->ticket.expires_ms;
		p->by_ticket = true;
		p->by_cookie = false;
		memcpy(p->subject, p->ticket.subject, sizeof(p->subject));
	} else if (status != -EEXIST) {
		rc = error_set(err, -EAGAIN, "whether the ticket is spent cannot be asked now");
	} else if (!p->by_cookie) {
		rc = error_set(err, -EACCES, "%s", not_good);
	}
	if (rc != 0)
		memset(p, 0, sizeof(*p));
	memset(p->spend, 0, sizeof(p->spend));
	p->spend_ttl_ms = 0;
	memset(&p->ticket, 0, sizeof(p->ticket));
	return rc;
}

static bool is_better(const struct ticket *ticket, const struct principal *cookie)
{
	return ticket->role > cookie->role || strcmp(ticket->subject, cookie->subject) != 0;
}

/* The cookie goes before the ticket in the URL, which an EventSource repeats. But a ticket that is
 * still good and grants more, or to somebody else, is for this very request: it goes first. */
static int check_stream(struct auth *a, const struct credentials *c, struct principal *ret,
			struct error *err)
{
	struct principal cookie;
	struct ticket t;
	int64_t now_ms = wall_ms();
	bool has_cookie = c->cookie != NULL && check_cookie(a, c->session, c->cookie, &cookie);
	bool has_ticket = c->ticket != NULL &&
			  ticket_read(a->ticket_key, c->session, c->ticket, &t) &&
			  t.expires_ms > now_ms;
	bool shared = a->spent == NULL;
	int rc = -EEXIST; /* so is a ticket that does not count: nothing is to be had by it */
	if (has_ticket && (!has_cookie || is_better(&t, &cookie)))
		rc = t.reusable || shared ? 0 : spent_add(a->spent, t.nonce, t.expires_ms, now_ms);
	if (rc != 0 && rc != -EEXIST)
		return error_set(err, -EAGAIN, "as many tickets are spent as may be remembered");
	if (rc != 0 && !has_cookie)
		return error_set(err, -EACCES, "%s", not_good);
	*ret = has_cookie ? cookie : (struct principal){ 0 };
	if (rc == 0 && shared && !t.reusable)
		fill_spend(ret, &t, c->session, now_ms);
	else if (rc == 0)
		*ret = what_it_grants(&t, c->session);
	return 0;
}

int auth_check(struct auth *a, const struct credentials *c, struct principal *ret,
	       struct error *err)
{
	char given[MAX_BEARER_BYTES];
	struct principal p = { 0 };
	int rc;
	if (bearer(c->authorization, given))
		rc = check_bearer(a, given, &p, err);
	else if (c->ticket == NULL && c->cookie == NULL)
		rc = error_set(
			err, -EACCES,
			"this needs a credential: Authorization: Bearer, then an API key or a JWT");
	else if (!c->is_stream || c->session == NULL)
		rc = error_set(err, -EACCES, "a ticket opens a session's stream and nothing else");
	else
		rc = check_stream(a, c, &p, err);
	if (rc == 0)
		*ret = p;
	return rc;
}
