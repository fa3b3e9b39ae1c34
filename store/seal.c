/* seal.c -- see seal.h. */
#include "store/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PUBLIC_BYTES crypto_box_PUBLICKEYBYTES
#define PRIVATE_BYTES crypto_box_SECRETKEYBYTES
#define HEX_DIGITS 64
#define FILE_BYTES ((size_t)130) /* two lines of HEX_DIGITS */
#define TEXT_VARIANT sodium_base64_VARIANT_URLSAFE_NO_PADDING

struct seal_keys {
	uint8_t public_half[PUBLIC_BYTES];
	uint8_t private_half[PRIVATE_BYTES];
};

/* --- keys --- */

/* NULL, with err filled, when there is no memory or no random numbers. */
static struct seal_keys *allocate_keys(struct error *err)
{
	struct seal_keys *k = sodium_init() >= 0 ? sodium_malloc(sizeof(*k)) : NULL;
	if (k == NULL)
		error_set(err, -ENOMEM, "libsodium has no memory to keep the sealing keys in");
	return k;
}

static bool from_hex(const char *hex, size_t digits, uint8_t *ret, size_t size)
{
	size_t bytes = 0;
	return digits == 2 * size &&
	       sodium_hex2bin(ret, size, hex, digits, NULL, &bytes, NULL) == 0 && bytes == size;
}

/* from is said in the error's text. */
static int parse_keys(const char *from, const char *public_hex, size_t public_digits,
		      const char *private_hex, size_t private_digits, struct seal_keys **ret,
		      struct error *err)
{
	struct seal_keys *k = allocate_keys(err);
	if (k == NULL)
		return -ENOMEM;
	int rc = 0;
	uint8_t right_half[PUBLIC_BYTES];
	if (!from_hex(public_hex, public_digits, k->public_half, PUBLIC_BYTES) ||
	    !from_hex(private_hex, private_digits, k->private_half, PRIVATE_BYTES))
		rc = error_set(err, -EINVAL, "%.100s: a sealing key is not %d hex digits", from,
			       HEX_DIGITS);
	else if (crypto_scalarmult_base(right_half, k->private_half) != 0 ||
		 memcmp(right_half, k->public_half, PUBLIC_BYTES) != 0)
		rc = error_set(err, -EINVAL, "%.100s: the sealing keys are not a pair", from);
	if (rc != 0) {
		seal_keys_destroy(k);
		return rc;
	}
	sodium_mprotect_readonly(k);
	*ret = k;
	return 0;
}

int seal_keys_from_hex(const char *public_hex, const char *private_hex, struct seal_keys **ret,
		       struct error *err)
{
	return parse_keys("configuration", public_hex, strlen(public_hex), private_hex,
			  strlen(private_hex), ret, err);
}

void seal_keys_destroy(struct seal_keys *k)
{
	sodium_free(k); /* wipes, and takes NULL */
}

/* --- the file --- */

/* text is two lines, whose ends may be \r\n and of which the last may have none. */
static int parse_file(const char *path, const char *text, size_t size, struct seal_keys **ret,
		      struct error *err)
{
	while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == '\r'))
		size--;
	const char *newline = memchr(text, '\n', size);
	if (newline == NULL)
		return error_set(err, -EINVAL, "%.100s: not two lines", path);
	size_t first = (size_t)(newline - text);
	if (first > 0 && newline[-1] == '\r')
		first--;
	const char *second = newline + 1;
	return parse_keys(path, text, first, second, (size_t)(text + size - second), ret, err);
}

/* Returns -ENOENT, err untouched, when there is none. */
static int read_key_file(const char *path, struct seal_keys **ret, struct error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0)
		return error_set(err, -errno, "%.100s: %s", path, strerror(errno));
	char text[FILE_BYTES + 3]; /* with \r\n, and one more to see that it is too long */
	struct stat st;
	int rc;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		rc = error_set(err, -EINVAL, "%.100s: not a file", path);
	} else if ((st.st_mode & 077) != 0) {
		rc = error_set(err, -EACCES,
			       "%.100s holds a private key and others may read it: chmod 600",
			       path);
	} else {
		ssize_t size = read(fd, text, sizeof(text));
		rc = size < 0 ? error_set(err, -errno, "%.100s: %s", path, strerror(errno))
			      : parse_file(path, text, (size_t)size, ret, err);
	}
	close(fd);
	sodium_memzero(text, sizeof(text));
	return rc;
}

static void format_keys(const struct seal_keys *k, char ret[FILE_BYTES + 1])
{
	char hex[HEX_DIGITS + 1];
	sodium_bin2hex(hex, sizeof(hex), k->public_half, PUBLIC_BYTES);
	size_t at = (size_t)snprintf(ret, FILE_BYTES + 1, "%s\n", hex);
	sodium_bin2hex(hex, sizeof(hex), k->private_half, PRIVATE_BYTES);
	snprintf(ret + at, FILE_BYTES + 1 - at, "%s\n", hex);
	sodium_memzero(hex, sizeof(hex));
}

/* So that the new name is still there after a power cut. */
static int sync_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder = slash == NULL ? strdup(".")
				     : strndup(path, slash == path ? 1 : (size_t)(slash - path));
	int fd = folder != NULL ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	free(folder);
	int rc = fd >= 0 && fsync(fd) == 0 ? 0 : -errno;
	if (fd >= 0)
		close(fd);
	return rc;
}

static int write_new_file(const char *path, const char *text, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	ssize_t written = write(fd, text, size);
	int rc = written == (ssize_t)size ? 0 : written < 0 ? -errno : -ENOSPC;
	if (rc == 0 && fsync(fd) != 0)
		rc = -errno;
	close(fd);
	if (rc != 0)
		unlink(path);
	return rc;
}

/* Writes a new pair beside path, then gives it its name by link(), which never replaces a file: of
 * two processes that start at once one's pair stands, and both read that one. */
static int make_key_file(const char *path, struct error *err)
{
	struct seal_keys *k = allocate_keys(err);
	if (k == NULL)
		return -ENOMEM;
	crypto_box_keypair(k->public_half, k->private_half);
	char text[FILE_BYTES + 1];
	format_keys(k, text);
	seal_keys_destroy(k);

	char *temporary = NULL;
	if (asprintf(&temporary, "%s.%08x", path, randombytes_random()) < 0) {
		sodium_memzero(text, sizeof(text));
		return error_set(err, -ENOMEM, "out of memory");
	}
	int rc = write_new_file(temporary, text, FILE_BYTES);
	sodium_memzero(text, sizeof(text));
	if (rc == 0) {
		if (link(temporary, path) != 0 && errno != EEXIST)
			rc = -errno;
		unlink(temporary);
	}
	if (rc == 0)
		rc = sync_folder(path);
	free(temporary);
	return rc == 0 ? 0 : error_set(err, rc, "%.100s cannot be made: %s", path, strerror(-rc));
}

int seal_keys_from_file(const char *path, struct seal_keys **ret, struct error *err)
{
	int rc = read_key_file(path, ret, err);
	if (rc != -ENOENT)
		return rc;
	rc = make_key_file(path, err);
	if (rc != 0)
		return rc;
	rc = read_key_file(path, ret, err);
	return rc != -ENOENT ? rc : error_set(err, rc, "%.100s vanished", path);
}

/* --- sealing --- */

char *seal(const struct seal_keys *k, const void *data, size_t size)
{
	size_t box_size = size + crypto_box_SEALBYTES;
	size_t text_size = sodium_base64_encoded_len(box_size, TEXT_VARIANT);
	uint8_t *box = malloc(box_size);
	char *text = malloc(text_size);
	if (box == NULL || text == NULL || crypto_box_seal(box, data, size, k->public_half) != 0) {
		free(box);
		free(text);
		return NULL;
	}
	sodium_bin2base64(text, text_size, box, box_size, TEXT_VARIANT);
	free(box);
	return text;
}

int seal_open(const struct seal_keys *k, const char *sealed, uint8_t **ret, size_t *ret_size)
{
	size_t text_size = strlen(sealed);
	size_t box_size = 0;
	uint8_t *box = malloc(text_size / 4 * 3 + 3);
	if (box == NULL)
		return -ENOMEM;
	if (sodium_base642bin(box, text_size / 4 * 3 + 3, sealed, text_size, NULL, &box_size, NULL,
			      TEXT_VARIANT) != 0 ||
	    box_size < crypto_box_SEALBYTES) {
		free(box);
		return -EBADMSG;
	}
	size_t size = box_size - crypto_box_SEALBYTES;
	uint8_t *data = malloc(size + 1);
	int rc = data == NULL ? -ENOMEM : 0;
	if (rc == 0 &&
	    crypto_box_seal_open(data, box, box_size, k->public_half, k->private_half) != 0)
		rc = -EBADMSG;
	free(box);
	if (rc != 0) {
		seal_free(data, size);
		return rc;
	}
	data[size] = 0;
	*ret = data;
	*ret_size = size;
	return 0;
}

void seal_free(void *data, size_t size)
{
	if (data == NULL)
		return;
	sodium_memzero(data, size);
	free(data);
}
