/* seal.c -- see seal.h. */
#include "store/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PUBLIC_BYTES crypto_box_PUBLICKEYBYTES
#define PRIVATE_BYTES crypto_box_SECRETKEYBYTES
#define PAIR_BYTES ((size_t)130) /* of a file: two lines of SEAL_HEX_DIGITS */
#define FILE_BYTES_MAX (SEAL_PAIRS_MAX * (PAIR_BYTES + 2)) /* the lines may end in \r\n */
#define TEXT_VARIANT sodium_base64_VARIANT_URLSAFE_NO_PADDING

struct pair {
	uint8_t public_half[PUBLIC_BYTES];
	uint8_t private_half[PRIVATE_BYTES];
};

struct seal_keys {
	size_t count; /* 1 or more */
	struct pair pairs[SEAL_PAIRS_MAX];
};

/* --- keys --- */

/* Not one pair yet. NULL, with err filled, when there is no memory or no random numbers. */
static struct seal_keys *allocate_keys(struct error *err)
{
	struct seal_keys *k = sodium_init() >= 0 ? sodium_malloc(sizeof(*k)) : NULL;
	if (k == NULL)
		error_set(err, -ENOMEM, "libsodium has no memory to keep the sealing keys in");
	else
		k->count = 0;
	return k;
}

static bool from_hex(const char *hex, size_t digits, uint8_t *ret, size_t size)
{
	size_t bytes = 0;
	return digits == 2 * size &&
	       sodium_hex2bin(ret, size, hex, digits, NULL, &bytes, NULL) == 0 && bytes == size;
}

/* Adds a pair behind the others. public_hex may be NULL. from is said in the error's text. */
static int add_pair(struct seal_keys *k, const char *from, const char *public_hex,
		    size_t public_digits, const char *private_hex, size_t private_digits,
		    struct error *err)
{
	if (k->count == SEAL_PAIRS_MAX)
		return error_set(err, -EINVAL, "%.100s: more than %d sealing keys", from,
				 SEAL_PAIRS_MAX);
	struct pair *pair = &k->pairs[k->count];
	uint8_t given[PUBLIC_BYTES];
	if (!from_hex(private_hex, private_digits, pair->private_half, PRIVATE_BYTES) ||
	    (public_hex != NULL && !from_hex(public_hex, public_digits, given, PUBLIC_BYTES)))
		return error_set(err, -EINVAL, "%.100s: a sealing key is not %d hex digits", from,
				 SEAL_HEX_DIGITS);
	if (crypto_scalarmult_base(pair->public_half, pair->private_half) != 0 ||
	    (public_hex != NULL && memcmp(given, pair->public_half, PUBLIC_BYTES) != 0))
		return error_set(err, -EINVAL, "%.100s: the sealing keys are not a pair", from);
	k->count++;
	return 0;
}

/* From here on they do not change. rc: of making them. */
static int finish_keys(struct seal_keys *k, int rc, struct seal_keys **ret)
{
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
	struct seal_keys *k = allocate_keys(err);
	if (k == NULL)
		return -ENOMEM;
	int rc = 0;
	const char *other_half = public_hex; /* of the newest only */
	for (const char *at = private_hex; rc == 0; at++) {
		at += strspn(at, " ");
		size_t size = strcspn(at, ", ");
		rc = add_pair(k, "configuration", other_half,
			      other_half == NULL ? 0 : strlen(other_half), at, size, err);
		other_half = NULL;
		at += size + strspn(at + size, " ");
		if (*at == '\0')
			break;
		if (rc == 0 && *at != ',')
			rc = error_set(err, -EINVAL,
				       "configuration: a sealing key is not %d hex digits",
				       SEAL_HEX_DIGITS);
	}
	return finish_keys(k, rc, ret);
}

void seal_make_pair(char public_hex[SEAL_HEX_DIGITS + 1], char private_hex[SEAL_HEX_DIGITS + 1])
{
	struct pair pair;
	crypto_box_keypair(pair.public_half, pair.private_half);
	sodium_bin2hex(public_hex, SEAL_HEX_DIGITS + 1, pair.public_half, PUBLIC_BYTES);
	sodium_bin2hex(private_hex, SEAL_HEX_DIGITS + 1, pair.private_half, PRIVATE_BYTES);
	sodium_memzero(&pair, sizeof(pair));
}

void seal_public_hex(const struct seal_keys *k, char ret[SEAL_HEX_DIGITS + 1])
{
	sodium_bin2hex(ret, SEAL_HEX_DIGITS + 1, k->pairs[0].public_half, PUBLIC_BYTES);
}

void seal_keys_destroy(struct seal_keys *k)
{
	sodium_free(k); /* wipes, and takes NULL */
}

/* --- the file --- */

/* Takes the next line off text, without its end: \n, \r\n, or none at the last. */
static const char *take_line(const char **text, size_t *left, size_t *size)
{
	const char *line = *text;
	const char *newline = memchr(line, '\n', *left);
	size_t whole = newline == NULL ? *left : (size_t)(newline - line) + 1;
	*text += whole;
	*left -= whole;
	*size = newline == NULL ? whole : whole - 1;
	if (*size > 0 && line[*size - 1] == '\r')
		--*size;
	return line;
}

static int parse_file(const char *path, const char *text, size_t left, struct seal_keys **ret,
		      struct error *err)
{
	struct seal_keys *k = allocate_keys(err);
	if (k == NULL)
		return -ENOMEM;
	while (left > 0 && (text[left - 1] == '\n' || text[left - 1] == '\r'))
		left--;
	int rc = 0;
	do {
		size_t public_digits, private_digits;
		const char *public_hex = take_line(&text, &left, &public_digits);
		const char *private_hex = take_line(&text, &left, &private_digits);
		rc = private_digits == 0
			     ? error_set(err, -EINVAL, "%.100s: not two lines a pair", path)
			     : add_pair(k, path, public_hex, public_digits, private_hex,
					private_digits, err);
	} while (rc == 0 && left > 0);
	return finish_keys(k, rc, ret);
}

/* Returns -ENOENT, err untouched, when there is none. */
static int read_key_file(const char *path, struct seal_keys **ret, struct error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0)
		return error_set(err, -errno, "%.100s: %s", path, strerror(errno));
	char text[FILE_BYTES_MAX + 1]; /* one more, to see that it is too long */
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
		     : size == sizeof(text)
			     ? error_set(err, -EINVAL, "%.100s: more than %d sealing keys", path,
					 SEAL_PAIRS_MAX)
			     : parse_file(path, text, (size_t)size, ret, err);
	}
	close(fd);
	sodium_memzero(text, sizeof(text));
	return rc;
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
	if (sodium_init() < 0)
		return error_set(err, -EIO, "libsodium does not start");
	char public_hex[SEAL_HEX_DIGITS + 1], private_hex[SEAL_HEX_DIGITS + 1];
	char text[PAIR_BYTES + 1];
	seal_make_pair(public_hex, private_hex);
	snprintf(text, sizeof(text), "%s\n%s\n", public_hex, private_hex);
	sodium_memzero(private_hex, sizeof(private_hex));

	char *temporary = NULL;
	if (asprintf(&temporary, "%s.%08x", path, randombytes_random()) < 0) {
		sodium_memzero(text, sizeof(text));
		return error_set(err, -ENOMEM, "out of memory");
	}
	int rc = write_new_file(temporary, text, PAIR_BYTES);
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

static char *seal_by(const uint8_t public_half[PUBLIC_BYTES], const void *data, size_t size)
{
	size_t box_size = size + crypto_box_SEALBYTES;
	size_t text_size = sodium_base64_encoded_len(box_size, TEXT_VARIANT);
	uint8_t *box = malloc(box_size);
	char *text = malloc(text_size);
	if (box == NULL || text == NULL || crypto_box_seal(box, data, size, public_half) != 0) {
		free(box);
		free(text);
		return NULL;
	}
	sodium_bin2base64(text, text_size, box, box_size, TEXT_VARIANT);
	free(box);
	return text;
}

char *seal(const struct seal_keys *k, const void *data, size_t size)
{
	return seal_by(k->pairs[0].public_half, data, size);
}

char *seal_for(const char *public_hex, const void *data, size_t size)
{
	uint8_t public_half[PUBLIC_BYTES];
	if (sodium_init() < 0 ||
	    !from_hex(public_hex, strlen(public_hex), public_half, PUBLIC_BYTES))
		return NULL;
	return seal_by(public_half, data, size);
}

/* Tries the pairs from the newest on; *which is the one that opened it. */
static int open_by(const struct seal_keys *k, const char *sealed, uint8_t **ret, size_t *ret_size,
		   size_t *which)
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
	int rc = data == NULL ? -ENOMEM : -EBADMSG;
	for (size_t i = 0; rc == -EBADMSG && i < k->count; i++) {
		const struct pair *pair = &k->pairs[i];
		*which = i;
		if (crypto_box_seal_open(data, box, box_size, pair->public_half,
					 pair->private_half) == 0)
			rc = 0;
	}
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

int seal_open(const struct seal_keys *k, const char *sealed, uint8_t **ret, size_t *ret_size)
{
	size_t which;
	return open_by(k, sealed, ret, ret_size, &which);
}

bool seal_is_newest(const struct seal_keys *k, const char *sealed)
{
	uint8_t *data = NULL;
	size_t size, which;
	if (open_by(k, sealed, &data, &size, &which) != 0)
		return false;
	seal_free(data, size);
	return which == 0;
}

int reseal(const struct seal_keys *k, const char *sealed, char **ret)
{
	uint8_t *data = NULL;
	size_t size, which;
	*ret = NULL;
	int rc = open_by(k, sealed, &data, &size, &which);
	if (rc != 0)
		return rc;
	if (which != 0) {
		*ret = seal(k, data, size);
		rc = *ret == NULL ? -ENOMEM : 1;
	}
	seal_free(data, size);
	return rc;
}

void seal_free(void *data, size_t size)
{
	if (data == NULL)
		return;
	sodium_memzero(data, size);
	free(data);
}
