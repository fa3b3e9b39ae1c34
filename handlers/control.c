/* control.c -- POST /sessions/:id/resize and /signal. */
#include <stddef.h>

#include "handlers/handlers.h"
#include "service/json_body.h"
#include "service/request.h"
#include "service/session.h"
#include "service/signals.h"

void handle_resize(struct request *r)
{
	static const char *const names[] = { "cols", "rows", NULL };
	json_auto_t *body = request_json(r, names);
	if (body == NULL)
		return;
	json_int_t cols = 0, rows = 0;
	struct problem problem;
	if (!json_body_int(body, "cols", true, 1, CELLS_MAX, &cols, &problem) ||
	    !json_body_int(body, "rows", true, 1, CELLS_MAX, &rows, &problem)) {
		request_answer_problem(r, &problem);
		return;
	}
	request_wait(r, request_answer_reply);
	session_resize(r->session, (uint16_t)cols, (uint16_t)rows, request_resume, r);
}

void handle_signal(struct request *r)
{
	static const char *const names[] = { "signal", NULL };
	json_auto_t *body = request_json(r, names);
	if (body == NULL)
		return;
	const char *name = NULL;
	struct problem problem;
	if (!json_body_string(body, "signal", true, &name, &problem)) {
		request_answer_problem(r, &problem);
		return;
	}
	int number = signal_number(name);
	if (number == 0) {
		problem = problem_bad_request("signal", "", "signal: one of %s",
					      signal_names_allowed);
		request_answer_problem(r, &problem);
		return;
	}
	request_wait(r, request_answer_reply);
	session_signal(r->session, number, request_resume, r);
}
