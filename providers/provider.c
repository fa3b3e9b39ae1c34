/* provider.c -- which providers there are, and endpoints as JSON. */
#include "providers/provider.h"

#include <errno.h>
#include <jansson.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

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
	};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (is_named(cfg->names, all[i]->name) && index-- == 0)
			return all[i];
	return NULL;
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

void endpoint_fini(struct endpoint *e)
{
	free(e->transport);
	wipe_free(e->url); /* its query may hold a token */
	wipe_free(e->token);
	free(e->shell);
	*e = (struct endpoint){ 0 };
}

char *endpoint_to_json(const struct endpoint *e)
{
	json_t *root = json_pack("{s:s, s:s, s:s*, s:s*, s:I}", "transport", e->transport, "url",
				 e->url, "token", e->token, "shell", e->shell, "instance",
				 (json_int_t)e->instance);
	char *text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
	json_decref(root);
	return text;
}

static char *copy_member(const json_t *root, const char *name)
{
	const char *value = json_string_value(json_object_get(root, name));
	return value == NULL ? NULL : strdup(value);
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
	};
	json_decref(root);
	if (e.transport == NULL || e.url == NULL) {
		endpoint_fini(&e);
		return -EBADMSG;
	}
	*ret = e;
	return 0;
}
