/* viewer_ws.h -- what a WebSocket viewer sends: frames, and the messages in them. What a message means, and what
 * it is answered, is its dialect: ours (DESIGN section 4, "WebSocket") in viewer_ws.c, the original's in
 * viewer_pty.c. Private to these and viewer.c. Thread: the session's loop. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/input_seq.h"
#include "wire/ws_frame.h"

struct config;
struct reply;
struct viewer_ws;

/* What it asks of viewer.c. */
struct viewer_ws_ops {
	/* Puts one whole frame behind what is under way. */
	void (*send)(void *arg, int opcode, const void *data, size_t size);
	/* Sends a close frame and ends. */
	void (*close)(void *arg, uint16_t code, const char *reason);
	void (*resize)(void *arg, uint16_t cols, uint16_t rows);
	void (*input)(void *arg, const uint8_t client[16], uint64_t seq, uint8_t *bytes,
		      size_t size);
	void (*signal)(void *arg, int number);
};

struct viewer_ws_dialect {
	/* What arrived; good during the call. */
	void (*text)(struct viewer_ws *ws, const uint8_t *data, size_t size);
	void (*binary)(struct viewer_ws *ws, const uint8_t *data, size_t size);
	/* What became of an input or a signal. */
	void (*answer)(struct viewer_ws *ws, uint64_t seq, const struct reply *reply);
	/* The shell is there, or will never be. NULL: nothing waits for that. */
	void (*opened)(struct viewer_ws *ws);
	size_t viewer_bytes_max; /* of a message of who may only view */
	uint16_t expired_code;   /* of the close when its credential ends */
	bool returns; /* its clients connect again by themselves: it may be closed for its age */
	bool tells_failure; /* a session that failed or was lost is closed with 1011, not 1000 */
};

extern const struct viewer_ws_dialect viewer_ws_native;
extern const struct viewer_ws_dialect viewer_ws_pty;        /* viewer_pty.c */
extern const struct viewer_ws_dialect viewer_ws_pty_binary; /* ?mode=binary */

/* For viewer_ws.c and the dialects. */
struct viewer_ws {
	const struct viewer_ws_dialect *dialect;
	const struct viewer_ws_ops *ops;
	void *arg;
	bool may_write;
	const struct config *cfg; /* borrowed */
	size_t held_bytes;        /* of an unfinished message, as counted in METRIC_BODIES_BYTES */
	uint64_t begun_us;        /* when it began; 0: there is none */
	struct ws_decoder decoder;

	/* native */
	bool has_client;
	uint8_t client[INPUT_CLIENT_BYTES];

	/* pty */
	bool open;      /* the shell is there: input need not wait */
	bool refused;   /* input was lost, and it is being closed for that */
	uint8_t *early; /* owned: input that came before; counted as held_bytes is */
	size_t early_size, early_capacity;
};

/* cfg is borrowed. */
struct viewer_ws *viewer_ws_create(const struct viewer_ws_dialect *dialect,
				   const struct viewer_ws_ops *ops, void *arg, bool may_write,
				   const struct config *cfg);
void viewer_ws_destroy(struct viewer_ws *ws);

/* The session is open, or has ended. May be called again. */
void viewer_ws_opened(struct viewer_ws *ws);

/* Tells what became of the input of that number (0: it had none). */
void viewer_ws_answer(struct viewer_ws *ws, uint64_t seq, const struct reply *reply);

/* Takes what was read from the socket; changes it in place. */
void viewer_ws_receive(struct viewer_ws *ws, uint8_t *data, size_t size);

/* Ends one that began a message and does not finish it. Once a second. */
void viewer_ws_tick(struct viewer_ws *ws, uint64_t now_us);
