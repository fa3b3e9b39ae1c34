/* Sandboxes as requests name them: what is read and refused, that secrets are sealed, and how they are opened for one
 * call. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "service/app.h"
#include "service/config.h"
#include "service/json_body.h"
#include "service/log.h"
#include "service/sandbox.h"
#include "service/sandbox_change.h"
#include "store/seal.h"
#include "store/store.h"

#define PRIVATE_HEX "2fad39fefd7fa3e200a9c626eef599e61a2d055c48a8288a4e7e4c4bca3928f8"
/* By libsodium-wrappers: "sk-runloop-1234". */
#define BY_JAVASCRIPT                                                      \
	"64kTXPiLzPXkPBIMqu0EE1aomshotmJ8zTCcuIVNKhC7fEnPcl-9m8yoMGmZBeGz" \
	"Jd_4fY9ThGN5so9Jw_mt"
#define KEY "rl_0123456789abcdef"

static struct config config = { .max_sandboxes_per_subject = 3 };
static struct provider_config providers = { .names = "local,runloop" };
static struct app app = { .config = &config, .providers = &providers, .store_ops = &store_sqlite };

static int start(void **state)
{
	(void)state;
	log_init(LOG_ERROR, false);
	return seal_keys_from_hex(NULL, PRIVATE_HEX, &app.seal_keys, NULL) != 0 ||
	       app.store_ops->open(":memory:", &app.store, NULL) != 0;
}

static int stop(void **state)
{
	(void)state;
	app.store_ops->close(app.store);
	seal_keys_destroy(app.seal_keys);
	return 0;
}

static json_t *parse(const char *text)
{
	json_t *value = json_loads(text, JSON_ALLOW_NUL, NULL);
	if (value == NULL)
		fail_msg("not JSON: %s", text);
	return value;
}

static struct store_sandbox read_new(const char *text)
{
	json_auto_t *object = parse(text);
	struct store_sandbox record = { .subject = strdup("alice") };
	struct problem problem = { 0 };
	if (!sandbox_read(&app, object, true, &record, &problem))
		fail_msg("%s", problem.reply.detail);
	return record;
}

static void assert_refused(const char *text, bool is_new, const char *slug, const char *field)
{
	json_auto_t *object = parse(text);
	struct store_sandbox record = { .subject = strdup("alice") };
	struct problem problem = { 0 };
	if (sandbox_read(&app, object, is_new, &record, &problem))
		fail_msg("taken: %s", text);
	assert_int_equal(problem.reply.status, 400);
	assert_string_equal(problem.reply.slug, slug);
	assert_string_equal(problem.field, field);
	assert_null(strstr(problem.reply.detail, "rl_"));
	store_sandbox_fini(&record);
}

static void assert_opens_as(const char *sealed, const char *text)
{
	uint8_t *data = NULL;
	size_t size = 0;
	assert_int_equal(seal_open(app.seal_keys, sealed, &data, &size), 0);
	assert_string_equal((char *)data, text);
	seal_free(data, size);
}

static void reads_the_shortest_and_fills_in_the_rest(void **state)
{
	(void)state;
	struct store_sandbox r = read_new("{\"provider\":\"runloop\",\"external_id\":\"dbx_1\","
					  "\"credential\":\"" KEY "\"}");
	assert_int_equal(strlen(r.id), 19);
	assert_memory_equal(r.id, "sb-", 3);
	assert_string_equal(r.subject, "alice");
	assert_string_equal(r.provider, "runloop");
	assert_string_equal(r.external_id, "dbx_1");
	assert_opens_as(r.credential, "{\"api_key\":\"" KEY "\"}");
	assert_string_equal(r.redacted, "{\"api_key\":\"***\"}"); /* 19 characters */
	assert_null(r.name);
	assert_null(r.metadata);
	assert_string_equal(r.transport, "auto");
	assert_string_equal(r.agent, "ptycast");
	assert_true(r.resume);
	struct store_sandbox other = read_new("{\"provider\":\"runloop\",\"external_id\":\"dbx_1\","
					      "\"credential\":\"" KEY "\"}");
	assert_string_not_equal(r.id, other.id);
	assert_null(sandbox_difference(&app, &r, &other));
	store_sandbox_fini(&r);
	store_sandbox_fini(&other);
}

static void reads_all_there_is(void **state)
{
	(void)state;
	struct store_sandbox r = read_new(
		"{\"id\":\"box\",\"subject\":\"bob\",\"provider\":\"runloop\",\"external_id\":\"~a.b:c\","
		"\"credential\":{\"token_id\":\"t\",\"token_secret\":\"01234567890123456789\"},"
		"\"name\":\"My b\xc3\xb6x\",\"metadata\":{\"z\":1,\"a\":{\"b\":[null,\"\\u0000\"]}},"
		"\"transport\":\"native\",\"agent\":\"pty-tunnel\",\"resume\":false}");
	assert_string_equal(r.id, "box");
	assert_string_equal(r.subject, "bob");
	assert_opens_as(r.credential,
			"{\"token_id\":\"t\",\"token_secret\":\"01234567890123456789\"}");
	assert_string_equal(r.redacted, "{\"token_id\":\"***\",\"token_secret\":\"...6789\"}");
	assert_string_equal(r.name, "My b\xc3\xb6x");
	assert_string_equal(r.metadata, "{\"a\":{\"b\":[null,\"\\u0000\"]},\"z\":1}");
	assert_string_equal(r.transport, "native");
	assert_string_equal(r.agent, "pty-tunnel");
	assert_false(r.resume);
	store_sandbox_fini(&r);
}

static void refuses_what_cannot_be(void **state)
{
	(void)state;
#define OF(members) \
	"{\"provider\":\"runloop\",\"external_id\":\"x\",\"credential\":\"rl_k\"," members "}"
#define WITH(external_id, credential) \
	"{\"provider\":\"runloop\",\"external_id\":" external_id ",\"credential\":" credential "}"
	char long_id[700];
	snprintf(long_id, sizeof(long_id), WITH("\"%0257d\"", "\"rl_k\""), 0);
	char many_chars[1200];
	snprintf(many_chars, sizeof(many_chars), OF("\"name\":\"%0201d\""), 0);
	static const struct {
		const char *text, *field;
	} bad[] = {
		{ "{}", "provider" },
		{ "{\"provider\":1}", "provider" },
		{ "{\"provider\":\"local\"}", "provider" },
		{ "{\"provider\":\"url\"}", "provider" },
		{ "{\"provider\":\"e2b\"}", "provider" },
		{ "{\"provider\":\"runloop\"}", "external_id" },
		{ "{\"provider\":\"runloop\",\"external_id\":\"x\"}", "credential" },
		{ OF("\"credential_sealed\":\"x\""), "credential" },
		{ OF("\"shape\":1"), "shape" },
		{ OF("\"id\":\"\""), "id" },
		{ OF("\"id\":\"a b\""), "id" },
		{ OF("\"id\":\"a.b\""), "id" },
		{ OF("\"id\":\"local\""), "id" },
		{ OF("\"id\":\"url\""), "id" },
		{ OF("\"id\":\"runloop\""), "id" },
		{ OF("\"id\":7"), "id" },
		{ OF("\"subject\":\"\""), "subject" },
		{ OF("\"subject\":\"a\\nb\""), "subject" },
		{ OF("\"subject\":\"a\\u0000b\""), "subject" },
		{ OF("\"name\":\"\""), "name" },
		{ OF("\"name\":\"a\\u001bb\""), "name" },
		{ OF("\"name\":1"), "name" },
		{ OF("\"metadata\":[]"), "metadata" },
		{ OF("\"metadata\":{\"a\":[[[[[[[[1]]]]]]]]}"), "metadata" },
		{ OF("\"transport\":\"raw\""), "transport" },
		{ OF("\"agent\":\"bash\""), "agent" },
		{ OF("\"resume\":\"yes\""), "resume" },
		{ WITH("\"\"", "\"rl_k\""), "external_id" },
		{ WITH("\"a/b\"", "\"rl_k\""), "external_id" },
		{ WITH("\"a?b\"", "\"rl_k\""), "external_id" },
		{ WITH("\"a#b\"", "\"rl_k\""), "external_id" },
		{ WITH("\"a%2fb\"", "\"rl_k\""), "external_id" },
		{ WITH("\"a\\\\b\"", "\"rl_k\""), "external_id" },
		{ WITH("\"a b\"", "\"rl_k\""), "external_id" },
		{ WITH("\"a\\u00e9\"", "\"rl_k\""), "external_id" },
		{ WITH("\"a\\u0000\"", "\"rl_k\""), "external_id" },
		{ WITH("\"..\"", "\"rl_k\""), "external_id" },
		{ WITH("\".\"", "\"rl_k\""), "external_id" },
		{ WITH("\"x\"", "\"\""), "credential.api_key" },
		{ WITH("\"x\"", "\"rl_k\\n\""), "credential.api_key" },
		{ WITH("\"x\"", "\"rl_k\\u0000\""), "credential.api_key" },
		{ WITH("\"x\"", "\"rl_k\\u00e9\""), "credential.api_key" },
		{ WITH("\"x\"", "{}"), "credential" },
		{ WITH("\"x\"", "[\"rl_k\"]"), "credential" },
		{ WITH("\"x\"", "null"), "credential" },
		{ WITH("\"x\"", "{\"a\":1}"), "credential" },
		{ WITH("\"x\"", "{\"API\":\"rl_k\"}"), "credential" },
		{ WITH("\"x\"", "{\"\":\"rl_k\"}"), "credential" },
		{ WITH("\"x\"",
		       "{\"a\":\"1\",\"b\":\"1\",\"c\":\"1\",\"d\":\"1\",\"e\":\"1\",\"f\":\"1\","
		       "\"g\":\"1\",\"h\":\"1\",\"i\":\"1\"}"),
		  "credential" },
		{ WITH("\"x\"", "{\"abcdefghijklmnopqrstuvwxyz_abcdef\":\"rl_k\"}"), "credential" },
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_refused(bad[i].text, true, "bad-request", bad[i].field);
	assert_refused(long_id, true, "bad-request", "external_id");
	assert_refused(many_chars, true, "bad-request", "name");
	assert_refused("{\"provider\":\"runloop\"}", false, "bad-request", "provider");
	assert_refused("{\"subject\":\"bob\"}", false, "bad-request", "subject");
	assert_refused("{\"id\":\"x\"}", false, "bad-request", "id");

	char *metadata = malloc(20000);
	snprintf(metadata, 20000, OF("\"metadata\":{\"a\":\"%016377d\"}"), 0);
	assert_refused(metadata, true, "bad-request", "metadata"); /* 16,385 bytes */
	free(metadata);
	char *secret = malloc(5000);
	snprintf(secret, 5000, WITH("\"x\"", "\"%04097d\""), 0);
	assert_refused(secret, true, "bad-request", "credential.api_key");
	free(secret);
}

static void says_which_providers_there_are(void **state)
{
	(void)state;
	json_auto_t *object = parse("{\"provider\":\"local\"}");
	struct store_sandbox record = { .subject = strdup("alice") };
	struct problem problem = { 0 };
	assert_false(sandbox_read(&app, object, true, &record, &problem));
	assert_string_equal(problem.allowed, "runloop");
	store_sandbox_fini(&record);
	record.subject = strdup("alice");
	providers.names = "local";
	assert_false(sandbox_read(&app, object, true, &record, &problem));
	providers.names = "local,runloop";
	assert_string_equal(problem.reply.detail, "provider: one of remote sandboxes that is "
						  "switched on; there is none");
	store_sandbox_fini(&record);
}

static char *sealed_object(const char *text, size_t size)
{
	char *sealed = seal(app.seal_keys, text, size), *object = NULL;
	assert_true(asprintf(&object,
			     "{\"provider\":\"runloop\",\"external_id\":\"x\","
			     "\"credential_sealed\":{\"api_key\":\"%s\"}}",
			     sealed) > 0);
	free(sealed);
	return object;
}

static void opens_what_a_client_sealed(void **state)
{
	(void)state;
	struct store_sandbox r = read_new("{\"provider\":\"runloop\",\"external_id\":\"x\","
					  "\"credential_sealed\":\"" BY_JAVASCRIPT "\"}");
	assert_opens_as(r.credential, "{\"api_key\":\"sk-runloop-1234\"}");
	store_sandbox_fini(&r);
	char *text = sealed_object("rl_key \r\n\t", 10);
	r = read_new(text);
	assert_opens_as(r.credential, "{\"api_key\":\"rl_key\"}");
	store_sandbox_fini(&r);
	free(text);
	static const struct {
		const char *text;
		size_t size;
	} bad[] = {
		{ "rl_\nkey", 7 }, { "rl_key\0", 7 }, { " \n", 2 }, { "", 0 }, { "rl_\xc3\xa9", 5 }
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		text = sealed_object(bad[i].text, bad[i].size);
		assert_refused(text, true, "bad-request", "credential_sealed.api_key");
		free(text);
	}
	assert_refused("{\"provider\":\"runloop\",\"external_id\":\"x\",\"credential_sealed\":"
		       "{\"api_key\":\"IqZiC4PHV4JI8RI5TlxPpcL9phLWVFfacC3dVwpRoXIggVf6\"}}",
		       true, "credential-unreadable", "credential_sealed.api_key");
	assert_refused("{\"provider\":\"runloop\",\"external_id\":\"x\",\"credential_sealed\":"
		       "\"" BY_JAVASCRIPT "=\"}",
		       true, "credential-unreadable", "credential_sealed.api_key");
	assert_refused(
		"{\"provider\":\"runloop\",\"external_id\":\"x\",\"credential_sealed\":\"\"}", true,
		"credential-unreadable", "credential_sealed.api_key");
}

static void a_patch_changes_only_what_it_names(void **state)
{
	(void)state;
	struct store_sandbox r = read_new(
		OF("\"name\":\"n\",\"metadata\":{\"a\":1},\"resume\":false"));
	char *credential = strdup(r.credential);
	json_auto_t *nothing = parse("{}"),
		    *some = parse(
			    "{\"name\":null,\"metadata\":{\"b\":2},\"agent\":\"pty-tunnel\"}"),
		    *others = parse("{\"metadata\":null,\"credential\":{\"token\":\"rl_2\"},"
				    "\"external_id\":\"y\",\"resume\":true}");
	struct problem problem = { 0 };
	assert_true(sandbox_read(&app, nothing, false, &r, &problem));
	assert_string_equal(r.name, "n");
	assert_true(sandbox_read(&app, some, false, &r, &problem));
	assert_null(r.name);
	assert_string_equal(r.metadata, "{\"b\":2}");
	assert_string_equal(r.agent, "pty-tunnel");
	assert_string_equal(r.external_id, "x");
	assert_false(r.resume);
	assert_string_equal(r.credential, credential);
	assert_true(sandbox_read(&app, others, false, &r, &problem));
	assert_null(r.metadata);
	assert_opens_as(r.credential, "{\"token\":\"rl_2\"}");
	assert_string_equal(r.redacted, "{\"token\":\"***\"}");
	assert_string_equal(r.external_id, "y");
	assert_true(r.resume);
	free(credential);
	store_sandbox_fini(&r);
}

static void tells_the_first_member_that_differs(void **state)
{
	(void)state;
	static const struct {
		const char *text, *member;
	} others[] = {
		{ OF("\"name\":\"n\",\"metadata\":{\"b\":[1],\"a\":1}"), NULL },
		{ OF("\"id\":\"x\",\"name\":\"n\",\"metadata\":{\"a\":1,\"b\":[1]},\"resume\":true"),
		  NULL },
		{ OF("\"name\":\"m\",\"metadata\":{\"a\":1,\"b\":[1]}"), "name" },
		{ OF("\"metadata\":{\"a\":1,\"b\":[1]}"), "name" },
		{ OF("\"name\":\"n\",\"metadata\":{\"a\":1,\"b\":[1,2]}"), "metadata" },
		{ OF("\"name\":\"n\",\"metadata\":{\"a\":1,\"b\":[1]},\"resume\":false"),
		  "resume" },
		{ OF("\"name\":\"n\",\"metadata\":{\"a\":1,\"b\":[1]},\"agent\":\"pty-tunnel\""),
		  "agent" },
		{ "{\"provider\":\"runloop\",\"external_id\":\"x\",\"credential\":\"rl_l\",\"name\":\"n\","
		  "\"metadata\":{\"a\":1,\"b\":[1]}}",
		  "credential" },
	};
	struct store_sandbox r = read_new(OF("\"name\":\"n\",\"metadata\":{\"a\":1,\"b\":[1]}"));
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		struct store_sandbox other = read_new(others[i].text);
		const char *member = sandbox_difference(&app, &r, &other);
		if (others[i].member == NULL)
			assert_null(member);
		else
			assert_string_equal(member, others[i].member);
		store_sandbox_fini(&other);
	}
	store_sandbox_fini(&r);
}

/* ---- within a session ---- */

static void reads_one_within_a_session_and_opens_it_again(void **state)
{
	(void)state;
	json_auto_t *object = parse("{\"provider\":\"runloop\",\"external_id\":\"dbx_1\","
				    "\"credential\":\"" KEY "\",\"resume\":false}");
	const struct provider_ops *provider = NULL;
	char *shown = NULL, *sealed = NULL;
	struct problem problem = { 0 };
	assert_true(sandbox_read_inline(&app, object, &provider, &shown, &sealed, &problem));
	assert_string_equal(provider->name, "runloop");
	assert_string_equal(shown,
			    "{\"provider\":\"runloop\",\"external_id\":\"dbx_1\",\"transport\":"
			    "\"auto\",\"agent\":\"ptycast\",\"resume\":false}");
	assert_null(strstr(sealed, "dbx"));
	struct sandbox_target t;
	assert_int_equal(sandbox_target_of(&app, NULL, "alice", "runloop", sealed, &t, NULL), 0);
	assert_string_equal(t.external_id, "dbx_1");
	assert_string_equal(t.credential, "{\"api_key\":\"" KEY "\"}");
	assert_string_equal(t.transport, "auto");
	assert_string_equal(t.agent, "ptycast");
	assert_false(t.resume);
	sandbox_target_fini(&t);
	struct error err = { 0 };
	assert_int_equal(sandbox_target_of(&app, NULL, "alice", "runloop", "xxx", &t, &err),
			 -EBADMSG);
	assert_string_equal(err.slug, "credential-unreadable");
	free(shown);
	free(sealed);
}

static void names_members_within_a_session_by_their_path(void **state)
{
	(void)state;
	static const struct {
		const char *text, *field, *detail;
	} bad[] = {
		{ "{\"provider\":\"runloop\",\"name\":\"x\"}", "sandbox.name",
		  "there is no member sandbox.name here" },
		{ "{\"provider\":\"runloop\"}", "sandbox.external_id",
		  "sandbox.external_id is missing" },
		{ WITH("\"x\"", "\"\""), "sandbox.credential.api_key",
		  "sandbox.credential.api_key: 1 to 4096 printable ASCII characters" },
		{ "{\"provider\":\"runloop\",\"external_id\":\"x\",\"credential_sealed\":"
		  "{\"abcdefghijklmnopqrstuvwxyz_abcde\":\"x\"}}",
		  "sandbox.credential_sealed.abcdefghijklmnopqrstuvwxyz_abcde",
		  "sandbox.credential_sealed.abcdefghijklmnopqrstuvwxyz_abcde: sealed for another key "
		  "pair, or damaged" },
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		json_auto_t *object = parse(bad[i].text);
		const struct provider_ops *provider = NULL;
		char *shown = NULL, *sealed = NULL;
		struct problem problem = { 0 };
		assert_false(
			sandbox_read_inline(&app, object, &provider, &shown, &sealed, &problem));
		assert_string_equal(problem.field, bad[i].field);
		assert_string_equal(problem.reply.detail, bad[i].detail);
	}
}

/* ---- stored ones ---- */

static enum sandbox_result put(const char *text, const char *subject, bool replace,
			       struct problem *problem)
{
	json_auto_t *object = parse(text);
	struct store_sandbox r = { .subject = strdup(subject) };
	assert_true(sandbox_read(&app, object, true, &r, problem));
	enum sandbox_result result = sandbox_put(&app, &r, replace, problem);
	store_sandbox_fini(&r);
	return result;
}

static void an_id_is_one_sandbox(void **state)
{
	(void)state;
	struct problem p = { 0 };
	assert_int_equal(put(OF("\"id\":\"s1\""), "alice", false, &p), SANDBOX_CREATED);
	assert_int_equal(put(OF("\"id\":\"s1\""), "alice", false, &p), SANDBOX_UNCHANGED);
	assert_int_equal(put(OF("\"id\":\"s1\",\"name\":\"n\""), "alice", false, &p),
			 SANDBOX_REFUSED);
	assert_string_equal(p.reply.slug, "id-differs");
	assert_string_equal(p.field, "name");
	assert_int_equal(put(OF("\"id\":\"s1\""), "bob", true, &p), SANDBOX_REFUSED);
	assert_string_equal(p.reply.slug, "id-taken");
	assert_int_equal(put(OF("\"id\":\"s1\",\"name\":\"n\""), "alice", true, &p),
			 SANDBOX_CHANGED);
	struct store_sandbox r;
	assert_int_equal(app.store_ops->get_sandbox(app.store, "s1", &r, NULL), 0);
	assert_string_equal(r.name, "n");
	assert_int_equal(r.revision, 2);
	store_sandbox_fini(&r);
	assert_int_equal(put(OF("\"id\":\"s2\""), "alice", false, &p), SANDBOX_CREATED);
	assert_int_equal(put(OF("\"id\":\"s3\""), "alice", false, &p), SANDBOX_CREATED);
	assert_int_equal(put(OF("\"id\":\"s4\""), "alice", false, &p), SANDBOX_REFUSED);
	assert_string_equal(p.reply.slug, "sandbox-limit");
	assert_int_equal(put(OF("\"id\":\"s3\""), "alice", false, &p), SANDBOX_UNCHANGED);
	assert_int_equal(put(OF("\"id\":\"s4\""), "bob", false, &p), SANDBOX_CREATED);
}

static void finds_a_stored_one_for_who_may(void **state)
{
	(void)state;
	struct problem p = { 0 };
	assert_int_equal(put(OF("\"id\":\"s1\",\"transport\":\"agent\""), "alice", false, &p),
			 SANDBOX_CREATED);
	const struct provider_ops *provider = NULL;
	char *owner = NULL;
	struct reply reply;
	assert_true(sandbox_find(&app, "s1", "alice", &provider, &owner, &reply));
	assert_string_equal(provider->name, "runloop");
	assert_string_equal(owner, "alice");
	free(owner);
	owner = NULL;
	assert_true(sandbox_find(&app, "s1", NULL, &provider, &owner, &reply)); /* an operator */
	assert_string_equal(owner, "alice");
	free(owner);
	owner = NULL;
	assert_false(sandbox_find(&app, "s1", "bob", &provider, &owner, &reply));
	assert_int_equal(reply.status, 404);
	assert_string_equal(reply.slug, "not-found");
	assert_false(sandbox_find(&app, "s2", "alice", &provider, &owner, &reply));
	assert_int_equal(reply.status, 404);
	providers.names = "local";
	assert_false(sandbox_find(&app, "s1", "alice", &provider, &owner, &reply));
	providers.names = "local,runloop";
	assert_int_equal(reply.status, 409);
	assert_string_equal(reply.slug, "provider-off");
	assert_null(owner);
}

static void opens_a_stored_one_for_its_owner(void **state)
{
	(void)state;
	struct problem p = { 0 };
	struct error err = { 0 };
	struct sandbox_target t = { 0 };
	assert_int_equal(put(OF("\"id\":\"s1\",\"transport\":\"agent\""), "alice", false, &p),
			 SANDBOX_CREATED);
	assert_int_equal(sandbox_target_of(&app, "s1", "alice", "runloop", NULL, &t, NULL), 0);
	assert_string_equal(t.external_id, "x");
	assert_string_equal(t.credential, "{\"api_key\":\"rl_k\"}");
	assert_string_equal(t.transport, "agent");
	assert_true(t.resume);
	sandbox_target_fini(&t);
	assert_int_equal(sandbox_target_of(&app, "s1", "bob", "runloop", NULL, &t, &err), -ENOENT);
	assert_string_equal(err.slug, "sandbox-unknown");
	assert_int_equal(sandbox_target_of(&app, "s1", "alice", "url", NULL, &t, &err), -ENOENT);
	assert_int_equal(sandbox_target_of(&app, "s2", "alice", "runloop", NULL, &t, &err),
			 -ENOENT);
	assert_string_equal(err.slug, "sandbox-unknown");

	struct seal_keys *ours = app.seal_keys;
	char public_hex[SEAL_HEX_DIGITS + 1], private_hex[SEAL_HEX_DIGITS + 1];
	seal_make_pair(public_hex, private_hex);
	assert_int_equal(seal_keys_from_hex(public_hex, private_hex, &app.seal_keys, NULL), 0);
	assert_int_equal(sandbox_target_of(&app, "s1", "alice", "runloop", NULL, &t, &err),
			 -EBADMSG);
	assert_string_equal(err.slug, "credential-unreadable");
	seal_keys_destroy(app.seal_keys);
	app.seal_keys = ours;
	assert_null(t.credential);
}

static void a_patch_is_kept_and_a_deleted_one_is_gone(void **state)
{
	(void)state;
	struct problem p = { 0 };
	struct store_sandbox r;
	json_auto_t *members = parse("{\"name\":\"new\"}"), *bad = parse("{\"name\":1}");
	assert_int_equal(put(OF("\"id\":\"s1\""), "alice", false, &p), SANDBOX_CREATED);
	assert_true(sandbox_patch(&app, "s1", "alice", members, &r, &p));
	assert_string_equal(r.name, "new");
	assert_int_equal(r.revision, 2);
	store_sandbox_fini(&r);
	assert_true(sandbox_get(&app, "s1", NULL, &r, &p));
	assert_string_equal(r.name, "new");
	store_sandbox_fini(&r);
	assert_false(sandbox_patch(&app, "s1", "alice", bad, &r, &p));
	assert_int_equal(p.reply.status, 400);
	assert_false(sandbox_patch(&app, "s1", "bob", members, &r, &p));
	assert_int_equal(p.reply.status, 404);
	assert_false(sandbox_delete(&app, "s1", "bob", &p));
	assert_true(sandbox_delete(&app, "s1", "alice", &p));
	assert_false(sandbox_delete(&app, "s1", "alice", &p));
	assert_int_equal(p.reply.status, 404);
	assert_false(sandbox_get(&app, "s1", "alice", &r, &p));
}

int main(void)
{
	json_body_init();
#define WITH_STORE(test) cmocka_unit_test_setup_teardown(test, start, stop)
	const struct CMUnitTest tests[] = {
		WITH_STORE(reads_the_shortest_and_fills_in_the_rest),
		WITH_STORE(reads_all_there_is),
		WITH_STORE(refuses_what_cannot_be),
		WITH_STORE(says_which_providers_there_are),
		WITH_STORE(opens_what_a_client_sealed),
		WITH_STORE(a_patch_changes_only_what_it_names),
		WITH_STORE(tells_the_first_member_that_differs),
		WITH_STORE(reads_one_within_a_session_and_opens_it_again),
		WITH_STORE(names_members_within_a_session_by_their_path),
		WITH_STORE(an_id_is_one_sandbox),
		WITH_STORE(finds_a_stored_one_for_who_may),
		WITH_STORE(opens_a_stored_one_for_its_owner),
		WITH_STORE(a_patch_is_kept_and_a_deleted_one_is_gone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
