/* session_private.h -- the inside of a session, shared by the files that make it up:
 *   session_card.c    birth, memory, references; the card that other threads read
 *   session.c         messages from other threads, start and retirement
 *   session_state.c   states, provisioning, the end
 *   session_provider.c what is asked of the provider: a place for the shell, the way back, signs of life
 *   session_tunnel.c  the far end: attach, output, loss, reconnect, sleep
 *   session_input.c   input and signals until the far end has them
 *   session_viewers.c flushes to viewers, flow control, time limits
 * Thread: the session's loop, but where it says otherwise. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

#include "providers/provider.h"
#include "service/event.h"
#include "service/loop.h"
#include "service/session.h"
#include "service/viewer.h"
#include "tunnel/tunnel.h"

#define SESSION_INPUTS_MAX 1024 /* on their way at once */
#define SESSION_UNKNOWN_INPUTS 16

struct pending_input;
struct pending_signal;
struct open_waiter;

struct session {
	/* Set at the birth, then never changed: any thread reads them. */
	struct app *app;
	struct loop *loop;
	char id[SESSION_ID_MAX + 1];
	char *subject, *sandbox, *provider_name;
	char *params;                      /* hash of what it was made with */
	bool stored;                       /* sandbox is the id of a stored one */
	char *target_sealed;               /* an inline sandbox, sealed; or NULL */
	char *want_transport, *want_agent; /* instead of the sandbox's own; or NULL */
	char *target_text; /* these four as JSON, for the store; NULL: a built-in sandbox */
	/* Its name at the far end: another one for each creation of an id, and the same at each try to open it, so
	 * that it is opened once. */
	char shell[33];
	const struct provider_ops *provider; /* NULL when it is not switched on any more */
	char **command, **env;               /* NULL-terminated */
	char *cwd;
	uint32_t idle_timeout_s;
	int64_t created_ms;

	atomic_uint references;
	atomic_uint viewers_reserved;
	_Atomic uint64_t card_head; /* journal's head, for the card */
	atomic_bool cancelled; /* it has ended or stops: what is asked of its provider is vain */

	/* The card: what other threads may know. Written by the loop's thread. */
	pthread_mutex_t card_lock; /* guards these; nothing is called under it */
	enum session_state state;
	uint16_t cols, rows;
	uint64_t epoch;   /* 0: none yet */
	uint64_t end;     /* ended: offset behind the last byte */
	char *ended_json; /* owned; set once, at the end */
	bool failed_start;
	struct session_step steps[SESSION_STEPS_MAX];
	unsigned steps_count;

	/* Loop only from here on. */
	struct feed feed;
	struct journal *journal;
	struct viewer_host host; /* first things a viewer knows; back to us by container_of */
	struct viewer_list viewers;
	struct viewer *flush_next; /* where the pass that is under way goes on */
	struct loop_work flush_work;
	struct loop_second second;
	bool flush_again, in_pass;
	uint64_t pass_us;           /* time that the pass took so far */
	uint64_t hold_until_us;     /* no pass before that */
	uint64_t fastest;           /* the highest offset of any viewer */
	uint64_t slowest;           /* the lowest one after the last pass; UINT64_MAX: none */
	uint64_t stall_offset;      /* fastest, when the tunnel was paused */
	bool paused, paused_enough; /* tunnel not read; no viewer moved for long enough: read on */

	const struct tunnel_ops *transport;
	struct tunnel *tunnel;
	struct loop_work tunnel_work; /* ends a tunnel outside of its events */
	bool tunnel_over, tunnel_leave;
	bool attached;            /* the tunnel is up */
	bool opened;              /* the shell is known to be there: no OPEN any more */
	bool closing;             /* somebody asked for the end; written under card_lock */
	const char *close_reason; /* static */
	bool forgotten;           /* out of the registry: nothing is stored any more */
	bool retire_at_end;       /* it may end in order first */
	bool unsaved;             /* the store had no room */
	bool known;               /* the journal stands for the PTY, as far as it goes */
	uint64_t replay_end;      /* the head when we attached: what is in front of it is replay */
	uint64_t attached_us;
	uint64_t
		await_until_us; /* restored: its viewers may come back until then; 0: not awaited */
	bool stopping;          /* the process ends */
	bool has_address;       /* endpoint is fresh: for transports that need that */
	bool open_sent;         /* there may be a shell */
	uint64_t connect_us;    /* when the tunnel was begun */
	uint64_t look_until_us; /* it is woken to see whether it is idle */
	unsigned resize_tries;
	bool asleep; /* open, but without a tunnel until somebody uses it */
	bool reopening, keeping_alive, resizing; /* asked of the provider, not answered yet */
	unsigned opened_anew;  /* times that its place proved wrong before it was open */
	uint64_t reopen_at_us; /* not before that */
	uint64_t reopen_wait_ms;
	uint64_t keep_alive_at_us; /* 0: since it is open it was not asked */
	uint64_t used_us;          /* when somebody watched or typed last */
	const char *end_error;     /* slug of why it ended; NULL: none */
	bool restored;             /* from the store: the far end decides whether it lives */
	bool refill;               /* ended already; only its journal is fetched once more */
	struct endpoint endpoint;
	char *endpoint_sealed; /* owned; as the store has it */
	uint64_t fence;
	struct input_seq *dedupe; /* for transports that do not drop repeats themselves */
	unsigned attempts;        /* reconnects since it was attached last */
	uint64_t lost_us;         /* since when there is no tunnel; 0 while it is attached */
	uint64_t idle_us;         /* when it was used last */
	int64_t ended_ms;
	char reason_text[160];         /* feed.reason points here */
	char exit_text[128];           /* feed.exit_json points here */
	uint16_t want_cols, want_rows; /* asked for while there was no tunnel; 0: nothing */

	struct pending_input *inputs, **inputs_end; /* oldest first */
	unsigned inputs_count;
	size_t inputs_bytes;
	bool in_send, send_again; /* inputs are being sent; and there is reason to look once more */
	bool own_refused; /* our numbers have a hole: renumber before more is sent under them */
	struct {
		uint8_t client[INPUT_CLIENT_BYTES];
		uint64_t seq;
	} unknown_inputs[SESSION_UNKNOWN_INPUTS]; /* the newest whose fate nobody knows */
	size_t unknown_count;
	uint64_t next_request;
	uint8_t own_client[INPUT_CLIENT_BYTES]; /* for inputs that the client does not number */
	uint64_t own_seq;
	struct pending_signal *signals;
	struct open_waiter *waiters;

	uv_timer_t flush_timer, retry_timer, close_timer, input_timer, flow_timer;
	unsigned timers_open;
	bool retired; /* its handles are being closed */
};

#define SESSION_TIMERS(s) \
	&(s)->flush_timer, &(s)->retry_timer, &(s)->close_timer, &(s)->input_timer, &(s)->flow_timer

/* session_state.c */
void session_enter(struct session *s, enum session_state next, const char *reason);
/* Tells viewers and the card what is being done now; name is static. */
void session_step(struct session *s, const char *name, int64_t wall_ms);
void session_connect(struct session *s);
/* Tells the shell to go; reason ("closed", "expired") is static, and what the end will be called. */
void session_hang_up(struct session *s, const char *reason);
/* reason is one of exited, closed, failed, expired, lost; text may be NULL. Nothing is done when it has
 * ended already. */
void session_end(struct session *s, const char *reason, const char *text, enum pty2_exit_kind kind,
		 unsigned value);
void session_drop_tunnel(struct session *s, bool leave);
void session_end_refill(struct session *s);
void session_save(struct session *s);
bool session_is_ended(const struct session *s); /* loop only */

/* session_provider.c */
int session_override_target(const struct session *s,
			    struct sandbox_target *target); /* any thread */
bool session_reopens(const struct session *s);              /* its provider can find a way back */
/* Asks for a way back to the shell, unless that is under way, or was a moment ago. */
void session_reopen(struct session *s);
/* The opening once more, without what was remembered of the sandbox. False: that was done often enough, or cannot be. */
bool session_open_anew(struct session *s);
void session_keep_alive(struct session *s, uint64_t now_us);
/* Sets want_cols and want_rows by the provider. False: it cannot. */
bool session_ask_resize(struct session *s);
bool session_ask_signal(struct session *s, uint64_t request, int number);
void session_ask_close(struct session *s); /* what does not end by itself */

/* session_tunnel.c */
void session_end_lost(struct session *s, const char *slug, const char *text);
void session_retry(struct session *s, const char *text); /* connects again later, or gives up */
void session_resized(struct session *s, uint16_t cols, uint16_t rows);
void session_check_tunnel(struct session *s, uint64_t now_us);
/* True while it is being found out whether a session that sleeps has said something. */
bool session_look_in(struct session *s, uint64_t now_us);
void session_sleep_check(struct session *s, uint64_t now_us);
void session_use(struct session *s); /* somebody watches or types: wakes it up */
bool session_is_used(const struct session *s, uint64_t now_us);

/* session_input.c */
void session_input_add(struct session *s, const struct input *in);
void session_input_send(struct session *s); /* all that waits and can go */
void session_input_lost(struct session *s); /* the tunnel is gone */
void session_input_end(struct session *s);  /* the session is over: answer all */
void session_input_done(struct session *s, uint64_t request, enum pty2_verdict verdict,
			uint64_t expected);
void session_signal_add(struct session *s, int number, reply_fn *done, void *arg);
void session_signal_done(struct session *s, uint64_t request, int error);

/* session_viewers.c */
void session_viewers_init(struct session *s);
void session_viewers_fini(struct session *s);
void session_changed(struct session *s); /* feed or journal: viewers are to be told */
void session_flush_final(
	struct session *s); /* nothing follows in this epoch: give all that is held */
void session_viewers_add(struct session *s, const struct viewer_params *p);
void session_flow_check(struct session *s); /* after output, and after a viewer moved */

/* session.c */
void session_retire(struct session *s);      /* out of the loop: viewers are drained first */
void session_retire_step(struct session *s); /* goes on when what it waits for is gone */
bool session_resize_now(struct session *s, uint16_t cols, uint16_t rows); /* false: it has ended */
void session_wake_waiters(struct session *s);
void session_timer(struct session *s, uv_timer_t *timer, uv_timer_cb cb, uint64_t ms);
