/* sqlite_private.h -- one SQLite file, for the files that talk to it: sqlite_db.c (its life, sessions),
 * sqlite_schema.c, sqlite_sandboxes.c. */
#pragma once

#include <sqlite3.h>

#include "store/sqlite_db.h"

struct sqlite_db {
	char *path;
	int lock_fd; /* holds the lock on <path>.lock; -1 for :memory:, and for a tool */
	sqlite3 *handle;
	sqlite3_stmt *put, *delete;
};

/* What a result of SQLite is as a negative errno. */
int sqlite_code(int sqlite_result);
/* Says what SQLite says of the last call, which failed. */
int sqlite_set_error(struct sqlite_db *db, struct error *err);
int sqlite_execute(struct sqlite_db *db, const char *sql);

/* The text is borrowed: until the statement is reset, or until it steps on. NULL is NULL. */
void sqlite_bind_text(sqlite3_stmt *statement, int index, const char *text);
char *sqlite_column_text(sqlite3_stmt *statement, int index);

/* From here to sqlite_end_blocking() somebody waits for an answer: waits longer for other processes, and a
 * commit is on the disk when it returns, also through a power cut. Not within a transaction. */
void sqlite_begin_blocking(struct sqlite_db *db);
void sqlite_end_blocking(struct sqlite_db *db);

/* Makes the tables in an empty file, or brings those of an older version up to ours, or refuses. */
int sqlite_schema_make(struct sqlite_db *db, struct error *err);
