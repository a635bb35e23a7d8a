#!/bin/sh
# Runs every fuzz target of the root module for a while, all of them, and fails
# at the end if one found something. Go then has left the input in the target's
# folder of testdata/fuzz, where every later run of the tests plays it again: it
# is kept, with the commit that mends what it found.
#
#   tools/fuzz.sh [TIME [PATTERN]]    TIME for each target, default 60s; those that match PATTERN
set -eu
cd "$(dirname "$0")/.."
time=${1:-60s}
pattern=${2:-.}
failed=
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# search PKG TARGET: 0 unless an input was found.
search() {
	# -fuzzminimizetime=1x: minimising what is merely interesting stalls the search.
	{ go test -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 1x "$1" 2>&1 || : >"$tmp/bad"; } | tee "$tmp/log"
	[ -e "$tmp/bad" ] || return 0
	rm "$tmp/bad"
	# Go's own (golang/go#75804, mended in Go 1.27): the time was over in the middle
	# of an input, which is reported as a failure without one.
	grep -q '^ *context deadline exceeded$' "$tmp/log" && ! grep -qE 'Failing input written|panic:|fuzzing process' "$tmp/log"
}

for pkg in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' | grep -e "$pattern" || :); do
		printf '== %s %s\n' "$pkg" "$target" >&2
		search "$pkg" "$target" || failed="$failed $target"
	done
done
[ -z "$failed" ] || { echo "fuzz: failed:$failed" >&2 && exit 1; }
echo "fuzz: ok" >&2
