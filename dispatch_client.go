package omdp

import (
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// What clients send, and the life of a request from its acceptance to its end.

func (d *dispatcher) fromClient(l int, id []byte, p *peer, m *message) {
	switch m.op {
	case opRequest:
		d.onRequest(l, id, p, m)
	case opHello:
		d.onHello(l, id, p, m)
	case opHeartbeat:
		d.onClientHeartbeat(l, id, p, m)
	case opCredit:
		if r := d.lookup(p, m.rid); r == nil {
			d.stats.Stray++
		} else if r.slot != nil && r.slot.worker.adv {
			d.onCredit(r, m)
		}
	case opCancel:
		if r := d.lookup(p, m.rid); r != nil {
			d.stats.Canceled++
			d.drop(r, causeClient)
		} else {
			d.stats.Stray++
		}
	case opPiece:
		d.onPiece(p, m)
	case opBlocked:
		d.onClientBlocked(p, m)
	}
}

// lookup finds a live request of this very client (I8).
func (d *dispatcher) lookup(p *peer, rid []byte) *request {
	if p == nil || p.outstanding == 0 {
		return nil
	}
	return d.requests.find(p, rid, d.requests.hash(p, rid))
}

// addClient makes p, or a new peer, a client of dialect w; nil at the limit.
func (d *dispatcher) addClient(l int, id []byte, p *peer, w *wire) *peer {
	if p == nil {
		if d.clients >= d.lim.clients {
			d.stats.Overloaded++
			return nil
		}
		p = d.addPeer(l, id)
	}
	p.role = roleClient
	d.speaks(p, w)
	return p
}

func (d *dispatcher) onHello(l int, id []byte, p *peer, m *message) {
	c, ok := parseCaps(m.caps)
	if !ok {
		d.onMalformed(l, id, p, false)
		return
	}
	if p = d.addClient(l, id, p, m.wire()); p == nil {
		return
	}
	if p.life != "" && p.life != c.ID { // another life under the same routing id: the old one's calls are over
		d.dropAll(p)
	}
	if p.life != c.ID {
		d.rekey(p, d.requests.keyOf(c.ID, -1))
	}
	p.adv, p.life, p.told, p.window = true, c.ID, c.interval(), min(c.Credit, 1<<40)
	p.pack, p.many, p.grow, p.body = c.Pack > 0, c.Pack > 1, c.Grow > 0, min(c.Body, maxCredit)
	if d.mayTell(p) {
		appendHelloTo(d.open(p), p.id, headerClient, &d.self)
		d.close(p, origin{})
		if d.draining { // it came too late to be told with the others
			appendToClient(d.open(p), p.id, opDrain, nil, nil)
			d.close(p, origin{})
		}
	}
	d.watch(p)
	d.payInflows(p)
}

// rekey files what a client has under its life: a peer that was forgotten may
// ask before it greets again.
func (d *dispatcher) rekey(p *peer, key uint64) {
	for k := p.requests.head; k != nil; k = k.next {
		d.requests.remove(k.owner)
	}
	p.key = key
	for k := p.requests.head; k != nil; k = k.next {
		d.requests.add(k.owner, d.requests.hash(p, k.owner.rid()))
	}
}

// watch notes that a client beats, so that its silence will be noticed in time.
func (d *dispatcher) watch(p *peer) {
	p.beats = true
	if at := d.now + d.limitOf(p); at < p.timer.at {
		d.timers.set(&p.timer, at)
	}
}

// onClientHeartbeat forwards a beat for a request to its worker. One for a
// request that is not held is answered LOST, so that calls of a broker's
// former life end; by the order of the outbox it can't overtake a reply.
func (d *dispatcher) onClientHeartbeat(l int, id []byte, p *peer, m *message) {
	if p != nil {
		d.watch(p)
	}
	if m.rid == nil {
		d.answerBeat(l, id, p, m)
		return
	}
	r := d.lookup(p, m.rid)
	if r == nil {
		d.stats.UnknownRequests++
		if p == nil || p.role == roleNone { // known from now on, so that the answer can wait for room
			if p = d.addClient(l, id, p, m.wire()); p == nil {
				m.wire().appendError(d.openUnknown(l), target{id: string(id), rid: m.rid}, statusLost, "")
				d.closeUnknown(l)
				return
			}
			d.watch(p)
		}
		d.sayStatus(p, "", m.rid, statusLost, "")
		return
	}
	if r.slot != nil && r.slot.worker.wire.watches && !r.slot.worker.backlog.blocked() { // beats come again: they are not kept for a worker without room
		d.beatFor(r.slot)
	}
}

func (d *dispatcher) onRequest(l int, id []byte, p *peer, m *message) {
	if p == nil || p.role == roleNone {
		if p = d.addClient(l, id, p, m.wire()); p == nil {
			m.wire().appendError(d.openUnknown(l), target{string(id), string(m.service), m.rid}, statusOverloaded, "false")
			d.closeUnknown(l)
			return
		}
	}
	if w := p.wire; w.numbered && !w.noticed && !w.answers { // its clients beat from the start, and can't be probed
		d.watch(p)
	}
	if d.number(m); d.internal(p, m) {
		return
	}
	hash := d.requests.hash(p, m.rid)
	if p.outstanding > 0 && d.requests.find(p, m.rid, hash) != nil { // a live id creates nothing (I21)
		d.stats.Duplicates++
		return
	}
	o, ok := parseOptions(m.options)
	if !ok || m.pieces && o.more == 0 {
		d.sayStatus(p, string(m.service), m.rid, statusMalformed, "false")
		d.onMalformed(l, id, p, false)
		return
	}
	if p.wire.patterns && namesWorker(m.options) { // ids of workers are the broker's own
		d.stats.Refused++
		d.sayStatus(p, string(m.service), m.rid, statusForeign, "false")
		return
	}
	asked := max(o.attempt, 1)
	if r := d.requests.elsewhere(p, m.rid, hash); r != nil {
		if asked <= r.asked { // an older socket's, which came late
			d.stats.Duplicates++
			return
		}
		if d.adopt(r, p, o, m.pieces) {
			return
		}
	}
	if e, ok := d.finished.find(d.now, mark(hash, m.rid)); ok && (e.reported || asked <= int(e.attempt)) {
		d.stats.Refused++
		d.stats.Repeated++
		d.sayStatus(p, string(m.service), m.rid, statusDuplicate, e.executed())
		return
	}
	s := p.lastService
	if s == nil || s.gone || s.name != string(m.service) || s.workers == 0 {
		s = d.resolve(m.service)
		p.lastService = s
	}
	if status := d.refuse(p, s, m, o); status != "" {
		if status == statusOverloaded {
			d.stats.Overloaded++
		}
		d.stats.Refused++
		d.sayStatus(p, string(m.service), m.rid, status, "false")
		return
	}
	if s == nil {
		s = d.addService(m.service)
		p.lastService = s
	}
	d.stats.Accepted++
	r := d.addRequest(p, s, m.rid, o, m.pieces, hash)
	if r.form = m.form; s.name != string(m.service) {
		d.bridgeOf(r).name = string(m.service)
	}
	if s.queued == 0 && s.ready.front() != nil {
		d.give(r, m.data, m.options)
		return
	}
	r.keep(m.data, m.options, d.store)
	d.enqueue(r, false)
}

// refuse says why a request can't be accepted, or nothing.
func (d *dispatcher) refuse(p *peer, s *service, m *message, o options) string {
	size := int64(len(m.data) + len(m.options) + len(m.rid))
	switch {
	case d.draining:
		return statusDraining
	case p.backlog.slow, p.outstanding >= d.lim.outstanding:
		return statusOverloaded
	case s == nil && o.failFast, s != nil && s.workers == s.draining && o.failFast:
		return statusNoWorker
	case s == nil:
		if len(d.services) >= d.lim.services {
			return statusOverloaded
		}
	case s.ready.front() != nil && s.queued == 0: // goes to a worker at once
		return ""
	case s.queued >= d.lim.serviceQueue, s.bytes+size > d.lim.serviceBytes:
		return statusOverloaded
	}
	if d.queued >= d.lim.totalQueue || d.queuedBytes+size > d.lim.totalBytes || size > d.lim.serviceBytes {
		return statusOverloaded
	}
	return ""
}

// executed is what the broker knows of whether an ended request was executed.
func (e *ended) executed() string {
	switch {
	case e.reported:
		return "true"
	case !e.ran:
		return "false"
	}
	return ""
}

// adopt lets a request of a client's former socket answer to its new one, on
// which it was sent again: what is queued or in progress is not done twice. It
// reports false if it could not: partials and pieces are lost with the former
// socket, and pieces do not come if the new one brought the data whole. Then that
// attempt is over, and the request starts anew.
func (d *dispatcher) adopt(r *request, p *peer, o options, pieces bool) bool {
	switch {
	case r.slot != nil && r.slot.partial, r.more != 0 && (r.slot != nil || !pieces):
		d.stats.ClientGone++
		d.drop(r, causeGone)
		return false
	case d.draining || p.backlog.slow || p.outstanding >= d.lim.outstanding:
		d.stats.Refused++
		status := statusDraining
		if !d.draining {
			d.stats.Overloaded++
			status = statusOverloaded
		}
		d.sayStatus(p, r.asks(), r.rid(), status, "") // the former attempt may be executed
		return true
	}
	d.stats.Adopted++
	queued := r.queue != nil
	if queued {
		d.dequeue(r)
	}
	d.disown(r)
	r.client, r.asked = p, max(o.attempt, 1)
	d.own(r)
	d.setDeadline(r, o)
	if queued {
		d.enqueue(r, false)
	}
	return true
}

// own files a request under its client, disown takes it away.
func (d *dispatcher) own(r *request) {
	p := r.client
	p.requests.pushBack(&r.ofClient)
	p.outstanding++
	p.windows += r.window
	if r.more != 0 {
		p.bodies++
	}
}

func (d *dispatcher) disown(r *request) {
	p := r.client
	p.requests.remove(&r.ofClient)
	p.outstanding--
	p.windows -= r.window
	if r.more != 0 {
		p.bodies--
	}
	if !p.beats {
		p.seen = d.now // remembered until it had the time to take what ended this
	}
}

// setDeadline arms the timer of a request by what its options ask for.
func (d *dispatcher) setDeadline(r *request, o options) {
	t := o.timeout
	if t == timeoutDefault {
		t = d.lim.defaultTimeout
	}
	if d.lim.maxTimeout > 0 && (t < 0 || t > d.lim.maxTimeout) {
		t = d.lim.maxTimeout
	}
	if t >= 0 && t < never-d.now {
		d.timers.set(&r.deadline, d.now+t)
	} else {
		d.timers.remove(&r.deadline)
	}
}

func (d *dispatcher) addRequest(p *peer, s *service, rid []byte, o options, pieces bool, hash uint64) *request {
	var r *request
	if n := len(d.freeRequests); n > 0 {
		r = d.freeRequests[n-1]
		d.freeRequests = d.freeRequests[:n-1]
	} else {
		r = &request{}
		r.deadline.req = r
		r.ofClient.owner, r.inQueue.owner = r, r
	}
	r.client, r.service, r.arrived = p, s, d.now
	r.attempt, r.asked, r.reported, r.failFast = 0, max(o.attempt, 1), false, o.failFast
	r.key = keyHash(o.key)
	r.ridLen = copy(r.ridBuf[:], rid)
	r.window, r.grows = p.window, p.grow
	if o.credit > 0 && p.adv { // the caller has set a bound
		r.window, r.grows = o.credit, false
	}
	if r.more = 0; pieces { // else it is some user's own option
		r.more = o.more
	}
	d.requests.add(r, hash)
	d.own(r)
	s.requests++
	d.setDeadline(r, o)
	return r
}

// keep takes what a queued request needs later: a copy, or the block that the
// data is. letGo is its end.
func (r *request) keep(data, options []byte, s *batch.Store) {
	if r.block = s.Find(data); r.block != nil {
		r.block.Keep()
		r.data = r.block.Bytes
	} else {
		r.data = append(r.data[:0], data...)
	}
	r.options, r.hasOptions = append(r.options[:0], options...), options != nil
}

// letGo forgets what keep took, but for memory that the next one may use: what
// is rare and large goes back, as no limit counts it any more.
func (r *request) letGo() {
	if r.block != nil || cap(r.data)+cap(r.options) > 16<<10 {
		r.letGoLarge()
	}
}

func (r *request) letGoLarge() {
	if r.block != nil {
		r.block.Drop()
		r.block = nil
	}
	r.data, r.options = nil, nil
}

// removeRequest forgets a request that is in no queue and no slot.
func (d *dispatcher) removeRequest(r *request) {
	s := r.service
	d.requests.remove(r)
	d.timers.remove(&r.deadline)
	d.disown(r)
	if r.client.wire.numbered { // else its id is the broker's own, and never comes again
		d.finished.add(ended{mark(r.hash, r.rid()), d.now, int32(r.asked), r.reported, r.attempt > 0})
	}
	s.requests--
	d.releaseService(s)
	d.forget(r)
	r.client, r.service, r.slot, r.queue = nil, nil, nil, nil
	r.letGo()
	if len(d.freeRequests) < 1<<14 {
		d.freeRequests = append(d.freeRequests, r)
	}
}

// Causes that a CANCEL carries to the worker.
const (
	causeClient   = "client"
	causeDeadline = "deadline"
	causeGone     = "gone"
	causeStalled  = "stalled"  // nothing was heard of the request for its worker's liveness
	causeProtocol = "protocol" // its client or its worker sent what it may not
)

// drop ends a request without a word to its client: it was cancelled, it has
// had its terminal, or the client is gone. The worker learns the cause.
func (d *dispatcher) drop(r *request, cause string) {
	if sl := r.slot; sl != nil {
		d.drainSlot(sl, cause)
	} else if r.queue != nil { // else its dispatch is just being undone
		d.dequeue(r)
	}
	d.removeRequest(r)
}

// end gives a request its terminal, by a status of the broker's own.
func (d *dispatcher) end(r *request, status, executed, cause string) {
	d.sayTo(r, status, executed)
	d.drop(r, cause)
}

func (d *dispatcher) dropAll(p *peer) {
	for r := p.requests.front(); r != nil; r = p.requests.front() {
		d.stats.ClientGone++
		d.drop(r, causeGone)
	}
}

// clientGone forgets a client that can't be reached or was silent too long.
func (d *dispatcher) clientGone(p *peer, reason string) {
	if p.outstanding > 0 {
		d.note(noteClientGone, p, reason)
	}
	d.dropAll(p)
	d.removePeer(p)
}

// limitOf is how long p may be silent.
func (d *dispatcher) limitOf(p *peer) time.Duration {
	return lifeLimit(p.told, d.lim.heartbeat, d.lim.liveness)
}
