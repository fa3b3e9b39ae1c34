#!/bin/sh
# setup.sh build|test|lint|bench: installs what that needs and is missing. Debian 12's packages by
# apt (as root or by sudo), node_modules by npm. When nothing is missing it only looks, and uses
# no network.
set -eu
cd "$(dirname "$0")/.."

build="gcc libc6-dev make pkg-config libmicrohttpd-dev libwebsockets-dev
	libwebsockets-evlib-uv libuv1-dev libjwt-dev libjansson-dev libsodium-dev libsqlite3-dev
	libcurl4-openssl-dev libhiredis-dev musl-tools"
test="libcmocka-dev clang libclang-rt-14-dev chromium fonts-dejavu-core gcc-aarch64-linux-gnu
	libc6-dev-arm64-cross qemu-user-static util-linux procps busybox-static redis-server"
lint="clang clang-format clang-tidy cppcheck libcmocka-dev"

case ${1-} in
build) packages=$build ;;
test) packages="$build $test" ;;
lint) packages="$build $lint" ;;
bench) packages=$build ;;
*)
	echo "usage: scripts/setup.sh build|test|lint|bench" >&2
	exit 2
	;;
esac

# Node may come from anywhere; 18.19 (Debian 12 has a newer 18) is the first whose test runner
# takes --test-concurrency.
node_version=$(node --version 2>/dev/null || echo v0)
node_major=${node_version#v}
node_minor=${node_major#*.}
node_major=${node_major%%.*}
node_minor=${node_minor%%.*}
if [ "$node_major" -lt 18 ] || { [ "$node_major" -eq 18 ] && [ "$node_minor" -lt 19 ]; }; then
	packages="$packages nodejs npm"
elif ! command -v npm >/dev/null; then
	packages="$packages npm"
fi

missing=
if command -v dpkg-query >/dev/null; then
	# shellcheck disable=SC2086 # a list of words
	installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' $packages 2>/dev/null || true)
	for package in $packages; do
		case "
$installed
" in
		*"
$package installed
"*) ;;
		*) missing="$missing $package" ;;
		esac
	done
else
	echo "setup: no dpkg here; ptycast is built on Debian 12 with these packages:" $packages >&2
fi

if [ -n "$missing" ]; then
	if [ "$(id -u)" -eq 0 ]; then
		as_root="env"
	elif sudo -n true 2>/dev/null || { [ -t 0 ] && command -v sudo >/dev/null; }; then
		as_root="sudo env"
	else
		echo "setup: these packages are missing, and there is neither root nor sudo:" >&2
		printf '  %s\n' $missing >&2
		echo "Install them, then run make again:" >&2
		echo "  apt-get update && apt-get install --no-install-recommends$missing" >&2
		exit 1
	fi
	echo "setup: installing$missing"
	log=$(mktemp)
	apt() {
		# shellcheck disable=SC2086
		$as_root DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq "$@" \
			>"$log" 2>&1 </dev/null || {
			cat "$log" >&2
			echo "setup: apt-get $1 failed" >&2
			exit 1
		}
	}
	apt update
	# shellcheck disable=SC2086
	apt install -y --no-install-recommends $missing
	rm -f "$log"
fi

if ! cmp -s package-lock.json node_modules/.ptycast-lock; then
	echo "setup: installing node_modules"
	npm ci --no-audit --no-fund --loglevel=error </dev/null >/dev/null
	cp package-lock.json node_modules/.ptycast-lock
fi
