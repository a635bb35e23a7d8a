package omdp

import (
	"fmt"
	"strconv"
	"time"
)

// maxSlack is how long after its deadline a request on a link is given up: the
// broker's own TIMEOUT, which knows whether a worker had it, may come first.
const maxSlack = 50 * time.Millisecond

// pending is one request of a client that has not ended, as its table knows it.
type pending struct {
	owner    *call
	n        uint64 // the counter in its id
	rid      string
	deadline instant       // never: none
	slack    time.Duration // added to the deadline while it is on a link

	// Where it went out.
	gen       uint64 // the link's number; 0: it waits for one
	seq       uint64 // its place among the messages of that link
	sent      instant
	heard     instant // the last word on it
	confirmed bool    // a worker was said to have it

	due        instant // deadline, and slack if on a link
	at         int     // where its timer is: a place in the heap, or one of the below
	prev, next *pending
	before     *pending // in the line
	after      *pending
}

// Where a timer is, besides the heap.
const (
	inLine  = -1
	nowhere = -2
)

// pendingTable holds a client's requests that have not ended, and its timers:
// deadlines, heartbeats, the liveness of the broker and of foreign workers.
// Nothing in it does I/O or reads a clock, and none of its outputs depends on
// the order of a map.
type pendingTable struct {
	prefix   string // of every request id
	beat     time.Duration
	liveness int

	entries     map[uint64]*pending
	first, last *pending // in the order of their making

	// Timers. Most requests have the same timeout, so that each is due after
	// the one before it: those stand in a line, where they come and go in
	// constant time. A request that is due before the end of the line is in the heap.
	head, tail *pending
	heap       []*pending

	onLink int // how many have a gen

	// The link.
	gen      uint64 // of the present or last link
	up       bool
	armed    bool          // the broker told its interval
	told     time.Duration // that interval
	heard    instant
	nextBeat instant
	clock    clock
	alarm    instant // when the next turn is due
}

// clientTurn is what one turn of the timers asks for. Its slices are reused.
type clientTurn struct {
	hello   bool       // send HELLO
	beats   []*pending // send C|4|rid
	expired []*pending // removed: their deadline passed
	silent  []*pending // removed: their foreign worker was not heard of any more
	lost    bool       // the broker is silent: give up the link
}

func newPendingTable(prefix string, beat time.Duration, liveness int) *pendingTable {
	return &pendingTable{
		prefix: prefix, beat: beat, liveness: liveness,
		entries: map[uint64]*pending{}, nextBeat: never, alarm: never,
	}
}

func (t *pendingTable) len() int { return len(t.entries) }

// add takes p in, waiting for a link. It reports whether the next turn must
// come sooner than it was asked for.
func (t *pendingTable) add(p *pending) (sooner bool) {
	p.gen, p.seq, p.at, p.due, p.confirmed = 0, 0, nowhere, p.deadline, false
	p.prev, p.next = t.last, nil
	if t.last == nil {
		t.first = p
	} else {
		t.last.next = p
	}
	t.last = p
	t.entries[p.n] = p
	t.schedule(p)
	if p.due < t.alarm {
		t.alarm = p.due
		return true
	}
	return false
}

// send notes that p goes out on the present link as its message seq.
func (t *pendingTable) send(p *pending, now instant, seq uint64) {
	p.gen, p.seq, p.sent, p.heard = t.gen, seq, now, now
	t.onLink++
	if p.deadline != never {
		t.unschedule(p)
		p.due = p.deadline + p.slack
		t.schedule(p)
	}
}

func (t *pendingTable) remove(p *pending) {
	if p.gen != 0 {
		t.onLink--
	}
	if p.prev == nil {
		t.first = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		t.last = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.prev, p.next = nil, nil
	delete(t.entries, p.n)
	t.unschedule(p)
}

// find gives the request that a message names, or nil: an id that is not ours,
// or whose request has ended.
func (t *pendingTable) find(rid []byte) *pending {
	if len(rid) <= len(t.prefix) || string(rid[:len(t.prefix)]) != t.prefix {
		return nil
	}
	var n uint64
	for i, c := range rid[len(t.prefix):] {
		if c < '0' || c > '9' || i == 19 || i == 0 && c == '0' {
			return nil
		}
		n = n*10 + uint64(c-'0')
	}
	return t.entries[n]
}

// appendRID appends the id of request n.
func (t *pendingTable) appendRID(b []byte, n uint64) []byte {
	return strconv.AppendUint(append(b, t.prefix...), n, 10)
}

// opened begins a link, which nothing is known of yet.
func (t *pendingTable) opened() {
	t.gen++
	t.up, t.armed, t.told, t.nextBeat = false, false, 0, never
}

// connected: the link's first message was taken.
func (t *pendingTable) connected(now instant) {
	t.up, t.heard, t.nextBeat = true, now, now+t.beat
}

// waiting gives the requests that wait for a link, oldest first.
func (t *pendingTable) waiting(yield func(*pending) bool) {
	for p := t.first; p != nil; {
		next := p.next
		if p.gen == 0 && !yield(p) {
			return
		}
		p = next
	}
}

// lost ends the link, of which so many messages were sent. What was on it is
// removed and returned, oldest first; what was not waits for the next one.
func (t *pendingTable) lost(sent uint64) (ended []*pending) {
	t.up, t.armed, t.nextBeat = false, false, never
	for p := t.first; p != nil; {
		next := p.next
		switch {
		case p.gen == 0:
		case p.seq < sent:
			t.remove(p)
			ended = append(ended, p)
		default:
			p.gen, p.confirmed = 0, false
			t.onLink--
			if p.deadline != never {
				t.unschedule(p)
				p.due = p.deadline
				t.schedule(p)
			}
		}
		p = next
	}
	return ended
}

// answered: the broker told its interval, and from now on its silence counts.
// It speaks to an idle client only when asked, so it is asked at least that often.
func (t *pendingTable) answered(now instant, told time.Duration) {
	t.armed, t.told = true, told
	t.nextBeat = min(t.nextBeat, now+told)
}

// interval is how often the broker is greeted.
func (t *pendingTable) interval() time.Duration {
	if t.armed {
		return min(t.beat, t.told)
	}
	return t.beat
}

// turn does what is due at now and sets alarm to when it is to be called again.
func (t *pendingTable) turn(now instant, w *clientTurn) {
	*w = clientTurn{beats: w.beats[:0], expired: w.expired[:0], silent: w.silent[:0]}
	t.clock.turn(now, t.alarm, t.beat)
	t.alarm = never
	for p := t.soonest(); p != nil && p.due <= now; p = t.soonest() {
		t.remove(p)
		w.expired = append(w.expired, p)
	}
	if t.up {
		if now >= t.nextBeat {
			t.nextBeat = now + t.interval()
			t.beats(now, w)
		}
		t.alarm = t.nextBeat
	}
	if t.up && t.armed {
		end := t.clock.silentSince(t.heard) + lifeLimit(t.told, t.liveness)
		if w.lost = end <= now; !w.lost {
			t.alarm = min(t.alarm, end)
		}
	}
	if p := t.soonest(); p != nil {
		t.alarm = min(t.alarm, p.due)
	}
}

// beats lists the requests whose worker is told that somebody waits: those
// that have been out for a heartbeat ("Client MAY send heartbeat for active
// request"). A foreign broker does not look after requests in progress, so the
// client does: what a worker had and was not heard of for 15 s is taken for
// lost ("Client MAY decide to timeout an inactive Request").
func (t *pendingTable) beats(now instant, w *clientTurn) {
	w.hello = true
	for p := t.first; p != nil; {
		next := p.next
		switch {
		case p.gen == 0:
		case !t.armed && p.confirmed && now-t.clock.silentSince(p.heard) > foreignLiveness:
			t.remove(p)
			w.silent = append(w.silent, p)
		case now-p.sent >= t.beat:
			w.beats = append(w.beats, p)
		}
		p = next
	}
}

// soonest is the request whose timer comes first, nil if none has one.
func (t *pendingTable) soonest() *pending {
	if len(t.heap) > 0 && (t.head == nil || t.heap[0].due < t.head.due) {
		return t.heap[0]
	}
	return t.head
}

func (t *pendingTable) schedule(p *pending) {
	switch {
	case p.due == never:
	case t.tail == nil || t.tail.due <= p.due:
		p.at, p.before, p.after = inLine, t.tail, nil
		if t.tail == nil {
			t.head = p
		} else {
			t.tail.after = p
		}
		t.tail = p
	default:
		p.at = len(t.heap)
		t.heap = append(t.heap, p)
		t.fix(p.at)
	}
}

func (t *pendingTable) unschedule(p *pending) {
	i := p.at
	p.at = nowhere
	if i == inLine {
		if p.before == nil {
			t.head = p.after
		} else {
			p.before.after = p.after
		}
		if p.after == nil {
			t.tail = p.before
		} else {
			p.after.before = p.before
		}
		p.before, p.after = nil, nil
	}
	if i < 0 {
		return
	}
	end := len(t.heap) - 1
	moved := t.heap[end]
	t.heap[end] = nil
	t.heap = t.heap[:end]
	if i < end {
		t.heap[i] = moved
		moved.at = i
		t.fix(i)
	}
}

// fix restores the order of the heap after the entry at i changed.
func (t *pendingTable) fix(i int) {
	h := t.heap
	p := h[i]
	for i > 0 {
		up := (i - 1) / 2
		if h[up].due <= p.due {
			break
		}
		h[i] = h[up]
		h[i].at = i
		i = up
	}
	for {
		down := 2*i + 1
		if down >= len(h) {
			break
		}
		if r := down + 1; r < len(h) && h[r].due < h[down].due {
			down = r
		}
		if h[down].due >= p.due {
			break
		}
		h[i] = h[down]
		h[i].at = i
		i = down
	}
	h[i] = p
	p.at = i
}

// check says what is inconsistent, for tests to call after each step.
func (t *pendingTable) check() error {
	n, out, timed := 0, 0, 0
	var before *pending
	for p := t.first; p != nil; before, p = p, p.next {
		n++
		if p.gen != 0 {
			out++
		}
		if p.deadline != never {
			timed++
		}
		want := p.deadline
		if p.gen != 0 && want != never {
			want += p.slack
		}
		switch {
		case t.entries[p.n] != p || p.prev != before:
			return fmt.Errorf("request %d: the list and the map disagree", p.n)
		case p.gen != 0 && p.gen != t.gen:
			return fmt.Errorf("request %d: on link %d, want %d or none", p.n, p.gen, t.gen)
		case p.due != want:
			return fmt.Errorf("request %d: due at %v, want %v", p.n, p.due, want)
		case (p.deadline == never) != (p.at == nowhere), p.at >= len(t.heap), p.at >= 0 && t.heap[p.at] != p:
			return fmt.Errorf("request %d: heap place %d is wrong", p.n, p.at)
		}
	}
	switch {
	case before != t.last || n != len(t.entries):
		return fmt.Errorf("%d in the list, %d in the map", n, len(t.entries))
	case out != t.onLink:
		return fmt.Errorf("%d on the link, counted %d", out, t.onLink)
	}
	timed -= len(t.heap)
	before = nil
	for p := t.head; p != nil; before, p = p, p.after {
		if timed--; p.at != inLine || p.before != before || before != nil && before.due > p.due {
			return fmt.Errorf("request %d: wrong in the line of timers", p.n)
		}
	}
	if timed != 0 || before != t.tail {
		return fmt.Errorf("%d too few or too many timers", timed)
	}
	for i, p := range t.heap {
		if i > 0 && t.heap[(i-1)/2].due > p.due {
			return fmt.Errorf("request %d: before its parent in the heap", p.n)
		}
	}
	return nil
}
