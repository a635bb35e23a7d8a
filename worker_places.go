package omdp

// places shares the concurrency of a worker among all its brokers, each of
// which may use all of it: a request that comes when no place is free waits,
// in the order of arrival. With one broker, which gives no more than it was told,
// a request waits only for a handler that the broker counts as lost, for its
// silence or with its connection, and that goes on all the same.
//
// Pure, and not safe for concurrent use. The zero value has no places.
type places struct {
	size    int   // all of them
	free    int   // negative: so many more are taken than there are now
	stuck   int   // tasks that were replaced and run on: at most size when one is added
	waiting int   // tasks from first to last; none while a place is free
	first   *task // the one that has waited longest
	last    *task
}

// turn is what places knows of a task.
type turn uint8

const (
	turnNone     turn = iota // not come, over, or never to run
	turnWaiting              // in the list
	turnTaken                // it has a place
	turnReplaced             // it runs on, but its place was given to another
)

func newPlaces(n int) places { return places{size: n, free: n} }

// resize changes how many places there are, and returns the tasks that waited
// for one and have it now, in order. Nobody loses a place: if there are fewer,
// those that become free first are gone.
func (p *places) resize(n int) (run []*task) {
	p.free += n - p.size
	p.size = n
	for p.free > 0 && p.first != nil {
		t := p.first
		p.forget(t)
		t.turn = turnTaken
		p.free--
		run = append(run, t)
	}
	return run
}

// come gives places to tasks, in order, and returns those that got one; the others wait.
func (p *places) come(ts []*task) []*task {
	n := min(len(ts), max(p.free, 0))
	p.free -= n
	for _, t := range ts[:n] {
		t.turn = turnTaken
	}
	for _, t := range ts[n:] {
		t.turn = turnWaiting
		p.waiting++
		if p.last == nil {
			p.first = t
		} else {
			p.last.after, t.before = t, p.last
		}
		p.last = t
	}
	return ts[:n]
}

// leave frees the place of a task, if it has one, and returns the task that
// takes it: nil if none waits.
func (p *places) leave(t *task) (next *task) {
	if t.turn != turnTaken {
		return nil
	}
	t.turn = turnNone
	next = p.first
	if next == nil || p.free < 0 {
		p.free++
		return nil
	}
	p.forget(next)
	next.turn = turnTaken
	return next
}

// replace frees the place of a task that runs on, and returns the task that
// takes it, if any. It reports false, and does nothing, if as many as there are
// places were replaced already: so what runs is bounded.
func (p *places) replace(t *task) (next *task, ok bool) {
	if t.turn != turnTaken || p.stuck >= p.size {
		return nil, false
	}
	next = p.leave(t)
	t.turn = turnReplaced
	p.stuck++
	return next, true
}

// returned counts a task that was replaced, and runs no more.
func (p *places) returned(t *task) {
	if t.turn == turnReplaced {
		t.turn = turnNone
		p.stuck--
	}
}

// forget takes a task out of the list. It reports false if it does not wait.
func (p *places) forget(t *task) bool {
	if t.turn != turnWaiting {
		return false
	}
	if t.before == nil {
		p.first = t.after
	} else {
		t.before.after = t.after
	}
	if t.after == nil {
		p.last = t.before
	} else {
		t.after.before = t.before
	}
	t.turn, t.before, t.after = turnNone, nil, nil
	p.waiting--
	return true
}
