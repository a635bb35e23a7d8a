package omdp

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestClientOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		for want, opts := range map[string][]CallOption{
			`{}`:                                     {WithTimeout(0)},
			`{"timeout":-1}`:                         {WithTimeout(-time.Second)},
			`{"failFast":true}`:                      {FailFast()},
			`{"failFast":true,"key":"a b"}`:          {FailFast(), WithKey("a b")},
			`{"key":"\"ü","meta":{"a":"1"}}`:         {WithMetadata(map[string]string{"a": "1"}), WithKey(`"ü`)},
			`{"meta":{"a":"1"}}`:                     {WithMetadata(map[string]string{"a": "1"})},
			`{"timeout":1,"failFast":true}`:          {FailFast(), WithTimeout(time.Microsecond)},
			`{"timeout":60001,"meta":{"trace":"x"}}`: {WithTimeout(time.Minute + time.Millisecond), WithMetadata(map[string]string{"trace": "x"})},
		} {
			if err := c.Request(t.Context(), "echo", nil, nil, nil, opts...); err != nil {
				t.Fatal(err)
			}
			m := l.awaitPrefix(t, "C|2|")
			if got := strings.SplitN(m, "|", 6)[5]; got != want {
				t.Errorf("options %s, want %s", got, want)
			}
			l.say("C", "3", ridOf(m), `{"status":200,"msg":null}`)
		}
	})
}

func TestClientRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := NewClient("inproc://x", &ClientConfig{MaxBody: 2048, MaxOutstanding: 2, SendQueue: 5000})
		if err != nil {
			t.Fatal(err)
		}
		n := newFakeNet()
		c.conns[0].session.dial = n.dial
		n.blocked = true
		call := func(service string, data any, opts ...CallOption) error {
			_, err := c.Call(t.Context(), service, data, opts...)
			return err
		}
		request := func(data any) error {
			return c.Request(t.Context(), "echo", data, nil, func(_ Message, err error) {
				wantError(t, "cut off", err, ErrClosed, NotSent)
			})
		}
		wantError(t, "before Start", call("echo", nil), ErrNotStarted, NotSent)
		wantError(t, "WaitReady before Start", c.WaitReady(t.Context()), ErrNotStarted, NotSent)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err == nil {
			t.Error("a second Start gave no error")
		}
		wantError(t, "a large body", call("echo", strings.Repeat("x", 2047)), ErrTooLarge, NotSent)
		for _, err := range []error{
			call("", nil), call(strings.Repeat("s", 256), nil), call("echo", func() {}), call("echo", nil, WithWindow(1)), call("echo", nil, WithKey(strings.Repeat("k", 256))), call("echo", nil, WithKey("\xff")),
			call("echo", []byte(nil), WithWindow(-1)),
		} {
			if err == nil || OutcomeOf(err) != NotSent {
				t.Errorf("got %v (%v), want an error (not sent)", err, OutcomeOf(err))
			}
		}
		for range 2 {
			if err := request("x"); err != nil {
				t.Error(err)
			}
		}
		wantError(t, "over MaxOutstanding", request("x"), ErrOverloaded, NotSent)
		c.config.MaxOutstanding = -1
		for range 2 {
			if err := request(strings.Repeat("x", 2040)); err != nil {
				t.Error(err)
			}
		}
		wantError(t, "over SendQueue", request(strings.Repeat("x", 2040)), ErrOverloaded, NotSent)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error("second Close:", err)
		}
		wantError(t, "after Close", call("echo", nil), ErrClosed, NotSent)
		wantError(t, "Start after Close", c.Start(), ErrClosed, NotSent)
		wantError(t, "WaitReady after Close", c.WaitReady(t.Context()), ErrClosed, NotSent)
	})
}

func TestClientNewErrors(t *testing.T) {
	for _, tt := range []struct {
		endpoint string
		config   ClientConfig
		want     string
	}{
		{"", ClientConfig{}, `endpoint: "" is not tcp://host:port, ipc://path or inproc://name`},
		{"tcp://127.0.0.1", ClientConfig{}, `endpoint: "tcp://127.0.0.1": is not tcp://host:port, ipc://path or inproc://name`},
		{"tcp://*:5555", ClientConfig{}, `endpoint: "tcp://*:5555": a wildcard can only be bound`},
		{"tcp://h:70000", ClientConfig{}, `endpoint: "tcp://h:70000": the port "70000" is not a number from 1 to 65535`},
		{"udp://h:1", ClientConfig{}, `endpoint: "udp://h:1" is not tcp://host:port, ipc://path or inproc://name`},
		{"ipc://" + strings.Repeat("p", 108), ClientConfig{}, `: the path has 108 bytes, over 107`},
		{"inproc://x", ClientConfig{Heartbeat: -1}, "Heartbeat: -1ns is not from 10ms to 24h"},
		{"inproc://x", ClientConfig{Liveness: -1}, "Liveness: -1 is not from 2 to 1000"},
		{"inproc://x", ClientConfig{ReconnectMin: time.Second, ReconnectMax: time.Millisecond}, "ReconnectMax: 1ms is under ReconnectMin, 1s"},
		{"inproc://x", ClientConfig{MaxBody: 1}, "MaxBody: 1 is not from 1 KiB to 1 GiB"},
		{"inproc://x", ClientConfig{Window: 1}, "Window: 1 is not from 4 KiB to 1 GiB"},
	} {
		_, err := NewClient(tt.endpoint, &tt.config)
		if err == nil || !strings.HasPrefix(err.Error(), "omdp: new client: ") || !strings.HasSuffix(err.Error(), tt.want) {
			t.Errorf("NewClient(%q): got %v, want …%s", tt.endpoint, err, tt.want)
		}
	}
}

// C6: Close completes all. The bubble ends only if no goroutine is left.
func TestClientClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		l := n.next(t)
		l.welcome(t)
		call := goCall(t.Context(), c, "echo", 1)
		rid := ridOf(l.awaitPrefix(t, "C|2|"))
		final := make(chan error, 1)
		if err := c.Request(t.Context(), "echo", 2, nil, func(_ Message, err error) { final <- err }); err != nil {
			t.Fatal(err)
		}
		stream := c.RequestStream(t.Context(), "echo", 3)
		l.awaitPrefix(t, "C|2|")
		l.awaitPrefix(t, "C|2|")
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		r := <-call
		wantError(t, "Call", r.err, ErrClosed, MayHaveExecuted)
		wantError(t, "Request", <-final, ErrClosed, MayHaveExecuted)
		_, err := stream.Read(make([]byte, 1))
		wantError(t, "Stream", err, ErrClosed, MayHaveExecuted)
		if got := l.sent(); len(got) != 3 || got[0] != "C|10|"+rid {
			t.Errorf("sent %q, want the three cancels", got)
		}
	})
}

// What is said while something is sent is delivered by whoever sends: no lock
// of the client may be held there. A broker that answers everything at once
// would hang one that did.
func TestClientHoldsNoLockWhileSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		welcome := `{"v":1,"id":"` + brokerLife + `","hb":2500}`
		n.script = func(l *fakeLink, f [][]byte) {
			l.say("C", "8", welcome)
			switch string(f[1]) {
			case "2":
				l.reply(opHeartbeat, f[3])
				l.reply(opPartial, f[3], []byte("b"), make([]byte, 4096)) // wants credit
			case "4", "9", "10":
				l.reply(opPartial, f[2], []byte("b"), nil)
			}
		}
		n.blocked = true
		c, _ := startFakeClient(t, &ClientConfig{Window: 4096}, n)
		calls := []<-chan result{goCall(t.Context(), c, "echo", 1, WithTimeout(4*time.Second)), goCall(t.Context(), c, "echo", 1, WithTimeout(-1))}
		synctest.Wait()
		l := n.next(t)
		l.hold(false) // up sends
		calls = append(calls, goCall(t.Context(), c, "echo", 1, WithTimeout(-1)))
		pass(10 * time.Second) // beats, and an expiry
		ctx, cancel := context.WithCancel(t.Context())
		calls = append(calls, goCall(ctx, c, "echo", 1, WithWindow(64<<10)))
		synctest.Wait()
		cancel()
		synctest.Wait()
		if s := c.Stats(); s.Outstanding != 2 || s.Failed != 2 {
			t.Errorf("stats %+v, want two left, two ended", s)
		}
		if err := c.Close(); err != nil { // cancels
			t.Error(err)
		}
		for i, want := range []error{ErrTimeout, ErrClosed, ErrClosed, ErrCanceled} {
			r := <-calls[i]
			wantError(t, "a call", r.err, want, MayHaveExecuted)
		}
	})
}

func TestClientShutdown(t *testing.T) {
	for _, inTime := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c, n := newFakeClient(t, nil)
			l := n.next(t)
			l.welcome(t)
			call := goCall(t.Context(), c, "echo", 1)
			rid := ridOf(l.awaitPrefix(t, "C|2|"))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- c.Shutdown(ctx) }()
			synctest.Wait()
			_, err := c.Call(t.Context(), "echo", 1)
			wantError(t, "while draining", err, ErrClosed, NotSent)
			if inTime {
				l.say("C", "3", rid, `{"status":200,"msg":1}`)
			}
			r, err := <-call, <-done
			if inTime && (r.err != nil || err != nil) {
				t.Errorf("got %v, Shutdown %v; want nil, nil", r.err, err)
			}
			if !inTime {
				wantError(t, "cut off", r.err, ErrClosed, MayHaveExecuted)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Shutdown: %v, want a DeadlineExceeded", err)
				}
			}
			if err := c.Shutdown(ctx); err != nil {
				t.Errorf("second Shutdown: %v", err)
			}
		})
	}
}

func TestClientRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := NewClient("inproc://x", nil)
		if err != nil {
			t.Fatal(err)
		}
		c.conns[0].session.dial = newFakeNet().dial
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		synctest.Wait()
		start := time.Now()
		call := goCall(t.Context(), c, "echo", 1, WithTimeout(-1))
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v, want nil", err)
		}
		if got := time.Since(start); got != defaultDrain {
			t.Errorf("drained for %v, want %v", got, defaultDrain)
		}
		if r := <-call; !errors.Is(r.err, ErrClosed) {
			t.Errorf("Call: %v, want ErrClosed", r.err)
		}
	})
}

func TestClientStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []State
		c, n := newFakeClient(t, &ClientConfig{OnState: func(s State) { got = append(got, s) }})
		l := n.next(t)
		if err := c.WaitReady(canceledContext()); !errors.Is(err, context.Canceled) {
			t.Errorf("WaitReady with an ended context: %v", err)
		}
		l.welcome(t)
		if err := c.WaitReady(t.Context()); err != nil {
			t.Error(err)
		}
		cut(t, l)
		n.next(t).welcome(t)
		if err := c.WaitReady(t.Context()); err != nil {
			t.Error(err)
		}
		if err := c.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if want := []State{Ready, Lost, Ready, Draining, Closed}; !slices.Equal(got, want) {
			t.Errorf("states %v, want %v", got, want)
		}
	})
}

func canceledContext() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// Malformed frames are counted, reported once a connection, and cost nobody anything.
func TestClientMalformed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs []error
		c, n := newFakeClient(t, &ClientConfig{OnError: func(err error) { errs = append(errs, err) }})
		l := n.next(t)
		l.welcome(t)
		done := goCall(t.Context(), c, "echo", 1)
		rid := ridOf(l.awaitPrefix(t, "C|2|"))
		bad := [][]string{{""}, {"C"}, {"X", "3", rid}, {"C", "3"}, {"C", "3", rid}, {"C", "99"}, {"W", "5"}, {"C", "8", "x"}, {"C", "3", "", "x"}, {"C", "2", "echo", rid, "1"}}
		for _, f := range bad {
			l.say(f...)
		}
		l.say("C", "3", rid+"0", `{"status":200,"msg":1}`)
		l.say("C", "6", "other-1", `{"status":200,"msg":1}`)
		l.say("C", "3", rid, `{"status":200,"msg":1}`)
		if r := <-done; r.err != nil {
			t.Error(r.err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if s := c.Stats(); s.Malformed != uint64(len(bad)) || s.Late != 2 {
			t.Errorf("stats %+v, want %d malformed, 2 late", s, len(bad))
		}
		if len(errs) != 1 || !errors.Is(errs[0], ErrProtocol) {
			t.Errorf("OnError got %v, want one ErrProtocol", errs)
		}
	})
}

// Dialling that fails is reported and tried again, ever more slowly.
func TestClientDialFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		start := time.Now()
		c, err := NewClient("inproc://x", &ClientConfig{OnError: func(error) { at = append(at, time.Since(start)) }})
		if err != nil {
			t.Fatal(err)
		}
		n := newFakeNet()
		n.refuse = errors.New("no descriptors")
		c.conns[0].session.dial = n.dial
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		r := <-goCall(t.Context(), c, "echo", 1, WithTimeout(20*time.Second))
		wantError(t, "no link at all", r.err, ErrTimeout, NotSent)
		if got := r.at.Sub(start); got != 20*time.Second {
			t.Errorf("ended after %v, want 20s", got)
		}
		if err := c.Close(); err != nil { // the hooks have returned
			t.Error(err)
		}
		if len(at) < 8 || len(at) > 20 {
			t.Errorf("tried %d times in 20 s, want a backoff from 100 ms to 5 s", len(at))
		}
	})
}

func TestCallJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		n.setScript(fakeEcho)
		l.welcome(t)
		type point struct{ X, Y int }
		p, err := CallJSON[point](t.Context(), c, "echo", point{1, 2})
		if err != nil || p != (point{1, 2}) {
			t.Errorf("got %v, %v", p, err)
		}
		_, err = CallJSON[int](t.Context(), c, "echo", "word")
		if err == nil || OutcomeOf(err) != Executed {
			t.Errorf("got %v (%v), want an error (executed)", err, OutcomeOf(err))
		}
	})
}

// The target of issue 3: at most 5 allocations per Call.
func TestClientCallAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	c := benchClient(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for name, ctx := range map[string]context.Context{"background": context.Background(), "cancelable": ctx} {
		n := testing.AllocsPerRun(1000, func() {
			if _, err := c.Call(ctx, "echo", "0123456789abcdef"); err != nil {
				t.Error(err)
			}
		})
		if n > 5 {
			t.Errorf("%s: %v allocations, want at most 5", name, n)
		}
		t.Logf("%s: %v allocations", name, n)
	}
}
