//go:build cgo

package zsock

import (
	"fmt"
	"testing"
	"time"

	"github.com/pebbe/zmq4"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// A steady exchange, a wait and a wake allocate nothing, and neither does a
// Conn's Begin and Flush.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	if checksBorrows() {
		t.Skip("the check of borrows allocates")
	}
	r := newTestRouter(t, Options{Fallback: false})
	if r.s.st == nil {
		closeAll(t, r.Close)
		t.Skip("zmq4's public calls allocate")
	}
	bound := bindTest(t, r, inproc())
	c, err := Dial(ConnOptions{Endpoint: bound, Deliver: func(in *batch.In) {
		for m := in.Next(); m != nil; m = in.Next() {
			_ = m
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	body := []byte("0123456789abcdef")
	var out batch.Out
	var in batch.In
	turn := func() {
		q := c.Begin()
		q.Begin()
		q.Frame(body)
		q.End()
		c.Flush()
		if _, err := r.Exchange(&out, &in); err != nil {
			t.Fatal(err)
		}
		out.Reset()
		for m := in.Next(); m != nil; m = in.Next() {
			out.Begin()
			out.Frame(m[0])
			out.Frame(m[1])
			out.End()
		}
		if _, err := r.Exchange(&out, &in); err != nil {
			t.Fatal(err)
		}
		out.Reset()
	}
	if got := testing.AllocsPerRun(1000, turn); got != 0 {
		t.Errorf("a round trip: got %v allocations, want 0", got)
	}
	deadline := time.Now().Add(time.Hour)
	wait := func() {
		r.Wake()
		if err := r.Wait(deadline); err != nil {
			t.Fatal(err)
		}
	}
	if got := testing.AllocsPerRun(1000, wait); got != 0 {
		t.Errorf("a wake and a wait: got %v allocations, want 0", got)
	}
	closeAll(t, c.Close, r.Close)
}

// BenchmarkExchange is a router's turn with a batch of echoes over inproc: what
// crossing to libzmq and back costs a message, without a network.
func BenchmarkExchange(b *testing.B) {
	for _, engine := range []Options{{}, {Fallback: true}} {
		name := "exchange"
		if engine.Fallback {
			name = "fallback"
		}
		for _, n := range []int{1, 10, 100} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				r := newTestRouter(b, engine)
				bound := bindTest(b, r, inproc())
				s, err := newPeer(bound, engine)
				if err != nil {
					b.Fatal(err)
				}
				var out, peerOut batch.Out
				var in, peerIn batch.In
				b.ReportAllocs()
				for b.Loop() {
					peerOut.Reset()
					for range n {
						peerOut.Begin()
						peerOut.FrameString("0123456789abcdef")
						peerOut.End()
					}
					if _, err := s.exchange(&peerOut, 0, &peerIn); err != nil {
						b.Fatal(err)
					}
					out.Reset()
					if _, err := r.Exchange(nil, &in); err != nil {
						b.Fatal(err)
					}
					for m := in.Next(); m != nil; m = in.Next() {
						echo(&out, m)
					}
					if _, err := r.Exchange(&out, &in); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/msg")
				closeAll(b, s.close, r.Close)
			})
		}
	}
}

// newPeer is a bare DEALER.
func newPeer(endpoint string, o Options) (*socket, error) {
	s, err := openSocket(zmq4.DEALER, o.withDefaults())
	if err == nil {
		err = s.z.Connect(endpoint)
	}
	return s, err
}

// BenchmarkWake is a wake of a parked goroutine and back.
func BenchmarkWake(b *testing.B) {
	r := newTestRouter(b, Options{})
	turns := make(chan struct{})
	go func() {
		for r.Wait(time.Time{}) == nil {
			turns <- struct{}{}
		}
		close(turns)
	}()
	b.ReportAllocs()
	for b.Loop() {
		r.Wake()
		<-turns
	}
	r.w.close()
	for range turns {
	}
	_ = r.s.close()
	r.w.close()
}
