/* Where ports are, and which configuration is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "providers/provider.h"
#include "providers/runloop_url.h"

#define API "https://api.runloop.ai"

static void makes_the_address_of_a_port(void **state)
{
	(void)state;
	static const struct {
		const char *base, *tunnel;
		bool http;
		const char *url;
	} cases[] = {
		{ API, NULL, false, "wss://8000-k3y.tunnel.runloop.ai" },
		{ API, NULL, true, "https://8000-k3y.tunnel.runloop.ai" },
		{ "https://api.runloop.pro:8443/x", NULL, false,
		  "wss://8000-k3y.tunnel.runloop.pro" },
		{ "https://eu.runloop.ai", NULL, false, "wss://8000-k3y.tunnel.eu.runloop.ai" },
		{ API, "wss://gate.example/{domain}/{tunnel_key}/{port}/", false,
		  "wss://gate.example/runloop.ai/k3y/8000" },
		{ API, "ws://127.0.0.1:4000/t/{port}-{tunnel_key}", false,
		  "ws://127.0.0.1:4000/t/8000-k3y" },
		{ API, "ws://127.0.0.1:4000/t/{port}-{tunnel_key}", true,
		  "http://127.0.0.1:4000/t/8000-k3y" },
		{ API, "ws://[::1]:{port}/{tunnel_key}", false, "ws://[::1]:8000/k3y" },
		{ API, "ws://localhost:{port}/{tunnel_key}", true, "http://localhost:8000/k3y" },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char url[RUNLOOP_URL_BYTES];
		assert_int_equal(runloop_url_of_port(cases[i].base, cases[i].tunnel, "k3y", 8000,
						     cases[i].http, url),
				 0);
		assert_string_equal(url, cases[i].url);
	}
}

static void refuses_a_key_that_is_no_label(void **state)
{
	(void)state;
	static const char *const keys[] = { "",   "a.b", "a/b",    "a@b",      "a:1",
					    "a#", "a b", "{port}", "\xc3\xa4", "a%2e" };
	char url[RUNLOOP_URL_BYTES] = "untouched", longer[65];
	memset(longer, 'a', 64);
	longer[64] = '\0';
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		assert_int_equal(runloop_url_of_port(API, NULL, keys[i], 8000, false, url),
				 -EINVAL);
	assert_int_equal(runloop_url_of_port(API, NULL, longer, 8000, false, url), -EINVAL);
	assert_int_equal(runloop_url_of_port(API, NULL, "k", 0, false, url), -EINVAL);
	assert_int_equal(runloop_url_of_port(API, NULL, "k", 65536, false, url), -EINVAL);
	assert_string_equal(url, "untouched");
}

static void takes_a_good_configuration(void **state)
{
	(void)state;
	static const char *const good[][2] = {
		{ API, NULL },
		{ API, "wss://{port}-{tunnel_key}.tunnel.{domain}" },
		{ API, "wss://t.example:8443/{port}/{tunnel_key}/" },
		{ "http://127.0.0.1:4000", "ws://127.0.0.1:4000/t/{port}/{tunnel_key}" },
		{ "http://localhost:4000/runloop", "ws://localhost:{port}/{tunnel_key}" },
		{ "http://[::1]:4000", "wss://{port}-{tunnel_key}.example" },
	};
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct error err = { 0 };
		assert_int_equal(runloop_check_config(good[i][0], good[i][1], &err), 0);
		assert_string_equal(err.text, "");
	}
}

static void refuses_a_bad_configuration_by_the_name_of_its_flag(void **state)
{
	(void)state;
	static const char *const base[] = { "",
					    "api.runloop.ai",
					    "https://",
					    "ftp://x",
					    "https:///x",
					    "https://user@api.runloop.ai",
					    "https://x/?a",
					    "https://x/#a",
					    "https://x/",
					    "https://x:0",
					    "https://x:70000",
					    "https://x:",
					    "https://x y",
					    "http://api.runloop.ai",
					    "http://10.0.0.1",
					    "https://[::1",
					    "httpss://x" };
	static const char *const tunnel[] = { "",
					      "wss://x",
					      "wss://{port}.x",
					      "wss://{tunnel_key}.x",
					      "wss://{port}-{port}-{tunnel_key}.x",
					      "wss://{port}-{tunnel_key}-{tunnel_key}.x",
					      "wss://{port}-{tunnel_key}.{domain}.{domain}",
					      "wss://{port}-{tunnel_key}.{host}",
					      "https://{port}-{tunnel_key}.x",
					      "ws://{port}-{tunnel_key}.x",
					      "ws://10.0.0.1/{port}/{tunnel_key}",
					      "ws://127.0.0.1.x/{port}/{tunnel_key}",
					      "wss://x/{port}?k={tunnel_key}",
					      "wss://u@x/{port}/{tunnel_key}",
					      "wss://x\\{port}/{tunnel_key}" };
	struct error err;
	for (size_t i = 0; i < sizeof(base) / sizeof(base[0]); i++) {
		assert_int_equal(runloop_check_config(base[i], NULL, &err), -EINVAL);
		assert_non_null(strstr(err.text, "--runloop-base-url"));
	}
	for (size_t i = 0; i < sizeof(tunnel) / sizeof(tunnel[0]); i++) {
		assert_int_equal(runloop_check_config(API, tunnel[i], &err), -EINVAL);
		assert_non_null(strstr(err.text, "--runloop-tunnel-url"));
	}
	/* There is no tunnel.127.0.0.1. */
	assert_int_equal(runloop_check_config("http://127.0.0.1:1", NULL, &err), -EINVAL);
	assert_non_null(strstr(err.text, "--runloop-tunnel-url"));
	assert_int_equal(runloop_check_config("http://127.0.0.1:1",
					      "wss://{port}-{tunnel_key}.{domain}", &err),
			 -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(makes_the_address_of_a_port),
		cmocka_unit_test(refuses_a_key_that_is_no_label),
		cmocka_unit_test(takes_a_good_configuration),
		cmocka_unit_test(refuses_a_bad_configuration_by_the_name_of_its_flag),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
