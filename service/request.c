/* request.c -- see request.h. */
#include "service/request.h"

#include <assert.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service/app.h"
#include "service/config.h"
#include "service/http_private.h"
#include "service/json_body.h"
#include "service/loop.h"
#include "service/metrics.h"
#include "service/provisioner.h"
#include "service/session.h"

/* --- what was asked --- */

const char *request_header(const struct request *r, const char *name)
{
	return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

const char *request_query(const struct request *r, const char *name)
{
	return MHD_lookup_connection_value(r->connection, MHD_GET_ARGUMENT_KIND, name);
}

json_t *request_json(struct request *r, const char *const *names)
{
	struct problem problem;
	json_t *body = json_body_parse(r->body == NULL ? (const void *)"" : r->body, r->body_size,
				       names, &problem);
	if (body == NULL)
		request_answer_problem(r, &problem);
	return body;
}

/* --- the body --- */

static void hold_bytes(struct request *r, int64_t n)
{
	atomic_fetch_add(&r->listener->http->bodies_bytes, n);
	metric_add(METRIC_BODIES_BYTES, n);
}

void request_drop_body(struct request *r)
{
	if (r->body_capacity == 0)
		return;
	hold_bytes(r, -(int64_t)r->body_capacity);
	if (r->body != NULL)
		explicit_bzero(r->body, r->body_size); /* a credential, a password that was typed */
	free(r->body);
	r->body = NULL;
	r->body_size = r->body_capacity = 0;
}

uint8_t *request_take_body(struct request *r, size_t *size)
{
	uint8_t *body = r->body;
	*size = r->body_size;
	r->body = NULL;
	request_drop_body(r);
	return body != NULL ? body : malloc(1);
}

static bool grow_body(struct request *r, size_t need)
{
	size_t capacity = r->body_capacity;
	if (r->announced <= r->body_bytes_max) {
		capacity = (size_t)r->announced;
	} else {
		if (capacity == 0)
			capacity = 4096;
		while (capacity < need)
			capacity *= 2;
	}
	if (capacity > r->body_bytes_max)
		capacity = r->body_bytes_max;
	size_t more = capacity - r->body_capacity;
	hold_bytes(r, (int64_t)more);
	uint8_t *body = NULL;
	if ((size_t)atomic_load(&r->listener->http->bodies_bytes) <=
	    r->app->config->bodies_total_bytes)
		body = realloc(r->body, capacity);
	if (body == NULL) {
		hold_bytes(r, -(int64_t)more);
		return false;
	}
	r->body = body;
	r->body_capacity = capacity;
	return true;
}

void request_feed(struct request *r, const void *data, size_t size)
{
	bool wanted = !r->answered && r->body_bytes_max > 0;
	if (wanted && size > r->body_bytes_max - r->body_size) {
		request_answer_too_large(r, r->body_bytes_max);
		wanted = false;
	}
	if (wanted && r->body_size + size > r->body_capacity &&
	    !grow_body(r, r->body_size + size)) {
		struct problem p = problem_make(503, "busy", "too many large requests at once");
		request_answer_problem(r, &p);
		wanted = false;
	}
	if (!wanted) {
		request_drop_body(r);
		r->bytes_discarded += size;
		return;
	}
	memcpy(r->body + r->body_size, data, size);
	r->body_size += size;
}

/* --- the answer --- */

void request_answer_response(struct request *r, unsigned status, struct MHD_Response *response)
{
	assert(!r->answered);
	r->answered = true;
	r->status = status;
	r->response = response;
}

void request_add_header(struct request *r, const char *name, const char *value)
{
	assert(r->answered);
	if (r->response != NULL && MHD_add_response_header(r->response, name, value) != MHD_YES) {
		MHD_destroy_response(r->response);
		r->response = NULL; /* no memory: better no answer than half of one */
	}
}

static void answer_bytes(struct request *r, unsigned status, const char *type, const void *data,
			 size_t size, enum MHD_ResponseMemoryMode mode)
{
	void *bytes = (void *)data; /* MHD_RESPMEM_PERSISTENT changes nothing behind it */
	struct MHD_Response *response = MHD_create_response_from_buffer(size, bytes, mode);
	if (response == NULL && mode == MHD_RESPMEM_MUST_FREE)
		free(bytes);
	request_answer_response(r, status, response);
	if (type != NULL)
		request_add_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
}

void request_answer_empty(struct request *r, unsigned status)
{
	answer_bytes(r, status, NULL, "", 0, MHD_RESPMEM_PERSISTENT);
}

void request_answer_static(struct request *r, unsigned status, const char *type, const void *data,
			   size_t size)
{
	answer_bytes(r, status, type, data, size, MHD_RESPMEM_PERSISTENT);
}

void request_answer_owned(struct request *r, unsigned status, const char *type, void *data,
			  size_t size)
{
	if (data == NULL)
		request_answer_response(r, status, NULL);
	else
		answer_bytes(r, status, type, data, size, MHD_RESPMEM_MUST_FREE);
}

void request_answer_json(struct request *r, unsigned status, json_t *value)
{
	char *text = value == NULL ? NULL : json_dumps(value, JSON_COMPACT);
	json_decref(value);
	request_answer_owned(r, status, "application/json", text, text == NULL ? 0 : strlen(text));
}

void request_answer_problem(struct request *r, const struct problem *p)
{
	if (r->route != NULL && r->route->refuse != NULL && r->route->refuse(r, p))
		return;
	size_t size;
	char *text = problem_json(p, &size);
	request_answer_owned(r, p->reply.status, "application/problem+json", text, size);
	unsigned retry_after_s = p->reply.retry_after_s;
	if (retry_after_s == 0 && (p->reply.status == 503 || p->reply.status == 429))
		retry_after_s = retry_after_jittered(0, 3);
	if (retry_after_s != 0) {
		char value[16];
		snprintf(value, sizeof(value), "%u", retry_after_s);
		request_add_header(r, MHD_HTTP_HEADER_RETRY_AFTER, value);
	}
	if (p->reply.status == 401)
		request_add_header(r, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
}

void request_answer_too_large(struct request *r, size_t bytes_max)
{
	struct problem p = problem_make(413, "payload-too-large", "at most %zu bytes at once",
					bytes_max);
	snprintf(p.allowed, sizeof(p.allowed), "0..%zu", bytes_max);
	request_answer_problem(r, &p);
}

void request_answer_draining(struct request *r)
{
	r->close = true;
	if ((r->route->flags & ROUTE_STREAM) != 0) {
		request_answer_response(r, 503, NULL);
		return;
	}
	struct problem p = problem_make(503, "draining", "the service is going down");
	p.reply.retry_after_s = retry_after_jittered(0, 5);
	request_answer_problem(r, &p);
}

void request_answer_reply(struct request *r, const struct reply *reply)
{
	if (reply->slug == NULL) {
		request_answer_empty(r, reply->status);
	} else {
		struct problem p = { .reply = *reply };
		request_answer_problem(r, &p);
	}
}

/* --- waiting --- */

void request_take_over(struct request *r)
{
	call_begin(&r->call, r->connection, &r->listener->http->calls);
}

void request_take_over_upgraded(struct request *r, struct MHD_UpgradeResponseHandle *handle)
{
	call_begin_upgraded(&r->call, handle, &r->listener->http->calls);
}

void request_give_back(void *r)
{
	call_answer(&((struct request *)r)->call, NULL);
}

void request_wait(struct request *r, request_fn *finish)
{
	r->waiting = true;
	r->finish = finish;
	request_take_over(r);
}

void request_resume(void *r, const struct reply *reply)
{
	call_answer(&((struct request *)r)->call, reply);
}

/* Behind calls that hang: who waited longer is told so, and not for as long as all in front of it take. */
#define BLOCK_WAIT_US 3000000

struct blocking_job {
	struct provisioner_job job;
	struct request *request;
	uint64_t queued_us;
	bool (*run)(struct request *r, struct reply *reply);
};

static void run_blocking(struct provisioner_job *job, bool cancelled)
{
	struct blocking_job *b = (struct blocking_job *)job;
	struct request *r = b->request;
	struct reply reply = reply_problem(503, "draining", "the service is going down");
	bool late = loop_now_us() - b->queued_us > BLOCK_WAIT_US;
	if (late && !cancelled)
		reply = reply_problem(503, "store-unavailable",
				      "the store cannot be asked at the moment");
	bool mine = cancelled || late || b->run(r, &reply);
	free(b);
	if (mine)
		request_resume(r, &reply);
}

void request_block(struct request *r, bool (*run)(struct request *r, struct reply *reply),
		   request_fn *finish)
{
	struct blocking_job *b = calloc(1, sizeof(*b));
	request_wait(r, finish);
	if (b != NULL) {
		b->job.run = run_blocking;
		b->request = r;
		b->run = run;
		b->queued_us = loop_now_us();
		if (provisioner_submit(r->app->clerks, &b->job) == 0)
			return;
	}
	free(b);
	struct reply busy = reply_problem(503, "busy", "too much is under way: try again");
	busy.retry_after_s = 1;
	request_resume(r, &busy);
}

/* --- its life --- */

bool request_on_loopback(const struct request *r)
{
	return r->listener->is_loopback;
}

struct request *request_create(struct listener *listener, struct MHD_Connection *connection)
{
	struct request *r = calloc(1, sizeof(*r));
	if (r == NULL)
		return NULL;
	atomic_fetch_add(&listener->http->requests, 1);
	r->listener = listener;
	r->app = listener->http->app;
	r->connection = connection;
	r->started_us = loop_now_us();
	return r;
}

void request_destroy(struct request *r)
{
	if (r == NULL)
		return;
	request_drop_body(r);
	if (r->response != NULL)
		MHD_destroy_response(r->response);
	if (r->viewer_reserved)
		session_release_viewer(r->session);
	if (r->session != NULL)
		session_unref(r->session);
	if (r->work != NULL)
		r->free_work(r->work);
	atomic_fetch_sub(&r->listener->http->requests, 1);
	free(r);
}
