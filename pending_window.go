package omdp

// The windows of a client's requests, pure. A window begins small, so that a
// reader that is slow holds up its worker early, and grows where it is what
// holds up the stream: the worker says that it waits for credit (BLOCKED), and
// the reader has taken all that came. A stream over a long way needs as much
// on the way as it carries in a round trip.

// widenShare bounds how much all windows of a client may have grown: so many
// times what one may grow to.
const widenShare = 8

// widen doubles the window of p, and returns the new one: 0 if it stays. It is
// called for a worker that waits while nothing of what it said does.
func (t *pendingTable) widen(p *pending) int64 {
	if p.options.credit > 0 { // the caller has set a bound
		return 0
	}
	more := min(p.window, t.maxWindow-p.window, widenShare*t.maxWindow-t.widened)
	if more <= 0 {
		return 0
	}
	p.window += more
	p.widened += more
	t.widened += more
	return p.window
}

// narrow: p has ended.
func (t *pendingTable) narrow(p *pending) {
	t.widened -= p.widened
	p.widened = 0
}
