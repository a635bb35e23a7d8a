package omdp

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// checkSession says what is inconsistent in a session.
func checkSession(s *workerSession) error {
	if len(s.all) > s.most() || len(s.all) != len(s.byKey) {
		return fmt.Errorf("%d held, %d by key, concurrency %d", len(s.all), len(s.byKey), s.concurrency)
	}
	for i, t := range s.all {
		if t.at != i || s.byKey[t.key] != t {
			return fmt.Errorf("%q: at %d, found at %d", t.key, t.at, i)
		}
	}
	return nil
}

// Whatever a broker says, in any order, and however time passes: a session
// holds no more than it may, runs a request once, ends its context once and
// not later than a tick after its time, and beats on time.
func TestWorkerSessionProperty(t *testing.T) {
	w, err := NewWorker("inproc://x", "echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		const beat = time.Second
		s := newWorkerSession(beat, 3, rapid.IntRange(1, 5).Draw(rt, "concurrency"))
		var a arrivals
		now := instant(0)
		ran, ended := map[*task]int{}, map[*task]int{}
		var lastBeat instant
		open := func() {
			a.drop = nil
			s.open()
			s.connected(now)
			lastBeat = now
		}
		open()
		due := s.tick(now, &a)
		settle := func() {
			for _, t := range a.run {
				ran[t]++
			}
			for _, e := range a.ended {
				if ended[e.t]++; ended[e.t] > 1 || ran[e.t] == 0 || e.cause == nil {
					rt.Fatalf("%q ended %d times, ran %d times", e.t.key, ended[e.t], ran[e.t])
				}
			}
			if a.wake {
				due = now // the shell has tick called at once
			}
			if a.drop != nil {
				for _, t := range s.close() {
					ended[t]++
				}
				a.reset()
				open()
				due = s.tick(now, &a)
			}
			a.reset()
			if err := checkSession(&s); err != nil {
				rt.Fatal(err)
			}
		}
		tick := func() {
			due = s.tick(now, &a)
			if a.beat {
				lastBeat = now
			}
			if a.drop == nil && due <= now {
				rt.Fatalf("at %v the next tick is due at %v", now, due)
			}
			if now-lastBeat >= beat {
				rt.Fatalf("no beat from %v to %v", lastBeat, now)
			}
			for _, t := range s.all {
				if t.cut <= now && !t.told {
					rt.Fatalf("at %v %q goes on, its deadline was %v", now, t.key, t.cut)
				}
			}
			settle()
		}
		take := func(m *message, x *extra) *task { return newTask(w.conns[0], nil, m, x) }
		pick := func(name string) (token, rid []byte) {
			return []byte(rapid.SampledFrom([]string{"a", "ab", "abc"}).Draw(rt, name)), []byte(rapid.SampledFrom([]string{"c", "bc"}).Draw(rt, "rid"))
		}
		rt.Repeat(map[string]func(*rapid.T){
			"request": func(rt *rapid.T) {
				m := message{worker: true, op: opRequest, data: []byte("1"), options: []byte(`{"timeout":1500}`)}
				m.token, m.rid = pick("token")
				if x := rapid.IntRange(-1, 3000).Draw(rt, "remaining"); x > 0 {
					m.extra = (&extra{remaining: int64(x), attempt: 1, raw: x%2 == 0}).append(nil)
				}
				held := s.find(&m) != nil
				s.receive(now, &m, &a, take)
				if held && len(a.run) > 0 {
					rt.Fatal("a request that is held ran again")
				}
				settle()
			},
			"other": func(rt *rapid.T) {
				m := message{worker: true, op: rapid.SampledFrom([]op{opHeartbeat, opCredit, opCancel, opHello, opDrain, opDisconnect}).Draw(rt, "op"), credit: 1}
				if m.op == opHeartbeat && rapid.Bool().Draw(rt, "bare") || m.op > opHeartbeat {
					m.caps = []byte(rapid.SampledFrom([]string{brokerCaps, otherCaps, "{}"}).Draw(rt, "caps"))
				}
				if m.op == opHeartbeat || m.op == opCredit || m.op == opCancel {
					m.token, m.rid = pick("token")
				}
				s.receive(now, &m, &a, take)
				settle()
			},
			"concurrency": func(rt *rapid.T) {
				s.setConcurrency(rapid.IntRange(1, 5).Draw(rt, "concurrency"))
				if s.unsaid() {
					s.say()
				}
				if s.unsaid() || s.known() && !s.over && s.said != s.concurrency || s.claim < s.said {
					rt.Fatalf("%d at a time, said %d, the most %d", s.concurrency, s.said, s.claim)
				}
			},
			"final": func(rt *rapid.T) {
				if len(s.all) > 0 {
					t := rapid.SampledFrom(s.all).Draw(rt, "held")
					if !s.release(t) || s.release(t) {
						rt.Fatal("a request that is held is released once")
					}
				}
			},
			"time": func(rt *rapid.T) {
				for left := instant(rapid.IntRange(1, 5000).Draw(rt, "ms")) * time.Millisecond; ; {
					step := min(left, max(due-now, 0))
					now += step
					left -= step
					if due <= now {
						tick()
					}
					if left == 0 {
						break
					}
				}
				if due <= now {
					tick()
				}
			},
			"": func(rt *rapid.T) {
				if err := checkSession(&s); err != nil {
					rt.Fatal(err)
				}
			},
		})
	})
}

// The key of a request is token and rid, however they are cut.
func TestHeldKeys(t *testing.T) {
	for _, token := range []string{"a", "ab", string(bytes.Repeat([]byte("t"), maxIdentity))} {
		for _, rid := range []string{"b", "bb", string(bytes.Repeat([]byte("r"), maxRID))} {
			h := held{key: string(appendKey(nil, []byte(token), []byte(rid)))}
			check(t, "token", h.token(), token)
			check(t, "rid", h.rid(), rid)
		}
	}
	if bytes.Equal(appendKey(nil, []byte("a"), []byte("bb")), appendKey(nil, []byte("ab"), []byte("b"))) {
		t.Error("two requests have one key")
	}
}

func TestCredit(t *testing.T) {
	c := credit{window: 10}
	for i, step := range []struct {
		grant, take int64
		want        bool
	}{
		{0, 6, true}, {0, 4, true}, {0, 1, false}, {1, 1, true}, {0, 1, false},
		{100, 30, true}, // consumed is at most what was sent; then anything may go
		{29, 1, true},   // 1 + 1
		{0, 9, false}, {1, 9, true},
	} {
		if step.grant > 0 {
			c.grant(step.grant, 0)
		}
		check(t, fmt.Sprint("step ", i), c.take(step.take), step.want)
	}
	none := credit{}
	for range 3 {
		check(t, "without credit", none.take(1<<40), true)
	}
}

// The way never holds more than the window, or less than a share of it, which
// the client may have consumed without a word, and one message.
func TestCreditProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := credit{window: rapid.Int64Range(1, 100).Draw(rt, "window")}
		before := int64(0) // on the way
		for range 50 {
			if rapid.Bool().Draw(rt, "take") {
				n := rapid.Int64Range(1, 150).Draw(rt, "n")
				took := c.take(n)
				if took && before >= max(c.window/creditShare, 1) && before+n > c.window || !c.credible() {
					rt.Fatalf("%d on the way, %d taken: %+v", before, n, c)
				}
				if took {
					before += n
				}
				continue
			}
			n := rapid.Int64Range(1, 200).Draw(rt, "n")
			c.grant(n, rapid.SampledFrom([]int64{0, 0, 1, 50, 200}).Draw(rt, "wider"))
			before = max(before-n, 0)
			if !c.credible() {
				rt.Fatalf("%+v", c)
			}
		}
		c.grant(1<<40, 0)
		if !c.take(1 << 20) {
			rt.Fatal("a client that consumed everything gets nothing")
		}
	})
}

// A reader that reads everything never stops its writer, whatever the sizes:
// what it keeps to itself is too little to wait for.
func TestCreditNeverDeadlocks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		window := rapid.IntRange(minWindow, 1<<20).Draw(rt, "window")
		worker := credit{window: int64(window)}
		client := &call{}
		client.share.Store(int64(window / creditShare))
		for range 30 {
			n := rapid.IntRange(1, 2<<20).Draw(rt, "n")
			if !worker.take(int64(n)) {
				rt.Fatalf("%d bytes may not go though everything was read: %+v", n, worker)
			}
			told := int64(client.consume(n))
			if rapid.IntRange(0, 3).Draw(rt, "grow") == 0 && window < 1<<22 { // as Client.widen does
				window *= 2
				client.share.Store(int64(window / creditShare))
				worker.grant(told+client.consumed.Swap(0), int64(window))
				continue
			}
			worker.grant(told, 0)
		}
	})
}

func (c *credit) credible() bool { return c.consumed <= c.sent }

func TestCancelCauses(t *testing.T) {
	for text, want := range map[string]error{
		causeClient: ErrCanceled, causeGone: ErrCanceled, causeStalled: ErrCanceled, causeDeadline: ErrTimeout, "": ErrCanceled, "else": ErrCanceled,
	} {
		checkIs(t, text, cancelCause([]byte(text)), want)
	}
	check(t, "text", errors.Unwrap(errClientGone).Error()+": client gone", errClientGone.Error())
}

// Beats come in the order of what is held, and never for what is not.
func TestWorkerSessionBeats(t *testing.T) {
	w, _ := NewWorker("inproc://x", "echo", nil)
	s := newWorkerSession(time.Second, 3, 3)
	var a arrivals
	s.open()
	s.connected(0)
	for _, token := range []string{"a", "b", "c"} {
		s.receive(0, &message{worker: true, op: opRequest, token: []byte(token), rid: []byte("r"), data: []byte("1")}, &a,
			func(m *message, x *extra) *task { return newTask(w.conns[0], nil, m, x) })
	}
	s.release(a.run[0])
	var o batch.Out
	s.appendBeats(&o, time.Second)
	in := batch.In{B: o.B}
	var got []string
	for f := in.Next(); f != nil; f = in.Next() {
		got = append(got, joinFrames(f))
	}
	check(t, "beats", fmt.Sprint(got), "[W|4 W|4|c|r W|4|b|r]")
}
