/* viewer_ws.c -- see viewer_ws.h. */
#include "service/viewer_ws.h"

#include <endian.h>
#include <errno.h>
#include <jansson.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/config.h"
#include "service/loop.h"
#include "service/metrics.h"
#include "service/reply.h"
#include "service/session.h"
#include "service/signals.h"
#include "wire/base64.h"
#include "wire/ws_frame.h"

#define SMALL_MESSAGE_BYTES 1024

struct viewer_ws *viewer_ws_create(const struct viewer_ws_dialect *dialect,
				   const struct viewer_ws_ops *ops, void *arg, bool may_write,
				   const struct config *cfg)
{
	struct viewer_ws *ws = calloc(1, sizeof(*ws));
	if (ws == NULL)
		return NULL;
	ws->dialect = dialect;
	ws->ops = ops;
	ws->arg = arg;
	ws->may_write = may_write;
	ws->cfg = cfg;
	/* Twice the input: room for base64 and the usual escapes of JSON. */
	ws_decoder_init(&ws->decoder, WS_ROLE_SERVER,
			may_write ? cfg->input_bytes * 2 + SMALL_MESSAGE_BYTES
				  : dialect->viewer_bytes_max);
	return ws;
}

/* Counts what the decoder holds; false when all of them together hold too much. */
static bool count_held(struct viewer_ws *ws)
{
	size_t held = ws->decoder.message_capacity;
	metric_add(METRIC_BODIES_BYTES, (int64_t)held - (int64_t)ws->held_bytes);
	bool grew = held > ws->held_bytes;
	ws->held_bytes = held;
	if (held == 0)
		ws->begun_us = 0;
	else if (ws->begun_us == 0)
		ws->begun_us = loop_now_us();
	return !grew || metric_get(METRIC_BODIES_BYTES) <= (int64_t)ws->cfg->bodies_total_bytes;
}

void viewer_ws_destroy(struct viewer_ws *ws)
{
	if (ws == NULL)
		return;
	metric_add(METRIC_BODIES_BYTES, -(int64_t)(ws->held_bytes + ws->early_capacity));
	if (ws->early != NULL)
		sodium_memzero(ws->early, ws->early_size); /* it may be a password */
	free(ws->early);
	ws_decoder_fini(&ws->decoder);
	free(ws);
}

void viewer_ws_tick(struct viewer_ws *ws, uint64_t now_us)
{
	if (ws->begun_us != 0 &&
	    now_us - ws->begun_us > ws->cfg->request_timeout_s * UINT64_C(1000000))
		ws->ops->close(ws->arg, 1008, "a message was not finished in time");
}

void viewer_ws_answer(struct viewer_ws *ws, uint64_t seq, const struct reply *reply)
{
	ws->dialect->answer(ws, seq, reply);
}

void viewer_ws_opened(struct viewer_ws *ws)
{
	if (ws->dialect->opened != NULL)
		ws->dialect->opened(ws);
}

/* --- the native dialect --- */

/* An ack, or an error with the problem that HTTP would have told. */
static void answer(struct viewer_ws *ws, uint64_t seq, const struct reply *reply)
{
	json_t *message;
	if (reply->slug == NULL && seq == 0)
		return;
	if (reply->slug == NULL) {
		message = json_pack("{s:s, s:I}", "event", "ack", "seq", (json_int_t)seq);
	} else {
		char type[64];
		snprintf(type, sizeof(type), "/problems/%s", reply->slug);
		message = json_pack("{s:s, s:s, s:i, s:s, s:I, s:I}", "event", "error", "type",
				    type, "status", (int)reply->status, "detail", reply->detail,
				    "seq", (json_int_t)seq, "expected",
				    (json_int_t)reply->expected);
	}
	char *text = message == NULL ? NULL : json_dumps(message, JSON_COMPACT);
	if (text != NULL)
		ws->ops->send(ws->arg, WS_TEXT, text, strlen(text));
	free(text);
	json_decref(message);
}

static void refuse(struct viewer_ws *ws, uint64_t seq, unsigned status, const char *slug,
		   const char *detail)
{
	struct reply reply = reply_problem(status, slug, "%s", detail);
	answer(ws, seq, &reply);
}

static void type_in(struct viewer_ws *ws, uint64_t seq, const uint8_t *bytes, size_t size)
{
	if (!ws->may_write) {
		refuse(ws, seq, 403, "forbidden", "this credential may only view");
		return;
	}
	if (seq != 0 && !ws->has_client) {
		refuse(ws, seq, 400, "bad-request",
		       "a numbered input needs a client message first");
		return;
	}
	if (size > ws->cfg->input_bytes) {
		refuse(ws, seq, 413, "payload-too-large", "the input is too long for one message");
		return;
	}
	uint8_t *copy = malloc(size + 1);
	if (copy == NULL) {
		refuse(ws, seq, 503, "busy", "no memory");
		return;
	}
	memcpy(copy, bytes, size);
	ws->ops->input(ws->arg, ws->client, seq, copy, size);
}

/* The members of a message, of the right types and no others. */
static bool unpack(json_t *message, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	bool good = json_vunpack_ex(message, NULL, JSON_STRICT, format, args) == 0;
	va_end(args);
	return good;
}

static void receive_input(struct viewer_ws *ws, json_t *message)
{
	const char *type, *data = NULL, *base64 = NULL;
	size_t size = 0;
	json_int_t seq = 0;
	bool has_seq = json_object_get(message, "seq") != NULL;
	if (!unpack(message, "{s:s, s?:s%, s?:s%, s?:I}", "type", &type, "data", &data, &size,
		    "base64", &base64, &size, "seq", &seq) ||
	    (data == NULL) == (base64 == NULL) || seq < (has_seq ? 1 : 0)) {
		refuse(ws, 0, 400, "bad-request",
		       "input: data or base64, a string; seq, a number from 1");
		return;
	}
	if (data != NULL) {
		type_in(ws, (uint64_t)seq, (const uint8_t *)data, size);
		return;
	}
	uint8_t *bytes = malloc(size + 1);
	ssize_t n = bytes == NULL ? -ENOMEM : base64_decode(bytes, base64, size);
	if (n >= 0)
		type_in(ws, (uint64_t)seq, bytes, (size_t)n);
	else
		refuse(ws, (uint64_t)seq, 400, "bad-request", "base64: not valid");
	free(bytes);
}

static void receive_resize(struct viewer_ws *ws, json_t *message)
{
	const char *type;
	json_int_t cols, rows;
	if (!unpack(message, "{s:s, s:I, s:I}", "type", &type, "cols", &cols, "rows", &rows) ||
	    cols < 1 || cols > 1000 || rows < 1 || rows > 1000)
		refuse(ws, 0, 400, "bad-request", "resize: cols and rows are 1 to 1000");
	else if (!ws->may_write)
		refuse(ws, 0, 403, "forbidden", "this credential may only view");
	else
		ws->ops->resize(ws->arg, (uint16_t)cols, (uint16_t)rows);
}

static void receive_signal(struct viewer_ws *ws, json_t *message)
{
	const char *type, *name;
	int number = 0;
	if (unpack(message, "{s:s, s:s}", "type", &type, "signal", &name))
		number = signal_number(name);
	if (number == 0) {
		struct reply reply = reply_problem(400, "bad-request", "signal: one of %s",
						   signal_names_allowed);
		answer(ws, 0, &reply);
	} else if (!ws->may_write) {
		refuse(ws, 0, 403, "forbidden", "this credential may only view");
	} else {
		ws->ops->signal(ws->arg, number);
	}
}

static void receive_client(struct viewer_ws *ws, json_t *message)
{
	const char *type, *id;
	/* An Input-Client has the form of an id. */
	if (!unpack(message, "{s:s, s:s}", "type", &type, "id", &id) || !session_id_valid(id)) {
		refuse(ws, 0, 400, "bad-request", "client: id is 1 to 64 of A-Z a-z 0-9 _ -");
		return;
	}
	session_client_key(id, ws->client);
	ws->has_client = true;
}

/* Messages are flat: one '{' outside of strings. The parser is not asked about others: millions of
 * empty lists take it seconds. */
static bool is_flat(const uint8_t *data, size_t size)
{
	bool in_string = false;
	unsigned opened = 0;
	for (size_t i = 0; i < size && opened < 2; i++) {
		if (in_string && data[i] == '\\')
			i++;
		else if (data[i] == '"')
			in_string = !in_string;
		else if (!in_string && (data[i] == '{' || data[i] == '['))
			opened++;
	}
	return opened < 2;
}

static void receive_text(struct viewer_ws *ws, const uint8_t *data, size_t size)
{
	if (!is_flat(data, size)) {
		refuse(ws, 0, 400, "bad-json", "a text message is one flat JSON object");
		return;
	}
	json_t *message = json_loadb((const char *)data, size,
				     JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
	const char *type = json_string_value(json_object_get(message, "type"));
	if (type == NULL)
		refuse(ws, 0, 400, "bad-json", "a text message is a JSON object with a type");
	else if (strcmp(type, "input") == 0)
		receive_input(ws, message);
	else if (strcmp(type, "resize") == 0)
		receive_resize(ws, message);
	else if (strcmp(type, "signal") == 0)
		receive_signal(ws, message);
	else if (strcmp(type, "client") == 0)
		receive_client(ws, message);
	else
		refuse(ws, 0, 400, "bad-request", "type: input, resize, signal or client");
	json_decref(message);
}

static void receive_binary(struct viewer_ws *ws, const uint8_t *data, size_t size)
{
	uint64_t seq;
	if (size < sizeof(seq)) {
		refuse(ws, 0, 400, "bad-request",
		       "a binary message is 8 bytes of number and the input");
		return;
	}
	memcpy(&seq, data, sizeof(seq));
	type_in(ws, be64toh(seq), data + sizeof(seq), size - sizeof(seq));
}

const struct viewer_ws_dialect viewer_ws_native = {
	.text = receive_text,
	.binary = receive_binary,
	.answer = answer,
	.viewer_bytes_max = SMALL_MESSAGE_BYTES,
	.expired_code = 4401,
	.returns = true,
};

/* --- frames --- */

void viewer_ws_receive(struct viewer_ws *ws, uint8_t *data, size_t size)
{
	struct ws_event event;
	do {
		ssize_t n = ws_decoder_feed(&ws->decoder, data, size, &event);
		if (n < 0) {
			ws->ops->close(ws->arg, 1011, "no memory");
			return;
		}
		data += n;
		size -= (size_t)n;
		if (!count_held(ws)) {
			ws->ops->close(ws->arg, 1013, "too many unfinished messages: try again");
			return;
		}
		switch (event.type) {
		case WS_EVENT_NONE:
		case WS_EVENT_PONG:
			break;
		case WS_EVENT_TEXT:
			ws->dialect->text(ws, event.data, event.size);
			break;
		case WS_EVENT_BINARY:
			ws->dialect->binary(ws, event.data, event.size);
			break;
		case WS_EVENT_PING:
			ws->ops->send(ws->arg, WS_PONG, event.data, event.size);
			break;
		case WS_EVENT_CLOSE:
			ws->ops->close(ws->arg,
				       ws_close_code_valid(event.close_code) ? event.close_code
									     : 1000,
				       "");
			return;
		case WS_EVENT_ERROR:
			ws->ops->close(ws->arg, event.close_code, "protocol error");
			return;
		}
	} while (event.type != WS_EVENT_NONE);
}
