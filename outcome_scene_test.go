package omdp_test

import (
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// What the walk of outcome_test.go plays on.

// walkData is what the call under test sends; everything else is answered at once.
const walkData = "walk"

// callWay is one of the ways to call. What it returns gets the call's end.
type callWay struct {
	name string
	call func(s *scene, service string, data any, opts []omdp.CallOption) <-chan error
}

var callWays = []callWay{
	{"call", func(s *scene, service string, data any, opts []omdp.CallOption) <-chan error {
		end := make(chan error, 8)
		ctx, c := s.ctx, s.c
		go func() {
			_, err := c.Call(ctx, service, data, opts...)
			end <- err
		}()
		return end
	}},
	{"request", func(s *scene, service string, data any, opts []omdp.CallOption) <-chan error {
		end := make(chan error, 8)
		read := s.read
		err := s.c.Request(s.ctx, service, data,
			func(omdp.Message) {
				if read != nil {
					<-read
				}
			},
			func(_ omdp.Message, err error) { end <- err }, opts...)
		if err != nil {
			end <- err
		}
		return end
	}},
	{"stream", func(s *scene, service string, data any, opts []omdp.CallOption) <-chan error {
		end := make(chan error, 8)
		stream, read := s.c.RequestStream(s.ctx, service, data, opts...), s.read
		s.stream = stream
		go func() {
			if read != nil {
				<-read
			}
			_, err := io.Copy(io.Discard, stream)
			end <- err
		}()
		return end
	}},
}

// scene is a broker, a client, and workers whose handler records what it does.
// A path of the walk sets it and lets something go wrong on it.
type scene struct {
	t        *testing.T
	way      callWay
	ctx      context.Context // of the call
	endpoint string          // the client's
	b        *omdp.Broker    // nil: none of ours is up
	c        *omdp.Client    // nil: it is closed
	workers  []*omdp.Worker
	raw      []*rawPeer // workers by hand
	stream   *omdp.Stream
	read     chan struct{} // not nil: nobody reads the reply until it is closed
	ends     <-chan error  // of the call
	foreign  bool          // the broker is one by hand: nothing of ours can run

	started      chan struct{} // one for each handler of the walk
	free         chan struct{} // closed when the path is over: handlers that stay end
	began, ended atomic.Int64
	restore      []func() // what is to be undone so that honest peers are served
}

func newScene(t *testing.T, way callWay) *scene {
	return &scene{t: t, way: way, ctx: within(t), started: make(chan struct{}, 100), free: make(chan struct{})}
}

// handler records what do does with the call under test.
func (s *scene) handler(do omdp.Handler) omdp.Handler {
	return func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
		if string(req.Bytes()) != walkData {
			return res.End(req.Message())
		}
		s.began.Add(1)
		defer s.ended.Add(1)
		s.started <- struct{}{}
		return do(ctx, req, res)
	}
}

// stay is a handler that does not heed its context.
func (s *scene) stay(_ context.Context, req *omdp.Request, res *omdp.Response) error {
	<-s.free
	return res.End(req.Message())
}

// serve starts a broker.
func (s *scene) serve(transport string, config *omdp.BrokerConfig) {
	s.t.Helper()
	s.b = startBroker(s.t, newEndpoint(s.t, transport), config)
	s.endpoint = s.b.Endpoint()
}

// work starts a worker of the service walk, at the broker or what stands before it.
func (s *scene) work(endpoint string, config *omdp.WorkerConfig, do omdp.Handler) *omdp.Worker {
	s.t.Helper()
	w := startWorker(s.t, endpoint, "walk", config, s.handler(do))
	s.workers = append(s.workers, w)
	ready(s.t, w)
	return w
}

// rawWorker registers a worker by hand.
func (s *scene) rawWorker(hello string) *rawPeer {
	s.t.Helper()
	p := dialRaw(s.t, s.b.Endpoint())
	s.raw = append(s.raw, p)
	p.say(hello)
	eventually(s.t, "the worker by hand is registered", func() bool { return s.b.Stats().Workers == len(s.raw) })
	return p
}

// takes gives token and rid of the next request that a worker by hand gets.
func (s *scene) takes(p *rawPeer) (token, rid string) {
	s.t.Helper()
	m := p.next(s.t)
	for m[1] != "2" {
		m = p.next(s.t)
	}
	return m[2], m[3]
}

// connect starts the client.
func (s *scene) connect(config *omdp.ClientConfig) {
	s.t.Helper()
	s.c = startClient(s.t, s.endpoint, config)
	if s.b != nil {
		ready(s.t, s.c)
	}
}

// call makes the call under test, in this scene's way.
func (s *scene) call(opts ...omdp.CallOption) { s.callWith("walk", walkData, opts...) }

func (s *scene) callWith(service string, data any, opts ...omdp.CallOption) {
	s.ends = s.way.call(s, service, data, opts)
}

// end is how it ended.
func (s *scene) end() error {
	s.t.Helper()
	return receive(s.t, "the call's end", s.ends)
}

// Where the call is.
func (s *scene) waits() {
	s.t.Helper()
	eventually(s.t, "it waits for a connection", func() bool { return s.c.Stats().Waiting == 1 })
}

func (s *scene) isQueued() {
	s.t.Helper()
	eventually(s.t, "it is queued", func() bool { return s.b.Stats().Queued == 1 })
}

func (s *scene) runs() {
	s.t.Helper()
	receive(s.t, "a handler", s.started)
}

// occupied holds a place at the client: a call that nobody serves.
func (s *scene) occupied() {
	other := s.c.RequestStream(s.t.Context(), "nobody", nil)
	s.restore = append(s.restore, func() { other.Close() })
}

// ender makes the call's context one that the path ends.
func (s *scene) ender() context.CancelFunc {
	ctx, cancel := context.WithCancel(s.t.Context())
	s.ctx = ctx
	s.t.Cleanup(cancel)
	return cancel
}

// leave closes the client.
func (s *scene) leave() {
	closed(s.t, "client", s.c)
	s.c = nil
}

// quiet ends what is still going on, and waits until it has ended: whatever was
// queued or on its way anywhere has run, or never will. An honest call on the
// same connection, to the same service, is behind everything.
func (s *scene) quiet() {
	s.t.Helper()
	close(s.free)
	for _, f := range s.restore {
		f()
	}
	if s.foreign {
		return
	}
	for _, p := range s.raw {
		p.close()
	}
	if s.b == nil {
		s.b = restartBroker(s.t, s.endpoint, nil)
	}
	s.work(s.b.Endpoint(), &omdp.WorkerConfig{Concurrency: 10}, echo)
	live := func() (n int) {
		for _, w := range s.workers {
			if st := w.Stats().State; st != omdp.Closed && st != omdp.Draining {
				n++
			}
		}
		return n
	}
	eventually(s.t, "the workers of ours are there, and no other", func() bool {
		v := s.b.Stats().Services["walk"]
		return v.Workers == live() && v.InProgress == 0
	})
	c := s.c
	if c == nil {
		c = startClient(s.t, s.b.Endpoint(), nil)
	}
	served(s.t, c, "walk")
	eventually(s.t, "nothing is held", func() bool {
		v := s.b.Stats()
		n := v.Queued + v.InProgress
		for _, w := range s.workers {
			n += w.Stats().Handlers
		}
		return n == 0
	})
	select {
	case err := <-s.ends:
		s.t.Errorf("the call ended a second time: %v", err)
	default:
	}
}

// between is a TCP proxy that cuts what goes through it, or holds it back.
type between struct {
	endpoint string
	to       string // host:port
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	moved  sync.Cond
	conns  []net.Conn
	held   [2]bool // back from the dialler, back from the dialled
	closed bool
}

const (
	fromDialler = iota
	fromDialled
)

func newBetween(t *testing.T, endpoint string) *between {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &between{endpoint: "tcp://" + l.Addr().String(), to: strings.TrimPrefix(endpoint, "tcp://"), listener: l}
	p.moved.L = &p.mu
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.moved.Broadcast()
		p.mu.Unlock()
		l.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *between) accept() {
	for {
		a, err := p.listener.Accept()
		if err != nil {
			return
		}
		b, err := stuckDialer.Dial("tcp", p.to)
		if err != nil {
			a.Close()
			continue
		}
		p.mu.Lock()
		if p.closed {
			a.Close()
			b.Close()
		}
		p.conns = append(p.conns, a, b)
		p.mu.Unlock()
		p.wg.Go(func() { p.copy(b, a, fromDialler) })
		p.wg.Go(func() { p.copy(a, b, fromDialled) })
	}
}

func (p *between) copy(to, from net.Conn, way int) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.held[way] && !p.closed {
			p.moved.Wait()
		}
		p.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// hold keeps back what comes from there, until release.
func (p *between) hold(ways ...int) { p.set(ways, true) }

func (p *between) release() { p.set([]int{fromDialler, fromDialled}, false) }

func (p *between) set(ways []int, held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range ways {
		p.held[w] = held
	}
	p.moved.Broadcast()
}

// cut ends all connections that go through.
func (p *between) cut() {
	p.mu.Lock()
	conns := slices.Clone(p.conns)
	p.conns = nil
	p.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}
