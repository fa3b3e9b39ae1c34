/* signed_text.h -- texts that only who has the key can have written, each for one session: the stream's cookie,
 * tickets. They are FIELDS.MAC, fit for a cookie and for a URL: the MAC is HMAC-SHA-512-256 over the session's id, a
 * 0 byte and FIELDS, in base64url without padding. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIGNED_TEXT_KEY_BYTES 32
#define SIGNED_TEXT_MAC_CHARS 43

/* A key for one purpose alone, made of the store's. */
void signed_text_key(const uint8_t store_key[SIGNED_TEXT_KEY_BYTES], const char *purpose,
		     uint8_t ret[SIGNED_TEXT_KEY_BYTES]);

/* Puts ".", the MAC and a 0 behind the size bytes of FIELDS at text, which has room for them. Returns the length
 * of the whole. */
size_t signed_text_sign(const uint8_t key[SIGNED_TEXT_KEY_BYTES], const char *session, char *text,
			size_t size);

/* Copies FIELDS, 0-terminated, into the max bytes at ret when the MAC is right. False: it is not, or the whole text
 * would not fit. Compares in constant time. */
bool signed_text_check(const uint8_t key[SIGNED_TEXT_KEY_BYTES], const char *session,
		       const char *text, char *ret, size_t max);

/* A field that may hold any character, as base64url and back, both 0-terminated. max: bytes at ret; what does not fit
 * is false, and our own mistake when it is encoded. */
void signed_text_encode(const char *field, char *ret, size_t max);
bool signed_text_decode(const char *encoded, char *ret, size_t max);
