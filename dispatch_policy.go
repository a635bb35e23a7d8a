package omdp

import (
	"cmp"
	"slices"
	"strconv"
)

// A DispatchPolicy says which of a service's workers that have room is given
// the next request; see [BrokerConfig]. It never changes the order of requests,
// and no request waits while any worker of its service has room.
type DispatchPolicy uint8

const (
	// LeastRecentlyUsed takes turns: the worker that was given a request, or
	// had no room, longest ago. It is the default, as the specification has it.
	LeastRecentlyUsed DispatchPolicy = iota
	// LeastLoaded takes the worker that has the fewest requests, of those the
	// one that was given one longest ago: for workers that take many at a time,
	// and requests that take very different times.
	LeastLoaded
	// Sticky gives requests with the same key ([WithKey]) to the same worker, so
	// that what it keeps in memory is of use. If that has no room, the request
	// does not wait for it but goes to the next one, the same for all requests
	// with that key. When workers come or go, the keys of few others move.
	// Requests without a key take turns.
	Sticky
)

// String gives the constant's name.
func (p DispatchPolicy) String() string {
	switch p {
	case LeastRecentlyUsed:
		return "LeastRecentlyUsed"
	case LeastLoaded:
		return "LeastLoaded"
	case Sticky:
		return "Sticky"
	}
	return "DispatchPolicy(" + strconv.Itoa(int(p)) + ")"
}

func (p DispatchPolicy) valid() bool { return p <= Sticky }

// policyOf is what holds for a service: the entry "" for those without one.
func (d *dispatcher) policyOf(service string) DispatchPolicy {
	p, ok := d.policies[service]
	if !ok {
		p = d.policies[""]
	}
	return p
}

// handedBack, as a request's key: its worker handed it back, and it goes to the one
// whose turn it is, whatever the policy.
const handedBack = 1

// pick chooses a worker that has room; nil if none has. key is the request's,
// 0 for none.
func (s *service) pick(key uint64) *peer {
	switch {
	case s.policy == LeastLoaded && key != handedBack && len(s.loads) > 0:
		return s.loads[0]
	case s.policy == Sticky && key > handedBack:
		if w := s.ring.pick(key); w != nil {
			return w
		}
	}
	return s.ready.front()
}

// loadHeap holds the workers of a service that have room, the least loaded
// first: what a request costs is O(log n).
type loadHeap []*peer

func (w *peer) before(o *peer) bool {
	switch {
	case w.held != o.held:
		return w.held < o.held
	case w.usedAt != o.usedAt:
		return w.usedAt < o.usedAt
	}
	return w.num < o.num
}

// set has w in the heap, or not, and at its place: its load may have changed.
func (h *loadHeap) set(w *peer, in bool) {
	a := *h
	switch {
	case in && w.loadAt == 0:
		a = append(a, w)
		w.loadAt = len(a)
	case !in && w.loadAt != 0:
		i, last := w.loadAt-1, len(a)-1
		w.loadAt = 0
		moved := a[last]
		a[last] = nil
		a = a[:last]
		*h = a
		if i < last {
			a[i], moved.loadAt = moved, i+1
			h.fix(i)
		}
		return
	case !in:
		return
	}
	*h = a
	h.fix(w.loadAt - 1)
}

// fix moves the one at i to where it belongs.
func (h loadHeap) fix(i int) {
	w := h[i]
	for i > 0 && w.before(h[(i-1)/2]) {
		h[i] = h[(i-1)/2]
		h[i].loadAt = i + 1
		i = (i - 1) / 2
	}
	for {
		c := 2*i + 1
		if c+1 < len(h) && h[c+1].before(h[c]) {
			c++
		}
		if c >= len(h) || !h[c].before(w) {
			break
		}
		h[i] = h[c]
		h[i].loadAt = i + 1
		i = c
	}
	h[i], w.loadAt = w, i+1
}

// ring places every worker of a service at several points of a circle. A key
// belongs to the worker at the first point after its own, and if that has no
// room to the next: nothing is remembered of keys, and a worker that comes or
// goes moves those between its points and the ones before them, no others.
type ring []point

type point struct {
	at     uint64
	worker *peer
}

const (
	ringPoints = 32 // of each worker: the largest share is then about 1.4 times the mean
	ringTries  = 16 // points looked at for one request; then any worker with room will do
)

// add places a worker. seed makes its points its own.
func (g *ring) add(w *peer, seed uint64) {
	for i := range uint64(ringPoints) {
		p := point{mix64(seed + i*0x9E3779B97F4A7C15), w}
		at, _ := slices.BinarySearchFunc(*g, p, func(a, b point) int {
			return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.worker.num, b.worker.num))
		})
		*g = slices.Insert(*g, at, p)
	}
}

func (g *ring) remove(w *peer) {
	*g = slices.DeleteFunc(*g, func(p point) bool { return p.worker == w })
}

// pick finds the worker that a key belongs to, of those that have room; nil if
// there is none among the first points.
func (g ring) pick(key uint64) *peer {
	at, _ := slices.BinarySearchFunc(g, key, func(p point, key uint64) int { return cmp.Compare(p.at, key) })
	for i := range min(ringTries, len(g)) {
		if w := g[(at+i)%len(g)].worker; w.ready.listed() {
			return w
		}
	}
	return nil
}

// keyHash stands for a key on the ring: FNV-1a, mixed. It is not 0, which is
// no key, nor handedBack. Whom keys collide with does no harm, so it needs no secret.
func keyHash(key string) uint64 {
	if key == "" {
		return 0
	}
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	return max(mix64(h), handedBack+1)
}

// mix64 spreads the bits of x: the finalizer of SplitMix64.
func mix64(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
