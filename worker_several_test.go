package omdp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// newSeveral starts a worker of two brokers on fake nets in a bubble. a and b
// are the one worker, as each of its brokers sees it.
func newSeveral(t *testing.T, h Handler, config *WorkerConfig) (a, b *testWorker) {
	t.Helper()
	f := WorkerConfig{}
	if config != nil {
		f = *config
	}
	f.Endpoints = []string{"tcp://127.0.0.1:5556"}
	w, err := NewWorker("tcp://127.0.0.1:5555", "echo", &f)
	if err != nil {
		t.Fatal(err)
	}
	a = &testWorker{Worker: w, t: t, net: newFakeNet()}
	b = &testWorker{Worker: w, t: t, net: newFakeNet()}
	w.conns[0].session.dial = a.net.dial
	w.conns[1].session.dial = b.net.dial
	if err := errors.Join(w.OnRequest(h), w.Start()); err != nil {
		t.Fatal(err)
	}
	a.nextLink()
	b.nextLink()
	return a, b
}

// answersDrain has the brokers of both nets answer DRAIN, as ours do.
func answersDrain(all ...*testWorker) {
	for _, w := range all {
		w.net.setScript(func(l *fakeLink, f [][]byte) {
			if joinFrames(f) == "W|11" {
				l.say("W", "11")
			}
		})
	}
}

// holding is a handler that keeps its requests until release is called with
// their ids, and notes the order in which they began.
type holding struct {
	mu      sync.Mutex
	began   []string
	running int
	most    int // that ran at a time
	gates   map[string]chan struct{}
}

func (h *holding) gate(id string) chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gates == nil {
		h.gates = map[string]chan struct{}{}
	}
	if h.gates[id] == nil {
		h.gates[id] = make(chan struct{})
	}
	return h.gates[id]
}

// serve does not heed its context.
func (h *holding) serve(_ context.Context, req *Request, res *Response) error {
	gate := h.gate(req.ID())
	h.mu.Lock()
	h.began = append(h.began, req.ID())
	h.running++
	h.most = max(h.most, h.running)
	h.mu.Unlock()
	<-gate
	h.mu.Lock()
	h.running--
	h.mu.Unlock()
	return res.End(req.Message())
}

func (h *holding) release(tokens ...string) {
	for _, token := range tokens {
		close(h.gate("rid-" + token))
	}
	synctest.Wait()
}

func (h *holding) order() string {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.ReplaceAll(strings.Join(h.began, " "), "rid-", "")
}

// The state is that of all connections together.
func TestWorkerSeveralStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var told []State
		a, b := newSeveral(t, echo, &WorkerConfig{OnState: func(s State) { mu.Lock(); told = append(told, s); mu.Unlock() }})
		state := func(want State, brokers int) {
			t.Helper()
			synctest.Wait()
			s := a.Stats()
			check(t, "state", s.State, want)
			check(t, "brokers", s.Brokers, brokers)
		}
		state(Connecting, 0)
		b.say("W", "5") // refused: there was nothing to lose, and the other may still answer
		state(Connecting, 0)
		b.nextLink()
		a.register()
		state(Ready, 1)
		b.register()
		state(Ready, 2)
		a.cut()
		state(Ready, 1)
		a.nextLink()
		b.say("W", "11")
		state(Draining, 1)
		a.register()
		state(Ready, 2)
		a.cut()
		state(Draining, 1)
		b.cut()
		state(Lost, 0)
		b.nextLink()
		b.register()
		state(Ready, 1)
		a.nextLink()
		a.register()
		a.close()
		state(Closed, 0)
		mu.Lock()
		defer mu.Unlock()
		check(t, "states told", fmt.Sprint(told), "[ready draining ready draining lost ready closed]")
	})
}

// Concurrency is the total: what comes over it waits in the order of arrival,
// and every answer goes out on the link of its request.
func TestWorkerSeveralWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h holding
		a, b := newSeveral(t, h.serve, &WorkerConfig{Concurrency: 2})
		defer a.close()
		a.register()
		b.register()
		a.request("a1", `1`, rawExtra)
		b.request("b1", `2`, rawExtra)
		b.request("b2", `3`, rawExtra)
		a.request("a2", `4`, rawExtra)
		check(t, "began", h.order(), "a1 b1")
		s := a.Stats()
		check(t, "active, waiting, handlers, taken", fmt.Sprint(s.Active, s.Waiting, s.Handlers, s.Requests), "4 2 2 4")
		a.sent()
		b.sent()
		for range 10 { // far over liveness: who waits is beaten for like any other
			pass(2500 * time.Millisecond)
			synctest.Wait()
			check(t, "beats at one", strings.Join(a.sent(), " "), "W|4 W|4|a1|rid-a1 W|4|a2|rid-a2")
			check(t, "beats at the other", strings.Join(b.sent(), " "), "W|4 W|4|b1|rid-b1 W|4|b2|rid-b2")
			a.say("W", "4")
			b.say("W", "4")
		}
		h.release("a1") // of another broker than the one that waits the longest
		check(t, "final", a.final("a1"), js("1"))
		check(t, "began", h.order(), "a1 b1 b2")
		h.release("b2")
		check(t, "final", b.final("b2"), js("3"))
		check(t, "began", h.order(), "a1 b1 b2 a2")
		h.release("a2", "b1")
		check(t, "final", a.final("a2"), js("4"))
		check(t, "final", b.final("b1"), js("2"))
		check(t, "sent besides", len(a.sent())+len(b.sent()), 0)
		check(t, "places", a.places.free, 2)
		check(t, "most at a time", h.most, 2)
	})
}

// What ends while it waits never runs, and has its final, if any, at once.
func TestWorkerSeveralEndWaiting(t *testing.T) {
	for _, c := range []struct {
		name, extra string
		do          func(b *testWorker)
		want        string // the final; empty: none
		canceled    uint64
		expired     uint64
		lost        uint64
	}{
		{"canceled", rawExtra, func(b *testWorker) { b.say("W", "10", "b1", "rid-b1", "client") }, `{"status":"W_ERROR","executed":false}`, 1, 0, 0},
		{"its client is gone", rawExtra, func(b *testWorker) { b.say("W", "10", "b1", "rid-b1", "gone") }, `{"status":"W_ERROR","executed":false}`, 1, 0, 0},
		{"expired", `{"remaining":100,"attempt":1,"credit":0,"raw":true}`, func(*testWorker) { pass(120 * time.Millisecond) }, `{"status":"TIMEOUT","executed":false}`, 0, 1, 0},
		{"cut", rawExtra, func(b *testWorker) { b.cut() }, "", 0, 0, 1},
	} {
		bubble(t, c.name, func(t *testing.T) {
			var h holding
			a, b := newSeveral(t, h.serve, nil)
			defer a.close()
			a.register()
			b.register()
			a.request("a1", `1`, rawExtra)
			b.request("b1", `2`, c.extra)
			synctest.Wait()
			check(t, "waiting", a.Stats().Waiting, 1)
			old := b.fakeLink
			c.do(b)
			synctest.Wait()
			if c.want != "" {
				check(t, "final", b.final("b1"), c.want)
			} else {
				b.nextLink()
				b.register()
			}
			s := a.Stats()
			check(t, "waiting, canceled, expired, lost", fmt.Sprint(s.Waiting, s.Canceled, s.Expired, s.Lost), fmt.Sprint(0, c.canceled, c.expired, c.lost))
			b.request("b2", `3`, rawExtra)
			h.release("a1", "b2")
			check(t, "final", a.final("a1"), js("1"))
			check(t, "final", b.final("b2"), js("3"))
			check(t, "began", h.order(), "a1 b2")
			synctest.Wait()
			for _, m := range append(old.sent(), b.sent()...) {
				if strings.HasPrefix(m, "W|3") {
					t.Errorf("sent besides: %q", m)
				}
			}
			check(t, "places", a.places.free, 1)
		})
	}
}

// A handler whose connection was lost keeps its place until it has ended: what
// comes next, from whichever broker, does not run beside it. K2 holds.
func TestWorkerSeveralLostKeepsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h holding
		a, b := newSeveral(t, h.serve, nil)
		defer a.close()
		a.register()
		b.register()
		a.request("a1", `1`, rawExtra)
		synctest.Wait()
		b.request("b1", `2`, rawExtra)
		old := a.fakeLink
		a.cut()
		a.nextLink()
		a.register()
		a.request("a2", `3`, rawExtra)
		check(t, "began", h.order(), "a1")
		check(t, "waiting", a.Stats().Waiting, 2)
		h.release("a1")
		check(t, "began", h.order(), "a1 b1")
		h.release("b1", "a2")
		check(t, "final", b.final("b1"), js("2"))
		check(t, "final", a.final("a2"), js("3"))
		for _, m := range append(old.sent(), a.sent()...) {
			if strings.Contains(m, "a1") && !strings.HasPrefix(m, "W|4") {
				t.Errorf("sent: %q", m)
			}
		}
		check(t, "most at a time", h.most, 1)
		s := a.Stats()
		check(t, "succeeded, lost, active", fmt.Sprint(s.Succeeded, s.Lost, s.Active), "2 1 0")
	})
}

// A broker that is leaving may send what it has accepted; it is served.
func TestWorkerSeveralBrokerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newSeveral(t, echo, nil)
		defer a.close()
		a.register()
		b.register()
		b.say("W", "11")
		synctest.Wait()
		check(t, "state", a.Stats().State, Ready)
		b.request("b1", `1`, rawExtra)
		check(t, "final", b.final("b1"), js("1"))
		a.request("a1", `2`, rawExtra)
		check(t, "final", a.final("a1"), js("2"))
		b.say("W", "5")
		b.nextLink()
		b.register()
		check(t, "brokers", a.Stats().Brokers, 2)
	})
}

// Whatever happens, in any order: never more handlers at a time than the
// concurrency, each token once, each final on its own link once, no place lost.
func TestWorkerSeveralRandom(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			n := 1 + r.IntN(3)
			most := n // that may run: what runs goes on when n shrinks
			var h holding
			a, b := newSeveral(t, h.serve, &WorkerConfig{Concurrency: n})
			both := []*testWorker{a, b}
			a.register()
			b.register()
			var open []string // tokens whose handlers are held, or will be
			lines := map[*fakeLink][]string{}
			finals := map[string]*fakeLink{} // by token: where it came
			seen := func(l *fakeLink) {
				lines[l] = append(lines[l], l.sent()...)
			}
			for i := range 150 {
				w := both[r.IntN(2)]
				switch k := r.IntN(20); {
				case k < 10:
					token := fmt.Sprint("t", i)
					open = append(open, token)
					finals[token] = w.fakeLink
					w.request(token, `1`, `{"remaining":400,"attempt":1,"credit":0,"raw":true}`)
				case k < 15 && len(open) > 0:
					j := r.IntN(len(open))
					h.release(open[j])
					open = slices.Delete(open, j, j+1)
				case k < 17 && len(open) > 0:
					token := open[r.IntN(len(open))]
					w.say("W", "10", token, "rid-"+token, "client")
				case k < 18:
					l := w.fakeLink
					w.cut()
					w.nextLink()
					w.register()
					seen(l)
				case k < 19:
					n = 1 + r.IntN(3)
					if err := a.SetConcurrency(n); err != nil {
						t.Fatal(err)
					}
				default:
					pass(time.Duration(r.IntN(100)) * time.Millisecond)
				}
				synctest.Wait()
				a.say("W", "4")
				b.say("W", "4")
				s := a.Stats()
				h.mu.Lock()
				if most = max(min(most, h.running), n); h.running > most || s.Waiting > 0 && a.places.free > 0 {
					t.Errorf("seed %d: %d handlers run, %d wait, %d places of %d are free", seed, h.running, s.Waiting, a.places.free, n)
				}
				h.mu.Unlock()
			}
			h.release(open...)
			synctest.Wait()
			for _, w := range both {
				seen(w.fakeLink)
			}
			check(t, fmt.Sprintf("seed %d: places free at the end", seed), a.places.free, n)
			check(t, "active", a.Stats().Active, 0)
			h.mu.Lock()
			slices.Sort(h.began)
			if d := len(h.began) - len(slices.Compact(slices.Clone(h.began))); d > 0 {
				t.Errorf("seed %d: %d tokens ran twice: %q", seed, d, h.began)
			}
			h.mu.Unlock()
			ended := map[string]bool{}
			for l, all := range lines {
				for _, m := range all {
					if !strings.HasPrefix(m, "W|3|") {
						continue
					}
					token := strings.Split(m, "|")[2]
					if finals[token] != l || ended[token] {
						t.Errorf("seed %d: %q on the wrong link, or again", seed, m)
					}
					ended[token] = true
				}
			}
			a.close()
		})
	}
}

// places, alone: first come, first served, and no place is lost or made, also
// where their number changes: then what runs goes on.
func TestPlaces(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		n := 1 + r.IntN(5)
		p := newPlaces(n)
		var taken, waiting, replaced []*task
		for range 100 {
			switch r.IntN(6) {
			case 5:
				if len(replaced) > 0 {
					i := r.IntN(len(replaced))
					p.returned(replaced[i])
					p.returned(replaced[i])
					replaced = slices.Delete(replaced, i, i+1)
				}
			case 4:
				if len(taken) == 0 {
					continue
				}
				i := r.IntN(len(taken))
				next, ok := p.replace(taken[i])
				if ok != (len(replaced) < n) {
					t.Fatalf("seed %d: replaced %v, %d were and there are %d places", seed, ok, len(replaced), n)
				}
				if !ok {
					continue
				}
				if p.leave(taken[i]) != nil {
					t.Fatalf("seed %d: a place that was given away was left", seed)
				}
				replaced = append(replaced, taken[i])
				taken = slices.Delete(taken, i, i+1)
				if next != nil {
					taken, waiting = append(taken, next), waiting[1:]
				}
			case 3:
				n = 1 + r.IntN(5)
				got := p.resize(n)
				if k := max(min(n-len(taken), len(waiting)), 0); !slices.Equal(got, waiting[:k]) {
					t.Fatalf("seed %d: %d take the new places, %d waited and %d of %d were taken", seed, len(got), len(waiting), len(taken), n)
				}
				taken, waiting = append(taken, got...), waiting[len(got):]
			case 0:
				come := []*task{{}, {}, {}}[:1+r.IntN(3)]
				got := p.come(come)
				taken = append(taken, got...)
				waiting = append(waiting, come[len(got):]...)
			case 1:
				if len(taken) == 0 {
					continue
				}
				i := r.IntN(len(taken))
				next := p.leave(taken[i])
				if p.leave(taken[i]) != nil {
					t.Fatalf("seed %d: a place was left twice", seed)
				}
				taken = slices.Delete(taken, i, i+1)
				if len(waiting) > 0 && len(taken) < n {
					if next != waiting[0] {
						t.Fatalf("seed %d: not the one that waits longest is next", seed)
					}
					taken, waiting = append(taken, next), waiting[1:]
				} else if next != nil {
					t.Fatalf("seed %d: got a next where none waits, or there is no place", seed)
				}
			case 2:
				if len(waiting) == 0 {
					continue
				}
				i := r.IntN(len(waiting))
				if !p.forget(waiting[i]) || p.forget(waiting[i]) || p.leave(waiting[i]) != nil {
					t.Fatalf("seed %d: who waits is not forgotten once, or had a place", seed)
				}
				waiting = slices.Delete(waiting, i, i+1)
			}
			if len(replaced) != p.stuck || len(taken)+p.free != n || p.waiting != len(waiting) || p.free > 0 && p.waiting > 0 {
				t.Fatalf("seed %d: %d taken, %d free of %d; %d wait, counted %d", seed, len(taken), p.free, n, len(waiting), p.waiting)
			}
		}
	}
}

// Endpoints belong to the caller, and each is told the whole concurrency.
func TestWorkerSeveralConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := WorkerConfig{Endpoints: []string{"inproc://y"}, Concurrency: 7}
		w, err := NewWorker("inproc://x", "echo", &f)
		if err != nil {
			t.Fatal(err)
		}
		f.Endpoints[0] = "changed"
		check(t, "endpoint", w.config.Endpoints[0], "inproc://y")
		w.OnRequest(echo)
		n := newFakeNet()
		for i, want := range []string{"inproc://x", "inproc://y"} {
			check(t, "endpoint", w.conns[i].session.endpoint, want)
			w.conns[i].session.dial = n.dial
		}
		w.Start()
		for range w.conns {
			m := n.next(t).awaitPrefix(t, "W|1|echo|")
			if !strings.Contains(m, `"concurrency":7`) {
				t.Errorf("READY: got %q, want the whole concurrency", m)
			}
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
}
