package omdp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxConcurrency   = 1000
	defaultChunkSize = 64 << 10
)

// A WorkerConfig configures a Worker. nil and the zero value are usable: zero
// means the default, negative means off where that makes sense. It is copied.
type WorkerConfig struct {
	// Endpoints are further brokers, besides the one given to NewWorker. The
	// worker serves all of them at the same time, each over a connection of its
	// own: what is lost with one does not touch the others. Default none.
	Endpoints []string
	// Dialect is what the brokers speak, all of them. Default Auto, which is OMDP. Any
	// other is for brokers of other makes, and has what it has: no request is
	// cancelled, none comes in pieces, and metadata comes with PIGATO alone. See
	// docs/dialects.md, and [Response] and [Request.ID] for what differs there.
	Dialect Dialect
	// Concurrency is how many requests the worker takes at a time: 1 to 1,000,
	// default 1, as the protocol assumes. More is told to the broker, to PIGATO's as
	// well; other brokers of other makes go on with one. Of several brokers each may use all of it, and
	// the total holds all the same: requests over it wait in the worker, in the
	// order of arrival, for as long as their clients do. SetConcurrency changes it.
	Concurrency int
	// ChunkSize is the most that one partial of Response.Write carries, in
	// bytes. Default 64 KiB; 1 to MaxBody.
	ChunkSize int

	// Heartbeat is the interval of the heartbeats, the worker's own and those of
	// each request in progress. Default 2.5 s, 10 ms to 24 h.
	Heartbeat time.Duration
	// Liveness is how many of its own intervals the broker may be silent
	// before it counts as lost. Default 3, 2 to 1,000. A broker that does not tell its
	// interval may be silent for so many of the worker's, which it has to agree on, and
	// for 15 s at least.
	Liveness int

	// ReconnectMin and ReconnectMax bound the wait before a lost connection is
	// tried again: doubling from the one to the other, with jitter. Defaults
	// 100 ms and 5 s.
	ReconnectMin, ReconnectMax time.Duration

	// MaxBody is the most that one encoded partial or final may have, in bytes;
	// more is ErrTooLarge, here or, of requests, at the client. Default 64 MiB. What
	// is larger than a frame of the broker (Limits.MaxFrame) goes in pieces; for
	// clients that are not of this library it is ErrTooLarge. In other dialects
	// nothing does, and a broker that takes less cuts the connection: set MaxBody to
	// what it takes.
	MaxBody int
	// TotalBody is how many bytes of requests that come in pieces the worker
	// joins at a time, those that its handlers have included: more wait at their
	// clients. Default four times MaxBody, and not less than it.
	TotalBody int
	// Window is how many bytes of an upload may wait for its handler to read
	// them. Default 256 KiB, at least 4 KiB. It grows to MaxWindow while it is what
	// the client waits for: default 16 MiB, or Window if that is more; negative is Window.
	Window, MaxWindow int
	// UploadTimeout is how long a client may send nothing of an upload, or of a
	// request in pieces, while there is room for it: then the request ends with
	// ErrProtocol. Default 60 s; negative: no limit.
	UploadTimeout time.Duration

	// DrainTimeout is how long Run waits for requests in progress after its
	// context ended, and Close for handlers that still run. Default 10 s;
	// negative: no wait.
	DrainTimeout time.Duration

	// StuckAfter is how long a handler may go on after its ctx ended. One that
	// does so longer is reported, to Logger and OnError, and replaced: its
	// response ends with the cause of ctx's end, and its place is free for
	// another request. At most Concurrency handlers are replaced at a time; more
	// are reported and keep their places. Default 10 s; negative: off.
	StuckAfter time.Duration

	// Logger gets changes of state and the stacks of panics. Default nil: silent.
	Logger *slog.Logger
	// OnState is called with each new state, of all connections together (see
	// [Worker]), OnError with what went wrong on a connection, with panics of
	// handlers and with those that are stuck: in order, one at a time, never on an I/O goroutine.
	OnState func(State)
	OnError func(error)
}

// A Worker serves one service: it registers with a broker, runs its Handler for
// the requests that it is given, and registers anew whenever the connection or
// the broker was lost. All its methods are safe for concurrent use.
//
// It may serve several brokers (WorkerConfig.Endpoints). It is Ready while it is
// registered with any of them, Draining if all of those are leaving, and Lost
// when it is registered with none any more.
type Worker struct {
	config    WorkerConfig
	settings  settings
	conns     []*workerConn // one for each broker; never changes
	service   string
	wire      *wire
	self      caps
	chunk     int // bytes of a raw partial
	textChunk int // the same for JSON, whose escapes take up to 6 bytes for one
	hooks     hooks
	runners   runners
	handler   Handler // fixed by Start

	partials atomic.Uint64
	bytes    atomic.Uint64

	stop context.CancelFunc // ends the sessions
	done chan struct{}      // closed when all sessions have ended
	end  chan struct{}      // closed when Close was called

	mu       sync.Mutex // comes after any one link's lock; guards the conns as well
	state    State
	changed  chan struct{} // closed and made anew at each change of state
	started  bool
	stopping bool // Shutdown was called
	closed   bool
	places   places
	room     bodyRoom
	overdue  overdue
	stats    WorkerStats
}

// NewWorker makes a worker for one service, 1 to 255 bytes, at the broker that
// listens on endpoint: tcp://host:port, ipc://path or inproc://name. Further
// brokers are WorkerConfig.Endpoints. It does no I/O; see OnRequest and Start.
func NewWorker(endpoint, service string, config *WorkerConfig) (*Worker, error) {
	w := &Worker{service: service, changed: make(chan struct{}), done: make(chan struct{}), end: make(chan struct{})}
	if config != nil {
		w.config = *config
		w.config.Endpoints = slices.Clone(config.Endpoints)
	}
	if err := w.configure(endpoint); err != nil {
		return nil, fmt.Errorf("omdp: new worker: %w", err)
	}
	s := &w.settings
	w.self = caps{V: 1, ID: newLifeID(), HB: max(s.heartbeat.Milliseconds(), 1), Concurrency: w.config.Concurrency, Pack: packBundles, Grow: 1, Body: int64(s.maxBody)}
	w.room = bodyRoom{size: int64(w.config.TotalBody), window: int64(w.config.Window), maxWindow: int64(w.config.MaxWindow)}
	w.places = newPlaces(w.config.Concurrency)
	w.runners.do = w.serve
	w.overdue.born = time.Now()
	for _, e := range append([]string{endpoint}, w.config.Endpoints...) {
		w.conns = append(w.conns, newWorkerConn(w, e))
	}
	return w, nil
}

func (w *Worker) configure(endpoint string) error {
	f := &w.config
	if err := parseEndpoint(endpoint, false); err != nil {
		return fmt.Errorf("endpoint: %w", err)
	}
	for i, e := range f.Endpoints {
		field := fmt.Sprintf("Endpoints[%d]", i)
		if err := parseEndpoint(e, false); err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
		if e == endpoint || slices.Contains(f.Endpoints[:i], e) {
			return fieldError(field, strconv.Quote(e), "is given twice")
		}
	}
	if !f.Dialect.valid() {
		return fieldError("Dialect", f.Dialect, "is none")
	}
	w.wire = wires[f.Dialect]
	if n := len(w.service); n < 1 || n > maxService {
		return fmt.Errorf("service: %d bytes is not from 1 to %d", n, maxService)
	}
	w.settings = settings{f.Heartbeat, f.Liveness, f.ReconnectMin, f.ReconnectMax, f.MaxBody, f.DrainTimeout}
	if err := w.settings.fill(); err != nil {
		return err
	}
	body := w.settings.maxBody
	f.Concurrency = orDefault(f.Concurrency, 1)
	f.StuckAfter = orDefault(f.StuckAfter, defaultStuckAfter)
	f.ChunkSize = orDefault(f.ChunkSize, min(defaultChunkSize, body))
	f.TotalBody = orDefault(f.TotalBody, 4*body)
	f.Window = orDefault(f.Window, defaultWindow)
	f.MaxWindow = orDefault(f.MaxWindow, max(defaultMaxWindow, f.Window))
	if f.MaxWindow < 0 {
		f.MaxWindow = f.Window
	}
	f.UploadTimeout = orDefault(f.UploadTimeout, defaultUploadTimeout)
	switch {
	case f.TotalBody < body:
		return fieldError("TotalBody", f.TotalBody, "is under MaxBody, "+strconv.Itoa(body))
	case f.Window < minWindow || f.Window > maxWindow:
		return fieldError("Window", f.Window, "is not from 4 KiB to 1 GiB")
	case f.MaxWindow < f.Window || f.MaxWindow > maxWindow:
		return fieldError("MaxWindow", f.MaxWindow, "is not from Window to 1 GiB")
	case f.Concurrency < 1 || f.Concurrency > maxConcurrency:
		return fmt.Errorf("Concurrency: %d is not from 1 to %d", f.Concurrency, maxConcurrency)
	case f.ChunkSize < 1 || f.ChunkSize > body:
		return fmt.Errorf("ChunkSize: %d is not from 1 to MaxBody, %d", f.ChunkSize, body)
	}
	w.chunk = f.ChunkSize
	w.textChunk = min(f.ChunkSize, (body-64)/6)
	return nil
}

// OnRequest sets the handler: the 'request' event of Node. It comes before
// Start; a nil handler is an error, and so is a call after Start.
func (w *Worker) OnRequest(h Handler) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case h == nil:
		return errors.New("omdp: set handler: the handler is nil")
	case w.closed:
		return fmt.Errorf("omdp: set handler: %w", ErrClosed)
	case w.started:
		return errors.New("omdp: set handler: the worker is started")
	}
	w.handler = h
	return nil
}

// Start connects in the background and returns at once: ErrClosed after Close,
// an error without a handler and when called twice. No broker need be there yet.
func (w *Worker) Start() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return fmt.Errorf("omdp: start worker: %w", ErrClosed)
	case w.started:
		return errors.New("omdp: start worker: already started")
	case w.handler == nil:
		return errors.New("omdp: start worker: no handler: call OnRequest first")
	}
	w.started = true
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	epoch := time.Now()
	var running atomic.Int32
	running.Store(int32(len(w.conns)))
	for _, c := range w.conns {
		c.session.epoch = epoch
		go func() {
			c.session.run(ctx)
			if running.Add(-1) == 0 {
				close(w.done)
			}
		}()
	}
	return nil
}

// Run starts the worker and serves until ctx ends, then shuts it down within
// DrainTimeout. It returns nil then, also if handlers had to be cut off, and
// ErrClosed if Close or Shutdown ended it.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.Start(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-w.done:
		return fmt.Errorf("omdp: run worker: %w", ErrClosed)
	}
	bound, cancel := context.WithTimeout(context.Background(), max(w.settings.drain, 0))
	defer cancel()
	_ = w.Shutdown(bound) // what it cut off is logged, and the clients were told
	return nil
}

// WaitReady returns when the worker is registered: when a broker was heard
// on the present connection. Ours answers at once, a Node broker with its
// first heartbeat; of several brokers one is enough, and WorkerStats.Brokers
// counts them. It fails with the cause of ctx's end, ErrNotStarted, or
// ErrClosed once Shutdown or Close was called.
func (w *Worker) WaitReady(ctx context.Context) error {
	for {
		w.mu.Lock()
		state, started, changed := w.state, w.started, w.changed
		stopping := w.stopping || w.closed
		w.mu.Unlock()
		switch {
		case stopping:
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

// WorkerStats are a worker's counters since it was made, and its present state.
type WorkerStats struct {
	State       State
	Brokers     int    // that this worker is registered with
	Concurrency int    // at present, see SetConcurrency
	Active      int    // requests that have not had their final
	Waiting     int    // of these, those that wait because Concurrency others, of all brokers, are in progress
	Handlers    int    // handlers that run or are about to; those that ended their response count too
	Requests    uint64 // taken
	Succeeded   uint64 // ended with a good final
	Failed      uint64 // ended with an error
	Partials    uint64 // sent
	Bytes       uint64 // of partials and finals sent, as they cross the wire
	Canceled    uint64 // contexts ended because the client cancelled or went away
	Expired     uint64 // contexts ended by the deadline
	Lost        uint64 // requests that had no final when their connection ended
	Panics      uint64 // of handlers, recovered
	Stuck       uint64 // handlers that went on for longer than StuckAfter
	Dropped     uint64 // requests of one broker far over Concurrency, or given twice
	Malformed   uint64 // messages from brokers that could not be read
	Overdrawn   uint64 // requests that ended because their client sent more than it may, or did not go on
	Connections uint64 // connections made
}

// Stats returns the worker's counters. It is cheap and may be called at any time.
func (w *Worker) Stats() WorkerStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.State, s.Concurrency, s.Waiting, s.Handlers = w.state, w.places.size, w.places.waiting, w.runners.running()
	s.Partials, s.Bytes = w.partials.Load(), w.bytes.Load()
	for _, c := range w.conns {
		if c.sess.ready && c.leaving != departed {
			s.Brokers++
		}
		s.Active += len(c.sess.all)
		s.Dropped += c.sess.dropped
		s.Malformed += c.sess.malformed
		s.Overdrawn += c.sess.overdrawn
	}
	return s
}

// setState is called with mu held.
func (w *Worker) setState(s State) {
	if w.state == s || w.state == Closed || w.stopping && s != Closed && s != Draining {
		return
	}
	w.state = s
	close(w.changed)
	w.changed = make(chan struct{})
	if log := w.config.Logger; log != nil && (w.stopping || w.closed) { // other changes are those of a connection
		w.hooks.add(func() { log.Info("omdp: worker "+s.String(), "service", w.service) })
	}
	if f := w.config.OnState; f != nil {
		w.hooks.add(func() { f(s) })
	}
}

// together is the state that the connections make up. mu is held.
func (w *Worker) together() State {
	s, begun := Lost, true
	for _, c := range w.conns {
		switch c.state {
		case Ready:
			return Ready
		case Draining:
			s = Draining
		case Connecting:
			begun = false
		}
	}
	if s == Lost && !begun && w.state == Connecting { // there is nothing yet that could be lost
		return Connecting
	}
	return s
}

// report logs err and tells OnError.
func (w *Worker) report(level slog.Level, err error, attrs ...any) {
	if log := w.config.Logger; log != nil {
		w.hooks.add(func() {
			attrs := append([]any{"service", w.service, "error", err}, attrs...)
			log.Log(context.Background(), level, "omdp: worker", attrs...)
		})
	}
	if f := w.config.OnError; f != nil {
		w.hooks.add(func() { f(err) })
	}
}
