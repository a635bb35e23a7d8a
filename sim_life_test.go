package omdp

import "time"

// Who is known to a broker, and in which windows of time things have to happen.

// learn notes that the core knows the peer at the other end of l.
func (k *simBook) learn(b *simBroker, l *simLink, p *peer) {
	l.book.num, l.book.gone = p.num, false
	l.book.heard, l.book.toldAt = b.now(), b.now()
	b.book.links = append(b.book.links, l)
}

// known looks at whom the core knows after a step; l is who was heard in it.
func (k *simBook) known(b *simBroker, l *simLink) {
	d := b.d
	if total := d.clients + d.workers; d.nextPeer != b.book.peers || total != b.book.total {
		b.book.peers, b.book.total = d.nextPeer, total
		n := 0
		for _, o := range b.book.links {
			if p := d.peers[o.lis][o.id]; p == nil || p.num != o.book.num {
				k.forgot(b, o)
			} else {
				b.book.links[n] = o
				n++
			}
		}
		b.book.links = b.book.links[:n]
	}
	if l != nil {
		k.meet(b, l)
	}
}

// meet notes what the core knows of who was just heard.
func (k *simBook) meet(b *simBroker, l *simLink) {
	p := b.d.peers[l.lis][l.id]
	if p == nil {
		return
	}
	if l.book.num == 0 {
		k.learn(b, l, p)
	}
	if p.num != l.book.num { // it was forgotten in this step, and is new
		return
	}
	if worker := p.role == roleWorker; worker != l.book.worker {
		l.book.worker, l.book.anySeq, l.book.lastSeq, l.book.held = worker, k.next(), 0, 0
		l.book.toldAt = b.now()
	}
}

// forgot: I17: a peer is forgotten for its silence, or because it can't be
// reached, left, or broke the rules; never early.
func (k *simBook) forgot(b *simBroker, l *simLink) {
	silence := b.now() - max(l.book.heard, b.mustOf)
	limit := l.book.told * time.Duration(k.w.conf.liveness)
	if l.book.told == 0 {
		limit = foreignLiveness
	}
	if silence < limit && !l.book.unreach && !l.book.left && !b.book.shut && !l.book.rude &&
		!(l.book.worker && b.d.stats.SlowClients != b.before.SlowClients) && !(l.book.worker && !l.book.adv && k.stuck(l)) {
		if b.mustOf > 0 && silence < limit {
			k.w.fail("I17, R3: %s is forgotten after %v of silence, the limit is %v", l.id, silence, limit)
		}
		k.w.fail("I17: %s is forgotten after %v of silence, the limit is %v", l.id, silence, limit)
	}
	if l.book.worker {
		for i := range k.toks {
			if t := &k.toks[i]; t.link == l && t.num == l.book.num && !t.got {
				t.done = true
			}
		}
	} else {
		if client := k.w.clientOf(l); client >= 0 { // for the core, who waits on another connection is another client
			for s := range b.book.skips {
				b.book.skips[s][client] = [simClients]uint8{}
			}
		}
		for j := len(k.open) - 1; j >= 0; j-- {
			if in := &k.insts[k.open[j]]; in.link == l && in.num == l.book.num && in.b == b {
				in.gone = true
				k.close(k.open[j])
			}
		}
		for j := range k.owed {
			k.owed[j].gone = k.owed[j].gone || k.owed[j].link == l
		}
	}
	lb := &l.book
	lb.num, lb.worker, lb.adv, lb.held, lb.gone, lb.owedEnd, lb.drained = 0, false, false, 0, true, 0, false
	lb.left, lb.unreach, lb.told = false, false, 0
}

// turned looks at the windows after a turn of the broker: nobody is kept
// longer than it may be, and everybody hears something every beat (I17, I18, I19).
func (k *simBook) turned(b *simBroker) {
	now, hb := b.now(), k.w.conf.hb
	const slack = time.Millisecond
	for _, l := range b.book.links {
		limit := l.book.told * time.Duration(k.w.conf.liveness)
		if l.book.rude || l.book.told == 0 && !l.book.worker {
			continue
		}
		if quiet := now - max(l.book.heard, b.graceOf); l.book.told > 0 && quiet > limit+hb+slack {
			k.w.fail("I17: %s is kept after %v of silence, the limit is %v", l.id, quiet, limit)
		}
		if !l.book.worker || !l.brokerOpen || l.void {
			continue
		}
		most := hb
		if l.wire.quiet { // a dispatch is as good, and the turn after it may be late
			most = 5 * hb / 2
		}
		if quiet := now - max(l.book.toldAt, b.graceOf); quiet > most+slack && l.down.len() < l.room {
			if p := b.d.peers[l.lis][l.id]; p != nil && !p.backlog.blocked() {
				k.w.fail("I18: %s was told nothing for %v", l.id, quiet)
			}
		}
	}
	stale := false
	for _, i := range k.open {
		in := &k.insts[i]
		if in.b != b {
			continue
		}
		if in.tok >= 0 {
			if t := &k.toks[in.tok]; !t.done && !t.got && t.link.book.told > 0 && !t.link.book.rude &&
				now-max(t.heard, b.graceOf) > t.link.book.told*time.Duration(k.w.conf.liveness)+hb+slack && k.coreHas(in, true) {
				k.w.fail("I19: nothing was heard of %s for %v and its worker keeps it", k.calls[in.call].rid, now-t.heard)
			}
		}
		if in.deadline <= now {
			stale = true
		}
	}
	if stale || b.d.requests.n-k.w.rudeRequests(b) != b.book.live {
		k.vanished(b)
	}
}

// vanished: I3: what the core holds no more had a terminal, unless its client
// is gone or has no room for it yet.
func (k *simBook) vanished(b *simBroker) {
	for j := len(k.open) - 1; j >= 0; j-- {
		i := k.open[j]
		in := &k.insts[i]
		if in.b != b {
			continue
		}
		if k.coreHas(in, true) {
			if in.deadline <= b.now() {
				k.w.fail("I3: %s lives after its deadline", k.calls[in.call].rid)
			}
			continue
		}
		if !k.mayVanish(in) {
			k.w.fail("I3: %s vanished from b%d without a terminal", k.calls[in.call].rid, b.num)
		}
		if !in.left { // its terminal waits for room
			in.left, in.cause = true, k.lostCause(b, in)
			p := b.d.peers[in.link.lis][in.link.id]
			in.untold = p != nil && p.backlog.slow && b.d.stats.Dropped > 0
		}
	}
}

// mayVanish: its terminal waits for room, its client was given up with it, or is
// so slow that it is told nothing more.
func (k *simBook) mayVanish(in *simInst) bool {
	p := in.b.d.peers[in.link.lis][in.link.id]
	return p == nil || p.num != in.num || p.backlog.blocked() || in.untold || in.link.book.rude
}

// brokerDied: what it held is nobody's any more.
func (k *simBook) brokerDied(b *simBroker) {
	for j := len(k.open) - 1; j >= 0; j-- {
		if k.insts[k.open[j]].b == b {
			k.close(k.open[j])
		}
	}
	for i := range k.toks {
		if t := &k.toks[i]; t.link.b == b {
			t.done = true
		}
	}
	for _, l := range b.book.links {
		lb := &l.book
		lb.num, lb.worker, lb.adv, lb.held, lb.gone, lb.owedEnd, lb.drained = 0, false, false, 0, true, 0, false
	}
	b.book.links = b.book.links[:0]
}

// canceled: the client wants it no more: it is owed nothing.
func (k *simBook) canceled(b *simBroker, l *simLink, m *message) {
	n := b.d.stats.Canceled - b.before.Canceled
	ci := k.callByRID(l, m.rid)
	if ci < 0 {
		if n > 0 && !l.book.rude {
			k.w.fail("I8: a cancel of nothing was counted")
		}
		return
	}
	i := k.at(ci, b, l)
	switch {
	case i < 0 || k.insts[i].over || k.insts[i].link != l:
		if n > 0 {
			k.w.fail("I8: a cancel of nothing, or of another's, was counted")
		}
	case n > 0:
		k.close(i)
	case k.coreHas(&k.insts[i], true):
		k.w.fail("a cancel of %s had no effect", m.rid)
	}
}

// lostCause: I19, I20: the worker is gone, or was silent about the request for long enough.
func (k *simBook) lostCause(b *simBroker, in *simInst) bool {
	if in.tok < 0 {
		return false
	}
	t := &k.toks[in.tok]
	if t.link.book.vague { // it could not read what it was given
		return true
	}
	if limit := foreignLiveness; t.link.book.told == 0 && !t.link.book.rude {
		heard := t.heard
		if !t.link.wire.beatsRequest {
			heard = max(heard, t.link.book.heard)
		}
		if most := k.w.conf.inProgress; most > 0 && (!t.link.wire.beatsRequest || k.w.conf.first == Auto) && b.now()-max(t.heard, b.mustOf) >= most {
			return true
		}
		if !t.done && t.num == t.link.book.num && b.now()-max(heard, b.mustOf) < limit {
			return false
		}
	}
	return t.done || t.num != t.link.book.num || t.link.book.num == 0 || t.link.book.rude ||
		b.now()-max(t.heard, b.mustOf) >= t.link.book.told*time.Duration(k.w.conf.liveness)
}
