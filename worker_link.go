package omdp

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// The hooks of the session: what a worker does on its link. deliver and up run
// on whichever goroutine did the exchange, the others on the session's own.

func (w *Worker) open(l link) {
	o := l.Begin() // first, so that READY comes before whatever Shutdown says on l
	w.mu.Lock()
	w.sess.open()
	w.link, w.noted = l, false
	if w.leaving == staying {
		appendReady(o, w.service, &w.self)
	}
	w.mu.Unlock()
	l.Flush()
}

func (w *Worker) up(l link) {
	now := w.session.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sess.connected(now)
	w.stats.Connections++
}

func (w *Worker) deliver(l link, in *batch.In) {
	now := w.session.now()
	got := &w.got
	var m message
	w.mu.Lock()
	malformed := w.sess.malformed
	for f := in.Next(); f != nil; f = in.Next() {
		if !parseAtWorker(f, &m) {
			w.sess.malformed++
			continue
		}
		w.sess.receive(now, &m, got, func(m *message, x *extra) *task { return newTask(w, l, m, x) })
	}
	if got.ready {
		w.setState(Ready)
	}
	w.launch(got.run) // before settle: Shutdown then looks for what runs
	switch {
	case !got.leaves:
	case w.leaving != staying: // the answer to ours
		w.settle()
	default:
		w.setState(Draining)
	}
	if w.sess.malformed > malformed && !w.noted {
		w.noted = true
		w.report(slog.LevelWarn, fmt.Errorf("omdp: worker %s: malformed message from the broker: %w", w.service, ErrProtocol))
	}
	w.count(got.ended)
	w.mu.Unlock()
	ran := len(got.run) > 0
	w.act(l, got)
	if ran {
		// Short handlers end now, while this goroutine holds the socket, so that
		// it sends their finals in one go: measured, 15 % to 20 % less CPU.
		runtime.Gosched()
	}
}

// settle notes that the broker read DRAIN, or will never: no more requests come.
// mu is held.
func (w *Worker) settle() {
	select {
	case <-w.settled:
	default:
		close(w.settled)
	}
}

// launch starts handlers. mu is held, so that Shutdown finds a request either
// not taken or running.
func (w *Worker) launch(run []*task) {
	if len(run) == 0 {
		return
	}
	w.stats.Requests += uint64(len(run))
	for _, t := range run {
		if t.deadline != never {
			t.req.deadline = w.session.epoch.Add(t.deadline)
		}
	}
	w.runners.add(run)
}

// act does the rest of what arrived messages or a tick ask for.
func (w *Worker) act(l link, a *arrivals) {
	for _, c := range a.credit {
		c.t.res.grant(c.n)
	}
	for _, e := range a.ended {
		e.t.res.stop(e.cause)
	}
	if a.drop != nil {
		w.session.drop(l, a.drop)
	} else if a.wake {
		w.session.wake()
	}
	a.reset()
}

// count notes which contexts end, and why. mu is held.
func (w *Worker) count(ended []ending) {
	for _, e := range ended {
		if e.cause == ErrTimeout {
			w.stats.Expired++
		} else {
			w.stats.Canceled++
		}
	}
}

func (w *Worker) tick(now instant) instant {
	w.mu.Lock()
	l := w.link
	next := w.sess.tick(now, &w.due)
	w.count(w.due.ended)
	w.mu.Unlock()
	if w.due.beat {
		w.runners.trim()
		o := l.Begin()
		w.mu.Lock()
		w.sess.appendBeats(o, now)
		w.mu.Unlock()
		l.Flush()
	}
	w.act(l, &w.due)
	return next
}

func (w *Worker) leave(l link) {
	o := l.Begin()
	w.mu.Lock()
	if w.leaving != departed && w.sess.up {
		w.leaving = departed
		appendWorkerCommand(o, opDisconnect, "", "")
	}
	held := w.forget()
	w.mu.Unlock()
	l.Flush()
	for _, t := range held {
		t.res.stop(errWorkerClosed)
	}
}

// forget ends the session on the present link. mu is held.
func (w *Worker) forget() []*task {
	w.link = nil
	held := w.sess.close()
	w.stats.Lost += uint64(len(held))
	return held
}

func (w *Worker) lost(l link, reason error) {
	w.mu.Lock()
	if w.sess.ready {
		w.session.backoff.reset()
	}
	held := w.forget()
	w.setState(Lost)
	if w.leaving != staying {
		w.settle()
	}
	w.mu.Unlock()
	for _, t := range held {
		t.res.stop(errLinkLost)
	}
}

func (w *Worker) failed(err error, wait instant) {
	w.report(slog.LevelWarn, fmt.Errorf("omdp: worker %s: connection to %s: %w", w.service, w.endpoint, err), "retry_in", wait)
}

// release notes that t gets its final now, of n payload bytes. It reports
// whether there is still a session to send it on, and whether DISCONNECT is to
// go with it. The link's lock is held.
func (w *Worker) release(t *task, good bool, n int) (held, depart bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.sess.release(t) {
		return false, false
	}
	if good {
		w.stats.Succeeded++
	} else {
		w.stats.Failed++
	}
	w.bytes.Add(uint64(n))
	if depart = w.leaving == departing && len(w.sess.all) == 0; depart {
		w.leaving = departed
	}
	return true, depart
}

// serve runs the handler for one request, on a goroutine of the runners.
func (w *Worker) serve(t *task) {
	returned := false
	defer func() {
		if !returned { // a panic, or runtime.Goexit
			w.crashed(t, recover())
		}
	}()
	r := &t.res
	switch {
	case r.stopped() != nil: // over before it began: the client is told so, and not an error as of a handler's
		r.final(nil, false, statusBefore(r.stopped()))
	case !isJSON(t.req.data.b):
		// `undefined` was seen instead of JSON; the text is that of zmq-omdp 4f18192 lib/Worker.js.
		r.final([]byte(`"ERR_MSG_PARSE"`), false, "500")
	default:
		err := w.handler(&t.ctx, &t.req, r)
		r.finish(err)
		returned = true
		return
	}
	r.finish(nil)
	returned = true
}

// statusBefore is the status, as JSON, of a request whose handler never began.
func statusBefore(cause error) string {
	if errors.Is(cause, ErrTimeout) {
		return `"` + statusTimeout + `"`
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
