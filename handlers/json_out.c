/* json_out.c -- see json_out.h. */
#include "handlers/json_out.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#include "service/session.h"

json_t *json_time(int64_t unix_ms)
{
	time_t seconds = (time_t)(unix_ms / 1000);
	struct tm tm;
	char date[32], text[48];
	gmtime_r(&seconds, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text, sizeof(text), "%s.%03dZ", date, (int)(unix_ms % 1000));
	return json_string(text);
}

json_t *json_session(const struct session_info *info)
{
	char epoch[17];
	snprintf(epoch, sizeof(epoch), "%016" PRIx64, info->epoch);
	/* A sandbox that was given as an object is kept as its JSON. */
	bool is_object = info->sandbox != NULL && info->sandbox[0] == '{';
	json_t *sandbox = is_object ? json_loads(info->sandbox, 0, NULL)
				    : json_string(info->sandbox);
	json_t *ended = info->ended_json == NULL
				? json_null()
				: json_loads(info->ended_json, JSON_REJECT_DUPLICATES, NULL);
	json_t *steps = json_array();
	for (unsigned i = 0; i < info->steps_count; i++)
		json_array_append_new(steps, json_pack("{s:s, s:i}", "step", info->steps[i].name,
						       "ms", (int)info->steps[i].ms));
	return json_pack("{s:s, s:s, s:o, s:s, s:i, s:i, s:s?, s:I, s:o, s:o, s:o}", "id", info->id,
			 "state", session_state_name(info->state), "sandbox", sandbox, "provider",
			 info->provider, "cols", (int)info->cols, "rows", (int)info->rows, "epoch",
			 info->epoch == 0 ? NULL : epoch, "offset", (json_int_t)info->offset,
			 "created_at", json_time(info->created_ms), "steps", steps, "ended", ended);
}
