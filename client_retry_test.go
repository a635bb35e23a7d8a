package omdp

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// newFakePair makes a client of two brokers, a and b, each on fake links of its own.
func newFakePair(t *testing.T, config ClientConfig) (c *Client, a, b *fakeNet) {
	t.Helper()
	config.Endpoints = []string{"tcp://127.0.0.1:5556"}
	c, err := NewClient("tcp://127.0.0.1:5555", &config)
	if err != nil {
		t.Fatal(err)
	}
	a, b = newFakeNet(), newFakeNet()
	c.conns[0].session.dial, c.conns[1].session.dial = a.dial, b.dial
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c, a, b
}

// request takes the next REQUEST on l, which is to begin with prefix.
func (l *fakeLink) request(t *testing.T, prefix string) (rid string) {
	t.Helper()
	m := l.awaitPrefix(t, "C|2|")
	if !strings.HasPrefix(m, prefix) {
		t.Errorf("sent %s, want %s…", m, prefix)
	}
	return ridOf(m)
}

// After a lost worker an idempotent request is sent again under the same id,
// with the number of the attempt and the time that is left.
func TestIdempotentWorkerLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		start := time.Now()
		done := goCall(t.Context(), c, "echo", "x", Idempotent(), WithTimeout(10*time.Second))
		rid := l.request(t, "C|2|echo|")
		for attempt, want := range []string{`"x"|{"timeout":9`, `"x"|{"timeout":9`} {
			l.say("C", "3", rid, `{"status":"W_ERROR"}`)
			m := l.awaitPrefix(t, "C|2|")
			suffix := `,"attempt":` + string(rune('2'+attempt)) + `}`
			if ridOf(m) != rid || !strings.Contains(m, want) || !strings.HasSuffix(m, suffix) {
				t.Fatalf("sent %s, want the same id, %s… and …%s", m, want, suffix)
			}
		}
		if waited := time.Since(start); waited < againMin/2+againMin || waited > 4*againMin {
			t.Errorf("two more attempts came after %v", waited)
		}
		l.say("C", "3", rid, `{"status":"W_ERROR"}`)
		r := <-done
		wantError(t, "the third attempt", r.err, ErrWorkerLost, MayHaveExecuted)
		if !strings.Contains(r.err.Error(), "attempt 3") {
			t.Errorf("%q does not tell of the attempts", r.err)
		}
		if s := c.Stats(); s.Retries != 2 || s.Failed != 1 {
			t.Errorf("stats %+v, want 2 retries, 1 failed", s)
		}
	})
}

// What must not be sent again: without Idempotent, after a partial, with no
// time, budget or attempt left, refused for overload, or answered by a handler.
func TestNotSentAgain(t *testing.T) {
	for name, tt := range map[string]struct {
		config  ClientConfig
		opts    []CallOption
		partial bool
		status  string
		want    error
		outcome Outcome
	}{
		"not idempotent":   {opts: nil, status: "W_ERROR", want: ErrWorkerLost},
		"after a partial":  {opts: []CallOption{Idempotent()}, partial: true, status: "W_ERROR", want: ErrWorkerLost},
		"one attempt":      {config: ClientConfig{MaxAttempts: 1}, opts: []CallOption{Idempotent()}, status: "W_ERROR", want: ErrWorkerLost},
		"no time left":     {opts: []CallOption{Idempotent(), WithTimeout(4 * time.Millisecond)}, status: "W_ERROR", want: ErrWorkerLost},
		"overloaded":       {opts: []CallOption{Idempotent()}, status: `OVERLOADED","executed":false,"x":"`, want: ErrOverloaded, outcome: NotExecuted},
		"slow":             {opts: []CallOption{Idempotent()}, status: "SLOW_CLIENT", want: ErrSlowConsumer},
		"timeout":          {opts: []CallOption{Idempotent()}, status: "TIMEOUT", want: ErrTimeout},
		"leaving, one way": {status: `DRAINING","executed":false,"x":"`, want: ErrBrokerLost, outcome: NotExecuted},
		"leaving, at once": {opts: []CallOption{Idempotent(), FailFast()}, status: `DRAINING","executed":false,"x":"`, want: ErrBrokerLost, outcome: NotExecuted},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, n := newFakeClient(t, &tt.config)
				defer c.Close()
				l := n.next(t)
				l.welcome(t)
				done := goCall(t.Context(), c, "echo", "x", tt.opts...)
				rid := l.request(t, "C|2|echo|")
				if tt.partial {
					l.say("C", "6", rid, `{"status":200,"msg":1}`)
				}
				l.say("C", "3", rid, `{"status":"`+tt.status+`"}`)
				wantError(t, "the call", (<-done).err, tt.want, tt.outcome)
				if c.Stats().Retries != 0 {
					t.Error("it was sent again")
				}
			})
		})
	}
}

// The budget bounds the attempts of all requests together, and fills again.
func TestRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, &ClientConfig{RetryBudget: 2, MaxAttempts: 1000})
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		over := make(chan struct{})
		defer close(over)
		go l.live(over)
		for i, want := range []uint64{2, 2, 3} {
			if i == 2 {
				pass(50 * time.Second) // each second gives back a hundredth
			}
			l.sent() // the attempts of the call before
			done := goCall(t.Context(), c, "echo", "x", Idempotent())
			rid := l.request(t, "C|2|echo|")
			ended := false
			for !ended {
				l.say("C", "3", rid, `{"status":"W_ERROR"}`)
				pass(time.Minute / 60)
				synctest.Wait()
				select {
				case r := <-done:
					wantError(t, "the call", r.err, ErrWorkerLost, MayHaveExecuted)
					ended = true
				default:
				}
			}
			if got := c.Stats().Retries; got != want {
				t.Errorf("%d attempts more, want %d", got, want)
			}
		}
	})
}

// A lost broker: the request waits for the next connection, or takes another.
func TestIdempotentBrokerLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		done := goCall(t.Context(), c, "echo", "x", Idempotent())
		rid := l.request(t, "C|2|echo|")
		once := goCall(t.Context(), c, "echo", "once")
		l.request(t, "C|2|echo|")
		l.cut()
		wantError(t, "not idempotent", (<-once).err, ErrBrokerLost, MayHaveExecuted)
		l = n.next(t)
		l.welcome(t)
		if again := l.request(t, "C|2|echo|"); again != rid {
			t.Errorf("sent again as %s, want %s", again, rid)
		}
		l.say("C", "3", rid, `{"status":200,"msg":"done"}`)
		if r := <-done; r.err != nil || r.m.String() != "done" {
			t.Errorf("got %q, %v", r.m, r.err)
		}
	})
}

// LOST may be the answer to a beat for an attempt before: what came before the
// answer to a HELLO that went out after this attempt is.
func TestLostOfAnOlderAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		done := goCall(t.Context(), c, "echo", "x", Idempotent())
		rid := l.request(t, "C|2|echo|")
		l.awaitPrefix(t, "C|4|"+rid) // behind a HELLO, both are held up on their way
		l.say("C", "3", rid, `{"status":"W_ERROR"}`)
		l.request(t, "C|2|echo|"+rid)
		hello := func() { l.say("C", "8", `{"v":1,"id":"`+brokerLife+`","hb":2500}`) }
		hello()
		l.say("C", "3", rid, `{"status":"LOST"}`)
		l.awaitPrefix(t, "C|8|")
		l.say("C", "3", rid, `{"status":"LOST"}`)
		synctest.Wait()
		if s := c.Stats(); s.Retries != 1 || s.Late != 2 {
			t.Fatalf("%d attempts besides the first, %d late; want 1, 2", s.Retries, s.Late)
		}
		hello()
		l.say("C", "3", rid, `{"status":"LOST"}`) // about this attempt
		l.request(t, "C|2|echo|"+rid)
		l.say("C", "3", rid, `{"status":200,"msg":"done"}`)
		if r := <-done; r.err != nil || r.m.String() != "done" {
			t.Errorf("got %q, %v", r.m, r.err)
		}
	})
}

// The result of the former attempt is gone: a fresh id.
func TestIdempotentDuplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		done := goCall(t.Context(), c, "echo", "x", Idempotent())
		rid := l.request(t, "C|2|echo|")
		l.say("C", "3", rid, `{"status":"W_ERROR"}`)
		l.request(t, "C|2|echo|"+rid)
		l.say("C", "3", rid, `{"status":"DUPLICATE","executed":true}`)
		fresh := l.request(t, "C|2|echo|"+c.table.prefix)
		if fresh == rid {
			t.Errorf("sent again under the same id %s", rid)
		}
		l.say("C", "3", rid, `{"status":200,"msg":"late"}`)
		l.say("C", "3", fresh, `{"status":200,"msg":"done"}`)
		if r := <-done; r.err != nil || r.m.String() != "done" {
			t.Errorf("got %q, %v", r.m, r.err)
		}
		if s := c.Stats(); s.Late != 1 {
			t.Errorf("%d late, want 1", s.Late)
		}
	})
}

// An id that ended without an execution is used up, and the request is not.
func TestNeverExecutedDuplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		done := goCall(t.Context(), c, "echo", "x")
		rid := l.request(t, "C|2|echo|")
		l.say("C", "3", rid, `{"status":"DUPLICATE","executed":false}`)
		fresh := l.request(t, "C|2|echo|")
		l.say("C", "3", fresh, `{"status":200,"msg":"done"}`)
		if r := <-done; r.err != nil || fresh == rid || c.Stats().Retries != 0 {
			t.Errorf("got %v under %s after %s, %d attempts besides the first", r.err, fresh, rid, c.Stats().Retries)
		}
	})
}

// An attempt that may have run is not forgotten by what a later one is told.
func TestOutcomeOfAllAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		done := goCall(t.Context(), c, "echo", "x", Idempotent(), WithTimeout(time.Second))
		l.say("C", "3", l.request(t, "C|2|echo|"), `{"status":"W_ERROR"}`)
		l.say("C", "3", l.request(t, "C|2|echo|"), `{"status":"OVERLOADED","executed":false}`)
		wantError(t, "refused in the end", (<-done).err, ErrOverloaded, MayHaveExecuted)

		done = goCall(t.Context(), c, "echo", "x", Idempotent(), WithTimeout(time.Second))
		l.request(t, "C|2|echo|")
		n.refuse = context.Canceled // no connection any more
		l.cut()
		wantError(t, "timed out while it waited", (<-done).err, ErrTimeout, MayHaveExecuted)

		done = goCall(t.Context(), c, "echo", "x", Idempotent(), WithTimeout(time.Second))
		wantError(t, "never sent", (<-done).err, ErrTimeout, NotSent)
	})
}

// The first broker that is well gets new requests; who is on another stays there.
func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, a, b := newFakePair(t, ClientConfig{})
		defer c.Close()
		la, lb := a.next(t), b.next(t)
		over := make(chan struct{})
		defer close(over)
		lb.welcome(t)
		go lb.live(over)
		synctest.Wait()
		if s := c.Stats(); s.State != Ready || s.Endpoint != "tcp://127.0.0.1:5556" {
			t.Errorf("with the second broker alone: %v at %q", s.State, s.Endpoint)
		}
		la.welcome(t)
		stopped := make(chan struct{})
		go la.live(stopped)
		synctest.Wait()
		if s := c.Stats(); s.Endpoint != "tcp://127.0.0.1:5555" {
			t.Errorf("with both new requests go to %q", s.Endpoint)
		}
		held := goCall(t.Context(), c, "echo", "held", Idempotent())
		rid := la.request(t, "C|2|echo|")

		close(stopped) // a falls silent: its heartbeats tell
		at := time.Now()
		if again := lb.request(t, "C|2|echo|"); again != rid {
			t.Errorf("moved as %s, want %s", again, rid)
		}
		if d := time.Since(at); d < 5*time.Second || d > 10*time.Second {
			t.Errorf("moved on after %v, want about 7.5s", d)
		}
		if c.Stats().State != Ready {
			t.Errorf("state %v while one broker is well", c.Stats().State)
		}
		next := goCall(t.Context(), c, "echo", "next")
		other := lb.request(t, "C|2|echo|")

		la = a.next(t)
		la.welcome(t)
		go la.live(over)
		back := goCall(t.Context(), c, "echo", "back")
		la.say("C", "3", la.request(t, "C|2|echo|"), `{"status":200,"msg":"back"}`)
		lb.say("C", "3", rid, `{"status":200,"msg":"held"}`)
		lb.say("C", "3", other, `{"status":200,"msg":"next"}`)
		for _, done := range []<-chan result{held, next, back} {
			if r := <-done; r.err != nil {
				t.Error(r.err)
			}
		}
	})
}

// A broker that leaves: what it has goes on, what is new and what it refuses
// goes to the other at once, idempotent or not.
func TestDrainMovesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var states []State
		c, a, b := newFakePair(t, ClientConfig{OnState: func(s State) { states = append(states, s) }})
		la, lb := a.next(t), b.next(t)
		la.welcome(t)
		lb.welcome(t)
		synctest.Wait()
		held := goCall(t.Context(), c, "echo", "held")
		rid := la.request(t, "C|2|echo|")
		refused := goCall(t.Context(), c, "echo", "refused")
		bounced := la.request(t, "C|2|echo|")
		la.say("C", "11")
		la.say("C", "3", bounced, `{"status":"DRAINING","executed":false}`)
		moved := lb.request(t, "C|2|echo|")
		if moved != bounced {
			t.Errorf("moved as %s, want %s", moved, bounced)
		}
		fresh := goCall(t.Context(), c, "echo", "new")
		lb.say("C", "3", lb.request(t, "C|2|echo|"), `{"status":200,"msg":"new"}`)
		lb.say("C", "3", moved, `{"status":200,"msg":"refused"}`)
		la.say("C", "3", rid, `{"status":200,"msg":"held"}`)
		for _, done := range []<-chan result{held, refused, fresh} {
			if r := <-done; r.err != nil {
				t.Error(r.err)
			}
		}
		a.next(t).welcome(t) // the connection to a was given up and made anew
		synctest.Wait()
		if s := c.Stats(); s.Endpoint != "tcp://127.0.0.1:5555" || s.Retries != 0 {
			t.Errorf("stats %+v, want to be back and no attempt counted", s)
		}
		c.Close()
		if want := []State{Ready, Closed}; !slices.Equal(states, want) {
			t.Errorf("states %v, want %v", states, want)
		}
	})
}
