package omdp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

const (
	// drainSettle is how long Shutdown waits for the first word of a broker that
	// READY was sent to, so as to know how to take leave of it.
	drainSettle = 50 * time.Millisecond

	// lastWords is how long the handlers have, once their contexts ended at the
	// end of Shutdown, to say why to their clients themselves.
	lastWords = 100 * time.Millisecond
)

// leaving is how far Shutdown has come with one broker.
type leaving uint8

const (
	staying   leaving = iota
	parting           // the broker was not heard yet: what to say shows when it is
	draining          // DRAIN was said, or there is no connection: takes nothing new
	pausing           // a foreign broker was told to give nothing, and has not answered
	departing         // a foreign broker knows no DRAIN: DISCONNECT goes with the last final
	departed          // DISCONNECT was sent
)

// Shutdown tells every broker to send nothing more, waits for the requests in
// progress until ctx ends, then ends what is left, takes its leave and closes
// the worker. Requests that a broker of this library, or PIGATO's, sent before it
// read that are served as well; brokers of other makes may give one more upon the
// last final, which nobody answers. It returns nil if nothing was cut off, else the cause of
// ctx's end; ErrNotStarted before Start and ErrClosed after Close. A handler
// must not wait for it.
func (w *Worker) Shutdown(ctx context.Context) error {
	w.mu.Lock()
	switch {
	case w.closed:
		w.mu.Unlock()
		return fmt.Errorf("omdp: shut down worker: %w", ErrClosed)
	case !w.started:
		w.mu.Unlock()
		return fmt.Errorf("omdp: shut down worker: %w", ErrNotStarted)
	}
	w.stopping = true
	w.setState(Draining)
	w.mu.Unlock()
	err := w.drain(ctx)
	if err != nil {
		if n := w.runners.running(); n > 0 {
			err = fmt.Errorf("omdp: shut down worker: %d handlers cut off: %w", n, err)
			w.report(slog.LevelWarn, err)
		} else {
			err = nil
		}
		w.endAll(errWorkerClosed)
		w.wait(w.runners.whenQuiet(), lastWords)
	}
	return errors.Join(err, w.close(0))
}

// drain waits until nothing is in progress, and nothing more can come.
func (w *Worker) drain(ctx context.Context) error {
	since := time.Now()
	for _, c := range w.conns { // first to all, then their answers
		c.sayDrain()
	}
	for _, c := range w.conns {
		c.awaitSettled(ctx, since)
	}
	select {
	case <-w.runners.whenQuiet(): // whatever waits for a place waits for one that runs
		return nil
	default:
	}
	select {
	case <-w.runners.whenQuiet():
	case <-w.end:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// sayDrain stops the flow of requests from one broker.
func (c *workerConn) sayDrain() {
	for {
		c.worker.mu.Lock()
		l := c.link
		if c.leaving == staying && (l == nil || !c.sess.ready) {
			c.leaving = parting
			if l == nil { // there will be no READY
				c.leaving = draining
				c.settle()
			}
		}
		over := c.leaving != staying
		c.worker.mu.Unlock()
		if over {
			return
		}
		c.part(l)
	}
}

// part says on l that no more requests are wanted, unless that was said or l
// is not the present link any more. Brokers that did not advertise know no
// DRAIN; they are told DISCONNECT at once, or with the last final. PIGATO's gives
// more until then: it is told a concurrency of 0 before (PIGATO 0.0.46
// lib/Broker.js, workerAvailable), and answers that, as it does each beat.
func (c *workerConn) part(l link) {
	o := l.Begin()
	defer l.Flush()
	c.worker.mu.Lock()
	defer c.worker.mu.Unlock()
	switch {
	case c.leaving > parting || c.link != l:
	case c.sess.known():
		c.leaving = draining
		appendWorkerCommand(o, opDrain, "", "")
	case c.sess.wire.several && c.sess.ready:
		c.leaving, c.sess.paused = pausing, true
		c.sess.appendLevel(o, &c.worker.self)
	case len(c.sess.all) > 0:
		c.leaving = departing
		c.settle()
	default:
		c.leaving = departed
		c.settle()
		c.worker.wire.appendLeave(o)
	}
}

// awaitSettled waits for the broker's answer to DRAIN, which comes behind the
// last request: at most for as long as a broker that lives can be silent, or
// for drainSettle if it was never heard.
func (c *workerConn) awaitSettled(ctx context.Context, since time.Time) {
	w := c.worker
	for {
		w.mu.Lock()
		l, unheard, limit := c.link, c.leaving == parting, drainSettle
		if !unheard {
			limit = c.sess.patience()
		}
		w.mu.Unlock()
		left := time.Until(since.Add(limit))
		if left <= 0 {
			if !unheard || l == nil {
				return
			}
			c.part(l)
			continue
		}
		select {
		case <-c.settled:
			return
		case <-time.After(left):
		case <-w.end:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Close takes leave of all brokers at once and ends the contexts of all
// handlers; their clients are told that the worker is lost. It returns when
// the library's goroutines have ended and the handlers have returned, which it
// waits for up to DrainTimeout: then the error says how many still run. A
// handler, OnState and OnError therefore call it on a goroutine of their own.
// A second Close returns nil.
func (w *Worker) Close() error { return w.close(max(w.settings.drain, 0)) }

// close is Close; patience is for handlers.
func (w *Worker) close(patience time.Duration) error {
	w.mu.Lock()
	if w.closed {
		started := w.started
		w.mu.Unlock()
		if started {
			<-w.done
		}
		return nil
	}
	w.closed = true
	w.overdue.stop()
	started := w.started
	w.setState(Closed)
	w.mu.Unlock()
	close(w.end)
	if started {
		w.stop()
		<-w.done
		w.endAll(errWorkerClosed)
	}
	return w.join(patience)
}

// join waits for user code.
func (w *Worker) join(patience time.Duration) error {
	gone := w.runners.close()
	if !w.wait(gone, patience) {
		if n := w.runners.running(); n > 0 {
			return fmt.Errorf("omdp: close worker: %d handlers still run", n)
		}
		<-gone
	}
	if !w.wait(w.hooks.done(), max(w.settings.drain, 0)) {
		return errors.New("omdp: close worker: OnState or OnError still runs")
	}
	return nil
}

// wait reports whether c was closed within d.
func (w *Worker) wait(c <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c:
		return true
	case <-timer.C:
	}
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// endAll ends the contexts of what is held.
func (w *Worker) endAll(cause error) {
	var all []*task
	w.mu.Lock()
	for _, c := range w.conns {
		all = append(all, c.sess.all...)
	}
	for _, t := range all {
		w.skip(t, cause)
	}
	w.mu.Unlock()
	for _, t := range all {
		t.res.stop(cause)
	}
}
