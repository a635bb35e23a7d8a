#!/bin/sh
# Builds the examples and runs them as a newcomer does: as programs, in one
# process and in several, ended by signals. Checks what they print.
set -eu
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
pids=
trap 'for p in $pids; do kill -9 "$p" 2>/dev/null || :; done; rm -rf "$tmp"' EXIT

fail() {
	printf 'examples: %s\n' "$*" >&2
	for f in "$tmp"/*.log; do [ ! -s "$f" ] || { echo "-- ${f##*/}" && cat "$f"; } >&2; done
	exit 1
}

# same GOT WANT NAME: fails when the text is not what is wanted.
same() { [ "$1" = "$2" ] || fail "$3 printed:
$1
want:
$2"; }

# until_line FILE TEXT: waits up to 10 s until FILE has a line with TEXT; prints it.
until_line() {
	for _ in $(seq 100); do
		if grep -m 1 -- "$2" "$1" 2>/dev/null; then return; fi
		sleep 0.1
	done
	fail "no line \"$2\" in ${1##*/}"
}

# ends PID SIGNAL NAME: the process ends with 0 within 10 s of the signal.
ends() {
	kill "-$2" "$1"
	(
		sleep 10
		kill -9 "$1"
	) >/dev/null 2>&1 &
	watch=$!
	wait "$1" && status=0 || status=$?
	kill "$watch" 2>/dev/null || :
	[ "$status" = 0 ] || fail "$3 ended with $status after SIG$2"
}

go build -o "$tmp/echo" ./examples/echo
go build -o "$tmp/stream" ./examples/stream

# All roles in one process.
out=$("$tmp/echo" 2>"$tmp/all.log") || fail "echo ended with $?"
same "$out" "partial 1 hello
partial 1 hello
final 1 hello" "echo"

# Each role in its own; the client is there before the broker.
"$tmp/echo" -role broker -endpoint 'tcp://127.0.0.1:*' 2>"$tmp/broker.log" &
broker=$!
pids="$pids $broker"
at=$(until_line "$tmp/broker.log" 'listening on ')
at=${at##* }
ends "$broker" TERM "the broker"

"$tmp/echo" -role client -endpoint "$at" -data early >"$tmp/client.out" 2>"$tmp/client.log" &
client=$!
"$tmp/echo" -role worker -endpoint "$at" -partials 1 2>"$tmp/worker.log" &
worker=$!
"$tmp/echo" -role broker -endpoint "$at" 2>"$tmp/broker.log" &
broker=$!
pids="$client $worker $broker"
wait "$client" || fail "the client ended with $?"
same "$(cat "$tmp/client.out")" "partial 1 early
final 1 early" "the client"

out=$("$tmp/echo" -role client -endpoint "$at" -json -data '{"a":[1,null,"x"]}' 2>"$tmp/client.log") || fail "the client ended with $?"
same "$out" 'partial 1 {"a":[1,null,"x"]}
final 1 {"a":[1,null,"x"]}' "the client with -json"

out=$("$tmp/echo" -role client -endpoint "$at" -service nobody -timeout 100ms 2>"$tmp/client.log") && fail "a call to nobody ended with 0"
case $out in "error 1 "*"timed out"*) ;; *) fail "a call to nobody printed: $out" ;; esac

ends "$worker" INT "the worker"
ends "$broker" INT "the broker"
pids=

# A file, byte for byte, and a reader that leaves.
head -c 33554433 /dev/urandom >"$tmp/file"
"$tmp/stream" -file "$tmp/file" >"$tmp/copy" 2>"$tmp/stream.log" || fail "stream ended with $?"
cmp "$tmp/file" "$tmp/copy" || fail "the copy differs"
("$tmp/stream" -file "$tmp/file" 2>"$tmp/stream.log" || echo "$?" >"$tmp/status") | head -c 1000 >"$tmp/head"
same "$(cat "$tmp/status")" 1 "the status of stream with a closed pipe"
until_line "$tmp/stream.log" 'stopped after' >"$tmp/line"
if "$tmp/stream" -file "$tmp/none" >"$tmp/copy" 2>"$tmp/stream.log"; then fail "a missing file ended with 0"; fi
[ ! -s "$tmp/copy" ] || fail "a missing file gave output"
until_line "$tmp/stream.log" 'stream: ' >"$tmp/line"
echo "examples: ok" >&2
