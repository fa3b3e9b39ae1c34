/* bus_mailbox.c -- see bus_mailbox.h. */
#include "store/bus_mailbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "service/metrics.h"
#include "store/bus.h"

int bus_mailbox_init(struct bus_mailbox *m, uv_loop_t *loop, uv_async_cb on_mail, void *arg)
{
	memset(m, 0, sizeof(*m));
	m->end = &m->first;
	int rc = uv_async_init(loop, &m->wake, on_mail);
	if (rc != 0)
		return rc;
	m->wake.data = arg;
	pthread_mutex_init(&m->lock, NULL);
	return 0;
}

void bus_mailbox_fini(struct bus_mailbox *m)
{
	for (struct bus_op *op = m->first, *next; op != NULL; op = next) {
		next = op->next;
		if (op->kind == BUS_OP_PUBLISH)
			bus_message_free(m, (struct bus_message *)op);
	}
	pthread_mutex_destroy(&m->lock);
}

/* What one message holds of memory; the pieces of malloc are more, but it is a limit, not an account. */
static size_t cost(const struct bus_message *message)
{
	return sizeof(*message) + message->channel_size + 1 + message->size;
}

bool bus_mailbox_post(struct bus_mailbox *m, struct bus_op *op)
{
	op->next = NULL;
	pthread_mutex_lock(&m->lock);
	bool taken = !m->closed, wake = m->first == NULL;
	if (taken) {
		*m->end = op;
		m->end = &op->next;
		/* Under the lock: close() may end the loop as soon as it is free. */
		if (wake)
			uv_async_send(&m->wake);
	}
	pthread_mutex_unlock(&m->lock);
	return taken;
}

static int refuse(uint8_t *data, int rc)
{
	free(data);
	metric_add(METRIC_BUS_DROPPED_MESSAGES, 1);
	return rc;
}

int bus_mailbox_publish(struct bus_mailbox *m, const char *channel, uint8_t *data, size_t size)
{
	size_t channel_size = strlen(channel);
	struct bus_message *message = malloc(sizeof(*message) + channel_size + 1);
	if (message == NULL)
		return refuse(data, -ENOMEM);
	message->op.kind = BUS_OP_PUBLISH;
	message->data = data;
	message->size = size;
	message->channel_size = channel_size;
	memcpy(message->channel, channel, channel_size + 1);

	size_t bytes = cost(message);
	if (atomic_fetch_add(&m->waiting_bytes, bytes) + bytes > BUS_QUEUE_BYTES) {
		atomic_fetch_sub(&m->waiting_bytes, bytes);
		free(message);
		return refuse(data, -EAGAIN);
	}
	if (!bus_mailbox_post(m, &message->op)) {
		bus_message_free(m, message);
		metric_add(METRIC_BUS_DROPPED_MESSAGES, 1);
		return -ENOTCONN;
	}
	return 0;
}

void bus_message_free(struct bus_mailbox *m, struct bus_message *message)
{
	atomic_fetch_sub(&m->waiting_bytes, cost(message));
	free(message->data);
	free(message);
}

void bus_mailbox_close(struct bus_mailbox *m)
{
	pthread_mutex_lock(&m->lock);
	m->closed = true;
	uv_async_send(&m->wake);
	pthread_mutex_unlock(&m->lock);
}

struct bus_op *bus_mailbox_take(struct bus_mailbox *m, bool *closed)
{
	pthread_mutex_lock(&m->lock);
	struct bus_op *first = m->first;
	m->first = NULL;
	m->end = &m->first;
	*closed = m->closed;
	pthread_mutex_unlock(&m->lock);
	return first;
}
