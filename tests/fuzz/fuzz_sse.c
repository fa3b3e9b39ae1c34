/* fuzz_sse.c -- a JSON string reads back as the text that went in, however that was cut; an id that
 * parses is written the same again. The first 16 bytes are epoch and offset, the rest is text. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "wire/base64.h"
#include "wire/sse.h"
#include "wire/utf8.h"

static uint8_t hex_value(char c)
{
	const char *digits = "0123456789abcdef";
	const char *found = c != '\0' ? strchr(digits, c) : NULL;
	require(found != NULL);
	return (uint8_t)(found - digits);
}

/* Reads the inside of a JSON string; only what RFC 8259 allows there. Returns the bytes written. */
static size_t json_unescape(uint8_t *out, const char *text, size_t size)
{
	uint8_t *start = out;
	for (size_t i = 0; i < size; i++) {
		require((uint8_t)text[i] >= 0x20 && text[i] != '"');
		if (text[i] != '\\') {
			*out++ = (uint8_t)text[i];
			continue;
		}
		require(++i < size);
		static const char letters[] = "\"\\bfnrt", meanings[] = "\"\\\b\f\n\r\t";
		const char *letter = text[i] != '\0' ? strchr(letters, text[i]) : NULL;
		if (letter != NULL) {
			*out++ = (uint8_t)meanings[letter - letters];
			continue;
		}
		require(text[i] == 'u' && size - i > 4 && text[i + 1] == '0' && text[i + 2] == '0');
		*out++ = (uint8_t)(hex_value(text[i + 3]) << 4 | hex_value(text[i + 4]));
		i += 4;
	}
	return (size_t)(out - start);
}

static void check_escape(const uint8_t *data, size_t size)
{
	char *escaped = exactly(JSON_ESCAPE_BYTES(size));
	size_t escaped_size = json_escape(escaped, data, size);
	require(escaped_size <= JSON_ESCAPE_BYTES(size));
	require(utf8_valid((const uint8_t *)escaped, escaped_size));

	uint8_t *expected = exactly(3 * size);
	size_t expected_size = utf8_replace(expected, data, size);
	uint8_t *back = exactly(escaped_size);
	require(json_unescape(back, escaped, escaped_size) == expected_size);
	require(memcmp(back, expected, expected_size) == 0);
	free(back);
	free(expected);

	/* Two events of one text: cut where no character is. */
	size_t cut = size / 2 - utf8_incomplete_tail(data, size / 2);
	char *pieces = exactly(JSON_ESCAPE_BYTES(size));
	size_t pieces_size = json_escape(pieces, data, cut);
	pieces_size += json_escape(pieces + pieces_size, data + cut, size - cut);
	require(pieces_size == escaped_size && memcmp(pieces, escaped, escaped_size) == 0);
	free(pieces);
	free(escaped);
}

/* The event is its head, then what the encoder of its form makes, then the end. */
static void check_events(uint64_t epoch, uint64_t offset, const uint8_t *data, size_t size)
{
	char head[128];
	size_t room = SSE_OUTPUT_BYTES(size);
	char *event = exactly(room), *expected = exactly(room);

	size_t event_size = sse_output_text(event, epoch, offset, data, size);
	int head_size = snprintf(head, sizeof(head),
				 "id: %016" PRIx64 ":%" PRIu64
				 "\nevent: output\ndata: {\"data\":\"",
				 epoch, offset);
	require(event_size <= room && memcmp(event, head, (size_t)head_size) == 0);
	size_t inside = json_escape(expected, data, size);
	require(event_size == (size_t)head_size + inside + 4);
	require(memcmp(event + head_size, expected, inside) == 0);
	require(memcmp(event + event_size - 4, "\"}\n\n", 4) == 0);

	event_size = sse_output_base64(event, epoch, offset, data, size);
	head_size = snprintf(head, sizeof(head),
			     "id: %016" PRIx64 ":%" PRIu64 "\nevent: output\ndata: {\"base64\":\"",
			     epoch, offset);
	require(event_size <= room && memcmp(event, head, (size_t)head_size) == 0);
	inside = base64_encode(expected, data, size);
	require(event_size == (size_t)head_size + inside + 4);
	require(memcmp(event + head_size, expected, inside) == 0);
	require(memcmp(event + event_size - 4, "\"}\n\n", 4) == 0);

	free(expected);
	free(event);
}

static void check_id(const char *text, size_t size)
{
	uint64_t epoch = 1, offset = 2;
	if (sse_id_parse(text, size, &epoch, &offset) < 0) {
		require(epoch == 1 && offset == 2);
		return;
	}
	char again[64];
	int again_size = snprintf(again, sizeof(again), "%016" PRIx64 ":%" PRIu64, epoch, offset);
	require(again_size == (int)size && memcmp(again, text, size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_id((const char *)data, size);
	uint64_t epoch = 0, offset = 0;
	if (size >= 16) {
		memcpy(&epoch, data, 8);
		memcpy(&offset, data + 8, 8);
		data += 16;
		size -= 16;
	}
	check_escape(data, size);
	check_events(epoch, offset, data, size);
	return 0;
}
