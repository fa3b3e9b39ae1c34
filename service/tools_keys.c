/* tools_keys.c -- `ptycast keygen` and `ptycast seal`. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "service/tools_private.h"
#include "store/seal.h"

#define SEAL_BYTES_MAX ((size_t)1 << 20)

/* ---- keygen ---- */

int tool_keygen(int argc, char **argv)
{
	char public_hex[SEAL_HEX_DIGITS + 1], private_hex[SEAL_HEX_DIGITS + 1];
	if (tool_wants_help(argc, argv)) {
		printf("usage: ptycast keygen\n"
		       "       ptycast keygen --public [--FLAG VALUE ...]\n"
		       "Makes a key pair that seals credentials and prints it as two lines for an env file. With --public it\n"
		       "prints the public half of the newest configured key instead, which others may have to seal with.\n");
		return 0;
	}
	if (tool_take_flag(&argc, argv, "--public")) {
		struct tool_bench b;
		int status = tool_open_keys(&b, false, argc, argv);
		if (status != 0)
			return status;
		seal_public_hex(b.app.seal_keys, public_hex);
		printf("PTYCAST_PUBLIC_KEY=%s\n", public_hex);
		tool_close(&b);
		return tool_flushed(0);
	}
	if (argc > 0) {
		tool_fail("keygen takes no arguments; see ptycast keygen --help");
		return 2;
	}
	tool_hide_memory();
	seal_make_pair(public_hex, private_hex);
	printf("PTYCAST_PUBLIC_KEY=%s\nPTYCAST_PRIVATE_KEY=%s\n", public_hex, private_hex);
	explicit_bzero(private_hex, sizeof(private_hex));
	return tool_flushed(0);
}

/* ---- seal ---- */

/* All of stdin, at most SEAL_BYTES_MAX; NULL and an error that was printed. */
static char *read_stdin(size_t *size)
{
	char *data = malloc(SEAL_BYTES_MAX + 1);
	*size = 0;
	ssize_t n = data == NULL ? -1 : 1;
	while (n > 0 && *size <= SEAL_BYTES_MAX) {
		n = read(STDIN_FILENO, data + *size, SEAL_BYTES_MAX + 1 - *size);
		if (n > 0)
			*size += (size_t)n;
	}
	if (n >= 0 && *size <= SEAL_BYTES_MAX)
		return data;
	tool_fail("stdin: %s", n >= 0 ? "more than 1 MiB" : strerror(errno));
	seal_free(data, data == NULL ? 0 : SEAL_BYTES_MAX + 1);
	return NULL;
}

/* The public half that was given alone: by the only flag, or by the environment; or NULL. */
static const char *given_public_key(int argc, char **argv)
{
	if (argc == 1 && strncmp(argv[0], "--public-key=", 13) == 0)
		return argv[0] + 13;
	if (argc == 2 && strcmp(argv[0], "--public-key") == 0)
		return argv[1];
	const char *key = getenv("PTYCAST_PUBLIC_KEY");
	return argc == 0 && key != NULL && key[0] != '\0' ? key : NULL;
}

int tool_seal(int argc, char **argv)
{
	if (tool_wants_help(argc, argv)) {
		printf("usage: ptycast seal [--public-key HEX] <SECRET\n"
		       "       ptycast seal [--FLAG VALUE ...] <SECRET\n"
		       "Seals what stands on stdin, without one newline at its end, and prints it as credential_sealed takes it. By\n"
		       "PTYCAST_PUBLIC_KEY, else by the configured key or the one beside the store.\n");
		return 0;
	}
	const char *public_hex = given_public_key(argc, argv);
	struct tool_bench b = { 0 };
	if (public_hex == NULL) {
		int status = tool_open_keys(&b, false, argc, argv);
		if (status != 0)
			return status;
	}
	tool_hide_memory();
	size_t size;
	char *data = read_stdin(&size), *sealed = NULL;
	if (data != NULL) {
		size_t used = size > 0 && data[size - 1] == '\n' ? size - 1 : size;
		sealed = public_hex != NULL ? seal_for(public_hex, data, used)
					    : seal(b.app.seal_keys, data, used);
		if (sealed != NULL)
			puts(sealed);
		else
			tool_fail("it could not be sealed: is the public key %d hex digits?",
				  SEAL_HEX_DIGITS);
		seal_free(data, SEAL_BYTES_MAX + 1);
	}
	tool_close(&b);
	int status = sealed != NULL ? 0 : 1;
	free(sealed);
	return tool_flushed(status);
}
