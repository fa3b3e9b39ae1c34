/* bus_frame.h -- what replicas say to each other about one session, as bytes and back. The owner of a
 * session holds its tunnel; mirrors are the same session on other replicas. Integers are big-endian, texts
 * are a 16-bit length and bytes. Pure: no I/O, no threads. The layout is in docs/redis.md. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/input_seq.h"

#define BUS_VERSION 1
#define BUS_SESSION_MAX 64
#define BUS_TEXT_MAX 2048              /* bytes of one text */
#define BUS_PIECE_BYTES (64u << 10)    /* output in one PIECE or OUTPUT at most */
#define BUS_FRAME_BYTES_MAX (6u << 20) /* an input of 4 MiB and what is around it */
#define BUS_STEPS_MAX 12

enum bus_type {
	/* From a mirror to the owner. REGISTER: every second, and when what it has moved on. */
	BUS_REGISTER = 1, /* I mirror it, and have so much */
	BUS_LEAVE,        /* I do not any more */
	BUS_PULL,         /* send me what follows offset: answered by PIECE */
	BUS_CALL,         /* do this: answered by ANSWER */
	/* From the owner to one replica. */
	BUS_WELCOME, /* the answer to a REGISTER with a request number: a card */
	BUS_PIECE,
	BUS_ANSWER,
	/* From the owner to all mirrors. */
	BUS_BEAT,   /* a card: every second, and when it changed */
	BUS_OUTPUT, /* what has come since the last one */
	BUS_GONE,   /* the session is forgotten */
	/* From a new owner to the one before. */
	BUS_CLAIM,
	BUS_TYPE_END
};

/* In front of every message. */
struct bus_head {
	enum bus_type type;
	char session[BUS_SESSION_MAX + 1];
	uint64_t sender; /* the replica */
	uint64_t birth;  /* which creation of that id */
	uint64_t number; /* the owner's; from a mirror: the highest it knows, 0: none */
};

struct bus_text {
	const char *bytes; /* borrowed, not 0-terminated; NULL: none */
	uint16_t size;
};

/* REGISTER */
struct bus_register {
	uint64_t request; /* 0: no WELCOME is wanted */
	bool watches;     /* it wants OUTPUT */
	uint64_t epoch;
	uint64_t received;         /* it has all before that */
	uint64_t fastest, slowest; /* of its viewers; 0 and UINT64_MAX: none */
};

/* PULL */
struct bus_pull {
	uint64_t request, epoch, offset;
};

enum bus_call_kind {
	BUS_CALL_INPUT = 1,
	BUS_CALL_RESIZE,
	BUS_CALL_SIGNAL,
	BUS_CALL_CLOSE,  /* end it; nothing when it has ended */
	BUS_CALL_FORGET, /* it has ended, as the caller knows: forget it */
	BUS_CALL_END
};

/* CALL. request is unique for its sender; the same call may come again with the same one. */
struct bus_call {
	uint64_t request;
	enum bus_call_kind kind;
	uint8_t client[INPUT_CLIENT_BYTES]; /* INPUT */
	uint64_t seq;                       /* INPUT: not 0 */
	const uint8_t *bytes;               /* INPUT: borrowed */
	size_t size;
	uint16_t cols, rows; /* RESIZE */
	int32_t signal;      /* SIGNAL */
};

/* WELCOME and BEAT: what there is to know of the session. */
struct bus_card {
	uint64_t request; /* WELCOME: of the REGISTER; BEAT: 0 */
	uint8_t state;    /* enum session_state */
	bool ready;       /* positions can be judged: oldest and head hold */
	bool attached;    /* the owner has its tunnel */
	bool keeps;       /* the far end outlives an owner; repeats of input are dropped there */
	bool final;       /* nothing follows head in this epoch */
	uint64_t epoch, oldest, head;
	uint64_t replayed; /* what is in front of it was written when nobody was attached */
	uint16_t cols, rows;
	struct bus_text reason;     /* of the state */
	struct bus_text error;      /* slug */
	struct bus_text ended_json; /* once it has ended: as the API shows it */
	struct bus_text exit_json;  /* and as the exit event does */
	bool failed_start;
	unsigned steps_count; /* at most BUS_STEPS_MAX */
	struct {
		struct bus_text name;
		uint32_t ms;
	} steps[BUS_STEPS_MAX];
};

/* PIECE and OUTPUT: parts of the journal in order, from start on: output, and changes of size. */
struct bus_output {
	uint64_t request; /* PIECE: of the PULL; OUTPUT: 0 */
	uint64_t epoch;
	uint64_t start;       /* of what follows: later than what was pulled when that is gone */
	uint64_t head;        /* the owner's, when this was written */
	uint16_t cols, rows;  /* the size at start */
	const uint8_t *items; /* borrowed: for bus_item_next() */
	size_t items_size;
};

struct bus_item {
	uint64_t offset;
	const uint8_t *data; /* borrowed; NULL: a change of size at offset */
	size_t size;
	uint16_t cols, rows;
};

/* ANSWER */
struct bus_answer {
	uint64_t request;
	uint16_t status;
	uint32_t retry_after_s;
	uint64_t expected;
	struct bus_text slug; /* size 0: no problem */
	struct bus_text detail;
};

struct bus_frame {
	struct bus_head head;
	union {
		struct bus_register reg;
		struct bus_pull pull;
		struct bus_call call;
		struct bus_card card;
		struct bus_output output;
		struct bus_answer answer;
	};
};

/* Decodes one message; what is borrowed points into data. 0; -EBADMSG when it is cut off, has bytes too many,
 * or a value that is not allowed (a session's id of other characters than A-Z a-z 0-9 _ -, an unknown type or
 * kind, a size of 0 cells, items not in order); -EPROTO for another version. ret is untouched then. */
int bus_frame_decode(const uint8_t *data, size_t size, struct bus_frame *ret);

/* One message, malloc'd and given to the caller; *size is set. Texts longer than BUS_TEXT_MAX are cut at a
 * character; one of size 0 is none. For OUTPUT and PIECE items is what bus_items holds. The caller keeps to the
 * values that are allowed. NULL without memory. */
uint8_t *bus_frame_encode(const struct bus_frame *frame, size_t *size);

/* The items of a message while they are collected; zero-initialised is empty. add: 0; -ENOMEM; -EMSGSIZE when
 * there would be more than BUS_PIECE_BYTES of output, or 1 MiB in all: nothing is added, send these first. */
struct bus_items {
	uint8_t *data; /* owned */
	size_t size, capacity;
	size_t output_bytes; /* of output in it */
};
int bus_items_add_output(struct bus_items *items, uint64_t offset, const uint8_t *data,
			 size_t size);
int bus_items_add_size(struct bus_items *items, uint64_t offset, uint16_t cols, uint16_t rows);
void bus_items_fini(struct bus_items *items); /* frees, and is empty again */

/* Takes the next item of output->items, of which *at (at first 0) are read. False: there is none. */
bool bus_item_next(const struct bus_output *output, size_t *at, struct bus_item *ret);
