/* http_retry.c -- when a request is tried again, by the rules of Runloop's SDK (protocols/runloop.md,
 * section 1); with a limit on what a server may ask for. */
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#include "providers/http_client.h"

#define RETRIES_MAX 5
#define FIRST_DELAY_MS 1000
#define DELAY_MS_MAX 60000
#define ASKED_MS_MAX 20000
#define JITTER 0.25

/* A decimal number and nothing else, capped; -1: it is none. */
static int64_t read_ms(const char *text, double factor)
{
	size_t digits = strspn(text, "0123456789.");
	char *end;
	if (digits == 0 || text[digits] != '\0')
		return -1;
	double number = strtod(text, &end) * factor;
	if (*end != '\0' || end == text)
		return -1;
	return number > ASKED_MS_MAX ? ASKED_MS_MAX : (int64_t)number;
}

/* What the server asks for; -1: nothing. */
static int64_t asked_ms(const struct http_answer *a, int64_t wall_ms)
{
	int64_t ms = read_ms(a->retry_after_ms, 1);
	if (ms < 0)
		ms = read_ms(a->retry_after, 1000);
	if (ms >= 0 || a->retry_after[0] == '\0')
		return ms;
	time_t date = curl_getdate(a->retry_after, NULL);
	if (date < 0)
		return -1;
	ms = (int64_t)date * 1000 - wall_ms;
	return ms < 0 ? 0 : ms > ASKED_MS_MAX ? ASKED_MS_MAX : ms;
}

static bool may_retry(const struct http_answer *a)
{
	switch (a->result) {
	case HTTP_CUT:
	case HTTP_TIMEOUT:
		return true;
	case HTTP_UNREACHABLE:
		return !a->hopeless;
	case HTTP_DONE:
		break;
	default:
		return false;
	}
	if (a->status >= 200 && a->status < 300)
		return false;
	if (strcmp(a->should_retry, "true") == 0)
		return true;
	if (strcmp(a->should_retry, "false") == 0)
		return false;
	return a->status == 408 || a->status == 409 || a->status == 429 || a->status >= 500;
}

int64_t http_retry_delay_ms(const struct http_answer *a, unsigned attempt, double random,
			    int64_t wall_ms)
{
	if (attempt >= RETRIES_MAX || !may_retry(a))
		return -1;
	int64_t asked = a->result == HTTP_DONE ? asked_ms(a, wall_ms) : -1;
	if (asked >= 0)
		return asked;
	double delay = (double)(FIRST_DELAY_MS << attempt);
	if (delay > DELAY_MS_MAX)
		delay = DELAY_MS_MAX;
	return (int64_t)(delay * (1 - random * JITTER));
}
