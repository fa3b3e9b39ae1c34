/* test_base64.c -- base64.h: the vectors of RFC 4648, and what is not base64. */
#include "tests/unit/wire/test.h"

#include "tests/fuzz/fuzz_base64.c" /* the fuzz target itself */

static const struct {
	const char *bytes, *text;
} rfc4648_vectors[] = {
	{ "", "" },
	{ "f", "Zg==" },
	{ "fo", "Zm8=" },
	{ "foo", "Zm9v" },
	{ "foob", "Zm9vYg==" },
	{ "fooba", "Zm9vYmE=" },
	{ "foobar", "Zm9vYmFy" },
};

static void encodes_the_vectors_of_rfc_4648(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(rfc4648_vectors); i++) {
		const char *bytes = rfc4648_vectors[i].bytes, *text = rfc4648_vectors[i].text;
		char out[16];
		assert_int_equal(BASE64_CHARS(strlen(bytes)), strlen(text));
		assert_int_equal(base64_encode(out, (const uint8_t *)bytes, strlen(bytes)),
				 strlen(text));
		assert_memory_equal(out, text, strlen(text));
	}
}

static void decodes_the_vectors_of_rfc_4648(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(rfc4648_vectors); i++) {
		const char *bytes = rfc4648_vectors[i].bytes, *text = rfc4648_vectors[i].text;
		uint8_t out[16];
		assert_int_equal(base64_decode(out, text, strlen(text)), strlen(bytes));
		assert_memory_equal(out, bytes, strlen(bytes));
	}
}

static void uses_all_64_characters_in_their_order(void **state)
{
	(void)state;
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint8_t bytes[48];
	for (unsigned i = 0; i < 16; i++) {
		unsigned bits = (4 * i) << 18 | (4 * i + 1) << 12 | (4 * i + 2) << 6 | (4 * i + 3);
		bytes[3 * i] = (uint8_t)(bits >> 16);
		bytes[3 * i + 1] = (uint8_t)(bits >> 8);
		bytes[3 * i + 2] = (uint8_t)bits;
	}
	char text[64];
	assert_int_equal(base64_encode(text, bytes, sizeof(bytes)), sizeof(text));
	assert_memory_equal(text, alphabet, sizeof(text));
	uint8_t back[48];
	assert_int_equal(base64_decode(back, alphabet, 64), sizeof(back));
	assert_memory_equal(back, bytes, sizeof(back));
}

static void gives_back_random_bytes_of_every_length(void **state)
{
	(void)state;
	uint8_t data[300];
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 167 + 13);
	for (size_t size = 0; size <= sizeof(data); size++)
		round_trip(data, size);
}

static void refuses_what_no_encoder_writes(void **state)
{
	(void)state;
	static const char *const texts[] = {
		"Z",        "Zg",       "Zg=",      "Zg===",      "====",         "=",    "Z===",
		"Zg==Zg==", "Zm9vZ===", "Zm9v====", "Zm 9",       "Zm9v\n\n\n\n", "Zm9-", "Zm9_",
		"Zh==",     "Zm9=",     "Zm9vYh==", "Z\xc3\xa4v", "Zm=v",         "=m9v", "Zm9,",
	};
	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		uint8_t out[16];
		assert_int_equal(base64_decode(out, texts[i], strlen(texts[i])), -EBADMSG);
	}
	uint8_t out[3];
	assert_int_equal(base64_decode(out, "Zm\0v", 4), -EBADMSG);
}

static void replays_its_corpus(void **state)
{
	(void)state;
	replay_corpus("base64", LLVMFuzzerTestOneInput);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(encodes_the_vectors_of_rfc_4648),
		cmocka_unit_test(decodes_the_vectors_of_rfc_4648),
		cmocka_unit_test(uses_all_64_characters_in_their_order),
		cmocka_unit_test(gives_back_random_bytes_of_every_length),
		cmocka_unit_test(refuses_what_no_encoder_writes),
		cmocka_unit_test(replays_its_corpus),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
