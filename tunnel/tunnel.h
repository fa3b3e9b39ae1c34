/* tunnel.h -- one connection to the far end of a session, whatever it speaks. A transport turns the
 * messages on that socket into these events, and these calls into messages. A tunnel does not reconnect:
 * its session makes a new one, from the offset it has. Thread: the session's loop. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "service/error.h"
#include "wire/input_seq.h"
#include "wire/pty_frame.h"

struct lws_context;
struct ws_header;
struct tunnel;

enum tunnel_end {
	TUNNEL_LOST,   /* try again */
	TUNNEL_GONE,   /* the shell is not there any more, or never was */
	TUNNEL_EXITED, /* the shell ended, more is not known */
	TUNNEL_FENCED, /* somebody attached with a higher number */
	TUNNEL_FAILED, /* it will not work: the text says why */
};

struct tunnel_attached {
	uint64_t epoch;
	uint64_t start; /* offset of the first byte that will come */
	uint64_t head;
	uint64_t instance;   /* of the agent; 0: not known */
	uint16_t cols, rows; /* at start */
};

struct tunnel_events {
	/* The shell is being opened: from here on there may be one. */
	void (*opening)(void *arg);
	void (*attached)(void *arg, const struct tunnel_attached *attached);
	/* Bytes at their offset: in order, but not always without a gap. */
	void (*output)(void *arg, uint64_t offset, const uint8_t *data, size_t size);
	void (*resized)(void *arg, uint64_t offset, uint16_t cols, uint16_t rows);
	void (*input_done)(void *arg, uint64_t request, enum pty2_verdict verdict,
			   uint64_t expected);
	void (*signaled)(void *arg, uint64_t request, int error);
	/* After the last byte. */
	void (*exited)(void *arg, uint64_t end, enum pty2_exit_kind kind, unsigned value);
	/* Once; after it the tunnel is gone. */
	void (*ended)(void *arg, enum tunnel_end end, uint64_t fence, const char *text);
};

#define TUNNEL_HEADERS_MAX 3

struct tunnel_params {
	uv_loop_t *uv;
	struct lws_context *lws;
	const char *url;
	const char *token;               /* NULL: none; a secret */
	const struct ws_header *headers; /* of the gateway in between: secrets */
	size_t headers_count;            /* at most TUNNEL_HEADERS_MAX */
	bool behind_gateway; /* a refusal may be the gateway's: it is not known who did it */
	const char *shell;   /* the shell's id; transport agent */
	bool open;           /* open the shell first, if it is not there */
	const char *const *command,
		*const *env; /* NULL-terminated or NULL; open only, as are these: */
	const char *cwd;     /* NULL: the agent's */
	uint32_t alone_s, linger_s, ring_bytes;
	uint16_t cols, rows;
	uint64_t fence;
	uint64_t epoch, offset;   /* where to go on; epoch 0: not known; PTY2_OFFSET_OLDEST */
	struct input_seq *dedupe; /* borrowed; transports whose far end cannot drop repeats */
	const struct tunnel_events *events; /* static */
	void *arg;
};

struct tunnel_ops {
	const char *name; /* "agent", "pty-tunnel", "raw" */
	bool resends; /* an input that was sent on a lost tunnel may be sent again: the far end drops repeats */
	bool keeps;       /* its epoch outlives the connection */
	bool readdressed; /* each connection needs an address of its own from the provider */
	bool signals;

	/* Starts to connect; p is copied as far as needed. */
	int (*create)(const struct tunnel_params *p, struct tunnel **ret, struct error *err);
	/* 0: input_done() will come; -EAGAIN: the socket is behind, try again later; -ENOTCONN. */
	int (*input)(struct tunnel *t, uint64_t request, const uint8_t client[INPUT_CLIENT_BYTES],
		     uint64_t seq, const uint8_t *bytes, size_t size);
	/* -ENOTSUP: not by this socket; the provider may have another way. */
	int (*resize)(struct tunnel *t, uint16_t cols, uint16_t rows);
	int (*signal)(struct tunnel *t, uint64_t request, int number);
	void (*pause)(struct tunnel *t, bool pause); /* of reading */
	/* All before offset has been passed on: the far end need not keep it for a tunnel that comes after
	 * this one. NULL: it keeps nothing anyway. */
	void (*acknowledge)(struct tunnel *t, uint64_t offset);
	int (*hang_up)(struct tunnel *t); /* exited() follows where the far end can tell */
	int (*forget)(struct tunnel *t);  /* after exited() */
	/* Not from within an event. No event comes any more. With leave the far end is told that we go; else it is as if the
	 * connection was cut, and the far end keeps what we had not got for a while. */
	void (*destroy)(struct tunnel *t, bool leave);
};

extern const struct tunnel_ops tunnel_agent;
extern const struct tunnel_ops tunnel_pty_tunnel;
extern const struct tunnel_ops tunnel_raw;

const struct tunnel_ops *tunnel_find(const char *name); /* NULL when there is none of that name */
