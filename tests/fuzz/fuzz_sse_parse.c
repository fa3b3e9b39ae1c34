/* fuzz_sse_parse.c -- the same events come of the same bytes, however they are cut, and nothing outside its
 * limits. The first byte says how they are cut and how much one event may have. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>

#include "wire/sse_parse.h"

/* What was told, as one text to be compared: name, NUL, data, NUL, ... */
struct told {
	uint8_t *bytes; /* room for all that the input can say */
	size_t size, room, max_bytes;
	unsigned events, stop_at;
};

static bool tell(void *arg, const char *name, const char *data, size_t data_size)
{
	struct told *t = arg;
	size_t name_size = strlen(name);
	require(data[data_size] == '\0' && data_size <= t->max_bytes && name_size < 64);
	require(t->size + name_size + data_size + 2 <= t->room);
	memcpy(t->bytes + t->size, name, name_size + 1);
	t->size += name_size + 1;
	memcpy(t->bytes + t->size, data, data_size + 1);
	t->size += data_size + 1;
	return ++t->events != t->stop_at;
}

/* Feeds it in pieces of at most step bytes. Returns the first error. */
static int parse(const uint8_t *data, size_t size, size_t step, struct told *t)
{
	struct sse_parser p;
	int rc = 0;
	sse_parser_init(&p, t->max_bytes);
	for (size_t at = 0; at < size && rc == 0;) {
		size_t n = size - at < step ? size - at : step;
		char *piece = exact_copy(data + at, n);
		rc = sse_parser_feed(&p, piece, n, tell, t);
		free(piece);
		at += n;
	}
	require(rc == 0 || rc == -EMSGSIZE || rc == -ECANCELED);
	if (rc < 0) /* and nothing more comes of it */
		require(sse_parser_feed(&p, "data:x\n\n", 8, tell, t) < 0);
	sse_parser_fini(&p);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const size_t limits[] = { 8, 64, 300, 1u << 20 };
	if (size == 0)
		return 0;
	size_t step = (data[0] >> 2 & 7u) + 1, max_bytes = limits[data[0] & 3];
	unsigned stop_at = data[0] >> 5; /* 0: at none */
	data++;
	size--;
	struct told whole = { .room = 2 * size + 2, .max_bytes = max_bytes, .stop_at = stop_at };
	struct told pieces = whole;
	whole.bytes = exactly(whole.room);
	pieces.bytes = exactly(pieces.room);
	int rc = parse(data, size, size + 1, &whole);
	require(parse(data, size, step, &pieces) == rc);
	require(whole.events == pieces.events && whole.size == pieces.size);
	require(memcmp(whole.bytes, pieces.bytes, whole.size) == 0);
	free(whole.bytes);
	free(pieces.bytes);
	return 0;
}
