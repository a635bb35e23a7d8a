package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/zmq-omdp/omdp"
)

// usage is what one process holds.
type usage struct {
	name        string
	memory      int64 // bytes, resident
	heap        int64 // of these, Go's
	goroutines  int
	descriptors int
}

// samples is of how many the median is taken.
const samples = 7

// measure gives what each process of a family holds, under the load but while
// nothing waits for a stuck client: the median of some samples.
func measure(ctx context.Context, f *family) ([]usage, error) {
	for until := time.Now().Add(10 * time.Second); ; {
		var s omdp.BrokerStats
		if err := f.broker.ask(ctx, "stats", &s); err != nil {
			return nil, err
		}
		if s.OutboxBytes == 0 || time.Now().After(until) {
			break
		}
		sleep(ctx, 20*time.Millisecond)
	}
	var all []usage
	for _, c := range f.all {
		var got [samples]usage
		for i := range got {
			var own selfUse
			if err := c.ask(ctx, "self", &own); err != nil {
				return nil, err
			}
			memory, err := resident(c.pid)
			if err != nil {
				return nil, err
			}
			files, err := descriptors(c.pid)
			if err != nil {
				return nil, err
			}
			got[i] = usage{c.name, memory, own.Heap, own.Goroutines, files}
			sleep(ctx, 100*time.Millisecond)
		}
		u := usage{name: c.name}
		u.memory = median(got[:], func(u usage) int64 { return u.memory })
		u.heap = median(got[:], func(u usage) int64 { return u.heap })
		u.goroutines = median(got[:], func(u usage) int { return u.goroutines })
		u.descriptors = median(got[:], func(u usage) int { return u.descriptors })
		all = append(all, u)
	}
	return all, nil
}

func median[T any, N int | int64 | time.Duration](all []T, of func(T) N) N {
	v := make([]N, len(all))
	for i := range all {
		v[i] = of(all[i])
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// grown tells whether b is more than a tenth over or under a, and by more than
// a few, which come and go: requests in progress have goroutines of their own.
func grown(a, b, few int64) bool {
	d := max(a, b) - min(a, b)
	return d > few && 10*d > a
}

// What comes and goes in any case: between what is in use some that is free
// can't be given back. A leak is more than that after some minutes.
const (
	fewBytes       = 2 << 20
	fewHeapBytes   = 1 << 20
	fewGoroutines  = 8
	fewDescriptors = 2
)

// compare holds the use at the end against that at the beginning, process by
// process, and says the sums.
func compare(v *verdict, before, after []usage) string {
	was := map[string]usage{}
	var a, b usage
	for _, u := range before {
		was[u.name] = u
		a = sum(a, u)
	}
	for _, u := range after {
		b = sum(b, u)
		w, ok := was[u.name]
		good := ok && !grown(w.memory, u.memory, fewBytes) && !grown(w.heap, u.heap, fewHeapBytes) &&
			!grown(int64(w.goroutines), int64(u.goroutines), fewGoroutines) &&
			!grown(int64(w.descriptors), int64(u.descriptors), fewDescriptors)
		v.note(good, "%-8s memory %s, then %s (Go's heap %s, then %s); goroutines %d, then %d; descriptors %d, then %d",
			u.name, mib(w.memory), mib(u.memory), mib(w.heap), mib(u.heap), w.goroutines, u.goroutines, w.descriptors, u.descriptors)
	}
	return fmt.Sprintf("memory %s, then %s, goroutines %d, then %d, descriptors %d, then %d",
		mib(a.memory), mib(b.memory), a.goroutines, b.goroutines, a.descriptors, b.descriptors)
}

func sum(a, b usage) usage {
	return usage{memory: a.memory + b.memory, heap: a.heap + b.heap, goroutines: a.goroutines + b.goroutines, descriptors: a.descriptors + b.descriptors}
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
