/* fuzz_ws_handshake.c -- any key has an accept value of the right form, and a valid key is 16
 * bytes. */
#include "tests/fuzz/fuzz.h"

#include "wire/base64.h"
#include "wire/ws_handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *key = exactly(size + 1);
	if (size > 0)
		memcpy(key, data, size);
	key[size] = '\0';

	char accept[WS_ACCEPT_CHARS + 1];
	uint8_t hash[WS_ACCEPT_CHARS / 4 * 3];
	ws_accept(key, accept);
	require(strlen(accept) == WS_ACCEPT_CHARS);
	require(base64_decode(hash, accept, WS_ACCEPT_CHARS) == 20);

	if (key[0] != '\0') {
		char other[WS_ACCEPT_CHARS + 1];
		key[0] = key[0] == 'x' ? 'y' : 'x';
		ws_accept(key, other);
		require(strcmp(accept, other) != 0);
		memcpy(key, data, 1);
	}

	if (ws_key_valid(key)) {
		uint8_t bytes[24 / 4 * 3];
		require(strlen(key) == 24);
		key[21] = 'A'; /* clears the bits under the padding, which a key may have set */
		require(base64_decode(bytes, key, 24) == 16);
	}
	free(key);
	return 0;
}
