/* bus_items.c -- the parts of the journal in a PIECE or OUTPUT: see bus_frame.h. */
#include "wire/bus_frame.h"

#include <errno.h>
#include <stdlib.h>

#include "wire/fields.h"

#define ITEM_OUTPUT 1
#define ITEM_SIZE 2
#define ITEM_OUTPUT_HEAD_BYTES 13
#define ITEM_SIZE_BYTES 13
#define ITEMS_FIRST_BYTES 512
/* BUS_PIECE_BYTES of output byte by byte, and room for changes of size between. */
#define ITEMS_BYTES_MAX (1u << 20)

static void take_item(struct fields_reader *r, struct bus_item *item)
{
	uint8_t kind = take_u8(r);
	*item = (struct bus_item){ .offset = take_u64(r) };
	if (kind == ITEM_OUTPUT) {
		item->size = take_u32(r);
		item->data = take(r, item->size);
		r->bad |= item->size == 0 || item->offset > UINT64_MAX - item->size;
	} else if (kind == ITEM_SIZE) {
		take_cells(r, &item->cols, &item->rows);
	} else {
		r->bad = true;
	}
}

static int items_reserve(struct bus_items *items, size_t more)
{
	size_t need = items->size + more;
	if (need > ITEMS_BYTES_MAX)
		return -EMSGSIZE;
	if (need <= items->capacity)
		return 0;
	size_t capacity = items->capacity == 0 ? ITEMS_FIRST_BYTES : items->capacity;
	while (capacity < need)
		capacity *= 2;
	uint8_t *data = realloc(items->data, capacity);
	if (data == NULL)
		return -ENOMEM;
	items->data = data;
	items->capacity = capacity;
	return 0;
}

int bus_items_add_output(struct bus_items *items, uint64_t offset, const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (size > BUS_PIECE_BYTES - items->output_bytes)
		return -EMSGSIZE;
	int rc = items_reserve(items, ITEM_OUTPUT_HEAD_BYTES + size);
	if (rc < 0)
		return rc;
	struct fields_writer w = { .at = items->data + items->size };
	put_u8(&w, ITEM_OUTPUT);
	put_u64(&w, offset);
	put_u32(&w, (uint32_t)size);
	put(&w, data, size);
	items->size += w.size;
	items->output_bytes += size;
	return 0;
}

int bus_items_add_size(struct bus_items *items, uint64_t offset, uint16_t cols, uint16_t rows)
{
	int rc = items_reserve(items, ITEM_SIZE_BYTES);
	if (rc < 0)
		return rc;
	struct fields_writer w = { .at = items->data + items->size };
	put_u8(&w, ITEM_SIZE);
	put_u64(&w, offset);
	put_cells(&w, cols, rows);
	items->size += w.size;
	return 0;
}

void bus_items_fini(struct bus_items *items)
{
	free(items->data);
	*items = (struct bus_items){ 0 };
}

bool bus_item_next(const struct bus_output *output, size_t *at, struct bus_item *ret)
{
	if (*at >= output->items_size)
		return false;
	struct fields_reader r = { .at = output->items + *at, .left = output->items_size - *at };
	struct bus_item item;
	take_item(&r, &item);
	if (r.bad)
		return false;
	*at = output->items_size - r.left;
	*ret = item;
	return true;
}
