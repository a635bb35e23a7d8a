package omdp

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zmq-omdp/omdp/internal/zsock"
)

// A request that came in one batch with the answer to DRAIN runs before
// Shutdown learns of the answer, or Shutdown would find nothing in progress.
func TestWorkerDrainAnswerComesLast(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	w, err := NewWorker("inproc://x", "echo", &WorkerConfig{OnError: func(error) {}, Heartbeat: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	n := newFakeNet()
	w.conns[0].session.dial = n.dial
	w.OnRequest(func(context.Context, *Request, *Response) error {
		close(began)
		<-release
		return nil
	})
	w.Start()
	defer w.Close()
	l := n.next(t)
	l.awaitPrefix(t, "W|1|echo")
	l.say("W", "8", brokerCaps)
	if err := w.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.conns[0].leaving = draining // as Shutdown does
	w.mu.Unlock()

	// The malformed message is to be reported, which stops deliver half-way.
	w.hooks.mu.Lock()
	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		l.mu.Lock()
		for _, f := range [][]string{{"W", "2", "a", "rid-a", `1`, "{}", rawExtra}, {"X"}, {"W", "11"}} {
			l.inbox.Begin()
			for _, p := range f {
				l.inbox.FrameString(p)
			}
			l.inbox.End()
		}
		l.exchange()
	}()
	select {
	case <-w.conns[0].settled:
		if w.runners.running() == 0 {
			t.Error("Shutdown goes on before the request runs")
		}
	case <-began:
	}
	w.hooks.mu.Unlock()
	<-delivered
	<-w.conns[0].settled
	check(t, "handlers run", w.runners.running(), 1)
	close(release)
}

// Shutdowns that run at the same time all wait for the answer to the one DRAIN.
func TestWorkerShutdownTwiceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTestWorker(t, func(_ context.Context, req *Request, res *Response) error {
			pass(time.Second)
			return res.End(req.Message())
		}, nil)
		w.register()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := w.Shutdown(t.Context()); err != nil && !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		check(t, "state", w.Stats().State, Draining)
		w.request("a", `1`, rawExtra) // it crossed DRAIN on its way
		w.say("W", "11")
		at := time.Now()
		wg.Wait()
		check(t, "time it took", time.Since(at), time.Second)
		check(t, "sent", len(w.sent()), 3) // DRAIN once, the final, DISCONNECT
		check(t, "succeeded", w.Stats().Succeeded, 1)
	})
}

// Without a connection nobody answers, and nobody waits.
func TestWorkerShutdownTwiceWithoutLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := NewWorker("inproc://x", "echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		n := newFakeNet()
		n.refuse = zsock.ErrLost
		w.conns[0].session.dial = n.dial
		w.OnRequest(echo)
		w.Start()
		synctest.Wait()
		at := time.Now()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if err := w.Shutdown(t.Context()); err != nil && !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		check(t, "time it took", time.Since(at), 0)
	})
}

// I11, facts 13 and 15: a request that expired before there was a broker never
// runs, over inproc neither, and its client knows that it was not sent.
func TestInprocExpiresBeforeBroker(t *testing.T) {
	const endpoint = "inproc://expires-before-broker"
	c, err := NewClient(endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Call(t.Context(), "echo", "stale", WithTimeout(50*time.Millisecond))
	checkIs(t, "the call", err, ErrTimeout)
	check(t, "outcome", OutcomeOf(err), NotSent)

	var stale atomic.Int32
	w, err := NewWorker(endpoint, "echo", nil) // before its broker, too
	if err != nil {
		t.Fatal(err)
	}
	w.OnRequest(func(_ context.Context, req *Request, res *Response) error {
		if req.Message().String() == "stale" {
			stale.Add(1)
		}
		return res.End(req.Message())
	})
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	fresh := make(chan error, 1)
	go func() {
		_, err := c.Call(t.Context(), "echo", "fresh", WithTimeout(time.Minute))
		fresh <- err
	}()
	b, err := NewBroker(endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := <-fresh; err != nil { // behind the other, had that been sent
		t.Error(err)
	}
	check(t, "stale requests run", stale.Load(), 0)
	check(t, "requests", w.Stats().Requests, 1)
}
