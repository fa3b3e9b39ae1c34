/* registration.h -- --registration=FILE: of those who start an agent for one FILE, one becomes it and
 * the others find it.
 *
 * The agent holds the lock of FILE as long as it lives, so a lock that is free means that there is none,
 * whatever FILE says. Who looks at FILE holds the lock of FILE.lock meanwhile; a starter that becomes the
 * agent holds it until FILE has the handshake line. So to the others FILE is either the line of the agent
 * that lives, or empty: that one is ending. Thread: one. */
#pragma once

#include "agent/agent.h"

/* Zero-initialised it is not open. */
struct registration {
	bool open;
	int file;
	int door; /* FILE.lock; -1 while it is not held */
};

enum registration_verdict {
	REGISTRATION_FREE,  /* no agent: we hold both locks */
	REGISTRATION_FOUND, /* *line is the handshake of the agent */
};

/* Opens FILE and looks for its agent. Blocks for at most 10 s, for another starter or an agent that
 * ends. Returns a verdict, or -errno with r not open: -EPERM when the file, its lock or its directory is
 * not ours alone or is a link; -ETIMEDOUT when there is an agent and no line of it. */
int registration_find(struct registration *r, const char *path,
		      char line[AGENT_HANDSHAKE_BYTES_MAX]);

/* The agent can be reached: writes its line and lets the others look. Returns 0 or -errno. */
int registration_publish(struct registration *r, const char *line);

/* The agent ends: who looks from here on waits until it is gone. NULL is allowed. */
void registration_withdraw(struct registration *r);

/* Lets go of the locks this process has. May be called twice. */
void registration_fini(struct registration *r);

/* True when the size bytes at text are a whole handshake line. */
bool registration_is_line(const char *text, size_t size);
