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
	c.session.dial = n.dial
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
		if want := "C|2|echo|" + c.life + "-1|\"hi\"|{}"; m != want {
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
		{[]string{`{"status":"OVERLOADED"}`}, ErrOverloaded, NotExecuted},
		{[]string{`{"status":"DENIED"}`}, ErrDenied, NotExecuted},
		{[]string{`{"status":"NO_WORKER"}`}, ErrNoWorker, NotExecuted},
		{[]string{`{"status":"TOO_LARGE"}`}, ErrTooLarge, NotExecuted},
		{[]string{`{"status":"DRAINING"}`}, ErrBrokerLost, NotExecuted},
		{[]string{`{"status":"DUPLICATE"}`}, ErrBrokerLost, Executed},
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
		want := []string{"C|2|echo|" + c.life + `-1|"a"|{"timeout":6000}`, "C|2|echo|" + c.life + `-2|"b"|{}`}
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
		if want := "C|2|echo|" + c.life + `-2|"unsent"|`; !strings.HasPrefix(m, want) {
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
		c.session.dial = n.dial
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
			call("", nil), call(strings.Repeat("s", 256), nil), call("echo", func() {}), call("echo", nil, WithWindow(1)),
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
		{"inproc://x", ClientConfig{Liveness: -1}, "Liveness: -1 is not from 1 to 1000"},
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
		c.session.dial = newFakeNet().dial
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
		c.session.dial = n.dial
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
