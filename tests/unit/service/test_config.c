/* Flags, variables, and what is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "service/config.h"

#define FLAGS_MAX 8

/* Loads with up to FLAGS_MAX flags, in writable memory as argv is, and variables. */
static int load(const char *const *flags, char **envp, struct config **ret, struct error *err)
{
	char *argv[FLAGS_MAX + 1] = { NULL };
	int argc = 0;
	for (; flags[argc] != NULL; argc++)
		argv[argc] = strdup(flags[argc]);
	int rc = config_load(argc, argv, envp, ret, err);
	for (int i = 0; i < argc; i++)
		free(argv[i]);
	return rc;
}

static char *no_env[] = { NULL };

#define LOAD(ret, err, ...) load((const char *[]){ __VA_ARGS__, NULL }, no_env, ret, err)

/* The flags are refused and the reason is said; nothing is made. */
static void assert_refused(const char *text, const char *const *flags)
{
	struct config *c = NULL;
	struct error err = { 0 };
	assert_int_equal(load(flags, no_env, &c, &err), -EINVAL);
	assert_null(c);
	assert_int_equal(err.code, -EINVAL);
	assert_string_equal(err.text, text);
}
#define REFUSED(text, ...) assert_refused(text, (const char *[]){ __VA_ARGS__, NULL })

static void has_the_documented_defaults(void **state)
{
	(void)state;
	struct config *c = NULL;
	struct error err = { 0 };
	assert_int_equal(config_load(0, NULL, no_env, &c, &err), 0);
	assert_string_equal(c->listen, "127.0.0.1:8080");
	assert_null(c->metrics_listen);
	assert_string_equal(c->store, "sqlite:ptycast.db");
	assert_null(c->providers);
	assert_non_null(c->agent);
	assert_string_equal(strrchr(c->agent, '/'), "/ptycast-agent");
	assert_string_equal(c->tunnel_transport, "agent");
	assert_string_equal(c->local_on_stop, "keep");
	assert_string_equal(c->log_level, "info");
	assert_string_equal(c->log_format, "text");
	assert_int_equal(c->api_keys_count, 0);
	assert_true(c->jwt_require_exp);
	assert_int_equal(c->journal_bytes, 4 << 20);
	assert_int_equal(c->journals_total_bytes, 1 << 30);
	assert_int_equal(c->tick_ms, 15);
	assert_int_equal(c->max_stream_age_s, 3600);
	assert_int_equal(c->input_bytes, 1 << 20);
	assert_int_equal(c->provisioner_threads, 64);
	assert_int_equal(c->max_viewers, 12000);
	assert_int_equal(c->unauthorized_per_minute, 120);
	config_destroy(c);
}

static void takes_a_flag_in_both_forms(void **state)
{
	(void)state;
	struct config *c = NULL;
	assert_int_equal(LOAD(&c, NULL, "--tick-ms", "7", "--ping-s=20", "--store=sqlite:a=b.db"),
			 0);
	assert_int_equal(c->tick_ms, 7);
	assert_int_equal(c->ping_s, 20);
	assert_string_equal(c->store, "sqlite:a=b.db");
	config_destroy(c);
}

static void a_flag_wins_over_its_variable_and_the_last_flag_wins(void **state)
{
	(void)state;
	char *env[] = { (char[]){ "PTYCAST_PING_S=3" }, (char[]){ "PTYCAST_TICK_MS=9" },
			(char[]){ "PTYCAST_TICK_MS_NOT=10" }, NULL };
	const char *flags[] = { "--ping-s", "4", "--ping-s", "5", NULL };
	struct config *c = NULL;
	assert_int_equal(load(flags, env, &c, NULL), 0);
	assert_int_equal(c->ping_s, 5);
	assert_int_equal(c->tick_ms, 9);
	config_destroy(c);
}

static void an_empty_variable_is_as_good_as_none(void **state)
{
	(void)state;
	char *env[] = { (char[]){ "PTYCAST_LISTEN=" }, (char[]){ "PTYCAST_API_KEYS=" },
			(char[]){ "PTYCAST_PING_S=" }, NULL };
	const char *flags[] = { NULL };
	struct config *c = NULL;
	assert_int_equal(load(flags, env, &c, NULL), 0);
	assert_string_equal(c->listen, "127.0.0.1:8080");
	assert_int_equal(c->ping_s, 15);
	config_destroy(c);
}

static void names_an_unknown_flag_and_a_missing_value(void **state)
{
	(void)state;
	REFUSED("unknown flag --pings; see ptycast serve --help", "--pings=3");
	REFUSED("unknown flag --; see ptycast serve --help", "--");
	REFUSED("argument 3 is not a flag; see ptycast serve --help", "--ping-s", "3", "secret");
	REFUSED("--ping-s needs a value: seconds", "--tick-ms", "5", "--ping-s");
}

static void says_what_a_number_may_be(void **state)
{
	(void)state;
	const char *bad[] = {
		"x", "", "0", "301", "-1", " 5", "5 ", "5s", "1e1", "0x5", "99999999999999999999"
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char text[100];
		snprintf(text, sizeof(text), "--ping-s: 1 to 300 seconds, got \"%s\"", bad[i]);
		REFUSED(text, "--ping-s", bad[i]);
	}
}

static void takes_sizes_with_a_suffix(void **state)
{
	(void)state;
	struct config *c = NULL;
	assert_int_equal(LOAD(&c, NULL, "--journal-bytes=128K", "--agent-ring-bytes=2m",
			      "--journals-total-bytes=3G", "--input-bytes=4096"),
			 0);
	assert_int_equal(c->journal_bytes, 128 << 10);
	assert_int_equal(c->agent_ring_bytes, 2 << 20);
	assert_true(c->journals_total_bytes == (size_t)3 << 30);
	assert_int_equal(c->input_bytes, 4096);
	config_destroy(c);
	REFUSED("--journal-bytes: 64K to 1G bytes, got \"1T\"", "--journal-bytes=1T");
	REFUSED("--journal-bytes: 64K to 1G bytes, got \"4MB\"", "--journal-bytes=4MB");
	REFUSED("--journal-bytes: 64K to 1G bytes, got \"63K\"", "--journal-bytes=63K");
	REFUSED("--journal-bytes: 64K to 1G bytes, got \"17179869185G\"",
		"--journal-bytes=17179869185G");
	REFUSED("--ping-s: 1 to 300 seconds, got \"1K\"", "--ping-s=1K");
}

static void refuses_limits_that_contradict_each_other(void **state)
{
	(void)state;
	REFUSED("--journals-total-bytes is less than --journal-bytes", "--journals-total-bytes=2M");
	REFUSED("--input-queue-bytes is less than --input-bytes", "--input-queue-bytes=64K");
}

static void takes_one_of_the_choices_only(void **state)
{
	(void)state;
	struct config *c = NULL;
	assert_int_equal(LOAD(&c, NULL, "--log-level=error", "--log-format=json",
			      "--local-on-stop=end", "--tunnel-transport=pty-tunnel",
			      "--jwt-require-exp=0"),
			 0);
	assert_string_equal(c->log_level, "error");
	assert_false(c->jwt_require_exp);
	config_destroy(c);
	REFUSED("--log-level: debug|info|warn|error, got \"warning\"", "--log-level=warning");
	REFUSED("--log-level: debug|info|warn|error, got \"info|warn\"", "--log-level=info|warn");
	REFUSED("--log-level must not be empty: debug|info|warn|error", "--log-level=");
	REFUSED("--jwt-require-exp: 0 or 1, got \"no\"", "--jwt-require-exp=no");
}

static void splits_addresses(void **state)
{
	(void)state;
	static const struct {
		const char *text, *host;
		uint16_t port;
	} good[] = {
		{ "127.0.0.1:8080", "127.0.0.1", 8080 }, { "[::1]:0", "::1", 0 },
		{ "0.0.0.0:65535", "0.0.0.0", 65535 },   { "[::]:80", "::", 80 },
		{ "localhost:1", "127.0.0.1", 1 },
	};
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		char host[64];
		uint16_t port;
		assert_int_equal(config_split_listen(good[i].text, host, &port), 0);
		assert_string_equal(host, good[i].host);
		assert_int_equal(port, good[i].port);
	}
	static const char *const bad[] = {
		"",         "8080",        ":8080",       "127.0.0.1",
		"1.2.3:80", "1.2.3.4:",    "1.2.3.4:x",   "1.2.3.4:65536",
		"::1:80",   "[::1]",       "[::1:80",     "[1.2.3.4]:80",
		"host:80",  "1.2.3.4:8 0", "1.2.3.4:+80", "[]:80"
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char host[64] = "untouched";
		uint16_t port = 7;
		assert_int_equal(config_split_listen(bad[i], host, &port), -EINVAL);
		assert_string_equal(host, "untouched");
		assert_int_equal(port, 7);
	}
}

static void listens_beyond_loopback_with_a_credential_only(void **state)
{
	(void)state;
	REFUSED("--listen 0.0.0.0:80 is not a loopback address: that needs a credential, "
		"--api-keys, --jwt-secret or --jwt-public-key-file",
		"--listen=0.0.0.0:80");
	REFUSED("--listen [::]:80 is not a loopback address: that needs a credential, "
		"--api-keys, --jwt-secret or --jwt-public-key-file",
		"--listen=[::]:80");
	REFUSED("--listen: ADDRESS:PORT as in 127.0.0.1:8080 or [::1]:8080, got \"8080\"",
		"--listen=8080");
	REFUSED("--metrics-listen: ADDRESS:PORT as in 127.0.0.1:9090, got \"x\"",
		"--metrics-listen=x");
	static const char *const good[][2] = {
		{ "--listen=127.8.9.1:80", "--ping-s=1" },
		{ "--listen=[::1]:80", "--ping-s=1" },
		{ "--listen=0.0.0.0:80", "--api-keys=12345678=alice" },
		{ "--listen=0.0.0.0:80", "--jwt-secret=0123456789abcdef" },
		{ "--listen=0.0.0.0:80", "--jwt-public-key-file=key.pem" },
	};
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct config *c = NULL;
		assert_int_equal(LOAD(&c, NULL, good[i][0], good[i][1]), 0);
		config_destroy(c);
	}
}

static void reads_api_keys_with_subjects_and_roles(void **state)
{
	(void)state;
	static const struct config_api_key want[] = {
		{ "key-of-alice", "alice", "admin" },
		{ "c2VjcmV0cw==", "bob", "view" },
		{ "key-of-carol", "did:plc:carol", "admin" },
		{ "key-of-dave.", "did:plc:dave", "write" },
		{ "key-of-erin.", "did:web:example.com:erin", "operator" },
		{ "key-of-frank", "did:web:view", "admin" },
	};
	struct config *c = NULL;
	struct error err = { 0 };
	assert_int_equal(LOAD(&c, &err, "--api-keys",
			      "key-of-alice=alice, c2VjcmV0cw===bob:view ,,"
			      "key-of-carol=did:plc:carol,key-of-dave.=did:plc:dave:write,"
			      "key-of-erin.=did:web:example.com:erin:operator,"
			      "key-of-frank=did:web:view,"),
			 0);
	assert_int_equal(c->api_keys_count, sizeof(want) / sizeof(want[0]));
	for (size_t i = 0; i < c->api_keys_count; i++) {
		assert_string_equal(c->api_keys[i].key, want[i].key);
		assert_string_equal(c->api_keys[i].subject, want[i].subject);
		assert_string_equal(c->api_keys[i].role, want[i].role);
	}
	config_destroy(c);
}

static void refuses_api_keys_without_repeating_them(void **state)
{
	(void)state;
	REFUSED("--api-keys: entry 2 is not KEY=SUBJECT[:ROLE]",
		"--api-keys=12345678=a,verysecretkey");
	REFUSED("--api-keys: the key of entry 1 has less than 8 characters",
		"--api-keys=1234567=a");
	REFUSED("--api-keys: the key of entry 1 has a space or control character",
		"--api-keys=1234 5678=a");
	REFUSED("--api-keys: entry 1 has an empty subject", "--api-keys=12345678=");
	REFUSED("--api-keys: entry 1 has an empty subject", "--api-keys=12345678=:view");
	REFUSED("--api-keys: the subject of entry 1 has a control character or more than 255 bytes",
		"--api-keys=12345678=a\nb");
	REFUSED("--api-keys: entry 1 has an unknown role: view, write, admin or operator",
		"--api-keys=12345678=alice:reader");
	REFUSED("--api-keys: entry 1 has an unknown role: view, write, admin or operator",
		"--api-keys=12345678=alice:");
	REFUSED("--api-keys: entry 1 has an unknown role: view, write, admin or operator",
		"--api-keys=12345678=did:plc:alice:wirte");
	REFUSED("--api-keys: entries 1 and 3 have the same key",
		"--api-keys=12345678=alice,87654321=bob,12345678=carol");
	char long_subject[300] = "--api-keys=12345678=";
	memset(long_subject + strlen(long_subject), 's', 256);
	REFUSED("--api-keys: the subject of entry 1 has a control character or more than 255 bytes",
		long_subject);
}

static void refuses_short_secrets_and_half_a_key_pair(void **state)
{
	(void)state;
#define HEX64 "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
	REFUSED("--jwt-secret has less than 16 bytes", "--jwt-secret=0123456789abcde");
	REFUSED("--public-key needs --private-key", "--public-key=" HEX64);
	REFUSED("--private-key: 64 hex digits, of several the newest first", "--public-key=" HEX64,
		"--private-key=" HEX64 "0");
	REFUSED("--private-key: 64 hex digits, of several the newest first",
		"--private-key=" HEX64 "," HEX64 HEX64);
	REFUSED("--public-key: 64 hex digits", "--public-key=x", "--private-key=" HEX64);
	struct config *c = NULL;
	assert_int_equal(LOAD(&c, NULL, "--public-key=" HEX64, "--private-key=" HEX64), 0);
	config_destroy(c);
	assert_int_equal(LOAD(&c, NULL, "--private-key=" HEX64 ", " HEX64), 0);
	config_destroy(c);
}

static void knows_its_providers_and_what_they_need(void **state)
{
	(void)state;
	struct config *c = NULL;
	assert_int_equal(LOAD(&c, NULL, "--providers=local, url",
			      "--tunnel-url=wss://box.example.com/ws?token=t"),
			 0);
	config_destroy(c);
	REFUSED("--providers: local, url, runloop, got \"vercle\"", "--providers=local,vercle");
	REFUSED("--providers url needs --tunnel-url", "--providers=url");
	static const char *const bad[] = { "http://box.example.com", "ws://", "wss:///path",
					   "ws://:80" };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		REFUSED("--tunnel-url: ws://HOST or wss://HOST, with port and path if need be",
			"--tunnel-url", bad[i]);
	REFUSED("--tunnel-url holds a character that no URL may hold",
		"--tunnel-url=ws://box/\r\nHost: x");
}

static void takes_a_file_or_a_redis_with_a_key_pair_as_store(void **state)
{
	(void)state;
#define STORES "--store: sqlite:PATH as in sqlite:ptycast.db, or redis://HOST:PORT"
	REFUSED(STORES, "--store=sqlite:");
	REFUSED(STORES, "--store=postgres://:password@localhost");
	REFUSED("--store must not be empty: sqlite:PATH or "
		"redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]",
		"--store=");
	REFUSED("--store redis://... needs --private-key, the same at all that share it: ptycast "
		"keygen makes one",
		"--store=redis://:password@localhost");
	static const char *const bad[] = { "redis:", "redis:password@localhost",
					   "redis://:password@", "redis://:password@localhost/x",
					   "redis://password@localhost" };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct config *c = NULL;
		struct error err = { 0 };
		assert_int_equal(LOAD(&c, &err, "--private-key=" HEX64, "--store", bad[i]),
				 -EINVAL);
		assert_memory_equal(err.text, "--store: redis: ", 16);
		assert_null(strstr(err.text, "password@localhost"));
	}
	struct config *c = NULL;
	assert_int_equal(LOAD(&c, NULL, "--private-key=" HEX64,
			      "--store=redis://me:password@[::1]:6380/2"),
			 0);
	assert_string_equal(c->store, "redis://me:password@[::1]:6380/2");
	config_destroy(c);
}

static void takes_exact_origins_and_plain_host_names(void **state)
{
	(void)state;
	struct config *c = NULL;
	assert_int_equal(LOAD(&c, NULL, "--cors-origins=https://a.example,http://localhost:3000",
			      "--allowed-hosts=a.example,b.example:8080"),
			 0);
	config_destroy(c);
	static const char *const origins[] = { "*",
					       "a.example",
					       "https://",
					       "https://a.example/",
					       "https://*.example",
					       "https://user@a.example" };
	for (size_t i = 0; i < sizeof(origins) / sizeof(origins[0]); i++) {
		char text[200];
		snprintf(text, sizeof(text),
			 "--cors-origins: exact origins as in https://app.example.com, without a "
			 "path, got \"%s\"",
			 origins[i]);
		REFUSED(text, "--cors-origins", origins[i]);
	}
	REFUSED("--allowed-hosts: names as in pty.example.com, got \"http://a\"",
		"--allowed-hosts=b.example,http://a");
}

static void overwrites_secrets_in_argv(void **state)
{
	(void)state;
	char first[] = "--api-keys=12345678=alice";
	char flag[] = "--jwt-secret", second[] = "0123456789abcdef";
	char third[] = "--tunnel-token=old", fourth[] = "--tunnel-token=new";
	char fifth[] = "--store=redis://:x@h", sixth[] = "--private-key=" HEX64;
	char plain[] = "--ping-s=5";
	char *argv[] = { first, flag, second, third, fourth, fifth, sixth, plain, NULL };
	struct config *c = NULL;
	assert_int_equal(config_load(8, argv, no_env, &c, NULL), 0);
	assert_string_equal(fifth, "--store=************");
	assert_null(strpbrk(sixth + 14, "0123456789"));
	assert_string_equal(first, "--api-keys=**************");
	assert_string_equal(flag, "--jwt-secret");
	assert_string_equal(second, "****************");
	assert_string_equal(third, "--tunnel-token=***");
	assert_string_equal(fourth, "--tunnel-token=***");
	assert_string_equal(plain, "--ping-s=5");
	assert_string_equal(c->api_keys[0].key, "12345678");
	assert_string_equal(c->jwt_secret, "0123456789abcdef");
	assert_string_equal(c->tunnel_token, "new");
	config_destroy(c);
}

static void help_names_flag_variable_default_and_range(void **state)
{
	(void)state;
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	config_help(out);
	fclose(out);
	assert_non_null(strstr(text, "  --ping-s N\n      between pings to an idle viewer\n"
				     "      PTYCAST_PING_S, default 15; 1 to 300 seconds\n"));
	assert_non_null(strstr(text, "PTYCAST_JOURNAL_BYTES, default 4M; 64K to 1G bytes\n"));
	assert_non_null(strstr(text, "  --listen ADDRESS:PORT\n"));
	assert_non_null(strstr(text, "PTYCAST_API_KEYS, default none\n"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(has_the_documented_defaults),
		cmocka_unit_test(takes_a_flag_in_both_forms),
		cmocka_unit_test(a_flag_wins_over_its_variable_and_the_last_flag_wins),
		cmocka_unit_test(an_empty_variable_is_as_good_as_none),
		cmocka_unit_test(names_an_unknown_flag_and_a_missing_value),
		cmocka_unit_test(says_what_a_number_may_be),
		cmocka_unit_test(takes_sizes_with_a_suffix),
		cmocka_unit_test(refuses_limits_that_contradict_each_other),
		cmocka_unit_test(takes_one_of_the_choices_only),
		cmocka_unit_test(splits_addresses),
		cmocka_unit_test(listens_beyond_loopback_with_a_credential_only),
		cmocka_unit_test(reads_api_keys_with_subjects_and_roles),
		cmocka_unit_test(refuses_api_keys_without_repeating_them),
		cmocka_unit_test(refuses_short_secrets_and_half_a_key_pair),
		cmocka_unit_test(knows_its_providers_and_what_they_need),
		cmocka_unit_test(takes_a_file_or_a_redis_with_a_key_pair_as_store),
		cmocka_unit_test(takes_exact_origins_and_plain_host_names),
		cmocka_unit_test(overwrites_secrets_in_argv),
		cmocka_unit_test(help_names_flag_variable_default_and_range),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
