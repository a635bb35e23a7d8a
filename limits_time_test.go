package omdp_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// Rows of the table of limits that are times.

func limitHeartbeats(t *testing.T) {
	const hb, missed = 40 * time.Millisecond, 5 // what a peer tells, and the liveness of whoever listens
	part(t, "of the broker", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Heartbeat: hb})
		w := dialRaw(t, b.Endpoint())
		start := time.Now()
		w.say(`W|1|echo|{"v":1,"id":"life","hb":60000}`)
		w.next(t) // W|8
		for range 5 {
			if m := receive(t, "a beat", w.in); !slices.Equal(m, []string{"W", "4"}) {
				t.Fatalf("got %q, want a beat", m)
			}
		}
		if d := time.Since(start); d < 5*hb-5*time.Millisecond {
			t.Errorf("five beats came in %v, want one each %v", d, hb)
		}
	})
	part(t, "a worker is lost", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Liveness: missed})
		w, c := dialRaw(t, b.Endpoint()), addClient(t, b, nil)
		start := time.Now()
		w.say(`W|1|echo|{"v":1,"id":"life","hb":40}`)
		w.next(t) // W|8
		r := goCall(t, c, "echo", "x")
		failed(t, receive(t, "the call's end", r).err, omdp.ErrWorkerLost, omdp.MayHaveExecuted)
		if d := time.Since(start); d < missed*hb {
			t.Errorf("lost after %v, want %d × %v", d, missed, hb)
		}
		for m := w.next(t); m[1] != "5"; m = w.next(t) {
		}
		addWorker(t, b, "echo", nil, echo)
		served(t, c, "echo")
	})
	part(t, "a client is lost", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Liveness: missed})
		h := newHeld()
		addWorker(t, b, "held", nil, h.handle)
		addWorker(t, b, "echo", nil, echo)
		p, c := dialRaw(t, b.Endpoint()), addClient(t, b, nil)
		start := time.Now()
		p.say(`C|8|{"v":1,"id":"life","hb":40}`)
		p.say(`C|2|held|1|"x"|{"timeout":-1}`)
		receive(t, "the request", h.began)
		failed(t, receive(t, "the handler's end", h.ended), omdp.ErrCanceled)
		if d := time.Since(start); d < missed*hb {
			t.Errorf("lost after %v, want %d × %v", d, missed, hb)
		}
		served(t, c, "echo")
	})
	part(t, "a broker is lost", func(t *testing.T) {
		b := bindRaw(t, newEndpoint(t, "inproc"))
		c := startClient(t, b.endpoint, &omdp.ClientConfig{Liveness: missed, Heartbeat: hb})
		m := b.next(t, "C", "8")
		start := time.Now()
		b.send(m[0], "C", "8", `{"v":1,"id":"broker","hb":40}`)
		ready(t, c)
		_, err := c.Call(within(t), "echo", "x")
		failed(t, err, omdp.ErrBrokerLost, omdp.MayHaveExecuted)
		if d := time.Since(start); d < missed*hb {
			t.Errorf("lost after %v, want %d × %v", d, missed, hb)
		}
		h := newHeld()
		w := startWorker(t, b.endpoint, "echo", &omdp.WorkerConfig{Liveness: missed, Heartbeat: hb}, h.handle)
		m = b.next(t, "W", "1")
		b.send(m[0], "W", "8", `{"v":1,"id":"broker","hb":40}`)
		b.send(m[0], "W", "2", "token", "1", `"x"`, "{}", `{"remaining":-1,"attempt":1,"credit":0,"raw":false}`)
		receive(t, "the request", h.began)
		failed(t, receive(t, "the handler's end", h.ended), omdp.ErrBrokerLost)
		if s := w.Stats(); s.Lost != 1 {
			t.Errorf("got %d lost, want 1", s.Lost)
		}
	})
	part(t, "a worker that tells no interval is lost", func(t *testing.T) {
		if testing.Short() {
			t.Skip("it takes 15 s")
		}
		// The usual heartbeat: of a shorter one half is soon lost on a loaded machine,
		// and whoever was away for half a beat counts nobody's silence before.
		const beat = 2500 * time.Millisecond
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Heartbeat: beat, Liveness: 5})
		w, c := dialRaw(t, b.Endpoint()), addClient(t, b, &omdp.ClientConfig{Heartbeat: beat})
		start := time.Now()
		w.say("W|1|echo")
		ended := make(chan error, 1)
		if err := c.Request(t.Context(), "echo", "x", nil, func(_ omdp.Message, err error) { ended <- err }, omdp.WithTimeout(-1)); err != nil {
			t.Fatal(err)
		}
		failed(t, receive(t, "the call's end", ended), omdp.ErrWorkerLost, omdp.MayHaveExecuted)
		if d := time.Since(start); d < 15*time.Second {
			t.Errorf("lost after %v, want 15 s", d)
		}
	})
	part(t, "ranges", func(t *testing.T) {
		for _, d := range []time.Duration{time.Millisecond, 25 * time.Hour} {
			if _, err := omdp.NewBroker("inproc://x", &omdp.BrokerConfig{Heartbeat: d}); err == nil || !strings.Contains(err.Error(), "Heartbeat") {
				t.Errorf("a heartbeat of %v: got %v, want an error that names it", d, err)
			}
		}
		if _, err := omdp.NewClient("inproc://x", &omdp.ClientConfig{Liveness: 1}); err == nil || !strings.Contains(err.Error(), "Liveness") {
			t.Errorf("a liveness of 1: got %v, want an error that names it", err)
		}
	})
}

func limitShutdown(t *testing.T) {
	const limit = 4 * beat
	// runs starts Run, lets begin put something in progress, ends the context, and
	// sees that Run takes DrainTimeout and no less.
	runs := func(t *testing.T, run func(context.Context) error, begin func(), cut func()) {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- run(ctx) }()
		begin()
		start := time.Now()
		stop()
		cut()
		if err := receive(t, "the end of Run", done); err != nil {
			t.Errorf("run: %v", err)
		}
		if d := time.Since(start); d < limit {
			t.Errorf("it ended after %v, with something in progress and a DrainTimeout of %v", d, limit)
		}
	}
	part(t, "broker", func(t *testing.T) {
		endpoint := newEndpoint(t, "inproc")
		b, err := omdp.NewBroker(endpoint, &omdp.BrokerConfig{DrainTimeout: limit, Heartbeat: beat, Liveness: steady})
		if err != nil {
			t.Fatal(err)
		}
		h := newHeld()
		startWorker(t, endpoint, "echo", nil, h.handle)
		c := startClient(t, endpoint, nil)
		r := goCall(t, c, "echo", "x")
		runs(t, b.Run, func() { receive(t, "the request", h.began) }, func() {
			failed(t, receive(t, "the call's end", r).err, omdp.ErrBrokerLost, omdp.MayHaveExecuted)
			failed(t, receive(t, "the handler's end", h.ended), omdp.ErrBrokerLost)
		})
	})
	part(t, "worker", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), nil)
		h := newHeld()
		w, err := omdp.NewWorker(b.Endpoint(), "echo", &omdp.WorkerConfig{DrainTimeout: limit, Heartbeat: beat, Liveness: steady})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.OnRequest(h.handle); err != nil {
			t.Fatal(err)
		}
		r := goCall(t, addClient(t, b, nil), "echo", "x")
		runs(t, w.Run, func() { receive(t, "the request", h.began) }, func() {
			failed(t, receive(t, "the handler's end", h.ended), omdp.ErrClosed)
			if err := receive(t, "the call's end", r).err; err == nil {
				t.Error("the call ended well")
			}
		})
	})
	part(t, "client", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), nil)
		h := newHeld()
		addWorker(t, b, "echo", nil, h.handle)
		c, err := omdp.NewClient(b.Endpoint(), &omdp.ClientConfig{DrainTimeout: limit, Heartbeat: beat, Liveness: steady})
		if err != nil {
			t.Fatal(err)
		}
		var r <-chan result
		runs(t, c.Run, func() {
			eventually(t, "it is started", func() bool { return !errors.Is(c.WaitReady(within(t)), omdp.ErrNotStarted) })
			r = goCall(t, c, "echo", "x")
			receive(t, "the request", h.began)
		}, func() {
			failed(t, receive(t, "the call's end", r).err, omdp.ErrClosed, omdp.MayHaveExecuted)
			failed(t, receive(t, "the handler's end", h.ended), omdp.ErrCanceled)
		})
	})
}

func limitStuck(t *testing.T) {
	b := startBroker(t, newEndpoint(t, "tcp"), nil)
	began, free := make(chan struct{}, 1), make(chan struct{})
	errs := make(chan error, 100)
	late := make(chan error, 1)
	w := addWorker(t, b, "echo", &omdp.WorkerConfig{StuckAfter: 4 * beat, OnError: func(err error) { errs <- err }}, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		if req.Message().String() == "stuck" {
			began <- struct{}{}
			<-free
			late <- res.End("late")
			return nil
		}
		return res.End(req.Message())
	})
	c := addClient(t, b, nil)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	go c.Call(ctx, "echo", "stuck")
	receive(t, "the handler", began)
	cancel()
	served(t, c, "echo")
	if err := receive(t, "the report", errs); !errors.Is(err, omdp.ErrCanceled) || !strings.Contains(err.Error(), "it is replaced") {
		t.Errorf("got report %v, want one of ErrCanceled that says that it is replaced", err)
	}
	if s := w.Stats(); s.Stuck != 1 || s.Handlers != 1 {
		t.Errorf("got %d stuck, %d handlers; want 1, 1", s.Stuck, s.Handlers)
	}
	close(free)
	failed(t, receive(t, "the late end", late), omdp.ErrEnded)
	served(t, c, "echo")
}
