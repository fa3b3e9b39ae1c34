/* signals.c -- see signals.h. */
#include "service/signals.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	int number;
	bool allowed; /* may be sent; the others only end programs */
} signals[] = {
	{ "SIGHUP", SIGHUP, true },     { "SIGINT", SIGINT, true },
	{ "SIGQUIT", SIGQUIT, true },   { "SIGKILL", SIGKILL, true },
	{ "SIGUSR1", SIGUSR1, true },   { "SIGUSR2", SIGUSR2, true },
	{ "SIGTERM", SIGTERM, true },   { "SIGCONT", SIGCONT, true },
	{ "SIGSTOP", SIGSTOP, true },   { "SIGTSTP", SIGTSTP, true },
	{ "SIGWINCH", SIGWINCH, true }, { "SIGILL", SIGILL, false },
	{ "SIGTRAP", SIGTRAP, false },  { "SIGABRT", SIGABRT, false },
	{ "SIGBUS", SIGBUS, false },    { "SIGFPE", SIGFPE, false },
	{ "SIGSEGV", SIGSEGV, false },  { "SIGPIPE", SIGPIPE, false },
	{ "SIGALRM", SIGALRM, false },  { "SIGXCPU", SIGXCPU, false },
	{ "SIGXFSZ", SIGXFSZ, false },  { "SIGSYS", SIGSYS, false },
};

const char signal_names_allowed[] =
	"HUP, INT, QUIT, KILL, USR1, USR2, TERM, CONT, STOP, TSTP, WINCH";

int signal_number(const char *name)
{
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (signals[i].allowed &&
		    (strcmp(name, signals[i].name) == 0 || strcmp(name, signals[i].name + 3) == 0))
			return signals[i].number;
	return 0;
}

const char *signal_name(int number, char buffer[16])
{
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (signals[i].number == number)
			return signals[i].name;
	snprintf(buffer, 16, "SIG%d", number);
	return buffer;
}
