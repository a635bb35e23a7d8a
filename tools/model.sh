#!/bin/sh
# Checks the model in model/ exhaustively with spin: every configuration of
# faults must hold, and every mechanism that is taken away must be missed.
# docs/model.md says what that means. Installs spin through the system's
# package manager when it is missing, as tools/setup.sh does for libzmq.
#
#   tools/model.sh                     all checks
#   tools/model.sh "FAULTS=1 CUT …"    one configuration, with the events of its counterexample, if it has one
set -eu
cd "$(dirname "$0")/.."

have() { command -v "$1" >/dev/null 2>&1; }
die() {
	echo "model: $*" >&2
	exit 1
}

cc=${CC:-cc}
have "${cc%% *}" || cc=gcc
have "${cc%% *}" || die "a C compiler is missing: install gcc or clang"
if ! have spin; then
	root=yes
	if have apt-get; then
		cmd="apt-get update; DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends spin"
	elif have dnf; then
		cmd="dnf install -y spin"
	elif have brew; then
		root=no
		cmd="brew install spin"
	else
		die "spin is missing, and none of apt-get, dnf, brew is here to install it; it is at https://spinroot.com"
	fi
	as=
	if [ $root = yes ] && [ "$(id -u)" != 0 ]; then
		for s in sudo doas; do
			if have $s && $s -n true >/dev/null 2>&1 </dev/null; then
				as="$s -n"
				break
			fi
		done
		[ -n "$as" ] || die "missing: spin, which takes root to install; run as root: $cmd"
	fi
	echo "model: missing: spin; running: $cmd" >&2
	$as sh -c "$cmd" >&2 </dev/null || die "that failed; run by hand: $cmd"
	have spin || die "spin is still missing after the installation"
fi

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'trap - TERM; kill 0; exit 1' INT TERM HUP
cp model/*.pml "$dir"
cd "$dir"
spin -a request.pml >spin.out 2>&1 && [ -s pan.c ] || { cat spin.out >&2; die "spin refused the model"; }

# compile OUT FLAGS: without -DCOLLAPSE, which takes twice the time and is not needed here.
compile() {
	out=$1
	shift
	$cc -O1 -w "$@" -o "$out" pan.c || die "the checker does not compile"
}

# credit OUT FLAGS: the same of a stream under credit.
credit() {
	out=$1
	shift
	mkdir "$out.dir"
	cp credit.pml "$out.dir"
	(
		cd "$out.dir"
		spin "$@" -a credit.pml >spin.out 2>&1 && [ -s pan.c ] || { cat spin.out >&2; die "spin refused the model of credit"; }
		$cc -O1 -w -DSAFETY -o "../$out" pan.c
	) || die "the checker does not compile"
}

# search PROGRAM "CONFIGURATION": writes out.
search() {
	flags=
	[ "$1" != cycles ] || flags=-l
	MODEL=$2 ../"$1" -m20000 -w22 $flags >out 2>&1 || :
}

complete() {
	grep -q '^Full statespace search' out && grep -q 'errors: 0$' out &&
		! grep -q -e 'max search depth too small' -e 'not completed' -e 'out of memory' -e 'truncated' out
}

# broken prints the name of the property that the search found broken.
broken() {
	case $(grep '^pan:[0-9]*: ' out) in
	*'assertion violated '*) sed -n 's/^pan:[0-9]*: assertion violated (*\([A-Z][A-Z0-9]*\).*/\1/p' out ;;
	*'non-progress'*) echo CYCLE ;;
	*'invalid end state'*) echo DEADLOCK ;;
	esac
}

# events prints the counterexample of PROGRAM "CONFIGURATION"; the numbers of
# message types count from the last name of mtype.
events() {
	MODEL=$2 ../"$1" -r 2>&1 | awk '
		NR == FNR { if (/^mtype = [{]/) on = 1; else if (/^}/) on = 0; else if (on) { sub(/[\/][*].*/, ""); n += split($0, part, /[ \t,]+/); for (i in part) if (part[i] != "") list = list " " part[i]; names[++lines] = $0 } next }
		FNR == 1 && !done { for (l = 1; l <= lines; l++) { k = split(names[l], part, /[ \t,]+/); for (i = 1; i <= k; i++) if (part[i] != "") all[++m] = part[i] } done = 1 }
		match($0, /@ .*/) && !/%d/ { s = substr($0, RSTART + 2); if (match(s, /#[0-9]+/)) s = substr(s, 1, RSTART - 1) all[m + 1 - substr(s, RSTART + 1, RLENGTH - 1)] substr(s, RSTART + RLENGTH); print "  " s }' "$dir/request.pml" -
}

# check N PROGRAM WANT NAME "CONFIGURATION": WANT is holds, or the properties
# one of which must be found broken.
check() {
	mkdir "$1"
	cd "$1"
	cp ../*.pml .
	search "$2" "$5"
	found=$(broken)
	verdict=WRONG
	if [ "$3" = holds ]; then
		if complete; then
			verdict=holds
		else
			found="not complete: ${found:-$(tail -n 1 out)}"
		fi
	else
		for p in $3; do
			[ "$found" != "$p" ] || verdict="misses it: $found"
		done
	fi
	states=$(awk '/states, stored/ { print $1; exit }' out)
	depth=$(sed -n 's/.*depth reached \([0-9]*\).*/\1/p' out | head -n 1)
	seconds=$(sed -n 's/^pan: elapsed time \([0-9.e+-]*\) seconds/\1/p' out)
	[ "$verdict" != WRONG ] || verdict="WRONG, want $3: ${found:-nothing found}"
	printf '%-28s %10s %6s %8s  %s\n' "$4" "${states:-?}" "${depth:-?}" "${seconds:-?}" "$verdict"
	case $verdict in
	WRONG*) [ -z "$found" ] || events "$2" "$5" ;;
	*) : >ok ;;
	esac
	cd ..
}

if [ $# -gt 0 ]; then
	compile safety -DSAFETY
	mkdir one
	cd one
	cp ../request.pml .
	search safety "$*"
	found=$(broken)
	sed -n '/^State-vector/,/transitions/p' out
	if complete; then
		echo "model: holds"
	elif [ -n "$found" ]; then
		events safety "$*"
		echo "model: broken: $found"
		exit 1
	else
		cat out
		die "the search is not complete"
	fi
	exit 0
fi

# PROGRAM|WANT|NAME|CONFIGURATION. What a mutant must break is what its
# mechanism is for; any of several where the order of the search decides.
all="LOSS CUT WCUT RESTART EARLY"
cat >checks <<END
safety|holds|all faults, two of them|FAULTS=2 $all
safety|holds|at most once, three faults|IDEMPOTENT=0 FAULTS=3 $all
safety|holds|two brokers, shutdown|BROKERS=2 FAULTS=2 CUT RESTART SHUTDOWN
safety|holds|the same, at most once|BROKERS=2 IDEMPOTENT=0 FAULTS=2 $all SHUTDOWN
safety|holds|cancel, endless handlers|GIVEUP ENDLESS FAULTS=1 $all
safety|holds|deadlines and cancel|DEADLINE GIVEUP FAULTS=1 $all
safety|holds|three restarts and losses|FAULTS=3 LOSS RESTART
safety|holds|beats by the client's life|-OWNLINK FAULTS=2 LOSS CUT
safety|holds|LOST after a beat of its own|-NAMEATTEMPT OWNBEAT BEATS=2 FAULTS=2 LOSS WCUT
cycles|holds|no endless run|GIVEUP FAULTS=1 $all
safety|I6|without: token|-TOKEN FAULTS=2 EARLY
safety|MIXED|without: link generation|-LINKGEN BROKERS=2 FAULTS=2 CUT
safety|MIXED|without: no retry on partial|-NOPARTIAL BROKERS=2 FAULTS=2 CUT
safety|I4|without: adopt only if clean|-ADOPTCLEAN FAULTS=2 CUT
safety|I21 ENDED|without: DUPLICATE window|-WINDOW FAULTS=2 CUT LOSS
safety|I21|without: live id is one|-LIVEKEY FAULTS=2 CUT
safety|I21 ENDED|without: life remembered|-KEEPLIFE FAULTS=2 CUT LOSS EARLY
safety|STUCK|without: LOST for beats|-ANSWERLOST FAULTS=1 LOSS
safety|STUCK|without: stall timer|-STALL FAULTS=1 LOSS
safety|I9|without: draining slots|-DRAINSLOT FAULTS=1 CUT
safety|BELIEF|without: attempt in LOST|-NAMEATTEMPT FAULTS=2 WCUT
safety|C4|without: sum of outcomes|-SUMOUTCOME DEADLINE FAULTS=2 CUT
credit-grow|holds|credit, a window that grows|
credit-fixed|holds|credit, a fixed window|
credit-share|STUCK|without: a share for any size|
credit-tell|STUCK|without: credit for a share|
credit-wait|MEMORY HONEST|without: waiting for credit|
credit-count|HONEST|without: credit at the broker|
credit-window|HONEST|without: windows at the broker|
END

credit credit-grow
credit credit-fixed -DGROW=0
credit credit-share -DGROW=0 -DNOSHARE
credit credit-tell -DGROW=0 -DKEEPALL
credit credit-wait -DNOWAIT
credit credit-count -DNOCOUNT
credit credit-window -DNOWINDOW
compile cycles -DNP &
compile safety -DSAFETY
wait $!
[ -x cycles ] && [ -x safety ] || exit 1

printf '%-28s %10s %6s %8s  %s\n' configuration states depth seconds verdict
# Two lanes, one for each of two cores.
lane() {
	n=0
	while IFS='|' read -r program want name config; do
		n=$((n + 1))
		[ $((n % 2)) = "$1" ] || continue
		check "$n" "$program" "$want" "$name" "$config"
	done <checks
}
lane 1 &
lane 0
wait $!
total=$(grep -c . checks)
good=$(find . -name ok | grep -c . || :)
echo "model: $good of $total checks as expected"
[ "$good" = "$total" ]
