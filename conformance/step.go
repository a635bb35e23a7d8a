package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// span is the time that a step gives.
func (x *exchange) span(s *step) time.Duration {
	return s.time.of(x.beatEvery, x.Driver.Expiry())
}

// limit is until when an answer may take.
func (x *exchange) limit(s *step) time.Time {
	d := x.Patience + x.Driver.Expiry()
	if s.time != (span{}) {
		d = x.span(s)
	}
	return time.Now().Add(d)
}

// step does one step; want is empty if all is well.
func (x *exchange) step(s *step) (want, got string) {
	switch s.verb {
	case "start":
		if err := x.start(); err != nil {
			return "what is under test starts", err.Error()
		}
		return "", ""
	case "stop":
		if err := x.subject.Stop(); err != nil {
			return "what is under test stops", err.Error()
		}
		return "", ""
	case "call":
		if err := x.subject.Call(s.peer, s.value, x.span(s)); err != nil {
			return "a call begins", err.Error()
		}
		return "", ""
	case "partial", "final", "error":
		return x.outcome(s)
	}
	if s.peer == "others" {
		if p := x.hub.adopt(x.limit(s)); p != nil {
			return "no further peer", show(p.in.take())
		}
		return "", ""
	}
	p, err := x.peer(s)
	if err != nil {
		return "a peer " + s.peer, err.Error()
	}
	return x.talk(p, s)
}

// peer is the one with a name: it is there, or is opened or waited for.
func (x *exchange) peer(s *step) (p *peer, err error) {
	if p = x.peers[s.peer]; p != nil {
		return p, nil
	}
	if x.hub == nil {
		p, err = dial(s.peer, x.subject.Endpoint(), x.received)
	} else if p = x.hub.adopt(x.limit(s)); p == nil {
		err = fmt.Errorf("none has connected and said something")
	}
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	p.name, x.peers[s.peer] = s.peer, p
	return p, nil
}

// talk does a step that is about one peer.
func (x *exchange) talk(p *peer, s *step) (want, got string) {
	switch s.verb {
	case ">":
		return x.say(p, s)
	case "<":
		return x.expect(p, s)
	case "quiet":
		return x.quiet(p, s, time.Now().Add(x.span(s)), false)
	case "none":
		grace := time.Now().Add(x.beatEvery / 2)
		if want, got = x.quiet(p, s, grace, false); want == "" {
			want, got = x.quiet(p, s, time.Now().Add(x.span(s)), true)
		}
		return want, got
	case "hush":
		return x.hush(p, s)
	case "mute":
		p.set(nil)
	case "beats":
		m, err := fillAll(s.frames, x.vars)
		if err != nil {
			return "a message", err.Error()
		}
		p.set(m)
	case "skip":
		p.skip = append(p.skip, s.frames)
	case "strict":
		p.strict = true
	case "close":
		p.leave()
		if p.shut == nil {
			return "a socket of the kit's own", "it is the subject's"
		}
		p.shut()
	case "gone":
		if !x.hub.gone(p, wires[x.script.Dialects[0]].beat, x.limit(s)) {
			return "the peer has closed its socket", "it can still be reached"
		}
	}
	return "", ""
}

func (x *exchange) say(p *peer, s *step) (want, got string) {
	m, err := fillAll(s.frames, x.vars)
	if err != nil {
		return "a message", err.Error()
	}
	x.note(p, ">", m)
	p.say(m, func() { x.follow(p, m, x.hub == nil) })
	return "", ""
}

// expect waits for a message.
func (x *exchange) expect(p *peer, s *step) (want, got string) {
	want = showFrames(s.frames, x.vars)
	deadline := x.limit(s)
	for {
		m := p.in.next(deadline)
		if m != nil && x.matched != nil && matchAll(s.frames, m, maps.Clone(x.vars)) {
			x.matched(x, s, m)
		}
		switch {
		case m == nil:
			return want, "nothing"
		case matchAll(s.frames, m, x.vars):
			return "", ""
		case !x.skips(p, m):
			return want, show(m)
		}
	}
}

// skips tells whether a message may come at any time.
func (x *exchange) skips(p *peer, m []string) bool {
	match := func(f []frame) bool { return matchAll(f, m, maps.Clone(x.vars)) }
	return !p.strict && slices.ContainsFunc(x.skip, match) || slices.ContainsFunc(p.skip, match)
}

// quiet fails with what comes before the deadline; strictly, with heartbeats as well.
func (x *exchange) quiet(p *peer, s *step, deadline time.Time, strictly bool) (want, got string) {
	for {
		m := p.in.next(deadline)
		switch {
		case m == nil:
			return "", ""
		case strictly:
			return "nothing at all", show(m)
		case !x.skips(p, m):
			return "nothing but heartbeats", show(m)
		}
	}
}

// hush waits until nothing comes for a while.
func (x *exchange) hush(p *peer, s *step) (want, got string) {
	d := x.span(s)
	over := time.Now().Add(x.Patience + x.Driver.Expiry() + d)
	for time.Now().Before(over) {
		m := p.in.next(time.Now().Add(d))
		if m == nil {
			return "", ""
		}
		got = show(m)
	}
	return fmt.Sprintf("nothing for %v", d), got
}

// outcome waits for the next thing that a call of the client under test gives.
func (x *exchange) outcome(s *step) (want, got string) {
	want = strings.TrimSpace(s.verb + " " + s.value)
	kind, value, err := x.subject.Next(s.peer, time.Now().Add(x.Patience+x.Driver.Expiry()))
	if err != nil {
		return want, err.Error()
	}
	if kind == s.verb && (kind == "error" || sameJSON(value, s.value)) {
		return "", ""
	}
	return want, kind + " " + value
}

func sameJSON(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return a == b
	}
	return reflect.DeepEqual(x, y)
}
