#!/bin/sh
# Prints the directory of every module of the repository, the root first.
set -eu
cd "$(dirname "$0")/.."
echo .
find . -mindepth 2 -name go.mod -not -path './.*' -not -path '*/testdata/*' |
	sed 's|^\./||; s|/go\.mod$||' | LC_ALL=C sort
