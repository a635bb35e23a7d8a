#!/bin/sh
# Prints the directory of every module of the repository, the root first,
# without tools/, which only pins programs.
set -eu
cd "$(dirname "$0")/.."
echo .
find . -mindepth 2 -name go.mod -not -path './.*' -not -path './tools/*' -not -path '*/testdata/*' |
	sed 's|^\./||; s|/go\.mod$||' | LC_ALL=C sort
