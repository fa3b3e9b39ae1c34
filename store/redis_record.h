/* redis_record.h -- records as the fields of a hash, and back. Absent fields are NULL texts; numbers of 64 bits are 16 hex
 * digits, times and small ones decimal, booleans 0 or 1. Pure. */
#pragma once

#include <stdbool.h>

#include "store/redis_conn.h"
#include "store/store.h"

enum redis_record { REDIS_SESSION, REDIS_SANDBOX };

/* Appends N, then N pairs of field and value, then the fields that the record does not have: as the scripts take them. With
 * pairs_only: the pairs alone. Texts are borrowed. */
void redis_record_encode(struct redis_args *a, enum redis_record kind, const void *record,
			 bool pairs_only);

/* Fills *ret, of the kind's type, from a reply of HGETALL; id is that of its key. 0 and *ret is the caller's; -ENOENT: it is
 * empty; -EBADMSG: it is no record of ours; -ENOMEM. */
int redis_record_decode(enum redis_record kind, const char *id, const struct redisReply *reply,
			void *ret);

/* Fills one member of *ret, 0 before, from value. As above; -EBADMSG too when there is none of that name. */
int redis_record_set(enum redis_record kind, const char *field, const struct redisReply *value,
		     void *ret);
