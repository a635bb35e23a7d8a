package omdp

import (
	"strconv"
	"strings"
	"time"
)

// book keeps an outside observer's own account of a history: what was asked,
// who was given it, what each owner said, and what reached whom. Of the core
// it sees frames and counters, and which peers it knows.
type book struct {
	w          *world
	instances  []*instance
	all        []*instance // those that were only answered, too
	byData     map[string]*instance
	byKey      map[string][]*instance // client, rid: what it may still hear of, the oldest first
	tokens     map[string]*tokenRec
	order      []*tokenRec
	sessionOf  []*peerLife
	current    map[*simPeer]*peerLife
	liveBefore []*instance                                // of the sender, before its message
	turns      map[string]map[*peerLife]map[*peerLife]int // I12: service, who waits, dispatches of another meanwhile
}

// peerLife is one life of a peer at the core.
type peerLife struct {
	peer    *simPeer
	num     uint32
	worker  bool
	service string
	adv     bool
	beats   bool
	heard   instant // its last message that counts
	told    instant // when it was last told something
	limit   time.Duration
	since   instant // the limit is this
	over    instant // never while it lasts
	reason  string  // why it ended, as the notes of that step say
}

// instance is one REQUEST that is owed something.
type instance struct {
	sess        *peerLife
	rid, data   string
	service     string
	options     string
	deadline    instant
	token       *tokenRec
	emitted     bool // a dispatch of it was written
	undone      bool // … and could not be sent
	answered    bool // it was refused, or unknown: one status is owed, no more
	status      string
	expect      []string // "6 body", "3 body": what its owner said and is still on the way
	partial     bool
	ended, gone bool // had its terminal; is owed nothing any more
	late        bool // its terminal was under way when its client went
}

type tokenRec struct {
	token     string
	worker    *simPeer
	sess      *peerLife
	inst      *instance
	delivered bool
	done      bool  // its worker finished it, or it never arrived
	granted   int64 // credit by its client …
	credit    int64 // … and as its worker was told
	canceled  bool
	progress  instant
}

func (b *book) init(w *world) {
	b.w = w
	b.byData, b.byKey, b.tokens = map[string]*instance{}, map[string][]*instance{}, map[string]*tokenRec{}
	b.current = map[*simPeer]*peerLife{}
	b.turns = map[string]map[*peerLife]map[*peerLife]int{}
}

func clientKey(p *simPeer, rid string) string { return p.name + " " + rid }

// held lists the tokens that workers were given and have not finished.
func (b *book) held() []*tokenRec {
	var all []*tokenRec
	for _, t := range b.order {
		if t.delivered && !t.done && t.sess.over == never {
			all = append(all, t)
		}
	}
	return all
}

// sessions notes which peers the core knows now.
func (b *book) sessions() {
	w := b.w
	for _, p := range w.peers {
		s := b.current[p]
		c := w.d.peers[p.l][p.id]
		if s != nil && (c == nil || c.num != s.num || s.worker != (c.role == roleWorker)) {
			b.endSession(s)
			s = nil
		}
		if c == nil {
			continue
		}
		if s == nil {
			s = &peerLife{peer: p, num: c.num, worker: c.role == roleWorker, heard: w.now, told: w.now, over: never}
			b.current[p] = s
			b.sessionOf = append(b.sessionOf, s)
		}
		if c.service != nil {
			s.service = c.service.name
		}
		if limit := lifeLimit(c.told, w.d.lim.heartbeat, w.d.lim.liveness); s.limit != limit {
			s.limit, s.since = limit, w.now
		}
		s.adv, s.beats = c.adv, c.beats
	}
}

// endSession: I17: who is forgotten for its silence was silent long enough.
func (b *book) endSession(s *peerLife) {
	w := b.w
	s.over = w.now
	delete(b.current, s.peer)
	for _, n := range w.d.notes {
		s.reason += n.reason
		quiet := w.now - max(s.heard, w.d.clock.grace)
		if n.reason == "silent" && len(w.d.notes) == 1 && quiet < s.limit {
			w.fatalf("I17: %s is lost after %v of silence, the limit is %v", s.peer.name, quiet, s.limit)
		}
	}
	for _, i := range b.all {
		if i.sess == s && !i.ended && !i.gone {
			b.leave(i)
		}
	}
}

// leave: an instance whose client is gone is owed nothing but what was written.
func (b *book) leave(i *instance) {
	i.gone = true
	p := i.sess.peer
	out := &b.w.d.boxes[p.l].out
	for k := range out.Len() {
		f := frameStrings(out.Message(k))
		i.late = i.late || f[0] == p.id && f[1] == "C" && f[2] == "3" && f[3] == i.rid
	}
}

// ignored lists what peers have that are ignored: when they are silent their
// requests end, and they are remembered all the same.
func (b *book) ignored() []*instance {
	var all []*instance
	for _, i := range b.instances {
		c := b.w.d.peers[i.sess.peer.l][i.sess.peer.id]
		if c != nil && c.ignoredUntil > b.w.now && !i.ended && !i.gone && b.w.live(i) != nil {
			all = append(all, i)
		}
	}
	return all
}

// about notes what the sender of the next message has at the core.
func (b *book) about(p *simPeer) {
	b.liveBefore = b.liveBefore[:0]
	for _, i := range b.instances {
		if i.sess.peer == p && !i.ended && !i.gone && b.w.live(i) != nil {
			b.liveBefore = append(b.liveBefore, i)
		}
	}
}

// received accounts one message that the core took; before are its counters before it.
func (b *book) received(p *simPeer, ok bool, f []string, before *counters) {
	w := b.w
	st := &w.d.stats
	delta := func(a, z uint64) bool { return z > a }
	if delta(before.Ignored, st.Ignored) {
		if *before != (func(c counters) counters { c.Ignored--; return c })(*st) {
			w.fatalf("a message of a peer that is ignored had an effect")
		}
		return
	}
	if s := b.current[p]; s != nil && ok {
		s.heard = w.now
	}
	b.sessions()
	s := b.current[p]
	if s != nil && ok {
		s.heard = w.now
	}
	if !ok {
		b.malformed(p, f, before)
		return
	}
	switch f[0] + f[1] {
	case "C2":
		b.request(p, s, f, before)
	case "C4":
		if delta(before.UnknownRequests, st.UnknownRequests) && st.Dropped == before.Dropped {
			b.owe(&instance{sess: s, rid: f[2], answered: true, status: statusLost}, p)
		}
	case "C8":
		if delta(before.ClientGone, st.ClientGone) { // another life: the old one's calls are over
			for _, i := range b.liveBefore {
				i.gone = true
			}
		}
	case "C9":
		b.grant(f[2], f[3])
	case "C10":
		if delta(before.Canceled, st.Canceled) {
			b.canceled(p, f[2])
		}
	}
	switch {
	case delta(before.Partials, st.Partials):
		b.result(p, s, "6", f)
	case delta(before.Completed, st.Completed):
		b.result(p, s, "3", f)
	}
	if f[0] == "W" && len(f) >= 4 && (f[1] == "3" || f[1] == "4") {
		if t := b.tokens[f[2]]; t != nil && t.worker == p && t.inst.rid == f[3] && t.sess == s {
			t.progress = w.now
			t.done = t.done || f[1] == "3"
		}
	}
	if f[0] == "W" && f[1] == "4" && len(f) == 2 && s != nil && !s.adv { // it beats bare: it holds nothing
		for _, t := range b.order {
			if t.sess == s && (t.inst.ended || t.inst.gone || w.liveSlot(t) == nil) {
				t.done = true
			}
		}
	}
}

// liveSlot finds the slot in which a token is in progress.
func (w *world) liveSlot(t *tokenRec) *slot {
	for _, sl := range w.d.slots {
		if sl.worker != nil && sl.req != nil && string(sl.token[:]) == t.token {
			return sl
		}
	}
	return nil
}

// malformed: R2: it moves its sender's counter only.
func (b *book) malformed(p *simPeer, f []string, before *counters) {
	w := b.w
	after := w.d.stats
	after.Malformed, after.WorkerLost, after.Abandoned = before.Malformed, before.WorkerLost, before.Abandoned
	after.Dropped, after.SlowClients = before.Dropped, before.SlowClients
	if after != *before {
		w.fatalf("R2: a malformed message %q changed more than it may: %+v to %+v", f, *before, w.d.stats)
	}
}

func (b *book) request(p *simPeer, s *peerLife, f []string, before *counters) {
	w := b.w
	st := &w.d.stats
	i := &instance{sess: s, service: f[2], rid: f[3], data: f[4], deadline: never}
	if len(f) > 5 {
		i.options = f[5]
	}
	switch {
	case st.Accepted > before.Accepted:
		o, _ := parseOptions([]byte(i.options))
		if o.timeout == timeoutDefault {
			o.timeout = w.d.lim.defaultTimeout
		}
		if o.timeout > 0 {
			i.deadline = w.now + o.timeout
		}
		b.byData[i.data] = i
		b.instances = append(b.instances, i)
		b.startTurn(i)
	case st.Malformed > before.Malformed && optionsOK(i.options):
		return // from a worker
	case st.Refused > before.Refused, st.Malformed > before.Malformed, st.Overloaded > before.Overloaded:
		i.answered = true
		if st.Dropped > before.Dropped {
			return
		}
	case st.Duplicates > before.Duplicates: // I21: creates nothing
		return
	default:
		w.fatalf("a REQUEST vanished")
	}
	b.owe(i, p)
}

func optionsOK(s string) bool {
	_, ok := parseOptions([]byte(s))
	return ok
}

func (b *book) owe(i *instance, p *simPeer) {
	if i.sess == nil {
		i.sess = &peerLife{peer: p, over: never} // at the limit: it is not known
	}
	k := clientKey(p, i.rid)
	b.byKey[k] = append(b.byKey[k], i)
	b.all = append(b.all, i)
}

func (b *book) canceled(p *simPeer, rid string) {
	all := b.byKey[clientKey(p, rid)]
	for k := len(all) - 1; k >= 0; k-- {
		if i := all[k]; !i.answered {
			i.gone = true
			return
		}
	}
	b.w.fatalf("I8: a cancel of nothing was counted")
}

// result: I1, I6: what is forwarded is what the owner said under the current token.
func (b *book) result(p *simPeer, s *peerLife, command string, f []string) {
	w := b.w
	t := b.tokens[f[2]]
	switch {
	case f[0] != "W" || f[1] != command:
		w.fatalf("I6: %q counted as a result", f)
	case t == nil || t.worker != p || t.sess != s || t.inst.token != t:
		w.fatalf("I6: the result of a worker that does not hold the request was taken: %q", f)
	case t.inst.rid != f[3] || t.done:
		w.fatalf("I6: a result for another request, or after the final, was taken: %q", f)
	case t.inst.ended || t.inst.gone:
		w.fatalf("I2: a result was taken after the end of %s", t.inst.data)
	}
	t.progress = w.now
	t.inst.partial = t.inst.partial || command == "6"
	t.inst.expect = append(t.inst.expect, command+" "+strings.Join(f[4:], "|"))
}

// unsent notes what the network did not take.
func (b *book) unsent(l int, all [][]string) {
	w := b.w
	for _, f := range all {
		if f[1] == "W" && f[2] == "2" {
			t := b.tokens[f[3]]
			i := t.inst
			t.done = true
			if i.undone = true; i.token == t {
				i.token = nil
			}
			delete(b.turns, i.service) // I14a: it goes back to the head, which upsets the turns
		}
		if p := w.peer(l, f[0]); p != nil && p.gone {
			if s := b.current[p]; s != nil {
				s.limit = 0
			}
			b.dropped(p, f)
		}
	}
}

// dropped: an answer to a peer that has no backlog was not sent.
func (b *book) dropped(p *simPeer, f []string) {
	if p == nil {
		return
	}
	all := b.byKey[clientKey(p, f[min(3, len(f)-1)])]
	for _, i := range all {
		i.late = false
	}
	for k := len(all) - 1; k >= 0; k-- {
		if i := all[k]; i.answered && !i.gone {
			i.gone = true
			return
		}
	}
}

// newToken: I7: tokens never repeat and show nothing.
func (b *book) newToken(l int, f []string) *tokenRec {
	w := b.w
	token := f[3]
	i := b.byData[f[5]]
	switch {
	case len(token) != tokenLen || strings.Contains(token, "client"):
		w.fatalf("I7: token %q", token)
	case b.tokens[token] != nil:
		w.fatalf("I7: token %q was used before", token)
	case i == nil || i.rid != f[4]:
		w.fatalf("I1: a REQUEST that nobody sent: %q", f)
	}
	p := w.peer(l, f[0])
	t := &tokenRec{token: token, worker: p, sess: b.current[p], inst: i, progress: w.now}
	b.tokens[token] = t
	return t
}

// emitted takes every message as it is written.
func (b *book) emitted(l int, packed []byte) {
	if f := frameStrings(packed); f[1] == "W" && f[2] == "2" {
		b.dispatched(l, f)
	}
}

// delivered takes what the network took.
func (b *book) delivered(l int, f []string) {
	w := b.w
	p := w.peer(l, f[0])
	s := b.current[p]
	if s != nil {
		s.told = w.now
	}
	if ext := len(f[2]) > 1 || f[2] > "7"; ext && !p.adv {
		w.fatalf("an extension was sent to %s, which did not advertise: %q", p.name, f)
	}
	switch f[1] + f[2] {
	case "W2":
		b.tokens[f[3]].delivered = true
	case "W9":
		n, _ := strconv.ParseInt(f[5], 10, 64)
		b.tokens[f[3]].credit += n
	case "W10":
		b.tokens[f[3]].canceled = true
	case "W5":
	case "C3", "C6":
		b.reply(p, f)
	case "C4":
		if len(f) > 3 && len(b.byKey[clientKey(p, f[3])]) == 0 {
			w.fatalf("I2: a beat for a request that is over: %q", f)
		}
	}
}

// dispatched: I5, I9 to I12, of a dispatch as it is written.
func (b *book) dispatched(l int, f []string) {
	w := b.w
	b.sessions()
	t := b.newToken(l, f)
	b.order = append(b.order, t)
	p, s, i := t.worker, t.sess, t.inst
	i.emitted = true
	old := i.token
	i.token = t
	switch {
	case s == nil || i.gone:
		w.fatalf("%s was dispatched to or for a peer that is gone", i.data)
	case s.service != i.service:
		w.fatalf("I10: %s for service %q went to a worker of %q", i.data, i.service, s.service)
	case i.partial:
		w.fatalf("I5: %s was dispatched after a partial", i.data)
	case old != nil:
		w.fatalf("%s was dispatched twice", i.data)
	case i.ended:
		w.fatalf("I2: %s was dispatched after its end", i.data)
	case i.deadline <= w.now:
		w.fatalf("I11: %s was dispatched at %v, its deadline was %v", i.data, w.now, i.deadline)
	}
	b.checkExtra(s, i, f)
	n, most := 0, 1 // I9
	for _, t := range b.order {
		if t.sess == s && !t.done && w.now-max(t.progress, w.d.clock.grace) < s.limit {
			n++
		}
	}
	if c := w.d.peers[p.l][p.id]; c != nil {
		most = c.concurrency
	}
	if n > most {
		w.fatalf("I9: %s was given %d requests at a time, it takes %d", p.name, n, most)
	}
	// I12: FIFO per client and service.
	for _, o := range b.instances {
		if o == i {
			break
		}
		if o.sess == i.sess && o.service == i.service && o.token == nil && !o.undone && !i.undone && w.queued(o) {
			w.fatalf("I12: %s was dispatched before %s, which is older", i.data, o.data)
		}
	}
	i.undone = false
	b.takeTurn(i)
}

// live finds an instance at the core: its end may be on its way to a client
// that does not read.
func (w *world) live(i *instance) *request {
	c := w.d.peers[i.sess.peer.l][i.sess.peer.id]
	if c == nil || c.num != i.sess.num {
		return nil
	}
	r := w.d.requests.find(c, []byte(i.rid), w.d.requests.hash(c, []byte(i.rid)))
	if r == nil || r.slot == nil && string(r.data) != i.data || r.slot != nil && (i.token == nil || string(r.slot.token[:]) != i.token.token) {
		return nil
	}
	return r
}

func (w *world) queued(i *instance) bool {
	r := w.live(i)
	return r != nil && r.queue != nil
}

func (b *book) checkExtra(s *peerLife, i *instance, f []string) {
	w := b.w
	if !s.adv {
		if want := 6 + min(len(i.options), 1); len(f) > 7 || len(f) < want {
			w.fatalf("a dispatch of %d frames to a worker that did not advertise: %q", len(f), f)
		}
		return
	}
	x, ok := parseExtra([]byte(f[len(f)-1]))
	left := int64((i.deadline - w.now) / time.Millisecond)
	switch {
	case len(f) != 8 || !ok:
		w.fatalf("a dispatch without the extra frame: %q", f)
	case i.deadline == never && x.remaining >= 0, i.deadline != never && x.remaining != max(left, 1):
		w.fatalf("I11: %d ms are left, the worker is told %d", left, x.remaining)
	case x.attempt != 1:
		w.fatalf("I14a: attempt %d", x.attempt)
	}
}

func (b *book) startTurn(i *instance) {
	if t := b.turns[i.service]; t != nil && !b.waits(i.sess, i.service, i) {
		delete(t, i.sess)
		for _, o := range t {
			delete(o, i.sess)
		}
	}
}

func (b *book) waits(s *peerLife, service string, but *instance) bool {
	for _, o := range b.instances {
		if o != but && o.sess == s && o.service == service && o.token == nil && !o.ended && !o.gone && b.w.queued(o) {
			return true
		}
	}
	return false
}

// takeTurn: I12: between two dispatches of one client every other client of
// the service that waits gets one.
func (b *book) takeTurn(i *instance) {
	t := b.turns[i.service]
	if t == nil {
		t = map[*peerLife]map[*peerLife]int{}
		b.turns[i.service] = t
	}
	delete(t, i.sess)
	for _, s := range b.sessionOf {
		if s == i.sess || s.worker {
			continue
		}
		if !b.waits(s, i.service, nil) {
			delete(t, s)
			continue
		}
		if t[s] == nil {
			t[s] = map[*peerLife]int{}
		}
		if t[s][i.sess]++; t[s][i.sess] > 2 { // one may have been under way when s began to wait
			b.w.fatalf("I12: %s was given %d dispatches at %q while %s waited", i.sess.peer.name, t[s][i.sess], i.service, s.peer.name)
		}
	}
}
