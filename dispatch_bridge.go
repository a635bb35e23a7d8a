package omdp

import (
	"slices"
	"time"
	"unicode/utf8"
)

// What the core does for peers of several dialects. Which dialect a peer speaks
// it knows only by what that can say (wire).

// bridge is what a request needs where a dialect says less, or more, than OMDP.
type bridge struct {
	name    string   // that was asked for, where it is a pattern's; else empty
	options []byte   // of a request in progress, should it come back, where its worker was not given them as they are
	some    bool     // there are options
	data    []byte   // … of one that its worker may hand back, or was given in another form
	form    form     // of data
	has     bool     // these are kept: options …
	whole   bool     // … and data
	lost    bool     // there was no room for data that was given in another form
	back    int      // how often it was handed back
	parts   [][]byte // partials that wait for the final
	size    int64    // … of them
}

// bridgeOf gives the bridge of a request, which has none between two peers of
// this library.
func (d *dispatcher) bridgeOf(r *request) *bridge {
	if r.bridge == nil {
		if n := len(d.freeBridges); n > 0 {
			r.bridge = d.freeBridges[n-1]
			d.freeBridges = d.freeBridges[:n-1]
		} else {
			r.bridge = &bridge{}
		}
	}
	return r.bridge
}

// forget lets go what a request kept.
func (d *dispatcher) forget(r *request) {
	b := r.bridge
	if b == nil {
		return
	}
	d.letGoKept(b)
	d.joined -= b.size
	last := *b
	*b = bridge{}
	if cap(last.data)+cap(last.options) <= 16<<10 { // for the next one
		b.data, b.options = last.data[:0], last.options[:0]
	}
	if r.bridge = nil; len(d.freeBridges) < 1<<10 {
		d.freeBridges = append(d.freeBridges, b)
	}
}

// kept are the options that were kept, nil if there were none.
func (b *bridge) kept() []byte {
	if !b.some {
		return nil
	}
	return append([]byte{}, b.options...)
}

// asks is the name of the service that a client asked for.
func (r *request) asks() string {
	if b := r.bridge; b != nil && b.name != "" {
		return b.name
	}
	return r.service.name
}

// read parses what the peer id on listener l sent, by the dialect that it speaks.
func (d *dispatcher) read(l int, id []byte, f [][]byte, m *message) bool {
	p := d.peers[l][string(id)]
	m.from = p
	if p == nil || p.wire == nil {
		x := d.dialects[l]
		if !x.advertises() && d.wasHere(l, id) { // it advertised, and may say more before it does again
			x = native
		}
		ok := parseFirst(x, f, m)
		d.stranger = m.wire()
		if !ok && m.wire().dialect != d.dialects[l] && d.dialects[l] != Auto {
			d.wrongDialect(m.wire())
		}
		return ok
	}
	switch {
	case p.adv: // what most are, without a detour
		if parseAtBroker(f, m) && !m.strange() {
			return true
		}
	case p.unclear && parseUnclear(f, m) || p.wire.parseAtBroker(f, m) && !m.strange():
		return true
	}
	d.stranger = p.wire
	if n := named(f); n != nil && n.family() != p.wire.family() {
		d.wrongDialect(n)
		d.stranger = n
	} else if w := otherOf(p.wire, f, m); n != nil && w != nil {
		d.wrongDialect(w)
	}
	return false
}

// wasHere tells whether a peer that advertised was forgotten a while ago.
func (d *dispatcher) wasHere(l int, id []byte) bool {
	for i := range d.ghosts {
		if g := &d.ghosts[i]; g.listener == l && g.id == string(id) {
			return true
		}
	}
	return false
}

// wrongDialect notes that a message is in a dialect that its sender, or its
// listener, does not speak.
func (d *dispatcher) wrongDialect(w *wire) { d.wrong = w.dialect.String() }

// speaks notes the dialect of a peer; nil: it is gone.
func (d *dispatcher) speaks(p *peer, w *wire) {
	if p.wire == w {
		return
	}
	if p.wire != nil {
		d.speakers[p.wire.dialect]--
	}
	if w != nil {
		d.speakers[w.dialect]++
		p.wire = w
	}
}

// number names a request that came without an id.
func (d *dispatcher) number(m *message) {
	if m.rid == nil {
		d.nextRID++
		d.ridText = appendInt(d.ridText[:0], int64(d.nextRID))
		m.rid = d.ridText
	}
}

// plainRID gives a request, whose id is not UTF-8, another one at a worker that may
// be Node's: that would send back what it made of it, and be taken for a forger.
func (d *dispatcher) plainRID(sl *slot) {
	if !utf8.Valid(sl.rid[:sl.ridLen]) {
		d.nextRID++
		sl.ridLen = len(appendInt(sl.rid[:0], int64(d.nextRID)))
	}
}

// notice tells a client that its request is in progress.
func (d *dispatcher) notice(r *request) {
	c := r.client
	c.wire.appendNotice(d.open(c), target{id: c.id, rid: r.rid()})
	d.close(c, origin{})
}

// probe sends a client a beat, to find out whether it is still there: for its
// request r, or one as it knows them as answers to its own. What clients of other
// dialects would take for an error they are not sent.
func (d *dispatcher) probe(p *peer, r *request) {
	switch {
	case p.wire.noticed:
		d.notice(r)
	case p.wire.answers:
		p.wire.appendNotice(d.open(p), target{id: p.id})
		d.close(p, origin{})
	}
}

// beatFor tells a worker that the client of a request lives.
func (d *dispatcher) beatFor(sl *slot) {
	w := sl.worker
	w.wire.appendBeat(d.open(w), w.id, sl.token[:], sl.rid[:sl.ridLen])
	d.close(w, origin{})
}

// beatForSilent does so for clients that have no way to say it: as long as the
// broker holds a request of theirs they count as alive.
func (d *dispatcher) beatForSilent(w *peer) {
	if !w.wire.watches || w.adv {
		return
	}
	for k := w.slots.head; k != nil && !w.backlog.blocked(); k = k.next {
		if r := k.owner.req; r != nil && !r.client.wire.noticed {
			d.beatFor(k.owner)
		}
	}
}

// heldOnce tells whether w held the token a while ago.
func (w *peer) heldOnce(token []byte) bool {
	if len(token) != tokenLen {
		return false
	}
	mark := tokenMark(token)
	return mark != 0 && (slices.Contains(w.lost, mark) || slices.Contains(w.answered[:], mark)) // 0: a place not used yet
}

// hasAnswered tells whether w said the final under the token itself, of late.
func (w *peer) hasAnswered(token []byte) bool {
	return len(token) == tokenLen && slices.Contains(w.answered[:], tokenMark(token))
}

// answerBeat answers a client's beat, where it waits for that.
func (d *dispatcher) answerBeat(l int, id []byte, p *peer, m *message) {
	if !m.wire().answers {
		return
	}
	if p == nil || p.role == roleNone {
		if p = d.addClient(l, id, p, m.wire()); p == nil {
			return
		}
		d.watch(p)
	}
	if d.mayTell(p) {
		p.wire.appendNotice(d.open(p), target{id: p.id})
		d.close(p, origin{})
	}
}

// clearTime is how long a worker may take to show its dialect: PIGATO's sends a
// heartbeat of its own right after READY.
const clearTime = 50 * time.Millisecond

// greet answers a worker's READY where its dialect has an answer. One whose
// dialect is unclear is given nothing for a moment.
func (d *dispatcher) greet(p *peer) {
	if p.wire.vague && !p.adv && d.dialects[p.listener] == Auto {
		p.unclear, p.clearAt = true, d.now+clearTime
	}
	if p.wire.answers {
		p.wire.appendWelcome(d.open(p), p.id)
		d.close(p, origin{})
	}
	d.learn(p.service, p.wire)
}

func (p *peer) clearTime() instant {
	if p.clearAt == 0 {
		return never
	}
	return p.clearAt
}

// clears looks at a message by which a worker may show its dialect. It may be
// given requests once that was taken: it could be its last.
func (d *dispatcher) clears(p *peer, m *message) {
	if m.wire() != p.wire {
		d.speaks(p, m.wire())
		p.service.directory = nil // it may tell its id
		p.unclear = false
		d.misled(p)
		d.greet(p)
	} else if m.op == opReply || m.op == opPartial || m.token != nil { // a bare beat is others' too
		p.unclear = false
	}
	p.clearAt = 0
}

func (d *dispatcher) cleared(p *peer) {
	if !p.dead {
		d.setReady(p)
	}
	d.pump(p.service) // others may be given what its name stands for
}

// misled: a worker shows its dialect so late that it was given requests in
// another's, which only one can read that takes no more frames apart than OMDP's.
func (d *dispatcher) misled(w *peer) {
	for k := w.slots.head; k != nil; {
		sl := k.owner
		k = k.next
		switch {
		case w.wire.rejects && sl.req != nil: // it may hold it all the same, but can't answer
			d.stats.WorkerLost++
			r := sl.req
			d.takeBack(sl)
			r.slot = nil
			d.end(r, statusWorkerLost, "", "")
		case sl.req == nil && (w.wire.rejects || w.wire.takesOver):
			d.takeBack(sl)
		}
	}
}

// overdueAt is when a slot counts as forgotten by its worker, which is silent
// about it for the limit. Where beats for requests are not known, or not known
// to be known, its beats stand for all that it holds, but not for ever.
func (d *dispatcher) overdueAt(w *peer, sl *slot, limit time.Duration) instant {
	at := d.clock.silentSince(sl.progress) + limit
	if sl.req != nil && (!w.wire.beatsRequest || w.unclear) {
		at = d.clock.silentSince(max(sl.progress, w.seen)) + limit
		if most := d.lim.inProgress; most > 0 {
			at = min(at, d.clock.silentSince(sl.progress)+most)
		}
	}
	return at
}

// onBareBeat: a worker's beat for no request.
func (d *dispatcher) onBareBeat(w *peer, m *message) {
	switch {
	case w.adv:
		return
	case w.wire.beatsRequest: // it beats bare only when it holds nothing
		d.freeDraining(w)
		if !w.unclear {
			return
		}
	}
	if m.level != 0 && m.level != w.level {
		w.level = m.level // as it says it each time, what is too much is noted once
		switch {
		case m.level == levelNone:
			w.concurrency = 0
		case m.level == levelAny:
			w.concurrency = d.lim.concurrency
		default:
			w.concurrency = d.clip(w, m.level)
		}
		d.growLost(w)
		d.setReady(w)
		d.pump(w.service)
	}
	if d.now >= w.noticeAt { // one message must not always make a thousand
		w.noticeAt = d.now + time.Duration(max(w.held-1, 0))*time.Millisecond
		for k := w.slots.head; k != nil; k = k.next {
			if r := k.owner.req; r != nil && r.client.wire.noticed && !r.client.adv && !r.client.backlog.blocked() {
				d.notice(r)
			}
		}
	}
	if w.wire.answers && !w.backlog.blocked() {
		w.wire.appendBeat(d.open(w), w.id, nil, nil)
		d.close(w, origin{})
	}
}

// retain keeps of a request what its worker's dialect has no place for, or was
// given in another form, and what is needed if the worker hands it back. It counts
// as queued; without room for it, it is not there when the request comes back.
func (d *dispatcher) retain(r *request, w *peer, data, options []byte, f form) {
	b := d.bridgeOf(r)
	d.letGoKept(b)
	whole := w.wire.rejects || d.original != nil
	if d.original != nil {
		data, f = d.original, r.form
	}
	size := int64(len(options))
	if whole {
		size += int64(len(data))
	}
	if b.some = options != nil; !b.some && !whole {
		return
	}
	if d.queuedBytes+size > d.lim.totalBytes {
		b.lost = d.original != nil
		return
	}
	d.queuedBytes += size
	b.has, b.whole = true, whole
	b.options = append(b.options[:0], options...)
	if whole {
		b.data, b.form = append(b.data[:0], data...), f
	}
}

// keeps is how many bytes are kept.
func (b *bridge) keeps() (n int64) {
	if b.has {
		n = int64(len(b.options))
		if b.whole {
			n += int64(len(b.data))
		}
	}
	return n
}

// letGoKept forgets what was kept of a request in progress.
func (d *dispatcher) letGoKept(b *bridge) {
	d.queuedBytes -= b.keeps()
	b.has, b.whole, b.some, b.lost = false, false, false, false
}

// onReject: a worker hands a request back. It goes to the end of its client's
// queue, unless as many have handed it back as there are workers.
func (d *dispatcher) onReject(w *peer, m *message) {
	sl := d.slotOf(w, m)
	if sl == nil {
		d.unauthentic(w, m)
		return
	}
	d.stats.Rejected++
	r := sl.req
	partial := sl.partial
	w.answered[w.answeredAt] = tokenMark(sl.token[:])
	w.answeredAt = (w.answeredAt + 1) % uint8(len(w.answered))
	d.freeSlot(sl)
	if w.ready.listed() { // others go first
		w.service.ready.remove(&w.ready)
	}
	d.setReady(w)
	switch {
	case r == nil:
	case partial:
		r.slot = nil
		d.end(r, statusRejected, "", "")
	default:
		r.slot = nil
		r.attempt--
		b := d.bridgeOf(r)
		if b.back++; b.back >= r.service.workers || !b.has {
			d.end(r, statusRejected, "false", "")
			break
		}
		r.form = b.form
		r.key = handedBack
		r.keep(b.data, b.kept(), d.store)
		d.letGoKept(b)
		d.enqueue(r, false)
	}
	d.pump(w.service)
}

// asArray makes a value of several frames a JSON array.
func (d *dispatcher) asArray(m *message) {
	text := appendArray(d.text[:0], m.body)
	if cap(text) <= maxScratch {
		d.text = text
	}
	m.says(saidValue, "", formJSON, text)
}

// maxJoined is how many frames may wait for a final: with those of the final and
// around them a client of this library reads no more.
const maxJoined = maxReplyFrames - 24

// join keeps a partial for a client whose dialect has none, to go with the final.
func (d *dispatcher) join(r *request, m *message) {
	if d.lim.dropPartials {
		return
	}
	m.saysOf()
	b := d.bridgeOf(r)
	var parts [][]byte
	switch {
	case m.said != saidValue:
		parts = [][]byte{appendErrorObject(nil, m)}
	case m.form == formLoose:
		parts = m.body
	default:
		parts = m.body[:1]
	}
	for _, p := range parts {
		head := ""
		if m.said == saidValue && m.form == formJSON && nearlyError(p) { // alone it would be read as one
			head, p = "{ ", p[1:]
		}
		size := int64(len(head)+len(p)) + partialOverhead
		if b.size+size > d.lim.frame || d.joined+size > d.lim.totalOutbox/4 || len(b.parts) >= maxJoined {
			d.refuseJoined(r)
			return
		}
		b.size += size
		d.joined += size
		b.parts = append(b.parts, append([]byte(head), p...))
	}
}

func (d *dispatcher) refuseJoined(r *request) {
	d.stats.Unfit++
	d.end(r, statusTooLarge, "", causeGone)
}

// finishJoined puts what was kept in front of the final. A final of null after
// partials adds nothing; an error stands alone.
func (d *dispatcher) finishJoined(r *request, m *message) {
	m.saysOf()
	if m.said != saidValue {
		return
	}
	all := r.bridge.parts
	if m.form != formJSON || string(m.body[0]) != "null" {
		all = append(all, m.body...)
	}
	m.form, m.body = formLoose, all
}
