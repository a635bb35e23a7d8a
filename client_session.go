package omdp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// clientConn is a client's connection to one of its brokers: what its session
// calls. open, tick and lost run on the session's goroutine, up and deliver on
// whichever did the exchange.
type clientConn struct {
	*Client
	endpoint string
	session  session
	known    *tableLink // what the table knows of it; guarded by Client.mu, as is what follows

	m message // of deliver, in other dialects than OMDP: never used by two at a time

	link      link // open, not yet necessarily connected; nil between links
	malformed bool // logged on this link
	wasLost   bool
	turn      clientTurn // of tick
}

var errBrokerLeaving = errors.New("the broker is shutting down")

// open greets the broker on a fresh link.
func (c *clientConn) open(l link) {
	c.mu.Lock()
	c.link, c.malformed = l, false
	c.table.opened(c.known)
	c.table.greet(c.known, l.Begin())
	c.mu.Unlock()
	l.Flush()
	l.Wake() // for the first tick
}

// up sends what waited for a connection, in order.
func (c *clientConn) up(l link) {
	c.counts.connections.Add(1)
	c.mu.Lock()
	if c.link != l {
		c.mu.Unlock()
		return
	}
	now := c.now()
	c.table.connected(c.known, now)
	flush := c.sendWaiting(now)
	c.mu.Unlock()
	c.sent(flush)
	l.Wake() // the first beat is due now
}

// sendWaiting puts what waits on the connection for new requests, and returns
// its link, if there was something, for the caller to flush without mu. mu is held.
func (c *Client) sendWaiting(now instant) link {
	best := c.table.best
	if c.table.onLinks == c.table.len() {
		return nil
	}
	if best == nil {
		c.grow()
		return nil
	}
	if !c.wire.numbered && !c.table.waits() { // those that wait do so for their time
		return nil
	}
	l := c.conns[best.index].link
	out := l.Begin()
	for p := range c.table.waiting {
		switch err := c.table.fit(p, best); err {
		case nil:
			c.table.put(p, best, now, l.Seq(), out)
			if c.table.best != best { // it takes one at a time: sent sees to the others
				return l
			}
		case errNotYet:
		default:
			c.table.remove(p)
			c.removed(p)
			c.refused = append(c.refused, refusal{p, err})
		}
	}
	return l
}

// refusal is a request that no broker could be asked.
type refusal struct {
	p   *pending
	err error
}

// endRefused ends the requests that sendWaiting could not send. It is called without mu.
func (c *Client) endRefused() {
	c.mu.Lock()
	over := c.refused
	c.refused = nil
	c.mu.Unlock()
	for _, f := range over {
		c.finish(f.p.owner, f.p.conclude(reply{err: &callError{err: f.err, service: f.p.service, outcome: f.p.outcome()}}), false)
	}
}

// sent flushes what sendWaiting put on a link, and ends what it could not.
func (c *Client) sent(l link) {
	for l != nil {
		l.Flush()
		c.endRefused()
		if c.wire.numbered {
			return
		}
		c.mu.Lock() // one link at a time: flushing it may bring what needs another
		l = c.sendWaiting(c.now())
		c.mu.Unlock()
	}
}

// grow opens a connection for each request that waits for one, as far as there
// may be more. mu is held.
func (c *Client) grow() {
	if c.closed {
		return
	}
	for l := c.table.wants(); l != nil; l = c.table.wants() {
		c.serve(c.conns[l.index])
	}
}

// deliver takes what the broker said.
func (c *clientConn) deliver(l link, in *batch.In) {
	now := c.now()
	if c.wire.extends {
		var m message
		for f := in.Next(); f != nil; f = in.Next() {
			if parseAtClient(f, &m) {
				c.receive(l, &m, now)
			} else {
				c.onMalformed(f)
			}
		}
	} else if !c.deliverForeign(l, in, now) {
		return
	}
	c.mu.Lock()
	before := c.table.best
	foreign := c.table.hears(c.known, now)
	c.updateState()
	var flush link
	if c.table.best != before || foreign {
		flush = c.sendWaiting(now)
	}
	c.mu.Unlock()
	c.sent(flush)
}

// deliverForeign is deliver in other dialects than OMDP. It reports whether
// anything came that the dialect has.
func (c *clientConn) deliverForeign(l link, in *batch.In, now instant) (heard bool) {
	for f := in.Next(); f != nil; f = in.Next() {
		if c.wire.parseAtClient(f, &c.m) {
			heard = true
			c.receive(l, &c.m, now)
		} else {
			c.onMalformed(f)
		}
	}
	return heard
}

func (c *clientConn) receive(l link, m *message, now instant) {
	if !c.wire.numbered && c.stray(l) {
		c.counts.late.Add(1)
		return
	}
	switch m.op {
	case opReply:
		c.onReply(m, now)
	case opPartial:
		c.onPartial(m, now)
	case opHeartbeat:
		c.mu.Lock()
		c.table.onHeartbeat(now, c.known, m)
		c.mu.Unlock()
	case opHello:
		c.onHello(l, m, now)
	case opBlocked:
		c.onBlocked(m)
	case opCredit:
		c.onCredit(l, m, now)
	case opPiece:
		c.onPiece(m, now)
	case opDrain:
		c.onDrain(now)
	}
}

// stray tells whether something came on a connection where nothing was asked: a
// second answer, or a partial after it. More of the kind would be taken for the
// next request's, so the connection is replaced.
func (c *clientConn) stray(l link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.known
	if p := k.sole; p != nil && p.seq < l.SentSeq() {
		return false
	}
	if c.link == l && !c.closed && !k.spoiled {
		k.spoiled = true
		c.table.choose()
		c.session.drop(l, errAbandoned)
	}
	return true
}

func (c *clientConn) onMalformed(f [][]byte) {
	c.counts.malformed.Add(1)
	c.mu.Lock()
	first := !c.malformed
	c.malformed = true
	c.mu.Unlock()
	if first {
		c.report(fmt.Errorf("omdp: client of %s: a malformed message of %d frames: %w", c.endpoint, len(f), ErrProtocol))
	}
}

// onReply ends a request, or lets it be sent again.
func (c *clientConn) onReply(m *message, now instant) {
	c.mu.Lock()
	p, end, parsed, late := c.table.onReply(now, c.known, m)
	switch {
	case late:
		c.mu.Unlock()
		c.counts.late.Add(1)
		return
	case p == nil:
		c.resume(now)
		return
	}
	c.removed(p)
	var flush link
	if !c.wire.numbered { // the connection is free for another
		flush = c.sendWaiting(now)
	}
	c.mu.Unlock()
	switch {
	case parsed:
	case m.said == saidNative:
		end = parseJoined(p.service, p.join, m.body)
	default:
		end = replyOf(p.service, m)
	}
	if flush != nil {
		c.sent(flush)
	}
	c.finish(p.owner, p.conclude(end), false)
}

// resume sees to requests that are to be sent again: at once, or when their
// timers fire. It is called with mu held and unlocks it.
func (c *Client) resume(now instant) {
	flush, sooner := c.sendWaiting(now), c.rearm()
	c.updateState()
	c.mu.Unlock()
	c.sent(flush)
	if sooner {
		c.hurry()
	}
}

func (c *clientConn) onPartial(m *message, now instant) {
	size := m.counted() + partialOverhead
	c.mu.Lock()
	p := c.table.onPartial(now, c.known, m)
	if p == nil {
		c.mu.Unlock()
		c.counts.late.Add(1)
		return
	}
	r, join := p.owner, p.takeJoin()
	if r.blocked.Load() {
		r.blocked.Store(false)
	}
	if r.kind == kindCall { // nobody wants it; the worker may go on
		n := r.consume(size)
		c.grant(r, n, 0)
		c.counts.partials.Add(1)
		return
	}
	r.unread.Add(1)
	bound := c.bound(r, size)
	c.mu.Unlock()
	c.counts.partials.Add(1)
	var part reply
	if m.said == saidNative {
		part = parseJoined(r.service, join, m.body)
	} else {
		part = replyOf(r.service, m)
	}
	if part.err != nil {
		if said, ok := part.err.(*Error); ok { // a partial is not how a handler ends: nobody can tell whether it has
			part = protocolError(r.service, "a partial that is an error: "+said.Error())
		}
		c.abort(r, part.err, false)
		return
	}
	if r.push(event{reply: part, size: size}, bound, false) {
		c.abort(r, &callError{err: ErrSlowConsumer, service: r.service, outcome: MayHaveExecuted}, false)
	}
}

// onPiece keeps a piece of a payload. Its worker may go on with the next one if
// nothing before it waits for the reader: so there is one such payload at most
// besides what the window allows.
func (c *clientConn) onPiece(m *message, now instant) {
	c.mu.Lock()
	p, ok := c.table.onPiece(now, c.known, m)
	if p == nil {
		c.mu.Unlock()
		c.counts.late.Add(1)
		return
	}
	r := p.owner
	if !ok {
		c.mu.Unlock()
		c.abort(r, protocolError(r.service, "a reply in pieces over MaxBody").err, false)
		return
	}
	if r.blocked.Load() {
		r.blocked.Store(false)
	}
	r.withheld.Add(int64(len(m.data)) + partialOverhead)
	n := 0
	if r.unread.Load() == 0 {
		n = r.consume(int(r.withheld.Swap(0)))
	}
	c.grant(r, n, 0)
}

// onCredit: a worker takes more of the data of a request.
func (c *clientConn) onCredit(l link, m *message, now instant) {
	c.mu.Lock()
	p := c.table.onCredit(now, c.known, m)
	if p == nil {
		c.mu.Unlock()
		return
	}
	out := l.Begin()
	c.table.feed(p, out)
	up := p.owner.up
	c.mu.Unlock()
	l.Flush()
	if up != nil {
		up.signal()
	}
}

// bound is how much a call may have that nobody has read, when a partial of
// size bytes comes. A worker with credit is ahead by the window at the most, or
// by less than a share of it and one large message. mu is held.
func (c *Client) bound(r *call, size int) int {
	if c.config.BufferLimit < 0 {
		return 0
	}
	window := int(r.window)
	limit := max(c.config.BufferLimit, window)
	if share := window / creditShare; size > window-share {
		limit = max(limit, share+size)
	}
	return limit
}

// grant tells the worker that n bytes more may be on the way. It is called
// with mu held and unlocks it.
func (c *Client) grant(r *call, n int, window int64) {
	l := c.linkOf(&r.pending)
	if n <= 0 && window == 0 || l == nil || !r.link.extended || r.phase != phaseLive {
		c.mu.Unlock()
		return
	}
	out := l.Begin()
	appendClientCredit(out, r.rid, int64(n), window)
	c.mu.Unlock()
	l.Flush()
}

// onBlocked: the worker of a request waits for credit.
func (c *clientConn) onBlocked(m *message) {
	c.mu.Lock()
	p := c.table.find(m.rid)
	if p == nil || p.link != c.known {
		c.mu.Unlock()
		return
	}
	r := p.owner
	r.blocked.Store(true)
	if r.unread.Load() > 0 { // its reader is what it waits for, until that has caught up
		c.mu.Unlock()
		return
	}
	c.widen(r, 0)
}

// widen gives a worker that waits while its reader has nothing to read a larger
// window, and whatever credit is left to give. mu is held; it is released.
func (c *Client) widen(r *call, n int) {
	var window int64
	if r.blocked.Swap(false) && r.phase == phaseLive {
		if window = c.table.widen(&r.pending); window > 0 {
			r.share.Store(window / creditShare)
		}
		n += int(r.consumed.Swap(0))
	}
	c.grant(r, n, window)
}

func (c *clientConn) onHello(l link, m *message, now instant) {
	caps, ok := parseCaps(m.caps)
	if !ok {
		c.onMalformed([][]byte{m.caps})
		return
	}
	c.mu.Lock()
	first, ok := c.table.onHello(now, c.known, &caps, l.Begin())
	c.mu.Unlock()
	l.Flush()
	if !ok {
		c.session.drop(l, errBrokerChanged)
	}
	if first {
		c.mu.Lock()
		c.resume(now) // what had to wait for this
		l.Wake()      // liveness counts from now on
	}
}

// onDrain: the broker is leaving. What it has goes on, new requests go
// elsewhere or wait for the next connection, which is made when the last one
// here has ended.
func (c *clientConn) onDrain(now instant) {
	c.mu.Lock()
	c.table.onDrain(c.known)
	c.resume(now)
	c.session.wake() // it may have nothing of ours
}

// maxJam is how many bytes may wait in front of a broker that takes nothing
// before heartbeats are not added to them any more.
const maxJam = 1 << 20

// mind runs the timers of requests, on a goroutine of its own: sessions may be
// held up by a connection that they close or open.
func (c *Client) mind(ctx context.Context) {
	var w clientTurn
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-c.sooner:
		case <-ctx.Done():
			return
		}
		if at := c.expire(&w); at != never {
			timer.Reset(max(at-c.now(), 0))
		}
	}
}

// expire ends the requests whose time is over, sends those again that waited
// for it, and returns when to look next.
func (c *Client) expire(w *clientTurn) instant {
	now := c.now()
	w.reset()
	c.mu.Lock()
	c.table.expire(now, w)
	alarm := c.table.timing.alarm
	for _, p := range w.expired {
		c.removed(p)
	}
	if w.again {
		c.resume(now)
	} else {
		c.mu.Unlock()
	}
	c.sayCancel(w.expired)
	for _, p := range w.expired {
		err := &callError{err: ErrTimeout, service: p.service, outcome: p.outcome()}
		if p.idled(now) {
			err.detail = fmt.Sprint("nothing came for ", p.idle)
		}
		c.finish(p.owner, p.conclude(reply{err: err}), false)
	}
	return alarm
}

// hurry has mind look at the timers again. Safe from any goroutine.
func (c *Client) hurry() {
	select {
	case c.sooner <- struct{}{}:
	default:
	}
}

// tick does what the timers of the connection ask for.
func (c *clientConn) tick(now instant) instant {
	c.mu.Lock()
	w := &c.turn
	w.reset()
	c.table.turn(now, c.known, w)
	alarm, sooner := c.known.alarm, c.rearm()
	l, flush := c.link, false
	if w.doubts {
		c.updateState()
	}
	if l != nil && w.hello && l.Queued() <= maxJam {
		out := l.Begin()
		c.table.greet(c.known, out)
		for _, p := range w.beats {
			appendClientCommand(out, opHeartbeat, p.rid)
		}
		flush = true
	}
	for _, p := range w.silent {
		c.removed(p)
	}
	leave := c.known.gone()
	c.mu.Unlock()
	if flush {
		l.Flush()
	}
	if w.again { // it is known now that the broker is a foreign one
		c.mu.Lock()
		c.resume(now)
	}
	if sooner {
		c.hurry()
	}
	for _, p := range w.silent {
		c.finish(p.owner, p.conclude(reply{err: &callError{err: ErrWorkerLost, service: p.service, outcome: MayHaveExecuted, detail: "silent"}}), false)
	}
	switch {
	case w.lost:
		c.session.drop(l, errBrokerSilent)
	case leave && l != nil:
		c.session.drop(l, errBrokerLeaving)
	}
	return alarm
}

// lost ends what was on the link that is gone, or lets it be sent again.
func (c *clientConn) lost(l link, reason error) {
	c.mu.Lock()
	if c.known.heardOf && !c.known.leaving { // one that leaves would be asked again and again
		c.session.backoff.reset()
	}
	now := c.now()
	c.link, c.wasLost = nil, c.wasLost || reason != errAbandoned
	over := c.table.lost(now, c.known, l.SentSeq())
	for _, p := range over {
		c.removed(p)
	}
	c.resume(now)
	for _, p := range over {
		c.finish(p.owner, p.conclude(reply{err: &callError{err: ErrBrokerLost, service: p.service, outcome: MayHaveExecuted, detail: reason.Error()}}), false)
	}
}

// failed reports a connection that was lost or could not be tried.
func (c *clientConn) failed(err error, wait instant) {
	c.report(fmt.Errorf("omdp: client of %s: %w", c.endpoint, &linkError{err}), "wait", wait)
}

// linkError is why a connection ended; it is an ErrBrokerLost.
type linkError struct{ err error }

func (e *linkError) Error() string        { return "connection lost: " + e.err.Error() }
func (e *linkError) Unwrap() error        { return e.err }
func (e *linkError) Is(target error) bool { return target == ErrBrokerLost }
