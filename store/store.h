/* store.h -- records that outlive the process: sessions, and the service's own keys. Output is
 * never stored. One implementation a file (sqlite.c; redis.c comes later), one conformance suite
 * (tests/unit/store/) over all. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/error.h"

/* What is kept of a session. Strings are owned by who made the record; NULL where not known. */
struct store_session {
	char id[65];
	char *subject;
	char *sandbox;  /* "local", or JSON of an inline one without its credential */
	char *provider; /* "local", "url" */
	char *params;   /* hash of what a repeated POST is compared with */
	char *endpoint; /* sealed JSON of where its tunnel is; NULL before it was provisioned */
	char *target; /* JSON of the sandbox it is in, its secret sealed; NULL: a built-in one, or ended */
	uint64_t epoch; /* 0: none yet */
	uint64_t end;   /* ended: offset after the last byte */
	uint64_t fence; /* highest number used for an attach */
	uint16_t cols, rows;
	int64_t created_ms; /* Unix time */
	uint32_t idle_timeout_s;
	bool ended;
	char *ended_json; /* the "ended" member of the API's session object; NULL while alive */
	int64_t ended_ms;
};

void store_session_fini(struct store_session *record);
int store_session_copy(const struct store_session *from, struct store_session *ret);

/* A sandbox: where it is, and the credential for it. Owned like those of a session. */
struct store_sandbox {
	char id[65];
	char *subject;
	char *provider;
	char *external_id;
	char *credential; /* sealed JSON object of strings */
	char *redacted;   /* JSON object: the same members, fit to be shown */
	char *name;       /* or NULL */
	char *metadata;   /* JSON object, or NULL */
	char *transport;  /* "auto", "agent", "native" */
	char *agent;      /* "ptycast" or "pty-tunnel" */
	bool resume;      /* wake it for a session when it is suspended */
	int64_t created_ms, updated_ms;
	uint64_t revision; /* 1 at first, + 1 at each change: set by the store */
};

void store_sandbox_fini(struct store_sandbox *record); /* sets all to 0 */
int store_sandbox_copy(const struct store_sandbox *from, struct store_sandbox *ret);

struct store;

struct store_ops {
	const char *scheme; /* "sqlite" */

	/* Opens what location names (behind "sqlite:"), makes the schema, checks its version.
	 * Blocks. */
	int (*open)(const char *location, struct store **ret, struct error *err);

	/* The same for a tool, which may run beside the service that has the store: without the lock that keeps
	 * a second service off. Only load_sessions, reseal_session and the sandboxes' ops may be used then.
	 * They wait for each other for at most 5 s. */
	int (*open_tool)(const char *location, struct store **ret, struct error *err);

	/* Ends after all queued writes, or after some seconds when they fail. NULL is allowed. */
	void (*close)(struct store *s);

	/* Calls each for every session on disk, oldest first; the record is good during the call
	 * only. each returns 0 to go on, and may use the store. Blocks: for the start. */
	int (*load_sessions)(struct store *s,
			     int (*each)(void *arg, const struct store_session *record), void *arg,
			     struct error *err);

	/* Queue a write and return: 0, or -EAGAIN when the queue (8,192) is full, -ENOMEM. Writes
	 * of one session are carried out in order; several are put into one transaction, and of
	 * those on one session only the last. A write that fails is tried again until close(). done
	 * may be NULL; it is called on the store's thread with 0 once the write, or a later one in
	 * its place, is on disk; with a negative errno when close() gave up, or this record can
	 * never be stored. Thread: any. */
	int (*put_session)(struct store *s, const struct store_session *record,
			   void (*done)(void *arg, int status), void *arg);
	int (*delete_session)(struct store *s, const char *id);

	/* A value kept for the service itself ("cookie-key"): read and created at the start.
	 * Blocks. If it is not there it becomes the size random bytes at value; else value receives
	 * what is stored. -EBADMSG when that has another size. */
	int (*get_or_put)(struct store *s, const char *name, void *value, size_t size,
			  struct error *err);

	/* Replaces endpoint and target of a session if they are still those of seen; -ESTALE when they are not, or
	 * the session is gone. Blocks. A service that has the session writes its own again later. */
	int (*reseal_session)(struct store *s, const struct store_session *seen,
			      const char *endpoint, const char *target, struct error *err);

	/* Sandboxes. These block, until it is on disk: for threads that may (provisioner, main). Several threads
	 * may call at once, and tools change them beside us: nothing of them is cached. Errors: err says what
	 * the store said. */

	/* -ENOENT: there is none. *ret is the caller's. */
	int (*get_sandbox)(struct store *s, const char *id, struct store_sandbox *ret,
			   struct error *err);
	/* Calls each for up to limit records with an id > after (NULL: from the start), by id; subject NULL:
	 * all. The records are good during the call only; each must not use the store. */
	int (*list_sandboxes)(struct store *s, const char *subject, const char *after, size_t limit,
			      int (*each)(void *arg, const struct store_sandbox *record), void *arg,
			      struct error *err);
	/* How many of them subject has. */
	int (*count_sandboxes)(struct store *s, const char *subject, size_t *ret,
			       struct error *err);
	/* -EEXIST: the id is in use; nothing is changed then. */
	int (*insert_sandbox)(struct store *s, const struct store_sandbox *record,
			      struct error *err);
	/* Replaces the record of that id if its revision is still record's: -ESTALE when it is not, -ENOENT. */
	int (*update_sandbox)(struct store *s, const struct store_sandbox *record,
			      struct error *err);
	int (*delete_sandbox)(struct store *s, const char *id, struct error *err); /* -ENOENT */

	/* False from a write that failed to the next that succeeds; for readiness. Thread: any. */
	bool (*healthy)(struct store *s);
};

extern const struct store_ops store_sqlite;
