/* sqlite_schema.c -- the tables, and the way to them from older versions. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "store/sqlite_private.h"

#define APPLICATION_ID 0x70747963 /* "ptyc", in the file's header */
#define SCHEMA_VERSION 2

/* clang-format off */
/* step[n] leads from version n to n + 1; all of them make a new file. */
static const char *const steps[SCHEMA_VERSION] = {
	"CREATE TABLE sessions ("
	" id TEXT PRIMARY KEY NOT NULL,"
	" subject TEXT, sandbox TEXT, provider TEXT, params TEXT,"
	" endpoint TEXT," /* sealed */
	" epoch INTEGER, end_offset INTEGER, fence INTEGER," /* unsigned 64 bits, as signed ones */
	" cols INTEGER, rows INTEGER,"
	" created_ms INTEGER, idle_timeout_s INTEGER,"
	" ended INTEGER, ended_json TEXT, ended_ms INTEGER);"
	"CREATE TABLE service_values (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL);",

	"ALTER TABLE sessions ADD COLUMN target TEXT;" /* its secret sealed */
	"CREATE TABLE sandboxes ("
	" id TEXT PRIMARY KEY NOT NULL,"
	" subject TEXT NOT NULL, provider TEXT NOT NULL, external_id TEXT NOT NULL,"
	" credential TEXT NOT NULL," /* sealed */
	" redacted TEXT NOT NULL,"
	" name TEXT, metadata TEXT,"
	" transport TEXT NOT NULL, agent TEXT NOT NULL, resume INTEGER NOT NULL,"
	" created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, revision INTEGER NOT NULL);"
	"CREATE UNIQUE INDEX sandboxes_of_subject ON sandboxes (subject, id);",
};
/* clang-format on */

static int get_number(struct sqlite_db *db, const char *sql, int64_t *ret, struct error *err)
{
	sqlite3_stmt *statement = NULL;
	sqlite3_prepare_v2(db->handle, sql, -1, &statement, NULL);
	int rc = sqlite3_step(statement) == SQLITE_ROW ? 0 : sqlite_set_error(db, err);
	if (rc == 0)
		*ret = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	return rc;
}

/* Sets *ret to the file's version, 0 when it is empty. */
static int get_version(struct sqlite_db *db, int64_t *ret, struct error *err)
{
	int64_t application = 0, version = 0, objects = 0;
	int rc = get_number(db, "PRAGMA application_id", &application, err);
	if (rc == 0)
		rc = get_number(db, "PRAGMA user_version", &version, err);
	if (rc == 0)
		rc = get_number(db, "SELECT count(*) FROM sqlite_schema", &objects, err);
	if (rc != 0)
		return rc;
	bool empty = objects == 0 && version == 0;
	if (!empty && (application != APPLICATION_ID || version < 1))
		return error_set(err, -EBADMSG,
				 "store sqlite:%.100s is the database of another program",
				 db->path);
	if (version > SCHEMA_VERSION)
		return error_set(
			err, -EPROTONOSUPPORT,
			"store sqlite:%.100s was written by a newer ptycast: its schema is "
			"%" PRId64 ", this one knows %d",
			db->path, version, SCHEMA_VERSION);
	*ret = version;
	return 0;
}

/* Within a transaction. */
static int go_on(struct sqlite_db *db, struct error *err)
{
	int64_t version = 0;
	int rc = get_version(db, &version, err); /* again: another process may have been quicker */
	for (; rc == 0 && version < SCHEMA_VERSION; version++)
		if (sqlite_execute(db, steps[version]) != 0)
			rc = sqlite_set_error(db, err);
	char sql[100];
	snprintf(sql, sizeof(sql), "PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT",
		 APPLICATION_ID, SCHEMA_VERSION);
	if (rc == 0 && sqlite_execute(db, sql) != 0)
		rc = sqlite_set_error(db, err);
	return rc;
}

int sqlite_schema_make(struct sqlite_db *db, struct error *err)
{
	int64_t version = 0;
	int rc = get_version(db, &version, err);
	if (rc != 0 || version == SCHEMA_VERSION)
		return rc;
	if (sqlite_execute(db, "BEGIN IMMEDIATE") != 0)
		return sqlite_set_error(db, err);
	rc = go_on(db, err);
	if (rc != 0 && sqlite3_get_autocommit(db->handle) == 0)
		sqlite_execute(db, "ROLLBACK");
	return rc;
}
