/* gate.h -- may this request in? All that can be said from its head alone, so that one who may not makes
 * us hold nothing. The order is that of openapi.yaml: framing, route, method, Host, credential,
 * role, session, media type, size. */
#pragma once

struct request;

/* Fills in r what its handler is promised, or answers. path is NULL when it was escaped: no route is.
 * Thread: HTTP. */
void gate_check(struct request *r, const char *path, const char *method, const char *version);

/* The request has come whole: calls its handler, once the store was asked for what is not known here: a
 * session of another replica, whether a ticket is spent. Thread: HTTP. */
void gate_pass(struct request *r);
