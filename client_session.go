package omdp

import (
	"errors"
	"fmt"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// What the client's session calls: the life of a link, what the broker says on
// it, and the timers. open, tick and lost run on the session's goroutine, up
// and deliver on whichever did the exchange.

var errBrokerLeaving = errors.New("the broker is shutting down")

// open greets the broker on a fresh link.
func (c *Client) open(l link) {
	c.mu.Lock()
	c.link = l
	c.extended, c.packs, c.leaving, c.malformed, c.broker, c.owed = false, false, false, false, "", nil
	c.table.opened()
	c.mu.Unlock()
	c.hello(l.Begin())
	l.Flush()
	l.Wake() // for the first tick
}

func (c *Client) hello(out *batch.Out) {
	appendHello(out, headerClient, &caps{V: 1, ID: c.life, HB: c.settings.heartbeat.Milliseconds(), Credit: int64(c.config.Window), Pack: 1})
}

// up sends what waited for the connection, in order.
func (c *Client) up(l link) {
	c.counts.connections.Add(1)
	c.mu.Lock()
	if c.link != l {
		c.mu.Unlock()
		return
	}
	now := c.session.now()
	c.table.connected(now)
	out := l.Begin()
	for p := range c.table.waiting {
		c.unsent -= len(p.owner.data)
		c.put(out, l, p.owner, now)
	}
	c.mu.Unlock()
	l.Flush()
	l.Wake() // the first beat is due now
}

// put encodes a request on the link, with the time that is left to it. It is
// called with mu held, between Begin and Flush.
func (c *Client) put(out *batch.Out, l link, r *call, now instant) {
	c.table.send(&r.pending, now, l.Seq())
	o := r.options
	switch {
	case r.deadline == never:
		o.timeout = timeoutNone
	case r.deadline-now != defaultTimeout:
		o.timeout = max(r.deadline-now, 1)
	}
	c.scratch, _ = appendOptions(c.scratch[:0], o, r.meta) // a map of strings marshals
	var frame []byte
	if len(c.scratch) > 0 {
		frame = c.scratch
	}
	out.Pack = c.packs
	appendClientRequest(out, r.service, r.rid, r.data, frame)
}

// deliver takes what the broker said.
func (c *Client) deliver(l link, in *batch.In) {
	var m message
	now := c.session.now()
	for f := in.Next(); f != nil; f = in.Next() {
		if !parseAtClient(f, &m) {
			c.onMalformed(f)
			continue
		}
		switch m.op {
		case opReply:
			c.onReply(&m)
		case opPartial:
			c.onPartial(&m, now)
		case opHeartbeat:
			c.onHeartbeat(&m, now)
		case opHello:
			c.onHello(l, &m, now)
		case opDrain:
			c.onDrain()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.table.heard = now
	if !c.leaving {
		c.setState(Ready)
	}
}

func (c *Client) onMalformed(f [][]byte) {
	c.counts.malformed.Add(1)
	c.mu.Lock()
	first := !c.malformed
	c.malformed = true
	c.mu.Unlock()
	if first {
		c.report(fmt.Errorf("omdp: client of %s: a malformed message of %d frames: %w", c.endpoint, len(f), ErrProtocol))
	}
}

// onReply ends a request.
func (c *Client) onReply(m *message) {
	c.mu.Lock()
	p := c.table.find(m.rid)
	if p == nil || p.gen == 0 {
		c.mu.Unlock()
		c.counts.late.Add(1)
		return
	}
	c.remove(p)
	c.mu.Unlock()
	c.finish(p.owner, parseReply(p.owner.service, m.body), false)
}

func (c *Client) onPartial(m *message, now instant) {
	size := len(m.body[len(m.body)-1]) + partialOverhead
	c.mu.Lock()
	p := c.table.find(m.rid)
	if p == nil || p.gen == 0 {
		c.mu.Unlock()
		c.counts.late.Add(1)
		return
	}
	p.heard = now
	r := p.owner
	if r.kind == kindCall { // nobody wants it; the worker may go on
		n := r.consume(size)
		c.grant(r, n)
		c.counts.partials.Add(1)
		return
	}
	c.mu.Unlock()
	c.counts.partials.Add(1)
	part := parseReply(r.service, m.body)
	if part.err != nil {
		if said, ok := part.err.(*Error); ok { // a partial is not how a handler ends: nobody can tell whether it has
			part = protocolError(r.service, "a partial that is an error: "+said.Error())
		}
		c.abort(r, part.err, false)
		return
	}
	if r.push(event{reply: part, size: size}, c.bound(r, size), false) {
		c.abort(r, &callError{err: ErrSlowConsumer, service: r.service, outcome: MayHaveExecuted}, false)
	}
}

// bound is how much a call may have that nobody has read, when a partial of
// size bytes comes. A worker with credit is ahead by the window at the most, or
// by less than a share of it and one large message.
func (c *Client) bound(r *call, size int) int {
	if c.config.BufferLimit < 0 {
		return 0
	}
	limit := max(c.config.BufferLimit, r.window)
	if share := r.window / creditShare; size > r.window-share {
		limit = max(limit, share+size)
	}
	return limit
}

// onHeartbeat: "Broker MAY notify Client on Request dispatch to Worker", and
// "Worker MAY send heartbeat for active request. Broker forwards heartbeat to
// Client" look the same.
func (c *Client) onHeartbeat(m *message, now instant) {
	if m.rid == nil {
		return
	}
	c.mu.Lock()
	p := c.table.find(m.rid)
	if p == nil || p.gen == 0 {
		c.mu.Unlock()
		return
	}
	p.heard = now
	p.confirmed = true
	c.mu.Unlock()
}

// grant tells the worker that n bytes more may be on the way. It is called
// with mu held and unlocks it.
func (c *Client) grant(r *call, n int) {
	l := c.link
	if n <= 0 || l == nil || !c.extended || r.phase != phaseLive || r.gen != c.table.gen {
		c.mu.Unlock()
		return
	}
	out := l.Begin()
	appendClientCredit(out, r.rid, int64(n))
	c.mu.Unlock()
	l.Flush()
}

// onHello: the broker understands the extensions. Another life of it on the
// same connection (a proxy, a failover) knows nothing of what is in progress.
func (c *Client) onHello(l link, m *message, now instant) {
	caps, ok := parseCaps(m.caps)
	if !ok {
		c.onMalformed([][]byte{m.caps})
		return
	}
	c.mu.Lock()
	if c.broker != "" && c.broker != caps.ID {
		c.mu.Unlock()
		c.session.drop(l, errBrokerChanged)
		return
	}
	first := !c.extended
	c.broker, c.extended, c.packs = caps.ID, true, caps.Pack > 0
	c.table.answered(now, caps.interval())
	if !first {
		c.mu.Unlock()
		return
	}
	l.Wake() // liveness counts from now on
	out := l.Begin()
	for _, rid := range c.owed {
		appendClientCommand(out, opCancel, rid)
	}
	c.owed = nil
	c.mu.Unlock()
	l.Flush()
}

// onDrain: the broker is leaving. What it has goes on, new requests wait for
// the next connection, which is made when the last one here has ended.
func (c *Client) onDrain() {
	c.mu.Lock()
	c.leaving = true
	c.setState(Draining)
	c.mu.Unlock()
	c.session.wake()
}

// maxJam is how many bytes may wait in front of a broker that takes nothing
// before heartbeats are not added to them any more.
const maxJam = 1 << 20

// tick does what the timers ask for.
func (c *Client) tick(now instant) instant {
	c.mu.Lock()
	w := &c.turn
	c.table.turn(now, w)
	l, flush := c.link, false
	if l != nil && (w.hello || len(w.expired) > 0) {
		jammed := l.Queued() > maxJam
		out := l.Begin()
		if w.hello && !jammed {
			c.hello(out)
			for _, p := range w.beats {
				appendClientCommand(out, opHeartbeat, p.rid)
			}
		}
		for _, p := range w.expired {
			c.cancelOn(out, p)
		}
		flush = true
	}
	for _, p := range w.expired {
		c.removed(p)
	}
	for _, p := range w.silent {
		c.removed(p)
	}
	leave := c.leaving && c.table.onLink == 0
	alarm := c.table.alarm
	c.mu.Unlock()
	if flush {
		l.Flush()
	}
	for _, p := range w.expired {
		c.finish(p.owner, reply{err: &callError{err: ErrTimeout, service: p.owner.service, outcome: p.outcome()}}, false)
	}
	for _, p := range w.silent {
		c.finish(p.owner, reply{err: &callError{err: ErrWorkerLost, service: p.owner.service, outcome: MayHaveExecuted, detail: "silent"}}, false)
	}
	switch {
	case w.lost:
		c.session.drop(l, errBrokerSilent)
	case leave && l != nil:
		c.session.drop(l, errBrokerLeaving)
	}
	return alarm
}

// lost ends what was on the link that is gone.
func (c *Client) lost(l link, reason error) {
	c.mu.Lock()
	if c.state == Ready {
		c.session.backoff.reset()
	}
	c.link, c.extended, c.owed = nil, false, nil
	ended := c.table.lost(l.SentSeq())
	for p := range c.table.waiting {
		if p.seq != 0 {
			p.seq = 0
			c.unsent += len(p.owner.data)
		}
	}
	for _, p := range ended {
		c.removed(p)
	}
	c.setState(Lost)
	c.mu.Unlock()
	for _, p := range ended {
		c.finish(p.owner, reply{err: &callError{err: ErrBrokerLost, service: p.owner.service, outcome: MayHaveExecuted, detail: reason.Error()}}, false)
	}
}

// failed reports a connection that was lost or could not be tried.
func (c *Client) failed(err error, wait instant) {
	c.report(fmt.Errorf("omdp: client of %s: %w", c.endpoint, &linkError{err}), "wait", wait)
}

// linkError is why a connection ended; it is an ErrBrokerLost.
type linkError struct{ err error }

func (e *linkError) Error() string        { return "connection lost: " + e.err.Error() }
func (e *linkError) Unwrap() error        { return e.err }
func (e *linkError) Is(target error) bool { return target == ErrBrokerLost }
