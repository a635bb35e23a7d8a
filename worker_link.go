package omdp

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"github.com/zmq-omdp/omdp/internal/batch"
	"github.com/zmq-omdp/omdp/internal/zsock"
)

// workerConn is a worker's side of one of its brokers: the connections to it,
// one after another, and what is held on the present one. A request is
// answered on the link on which it came, and nowhere else.
type workerConn struct {
	worker   *Worker
	endpoint string
	session  session

	got arrivals // of deliver, which never runs twice at a time
	m   message  // … of other dialects

	said atomic.Bool // something besides beats since the last beat; of other dialects
	due  arrivals    // of tick

	// By Worker.mu.
	state   State // Connecting, Ready, Draining or Lost: of this connection alone
	sess    workerSession
	link    link
	leaving leaving
	settled chan struct{} // closed when the broker sends no more requests, or none will come
	noted   bool          // a malformed message was logged on this link
}

func newWorkerConn(w *Worker, endpoint string) *workerConn {
	s := &w.settings
	c := &workerConn{worker: w, endpoint: endpoint, settled: make(chan struct{})}
	c.sess = newWorkerSession(s.heartbeat, s.liveness, w.config.Concurrency)
	c.sess.wire = w.wire
	c.sess.maxBody, c.sess.quiet, c.sess.room = int64(s.maxBody), w.config.UploadTimeout, &w.room
	c.session = session{
		endpoint: endpoint,
		options:  zsock.Options{MaxMsgSize: int64(max(s.maxBody, maxMetadata, maxPiece)) + frameOverhead, MaxFrames: maxWorkFrames + 1},
		dial:     dialZsock,
		backoff:  backoff{min: s.reconnectMin, max: s.reconnectMax},
		random:   rand.Uint64,
		open:     c.open,
		up:       c.up,
		deliver:  c.deliver,
		tick:     c.tick,
		leave:    c.leave,
		lost:     c.lost,
		failed:   c.failed,
		nudge:    make(chan struct{}, 1),
	}
	return c
}

// The hooks of the session: what a worker does on its link. deliver and up run
// on whichever goroutine did the exchange, the others on the session's own.

func (c *workerConn) open(l link) {
	o := l.Begin() // first, so that READY comes before whatever Shutdown says on l
	c.worker.mu.Lock()
	c.sess.open()
	c.link, c.noted = l, false
	if c.leaving == staying {
		c.sess.appendReady(o, c.worker.service, &c.worker.self)
	}
	c.worker.mu.Unlock()
	l.Flush()
}

func (c *workerConn) up(l link) {
	now := c.session.now()
	c.worker.mu.Lock()
	defer c.worker.mu.Unlock()
	c.sess.connected(now)
	c.worker.stats.Connections++
	l.Wake() // another goroutine may have sent READY: the session's knows of no beat yet
}

func (c *workerConn) deliver(l link, in *batch.In) {
	w, got := c.worker, &c.got
	now := c.session.now()
	var m message
	w.mu.Lock()
	malformed := c.sess.malformed
	take := func(m *message, x *extra) *task { return newTask(c, l, m, x) }
	for f := in.Next(); f != nil; f = in.Next() {
		switch {
		case !w.wire.extends:
			if w.wire.parseAtWorker(f, &c.m) {
				c.sess.receive(now, &c.m, got, take)
				continue
			}
		case parseAtWorker(f, &m):
			c.sess.receive(now, &m, got, take)
			continue
		}
		c.sess.malformed++
	}
	if got.ready {
		c.setState(Ready)
	}
	c.launch(got.run) // before settle: Shutdown then looks for what runs
	switch {
	case !got.leaves:
	case c.leaving == draining: // the answer to ours
		c.settle()
	case c.leaving == pausing:
		c.leaving = departing
		c.settle()
	case c.leaving > pausing: // an answer to another beat
	default:
		c.setState(Draining)
	}
	part := got.ready && c.leaving == parting
	tell := c.sess.unsaid() // it was changed before the broker could be told
	if c.sess.malformed > malformed && !c.noted {
		c.noted = true
		w.report(slog.LevelWarn, fmt.Errorf("omdp: worker %s: malformed message from the broker at %s: %w", w.service, c.endpoint, ErrProtocol))
	}
	w.count(got.ended)
	w.mu.Unlock()
	if part {
		c.part(l)
	}
	if tell {
		c.tell(l)
	}
	ran := len(got.run) > 0
	c.act(l, got)
	if ran {
		// Short handlers end now, while this goroutine holds the socket, so that
		// it sends their finals in one go: measured, 15 % to 20 % less CPU.
		runtime.Gosched()
	}
}

// act does the rest of what arrived messages or a tick ask for.
func (c *workerConn) act(l link, a *arrivals) {
	for _, g := range a.credit {
		g.t.res.grant(g.n, g.window)
	}
	for _, p := range a.pieces {
		p.t.req.upload.push(p.p)
	}
	if len(a.grants) > 0 {
		o := l.Begin()
		for _, g := range a.grants {
			appendWorkerCredit(o, g.t.token(), g.t.rid(), g.n)
		}
		l.Flush()
	}
	for _, e := range a.ended {
		e.t.res.stop(e.cause)
	}
	if a.drop != nil {
		c.session.drop(l, a.drop)
	} else if a.wake {
		c.session.wake()
	}
	a.reset()
}

func (c *workerConn) tick(now instant) instant {
	w := c.worker
	w.mu.Lock()
	l := c.link
	next := c.sess.tick(now, &c.due)
	w.count(c.due.ended)
	w.mu.Unlock()
	if c.due.beat && !(w.wire.quiet && c.said.Swap(false)) {
		w.runners.trim()
		o := l.Begin()
		w.mu.Lock()
		c.sess.appendBeats(o, now)
		w.mu.Unlock()
		l.Flush()
	}
	c.act(l, &c.due)
	return next
}

func (c *workerConn) leave(l link) {
	o := l.Begin()
	c.worker.mu.Lock()
	if c.leaving != departed && c.sess.up {
		c.leaving = departed
		c.worker.wire.appendLeave(o)
	}
	held := c.forget(errWorkerClosed)
	c.worker.mu.Unlock()
	l.Flush()
	for _, t := range held {
		t.res.stop(errWorkerClosed)
	}
}

// forget ends the session on the present link, for the given cause. What it
// returns is to be stopped. mu is held.
func (c *workerConn) forget(cause error) []*task {
	c.link = nil
	held := c.sess.close()
	c.worker.stats.Lost += uint64(len(held))
	for _, t := range held {
		c.worker.skip(t, cause)
	}
	return held
}

func (c *workerConn) lost(l link, reason error) {
	c.worker.mu.Lock()
	if c.sess.ready {
		c.session.backoff.reset()
	}
	held := c.forget(errLinkLost)
	c.setState(Lost)
	if c.leaving != staying {
		c.settle()
	}
	c.worker.mu.Unlock()
	for _, t := range held {
		t.res.stop(errLinkLost)
	}
}

func (c *workerConn) failed(err error, wait instant) {
	w := c.worker
	w.report(slog.LevelWarn, fmt.Errorf("omdp: worker %s: connection to %s: %w", w.service, c.endpoint, err), "retry_in", wait)
}

// setState is called with mu held.
func (c *workerConn) setState(s State) {
	w := c.worker
	if log := w.config.Logger; log != nil && c.state != s && !w.stopping && !w.closed {
		w.hooks.add(func() { log.Info("omdp: worker "+s.String(), "service", w.service, "endpoint", c.endpoint) })
	}
	c.state = s
	w.setState(w.together())
}

// settle notes that the broker read DRAIN, or will never: no more requests come.
// mu is held.
func (c *workerConn) settle() {
	select {
	case <-c.settled:
	default:
		close(c.settled)
	}
}

// release notes that t gets its final now, of n payload bytes. It reports
// whether there is still a session to send it on, and whether DISCONNECT is to
// go with it. The link's lock is held.
func (c *workerConn) release(t *task, good bool, n int) (held, depart bool) {
	w := c.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	w.overdue.forget(t)
	w.leaveRoom(t)
	if next := w.places.leave(t); next != nil { // of whichever broker: its link is not touched here
		w.runners.add([]*task{next})
	}
	if !c.sess.release(t) {
		return false, false
	}
	if good {
		w.stats.Succeeded++
	} else {
		w.stats.Failed++
	}
	w.bytes.Add(uint64(n))
	if depart = c.leaving == departing && len(c.sess.all) == 0; depart {
		c.leaving = departed
	}
	return true, depart
}

// How requests of all brokers come to run.

// launch starts handlers, or has the requests wait for a place. mu is held, so
// that Shutdown finds a request either not taken or running or waiting.
func (c *workerConn) launch(run []*task) {
	w := c.worker
	if len(run) == 0 {
		return
	}
	w.stats.Requests += uint64(len(run))
	for _, t := range run {
		if t.deadline != never {
			t.req.deadline = c.session.epoch.Add(t.deadline)
		}
	}
	w.runners.add(w.places.come(run))
}

// count notes which contexts end, and why. mu is held.
func (w *Worker) count(ended []ending) {
	for _, e := range ended {
		if e.cause == ErrTimeout {
			w.stats.Expired++
		} else {
			w.stats.Canceled++
		}
		w.skip(e.t, e.cause)
	}
}

// skip ends a request that waits for a place: it needs none any more, as its
// handler will not run, and has its final at once. A handler that runs has to
// return soon. mu is held.
func (w *Worker) skip(t *task, cause error) {
	if w.places.forget(t) || t.gathers {
		t.gathers = false
		t.res.stop(cause) // first, or serve would run the handler
		w.runners.add([]*task{t})
		return
	}
	w.watch(t)
}

// serve runs the handler for one request, on a goroutine of the runners.
func (w *Worker) serve(t *task) {
	returned := false
	defer func() {
		if !returned { // a panic, or runtime.Goexit
			w.crashed(t, recover())
		}
		if t.late.Load() != nil {
			w.returned(t)
		}
	}()
	r := &t.res
	switch {
	case r.stopped() != nil: // over before it began: the client is told so, and not an error as of a handler's
		r.final(nil, false, statusBefore(r.stopped()))
	case t.form >= formLoose: // what it is was for here to see: it may be long
		t.req.data = messageOf(t.req.data.b, t.form)
		returned = w.handle(t)
		return
	case !t.req.data.raw && !isJSON(t.req.data.b):
		// `undefined` was seen instead of JSON; the text is that of zmq-omdp 4f18192 lib/Worker.js.
		r.final([]byte(`"ERR_MSG_PARSE"`), false, "500")
	default:
		returned = w.handle(t)
		return
	}
	r.finish(nil)
	returned = true
}

// handle has the handler answer.
func (w *Worker) handle(t *task) (returned bool) {
	err := w.handler(&t.ctx, &t.req, &t.res)
	t.res.finish(err)
	return true
}

// statusBefore is the status, as JSON, of a request whose handler never began.
func statusBefore(cause error) string {
	switch {
	case errors.Is(cause, ErrTimeout):
		return `"` + statusTimeout + `"`
	case errors.Is(cause, ErrTooLarge):
		return `"` + statusTooLarge + `"`
	case errors.Is(cause, ErrProtocol):
		return `"` + statusProtocol + `"`
	}
	return `"` + statusWorkerLost + `"`
}

// crashed ends the request of a handler that did not return. The client is
// not told the reason, which may hold what is not meant for it.
func (w *Worker) crashed(t *task, v any) {
	stack := debug.Stack()
	t.res.final([]byte(`"internal error"`), false, "500")
	t.res.stop(errHandlerDone)
	w.mu.Lock()
	w.stats.Panics++
	w.mu.Unlock()
	if v == nil {
		v = "runtime.Goexit was called"
	}
	w.report(slog.LevelError, fmt.Errorf("omdp: worker %s: handler panicked: %v", w.service, v), "request", t.req.id, "stack", string(stack))
}
