/* runloop_agent.c -- transport agent: our own agent in the devbox, one for all sessions there, installed and started
 * when it is not. With as few calls one after another as can be:
 *   remembered     none
 *   it runs        the view and the start script, at once
 *   no tunnel      + enable_tunnel
 *   not installed  + upload and enable_tunnel at once, the install script */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/runloop_private.h"

#define CLEAN_UP_MS 3000
#define UPLOAD_BYTES 64

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "no memory");
}

static int make_endpoint(const struct runloop_box *b, const struct runloop_known *known,
			 const char *shell, struct endpoint *ret, struct error *err)
{
	char base[RUNLOOP_URL_BYTES];
	struct runloop_memo memo = { .kind = RUNLOOP_KIND_AGENT,
				     .boot_ms = known->boot_ms,
				     .port = known->port,
				     .pid = known->pid };
	const struct runloop_endpoint from = { .transport = "agent",
					       .base = base,
					       .path = "/ws/client?v=2",
					       .token = known->token,
					       .shell = shell,
					       .instance = known->instance,
					       .tunnel_token = known->tunnel_token,
					       .wakes = known->tunnel_wakes,
					       .memo = &memo };
	snprintf(memo.devbox, sizeof(memo.devbox), "%s", b->devbox);
	int rc = runloop_box_url(b, known->tunnel_key, known->port, false, base, err);
	return rc < 0 ? rc : runloop_endpoint_make(&from, ret, err);
}

/* Adds what the view tells of the way there. */
static void know_tunnel(const struct runloop_box *b, struct runloop_known *known)
{
	known->boot_ms = b->view.boot_ms;
	snprintf(known->tunnel_key, sizeof(known->tunnel_key), "%s", b->view.tunnel_key);
	snprintf(known->tunnel_token, sizeof(known->tunnel_token), "%s", b->view.tunnel_token);
	known->tunnel_wakes = b->view.tunnel_wakes;
}

/* ---- what a script said ---- */

/* 0: said->verdict is RUNLOOP_STARTED or RUNLOOP_NEED. */
static int read_start(const struct runloop_execution *x, struct runloop_said *said,
		      struct error *err)
{
	char last[RUNLOOP_TEXT_BYTES], text[2 * RUNLOOP_TEXT_BYTES + 2];
	runloop_script_read(x->out, said);
	runloop_script_last_line(x->err, last);
	switch (said->verdict) {
	case RUNLOOP_STARTED:
	case RUNLOOP_NEED:
		return 0;
	case RUNLOOP_NO_AGENT:
		return runloop_box_said("agent-install", "there is no agent for this machine",
					said->text, err);
	case RUNLOOP_NOT_INSTALLED:
		snprintf(text, sizeof(text), "%s%s%s", said->text, last[0] == '\0' ? "" : ": ",
			 last);
		return runloop_box_said("agent-install", "the agent cannot be installed", text,
					err);
	default:
		return runloop_box_said("agent-start", "the agent cannot be started",
					last[0] == '\0' ? said->text : last, err);
	}
}

static int execute(struct runloop_box *b, char *command, struct runloop_said *said,
		   struct error *err)
{
	struct runloop_execution x = { 0 };
	if (command == NULL)
		return no_memory(err);
	int rc = runloop_execute(&b->api, b->devbox, command, &x, err);
	free(command);
	if (rc < 0)
		return rc;
	rc = read_start(&x, said, err);
	runloop_execution_fini(&x);
	return rc;
}

/* ---- steps ---- */

/* The view and the start script at once; what the script said counts only when the devbox ran. */
static int look_and_start(struct runloop_box *b, struct runloop_said *said, struct error *err)
{
	struct runloop_execution x = { 0 };
	struct error execution_err = { 0 };
	int box_rc = 0, execution_rc = 0;
	bool waited = true;
	char *command = runloop_script_start(b->runloop->agents);
	if (command == NULL)
		return no_memory(err);
	provider_call_step(b->call, "devbox");
	runloop_retrieve_and_execute(&b->api, b->devbox, command, &b->view, &box_rc, err, &x,
				     &execution_rc, &execution_err);
	free(command);
	int rc = box_rc < 0 ? box_rc : runloop_box_bring_up(b, &waited, err);
	if (rc == 0 && !waited) {
		if (execution_rc < 0)
			*err = execution_err;
		rc = execution_rc < 0 ? execution_rc : read_start(&x, said, err);
	}
	if (execution_rc == 0)
		runloop_execution_fini(&x);
	if (rc == 0 && waited) {
		provider_call_step(b->call, "start");
		rc = execute(b, runloop_script_start(b->runloop->agents), said, err);
	}
	return rc;
}

/* Whatever became of the upload: it must not lie about. */
static void remove_upload(struct runloop_box *b, const char *upload)
{
	struct provider_call call;
	struct runloop_box after;
	struct runloop_execution x = { 0 };
	char *command = runloop_script_remove(upload);
	runloop_box_after(b, CLEAN_UP_MS, &call, &after);
	if (command != NULL && runloop_execute(&after.api, after.devbox, command, &x, NULL) == 0)
		runloop_execution_fini(&x);
	free(command);
	sodium_memzero(&after, sizeof(after));
}

/* Installs and starts the agent for said->arch; enables the tunnel beside the upload. */
static int install(struct runloop_box *b, struct runloop_said *said, struct error *err)
{
	const struct runloop_agent *agent = &b->runloop->agents[said->arch];
	uint8_t random[16];
	char hex[2 * sizeof(random) + 1], upload[UPLOAD_BYTES];
	randombytes_buf(random, sizeof(random));
	sodium_bin2hex(hex, sizeof(hex), random, sizeof(random));
	snprintf(upload, sizeof(upload), ".ptycast-upload-%s", hex);
	if (agent->data == NULL) /* it lied */
		return runloop_box_said("agent-install", "there is no agent for this machine", "",
					err);
	provider_call_step(b->call, "install");
	int rc = runloop_upload(&b->api, b->devbox, upload, agent->data, agent->size,
				b->view.has_tunnel ? NULL : &b->view, err);
	if (rc == 0) {
		provider_call_step(b->call, "start");
		rc = execute(b, runloop_script_install(b->runloop->agents, upload), said, err);
		if (rc == 0 && said->verdict != RUNLOOP_STARTED)
			rc = runloop_box_said("agent-install", "the agent was not installed", "",
					      err);
		if (rc == 0 || (err->slug != NULL && strncmp(err->slug, "agent-", 6) == 0))
			return rc; /* the script has removed it */
	}
	remove_upload(b, upload);
	return rc;
}

int runloop_agent_open(struct runloop_box *b, const struct pty_request *request,
		       struct endpoint *ret, struct error *err)
{
	struct runloop_memory *memory = b->runloop->memory;
	struct runloop_known known = { 0 };
	struct runloop_said said = { 0 };
	int rc;
	/* To knock there may wake a devbox that is to be left asleep. */
	bool may_knock = !request->refresh &&
			 runloop_memory_get(memory, &b->key, provider_now_us(), &known) &&
			 (!known.tunnel_wakes || b->call->target->resume);
	if (may_knock) {
		rc = make_endpoint(b, &known, request->shell, ret, err);
		if (rc == 0)
			ret->remembered = true;
		goto wipe;
	}
	runloop_memory_forget(memory, &b->key);
	rc = look_and_start(b, &said, err);
	if (rc == 0 && said.verdict == RUNLOOP_NEED)
		rc = install(b, &said, err);
	if (rc == 0)
		rc = runloop_box_need_tunnel(b, err);
	if (rc < 0)
		goto wipe;
	known.port = said.handshake.port;
	known.pid = said.handshake.server_process_id;
	known.instance = said.handshake.instance;
	snprintf(known.token, sizeof(known.token), "%s", said.handshake.token);
	know_tunnel(b, &known);
	rc = make_endpoint(b, &known, request->shell, ret, err);
	if (rc == 0)
		runloop_memory_put(memory, &b->key, provider_now_us(), &known);
wipe:
	sodium_memzero(&known, sizeof(known));
	sodium_memzero(&said, sizeof(said));
	return rc;
}

/* ---- after the tunnel was lost ---- */

/* rc and x of the script: does the agent still run? */
static int read_alive(int rc, const struct runloop_execution *x, struct error *err)
{
	struct runloop_said said;
	if (rc < 0)
		return rc;
	runloop_script_read(x->out, &said);
	if (said.verdict == RUNLOOP_ALIVE)
		return 0;
	if (said.verdict == RUNLOOP_GONE)
		return error_set(err, -ESRCH, "runloop: the agent was ended");
	return error_set_slug(err, -EBADMSG, "provider-error",
			      "runloop: what the devbox said was not understood");
}

int runloop_agent_reopen(struct runloop_box *b, const struct endpoint *e,
			 const struct runloop_memo *memo, struct endpoint *ret, struct error *err)
{
	struct runloop_execution x = { 0 };
	struct error execution_err = { 0 };
	struct runloop_known known = { .port = memo->port,
				       .pid = memo->pid,
				       .instance = e->instance };
	int box_rc = 0, execution_rc = 0;
	char *command = runloop_script_alive(memo->pid);
	if (command == NULL || e->token == NULL || e->shell == NULL) {
		free(command);
		return command == NULL ? no_memory(err)
				       : error_set(err, -EBADMSG, "runloop: a cut endpoint");
	}
	runloop_memory_forget(b->runloop->memory, &b->key);
	runloop_retrieve_and_execute(&b->api, b->devbox, command, &b->view, &box_rc, err, &x,
				     &execution_rc, &execution_err);
	free(command);
	int rc = runloop_box_still(b, box_rc, memo->boot_ms, err);
	if (rc == 0) {
		rc = read_alive(execution_rc, &x, &execution_err);
		if (rc < 0)
			*err = execution_err;
	}
	if (execution_rc == 0)
		runloop_execution_fini(&x);
	if (rc == 0)
		rc = runloop_box_need_tunnel(b, err);
	if (rc == 0) {
		snprintf(known.token, sizeof(known.token), "%s", e->token);
		know_tunnel(b, &known);
		rc = make_endpoint(b, &known, e->shell, ret, err);
	}
	if (rc == 0) /* others may use it again, too */
		runloop_memory_put(b->runloop->memory, &b->key, provider_now_us(), &known);
	sodium_memzero(&known, sizeof(known));
	return rc;
}
