package omdp

import (
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// simProc is a process: it has a clock of its own, and may be stopped (it takes
// no steps, and what is sent to it fills its pipe), or down.
type simProc struct {
	w       *simWorld
	name    string
	host    simHost
	skew    instant // its clock is the world's plus this
	stopped bool
	down    bool
	restart instant // by the world's clock, while it is down

	turned  instant // by its clock: the last turn
	paused  bool    // it was stopped, or its clock jumped, since then
	graceOf instant // silence before this may not count (R3) …
	mustOf  instant // … and before this must not
}

// simHost is what runs in a process that has links.
type simHost interface {
	connected(l *simLink)
	receive(l *simLink, f [][]byte)
	lost(l *simLink)
	due() instant // by the world's clock
	turn()        // timers
	start()
	die(kind int)
}

func (p *simProc) running() bool                  { return !p.stopped && !p.down }
func (p *simProc) now() instant                   { return p.w.now + p.skew }
func (p *simProc) connected(l *simLink)           { p.host.connected(l) }
func (p *simProc) receive(l *simLink, f [][]byte) { p.host.receive(l, f) }
func (p *simProc) lost(l *simLink)                { p.host.lost(l) }

// start begins a life of the process.
func (p *simProc) start() {
	p.down, p.stopped, p.paused = false, false, false
	p.graceOf, p.mustOf, p.turned = 0, 0, p.now()
	p.host.start()
}

// kill ends the process; how its peers learn of it is the network's.
func (p *simProc) kill(kind int, restart instant) {
	if p.w.tracing {
		p.w.tracef("%s is killed (%d)", p.name, kind)
	}
	p.down, p.restart = true, restart
	p.host.die(kind)
}

// cutAll ends what a killed process had open.
func (p *simProc) cutAll(kind int) {
	for i := 0; i < len(p.w.live); i++ {
		if l := p.w.live[i]; l.peer == p && l.peerOpen {
			p.w.cut(l, [...]int{cutBoth, cutLate, cutBrokerHalf}[kind%3], kind/3%4)
			l.peerOpen = false
			l.down.reset()
			l.unsent.reset()
		}
	}
}

// world turns an instant of the process into one of the world.
func (p *simProc) world(t instant) instant {
	if t == never {
		return never
	}
	return t - p.skew
}

// wakes notes a turn: after a pause, silence counts from now on. A pause that
// is over half a beat may be noticed; one that is over by more than the wait
// for the next turn must be.
func (p *simProc) wakes(hb time.Duration) {
	now := p.now()
	if p.paused {
		p.paused = false
		if gap := now - p.turned; gap > hb/2 {
			p.graceOf = now
			if gap > 3*hb/2+100*time.Millisecond {
				p.mustOf = now
			}
		}
	}
	p.turned = now
}

// simBroker is a broker's loop around the core, as Broker.turn is.
type simBroker struct {
	simProc
	num  int
	life int
	d    *dispatcher
	in   batch.In
	m    message
	at   instant // when it has to turn, by its clock

	before counters
	moves  uint64 // in the heap of timers
	armed  int
	book   brokerBook
}

var simLives = func() (s [64]string) {
	for i := range s {
		s[i] = string(append([]byte("life-of-broker-------"), base64url[i]))
	}
	return s
}()

// start begins a life of the broker: it knows nothing of a former one.
func (b *simBroker) start() {
	w := b.w
	b.life++
	b.skew = time.Second - w.now
	seed := [32]byte{byte(b.num), byte(b.life), byte(w.conf.head)}
	id := simLives[(b.num*29+b.life)%len(simLives)]
	b.d = newDispatcher(w.limits(), caps{V: 1, ID: id, HB: w.conf.hb.Milliseconds(), Pack: 1, Frame: w.conf.frame}, seed, w.conf.listeners)
	w.listen(b.d)
	b.d.policies = map[string]DispatchPolicy{w.service(0): w.conf.policies[0]}
	if w.conf.services > 1 {
		b.d.policies[w.service(1)] = w.conf.policies[1]
	}
	b.at = never
	b.turned = b.now()
	b.book.reset()
	if w.tracing {
		w.tracef("b%d starts", b.num)
	}
}

func (b *simBroker) die(kind int) {
	w := b.w
	w.book.brokerDied(b)
	for i := 0; i < len(w.live); i++ {
		l := w.live[i]
		if l.b != b || !l.connected {
			continue
		}
		l.brokerOpen = false
		l.up.reset()
		if l.void {
			continue
		}
		l.void = true
		switch kind % 4 {
		case 0, 1:
			w.peerNotices(l)
		case 2:
			l.down.keep(1) // it notices later
		}
	}
}

func (b *simBroker) connected(*simLink)         {}
func (b *simBroker) receive(*simLink, [][]byte) {}
func (b *simBroker) lost(*simLink)              {}

func (b *simBroker) due() instant { return b.world(b.at) }

// begin is the first part of a turn: what is due.
func (b *simBroker) begin() {
	now := b.now()
	b.wakes(b.w.conf.hb)
	b.open()
	if b.d.expire(now); !b.idle() {
		b.done(nil)
	}
	b.flush()
}

func (b *simBroker) turn() {
	b.begin()
	b.end()
}

// take lets the broker receive up to n messages of a link in one turn.
func (b *simBroker) take(l *simLink, n int) {
	b.begin()
	for ; n > 0 && l.up.due() <= b.w.now; n-- {
		in := &b.in
		in.Invalidate()
		in.B = append(in.B, l.up.front()...)
		l.up.pop()
		if b.w.tracing {
			b.w.traceMessage(b.name+"<", l, in.B, false)
		}
		f := in.Next()
		b.open()
		ok := b.d.read(l.lis, l.bytes(), f, &b.m)
		b.w.book.arrives(b, l, ok, f)
		if ok {
			b.d.receive(b.now(), l.lis, l.bytes(), &b.m)
		} else {
			b.d.malformed(b.now(), l.lis, l.bytes(), b.m.worker)
		}
		b.w.book.arrived(b, l, ok, f)
		b.done(l)
		b.w.events++
	}
	if l.unsent.len() > 0 {
		b.w.push(l)
	}
	b.end()
}

func (l *simLink) bytes() []byte { return append(l.b.w.idBuf[:0], l.id...) }

// open notes what the core has said before a step.
func (b *simBroker) open() {
	b.before = b.d.stats
	for i := range b.d.boxes {
		b.book.said[i] = b.d.boxes[i].out.Len()
	}
	b.moves, b.armed = b.d.timers.steps, len(b.d.timers.a)+b.d.blocked.n
}

// outputs counts what the core has said since open.
func (b *simBroker) outputs() (n int) {
	for i := range b.d.boxes {
		n += b.d.boxes[i].out.Len() - b.book.said[i]
	}
	return n
}

// pending is the first listener that has something to send, -1 if none has.
func (b *simBroker) pending() int {
	for i := range b.d.boxes {
		if b.d.pending(i) {
			return i
		}
	}
	return -1
}

// idle tells whether a step without a message did nothing at all.
func (b *simBroker) idle() bool {
	d := b.d
	return b.outputs() == 0 && d.timers.steps == b.moves && d.clients+d.workers == b.book.total &&
		len(d.timers.a)+d.blocked.n == b.armed && d.stats == b.before
}

// done looks at what a step of the core did; l is whose message it was.
func (b *simBroker) done(l *simLink) {
	w, d := b.w, b.d
	if l != nil {
		w.book.meet(b, l) // before what it is given at once
	}
	w.book.cleared(b)
	if d.stats.Dispatched != b.before.Dispatched {
		for lis := range d.boxes {
			out := &d.boxes[lis].out
			for i := b.book.said[lis]; i < out.Len(); i++ {
				w.book.emitted(b, out.Message(i))
			}
		}
	}
	if l != nil && !b.countOutputs(l) {
		w.fail("I15: %d outputs for one input", b.outputs())
	}
	if l == nil || !b.idle() { // a bare beat changes nothing that is checked
		if err := d.check(); err != nil {
			w.fail("b%d: %v", b.num, err)
		}
	}
	d.notes = d.notes[:0]
	w.book.known(b, l)
	w.book.helped(b)
}

// countOutputs: I15: at most two outputs per input, besides dispatches (each
// may bring a notification), ends of requests (a terminal and a CANCEL), and
// credit that waited for a client to greet.
func (b *simBroker) countOutputs(l *simLink) bool {
	d, was := b.d, &b.before
	n := b.outputs()
	if n <= 2 {
		return true
	}
	ends := b.book.requests + int(d.stats.Accepted-was.Accepted) - d.requests.n
	if b.m.op == opHello && !b.m.worker {
		ends += b.d.peers[l.lis][l.id].bodies
	}
	if b.m.op == opHeartbeat && b.m.worker { // one of a worker that does not beat for each
		ends += l.book.held
	}
	return n <= 2+2*int(d.stats.Dispatched-was.Dispatched)+2*ends
}

// flush hands the outbox to the network until there is nothing to send.
func (b *simBroker) flush() {
	w, d := b.w, b.d
	for round := 0; b.pending() >= 0; round++ {
		if round > 300 {
			w.fail("b%d never stops sending", b.num)
		}
		lis := b.pending()
		out := d.take(lis)
		b.book.inBatch = [2]bool{}
		origins := d.boxes[lis].oldOrigin
		for i := range out.Results {
			packed := out.Message(i)
			l := w.linkOf(packed[8:13]) // number of frames, length, then the routing id
			s := batch.Unreachable
			if l != nil {
				s = w.route(l, packed)
				if s == batch.Sent && l.book.full { // in order: nothing passes what had no room
					w.fail("omdp sim: a message passed another")
				}
			}
			out.Results[i] = s
			if w.tracing && (s != batch.Again || !origins[i].backlog) {
				w.traceMessage(b.name+[...]string{"", ">", " has no room for", " can't reach"}[s], l, packed, true)
			}
			if l != nil {
				w.book.result(b, l, packed, s, origins[i].backlog)
			}
			w.mix(packed, byte(s))
		}
		b.open()
		if d.settleSent(b.now(), lis); b.book.unsure || !b.idle() {
			b.done(nil)
		}
		w.book.settled(b)
	}
}

// end is the last part of a turn: when the next has to be.
func (b *simBroker) end() {
	b.flush()
	d := b.d
	if b.w.allRead(b) {
		for lis := range d.boxes {
			b.open()
			if d.drained(b.now(), lis); !b.idle() {
				b.done(nil)
				b.flush()
			}
		}
	}
	b.at = d.deadline()
	if d.retryAt <= b.at { // a few tries in a second are as good as thousands
		b.at = max(b.at, d.now+40*time.Millisecond)
		b.at = min(b.at, max(d.timers.next(), d.now))
	}
	b.w.book.turned(b)
	b.w.events++
	if b.book.draining && !b.book.shut && d.idle() {
		b.shut()
	}
}

// shut: the broker ends in order; its peers have what it said last.
func (b *simBroker) shut() {
	w := b.w
	if w.tracing {
		w.tracef("b%d shuts down", b.num)
	}
	b.book.draining, b.book.shut = true, true
	b.open()
	b.d.shut(b.now())
	b.done(nil)
	b.flush()
	for i := 0; i < len(w.live); i++ {
		for l := w.live[i]; l.b == b && w.canDown(l); {
			w.handDown(l)
		}
	}
	b.kill(0, w.now+w.conf.hb/2)
}

// broker gives the broker that the process is, or nil.
func (p *simProc) broker() *simBroker { b, _ := p.host.(*simBroker); return b }

// drain: the broker says that it leaves.
func (b *simBroker) drain() {
	if b.w.tracing {
		b.w.tracef("b%d drains", b.num)
	}
	b.begin()
	b.book.draining = true
	b.open()
	b.d.drain(b.now())
	b.done(nil)
	b.end()
}
