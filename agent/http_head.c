/* http_head.c -- see http_head.h.
 * Source: RFC 9112 sections 2 to 5, RFC 9110 section 5.6. */
#include "agent/http_head.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

static bool is_token_char(char c)
{
	if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
		return true;
	return c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

size_t http_head_find_end(const char *text, size_t size)
{
	const char *end = memmem(text, size, "\r\n\r\n", 4);
	return end != NULL ? (size_t)(end - text) + 4 : 0;
}

/* True when the comma-separated list holds word, in any case. */
static bool list_has(const char *list, const char *word)
{
	size_t word_size = strlen(word);
	while (*list != '\0') {
		list += strspn(list, " \t,");
		size_t size = strcspn(list, ",");
		size_t trimmed = size;
		while (trimmed > 0 && is_blank(list[trimmed - 1]))
			trimmed--;
		if (trimmed == word_size && strncasecmp(list, word, word_size) == 0)
			return true;
		list += size;
	}
	return false;
}

/* Sets a header that may come once only. */
static int set_once(const char **header, const char *value)
{
	if (*header != NULL)
		return -EBADMSG;
	*header = value;
	return 0;
}

static int take_header(struct http_head *head, const char *name, const char *value)
{
	if (strcasecmp(name, "Host") == 0)
		return set_once(&head->host, value);
	if (strcasecmp(name, "Origin") == 0)
		return set_once(&head->origin, value);
	if (strcasecmp(name, "Sec-WebSocket-Key") == 0)
		return set_once(&head->websocket_key, value);
	if (strcasecmp(name, "Ptycast-Token") == 0)
		return set_once(&head->token, value);
	if (strcasecmp(name, "Connection") == 0)
		head->asks_upgrade |= list_has(value, "upgrade");
	else if (strcasecmp(name, "Upgrade") == 0)
		head->asks_websocket |= list_has(value, "websocket");
	else if (strcasecmp(name, "Sec-WebSocket-Version") == 0)
		head->version_13 |= list_has(value, "13");
	return 0;
}

/* "Name: value", without its CRLF, 0-terminated. */
static int parse_header(struct http_head *head, char *line)
{
	char *colon = line;
	while (is_token_char(*colon))
		colon++;
	if (colon == line || *colon != ':')
		return -EBADMSG;
	*colon = '\0';
	char *value = colon + 1;
	while (is_blank(*value))
		value++;
	char *end = value + strlen(value);
	while (end > value && is_blank(end[-1]))
		end--;
	*end = '\0';
	return take_header(head, line, value);
}

/* "METHOD TARGET HTTP/1.x", without its CRLF, 0-terminated. */
static int parse_request_line(struct http_head *head, char *line, bool *host_needed)
{
	char *target = line;
	while (is_token_char(*target))
		target++;
	if (target == line || *target != ' ')
		return -EBADMSG;
	*target++ = '\0';
	char *version = target + strcspn(target, " ");
	if (version == target || *version != ' ')
		return -EBADMSG;
	*version++ = '\0';
	if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)
		return -EBADMSG;
	*host_needed = version[7] == '1';

	if (strncasecmp(target, "http://", 7) == 0) { /* absolute form, as to a proxy */
		target += 7;
		target += strcspn(target, "/?");
	}
	char *query = strchr(target, '?');
	if (query != NULL)
		*query++ = '\0';
	head->method = line;
	head->path = *target != '\0' ? target : "/";
	head->query = query != NULL ? query : "";
	return 0;
}

/* Cuts the next line off at its CRLF. Returns NULL when it holds what no line may. */
static char *take_line(char **at)
{
	char *line = *at;
	char *end = line;
	while (*end != '\r') {
		unsigned char c = (unsigned char)*end;
		if ((c < ' ' && c != '\t') || c == 0x7f)
			return NULL;
		end++;
	}
	if (end[1] != '\n')
		return NULL;
	*end = '\0';
	*at = end + 2;
	return line;
}

int http_head_parse(char *text, size_t size, struct http_head *ret)
{
	if (size < 4 || memcmp(text + size - 4, "\r\n\r\n", 4) != 0)
		return -EBADMSG;
	*ret = (struct http_head){ 0 };
	bool host_needed = false;
	char *at = text;
	char *line = take_line(&at);
	if (line == NULL || parse_request_line(ret, line, &host_needed) < 0)
		return -EBADMSG;
	while ((line = take_line(&at)) != NULL && *line != '\0') {
		if (parse_header(ret, line) < 0)
			return -EBADMSG;
	}
	if (line == NULL || (host_needed && ret->host == NULL))
		return -EBADMSG;
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Decodes %xx and + of size characters. Returns false when they are not well-formed or do not fit. */
static bool decode(const char *text, size_t size, char *ret, size_t capacity)
{
	size_t out = 0;
	for (size_t i = 0; i < size; i++) {
		char c = text[i] == '+' ? ' ' : text[i];
		if (c == '%') {
			int high = size - i > 2 ? hex_digit(text[i + 1]) : -1;
			int low = size - i > 2 ? hex_digit(text[i + 2]) : -1;
			if (high < 0 || low < 0 || (high | low) == 0)
				return false;
			c = (char)(high << 4 | low);
			i += 2;
		}
		if (c == ';' && text[i] == ';') /* Go refuses what used to be a separator */
			return false;
		if (out + 1 >= capacity)
			return false;
		ret[out++] = c;
	}
	ret[out] = '\0';
	return true;
}

bool http_query_find(const char *query, const char *name, char *ret, size_t capacity)
{
	char decoded[32];
	while (*query != '\0') {
		size_t size = strcspn(query, "&");
		const char *equals = memchr(query, '=', size);
		size_t name_size = equals != NULL ? (size_t)(equals - query) : size;
		if (decode(query, name_size, decoded, sizeof(decoded)) &&
		    strcmp(decoded, name) == 0) {
			const char *value = query + name_size + (equals != NULL);
			if (decode(value, size - (size_t)(value - query), ret, capacity))
				return true;
		}
		query += size;
		query += *query == '&';
	}
	return false;
}

bool http_origin_is_host(const char *origin, const char *host)
{
	const char *authority = strstr(origin, "://");
	if (authority == NULL || host == NULL)
		return false;
	authority += 3;
	size_t size = strcspn(authority, "/?#");
	const char *at = memrchr(authority, '@', size);
	if (at != NULL) {
		size -= (size_t)(at + 1 - authority);
		authority = at + 1;
	}
	return strlen(host) == size && strncasecmp(authority, host, size) == 0;
}
