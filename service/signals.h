/* signals.h -- names of signals, as the API says them. */
#pragma once

/* "SIGINT" or "INT" to the number; 0 when it is not one that may be sent to a session. */
int signal_number(const char *name);

/* "SIGINT"; "SIG<number>" for one without a common name. Static text, or in buffer. */
const char *signal_name(int number, char buffer[16]);

/* "HUP, INT, ..." for an error's text. */
extern const char signal_names_allowed[];
