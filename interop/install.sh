#!/bin/sh
# Sees to it that what the foreign peers need is here: Node and npm (through the
# system's package manager when missing), and in interop/node_modules PIGATO and
# zeromq, with exactly the versions and hashes of package-lock.json. It runs
# nothing when all is there, and no package's install script ever: zeromq
# carries its binaries in the package.
#
#   interop/install.sh       check, install what is missing
#   interop/install.sh -n    check, print the command that would run, run nothing
#
# It fails where Node is too old or may not be installed: nobody is to take
# tests that did not run for tests that passed.
set -eu
cd "$(dirname "$0")"

min=18.19 # what the peers and their tests run on
limit=300 # seconds for npm
name=interop
dry=
[ "${1:-}" != -n ] || dry=1
. ../tools/packages.sh

# One after the other: some packages of Node bring npm, and refuse another.
have node || packages "Node $min or newer" nodejs nodejs nodejs nodejs node
version=$(node -p process.versions.node)
major=${version%%.*}
minor=${version#*.}
minor=${minor%%.*}
[ "$major" -gt "${min%.*}" ] || { [ "$major" -eq "${min%.*}" ] && [ "$minor" -ge "${min#*.}" ]; } ||
	die "Node $min or newer is needed, here is $version: install one from nodejs.org, or a newer system's package"
have npm || packages npm npm npm npm npm node

installed=node_modules/.installed # a copy of the lock file that npm was done with
if ! cmp -s package-lock.json "$installed"; then
	if [ -n "$dry" ]; then
		echo "$name: would run: npm ci"
		exit 0
	fi
	run=
	! have timeout || run="timeout $limit"
	# npm's own words only if it fails; the output of what follows stays its own.
	out=$($run npm ci 2>&1 </dev/null) || die "npm ci failed:
$out"
	cp package-lock.json "$installed"
fi

# What is in the package must load here.
out=$(node -e '
	const { version, Dealer } = require("zeromq");
	new Dealer().close();
	require("zmq");
	if (!version.startsWith("4.")) throw new Error(`libzmq ${version}`);
' 2>&1) || {
	rm -f "$installed"
	die "zeromq was installed and does not load on $(node -p 'process.platform + " " + process.arch'), node $version:
$out"
}
