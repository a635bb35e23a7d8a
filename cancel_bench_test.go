package omdp_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// BenchmarkCancel measures from the cancel at a client to the end of the
// handler's context, all roles in this process, and beside it a whole round
// trip. The promise is p50 ≤ 2 round trips.
func BenchmarkCancel(b *testing.B) {
	for _, transport := range []string{"inproc", "tcp"} {
		b.Run(transport, func(b *testing.B) {
			endpoint := map[string]string{"inproc": "inproc://" + b.Name(), "tcp": "tcp://127.0.0.1:*"}[transport]
			broker := startBroker(b, endpoint, nil)
			began, ended := make(chan struct{}), make(chan time.Time)
			addWorker(b, broker, "held", nil, func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
				done := ctx.Done()
				began <- struct{}{}
				<-done
				ended <- time.Now()
				return context.Cause(ctx)
			})
			addWorker(b, broker, "echo", nil, echo)
			c := addClient(b, broker, nil)
			var cancels, trips []time.Duration
			for b.Loop() {
				ctx, cancel := context.WithCancel(b.Context())
				s := c.RequestStream(ctx, "held", 1)
				<-began
				at := time.Now()
				cancel()
				cancels = append(cancels, (<-ended).Sub(at))
				s.Close()
				at = time.Now()
				if _, err := c.Call(b.Context(), "echo", 1); err != nil {
					b.Fatal(err)
				}
				trips = append(trips, time.Since(at))
			}
			slices.Sort(cancels)
			slices.Sort(trips)
			at := func(d []time.Duration, q float64) float64 {
				return float64(d[int(q*float64(len(d)-1))]) / float64(time.Microsecond)
			}
			b.ReportMetric(at(cancels, 0.5), "p50-µs")
			b.ReportMetric(at(cancels, 0.99), "p99-µs")
			b.ReportMetric(at(trips, 0.5), "trip-µs")
			b.ReportMetric(at(cancels, 0.5)/at(trips, 0.5), "p50/trip")
			b.ReportMetric(0, "ns/op")
		})
	}
}
