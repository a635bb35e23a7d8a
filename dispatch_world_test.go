package omdp

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// world plays a history, decoded from bytes, against a core: clients and
// workers, honest and hostile ones, pipes that fill up and peers that vanish.
// Everything goes through the codec. After every event check() must hold, and
// the book, an observer that sees nothing but frames and counters, must agree.
type world struct {
	tb    testing.TB
	d     *dispatcher
	now   instant
	src   []byte
	m     message
	peers []*simPeer
	book  book
	n     int // names data
	hold  int // events until the next flush: several fall into one turn
	trace []string
	hash  uint64
}

// simPeer is one routing id on one listener. Two clients share an id on
// different listeners, and all clients share their request ids.
type simPeer struct {
	name   string
	l      int
	id     string
	worker bool
	adv    bool
	pack   bool // it reads and writes envelopes
	full   bool // its pipe has no more room than room
	room   int
	gone   bool // the ROUTER does not know it
}

func (p *simPeer) packs() string {
	if p.pack {
		return `,"pack":1`
	}
	return ""
}

func worldLimits() limits {
	l := testLimits()
	l.serviceQueue, l.totalQueue, l.outstanding = 6, 9, 5
	l.serviceBytes, l.totalBytes = 400, 700
	l.services, l.workers, l.clients, l.concurrency = 3, 5, 8, 3
	l.outbox, l.outboxBytes, l.totalOutbox = 6, 2000, 5000
	l.malformed = 3
	l.finished, l.window = 8, 3*time.Second
	return l
}

func newWorld(tb testing.TB, src []byte) *world {
	w := &world{tb: tb, src: src}
	w.d = newDispatcher(worldLimits(), caps{V: 1, ID: "brokers-life", HB: 2500}, [32]byte{7}, 2)
	w.d.policies = map[string]DispatchPolicy{"t": LeastLoaded, "__proto__": Sticky}
	for i, id := range []string{"client-a", "client-b", "client-a", "client-d"} {
		w.peers = append(w.peers, &simPeer{name: fmt.Sprint("c", i), l: i / 2, id: id, adv: i%2 == 0, pack: i == 0})
	}
	for i := range 4 {
		w.peers = append(w.peers, &simPeer{name: fmt.Sprint("w", i), l: i % 2, id: fmt.Sprint("worker-", i), worker: true, adv: i%2 == 0, pack: i == 0})
	}
	w.book.init(w)
	return w
}

// next is the next byte of the history, 0 at its end.
func (w *world) next(n int) int {
	if len(w.src) == 0 {
		return 0
	}
	b := w.src[0]
	w.src = w.src[1:]
	return int(b) % n
}

func (w *world) fatalf(format string, a ...any) {
	w.tb.Helper()
	tail := w.trace[max(0, len(w.trace)-60):]
	w.tb.Fatalf("%s\nat %v, after\n%s", fmt.Sprintf(format, a...), w.now, strings.Join(tail, "\n"))
}

func (w *world) note(format string, a ...any) {
	s := fmt.Sprintf("%v ", w.now) + fmt.Sprintf(format, a...)
	if !strings.HasPrefix(format, "turn") { // most of them do nothing
		w.trace = append(w.trace, s)
	}
	h := fnv.New64a()
	fmt.Fprint(h, w.hash, s)
	w.hash = h.Sum64()
}

func (w *world) client() *simPeer { return w.peers[w.next(4)] }
func (w *world) worker() *simPeer { return w.peers[4+w.next(4)] }
func (w *world) service() string  { return [...]string{"s", "s", "s", "t", "__proto__"}[w.next(5)] }
func (w *world) rid() string      { return fmt.Sprint("rid-", w.next(6)) }

// play runs the history to its end.
func (w *world) play() *world {
	for len(w.src) > 0 {
		w.event()
		if w.hold > 0 {
			w.hold--
		} else {
			w.flush()
		}
	}
	w.flush()
	return w
}

func (w *world) event() {
	switch w.next(24) {
	case 0, 1, 2, 3:
		w.sendRequest(w.client())
	case 4:
		w.send(w.client(), "C", "4", w.rid())
	case 5:
		w.send(w.client(), "C", "4")
	case 6:
		w.sendHello(w.client())
	case 7:
		w.send(w.client(), "C", "10", w.rid())
	case 8:
		w.send(w.client(), "C", "9", w.rid(), fmt.Sprint(1+w.next(100)))
	case 9, 10:
		w.sendReady(w.worker())
	case 11, 12, 13:
		w.sendResult("3")
	case 14:
		w.sendResult("6")
	case 15:
		w.sendResult("4")
	case 16:
		w.sendWorkerState(w.worker())
	case 17:
		w.sendForged(w.worker())
	case 18:
		w.sendJunk(w.peers[w.next(8)])
	case 19:
		w.wait([...]time.Duration{0, time.Millisecond, 40 * time.Millisecond, 300 * time.Millisecond}[w.next(4)])
	case 20:
		w.wait([...]time.Duration{time.Second, 2500 * time.Millisecond, 5 * time.Second, 16 * time.Second}[w.next(4)])
	case 21:
		p := w.peers[w.next(8)]
		p.full, p.room = !p.full, w.next(3)
		w.note("%s full=%v room=%d", p.name, p.full, p.room)
	case 22:
		p := w.peers[w.next(8)]
		p.gone = !p.gone
		w.note("%s gone=%v", p.name, p.gone)
	case 23:
		w.seldom()
	}
}

func (w *world) seldom() {
	switch w.next(8) {
	case 0, 1, 2, 3:
		w.hold = 1 + w.next(6)
	case 4, 5: // the process was suspended
		w.flush()
		w.jump(time.Duration(1+w.next(100)) * 10 * time.Second)
	case 6:
		if w.next(4) == 0 {
			w.note("drain")
			w.d.drain(w.now)
			w.check()
		}
	case 7:
		for _, p := range w.peers {
			p.full, p.gone = false, false
		}
		w.note("all pipes work")
	}
}

func (w *world) sendRequest(c *simPeer) {
	w.n++
	data := fmt.Sprintf("%q", fmt.Sprint("data-", w.n, strings.Repeat(".", w.next(3)*30)))
	f := []string{"C", "2", w.service(), w.rid(), data}
	switch w.next(7) {
	case 0:
	case 1:
		f = append(f, `{"timeout":-1}`)
	case 2, 3:
		f = append(f, fmt.Sprintf(`{"timeout":%d}`, 1+w.next(60)*50))
	case 4:
		f = append(f, `{"failFast":true,"timeout":3000,"key":"k"}`)
	default:
		f = append(f, "{}")
	}
	w.send(c, f...)
}

func (w *world) sendHello(c *simPeer) {
	if c.adv {
		w.send(c, "C", "8", fmt.Sprintf(`{"v":1,"id":"%s-%d","hb":%d,"credit":%d%s}`, c.name, w.next(8)/7, 1000+w.next(3)*700, w.next(2)*1000, c.packs()))
	}
}

func (w *world) sendReady(p *simPeer) {
	f := []string{"W", "1", w.service()}
	if p.adv {
		f = append(f, fmt.Sprintf(`{"v":1,"id":"w","hb":%d,"concurrency":%d%s}`, 1000+w.next(3)*700, w.next(5), p.packs()))
	}
	w.send(p, f...)
}

// sendResult lets a worker answer one of those that it was given.
func (w *world) sendResult(command string) {
	held := w.book.held()
	if len(held) == 0 {
		return
	}
	t := held[w.next(len(held))]
	f := []string{"W", command, t.token, t.inst.rid}
	if command != "4" {
		w.n++
		body := fmt.Sprint("result-", w.n)
		switch w.next(4) {
		case 0:
			f = append(f, "b", body)
		case 1:
			f = append(f, fmt.Sprintf(`{"status":418,"msg":%q}`, body))
		default:
			f = append(f, fmt.Sprintf(`{"status":200,"msg":%q}`, body))
		}
	}
	w.send(t.worker, f...)
}

func (w *world) sendWorkerState(p *simPeer) {
	switch w.next(6) {
	case 0, 1, 2:
		w.send(p, "W", "4")
	case 3:
		w.send(p, "W", "5")
	case 4:
		w.send(p, "W", "11")
	case 5:
		w.send(p, "W", "8", fmt.Sprintf(`{"v":1,"id":"w","hb":1000,"concurrency":%d}`, w.next(5)))
	}
}

// sendForged names a token that the worker may not have.
func (w *world) sendForged(p *simPeer) {
	token := strings.Repeat("A", tokenLen)
	rid := w.rid()
	if all := w.book.order; len(all) > 0 {
		t := all[len(all)-1-w.next(min(len(all), 8))]
		token, rid = t.token, t.inst.rid
	}
	switch w.next(5) {
	case 0:
		rid = w.rid()
	case 1:
		token = token[:tokenLen-1] + "\xff"
	case 2:
		token = token[:tokenIndexLen] + strings.Repeat("\x00", tokenLen-tokenIndexLen)
	}
	command := [...]string{"3", "6", "4"}[w.next(3)]
	if command == "4" {
		w.send(p, "W", "4", token, rid)
	} else {
		w.send(p, "W", command, token, rid, `{"status":200,"msg":"forged"}`)
	}
}

// sendJunk is anything: short, long, of the other role, of unknown commands.
func (w *world) sendJunk(p *simPeer) {
	words := []string{"C", "W", "", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "\x01", "x", "s", "rid-1", "{}", "undefined", `{"timeout":"x"}`, `{"v":1}`, strings.Repeat("z", 300)}
	f := []string{words[w.next(3)]}
	for range w.next(8) {
		f = append(f, words[w.next(len(words))])
	}
	w.send(p, f...)
}

// send lets the core receive one message, as the broker's loop does.
func (w *world) send(p *simPeer, frames ...string) {
	w.note("%s> %s", p.name, strings.Join(frames, "|"))
	var f [][]byte
	for _, s := range frames {
		f = append(f, []byte(s))
	}
	if p.pack && w.n%2 == 0 {
		f = [][]byte{envelope(f)}
	}
	w.step(func() {
		w.book.about(p)
		before := w.d.stats
		size := [2]int{w.d.boxes[0].out.Len(), w.d.boxes[1].out.Len()}
		live := w.d.requests.n
		ok := parseAtBroker(f, &w.m)
		if ok {
			w.d.receive(w.now, p.l, []byte(p.id), &w.m)
		} else {
			w.d.malformed(w.now, p.l, []byte(p.id), string(f[0]) == "W")
		}
		for _, b := range f { // the frames were borrowed
			for i := range b {
				b[i] = 0xDB
			}
		}
		ended := live + int(w.d.stats.Accepted-before.Accepted) - w.d.requests.n
		w.countOutputs(size, int(w.d.stats.Dispatched-before.Dispatched), ended, p, ok && frames[0] == "W" && frames[1] == "5")
		w.book.received(p, ok, frames, &before)
	})
}

// countOutputs: I15: at most two outputs per input, besides dispatches (each
// may bring a notification) and the ends of requests (a terminal and a CANCEL);
// no DISCONNECT in answer to a DISCONNECT.
func (w *world) countOutputs(size [2]int, dispatches, ended int, p *simPeer, disconnect bool) {
	n := 0
	for l := range 2 {
		out := &w.d.boxes[l].out
		n += out.Len() - size[l]
		for i := size[l]; disconnect && i < out.Len(); i++ {
			f := frameStrings(out.Message(i))
			if f[0] == p.id && l == p.l && f[1] == "W" && f[2] == "5" {
				w.fatalf("I15: a DISCONNECT was answered with a DISCONNECT")
			}
		}
	}
	if most := 2 + 2*dispatches + 2*ended; n > most {
		w.fatalf("I15: %d outputs for one input, at most %d", n, most)
	}
}

// step runs one event of the core, with the invariants before and after.
func (w *world) step(event func()) {
	w.tb.Helper()
	var before [2][]byte
	var n [2]int
	for l := range before {
		before[l], n[l] = bytes.Clone(w.d.boxes[l].out.B), w.d.boxes[l].out.Len()
	}
	event()
	for l := range before { // S7: emitted frames never change later
		if !bytes.HasPrefix(w.d.boxes[l].out.B, before[l]) {
			w.fatalf("S7: what was emitted changed")
		}
		for ; n[l] < w.d.boxes[l].out.Len(); n[l]++ {
			w.book.emitted(l, w.d.boxes[l].out.Message(n[l]))
		}
	}
	w.check()
}

func (w *world) check() {
	w.tb.Helper()
	if err := w.d.check(); err != nil {
		w.fatalf("%v", err)
	}
	w.book.sessions()
	w.d.notes = w.d.notes[:0]
}

// wait lets time pass, with a turn whenever the core asked for one.
func (w *world) wait(t time.Duration) {
	w.flush()
	end := w.now + t
	for range 100_000 {
		due := max(w.d.deadline(), w.now)
		if end-due > 100*time.Millisecond { // a turn every few ms for a stuck peer would only take long
			due = max(due, min(w.d.timers.next(), w.now+200*time.Millisecond))
		}
		if due > end {
			break
		}
		w.turn(due)
	}
	w.turn(end)
}

// turn is one turn of the loop without messages.
func (w *world) turn(now instant) {
	w.now = now
	w.note("turn")
	w.step(w.expire)
	w.flush()
	w.book.timely()
}

func (w *world) expire() {
	ignored, gone := w.book.ignored(), w.d.stats.ClientGone
	w.d.expire(w.now)
	for _, i := range ignored {
		if w.d.stats.ClientGone > gone && w.live(i) == nil {
			w.book.leave(i)
		}
	}
}

// jump lets time pass without a turn.
func (w *world) jump(t time.Duration) {
	w.d.deadline()
	w.note("jump %v", t)
	w.now += t
	w.step(w.expire)
	// R3: no mass disconnection; only strangers, and clients that never beat, may be forgotten.
	for _, s := range w.book.sessionOf {
		if s.over == w.now && strings.Contains(s.reason, "silent") {
			w.fatalf("R3: %s was dropped for a jump of the clock", s.peer.name)
		}
	}
	w.flush()
}

// flush hands the outboxes to the network until there is nothing to send.
func (w *world) flush() {
	w.hold = 0
	for l := range 2 {
		for round := 0; w.d.pending(l); round++ {
			if round > 200 {
				w.fatalf("the core never stops sending")
			}
			w.exchange(l)
		}
	}
	for l := range 2 {
		if w.d.pending(l) { // settling one listener may have produced something for the other
			w.flush()
			return
		}
	}
}

func (w *world) exchange(l int) {
	w.d.deadline()
	out := w.d.take(l)
	blocked := map[string]bool{}
	var sent [][]string
	var lost [][]string
	for i := range out.Results {
		f := frameStrings(out.Message(i))
		p := w.peer(l, f[0])
		if in := (batch.In{B: out.Message(i)}); len(in.Next()) == 2 && (p == nil || !p.pack) {
			w.fatalf("an envelope for %s, which did not tell that it reads them", f[0])
		}
		s := batch.Sent
		switch {
		case p == nil:
		case p.gone:
			s = batch.Unreachable
		case blocked[f[0]] || p.full && p.room == 0:
			s = batch.Again
			blocked[f[0]] = true
		case p.full:
			p.room--
		}
		out.Results[i] = s
		if origins := w.d.boxes[l].oldOrigin; s != batch.Again || !origins[i].backlog {
			w.note("  %s %s %s", [...]string{"pending", "to", "no room for", "can't reach"}[s], f[0], strings.Join(f[1:], "|"))
		}
		if s == batch.Sent {
			sent = append(sent, f)
		} else {
			lost = append(lost, f)
			if q := w.d.boxes[l].oldOrigin[i].peer; q == nil || q.dead {
				w.book.dropped(p, f)
			}
		}
	}
	w.book.unsent(l, lost)
	for _, f := range sent {
		w.book.delivered(l, f)
	}
	w.step(func() { w.d.settle(w.now, l) })
}

func (w *world) peer(l int, id string) *simPeer {
	for _, p := range w.peers {
		if p.l == l && p.id == id {
			return p
		}
	}
	return nil
}

func frameStrings(packed []byte) []string {
	in := batch.In{B: packed}
	all := in.Next()
	if len(all) == 2 && len(all[1]) > 0 && all[1][0] == batch.Mark {
		inner, ok := batch.Unpack(all[1], nil, maxFrames)
		if !ok {
			panic("an envelope that can't be read")
		}
		all = append(all[:1:1], inner...)
	}
	var s []string
	for _, f := range all {
		s = append(s, string(f))
	}
	return s
}

// heal mends every pipe and lets everything end: L1, L2, R5.
func (w *world) heal() {
	w.note("heal")
	for _, p := range w.peers {
		p.full, p.gone = false, false
	}
	for _, p := range w.peers {
		if !p.worker {
			w.send(p, "C", "4") // without a beat, a request without a deadline has no end
		}
	}
	w.wait(20 * time.Millisecond) // the backlogs empty themselves
	if n := w.d.blocked.n; n != 0 {
		w.fatalf("%d peers are still blocked though their pipes work", n)
	}
	w.wait(2*w.d.lim.ignoreFor + 3*foreignLiveness)
	for _, p := range w.peers {
		p.gone = true
	}
	w.wait(w.d.lim.ignoreFor) // clients that never beat and gave no timeout are found out
	for _, i := range w.book.instances {
		if !i.ended && !i.gone {
			w.fatalf("I3: request %s of %s never ended", i.data, i.sess.peer.name)
		}
	}
	if err := w.d.empty(); err != nil {
		w.fatalf("%v", err)
	}
	for _, p := range w.peers {
		p.gone = false
	}
	if !w.d.draining {
		w.n++
		w.send(w.peers[0], "C", "2", "s", "after", fmt.Sprint(w.n))
		w.send(w.peers[5], "W", "1", "s")
		w.flush()
		held := w.book.held()
		if len(held) != 1 {
			w.fatalf("L1: a new request was dispatched %d times", len(held))
		}
		w.send(w.peers[5], "W", "3", held[0].token, "after", `{"status":200,"msg":1}`)
		w.flush()
		if i := slices.IndexFunc(w.book.instances, func(i *instance) bool { return i.rid == "after" && i.ended }); i < 0 {
			w.fatalf("L1: a new request got no final")
		}
	}
}
