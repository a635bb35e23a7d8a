package omdp

// timing holds the timers of a client's requests. Most requests have the same
// timeout, so that each is due after the one before it: those stand in a line,
// where they come and go in constant time. A request that is due before the
// end of the line is in the heap.
type timing struct {
	head, tail *pending
	heap       []*pending
	alarm      instant // when the next turn is due
	sooner     bool    // … which is before it was last asked for
}

// Where a timer is, besides the heap.
const (
	inLine  = -1
	nowhere = -2
)

// dueAt is when the timer of p fires: at its deadline, a little later while
// the broker may still say something of it, sooner if it has to be sent again.
func (p *pending) dueAt() instant {
	switch {
	case p.link == nil && p.after != 0:
		return min(p.deadline, p.after)
	case p.link == nil:
		return p.deadline
	}
	return min(p.limit(), p.idleAt())
}

// limit is when the time of a request is over that is on a link.
func (p *pending) limit() instant {
	if p.deadline == never {
		return never
	}
	return p.deadline + p.slack
}

// idleAt is when a request that is on a link was without a partial for too
// long, if none comes; never if that does not matter.
func (p *pending) idleAt() instant {
	if p.idle <= 0 || p.stirred > never-p.idle {
		return never
	}
	return p.stirred + p.idle
}

// stirs tells of a request whose timer fires whether it may go on: partials
// came since it was set. What its reader has not taken yet holds up the worker
// as well, and is nothing that the worker does.
func (t *pendingTable) stirs(now instant, p *pending) bool {
	if p.link == nil || now >= p.limit() {
		return false
	}
	if t.unread != nil && t.unread(p) {
		p.stirred = now
	}
	return p.idleAt() > now
}

// idled tells of a request that expired at now whether it was for its silence.
func (p *pending) idled(now instant) bool { return p.link != nil && now < p.limit() }

// soonest is the request whose timer comes first, nil if none has one.
func (t *timing) soonest() *pending {
	if len(t.heap) > 0 && (t.head == nil || t.heap[0].due < t.head.due) {
		return t.heap[0]
	}
	return t.head
}

// rearm sets the alarm anew, after a turn.
func (t *timing) rearm() {
	t.alarm, t.sooner = never, false
	if p := t.soonest(); p != nil {
		t.alarm = p.due
	}
}

func (t *timing) reschedule(p *pending) {
	if due := p.dueAt(); due != p.due {
		t.unschedule(p)
		t.schedule(p)
	}
}

func (t *timing) schedule(p *pending) {
	p.due = p.dueAt()
	if p.due < t.alarm {
		t.alarm, t.sooner = p.due, true
	}
	switch {
	case p.due == never:
	case t.tail == nil || t.tail.due <= p.due:
		p.at, p.before, p.follow = inLine, t.tail, nil
		if t.tail == nil {
			t.head = p
		} else {
			t.tail.follow = p
		}
		t.tail = p
	default:
		p.at = len(t.heap)
		t.heap = append(t.heap, p)
		t.fix(p.at)
	}
}

func (t *timing) unschedule(p *pending) {
	i := p.at
	p.at = nowhere
	if i == inLine {
		if p.before == nil {
			t.head = p.follow
		} else {
			p.before.follow = p.follow
		}
		if p.follow == nil {
			t.tail = p.before
		} else {
			p.follow.before = p.before
		}
		p.before, p.follow = nil, nil
	}
	if i < 0 {
		return
	}
	end := len(t.heap) - 1
	moved := t.heap[end]
	t.heap[end] = nil
	t.heap = t.heap[:end]
	if i < end {
		t.heap[i] = moved
		moved.at = i
		t.fix(i)
	}
}

// fix restores the order of the heap after the entry at i changed.
func (t *timing) fix(i int) {
	h := t.heap
	p := h[i]
	for i > 0 {
		up := (i - 1) / 2
		if h[up].due <= p.due {
			break
		}
		h[i] = h[up]
		h[i].at = i
		i = up
	}
	for {
		down := 2*i + 1
		if down >= len(h) {
			break
		}
		if r := down + 1; r < len(h) && h[r].due < h[down].due {
			down = r
		}
		if h[down].due >= p.due {
			break
		}
		h[i] = h[down]
		h[i].at = i
		i = down
	}
	h[i] = p
	p.at = i
}
