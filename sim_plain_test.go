package omdp

import (
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// simPlain is an honest client without a table: one that advertises, or one as
// Node's, that does not. It takes what comes, once for each request.
type simPlain struct {
	simProc
	num    int // in the book
	b      *simBroker
	link   *simLink
	hb     time.Duration
	adv    bool
	beatAt instant // by its clock
	redial instant
	heard  instant
	out    batch.Out
	m      message
	open   []int32 // calls that have not ended
}

func (p *simPlain) beat() time.Duration {
	if p.adv {
		return p.hb
	}
	return 0
}

func (p *simPlain) start() {
	p.link, p.open, p.redial = nil, p.open[:0], p.now()
}

func (p *simPlain) die(kind int) {
	p.link, p.open = nil, p.open[:0]
	p.cutAll(kind)
}

func (p *simPlain) dial() {
	p.link = p.w.dial(&p.simProc, p.b, false, p.w.listener(p.adv), OMDP)
	p.redial, p.heard = never, p.now()
	p.hello()
	p.beatAt = p.now() + p.hb
}

func (p *simPlain) hello() {
	if p.adv {
		appendHello(&p.out, headerClient, &caps{V: 1, ID: simClientLives[p.num], HB: p.hb.Milliseconds(), Credit: p.w.conf.credit, Pack: 1})
	} else {
		appendClientCommand(&p.out, opHeartbeat, "")
	}
	p.w.sends(p.link, &p.out)
}

var simClientLives = [...]string{"life-of-client-0------", "life-of-client-1------", "life-of-client-2------", "life-of-client-3------"}

func (p *simPlain) connected(*simLink) {}

func (p *simPlain) lost(l *simLink) {
	if p.link == l {
		p.link, p.open = nil, p.open[:0]
		p.redial = p.now() + p.hb/3
	}
}

func (p *simPlain) due() instant {
	if p.link == nil {
		return p.world(p.redial)
	}
	return p.world(p.beatAt)
}

func (p *simPlain) turn() {
	p.wakes(p.hb)
	now := p.now()
	switch l := p.link; {
	case l == nil && now >= p.redial:
		p.dial()
	case l == nil:
	case now-max(p.heard, p.graceOf) > 20*p.hb: // as a user would
		p.w.closeLink(l)
		p.lost(l)
	case now >= p.beatAt:
		p.beatAt = now + p.hb
		p.hello()
		for _, i := range p.open {
			appendClientCommand(&p.out, opHeartbeat, p.w.book.calls[i].rid)
		}
		p.w.sends(l, &p.out)
	}
}

// call asks for something.
func (p *simPlain) call(service byte, timeout time.Duration, script uint16) {
	if p.link == nil || !p.running() || len(p.w.book.calls) >= len(simRIDs[0]) {
		return
	}
	w := p.w
	n := len(w.book.calls)
	i := w.book.newCall(simCall{client: p.num, rid: simRIDs[p.num][n], service: service, timeout: timeout, deadline: never, script: script})
	if len(p.open) == 0 { // the broker had no reason to say anything
		p.heard = p.now()
	}
	p.open = append(p.open, int32(i))
	w.options, _ = appendOptions(w.options[:0], options{timeout: timeout, key: w.key(i)}, nil)
	w.book.calls[i].options = string(w.options)
	p.out.Pack = false
	appendClientRequest(&p.out, w.service(service), w.book.calls[i].rid, w.data(i), w.options, "")
	w.sends(p.link, &p.out)
}

func (p *simPlain) cancel(n int) {
	if p.link == nil || len(p.open) == 0 || !p.adv || !p.running() {
		return
	}
	n %= len(p.open)
	appendClientCommand(&p.out, opCancel, p.w.book.calls[p.open[n]].rid)
	p.drop(n)
	p.w.sends(p.link, &p.out)
}

func (p *simPlain) drop(n int) {
	p.w.book.calls[p.open[n]].ended = true
	p.open[n] = p.open[len(p.open)-1]
	p.open = p.open[:len(p.open)-1]
}

func (p *simPlain) receive(l *simLink, f [][]byte) {
	if l != p.link {
		return
	}
	if !parseAtClient(f, &p.m) {
		p.w.fail("%s got what it can't read", p.name)
	}
	p.heard = p.now()
	m := &p.m
	for n, i := range p.open {
		c := &p.w.book.calls[i]
		if c.rid != string(m.rid) {
			continue
		}
		switch m.op {
		case opPartial:
			p.w.book.partial(c, l, m)
			if p.adv && p.w.conf.credit > 0 { // read at once
				appendClientCredit(&p.out, c.rid, simPartial, 0)
				p.w.sends(l, &p.out)
			}
		case opReply:
			p.w.book.final(c, l, m)
			p.drop(n)
		}
		return
	}
}
