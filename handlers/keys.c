/* keys.c -- see keys.h. */
#include "handlers/keys.h"

#include <stdbool.h>
#include <string.h>

#include "wire/utf8.h"

static const struct {
	const char *name;
	const char *bytes;
} keys[] = {
	{ "enter", "\r" },          { "tab", "\t" },         { "shift-tab", "\x1b[Z" },
	{ "escape", "\x1b" },       { "backspace", "\x7f" }, { "delete", "\x1b[3~" },
	{ "insert", "\x1b[2~" },    { "space", " " },        { "up", "\x1b[A" },
	{ "down", "\x1b[B" },       { "right", "\x1b[C" },   { "left", "\x1b[D" },
	{ "home", "\x1b[H" },       { "end", "\x1b[F" },     { "page-up", "\x1b[5~" },
	{ "page-down", "\x1b[6~" }, { "f1", "\x1bOP" },      { "f2", "\x1bOQ" },
	{ "f3", "\x1bOR" },         { "f4", "\x1bOS" },      { "f5", "\x1b[15~" },
	{ "f6", "\x1b[17~" },       { "f7", "\x1b[18~" },    { "f8", "\x1b[19~" },
	{ "f9", "\x1b[20~" },       { "f10", "\x1b[21~" },   { "f11", "\x1b[23~" },
	{ "f12", "\x1b[24~" },
};

/* One character that is not a line's end: "enter" says which of those is meant. */
static bool is_character(const char *text, size_t size)
{
	bool valid;
	return size > 0 && utf8_step((const uint8_t *)text, size, &valid) == size && valid &&
	       text[0] != '\r' && text[0] != '\n';
}

size_t key_bytes(const char *name, size_t size, uint8_t ret[KEY_BYTES_MAX])
{
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (strlen(keys[i].name) == size && memcmp(keys[i].name, name, size) == 0) {
			size_t length = strlen(keys[i].bytes);
			memcpy(ret, keys[i].bytes, length);
			return length;
		}
	}
	if (is_character(name, size)) {
		memcpy(ret, name, size);
		return size;
	}
	if (size > 4 && memcmp(name, "alt-", 4) == 0 && is_character(name + 4, size - 4)) {
		ret[0] = 0x1b;
		memcpy(ret + 1, name + 4, size - 4);
		return 1 + size - 4;
	}
	if (size == 10 && memcmp(name, "ctrl-space", 10) == 0) {
		ret[0] = 0;
		return 1;
	}
	/* A control character is its key's with bits 5 and 6 cleared. */
	if (size == 6 && memcmp(name, "ctrl-", 5) == 0 &&
	    ((name[5] >= 'a' && name[5] <= 'z') || memchr("[\\]^_", name[5], 5) != NULL)) {
		ret[0] = (uint8_t)(name[5] & 0x1f);
		return 1;
	}
	return 0;
}
