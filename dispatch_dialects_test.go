package omdp

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// dialectWorld plays a history, decoded from bytes, of peers of every dialect
// against a core: each dialect has a listener, and one is for whoever comes. They
// are given what they ask for in their own dialect alone, one answer for each
// request, which is what the worker said who was given it.
type dialectWorld struct {
	tb    fataler
	d     *dispatcher
	now   instant
	src   []byte
	m     message
	peers []*dialectPeer
	n     int        // requests made
	asked [][][]byte // what each asked, as frames
	held  []dialectHeld
	trace []string
}

type fataler interface {
	Helper()
	Fatalf(format string, a ...any)
}

type dialectPeer struct {
	id    string
	l     int
	x     *wire
	adv   bool
	full  bool
	gone  bool
	sent  int            // requests
	asked int            // … that were accepted
	ended int            // finals
	ends  map[string]int // … by id
	lost  bool           // it may miss some, or gets what it did not ask for as a peer of its dialect
}

// dialectHeld is a request at a worker.
type dialectHeld struct {
	p          *dialectPeer
	token, rid string
	n          int
}

var dialectServices = [...]string{"s", "s", "s*", "t@1.0.0", "t@1.4.2", "t@1.4.2", "st*", "*", "u"}
var dialectNames = [...]string{"s", "s", "sx", "stu", "t@^1.0.0", "t@1.x", "t@1.0.0", "t@<1.2", "u", "mmi.service"}

func newDialectWorld(tb fataler, src []byte) *dialectWorld {
	w := &dialectWorld{tb: tb, src: src}
	l := worldLimits()
	l.services, l.workers, l.clients, l.frame = 6, 12, 30, 300
	l.inProgress, l.dropPartials = [...]time.Duration{0, 9 * time.Second}[w.next(2)], w.next(3) == 0
	l.totalOutbox = [...]int64{5000, 5000, 1500, 700}[w.next(4)]
	w.d = newDispatcher(l, caps{V: 1, ID: "brokers-life", HB: 2500}, [32]byte{9}, len(wires))
	for i := range wires {
		w.d.dialects[i] = Dialect(i)
	}
	w.d.policies = map[string]DispatchPolicy{"u": Sticky}
	for i := range 2 {
		for x, wire := range wires {
			l := x
			if wire.dialect != OMDPFinal && wire.dialect != PIGATO && i == 1 {
				l = 0
			}
			w.peers = append(w.peers, &dialectPeer{id: fmt.Sprintf("c%d-%d", x, i), l: l, x: wire, adv: x == 0})
		}
	}
	for i := range 2 {
		w.peers = append(w.peers, &dialectPeer{id: fmt.Sprintf("w-%d", i), l: int(PIGATO), x: wires[PIGATO]})
		for x, wire := range wires {
			w.peers = append(w.peers, &dialectPeer{id: fmt.Sprintf("w%d-%d", x, i), l: x * (1 - i), x: wire, adv: x == 0})
		}
	}
	return w
}

func (w *dialectWorld) next(n int) int {
	if len(w.src) == 0 {
		return 0
	}
	b := w.src[0]
	w.src = w.src[1:]
	return int(b) % n
}

func (w *dialectWorld) fatalf(format string, a ...any) {
	w.tb.Helper()
	w.tb.Fatalf("%s\nat %v, after\n%s", fmt.Sprintf(format, a...), w.now, strings.Join(w.trace[max(0, len(w.trace)-50):], "\n"))
}

func (w *dialectWorld) client() *dialectPeer { return w.peers[w.next(2*len(wires))] }
func (w *dialectWorld) worker() *dialectPeer { return w.peers[2*len(wires)+w.next(2*len(wires)+2)] }

func (w *dialectWorld) play() *dialectWorld {
	for len(w.src) > 0 {
		w.event()
		w.flush()
	}
	return w
}

func (w *dialectWorld) event() {
	switch w.next(16) {
	case 0, 1, 2, 3:
		w.ask(w.client())
	case 4, 5:
		w.ready(w.worker())
	case 6, 7, 8:
		w.result(opReply)
	case 9:
		w.result(opPartial)
	case 10:
		w.result(opReject)
	case 11:
		w.beat()
	case 12:
		w.odd()
	case 13:
		p := w.peers[w.next(len(w.peers))]
		if p.full = !p.full; w.next(6) == 0 {
			p.gone, p.lost = !p.gone, true
		}
		p.lost = p.lost || p.full && p.x.beats // its silence may end it before it reads what waits for it
		w.note("%s: full %v, gone %v", p.id, p.full, p.gone)
	case 14:
		w.wait([...]time.Duration{time.Millisecond, 30 * time.Millisecond, 60 * time.Millisecond, 400 * time.Millisecond}[w.next(4)])
	case 15:
		w.wait([...]time.Duration{time.Second, 3 * time.Second, 3 * time.Second, 16 * time.Second}[w.next(4)])
	}
}

func (w *dialectWorld) note(format string, a ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%v ", w.now)+fmt.Sprintf(format, a...))
}

// send has a peer say all that o holds.
func (w *dialectWorld) send(p *dialectPeer, o *batch.Out) {
	in := batch.In{B: o.B}
	for range o.Len() {
		w.says(p, in.Next())
	}
}

func (w *dialectWorld) words(p *dialectPeer, frames ...string) {
	var f [][]byte
	for _, s := range frames {
		f = append(f, []byte(s))
	}
	w.says(p, f)
}

func (w *dialectWorld) says(p *dialectPeer, f [][]byte) {
	var copied [][]byte
	for _, b := range f {
		copied = append(copied, bytes.Clone(b))
	}
	w.note("%s> %q", p.id, copied)
	w.d.expire(w.now)
	accepted := w.d.stats.Accepted
	ok := w.d.read(p.l, []byte(p.id), copied, &w.m)
	if ok {
		w.d.receive(w.now, p.l, []byte(p.id), &w.m)
	} else {
		w.d.malformed(w.now, p.l, []byte(p.id), w.m.worker)
	}
	if w.d.stats.Accepted != accepted {
		p.asked++
	}
	w.check()
	for _, b := range copied { // nothing is kept that was not copied
		for i := range b {
			b[i] = '#'
		}
	}
}

func (w *dialectWorld) check() {
	w.d.notes = w.d.notes[:0]
	if err := w.d.check(); err != nil {
		w.fatalf("%v", err)
	}
}

func (w *dialectWorld) ask(p *dialectPeer) {
	if p.adv && w.next(2) == 0 {
		w.words(p, "C", "8", `{"v":1,"id":"`+p.id+`","hb":2500}`)
	}
	w.n++
	name, data, f := dialectNames[w.next(len(dialectNames))], fmt.Appendf(nil, `"d%d"`, w.n), formJSON
	if p.x.opaque {
		f = formLoose
		switch w.next(5) {
		case 0:
			data = fmt.Appendf(nil, "\xffd%d", w.n)
		case 1:
			data, f = packFrames(nil, [][]byte{data, []byte("x\xff"), {}}), formFrames
		case 2:
			data, f = packFrames(nil, append([][]byte{data}, bytes.Split([]byte("aaaaaaaaaaaa"), nil)...)), formFrames
		}
	}
	if asked := [][]byte{data}; f == formFrames {
		w.asked = append(w.asked, unpackFrames(data, nil))
	} else {
		w.asked = append(w.asked, asked)
	}
	options := []byte([...]string{"{}", `{"timeout":900}`, `{"timeout":-1}`, `{"timeout":4000,"failFast":true}`, `{"key":"k"}`}[w.next(5)])
	var o batch.Out
	p.x.appendAsk(&o, name, fmt.Sprintf("r%d", w.n), data, options, f)
	p.sent++
	want, live := w.serves(name), w.d.lookupAny(p)
	w.send(p, &o)
	if w.d.lookupAny(p) <= live { // refused, or too large for those that are free
		return
	}
	if q := w.d.peers[p.l][p.id]; q != nil && q.requests.tail != nil {
		if r := q.requests.tail.owner; r.service.name != want {
			w.fatalf("I10: %q is served by %q, want %q", name, r.service.name, want)
		}
	}
}

// serves says whose a request for a name is: of workers of that name, else of the
// newest version that it allows, else of the longest pattern.
func (w *dialectWorld) serves(name string) string {
	best, newest := "", version{}
	base, wanted, at := strings.Cut(name, "@")
	for n, s := range w.d.services {
		if s.workers == 0 {
			continue
		}
		if n == name {
			return n
		}
		b, text, _ := strings.Cut(n, "@")
		if v, ok := parseVersion(text); ok && s.pattern && at && b == base && allows(wanted, v) && (!strings.Contains(best, "@") || v.compare(newest) > 0) {
			best, newest = n, v
		}
		if strings.HasSuffix(n, "*") && s.pattern && strings.HasPrefix(name, n[:len(n)-1]) && !strings.Contains(best, "@") && len(n) > len(best) {
			best = n
		}
	}
	if best == "" {
		return name
	}
	return best
}

func (w *dialectWorld) ready(p *dialectPeer) {
	service := dialectServices[w.next(len(dialectServices))]
	if p.adv {
		w.words(p, "W", "1", service, `{"v":1,"id":"`+p.id+`","hb":2500,"concurrency":2`+[...]string{"", `,"body":9`, `,"body":40`, `,"body":400`}[w.next(4)]+"}")
		return
	}
	var o batch.Out
	p.x.appendReady(&o, service)
	if p.x == wires[PIGATO] && w.next(4) > 0 {
		p.x.appendWorkerBeat(&o, 1+w.next(3), "", "")
	}
	w.send(p, &o)
}

// result lets a worker say something of a request that it was given, in its own
// dialect, or seldom in another.
func (w *dialectWorld) result(op op) {
	if len(w.held) == 0 {
		return
	}
	i := w.next(len(w.held))
	h := w.held[i]
	x := h.p.x
	if op == opReject {
		if x.rejects {
			w.words(h.p, "W", "7", h.token, "", h.rid)
			w.held = slices.Delete(w.held, i, i+1)
		}
		return
	}
	if op == opPartial && !x.partials {
		return
	}
	if w.next(20) == 0 {
		x = wires[w.next(len(wires))]
	}
	value := fmt.Appendf(nil, `"v%d"`, h.n)
	m := message{op: op, token: []byte(h.token), rid: []byte(h.rid), said: saidValue, form: formJSON, body: [][]byte{value}}
	switch c := w.next(6); {
	case c == 0:
		m.said, m.code = saidError, "418"
	case x.opaque && c == 1:
		m.form, m.body = formLoose, [][]byte{fmt.Appendf(nil, "\xffv%d", h.n)}
	case x.opaque && c == 2:
		m.form, m.body = formLoose, append(m.body, []byte("\xff"), []byte("1"))
	}
	if w.next(8) == 0 && m.said == saidValue && m.form == formJSON {
		m.body[0] = fmt.Appendf(nil, `"v%d%s"`, h.n, strings.Repeat(" ", w.next(256)))
	}
	if op == opReply {
		w.held = slices.Delete(w.held, i, i+1)
	}
	if op == opPartial && !x.partials {
		return
	}
	var o batch.Out
	x.appendResult(&o, &m)
	w.send(h.p, &o)
}

func (w *dialectWorld) beat() {
	var o batch.Out
	if w.next(2) == 0 {
		p := w.client()
		if p.x.appendClientBeat(&o) {
			w.send(p, &o)
		}
		return
	}
	p := w.worker()
	token, rid := "", ""
	for _, h := range w.held {
		if h.p == p && p.x.beatsRequest {
			token, rid = h.token, h.rid
		}
	}
	p.x.appendWorkerBeat(&o, 1+w.next(3), token, rid)
	w.send(p, &o)
}

// odd is what no honest peer says.
func (w *dialectWorld) odd() {
	p := w.peers[w.next(len(w.peers))]
	p.lost = true
	switch w.next(6) {
	case 0:
		var o batch.Out
		p.x.appendLeave(&o)
		w.send(p, &o)
	case 1:
		w.words(p, "W", "4", "", `{"concurrency":`+strconv.Itoa(w.next(5)-2)+"}")
	case 2:
		w.words(p, "MDPW02", "\x04", strings.Repeat("A", tokenLen), "", "x")
	case 3:
		w.words(p, "C", "2", "s", "r1", `"again"`, "{}")
	case 4:
		w.words(p, "", "MDPW01", "\x01", "s*")
	case 5:
		w.words(p, "W", "3")
	}
}

func (w *dialectWorld) wait(t time.Duration) {
	w.note("wait %v", t)
	for end := w.now + t; ; {
		due := max(w.d.deadline(), w.now)
		if w.d.retryAt <= due { // as often as is of use
			due = max(due, w.now+t/8)
		}
		w.now = min(due, end)
		w.d.expire(w.now)
		w.check()
		w.flush()
		if w.now >= end {
			return
		}
	}
}

func (w *dialectWorld) flush() {
	for l := 0; l < len(wires); l++ {
		if !w.d.pending(l) {
			continue
		}
		out := w.d.take(l)
		blocked := map[string]bool{}
		for i := range out.Results {
			in := batch.In{B: out.Message(i)}
			f := in.Next()
			id := string(f[0])
			k := slices.IndexFunc(w.peers, func(p *dialectPeer) bool { return p.l == l && p.id == id })
			p := w.peers[k]
			switch out.Results[i] = batch.Sent; {
			case p.gone:
				out.Results[i] = batch.Unreachable
			case p.full || blocked[id]:
				out.Results[i], blocked[id] = batch.Again, true
			default:
				w.note("%s< %q", id, f[1:])
				w.hears(p, f[1:])
			}
		}
		w.d.settle(w.now, l)
		w.check()
		l = -1
	}
}

// hears takes what a peer is sent: it can read it.
func (w *dialectWorld) hears(p *dialectPeer, f [][]byte) {
	var m message
	spoken := p.x
	if q := w.d.peers[p.l][p.id]; q != nil && q.wire != nil {
		spoken = q.wire // what it showed, if it spoke in several
	}
	atWorker, atClient := spoken.parseAtWorker(f, &m), false
	if !atWorker {
		atClient = spoken.parseAtClient(f, &m)
	}
	for x := 1; x < len(wires) && !atWorker && !atClient; x++ { // said before it was forgotten, or to a stranger
		if spoken = wires[x]; !spoken.parseAtWorker(f, &m) {
			atClient = spoken.parseAtClient(f, &m)
		} else {
			atWorker = true
		}
	}
	switch {
	case !atWorker && !atClient:
		w.fatalf("%s is sent what nobody can read: %q", p.id, f)
	case atWorker && m.op == opRequest:
		n := numberIn(m.dataFrames()[0], 'd')
		if n < 0 && !bytes.Contains(m.data, []byte("again")) {
			w.fatalf("%s is given data that nobody sent: %q", p.id, m.data)
		}
		if n > 0 && !w.reads(spoken, &m, w.asked[n-1]) {
			w.fatalf("%s is given %q, which was asked as %q", p.id, m.dataFrames(), w.asked[n-1])
		}
		w.held = append(w.held, dialectHeld{p, string(m.token), string(m.rid), n})
	case atClient && (m.op == opReply || m.op == opPartial):
		if m.op == opReply {
			w.ends(p, &m)
		}
		m.saysOf()
		if m.said != saidValue {
			break
		}
		if n := numberIn(m.body[0], 'v'); n >= 0 && m.rid != nil && strings.HasPrefix(string(m.rid), "r") && p.x.numbered && string(m.rid) != fmt.Sprint("r", n) && string(m.rid) != "r1" {
			w.fatalf("I1: %s is sent the value of %d as that of %s", p.id, n, m.rid)
		}
	}
}

// reads tells whether a worker reads what was asked.
func (w *dialectWorld) reads(x *wire, m *message, asked [][]byte) bool {
	want := ""
	switch {
	case x.opaque || m.form == formRaw && len(asked) == 1:
		return slices.EqualFunc(m.dataFrames(), asked, bytes.Equal)
	case len(asked) == 1:
		want = string(appendLoose(nil, asked[0]))
	default:
		want = string(appendArray(nil, asked))
	}
	return m.form == formJSON && string(m.data) == want
}

// ends counts a final: one for each request.
func (w *dialectWorld) ends(p *dialectPeer, m *message) {
	p.ended++
	if rid := string(m.rid); p.x.numbered && rid != "r1" { // which odd peers use again
		if p.ends == nil {
			p.ends = map[string]int{}
		}
		if p.ends[rid]++; p.ends[rid] > 1 {
			w.fatalf("I2: %s was sent a second final for %s", p.id, rid)
		}
	}
	if !p.x.numbered && p.ended > p.sent && !p.lost {
		w.fatalf("I2: %s was sent %d finals, it made %d requests", p.id, p.ended, p.sent)
	}
}

// numberIn finds the number of a word, whatever became of the value.
func numberIn(b []byte, c byte) int {
	if p, ok := parseBuffer(b); ok {
		b = p
	}
	i := bytes.IndexByte(b, c)
	if i < 0 {
		return -1
	}
	n, _, ok := parseInt(b[i+1:])
	if !ok {
		return -1
	}
	return int(n)
}

// lookupAny counts what a client has under way still: without a deadline.
func (d *dispatcher) lookupAny(p *dialectPeer) int {
	if q := d.peers[p.l][p.id]; q != nil {
		return q.outstanding
	}
	return 0
}

// heal lets everything end: I3, R5.
func (w *dialectWorld) heal() {
	for _, p := range w.peers {
		p.full, p.gone = false, false
	}
	w.wait(20 * time.Millisecond)
	w.wait(2*w.d.lim.ignoreFor + 4*foreignLiveness)
	for _, p := range w.peers {
		if s := &w.d.stats; p.ended < p.asked && !p.lost && s.ClientGone+s.Dropped+s.Unreachable == 0 && w.d.lookupAny(p) == 0 {
			w.fatalf("I3: %s was sent %d finals, %d of its requests were accepted", p.id, p.ended, p.asked)
		}
		p.gone = true
	}
	w.wait(w.d.lim.ignoreFor + foreignLiveness)
	if err := w.d.empty(); err != nil {
		w.fatalf("%v", err)
	}
}
