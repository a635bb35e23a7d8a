package omdp

import (
	"fmt"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// simHelper is an honest worker of another dialect, or one of Node's that does
// not advertise. It knows of no cancel and no credit. Links and requests are as
// their dialect has them: what it is given while it works, and may take, it
// works on beside; its answers may come long after nobody wants them.
type simHelper struct {
	simProc
	num     int
	is      Dialect
	b       *simBroker
	service byte
	conc    int // of PIGATO's
	hb      time.Duration
	link    *simLink
	beatAt  instant
	redial  instant
	heard   instant
	welcome bool // READY was answered
	jobs    []simHelp
	out     batch.Out
	m       message
}

// simHelp is a request at a helper.
type simHelp struct {
	token, rid string
	tok, call  int32 // call: -1: a raw peer's
	script     uint16
	parts      int
	next       instant
	began      bool
}

func (h *simHelper) beat() time.Duration { return 0 }

func (h *simHelper) start() { h.link, h.jobs, h.redial = nil, h.jobs[:0], h.now() }

func (h *simHelper) die(kind int) {
	h.link, h.jobs = nil, h.jobs[:0]
	h.cutAll(kind)
}

func (h *simHelper) connected(*simLink) {}

func (h *simHelper) lost(l *simLink) {
	if h.link == l {
		h.link, h.jobs, h.redial = nil, h.jobs[:0], h.now()+h.hb/3
	}
}

func (h *simHelper) registered() bool {
	return h.link != nil && h.link.book.num != 0 && h.link.book.worker
}

func (h *simHelper) due() instant {
	if h.link == nil {
		return h.world(h.redial)
	}
	at := h.beatAt
	for i := range h.jobs {
		at = min(at, h.jobs[i].next)
	}
	return h.world(at)
}

func (h *simHelper) turn() {
	h.wakes(h.hb)
	now, wire := h.now(), wires[h.is]
	switch l := h.link; {
	case l == nil && now >= h.redial:
		h.link = h.w.dial(&h.simProc, h.b, true, 0, h.is)
		h.redial, h.heard, h.beatAt, h.welcome = never, now, now+h.hb, false
		wire.appendReady(&h.out, h.w.service(h.service))
		h.w.sends(h.link, &h.out)
		if h.is == PIGATO { // at once
			h.beats()
		}
	case l == nil:
	case now-max(h.heard, h.graceOf) > 20*h.hb:
		h.drop()
		return
	case now >= h.beatAt:
		h.beatAt = now + h.hb
		h.beats()
	}
	h.handlers()
}

func (h *simHelper) beats() {
	wire := wires[h.is]
	if !wire.beatsRequest || len(h.jobs) == 0 {
		wire.appendWorkerBeat(&h.out, h.conc, "", "")
	} else {
		for i := range h.jobs {
			wire.appendWorkerBeat(&h.out, h.conc, h.jobs[i].token, h.jobs[i].rid)
		}
	}
	h.w.sends(h.link, &h.out)
}

// drop gives the link up, and what came on it.
func (h *simHelper) drop() {
	l := h.link
	h.w.closeLink(l)
	h.lost(l)
}

func (h *simHelper) receive(l *simLink, f [][]byte) {
	if l != h.link {
		return
	}
	h.heard = h.now()
	if !l.wire.parseAtWorker(f, &h.m) {
		if !l.book.vague { // it came before the broker could know
			h.w.fail("%s got what it can't read: %q", h.name, f)
		}
		return
	}
	switch h.m.op {
	case opReady:
		h.welcome = true
	case opRequest:
		if l.wire.answers && !h.welcome {
			h.w.fail("%s is given a request before READY was answered", h.name)
		}
		h.takes(l, &h.m)
	case opDisconnect:
		h.drop()
	}
}

func (h *simHelper) takes(l *simLink, m *message) {
	book := &h.w.book
	j := simHelp{token: string(m.token), rid: string(m.rid), tok: -1, call: -1, next: h.now()}
	j.tok = book.given(m.token)
	tok := &book.toks[j.tok]
	if tok.run || tok.link != l {
		h.w.fail("K1: %s takes a REQUEST under a token that it took before, or that is another's", h.name)
	}
	tok.run = true
	if tok.inst >= 0 {
		j.call = book.insts[tok.inst].call
		j.script = book.calls[j.call].script
	}
	switch {
	case len(h.jobs) == 0:
	case h.is == OMDP: // as Node's, which drops it; nothing is heard of it
		return
	case l.wire.opaque && !h.w.loose:
		h.w.fail("I9: %s takes one at a time", h.name)
	}
	if h.is == PIGATO && !h.w.healing && (len(h.jobs) >= h.conc || j.script&7 == 5) {
		h.rejects(&j)
		return
	}
	h.jobs = append(h.jobs, j)
	h.handlers()
}

// rejects hands a request back.
func (h *simHelper) rejects(j *simHelp) {
	o := &h.out
	o.Begin()
	for _, f := range []string{"W", "7", j.token, "", j.rid} {
		o.FrameString(f)
	}
	o.End()
	h.w.book.toks[j.tok].final = true
	h.w.sends(h.link, o)
}

func (h *simHelper) handlers() {
	for i := 0; i < len(h.jobs) && h.link != nil; i++ {
		if j := &h.jobs[i]; j.next <= h.now() && h.step(j) && !h.down {
			h.jobs = append(h.jobs[:i], h.jobs[i+1:]...)
			i = -1
		}
	}
}

// step lets a handler act, and reports whether it is over.
func (h *simHelper) step(j *simHelp) bool {
	book := &h.w.book
	if !j.began {
		j.began = true
		if j.call >= 0 {
			c := &book.calls[j.call]
			if c.runs++; c.runs > 1 && !c.idem {
				h.w.fail("%s is not idempotent and runs twice", c.rid)
			}
			if c.ended && (c.outcome == NotSent || c.outcome == NotExecuted) && c.client < simTables {
				h.w.fail("C4: %s ended as %v and runs now", c.rid, c.outcome)
			}
		}
		if d := h.w.span([8]int{0, 0, 1, 2, 3, 5, 6, 8}[j.script&scriptDelay]); d > 0 {
			j.next = h.now() + d
			return false
		}
	}
	end := j.script & scriptEnd >> 5
	if end >= endNever && h.w.healing {
		end = endError
	}
	switch {
	case j.parts < int(j.script&scriptParts)>>3 && wires[h.is].partials:
		h.says(j, opPartial, 'p', saidValue)
		j.parts++
		book.toks[j.tok].said++
		j.next = h.now() + h.w.span([8]int{0, 0, 1, 2, 3, 5, 6, 8}[j.script&scriptDelay])/2
		return false
	case end == endNever && h.is == PIGATO && j.parts > 0 && j.script&scriptHard == 0:
		h.rejects(j)
	case end == endNever:
		j.next = never
		return false
	case end == endCrash:
		h.kill(j.parts, h.w.now+h.hb/3)
	case end == endError:
		h.ends(j, 'e', saidError)
	default:
		h.ends(j, 'f', saidValue)
	}
	return true
}

func (h *simHelper) ends(j *simHelp, kind byte, s said) {
	if j.call >= 0 {
		h.w.book.calls[j.call].ran++
	}
	h.w.book.toks[j.tok].final = true
	h.says(j, opReply, kind, s)
}

func (h *simHelper) says(j *simHelp, o op, kind byte, s said) {
	t := &h.w.book.toks[j.tok]
	word := fmt.Sprintf("t%04x%c%d", j.tok, kind, j.parts)
	m := message{op: o, token: []byte(j.token), rid: []byte(j.rid), said: s, code: t.code()}
	if m.body = simValue(word, asJSON, inFrames); s == saidValue {
		m.body = simValue(word, t.form, inFrames)
		if m.form = formJSON; wires[h.is].opaque {
			m.form = formLoose
		}
	}
	wires[h.is].appendResult(&h.out, &m)
	h.w.sends(h.link, &h.out)
}

// leaves says DISCONNECT, and comes again.
func (h *simHelper) leaves() {
	if h.link != nil && h.running() {
		wires[h.is].appendLeave(&h.out)
		h.w.sends(h.link, &h.out)
		h.drop()
	}
}
