/* sqlite_sandboxes.c -- the table of sandboxes. Each call is a transaction of its own. */
#include <errno.h>
#include <stdio.h>

#include "store/sqlite_private.h"

#define COLUMNS                                                                                 \
	"id, subject, provider, external_id, credential, redacted, name, metadata, transport, " \
	"agent, resume, created_ms, updated_ms, revision"

/* --- reading --- */

/* What ret points to is the statement's, until it steps on. */
static void read_row(sqlite3_stmt *row, struct store_sandbox *ret)
{
	*ret = (struct store_sandbox){
		.subject = sqlite_column_text(row, 1),
		.provider = sqlite_column_text(row, 2),
		.external_id = sqlite_column_text(row, 3),
		.credential = sqlite_column_text(row, 4),
		.redacted = sqlite_column_text(row, 5),
		.name = sqlite_column_text(row, 6),
		.metadata = sqlite_column_text(row, 7),
		.transport = sqlite_column_text(row, 8),
		.agent = sqlite_column_text(row, 9),
		.resume = sqlite3_column_int(row, 10) != 0,
		.created_ms = sqlite3_column_int64(row, 11),
		.updated_ms = sqlite3_column_int64(row, 12),
		.revision = (uint64_t)sqlite3_column_int64(row, 13),
	};
	snprintf(ret->id, sizeof(ret->id), "%s", sqlite_column_text(row, 0));
}

int sqlite_db_get_sandbox(struct sqlite_db *db, const char *id, struct store_sandbox *ret,
			  struct error *err)
{
	sqlite3_stmt *row = NULL;
	sqlite3_prepare_v2(db->handle, "SELECT " COLUMNS " FROM sandboxes WHERE id = ?", -1, &row,
			   NULL);
	sqlite_bind_text(row, 1, id);
	int step = sqlite3_step(row);
	int rc;
	if (step == SQLITE_ROW) {
		struct store_sandbox borrowed;
		read_row(row, &borrowed);
		rc = store_sandbox_copy(&borrowed, ret);
		if (rc != 0)
			error_set(err, rc, "out of memory");
	} else if (step == SQLITE_DONE) {
		rc = error_set(err, -ENOENT, "there is no sandbox %.64s", id);
	} else {
		rc = sqlite_set_error(db, err);
	}
	sqlite3_finalize(row);
	return rc;
}

int sqlite_db_list_sandboxes(struct sqlite_db *db, const char *subject, const char *after,
			     size_t limit,
			     int (*each)(void *arg, const struct store_sandbox *record), void *arg,
			     struct error *err)
{
	static const char of_all[] = "SELECT " COLUMNS " FROM sandboxes"
				     " WHERE id > ?1 ORDER BY id LIMIT ?2";
	static const char of_subject[] = "SELECT " COLUMNS " FROM sandboxes"
					 " WHERE id > ?1 AND subject = ?3 ORDER BY id LIMIT ?2";
	sqlite3_stmt *row = NULL;
	sqlite3_prepare_v2(db->handle, subject == NULL ? of_all : of_subject, -1, &row, NULL);
	sqlite_bind_text(row, 1, after == NULL ? "" : after);
	sqlite3_bind_int64(row, 2, limit > INT64_MAX ? INT64_MAX : (sqlite3_int64)limit);
	if (subject != NULL)
		sqlite_bind_text(row, 3, subject);
	int rc = 0, step;
	while (rc == 0 && (step = sqlite3_step(row)) != SQLITE_DONE) {
		if (step != SQLITE_ROW) {
			rc = sqlite_set_error(db, err);
			break;
		}
		struct store_sandbox borrowed;
		read_row(row, &borrowed);
		rc = each(arg, &borrowed);
		if (rc != 0)
			error_set(err, rc, "the list stopped at sandbox %s", borrowed.id);
	}
	sqlite3_finalize(row);
	return rc;
}

int sqlite_db_count_sandboxes(struct sqlite_db *db, const char *subject, size_t *ret,
			      struct error *err)
{
	sqlite3_stmt *row = NULL;
	sqlite3_prepare_v2(db->handle, "SELECT count(*) FROM sandboxes WHERE subject = ?", -1, &row,
			   NULL);
	sqlite_bind_text(row, 1, subject);
	int rc = sqlite3_step(row) == SQLITE_ROW ? 0 : sqlite_set_error(db, err);
	if (rc == 0)
		*ret = (size_t)sqlite3_column_int64(row, 0);
	sqlite3_finalize(row);
	return rc;
}

/* --- writing --- */

static void bind_record(sqlite3_stmt *statement, const struct store_sandbox *r)
{
	sqlite_bind_text(statement, 1, r->id);
	sqlite_bind_text(statement, 2, r->subject);
	sqlite_bind_text(statement, 3, r->provider);
	sqlite_bind_text(statement, 4, r->external_id);
	sqlite_bind_text(statement, 5, r->credential);
	sqlite_bind_text(statement, 6, r->redacted);
	sqlite_bind_text(statement, 7, r->name);
	sqlite_bind_text(statement, 8, r->metadata);
	sqlite_bind_text(statement, 9, r->transport);
	sqlite_bind_text(statement, 10, r->agent);
	sqlite3_bind_int(statement, 11, r->resume);
	sqlite3_bind_int64(statement, 12, r->created_ms);
	sqlite3_bind_int64(statement, 13, r->updated_ms);
}

/* Carries the statement out and frees it. */
static int finish(struct sqlite_db *db, sqlite3_stmt *statement, struct error *err)
{
	int rc = sqlite3_step(statement) == SQLITE_DONE ? 0 : sqlite_set_error(db, err);
	sqlite3_finalize(statement);
	return rc;
}

int sqlite_db_insert_sandbox(struct sqlite_db *db, const struct store_sandbox *record,
			     struct error *err)
{
	sqlite3_stmt *statement = NULL;
	sqlite_begin_blocking(db);
	sqlite3_prepare_v2(db->handle,
			   "INSERT INTO sandboxes (" COLUMNS ")"
			   " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)"
			   " ON CONFLICT (id) DO NOTHING",
			   -1, &statement, NULL);
	bind_record(statement, record);
	int rc = finish(db, statement, err);
	if (rc == 0 && sqlite3_changes(db->handle) == 0)
		rc = error_set(err, -EEXIST, "there is a sandbox %s", record->id);
	sqlite_end_blocking(db);
	return rc;
}

int sqlite_db_update_sandbox(struct sqlite_db *db, const struct store_sandbox *record,
			     struct error *err)
{
	sqlite3_stmt *statement = NULL;
	sqlite_begin_blocking(db);
	sqlite3_prepare_v2(db->handle,
			   "UPDATE sandboxes SET subject = ?2, provider = ?3, external_id = ?4,"
			   " credential = ?5, redacted = ?6, name = ?7, metadata = ?8,"
			   " transport = ?9, agent = ?10, resume = ?11, created_ms = ?12,"
			   " updated_ms = ?13, revision = revision + 1"
			   " WHERE id = ?1 AND revision = ?14",
			   -1, &statement, NULL);
	bind_record(statement, record);
	sqlite3_bind_int64(statement, 14, (sqlite3_int64)record->revision);
	int rc = finish(db, statement, err);
	if (rc == 0 && sqlite3_changes(db->handle) == 0) {
		struct store_sandbox other;
		rc = sqlite_db_get_sandbox(db, record->id, &other, err);
		if (rc == 0) {
			store_sandbox_fini(&other);
			rc = error_set(err, -ESTALE, "sandbox %s was changed meanwhile",
				       record->id);
		}
	}
	sqlite_end_blocking(db);
	return rc;
}

int sqlite_db_delete_sandbox(struct sqlite_db *db, const char *id, struct error *err)
{
	sqlite3_stmt *statement = NULL;
	sqlite_begin_blocking(db);
	sqlite3_prepare_v2(db->handle, "DELETE FROM sandboxes WHERE id = ?", -1, &statement, NULL);
	sqlite_bind_text(statement, 1, id);
	int rc = finish(db, statement, err);
	if (rc == 0 && sqlite3_changes(db->handle) == 0)
		rc = error_set(err, -ENOENT, "there is no sandbox %.64s", id);
	sqlite_end_blocking(db);
	return rc;
}

int sqlite_db_reseal_session(struct sqlite_db *db, const struct store_session *seen,
			     const char *endpoint, const char *target, struct error *err)
{
	sqlite3_stmt *statement = NULL;
	sqlite_begin_blocking(db);
	sqlite3_prepare_v2(db->handle,
			   "UPDATE sessions SET endpoint = ?2, target = ?3"
			   " WHERE id = ?1 AND endpoint IS ?4 AND target IS ?5",
			   -1, &statement, NULL);
	sqlite_bind_text(statement, 1, seen->id);
	sqlite_bind_text(statement, 2, endpoint);
	sqlite_bind_text(statement, 3, target);
	sqlite_bind_text(statement, 4, seen->endpoint);
	sqlite_bind_text(statement, 5, seen->target);
	int rc = finish(db, statement, err);
	if (rc == 0 && sqlite3_changes(db->handle) == 0)
		rc = error_set(err, -ESTALE, "session %s was changed meanwhile", seen->id);
	sqlite_end_blocking(db);
	return rc;
}
