/* runloop_script.c -- see runloop_script.h. What the scripts say is for runloop_script_read().
 *
 * They run under dash, bash and busybox. Their variables begin with pc_, for a variable that came by the
 * environment goes on to the agent. The agent is DIRECTORY/ptycast-agent-HASH, where DIRECTORY is the first of
 * these that we may write to and execute from; the first that we may write to has the registration file. */
#include "providers/runloop_script.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Arguments: hash and size for x86_64, hash and size for arm64 (a hash is empty where there is no agent), the
 * name of the upload. */
static const char common[] =
	"pc_mask=$(umask); umask 077; set -f; unset IFS\n"
	"pc_uid=$(id -u); pc_machine=$(uname -m); pc_hash=; pc_upload=${5-}\n"
	"case $pc_machine in\n"
	"x86_64|amd64) pc_arch=x86_64; pc_hash=$1; pc_size=$2;;\n"
	"aarch64|arm64) pc_arch=arm64; pc_hash=$3; pc_size=$4;;\n"
	"esac\n"
	"if [ -z \"$pc_hash\" ]; then printf 'ptycast: arch %s\\n' \"$pc_machine\"; exit 0; fi\n"
	"pc_short=${pc_hash%\"${pc_hash#????????????????}\"}\n"
	"pc_name=ptycast-agent-$pc_short; pc_state=; pc_lib=/usr/local/lib/ptycast\n"
	"set -- \"/tmp/ptycast-$pc_uid\" \"/var/tmp/ptycast-$pc_uid\" \"/dev/shm/ptycast-$pc_uid\"\n"
	"case ${HOME-} in /*) set -- \"$HOME/.ptycast\" \"$@\";; esac\n"
	"pc_fail() { printf 'ptycast: error %s\\n' \"$1\"; exit 1; }\n"
	/* pc_is DIRECTORY MODE UID: so it is, and no link. */
	"pc_is() {\n"
	"	pc_want=$2; pc_owner=$3\n"
	"	set -- $(ls -ldn \"$1\" 2>/dev/null)\n"
	"	case ${1-} in \"$pc_want\"*) [ \"$3\" = \"$pc_owner\" ];; *) false;; esac\n"
	"}\n"
	/* pc_ours DIRECTORY: it is, or is now, ours alone, and can be written to. */
	"pc_ours() {\n"
	"	[ ! -h \"$1\" ] || return 1\n"
	"	[ -d \"$1\" ] || mkdir -m 700 \"$1\" 2>/dev/null || [ -d \"$1\" ] || return 1\n"
	"	pc_is \"$1\" drwx------ \"$pc_uid\" || {\n"
	"		pc_is \"$1\" d \"$pc_uid\" && chmod 700 \"$1\" 2>/dev/null &&\n"
	"			pc_is \"$1\" drwx------ \"$pc_uid\"\n"
	"	} || return 1\n"
	"	( : >\"$1/.write-$$\" ) 2>/dev/null && rm -f \"$1/.write-$$\"\n"
	"}\n"
	/* pc_good FILE: it is the agent. */
	"pc_good() {\n"
	"	[ -f \"$1\" ] && [ ! -h \"$1\" ] && [ -r \"$1\" ] || return 1\n"
	"	if command -v sha256sum >/dev/null 2>&1; then\n"
	"		pc_sum=$(sha256sum <\"$1\"); [ \"${pc_sum%% *}\" = \"$pc_hash\" ]\n"
	"	else\n"
	"		[ \"$(wc -c <\"$1\")\" -eq \"$pc_size\" ]\n"
	"	fi\n"
	"}\n"
	/* pc_runs DIRECTORY: programs can be executed from there. */
	"pc_runs() {\n"
	"	printf '#!/bin/sh\\n' >\"$1/.run-$$\" && chmod 700 \"$1/.run-$$\" && \"$1/.run-$$\"\n"
	"	pc_rc=$?; rm -f \"$1/.run-$$\"; return $pc_rc\n"
	"} 2>/dev/null\n"
	/* pc_run FILE: ends the script, or returns when nothing can be executed where it is. */
	"pc_run() {\n"
	"	( umask \"$pc_mask\"\n"
	"	exec \"$1\" --mode=agent --registration=\"$pc_state/agent-$pc_short.json\" --reader-stall=5s \\\n"
	"		</dev/null 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- )\n"
	"	pc_rc=$?\n"
	"	case $pc_rc in 0) exit 0;; 126|127) pc_runs \"${1%/*}\" || return 1;; esac\n"
	"	pc_fail \"start its status was $pc_rc\"\n"
	"}\n";

static const char start[] =
	"for pc_dir; do\n"
	"	[ -z \"$pc_state\" ] || [ -d \"$pc_dir\" ] || continue\n"
	"	pc_ours \"$pc_dir\" || continue\n"
	"	[ -n \"$pc_state\" ] || pc_state=$pc_dir\n"
	"	if pc_is \"$pc_dir/$pc_name\" -rwxr-xr-x \"$pc_uid\" && pc_good \"$pc_dir/$pc_name\"; then pc_run \"$pc_dir/$pc_name\"; fi\n"
	"done\n"
	"[ -n \"$pc_state\" ] || pc_fail 'install no directory can be written to'\n"
	"if pc_is \"$pc_lib\" drwxr-xr-x 0 && pc_is \"$pc_lib/$pc_name\" -rwxr-xr-x 0 &&\n"
	"	pc_good \"$pc_lib/$pc_name\"; then\n"
	"	pc_run \"$pc_lib/$pc_name\"\n"
	"fi\n"
	"printf 'ptycast: need %s\\n' \"$pc_arch\"\n";

static const char install[] =
	"pc_sudo='sudo -n'; [ \"$pc_uid\" != 0 ] || pc_sudo=\n"
	"pc_src=\n"
	"pc_clean() {\n"
	"	rm -f \"$pc_src\" \"$pc_new\" 2>/dev/null && return\n"
	"	$pc_sudo rm -f \"$pc_src\" \"$pc_new\" 2>/dev/null\n"
	"}\n"
	"for pc_dir in . \"${HOME-}\" \"$(getent passwd \"$pc_uid\" 2>/dev/null | cut -d: -f6)\"; do\n"
	"	if [ -f \"$pc_dir/$pc_upload\" ]; then pc_src=$pc_dir/$pc_upload; break; fi\n"
	"done\n"
	"[ -n \"$pc_src\" ] || pc_fail 'install the uploaded file was not found'\n"
	"pc_new=$pc_src; trap pc_clean EXIT\n"
	/* Of uploads that were given up, and written all the same. */
	"find \"${pc_src%/*}\" -maxdepth 1 -name '.ptycast-upload-*' -mmin +60 -exec rm -f {} + 2>/dev/null\n"
	"pc_cat=cat; [ -r \"$pc_src\" ] || pc_cat='sudo -n cat'\n"
	"for pc_dir; do\n"
	"	pc_ours \"$pc_dir\" || continue\n"
	"	[ -n \"$pc_state\" ] || pc_state=$pc_dir\n"
	"	pc_new=$pc_dir/.new-$pc_upload\n"
	"	$pc_cat \"$pc_src\" >\"$pc_new\" || { rm -f \"$pc_new\"; continue; }\n"
	"	pc_good \"$pc_new\" || pc_fail 'install the upload has another checksum'\n"
	"	chmod 755 \"$pc_new\" && mv -f \"$pc_new\" \"$pc_dir/$pc_name\" || continue\n"
	"	pc_run \"$pc_dir/$pc_name\"\n"
	"done\n"
	"[ -n \"$pc_state\" ] || pc_fail 'install no directory can be written to'\n"
	"pc_new=$pc_lib/.new-$pc_upload\n"
	"if { [ -z \"$pc_sudo\" ] || command -v sudo >/dev/null 2>&1; } &&\n"
	"	$pc_sudo mkdir -p \"$pc_lib\" && $pc_sudo chmod 755 \"$pc_lib\" &&\n"
	"	$pc_sudo cp \"$pc_src\" \"$pc_new\" && $pc_sudo chmod 755 \"$pc_new\" &&\n"
	"	pc_good \"$pc_new\" && $pc_sudo mv -f \"$pc_new\" \"$pc_lib/$pc_name\"; then\n"
	"	pc_run \"$pc_lib/$pc_name\"\n"
	"fi\n"
	"pc_fail 'install no directory can be executed from'\n";

/* Where it may be: the home directory by any of its names. */
static const char remove_upload[] =
	"for pc_dir in . \"${HOME-}\" \"$(getent passwd \"$(id -u)\" 2>/dev/null | cut -d: -f6)\"; do\n"
	"	[ ! -f \"$pc_dir/$1\" ] || rm -f \"$pc_dir/$1\" || sudo -n rm -f \"$pc_dir/$1\"\n"
	"done\n";

/* A process that has ended and waits for its parent is gone too. Its program is not readable to another user:
 * then its number has to do. */
static const char alive[] =
	"if [ ! -d /proc/self ]; then kill -0 \"$1\" 2>/dev/null; pc_rc=$?\n"
	"else\n"
	"	pc_rc=1\n"
	"	pc_stat=$(cat \"/proc/$1/stat\" 2>/dev/null)\n"
	"	pc_exe=$(readlink \"/proc/$1/exe\" 2>/dev/null)\n"
	"	case \"${pc_stat##*) }\" in ''|Z*|X*) ;; *)\n"
	"		case $pc_exe in ''|*/ptycast-agent-*) pc_rc=0;; esac;;\n"
	"	esac\n"
	"fi\n"
	"if [ $pc_rc = 0 ]; then echo 'ptycast: alive'; else echo 'ptycast: gone'; fi\n";

/* Arguments: columns, rows, directory, number of NAME=VALUE, these, the command. */
static const char pty_tunnel[] =
	"pc_cols=$1; pc_rows=$2; pc_cwd=$3; pc_env=$4; shift 4\n"
	"if ! pc_server=$(command -v pty-tunnel-server); then\n"
	"	echo 'pty-tunnel-server is not in the sandbox' >&2; exit 127\n"
	"fi\n"
	"TERM=xterm-256color; export TERM; unset CDPATH\n"
	"if [ -n \"$pc_cwd\" ]; then cd -- \"$pc_cwd\" || exit 1; fi\n"
	"while [ \"$pc_env\" -gt 0 ]; do export \"$1\"; shift; pc_env=$((pc_env - 1)); done\n"
	"if [ $# = 0 ]; then\n"
	"	if command -v bash >/dev/null 2>&1; then set -- bash; else set -- sh; fi\n"
	"fi\n"
	"exec \"$pc_server\" --mode=client \"--cols=$pc_cols\" \"--rows=$pc_rows\" -- \"$@\"\n";

/* ---- commands ---- */

/* As it stands between single quotes. */
static void put_inside(FILE *out, const char *text)
{
	for (const char *at = text; *at != '\0'; at++) {
		if (*at == '\'')
			fputs("'\\''", out);
		else
			fputc(*at, out);
	}
}

static void put_quoted(FILE *out, const char *text)
{
	fputc('\'', out);
	put_inside(out, text);
	fputc('\'', out);
}

/* A command that is being written. */
struct command {
	FILE *out; /* NULL without memory */
	char *text;
	size_t size;
};

static void command_begin(struct command *c)
{
	*c = (struct command){ 0 };
	c->out = open_memstream(&c->text, &c->size);
}

static char *command_end(struct command *c)
{
	if (c->out == NULL)
		return NULL;
	bool failed = ferror(c->out) != 0;
	if (fclose(c->out) != 0 || failed) {
		free(c->text);
		return NULL;
	}
	return c->text;
}

static void command_argument(struct command *c, const char *text)
{
	if (c->out == NULL)
		return;
	fputc(' ', c->out);
	put_quoted(c->out, text);
}

static void command_number(struct command *c, uint64_t number)
{
	char text[24];
	snprintf(text, sizeof(text), "%" PRIu64, number);
	command_argument(c, text);
}

/* The script is both texts, one behind the other. */
static void command_script(struct command *c, const char *first, const char *second)
{
	command_begin(c);
	if (c->out == NULL)
		return;
	fputs("sh -c '", c->out);
	put_inside(c->out, first);
	put_inside(c->out, second);
	fputs("' ptycast", c->out);
}

char *sh_quote(const char *text)
{
	struct command c;
	command_begin(&c);
	if (c.out != NULL)
		put_quoted(c.out, text);
	return command_end(&c);
}

static void command_agents(struct command *c, const struct runloop_agent agents[RUNLOOP_ARCH_COUNT])
{
	for (size_t i = 0; i < RUNLOOP_ARCH_COUNT; i++) {
		command_argument(c, agents[i].data == NULL ? "" : agents[i].hash);
		command_number(c, agents[i].size);
	}
}

char *runloop_script_start(const struct runloop_agent agents[RUNLOOP_ARCH_COUNT])
{
	struct command c;
	command_script(&c, common, start);
	command_agents(&c, agents);
	return command_end(&c);
}

char *runloop_script_install(const struct runloop_agent agents[RUNLOOP_ARCH_COUNT],
			     const char *upload)
{
	struct command c;
	command_script(&c, common, install);
	command_agents(&c, agents);
	command_argument(&c, upload);
	return command_end(&c);
}

char *runloop_script_remove(const char *upload)
{
	struct command c;
	command_script(&c, remove_upload, "");
	command_argument(&c, upload);
	return command_end(&c);
}

char *runloop_script_alive(uint64_t pid)
{
	struct command c;
	command_script(&c, alive, "");
	command_number(&c, pid);
	return command_end(&c);
}

char *runloop_script_pty_tunnel(const struct pty_request *request)
{
	struct command c;
	command_script(&c, pty_tunnel, "");
	command_number(&c, request->cols);
	command_number(&c, request->rows);
	command_argument(&c, request->cwd == NULL ? "" : request->cwd);
	uint64_t env_count = 0;
	while (request->env != NULL && request->env[env_count] != NULL)
		env_count++;
	command_number(&c, env_count);
	for (uint64_t i = 0; i < env_count; i++)
		command_argument(&c, request->env[i]);
	for (const char *const *at = request->command; at != NULL && *at != NULL; at++)
		command_argument(&c, *at);
	return command_end(&c);
}
