/* ticket.h -- tickets as texts: a role on one session for a time, signed, so that every replica that has the key can
 * judge one without asking. Which single-use ones are spent is spent.h's, or the store's. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "service/auth.h"
#include "service/signed_text.h"

#define TICKET_NONCE_BYTES 12

struct ticket {
	enum role role; /* VIEW or WRITE */
	bool reusable;
	int64_t expires_ms; /* Unix time */
	int64_t until_ms;   /* what it opens ends then: with its maker's credential; 0: never */
	uint8_t nonce[TICKET_NONCE_BYTES]; /* random: tells it from all others */
	char subject[SUBJECT_BYTES];
};

/* "t1.ROLE.USE.EXPIRES.UNTIL.NONCE.SUBJECT.MAC": USE is "once" or "many", NONCE and SUBJECT are base64url. Returns its
 * length. */
size_t ticket_write(const uint8_t key[SIGNED_TEXT_KEY_BYTES], const char *session,
		    const struct ticket *t, char ret[TICKET_BYTES]);

/* False: not one that was written with this key for this session. Whether it has expired is not looked at. */
bool ticket_read(const uint8_t key[SIGNED_TEXT_KEY_BYTES], const char *session, const char *text,
		 struct ticket *ret);
