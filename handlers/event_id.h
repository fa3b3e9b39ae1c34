/* event_id.h -- EPOCH:OFFSET, the id of an event, as a client gives it back. Pure. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* 16 lower-case hex digits, a colon, 1 to 19 digits. False for anything else, *epoch and *offset
 * untouched. */
bool event_id_parse(const char *text, uint64_t *epoch, uint64_t *offset);
