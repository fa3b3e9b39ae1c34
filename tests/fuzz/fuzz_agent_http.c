/* fuzz_agent_http.c -- any bytes as the head of a request: nothing is read or written outside of it, and
 * what is found is well-formed. */
#include "tests/fuzz/fuzz.h"

/* Fuzz targets are linked with wire/ alone. */
#include "agent/http_head.c"

static void require_inside(const char *string, const char *text, size_t size)
{
	if (string != NULL)
		require(string >= text && string + strlen(string) < text + size);
}

static void look_up(const char *query, const char *name)
{
	for (size_t capacity = 1; capacity <= 64; capacity *= 4) {
		char *value = exactly(capacity);
		if (http_query_find(query, name, value, capacity))
			require(strlen(value) < capacity);
		free(value);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t end = http_head_find_end((const char *)data, size);
	require(end <= size);
	if (end == 0)
		return 0;
	char *text = exact_copy(data, end);
	struct http_head head;
	if (http_head_parse(text, end, &head) == 0) {
		require(head.method != NULL && *head.method != '\0');
		require(head.path != NULL && *head.path != '\0' && head.query != NULL);
		require(strchr(head.path, '?') == NULL && strchr(head.path, ' ') == NULL);
		require_inside(head.method, text, end);
		require_inside(head.host, text, end);
		require_inside(head.origin, text, end);
		require_inside(head.websocket_key, text, end);
		require_inside(head.token, text, end);
		look_up(head.query, "token");
		look_up(head.query, "v");
		if (head.origin != NULL)
			(void)http_origin_is_host(head.origin, head.host);
	}
	free(text);
	return 0;
}
