#!/bin/sh
# Runs every fuzz target of the root module for a while.
#
#   tools/fuzz.sh [TIME]    TIME for each target, default 20s
set -eu
cd "$(dirname "$0")/.."
time=${1:-20s}
for pkg in $(go list ./...); do
	for target in $(go test -list '^Fuzz' "$pkg" | grep '^Fuzz' || :); do
		printf '== %s %s\n' "$pkg" "$target" >&2
		# -fuzzminimizetime=1x: minimising what is merely interesting stalls the search.
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1x "$pkg"
	done
done
