/* event_id.c -- see event_id.h. */
#include "handlers/event_id.h"

#include <stdlib.h>
#include <string.h>

bool event_id_parse(const char *text, uint64_t *epoch, uint64_t *offset)
{
	if (strspn(text, "0123456789abcdef") != 16 || text[16] != ':')
		return false;
	size_t digits = strspn(text + 17, "0123456789");
	if (digits < 1 || digits > 19 || text[17 + digits] != '\0')
		return false;
	*epoch = strtoull(text, NULL, 16);
	*offset = strtoull(text + 17, NULL, 10);
	return true;
}
