/* The scripts that install and start the agent, run for real, under each shell that is installed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/providers/runloop_sandbox.h"

#define UPLOAD ".ptycast-upload-0123456789abcdef"

static struct runloop_agent agents[RUNLOOP_ARCH_COUNT];
static bool has_agent;

/* Runs command and gives what it came to. */
static enum runloop_verdict run(const struct sandbox *s, char *command, struct runloop_said *ret)
{
	static struct said said;
	sandbox_run(s, command, &said);
	runloop_script_read(said.out, ret);
	if (ret->verdict == RUNLOOP_NOTHING)
		print_error("%s: status %d\nstdout: %s\nstderr: %s\n", s->shell, said.status,
			    said.out, said.err);
	return ret->verdict;
}

static enum runloop_verdict start(const struct sandbox *s, struct runloop_said *ret)
{
	return run(s, runloop_script_start(agents), ret);
}

static void upload(const struct sandbox *s)
{
	char path[1024];
	snprintf(path, sizeof(path), "%s/" UPLOAD, s->home + strlen(s->root) + 1);
	sandbox_write(s, path, agents[RUNLOOP_X86_64].data, agents[RUNLOOP_X86_64].size, 0644);
}

static enum runloop_verdict install(const struct sandbox *s, struct runloop_said *ret)
{
	return run(s, runloop_script_install(agents, UPLOAD), ret);
}

/* Of a path below folder; 0: it is not there. */
static mode_t mode_of(const char *folder, const char *name)
{
	char path[1024];
	struct stat st;
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return lstat(path, &st) < 0 ? 0 : st.st_mode;
}

static void agent_name(char ret[128], const char *folder)
{
	snprintf(ret, 128, "%s/ptycast-agent-%.16s", folder, agents[RUNLOOP_X86_64].hash);
}

static void read_status(uint64_t pid, char *ret, size_t size)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%llu/status", (unsigned long long)pid);
	FILE *file = fopen(path, "r");
	assert_non_null(file);
	ret[fread(ret, 1, size - 1, file)] = '\0';
	fclose(file);
}

static void need_agent(void)
{
	if (!has_agent)
		skip();
}

/* Installs, and ends as a sandbox whose agent runs. */
static void init_installed(struct sandbox *s, const char *shell, struct runloop_said *said)
{
	sandbox_init(s, shell, "home");
	upload(s);
	assert_int_equal(install(s, said), RUNLOOP_STARTED);
}

static void installs_in_a_fresh_home_and_finds_it_again(void **state)
{
	(void)state;
	need_agent();
	for (const char *const *shell = sandbox_shells(); *shell != NULL; shell++) {
		struct sandbox s;
		struct runloop_said first, second;
		char name[128], status[4096];
		sandbox_init(&s, *shell, "home");
		assert_int_equal(start(&s, &first), RUNLOOP_NEED);
		assert_int_equal(first.arch, RUNLOOP_X86_64);
		upload(&s);
		assert_int_equal(install(&s, &first), RUNLOOP_STARTED);
		assert_true(first.handshake.v2);
		assert_int_equal(mode_of(s.home, UPLOAD), 0);
		assert_int_equal(mode_of(s.home, ".ptycast"), S_IFDIR | 0700);
		agent_name(name, ".ptycast");
		assert_int_equal(mode_of(s.home, name), S_IFREG | 0755);
		assert_int_equal(mode_of(s.root, "tmp/ptycast-65534"), 0);

		assert_int_equal(start(&s, &second), RUNLOOP_STARTED);
		assert_true(second.handshake.instance == first.handshake.instance);
		assert_int_equal(second.handshake.port, first.handshake.port);
		assert_string_equal(second.handshake.token, first.handshake.token);

		read_status(first.handshake.server_process_id, status, sizeof(status));
		assert_non_null(
			strstr(status, "Umask:\t0022\n")); /* its shells get the user's own */
		sandbox_fini(&s);
	}
}

static void tells_whether_the_agent_lives(void **state)
{
	(void)state;
	need_agent();
	for (const char *const *shell = sandbox_shells(); *shell != NULL; shell++) {
		struct sandbox s;
		struct runloop_said said;
		init_installed(&s, *shell, &said);
		uint64_t pid = said.handshake.server_process_id;
		assert_int_equal(run(&s, runloop_script_alive(pid), &said), RUNLOOP_ALIVE);
		assert_int_equal(run(&s, runloop_script_alive((uint64_t)getpid()), &said),
				 s.uid == geteuid() ? RUNLOOP_GONE : RUNLOOP_ALIVE);
		kill((pid_t)pid, SIGKILL);
		for (unsigned i = 0; i < 200; i++) { /* a moment for the kernel */
			if (run(&s, runloop_script_alive(pid), &said) == RUNLOOP_GONE)
				break;
			usleep(10000);
		}
		assert_int_equal(said.verdict, RUNLOOP_GONE);
		/* And the next start makes a new one. */
		assert_int_equal(start(&s, &said), RUNLOOP_STARTED);
		sandbox_fini(&s);
	}
}

static void replaces_a_damaged_program(void **state)
{
	(void)state;
	need_agent();
	for (const char *const *shell = sandbox_shells(); *shell != NULL; shell++) {
		struct sandbox s;
		struct runloop_said said;
		char name[128];
		sandbox_init(&s, *shell, "home");
		upload(&s);
		assert_int_equal(install(&s, &said), RUNLOOP_STARTED);
		kill((pid_t)said.handshake.server_process_id, SIGKILL);
		agent_name(name, "home/.ptycast");
		char path[512];
		snprintf(path, sizeof(path), "%s/%s", s.root, name);
		assert_int_equal(unlink(path), 0);
		sandbox_write(&s, name, agents[0].data, agents[0].size / 2, 0755);
		assert_int_equal(start(&s, &said), RUNLOOP_NEED);
		upload(&s);
		assert_int_equal(install(&s, &said), RUNLOOP_STARTED);
		sandbox_fini(&s);
	}
}

static void goes_elsewhere_when_home_is_read_only_or_missing(void **state)
{
	(void)state;
	need_agent();
	for (const char *const *shell = sandbox_shells(); *shell != NULL; shell++) {
		struct sandbox s;
		struct runloop_said said;
		char name[128], folder[160];
		sandbox_init(&s, *shell, "home");
		upload(&s);
		assert_int_equal(chmod(s.home, 0555), 0);
		assert_int_equal(start(&s, &said), RUNLOOP_NEED);
		assert_int_equal(install(&s, &said), RUNLOOP_STARTED);
		snprintf(folder, sizeof(folder), "%s/tmp/ptycast-%u", s.root, (unsigned)s.uid);
		agent_name(name, ".");
		assert_int_equal(mode_of(folder, name), S_IFREG | 0755);
		assert_int_equal(mode_of(folder, "."), S_IFDIR | 0700);

		s.home[0] = '\0';
		uint64_t instance = said.handshake.instance;
		assert_int_equal(start(&s, &said), RUNLOOP_STARTED);
		assert_true(said.handshake.instance == instance);
		sandbox_fini(&s);
	}
}

static void trusts_no_directory_that_may_be_somebody_elses(void **state)
{
	(void)state;
	need_agent();
	for (const char *const *shell = sandbox_shells(); *shell != NULL; shell++) {
		struct sandbox s;
		struct runloop_said said;
		char path[256], folder[160], name[128];
		sandbox_init(&s, *shell, NULL);
		/* A link to a directory of ours, and one of another owner (where the tests are root). */
		snprintf(path, sizeof(path), "%s/tmp/ptycast-%u", s.root, (unsigned)s.uid);
		assert_int_equal(symlink("../bin", path), 0);
		snprintf(path, sizeof(path), "%s/vartmp/ptycast-%u", s.root, (unsigned)s.uid);
		assert_int_equal(mkdir(path, 0777), 0);
		assert_int_equal(chmod(path, 0777), 0);
		sandbox_write(&s, UPLOAD, agents[0].data, agents[0].size, 0644);
		assert_int_equal(install(&s, &said), RUNLOOP_STARTED);
		snprintf(folder, sizeof(folder), "%s/%s/ptycast-%u", s.root,
			 s.uid == geteuid() ? "vartmp" : "shm", (unsigned)s.uid);
		agent_name(name, ".");
		assert_int_equal(mode_of(folder, name), S_IFREG | 0755);
		sandbox_fini(&s);
	}
}

static void works_in_a_home_of_any_name(void **state)
{
	(void)state;
	static const char *const names[] = { "it's \"my\" home", "$(touch x) `id` ; $HOME \\ * ?",
					     "-rf --", "line\nfeed ", "\xc3\xa4\xff" };
	need_agent();
	for (const char *const *shell = sandbox_shells(); *shell != NULL; shell++) {
		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
			struct sandbox s;
			struct runloop_said said;
			char name[128];
			sandbox_init(&s, *shell, names[i]);
			assert_int_equal(start(&s, &said), RUNLOOP_NEED);
			upload(&s);
			assert_int_equal(install(&s, &said), RUNLOOP_STARTED);
			agent_name(name, ".ptycast");
			assert_int_equal(mode_of(s.home, name), S_IFREG | 0755);
			assert_int_equal(mode_of(s.home, UPLOAD), 0);
			assert_int_equal(mode_of(s.home, "x"), 0);
			assert_int_equal(start(&s, &said), RUNLOOP_STARTED);
			sandbox_fini(&s);
		}
	}
}

static void says_which_machine_it_is(void **state)
{
	(void)state;
	uint8_t program = 0;
	struct runloop_agent x86[RUNLOOP_ARCH_COUNT] = { { .data = &program, .size = 1 } };
	struct runloop_agent both[RUNLOOP_ARCH_COUNT] = { { .data = &program, .size = 1 },
							  { .data = &program, .size = 1 } };
	memset(x86[0].hash, 'a', 64);
	memset(both[0].hash, 'a', 64);
	memset(both[1].hash, 'b', 64);
	for (const char *const *shell = sandbox_shells(); *shell != NULL; shell++) {
		if (strncmp(*shell, "busybox", 7) == 0) /* its uname is built in */
			continue;
		struct sandbox s;
		struct runloop_said said;
		sandbox_init(&s, *shell, "home");
		sandbox_program(&s, "uname", "#!/bin/sh\necho aarch64\n");
		assert_int_equal(run(&s, runloop_script_start(x86), &said), RUNLOOP_NO_AGENT);
		assert_string_equal(said.text, "aarch64");
		assert_int_equal(run(&s, runloop_script_start(both), &said), RUNLOOP_NEED);
		assert_int_equal(said.arch, RUNLOOP_ARM64);
		sandbox_program(&s, "uname", "#!/bin/sh\nprintf 'ris\\033[31mcv$(id)'\n");
		assert_int_equal(run(&s, runloop_script_start(both), &said), RUNLOOP_NO_AGENT);
		assert_string_equal(said.text, "ris[31mcv$(id)");
		sandbox_fini(&s);
	}
}

static void refuses_what_is_not_the_agent(void **state)
{
	(void)state;
	need_agent();
	for (const char *const *shell = sandbox_shells(); *shell != NULL; shell++) {
		struct sandbox s;
		struct runloop_said said;
		char name[128];
		sandbox_init(&s, *shell, "home");
		assert_int_equal(install(&s, &said), RUNLOOP_NOT_INSTALLED);
		assert_string_equal(said.text, "the uploaded file was not found");
		sandbox_write(&s, "home/" UPLOAD, "#!/bin/sh\ntouch x\n", 18, 0755);
		assert_int_equal(install(&s, &said), RUNLOOP_NOT_INSTALLED);
		assert_string_equal(said.text, "the upload has another checksum");
		assert_int_equal(mode_of(s.home, UPLOAD), 0);
		assert_int_equal(mode_of(s.home, ".ptycast/.new-" UPLOAD), 0);
		assert_int_equal(mode_of(s.home, "x"), 0);
		agent_name(name, ".ptycast");
		assert_int_equal(mode_of(s.home, name), 0);
		sandbox_fini(&s);
	}
}

static void goes_by_the_size_where_there_is_no_sha256sum(void **state)
{
	(void)state;
	static const char *const tools[] = { "id", "uname", "ls",     "mkdir", "chmod", "rm", "cat",
					     "mv", "cut",   "getent", "wc",    "cp",    "sh" };
	need_agent();
	for (const char *const *shell = sandbox_shells(); *shell != NULL; shell++) {
		if (strncmp(*shell, "busybox", 7) == 0) /* has it built in */
			continue;
		struct sandbox s;
		struct runloop_said said;
		char link[256], target[64];
		sandbox_init(&s, *shell, "home");
		for (size_t i = 0; i < sizeof(tools) / sizeof(tools[0]); i++) {
			snprintf(link, sizeof(link), "%s/bin/%s", s.root, tools[i]);
			snprintf(target, sizeof(target), "/usr/bin/%s", tools[i]);
			assert_int_equal(symlink(target, link), 0);
		}
		snprintf(s.path, sizeof(s.path), "%s/bin:%s", s.root, s.root);
		snprintf(link, sizeof(link), "%s/%s", s.root, *shell);
		snprintf(target, sizeof(target), "/bin/%s", *shell);
		assert_int_equal(symlink(target, link), 0);
		upload(&s);
		assert_int_equal(install(&s, &said), RUNLOOP_STARTED);
		assert_int_equal(start(&s, &said), RUNLOOP_STARTED);
		sandbox_write(&s, "home/" UPLOAD, "short", 5, 0644);
		assert_int_equal(install(&s, &said), RUNLOOP_NOT_INSTALLED);
		sandbox_fini(&s);
	}
}

static void many_installers_make_one_agent(void **state)
{
	(void)state;
	enum { COUNT = 6 };
	static struct said said;
	need_agent();
	for (const char *const *shell = sandbox_shells(); *shell != NULL; shell++) {
		struct sandbox s;
		struct running running[COUNT];
		struct runloop_said r[COUNT];
		sandbox_init(&s, *shell, "home");
		for (unsigned i = 0; i < COUNT; i++) {
			char name[64], path[128];
			snprintf(name, sizeof(name), ".ptycast-upload-%u", i);
			snprintf(path, sizeof(path), "home/%s", name);
			sandbox_write(&s, path, agents[0].data, agents[0].size, 0600);
			sandbox_start(&s, runloop_script_install(agents, name), &running[i]);
		}
		for (unsigned i = 0; i < COUNT; i++) {
			sandbox_wait(&running[i], &said);
			runloop_script_read(said.out, &r[i]);
			assert_int_equal(r[i].verdict, RUNLOOP_STARTED);
			assert_true(r[i].handshake.instance == r[0].handshake.instance);
		}
		sandbox_fini(&s);
	}
}

static void removes_an_upload(void **state)
{
	(void)state;
	for (const char *const *shell = sandbox_shells(); *shell != NULL; shell++) {
		static struct said said;
		struct sandbox s;
		sandbox_init(&s, *shell, "it's home");
		sandbox_write(&s, "it's home/" UPLOAD, "x", 1, 0400);
		sandbox_run(&s, runloop_script_remove(UPLOAD), &said);
		assert_int_equal(said.status, 0);
		assert_int_equal(mode_of(s.home, UPLOAD), 0);
		sandbox_fini(&s);
	}
}

/* Where nothing may be executed that the user can write. */
static void mount_noexec(const struct sandbox *s)
{
	static const char *const names[] = { "home", "tmp", "vartmp", "shm" };
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		_exit(96);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char path[256];
		snprintf(path, sizeof(path), "%s/%s", s->root, names[i]);
		if (mount(path, path, NULL, MS_BIND, NULL) < 0 ||
		    mount(path, path, NULL, MS_BIND | MS_REMOUNT | MS_NOEXEC, NULL) < 0)
			_exit(96);
	}
}

static void asks_sudo_where_nothing_can_be_executed(void **state)
{
	(void)state;
	static struct said probe;
	need_agent();
	for (const char *const *shell = sandbox_shells(); *shell != NULL; shell++) {
		struct sandbox s;
		struct runloop_said said;
		char name[128];
		sandbox_init(&s, *shell, "home");
		s.prepare = mount_noexec;
		sandbox_run(&s, runloop_script_alive(1), &probe);
		if (geteuid() != 0 || probe.status == 96) { /* may not mount here */
			sandbox_fini(&s);
			skip();
		}
		upload(&s);
		assert_int_equal(start(&s, &said), RUNLOOP_NEED);
		sandbox_program(&s, "sudo", "#!/bin/sh\necho \"no: $*\" >&2\nexit 1\n");
		assert_int_equal(install(&s, &said), RUNLOOP_NOT_INSTALLED);
		assert_string_equal(said.text, "no directory can be executed from");
		assert_int_equal(mode_of(s.home, UPLOAD), 0);
		upload(&s);
		sandbox_program(&s, "sudo", "#!/bin/sh\n[ \"$1\" = -n ] && shift && exec \"$@\"\n");
		assert_int_equal(install(&s, &said), RUNLOOP_STARTED);
		agent_name(name, "usrlocallib/ptycast");
		assert_int_equal(mode_of(s.root, name), S_IFREG | 0755);
		uint64_t instance = said.handshake.instance;

		/* That folder counts only when it is root's. */
		kill((pid_t)said.handshake.server_process_id, SIGKILL);
		assert_int_equal(start(&s, &said), RUNLOOP_NEED);
		char path[256];
		snprintf(path, sizeof(path), "%s/usrlocallib/ptycast", s.root);
		assert_int_equal(chown(path, 0, 0), 0);
		assert_int_equal(start(&s, &said), RUNLOOP_NEED);
		char program[512];
		snprintf(program, sizeof(program), "%s/%s", s.root, name);
		assert_int_equal(chown(program, 0, 0), 0);
		assert_int_equal(start(&s, &said), RUNLOOP_STARTED);
		assert_false(said.handshake.instance == instance);
		sandbox_fini(&s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(installs_in_a_fresh_home_and_finds_it_again),
		cmocka_unit_test(tells_whether_the_agent_lives),
		cmocka_unit_test(replaces_a_damaged_program),
		cmocka_unit_test(goes_elsewhere_when_home_is_read_only_or_missing),
		cmocka_unit_test(trusts_no_directory_that_may_be_somebody_elses),
		cmocka_unit_test(works_in_a_home_of_any_name),
		cmocka_unit_test(says_which_machine_it_is),
		cmocka_unit_test(refuses_what_is_not_the_agent),
		cmocka_unit_test(goes_by_the_size_where_there_is_no_sha256sum),
		cmocka_unit_test(many_installers_make_one_agent),
		cmocka_unit_test(removes_an_upload),
		cmocka_unit_test(asks_sudo_where_nothing_can_be_executed),
	};
	has_agent = sandbox_agent(agents);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
