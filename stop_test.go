package omdp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

func TestSeveralListeners(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Listeners: []omdp.Listener{{Endpoint: newEndpoint(t, "inproc")}, {Endpoint: newEndpoint(t, "ipc")}, {Endpoint: newEndpoint(t, "tcp")}}})
	all := b.Endpoints()
	if len(all) != 4 || slices.ContainsFunc(all, func(e string) bool { return strings.Contains(e, "*") }) {
		t.Fatalf("got endpoints %q, want four without a wildcard", all)
	}
	for i, e := range all {
		startWorker(t, e, fmt.Sprint("echo", i), nil, echo)
	}
	for _, e := range all {
		c := startClient(t, e, nil)
		for i := range all {
			served(t, c, fmt.Sprint("echo", i))
		}
	}
	// A deadline of a request that came on a later listener holds as well.
	_, err := startClient(t, all[3], nil).Call(within(t), "nobody", "x", omdp.WithTimeout(beat))
	failed(t, err, omdp.ErrTimeout)
}

// A worker that shuts down ends what it has; what comes goes to others.
func TestWorkerDrains(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		h := newHeld()
		w := addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 100}, h.handle)
		c := addClient(t, b, nil)
		var calls []<-chan result
		for i := range 3 {
			calls = append(calls, goCall(t, c, "echo", fmt.Sprint(i)))
			receive(t, "a request", h.began)
		}
		done := make(chan error, 1)
		go func() { done <- w.Shutdown(within(t)) }()
		eventually(t, "it takes no more", func() bool { return b.Stats().Services["echo"].Free == 0 })
		late := goCall(t, c, "echo", "late")
		eventually(t, "the next one is queued", func() bool { return b.Stats().Queued == 1 })
		addWorker(t, b, "echo", nil, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error { return res.End("another") })
		if r := receive(t, "the next one's answer", late); r != (result{"another", nil}) {
			t.Errorf("got %v, want that of another worker", r)
		}
		close(h.free)
		for i, r := range calls {
			if r := receive(t, "an answer", r); r != (result{fmt.Sprint(i), nil}) {
				t.Errorf("got %v, want %d", r, i)
			}
		}
		if err := receive(t, "the shutdown's end", done); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		eventually(t, "the broker forgot it", func() bool { return b.Stats().Workers == 1 })
	})
}

// A shutdown whose context ends cuts off what is left.
func TestWorkerShutdownCutsOff(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	h := newHeld()
	w := addWorker(t, b, "echo", nil, h.handle)
	c := addClient(t, b, nil)
	r := goCall(t, c, "echo", "x")
	receive(t, "the request", h.began)
	ctx, cancel := context.WithTimeoutCause(t.Context(), beat, io.ErrNoProgress)
	defer cancel()
	if err := w.Shutdown(ctx); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("got %v, want the context's cause", err)
	}
	if err := receive(t, "the handler's end", h.ended); !errors.Is(err, omdp.ErrClosed) {
		t.Errorf("got cause %v, want ErrClosed", err)
	}
	if err := receive(t, "the call's end", r).err; err == nil {
		t.Error("the call ended well")
	}
}

// A broker that shuts down refuses new work, lets what it holds end, and tells
// its peers to go elsewhere.
func TestBrokerDrains(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		h := newHeld()
		addWorker(t, b, "echo", nil, h.handle)
		// It comes back when the broker is gone: one that is leaving would refuse it.
		c := addClient(t, b, &omdp.ClientConfig{ReconnectMin: time.Second, ReconnectMax: time.Second})
		raw := dialRaw(t, b.Endpoint())
		running := goCall(t, c, "echo", "running")
		receive(t, "a request in progress", h.began)
		queued := goCall(t, c, "echo", "queued")
		eventually(t, "one is queued", func() bool { return b.Stats().Queued == 1 })
		done := make(chan error, 1)
		go func() { done <- b.Shutdown(within(t)) }()
		eventually(t, "the client knows", func() bool { return c.Stats().State == omdp.Draining })
		raw.say(`C|2|echo|1|"x"|{}`)
		raw.want(t, `C|3|1|{"status":"DRAINING","executed":false}`)
		late := goCall(t, c, "echo", "late") // for the next broker
		eventually(t, "the late one waits", func() bool { return c.Stats().Waiting == 1 })
		close(h.free)
		if r := receive(t, "the end of what was in progress", running); r != (result{"running", nil}) {
			t.Errorf("got %v, want running", r)
		}
		if r := receive(t, "the end of what was queued", queued); r != (result{"queued", nil}) {
			t.Errorf("got %v, want queued: it was accepted", r)
		}
		if err := receive(t, "the shutdown's end", done); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		restartBroker(t, b.Endpoint(), nil)
		if r := receive(t, "the late one's answer", late); r != (result{"late", nil}) {
			t.Errorf("got %v, want late", r)
		}
	})
}

// A shutdown whose context ends, or a second one, closes all the same.
func TestBrokerShutdownCutsOff(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		h := newHeld()
		addWorker(t, b, "echo", nil, h.handle)
		c := addClient(t, b, nil)
		running := goCall(t, c, "echo", "running")
		receive(t, "a request in progress", h.began)
		queued := goCall(t, c, "echo", "queued")
		eventually(t, "one is queued", func() bool { return b.Stats().Queued == 1 })
		ctx, cancel := context.WithTimeoutCause(t.Context(), beat, io.ErrNoProgress)
		defer cancel()
		again := make(chan error, 1)
		go func() { again <- b.Shutdown(ctx) }()
		if err := b.Shutdown(ctx); !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("got %v, want the context's cause", err)
		}
		receive(t, "the other shutdown's end", again)
		failed(t, receive(t, "the end of what was in progress", running).err, omdp.ErrBrokerLost, omdp.MayHaveExecuted)
		failed(t, receive(t, "the end of what was queued", queued).err, omdp.ErrBrokerLost, omdp.NotExecuted)
		if err := b.Shutdown(t.Context()); err != nil {
			t.Errorf("shutdown after it: %v", err)
		}
	})
}

func TestClientDrains(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		h := newHeld()
		addWorker(t, b, "echo", nil, h.handle)
		c := addClient(t, b, nil)
		r := goCall(t, c, "echo", "x")
		receive(t, "the request", h.began)
		done := make(chan error, 1)
		go func() { done <- c.Shutdown(within(t)) }()
		eventually(t, "it drains", func() bool { return c.Stats().State == omdp.Draining })
		_, err := c.Call(within(t), "echo", "refused")
		failed(t, err, omdp.ErrClosed, omdp.NotSent)
		close(h.free)
		if r := receive(t, "the answer", r); r != (result{"x", nil}) {
			t.Errorf("got %v, want x", r)
		}
		if err := receive(t, "the shutdown's end", done); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
}

// Run serves until its context ends.
func TestRunAllRoles(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		endpoint := knownEndpoint(t, transport)
		b, err := omdp.NewBroker(endpoint, nil)
		if err != nil {
			t.Fatal(err)
		}
		w, err := omdp.NewWorker(endpoint, "echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.OnRequest(echo); err != nil {
			t.Fatal(err)
		}
		c, err := omdp.NewClient(endpoint, nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 3)
		var stops []context.CancelFunc
		for _, run := range []func(context.Context) error{c.Run, w.Run, b.Run} {
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			stops = append(stops, stop)
			go func() { done <- run(ctx) }()
		}
		eventually(t, "the client is started", func() bool {
			_, err := c.Call(within(t), "echo", "x")
			return !errors.Is(err, omdp.ErrNotStarted)
		})
		served(t, c, "echo")
		for _, stop := range stops {
			stop()
			if err := receive(t, "the end of Run", done); err != nil {
				t.Errorf("run: %v", err)
			}
		}
	})
}

// A request that is at a worker when its deadline passes ends there too.
func TestDeadlineAfterDispatch(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), &omdp.BrokerConfig{Timeout: -1, MaxTimeout: 4 * beat})
		h := newHeld()
		addWorker(t, b, "echo", nil, h.handle)
		c := addClient(t, b, nil)
		for name, opt := range map[string]omdp.CallOption{"own": omdp.WithTimeout(2 * beat), "MaxTimeout": omdp.WithTimeout(-1)} {
			_, err := c.Call(t.Context(), "echo", name, opt)
			failed(t, err, omdp.ErrTimeout, omdp.MayHaveExecuted)
			// Whose timer is first is a race: a client that gives up cancels.
			if err := receive(t, "the handler's end", h.ended); !errors.Is(err, omdp.ErrTimeout) && !errors.Is(err, omdp.ErrCanceled) {
				t.Errorf("%s: got cause %v, want ErrTimeout or ErrCanceled", name, err)
			}
		}
		eventually(t, "the worker is free", func() bool { return b.Stats().Services["echo"].Free == 1 })
		close(h.free)
		served(t, c, "echo")
	})
}
