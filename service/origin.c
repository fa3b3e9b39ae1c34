/* origin.c -- see origin.h. */
#include "service/origin.h"

#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

bool list_has(const char *list, const char *item)
{
	size_t size = strlen(item);
	while (list != NULL && *list != '\0') {
		list += strspn(list, " ,");
		size_t length = strcspn(list, ",");
		size_t trimmed = length;
		while (trimmed > 0 && list[trimmed - 1] == ' ')
			trimmed--;
		if (trimmed == size && size > 0 && strncasecmp(list, item, size) == 0)
			return true;
		list += length;
	}
	return false;
}

static bool is_port(const char *text)
{
	size_t digits = strspn(text, "0123456789");
	return digits >= 1 && digits <= 5 && text[digits] == '\0';
}

/* Copies the name of "name", "name:port" or "[v6]:port" without the port. */
static bool split_host(const char *host, char name[256], const char **port)
{
	size_t length = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
	if (length == 0 || length > strlen(host) || length >= 256)
		return false;
	if (host[length] != '\0' && (host[length] != ':' || !is_port(host + length + 1)))
		return false;
	memcpy(name, host, length);
	name[length] = '\0';
	*port = host[length] == ':' ? host + length + 1 : "";
	return true;
}

bool host_is_local(const char *host, const char *allowed_hosts)
{
	char name[256];
	const char *port;
	if (!split_host(host, name, &port))
		return false;
	struct in_addr v4;
	if (strcasecmp(name, "localhost") == 0 || strcmp(name, "[::1]") == 0)
		return true;
	if (inet_pton(AF_INET, name, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127)
		return true;
	return list_has(allowed_hosts, name) || list_has(allowed_hosts, host);
}

bool origin_is_host(const char *origin, const char *host)
{
	const char *default_port;
	if (strncasecmp(origin, "http://", 7) == 0) {
		default_port = "80";
		origin += 7;
	} else if (strncasecmp(origin, "https://", 8) == 0) {
		default_port = "443";
		origin += 8;
	} else {
		return false;
	}
	char origin_name[256], host_name[256];
	const char *origin_port, *host_port;
	if (!split_host(origin, origin_name, &origin_port) ||
	    !split_host(host, host_name, &host_port))
		return false;
	/* Browsers leave the scheme's own port out of both; others may not. */
	if (origin_port[0] == '\0')
		origin_port = default_port;
	if (host_port[0] == '\0')
		host_port = default_port;
	return strcasecmp(origin_name, host_name) == 0 && strcmp(origin_port, host_port) == 0;
}
