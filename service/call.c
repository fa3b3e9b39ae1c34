/* call.c -- see call.h. */
#include "service/call.h"

#include <microhttpd.h>
#include <stddef.h>

void call_begin(struct call *c, struct MHD_Connection *connection, atomic_uint *pending)
{
	c->connection = connection;
	c->upgraded = NULL;
	c->pending = pending;
	c->answered = false;
	atomic_fetch_add(pending, 1);
	MHD_suspend_connection(connection);
}

void call_begin_upgraded(struct call *c, struct MHD_UpgradeResponseHandle *upgraded,
			 atomic_uint *pending)
{
	c->connection = NULL;
	c->upgraded = upgraded;
	c->pending = pending;
	c->answered = false;
	atomic_fetch_add(pending, 1);
}

void call_answer(void *arg, const struct reply *reply)
{
	struct call *c = arg;
	/* Kept: c is freed by its HTTP thread, perhaps before the resume returns. */
	atomic_uint *pending = c->pending;
	c->answered = true;
	if (reply != NULL)
		c->reply = *reply;
	if (c->upgraded != NULL)
		MHD_upgrade_action(c->upgraded, MHD_UPGRADE_ACTION_CLOSE);
	else
		MHD_resume_connection(c->connection);
	atomic_fetch_sub(pending, 1); /* last: at 0 the daemons may be stopped */
}
