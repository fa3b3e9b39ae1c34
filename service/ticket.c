/* ticket.c -- see ticket.h. */
#include "service/ticket.h"

#include <assert.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BASE64 sodium_base64_VARIANT_URLSAFE_NO_PADDING
#define NONCE_CHARS 16
#define SUBJECT_CHARS (((SUBJECT_BYTES - 1) * 4 + 2) / 3)
/* "t1.write.once.", twice 19 digits and a dot, the rest with their dots and the 0. */
static_assert(14 + 2 * 20 + NONCE_CHARS + 1 + SUBJECT_CHARS + 1 + SIGNED_TEXT_MAC_CHARS + 1 <=
		      TICKET_BYTES,
	      "the longest ticket");

size_t ticket_write(const uint8_t key[SIGNED_TEXT_KEY_BYTES], const char *session,
		    const struct ticket *t, char ret[TICKET_BYTES])
{
	assert(t->role == ROLE_VIEW || t->role == ROLE_WRITE);
	char nonce[NONCE_CHARS + 1], subject[SUBJECT_CHARS + 1];
	sodium_bin2base64(nonce, sizeof(nonce), t->nonce, sizeof(t->nonce), BASE64);
	signed_text_encode(t->subject, subject, sizeof(subject));
	size_t size = (size_t)snprintf(ret, TICKET_BYTES, "t1.%s.%s.%" PRId64 ".%" PRId64 ".%s.%s",
				       role_name(t->role), t->reusable ? "many" : "once",
				       t->expires_ms, t->until_ms, nonce, subject);
	return signed_text_sign(key, session, ret, size);
}

bool ticket_read(const uint8_t key[SIGNED_TEXT_KEY_BYTES], const char *session, const char *text,
		 struct ticket *ret)
{
	char fields[TICKET_BYTES];
	if (!signed_text_check(key, session, text, fields, sizeof(fields)))
		return false;
	/* From here on it is a text of our own, perhaps of another version. */
	char *rest = fields;
	const char *version = strsep(&rest, "."), *role = strsep(&rest, ".");
	const char *use = strsep(&rest, "."), *expires = strsep(&rest, ".");
	const char *until = strsep(&rest, "."), *nonce = strsep(&rest, ".");
	const char *subject = strsep(&rest, ".");
	if (subject == NULL || strcmp(version, "t1") != 0)
		return false;
	struct ticket t = { .role = strcmp(role, "write") == 0 ? ROLE_WRITE : ROLE_VIEW,
			    .reusable = strcmp(use, "many") == 0,
			    .expires_ms = strtoll(expires, NULL, 10),
			    .until_ms = strtoll(until, NULL, 10) };
	size_t nonce_size = 0;
	if (sodium_base642bin(t.nonce, sizeof(t.nonce), nonce, strlen(nonce), NULL, &nonce_size,
			      NULL, BASE64) != 0 ||
	    nonce_size != sizeof(t.nonce) ||
	    !signed_text_decode(subject, t.subject, sizeof(t.subject)))
		return false;
	*ret = t;
	return true;
}
