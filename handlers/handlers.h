/* handlers.h -- the functions of the route table in routes.c; each file has one resource. */
#pragma once

#include <stdbool.h>

struct problem;
struct request;

#define CELLS_MAX 1000       /* cols and rows each */
#define PTY_ID_PREFIX "pty-" /* of the sessions that /pty and /tty make, and of no others */

/* sessions.c */
void handle_session_create(struct request *r);
void handle_session_list(struct request *r);
void handle_session_get(struct request *r);
void handle_session_close(struct request *r);

/* sandboxes.c */
void handle_sandbox_create(struct request *r);
void handle_sandbox_list(struct request *r);
void handle_sandbox_get(struct request *r);
void handle_sandbox_patch(struct request *r);
void handle_sandbox_delete(struct request *r);

void handle_stream(struct request *r); /* stream.c */
void handle_input(struct request *r);  /* input.c */
void handle_resize(struct request *r); /* control.c */
void handle_signal(struct request *r);
void handle_ticket(struct request *r);    /* tickets.c */
void handle_providers(struct request *r); /* providers.c */

/* ws.c */
void handle_ws(struct request *r);
bool refuse_ws(struct request *r, const struct problem *p);
bool refuse_stream(struct request *r, const struct problem *p); /* stream.c */

/* pty.c */
void handle_pty_stream(struct request *r);
void handle_pty_input(struct request *r);
void handle_pty_resize(struct request *r);
void handle_pty_ws(struct request *r);
bool refuse_pty_ws(struct request *r, const struct problem *p); /* ws.c */

/* Parts of the native handlers that pty.c uses, too. r->session is set but for a HEAD of a stream. */
bool stream_read_since(struct request *r); /* into r->viewer; false: it was answered */
void stream_open(struct request *r);       /* for r->viewer */
bool ws_acceptable(struct request *r);     /* false: it was answered */
void ws_open(struct request *r);           /* for r->viewer */
void input_raw(struct request *r);         /* types the body as it is */
/* True when r->session could not be started, which is the answer then (sessions.c). */
bool answer_if_start_failed(struct request *r);

/* system.c */
void handle_health(struct request *r);
void handle_readiness(struct request *r);
void handle_metrics(struct request *r);
void handle_asset(struct request *r);
