/* registration.c -- see registration.h. */
#include "agent/registration.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/own.h"

#define WAIT_MS 10000
#define STEP_MS 20 /* between two looks at an agent that ends */

bool registration_is_line(const char *text, size_t size)
{
	return size > 2 && text[0] == '{' && text[size - 2] == '}' &&
	       memchr(text, '\n', size) == text + size - 1 && memchr(text, '\0', size) == NULL;
}

static bool read_line(const struct registration *r, char line[AGENT_HANDSHAKE_BYTES_MAX])
{
	ssize_t size = pread(r->file, line, AGENT_HANDSHAKE_BYTES_MAX - 1, 0);
	line[size > 0 ? size : 0] = '\0';
	return size > 0 && registration_is_line(line, (size_t)size);
}

/* Caller holds the door. */
static int look(struct registration *r, uint64_t deadline_ms, char line[AGENT_HANDSHAKE_BYTES_MAX])
{
	for (;;) {
		/* In this order: a lock that is held after the line was read was held by who wrote it. */
		bool whole = read_line(r, line);
		int rc = own_lock(r->file, whole ? 0 : STEP_MS);
		if (rc == 0) /* what an agent left that was killed, or anything else */
			return ftruncate(r->file, 0) == 0 ? REGISTRATION_FREE : -errno;
		if (rc != -ETIMEDOUT)
			return rc;
		if (whole)
			return REGISTRATION_FOUND;
		if (loop_now_ms() >= deadline_ms)
			return -ETIMEDOUT;
	}
}

/* Opens both files. Returns 0, or -errno with what is open still open. */
static int open_files(struct registration *r, const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash != NULL ? slash + 1 : path;
	int parent_size = slash != NULL ? (int)(slash - path) : 0;
	if (*name == '\0')
		return -EISDIR;
	char *parent = NULL, *lock = NULL;
	if (asprintf(&parent, "%.*s%s", parent_size, path,
		     slash == path ? "/" : (slash == NULL ? "." : "")) < 0)
		return -ENOMEM;
	int directory = own_directory(parent, S_IWGRP | S_IWOTH);
	free(parent);
	if (directory < 0)
		return directory;
	int rc = asprintf(&lock, "%s.lock", name) < 0 ? -ENOMEM : 0;
	if (rc == 0) {
		r->file = own_file(directory, name);
		r->door = own_file(directory, lock);
		rc = r->file < 0 ? r->file : (r->door < 0 ? r->door : 0);
		free(lock);
	}
	close(directory);
	return rc;
}

int registration_find(struct registration *r, const char *path,
		      char line[AGENT_HANDSHAKE_BYTES_MAX])
{
	uint64_t deadline_ms = loop_now_ms() + WAIT_MS;
	*r = (struct registration){ .open = true, .file = -1, .door = -1 };
	int rc = open_files(r, path);
	if (rc == 0)
		rc = own_lock(r->door, WAIT_MS);
	if (rc == 0)
		rc = look(r, deadline_ms, line);
	if (rc < 0)
		registration_fini(r);
	return rc;
}

int registration_publish(struct registration *r, const char *line)
{
	size_t size = strlen(line);
	ssize_t written = pwrite(r->file, line, size, 0);
	if (written != (ssize_t)size)
		return written < 0 ? -errno : -ENOSPC;
	close(r->door);
	r->door = -1;
	return 0;
}

void registration_withdraw(struct registration *r)
{
	if (r != NULL && r->open)
		(void)!ftruncate(r->file, 0);
}

void registration_fini(struct registration *r)
{
	if (!r->open)
		return;
	if (r->door >= 0)
		close(r->door);
	if (r->file >= 0)
		close(r->file);
	r->open = false;
}
