/* keys.h -- what a key sends to a terminal, by its name: "enter", "ctrl-c", "alt-x", "f5", or a
 * single character. As xterm in its normal cursor mode. Source: xterm's ctlseqs, "PC-Style Function
 * Keys". Pure. Thread: any. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define KEY_BYTES_MAX 8

/* Writes the bytes of the key and returns their number, or 0 for an unknown name. name has size bytes
 * of valid UTF-8 and need not be 0-terminated. */
size_t key_bytes(const char *name, size_t size, uint8_t ret[KEY_BYTES_MAX]);
