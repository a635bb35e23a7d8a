# Sourced by the scripts that see to the system's packages: tools/setup.sh and
# interop/install.sh. The caller has set name, which stands before what is said,
# and dry if nothing is to be run.

have() { command -v "$1" >/dev/null 2>&1; }
die() {
	echo "$name: $*" >&2
	exit 1
}

# packages WHAT APT DNF APK PACMAN BREW: installs what is missing, by the names
# that the system's own package manager has for it. If that may not be (not
# root, no sudo or doas without a password) it ends with one line that says what
# is missing and what to run.
packages() {
	what=$1
	# What is to run as root, or as the user for brew.
	root=yes
	if [ "$(uname -s)" = Darwin ] || ! { have apt-get || have dnf || have apk || have pacman; }; then
		have brew || die "$what: missing, and none of apt-get, dnf, apk, pacman, brew is here to install it"
		root=no
		cmd="brew install $6"
	elif have apt-get; then
		# A third party's broken index must not stop what the others can give: ";".
		cmd="apt-get update; DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends $2"
	elif have dnf; then
		cmd="dnf install -y $3"
	elif have apk; then
		cmd="apk add --update-cache $4"
	else
		cmd="pacman -Sy --needed --noconfirm $5"
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
		echo "$name: missing: $what; would run: ${as:+$as }sh -c '$cmd'"
		exit 0
	fi
	echo "$name: missing: $what; running: $cmd" >&2
	# The package managers report to stderr, so that the output of what follows
	# (make echo) stays its own.
	$as sh -c "$cmd" >&2 </dev/null || die "that failed; still missing: $what; run by hand: $cmd"
}
