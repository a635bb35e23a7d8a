#!/bin/sh
# Runs the tests of what crosses into C, and of all that is built on it, under
# AddressSanitizer: overflows and uses after free on both sides of the border,
# and leaks of C memory at the end.
#
#   tools/asan.sh [FLAG...]    flags for go test, such as -run or -v
set -eu
cd "$(dirname "$0")/.."

fail() {
	printf 'asan: %s\n' "$*" >&2
	exit 1
}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# The linker says it in a page; here it is in a line.
cc=$(go env CC)
printf 'int main(void) { return 0; }\n' >"$tmp/probe.c"
$cc -fsanitize=address -o "$tmp/probe" "$tmp/probe.c" 2>"$tmp/probe.log" ||
	fail "$cc can't link with -fsanitize=address; install its runtime (libasan of gcc, compiler-rt of clang)"
"$tmp/probe" 2>"$tmp/probe.log" || { cat "$tmp/probe.log" >&2 && fail "a program with AddressSanitizer does not run here"; }
printf 'package main\nfunc main() {}\n' >"$tmp/probe.go"
go build -asan -o "$tmp/probe" "$tmp/probe.go" 2>"$tmp/probe.log" || { cat "$tmp/probe.log" >&2 && fail "go build -asan does not work here"; }

# Nothing of libzmq's or Go's was ever reported, so nothing is suppressed; what
# must be goes into a file for LSAN_OPTIONS=suppressions=, each line with its reason.
export ASAN_OPTIONS="detect_leaks=1:${ASAN_OPTIONS:-}"
# AddressSanitizer keeps what was freed: bounds on memory mean nothing under it.
for pkg in ./internal/batch ./internal/zsock .; do
	go test -asan -count=1 -timeout 20m -skip Memory "$@" $pkg
done
echo "asan: ok" >&2
