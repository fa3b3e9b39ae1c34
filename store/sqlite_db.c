/* sqlite_db.c -- all that ptycast says to SQLite.
 *
 * WAL with synchronous=NORMAL: a commit is in the kernel when it returns, so that kill -9 loses
 * nothing, and only a power cut may lose the newest ones, never the file. */
#include "store/sqlite_db.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "service/log.h"
#include "store/sqlite_private.h"

#define BUSY_TIMEOUT_MS 1000
#define PATIENT_TIMEOUT_MS 5000 /* while somebody waits for the answer, and of tools */
#define WAL_KEEP_BYTES "16777216"

/* clang-format off */
#define SESSION_COLUMNS \
	"id, subject, sandbox, provider, params, endpoint, epoch, end_offset, fence, cols, rows," \
	" created_ms, idle_timeout_s, ended, ended_json, ended_ms, target"
/* clang-format on */

int sqlite_code(int sqlite_result)
{
	switch (sqlite_result & 0xff) {
	case SQLITE_OK:
	case SQLITE_DONE:
	case SQLITE_ROW:
		return 0;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_PERM:
	case SQLITE_READONLY:
	case SQLITE_AUTH:
		return -EACCES;
	case SQLITE_NOTADB:
	case SQLITE_CORRUPT:
		return -EBADMSG;
	case SQLITE_CONSTRAINT:
	case SQLITE_MISMATCH:
	case SQLITE_TOOBIG:
	case SQLITE_RANGE:
		return -EINVAL;
	default:
		return -EIO;
	}
}

int sqlite_set_error(struct sqlite_db *db, struct error *err)
{
	int rc = sqlite_code(sqlite3_errcode(db->handle));
	return error_set(err, rc != 0 ? rc : -EIO, "store sqlite:%.100s: %s", db->path,
			 sqlite3_errmsg(db->handle));
}

int sqlite_execute(struct sqlite_db *db, const char *sql)
{
	return sqlite_code(sqlite3_exec(db->handle, sql, NULL, NULL, NULL));
}

void sqlite_begin_blocking(struct sqlite_db *db)
{
	sqlite3_busy_timeout(db->handle, PATIENT_TIMEOUT_MS);
	sqlite_execute(db, "PRAGMA synchronous = FULL");
}

void sqlite_end_blocking(struct sqlite_db *db)
{
	sqlite_execute(db, "PRAGMA synchronous = NORMAL");
	sqlite3_busy_timeout(db->handle, db->lock_fd < 0 ? PATIENT_TIMEOUT_MS : BUSY_TIMEOUT_MS);
}

/* --- writing --- */

void sqlite_bind_text(sqlite3_stmt *statement, int index, const char *text)
{
	sqlite3_bind_text(statement, index, text, -1, SQLITE_STATIC);
}

static void bind_number(sqlite3_stmt *statement, int index, uint64_t n)
{
	sqlite3_bind_int64(statement, index, (sqlite3_int64)n);
}

static int run(sqlite3_stmt *statement)
{
	sqlite3_step(statement);
	int rc = sqlite_code(sqlite3_reset(statement));
	sqlite3_clear_bindings(statement);
	return rc;
}

int sqlite_db_put(struct sqlite_db *db, const struct store_session *r)
{
	sqlite_bind_text(db->put, 1, r->id);
	sqlite_bind_text(db->put, 2, r->subject);
	sqlite_bind_text(db->put, 3, r->sandbox);
	sqlite_bind_text(db->put, 4, r->provider);
	sqlite_bind_text(db->put, 5, r->params);
	sqlite_bind_text(db->put, 6, r->endpoint);
	bind_number(db->put, 7, r->epoch);
	bind_number(db->put, 8, r->end);
	bind_number(db->put, 9, r->fence);
	bind_number(db->put, 10, r->cols);
	bind_number(db->put, 11, r->rows);
	sqlite3_bind_int64(db->put, 12, r->created_ms);
	bind_number(db->put, 13, r->idle_timeout_s);
	bind_number(db->put, 14, r->ended);
	sqlite_bind_text(db->put, 15, r->ended_json);
	sqlite3_bind_int64(db->put, 16, r->ended_ms);
	sqlite_bind_text(db->put, 17, r->target);
	return run(db->put);
}

int sqlite_db_delete(struct sqlite_db *db, const char *id)
{
	sqlite_bind_text(db->delete, 1, id);
	return run(db->delete);
}

int sqlite_db_begin(struct sqlite_db *db)
{
	return sqlite_execute(db, "BEGIN IMMEDIATE");
}

int sqlite_db_commit(struct sqlite_db *db)
{
	return sqlite_execute(db, "COMMIT");
}

int sqlite_db_rollback(struct sqlite_db *db, struct error *err)
{
	int rc = sqlite_set_error(db, err);
	/* After some errors SQLite has done it by itself. */
	if (sqlite3_get_autocommit(db->handle) == 0)
		sqlite_execute(db, "ROLLBACK");
	return rc;
}

/* --- reading --- */

char *sqlite_column_text(sqlite3_stmt *statement, int index)
{
	/* Borrowed from the statement; what takes it copies it. */
	return (char *)sqlite3_column_text(statement, index);
}

static uint64_t column_number(sqlite3_stmt *statement, int index)
{
	return (uint64_t)sqlite3_column_int64(statement, index);
}

static int read_session(sqlite3_stmt *statement, struct store_session *ret)
{
	struct store_session r = {
		.subject = sqlite_column_text(statement, 1),
		.sandbox = sqlite_column_text(statement, 2),
		.provider = sqlite_column_text(statement, 3),
		.params = sqlite_column_text(statement, 4),
		.endpoint = sqlite_column_text(statement, 5),
		.epoch = column_number(statement, 6),
		.end = column_number(statement, 7),
		.fence = column_number(statement, 8),
		.cols = (uint16_t)column_number(statement, 9),
		.rows = (uint16_t)column_number(statement, 10),
		.created_ms = sqlite3_column_int64(statement, 11),
		.idle_timeout_s = (uint32_t)column_number(statement, 12),
		.ended = column_number(statement, 13) != 0,
		.ended_json = sqlite_column_text(statement, 14),
		.ended_ms = sqlite3_column_int64(statement, 15),
		.target = sqlite_column_text(statement, 16),
	};
	snprintf(r.id, sizeof(r.id), "%s", sqlite_column_text(statement, 0));
	return store_session_copy(&r, ret);
}

struct records {
	struct store_session *all; /* owned */
	size_t count, room;
};

static int append_record(struct records *records, sqlite3_stmt *statement)
{
	if (records->count == records->room) {
		size_t room = records->room * 2 + 16;
		struct store_session *grown = reallocarray(records->all, room,
							   sizeof(struct store_session));
		if (grown == NULL)
			return -ENOMEM;
		records->all = grown;
		records->room = room;
	}
	int rc = read_session(statement, &records->all[records->count]);
	records->count += rc == 0;
	return rc;
}

int sqlite_db_read_all(struct sqlite_db *db, struct store_session **ret, size_t *count,
		       struct error *err)
{
	static const char sql[] = "SELECT " SESSION_COLUMNS
				  " FROM sessions ORDER BY created_ms, id";
	struct records records = { 0 };
	sqlite3_stmt *statement = NULL;
	int rc = 0;
	int step = sqlite3_prepare_v2(db->handle, sql, -1, &statement, NULL);
	if (step == SQLITE_OK)
		step = sqlite3_step(statement);
	for (; rc == 0 && step == SQLITE_ROW; step = sqlite3_step(statement))
		if (append_record(&records, statement) != 0)
			rc = error_set(err, -ENOMEM, "out of memory");
	if (rc == 0 && step != SQLITE_DONE)
		rc = sqlite_set_error(db, err);
	sqlite3_finalize(statement);
	if (rc != 0) {
		while (records.count > 0)
			store_session_fini(&records.all[--records.count]);
		free(records.all);
		return rc;
	}
	*ret = records.all;
	*count = records.count;
	return 0;
}

/* Copies the value called name; -ENOENT when there is none. */
static int read_value(struct sqlite_db *db, const char *name, void *value, size_t size,
		      struct error *err)
{
	sqlite3_stmt *statement = NULL;
	sqlite3_prepare_v2(db->handle, "SELECT value FROM service_values WHERE name = ?", -1,
			   &statement, NULL);
	sqlite_bind_text(statement, 1, name);
	int step = sqlite3_step(statement);
	int rc = step == SQLITE_DONE ? -ENOENT : 0;
	if (step != SQLITE_ROW && step != SQLITE_DONE)
		rc = sqlite_set_error(db, err);
	else if (rc == 0 && (size_t)sqlite3_column_bytes(statement, 0) != size)
		rc = error_set(err, -EBADMSG, "store sqlite:%.100s: \"%s\" has not %zu bytes",
			       db->path, name, size);
	else if (rc == 0)
		memcpy(value, sqlite3_column_blob(statement, 0), size);
	sqlite3_finalize(statement);
	return rc;
}

static int write_value(struct sqlite_db *db, const char *name, const void *value, size_t size,
		       struct error *err)
{
	sqlite3_stmt *statement = NULL;
	sqlite3_prepare_v2(db->handle, "INSERT INTO service_values (name, value) VALUES (?, ?)", -1,
			   &statement, NULL);
	sqlite_bind_text(statement, 1, name);
	sqlite3_bind_blob64(statement, 2, value, size, SQLITE_STATIC);
	int rc = sqlite3_step(statement) == SQLITE_DONE ? 0 : sqlite_set_error(db, err);
	sqlite3_finalize(statement);
	return rc;
}

int sqlite_db_get_or_put(struct sqlite_db *db, const char *name, void *value, size_t size,
			 struct error *err)
{
	int rc = read_value(db, name, value, size, err);
	return rc == -ENOENT ? write_value(db, name, value, size, err) : rc;
}

/* --- opening --- */

/* Two services on one file would undo each other's records. The lock is on a file beside it, so
 * that the sqlite3 shell and backups can still read; the kernel drops it with the process. */
static int lock_file(struct sqlite_db *db, struct error *err)
{
	char *path = NULL;
	if (asprintf(&path, "%s.lock", db->path) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	db->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int rc = db->lock_fd >= 0 && flock(db->lock_fd, LOCK_EX | LOCK_NB) == 0 ? 0 : -errno;
	if (rc == -EWOULDBLOCK)
		rc = error_set(err, -EBUSY, "store sqlite:%.100s is in use by another process",
			       db->path);
	else if (rc != 0)
		error_set(err, rc, "store: %.100s: %s", path, strerror(-rc));
	free(path);
	return rc;
}

/* Makes the file itself first: SQLite would make it readable for others, and gives the mode of this
 * one to the files that it puts beside it. */
static int make_private_file(const struct sqlite_db *db, struct error *err)
{
	int fd = open(db->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_set(err, -errno, "store sqlite:%.100s: %s", db->path, strerror(errno));
	struct stat st;
	if (fstat(fd, &st) == 0 && (st.st_mode & 077) != 0) {
		char path[200];
		log_warn("store readable by others", "mode=%03o path=%s",
			 (unsigned)st.st_mode & 0777, log_safe(path, sizeof(path), db->path));
	}
	close(fd);
	return 0;
}

static int prepare(struct sqlite_db *db, const char *sql, sqlite3_stmt **ret, struct error *err)
{
	int rc = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL);
	return rc == SQLITE_OK ? 0 : sqlite_set_error(db, err);
}

static int open_handle(struct sqlite_db *db, struct error *err)
{
	/* One thread at a time: no need of SQLite's own mutex. */
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
	if (sqlite3_open_v2(db->path, &db->handle, flags, NULL) != SQLITE_OK)
		return db->handle == NULL ? error_set(err, -ENOMEM, "out of memory")
					  : sqlite_set_error(db, err);
	sqlite3_extended_result_codes(db->handle, 1);
	sqlite3_busy_timeout(db->handle, PATIENT_TIMEOUT_MS);
	int rc = sqlite_schema_make(db, err);
	if (rc != 0)
		return rc;
	if (sqlite_execute(db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
			       "PRAGMA journal_size_limit = " WAL_KEEP_BYTES ";"
			       "PRAGMA trusted_schema = OFF; PRAGMA cache_size = -1024") != 0)
		return sqlite_set_error(db, err);
	rc = prepare(db,
		     "INSERT OR REPLACE INTO sessions (" SESSION_COLUMNS ")"
		     " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		     &db->put, err);
	if (rc == 0)
		rc = prepare(db, "DELETE FROM sessions WHERE id = ?", &db->delete, err);
	if (rc == 0 && db->lock_fd >= 0)
		sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
	return rc;
}

int sqlite_db_open(const char *path, bool shared, struct sqlite_db **ret, struct error *err)
{
	struct sqlite_db *db = calloc(1, sizeof(*db));
	char *own_path = strdup(path);
	if (db == NULL || own_path == NULL) {
		free(db);
		free(own_path);
		return error_set(err, -ENOMEM, "out of memory");
	}
	db->path = own_path;
	db->lock_fd = -1;
	int rc = 0;
	if (strcmp(path, ":memory:") != 0) {
		if (!shared)
			rc = lock_file(db, err);
		if (rc == 0)
			rc = make_private_file(db, err);
	}
	if (rc == 0)
		rc = open_handle(db, err);
	if (rc != 0) {
		sqlite_db_close(db);
		return rc;
	}
	*ret = db;
	return 0;
}

void sqlite_db_close(struct sqlite_db *db)
{
	if (db == NULL)
		return;
	sqlite3_finalize(db->put);
	sqlite3_finalize(db->delete);
	sqlite3_close(db->handle);
	if (db->lock_fd >= 0)
		close(db->lock_fd); /* and with it the lock, after the last write */
	free(db->path);
	free(db);
}
