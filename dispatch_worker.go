package omdp

import (
	"encoding/binary"
	"time"
)

// slot is one place at a worker: it holds a request, or drains one that ended
// before its worker said so, or is free. Its token is what the worker echoes.
type slot struct {
	index    uint32 // in dispatcher.slots
	gen      uint64 // grows at every use, so that a late result is recognised
	token    [tokenLen]byte
	worker   *peer
	req      *request // nil while it drains
	rid      [maxRID]byte
	ridLen   int
	progress instant // the last partial or heartbeat under the token
	partial  bool    // one was forwarded: never dispatched again (I5)
	way      int64   // bytes that the worker sent and the client granted none back for
	owed     int64   // credit that the worker was not told of, as its pipe was full
	widened  int64   // … and the window; 0: as it knows it
	inflow   inflowOfSlot
	of       node[slot]
}

// A token is 4 characters that name the slot and 22 that are 128 random bits:
// found in O(1), unguessable, printable, since Node peers pass the frame
// through UTF-8. It hides the client's routing id from the worker (I7).
const (
	tokenIndexLen = 4
	tokenLen      = tokenIndexLen + 22
)

const base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

var base64value = func() (v [256]uint8) {
	for i := range v {
		v[i] = 255
	}
	for i := range len(base64url) {
		v[base64url[i]] = uint8(i)
	}
	return v
}()

// printable writes 128 bits as 22 characters.
func printable(dst []byte, hi, lo uint64) {
	for i := range 11 {
		dst[i] = base64url[hi>>(6*i)&63]
		dst[11+i] = base64url[lo>>(6*i)&63]
	}
}

func (d *dispatcher) takeSlot(w *peer, r *request) *slot {
	sl := d.slotFree.front()
	if sl != nil {
		d.slotFree.remove(&sl.of)
	} else {
		sl = &slot{index: uint32(len(d.slots))}
		sl.of.owner = sl
		d.slots = append(d.slots, sl)
		for i := range tokenIndexLen {
			sl.token[i] = base64url[sl.index>>(6*i)&63]
		}
	}
	printable(sl.token[tokenIndexLen:], d.random.Uint64(), d.random.Uint64())
	sl.gen++
	sl.worker, sl.req, sl.progress, sl.partial = w, r, d.now, false
	sl.way, sl.owed, sl.widened, sl.inflow = 0, 0, 0, inflowOfSlot{}
	sl.ridLen = copy(sl.rid[:], r.rid())
	w.slots.pushBack(&sl.of)
	w.held++
	return sl
}

// freeSlot gives the place back.
func (d *dispatcher) freeSlot(sl *slot) {
	w := sl.worker
	w.slots.remove(&sl.of)
	w.held--
	w.windows -= sl.inflow.most
	sl.worker, sl.req = nil, nil
	d.slotFree.pushBack(&sl.of)
}

// takeBack frees a place whose worker may still hold it. The token is
// remembered for a while, so that a late message under it is told from a
// forged one.
func (d *dispatcher) takeBack(sl *slot) {
	w := sl.worker
	w.lost[w.lostAt] = tokenMark(sl.token[:])
	w.lostAt = (w.lostAt + 1) % len(w.lost)
	d.freeSlot(sl)
}

func tokenMark(t []byte) uint64 { return binary.LittleEndian.Uint64(t[tokenIndexLen:]) }

// slotOf finds the slot that a worker names by its token, and reports whether
// that very worker holds it under that very token (I6).
func (d *dispatcher) slotOf(w *peer, m *message) *slot {
	if len(m.token) != tokenLen {
		return nil
	}
	index := 0
	for i := range tokenIndexLen {
		v := base64value[m.token[i]]
		if v == 255 {
			return nil
		}
		index |= int(v) << (6 * i)
	}
	if index >= len(d.slots) {
		return nil
	}
	sl := d.slots[index]
	if sl.worker != w || string(sl.token[:]) != string(m.token) || m.rid != nil && string(sl.rid[:sl.ridLen]) != string(m.rid) {
		return nil
	}
	return sl
}

func (d *dispatcher) fromWorker(l int, id []byte, p *peer, m *message) {
	if m.op == opReady {
		d.onReady(l, id, p, m)
		return
	}
	if p == nil || p.role != roleWorker { // a command before READY (I6)
		if m.op != opDisconnect {
			d.stats.Unregistered++
			d.sayDisconnect(l, id, m.wire())
		}
		return
	}
	if p.unclear {
		d.clears(p, m)
		defer d.cleared(p)
	}
	switch m.op {
	case opReply, opPartial, opPiece:
		d.onReply(p, m)
	case opReject:
		d.onReject(p, m)
	case opCredit:
		d.onWorkerCredit(p, m)
	case opHeartbeat:
		d.onWorkerHeartbeat(p, m)
	case opBlocked:
		d.onBlocked(p, m)
	case opDisconnect:
		d.workerLost(p, "left")
	case opDrain:
		if p.adv && !p.draining { // the answer: whatever was dispatched to it came before this
			appendToWorker(d.open(p), p.id, opDrain, nil, nil, "")
			d.close(p, origin{})
		}
		if !p.draining {
			p.draining = true
			p.service.draining++
		}
		d.setReady(p)
		d.abandoned(p.service)
	case opHello:
		c, ok := parseCaps(m.caps)
		if !ok || !p.adv {
			d.onMalformed(l, id, p, true)
			return
		}
		p.told, p.concurrency = c.interval(), d.clip(p, c.Concurrency)
		d.growLost(p)
		d.setReady(p)
		d.pump(p.service)
	}
}

func (d *dispatcher) onReady(l int, id []byte, p *peer, m *message) {
	c, adv := caps{}, m.caps != nil
	if adv {
		ok := false
		if c, ok = parseCaps(m.caps); !ok {
			d.onMalformed(l, id, p, true)
			return
		}
	}
	if p != nil && p.role == roleWorker { // a second READY (I16)
		d.disconnectWorker(p, "second READY")
		return
	}
	if isInternal(m.service) { // these are the broker's own
		d.stats.Unregistered++
		d.sayDisconnect(l, id, m.wire())
		return
	}
	s := d.services[string(m.service)]
	if d.draining || d.workers >= d.lim.workers || s == nil && len(d.services) >= d.lim.services {
		d.stats.Overloaded++
		d.sayDisconnect(l, id, m.wire())
		return
	}
	if s == nil {
		s = d.addService(m.service)
	}
	if p == nil {
		p = d.addPeer(l, id)
	}
	d.clients--
	d.workers++
	s.workers++
	s.directory = nil
	p.role, p.service, p.concurrency, p.beats = roleWorker, s, 1, true
	d.speaks(p, m.wire())
	if adv {
		p.adv, p.life, p.told = true, c.ID, c.interval()
		p.pack, p.grow, p.body = c.Pack > 0, c.Grow > 0, min(c.Body, maxCredit)
		p.concurrency = d.clip(p, c.Concurrency)
		appendHelloTo(d.open(p), p.id, headerWorker, &d.self)
		d.close(p, origin{})
	}
	if s.policy == Sticky {
		s.ring.add(p, d.random.Uint64())
	}
	d.growLost(p)
	d.note(noteWorkerReady, p, "")
	d.greet(p)
	p.beatAt = d.now + d.lim.heartbeat
	d.timers.set(&p.timer, min(p.beatAt, d.now+d.limitOf(p), p.clearTime()))
	d.setReady(p)
	d.pump(s)
}

// clip bounds the concurrency that a worker claims.
func (d *dispatcher) clip(p *peer, n int) int {
	if n > d.lim.concurrency {
		d.note(noteClipped, p, "")
		return d.lim.concurrency
	}
	return max(n, 1)
}

func (d *dispatcher) growLost(p *peer) {
	if n := p.concurrency + 64; n > len(p.lost) {
		p.lost = append(p.lost, make([]uint64, n-len(p.lost))...)
	}
}

// setReady keeps p in its service's list of free workers exactly while it may
// be given a request. It joins at the end: the least recently used is first.
func (d *dispatcher) setReady(p *peer) {
	may := p.role == roleWorker && !p.dead && !p.draining && !p.unreachable && !p.backlog.blocked() && !p.resting && p.held < p.concurrency && p.clearAt == 0
	switch {
	case may && !p.ready.listed():
		p.service.ready.pushBack(&p.ready)
	case !may && p.ready.listed():
		p.service.ready.remove(&p.ready)
	}
	if p.service != nil && p.service.policy == LeastLoaded {
		p.service.loads.set(p, may)
	}
}

// dispatchBurst is how many requests a worker is given in one batch at the
// most: what its pipe has no room for would be taken back and given anew.
const dispatchBurst = 256

// give finds a free worker for a request, which is in no queue, or ends it if
// those that are free can't take what it carries: then it reports false.
func (d *dispatcher) give(r *request, data, options []byte) bool {
	w := r.service.pick(r.key)
	switch {
	case w.body == 0 && (r.form == formRaw && !w.wire.opaque || r.more != 0), w.body > 0 && max(int64(len(data)), r.more) > w.body: // it would cost the worker its connection
		return d.giveForeign(r, w, data, options)
	case r.form > formRaw && !w.wire.opaque:
		return d.giveFrames(r, w, data, options)
	}
	d.dispatch(r, w, data, options, r.form)
	return true
}

// dispatch gives a request to a free worker.
func (d *dispatcher) dispatch(r *request, w *peer, data, options []byte, f form) {
	sl := d.takeSlot(w, r)
	if !w.adv {
		d.plainRID(sl)
	}
	r.slot = sl
	r.attempt++
	d.stats.Dispatched++
	w.spoken = true
	if w.burstTurn != d.turn {
		w.burst, w.burstTurn = 0, d.turn
	}
	if w.burst++; w.burst == dispatchBurst {
		w.resting = true
		d.resting = append(d.resting, w)
	}
	w.usedAt = d.stats.Dispatched
	w.service.ready.remove(&w.ready)
	d.setReady(w)
	var x *extra
	if w.adv {
		x = &d.x
		*x = extra{remaining: -1, attempt: r.asked, credit: r.window, raw: r.client.adv, grow: r.grows && w.grow}
		if w.body > 0 {
			x.more, x.body = r.more, r.client.body
		}
		if r.deadline.armed() {
			x.remaining = max(int64((r.deadline.at-d.now)/time.Millisecond), 1)
		}
	}
	if o := d.open(w); w.wire.extends { // the same as its codec does, without a detour
		appendDispatch(o, w.id, sl.token[:], sl.rid[:sl.ridLen], data, options, markOf(f == formRaw, r.more != 0), x)
	} else {
		d.work = work{token: sl.token[:], rid: sl.rid[:sl.ridLen], service: r.asks(), data: data, options: options, form: f}
		w.wire.appendWork(o, w.id, &d.work)
	}
	d.close(w, origin{slot: sl, gen: sl.gen})
	if !w.wire.extends || d.original != nil {
		d.retain(r, w, data, options, f)
	}
	if r.client.wire.noticed && !r.client.adv {
		// "Broker MAY notify Client on Request dispatch to Worker": Node clients take it
		// as the first sign of life of a request; ours need none and save a message.
		d.notice(r)
	}
}

// unauthentic deals with a message under a token that its sender does not
// hold: one that it lost a while ago is counted, one that it never held is a
// breach of protocol, and so is a second reply in the dialects of MDP.
func (d *dispatcher) unauthentic(w *peer, m *message) {
	if w.heldOnce(m.token) {
		d.stats.StaleTokens++
		if !w.wire.numbered && w.hasAnswered(m.token) {
			// RFC 7, 18: "The broker MUST respond to any valid but unexpected command by
			// sending DISCONNECT". Heartbeats that cross a final are of other dialects.
			d.disconnectWorker(w, "second reply")
		}
		return
	}
	d.stats.Forged++
	d.note(noteForged, w, "")
	d.disconnectWorker(w, "forged token")
}

func (d *dispatcher) onReply(w *peer, m *message) {
	sl := d.slotOf(w, m)
	if sl == nil {
		d.unauthentic(w, m)
		return
	}
	final := m.op == opReply
	sl.progress = d.now
	r := sl.req
	switch {
	case r != nil:
		if !d.onResult(w, sl, r, m) {
			return
		}
	case !final:
		d.stats.Dropped++
		return
	}
	w.answered[w.answeredAt] = tokenMark(sl.token[:])
	w.answeredAt = (w.answeredAt + 1) % uint8(len(w.answered))
	d.freeSlot(sl)
	d.setReady(w)
	d.pump(w.service)
}

// onResult passes a partial or final of a request on, and reports whether its
// place is free by it.
func (d *dispatcher) onResult(w *peer, sl *slot, r *request, m *message) bool {
	final := m.op == opReply
	if r.client.body > 0 && m.form == formLoose && len(m.body) > 1 { // it is as large as the array will be
		d.asArray(m)
	}
	if !r.client.fits(m) || !final && !d.within(sl, m) {
		if w.adv {
			d.breach(r)
			return false
		}
		d.stats.Unfit++ // nobody told it how much the client takes
		d.end(r, statusTooLarge, "", causeProtocol)
		return final && sl.worker == w
	}
	if !final {
		sl.partial = true
		d.stats.Partials++
		if r.client.wire.partials {
			d.forward(r, m)
		} else {
			d.join(r, m)
		}
		return false
	}
	if r.bridge != nil && r.bridge.parts != nil {
		d.finishJoined(r, m)
	}
	r.reported = !m.neverBegan()
	d.forward(r, m)
	d.stats.Completed++
	w.service.completed++
	d.removeRequest(r)
	return true
}

// forward passes a payload on: unchanged between two peers of one dialect, else
// as the client's has it.
func (d *dispatcher) forward(r *request, m *message) {
	c := r.client
	o := d.openReply(c)
	switch {
	case m.op == opPiece:
		d.m1[0] = m.data
		appendToClient(o, c.id, m.op, m.rid, d.m1[:])
	case c.adv && m.said == saidNative: // as its codec does
		appendToClient(o, c.id, m.op, r.rid(), m.body)
	default:
		m.marks = c.adv
		c.wire.appendReply(o, target{c.id, r.asks(), r.rid()}, m)
	}
	d.close(c, origin{})
}

func (d *dispatcher) onWorkerHeartbeat(w *peer, m *message) {
	if m.token == nil {
		d.onBareBeat(w, m)
		return
	}
	sl := d.slotOf(w, m)
	if sl == nil {
		d.unauthentic(w, m)
		return
	}
	if sl.req != nil || w.adv { // a Node worker's slot drains for so long and no longer
		sl.progress = d.now
	}
	if sl.req != nil && sl.req.client.wire.noticed {
		d.notice(sl.req)
	}
}

// payCredit passes a client's credit on. While the worker's pipe is full it
// adds up, so that no client can fill the worker's outbox with it.
func (d *dispatcher) payCredit(sl *slot) {
	if w := sl.worker; sl.owed+sl.widened > 0 && sl.req != nil && !w.backlog.blocked() {
		appendCreditToWorker(d.open(w), w.id, sl.token[:], sl.req.rid(), sl.owed, sl.widened)
		d.close(w, origin{})
		sl.owed, sl.widened = 0, 0
	}
}

// onCredit: what a client consumed, and how far its worker may be ahead from
// now on. A window that shrinks would break what the worker was promised.
func (d *dispatcher) onCredit(r *request, m *message) {
	sl := r.slot
	if m.window > r.window && r.grows && sl.worker.grow {
		r.client.windows += m.window - r.window
		r.window, sl.widened = m.window, m.window
	}
	sl.way = max(sl.way-m.credit, 0)
	sl.owed = min(sl.owed+m.credit, maxCredit)
	d.payCredit(sl)
}

// onBlocked passes on that a worker waits for credit.
func (d *dispatcher) onBlocked(w *peer, m *message) {
	sl := d.slotOf(w, m)
	if sl == nil {
		d.unauthentic(w, m)
		return
	}
	sl.progress = d.now
	if r := sl.req; r != nil && r.grows {
		appendToClient(d.open(r.client), r.client.id, opBlocked, m.rid, nil)
		d.close(r.client, origin{})
	}
}

func (d *dispatcher) freeDraining(w *peer) {
	for k := w.slots.head; k != nil; {
		sl := k.owner
		k = k.next
		if sl.req == nil {
			d.takeBack(sl)
		}
	}
	d.setReady(w)
	d.pump(w.service)
}

// drainSlot takes the request off a slot that its worker still works on. The
// place is free again when the worker says so.
func (d *dispatcher) drainSlot(sl *slot, cause string) {
	w := sl.worker
	sl.req = nil
	sl.progress = d.now
	if w.wire.takesOver {
		d.takeBack(sl)
		d.relieved = append(d.relieved, w)
		return
	}
	if w.adv && cause != "" {
		appendToWorker(d.open(w), w.id, opCancel, sl.token[:], sl.rid[:sl.ridLen], cause)
		d.close(w, origin{})
	}
}

// onWorkerTick beats (I18), and looks at what the worker owes.
func (d *dispatcher) onWorkerTick(w *peer) {
	limit := d.limitOf(w)
	next := d.clock.silentSince(w.seen) + limit
	if next <= d.now {
		d.disconnectWorker(w, "silent")
		return
	}
	if w.beatAt <= d.now {
		w.beatAt = d.now + d.lim.heartbeat
		if !w.spoken || !w.wire.quiet {
			w.wire.appendBeat(d.open(w), w.id, nil, nil)
			d.close(w, origin{})
		}
		w.spoken = false
		d.beatForSilent(w)
	}
	freed := false
	if w.clearAt > 0 && w.clearAt <= d.now {
		w.clearAt, freed = 0, true
	}
	for k := w.slots.head; k != nil; {
		sl := k.owner
		k = k.next
		if at := d.overdueAt(w, sl, limit); at > d.now {
			next = min(next, at)
			continue
		}
		switch {
		case sl.req != nil: // nothing heard of it for the liveness (I19)
			d.stats.Stalled++
			d.end(sl.req, statusWorkerLost, "", causeStalled)
		case w.adv || w.wire.several: // it does not beat for it: it does not hold it; or it goes on with others beside it
			d.takeBack(sl)
			freed = true
		default: // a Node worker that holds a request drops the next one: let it start anew
			d.disconnectWorker(w, "does not end a request")
			return
		}
	}
	// What its slots hold from now on is due after the next beat at the earliest,
	// or after its own liveness, if that is shorter.
	d.timers.set(&w.timer, min(next, w.beatAt, d.now+limit, w.clearTime()))
	if freed {
		d.setReady(w)
		d.pump(w.service)
	}
}

// disconnectWorker ends a worker's registration and tells it.
func (d *dispatcher) disconnectWorker(w *peer, reason string) {
	l, id, wire := w.listener, w.id, w.wire
	d.workerLost(w, reason)
	d.sayDisconnect(l, []byte(id), wire)
}

// workerLost forgets a worker. What it held may have been executed.
func (d *dispatcher) workerLost(w *peer, reason string) {
	d.note(noteWorkerGone, w, reason)
	s := w.service
	d.removePeer(w)
	d.setReady(w)
	for sl := w.slots.front(); sl != nil; sl = w.slots.front() {
		r := sl.req
		d.freeSlot(sl)
		if r != nil {
			d.stats.WorkerLost++
			r.slot = nil
			d.sayTo(r, statusWorkerLost, "")
			d.removeRequest(r)
		}
	}
	s.workers--
	s.directory = nil
	if w.draining {
		s.draining--
	}
	if s.policy == Sticky {
		s.ring.remove(w)
	}
	if s.workers == 0 {
		d.rehome(s)
	}
	d.abandoned(s)
	d.releaseService(s)
}
