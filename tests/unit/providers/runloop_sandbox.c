/* runloop_sandbox.c -- see runloop_sandbox.h. */
#include "tests/unit/providers/runloop_sandbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534
#define WAIT_MS 20000

static bool is_installed(const char *shell)
{
	char path[64];
	snprintf(path, sizeof(path), "/bin/%.*s", (int)strcspn(shell, " "), shell);
	return access(path, X_OK) == 0;
}

const char *const *sandbox_shells(void)
{
	static const char *const all[] = { "sh", "dash", "bash", "busybox sh" };
	static const char *found[sizeof(all) / sizeof(all[0]) + 1];
	size_t n = 0;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (is_installed(all[i]))
			found[n++] = all[i];
	found[n] = NULL;
	return found;
}

static void make_directory(const struct sandbox *s, const char *name)
{
	char path[768];
	snprintf(path, sizeof(path), "%s/%s", s->root, name);
	assert_int_equal(mkdir(path, 0755), 0);
	assert_int_equal(chown(path, s->uid, (gid_t)-1), 0);
}

void sandbox_init(struct sandbox *s, const char *shell, const char *home)
{
	*s = (struct sandbox){ .root = "/tmp/ptycast-sandbox-XXXXXX",
			       .shell = shell,
			       .uid = geteuid() == 0 ? NOBODY : geteuid() };
	assert_non_null(mkdtemp(s->root));
	assert_int_equal(chmod(s->root, 0755), 0);
	snprintf(s->path, sizeof(s->path), "%s/bin:/usr/bin:/bin", s->root);
	static const char *const names[] = { "bin", "tmp", "vartmp", "shm", "usrlocallib" };
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		make_directory(s, names[i]);
	if (home != NULL) {
		make_directory(s, home);
		snprintf(s->home, sizeof(s->home), "%s/%s", s->root, home);
	}
}

/* Agents that run from below root. */
static void end_agents(const struct sandbox *s)
{
	DIR *proc = opendir("/proc");
	assert_non_null(proc);
	for (struct dirent *e; (e = readdir(proc)) != NULL;) {
		char link[300], exe[1024];
		snprintf(link, sizeof(link), "/proc/%s/exe", e->d_name);
		ssize_t n = readlink(link, exe, sizeof(exe) - 1);
		exe[n > 0 ? n : 0] = '\0';
		if (strncmp(exe, s->root, strlen(s->root)) == 0 && atoi(e->d_name) > 1)
			kill(atoi(e->d_name), SIGKILL);
	}
	closedir(proc);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

void sandbox_fini(struct sandbox *s)
{
	end_agents(s);
	if (s->home[0] != '\0')
		chmod(s->home, 0755);
	nftw(s->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void sandbox_write(const struct sandbox *s, const char *path, const void *data, size_t size,
		   mode_t mode)
{
	char full[1024];
	snprintf(full, sizeof(full), "%s/%s", s->root, path);
	int fd = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), size);
	assert_int_equal(fchmod(fd, mode), 0);
	assert_int_equal(fchown(fd, s->uid, (gid_t)-1), 0);
	close(fd);
}

void sandbox_program(const struct sandbox *s, const char *name, const char *text)
{
	char path[256];
	snprintf(path, sizeof(path), "bin/%s", name);
	sandbox_write(s, path, text, strlen(text), 0755);
}

/* All of text with what for each word; frees text. */
static char *replace(char *text, const char *word, const char *what)
{
	char *out;
	size_t size;
	FILE *stream = open_memstream(&out, &size);
	assert_non_null(stream);
	const char *at = text;
	for (const char *hit; (hit = strstr(at, word)) != NULL; at = hit + strlen(word)) {
		fwrite(at, 1, (size_t)(hit - at), stream);
		fputs(what, stream);
	}
	fputs(at, stream);
	fclose(stream);
	free(text);
	return out;
}

static char *move_in(const struct sandbox *s, char *command)
{
	static const char *const words[][2] = { { "\"/tmp/", "tmp" }, /* first: root is in there */
						{ "/var/tmp/", "vartmp" },
						{ "/dev/shm/", "shm" },
						{ "/usr/local/lib/", "usrlocallib" } };
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		char what[256];
		const char *quote = words[i][0][0] == '"' ? "\"" : "";
		snprintf(what, sizeof(what), "%s%s/%s/", quote, s->root, words[i][1]);
		command = replace(command, words[i][0], what);
	}
	assert_memory_equal(command, "sh -c ", 6);
	char *moved;
	assert_true(asprintf(&moved, "%s%s", s->shell, command + 2) > 0);
	free(command);
	return moved;
}

static _Noreturn void become(const struct sandbox *s, const char *command, int out, int err)
{
	char outer[32], home[600], path[600];
	if (s->prepare != NULL)
		s->prepare(s);
	if (chdir(s->home[0] == '\0' ? s->root : s->home) < 0)
		_exit(99);
	if (geteuid() != s->uid &&
	    (setgroups(0, NULL) < 0 || setgid(s->uid) < 0 || setuid(s->uid) < 0))
		_exit(98);
	umask(022);
	int null = open("/dev/null", O_RDONLY);
	dup2(null, 0);
	dup2(out, 1);
	dup2(err, 2);
	close_range(3, ~0u, 0);
	snprintf(outer, sizeof(outer), "%.*s", (int)strcspn(s->shell, " "), s->shell);
	snprintf(home, sizeof(home), "HOME=%s", s->home);
	snprintf(path, sizeof(path), "PATH=%s", s->path);
	char *const env[] = { path, s->home[0] == '\0' ? NULL : home, NULL };
	if (strcmp(outer, "busybox") == 0)
		execle("/bin/busybox", "busybox", "sh", "-c", command, NULL, env);
	char program[64];
	snprintf(program, sizeof(program), "/bin/%s", outer);
	execle(program, outer, "-c", command, NULL, env);
	_exit(97);
}

void sandbox_start(const struct sandbox *s, char *command, struct running *ret)
{
	int out[2], err[2];
	assert_non_null(command);
	command = move_in(s, command);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(err, O_CLOEXEC), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		become(s, command, out[1], err[1]);
	close(out[1]);
	close(err[1]);
	free(command);
	*ret = (struct running){ .pid = pid, .out = out[0], .err = err[0] };
}

void sandbox_wait(struct running *r, struct said *ret)
{
	struct pollfd fds[2] = { { .fd = r->out, .events = POLLIN },
				 { .fd = r->err, .events = POLLIN } };
	char *const buffers[2] = { ret->out, ret->err };
	size_t sizes[2] = { 0, 0 };
	unsigned open = 2;
	while (open > 0) {
		assert_true(poll(fds, 2, WAIT_MS) > 0); /* somebody keeps the pipes */
		for (size_t i = 0; i < 2; i++) {
			if (fds[i].fd < 0 || fds[i].revents == 0)
				continue;
			ssize_t n = read(fds[i].fd, buffers[i] + sizes[i],
					 sizeof(ret->out) - 1 - sizes[i]);
			assert_true(n >= 0);
			sizes[i] += (size_t)n;
			if (n > 0)
				continue;
			close(fds[i].fd);
			fds[i].fd = -1;
			open--;
		}
	}
	ret->out[sizes[0]] = ret->err[sizes[1]] = '\0';
	int status;
	assert_int_equal(waitpid(r->pid, &status, 0), r->pid);
	ret->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void sandbox_run(const struct sandbox *s, char *command, struct said *ret)
{
	struct running r;
	sandbox_start(s, command, &r);
	sandbox_wait(&r, ret);
}

static bool read_agent(const char *path, struct runloop_agent *ret)
{
	FILE *file = fopen(path, "rb");
	if (file == NULL)
		return false;
	static uint8_t data[16 << 20];
	size_t size = fread(data, 1, sizeof(data), file);
	fclose(file);
	uint8_t hash[crypto_hash_sha256_BYTES];
	crypto_hash_sha256(hash, data, size);
	*ret = (struct runloop_agent){ .data = data, .size = size };
	sodium_bin2hex(ret->hash, sizeof(ret->hash), hash, sizeof(hash));
	return memmem(data, size, "registration", strlen("registration")) != NULL;
}

bool sandbox_agent(struct runloop_agent agents[RUNLOOP_ARCH_COUNT])
{
	struct utsname machine;
	char path[1024];
	const char *folder = getenv("PTYCAST_BUILD_DIR");
	memset(agents, 0, RUNLOOP_ARCH_COUNT * sizeof(agents[0]));
	if (uname(&machine) < 0 || strcmp(machine.machine, "x86_64") != 0)
		return false;
	snprintf(path, sizeof(path), "%s/ptycast-agent", folder == NULL ? "build" : folder);
	return read_agent("build/ptycast-agent", &agents[RUNLOOP_X86_64]) ||
	       read_agent(path, &agents[RUNLOOP_X86_64]);
}
