package omdp

import (
	"fmt"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// simGuest is an honest client of another dialect. Where requests have no ids
// it asks one after another, or several at once, and takes what comes as theirs.
type simGuest struct {
	simProc
	num    int // in the book
	is     Dialect
	lis    int
	many   bool
	b      *simBroker
	link   *simLink
	hb     time.Duration
	beatAt instant
	redial instant
	heard  instant
	out    batch.Out
	m      message
	open   []int32 // calls that have not ended
}

func (g *simGuest) beat() time.Duration { return 0 }

func (g *simGuest) start() {
	g.link, g.open, g.redial = nil, g.open[:0], g.now()
}

func (g *simGuest) die(kind int) {
	g.link, g.open = nil, g.open[:0]
	g.cutAll(kind)
}

func (g *simGuest) connected(*simLink) {}

func (g *simGuest) lost(l *simLink) {
	if g.link == l {
		g.link, g.open = nil, g.open[:0]
		g.redial = g.now() + g.hb/3
	}
}

func (g *simGuest) due() instant {
	if g.link == nil {
		return g.world(g.redial)
	}
	return g.world(g.beatAt)
}

func (g *simGuest) turn() {
	g.wakes(g.hb)
	now := g.now()
	switch l := g.link; {
	case l == nil && now >= g.redial:
		g.link = g.w.dial(&g.simProc, g.b, false, g.lis, g.is)
		g.redial, g.heard, g.beatAt = never, now, now
		fallthrough
	case l != nil && now >= g.beatAt:
		g.beatAt = now + g.hb
		if wires[g.is].appendClientBeat(&g.out) {
			g.w.sends(g.link, &g.out)
		}
		if len(g.open) > 0 && now-max(g.heard, g.graceOf) > 20*g.hb { // as a user would
			l = g.link
			g.w.closeLink(l)
			g.lost(l)
		}
	}
}

// call asks for something.
func (g *simGuest) call(service byte, timeout time.Duration, script uint16) {
	w := g.w
	if g.link == nil || !g.running() || len(w.book.calls) >= len(simData) || !g.many && len(g.open) > 0 {
		return
	}
	n, wire := len(w.book.calls), wires[g.is]
	c := simCall{client: g.num, service: service, timeout: timeout, deadline: never, script: script}
	if wire.numbered {
		c.rid = simRIDs[g.num][n]
	}
	if wire.opaque {
		c.form = n % simForms
	}
	i := w.book.newCall(c)
	if len(g.open) == 0 {
		g.heard = g.now()
	}
	g.open = append(g.open, int32(i))
	m := message{}
	m.setBody(simValue(fmt.Sprintf("c%04x", i), c.form, inFrames))
	w.options = fmt.Appendf(w.options[:0], `{"timeout":%d,"retry":0}`, max(timeout.Milliseconds(), -1))
	if !wire.opaque {
		w.book.calls[i].options = string(w.options)
	}
	wire.appendAsk(&g.out, w.service(service), c.rid, m.data, w.options, m.form)
	w.sends(g.link, &g.out)
}

func (g *simGuest) receive(l *simLink, f [][]byte) {
	if l != g.link {
		return
	}
	m := &g.m
	if !l.wire.parseAtClient(f, m) {
		g.w.fail("%s got what it can't read: %q", g.name, f)
	}
	if m.op != opReply && m.op != opPartial {
		return
	}
	g.heard = g.now()
	book := &g.w.book
	ci := -1
	if l.wire.numbered {
		ci = book.callByRID(l, m.rid)
	} else if len(l.toldOf) > 0 {
		ci, l.toldOf = int(l.toldOf[0]), l.toldOf[1:]
	}
	if l.unsure && ci >= 0 && book.calls[ci].ended { // it took the end of another for its end
		if m.op == opPartial {
			return
		}
		ci = -1
		for _, i := range g.open {
			if g.w.service(book.calls[i].service) == string(m.service) {
				ci = int(i)
			}
		}
	}
	if ci < 0 || book.calls[ci].client != g.num || book.calls[ci].ended {
		g.w.fail("I2: %s got a reply to nothing", g.name)
	}
	c := &book.calls[ci]
	if !l.wire.numbered && string(m.service) != g.w.service(c.service) {
		g.w.fail("%s got a reply of the service %q", g.name, m.service)
	}
	if m.op == opPartial {
		book.partial(c, l, m)
		return
	}
	if l.wire.partials {
		book.final(c, l, m)
	}
	c.ended = true
	for n, i := range g.open {
		if int(i) == ci {
			g.open = append(g.open[:n], g.open[n+1:]...)
			return
		}
	}
}
