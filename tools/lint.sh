#!/bin/sh
# gofmt, go vet, go fix and staticcheck over every module: all that any of them
# has to say, then an error if that was anything.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
failed=0

step() { printf '== %s\n' "$*" >&2; }

# silent COMMAND...: runs it; any output and any other end than 0 is a failure.
# (Some versions of go fix say what is to change and still end with 0.)
silent() {
	out=$("$@" 2>"$tmp") && status=0 || status=$?
	if [ $status != 0 ] || [ -n "$out" ]; then
		cat "$tmp" >&2
		[ -z "$out" ] || printf '%s\n' "$out" >&2
		failed=1
	fi
}
tmp=$(mktemp)
trap 'rm -f "$tmp"' EXIT

step "gofmt: not as it writes them"
silent gofmt -l .

for mod in $(tools/modules.sh); do
	cd "$root/$mod"
	step "go vet ($mod)"
	go vet ./... || failed=1
	step "go fix ($mod)"
	silent go fix -diff ./...
	step "staticcheck ($mod)"
	go tool -modfile="$root/tools/go.mod" staticcheck ./... || failed=1
done
exit $failed
