package omdp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zmq-omdp/omdp/internal/zsock"
)

// K2: an old session's reply never goes out on a new one.
func TestWorkerOldReplyStaysOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		results := make(chan error, 1)
		w := newTestWorker(t, func(ctx context.Context, req *Request, res *Response) error {
			if req.ID() == "rid-old" {
				<-release
				results <- res.End("old")
			}
			return nil
		}, nil)
		defer w.close()
		w.register()
		w.request("old", `1`, rawExtra)
		synctest.Wait()
		old := w.fakeLink
		w.cut()
		w.nextLink()
		w.register()
		close(release)
		checkIs(t, "End on the lost session", <-results, ErrBrokerLost)
		w.request("new", `1`, rawExtra)
		w.final("new")
		synctest.Wait()
		for _, m := range append(w.sent(), old.sent()...) {
			if strings.Contains(m, "old") {
				t.Errorf("sent: %q", m)
			}
		}
		check(t, "lost", w.Stats().Lost, 1)
		check(t, "connections", w.Stats().Connections, 2)
	})
}

func TestWorkerReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var states []State
		var errs []error
		var log bytes.Buffer
		w := newTestWorker(t, echo, &WorkerConfig{
			Logger:  slog.New(slog.NewTextHandler(&log, nil)),
			OnState: func(s State) { mu.Lock(); states = append(states, s); mu.Unlock() },
			OnError: func(err error) { mu.Lock(); errs = append(errs, err); mu.Unlock() },
		})
		w.register()
		for range 3 { // a broker that answered resets the backoff
			at := time.Now()
			w.cut()
			w.nextLink()
			if d := time.Since(at); d < 50*time.Millisecond || d > 100*time.Millisecond {
				t.Errorf("reconnected after %v, want 50ms to 100ms", d)
			}
			w.register()
		}
		w.net.mu.Lock()
		w.net.refuse = errors.New("no such host")
		w.net.mu.Unlock()
		at := time.Now()
		w.cut()
		pass(time.Minute)
		w.net.mu.Lock()
		w.net.refuse = nil
		w.net.mu.Unlock()
		w.nextLink()
		if d := time.Since(at); d > time.Minute+5*time.Second {
			t.Errorf("reconnected after %v", d)
		}
		w.register()
		w.close()
		mu.Lock()
		defer mu.Unlock()
		want := "[ready lost ready lost ready lost ready lost ready closed]"
		check(t, "states", fmt.Sprint(states), want)
		if len(errs) < 4+60/5 || len(errs) > 40 {
			t.Errorf("%d errors: %v", len(errs), errs)
		}
		if !errors.Is(errs[0], zsock.ErrLost) {
			t.Errorf("first error: %v", errs[0])
		}
		if !strings.Contains(log.String(), "no such host") || !strings.Contains(log.String(), "worker ready") {
			t.Errorf("log: %s", &log)
		}
	})
}

// A broker that disconnects at every READY is not asked in a tight loop.
func TestWorkerDeniedBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTestWorker(t, echo, nil)
		defer w.close()
		at := time.Now()
		for range 8 {
			w.say("W", "5")
			w.nextLink()
		}
		if d := time.Since(at); d < 8*time.Second {
			t.Errorf("8 tries in %v", d)
		}
	})
}

// A worker started before its broker waits without giving up the link.
func TestWorkerBeforeBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		n.blocked = true
		w, _ := NewWorker("inproc://x", "echo", nil)
		w.conns[0].session.dial = n.dial
		w.OnRequest(echo)
		w.Start()
		l := n.next(t)
		pass(time.Hour)
		check(t, "sent without a connection", len(l.sent()), 0)
		l.hold(false)
		l.awaitPrefix(t, "W|1|echo")
		l.say("W", "8", brokerCaps)
		if err := w.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.Close()
		l.awaitPrefix(t, "W|5")
	})
}

func TestWorkerMalformed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs atomic.Int32
		w := newTestWorker(t, echo, &WorkerConfig{OnError: func(err error) { errs.Add(1); checkIs(t, "error", err, ErrProtocol) }})
		defer w.close()
		w.register()
		bad := [][]string{{"W"}, {"W", "2"}, {"W", "2", "tok", "rid"}, {"W", "2", "", "rid", "1"}, {"X", "4"}, {"C", "4"}, {"W", "99"},
			{"W", "9", "tok", "rid", "-1"}, {"W", "8", "{}"}, {"W", "8", "nonsense"}, {"", ""}, {"W", "10", "tok"}, {"W", "7", "x"}}
		for _, f := range bad {
			w.say(f...)
		}
		w.say("W", "2", "ok", "rid-ok", `1`, `not json`, `{"remaining":nonsense}`) // read without the extras
		w.final("ok")
		synctest.Wait()
		check(t, "malformed", int(w.Stats().Malformed), len(bad)+1)
		check(t, "errors told per connection", errs.Load(), 1)
		w.say("W", "9", "unknown", "rid", "5") // late words on requests that ended are nothing special
		w.say("W", "10", "unknown", "rid", "client")
		w.say("W", "4", "unknown", "rid")
		w.say("W", "11")
		w.request("still", `1`, rawExtra)
		w.final("still")
		check(t, "malformed", int(w.Stats().Malformed), len(bad)+1)
	})
}

// A pause of the whole process (suspend, SIGSTOP) drops nobody.
func TestWorkerSurvivesJump(t *testing.T) {
	s := newWorkerSession(time.Second, 3, 1)
	var a arrivals
	s.open()
	s.connected(0)
	s.receive(0, &message{worker: true, op: opHello, caps: []byte(`{"v":1,"id":"b","hb":1000}`)}, &a, nil)
	for at := instant(0); at < 3*time.Second; at += time.Second {
		s.tick(at, &a)
		s.heard = at
	}
	a.reset()
	next := s.tick(time.Hour, &a)
	if a.drop != nil || next > time.Hour+time.Second {
		t.Errorf("after a jump: drop %v, next %v", a.drop, next)
	}
	for at := time.Hour; a.drop == nil; at = s.tick(at, &a) {
		if at > time.Hour+3*time.Second {
			t.Fatalf("silent for %v and not dropped", at-time.Hour)
		}
	}
	check(t, "reason", a.drop, errBrokerSilent)
}

func TestWorkerShutdown(t *testing.T) {
	bubble(t, "idle", func(t *testing.T) {
		w := newTestWorker(t, echo, nil)
		w.register()
		w.net.script = func(l *fakeLink, f [][]byte) {
			if joinFrames(f) == "W|11" {
				l.say("W", "11")
			}
		}
		at := time.Now()
		if err := w.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		check(t, "time it took", time.Since(at), 0)
		check(t, "sent", strings.Join(w.sent(), " "), "W|11 W|5")
		checkIs(t, "Start after it", w.Start(), ErrClosed)
	})
	bubble(t, "busy", func(t *testing.T) {
		w := newTestWorker(t, func(_ context.Context, req *Request, res *Response) error {
			pass(time.Second)
			return res.End(req.Message())
		}, &WorkerConfig{Concurrency: 2})
		w.register()
		w.cut() // what an earlier connection left behind must not matter
		w.nextLink()
		w.register()
		w.request("a", `1`, rawExtra)
		synctest.Wait()
		w.net.script = func(l *fakeLink, f [][]byte) {
			if joinFrames(f) == "W|11" { // a request that crossed DRAIN on its way is served
				l.say("W", "2", "b", "rid-b", `2`, "{}", rawExtra)
				l.say("W", "11")
			}
		}
		at := time.Now()
		if err := w.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		check(t, "time it took", time.Since(at), time.Second)
		w.final("a")
		w.final("b")
		check(t, "sent besides", strings.Join(w.sent(), " "), "W|11 W|5")
	})
	bubble(t, "cut off", func(t *testing.T) {
		w := newTestWorker(t, func(ctx context.Context, req *Request, res *Response) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}, nil)
		w.register()
		w.request("a", `1`, rawExtra)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := w.Shutdown(ctx)
		checkIs(t, "Shutdown", err, context.DeadlineExceeded)
		check(t, "sent", strings.Join(w.sent(), " "), `W|11 W|3|a|rid-a|{"status":500,"msg":"omdp: closed: the worker stops"} W|5`)
	})
	bubble(t, "a handler that does not end", func(t *testing.T) {
		release := make(chan struct{})
		w := newTestWorker(t, func(ctx context.Context, req *Request, res *Response) error {
			<-release
			return nil
		}, nil)
		w.register()
		w.request("a", `1`, rawExtra)
		synctest.Wait()
		at := time.Now()
		if err := w.Close(); err == nil || !strings.Contains(err.Error(), "1 handlers still run") {
			t.Errorf("Close: got %v, want to be told of the handler", err)
		}
		check(t, "time it took", time.Since(at), 10*time.Second)
		close(release)
		synctest.Wait()
		check(t, "handlers", w.Stats().Handlers, 0)
	})
	bubble(t, "a Node broker, idle", func(t *testing.T) {
		w := newTestWorker(t, echo, nil)
		w.say("W", "4")
		if err := w.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		check(t, "sent", strings.Join(w.sent(), " "), "W|5")
	})
	bubble(t, "a Node broker, busy", func(t *testing.T) {
		w := newTestWorker(t, func(_ context.Context, req *Request, res *Response) error {
			pass(time.Second)
			return nil
		}, nil)
		w.say("W", "4")
		w.request("a", `1`, "")
		synctest.Wait()
		if err := w.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		check(t, "sent", strings.Join(w.sent(), " "), `W|3|a|rid-a|{"status":200,"msg":null} W|5`)
	})
	bubble(t, "never connected", func(t *testing.T) {
		n := newFakeNet()
		n.refuse = errors.New("no route")
		w, _ := NewWorker("inproc://x", "echo", nil)
		w.conns[0].session.dial = n.dial
		w.OnRequest(echo)
		w.Start()
		pass(time.Second)
		if err := w.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
	bubble(t, "a request that crossed DRAIN, while idle", func(t *testing.T) {
		w := newTestWorker(t, echo, nil)
		w.register()
		w.cut()
		w.nextLink()
		w.register()
		link := w.fakeLink
		time.AfterFunc(30*time.Millisecond, func() {
			link.say("W", "2", "late", "rid-late", `3`, "{}", rawExtra)
			link.say("W", "11")
		})
		if err := w.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		check(t, "final", w.final("late"), js("3"))
	})
	bubble(t, "the connection is lost meanwhile", func(t *testing.T) {
		w := newTestWorker(t, func(ctx context.Context, req *Request, res *Response) error {
			<-ctx.Done()
			return nil
		}, nil)
		w.register()
		w.request("a", `1`, rawExtra)
		synctest.Wait()
		time.AfterFunc(time.Second, w.cut)
		if err := w.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A broker that says DRAIN is leaving: what is held goes on, and the worker
// registers anew when the connection ends.
func TestWorkerBrokerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		w := newTestWorker(t, func(_ context.Context, req *Request, res *Response) error {
			<-release
			return res.End(req.Message())
		}, nil)
		defer w.close()
		w.register()
		w.request("a", `1`, rawExtra)
		w.say("W", "11")
		synctest.Wait()
		check(t, "state", w.Stats().State, Draining)
		close(release)
		check(t, "final", w.final("a"), js("1"))
		w.say("W", "5")
		w.nextLink()
		check(t, "state", w.Stats().State, Lost)
		w.register()
		check(t, "state", w.Stats().State, Ready)
	})
}

// Shutdown before the broker answered READY: it may be of any make.
func TestWorkerShutdownUnregistered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTestWorker(t, echo, nil)
		var wg sync.WaitGroup
		for range 3 { // all wait for the same end
			wg.Go(func() {
				if err := w.Shutdown(t.Context()); err != nil && !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
			})
		}
		wg.Go(func() { checkIs(t, "WaitReady", w.WaitReady(t.Context()), ErrClosed) })
		wg.Wait()
		check(t, "sent", strings.Join(w.sent(), " "), "W|5")
	})
}

func TestWorkerRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		w, _ := NewWorker("inproc://x", "echo", nil)
		w.conns[0].session.dial = n.dial
		started := make(chan struct{})
		w.OnRequest(func(ctx context.Context, _ *Request, res *Response) error {
			close(started)
			select {
			case <-ctx.Done():
				t.Error("the drain cut the handler off")
			case <-time.After(5 * time.Second):
			}
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- w.Run(ctx) }()
		l := n.next(t)
		l.awaitPrefix(t, "W|1|")
		l.say("W", "8", brokerCaps)
		l.say("W", "2", "a", "rid-a", `1`, "{}", rawExtra)
		<-started
		cancel()
		l.awaitPrefix(t, "W|11")
		l.say("W", "11")
		if err := <-ran; err != nil {
			t.Error(err)
		}
		l.awaitPrefix(t, "W|3|a|")
		l.awaitPrefix(t, "W|5")

		w, _ = NewWorker("inproc://x", "echo", nil)
		w.conns[0].session.dial = n.dial
		w.OnRequest(echo)
		go func() { ran <- w.Run(t.Context()) }()
		n.next(t)
		w.Close()
		checkIs(t, "Run of a worker that was closed", <-ran, ErrClosed)
	})
}

// Handlers run side by side, and idle goroutines go away.
func TestWorkerConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 100
		var running atomic.Int32
		all := make(chan struct{})
		w := newTestWorker(t, func(ctx context.Context, req *Request, res *Response) error {
			if running.Add(1) == n {
				close(all)
			}
			<-all
			return nil
		}, &WorkerConfig{Concurrency: n})
		defer w.close()
		w.register()
		for i := range n {
			w.request(fmt.Sprint("t", i), `1`, rawExtra)
		}
		<-all
		synctest.Wait()
		check(t, "succeeded", w.Stats().Succeeded, n)
		w.runners.mu.Lock()
		idle := len(w.runners.idle)
		w.runners.mu.Unlock()
		check(t, "idle goroutines", idle, n)
		for range 3 {
			pass(2500 * time.Millisecond)
			w.say("W", "4")
		}
		synctest.Wait()
		w.runners.mu.Lock()
		defer w.runners.mu.Unlock()
		check(t, "idle goroutines after two beats", w.runners.alive, 0)
	})
}

// Every task runs once, at once, whatever the others do, and nothing is left.
func TestRunners(t *testing.T) {
	bubble(t, "short and blocked", func(t *testing.T) {
		var ran atomic.Int32
		release := make(chan struct{})
		p := runners{do: func(task *task) {
			ran.Add(1)
			if task.tells {
				<-release
			}
		}}
		var all []*task
		for i := range 3000 {
			all = append(all, &task{tells: i%10 == 0})
		}
		for i := 0; i < len(all); i += 50 {
			p.add(all[i : i+50])
		}
		synctest.Wait()
		check(t, "ran", ran.Load(), 3000)
		check(t, "running", p.running(), 300)
		quiet := p.whenQuiet()
		close(release)
		<-quiet
		p.trim()
		p.trim()
		<-p.close()
		check(t, "goroutines", p.alive, 0)
	})
	bubble(t, "tasks that end their goroutine", func(t *testing.T) {
		var ran atomic.Int32
		p := runners{do: func(*task) { ran.Add(1); runtime.Goexit() }}
		for range 100 {
			p.add([]*task{{}, {}, {}})
		}
		<-p.whenQuiet()
		check(t, "ran", ran.Load(), 300)
		p.add([]*task{{}}) // what comes after close runs all the same
		<-p.close()
		check(t, "ran", ran.Load(), 301)
	})
	bubble(t, "a queue that never runs empty", func(t *testing.T) {
		p := runners{coming: true} // so that nobody but us takes from it
		for i := range 5000 {
			p.add([]*task{{held: held{at: i}}})
			if i%2 == 1 {
				check(t, "order", p.next().at, i/2)
			}
		}
		check(t, "left", len(p.queue)-p.head, 2500)
		if len(p.queue) > 4000 {
			t.Errorf("the queue has %d places", len(p.queue))
		}
	})
}
