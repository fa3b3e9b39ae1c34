/* sandbox.c -- see sandbox.h. Credentials are read in sandbox_credential.c. */
#include "service/sandbox.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/app.h"
#include "service/auth.h"
#include "service/json_body.h"
#include "service/log.h"
#include "service/sandbox_private.h"
#include "service/session.h"
#include "store/store.h"

#define EXTERNAL_ID_MAX 256
#define NAME_CHARS_MAX 200
#define METADATA_BYTES_MAX 16384
#define METADATA_DEPTH_MAX 8
#define RANDOM_ID_BYTES 12

/* What a session may name in place of a stored sandbox. */
static const char *const built_in[] = { "local", "url", "runloop", NULL };

static const char *const transports[] = { "auto", "agent", "native", NULL };
static const char *const agents[] = { "ptycast", "pty-tunnel", NULL };

static bool is_listed(const char *text, const char *const *list)
{
	while (*list != NULL && strcmp(*list, text) != 0)
		list++;
	return *list != NULL;
}

/* text NULL: takes it away. */
static bool set_text(char **member, const char *text, struct problem *problem)
{
	char *copy = text == NULL ? NULL : strdup(text);
	if (text != NULL && copy == NULL)
		return sandbox_no_memory(problem);
	free(*member);
	*member = copy;
	return true;
}

/* ---- where it is ---- */

static bool read_id(const json_t *object, struct store_sandbox *record, struct problem *problem)
{
	const char *id = NULL;
	if (!json_body_string(object, "id", false, &id, problem))
		return false;
	if (id == NULL) {
		unsigned char random[RANDOM_ID_BYTES];
		randombytes_buf(random, sizeof(random));
		memcpy(record->id, "sb-", 3);
		sodium_bin2base64(record->id + 3, sizeof(record->id) - 3, random, sizeof(random),
				  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
		return true;
	}
	if (!session_id_valid(id))
		return sandbox_refuse(problem, "id", "1 to 64 of A-Z a-z 0-9 _ -");
	if (is_listed(id, built_in))
		return sandbox_refuse(problem, "id", "the name of a provider is not available");
	snprintf(record->id, sizeof(record->id), "%s", id);
	return true;
}

static bool read_subject(const json_t *object, struct store_sandbox *record,
			 struct problem *problem)
{
	const char *subject = NULL;
	if (!json_body_string(object, "subject", record->subject == NULL, &subject, problem))
		return false;
	if (subject == NULL)
		return true;
	size_t size = strlen(subject);
	bool good = size >= 1 && size < SUBJECT_BYTES;
	for (size_t i = 0; i < size; i++)
		good = good && (unsigned char)subject[i] >= ' ' && subject[i] != 0x7f;
	if (!good)
		return sandbox_refuse(problem, "subject",
				      "1 to 255 bytes without control characters");
	return set_text(&record->subject, subject, problem);
}

/* The provider as it stands in object; NULL and *problem when it cannot have stored sandboxes. */
static const struct provider_ops *read_provider(const struct app *app, const json_t *object,
						struct problem *problem)
{
	const char *name = NULL;
	if (!json_body_string(object, "provider", true, &name, problem))
		return NULL;
	const struct provider_ops *p = provider_find(app->providers, name);
	if (p != NULL && p->needs_target)
		return p;
	char allowed[sizeof(problem->allowed)] = "";
	for (size_t i = 0; (p = provider_at(app->providers, i)) != NULL; i++) {
		size_t used = strlen(allowed);
		if (p->needs_target)
			snprintf(allowed + used, sizeof(allowed) - used, "%s%s",
				 used == 0 ? "" : ", ", p->name);
	}
	*problem = problem_bad_request("provider", allowed,
				       "provider: one of remote sandboxes that is switched on%s",
				       allowed[0] == '\0' ? "; there is none" : "");
	return NULL;
}

static bool read_external_id(const json_t *object, bool required, char **ret,
			     struct problem *problem)
{
	const char *id = NULL;
	if (!json_body_string(object, "external_id", required, &id, problem))
		return false;
	if (id == NULL)
		return true;
	size_t size = strlen(id);
	if (size < 1 || size > EXTERNAL_ID_MAX || !sandbox_is_printable(id, size) ||
	    strpbrk(id, " /?#%\\") != NULL || strcmp(id, ".") == 0 || strcmp(id, "..") == 0)
		return sandbox_refuse(
			problem, "external_id",
			"1 to 256 printable ASCII characters without space / ? # % \\");
	return set_text(ret, id, problem);
}

static bool read_choice(const json_t *object, const char *name, const char *const *choices,
			const char *fallback, char **ret, struct problem *problem)
{
	const char *text = NULL;
	if (!json_body_string(object, name, false, &text, problem))
		return false;
	if (text == NULL)
		return *ret != NULL || set_text(ret, fallback, problem);
	if (is_listed(text, choices))
		return set_text(ret, text, problem);
	sandbox_refuse(problem, name, "one of those allowed");
	problem->allowed_list = choices;
	return false;
}

/* ---- what is only kept ---- */

static bool read_name(const json_t *object, struct store_sandbox *record, struct problem *problem)
{
	const json_t *value = json_object_get(object, "name");
	if (value == NULL || json_is_null(value))
		return value == NULL || set_text(&record->name, NULL, problem);
	const char *name = NULL;
	if (!json_body_string(object, "name", true, &name, problem))
		return false;
	size_t chars = 0;
	bool good = true;
	for (const char *c = name; *c != '\0'; c++) {
		chars += ((unsigned char)*c & 0xc0) != 0x80; /* jansson lets only UTF-8 in */
		good = good && (unsigned char)*c >= ' ' && *c != 0x7f;
	}
	if (!good || chars < 1 || chars > NAME_CHARS_MAX)
		return sandbox_refuse(problem, "name",
				      "1 to 200 characters, none of them a control one");
	return set_text(&record->name, name, problem);
}

static bool deeper_than(const json_t *value, unsigned levels)
{
	const char *name;
	json_t *child;
	size_t i;
	bool deep = levels == 0 && (json_is_object(value) || json_is_array(value));
	if (deep)
		return true;
	json_object_foreach((json_t *)value, name, child)
		deep = deep || deeper_than(child, levels - 1);
	json_array_foreach(value, i, child) deep = deep || deeper_than(child, levels - 1);
	return deep;
}

static bool read_metadata(const json_t *object, struct store_sandbox *record,
			  struct problem *problem)
{
	const json_t *value = json_object_get(object, "metadata");
	if (value == NULL || json_is_null(value))
		return value == NULL || set_text(&record->metadata, NULL, problem);
	if (!json_is_object(value) || deeper_than(value, METADATA_DEPTH_MAX))
		return sandbox_refuse(problem, "metadata", "an object, nested at most 8 deep");
	char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
	if (text == NULL)
		return sandbox_no_memory(problem);
	bool ok = strlen(text) <= METADATA_BYTES_MAX;
	if (!ok)
		sandbox_refuse(problem, "metadata", "at most 16384 bytes as text");
	else
		ok = set_text(&record->metadata, text, problem);
	free(text);
	return ok;
}

/* ---- the whole ---- */

bool sandbox_read(struct app *app, const json_t *object, bool is_new, struct store_sandbox *record,
		  struct problem *problem)
{
	static const char *const of_new[] = { "id",          "subject",    "provider",
					      "external_id", "credential", "credential_sealed",
					      "name",        "metadata",   "transport",
					      "agent",       "resume",     NULL };
	static const char *const of_known[] = { "external_id", "credential", "credential_sealed",
						"name",        "metadata",   "transport",
						"agent",       "resume",     NULL };
	if (!json_body_only(object, "", is_new ? of_new : of_known, problem))
		return false;
	if (is_new) {
		record->resume = true;
		if (!read_id(object, record, problem) || !read_subject(object, record, problem))
			return false;
		const struct provider_ops *provider = read_provider(app, object, problem);
		if (provider == NULL || !set_text(&record->provider, provider->name, problem))
			return false;
	}
	if (!read_external_id(object, is_new, &record->external_id, problem) ||
	    !read_name(object, record, problem) || !read_metadata(object, record, problem) ||
	    !read_choice(object, "transport", transports, "auto", &record->transport, problem) ||
	    !read_choice(object, "agent", agents, "ptycast", &record->agent, problem) ||
	    !json_body_bool(object, "resume", &record->resume, problem))
		return false;
	json_auto_t *credential = NULL;
	if (!sandbox_read_credential(app, object, is_new, &credential, problem))
		return false;
	return credential == NULL || sandbox_keep_credential(app, credential, record, problem);
}

const char *sandbox_difference(struct app *app, const struct store_sandbox *a,
			       const struct store_sandbox *b)
{
	const struct {
		const char *name, *a, *b;
	} texts[] = {
		{ "provider", a->provider, b->provider },
		{ "external_id", a->external_id, b->external_id },
		{ "name", a->name, b->name },
		{ "metadata", a->metadata, b->metadata },
		{ "transport", a->transport, b->transport },
		{ "agent", a->agent, b->agent },
	};
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if ((texts[i].a == NULL) != (texts[i].b == NULL) ||
		    (texts[i].a != NULL && strcmp(texts[i].a, texts[i].b) != 0))
			return texts[i].name;
	if (a->resume != b->resume)
		return "resume";
	json_auto_t *one = sandbox_open_json(app, a->credential),
		    *other = sandbox_open_json(app, b->credential);
	return one != NULL && json_equal(one, other) ? NULL : "credential";
}

/* ---- within a session ---- */

/* Without the members' prefix in problems. */
static bool read_inline(struct app *app, const json_t *object, const struct provider_ops **provider,
			char **shown, char **sealed, struct problem *problem)
{
	bool resume = true, ok = false;
	char *external_id = NULL, *transport = NULL, *agent = NULL;
	json_auto_t *credential = NULL;
	*provider = read_provider(app, object, problem);
	if (*provider != NULL && read_external_id(object, true, &external_id, problem) &&
	    read_choice(object, "transport", transports, "auto", &transport, problem) &&
	    read_choice(object, "agent", agents, "ptycast", &agent, problem) &&
	    json_body_bool(object, "resume", &resume, problem) &&
	    sandbox_read_credential(app, object, true, &credential, problem)) {
		json_auto_t *way = json_pack("{s:s, s:s, s:s, s:s, s:b}", "provider",
					     (*provider)->name, "external_id", external_id,
					     "transport", transport, "agent", agent, "resume",
					     resume);
		*shown = json_dumps(way, JSON_COMPACT);
		json_object_set(way, "credential", credential);
		*sealed = sandbox_seal_json(app, way);
		ok = *shown != NULL && *sealed != NULL;
		if (!ok) {
			free(*shown);
			free(*sealed);
			sandbox_no_memory(problem);
		}
	}
	free(external_id);
	free(transport);
	free(agent);
	return ok;
}

bool sandbox_read_inline(struct app *app, const json_t *object,
			 const struct provider_ops **provider, char **shown, char **sealed,
			 struct problem *problem)
{
	static const char *const members[] = { "provider",   "external_id",
					       "credential", "credential_sealed",
					       "transport",  "agent",
					       "resume",     NULL };
	if (!json_body_only(object, "sandbox.", members, problem))
		return false;
	if (read_inline(app, object, provider, shown, sealed, problem))
		return true;
	if (problem->field[0] != '\0') {
		char field[sizeof(problem->field)];
		snprintf(field, sizeof(field), "sandbox.%.55s", problem->field);
		memcpy(problem->field, field, sizeof(field));
		char detail[sizeof(problem->reply.detail)];
		snprintf(detail, sizeof(detail), "sandbox.%.190s", problem->reply.detail);
		memcpy(problem->reply.detail, detail, sizeof(detail));
	}
	return false;
}

/* ---- from the store ---- */

struct reply sandbox_store_failed(int rc, const struct error *err)
{
	char text[sizeof(err->text)];
	log_error("sandboxes not reachable", "code=%d text=\"%s\"", rc,
		  log_safe(text, sizeof(text), err->text));
	struct reply reply = reply_problem(503, "busy", "the store cannot be asked at the moment");
	reply.retry_after_s = retry_after_jittered(1, 5);
	return reply;
}

bool sandbox_find(struct app *app, const char *id, const char *subject,
		  const struct provider_ops **provider, char **owner, struct reply *problem)
{
	struct store_sandbox record = { 0 };
	struct error err = { 0 };
	int rc = app->store_ops->get_sandbox(app->store, id, &record, &err);
	if (rc != 0 && rc != -ENOENT) {
		*problem = sandbox_store_failed(rc, &err);
		return false;
	}
	const struct provider_ops *p = NULL;
	if (rc == -ENOENT || (subject != NULL && strcmp(record.subject, subject) != 0))
		*problem = reply_problem(404, "not-found", "no such sandbox");
	else if ((p = provider_find(app->providers, record.provider)) == NULL)
		*problem = reply_problem(409, "provider-off",
					 "its provider, %.32s, is not switched on here",
					 record.provider);
	if (p != NULL) {
		*provider = p;
		*owner = record.subject;
		record.subject = NULL; /* the caller's */
	}
	store_sandbox_fini(&record);
	return p != NULL;
}

static int no_such_sandbox(struct error *err)
{
	return error_set_slug(err, -ENOENT, "sandbox-unknown", "the stored sandbox was deleted");
}

/* Takes the strings of a target, each of which may be NULL for want of memory. credential: the object. */
static int make_target(const char *external_id, const char *transport, const char *agent,
		       bool resume, const json_t *credential, struct sandbox_target *ret,
		       struct error *err)
{
	struct sandbox_target t = {
		.external_id = strdup(external_id),
		.credential = json_dumps(credential, JSON_COMPACT),
		.transport = strdup(transport),
		.agent = strdup(agent),
		.resume = resume,
	};
	if (t.external_id == NULL || t.credential == NULL || t.transport == NULL ||
	    t.agent == NULL) {
		sandbox_target_fini(&t);
		return error_set_slug(err, -ENOMEM, "busy", "no memory");
	}
	*ret = t;
	return 0;
}

static int unreadable(struct error *err)
{
	return error_set_slug(err, -EBADMSG, "credential-unreadable",
			      "the sandbox's credential is sealed for a key pair that is not "
			      "configured here");
}

static int open_stored(struct app *app, const char *id, const char *owner, const char *provider,
		       struct sandbox_target *ret, struct error *err)
{
	struct store_sandbox record = { 0 };
	struct error cause = { 0 };
	int rc = app->store_ops->get_sandbox(app->store, id, &record, &cause);
	if (rc != 0 && rc != -ENOENT) {
		sandbox_store_failed(rc, &cause);
		return error_set(err, rc, "the store cannot be asked at the moment");
	}
	/* It may be another one under the same id by now. */
	if (rc == -ENOENT || strcmp(record.subject, owner) != 0 ||
	    strcmp(record.provider, provider) != 0) {
		store_sandbox_fini(&record);
		return no_such_sandbox(err);
	}
	json_auto_t *credential = sandbox_open_json(app, record.credential);
	rc = credential == NULL ? unreadable(err)
				: make_target(record.external_id, record.transport, record.agent,
					      record.resume, credential, ret, err);
	store_sandbox_fini(&record);
	return rc;
}

int sandbox_target_of(struct app *app, const char *id, const char *owner, const char *provider,
		      const char *sealed, struct sandbox_target *ret, struct error *err)
{
	if (id != NULL)
		return open_stored(app, id, owner, provider, ret, err);
	json_auto_t *way = sandbox_open_json(app, sealed);
	const char *external_id = NULL, *transport = NULL, *agent = NULL;
	int resume = 0;
	json_t *credential = NULL;
	if (json_unpack(way, "{s:s, s:s, s:s, s:b, s:o}", "external_id", &external_id, "transport",
			&transport, "agent", &agent, "resume", &resume, "credential",
			&credential) != 0)
		return unreadable(err);
	return make_target(external_id, transport, agent, resume != 0, credential, ret, err);
}
