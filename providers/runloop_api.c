/* runloop_api.c -- the calls about a devbox: its state, its tunnel, its files and commands. */
#include "providers/runloop_api.h"

#include <errno.h>
#include <sodium.h>

#include "providers/runloop_api_private.h"

#define POLL_TIMEOUT_MS 60000 /* the server answers within 30 s */
#define EXECUTE_TIMEOUT_MS 60000
#define EXECUTE_WAIT_S 20 /* the server's own; at most 25 */
#define UPLOAD_TIMEOUT_MS 600000
#define UPLOAD_LOW_SPEED_S 60
#define LAST_N "last_n=100"

static int check_id(const char *what, const char *id, struct error *err)
{
	if (runloop_id_valid(id))
		return 0;
	return error_set_slug(err, -ENOENT, "sandbox-unknown", "runloop: %s: that is no id", what);
}

/* ---- the devbox ---- */

int runloop_devbox_of(const struct ask *k, struct runloop_devbox *ret, struct error *err)
{
	json_t *root;
	int rc = ask_json(k, &root, err);
	if (rc == 0 && runloop_devbox_read(root, ret) < 0)
		rc = ask_not_understood(err, k->what, "the devbox was not understood");
	runloop_json_wipe(root);
	json_decref(root);
	return rc;
}

void runloop_init_retrieve(struct ask *k, struct runloop_api *a, const char *devbox)
{
	ask_init(k, a, "retrieve", "GET", "/v1/devboxes/%s", devbox);
}

int runloop_retrieve(struct runloop_api *a, const char *devbox, struct runloop_devbox *ret,
		     struct error *err)
{
	int rc = check_id("retrieve", devbox, err);
	if (rc < 0)
		return rc;
	struct ask k;
	runloop_init_retrieve(&k, a, devbox);
	ask_run(&k);
	rc = runloop_devbox_of(&k, ret, err);
	ask_fini(&k);
	return rc;
}

static bool is_passing(enum runloop_status status)
{
	return status == RUNLOOP_BOOTING || status == RUNLOOP_SUSPENDING;
}

/* True when a poll's time is up without news. */
static bool is_408(const struct ask *k)
{
	return k->bad == 0 && k->answer.result == HTTP_DONE && k->answer.status == 408;
}

int runloop_await(struct runloop_api *a, const char *devbox, struct runloop_devbox *ret,
		  struct error *err)
{
	int rc = check_id("await", devbox, err);
	if (rc < 0)
		return rc;
	for (;;) {
		struct runloop_devbox box = { 0 };
		uint64_t started_us = provider_now_us();
		struct ask k;
		ask_init(&k, a, "await", "POST", "/v1/devboxes/%s/wait_for_status", devbox);
		ask_set_json(&k, json_pack("{s:[s,s,s,s]}", "statuses", "running", "failure",
					   "shutdown", "suspended"));
		k.retry = ASK_RETRY_POLL;
		k.request.timeout_ms = POLL_TIMEOUT_MS;
		ask_run(&k);
		bool again = is_408(&k);
		if (!again) {
			rc = runloop_devbox_of(&k, &box, err);
			again = rc == 0 && is_passing(box.status);
		}
		ask_fini(&k);
		if (rc == 0 && !again)
			*ret = box;
		sodium_memzero(&box, sizeof(box));
		if (!again)
			return rc;
		if (!ask_nap_after_poll(a->call, started_us))
			return provider_call_check(a->call, err);
	}
}

/* A POST without a body whose answer is not looked at. */
static int post_bare(struct runloop_api *a, const char *what, const char *devbox, const char *verb,
		     struct error *err)
{
	int rc = check_id(what, devbox, err);
	if (rc < 0)
		return rc;
	struct ask k;
	ask_init(&k, a, what, "POST", "/v1/devboxes/%s/%s", devbox, verb);
	ask_run(&k);
	rc = ask_result(&k, err);
	ask_fini(&k);
	return rc;
}

int runloop_resume(struct runloop_api *a, const char *devbox, struct error *err)
{
	return post_bare(a, "resume", devbox, "resume", err);
}

int runloop_keep_alive(struct runloop_api *a, const char *devbox, struct error *err)
{
	return post_bare(a, "keep-alive", devbox, "keep_alive", err);
}

static void init_enable_tunnel(struct ask *k, struct runloop_api *a, const char *devbox)
{
	ask_init(k, a, "enable-tunnel", "POST", "/v1/devboxes/%s/enable_tunnel", devbox);
	ask_set_json(k, json_pack("{s:s, s:b, s:b}", "auth_mode", "authenticated",
				  "http_keep_alive", 1, "wake_on_http", 0));
	k->retry = ASK_RETRY_LOST;
}

static int tunnel_of(const struct ask *k, struct runloop_devbox *ret, struct error *err)
{
	json_t *root;
	int rc = ask_json(k, &root, err);
	if (rc == 0) {
		if (runloop_tunnel_read(root, false, ret->tunnel_key, ret->tunnel_token) < 0)
			rc = ask_not_understood(err, k->what, "the tunnel was not understood");
		ret->has_tunnel = rc == 0;
		ret->tunnel_wakes = json_is_true(json_object_get(root, "wake_on_http"));
	}
	runloop_json_wipe(root);
	json_decref(root);
	return rc;
}

int runloop_enable_tunnel(struct runloop_api *a, const char *devbox, struct runloop_devbox *ret,
			  struct error *err)
{
	int rc = check_id("enable-tunnel", devbox, err);
	if (rc < 0)
		return rc;
	struct ask k;
	init_enable_tunnel(&k, a, devbox);
	ask_run(&k);
	rc = tunnel_of(&k, ret, err);
	ask_fini(&k);
	return rc;
}

/* ---- commands ---- */

static int execution_of(const struct ask *k, struct runloop_execution *ret, struct error *err)
{
	json_t *root;
	int rc = ask_json(k, &root, err);
	if (rc == 0) {
		rc = runloop_execution_read(root, ret);
		if (rc == -ENOMEM)
			error_set(err, rc, "runloop: %s: no memory", k->what);
		else if (rc < 0)
			ask_not_understood(err, k->what, "the execution was not understood");
	}
	runloop_json_wipe(root);
	json_decref(root);
	return rc;
}

/* Waits until *e has completed; e is replaced by what is known then. */
static int await_execution(struct runloop_api *a, const char *devbox, struct runloop_execution *e,
			   struct error *err)
{
	while (!e->completed) {
		int rc = 0;
		uint64_t started_us = provider_now_us();
		struct ask k;
		ask_init(&k, a, "await-command", "POST",
			 "/v1/devboxes/%s/executions/%s/wait_for_status?" LAST_N, devbox, e->id);
		ask_set_json(&k, json_pack("{s:[s], s:i}", "statuses", "completed",
					   "timeout_seconds", EXECUTE_WAIT_S));
		k.retry = ASK_RETRY_POLL;
		k.request.timeout_ms = POLL_TIMEOUT_MS;
		ask_run(&k);
		if (!is_408(&k)) {
			struct runloop_execution news = { 0 };
			rc = execution_of(&k, &news, err);
			if (rc == 0) {
				runloop_execution_fini(e);
				*e = news;
			}
		}
		ask_fini(&k);
		if (rc < 0)
			return rc;
		if (!e->completed && !ask_nap_after_poll(a->call, started_us))
			return provider_call_check(a->call, err);
	}
	return 0;
}

static void init_execute(struct ask *k, struct runloop_api *a, const char *devbox,
			 const char *command)
{
	char id[UUID_BYTES];
	runloop_uuid7(id);
	ask_init(k, a, "execute", "POST", "/v1/devboxes/%s/execute?" LAST_N, devbox);
	ask_set_json(k, json_pack("{s:s, s:s, s:i}", "command", command, "command_id", id,
				  "optimistic_timeout", EXECUTE_WAIT_S));
	k->request.timeout_ms = EXECUTE_TIMEOUT_MS;
}

/* What an execute that is over came to. wait: until it has completed. */
static int execute_end(struct runloop_api *a, const char *devbox, const struct ask *k, bool wait,
		       struct runloop_execution *ret, struct error *err)
{
	struct runloop_execution e = { 0 };
	int rc = execution_of(k, &e, err);
	if (rc == 0 && wait)
		rc = await_execution(a, devbox, &e, err);
	if (rc == 0)
		*ret = e;
	else
		runloop_execution_fini(&e);
	return rc;
}

int runloop_execute(struct runloop_api *a, const char *devbox, const char *command,
		    struct runloop_execution *ret, struct error *err)
{
	int rc = check_id("execute", devbox, err);
	if (rc < 0)
		return rc;
	struct ask k;
	init_execute(&k, a, devbox, command);
	ask_run(&k);
	rc = execute_end(a, devbox, &k, true, ret, err);
	ask_fini(&k);
	return rc;
}

void runloop_retrieve_and_execute(struct runloop_api *a, const char *devbox, const char *command,
				  struct runloop_devbox *box, int *devbox_rc,
				  struct error *devbox_err, struct runloop_execution *execution,
				  int *execution_rc, struct error *execution_err)
{
	*devbox_rc = check_id("retrieve", devbox, devbox_err);
	*execution_rc = check_id("execute", devbox, execution_err);
	if (*devbox_rc < 0)
		return;
	struct ask k[2];
	runloop_init_retrieve(&k[0], a, devbox);
	init_execute(&k[1], a, devbox, command);
	ask_try(k, 2);
	ask_run(&k[0]);
	*devbox_rc = runloop_devbox_of(&k[0], box, devbox_err);
	/* A box that sleeps refuses commands: what was said at once is enough then. */
	bool running = *devbox_rc == 0 && box->status == RUNLOOP_RUNNING;
	if (running)
		ask_run(&k[1]);
	*execution_rc = execute_end(a, devbox, &k[1], running, execution, execution_err);
	ask_fini(&k[0]);
	ask_fini(&k[1]);
}

int runloop_upload(struct runloop_api *a, const char *devbox, const char *path, const void *data,
		   size_t size, struct runloop_devbox *tunnel, struct error *err)
{
	int rc = check_id("upload", devbox, err);
	if (rc < 0)
		return rc;
	struct ask k[2];
	unsigned count = 1;
	ask_init(&k[0], a, "upload", "POST", "/v1/devboxes/%s/upload_file", devbox);
	ask_set_upload(&k[0], path, data, size);
	k[0].request.timeout_ms = UPLOAD_TIMEOUT_MS;
	k[0].request.low_speed_s = UPLOAD_LOW_SPEED_S;
	if (tunnel != NULL) {
		init_enable_tunnel(&k[1], a, devbox);
		count = 2;
	}
	ask_try(k, count);
	ask_run(&k[0]);
	rc = ask_result(&k[0], err);
	if (rc == -EIO && err != NULL)
		err->slug = "agent-install";
	if (tunnel != NULL) {
		/* When somebody else was faster the next look finds his. */
		struct error ignored = { 0 };
		if (rc == 0) {
			ask_run(&k[1]);
			(void)tunnel_of(&k[1], tunnel, &ignored);
		}
		ask_fini(&k[1]);
	}
	ask_fini(&k[0]);
	return rc;
}

int runloop_execute_async(struct runloop_api *a, const char *devbox, const char *command,
			  struct runloop_execution *ret, struct error *err)
{
	int rc = check_id("start", devbox, err);
	if (rc < 0)
		return rc;
	struct ask k;
	ask_init(&k, a, "start", "POST", "/v1/devboxes/%s/execute_async", devbox);
	ask_set_json(&k, json_pack("{s:s}", "command", command));
	k.retry = ASK_RETRY_START;
	k.request.once = true;
	ask_run(&k);
	rc = execution_of(&k, ret, err);
	ask_fini(&k);
	return rc;
}

static int check_execution(const char *what, const char *devbox, const char *execution,
			   struct error *err)
{
	int rc = check_id(what, devbox, err);
	return rc < 0 ? rc : check_id(what, execution, err);
}

int runloop_kill(struct runloop_api *a, const char *devbox, const char *execution,
		 struct error *err)
{
	int rc = check_execution("kill", devbox, execution, err);
	if (rc < 0)
		return rc;
	struct ask k;
	ask_init(&k, a, "kill", "POST", "/v1/devboxes/%s/executions/%s/kill", devbox, execution);
	ask_set_json(&k, json_pack("{s:b}", "kill_process_group", 1));
	ask_run(&k);
	rc = ask_result(&k, err);
	ask_fini(&k);
	return rc;
}

int runloop_execution_get(struct runloop_api *a, const char *devbox, const char *execution,
			  struct runloop_execution *ret, struct error *err)
{
	int rc = check_execution("look", devbox, execution, err);
	if (rc < 0)
		return rc;
	struct ask k;
	ask_init(&k, a, "look", "GET", "/v1/devboxes/%s/executions/%s?" LAST_N, devbox, execution);
	ask_run(&k);
	rc = execution_of(&k, ret, err);
	ask_fini(&k);
	return rc;
}
