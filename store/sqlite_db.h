/* sqlite_db.h -- one SQLite file as the store uses it: locked for this process, with our schema. No
 * threads in here: the caller lets one at a time use it. Errors are negative errno values: -ENOSPC,
 * -EBUSY, -EACCES, -EBADMSG (no database, or damaged) and -EIO may pass; -EINVAL says that this
 * record can never be written. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "service/error.h"
#include "store/store.h"

struct sqlite_db;

/* Opens or makes the file, 0600, or a database in memory for ":memory:". shared: beside the process that has
 * it, without its lock. */
int sqlite_db_open(const char *path, bool shared, struct sqlite_db **ret, struct error *err);
void sqlite_db_close(struct sqlite_db *db); /* NULL is allowed */

/* A transaction: begin, puts and deletes, then commit, or rollback after any error but -EINVAL. */
int sqlite_db_begin(struct sqlite_db *db);
int sqlite_db_put(struct sqlite_db *db, const struct store_session *record);
int sqlite_db_delete(struct sqlite_db *db, const char *id);
int sqlite_db_commit(struct sqlite_db *db);

/* Fills err with why the last call failed, then undoes the transaction. Returns err's code. */
int sqlite_db_rollback(struct sqlite_db *db, struct error *err);

/* All sessions, oldest first, each and the array owned by the caller. Set on success only. */
int sqlite_db_read_all(struct sqlite_db *db, struct store_session **ret, size_t *count,
		       struct error *err);

/* As store.h's get_or_put. */
int sqlite_db_get_or_put(struct sqlite_db *db, const char *name, void *value, size_t size,
			 struct error *err);

/* As store.h's ops of these names. */
int sqlite_db_get_sandbox(struct sqlite_db *db, const char *id, struct store_sandbox *ret,
			  struct error *err);
int sqlite_db_list_sandboxes(struct sqlite_db *db, const char *subject, const char *after,
			     size_t limit,
			     int (*each)(void *arg, const struct store_sandbox *record), void *arg,
			     struct error *err);
int sqlite_db_count_sandboxes(struct sqlite_db *db, const char *subject, size_t *ret,
			      struct error *err);
int sqlite_db_insert_sandbox(struct sqlite_db *db, const struct store_sandbox *record,
			     struct error *err);
int sqlite_db_update_sandbox(struct sqlite_db *db, const struct store_sandbox *record,
			     struct error *err);
int sqlite_db_delete_sandbox(struct sqlite_db *db, const char *id, struct error *err);
int sqlite_db_reseal_session(struct sqlite_db *db, const struct store_session *seen,
			     const char *endpoint, const char *target, struct error *err);
