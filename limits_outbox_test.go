package omdp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// Rows of the table of limits on what waits for a peer, in either direction.

// stuckDialer is for one that will not read: the system keeps as little as it
// can for it, so that what it does not read is soon the broker's to hold. Small
// segments keep the sender's buffer small, which grows with them.
var stuckDialer = net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
	ctl := c.Control(func(fd uintptr) {
		err = errors.Join(syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10),
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 536))
	})
	return errors.Join(ctl, err)
}}

// dialStuck is dialWire for such a one.
func dialStuck(t testing.TB, endpoint, identity string) *wire {
	t.Helper()
	c, err := stuckDialer.Dial("tcp", strings.TrimPrefix(endpoint, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(2 * patience))
	t.Cleanup(func() { c.Close() })
	return (&wire{c, bufio.NewReaderSize(c, 16)}).shakeHands(t, identity)
}

// floods writes partials of the given size, numbered, until that fails.
func floods(size int, sent *atomic.Int64, ended chan<- error) omdp.Handler {
	pad := strings.Repeat("x", size)
	return func(ctx context.Context, _ *omdp.Request, res *omdp.Response) error {
		for {
			if err := res.Send(fmt.Sprint(sent.Add(1)-1, " ", pad)); err != nil {
				ended <- context.Cause(ctx)
				return err
			}
		}
	}
}

func limitOutbox(t *testing.T) {
	part(t, "Outbox", slowClientGivenUp)
	// What one turn of the broker's loop passes on is counted when it was refused:
	// that much more may wait than the limit says.
	const turn = 256 << 10
	// The most that was seen to wait, while somebody floods clients that read nothing.
	flooded := func(t *testing.T, limits omdp.Limits, clients, size int) (most int64) {
		b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Limits: limits})
		var sent atomic.Int64
		ended := make(chan error, clients)
		addWorker(t, b, "flood", &omdp.WorkerConfig{Concurrency: clients}, floods(size, &sent, ended))
		addWorker(t, b, "echo", nil, echo)
		c := addClient(t, b, nil)
		for i := range clients {
			dialStuck(t, b.Endpoint(), fmt.Sprint("stuck-", i)).send("C", "2", "flood", "1", `"x"`, `{"timeout":-1}`)
		}
		for n := 0; n < clients; {
			served(t, c, "echo")
			most = max(most, b.Stats().OutboxBytes)
			select {
			case err := <-ended:
				n++
				failed(t, err, omdp.ErrCanceled)
			default:
			}
		}
		s := b.Stats()
		if s.SlowClients != uint64(clients) {
			t.Errorf("got %d slow clients, want %d", s.SlowClients, clients)
		}
		return max(most, s.OutboxBytes)
	}
	part(t, "OutboxBytes", func(t *testing.T) {
		if most := flooded(t, omdp.Limits{OutboxBytes: 1 << 20}, 1, 1000); most > 1<<20+turn || most < 1<<19 {
			t.Errorf("%d bytes waited, want at most 1 MiB and a turn, and hardly less", most)
		}
	})
	part(t, "TotalOutbox", func(t *testing.T) {
		// Who has more than an equal share is given up when the total is reached; the
		// others may come to have theirs. At twice the total who is refused something
		// is given up: the rest of them in the turns after.
		if most := flooded(t, omdp.Limits{TotalOutbox: 1 << 20}, 10, 1000); most > 2<<20+4*turn {
			t.Errorf("%d bytes waited, want at most twice 1 MiB and what comes in four turns", most)
		}
	})
	part(t, "default", func(t *testing.T) {
		if most := flooded(t, omdp.Limits{}, 1, 16<<10); most > 8<<20+turn || most < 7<<20 {
			t.Errorf("%d bytes waited, want at most 8 MiB and a turn, and hardly less", most)
		}
	})
	// What a client agreed to take may wait for it, over OutboxBytes: none is slow.
	part(t, "windows", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Limits: omdp.Limits{OutboxBytes: 64 << 10}})
		var sent atomic.Int64
		addWorker(t, b, "flood", nil, floods(10_000, &sent, make(chan error, 1)))
		p := newBetween(t, b.Endpoint())
		c := startClient(t, p.endpoint, &omdp.ClientConfig{Window: 4 << 20})
		ready(t, c)
		p.hold(fromDialled)
		s := c.RequestStream(within(t), "flood", nil)
		eventually(t, "more waits than OutboxBytes", func() bool { return b.Stats().OutboxBytes > 512<<10 })
		p.release()
		n := 0
		for m, err := range s.All() {
			if want := fmt.Sprint(n, " "); err != nil || !strings.HasPrefix(m.String(), want) {
				t.Fatalf("got %.10q, %v; want partial %d", m.String(), err, n)
			}
			if n++; n == 600 {
				break
			}
		}
		if s := b.Stats(); s.SlowClients != 0 {
			t.Errorf("got %d slow clients, want none", s.SlowClients)
		}
	})
	// The broker's own answers count as well: a peer that asks on and reads none
	// makes it hold no more.
	part(t, "answers", func(t *testing.T) {
		const limit, total, peers = 100_000, 300_000, 3
		b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Limits: omdp.Limits{OutboxBytes: limit, TotalOutbox: total}})
		addWorker(t, b, "echo", nil, echo)
		c := addClient(t, b, nil)
		rid := strings.Repeat("r", 64)
		var all []*wire
		for i := range peers {
			all = append(all, dialStuck(t, b.Endpoint(), fmt.Sprint("asks-", i)))
		}
		asked := []string{"C", "2", "nobody", rid, "1", `{"failFast":true}`} // NO_WORKER
		most := int64(0)
		// The system's buffers take megabytes of small answers before one waits here.
		for range 4000 {
			for _, p := range all {
				for range 50 {
					if err := p.send(asked...); err != nil {
						t.Fatal(err)
					}
					p.send("C", "4", rid) // LOST
				}
			}
			served(t, c, "echo")
			s := b.Stats()
			if most = max(most, s.OutboxBytes); s.SlowClients == peers && s.Dropped > 10_000 {
				break
			}
		}
		if s := b.Stats(); most > 2*total+int64(len(all))*1000 || s.SlowClients != peers || s.Dropped == 0 {
			t.Errorf("%d bytes waited, %d slow clients, %d answers dropped; want at most twice %d, %d, some", most, s.SlowClients, s.Dropped, total, peers)
		}
	})
	part(t, "worker", func(t *testing.T) {
		var l logs
		b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Logger: l.logger(), Heartbeat: time.Minute, Limits: omdp.Limits{Outbox: 200}})
		addWorker(t, b, "echo", nil, echo)
		w := dialStuck(t, b.Endpoint(), "stuck")
		w.send("W", "1", "stuck", `{"v":1,"id":"life","hb":60000,"concurrency":1000}`)
		eventually(t, "it is registered", func() bool { return b.Stats().Workers == 2 })
		other := addClient(t, b, nil)
		c := addClient(t, b, &omdp.ClientConfig{Heartbeat: time.Minute}) // heartbeats for all its requests at a time would be too much by themselves
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 10_000)
		n, data := 0, strings.Repeat("x", 16<<10)
		for ; b.Stats().Queued < 300; n++ { // then its pipe is full, and the system's buffers
			if err := c.Request(ctx, "stuck", data, nil, func(_ omdp.Message, err error) { ended <- err }); err != nil {
				t.Fatal(err)
			}
			if n%100 == 0 {
				served(t, other, "echo")
			}
		}
		cancel() // of which the worker is to be told, for each
		canceled := 0
		for range n { // the broker may give the worker up before the last ones are cancelled
			err := receive(t, "a call's end", ended)
			if errors.Is(err, omdp.ErrCanceled) {
				canceled++
			} else {
				failed(t, err, omdp.ErrWorkerLost, omdp.MayHaveExecuted)
			}
		}
		if canceled < 200 {
			t.Errorf("%d calls of %d were cancelled, want more than the worker's outbox takes", canceled, n)
		}
		eventually(t, "the worker is lost", func() bool { s := b.Stats(); return s.Workers == 1 && s.SlowClients == 1 })
		eventually(t, "the log says so", func() bool { return l.count("peer does not read") == 1 })
		served(t, other, "echo")
	})
}

// A client that grants no credit and does not read its socket is given up when
// its outbox is full: no gap, then SLOW_CLIENT. The others go on, and so does
// it when it reads again.
func slowClientGivenUp(t *testing.T) {
	var l logs
	b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Logger: l.logger(), Limits: omdp.Limits{Outbox: 100, OutboxBytes: 1 << 20}})
	var sent atomic.Int64
	ended := make(chan error, 1)
	addWorker(t, b, "flood", nil, floods(1000, &sent, ended))
	addWorker(t, b, "echo", nil, echo)
	c := addClient(t, b, nil)
	p := dialStuck(t, b.Endpoint(), "slow")
	p.send("C", "2", "flood", "1", `"x"`, `{"timeout":-1}`)
	for done := false; !done; {
		served(t, c, "echo")
		select {
		case err := <-ended:
			done = true
			if !errors.Is(err, omdp.ErrCanceled) {
				t.Errorf("got cause %v, want ErrCanceled", err)
			}
		default:
		}
	}
	for n := 0; ; { // on a connection that has read nothing so far
		m, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		if m[1] == "4" {
			continue
		}
		if m[1] == "3" {
			if want := `{"status":"SLOW_CLIENT"}`; m[3] != want {
				t.Errorf("got the end %q, want %s", m, want)
			}
			break
		}
		if want := fmt.Sprintf(`{"status":200,"msg":"%d x`, n); !strings.HasPrefix(m[3], want) {
			t.Fatalf("got %.40s, want partial %d", m[3], n)
		}
		n++
	}
	p.send("C", "2", "echo", "2", `"back"`, `{}`)
	for {
		m, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		if m[1] == "3" {
			if want := `{"status":200,"msg":"back"}`; m[2] != "2" || m[3] != want {
				t.Errorf("got %q, want %s", m, want)
			}
			break
		}
	}
	if s := b.Stats(); s.SlowClients != 1 || s.Again == 0 {
		t.Errorf("got %d slow clients, %d times no room; want 1 and some", s.SlowClients, s.Again)
	}
	if l.count("does not read") != 1 {
		t.Errorf("the log does not say that a peer does not read: %q", l.lines)
	}
}

// A window, the client's or a call's own, holds in both directions: the worker
// may be so many bytes ahead of a reader that is away, and not more.
func limitWindow(t *testing.T) {
	const chunk = 16 << 10
	for name, k := range map[string]struct {
		config *omdp.ClientConfig
		opts   []omdp.CallOption
		window int
	}{
		"default":              {nil, nil, 256 << 10},
		"Window":               {&omdp.ClientConfig{Window: 128 << 10}, nil, 128 << 10},
		"WithWindow":           {nil, []omdp.CallOption{omdp.WithWindow(64 << 10)}, 64 << 10},
		"WithWindow, a larger": {nil, []omdp.CallOption{omdp.WithWindow(1 << 20)}, 1 << 20},
	} {
		part(t, name, func(t *testing.T) {
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
			addWorker(t, b, "echo", nil, echo)
			c := addClient(t, b, k.config)
			s := c.RequestStream(within(t), "flood", nil, k.opts...)
			want, got := (k.window-k.window/chunk*64)/chunk*chunk, 0 // each partial counts 64 bytes more
			for got < want {
				got = receive(t, "a chunk", wrote)
			}
			served(t, c, "echo") // others go on, on the same connection
			select {
			case n := <-wrote:
				t.Errorf("the worker wrote %d bytes ahead, the window is %d", n, k.window)
			default:
			}
			if _, err := io.ReadFull(s, make([]byte, 2*k.window)); err != nil {
				t.Error(err)
			}
			s.Close()
		})
	}
}

// A reader that reads its socket but nobody its stream, towards a worker that
// knows no credit.
func limitBuffer(t *testing.T) {
	for name, k := range map[string]struct {
		config *omdp.ClientConfig
		size   int // of a partial
		want   int // how many are kept
	}{
		"default":     {nil, 1 << 20, 7},                                                     // the eighth is over 8 MiB by what is around it
		"BufferLimit": {&omdp.ClientConfig{BufferLimit: 50_000, Window: 4 << 10}, 10_000, 4}, // the limit is never under the window
	} {
		part(t, name, func(t *testing.T) {
			b := startBroker(t, newEndpoint(t, "inproc"), nil)
			addWorker(t, b, "echo", nil, echo)
			w := dialRaw(t, b.Endpoint())
			w.say("W|1|flood")
			c := addClient(t, b, k.config)
			s := c.RequestStream(within(t), "flood", "x")
			m := w.next(t)
			for range k.want + 1 {
				w.send("W", "6", m[2], m[3], `{"status":200,"msg":"`+strings.Repeat("x", k.size)+`"}`)
			}
			eventually(t, "the call is given up", func() bool { return c.Stats().Failed == 1 })
			n, err := io.Copy(io.Discard, s)
			failed(t, err, omdp.ErrSlowConsumer, omdp.MayHaveExecuted)
			if want := int64(k.want * k.size); n != want {
				t.Errorf("read %d bytes, want the %d that came before", n, want)
			}
			eventually(t, "the broker is told", func() bool { return b.Stats().Canceled == 1 })
			served(t, c, "echo")
		})
	}
}

func limitSendQueue(t *testing.T) {
	part(t, "waiting", func(t *testing.T) {
		endpoint := newEndpoint(t, "inproc")
		c := startClient(t, endpoint, &omdp.ClientConfig{SendQueue: 1000})
		large := strings.Repeat("x", 2000)
		first := goCall(t, c, "echo", large) // one of any size is taken
		eventually(t, "it waits", func() bool { return c.Stats().Waiting == 1 })
		refusedBy(t, c, "echo", "x", omdp.NotSent)
		b := startBroker(t, endpoint, nil)
		addWorker(t, b, "echo", nil, echo)
		if r := receive(t, "the answer of what waited", first); r != (result{large, nil}) {
			t.Errorf("got %.20s, %v; want the data", r.msg, r.err)
		}
		served(t, c, "echo")
	})
	part(t, "behind a slow connection", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "tcp"), nil)
		addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 100}, echo)
		p := newBetween(t, b.Endpoint())
		c := startClient(t, p.endpoint, &omdp.ClientConfig{SendQueue: 1 << 20})
		ready(t, c)
		p.hold(fromDialler)
		ended := make(chan error, 10_000)
		n := 0
		var err error
		for data := strings.Repeat("x", 64<<10); err == nil; n++ {
			err = c.Request(within(t), "echo", data, nil, func(_ omdp.Message, err error) { ended <- err })
		}
		failed(t, err, omdp.ErrOverloaded, omdp.NotSent)
		if q := c.Stats().Queued; q > 1<<20+128<<10 {
			t.Errorf("%d bytes wait in the client, want 1 MiB", q)
		}
		served(t, addClient(t, b, nil), "echo")
		p.release()
		for range n - 1 {
			if err := receive(t, "a call's end", ended); err != nil {
				t.Error(err)
			}
		}
		served(t, c, "echo")
	})
}
