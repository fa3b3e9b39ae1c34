/* base64.h -- RFC 4648 base64, standard alphabet with padding, fast enough for the byte stream. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BASE64_CHARS(bytes) (((bytes) + 2) / 3 * 4)

/* Writes BASE64_CHARS(size) characters, not 0-terminated; returns that number. */
size_t base64_encode(char *out, const uint8_t *data, size_t size);

/* Decodes text of size characters; padding is required, no white space is allowed, and the bits
 * that padding cuts off have to be 0: each string of bytes has one text only. out holds
 * size / 4 * 3 bytes; on failure some may be written. Returns the bytes written or -EBADMSG. */
ssize_t base64_decode(uint8_t *out, const char *text, size_t size);
