package omdp

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// poolGame plays whatever may happen to a table of a dialect without request
// ids. Each connection's far end answers what it was sent, in its order, whether
// anybody still waits for it or not: that is all that a broker promises.
type poolGame struct {
	table *pendingTable
	now   instant
	n     uint64
	open  []bool
	seq   []uint64
	sent  [][]*pending // by connection: what its broker has and has not answered
	live  map[*pending]bool
	w     clientTurn
}

const poolEndpoints, poolEach = 2, 3

func newPoolGame() *poolGame {
	n := poolEndpoints * poolEach
	g := &poolGame{open: make([]bool, n), seq: make([]uint64, n), sent: make([][]*pending, n), live: map[*pending]bool{}}
	g.table = newPendingTable(tableConfig{
		wire: wires[MDP02], prefix: "life-", beat: testBeat, liveness: 3, window: 1000, maxWindow: 5000, maxBody: 1 << 20,
		links: n, each: poolEach, maxAttempts: 3, budget: 10, random: func() uint64 { return 0 },
	})
	return g
}

// settle does what the shell does after every change: it sends what waits, opens
// what is wanted, and closes what is spoiled.
func (g *poolGame) settle(t *rapid.T) {
	for again := true; again; {
		again = false
		if l := g.table.best; l != nil {
			for p := range g.table.waiting {
				var out batch.Out
				g.table.put(p, l, g.now, g.seq[l.index], &out)
				g.seq[l.index]++
				g.sent[l.index] = append(g.sent[l.index], p)
				again = true
				break
			}
		}
	}
	if g.table.best == nil && g.table.onLinks < g.table.len() {
		g.table.wants()
	}
	for i := range g.table.links {
		l := &g.table.links[i]
		if l.started && !g.open[i] {
			g.table.opened(l)
			g.open[i] = true
		}
	}
}

func (g *poolGame) leave(t *rapid.T, p *pending) {
	if !g.live[p] {
		t.Fatalf("request %d left twice", p.n)
	}
	delete(g.live, p)
}

func (g *poolGame) pick(t *rapid.T, what string, ok func(l *tableLink) bool) *tableLink {
	var all []*tableLink
	for i := range g.table.links {
		if l := &g.table.links[i]; ok(l) {
			all = append(all, l)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[rapid.IntRange(0, len(all)-1).Draw(t, what)]
}

// close ends a connection: for good reason if it is spoiled, else it is cut.
func (g *poolGame) close(t *rapid.T, l *tableLink) {
	spoiled, heard := l.spoiled, l.heardOf
	sent := g.seq[l.index]
	if !spoiled && sent > 0 && rapid.Bool().Draw(t, "unsent") {
		sent--
	}
	over := g.table.lost(g.now, l, sent)
	for _, p := range over {
		if spoiled {
			t.Fatalf("request %d was on a connection that was given up for another", p.n)
		}
		g.leave(t, p)
	}
	if l.heardOf != (spoiled && heard) {
		t.Fatalf("a connection was given up: %v, its broker had answered: %v, and that is known of the next one: %v", spoiled, heard, l.heardOf)
	}
	g.open[l.index], g.seq[l.index], g.sent[l.index] = false, 0, nil
	g.settle(t)
}

// TestPoolProperties: no answer ever goes to another request than that it is
// for, whatever is given up, cut or answered late; what can be sent is sent; and
// nothing is lost.
func TestPoolProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newPoolGame()
		g.settle(t)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				g.n++
				p := &pending{n: g.n, service: "s", deadline: never, idempotent: rapid.Bool().Draw(t, "idempotent"), data: make([]byte, 3)}
				p.rid = string(g.table.appendRID(nil, p.n))
				if d := rapid.IntRange(-1, 5000).Draw(t, "ms"); d >= 0 {
					p.deadline = g.now + instant(d)*time.Millisecond
				}
				g.table.add(p)
				g.live[p] = true
				g.settle(t)
			},
			"end": func(t *rapid.T) {
				p := g.table.first
				if p == nil {
					return
				}
				for range rapid.IntRange(0, len(g.live)-1).Draw(t, "which") {
					p = p.next
				}
				g.table.remove(p)
				if l := p.link; l != nil && !l.spoiled {
					t.Fatalf("request %d was given up on a connection that is still of use", p.n)
				}
				g.leave(t, p)
				g.settle(t)
			},
			"up": func(t *rapid.T) {
				if l := g.pick(t, "link", func(l *tableLink) bool { return g.open[l.index] && !l.up }); l != nil {
					g.table.connected(l, g.now)
					g.settle(t)
				}
			},
			"cut": func(t *rapid.T) {
				if l := g.pick(t, "link", func(l *tableLink) bool { return l.up }); l != nil {
					g.close(t, l)
				}
			},
			"renew": func(t *rapid.T) {
				if l := g.pick(t, "link", func(l *tableLink) bool { return l.spoiled }); l != nil {
					g.close(t, l)
				}
			},
			"answer": func(t *rapid.T) {
				l := g.pick(t, "link", func(l *tableLink) bool { return len(g.sent[l.index]) > 0 })
				if l == nil {
					return
				}
				p := g.sent[l.index][0]
				if !l.spoiled && len(g.sent[l.index]) > 1 {
					t.Fatalf("%d requests are on one connection", len(g.sent[l.index]))
				}
				m := message{op: opReply, service: []byte("s")}
				partial := rapid.Bool().Draw(t, "partial")
				if word := rapid.SampledFrom([]string{"", statusWorkerLost, statusTimeout}).Draw(t, "word"); word != "" && !partial {
					m.says(saidStatus, word, formJSON, nil)
				} else {
					m.says(saidValue, "", formJSON, []byte("1"))
				}
				defer g.settle(t)
				g.table.hears(l, g.now)
				if partial {
					if got := g.table.onPartial(g.now, l, &m); got != nil && (got != p || !g.live[p]) {
						t.Fatalf("a partial of request %d went to %d", p.n, got.n)
					} else if got == nil && g.live[p] && p.link == l {
						t.Fatalf("a partial of request %d was dropped", p.n)
					}
					return
				}
				g.sent[l.index] = g.sent[l.index][1:]
				was := *p
				got, _, _, late := g.table.onReply(g.now, l, &m)
				switch {
				case late && g.live[p] && was.link == l:
					t.Fatalf("the answer to request %d was dropped", p.n)
				case late:
				case !g.live[p] || was.link != l:
					t.Fatalf("the answer to request %d, which was given up, was taken", p.n)
				case got == nil:
					if !p.idempotent || p.attempt != was.attempt+1 || p.link != nil {
						t.Fatalf("request %d is to be sent again: %+v", p.n, p)
					}
				case got != p:
					t.Fatalf("the answer to request %d went to %d", p.n, got.n)
				default:
					if l.spoiled {
						t.Fatalf("request %d was answered, and its connection is of no more use", p.n)
					}
					g.leave(t, p)
				}
			},
			"time": func(t *rapid.T) {
				g.now += instant(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond
				g.w.reset()
				g.table.expire(g.now, &g.w)
				for _, p := range g.w.expired {
					g.leave(t, p)
				}
				for i := range g.table.links {
					l := &g.table.links[i]
					g.table.turn(g.now, l, &g.w)
					if l.alarm <= g.now || g.w.hello || g.w.lost || len(g.w.silent) > 0 {
						t.Fatalf("at %v link %d asks for %+v, and its alarm is at %v", g.now, i, g.w, l.alarm)
					}
					if l.heardOf && !l.up && g.now >= l.trust {
						t.Fatalf("at %v link %d still counts as answering, until %v", g.now, i, l.trust)
					}
				}
				g.settle(t)
			},
			"": func(t *rapid.T) {
				if err := g.table.check(); err != nil {
					t.Fatal(err)
				}
				if len(g.live) != g.table.len() {
					t.Fatalf("%d live, table has %d", len(g.live), g.table.len())
				}
				if b := g.table.best; b != nil {
					for p := range g.table.waiting {
						t.Fatalf("request %d waits though link %d is free", p.n, b.index)
					}
				}
			},
		})
	})
}

// Connections are opened as requests wait, no more than may be, and not for a
// broker that is not there.
func TestPoolGrows(t *testing.T) {
	g := newPoolGame()
	table := g.table
	add := func() {
		g.n++
		p := &pending{n: g.n, service: "s", deadline: never}
		table.add(p)
	}
	add()
	add()
	if l := table.wants(); l != nil {
		t.Errorf("without a broker link %d is wanted", l.index)
	}
	first := &table.links[0]
	table.opened(first)
	table.connected(first, 0)
	var out batch.Out
	table.put(table.first, first, 0, 0, &out)
	if l := table.wants(); l != &table.links[1] {
		t.Fatalf("with one that waits %v is wanted", l)
	}
	if l := table.wants(); l != nil {
		t.Errorf("one waits and one is being opened, and link %d is wanted", l.index)
	}
	add()
	add()
	if l := table.wants(); l != &table.links[2] {
		t.Fatalf("with three that wait %v is wanted", l)
	}
	if l := table.wants(); l != nil {
		t.Errorf("link %d is wanted, which is another endpoint's", l.index)
	}
	for i, l := range table.links {
		if l.started != (i <= 3) || l.group != i/poolEach {
			t.Errorf("link %d: %+v", i, l)
		}
	}
}
