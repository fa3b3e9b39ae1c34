/* runloop_private.h -- what the files of provider runloop share: runloop.c (its operations), runloop_box.c (a devbox
 * for the time of one call), runloop_agent.c, runloop_tunnel.c and runloop_native.c (a transport each). */
#pragma once

#include "providers/provider.h"
#include "providers/runloop_api.h"
#include "providers/runloop_memory.h"
#include "providers/runloop_script.h"
#include "providers/runloop_url.h"

struct runloop {
	struct runloop_agent agents[RUNLOOP_ARCH_COUNT]; /* set once */
	struct runloop_memory *memory;
};

/* One devbox for one call: on the caller's stack. */
struct runloop_box {
	const struct provider_call *call;
	struct runloop *runloop;
	struct runloop_api api;
	const char *devbox; /* its id: valid in a path */
	char *api_key;      /* owned, a secret */
	struct runloop_key key;
	struct runloop_devbox view; /* as it was told last */
};

/* Reads the target's credential. -EACCES, -ENOENT: no id of a devbox. Without a target only what needs no API key
 * can be done. */
int runloop_box_init(struct runloop_box *b, const struct provider_call *call, struct error *err);
void runloop_box_fini(struct runloop_box *b); /* wipes */
/* Another such box, for what must be done although the call is over. call is its own, for ms from now. */
void runloop_box_after(const struct runloop_box *b, unsigned ms, struct provider_call *call,
		       struct runloop_box *ret);

/* b->view is known; waits until the devbox runs, and wakes it where that is wanted. *waited: it did not run. */
int runloop_box_bring_up(struct runloop_box *b, bool *waited, struct error *err);
/* Asks for the view first. */
int runloop_box_look_and_bring_up(struct runloop_box *b, struct error *err);
/* b->view has a tunnel afterwards; one that is there stays as it is. */
int runloop_box_need_tunnel(struct runloop_box *b, struct error *err);
/* The view rc and what it told, b->view: is that still the run in which the processes of boot_ms live? 0; -ESRCH
 * and why not; others: not known now. */
int runloop_box_still(const struct runloop_box *b, int rc, int64_t boot_ms, struct error *err);
/* URL of a port behind the devbox's tunnel, as runloop_url_of_port(). */
int runloop_box_url(const struct runloop_box *b, const char *tunnel_key, unsigned port, bool http,
		    char ret[RUNLOOP_URL_BYTES], struct error *err);
/* The error of an execution that did not do what it was for. */
int runloop_box_said(const char *slug, const char *what, const char *text, struct error *err);

/* What is remembered with an endpoint: its memo. */
enum runloop_kind {
	RUNLOOP_KIND_AGENT,
	RUNLOOP_KIND_TUNNEL,
	RUNLOOP_KIND_NATIVE,
};
struct runloop_memo {
	enum runloop_kind kind;
	char devbox
		[RUNLOOP_ID_BYTES]; /* where the shell is, whatever the sandbox's record says by now */
	int64_t boot_ms;
	uint16_t port;                   /* agent, pty-tunnel */
	uint64_t pid;                    /* agent */
	char execution[128];             /* pty-tunnel */
	char pty_url[RUNLOOP_URL_BYTES]; /* native, as are these: */
	char token[512];                 /* secret */
	char name[160];
	uint16_t cols, rows; /* as it was opened */
};
char *runloop_memo_write(const struct runloop_memo *m); /* owned; NULL without memory */
int runloop_memo_read(const char *text, struct runloop_memo *ret, struct error *err);

/* Fills *ret; url is base and path. Strings are copied; tunnel_token "" or NULL: none; bearer: the token goes into
 * authorization: too. memo may be NULL. 0 or -ENOMEM. */
struct runloop_endpoint {
	const char *transport, *base, *path;
	const char *token, *shell;
	uint64_t instance;
	const char *tunnel_token;
	bool bearer;
	bool wakes; /* HTTP to the tunnel wakes the devbox */
	const struct runloop_memo *memo;
};
int runloop_endpoint_make(const struct runloop_endpoint *from, struct endpoint *ret,
			  struct error *err);

/* ---- the transports; for the contracts see provider.h ---- */

int runloop_agent_open(struct runloop_box *b, const struct pty_request *request,
		       struct endpoint *ret, struct error *err);
int runloop_agent_reopen(struct runloop_box *b, const struct endpoint *e,
			 const struct runloop_memo *memo, struct endpoint *ret, struct error *err);

int runloop_tunnel_open(struct runloop_box *b, const struct pty_request *request,
			struct endpoint *ret, struct error *err);
int runloop_tunnel_reopen(struct runloop_box *b, const struct endpoint *e,
			  const struct runloop_memo *memo, struct endpoint *ret, struct error *err);

int runloop_native_open(struct runloop_box *b, const struct pty_request *request,
			struct endpoint *ret, struct error *err);
int runloop_native_reopen(struct runloop_box *b, const struct runloop_memo *memo,
			  struct endpoint *ret, struct error *err);
