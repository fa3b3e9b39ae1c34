/* tools.h -- the subcommands of ptycast beside serve that work on keys and stored sandboxes. They take serve's
 * flags and variables, and may run beside a service on the same store. */
#pragma once

/* Each is given what stands behind its name, and returns the exit status: 0; 1 when something failed, 2 when it
 * was called wrongly. */
struct tool {
	const char *name;
	const char *help; /* for the usage of the whole */
	int (*run)(int argc, char **argv);
};

extern const struct tool tools[]; /* up to one without a name */
