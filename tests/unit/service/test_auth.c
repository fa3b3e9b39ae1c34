/* API keys, JWTs, tickets and the stream's cookie. The keys in keys/ were made for this. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <jwt.h>
#include <sodium.h>

#include "service/auth.h"
#include "service/metrics.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define SECRET "an-hs256-secret-of-32-characters"
#define HOUR_MS (60 * 60 * 1000)

static const uint8_t store_key[32] = { 1, 2, 3 };

static struct config_api_key two_keys[] = {
	{ "key-of-alice", "alice", "admin" },
	{ "key.of.bob", "bob", "view" },
};

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static long now_s(void)
{
	return (long)(now_ms() / 1000);
}

/* --- auth as the service has it --- */

static struct auth *make_auth(const struct config *cfg)
{
	struct auth *a = NULL;
	struct error err = { 0 };
	if (auth_create(cfg, store_key, &a, &err) != 0)
		fail_msg("%s", err.text);
	return a;
}

/* For tests of one configuration each: the config must live as long as auth. */
static struct config cfg;

static struct auth *auth_with_keys(void)
{
	cfg = (struct config){ .api_keys = two_keys, .api_keys_count = 2, .max_tickets = 4 };
	return make_auth(&cfg);
}

static struct auth *auth_with_secret(bool require_exp)
{
	cfg = (struct config){ .jwt_secret = SECRET,
			       .jwt_require_exp = require_exp,
			       .max_tickets = 4 };
	return make_auth(&cfg);
}

static const char *key_path(const char *name)
{
	static char path[PATH_MAX];
	const char *root = getenv("PTYCAST_SOURCE_DIR");
	snprintf(path, sizeof(path), "%s/tests/unit/service/keys/%s", root != NULL ? root : ".",
		 name);
	return path;
}

static struct auth *auth_with_public_key(const char *name, const char *secret)
{
	cfg = (struct config){ .jwt_public_key_file = key_path(name),
			       .jwt_secret = secret,
			       .jwt_require_exp = true,
			       .max_tickets = 4 };
	return make_auth(&cfg);
}

static int check_header(struct auth *a, const char *header, struct principal *ret,
			struct error *err)
{
	struct credentials c = { .authorization = header };
	return auth_check(a, &c, ret, err);
}

/* The bearer is refused for this reason, and nothing is filled in. */
static void assert_refused(struct auth *a, const char *bearer, const char *text)
{
	static char header[20000];
	snprintf(header, sizeof(header), "Bearer %s", bearer);
	struct principal p = { .role = ROLE_VIEW };
	struct error err = { 0 };
	assert_int_equal(check_header(a, header, &p, &err), -EACCES);
	assert_string_equal(err.text, text);
	assert_int_equal(p.role, ROLE_VIEW);
	assert_string_equal(p.subject, "");
}

static struct principal assert_accepted(struct auth *a, const char *bearer)
{
	static char header[20000];
	snprintf(header, sizeof(header), "Bearer %s", bearer);
	struct principal p = { .role = ROLE_NONE, .session = "left over" };
	struct error err = { 0 };
	if (check_header(a, header, &p, &err) != 0)
		fail_msg("%s", err.text);
	assert_string_equal(p.session, "");
	assert_false(p.by_ticket);
	assert_false(p.by_cookie);
	return p;
}

/* --- API keys --- */

static void an_api_key_gives_its_subject_and_role(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	assert_null(auth_generated_key(a));
	struct principal p = assert_accepted(a, "key-of-alice");
	assert_string_equal(p.subject, "alice");
	assert_int_equal(p.role, ROLE_ADMIN);
	assert_int_equal(p.expires_ms, 0);
	p = assert_accepted(a, "key.of.bob"); /* two dots, yet no JWT */
	assert_string_equal(p.subject, "bob");
	assert_int_equal(p.role, ROLE_VIEW);
	auth_destroy(a);
}

static void refuses_every_other_key(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	static const char *const bad[] = { "key-of-alic", "key-of-alice2",           "Key-of-alice",
					   "x",           "key-of-alice key.of.bob", "a.b.c" };
	for (size_t i = 0; i < COUNT_OF(bad); i++)
		assert_refused(a, bad[i], "the credential is not good");
	char long_key[9000];
	memset(long_key, 'k', sizeof(long_key) - 1);
	long_key[sizeof(long_key) - 1] = '\0';
	assert_refused(a, long_key, "the credential is not good");
	auth_destroy(a);
}

static void reads_the_header_as_clients_write_it(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	static const char *const good[] = { "Bearer key-of-alice", "bearer key-of-alice",
					    "BEARER   key-of-alice \t" };
	struct principal p;
	for (size_t i = 0; i < COUNT_OF(good); i++)
		assert_int_equal(check_header(a, good[i], &p, NULL), 0);
	auth_destroy(a);
}

static void says_what_is_missing_when_nothing_usable_came(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	static const char *const nothing[] = { NULL,
					       "",
					       "Bearer",
					       "Bearer ",
					       "Bearer   ",
					       "Bearer null",
					       "Bearer undefined",
					       "Basic a2V5LW9mLWFsaWNl",
					       "key-of-alice",
					       "Bearerkey-of-alice" };
	for (size_t i = 0; i < COUNT_OF(nothing); i++) {
		struct principal p;
		struct error err = { 0 };
		assert_int_equal(check_header(a, nothing[i], &p, &err), -EACCES);
		assert_string_equal(err.text, "this needs a credential: Authorization: Bearer, "
					      "then an API key or a JWT");
	}
	auth_destroy(a);
}

static void makes_a_key_when_none_is_configured(void **state)
{
	(void)state;
	struct config none = { .max_tickets = 4 };
	struct auth *a = make_auth(&none), *b = make_auth(&none);
	const char *key = auth_generated_key(a);
	assert_int_equal(strlen(key), 43);
	assert_string_not_equal(key, auth_generated_key(b));
	struct principal p = assert_accepted(a, key);
	assert_string_equal(p.subject, "local");
	assert_int_equal(p.role, ROLE_ADMIN);
	assert_refused(b, key, "the credential is not good");
	auth_destroy(a);
	auth_destroy(b);
	auth_destroy(NULL);
}

/* --- JWTs --- */

/* Made by libjwt. */
static char *sign(jwt_alg_t alg, const char *key, const char *claims)
{
	jwt_t *jwt = NULL;
	assert_int_equal(jwt_new(&jwt), 0);
	assert_int_equal(jwt_add_grants_json(jwt, claims), 0);
	assert_int_equal(jwt_set_alg(jwt, alg, (const unsigned char *)key, (int)strlen(key)), 0);
	char *token = jwt_encode_str(jwt);
	assert_non_null(token);
	jwt_free(jwt);
	return token;
}

static size_t append_base64(char *out, size_t room, const void *data, size_t size)
{
	sodium_bin2base64(out, room, data, size, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	return strlen(out);
}

/* Made by hand, for what libjwt would not make; signed by HMAC-SHA-256 whatever the header says. */
static char *hand_made(const char *header, const char *claims, const char *secret)
{
	size_t room = 2 * (strlen(header) + strlen(claims)) + 100;
	char *token = malloc(room);
	size_t size = append_base64(token, room, header, strlen(header));
	token[size++] = '.';
	size += append_base64(token + size, room - size, claims, strlen(claims));
	uint8_t mac[32];
	crypto_auth_hmacsha256_state hmac;
	crypto_auth_hmacsha256_init(&hmac, (const uint8_t *)secret, strlen(secret));
	crypto_auth_hmacsha256_update(&hmac, (const uint8_t *)token, size);
	crypto_auth_hmacsha256_final(&hmac, mac);
	token[size++] = '.';
	append_base64(token + size, room - size, mac, sizeof(mac));
	return token;
}

static char *read_key(const char *name)
{
	static char text[8192];
	FILE *f = fopen(key_path(name), "r");
	assert_non_null(f);
	size_t size = fread(text, 1, sizeof(text) - 1, f);
	text[size] = '\0';
	fclose(f);
	return text;
}

#define HS256_HEADER "{\"alg\":\"HS256\",\"typ\":\"JWT\"}"

/* format holds one %ld, for an exp of an hour from now. */
static const char *claims_until(const char *format)
{
	static char claims[1000];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(claims, sizeof(claims), format, now_s() + 3600);
#pragma GCC diagnostic pop
	return claims;
}

static void assert_claims_refused(struct auth *a, const char *claims, const char *text)
{
	char *token = hand_made(HS256_HEADER, claims, SECRET);
	assert_refused(a, token, text);
	free(token);
}

static struct principal assert_claims_accepted(struct auth *a, const char *claims)
{
	char *token = hand_made(HS256_HEADER, claims, SECRET);
	struct principal p = assert_accepted(a, token);
	free(token);
	return p;
}

static void accepts_hs256_with_subject_expiry_and_role(void **state)
{
	(void)state;
	struct auth *a = auth_with_secret(true);
	assert_null(auth_generated_key(a));
	long exp = now_s() + 3600;
	char *token = sign(JWT_ALG_HS256, SECRET,
			   claims_until("{\"did\":\"did:plc:a\",\"exp\":%ld}"));
	struct principal p = assert_accepted(a, token);
	free(token);
	assert_string_equal(p.subject, "did:plc:a");
	assert_int_equal(p.role, ROLE_ADMIN);
	assert_true(p.expires_ms - (int64_t)exp * 1000 <= 1000);

	p = assert_claims_accepted(a,
				   claims_until("{\"sub\":\"b\",\"role\":\"view\",\"exp\":%ld}"));
	assert_string_equal(p.subject, "b");
	assert_int_equal(p.role, ROLE_VIEW);
	p = assert_claims_accepted(
		a, claims_until("{\"sub\":\"c\",\"did\":\"c\",\"role\":\"write\",\"exp\":%ld.5}"));
	assert_string_equal(p.subject, "c");
	assert_int_equal(p.role, ROLE_WRITE);
	assert_int_equal(p.expires_ms % 1000, 500);
	auth_destroy(a);
}

static void no_jwt_makes_an_operator(void **state)
{
	(void)state;
	struct auth *a = auth_with_secret(true);
	static const char *const roles[] = { "\"operator\"", "\"none\"", "\"Admin\"", "\"\"",
					     "null",         "3",        "[\"view\"]" };
	for (size_t i = 0; i < COUNT_OF(roles); i++) {
		char claims[200];
		snprintf(claims, sizeof(claims), "{\"sub\":\"a\",\"exp\":%ld,\"role\":%s}",
			 now_s() + 60, roles[i]);
		assert_claims_refused(a, claims, "the token's role is not view, write or admin");
	}
	auth_destroy(a);
}

static void wants_a_subject_that_can_be_printed(void **state)
{
	(void)state;
	struct auth *a = auth_with_secret(true);
	static const char *const none[] = { "{\"exp\":%ld}", "{\"sub\":\"\",\"exp\":%ld}",
					    "{\"sub\":7,\"exp\":%ld}",
					    "{\"did\":\"\",\"exp\":%ld}" };
	for (size_t i = 0; i < COUNT_OF(none); i++)
		assert_claims_refused(a, claims_until(none[i]), "the token has no did and no sub");
	assert_claims_refused(a, claims_until("{\"did\":\"a\",\"sub\":\"b\",\"exp\":%ld}"),
			      "the token's did and sub are two");
	static const char *const odd[] = { "{\"sub\":\"a\\nb\",\"exp\":%ld}",
					   "{\"sub\":\"a\\u007f\",\"exp\":%ld}" };
	for (size_t i = 0; i < COUNT_OF(odd); i++)
		assert_claims_refused(a, claims_until(odd[i]),
				      "the token's subject has a control character");
	/* No string in C can hold it. */
	assert_claims_refused(a, claims_until("{\"sub\":\"a\\u0000b\",\"exp\":%ld}"),
			      "the token's signature is not good");

	char claims[400];
	for (int size = SUBJECT_BYTES - 1; size <= SUBJECT_BYTES; size++) {
		snprintf(claims, sizeof(claims), "{\"sub\":\"%0*d\",\"exp\":%ld}", size, 0,
			 now_s() + 60);
		if (size < SUBJECT_BYTES)
			assert_int_equal(strlen(assert_claims_accepted(a, claims).subject), size);
		else
			assert_claims_refused(a, claims, "the token's subject is too long");
	}
	struct principal p =
		assert_claims_accepted(a, claims_until("{\"sub\":\"zo\\u00eb\",\"exp\":%ld}"));
	assert_string_equal(p.subject, "zo\xc3\xab");
	auth_destroy(a);
}

static void checks_exp_and_nbf(void **state)
{
	(void)state;
	struct auth *a = auth_with_secret(true);
	static const struct {
		const char *format; /* of one number: now and so many seconds */
		long offset_s;
		const char *text;
	} by_clock[] = {
		{ "{\"sub\":\"a\",\"exp\":%ld}", -1, "the token has expired" },
		{ "{\"sub\":\"a\",\"exp\":%ld}", 0, "the token has expired" },
		{ "{\"sub\":\"a\",\"exp\":-%ld}", 60, "the token has expired" },
		{ "{\"sub\":\"a\",\"exp\":\"%ld\"}", 60, "the token's exp or nbf is not a number" },
		{ "{\"sub\":\"a\",\"exp\":[%ld]}", 60, "the token's exp or nbf is not a number" },
		{ "{\"sub\":\"a\",\"exp\":9e9,\"nbf\":%ld}", 60, "the token is not valid yet" },
	};
	for (size_t i = 0; i < COUNT_OF(by_clock); i++) {
		char bad[200];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(bad, sizeof(bad), by_clock[i].format, now_s() + by_clock[i].offset_s);
#pragma GCC diagnostic pop
		assert_claims_refused(a, bad, by_clock[i].text);
	}
	assert_claims_refused(a, "{\"sub\":\"a\"}", "the token has no exp");
	assert_claims_refused(a, "{\"sub\":\"a\",\"exp\":null}",
			      "the token's exp or nbf is not a number");
	assert_claims_refused(a, "{\"sub\":\"a\",\"exp\":9e9,\"nbf\":true}",
			      "the token's exp or nbf is not a number");
	char claims[200];
	snprintf(claims, sizeof(claims), "{\"sub\":\"a\",\"exp\":%ld,\"nbf\":%ld}", now_s() + 60,
		 now_s() + 2); /* the issuer's clock is ahead of ours */
	assert_claims_accepted(a, claims);
	/* The original's tokens of 1,000 years, and more than a clock can say. */
	assert_int_equal(
		assert_claims_accepted(a, "{\"sub\":\"a\",\"exp\":33000000000}").expires_ms,
		33000000000000);
	assert_true(assert_claims_accepted(a, "{\"sub\":\"a\",\"exp\":1e300}").expires_ms > 0);
	auth_destroy(a);

	a = auth_with_secret(false);
	assert_int_equal(assert_claims_accepted(a, "{\"sub\":\"a\"}").expires_ms, 0);
	assert_claims_refused(a, "{\"sub\":\"a\",\"exp\":1}", "the token has expired");
	auth_destroy(a);
}

static void takes_hs256_and_no_other_algorithm_with_a_secret(void **state)
{
	(void)state;
	struct auth *a = auth_with_secret(true);
	static const jwt_alg_t others[] = { JWT_ALG_HS384, JWT_ALG_HS512 };
	for (size_t i = 0; i < COUNT_OF(others); i++) {
		char *token = sign(others[i], SECRET, claims_until("{\"sub\":\"a\",\"exp\":%ld}"));
		assert_refused(a, token, "the token's signature is not good");
		free(token);
	}
	static const char *const headers[] = {
		"{\"alg\":\"none\"}",
		"{\"alg\":\"None\"}",
		"{\"alg\":\"RS256\"}",
		"{\"alg\":\"ES256\"}",
		"{\"alg\":\"HS384\"}",
		"{\"alg\":\"\"}",
		"{\"alg\":256}",
		"{\"typ\":\"JWT\"}",
		"{\"alg\":\"HS256\",\"alg\":\"none\"}",
		"{\"alg\":\"HS256\",\"typ\":\"JOSE\"}",
		"{\"alg\":\"HS256\",\"crit\":[\"exp\"]}",
		"{\"alg\":\"HS256\",\"crit\":[]}",
		"[\"HS256\"]",
		"\"HS256\"",
		"{\"alg\":\"HS256\"",
		"{}",
	};
	for (size_t i = 0; i < COUNT_OF(headers); i++) {
		char *token = hand_made(headers[i], claims_until("{\"sub\":\"a\",\"exp\":%ld}"),
					SECRET);
		assert_refused(a, token, "the token's signature is not good");
		free(token);
	}
	auth_destroy(a);
}

static void refuses_a_token_without_its_signature(void **state)
{
	(void)state;
	struct auth *a = auth_with_secret(true);
	char *token = hand_made("{\"alg\":\"none\"}", claims_until("{\"sub\":\"a\",\"exp\":%ld}"),
				SECRET);
	strrchr(token, '.')[1] = '\0';
	assert_refused(a, token, "the credential is not good");
	free(token);
	token = hand_made(HS256_HEADER, claims_until("{\"sub\":\"a\",\"exp\":%ld}"), SECRET);
	strrchr(token, '.')[1] = '\0';
	assert_refused(a, token, "the credential is not good");
	free(token);
	auth_destroy(a);
}

static void refuses_a_token_that_was_changed_at_any_place(void **state)
{
	(void)state;
	struct auth *a = auth_with_secret(true);
	char *token = hand_made(HS256_HEADER, claims_until("{\"sub\":\"a\",\"exp\":%ld}"), SECRET);
	size_t size = strlen(token);
	struct principal p;
	for (size_t i = 0; i < size; i++) {
		char header[1000];
		snprintf(header, sizeof(header), "Bearer %s", token);
		char *c = &header[strlen("Bearer ") + i];
		*c = *c == 'A' ? 'B' : 'A';
		assert_int_equal(check_header(a, header, &p, NULL), -EACCES);
	}
	for (size_t cut = 1; cut < size; cut++) {
		char header[1000];
		snprintf(header, sizeof(header), "Bearer %.*s", (int)(size - cut), token);
		assert_int_equal(check_header(a, header, &p, NULL), -EACCES);
	}
	free(token);
	token = hand_made(HS256_HEADER, claims_until("{\"sub\":\"a\",\"exp\":%ld}"),
			  "another secret of 32 characters.");
	assert_refused(a, token, "the token's signature is not good");
	free(token);
	auth_destroy(a);
}

static void refuses_what_only_looks_like_a_token(void **state)
{
	(void)state;
	struct auth *a = auth_with_secret(true);
	static const char *const shapes[] = {
		"..",          "a..",       "..a",      "aa.aa.",   ".aa.aa",   "a.a.a",
		"aa.aa.aa.aa", "aa.a a.aa", "aa.aa.a=", "aa.a+.aa", "aa.a/.aa", "\xc3\xa9.aa.aa",
		"..."
	};
	for (size_t i = 0; i < COUNT_OF(shapes); i++)
		assert_refused(a, shapes[i], "the credential is not good");
	assert_refused(a, "aa.aa.aa", "the token's signature is not good");
	assert_claims_refused(a, "null", "the token's signature is not good");
	assert_claims_refused(a, "[]", "the token has no exp");
	auth_destroy(a);
}

static void a_huge_or_deep_token_does_no_harm(void **state)
{
	(void)state;
	struct auth *a = auth_with_secret(true);
	char claims[12000];
	memset(claims, '[', 5000);
	claims[5000] = '\0';
	assert_claims_refused(a, claims, "the token's signature is not good");
	size_t size = (size_t)snprintf(claims, sizeof(claims),
				       "{\"sub\":\"a\",\"exp\":9e9,\"x\":\"");
	memset(claims + size, 'x', 5000);
	strcpy(claims + size + 5000, "\"}");
	assert_claims_accepted(a, claims);
	memset(claims + size, 'x', 5500);
	strcpy(claims + size + 5500, "\"}");
	assert_claims_refused(a, claims, "the credential is not good");
	auth_destroy(a);
}

static void takes_rs256_or_es256_by_the_keys_type(void **state)
{
	(void)state;
	static const struct {
		const char *public_key, *private_key;
		jwt_alg_t alg;
	} pairs[] = { { "rsa.public.pem", "rsa.private.pem", JWT_ALG_RS256 },
		      { "p256.public.pem", "p256.private.pem", JWT_ALG_ES256 } };
	for (size_t i = 0; i < COUNT_OF(pairs); i++) {
		struct auth *a = auth_with_public_key(pairs[i].public_key, NULL);
		char *token = sign(pairs[i].alg, read_key(pairs[i].private_key),
				   claims_until("{\"sub\":\"a\",\"exp\":%ld}"));
		struct principal p = assert_accepted(a, token);
		assert_string_equal(p.subject, "a");
		char *dot = strrchr(token, '.');
		dot[5] = dot[5] == 'A' ? 'B' : 'A';
		assert_refused(a, token, "the token's signature is not good");
		dot[5] = '\0';
		assert_refused(a, token, "the token's signature is not good");
		free(token);
		/* The other kind's */
		token = sign(pairs[1 - i].alg, read_key(pairs[1 - i].private_key),
			     claims_until("{\"sub\":\"a\",\"exp\":%ld}"));
		assert_refused(a, token, "the token's signature is not good");
		free(token);
		auth_destroy(a);
	}
}

static void takes_no_other_rsa_key_and_no_other_rsa_algorithm(void **state)
{
	(void)state;
	struct auth *a = auth_with_public_key("rsa.public.pem", NULL);
	char *token = sign(JWT_ALG_RS256, read_key("rsa-other.private.pem"),
			   claims_until("{\"sub\":\"a\",\"exp\":%ld}"));
	assert_refused(a, token, "the token's signature is not good");
	free(token);
	token = sign(JWT_ALG_RS512, read_key("rsa.private.pem"),
		     claims_until("{\"sub\":\"a\",\"exp\":%ld}"));
	assert_refused(a, token, "the token's signature is not good");
	free(token);
	auth_destroy(a);
}

/* An attacker knows the public key, and signs with its text as an HMAC secret. */
static void the_public_key_is_no_hmac_secret(void **state)
{
	(void)state;
	static const char *const names[] = { "rsa.public.pem", "p256.public.pem" };
	for (size_t i = 0; i < COUNT_OF(names); i++) {
		struct auth *a = auth_with_public_key(names[i], NULL);
		const char *file = read_key(names[i]);
		const char *block = strstr(file, "-----BEGIN");
		char trimmed[4096];
		snprintf(trimmed, sizeof(trimmed), "%s", block);
		trimmed[strlen(trimmed) - 1] = '\0';
		const char *secrets[] = { file, block, trimmed };
		static const jwt_alg_t algs[] = { JWT_ALG_HS256, JWT_ALG_HS384, JWT_ALG_HS512 };
		for (size_t j = 0; j < COUNT_OF(secrets) * COUNT_OF(algs); j++) {
			char *token = sign(algs[j % 3], secrets[j / 3],
					   claims_until("{\"sub\":\"a\",\"exp\":%ld}"));
			assert_refused(a, token, "the token's signature is not good");
			free(token);
		}
		auth_destroy(a);
	}
}

static void secret_and_public_key_go_together(void **state)
{
	(void)state;
	struct auth *a = auth_with_public_key("p256.public.pem", SECRET);
	char *token = sign(JWT_ALG_ES256, read_key("p256.private.pem"),
			   claims_until("{\"sub\":\"a\",\"exp\":%ld}"));
	assert_accepted(a, token);
	free(token);
	assert_claims_accepted(a, claims_until("{\"sub\":\"a\",\"exp\":%ld}"));
	auth_destroy(a);
}

static void refuses_key_files_it_cannot_use(void **state)
{
	(void)state;
	static const struct {
		const char *name, *text;
	} bad[] = {
		{ "rsa-1024.public.pem", "an RSA key under 2048 bits" },
		{ "p384.public.pem", "neither an RSA nor a P-256 public key" },
		{ "ed25519.public.pem", "neither an RSA nor a P-256 public key" },
		{ "rsa.private.pem", "no \"-----BEGIN PUBLIC KEY-----\" in it" },
		{ "missing.pem", "No such file or directory" },
		{ "../keys", "not a PEM file" },
	};
	for (size_t i = 0; i < COUNT_OF(bad); i++) {
		struct config c = { .jwt_public_key_file = key_path(bad[i].name),
				    .max_tickets = 1 };
		struct auth *a = NULL;
		struct error err = { 0 };
		assert_true(auth_create(&c, store_key, &a, &err) < 0);
		assert_null(a);
		assert_int_equal(strncmp(err.text, "--jwt-public-key-file", 21), 0);
		if (strstr(err.text, bad[i].text) == NULL)
			fail_msg("%s", err.text);
	}
}

/* --- tickets --- */

static int check_stream(struct auth *a, const char *session, const char *ticket, const char *cookie,
			struct principal *ret)
{
	struct credentials c = {
		.ticket = ticket, .cookie = cookie, .session = session, .is_stream = true
	};
	struct error err = { 0 };
	*ret = (struct principal){ 0 };
	int rc = auth_check(a, &c, ret, &err);
	if (rc != 0) {
		assert_string_equal(
			err.text,
			rc == -EAGAIN
				? "as many tickets are spent as may be remembered"
				: "the ticket is unknown, spent, expired or for another session");
		assert_string_equal(ret->subject, "");
	}
	return rc;
}

static void make_ticket(struct auth *a, enum role role, bool reusable, char ret[TICKET_BYTES])
{
	int64_t expires_ms;
	auth_ticket(a, "s1", "alice", role, 60, reusable, 0, ret, &expires_ms);
	assert_true(expires_ms > now_ms() + 50000 && expires_ms <= now_ms() + 60000);
	/* It stands in a URL as it is. */
	assert_int_equal(strspn(ret, "0123456789abcdefghijklmnopqrstuvwxyz"
				     "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_."),
			 strlen(ret));
}

static void a_ticket_opens_one_stream_of_its_session_once(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	char ticket[TICKET_BYTES];
	struct principal p;
	make_ticket(a, ROLE_VIEW, false, ticket);
	assert_int_equal(metric_get(METRIC_TICKETS), 0);
	assert_int_equal(check_stream(a, "s2", ticket, NULL, &p), -EACCES); /* leaves it unspent */
	assert_int_equal(check_stream(a, "s1", ticket, NULL, &p), 0);
	assert_string_equal(p.subject, "alice");
	assert_string_equal(p.session, "s1");
	assert_int_equal(p.role, ROLE_VIEW);
	assert_int_equal(p.expires_ms, 0);
	assert_true(p.by_ticket);
	assert_false(p.by_cookie);
	assert_string_equal(p.spend, "");
	assert_int_equal(check_stream(a, "s1", ticket, NULL, &p), -EACCES);
	assert_int_equal(metric_get(METRIC_TICKETS), 1); /* spent, and remembered */
	auth_destroy(a);
	assert_int_equal(metric_get(METRIC_TICKETS), 0);
}

static void a_ticket_is_good_for_streams_alone(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	char ticket[TICKET_BYTES];
	make_ticket(a, ROLE_WRITE, false, ticket);
	struct credentials elsewhere[] = {
		{ .ticket = ticket, .session = "s1", .is_stream = false },
		{ .ticket = ticket, .session = NULL, .is_stream = true },
		{ .cookie = "v1", .session = "s1", .is_stream = false },
	};
	struct principal p;
	for (size_t i = 0; i < COUNT_OF(elsewhere); i++) {
		struct error err = { 0 };
		assert_int_equal(auth_check(a, &elsewhere[i], &p, &err), -EACCES);
		assert_string_equal(err.text, "a ticket opens a session's stream and nothing else");
	}
	assert_int_equal(check_stream(a, "s1", ticket, NULL, &p), 0);
	auth_destroy(a);
}

static void the_header_goes_before_the_ticket(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	char ticket[TICKET_BYTES];
	make_ticket(a, ROLE_WRITE, false, ticket);
	struct credentials c = { .authorization = "Bearer key.of.bob",
				 .ticket = ticket,
				 .session = "s1",
				 .is_stream = true };
	struct principal p;
	assert_int_equal(auth_check(a, &c, &p, NULL), 0);
	assert_string_equal(p.subject, "bob");
	c.authorization = "Bearer wrong-key";
	assert_int_equal(auth_check(a, &c, &p, NULL), -EACCES);
	c.authorization = "Basic of-a-proxy";
	assert_int_equal(auth_check(a, &c, &p, NULL), 0);
	assert_string_equal(p.subject, "alice");
	auth_destroy(a);
}

static void a_reusable_ticket_is_good_again(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	char ticket[TICKET_BYTES];
	struct principal p;
	make_ticket(a, ROLE_WRITE, true, ticket);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(check_stream(a, "s1", ticket, NULL, &p), 0);
		assert_int_equal(p.role, ROLE_WRITE);
		assert_false(p.by_ticket); /* no cookie for it */
	}
	auth_destroy(a);
}

static void unknown_tickets_are_refused(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys(), *b = make_auth(&cfg);
	char ticket[TICKET_BYTES], other[2 * TICKET_BYTES];
	make_ticket(a, ROLE_VIEW, true, ticket);
	struct principal p;
	assert_int_equal(check_stream(a, "s1", "", NULL, &p), -EACCES);
	assert_int_equal(check_stream(a, "s1", ticket + 1, NULL, &p), -EACCES);
	snprintf(other, sizeof(other), "%sA", ticket);
	assert_int_equal(check_stream(a, "s1", other, NULL, &p), -EACCES);
	memset(other, 'a', sizeof(other) - 1);
	other[sizeof(other) - 1] = '\0';
	assert_int_equal(check_stream(a, "s1", other, NULL, &p), -EACCES);
	for (size_t i = 0; i < strlen(ticket); i++) {
		char right = ticket[i];
		ticket[i] = right == '1' ? '2' : '1';
		assert_int_equal(check_stream(a, "s1", ticket, NULL, &p), -EACCES);
		ticket[i] = right;
	}
	assert_int_equal(check_stream(a, "s1", ticket, NULL, &p), 0);
	/* Of an earlier process with the same store. */
	assert_int_equal(check_stream(b, "s1", ticket, NULL, &p), -EACCES);
	auth_destroy(a);
	auth_destroy(b);
}

static void a_ticket_takes_the_longest_subject(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	char subject[SUBJECT_BYTES], ticket[TICKET_BYTES];
	memset(subject, 's', SUBJECT_BYTES - 1);
	subject[SUBJECT_BYTES - 1] = '\0';
	struct principal p;
	int64_t expires_ms;
	auth_ticket(a, "s1", subject, ROLE_WRITE, 3600, false, INT64_MAX, ticket, &expires_ms);
	assert_int_equal(check_stream(a, "s1", ticket, NULL, &p), 0);
	assert_string_equal(p.subject, subject);
	assert_int_equal(p.expires_ms, INT64_MAX);
	auth_destroy(a);
}

static void a_ticket_ends_with_its_owners_credential(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	char ticket[TICKET_BYTES];
	struct principal p;
	int64_t expires_ms, owner_expires_ms = now_ms() + 200;
	auth_ticket(a, "s1", "alice", ROLE_VIEW, 60, true, owner_expires_ms, ticket, &expires_ms);
	assert_int_equal(expires_ms, owner_expires_ms);
	while (check_stream(a, "s1", ticket, NULL, &p) == 0) {
		assert_int_equal(p.expires_ms, owner_expires_ms);
		assert_true(now_ms() < owner_expires_ms + 1000);
		struct timespec moment = { .tv_nsec = 5000000 };
		nanosleep(&moment, NULL);
	}
	assert_true(now_ms() >= owner_expires_ms);
	auth_destroy(a);
}

static void an_expired_ticket_is_refused(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	char ticket[TICKET_BYTES];
	int64_t expires_ms;
	auth_ticket(a, "s1", "alice", ROLE_VIEW, 0, false, 0, ticket, &expires_ms);
	struct principal p;
	assert_int_equal(check_stream(a, "s1", ticket, NULL, &p), -EACCES);
	assert_int_equal(metric_get(METRIC_TICKETS), 0);
	auth_destroy(a);
}

static void when_no_more_can_be_remembered_none_is_spent(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys(); /* 4 */
	char tickets[5][TICKET_BYTES], reusable[TICKET_BYTES], cookie[COOKIE_BYTES];
	struct principal p;
	for (int i = 0; i < 5; i++)
		make_ticket(a, ROLE_WRITE, false, tickets[i]);
	make_ticket(a, ROLE_VIEW, true, reusable);
	for (int i = 0; i < 4; i++)
		assert_int_equal(check_stream(a, "s1", tickets[i], NULL, &p), 0);
	assert_int_equal(metric_get(METRIC_TICKETS), 4);
	assert_int_equal(check_stream(a, "s1", tickets[4], NULL, &p), -EAGAIN);
	assert_int_equal(check_stream(a, "s1", tickets[0], NULL, &p), -EACCES);
	assert_int_equal(check_stream(a, "s1", reusable, NULL, &p), 0);
	/* A cookie that grants as much needs none of it; with one that grants less nothing is granted either. */
	p = (struct principal){ .subject = "alice", .role = ROLE_WRITE };
	auth_cookie(a, "s1", &p, cookie);
	assert_int_equal(check_stream(a, "s1", tickets[4], cookie, &p), 0);
	assert_true(p.by_cookie);
	p = (struct principal){ .subject = "alice", .role = ROLE_VIEW };
	auth_cookie(a, "s1", &p, cookie);
	assert_int_equal(check_stream(a, "s1", tickets[4], cookie, &p), -EAGAIN);
	auth_destroy(a);
	assert_int_equal(metric_get(METRIC_TICKETS), 0);
}

#define RACERS 4
#define RACES 50

struct race {
	struct auth *auth;
	const char *ticket;
	pthread_barrier_t *start;
};

static void *use_ticket(void *arg)
{
	struct race *race = arg;
	struct principal p;
	struct credentials c = { .ticket = race->ticket, .session = "s1", .is_stream = true };
	pthread_barrier_wait(race->start);
	return auth_check(race->auth, &c, &p, NULL) == 0 ? race : NULL;
}

static void of_many_who_use_a_ticket_at_once_one_gets_in(void **state)
{
	(void)state;
	cfg = (struct config){ .api_keys = two_keys, .api_keys_count = 2, .max_tickets = RACES };
	struct auth *a = make_auth(&cfg);
	for (int round = 0; round < RACES; round++) {
		char ticket[TICKET_BYTES];
		make_ticket(a, ROLE_VIEW, false, ticket);
		pthread_barrier_t start;
		pthread_barrier_init(&start, NULL, RACERS);
		struct race race = { a, ticket, &start };
		pthread_t threads[RACERS];
		for (int i = 0; i < RACERS; i++)
			pthread_create(&threads[i], NULL, use_ticket, &race);
		int winners = 0;
		for (int i = 0; i < RACERS; i++) {
			void *won = NULL;
			pthread_join(threads[i], &won);
			winners += won != NULL;
		}
		assert_int_equal(winners, 1);
		pthread_barrier_destroy(&start);
	}
	auth_destroy(a);
}

/* --- the cookie --- */

static void make_cookie(struct auth *a, enum role role, int64_t owner_expires_ms,
			char ret[COOKIE_BYTES])
{
	struct principal p = { .subject = "did:plc:alice, \"zo\xc3\xab\"; a=b",
			       .role = role,
			       .session = "s1",
			       .expires_ms = owner_expires_ms,
			       .by_ticket = true };
	size_t size = auth_cookie(a, "s1", &p, ret);
	assert_int_equal(size, strlen(ret));
	/* RFC 6265, section 4.1.1: what a value may hold */
	assert_int_equal(strspn(ret,
				"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				"-_."),
			 strlen(ret));
}

static void a_cookie_opens_its_stream_again_after_the_ticket_is_spent(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	char ticket[TICKET_BYTES], cookie[COOKIE_BYTES];
	struct principal p;
	make_ticket(a, ROLE_WRITE, false, ticket);
	assert_int_equal(check_stream(a, "s1", ticket, NULL, &p), 0);
	auth_cookie(a, "s1", &p, cookie);
	for (int i = 0; i < 3; i++) { /* EventSource repeats its URL */
		assert_int_equal(check_stream(a, "s1", ticket, cookie, &p), 0);
		assert_string_equal(p.subject, "alice");
		assert_string_equal(p.session, "s1");
		assert_int_equal(p.role, ROLE_WRITE);
		assert_true(p.by_cookie);
		assert_false(p.by_ticket);
		auth_cookie(a, "s1", &p, cookie);
	}
	assert_int_equal(check_stream(a, "s1", NULL, cookie, &p), 0);
	auth_destroy(a);
}

static void a_cookie_survives_a_restart_with_the_same_store(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	char cookie[COOKIE_BYTES];
	make_cookie(a, ROLE_VIEW, 0, cookie);
	auth_destroy(a);
	a = auth_with_keys();
	struct principal p;
	assert_int_equal(check_stream(a, "s1", NULL, cookie, &p), 0);
	assert_string_equal(p.subject, "did:plc:alice, \"zo\xc3\xab\"; a=b");
	auth_destroy(a);
	static const uint8_t other_key[32] = { 1, 2, 4 };
	assert_int_equal(auth_create(&cfg, other_key, &a, NULL), 0);
	assert_int_equal(check_stream(a, "s1", NULL, cookie, &p), -EACCES);
	auth_destroy(a);
}

static void a_cookie_is_for_one_session_and_unchanged(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	char cookie[COOKIE_BYTES];
	struct principal p;
	make_cookie(a, ROLE_VIEW, 0, cookie);
	assert_int_equal(check_stream(a, "s2", NULL, cookie, &p), -EACCES);
	assert_int_equal(check_stream(a, "", NULL, cookie, &p), -EACCES);
	for (size_t i = 0; i < strlen(cookie); i++) {
		char right = cookie[i];
		cookie[i] = right == '1' ? '2' : '1';
		assert_int_equal(check_stream(a, "s1", NULL, cookie, &p), -EACCES);
		cookie[i] = right;
	}
	assert_int_equal(check_stream(a, "s1", NULL, cookie, &p), 0);
	for (size_t size = strlen(cookie); size-- > 0;) {
		cookie[size] = '\0';
		assert_int_equal(check_stream(a, "s1", NULL, cookie, &p), -EACCES);
	}
	char long_cookie[2000];
	memset(long_cookie, 'a', sizeof(long_cookie) - 1);
	long_cookie[sizeof(long_cookie) - 1] = '\0';
	assert_int_equal(check_stream(a, "s1", NULL, long_cookie, &p), -EACCES);
	auth_destroy(a);
}

static void a_cookie_takes_the_longest_subject(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	struct principal p = { .role = ROLE_WRITE }, got;
	memset(p.subject, 's', SUBJECT_BYTES - 1);
	char cookie[COOKIE_BYTES];
	auth_cookie(a, "s1", &p, cookie);
	assert_int_equal(check_stream(a, "s1", NULL, cookie, &got), 0);
	assert_string_equal(got.subject, p.subject);
	auth_destroy(a);
}

static void a_cookie_ends_with_its_owners_credential_however_often_renewed(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	char cookie[COOKIE_BYTES];
	struct principal p;
	int64_t owner_expires_ms = now_ms() + HOUR_MS;
	make_cookie(a, ROLE_VIEW, owner_expires_ms, cookie);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(check_stream(a, "s1", NULL, cookie, &p), 0);
		assert_int_equal(p.expires_ms, owner_expires_ms);
		auth_cookie(a, "s1", &p, cookie);
	}
	make_cookie(a, ROLE_VIEW, now_ms() - 1, cookie);
	assert_int_equal(check_stream(a, "s1", NULL, cookie, &p), -EACCES);

	/* An owner without an end: a day, and renewing does not make it more. */
	make_cookie(a, ROLE_VIEW, 0, cookie);
	assert_int_equal(check_stream(a, "s1", NULL, cookie, &p), 0);
	int64_t end_ms = p.expires_ms;
	assert_true(end_ms > now_ms() + 23 * HOUR_MS && end_ms <= now_ms() + 24 * HOUR_MS);
	auth_cookie(a, "s1", &p, cookie);
	assert_int_equal(check_stream(a, "s1", NULL, cookie, &p), 0);
	assert_int_equal(p.expires_ms, end_ms);
	auth_destroy(a);
}

static void a_good_cookie_leaves_a_ticket_that_gives_no_more(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	char ticket[TICKET_BYTES], cookie[COOKIE_BYTES];
	struct principal p = { .subject = "alice", .role = ROLE_WRITE };
	auth_cookie(a, "s1", &p, cookie);
	make_ticket(a, ROLE_VIEW, false, ticket);
	assert_int_equal(check_stream(a, "s1", ticket, cookie, &p), 0);
	assert_true(p.by_cookie);
	assert_int_equal(p.role, ROLE_WRITE);
	assert_int_equal(check_stream(a, "s1", ticket, NULL, &p), 0); /* was not spent */
	auth_destroy(a);
}

static void a_ticket_for_more_or_for_another_goes_before_an_old_cookie(void **state)
{
	(void)state;
	struct auth *a = auth_with_keys();
	char ticket[TICKET_BYTES], cookie[COOKIE_BYTES];
	struct principal old[] = { { .subject = "alice", .role = ROLE_VIEW },
				   { .subject = "bob", .role = ROLE_WRITE } };
	for (size_t i = 0; i < COUNT_OF(old); i++) {
		struct principal p;
		auth_cookie(a, "s1", &old[i], cookie);
		make_ticket(a, ROLE_WRITE, false, ticket);
		assert_int_equal(check_stream(a, "s1", ticket, cookie, &p), 0);
		assert_true(p.by_ticket);
		assert_string_equal(p.subject, "alice");
		assert_int_equal(p.role, ROLE_WRITE);
		assert_int_equal(check_stream(a, "s1", ticket, cookie, &p), 0); /* spent now */
		assert_true(p.by_cookie);
	}
	auth_destroy(a);
}

static void roles_have_names(void **state)
{
	(void)state;
	assert_string_equal(role_name(ROLE_VIEW), "view");
	assert_string_equal(role_name(ROLE_WRITE), "write");
	assert_string_equal(role_name(ROLE_ADMIN), "admin");
	assert_string_equal(role_name(ROLE_OPERATOR), "operator");
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_api_key_gives_its_subject_and_role),
		cmocka_unit_test(refuses_every_other_key),
		cmocka_unit_test(reads_the_header_as_clients_write_it),
		cmocka_unit_test(says_what_is_missing_when_nothing_usable_came),
		cmocka_unit_test(makes_a_key_when_none_is_configured),
		cmocka_unit_test(accepts_hs256_with_subject_expiry_and_role),
		cmocka_unit_test(no_jwt_makes_an_operator),
		cmocka_unit_test(wants_a_subject_that_can_be_printed),
		cmocka_unit_test(checks_exp_and_nbf),
		cmocka_unit_test(takes_hs256_and_no_other_algorithm_with_a_secret),
		cmocka_unit_test(refuses_a_token_without_its_signature),
		cmocka_unit_test(refuses_a_token_that_was_changed_at_any_place),
		cmocka_unit_test(refuses_what_only_looks_like_a_token),
		cmocka_unit_test(a_huge_or_deep_token_does_no_harm),
		cmocka_unit_test(takes_rs256_or_es256_by_the_keys_type),
		cmocka_unit_test(takes_no_other_rsa_key_and_no_other_rsa_algorithm),
		cmocka_unit_test(the_public_key_is_no_hmac_secret),
		cmocka_unit_test(secret_and_public_key_go_together),
		cmocka_unit_test(refuses_key_files_it_cannot_use),
		cmocka_unit_test(a_ticket_opens_one_stream_of_its_session_once),
		cmocka_unit_test(a_ticket_is_good_for_streams_alone),
		cmocka_unit_test(the_header_goes_before_the_ticket),
		cmocka_unit_test(a_reusable_ticket_is_good_again),
		cmocka_unit_test(unknown_tickets_are_refused),
		cmocka_unit_test(a_ticket_takes_the_longest_subject),
		cmocka_unit_test(a_ticket_ends_with_its_owners_credential),
		cmocka_unit_test(an_expired_ticket_is_refused),
		cmocka_unit_test(when_no_more_can_be_remembered_none_is_spent),
		cmocka_unit_test(of_many_who_use_a_ticket_at_once_one_gets_in),
		cmocka_unit_test(a_cookie_opens_its_stream_again_after_the_ticket_is_spent),
		cmocka_unit_test(a_cookie_survives_a_restart_with_the_same_store),
		cmocka_unit_test(a_cookie_is_for_one_session_and_unchanged),
		cmocka_unit_test(a_cookie_takes_the_longest_subject),
		cmocka_unit_test(a_cookie_ends_with_its_owners_credential_however_often_renewed),
		cmocka_unit_test(a_good_cookie_leaves_a_ticket_that_gives_no_more),
		cmocka_unit_test(a_ticket_for_more_or_for_another_goes_before_an_old_cookie),
		cmocka_unit_test(roles_have_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
