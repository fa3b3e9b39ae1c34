/* tunsim.c -- stands in for the far end of a tunnel: a WebSocket server with a "terminal" that prints when
 * it is told. With v=2 in the path's query it speaks the agent's frames, else the original's raw bytes.
 *
 *   tunsim [--port-only]   listens on a free port, says {"port":N}; ends by a signal or after --timeout s
 *
 * Input "run SIZE RATE TOTAL" sends TOTAL bytes of coloured log in messages of SIZE bytes: RATE a second, each
 * starting with a mark (bench.h), or with RATE 0 as fast as the socket takes them. Other input is echoed.
 * Nothing is queued beyond one batch: a reader that stops stops the terminal. */
#include "bench/bench.h"

#include <ctype.h>
#include <sys/epoll.h>
#include <sys/random.h>

#include "wire/pty_frame.h"
#include "wire/ws_frame.h"
#include "wire/ws_handshake.h"

#define TEXT_BYTES (1u << 20)
#define BATCH_BYTES (256u << 10) /* encoded before it is written */
#define SIZE_MAX_BYTES (64u << 10)
#define HEAD_BYTES 4096
#define MESSAGE_BYTES_MAX (2u << 20)

struct peer {
	struct peer *next;
	int fd;
	bool upgraded, v2, writing, full;
	struct ws_decoder decoder;
	size_t head_size;
	char head[HEAD_BYTES];
	uint8_t *out; /* owned: encoded, not sent */
	size_t out_size, out_sent, out_capacity;
	uint64_t offset; /* of the terminal */
	size_t size;     /* of one message; 0: nothing runs */
	uint64_t left;   /* bytes to send */
	uint64_t every_ns, due_ns;
};

static struct peer *peers;
static int epoll_fd;
static uint8_t text[TEXT_BYTES + SIZE_MAX_BYTES];

/* Lines like those of a server's log: colours, some words, a few characters that are not ASCII. */
static void fill_text(void)
{
	static const char *const levels[] = { "\033[32mINFO\033[0m", "\033[33mWARN\033[0m",
					      "\033[36mDEBUG\033[0m", "\033[1;31mERROR\033[0m" };
	static const char *const words[] = { "request",   "served", "from",  "cache", "worker",
					     "connected", "déjà",   "queue", "→",     "retry",
					     "handler",   "naïve",  "日本",  "ok",    "bytes" };
	uint32_t x = 1;
	size_t at = 0;
	while (at < TEXT_BYTES) {
		char line[256];
		x = x * 1664525 + 1013904223;
		int n = snprintf(line, sizeof(line),
				 "\033[2m2026-01-02T03:%02u:%02u.%03uZ\033[0m %s %s %s %s id=%08x "
				 "\"%s\" in %u ms\r\n",
				 x >> 8 & 31, x >> 16 & 31, x >> 10 & 511, levels[x >> 30],
				 words[(x >> 4) % 15], words[(x >> 12) % 15], words[(x >> 20) % 15],
				 x, words[(x >> 24) % 15], x >> 25);
		size_t size = (size_t)n < TEXT_BYTES - at ? (size_t)n : TEXT_BYTES - at;
		memcpy(text + at, line, size);
		at += size;
	}
	memcpy(text + TEXT_BYTES, text, SIZE_MAX_BYTES);
}

static void watch(struct peer *p)
{
	struct epoll_event e = { .events = EPOLLIN | (p->full ? EPOLLOUT : 0), .data.ptr = p };
	epoll_ctl(epoll_fd, EPOLL_CTL_MOD, p->fd, &e);
}

static void drop(struct peer *p)
{
	struct peer **at = &peers;
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	close(p->fd);
	ws_decoder_fini(&p->decoder);
	free(p->out);
	free(p);
}

static uint8_t *room(struct peer *p, size_t size)
{
	if (p->out_sent == p->out_size)
		p->out_sent = p->out_size = 0;
	if (p->out_size + size > p->out_capacity) {
		p->out_capacity = p->out_size + size;
		p->out = realloc(p->out, p->out_capacity);
		if (p->out == NULL)
			bench_die("no memory");
	}
	return p->out + p->out_size;
}

/* Returns false when the peer is gone. */
static bool flush(struct peer *p)
{
	while (p->out_sent < p->out_size) {
		ssize_t n = send(p->fd, p->out + p->out_sent, p->out_size - p->out_sent,
				 MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			return false;
		bool full = n < 0;
		if (full != p->full) {
			p->full = full;
			watch(p);
		}
		if (full)
			return true;
		p->out_sent += (size_t)n;
	}
	if (p->full) {
		p->full = false;
		watch(p);
	}
	return true;
}

static void put(struct peer *p, enum ws_opcode opcode, const void *data, size_t size)
{
	uint8_t *out = room(p, WS_HEADER_BYTES_MAX + size);
	size_t n = ws_header_encode(out, opcode, true, size, NULL);
	memcpy(out + n, data, size);
	p->out_size += n + size;
}

static void put_frame(struct peer *p, const struct pty_frame *frame)
{
	uint8_t bytes[256];
	put(p, WS_BINARY, bytes, pty_frame_encode(frame, bytes));
}

/* One message of output, from text or of the given bytes. */
static void put_output(struct peer *p, const uint8_t *data, size_t size, uint64_t mark_ns)
{
	size_t header = p->v2 ? PTY2_DATA_HEADER_BYTES : 0;
	uint8_t *out = room(p, WS_HEADER_BYTES_MAX + header + size);
	uint8_t *at = out + ws_header_encode(out, WS_BINARY, true, header + size, NULL);
	if (p->v2) {
		struct pty_frame frame = { .type = PTY2_DATA, .data.offset = p->offset };
		at += pty_frame_encode(&frame, at);
	}
	if (mark_ns != 0) {
		char mark[32];
		snprintf(mark, sizeof(mark), "%c%016llu ", BENCH_MARK, (unsigned long long)mark_ns);
		memset(at, '.', size);
		memcpy(at, mark, size < 18 ? size : 18);
		memcpy(at + size - 2, "\r\n", 2);
	} else {
		memcpy(at, data, size);
	}
	p->out_size = (size_t)(at - p->out) + size;
	p->offset += size;
}

/* Sends what is due. Returns false when the peer is gone. */
static bool produce(struct peer *p)
{
	for (;;) {
		if (p->full)
			return true;
		while (p->left > 0 && p->out_size - p->out_sent < BATCH_BYTES) {
			uint64_t mark_ns = 0;
			if (p->every_ns > 0) {
				if (p->due_ns > bench_now_ns())
					break;
				mark_ns = p->due_ns;
				p->due_ns += p->every_ns;
			}
			size_t size = p->left < p->size ? (size_t)p->left : p->size;
			put_output(p, text + p->offset % TEXT_BYTES, size, mark_ns);
			p->left -= size;
		}
		if (p->out_sent == p->out_size)
			return true;
		if (!flush(p))
			return false;
	}
}

static void typed(struct peer *p, const uint8_t *data, size_t size)
{
	char line[128];
	unsigned long long message, rate, total;
	snprintf(line, sizeof(line), "%.*s", (int)(size < 120 ? size : 120), (const char *)data);
	if (sscanf(line, "run %llu %llu %llu", &message, &rate, &total) == 3) {
		p->size = message < SIZE_MAX_BYTES ? (size_t)message : SIZE_MAX_BYTES;
		p->left = total;
		p->every_ns = rate == 0 ? 0 : 1000000000 / rate;
		p->due_ns = bench_now_ns();
		return;
	}
	put_output(p, data, size, 0);
}

static void on_v2(struct peer *p, const struct pty_frame *f)
{
	struct pty_frame answer;
	switch (f->type) {
	case PTY2_OPEN:
		answer = (struct pty_frame){ .type = PTY2_OPENED,
					     .opened = { .created = 1, .epoch = 1, .pid = 1 } };
		put_frame(p, &answer);
		break;
	case PTY2_ATTACH:
		answer = (struct pty_frame){ .type = PTY2_ATTACHED,
					     .attached = { .epoch = f->attach.epoch,
							   .start = p->offset,
							   .head = p->offset,
							   .fence = f->attach.fence,
							   .cols = 80,
							   .rows = 24 } };
		if (answer.attached.epoch == 0)
			getrandom(&answer.attached.epoch, sizeof(answer.attached.epoch), 0);
		put_frame(p, &answer);
		break;
	case PTY2_INPUT:
		answer = (struct pty_frame){ .type = PTY2_INPUT_ACK,
					     .input_ack = { .request = f->input.request,
							    .verdict = PTY2_QUEUED } };
		put_frame(p, &answer);
		typed(p, f->input.bytes.data, f->input.bytes.size);
		break;
	case PTY2_SIGNAL:
		answer = (struct pty_frame){ .type = PTY2_SIGNALED,
					     .signaled = { .request = f->signal.request } };
		put_frame(p, &answer);
		break;
	case PTY2_CLOSE:
		answer = (struct pty_frame){ .type = PTY2_EXIT, .exit = { .end = p->offset } };
		put_frame(p, &answer);
		break;
	default:
		break;
	}
}

/* Returns false when the peer is gone. */
static bool on_message(struct peer *p, const struct ws_event *e)
{
	struct pty_frame f;
	if (e->type == WS_EVENT_CLOSE || e->type == WS_EVENT_ERROR)
		return false;
	if (e->type == WS_EVENT_PING)
		put(p, WS_PONG, e->data, e->size);
	if (e->type == WS_EVENT_BINARY && pty_frame_decode(e->data, e->size, &f) == 0) {
		if (p->v2)
			on_v2(p, &f);
		else if (f.type == PTY_MESSAGE)
			typed(p, f.message.data, f.message.size);
	}
	return produce(p);
}

static bool upgrade(struct peer *p, const char *end)
{
	static const char name[] = "\r\nSec-WebSocket-Key:";
	char key[64] = "", accept[WS_ACCEPT_CHARS + 1], answer[256];
	const char *at = strcasestr(p->head, name);
	if (at == NULL || at > end || sscanf(at + strlen(name), " %63[^\r]", key) != 1)
		return false;
	p->v2 = memmem(p->head, strcspn(p->head, "\r"), "v=2", 3) != NULL;
	p->upgraded = true;
	ws_decoder_init(&p->decoder, WS_ROLE_SERVER, MESSAGE_BYTES_MAX);
	ws_accept(key, accept);
	int n = snprintf(answer, sizeof(answer),
			 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
			 "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			 accept);
	memcpy(room(p, (size_t)n), answer, (size_t)n);
	p->out_size += (size_t)n;
	if (p->v2)
		put_frame(p, &(struct pty_frame){ .type = PTY2_HELLO,
						  .hello = { .version = 2, .instance = 1 } });
	return true;
}

static bool feed(struct peer *p, uint8_t *data, size_t size)
{
	while (size > 0) {
		struct ws_event event;
		ssize_t n = ws_decoder_feed(&p->decoder, data, size, &event);
		if (n <= 0 && event.type == WS_EVENT_NONE)
			return false;
		data += n;
		size -= (size_t)n;
		if (event.type != WS_EVENT_NONE && !on_message(p, &event))
			return false;
	}
	return flush(p);
}

/* Returns false when the peer is gone. */
static bool on_readable(struct peer *p)
{
	static uint8_t data[256 << 10];
	if (!p->upgraded) {
		ssize_t n = recv(p->fd, p->head + p->head_size, HEAD_BYTES - 1 - p->head_size, 0);
		if (n <= 0)
			return false;
		p->head_size += (size_t)n;
		p->head[p->head_size] = '\0';
		char *end = strstr(p->head, "\r\n\r\n");
		if (end == NULL)
			return p->head_size < HEAD_BYTES - 1;
		return upgrade(p, end) &&
		       feed(p, (uint8_t *)end + 4, (size_t)(p->head + p->head_size - end - 4));
	}
	ssize_t n = recv(p->fd, data, sizeof(data), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	return n > 0 && feed(p, data, (size_t)n);
}

static void accept_peer(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	bench_no_delay(fd);
	struct peer *p = calloc(1, sizeof(*p));
	if (p == NULL)
		bench_die("no memory");
	p->fd = fd;
	p->next = peers;
	peers = p;
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = p };
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
}

int main(int argc, char **argv)
{
	(void)argc;
	bench_start((unsigned)bench_number(argv, "--timeout", 600));
	fill_text();
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	int listener = bench_listen();
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = NULL };
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
	for (;;) {
		uint64_t now_ns = bench_now_ns(), due_ns = now_ns + UINT64_C(1000000000);
		for (struct peer *p = peers; p != NULL; p = p->next)
			if (p->left > 0 && p->every_ns > 0 && !p->full && p->due_ns < due_ns)
				due_ns = p->due_ns;
		uint64_t wait_ns = due_ns > now_ns ? due_ns - now_ns : 0;
		struct timespec wait = { .tv_sec = (time_t)(wait_ns / 1000000000),
					 .tv_nsec = (long)(wait_ns % 1000000000) };
		struct epoll_event events[64];
		int n = epoll_pwait2(epoll_fd, events, 64, &wait, NULL);
		for (int i = 0; i < n; i++) {
			struct peer *p = events[i].data.ptr;
			if (p == NULL)
				accept_peer(listener);
			else if (((events[i].events & EPOLLOUT) != 0 &&
				  !(flush(p) && produce(p))) ||
				 ((events[i].events & ~(unsigned)EPOLLOUT) != 0 && !on_readable(p)))
				drop(p);
		}
		struct peer *next;
		for (struct peer *p = peers; p != NULL; p = next) {
			next = p->next;
			if (p->left > 0 && !p->full && !produce(p))
				drop(p);
		}
	}
}
