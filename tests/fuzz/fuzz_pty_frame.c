/* fuzz_pty_frame.c -- a message that decodes is written byte for byte the same again, and every
 * field is inside its limits. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>

#include "wire/pty_frame.h"

static void check_strings(const struct pty_strings *strings)
{
	require(strings->count <= PTY2_STRINGS_MAX);
	uint8_t *again = exactly(strings->size);
	size_t at = 0, written = 0, count = 0;
	struct pty_span string;
	while (pty_strings_next(strings, &at, &string) == 1) {
		require(string.size == 0 || memchr(string.data, '\0', string.size) == NULL);
		written += pty_strings_append(again + written, string.data, string.size);
		count++;
	}
	require(count == strings->count && at == strings->size);
	require(written == strings->size && memcmp(again, strings->data, written) == 0);
	free(again);
}

static void check_limits(const struct pty_frame *f)
{
	switch (f->type) {
	case PTY_RESIZE:
	case PTY2_RESIZE:
		require(f->resize.cols > 0 && f->resize.rows > 0);
		break;
	case PTY2_OPEN:
		require(f->open.id.size <= PTY2_ID_BYTES_MAX);
		require(f->open.cols > 0 && f->open.rows > 0);
		require(f->open.cwd.size + f->open.argv.size + f->open.env.size <=
			PTY2_STRINGS_BYTES_MAX);
		check_strings(&f->open.argv);
		check_strings(&f->open.env);
		break;
	case PTY2_ATTACH:
		require(f->attach.id.size <= PTY2_ID_BYTES_MAX);
		break;
	case PTY2_INPUT:
		require(f->input.bytes.size <= PTY2_INPUT_BYTES_MAX);
		break;
	case PTY2_OPENED:
		require(f->opened.token.size <= PTY2_TOKEN_BYTES_MAX);
		break;
	case PTY2_ATTACHED:
		require(f->attached.cols > 0 && f->attached.rows > 0);
		break;
	case PTY2_SIZE:
		require(f->size.cols > 0 && f->size.rows > 0);
		break;
	default:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *message = exact_copy(data, size);
	struct pty_frame frame;
	int rc = pty_frame_decode(message, size, &frame);
	if (rc == 0) {
		check_limits(&frame);
		size_t encoded_size = pty_frame_size(&frame);
		require(encoded_size <= size); /* what is behind fixed fields is ignored */
		uint8_t *encoded = exactly(encoded_size);
		require(pty_frame_encode(&frame, encoded) == encoded_size);
		require(memcmp(encoded, message, encoded_size) == 0);
		free(encoded);
	} else {
		require(rc == -EBADMSG || rc == -ENOTSUP);
	}
	free(message);
	return 0;
}
