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

// The limits of a broker, hit from outside: who hits one is told, nothing was
// executed, and the others go on.
func TestBrokerLimits(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 1000)
	for name, limits := range map[string]omdp.Limits{
		"Outstanding":  {Outstanding: 3},
		"ServiceQueue": {ServiceQueue: 3},
		"ServiceBytes": {ServiceBytes: 3500},
		"TotalQueue":   {TotalQueue: 3},
		"TotalBytes":   {TotalBytes: 3500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: limits})
			c, other := addClient(t, b, nil), addClient(t, b, nil)
			var calls []<-chan result
			for i := range 3 {
				calls = append(calls, goCall(t, c, "echo", body))
				eventually(t, "it is queued", func() bool { return b.Stats().Queued == i+1 })
			}
			_, err := c.Call(within(t), "echo", body)
			failed(t, err, omdp.ErrOverloaded, omdp.NotExecuted)
			if s := b.Stats(); s.Overloaded != 1 || s.Refused != 1 || s.Queued != 3 {
				t.Errorf("got %d overloaded, %d refused, %d queued; want 1, 1, 3", s.Overloaded, s.Refused, s.Queued)
			}
			addWorker(t, b, "echo", nil, echo)
			for _, r := range calls {
				if r := receive(t, "an answer", r); r != (result{body, nil}) {
					t.Errorf("got %.20s, %v; want the body", r.msg, r.err)
				}
			}
			served(t, other, "echo")
			served(t, c, "echo")
		})
	}
	t.Run("Services", func(t *testing.T) {
		t.Parallel()
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: omdp.Limits{Services: 2}})
		addWorker(t, b, "echo", nil, echo)
		c := addClient(t, b, nil)
		waits := c.RequestStream(t.Context(), "second", nil)
		eventually(t, "a second service", func() bool { return len(b.Stats().Services) == 2 })
		_, err := c.Call(within(t), "third", nil)
		failed(t, err, omdp.ErrOverloaded, omdp.NotExecuted)
		w := dialRaw(t, b.Endpoint())
		w.say("W|1|third")
		w.want(t, "W|5")
		served(t, c, "echo")
		waits.Close()
		eventually(t, "a service that nobody needs is forgotten", func() bool { return len(b.Stats().Services) == 1 })
		w.say("W|1|third")
		eventually(t, "the third is there", func() bool { return b.Stats().Services["third"].Workers == 1 })
	})
	t.Run("Workers", func(t *testing.T) {
		t.Parallel()
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: omdp.Limits{Workers: 1}})
		addWorker(t, b, "echo", nil, echo)
		w := dialRaw(t, b.Endpoint())
		w.say("W|1|echo")
		w.want(t, "W|5")
		served(t, addClient(t, b, nil), "echo")
	})
	t.Run("Clients", func(t *testing.T) {
		t.Parallel()
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: omdp.Limits{Clients: 2}})
		addWorker(t, b, "echo", nil, echo)
		one, two := addClient(t, b, nil), addClient(t, b, nil)
		p := dialRaw(t, b.Endpoint())
		p.say(`C|2|echo|1|"x"|{}`)
		p.want(t, `C|3|1|{"status":"OVERLOADED","executed":false}`)
		for range 100 {
			p.say("X|garbage")
		}
		_, err := startClient(t, b.Endpoint(), nil).Call(within(t), "echo", "x")
		failed(t, err, omdp.ErrOverloaded, omdp.NotExecuted)
		served(t, one, "echo")
		served(t, two, "echo")
		closed(t, "client", two)
	})
	t.Run("Concurrency", func(t *testing.T) {
		t.Parallel()
		var l logs
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Logger: l.logger(), Limits: omdp.Limits{Concurrency: 2}})
		h := newHeld()
		addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 5}, h.handle)
		c := addClient(t, b, nil)
		var calls []<-chan result
		for i := range 4 {
			calls = append(calls, goCall(t, c, "echo", fmt.Sprint(i)))
		}
		eventually(t, "two at the worker, two queued", func() bool { s := b.Stats(); return s.InProgress == 2 && s.Queued == 2 })
		if n := l.count("clipped"); n != 1 {
			t.Errorf("got %d log lines, want 1", n)
		}
		close(h.free)
		for i, r := range calls {
			if r := receive(t, "an answer", r); r != (result{fmt.Sprint(i), nil}) {
				t.Errorf("got %v, want %d", r, i)
			}
		}
	})
	t.Run("MaxFrame", func(t *testing.T) {
		t.Parallel()
		b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Limits: omdp.Limits{MaxFrame: 64 << 10}})
		addWorker(t, b, "echo", nil, echo)
		c, large := addClient(t, b, nil), addClient(t, b, nil)
		_, err := large.Call(within(t), "echo", strings.Repeat("x", 100_000))
		failed(t, err, omdp.ErrBrokerLost, omdp.MayHaveExecuted)
		served(t, c, "echo")
		served(t, large, "echo") // on a fresh connection
	})
}

// The limits of a client and a worker are their own.
func TestOwnLimits(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	large := strings.Repeat("x", 2000)
	ends := make(chan error, 2)
	addWorker(t, b, "large", &omdp.WorkerConfig{MaxBody: 1024}, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		ends <- res.Send(large)
		ends <- res.End(large)
		return nil
	})
	c := addClient(t, b, &omdp.ClientConfig{MaxBody: 1024, MaxOutstanding: 2})
	_, err := c.Call(within(t), "large", large)
	failed(t, err, omdp.ErrTooLarge, omdp.NotSent)
	_, err = c.Call(within(t), "large", "x")
	e, ok := errors.AsType[*omdp.Error](err)
	if !ok || e.Code != "500" || !strings.Contains(e.Message, "too large") {
		t.Errorf("got %v, want an error of the handler's side that says too large", err)
	}
	for range 2 {
		failed(t, receive(t, "what the handler got", ends), omdp.ErrTooLarge)
	}
	one, two := c.RequestStream(within(t), "nobody", nil), c.RequestStream(within(t), "nobody", nil)
	_, err = c.Call(within(t), "large", "x")
	failed(t, err, omdp.ErrOverloaded, omdp.NotSent)
	one.Close()
	two.Close()

	waits := startClient(t, knownEndpoint(t, "ipc"), &omdp.ClientConfig{SendQueue: 1000}) // ipc: nobody else takes the name meanwhile
	s := waits.RequestStream(within(t), "echo", large)                                    // one of any size is taken
	defer s.Close()
	eventually(t, "it waits", func() bool { return waits.Stats().Waiting == 1 })
	_, err = waits.Call(within(t), "echo", "x")
	failed(t, err, omdp.ErrOverloaded, omdp.NotSent)
}

// The largest values that the limits allow arrive, both ways.
func TestLargestBodies(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		const most, overhead = 8 << 20, len(`{"status":200,"msg":}`) // the defaults, and what a reply in JSON adds
		b := startBroker(t, newEndpoint(t, transport), nil)
		addWorker(t, b, "size", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			return res.End(len(req.Bytes()))
		})
		addWorker(t, b, "make", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			var n int
			if err := req.Decode(&n); err != nil {
				return err
			}
			if n == most {
				return res.End(make([]byte, n)) // raw
			}
			return res.End(strings.Repeat("x", n))
		})
		c := addClient(t, b, nil)
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

// A window of a call's own holds in both directions: the worker may be so many
// bytes ahead of a reader that is away, and not more.
func TestWithWindow(t *testing.T) {
	t.Parallel()
	const chunk = 16 << 10
	for _, window := range []int{64 << 10, 1 << 20} {
		b := startBroker(t, newEndpoint(t, "inproc"), nil)
		wrote := make(chan int, 1000)
		addWorker(t, b, "flood", nil, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
			for n := 0; ; n += chunk {
				if _, err := res.Write(make([]byte, chunk)); err != nil {
					return err
				}
				wrote <- n + chunk
			}
		})
		c := addClient(t, b, nil)
		s := c.RequestStream(within(t), "flood", nil, omdp.WithWindow(window))
		want := (window - window/64) / chunk * chunk // each partial counts 64 bytes more
		for n := 0; n < want-chunk; {
			n = receive(t, "a chunk", wrote)
		}
		if _, err := io.ReadFull(s, make([]byte, 2*window)); err != nil {
			t.Error(err)
		}
		s.Close()
	}
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
