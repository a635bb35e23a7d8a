package omdp

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
	"github.com/zmq-omdp/omdp/internal/zsock"
)

// BrokerConfig configures a [Broker]. Nil and the zero value are usable: zero
// means the default, negative means off where a field says so. It is copied.
type BrokerConfig struct {
	// Dialect is what peers at the endpoint given to NewBroker speak. Default
	// Auto: MDP/0.1 and MDP/0.2 name themselves, PIGATO's workers show themselves,
	// and all other peers are taken for OMDP's.
	Dialect Dialect
	// Listeners are endpoints besides the one given to NewBroker, such as an
	// inproc:// one for workers in the same process, or one for clients of PIGATO.
	// All serve the same services.
	Listeners []Listener
	// InProgress is how long a worker whose dialect has no heartbeats for requests
	// (all but OMDP) may have one without a partial, before it counts as lost for
	// it; default until the deadline of the request. From 1 ms.
	InProgress time.Duration
	// DropPartials is for clients whose dialect has no partials (MDP/0.1): they
	// are dropped. Default: they are joined to the final, as frames in front of
	// it, up to Limits.MaxFrame bytes; more is an error.
	DropPartials bool
	// Heartbeat is how often each worker hears from the broker, and what peers
	// are told; 10 ms to 24 h, default 2.5 s.
	Heartbeat time.Duration
	// Liveness is after how many of its own heartbeats a silent peer is lost;
	// 2 to 1,000, default 3. Peers that tell no interval are lost after so many of
	// the broker's, which they have to agree on, and not before 15 s.
	Liveness int
	// Timeout is that of requests whose client gives none; default 60 s,
	// negative for none.
	Timeout time.Duration
	// MaxTimeout bounds what a client may ask for; default off.
	MaxTimeout time.Duration
	// DuplicateWindow is for how long the id of a request that ended is
	// remembered, so that the same id again is refused and not executed a second
	// time; default 60 s, negative for not at all. Limits.Finished bounds their number.
	DuplicateWindow time.Duration
	// DrainTimeout is how long Run lets requests in progress finish after its
	// context ended; default 10 s, negative for not at all.
	DrainTimeout time.Duration
	// Dispatch says which worker is given the next request, by service; the
	// entry "" is for services without one. Default LeastRecentlyUsed for all.
	Dispatch map[string]DispatchPolicy
	// Limits bound what peers can make the broker hold.
	Limits Limits
	// Logger is told of changes of state, never of messages; nil is silent.
	Logger *slog.Logger
}

// A Listener is one more endpoint of a broker.
type Listener struct {
	Endpoint string
	// Dialect is what peers speak there; others are refused, but for peers of
	// this library where it is one of OMDP's family. Default Auto.
	Dialect Dialect
}

// Limits bound what a broker holds. Zero fields have the defaults given; a
// limit can't be switched off, but it can be set as high as one likes.
type Limits struct {
	MaxFrame      int64         // bytes of one frame, 8 MiB, at least 16 KiB; a peer that sends more is cut off by libzmq
	ServiceQueue  int           // requests queued at one service, 10,000: ErrOverloaded
	ServiceBytes  int64         // their data, 64 MiB
	TotalQueue    int           // requests queued in all, 100,000
	TotalBytes    int64         // their data, 256 MiB
	Outstanding   int           // live requests of one client, 10,000: ErrOverloaded
	Services      int           // 1,024: ErrOverloaded, or DISCONNECT
	Workers       int           // 4,096: DISCONNECT
	Clients       int           // tracked at once, 10,000: ErrOverloaded
	Concurrency   int           // that a worker may claim, 1,000: clipped
	Outbox        int           // messages that wait for one peer, 100,000: ErrSlowConsumer
	OutboxBytes   int64         // their bytes, 8 MiB, or twice what a client's windows allow if that is more, up to a quarter of TotalOutbox
	TotalOutbox   int64         // bytes that wait for all peers, 256 MiB
	Finished      int           // ids of ended requests remembered for DuplicateWindow, the newest 100,000
	Malformed     int           // malformed messages of one peer within MalformedTime, 10: ignored for IgnoreTime
	MalformedTime time.Duration // 10 s
	IgnoreTime    time.Duration // 60 s; like the other times from 1 ms to 24 h
	Handshake     time.Duration // for a new connection to finish its handshake, 5 s
	Backlog       int           // connections that wait to be accepted, 1,024
}

// A Broker stands between clients and workers: it queues requests until a
// worker is free, spreads them, and passes replies back. It keeps nothing on
// disk. All methods are safe for concurrent use.
type Broker struct {
	endpoints []string
	config    BrokerConfig
	log       *slog.Logger
	epoch     time.Time

	// mu guards the core, and is held while a socket is used: the core sees
	// every event in one order. Exchanges never block.
	mu       sync.Mutex
	core     *dispatcher
	m        message // scratch
	timerAt  instant // when listener 0 wakes for the timers
	closing  bool
	failed   error         // of a socket: it ends the broker
	drained  chan struct{} // closed when draining and nothing is left
	draining bool

	state     sync.Mutex // guards what follows; Start, Shutdown and Close
	started   bool
	closed    bool
	listeners []*listener
	wg        sync.WaitGroup
	done      chan struct{}

	hooks hooks
	told  atomic.Int64
}

// listener is one bound ROUTER, owned by the goroutine that serves it.
type listener struct {
	router *zsock.Router
	bound  string
	in     batch.In
}

// NewBroker makes a broker that is to be bound to endpoint (tcp://host:port,
// ipc://path or inproc://name; tcp://127.0.0.1:* lets the system choose the
// port). It does no I/O; the error names the field that is wrong.
func NewBroker(endpoint string, config *BrokerConfig) (*Broker, error) {
	b := &Broker{done: make(chan struct{}), drained: make(chan struct{}), epoch: time.Now(), timerAt: never}
	if config != nil {
		b.config = *config
		b.config.Dispatch = maps.Clone(config.Dispatch)
	}
	c := &b.config
	c.Listeners = slices.Clone(c.Listeners)
	all := append([]Listener{{Endpoint: endpoint, Dialect: c.Dialect}}, c.Listeners...)
	for i, l := range all {
		err := parseEndpoint(l.Endpoint, true)
		if err == nil && !l.Dialect.valid() {
			err = fmt.Errorf("Dialect: %v is none", l.Dialect)
		}
		if err != nil {
			field := "endpoint"
			if i > 0 {
				field = fmt.Sprintf("Listeners[%d]", i-1)
			}
			return nil, fmt.Errorf("omdp: new broker: %s: %w", field, err)
		}
		b.endpoints = append(b.endpoints, l.Endpoint)
	}
	lim, err := c.fill()
	if err != nil {
		return nil, fmt.Errorf("omdp: new broker: %w", err)
	}
	if b.log = c.Logger; b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	var seed [32]byte
	crand.Read(seed[:])
	b.core = newDispatcher(lim, caps{V: 1, ID: newLifeID(), HB: c.Heartbeat.Milliseconds(), Pack: packBundles, Frame: c.Limits.MaxFrame}, seed, len(b.endpoints))
	b.core.pass(zsock.NewStore(zsock.Options{}, true))
	b.core.policies = c.Dispatch
	for i, l := range all {
		b.core.dialects[i] = l.Dialect
	}
	return b, nil
}

// maxFinished keeps what is remembered under 1 GiB.
const maxFinished = 1 << 25

// minFrame leaves room for an envelope.
const minFrame = 16 << 10

// fill puts the defaults in and checks the ranges.
func (c *BrokerConfig) fill() (limits, error) {
	c.Heartbeat = orDefault(c.Heartbeat, defaultHeartbeat)
	c.Liveness = orDefault(c.Liveness, defaultLiveness)
	c.Timeout = orDefault(c.Timeout, defaultTimeout)
	c.DrainTimeout = orDefault(c.DrainTimeout, defaultDrain)
	c.DuplicateWindow = orDefault(c.DuplicateWindow, time.Minute)
	switch {
	case c.Heartbeat < 10*time.Millisecond || c.Heartbeat > 24*time.Hour:
		return limits{}, fmt.Errorf("Heartbeat: %v is not from 10ms to 24h", c.Heartbeat)
	case c.Liveness < 2 || c.Liveness > 1000:
		return limits{}, fmt.Errorf("Liveness: %d is not from 2 to 1000", c.Liveness)
	}
	if c.InProgress < 0 || c.InProgress > 0 && c.InProgress < time.Millisecond {
		return limits{}, fmt.Errorf("InProgress: %v is under 1ms", c.InProgress)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Dispatch)) {
		if p := c.Dispatch[name]; !p.valid() || len(name) > maxService {
			return limits{}, fmt.Errorf("Dispatch[%.40q]: %v is no policy, or the name has over 255 bytes", name, p)
		}
	}
	l := &c.Limits
	for _, f := range []struct {
		name string
		v    *int
		def  int
	}{
		{"ServiceQueue", &l.ServiceQueue, 10_000}, {"TotalQueue", &l.TotalQueue, 100_000},
		{"Outstanding", &l.Outstanding, 10_000}, {"Services", &l.Services, 1024},
		{"Workers", &l.Workers, 4096}, {"Clients", &l.Clients, 10_000}, {"Concurrency", &l.Concurrency, 1000},
		{"Outbox", &l.Outbox, 100_000}, {"Finished", &l.Finished, 100_000}, {"Malformed", &l.Malformed, 10}, {"Backlog", &l.Backlog, 1024},
	} {
		if *f.v = orDefault(*f.v, f.def); *f.v < 1 {
			return limits{}, fmt.Errorf("Limits.%s: %d is negative", f.name, *f.v)
		}
	}
	for _, f := range []struct {
		name string
		v    *int64
		def  int64
	}{
		{"MaxFrame", &l.MaxFrame, defaultFrame}, {"ServiceBytes", &l.ServiceBytes, 64 << 20}, {"TotalBytes", &l.TotalBytes, 256 << 20},
		{"OutboxBytes", &l.OutboxBytes, 8 << 20}, {"TotalOutbox", &l.TotalOutbox, 256 << 20},
	} {
		if *f.v = orDefault(*f.v, f.def); *f.v < 1 {
			return limits{}, fmt.Errorf("Limits.%s: %d is negative", f.name, *f.v)
		}
	}
	for _, f := range []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{
		{"MalformedTime", &l.MalformedTime, 10 * time.Second}, {"IgnoreTime", &l.IgnoreTime, time.Minute}, {"Handshake", &l.Handshake, 5 * time.Second},
	} {
		if *f.v = orDefault(*f.v, f.def); *f.v < time.Millisecond || *f.v > 24*time.Hour {
			return limits{}, fmt.Errorf("Limits.%s: %v is not from 1ms to 24h", f.name, *f.v)
		}
	}
	if l.Backlog > math.MaxInt32 {
		return limits{}, fmt.Errorf("Limits.Backlog: %d is over %d", l.Backlog, math.MaxInt32)
	}
	if l.Finished > maxFinished {
		return limits{}, fmt.Errorf("Limits.Finished: %d is over %d", l.Finished, maxFinished)
	}
	if l.MaxFrame < minFrame {
		return limits{}, fmt.Errorf("Limits.MaxFrame: %d is under 16 KiB", l.MaxFrame)
	}
	return limits{
		serviceQueue: l.ServiceQueue, totalQueue: l.TotalQueue, serviceBytes: l.ServiceBytes, totalBytes: l.TotalBytes,
		outstanding: l.Outstanding, services: l.Services, workers: l.Workers, clients: l.Clients, concurrency: l.Concurrency,
		outbox: l.Outbox, outboxBytes: l.OutboxBytes, totalOutbox: l.TotalOutbox, frame: l.MaxFrame,
		malformed: l.Malformed, malformedIn: l.MalformedTime, ignoreFor: l.IgnoreTime, finished: l.Finished, window: max(c.DuplicateWindow, 0),
		defaultTimeout: c.Timeout, maxTimeout: max(c.MaxTimeout, 0), heartbeat: c.Heartbeat, liveness: c.Liveness,
		inProgress: c.InProgress, dropPartials: c.DropPartials,
	}, nil
}

// Start binds the endpoints and serves. When it returns nil, peers can be
// served. It fails if an endpoint is taken or can't be bound, and with
// ErrClosed after Close; a broker whose Start failed can be started again.
func (b *Broker) Start() error {
	b.state.Lock()
	defer b.state.Unlock()
	switch {
	case b.closed:
		return fmt.Errorf("omdp: start broker: %w", ErrClosed)
	case b.started:
		return errors.New("omdp: start broker: already started")
	}
	for _, e := range b.endpoints {
		l, err := b.listen(e)
		if err != nil {
			for _, l := range b.listeners {
				l.router.Close()
			}
			b.listeners = nil
			return fmt.Errorf("omdp: start broker: bind %s: %w", e, err)
		}
		b.listeners = append(b.listeners, l)
	}
	if n, ok := zsock.FileLimit(); ok && n < uint64(b.config.Limits.Clients+b.config.Limits.Workers) {
		b.log.Warn("omdp: the limit of open files is lower than the limits of clients and workers", "files", n)
	}
	b.started = true
	for i := range b.listeners {
		b.wg.Go(func() { b.serve(i) })
	}
	go func() {
		b.wg.Wait()
		b.mu.Lock()
		b.core.release()
		for _, l := range b.listeners {
			l.in.Invalidate()
		}
		b.mu.Unlock()
		close(b.done)
	}()
	return nil
}

func (b *Broker) listen(endpoint string) (*listener, error) {
	l := &b.config.Limits
	r, err := zsock.NewRouter(zsock.Options{MaxMsgSize: l.MaxFrame, MaxFrames: maxFrames + 1, HandshakeTimeout: l.Handshake, Backlog: l.Backlog, Store: b.core.store})
	if err != nil {
		return nil, err
	}
	bound, err := r.Bind(endpoint)
	if err != nil {
		r.Close()
		return nil, err
	}
	return &listener{router: r, bound: bound}, nil
}

// serve is the loop of listener i: receive, decide, flush, wait. Listener 0
// also minds the timers.
func (b *Broker) serve(i int) {
	l := b.listeners[i]
	defer l.router.Close()
	for {
		again, closing := b.turn(i)
		if closing {
			b.farewell(i)
			return
		}
		if again {
			continue
		}
		var wait time.Time
		if i == 0 {
			b.mu.Lock()
			b.timerAt = b.core.deadline()
			if b.timerAt != never {
				wait = b.epoch.Add(b.timerAt)
			}
			b.mu.Unlock()
		}
		if err := l.router.Wait(wait); err != nil {
			b.mu.Lock()
			b.fail(l, err)
			b.mu.Unlock()
			return
		}
	}
}

// turn does one exchange on listener i and lets the core decide on what came.
func (b *Broker) turn(i int) (again, closing bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.listeners[i]
	now := time.Since(b.epoch)
	b.core.expire(now)
	more, err := l.router.Exchange(b.core.take(i), &l.in)
	b.core.settleSent(now, i)
	if err != nil {
		b.fail(l, err)
		return false, true
	}
	for f := l.in.Next(); f != nil; f = l.in.Next() {
		if b.core.read(i, f[0], f[1:], &b.m) {
			b.core.receive(now, i, f[0], &b.m)
		} else {
			b.core.malformed(now, i, f[0], b.m.worker)
		}
	}
	if !more {
		b.core.drained(now, i)
	}
	b.report()
	for j, o := range b.listeners {
		if j != i && b.core.pending(j) {
			o.router.Wake()
		}
	}
	if i != 0 && b.core.deadline() < b.timerAt {
		b.timerAt = never // it sets it again
		b.listeners[0].router.Wake()
	}
	if b.draining && b.core.idle() {
		b.draining = false
		close(b.drained)
	}
	return more || !l.in.Empty() || b.core.pending(i), b.closing
}

// fail ends the broker for an error of a socket: without one of its listeners
// it would serve some peers and let others wait for ever. mu is held.
func (b *Broker) fail(l *listener, err error) {
	if b.failed != nil || b.closing {
		return
	}
	b.failed = fmt.Errorf("omdp: run broker: %s: %w", l.bound, err)
	b.closing = true
	b.core.shut(time.Since(b.epoch))
	b.tell(func() { b.log.Error("omdp: the broker's socket failed", "endpoint", l.bound, "error", err) })
	b.wakeAll()
}

// lastRead is how long the sockets stay open after the last words. A peer's
// libzmq drops what it has received and not handed out when it finds the
// connection cut (ZMQ_IMMEDIATE): finals and DISCONNECTs would be lost.
const lastRead = 50 * time.Millisecond

// farewell sends what is left to say, as far as there is room for it, and
// gives peers the time to read it. Who comes meanwhile is told to go elsewhere.
func (b *Broker) farewell(i int) {
	l := b.listeners[i]
	b.mu.Lock()
	alone := len(b.core.peers[i]) == 0 || strings.HasPrefix(l.bound, "inproc:") // there nothing is dropped
	b.mu.Unlock()
	b.turn(i)
	for end := time.Now().Add(lastRead); !alone && time.Now().Before(end); {
		if again, _ := b.turn(i); !again && l.router.Wait(end) != nil {
			return
		}
	}
}

// Endpoint is what was really bound for the endpoint given to NewBroker, with
// the port that the system chose; before Start, what was given.
func (b *Broker) Endpoint() string { return b.Endpoints()[0] }

// Endpoints is what was really bound, the Listeners included, in their order.
func (b *Broker) Endpoints() []string {
	b.state.Lock()
	defer b.state.Unlock()
	all := append([]string(nil), b.endpoints...)
	for i, l := range b.listeners {
		all[i] = l.bound
	}
	return all
}

// Run starts the broker, serves until ctx ends, and shuts it down within
// DrainTimeout. It returns nil after that, the error of Start, or that of a
// socket which failed and so ended the broker.
func (b *Broker) Run(ctx context.Context) error {
	if err := b.Start(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-b.done:
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(b.config.DrainTimeout, 0))
	defer cancel()
	b.Shutdown(drain)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// Shutdown refuses new requests, tells peers to go elsewhere, waits until
// those that it holds have ended or ctx does, and closes. Requests that were
// still queued end as not executed. It returns nil, or the cause of ctx if not
// everything could end in time; the broker is closed in any case.
func (b *Broker) Shutdown(ctx context.Context) error {
	b.state.Lock()
	running := b.started && !b.closed
	b.state.Unlock()
	if !running {
		return b.Close()
	}
	b.mu.Lock()
	first := !b.core.draining
	if first {
		b.core.drain(time.Since(b.epoch))
		b.draining = true
	}
	b.mu.Unlock()
	b.wakeAll()
	var err error
	select {
	case <-b.drained:
	case <-b.done:
	case <-ctx.Done():
		err = fmt.Errorf("omdp: shut broker down: %w", context.Cause(ctx))
	}
	b.Close()
	return err
}

// Close ends the broker at once: requests end at their clients as ErrBrokerLost,
// those still queued as not executed. Peers over tcp and ipc have 50 ms to read
// that. A second Close returns nil.
func (b *Broker) Close() error {
	b.state.Lock()
	started := b.started
	b.closed = true
	b.state.Unlock()
	if !started {
		return nil
	}
	b.mu.Lock()
	if !b.closing {
		b.closing = true
		b.core.shut(time.Since(b.epoch))
	}
	b.mu.Unlock()
	b.wakeAll()
	<-b.done
	select {
	case <-b.hooks.done():
	case <-time.After(max(b.config.DrainTimeout, 0)):
		return errors.New("omdp: close broker: the Logger still runs")
	}
	return nil
}

func (b *Broker) wakeAll() {
	for _, l := range b.listeners {
		l.router.Wake()
	}
}

// Stats returns a snapshot. It costs time in proportion to the number of
// services and of clients that wait, while the broker stands still.
func (b *Broker) Stats() BrokerStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.core.snapshot(time.Since(b.epoch))
}

// maxTold bounds the records that wait for a Logger which does not keep up:
// peers make them.
const maxTold = 1000

// tell logs, on a goroutine of its own: a Logger is the user's code. mu is held.
func (b *Broker) tell(f func()) {
	if b.config.Logger == nil {
		return
	}
	if b.told.Add(1) > maxTold {
		b.told.Add(-1)
		return
	}
	b.hooks.add(func() {
		defer b.told.Add(-1)
		f()
	})
}

// report logs the core's notes.
func (b *Broker) report() {
	for _, n := range b.core.notes {
		b.tell(func() { b.record(n) })
	}
	clear(b.core.notes)
	b.core.notes = b.core.notes[:0]
}

func (b *Broker) record(n note) {
	switch n.kind {
	case noteWorkerReady:
		b.log.Info("omdp: worker registered", "service", n.service)
	case noteWorkerGone:
		b.log.Info("omdp: worker gone", "service", n.service, "reason", n.reason, "held", n.n)
	case noteClientGone:
		b.log.Info("omdp: client gone", "reason", n.reason)
	case noteMalformed:
		if n.reason != "" {
			b.log.Warn("omdp: message of another dialect than is spoken there; further ones of this peer are only counted", "dialect", n.reason)
			break
		}
		b.log.Warn("omdp: malformed message; further ones of this peer are only counted")
	case noteIgnored:
		b.log.Warn("omdp: peer ignored for its malformed messages", "for", b.config.Limits.IgnoreTime)
	case noteSlow:
		b.log.Warn("omdp: peer does not read; its requests ended", "service", n.service)
	case noteClipped:
		b.log.Warn("omdp: worker's concurrency clipped", "service", n.service, "to", b.config.Limits.Concurrency)
	case noteForged:
		b.log.Warn("omdp: worker disconnected: it answered what it does not hold", "service", n.service)
	case noteJump:
		b.log.Warn("omdp: the clock jumped; liveness starts anew")
	}
}
