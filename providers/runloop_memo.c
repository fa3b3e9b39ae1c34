/* runloop_memo.c -- endpoints of provider runloop, and what is remembered with them. */
#include <errno.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/runloop_private.h"

static const char *const kinds[] = { [RUNLOOP_KIND_AGENT] = "agent",
				     [RUNLOOP_KIND_TUNNEL] = "pty-tunnel",
				     [RUNLOOP_KIND_NATIVE] = "native" };

char *runloop_memo_write(const struct runloop_memo *m)
{
	json_t *root = json_pack("{s:s, s:s, s:I}", "kind", kinds[m->kind], "devbox", m->devbox,
				 "boot_ms", (json_int_t)m->boot_ms);
	int rc = root == NULL ? -1 : 0;
	switch (m->kind) {
	case RUNLOOP_KIND_AGENT:
		rc |= json_object_set_new(root, "port", json_integer(m->port));
		rc |= json_object_set_new(root, "pid", json_integer((json_int_t)m->pid));
		break;
	case RUNLOOP_KIND_TUNNEL:
		rc |= json_object_set_new(root, "port", json_integer(m->port));
		rc |= json_object_set_new(root, "execution", json_string(m->execution));
		break;
	case RUNLOOP_KIND_NATIVE:
		rc |= json_object_set_new(root, "pty_url", json_string(m->pty_url));
		rc |= json_object_set_new(root, "token", json_string(m->token));
		rc |= json_object_set_new(root, "name", json_string(m->name));
		rc |= json_object_set_new(root, "cols", json_integer(m->cols));
		rc |= json_object_set_new(root, "rows", json_integer(m->rows));
		break;
	}
	char *text = rc != 0 ? NULL : json_dumps(root, JSON_COMPACT);
	json_decref(root);
	return text;
}

/* False when there is one that is too long. */
static bool read_text(const json_t *root, const char *name, char *ret, size_t size)
{
	const char *value = json_string_value(json_object_get(root, name));
	return value == NULL || snprintf(ret, size, "%s", value) < (int)size;
}

int runloop_memo_read(const char *text, struct runloop_memo *ret, struct error *err)
{
	json_t *root = text == NULL ? NULL : json_loads(text, 0, NULL);
	const char *kind = json_string_value(json_object_get(root, "kind"));
	struct runloop_memo m = {
		.boot_ms = json_integer_value(json_object_get(root, "boot_ms")),
		.port = (uint16_t)json_integer_value(json_object_get(root, "port")),
		.pid = (uint64_t)json_integer_value(json_object_get(root, "pid")),
		.cols = (uint16_t)json_integer_value(json_object_get(root, "cols")),
		.rows = (uint16_t)json_integer_value(json_object_get(root, "rows")),
	};
	bool good = false;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && kind != NULL; i++) {
		if (strcmp(kind, kinds[i]) != 0)
			continue;
		m.kind = (enum runloop_kind)i;
		good = true;
	}
	good = good && read_text(root, "devbox", m.devbox, sizeof(m.devbox)) &&
	       runloop_id_valid(m.devbox) &&
	       read_text(root, "execution", m.execution, sizeof(m.execution)) &&
	       read_text(root, "pty_url", m.pty_url, sizeof(m.pty_url)) &&
	       read_text(root, "token", m.token, sizeof(m.token)) &&
	       read_text(root, "name", m.name, sizeof(m.name));
	json_decref(root);
	if (good)
		*ret = m;
	sodium_memzero(&m, sizeof(m));
	return good ? 0
		    : error_set(err, -EBADMSG, "runloop: the session's memo was not understood");
}

static char *join(const char *first, const char *second)
{
	char *text;
	return asprintf(&text, "%s%s", first, second) < 0 ? NULL : text;
}

static bool add_bearer(struct endpoint *e, const char *name, const char *token)
{
	struct endpoint_header *h = &e->headers[e->headers_count++];
	h->name = strdup(name);
	h->value = join("Bearer ", token);
	return h->name != NULL && h->value != NULL;
}

int runloop_endpoint_make(const struct runloop_endpoint *from, struct endpoint *ret,
			  struct error *err)
{
	struct endpoint e = {
		.transport = strdup(from->transport),
		.url = join(from->base, from->path),
		.token = from->token == NULL ? NULL : strdup(from->token),
		.shell = from->shell == NULL ? NULL : strdup(from->shell),
		.instance = from->instance,
		.ask_first = from->wakes,
		.memo = runloop_memo_write(from->memo),
	};
	bool good = e.transport != NULL && e.url != NULL && e.memo != NULL &&
		    (e.token != NULL) == (from->token != NULL) &&
		    (e.shell != NULL) == (from->shell != NULL);
	const char *token = from->tunnel_token;
	if (good && token != NULL && token[0] != '\0')
		good = add_bearer(&e, "x-runloop-tunnel-authorization:", token) &&
		       (!from->bearer || add_bearer(&e, "authorization:", token));
	if (!good) {
		endpoint_fini(&e);
		return error_set(err, -ENOMEM, "no memory");
	}
	*ret = e;
	return 0;
}
