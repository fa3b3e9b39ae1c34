/* handshake.c -- the first line of an agent's stdout. Source: protocols/pty-tunnel.md section 3, and
 * docs/agent-protocol.md section 2. */
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/provider.h"

#define NUMBER_MAX (INT64_C(1) << 53)

static bool is_token(const char *token, size_t size)
{
	if (token == NULL || size == 0 || size >= sizeof(((struct handshake *)0)->token))
		return false;
	for (size_t i = 0; i < size; i++)
		if ((unsigned char)token[i] <= ' ' || (unsigned char)token[i] >= 0x7f)
			return false;
	return true;
}

static void wipe_string(json_t *value)
{
	if (json_is_string(value))
		sodium_memzero((void *)json_string_value(value), json_string_length(value));
}

int handshake_parse(const char *line, size_t size, struct handshake *ret)
{
	json_t *root = json_loadb(line, size, 0, NULL);
	json_t *port = json_object_get(root, "port"), *id = json_object_get(root, "processId");
	json_t *server = json_object_get(root, "serverProcessId");
	json_t *token = json_object_get(root, "token");
	json_int_t proto = json_integer_value(json_object_get(root, "proto"));
	const char *instance = json_string_value(json_object_get(root, "instance"));
	bool good = json_is_integer(port) && json_is_integer(id) && json_is_integer(server) &&
		    json_integer_value(port) >= 1 && json_integer_value(port) <= 65535 &&
		    json_integer_value(id) >= 0 && json_integer_value(id) <= NUMBER_MAX &&
		    json_integer_value(server) >= 0 && json_integer_value(server) <= NUMBER_MAX &&
		    is_token(json_string_value(token), json_string_length(token));
	if (good) {
		*ret = (struct handshake){
			.port = (uint16_t)json_integer_value(port),
			.process_id = (uint64_t)json_integer_value(id),
			.server_process_id = (uint64_t)json_integer_value(server),
			.v2 = proto == 2 && instance != NULL,
			.instance = instance == NULL ? 0 : strtoull(instance, NULL, 16),
		};
		snprintf(ret->token, sizeof(ret->token), "%s", json_string_value(token));
	}
	wipe_string(token);
	json_decref(root);
	return good;
}
