/* bare_lws_count.c -- the bare limit of the service by itself: a libwebsockets client, set up as
 * tunnel/ws_client.c and service/loop.c do, that only counts what tunsim sends.
 *
 *   bare_lws_count --port N --size BYTES --total BYTES [--raw 1] */
#include "bench/bench.h"

#include <libwebsockets.h>
#include <uv.h>

#include "wire/pty_frame.h"

#define BUFFER_BYTES (64u << 10)
#define RECEIVE_BUFFER_BYTES (512 << 10)

static struct {
	bool raw, in_message;
	uint64_t size, total;
	uint64_t bytes, messages, start_ns, end_ns;
	unsigned steps; /* sent */
	double cpu_s;
} count;

static struct lws *wsi_wanted;
static uv_loop_t loop;

static int write_frame(struct lws *wsi, const struct pty_frame *frame)
{
	unsigned char space[LWS_PRE + 256];
	size_t size = pty_frame_encode(frame, space + LWS_PRE);
	return lws_write(wsi, space + LWS_PRE, size, LWS_WRITE_BINARY) < 0 ? -1 : 0;
}

/* ATTACH, then the line that starts the output. */
static int on_writeable(struct lws *wsi)
{
	char line[96];
	if (count.steps++ == 0 && !count.raw) {
		struct pty_frame attach = { .type = PTY2_ATTACH,
					    .attach = { .id = { (const uint8_t *)"a", 1 },
							.offset = PTY2_OFFSET_OLDEST } };
		lws_callback_on_writable(wsi);
		return write_frame(wsi, &attach);
	}
	if (count.start_ns != 0)
		return 0;
	int n = snprintf(line, sizeof(line), "run %llu 0 %llu", (unsigned long long)count.size,
			 (unsigned long long)count.total);
	struct pty_span bytes = { (const uint8_t *)line, (size_t)n };
	struct pty_frame input = { .type = PTY_MESSAGE, .message = bytes };
	if (!count.raw)
		input = (struct pty_frame){ .type = PTY2_INPUT, .input = { .bytes = bytes } };
	count.cpu_s = bench_own_cpu_s();
	count.start_ns = bench_now_ns();
	return write_frame(wsi, &input);
}

static void on_receive(struct lws *wsi, const uint8_t *in, size_t size)
{
	bool final = lws_is_final_fragment(wsi) && lws_remaining_packet_payload(wsi) == 0;
	bool first = !count.in_message;
	count.in_message = !final;
	if (first && !count.raw) {
		if (in[0] != PTY2_DATA)
			return;
		size -= PTY2_DATA_HEADER_BYTES;
	}
	count.messages += first;
	count.bytes += size;
	if (count.bytes < count.total)
		return;
	count.end_ns = bench_now_ns();
	uv_stop(&loop);
}

static int on_lws(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in,
		  size_t size)
{
	int receive_bytes = RECEIVE_BUFFER_BYTES;
	(void)user;
	switch (reason) {
	case LWS_CALLBACK_CLIENT_ESTABLISHED:
		setsockopt(lws_get_socket_fd(wsi), SOL_SOCKET, SO_RCVBUF, &receive_bytes,
			   sizeof(receive_bytes));
		lws_callback_on_writable(wsi);
		break;
	case LWS_CALLBACK_CLIENT_WRITEABLE:
		return on_writeable(wsi);
	case LWS_CALLBACK_CLIENT_RECEIVE:
		on_receive(wsi, in, size);
		break;
	case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
	case LWS_CALLBACK_CLIENT_CLOSED:
		bench_die("the connection is gone");
	default:
		break;
	}
	return 0;
}

static const struct lws_protocols protocols[] = {
	{ .name = "bench", .callback = on_lws, .rx_buffer_size = BUFFER_BYTES },
	{ .name = NULL },
};

int main(int argc, char **argv)
{
	(void)argc;
	void *foreign[1] = { &loop };
	bench_start((unsigned)bench_number(argv, "--timeout", 60));
	count.raw = bench_number(argv, "--raw", 0) != 0;
	count.size = bench_number(argv, "--size", 4096);
	count.total = bench_number(argv, "--total", 100000000);
	uv_loop_init(&loop);
	struct lws_context_creation_info info = {
		.port = CONTEXT_PORT_NO_LISTEN,
		.protocols = protocols,
		.options = LWS_SERVER_OPTION_LIBUV | LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT,
		.foreign_loops = foreign,
		.pt_serv_buf_size = BUFFER_BYTES,
		.gid = -1,
		.uid = -1,
	};
	lws_set_log_level(LLL_ERR, NULL);
	struct lws_context *context = lws_create_context(&info);
	if (context == NULL)
		bench_die("libwebsockets gave no context");
	struct lws_client_connect_info to = {
		.context = context,
		.address = "127.0.0.1",
		.port = (int)bench_number(argv, "--port", 0),
		.path = count.raw ? "/" : "/?v=2",
		.host = "127.0.0.1",
		.alpn = "http/1.1",
		.pwsi = &wsi_wanted,
		.local_protocol_name = "bench",
	};
	if (lws_client_connect_via_info(&to) == NULL)
		bench_die("cannot connect");
	uv_run(&loop, UV_RUN_DEFAULT);
	printf("{\"seconds\":%.6f,\"bytes\":%llu,\"messages\":%llu,\"cpu_s\":%.3f}\n",
	       (double)(count.end_ns - count.start_ns) / 1e9, (unsigned long long)count.bytes,
	       (unsigned long long)count.messages, bench_own_cpu_s() - count.cpu_s);
	return 0;
}
