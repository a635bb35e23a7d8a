package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// The schedule of faults: what befalls whom and when follows from the seed and
// the length of the run alone. (What the processes make of it does not: they
// run on a real machine.)

type role string

const (
	roleBroker role = "broker"
	roleWorker role = "worker"
	roleClient role = "client"
)

// How many there are of each role, and what they are called: workers 0 and 2
// and odd clients know both brokers, the others the first alone.
const (
	brokers = 2
	workers = 4
	clients = 8
)

func count(r role) int {
	return map[role]int{roleBroker: brokers, roleWorker: workers, roleClient: clients}[r]
}

// knowsBoth tells whether a worker or client is told of the second broker.
func knowsBoth(r role, who int) bool { return (r == roleWorker) == (who%2 == 0) }

// services are what workers serve: 0 and 1 the first, 2 and 3 the second.
var services = [...]string{"even", "odd"}

func serviceOf(worker int) string { return services[worker/2] }

type actionKind string

const (
	actKill     actionKind = "kill"     // SIGKILL; started again at once
	actStop     actionKind = "stop"     // SIGSTOP, then SIGCONT
	actLeave    actionKind = "leave"    // Shutdown; started again when it has ended
	actCut      actionKind = "cut"      // a connection, by FIN or RST
	actHalf     actionKind = "half"     // a connection stays open and passes nothing on
	actDelay    actionKind = "delay"    // a connection's bytes come late
	actThrottle actionKind = "throttle" // a connection's bytes come slowly
)

// perMinute is how much of what befalls whom in a minute.
var perMinute = []struct {
	kind actionKind
	role role
	n    int
}{
	{actKill, roleBroker, 20}, {actKill, roleWorker, 50}, {actKill, roleClient, 50},
	{actStop, roleBroker, 8}, {actStop, roleWorker, 12}, {actStop, roleClient, 12},
	{actLeave, roleBroker, 6}, {actLeave, roleWorker, 12}, {actLeave, roleClient, 12},
	{actCut, roleWorker, 50}, {actCut, roleClient, 50},
	{actHalf, roleWorker, 15}, {actHalf, roleClient, 15},
	{actDelay, roleWorker, 20}, {actDelay, roleClient, 20},
	{actThrottle, roleWorker, 15}, {actThrottle, roleClient, 15},
}

// An action is one fault.
type action struct {
	at     time.Duration
	kind   actionKind
	role   role          // of the process, or of the peer at the connection's end
	target int           // which process; any number that chooses a connection
	broker int           // whose connection
	lasts  time.Duration // stop, half, delay, throttle
	amount int           // delay: µs; throttle: bytes a second; cut: 1 is RST; half: which ways, of 1 to 3
}

func (a action) String() string {
	return fmt.Sprintf("%s %s %d at %v, for %v, %d", a.kind, a.role, a.target, a.at.Round(time.Millisecond), a.lasts.Round(time.Millisecond), a.amount)
}

// scaled is how many of n a minute there are in d, rounded.
func scaled(n int, d time.Duration) int {
	return int((time.Duration(n)*d + time.Minute/2) / time.Minute)
}

// schedule draws the faults of a run, in the order of their time.
func schedule(seed uint64, d time.Duration) []action {
	rnd := rand.New(rand.NewPCG(seed, 0x63_68_61_6f_73))
	var all []action
	for _, p := range perMinute {
		for range scaled(p.n, d) {
			all = append(all, draw(rnd, p.kind, p.role, d))
		}
	}
	slices.SortStableFunc(all, func(a, b action) int { return int(a.at - b.at) })
	return all
}

func draw(rnd *rand.Rand, kind actionKind, r role, d time.Duration) action {
	a := action{at: rand64(rnd, 0, d), kind: kind, role: r, target: rnd.IntN(count(r))}
	if r == roleBroker && rnd.IntN(3) > 0 {
		a.target = 0 // the one that all know is hit more often
	}
	switch kind {
	case actStop: // some under the liveness, some over it
		a.lasts = rand64(rnd, 50*time.Millisecond, 2*time.Second)
	case actCut:
		a.amount = rnd.IntN(2)
	case actHalf:
		a.lasts, a.amount = rand64(rnd, time.Second, 6*time.Second), 1+rnd.IntN(3)
	case actDelay:
		a.lasts, a.amount = rand64(rnd, time.Second, 5*time.Second), int(rand64(rnd, time.Millisecond, 300*time.Millisecond).Microseconds())
	case actThrottle:
		a.lasts, a.amount = rand64(rnd, time.Second, 5*time.Second), 1<<(10+rnd.IntN(9))
	}
	if kind != actKill && kind != actStop && kind != actLeave {
		a.target, a.broker = rnd.IntN(1<<20), rnd.IntN(brokers)
		if rnd.IntN(2) == 0 {
			a.broker = 0
		}
	}
	return a
}

// rand64 is a time from lo up to hi.
func rand64(rnd *rand.Rand, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(rnd.Int64N(int64(hi-lo)))
}
