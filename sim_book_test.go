package omdp

import (
	"encoding/binary"
	"slices"
	"time"
)

// simBook is the outside observer: its own account of what was asked, who was
// given it, what each owner said and what reached whom, kept from what crosses
// the wire. Of the core it looks at counters, and asks it only whether a peer
// or a request is there, where the wire does not tell.
type simBook struct {
	w       *simWorld
	calls   []simCall
	insts   []simInst
	toks    []simTok
	open    []int32 // instances that are neither ended nor gone
	owed    []simOwed
	m       message
	f       [][]byte // scratch of frames
	seq     int64    // of what happens at workers, for I14
	sent    int      // REQUESTs that clients put on the wire
	retries [simClients]int
}

// simCall is one call of a client, or of a raw peer that plays one.
type simCall struct {
	client   int // of the world's clients; raw peers count on
	n        int // its place among all
	form     int // of its data
	options  string
	rid      string
	service  byte
	idem     bool
	timeout  time.Duration // ≤ 0: none
	deadline instant       // by its client's clock; never: none
	script   uint16        // what a handler does
	former   []string      // ids that were used up

	ended   bool
	twice   bool // a broker had it twice: once for a socket that it did not know any more
	harmed  bool // a handler of a raw peer's had it: what it says is not ours
	attempt int
	sends   int
	link    *simLink // of the last REQUEST
	runs    int      // handlers started
	ran     int      // … that said their final
	outcome Outcome
	tok     int32 // whose partials the user was given; -1: none
	parts   int

	inst [2]int32 // the latest at each broker, of life
	life [2]int
}

// simOwed is an answer to a REQUEST that was refused.
type simOwed struct {
	call int
	link *simLink
	gone bool // the peer was forgotten since then
}

// simInst is one acceptance of a REQUEST.
type simInst struct {
	call        int32
	b           *simBroker
	rid         string
	link        *simLink // whom it answers to
	num         uint32   // … as the core knows it
	asked       int
	deadline    instant // by the broker's clock
	tok         int32   // the current one; -1: queued
	undone      bool    // a dispatch of it could not be sent
	partial     bool    // one was forwarded
	over        bool    // had its terminal, or is owed none
	acceptedSeq int64
	acceptedAt  instant // by the broker's clock
	adv         bool    // its client had told its life then
	more        bool    // its data comes in pieces
	reported    bool    // its client was sent a final
	dispatched  bool
	gone        bool // its client was forgotten, or asks anew on another link
	terminal    bool // it was told its end
	left, cause bool // the core has it no more; its worker was lost then
	untold      bool // … while its client was over the limit of what it does not read
	rejected    bool // … it was handed back
	back        bool // it was handed back, and goes to whose turn it is
	final       bool // its worker's final was taken
}

// simTok is one dispatch.
type simTok struct {
	token   [tokenLen]byte
	inst    int32
	link    *simLink // the worker's
	num     uint32   // the worker, as the core knows it
	heard   instant  // by the broker's clock
	said    int      // partials that the worker put on the wire
	put     int      // partials that the broker put on the wire
	took    int      // … and that it took
	form    int      // of its values
	run     bool
	skipped bool // no handler began
	final   bool // the worker put a final on the wire
	got     bool // the broker took it
	done    bool // the broker took it back
}

// linkBook is what the observer knows of one connection at its broker.
type linkBook struct {
	num      uint32 // of the peer at the core; 0: unknown there
	worker   bool
	adv      bool
	told     time.Duration // its interval
	heard    instant       // by the broker's clock
	toldAt   instant       // the broker's last word to it that was taken
	owedEnd  int           // LOST answers
	left     bool          // it said DISCONNECT or broke the rules: the broker may forget it
	unreach  bool
	gone     bool // the core forgot it
	toldCaps bool // the broker's capabilities came on it
	full     bool // in the present batch there was no room for it
	held     int
	most     int   // that the worker takes at a time, as far as the broker has read
	had      int   // what it held, as the core knows it, before the step
	lastSeq  int64 // the last dispatch to it
	anySeq   int64 // the last change of its places
	drained  bool
	unclear  bool    // the broker waits for it to show its dialect
	vague    bool    // … and once did not know better
	rude     bool    // a hostile peer: what it may do is not checked
	beatAt   instant // by its own clock: its last beat
}

type brokerBook struct {
	said     [simListeners]int
	requests int    // live at the core before the step
	peers    uint32 // nextPeer at the last look
	total    int
	live     int // instances of it in open
	slots    []int32
	undone   [2]int32 // by service: what is at the head of all, as it could not be sent; -1: nothing
	inBatch  [2]bool
	links    []*simLink // that the core knows
	skips    [2][simClients][simClients]uint8
	lastOf   [simClients]*simLink // that was given a dispatch
	unsure   bool                 // in this step peers may get room
	draining bool
	shut     bool
}

func (k *brokerBook) reset() {
	*k = brokerBook{slots: k.slots[:0], links: k.links[:0], undone: [2]int32{-1, -1}}
}

func (k *simBook) reset(w *simWorld) {
	*k = simBook{w: w, calls: k.calls[:0], insts: k.insts[:0], toks: k.toks[:0], open: k.open[:0], owed: k.owed[:0], f: k.f}
}

// frames reads one packed message, where it stands.
func (k *simBook) frames(packed []byte) [][]byte {
	n := binary.NativeEndian.Uint32(packed)
	packed = packed[4:]
	k.f = k.f[:0]
	for range n {
		end := 4 + binary.NativeEndian.Uint32(packed)
		k.f = append(k.f, packed[4:end:end])
		packed = packed[end:]
	}
	return k.f
}

// newCall notes a call that is about to be made.
func (k *simBook) newCall(c simCall) int {
	c.tok, c.inst, c.n = -1, [2]int32{-1, -1}, len(k.calls)
	k.calls = append(k.calls, c)
	return len(k.calls) - 1
}

// callOf reads the number of the call out of a request's data: "c0001 …".
func (k *simBook) callOf(data []byte) int {
	s := plainWord(data)
	if len(s) < 6 || s[0] != 'c' {
		return -1
	}
	n := 0
	for i := 1; i < 5; i++ {
		v := hexValue(s[i])
		if v < 0 {
			return -1
		}
		n = n<<4 | v
	}
	if n >= len(k.calls) {
		return -1
	}
	return n
}

// bodyOf reads a handler's word: {"status":200,"msg":"t0001p2"}.
func (k *simBook) bodyOf(body [][]byte) (tok int, kind byte, n int) {
	const head = `{"status":200,"msg":"t`
	if len(body) != 1 || len(body[0]) != len(head)+8 || string(body[0][:10]) != head[:10] || string(body[0][13:len(head)]) != head[13:] || string(body[0][len(head)+6:]) != `"}` {
		return -1, 0, 0
	}
	b := body[0][len(head):]
	for _, c := range b[:4] {
		v := hexValue(c)
		if v < 0 {
			return -1, 0, 0
		}
		tok = tok<<4 | v
	}
	if tok >= len(k.toks) {
		return -1, 0, 0
	}
	return tok, b[4], int(b[5] - '0')
}

// current finds the latest instance of a call at b, -1 if there is none.
func (k *simBook) current(c *simCall, b *simBroker) int32 {
	if c.life[b.num] != b.life {
		return -1
	}
	return c.inst[b.num]
}

// at finds the instance of a call that answers to l; else the latest.
func (k *simBook) at(ci int, b *simBroker, l *simLink) int32 {
	c := &k.calls[ci]
	if c.twice {
		for i := len(k.insts) - 1; i >= 0; i-- {
			if in := &k.insts[i]; int(in.call) == ci && in.b == b && in.link == l {
				return int32(i)
			}
		}
	}
	return k.current(c, b)
}

// sentTo finds the instance whose answer l is given: it may have waited for
// room since before the latest, of another link.
func (k *simBook) sentTo(ci int, b *simBroker, l *simLink) int32 {
	latest := k.at(ci, b, l)
	if latest >= 0 && k.insts[latest].link != l {
		for i := latest - 1; i >= 0; i-- {
			if in := &k.insts[i]; int(in.call) == ci && in.link == l && in.over {
				return i
			}
		}
	}
	return latest
}

// named tells whether rid is, or was, the call's.
func (c *simCall) named(rid []byte) bool {
	return c.rid == string(rid) || slices.Contains(c.former, string(rid))
}

// callByRID finds the call that a link's message names.
func (k *simBook) callByRID(l *simLink, rid []byte) int {
	client := k.w.clientOf(l)
	if client < 0 {
		return -1
	}
	for i := len(k.calls) - 1; i >= 0; i-- {
		if c := &k.calls[i]; c.client == client && (c.rid == string(rid) || slices.Contains(c.former, string(rid))) {
			return i
		}
	}
	return -1
}

// arrives is called before the broker takes a message, arrived after it.
func (k *simBook) arrives(b *simBroker, l *simLink, ok bool, f [][]byte) {
	b.book.requests = b.d.requests.n
	if p := b.d.peers[l.lis][l.id]; p == nil || p.ignoredUntil <= b.now() {
		l.book.heard = b.now()
		if p != nil {
			l.book.had = p.held
		}
	}
}

func (k *simBook) arrived(b *simBroker, l *simLink, ok bool, f [][]byte) {
	was, st := &b.before, &b.d.stats
	if !ok {
		if !l.book.rude {
			k.w.fail("%s: a malformed message of an honest peer", l.id)
		}
		l.book.left = true
		after := *st // R2: it moves its sender's counter only
		after.Malformed, after.WorkerLost, after.Dropped, after.Ignored = was.Malformed, was.WorkerLost, was.Dropped, was.Ignored
		after.Abandoned, after.SlowClients, after.WrongDialect = was.Abandoned, was.SlowClients, was.WrongDialect // FailFast, without a worker now; a peer told so that does not read
		if after != *was {
			k.w.fail("R2: a malformed message changed more than it may: %+v to %+v", *was, *st)
		}
		return
	}
	if st.Malformed != was.Malformed || st.Ignored != was.Ignored {
		l.book.left = true
		if !l.book.rude {
			k.w.fail("R2: an honest message of %s was counted as malformed", l.id)
		}
		return
	}
	m := &b.m
	switch m.op {
	case opRequest:
		k.request(b, l, m)
	case opHello, opReady:
		if b.d.peers[l.lis][l.id] == nil { // refused at a limit
			break
		}
		l.book.adv = l.book.adv || m.caps != nil
		if !l.book.rude {
			if m.worker {
				k.takes(b, l, m)
			}
			l.book.told = l.peer.host.(interface{ beat() time.Duration }).beat()
		}
	case opReject:
		k.rejected(b, l, m)
	case opHeartbeat:
		if m.worker && m.level > 0 && b.d.peers[l.lis][l.id] != nil {
			if l.book.most != min(m.level, b.d.lim.concurrency) {
				l.book.most, l.book.anySeq = min(m.level, b.d.lim.concurrency), k.next()
			}
		}
		if m.worker && m.token != nil {
			if t := k.tokOf(b, m.token); t != nil && t.link == l {
				t.heard = b.now()
			}
		}
		if n := int(st.UnknownRequests - was.UnknownRequests); n > 0 {
			l.book.owedEnd += n
		}
	case opCancel:
		k.canceled(b, l, m)
	case opReply, opPartial:
		k.reply(b, l, m)
	case opPiece, opBlocked, opCredit:
		if t := k.tokOf(b, m.token); t != nil && t.link == l {
			t.heard = b.now()
		}
		if !l.book.rude && st.Overdrawn != was.Overdrawn {
			k.w.fail("%s ended a request by what it may send", l.id)
		}
	case opDisconnect:
		l.book.left = true
	case opDrain:
		l.book.drained = true
	}
	if m.op != opReply && m.op != opPartial && (st.Completed != was.Completed || st.Partials != was.Partials) {
		k.w.fail("I6: a result was counted for a message that is none")
	}
}

// takes: from now on a worker is given so many at a time. What it has, it keeps.
func (k *simBook) takes(b *simBroker, l *simLink, m *message) {
	n := 1
	if m.caps != nil {
		c, _ := parseCaps(m.caps)
		n = min(max(c.Concurrency, 1), b.d.lim.concurrency)
	}
	if p := b.d.peers[l.lis][l.id]; m.op == opHello && (p.held < l.book.had || n <= l.book.most && p.held != l.book.had) {
		k.w.fail("I9: %s takes %d at a time, not %d: it had %d and has %d", l.id, n, l.book.most, l.book.had, p.held)
	}
	l.book.most = n
	l.book.anySeq = k.next() // it may be at the end of the line of free workers now
}

// request: I21 and the rules of adoption, by the counters that moved.
func (k *simBook) request(b *simBroker, l *simLink, m *message) {
	w, was, st := k.w, &b.before, &b.d.stats
	ci := k.carries(m, func() int { return k.callByRID(l, m.rid) })
	if ci >= 0 && !l.wire.numbered && k.calls[ci].client == w.clientOf(l) {
		k.calls[ci].rid = string(m.rid)
	}
	if ci < 0 || k.calls[ci].client != w.clientOf(l) || !k.calls[ci].named(m.rid) {
		if !l.book.rude {
			w.fail("a REQUEST that nobody made: %q", m.data)
		}
		return
	}
	c := &k.calls[ci]
	o, _ := parseOptions(m.options)
	asked := max(o.attempt, 1)
	old := k.at(ci, b, l)
	var was1 *simInst // what is live
	if old >= 0 && !k.insts[old].over {
		was1 = &k.insts[old]
	}
	if was1 != nil && was1.rid != string(m.rid) { // under a new id it is another request
		c.twice, was1, old = true, nil, -1
	}
	accepted, adopted := st.Accepted != was.Accepted, st.Adopted != was.Adopted
	dup, refused := st.Duplicates != was.Duplicates, st.Refused != was.Refused
	n := 0
	for _, x := range [...]bool{accepted, adopted, dup, refused || st.Overloaded != was.Overloaded && !accepted} {
		if x {
			n++
		}
	}
	if n != 1 {
		w.fail("a REQUEST vanished: accepted %v, adopted %v, duplicate %v, refused %v", accepted, adopted, dup, refused)
	}
	switch {
	case adopted:
		if c.twice { // which of them?
			if i := k.liveOf(ci, b, l); i >= 0 {
				was1 = &k.insts[i]
			}
		}
		if was1 == nil || was1.link == l || asked <= was1.asked || was1.restarts(m) && !was1.over {
			w.fail("adoption of what may not be adopted: attempt %d of %s", asked, c.rid)
		}
		was1.link, was1.num, was1.asked = l, b.d.peers[l.lis][l.id].num, asked
		was1.undone = false // it goes to the tail
		was1.deadline = k.deadlineAt(b, o)
		was1.acceptedSeq = k.next()
		k.unskip(b, c)
	case accepted:
		if was1 != nil {
			// A peer that was forgotten and did not greet again has no life to be known by.
			if same := l.book.adv && was1.adv; was1.link == l || same && (asked <= was1.asked || !was1.restarts(m)) {
				if was1.link != l && k.coreHas(was1, true) || !k.mayVanish(was1) {
					w.fail("I21: %s is live at b%d and was accepted again", c.rid, b.num)
				}
			}
			// A forgotten peer's life may be remembered: then the new attempt takes the place of the old.
			if l.book.adv && was1.adv || was1.link == l || was1.restarts(m) && asked > was1.asked && !k.coreHas(was1, true) {
				was1.gone = was1.gone || was1.link != l // its terminal may wait for room
				k.close(old)
			} else {
				c.twice = true
			}
		} else if old >= 0 && k.insts[old].rid == string(m.rid) && l.book.adv && b.d.lim.window > 0 {
			e := &k.insts[old]
			if (asked <= e.asked || e.reported) && b.now()-e.acceptedAt < b.d.lim.window && e.adv {
				w.fail("I21: %s ended at b%d within the window and attempt %d was accepted again", c.rid, b.num, asked)
			}
		}
		k.waitsAnew(b, c)
		k.insts = append(k.insts, simInst{call: int32(ci), rid: string(m.rid), b: b, link: l, num: b.d.peers[l.lis][l.id].num, asked: asked,
			deadline: k.deadlineAt(b, o), tok: -1, acceptedSeq: k.next(), acceptedAt: b.now(), adv: l.book.adv, more: m.pieces})
		i := int32(len(k.insts) - 1)
		c.inst[b.num], c.life[b.num] = i, b.life
		k.open = append(k.open, i)
		b.book.live++
	case dup:
		if !c.twice && (was1 == nil || was1.link != l && asked > was1.asked) {
			w.fail("I21: attempt %d of %s at b%d was dropped as a duplicate of nothing", asked, c.rid, b.num)
		}
	default:
		if was1 != nil && was1.link != l && asked > was1.asked && was1.restarts(m) { // its former socket's is over all the same
			k.close(old)
		}
		if st.Dropped == was.Dropped {
			k.owed = append(k.owed, simOwed{call: ci, link: l})
		}
	}
}

// refused settles one answer that is owed for a refused REQUEST. One that was
// owed to a peer that was forgotten (gone) may have been written before.
func (k *simBook) refused(ci int, l *simLink, gone bool) bool {
	i := slices.Index(k.owed, simOwed{ci, l, gone})
	if i < 0 {
		return false
	}
	k.owed = slices.Delete(k.owed, i, i+1)
	return true
}

// waitsAnew: a client that had nothing waiting at a service starts its turn.
func (k *simBook) waitsAnew(b *simBroker, c *simCall) {
	for _, i := range k.open {
		if o := &k.insts[i]; o.b == b && o.tok < 0 && k.calls[o.call].client == c.client && k.calls[o.call].service == c.service && k.queued(o) {
			return
		}
	}
	k.unskip(b, c)
}

// liveOf finds an instance that the core has no more for the link that the book knows.
func (k *simBook) liveOf(ci int, b *simBroker, l *simLink) int32 {
	for _, i := range k.open {
		if in := &k.insts[i]; int(in.call) == ci && in.b == b && in.link != l && !k.coreHas(in, true) {
			return i
		}
	}
	return -1
}

// deadlineAt is when a request's time is over, by what it asks for.
func (k *simBook) deadlineAt(b *simBroker, o options) instant {
	t := o.timeout
	if t == timeoutDefault {
		t = b.d.lim.defaultTimeout
	}
	if t < 0 {
		return never
	}
	return b.now() + t
}

func (k *simBook) next() int64 { k.seq++; return k.seq }

// tokOf finds a dispatch of this life of b by its token.
func (k *simBook) tokOf(b *simBroker, token []byte) *simTok {
	if len(token) != tokenLen {
		return nil
	}
	n := 0
	for i := range tokenIndexLen {
		v := base64value[token[i]]
		if v == 255 {
			return nil
		}
		n |= int(v) << (6 * i)
	}
	if n >= len(b.book.slots) || b.book.slots[n] < 0 {
		return nil
	}
	if t := &k.toks[b.book.slots[n]]; string(t.token[:]) == string(token) {
		return t
	}
	return nil
}

// reply: I1, I6: what counts as a result is what the owner said under the current token.
func (k *simBook) reply(b *simBroker, l *simLink, m *message) {
	w, was, st := k.w, &b.before, &b.d.stats
	final := m.op == opReply
	took := st.Completed != was.Completed || st.Partials != was.Partials
	t := k.tokOf(b, m.token)
	if t == nil || t.link != l || t.num != l.book.num && l.book.num != 0 {
		if took {
			w.fail("I6: the result of a worker that does not hold the request was taken")
		}
		return
	}
	t.heard = b.now()
	if final {
		if !t.got && !t.done {
			l.book.held--
			l.book.anySeq = k.next()
		}
		defer func() { t.got = true }()
	}
	if t.inst < 0 { // a raw peer's
		return
	}
	in := &k.insts[t.inst]
	c := &k.calls[in.call]
	c.harmed = c.harmed || l.book.rude && took
	current := in.tok == k.tokIndex(b, t) && !in.over && !t.got && !t.done
	switch {
	case took && (!current || final != (st.Completed != was.Completed)):
		w.fail("I6: a result of %s was taken under a token that is not the current one, or after its end", c.rid)
	case took && m.rid != nil && in.rid != string(m.rid):
		w.fail("I1: a result for another request was taken")
	case !took && current && t.num == l.book.num && k.coreHas(in, true):
		w.fail("a result of %s was lost", c.rid)
	}
	in.final = in.final || took && final
	if took && !final {
		in.partial = true
		t.took++
	}
}

func (k *simBook) tokIndex(b *simBroker, t *simTok) int32 {
	n := 0
	for i := range tokenIndexLen {
		n |= int(base64value[t.token[i]]) << (6 * i)
	}
	return b.book.slots[n]
}

// close ends an instance in the book.
func (k *simBook) close(i int32) {
	in := &k.insts[i]
	if in.over {
		return
	}
	in.over = true
	in.b.book.live--
	for j, o := range k.open {
		if o == i {
			k.open[j] = k.open[len(k.open)-1]
			k.open = k.open[:len(k.open)-1]
			break
		}
	}
}
