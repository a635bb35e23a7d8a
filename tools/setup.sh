#!/bin/sh
# Sees to it that what the build needs is here: a Go toolchain and a C compiler
# (asked for, never installed), pkg-config and libzmq's headers (installed
# through the system's package manager when missing).
#
#   tools/setup.sh       check, install what is missing
#   tools/setup.sh -n    check, print the command that would run, run nothing
#
# It says nothing and runs nothing when all is there. When it may not install
# it ends with one line that names what is missing and the command to run.
set -eu

min=4.3 # what internal/zsock asks for, at build time and when it starts
pkgconfig=${PKG_CONFIG:-pkg-config}
name=setup
dry=
[ "${1:-}" != -n ] || dry=1
case $0 in */*) . "${0%/*}/packages.sh" ;; *) . ./packages.sh ;; esac

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
packages "$what" "libzmq3-dev pkg-config" "zeromq-devel pkgconf-pkg-config" "zeromq-dev pkgconf" "zeromq pkgconf" "zeromq pkgconf"
what=$(missing)
[ -z "$what" ] || die "still missing after the installation: $what"
