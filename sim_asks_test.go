package omdp

import (
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// What the observer makes of what clients with a table put on the wire, and of
// how their calls end.

// asks takes what a client appends to a connection.
func (k *simBook) asks(c *simClient, l *simLink, o *batch.Out) {
	m := &k.m
	for i := range o.Len() {
		f := k.frames(o.Message(i))
		if !parseAtBroker(f, m) {
			k.w.fail("%s says what nobody can read: %q", c.name, f)
		}
		if m.op == opRequest {
			k.requested(c, l, m)
		}
		if (m.op > opHello || len(f) == 1) && !k.w.answered(l) {
			k.w.fail("%s uses an extension before the broker told that it knows them", c.name)
		}
	}
}

// answered tells whether the broker ever told its capabilities on l.
func (w *simWorld) answered(l *simLink) bool { return l.book.toldCaps }

// requested: C5: an attempt keeps the id and carries the time that is left;
// nothing is sent again that may not be.
func (k *simBook) requested(cl *simClient, l *simLink, m *message) {
	w := k.w
	i := k.carries(m, func() int {
		for _, o := range cl.open {
			if o.p.rid == string(m.rid) {
				return int(o.call)
			}
		}
		return -1
	})
	if i < 0 || k.calls[i].client != cl.num {
		w.fail("%s sends data that is not its own", cl.name)
	}
	c := &k.calls[i]
	o, ok := parseOptions(m.options)
	attempt := max(o.attempt, 1)
	left := time.Duration(timeoutNone)
	if c.deadline != never {
		left = c.deadline - cl.now()
		if o.timeout == timeoutDefault {
			o.timeout = defaultTimeout
		}
	}
	switch {
	case !ok:
		w.fail("%s sends options that nobody can read", cl.name)
	case c.ended:
		w.fail("C1: %s is sent after its end", c.rid)
	case c.parts > 0:
		w.fail("I5, C5: %s is sent again after a partial", c.rid)
	case c.deadline == never && o.timeout >= 0, c.deadline != never && (o.timeout < left-time.Millisecond || o.timeout > max(left+time.Millisecond, time.Millisecond)):
		w.fail("C5: %s has %v left, its REQUEST says %v", c.rid, left, o.timeout)
	case attempt < c.attempt || attempt > c.attempt+1 || attempt > simAttempts:
		w.fail("I20: %s is sent as attempt %d after %d", c.rid, attempt, c.attempt)
	case attempt > 1 && !c.idem:
		w.fail("%s is not idempotent and is sent as attempt %d", c.rid, attempt)
	}
	if rid := string(m.rid); rid != c.rid { // an id that was used up
		if attempt == 1 && !c.idem {
			w.fail("C5: %s is sent as %s", c.rid, rid)
		}
		c.former = append(c.former, c.rid)
		c.rid = rid
	}
	if attempt > c.attempt && c.attempt > 0 {
		k.retries[cl.num]++
	}
	c.attempt = attempt
	c.sends++
	c.link = l
	k.sent++
	// L5: a retry costs one, a call earns a fifth of one, and time a little.
	if most := simBudget + len(k.calls)/5 + 1 + int(cl.now()*simBudget/(100*time.Second)) + 1; k.retries[cl.num] > most {
		w.fail("L5: %s made %d attempts besides the first, the budget is %d", cl.name, k.retries[cl.num], most)
	}
}

// ends: C1, C2, C4: a call ends once, in time, and its outcome is true.
func (k *simBook) ends(cl *simClient, c *simCall, p *pending, end reply) {
	w := k.w
	out := OutcomeOf(end.err)
	if w.tracing {
		w.tracef("%s: %s ends: %v, %v", cl.name, c.rid, end.err, out)
	}
	if c.ended {
		w.fail("C1: %s ended twice", c.rid)
	}
	if c.rid != p.rid && c.sends > 0 {
		c.former = append(c.former, c.rid) // renamed, and not sent under the new name
		c.rid = p.rid
	}
	c.ended, c.outcome = true, out
	if c.harmed {
		return
	}
	switch {
	case out == NotSent && c.sends > 0 && k.handed(c):
		w.fail("C4: %s was sent and ends as %v", c.rid, out)
	case (out == NotSent || out == NotExecuted) && c.runs > 0:
		w.fail("C4: %s ends as %v (%v), a handler ran", c.rid, out, end.err)
	case out == Executed && c.ran == 0:
		w.fail("C4: %s ends as %v (%v), no handler came to an end", c.rid, out, end.err)
	case out == MayHaveExecuted && c.sends == 0:
		w.fail("C4: %s ends as %v (%v), it was never sent", c.rid, out, end.err)
	}
}

// handed tells whether the network took the last REQUEST of a call.
func (k *simBook) handed(c *simCall) bool {
	return c.link == nil || !c.link.peerOpen || c.link.unsent.len() == 0
}

// hears looks at what is about to be handed to a peer.
func (k *simBook) hears(l *simLink, f [][]byte) {
	if l.book.toldCaps || l.worker {
		return
	}
	if parseAtClient(f, &k.m) && k.m.op == opHello {
		l.book.toldCaps = true
	}
}
