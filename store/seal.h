/* seal.h -- secrets at rest: crypto_box_seal of libsodium in the original's form, URL-safe base64
 * without padding, key pair as hex. Source: protocols/pocketenv-api.md section 6. Thread: any. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "service/error.h"

struct seal_keys; /* one pair; the private half is in memory that is not swapped and not dumped */

/* From 64 hex digits each. */
int seal_keys_from_hex(const char *public_hex, const char *private_hex, struct seal_keys **ret,
		       struct error *err);
/* Reads path (two lines: public, private, hex), or makes a pair and writes it, mode 0600,
 * atomically. A file that others may read is refused. */
int seal_keys_from_file(const char *path, struct seal_keys **ret, struct error *err);
void seal_keys_destroy(struct seal_keys *k); /* wipes; NULL is allowed */

/* Returns the sealed text, owned by the caller (free()), or NULL without memory. */
char *seal(const struct seal_keys *k, const void *data, size_t size);
/* Returns 0 and the bytes with a 0 behind them, owned by the caller (seal_free()); -EBADMSG when it
 * was not sealed for this pair. */
int seal_open(const struct seal_keys *k, const char *sealed, uint8_t **ret, size_t *ret_size);
void seal_free(void *data, size_t size); /* wipes and frees */
