package omdp_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// BenchmarkEndToEnd calls through a broker with all roles in this process:
// callers × size, over inproc and tcp. The comparison with others is bench/.
func BenchmarkEndToEnd(b *testing.B) {
	for _, transport := range []string{"inproc", "tcp"} {
		for _, callers := range []int{1, 100} {
			for _, size := range []int{16, 64 << 10} {
				b.Run(fmt.Sprintf("%s/callers=%d/size=%d", transport, callers, size), func(b *testing.B) {
					call := endToEnd(b, transport)
					data := strings.Repeat("x", size)
					b.SetBytes(int64(size))
					b.ReportAllocs()
					b.ResetTimer()
					var wg sync.WaitGroup
					for i := range callers {
						n := b.N / callers
						if i == 0 {
							n += b.N % callers
						}
						wg.Go(func() {
							for range n {
								call(data)
							}
						})
					}
					wg.Wait()
				})
			}
		}
	}
}

func endToEnd(b *testing.B, transport string) func(data string) {
	endpoint := map[string]string{"inproc": "inproc://" + b.Name(), "tcp": "tcp://127.0.0.1:*"}[transport]
	broker, err := omdp.NewBroker(endpoint, nil)
	if err != nil {
		b.Fatal(err)
	}
	if err := broker.Start(); err != nil {
		b.Fatal(err)
	}
	worker, err := omdp.NewWorker(broker.Endpoint(), "echo", &omdp.WorkerConfig{Concurrency: 100})
	if err != nil {
		b.Fatal(err)
	}
	worker.OnRequest(func(_ context.Context, req *omdp.Request, res *omdp.Response) error { return res.End(req.Message()) })
	client, err := omdp.NewClient(broker.Endpoint(), nil)
	if err != nil {
		b.Fatal(err)
	}
	if err := worker.Start(); err != nil {
		b.Fatal(err)
	}
	if err := client.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		client.Close()
		worker.Close()
		broker.Close()
	})
	call := func(data string) {
		if m, err := client.Call(context.Background(), "echo", data); err != nil || m.Len() != len(data)+2 {
			b.Errorf("got %d bytes, %v", m.Len(), err)
		}
	}
	call("") // all are connected
	return call
}
