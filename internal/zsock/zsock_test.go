//go:build cgo

package zsock

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pebbe/zmq4"

	"github.com/zmq-omdp/omdp/internal/batch"
	"github.com/zmq-omdp/omdp/internal/leak"
)

// TestMain fails on goroutines and sockets that a test left open.
func TestMain(m *testing.M) {
	if f := helpers[os.Getenv("OMDP_ZSOCK_HELPER")]; f != nil {
		f()
		return
	}
	leak.Main(m, leak.Count("open sockets", OpenSockets), leak.Count("libzmq messages", Blocks))
}

// helpers are what this binary does as another process.
var helpers = map[string]func(){}

// both runs a test on the C exchange and on the fallback.
func both(t *testing.T, f func(t *testing.T, o Options)) {
	t.Run("exchange", func(t *testing.T) { f(t, Options{}) })
	t.Run("fallback", func(t *testing.T) { f(t, Options{Fallback: true}) })
}

func newTestRouter(tb testing.TB, o Options) *Router {
	tb.Helper()
	r, err := NewRouter(o)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func bindTest(tb testing.TB, r *Router, endpoint string) string {
	tb.Helper()
	bound, err := r.Bind(endpoint)
	if err != nil {
		tb.Fatal(err)
	}
	return bound
}

var inprocNames atomic.Int64

func inproc() string { return fmt.Sprintf("inproc://zsock.test.%d", inprocNames.Add(1)) }

// endpoints of every transport.
func endpoints(t *testing.T) map[string]string {
	return map[string]string{
		"inproc": inproc(),
		"ipc":    "ipc://" + t.TempDir() + "/s",
		"tcp":    "tcp://127.0.0.1:*",
	}
}

// server owns a Router on a goroutine of its own and answers with handle.
type server struct {
	r    *Router
	stop atomic.Bool
	done sync.WaitGroup
}

// serve starts a server; handle gets each message and may append answers.
func serve(r *Router, handle func(out *batch.Out, m [][]byte)) *server {
	s := &server{r: r}
	s.done.Go(func() {
		var out, kept batch.Out
		var in batch.In
		for !s.stop.Load() {
			more, err := r.Exchange(&out, &in)
			if err != nil {
				return
			}
			// Again is tried again.
			for i, st := range out.Results {
				if st == batch.Again {
					kept.AppendFrom(&out, i)
				}
			}
			blocked := kept.Len() > 0
			out.Reset()
			out, kept = kept, out
			for m := in.Next(); m != nil; m = in.Next() {
				handle(&out, m)
			}
			if out.Len() > 0 && !blocked || more {
				continue
			}
			var deadline time.Time
			if blocked {
				deadline = time.Now().Add(time.Millisecond)
			}
			if r.Wait(deadline) != nil {
				return
			}
		}
	})
	return s
}

func (s *server) close() error {
	s.stop.Store(true)
	s.r.Wake()
	s.done.Wait()
	return s.r.Close()
}

// echo sends every message back.
func echo(out *batch.Out, m [][]byte) {
	out.Begin()
	for _, f := range m {
		out.Frame(f)
	}
	out.End()
}

// client runs a Conn whose deliveries go to got, copied.
type client struct {
	*Conn
	got  chan []string
	done chan error // Run's result
}

func dialTest(tb testing.TB, o Options, endpoint string) *client {
	tb.Helper()
	c := &client{got: make(chan []string, 1<<16), done: make(chan error, 1)}
	var err error
	c.Conn, err = Dial(ConnOptions{Options: o, Endpoint: endpoint, Deliver: func(in *batch.In) {
		for m := in.Next(); m != nil; m = in.Next() {
			c.got <- toStrings(m)
		}
	}})
	if err != nil {
		tb.Fatal(err)
	}
	go func() { c.done <- c.Run(nil) }()
	return c
}

func (c *client) close() error {
	c.Stop()
	<-c.done
	return c.Close()
}

func (c *client) send(frames ...string) {
	out := c.Begin()
	put(out, frames...)
	c.Flush()
}

// receive returns the next message.
func (c *client) receive(tb testing.TB) []string {
	tb.Helper()
	return receive(tb, c.got)
}

func receive[T any](tb testing.TB, ch <-chan T) T {
	tb.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(10 * time.Second):
		tb.Fatal("nothing came within 10 s")
		panic("unreachable")
	}
}

func put(out *batch.Out, frames ...string) {
	out.Begin()
	for _, f := range frames {
		out.FrameString(f)
	}
	out.End()
}

func toStrings(m [][]byte) []string {
	s := make([]string, len(m))
	for i, f := range m {
		s[i] = string(f)
	}
	return s
}

func closeAll(tb testing.TB, fs ...func() error) {
	tb.Helper()
	for _, f := range fs {
		if err := f(); err != nil {
			tb.Error(err)
		}
	}
}

// rawSocket is a plain peer in the same context, closed with the test.
func rawSocket(tb testing.TB, t zmq4.Type, id, endpoint string) *zmq4.Socket {
	tb.Helper()
	z, err := newSocket(t)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = closeSocket(z) })
	err = errors.Join(z.SetLinger(0), z.SetRcvtimeo(10*time.Second), z.SetSndtimeo(10*time.Second))
	if id != "" {
		err = errors.Join(err, z.SetIdentity(id))
	}
	if err = errors.Join(err, z.Connect(endpoint)); err != nil {
		tb.Fatal(err)
	}
	return z
}

// until waits for a condition, 10 s at most.
func until(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); runtime.Gosched() {
		if time.Now().After(deadline) {
			tb.Fatalf("not within 10 s: %s", what)
		}
	}
}
