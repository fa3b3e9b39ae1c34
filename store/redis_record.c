/* redis_record.c -- see redis_record.h: one table a kind. */
#include "store/redis_record.h"

#include <assert.h>
#include <errno.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum type {
	TYPE_TEXT,
	TYPE_NAME, /* char[16] */
	TYPE_HEX,  /* uint64_t */
	TYPE_U64,
	TYPE_I64,
	TYPE_U32,
	TYPE_U16,
	TYPE_BOOL,
};

struct field {
	const char *name;
	enum type type;
	size_t offset;
};

#define OF_SESSION(member, type)                                      \
	{                                                             \
#member, type, offsetof(struct store_session, member) \
	}
#define OF_SANDBOX(member, type)                                      \
	{                                                             \
#member, type, offsetof(struct store_sandbox, member) \
	}

static const struct field session_fields[] = {
	OF_SESSION(subject, TYPE_TEXT),       OF_SESSION(sandbox, TYPE_TEXT),
	OF_SESSION(provider, TYPE_TEXT),      OF_SESSION(params, TYPE_TEXT),
	OF_SESSION(endpoint, TYPE_TEXT),      OF_SESSION(target, TYPE_TEXT),
	OF_SESSION(epoch, TYPE_HEX),          OF_SESSION(end, TYPE_HEX),
	OF_SESSION(fence, TYPE_HEX),          OF_SESSION(cols, TYPE_U16),
	OF_SESSION(rows, TYPE_U16),           OF_SESSION(created_ms, TYPE_I64),
	OF_SESSION(idle_timeout_s, TYPE_U32), OF_SESSION(ended, TYPE_BOOL),
	OF_SESSION(ended_json, TYPE_TEXT),    OF_SESSION(ended_ms, TYPE_I64),
	OF_SESSION(owner, TYPE_HEX),          OF_SESSION(birth, TYPE_HEX),
	OF_SESSION(host, TYPE_HEX),           OF_SESSION(offset, TYPE_HEX),
	OF_SESSION(state, TYPE_NAME),         OF_SESSION(closing, TYPE_BOOL),
	OF_SESSION(steps, TYPE_TEXT),
};

static const struct field sandbox_fields[] = {
	OF_SANDBOX(subject, TYPE_TEXT),     OF_SANDBOX(provider, TYPE_TEXT),
	OF_SANDBOX(external_id, TYPE_TEXT), OF_SANDBOX(credential, TYPE_TEXT),
	OF_SANDBOX(redacted, TYPE_TEXT),    OF_SANDBOX(name, TYPE_TEXT),
	OF_SANDBOX(metadata, TYPE_TEXT),    OF_SANDBOX(transport, TYPE_TEXT),
	OF_SANDBOX(agent, TYPE_TEXT),       OF_SANDBOX(resume, TYPE_BOOL),
	OF_SANDBOX(created_ms, TYPE_I64),   OF_SANDBOX(updated_ms, TYPE_I64),
	OF_SANDBOX(revision, TYPE_U64),
};

static const struct {
	const struct field *fields;
	int count;
} kinds[] = {
	[REDIS_SESSION] = { session_fields, sizeof(session_fields) / sizeof(session_fields[0]) },
	[REDIS_SANDBOX] = { sandbox_fields, sizeof(sandbox_fields) / sizeof(sandbox_fields[0]) },
};

/* --- to a hash --- */

static const char *text_of(const struct field *f, const void *record)
{
	return *(char *const *)(const void *)((const char *)record + f->offset);
}

static void encode_field(struct redis_args *a, const struct field *f, const void *record)
{
	const void *member = (const char *)record + f->offset;
	switch (f->type) {
	case TYPE_TEXT:
		redis_args_text(a, text_of(f, record));
		break;
	case TYPE_NAME:
		redis_args_text(a, member);
		break;
	case TYPE_HEX:
		redis_args_hex(a, *(const uint64_t *)member);
		break;
	case TYPE_U64:
		redis_args_number(a, (int64_t) * (const uint64_t *)member);
		break;
	case TYPE_I64:
		redis_args_number(a, *(const int64_t *)member);
		break;
	case TYPE_U32:
		redis_args_number(a, *(const uint32_t *)member);
		break;
	case TYPE_U16:
		redis_args_number(a, *(const uint16_t *)member);
		break;
	case TYPE_BOOL:
		redis_args_text(a, *(const bool *)member ? "1" : "0");
		break;
	}
}

static bool is_absent(const struct field *f, const void *record)
{
	return f->type == TYPE_TEXT && text_of(f, record) == NULL;
}

void redis_record_encode(struct redis_args *a, enum redis_record kind, const void *record,
			 bool pairs_only)
{
	const struct field *fields = kinds[kind].fields;
	int present = 0;
	for (int i = 0; i < kinds[kind].count; i++)
		present += !is_absent(&fields[i], record);
	if (!pairs_only)
		redis_args_number(a, present);
	for (int i = 0; i < kinds[kind].count; i++) {
		if (is_absent(&fields[i], record))
			continue;
		redis_args_text(a, fields[i].name);
		encode_field(a, &fields[i], record);
	}
	for (int i = 0; !pairs_only && i < kinds[kind].count; i++)
		if (is_absent(&fields[i], record))
			redis_args_text(a, fields[i].name);
}

/* --- and back --- */

/* A decimal number from min to max. */
static bool read_number(const char *text, int64_t min, int64_t max, int64_t *ret)
{
	char *end;
	if ((text[0] < '0' || text[0] > '9') && text[0] != '-')
		return false;
	errno = 0;
	long long n = strtoll(text, &end, 10);
	if (errno != 0 || *end != '\0' || end == text || n < min || n > max)
		return false;
	*ret = n;
	return true;
}

static bool read_hex(const char *text, uint64_t *ret)
{
	if (strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
		return false;
	*ret = strtoull(text, NULL, 16);
	return true;
}

static int decode_text(const redisReply *value, char **ret)
{
	if (*ret != NULL || strlen(value->str) != value->len)
		return -EBADMSG;
	*ret = strdup(value->str);
	return *ret == NULL ? -ENOMEM : 0;
}

static int decode_field(const struct field *f, const redisReply *value, void *record)
{
	void *member = (char *)record + f->offset;
	int64_t n = 0;
	bool good = false;
	switch (f->type) {
	case TYPE_TEXT:
		return decode_text(value, member);
	case TYPE_NAME:
		good = value->len < 16 && strlen(value->str) == value->len;
		if (good)
			memcpy(member, value->str, value->len + 1);
		break;
	case TYPE_HEX:
		good = read_hex(value->str, member);
		break;
	case TYPE_U64:
	case TYPE_I64: /* of the same size; none of ours is above INT64_MAX */
		good = read_number(value->str, f->type == TYPE_U64 ? 0 : INT64_MIN, INT64_MAX, &n);
		if (good)
			*(int64_t *)member = n;
		break;
	case TYPE_U32:
		good = read_number(value->str, 0, UINT32_MAX, &n);
		if (good)
			*(uint32_t *)member = (uint32_t)n;
		break;
	case TYPE_U16:
		good = read_number(value->str, 0, UINT16_MAX, &n);
		if (good)
			*(uint16_t *)member = (uint16_t)n;
		break;
	case TYPE_BOOL:
		good = read_number(value->str, 0, 1, &n);
		if (good)
			*(bool *)member = n != 0;
		break;
	}
	return good ? 0 : -EBADMSG;
}

int redis_record_set(enum redis_record kind, const char *field, const struct redisReply *value,
		     void *ret)
{
	if (value->type != REDIS_REPLY_STRING)
		return -EBADMSG;
	for (int i = 0; i < kinds[kind].count; i++)
		if (strcmp(kinds[kind].fields[i].name, field) == 0)
			return decode_field(&kinds[kind].fields[i], value, ret);
	return -EBADMSG;
}

/* The fields of newer versions, and those that only scripts look at, are passed over. */
static int decode_all(enum redis_record kind, const redisReply *reply, void *record)
{
	for (size_t i = 0; i + 1 < reply->elements; i += 2) {
		const redisReply *name = reply->element[i], *value = reply->element[i + 1];
		if (name->type != REDIS_REPLY_STRING || value->type != REDIS_REPLY_STRING)
			return -EBADMSG;
		for (int f = 0; f < kinds[kind].count; f++) {
			if (strcmp(kinds[kind].fields[f].name, name->str) != 0)
				continue;
			int rc = decode_field(&kinds[kind].fields[f], value, record);
			if (rc != 0)
				return rc;
			break;
		}
	}
	return 0;
}

int redis_record_decode(enum redis_record kind, const char *id, const struct redisReply *reply,
			void *ret)
{
	if (reply->type != REDIS_REPLY_ARRAY)
		return -EBADMSG;
	if (reply->elements == 0)
		return -ENOENT;
	if (kind == REDIS_SESSION) {
		struct store_session record = { 0 };
		snprintf(record.id, sizeof(record.id), "%s", id);
		int rc = decode_all(kind, reply, &record);
		if (rc != 0)
			store_session_fini(&record);
		else
			*(struct store_session *)ret = record;
		return rc;
	}
	struct store_sandbox record = { 0 };
	snprintf(record.id, sizeof(record.id), "%s", id);
	int rc = decode_all(kind, reply, &record);
	if (rc != 0)
		store_sandbox_fini(&record);
	else
		*(struct store_sandbox *)ret = record;
	return rc;
}
