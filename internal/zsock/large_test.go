//go:build cgo

package zsock

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// Frames of all sizes around the limit cross unchanged, through a Router that
// passes them on, and nothing is held when all is closed.
func TestLargeFrames(t *testing.T) {
	for _, fallback := range []bool{false, true} {
		for name, endpoint := range endpoints(t) {
			t.Run(map[bool]string{false: "direct/", true: "fallback/"}[fallback]+name, func(t *testing.T) {
				before := Blocks()
				o := Options{Fallback: fallback, MaxMsgSize: 32 << 20}
				o.Store = NewStore(o, true)
				r, err := NewRouter(o)
				if err != nil {
					t.Fatal(err)
				}
				bound, err := r.Bind(endpoint)
				if err != nil {
					t.Fatal(err)
				}
				var stop atomic.Bool
				done := make(chan struct{})
				go func() {
					defer close(done)
					out, in := batch.Out{Store: o.Store}, batch.In{}
					for !stop.Load() {
						more, err := r.Exchange(&out, &in)
						if err != nil {
							t.Error(err)
							break
						}
						var again batch.Out
						again.Store = o.Store
						for i, s := range out.Results {
							if s != batch.Sent {
								again.AppendFrom(&out, i)
							}
						}
						out.Reset()
						out, again = again, out
						for m := in.Next(); m != nil; m = in.Next() {
							out.Begin()
							for _, f := range m {
								out.Frame(f)
							}
							out.End()
						}
						if !more && out.Len() == 0 {
							_ = r.Wait(time.Now().Add(50 * time.Millisecond))
						}
					}
					out.Reset()
					in.Invalidate()
					_ = r.Close()
				}()

				sizes := []int{0, 1, batch.Large - 1, batch.Large, batch.Large + 1, 64 << 10, 1<<20 + 7, 5 << 20}
				var got atomic.Int32
				over := make(chan struct{})
				c, err := Dial(ConnOptions{Options: o, Endpoint: bound, Deliver: func(in *batch.In) {
					for m := in.Next(); m != nil; m = in.Next() {
						n := sizes[int(got.Load())%len(sizes)]
						if len(m) != 3 || string(m[0]) != "head" || !bytes.Equal(m[1], bytes.Repeat([]byte{byte(n)}, n)) || string(m[2]) != "<"+string(m[1])+">" {
							t.Errorf("message %d of %d bytes came with other bytes", got.Load(), n)
						}
						if int(got.Add(1)) == 3*len(sizes) {
							close(over)
						}
					}
				}})
				if err != nil {
					t.Fatal(err)
				}
				ran := make(chan error, 1)
				go func() { ran <- c.Run(nil) }()
				for range 3 {
					for _, n := range sizes {
						p := bytes.Repeat([]byte{byte(n)}, n)
						out := c.Begin()
						out.Begin()
						out.FrameString("head")
						out.Frame(p)
						out.FrameIn("<", p, ">")
						out.End()
						c.Flush()
						clear(p) // it is not looked at again
					}
				}
				select {
				case <-over:
				case <-time.After(20 * time.Second):
					t.Errorf("got %d messages", got.Load())
				}
				if q := c.Queued(); q != 0 {
					t.Errorf("%d bytes are queued when all was sent", q)
				}
				c.Stop()
				<-ran
				if err := c.Close(); err != nil {
					t.Error(err)
				}
				stop.Store(true)
				r.Wake()
				<-done
				if n := Blocks(); n != before {
					t.Errorf("%d messages are held when all is closed, %d before", n, before)
				}
			})
		}
	}
}

// What could not be sent is let go when the Conn is closed.
func TestLargeFramesUnsent(t *testing.T) {
	before := Blocks()
	c, err := Dial(ConnOptions{Endpoint: "tcp://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		out := c.Begin()
		out.Begin()
		out.Frame(make([]byte, 64<<10))
		out.End()
		c.Flush()
	}
	if q := c.Queued(); q < 640<<10 {
		t.Errorf("%d bytes are queued, want those of the large frames too", q)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if n := Blocks(); n != before {
		t.Errorf("%d messages are held when all is closed, %d before", n, before)
	}
}
