package omdp

import (
	"hash/maphash"
	"slices"
)

// service is a name with workers or requests. It exists as long as it has any.
type service struct {
	name string
	num  uint32
	gone bool // forgotten; what still points to it lets go

	workers  int
	draining int        // of these, those that take nothing new
	requests int        // queued and in progress
	ready    list[peer] // workers that may be given a request, the least recently used first
	policy   DispatchPolicy
	pattern  bool     // names that match it are served too
	loads    loadHeap // the same workers, if it is LeastLoaded
	ring     ring     // all its workers, if it is Sticky

	turns  list[clientQueue] // clients that wait, the one whose turn it is first
	queued int
	hasty  int // of these, those that do not wait for a worker to come
	bytes  int64

	completed uint64
	directory []byte // the ids of its workers as told last; nil: not since one came or went
}

// clientQueue holds what one client has queued at one service, in order. The
// queues of a service take turns, so a flood of one client holds up none other.
type clientQueue struct {
	key      queueKey
	requests list[request]
	turn     node[clientQueue]
}

type queueKey struct{ client, service uint32 }

func (d *dispatcher) addService(name []byte) *service {
	d.nextService++
	s := &service{name: string(name), num: d.nextService, policy: d.policyOf(string(name))}
	d.services[s.name] = s
	return s
}

// releaseService forgets a service that nobody needs any more.
func (d *dispatcher) releaseService(s *service) {
	if s.workers == 0 && s.requests == 0 && !s.gone {
		delete(d.services, s.name)
		s.gone = true
		d.unversion(s)
	}
}

// enqueue puts a request with its data at the tail of its client's queue, or,
// when its dispatch failed, back to the head of everything.
func (d *dispatcher) enqueue(r *request, head bool) {
	s := r.service
	q := d.queueOf(r.client, s)
	r.queue = q
	if head {
		q.requests.pushFront(&r.inQueue)
	} else {
		q.requests.pushBack(&r.inQueue)
	}
	switch {
	case !q.turn.listed():
		if head {
			s.turns.pushFront(&q.turn)
		} else {
			s.turns.pushBack(&q.turn)
		}
	case head:
		s.turns.remove(&q.turn)
		s.turns.pushFront(&q.turn)
	}
	s.queued++
	d.queued++
	if r.failFast {
		s.hasty++
	}
	s.bytes += r.size()
	d.queuedBytes += r.size()
}

func (d *dispatcher) queueOf(p *peer, s *service) *clientQueue {
	key := queueKey{p.num, s.num}
	if q := p.lastQueue; q != nil && q.key == key {
		return q
	}
	q := d.queues[key]
	if q == nil {
		if n := len(d.freeQueues); n > 0 {
			q = d.freeQueues[n-1]
			d.freeQueues = d.freeQueues[:n-1]
		} else {
			q = &clientQueue{}
			q.turn.owner = q
		}
		q.key = key
		d.queues[key] = q
	}
	if last := p.lastQueue; last != nil && last.requests.front() == nil {
		d.freeQueue(last)
	}
	p.lastQueue = q
	return q
}

// dequeue takes a queued request out, wherever it stands.
func (d *dispatcher) dequeue(r *request) {
	q, s := r.queue, r.service
	q.requests.remove(&r.inQueue)
	s.queued--
	d.queued--
	if r.failFast {
		s.hasty--
	}
	s.bytes -= r.size()
	d.queuedBytes -= r.size()
	r.queue = nil
	if q.requests.front() == nil {
		s.turns.remove(&q.turn)
		if r.client.lastQueue != q { // the one used last is kept for the next request
			d.freeQueue(q)
		}
	}
}

func (d *dispatcher) freeQueue(q *clientQueue) {
	delete(d.queues, q.key)
	q.key = queueKey{}
	if len(d.freeQueues) < 1<<12 {
		d.freeQueues = append(d.freeQueues, q)
	}
}

// pump gives queued requests to free workers until one of them runs out (I13).
func (d *dispatcher) pump(s *service) {
	for s.queued > 0 {
		if s.ready.front() == nil {
			return
		}
		q := s.turns.front()
		r := q.requests.front()
		d.dequeue(r)
		if r.deadline.armed() && r.deadline.at <= d.now { // never at or after the deadline (I11)
			d.stats.Expired++
			d.sayTo(r, statusTimeout, "false")
			d.removeRequest(r)
			continue // its client keeps its turn
		}
		var options []byte
		if r.hasOptions {
			options = r.options
			if options == nil {
				options = []byte{}
			}
		}
		block := r.block
		r.block = nil // a request that can't be given ends here, and lets go
		given := d.give(r, r.data, options)
		r.block = block
		r.letGo()
		if given && s.turns.front() == q { // still waiting: to the end of the line
			s.turns.remove(&q.turn)
			s.turns.pushBack(&q.turn)
		}
	}
}

// abandoned ends the requests that wait and would rather fail than wait for a
// worker to come, if the last one that takes requests is gone.
func (d *dispatcher) abandoned(s *service) {
	if s.hasty == 0 || s.workers > s.draining {
		return
	}
	for t := s.turns.head; t != nil; {
		q := t.owner
		t = t.next
		for k := q.requests.head; k != nil; {
			r := k.owner
			k = k.next
			if r.failFast {
				d.stats.Abandoned++
				d.end(r, statusNoWorker, "false", "")
			}
		}
	}
}

// eachPeer visits every peer in the order of their first message, so that
// the same history gives the same bytes.
func (d *dispatcher) eachPeer(f func(*peer)) {
	var all []*peer
	for _, m := range d.peers {
		for _, p := range m { // order does not matter: sorted below
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *peer) int { return int(a.num) - int(b.num) })
	for _, p := range all {
		if !p.dead {
			f(p)
		}
	}
}

// list is a doubly linked list whose links are fields of its members, so that
// every change is O(1) and nothing is allocated. The zero value is empty.
type list[T any] struct {
	head, tail *node[T]
	n          int
}

type node[T any] struct {
	prev, next *node[T]
	in         *list[T]
	owner      *T
}

func (k *node[T]) listed() bool { return k.in != nil }

func (l *list[T]) front() *T {
	if l.head == nil {
		return nil
	}
	return l.head.owner
}

func (l *list[T]) pushBack(k *node[T]) {
	k.in, k.prev, k.next = l, l.tail, nil
	if l.tail != nil {
		l.tail.next = k
	} else {
		l.head = k
	}
	l.tail = k
	l.n++
}

func (l *list[T]) pushFront(k *node[T]) {
	k.in, k.prev, k.next = l, nil, l.head
	if l.head != nil {
		l.head.prev = k
	} else {
		l.tail = k
	}
	l.head = k
	l.n++
}

func (l *list[T]) remove(k *node[T]) {
	if k.in != l {
		panic("omdp: BUG: removed from a list that it is not in")
	}
	if k.prev != nil {
		k.prev.next = k.next
	} else {
		l.head = k.next
	}
	if k.next != nil {
		k.next.prev = k.prev
	} else {
		l.tail = k.prev
	}
	k.in, k.prev, k.next = nil, nil, nil
	l.n--
}

// requestTable finds live requests by client and request id: ids are the
// clients' own and collide. It chains requests through a field of theirs, so
// that a request costs no allocation and one hash. Which bucket a request is
// in depends on a random seed, against floods of colliding ids; nothing that
// is emitted does.
type requestTable struct {
	seed    maphash.Seed
	buckets []*request
	n       int
}

// keyOf stands for who is known by id on listener l, or, with listener -1, for
// a life.
func (t *requestTable) keyOf(id string, l int) uint64 {
	return maphash.String(t.seed, id) ^ uint64(l+2)*0x9E3779B97F4A7C15
}

// hash puts ids that differ in their last character alone side by side:
// clients count, so the ids of neighbouring requests share cache lines.
func (t *requestTable) hash(p *peer, rid []byte) uint64 {
	last := len(rid) - 1
	return (maphash.Bytes(t.seed, rid[:last])^p.key)<<4 | uint64(rid[last]&15)
}

// mark is the hash with what it leaves out of the last character: what ended
// is known by nothing else.
func mark(hash uint64, rid []byte) uint64 { return hash ^ uint64(rid[len(rid)-1]>>4)<<60 }

func (t *requestTable) find(p *peer, rid []byte, hash uint64) *request {
	if t.n == 0 {
		return nil
	}
	r := t.buckets[hash&uint64(len(t.buckets)-1)]
	for r != nil && (r.hash != hash || r.client != p || string(r.rid()) != string(rid)) {
		r = r.chain
	}
	return r
}

// elsewhere finds a live request that the same client made on another of its
// sockets: both told the same life.
func (t *requestTable) elsewhere(p *peer, rid []byte, hash uint64) *request {
	if t.n == p.outstanding || p.life == "" {
		return nil
	}
	r := t.buckets[hash&uint64(len(t.buckets)-1)]
	for r != nil && (r.hash != hash || r.client == p || r.client.life != p.life || string(r.rid()) != string(rid)) {
		r = r.chain
	}
	return r
}

func (t *requestTable) add(r *request, hash uint64) {
	if 2*t.n >= len(t.buckets) { // half full, so that most chains have one member
		t.grow()
	}
	r.hash = hash
	b := &t.buckets[r.hash&uint64(len(t.buckets)-1)]
	r.chain, *b = *b, r
	t.n++
}

func (t *requestTable) remove(r *request) {
	b := &t.buckets[r.hash&uint64(len(t.buckets)-1)]
	for *b != r {
		b = &(*b).chain
	}
	*b, r.chain = r.chain, nil
	t.n--
}

func (t *requestTable) grow() {
	old := t.buckets
	t.buckets = make([]*request, max(64, 2*len(old)))
	for _, r := range old {
		for r != nil {
			next := r.chain
			b := &t.buckets[r.hash&uint64(len(t.buckets)-1)]
			r.chain, *b = *b, r
			r = next
		}
	}
}
