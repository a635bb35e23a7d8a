package omdp

import (
	"context"
	"github.com/zmq-omdp/omdp/internal/batch"
	"io"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"
)

// benchClient is a client over a fake link that answers at once, so that what
// is measured is the client alone.
func benchClient(b testing.TB) *Client {
	b.Helper()
	c, err := NewClient("tcp://127.0.0.1:5555", nil)
	if err != nil {
		b.Fatal(err)
	}
	n := newFakeNet()
	n.quiet = true
	prefix, suffix := []byte(okPrefix), []byte("}")
	var value []byte
	n.script = func(l *fakeLink, f [][]byte) {
		switch string(f[1]) {
		case "8":
			l.say("C", "8", `{"v":1,"id":"`+brokerLife+`","hb":2500}`)
		case "2":
			if string(f[2]) == "silence" {
				return
			}
			value = append(append(append(value[:0], prefix...), f[4]...), suffix...)
			l.reply(opReply, f[3], value)
		}
	}
	c.conns[0].session.dial = n.dial
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	if err := c.WaitReady(context.Background()); err != nil {
		b.Fatal(err)
	}
	return c
}

func BenchmarkClientCall(b *testing.B) {
	for _, callers := range []int{1, 100, 1000} {
		b.Run("callers="+strconv.Itoa(callers), func(b *testing.B) {
			c := benchClient(b)
			ctx := b.Context()
			b.ReportAllocs()
			if callers == 1 {
				for b.Loop() {
					if _, err := c.Call(ctx, "echo", "0123456789abcdef"); err != nil {
						b.Fatal(err)
					}
				}
				return
			}
			b.SetParallelism(max(callers/runtime.GOMAXPROCS(0), 1))
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := c.Call(ctx, "echo", "0123456789abcdef"); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkClientPipeline keeps up to 1,000 requests in flight.
func BenchmarkClientPipeline(b *testing.B) {
	c := benchClient(b)
	ctx := context.Background()
	b.ReportAllocs()
	slots := make(chan struct{}, 1000)
	var wg sync.WaitGroup
	for b.Loop() {
		slots <- struct{}{}
		wg.Add(1)
		err := c.Request(ctx, "echo", "0123456789abcdef", nil, func(_ Message, err error) {
			if err != nil {
				b.Error(err)
			}
			<-slots
			wg.Done()
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
}

// BenchmarkClientStream reads partials of 16 bytes and of 64 KiB.
func BenchmarkClientStream(b *testing.B) {
	for _, size := range []int{16, 64 << 10} {
		b.Run("size="+strconv.Itoa(size), func(b *testing.B) {
			c := benchClient(b)
			s := c.RequestStream(b.Context(), "silence", nil, WithTimeout(-1))
			defer s.Close()
			c.mu.Lock()
			l, rid := c.conns[0].link.(*fakeLink), []byte(s.call.rid)
			c.mu.Unlock()
			chunk, head := make([]byte, size), []byte("b")
			buf := make([]byte, size)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				l.reply(opPartial, rid, head, chunk)
				if _, err := io.ReadFull(s, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPending is the table alone: a request comes and the oldest of n goes.
func BenchmarkPending(b *testing.B) {
	for _, n := range []int{1, 1000, 10_000} {
		b.Run("live="+strconv.Itoa(n), func(b *testing.B) {
			t, l := tableUp()
			var out batch.Out
			all := make([]pending, n)
			var now instant
			var i int
			var id uint64
			b.ReportAllocs()
			for b.Loop() {
				p := &all[i]
				if p.n != 0 {
					t.remove(p)
				}
				now += time.Microsecond
				id++
				p.n, p.deadline, p.slack = id, now+time.Minute, maxSlack
				t.add(p)
				t.put(p, l, now, id, &out)
				out.Reset()
				i = (i + 1) % n
			}
		})
	}
}
