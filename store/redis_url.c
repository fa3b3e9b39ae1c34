/* redis_url.c -- see redis_url.h. No text quotes what stands in front of the "@". */
#include "store/redis_url.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PORT_DEFAULT 6379
#define DB_MAX 65535

static void free_secret(char *text)
{
	if (text != NULL)
		explicit_bzero(text, strlen(text));
	free(text);
}

void redis_url_fini(struct redis_url *url)
{
	free_secret(url->user);
	free_secret(url->password);
	explicit_bzero(url, sizeof(*url));
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int decode(const char *text, size_t size, const char *what, char **ret, struct error *err)
{
	char *decoded = malloc(size + 1), *out = decoded;
	if (decoded == NULL)
		return error_set(err, -ENOMEM, "no memory");
	for (size_t i = 0; i < size; i++) {
		char c = text[i];
		if (c == '%') {
			int high = i + 2 < size ? hex_digit(text[i + 1]) : -1;
			int low = high >= 0 ? hex_digit(text[i + 2]) : -1;
			c = (char)(low >= 0 ? high << 4 | low : 0);
			i += 2;
		}
		if (c == '\0') {
			*out = '\0';
			free_secret(decoded);
			return error_set(err, -EINVAL,
					 "redis: the %s has a %% without two hex digits", what);
		}
		*out++ = c;
	}
	*out = '\0';
	*ret = decoded;
	return 0;
}

static int parse_who(const char *text, size_t size, struct redis_url *url, struct error *err)
{
	const char *colon = memchr(text, ':', size);
	if (colon == NULL || colon + 1 == text + size)
		return error_set(err, -EINVAL,
				 "redis: a password is missing: redis://[user]:password@host:port");
	int rc = 0;
	if (colon > text)
		rc = decode(text, (size_t)(colon - text), "user", &url->user, err);
	if (rc == 0)
		rc = decode(colon + 1, (size_t)(text + size - colon - 1), "password",
			    &url->password, err);
	return rc;
}

/* False when there is anything else than digits, or it is more than max. */
static bool parse_number(const char *text, size_t size, unsigned max, unsigned *ret)
{
	unsigned n = 0;
	for (size_t i = 0; i < size; i++) {
		if (text[i] < '0' || text[i] > '9' || i >= 6)
			return false;
		n = n * 10 + (unsigned)(text[i] - '0');
	}
	*ret = n;
	return size > 0 && n <= max;
}

static int parse_host(const char *text, size_t size, struct redis_url *url, struct error *err)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789.-_";
	const char *host = text, *end = text + size;
	size_t host_size;
	if (size > 0 && *text == '[') {
		host = text + 1;
		host_size = strspn(host, "0123456789abcdefABCDEF:.");
		text = host + host_size;
		if (text >= end || *text++ != ']')
			return error_set(err, -EINVAL,
					 "redis: not an IPv6 address in the brackets");
	} else {
		host_size = strspn(host, letters);
		if (host_size > size)
			host_size = size;
		text = host + host_size;
	}
	if (host_size == 0 || host_size >= sizeof(url->host))
		return error_set(err, -EINVAL, "redis: no host: redis://host:port");

	unsigned port = PORT_DEFAULT;
	if (text < end &&
	    (*text != ':' || !parse_number(text + 1, (size_t)(end - text - 1), 65535, &port)))
		return error_set(err, -EINVAL,
				 "redis: behind the host may come :port and /db only");
	if (port == 0)
		return error_set(err, -EINVAL, "redis: the port is 1 to 65535");
	memcpy(url->host, host, host_size);
	url->port = (uint16_t)port;
	return 0;
}

int redis_url_parse(const char *location, struct redis_url *ret, struct error *err)
{
	struct redis_url url = { .port = PORT_DEFAULT };
	if (strncmp(location, "//", 2) != 0)
		return error_set(err, -EINVAL,
				 "redis: it is redis://[user:password@]host:port[/db]");
	location += 2;

	/* The last one: a password may hold a "@" that nobody encoded. */
	const char *at = strrchr(location, '@');
	const char *host = at != NULL ? at + 1 : location;
	size_t host_size = strcspn(host, "/");
	int rc = parse_host(host, host_size, &url, err);
	if (rc == 0 && host[host_size] == '/' && host[host_size + 1] != '\0' &&
	    !parse_number(host + host_size + 1, strlen(host + host_size + 1), DB_MAX, &url.db))
		rc = error_set(err, -EINVAL,
			       "redis: what follows the / is the number of a database");
	if (rc == 0 && at != NULL)
		rc = parse_who(location, (size_t)(at - location), &url, err);
	if (rc != 0) {
		redis_url_fini(&url);
		return rc;
	}
	*ret = url;
	return 0;
}
