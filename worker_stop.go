package omdp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

const (
	// drainSettle is how long Shutdown waits at most for a request that the broker
	// sent before it read DRAIN. A broker that answers DRAIN with DRAIN ends it.
	drainSettle = 50 * time.Millisecond

	// lastWords is how long the handlers have, once their contexts ended at the
	// end of Shutdown, to say why to their clients themselves.
	lastWords = 100 * time.Millisecond
)

// leaving is how far Shutdown has come.
type leaving uint8

const (
	staying   leaving = iota
	draining          // takes nothing new
	departing         // a foreign broker knows no DRAIN: DISCONNECT goes with the last final
	departed          // DISCONNECT was sent
)

// Shutdown tells the broker to send nothing more, waits for the requests in
// progress until ctx ends, then ends what is left, takes its leave and closes
// the worker. It returns nil if nothing was cut off, else the cause of ctx's
// end; ErrNotStarted before Start and ErrClosed after Close. A handler must
// not wait for it.
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
	if w.sayDrain() {
		select {
		case <-w.settled:
		case <-time.After(drainSettle):
		case <-w.end:
		case <-ctx.Done():
		}
	}
	select {
	case <-w.runners.whenQuiet():
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

// sayDrain stops the flow of requests, and reports whether to wait for settled.
// Brokers that did not advertise know no DRAIN; they are told DISCONNECT at
// once, or with the last final.
func (w *Worker) sayDrain() (answers bool) {
	for {
		w.mu.Lock()
		l := w.link
		if l == nil && w.leaving == staying { // there will be no READY
			w.leaving = draining
			w.settle()
		}
		if w.leaving != staying {
			defer w.mu.Unlock()
			return w.leaving == draining
		}
		w.mu.Unlock()
		w.sayDrainOn(l)
	}
}

// sayDrainOn is sayDrain for the link l, unless that is not the present one any more.
func (w *Worker) sayDrainOn(l link) {
	o := l.Begin()
	defer l.Flush()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.leaving != staying || w.link != l:
	case w.sess.known():
		w.leaving = draining
		appendWorkerCommand(o, opDrain, "", "")
	case len(w.sess.all) > 0:
		w.leaving = departing
	default:
		w.leaving = departed
		appendWorkerCommand(o, opDisconnect, "", "")
	}
}

// Close takes leave of the broker at once and ends the contexts of all
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
	w.mu.Lock()
	all := append([]*task(nil), w.sess.all...)
	w.mu.Unlock()
	for _, t := range all {
		t.res.stop(cause)
	}
}
