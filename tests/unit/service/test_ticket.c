/* test_ticket.c -- tickets as texts, and those that replicas share. Those of one process are in test_auth.c. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <sodium.h>

#include "service/auth.h"
#include "service/metrics.h"
#include "service/ticket.h"

static const uint8_t key[32] = { 7 }, other_key[32] = { 8 };
static struct config_api_key one_key[] = { { "key-of-alice", "alice", "admin" } };
static const struct config cfg = { .api_keys = one_key, .api_keys_count = 1, .max_tickets = 4 };

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- the text --- */

static void is_written_as_it_is_documented(void **state)
{
	(void)state;
	struct ticket t = { .role = ROLE_WRITE,
			    .expires_ms = 1790000000123,
			    .until_ms = 1790000005000,
			    .nonce = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255 },
			    .subject = "did:plc:alice" };
	char text[TICKET_BYTES];
	static const char fields[] = "t1.write.once.1790000000123.1790000005000.AAECAwQFBgcICQr_."
				     "ZGlkOnBsYzphbGljZQ.";
	assert_int_equal(ticket_write(key, "s1", &t, text), sizeof(fields) - 1 + 43);
	assert_int_equal(strlen(text), sizeof(fields) - 1 + 43);
	assert_memory_equal(text, fields, sizeof(fields) - 1);
	t.reusable = true;
	t.role = ROLE_VIEW;
	t.until_ms = 0;
	ticket_write(key, "s1", &t, text);
	assert_memory_equal(text, "t1.view.many.1790000000123.0.", 29);
}

static void reads_back_what_it_wrote(void **state)
{
	(void)state;
	struct ticket t = { .role = ROLE_WRITE,
			    .reusable = true,
			    .expires_ms = INT64_MAX,
			    .until_ms = 5,
			    .subject = "\"zo\xc3\xab\"; a=b." },
		      got;
	randombytes_buf(t.nonce, sizeof(t.nonce));
	char text[TICKET_BYTES];
	ticket_write(key, "s1", &t, text);
	assert_true(ticket_read(key, "s1", text, &got));
	assert_int_equal(got.role, ROLE_WRITE);
	assert_true(got.reusable);
	assert_int_equal(got.expires_ms, INT64_MAX);
	assert_int_equal(got.until_ms, 5);
	assert_memory_equal(got.nonce, t.nonce, sizeof(t.nonce));
	assert_string_equal(got.subject, t.subject);
	assert_false(ticket_read(key, "s2", text, &got));
	assert_false(ticket_read(key, "s", text, &got));
	assert_false(ticket_read(key, "", text, &got));
	assert_false(ticket_read(other_key, "s1", text, &got));
}

/* --- shared by replicas --- */

static struct auth *replica(const uint8_t store_key[32])
{
	struct auth *a = NULL;
	assert_int_equal(auth_create(&cfg, store_key, &a, NULL), 0);
	auth_share_tickets(a);
	return a;
}

static int check(struct auth *a, const char *ticket, const char *cookie, struct principal *ret)
{
	struct credentials c = {
		.ticket = ticket, .cookie = cookie, .session = "s1", .is_stream = true
	};
	*ret = (struct principal){ 0 };
	return auth_check(a, &c, ret, NULL);
}

static void make_ticket(struct auth *a, enum role role, bool reusable, char ret[TICKET_BYTES])
{
	int64_t expires_ms;
	auth_ticket(a, "s1", "alice", role, 60, reusable, 0, ret, &expires_ms);
}

static void make_cookie(struct auth *a, const char *subject, enum role role, char ret[COOKIE_BYTES])
{
	struct principal p = { .role = role };
	snprintf(p.subject, sizeof(p.subject), "%s", subject);
	auth_cookie(a, "s1", &p, ret);
}

/* Nothing is granted, and nothing is left to be spent. */
static void assert_nobody(const struct principal *p)
{
	static const struct principal nobody;
	assert_int_equal(p->role, ROLE_NONE);
	assert_string_equal(p->subject, "");
	assert_string_equal(p->spend, "");
	assert_int_equal(p->ticket.role, nobody.ticket.role);
	assert_false(p->by_ticket || p->by_cookie);
}

static void every_replica_takes_a_reusable_ticket(void **state)
{
	(void)state;
	struct auth *a = replica(key), *b = replica(key), *stranger = replica(other_key);
	char ticket[TICKET_BYTES];
	struct principal p;
	make_ticket(a, ROLE_WRITE, true, ticket);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(check(b, ticket, NULL, &p), 0);
		assert_string_equal(p.subject, "alice");
		assert_string_equal(p.session, "s1");
		assert_int_equal(p.role, ROLE_WRITE);
		assert_string_equal(p.spend, "");
	}
	assert_int_equal(check(stranger, ticket, NULL, &p), -EACCES);
	auth_destroy(a);
	auth_destroy(b);
	auth_destroy(stranger);
}

static void a_single_use_ticket_grants_nothing_before_it_is_spent(void **state)
{
	(void)state;
	struct auth *a = replica(key), *b = replica(key);
	char ticket[TICKET_BYTES], name[33];
	struct principal p;
	make_ticket(a, ROLE_VIEW, false, ticket);
	assert_int_equal(check(b, ticket, NULL, &p), 0);
	assert_int_equal(p.role, ROLE_NONE);
	assert_string_equal(p.subject, "");
	assert_false(p.by_ticket);
	assert_int_equal(strspn(p.spend, "0123456789abcdef"), 2 * TICKET_NONCE_BYTES);
	assert_int_equal(strlen(p.spend), 2 * TICKET_NONCE_BYTES);
	/* For longer than it is good, as clocks differ. */
	assert_true(p.spend_ttl_ms > 110000 && p.spend_ttl_ms <= 120000);
	assert_int_equal(metric_get(METRIC_TICKETS), 0);
	strcpy(name, p.spend);

	assert_int_equal(auth_spent(&p, 0, NULL), 0);
	assert_string_equal(p.subject, "alice");
	assert_string_equal(p.session, "s1");
	assert_int_equal(p.role, ROLE_VIEW);
	assert_int_equal(p.expires_ms, 0);
	assert_true(p.by_ticket);
	assert_false(p.by_cookie);
	assert_string_equal(p.spend, "");

	/* At another replica it has the same name; another ticket has another. */
	assert_int_equal(check(a, ticket, NULL, &p), 0);
	assert_string_equal(p.spend, name);
	make_ticket(a, ROLE_VIEW, false, ticket);
	assert_int_equal(check(a, ticket, NULL, &p), 0);
	assert_string_not_equal(p.spend, name);
	auth_destroy(a);
	auth_destroy(b);
}

static void ends_what_it_opens_with_its_makers_credential(void **state)
{
	(void)state;
	struct auth *a = replica(key);
	char ticket[TICKET_BYTES];
	struct principal p;
	int64_t until_ms = now_ms() + 30000, expires_ms;
	auth_ticket(a, "s1", "alice", ROLE_VIEW, 3600, false, until_ms, ticket, &expires_ms);
	assert_int_equal(expires_ms, until_ms);
	assert_int_equal(check(a, ticket, NULL, &p), 0);
	assert_true(p.spend_ttl_ms <= 90000);
	assert_int_equal(auth_spent(&p, 0, NULL), 0);
	assert_int_equal(p.expires_ms, until_ms);
	auth_destroy(a);
}

static void one_that_was_spent_is_refused(void **state)
{
	(void)state;
	struct auth *a = replica(key);
	char ticket[TICKET_BYTES];
	struct principal p;
	struct error err = { 0 };
	make_ticket(a, ROLE_WRITE, false, ticket);
	assert_int_equal(check(a, ticket, NULL, &p), 0);
	assert_int_equal(auth_spent(&p, -EEXIST, &err), -EACCES);
	assert_string_equal(err.text,
			    "the ticket is unknown, spent, expired or for another session");
	assert_nobody(&p);
	auth_destroy(a);
}

static void when_the_store_cannot_be_asked_nothing_is_granted(void **state)
{
	(void)state;
	static const int statuses[] = { -EHOSTUNREACH, -ENOSPC, -ENOMEM };
	struct auth *a = replica(key);
	char ticket[TICKET_BYTES], cookie[COOKIE_BYTES];
	make_ticket(a, ROLE_WRITE, false, ticket);
	make_cookie(a, "alice", ROLE_VIEW, cookie);
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
		struct principal p;
		struct error err = { 0 };
		assert_int_equal(check(a, ticket, i == 0 ? NULL : cookie, &p), 0);
		assert_int_equal(auth_spent(&p, statuses[i], &err), -EAGAIN);
		assert_string_equal(err.text, "whether the ticket is spent cannot be asked now");
		assert_nobody(&p);
	}
	auth_destroy(a);
}

static void a_cookie_that_grants_as_much_needs_no_spending(void **state)
{
	(void)state;
	struct auth *a = replica(key), *b = replica(key);
	char ticket[TICKET_BYTES], cookie[COOKIE_BYTES];
	struct principal p;
	make_ticket(a, ROLE_VIEW, false, ticket);
	make_cookie(a, "alice", ROLE_VIEW, cookie);
	assert_int_equal(check(b, ticket, cookie, &p), 0);
	assert_string_equal(p.spend, "");
	assert_true(p.by_cookie);
	assert_int_equal(p.role, ROLE_VIEW);
	auth_destroy(a);
	auth_destroy(b);
}

static void a_better_ticket_decides_or_else_the_cookie_beside_it(void **state)
{
	(void)state;
	static const struct {
		const char *subject;
		enum role role;
	} cookies[] = { { "alice", ROLE_VIEW }, { "bob", ROLE_WRITE } };
	struct auth *a = replica(key), *b = replica(key);
	char ticket[TICKET_BYTES], cookie[COOKIE_BYTES];
	make_ticket(a, ROLE_WRITE, false, ticket);
	for (size_t i = 0; i < 2; i++) {
		struct principal p;
		make_cookie(a, cookies[i].subject, cookies[i].role, cookie);
		/* Until it is spent, and when it was: what the cookie grants. */
		assert_int_equal(check(b, ticket, cookie, &p), 0);
		int64_t end_ms = p.expires_ms;
		assert_true(end_ms > now_ms());
		for (int spent = 0; spent < 2; spent++) {
			assert_string_equal(p.subject, cookies[i].subject);
			assert_string_equal(p.session, "s1");
			assert_int_equal(p.role, cookies[i].role);
			assert_int_equal(p.expires_ms, end_ms);
			assert_true(p.by_cookie);
			assert_false(p.by_ticket);
			if (spent == 0)
				assert_int_equal(auth_spent(&p, -EEXIST, NULL), 0);
		}
		assert_string_equal(p.spend, "");

		assert_int_equal(check(b, ticket, cookie, &p), 0);
		assert_int_equal(auth_spent(&p, 0, NULL), 0);
		assert_string_equal(p.subject, "alice");
		assert_int_equal(p.role, ROLE_WRITE);
		assert_int_equal(p.expires_ms, 0);
		assert_true(p.by_ticket);
		assert_false(p.by_cookie);
	}
	auth_destroy(a);
	auth_destroy(b);
}

static void a_ticket_is_no_cookie_and_a_cookie_no_ticket(void **state)
{
	(void)state;
	struct auth *a = replica(key);
	char ticket[TICKET_BYTES], cookie[COOKIE_BYTES];
	struct principal p;
	make_ticket(a, ROLE_WRITE, true, ticket);
	make_cookie(a, "alice", ROLE_WRITE, cookie);
	assert_int_equal(check(a, ticket, NULL, &p), 0);
	assert_int_equal(check(a, NULL, cookie, &p), 0);
	assert_int_equal(check(a, cookie, ticket, &p), -EACCES);
	auth_destroy(a);
}

static void one_process_alone_takes_no_shared_ticket(void **state)
{
	(void)state;
	struct auth *a = replica(key), *alone = NULL;
	assert_int_equal(auth_create(&cfg, key, &alone, NULL), 0);
	char ticket[TICKET_BYTES], own[TICKET_BYTES];
	struct principal p;
	make_ticket(a, ROLE_WRITE, true, ticket);
	make_ticket(alone, ROLE_WRITE, true, own);
	assert_int_equal(check(alone, ticket, NULL, &p), -EACCES);
	assert_int_equal(check(a, own, NULL, &p), -EACCES);
	assert_int_equal(check(alone, own, NULL, &p), 0);
	auth_destroy(a);
	auth_destroy(alone);
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_written_as_it_is_documented),
		cmocka_unit_test(reads_back_what_it_wrote),
		cmocka_unit_test(every_replica_takes_a_reusable_ticket),
		cmocka_unit_test(a_single_use_ticket_grants_nothing_before_it_is_spent),
		cmocka_unit_test(ends_what_it_opens_with_its_makers_credential),
		cmocka_unit_test(one_that_was_spent_is_refused),
		cmocka_unit_test(when_the_store_cannot_be_asked_nothing_is_granted),
		cmocka_unit_test(a_cookie_that_grants_as_much_needs_no_spending),
		cmocka_unit_test(a_better_ticket_decides_or_else_the_cookie_beside_it),
		cmocka_unit_test(a_ticket_is_no_cookie_and_a_cookie_no_ticket),
		cmocka_unit_test(one_process_alone_takes_no_shared_ticket),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
