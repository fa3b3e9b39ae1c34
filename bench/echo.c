/* echo.c -- how long a key takes to a session's program and back, one key at a time: by POST on a
 * connection that is kept, and back as an event of a stream; or both over a WebSocket, in binary.
 * The next key goes when the last one is back and (POST) answered.
 *
 *   echo --port N --session ID --key K --keys N [--ws 1] */
#include "bench/bench.h"
#include "bench/sse_reader.h"

#include <poll.h>

#include "wire/ws_frame.h"

#define WARM_UP 50
#define WAIT_MS 5000
#define BUFFER_BYTES 65536

static struct bench_latencies echoes, answers;
static unsigned port;
static const char *key, *session;

static void print(void)
{
	printf("{\"p50_ms\":%.4f,\"p90_ms\":%.4f,\"p99_ms\":%.4f,\"max_ms\":%.4f,"
	       "\"answer_p50_ms\":%.4f,\"answer_p99_ms\":%.4f}\n",
	       bench_latency_ms(&echoes, 0.5), bench_latency_ms(&echoes, 0.9),
	       bench_latency_ms(&echoes, 0.99), (double)echoes.max_ns / 1e6,
	       bench_latency_ms(&answers, 0.5), bench_latency_ms(&answers, 0.99));
}

static int open_get(const char *what, const char *more_headers)
{
	char text[1024];
	int fd = bench_connect(port);
	int n = snprintf(text, sizeof(text),
			 "GET /sessions/%s/%s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
			 "Authorization: Bearer %s\r\n%s\r\n",
			 session, what, port, key, more_headers);
	bench_send_all(fd, text, (size_t)n);
	return fd;
}

static size_t receive(int fd, char *buffer)
{
	ssize_t n = recv(fd, buffer, BUFFER_BYTES, 0);
	if (n <= 0)
		bench_die("the service is gone");
	return (size_t)n;
}

static void over_post(uint64_t keys)
{
	static char buffer[BUFFER_BYTES];
	static struct sse_reader reader;
	int stream = open_get("stream", ""), poster = bench_connect(port);
	while (reader.states == 0)
		sse_read(&reader, buffer, receive(stream, buffer));
	struct pollfd fds[2] = { { .fd = stream, .events = POLLIN },
				 { .fd = poster, .events = POLLIN } };
	for (uint64_t i = 0; i < keys + WARM_UP; i++) {
		char text[512];
		int size = snprintf(text, sizeof(text),
				    "POST /sessions/%s/input HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
				    "Authorization: Bearer %s\r\nContent-Length: 1\r\n\r\n%c",
				    session, port, key, (char)('a' + i % 26));
		uint64_t outputs = reader.outputs, echo_ns = 0, answer_ns = 0;
		uint64_t start_ns = bench_now_ns();
		bench_send_all(poster, text, (size_t)size);
		while (echo_ns == 0 || answer_ns == 0) {
			if (poll(fds, 2, WAIT_MS) <= 0)
				bench_die("key %llu is lost", (unsigned long long)i);
			if (fds[0].revents != 0) {
				sse_read(&reader, buffer, receive(stream, buffer));
				if (reader.outputs > outputs && echo_ns == 0)
					echo_ns = bench_now_ns();
			}
			if (fds[1].revents != 0) {
				buffer[receive(poster, buffer)] = '\0';
				if (strncmp(buffer, "HTTP/1.1 204", 12) != 0)
					bench_die("%.80s", buffer);
				answer_ns = bench_now_ns();
			}
		}
		if (i < WARM_UP)
			continue;
		bench_latency_add(&echoes, echo_ns - start_ns);
		bench_latency_add(&answers, answer_ns - start_ns);
	}
}

static void over_ws(uint64_t keys)
{
	static char buffer[BUFFER_BYTES];
	char *rest;
	size_t left;
	int fd = open_get("ws?mode=binary", "Upgrade: websocket\r\nConnection: Upgrade\r\n"
					    "Sec-WebSocket-Version: 13\r\n"
					    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
	int status = bench_http_head(fd, buffer, sizeof(buffer), &rest, &left);
	if (status != 101)
		bench_die("upgrade: status %d", status);
	struct ws_decoder decoder;
	ws_decoder_init(&decoder, WS_ROLE_CLIENT, 1 << 20);
	bool is_open = false;
	for (uint64_t i = 0; i < keys + WARM_UP;) {
		uint8_t frame[WS_HEADER_BYTES_MAX + 9];
		const uint8_t mask[4] = { 1, 2, 3, 4 };
		size_t head = ws_header_encode(frame, WS_BINARY, true, 9, mask);
		memset(frame + head, 0, 8);
		frame[head + 8] = (uint8_t)('a' + i % 26);
		ws_mask(frame + head, 9, mask, 0);
		uint64_t start_ns = bench_now_ns();
		if (is_open)
			bench_send_all(fd, frame, head + 9);
		for (bool back = false; !back;) {
			while (left > 0) {
				struct ws_event event;
				ssize_t n = ws_decoder_feed(&decoder, (uint8_t *)rest, left,
							    &event);
				if (n < 0 || event.type == WS_EVENT_CLOSE ||
				    event.type == WS_EVENT_ERROR)
					bench_die("the WebSocket is closed");
				rest += n;
				left -= (size_t)n;
				/* The first text message is the state; a key comes back in a binary one. */
				if (is_open ? event.type == WS_EVENT_BINARY
					    : event.type == WS_EVENT_TEXT)
					back = true;
			}
			if (!back) {
				rest = buffer;
				left = receive(fd, buffer);
			}
		}
		if (is_open && i++ >= WARM_UP)
			bench_latency_add(&echoes, bench_now_ns() - start_ns);
		is_open = true;
	}
}

int main(int argc, char **argv)
{
	(void)argc;
	uint64_t keys = bench_number(argv, "--keys", 2000);
	bench_start(60);
	port = (unsigned)bench_number(argv, "--port", 0);
	key = bench_text(argv, "--key", "none");
	session = bench_text(argv, "--session", "none");
	if (bench_number(argv, "--ws", 0) != 0)
		over_ws(keys);
	else
		over_post(keys);
	print();
	return 0;
}
