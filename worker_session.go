package omdp

import (
	"strconv"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// The session of a worker, pure: the requests that it holds on its present
// link, when to beat, when the broker or a client counts as gone, and what a
// response may still send. It is told what arrived and what time it is; what
// is to be done about it comes out as values. It has no socket, goroutine,
// lock or clock.

// Causes with which contexts of requests end; context.Cause gives them.
var (
	errClientCanceled = causeOf(ErrCanceled, "client canceled")
	errClientGone     = causeOf(ErrCanceled, "client gone")
	errBreach         = causeOf(ErrProtocol, "more was sent than is allowed")
	errStalled        = causeOf(ErrCanceled, "the broker heard nothing of it for too long")
	errOvertaken      = causeOf(ErrCanceled, "the broker has given it up, and gave the next one")
	errLinkLost       = causeOf(ErrBrokerLost, "the connection ended")
	errWorkerClosed   = causeOf(ErrClosed, "the worker stops")
	errHandlerDone    = causeOf(ErrEnded, "the handler returned")
)

// cause is a sentinel with a detail.
type cause struct {
	err    error
	detail string
}

func causeOf(err error, detail string) error { return &cause{err, detail} }

func (c *cause) Error() string { return c.err.Error() + ": " + c.detail }
func (c *cause) Unwrap() error { return c.err }

// cancelCause reads the last frame of a CANCEL. Causes of later versions are
// the client's wish as far as a handler can tell.
func cancelCause(b []byte) error {
	switch string(b) {
	case causeDeadline:
		return ErrTimeout
	case causeGone:
		return errClientGone
	case causeStalled:
		return errStalled
	case causeProtocol:
		return errBreach
	}
	return errClientCanceled
}

// held is one request as the session knows it.
type held struct {
	key      string // names it on its link: one byte, the length of the token, then token and rid
	at       int    // index in workerSession.all; -1 when it is not held any more
	since    instant
	deadline instant // never: none
	cut      instant // when this worker ends it, if the broker has not
	seen     instant // when its client was last heard of
	watched  bool    // its client beat once, and nobody else tells when it is gone: its silence means something
	told     bool    // its context was ended
	gathers  bool    // its data is not complete
	in       *inflow // its data comes in pieces
}

func (h *held) token() string { return h.key[1 : 1+int(h.key[0])] }
func (h *held) rid() string   { return h.key[1+int(h.key[0]):] }

// appendKey makes the key of a request. The token alone won't do: a Node
// broker puts the client's identity there, the same for all its requests.
func appendKey(b []byte, token, rid []byte) []byte {
	b = append(b, byte(len(token))) // ≤ maxIdentity
	b = append(b, token...)
	return append(b, rid...)
}

// ending is a request whose context is to end.
type ending struct {
	t     *task
	cause error
}

// arrivals is what a batch of messages or a tick asks of the shell.
type arrivals struct {
	run    []*task
	ended  []ending
	credit []creditTo
	grants []creditTo // credit to give
	pieces []pieceTo
	ready  bool  // the broker was heard for the first time on this link
	leaves bool  // the broker said DRAIN, or answers a pause
	beat   bool  // appendBeats is due
	wake   bool  // a timer is due earlier than the last tick said
	drop   error // give the link up
}

type creditTo struct {
	t      *task
	n      int64
	window int64 // from now on; 0: as before
}

// pieceTo is a piece of an upload; nil: its end.
type pieceTo struct {
	t *task
	p []byte
}

// reset empties a for the next use. What it pointed to is let go.
func (a *arrivals) reset() {
	clear(a.run)
	clear(a.ended)
	clear(a.credit)
	clear(a.grants)
	clear(a.pieces)
	*a = arrivals{run: a.run[:0], ended: a.ended[:0], credit: a.credit[:0], grants: a.grants[:0], pieces: a.pieces[:0]}
}

// workerSession is not safe for concurrent use.
type workerSession struct {
	wire        *wire
	heartbeat   time.Duration
	liveness    int
	concurrency int

	// The present link.
	up     bool   // READY was taken: there is a connection
	ready  bool   // the broker was heard
	over   bool   // the link is to be given up: what still arrives is ignored
	life   string // of a broker that advertised, else empty
	said   int    // the concurrency that the broker was told last …
	claim  int    // … and the most that it was told: how much it may think of when it gives
	paused bool   // … and, where that is said with a beat, that it is to give nothing now
	packs  bool   // the broker reads envelopes
	many   bool   // … and several of them in one frame
	frame  int64  // … and pieces, and takes frames of so many bytes; 0: no pieces
	told   time.Duration
	heard  instant
	beatAt instant
	all    []*task
	byKey  map[string]*task

	clock clock
	due   instant // what tick returned last, or earlier since then

	malformed, dropped, overdrawn uint64
	nameless                      uint64 // requests that came without an id

	// Of data in pieces.
	maxBody int64         // the most that is joined
	quiet   time.Duration // how long a client may be silent that may send more; not positive: for ever
	room    *bodyRoom     // of all sessions of the worker
	roomy   []*task       // for whose data there is room since the last tick

	x extra // scratch
}

func newWorkerSession(heartbeat time.Duration, liveness, concurrency int) workerSession {
	return workerSession{wire: wires[native], heartbeat: heartbeat, liveness: liveness, concurrency: concurrency, claim: concurrency, byKey: map[string]*task{}, due: never,
		maxBody: defaultMaxBody, room: &bodyRoom{size: 4 * defaultMaxBody, window: defaultWindow, maxWindow: defaultMaxWindow}}
}

// open starts a fresh link.
func (s *workerSession) open() {
	s.up, s.ready, s.over, s.life, s.told, s.packs, s.many, s.frame = false, false, false, "", 0, false, false, 0
	s.roomy, s.paused = nil, false
	s.said, s.claim = s.concurrency, s.concurrency // READY says it
	s.due = never
}

// connected is called when READY was taken: from now on the broker has to be
// heard, Node brokers as well, since they beat to their workers.
func (s *workerSession) connected(now instant) {
	s.up, s.heard, s.beatAt = true, now, now+s.heartbeat
	s.due = min(s.due, s.beatAt)
}

// close ends the link and returns what was held on it.
func (s *workerSession) close() []*task {
	all := s.all
	for _, t := range all {
		t.at = -1
	}
	s.all, s.up, s.ready = nil, false, false
	clear(s.byKey)
	return all
}

// setConcurrency changes how many requests are wanted at a time. What is held
// goes on.
func (s *workerSession) setConcurrency(n int) { s.concurrency = n }

// unsaid tells whether the broker is to be told of another concurrency: one
// that advertised, or whose dialect has heartbeats for that. Others give one
// request at a time whatever is said.
func (s *workerSession) unsaid() bool {
	return (s.known() || s.wire.several) && !s.over && s.said != s.concurrency
}

// appendReady registers for a service.
func (s *workerSession) appendReady(o *batch.Out, service string, self *caps) {
	if s.wire.extends {
		appendReady(o, service, self)
		return
	}
	s.wire.appendReady(o, service)
	if s.wire.several { // PIGATO 0.0.46's worker beats at once
		s.wire.appendWorkerBeat(o, s.level(), "", "")
	}
}

// appendLevel tells the concurrency.
func (s *workerSession) appendLevel(o *batch.Out, self *caps) {
	if s.wire.extends {
		appendHello(o, headerWorker, self)
	} else {
		s.wire.appendWorkerBeat(o, s.level(), "", "")
	}
}

// level is what a beat says of how many requests are wanted at a time.
func (s *workerSession) level() int {
	if s.paused {
		return 0
	}
	return s.concurrency
}

// say notes that the broker is told now.
func (s *workerSession) say() {
	s.said = s.concurrency
	s.claim = max(s.claim, s.said)
}

// known tells whether the broker advertised, and so understands extensions.
func (s *workerSession) known() bool { return s.life != "" }

// receive takes one well-formed message. take turns a REQUEST into a task; x
// is nil if the broker did not advertise.
func (s *workerSession) receive(now instant, m *message, a *arrivals, take func(m *message, x *extra) *task) {
	if s.over {
		return
	}
	if m.op == opDisconnect {
		s.over, a.drop = true, errDisconnected
		return
	}
	s.heard = now
	if !s.ready {
		s.ready, a.ready = true, true
	}
	switch m.op {
	case opRequest:
		s.onRequest(now, m, a, take)
	case opHello:
		s.onHello(m, a)
	case opHeartbeat:
		if t := s.find(m); t != nil {
			t.seen, t.watched = now, !t.tells
		}
		// The answer to the pause, behind all that was given before; or, rarely, to the beat before that.
		a.leaves = a.leaves || s.paused && m.token == nil
	case opCredit:
		if t := s.find(m); t != nil {
			a.credit = append(a.credit, creditTo{t, m.credit, m.window})
		}
	case opPiece:
		s.onPiece(now, m, a)
	case opBlocked:
		s.onClientBlocked(now, m, a)
	case opCancel:
		if t := s.find(m); t != nil && !t.told {
			t.told = true
			a.ended = append(a.ended, ending{t, cancelCause(m.cause)})
		}
	case opDrain:
		// It accepts nothing more; what it has accepted may still come, and goes
		// on until it says DISCONNECT or the connection ends.
		a.leaves = true
	}
}

func (s *workerSession) find(m *message) *task {
	if m.token == nil {
		return nil
	}
	var scratch [1 + maxIdentity + maxRID]byte
	return s.byKey[string(appendKey(scratch[:0], m.token, m.rid))]
}

// most is how many requests may be held. A broker that advertised takes the
// place of a request back when it hears nothing of it for too long; where its
// messages were held up, the worker gets the next one before it learns so. That
// one waits for a place. One of another dialect may have given a request up and
// has no word for that, or goes by what it assumes before it is told. Nobody says
// when a broker has read that the concurrency shrank: until the link ends, it may
// give as much as it was ever told.
func (s *workerSession) most() int {
	if s.known() || !s.wire.extends {
		return max(2*s.claim, s.wire.assumes)
	}
	return s.claim
}

// onRequest holds a request. One too many, or one that is held already, is
// dropped and counted, as Node workers drop it (ERR_REQ_OVERRIDE): a handler
// runs at most once per token.
func (s *workerSession) onRequest(now instant, m *message, a *arrivals, take func(*message, *extra) *task) {
	var scratch [1 + maxIdentity + maxRID]byte
	key := appendKey(scratch[:0], m.token, m.rid)
	if s.wire.takesOver && s.byKey[string(key)] == nil {
		s.overtake(a)
	}
	if len(s.all) >= s.most() || s.byKey[string(key)] != nil {
		s.dropped++
		return
	}
	var x *extra
	if m.extra != nil {
		var ok bool
		if s.x, ok = parseExtra(m.extra); ok {
			x = &s.x
		} else {
			s.malformed++
		}
	}
	if m.pieces && (x == nil || x.more == 0) { // nobody can tell what follows
		s.malformed++
		return
	}
	t := take(m, x)
	t.held = held{
		key: string(key), at: len(s.all),
		since: now, seen: now, deadline: deadlineOf(now, m, x),
	}
	t.cut = t.deadline
	if x != nil && t.deadline != never { // the broker ends it, and tells the client: a final must not come in between
		t.cut += min((t.deadline-now)/10, maxSlack)
	}
	if t.req.id = t.rid(); t.req.id == "" {
		s.nameless++
		t.req.id = strconv.FormatUint(s.nameless, 10)
	}
	s.all = append(s.all, t)
	s.byKey[t.key] = t
	if t.cut < s.due {
		s.due, a.wake = t.cut, true
	}
	if m.pieces && s.expect(now, t, x.more, a) {
		return
	}
	a.run = append(a.run, t)
}

// overtake makes room for the next request, where a broker gives it while it knows
// of no other: the one before was given up, and nobody wants an answer to it.
func (s *workerSession) overtake(a *arrivals) {
	for len(s.all) > 0 {
		t := s.all[0]
		s.release(t)
		if !t.told {
			t.told = true
			a.ended = append(a.ended, ending{t, errOvertaken})
		}
	}
}

// deadlineOf is when a request's time is over: by the time that the broker says
// remains, or by the client's own timeout behind a broker that says nothing.
// A Node client that gives none means 60 s in the broker's queue, and as long
// as it takes after it.
func deadlineOf(now instant, m *message, x *extra) instant {
	if x != nil {
		if x.remaining < 0 || x.remaining > maxTimeoutMS {
			return never
		}
		return now + time.Duration(x.remaining)*time.Millisecond
	}
	if o, ok := parseOptions(m.options); ok && o.timeout > 0 {
		return now + o.timeout
	}
	return never
}

func (s *workerSession) onHello(m *message, a *arrivals) {
	c, ok := parseCaps(m.caps)
	switch {
	case !ok:
		s.malformed++
	case s.life != "" && s.life != c.ID:
		s.over, a.drop = true, errBrokerChanged
	default:
		s.life, s.told, s.packs, s.many, s.frame = c.ID, c.interval(), c.Pack > 0, c.Pack > 1, min(c.Frame, maxCredit)
	}
}

// release forgets a request that gets its final now. It reports false if the
// link on which it was held is no more.
func (s *workerSession) release(t *task) bool {
	if t.at < 0 {
		return false
	}
	last := len(s.all) - 1
	s.all[t.at] = s.all[last]
	s.all[t.at].at = t.at
	s.all[last] = nil
	s.all = s.all[:last]
	t.at = -1
	delete(s.byKey, t.key)
	return true
}

// tick does what is due at now and returns when it is to be called next, at
// the latest. It costs little while nothing is due.
func (s *workerSession) tick(now instant, a *arrivals) instant {
	jumped := s.clock.turn(now, s.due, s.heartbeat)
	if now < s.due && !jumped && len(s.roomy) == 0 {
		return s.due
	}
	for _, t := range s.roomy {
		if t.at >= 0 && !t.told {
			s.begin(now, t, a)
		}
	}
	s.roomy = nil
	next := never
	if s.up && !s.over {
		if now >= s.beatAt {
			a.beat = true
			s.beatAt = now + s.heartbeat
		}
		silent := s.clock.silentSince(s.heard) + s.patience()
		if now >= silent {
			s.over, a.drop = true, errBrokerSilent
		}
		next = min(s.beatAt, silent)
	}
	for _, t := range s.all {
		next = min(next, s.check(now, t, a))
	}
	s.due = next
	return next
}

// patience is how long the broker may be silent.
func (s *workerSession) patience() time.Duration {
	return lifeLimit(s.told, s.heartbeat, s.liveness)
}

// check ends a request whose time is over or whose client is silent, and
// returns when to look again.
func (s *workerSession) check(now instant, t *task, a *arrivals) instant {
	if t.told {
		return never
	}
	silent := never
	if t.watched {
		silent = s.clock.silentSince(t.seen) + foreignLiveness
	}
	quiet := s.quietAt(t)
	switch {
	case now >= t.cut:
		t.told = true
		a.ended = append(a.ended, ending{t, ErrTimeout})
	case now >= quiet:
		s.overdrawn++
		t.told = true
		a.ended = append(a.ended, ending{t, errIdleUpload})
	case now >= silent:
		t.told = true
		a.ended = append(a.ended, ending{t, errClientGone})
	default:
		return min(t.cut, silent, quiet)
	}
	return never
}

// appendBeats appends the worker's beat, and one for each request that it has
// held for half an interval or longer: what is younger will hardly get old.
func (s *workerSession) appendBeats(o *batch.Out, now instant) {
	if !s.wire.beatsRequest {
		s.wire.appendWorkerBeat(o, s.level(), "", "")
		return
	}
	appendWorkerCommand(o, opHeartbeat, "", "")
	for _, t := range s.all {
		if now-t.since >= s.heartbeat/2 {
			appendWorkerCommand(o, opHeartbeat, t.token(), t.rid())
		}
	}
}

// credit says how much a response may send: at most window bytes that its
// client has not consumed yet. Bytes are counted as they cross the wire, in
// the last payload frame of a partial.
type credit struct {
	window   int64 // 0: the client grants none and sets no bound
	sent     int64
	consumed int64
}

// take reserves n bytes. Whatever its size, a message may go when so little is
// on the way that the client may have consumed it without a word.
func (c *credit) take(n int64) bool {
	way := c.sent - c.consumed
	if c.window > 0 && way >= max(c.window/creditShare, 1) && way+n > c.window {
		return false
	}
	c.sent += n
	return true
}

// grant is what a CREDIT says. More than was sent is not believed; a window
// grows or stays, and there is none where none was granted.
func (c *credit) grant(n, window int64) {
	c.consumed = min(c.consumed+n, c.sent)
	if c.window > 0 {
		c.window = max(c.window, window)
	}
}

// room is how many bytes may go now; most if there is no bound.
func (c *credit) room(most int64) int64 {
	if c.window == 0 {
		return most
	}
	return min(max(c.window-c.sent+c.consumed, 0), most)
}
