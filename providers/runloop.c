/* runloop.c -- provider "runloop": devboxes of Runloop. Here are its operations; each opens the credential, does its
 * work on one devbox, and wipes it. */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "providers/runloop_private.h"
#include "service/log.h"

#define AGENT_BYTES_MAX (16 << 20)
#define KEEP_ALIVE_TURNS \
	3 /* of a devbox within a session's period, at most, however many sessions it has */

/* ---- the agents ---- */

/* The whole file. */
static int read_file(const char *path, struct runloop_agent *ret, struct error *err)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		int rc = error_set(err, -errno, "cannot read the agent %s: %s", path,
				   strerror(errno));
		if (fd >= 0)
			close(fd);
		return rc;
	}
	int rc = 0;
	size_t size = (size_t)st.st_size, have = 0;
	uint8_t *data = NULL;
	if (!S_ISREG(st.st_mode) || st.st_size < 1 || st.st_size > AGENT_BYTES_MAX)
		rc = error_set(err, -EINVAL, "the agent %s is no program", path);
	else if ((data = malloc(size)) == NULL)
		rc = error_set(err, -ENOMEM, "no memory");
	while (rc == 0 && have < size) {
		ssize_t n = read(fd, data + have, size - have);
		if (n <= 0 && !(n < 0 && errno == EINTR))
			rc = error_set(err, -EIO, "cannot read the agent %s", path);
		have += n > 0 ? (size_t)n : 0;
	}
	close(fd);
	if (rc < 0) {
		free(data);
		return rc;
	}
	uint8_t hash[crypto_hash_sha256_BYTES];
	crypto_hash_sha256(hash, data, size);
	*ret = (struct runloop_agent){ .data = data, .size = size };
	sodium_bin2hex(ret->hash, sizeof(ret->hash), hash, sizeof(hash));
	return 0;
}

/* Of a program for Linux by its own word, else what is expected. */
static enum runloop_arch arch_of(const struct runloop_agent *a, enum runloop_arch expected)
{
	if (a->size < 20 || memcmp(a->data, "\177ELF", 4) != 0)
		return expected;
	unsigned machine = a->data[18] | (unsigned)a->data[19] << 8;
	return machine == 183 ? RUNLOOP_ARM64 : (machine == 62 ? RUNLOOP_X86_64 : expected);
}

/* The agent is this machine's, whatever that is. */
static int add_agent(struct runloop *r, const char *path, enum runloop_arch expected,
		     struct error *err)
{
	struct runloop_agent a = { 0 };
	int rc = read_file(path, &a, err);
	if (rc < 0)
		return rc;
	struct runloop_agent *place = &r->agents[arch_of(&a, expected)];
	free(place->data);
	*place = a;
	return 0;
}

int runloop_create(const struct provider_config *cfg, struct runloop **ret, struct error *err)
{
	struct runloop *r = calloc(1, sizeof(*r));
	int rc = 0;
	if (r == NULL)
		return error_set(err, -ENOMEM, "no memory");
	r->memory = runloop_memory_create(RUNLOOP_MEMORY_ENTRIES);
	if (r->memory == NULL)
		rc = error_set(err, -ENOMEM, "no memory");
	if (rc == 0 && cfg->agent != NULL)
		rc = add_agent(r, cfg->agent, RUNLOOP_X86_64, err);
	if (rc == 0 && cfg->agent_arm64 != NULL)
		rc = add_agent(r, cfg->agent_arm64, RUNLOOP_ARM64, err);
	if (rc < 0) {
		runloop_destroy(r);
		return rc;
	}
	*ret = r;
	return 0;
}

void runloop_destroy(struct runloop *r)
{
	if (r == NULL)
		return;
	runloop_memory_destroy(r->memory);
	for (size_t i = 0; i < RUNLOOP_ARCH_COUNT; i++)
		free(r->agents[i].data);
	free(r);
}

/* ---- opening ---- */

static int open_agent(struct runloop_box *b, const struct pty_request *request,
		      struct endpoint *ret, struct error *err)
{
	const char *agent = b->call->target->agent;
	if (agent != NULL && strcmp(agent, "pty-tunnel") == 0)
		return runloop_tunnel_open(b, request, ret, err);
	return runloop_agent_open(b, request, ret, err);
}

static bool no_agent(const struct error *err)
{
	return err->slug != NULL &&
	       (strcmp(err->slug, "agent-install") == 0 || strcmp(err->slug, "agent-start") == 0);
}

/* The agent if it can be had, else the sandbox's own shell if that will do. */
static int open_auto(struct runloop_box *b, const struct pty_request *request, struct endpoint *ret,
		     struct error *err)
{
	char safe[160];
	struct error native_err = { 0 };
	int rc = open_agent(b, request, ret, err);
	if (rc == 0 || !no_agent(err) || request->command != NULL || request->env != NULL ||
	    request->cwd != NULL)
		return rc;
	log_warn("runloop without agent", "sandbox=%s text=\"%s\"", b->devbox,
		 log_safe(safe, sizeof(safe), err->text));
	int native_rc = runloop_native_open(b, request, ret, &native_err);
	if (native_rc == 0)
		return 0;
	if (native_rc != -ECANCELED && native_rc != -ETIMEDOUT)
		return rc; /* the first error says what to do about it */
	*err = native_err;
	return native_rc;
}

static int open_pty(const struct provider_call *call, const struct pty_request *request,
		    struct endpoint *ret, struct error *err)
{
	struct runloop_box b;
	struct error e = { 0 };
	int rc = runloop_box_init(&b, call, &e);
	if (rc == 0) {
		const char *transport = call->target->transport;
		if (transport != NULL && strcmp(transport, "native") == 0)
			rc = runloop_native_open(&b, request, ret, &e);
		else if (transport != NULL && strcmp(transport, "agent") == 0)
			rc = open_agent(&b, request, ret, &e);
		else
			rc = open_auto(&b, request, ret, &e);
		runloop_box_fini(&b);
	}
	if (rc < 0 && err != NULL)
		*err = e;
	return rc;
}

/* ---- later calls ---- */

struct later {
	struct runloop_box box;
	struct runloop_memo memo;
	struct sandbox_target target; /* borrows; its devbox is the one where the shell is */
	struct provider_call call;
	struct error err;  /* never NULL to what is called */
	struct error *ret; /* the caller's */
};

/* 0: later_fini() ends it. */
static int later_init(struct later *l, const struct provider_call *call, const struct endpoint *e,
		      struct error *err)
{
	*l = (struct later){ .ret = err };
	int rc = runloop_memo_read(e->memo, &l->memo, err);
	l->call = *call;
	if (call->target != NULL) {
		l->target = *call->target;
		l->target.external_id = l->memo.devbox;
		l->call.target = &l->target;
	}
	if (rc == 0)
		rc = runloop_box_init(&l->box, &l->call, err);
	if (rc < 0)
		sodium_memzero(l, sizeof(*l));
	return rc;
}

/* Returns rc, the result of the call. */
static int later_fini(struct later *l, int rc)
{
	/* What is remembered is not true any more. */
	if (l->box.api_key != NULL && (rc == -EACCES || rc == -ENOENT || rc == -ESRCH))
		runloop_memory_forget(l->box.runloop->memory, &l->box.key);
	if (rc < 0 && l->ret != NULL)
		*l->ret = l->err;
	runloop_box_fini(&l->box);
	sodium_memzero(l, sizeof(*l));
	return rc;
}

/* What the tunnels of agents do themselves. */
static int not_here(struct later *l)
{
	return error_set_slug(&l->err, -ENOTSUP, "not-possible",
			      "runloop: not by this session's transport");
}

static int reopen(const struct provider_call *call, const struct endpoint *e, struct endpoint *ret,
		  struct error *err)
{
	struct later l;
	int rc = later_init(&l, call, e, err);
	if (rc < 0)
		return rc;
	provider_call_step(call, "devbox");
	switch (l.memo.kind) {
	case RUNLOOP_KIND_AGENT:
		rc = runloop_agent_reopen(&l.box, e, &l.memo, ret, &l.err);
		break;
	case RUNLOOP_KIND_TUNNEL:
		rc = runloop_tunnel_reopen(&l.box, e, &l.memo, ret, &l.err);
		break;
	case RUNLOOP_KIND_NATIVE:
		rc = runloop_native_reopen(&l.box, &l.memo, ret, &l.err);
		break;
	}
	return later_fini(&l, rc);
}

static int keep_alive(const struct provider_call *call, const struct endpoint *e, bool awake,
		      struct error *err)
{
	struct later l;
	int rc = later_init(&l, call, e, err);
	if (rc < 0)
		return rc;
	struct runloop_box *b = &l.box;
	uint64_t every_us = call->cfg->keep_alive_s * UINT64_C(1000000) / KEEP_ALIVE_TURNS;
	if (awake &&
	    !runloop_memory_take_turn(b->runloop->memory, &b->key, provider_now_us(), every_us)) {
		return later_fini(&l, 0); /* another session has just done it */
	} else if (awake) {
		rc = runloop_keep_alive(&b->api, b->devbox, &l.err);
		if (rc == -ENOENT)
			rc = runloop_box_still(b, rc, 0, &l.err);
	} else {
		rc = runloop_retrieve(&b->api, b->devbox, &b->view, &l.err);
		rc = runloop_box_still(b, rc, l.memo.boot_ms, &l.err);
	}
	if (rc == 0)
		runloop_memory_confirm(b->runloop->memory, &b->key, provider_now_us());
	return later_fini(&l, rc);
}

static int resize(const struct provider_call *call, const struct endpoint *e, uint16_t cols,
		  uint16_t rows, struct error *err)
{
	struct later l;
	int rc = later_init(&l, call, e, err);
	if (rc < 0)
		return rc;
	const struct runloop_memo *m = &l.memo;
	if (m->kind == RUNLOOP_KIND_NATIVE)
		rc = runloop_pty_resize(&l.box.api, m->pty_url, m->token, m->name, cols, rows,
					&l.err);
	else
		rc = not_here(&l);
	return later_fini(&l, rc);
}

static int send_signal(const struct provider_call *call, const struct endpoint *e, int number,
		       struct error *err)
{
	struct later l;
	char name[32];
	const char *abbreviation = sigabbrev_np(number);
	if (abbreviation == NULL)
		return error_set(err, -EINVAL, "no such signal");
	snprintf(name, sizeof(name), "SIG%s", abbreviation);
	int rc = later_init(&l, call, e, err);
	if (rc < 0)
		return rc;
	const struct runloop_memo *m = &l.memo;
	if (m->kind == RUNLOOP_KIND_NATIVE)
		rc = runloop_pty_signal(&l.box.api, m->pty_url, m->token, m->name, name, &l.err);
	else
		rc = not_here(&l);
	return later_fini(&l, rc);
}

static int close_pty(const struct provider_call *call, const struct endpoint *e, struct error *err)
{
	struct later l;
	int rc = later_init(&l, call, e, err);
	if (rc < 0)
		return rc;
	const struct runloop_memo *m = &l.memo;
	switch (m->kind) {
	case RUNLOOP_KIND_AGENT: /* the session has ended its shell over the tunnel */
		break;
	case RUNLOOP_KIND_TUNNEL:
		if (l.box.api_key == NULL)
			rc = error_set_slug(&l.err, -ENOENT, "sandbox-unknown",
					    "runloop: the sandbox's record was deleted");
		else
			rc = runloop_kill(&l.box.api, l.box.devbox, m->execution, &l.err);
		break;
	case RUNLOOP_KIND_NATIVE:
		rc = runloop_pty_close(&l.box.api, m->pty_url, m->token, m->name, &l.err);
		break;
	}
	if (rc == -ENOENT) /* it has gone by itself */
		rc = 0;
	return later_fini(&l, rc);
}

const struct provider_ops provider_runloop = {
	.name = "runloop",
	.transport = "agent",
	.capabilities = { .reattach = true,
			  .replay = true,
			  .exit_code = true,
			  .signal = true,
			  .resize = true },
	.needs_target = true,
	.open_pty = open_pty,
	.reopen = reopen,
	.keep_alive = keep_alive,
	.resize = resize,
	.signal = send_signal,
	.close = close_pty,
};
