package omdp

import (
	"bytes"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Peers of other dialects in the simulator: what they are, and what becomes of a
// value on its way between two of them.

// simListeners: the first is everybody's whose dialect can be told there; the
// others are for one dialect each, by its number.
const simListeners = int(MDP01) + 1

// simDialects is who of other dialects is in a scene.
type simDialects struct {
	listeners  int
	first      Dialect // of the first listener, where all workers are
	guests     int
	guestIs    [simGuests]Dialect
	guestAt    [simGuests]int  // listener
	guestMany  [simGuests]bool // it asks again before it was answered
	helpers    int
	helperIs   [simHelpers]Dialect
	drop       bool          // partials towards clients that have none
	inProgress time.Duration // at workers that do not beat for requests; 0: no limit
}

// dialects reads them from the head of a history; half of the scenes have none.
func (c *simConf) dialects() {
	h := mix64(c.head + 9)
	next := func(n uint64) int {
		v := h % n
		h /= n
		return int(v)
	}
	c.listeners, c.first = 1, OMDP
	if next(2) == 0 {
		return
	}
	c.listeners = simListeners
	c.first = [...]Dialect{Auto, Auto, Auto, OMDP, OMDPFinal, PIGATO}[next(6)]
	c.helpers, c.guests = next(simHelpers+1), next(simGuests+1)
	for i := range c.helpers {
		if c.helperIs[i] = c.first; c.first == Auto {
			c.helperIs[i] = [...]Dialect{OMDP, OMDPFinal, PIGATO, MDP02, MDP01}[next(5)]
		}
	}
	for i := range c.guests {
		x := [...]Dialect{OMDPFinal, PIGATO, MDP02, MDP01}[next(4)]
		c.guestIs[i], c.guestAt[i], c.guestMany[i] = x, int(x), x < MDP02 || next(2) == 0
		if next(2) == 0 && (c.first == x || c.first == Auto && x >= MDP02) {
			c.guestAt[i] = 0
		}
	}
	c.drop = next(4) == 0
	c.inProgress = [...]time.Duration{0, 0, 8 * time.Second}[next(3)]
}

func (w *simWorld) listen(d *dispatcher) {
	for i := range d.dialects {
		d.dialects[i] = Dialect(i)
	}
	d.dialects[0] = w.conf.first
}

// listener is where clients of OMDP are served: those that advertise, everywhere.
func (w *simWorld) listener(adv bool) int {
	if adv || w.conf.first == Auto || w.conf.first == OMDP {
		return 0
	}
	return int(OMDP)
}

// serves tells which service a link's worker is for.
func (l *simLink) serves() byte {
	switch h := l.peer.host.(type) {
	case *simWorker:
		return h.service
	case *simHelper:
		return h.service
	}
	return 0
}

// Forms of a value, as peers say it whose bodies are frames that may be anything.
const (
	asJSON   = iota
	asBytes  // no JSON and no text
	asText   // no JSON
	asFrames // several
	simForms
)

// sight is how a value is seen at its end.
type sight uint8

const (
	inJSON   sight = iota
	inRaw          // JSON, or bytes
	inFrames       // as it was said
)

// simValue is the value of a word in a form, as a sight has it.
func simValue(word string, form int, s sight) [][]byte {
	switch form {
	case asBytes:
		return [][]byte{simBytes(word+"\xff\x00", s)}
	case asText:
		return [][]byte{simBytes(word+" \" x", s)}
	case asFrames:
		if s == inFrames {
			return [][]byte{[]byte(`"` + word + `"`), []byte(word + "\xff"), {}}
		}
		return [][]byte{fmt.Appendf(nil, `["%s",%s,""]`, word, simBytes(word+"\xff", inJSON))}
	}
	return [][]byte{[]byte(`"` + word + `"`)}
}

// simBytes is what becomes of bytes that are no JSON.
func simBytes(b string, s sight) []byte {
	switch {
	case s != inJSON:
		return []byte(b)
	case utf8.ValidString(b):
		return []byte(`"` + strings.ReplaceAll(b, `"`, `\"`) + `"`)
	}
	n := []string{}
	for _, c := range []byte(b) {
		n = append(n, fmt.Sprint(c))
	}
	return []byte(`{"type":"Buffer","data":[` + strings.Join(n, ",") + `]}`)
}

// plainWord finds what a value begins with, whatever became of it.
func plainWord(b []byte) string {
	for {
		switch {
		case len(b) > 1 && b[0] == '[':
			b = b[1:]
		case len(b) > 0 && b[0] == '{':
			p, _ := parseBuffer(b)
			return string(p)
		case len(b) > 0 && b[0] == '"':
			return string(b[1:])
		default:
			return string(b)
		}
	}
}

func sameFrames(a, b [][]byte) bool {
	return len(a) == len(b) && func() bool {
		for i := range a {
			if !bytes.Equal(a[i], b[i]) {
				return false
			}
		}
		return true
	}()
}

// sees is how the peer of a link sees values.
func (l *simLink) sees() sight {
	switch {
	case l.wire.opaque:
		return inFrames
	case l.speaksRaw():
		return inRaw
	}
	return inJSON
}

// speaksRaw tells whether a peer advertises, and, a worker, that it reads raw data.
func (l *simLink) speaksRaw() bool {
	switch h := l.peer.host.(type) {
	case *simClient:
		return true
	case *simPlain:
		return h.adv
	case *simWorker:
		return h.w.conf.frame > 0
	}
	return false
}

// dataFrames are the frames of a request's data.
func (m *message) dataFrames() [][]byte {
	if m.form == formFrames {
		return unpackFrames(m.data, nil)
	}
	return [][]byte{m.data}
}

// dataArrives: what a worker is given is what the client sent.
func (k *simBook) dataArrives(c *simCall, l *simLink, m *message) {
	if m.service != nil && string(m.service) != k.w.service(c.service) {
		k.w.fail("%s is told that %s is for %q", l.id, c.rid, m.service)
	}
	if c.options != "" && l.wire.options && string(m.options) != c.options {
		k.w.fail("%s is sent the options of %s as %s, want %s", l.id, c.rid, m.options, c.options)
	}
	if m.pieces {
		return
	}
	if want := simValue(fmt.Sprintf("c%04x", c.n), c.form, l.sees()); !sameFrames(m.dataFrames(), want) {
		k.w.fail("%s is sent the data of %s as %q, want %q", l.id, c.rid, m.dataFrames(), want)
	}
}

// wordIn reads a handler's word out of a PARTIAL or REPLY that l's peer is sent.
func (k *simBook) wordIn(l *simLink, m *message) (tok int, kind byte, n int) {
	if m.said == saidNative {
		if tok, kind, n = k.bodyOf(m.body); tok >= 0 && k.toks[tok].form == asJSON {
			return tok, kind, n
		}
	}
	v := *m
	v.saysOf()
	if v.said == saidStatus {
		return -1, 0, 0
	}
	if tok, kind, n = k.wordOf(plainWord(v.body[0])); tok < 0 {
		return tok, kind, n
	}
	t := &k.toks[tok]
	word := fmt.Sprintf("t%04x%c%d", tok, kind, n)
	form := t.form
	if v.said == saidError {
		if form = asJSON; v.code != t.code() {
			k.w.fail("an error of code %s arrives as %s: %q", t.code(), v.code, m.body)
		}
	}
	if (kind == 'e') != (v.said == saidError) {
		k.w.fail("an error arrives as a value, or a value as an error: %q", m.body)
	}
	want := simValue(word, form, l.sees())
	if l.wire == wires[MDP01] && v.said == saidValue {
		if want = nil; !k.w.conf.drop {
			for i := range t.took {
				want = append(want, simValue(fmt.Sprintf("t%04xp%d", tok, i), form, inFrames)...)
			}
		}
		n = t.took
		kind = 'f'
		want = append(want, simValue(fmt.Sprintf("t%04xf%d", tok, n), form, inFrames)...)
	}
	unknown := l.book.gone || !l.book.adv || t.inst >= 0 && !k.insts[t.inst].adv
	if unknown && l.speaksRaw() && sameFrames(v.body, simValue(word, form, inJSON)) { // said while it was not known to read more
		return tok, kind, n
	}
	if !sameFrames(v.body, want) {
		k.w.fail("%s is sent %q, want %q", l.id, v.body, want)
	}
	return tok, kind, n
}

// code is the code of the errors that are said under a token, as JSON.
func (t *simTok) code() string {
	if _, ok := t.link.peer.host.(*simHelper); ok && t.token[tokenIndexLen]&1 == 0 {
		return [...]string{"418", `"TEAPOT"`}[t.token[tokenIndexLen]>>1&1]
	}
	return "500"
}

// wordOf reads a handler's word: t0001p2….
func (k *simBook) wordOf(s string) (tok int, kind byte, n int) {
	if len(s) < 7 || s[0] != 't' {
		return -1, 0, 0
	}
	for i := 1; i < 5; i++ {
		v := hexValue(s[i])
		if v < 0 {
			return -1, 0, 0
		}
		tok = tok<<4 | v
	}
	if tok >= len(k.toks) {
		return -1, 0, 0
	}
	return tok, s[5], int(s[6] - '0')
}

// statusIn reads an error of the broker's own, as l's peer is told it.
func statusIn(l *simLink, m *message) (status string, executed byte) {
	switch {
	case m.said == saidNative:
		s, e := statusOf(m.body)
		return string(s), e
	case m.said == saidStatus:
		if len(m.executed) > 0 {
			executed = m.executed[0]
		}
		return m.code, executed
	case m.said == saidError && m.code == "500" && !l.wire.opaque:
		if s, ok := unquote(m.body[0]); ok && statuses[string(s)].err != nil {
			return string(s), 0
		}
	}
	return "", 0
}

// unnumbered finds whose end a status is, that names no request.
func (k *simBook) unnumbered(b *simBroker, l *simLink, service, status string, executed byte) (ci int, i int32) {
	switch status {
	case statusOverloaded, statusDuplicate, statusNoWorker, statusMalformed, statusDraining:
		for _, o := range k.owed {
			if o.link == l && !o.gone && k.w.service(k.calls[o.call].service) == service {
				return o.call, -1
			}
		}
	}
	found := int32(-1)
	for i := range k.insts {
		in := &k.insts[i]
		if in.b != b || in.link != l || in.terminal || in.final && !(in.tok >= 0 && k.toks[in.tok].skipped) || k.coreHas(in, true) || k.w.service(k.calls[in.call].service) != service {
			continue
		}
		l.unsure = l.unsure || found >= 0
		if found < 0 || k.suits(b, &k.insts[found], status, executed) < k.suits(b, in, status, executed) {
			found = int32(i)
		}
	}
	if found < 0 {
		return -1, -1
	}
	return int(k.insts[found].call), found
}

// suits tells how well a status is an end of in.
func (k *simBook) suits(b *simBroker, in *simInst, status string, executed byte) int {
	switch {
	case (executed == 'f') == in.dispatched, (status == statusRejected) != in.rejected:
		return 0
	case status == statusTimeout && in.deadline > b.now():
		return 0
	case status == statusWorkerLost && !(in.left && in.cause) && !k.lostCause(b, in):
		return 0
	case in.gone:
		return 1
	}
	return 2
}

// rejected: the worker hands a request back: it goes to the end of its client's queue.
func (k *simBook) rejected(b *simBroker, l *simLink, m *message) {
	t := k.tokOf(b, m.token)
	took := b.d.stats.Rejected != b.before.Rejected
	if t == nil || t.link != l || t.num != l.book.num && l.book.num != 0 {
		if took {
			k.w.fail("I6: what a worker does not hold was handed back")
		}
		return
	}
	if !t.got && !t.done {
		l.book.held--
		l.book.anySeq = k.next()
	}
	current := t.inst >= 0 && k.insts[t.inst].tok == k.tokIndex(b, t) && !t.got && !t.done
	t.got, t.done = true, true
	if !current {
		return
	}
	in := &k.insts[t.inst]
	if in.over {
		return
	}
	if !took {
		if l.book.rude || !k.coreHas(in, true) { // its end waits for room, its place was given up
			return
		}
		k.w.fail("%s was handed back, and nothing became of it", in.rid)
	}
	if !k.coreHas(in, true) && (in.left || b.book.requests == b.d.requests.n) { // it had ended before
		return
	}
	in.rejected = !k.coreHas(in, true) // as often as there are workers, or after a partial; or something else ended it
	if in.partial {
		if !in.rejected {
			k.w.fail("I5: %s was queued again after a partial", in.rid)
		}
		return
	}
	in.tok, in.dispatched, in.acceptedSeq, in.back = -1, false, k.next(), true
	k.unskip(b, &k.calls[in.call])
}

// helped notes what the core makes of workers of other dialects, of whose
// places the wire tells less.
func (k *simBook) helped(b *simBroker) {
	if k.w.conf.helpers == 0 {
		return
	}
	for _, l := range b.book.links {
		if _, ok := l.peer.host.(*simHelper); !ok || !l.book.worker {
			continue
		}
		if p := b.d.peers[l.lis][l.id]; p != nil && (p.held != l.book.held || (p.clearAt > 0) != l.book.unclear) {
			l.book.held, l.book.unclear, l.book.anySeq = p.held, p.clearAt > 0, k.next()
		}
	}
}

// stuck tells whether a worker that takes one request at a time holds one that
// is over: it has to start anew, if that lasts.
func (k *simBook) stuck(l *simLink) bool {
	for i := range k.toks {
		if t := &k.toks[i]; t.link == l && !t.got && (t.inst < 0 || k.insts[t.inst].over || !k.coreHas(&k.insts[t.inst], true)) {
			return true
		}
	}
	return false
}

// harmedOn finds a call of a client without ids whose worker is a hostile peer.
func (k *simBook) harmedOn(l *simLink) int {
	for i := range k.insts {
		if in := &k.insts[i]; in.link == l && !in.terminal && in.tok >= 0 && k.toks[in.tok].link.book.rude && (k.toks[in.tok].got || k.calls[in.call].harmed) {
			return int(in.call)
		}
	}
	return -1
}

// cleared: who has shown its dialect joins the end of the line of free workers.
func (k *simBook) cleared(b *simBroker) {
	if k.w.conf.helpers == 0 {
		return
	}
	for _, l := range b.book.links {
		if p := b.d.peers[l.lis][l.id]; p != nil && l.book.unclear && p.clearAt == 0 {
			l.book.unclear, l.book.anySeq = false, k.next()
		}
	}
}

// given finds a dispatch by its token, whose place may be another's by now.
func (k *simBook) given(token []byte) int32 {
	for i := len(k.toks) - 1; i >= 0; i-- {
		if string(k.toks[i].token[:]) == string(token) {
			return int32(i)
		}
	}
	k.w.fail("a request is given under a token that nobody has: %q", token)
	return -1
}

// anyRequest reads a dispatch, in whatever dialect it is.
func (k *simBook) anyRequest(f [][]byte) bool {
	for _, w := range wires[1:] {
		if w.parseAtWorker(f, &k.m) && k.m.op == opRequest {
			return true
		}
	}
	return false
}
