/* session.h -- a terminal session: one shell in a sandbox, its journal, its viewers, its tunnel.
 * An actor: it lives on one loop thread. What other threads may know of it is in its card (a copy
 * under a lock); what they want of it they post to its loop and are answered by a callback.
 * A session is counted: registry and every holder have a reference. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/reply.h"
#include "service/viewer.h"
#include "wire/input_seq.h"

struct app;
struct session;
struct store_session;

enum session_state {
	SESSION_PROVISIONING,
	SESSION_CONNECTING,
	SESSION_OPEN,
	SESSION_RECONNECTING,
	SESSION_ENDED,
	SESSION_STATE_COUNT,
};
const char *session_state_name(enum session_state state);

#define SESSION_ID_MAX 64
bool session_id_valid(const char *id); /* [A-Za-z0-9_-]{1,64} */

/* What a session is made from. All is copied by session_create(). */
struct session_spec {
	const char *id; /* NULL: one is made */
	const char *subject;
	const char *sandbox;  /* "local", the id of a stored one, or the JSON of an inline one */
	const char *provider; /* "local", "url", "runloop" */
	bool stored;          /* sandbox is the id of a stored one; subject is its owner */
	const char *target;   /* inline: sealed by sandbox_read_inline(); else NULL */
	const char *transport, *agent; /* instead of the sandbox's own; NULL: those */
	const char *const *command;    /* NULL-terminated; NULL or empty: the sandbox's shell */
	const char *const *env;        /* "NAME=VALUE", NULL-terminated; NULL: none */
	const char *cwd;               /* NULL: the agent's */
	uint16_t cols, rows;           /* 1..1000 */
	uint32_t idle_timeout_s;       /* 0: none */
	const char *params; /* canonical JSON of all that a repeated POST must agree in */
};

/* What was done to open it. */
#define SESSION_STEPS_MAX 12
struct session_step {
	const char *name; /* static */
	uint32_t ms;      /* since the session was created */
};

/* A copy of the card. Free with session_info_fini(). */
struct session_info {
	char id[SESSION_ID_MAX + 1];
	char *subject, *sandbox, *provider;
	enum session_state state;
	uint16_t cols, rows;
	uint64_t epoch;  /* 0: none yet */
	uint64_t offset; /* the journal's head */
	int64_t created_ms;
	char *ended_json;  /* JSON of the API's "ended" member, NULL while alive */
	bool failed_start; /* ended before it ever was open: ended_json has the reason */
	struct session_step steps[SESSION_STEPS_MAX];
	unsigned steps_count;
};
int session_info(struct session *s, struct session_info *ret); /* 0 or -ENOMEM; thread: any */
void session_info_fini(struct session_info *info);

/* The same from a record of the store, for a session that is not here. */
int session_info_of_record(const struct store_session *record, struct session_info *ret);

/* Quick looks at the card. Thread: any. */
const char *session_id(const struct session *s);
const char *session_subject(const struct session *s);
int64_t session_created_ms(const struct session *s);
bool session_same_params(const struct session *s, const char *params);
/* The same for those of a record. */
bool session_params_are(const struct app *app, const char *stored, const char *params);
bool session_is_mirror(const struct session *s); /* another replica has it */
void session_touch(struct session *s);           /* somebody looked it up */
void session_set_dropped(struct session *s);     /* it is out of the registry */
bool session_is_dropped(const struct session *s);
uint64_t session_touched_us(const struct session *s);
uint64_t session_birth(const struct session *s);
enum session_state session_state(struct session *s);
/* True when a viewer that asks for EPOCH:OFFSET has had everything, exit included: answer 204. */
bool session_finished_at(struct session *s, uint64_t epoch, uint64_t offset);

struct session *session_ref(struct session *s);
void session_unref(struct session *s);

/* Everything below may be called on any thread. done is called exactly once, on the session's loop
 * thread or, when the mailbox is full (503 busy), on the caller's, before the call returns. */

/* Answers 200 once the card says what the session's owner knew after this call, or after timeout_ms; at once
 * where this replica is the owner. watch: and the output is here, and comes: somebody wants to look on. */
void session_sync(struct session *s, bool watch, unsigned timeout_ms, reply_fn *done, void *arg);

/* Answers 200 once the session is open or ended, or after timeout_ms whatever it is then. */
void session_wait_open(struct session *s, unsigned timeout_ms, reply_fn *done, void *arg);

struct input {
	uint8_t client
		[INPUT_CLIENT_BYTES]; /* session_client_key() of Input-Client; with seq 0 unused */
	uint64_t seq;                 /* 0: not numbered by the client */
	uint8_t *bytes;               /* malloc'd; owned by the call from here on */
	size_t size;
	reply_fn *done;
	void *arg;
};
void session_client_key(const char *input_client, uint8_t ret[INPUT_CLIENT_BYTES]);
/* 204 when the far end has it; 409 session-ended, input-gap; 429 input-full; 503 not-delivered,
 * delivery-unknown, busy. */
void session_input(struct session *s, const struct input *in);

void session_resize(struct session *s, uint16_t cols, uint16_t rows, reply_fn *done, void *arg);
void session_signal(struct session *s, int number, reply_fn *done, void *arg);
/* Ends it, reason closed: 204 once the shell was told to go. */
void session_close(struct session *s, reply_fn *done, void *arg);

/* Counts one viewer more, if the limits of the session and of all allow; to be done before the headers
 * are sent. Every success is followed by session_add_viewer() or session_release_viewer(). */
bool session_reserve_viewer(struct session *s);
void session_release_viewer(struct session *s);
/* Gives the socket to the session's loop. p->ended is called once, on the loop's thread (or at once on
 * the caller's when the mailbox is full); p->fd is not touched any more from then on. */
void session_add_viewer(struct session *s, const struct viewer_params *p);

/* True when somebody asked for its end: its id may be used for another one. */
bool session_is_closing(struct session *s);

/* For registry.c, which calls these under its lock; they do not call back. */
int session_create(struct app *app, const struct session_spec *spec, struct session **ret);
int session_restore(struct app *app, const struct store_session *record, struct session **ret);
/* One that another replica has. */
int session_mirror(struct app *app, const struct store_session *record, struct session **ret);
/* What a shared store is to know of a session that was just created; the strings are s's. */
void session_record(const struct session *s, struct store_session *ret);
void session_set_number(struct session *s, uint64_t fence); /* before it is started */
/* This replica is its owner now; record is copied as far as needed. Thread: any. */
void session_own_later(struct session *s, const struct store_session *record);
/* A message of the bus for it. Thread: any. */
void session_bus_deliver(struct session *s, const uint8_t *data, size_t size);
/* The store may have lost what it knew: an owner writes it again. Thread: any. */
void session_rewrite(struct session *s);
/* Puts it on its loop, before anybody can find it. -ENOMEM. From here on registry_gone() will be called
 * once, when nothing of it runs any more. */
int session_start(struct session *s);
/* A new one goes to the provisioner. -EAGAIN when too much is being provisioned. Not under the lock. */
int session_submit(struct session *s);
/* It is out of the registry: takes it out of its loop, when it is closing once it has ended. With forget
 * the store forgets it too (not when another one took its id). */
void session_discard(struct session *s, bool forget);
/* For the end of the process: viewers are drained, the tunnel is cut; the shell lives on unless it is a
 * local one and end_local. */
void session_stop(struct session *s, bool end_local);
