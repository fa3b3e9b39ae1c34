/* replicas.h -- this process as one of many on one store: its id, its bus, and the taking over of what others
 * left behind. Only where the store is shared. */
#pragma once

#include <stdint.h>

#include "service/error.h"

struct app;
struct replicas;

/* Sets app->replica and app->machine. Before sessions are made. */
void replicas_identify(struct app *app);
/* Opens the bus: app->bus. location: what follows the scheme in --store. */
int replicas_open(struct app *app, const char *location, struct replicas **ret, struct error *err);
/* Begins to take over; the registry must be there. */
int replicas_start(struct replicas *r, struct error *err);
/* Takes nothing over any more; the bus goes on. */
void replicas_stop(struct replicas *r);
void replicas_close(
	struct replicas
		*r); /* after the store, which tells others what was left; NULL is allowed */

/* That session is nobody's from now on: others are told at once. Thread: any. */
void replicas_offer(struct app *app, const char *id, uint64_t fence, uint64_t host);
