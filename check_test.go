package omdp

import (
	"errors"
	"fmt"
	"sync"
	"unicode/utf8"
)

// check states every structural invariant of reliability.md, and what I1–I19
// say of the state, in code. Tests call it after each event, so it allocates
// nothing while all is well. Which thing is where it shows by pointers back:
// what is in a list says so itself, and can be in no other.
func (d *dispatcher) check() error {
	k := checkers.Get().(*checker)
	*k = checker{d: d, services: k.services[:0]}
	k.listServices()
	k.checkPeers()
	k.checkRequests()
	k.checkBridges()
	k.checkQueues()
	k.checkServices()
	k.checkSlots()
	k.checkTimers()
	k.checkOutboxes()
	k.checkLimits()
	err := errors.Join(k.errs...)
	checkers.Put(k)
	return err
}

var checkers = sync.Pool{New: func() any { return new(checker) }}

// checkBatch is how many messages the tests let the core answer in one turn:
// what is said in it is not yet known to find no room.
const checkBatch = 16

type checker struct {
	d        *dispatcher
	errs     []error
	services []serviceCount

	peers, timers, requests  int
	queued, held, turns      int
	queuedBytes, outboxBytes int64
	joined                   int64
}

// serviceCount is what was counted of a service.
type serviceCount struct {
	s                                         *service
	workers, draining, requests, ready, hasty int
	queued                                    int
	bytes                                     int64
}

func (k *checker) bad(format string, a ...any) { k.errs = append(k.errs, fmt.Errorf(format, a...)) }

// walk checks the links of a list and its count.
func walk[T any](k *checker, what, whose string, l *list[T]) {
	var prev *node[T]
	n := 0
	for e := l.head; e != nil; e = e.next {
		if e.prev != prev || e.in != l || e.owner == nil {
			k.bad("%s of %q: a broken link", what, whose)
		}
		if prev = e; n == l.n {
			k.bad("S4: %s of %q: more members than its count, %d", what, whose, l.n)
			return
		}
		n++
	}
	if l.tail != prev || n != l.n {
		k.bad("S4: %s of %q: %d members, count %d, or its tail is not its last", what, whose, n, l.n)
	}
}

func (k *checker) listServices() {
	for name, s := range k.d.services {
		if s.name != name || s.gone {
			k.bad("service %q: filed under another name, or gone", name)
		}
		k.services = append(k.services, serviceCount{s: s})
	}
}

// count finds what was counted of s, nil if s does not exist.
func (k *checker) count(s *service) *serviceCount {
	for i := range k.services {
		if k.services[i].s == s {
			return &k.services[i]
		}
	}
	return nil
}

// live tells whether a request is in the table, and not a freed one.
func (k *checker) live(r *request) bool {
	t := &k.d.requests
	if len(t.buckets) == 0 {
		return false
	}
	for o := t.buckets[r.hash&uint64(len(t.buckets)-1)]; o != nil; o = o.chain {
		if o == r {
			return true
		}
	}
	return false
}

// checkPeers: S6: every live peer is looked at some time: so all are found by
// their timers.
func (k *checker) checkPeers() {
	d := k.d
	clients, workers, filed := 0, 0, 0
	for _, m := range d.peers {
		filed += len(m)
	}
	for i, e := range d.timers.a {
		p := d.timers.of[e.id].peer
		if p == nil {
			continue
		}
		look := (uint64(i)+d.turn)%4 == 0 // in the map: each every fourth turn, which is enough and costs less
		if p.dead || p.timer.req != nil || p.timer.id != e.id || look && d.peers[p.listener][p.id] != p {
			k.bad("S6: peer %q: dead, not filed under its name, or with another's timer", p.id)
		}
		if p.num == 0 || p.num > d.nextPeer {
			k.bad("peer %q: number %d", p.id, p.num)
		}
		k.peers++
		if p.role == roleWorker {
			workers++
			k.checkWorker(p)
		} else {
			clients++
			k.checkClient(p)
		}
	}
	k.timers += k.peers
	// S4: every counter equals its recomputation.
	if k.peers != filed || clients != d.clients || workers != d.workers {
		k.bad("S4, S6: %d peers have a timer, %d are filed; clients %d, counted %d; workers %d, counted %d",
			k.peers, filed, d.clients, clients, d.workers, workers)
	}
}

func (k *checker) checkClient(p *peer) {
	walk(k, "requests", p.id, &p.requests)
	windows, bodies := int64(0), 0
	for e := p.requests.head; e != nil; e = e.next {
		r := e.owner
		windows += r.window
		k.requests++
		if r.more != 0 {
			bodies++
		}
		if r.client != p || !k.live(r) {
			k.bad("S1: client %q lists a request that is not live or not its own", p.id)
		}
	}
	if p.windows != windows || p.outstanding != p.requests.n {
		k.bad("S4: client %q: windows %d, counted %d; outstanding %d, counted %d", p.id, p.windows, windows, p.outstanding, p.requests.n)
	}
	if p.bodies != bodies {
		k.bad("S4: client %q: %d bodies, counted %d", p.id, p.bodies, bodies)
	}
	if p.role != roleClient && p.requests.n != 0 {
		k.bad("peer %q: requests, but no client", p.id)
	}
	if p.service != nil || p.slots.n != 0 || p.ready.listed() {
		k.bad("client %q: has a worker's things", p.id)
	}
	if q := p.lastQueue; q != nil {
		if q.key.client != p.num || k.d.queues[q.key] != q {
			k.bad("client %q: its last queue is another's", p.id)
		}
		if q.requests.front() == nil { // kept for the next one; the others have a turn
			k.turns++
		}
	}
	// I4: a client that was too slow keeps no request: its terminal was SLOW_CLIENT.
	if p.backlog.slow && p.outstanding != 0 {
		k.bad("I4: client %q is slow and has %d requests", p.id, p.outstanding)
	}
}

func (k *checker) checkWorker(w *peer) {
	if w.outstanding != 0 || w.requests.n != 0 || w.lastQueue != nil {
		k.bad("worker %q: has a client's things", w.id)
	}
	c := k.count(w.service)
	if c == nil {
		k.bad("worker %q: its service does not exist", w.id)
		return
	}
	c.workers++
	k.checkForeign(w)
	if w.draining {
		c.draining++
	}
	if w.concurrency < 1 && !w.wire.several || !w.adv && !w.wire.several && w.concurrency != 1 {
		k.bad("worker %q: concurrency %d", w.id, w.concurrency)
	}
	// S2: its free places and the lists agree. I14b: a place that drains is not free.
	walk(k, "slots", w.id, &w.slots)
	if w.held != w.slots.n {
		k.bad("S2: worker %q: held %d, counted %d", w.id, w.held, w.slots.n)
	}
	if may := !w.draining && !w.unreachable && !w.backlog.blocked() && !w.resting && w.held < w.concurrency && w.clearAt == 0; may != w.ready.listed() {
		k.bad("S2: worker %q: may be given requests: %v, listed: %v", w.id, may, w.ready.listed())
	}
	if w.ready.listed() {
		c.ready++
		if w.ready.in != &w.service.ready {
			k.bad("I10: worker %q: free for another service", w.id)
		}
	}
	windows := int64(0)
	defer func() {
		if windows != w.windows {
			k.bad("S4: worker %q: windows %d, counted %d", w.id, w.windows, windows)
		}
	}()
	for e := w.slots.head; e != nil; e = e.next {
		sl := e.owner
		k.held++
		windows += sl.inflow.most
		if f := &sl.inflow; f.due < 0 || f.due > f.most || sl.way < 0 || f.owed > 0 && sl.req != nil && sl.req.client.adv && !sl.req.client.backlog.blocked() {
			k.bad("worker %q: credit %+v, %d on the way", w.id, *f, sl.way)
		}
		if sl.worker != w {
			k.bad("S2: worker %q: lists a slot that is not its own", w.id)
		}
		if r := sl.req; r != nil {
			if r.slot != sl || !k.live(r) {
				k.bad("S1: a slot of worker %q holds a request that is not its own", w.id)
			}
			if r.service != w.service {
				k.bad("I10: worker %q holds a request for another service", w.id)
			}
			if string(sl.rid[:sl.ridLen]) != string(r.rid()) && (w.adv || utf8.Valid(r.rid())) {
				k.bad("I1: slot and request have different ids")
			}
		}
	}
}

// checkRequests: S1: every request is queued or in progress, in exactly one place.
func (k *checker) checkRequests() {
	d := k.d
	t := &d.requests
	n := 0
	for i, r := range t.buckets {
		for ; r != nil && n <= t.n; r = r.chain {
			n++
			if int(r.hash&uint64(len(t.buckets)-1)) != i || r.client == nil {
				k.bad("request %q: in the wrong bucket, or freed", r.rid())
				continue
			}
			k.checkRequest(r)
		}
	}
	if n != t.n || n != k.requests {
		k.bad("S4: %d requests, count %d; clients have %d", n, t.n, k.requests)
	}
	for _, r := range d.freeRequests {
		if r.client != nil || r.slot != nil || r.queue != nil || r.deadline.armed() || r.inQueue.listed() || r.ofClient.listed() {
			k.bad("a freed request is still in use")
		}
	}
}

func (k *checker) checkRequest(r *request) {
	d := k.d
	if r.hash != d.requests.hash(r.client, r.rid()) || d.requests.find(r.client, r.rid(), r.hash) != r {
		k.bad("request %q: a wrong hash, or its key finds another (I21)", r.rid())
	}
	if r.client.dead || r.client.role != roleClient || r.ofClient.in != &r.client.requests {
		k.bad("S1: request %q of a client that is gone or does not list it", r.rid())
	}
	if r.deadline.req != r || r.deadline.peer != nil {
		k.bad("S6: request %q: another's timer", r.rid())
	}
	if r.ridLen == 0 || r.asked < 1 {
		k.bad("request %q: no id, or attempt %d", r.rid(), r.asked)
	}
	k.checkBridge(r)
	queued := r.queue != nil
	if queued == (r.slot != nil) || queued != r.inQueue.listed() || queued && r.inQueue.in != &r.queue.requests {
		k.bad("S1: request %q is not in exactly one place", r.rid())
	}
	c := k.count(r.service)
	if c == nil {
		k.bad("S1: request %q for a service that is gone", r.rid())
		return
	}
	c.requests++
	if queued {
		c.queued++
		c.bytes += r.size()
		if r.failFast {
			c.hasty++
		}
		k.queued++
		k.queuedBytes += r.size()
		if r.queue.key != (queueKey{r.client.num, r.service.num}) {
			k.bad("S1: request %q stands in another's queue", r.rid())
		}
		// I5 and the default of one attempt: whoever was dispatched is not queued again.
		if r.attempt != 0 {
			k.bad("I5: request %q: queued after attempt %d", r.rid(), r.attempt)
		}
	} else if sl := r.slot; sl != nil {
		if sl.req != r || sl.worker == nil || sl.worker.dead {
			k.bad("S1: request %q is at nobody", r.rid())
		}
		if r.attempt != 1 {
			k.bad("request %q: in progress at attempt %d", r.rid(), r.attempt)
		}
	}
	if r.deadline.armed() {
		k.timers++
		// I3, I11: nothing outlives its deadline.
		if r.deadline.at <= d.now {
			k.bad("I3: request %q lives at %v, its deadline was %v", r.rid(), d.now, r.deadline.at)
		}
	}
}

// checkQueues: I12: exactly the clients that wait have a turn.
func (k *checker) checkQueues() {
	d := k.d
	queued := 0
	for i := range k.services {
		s := k.services[i].s
		walk(k, "turns", s.name, &s.turns)
		for e := s.turns.head; e != nil; e = e.next {
			q := e.owner
			k.turns++
			if q.key.service != s.num || d.queues[q.key] != q || q.requests.n == 0 {
				k.bad("I12: service %q: a turn for a client that does not wait", s.name)
			}
			walk(k, "queue", s.name, &q.requests)
			queued += q.requests.n
			for o := q.requests.head; o != nil; o = o.next {
				if o.owner.queue != q || !k.live(o.owner) {
					k.bad("S1: a queue of service %q holds a request that is not queued there", s.name)
				}
			}
		}
	}
	if queued != k.queued || k.turns != len(d.queues) {
		k.bad("I12, S1: %d requests in queues that have a turn, %d are queued; %d queues, %d are filed", queued, k.queued, k.turns, len(d.queues))
	}
	speakers := [len(wires)]int{}
	for _, m := range d.peers {
		for _, p := range m {
			if p.wire != nil {
				speakers[p.wire.dialect]++
			}
			if (p.wire == nil) != (p.role == roleNone) {
				k.bad("peer %q: role %d, dialect %v", p.id, p.role, p.wire)
			}
		}
	}
	if speakers != d.speakers {
		k.bad("peers by dialect %v, counted %v", d.speakers, speakers)
	}
	if k.queued != d.queued || k.queuedBytes != d.queuedBytes {
		k.bad("S4: queued %d, counted %d; %d bytes, counted %d", d.queued, k.queued, d.queuedBytes, k.queuedBytes)
	}
}

// checkServices: S3: a service exists exactly while it has a request or a worker.
func (k *checker) checkServices() {
	for i := range k.services {
		c := &k.services[i]
		s := c.s
		if c.workers == 0 && c.requests == 0 {
			k.bad("S3: service %q has nothing and exists", s.name)
		}
		if c.workers != s.workers || c.draining != s.draining || c.requests != s.requests || c.queued != s.queued || c.bytes != s.bytes || c.hasty != s.hasty {
			k.bad("S4: service %q: %d workers (%d draining), %d requests, %d queued (%d do not wait), %d bytes, counted %+v",
				s.name, s.workers, s.draining, s.requests, s.queued, s.hasty, s.bytes, *c)
		}
		walk(k, "free workers", s.name, &s.ready)
		k.checkPolicy(s)
		if s.ready.n != c.ready {
			k.bad("S2: service %q: %d free workers, counted %d", s.name, s.ready.n, c.ready)
		}
		if s.hasty > 0 && s.workers <= s.draining {
			k.bad("service %q: %d do not wait for a worker, but do; %d workers, %d draining", s.name, s.hasty, s.workers, s.draining)
		}
		// I13: never a queued request and a free worker of its service after a step.
		if s.queued > 0 && s.ready.n > 0 {
			k.bad("I13: service %q: %d queued, %d workers free", s.name, s.queued, s.ready.n)
		}
	}
}

// checkPolicy: S2: what a service's policy looks at agrees with the free workers.
func (k *checker) checkPolicy(s *service) {
	if s.policy == LeastLoaded && len(s.loads) != s.ready.n || s.policy != LeastLoaded && len(s.loads) > 0 {
		k.bad("S2: service %q: %d workers by load, %d are free", s.name, len(s.loads), s.ready.n)
	}
	for i, w := range s.loads {
		if w.loadAt != i+1 || !w.ready.listed() || w.service != s || i > 0 && w.before(s.loads[(i-1)/2]) {
			k.bad("S2: service %q: worker %q is not free, or in the wrong place by load", s.name, w.id)
		}
	}
	if n := len(s.ring); s.policy == Sticky && n != s.workers*ringPoints || s.policy != Sticky && n > 0 {
		k.bad("S2: service %q: %d points, %d workers", s.name, n, s.workers)
	}
	for i, p := range s.ring {
		if p.worker.dead || p.worker.service != s || i > 0 && p.at < s.ring[i-1].at {
			k.bad("S2: service %q: a point of a worker that is gone, or out of order", s.name)
		}
	}
}

func (k *checker) checkSlots() {
	d := k.d
	walk(k, "free slots", "", &d.slotFree)
	for i, sl := range d.slots {
		if int(sl.index) != i {
			k.bad("S2: slot %d stands at %d", sl.index, i)
		}
		if (sl.worker == nil) != (sl.of.in == &d.slotFree) || sl.worker == nil && sl.req != nil {
			k.bad("S2: slot %d is lost, or free and in use", i)
		}
		// I7: tokens never repeat; here, of those that are in use: each begins with its slot's number.
		for j := range tokenIndexLen {
			if sl.token[j] != base64url[sl.index>>(6*j)&63] {
				k.bad("I7: slot %d has another's token", i)
			}
		}
	}
	if d.slotFree.n+k.held != len(d.slots) {
		k.bad("S2: %d slots, %d free, %d held", len(d.slots), d.slotFree.n, k.held)
	}
}

// checkTimers: S6: one timer per live deadline, none for the dead; a heap.
func (k *checker) checkTimers() {
	h := &k.d.timers
	if len(h.a) != k.timers || len(h.a)+len(h.free)+1 != max(len(h.of), 1) {
		k.bad("S6: %d timers armed, %d are owed; %d ids, %d free", len(h.a), k.timers, len(h.of), len(h.free))
	}
	for i, e := range h.a {
		t := h.of[e.id]
		if t == nil || t.id != e.id || int(h.pos[e.id]) != i || t.at != e.at {
			k.bad("S6: entry %d of the heap is nobody's", i)
			continue
		}
		if i > 0 && h.a[(i-1)/4].at > e.at {
			k.bad("S6: entry %d of the heap comes before its parent", i)
		}
		if t.req != nil && (t.req.client == nil || !k.live(t.req)) {
			k.bad("S6: a timer of a request that is gone")
		}
	}
}

func (k *checker) checkOutboxes() {
	d := k.d
	walk(k, "blocked peers", "", &d.blocked)
	for e := d.blocked.head; e != nil; e = e.next {
		q := e.owner
		if q.peer == nil || q.peer.dead || &q.peer.backlog != q || q.out == nil {
			k.bad("a backlog of a peer that is gone")
			continue
		}
		k.outboxBytes += int64(q.out.Bytes())
		if !q.trying && q.at < d.retryAt {
			k.bad("the backlog of %q is due at %v, looked at at %v", q.peer.id, q.at, d.retryAt)
		}
		// S5: a backlog over its limits has ended its owner's business, and grows by no more
		// than the terminals of that and a bounded number of answers.
		bytes := d.lim.outboxBytes
		if p := q.peer; p.adv && p.role == roleClient { // what it agreed to take
			bytes = max(bytes, min(2*p.window*int64(d.lim.outstanding), d.lim.totalOutbox/4))
		}
		if over := q.out.Len() > d.lim.outbox || int64(q.out.Bytes()) > bytes; over && !q.slow {
			k.bad("S5: the backlog of %q is over its limit and it is not slow", q.peer.id)
		}
		if most := 2*d.lim.outbox + d.lim.outstanding + 2 + checkBatch; q.out.Len() > most {
			k.bad("S5: the backlog of %q has %d messages, at most %d", q.peer.id, q.out.Len(), most)
		}
	}
	if k.outboxBytes != d.outboxBytes {
		k.bad("S4: %d bytes in backlogs, counted %d", d.outboxBytes, k.outboxBytes)
	}
	if d.blocked.n == 0 && d.retryAt != never {
		k.bad("S6: a retry is due for nobody")
	}
	if len(d.overflowed) != 0 {
		k.bad("a peer over its limits was not dealt with")
	}
	for i := range d.boxes {
		if b := &d.boxes[i]; len(b.origins) != b.out.Len() {
			k.bad("outbox %d: %d origins, %d messages", i, len(b.origins), b.out.Len())
		}
	}
}

// checkLimits: S5: every limit holds. A dispatch that was undone goes back to
// a queue that filled up meanwhile (I14a), so does what was handed back, and a worker that is disconnected for
// a malformed message is remembered as a client would be; both are bounded.
func (k *checker) checkLimits() {
	d := k.d
	undone := int(d.stats.Requeued + d.stats.Rejected)
	if len(d.services) > d.lim.services || d.workers > d.lim.workers || d.clients > d.lim.clients+d.lim.workers {
		k.bad("S5: %d services, %d workers, %d clients", len(d.services), d.workers, d.clients)
	}
	if d.queued > d.lim.totalQueue+undone || undone == 0 && d.queuedBytes > d.lim.totalBytes {
		k.bad("S5: %d queued, %d bytes", d.queued, d.queuedBytes)
	}
	if f := &d.finished; f.n > f.limit || f.n > len(f.ring) {
		k.bad("S5: %d ended requests are remembered, at most %d", f.n, f.limit)
	}
	for i := range k.services {
		if s := k.services[i].s; s.pattern {
			continue // it was given what waited for others
		} else if s.queued > d.lim.serviceQueue+undone || undone == 0 && s.bytes > d.lim.serviceBytes {
			k.bad("S5: service %q: %d queued, %d bytes", s.name, s.queued, s.bytes)
		}
	}
	for _, e := range d.timers.a {
		if p := d.timers.of[e.id].peer; p != nil {
			if p.outstanding > d.lim.outstanding || p.concurrency > d.lim.concurrency || p.held > d.lim.concurrency {
				k.bad("S5, I9: peer %q: %d outstanding, concurrency %d, holds %d", p.id, p.outstanding, p.concurrency, p.held)
			}
		}
	}
}

// empty states R5: nothing is held any more.
func (d *dispatcher) empty() error {
	n := d.requests.n + len(d.services) + len(d.versions) + d.wildcards + int(d.joined) + len(d.queues) + len(d.timers.a) + d.blocked.n + d.clients + d.workers + d.queued
	for _, m := range d.peers {
		n += len(m)
	}
	if n != 0 || d.queuedBytes != 0 || d.outboxBytes != 0 || d.deadline() != never {
		return fmt.Errorf("R5: not empty: %d requests, services %v, %d queues, %d timers, %d blocked, %d clients, %d workers",
			d.requests.n, d.services, len(d.queues), len(d.timers.a), d.blocked.n, d.clients, d.workers)
	}
	return nil
}
