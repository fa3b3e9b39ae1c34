/* log.h -- one line of JSON on stderr for each event: {"level":"debug","msg":"event key=value"}.
 * Never a token, never what was typed or printed. Thread: one. */
#pragma once

#include <stdbool.h>

/* Debug lines are written from here on, or no more. */
void log_set_debug(bool on);

void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
