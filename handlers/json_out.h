/* json_out.h -- values as the API writes them. Thread: any. */
#pragma once

#include <stdint.h>

#include <jansson.h>

struct session_info;

/* RFC 3339 in UTC with milliseconds. NULL without memory. */
json_t *json_time(int64_t unix_ms);

/* The session object. NULL without memory. */
json_t *json_session(const struct session_info *info);
