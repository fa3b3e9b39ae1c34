/* json_escape.c -- its input as one JSON string, by wire/sse.h.
 *
 *   json_escape [PIECE_BYTES]
 *
 * With PIECE_BYTES it is escaped in pieces of about that many bytes, cut as the events of a stream
 * are: what is incomplete at the end of a piece waits for the next one. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "wire/sse.h"
#include "wire/utf8.h"

static uint8_t *read_all(size_t *ret_size)
{
	uint8_t *data = NULL;
	size_t size = 0, capacity = 0;
	for (;;) {
		if (size == capacity) {
			capacity = capacity == 0 ? 1 << 16 : 2 * capacity;
			data = realloc(data, capacity);
			if (data == NULL)
				abort();
		}
		size_t got = fread(data + size, 1, capacity - size, stdin);
		if (got == 0)
			break;
		size += got;
	}
	*ret_size = size;
	return data;
}

int main(int argc, char **argv)
{
	size_t size;
	uint8_t *data = read_all(&size);
	size_t piece_bytes = argc > 1 ? strtoul(argv[1], NULL, 10) : size;
	char *out = malloc(JSON_ESCAPE_BYTES(size) + 1);
	if (out == NULL || (piece_bytes == 0 && size > 0))
		return 1;

	size_t out_size = 0, start = 0, end = 0;
	while (start < size) {
		end = size - end > piece_bytes ? end + piece_bytes : size;
		size_t tail = end < size ? utf8_incomplete_tail(data + start, end - start) : 0;
		out_size += json_escape(out + out_size, data + start, end - tail - start);
		start = end - tail;
	}
	printf("\"");
	fwrite(out, 1, out_size, stdout);
	printf("\"");
	free(out);
	free(data);
	return fflush(stdout) == 0 && !ferror(stdin) ? 0 : 1;
}
