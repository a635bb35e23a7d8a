package omdp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// Clients of several brokers, on real sockets, and restarts under load.

// runs counts how often the handler ran for each request's data, and answers with it.
type runs struct {
	mu sync.Mutex
	n  map[string]int
}

func (r *runs) handle(_ context.Context, req *omdp.Request, res *omdp.Response) error {
	r.mu.Lock()
	r.n[string(req.Bytes())]++
	r.mu.Unlock()
	return res.End(req.Message())
}

func (r *runs) of(data string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n[data]
}

// proxy carries connections to a broker, until they are cut.
type proxy struct {
	endpoint string
	mu       sync.Mutex
	conns    []net.Conn
}

func newProxy(t *testing.T, endpoint string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{endpoint: "tcp://" + l.Addr().String()}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		p.cut()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", strings.TrimPrefix(endpoint, "tcp://"))
			if err != nil {
				in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			pipe := func(to, from net.Conn) {
				_, _ = io.Copy(to, from) // ends when either is cut
				to.Close()
			}
			wg.Go(func() { pipe(in, out) })
			wg.Go(func() { pipe(out, in) })
		}
	})
	return p
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// A client prefers its first broker, moves on when that is gone, and comes back.
func TestFailoverAndBack(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"tcp", "ipc"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			a, b := startBroker(t, newEndpoint(t, transport), nil), startBroker(t, newEndpoint(t, transport), nil)
			first, second := a.Endpoint(), b.Endpoint()
			addWorker(t, a, "echo", nil, echo)
			addWorker(t, b, "echo", nil, echo)
			c := startClient(t, first, &omdp.ClientConfig{Endpoints: []string{second}})
			at := func(endpoint string) func() bool {
				return func() bool { s := c.Stats(); return s.State == omdp.Ready && s.Endpoint == endpoint }
			}
			eventually(t, "the first broker is preferred", at(first))
			served(t, c, "echo")
			closed(t, "broker", a)
			eventually(t, "the second takes over", at(second))
			served(t, c, "echo")
			if s := b.Stats(); s.Completed == 0 {
				t.Error("the second broker completed nothing")
			}
			a = restartBroker(t, first, nil)
			eventually(t, "the first is preferred again", at(first))
			addWorker(t, a, "echo", nil, echo)
			served(t, c, "echo")
			if s := a.Stats(); s.Completed != 1 {
				t.Errorf("the first broker completed %d, want 1", s.Completed)
			}
		})
	}
}

// An idempotent call survives its broker; one that is not ends, and its
// outcome says that it may have been executed.
func TestFailoverInProgress(t *testing.T) {
	t.Parallel()
	a, b := startBroker(t, newEndpoint(t, "tcp"), nil), startBroker(t, newEndpoint(t, "tcp"), nil)
	h := newHeld()
	addWorker(t, a, "echo", &omdp.WorkerConfig{Concurrency: 2}, h.handle)
	addWorker(t, b, "echo", nil, echo)
	c := startClient(t, a.Endpoint(), &omdp.ClientConfig{Endpoints: []string{b.Endpoint()}})
	eventually(t, "the first broker is preferred", func() bool { return c.Stats().Endpoint == a.Endpoint() })
	once := goCall(t, c, "echo", "once")
	again := goCall(t, c, "echo", "again", omdp.Idempotent())
	receive(t, "the first request", h.began)
	receive(t, "the second request", h.began)
	closed(t, "broker", a)
	failed(t, receive(t, "the end of the one", once).err, omdp.ErrBrokerLost, omdp.MayHaveExecuted)
	if r := receive(t, "the end of the other", again); r != (result{"again", nil}) {
		t.Errorf("got %v, want again", r)
	}
	if s := c.Stats(); s.Retries != 1 {
		t.Errorf("%d retries, want 1", s.Retries)
	}
}

// A connection is cut while a request is in progress; the broker lives. The
// request is not executed a second time: its attempt answers to the new connection.
func TestAdoptedAfterCut(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "tcp"), nil)
	p := newProxy(t, b.Endpoint())
	h := newHeld()
	// Its heartbeats for the request would find the former connection gone.
	addWorker(t, b, "echo", &omdp.WorkerConfig{Heartbeat: time.Minute}, h.handle)
	c := startClient(t, p.endpoint, nil)
	ready(t, c)
	running := goCall(t, c, "echo", "running", omdp.Idempotent())
	receive(t, "the request", h.began)
	queued := goCall(t, c, "echo", "queued", omdp.Idempotent())
	eventually(t, "both are there", func() bool { return b.Stats().Queued == 1 })
	p.cut()
	eventually(t, "both are taken over", func() bool { return b.Stats().Adopted == 2 })
	close(h.free)
	for want, r := range map[string]<-chan result{"running": running, "queued": queued} {
		if got := receive(t, "the end of "+want, r); got != (result{want, nil}) {
			t.Errorf("got %v, want %s", got, want)
		}
	}
	if s := b.Stats(); s.Dispatched != 2 || s.Completed != 2 || s.Accepted != 2 {
		t.Errorf("%d accepted, %d dispatched, %d completed; want 2 each", s.Accepted, s.Dispatched, s.Completed)
	}
}

// A rolling restart of two brokers and four workers under load loses no call
// of an idempotent client, and executes none of another's twice.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	endpoints := []string{knownEndpoint(t, "tcp"), knownEndpoint(t, "tcp")}
	var brokers [2]*omdp.Broker
	for i, e := range endpoints {
		brokers[i] = startBroker(t, e, nil)
	}
	r := &runs{n: map[string]int{}}
	worker := func() *omdp.Worker {
		w := startWorker(t, endpoints[0], "echo", &omdp.WorkerConfig{Concurrency: 4, Endpoints: endpoints[1:]}, r.handle)
		ready(t, w)
		return w
	}
	var workers [4]*omdp.Worker
	for i := range workers {
		workers[i] = worker()
	}
	stop := make(chan struct{})
	var load sync.WaitGroup
	var calls [2]atomic.Int64
	lost := make(chan error, 10_000)
	for k, opts := range [][]omdp.CallOption{{omdp.Idempotent()}, nil} {
		es := slices.Clone(endpoints)
		for i := range 4 {
			slices.Reverse(es) // half of the clients prefer the second broker
			c := startClient(t, es[0], &omdp.ClientConfig{Endpoints: es[1:]})
			ready(t, c)
			load.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					data := fmt.Sprint(k, "-", i, "-", n)
					m, err := c.Call(within(t), "echo", data, opts...)
					ran := r.of(data)
					calls[k].Add(1)
					switch {
					case err == nil && (m.String() != data || ran < 1):
						lost <- fmt.Errorf("%s: got %q, it ran %d times", data, m, ran)
					case err != nil && k == 0:
						lost <- fmt.Errorf("%s, idempotent: %w", data, err)
					case err != nil && !errors.Is(err, omdp.ErrBrokerLost) && !errors.Is(err, omdp.ErrWorkerLost):
						lost <- fmt.Errorf("%s: %w", data, err)
					case k == 1 && ran > 1, err != nil && ran > 0 && omdp.OutcomeOf(err) == omdp.NotExecuted:
						lost <- fmt.Errorf("%s: %w; it ran %d times", data, err, ran)
					}
				}
			})
		}
	}
	flows := func(what string) {
		t.Helper()
		idempotent, plain := calls[0].Load(), calls[1].Load()
		eventually(t, "calls go on after "+what, func() bool {
			return calls[0].Load() > idempotent+100 && calls[1].Load() > plain+100
		})
	}
	for i := range brokers {
		flows("the start")
		if err := brokers[i].Shutdown(within(t)); err != nil {
			t.Errorf("broker %d: %v", i, err)
		}
		flows("the end of a broker")
		brokers[i] = restartBroker(t, endpoints[i], nil)
		for _, w := range workers {
			eventually(t, "all workers are back", func() bool { return w.Stats().Brokers == 2 })
		}
	}
	for i := range workers {
		if err := workers[i].Shutdown(within(t)); err != nil {
			t.Errorf("worker %d: %v", i, err)
		}
		flows("the end of a worker")
		workers[i] = worker()
	}
	close(stop)
	load.Wait()
	close(lost)
	for err := range lost {
		t.Error(err)
	}
	t.Logf("%d calls of idempotent clients, %d of others", calls[0].Load(), calls[1].Load())
}
