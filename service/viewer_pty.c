/* viewer_pty.c -- what the original's clients send over a WebSocket: what is typed as it is, and a resize as a
 * JSON object between it. Nothing is answered: what went wrong is told by the close. With ?mode=binary the two
 * are apart: binary is typed, text is JSON. */
#include <jansson.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "service/config.h"
#include "service/metrics.h"
#include "service/reply.h"
#include "service/viewer_ws.h"

#define CONTROL_BYTES_MAX 1024             /* a longer message is no resize */
#define EARLY_BYTES_MAX (1u << 20)         /* typed before there is a shell */
#define PASSED_OVER_BYTES_MAX (256u << 10) /* what is pasted where nothing can be typed */
#define CELLS_MAX 1000

/* --- input --- */

/* Hands it on in pieces that an input may have. */
static void type_in(struct viewer_ws *ws, const uint8_t *data, size_t size)
{
	static const uint8_t nobody[INPUT_CLIENT_BYTES];
	for (size_t at = 0; at < size && !ws->refused;) {
		size_t n = size - at < ws->cfg->input_bytes ? size - at : ws->cfg->input_bytes;
		uint8_t *copy = malloc(n);
		if (copy == NULL) {
			ws->refused = true;
			ws->ops->close(ws->arg, 1011, "input not delivered: no memory");
			return;
		}
		memcpy(copy, data + at, n);
		at += n;
		ws->ops->input(ws->arg, nobody, 0, copy, n);
	}
}

/* Keeps what came before the shell; false when that is too much. */
static bool keep_early(struct viewer_ws *ws, const uint8_t *data, size_t size)
{
	if (size > EARLY_BYTES_MAX - ws->early_size)
		return false;
	size_t need = ws->early_size + size;
	if (need > ws->early_capacity) {
		size_t capacity = need < 4096 ? 4096 : 2 * need;
		if (metric_get(METRIC_BODIES_BYTES) + (int64_t)capacity >
		    (int64_t)ws->cfg->bodies_total_bytes)
			return false;
		uint8_t *early = realloc(ws->early, capacity);
		if (early == NULL)
			return false;
		metric_add(METRIC_BODIES_BYTES, (int64_t)(capacity - ws->early_capacity));
		ws->early = early;
		ws->early_capacity = capacity;
	}
	memcpy(ws->early + ws->early_size, data, size);
	ws->early_size = need;
	return true;
}

static void receive_input(struct viewer_ws *ws, const uint8_t *data, size_t size)
{
	if (!ws->may_write || ws->refused || size == 0)
		return;
	if (ws->open) {
		type_in(ws, data, size);
	} else if (!keep_early(ws, data, size)) {
		ws->refused = true;
		ws->ops->close(ws->arg, 1013, "too much input before the shell was there");
	}
}

static void opened(struct viewer_ws *ws)
{
	if (ws->open)
		return;
	ws->open = true;
	uint8_t *early = ws->early;
	size_t size = ws->early_size;
	metric_add(METRIC_BODIES_BYTES, -(int64_t)ws->early_capacity);
	ws->early = NULL;
	ws->early_size = ws->early_capacity = 0;
	type_in(ws, early, size);
	if (early != NULL)
		sodium_memzero(early, size); /* it may be a password */
	free(early);
}

static void answer(struct viewer_ws *ws, uint64_t seq, const struct reply *reply)
{
	(void)seq;
	if (reply->slug == NULL || ws->refused)
		return;
	/* These are told by a close of their own, behind the last output. */
	if (strcmp(reply->slug, "session-ended") == 0 || strcmp(reply->slug, "draining") == 0)
		return;
	ws->refused = true;
	ws->ops->close(ws->arg, 1011, "input not delivered");
}

/* --- control --- */

/* A whole number of cells, 0 when it is none that a terminal can have. */
static uint16_t cells(const json_t *value)
{
	double n = json_number_value(value);
	if (!(n >= 1 && n <= CELLS_MAX))
		return 0;
	uint16_t whole = (uint16_t)n;
	return n - whole > 0 ? 0 : whole;
}

/* True when the message is a resize and so is not typed, whatever the numbers are: one that no terminal can
 * have is passed over. */
static bool receive_resize(struct viewer_ws *ws, const uint8_t *data, size_t size)
{
	size_t at = 0;
	while (at < size && strchr(" \t\r\n", data[at]) != NULL && data[at] != '\0')
		at++;
	if (at == size || data[at] != '{' || size > CONTROL_BYTES_MAX)
		return false;
	json_auto_t *message = json_loadb((const char *)data, size,
					  JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, NULL);
	const char *type = json_string_value(json_object_get(message, "type"));
	const json_t *cols = json_object_get(message, "cols");
	const json_t *rows = json_object_get(message, "rows");
	if (type == NULL || strcmp(type, "resize") != 0 || cols == NULL || rows == NULL)
		return false;
	if (ws->may_write && cells(cols) != 0 && cells(rows) != 0)
		ws->ops->resize(ws->arg, cells(cols), cells(rows));
	return true;
}

static void receive_mixed(struct viewer_ws *ws, const uint8_t *data, size_t size)
{
	if (!receive_resize(ws, data, size))
		receive_input(ws, data, size);
}

static void receive_control(struct viewer_ws *ws, const uint8_t *data, size_t size)
{
	receive_resize(ws, data, size);
}

const struct viewer_ws_dialect viewer_ws_pty = {
	.text = receive_mixed,
	.binary = receive_mixed,
	.answer = answer,
	.opened = opened,
	.viewer_bytes_max = PASSED_OVER_BYTES_MAX,
	.expired_code = 1008,
	.tells_failure = true,
};

const struct viewer_ws_dialect viewer_ws_pty_binary = {
	.text = receive_control,
	.binary = receive_input,
	.answer = answer,
	.opened = opened,
	.viewer_bytes_max = PASSED_OVER_BYTES_MAX,
	.expired_code = 1008,
	.tells_failure = true,
};
