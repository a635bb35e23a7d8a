package omdp

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// The simulator plays histories: brokers, workers and clients with the real
// core, session, table and codec in them, on a simulated network, under faults.
// A history is a list of choices that each mean something in any state, so that
// one from which some are removed is a history as well. See docs/simulation.md.

// choice is one event of a history.
type choice struct {
	op      simOp
	a, b, c uint8
}

type simOp uint8

const (
	opCall simOp = iota
	opPlainCall
	opStopCall
	opHand    // one message of one connection
	opSettle  // all that is on its way
	opRun     // time passes, the network works
	opPass    // time passes, nothing gets through
	opHold    // one direction of a connection stands still, or goes on
	opRoom    // how much fits a pipe
	opCut     // a connection ends
	opNotice  // a side learns of it
	opPause   // a process is stopped, or goes on
	opJump    // the clock of a process jumps
	opKill    // a process is killed, or starts again
	opRestart // … and starts again at once
	opLeave   // a broker or a worker drains
	opRaw     // a hostile peer does something
	opPlaces  // a worker changes its concurrency
	simOps
)

var simOpNames = [simOps]string{"call", "plain", "cancel", "hand", "settle", "run", "pass", "hold", "room", "cut", "notice", "pause", "jump", "kill", "restart", "leave", "raw", "places"}

// Weights of the events, by the mood of a history.
var simMoods = [...][simOps]int{
	{opCall: 40, opPlainCall: 16, opStopCall: 6, opHand: 40, opSettle: 22, opRun: 26, opPass: 3, opHold: 4, opRoom: 4, opCut: 5, opNotice: 3, opPause: 4, opJump: 1, opKill: 3, opRestart: 3, opLeave: 1, opRaw: 2, opPlaces: 3},
	{opCall: 44, opPlainCall: 20, opStopCall: 4, opHand: 60, opSettle: 20, opRun: 14, opPass: 2, opHold: 6, opRoom: 6, opCut: 1, opNotice: 1, opRaw: 1, opPlaces: 5},                                                              // no faults but full pipes
	{opCall: 20, opPlainCall: 6, opStopCall: 3, opHand: 16, opSettle: 10, opRun: 40, opPass: 10, opHold: 5, opRoom: 2, opCut: 6, opNotice: 3, opPause: 10, opJump: 4, opKill: 5, opRestart: 5, opLeave: 1, opRaw: 1, opPlaces: 2}, // a long time
	{opCall: 30, opPlainCall: 16, opStopCall: 5, opHand: 40, opSettle: 20, opRun: 14, opPass: 1, opHold: 3, opRoom: 8, opCut: 3, opNotice: 2, opPause: 3, opKill: 2, opRestart: 2, opLeave: 1, opRaw: 60, opPlaces: 2},            // hostile peers
	{opCall: 40, opPlainCall: 6, opStopCall: 6, opHand: 30, opSettle: 20, opRun: 26, opPass: 2, opHold: 6, opRoom: 2, opCut: 14, opNotice: 5, opPause: 2, opKill: 4, opRestart: 10, opLeave: 4, opPlaces: 3},                      // brokers and connections come and go
}

var simChoices = func() (t [len(simMoods)][256]simOp) {
	for m, weights := range simMoods {
		sum := 0
		for _, n := range weights {
			sum += n
		}
		for i := range t[m] {
			at, k := i*sum/256, 0
			for ; at >= weights[k]; k++ {
				at -= weights[k]
			}
			t[m][i] = simOp(k)
		}
	}
	return t
}()

// simConf is the scene of a history.
type simConf struct {
	head     uint64
	mood     int
	brokers  int
	clients  int
	plains   int
	workers  int
	services int
	raws     int
	hb       time.Duration
	liveness int
	room     int
	latency  time.Duration
	window   time.Duration
	credit   int64
	tight    bool
	policies [2]DispatchPolicy // of the services
	frame    int64             // of the brokers, in bytes; 0: they know no pieces
	simDialects
}

const (
	simBrokers = 2
	simWorkers = 3
	simTables  = 2
	simPlains  = 2
	simGuests  = 3 // clients of other dialects
	simClients = simTables + simPlains + simGuests
	simHelpers = 2 // workers of other dialects
	simRaws    = 2
)

// simScene reads the scene from the head of a history.
func simScene(head uint64) simConf {
	next := func(n uint64) int {
		v := head % n
		head /= n
		return int(v)
	}
	c := simConf{head: head}
	c.mood = [...]int{0, 0, 0, 1, 1, 2, 3, 4}[next(8)]
	c.brokers = 1 + next(4)/3
	c.clients = 1 + next(2)
	c.plains = next(3)
	c.workers = 1 + next(simWorkers)
	c.services = min(1+next(2), c.workers)
	c.hb = 900 * time.Millisecond
	c.liveness = 2 + next(2)
	c.room = [...]int{64, 64, 64, 6, 2}[next(5)]
	c.latency = [...]time.Duration{0, 0, time.Millisecond, 20 * time.Millisecond}[next(4)]
	c.window = [...]time.Duration{20 * time.Second, 20 * time.Second, 3 * time.Second, 0}[next(4)]
	c.credit = [...]int64{0, 250, 2500}[next(3)]
	c.tight = next(4) == 0
	c.frame = simFrame(c.head)
	c.dialects()
	switch mix64(c.head) % 8 {
	case 0:
		c.policies = [2]DispatchPolicy{LeastLoaded, LeastRecentlyUsed}
	case 1:
		c.policies = [2]DispatchPolicy{Sticky, LeastRecentlyUsed}
	case 2:
		c.policies = [2]DispatchPolicy{LeastRecentlyUsed, Sticky}
	case 3:
		c.policies = [2]DispatchPolicy{Sticky, LeastLoaded}
	}
	if c.mood == 3 {
		c.raws = 1 + next(simRaws)
	} else {
		c.raws = next(4) / 3
	}
	return c
}

// simHistory draws a history of n events.
func simHistory(seed uint64, n int, choices []choice) (uint64, []choice) {
	var r rand.PCG
	r.Seed(seed, 0x5eed)
	head := r.Uint64()
	t := &simChoices[simScene(head).mood]
	choices = choices[:0]
	for range n {
		x := r.Uint64()
		choices = append(choices, choice{t[x&255], uint8(x >> 8), uint8(x >> 16), uint8(x >> 24)})
	}
	return head, choices
}

// simWorld is one scene and its history so far. It is used again for the next
// history: what the real parts hold is made anew, buffers stay.
type simWorld struct {
	conf    simConf
	now     instant
	brokers [simBrokers]simBroker
	workers [simWorkers]simWorker
	clients [simTables]simClient
	plains  [simPlains]simPlain
	guests  [simGuests]simGuest
	helpers [simHelpers]simHelper
	raws    [simRaws]simRaw
	procs   []*simProc
	book    simBook

	links   []*simLink
	nlinks  int
	live    []*simLink
	healing bool
	loose   bool // it was hostile, or time went wrong: a worker may be given too much
	events  int

	in      batch.In
	idBuf   [64]byte
	ridBuf  [maxRID]byte
	bodyBuf [16]byte
	options []byte
	dummy   *Worker
	take    [simWorkers]func(*message, *extra) *task // made once
	noTok   simTok

	tracing bool
	trace   []string
	hashing bool
	hash    uint64
}

func newSimWorld() *simWorld {
	w := &simWorld{dummy: &Worker{wire: wires[OMDP]}}
	for i := range w.brokers {
		b := &w.brokers[i]
		b.w, b.num, b.name, b.host = w, i, fmt.Sprint("b", i), b
	}
	for i := range w.workers {
		k := &w.workers[i]
		k.w, k.num, k.name, k.host = w, i, fmt.Sprint("w", i), k
		w.take[i] = k.take
	}
	for i := range w.clients {
		c := &w.clients[i]
		c.w, c.num, c.name, c.host = w, i, fmt.Sprint("c", i), c
	}
	for i := range w.plains {
		p := &w.plains[i]
		p.w, p.num, p.name, p.host = w, len(w.clients)+i, fmt.Sprint("p", i), p
	}
	for i := range w.guests {
		g := &w.guests[i]
		g.w, g.num, g.name, g.host = w, simTables+simPlains+i, fmt.Sprint("g", i), g
	}
	for i := range w.helpers {
		h := &w.helpers[i]
		h.w, h.num, h.name, h.host = w, i, fmt.Sprint("h", i), h
	}
	for i := range w.raws {
		r := &w.raws[i]
		r.w, r.num, r.name, r.host = w, i, fmt.Sprint("x", i), r
	}
	return w
}

func (w *simWorld) limits() limits {
	l := simLimits
	l.heartbeat, l.liveness = w.conf.hb, w.conf.liveness
	l.window, l.finished, l.frame = w.conf.window, 1000, 1<<20
	l.dropPartials, l.inProgress = w.conf.drop, w.conf.inProgress
	if w.conf.tight {
		l.serviceQueue, l.totalQueue, l.outstanding = 3, 5, 4
		l.outbox = 8
	}
	return l
}

var simLimits = func() limits {
	l := testLimits()
	l.outbox, l.outboxBytes, l.totalOutbox = 20, 3000, 10_000
	l.malformed, l.malformedIn, l.ignoreFor = 4, 2*time.Second, 3*time.Second
	l.services, l.workers, l.clients, l.concurrency = 4, 20, 40, 8
	l.defaultTimeout = 5 * time.Second
	return l
}()

// reset sets the scene.
func (w *simWorld) reset(head uint64) {
	w.conf = simScene(head)
	w.now, w.nlinks, w.live, w.events, w.healing = 0, 0, w.live[:0], 0, false
	w.loose, w.hash, w.trace, w.noTok = w.conf.raws > 0, 0, w.trace[:0], simTok{}
	w.book.reset(w)
	w.procs = w.procs[:0]
	for i := range w.brokers[:w.conf.brokers] {
		b := &w.brokers[i]
		b.life = 0
		b.simProc.start()
		w.procs = append(w.procs, &b.simProc)
	}
	for i := range w.workers[:w.conf.workers] {
		k := &w.workers[i]
		k.service, k.conc = byte(i%w.conf.services), 1+int(head>>(52+2*i)&3)%3
		k.hb = w.conf.hb * time.Duration(2+i) / 3
		k.skew = time.Second * time.Duration(i+2)
		k.simProc.start()
		w.procs = append(w.procs, &k.simProc)
	}
	for i := range w.clients[:w.conf.clients] {
		c := &w.clients[i]
		c.hb = w.conf.hb * time.Duration(3-i) / 3
		c.skew = time.Second * time.Duration(i+5)
		c.life = 0
		c.simProc.start()
		w.procs = append(w.procs, &c.simProc)
	}
	for i := range w.plains[:w.conf.plains] {
		p := &w.plains[i]
		p.b = &w.brokers[i%w.conf.brokers]
		p.adv, p.hb = i == 1, w.conf.hb
		p.skew = time.Second * time.Duration(i+8)
		p.simProc.start()
		w.procs = append(w.procs, &p.simProc)
	}
	for i := range w.guests[:w.conf.guests] {
		g := &w.guests[i]
		g.b, g.is, g.lis, g.many = &w.brokers[i%w.conf.brokers], w.conf.guestIs[i], w.conf.guestAt[i], w.conf.guestMany[i]
		g.hb, g.skew = w.conf.hb, time.Second*time.Duration(i+11)
		g.simProc.start()
		w.procs = append(w.procs, &g.simProc)
	}
	for i := range w.helpers[:w.conf.helpers] {
		h := &w.helpers[i]
		h.b, h.is, h.service = &w.brokers[i%w.conf.brokers], w.conf.helperIs[i], byte(i%w.conf.services)
		h.conc, h.hb, h.skew = 1+int(head>>(48+i)&1), w.conf.hb, time.Second*time.Duration(i+15)
		h.simProc.start()
		w.procs = append(w.procs, &h.simProc)
	}
	for i := range w.raws[:w.conf.raws] {
		r := &w.raws[i]
		r.b = &w.brokers[i%w.conf.brokers]
		r.simProc.start()
		w.procs = append(w.procs, &r.simProc)
	}
}

// key is what the requests of some calls have as theirs.
func (w *simWorld) key(call int) string { return [...]string{"", "a", "b", "c"}[call%4] }

func (w *simWorld) service(s byte) string { return [...]string{"even", "odd"}[int(s)%w.conf.services] }

// simRIDs and simData are the ids and the data of requests, by call.
var simRIDs, simData = func() (rids [simClients][]string, data [][]byte) {
	for i := range 1024 {
		for c := range rids {
			rids[c] = append(rids[c], fmt.Sprintf("plain-%d-%d", c, i))
		}
		data = append(data, fmt.Appendf(nil, `"c%04x"`, i))
	}
	return rids, data
}()

func (w *simWorld) data(call int) []byte { return simData[call] }

// clientOf says whose a link is in the book; -1: no client's.
func (w *simWorld) clientOf(l *simLink) int {
	switch h := l.peer.host.(type) {
	case *simPlain:
		return h.num
	case *simClient:
		return h.num
	case *simGuest:
		return h.num
	}
	return -1
}

// event is called after each message that a peer took.
func (w *simWorld) event() { w.events++ }

// mix keeps the running hash of all that is sent (R4).
func (w *simWorld) mix(b []byte, s byte) {
	if !w.hashing {
		return
	}
	h := w.hash
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	w.hash = (h ^ uint64(s) ^ uint64(w.now)) * 1099511628211
}

// simFailure is why a history fails.
type simFailure struct{ text string }

func (w *simWorld) fail(format string, a ...any) {
	panic(&simFailure{fmt.Sprintf(format, a...)})
}

// due is when something happens by itself.
func (w *simWorld) due(network bool) instant {
	due := never
	for _, p := range w.procs {
		switch {
		case p.down:
			due = min(due, p.restart)
		case !p.stopped:
			due = min(due, p.host.due())
		}
	}
	if network {
		due = min(due, w.netDue())
	}
	return due
}

// timers lets everybody do what is due now.
func (w *simWorld) timers() {
	for _, p := range w.procs {
		switch {
		case p.down && p.restart <= w.now:
			p.start()
		case !p.running():
		case p.host.due() <= w.now:
			p.host.turn()
		}
	}
}

// run lets time pass, with a turn whenever one is due.
func (w *simWorld) run(d time.Duration, network bool) {
	end := w.now + d
	for steps := 0; ; steps++ {
		if steps > 20_000 {
			w.fail("the world is never quiet")
		}
		if network {
			w.deliver()
		}
		due := max(w.due(network), w.now)
		if due > end {
			break
		}
		w.now = due
		w.timers()
	}
	w.now = end
}
