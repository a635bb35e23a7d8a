package omdp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
	"github.com/zmq-omdp/omdp/internal/leak"
	"github.com/zmq-omdp/omdp/internal/zsock"
)

// Broker, workers and clients on real sockets: helpers for these tests, and
// one test of every way to call over every transport. Peers by hand are in
// raw_test.go, faults in fault_test.go, the specification in spec_test.go.

func TestMain(m *testing.M) {
	if role := os.Getenv(childEnv); role != "" {
		child(role)
		return
	}
	leak.Main(m, leak.Count("open sockets", zsock.OpenSockets), leak.Count("libzmq messages", zsock.Blocks))
}

const (
	beat     = 50 * time.Millisecond // heartbeats are short, so that tests are
	steady   = 100                   // liveness where nothing is to be lost, on a loaded machine too: 5 s
	brief    = 10                    // liveness where something is: 500 ms
	patience = 30 * time.Second      // nobody waits longer for anything
)

var transports = []string{"inproc", "ipc", "tcp"}

// overTransports runs a test over each transport.
func overTransports(t *testing.T, f func(t *testing.T, transport string)) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			f(t, transport)
		})
	}
}

var endpointCount atomic.Uint64

// newEndpoint is one that nobody else uses; tcp lets the system choose the port.
func newEndpoint(t testing.TB, transport string) string {
	t.Helper()
	switch transport {
	case "inproc":
		return fmt.Sprintf("inproc://test-%d", endpointCount.Add(1))
	case "ipc":
		return "ipc://" + filepath.Join(shortDir(t), "s")
	}
	return "tcp://127.0.0.1:*"
}

// knownEndpoint is one that can be dialled before it is bound.
func knownEndpoint(t testing.TB, transport string) string {
	t.Helper()
	if transport != "tcp" {
		return newEndpoint(t, transport)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "tcp://" + l.Addr().String()
}

// shortDir is a directory whose name leaves room for a Unix socket in it.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "omdp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// within is a context for what must not take for ever.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, fmt.Errorf("not within %v", patience))
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	over := time.After(patience)
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-over:
			t.Fatalf("not within %v: %s", patience, what)
		case <-again.C:
		}
	}
}

// receive takes one value from c.
func receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("not within %v: %s", patience, what)
		panic("unreachable")
	}
}

// shortBeats fills what a test's broker config leaves open.
func shortBeats(c *omdp.BrokerConfig) *omdp.BrokerConfig {
	filled := omdp.BrokerConfig{}
	if c != nil {
		filled = *c
	}
	if filled.Heartbeat == 0 {
		filled.Heartbeat = beat
	}
	if filled.Liveness == 0 {
		filled.Liveness = steady
	}
	return &filled
}

// startBroker starts a broker that the test's end closes.
func startBroker(t testing.TB, endpoint string, config *omdp.BrokerConfig) *omdp.Broker {
	t.Helper()
	b, err := omdp.NewBroker(endpoint, shortBeats(config))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, "broker", b) })
	return b
}

// restartBroker binds an endpoint that was in use a moment ago.
func restartBroker(t testing.TB, endpoint string, config *omdp.BrokerConfig) *omdp.Broker {
	t.Helper()
	b, err := omdp.NewBroker(endpoint, shortBeats(config))
	if err != nil {
		t.Fatal(err)
	}
	// libzmq unbinds on a thread of its own, a while after Close. A broker
	// whose Start failed can be started again.
	eventually(t, endpoint+" is free again", func() bool { err = b.Start(); return err == nil })
	t.Cleanup(func() { closed(t, "broker", b) })
	return b
}

func closed(t testing.TB, what string, c io.Closer) {
	if err := c.Close(); err != nil {
		t.Errorf("close %s: %v", what, err)
	}
}

// startWorker starts a worker, registered or not yet.
func startWorker(t testing.TB, endpoint, service string, config *omdp.WorkerConfig, h omdp.Handler) *omdp.Worker {
	t.Helper()
	c := omdp.WorkerConfig{}
	if config != nil {
		c = *config
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = beat
	}
	if c.Liveness == 0 {
		c.Liveness = steady
	}
	if c.ReconnectMin == 0 {
		c.ReconnectMin, c.ReconnectMax = 10*time.Millisecond, 100*time.Millisecond
	}
	w, err := omdp.NewWorker(endpoint, service, &c)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.OnRequest(h); err != nil {
		t.Fatal(err)
	}
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, "worker", w) })
	return w
}

// addWorker starts a worker and waits until it is registered.
func addWorker(t testing.TB, b *omdp.Broker, service string, config *omdp.WorkerConfig, h omdp.Handler) *omdp.Worker {
	t.Helper()
	w := startWorker(t, b.Endpoint(), service, config, h)
	ready(t, w)
	return w
}

// startClient starts a client, connected or not yet.
func startClient(t testing.TB, endpoint string, config *omdp.ClientConfig) *omdp.Client {
	t.Helper()
	c := omdp.ClientConfig{}
	if config != nil {
		c = *config
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = beat
	}
	if c.Liveness == 0 {
		c.Liveness = steady
	}
	if c.ReconnectMin == 0 {
		c.ReconnectMin, c.ReconnectMax = 10*time.Millisecond, 100*time.Millisecond
	}
	client, err := omdp.NewClient(endpoint, &c)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, "client", client) })
	return client
}

// addClient starts a client and waits until the broker answered it.
func addClient(t testing.TB, b *omdp.Broker, config *omdp.ClientConfig) *omdp.Client {
	t.Helper()
	c := startClient(t, b.Endpoint(), config)
	ready(t, c)
	return c
}

func ready(t testing.TB, p interface{ WaitReady(context.Context) error }) {
	t.Helper()
	if err := p.WaitReady(within(t)); err != nil {
		t.Fatal(err)
	}
}

// echo answers with what it was asked.
func echo(_ context.Context, req *omdp.Request, res *omdp.Response) error {
	return res.End(req.Message())
}

// held is a handler that keeps its requests until they are let go or their
// context ends.
type held struct {
	began chan string   // data of each request, in order of arrival
	ended chan error    // cause of each context that ended first
	free  chan struct{} // one for each request to let go; closed: all
}

func newHeld() *held {
	return &held{began: make(chan string, 1000), ended: make(chan error, 1000), free: make(chan struct{}, 1000)}
}

func (h *held) handle(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
	h.began <- string(req.Bytes())
	select {
	case <-h.free:
		return res.End(req.Message())
	case <-ctx.Done():
		h.ended <- context.Cause(ctx)
		return ctx.Err()
	}
}

// result is how a call ended.
type result struct {
	msg string
	err error
}

func (r result) String() string { return fmt.Sprintf("%.40q, %v", r.msg, r.err) }

// goCall calls on a goroutine of its own.
func goCall(t testing.TB, c *omdp.Client, service string, data any, opts ...omdp.CallOption) <-chan result {
	done := make(chan result, 1)
	ctx := within(t)
	go func() {
		m, err := c.Call(ctx, service, data, opts...)
		done <- result{m.String(), err}
	}()
	return done
}

// call must succeed.
func call(t testing.TB, c *omdp.Client, service string, data any, opts ...omdp.CallOption) string {
	t.Helper()
	m, err := c.Call(within(t), service, data, opts...)
	if err != nil {
		t.Fatalf("call %s: %v", service, err)
	}
	return m.String()
}

// served checks that an honest client is.
func served(t testing.TB, c *omdp.Client, service string) {
	t.Helper()
	want := fmt.Sprintf("honest %d", endpointCount.Add(1))
	if got := call(t, c, service, want); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// failed checks an error's sentinel and outcome.
func failed(t testing.TB, err, want error, outcomes ...omdp.Outcome) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
	if got := omdp.OutcomeOf(err); len(outcomes) > 0 && !slices.Contains(outcomes, got) {
		t.Errorf("got outcome %v of %q, want %v", got, err, outcomes)
	}
}

// logs collects what a Logger was told.
type logs struct {
	mu    sync.Mutex
	lines []string
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *logs) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.lines {
		if strings.Contains(s, text) {
			n++
		}
	}
	return n
}

func TestCallEveryWay(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 8}, echo)
		addWorker(t, b, "parts", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			for i := range 5 {
				fmt.Fprintf(res, "%d,", i)
			}
			return res.End("end")
		})
		addWorker(t, b, "add", nil, omdp.HandleJSON(func(_ context.Context, in []int) (map[string]int, error) {
			n := 0
			for _, i := range in {
				n += i
			}
			return map[string]int{"sum": n}, nil
		}))
		addWorker(t, b, "teapot", nil, func(context.Context, *omdp.Request, *omdp.Response) error {
			return &omdp.Error{Code: "418", Message: "short and stout"}
		})
		addWorker(t, b, "panic", nil, func(context.Context, *omdp.Request, *omdp.Response) error { panic("secret") })
		addWorker(t, b, "meta", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			return res.End(req.Metadata()["trace"])
		})
		c := addClient(t, b, nil)

		t.Run("call", func(t *testing.T) {
			if got := call(t, c, "echo", "hello"); got != "hello" {
				t.Errorf("got %q, want hello", got)
			}
		})
		t.Run("json", func(t *testing.T) {
			got, err := omdp.CallJSON[map[string]int](within(t), c, "add", []int{1, 2, 39})
			if err != nil || got["sum"] != 42 {
				t.Errorf("got %v, %v; want a sum of 42", got, err)
			}
		})
		t.Run("request", func(t *testing.T) {
			var parts []string
			done := make(chan result, 1)
			err := c.Request(within(t), "parts", nil,
				func(m omdp.Message) { parts = append(parts, m.String()) },
				func(m omdp.Message, err error) { done <- result{m.String(), err} })
			if err != nil {
				t.Fatal(err)
			}
			if got := receive(t, "the final", done); got != (result{"end", nil}) {
				t.Errorf("got final %v, want end", got)
			}
			if got := strings.Join(parts, ""); got != "0,1,2,3,4," {
				t.Errorf("got partials %q", got)
			}
		})
		t.Run("stream", func(t *testing.T) {
			got, err := io.ReadAll(c.RequestStream(within(t), "parts", nil))
			if want := "0,1,2,3,4,end"; err != nil || string(got) != want {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		})
		t.Run("all", func(t *testing.T) {
			var got []string
			for m, err := range c.RequestStream(within(t), "parts", nil).All() {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, m.String())
			}
			if want := []string{"0,", "1,", "2,", "3,", "4,", "end"}; !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
		t.Run("bytes", func(t *testing.T) {
			want := make([]byte, 1<<20)
			rng := rand.NewChaCha8([32]byte{1})
			rng.Read(want)
			want = want[:200<<10] // as Node's Buffer four times as large
			m, err := c.Call(within(t), "echo", want)
			if err != nil || !bytes.Equal(m.Bytes(), want) {
				t.Errorf("got %d bytes, %v; want the %d sent", len(m.Bytes()), err, len(want))
			}
		})
		t.Run("error", func(t *testing.T) {
			_, err := c.Call(within(t), "teapot", nil)
			e, ok := errors.AsType[*omdp.Error](err)
			if !ok || e.Code != "418" || e.Message != "short and stout" || e.Service != "teapot" {
				t.Errorf("got %#v, want the handler's 418", err)
			}
			failed(t, err, e, omdp.Executed)
		})
		t.Run("panic", func(t *testing.T) {
			_, err := c.Call(within(t), "panic", nil)
			e, ok := errors.AsType[*omdp.Error](err)
			if !ok || e.Code != "500" || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want code 500 and not the panic's text", err)
			}
		})
		t.Run("metadata", func(t *testing.T) {
			got := call(t, c, "meta", nil, omdp.WithMetadata(map[string]string{"trace": "00-é\"1"}))
			if got != "00-é\"1" {
				t.Errorf("got %q", got)
			}
		})
		t.Run("no worker", func(t *testing.T) {
			_, err := c.Call(within(t), "nobody", nil, omdp.FailFast())
			failed(t, err, omdp.ErrNoWorker, omdp.NotExecuted)
			_, err = c.Call(within(t), "nobody", nil, omdp.WithTimeout(beat))
			failed(t, err, omdp.ErrTimeout, omdp.NotExecuted, omdp.MayHaveExecuted)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v is no context.DeadlineExceeded", err)
			}
		})
		t.Run("many", func(t *testing.T) {
			const n = 500
			got := make([]<-chan result, n)
			for i := range got {
				got[i] = goCall(t, c, "echo", fmt.Sprint("n", i))
			}
			for i, r := range got {
				if r, want := receive(t, "an answer", r), fmt.Sprint("n", i); r != (result{want, nil}) {
					t.Fatalf("got %v, want %s", r, want)
				}
			}
		})
		s := b.Stats()
		if s.Malformed+s.Forged+s.StaleTokens+s.Duplicates+s.Unregistered+s.Ignored != 0 {
			t.Errorf("the broker counted breaches of protocol: %+v", s)
		}
	})
}
