package omdp

import (
	"strconv"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// The table of a client: pure. It holds the requests that have not ended, what
// is known of each connection to a broker, and every timer; it decides which
// broker is asked, what is sent again, and how a request ends. Nothing in it
// does I/O or reads a clock, and none of its outputs depends on the order of a map.

// maxSlack is how long after its deadline a request on a link is given up: the
// broker's own TIMEOUT, which knows whether a worker had it, may come first.
const maxSlack = 50 * time.Millisecond

// pending is one request of a client that has not ended, as its table knows it.
type pending struct {
	owner *call

	// What is sent.
	n          uint64 // the counter in its id
	rid        string
	service    string
	data       []byte // encoded; kept until the end, as it may be sent again
	raw        bool   // it is bytes as they are, not JSON
	options    options
	meta       map[string]string
	idempotent bool
	deadline   instant       // never: none
	slack      time.Duration // added to the deadline while it is on a link

	// Attempts.
	attempt int     // the number of the present one, from 1
	after   instant // the present one is not sent before; 0: at once
	maybe   bool    // an earlier one may have been executed
	bounced bool    // an earlier one was refused, not executed
	partial bool    // a partial of the present one came

	// Where it went out.
	link      *tableLink // nil: it waits for one, or for its time
	seq       uint64     // its place among the messages of that connection
	sent      instant
	heard     instant // the last word on it
	confirmed bool    // a worker was said to have it
	answered  bool    // its end came
	hellos    int     // how many HELLOs went out before it on its link

	flow outflow  // data that goes in pieces
	join [][]byte // pieces that came of its next payload
	size int64    // … their bytes

	window  int64 // bytes that its worker may be ahead of its reader
	widened int64 // … of which it has grown by so many

	// Its partials, if it may not be without one for so long.
	idle    time.Duration // 0: it may
	stirred instant       // it was sent, one came, or one was read

	due        instant // when its timer fires, see dueAt
	at         int     // where its timer is: a place in the heap, or one of the below
	prev, next *pending
	before     *pending // in the line
	follow     *pending
}

// pendingTable is not safe for concurrent use.
type pendingTable struct {
	tableConfig

	links []tableLink // one an endpoint, in the order of preference
	best  *tableLink  // takes new requests; nil: they wait
	group int         // of the endpoint that is asked, where each has several; -1: none

	foreign     bool // another dialect than OMDP is spoken
	entries     map[uint64]*pending
	first, last *pending // in the order of their making
	fresh       uint64   // the counter of ids that were made anew
	onLinks     int      // requests that have a link
	unsent      int      // bytes of the data of the others

	timing  timing
	budget  retryBudget
	retries uint64
	widened int64  // bytes by which windows have grown
	scratch []byte // of an options frame
	text    []byte // of raw data as JSON
}

// tableConfig is what a table is made with.
type tableConfig struct {
	wire        *wire  // what is spoken; nil: OMDP
	life        string // told to brokers, and to nobody else
	prefix      string // of every request id
	beat        time.Duration
	liveness    int
	window      int64 // bytes of credit that a request grants, if it does not say otherwise
	maxWindow   int64 // … and to which that grows
	pack        int   // what it reads of envelopes; 0: 1
	maxBody     int64 // bytes of data, or of a payload, that may go in pieces
	links       int
	each        int // links of one endpoint; 0: 1
	maxAttempts int
	budget      int                   // attempts besides the first that may be made at once; negative: no limit
	random      func() uint64         // jitter
	unread      func(p *pending) bool // partials of it wait for its reader; nil: none ever do
}

// clientTurn is what a turn of the timers asks for. Its slices are reused.
type clientTurn struct {
	hello   bool       // send HELLO
	beats   []*pending // send C|4|rid
	expired []*pending // removed: their deadline passed
	silent  []*pending // removed: their foreign worker was not heard of any more
	again   bool       // some may be sent that had to wait for their time
	doubts  bool       // the state may be another
	lost    bool       // the broker is silent: give up the connection
}

// reset empties w for the next turn.
func (w *clientTurn) reset() {
	clear(w.beats)
	clear(w.expired)
	clear(w.silent)
	*w = clientTurn{beats: w.beats[:0], expired: w.expired[:0], silent: w.silent[:0]}
}

func newPendingTable(c tableConfig) *pendingTable {
	if c.wire == nil {
		c.wire = wires[native]
	}
	c.each = max(c.each, 1)
	t := &pendingTable{
		tableConfig: c, foreign: !c.wire.extends, links: make([]tableLink, c.links), group: -1, entries: map[uint64]*pending{},
		fresh: 1 << 62, timing: timing{alarm: never}, budget: newRetryBudget(c.budget),
	}
	for i := range t.links {
		t.links[i] = tableLink{index: i, group: i / c.each, started: i%c.each == 0, nextBeat: never, alarm: never}
	}
	return t
}

func (t *pendingTable) len() int { return len(t.entries) }

// add takes p in, waiting for a link. Its n, rid and deadline are set. Where
// there is a connection for new requests, put has to follow.
func (t *pendingTable) add(p *pending) {
	p.attempt, p.after, p.maybe, p.bounced, p.partial = 1, 0, false, false, false
	p.link, p.seq, p.confirmed, p.at = nil, 0, false, nowhere
	p.join, p.size = nil, 0
	p.prev, p.next = t.last, nil
	if t.last == nil {
		t.first = p
	} else {
		t.last.next = p
	}
	t.last = p
	t.entries[p.n] = p
	t.unsent += len(p.data)
	t.budget.earn()
	p.due = never
	if t.best == nil { // else put follows: one place among the timers is enough
		t.timing.schedule(p)
	}
}

// put sends p on l, as the message seq of that connection, with the time that
// is left to it.
func (t *pendingTable) put(p *pending, l *tableLink, now instant, seq uint64, out *batch.Out) {
	p.link, p.seq, p.sent, p.heard, p.confirmed, p.hellos, p.answered = l, seq, now, now, false, l.hellos, false
	p.stirred = now
	l.onLink++
	t.onLinks++
	t.unsent -= len(p.data)
	t.timing.reschedule(p)
	if t.foreign {
		t.ask(p, l, now, out)
		return
	}
	o := p.options
	switch {
	case p.deadline == never:
		o.timeout = timeoutNone
	case p.deadline-now != defaultTimeout:
		o.timeout = max(p.deadline-now, 1)
	}
	if p.attempt > 1 {
		o.attempt = p.attempt
	}
	data, mark := t.start(p, l, &o)
	t.scratch, _ = appendOptions(t.scratch[:0], o, p.meta) // a map of strings marshals
	var frame []byte
	if len(t.scratch) > 0 {
		frame = t.scratch
	}
	out.Pack = l.packs
	appendClientRequest(out, p.service, p.rid, data, frame, mark)
	t.dropText()
}

// unlink takes p off its connection; it waits for another.
func (t *pendingTable) unlink(p *pending) {
	l := p.link
	l.onLink--
	t.onLinks--
	t.unsent += len(p.data)
	if l.sole == p {
		t.leave(p, l)
	}
	p.link, p.seq, p.confirmed = nil, 0, false
	p.join, p.size = nil, 0
	t.timing.reschedule(p)
}

// remove takes p out: it has ended. Its link tells where it was.
func (t *pendingTable) remove(p *pending) {
	if l := p.link; l != nil {
		l.onLink--
		t.onLinks--
		if l.sole == p {
			t.leave(p, l)
		}
	} else {
		t.unsent -= len(p.data)
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
	t.timing.unschedule(p)
	t.narrow(p)
}

// cancel appends CANCEL for a request that was given up, or keeps it until the
// broker has answered: a Node broker, which never does, knows no such command.
func (t *pendingTable) cancel(p *pending, out *batch.Out) {
	switch l := p.link; {
	case l == nil || !l.up || !t.wire.extends:
	case l.extended:
		appendClientCommand(out, opCancel, p.rid)
	case len(l.owed) < maxOwed:
		l.owed = append(l.owed, p.rid)
	}
}

// waiting gives the requests that may be sent now, oldest first.
func (t *pendingTable) waiting(yield func(*pending) bool) {
	for p := t.first; p != nil && t.onLinks < len(t.entries); {
		next := p.next
		if p.link == nil && p.after == 0 && !yield(p) {
			return
		}
		p = next
	}
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

// rename gives p an id that no broker has seen.
func (t *pendingTable) rename(p *pending) {
	delete(t.entries, p.n)
	t.fresh++
	p.n = t.fresh
	p.rid = string(t.appendRID(nil, p.n))
	t.entries[p.n] = p
}

// expire does what the timers of requests ask for at now: w.expired are removed.
func (t *pendingTable) expire(now instant, w *clientTurn) {
	for p := t.timing.soonest(); p != nil && p.due <= now; p = t.timing.soonest() {
		switch {
		case p.link == nil && p.after != 0 && now < p.deadline:
			p.after, w.again = 0, true
			t.timing.reschedule(p)
			continue
		case t.stirs(now, p):
			t.timing.reschedule(p)
			continue
		}
		t.remove(p)
		w.expired = append(w.expired, p)
	}
	t.timing.rearm()
}
