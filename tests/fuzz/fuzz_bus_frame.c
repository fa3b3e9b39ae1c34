/* fuzz_bus_frame.c -- a message that decodes is written byte for byte the same again, and every field is
 * inside its limits; so is a text of any length once it was written. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>

#include "wire/bus_frame.h"
#include "wire/utf8.h"

static void check_text(struct bus_text text)
{
	require(text.size <= BUS_TEXT_MAX);
	require((text.bytes == NULL) == (text.size == 0));
}

static void check_items(const struct bus_output *output)
{
	struct bus_items again = { 0 };
	uint64_t reached = output->start;
	size_t at = 0, total = 0;
	struct bus_item item;
	while (bus_item_next(output, &at, &item)) {
		require(item.offset >= reached);
		reached = item.offset + item.size;
		require(reached >= item.offset);
		total += item.size;
		if (item.data != NULL) {
			require(item.size > 0);
			require(bus_items_add_output(&again, item.offset, item.data, item.size) ==
				0);
		} else {
			require(item.size == 0 && item.cols > 0 && item.rows > 0);
			int rc = bus_items_add_size(&again, item.offset, item.cols, item.rows);
			if (rc == -EMSGSIZE) { /* nobody sends as many, but they can be read */
				bus_items_fini(&again);
				return;
			}
			require(rc == 0);
		}
	}
	require(at == output->items_size && total <= BUS_PIECE_BYTES);
	require(again.output_bytes == total && again.size == output->items_size);
	require(again.size == 0 || memcmp(again.data, output->items, again.size) == 0);
	bus_items_fini(&again);
}

static void check_limits(const struct bus_frame *f)
{
	size_t id_size = strnlen(f->head.session, sizeof(f->head.session));
	require(id_size > 0 && id_size <= BUS_SESSION_MAX);
	switch (f->head.type) {
	case BUS_CALL:
		require(f->call.kind >= BUS_CALL_INPUT && f->call.kind < BUS_CALL_END);
		require(f->call.kind != BUS_CALL_INPUT || f->call.seq != 0);
		require(f->call.kind != BUS_CALL_RESIZE || (f->call.cols > 0 && f->call.rows > 0));
		break;
	case BUS_WELCOME:
	case BUS_BEAT:
		require(f->card.cols > 0 && f->card.rows > 0);
		check_text(f->card.reason);
		check_text(f->card.error);
		check_text(f->card.ended_json);
		check_text(f->card.exit_json);
		require(f->card.steps_count <= BUS_STEPS_MAX);
		for (unsigned i = 0; i < f->card.steps_count; i++)
			check_text(f->card.steps[i].name);
		break;
	case BUS_PIECE:
	case BUS_OUTPUT:
		require(f->output.cols > 0 && f->output.rows > 0);
		check_items(&f->output);
		break;
	case BUS_ANSWER:
		check_text(f->answer.slug);
		check_text(f->answer.detail);
		break;
	default:
		require(f->head.type > 0 && f->head.type < BUS_TYPE_END);
		break;
	}
}

static void check_long_text(const uint8_t *data, size_t size)
{
	if (size > UINT16_MAX)
		size = UINT16_MAX;
	struct bus_frame frame = { .head = { .type = BUS_ANSWER, .session = "s" } };
	frame.answer.detail = (struct bus_text){ (const char *)data, (uint16_t)size };
	size_t encoded_size = 0;
	uint8_t *encoded = bus_frame_encode(&frame, &encoded_size);
	require(encoded != NULL);
	struct bus_frame again;
	require(bus_frame_decode(encoded, encoded_size, &again) == 0);
	struct bus_text text = again.answer.detail;
	check_text(text);
	require(text.size <= size && (size > BUS_TEXT_MAX || text.size == size));
	require(size <= BUS_TEXT_MAX || text.size > BUS_TEXT_MAX - UTF8_BYTES_MAX);
	require(text.size == 0 || memcmp(text.bytes, data, text.size) == 0);
	require(!utf8_valid(data, size) || utf8_valid((const uint8_t *)text.bytes, text.size));
	free(encoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *message = exact_copy(data, size);
	struct bus_frame frame;
	int rc = bus_frame_decode(message, size, &frame);
	if (rc == 0) {
		check_limits(&frame);
		size_t encoded_size = 0;
		uint8_t *encoded = bus_frame_encode(&frame, &encoded_size);
		require(encoded != NULL && encoded_size == size);
		require(memcmp(encoded, message, size) == 0);
		free(encoded);
	} else {
		require(rc == -EBADMSG || (rc == -EPROTO && data[0] != BUS_VERSION));
	}
	check_long_text(message, size);
	free(message);
	return 0;
}
