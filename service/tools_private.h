/* tools_private.h -- what the files of the tools share. */
#pragma once

#include <stdbool.h>

#include "providers/provider.h"
#include "service/app.h"

struct config;

/* A part of what serve wires together. */
struct tool_bench {
	struct config *config;
	struct provider_config providers;
	struct app app;
};

/* Reads configuration and keys; make: keys that are not there. Returns the exit status; when it is not 0 the reason
 * was printed, and nothing is to be closed. */
int tool_open_keys(struct tool_bench *b, bool make, int argc, char **argv);
/* And opens the store; make: one that is not there. */
int tool_open(struct tool_bench *b, bool make, int argc, char **argv);
void tool_close(struct tool_bench *b);

bool tool_wants_help(int argc, char **argv);
/* Takes the flag name, which has no value, out of argv. */
bool tool_take_flag(int *argc, char **argv, const char *name);
/* Others of this user may not look into our memory. */
void tool_hide_memory(void);
/* Prints "ptycast: ..." and returns 1. */
int tool_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Status, or 1 when what was printed got lost. */
int tool_flushed(int status);

int tool_keygen(int argc, char **argv); /* tools_keys.c */
int tool_seal(int argc, char **argv);
int tool_reseal(int argc, char **argv); /* tools_reseal.c */
int tool_import(int argc, char **argv); /* tools_import.c */
