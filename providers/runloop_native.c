/* runloop_native.c -- transport native: the PTY service inside each devbox, reached through a tunnel of its own. Its
 * shells are bash, with one client at a time. Source: protocols/runloop.md section 7. */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "providers/runloop_private.h"

#define PTY_PORT 13
#define CLEAN_UP_MS 3000
#define NAMES_MAX 3 /* tried before somebody must be joking */

static int know_tunnel(struct runloop_box *b, const struct runloop_pty_tunnel *tunnel,
		       struct runloop_memo *memo, struct error *err)
{
	unsigned port = b->call->cfg->runloop_pty_port;
	snprintf(memo->token, sizeof(memo->token), "%s", tunnel->token);
	return runloop_box_url(b, tunnel->key, port == 0 ? PTY_PORT : port, true, memo->pty_url,
			       err);
}

/* A tunnel for memo; it is short-lived, so one is made whenever it is needed. */
static int make_tunnel(struct runloop_box *b, struct runloop_memo *memo, struct error *err)
{
	struct runloop_pty_tunnel tunnel = { 0 };
	provider_call_step(b->call, "pty-tunnel");
	int rc = runloop_create_pty_tunnel(&b->api, b->devbox, &tunnel, err);
	if (rc == 0)
		rc = know_tunnel(b, &tunnel, memo, err);
	sodium_memzero(&tunnel, sizeof(tunnel));
	return rc;
}

/* The view and a tunnel at once; of a devbox that did not run it is asked again when it does. */
static int look_and_make_tunnel(struct runloop_box *b, struct runloop_memo *memo, struct error *err)
{
	struct runloop_pty_tunnel tunnel = { 0 };
	struct error tunnel_err = { 0 };
	int box_rc = 0, tunnel_rc = 0;
	bool waited = true;
	provider_call_step(b->call, "devbox");
	runloop_retrieve_and_create_pty_tunnel(&b->api, b->devbox, &b->view, &box_rc, err, &tunnel,
					       &tunnel_rc, &tunnel_err);
	int rc = box_rc < 0 ? box_rc : runloop_box_bring_up(b, &waited, err);
	if (rc == 0 && waited) {
		rc = make_tunnel(b, memo, err);
	} else if (rc == 0) {
		if (tunnel_rc < 0)
			*err = tunnel_err;
		rc = tunnel_rc < 0 ? tunnel_rc : know_tunnel(b, &tunnel, memo, err);
	}
	sodium_memzero(&tunnel, sizeof(tunnel));
	return rc;
}

static int make_endpoint(const struct runloop_memo *memo, const struct runloop_pty *pty,
			 struct endpoint *ret, struct error *err)
{
	char base[RUNLOOP_URL_BYTES];
	const struct runloop_endpoint from = { .transport = "raw",
					       .base = base,
					       .path = pty->connect_path,
					       .tunnel_token = memo->token,
					       .bearer = true,
					       .memo = memo };
	snprintf(base, sizeof(base), "ws%s", memo->pty_url + strlen("http"));
	return runloop_endpoint_make(&from, ret, err);
}

static int open_pty(struct runloop_box *b, const struct runloop_memo *memo, struct runloop_pty *ret,
		    struct error *err)
{
	return runloop_pty_open(&b->api, memo->pty_url, memo->token, memo->name, memo->cols,
				memo->rows, ret, err);
}

/* A name that is nobody's: the service gives a shell that is there to whoever names it. Who is attached to it is
 * somebody else; without that it is ours, by a request that was repeated as its answer got lost. */
static int open_new(struct runloop_box *b, const struct pty_request *request,
		    struct runloop_memo *memo, struct runloop_pty *pty, struct error *err)
{
	snprintf(memo->name, sizeof(memo->name), "ptycast-%.64s", request->shell);
	for (unsigned i = 0; i < NAMES_MAX; i++) {
		int rc = open_pty(b, memo, pty, err);
		if (rc < 0 || pty->created || !pty->attached)
			return rc;
		uint8_t random[8];
		char hex[2 * sizeof(random) + 1];
		randombytes_buf(random, sizeof(random));
		sodium_bin2hex(hex, sizeof(hex), random, sizeof(random));
		snprintf(memo->name, sizeof(memo->name), "ptycast-%.64s-%s", request->shell, hex);
	}
	return error_set_slug(err, -EIO, "provider-error",
			      "runloop: each name of a PTY session is somebody's");
}

/* The shell may be there although we were not told so. The call may be over. */
static void leave_none(struct runloop_box *b, const struct runloop_memo *memo)
{
	struct provider_call call;
	struct runloop_box after;
	runloop_box_after(b, CLEAN_UP_MS, &call, &after);
	(void)runloop_pty_close(&after.api, memo->pty_url, memo->token, memo->name, NULL);
	sodium_memzero(&after, sizeof(after));
}

int runloop_native_open(struct runloop_box *b, const struct pty_request *request,
			struct endpoint *ret, struct error *err)
{
	struct runloop_memo memo = { .kind = RUNLOOP_KIND_NATIVE,
				     .cols = request->cols,
				     .rows = request->rows };
	struct runloop_pty pty;
	snprintf(memo.devbox, sizeof(memo.devbox), "%s", b->devbox);
	if (request->command != NULL || request->env != NULL || request->cwd != NULL)
		return error_set_slug(err, -ENOTSUP, "not-possible",
				      "the native transport gives the sandbox's shell only");
	/* It may have been looked at a moment ago, when there was no agent. */
	int rc = b->view.status == RUNLOOP_RUNNING ? make_tunnel(b, &memo, err)
						   : look_and_make_tunnel(b, &memo, err);
	memo.boot_ms = b->view.boot_ms;
	if (rc == 0)
		rc = open_new(b, request, &memo, &pty, err);
	if (rc == 0)
		rc = make_endpoint(&memo, &pty, ret, err);
	if (rc < 0 && memo.name[0] != '\0')
		leave_none(b, &memo);
	sodium_memzero(&memo, sizeof(memo));
	return rc;
}

int runloop_native_reopen(struct runloop_box *b, const struct runloop_memo *memo,
			  struct endpoint *ret, struct error *err)
{
	struct runloop_memo m = *memo;
	struct runloop_pty pty;
	int rc = runloop_retrieve(&b->api, b->devbox, &b->view, err);
	rc = runloop_box_still(b, rc, m.boot_ms, err);
	if (rc < 0)
		goto wipe;
	rc = open_pty(b, &m, &pty, err);
	if (rc < 0 && rc != -ENOMEM && provider_call_check(b->call, NULL) == 0) {
		rc = make_tunnel(b, &m, err); /* the old one is not for ever */
		if (rc == 0)
			rc = open_pty(b, &m, &pty, err);
	}
	if (rc == 0 && pty.created) {
		(void)runloop_pty_close(&b->api, m.pty_url, m.token, m.name, NULL);
		rc = error_set(err, -ESRCH, "runloop: the PTY session is gone");
	}
	if (rc == 0)
		rc = make_endpoint(&m, &pty, ret, err);
wipe:
	sodium_memzero(&m, sizeof(m));
	return rc;
}
