/* bus_mailbox.h -- how other threads reach a bus's thread: what they publish, and who joins and leaves, in the
 * order it was asked for. Shared by all implementations of bus.h. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

enum bus_op_kind { BUS_OP_PUBLISH, BUS_OP_SUBSCRIBE, BUS_OP_UNSUBSCRIBE };

/* Embedded in what is asked for. */
struct bus_op {
	struct bus_op *next;
	enum bus_op_kind kind;
};

/* BUS_OP_PUBLISH */
struct bus_message {
	struct bus_op op; /* first */
	uint8_t *data;    /* owned */
	size_t size;
	size_t channel_size;
	char channel[];
};

struct bus_mailbox {
	uv_async_t wake; /* closed by bus_mailbox_close() */
	pthread_mutex_t lock;
	struct bus_op *first, **end;
	bool closed;
	_Atomic size_t waiting_bytes; /* of messages until bus_message_free() */
};

/* Calls on_mail on the loop's thread when there is something to take. 0 or a negative errno. */
int bus_mailbox_init(struct bus_mailbox *m, uv_loop_t *loop, uv_async_cb on_mail, void *arg);
/* After the loop's last run: frees the messages that nobody took. */
void bus_mailbox_fini(struct bus_mailbox *m);

/* Thread: any. data is given away. 0, -EAGAIN, -ENOMEM, or -ENOTCONN once it is closed; counts what is dropped. */
int bus_mailbox_publish(struct bus_mailbox *m, const char *channel, uint8_t *data, size_t size);
/* Thread: any. False once it is closed: op was not taken. */
bool bus_mailbox_post(struct bus_mailbox *m, struct bus_op *op);
/* Thread: any. What was posted before is still taken; on_mail is called once more. */
void bus_mailbox_close(struct bus_mailbox *m);

/* Thread: the loop's. The oldest first, linked by next; NULL: nothing. */
struct bus_op *bus_mailbox_take(struct bus_mailbox *m, bool *closed);
void bus_message_free(struct bus_mailbox *m, struct bus_message *message);
