/* Sealing: the original's form, wrong keys, and the key file. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "store/seal.h"

/* libsodium-wrappers 0.8.4: crypto_box_seed_keypair(32 bytes of 7), and texts sealed for it by
 * to_base64(crypto_box_seal(text, public), URLSAFE_NO_PADDING). */
#define PUBLIC_HEX "761d88ec830413919dfe9d4d1d56f17e653c8c994082df5b137b90a0ae6edf74"
#define PRIVATE_HEX "2fad39fefd7fa3e200a9c626eef599e61a2d055c48a8288a4e7e4c4bca3928f8"
static const struct {
	const char *text, *sealed;
} by_javascript[] = {
	{ "sk-runloop-1234", "64kTXPiLzPXkPBIMqu0EE1aomshotmJ8zTCcuIVNKhC7fEnPcl-9m8yoMGmZBeGzJd_"
			     "4fY9ThGN5so9Jw_mt" },
	{ "cl\xc3\xa9 \xf0\x9f\x94\x91", "hIw8CSG7BFqCmeHiDwmMiB24FSdm7ewWaKFNDe76GwvdYNSF8RxwN_"
					 "PedRhOpJpQId72-H_Bhgjp" },
	{ "", "IqZiC4PHV4JI8RI5TlxPpcL9phLWVFfacC3dVwpRoXIggVf6-Yg9dC0rRfApTCt3" },
};

static char folder[64];

static int make_folder(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/ptycast-test-seal-XXXXXX");
	return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
	(void)state;
	char command[100];
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static const char *path_of(const char *name)
{
	static char path[200];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static struct seal_keys *known_keys(void)
{
	struct seal_keys *k = NULL;
	assert_int_equal(seal_keys_from_hex(PUBLIC_HEX, PRIVATE_HEX, &k, NULL), 0);
	return k;
}

static void assert_opens_as(const struct seal_keys *k, const char *sealed, const char *text)
{
	uint8_t *data = NULL;
	size_t size = 0;
	assert_int_equal(seal_open(k, sealed, &data, &size), 0);
	assert_int_equal(size, strlen(text));
	assert_string_equal((char *)data, text); /* a 0 stands behind it */
	seal_free(data, size);
}

static void assert_does_not_open(const struct seal_keys *k, const char *sealed)
{
	uint8_t *data = NULL;
	size_t size = 7;
	assert_int_equal(seal_open(k, sealed, &data, &size), -EBADMSG);
	assert_null(data);
	assert_int_equal(size, 7);
}

static void opens_what_javascript_sealed(void **state)
{
	(void)state;
	struct seal_keys *k = known_keys();
	for (size_t i = 0; i < sizeof(by_javascript) / sizeof(by_javascript[0]); i++)
		assert_opens_as(k, by_javascript[i].sealed, by_javascript[i].text);
	seal_keys_destroy(k);
}

static void opens_what_it_sealed_and_never_seals_alike(void **state)
{
	(void)state;
	struct seal_keys *k = known_keys();
	char *first = seal(k, "secret", 6), *second = seal(k, "secret", 6);
	assert_string_not_equal(first, second);
	assert_int_equal(strlen(first), (6 + 48) * 4 / 3);
	assert_null(strpbrk(first, "+/=\n"));
	assert_opens_as(k, first, "secret");
	assert_opens_as(k, second, "secret");
	free(first);
	free(second);
	seal_keys_destroy(k);
}

static void keeps_every_byte_of_any_size(void **state)
{
	(void)state;
	struct seal_keys *k = known_keys();
	uint8_t bytes[600];
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	for (size_t size = 0; size < sizeof(bytes); size += 1 + size / 16) {
		char *sealed = seal(k, bytes, size);
		uint8_t *data = NULL;
		size_t got = 0;
		assert_int_equal(seal_open(k, sealed, &data, &got), 0);
		assert_int_equal(got, size);
		assert_memory_equal(data, bytes, size);
		seal_free(data, got);
		free(sealed);
	}
	seal_keys_destroy(k);
}

static void refuses_what_was_changed_at_any_place(void **state)
{
	(void)state;
	struct seal_keys *k = known_keys();
	char sealed[200];
	strcpy(sealed, by_javascript[0].sealed);
	for (size_t i = 0; i < strlen(sealed); i++) {
		char right = sealed[i];
		sealed[i] = right == 'A' ? 'B' : 'A';
		assert_does_not_open(k, sealed);
		sealed[i] = right;
	}
	for (size_t size = strlen(sealed); size-- > 0;) {
		sealed[size] = '\0';
		assert_does_not_open(k, sealed);
	}
	seal_keys_destroy(k);
}

static void refuses_other_forms_of_base64(void **state)
{
	(void)state;
	struct seal_keys *k = known_keys();
	char text[200];
	const char *good = by_javascript[1].sealed;
	snprintf(text, sizeof(text), "%s=", good);
	assert_does_not_open(k, text);
	snprintf(text, sizeof(text), "%s\n", good);
	assert_does_not_open(k, text);
	snprintf(text, sizeof(text), " %s", good);
	assert_does_not_open(k, text);
	strcpy(text, good);
	*strchr(text, '_') = '/';
	assert_does_not_open(k, text);
	seal_keys_destroy(k);
}

static void another_pair_opens_nothing(void **state)
{
	(void)state;
	struct seal_keys *other = NULL;
	assert_int_equal(seal_keys_from_file(path_of("other.key"), &other, NULL), 0);
	assert_does_not_open(other, by_javascript[0].sealed);
	seal_keys_destroy(other);
}

static void refuses_keys_that_are_no_pair_or_no_keys(void **state)
{
	(void)state;
	static const struct {
		const char *public_hex, *private_hex, *text;
	} bad[] = {
		{ PUBLIC_HEX, PUBLIC_HEX, "configuration: the sealing keys are not a pair" },
		{ PUBLIC_HEX "0", PRIVATE_HEX,
		  "configuration: a sealing key is not 64 hex digits" },
		{ PUBLIC_HEX, "", "configuration: a sealing key is not 64 hex digits" },
		{ PUBLIC_HEX, "x0ad39fefd7fa3e200a9c626eef599e61a2d055c48a8288a4e7e4c4bca3928f8",
		  "configuration: a sealing key is not 64 hex digits" },
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct seal_keys *k = NULL;
		struct error err = { 0 };
		assert_int_equal(seal_keys_from_hex(bad[i].public_hex, bad[i].private_hex, &k,
						    &err),
				 -EINVAL);
		assert_string_equal(err.text, bad[i].text);
		assert_null(k);
	}
	seal_keys_destroy(NULL);
}

/* --- several pairs --- */

static struct seal_keys *keys_of(const char *private_hex)
{
	struct seal_keys *k = NULL;
	struct error err = { 0 };
	if (seal_keys_from_hex(NULL, private_hex, &k, &err) != 0)
		fail_msg("%s", err.text);
	return k;
}

static void a_public_half_is_found_by_the_private_one(void **state)
{
	(void)state;
	struct seal_keys *k = keys_of(PRIVATE_HEX);
	char hex[SEAL_HEX_DIGITS + 1];
	seal_public_hex(k, hex);
	assert_string_equal(hex, PUBLIC_HEX);
	assert_opens_as(k, by_javascript[0].sealed, by_javascript[0].text);
	char *sealed = seal_for(PUBLIC_HEX, "for it", 6);
	assert_opens_as(k, sealed, "for it");
	free(sealed);
	assert_null(seal_for(PUBLIC_HEX "00", "x", 1));
	assert_null(seal_for("", "x", 1));
	seal_keys_destroy(k);
}

static void the_newest_seals_and_all_open(void **state)
{
	(void)state;
	char public_hex[3][SEAL_HEX_DIGITS + 1], private_hex[3][SEAL_HEX_DIGITS + 1], list[400];
	for (int i = 0; i < 3; i++)
		seal_make_pair(public_hex[i], private_hex[i]);
	snprintf(list, sizeof(list), "%s, %s,%s ", private_hex[0], private_hex[1], PRIVATE_HEX);
	struct seal_keys *all = NULL, *newest = keys_of(private_hex[0]), *old = known_keys();
	assert_int_equal(seal_keys_from_hex(public_hex[0], list, &all, NULL), 0);
	char *sealed = seal(all, "secret", 6), *anew = (char[]){ "" };
	assert_opens_as(newest, sealed, "secret");
	assert_does_not_open(old, sealed);
	assert_true(seal_is_newest(all, sealed));
	assert_int_equal(reseal(all, sealed, &anew), 0);
	assert_null(anew);

	const char *of_old = by_javascript[1].sealed;
	assert_opens_as(all, of_old, by_javascript[1].text);
	assert_false(seal_is_newest(all, of_old));
	assert_int_equal(reseal(all, of_old, &anew), 1);
	assert_opens_as(newest, anew, by_javascript[1].text);
	free(anew);

	assert_int_equal(reseal(newest, of_old, &anew), -EBADMSG);
	assert_null(anew);
	assert_false(seal_is_newest(newest, of_old));
	assert_int_equal(reseal(all, "", &anew), -EBADMSG);
	free(sealed);
	seal_keys_destroy(all);
	seal_keys_destroy(newest);
	seal_keys_destroy(old);
}

static void refuses_a_list_with_anything_else_in_it(void **state)
{
	(void)state;
	char many[20 * (SEAL_HEX_DIGITS + 1)] = "";
	for (int i = 0; i < 17; i++)
		strcat(strcat(many, i == 0 ? "" : ","), PRIVATE_HEX);
	static const char digits[] = "configuration: a sealing key is not 64 hex digits";
	const struct {
		const char *public_hex, *list, *text;
	} bad[] = {
		{ NULL, PRIVATE_HEX ",", digits },
		{ NULL, "," PRIVATE_HEX, digits },
		{ NULL, PRIVATE_HEX " " PRIVATE_HEX, digits },
		{ NULL, PRIVATE_HEX ",x", digits },
		{ NULL, many, "configuration: more than 16 sealing keys" },
		{ PRIVATE_HEX, PRIVATE_HEX, "configuration: the sealing keys are not a pair" },
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct seal_keys *k = NULL;
		struct error err = { 0 };
		assert_int_equal(seal_keys_from_hex(bad[i].public_hex, bad[i].list, &k, &err),
				 -EINVAL);
		assert_string_equal(err.text, bad[i].text);
		assert_null(k);
	}
}

static void makes_a_private_key_file_once_and_reads_it_again(void **state)
{
	(void)state;
	umask(0);
	struct seal_keys *made = NULL, *read_again = NULL;
	const char *path = path_of("made.key");
	assert_int_equal(seal_keys_from_file(path, &made, NULL), 0);
	umask(022);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_size, 130);
	assert_int_equal(seal_keys_from_file(path, &read_again, NULL), 0);
	char *sealed = seal(made, "x", 1);
	assert_opens_as(read_again, sealed, "x");
	free(sealed);
	seal_keys_destroy(made);
	seal_keys_destroy(read_again);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	fchmod(fd, mode);
	close(fd);
}

static void reads_a_file_that_a_person_wrote(void **state)
{
	(void)state;
	static const char *const texts[] = { PUBLIC_HEX "\n" PRIVATE_HEX,
					     PUBLIC_HEX "\n" PRIVATE_HEX "\n",
					     PUBLIC_HEX "\r\n" PRIVATE_HEX "\r\n" };
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct seal_keys *k = NULL;
		write_file(path_of("written.key"), texts[i], 0400);
		assert_int_equal(seal_keys_from_file(path_of("written.key"), &k, NULL), 0);
		assert_opens_as(k, by_javascript[0].sealed, by_javascript[0].text);
		seal_keys_destroy(k);
		unlink(path_of("written.key"));
	}
}

static void reads_a_file_of_several_pairs(void **state)
{
	(void)state;
	char public_hex[SEAL_HEX_DIGITS + 1], private_hex[SEAL_HEX_DIGITS + 1], text[300];
	seal_make_pair(public_hex, private_hex);
	snprintf(text, sizeof(text), "%s\n%s\n" PUBLIC_HEX "\r\n" PRIVATE_HEX, public_hex,
		 private_hex);
	write_file(path_of("several.key"), text, 0600);
	struct seal_keys *k = NULL, *newest = keys_of(private_hex);
	assert_int_equal(seal_keys_from_file(path_of("several.key"), &k, NULL), 0);
	assert_opens_as(k, by_javascript[0].sealed, by_javascript[0].text);
	char *sealed = seal(k, "x", 1);
	assert_opens_as(newest, sealed, "x");
	free(sealed);
	seal_keys_destroy(k);
	seal_keys_destroy(newest);

	char many[20 * 2 * (SEAL_HEX_DIGITS + 1)] = "";
	for (int i = 0; i < 16; i++)
		strcat(many, PUBLIC_HEX "\n" PRIVATE_HEX "\n");
	unlink(path_of("several.key"));
	write_file(path_of("several.key"), many, 0600);
	assert_int_equal(seal_keys_from_file(path_of("several.key"), &k, NULL), 0);
	seal_keys_destroy(k);
	strcat(many, PUBLIC_HEX "\n" PRIVATE_HEX "\n");
	unlink(path_of("several.key"));
	write_file(path_of("several.key"), many, 0600);
	k = NULL;
	assert_int_equal(seal_keys_from_file(path_of("several.key"), &k, NULL), -EINVAL);
	assert_null(k);
}

static void refuses_a_file_that_others_may_read(void **state)
{
	(void)state;
	static const mode_t modes[] = { 0640, 0604, 0620, 0610 };
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		struct seal_keys *k = NULL;
		struct error err = { 0 };
		write_file(path_of("open.key"), PUBLIC_HEX "\n" PRIVATE_HEX "\n", modes[i]);
		assert_int_equal(seal_keys_from_file(path_of("open.key"), &k, &err), -EACCES);
		assert_non_null(strstr(err.text, "chmod 600"));
		assert_null(k);
	}
}

static void refuses_a_damaged_file_and_leaves_it(void **state)
{
	(void)state;
	static const char *const texts[] = { "",
					     "\n",
					     PUBLIC_HEX,
					     PUBLIC_HEX PRIVATE_HEX,
					     PUBLIC_HEX "\n" PRIVATE_HEX "00",
					     PUBLIC_HEX "\n\n" PRIVATE_HEX,
					     PRIVATE_HEX "\n" PUBLIC_HEX,
					     PUBLIC_HEX "\n" PRIVATE_HEX "\n" PUBLIC_HEX,
					     PUBLIC_HEX "\n" PRIVATE_HEX "\n\n" PUBLIC_HEX
							"\n" PRIVATE_HEX };
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct seal_keys *k = NULL;
		struct error err = { 0 };
		write_file(path_of("bad.key"), texts[i], 0600);
		assert_int_equal(seal_keys_from_file(path_of("bad.key"), &k, &err), -EINVAL);
		assert_null(strstr(err.text, "2fad39")); /* nothing secret is said */
		struct stat st;
		assert_int_equal(stat(path_of("bad.key"), &st), 0);
		assert_int_equal(st.st_size, strlen(texts[i]));
	}
	struct seal_keys *k = NULL;
	assert_int_equal(seal_keys_from_file(folder, &k, NULL), -EINVAL);
}

static void says_why_a_file_cannot_be_made(void **state)
{
	(void)state;
	struct seal_keys *k = NULL;
	struct error err = { 0 };
	assert_int_equal(seal_keys_from_file("/nonexistent/x.key", &k, &err), -ENOENT);
	assert_string_equal(err.text,
			    "/nonexistent/x.key cannot be made: No such file or directory");
}

#define STARTERS 8

static void *start(void *arg)
{
	struct seal_keys *k = NULL;
	assert_int_equal(seal_keys_from_file(arg, &k, NULL), 0);
	return k;
}

static void of_many_that_start_at_once_all_have_one_pair(void **state)
{
	(void)state;
	char path[200];
	strcpy(path, path_of("race.key"));
	pthread_t threads[STARTERS];
	struct seal_keys *keys[STARTERS];
	for (int i = 0; i < STARTERS; i++)
		pthread_create(&threads[i], NULL, start, path);
	for (int i = 0; i < STARTERS; i++)
		pthread_join(threads[i], (void **)&keys[i]);
	char *sealed = seal(keys[0], "x", 1);
	for (int i = 0; i < STARTERS; i++) {
		assert_opens_as(keys[i], sealed, "x");
		seal_keys_destroy(keys[i]);
	}
	free(sealed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opens_what_javascript_sealed),
		cmocka_unit_test(opens_what_it_sealed_and_never_seals_alike),
		cmocka_unit_test(keeps_every_byte_of_any_size),
		cmocka_unit_test(refuses_what_was_changed_at_any_place),
		cmocka_unit_test(refuses_other_forms_of_base64),
		cmocka_unit_test(another_pair_opens_nothing),
		cmocka_unit_test(refuses_keys_that_are_no_pair_or_no_keys),
		cmocka_unit_test(a_public_half_is_found_by_the_private_one),
		cmocka_unit_test(the_newest_seals_and_all_open),
		cmocka_unit_test(refuses_a_list_with_anything_else_in_it),
		cmocka_unit_test(makes_a_private_key_file_once_and_reads_it_again),
		cmocka_unit_test(reads_a_file_that_a_person_wrote),
		cmocka_unit_test(reads_a_file_of_several_pairs),
		cmocka_unit_test(refuses_a_file_that_others_may_read),
		cmocka_unit_test(refuses_a_damaged_file_and_leaves_it),
		cmocka_unit_test(says_why_a_file_cannot_be_made),
		cmocka_unit_test(of_many_that_start_at_once_all_have_one_pair),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
