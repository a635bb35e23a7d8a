package omdp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// newFakeClient makes a client whose links are fake. It is started; the test closes it.
func newFakeClient(t testing.TB, config *ClientConfig) (*Client, *fakeNet) {
	t.Helper()
	return startFakeClient(t, config, newFakeNet())
}

func startFakeClient(t testing.TB, config *ClientConfig, n *fakeNet) (*Client, *fakeNet) {
	t.Helper()
	c, err := NewClient("tcp://127.0.0.1:5555", config)
	if err != nil {
		t.Fatal(err)
	}
	c.conns[0].session.dial = n.dial
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c, n
}

const brokerLife = "brokerbrokerbrokerbrok"

// welcome takes HELLO and answers as a broker of this library.
func (l *fakeLink) welcome(t testing.TB) {
	t.Helper()
	l.awaitPrefix(t, "C|8|")
	l.say("C", "8", `{"v":1,"id":"`+brokerLife+`","hb":2500}`)
}

// live keeps saying that the broker is there, until over is closed.
func (l *fakeLink) live(over <-chan struct{}) {
	for {
		select {
		case <-time.After(2500 * time.Millisecond):
			l.say("C", "8", `{"v":1,"id":"`+brokerLife+`","hb":2500}`)
		case <-over:
			return
		}
	}
}

// ridOf is the request id in a message C|2|service|rid|….
func ridOf(m string) string { return strings.Split(m, "|")[3] }

// fakeEcho answers each request with its data.
func fakeEcho(l *fakeLink, f [][]byte) {
	if string(f[1]) == "2" {
		l.reply(opReply, f[3], slices.Concat([]byte(okPrefix), f[4], []byte("}")))
	}
}

func wantError(t *testing.T, what string, err, want error, outcome Outcome) {
	t.Helper()
	if !errors.Is(err, want) || OutcomeOf(err) != outcome {
		t.Errorf("%s: got %v (%v), want %v (%v)", what, err, OutcomeOf(err), want, outcome)
	}
}

func wantSent(t *testing.T, l *fakeLink, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := l.sent(); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
}

// result of a Call that runs beside the test.
type result struct {
	m   Message
	err error
	at  time.Time
}

func goCall(ctx context.Context, c *Client, service string, data any, opts ...CallOption) <-chan result {
	done := make(chan result, 1)
	go func() {
		m, err := c.Call(ctx, service, data, opts...)
		done <- result{m, err, time.Now()}
	}()
	return done
}

func TestClientCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		done := goCall(t.Context(), c, "echo", "hi")
		m := l.awaitPrefix(t, "C|2|echo|")
		if want := "C|2|echo|" + c.table.prefix + "1|\"hi\"|{}"; m != want {
			t.Errorf("got %s, want %s", m, want)
		}
		l.say("C", "4", ridOf(m))
		l.say("C", "6", ridOf(m), `{"status":200,"msg":"part"}`)
		l.say("C", "3", ridOf(m), `{"status":200,"msg":"hi"}`)
		if r := <-done; r.err != nil || r.m.String() != "hi" {
			t.Errorf("got %q, %v; want hi, nil", r.m, r.err)
		}
		// The second final is nobody's.
		l.say("C", "3", ridOf(m), `{"status":200,"msg":"again"}`)
		s := c.Stats()
		if s.Requests != 1 || s.Succeeded != 1 || s.Partials != 1 || s.Late != 1 || s.Outstanding != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// Every way in which the far side ends a call, and what the caller is told.
func TestClientOutcomes(t *testing.T) {
	for _, tt := range []struct {
		payload []string
		want    error
		outcome Outcome
	}{
		{[]string{`{"status":"TIMEOUT"}`}, ErrTimeout, MayHaveExecuted},
		{[]string{`{"status":"TIMEOUT","executed":false}`}, ErrTimeout, NotExecuted},
		{[]string{`TIMEOUT`}, ErrTimeout, MayHaveExecuted},
		{[]string{`{"status":"W_ERROR"}`}, ErrWorkerLost, MayHaveExecuted},
		{[]string{`{"status":"LOST"}`}, ErrBrokerLost, MayHaveExecuted},
		{[]string{`{"status":"OVERLOADED","executed":false}`}, ErrOverloaded, NotExecuted},
		{[]string{`{"status":"DENIED","executed":false}`}, ErrDenied, NotExecuted},
		{[]string{`{"status":"NO_WORKER","executed":false}`}, ErrNoWorker, NotExecuted},
		{[]string{`{"status":"TOO_LARGE","executed":false}`}, ErrTooLarge, NotExecuted},
		{[]string{`{"status":"DRAINING","executed":false}`}, ErrBrokerLost, NotExecuted},
		{[]string{`{"status":"DUPLICATE"}`}, ErrBrokerLost, MayHaveExecuted},
		{[]string{`{"status":"DUPLICATE","executed":true}`}, ErrBrokerLost, Executed},
		{[]string{`{"status":"SLOW_CLIENT"}`}, ErrSlowConsumer, MayHaveExecuted},
		{[]string{`{"status":"WHATEVER"}`}, ErrProtocol, MayHaveExecuted},
		{[]string{`nonsense`}, ErrProtocol, MayHaveExecuted},
		{[]string{``}, ErrProtocol, MayHaveExecuted},
		{[]string{"b", "\x00\xff"}, nil, Executed},
		{[]string{`{"status":"200","msg":{"a":1}}`}, nil, Executed},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, n := newFakeClient(t, nil)
			defer c.Close()
			l := n.next(t)
			l.welcome(t)
			done := goCall(t.Context(), c, "echo", nil)
			rid := ridOf(l.awaitPrefix(t, "C|2|echo|"))
			l.say(append([]string{"C", "3", rid}, tt.payload...)...)
			r := <-done
			wantError(t, strings.Join(tt.payload, "|"), r.err, tt.want, tt.outcome)
		})
	}
}

func TestClientHandlerError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		done := goCall(t.Context(), c, "tea", nil)
		rid := ridOf(l.awaitPrefix(t, "C|2|tea|"))
		l.say("C", "3", rid, `{"status":418,"msg":"short and stout"}`)
		r := <-done
		e, ok := errors.AsType[*Error](r.err)
		if !ok || e.Service != "tea" || e.Code != "418" || e.Message != "short and stout" || OutcomeOf(r.err) != Executed {
			t.Errorf("got %#v (%v)", r.err, OutcomeOf(r.err))
		}
	})
}

// C2: by its deadline, even with no broker.
func TestClientTimeout(t *testing.T) {
	long, cancel := context.WithTimeout(context.Background(), 0)
	cancel()
	for _, tt := range []struct {
		name    string
		opts    []CallOption
		ctx     time.Duration // of the context; 0: none
		config  time.Duration
		sent    bool
		after   time.Duration
		outcome Outcome
		options string
	}{
		{"option, no broker", []CallOption{WithTimeout(time.Second)}, 0, 0, false, time.Second, NotSent, ""},
		{"context, no broker", nil, 2 * time.Second, 0, false, 2 * time.Second, NotSent, ""},
		{"default, no broker", nil, 0, 0, false, time.Minute, NotSent, ""},
		{"config, no broker", nil, 0, 3 * time.Second, false, 3 * time.Second, NotSent, ""},
		{"option, sent", []CallOption{WithTimeout(time.Second)}, 0, 0, true, time.Second + maxSlack, MayHaveExecuted, `{"timeout":1000}`},
		{"short option, sent", []CallOption{WithTimeout(100 * time.Millisecond)}, 0, 0, true, 110 * time.Millisecond, MayHaveExecuted, `{"timeout":100}`},
		{"context, sent: exactly", nil, 1500 * time.Microsecond, 0, true, 1500 * time.Microsecond, MayHaveExecuted, `{"timeout":2}`},
		{"context sooner than option", []CallOption{WithTimeout(time.Hour)}, time.Second, 0, true, time.Second, MayHaveExecuted, `{"timeout":1000}`},
		{"option sooner than context", []CallOption{WithTimeout(time.Second)}, time.Hour, 0, true, time.Second + maxSlack, MayHaveExecuted, `{"timeout":1000}`},
		{"context sooner than none", []CallOption{WithTimeout(-5)}, time.Second, 0, true, time.Second, MayHaveExecuted, `{"timeout":1000}`},
		{"default, sent", nil, 0, 0, true, time.Minute + maxSlack, MayHaveExecuted, `{}`},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newFakeNet()
			n.blocked = !tt.sent
			c, _ := startFakeClient(t, &ClientConfig{Timeout: tt.config}, n)
			defer c.Close()
			l := n.next(t)
			if tt.sent {
				l.welcome(t)
				over := make(chan struct{})
				defer close(over)
				go l.live(over)
			}
			synctest.Wait()
			ctx := t.Context()
			if tt.ctx > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tt.ctx)
				defer cancel()
			}
			start := time.Now()
			done := goCall(ctx, c, "echo", 1, tt.opts...)
			if tt.sent {
				m := l.awaitPrefix(t, "C|2|echo|")
				if got := strings.Split(m, "|")[5]; got != tt.options {
					t.Errorf("%s: options %s, want %s", tt.name, got, tt.options)
				}
			}
			r := <-done
			wantError(t, tt.name, r.err, ErrTimeout, tt.outcome)
			if !errors.Is(r.err, context.DeadlineExceeded) {
				t.Errorf("%s: %v is not a context.DeadlineExceeded", tt.name, r.err)
			}
			if got := r.at.Sub(start); got != tt.after {
				t.Errorf("%s: after %v, want %v", tt.name, got, tt.after)
			}
			if tt.sent { // the worker is told
				l.awaitPrefix(t, "C|10|")
			}
		})
	}
	c, err := NewClient("inproc://none", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Call(long, "echo", 1)
	wantError(t, "a context that had ended", err, ErrTimeout, NotSent)
}

// What waits for the connection goes out in order when it is there, with the
// time that is left.
func TestClientWaitsForBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		n.blocked = true
		c, _ := startFakeClient(t, nil, n)
		defer c.Close()
		l := n.next(t)
		a := goCall(t.Context(), c, "echo", "a", WithTimeout(10*time.Second))
		synctest.Wait()
		pass(4 * time.Second)
		b := goCall(t.Context(), c, "echo", "b")
		synctest.Wait()
		if s := c.Stats(); s.Waiting != 2 || s.Outstanding != 2 || s.Queued < 6 {
			t.Errorf("stats %+v, want two that wait", s)
		}
		l.hold(false)
		synctest.Wait()
		got := l.sent()
		want := []string{"C|2|echo|" + c.table.prefix + `1|"a"|{"timeout":6000}`, "C|2|echo|" + c.table.prefix + `2|"b"|{}`}
		if len(got) < 3 || !strings.HasPrefix(got[0], "C|8|") || !slices.Equal(got[1:], want) {
			t.Fatalf("sent %q, want HELLO, then %q", got, want)
		}
		for _, m := range want {
			l.say("C", "3", ridOf(m), `{"status":200,"msg":null}`)
		}
		for _, done := range []<-chan result{a, b} {
			if r := <-done; r.err != nil {
				t.Error(r.err)
			}
		}
		if s := c.Stats(); s.Queued != 0 || s.Connections != 1 {
			t.Errorf("stats %+v, want nothing queued, one connection", s)
		}
	})
}

// cut loses the connection and waits until the client knows.
func cut(t *testing.T, l *fakeLink) {
	t.Helper()
	l.cut()
	synctest.Wait()
}

// C4: what was on the link that is lost may have run; what was not goes on.
func TestClientConnectionLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs []error
		c, n := newFakeClient(t, &ClientConfig{OnError: func(err error) { errs = append(errs, err) }})
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		sent := goCall(t.Context(), c, "echo", "sent")
		l.awaitPrefix(t, "C|2|")
		l.hold(true)
		unsent := goCall(t.Context(), c, "echo", "unsent")
		synctest.Wait()
		cut(t, l)
		r := <-sent
		wantError(t, "sent", r.err, ErrBrokerLost, MayHaveExecuted)
		select {
		case r := <-unsent:
			t.Fatalf("what was not sent ended: %v", r.err)
		default:
		}
		l = n.next(t)
		l.welcome(t)
		m := l.awaitPrefix(t, "C|2|")
		if want := "C|2|echo|" + c.table.prefix + `2|"unsent"|`; !strings.HasPrefix(m, want) {
			t.Errorf("sent %s, want %s…", m, want)
		}
		l.say("C", "3", ridOf(m), `{"status":200,"msg":1}`)
		if r := <-unsent; r.err != nil {
			t.Error(r.err)
		}
		synctest.Wait()
		if len(errs) != 1 || !errors.Is(errs[0], ErrBrokerLost) {
			t.Errorf("OnError got %v, want one ErrBrokerLost", errs)
		}
	})
}

func TestClientBrokerSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		start := time.Now()
		r := <-goCall(t.Context(), c, "echo", nil)
		wantError(t, "silent broker", r.err, ErrBrokerLost, MayHaveExecuted)
		if got, want := r.at.Sub(start), 7500*time.Millisecond; got != want {
			t.Errorf("after %v, want %v", got, want)
		}
		n.next(t).welcome(t)
	})
}

// A Node broker answers no HELLO: its silence means nothing, and it is sent
// neither CREDIT nor CANCEL.
func TestClientForeignBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.awaitPrefix(t, "C|8|")
		ctx, cancel := context.WithCancel(t.Context())
		done := goCall(ctx, c, "echo", nil, WithTimeout(-1))
		rid := ridOf(l.awaitPrefix(t, "C|2|"))
		pass(time.Minute)
		synctest.Wait()
		for _, m := range l.sent() {
			if m != "C|4|"+rid && !strings.HasPrefix(m, "C|8|") {
				t.Errorf("sent %s, want heartbeats only", m)
			}
		}
		cancel()
		r := <-done
		wantError(t, "canceled", r.err, ErrCanceled, MayHaveExecuted)
		wantSent(t, l)

		// It turns out to be one of ours: what is owed goes out.
		l.say("C", "8", `{"v":1,"id":"x","hb":2500}`)
		wantSent(t, l, "C|10|"+rid)
	})
}

// "Client MAY decide to timeout an inactive Request (tracks liveness for Request)."
func TestClientForeignWorkerSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		done := goCall(t.Context(), c, "echo", nil, WithTimeout(-1))
		rid := ridOf(l.awaitPrefix(t, "C|2|"))
		for range 10 {
			l.say("C", "4", rid)
			pass(10 * time.Second)
		}
		start := time.Now()
		r := <-done
		wantError(t, "silent worker", r.err, ErrWorkerLost, MayHaveExecuted)
		if d := r.at.Sub(start); d < 5*time.Second || d > 10*time.Second {
			t.Errorf("after %v, want 15 s after the last heartbeat and at most one tick", d+10*time.Second)
		}
	})
}

func TestClientBrokerChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		done := goCall(t.Context(), c, "echo", nil)
		l.awaitPrefix(t, "C|2|")
		l.say("C", "8", `{"v":1,"id":"another","hb":2500}`)
		r := <-done
		wantError(t, "broker changed", r.err, ErrBrokerLost, MayHaveExecuted)
		n.next(t).welcome(t)
	})
}

// The broker says that it is leaving: what it has goes on, the new waits for
// the next connection.
func TestClientBrokerDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		old := goCall(t.Context(), c, "echo", "old")
		rid := ridOf(l.awaitPrefix(t, "C|2|"))
		l.say("C", "11")
		synctest.Wait()
		fresh := goCall(t.Context(), c, "echo", "fresh")
		wantSent(t, l)
		if s := c.Stats(); s.State != Draining || s.Waiting != 1 {
			t.Errorf("stats %+v, want draining and one that waits", s)
		}
		l.say("C", "3", rid, `{"status":200,"msg":1}`)
		if r := <-old; r.err != nil {
			t.Error(r.err)
		}
		l = n.next(t)
		l.welcome(t)
		l.say("C", "3", ridOf(l.awaitPrefix(t, "C|2|")), `{"status":200,"msg":1}`)
		if r := <-fresh; r.err != nil {
			t.Error(r.err)
		}
		if err := c.WaitReady(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestClientCancel(t *testing.T) {
	why := errors.New("the user went home")
	for _, tt := range []struct {
		name  string
		cause error
	}{{"plain", nil}, {"with a cause", why}} {
		synctest.Test(t, func(t *testing.T) {
			c, n := newFakeClient(t, nil)
			defer c.Close()
			l := n.next(t)
			l.welcome(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			done := goCall(ctx, c, "echo", nil)
			rid := ridOf(l.awaitPrefix(t, "C|2|"))
			cancel(tt.cause)
			r := <-done
			wantError(t, tt.name, r.err, ErrCanceled, MayHaveExecuted)
			if !errors.Is(r.err, context.Canceled) || tt.cause != nil && !errors.Is(r.err, tt.cause) {
				t.Errorf("%s: %v is not both context.Canceled and the cause", tt.name, r.err)
			}
			wantSent(t, l, "C|10|"+rid)
			_, err := c.Call(ctx, "echo", nil)
			wantError(t, tt.name+", again", err, ErrCanceled, NotSent)
			wantSent(t, l)
		})
	}
}

// C1 and C3, with the race that matters: an answer and a cancel at once. A
// pooled entry must not get the answer of the call before.
func TestClientCancelRace(t *testing.T) {
	c, n := newFakeClient(t, nil)
	defer c.Close()
	n.next(t).welcome(t)
	var wg sync.WaitGroup
	n.setScript(fakeEcho)
	for g := range 8 {
		wg.Go(func() {
			for i := range 300 {
				ctx, cancel := context.WithCancel(context.Background())
				go cancel()
				want := fmt.Sprint(g, "-", i)
				m, err := c.Call(ctx, "echo", want)
				if err == nil && m.String() != want {
					t.Errorf("got %s, want %s", m, want)
				}
				if err != nil && !errors.Is(err, ErrCanceled) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if s := c.Stats(); s.Outstanding != 0 || s.Succeeded+s.Failed != s.Requests {
		t.Errorf("stats %+v: not one end for each", s)
	}
}

func TestClientCredit(t *testing.T) {
	partial := `{"status":200,"msg":"` + strings.Repeat("x", 1000-partialOverhead) + `"}`
	for _, tt := range []struct {
		name  string
		opts  []CallOption
		start string // the options frame
		want  []string
	}{
		{"default", nil, "{}", []string{"C|9|RID|17391", "C|9|RID|17391"}}, // 17 partials of 1,023 bytes each
		{"smaller window", []CallOption{WithWindow(48 << 10)}, `{"credit":49152}`, []string{"C|9|RID|13299", "C|9|RID|13299"}},
		{"larger window", []CallOption{WithWindow(80 << 10)}, `{"credit":81920}`, []string{"C|9|RID|21483"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, n := newFakeClient(t, &ClientConfig{Window: 64 << 10})
			defer c.Close()
			l := n.next(t)
			l.awaitPrefix(t, "C|8|")
			l.say("C", "8", `{"v":1,"id":"`+brokerLife+`","hb":2500}`)
			done := goCall(t.Context(), c, "echo", nil, tt.opts...)
			request := l.awaitPrefix(t, "C|2|")
			rid := ridOf(request)
			if !strings.HasSuffix(request, "|"+tt.start) {
				t.Errorf("%s: sent %s, want the options %s", tt.name, request, tt.start)
			}
			wantSent(t, l)
			for range 35 { // of 1,023 bytes
				l.say("C", "6", rid, partial)
			}
			var want []string
			for _, m := range tt.want {
				want = append(want, strings.ReplaceAll(m, "RID", rid))
			}
			wantSent(t, l, want...)
			l.say("C", "3", rid, `{"status":200,"msg":1}`)
			if r := <-done; r.err != nil {
				t.Error(r.err)
			}
		})
	}
}
