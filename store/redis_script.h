/* redis_script.h -- the scripts that compare before they change. Each touches the key that it is given alone. Numbers of 64
 * bits are 16 hex digits. */
#pragma once

enum redis_script {
	/* birth fence created_ms ttl_ms N (field value)*N field...: writes the fields, removes those behind; ttl_ms
	 * 0: the record stays. 1; 0: the record there is of a newer creation, or has a higher fence. */
	REDIS_PUT_SESSION,
	/* birth fence: "": was not there; 0: as above; else what its subject was, behind a "=". */
	REDIS_DELETE_SESSION,
	/* birth may_make subject (field value)...: {"made", fence}; {"known", fields}; {"missing"}: it would be
	 * made, but may_make is 0. */
	REDIS_CREATE_SESSION,
	/* owner me fence: fields; 0: another owner, or no lower fence; nil: none. */
	REDIS_TAKE_SESSION,
	/* (1 endpoint) (1 target), as seen, and again as they shall be, each "0" "" when there is none: 1; 0: they are
	 * not as seen. */
	REDIS_RESEAL_SESSION,
	/* change (field value)...: 1; 0: there is one. */
	REDIS_INSERT_SANDBOX,
	/* change revision N (field value)*N field...: the subject before, behind a "="; 0: another revision;
	 * nil: none. */
	REDIS_UPDATE_SANDBOX,
	/* Its subject, behind a "="; nil: none. */
	REDIS_DELETE_SANDBOX,
	REDIS_SCRIPT_COUNT
};

extern const char *const redis_scripts[REDIS_SCRIPT_COUNT];
