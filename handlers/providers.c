/* providers.c -- GET /providers: those that are switched on, and what each can do. */
#include "providers/provider.h"

#include <string.h>

#include "handlers/handlers.h"
#include "service/app.h"
#include "service/request.h"

static json_t *provider_json(const struct provider_ops *p)
{
	const struct capabilities *c = &p->capabilities;
	return json_pack("{s:s, s:s, s:{s:b, s:b, s:b, s:b, s:b, s:b}}", "name", p->name,
			 "transport", p->transport, "capabilities", "reattach", c->reattach,
			 "replay", c->replay, "exit_code", c->exit_code, "signal", c->signal,
			 "resize", c->resize, "single_attach", c->single_attach);
}

void handle_providers(struct request *r)
{
	json_t *list = json_array();
	const struct provider_ops *p;
	for (size_t i = 0; (p = provider_at(r->app->providers, i)) != NULL; i++) {
		/* Sorted by name, whatever order they were configured in. */
		size_t at = 0;
		while (at < json_array_size(list) &&
		       strcmp(json_string_value(json_object_get(json_array_get(list, at), "name")),
			      p->name) < 0)
			at++;
		json_array_insert_new(list, at, provider_json(p));
	}
	request_answer_json(r, 200, json_pack("{s:o}", "providers", list));
}
