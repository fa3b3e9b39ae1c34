/* test_registration.c -- agent/registration.h, own.h: who becomes the agent of a file, and who finds it. */
#include "tests/unit/wire/test.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/own.h"
#include "agent/registration.h"

#define LINE "{\"port\":1}\n"

struct place {
	char directory[64], file[80], lock[96];
};

static void make_place(struct place *p)
{
	snprintf(p->directory, sizeof(p->directory), "/tmp/ptycast-test-XXXXXX");
	assert_non_null(mkdtemp(p->directory));
	snprintf(p->file, sizeof(p->file), "%s/file", p->directory);
	snprintf(p->lock, sizeof(p->lock), "%s.lock", p->file);
}

static void remove_place(const struct place *p)
{
	(void)unlink(p->file);
	(void)unlink(p->lock);
	assert_int_equal(rmdir(p->directory), 0);
}

static void knows_a_whole_line(void **state)
{
	(void)state;
	assert_true(registration_is_line(LINE, strlen(LINE)));
	for (size_t size = 0; size < strlen(LINE); size++)
		assert_false(registration_is_line(LINE, size));
	static const char *const bad[] = { "\n",       "}\n",   "x}\n", "{\n}\n",
					   "{}\n{}\n", "{}\n ", " {}\n" };
	for (size_t i = 0; i < COUNT_OF(bad); i++)
		assert_false(registration_is_line(bad[i], strlen(bad[i])));
	assert_false(registration_is_line("{\0}\n", 4));
}

static void finds_who_published_until_it_withdraws(void **state)
{
	(void)state;
	struct place p;
	make_place(&p);
	struct registration agent, starter;
	char line[AGENT_HANDSHAKE_BYTES_MAX];
	assert_int_equal(registration_find(&agent, p.file, line), REGISTRATION_FREE);
	assert_int_equal(registration_publish(&agent, LINE), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(registration_find(&starter, p.file, line), REGISTRATION_FOUND);
		assert_string_equal(line, LINE);
		registration_fini(&starter);
	}
	registration_withdraw(&agent);
	struct stat status;
	assert_int_equal(stat(p.file, &status), 0);
	assert_int_equal(status.st_size, 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	registration_fini(&agent);
	registration_fini(&agent);
	assert_int_equal(registration_find(&starter, p.file, line), REGISTRATION_FREE);
	registration_fini(&starter);
	remove_place(&p);
}

static void a_line_without_its_lock_counts_for_nothing(void **state)
{
	(void)state;
	struct place p;
	make_place(&p);
	struct registration killed, starter;
	char line[AGENT_HANDSHAKE_BYTES_MAX];
	assert_int_equal(registration_find(&killed, p.file, line), REGISTRATION_FREE);
	assert_int_equal(registration_publish(&killed, LINE), 0);
	registration_fini(&killed); /* as the kernel does */
	assert_int_equal(registration_find(&starter, p.file, line), REGISTRATION_FREE);
	struct stat status;
	assert_int_equal(stat(p.file, &status), 0);
	assert_int_equal(status.st_size, 0);
	registration_fini(&starter);
	remove_place(&p);
}

static void refuses_what_is_open_to_others(void **state)
{
	(void)state;
	struct place p;
	make_place(&p);
	struct registration r;
	char line[AGENT_HANDSHAKE_BYTES_MAX];
	assert_int_equal(chmod(p.directory, 0720), 0);
	assert_int_equal(registration_find(&r, p.file, line), -EPERM);
	assert_int_equal(chmod(p.directory, 0755), 0);
	assert_int_equal(symlink("elsewhere", p.lock), 0);
	assert_int_equal(registration_find(&r, p.file, line), -EPERM);
	assert_int_equal(unlink(p.lock), 0);
	assert_int_equal(chmod(p.file, 0640), 0);
	assert_int_equal(registration_find(&r, p.file, line), -EPERM);
	registration_fini(&r);
	assert_int_equal(registration_find(&r, p.directory, line), -EPERM); /* below /tmp */
	assert_int_equal(registration_find(&r, "/no/such/file", line), -ENOENT);
	remove_place(&p);
}

static void waits_for_a_lock_and_no_longer(void **state)
{
	(void)state;
	struct place p;
	make_place(&p);
	int directory = own_directory(p.directory, S_IRWXG | S_IRWXO);
	assert_true(directory >= 0);
	int one = own_file(directory, "file"), two = own_file(directory, "file");
	assert_true(one >= 0 && two >= 0);
	assert_int_equal(own_lock(one, 0), 0);
	assert_int_equal(own_lock(two, 0), -ETIMEDOUT);
	uint64_t before_ms = loop_now_ms();
	assert_int_equal(own_lock(two, 60), -ETIMEDOUT);
	assert_true(loop_now_ms() - before_ms >= 60);
	close(one);
	assert_int_equal(own_lock(two, 0), 0);
	close(two);
	close(directory);
	remove_place(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(knows_a_whole_line),
		cmocka_unit_test(finds_who_published_until_it_withdraws),
		cmocka_unit_test(a_line_without_its_lock_counts_for_nothing),
		cmocka_unit_test(refuses_what_is_open_to_others),
		cmocka_unit_test(waits_for_a_lock_and_no_longer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
