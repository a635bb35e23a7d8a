#!/bin/sh
# Tests tools/setup.sh on machines that are made up: a PATH of stubs that note
# what was called, so nothing is installed here.
set -eu
cd "$(dirname "$0")"
setup=$PWD/setup.sh
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
sh=$(command -v sh)
ln=$(command -v ln)
failed=0

# machine NAME UNAME UID COMMANDS...: a fresh PATH in $bin. Every package
# manager notes its arguments in $tmp/log and makes libzmq appear.
machine() {
	bin=$tmp/$1
	mkdir -p "$bin"
	rm -f "$tmp/log" "$tmp/zmq"
	uname=$2 uid=$3
	shift 3
	$ln -sf "$sh" "$bin/sh"
	stub true :
	stub uname "echo $uname"
	stub id "echo $uid"
	stub go 'echo gcc' # go env CC
	for c in "$@"; do
		case $c in
		gcc) stub gcc : ;;
		pkg-config) stub pkg-config "[ -e '$tmp/zmq' ] || exit 1; [ \"\$1\" != --modversion ] || echo 4.3.5" ;;
		sudo) stub sudo "[ \"\$1\" = -n ] && shift; echo \"as root: \$*\" >>'$tmp/log'; exec \"\$@\"" ;;
		nosudo) stub sudo "exit 1" ;;
		*) stub "$c" "echo \"$c \$*\" >>'$tmp/log'; : >'$tmp/zmq'; printf '#!$sh\n[ \"\$1\" != --modversion ] || echo 4.3.5\n' >'$bin/pkg-config'; $(command -v chmod) +x '$bin/pkg-config'" ;;
		esac
	done
}
stub() { printf '#!%s\n%s\n' "$sh" "$2" >"$bin/$1" && chmod +x "$bin/$1"; }

# expect STATUS OUTPUT-PART LOG-PART [ARGS]: runs setup.sh on the machine.
expect() {
	status=0
	out=$(PATH=$bin CC= PKG_CONFIG= "$sh" "$setup" ${4:-} 2>&1) || status=$?
	log=$(cat "$tmp/log" 2>/dev/null || :)
	ok=1
	[ "$status" = "$1" ] || ok=0
	case $out in *"$2"*) ;; *) ok=0 ;; esac
	case $log in *"$3"*) ;; *) ok=0 ;; esac
	[ -n "$2" ] || [ -z "$out" ] || ok=0
	[ -n "$3" ] || [ -z "$log" ] || ok=0
	if [ $ok = 0 ]; then
		printf 'setup_test: %s %s: got status %s, output:\n%s\ncalled:\n%s\nwant status %s, output with "%s", calls with "%s"\n' \
			"$(basename "$bin")" "${4:-}" "$status" "$out" "$log" "$1" "$2" "$3" >&2
		failed=1
	fi
	rm -f "$tmp/log"
}

machine complete Linux 0 gcc pkg-config apt-get
: >"$tmp/zmq"
expect 0 "" ""

for m in "debian apt-get libzmq3-dev" "fedora dnf zeromq-devel" "alpine apk zeromq-dev" "arch pacman zeromq"; do
	# shellcheck disable=SC2086
	set -- $m
	machine "$1-dry" Linux 0 gcc pkg-config "$2"
	expect 0 "missing: libzmq's headers; would run: sh -c '" "" -n
	machine "$1-root" Linux 0 gcc "$2"
	expect 0 "missing: pkg-config and libzmq's headers; running: " "$3"
	expect 0 "" "" # the second run installs nothing
	machine "$1-sudo" Linux 1000 gcc pkg-config "$2" sudo
	expect 0 "running: " "as root: sh -c "
	machine "$1-denied" Linux 1000 gcc pkg-config "$2" nosudo
	expect 1 "missing: libzmq's headers, which takes root to install; run as root: " ""
	machine "$1-bare" Linux 1000 gcc "$2"
	expect 1 "missing: pkg-config and libzmq's headers, which takes root to install; run as root: " ""
done
machine debian-update Linux 0 gcc apt-get
expect 0 "running: " "apt-get update
"

machine mac Darwin 501 gcc brew
expect 0 "running: brew install zeromq pkgconf" "brew install zeromq pkgconf"
expect 0 "" ""
machine unknown Linux 0 gcc
expect 1 "none of apt-get, dnf, apk, pacman, brew is here" ""
machine nocc Linux 0 apt-get
expect 1 "the C compiler gcc is missing" ""
machine nogo Linux 0 gcc apt-get
rm "$bin/go"
expect 1 "Go 1.26 or newer is missing" ""
machine broken Linux 0 gcc apt-get
stub apt-get 'exit 100'
expect 1 "that failed; still missing: pkg-config and libzmq's headers; run by hand: apt-get update;" ""

[ $failed = 0 ] || exit 1
echo "setup_test: ok"
