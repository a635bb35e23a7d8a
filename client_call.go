package omdp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

type callKind uint8

const (
	kindCall    callKind = iota // waits on done
	kindRequest                 // has callbacks
	kindStream                  // is read
)

// call is one request, from its making to its end.
type call struct {
	pending // the table's; guarded by Client.mu

	client *Client
	kind   callKind
	small  [64]byte    // where data begins
	detach func() bool // stops watching the context; nil if it never ends
	phase  phase       // guarded by Client.mu

	// bytes that were consumed and not granted anew yet
	consumed atomic.Int64
	unread   atomic.Int32 // partials that wait for the user
	share    atomic.Int64 // what may be consumed without a word to the worker
	blocked  atomic.Bool  // the worker waits for credit, and nothing came since it said so
	withheld atomic.Int64 // bytes of pieces that came while something before them was unread

	// kindCall
	result reply
	done   chan struct{} // capacity 1; whoever removed the call from the table sends once

	// kindRequest; guarded by callbacks.mu
	onPartial func(Message)
	onFinal   func(Message, error)
	events    []event
	buffered  int // bytes of events not yet consumed
	queued    bool
	over      bool  // the final event was pushed
	behind    *call // in the list of callbacks

	stream *Stream // kindStream
	up     *Duplex // … if it is an upload
}

type phase uint8

const (
	phaseNew   phase = iota // not in the table yet
	phaseLive               // in the table
	phaseEnded              // whoever set this gives it its one end
)

// Call sends data to a worker of the service and returns its final value;
// partials are dropped. The error is an *[Error] if the handler said so, else
// it wraps one of this package's errors or the cause of ctx's end; in each case
// [OutcomeOf] tells whether the work was done. data is encoded before Call
// waits and is not kept.
func (c *Client) Call(ctx context.Context, service string, data any, opts ...CallOption) (Message, error) {
	r, ok := c.calls.Get().(*call)
	if !ok {
		r = &call{client: c, kind: kindCall, done: make(chan struct{}, 1)}
		r.data = r.small[:0]
	}
	r.service = service
	if err := c.begin(ctx, r, data, opts); err != nil {
		r.recycle()
		return Message{}, err
	}
	if ended := ctx.Done(); ended == nil {
		<-r.done
	} else {
		select {
		case <-r.done:
		case <-ended:
			c.abort(r, canceled(ctx, r), true)
			<-r.done // what ended it: this, or an answer that was just ahead
		}
	}
	m, err := r.result.msg, r.result.err
	r.recycle()
	return m, err
}

// recycle gives a Call's entry back. It was removed from the table and done
// was received from, so nobody else knows it.
func (r *call) recycle() {
	if cap(r.data) > 128<<10 {
		r.data = r.small[:0]
	}
	r.pending = pending{data: r.data[:0]}
	r.result, r.phase = reply{}, phaseNew
	r.client.calls.Put(r)
}

// CallJSON is Call with a reply that is decoded into an Out.
func CallJSON[Out any](ctx context.Context, c *Client, service string, in any, opts ...CallOption) (Out, error) {
	var out Out
	m, err := c.Call(ctx, service, in, opts...)
	if err != nil {
		return out, err
	}
	if err := m.Decode(&out); err != nil {
		return out, &callError{err: errors.Unwrap(err), service: service, outcome: Executed, detail: "decode reply"}
	}
	return out, nil
}

// Request sends data to a worker of the service and returns at once. partial is
// called with each partial and final once with the end: the final value, or an
// error as Call returns it. Both may be nil. They run in order, one at a time,
// and may block: that holds up no other request, but its worker, once the
// window is full. If ctx ends, the request is cancelled.
//
// The error is not nil only if nothing was sent; no callback runs then.
func (c *Client) Request(ctx context.Context, service string, data any, partial func(Message), final func(Message, error), opts ...CallOption) error {
	r := &call{client: c, kind: kindRequest, onPartial: partial, onFinal: final}
	r.service, r.data = service, r.small[:0]
	return c.begin(ctx, r, data, opts)
}

// begin encodes a request and makes it live: it is on the link, or waits for one.
func (c *Client) begin(ctx context.Context, r *call, data any, opts []CallOption) error {
	if n := len(r.service); n == 0 || n > maxService {
		return &callError{err: fmt.Errorf("a service name of %d bytes is not of 1 to %d", n, maxService), service: strconv.Quote(r.service[:min(n, 32)]), outcome: NotSent}
	}
	if ctx.Err() != nil {
		return canceled(ctx, r)
	}
	timeout, err := r.apply(opts)
	if err != nil {
		return err
	}
	if what := r.unsupported(); what != "" {
		return &callError{err: ErrUnsupported, service: r.service, outcome: NotSent, detail: what + " in the dialect " + c.config.Dialect.String()}
	}
	if r.data, r.raw, err = appendData(r.data[:0], data); err != nil {
		return &callError{err: err, service: r.service, outcome: NotSent, detail: "encode data"}
	}
	if n := len(r.data); n > c.settings.maxBody {
		return &callError{err: ErrTooLarge, service: r.service, outcome: NotSent, detail: fmt.Sprintf("%d bytes, MaxBody is %d", n, c.settings.maxBody)}
	}
	if timeout == 0 {
		timeout = c.config.Timeout
	}
	if end, ok := ctx.Deadline(); ok {
		if left := time.Until(end); timeout < 0 || left < timeout {
			timeout = max(left, 1)
		}
	}
	r.n = c.counter.Add(1)
	var rid [maxRID]byte
	r.rid = string(c.table.appendRID(rid[:0], r.n))
	r.owner = r
	if r.kind != kindCall && ctx.Done() != nil {
		r.detach = context.AfterFunc(ctx, func() { c.abort(r, canceled(ctx, r), true) })
	}
	if err := c.enter(r, timeout); err != nil {
		if r.detach != nil {
			r.detach()
		}
		if errors.Is(err, ErrCanceled) {
			return canceled(ctx, r)
		}
		return err
	}
	return nil
}

// enter puts the request into the table and, if there is one, on a connection.
func (c *Client) enter(r *call, timeout time.Duration) error {
	now := c.now()
	r.deadline, r.slack = never, 0
	if timeout > 0 && now < never-timeout-maxSlack {
		r.deadline = now + timeout
		if c.wire.numbered { // else the broker does not know it
			r.slack = min(timeout/10, maxSlack)
		}
	}
	c.mu.Lock()
	err := c.admit(r)
	if err != nil {
		c.mu.Unlock()
		return &callError{err: err, service: r.service, outcome: NotSent}
	}
	r.phase = phaseLive
	c.counts.requests.Add(1)
	c.table.add(&r.pending)
	var l link
	if best := c.table.best; best != nil {
		switch err := c.table.fit(&r.pending, best); err {
		case nil:
			l = c.conns[best.index].link
			out := l.Begin() // Seq is asked within
			c.table.put(&r.pending, best, now, l.Seq(), out)
		case errNotYet:
			c.table.hold(&r.pending)
		default:
			c.table.remove(&r.pending)
			c.removed(&r.pending)
			c.counts.failed.Add(1)
			c.mu.Unlock()
			return &callError{err: err, service: r.service, outcome: NotSent}
		}
	} else {
		c.grow()
	}
	sooner := c.rearm()
	c.mu.Unlock()
	if l != nil {
		l.Flush()
	}
	if sooner {
		c.hurry()
	}
	return nil
}

// rearm reports whether hurry is to be called. mu is held.
func (c *Client) rearm() bool {
	sooner := c.table.timing.sooner
	c.table.timing.sooner = false
	return sooner
}

// admit is called with mu held.
func (c *Client) admit(r *call) error {
	switch limit := c.config.MaxOutstanding; {
	case c.closed || c.drained != nil:
		return ErrClosed
	case !c.started:
		return ErrNotStarted
	case r.phase != phaseNew: // its context ended while it was being made
		return ErrCanceled
	case limit > 0 && c.table.len() >= limit:
		return ErrOverloaded
	}
	if limit := c.config.SendQueue; limit > 0 {
		queued := c.table.unsent
		if best := c.table.best; best != nil {
			queued += c.conns[best.index].link.Queued()
		}
		if queued > 0 && queued+len(r.data) > limit {
			return ErrOverloaded
		}
	}
	return nil
}

// removed does what follows when a request has left the table, with mu held.
// The caller then gives it its end with finish, without mu.
func (c *Client) removed(p *pending) {
	p.owner.phase = phaseEnded
	c.checkDrained()
	l := p.link
	if l == nil {
		return
	}
	switch cn := c.conns[l.index]; {
	case cn.link == nil || c.closed:
	case l.spoiled:
		cn.session.drop(cn.link, errAbandoned)
	case l.gone():
		cn.link.Wake() // tick gives the connection up
	}
}

// checkDrained is called with mu held.
func (c *Client) checkDrained() {
	if c.drained != nil && c.table.len() == 0 {
		select {
		case <-c.drained:
		default:
			close(c.drained)
		}
	}
}

// endAll empties the table for Close, with mu held.
func (c *Client) endAll() (over []*pending) {
	for p := c.table.first; p != nil; p = c.table.first {
		c.table.remove(p)
		c.removed(p)
		over = append(over, p)
	}
	return over
}

// sayCancel tells brokers of requests that were removed. It is called without mu.
func (c *Client) sayCancel(ps []*pending) {
	if len(ps) == 0 {
		return
	}
	for _, cn := range c.conns {
		c.mu.Lock()
		l := cn.link
		if l == nil || !slices.ContainsFunc(ps, func(p *pending) bool { return p.link == cn.known }) {
			c.mu.Unlock()
			continue
		}
		out := l.Begin()
		for _, p := range ps {
			if p.link == cn.known {
				c.table.cancel(p, out)
			}
		}
		c.mu.Unlock()
		l.Flush()
	}
}

// abort ends a request from this side, if nothing else has, and tells the
// worker. With drop, what the user has not seen yet is dropped.
func (c *Client) abort(r *call, err error, drop bool) {
	c.mu.Lock()
	switch r.phase {
	case phaseNew:
		r.phase = phaseEnded // enter finds it
		c.mu.Unlock()
		return
	case phaseEnded:
		c.mu.Unlock()
		return
	}
	c.table.remove(&r.pending)
	c.removed(&r.pending)
	c.ending.Add(1)
	defer c.ending.Done()
	if e, ok := err.(*callError); ok {
		e.outcome = r.outcome()
	}
	l := c.linkOf(&r.pending)
	if l == nil {
		c.mu.Unlock()
	} else {
		c.table.cancel(&r.pending, l.Begin())
		c.mu.Unlock()
		l.Flush()
	}
	c.finish(r, reply{err: err}, drop)
}

// linkOf is the open connection that a request is on, nil if it is on none. mu is held.
func (c *Client) linkOf(p *pending) link {
	if p.link == nil {
		return nil
	}
	return c.conns[p.link.index].link
}

// finish gives a request its end. Only who removed it from the table calls it, once.
func (c *Client) finish(r *call, end reply, drop bool) {
	if end.err == nil {
		c.counts.succeeded.Add(1)
	} else {
		c.counts.failed.Add(1)
	}
	if r.detach != nil {
		r.detach()
	}
	if r.kind == kindCall {
		r.result = end
		r.done <- struct{}{} // from here on r is another's
		return
	}
	r.push(event{reply: end, final: true}, 0, drop)
	if r.up != nil {
		r.up.end()
	}
}

func (r *call) push(e event, bound int, drop bool) (over bool) {
	if r.kind == kindStream {
		return r.stream.push(e, bound, drop)
	}
	return r.client.runners.push(r, e, bound, drop)
}

// read notes that the user took a partial of size bytes.
func (r *call) read(size int) {
	left := r.unread.Add(-1)
	if left == 0 {
		size += int(r.withheld.Swap(0))
	}
	n := r.consume(size)
	starved := left == 0 && r.blocked.Load()
	if n == 0 && r.idle <= 0 && !starved {
		return
	}
	c := r.client
	c.mu.Lock()
	if r.idle > 0 {
		r.stirred = c.now()
	}
	if starved {
		c.widen(r, n)
	} else {
		c.grant(r, n, 0)
	}
}

// consume counts bytes that were read or dropped, and returns how many the
// worker is to be told of now: a share of the window at a time.
func (r *call) consume(size int) int {
	n := r.consumed.Add(int64(size))
	if n < r.share.Load() || !r.consumed.CompareAndSwap(n, 0) {
		return 0
	}
	return int(n)
}

// canceled is the error of a request whose context ended.
func canceled(ctx context.Context, r *call) error {
	e := &callError{err: ErrCanceled, service: r.service, outcome: NotSent}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		e.err = ErrTimeout
	}
	if cause := context.Cause(ctx); cause != ctx.Err() {
		e.err = &causeError{e.err, cause}
	}
	return e
}

// causeError is a sentinel with the cause that a context was given.
type causeError struct{ sentinel, cause error }

func (e *causeError) Error() string {
	text := e.sentinel.Error()
	if s, ok := e.sentinel.(*sentinel); ok {
		text = s.text
	}
	return text + ": " + e.cause.Error()
}

func (e *causeError) Unwrap() []error { return []error{e.sentinel, e.cause} }
