/* Keys by name, as xterm sends them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "handlers/keys.h"

static void assert_key(const char *name, const char *bytes, size_t size)
{
	uint8_t out[KEY_BYTES_MAX];
	size_t n = key_bytes(name, strlen(name), out);
	assert_int_equal(n, size);
	assert_memory_equal(out, bytes, size);
}
#define KEY(name, bytes) assert_key(name, bytes, sizeof(bytes) - 1)

static void assert_no_key(const char *name, size_t size)
{
	uint8_t out[KEY_BYTES_MAX];
	assert_int_equal(key_bytes(name, size, out), 0);
}

static void knows_keys_by_name(void **state)
{
	(void)state;
	KEY("enter", "\r");
	KEY("tab", "\t");
	KEY("shift-tab", "\x1b[Z");
	KEY("escape", "\x1b");
	KEY("backspace", "\x7f");
	KEY("space", " ");
	KEY("up", "\x1b[A");
	KEY("left", "\x1b[D");
	KEY("home", "\x1b[H");
	KEY("end", "\x1b[F");
	KEY("delete", "\x1b[3~");
	KEY("page-down", "\x1b[6~");
	KEY("f1", "\x1bOP");
	KEY("f4", "\x1bOS");
	KEY("f5", "\x1b[15~");
	KEY("f12", "\x1b[24~");
}

static void control_keys_are_control_characters(void **state)
{
	(void)state;
	KEY("ctrl-a", "\x01");
	KEY("ctrl-c", "\x03");
	KEY("ctrl-z", "\x1a");
	KEY("ctrl-[", "\x1b");
	KEY("ctrl-\\", "\x1c");
	KEY("ctrl-]", "\x1d");
	KEY("ctrl-^", "\x1e");
	KEY("ctrl-_", "\x1f");
	KEY("ctrl-space", "\0");
}

static void a_single_character_is_itself(void **state)
{
	(void)state;
	KEY("a", "a");
	KEY("A", "A");
	KEY("-", "-");
	KEY("\xc3\xa9", "\xc3\xa9");
	KEY("\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80");
}

static void alt_puts_an_escape_in_front(void **state)
{
	(void)state;
	KEY("alt-x", "\x1bx");
	KEY("alt--", "\x1b-");
	KEY("alt-\xf0\x9f\x98\x80", "\x1b\xf0\x9f\x98\x80");
}

static void refuses_what_is_no_key(void **state)
{
	(void)state;
	static const char *const names[] = { "",        "ctrl-",  "ctrl-A", "ctrl-1",
					     "ctrl-cc", "alt-",   "alt-ab", "Enter",
					     "f0",      "f13",    "ab",     "\n",
					     "\r",      "enter ", "ctrl-@", "ctrl-\x01" };
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_no_key(names[i], strlen(names[i]));
	assert_no_key("enter\0", 6);
	assert_no_key("\xc3", 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(knows_keys_by_name),
		cmocka_unit_test(control_keys_are_control_characters),
		cmocka_unit_test(a_single_character_is_itself),
		cmocka_unit_test(alt_puts_an_escape_in_front),
		cmocka_unit_test(refuses_what_is_no_key),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
