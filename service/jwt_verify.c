/* jwt_verify.c -- libjwt does the signatures, we choose the algorithm. libjwt takes the algorithm
 * from the token: so what it gave is compared with the one that our key is for, and a token that
 * was checked with the wrong kind of key counts for nothing.
 *
 * Other traps of libjwt 1.10: jwt_decode() writes behind an empty part; its base64 decoder takes
 * what is not base64url; it compares an HMAC by strcmp() (CVE-2024-25189, unless the distribution
 * mended it); it knows neither "crit" nor "exp". It has no state that threads share. */
#include "service/jwt_verify.h"

#include <errno.h>
#include <jansson.h>
#include <jwt.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PEM_BYTES 16384
#define NBF_LEEWAY_S 5 /* clocks differ; none for exp, when a stream ends at once */

/* The key of one algorithm, as libjwt wants it. */
struct jwt_key {
	jwt_alg_t alg;
	unsigned char *data; /* owned */
	size_t size;
};

struct jwt_verify {
	bool require_exp;
	struct jwt_key keys[2];
	size_t keys_count;
};

/* --- the public key's type --- */

struct der {
	const uint8_t *at, *end;
};

/* Enters the next element, which must have this tag: ret is its content, and d goes behind it. */
static bool der_next(struct der *d, uint8_t tag, struct der *ret)
{
	if (d->end - d->at < 2 || d->at[0] != tag)
		return false;
	size_t size = d->at[1];
	d->at += 2;
	if (size >= 0x80) {
		size_t bytes = size & 0x7f;
		if (bytes == 0 || bytes > 2 || (size_t)(d->end - d->at) < bytes)
			return false;
		for (size = 0; bytes > 0; bytes--)
			size = size << 8 | *d->at++;
	}
	if ((size_t)(d->end - d->at) < size)
		return false;
	*ret = (struct der){ d->at, d->at + size };
	d->at += size;
	return true;
}

static bool der_is(const struct der *d, const uint8_t *bytes, size_t size)
{
	return (size_t)(d->end - d->at) == size && memcmp(d->at, bytes, size) == 0;
}

/* The algorithm for a SubjectPublicKeyInfo (RFC 5280, 4.1), or JWT_ALG_INVAL. */
static jwt_alg_t spki_alg(const uint8_t *data, size_t size, struct error *err)
{
	enum { SEQUENCE = 0x30, OID = 0x06, BIT_STRING = 0x03, MIN_RSA_BYTES = 2048 / 8 };
	static const uint8_t rsa[] = { 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01 };
	static const uint8_t ec[] = { 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01 };
	static const uint8_t p256[] = { 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07 };

	struct der all = { data, data + size };
	struct der spki, algorithm, oid, curve, key;
	bool whole = der_next(&all, SEQUENCE, &spki) && der_next(&spki, SEQUENCE, &algorithm) &&
		     der_next(&algorithm, OID, &oid) && der_next(&spki, BIT_STRING, &key);
	if (whole && der_is(&oid, rsa, sizeof(rsa))) {
		if (key.end - key.at > MIN_RSA_BYTES)
			return JWT_ALG_RS256;
		error_set(err, -EINVAL, "--jwt-public-key-file: an RSA key under 2048 bits");
		return JWT_ALG_INVAL;
	}
	if (whole && der_is(&oid, ec, sizeof(ec)) && der_next(&algorithm, OID, &curve) &&
	    der_is(&curve, p256, sizeof(p256)))
		return JWT_ALG_ES256;
	error_set(err, -EINVAL, "--jwt-public-key-file: neither an RSA nor a P-256 public key");
	return JWT_ALG_INVAL;
}

static int read_text(const char *path, char ret[PEM_BYTES + 1], struct error *err)
{
	FILE *f = fopen(path, "re");
	if (f == NULL)
		return error_set(err, -errno, "--jwt-public-key-file %.100s: %s", path,
				 strerror(errno));
	size_t size = fread(ret, 1, PEM_BYTES + 1, f);
	bool failed = ferror(f) != 0;
	fclose(f);
	if (failed || size > PEM_BYTES)
		return error_set(err, -EINVAL, "--jwt-public-key-file %.100s: not a PEM file",
				 path);
	ret[size] = '\0';
	return 0;
}

/* Takes the one block out of the file: whatever stands around it OpenSSL never sees. */
static int add_public_key(struct jwt_verify *v, const char *path, struct error *err)
{
	static const char begin[] = "-----BEGIN PUBLIC KEY-----";
	static const char end[] = "-----END PUBLIC KEY-----";
	char text[PEM_BYTES + 1];
	int rc = read_text(path, text, err);
	if (rc != 0)
		return rc;
	const char *first = strstr(text, begin);
	const char *last = first != NULL ? strstr(first, end) : NULL;
	if (last == NULL)
		return error_set(err, -EINVAL, "--jwt-public-key-file %.100s: no \"%s\" in it",
				 path, begin);
	uint8_t der[PEM_BYTES];
	size_t der_size = 0;
	const char *body = first + sizeof(begin) - 1;
	if (sodium_base642bin(der, sizeof(der), body, (size_t)(last - body), "\r\n \t", &der_size,
			      NULL, sodium_base64_VARIANT_ORIGINAL) != 0)
		return error_set(err, -EINVAL, "--jwt-public-key-file %.100s: not base64", path);
	jwt_alg_t alg = spki_alg(der, der_size, err);
	if (alg == JWT_ALG_INVAL)
		return -EINVAL;
	size_t size = (size_t)(last - first) + sizeof(end) - 1;
	struct jwt_key *key = &v->keys[v->keys_count];
	*key = (struct jwt_key){ .alg = alg, .data = malloc(size + 1), .size = size + 1 };
	if (key->data == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	v->keys_count++;
	memcpy(key->data, first, size);
	key->data[size] = '\n';
	return 0;
}

static int add_secret(struct jwt_verify *v, const char *secret, struct error *err)
{
	struct jwt_key *key = &v->keys[v->keys_count];
	*key = (struct jwt_key){ .alg = JWT_ALG_HS256, .size = strlen(secret) };
	key->data = (unsigned char *)strdup(secret);
	if (key->data == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	v->keys_count++;
	return 0;
}

int jwt_verify_create(const char *secret, const char *public_key_file, bool require_exp,
		      struct jwt_verify **ret, struct error *err)
{
	struct jwt_verify *v = calloc(1, sizeof(*v));
	if (v == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	v->require_exp = require_exp;
	int rc = 0;
	if (secret != NULL)
		rc = add_secret(v, secret, err);
	if (rc == 0 && public_key_file != NULL)
		rc = add_public_key(v, public_key_file, err);
	if (rc != 0) {
		jwt_verify_destroy(v);
		return rc;
	}
	*ret = v;
	return 0;
}

void jwt_verify_destroy(struct jwt_verify *v)
{
	if (v == NULL)
		return;
	for (size_t i = 0; i < v->keys_count; i++) {
		sodium_memzero(v->keys[i].data, v->keys[i].size);
		free(v->keys[i].data);
	}
	free(v);
}

/* --- tokens --- */

/* Three parts of base64url, none of them empty or of a length that base64 cannot have. */
static bool is_well_formed(const char *token, size_t *signed_size)
{
	size_t dots = 0, part = 0;
	for (const char *c = token;; c++) {
		if (c - token > JWT_TOKEN_BYTES)
			return false;
		if (*c == '.' || *c == '\0') {
			if (part == 0 || part % 4 == 1)
				return false;
			if (*c == '\0')
				return dots == 2;
			if (++dots == 2)
				*signed_size = (size_t)(c - token);
			part = 0;
			continue;
		}
		bool good = (*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z') ||
			    (*c >= '0' && *c <= '9') || *c == '-' || *c == '_';
		if (!good)
			return false;
		part++;
	}
}

/* Compares in constant time, before libjwt does it by strcmp(). */
static bool hmac_is_good(const struct jwt_key *key, const char *token, size_t signed_size)
{
	uint8_t given[crypto_auth_hmacsha256_BYTES];
	size_t given_size = 0;
	const char *text = token + signed_size + 1;
	if (sodium_base642bin(given, sizeof(given), text, strlen(text), NULL, &given_size, NULL,
			      sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0 ||
	    given_size != sizeof(given))
		return false;
	uint8_t right[crypto_auth_hmacsha256_BYTES];
	crypto_auth_hmacsha256_state state;
	crypto_auth_hmacsha256_init(&state, key->data, key->size);
	crypto_auth_hmacsha256_update(&state, (const uint8_t *)token, signed_size);
	crypto_auth_hmacsha256_final(&state, right);
	bool same = sodium_memcmp(given, right, sizeof(right)) == 0;
	sodium_memzero(&state, sizeof(state));
	sodium_memzero(right, sizeof(right));
	return same;
}

/* The claims of a token whose signature is good, owned by the caller; NULL when it is not. */
static json_t *verified_claims(const struct jwt_key *key, const char *token, size_t signed_size)
{
	if (key->alg == JWT_ALG_HS256 && !hmac_is_good(key, token, signed_size))
		return NULL;
	jwt_t *jwt = NULL;
	if (jwt_decode(&jwt, token, key->data, (int)key->size) != 0)
		return NULL;
	json_t *claims = NULL;
	char *critical = jwt_get_headers_json(jwt, "crit");
	if (jwt_get_alg(jwt) == key->alg && critical == NULL) {
		char *text = jwt_get_grants_json(jwt, NULL);
		if (text != NULL)
			claims = json_loads(text, 0, NULL);
		free(text);
	}
	free(critical);
	jwt_free(jwt);
	return claims;
}

static int set_subject(const json_t *claims, struct principal *ret, struct error *err)
{
	const json_t *claim = json_object_get(claims, "did");
	if (claim == NULL)
		claim = json_object_get(claims, "sub");
	else if (json_object_get(claims, "sub") != NULL &&
		 !json_equal(claim, json_object_get(claims, "sub")))
		return error_set(err, -EACCES, "the token's did and sub are two");
	const char *subject = json_string_value(claim);
	if (subject == NULL || *subject == '\0')
		return error_set(err, -EACCES, "the token has no did and no sub");
	size_t size = strlen(subject);
	if (size >= sizeof(ret->subject))
		return error_set(err, -EACCES, "the token's subject is too long");
	for (size_t i = 0; i < size; i++)
		if ((unsigned char)subject[i] < ' ' || subject[i] == 0x7f)
			return error_set(err, -EACCES,
					 "the token's subject has a control character");
	memcpy(ret->subject, subject, size + 1);
	return 0;
}

static int set_role(const json_t *claims, struct principal *ret, struct error *err)
{
	const json_t *claim = json_object_get(claims, "role");
	const char *role = json_string_value(claim);
	ret->role = ROLE_NONE;
	if (claim == NULL)
		ret->role = ROLE_ADMIN;
	/* Never operator: who signs tokens for users must not thereby rule over all of them. */
	for (int r = ROLE_VIEW; role != NULL && r <= ROLE_ADMIN; r++)
		if (strcmp(role, role_name((enum role)r)) == 0)
			ret->role = (enum role)r;
	if (ret->role == ROLE_NONE)
		return error_set(err, -EACCES, "the token's role is not view, write or admin");
	return 0;
}

static int check_times(const struct jwt_verify *v, const json_t *claims, struct principal *ret,
		       struct error *err)
{
	static const double last_s = 9e12; /* far past any date; in ms it still fits an int64_t */
	struct timespec clock;
	clock_gettime(CLOCK_REALTIME, &clock);
	double now = (double)clock.tv_sec + (double)clock.tv_nsec / 1e9;

	const json_t *exp = json_object_get(claims, "exp");
	const json_t *nbf = json_object_get(claims, "nbf");
	if ((exp != NULL && !json_is_number(exp)) || (nbf != NULL && !json_is_number(nbf)))
		return error_set(err, -EACCES, "the token's exp or nbf is not a number");
	if (nbf != NULL && json_number_value(nbf) > now + NBF_LEEWAY_S)
		return error_set(err, -EACCES, "the token is not valid yet");
	if (exp == NULL) {
		ret->expires_ms = 0;
		if (v->require_exp)
			return error_set(err, -EACCES, "the token has no exp");
		return 0;
	}
	double expires = json_number_value(exp);
	if (expires <= now)
		return error_set(err, -EACCES, "the token has expired");
	ret->expires_ms = (int64_t)((expires < last_s ? expires : last_s) * 1000);
	return 0;
}

int jwt_verify_token(const struct jwt_verify *v, const char *token, struct principal *ret,
		     struct error *err)
{
	size_t signed_size = 0;
	if (!is_well_formed(token, &signed_size))
		return error_set(err, -EACCES, "the credential is not good");
	json_t *claims = NULL;
	for (size_t i = 0; i < v->keys_count && claims == NULL; i++)
		claims = verified_claims(&v->keys[i], token, signed_size);
	if (claims == NULL)
		return error_set(err, -EACCES, "the token's signature is not good");
	struct principal p = { 0 };
	int rc = check_times(v, claims, &p, err);
	if (rc == 0)
		rc = set_subject(claims, &p, err);
	if (rc == 0)
		rc = set_role(claims, &p, err);
	json_decref(claims);
	if (rc == 0)
		*ret = p;
	return rc;
}
