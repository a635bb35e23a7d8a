package omdp

import (
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// simWorker is a worker's shell around its session: it takes links, and runs
// handlers whose script stands in the request's data.
type simWorker struct {
	simProc
	num     int
	service byte
	conc    int
	hb      time.Duration
	life    int

	sess    workerSession
	link    *simLink
	b       *simBroker
	backoff backoff
	redial  instant // by its clock, while it has no link
	got     arrivals
	at      instant // of the session's tick, by its clock
	out     batch.Out
	m       message
	leaving bool // it said DRAIN
	settled bool // … and the broker has read that
	jobs    []simHandler
}

// simHandler is one run of a handler.
type simHandler struct {
	t      *task
	link   *simLink
	tok    int32
	call   int32 // -1: a raw peer's request
	script uint16
	parts  int
	next   instant // by the worker's clock
	cause  error   // its context ended
	over   bool
	since  instant
}

// The script of a handler: how long it takes, how many partials, how it ends.
const (
	scriptDelay = 7      // class
	scriptParts = 3 << 3 // count
	scriptEnd   = 7 << 5
	scriptOnce  = 1 << 8 // crash and never hold for the first attempt alone
	scriptHard  = 1 << 9 // it pays no heed to the end of its context
)

const (
	endOK = iota
	endOK2
	endOK3
	endOK4
	endError
	endNever
	endCrash
	endOK5
)

func (w *simWorker) beat() time.Duration { return w.hb }

func (w *simWorker) start() {
	w.life++
	w.leaving, w.settled = false, false
	w.sess = newWorkerSession(w.hb, w.w.conf.liveness, w.conc)
	w.backoff = backoff{min: w.w.conf.hb / 10, max: w.w.conf.hb}
	w.link, w.redial, w.at = nil, w.now(), never
	w.jobs = w.jobs[:0]
	if w.w.tracing {
		w.w.tracef("%s starts", w.name)
	}
}

func (w *simWorker) die(kind int) {
	w.jobs = w.jobs[:0]
	w.link = nil
	w.cutAll(kind)
}

func (w *simWorker) selfCaps() caps {
	return caps{V: 1, ID: "life-of-worker--------", HB: w.hb.Milliseconds(), Concurrency: w.conc, Pack: 1}
}

func (w *simWorker) dial() {
	w.link = w.w.dial(&w.simProc, w.b, true)
	w.redial = never
	w.sess.open()
	w.at = never
	c := w.selfCaps()
	appendReady(&w.out, w.w.service(w.service), &c)
	w.w.sends(w.link, &w.out)
}

func (w *simWorker) connected(l *simLink) {
	w.sess.connected(w.now())
	w.at = min(w.at, w.sess.due)
	l.book.beatAt = w.now()
}

func (w *simWorker) lost(l *simLink) {
	if w.link != l {
		return
	}
	if w.sess.ready {
		w.backoff.reset()
	}
	w.link = nil
	for _, t := range w.sess.close() {
		w.ctxEnds(t, errLinkLost)
	}
	w.leaving, w.settled = false, false
	w.redial = w.now() + w.backoff.next(uint64(l.num)*0x9E3779B97F4A7C15)
}

func (w *simWorker) receive(l *simLink, f [][]byte) {
	if w.link != l {
		return
	}
	if !parseAtWorker(f, &w.m) {
		w.w.fail("%s got what it can't read", w.name)
	}
	dropped := w.sess.dropped
	w.sess.receive(w.now(), &w.m, &w.got, w.take)
	if w.sess.dropped != dropped && !w.w.loose {
		w.w.fail("I9: %s dropped a request", w.name)
	}
	w.act(l)
}

// take makes a task of a REQUEST. K1: at most once per token.
func (w *simWorker) take(m *message, x *extra) *task {
	t := newTask(w.w.dummy, nil, m, x)
	t.res.packs = w.sess.packs
	k := &w.w.book
	h := simHandler{t: t, link: w.link, tok: -1, call: -1, next: w.now(), since: w.now()}
	if tok := k.tokOf(w.b, m.token); tok != nil {
		h.tok = k.tokIndex(w.b, tok)
		if tok.run {
			w.w.fail("K1: a handler runs again under one token")
		}
		if tok.link != w.link {
			w.w.fail("a REQUEST for %s arrived at %s", tok.link.id, w.link.id)
		}
		tok.run = true
		h.call = int32(k.callOf(m.data))
	}
	if h.call >= 0 {
		c := &k.calls[h.call]
		if c.runs++; c.runs > 1 && !c.idem {
			w.w.fail("%s is not idempotent and was executed twice", c.rid)
		}
		h.script = c.script
		if x != nil && x.attempt > 1 && h.script&scriptOnce != 0 {
			h.script &^= scriptEnd | scriptDelay
		}
		if c.ended && c.outcome != MayHaveExecuted && c.outcome != Executed {
			w.w.fail("C4: %s ended as %v and runs now", c.rid, c.outcome)
		}
	}
	h.next += w.delay(h.script)
	w.jobs = append(w.jobs, h)
	return t
}

func (w *simWorker) delay(script uint16) time.Duration {
	return w.w.span([8]int{0, 0, 1, 2, 3, 5, 6, 8}[script&scriptDelay])
}

func (w *simWorker) act(l *simLink) {
	a := &w.got
	for _, c := range a.credit {
		c.t.res.credit.grant(c.n)
	}
	for _, e := range a.ended {
		w.ctxEnds(e.t, e.cause)
	}
	drop := a.drop
	w.settled = w.settled || a.leaves && w.leaving
	w.at = min(w.at, w.sess.due)
	a.reset()
	if drop != nil && w.link == l {
		if w.w.tracing {
			w.w.tracef("%s gives %s up: %v", w.name, l.id, drop)
		}
		w.w.closeLink(l)
		w.lost(l)
	}
	w.handlers()
}

// ctxEnds tells a handler that its context ended; most end soon.
func (w *simWorker) ctxEnds(t *task, cause error) {
	for i := range w.jobs {
		h := &w.jobs[i]
		if h.t == t && h.cause == nil {
			h.cause = cause
			if h.script&scriptHard == 0 || h.script&scriptEnd == endNever<<5 {
				h.next = w.now() + w.w.conf.latency
			}
		}
	}
}

func (w *simWorker) due() instant {
	at := min(w.redial, w.at)
	for i := range w.jobs {
		at = min(at, w.jobs[i].next)
	}
	return w.world(at)
}

func (w *simWorker) turn() {
	w.wakes(w.hb)
	now := w.now()
	if w.link == nil && now >= w.redial {
		w.dial()
	}
	if l := w.link; now >= w.at { // between links, too
		w.at = w.sess.tick(now, &w.got)
		if w.got.beat {
			w.sess.appendBeats(&w.out, now)
			w.beats(l, now)
			w.w.sends(l, &w.out)
		}
		w.act(l)
	}
	w.handlers()
	w.silentHandlers(now)
	w.w.events++
}

// beats: K5: heartbeats go on while handlers run.
func (w *simWorker) beats(l *simLink, now instant) {
	in := &w.w.in
	in.Invalidate()
	in.B = append(in.B, w.out.B...)
	n := 0
	for f := in.Next(); f != nil; f = in.Next() {
		if parseAtBroker(f, &w.m); w.m.token != nil {
			n++
			if t := w.w.book.tokOf(w.b, w.m.token); t != nil && t.final {
				w.w.fail("K5: %s beats for what it has ended", w.name)
			}
		}
	}
	want := 0
	for i := range w.jobs {
		if h := &w.jobs[i]; h.link == l && !h.over && now-h.since >= w.hb/2 && h.t.at >= 0 {
			want++
		}
	}
	if n != want {
		w.w.fail("K5: %s beats for %d requests, it runs %d", w.name, n, want)
	}
	l.book.beatAt = now
}

// silentHandlers: K5, K3: the beats of a worker come every heartbeat, and no
// handler goes on for a broker that was silent for too long.
func (w *simWorker) silentHandlers(now instant) {
	l := w.link
	if l == nil || !l.connected {
		return
	}
	if gap := now - max(l.book.beatAt, w.graceOf); gap > w.hb+time.Millisecond {
		w.w.fail("K5: %s has not beaten for %v", w.name, gap)
	}
}

// handlers lets those handlers act whose time has come.
func (w *simWorker) handlers() {
	now := w.now()
	if l := w.link; l != nil && w.settled && len(w.jobs) == 0 {
		appendWorkerCommand(&w.out, opDisconnect, "", "")
		w.w.sends(l, &w.out)
		w.w.closeLink(l)
		w.lost(l)
	}
	for i := 0; i < len(w.jobs); i++ {
		h := &w.jobs[i]
		for !h.over && h.next <= now && !w.down {
			w.step(h)
			if w.down {
				return
			}
		}
		if h.over {
			w.jobs[i] = w.jobs[len(w.jobs)-1]
			w.jobs = w.jobs[:len(w.jobs)-1]
			i--
		}
	}
}

func (w *simWorker) step(h *simHandler) {
	now := w.now()
	end := int(h.script&scriptEnd) >> 5
	if h.cause != nil || w.w.healing {
		if end == endNever || end == endCrash {
			end = endError
		}
	}
	switch {
	case h.parts < int(h.script&scriptParts)>>3 && h.cause == nil:
		if w.partial(h) {
			h.next = now + w.delay(h.script)/2
		} else {
			h.next = now + w.w.conf.hb/4 // no credit
		}
	case end == endNever:
		h.next = never
	case end == endCrash:
		w.kill(h.parts, w.w.now+w.w.conf.hb/3)
	default:
		w.final(h, end == endError)
	}
}

func (w *simWorker) body(h *simHandler, kind byte) []byte {
	return append(w.w.bodyBuf[:0], '"', 't', hexDigit(h.tok>>12), hexDigit(h.tok>>8), hexDigit(h.tok>>4), hexDigit(h.tok), kind, byte('0'+h.parts), '"')
}

func hexDigit(v int32) byte { return "0123456789abcdef"[v&15] }

func (w *simWorker) partial(h *simHandler) bool {
	if h.t.at < 0 { // its link is gone: what a Response would do
		h.parts++
		return true
	}
	if !h.t.res.credit.take(40) {
		return false
	}
	w.out.Pack = h.t.res.packs
	appendReplyJSON(&w.out, opPartial, h.t.token(), h.t.rid(), "200", w.body(h, 'p'))
	h.parts++
	w.book(h).said++
	w.w.sends(w.link, &w.out)
	return true
}

func (w *simWorker) book(h *simHandler) *simTok {
	if h.tok < 0 {
		return &w.w.noTok
	}
	return &w.w.book.toks[h.tok]
}

// final: K4: exactly one for each handler; K2: never on another link.
func (w *simWorker) final(h *simHandler, failed bool) {
	h.over = true
	held := w.sess.release(h.t)
	if held && h.link != w.link {
		w.w.fail("K2: %s may send a final of an old link", w.name)
	}
	if !held {
		if h.link == w.link && w.link != nil && h.cause != errLinkLost {
			w.w.fail("K4: %s may not send the final of what it holds", w.name)
		}
		return
	}
	t := w.book(h)
	if t.final && h.tok >= 0 {
		w.w.fail("K4: a second final under one token")
	}
	t.final = true
	if h.call >= 0 {
		w.w.book.calls[h.call].ran++
	}
	w.out.Pack = h.t.res.packs
	kind := byte('f')
	if failed {
		kind = 'e'
	}
	appendReplyJSON(&w.out, opReply, h.t.token(), h.t.rid(), "200", w.body(h, kind))
	w.w.sends(w.link, &w.out)
}

// drain: the worker is to be given nothing more; when it holds nothing it goes
// and starts again.
func (w *simWorker) drain() {
	if w.link == nil || !w.running() || w.leaving || !w.sess.known() {
		return
	}
	w.leaving = true
	appendWorkerCommand(&w.out, opDrain, "", "")
	w.w.sends(w.link, &w.out)
}

// registered tells whether its broker has it.
func (w *simWorker) registered() bool {
	return w.link != nil && w.link.book.num != 0 && w.link.book.worker
}
