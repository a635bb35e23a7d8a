package omdp

import (
	"bytes"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// tableLink is what the table knows of the connection to one endpoint. It
// lives as long as the table; opened begins a fresh connection.
type tableLink struct {
	index    int
	group    int      // of the links to the same endpoint
	started  bool     // it was ever to be opened
	sole     *pending // the one request that is on it, in a dialect without ids
	spoiled  bool     // … was given up: the connection is of no more use
	trust    instant  // until when heardOf may be of the connection that it replaces
	onLink   int      // requests that are on it
	up       bool     // HELLO was taken: there is a connection
	heardOf  bool     // the broker said something on it
	armed    bool     // the broker told its interval: its silence means something
	extended bool     // … and so it understands the extensions
	packs    bool     // … and envelopes
	frame    int64    // … raw data and pieces, and takes frames of so many bytes; 0: none of this
	foreign  bool     // it had the time to tell, and did not
	leaving  bool     // the broker said that it is leaving
	broker   string   // its life; empty if it did not tell
	owed     []string // requests to cancel once the broker has answered
	hellos   int      // that were sent
	answers  int      // that came to them

	told     time.Duration // the broker's interval
	heard    instant
	nextBeat instant
	clock    clock
	alarm    instant // when the next turn is due
}

// maxOwed bounds the cancels that are kept for a broker that has not answered
// yet; a foreign one never does.
const maxOwed = 1000

// opened begins a connection, of which nothing is known yet. HELLO goes first.
func (t *pendingTable) opened(l *tableLink) {
	t.renew(l)
	t.choose()
}

// renew forgets the last connection, but for what is known of the broker if
// that one was given up for a request of its own.
func (t *pendingTable) renew(l *tableLink) {
	heard, trust := l.heardOf && !l.up, l.trust
	*l = tableLink{index: l.index, group: l.group, started: l.started, nextBeat: never, alarm: never, clock: l.clock, foreign: !t.wire.extends}
	if heard && !t.wire.numbered {
		l.heardOf, l.trust = true, trust
	}
}

// appendHello greets a broker.
func (t *pendingTable) appendHello(l *tableLink, out *batch.Out) {
	l.hellos++
	c := caps{V: 1, ID: t.life, HB: t.beat.Milliseconds(), Credit: t.window, Pack: max(t.pack, 1), Body: t.maxBody}
	if t.maxWindow > t.window {
		c.Grow = 1
	}
	appendHello(out, headerClient, &c)
}

// connected: HELLO was taken, so requests may follow.
func (t *pendingTable) connected(l *tableLink, now instant) {
	l.up, l.heard = true, now
	if t.wire.beats {
		l.nextBeat = now + t.beat
	}
	t.choose()
}

// choose picks the connection for new requests: the most preferred one whose
// broker answers, else the first that is there: a Node broker says nothing
// before it has something to say.
func (t *pendingTable) choose() {
	if !t.wire.numbered {
		t.choosePool()
		return
	}
	t.best = nil
	for i := range t.links {
		switch l := &t.links[i]; {
		case !l.up || l.leaving:
		case l.heardOf:
			t.best = l
			return
		case t.best == nil:
			t.best = l
		}
	}
}

// hears notes that the broker said something, and reports that it is known by
// that to be of another make: what waited to know may be sent.
func (t *pendingTable) hears(l *tableLink, now instant) (foreign bool) {
	l.heard = now
	if foreign = !l.extended && !l.foreign; foreign { // ours answers the greeting before all else
		l.foreign = true
	}
	if !l.heardOf {
		l.heardOf = true
		t.choose()
	}
	return foreign
}

// onHello: the broker understands the extensions; out gets what waited for
// that. Another life of it on the same connection (a proxy, a failover) knows
// nothing of what is in progress: then ok is false and the connection is to be
// given up. first tells that its silence counts from now on.
func (t *pendingTable) onHello(now instant, l *tableLink, c *caps, out *batch.Out) (first, ok bool) {
	if l.broker != "" && l.broker != c.ID {
		return false, false
	}
	l.answers++
	first = !l.extended
	l.broker, l.extended, l.packs, l.frame = c.ID, true, c.Pack > 0, min(c.Frame, maxCredit)
	l.armed, l.told = true, c.interval()
	// It speaks to an idle client only when asked, so it is asked at least that often.
	l.nextBeat = min(l.nextBeat, now+l.told)
	for _, rid := range l.owed {
		appendClientCommand(out, opCancel, rid)
	}
	l.owed = nil
	return first, true
}

// onDrain: the broker is leaving. What it has goes on; new requests go elsewhere.
func (t *pendingTable) onDrain(l *tableLink) {
	l.leaving = true
	t.choose()
}

// gone: a leaving broker has nothing of ours any more.
func (l *tableLink) gone() bool { return l.leaving && l.onLink == 0 }

// onReply takes a final or an error. It returns the request that ended with it,
// removed; nil and late for a request that is not on this connection; nil alone
// for one that is to be sent again. end is set if parsed, else it is for the
// caller to parse, without a lock.
func (t *pendingTable) onReply(now instant, l *tableLink, m *message) (p *pending, end reply, parsed, late bool) {
	p = t.of(l, m)
	if p == nil {
		return nil, reply{}, false, true
	}
	p.answered = true
	if m.said == saidStatus || m.said == saidNative && fromBroker(m.body) {
		end, parsed = replyOf(p.service, m), true
		// Beats go out behind a HELLO, and are answered behind the answer to that. So
		// LOST may still be about a beat for an attempt before this one.
		if end.status == statusLost && l.extended && l.answers <= p.hellos {
			return nil, reply{}, false, true
		}
		if e, ok := end.err.(*callError); ok && t.retry(now, p, end.status, e.outcome) {
			return nil, reply{}, false, false
		}
	}
	t.remove(p)
	return p, end, parsed, false
}

// fromBroker tells whether a payload may be an error of the broker's own.
func fromBroker(body [][]byte) bool {
	b := body[0]
	return len(body) == 1 && len(b) > 0 && (b[0] != '{' || bytes.HasPrefix(b, []byte(`{"status":"`)))
}

// onPartial returns the request of which a partial came, nil if it is late.
func (t *pendingTable) onPartial(now instant, l *tableLink, m *message) *pending {
	p := t.of(l, m)
	if p == nil {
		return nil
	}
	p.heard, p.partial, p.stirred = now, true, now
	return p
}

// onHeartbeat: "Broker MAY notify Client on Request dispatch to Worker", and
// "Worker MAY send heartbeat for active request. Broker forwards heartbeat to
// Client" look the same.
func (t *pendingTable) onHeartbeat(now instant, l *tableLink, m *message) {
	if m.rid == nil {
		l.armed = l.armed || t.wire.answers
		return
	}
	if p := t.find(m.rid); p != nil && p.link == l {
		p.heard, p.confirmed = now, true
	}
}

// interval is how often the broker is greeted.
func (t *pendingTable) interval(l *tableLink) time.Duration {
	if l.told > 0 {
		return min(t.beat, l.told)
	}
	return t.beat
}

// patience is how long the broker may be silent.
func (t *pendingTable) patience(l *tableLink) time.Duration {
	return lifeLimit(l.told, t.beat, t.liveness)
}

// turn does what is due on a connection at now and sets its alarm to when it
// is to be called again.
func (t *pendingTable) turn(now instant, l *tableLink, w *clientTurn) {
	l.clock.turn(now, l.alarm, t.beat)
	l.alarm = never
	if !l.up {
		t.doubt(now, l, w)
		return
	}
	if now >= l.nextBeat {
		l.nextBeat = now + t.interval(l)
		if !l.extended && !l.foreign && l.hellos > 0 {
			l.foreign, w.again = true, true
		}
		t.beats(now, l, w)
	}
	l.alarm = l.nextBeat
	if l.armed {
		end := l.clock.silentSince(l.heard) + t.patience(l)
		if w.lost = end <= now; !w.lost {
			l.alarm = min(l.alarm, end)
		}
	}
}

// beats lists the requests whose worker is told that somebody waits: those
// that have been out for a heartbeat ("Client MAY send heartbeat for active
// request"). A foreign broker does not look after requests in progress, so the
// client does: what a worker had and was not heard of for 15 s is taken for
// lost ("Client MAY decide to timeout an inactive Request").
func (t *pendingTable) beats(now instant, l *tableLink, w *clientTurn) {
	w.hello = true
	if !t.wire.extends {
		return
	}
	for p := t.first; p != nil; {
		next := p.next
		switch {
		case p.link != l:
		case !l.armed && p.confirmed && now-l.clock.silentSince(p.heard) > foreignLiveness:
			if t.again(now, p, MayHaveExecuted) {
				break
			}
			t.remove(p)
			w.silent = append(w.silent, p)
		case now-p.sent >= t.beat:
			w.beats = append(w.beats, p)
		}
		p = next
	}
}

// lost ends a connection, of which so many messages were sent. What was on it
// is removed and returned, oldest first, unless it is to be sent again; what
// was not sent waits for another connection.
func (t *pendingTable) lost(now instant, l *tableLink, sent uint64) (over []*pending) {
	l.up, l.leaving = false, false
	if l.heardOf = l.heardOf && l.spoiled; l.heardOf {
		l.trust = now + t.beat
	}
	t.choose()
	for p := t.first; p != nil; {
		next := p.next
		switch {
		case p.link != l:
		case p.seq >= sent:
			t.unlink(p)
		case !t.again(now, p, MayHaveExecuted):
			t.remove(p)
			over = append(over, p)
		}
		p = next
	}
	t.renew(l)
	return over
}
