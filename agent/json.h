/* json.h -- JSON strings as Go's encoder writes them: &, < and > are escaped too. Thread: any. */
#pragma once

#include <stddef.h>

/* Room that json_string() may need for size characters. */
#define JSON_STRING_BYTES(size) ((size)*6)

/* Writes the inside of a JSON string, not 0-terminated. Returns the bytes written. */
size_t json_string(char *out, const char *text);
