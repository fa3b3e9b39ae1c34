#!/bin/sh
# Who includes whom: handlers -> service -> {tunnel, providers, store} -> wire; agent -> wire.
# Only service/main.c, which wires the parts, may name the handlers. service/error.h,
# log.h and metrics.h, which include nothing of ours, are for tunnel/, providers/ and store/ too.
set -eu
cd "$(dirname "$0")/.."
failed=0
check() { # check FOLDER MAY-NOT-INCLUDE...
	folder=$1
	shift
	[ -d "$folder" ] || return 0
	for other in "$@"; do
		if grep -rn --include='*.[ch]' "^#include \"$other/" "$folder" |
			grep -v -e '^service/main\.c:.*"handlers/' \
				-e '^\(tunnel\|providers\|store\)/.*"service/\(error\|log\|metrics\)\.h"'; then
			echo "$folder/ may not include $other/ (see HACKING.md)" >&2
			failed=1
		fi
	done
}
check wire service handlers tunnel providers store agent
check agent service handlers tunnel providers store
check tunnel service handlers providers store agent
check providers service handlers tunnel store agent
check store service handlers tunnel providers agent
check service handlers agent
check handlers agent
exit $failed
