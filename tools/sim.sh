#!/bin/sh
# Plays random histories of whole systems (docs/simulation.md): one by its SEED,
# SIMCOUNT of them, or as many as fit into SIMTIME.
set -eu
cd "$(dirname "$0")/.."
if [ -n "${SEED:-}" ]; then
	how="-sim.seed=$SEED"
elif [ -n "${SIMCOUNT:-}" ]; then
	how="-sim.count=$SIMCOUNT"
else
	how="-sim.time=${SIMTIME:-60s}"
fi
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go test -c -o "$bin/sim" .
"$bin/sim" -test.run '^TestSim$' "$how"
