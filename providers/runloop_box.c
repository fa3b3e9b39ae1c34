/* runloop_box.c -- a devbox for the time of one call: whose it is, and that it runs and can be reached. */
#include <errno.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "providers/runloop_private.h"

#define API_KEY_BYTES_MAX 4096
#define LOCKED_TRIES 5 /* 409: the devbox is locked */
#define LOCKED_PAUSE_MS 100
#define RESUME_PAUSE_MS 200 /* between looks at one that was woken and is still told to sleep */

/* ---- whose ---- */

/* The key of {"api_key":...}, owned; NULL: there is none that can stand in a header. */
static char *read_api_key(const char *credential)
{
	json_t *root = credential == NULL ? NULL : json_loads(credential, 0, NULL);
	json_t *value = json_object_get(root, "api_key");
	const char *key = json_string_value(value);
	size_t size = json_string_length(value);
	bool good = key != NULL && size >= 1 && size <= API_KEY_BYTES_MAX;
	for (size_t i = 0; good && i < size; i++)
		good = key[i] > ' ' && key[i] < 0x7f;
	char *copy = good ? strdup(key) : NULL;
	const char *name;
	json_object_foreach(
		root, name,
		value) if (json_is_string(value)) /* it is ours alone: jansson has no other way */
		sodium_memzero((void *)json_string_value(value), json_string_length(value));
	json_decref(root);
	return copy;
}

int runloop_box_init(struct runloop_box *b, const struct provider_call *call, struct error *err)
{
	const struct sandbox_target *target = call->target;
	*b = (struct runloop_box){ .call = call, .runloop = call->cfg->runloop };
	b->api = (struct runloop_api){
		.http = http_client_of_thread(call->cfg->ca_file),
		.call = call,
		.base_url = call->cfg->runloop_base_url,
	};
	if (b->api.http == NULL)
		return error_set(err, -ENOMEM, "no memory");
	if (target == NULL)
		return 0;
	if (target->external_id == NULL || !runloop_id_valid(target->external_id))
		return error_set_slug(err, -ENOENT, "sandbox-unknown",
				      "runloop: that is no id of a devbox");
	b->api_key = read_api_key(target->credential);
	if (b->api_key == NULL)
		return error_set_slug(err, -EACCES, "credential-refused",
				      "runloop: the credential has no api_key, or one that no "
				      "header can carry");
	b->devbox = target->external_id;
	b->api.api_key = b->api_key;
	runloop_memory_key(b->runloop->memory, b->api.base_url, b->devbox, b->api_key, &b->key);
	return 0;
}

void runloop_box_fini(struct runloop_box *b)
{
	if (b->api_key != NULL)
		sodium_memzero(b->api_key, strlen(b->api_key));
	free(b->api_key);
	sodium_memzero(b, sizeof(*b));
}

void runloop_box_after(const struct runloop_box *b, unsigned ms, struct provider_call *call,
		       struct runloop_box *ret)
{
	*call = *b->call;
	call->deadline_us = provider_now_us() + ms * UINT64_C(1000);
	call->cancelled = NULL;
	call->step = NULL;
	*ret = *b;
	ret->call = ret->api.call = call;
}

/* ---- that it runs ---- */

/* Ends early when the call does. */
static int pause_ms(const struct provider_call *call, unsigned ms, struct error *err)
{
	uint64_t until = provider_now_us() + ms * UINT64_C(1000);
	int rc = 0;
	while (rc == 0 && provider_now_us() < until) {
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
		rc = provider_call_check(call, err);
	}
	return rc;
}

static int ended(const struct runloop_box *b, struct error *err)
{
	bool failed = b->view.status == RUNLOOP_FAILURE;
	return error_set_slug(err, -EHOSTDOWN, failed ? "sandbox-failed" : "sandbox-gone",
			      "runloop: the devbox %s%s%s", failed ? "failed" : "was shut down",
			      b->view.reason[0] == '\0' ? "" : ": ", b->view.reason);
}

static int await(struct runloop_box *b, struct error *err)
{
	return runloop_await(&b->api, b->devbox, &b->view, err);
}

int runloop_box_bring_up(struct runloop_box *b, bool *waited, struct error *err)
{
	bool woken = false;
	int rc = 0;
	*waited = b->view.status != RUNLOOP_RUNNING;
	while (rc == 0) {
		switch (b->view.status) {
		case RUNLOOP_RUNNING:
			return 0;
		case RUNLOOP_FAILURE:
		case RUNLOOP_SHUTDOWN:
			return ended(b, err);
		case RUNLOOP_BOOTING:
		case RUNLOOP_SUSPENDING:
			provider_call_step(b->call, "wait");
			rc = await(b, err);
			break;
		case RUNLOOP_SUSPENDED:
			if (!b->call->target->resume)
				return error_set_slug(err, -EHOSTDOWN, "sandbox-stopped",
						      "runloop: the devbox is suspended");
			if (!woken)
				provider_call_step(b->call, "resume");
			rc = woken ? pause_ms(b->call, RESUME_PAUSE_MS, err)
				   : runloop_resume(&b->api, b->devbox, err);
			woken = true;
			if (rc == 0)
				rc = await(b, err);
			break;
		}
	}
	return rc;
}

int runloop_box_look_and_bring_up(struct runloop_box *b, struct error *err)
{
	bool waited;
	int rc = runloop_retrieve(&b->api, b->devbox, &b->view, err);
	return rc < 0 ? rc : runloop_box_bring_up(b, &waited, err);
}

int runloop_box_still(const struct runloop_box *b, int rc, int64_t boot_ms, struct error *err)
{
	if (rc == -ENOENT)
		return error_set_slug(err, -ESRCH, "sandbox-gone",
				      "runloop: the devbox is not there any more");
	if (rc < 0)
		return rc;
	switch (b->view.status) {
	case RUNLOOP_FAILURE:
	case RUNLOOP_SHUTDOWN:
		ended(b, err);
		err->code = -ESRCH;
		return -ESRCH;
	case RUNLOOP_SUSPENDED:
		return error_set_slug(err, -ESRCH, "sandbox-stopped",
				      "runloop: the devbox is suspended: its processes are gone");
	case RUNLOOP_BOOTING:
		if (strcmp(b->view.status_text, "resuming") != 0)
			break;
		return error_set_slug(err, -ESRCH, "sandbox-stopped",
				      "runloop: the devbox was suspended: its processes are gone");
	case RUNLOOP_RUNNING:
		if (boot_ms == 0 || b->view.boot_ms == 0 || boot_ms == b->view.boot_ms)
			return 0;
		return error_set_slug(err, -ESRCH, "sandbox-stopped",
				      "runloop: the devbox was suspended: its processes are gone");
	case RUNLOOP_SUSPENDING:
		break;
	}
	return error_set(err, -EAGAIN, "runloop: the devbox is %s", b->view.status_text);
}

/* ---- that it can be reached ---- */

int runloop_box_need_tunnel(struct runloop_box *b, struct error *err)
{
	if (b->view.has_tunnel)
		return 0;
	provider_call_step(b->call, "tunnel");
	for (unsigned i = 0;; i++) {
		int rc = runloop_enable_tunnel(&b->api, b->devbox, &b->view, err);
		if (rc == 0 || provider_call_check(b->call, NULL) < 0)
			return rc;
		/* Somebody else may have been faster. */
		struct error ignored = { 0 };
		struct runloop_devbox view;
		bool there = runloop_retrieve(&b->api, b->devbox, &view, &ignored) == 0 &&
			     view.has_tunnel;
		if (there)
			b->view = view;
		sodium_memzero(&view, sizeof(view));
		if (there)
			return 0;
		if (rc != -EALREADY || i == LOCKED_TRIES ||
		    pause_ms(b->call, (unsigned)LOCKED_PAUSE_MS << i, &ignored) < 0)
			return rc;
	}
}

int runloop_box_url(const struct runloop_box *b, const char *tunnel_key, unsigned port, bool http,
		    char ret[RUNLOOP_URL_BYTES], struct error *err)
{
	const struct provider_config *cfg = b->call->cfg;
	if (runloop_url_of_port(cfg->runloop_base_url, cfg->runloop_tunnel_url, tunnel_key, port,
				http, ret) == 0)
		return 0;
	return error_set_slug(err, -EBADMSG, "provider-error",
			      "runloop: the tunnel's key does not make an address");
}

int runloop_box_said(const char *slug, const char *what, const char *text, struct error *err)
{
	return error_set_slug(err, -ENOEXEC, slug, "runloop: %s%s%s", what,
			      text[0] == '\0' ? "" : ": ", text);
}
