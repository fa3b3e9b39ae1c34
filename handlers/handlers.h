/* handlers.h -- the functions of the route table in routes.c; each file has one resource. */
#pragma once

#include <stdbool.h>

struct problem;
struct request;

#define CELLS_MAX 1000 /* cols and rows each */

/* sessions.c */
void handle_session_create(struct request *r);
void handle_session_list(struct request *r);
void handle_session_get(struct request *r);
void handle_session_close(struct request *r);

void handle_stream(struct request *r); /* stream.c */
void handle_input(struct request *r);  /* input.c */
void handle_resize(struct request *r); /* control.c */
void handle_signal(struct request *r);
void handle_ticket(struct request *r);    /* tickets.c */
void handle_providers(struct request *r); /* providers.c */

/* ws.c */
void handle_ws(struct request *r);
bool refuse_ws(struct request *r, const struct problem *p);

/* system.c */
void handle_health(struct request *r);
void handle_readiness(struct request *r);
void handle_metrics(struct request *r);
void handle_asset(struct request *r);
