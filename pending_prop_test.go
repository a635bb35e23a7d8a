package omdp

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// tableGame plays whatever may happen to a table.
type tableGame struct {
	table *pendingTable
	now   instant
	n     uint64
	open  []bool
	seq   []uint64
	live  map[*pending]bool
	owed  [2][]string // CANCELs, by link
	w     clientTurn
}

func (g *tableGame) leave(t *rapid.T, p *pending) {
	if !g.live[p] {
		t.Fatalf("request %d left twice", p.n)
	}
	delete(g.live, p)
}

func (g *tableGame) pick(t *rapid.T) *pending {
	if len(g.live) == 0 { // no Skip anywhere: a fuzzer's bytes may ask for one thing for ever
		g.add(t)
	}
	p := g.table.first
	for range rapid.IntRange(0, len(g.live)-1).Draw(t, "which") {
		p = p.next
	}
	return p
}

func (g *tableGame) link(t *rapid.T) *tableLink {
	return &g.table.links[rapid.IntRange(0, 1).Draw(t, "link")]
}

// put: C5: an attempt says which it is, and how much time is left.
func (g *tableGame) put(t *rapid.T, p *pending, l *tableLink) {
	var out batch.Out
	var m message
	g.table.put(p, l, g.now, g.seq[l.index], &out)
	g.seq[l.index]++
	in := batch.In{B: out.B}
	parseAtBroker(in.Next(), &m)
	o, ok := parseOptions(m.options)
	left := max(p.deadline-g.now, time.Millisecond)
	if p.deadline == never {
		left = timeoutNone
	}
	if !ok || string(m.rid) != p.rid || max(o.attempt, 1) != p.attempt || o.timeout/time.Millisecond != left/time.Millisecond {
		t.Fatalf("C5: attempt %d of %s, with %v left, is sent as %q with %s", p.attempt, p.rid, left, m.rid, m.options)
	}
}

// waits: L5: a further attempt comes after a while.
func (g *tableGame) waits(t *rapid.T, p *pending, before int) {
	if least := min(againMin<<(before-1), againMax) / 2; p.attempt > before && p.after-g.now < least {
		t.Fatalf("L5: attempt %d of request %d is made after %v, want %v at least", p.attempt, p.n, p.after-g.now, least)
	}
}

// givenUp: C4: what may have been executed is not said to be unsent.
func (g *tableGame) givenUp(t *rapid.T, p *pending) {
	if o := p.outcome(); (p.maybe || p.link != nil) != (o == MayHaveExecuted) {
		t.Fatalf("C4: request %d ends as %v: on a link %v, sent before %v", p.n, o, p.link != nil, p.maybe)
	}
}

// other is the connection that a request is not on.
func (g *tableGame) other(p *pending) *tableLink { return &g.table.links[1-p.link.index] }

// sendAll sends what waits, as the shell does after every change.
func (g *tableGame) sendAll(t *rapid.T) {
	if l := g.table.best; l != nil {
		for p := range g.table.waiting {
			g.put(t, p, l)
		}
	}
}

func (g *tableGame) add(t *rapid.T) {
	g.n++
	p := &pending{n: g.n, service: "s", deadline: never, idempotent: rapid.Bool().Draw(t, "idempotent"), data: make([]byte, 3)}
	p.rid = string(g.table.appendRID(nil, p.n))
	if d := rapid.IntRange(-1, 5000).Draw(t, "ms"); d >= 0 {
		p.deadline, p.slack = g.now+instant(d)*time.Millisecond, instant(d)*time.Millisecond/10
	}
	g.table.add(p)
	g.live[p] = true
	g.sendAll(t)
}

func (g *tableGame) up(t *rapid.T) {
	l := g.link(t)
	if !g.open[l.index] || l.up {
		return
	}
	g.seq[l.index]++ // HELLO
	g.table.connected(l, g.now)
	if rapid.Bool().Draw(t, "ours") {
		g.table.answered(l, g.now, testBeat)
	}
	g.sendAll(t)
}

// answer: K3: what was given up before the broker answered is cancelled now.
func (g *tableGame) answer(t *rapid.T) {
	l := g.link(t)
	if !l.up || l.extended {
		t.Skip()
	}
	var out batch.Out
	g.table.hears(l, g.now)
	g.table.onHello(g.now, l, &caps{ID: "broker", HB: testBeat.Milliseconds()}, &out)
	var got []string
	in := batch.In{B: out.B}
	for f := in.Next(); f != nil; f = in.Next() {
		got = append(got, joinFrames(f))
	}
	if want := g.owed[l.index]; !slices.Equal(got, want) {
		t.Fatalf("when the broker has answered: got %q, want %q", got, want)
	}
	g.owed[l.index] = nil
	g.sendAll(t)
}

func (g *tableGame) lost(t *rapid.T) {
	l := g.link(t)
	if !g.open[l.index] {
		return
	}
	sent := rapid.Uint64Range(0, g.seq[l.index]+1).Draw(t, "sent")
	g.open[l.index], g.seq[l.index], g.owed[l.index] = false, 0, nil
	was := map[*pending]pending{}
	for p := range g.live {
		was[p] = *p
	}
	ours := l.extended
	for _, p := range g.table.lost(g.now, l, sent) {
		if p.seq >= sent || p.link != l {
			t.Fatalf("request %d ended, but its message %d was not sent on that connection", p.n, p.seq)
		}
		if p.idempotent && !p.partial && p.attempt < 3 && p.deadline > g.now+time.Second && g.table.budget.tokens >= 1000 {
			t.Fatalf("request %d is idempotent and was not sent again", p.n)
		}
		g.givenUp(t, p)
		g.leave(t, p)
	}
	for p := range g.live {
		g.waits(t, p, was[p].attempt)
		if ours && p.rid != was[p].rid {
			t.Fatalf("C5: attempt %d of %s is called %s", p.attempt, was[p].rid, p.rid)
		}
	}
	if l.onLink != 0 {
		t.Fatalf("%d are on a connection that is lost", l.onLink)
	}
	g.sendAll(t)
}

const drained, duplicate = `{"status":"DRAINING","executed":false}`, `{"status":"DUPLICATE","executed":true}`

func (g *tableGame) reply(t *rapid.T) {
	p := g.pick(t)
	if p.link == nil {
		return
	}
	l := p.link
	body := rapid.SampledFrom([]string{`{"status":200,"msg":1}`, `{"status":"W_ERROR"}`, drained, `{"status":"LOST"}`,
		duplicate, `{"status":"TIMEOUT"}`, `{"status":"OVERLOADED","executed":false}`, "W_ERROR"}).Draw(t, "body")
	m := message{op: opReply, rid: []byte(p.rid), body: [][]byte{[]byte(body)}}
	attempt, was, ours := p.attempt, *p, l.extended
	if _, _, _, late := g.table.onReply(g.now, g.other(p), &m); !late {
		t.Fatalf("C1: a reply to request %d was taken from a broker that does not have it", p.n)
	}
	got, end, parsed, late := g.table.onReply(g.now, l, &m)
	switch {
	case late && l.extended && l.answers <= was.hellos && body == `{"status":"LOST"}`: // the answer to a beat for an attempt before
	case late:
		t.Fatalf("the reply to request %d came late", p.n)
	case got == nil: // it is sent again
		if p.attempt > attempt && (!was.idempotent || was.partial || attempt >= 3) {
			t.Fatalf("request %d: attempt %d after %+v", p.n, p.attempt, was)
		}
		if p.link != nil {
			t.Fatalf("request %d is to be sent again and is on a connection", p.n)
		}
		if g.waits(t, p, attempt); p.attempt > attempt && body == drained {
			t.Fatalf("C4: request %d was refused as not executed, and that counts as an attempt", p.n)
		}
		if ours && p.rid != was.rid && body != duplicate {
			t.Fatalf("C5: attempt %d of %s is called %s", p.attempt, was.rid, p.rid)
		}
	default:
		if body == drained && g.table.best != nil && p.deadline > g.now {
			t.Fatalf("request %d was refused as not executed and is not sent elsewhere", p.n)
		}
		if !parsed {
			end = parseReply(p.service, m.body)
		}
		if end = got.conclude(end); got.maybe && end.err != nil && (OutcomeOf(end.err) == NotSent || OutcomeOf(end.err) == NotExecuted) {
			t.Fatalf("request %d: %v, though an attempt before may have been executed", p.n, end.err)
		}
		g.leave(t, got)
	}
	if _, _, _, late := g.table.onReply(g.now, l, &m); !late && got != nil {
		t.Fatalf("request %d ended twice", p.n)
	}
	g.sendAll(t)
}

func (g *tableGame) turn(t *rapid.T) {
	g.now += instant(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond
	g.w.reset()
	g.table.expire(g.now, &g.w)
	expired := slices.Clone(g.w.expired)
	for i := range g.table.links {
		l := &g.table.links[i]
		g.w.turn(g.table, g.now, l)
		if l.alarm <= g.now && !g.w.lost {
			t.Fatalf("at %v the alarm is at %v", g.now, l.alarm)
		}
		expired = append(expired, g.w.silent...)
	}
	for _, p := range expired {
		g.givenUp(t, p)
		g.leave(t, p)
	}
	g.sendAll(t)
	for p := range g.live {
		if p.deadline != never && p.deadline+p.slack <= g.now {
			t.Fatalf("request %d was due at %v and is here at %v", p.n, p.due, g.now)
		}
		if p.after != 0 && p.after <= g.now {
			t.Fatalf("request %d was to be sent at %v and is here at %v", p.n, p.after, g.now)
		}
	}
	if g.table.timing.alarm <= g.now {
		t.Fatalf("at %v the alarm is at %v", g.now, g.table.timing.alarm)
	}
}

// Whatever happens, each request leaves the table once, none stays past its
// deadline and slack, and the table is consistent.
func TestPendingProperties(t *testing.T) { rapid.Check(t, playTable) }

func playTable(t *rapid.T) {
	g := &tableGame{table: newTestTable(), open: make([]bool, 2), seq: make([]uint64, 2), live: map[*pending]bool{}}
	t.Repeat(map[string]func(*rapid.T){
		"add": g.add,
		"end": func(t *rapid.T) {
			p := g.pick(t)
			var out batch.Out
			g.table.remove(p)
			g.table.cancel(p, &out)
			if on := p.link != nil && p.link.extended; out.Len() > 0 != on {
				t.Fatalf("%d CANCELs for request %d, on a connection that knows it: %v", out.Len(), p.n, on)
			}
			if l := p.link; l != nil && l.up && !l.extended {
				g.owed[l.index] = append(g.owed[l.index], "C|10|"+p.rid)
			}
			g.givenUp(t, p)
			g.leave(t, p)
		},
		"open": func(t *rapid.T) {
			if l := g.link(t); !g.open[l.index] {
				g.table.opened(l)
				g.open[l.index], g.owed[l.index] = true, nil
			}
		},
		"up":    g.up,
		"hello": g.answer,
		"lost":  g.lost,
		"reply": g.reply,
		"partial": func(t *rapid.T) {
			if p := g.pick(t); p.link != nil {
				if got := g.table.onPartial(g.now, p.link, &message{rid: []byte(p.rid)}); got != p || !p.partial {
					t.Fatalf("a partial for request %d found %v", p.n, got)
				}
				if got := g.table.onPartial(g.now, g.other(p), &message{rid: []byte(p.rid)}); got != nil {
					t.Fatalf("C3: a partial of request %d was taken from a broker that does not have it", p.n)
				}
			}
		},
		"drain": func(t *rapid.T) {
			if l := g.link(t); l.up {
				g.table.onDrain(l)
				g.sendAll(t)
			}
		},
		"turn": g.turn,
		"": func(t *rapid.T) {
			if err := g.table.check(); err != nil {
				t.Fatal(err)
			}
			if len(g.live) != g.table.len() {
				t.Fatalf("%d live, table has %d", len(g.live), g.table.len())
			}
			if b := g.table.best; b != nil && g.table.onLinks < g.table.len() {
				for p := range g.table.waiting {
					t.Fatalf("request %d waits though link %d takes requests", p.n, b.index)
				}
			}
		},
	})
}
