/* runloop_pty.c -- the control side of Runloop's native PTY, which runs in the box behind a tunnel of its own.
 * Source: protocols/runloop.md, section 7. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "providers/runloop_api_private.h"

#define SIZE_MAX_CELLS 1000 /* 0 and more than this are refused */

static unsigned cells(uint16_t n)
{
	return n < 1 ? 1 : n > SIZE_MAX_CELLS ? SIZE_MAX_CELLS : n;
}

static void init_create(struct ask *k, struct runloop_api *a, const char *devbox)
{
	ask_init(k, a, "create-pty-tunnel", "POST", "/v1/devboxes/%s/create_pty_tunnel", devbox);
	ask_set_json(k, json_object());
}

static int check_id(const char *devbox, struct error *err)
{
	return runloop_id_valid(devbox)
		       ? 0
		       : error_set_slug(err, -ENOENT, "sandbox-unknown",
					"runloop: create-pty-tunnel: that is no id");
}

static int tunnel_of(const struct ask *k, struct runloop_pty_tunnel *ret, struct error *err)
{
	json_t *root;
	int rc = ask_json(k, &root, err);
	if (rc == 0 && runloop_tunnel_read(root, true, ret->key, ret->token) < 0)
		rc = ask_not_understood(err, k->what, "the tunnel was not understood");
	runloop_json_wipe(root);
	json_decref(root);
	return rc;
}

int runloop_create_pty_tunnel(struct runloop_api *a, const char *devbox,
			      struct runloop_pty_tunnel *ret, struct error *err)
{
	int rc = check_id(devbox, err);
	if (rc < 0)
		return rc;
	struct ask k;
	init_create(&k, a, devbox);
	ask_run(&k);
	rc = tunnel_of(&k, ret, err);
	ask_fini(&k);
	return rc;
}

void runloop_retrieve_and_create_pty_tunnel(struct runloop_api *a, const char *devbox,
					    struct runloop_devbox *box, int *devbox_rc,
					    struct error *devbox_err,
					    struct runloop_pty_tunnel *tunnel, int *tunnel_rc,
					    struct error *tunnel_err)
{
	*devbox_rc = check_id(devbox, devbox_err);
	*tunnel_rc = check_id(devbox, tunnel_err);
	if (*devbox_rc < 0)
		return;
	struct ask k[2];
	runloop_init_retrieve(&k[0], a, devbox);
	init_create(&k[1], a, devbox);
	ask_try(k, 2);
	ask_run(&k[0]);
	*devbox_rc = runloop_devbox_of(&k[0], box, devbox_err);
	if (*devbox_rc == 0 && box->status == RUNLOOP_RUNNING)
		ask_run(&k[1]);
	*tunnel_rc = tunnel_of(&k[1], tunnel, tunnel_err);
	ask_fini(&k[0]);
	ask_fini(&k[1]);
}

/* It is put behind a host: nothing in it may make another host or a header of it. */
static bool is_connect_path(const char *path, size_t size, size_t room)
{
	if (size < 1 || size >= room || path[0] != '/' || path[1] == '/')
		return false;
	for (size_t i = 0; i < size; i++) {
		char c = path[i];
		if ((unsigned char)c <= ' ' || (unsigned char)c >= 0x7f || c == '\\' || c == '@' ||
		    c == '#')
			return false;
	}
	return true;
}

static int read_pty(const json_t *root, struct runloop_pty *ret)
{
	const json_t *path = json_object_get(root, "connect_url");
	const json_t *created = json_object_get(root, "created");
	const json_t *attached = json_object_get(root, "attached");
	if (!json_is_string(path) || !json_is_boolean(created) || !json_is_boolean(attached) ||
	    !is_connect_path(json_string_value(path), json_string_length(path),
			     sizeof(ret->connect_path)))
		return -EBADMSG;
	snprintf(ret->connect_path, sizeof(ret->connect_path), "%s", json_string_value(path));
	ret->created = json_is_true(created);
	ret->attached = json_is_true(attached);
	return 0;
}

static int check_name(const char *what, const char *name, struct error *err)
{
	if (runloop_id_valid(name))
		return 0;
	return error_set_slug(err, -EINVAL, "provider-error", "runloop: %s: that is no PTY's name",
			      what);
}

int runloop_pty_open(struct runloop_api *a, const char *pty_url, const char *token,
		     const char *name, uint16_t cols, uint16_t rows, struct runloop_pty *ret,
		     struct error *err)
{
	int rc = check_name("pty-open", name, err);
	if (rc < 0)
		return rc;
	struct ask k;
	json_t *root;
	ask_init_pty(&k, a, "pty-open", "GET", pty_url, token, "/pty/%s?cols=%u&rows=%u", name,
		     cells(cols), cells(rows));
	k.retry = ASK_RETRY_PTY;
	rc = ask_run_json(&k, &root, err);
	if (rc == 0 && read_pty(root, ret) < 0)
		rc = ask_not_understood(err, k.what, "no connect_url that can be used");
	runloop_json_wipe(root); /* the path may hold a token */
	json_decref(root);
	ask_fini(&k);
	return rc;
}

/* Posts one control message (taken over) and leaves the answer in *k. once: not again when it may have been
 * carried out. */
static int control(struct ask *k, struct runloop_api *a, const char *what, const char *pty_url,
		   const char *token, const char *name, json_t *message, bool once,
		   struct error *err)
{
	ask_init_pty(k, a, what, "POST", pty_url, token, "/pty/%s/control", name);
	ask_set_json(k, message);
	if (once) {
		k->retry = ASK_RETRY_START;
		k->request.once = true;
	}
	ask_run(k);
	return ask_result(k, err);
}

int runloop_pty_resize(struct runloop_api *a, const char *pty_url, const char *token,
		       const char *name, uint16_t cols, uint16_t rows, struct error *err)
{
	int rc = check_name("pty-resize", name, err);
	if (rc < 0)
		return rc;
	struct ask k;
	rc = control(&k, a, "pty-resize", pty_url, token, name,
		     json_pack("{s:s, s:i, s:i}", "action", "resize", "cols", (int)cells(cols),
			       "rows", (int)cells(rows)),
		     false, err);
	ask_fini(&k);
	return rc;
}

/* A 400 is one of two; its text is not documented. */
static int signal_refused(const struct ask *k, const char *signal, struct error *err)
{
	char text[256];
	runloop_error_message(k->answer.body == NULL ? "" : k->answer.body, k->answer.body_size,
			      k->secret, text, sizeof(text));
	bool unknown = strcasestr(text, "foreground") == NULL &&
		       (strcasestr(text, "unknown") != NULL ||
			strcasestr(text, "invalid") != NULL || strcasestr(text, "support") != NULL);
	return unknown ? error_set_slug(err, -EINVAL, "not-possible",
					"runloop: it knows no signal %.16s", signal)
		       : error_set_slug(err, -ESRCH, "not-possible",
					"runloop: no process is in the foreground");
}

int runloop_pty_signal(struct runloop_api *a, const char *pty_url, const char *token,
		       const char *name, const char *signal, struct error *err)
{
	int rc = check_name("pty-signal", name, err);
	if (rc < 0)
		return rc;
	struct ask k;
	rc = control(&k, a, "pty-signal", pty_url, token, name,
		     json_pack("{s:s, s:s}", "action", "signal", "signal", signal), true, err);
	if (rc < 0 && k.bad == 0 && k.answer.result == HTTP_DONE && k.answer.status == 400)
		rc = signal_refused(&k, signal, err);
	ask_fini(&k);
	return rc;
}

int runloop_pty_close(struct runloop_api *a, const char *pty_url, const char *token,
		      const char *name, struct error *err)
{
	int rc = check_name("pty-close", name, err);
	if (rc < 0)
		return rc;
	struct ask k;
	rc = control(&k, a, "pty-close", pty_url, token, name,
		     json_pack("{s:s}", "action", "close"), false, err);
	if (rc < 0 && k.bad == 0 && k.answer.result == HTTP_DONE && k.answer.status == 404)
		rc = 0; /* it is gone already */
	ask_fini(&k);
	return rc;
}
