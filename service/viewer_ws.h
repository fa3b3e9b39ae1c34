/* viewer_ws.h -- what a WebSocket viewer sends: frames, and the messages in them (DESIGN section 4,
 * "WebSocket"). Private to viewer.c. Thread: the session's loop. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;
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

/* cfg is borrowed. Who may not write sends small messages only. */
struct viewer_ws *viewer_ws_create(const struct viewer_ws_ops *ops, void *arg, bool may_write,
				   const struct config *cfg);
void viewer_ws_destroy(struct viewer_ws *ws);

/* Answers the input of that number (0: it had none, or the message was none): an ack, or an error with
 * the problem that HTTP would have told. */
struct reply;
void viewer_ws_answer(struct viewer_ws *ws, uint64_t seq, const struct reply *reply);

/* Takes what was read from the socket; changes it in place. */
void viewer_ws_receive(struct viewer_ws *ws, uint8_t *data, size_t size);

/* Ends one that began a message and does not finish it. Once a second. */
void viewer_ws_tick(struct viewer_ws *ws, uint64_t now_us);
