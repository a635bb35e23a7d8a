package omdp_test

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// Paths of what a worker has: nobody can tell whether its handler ran, or how far.
var runningPaths = []errorPath{
	whileRunning("cancelled while running", omdp.ErrCanceled, func(s *scene, cancel context.CancelFunc) { cancel() }),
	whileRunning("closed while running", omdp.ErrClosed, func(s *scene, _ context.CancelFunc) { s.leave() }),
	whileRunning("client cut off while running", omdp.ErrClosed, func(s *scene, _ context.CancelFunc) {
		ctx, cancel := context.WithTimeoutCause(s.t.Context(), 0, io.ErrNoProgress)
		defer cancel()
		failed(s.t, s.c.Shutdown(ctx), io.ErrNoProgress)
		s.c = nil
	}),
	whileRunning("worker closed while running", omdp.ErrWorkerLost, func(s *scene, _ context.CancelFunc) {
		w, done := s.workers[0], make(chan error, 1)
		go func() { done <- w.Close() }()
		s.restore = append(s.restore, func() { receive(s.t, "the worker's end", done) })
	}),
	whileRunning("worker cut off while running", omdp.ErrWorkerLost, func(s *scene, _ context.CancelFunc) {
		ctx, cancel := context.WithTimeoutCause(s.t.Context(), 0, io.ErrNoProgress)
		defer cancel()
		failed(s.t, s.workers[0].Shutdown(ctx), io.ErrNoProgress)
	}),
	whileRunning("broker closed while running", omdp.ErrBrokerLost, func(s *scene, _ context.CancelFunc) {
		closed(s.t, "broker", s.b)
		s.b = nil
	}),
	whileRunning("broker cut off while running", omdp.ErrBrokerLost, func(s *scene, _ context.CancelFunc) {
		ctx, cancel := context.WithTimeoutCause(s.t.Context(), 0, io.ErrNoProgress)
		defer cancel()
		failed(s.t, s.b.Shutdown(ctx), io.ErrNoProgress)
		s.b = nil
	}),
	{name: "stream closed while running", ways: "s", want: omdp.ErrCanceled, outcome: omdp.MayHaveExecuted, ran: ranBegun, fault: func(s *scene) error {
		s.serve("inproc", nil)
		s.work(s.endpoint, nil, s.stay)
		s.connect(nil)
		s.call()
		s.runs()
		s.stream.Close()
		return s.end()
	}},
	{name: "expired while running", want: omdp.ErrTimeout, outcome: omdp.MayHaveExecuted, ran: ranBegun, fault: func(s *scene) error {
		s.serve("inproc", &omdp.BrokerConfig{MaxTimeout: 10 * beat})
		s.work(s.endpoint, nil, s.stay)
		s.connect(nil)
		s.call(omdp.WithTimeout(time.Minute))
		s.runs()
		return s.end()
	}},
	// The handler heeds its deadline and says so: too late, the broker has spoken.
	{name: "handler ends at its deadline", want: omdp.ErrTimeout, outcome: omdp.MayHaveExecuted, ran: ranWhole, fault: func(s *scene) error {
		s.serve("inproc", &omdp.BrokerConfig{MaxTimeout: 10 * beat})
		s.work(s.endpoint, nil, func(ctx context.Context, _ *omdp.Request, _ *omdp.Response) error {
			<-ctx.Done()
			return ctx.Err()
		})
		s.connect(nil)
		s.call(omdp.WithTimeout(time.Minute))
		return s.end()
	}},
	{name: "connection cut while running", want: omdp.ErrBrokerLost, outcome: omdp.MayHaveExecuted, ran: ranBegun, fault: func(s *scene) error {
		p := s.clientBehind(nil)
		s.work(s.b.Endpoint(), nil, s.stay)
		s.call()
		s.runs()
		p.cut()
		return s.end()
	}},
	{name: "broker silent", want: omdp.ErrBrokerLost, outcome: omdp.MayHaveExecuted, ran: ranBegun, fault: func(s *scene) error {
		p := s.clientBehind(&omdp.ClientConfig{Liveness: brief})
		s.work(s.b.Endpoint(), nil, s.stay)
		s.call()
		s.runs()
		p.hold(fromDialler, fromDialled)
		s.restore = append(s.restore, p.release)
		return s.end()
	}},
	{name: "broker killed while running", want: omdp.ErrBrokerLost, outcome: omdp.MayHaveExecuted, ran: ranBegun, fault: func(s *scene) error {
		cmd, endpoint, err := startChild(s.t, "broker tcp://127.0.0.1:*")
		if err != nil {
			s.t.Fatal(err)
		}
		s.endpoint = endpoint
		s.work(endpoint, nil, s.stay)
		s.connect(nil)
		s.call()
		s.runs()
		signal(s.t, cmd, syscall.SIGKILL)
		return s.end()
	}},
	{name: "slow client, running", want: omdp.ErrSlowConsumer, outcome: omdp.MayHaveExecuted, ran: ranBegun, fault: func(s *scene) error {
		return slowClient(s, func() {
			s.work(s.b.Endpoint(), nil, s.stay)
			s.call()
			s.runs()
		})
	}},
	// A connection that is cut before the handler's end: its final goes nowhere.
	{name: "worker cut off, its handler ran", want: omdp.ErrWorkerLost, outcome: omdp.MayHaveExecuted, ran: ranWhole, fault: func(s *scene) error {
		s.serve("tcp", nil)
		p := newBetween(s.t, s.endpoint)
		done := make(chan struct{})
		w := s.work(p.endpoint, nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			<-done
			return res.End(req.Message())
		})
		s.connect(nil)
		s.call()
		s.runs()
		p.cut()
		eventually(s.t, "the worker noticed", func() bool { return w.Stats().Lost == 1 })
		close(done)
		return s.end()
	}},
	{name: "worker killed", want: omdp.ErrWorkerLost, outcome: omdp.MayHaveExecuted, ran: ranOther, fault: func(s *scene) error {
		s.serve("tcp", nil)
		cmd, _, err := startChild(s.t, "worker "+s.endpoint)
		if err != nil {
			s.t.Fatal(err)
		}
		s.connect(nil)
		s.callWith("child", walkData)
		eventually(s.t, "it is in progress", func() bool { return s.b.Stats().InProgress == 1 })
		signal(s.t, cmd, syscall.SIGKILL)
		return s.end()
	}},
	atRawWorker("worker vanishes before its handler ran", omdp.ErrWorkerLost, "W|1|walk", func(s *scene, w *rawPeer) { w.close() }),
	atRawWorker("worker says DISCONNECT", omdp.ErrWorkerLost, "W|1|walk", func(s *scene, w *rawPeer) { w.say("W|5") }),
	atRawWorker("worker breaks the protocol", omdp.ErrWorkerLost, "W|1|walk", func(s *scene, w *rawPeer) { w.say("W|1|walk") }),
	atRawWorker("worker silent", omdp.ErrWorkerLost, `W|1|walk|{"v":1,"id":"life","hb":5}`, func(s *scene, w *rawPeer) {}), // 5 ms × 100
	// It beats for itself and not for the request.
	atRawWorker("request stalled", omdp.ErrWorkerLost, `W|1|walk|{"v":1,"id":"life","hb":5}`, func(s *scene, w *rawPeer) {
		eventually(s.t, "the broker takes it from the worker", func() bool {
			w.say("W|4")
			return s.b.Stats().Stalled == 1
		})
	}),
	{name: "request too large for the worker", want: omdp.ErrTooLarge, outcome: omdp.NotExecuted, fault: func(s *scene) error {
		s.serve("tcp", nil)
		s.work(s.endpoint, &omdp.WorkerConfig{MaxBody: 1 << 10}, s.stay)
		s.connect(nil)
		s.callWith("walk", strings.Repeat("x", 256<<10))
		return s.end()
	}},
}

// running is a call whose handler runs when something happens.
func whileRunning(name string, want error, fault func(s *scene, cancel context.CancelFunc)) errorPath {
	return errorPath{name: name, want: want, outcome: omdp.MayHaveExecuted, ran: ranBegun, fault: func(s *scene) error {
		s.serve("inproc", nil)
		s.work(s.endpoint, nil, s.stay)
		s.connect(nil)
		cancel := s.ender()
		s.call()
		s.runs()
		fault(s, cancel)
		return s.end()
	}}
}

// atRawWorker is a call that a worker by hand holds: it runs nothing.
func atRawWorker(name string, want error, hello string, fault func(s *scene, w *rawPeer)) errorPath {
	return errorPath{name: name, want: want, outcome: omdp.MayHaveExecuted, ran: ranOther, fault: func(s *scene) error {
		s.serve("inproc", nil)
		w := s.rawWorker(hello)
		s.connect(nil)
		s.call()
		s.takes(w)
		fault(s, w)
		return s.end()
	}}
}

// clientBehind connects the client through a proxy.
func (s *scene) clientBehind(config *omdp.ClientConfig) *between {
	s.t.Helper()
	s.serve("tcp", nil)
	p := newBetween(s.t, s.endpoint)
	s.endpoint = p.endpoint
	s.connect(config)
	return p
}

// A worker that is cut off while requests pour in: what it answers for, ran.
func TestOutcomeOfWorkerCutOff(t *testing.T) {
	t.Parallel()
	const n = 300
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	c := addClient(t, b, nil)
	for range 20 {
		var ran [n]atomic.Bool
		first := make(chan struct{}, n)
		w := addWorker(t, b, "walk", &omdp.WorkerConfig{Concurrency: n}, func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
			var i int
			if err := req.Decode(&i); err != nil {
				return err
			}
			ran[i].Store(true)
			first <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		})
		var calls [n]<-chan result
		for i := range calls {
			calls[i] = goCall(t, c, "walk", i, omdp.FailFast(), omdp.WithTimeout(5*time.Second)) // what is queued when the worker leaves waits for another
		}
		receive(t, "a handler", first)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := w.Shutdown(ctx); err == nil {
			t.Error("the shutdown cut nothing off")
		}
		for i, r := range calls {
			r := receive(t, "a call's end", r)
			if got := omdp.OutcomeOf(r.err); got == omdp.Executed && !ran[i].Load() {
				t.Fatalf("request %d: outcome %v of %v, and its handler never began", i, got, r.err)
			} else if got == omdp.NotExecuted && ran[i].Load() {
				t.Fatalf("request %d: outcome %v of %v, and its handler ran", i, got, r.err)
			}
		}
	}
}
