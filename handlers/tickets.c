/* tickets.c -- POST /sessions/:id/tickets: a short-lived credential for one session. */
#include <string.h>

#include "handlers/handlers.h"
#include "handlers/json_out.h"
#include "service/app.h"
#include "service/json_body.h"
#include "service/request.h"
#include "service/session.h"

#define TTL_S_DEFAULT 60
#define TTL_S_MAX 3600

void handle_ticket(struct request *r)
{
	static const char *const names[] = { "role", "ttl_s", "reusable", NULL };
	static const char *const roles[] = { "view", "write", NULL };
	json_auto_t *body = request_json(r, names);
	if (body == NULL)
		return;
	const char *role = NULL;
	json_int_t ttl_s = TTL_S_DEFAULT;
	bool reusable = false;
	struct problem problem;
	bool ok = json_body_string(body, "role", true, &role, &problem) &&
		  json_body_int(body, "ttl_s", false, 1, TTL_S_MAX, &ttl_s, &problem) &&
		  json_body_bool(body, "reusable", &reusable, &problem);
	if (ok && strcmp(role, "view") != 0 && strcmp(role, "write") != 0) {
		problem = problem_bad_request("role", "", "role: view or write");
		problem.allowed_list = roles;
		ok = false;
	}
	enum role wanted = ok && role[0] == 'v' ? ROLE_VIEW : ROLE_WRITE;
	if (ok && wanted > r->principal.role) {
		problem = problem_make(403, "forbidden",
				       "a ticket cannot do more than who makes it");
		ok = false;
	} else if (ok && reusable && r->principal.role < ROLE_ADMIN) {
		problem = problem_make(
			403, "forbidden",
			"reusable tickets share the session: that takes the role admin");
		ok = false;
	}
	if (!ok) {
		request_answer_problem(r, &problem);
		return;
	}
	char ticket[TICKET_BYTES];
	int64_t expires_ms;
	/* The session's subject: an operator makes tickets for the sessions of others. */
	auth_ticket(r->app->auth, session_id(r->session), session_subject(r->session), wanted,
		    (unsigned)ttl_s, reusable, r->principal.expires_ms, ticket, &expires_ms);
	request_answer_json(r, 201,
			    json_pack("{s:s, s:o, s:s}", "ticket", ticket, "expires_at",
				      json_time(expires_ms), "role", role));
}
