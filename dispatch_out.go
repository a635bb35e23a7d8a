package omdp

import (
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// outbox holds what one listener is to send, encoded at once: nothing that was
// emitted can change later (S7).
type outbox struct {
	out, spare         batch.Out
	origins, oldOrigin []origin
	unreachable        []*peer // workers to be lost when all that peers sent was read
}

// origin says what a message of an outbox was, for the case that it could not be sent.
type origin struct {
	peer    *peer // nil: a stranger
	slot    *slot // it was the dispatch of this slot …
	gen     uint64
	req     *request // what undo took off the slot
	backlog bool     // it came from the head of its peer's backlog
}

// backlog holds what a peer's pipe had no room for, in order, bounded by the
// limits. While there is any, everything to the peer joins it.
type backlog struct {
	out    *batch.Out
	peer   *peer
	slow   bool  // over the limit; its requests have ended
	sent   int   // scratch of settle
	most   int64 // bytes that it may hold: it does not shrink while there are any
	wait   time.Duration
	at     instant // when it is tried next
	trying bool    // its head is in an outbox
	node   node[backlog]
}

func (b *backlog) blocked() bool { return b.node.listed() }

// pass makes large frames travel as blocks of s. It is called before all else.
func (d *dispatcher) pass(s *batch.Store) {
	d.store = s
	for i := range d.boxes {
		b := &d.boxes[i]
		b.out.Store, b.spare.Store = s, s
	}
}

// release drops what is not sent, when everything has ended and nobody will take it.
func (d *dispatcher) release() {
	for i := range d.boxes {
		b := &d.boxes[i]
		b.out.Reset()
		b.spare.Reset()
	}
	for k := d.blocked.head; k != nil; k = k.next {
		k.owner.out.Reset()
	}
}

// open starts a message to p; close ends it.
func (d *dispatcher) open(p *peer) *batch.Out {
	o := &d.boxes[p.listener].out
	if p.backlog.blocked() {
		o = p.backlog.out
	}
	o.Pack, o.Bundle = p.pack, false
	return o
}

// openReply is open for a message that may go in one frame with those before it:
// whose sending, or not, is all the same to the core.
func (d *dispatcher) openReply(p *peer) *batch.Out {
	o := d.open(p)
	if p.many && !p.backlog.blocked() {
		b := &d.boxes[p.listener]
		n := len(b.origins)
		o.Bundle = n == 0 || b.origins[n-1] == origin{peer: p}
	}
	return o
}

func (d *dispatcher) close(p *peer, o origin) {
	o.peer = p
	if !p.backlog.blocked() {
		b := &d.boxes[p.listener]
		if len(b.origins) < b.out.Len() { // else it joined the one before
			b.origins = append(b.origins, o)
		}
		return
	}
	q := p.backlog.out
	d.grew(p, q.Size(q.Len()-1))
}

// openUnknown starts a message to a peer that has no entry; closeUnknown ends it.
func (d *dispatcher) openUnknown(l int) *batch.Out {
	o := &d.boxes[l].out
	o.Pack, o.Bundle = false, false
	return o
}

func (d *dispatcher) closeUnknown(l int) {
	d.boxes[l].origins = append(d.boxes[l].origins, origin{})
}

// mayTell is false for answers that would only add to what a hopelessly slow
// client does not read; they are counted and dropped.
func (d *dispatcher) mayTell(p *peer) bool {
	q := &p.backlog
	if p.dead || q.slow && (q.out.Len() > 2*d.lim.outbox || int64(q.out.Bytes()) > 2*q.most || d.outboxBytes > d.lim.totalOutbox) {
		d.stats.Dropped++
		return false
	}
	return true
}

// sayStatus sends an error of the broker's own.
func (d *dispatcher) sayStatus(p *peer, service string, rid []byte, status, executed string) {
	if status != statusSlowClient && !d.mayTell(p) {
		return
	}
	p.wire.appendError(d.open(p), target{p.id, service, rid}, status, executed)
	d.close(p, origin{})
}

// sayTo is sayStatus for a request that was accepted.
func (d *dispatcher) sayTo(r *request, status, executed string) {
	d.sayStatus(r.client, r.asks(), r.rid(), status, executed)
}

// sayDisconnect answers a worker in its dialect, or in that of a listener.
func (d *dispatcher) sayDisconnect(l int, id []byte, w *wire) {
	if w == nil {
		w = wires[d.dialects[l]]
	}
	w.appendFarewell(d.openUnknown(l), string(id))
	d.closeUnknown(l)
}

// pending tells whether listener l has something to send.
func (d *dispatcher) pending(l int) bool { return d.boxes[l].out.Len() > 0 }

// idle tells whether no request is held and nothing waits to be sent.
func (d *dispatcher) idle() bool {
	for l := range d.boxes {
		if d.pending(l) {
			return false
		}
	}
	return d.requests.n == 0 && d.blocked.n == 0
}

// take hands over what listener l is to send. It stays valid until settle,
// which the caller calls with the results filled in.
func (d *dispatcher) take(l int) *batch.Out {
	b := &d.boxes[l]
	d.turn++
	b.out, b.spare = b.spare, b.out
	b.origins, b.oldOrigin = b.oldOrigin[:0], b.origins
	return &b.spare
}

// settle looks at what became of the batch that take gave, where nothing is
// left that peers have sent.
func (d *dispatcher) settle(now instant, l int) {
	d.settleSent(now, l)
	d.drained(now, l)
}

// settleSent is settle while there may be more to receive. A worker that can't
// be reached may have sent its last finals and DISCONNECT before it closed: it
// is not lost until they were read, see drained.
func (d *dispatcher) settleSent(now instant, l int) {
	b := &d.boxes[l]
	for i, s := range b.spare.Results {
		if s != batch.Sent || b.oldOrigin[i].backlog {
			d.now = now
			d.settleSlowly(b)
			d.finish()
			break
		}
	}
	b.spare.Reset()
	if len(d.resting) > 0 {
		d.now = now
		d.resume()
	}
}

// drained is called when all that peers of listener l had sent was received:
// workers that can't be reached are lost now, if they did not take their leave.
func (d *dispatcher) drained(now instant, l int) {
	b := &d.boxes[l]
	if len(b.unreachable) == 0 {
		return
	}
	d.now = now
	for _, w := range b.unreachable {
		if !w.dead {
			d.workerLost(w, "unreachable")
		}
	}
	clear(b.unreachable)
	b.unreachable = b.unreachable[:0]
	d.finish()
}

// resume gives workers that had their share of the last batch more.
func (d *dispatcher) resume() {
	resting := d.resting
	d.resting = d.rested[:0]
	for _, w := range resting {
		w.resting = false
		if !w.dead {
			d.setReady(w)
			d.pump(w.service)
		}
	}
	clear(resting)
	d.rested = resting
	d.finish()
}

// settleSlowly: a message for which there was no room waits in its peer's
// backlog, a dispatch that was not sent was no attempt (I14a), and a peer that
// can't be reached is gone.
func (d *dispatcher) settleSlowly(b *outbox) {
	out := &b.spare
	var undone []int
	var gone, tried []*peer
	for i, s := range out.Results {
		o := b.oldOrigin[i]
		p := o.peer
		if p == nil || p.dead {
			continue
		}
		if o.backlog {
			if p.backlog.sent < 0 {
				p.backlog.sent = 0
				tried = append(tried, p)
			}
			if s == batch.Sent {
				p.backlog.sent++
				continue
			}
		}
		switch s {
		case batch.Sent:
			if o.slot != nil {
				p.backlog.wait = 0
			}
		case batch.Again:
			d.stats.Again++
			d.block(p)
			switch {
			case o.slot != nil:
				undone = append(undone, i)
				if p.backlog.out.Len() == 0 { // a beat finds out when there is room again
					p.wire.appendBeat(d.open(p), p.id, nil, nil)
					d.grew(p, p.backlog.out.Bytes())
				}
			case !o.backlog:
				p.backlog.out.AppendFrom(out, i)
				d.grew(p, out.Size(i))
			}
		default:
			d.stats.Unreachable++
			if o.slot != nil {
				undone = append(undone, i)
			}
			switch {
			case p.role != roleWorker:
				gone = append(gone, p)
			case !p.unreachable:
				p.unreachable = true
				d.setReady(p)
				b.unreachable = append(b.unreachable, p)
			}
		}
	}
	// First take every unsent dispatch off its worker, then forget who is gone,
	// then queue again, the first at the head.
	for _, i := range undone {
		if o := b.oldOrigin[i]; o.slot.gen == o.gen && o.slot.worker == o.peer {
			b.oldOrigin[i].req = d.undo(o.slot)
		}
	}
	for _, p := range gone {
		if !p.dead {
			d.clientGone(p, "unreachable")
		}
	}
	for k := len(undone) - 1; k >= 0; k-- {
		i := undone[k]
		if r := d.unsent(out, i, b.oldOrigin[i]); r != nil {
			d.enqueue(r, true)
		}
	}
	for _, i := range undone {
		if w := b.oldOrigin[i].peer; w.service != nil && d.services[w.service.name] == w.service {
			d.pump(w.service)
			d.abandoned(w.service)
		}
	}
	for _, p := range tried {
		if !p.dead {
			d.shrink(p)
		}
	}
}

// undo frees a slot whose REQUEST was never sent and returns its request, if
// that still lives.
func (d *dispatcher) undo(sl *slot) *request {
	w, r := sl.worker, sl.req
	if r != nil {
		d.stats.Requeued++
		r.attempt--
		r.slot = nil
	}
	d.freeSlot(sl)
	d.setReady(w)
	return r
}

// unsent gives the request of an undone dispatch its data back from message i
// of out. It returns nil if the request is gone by now.
func (d *dispatcher) unsent(out *batch.Out, i int, o origin) *request {
	if o.req == nil || o.req.client == nil {
		return nil
	}
	var in batch.In
	out.Read(i, &in)
	var m message
	f, r, w := in.Next()[1:], o.req, o.peer.wire
	if !w.parseAtWorker(f, &m) { // our own message, so it is well-formed: it was given before its worker showed its dialect
		parseAtWorker(f, &m)
	}
	b := r.bridge
	if b == nil {
		b = &bridge{}
	}
	switch {
	case b.whole:
		m.data, r.form = b.data, b.form
	case !w.opaque: // else the frames are those of any form
		r.form = m.form
	}
	switch {
	case b.has:
		m.options = b.kept()
	case b.lost, b.some && !w.options && m.options == nil: // there was no room to keep it, or them
		d.stats.Overloaded++
		d.end(r, statusOverloaded, "false", "")
		return nil
	}
	r.keep(m.data, m.options, d.store)
	d.letGoKept(b)
	return r
}

// Room.

// A blocked peer is tried again on a timer, as POLLOUT of a ROUTER says
// nothing of one peer (reliability.md, fact 7): soon after a burst, and rarely
// one that does not read at all.
const (
	retryMin   = 100 * time.Microsecond
	retryMax   = 5 * time.Millisecond
	retryEach  = 50 * time.Microsecond // … or so much for each peer that waits, if that is more
	retryCount = 512                   // messages of one peer tried at once
	retryPeers = 32                    // in one batch: an exchange remembers 64 refusals, and refuses all after them
)

func (d *dispatcher) block(p *peer) {
	if p.backlog.blocked() {
		return
	}
	if p.backlog.out == nil {
		p.backlog.out = &batch.Out{Store: d.store}
	}
	p.backlog.sent, p.backlog.trying = -1, false
	d.blocked.pushBack(&p.backlog.node)
	d.later(&p.backlog)
	if p.role == roleWorker {
		d.setReady(p)
	}
}

// later sets when q is tried next: twice as long after each try without success.
func (d *dispatcher) later(q *backlog) {
	q.wait = min(max(2*q.wait, retryMin), max(retryMax, time.Duration(d.blocked.n)*retryEach))
	q.at = d.now + q.wait
	d.retryAt = min(d.retryAt, q.at)
}

// grew accounts n bytes that joined p's backlog.
func (d *dispatcher) grew(p *peer, n int) {
	d.outboxBytes += int64(n)
	q := &p.backlog
	q.most = max(q.most, d.lim.outboxBytes)
	if p.adv { // it agreed to take so much: that it comes all at once is no fault of its
		q.most = max(q.most, min(2*p.windows, d.lim.totalOutbox/4)) // but not all that there is
	}
	size := int64(q.out.Bytes())
	// What all hold together is held against those with more than their share, and
	// twice as much against everybody: shares were larger while fewer had one.
	crowded := d.outboxBytes > d.lim.totalOutbox && size > d.lim.totalOutbox/int64(d.blocked.n) || d.outboxBytes > 2*d.lim.totalOutbox
	if !q.slow && (q.out.Len() > d.lim.outbox || size > q.most || crowded) {
		q.slow = true
		d.overflowed = append(d.overflowed, p)
	}
}

// shrink drops what was sent from the head of p's backlog, and unblocks p when
// nothing is left.
func (d *dispatcher) shrink(p *peer) {
	q := &p.backlog
	d.outboxBytes -= int64(q.out.Bytes())
	q.out.DropFront(q.sent)
	d.outboxBytes += int64(q.out.Bytes())
	if q.sent > 0 {
		q.wait = 0
	}
	q.sent, q.trying = -1, false
	if q.out.Len() == 0 {
		d.unblock(p)
	} else {
		d.later(q)
	}
}

func (d *dispatcher) unblock(p *peer) {
	p.backlog.slow, p.backlog.most = false, 0
	d.blocked.remove(&p.backlog.node)
	p.backlog.out.Reset()
	p.backlog.out = nil
	if d.blocked.n == 0 {
		d.retryAt = never
	}
	d.payInflows(p)
	if p.role == roleWorker && !p.dead {
		for k := p.slots.head; k != nil; k = k.next {
			d.payCredit(k.owner)
		}
		d.setReady(p)
		d.pump(p.service)
	}
}

func (d *dispatcher) dropBacklog(p *peer) {
	if p.backlog.blocked() {
		d.outboxBytes -= int64(p.backlog.out.Bytes())
		d.unblock(p)
	}
}

// retry tries the head of every backlog again.
func (d *dispatcher) retry() {
	d.retryAt = never
	tried := 0
	for k := d.blocked.head; k != nil; {
		q := k.owner
		k = k.next
		if q.at > d.now {
			d.retryAt = min(d.retryAt, q.at)
			continue
		}
		if q.trying { // its listener has not sent it yet
			continue
		}
		if tried++; tried > retryPeers { // the others in the next one, before these again
			d.retryAt = d.now
			return
		}
		q.trying = true
		d.blocked.remove(&q.node)
		d.blocked.pushBack(&q.node)
		b := &d.boxes[q.peer.listener]
		bytes := 0
		count := min(q.out.Len(), retryCount)
		if q.wait > retryMin { // there was no room for the first: do not copy all again and again
			count = 1
		}
		for i := 0; i < count && bytes < 1<<20; i++ {
			bytes += q.out.Size(i)
			b.out.AppendFrom(q.out, i)
			b.origins = append(b.origins, origin{peer: q.peer, backlog: true})
		}
	}
}

// finish ends a step: peers whose backlog went over the limit are dealt with
// here, where no list is being walked.
func (d *dispatcher) finish() {
	for len(d.overflowed)+len(d.relieved) > 0 {
		if n := len(d.relieved); n > 0 {
			w := d.relieved[n-1]
			d.relieved[n-1] = nil
			d.relieved = d.relieved[:n-1]
			if !w.dead {
				d.setReady(w)
				d.pump(w.service)
			}
			continue
		}
		p := d.overflowed[0]
		d.overflowed = append(d.overflowed[:0], d.overflowed[1:]...)
		if p.dead {
			continue
		}
		d.stats.SlowClients++
		d.note(noteSlow, p, "")
		if p.role == roleWorker {
			d.workerLost(p, "does not read")
			continue
		}
		for r := p.requests.front(); r != nil; r = p.requests.front() {
			executed := ""
			if r.slot == nil {
				executed = "false"
			}
			d.end(r, statusSlowClient, executed, causeGone)
		}
	}
}
