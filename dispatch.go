package omdp

import (
	"hash/maphash"
	"math/rand/v2"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// The core: pure. It is given what arrived and what time it is, and appends
// what is to be sent to the outboxes. It has no clock, goroutine, lock, log or
// socket, and the same inputs give the same bytes. Misbehaviour of a peer is
// an output (a counter, a note, perhaps a DISCONNECT), never an error.
//
// A request is in exactly one place: queued, or in progress in one slot of one
// worker, or gone; it leaves with one terminal event to its client, unless the
// client cancelled it or is gone itself.

// limits of the core; every one is positive.
type limits struct {
	serviceQueue, totalQueue   int   // requests
	serviceBytes, totalBytes   int64 // bytes queued
	outstanding                int   // requests per client
	services, workers, clients int
	concurrency                int // that a worker may claim
	outbox                     int // messages per peer that wait for room in its pipe
	outboxBytes, totalOutbox   int64
	frame                      int64 // bytes of the largest frame
	malformed                  int   // messages within malformedIn: the peer is ignored for ignoreFor
	malformedIn, ignoreFor     time.Duration
	finished                   int           // ended requests that are remembered …
	window                     time.Duration // … for so long; not positive: none
	defaultTimeout, maxTimeout time.Duration // negative: none; maxTimeout 0: off
	heartbeat                  time.Duration
	liveness                   int
	inProgress                 time.Duration // at workers without beats for requests; 0: no limit
	dropPartials               bool          // towards clients whose dialect has none
}

type role uint8

const (
	roleNone role = iota // only counted for malformed messages
	roleClient
	roleWorker
)

// peer is everything known of one routing id on one listener.
type peer struct {
	id       string
	listener int
	num      uint32 // names it in keys of queues
	key      uint64 // stands for it in hashes of requests: for its life if it has one, else for its id
	role     role
	dead     bool  // removed; what still points to it lets go
	wire     *wire // its dialect; nil while it has no role

	seen  instant // its last message
	timer timer
	beats bool  // it beats, so its silence means something
	adv   bool  // it advertised: extensions may be sent to it
	pack  bool  // it reads envelopes
	many  bool  // … and several of them in one frame
	grow  bool  // its windows grow
	body  int64 // the most in pieces that it takes, in bytes; 0: it knows neither pieces nor raw data
	told  time.Duration
	life  string // its own id, when it advertised

	malformed      int // since malformedSince
	malformedSince instant
	ignoredUntil   instant

	backlog backlog // what its pipe had no room for

	windows int64 // bytes of credit that it grants to all that it has in progress together

	// a client's
	window      int64 // bytes of credit that it grants to a request, if that says nothing else
	bodies      int   // live requests whose data comes in pieces
	outstanding int
	requests    list[request]
	lastQueue   *clientQueue // the one used last, often the only one
	lastService *service     // the one asked last

	// a worker's
	service     *service
	concurrency int
	held        int // slots, draining ones included
	draining    bool
	unreachable bool    // a send to it failed: it is given nothing more, and lost when all that came from it was read
	beatAt      instant // when it is told next that the broker lives
	spoken      bool    // it was sent a REQUEST since it was told last that the broker lives
	unclear     bool    // what it said so far is several dialects'
	clearAt     instant // until when it is given nothing, so that it can say more
	burst       int     // requests in the present batch
	burstTurn   uint64  // … which is this one
	resting     bool    // had its share of it; in dispatcher.resting
	level       int     // the concurrency that its heartbeats told last
	noticeAt    instant // when a bare beat of it is told next to the clients of what it holds
	slots       list[slot]
	ready       node[peer] // in service.ready while it may be given a request
	usedAt      uint64     // which of all dispatches was its last
	loadAt      int        // in service.loads, from 1; 0: not there
	lost        []uint64   // ring of tokens that were taken back from it
	lostAt      int
	answered    [16]uint64 // ring of tokens under which it said finals
	answeredAt  uint8
}

// request is one accepted REQUEST.
type request struct {
	client  *peer
	service *service
	hash    uint64
	chain   *request // in requestTable
	ridLen  int
	ridBuf  [maxRID]byte

	arrived  instant
	deadline timer  // not armed: none
	attempt  int    // dispatches so far that were sent: 0 or 1
	asked    int    // which attempt of its client's this is, 1 for the first
	reported bool   // its client was sent a worker's final
	failFast bool   // it does not wait for a worker to come
	key      uint64 // of its key, for services that are sticky; 0: none
	window   int64  // bytes of credit; 0: the client grants none
	grows    bool   // the window may grow
	more     int64  // bytes of its data that come in pieces; moreUpload: nobody knows; 0: none
	slot     *slot  // nil while queued
	queue    *clientQueue

	data, options []byte // while queued: owned, or what block holds
	form          form   // of data
	hasOptions    bool
	block         *batch.Block // kept while queued; nil: data is no block
	bridge        *bridge      // what dialects need of it; nil: nothing

	ofClient node[request]
	inQueue  node[request]
}

func (r *request) rid() []byte { return r.ridBuf[:r.ridLen] }

func (r *request) size() int64 { return int64(len(r.data) + len(r.options) + r.ridLen) }

// noteKind is a change of state that the shell logs.
type noteKind uint8

const (
	noteWorkerReady noteKind = iota
	noteWorkerGone
	noteClientGone
	noteMalformed
	noteIgnored
	noteSlow
	noteClipped
	noteForged
	noteJump
)

type note struct {
	kind    noteKind
	service string
	reason  string
	n       int
}

// dispatcher is the core of a broker. It is not safe for concurrent use.
type dispatcher struct {
	lim      limits
	self     caps
	policies map[string]DispatchPolicy // by service; "" for the others; never changes
	random   *rand.ChaCha8
	now      instant // of the turn
	clock    clock
	due      instant // what deadline returned last

	dialects  []Dialect              // by listener
	stranger  *wire                  // the dialect of the last message that could not be read, for an answer to it
	wrong     string                 // … which is not one that it may be in; else empty
	nextRID   uint64                 // the last id made for a request that came without
	ridText   []byte                 // … in decimal
	versions  map[string][]versioned // services of workers that told a version, by name without it, the newest first
	wildcards int                    // services that stand for all names with their beginning
	nameText  []byte                 // scratch
	joined    int64                  // bytes of partials that wait for their finals
	peers     []map[string]*peer     // by listener, then by routing id
	requests  requestTable
	finished  finished
	services  map[string]*service
	queues    map[queueKey]*clientQueue
	slots     []*slot
	slotFree  list[slot]
	timers    timers

	store       *batch.Store // of large frames, which are passed on without a copy; nil: all are copied
	boxes       []outbox
	blocked     list[backlog] // peers that wait for room
	retryAt     instant
	outboxBytes int64   // in all backlogs
	overflowed  []*peer // to be ended at the end of the step
	turn        uint64  // batches taken
	resting     []*peer // workers that had their share of the batch
	rested      []*peer // the other array of resting
	relieved    []*peer // workers that may take more at the end of the step

	draining    bool
	clients     int
	workers     int
	speakers    [len(wires)]int // both, by dialect
	queued      int
	queuedBytes int64
	nextPeer    uint32
	nextService uint32

	ghosts       [256]ghost // of late, in a ring
	ghostAt      int
	freeRequests []*request
	freeBridges  []*bridge
	freeQueues   []*clientQueue
	x            extra // scratch
	work         work
	say          message
	mmiServices  mmiAnswer
	mmiStats     mmiAnswer
	text         []byte // … of raw data as JSON
	original     []byte // … which is this, while it is given
	m1           [1][]byte
	notes        []note
	stats        counters
}

// newDispatcher makes a core with the given number of listeners. self is what
// the broker tells of itself; seed feeds the tokens.
func newDispatcher(lim limits, self caps, seed [32]byte, listeners int) *dispatcher {
	d := &dispatcher{
		lim: lim, self: self, random: rand.NewChaCha8(seed), due: never, retryAt: never,
		peers:    make([]map[string]*peer, listeners),
		boxes:    make([]outbox, listeners),
		dialects: make([]Dialect, listeners),
		services: map[string]*service{}, queues: map[queueKey]*clientQueue{}, versions: map[string][]versioned{},
	}
	for i := range d.dialects {
		d.dialects[i] = native
	}
	d.requests.seed = maphash.MakeSeed()
	d.finished.limit, d.finished.window = lim.finished, lim.window
	for i := range d.peers {
		d.peers[i] = map[string]*peer{}
	}
	return d
}

// receive takes one well-formed message of the peer id on listener l.
func (d *dispatcher) receive(now instant, l int, id []byte, m *message) {
	d.now = now
	p := m.from
	if p == nil || p.dead {
		p = d.peers[l][string(id)]
	}
	m.from = nil
	if p != nil {
		if p.ignoredUntil > now {
			d.stats.Ignored++
			return
		}
		p.seen = now
	}
	switch {
	case m.worker && p != nil && p.role == roleClient, !m.worker && p != nil && p.role == roleWorker:
		d.onMalformed(l, id, p, false) // a peer is a client or a worker for life
	case m.worker:
		d.fromWorker(l, id, p, m)
	default:
		d.fromClient(l, id, p, m)
	}
	d.finish()
}

// malformed takes a message that the codec refused; worker tells that it had a
// worker's header.
func (d *dispatcher) malformed(now instant, l int, id []byte, worker bool) {
	d.now = now
	p := d.peers[l][string(id)]
	if p != nil && p.ignoredUntil > now {
		d.stats.Ignored++
		d.wrong = ""
		return
	}
	d.onMalformed(l, id, p, worker)
	d.finish()
}

// onMalformed counts a breach of protocol against its sender alone. A worker
// is told to start anew ("Broker SHALL force disconnect … if any error occurs").
func (d *dispatcher) onMalformed(l int, id []byte, p *peer, worker bool) {
	d.stats.Malformed++
	if d.wrong != "" {
		d.stats.WrongDialect++
		defer func() { d.wrong = "" }()
	}
	if p == nil {
		if d.clients >= d.lim.clients {
			return
		}
		p = d.addPeer(l, id)
	}
	if p.malformed == 0 || d.now-p.malformedSince > d.lim.malformedIn {
		if p.malformedSince == 0 {
			d.note(noteMalformed, p, d.wrong) // once a peer
		}
		p.malformed, p.malformedSince = 0, d.now
	}
	p.malformed++
	if p.malformed >= d.lim.malformed {
		p.ignoredUntil = d.now + d.lim.ignoreFor
		p.malformed = 0
		d.note(noteIgnored, p, "")
	}
	switch {
	case p.role == roleWorker:
		n, since, until := p.malformed, p.malformedSince, p.ignoredUntil
		d.disconnectWorker(p, "malformed message")
		p = d.addPeer(l, id) // what it did is remembered
		p.malformed, p.malformedSince, p.ignoredUntil = n, since, until
	case worker:
		d.sayDisconnect(l, id, d.stranger)
	}
}

func (d *dispatcher) addPeer(l int, id []byte) *peer {
	d.nextPeer++
	p := &peer{id: string(id), listener: l, num: d.nextPeer, seen: d.now}
	p.key = d.requests.keyOf(p.id, l)
	for _, g := range d.ghosts {
		if g.listener == l && g.id == p.id {
			p.key, p.life = g.key, g.life
		}
	}
	p.timer.peer = p
	p.ready.owner = p
	p.backlog.node.owner = &p.backlog
	p.backlog.peer = p
	d.peers[l][p.id] = p
	d.clients++
	d.timers.set(&p.timer, d.now+max(foreignLiveness, d.lim.ignoreFor, d.lim.malformedIn))
	return p
}

func (d *dispatcher) removePeer(p *peer) {
	p.dead = true
	d.speaks(p, nil)
	delete(d.peers[p.listener], p.id)
	d.timers.remove(&p.timer)
	d.dropBacklog(p)
	if q := p.lastQueue; q != nil && q.requests.front() == nil {
		d.freeQueue(q)
	}
	p.lastQueue = nil
	if p.role == roleWorker {
		d.workers--
	} else {
		d.clients--
	}
	if p.life != "" && (p.role != roleWorker || !d.dialects[p.listener].advertises()) {
		d.ghosts[d.ghostAt] = ghost{p.listener, p.id, p.life, p.key}
		d.ghostAt = (d.ghostAt + 1) % len(d.ghosts)
	}
}

// ghost is a client that was forgotten while it may have more on its way, such
// as what it sent before its connection was cut: that is its life's still. Where
// another dialect is expected than that of peers which advertise, a worker's dialect is remembered by it.
type ghost struct {
	listener int
	id, life string
	key      uint64
}

// Time.

// deadline is when expire is to be called at the latest; never if there is nothing to wait for.
func (d *dispatcher) deadline() instant {
	d.due = min(d.timers.next(), d.retryAt, d.finished.due())
	if d.due != never { // a turn every beat: then a pause is told from a long wait for the next timer
		d.due = min(d.due, d.now+d.lim.heartbeat)
	}
	return d.due
}

// expire does everything that is due at now. It is cheap when nothing is.
func (d *dispatcher) expire(now instant) {
	d.now = now
	if d.clock.turn(now, d.due, d.lim.heartbeat) {
		d.notes = append(d.notes, note{kind: noteJump})
	}
	for t := d.timers.due(now); t != nil; t = d.timers.due(now) {
		if t.req != nil {
			d.onDeadline(t.req)
		} else {
			d.onTick(t.peer)
		}
	}
	if now >= d.retryAt {
		d.retry()
	}
	d.finished.expire(now)
	d.finish()
}

func (d *dispatcher) onDeadline(r *request) {
	d.timers.remove(&r.deadline)
	d.stats.Expired++
	executed := ""
	if r.slot == nil {
		executed = "false"
	}
	d.end(r, statusTimeout, executed, causeDeadline)
}

func (d *dispatcher) onTick(p *peer) {
	if p.role == roleWorker {
		d.onWorkerTick(p)
		return
	}
	limit := d.limitOf(p)
	since := d.clock.silentSince(p.seen)
	switch quiet := d.now-since >= limit; {
	case quiet && p.beats && p.ignoredUntil > d.now: // what it did is remembered
		d.dropAll(p)
		d.timers.set(&p.timer, p.ignoredUntil)
	case quiet && p.beats:
		d.clientGone(p, "silent")
	case quiet && p.outstanding == 0 && !p.backlog.blocked() && p.ignoredUntil <= d.now:
		d.removePeer(p)
	default:
		// A client that never beats is held by the deadlines of its requests alone:
		// a beat for one of them finds out whether it is still there.
		if r := p.requests.front(); quiet && r != nil && !p.backlog.blocked() {
			d.probe(p, r)
		}
		d.timers.set(&p.timer, max(since+limit, d.now+limit/4, p.ignoredUntil))
	}
}

// drain stops the acceptance of requests and tells every peer that
// understands it to go elsewhere.
func (d *dispatcher) drain(now instant) {
	d.now, d.draining = now, true
	d.eachPeer(func(p *peer) {
		switch {
		case p.role == roleWorker && p.adv:
			appendToWorker(d.open(p), p.id, opDrain, nil, nil, "")
			d.close(p, origin{})
		case p.role == roleClient && p.adv:
			appendToClient(d.open(p), p.id, opDrain, nil, nil)
			d.close(p, origin{})
		}
	})
	d.finish()
}

// shut ends everything: queued requests were not executed, those in progress
// may have been, and every worker is disconnected.
func (d *dispatcher) shut(now instant) {
	told := d.draining
	d.now, d.draining = now, true
	d.eachPeer(func(p *peer) {
		if p.role == roleClient && p.adv && !told { // first, so that nothing is sent here again
			appendToClient(d.open(p), p.id, opDrain, nil, nil)
			d.close(p, origin{})
		}
		for r := p.requests.front(); r != nil; r = p.requests.front() {
			if r.slot == nil {
				d.end(r, statusDraining, "false", causeGone)
			} else {
				d.end(r, statusLost, "", "") // DISCONNECT says it all to the worker
			}
		}
	})
	d.eachPeer(func(p *peer) {
		if p.role == roleWorker {
			d.sayDisconnect(p.listener, []byte(p.id), p.wire)
		}
	})
	d.finish()
}

func (d *dispatcher) note(k noteKind, p *peer, reason string) {
	n := note{kind: k, reason: reason, n: p.held}
	if p.service != nil {
		n.service = p.service.name
	}
	d.notes = append(d.notes, n)
}
