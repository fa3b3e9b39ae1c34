/* test_ws_handshake.c -- ws_handshake.h against RFC 6455 and OpenSSL. */
#include "tests/unit/wire/test.h"

#include "tests/fuzz/fuzz_ws_handshake.c" /* the fuzz target itself */

static void answers_the_key_of_rfc_6455(void **state)
{
	(void)state;
	char accept[WS_ACCEPT_CHARS + 1];
	ws_accept("dGhlIHNhbXBsZSBub25jZQ==", accept);
	assert_string_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

/* Around the lengths where SHA-1 begins another block of 64; the values are those of OpenSSL. */
static void answers_keys_of_any_length(void **state)
{
	(void)state;
	static const struct {
		size_t size;
		const char *accept;
	} keys[] = {
		{ 0, "Kfh9QIsMVZcl6xEPYxPHzW8SZ8w=" },   { 1, "FtgH8qqfEKHvZKEZYEWkYDhlXNY=" },
		{ 18, "5Ave8ujWOAIJFSnGl1SCdSULUzg=" },  { 19, "yzaGyu0mcUukN7CdsSwa30tnCpc=" },
		{ 20, "dUYRM7bOMwDmbriNIPr11x+r3E0=" },  { 27, "NCEiOv6lMC9mC8oEZnneqRdJ4DU=" },
		{ 28, "xMWmCBqYJY4uXzUs8PNU1t+Pzro=" },  { 29, "m8kT+K/C9sp8j44+NnEexy4o+Tg=" },
		{ 83, "JM5KfcY+04u0quK7uTyka1S7/6k=" },  { 92, "QozTWdJkJ6Mr6+QwqAHt8yNpBdc=" },
		{ 100, "+taVhj8zzaJPYE6HHo1ugamK/Ug=" },
	};
	for (size_t i = 0; i < COUNT_OF(keys); i++) {
		char key[128], accept[WS_ACCEPT_CHARS + 1];
		memset(key, 'a', keys[i].size);
		key[keys[i].size] = '\0';
		ws_accept(key, accept);
		assert_string_equal(accept, keys[i].accept);
	}
}

static void accepts_keys_of_16_bytes(void **state)
{
	(void)state;
	assert_true(ws_key_valid("dGhlIHNhbXBsZSBub25jZQ=="));
	assert_true(ws_key_valid("AAAAAAAAAAAAAAAAAAAAAA=="));
	assert_true(ws_key_valid("+/+/+/+/+/+/+/+/+/+/+/=="));
}

static void refuses_other_keys(void **state)
{
	(void)state;
	static const char *const keys[] = {
		"",
		"==",
		"dGhlIHNhbXBsZSBub25jZQ",
		"dGhlIHNhbXBsZSBub25jZQ=",
		"dGhlIHNhbXBsZSBub25jZQ===",
		"dGhlIHNhbXBsZSBub25jZQ==x",
		" dGhlIHNhbXBsZSBub25jZQ==",
		"dGhlIHNhbXBsZSBub25jZQ== ",
		"dGhlIHNhbXBsZSBub25jZQAA",
		"dGhlIHNhbXBsZSBub25jZQA=",
		"dGhlIHNhbXBsZSBub25=ZQ==",
		"dGhlIHNhbXBsZSBub25-_Q==",
		"dGhlIHNhbXBsZSBub2==",
		"dGhlIHNhbXBsZSBub25jZQabcd==",
	};
	for (size_t i = 0; i < COUNT_OF(keys); i++)
		assert_false(ws_key_valid(keys[i]));
	assert_false(ws_key_valid(NULL));
}

static void replays_its_corpus(void **state)
{
	(void)state;
	replay_corpus("ws_handshake", LLVMFuzzerTestOneInput);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_the_key_of_rfc_6455),
		cmocka_unit_test(answers_keys_of_any_length),
		cmocka_unit_test(accepts_keys_of_16_bytes),
		cmocka_unit_test(refuses_other_keys),
		cmocka_unit_test(replays_its_corpus),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
