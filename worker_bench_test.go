package omdp

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// benchWorker is a worker on a link that takes everything. round gives it n
// requests in one batch and returns when all have had their final.
func benchWorker(tb testing.TB, concurrency int, h Handler) (round func(n int)) {
	w, err := NewWorker("inproc://x", "echo", &WorkerConfig{Concurrency: concurrency, Heartbeat: time.Hour})
	if err != nil {
		tb.Fatal(err)
	}
	n := newFakeNet()
	n.quiet = true
	var left atomic.Int32
	done := make(chan struct{}, 1)
	n.script = func(_ *fakeLink, f [][]byte) {
		if f[1][0] == '3' && left.Add(-1) == 0 {
			done <- struct{}{}
		}
	}
	w.conns[0].session.dial = n.dial
	w.OnRequest(h)
	if err := w.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { w.Close() })
	l := n.next(tb)
	l.say("W", "8", brokerCaps)
	if err := w.WaitReady(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	tokens := make([][]byte, concurrency)
	for i := range tokens {
		tokens[i] = fmt.Appendf(nil, "token-%020d", i)
	}
	return func(n int) {
		left.Store(int32(n))
		l.mu.Lock()
		o := &l.inbox
		for _, token := range tokens[:n] {
			o.Begin()
			head(o, headerWorker, opRequest)
			o.Frame(token)
			o.FrameString("1234567890123456789012-1000000")
			o.FrameString(`"sixteen bytes..."`)
			o.FrameString("{}")
			o.FrameString(`{"remaining":60000,"attempt":1,"credit":262144,"raw":true}`)
			o.End()
		}
		l.exchange()
		<-done
	}
}

// BenchmarkWorker is the way of a request through a worker, without a socket:
// from its frames through the handler to the frames of its final.
func BenchmarkWorker(b *testing.B) {
	for _, c := range []struct {
		name string
		h    Handler
	}{
		{"echo", echo},
		{"ctx", func(ctx context.Context, req *Request, res *Response) error {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return res.End(req.Message())
		}},
		{"partials-10", func(ctx context.Context, req *Request, res *Response) error {
			for range 10 {
				if _, err := res.Write(req.Bytes()); err != nil {
					return err
				}
			}
			return res.End(nil)
		}},
	} {
		for _, n := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("%s/batch-%d", c.name, n), func(b *testing.B) {
				round := benchWorker(b, n, c.h)
				b.ReportAllocs()
				for i := 0; i < b.N; i += n {
					round(n)
				}
			})
		}
	}
}

// A request costs a worker three allocations: the task with its Request,
// Response and ctx, the key, and the data. The handler's any is one more, and
// so is the fake link's.
func TestWorkerAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	round := benchWorker(t, 100, echo)
	round(100)
	if got := testing.AllocsPerRun(100, func() { round(100) }) / 100; got > 5.1 {
		t.Errorf("got %.2f allocations per request, want 5", got)
	}
}

// A partial costs nothing.
func TestWorkerPartialAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	round := benchWorker(t, 10, func(_ context.Context, req *Request, res *Response) error {
		for range 100 {
			if _, err := res.Write(req.data.b); err != nil {
				return err
			}
		}
		return nil
	})
	round(10)
	if got := testing.AllocsPerRun(100, func() { round(10) }) / 10 / 100; got > 0.1 {
		t.Errorf("got %.2f allocations per partial, want 0", got)
	}
}
