/* url.c -- provider "url": an agent or a pty-tunnel that somebody runs elsewhere, at an address from the
 * configuration only. With transport agent each session is a shell of its own there; a pty-tunnel's
 * address is one shell. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "providers/provider.h"

static int open_at(const struct provider_config *cfg, const char *transport, const char *shell,
		   struct endpoint *ret, struct error *err)
{
	struct endpoint e = {
		.transport = strdup(transport),
		.url = strdup(cfg->tunnel_url),
		.token = cfg->tunnel_token == NULL ? NULL : strdup(cfg->tunnel_token),
		.shell = shell == NULL ? NULL : strdup(shell),
	};
	if (e.transport == NULL || e.url == NULL ||
	    (cfg->tunnel_token != NULL && e.token == NULL) || (shell != NULL && e.shell == NULL)) {
		endpoint_fini(&e);
		return error_set(err, -ENOMEM, "no memory");
	}
	*ret = e;
	return 0;
}

static int open_agent(const struct provider_call *call, const struct pty_request *request,
		      struct endpoint *ret, struct error *err)
{
	return open_at(call->cfg, "agent", request->shell, ret, err);
}

static int open_pty_tunnel(const struct provider_call *call, const struct pty_request *request,
			   struct endpoint *ret, struct error *err)
{
	(void)request;
	return open_at(call->cfg, "pty-tunnel", NULL, ret, err);
}

const struct provider_ops provider_url_agent = {
	.name = "url",
	.transport = "agent",
	.capabilities = { .reattach = true,
			  .replay = true,
			  .exit_code = true,
			  .signal = true,
			  .resize = true },
	.open_pty = open_agent,
};

const struct provider_ops provider_url_pty_tunnel = {
	.name = "url",
	.transport = "pty-tunnel",
	.capabilities = { .reattach = true, .resize = true },
	.open_pty = open_pty_tunnel,
};
