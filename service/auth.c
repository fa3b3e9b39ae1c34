/* auth.c -- decides by what was brought: the Authorization header first, then, on a session's
 * stream alone, its cookie and the ticket. JWTs are jwt_verify.c's, the table of tickets is
 * ticket.c's. */
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
#include "service/ticket.h"

#define HASH_BYTES 32
#define GENERATED_SUBJECT "local"
#define COOKIE_TTL_MS INT64_C(300000) /* 5 minutes */
/* However often it is renewed: an API key that was taken away must not live on in a cookie. */
#define COOKIE_LIFE_MS INT64_C(86400000) /* a day */
#define MAX_BEARER_BYTES 8192

struct api_key {
	uint8_t hash[HASH_BYTES];
	enum role role;
	const char *subject; /* the config's */
};

/* Set by auth_create(), then never changed; tickets has its own lock. */
struct auth {
	uint8_t hash_key[crypto_generichash_KEYBYTES];
	struct api_key *api_keys; /* owned */
	size_t api_keys_count;
	char generated[TICKET_CHARS + 1]; /* "" when credentials are configured */
	struct jwt_verify *jwt;           /* NULL when none is configured */
	struct ticket_table *tickets;
	uint8_t cookie_key[crypto_auth_KEYBYTES];
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
	/* A key for this one purpose, made of the store's. */
	static const uint8_t purpose[] = "ptycast stream cookie v1";
	crypto_generichash(a->cookie_key, sizeof(a->cookie_key), purpose, sizeof(purpose),
			   cookie_key, 32);
	int rc = 0;
	if (add_api_keys(a, cfg) != 0 || ticket_table_create(cfg->max_tickets, &a->tickets) != 0)
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
	ticket_table_destroy(a->tickets);
	jwt_verify_destroy(a->jwt);
	free(a->api_keys);
	sodium_memzero(a, sizeof(*a));
	free(a);
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

#define MAC_CHARS 43

static void cookie_mac(const struct auth *a, const char *session, const char *signed_text,
		       size_t size, char ret[MAC_CHARS + 1])
{
	/* The session's 0 stands between the two: no other pair makes the same bytes. */
	uint8_t mac[crypto_auth_BYTES];
	crypto_auth_hmacsha512256_state state;
	crypto_auth_hmacsha512256_init(&state, a->cookie_key, sizeof(a->cookie_key));
	crypto_auth_hmacsha512256_update(&state, (const uint8_t *)session, strlen(session) + 1);
	crypto_auth_hmacsha512256_update(&state, (const uint8_t *)signed_text, size);
	crypto_auth_hmacsha512256_final(&state, mac);
	sodium_bin2base64(ret, MAC_CHARS + 1, mac, sizeof(mac),
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

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
	sodium_bin2base64(subject, sizeof(subject), (const uint8_t *)p->subject, strlen(p->subject),
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	size_t size = (size_t)snprintf(ret, COOKIE_BYTES, "v1.%s.%" PRId64 ".%" PRId64 ".%s",
				       role_name(p->role), expires_ms, until_ms, subject);
	assert(size + 1 + MAC_CHARS < COOKIE_BYTES);
	char mac[MAC_CHARS + 1];
	cookie_mac(a, session, ret, size, mac);
	ret[size] = '.';
	memcpy(ret + size + 1, mac, sizeof(mac));
	return size + 1 + MAC_CHARS;
}

static bool check_cookie(const struct auth *a, const char *session, const char *cookie,
			 struct principal *ret)
{
	size_t size = strnlen(cookie, COOKIE_BYTES);
	if (size >= COOKIE_BYTES || size < MAC_CHARS + 1)
		return false;
	size_t signed_size = size - MAC_CHARS - 1;
	char mac[MAC_CHARS + 1];
	cookie_mac(a, session, cookie, signed_size, mac);
	if (cookie[signed_size] != '.' ||
	    sodium_memcmp(mac, cookie + signed_size + 1, MAC_CHARS) != 0)
		return false;

	/* From here on it is a text of our own. */
	char text[COOKIE_BYTES];
	memcpy(text, cookie, signed_size);
	text[signed_size] = '\0';
	char *rest = text;
	const char *version = strsep(&rest, "."), *role = strsep(&rest, ".");
	const char *expires = strsep(&rest, "."), *until = strsep(&rest, ".");
	const char *subject = strsep(&rest, ".");
	if (subject == NULL || strcmp(version, "v1") != 0)
		return false;
	*ret = (struct principal){ .role = role_from_name(role),
				   .expires_ms = strtoll(until, NULL, 10),
				   .by_cookie = true };
	size_t subject_size = 0;
	if (sodium_base642bin((uint8_t *)ret->subject, sizeof(ret->subject) - 1, subject,
			      strlen(subject), NULL, &subject_size, NULL,
			      sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0)
		return false;
	ret->subject[subject_size] = '\0';
	snprintf(ret->session, sizeof(ret->session), "%s", session);
	return strtoll(expires, NULL, 10) > wall_ms();
}

/* --- tickets --- */

int auth_ticket(struct auth *a, const char *session, const char *subject, enum role role,
		unsigned ttl_s, bool reusable, int64_t owner_expires_ms, char ret[TICKET_CHARS + 1],
		int64_t *expires_ms)
{
	assert(role == ROLE_VIEW || role == ROLE_WRITE);
	struct principal grant = { .role = role, .expires_ms = owner_expires_ms };
	snprintf(grant.session, sizeof(grant.session), "%s", session);
	snprintf(grant.subject, sizeof(grant.subject), "%s", subject);
	int64_t now_ms = wall_ms();
	int64_t ttl_ms = (int64_t)ttl_s * 1000;
	if (owner_expires_ms != 0 && owner_expires_ms - now_ms < ttl_ms)
		ttl_ms = owner_expires_ms - now_ms;
	int rc = ticket_add(a->tickets, &grant, ttl_ms, reusable, ret);
	if (rc == 0)
		*expires_ms = now_ms + ttl_ms;
	return rc;
}

static bool is_better(const struct principal *ticket, const struct principal *cookie)
{
	return ticket->role > cookie->role || strcmp(ticket->subject, cookie->subject) != 0;
}

/* The cookie goes before the ticket in the URL, which an EventSource repeats. But a ticket that is
 * still good and grants more, or to somebody else, is for this very request: it goes first. */
static int check_stream(struct auth *a, const struct credentials *c, struct principal *ret,
			struct error *err)
{
	struct principal ticket;
	bool has_cookie = c->cookie != NULL && check_cookie(a, c->session, c->cookie, ret);
	if (has_cookie &&
	    (c->ticket == NULL || !ticket_find(a->tickets, c->ticket, c->session, &ticket) ||
	     !is_better(&ticket, ret)))
		return 0;
	if (c->ticket != NULL && ticket_use(a->tickets, c->ticket, c->session, &ticket)) {
		*ret = ticket;
		return 0;
	}
	if (has_cookie)
		return 0; /* another request was faster with that ticket */
	return error_set(err, -EACCES,
			 "the ticket is unknown, spent, expired or for another session");
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
