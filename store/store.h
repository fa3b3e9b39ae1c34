/* store.h -- records that outlive the process: sessions, and the service's own keys. Output is
 * never stored. One implementation a file (sqlite.c, redis.c), one conformance suite
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
	/* Of stores that replicas share; others do not keep them. */
	uint64_t
		owner; /* the replica that has its tunnel; 0: nobody. fence is the owner's number */
	uint64_t birth;  /* random: tells this creation of the id from others */
	uint64_t host;   /* a shell that only one machine can reach: which; 0: any can */
	uint64_t offset; /* of the journal's head, some seconds ago */
	char state[16];  /* name of its state */
	char *steps;     /* JSON of what was done to open it, or NULL */
	bool closing;    /* somebody asked for its end: the id may be used again */
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
	/* birth and fence: of the record that is meant; only shared stores look at them. done as for put_session. */
	int (*delete_session)(struct store *s, const char *id, uint64_t birth, uint64_t fence,
			      void (*done)(void *arg, int status), void *arg);

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

	/* --- stores that replicas share --- */

	bool shared; /* false: the rest is NULL, and put_session, delete_session look at no number */

	/* In a shared store put_session and delete_session change nothing when the record that is there has another
	 * birth or a higher fence: done gets -ESTALE. One that is gone is written anew, and an index entry that is
	 * missing too. Records of ended sessions end by themselves some time after their owner should have
	 * forgotten them.
	 *
	 * These block, at most 2 s. -EHOSTUNREACH: the store cannot be asked now. -ENOSPC: it is full. */

	/* -ENOENT: there is none, for sure. -EHOSTUNREACH also while records may be missing that their owners are
	 * about to write again. *ret is the caller's. */
	int (*get_session)(struct store *s, const char *id, struct store_session *ret,
			   struct error *err);
	/* Makes the record, with the fence that it sets in it. -EEXIST: there is one that is alive, or another
	 * subject's; it is in *known (the caller's). One that has ended, or is closing, of the same subject is
	 * replaced, and fence is above its. */
	int (*create_session)(struct store *s, struct store_session *record,
			      struct store_session *known, struct error *err);
	/* As list_sandboxes. state NULL: any. */
	int (*list_sessions)(struct store *s, const char *subject, const char *state,
			     const char *after, size_t limit,
			     int (*each)(void *arg, const struct store_session *record), void *arg,
			     struct error *err);
	/* How many of subject's are alive; exact only up to limit. */
	int (*count_sessions)(struct store *s, const char *subject, size_t limit, size_t *ret,
			      struct error *err);
	/* Makes me the owner, with number fence, of a session that has still that owner and a number below fence:
	 * 0 and *ret as it is then (the caller's); -ESTALE; -ENOENT. */
	int (*take_session)(struct store *s, const char *id, uint64_t owner, uint64_t me,
			    uint64_t fence, struct store_session *ret, struct error *err);
	/* Calls each for the sessions whose owner gives no sign of life, ended ones too; the record has id, owner,
	 * fence, birth, host, ended, state only. Cheap when nobody died since the last time; thorough looks at all. each
	 * must not use the store; returns 0 to go on. */
	int (*orphans)(struct store *s, bool thorough,
		       int (*each)(void *arg, const struct store_session *record), void *arg,
		       struct error *err);
	/* 0 for the first caller with that name within ttl_ms; -EEXIST for all others: single-use tickets. */
	int (*spend)(struct store *s, const char *name, unsigned ttl_ms, struct error *err);
	/* Gives a value of get_or_put back that the store may have lost. 0: it is there, as it was or again; -EEXIST:
	 * another one is, and stays. */
	int (*keep)(struct store *s, const char *name, const void *value, size_t size,
		    struct error *err);
};

extern const struct store_ops store_sqlite;
extern const struct store_ops store_redis;
