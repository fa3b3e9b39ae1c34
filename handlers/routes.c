/* routes.c -- all that can be asked for; service/route.h says what the columns mean. */
#include "service/route.h"

#include "handlers/handlers.h"

#define SMALL_BODY (4u << 10)
#define CREATE_BODY (256u << 10)
#define SANDBOX_BODY (128u << 10) /* 8 sealed values, and metadata with escapes */

const struct route routes[] = {
	{ "/sessions", METHOD_POST, "POST /sessions", ROLE_ADMIN, ROUTE_JSON, CREATE_BODY,
	  handle_session_create, NULL },
	{ "/sessions", METHOD_GET, "GET /sessions", ROLE_VIEW, 0, 0, handle_session_list, NULL },
	{ "/sessions/:id", METHOD_GET, "GET /sessions/:id", ROLE_VIEW, ROUTE_TICKET | ROUTE_FRESH,
	  0, handle_session_get, NULL },
	{ "/sessions/:id", METHOD_DELETE, "DELETE /sessions/:id", ROLE_ADMIN, 0, 0,
	  handle_session_close, NULL },
	{ "/sessions/:id/stream", METHOD_GET, "GET /sessions/:id/stream", ROLE_VIEW,
	  ROUTE_TICKET | ROUTE_STREAM | ROUTE_WATCH, 0, handle_stream, refuse_stream },
	{ "/sessions/:id/input", METHOD_POST, "POST /sessions/:id/input", ROLE_WRITE,
	  ROUTE_TICKET | ROUTE_INPUT, 0, handle_input, NULL },
	{ "/sessions/:id/resize", METHOD_POST, "POST /sessions/:id/resize", ROLE_WRITE,
	  ROUTE_TICKET | ROUTE_JSON, SMALL_BODY, handle_resize, NULL },
	{ "/sessions/:id/signal", METHOD_POST, "POST /sessions/:id/signal", ROLE_WRITE,
	  ROUTE_TICKET | ROUTE_JSON, SMALL_BODY, handle_signal, NULL },
	{ "/sessions/:id/ws", METHOD_GET, "GET /sessions/:id/ws", ROLE_VIEW,
	  ROUTE_TICKET | ROUTE_WATCH, 0, handle_ws, refuse_ws },
	{ "/sessions/:id/tickets", METHOD_POST, "POST /sessions/:id/tickets", ROLE_VIEW, ROUTE_JSON,
	  SMALL_BODY, handle_ticket, NULL },
	{ "/sandboxes", METHOD_POST, "POST /sandboxes", ROLE_ADMIN, ROUTE_JSON, SANDBOX_BODY,
	  handle_sandbox_create, NULL },
	{ "/sandboxes", METHOD_GET, "GET /sandboxes", ROLE_VIEW, 0, 0, handle_sandbox_list, NULL },
	{ "/sandboxes/:sandbox", METHOD_GET, "GET /sandboxes/:id", ROLE_VIEW, 0, 0,
	  handle_sandbox_get, NULL },
	{ "/sandboxes/:sandbox", METHOD_PATCH, "PATCH /sandboxes/:id", ROLE_ADMIN, ROUTE_JSON,
	  SANDBOX_BODY, handle_sandbox_patch, NULL },
	{ "/sandboxes/:sandbox", METHOD_DELETE, "DELETE /sandboxes/:id", ROLE_ADMIN, 0, 0,
	  handle_sandbox_delete, NULL },
	/* The original's, twice. */
	{ "/pty/:sandbox/stream", METHOD_GET, "GET /pty/:id/stream", ROLE_VIEW,
	  ROUTE_TOKEN | ROUTE_STREAM, 0, handle_pty_stream, refuse_stream },
	{ "/pty/:sandbox/input", METHOD_POST, "POST /pty/:id/input", ROLE_WRITE,
	  ROUTE_TOKEN | ROUTE_RAW, 0, handle_pty_input, NULL },
	{ "/pty/:sandbox/resize", METHOD_POST, "POST /pty/:id/resize", ROLE_WRITE,
	  ROUTE_TOKEN | ROUTE_JSON, SMALL_BODY, handle_pty_resize, NULL },
	{ "/pty/:sandbox/ws", METHOD_GET, "GET /pty/:id/ws", ROLE_VIEW, ROUTE_TOKEN, 0,
	  handle_pty_ws, refuse_pty_ws },
	{ "/tty/:sandbox/stream", METHOD_GET, "GET /tty/:id/stream", ROLE_VIEW,
	  ROUTE_TOKEN | ROUTE_STREAM, 0, handle_pty_stream, refuse_stream },
	{ "/tty/:sandbox/input", METHOD_POST, "POST /tty/:id/input", ROLE_WRITE,
	  ROUTE_TOKEN | ROUTE_RAW, 0, handle_pty_input, NULL },
	{ "/tty/:sandbox/resize", METHOD_POST, "POST /tty/:id/resize", ROLE_WRITE,
	  ROUTE_TOKEN | ROUTE_JSON, SMALL_BODY, handle_pty_resize, NULL },
	{ "/tty/:sandbox/ws", METHOD_GET, "GET /tty/:id/ws", ROLE_VIEW, ROUTE_TOKEN, 0,
	  handle_pty_ws, refuse_pty_ws },
	{ "/providers", METHOD_GET, "GET /providers", ROLE_VIEW, 0, 0, handle_providers, NULL },
	{ "/healthz", METHOD_GET, "GET /healthz", ROLE_NONE, 0, 0, handle_health, NULL },
	{ "/readyz", METHOD_GET, "GET /readyz", ROLE_NONE, 0, 0, handle_readiness, NULL },
	{ "/metrics", METHOD_GET, "GET /metrics", ROLE_ADMIN, ROUTE_METRICS, 0, handle_metrics,
	  NULL },
	/* The page and /openapi.yaml: last, for paths that are none of the above. */
	{ "*", METHOD_GET, "GET asset", ROLE_NONE, 0, 0, handle_asset, NULL },
};
const size_t routes_count = sizeof(routes) / sizeof(routes[0]);
