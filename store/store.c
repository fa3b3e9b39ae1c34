/* store.c -- records: what every implementation of store.h does alike. */
#include "store/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void store_session_fini(struct store_session *record)
{
	free(record->subject);
	free(record->sandbox);
	free(record->provider);
	free(record->params);
	free(record->endpoint);
	free(record->target);
	free(record->ended_json);
	free(record->steps);
	memset(record, 0, sizeof(*record));
}

static bool copy_text(const char *from, char **ret)
{
	*ret = from != NULL ? strdup(from) : NULL;
	return from == NULL || *ret != NULL;
}

int store_session_copy(const struct store_session *from, struct store_session *ret)
{
	struct store_session copy = *from;
	copy.subject = copy.sandbox = copy.provider = NULL;
	copy.params = copy.endpoint = copy.target = copy.ended_json = copy.steps = NULL;
	if (!copy_text(from->subject, &copy.subject) || !copy_text(from->sandbox, &copy.sandbox) ||
	    !copy_text(from->provider, &copy.provider) || !copy_text(from->params, &copy.params) ||
	    !copy_text(from->endpoint, &copy.endpoint) || !copy_text(from->target, &copy.target) ||
	    !copy_text(from->ended_json, &copy.ended_json) ||
	    !copy_text(from->steps, &copy.steps)) {
		store_session_fini(&copy);
		return -ENOMEM;
	}
	*ret = copy;
	return 0;
}

void store_sandbox_fini(struct store_sandbox *record)
{
	free(record->subject);
	free(record->provider);
	free(record->external_id);
	free(record->credential);
	free(record->redacted);
	free(record->name);
	free(record->metadata);
	free(record->transport);
	free(record->agent);
	memset(record, 0, sizeof(*record));
}

int store_sandbox_copy(const struct store_sandbox *from, struct store_sandbox *ret)
{
	struct store_sandbox copy = *from;
	copy.subject = copy.provider = copy.external_id = copy.credential = copy.redacted = NULL;
	copy.name = copy.metadata = copy.transport = copy.agent = NULL;
	if (!copy_text(from->subject, &copy.subject) ||
	    !copy_text(from->provider, &copy.provider) ||
	    !copy_text(from->external_id, &copy.external_id) ||
	    !copy_text(from->credential, &copy.credential) ||
	    !copy_text(from->redacted, &copy.redacted) || !copy_text(from->name, &copy.name) ||
	    !copy_text(from->metadata, &copy.metadata) ||
	    !copy_text(from->transport, &copy.transport) || !copy_text(from->agent, &copy.agent)) {
		store_sandbox_fini(&copy);
		return -ENOMEM;
	}
	*ret = copy;
	return 0;
}
