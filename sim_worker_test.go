package omdp

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// simWorker is a worker's shell around its sessions, one for each broker, and
// its places: it takes links, and runs handlers whose script stands in the
// book beside the call.
type simWorker struct {
	simProc
	num     int
	service byte
	conc    int
	hb      time.Duration
	conns   [simBrokers]simConn
	places  places
	room    bodyRoom
	jobs    []simJob
	freed   []*task // that got a place
	out     batch.Out
	m       message
	at      *simConn // take's
}

// simConn is a worker's side of one broker, as workerConn is.
type simConn struct {
	k       *simWorker
	b       *simBroker
	sess    workerSession
	link    *simLink
	dummy   workerConn // what newTask looks at
	backoff backoff
	redial  instant // by the worker's clock, while there is no link
	tickAt  instant
	got     arrivals
	leaving bool // DRAIN was said
	settled bool // … and the broker has read it
}

// simJob is a request at a worker: it waits for a place, or its handler runs.
type simJob struct {
	t      *task
	conn   *simConn
	link   *simLink
	tok    int32
	call   int32 // -1: a raw peer's
	script uint16
	parts  int
	next   instant // by the worker's clock; never: it waits for a place
	began  bool
	read   int   // bytes of its upload
	cause  error // its context ended
	since  instant
}

// The script of a handler: how long it takes, how many partials, how it ends.
const (
	scriptDelay = 7      // class
	scriptParts = 3 << 3 // count
	scriptEnd   = 7 << 5
	scriptOnce  = 1 << 8 // it behaves in a later attempt
	scriptHard  = 1 << 9 // it pays no heed to the end of its context
)

const (
	endOK uint16 = iota
	endError
	endNever
	endCrash
)

func (k *simWorker) beat() time.Duration { return k.hb }

func (k *simWorker) start() {
	k.jobs, k.places, k.room = k.jobs[:0], newPlaces(k.conc), simRoom(&k.w.conf)
	for i := range k.w.brokers[:k.w.conf.brokers] {
		c := &k.conns[i]
		c.k, c.b = k, &k.w.brokers[i]
		c.sess = newWorkerSession(k.hb, k.w.conf.liveness, k.conc)
		c.sess.room = &k.room
		c.backoff = backoff{min: k.w.conf.hb / 10, max: k.w.conf.hb}
		c.link, c.redial, c.tickAt = nil, k.now(), never
		c.dummy.worker = k.w.dummy
		c.leaving, c.settled = false, false
	}
}

func (k *simWorker) all() []simConn { return k.conns[:k.w.conf.brokers] }

func (k *simWorker) die(kind int) {
	k.jobs = k.jobs[:0]
	for i := range k.all() {
		k.conns[i].link = nil
	}
	k.cutAll(kind)
}

func (k *simWorker) connOf(l *simLink) *simConn {
	if c := &k.conns[l.b.num]; c.link == l {
		return c
	}
	return nil
}

func (c *simConn) dial() {
	k := c.k
	c.link = k.w.dial(&k.simProc, c.b, true, 0, OMDP)
	c.redial = never
	c.sess.open()
	appendReady(&k.out, k.w.service(k.service), k.caps())
	k.w.sends(c.link, &k.out)
}

func (k *simWorker) connected(l *simLink) {
	if c := k.connOf(l); c != nil {
		c.sess.connected(k.now())
		c.tickAt = min(c.tickAt, c.sess.due)
		l.book.beatAt = k.now()
	}
}

func (k *simWorker) lost(l *simLink) {
	c := k.connOf(l)
	if c == nil {
		return
	}
	if c.sess.ready {
		c.backoff.reset()
	}
	c.link = nil
	for _, t := range c.sess.close() {
		k.skip(t, errLinkLost)
		k.stop(t, errLinkLost)
	}
	c.leaving, c.settled = false, false
	c.redial = k.now() + c.backoff.next(uint64(l.num)*0x9E3779B97F4A7C15)
}

func (k *simWorker) receive(l *simLink, f [][]byte) {
	c := k.connOf(l)
	if c == nil {
		return
	}
	if !parseAtWorker(f, &k.m) {
		k.w.fail("%s got what it can't read", k.name)
	}
	dropped := c.sess.dropped
	k.at = c
	c.sess.receive(k.now(), &k.m, &c.got, k.w.take[k.num])
	if c.sess.dropped != dropped && !k.w.loose {
		k.w.fail("I9: %s dropped a request", k.name)
	}
	c.act()
}

// take makes a task of a REQUEST.
func (k *simWorker) take(m *message, x *extra) *task {
	c := k.at
	c.dummy.sess.packs = c.sess.packs
	t := newTask(&c.dummy, nil, m, x)
	j := simJob{t: t, conn: c, link: c.link, tok: -1, call: -1, next: never, since: k.now()}
	book := &k.w.book
	if tok := book.tokOf(c.b, m.token); tok != nil {
		if j.tok = book.tokIndex(c.b, tok); tok.run || tok.link != c.link {
			k.w.fail("K1: %s takes a REQUEST under a token that it took before, or that is another's", k.name)
		}
		tok.run = true
		j.call = int32(book.carries(m, func() int {
			if tok.inst < 0 {
				return -1
			}
			return int(book.insts[tok.inst].call)
		}))
		if j.call >= 0 {
			j.script = book.calls[j.call].script
			if x != nil && x.attempt > 1 && j.script&scriptOnce != 0 {
				j.script &^= scriptEnd | scriptDelay
			}
		}
	}
	k.jobs = append(k.jobs, j)
	return t
}

func (k *simWorker) delay(script uint16) time.Duration {
	return k.w.span([8]int{0, 0, 1, 2, 3, 5, 6, 8}[script&scriptDelay])
}

// act does what arrived messages or a tick ask for.
func (c *simConn) act() {
	k, a := c.k, &c.got
	k.freed = append(k.freed, k.places.come(a.run)...)
	c.grants(a)
	for _, g := range a.credit {
		g.t.res.credit.grant(g.n, g.window)
		g.t.res.asked = false
	}
	for _, e := range a.ended {
		k.skip(e.t, e.cause)
		k.stop(e.t, e.cause)
	}
	drop := a.drop
	c.settled = c.settled || a.leaves && c.leaving
	c.tickAt = min(c.tickAt, c.sess.due)
	a.reset()
	if l := c.link; drop != nil && l != nil {
		if k.w.tracing {
			k.w.tracef("%s gives %s up: %v", k.name, l.id, drop)
		}
		k.w.closeLink(l)
		k.lost(l)
	}
	c.tell() // it was changed before the broker could be told
	k.handlers()
}

func (k *simWorker) job(t *task) *simJob {
	for i := range k.jobs {
		if k.jobs[i].t == t {
			return &k.jobs[i]
		}
	}
	return nil
}

// skip ends a request that waits for a place.
func (k *simWorker) skip(t *task, cause error) {
	if k.places.forget(t) || t.gathers {
		t.gathers = false
		k.stop(t, cause)
		k.job(t).next = k.now()
	}
}

// stop ends the context of a handler; most end soon.
func (k *simWorker) stop(t *task, cause error) {
	if j := k.job(t); j != nil && j.cause == nil {
		j.cause = cause
		if j.next != never && j.script&scriptHard == 0 || j.began && j.script&scriptEnd == endNever<<5 {
			j.next = k.now() + k.w.conf.latency
		}
	}
}

func (k *simWorker) due() instant {
	at := never
	for i := range k.all() {
		at = min(at, k.conns[i].redial, k.conns[i].tickAt)
	}
	for i := range k.jobs {
		at = min(at, k.jobs[i].next)
	}
	return k.world(at)
}

func (k *simWorker) turn() {
	k.wakes(k.hb)
	now := k.now()
	for i := range k.all() {
		c := &k.conns[i]
		if c.link == nil && now >= c.redial {
			c.dial()
		}
		if now >= c.tickAt { // between links, too
			c.tickAt = c.sess.tick(now, &c.got)
			if c.got.beat {
				c.sess.appendBeats(&k.out, now)
				c.beats(now)
				k.w.sends(c.link, &k.out)
			}
			c.act()
			if k.down {
				return
			}
		}
		if l := c.link; l != nil && l.connected { // K5: the beats of a worker come every heartbeat
			if gap := now - max(l.book.beatAt, k.graceOf); gap > k.hb+time.Millisecond {
				k.w.fail("K5: %s has not beaten on %s for %v", k.name, l.id, gap)
			}
		}
	}
	k.handlers()
}

// beats: K5: heartbeats go on while handlers run.
func (c *simConn) beats(now instant) {
	k := c.k
	n, want := 0, 0
	for i := range k.out.Len() {
		if parseAtBroker(k.w.book.frames(k.out.Message(i)), &k.m); k.m.token != nil {
			n++
			if t := k.w.book.tokOf(c.b, k.m.token); t != nil && t.final {
				k.w.fail("K5: %s beats for what it has ended", k.name)
			}
		}
	}
	for i := range k.jobs {
		if j := &k.jobs[i]; j.link == c.link && now-j.since >= k.hb/2 {
			want++
		}
	}
	if n != want {
		k.w.fail("K5: %s beats for %d requests, it has %d", k.name, n, want)
	}
	c.link.book.beatAt = now
}

// handlers lets those act whose time has come.
func (k *simWorker) handlers() {
	now := k.now()
	for {
		for _, t := range k.freed {
			if j := k.job(t); j != nil {
				j.next = now
			}
		}
		k.freed = k.freed[:0]
		acted := false
		for i := 0; i < len(k.jobs); i++ {
			if k.jobs[i].next > now {
				continue
			}
			acted = true
			over := k.step(&k.jobs[i])
			if k.down {
				return
			}
			if over {
				k.jobs[i] = k.jobs[len(k.jobs)-1]
				k.jobs = k.jobs[:len(k.jobs)-1]
				i--
			}
		}
		if !acted {
			break
		}
	}
	for i := range k.all() {
		if c := &k.conns[i]; c.link != nil && c.settled && len(c.sess.all) == 0 { // it has left
			l := c.link
			appendWorkerCommand(&k.out, opDisconnect, "", "")
			k.w.sends(l, &k.out)
			k.w.closeLink(l)
			k.lost(l)
		}
	}
}

// step lets a handler act, and reports whether it is over.
func (k *simWorker) step(j *simJob) bool {
	now := k.now()
	if !j.began {
		if j.cause != nil { // over before it began
			return k.final(j, true)
		}
		j.began = true
		k.begins(j)
		if d := k.delay(j.script); d > 0 {
			j.next = now + d
			return false
		}
	}
	end := j.script & scriptEnd >> 5
	if end >= endNever && (j.cause != nil || k.w.healing) {
		end = endError
	}
	switch {
	case j.parts < int(j.script&scriptParts)>>3 && j.cause == nil:
		if k.partial(j) {
			j.next = now + k.delay(j.script)/2
		} else {
			j.next = now + k.w.conf.hb/4 // no credit
		}
	case end == endNever:
		j.next = never
	case end == endCrash:
		k.kill(j.parts, k.w.now+k.w.conf.hb/3)
	default:
		return k.final(j, end == endError)
	}
	return false
}

// begins: a call that is not idempotent runs at most once, and none after its
// client was told that it does not.
func (k *simWorker) begins(j *simJob) {
	if j.call < 0 {
		return
	}
	c := &k.w.book.calls[j.call]
	c.runs++
	if want := simValue(fmt.Sprintf("c%04x", c.n), c.form, j.link.sees())[0]; j.t.req.data.raw == json.Valid(want) && c.form != asJSON || !j.t.req.data.raw && string(j.t.req.data.b) != string(want) {
		k.w.fail("the handler of %s was given %q", c.rid, j.t.req.data.b)
	}
	switch {
	case c.runs > 1 && !c.idem:
		k.w.fail("%s is not idempotent and runs twice", c.rid)
	case c.ended && (c.outcome == NotSent || c.outcome == NotExecuted):
		k.w.fail("C4: %s ended as %v and runs now", c.rid, c.outcome)
	}
	n := 0
	for i := range k.jobs {
		if o := &k.jobs[i]; o.began && o.t.turn == turnTaken {
			n++
		}
	}
	if n > k.conc {
		k.w.fail("%s runs %d handlers, its concurrency is %d", k.name, n, k.conc)
	}
}

func (k *simWorker) body(j *simJob, kind byte) []byte {
	return append(k.w.bodyBuf[:0], '"', 't', hexDigit(j.tok>>12), hexDigit(j.tok>>8), hexDigit(j.tok>>4), hexDigit(j.tok), kind, byte('0'+j.parts), '"')
}

func hexDigit(v int32) byte { return "0123456789abcdef"[v&15] }

// simPartial is what a partial counts for credit: 9 bytes of value.
const simPartial = int64(9+len("200")+jsonOverhead) + partialOverhead

func (k *simWorker) partial(j *simJob) bool {
	if j.t.at < 0 { // its link is gone
		j.parts++
		return true
	}
	if !j.t.res.credit.take(simPartial) {
		if j.t.res.grows && !j.t.res.asked {
			j.t.res.asked = true
			k.out.Pack = j.t.res.packs
			appendWorkerCommand(&k.out, opBlocked, j.t.token(), j.t.rid())
			k.w.sends(j.link, &k.out)
		}
		return false
	}
	k.out.Pack = j.t.res.packs
	appendReplyJSON(&k.out, opPartial, j.t.token(), j.t.rid(), "200", k.body(j, 'p'))
	j.parts++
	if j.tok >= 0 {
		k.w.book.toks[j.tok].said++
	}
	k.w.sends(j.link, &k.out)
	return true
}

// final: K4: exactly one for each handler; K2: on its own link or none.
func (k *simWorker) final(j *simJob, failed bool) bool {
	k.leaves(j.t)
	if next := k.places.leave(j.t); next != nil {
		k.freed = append(k.freed, next)
	}
	if !j.conn.sess.release(j.t) {
		if j.link == j.conn.link {
			k.w.fail("K4: %s may not send the final of what it holds", k.name)
		}
		return true
	}
	if j.link != j.conn.link {
		k.w.fail("K2: %s may send a final of an old link", k.name)
	}
	if j.tok >= 0 {
		t := &k.w.book.toks[j.tok]
		if t.final {
			k.w.fail("K4: a second final under one token")
		}
		t.final = true
	}
	if j.call >= 0 && j.began {
		k.w.book.calls[j.call].ran++
	}
	if !j.began { // the client is told so
		if j.tok >= 0 {
			k.w.book.toks[j.tok].skipped = true
		}
		appendReplyJSON(&k.out, opReply, j.t.token(), j.t.rid(), statusBefore(j.cause), nil)
		k.w.sends(j.link, &k.out)
		return true
	}
	kind := byte('f')
	if failed {
		kind = 'e'
	}
	k.out.Pack = j.t.res.packs
	code := "200"
	if failed {
		code = "500"
	}
	appendReplyJSON(&k.out, opReply, j.t.token(), j.t.rid(), code, k.body(j, kind))
	k.w.sends(j.link, &k.out)
	return true
}

// drain: the worker leaves one broker: it is to be given nothing more, and when
// it holds nothing it goes, and comes again.
func (k *simWorker) drain(b int) {
	c := &k.conns[b%k.w.conf.brokers]
	if c.link == nil || !k.running() || c.leaving || !c.sess.known() {
		return
	}
	c.leaving = true
	appendWorkerCommand(&k.out, opDrain, "", "")
	k.w.sends(c.link, &k.out)
}

// resize: the worker takes more or fewer requests at a time from now on.
func (k *simWorker) resize(n int) {
	if !k.running() {
		return
	}
	if k.w.tracing {
		k.w.tracef("%s takes %d at a time", k.name, n)
	}
	k.conc = n
	k.freed = append(k.freed, k.places.resize(n)...)
	for i := range k.all() {
		c := &k.conns[i]
		c.sess.setConcurrency(n)
		c.tell()
	}
	k.handlers()
}

func (c *simConn) tell() {
	if c.link != nil && c.sess.unsaid() {
		c.sess.say()
		appendHello(&c.k.out, headerWorker, c.k.caps())
		c.k.w.sends(c.link, &c.k.out)
	}
}

func (k *simWorker) caps() *caps {
	c := &caps{V: 1, ID: "life-of-worker--------", HB: k.hb.Milliseconds(), Concurrency: k.conc, Pack: 1, Grow: 1}
	if k.w.conf.frame > 0 {
		c.Body = 1 << 20
	}
	return c
}

// registered tells whether all its brokers have it.
func (k *simWorker) registered() bool {
	for i := range k.all() {
		if l := k.conns[i].link; l == nil || l.book.num == 0 || !l.book.worker {
			return false
		}
	}
	return true
}
