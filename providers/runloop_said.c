/* runloop_said.c -- what the scripts said: see runloop_script.h. */
#include <jansson.h>
#include <string.h>

#include "providers/runloop_script.h"

/* Copies what is printable ASCII; other bytes become '?', control characters go. */
static void clean(const char *text, size_t size, char ret[RUNLOOP_TEXT_BYTES])
{
	size_t n = 0;
	for (size_t i = 0; i < size && n < RUNLOOP_TEXT_BYTES - 1; i++) {
		unsigned char c = (unsigned char)text[i];
		if (c >= ' ' && c != 0x7f)
			ret[n++] = c < 0x7f ? (char)c : '?';
	}
	while (n > 0 && ret[n - 1] == ' ')
		n--;
	ret[n] = '\0';
}

/* True when line begins with prefix: then ret is the rest of it. */
static bool says(const char *line, size_t size, const char *prefix, char ret[RUNLOOP_TEXT_BYTES])
{
	size_t n = strlen(prefix);
	if (size < n || memcmp(line, prefix, n) != 0)
		return false;
	clean(line + n, size - n, ret);
	return true;
}

/* The verdict of one line; RUNLOOP_NOTHING leaves *ret as it is. */
static enum runloop_verdict read_line(const char *line, size_t size, struct runloop_said *ret)
{
	char text[RUNLOOP_TEXT_BYTES];
	struct handshake h;
	if (size > 0 && line[0] == '{') {
		if (handshake_parse(line, size, &h) == 0 || !h.v2)
			return RUNLOOP_NOTHING;
		ret->handshake = h;
		explicit_bzero(&h, sizeof(h));
		return RUNLOOP_STARTED;
	}
	if (says(line, size, "ptycast: need ", text)) {
		ret->arch = strcmp(text, "arm64") == 0 ? RUNLOOP_ARM64 : RUNLOOP_X86_64;
		return RUNLOOP_NEED;
	}
	if (says(line, size, "ptycast: arch ", ret->text))
		return RUNLOOP_NO_AGENT;
	if (says(line, size, "ptycast: error install ", ret->text))
		return RUNLOOP_NOT_INSTALLED;
	if (says(line, size, "ptycast: error start ", ret->text))
		return RUNLOOP_NOT_STARTED;
	if (says(line, size, "ptycast: alive", text))
		return RUNLOOP_ALIVE;
	if (says(line, size, "ptycast: gone", text))
		return RUNLOOP_GONE;
	return RUNLOOP_NOTHING;
}

void runloop_script_read(const char *out, struct runloop_said *ret)
{
	*ret = (struct runloop_said){ .verdict = RUNLOOP_NOTHING };
	for (const char *line = out; *line != '\0';) {
		size_t size = strcspn(line, "\r\n");
		enum runloop_verdict v = read_line(line, size, ret);
		if (v != RUNLOOP_NOTHING)
			ret->verdict = v;
		line += size;
		line += strspn(line, "\r\n");
	}
}

void runloop_script_last_line(const char *err, char ret[RUNLOOP_TEXT_BYTES])
{
	ret[0] = '\0';
	for (const char *line = err; *line != '\0';) {
		size_t size = strcspn(line, "\r\n");
		char text[RUNLOOP_TEXT_BYTES];
		json_t *log = line[0] == '{' ? json_loadb(line, size, 0, NULL) : NULL;
		const char *message = json_string_value(json_object_get(log, "msg"));
		if (message != NULL)
			clean(message, strlen(message), text);
		else
			clean(line, size, text);
		json_decref(log);
		if (text[0] != '\0')
			memcpy(ret, text, sizeof(text));
		line += size;
		line += strspn(line, "\r\n");
	}
}
