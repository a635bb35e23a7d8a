package omdp

import (
	"errors"
	"fmt"
)

// check states every structural invariant of reliability.md, and what I1–I19
// say of the state, in code. Tests call it after each event.
func (d *dispatcher) check() error {
	k := checker{d: d, tokens: map[string]bool{}, requests: map[*request]bool{}}
	k.listRequests()
	k.checkPeers()
	k.checkRequests()
	k.checkServices()
	k.checkSlots()
	k.checkTimers()
	k.checkOutboxes()
	k.checkLimits()
	return errors.Join(k.errs...)
}

// checkBatch is how many messages the tests let the core answer in one turn:
// what is said in it is not yet known to find no room.
const checkBatch = 16

type checker struct {
	d        *dispatcher
	errs     []error
	tokens   map[string]bool
	requests map[*request]bool

	peers, timers        int
	queued, held         int
	queuedBytes, blocked int64
}

func (k *checker) bad(format string, a ...any) { k.errs = append(k.errs, fmt.Errorf(format, a...)) }

func (k *checker) must(ok bool, format string, a ...any) {
	if !ok {
		k.bad(format, a...)
	}
}

// members returns what a list holds, and checks its links and its count.
func members[T any](k *checker, what string, l *list[T]) []*T {
	var all []*T
	var prev *node[T]
	for n := l.head; n != nil; n = n.next {
		k.must(n.prev == prev && n.in == l && n.owner != nil, "%s: a broken link", what)
		all = append(all, n.owner)
		if prev = n; len(all) > l.n {
			k.bad("%s: more members than its count %d", what, l.n)
			break
		}
	}
	k.must(l.tail == prev, "%s: its tail is not its last", what)
	k.must(len(all) == l.n, "S4: %s: %d members, count %d", what, len(all), l.n)
	return all
}

// listRequests walks the table; S4: its count and its chains are right.
func (k *checker) listRequests() {
	t := &k.d.requests
	for i, r := range t.buckets {
		for ; r != nil && !k.requests[r]; r = r.chain {
			k.requests[r] = true
			k.must(int(r.hash&uint64(len(t.buckets)-1)) == i, "request %q: in the wrong bucket", r.rid())
			k.must(r.hash == t.hash(r.client, r.rid()), "request %q: a wrong hash", r.rid())
			k.must(t.find(r.client, r.rid(), r.hash) == r, "request %q: its key finds another (I21)", r.rid())
		}
	}
	k.must(t.n == len(k.requests), "S4: %d requests, count %d", len(k.requests), t.n)
	for _, r := range k.d.freeRequests {
		k.must(!k.requests[r] && r.client == nil && r.slot == nil && r.queue == nil && !r.deadline.armed() &&
			!r.inQueue.listed() && !r.ofClient.listed(), "a freed request is still in use")
	}
}

func (k *checker) checkPeers() {
	d := k.d
	clients, workers, nums := 0, 0, map[uint32]bool{}
	for l, m := range d.peers {
		for id, p := range m {
			k.must(p.id == id && p.listener == l, "peer %q: filed under another name", id)
			k.must(!p.dead, "peer %q: dead, but filed", id)
			k.must(!nums[p.num], "peer %q: its number is another's", id)
			nums[p.num] = true
			// S6: every live peer is looked at some time.
			k.must(p.timer.armed() && p.timer.peer == p && p.timer.req == nil, "S6: peer %q: no timer", id)
			k.timers++
			k.peers++
			if p.role == roleWorker {
				workers++
				k.checkWorker(p)
			} else {
				clients++
				k.checkClient(p)
			}
		}
	}
	// S4: every counter equals its recomputation.
	k.must(clients == d.clients, "S4: clients %d, counted %d", d.clients, clients)
	k.must(workers == d.workers, "S4: workers %d, counted %d", d.workers, workers)
}

func (k *checker) checkClient(p *peer) {
	all := members(k, "requests of "+p.id, &p.requests)
	windows := int64(0)
	for _, r := range all {
		windows += r.window
	}
	k.must(p.windows == windows, "S4: client %q: windows %d, counted %d", p.id, p.windows, windows)
	k.must(p.outstanding == len(all), "S4: client %q: outstanding %d, counted %d", p.id, p.outstanding, len(all))
	k.must(p.role == roleClient || len(all) == 0, "peer %q: requests, but no client", p.id)
	k.must(p.service == nil && p.slots.n == 0 && !p.ready.listed(), "client %q: has a worker's things", p.id)
	for _, r := range all {
		k.must(k.requests[r] && r.client == p, "S1: client %q lists a request that is not live or not its own", p.id)
	}
	if q := p.lastQueue; q != nil {
		k.must(q.key.client == p.num && k.d.queues[q.key] == q, "client %q: its last queue is another's", p.id)
	}
	// I4: a client that was too slow keeps no request: its terminal was SLOW_CLIENT.
	k.must(!p.backlog.slow || p.outstanding == 0, "I4: client %q is slow and has %d requests", p.id, p.outstanding)
}

func (k *checker) checkWorker(w *peer) {
	d := k.d
	k.must(w.outstanding == 0 && w.requests.n == 0 && w.lastQueue == nil, "worker %q: has a client's things", w.id)
	k.must(w.service != nil && d.services[w.service.name] == w.service, "worker %q: its service does not exist", w.id)
	k.must(w.concurrency >= 1 && (w.adv || w.concurrency == 1), "worker %q: concurrency %d", w.id, w.concurrency)
	// S2: its free places and the lists agree. I14b: a place that drains is not free.
	slots := members(k, "slots of "+w.id, &w.slots)
	k.must(w.held == len(slots), "S2: worker %q: held %d, counted %d", w.id, w.held, len(slots))
	may := !w.draining && !w.unreachable && !w.backlog.blocked() && !w.resting && w.held < w.concurrency
	k.must(may == w.ready.listed(), "S2: worker %q: may be given requests: %v, listed: %v", w.id, may, w.ready.listed())
	k.must(!w.ready.listed() || w.ready.in == &w.service.ready, "I10: worker %q: free for another service", w.id)
	for _, sl := range slots {
		k.held++
		k.must(sl.worker == w, "S2: worker %q: lists a slot that is not its own", w.id)
		// I7: tokens never repeat; here, of those that are in use.
		k.must(!k.tokens[string(sl.token[:])], "I7: token %q is used twice", sl.token)
		k.tokens[string(sl.token[:])] = true
		if r := sl.req; r != nil {
			k.must(k.requests[r] && r.slot == sl, "S1: a slot of worker %q holds a request that is not its own", w.id)
			k.must(r.service == w.service, "I10: worker %q holds a request for another service", w.id)
			k.must(string(sl.rid[:sl.ridLen]) == string(r.rid()), "I1: slot and request have different ids")
		}
	}
}

// checkRequests: S1: every request is queued or in progress, in exactly one place.
func (k *checker) checkRequests() {
	d := k.d
	inQueue := map[*request]bool{}
	for key, q := range d.queues {
		k.must(q.key == key, "queue %v: filed under another key", key)
		for _, r := range members(k, fmt.Sprint("queue ", key), &q.requests) {
			k.must(r.queue == q && k.requests[r] && !inQueue[r], "S1: queue %v holds a request that is not queued there", key)
			k.must(r.client.num == key.client && r.service.num == key.service, "S1: queue %v holds a request of another", key)
			inQueue[r] = true
		}
	}
	for r := range k.requests {
		k.must((r.slot == nil) == inQueue[r] && (r.queue != nil) == inQueue[r], "S1: request %q is not in exactly one place", r.rid())
		k.must(d.peers[r.client.listener][r.client.id] == r.client && r.client.role == roleClient, "S1: request %q of a client that is gone", r.rid())
		k.must(d.services[r.service.name] == r.service, "S1: request %q for a service that is gone", r.rid())
		k.must(r.ofClient.in == &r.client.requests, "S1: request %q is not listed by its client", r.rid())
		k.must(r.deadline.req == r && r.deadline.peer == nil, "S6: request %q: another's timer", r.rid())
		k.must(len(r.rid()) > 0, "a request without an id")
		if sl := r.slot; sl != nil {
			k.must(sl.req == r && sl.worker != nil && !sl.worker.dead, "S1: request %q is at nobody", r.rid())
			k.must(r.attempt >= 1, "request %q: in progress at attempt %d", r.rid(), r.attempt)
		} else {
			// I5 and the default of one attempt: whoever was dispatched is not queued again.
			k.must(r.attempt == 0, "I5: request %q: queued after attempt %d", r.rid(), r.attempt)
			k.queued++
			k.queuedBytes += r.size()
		}
		if r.deadline.armed() {
			k.timers++
			// I3, I11: nothing outlives its deadline.
			k.must(r.deadline.at > d.now, "I3: request %q lives at %v, its deadline was %v", r.rid(), d.now, r.deadline.at)
		}
	}
	k.must(k.queued == d.queued, "S4: queued %d, counted %d", d.queued, k.queued)
	k.must(k.queuedBytes == d.queuedBytes, "S4: queued bytes %d, counted %d", d.queuedBytes, k.queuedBytes)
}

// checkServices: S3: a service exists exactly while it has a request or a worker.
func (k *checker) checkServices() {
	d := k.d
	type count struct {
		workers, requests, queued, ready, hasty int
		bytes                                   int64
	}
	got := map[*service]*count{}
	for name, s := range d.services {
		k.must(s.name == name, "service %q: filed under another name", name)
		got[s] = &count{}
	}
	for _, m := range d.peers {
		for _, p := range m {
			if c := got[p.service]; p.role == roleWorker && c != nil {
				c.workers++
				if p.ready.listed() {
					c.ready++
				}
			}
		}
	}
	waiting := map[*service]map[*clientQueue]bool{}
	for r := range k.requests {
		c := got[r.service]
		if c == nil {
			continue
		}
		c.requests++
		if r.queue != nil {
			c.queued++
			if r.failFast {
				c.hasty++
			}
			c.bytes += r.size()
			if waiting[r.service] == nil {
				waiting[r.service] = map[*clientQueue]bool{}
			}
			waiting[r.service][r.queue] = true
		}
	}
	for s, c := range got {
		k.must(c.workers > 0 || c.requests > 0, "S3: service %q has nothing and exists", s.name)
		k.must(c.workers == s.workers && c.requests == s.requests && c.queued == s.queued && c.bytes == s.bytes,
			"S4: service %q: %d workers, %d requests, %d queued, %d bytes, counted %+v", s.name, s.workers, s.requests, s.queued, s.bytes, *c)
		ready := members(k, "free workers of "+s.name, &s.ready)
		k.must(len(ready) == c.ready, "S2: service %q: %d free workers, counted %d", s.name, len(ready), c.ready)
		// I12: exactly the clients that wait have a turn.
		turns := members(k, "turns of "+s.name, &s.turns)
		k.must(len(turns) == len(waiting[s]), "I12: service %q: %d turns, %d clients wait", s.name, len(turns), len(waiting[s]))
		for _, q := range turns {
			k.must(waiting[s][q], "I12: service %q: a turn for a client that does not wait", s.name)
		}
		// I13: never a queued request and a free worker of its service after a step.
		k.must(s.hasty == c.hasty && (c.hasty == 0 || s.workers > s.draining), "service %q: %d do not wait, counted %d; %d workers, %d draining", s.name, s.hasty, c.hasty, s.workers, s.draining)
		k.must(s.queued == 0 || s.ready.n == 0, "I13: service %q: %d queued, %d workers free", s.name, s.queued, s.ready.n)
	}
}

func (k *checker) checkSlots() {
	d := k.d
	free := members(k, "free slots", &d.slotFree)
	for _, sl := range free {
		k.must(sl.worker == nil && sl.req == nil, "S2: free slot %d is in use", sl.index)
	}
	k.must(len(free)+k.held == len(d.slots), "S2: %d slots, %d free, %d held", len(d.slots), len(free), k.held)
	for i, sl := range d.slots {
		k.must(int(sl.index) == i, "S2: slot %d stands at %d", sl.index, i)
		k.must(sl.worker != nil || sl.of.in == &d.slotFree, "S2: slot %d is lost", i)
	}
}

// checkTimers: S6: one timer per live deadline, none for the dead; a heap.
func (k *checker) checkTimers() {
	h := &k.d.timers
	k.must(len(h.a) == k.timers, "S6: %d timers armed, %d are owed", len(h.a), k.timers)
	for i, e := range h.a {
		t := h.of[e.id]
		if t == nil || t.id != e.id || int(h.pos[e.id]) != i || t.at != e.at {
			k.bad("S6: entry %d of the heap is nobody's", i)
			continue
		}
		k.must(i == 0 || h.a[(i-1)/4].at <= e.at, "S6: entry %d of the heap comes before its parent", i)
		k.must(t.req == nil || k.requests[t.req], "S6: a timer of a request that is gone")
		k.must(t.peer == nil || !t.peer.dead, "S6: a timer of a peer that is gone")
	}
	k.must(len(h.a)+len(h.free)+1 == max(len(h.of), 1), "S6: %d ids, %d armed, %d free", len(h.of), len(h.a), len(h.free))
}

func (k *checker) checkOutboxes() {
	d := k.d
	for _, q := range members(k, "blocked peers", &d.blocked) {
		k.must(q.peer != nil && !q.peer.dead && &q.peer.backlog == q && q.out != nil, "a backlog of a peer that is gone")
		k.blocked += int64(len(q.out.B))
		k.must(q.trying || q.at >= d.retryAt, "the backlog of %q is due at %v, looked at at %v", q.peer.id, q.at, d.retryAt)
		// S5: a backlog over its limits has ended its owner's business, and grows by no more
		// than the terminals of that and a bounded number of answers.
		bytes := d.lim.outboxBytes
		if p := q.peer; p.adv && p.role == roleClient { // what it agreed to take
			bytes = max(bytes, min(2*p.window*int64(d.lim.outstanding), d.lim.totalOutbox/4))
		}
		over := q.out.Len() > d.lim.outbox || int64(len(q.out.B)) > bytes
		k.must(!over || q.slow, "S5: the backlog of %q is over its limit and it is not slow", q.peer.id)
		most := 2*d.lim.outbox + d.lim.outstanding + 2 + checkBatch
		k.must(q.out.Len() <= most, "S5: the backlog of %q has %d messages, at most %d", q.peer.id, q.out.Len(), most)
	}
	k.must(k.blocked == d.outboxBytes, "S4: %d bytes in backlogs, counted %d", d.outboxBytes, k.blocked)
	k.must(d.blocked.n > 0 || d.retryAt == never, "S6: a retry is due for nobody")
	k.must(len(d.overflowed) == 0, "a peer over its limits was not dealt with")
	for i := range d.boxes {
		b := &d.boxes[i]
		k.must(len(b.origins) == b.out.Len(), "outbox %d: %d origins, %d messages", i, len(b.origins), b.out.Len())
	}
}

// checkLimits: S5: every limit holds. A dispatch that was undone goes back to
// a queue that filled up meanwhile (I14a), and a worker that is disconnected for
// a malformed message is remembered as a client would be; both are bounded.
func (k *checker) checkLimits() {
	d := k.d
	undone := int(d.stats.Requeued)
	k.must(len(d.services) <= d.lim.services, "S5: %d services", len(d.services))
	k.must(d.workers <= d.lim.workers, "S5: %d workers", d.workers)
	k.must(d.clients <= d.lim.clients+d.lim.workers, "S5: %d clients", d.clients)
	k.must(d.queued <= d.lim.totalQueue+undone, "S5: %d queued", d.queued)
	k.must(undone > 0 || d.queuedBytes <= d.lim.totalBytes, "S5: %d bytes queued", d.queuedBytes)
	for name, s := range d.services {
		k.must(s.queued <= d.lim.serviceQueue+undone, "S5: service %q: %d queued", name, s.queued)
		k.must(undone > 0 || s.bytes <= d.lim.serviceBytes, "S5: service %q: %d bytes queued", name, s.bytes)
	}
	for _, m := range d.peers {
		for id, p := range m {
			k.must(p.outstanding <= d.lim.outstanding, "S5: client %q: %d outstanding", id, p.outstanding)
			k.must(p.concurrency <= d.lim.concurrency, "S5: worker %q: concurrency %d", id, p.concurrency)
			k.must(p.held <= d.lim.concurrency, "I9: worker %q: holds %d", id, p.held) // of its own concurrency: checkWorker
		}
	}
}

// empty states R5: nothing is held any more.
func (d *dispatcher) empty() error {
	n := d.requests.n + len(d.services) + len(d.queues) + len(d.timers.a) + d.blocked.n + d.clients + d.workers + d.queued
	for _, m := range d.peers {
		n += len(m)
	}
	if n != 0 || d.queuedBytes != 0 || d.outboxBytes != 0 || d.deadline() != never {
		return fmt.Errorf("R5: not empty: %d requests, services %v, %d queues, %d timers, %d blocked, %d clients, %d workers",
			d.requests.n, d.services, len(d.queues), len(d.timers.a), d.blocked.n, d.clients, d.workers)
	}
	return nil
}
