package omdp

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

// Widening: twice as much each time, up to the most of one and the most of all;
// what has ended is given back. A window that the caller has set stays.
func TestPendingWiden(t *testing.T) {
	table, _ := tableUp() // 1,000, up to 5,000
	p := &pending{n: 1, deadline: never, window: 1000}
	table.add(p)
	for i, want := range []int64{2000, 4000, 5000, 0, 0} {
		if got := table.widen(p); got != want {
			t.Errorf("widen %d = %d, want %d", i+1, got, want)
		}
	}
	fixed := &pending{n: 2, deadline: never, window: 1000, options: options{credit: 1000}}
	table.add(fixed)
	if got := table.widen(fixed); got != 0 || fixed.window != 1000 {
		t.Errorf("a window that was set grew to %d", got)
	}
	table.remove(p)
	if table.widened != 0 {
		t.Errorf("%d bytes are left of what has ended", table.widened)
	}
}

func TestPendingWidenProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		table, _ := tableUp()
		var live []*pending
		rt.Repeat(map[string]func(*rapid.T){
			"add": func(rt *rapid.T) {
				p := &pending{n: uint64(len(live)) + 1 + table.fresh, deadline: never, window: 1000}
				table.fresh++
				table.add(p)
				live = append(live, p)
			},
			"widen": func(rt *rapid.T) {
				if len(live) > 0 {
					p := rapid.SampledFrom(live).Draw(rt, "which")
					was := p.window
					if got := table.widen(p); got != 0 && got <= was || got == 0 && p.window != was {
						rt.Fatalf("from %d to %d, window %d", was, got, p.window)
					}
				}
			},
			"end": func(rt *rapid.T) {
				if len(live) > 0 {
					table.remove(live[0])
					live = live[1:]
				}
			},
			"": func(rt *rapid.T) {
				sum := int64(0)
				for _, p := range live {
					sum += p.window - 1000
					if p.window > 5000 {
						rt.Fatalf("a window of %d", p.window)
					}
				}
				if sum != table.widened || sum > widenShare*5000 {
					rt.Fatalf("all grew by %d, the table says %d", sum, table.widened)
				}
			},
		})
	})
}

// A client widens a window when the worker waits and its reader does not lag:
// at once, or as soon as that has caught up; what came in between is an answer.
func TestClientWidens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, &ClientConfig{Window: 8 << 10, MaxWindow: 32 << 10})
		defer c.Close()
		l := n.next(t)
		if m := l.awaitPrefix(t, "C|8|"); !strings.Contains(m, `"grow":1`) {
			t.Errorf("greeted by %s, want that windows grow", m)
		}
		l.say("C", "8", `{"v":1,"id":"`+brokerLife+`","hb":2500}`)
		s := c.RequestStream(t.Context(), "echo", nil)
		rid := l.request(t, "C|2|echo|")
		part := func() { l.say("C", "6", rid, `{"status":200,"msg":"x"}`) }
		said := func(what, want string) {
			t.Helper()
			synctest.Wait()
			var got strings.Builder
			for _, m := range l.sent() {
				if strings.HasPrefix(m, "C|9|") {
					got.WriteString(strings.TrimPrefix(m, "C|9|"+rid) + " ")
				}
			}
			if got.String() != want {
				t.Errorf("%s: told %q, want %q", what, got.String(), want)
			}
		}
		l.say("C", "12", rid)
		said("blocked with nothing to read", "|0|16384 ")
		part()
		part()
		l.say("C", "12", rid)
		said("blocked, and its reader lags", "")
		s.message()
		said("… still", "")
		s.message()
		said("… and has caught up", "|176|32768 ") // two partials, of 24 and 64 bytes each
		l.say("C", "12", rid)
		said("at the most", "")
		part()
		l.say("C", "12", rid)
		part() // it went on: credit was on its way
		s.message()
		s.message()
		said("went on meanwhile", "")

		s2 := c.RequestStream(t.Context(), "echo", nil, WithWindow(8<<10))
		rid = l.request(t, "C|2|echo|")
		l.say("C", "12", rid)
		said("set by the caller", "")
		s2.Close()
		l.say("C", "12", rid)
		said("what has ended", "")
		s.Close()
	})
}

// Room tells what may be written without waiting, and nothing after the end.
func TestResponseRoom(t *testing.T) {
	var c credit
	if got := c.room(100); got != 100 {
		t.Errorf("without a bound: room for %d, want 100", got)
	}
	c.window = 50
	c.take(30)
	if got := c.room(100); got != 20 {
		t.Errorf("30 of 50 on the way: room for %d, want 20", got)
	}
	c.take(500)
	c.take(500)
	if got := c.room(100); got > 20 {
		t.Errorf("more than the window on the way: room for %d", got)
	}
	c.grant(1000, 80)
	if got := c.room(100); got != 80 {
		t.Errorf("all consumed, and wider: room for %d, want 80", got)
	}
	c.grant(1, 10)
	if got := c.room(100); got != 80 {
		t.Errorf("a window that shrinks: room for %d, want 80", got)
	}
	synctest.Test(t, func(t *testing.T) {
		rooms := make(chan int, 2)
		w := newTestWorker(t, func(ctx context.Context, _ *Request, res *Response) error {
			rooms <- res.Room()
			err := res.End(bytes.Repeat([]byte("x"), 10))
			rooms <- res.Room()
			return err
		}, nil)
		defer w.close()
		w.register()
		w.request("a", `1`, `{"remaining":-1,"attempt":1,"credit":4096,"raw":true,"grow":true}`)
		w.final("a")
		check(t, "room", <-rooms, 4096)
		check(t, "room after the end", <-rooms, 0)
	})
}
