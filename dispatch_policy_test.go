package omdp

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// policyGame plays workers that come and go, change their concurrency and
// answer in any order, and says for each dispatch which workers had room.
type policyGame struct {
	d       *dispatcher
	now     instant
	workers map[string]*policyWorker
	order   []string // of workers, as they came
	n       int
}

type policyWorker struct {
	most, held int
	used       int         // which dispatch was its last
	tokens     [][2]string // token and request id
}

func newPolicyGame(p DispatchPolicy) *policyGame {
	d := newDispatcher(testLimits(), caps{V: 1, ID: "broker", HB: 2500}, [32]byte{9}, 1)
	d.policies = map[string]DispatchPolicy{"": p}
	g := &policyGame{d: d, workers: map[string]*policyWorker{}}
	g.say("client", message{op: opHello, caps: []byte(`{"v":1,"id":"c","hb":60000}`)})
	return g
}

// say has the core take a message, and returns the dispatches that it makes.
func (g *policyGame) say(id string, m message) (given []policyDispatch) {
	g.now += time.Microsecond
	g.d.receive(g.now, 0, []byte(id), &m)
	for g.d.pending(0) {
		out := g.d.take(0)
		for i := range out.Results {
			out.Results[i] = batch.Sent
		}
		in := batch.In{B: slices.Clone(out.B)}
		g.d.settle(g.now, 0)
		for f := in.Next(); f != nil; f = in.Next() {
			if string(f[1]) == "W" && string(f[2]) == "2" {
				given = append(given, policyDispatch{string(f[0]), string(f[3]), string(f[4])})
			}
		}
	}
	return given
}

type policyDispatch struct{ worker, token, rid string }

func (g *policyGame) ready(id string, n int) []policyDispatch {
	g.workers[id] = &policyWorker{most: n}
	g.order = append(g.order, id)
	return g.say(id, message{worker: true, op: opReady, service: []byte("s"), caps: fmt.Appendf(nil, `{"v":1,"id":"w","hb":60000,"concurrency":%d}`, n)})
}

func (g *policyGame) ask(key string) []policyDispatch {
	g.n++
	o, _ := appendOptions(nil, options{timeout: timeoutNone, key: key}, nil)
	return g.say("client", message{op: opRequest, service: []byte("s"), rid: fmt.Appendf(nil, "r%d", g.n), data: []byte("1"), options: o})
}

// room lists the workers that have room, in the order of their last dispatch.
func (g *policyGame) room() []string {
	var free []string
	for _, id := range g.order {
		if w := g.workers[id]; w.held < w.most {
			free = append(free, id)
		}
	}
	slices.SortStableFunc(free, func(a, b string) int { return g.workers[a].used - g.workers[b].used })
	return free
}

func (g *policyGame) take(p policyDispatch) {
	w := g.workers[p.worker]
	g.n++
	w.held, w.used = w.held+1, g.n
	w.tokens = append(w.tokens, [2]string{p.token, p.rid})
}

// play runs random events; ok judges each dispatch before it is taken.
func (g *policyGame) play(rt *rapid.T, ok func(p policyDispatch, key string)) {
	keys := map[string]string{}
	judge := func(all []policyDispatch) {
		for _, p := range all {
			w := g.workers[p.worker]
			if w == nil || w.held >= w.most {
				rt.Fatalf("I9: %s was given %s, it has no room", p.worker, p.rid)
			}
			ok(p, keys[p.rid])
			g.take(p)
		}
	}
	pick := func(rt *rapid.T) *policyWorker { return g.workers[rapid.SampledFrom(g.order).Draw(rt, "worker")] }
	judge(g.ready("w0", 2))
	rt.Repeat(map[string]func(*rapid.T){
		"": func(rt *rapid.T) {
			if err := g.d.check(); err != nil {
				rt.Fatal(err)
			}
			if g.d.queued > 0 && len(g.room()) > 0 {
				rt.Fatal("I13: a request waits, and a worker has room")
			}
		},
		"ask": func(rt *rapid.T) {
			key := rapid.SampledFrom([]string{"", "a", "b", "c", "d"}).Draw(rt, "key")
			keys[fmt.Sprint("r", g.n+1)] = key
			judge(g.ask(key))
		},
		"answer": func(rt *rapid.T) {
			w := pick(rt)
			if len(w.tokens) == 0 {
				return
			}
			i := rapid.IntRange(0, len(w.tokens)-1).Draw(rt, "which")
			id := g.order[slices.IndexFunc(g.order, func(id string) bool { return g.workers[id] == w })]
			t := w.tokens[i]
			w.tokens = slices.Delete(w.tokens, i, i+1)
			w.held--
			judge(g.say(id, message{worker: true, op: opReply, token: []byte(t[0]), rid: []byte(t[1]), body: [][]byte{[]byte(`{"status":200,"msg":1}`)}}))
		},
		"come": func(rt *rapid.T) {
			if len(g.order) < 8 {
				g.n++
				judge(g.ready(fmt.Sprint("w", g.n), rapid.IntRange(1, 4).Draw(rt, "concurrency")))
			}
		},
		"go": func(rt *rapid.T) {
			if len(g.order) < 2 {
				return
			}
			i := rapid.IntRange(0, len(g.order)-1).Draw(rt, "worker")
			id := g.order[i]
			g.order = slices.Delete(g.order, i, i+1)
			delete(g.workers, id)
			judge(g.say(id, message{worker: true, op: opDisconnect}))
		},
		"resize": func(rt *rapid.T) {
			i := rapid.IntRange(0, len(g.order)-1).Draw(rt, "worker")
			n := rapid.IntRange(1, 4).Draw(rt, "concurrency")
			g.workers[g.order[i]].most = n
			judge(g.say(g.order[i], message{worker: true, op: opHello, caps: fmt.Appendf(nil, `{"v":1,"id":"w","hb":60000,"concurrency":%d}`, n)}))
		},
	})
}

// The one with the fewest requests is next, and of those the one that was
// given one longest ago.
func TestLeastLoadedProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := newPolicyGame(LeastLoaded)
		g.play(rt, func(p policyDispatch, _ string) {
			least := slices.MinFunc(g.room(), func(a, b string) int { return g.workers[a].held - g.workers[b].held })
			if p.worker != least {
				rt.Fatalf("%s went to %s, which has %d, not to %s, which has %d", p.rid, p.worker, g.workers[p.worker].held, least, g.workers[least].held)
			}
		})
	})
}

// A key goes to the first worker of its circle that has room: the same as last
// time, if that has room and nobody came. Without a key they take turns.
func TestStickyProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		g := newPolicyGame(Sticky)
		home := map[string]string{} // where a key went while all had room
		crew := ""
		g.play(rt, func(p policyDispatch, key string) {
			if now := fmt.Sprint(g.order); now != crew {
				home, crew = map[string]string{}, now
			}
			if w, known := home[key]; key != "" && known && p.worker != w && g.workers[w].held < g.workers[w].most {
				rt.Fatalf("key %s went to %s, not to %s, which has room", key, p.worker, w)
			}
			if len(g.room()) == len(g.order) {
				home[key] = p.worker
			}
		})
	})
}

// One that goes takes its own keys with it, and no others; one that comes
// takes some of everybody's.
func TestStickyMovesLittle(t *testing.T) {
	const n, keys = 20, 2000
	g := newPolicyGame(Sticky)
	for i := range n {
		g.ready(fmt.Sprint("w", i), 1000)
	}
	where := func() (w [keys]string) {
		for i := range w {
			w[i] = g.d.services["s"].pick(keyHash(fmt.Sprint("key-", i))).id
		}
		return w
	}
	before := where()
	share := map[string]int{}
	for _, w := range before {
		share[w]++
	}
	for w, k := range share { // any order: each by itself
		if k < keys/n/2 || k > keys/n*2 {
			t.Errorf("%s has %d keys of %d, %d workers", w, k, keys, n)
		}
	}
	g.say("w3", message{worker: true, op: opDisconnect})
	after := where()
	for i := range after {
		if after[i] != before[i] && before[i] != "w3" {
			t.Fatalf("key %d moved from %s to %s, and w3 left", i, before[i], after[i])
		}
	}
	g.ready("new", 1000)
	moved := 0
	for i, w := range where() {
		if w != after[i] {
			if moved++; w != "new" {
				t.Fatalf("key %d moved from %s to %s, and new came", i, after[i], w)
			}
		}
	}
	if moved == 0 || moved > 2*keys/n {
		t.Errorf("%d of %d keys moved to the one that came, of %d", moved, keys, n)
	}
}

// policyRig is a coreRig whose workers all have room, and each something to do.
type policyRig struct {
	*coreRig
	keys [][]byte // options
}

func newPolicyRig(workers int, p DispatchPolicy) *policyRig {
	r := &policyRig{coreRig: newCoreRig(0, 0, 0)}
	r.d.policies = map[string]DispatchPolicy{string(rigService): p}
	for i := range workers {
		r.recv(fmt.Appendf(nil, "worker-%04d", i), message{worker: true, op: opReady, service: rigService, caps: []byte(`{"v":1,"id":"w","hb":2500,"concurrency":8}`)})
	}
	r.settle()
	for i := range 1000 {
		r.keys = append(r.keys, fmt.Appendf(nil, `{"key":"key-%d"}`, i))
	}
	for range 4 * workers {
		r.request(0)
		r.settle()
	}
	return r
}

func (r *policyRig) step() {
	r.options = r.keys[r.n%uint64(len(r.keys))]
	r.coreRig.step()
}

// BenchmarkPolicy is a request and its reply at the core with 1,000 workers
// that have room, by policy: the cost may not grow with the workers.
func BenchmarkPolicy(b *testing.B) {
	for _, p := range []DispatchPolicy{LeastRecentlyUsed, LeastLoaded, Sticky} {
		for _, workers := range []int{1, 1000} {
			b.Run(fmt.Sprintf("%v/workers=%d", p, workers), func(b *testing.B) {
				r := newPolicyRig(workers, p)
				for range 2 * workers {
					r.step()
				}
				b.ReportAllocs()
				for b.Loop() {
					r.step()
				}
			})
		}
	}
}
