//go:build cgo

package zsock

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// Facts 13 and 15: nothing is handed to libzmq before a Router has bound the
// name, so that it can still expire; then Up is called, and all goes out in order.
func TestInprocHoldsBackBeforeBind(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		for _, unwatched := range []bool{false, true} {
			endpoint := inproc()
			var ups atomic.Int32
			c, err := Dial(ConnOptions{Options: o, Endpoint: endpoint, NoMonitor: unwatched, Up: func() { ups.Add(1) }})
			if err != nil {
				t.Fatal(err)
			}
			run := make(chan error, 1)
			go func() { run <- c.Run(nil) }()
			for _, m := range []string{"a", "b", "c"} {
				put(c.Begin(), m)
				c.Flush()
			}
			other := newTestRouter(t, o) // of another name: nothing to this one
			bindTest(t, other, inproc())
			if c.SentSeq() != 0 || c.Queued() == 0 || ups.Load() != 0 {
				t.Errorf("before bind: %d sent, %d bytes queued, %d ups, want all kept", c.SentSeq(), c.Queued(), ups.Load())
			}
			r := newTestRouter(t, o)
			bindTest(t, r, endpoint)
			var got string
			for in := new(batch.In); len(got) < 3; {
				for m := receiveOne(t, r, in); m != nil; m = in.Next() {
					got += string(m[1])
				}
			}
			if got != "abc" {
				t.Errorf("got %q, want abc", got)
			}
			until(t, "Up is called", func() bool { return ups.Load() == 1 })
			c.Stop()
			receive(t, run)
			closeAll(t, c.Close, r.Close, other.Close)
		}
	})
}

// A Bind that fails opens nothing, and does not take the name from who has it.
func TestInprocBindTwice(t *testing.T) {
	endpoint := inproc()
	r, second := newTestRouter(t, Options{}), newTestRouter(t, Options{})
	bindTest(t, r, endpoint)
	s := serve(r, echo)
	if _, err := second.Bind(endpoint); err == nil {
		t.Error("the second Bind: got no error")
	}
	closeAll(t, second.Close)
	c := dialTest(t, Options{}, endpoint)
	c.send("x")
	c.receive(t)
	closeAll(t, s.close)
	if err := receive(t, c.done); !errors.Is(err, ErrLost) {
		t.Errorf("Run: got %v, want ErrLost", err)
	}
	late := dialTest(t, Options{}, endpoint)
	late.send("y")
	if n := late.SentSeq(); n != 0 {
		t.Errorf("after the Router's end %d messages were sent, want 0", n)
	}
	closeAll(t, c.Close, late.close)
}

// Whatever Dial, Bind and Close run into each other, a Conn gets its answer or
// is told that its Router is gone.
func TestInprocDialBindRace(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		answered, lost := 0, 0
		for range 200 {
			endpoint := inproc()
			old, fresh := newTestRouter(t, o), newTestRouter(t, o)
			bindTest(t, old, endpoint)
			s := serve(old, echo)
			var next *server
			var both sync.WaitGroup
			both.Go(func() {
				if err := s.close(); err != nil {
					t.Error(err)
				}
				if _, err := fresh.Bind(endpoint); err != nil {
					t.Error(err)
				}
				next = serve(fresh, echo)
			})
			var conns [3]*client
			for i := range conns {
				conns[i] = dialTest(t, o, endpoint)
				conns[i].send("x")
			}
			both.Wait()
			for _, c := range conns {
				c.send("y")
				select {
				case <-c.got:
					answered++
					c.Stop()
					<-c.done
				case err := <-c.done:
					lost++
					if !errors.Is(err, ErrLost) {
						t.Errorf("Run: got %v, want ErrLost", err)
					}
				}
				closeAll(t, c.Close)
			}
			closeAll(t, next.close)
		}
		t.Logf("%d answered, %d lost", answered, lost)
	})
}

// With Early, Up comes with the connection, once, before anything was sent; and not
// before there is one.
func TestUpEarly(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		for name, endpoint := range endpoints(t) {
			if name == "tcp" { // a port that can be dialled before it is bound
				r := newTestRouter(t, o)
				endpoint = bindTest(t, r, endpoint)
				closeAll(t, r.Close)
			}
			var ups atomic.Int32
			c, err := Dial(ConnOptions{Options: o, Endpoint: endpoint, Early: true, Up: func() { ups.Add(1) }})
			if err != nil {
				t.Fatal(err)
			}
			ticks := make(chan struct{}, 1000)
			run := make(chan error, 1)
			go func() { run <- c.Run(func(time.Time) (next time.Time) { ticks <- struct{}{}; return }) }()
			for range 5 {
				c.Wake()
				receive(t, ticks)
			}
			if n := ups.Load(); n != 0 {
				t.Errorf("%s: %d ups before anybody listens", name, n)
			}
			r := newTestRouter(t, o)
			bindTest(t, r, endpoint)
			until(t, "Up is called", func() bool { return ups.Load() == 1 })
			put(c.Begin(), "a")
			c.Flush()
			if m := receiveOne(t, r, new(batch.In)); string(m[1]) != "a" || ups.Load() != 1 {
				t.Errorf("%s: got %q, and %d ups", name, m, ups.Load())
			}
			c.Stop()
			receive(t, run)
			closeAll(t, c.Close, r.Close)
		}
	})
}
