#!/bin/sh
# Sees to it that what the build needs is here: a Go toolchain and a C compiler
# (asked for, never installed), pkg-config and libzmq's headers (installed
# through the system's package manager when missing).
#
#   tools/setup.sh       check, install what is missing
#   tools/setup.sh -n    check, print the command that would run, run nothing
#
# It says nothing and runs nothing when all is there. When it may not install
# (not root, no sudo or doas without a password) it ends with one line that
# names what is missing and the command to run.
set -eu

min=4.3 # what internal/zsock asks for, at build time and when it starts
pkgconfig=${PKG_CONFIG:-pkg-config}
dry=
[ "${1:-}" != -n ] || dry=1

have() { command -v "$1" >/dev/null 2>&1; }
die() {
	echo "setup: $*" >&2
	exit 1
}

have go || die "Go 1.26 or newer is missing: install it and put its bin directory into PATH"
cc=${CC:-$(go env CC)}
have "${cc%% *}" || die "the C compiler $cc is missing: install gcc or clang"

# missing prints the names of what is not here.
missing() {
	have "${pkgconfig%% *}" || { echo "pkg-config and libzmq's headers"; return; }
	$pkgconfig --exists libzmq || { echo "libzmq's headers"; return; }
	$pkgconfig --atleast-version=$min libzmq ||
		echo "libzmq $min or newer (here is $($pkgconfig --modversion libzmq))"
}

what=$(missing)
[ -n "$what" ] || exit 0

# The commands, one a line: what is to run as root, or as the user for brew.
root=yes
if [ "$(uname -s)" = Darwin ] || ! { have apt-get || have dnf || have apk || have pacman; }; then
	have brew || die "$what: missing, and none of apt-get, dnf, apk, pacman, brew is here to install it"
	root=no
	cmd="brew install zeromq pkgconf"
elif have apt-get; then
	# A third party's broken index must not stop what the others can give: ";".
	cmd="apt-get update; DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends libzmq3-dev pkg-config"
elif have dnf; then
	cmd="dnf install -y zeromq-devel pkgconf-pkg-config"
elif have apk; then
	cmd="apk add --update-cache zeromq-dev pkgconf"
else
	cmd="pacman -Sy --needed --noconfirm zeromq pkgconf"
fi

as=
if [ $root = yes ] && [ "$(id -u)" != 0 ]; then
	for s in sudo doas; do
		if have $s && $s -n true >/dev/null 2>&1 </dev/null; then
			as="$s -n"
			break
		fi
	done
	[ -n "$as" ] || die "missing: $what, which takes root to install; run as root: $cmd"
fi

if [ -n "$dry" ]; then
	echo "setup: missing: $what; would run: ${as:+$as }sh -c '$cmd'"
	exit 0
fi
echo "setup: missing: $what; running: $cmd" >&2
# The package managers report to stderr, so that the output of what follows
# (make echo) stays its own.
$as sh -c "$cmd" >&2 </dev/null || die "that failed; still missing: $what; run by hand: $cmd"
what=$(missing)
[ -z "$what" ] || die "still missing after the installation: $what"
