/* redis_script.c -- see redis_script.h. Lua 5.1 as Redis has it: its numbers are doubles, so 64 bits are compared in halves,
 * and not as texts, for which it asks the server's locale.
 *
 * A script of which the first write needs no memory (HDEL, DEL) is carried out on a full server, too; others are
 * refused there before they changed anything. */
#include "store/redis_script.h"

#define HALVES                     \
	"local function halves(h)" \
	" return tonumber(string.sub(h, 1, 8), 16), tonumber(string.sub(h, 9, 16), 16) end "

#define LESS                                                        \
	HALVES "local function less(a, b)"                          \
	       " local ah, al = halves(a) local bh, bl = halves(b)" \
	       " return ah < bh or (ah == bh and al < bl) end "

/* Writes count pairs of ARGV from first on, and removes the fields that are named behind them. */
#define WRITE                                                                      \
	"local function write(first, count)"                                       \
	" redis.call('HSET', KEYS[1], unpack(ARGV, first, first + 2 * count - 1))" \
	" if ARGV[first + 2 * count] then"                                         \
	" redis.call('HDEL', KEYS[1], unpack(ARGV, first + 2 * count)) end end "

/* Where it is noted that a creation was deleted: an owner that does not know yet must not write it anew. The tag is
 * that of the record. */
#define GONE "local gone = 'ptycast:gone' .. string.sub(KEYS[1], 16) "

/* Of two creations the later one stays: by the clock when they are more than a minute apart, else by fence, which a
 * creation that replaces another has above it. */
#define PUT_SESSION                                                                               \
	LESS WRITE GONE "local r = redis.call('HMGET', KEYS[1], 'birth', 'fence', 'created_ms') " \
			"local birth, fence, created = ARGV[1], ARGV[2], tonumber(ARGV[3]) "      \
			"if redis.call('GET', gone) == birth then return 0 end "                  \
			"if r[1] == birth then"                                                   \
			" if less(fence, r[2]) then return 0 end "                                \
			"elseif r[1] then"                                                        \
			" local ahead = tonumber(r[3]) - created"                                 \
			" if math.abs(ahead) > 60000 then if ahead > 0 then return 0 end"         \
			" elseif r[2] ~= fence then if less(fence, r[2]) then return 0 end"       \
			" elseif ahead ~= 0 then if ahead > 0 then return 0 end"                  \
			" elseif less(birth, r[1]) then return 0 end "                            \
			"end "                                                                    \
			"write(6, tonumber(ARGV[5])) "                                            \
			"if ARGV[4] == '0' then redis.call('PERSIST', KEYS[1])"                   \
			" else redis.call('PEXPIRE', KEYS[1], ARGV[4]) end "                      \
			"return 1"

#define DELETE_SESSION                                                                   \
	LESS GONE "local r = redis.call('HMGET', KEYS[1], 'birth', 'fence', 'subject') " \
		  "if not r[1] then return '' end "                                      \
		  "if r[1] ~= ARGV[1] or less(ARGV[2], r[2]) then return 0 end "         \
		  "redis.call('DEL', KEYS[1]) "                                          \
		  "redis.pcall('SET', gone, r[1], 'PX', 600000) "                        \
		  "return '=' .. (r[3] or '')"

#define CREATE_SESSION                                                                             \
	HALVES                                                                                     \
	"local r = redis.call('HMGET', KEYS[1], 'birth', 'fence', 'ended', 'closing', 'subject') " \
	"local fence = '0000000000000001' "                                                        \
	"if r[1] then"                                                                             \
	" if r[1] == ARGV[1] then return {'made', r[2]} end"                                       \
	" if (r[3] ~= '1' and r[4] ~= '1') or (r[5] or '') ~= ARGV[3] then"                        \
	" return {'known', redis.call('HGETALL', KEYS[1])} end"                                    \
	" local high, low = halves(r[2])"                                                          \
	" low = low + 1 if low == 4294967296 then high, low = high + 1, 0 end"                     \
	" fence = string.format('%08x%08x', high, low)"                                            \
	" redis.call('DEL', KEYS[1]) "                                                             \
	"elseif ARGV[2] ~= '1' then return {'missing'} end "                                       \
	"redis.call('HSET', KEYS[1], unpack(ARGV, 4)) "                                            \
	"redis.call('HSET', KEYS[1], 'fence', fence) "                                             \
	"return {'made', fence}"

/* Who asks once more because no answer came gets the same answer. */
#define TAKE_SESSION                                                             \
	LESS "local r = redis.call('HMGET', KEYS[1], 'owner', 'fence') "         \
	     "if not r[2] then return false end "                                \
	     "if r[1] ~= ARGV[2] or r[2] ~= ARGV[3] then"                        \
	     " if r[1] ~= ARGV[1] or not less(r[2], ARGV[3]) then return 0 end"  \
	     " redis.call('HDEL', KEYS[1], 'owner')"                             \
	     " redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'fence', ARGV[3]) " \
	     "end "                                                              \
	     "return redis.call('HGETALL', KEYS[1])"

#define RESEAL_SESSION                                                           \
	"local r = redis.call('HMGET', KEYS[1], 'birth', 'endpoint', 'target') " \
	"if not r[1] then return 0 end "                                         \
	"local function are(i)"                                                  \
	" return r[2] == (ARGV[i] == '1' and ARGV[i + 1])"                       \
	" and r[3] == (ARGV[i + 2] == '1' and ARGV[i + 3]) end "                 \
	"if are(5) then return 1 end "                                           \
	"if not are(1) then return 0 end "                                       \
	"for i, field in ipairs({'endpoint', 'target'}) do"                      \
	" if ARGV[3 + 2 * i] == '1'"                                             \
	" then redis.call('HSET', KEYS[1], field, ARGV[4 + 2 * i])"              \
	" else redis.call('HDEL', KEYS[1], field) end end "                      \
	"return 1"

#define INSERT_SANDBOX                                            \
	"local change = redis.call('HGET', KEYS[1], 'change') "   \
	"if change then return change == ARGV[1] and 1 or 0 end " \
	"redis.call('HSET', KEYS[1], 'change', unpack(ARGV)) "    \
	"return 1"

#define UPDATE_SANDBOX                                                             \
	WRITE                                                                      \
	"local r = redis.call('HMGET', KEYS[1], 'change', 'revision', 'subject') " \
	"if not r[1] then return false end "                                       \
	"if r[1] ~= ARGV[1] then"                                                  \
	" if r[2] ~= ARGV[2] then return 0 end"                                    \
	" write(4, tonumber(ARGV[3]))"                                             \
	" redis.call('HSET', KEYS[1], 'change', ARGV[1],"                          \
	" 'revision', string.format('%.0f', tonumber(r[2]) + 1)) "                 \
	"end "                                                                     \
	"return '=' .. (r[3] or '')"

#define DELETE_SANDBOX                                                 \
	"local r = redis.call('HMGET', KEYS[1], 'change', 'subject') " \
	"if not r[1] then return false end "                           \
	"redis.call('DEL', KEYS[1]) "                                  \
	"return '=' .. (r[2] or '')"

const char *const redis_scripts[REDIS_SCRIPT_COUNT] = {
	[REDIS_PUT_SESSION] = PUT_SESSION,       [REDIS_DELETE_SESSION] = DELETE_SESSION,
	[REDIS_CREATE_SESSION] = CREATE_SESSION, [REDIS_TAKE_SESSION] = TAKE_SESSION,
	[REDIS_RESEAL_SESSION] = RESEAL_SESSION, [REDIS_INSERT_SANDBOX] = INSERT_SANDBOX,
	[REDIS_UPDATE_SANDBOX] = UPDATE_SANDBOX, [REDIS_DELETE_SANDBOX] = DELETE_SANDBOX,
};
