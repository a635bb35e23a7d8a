package omdp

import "time"

// What the events of a history do.

func (w *simWorld) play(choices []choice) {
	for _, c := range choices {
		if w.tracing {
			w.tracef("— %s %d %d %d", simOpNames[c.op], c.a, c.b, c.c)
		}
		w.choose(c)
		w.events++
	}
}

func (w *simWorld) choose(c choice) {
	a, b := int(c.a), int(c.b)
	switch c.op {
	case opCall:
		w.clients[a%w.conf.clients].call(byte(b&1%w.conf.services), b>>1&3 < 2, b>>6 == 0 && a>>6 == 0, w.timeout(b>>3), w.script(c.c, a>>4))
	case opPlainCall:
		if n := w.conf.guests; n > 0 && (w.conf.plains == 0 || a&2 == 0) {
			w.guests[a>>2%n].call(byte(b&1%w.conf.services), w.timeout(b>>1), w.script(c.c, a>>4))
		} else if w.conf.plains > 0 {
			w.plains[a%w.conf.plains].call(byte(b&1%w.conf.services), w.timeout(b>>1), w.script(c.c, a>>4))
		}
	case opStopCall:
		w.stopCall(a, b)
	case opHand:
		w.hand(a, b)
	case opSettle:
		w.deliver()
	case opRun:
		class := [...]int{1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 6, 6, 8}[a%16]
		if class == 8 && b&3 != 0 { // it takes long to play
			class = 5
		}
		w.run(w.span(class), true)
	case opPass:
		w.loose = true
		w.run(w.span([...]int{1, 2, 3, 4, 5, 6, 8, 9}[a%8]), false)
	case opHold:
		w.loose = true
		if l := w.pick(a); l != nil {
			if b&1 == 0 {
				l.holdUp = !l.holdUp
			} else {
				l.holdDown = !l.holdDown
			}
			if w.tracing {
				w.tracef("%s: held up %v, down %v", l.id, l.holdUp, l.holdDown)
			}
		}
	case opRoom:
		if l := w.pick(a); l != nil {
			if b&1 == 0 {
				l.room = [...]int{0, 1, 3, 64}[b>>1&3]
			} else {
				l.roomUp = [...]int{0, 1, 1 << 20, 1 << 20}[b>>1&3]
				w.push(l)
			}
			if w.tracing {
				w.tracef("%s: room for %d down, %d up", l.id, l.room, l.roomUp)
			}
		}
	case opCut:
		if l := w.pick(a); l != nil && l.connected {
			w.cut(l, b%cutKinds, int(c.c)%4)
		}
	case opNotice:
		if l := w.pick(a); l != nil && l.void {
			if b&1 == 0 {
				w.peerNotices(l)
			} else {
				l.brokerOpen = false
			}
		}
	case opPause:
		p := w.procs[a%len(w.procs)]
		if w.tracing {
			w.tracef("%s: stopped %v", p.name, !p.stopped)
		}
		if p.stopped = !p.stopped; p.stopped {
			p.paused = true
			w.loose = true
		}
	case opJump:
		w.jump(w.procs[a%len(w.procs)], w.span(4+b%6))
	case opKill:
		p := w.procs[a%len(w.procs)]
		if !p.down {
			p.kill(b, never)
		} else {
			p.start()
		}
	case opRestart:
		if p := w.procs[a%len(w.procs)]; !p.down {
			p.kill(b, w.now+w.span(int(c.c)%7))
		}
	case opLeave:
		w.leave(a, b)
	case opPlaces:
		if n := w.conf.helpers; n > 0 && a&2 == 0 {
			w.helpers[a%n].conc = 1 + b%3
		} else {
			w.workers[a%w.conf.workers].resize(1 + b%3)
		}
	case opRaw:
		if w.conf.raws > 0 {
			w.raws[a%w.conf.raws].act(b, int(c.c))
		}
	}
}

// pick chooses a live connection.
func (w *simWorld) pick(a int) *simLink {
	if len(w.live) == 0 {
		return nil
	}
	return w.live[a%len(w.live)]
}

// hand delivers the next message of one connection, the first from a on that has any.
func (w *simWorld) hand(a, b int) {
	w.connect()
	for i := range w.live {
		l := w.live[(a+i)%len(w.live)]
		up, down := w.canUp(l), w.canDown(l)
		switch {
		case up && (!down || b&1 == 0):
			l.b.take(l, 1+b>>1&3)
		case down:
			w.handDown(l)
		default:
			continue
		}
		w.sweep()
		return
	}
}

func (w *simWorld) jump(p *simProc, d time.Duration) {
	if w.tracing {
		w.tracef("the clock of %s jumps by %v", p.name, d)
	}
	p.skew += d
	p.paused = true
	w.loose = true
	if p.running() {
		p.host.turn()
	}
}

func (w *simWorld) timeout(n int) time.Duration {
	hb := w.conf.hb
	return [...]time.Duration{-1, hb / 20, hb / 4, hb / 2, hb, 3 * hb, 8 * hb, 60 * time.Second}[n%8]
}

// script makes a handler's script of a byte and a little more.
func (w *simWorld) script(c uint8, more int) uint16 {
	end := [8]uint16{5: endError, endNever, endCrash}[c>>5]
	s := uint16(c)&(scriptDelay|scriptParts) | end<<5
	if more&1 == 0 {
		s |= scriptOnce
	}
	if more&2 == 0 {
		s |= scriptHard
	}
	return s
}

func (w *simWorld) stopCall(a, b int) {
	n := w.conf.clients + w.conf.plains
	if i := a % n; i < w.conf.clients {
		w.clients[i].cancel(b)
	} else {
		w.plains[i-w.conf.clients].cancel(b)
	}
}

// leave: a worker says DRAIN, or a broker drains.
func (w *simWorld) leave(a, b int) {
	if b&3 == 0 {
		k := &w.brokers[a%w.conf.brokers]
		if k.running() && !k.book.draining {
			k.drain()
		}
		return
	}
	if n := w.conf.helpers; n > 0 && a&2 == 0 {
		w.helpers[a%n].leaves()
	} else {
		w.workers[a%w.conf.workers].drain(b >> 2)
	}
}

// heal mends the network, lets everybody run again, and waits for the end of
// everything: L1, L2, L3, R5.
func (w *simWorld) heal() {
	if w.tracing {
		w.tracef("— heal")
	}
	w.healing = true
	for _, p := range w.procs {
		switch {
		case p.down:
			p.start()
		case p.stopped:
			p.stopped = false
			p.host.turn()
		}
	}
	for i := range w.raws[:w.conf.raws] {
		w.raws[i].kill(0, never)
	}
	for i := range w.brokers[:w.conf.brokers] {
		if b := &w.brokers[i]; b.book.draining { // its process ends, and another comes
			b.kill(0, w.now)
			b.simProc.start()
		}
	}
	w.mend()
	for i := range w.workers[:w.conf.workers] {
		k := &w.workers[i]
		for j := range k.jobs {
			if k.jobs[j].began && k.jobs[j].next == never {
				k.jobs[j].next = k.now()
			}
		}
	}
	for i := range w.helpers[:w.conf.helpers] {
		for j := range w.helpers[i].jobs {
			if k := &w.helpers[i].jobs[j]; k.next == never {
				k.next = w.helpers[i].now()
			}
		}
	}
	hb := w.conf.hb
	life := hb * time.Duration(w.conf.liveness)
	// L3: workers are there again within hb·liveness and the largest backoff.
	for end := w.now + life + 2*hb + 100*time.Millisecond; w.now < end && !w.registered(); {
		w.run(hb/3, true)
	}
	if !w.registered() {
		w.fail("L3: a worker is not registered again")
	}
	// L2: all that was asked ends.
	w.quiesce()
	w.ended()
	// L1: new requests are answered.
	w.news()
	w.ended()
	w.idle()
}

// quiesce waits until every request has ended, within bounds.
func (w *simWorld) quiesce() {
	for range 60 {
		if w.allEnded() {
			return
		}
		w.run(w.conf.hb/3, true)
	}
	for range 10 {
		if w.allEnded() {
			return
		}
		w.run(10*time.Second, true)
	}
}

func (w *simWorld) registered() bool {
	for i := range w.helpers[:w.conf.helpers] {
		if !w.helpers[i].registered() {
			return false
		}
	}
	for i := range w.workers[:w.conf.workers] {
		if !w.workers[i].registered() {
			return false
		}
	}
	return true
}

func (w *simWorld) allEnded() bool {
	for _, i := range w.book.open {
		if !w.book.insts[i].link.book.rude {
			return false
		}
	}
	for i := range w.clients[:w.conf.clients] {
		if w.clients[i].pending() > 0 {
			return false
		}
	}
	for i := range w.plains[:w.conf.plains] {
		if len(w.plains[i].open) > 0 {
			return false
		}
	}
	for i := range w.guests[:w.conf.guests] {
		if len(w.guests[i].open) > 0 {
			return false
		}
	}
	return true
}

// allFree tells whether no worker has anything left to do, as the brokers see it too.
func (w *simWorld) allFree() bool {
	for i := range w.helpers[:w.conf.helpers] {
		if len(w.helpers[i].jobs) > 0 {
			return false
		}
	}
	for i := range w.workers[:w.conf.workers] {
		k := &w.workers[i]
		if len(k.jobs) > 0 {
			return false
		}
		for j := range k.all() {
			if k.conns[j].leaving {
				return false
			}
		}
	}
	for i := range w.brokers[:w.conf.brokers] {
		for _, l := range w.brokers[i].book.links {
			if l.book.held > 0 && !l.book.rude {
				return false
			}
		}
	}
	return true
}

func (w *simWorld) ended() {
	k := &w.book
	for _, i := range k.open {
		if k.insts[i].untold {
			continue
		}
		w.fail("L2: %s never ended at b%d", k.calls[k.insts[i].call].rid, k.insts[i].b.num)
	}
	for i := range w.plains[:w.conf.plains] {
		for _, c := range w.plains[i].open {
			w.fail("L2: %s of %s never ended", k.calls[c].rid, w.plains[i].name)
		}
	}
	for i := range w.guests[:w.conf.guests] {
		for _, c := range w.guests[i].open {
			w.fail("L2: %s of %s never ended", k.calls[c].rid, w.guests[i].name)
		}
	}
	for i := range w.clients[:w.conf.clients] {
		w.clients[i].mustBeIdle()
	}
}

// news: L1: every client asks once more, and gets exactly one final.
func (w *simWorld) news() {
	for n := 0; n < 3 || n < 60 && !(w.allEnded() && w.allFree() && w.registered()); n++ { // of what was on the way, or ended at its client
		w.run(w.conf.hb/3, true)
	}
	first := len(w.book.calls)
	for i := range w.plains[:w.conf.plains] {
		w.plains[i].call(0, 60*time.Second, 0)
	}
	for i := range w.clients[:w.conf.clients] {
		w.clients[i].fresh()
	}
	w.runUntilEnded()
	for i := range w.guests[:w.conf.guests] { // together they might be too many
		w.guests[i].call(0, 60*time.Second, 0)
		w.runUntilEnded()
	}
	for i := first; i < len(w.book.calls); i++ {
		c := &w.book.calls[i]
		if w.conf.frame > 0 && w.conf.helpers > 0 && c.ended && c.outcome == NotExecuted && c.runs == 0 { // it came in pieces, a helper was next
			continue
		}
		if !c.ended || c.outcome != Executed && c.client < len(w.clients) || c.ran != 1 && !c.harmed {
			w.fail("L1: %s, asked when all was well: ended %v, handlers %d, finals %d", c.rid, c.ended, c.runs, c.ran)
		}
	}
}

func (w *simWorld) runUntilEnded() {
	for n := 0; n < 100 && !w.allEnded(); n++ {
		w.run(w.conf.hb/10, true)
	}
}

// idle: R5: with everybody gone and the longest deadline over, every map is empty.
func (w *simWorld) idle() {
	for _, p := range w.procs {
		if p.broker() == nil && !p.down {
			p.kill(0, never)
		}
	}
	for i := 0; i < len(w.live); i++ {
		w.live[i].brokerOpen = false
	}
	w.run(w.conf.hb*time.Duration(w.conf.liveness+2), true)
	w.run(foreignLiveness*2, true)
	for i := range w.brokers[:w.conf.brokers] {
		b := &w.brokers[i]
		if w.conf.window > foreignLiveness {
			w.run(w.conf.window, true)
		}
		if err := b.d.empty(); err != nil {
			w.fail("b%d: %v", i, err)
		}
	}
}
