/* redis_server.h -- whether a server is one that we can use, by what it says of itself. Pure. */
#pragma once

#include "service/error.h"

#define REDIS_RUN_ID_BYTES 41 /* with its 0; changes when the server is started */

/* info is the text that INFO answers. 0, and run_id is filled; else one sentence that says what to do about it:
 * -EPROTO: older than 6.2; -EINVAL: it may evict records, or is a cluster's node or a sentinel; -EROFS: it is a
 * replica of another; -EBADMSG: not what Redis says. run_id is untouched then. Thread: any. */
int redis_server_check(const char *info, char run_id[REDIS_RUN_ID_BYTES], struct error *err);

/* An error that it answers, as one of ours: "redis: INFO refused: NOPERM ...". -EACCES: login or rights are
 * missing; -EAGAIN: it loads, or is a replica that must not be written; -ENOSPC: it is full; else -EIO. answer NULL:
 * it is of another kind than it should be. what: the command. Returns the code. Thread: any. */
int redis_server_refusal(const char *answer, const char *what, struct error *err);
