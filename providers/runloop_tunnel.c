/* runloop_tunnel.c -- transport agent with the agent that the devbox's image brings: pty-tunnel-server, one execution
 * a session, which ends with its shell. Source: protocols/pty-tunnel.md sections 2, 3 and 5. */
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/runloop_private.h"

#define CLEAN_UP_MS 3000
#define COMMAND_BYTES_MAX 100000 /* Linux takes 128 KiB in one argument */

static bool take_line(void *arg, const char *line, size_t size)
{
	struct handshake *h = arg;
	return handshake_parse(line, size, h) != 0;
}

/* The execution's stdout ended without a handshake: why? */
static int why_ended(struct runloop_box *b, const char *execution, struct error *err)
{
	struct runloop_execution x = { 0 };
	char last[RUNLOOP_TEXT_BYTES];
	int rc = runloop_execution_get(&b->api, b->devbox, execution, &x, err);
	if (rc < 0)
		return rc;
	runloop_script_last_line(x.err, last);
	runloop_execution_fini(&x);
	return runloop_box_said("agent-start", "pty-tunnel-server cannot be started", last, err);
}

static void encode(const char *text, char *ret, size_t size)
{
	static const char unreserved[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
					 "0123456789-._~";
	size_t n = 0;
	for (const char *at = text; *at != '\0' && n + 4 <= size; at++) {
		if (strchr(unreserved, *at) != NULL)
			ret[n++] = *at;
		else
			n += (size_t)snprintf(ret + n, size - n, "%%%02X", (unsigned char)*at);
	}
	ret[n] = '\0';
}

static int make_endpoint(const struct runloop_box *b, const struct handshake *h,
			 const char *execution, struct endpoint *ret, struct error *err)
{
	char base[RUNLOOP_URL_BYTES], path[1024], token[3 * sizeof(h->token) + 1];
	struct runloop_memo memo = { .kind = RUNLOOP_KIND_TUNNEL, .boot_ms = b->view.boot_ms };
	const struct runloop_endpoint from = { .transport = "pty-tunnel",
					       .base = base,
					       .path = path,
					       .tunnel_token = b->view.tunnel_token,
					       .wakes = b->view.tunnel_wakes,
					       .memo = &memo };
	memo.port = h->port;
	snprintf(memo.devbox, sizeof(memo.devbox), "%s", b->devbox);
	snprintf(memo.execution, sizeof(memo.execution), "%s", execution);
	encode(h->token, token, sizeof(token));
	snprintf(path, sizeof(path), "/ws/client?processId=%" PRIu64 "&token=%s", h->process_id,
		 token);
	int rc = runloop_box_url(b, b->view.tunnel_key, h->port, false, base, err);
	if (rc == 0)
		rc = runloop_endpoint_make(&from, ret, err);
	sodium_memzero(path, sizeof(path));
	sodium_memzero(token, sizeof(token));
	return rc;
}

/* The call may be over: it is ended all the same. */
static void end_execution(struct runloop_box *b, const char *execution)
{
	struct provider_call call;
	struct runloop_box after;
	runloop_box_after(b, CLEAN_UP_MS, &call, &after);
	(void)runloop_kill(&after.api, after.devbox, execution, NULL);
	sodium_memzero(&after, sizeof(after));
}

static int start(struct runloop_box *b, const char *command, struct endpoint *ret,
		 struct error *err)
{
	struct runloop_execution x = { 0 };
	struct handshake h = { 0 };
	int rc = runloop_execute_async(&b->api, b->devbox, command, &x, err);
	if (rc < 0)
		return rc;
	rc = runloop_read_stdout(&b->api, b->devbox, x.id, take_line, &h, err);
	bool has_ended = rc == -ENODATA;
	if (rc == -ENODATA)
		rc = why_ended(b, x.id, err);
	if (rc == 0)
		rc = make_endpoint(b, &h, x.id, ret, err);
	if (rc < 0 && !has_ended)
		end_execution(b, x.id);
	sodium_memzero(&h, sizeof(h));
	runloop_execution_fini(&x);
	return rc;
}

int runloop_tunnel_open(struct runloop_box *b, const struct pty_request *request,
			struct endpoint *ret, struct error *err)
{
	for (const char *const *e = request->env; e != NULL && *e != NULL; e++)
		if (strncmp(*e, "pc_", 3) == 0) /* the script's own variables */
			return error_set_slug(err, -ENOTSUP, "not-possible",
					      "runloop: names of env must not begin with pc_ here");
	char *command = runloop_script_pty_tunnel(request);
	if (command == NULL)
		return error_set(err, -ENOMEM, "no memory");
	int rc = strlen(command) > COMMAND_BYTES_MAX
			 ? error_set_slug(err, -ENOTSUP, "not-possible",
					  "runloop: command, env and cwd are too long for "
					  "pty-tunnel-server")
			 : 0;
	provider_call_step(b->call, "devbox");
	if (rc == 0)
		rc = runloop_box_look_and_bring_up(b, err);
	if (rc == 0)
		rc = runloop_box_need_tunnel(b, err);
	if (rc == 0) {
		provider_call_step(b->call, "start");
		rc = start(b, command, ret, err);
	}
	sodium_memzero(command, strlen(command)); /* env may be secret */
	free(command);
	return rc;
}

int runloop_tunnel_reopen(struct runloop_box *b, const struct endpoint *e,
			  const struct runloop_memo *memo, struct endpoint *ret, struct error *err)
{
	struct runloop_execution x = { 0 };
	int rc = runloop_retrieve(&b->api, b->devbox, &b->view, err);
	rc = runloop_box_still(b, rc, memo->boot_ms, err);
	if (rc < 0)
		return rc;
	rc = runloop_execution_get(&b->api, b->devbox, memo->execution, &x, err);
	if (rc == 0 && x.completed) { /* and its shell with it */
		char last[RUNLOOP_TEXT_BYTES];
		runloop_script_last_line(x.err, last);
		rc = error_set(err, -ESRCH, "runloop: pty-tunnel-server has ended%s%s",
			       last[0] == '\0' ? "" : ": ", last);
	}
	runloop_execution_fini(&x);
	if (rc < 0 && rc != -ENOENT) /* that is not remembered for ever */
		return rc;
	const char *path = strstr(e->url, "/ws/client?");
	if (path == NULL || !b->view.has_tunnel)
		return endpoint_copy(e, ret) == 0 ? 0 : error_set(err, -ENOMEM, "no memory");
	char base[RUNLOOP_URL_BYTES]; /* its tunnel may be another one by now */
	const struct runloop_endpoint from = { .transport = "pty-tunnel",
					       .base = base,
					       .path = path,
					       .tunnel_token = b->view.tunnel_token,
					       .wakes = b->view.tunnel_wakes,
					       .memo = memo };
	rc = runloop_box_url(b, b->view.tunnel_key, memo->port, false, base, err);
	return rc < 0 ? rc : runloop_endpoint_make(&from, ret, err);
}
