package omdp

import (
	"fmt"
	"log/slog"
	"time"
)

const defaultStuckAfter = 10 * time.Second

// late is what a worker keeps of a handler whose context ended before it
// returned. By Worker.mu.
type late struct {
	since time.Duration // after overdue.born
	node  node[task]
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
	if l := t.late.Load(); l != nil && l.node.listed() {
		l.node.in.remove(&l.node)
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
	if w.config.StuckAfter < 0 || w.closed || t.turn != turnTaken || t.late.Load() != nil {
		return
	}
	l := &late{since: time.Since(o.born), node: node[task]{owner: t}}
	t.late.Store(l)
	o.ended.pushBack(&l.node)
	w.armOverdue(l.since)
}

// armOverdue sets the timer to when the first is overdue. mu is held.
func (w *Worker) armOverdue(now time.Duration) {
	o := &w.overdue
	t := o.ended.front()
	if o.armed || t == nil {
		return
	}
	o.armed = true
	wait := t.late.Load().since + w.config.StuckAfter - now
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
	for t := o.ended.front(); t != nil; t = o.ended.front() {
		l := t.late.Load()
		if l.since+w.config.StuckAfter > now {
			break
		}
		o.ended.remove(&l.node)
		w.stats.Stuck++
		what := "it is replaced"
		if w.replace(t) {
			replaced = append(replaced, t)
		} else {
			what = fmt.Sprintf("it keeps its place, as %d others were replaced", w.places.stuck)
			o.kept.pushBack(&l.node)
		}
		w.report(slog.LevelWarn, fmt.Errorf("omdp: worker %s: handler goes on %v after its context ended (%w): %s",
			w.service, (now-l.since).Round(time.Millisecond), t.res.reason(), what), "request", t.req.id)
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
	if next != nil {
		w.runners.add([]*task{next})
	}
	return true
}

// returned notes that a handler whose context ended has returned. If it was
// replaced, one that kept its place may be replaced now.
func (w *Worker) returned(t *task) {
	w.mu.Lock()
	w.places.returned(t)
	next := w.overdue.kept.front()
	if next != nil && !w.closed && w.replace(next) {
		w.overdue.forget(next)
	} else {
		next = nil
	}
	w.mu.Unlock()
	if next != nil {
		next.res.Error(next.res.reason())
	}
}
