/* routes.c -- all that can be asked for; service/route.h says what the columns mean. */
#include "service/route.h"

#include "handlers/handlers.h"

#define SMALL_BODY (4u << 10)
#define CREATE_BODY (256u << 10)

const struct route routes[] = {
	{ "/sessions", METHOD_POST, "POST /sessions", ROLE_ADMIN, ROUTE_JSON, CREATE_BODY,
	  handle_session_create, NULL },
	{ "/sessions", METHOD_GET, "GET /sessions", ROLE_VIEW, 0, 0, handle_session_list, NULL },
	{ "/sessions/:id", METHOD_GET, "GET /sessions/:id", ROLE_VIEW, ROUTE_TICKET, 0,
	  handle_session_get, NULL },
	{ "/sessions/:id", METHOD_DELETE, "DELETE /sessions/:id", ROLE_ADMIN, 0, 0,
	  handle_session_close, NULL },
	{ "/sessions/:id/stream", METHOD_GET, "GET /sessions/:id/stream", ROLE_VIEW,
	  ROUTE_TICKET | ROUTE_STREAM, 0, handle_stream, NULL },
	{ "/sessions/:id/input", METHOD_POST, "POST /sessions/:id/input", ROLE_WRITE,
	  ROUTE_TICKET | ROUTE_INPUT, 0, handle_input, NULL },
	{ "/sessions/:id/resize", METHOD_POST, "POST /sessions/:id/resize", ROLE_WRITE,
	  ROUTE_TICKET | ROUTE_JSON, SMALL_BODY, handle_resize, NULL },
	{ "/sessions/:id/signal", METHOD_POST, "POST /sessions/:id/signal", ROLE_WRITE,
	  ROUTE_TICKET | ROUTE_JSON, SMALL_BODY, handle_signal, NULL },
	{ "/sessions/:id/ws", METHOD_GET, "GET /sessions/:id/ws", ROLE_VIEW, ROUTE_TICKET, 0,
	  handle_ws, refuse_ws },
	{ "/sessions/:id/tickets", METHOD_POST, "POST /sessions/:id/tickets", ROLE_VIEW, ROUTE_JSON,
	  SMALL_BODY, handle_ticket, NULL },
	{ "/providers", METHOD_GET, "GET /providers", ROLE_VIEW, 0, 0, handle_providers, NULL },
	{ "/healthz", METHOD_GET, "GET /healthz", ROLE_NONE, 0, 0, handle_health, NULL },
	{ "/readyz", METHOD_GET, "GET /readyz", ROLE_NONE, 0, 0, handle_readiness, NULL },
	{ "/metrics", METHOD_GET, "GET /metrics", ROLE_ADMIN, ROUTE_METRICS, 0, handle_metrics,
	  NULL },
	/* The page and /openapi.yaml: last, for paths that are none of the above. */
	{ "*", METHOD_GET, "GET asset", ROLE_NONE, 0, 0, handle_asset, NULL },
};
const size_t routes_count = sizeof(routes) / sizeof(routes[0]);
