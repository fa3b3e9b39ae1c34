/* config_check.c -- what options must look like and which go together. Texts never hold a secret,
 * nor a URL, which may hold one. */
#include "service/config_check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/provider.h"
#include "store/redis_url.h"

#define MIN_KEY_CHARS 8
#define MIN_JWT_SECRET_BYTES 16
#define MAX_SUBJECT_BYTES 255 /* SUBJECT_BYTES of auth.h less its 0 */
#define KEY_HEX_DIGITS 64

/* Splits "a,b,,c": calls each for every part that is not empty, trimmed. */
static int for_each_part(const char *list,
			 int (*each)(void *arg, const char *part, size_t size, struct error *err),
			 void *arg, struct error *err)
{
	for (const char *at = list; at != NULL && *at != '\0';) {
		at += strspn(at, ", ");
		size_t size = strcspn(at, ",");
		size_t next = size;
		while (size > 0 && at[size - 1] == ' ')
			size--;
		int rc = size > 0 ? each(arg, at, size, err) : 0;
		if (rc != 0)
			return rc;
		at += next;
	}
	return 0;
}

static bool part_is(const char *part, size_t size, const char *name)
{
	return strlen(name) == size && memcmp(part, name, size) == 0;
}

/* --- API keys --- */

static bool is_role(const char *text, size_t size)
{
	return part_is(text, size, "view") || part_is(text, size, "write") ||
	       part_is(text, size, "admin") || part_is(text, size, "operator");
}

static bool is_printable(const char *text, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
			return false;
	return true;
}

/* Where the role begins in "SUBJECT:ROLE", or NULL when no role is given. A DID has colons of its
 * own: "did:plc:abc" is a subject, and only what follows a third colon can be a role. */
static const char *find_role(const char *subject, size_t size)
{
	const char *colon = memrchr(subject, ':', size);
	if (colon == NULL)
		return NULL;
	size_t colons = 0;
	for (size_t i = 0; i < size; i++)
		colons += subject[i] == ':';
	if (size >= 4 && memcmp(subject, "did:", 4) == 0 && colons <= 2)
		return NULL;
	return colon + 1;
}

/* Takes one "KEY=SUBJECT[:ROLE]". A key may hold "=", as base64 does: the last one separates. */
static int add_api_key(void *arg, const char *part, size_t size, struct error *err)
{
	struct config *c = arg;
	size_t number = c->api_keys_count + 1;
	const char *equals = memrchr(part, '=', size);
	if (equals == NULL)
		return error_set(err, -EINVAL, "--api-keys: entry %zu is not KEY=SUBJECT[:ROLE]",
				 number);
	size_t key_size = (size_t)(equals - part);
	const char *subject = equals + 1;
	size_t subject_size = size - key_size - 1;
	const char *role = find_role(subject, subject_size);
	size_t role_size = 0;
	if (role != NULL) {
		role_size = subject_size - (size_t)(role - subject);
		subject_size -= role_size + 1;
	}

	if (key_size < MIN_KEY_CHARS)
		return error_set(err, -EINVAL,
				 "--api-keys: the key of entry %zu has less than %d "
				 "characters",
				 number, MIN_KEY_CHARS);
	if (!is_printable(part, key_size) || memchr(part, ' ', key_size) != NULL)
		return error_set(err, -EINVAL,
				 "--api-keys: the key of entry %zu has a space or "
				 "control character",
				 number);
	if (subject_size == 0)
		return error_set(err, -EINVAL, "--api-keys: entry %zu has an empty subject",
				 number);
	if (subject_size > MAX_SUBJECT_BYTES || !is_printable(subject, subject_size))
		return error_set(err, -EINVAL,
				 "--api-keys: the subject of entry %zu has a control "
				 "character or more than %d bytes",
				 number, MAX_SUBJECT_BYTES);
	if (role != NULL && !is_role(role, role_size))
		return error_set(err, -EINVAL,
				 "--api-keys: entry %zu has an unknown role: view, write, admin or "
				 "operator",
				 number);
	for (size_t i = 0; i < c->api_keys_count; i++)
		if (part_is(part, key_size, c->api_keys[i].key))
			return error_set(err, -EINVAL,
					 "--api-keys: entries %zu and %zu have the "
					 "same key",
					 i + 1, number);

	struct config_api_key *grown = reallocarray(c->api_keys, number,
						    sizeof(struct config_api_key));
	if (grown == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	c->api_keys = grown;
	c->api_keys[number - 1] = (struct config_api_key){
		.key = strndup(part, key_size),
		.subject = strndup(subject, subject_size),
		.role = role != NULL ? strndup(role, role_size) : strdup("admin"),
	};
	c->api_keys_count = number;
	struct config_api_key *added = &c->api_keys[number - 1];
	if (added->key == NULL || added->subject == NULL || added->role == NULL)
		return error_set(err, -ENOMEM, "out of memory");
	return 0;
}

int config_add_api_keys(struct config *c, const char *text, struct error *err)
{
	return for_each_part(text, add_api_key, c, err);
}

/* --- what the others mean --- */

int config_split_listen(const char *text, char host[64], uint16_t *port)
{
	const char *colon = strrchr(text, ':');
	if (colon == NULL)
		return -EINVAL;
	const char *start = text;
	size_t size = (size_t)(colon - text);
	int family = AF_INET;
	if (size >= 2 && start[0] == '[' && start[size - 1] == ']') {
		family = AF_INET6;
		start++;
		size -= 2;
	}
	char name[64];
	if (size >= sizeof(name))
		return -EINVAL;
	memcpy(name, start, size);
	name[size] = '\0';
	if (family == AF_INET && strcmp(name, "localhost") == 0)
		strcpy(name, "127.0.0.1");
	unsigned char address[sizeof(struct in6_addr)];
	if (inet_pton(family, name, address) != 1)
		return -EINVAL;

	size_t digits = strspn(colon + 1, "0123456789");
	if (digits == 0 || digits > 5 || colon[1 + digits] != '\0')
		return -EINVAL;
	unsigned long n = strtoul(colon + 1, NULL, 10);
	if (n > UINT16_MAX)
		return -EINVAL;
	snprintf(host, 64, "%s", name);
	*port = (uint16_t)n;
	return 0;
}

bool config_is_loopback(const char *host)
{
	struct in_addr v4;
	struct in6_addr v6;
	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static int check_listen(const struct config *c, struct error *err)
{
	char host[64];
	uint16_t port;
	if (config_split_listen(c->listen, host, &port) != 0)
		return error_set(err, -EINVAL,
				 "--listen: ADDRESS:PORT as in 127.0.0.1:8080 or [::1]:8080, got "
				 "\"%.80s\"",
				 c->listen);
	bool has_credential = c->api_keys_count > 0 || c->jwt_secret != NULL ||
			      c->jwt_public_key_file != NULL;
	if (!has_credential && !config_is_loopback(host))
		return error_set(err, -EINVAL,
				 "--listen %s is not a loopback address: that needs a credential, "
				 "--api-keys, --jwt-secret or --jwt-public-key-file",
				 c->listen);
	if (c->metrics_listen != NULL && config_split_listen(c->metrics_listen, host, &port) != 0)
		return error_set(err, -EINVAL,
				 "--metrics-listen: ADDRESS:PORT as in 127.0.0.1:9090, got "
				 "\"%.80s\"",
				 c->metrics_listen);
	return 0;
}

struct provider_names {
	bool local, url, runloop;
};

static int note_provider(void *arg, const char *part, size_t size, struct error *err)
{
	struct provider_names *named = arg;
	if (part_is(part, size, "local"))
		named->local = true;
	else if (part_is(part, size, "url"))
		named->url = true;
	else if (part_is(part, size, "runloop"))
		named->runloop = true;
	else
		return error_set(err, -EINVAL, "--providers: local, url, runloop, got \"%.*s\"",
				 size < 40 ? (int)size : 40, part);
	return 0;
}

static int check_providers(const struct config *c, struct error *err)
{
	struct provider_names named = { 0 };
	int rc = for_each_part(c->providers, note_provider, &named, err);
	if (rc != 0)
		return rc;
	rc = named.runloop ? runloop_check_config(c->runloop_base_url, c->runloop_tunnel_url, err)
			   : 0;
	if (rc != 0)
		return rc;
	/* The URL itself is not repeated: it may hold a token. */
	const char *url = c->tunnel_url;
	if (url == NULL)
		return named.url ? error_set(err, -EINVAL, "--providers url needs --tunnel-url")
				 : 0;
	const char *host = strncmp(url, "ws://", 5) == 0    ? url + 5
			   : strncmp(url, "wss://", 6) == 0 ? url + 6
							    : NULL;
	if (host == NULL || *host == '\0' || *host == '/' || *host == ':')
		return error_set(err, -EINVAL,
				 "--tunnel-url: ws://HOST or wss://HOST, with port "
				 "and path if need be");
	if (!is_printable(url, strlen(url)) || strpbrk(url, " \\\"") != NULL)
		return error_set(err, -EINVAL,
				 "--tunnel-url holds a character that no URL may hold");
	return 0;
}

static int check_origin(void *arg, const char *part, size_t size, struct error *err)
{
	(void)arg;
	size_t scheme = size > 8 && memcmp(part, "https://", 8) == 0  ? 8
			: size > 7 && memcmp(part, "http://", 7) == 0 ? 7
								      : 0;
	bool good = scheme > 0 && is_printable(part, size);
	for (size_t i = scheme; i < size; i++)
		good = good && part[i] != '/' && part[i] != '*' && part[i] != ' ' && part[i] != '@';
	if (!good)
		return error_set(err, -EINVAL,
				 "--cors-origins: exact origins as in https://app.example.com, "
				 "without a path, got \"%.*s\"",
				 size < 80 ? (int)size : 80, part);
	return 0;
}

static int check_host(void *arg, const char *part, size_t size, struct error *err)
{
	(void)arg;
	for (size_t i = 0; i < size; i++)
		if (part[i] <= ' ' || part[i] > '~' || strchr("/*@\"\\", part[i]) != NULL)
			return error_set(
				err, -EINVAL,
				"--allowed-hosts: names as in pty.example.com, got \"%.*s\"",
				size < 80 ? (int)size : 80, part);
	return 0;
}

/* Not repeated: it may hold a password. */
static int check_store(const struct config *c, struct error *err)
{
	struct redis_url url;
	struct error why = { 0 };
	if (strncmp(c->store, "sqlite:", 7) == 0 && c->store[7] != '\0')
		return 0;
	if (strncmp(c->store, "redis:", 6) != 0)
		return error_set(
			err, -EINVAL,
			"--store: sqlite:PATH as in sqlite:ptycast.db, or redis://HOST:PORT");
	if (redis_url_parse(c->store + 6, &url, &why) != 0)
		return error_set(err, -EINVAL, "--store: %.200s", why.text);
	redis_url_fini(&url);
	if (c->private_key == NULL)
		return error_set(
			err, -EINVAL,
			"--store redis://... needs --private-key, the same at all that share it: "
			"ptycast keygen makes one");
	return 0;
}

static bool is_hex_key(const char *text, size_t size)
{
	return size == KEY_HEX_DIGITS && strspn(text, "0123456789abcdefABCDEF") >= size;
}

static int check_private_key(void *arg, const char *part, size_t size, struct error *err)
{
	(void)arg;
	if (is_hex_key(part, size))
		return 0;
	return error_set(err, -EINVAL, "--private-key: %d hex digits, of several the newest first",
			 KEY_HEX_DIGITS);
}

static int check_keys(const struct config *c, struct error *err)
{
	if (c->jwt_secret != NULL && strlen(c->jwt_secret) < MIN_JWT_SECRET_BYTES)
		return error_set(err, -EINVAL, "--jwt-secret has less than %d bytes",
				 MIN_JWT_SECRET_BYTES);
	if (c->public_key != NULL && c->private_key == NULL)
		return error_set(err, -EINVAL, "--public-key needs --private-key");
	if (c->public_key != NULL && !is_hex_key(c->public_key, strlen(c->public_key)))
		return error_set(err, -EINVAL, "--public-key: %d hex digits", KEY_HEX_DIGITS);
	return for_each_part(c->private_key, check_private_key, NULL, err);
}

static int check_limits(const struct config *c, struct error *err)
{
	if (c->journals_total_bytes < c->journal_bytes)
		return error_set(err, -EINVAL,
				 "--journals-total-bytes is less than --journal-bytes");
	if (c->input_queue_bytes < c->input_bytes)
		return error_set(err, -EINVAL, "--input-queue-bytes is less than --input-bytes");
	return 0;
}

int config_check(const struct config *c, struct error *err)
{
	int rc = check_listen(c, err);
	if (rc == 0)
		rc = check_store(c, err);
	if (rc == 0)
		rc = check_providers(c, err);
	if (rc == 0)
		rc = for_each_part(c->cors_origins, check_origin, NULL, err);
	if (rc == 0)
		rc = for_each_part(c->allowed_hosts, check_host, NULL, err);
	if (rc == 0)
		rc = check_keys(c, err);
	if (rc == 0)
		rc = check_limits(c, err);
	return rc;
}
