/* event_private.h -- what event.c and event_pty.c share. */
#pragma once

#include "service/event.h"
#include "wire/ws_frame.h"

/* For one event. */
struct event_scratch {
	uint8_t straddling[EVENT_OUTPUT_BYTES]; /* bytes that lie in two pieces of the journal */
	uint8_t filtered[EVENT_OUTPUT_BYTES];
};

/* Puts the header in front of a payload that was written at out + WS_HEADER_BYTES_MAX. Returns the length of
 * the whole. */
size_t event_frame(char *out, enum ws_opcode opcode, size_t payload);

/* Decides where a new viewer starts, and notices when a position does not exist any more. */
void event_settle(const struct feed *feed, enum viewer_format format, struct position *pos);

/* The bytes behind pos, up to end, that may stand in one event: whole characters in formats of text. Returns
 * their number, 0 when there are none yet. *data is good until the next change of journal or scratch. */
size_t event_bytes(struct event_scratch *scratch, const struct feed *feed,
		   enum viewer_format format, const struct position *pos, uint64_t end,
		   const uint8_t **data);

/* Writes the one next event of a format VIEWER_PTY_... behind pos and moves pos. Returns 0 when there is
 * none. */
size_t event_pty_next(struct event_scratch *scratch, char *out, enum viewer_format format,
		      const struct feed *feed, struct position *pos);
