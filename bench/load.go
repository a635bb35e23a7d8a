package main

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// maxSamples bounds the latencies that one client keeps.
const maxSamples = 1 << 20

// load is the work of a client process and the tally of it. Its methods are
// safe for concurrent use.
type load struct {
	work
	names []string
	base  time.Time

	// Offsets from base in ns; before begin, from is far away and nothing counts.
	from, until atomic.Int64
	warm, count atomic.Int64 // finals before the measured time, and within it
	taken       atomic.Int64
	each        []atomic.Int64 // count, by caller
	latencies   []int64        // ns, of a sample
	every       int64          // one in so many is sampled
	failed      atomic.Pointer[error]
}

// outcome is what a client process reports: finals within the measured time.
type outcome struct {
	Count   int64   `json:"count"`
	Total   int64   `json:"total"` // finals since begin, the warm-up included
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_us"`
	P99     float64 `json:"p99_us"`
	Even    float64 `json:"even"` // finals of the caller that had the fewest, to the mean; 0: not known

	Beside []beside `json:"beside,omitempty"` // by besideKinds

	cpu float64 // µs of all processes for each final; the harness's to fill in
}

func newLoad(w work) *load {
	l := &load{work: w, names: w.serviceNames(), base: time.Now(), latencies: make([]int64, maxSamples), every: 1, each: make([]atomic.Int64, w.InFlight)}
	if w.InFlight >= 100 {
		l.every = 8
	}
	l.from.Store(1 << 62)
	l.until.Store(1 << 62)
	return l
}

// now is the time of the load's clock, ns.
func (l *load) now() int64 { return int64(time.Since(l.base)) }

// begin starts the clock: the warm-up, then the measured time. The harness is
// told, which begins to count the processes' CPU time.
func (l *load) begin() {
	l.warm.Store(0)
	fmt.Println("begin")
	from := l.now() + int64(l.WarmMS)*1e6
	l.from.Store(from)
	l.until.Store(from + int64(l.MeasureMS)*1e6)
}

// service is the one that request n asks.
func (l *load) service(n int64) string {
	if len(l.names) == 1 {
		return l.names[0]
	}
	return l.names[n%int64(len(l.names))]
}

// done notes the final of request n, which was started at the given time, and
// says whether the load goes on.
func (l *load) done(n, started int64, err error) bool {
	if err != nil {
		l.failed.CompareAndSwap(nil, &err)
		return false
	}
	now := l.now()
	if now >= l.until.Load() {
		return false
	}
	if now >= l.from.Load() {
		l.count.Add(1) // warm is counted apart: one counter a final, not two
		if n%l.every == 0 {
			if i := l.taken.Add(1) - 1; i < maxSamples {
				l.latencies[i] = now - started
			}
		}
	} else {
		l.warm.Add(1)
	}
	return l.failed.Load() == nil
}

// err is the first failure of a request.
func (l *load) err() error {
	if e := l.failed.Load(); e != nil {
		return *e
	}
	return nil
}

// callers runs InFlight goroutines, each of which makes one call after another.
func (l *load) callers(c client) error {
	var wg sync.WaitGroup
	l.begin()
	for i := range l.InFlight {
		wg.Go(func() {
			for n := int64(i); ; n++ {
				started := l.now()
				counted := l.now() >= l.from.Load()
				if !l.done(n, started, c.call(l.service(n))) {
					return
				}
				if counted {
					l.each[i].Add(1)
				}
			}
		})
	}
	wg.Wait()
	return l.err()
}

// result is the tally; call it when no request is on its way any more, or when
// what is on its way no longer counts.
func (l *load) result() outcome {
	n := min(l.taken.Load(), maxSamples)
	p := percentiles(l.latencies[:n], 0.50, 0.99)
	fewest, sum := int64(1<<62), int64(0)
	for i := range l.each {
		k := l.each[i].Load()
		fewest, sum = min(fewest, k), sum+k
	}
	even := 0.0
	if sum > 0 {
		even = float64(fewest) * float64(len(l.each)) / float64(sum)
	}
	return outcome{Even: even, Count: l.count.Load(), Total: l.warm.Load() + l.count.Load(), Seconds: float64(l.MeasureMS) / 1000, P50: p[0] / 1000, P99: p[1] / 1000}
}

// checkPartials compares the partials that came with those that were asked for.
func (l work) checkPartials(got int) error {
	if got != l.Partials {
		return fmt.Errorf("%d partials, want %d", got, l.Partials)
	}
	return nil
}
