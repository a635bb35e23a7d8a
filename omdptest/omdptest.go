// Package omdptest starts brokers, workers and clients for a program's own
// tests: on an endpoint inside the process that no other test can reach, and
// closed when the test ends.
//
//	func TestGreeter(t *testing.T) {
//		s := omdptest.Start(t, omdptest.Handlers{"greeter": greet})
//		m, err := s.Call(t.Context(), "greeter", "Ada")
//		…
//	}
//
// The sockets are real, so none of it works inside a bubble of testing/synctest.
package omdptest

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// patience is how long something may take to get ready.
const patience = 10 * time.Second

// Handlers are services by name, each with its handler.
type Handlers map[string]omdp.Handler

// A Config says how Start configures what it starts. The zero value means the
// defaults of package omdp. Without a Logger of their own, warnings and the
// stacks of panics go to the test's log.
type Config struct {
	Broker *omdp.BrokerConfig
	Worker *omdp.WorkerConfig // of every worker
	Client *omdp.ClientConfig
}

// A System is a broker with workers and a client that is ready; its methods
// are the client's and those below. All are safe for concurrent use, but for
// Worker and NewClient, which end a test that they can't serve, and so belong
// to the test's own goroutine.
type System struct {
	*omdp.Client              // ready
	Broker       *omdp.Broker // serving
	Endpoint     string       // an inproc:// one: of this process alone

	t      testing.TB
	config Config
	log    *slog.Logger
}

// Start starts a broker, one worker for each of handlers, and a client, and
// returns when all of them are ready. They are closed when the test ends, its
// subtests included. What can't be started ends the test.
func Start(t testing.TB, handlers Handlers) *System {
	t.Helper()
	return Config{}.Start(t, handlers)
}

// systems numbers the endpoints.
var systems atomic.Uint64

// Start is like the function Start, with configurations.
func (c Config) Start(t testing.TB, handlers Handlers) *System {
	t.Helper()
	s := &System{Endpoint: fmt.Sprintf("inproc://omdptest-%d", systems.Add(1)), t: t, config: c, log: newLog(t)}
	b := orZero(c.Broker)
	setLog(&b.Logger, s.log)
	broker, err := omdp.NewBroker(s.Endpoint, &b)
	if err == nil {
		err = broker.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Broker = broker
	s.cleanup(broker.Close)
	for _, service := range slices.Sorted(maps.Keys(handlers)) {
		s.Worker(service, handlers[service])
	}
	s.Client = s.NewClient()
	return s
}

// Worker starts one more worker and returns when it is registered.
func (s *System) Worker(service string, h omdp.Handler) *omdp.Worker {
	s.t.Helper()
	c := orZero(s.config.Worker)
	setLog(&c.Logger, s.log)
	w, err := omdp.NewWorker(s.Endpoint, service, &c)
	if err == nil {
		err = w.OnRequest(h)
	}
	if err == nil {
		err = w.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.cleanup(w.Close)
	s.await(w.WaitReady)
	return w
}

// NewClient starts one more client and returns when it is ready.
func (s *System) NewClient() *omdp.Client {
	s.t.Helper()
	conf := orZero(s.config.Client)
	setLog(&conf.Logger, s.log)
	c, err := omdp.NewClient(s.Endpoint, &conf)
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.cleanup(c.Close)
	s.await(c.WaitReady)
	return c
}

// cleanup closes something at the end of the test. What can't be closed in
// time, for its handlers or callbacks go on, is an error of the test.
func (s *System) cleanup(stop func() error) {
	s.t.Cleanup(func() {
		if err := stop(); err != nil {
			s.t.Error(err)
		}
	})
}

func (s *System) await(ready func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeoutCause(s.t.Context(), patience, fmt.Errorf("it took longer than %v", patience))
	defer cancel()
	if err := ready(ctx); err != nil {
		s.t.Fatal(err)
	}
}

// orZero copies a configuration that may be nil.
func orZero[T any](c *T) (v T) {
	if c != nil {
		v = *c
	}
	return v
}

func setLog(field **slog.Logger, log *slog.Logger) {
	if *field == nil {
		*field = log
	}
}

// newLog makes a logger into the test's log. What comes after the test's end,
// from a handler that goes on, is dropped: the test must not be written to then.
func newLog(t testing.TB) *slog.Logger {
	w := &testLog{t: t}
	t.Cleanup(w.end)
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type testLog struct {
	t     testing.TB
	mu    sync.Mutex
	ended bool
}

func (w *testLog) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.t.Logf("%s", p)
	}
	return len(p), nil
}

func (w *testLog) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
}
