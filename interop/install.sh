#!/bin/sh
# Installs what the foreign peers need into interop/node_modules: PIGATO and
# zeromq, with exactly the versions and hashes of package-lock.json. It runs
# nothing when that is there already, and no package's install script ever:
# zeromq carries its binaries in the package.
#
# Needs Node 20 or newer with npm, which it asks for and never installs.
set -eu
cd "$(dirname "$0")"

limit=300 # seconds for npm

die() {
	echo "interop: $*" >&2
	exit 1
}

command -v node >/dev/null 2>&1 || die "node is missing: install Node 20 or newer"
command -v npm >/dev/null 2>&1 || die "npm is missing: install it beside node"
node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20 ? 1 : 0)' ||
	die "Node 20 or newer is needed, here is $(node --version)"

installed=node_modules/.installed # a copy of the lock file that npm was done with
if ! cmp -s package-lock.json "$installed"; then
	run=
	! command -v timeout >/dev/null 2>&1 || run="timeout $limit"
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
	die "zeromq was installed and does not load on $(node -p 'process.platform + " " + process.arch'), node $(node --version):
$out"
}
