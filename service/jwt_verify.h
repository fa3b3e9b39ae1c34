/* jwt_verify.h -- checks JSON Web Tokens: one algorithm for each configured key, and nothing else.
 * Source: RFC 7519, RFC 8725. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/auth.h"
#include "service/error.h"

#define JWT_TOKEN_BYTES 7168 /* a longer token is refused */

struct jwt_verify;

/* Takes HS256 with secret (NULL: none) and RS256 or ES256, by the key's type, with the PEM file at
 * public_key_file (NULL: none). Both are copied. */
int jwt_verify_create(const char *secret, const char *public_key_file, bool require_exp,
		      struct jwt_verify **ret, struct error *err);
void jwt_verify_destroy(struct jwt_verify *v); /* wipes the secret; NULL is allowed */

/* Returns 0 and fills subject, role and expires_ms of ret; -EACCES with a text for the client. */
int jwt_verify_token(const struct jwt_verify *v, const char *token, struct principal *ret,
		     struct error *err);
