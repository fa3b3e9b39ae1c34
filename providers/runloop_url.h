/* runloop_url.h -- where a devbox's ports are reached. Pure. */
#pragma once

#include <stdbool.h>

#include "service/error.h"

#define RUNLOOP_URL_BYTES 512

/* The address of a port behind the tunnel of that key, without a slash at its end. tunnel_url is a template: ws:// or
 * wss://, with {port} and {tunnel_key} once each, and {domain}, the host of base_url without a leading "api.", at most
 * once; its path goes in front of all paths. NULL: wss://{port}-{tunnel_key}.tunnel.{domain}. http: https:// instead of
 * wss://, http:// instead of ws://. Returns 0, or -EINVAL: the key is no part of a host name, or the template is none. */
int runloop_url_of_port(const char *base_url, const char *tunnel_url, const char *tunnel_key,
			unsigned port, bool http, char ret[RUNLOOP_URL_BYTES]);
