/* runloop_api_private.h -- what the files behind runloop_api.h share: one request with its retries, and what
 * its answer means. */
#pragma once

#include <jansson.h>

#include "providers/runloop_api.h"

enum ask_retry {
	ASK_RETRY_SDK,   /* by the SDK's rules */
	ASK_RETRY_POLL,  /* the same, but a 408 is an answer: ask again */
	ASK_RETRY_START, /* only when it cannot have been carried out */
	ASK_RETRY_PTY,  /* the same as SDK, but a young tunnel's 502 and 503 are asked again soon */
	ASK_RETRY_LOST, /* as SDK, but a 409 says that somebody else did it */
	ASK_RETRY_NONE,
};

#define ASK_URL_BYTES 2048
#define ASK_SECRET_BYTES 4200 /* a key of 4,096, and the header's name */

/* One call: filled in by ask_init() and its caller, tried until it is over, then looked at. */
struct ask {
	struct runloop_api *api;
	const char *what;   /* for texts and the log: a static text of a-z and "-" */
	const char *secret; /* borrowed: the API key, or a tunnel's token; NULL: none */
	enum ask_retry retry;
	unsigned attempts;
	bool over;
	bool pty; /* a PTY tunnel is asked, and not the API */
	char url[ASK_URL_BYTES];
	char authorization[ASK_SECRET_BYTES], tunnel_authorization[ASK_SECRET_BYTES]; /* secrets */
	char request_id[64]; /* the same over all tries */
	char *body;          /* owned, a secret; NULL: none */
	int bad;             /* it could not even be written: negative errno */
	struct http_request request;
	struct http_answer answer;
};

/* A call of the API: base_url, then the path, printed. */
void ask_init(struct ask *k, struct runloop_api *a, const char *what, const char *method,
	      const char *path_format, ...) __attribute__((format(printf, 5, 6)));
/* GET of a devbox, and what came of it. devbox is valid. */
void runloop_init_retrieve(struct ask *k, struct runloop_api *a, const char *devbox);
int runloop_devbox_of(const struct ask *k, struct runloop_devbox *ret, struct error *err);
/* A call of a PTY tunnel: its own URL, its own token. */
void ask_init_pty(struct ask *k, struct runloop_api *a, const char *what, const char *method,
		  const char *pty_url, const char *token, const char *path_format, ...)
	__attribute__((format(printf, 7, 8)));
/* Takes json over, wipes it, and sends it. */
void ask_set_json(struct ask *k, json_t *json);
/* Sends a form instead; data is borrowed. */
void ask_set_upload(struct ask *k, const char *path, const void *data, size_t size);
void ask_accept_events(struct ask *k);
void ask_fini(struct ask *k); /* wipes */

#define UUID_BYTES 37
void runloop_uuid7(char ret[UUID_BYTES]);

/* Tries each once, at the same time, what is over not again. */
void ask_try(struct ask *asks, unsigned count);
/* After a try that may be repeated: in how many ms, or -1: not, also when the call would end before it, since
 * what is known now says more than that the time is over. */
int64_t ask_delay(const struct ask *k);
/* Tries until it is over. */
void ask_run(struct ask *k);
/* 0 for a 2xx; else what went wrong. */
int ask_result(const struct ask *k, struct error *err);
/* Runs it; then *ret (owned) is its answer's JSON object. *ret is NULL on failure. */
int ask_run_json(struct ask *k, json_t **ret, struct error *err);
/* The same for one that is over. */
int ask_json(const struct ask *k, json_t **ret, struct error *err);

/* True while the call goes on; waits ms at most, less when it is cancelled or its time is over. */
bool ask_nap(const struct provider_call *call, int64_t ms);
/* Waits after a 408 that came too fast, started_us being when it was asked. */
bool ask_nap_after_poll(const struct provider_call *call, uint64_t started_us);

/* Sets what a status means. text: what the server said (size bytes, any); secret is not shown. */
int ask_status_error(struct error *err, const char *what, unsigned status, const char *text,
		     size_t size, const char *secret);
int ask_not_understood(struct error *err, const char *what, const char *why);

/* ---- runloop_json.c ---- */

/* The message in an error's body by the SDK's rules, made harmless: at most room - 1 bytes, valid UTF-8, no
 * control characters, and [hidden] for secret (NULL: none). Returns ret. */
const char *runloop_error_message(const char *body, size_t size, const char *secret, char *ret,
				  size_t room);
/* Makes any text harmless in the same way. */
const char *runloop_clean_text(const char *text, size_t size, const char *secret, char *ret,
			       size_t room);

/* 0 or -EBADMSG; root is a DevboxView. */
int runloop_devbox_read(const json_t *root, struct runloop_devbox *ret);
/* The same for a tunnel object: its key and its token into the two buffers. */
int runloop_tunnel_read(const json_t *tunnel, bool token_needed, char key[64], char token[512]);
/* 0, -EBADMSG or -ENOMEM; *ret is owned on success. */
int runloop_execution_read(const json_t *root, struct runloop_execution *ret);

bool runloop_token_valid(const char *token, size_t size); /* printable ASCII, no space, not empty */
void runloop_json_wipe(json_t *root);                     /* overwrites all strings in it */
