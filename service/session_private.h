/* session_private.h -- the inside of a session, shared by the files that make it up:
 *   session_card.c    birth, memory, references; the card that other threads read
 *   session.c         messages from other threads, start and retirement
 *   session_state.c   states, provisioning, the end
 *   session_provider.c what is asked of the provider: a place for the shell, the way back, signs of life
 *   session_tunnel.c  the far end: attach, output, loss, reconnect, sleep
 *   session_input.c   input and signals until the far end has them
 *   session_viewers.c flushes to viewers, flow control, time limits
 *   session_bus.c     its channel to other replicas
 *   session_owner.c   what the owner does for its mirrors
 *   session_mirror.c  what a mirror asks of its owner
 *   session_forward.c those that wait for the owner's answer
 *   session_role.c    from one to the other
 *   session_arrival.c viewers with a place that we may not know
 * Thread: the session's loop, but where it says otherwise. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

#include "providers/provider.h"
#include "service/event.h"
#include "service/loop.h"
#include "service/session.h"
#include "service/slots.h"
#include "service/viewer.h"
#include "store/bus.h"
#include "tunnel/tunnel.h"
#include "wire/bus_frame.h"

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
	uint64_t birth;   /* tells this creation of the id from others; at all replicas */
	uint64_t machine; /* its shell can be reached on one machine only: which; 0: anywhere */

	atomic_bool
		dropped; /* out of the registry: who looks its id up finds another one, or none */
	atomic_bool mirror;          /* another replica has its tunnel; written by the loop */
	_Atomic uint64_t touched_us; /* when somebody looked it up last */
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
	char *steps_text; /* owned; the same as JSON, for a shared store; or NULL. The loop's */

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
	uint64_t forget_us;            /* ended: when it is forgotten */
	bool deleting, deleted;        /* its record, as somebody asked for */
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

	struct session_line *line; /* to the bus; NULL: none */
	unsigned line_number;      /* what comes by older ones is not heard any more */
	struct owner *owner;       /* what an owner knows of its mirrors; NULL: there are none */
	uint64_t owner_replica;    /* mirror: who has it; 0: not heard yet */
	uint64_t adopted_us;       /* when it was taken over from another replica; 0: it was not */
	uint64_t saved_us, saved_offset; /* when it was stored last, and how far it was */
	struct arrival *arrivals;        /* viewers that wait until it is known where they are */
	uint64_t arrivals_count,
		confirmed; /* so many came; owner: up to which one it is sure that we are it */
	bool looking_up;
	struct sync_waiter *sync_waiters;
	struct forward *forwards; /* mirror: asked of the owner */
	struct slot_request slot; /* mirror: to pull */
	bool wants_slot;          /* with a reference of its own, until it is granted */

	uv_timer_t flush_timer, retry_timer, close_timer, input_timer, flow_timer, push_timer;
	unsigned timers_open;
	bool retired; /* its handles are being closed */
};

#define SESSION_TIMERS(s)                                                           \
	&(s)->flush_timer, &(s)->retry_timer, &(s)->close_timer, &(s)->input_timer, \
		&(s)->flow_timer, &(s)->push_timer

/* session_state.c */
void session_enter(struct session *s, enum session_state next, const char *reason);
/* Tells viewers and the card what is being done now; name is static. */
void session_step(struct session *s, const char *name, int64_t wall_ms);
void session_note_step(struct session *s, const char *name, uint32_t ms); /* in the card alone */
void session_step_is(struct session *s, const char *name, uint32_t ms);   /* since it was created */
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
/* The same; done (or NULL) is answered 204 when it is stored, or after a second. */
void session_save_then(struct session *s, reply_fn *done, void *arg);
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
/* For what feeds the journal: a tunnel, or the owner. */
void session_take_output(struct session *s, uint64_t offset, const uint8_t *data, size_t size);
void session_resized_at(struct session *s, uint64_t offset, uint16_t cols, uint16_t rows);
void session_size_is(struct session *s, uint16_t cols, uint16_t rows); /* the card's */
/* The journal starts anew at offset, in a new epoch unless that is 0. */
void session_restart(struct session *s, uint64_t epoch, uint64_t offset, uint16_t cols,
		     uint16_t rows);
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
/* The owner's answer to what was sent to it as a mirror. */
void session_input_answer(struct session *s, uint64_t request, const struct reply *reply);
void session_input_again(struct session *s, uint64_t now_us, uint64_t after_us);
void session_lease_check(struct session *s);
void session_input_give_back(
	struct session *s); /* what mirrors asked for: they ask the new owner */
void session_signal_add(struct session *s, int number, reply_fn *done, void *arg);
void session_signal_done(struct session *s, uint64_t request, int error);

/* session_viewers.c */
void session_viewers_init(struct session *s);
void session_viewers_fini(struct session *s);
void session_changed(struct session *s); /* feed or journal: viewers are to be told */
void session_flush_final(
	struct session *s); /* nothing follows in this epoch: give all that is held */
void session_viewers_add(struct session *s, const struct viewer_params *p);
void session_flow_check(struct session *s);    /* after output, and after a viewer moved */
void session_viewers_moved(struct session *s); /* those of mirrors */

/* session.c */
void session_retire(struct session *s);      /* out of the loop: viewers are drained first */
void session_retire_step(struct session *s); /* goes on when what it waits for is gone */
bool session_resize_now(struct session *s, uint16_t cols, uint16_t rows); /* false: it has ended */
void session_resize_add(struct session *s, uint16_t cols, uint16_t rows, reply_fn *done,
			void *arg); /* done may be NULL */
/* forget: who asks knows that it has ended, and wants it forgotten; else an ended one is left as it is. */
void session_close_add(struct session *s, bool forget, reply_fn *done, void *arg);
void session_wake_waiters(struct session *s);
void session_restore_exit(struct session *s); /* from its ended_json */
void session_refill(struct session *s);       /* an ended one: what its far end still has */
void session_timer(struct session *s, uv_timer_t *timer, uv_timer_cb cb, uint64_t ms);

/* session_card.c */
void session_adopt_target(struct session *s, const struct store_session *record);

/* session_bus.c */
void session_bus_listen(struct session *s,
			const char *which); /* "owner", "out"; NULL: to nothing any more */
int session_bus_send(struct session *s, const char *which, struct bus_frame *f);
int session_bus_reply(struct session *s, uint64_t replica, struct bus_frame *f);

/* session_owner.c */
void session_owner_start(struct session *s);
void session_owner_stop(struct session *s);
void session_owner_free(struct session *s);
void session_owner_line(struct session *s); /* the channel stands */
void session_owner_frame(struct session *s, const struct bus_frame *f);
void session_owner_second(struct session *s, uint64_t now_us);
void session_owner_tell(struct session *s);       /* the card changed */
void session_owner_changed(struct session *s);    /* the journal did */
void session_owner_gone(struct session *s);       /* it is being forgotten */
bool session_owner_asked(const struct input *in); /* true: a mirror waits for the answer */
bool session_watched_elsewhere(const struct session *s);
/* Adds where the viewers of mirrors are. */
void session_owner_positions(const struct session *s, uint64_t *fastest, uint64_t *slowest);

/* session_mirror.c */
void session_mirror_connect(struct session *s);
void session_mirror_line(struct session *s, bool up);
void session_mirror_frame(struct session *s, const struct bus_frame *f);
void session_mirror_second(struct session *s, uint64_t now_us);
void session_mirror_report(struct session *s); /* viewers or the journal moved */
bool session_mirror_told(struct session *s, uint64_t sync);
bool session_mirror_is_lost(struct session *s);
/* Positions are not judged until the owner has said anew where it is. */
void session_mirror_doubt(struct session *s);
/* Output is wanted. Returns the number of the answer that tells where the owner is now. */
uint64_t session_mirror_watch(struct session *s);
void session_mirror_sync(struct session *s, bool watch, unsigned timeout_ms, reply_fn *done,
			 void *arg);

/* session_forward.c */
int session_call_owner(struct session *s, const struct bus_call *call);
void session_forward(struct session *s, const struct bus_call *call, reply_fn *done, void *arg);
void session_forwards_here(struct session *s); /* we are the owner now */
void session_forwards_end(struct session *s);
/* done gets reply when number sync was answered, with told also when the journal is where the owner's was then;
 * or after timeout_ms. */
void session_sync_wait(struct session *s, uint64_t sync, bool told, unsigned timeout_ms,
		       struct reply reply, reply_fn *done, void *arg);
/* Those that wait for the store are answered this. */
void session_sync_answer(struct session *s, const struct reply *reply);
void session_sync_wake(struct session *s, uint64_t synced, uint64_t now_us);
void session_forwards_send(struct session *s, uint64_t now_us); /* those that are due */
/* False: it was not one of these. */
bool session_forward_answer(struct session *s, uint64_t request, const struct reply *reply);

/* session_arrival.c */
bool session_must_ask(const struct session *s, const struct viewer_params *p);
/* A viewer that is added once it is known whether its place is ours to judge. Takes extra over. */
void session_arrive(struct session *s, const struct viewer_params *p, uint8_t *extra);
void session_arrivals_admit(struct session *s); /* those that need not wait any more */
void session_arrivals_turn(struct session *s);
void session_arrivals_end(struct session *s);
void session_look_up(struct session *s); /* in the store: who has it? */

/* session_role.c */
void session_step_down(struct session *s, const char *why); /* another replica has it */
void session_hand_over(struct session *s);                  /* we stop: others are told at once */
void session_superseded(struct session *s, const struct bus_head *by);
void session_not_here(struct session *s, const char *why); /* out of the registry */
void session_take_back(struct session *s, const struct store_session *record);
void session_outnumbered(struct session *s, uint64_t fence); /* by who attached to the far end */
/* What the store is given to tell what became of a save. */
void *session_saved_arg(struct session *s, bool tells);
void session_saved_free(void *arg); /* it was not queued; NULL is allowed */
void session_saved(void *arg, int status);
