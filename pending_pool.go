package omdp

import (
	"encoding/json"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// Other dialects than OMDP, as the table of a client knows them, pure.
//
// A dialect without request ids has one request at a time on a connection: what
// comes there is the answer to it. So there are several connections to each
// endpoint, opened as they are needed. One whose request was given up may still
// get its answer, which nobody could tell from that of the next one: it is
// spoiled, and a fresh one takes its place.

// choosePool picks a free connection to the most preferred endpoint whose broker
// answers, else to the first that is there.
func (t *pendingTable) choosePool() {
	t.best, t.group = nil, -1
	for i := range t.links {
		l := &t.links[i]
		if l.heardOf { // or the one that it replaces was
			t.group = l.group
			break
		}
		if l.up && t.group < 0 {
			t.group = l.group
		}
	}
	for i := range t.links {
		if l := &t.links[i]; l.group == t.group && l.up && l.sole == nil && !l.spoiled {
			t.best = l
			return
		}
	}
}

// waits tells whether a request may be sent now.
func (t *pendingTable) waits() bool {
	for range t.waiting {
		return true
	}
	return false
}

// wants gives a connection that is to be opened, as requests wait and those there
// are have one each; nil: none is. It is told once of each.
func (t *pendingTable) wants() *tableLink {
	if t.wire.numbered || t.best != nil || t.group < 0 {
		return nil
	}
	var fresh *tableLink
	opening := 0
	for i := range t.links {
		switch l := &t.links[i]; {
		case l.group != t.group:
		case !l.started:
			if fresh == nil {
				fresh = l
			}
		case !l.up || l.spoiled:
			opening++
		}
	}
	if fresh == nil || opening >= len(t.entries)-t.onLinks {
		return nil
	}
	fresh.started = true
	return fresh
}

// asked is a connection to the broker that new requests go to, nil if there is none.
func (t *pendingTable) asked() *tableLink {
	if t.best != nil || t.wire.numbered {
		return t.best
	}
	for i := range t.links {
		if l := &t.links[i]; l.group == t.group && l.up {
			return l
		}
	}
	return nil
}

// of gives the request that a message on l is about, nil for one that is not there.
func (t *pendingTable) of(l *tableLink, m *message) *pending {
	if !t.foreign || t.wire.numbered {
		if p := t.find(m.rid); p != nil && p.link == l {
			return p
		}
		return nil
	}
	if p := l.sole; p != nil && string(m.service) == p.service {
		return p
	}
	return nil
}

// leave takes p off l, where it was alone.
func (t *pendingTable) leave(p *pending, l *tableLink) {
	l.sole = nil
	l.spoiled = l.spoiled || !p.answered
	t.choose()
}

// greet is the first message of a connection, and comes again with each beat.
func (t *pendingTable) greet(l *tableLink, out *batch.Out) {
	if t.wire.extends {
		t.appendHello(l, out)
	} else if t.wire.appendClientBeat(out) {
		l.hellos++
	}
}

// ask writes the REQUEST of p, which is on l.
func (t *pendingTable) ask(p *pending, l *tableLink, now instant, out *batch.Out) {
	if !t.wire.numbered {
		l.sole = p
		t.choose()
	}
	data, f := p.data, formJSON
	switch {
	case p.raw && t.wire.opaque:
		f = formRaw
	case p.raw:
		t.text = appendBytes(t.text[:0], p.data)
		data = t.text
	}
	t.scratch = t.scratch[:0]
	if t.wire.numbered {
		t.scratch = appendAskOptions(t.scratch, p.deadline, now, t.wire.asks, p.meta)
	}
	t.wire.appendAsk(out, p.service, p.rid, data, t.scratch, f)
	t.dropText()
}

// appendAskOptions writes options as clients of other makes do: the timeout in
// ms, rounded up, is always there, -1 if there is none.
func appendAskOptions(b []byte, deadline, now instant, more string, meta map[string]string) []byte {
	ms := int64(-1)
	if deadline != never {
		ms = int64((max(deadline-now, 1) + time.Millisecond - 1) / time.Millisecond)
	}
	b = appendInt(append(b, `{"timeout":`...), ms)
	b = append(b, more...)
	if len(meta) > 0 {
		m, _ := json.Marshal(meta) // a map of strings marshals; the keys are sorted
		b = append(append(b, `,"meta":`...), m...)
	}
	return append(b, '}')
}

// doubt notes that a connection which replaces another one has not come about in
// time: who answered there may not be there any more.
func (t *pendingTable) doubt(now instant, l *tableLink, w *clientTurn) {
	switch {
	case !l.heardOf:
	case now < l.trust:
		l.alarm = l.trust
	default:
		l.heardOf, w.doubts = false, true
		t.choose()
	}
}
