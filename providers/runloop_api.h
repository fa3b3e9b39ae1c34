/* runloop_api.h -- Runloop's HTTP API and the control side of its native PTY, one function a call, with the
 * SDK's own retries (protocols/runloop.md, sections 1 to 7). Blocking. All that comes from outside is
 * checked, and limited in size. Errors: codes and slugs of provider.h. Thread: provisioner. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "providers/http_client.h"
#include "providers/provider.h"

/* One account for the time of one provider call. Embedded in the caller's stack; strings are borrowed. */
struct runloop_api {
	struct http_client *http;         /* this thread's */
	const struct provider_call *call; /* deadline and cancellation hold for each API call */
	const char *base_url;             /* without a slash at its end */
	const char *api_key;              /* goes to base_url and nowhere else */
};

enum runloop_status {
	RUNLOOP_BOOTING, /* scheduled, queued, provisioning, initializing, resuming, and what is not known */
	RUNLOOP_RUNNING,
	RUNLOOP_SUSPENDING,
	RUNLOOP_SUSPENDED,
	RUNLOOP_FAILURE,
	RUNLOOP_SHUTDOWN,
};

struct runloop_devbox {
	enum runloop_status status;
	char status_text[32]; /* as it was told */
	bool arm64;
	int64_t boot_ms; /* transition_time_ms of the newest "running" of state_transitions; 0: none */
	char reason[64]; /* failure_reason or shutdown_reason; "" */
	bool has_tunnel;
	char tunnel_key[64];    /* one DNS label */
	char tunnel_token[512]; /* secret; "" for an open tunnel */
	bool tunnel_wakes;      /* HTTP to it wakes a devbox that is suspended */
};

struct runloop_execution {
	char id[128];
	bool completed;
	int exit_status; /* -1: not told */
	char *out, *err; /* owned, 0-terminated, never NULL; what was told of stdout and stderr */
};
void runloop_execution_fini(struct runloop_execution *e); /* wipes: a handshake has a token */

#define RUNLOOP_ID_BYTES 257
/* True for an id that may stand in a path: 1 to 256 of A-Z a-z 0-9 _ - . and not "." or "..". */
bool runloop_id_valid(const char *id);

int runloop_retrieve(struct runloop_api *a, const char *devbox, struct runloop_devbox *ret,
		     struct error *err);
/* Until it is one of running, failure, shutdown, suspended: the long poll with its 408s. */
int runloop_await(struct runloop_api *a, const char *devbox, struct runloop_devbox *ret,
		  struct error *err);
int runloop_resume(struct runloop_api *a, const char *devbox, struct error *err);
int runloop_keep_alive(struct runloop_api *a, const char *devbox, struct error *err);
/* Fills the tunnel members of *ret. */
int runloop_enable_tunnel(struct runloop_api *a, const char *devbox, struct runloop_devbox *ret,
			  struct error *err);

/* Runs a command in the box and waits for its end: execute, with a command_id that makes a retry safe,
 * then wait_for_status until it has completed. What came after the last_n lines is in *ret. */
int runloop_execute(struct runloop_api *a, const char *devbox, const char *command,
		    struct runloop_execution *ret, struct error *err);
/* Both calls at once, on two connections: the first two that an opening needs. Each has a result of its own
 * (0 or negative, with its error): *devbox_rc, *execution_rc. The command is tried again and waited for only when
 * the box turned out to be running; else *execution may not have completed. */
void runloop_retrieve_and_execute(struct runloop_api *a, const char *devbox, const char *command,
				  struct runloop_devbox *box, int *devbox_rc,
				  struct error *devbox_err, struct runloop_execution *execution,
				  int *execution_rc, struct error *execution_err);
/* upload_file and, when tunnel is not NULL, enable_tunnel beside it: tunnel->has_tunnel tells whether that worked. */
int runloop_upload(struct runloop_api *a, const char *devbox, const char *path, const void *data,
		   size_t size, struct runloop_devbox *tunnel, struct error *err);

/* Starts a command that stays; the caller must not retry it: a second start would be a second shell. */
int runloop_execute_async(struct runloop_api *a, const char *devbox, const char *command,
			  struct runloop_execution *ret, struct error *err);
/* Reads an execution's stdout until line() returns true for a line (without LF or CRLF, at most 16 KiB; the last
 * may have had none), or the stream has
 * ended for good (-ENODATA). Chunks are not lines; after a 408 or a cut it goes on at the last chunk's offset
 * and drops the repeated chunk. */
int runloop_read_stdout(struct runloop_api *a, const char *devbox, const char *execution,
			bool (*line)(void *arg, const char *line, size_t size), void *arg,
			struct error *err);
int runloop_kill(struct runloop_api *a, const char *devbox, const char *execution,
		 struct error *err);
/* A completed execution's status and the end of its stdout and stderr. */
int runloop_execution_get(struct runloop_api *a, const char *devbox, const char *execution,
			  struct runloop_execution *ret, struct error *err);

/* ---- native PTY ---- */

struct runloop_pty_tunnel {
	char key[64];
	char token[512]; /* secret */
};
int runloop_create_pty_tunnel(struct runloop_api *a, const char *devbox,
			      struct runloop_pty_tunnel *ret, struct error *err);
/* And the view at once, as runloop_retrieve_and_execute(): a box that does not run gives no tunnel. */
void runloop_retrieve_and_create_pty_tunnel(struct runloop_api *a, const char *devbox,
					    struct runloop_devbox *box, int *devbox_rc,
					    struct error *devbox_err,
					    struct runloop_pty_tunnel *tunnel, int *tunnel_rc,
					    struct error *tunnel_err);

struct runloop_pty {
	char connect_path[1024]; /* begins with one '/', has no '\', '@' or control character */
	bool created;            /* false: the shell was there already */
	bool attached;
};
/* pty_url: https://13-KEY.tunnel... with the path prefix, without a slash at its end; token goes there alone,
 * by both headers. 502 and 503 are retried as the CLI does. */
int runloop_pty_open(struct runloop_api *a, const char *pty_url, const char *token,
		     const char *name, uint16_t cols, uint16_t rows, struct runloop_pty *ret,
		     struct error *err);
int runloop_pty_resize(struct runloop_api *a, const char *pty_url, const char *token,
		       const char *name, uint16_t cols, uint16_t rows, struct error *err);
/* signal: "SIGINT". -ESRCH: no foreground process; -EINVAL: no such signal. */
int runloop_pty_signal(struct runloop_api *a, const char *pty_url, const char *token,
		       const char *name, const char *signal, struct error *err);
int runloop_pty_close(struct runloop_api *a, const char *pty_url, const char *token,
		      const char *name, struct error *err);
