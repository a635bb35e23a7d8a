package omdp

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

const defaultStuckAfter = 10 * time.Second

// late is what a worker keeps of a handler whose context ended before it
// returned. By Worker.mu, but for replaced, which says once for all that the
// handler's place was given to another request.
type late struct {
	since    time.Duration // after overdue.born
	node     node[task]
	replaced atomic.Bool
}

// overdue finds the handlers that do not heed the end of their context. It is
// by Worker.mu. As all may go on for the same time, those that ended first are
// due first, and one timer is enough; it is armed while there are any.
type overdue struct {
	born  time.Time
	ended list[task] // whose contexts ended and that have a place, the first first
	kept  list[task] // reported, with their places still, as too many were replaced
	timer *time.Timer
	armed bool
}

// forget lets go of a handler that ends its response.
func (o *overdue) forget(t *task) {
	if l := t.late.node.in; l != nil {
		l.remove(&t.late.node)
	}
}

func (o *overdue) stop() {
	if o.timer != nil {
		o.timer.Stop()
	}
}

// watch notes that t's context ends now. mu is held.
func (w *Worker) watch(t *task) {
	o := &w.overdue
	if w.config.StuckAfter < 0 || w.closed || t.turn != turnTaken || t.late.node.listed() {
		return
	}
	t.late.since = time.Since(o.born)
	o.ended.pushBack(&t.late.node)
	w.armOverdue(t.late.since)
}

// armOverdue sets the timer to when the first is overdue. mu is held.
func (w *Worker) armOverdue(now time.Duration) {
	o := &w.overdue
	t := o.ended.front()
	if o.armed || t == nil {
		return
	}
	o.armed = true
	wait := t.late.since + w.config.StuckAfter - now
	if o.timer == nil {
		o.timer = time.AfterFunc(wait, w.onOverdue)
	} else {
		o.timer.Reset(wait)
	}
}

// onOverdue reports the handlers that are stuck, and replaces them.
func (w *Worker) onOverdue() {
	w.mu.Lock()
	o := &w.overdue
	o.armed = false
	if w.closed {
		w.mu.Unlock()
		return
	}
	var replaced []*task
	now := time.Since(o.born)
	for t := o.ended.front(); t != nil && t.late.since+w.config.StuckAfter <= now; t = o.ended.front() {
		o.ended.remove(&t.late.node)
		w.stats.Stuck++
		what := "it is replaced"
		if w.replace(t) {
			replaced = append(replaced, t)
		} else {
			what = fmt.Sprintf("it keeps its place, as %d others were replaced", w.places.stuck)
			o.kept.pushBack(&t.late.node)
		}
		w.report(slog.LevelWarn, fmt.Errorf("omdp: worker %s: handler goes on %v after its context ended (%w): %s",
			w.service, (now-t.late.since).Round(time.Millisecond), t.res.reason(), what), "request", t.req.id)
	}
	w.armOverdue(now)
	w.mu.Unlock()
	for _, t := range replaced {
		t.res.Error(t.res.reason())
	}
}

// reason is why ctx ended.
func (r *Response) reason() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cause
}

// replace gives the place of a handler that goes on to another request, and
// reports false if too many were replaced. If it did, the response is to be
// ended, as the handler may never do so. mu is held.
func (w *Worker) replace(t *task) bool {
	next, ok := w.places.replace(t)
	if !ok {
		return false
	}
	t.late.replaced.Store(true)
	if next != nil {
		w.runners.add([]*task{next})
	}
	return true
}

// returned notes that the handler of a task that was replaced returned after
// all: one that kept its place may be replaced now.
func (w *Worker) returned(t *task) {
	w.mu.Lock()
	w.places.returned(t)
	next := w.overdue.kept.front()
	if next != nil && !w.closed && w.replace(next) {
		w.overdue.kept.remove(&next.late.node)
	} else {
		next = nil
	}
	w.mu.Unlock()
	if next != nil {
		next.res.Error(next.res.reason())
	}
}
