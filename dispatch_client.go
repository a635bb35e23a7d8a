package omdp

import "time"

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
		if r := d.lookup(p, m.rid); r != nil && r.slot != nil && r.slot.worker.adv {
			r.slot.owed = min(r.slot.owed+m.credit, maxCredit)
			d.payCredit(r.slot)
		}
	case opCancel:
		if r := d.lookup(p, m.rid); r != nil {
			d.stats.Canceled++
			d.drop(r, causeClient)
		}
	}
}

// lookup finds a live request of this very client (I8).
func (d *dispatcher) lookup(p *peer, rid []byte) *request {
	if p == nil || p.outstanding == 0 {
		return nil
	}
	return d.requests.find(p, rid, d.requests.hash(p, rid))
}

// addClient makes p, or a new peer, a client; nil at the limit.
func (d *dispatcher) addClient(l int, id []byte, p *peer) *peer {
	if p == nil {
		if d.clients >= d.lim.clients {
			d.stats.Overloaded++
			return nil
		}
		p = d.addPeer(l, id)
	}
	p.role = roleClient
	return p
}

func (d *dispatcher) onHello(l int, id []byte, p *peer, m *message) {
	c, ok := parseCaps(m.caps)
	if !ok {
		d.onMalformed(l, id, p, false)
		return
	}
	if p = d.addClient(l, id, p); p == nil {
		return
	}
	if p.life != "" && p.life != c.ID { // another life under the same routing id: the old one's calls are over
		d.dropAll(p)
	}
	p.adv, p.life, p.told, p.window = true, c.ID, c.interval(), min(c.Credit, 1<<40)
	p.pack = c.Pack > 0
	if d.mayTell(p) {
		appendHelloTo(d.open(p), p.id, headerClient, &d.self)
		d.close(p, origin{})
		if d.draining { // it came too late to be told with the others
			appendToClient(d.open(p), p.id, opDrain, nil, nil)
			d.close(p, origin{})
		}
	}
	d.watch(p)
}

// watch notes that a client beats, so that its silence will be noticed in time.
func (d *dispatcher) watch(p *peer) {
	p.beats = true
	if at := d.now + d.clientLimit(p); at < p.timer.at {
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
		return
	}
	r := d.lookup(p, m.rid)
	if r == nil {
		d.stats.UnknownRequests++
		if p == nil || p.role == roleNone { // known from now on, so that the answer can wait for room
			if p = d.addClient(l, id, p); p == nil {
				appendStatus(d.openUnknown(l), string(id), m.rid, statusLost, "")
				d.closeUnknown(l)
				return
			}
			d.watch(p)
		}
		d.sayStatus(p, m.rid, statusLost, "")
		return
	}
	if r.slot != nil && !r.slot.worker.backlog.blocked() { // beats come again: they are not kept for a worker without room
		w := r.slot.worker
		appendToWorker(d.open(w), w.id, opHeartbeat, r.slot.token[:], r.rid(), "")
		d.close(w, origin{})
	}
}

func (d *dispatcher) onRequest(l int, id []byte, p *peer, m *message) {
	if p == nil || p.role == roleNone {
		if p = d.addClient(l, id, p); p == nil {
			appendStatus(d.openUnknown(l), string(id), m.rid, statusOverloaded, "false")
			d.closeUnknown(l)
			return
		}
	}
	if d.lookup(p, m.rid) != nil { // a live id creates nothing (I21)
		d.stats.Duplicates++
		return
	}
	o, ok := parseOptions(m.options)
	if !ok {
		d.sayStatus(p, m.rid, statusMalformed, "false")
		d.onMalformed(l, id, p, false)
		return
	}
	s := p.lastService
	if s == nil || s.gone || s.name != string(m.service) {
		s = d.services[string(m.service)]
		p.lastService = s
	}
	if status := d.refuse(p, s, m, o); status != "" {
		if status == statusOverloaded {
			d.stats.Overloaded++
		}
		d.stats.Refused++
		d.sayStatus(p, m.rid, status, "false")
		return
	}
	if s == nil {
		s = d.addService(m.service)
		p.lastService = s
	}
	d.stats.Accepted++
	r := d.addRequest(p, s, m.rid, o)
	if w := s.ready.front(); w != nil && s.queued == 0 {
		d.dispatch(r, w, m.data, m.options)
		return
	}
	r.keep(m.data, m.options)
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

func (d *dispatcher) addRequest(p *peer, s *service, rid []byte, o options) *request {
	var r *request
	if n := len(d.freeRequests); n > 0 {
		r = d.freeRequests[n-1]
		d.freeRequests = d.freeRequests[:n-1]
	} else {
		r = &request{}
		r.deadline.req = r
		r.ofClient.owner, r.inQueue.owner = r, r
	}
	r.client, r.service, r.arrived, r.attempt = p, s, d.now, 0
	r.ridLen = copy(r.ridBuf[:], rid)
	if r.window = p.window; o.credit > 0 && p.adv {
		r.window = o.credit
	}
	p.windows += r.window
	d.requests.add(r)
	p.requests.pushBack(&r.ofClient)
	p.outstanding++
	s.requests++
	t := o.timeout
	if t == timeoutDefault {
		t = d.lim.defaultTimeout
	}
	if d.lim.maxTimeout > 0 && (t < 0 || t > d.lim.maxTimeout) {
		t = d.lim.maxTimeout
	}
	if t >= 0 && t < never-d.now {
		d.timers.set(&r.deadline, d.now+t)
	}
	return r
}

// keep copies what a queued request needs later.
func (r *request) keep(data, options []byte) {
	r.data = append(r.data[:0], data...)
	r.options, r.hasOptions = append(r.options[:0], options...), options != nil
}

// removeRequest forgets a request that is in no queue and no slot.
func (d *dispatcher) removeRequest(r *request) {
	p, s := r.client, r.service
	d.requests.remove(r)
	d.timers.remove(&r.deadline)
	p.requests.remove(&r.ofClient)
	p.outstanding--
	p.windows -= r.window
	if !p.beats {
		p.seen = d.now // remembered until it had the time to take what ended this
	}
	s.requests--
	d.releaseService(s)
	r.client, r.service, r.slot, r.queue = nil, nil, nil, nil
	if cap(r.data) > 16<<10 || cap(r.options) > 16<<10 {
		r.data, r.options = nil, nil // memory of rare large ones goes back
	}
	if len(d.freeRequests) < 1<<14 {
		d.freeRequests = append(d.freeRequests, r)
	}
}

// Causes that a CANCEL carries to the worker.
const (
	causeClient   = "client"
	causeDeadline = "deadline"
	causeGone     = "gone"
	causeStalled  = "stalled" // nothing was heard of the request for its worker's liveness
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
	d.sayStatus(r.client, r.rid(), status, executed)
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

func (d *dispatcher) clientLimit(p *peer) time.Duration { return lifeLimit(p.told, d.lim.liveness) }
