/* test_queue.c -- agent/queue.h: order, growth and wrapping. */
#include "tests/unit/wire/test.h"

#include <errno.h>

#include "agent/queue.h"

static uint8_t byte_at(size_t position)
{
	return (uint8_t)(position * 7 + position / 256);
}

/* Takes size bytes and checks that they are those from position on. */
static void take(struct queue *q, size_t position, size_t size)
{
	struct iovec spans[2];
	int count = queue_spans(q, spans);
	size_t left = size;
	for (int i = 0; i < count; i++) {
		const uint8_t *at = spans[i].iov_base;
		for (size_t j = 0; j < spans[i].iov_len && left > 0; j++, left--)
			assert_int_equal(at[j], byte_at(position++));
	}
	assert_int_equal(left, 0);
	queue_drop(q, size);
}

static void put(struct queue *q, size_t position, size_t size)
{
	uint8_t *bytes = malloc(size + 1);
	assert_non_null(bytes);
	for (size_t i = 0; i < size; i++)
		bytes[i] = byte_at(position + i);
	assert_int_equal(queue_append(q, bytes, size), 0);
	free(bytes);
}

static void gives_back_what_was_put_in_order(void **state)
{
	(void)state;
	struct queue q = { 0 };
	size_t written = 0, read = 0;
	unsigned random = 1;
	for (int i = 0; i < 20000; i++) {
		random = random * 1664525 + 1013904223;
		size_t size = (random >> 8) % 3000;
		if (random >> 31 || q.size < size) {
			put(&q, written, size);
			written += size;
		} else {
			take(&q, read, size);
			read += size;
		}
		assert_int_equal(q.size, written - read);
	}
	take(&q, read, q.size);
	assert_int_equal(q.size, 0);
	queue_fini(&q);
}

static void an_empty_queue_holds_little_memory(void **state)
{
	(void)state;
	struct queue q = { 0 };
	put(&q, 0, 1 << 20);
	assert_true(q.capacity >= 1 << 20);
	take(&q, 0, 1 << 20);
	assert_null(q.bytes);
	put(&q, 0, 10);
	take(&q, 0, 10);
	assert_true(q.capacity <= 4096); /* kept: keystrokes come one after the other */
	queue_fini(&q);
	queue_fini(&q);
}

static void refuses_what_no_memory_holds(void **state)
{
	(void)state;
	struct queue q = { 0 };
	put(&q, 0, 3);
	assert_int_equal(queue_reserve(&q, SIZE_MAX), -ENOMEM);
	assert_int_equal(queue_reserve(&q, SIZE_MAX / 4), -ENOMEM);
	take(&q, 0, 3);
	queue_fini(&q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gives_back_what_was_put_in_order),
		cmocka_unit_test(an_empty_queue_holds_little_memory),
		cmocka_unit_test(refuses_what_no_memory_holds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
