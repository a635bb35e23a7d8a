package omdp

import (
	"runtime"
	"slices"
	"sync"
	"time"
)

const (
	// stuckAfter is how long the queue of callbacks may stand still before
	// another goroutine joins those whose callbacks block.
	stuckAfter = time.Millisecond
	// runnerIdle is how long a goroutine waits for more callbacks to run.
	runnerIdle = time.Second
)

// event is one reply for a callback or a Stream: a partial, or the end.
type event struct {
	reply
	final bool
	size  int // what a partial counts for credit and limits, in bytes
}

// callbacks runs the callbacks of a client's requests, off the I/O goroutines:
// those of one request in order and one at a time, those of different requests
// on as many goroutines as it takes that none waits for another's that blocks.
// Usually that is one, which also sends what the callbacks ask for.
//
// The zero value is ready, with limit set. Safe for concurrent use.
type callbacks struct {
	limit int // goroutines

	mu          sync.Mutex
	first, last *call // requests with events, in the order of their first one
	waiting     int   // requests in that list
	free        [][]event
	runners     int // goroutines
	idle        int // of these, those that wait for wake and were not sent it
	wake        chan struct{}
	served      uint64      // turns of requests that are over
	seen        uint64      // served, when the watch last looked
	step        int         // goroutines to add if it is stuck again
	watch       *time.Timer // runs while requests wait
	watching    bool
	closed      bool
	ended       chan struct{} // closed when closed and the last runner is gone
}

// push adds an event for c, unless c has ended. With bound, a partial that
// would make what c has not yet consumed larger than that is not taken, and
// push reports it; a first one is always taken. drop drops what c has not
// consumed: nobody wants it any more.
func (q *callbacks) push(c *call, e event, bound int, drop bool) (over bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.over || q.gone() {
		return false
	}
	if bound > 0 && c.buffered > 0 && c.buffered+e.size > bound {
		return true
	}
	if drop {
		clear(c.events)
		c.events = c.events[:0]
	}
	c.over = e.final
	c.buffered += e.size
	if n := len(q.free); c.events == nil && n > 0 {
		q.free, c.events = q.free[:n-1], q.free[n-1]
	}
	c.events = append(c.events, e)
	if !c.queued {
		c.queued = true
		q.add(c)
	}
	return false
}

// add puts c at the end of the list and sees to it that it is served.
func (q *callbacks) add(c *call) {
	c.behind = nil
	if q.last == nil {
		q.first = c
	} else {
		q.last.behind = c
	}
	q.last = c
	q.waiting++
	switch {
	case q.idle > 0:
		if q.idle == q.runners { // else somebody is at it, and the watch looks after the rest
			q.idle--
			q.wake <- struct{}{}
		}
	case q.runners == 0:
		q.spawn()
	}
	if !q.watching {
		q.watching, q.seen, q.step = true, q.served, 1
		if q.watch == nil {
			q.watch = time.AfterFunc(stuckAfter, q.look)
		} else {
			q.watch.Reset(stuckAfter)
		}
	}
}

// spawn is called with mu held.
func (q *callbacks) spawn() {
	if q.wake == nil {
		q.wake = make(chan struct{}, q.limit)
	}
	q.runners++
	go q.run()
}

// look runs while requests wait. If no turn ended since it last looked, every
// goroutine is held by a callback, and more are needed: twice as many
// each time. If they are served but do not become less, another processor helps.
func (q *callbacks) look() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting == 0 {
		q.watching = false
		return
	}
	n := 0
	if q.served == q.seen {
		n = min(q.step, q.waiting)
		q.step *= 2
	} else {
		q.seen, q.step = q.served, 1
		if q.runners-q.idle < runtime.GOMAXPROCS(0) {
			n = 1
		}
	}
	for range n {
		switch {
		case q.idle > 0:
			q.idle--
			q.wake <- struct{}{}
		case q.runners < q.limit:
			q.spawn()
		}
	}
	q.watch.Reset(stuckAfter)
}

// run serves requests until there was nothing to do for a while.
func (q *callbacks) run() {
	var (
		idle    *time.Timer
		running *call // whose callbacks run
		events  []event
		at      int // of events
	)
	q.mu.Lock()
	defer func() { // also when a callback ended the goroutine (runtime.Goexit, t.FailNow)
		if running != nil {
			q.mu.Lock()
		}
		q.runners--
		if c := running; c != nil { // what is left is another's
			c.events = slices.Concat(events[at+1:], c.events)
			q.turned(c)
		}
		switch {
		case q.gone():
			close(q.ended)
		case q.runners == 0 && q.first != nil:
			q.spawn()
		}
		q.mu.Unlock()
	}()
	for {
		c := q.first
		if c == nil {
			if q.closed || !q.park(&idle) {
				return
			}
			continue
		}
		if q.first = c.behind; q.first == nil {
			q.last = nil
		}
		q.waiting--
		c.behind = nil
		running, events = c, c.events
		c.events = nil
		q.mu.Unlock()
		for at = range events {
			c.run(&events[at])
		}
		clear(events)
		q.mu.Lock()
		running = nil
		if cap(events) <= 64 && len(q.free) < 1024 {
			q.free = append(q.free, events[:0])
		}
		q.turned(c)
	}
}

// turned ends a turn of c, which gets another one if more came. mu is held.
func (q *callbacks) turned(c *call) {
	q.served++
	if len(c.events) > 0 {
		q.add(c)
	} else {
		c.queued = false
	}
}

// gone tells that ended is closed, or is to be: nothing runs any more. mu is held.
func (q *callbacks) gone() bool { return q.closed && q.runners == 0 && q.first == nil }

// run calls the callback for one event, on a goroutine of callbacks.
func (r *call) run(e *event) {
	if e.final {
		if r.onFinal != nil {
			r.onFinal(e.msg, e.err)
		}
		return
	}
	defer func() { // also when the callback ends the goroutine
		q := &r.client.runners
		q.mu.Lock()
		r.buffered -= e.size
		q.mu.Unlock()
		r.read(e.size)
	}()
	if r.onPartial != nil {
		r.onPartial(e.msg)
	}
}

// park waits for more to do and reports false when the goroutine may end. It
// is called with mu held and returns with it held.
func (q *callbacks) park(idle **time.Timer) bool {
	if *idle == nil {
		*idle = time.NewTimer(runnerIdle)
	}
	q.idle++
	for {
		before := q.served
		q.mu.Unlock()
		late := false
		select {
		case <-q.wake:
		case <-(*idle).C:
			late = true
		}
		q.mu.Lock()
		if !late {
			return true
		}
		(*idle).Reset(runnerIdle)
		if before == q.served && q.idle > 0 { // with idle 0 the wake is on its way
			q.idle--
			return false
		}
	}
}

// close lets what is queued run and the goroutines end then. What is pushed
// after the last one is dropped.
func (q *callbacks) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.closed, q.ended = true, make(chan struct{})
	if q.gone() {
		close(q.ended)
	}
	for ; q.idle > 0; q.idle-- {
		q.wake <- struct{}{}
	}
	if q.watch != nil && q.waiting == 0 && q.watch.Stop() {
		q.watching = false
	}
}

// done is closed when the last callback after close has returned.
func (q *callbacks) done() <-chan struct{} { return q.ended }
