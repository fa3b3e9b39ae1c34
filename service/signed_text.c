/* signed_text.c -- see signed_text.h. */
#include "service/signed_text.h"

#include <sodium.h>
#include <string.h>

#define BASE64 sodium_base64_VARIANT_URLSAFE_NO_PADDING

void signed_text_key(const uint8_t store_key[SIGNED_TEXT_KEY_BYTES], const char *purpose,
		     uint8_t ret[SIGNED_TEXT_KEY_BYTES])
{
	crypto_generichash(ret, SIGNED_TEXT_KEY_BYTES, (const uint8_t *)purpose,
			   strlen(purpose) + 1, store_key, SIGNED_TEXT_KEY_BYTES);
}

static void make_mac(const uint8_t key[SIGNED_TEXT_KEY_BYTES], const char *session,
		     const char *fields, size_t size, char ret[SIGNED_TEXT_MAC_CHARS + 1])
{
	/* The session's 0 stands between the two: no other pair makes the same bytes. */
	uint8_t mac[crypto_auth_hmacsha512256_BYTES];
	crypto_auth_hmacsha512256_state state;
	crypto_auth_hmacsha512256_init(&state, key, SIGNED_TEXT_KEY_BYTES);
	crypto_auth_hmacsha512256_update(&state, (const uint8_t *)session, strlen(session) + 1);
	crypto_auth_hmacsha512256_update(&state, (const uint8_t *)fields, size);
	crypto_auth_hmacsha512256_final(&state, mac);
	sodium_bin2base64(ret, SIGNED_TEXT_MAC_CHARS + 1, mac, sizeof(mac), BASE64);
}

size_t signed_text_sign(const uint8_t key[SIGNED_TEXT_KEY_BYTES], const char *session, char *text,
			size_t size)
{
	make_mac(key, session, text, size, text + size + 1);
	text[size] = '.';
	return size + 1 + SIGNED_TEXT_MAC_CHARS;
}

bool signed_text_check(const uint8_t key[SIGNED_TEXT_KEY_BYTES], const char *session,
		       const char *text, char *ret, size_t max)
{
	size_t size = strnlen(text, max);
	if (size >= max || size < SIGNED_TEXT_MAC_CHARS + 1)
		return false;
	size_t fields_size = size - SIGNED_TEXT_MAC_CHARS - 1;
	char mac[SIGNED_TEXT_MAC_CHARS + 1];
	make_mac(key, session, text, fields_size, mac);
	if (text[fields_size] != '.' ||
	    sodium_memcmp(mac, text + fields_size + 1, SIGNED_TEXT_MAC_CHARS) != 0)
		return false;
	memcpy(ret, text, fields_size);
	ret[fields_size] = '\0';
	return true;
}

void signed_text_encode(const char *field, char *ret, size_t max)
{
	sodium_bin2base64(ret, max, (const uint8_t *)field, strlen(field), BASE64);
}

bool signed_text_decode(const char *encoded, char *ret, size_t max)
{
	size_t size = 0;
	if (sodium_base642bin((uint8_t *)ret, max - 1, encoded, strlen(encoded), NULL, &size, NULL,
			      BASE64) != 0)
		return false;
	ret[size] = '\0';
	return true;
}
