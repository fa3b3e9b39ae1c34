/* seal.h -- secrets at rest: crypto_box_seal of libsodium in the original's form, URL-safe base64
 * without padding, keys as hex. Source: protocols/pocketenv-api.md section 6. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/error.h"

#define SEAL_HEX_DIGITS 64 /* of each half */
#define SEAL_PAIRS_MAX 16

/* Pairs, newest first: the newest seals, all open. The private halves are in memory that is not swapped
 * and not dumped. */
struct seal_keys;

/* private_hex: 64 hex digits each, newest first, separated by commas. public_hex: the newest's other half, or
 * NULL. */
int seal_keys_from_hex(const char *public_hex, const char *private_hex, struct seal_keys **ret,
		       struct error *err);
/* Reads path (two lines a pair: public, private, hex; newest first), or makes a pair and writes it, mode
 * 0600, atomically. A file that others may read is refused. */
int seal_keys_from_file(const char *path, struct seal_keys **ret, struct error *err);
void seal_keys_destroy(struct seal_keys *k); /* wipes; NULL is allowed */

/* A new pair, as hex. */
void seal_make_pair(char public_hex[SEAL_HEX_DIGITS + 1], char private_hex[SEAL_HEX_DIGITS + 1]);
/* The newest's public half, as hex. */
void seal_public_hex(const struct seal_keys *k, char ret[SEAL_HEX_DIGITS + 1]);

/* Returns the sealed text, owned by the caller (free()), or NULL without memory. */
char *seal(const struct seal_keys *k, const void *data, size_t size);
/* The same for a public half alone; NULL also when it is not one. */
char *seal_for(const char *public_hex, const void *data, size_t size);
/* Returns 0 and the bytes with a 0 behind them, owned by the caller (seal_free()); -EBADMSG when it
 * was not sealed for any of these pairs. */
int seal_open(const struct seal_keys *k, const char *sealed, uint8_t **ret, size_t *ret_size);
/* True when the newest pair opens it. */
bool seal_is_newest(const struct seal_keys *k, const char *sealed);
/* Seals anew what an older pair sealed. 1 and *ret, owned by the caller; 0 when the newest did already,
 * -EBADMSG when none opens it, -ENOMEM: *ret is NULL then. */
int reseal(const struct seal_keys *k, const char *sealed, char **ret);
void seal_free(void *data, size_t size); /* wipes and frees; NULL is allowed */
