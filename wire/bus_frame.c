/* bus_frame.c -- take_fields() and put_fields() name the fields of each type in the same order. There is one
 * way to write a message: what decodes is written byte for byte again. */
#include "wire/bus_frame.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "wire/fields.h"
#include "wire/utf8.h"

/* The flags of a card: one byte. */
#define CARD_READY 0x01
#define CARD_ATTACHED 0x02
#define CARD_KEEPS 0x04
#define CARD_FINAL 0x08
#define CARD_FAILED_START 0x10
#define CARD_FLAGS 0x1f

/* --- reading --- */

static struct bus_text take_text(struct fields_reader *r)
{
	uint16_t size = take_u16(r);
	r->bad |= size > BUS_TEXT_MAX;
	const uint8_t *bytes = take(r, size);
	if (r->bad || size == 0)
		return (struct bus_text){ 0 };
	return (struct bus_text){ (const char *)bytes, size };
}

static bool is_id_byte(uint8_t c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '-';
}

static void take_head(struct fields_reader *r, struct bus_head *head)
{
	uint8_t type = take_u8(r);
	struct bus_text id = take_text(r);
	r->bad |= type == 0 || type >= BUS_TYPE_END || id.size == 0 || id.size > BUS_SESSION_MAX;
	for (size_t i = 0; i < id.size && !r->bad; i++)
		r->bad = !is_id_byte((uint8_t)id.bytes[i]);
	if (r->bad)
		return;
	head->type = type;
	memcpy(head->session, id.bytes, id.size);
	head->sender = take_u64(r);
	head->birth = take_u64(r);
	head->number = take_u64(r);
}

static void take_call(struct fields_reader *r, struct bus_call *call)
{
	call->request = take_u64(r);
	uint8_t kind = take_u8(r);
	call->kind = kind;
	switch (kind) {
	case BUS_CALL_INPUT:
		memcpy(call->client, take(r, INPUT_CLIENT_BYTES), INPUT_CLIENT_BYTES);
		call->seq = take_u64(r);
		r->bad |= call->seq == 0;
		call->size = r->left;
		call->bytes = take(r, r->left);
		break;
	case BUS_CALL_RESIZE:
		take_cells(r, &call->cols, &call->rows);
		break;
	case BUS_CALL_SIGNAL:
		call->signal = (int32_t)take_u32(r);
		break;
	case BUS_CALL_CLOSE:
	case BUS_CALL_FORGET:
		break;
	default:
		r->bad = true;
	}
}

static void take_card(struct fields_reader *r, struct bus_card *card)
{
	card->request = take_u64(r);
	card->state = take_u8(r);
	uint8_t flags = take_u8(r);
	r->bad |= (flags & ~CARD_FLAGS) != 0;
	card->ready = (flags & CARD_READY) != 0;
	card->attached = (flags & CARD_ATTACHED) != 0;
	card->keeps = (flags & CARD_KEEPS) != 0;
	card->final = (flags & CARD_FINAL) != 0;
	card->failed_start = (flags & CARD_FAILED_START) != 0;
	card->epoch = take_u64(r);
	card->oldest = take_u64(r);
	card->head = take_u64(r);
	card->replayed = take_u64(r);
	take_cells(r, &card->cols, &card->rows);
	card->reason = take_text(r);
	card->error = take_text(r);
	card->ended_json = take_text(r);
	card->exit_json = take_text(r);
	card->steps_count = take_u8(r);
	if (card->steps_count > BUS_STEPS_MAX) {
		r->bad = true;
		return;
	}
	for (unsigned i = 0; i < card->steps_count; i++) {
		card->steps[i].name = take_text(r);
		card->steps[i].ms = take_u32(r);
	}
}

static void take_output(struct fields_reader *r, struct bus_output *output)
{
	output->request = take_u64(r);
	output->epoch = take_u64(r);
	output->start = take_u64(r);
	output->head = take_u64(r);
	take_cells(r, &output->cols, &output->rows);
	output->items = r->at;
	output->items_size = r->left;

	uint64_t reached = output->start;
	size_t at = 0, output_bytes = 0;
	struct bus_item item;
	while (!r->bad && bus_item_next(output, &at, &item)) {
		output_bytes += item.size;
		r->bad |= item.offset < reached || output_bytes > BUS_PIECE_BYTES;
		reached = item.offset + item.size;
	}
	take(r, at);
}

static void take_answer(struct fields_reader *r, struct bus_answer *answer)
{
	answer->request = take_u64(r);
	answer->status = take_u16(r);
	answer->retry_after_s = take_u32(r);
	answer->expected = take_u64(r);
	answer->slug = take_text(r);
	answer->detail = take_text(r);
}

static void take_fields(struct fields_reader *r, struct bus_frame *f)
{
	switch (f->head.type) {
	case BUS_REGISTER:
		f->reg.request = take_u64(r);
		f->reg.watches = take_bool(r);
		f->reg.epoch = take_u64(r);
		f->reg.received = take_u64(r);
		f->reg.fastest = take_u64(r);
		f->reg.slowest = take_u64(r);
		break;
	case BUS_PULL:
		f->pull.request = take_u64(r);
		f->pull.epoch = take_u64(r);
		f->pull.offset = take_u64(r);
		break;
	case BUS_CALL:
		take_call(r, &f->call);
		break;
	case BUS_WELCOME:
	case BUS_BEAT:
		take_card(r, &f->card);
		break;
	case BUS_PIECE:
	case BUS_OUTPUT:
		take_output(r, &f->output);
		break;
	case BUS_ANSWER:
		take_answer(r, &f->answer);
		break;
	case BUS_LEAVE:
	case BUS_GONE:
	case BUS_CLAIM:
	case BUS_TYPE_END:
		break;
	}
}

int bus_frame_decode(const uint8_t *data, size_t size, struct bus_frame *ret)
{
	if (size == 0)
		return -EBADMSG;
	if (data[0] != BUS_VERSION)
		return -EPROTO;
	if (size > BUS_FRAME_BYTES_MAX)
		return -EBADMSG;
	struct fields_reader r = { .at = data + 1, .left = size - 1 };
	struct bus_frame frame = { 0 };
	take_head(&r, &frame.head);
	if (!r.bad)
		take_fields(&r, &frame);
	if (r.bad || r.left > 0)
		return -EBADMSG;
	*ret = frame;
	return 0;
}

/* --- writing --- */

static void put_text(struct fields_writer *w, struct bus_text text)
{
	size_t size = text.bytes == NULL ? 0 : text.size;
	if (size > BUS_TEXT_MAX)
		size = BUS_TEXT_MAX -
		       utf8_incomplete_tail((const uint8_t *)text.bytes, BUS_TEXT_MAX);
	put_u16(w, (uint16_t)size);
	put(w, text.bytes, size);
}

static void put_call(struct fields_writer *w, const struct bus_call *call)
{
	put_u64(w, call->request);
	put_u8(w, (uint8_t)call->kind);
	switch (call->kind) {
	case BUS_CALL_INPUT:
		assert(call->seq != 0);
		put(w, call->client, INPUT_CLIENT_BYTES);
		put_u64(w, call->seq);
		put(w, call->bytes, call->size);
		break;
	case BUS_CALL_RESIZE:
		put_cells(w, call->cols, call->rows);
		break;
	case BUS_CALL_SIGNAL:
		put_u32(w, (uint32_t)call->signal);
		break;
	case BUS_CALL_CLOSE:
	case BUS_CALL_FORGET:
	case BUS_CALL_END:
		break;
	}
}

static void put_card(struct fields_writer *w, const struct bus_card *card)
{
	put_u64(w, card->request);
	put_u8(w, card->state);
	put_u8(w, (uint8_t)((card->ready ? CARD_READY : 0) | (card->attached ? CARD_ATTACHED : 0) |
			    (card->keeps ? CARD_KEEPS : 0) | (card->final ? CARD_FINAL : 0) |
			    (card->failed_start ? CARD_FAILED_START : 0)));
	put_u64(w, card->epoch);
	put_u64(w, card->oldest);
	put_u64(w, card->head);
	put_u64(w, card->replayed);
	put_cells(w, card->cols, card->rows);
	put_text(w, card->reason);
	put_text(w, card->error);
	put_text(w, card->ended_json);
	put_text(w, card->exit_json);
	assert(card->steps_count <= BUS_STEPS_MAX);
	put_u8(w, (uint8_t)card->steps_count);
	for (unsigned i = 0; i < card->steps_count; i++) {
		put_text(w, card->steps[i].name);
		put_u32(w, card->steps[i].ms);
	}
}

static void put_fields(struct fields_writer *w, const struct bus_frame *f)
{
	switch (f->head.type) {
	case BUS_REGISTER:
		put_u64(w, f->reg.request);
		put_u8(w, f->reg.watches);
		put_u64(w, f->reg.epoch);
		put_u64(w, f->reg.received);
		put_u64(w, f->reg.fastest);
		put_u64(w, f->reg.slowest);
		break;
	case BUS_PULL:
		put_u64(w, f->pull.request);
		put_u64(w, f->pull.epoch);
		put_u64(w, f->pull.offset);
		break;
	case BUS_CALL:
		put_call(w, &f->call);
		break;
	case BUS_WELCOME:
	case BUS_BEAT:
		put_card(w, &f->card);
		break;
	case BUS_PIECE:
	case BUS_OUTPUT:
		put_u64(w, f->output.request);
		put_u64(w, f->output.epoch);
		put_u64(w, f->output.start);
		put_u64(w, f->output.head);
		put_cells(w, f->output.cols, f->output.rows);
		put(w, f->output.items, f->output.items_size);
		break;
	case BUS_ANSWER:
		put_u64(w, f->answer.request);
		put_u16(w, f->answer.status);
		put_u32(w, f->answer.retry_after_s);
		put_u64(w, f->answer.expected);
		put_text(w, f->answer.slug);
		put_text(w, f->answer.detail);
		break;
	case BUS_LEAVE:
	case BUS_GONE:
	case BUS_CLAIM:
	case BUS_TYPE_END:
		break;
	}
}

static void put_frame(struct fields_writer *w, const struct bus_frame *f)
{
	size_t id_size = strnlen(f->head.session, sizeof(f->head.session));
	assert(id_size > 0 && id_size <= BUS_SESSION_MAX);
	put_u8(w, BUS_VERSION);
	put_u8(w, (uint8_t)f->head.type);
	put_text(w, (struct bus_text){ f->head.session, (uint16_t)id_size });
	put_u64(w, f->head.sender);
	put_u64(w, f->head.birth);
	put_u64(w, f->head.number);
	put_fields(w, f);
}

uint8_t *bus_frame_encode(const struct bus_frame *frame, size_t *size)
{
	struct fields_writer counter = { 0 };
	put_frame(&counter, frame);
	assert(counter.size <= BUS_FRAME_BYTES_MAX);
	uint8_t *out = malloc(counter.size);
	if (out == NULL)
		return NULL;
	struct fields_writer w = { .at = out };
	put_frame(&w, frame);
	*size = w.size;
	return out;
}
