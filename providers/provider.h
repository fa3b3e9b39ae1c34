/* provider.h -- what turns a sandbox into a place where a shell's tunnel can be had. Called on
 * provisioner threads only, so it may block, within its deadline. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/error.h"

/* What providers may know of the configuration. Strings are borrowed. */
struct provider_config {
	const char *names; /* comma list of the providers that are switched on; NULL: none */
	const char *agent; /* path of the agent program */
	const char *tunnel_url, *tunnel_transport, *tunnel_token; /* of provider url */
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

/* Where the tunnel of a session is. Owned strings; filled by open_pty, kept sealed in the store. */
struct endpoint {
	char *transport;   /* "agent", "pty-tunnel" */
	char *url;         /* ws:// or wss://, with path and query */
	char *token;       /* secret; NULL: none. Transport agent: the control token */
	char *shell;       /* transport agent: the shell's id in the agent; else NULL */
	uint64_t instance; /* transport agent: which agent it is; 0: not known */
};
void endpoint_fini(struct endpoint *e); /* wipes */
/* As JSON for the store and back; the text is a secret. NULL / -EBADMSG on failure. */
char *endpoint_to_json(const struct endpoint *e);
int endpoint_from_json(const char *text, struct endpoint *ret);

struct provider_ops {
	const char *name;
	const char *transport; /* as GET /providers shows it */
	struct capabilities capabilities;

	/* Finds or starts the far end for a session, whose shell is to have that name there. Blocks for at most timeout_ms. The shell itself is
	 * opened over the tunnel. -ENOENT no such sandbox, -EACCES credential refused, -ETIMEDOUT,
	 * -EBADMSG reply not understood, ... */
	int (*open_pty)(const struct provider_config *cfg, const char *shell, unsigned timeout_ms,
			struct endpoint *ret, struct error *err);
};

extern const struct provider_ops provider_local;
extern const struct provider_ops provider_url_agent;      /* url, transport agent */
extern const struct provider_ops provider_url_pty_tunnel; /* url, transport pty-tunnel */

/* The switched-on provider of that name, or NULL. */
const struct provider_ops *provider_find(const struct provider_config *cfg, const char *name);
/* Those that are switched on in turn: index 0, 1, ... until NULL. */
const struct provider_ops *provider_at(const struct provider_config *cfg, size_t index);
