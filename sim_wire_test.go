package omdp

import (
	"bytes"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// What the observer makes of what a broker says: dispatches as they are
// written, everything else as the network takes it.

// emitted takes a message that the core just wrote; only dispatches matter here.
func (k *simBook) emitted(b *simBroker, packed []byte) {
	l := k.w.linkOf(packed[8:13])
	if l == nil {
		return
	}
	m := &k.m
	wire := l.wire
	if p := b.d.peers[l.lis][l.id]; l.book.rude && p != nil && p.wire != nil {
		wire = p.wire
	}
	f := k.frames(packed)[1:]
	if !wire.parseAtWorker(f, m) || m.op != opRequest {
		if wire == wires[OMDP] || !parseAtWorker(f, m) || m.op != opRequest { // of a dialect that was not known yet
			return
		}
		l.book.vague = l.worker
	}
	k.dispatched(b, l, m)
}

// dispatched: I5, I7, I9 to I12, I14, of a dispatch as it is written.
func (k *simBook) dispatched(b *simBroker, l *simLink, m *message) {
	w := k.w
	if len(m.token) != tokenLen {
		w.fail("I7: a token of %d bytes", len(m.token))
	}
	for i := range k.toks {
		if bytes.Equal(k.toks[i].token[tokenIndexLen:], m.token[tokenIndexLen:]) {
			w.fail("I7: a token was used before")
		}
	}
	p := b.d.peers[l.lis][l.id]
	if p != nil && l.book.num == 0 {
		k.learn(b, l, p)
	}
	slot := 0
	for i := range tokenIndexLen {
		slot |= int(base64value[m.token[i]]) << (6 * i)
	}
	for slot >= len(b.book.slots) {
		b.book.slots = append(b.book.slots, -1)
	}
	n := int32(len(k.toks))
	k.toks = append(k.toks, simTok{inst: -1, link: l, num: l.book.num, heard: b.now()})
	t := &k.toks[n]
	if l.wire.opaque {
		t.form = int(n) % simForms
	}
	copy(t.token[:], m.token)
	b.book.slots[slot] = n
	l.book.held++
	ci := k.carries(m, func() int {
		for _, j := range k.open {
			if in := &k.insts[j]; in.b == b && in.tok < 0 && in.rid == string(m.rid) {
				return int(in.call)
			}
		}
		return -1
	})
	if ci < 0 {
		l.book.lastSeq = k.next()
		l.book.anySeq = l.book.lastSeq
		return // a raw peer's
	}
	c := &k.calls[ci]
	i := k.current(c, b)
	if c.twice {
		for _, j := range k.open {
			if in := &k.insts[j]; int(in.call) == ci && in.b == b && in.tok < 0 {
				if r := k.find(in); r != nil && r.slot != nil && r.slot.token == t.token {
					i = j
				}
			}
		}
	}
	if i >= 0 && m.rid != nil && k.insts[i].rid != string(m.rid) { // the one under its former id
		for _, j := range k.open {
			if in := &k.insts[j]; int(in.call) == ci && in.b == b && in.tok < 0 && in.rid == string(m.rid) {
				i = j
			}
		}
	}
	if i < 0 || m.rid != nil && k.insts[i].rid != string(m.rid) || k.insts[i].over {
		w.fail("I2: %s was dispatched, but b%d holds it no more", m.rid, b.num)
	}
	in := &k.insts[i]
	t.inst = i
	now := b.now()
	switch {
	case p == nil && !l.book.left && !l.book.unreach || l.book.drained:
		w.fail("%s was dispatched to a worker that is gone or leaves", c.rid)
	case in.tok >= 0:
		w.fail("%s was dispatched twice", c.rid)
	case in.partial:
		w.fail("I5: %s was dispatched after a partial", c.rid)
	case in.deadline <= now:
		w.fail("I11: %s was dispatched at %v, its deadline was %v", c.rid, now, in.deadline)
	}
	if !l.book.rude {
		if l.serves() != c.service {
			w.fail("I10: %s went to a worker of another service", c.rid)
		}
		if l.book.adv {
			k.extras(b, in, m)
		}
		k.dataArrives(c, l, m)
		if most := l.book.most; l.book.held > most && k.really(b, l) > most {
			w.fail("I9: %s was given %d requests at a time, it takes %d", l.id, l.book.held, most)
		}
		switch policy := w.conf.policies[int(c.service)%w.conf.services]; { // what is sticky is a matter of properties alone
		case in.more && w.conf.raws+w.conf.helpers > 0: // who is next may know no pieces
		case policy == LeastRecentlyUsed, policy == LeastLoaded && in.back:
			k.leastUsed(b, l, c)
		case policy == LeastLoaded:
			k.leastLoaded(b, l, c)
		}
	}
	k.fifo(b, i)
	k.turns(b, i)
	in.tok, in.undone, in.dispatched = n, false, true
	l.book.lastSeq = k.next()
	l.book.anySeq = l.book.lastSeq
}

// really counts what a worker has by the core: places that it did not beat for
// were freed.
func (k *simBook) really(b *simBroker, l *simLink) int {
	if p := b.d.peers[l.lis][l.id]; p != nil {
		l.book.held = p.held
	}
	return l.book.held
}

// extras: I11: the remaining time goes along, and which attempt it is.
func (k *simBook) extras(b *simBroker, in *simInst, m *message) {
	x, ok := parseExtra(m.extra)
	left := int64(-1)
	if in.deadline != never {
		left = max(int64((in.deadline-b.now())/time.Millisecond), 1)
	}
	switch {
	case !ok:
		k.w.fail("a dispatch without the extra frame")
	case x.remaining != left:
		k.w.fail("I11: %d ms are left, the worker is told %d", left, x.remaining)
	case x.attempt != in.asked:
		k.w.fail("attempt %d, the worker is told %d", in.asked, x.attempt)
	}
}

// leastUsed: I14: the least recently used free worker goes first.
func (k *simBook) leastUsed(b *simBroker, l *simLink, c *simCall) {
	if b.book.unsure { // peers have room again one after another, in this step
		return
	}
	for _, o := range b.book.links {
		if o == l || !o.book.worker || o.book.rude || o.book.drained || o.serves() != c.service {
			continue
		}
		if o.book.held < o.book.most && o.book.anySeq < l.book.lastSeq {
			if p := b.d.peers[o.lis][o.id]; p != nil && p.held == o.book.held && !p.backlog.blocked() && !p.resting && !p.unreachable && p.clearAt == 0 {
				k.w.fail("I14: %s got %s before %s, which was used longer ago", l.id, c.rid, o.id)
			}
		}
	}
}

// leastLoaded: the free worker with the fewest requests goes first, of those
// the one that was given one longest ago.
func (k *simBook) leastLoaded(b *simBroker, l *simLink, c *simCall) {
	had := l.book.held - 1
	if p := b.d.peers[l.lis][l.id]; b.book.unsure || p == nil || p.held != l.book.held {
		return
	}
	for _, o := range b.book.links {
		if o == l || !o.book.worker || o.book.rude || o.book.drained || o.serves() != c.service || o.book.held >= o.book.most {
			continue
		}
		if o.book.held < had || o.book.held == had && o.book.lastSeq < l.book.lastSeq {
			if p := b.d.peers[o.lis][o.id]; p != nil && p.held == o.book.held && !p.backlog.blocked() && !p.resting && !p.unreachable && p.clearAt == 0 {
				k.w.fail("I14: %s, which had %d, got %s before %s, which has %d", l.id, had, c.rid, o.id, o.book.held)
			}
		}
	}
}

// settled: after peers got room, or lost it, one after another in one step, the
// order of the free workers is not known any more.
func (k *simBook) settled(b *simBroker) {
	if !b.book.unsure {
		return
	}
	b.book.unsure = false
	seq := k.next()
	for _, l := range b.book.links {
		l.book.anySeq = seq
	}
}

// fifo: I12: in order for each client and service; I14a: what could not be
// sent goes before all others.
func (k *simBook) fifo(b *simBroker, i int32) {
	in := &k.insts[i]
	c := &k.calls[in.call]
	if first := b.book.undone[c.service]; first != i && first >= 0 {
		if o := &k.insts[first]; !o.over && o.tok < 0 && o.undone && k.queued(o) {
			k.w.fail("I14a: %s was dispatched before %s, which could not be sent", c.rid, o.rid)
		}
	}
	b.book.undone[c.service] = -1
	for _, j := range k.open {
		o := &k.insts[j]
		oc := &k.calls[o.call]
		if j == i || o.b != b || o.tok >= 0 || oc.service != c.service {
			continue
		}
		if o.link == in.link && o.num == in.num && o.acceptedSeq < in.acceptedSeq && !in.undone && k.queued(o) {
			k.w.fail("I12: %s was dispatched before %s, which is older", c.rid, oc.rid)
		}
	}
}

// turns: I12: between two dispatches of one client every other client that
// waits gets one.
func (k *simBook) turns(b *simBroker, i int32) {
	c := &k.calls[k.insts[i].call]
	waits := [simClients]bool{}
	for _, j := range k.open {
		o := &k.insts[j]
		if oc := &k.calls[o.call]; o.b == b && o.tok < 0 && j != i && oc.service == c.service && oc.client != c.client {
			waits[oc.client] = true
		}
	}
	skips := &b.book.skips[c.service]
	if l := k.insts[i].link; b.book.lastOf[c.client] != l { // for the core, on another connection it is another client
		b.book.lastOf[c.client] = l
		for o := range skips {
			skips[o][c.client] = 0
		}
	}
	skips[c.client] = [simClients]uint8{}
	for o := range waits {
		if !waits[o] {
			skips[o] = [simClients]uint8{}
			continue
		}
		if skips[o][c.client]++; skips[o][c.client] > 2 && k.reallyWaits(b, o, c.service) {
			k.w.fail("I12: client %d was given %d dispatches while client %d waited", c.client, skips[o][c.client], o)
		}
	}
}

func (k *simBook) reallyWaits(b *simBroker, client int, service byte) bool {
	for _, j := range k.open {
		if o := &k.insts[j]; o.b == b && k.calls[o.call].client == client && k.calls[o.call].service == service && k.queued(o) {
			return true
		}
	}
	return false
}

// unskip: who moves to the tail of a line starts to wait anew.
func (k *simBook) unskip(b *simBroker, c *simCall) {
	b.book.skips[c.service][c.client] = [simClients]uint8{}
}

// coreHas asks the core whether it holds an instance: where an end was written
// to a peer without room, the wire does not tell yet.
func (k *simBook) coreHas(in *simInst, any bool) bool {
	r := k.find(in)
	return r != nil && (any || r.queue != nil)
}

func (k *simBook) queued(in *simInst) bool { return k.coreHas(in, false) }

func (k *simBook) find(in *simInst) *request {
	d := in.b.d
	p := d.peers[in.link.lis][in.link.id]
	if p == nil || p.num != in.num {
		return nil
	}
	rid := append(k.w.ridBuf[:0], in.rid...)
	return d.requests.find(p, rid, d.requests.hash(p, rid))
}

// result is what became of one message that the broker wanted to send.
func (k *simBook) result(b *simBroker, l *simLink, packed []byte, s batch.Status, backlog bool) {
	f := k.frames(packed)[1:]
	m := &k.m
	worker := l.worker
	if l.book.rude {
		worker = len(f[0]) > 0 && (f[0][0] == 'W' || f[0][0] == batch.Mark && len(f[0]) > 5 && f[0][5] == 'W')
	}
	if worker && !l.wire.parseAtWorker(f, m) || !worker && !l.wire.parseAtClient(f, m) {
		switch {
		case l.book.rude:
			if m.op = opInvalid; !k.anyRequest(f) {
				return // what it speaks is not followed
			}
			worker = true
		case !l.book.rude && !l.book.vague || !parseAtWorker(f, m):
			k.w.fail("b%d says what nobody can read: %q", b.num, f)
		}
	}
	if (len(f) == 1 || m.op >= opHello) && !l.book.adv && !l.book.rude && l.book.num != 0 {
		k.w.fail("an extension was sent to %s, which did not advertise", l.id)
	}
	if s != batch.Sent || backlog {
		b.book.unsure = true
		l.book.anySeq = k.next() // its place in the line of free workers is not known any more
	}
	if worker && m.op == opCancel && string(m.cause) == causeStalled {
		l.book.anySeq = k.next() // its place was free from then on
	}
	switch s {
	case batch.Again:
		if m.op == opRequest {
			k.undone(b, l, m)
		}
		return
	case batch.Unreachable:
		l.book.unreach = true
		if m.op == opRequest {
			k.undone(b, l, m)
		}
		return
	}
	l.book.toldAt = b.now()
	switch {
	case worker && m.op == opDisconnect:
		k.disconnected(b, l)
	case !worker && m.op == opPartial, !worker && m.op == opReply:
		k.toClient(b, l, m)
	case !worker && m.op == opHeartbeat && m.rid == nil && l.wire == wires[OMDP] && !l.book.rude:
		k.w.fail("%s is told that the broker lives, and does not know what that is", l.id)
	case !worker && m.op == opHeartbeat && m.rid != nil:
		if ci := k.callByRID(l, m.rid); ci >= 0 && !l.book.rude {
			if i := k.at(ci, b, l); i < 0 || k.insts[i].terminal {
				k.w.fail("I2: a beat for %s, which is over", m.rid)
			}
		}
	}
}

// undone: I14a: a dispatch that could not be sent was no attempt.
func (k *simBook) undone(b *simBroker, l *simLink, m *message) {
	t := k.tokOf(b, m.token)
	if t == nil || t.done {
		return
	}
	t.done = true
	l.book.held--
	if t.inst < 0 {
		return
	}
	in := &k.insts[t.inst]
	in.tok, in.undone, in.dispatched = -1, true, false
	c := &k.calls[in.call]
	if !b.book.inBatch[c.service] { // the first of several stands before the others
		b.book.inBatch[c.service] = true
		b.book.undone[c.service] = t.inst
	}
	b.book.skips[c.service] = [simClients][simClients]uint8{}
}

// disconnected: an honest worker is told DISCONNECT for a reason only.
func (k *simBook) disconnected(b *simBroker, l *simLink) {
	if l.book.rude || l.book.left || b.book.draining || l.book.gone {
		return
	}
	if l.book.num != 0 && l.peer.running() {
		k.w.fail("%s was told DISCONNECT for nothing", l.id)
	}
}

// statusOf reads an error of the broker's own.
func statusOf(body [][]byte) (status []byte, executed byte) {
	const head = `{"status":"`
	if len(body) != 1 || !bytes.HasPrefix(body[0], []byte(head)) || bytes.Contains(body[0], []byte(`"msg"`)) {
		return nil, 0
	}
	b := body[0][len(head):]
	before, after, ok := bytes.Cut(b, []byte{'"'})
	if !ok {
		return nil, 0
	}
	if rest := after; len(rest) > 13 {
		executed = rest[len(`,"executed":`)]
	}
	return before, executed
}

// toClient: I1 to I4, of what a client is sent.
func (k *simBook) toClient(b *simBroker, l *simLink, m *message) {
	w := k.w
	ci, i := -1, int32(-1)
	status, executed := statusIn(l, m)
	tok, kind, n := -1, byte(0), 0
	if status == "" && !l.book.rude {
		tok, kind, n = k.wordIn(l, m)
	}
	switch {
	case l.wire.numbered:
		if ci = k.callByRID(l, m.rid); ci >= 0 {
			i = k.sentTo(ci, b, l)
		}
	case status != "":
		ci, i = k.unnumbered(b, l, string(m.service), status, executed)
	case tok >= 0 && k.toks[tok].inst >= 0:
		i = k.toks[tok].inst
		ci = int(k.insts[i].call)
	default:
		if ci = k.harmedOn(l); ci >= 0 {
			i = k.sentTo(ci, b, l)
		}
	}
	if ci < 0 {
		if !l.book.rude {
			w.fail("I1: %s was sent a reply to %s, which it did not ask: %q", l.id, m.rid, m.body)
		}
		return
	}
	if !l.wire.numbered {
		l.toldOf = append(l.toldOf, int32(ci))
	}
	c := &k.calls[ci]
	if status != "" {
		k.status(b, l, ci, i, status, executed)
		return
	}
	if i < 0 {
		w.fail("I1: %s was sent a reply to %s, which b%d does not have", l.id, c.rid, b.num)
	}
	in := &k.insts[i]
	if in.tok >= 0 && k.toks[in.tok].link.book.rude {
		c.harmed = true
		if m.op == opReply {
			in.terminal = true
			k.close(i)
		}
		return
	}
	switch {
	case tok < 0:
		w.fail("I6: %s was sent what nobody with a right to it said: %q", c.rid, m.body)
	case in.terminal && l.unsure && m.op == opPartial:
		t := &k.toks[tok]
		t.put++
		return
	case in.terminal:
		w.fail("I2: %s was sent something after its end", c.rid)
	case in.link != l || in.num != l.book.num && l.book.num != 0:
		w.fail("I1: a reply to %s went to %s, not to %s", c.rid, l.id, in.link.id)
	case in.tok != int32(tok):
		w.fail("I6: %s was sent what was said under the token of another dispatch", c.rid)
	}
	t := &k.toks[tok]
	switch {
	case n != t.put && l.wire.partials || (kind == 'p') != (m.op == opPartial):
		w.fail("I4: %s was sent %c%d after %d partials", c.rid, kind, n, t.put)
	case m.op == opPartial:
		t.put++
	default:
		in.reported, in.terminal = true, true
		k.close(i)
	}
}

// status: an error of the broker's own ends what has a reason to end, or
// answers what was refused.
func (k *simBook) status(b *simBroker, l *simLink, ci int, i int32, status string, executed byte) {
	w, c := k.w, &k.calls[ci]
	switch status {
	case statusLost:
		if l.book.owedEnd > 0 {
			l.book.owedEnd--
			return
		}
	case statusOverloaded, statusDuplicate, statusNoWorker, statusMalformed, statusDraining:
		if k.refused(ci, l, false) || (i < 0 || k.insts[i].over) && k.refused(ci, l, true) {
			return
		}
	}
	rude := i >= 0 && k.insts[i].tok >= 0 && k.toks[k.insts[i].tok].link.book.rude
	if status == statusProtocol && rude || w.conf.raws+w.conf.helpers > 0 && (status == statusTooLarge || status == statusForeign) && executed == 'f' {
		k.insts[i].terminal = true
		k.close(i)
		return
	}
	ends := status == statusRejected || status == statusTooLarge && !l.wire.partials || status == statusTimeout || status == statusWorkerLost || status == statusSlowClient || status == statusNoWorker || b.book.shut
	if i >= 0 && k.insts[i].over && k.insts[i].gone && !k.insts[i].terminal && ends { // written before its client was forgotten
		k.insts[i].terminal = true
		return
	}
	if !ends || i < 0 || k.insts[i].over || k.insts[i].link != l {
		w.fail("I2: %s was sent %s, it is owed none: i %d", c.rid, status, i)
	}
	in := &k.insts[i]
	if l.unsure { // as many as there are requests is all that can be told
		in.terminal = true
		k.close(i)
		return
	}
	tellsRan := l.wire == wires[OMDP] || l.wire.opaque
	if (executed == 'f' || !tellsRan) && in.tok >= 0 && k.toks[in.tok].skipped && k.toks[in.tok].got { // the worker said so; a later attempt may be accepted
		in.terminal = true
		k.close(i)
		return
	}
	switch {
	case executed == 'f' && in.dispatched:
		w.fail("C4: %s ended with %s as not executed, a worker has it", c.rid, status)
	case status == statusTimeout && b.now() < in.deadline:
		w.fail("I3: TIMEOUT of %s %v before its deadline", c.rid, in.deadline-b.now())
	case status == statusRejected && !in.rejected:
		w.fail("%s ended with %s, and was not handed back", c.rid, status)
	case status == statusTimeout && executed != 'f' && !in.dispatched && tellsRan:
		w.fail("C4: TIMEOUT of %s, which no worker had, is not told as not executed", c.rid)
	case status == statusWorkerLost && !(in.left && in.cause) && !k.lostCause(b, in):
		w.fail("W_ERROR of %s, whose worker is well", c.rid)
	}
	in.terminal = true
	k.close(i)
}

// What users get.

// partial: C3: in order, of one handler, the call's own.
func (k *simBook) partial(c *simCall, l *simLink, m *message) {
	if c.harmed {
		return
	}
	tok, kind, n := k.wordIn(l, m)
	switch {
	case c.ended:
		k.w.fail("C1: %s was given a partial after its end", c.rid)
	case tok < 0 || kind != 'p' || k.toks[tok].inst < 0 || &k.calls[k.insts[k.toks[tok].inst].call] != c:
		k.w.fail("C3: %s was given what is not its own: %q", c.rid, m.body)
	case c.tok >= 0 && c.tok != int32(tok):
		k.w.fail("C3: %s was given partials of two handlers", c.rid)
	case n != c.parts:
		k.w.fail("C3: %s was given partial %d after %d", c.rid, n, c.parts)
	}
	c.tok, c.parts = int32(tok), n+1
}

// final: C1, C3: once, after all the partials before it. It reports whether a handler said it.
func (k *simBook) final(c *simCall, l *simLink, m *message) bool {
	if c.ended {
		k.w.fail("C1: %s ended twice", c.rid)
	}
	if status, _ := statusIn(l, m); status != "" || c.harmed {
		return false
	}
	tok, kind, n := k.wordIn(l, m)
	switch {
	case tok < 0 || kind == 'p' || k.toks[tok].inst < 0 || &k.calls[k.insts[k.toks[tok].inst].call] != c:
		k.w.fail("C3: %s was given what is not its own: %q", c.rid, m.body)
	case n != c.parts || n > 0 && c.tok != int32(tok):
		k.w.fail("C3: %s was given a final after %d partials of %d", c.rid, c.parts, n)
	}
	return true
}
