/* sse.h -- Server-Sent Events, as bytes; and the JSON strings inside them, at memory speed.
 * Source: WHATWG HTML section 9.2 (text/event-stream), RFC 8259. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SSE_EPOCH_CHARS 16

/* Room that json_escape may need for size bytes. */
#define JSON_ESCAPE_BYTES(size) ((size)*6)

/* Writes data as the inside of a JSON string: quote, backslash and control characters escaped
 * (\b \t \n \f \r, else \u00xx), everything else as it is, invalid UTF-8 as U+FFFD by the rule of
 * utf8.h. No newline is ever in the result. Runs of plain ASCII go in blocks (SSE2 where there is,
 * 8 bytes at a time elsewhere). Returns the bytes written, at most JSON_ESCAPE_BYTES(size). */
size_t json_escape(char *out, const uint8_t *data, size_t size);

/* Room for one output event over size bytes of journal, text or base64. */
#define SSE_OUTPUT_BYTES(size) (JSON_ESCAPE_BYTES(size) + 128)

/* Write "id: EPOCH:OFFSET\nevent: output\ndata: {"data":"..."}\n\n", or with {"base64":"..."}.
 * offset is the one after the last byte of data. Return the bytes written. */
size_t sse_output_text(char *out, uint64_t epoch, uint64_t offset, const uint8_t *data,
		       size_t size);
size_t sse_output_base64(char *out, uint64_t epoch, uint64_t offset, const uint8_t *data,
			 size_t size);

/* Writes an event with ready-made JSON (one line). With has_id it carries "id: EPOCH:OFFSET".
 * name is at most 32 characters. Returns the bytes written, at most json_size + 128. */
size_t sse_event(char *out, bool has_id, uint64_t epoch, uint64_t offset, const char *name,
		 const char *json, size_t json_size);

/* Reads "EPOCH:OFFSET" (16 lower-case hex digits, a colon, a decimal number below 2^64 without
 * leading zeros: as it is written above) of exactly size characters. Returns 0, or -EBADMSG with
 * the results untouched. */
int sse_id_parse(const char *text, size_t size, uint64_t *epoch, uint64_t *offset);
