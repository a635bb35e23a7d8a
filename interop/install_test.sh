#!/bin/sh
# Tests interop/install.sh on machines that are made up: a PATH of stubs that
# note what was called, and a copy of the folder, so nothing is installed here.
set -eu
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
sh=$(command -v sh)
mkdir -p "$tmp/repo/interop" "$tmp/repo/tools"
cp install.sh package.json package-lock.json "$tmp/repo/interop"
cp ../tools/packages.sh "$tmp/repo/tools"
failed=0

stub() { printf '#!%s\n%s\n' "$sh" "$2" >"$bin/$1" && chmod +x "$bin/$1"; }
# text NAME VERSION: a Node of that version, or npm.
text() {
	case $1 in
	node) echo "case \$* in *process.versions.node*) echo $2 ;; *process.platform*) echo linux x64 ;; *) [ ! -e '$tmp/no-library' ] || { echo no such library; exit 1; } ;; esac" ;;
	npm) echo "echo \"npm \$*\" >>'$tmp/log'; [ ! -e '$tmp/no-network' ] || { echo 'npm: no network'; exit 1; }; mkdir -p node_modules" ;;
	esac
}
# machine NAME UID COMMANDS...: a fresh PATH in $bin and no packages. A package
# manager notes its arguments, and makes Node or npm of version $gives appear.
machine() {
	bin=$tmp/$1
	uid=$2
	shift 2
	mkdir -p "$bin"
	rm -rf "$tmp/log" "$tmp/no-library" "$tmp/no-network" "$tmp/repo/interop/node_modules"
	for c in sh dirname cmp cp rm mkdir cat chmod; do ln -sf "$(command -v $c)" "$bin/$c"; done
	stub uname 'echo Linux'
	stub id "echo $uid"
	for c in "$@"; do
		case $c in
		node=*) stub node "$(text node "${c#*=}")" ;;
		npm) stub npm "$(text npm)" ;;
		*) stub "$c" "echo \"$c \$*\" >>'$tmp/log'; case \$* in
*nodejs) printf '%s\n' '#!$sh' \"\$(cat '$tmp/node.sh')\" >'$bin/node'; chmod +x '$bin/node' ;;
*npm) printf '%s\n' '#!$sh' \"\$(cat '$tmp/npm.sh')\" >'$bin/npm'; chmod +x '$bin/npm' ;;
esac" ;;
		esac
	done
	text node "${gives:-20.1.0}" >"$tmp/node.sh"
	text npm >"$tmp/npm.sh"
}
# expect STATUS OUTPUT-PART CALLS [ARGS]: runs install.sh; CALLS are the whole
# log, its lines joined by "; ".
expect() {
	status=0
	out=$(PATH=$bin "$sh" "$tmp/repo/interop/install.sh" ${4:-} 2>&1) || status=$?
	log=$(cat "$tmp/log" 2>/dev/null | tr '\n' ';' | sed 's/;$//; s/;/; /g')
	ok=1
	[ "$status" = "$1" ] && [ "$log" = "$3" ] || ok=0
	case $out in *"$2"*) ;; *) ok=0 ;; esac
	[ -n "$2" ] || [ -z "$out" ] || ok=0
	if [ $ok = 0 ]; then
		printf 'install_test: %s %s: got status %s, output:\n%s\ncalled: %s\nwant status %s, output with "%s", calls "%s"\n' \
			"$(basename "$bin")" "${4:-}" "$status" "$out" "$log" "$1" "$2" "$3" >&2
		failed=1
	fi
	rm -f "$tmp/log"
}
apt='apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends'

machine complete 0 node=20.0.0 npm apt-get
expect 0 "interop: would run: npm ci" "" -n
expect 0 "" "npm ci"
expect 0 "" "" # the second run installs nothing
machine oldest 1000 node=18.19.0 npm
expect 0 "" "npm ci"
machine old 0 node=18.18.2 npm apt-get
expect 1 "Node 18.19 or newer is needed, here is 18.18.2" ""
machine none 0 apt-get
expect 0 "missing: Node 18.19 or newer; would run: " "" -n
expect 0 "missing: npm; running: " "apt-get update; $apt nodejs; apt-get update; $apt npm; npm ci"
machine without-npm 0 node=22.1.0 dnf
expect 0 "missing: npm; running: dnf" "dnf install -y npm; npm ci"
gives=16.3.0
machine gives-old 0 apt-get
expect 1 "here is 16.3.0" "apt-get update; $apt nodejs"
gives=
machine denied 1000 apt-get
expect 1 "which takes root to install; run as root: " ""
machine offline 0 node=20.0.0 npm
: >"$tmp/no-network"
expect 1 "npm: no network" "npm ci"
machine broken 0 node=20.0.0 npm
: >"$tmp/no-library"
expect 1 "does not load on linux x64, node 20.0.0" "npm ci"
expect 1 "does not load" "npm ci" # and is tried anew

[ $failed = 0 ] || exit 1
echo "install_test: ok"
