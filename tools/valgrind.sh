#!/bin/sh
# Runs the C function of internal/zsock under valgrind's memcheck, driven by a
# program in C: Go's own runtime and valgrind do not go together. Ends with 1 at
# the first sort of error: a byte read or written astray, one used before it was
# set, a block that nobody can free any more.
set -eu
cd "$(dirname "$0")/.."

fail() {
	printf 'valgrind: %s\n' "$*" >&2
	exit 1
}
if ! command -v valgrind >/dev/null 2>&1; then
	cmd="apt-get update; DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends valgrind libc6-dbg"
	command -v apt-get >/dev/null 2>&1 || fail "it is missing: install the package valgrind"
	as=
	[ "$(id -u)" = 0 ] || as="sudo -n"
	echo "valgrind: missing; running: ${as:+$as }sh -c '$cmd'" >&2
	$as sh -c "$cmd" >&2 </dev/null || fail "that failed; install the package valgrind by hand"
fi

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cc=$(go env CC)
# shellcheck disable=SC2046
$cc -g -O1 -Wall -Wextra -Werror -Wno-unknown-pragmas -o "$tmp/exchange_test" internal/zsock/testdata/exchange_test.c internal/zsock/exchange.c \
	$(${PKG_CONFIG:-pkg-config} --cflags --libs libzmq)
# Blocks that are still reachable are libzmq's and the C++ runtime's own pools.
valgrind --quiet --error-exitcode=1 --leak-check=full --show-leak-kinds=definite,indirect,possible --errors-for-leak-kinds=definite,indirect,possible --track-origins=yes \
	"$tmp/exchange_test" || fail "errors, see above"
echo "valgrind: ok" >&2
