/* sanitizers.c -- linked into the programs of the flavours asan and tsan only. Their reports go to
 * files, where scripts/test.mjs finds them whatever happened to the program's stderr. To see them
 * on the terminal instead: ASAN_OPTIONS=log_path=stderr (UBSAN_OPTIONS, TSAN_OPTIONS). */

#define OPTIONS "log_path=" REPORTS "/report:print_stacktrace=1"

const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return OPTIONS ":detect_stack_use_after_return=1:strict_string_checks=1";
}

const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
	return "print_suppressions=0"; /* a report of theirs would count as one */
}

const char *__ubsan_default_options(void);
const char *__ubsan_default_options(void)
{
	return OPTIONS;
}

const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "log_path=" REPORTS "/report:second_deadlock_stack=1:history_size=4";
}

/* OpenSSL's store of CAs, reported when a second lws context is destroyed: constant, not ours. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	/* By library, since the unwinder does not get through it. */
	return "leak:libcrypto.so\n"
	       "leak:libssl.so\n";
}

const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "";
}
