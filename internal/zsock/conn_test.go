//go:build cgo

package zsock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// Fact 9: a socket used from two goroutines needs a fence; a Conn is used from
// many. Fact 12: and no wake-up is lost, or a caller would wait for ever.
func TestFact9And12ManyCallers(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		for name, endpoint := range endpoints(t) {
			t.Run(name, func(t *testing.T) {
				const callers = 16
				r := newTestRouter(t, o)
				bound := bindTest(t, r, endpoint)
				s := serve(r, echo)
				var replies [callers]chan string
				for i := range replies {
					replies[i] = make(chan string, 1)
				}
				c := dialDeliver(t, o, bound, func(m [][]byte) { replies[m[0][0]] <- string(m[1]) })
				var wg sync.WaitGroup
				for i := range callers {
					wg.Go(func() {
						for n := range 300 {
							want := fmt.Sprint(i, " ", n)
							c.send(string([]byte{byte(i)}), want)
							select {
							case got := <-replies[i]:
								if got != want {
									t.Errorf("got %q, want %q", got, want)
									return
								}
							case <-time.After(10 * time.Second):
								t.Errorf("caller %d: no reply %d: a wake-up was lost", i, n)
								return
							}
						}
					})
				}
				wg.Wait()
				if got := c.SentSeq(); !t.Failed() && got != callers*300 {
					t.Errorf("SentSeq: got %d, want %d", got, callers*300)
				}
				closeAll(t, c.close, s.close)
			})
		}
	})
}

// dialDeliver is a client whose messages go to f.
func dialDeliver(tb testing.TB, o Options, endpoint string, f func(m [][]byte)) *client {
	tb.Helper()
	c := &client{done: make(chan error, 1)}
	var busy atomic.Bool
	var err error
	c.Conn, err = Dial(ConnOptions{Options: o, Endpoint: endpoint, Deliver: func(in *batch.In) {
		if !busy.CompareAndSwap(false, true) {
			tb.Error("Deliver was called concurrently")
		}
		for m := in.Next(); m != nil; m = in.Next() {
			f(m)
		}
		busy.Store(false)
	}})
	if err != nil {
		tb.Fatal(err)
	}
	go func() { c.done <- c.Run(nil) }()
	return c
}

// Deliver may send on its own Conn; whoever holds the socket sends it.
func TestDeliverSends(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		r := newTestRouter(t, o)
		bound := bindTest(t, r, "tcp://127.0.0.1:*")
		s := serve(r, echo)
		done := make(chan struct{})
		var c *client
		var left = 500
		ready := make(chan struct{})
		c = dialDeliver(t, o, bound, func(m [][]byte) {
			<-ready
			if left--; left == 0 {
				close(done)
				return
			}
			c.send("again")
		})
		close(ready)
		c.send("first")
		receive(t, done)
		closeAll(t, c.close, s.close)
	})
}

// Fact 13: nothing is handed to libzmq before the connection is there, and the
// queue goes out when it comes.
func TestFact13NothingSentBeforeConnected(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		r := newTestRouter(t, o)
		bound := bindTest(t, r, "tcp://127.0.0.1:*")
		closeAll(t, r.Close) // nobody listens there now

		var ups atomic.Int32
		c, err := Dial(ConnOptions{Options: o, Endpoint: bound, Up: func() { ups.Add(1) }})
		if err != nil {
			t.Fatal(err)
		}
		ticks := make(chan struct{}, 1000)
		run := make(chan error, 1)
		go func() { run <- c.Run(func(time.Time) (next time.Time) { ticks <- struct{}{}; return }) }()
		for i := range 10 {
			out := c.Begin()
			if got := c.Seq(); got != uint64(i) {
				t.Errorf("Seq: got %d, want %d", got, i)
			}
			put(out, fmt.Sprint(i))
			c.Flush()
		}
		for range 5 {
			c.Wake()
			receive(t, ticks)
		}
		if c.SentSeq() != 0 || c.Queued() != 10*9 || ups.Load() != 0 {
			t.Errorf("got %d sent, %d bytes queued, %d ups before anybody listens, want 0, 90, 0", c.SentSeq(), c.Queued(), ups.Load())
		}

		r = newTestRouter(t, o)
		bindTest(t, r, bound)
		var in batch.In
		for i := 0; i < 10; {
			for m := receiveOne(t, r, &in); m != nil; m = in.Next() {
				if string(m[1]) != fmt.Sprint(i) {
					t.Fatalf("got %q, want %d", m[1], i)
				}
				i++
			}
		}
		until(t, "all sent", func() bool { return c.SentSeq() == 10 && c.Queued() == 0 })
		c.Stop()
		if err := receive(t, run); !errors.Is(err, ErrClosed) {
			t.Errorf("Run: got %v, want ErrClosed", err)
		}
		closeAll(t, c.Close, c.Close, r.Close)
		if got := ups.Load(); got != 1 {
			t.Errorf("Up was called %d times, want once", got)
		}
	})
}

// A peer that does not read blocks the queue; order and counts hold, and Await
// follows the bytes.
func TestBackPressure(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		o.SndHWM, o.RcvHWM = 4, 4
		r := newTestRouter(t, o)
		bound := bindTest(t, r, "tcp://127.0.0.1:*")
		c := dialTest(t, o, bound)
		body := strings.Repeat("x", 64<<10)
		const n = 300
		for i := range n {
			c.send(fmt.Sprint(i), body)
		}
		if got := c.Queued(); got < 1<<20 {
			t.Fatalf("got %d bytes queued, want the peer to be full", got)
		}
		cause := errors.New("the cause")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if err := c.Await(ctx, 1<<20); !errors.Is(err, cause) {
			t.Errorf("Await: got %v, want the cause", err)
		}
		room := make(chan error, 2)
		go func() { room <- c.Await(t.Context(), 1<<20) }()
		go func() { room <- c.Await(t.Context(), 0) }()

		var in batch.In
		for i := 0; i < n; {
			for m := receiveOne(t, r, &in); m != nil; m = in.Next() {
				if string(m[1]) != fmt.Sprint(i) || len(m[2]) != len(body) {
					t.Fatalf("got %q, want %d", m[1], i)
				}
				i++
			}
		}
		for range 2 {
			if err := receive(t, room); err != nil {
				t.Errorf("Await: %v", err)
			}
		}
		if c.SentSeq() != n || c.Queued() != 0 {
			t.Errorf("got %d sent, %d queued, want %d and 0", c.SentSeq(), c.Queued(), n)
		}
		closeAll(t, c.close, r.Close)
	})
}

func TestAwaitEnds(t *testing.T) {
	for _, want := range []error{ErrClosed, ErrLost} {
		r := newTestRouter(t, Options{SndHWM: 4, RcvHWM: 4, Linger: -1})
		bound := bindTest(t, r, "tcp://127.0.0.1:*")
		c := dialTest(t, Options{SndHWM: 4, RcvHWM: 4, Linger: -1}, bound)
		for range 300 {
			c.send(strings.Repeat("x", 64<<10))
		}
		res := make(chan error, 1)
		go func() { res <- c.Await(context.Background(), 1) }()
		if want == ErrLost {
			closeAll(t, r.Close)
			if err := receive(t, c.done); !errors.Is(err, ErrLost) {
				t.Errorf("Run: got %v, want ErrLost", err)
			}
			closeAll(t, c.Close)
		} else {
			closeAll(t, c.close)
		}
		if err := receive(t, res); !errors.Is(err, want) {
			t.Errorf("Await: got %v, want %v", err, want)
		}
		closeAll(t, r.Close)
	}
}

// After Close nothing happens, and nothing breaks.
func TestUseAfterClose(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		c := dialTest(t, o, inproc())
		c.send("queued")
		closeAll(t, c.close)
		before := c.Begin()
		seq := c.Seq()
		put(before, "late")
		c.Flush()
		if c.Begin().Len() != 0 || c.Seq() != seq+1 {
			t.Errorf("got %d, seq %d, want the message dropped and counted", c.queue.Len(), c.Seq())
		}
		c.Flush()
		c.Wake()
		c.Stop()
		if err := c.Await(t.Context(), 1); !errors.Is(err, ErrClosed) {
			t.Errorf("Await: got %v, want ErrClosed", err)
		}
		if err := c.Run(nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Run: got %v, want ErrClosed", err)
		}
		closeAll(t, c.Close)
	})
}

// Sending goes on between Stop and Close: a last word can be said.
func TestFlushAfterStop(t *testing.T) {
	r := newTestRouter(t, Options{})
	bound := bindTest(t, r, "tcp://127.0.0.1:*")
	c := dialTest(t, Options{}, bound)
	c.send("first")
	var in batch.In
	receiveOne(t, r, &in)
	c.Stop()
	if err := receive(t, c.done); !errors.Is(err, ErrClosed) {
		t.Errorf("Run: got %v, want ErrClosed", err)
	}
	for i := range 20 { // so close together that they are left to the flusher
		c.send(fmt.Sprint("bye ", i))
	}
	closeAll(t, c.Close)
	for i := 0; i < 20; {
		for m := receiveOne(t, r, &in); m != nil; m = in.Next() {
			if string(m[1]) != fmt.Sprint("bye ", i) {
				t.Fatalf("got %q, want bye %d", m[1], i)
			}
			i++
		}
	}
	closeAll(t, r.Close)
}

func TestTick(t *testing.T) {
	c, err := Dial(ConnOptions{Endpoint: inproc()})
	if err != nil {
		t.Fatal(err)
	}
	ticks := make(chan time.Time, 100)
	run := make(chan error, 1)
	go func() {
		run <- c.Run(func(now time.Time) time.Time {
			ticks <- now
			return now.Add(5 * time.Millisecond)
		})
	}()
	first := receive(t, ticks)
	for range 5 {
		receive(t, ticks)
	}
	if d := receive(t, ticks).Sub(first); d < 5*time.Millisecond {
		t.Errorf("six ticks of 5 ms took %v", d)
	}
	c.Stop()
	receive(t, run)
	closeAll(t, c.Close)
}

// What came before the cut is delivered before Run says ErrLost.
func TestLastWordsBeforeLost(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		for name, endpoint := range endpoints(t) {
			t.Run(name, func(t *testing.T) { lastWords(t, o, endpoint) })
		}
	})
}

func lastWords(t *testing.T, o Options, endpoint string) {
	r := newTestRouter(t, o)
	bound := bindTest(t, r, endpoint)
	var got []string
	c := dialDeliver(t, o, bound, func(m [][]byte) { got = append(got, string(m[0])) })
	c.send("hello")
	var in batch.In
	id := string(receiveOne(t, r, &in)[0])
	var out batch.Out
	var want []string
	for i := range 100 {
		put(&out, id, fmt.Sprint(i))
		want = append(want, fmt.Sprint(i))
	}
	if _, err := r.Exchange(&out, &in); err != nil {
		t.Fatal(err)
	}
	closeAll(t, r.Close)
	if err := receive(t, c.done); !errors.Is(err, ErrLost) {
		t.Errorf("Run: got %v, want ErrLost", err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want all that was sent before", got)
	}
	sent := c.SentSeq()
	c.send("dropped")
	if c.SentSeq() != sent {
		t.Error("a message was sent after the cut")
	}
	closeAll(t, c.Close)
}

// Fact 15: inproc never reconnects. A Router that is closed tells its Conns, and
// a Conn dialled right after that waits for the next Router.
func TestFact15InprocRebind(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		endpoint := inproc()
		for range 50 {
			r := newTestRouter(t, o)
			bindTest(t, r, endpoint)
			s := serve(r, echo)
			old := dialTest(t, o, endpoint)
			old.send("x")
			old.receive(t)
			closeAll(t, s.close)
			c := dialTest(t, o, endpoint) // before the next one binds
			c.send("y")
			if err := receive(t, old.done); !errors.Is(err, ErrLost) {
				t.Fatalf("Run: got %v, want ErrLost", err)
			}
			r = newTestRouter(t, o)
			bindTest(t, r, endpoint)
			s = serve(r, echo)
			c.receive(t)
			closeAll(t, old.Close, c.close, s.close)
		}
	})
}

func TestKilledBrokerIsNoticed(t *testing.T) {
	endpoint, cmd := startProcess(t, "broker")
	c := dialTest(t, Options{}, endpoint)
	c.send("READY")
	c.receive(t)
	start := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, c.done); !errors.Is(err, ErrLost) {
		t.Errorf("Run: got %v, want ErrLost", err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("a killed broker was noticed after %v", d)
	}
	closeAll(t, c.Close)
}

// More Conns than libzmq's default number of sockets allows, none connected.
func TestManyConns(t *testing.T) {
	n := 1000
	if soft, ok := FileLimit(); ok && soft < 8*1000 {
		n = int(soft / 8)
	}
	conns := make([]*Conn, n)
	var wg sync.WaitGroup
	for i := range conns {
		c, err := Dial(ConnOptions{Endpoint: "tcp://127.0.0.1:9", Options: Options{Linger: -1}})
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c
		put(c.Begin(), "hello")
		c.Flush()
		wg.Go(func() {
			if err := c.Run(nil); !errors.Is(err, ErrClosed) {
				t.Errorf("Run: got %v, want ErrClosed", err)
			}
		})
	}
	for _, c := range conns {
		if got := c.SentSeq(); got != 0 {
			t.Errorf("got %d messages sent to nobody", got)
		}
		c.Stop()
	}
	wg.Wait()
	for _, c := range conns {
		closeAll(t, c.Close)
	}
}
