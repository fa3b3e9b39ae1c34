/* runloop_json.c -- Runloop's JSON: every member is checked, unknown ones are nothing. */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/runloop_api_private.h"
#include "wire/utf8.h"

/* ---- texts from outside ---- */

static bool is_control(const uint8_t *at, size_t bytes)
{
	return (bytes == 1 && (*at < ' ' || *at == 0x7f)) ||
	       (bytes == 2 && at[0] == 0xc2 && at[1] < 0xa0); /* U+0080 to U+009F */
}

const char *runloop_clean_text(const char *text, size_t size, const char *secret, char *ret,
			       size_t room)
{
	static const char hidden[] = "[hidden]";
	if (secret == NULL)
		secret = "";
	size_t secret_size = strlen(secret), used = 0;
	for (size_t at = 0; at < size;) {
		const uint8_t *from = (const uint8_t *)text + at;
		const char *piece = (const char *)from;
		bool valid;
		size_t bytes = utf8_step(from, size - at, &valid), piece_size = bytes;
		if (secret_size > 0 && size - at >= secret_size &&
		    memcmp(from, secret, secret_size) == 0) {
			bytes = secret_size;
			piece = hidden;
			piece_size = sizeof(hidden) - 1;
		} else if (!valid) {
			piece = UTF8_REPLACEMENT;
			piece_size = UTF8_REPLACEMENT_BYTES;
		} else if (*from == ' ' || is_control(from, bytes)) { /* one for many */
			piece = " ";
			piece_size = used > 0 && ret[used - 1] != ' ' ? 1 : 0;
		}
		if (piece_size > room - 1 - used)
			break;
		memcpy(ret + used, piece, piece_size);
		used += piece_size;
		at += bytes;
	}
	while (used > 0 && ret[used - 1] == ' ')
		used--;
	ret[used] = '\0';
	return ret;
}

const char *runloop_error_message(const char *body, size_t size, const char *secret, char *ret,
				  size_t room)
{
	json_t *root = json_loadb(body, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	json_t *message = json_object_get(root, "message");
	if (json_is_string(message)) {
		runloop_clean_text(json_string_value(message), json_string_length(message), secret,
				   ret, room);
	} else if (root != NULL) {
		char *text = json_dumps(message != NULL ? message : root,
					JSON_COMPACT | JSON_ENCODE_ANY);
		runloop_clean_text(text == NULL ? "" : text, text == NULL ? 0 : strlen(text),
				   secret, ret, room);
		free(text);
	} else {
		runloop_clean_text(body, size, secret, ret, room);
	}
	json_decref(root);
	if (ret[0] == '\0')
		snprintf(ret, room, "status code (no body)");
	return ret;
}

bool runloop_token_valid(const char *token, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if ((unsigned char)token[i] <= ' ' || (unsigned char)token[i] >= 0x7f)
			return false;
	return size > 0;
}

bool runloop_id_valid(const char *id)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "abcdefghijklmnopqrstuvwxyz"
				      "0123456789_-.";
	size_t size = strlen(id);
	return size >= 1 && size < RUNLOOP_ID_BYTES && strspn(id, allowed) == size &&
	       strcmp(id, ".") != 0 && strcmp(id, "..") != 0;
}

/* It becomes a part of a host's name. */
static bool is_dns_label(const char *text, size_t size)
{
	if (size < 1 || size > 63 || text[0] == '-' || text[size - 1] == '-')
		return false;
	for (size_t i = 0; i < size; i++) {
		char c = text[i];
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		      c == '-'))
			return false;
	}
	return true;
}

void runloop_json_wipe(json_t *root)
{
	const char *name;
	size_t i;
	json_t *value;
	if (json_is_string(root))
		sodium_memzero((void *)json_string_value(root), json_string_length(root));
	json_object_foreach(root, name, value)
	{
		runloop_json_wipe(value);
	}
	json_array_foreach(root, i, value)
	{
		runloop_json_wipe(value);
	}
}

/* ---- a devbox ---- */

static enum runloop_status read_status(const char *text)
{
	static const struct {
		const char *text;
		enum runloop_status status;
	} known[] = {
		{ "running", RUNLOOP_RUNNING },     { "suspending", RUNLOOP_SUSPENDING },
		{ "suspended", RUNLOOP_SUSPENDED }, { "failure", RUNLOOP_FAILURE },
		{ "shutdown", RUNLOOP_SHUTDOWN },
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(text, known[i].text) == 0)
			return known[i].status;
	return RUNLOOP_BOOTING;
}

static int64_t newest_boot(const json_t *transitions)
{
	int64_t newest = 0;
	size_t i;
	json_t *one;
	json_array_foreach(transitions, i, one)
	{
		const char *status = json_string_value(json_object_get(one, "status"));
		double ms = json_number_value(json_object_get(one, "transition_time_ms"));
		if (status != NULL && strcmp(status, "running") == 0 && ms > (double)newest &&
		    ms < 1e15)
			newest = (int64_t)ms;
	}
	return newest;
}

int runloop_tunnel_read(const json_t *tunnel, bool token_needed, char key[64], char token[512])
{
	const json_t *k = json_object_get(tunnel, "tunnel_key");
	const json_t *t = json_object_get(tunnel, "auth_token");
	key[0] = token[0] = '\0';
	if (!json_is_string(k) || !is_dns_label(json_string_value(k), json_string_length(k)))
		return -EBADMSG;
	if (json_is_string(t)) {
		if (!runloop_token_valid(json_string_value(t), json_string_length(t)) ||
		    json_string_length(t) >= 512)
			return -EBADMSG;
		snprintf(token, 512, "%s", json_string_value(t));
	} else if (token_needed || (t != NULL && !json_is_null(t))) {
		return -EBADMSG;
	}
	snprintf(key, 64, "%s", json_string_value(k));
	return 0;
}

static void copy_clean(const json_t *text, char *ret, size_t room)
{
	if (json_is_string(text))
		runloop_clean_text(json_string_value(text), json_string_length(text), NULL, ret,
				   room);
}

int runloop_devbox_read(const json_t *root, struct runloop_devbox *ret)
{
	struct runloop_devbox box = { 0 };
	const json_t *status = json_object_get(root, "status");
	const json_t *tunnel = json_object_get(root, "tunnel");
	const char *architecture = json_string_value(
		json_object_get(json_object_get(root, "launch_parameters"), "architecture"));
	if (!json_is_string(status))
		return -EBADMSG;
	box.status = read_status(json_string_value(status));
	copy_clean(status, box.status_text, sizeof(box.status_text));
	box.arm64 = architecture != NULL && strcmp(architecture, "arm64") == 0;
	box.boot_ms = newest_boot(json_object_get(root, "state_transitions"));
	copy_clean(json_object_get(root, "shutdown_reason"), box.reason, sizeof(box.reason));
	copy_clean(json_object_get(root, "failure_reason"), box.reason, sizeof(box.reason));
	if (tunnel != NULL && !json_is_null(tunnel)) {
		if (runloop_tunnel_read(tunnel, false, box.tunnel_key, box.tunnel_token) < 0)
			return -EBADMSG;
		box.has_tunnel = true;
		box.tunnel_wakes = json_is_true(json_object_get(tunnel, "wake_on_http"));
	}
	*ret = box;
	sodium_memzero(&box, sizeof(box));
	return 0;
}

/* ---- an execution ---- */

/* An owned copy, "" for none; NULL without memory. */
static char *copy_output(const json_t *text)
{
	size_t size = json_string_length(text); /* 0 for what is none */
	char *copy = malloc(size + 1);
	if (copy == NULL)
		return NULL;
	if (size > 0)
		memcpy(copy, json_string_value(text), size);
	copy[size] = '\0';
	for (size_t i = 0; i < size; i++)
		if (copy[i] == '\0')
			copy[i] = '?';
	return copy;
}

int runloop_execution_read(const json_t *root, struct runloop_execution *ret)
{
	const json_t *id = json_object_get(root, "execution_id");
	const json_t *exit_status = json_object_get(root, "exit_status");
	const char *status = json_string_value(json_object_get(root, "status"));
	if (!json_is_string(id) || json_string_length(id) != strlen(json_string_value(id)) ||
	    json_string_length(id) >= sizeof(ret->id) || !runloop_id_valid(json_string_value(id)) ||
	    status == NULL)
		return -EBADMSG;
	struct runloop_execution e = {
		.completed = strcmp(status, "completed") == 0,
		.exit_status = -1,
		.out = copy_output(json_object_get(root, "stdout")),
		.err = copy_output(json_object_get(root, "stderr")),
	};
	snprintf(e.id, sizeof(e.id), "%s", json_string_value(id));
	if (json_is_number(exit_status)) {
		double number = json_number_value(exit_status);
		if (number >= -255 && number <= 65535)
			e.exit_status = (int)number;
	}
	if (e.out == NULL || e.err == NULL) {
		runloop_execution_fini(&e);
		return -ENOMEM;
	}
	*ret = e;
	return 0;
}

void runloop_execution_fini(struct runloop_execution *e)
{
	if (e->out != NULL)
		sodium_memzero(e->out, strlen(e->out));
	if (e->err != NULL)
		sodium_memzero(e->err, strlen(e->err));
	free(e->out);
	free(e->err);
	*e = (struct runloop_execution){ 0 };
}
