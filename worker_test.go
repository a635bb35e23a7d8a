package omdp

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const (
	brokerCaps  = `{"v":1,"id":"the-broker","hb":2500}`
	otherCaps   = `{"v":1,"id":"another-broker","hb":2500}`
	plainExtra  = `{"remaining":60000,"attempt":1,"credit":0,"raw":false}`
	rawExtra    = `{"remaining":60000,"attempt":1,"credit":0,"raw":true}`
	windowExtra = `{"remaining":60000,"attempt":1,"credit":4096,"raw":true}`
)

// testWorker is a worker on a fake net in a bubble; the test plays the broker.
type testWorker struct {
	*Worker
	t   *testing.T
	net *fakeNet
	*fakeLink
}

// newTestWorker starts a worker of the service echo and awaits its READY.
func newTestWorker(t *testing.T, h Handler, config *WorkerConfig) *testWorker {
	t.Helper()
	w, err := NewWorker("tcp://127.0.0.1:5555", "echo", config)
	if err != nil {
		t.Fatal(err)
	}
	n := newFakeNet()
	w.conns[0].session.dial = n.dial
	if err := w.OnRequest(h); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	tw := &testWorker{Worker: w, t: t, net: n}
	tw.nextLink()
	return tw
}

// nextLink waits for the next link and its READY.
func (w *testWorker) nextLink() {
	w.t.Helper()
	w.fakeLink = w.net.next(w.t)
	w.awaitPrefix(w.t, "W|1|echo|{")
}

// register answers READY as a broker of this library does.
func (w *testWorker) register() {
	w.t.Helper()
	w.say("W", "8", brokerCaps)
	if err := w.WaitReady(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait() // of several links, another may have been the ready one
}

// request gives the worker a request under a token; data is JSON.
func (w *testWorker) request(token, data, extra string) {
	if extra == "" {
		w.say("W", "2", token, "rid-"+token, data, "{}")
		return
	}
	w.say("W", "2", token, "rid-"+token, data, "{}", extra)
}

// final awaits the final under a token and returns its payload. What was sent
// before it is kept, as handlers end in any order.
func (w *testWorker) final(token string) string {
	w.t.Helper()
	prefix := "W|3|" + token + "|rid-" + token + "|"
	for over := time.After(time.Minute); ; {
		l := w.fakeLink
		l.mu.Lock()
		changed, closed := l.changed, l.closed
		i := slices.IndexFunc(l.log, func(m string) bool { return strings.HasPrefix(m, prefix) })
		if i >= 0 {
			m := l.log[i]
			l.log = slices.Delete(l.log, i, i+1)
			l.mu.Unlock()
			return strings.TrimPrefix(m, prefix)
		}
		all := fmt.Sprint(l.log)
		l.mu.Unlock()
		if closed {
			w.t.Fatalf("the link was closed and no final of %s was sent; sent: %s", token, all)
		}
		select {
		case <-changed:
		case <-over:
			w.t.Fatalf("within a minute no final of %s was sent; sent: %s", token, all)
		}
	}
}

func (w *testWorker) close() {
	w.t.Helper()
	if err := w.Worker.Close(); err != nil {
		w.t.Error(err)
	}
}

func (w *testWorker) Close() error { return w.Worker.Close() }

// check compares, and says what was looked at.
func check[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func checkIs(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

// pass lets a bubble's time pass.
func pass(d time.Duration) { <-time.After(d) }

func echo(_ context.Context, req *Request, res *Response) error { return res.End(req.Message()) }

// bubble runs f in a bubble of synctest.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func TestWorkerAnswers(t *testing.T) {
	for _, c := range []struct {
		name, extra, data, want string
		h                       Handler
	}{
		{"echo", plainExtra, `{"a":[1,2]}`, `{"status":200,"msg":{"a":[1,2]}}`, echo},
		{"echo behind a Node broker", "", `"foo"`, `{"status":200,"msg":"foo"}`, echo},
		{"nil return is End(nil)", plainExtra, `1`, `{"status":200,"msg":null}`, func(context.Context, *Request, *Response) error { return nil }},
		{"error return", plainExtra, `1`, `{"status":500,"msg":"it \"broke\""}`, func(context.Context, *Request, *Response) error { return errors.New(`it "broke"`) }},
		{"error with a code", plainExtra, `1`, `{"status":418,"msg":"TEAPOT"}`, func(context.Context, *Request, *Response) error {
			return fmt.Errorf("brewing: %w", &Error{Code: "418", Message: "TEAPOT"})
		}},
		{"error with a word", plainExtra, `1`, `{"status":"E_TEA","msg":{"pot":1}}`, func(context.Context, *Request, *Response) error {
			return &Error{Code: "E_TEA", Data: []byte(`{"pot":1}`)}
		}},
		{"Error(nil) is an error", plainExtra, `1`, `{"status":500,"msg":""}`, func(_ context.Context, _ *Request, res *Response) error { return res.Error(nil) }},
		{"End, then an error", plainExtra, `1`, `{"status":200,"msg":2}`, func(_ context.Context, _ *Request, res *Response) error {
			res.End(2)
			return errors.New("too late")
		}},
		{"panic", plainExtra, `1`, `{"status":500,"msg":"internal error"}`, func(context.Context, *Request, *Response) error { panic("secret") }},
		{"panic of an error's text", plainExtra, `1`, `{"status":500,"msg":"internal error"}`, func(context.Context, *Request, *Response) error { return (*badError)(nil) }},
		{"Goexit", plainExtra, `1`, `{"status":500,"msg":"internal error"}`, func(context.Context, *Request, *Response) error { runtime.Goexit(); return nil }},
		{"panic after End", plainExtra, `1`, `{"status":200,"msg":true}`, func(_ context.Context, _ *Request, res *Response) error {
			res.End(true)
			panic("late")
		}},
		{"undefined is not JSON", plainExtra, `undefined`, `{"status":500,"msg":"ERR_MSG_PARSE"}`, echo},
		{"empty data", plainExtra, ``, `{"status":500,"msg":"ERR_MSG_PARSE"}`, echo},
		{"a value that can't be encoded", plainExtra, `1`, `{"status":500,"msg":"omdp: end response: json: unsupported type: chan int"}`, func(_ context.Context, _ *Request, res *Response) error {
			res.End(make(chan int))
			return nil
		}},
		{"raw bytes", rawExtra, `1`, "b|\xff\x00", func(_ context.Context, _ *Request, res *Response) error { return res.End([]byte("\xff\x00")) }},
		{"bytes to a Node client", plainExtra, `1`, `{"status":200,"msg":{"type":"Buffer","data":[255,0]}}`, func(_ context.Context, _ *Request, res *Response) error {
			return res.End([]byte("\xff\x00"))
		}},
		{"HandleJSON", plainExtra, `[1,2,3]`, `{"status":200,"msg":6}`, HandleJSON(sum)},
		{"HandleJSON, other data", plainExtra, `"x"`, `{"status":400,"msg":"omdp: decode message: json: cannot unmarshal string into Go value of type []int"}`, HandleJSON(sum)},
		{"HandleJSON, error", plainExtra, `[]`, `{"status":422,"msg":"nothing to add"}`, HandleJSON(sum)},
		{"Close is End(nil)", plainExtra, `1`, `{"status":200,"msg":null}`, func(_ context.Context, _ *Request, res *Response) error {
			return errors.Join(res.Close(), res.Close())
		}},
	} {
		bubble(t, c.name, func(t *testing.T) {
			w := newTestWorker(t, c.h, nil)
			defer w.close()
			w.say("W", "8", brokerCaps)
			w.request("tok", c.data, c.extra)
			check(t, "payload", w.final("tok"), c.want)
			synctest.Wait()
			if more := w.sent(); len(more) > 0 {
				t.Errorf("after the final was sent: %q", more)
			}
			check(t, "active", w.Stats().Active, 0)
			check(t, "handlers", w.Stats().Handlers, 0)
			w.request("again", `7`, plainExtra) // the worker goes on
			w.final("again")
		})
	}
}

type badError struct{ text string }

func (e *badError) Error() string { return e.text }

func sum(_ context.Context, in []int) (n int, err error) {
	if len(in) == 0 {
		return 0, &Error{Code: "422", Message: "nothing to add"}
	}
	for _, i := range in {
		n += i
	}
	return n, nil
}

func TestWorkerRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := make(chan *Request, 1)
		deadline := make(chan time.Time, 1)
		w := newTestWorker(t, func(ctx context.Context, req *Request, res *Response) error {
			d, _ := ctx.Deadline()
			deadline <- d
			got <- req
			return nil
		}, nil)
		defer w.close()
		w.register()
		w.say("W", "2", "tok", "rid", `{"a":1}`, `{"timeout":7000,"meta":{"trace":"x"}}`, `{"remaining":5000,"attempt":2,"credit":0,"raw":true}`)
		r, now := <-got, time.Now()
		check(t, "ID", r.ID(), "rid")
		check(t, "Service", r.Service(), "echo")
		check(t, "Bytes", string(r.Bytes()), `{"a":1}`)
		check(t, "Attempt", r.Attempt(), 2)
		check(t, "Metadata", r.Metadata()["trace"], "x")
		var v struct{ A int }
		if err := r.Decode(&v); err != nil || v.A != 1 {
			t.Errorf("Decode: got %v and %v, want 1", v.A, err)
		}
		d, ok := r.Deadline()
		check(t, "has a deadline", ok, true)
		check(t, "deadline", d, now.Add(5*time.Second))
		check(t, "ctx's deadline", <-deadline, d)
		w.awaitPrefix(t, "W|3|")

		w.say("W", "2", "tok", "rid2", `"x"`, `{}`)
		r = <-got
		_, ok = r.Deadline()
		check(t, "deadline where none is told", ok, false)
		check(t, "attempt where none is told", r.Attempt(), 1)
		check(t, "metadata where there is none", r.Metadata() == nil, true)
		<-deadline
	})
}

func TestWorkerErrorsNameFieldAndValue(t *testing.T) {
	long := strings.Repeat("s", 256)
	for _, c := range []struct {
		endpoint, service string
		config            WorkerConfig
		want              string
	}{
		{"tcp://*:1", "s", WorkerConfig{}, `endpoint: "tcp://*:1"`},
		{"http://x", "s", WorkerConfig{}, `endpoint: "http://x"`},
		{"inproc://x", "", WorkerConfig{}, "service: 0 bytes"},
		{"inproc://x", long, WorkerConfig{}, "service: 256 bytes"},
		{"inproc://x", "s", WorkerConfig{Endpoints: []string{"inproc://y", "tcp://*:1"}}, `Endpoints[1]: "tcp://*:1"`},
		{"inproc://x", "s", WorkerConfig{Endpoints: []string{"inproc://x"}}, `Endpoints[0]: "inproc://x" is given twice`},
		{"inproc://x", "s", WorkerConfig{Endpoints: []string{"inproc://y", "inproc://z", "inproc://y"}}, `Endpoints[2]: "inproc://y" is given twice`},
		{"inproc://x", "s", WorkerConfig{Concurrency: -1}, "Concurrency: -1"},
		{"inproc://x", "s", WorkerConfig{Concurrency: 1001}, "Concurrency: 1001"},
		{"inproc://x", "s", WorkerConfig{ChunkSize: -5}, "ChunkSize: -5"},
		{"inproc://x", "s", WorkerConfig{ChunkSize: 2048, MaxBody: 1024}, "ChunkSize: 2048"},
		{"inproc://x", "s", WorkerConfig{Heartbeat: -1}, "Heartbeat: -1ns"},
		{"inproc://x", "s", WorkerConfig{Liveness: -2}, "Liveness: -2"},
		{"inproc://x", "s", WorkerConfig{ReconnectMin: -1}, "ReconnectMin: -1ns"},
		{"inproc://x", "s", WorkerConfig{ReconnectMin: time.Second, ReconnectMax: time.Millisecond}, "ReconnectMax: 1ms"},
		{"inproc://x", "s", WorkerConfig{MaxBody: 3}, "MaxBody: 3"},
	} {
		w, err := NewWorker(c.endpoint, c.service, &c.config)
		if err == nil || w != nil || !strings.HasPrefix(err.Error(), "omdp: new worker: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("NewWorker(%q, %.10q, %+v): got %v and error %v, want an error with %q", c.endpoint, c.service, c.config, w, err, c.want)
		}
	}
}

func TestWorkerOutOfOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		w, err := NewWorker("inproc://x", "echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		n := newFakeNet()
		w.conns[0].session.dial = n.dial
		checkIs(t, "WaitReady before Start", w.WaitReady(ctx), ErrNotStarted)
		checkIs(t, "Shutdown before Start", w.Shutdown(ctx), ErrNotStarted)
		for what, err := range map[string]error{"Start without a handler": w.Start(), "nil handler": w.OnRequest(nil)} {
			if err == nil {
				t.Errorf("%s: no error", what)
			}
		}
		if err := errors.Join(w.OnRequest(echo), w.OnRequest(echo), w.Start()); err != nil {
			t.Fatal(err)
		}
		if w.Start() == nil || w.OnRequest(echo) == nil || w.Run(ctx) == nil {
			t.Error("a second Start, a late OnRequest or Run after Start gave no error")
		}
		if err := errors.Join(w.Close(), w.Close()); err != nil {
			t.Errorf("Close twice: %v", err)
		}
		checkIs(t, "Start after Close", w.Start(), ErrClosed)
		checkIs(t, "Run after Close", w.Run(ctx), ErrClosed)
		checkIs(t, "OnRequest after Close", w.OnRequest(echo), ErrClosed)
		checkIs(t, "WaitReady after Close", w.WaitReady(ctx), ErrClosed)
		checkIs(t, "Shutdown after Close", w.Shutdown(ctx), ErrClosed)

		never, _ := NewWorker("inproc://x", "echo", nil)
		if err := errors.Join(never.Close(), never.Close()); err != nil {
			t.Errorf("Close before Start: %v", err)
		}
	})
}

func TestWorkerReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := NewWorker("inproc://x", "echo", &WorkerConfig{Concurrency: 7, Heartbeat: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		n := newFakeNet()
		w.conns[0].session.dial = n.dial
		w.OnRequest(echo)
		w.Start()
		l := n.next(t)
		ready := l.awaitPrefix(t, "W|1|")
		c, ok := parseCaps([]byte(strings.TrimPrefix(ready, "W|1|echo|")))
		if !ok || c.V != 1 || c.HB != 1000 || c.Concurrency != 7 || len(c.ID) != 22 {
			t.Errorf("READY: got %q", ready)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("enough"))
		defer cancel()
		if err := w.WaitReady(ctx); err == nil || !strings.Contains(err.Error(), "enough") {
			t.Errorf("WaitReady without an answer: got %v, want the ctx's cause", err)
		}
		check(t, "state", w.Stats().State, Connecting)
		l.say("W", "4") // a Node broker's first beat
		if err := w.WaitReady(t.Context()); err != nil {
			t.Error(err)
		}
		check(t, "state", w.Stats().State, Ready)
		w.Close()
	})
}

// K5: heartbeats go on while handlers run, for the worker and for each request.
// "Worker MAY send heartbeat for active request."
func TestWorkerBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		w := newTestWorker(t, func(ctx context.Context, req *Request, res *Response) error {
			<-release
			return nil
		}, &WorkerConfig{Concurrency: 2})
		defer w.close()
		w.register()
		w.request("a", `1`, plainExtra)
		pass(time.Second)
		for i := range 4 {
			pass(2 * time.Second)
			if i == 2 {
				w.request("b", `1`, plainExtra) // too young to beat for at the next
			}
			pass(500 * time.Millisecond)
			synctest.Wait()
			got := strings.Join(w.sent(), " ")
			want := "W|4 W|4|a|rid-a"
			if i == 3 {
				want = "W|4 W|4|a|rid-a W|4|b|rid-b"
			}
			check(t, fmt.Sprint("beat ", i), got, want)
			w.say("W", "4")
		}
		close(release)
		w.final("a")
		w.final("b")
	})
}

func TestResponseHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTestWorker(t, func(ctx context.Context, req *Request, res *Response) error {
			if err := res.Heartbeat(); err != nil {
				t.Error(err)
			}
			res.End(nil)
			checkIs(t, "Heartbeat after End", res.Heartbeat(), ErrEnded)
			return nil
		}, nil)
		defer w.close()
		w.register()
		w.request("a", `1`, plainExtra)
		w.awaitPrefix(t, "W|4|a|rid-a")
		w.final("a")
	})
}

// "Worker MAY decide to stop an inactive Request (tracks liveness for Request)":
// how a handler's context ends, and why.
func TestWorkerContextEnds(t *testing.T) {
	for _, c := range []struct {
		name  string
		extra string
		do    func(w *testWorker)
		want  error
		std   error
		text  string
		after time.Duration // at most
		final bool          // one is sent still, to free the worker's place
	}{
		{"client cancels", plainExtra, func(w *testWorker) { w.say("W", "10", "tok", "rid-tok", "client") }, ErrCanceled, context.Canceled, "client canceled", 0, true},
		{"client gone", rawExtra, func(w *testWorker) { w.say("W", "10", "tok", "rid-tok", "gone") }, ErrCanceled, context.Canceled, "client gone", 0, true},
		{"deadline at the broker", plainExtra, func(w *testWorker) { w.say("W", "10", "tok", "rid-tok", "deadline") }, ErrTimeout, context.DeadlineExceeded, "timed out", 0, true},
		{"stalled at the broker", plainExtra, func(w *testWorker) { w.say("W", "10", "tok", "rid-tok", "stalled") }, ErrCanceled, context.Canceled, "heard nothing", 0, true},
		{"a cause of a later version", plainExtra, func(w *testWorker) { w.say("W", "10", "tok", "rid-tok", "whim") }, ErrCanceled, context.Canceled, "", 0, true},
		{"deadline here", `{"remaining":300,"attempt":1,"credit":0,"raw":true}`, func(*testWorker) {}, ErrTimeout, context.DeadlineExceeded, "timed out", 330 * time.Millisecond, true},
		{"a Node client falls silent", "", func(w *testWorker) {
			w.say("W", "4", "tok", "rid-tok")
			for range 7 {
				pass(2 * time.Second)
				w.say("W", "4")
			}
		}, ErrCanceled, context.Canceled, "client gone", 15 * time.Second, true},
		{"connection cut", plainExtra, func(w *testWorker) { w.cut() }, ErrBrokerLost, context.Canceled, "", 0, false},
		{"broker disconnects", plainExtra, func(w *testWorker) { w.say("W", "5") }, ErrBrokerLost, context.Canceled, "", 0, false},
		{"broker silent", plainExtra, func(w *testWorker) {}, ErrBrokerLost, context.Canceled, "", 7500 * time.Millisecond, false},
		{"another broker", plainExtra, func(w *testWorker) { w.say("W", "8", otherCaps) }, ErrBrokerLost, context.Canceled, "", 0, false},
		{"worker closes", plainExtra, func(w *testWorker) { w.Close() }, ErrClosed, context.Canceled, "", 0, false},
	} {
		bubble(t, c.name, func(t *testing.T) {
			type ending struct {
				cause, err, write, end error
				active                 bool
				after                  time.Duration
			}
			ended := make(chan ending, 1)
			started := make(chan struct{})
			w := newTestWorker(t, func(ctx context.Context, req *Request, res *Response) error {
				at := time.Now()
				if context.Cause(ctx) != nil || ctx.Err() != nil || !res.Active() {
					t.Error("the context had ended when the handler began")
				}
				sub, cancel := context.WithCancel(ctx) // derived contexts end too
				defer cancel()
				close(started)
				<-sub.Done()
				e := ending{cause: context.Cause(sub), err: ctx.Err(), active: res.Active(), after: time.Since(at)}
				_, e.write = res.Write([]byte("late"))
				e.end = res.End("late")
				ended <- e
				return nil
			}, nil)
			defer w.close()
			w.register()
			w.request("tok", `1`, c.extra)
			<-started
			first := w.fakeLink
			c.do(w)
			e := <-ended
			checkIs(t, "cause", e.cause, c.want)
			check(t, "ctx.Err", e.err, c.std)
			check(t, "Active", e.active, false)
			checkIs(t, "Write", e.write, c.want)
			checkIs(t, "End", e.end, c.want)
			if !strings.Contains(e.cause.Error(), c.text) {
				t.Errorf("cause: got %q, want %q in it", e.cause, c.text)
			}
			if e.after > c.after {
				t.Errorf("it took %v, want at most %v", e.after, c.after)
			}
			synctest.Wait()
			finals := slices.ContainsFunc(first.sent(), func(m string) bool { return strings.HasPrefix(m, "W|3|tok|") })
			check(t, "a final was sent", finals, c.final)
		})
	}
}

func TestWorkerHandlerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTestWorker(t, func(ctx context.Context, req *Request, res *Response) error {
			<-ctx.Done()
			return nil // that is not null for the client
		}, nil)
		defer w.close()
		w.register()
		w.request("a", `1`, `{"remaining":5,"attempt":1,"credit":0,"raw":true}`)
		check(t, "final", w.final("a"), `{"status":500,"msg":"omdp: request timed out"}`)
		check(t, "expired", w.Stats().Expired, 1)
	})
}

// "Worker SHALL NOT send more W_REPLY (for a Request) after sending first
// W_REPLY message": K4, exactly one final, however the handler misbehaves.
func TestWorkerOneFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var kept atomic.Pointer[Response]
		w := newTestWorker(t, func(ctx context.Context, req *Request, res *Response) error {
			kept.Store(res)
			var wg sync.WaitGroup
			var good atomic.Int32
			for i := range 10 {
				wg.Go(func() {
					if i%2 == 0 && res.End(i) == nil || i%2 == 1 && res.Error(errors.New("x")) == nil {
						good.Add(1)
					}
				})
			}
			wg.Wait()
			check(t, "finals that were taken", good.Load(), 1)
			check(t, "Ended", res.Ended(), true)
			_, err := res.Write([]byte("more"))
			checkIs(t, "Write after End", err, ErrEnded)
			_, err = res.WriteString("more")
			checkIs(t, "WriteString after End", err, ErrEnded)
			_, err = res.Write(nil)
			checkIs(t, "empty Write after End", err, ErrEnded)
			checkIs(t, "Send after End", res.Send(1), ErrEnded)
			checkIs(t, "End after End", res.End(1), ErrEnded)
			checkIs(t, "Error after End", res.Error(errors.New("x")), ErrEnded)
			_, err = res.ReadFrom(strings.NewReader("more"))
			checkIs(t, "ReadFrom after End", err, ErrEnded)
			if err := res.Close(); err != nil {
				t.Errorf("Close after End: %v", err)
			}
			return errors.New("ignored")
		}, nil)
		defer w.close()
		w.register()
		w.request("a", `1`, rawExtra)
		w.final("a")
		synctest.Wait()
		// A handler that kept its Response does no harm.
		checkIs(t, "End after the handler returned", kept.Load().End(2), ErrEnded)
		w.request("b", `1`, rawExtra)
		w.final("b")
		synctest.Wait()
		if more := w.sent(); len(more) > 0 {
			t.Errorf("sent besides: %q", more)
		}
	})
}

// K1: a handler runs at most once per token. And no more run than were asked for.
func TestWorkerDropsWhatItDidNotAskFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var ran atomic.Int32
		w := newTestWorker(t, func(ctx context.Context, req *Request, res *Response) error {
			ran.Add(1)
			<-release
			return nil
		}, &WorkerConfig{Concurrency: 2})
		defer w.close()
		w.register()
		w.request("a", `1`, plainExtra)
		w.request("a", `1`, plainExtra)
		w.request("b", `1`, plainExtra)
		w.request("c", `1`, plainExtra) // the broker counts one as lost
		w.request("d", `1`, plainExtra)
		w.request("e", `1`, plainExtra)
		synctest.Wait()
		check(t, "handlers run", ran.Load(), 2)
		check(t, "dropped", w.Stats().Dropped, 2)
		check(t, "active", w.Stats().Active, 4)
		check(t, "waiting", w.Stats().Waiting, 2)
		close(release)
		w.final("a")
		w.final("b")
		w.final("c")
		w.final("d")
		w.request("c", `1`, plainExtra)
		w.final("c")
	})
}
