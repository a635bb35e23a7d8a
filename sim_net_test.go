package omdp

import (
	"fmt"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// The simulated network: what a ROUTER and its peers' DEALERs can do to
// messages. Within a connection order is kept and nothing is lost but at its
// end; what is in flight then is lost, or still arrives late at the broker.
// Between connections anything may overtake anything.

// pipe holds packed messages in order.
type pipe struct {
	buf  []byte
	ends []pipeEnd
	head int // of ends
	from int // of buf: where the head begins
}

type pipeEnd struct {
	end int
	at  instant // not to be had before
}

func (p *pipe) reset() { p.buf, p.ends, p.head, p.from = p.buf[:0], p.ends[:0], 0, 0 }

func (p *pipe) len() int { return len(p.ends) - p.head }

func (p *pipe) put(m []byte, at instant) {
	if p.head == len(p.ends) {
		p.reset()
	}
	p.buf = append(p.buf, m...)
	p.ends = append(p.ends, pipeEnd{len(p.buf), at})
}

func (p *pipe) front() []byte { return p.buf[p.from:p.ends[p.head].end] }

// due is when the head may be had; never if there is none.
func (p *pipe) due() instant {
	if p.head == len(p.ends) {
		return never
	}
	return p.ends[p.head].at
}

func (p *pipe) pop() {
	p.from = p.ends[p.head].end
	p.head++
}

// keep loses all but the first n.
func (p *pipe) keep(n int) {
	if n < p.len() {
		p.ends = p.ends[:p.head+n]
	}
}

// simLink is one connection, from its making by the peer to its end. The two
// sides learn of that end separately.
type simLink struct {
	num    int
	id     string // the peer's routing id: fresh for every connection
	b      *simBroker
	peer   *simProc
	worker bool
	lis    int   // the broker's listener
	wire   *wire // what the peer speaks

	up, down pipe
	unsent   pipe // what the network has not taken: no connection yet, or no room
	seq      int  // messages appended by the peer; all but unsent.len() were taken

	connectAt  instant // the handshake is done then, if the broker runs
	connected  bool
	peerOpen   bool // the peer has the socket open
	brokerOpen bool // the ROUTER has a pipe for it: else EHOSTUNREACH
	void       bool // the network is cut: what is sent vanishes
	holdUp     bool // nothing gets through for now
	holdDown   bool
	room       int // messages that fit its pipe from the broker
	roomUp     int
	latency    instant
	unsure     bool    // … which of them have ended, the wire does not tell
	toldOf     []int32 // calls whose replies, which name none, are on the way

	book linkBook
}

func (l *simLink) sent() int { return l.seq - l.unsent.len() }

func (l *simLink) String() string { return l.id }

// over tells whether nothing can come of the link any more.
func (l *simLink) over() bool { return !l.peerOpen && !l.brokerOpen && l.up.len() == 0 }

var simIDs = func() (ids [4096]string) {
	for i := range ids {
		ids[i] = fmt.Sprintf("L%04x", i)
	}
	return ids
}()

// linkOf finds the link that a routing id names; nil for any other id.
func (w *simWorld) linkOf(id []byte) *simLink {
	if len(id) != 5 || id[0] != 'L' {
		return nil
	}
	n := 0
	for _, c := range id[1:] {
		v := hexValue(c)
		if v < 0 {
			return nil
		}
		n = n<<4 | v
	}
	if n >= w.nlinks {
		return nil
	}
	return w.links[n]
}

func hexValue(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// dial opens a link of p to b.
func (w *simWorld) dial(p *simProc, b *simBroker, worker bool, lis int, x Dialect) *simLink {
	if w.nlinks == len(simIDs) {
		w.fail("too many connections")
	}
	if w.nlinks == len(w.links) {
		w.links = append(w.links, &simLink{})
	}
	l := w.links[w.nlinks]
	up, down, unsent := l.up, l.down, l.unsent
	up.reset()
	down.reset()
	unsent.reset()
	*l = simLink{
		num: w.nlinks, id: simIDs[w.nlinks], b: b, peer: p, worker: worker, lis: lis, wire: wires[x], up: up, down: down, unsent: unsent,
		peerOpen: true, room: w.conf.room, roomUp: 1 << 20,
		latency: w.conf.latency * instant(1+w.nlinks%3),
	}
	if w.healing {
		l.room = max(l.room, 64)
	}
	l.connectAt = w.now + 2*l.latency
	w.nlinks++
	w.live = append(w.live, l)
	if w.tracing {
		w.tracef("%s dials b%d as %s", p.name, b.num, l.id)
	}
	return l
}

// sends puts what o holds on the link, as the peer's socket does.
func (w *simWorld) sends(l *simLink, o *batch.Out) {
	for i := range o.Len() {
		m := o.Message(i)
		l.seq++
		l.unsent.put(m, 0)
		if w.tracing {
			w.traceMessage(l.peer.name+">", l, m, false)
		}
	}
	o.Reset()
	o.Pack = false
	w.push(l)
}

// push lets the network take what it has room for.
func (w *simWorld) push(l *simLink) {
	if !l.connected || !l.peerOpen {
		return
	}
	for l.unsent.len() > 0 && l.up.len() < l.roomUp {
		if !l.void {
			l.up.put(l.unsent.front(), w.now+l.latency)
		}
		l.unsent.pop()
	}
}

// route is what the ROUTER does with one message for l.
func (w *simWorld) route(l *simLink, m []byte) batch.Status {
	switch {
	case l == nil || !l.brokerOpen:
		return batch.Unreachable
	case l.void:
		return batch.Sent // success is not delivery
	case l.down.len() >= l.room:
		return batch.Again
	}
	l.down.put(m, w.now+l.latency)
	return batch.Sent
}

// How a connection ends.
const (
	cutBoth       = iota // both sides learn of it at once
	cutLate              // … and what was on its way to the broker may still arrive
	cutBrokerHalf        // the broker's side stays open for now
	cutPeerHalf          // the peer's side stays open for now
	cutSilent            // nobody learns of it
	cutKinds
)

func (w *simWorld) cut(l *simLink, kind, kept int) {
	if l.void || !l.peerOpen {
		return
	}
	if w.tracing {
		w.tracef("cut %s (%s): kind %d, %d kept", l.id, l.peer.name, kind, kept)
	}
	l.void = true
	switch kind {
	case cutBoth:
		l.up.keep(0)
		l.brokerOpen = false
	case cutLate:
		l.up.keep(kept)
		l.brokerOpen = false
	case cutBrokerHalf:
		l.up.keep(kept)
	case cutPeerHalf:
		l.up.keep(kept)
		l.down.keep(kept)
		l.brokerOpen = false
		return
	case cutSilent:
		l.up.keep(kept)
		l.down.keep(kept)
		return
	}
	w.peerNotices(l)
}

// peerNotices closes the peer's side: what it has not read is dropped.
func (w *simWorld) peerNotices(l *simLink) {
	if !l.peerOpen {
		return
	}
	w.closeLink(l)
	l.peer.lost(l)
}

// closeLink is the peer closing its socket: what the network took still
// arrives, unless that is cut, and then the ROUTER forgets the peer.
func (w *simWorld) closeLink(l *simLink) {
	l.peerOpen = false
	l.down.reset()
	l.unsent.reset()
	if !l.void {
		l.brokerOpen = false
	}
	l.void = true
	if w.tracing {
		w.tracef("%s closes %s", l.peer.name, l.id)
	}
}

// mend ends what holds the network up; half-open connections are found out.
func (w *simWorld) mend() {
	for i := 0; i < len(w.live); i++ { // it may grow
		l := w.live[i]
		l.holdUp, l.holdDown = false, false
		l.room, l.roomUp = max(l.room, 64), 1<<20
		w.push(l)
		if l.void {
			l.brokerOpen = false
			w.peerNotices(l)
		}
	}
}

// sweep forgets links of which nothing can come.
func (w *simWorld) sweep() {
	n := 0
	for _, l := range w.live {
		if !l.over() {
			w.live[n] = l
			n++
		}
	}
	w.live = w.live[:n]
}

// canUp and canDown tell whether the head of a pipe may be delivered now.
func (w *simWorld) canUp(l *simLink) bool {
	return !l.holdUp && l.b.running() && l.up.due() <= w.now
}

func (w *simWorld) canDown(l *simLink) bool {
	return !l.holdDown && l.peerOpen && l.peer.running() && l.down.due() <= w.now
}

// allRead tells whether b has received all that has arrived.
func (w *simWorld) allRead(b *simBroker) bool {
	for _, l := range w.live {
		if l.b == b && !l.holdUp && l.up.due() <= w.now {
			return false
		}
	}
	return true
}

// netDue is when the network has something to do next, by itself.
func (w *simWorld) netDue() instant {
	due := never
	for _, l := range w.live {
		if !l.connected {
			if l.peerOpen && l.peer.running() && l.b.running() && !l.holdUp {
				due = min(due, l.connectAt)
			}
			continue
		}
		if !l.holdUp && l.b.running() {
			due = min(due, l.up.due())
		}
		if !l.holdDown && l.peerOpen && l.peer.running() {
			due = min(due, l.down.due())
		}
	}
	return due
}

// connect finishes handshakes that are due.
func (w *simWorld) connect() {
	for i := 0; i < len(w.live); i++ {
		l := w.live[i]
		if l.connected || !l.peerOpen || l.holdUp || l.connectAt > w.now || !l.peer.running() || !l.b.running() {
			continue
		}
		l.connected, l.brokerOpen = true, true
		if w.tracing {
			w.tracef("%s is connected to b%d by %s", l.peer.name, l.b.num, l.id)
		}
		w.push(l)
		l.peer.connected(l)
	}
}

// deliver hands over everything that may be had now, until all is quiet.
// A broker takes what a link has in one turn.
func (w *simWorld) deliver() {
	for round := 0; ; round++ {
		if round > 1000 {
			w.fail("the network is never quiet: somebody answers for ever")
		}
		w.connect()
		busy := false
		for i := 0; i < len(w.live); i++ {
			l := w.live[i]
			if w.canUp(l) {
				busy = true
				l.b.take(l, 16)
			}
			for w.canDown(l) {
				busy = true
				w.handDown(l)
			}
		}
		if !busy {
			break
		}
	}
	w.sweep()
}

// handDown gives the peer one message.
func (w *simWorld) handDown(l *simLink) {
	in := &w.in
	in.Invalidate()
	in.B = append(in.B, l.down.front()...)
	l.down.pop()
	if w.tracing {
		w.traceMessage(l.peer.name+"<", l, in.B, true)
	}
	f := in.Next()
	if l.wire == wires[OMDP] {
		w.book.hears(l, f[1:])
	}
	l.peer.receive(l, f[1:])
	w.event()
}

// waits of the simulation, as a class and the heartbeat.
func (w *simWorld) span(class int) time.Duration {
	hb := w.conf.hb
	return [...]time.Duration{0, time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, hb / 5, hb / 2, hb, 2 * hb,
		hb*time.Duration(w.conf.liveness) + hb/2, hb * time.Duration(w.conf.liveness+2)}[class%10]
}
