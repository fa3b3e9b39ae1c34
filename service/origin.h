/* origin.h -- is the Host, is the Origin of a request one of ours? Pure. Thread: any. */
#pragma once

#include <stdbool.h>

/* True when item is one of the comma list (spaces around items are allowed); list may be NULL. */
bool list_has(const char *list, const char *item);

/* For a listener on loopback, against DNS rebinding: localhost, 127.0.0.0/8, [::1], each with any
 * port, or a name of allowed_hosts, with or without its port. */
bool host_is_local(const char *host, const char *allowed_hosts);

/* True when origin ("https://example.org:8443") names host (the Host header). The scheme is not
 * compared: TLS ends in front of us. */
bool origin_is_host(const char *origin, const char *host);
