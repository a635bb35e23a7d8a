package omdp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// What stays within the limits: it arrives, whatever there is of it, and
// nothing is left of it.

// The largest values that the limits allow arrive, both ways.
func TestLargestBodies(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		const most, overhead = 8 << 20, len(`{"status":200,"msg":}`) // of a frame by default, and what a reply in JSON adds
		b := startBroker(t, newEndpoint(t, transport), nil)
		bounded := &omdp.WorkerConfig{MaxBody: most}
		addWorker(t, b, "size", bounded, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			return res.End(len(req.Bytes()))
		})
		addWorker(t, b, "make", bounded, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			var n int
			if err := req.Decode(&n); err != nil {
				return err
			}
			if n == most {
				return res.End(make([]byte, n)) // raw
			}
			return res.End(strings.Repeat("x", n))
		})
		c := addClient(t, b, &omdp.ClientConfig{MaxBody: most})
		if got, want := call(t, c, "size", strings.Repeat("x", most-2)), fmt.Sprint(most-2); got != want {
			t.Errorf("the worker got %s bytes, want %s", got, want)
		}
		for _, n := range []int{most, most - overhead - 2} {
			if got := call(t, c, "make", n); len(got) != n {
				t.Errorf("got %d bytes, want %d", len(got), n)
			}
		}
		_, err := c.Call(within(t), "make", most-overhead-1)
		if e, ok := errors.AsType[*omdp.Error](err); !ok || e.Code != "500" {
			t.Errorf("one byte more: got %v, want the handler's ErrTooLarge", err)
		}
		if got := call(t, c, "size", "x"); got != "1" {
			t.Errorf("got %s, want 1", got)
		}
	})
}

// What has left is forgotten: nothing grows with the peers that there were.
func TestBrokerForgets(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), &omdp.BrokerConfig{Liveness: brief})
		for range 5 {
			w := addWorker(t, b, "echo", nil, echo)
			c := addClient(t, b, nil)
			served(t, c, "echo")
			closed(t, "client", c)
			closed(t, "worker", w)
		}
		eventually(t, "the broker holds nothing", func() bool {
			s := b.Stats()
			return s.Clients+s.Workers+len(s.Services)+s.Queued+s.InProgress == 0 && s.QueuedBytes+s.OutboxBytes == 0
		})
	})
}

// One connection is enough: many goroutines on one client, many clients.
func TestManyCallers(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		for range 3 {
			addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 20}, echo)
		}
		failures := make(chan error, 40)
		for range 4 {
			c := addClient(t, b, nil)
			for k := range 10 {
				go func() {
					for i := range 50 {
						want := fmt.Sprint(k, "-", i)
						if m, err := c.Call(within(t), "echo", want); err != nil || m.String() != want {
							failures <- fmt.Errorf("got %q, %w; want %s", m, err, want)
							return
						}
					}
					failures <- nil
				}()
			}
		}
		for range 40 {
			if err := receive(t, "a caller's end", failures); err != nil {
				t.Error(err)
			}
		}
		if s := b.Stats(); s.Completed != 2000 || s.Accepted != 2000 {
			t.Errorf("got %d accepted, %d completed; want 2,000", s.Accepted, s.Completed)
		}
	})
}

// A small partial that was read, and one larger than the window after it: the
// worker does not wait for word on the small one, which never comes.
func TestLargeAfterSmall(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "tcp"), nil)
	addWorker(t, b, "send", nil, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		if err := res.Send("small"); err != nil {
			return err
		}
		return res.Send(strings.Repeat("x", 300<<10))
	})
	addWorker(t, b, "write", nil, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		res.WriteString("small")
		_, err := res.Write(make([]byte, 300<<10))
		return err
	})
	c := addClient(t, b, nil)
	for service, opts := range map[string][]omdp.CallOption{"send": nil, "write": {omdp.WithWindow(16 << 10)}} {
		s := c.RequestStream(within(t), service, nil, opts...)
		if n, err := io.Copy(io.Discard, s); n != 300<<10+5 || err != nil {
			t.Errorf("%s: read %d bytes, %v, want %d", service, n, err, 300<<10+5)
		}
	}
}
