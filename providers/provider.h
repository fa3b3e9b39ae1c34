/* provider.h -- what turns a sandbox into a place where a shell's tunnel can be had. Called on
 * provisioner threads only, so it may block, within its deadline. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/error.h"

struct runloop;

/* What providers may know of the configuration. Strings are borrowed. */
struct provider_config {
	const char *names;       /* comma list of the providers that are switched on; NULL: none */
	const char *agent;       /* path of the agent program */
	const char *agent_arm64; /* path of the same for arm64; NULL: there is none */
	const char *tunnel_url, *tunnel_transport, *tunnel_token; /* of provider url */
	const char *ca_file;            /* PEM of private CAs; NULL: the system's alone */
	const char *runloop_base_url;   /* without a slash at its end */
	const char *runloop_tunnel_url; /* with {port} and {tunnel_key}; NULL: by the base URL */
	unsigned keep_alive_s;          /* between two signs of life of a session */
	uint16_t runloop_pty_port;      /* where a devbox's own PTY service is; 0: 13 */
	struct runloop *runloop;        /* what runloop.c remembers; NULL when it is off */
};

/* What a far end can do; GET /providers shows it. */
struct capabilities {
	bool reattach; /* the shell goes on without us and can be attached again */
	bool replay;   /* and gives what was said meanwhile */
	bool exit_code;
	bool signal;
	bool resize;
	bool single_attach; /* a second attach is refused or steals the first */
};

/* A sandbox of a provider and the way into it, opened for one call. Owned strings. */
struct sandbox_target {
	char *external_id; /* the provider's own id; from outside: not trusted */
	char *credential;  /* a secret: JSON object of strings, {"api_key":...} */
	char *transport;   /* "auto", "agent", "native" */
	char *agent;       /* "ptycast" or "pty-tunnel" */
	bool resume;       /* wake it when it is suspended */
};
void sandbox_target_fini(struct sandbox_target *t); /* wipes */

/* Where the tunnel of a session is. Owned strings; filled by open_pty, kept sealed in the store. */
#define ENDPOINT_HEADERS_MAX 3
struct endpoint_header {
	char *name;  /* lower case, with a colon */
	char *value; /* secret */
};
struct endpoint {
	char *transport;   /* "agent", "pty-tunnel", "raw" */
	char *url;         /* ws:// or wss://, with path and query */
	char *token;       /* secret; NULL: none. Transport agent: the control token */
	char *shell;       /* transport agent: the shell's id in the agent; else NULL */
	uint64_t instance; /* transport agent: which agent it is; 0: not known */
	struct endpoint_header headers[ENDPOINT_HEADERS_MAX]; /* for the gateway in between */
	unsigned headers_count;
	bool ask_first;  /* a lost tunnel: reopen() before anything is sent there */
	bool remembered; /* it comes from memory: nobody was asked. Not stored */
	char *memo; /* what the provider wants to know at later calls: its own JSON; a secret; or NULL */
};
void endpoint_fini(struct endpoint *e);                               /* wipes */
int endpoint_copy(const struct endpoint *from, struct endpoint *ret); /* 0 or -ENOMEM */
/* As JSON for the store and back; the text is a secret. NULL / -EBADMSG on failure. */
char *endpoint_to_json(const struct endpoint *e);
int endpoint_from_json(const char *text, struct endpoint *ret);

/* What every call of a provider is given. */
struct provider_call {
	const struct provider_config *cfg;
	const struct sandbox_target *target; /* NULL for local and url */
	uint64_t deadline_us;                /* of CLOCK_MONOTONIC */
	const atomic_bool *cancelled;        /* looked at every 100 ms at the least; may be NULL */
	/* Tells what is being done now: a static text of a-z and "-". May be NULL. */
	void (*step)(void *arg, const char *name);
	void *arg;
};
uint64_t provider_now_us(void); /* CLOCK_MONOTONIC */
/* 0, -ECANCELED (slug start-cancelled) or -ETIMEDOUT (slug start-timeout) with a text. */
int provider_call_check(const struct provider_call *call, struct error *err);
void provider_call_step(const struct provider_call *call, const char *name);

/* The shell that is wanted. Far ends that open it over the tunnel need only its name. */
struct pty_request {
	const char *shell;                       /* its name at the far end */
	const char *const *command, *const *env; /* NULL-terminated, or NULL */
	const char *cwd;                         /* NULL: the sandbox's own */
	uint16_t cols, rows;
	bool refresh; /* what was remembered of this sandbox has proved wrong */
};

/* The slugs of the errors that a provider gives, besides start-cancelled and start-timeout:
 *   sandbox-unknown       the provider knows no such sandbox (-ENOENT)
 *   credential-refused    (-EACCES)
 *   sandbox-stopped       suspended, and not to be resumed (-EHOSTDOWN)
 *   sandbox-failed        (-EHOSTDOWN)
 *   sandbox-gone          shut down (-EHOSTDOWN)
 *   provider-unreachable  no connection, no answer in time (-EHOSTUNREACH)
 *   provider-rate-limit   429 until the end (-EBUSY)
 *   provider-error        it said something else (-EBADMSG, -EIO)
 *   agent-install         the agent could not be installed (-ENOEXEC)
 *   agent-start           it could not be started (-ENOEXEC)
 *   not-possible          this transport cannot do what was asked (-ENOTSUP)
 * Texts hold what the provider said, and no secret. */
struct provider_ops {
	const char *name;
	const char *transport; /* as GET /providers shows it */
	struct capabilities capabilities;
	bool needs_target; /* a session names a sandbox with a credential */

	/* Finds or starts the far end for a session. The shell itself is opened over the tunnel where
	 * the transport does that, else here. */
	int (*open_pty)(const struct provider_call *call, const struct pty_request *request,
			struct endpoint *ret, struct error *err);

	/* The rest is NULL where there is nothing to be done. */

	/* The tunnel to e is lost and does not come back by itself: looks at the sandbox. 0 and *ret
	 * (owned): connect there; -ESRCH: the shell is gone, the text says why; others: it could not be
	 * found out now. */
	int (*reopen)(const struct provider_call *call, const struct endpoint *e,
		      struct endpoint *ret, struct error *err);

	/* Once a minute. awake: the session is used, so keep the sandbox from falling asleep; else only
	 * look whether it is still there. -ESRCH: the shell is gone. */
	int (*keep_alive)(const struct provider_call *call, const struct endpoint *e, bool awake,
			  struct error *err);

	/* For transports whose socket cannot. */
	int (*resize)(const struct provider_call *call, const struct endpoint *e, uint16_t cols,
		      uint16_t rows, struct error *err);
	int (*signal)(const struct provider_call *call, const struct endpoint *e, int number,
		      struct error *err);

	/* The session is over, or was cancelled: what open_pty started and does not end by itself is
	 * ended. */
	int (*close)(const struct provider_call *call, const struct endpoint *e, struct error *err);
};

extern const struct provider_ops provider_local;
extern const struct provider_ops provider_url_agent;      /* url, transport agent */
extern const struct provider_ops provider_url_pty_tunnel; /* url, transport pty-tunnel */
extern const struct provider_ops provider_runloop;

/* For runloop.c: reads the agents and hashes them, starts with an empty memory. */
int runloop_create(const struct provider_config *cfg, struct runloop **ret, struct error *err);
void runloop_destroy(struct runloop *r);
/* For the configuration. tunnel_url may be NULL. Returns 0, or -EINVAL with a text that names the flag. */
int runloop_check_config(const char *base_url, const char *tunnel_url, struct error *err);

/* True for the name of any provider, switched on or not. */
bool provider_is_name(const char *name);
/* The switched-on provider of that name, or NULL. */
const struct provider_ops *provider_find(const struct provider_config *cfg, const char *name);
/* Those that are switched on in turn: index 0, 1, ... until NULL. */
const struct provider_ops *provider_at(const struct provider_config *cfg, size_t index);

/* The handshake line of an agent, of ours or the original's. */
struct handshake {
	uint16_t port;
	uint64_t process_id;        /* below 2^53 */
	uint64_t server_process_id; /* the agent's pid */
	char token[257];            /* secret */
	bool v2;                    /* it is ours, of protocol version 2 */
	uint64_t instance;          /* v2 */
};
/* 1 and *ret; 0: a line that is none (not JSON of that form). */
int handshake_parse(const char *line, size_t size, struct handshake *ret);
