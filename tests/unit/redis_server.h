/* redis_server.h -- a real redis-server for the tests of store/: on a port of its own on loopback, in a new
 * directory, without saving unless the options say so. It ends with the program, however that ends. Failures
 * end the program. Thread: the one that started it must live as long as it. */
#pragma once

#include <stdint.h>

struct redis_server;
struct redisReply;

/* options: more arguments of redis-server ("--maxmemory", "4mb"), NULL at the end; NULL: none; copied. Returns
 * once it answers and has loaded what it had to. */
struct redis_server *redis_server_start(const char *const *options);
/* Ends it and removes its directory. NULL is allowed. */
void redis_server_stop(struct redis_server *s);

void redis_server_kill(struct redis_server *s);      /* kill -9, and waits for its end */
void redis_server_terminate(struct redis_server *s); /* SIGTERM: it saves when it is told to */
/* After one of the two: again on the same port, with what is in its directory. */
void redis_server_restart(struct redis_server *s);
void redis_server_freeze(struct redis_server *s); /* SIGSTOP; the kernel still takes connections */
void redis_server_thaw(struct redis_server *s);

uint16_t redis_server_port(const struct redis_server *s);
const char *redis_server_location(const struct redis_server *s); /* "//127.0.0.1:PORT" */

/* What redisCommand() gives, for freeReplyObject(), on a connection of its own, which is made anew after a
 * restart; as user and password of redis_server_login() where one was given. Not while it is frozen. */
struct redisReply *redis_server_command(struct redis_server *s, const char *format, ...);
void redis_server_login(struct redis_server *s, const char *user, const char *password);

/* The same for commands of which nothing but success, or a number, matters. Text and status: 0. */
long long redis_server_do(struct redis_server *s, const char *format, ...);
