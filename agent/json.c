/* json.c -- see json.h. */
#include "agent/json.h"

#include <string.h>

size_t json_string(char *out, const char *text)
{
	static const char hex[] = "0123456789abcdef";
	size_t size = 0;
	for (; *text != '\0'; text++) {
		unsigned char c = (unsigned char)*text;
		if (c == '"' || c == '\\') {
			out[size++] = '\\';
			out[size++] = *text;
		} else if (c < 0x20 || c == 0x7f || strchr("&<>", c) != NULL) {
			memcpy(out + size, "\\u00", 4);
			out[size + 4] = hex[c >> 4];
			out[size + 5] = hex[c & 15];
			size += 6;
		} else {
			out[size++] = *text;
		}
	}
	return size;
}
