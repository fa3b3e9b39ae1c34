/* provider.c -- which providers there are, and endpoints as JSON. */
#include "providers/provider.h"

#include <errno.h>
#include <jansson.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static bool is_named(const char *names, const char *name)
{
	size_t size = strlen(name);
	for (const char *at = names; at != NULL && *at != '\0';) {
		size_t n = strcspn(at, ",");
		if (n == size && strncmp(at, name, n) == 0)
			return true;
		at += n;
		if (*at == ',')
			at++;
	}
	return false;
}

const struct provider_ops *provider_at(const struct provider_config *cfg, size_t index)
{
	bool url_is_agent = cfg->tunnel_transport == NULL ||
			    strcmp(cfg->tunnel_transport, "agent") == 0;
	const struct provider_ops *const all[] = {
		&provider_local,
		url_is_agent ? &provider_url_agent : &provider_url_pty_tunnel,
		&provider_runloop,
	};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (is_named(cfg->names, all[i]->name) && index-- == 0)
			return all[i];
	return NULL;
}

bool provider_is_name(const char *name)
{
	return is_named("local,url,runloop", name);
}

const struct provider_ops *provider_find(const struct provider_config *cfg, const char *name)
{
	const struct provider_ops *ops;
	for (size_t i = 0; (ops = provider_at(cfg, i)) != NULL; i++)
		if (strcmp(ops->name, name) == 0)
			return ops;
	return NULL;
}

static void wipe_free(char *secret)
{
	if (secret != NULL)
		sodium_memzero(secret, strlen(secret));
	free(secret);
}

void sandbox_target_fini(struct sandbox_target *t)
{
	free(t->external_id);
	wipe_free(t->credential);
	free(t->transport);
	free(t->agent);
	*t = (struct sandbox_target){ 0 };
}

/* ---- calls ---- */

uint64_t provider_now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

int provider_call_check(const struct provider_call *call, struct error *err)
{
	if (call->cancelled != NULL && atomic_load(call->cancelled))
		return error_set_slug(err, -ECANCELED, "start-cancelled", "it was cancelled");
	if (provider_now_us() >= call->deadline_us)
		return error_set_slug(err, -ETIMEDOUT, "start-timeout", "the time for it is over");
	return 0;
}

void provider_call_step(const struct provider_call *call, const char *name)
{
	if (call->step != NULL)
		call->step(call->arg, name);
}

/* ---- endpoints ---- */

void endpoint_fini(struct endpoint *e)
{
	free(e->transport);
	wipe_free(e->url); /* its query may hold a token */
	wipe_free(e->token);
	free(e->shell);
	for (unsigned i = 0; i < e->headers_count; i++) {
		free(e->headers[i].name);
		wipe_free(e->headers[i].value);
	}
	wipe_free(e->memo);
	*e = (struct endpoint){ 0 };
}

char *endpoint_to_json(const struct endpoint *e)
{
	json_t *headers = json_object();
	for (unsigned i = 0; i < e->headers_count; i++)
		json_object_set_new(headers, e->headers[i].name, json_string(e->headers[i].value));
	json_t *root = json_pack("{s:s, s:s, s:s*, s:s*, s:I, s:o, s:b, s:s*}", "transport",
				 e->transport, "url", e->url, "token", e->token, "shell", e->shell,
				 "instance", (json_int_t)e->instance, "headers", headers,
				 "ask_first", e->ask_first, "memo", e->memo);
	char *text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
	json_decref(root);
	return text;
}

static char *copy_member(const json_t *root, const char *name)
{
	const char *value = json_string_value(json_object_get(root, name));
	return value == NULL ? NULL : strdup(value);
}

/* False without memory, or when there are too many. */
static bool read_headers(json_t *headers, struct endpoint *ret)
{
	const char *name;
	json_t *value;
	json_object_foreach(headers, name, value)
	{
		if (ret->headers_count == ENDPOINT_HEADERS_MAX || !json_is_string(value))
			return false;
		struct endpoint_header *h = &ret->headers[ret->headers_count++];
		h->name = strdup(name);
		h->value = strdup(json_string_value(value));
		if (h->name == NULL || h->value == NULL)
			return false;
	}
	return true;
}

int endpoint_from_json(const char *text, struct endpoint *ret)
{
	json_t *root = json_loads(text, 0, NULL);
	struct endpoint e = {
		.transport = copy_member(root, "transport"),
		.url = copy_member(root, "url"),
		.token = copy_member(root, "token"),
		.shell = copy_member(root, "shell"),
		.instance = (uint64_t)json_integer_value(json_object_get(root, "instance")),
		.ask_first = json_is_true(json_object_get(root, "ask_first")),
		.memo = copy_member(root, "memo"),
	};
	bool good = read_headers(json_object_get(root, "headers"), &e) && e.transport != NULL &&
		    e.url != NULL;
	json_decref(root);
	if (!good) {
		endpoint_fini(&e);
		return -EBADMSG;
	}
	*ret = e;
	return 0;
}

int endpoint_copy(const struct endpoint *from, struct endpoint *ret)
{
	char *text = endpoint_to_json(from);
	int rc = text == NULL ? -ENOMEM : endpoint_from_json(text, ret);
	wipe_free(text);
	return rc < 0 ? -ENOMEM : 0;
}
