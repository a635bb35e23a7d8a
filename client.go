package omdp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zmq-omdp/omdp/internal/zsock"
)

// Defaults of a Client.
const (
	defaultTimeout     = 60 * time.Second // the protocol's own, which is not written into the options
	defaultOutstanding = 10_000
	defaultBuffer      = 8 << 20
	defaultWindow      = 256 << 10
	defaultMaxWindow   = 16 << 20
	defaultSendQueue   = 256 << 20
	defaultAttempts    = 3
	defaultRetries     = 10_000
	defaultConnections = 16
	mostConnections    = 1000
	mostAttempts       = 1000
)

// A ClientConfig configures a Client. nil and the zero value are usable: zero
// means the default, negative means off where that makes sense. It is copied.
type ClientConfig struct {
	// Endpoints are further brokers, in the order of preference after the one
	// given to NewClient. The client keeps a connection to each. New requests go
	// to the first broker that is well: connected, answering and not leaving. So
	// they move on when it is lost, and come back when it is well again.
	Endpoints []string
	// Dialect is what the brokers speak, all of them. Default Auto, which is OMDP. Any
	// other is for brokers of other makes, and has what it has. What can't be carried
	// is refused before anything is sent, as ErrUnsupported: uploads, FailFast and
	// WithKey in all of them, and WithMetadata but in PIGATO. Nothing cancels a
	// request at its worker, and nothing slows a worker down: see BufferLimit. That
	// MDP's and OMDPFinal's brokers are there shows with their first reply: the
	// client is not Ready before, and of several Endpoints it stays with one that
	// answers, also when a more preferred one is back. See docs/dialects.md.
	Dialect Dialect
	// MaxConnections is how many connections to each broker a client of MDP/0.1 or
	// MDP/0.2 may have at a time, 1 to 1,000, default 16. Requests have no ids there,
	// so each has a connection to itself, and more wait for one. They are opened as
	// they are needed and kept. One whose request was given up is replaced, as the
	// answer may still come.
	MaxConnections int

	// Timeout of a request that has neither WithTimeout nor a sooner deadline
	// of its context. Default 60 s; negative: none.
	Timeout time.Duration

	// Heartbeat is the interval of the heartbeats. Default 2.5 s, 10 ms to 24 h.
	Heartbeat time.Duration
	// Liveness is how many of its own intervals the broker may be silent
	// before it counts as lost. Default 3, 2 to 1,000. A broker that does not tell its
	// interval may be silent for so many of the client's, which it has to agree on, and
	// for 15 s at least.
	Liveness int

	// ReconnectMin and ReconnectMax bound the wait before a lost connection is
	// tried again: doubling from the one to the other, with jitter. Defaults
	// 100 ms and 5 s.
	ReconnectMin, ReconnectMax time.Duration

	// MaxAttempts is how often an Idempotent request may be sent, the first time
	// included. Default 3, 1 to 1,000.
	MaxAttempts int
	// RetryBudget is how many attempts besides their first all requests together
	// may make at once, so that a broker in trouble is not asked more than ever;
	// then a request that would be sent again fails. Each new request gives back
	// a fifth of an attempt, and each second a hundredth of the budget. Default
	// 10,000; negative: no limit.
	RetryBudget int

	// MaxBody is the most that the encoded data of a request may have, in
	// bytes; more is ErrTooLarge. Default 64 MiB. What is larger than a frame of
	// the broker (Limits.MaxFrame) goes in pieces, as the worker takes them: to
	// workers of this library, else it is ErrTooLarge. Replies come in pieces as
	// well, one that is over MaxBody is ErrTooLarge at its handler. In other dialects
	// nothing goes in pieces, and a broker that takes less cuts the connection: set
	// MaxBody to what it takes.
	MaxBody int
	// MaxOutstanding is how many requests may be in progress; one more is
	// ErrOverloaded. Default 10,000; negative: no limit.
	MaxOutstanding int
	// SendQueue is how many bytes of requests may wait for a connection or in
	// front of a slow one; more is ErrOverloaded. Default 256 MiB; negative: no limit.
	SendQueue int
	// MaxWindow is to how many bytes Window grows where it, and not the reader, is
	// what a worker waits for, as over a long way; at most 1 GiB. All windows of a
	// client together grow by eight times that at most. The default is 16 MiB, or
	// Window if that is more; negative is Window: it never grows.
	MaxWindow int

	// Window is how many bytes of partials a worker may be ahead of the reader
	// of a call, in bytes. Default 256 KiB, at least 4 KiB. It slows workers of
	// this library; see BufferLimit for others.
	Window int
	// BufferLimit is how many bytes of partials are kept for a call that
	// nobody reads; more ends it with ErrSlowConsumer. Default 8 MiB; negative: no limit.
	BufferLimit int

	// DrainTimeout is how long Run waits for requests in progress after its
	// context ended, and Close for callbacks that still run. Default 10 s;
	// negative: no wait.
	DrainTimeout time.Duration

	// Logger gets changes of state. Default nil: silent.
	Logger *slog.Logger
	// OnState is called with each new state, OnError with what went wrong on
	// the connection: in order, one at a time, never on an I/O goroutine.
	OnState func(State)
	OnError func(error)
}

// A Client sends requests to a broker, or to the best of several. All its
// methods are safe for concurrent use; one Client, and so one connection to
// each broker (in MDP, a few), is enough for a process.
//
// Requests that are made while there is no connection wait for one until their
// timeout. When a connection is lost, the requests that were sent on it end
// with ErrBrokerLost, unless they are Idempotent, and the others wait for the
// next one. What a broker refused because it shuts down was not executed: it is
// sent again if another broker is well or it is Idempotent, and not FailFast.
type Client struct {
	config   ClientConfig
	settings settings
	endpoint string
	wire     *wire
	life     string // one for this object, on all its connections
	log      *slog.Logger
	epoch    time.Time
	hooks    hooks
	runners  callbacks
	counter  atomic.Uint64 // of request ids
	counts   clientCounts
	calls    sync.Pool // of *call for Call, each with its channel

	sessions sync.WaitGroup // of conns, and mind

	stop context.CancelFunc // ends the sessions
	done chan struct{}      // closed when they and mind have ended

	sooner chan struct{} // capacity 1: a timer is due before mind looks

	mu      sync.Mutex
	state   State
	changed chan struct{} // closed and made anew at each change of state
	started bool
	closed  bool
	drained chan struct{} // not nil while Shutdown waits: closed when the table is empty
	table   *pendingTable
	ending  sync.WaitGroup    // requests abort took from the table and is about to end; added to with mu held, before closed
	conns   []*clientConn     // those of one endpoint after those of another, in the order of preference
	serve   func(*clientConn) // begins a session
	refused []refusal         // removed from the table, to be ended
}

// NewClient makes a client of the broker at the given endpoint:
// tcp://host:port, ipc://path or inproc://name. It does no I/O; see Start.
func NewClient(endpoint string, config *ClientConfig) (*Client, error) {
	c := &Client{endpoint: endpoint, life: newLifeID(), epoch: time.Now(), changed: make(chan struct{}), done: make(chan struct{}), sooner: make(chan struct{}, 1)}
	if config != nil {
		c.config = *config
	}
	if err := c.configure(); err != nil {
		return nil, fmt.Errorf("omdp: new client: %w", err)
	}
	s := &c.settings
	endpoints := append([]string{endpoint}, c.config.Endpoints...)
	each := 1
	if !c.wire.numbered {
		each = c.config.MaxConnections
	}
	c.table = newPendingTable(tableConfig{
		wire: c.wire, life: c.life, prefix: newLifeID()[:prefixLen] + "-", beat: s.heartbeat, liveness: s.liveness, window: int64(c.config.Window), maxWindow: int64(c.config.MaxWindow), maxBody: int64(s.maxBody), pack: packBundles,
		links: len(endpoints) * each, each: each, maxAttempts: c.config.MaxAttempts, budget: c.config.RetryBudget, random: rand.Uint64,
		unread: func(p *pending) bool { return p.owner.unread.Load() > 0 },
	})
	c.runners.limit = max(c.config.MaxOutstanding, defaultOutstanding)
	for i := range c.table.links {
		l := &c.table.links[i]
		c.conns = append(c.conns, c.newConn(endpoints[l.group], l))
	}
	return c, nil
}

// prefixLen is how many random characters a client's request ids begin with.
// Workers see them, so they are not those of its life, which tells brokers that
// two connections are the same client's.
const prefixLen = 11

func (c *Client) newConn(endpoint string, known *tableLink) *clientConn {
	s := &c.settings
	cn := &clientConn{Client: c, endpoint: endpoint, known: known}
	cn.session = session{
		endpoint: endpoint,
		epoch:    c.epoch,
		options:  zsock.Options{MaxMsgSize: int64(s.maxBody) + frameOverhead, MaxFrames: c.wire.frames},
		early:    !c.wire.beats,
		dial:     dialZsock,
		backoff:  backoff{min: s.reconnectMin, max: s.reconnectMax},
		random:   rand.Uint64,
		open:     cn.open,
		up:       cn.up,
		deliver:  cn.deliver,
		tick:     cn.tick,
		leave:    func(link) {},
		lost:     cn.lost,
		failed:   cn.failed,
		nudge:    make(chan struct{}, 1),
	}
	return cn
}

func (c *Client) now() instant { return time.Since(c.epoch) }

// frameOverhead is what a reply's JSON, or an envelope, adds to the value in it, in bytes.
const frameOverhead = 2*packMax + 1024

func (c *Client) configure() error {
	f := &c.config
	if err := parseEndpoint(c.endpoint, false); err != nil {
		return fmt.Errorf("endpoint: %w", err)
	}
	f.Endpoints = slices.Clone(f.Endpoints)
	for i, e := range f.Endpoints {
		if err := parseEndpoint(e, false); err != nil {
			return fmt.Errorf("Endpoints[%d]: %w", i, err)
		}
		if e == c.endpoint || slices.Contains(f.Endpoints[:i], e) {
			return fieldError(fmt.Sprintf("Endpoints[%d]", i), strconv.Quote(e), "is given twice")
		}
	}
	if !f.Dialect.valid() {
		return fieldError("Dialect", f.Dialect, "is none")
	}
	c.wire = wires[f.Dialect]
	if f.MaxConnections = orDefault(f.MaxConnections, defaultConnections); f.MaxConnections < 1 || f.MaxConnections > mostConnections {
		return fieldError("MaxConnections", f.MaxConnections, "is not from 1 to 1000")
	}
	c.settings = settings{f.Heartbeat, f.Liveness, f.ReconnectMin, f.ReconnectMax, f.MaxBody, f.DrainTimeout}
	if err := c.settings.fill(); err != nil {
		return err
	}
	f.Timeout = orDefault(f.Timeout, defaultTimeout)
	f.MaxOutstanding = orDefault(f.MaxOutstanding, defaultOutstanding)
	f.SendQueue = orDefault(f.SendQueue, defaultSendQueue)
	f.MaxAttempts = orDefault(f.MaxAttempts, defaultAttempts)
	f.RetryBudget = orDefault(f.RetryBudget, defaultRetries)
	f.Window = orDefault(f.Window, defaultWindow)
	f.MaxWindow = orDefault(f.MaxWindow, max(defaultMaxWindow, f.Window))
	if f.MaxWindow < 0 {
		f.MaxWindow = f.Window
	}
	f.BufferLimit = orDefault(f.BufferLimit, defaultBuffer)
	if f.Window < minWindow || f.Window > maxWindow {
		return fieldError("Window", f.Window, "is not from 4 KiB to 1 GiB")
	}
	if f.MaxWindow < f.Window || f.MaxWindow > maxWindow {
		return fieldError("MaxWindow", f.MaxWindow, "is not from Window to 1 GiB")
	}
	if f.MaxAttempts < 1 || f.MaxAttempts > mostAttempts {
		return fieldError("MaxAttempts", f.MaxAttempts, "is not from 1 to 1000")
	}
	c.log = f.Logger
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Start connects in the background and returns at once: ErrClosed after Close,
// an error when called twice. The broker need not be there yet.
func (c *Client) Start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed || c.drained != nil:
		return fmt.Errorf("omdp: start client: %w", ErrClosed)
	case c.started:
		return errors.New("omdp: start client: already started")
	}
	c.started = true
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.serve = func(cn *clientConn) { c.sessions.Go(func() { cn.session.run(ctx) }) }
	for _, cn := range c.conns {
		if cn.known.started { // others when they are needed
			c.serve(cn)
		}
	}
	c.sessions.Go(func() { c.mind(ctx) })
	go func() {
		c.sessions.Wait()
		close(c.done)
	}()
	return nil
}

// Run starts the client and serves until ctx ends, then shuts it down within
// DrainTimeout. It returns nil then, and ErrClosed if Close or Shutdown ended it.
func (c *Client) Run(ctx context.Context) error {
	if err := c.Start(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-c.done:
		return fmt.Errorf("omdp: run client: %w", ErrClosed)
	}
	bound, cancel := context.WithTimeout(context.Background(), max(c.settings.drain, 0))
	defer cancel()
	_ = c.Shutdown(bound) // what it cut off was told so
	return nil
}

// Shutdown refuses new requests, waits for those in progress until ctx ends,
// and closes the client. The error is nil if none had to be cut off.
func (c *Client) Shutdown(ctx context.Context) error {
	c.mu.Lock()
	if c.closed || !c.started {
		c.mu.Unlock()
		return c.Close()
	}
	if c.drained == nil {
		c.drained = make(chan struct{})
		c.setState(Draining)
		c.checkDrained()
	}
	drained := c.drained
	c.mu.Unlock()
	var err error
	select {
	case <-drained:
	case <-ctx.Done():
		c.mu.Lock()
		if n := c.table.len(); n > 0 {
			err = fmt.Errorf("omdp: shut down client: %d requests cut off: %w", n, context.Cause(ctx))
		}
		c.mu.Unlock()
	}
	return errors.Join(err, c.Close())
}

// Close ends every request in progress with ErrClosed, tells the broker, and
// returns when the library's goroutines have ended. Callbacks that still run
// are waited for, up to DrainTimeout, after which the error says so; a callback
// therefore calls Close on a goroutine of its own. A second Close returns nil.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.setState(Closed)
	started := c.started
	over := c.endAll()
	c.mu.Unlock()
	c.sayCancel(over)
	for _, p := range over {
		c.finish(p.owner, p.conclude(reply{err: &callError{err: ErrClosed, service: p.service, outcome: p.outcome()}}), true)
	}
	if started {
		c.stop()
		<-c.done
	}
	c.ending.Wait() // of all who end requests, only abort is not the session's
	return c.join()
}

// join waits for user code.
func (c *Client) join() error {
	c.runners.close()
	bound := time.NewTimer(max(c.settings.drain, 0))
	defer bound.Stop()
	for _, done := range []<-chan struct{}{c.runners.done(), c.hooks.done()} {
		select {
		case <-done:
			continue
		default:
		}
		select {
		case <-done:
		case <-bound.C:
			return fmt.Errorf("omdp: close client: a callback still runs after %v", max(c.settings.drain, 0))
		}
	}
	return nil
}

// WaitReady returns when the broker was heard on the present connection: ours
// answers at once, as PIGATO's does; a Node broker of OMDP is heard when the first
// request is dispatched, and brokers of other dialects when it is answered.
// It fails with the cause of ctx's end, ErrNotStarted, or ErrClosed.
func (c *Client) WaitReady(ctx context.Context) error {
	for {
		c.mu.Lock()
		state, started, changed := c.state, c.started, c.changed
		draining := c.drained != nil
		c.mu.Unlock()
		switch {
		case state == Closed || draining:
			return fmt.Errorf("omdp: wait for broker: %w", ErrClosed)
		case !started:
			return fmt.Errorf("omdp: wait for broker: %w", ErrNotStarted)
		case state == Ready:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("omdp: wait for broker: %w", context.Cause(ctx))
		}
	}
}

// updateState tells how the client stands with all its brokers. mu is held.
func (c *Client) updateState() {
	s := Connecting
	for _, cn := range c.conns {
		switch k := cn.known; {
		case k.heardOf && !k.leaving:
			c.setState(Ready)
			return
		case k.leaving:
			s = Draining
		case cn.wasLost && s == Connecting:
			s = Lost
		}
	}
	c.setState(s)
}

// setState is called with mu held.
func (c *Client) setState(s State) {
	if c.state == s || c.state == Closed || c.state == Draining && c.drained != nil && s != Closed {
		return
	}
	c.state = s
	close(c.changed)
	c.changed = make(chan struct{})
	f := c.config.OnState
	if f == nil && c.config.Logger == nil {
		return
	}
	c.hooks.add(func() {
		c.log.Info("omdp: client "+s.String(), "endpoint", c.endpoint)
		if f != nil {
			f(s)
		}
	})
}

// report logs what went wrong on the connection and tells OnError.
func (c *Client) report(err error, args ...any) {
	f := c.config.OnError
	if f == nil && c.config.Logger == nil {
		return
	}
	c.hooks.add(func() {
		c.log.Warn(err.Error(), args...)
		if f != nil {
			f(err)
		}
	})
}

// ClientStats are a client's counters since it was made, and its present state.
type ClientStats struct {
	State       State
	Endpoint    string // of the broker that new requests go to; empty while there is none
	Outstanding int    // requests in progress
	Waiting     int    // of these, how many wait for a connection
	Queued      int64  // bytes of requests not yet taken by the network
	Requests    uint64
	Retries     uint64 // attempts besides the first
	Succeeded   uint64 // ended with a final
	Failed      uint64 // ended with an error of any kind
	Partials    uint64 // received
	Late        uint64 // replies to requests that had ended
	Malformed   uint64 // messages from the broker that could not be read
	Connections uint64 // connections made
}

type clientCounts struct {
	requests, succeeded, failed, partials, late, malformed, connections atomic.Uint64
}

// Stats returns the client's counters. It is cheap and may be called at any time.
func (c *Client) Stats() ClientStats {
	n := &c.counts
	s := ClientStats{
		Requests: n.requests.Load(), Succeeded: n.succeeded.Load(), Failed: n.failed.Load(),
		Partials: n.partials.Load(), Late: n.late.Load(), Malformed: n.malformed.Load(), Connections: n.connections.Load(),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.State, s.Outstanding = c.state, c.table.len()
	s.Waiting = s.Outstanding - c.table.onLinks
	s.Retries = c.table.retries
	s.Queued = int64(c.table.unsent)
	for _, cn := range c.conns {
		if cn.link != nil {
			s.Queued += int64(cn.link.Queued())
		}
	}
	if best := c.table.asked(); best != nil {
		s.Endpoint = c.conns[best.index].endpoint
	}
	return s
}
