#!/bin/sh
# Everything that `make test` checks, cheapest first. It ends at the first step
# that fails. Needs what tools/setup.sh sees to.
set -eu
cd "$(dirname "$0")/.."
root=$PWD

step() { printf '== %s\n' "$*" >&2; }

tools/lint.sh

step "setup on made-up machines"
sh tools/setup_test.sh
sh interop/install_test.sh

step "examples, built and run as processes"
sh tools/examples.sh

# Without the race detector, which allocates of its own: limits of allocations,
# of steps and of memory, and the rooms.
step "allocations, steps, memory, rooms"
go test -count=1 -run 'Alloc|Steps|Memory|Rooms' ./...

step "the second socket path, through zmq4's public calls"
# What is pure has no socket: once is enough.
OMDP_ZSOCK=fallback go test -skip "^(TestSim|TestCore|TestPending|TestFinished|TestMutant|Fuzz)" -race -shuffle=on -count=1 -timeout 9m ./...

for mod in $(tools/modules.sh); do
	[ "$mod" != . ] || continue
	step "module $mod"
	(cd "$mod" && go test -race -shuffle=on -count=1 -timeout 9m ./...)
done

step "module ."
cd "$root"
go test -race -shuffle=on -count=1 -timeout 9m ./...
