/* ws_handshake.h -- what the opening handshake of a WebSocket computes.
 * Source: RFC 6455 section 4.2.2; SHA-1 of FIPS 180-4 (no security rests on it here),
 * base64 of RFC 4648. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WS_ACCEPT_CHARS 28

/* Writes Sec-WebSocket-Accept for the key (any text), 0-terminated. */
void ws_accept(const char *key, char ret[WS_ACCEPT_CHARS + 1]);

/* True when key is base64 of 16 bytes, as Sec-WebSocket-Key has to be. NULL is not. */
bool ws_key_valid(const char *key);
