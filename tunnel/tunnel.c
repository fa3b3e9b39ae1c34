/* tunnel.c -- the transports by name. */
#include "tunnel/tunnel.h"

#include <string.h>

static const struct tunnel_ops *const transports[] = { &tunnel_agent, &tunnel_pty_tunnel,
						       &tunnel_raw };

const struct tunnel_ops *tunnel_find(const char *name)
{
	for (size_t i = 0; i < sizeof(transports) / sizeof(transports[0]); i++)
		if (strcmp(transports[i]->name, name) == 0)
			return transports[i];
	return NULL;
}
