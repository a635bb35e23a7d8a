package omdp_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// Workers of several brokers, on real sockets.

// several are two brokers with a client each.
type several struct {
	brokers [2]*omdp.Broker
	clients [2]*omdp.Client
}

func startSeveral(t testing.TB, transport string, config *omdp.BrokerConfig) *several {
	t.Helper()
	s := &several{}
	for i := range s.brokers {
		s.brokers[i] = startBroker(t, newEndpoint(t, transport), config)
		s.clients[i] = addClient(t, s.brokers[i], nil)
	}
	return s
}

// worker starts one of both brokers and waits until it is registered with both.
func (s *several) worker(t testing.TB, config *omdp.WorkerConfig, h omdp.Handler) *omdp.Worker {
	t.Helper()
	c := omdp.WorkerConfig{}
	if config != nil {
		c = *config
	}
	c.Endpoints = []string{s.brokers[1].Endpoint()}
	w := startWorker(t, s.brokers[0].Endpoint(), "echo", &c, h)
	eventually(t, "the worker is registered with both brokers", func() bool { return w.Stats().Brokers == 2 })
	return w
}

// Both serve; when one is gone the other goes on, and the first comes back.
func TestWorkerOfTwoBrokers(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		s := startSeveral(t, transport, nil)
		w := s.worker(t, nil, echo)
		served(t, s.clients[0], "echo")
		served(t, s.clients[1], "echo")
		endpoint := s.brokers[0].Endpoint()
		closed(t, "broker", s.brokers[0])
		eventually(t, "one broker is left", func() bool { return w.Stats().Brokers == 1 })
		if got := w.Stats().State; got != omdp.Ready {
			t.Errorf("got state %v, want ready: a broker is left", got)
		}
		served(t, s.clients[1], "echo")
		if transport == "inproc" {
			return // the name may be bound again, but never the context of its first life
		}
		restartBroker(t, endpoint, nil)
		eventually(t, "both serve again", func() bool { return w.Stats().Brokers == 2 })
		served(t, s.clients[0], "echo")
		served(t, s.clients[1], "echo")
	})
}

// alone is an echo that says when it does not run alone.
func alone(t testing.TB, runs *atomic.Int64) omdp.Handler {
	var running atomic.Int32
	return func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		if n := running.Add(1); n != 1 {
			t.Errorf("%d handlers run at a time, want 1", n)
		}
		runs.Add(1)
		for range 10 { // room for others to come in
			runtime.Gosched()
		}
		running.Add(-1)
		return res.End(req.Message())
	}
}

// load calls echo on a client from n goroutines until stop is closed, and
// counts the calls that succeeded; what else comes out is for check.
func (s *several) load(n int, stop <-chan struct{}, wg *sync.WaitGroup, good *atomic.Int64, check func(error)) {
	for i, c := range s.clients {
		for j := range n {
			wg.Go(func() {
				for k := 0; ; k++ {
					select {
					case <-stop:
						return
					default:
					}
					want := fmt.Sprint(i, " ", j, " ", k)
					m, err := c.Call(context.Background(), "echo", want, omdp.WithTimeout(patience))
					switch {
					case err != nil:
						check(err)
					case m.String() != want:
						check(fmt.Errorf("got %q, want %q", m, want))
					default:
						good.Add(1)
					}
				}
			})
		}
	}
}

// A worker of concurrency 1 runs one at a time, whatever its brokers send at
// once, and while one of them comes and goes.
func TestWorkerOfTwoBrokersRunsOne(t *testing.T) {
	t.Parallel()
	s := startSeveral(t, "tcp", nil)
	var runs, good atomic.Int64
	w := s.worker(t, nil, alone(t, &runs))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	s.load(8, stop, &wg, &good, func(err error) {
		if omdp.OutcomeOf(err) == omdp.Executed { // its broker was closed; all else is a fault
			t.Error(err)
		}
	})
	more := func(what string) {
		from := good.Load()
		eventually(t, what, func() bool { return good.Load() >= from+200 })
	}
	more("calls succeed at both")
	endpoint := s.brokers[0].Endpoint()
	closed(t, "broker", s.brokers[0])
	more("calls succeed at the one that is left")
	restartBroker(t, endpoint, nil)
	eventually(t, "both serve again", func() bool { return w.Stats().Brokers == 2 })
	more("calls succeed at both again")
	close(stop)
	wg.Wait()
	if runs.Load() < good.Load() {
		t.Errorf("%d calls succeeded, and %d handlers ran", good.Load(), runs.Load())
	}
}

// A request that waits in the worker is held there: its broker does not take
// it back, however long it takes, and its client may cancel it.
func TestWorkerOfTwoBrokersWaits(t *testing.T) {
	t.Parallel()
	s := startSeveral(t, "tcp", &omdp.BrokerConfig{Liveness: brief})
	h := newHeld()
	w := s.worker(t, &omdp.WorkerConfig{Liveness: brief}, h.handle)
	first := goCall(t, s.clients[0], "echo", "first")
	receive(t, "the first", h.began)
	second := goCall(t, s.clients[1], "echo", "second")
	eventually(t, "the second waits in the worker", func() bool { return w.Stats().Waiting == 1 })

	// As long as this takes, twice the broker's patience with a worker that is silent.
	_, err := s.clients[1].Call(within(t), "nobody", "x", omdp.WithTimeout(2*brief*beat))
	failed(t, err, omdp.ErrTimeout)
	if st := s.brokers[1].Stats(); w.Stats().Waiting != 1 || st.InProgress != 1 || st.Queued != 0 {
		t.Errorf("got %d waiting, %d in progress and %d queued; want 1, 1 and 0", w.Stats().Waiting, st.InProgress, st.Queued)
	}
	h.free <- struct{}{}
	if r := receive(t, "the first answer", first); r != (result{"first", nil}) {
		t.Errorf("got %v, want first", r)
	}
	if got := receive(t, "the second", h.began); got != "second" {
		t.Errorf("got %q, want second", got)
	}

	ctx, cancel := context.WithCancel(within(t))
	canceled := make(chan error, 1)
	go func() {
		_, err := s.clients[0].Call(ctx, "echo", "canceled")
		canceled <- err
	}()
	eventually(t, "the third waits in the worker", func() bool { return w.Stats().Waiting == 1 })
	cancel()
	failed(t, receive(t, "the canceled call's end", canceled), omdp.ErrCanceled)
	eventually(t, "it waits no more, and its broker may send another", func() bool {
		return w.Stats().Waiting == 0 && s.brokers[0].Stats().Services["echo"].Free == 1
	})
	h.free <- struct{}{}
	if r := receive(t, "the second answer", second); r != (result{"second", nil}) {
		t.Errorf("got %v, want second", r)
	}
	h.free <- struct{}{}
	if got := call(t, s.clients[0], "echo", "last"); got != "last" || receive(t, "the last", h.began) != "last" {
		t.Errorf("got %q, want last, and the canceled one never to run", got)
	}
}

// Workers of two brokers come and go under load: no call fails, and none runs twice.
func TestWorkerOfTwoBrokersShutdown(t *testing.T) {
	t.Parallel()
	for _, concurrency := range []int{1, 50} {
		t.Run(fmt.Sprint("concurrency ", concurrency), func(t *testing.T) {
			t.Parallel()
			s := startSeveral(t, "tcp", nil)
			var runs, good atomic.Int64
			h := func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
				runs.Add(1)
				return res.End(req.Message())
			}
			config := &omdp.WorkerConfig{Concurrency: concurrency}
			w := s.worker(t, config, h)
			var wg sync.WaitGroup
			stop := make(chan struct{})
			s.load(8, stop, &wg, &good, func(err error) { t.Errorf("a call failed: %v, %v", err, omdp.OutcomeOf(err)) })
			for i := range 6 {
				from := good.Load()
				eventually(t, "calls succeed", func() bool { return good.Load() >= from+100 })
				old := w
				if i%2 == 0 { // at other times the requests wait in the brokers
					w = s.worker(t, config, h)
				}
				if err := old.Shutdown(within(t)); err != nil {
					t.Errorf("shutdown: %v", err)
				}
				if st := old.Stats(); st.Lost != 0 || st.Dropped != 0 || st.Succeeded != st.Requests {
					t.Errorf("got %+v, want all that was taken to have succeeded", st)
				}
				if i%2 != 0 {
					w = s.worker(t, config, h)
				}
			}
			close(stop)
			wg.Wait()
			if runs.Load() != good.Load() {
				t.Errorf("%d calls succeeded, and %d handlers ran", good.Load(), runs.Load())
			}
		})
	}
}

// The same with one broker: the worker leaves first and finishes what it
// holds, and what comes meanwhile is another's.
func TestWorkerShutdownUnderLoad(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		c := addClient(t, b, nil)
		h := newHeld()
		const n = 40 // in progress at the worker that leaves; as many are queued
		w := addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: n}, h.handle)
		var calls []<-chan result
		for i := range 2 * n {
			calls = append(calls, goCall(t, c, "echo", fmt.Sprint(i)))
		}
		for range n {
			receive(t, "a request in progress", h.began)
		}
		eventually(t, "the others are queued", func() bool { return b.Stats().Queued == n })
		done := make(chan error, 1)
		go func() { done <- w.Shutdown(within(t)) }()
		eventually(t, "it has left", func() bool { return w.Stats().State == omdp.Draining })
		var others atomic.Int64
		addWorker(t, b, "echo", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			others.Add(1)
			return res.End(req.Message())
		})
		eventually(t, "another has taken over", func() bool { return others.Load() > 0 && b.Stats().Queued == 0 })
		close(h.free)
		for i, r := range calls {
			if got := receive(t, "an answer", r); got != (result{fmt.Sprint(i), nil}) {
				t.Errorf("got %v, want %d", got, i)
			}
		}
		if err := receive(t, "the shutdown's end", done); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if got := w.Stats().Succeeded + uint64(others.Load()); got != 2*n {
			t.Errorf("%d handlers ran, want %d", got, 2*n)
		}
	})
}
