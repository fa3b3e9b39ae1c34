/* runloop_url.c -- see runloop_url.h. Source of the default: protocols/runloop.md section 3. */
#include "providers/runloop_url.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "providers/provider.h"

#define HOST_BYTES 254
#define TEMPLATE_DEFAULT "wss://{port}-{tunnel_key}.tunnel.{domain}"

struct url {
	bool tls;
	char host[HOST_BYTES]; /* without the brackets of an IPv6 address */
};

/* Reads scheme://host[:port][/path], the scheme being plain or, with TLS, that and an s. False: it is none, or there
 * is more to it: a user, a query, a character that does not belong there. */
static bool parse(const char *text, const char *plain, struct url *ret)
{
	size_t n = strlen(plain);
	if (strncmp(text, plain, n) != 0)
		return false;
	text += n;
	ret->tls = *text == 's';
	text += ret->tls ? 1 : 0;
	if (strncmp(text, "://", 3) != 0)
		return false;
	text += 3;
	for (const char *at = text; *at != '\0'; at++)
		if ((unsigned char)*at <= ' ' || (unsigned char)*at >= 0x7f ||
		    strchr("@?#\\{}<>\"'`^|", *at) != NULL)
			return false;
	bool v6 = *text == '[';
	const char *host = v6 ? text + 1 : text;
	size_t size = v6 ? strspn(host, "0123456789abcdefABCDEF:.")
			 : strspn(host, "0123456789abcdefghijklmnopqrstuvwxyz"
					"ABCDEFGHIJKLMNOPQRSTUVWXYZ-._");
	if (size == 0 || size >= sizeof(ret->host) || (v6 && host[size] != ']'))
		return false;
	memcpy(ret->host, host, size);
	ret->host[size] = '\0';
	const char *rest = host + size + (v6 ? 1 : 0);
	if (*rest == ':') {
		char *end;
		if (rest[1] < '0' || rest[1] > '9')
			return false;
		unsigned long port = strtoul(rest + 1, &end, 10);
		if (port < 1 || port > 65535)
			return false;
		rest = end;
	}
	return *rest == '\0' || *rest == '/';
}

static bool is_address(const char *host)
{
	struct in6_addr ignored;
	return inet_pton(AF_INET, host, &ignored) == 1 || inet_pton(AF_INET6, host, &ignored) == 1;
}

static bool is_loopback(const char *host)
{
	struct in_addr v4;
	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0;
}

static size_t count(const char *text, const char *word)
{
	size_t n = 0;
	for (const char *at = text; (at = strstr(at, word)) != NULL; at += strlen(word))
		n++;
	return n;
}

static bool is_label(const char *key)
{
	size_t size = strlen(key);
	return size >= 1 && size <= 63 &&
	       strspn(key, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_") ==
		       size;
}

/* Puts the values in. Returns 0 or -EINVAL. */
static int expand(const char *template, const char *port, const char *key, const char *domain,
		  char ret[RUNLOOP_URL_BYTES])
{
	const struct {
		const char *name, *value;
	} words[] = { { "{port}", port }, { "{tunnel_key}", key }, { "{domain}", domain } };
	size_t n = 0;
	while (*template != '\0') {
		const char *value = NULL;
		for (size_t i = 0; i < sizeof(words) / sizeof(words[0]) && value == NULL; i++) {
			size_t size = strlen(words[i].name);
			if (strncmp(template, words[i].name, size) != 0)
				continue;
			value = words[i].value;
			template += size;
		}
		size_t size = value == NULL ? 1 : strlen(value);
		if (n + size >= RUNLOOP_URL_BYTES)
			return -EINVAL;
		memcpy(ret + n, value == NULL ? template : value, size);
		n += size;
		template += value == NULL ? 1 : 0;
	}
	while (n > 0 && ret[n - 1] == '/')
		n--;
	ret[n] = '\0';
	return 0;
}

int runloop_url_of_port(const char *base_url, const char *tunnel_url, const char *tunnel_key,
			unsigned port, bool http, char ret[RUNLOOP_URL_BYTES])
{
	const char *template = tunnel_url == NULL ? TEMPLATE_DEFAULT : tunnel_url;
	struct url base, url;
	char number[16], made[RUNLOOP_URL_BYTES] = "";
	snprintf(number, sizeof(number), "%u", port);
	if (!is_label(tunnel_key) || port < 1 || port > 65535 || !parse(base_url, "http", &base) ||
	    count(template, "{port}") != 1 || count(template, "{tunnel_key}") != 1 ||
	    count(template, "{domain}") > 1)
		return -EINVAL;
	const char *domain = base.host + (strncmp(base.host, "api.", 4) == 0 ? 4 : 0);
	if (expand(template, number, tunnel_key, domain, made) < 0 || !parse(made, "ws", &url) ||
	    (!url.tls && !is_loopback(url.host)))
		return -EINVAL;
	int n = snprintf(ret, RUNLOOP_URL_BYTES, "%s%s", http ? "http" : "ws", made + 2);
	return n < 0 || n >= RUNLOOP_URL_BYTES ? -EINVAL : 0;
}

int runloop_check_config(const char *base_url, const char *tunnel_url, struct error *err)
{
	struct url base;
	char made[RUNLOOP_URL_BYTES];
	if (!parse(base_url, "http", &base) || base_url[strlen(base_url) - 1] == '/')
		return error_set(
			err, -EINVAL,
			"--runloop-base-url: an address as https://api.runloop.ai, without "
			"a slash at its end");
	if (!base.tls && !is_loopback(base.host))
		return error_set(err, -EINVAL,
				 "--runloop-base-url: http:// is for loopback hosts only");
	if (is_address(base.host) && (tunnel_url == NULL || count(tunnel_url, "{domain}") != 0))
		return error_set(err, -EINVAL,
				 "--runloop-tunnel-url: must be given, without {domain}, as "
				 "--runloop-base-url has an address and no name");
	if (runloop_url_of_port(base_url, tunnel_url, "key", 8000, false, made) < 0)
		return error_set(
			err, -EINVAL,
			"--runloop-tunnel-url: wss:// (ws:// for loopback hosts only), "
			"with {port} and {tunnel_key} once each, and {domain} at most once");
	return 0;
}
