package omdp

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "play the one history of this seed")
	simFor   = flag.Duration("sim.time", 0, "play random histories for so long")
	simCount = flag.Uint64("sim.count", 0, "play so many random histories")
	simBase  = flag.Uint64("sim.base", 0, "the first seed; 0: from the clock")
	simShort = flag.Bool("sim.shrink", true, "make the first history that fails as short as it gets")
	simTail  = flag.Int("sim.tail", 400, "lines of the trace that are shown")
	simProf  = flag.Int("sim.threads", 0, "worlds at a time; 0: one for each processor")
)

const simEvents = 300

// simGate is what `make test` plays: the same histories in every run.
const simGate = 2000

// TestSim plays random histories against the real core, session, table and
// codec. See docs/simulation.md; `make sim` plays more of them.
func TestSim(t *testing.T) {
	switch {
	case *simSeed != 0:
		head, choices := simHistory(*simSeed, simEvents, nil)
		if newSimWorld().simTry(head, choices) != "" {
			t.Fatal(simReport(*simSeed, head, choices))
		}
		fmt.Printf("sim: seed %d holds\n", *simSeed)
	case *simFor > 0 || *simCount > 0:
		base := *simBase
		if base == 0 {
			base = uint64(time.Now().UnixNano())
		}
		simMany(t, base, *simCount, *simFor)
	default:
		simMany(t, 1, simGate, 0)
	}
}

// simReport shrinks a failing history and tells it.
func simReport(seed, head uint64, choices []choice) string {
	w := newSimWorld()
	w.tracing = false
	why := w.simTry(head, choices)
	short := simShrink(head, choices)
	return fmt.Sprintf("seed %d: %s\n%d of %d events are enough:\n\n%s\n%s", seed, why, len(short), len(choices),
		simText(why, head, short), simStory(head, short))
}

// simMany plays histories on all processors, until count are played or d is over.
func simMany(t *testing.T, base, count uint64, d time.Duration) {
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	threads := *simProf
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	var next, played, events atomic.Uint64
	var mu sync.Mutex
	failed := map[uint64]string{}
	start, cpu := time.Now(), cpuTime()
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			w := newSimWorld()
			var choices []choice
			for {
				n := next.Add(1) - 1
				if count > 0 && n >= count || d > 0 && n%16 == 0 && time.Since(start) > d {
					return
				}
				head, c := simHistory(base+n, simEvents, choices)
				choices = c
				if text := w.simTry(head, c); text != "" {
					mu.Lock()
					failed[base+n] = text
					stop := len(failed) >= 5 || testing.Short()
					mu.Unlock()
					w = newSimWorld()
					if stop {
						return
					}
				}
				played.Add(1)
				events.Add(uint64(w.events))
			}
		})
	}
	wg.Wait()
	used := cpuTime() - cpu
	seeds := slices.Sorted(maps.Keys(failed))
	for _, seed := range seeds {
		t.Errorf("seed %d: %s", seed, failed[seed])
	}
	if len(seeds) > 0 && *simShort && !testing.Short() {
		head, choices := simHistory(seeds[0], simEvents, nil)
		t.Errorf("%s\nmake sim SEED=%d plays it again", simReport(seeds[0], head, choices), seeds[0])
	}
	n := played.Load()
	fmt.Fprintf(os.Stdout, "sim: %d histories, %d events chosen, %d steps, %d violations, %.0f histories/s a thread, %.0f/s in all on %d, seed base %d\n",
		n, n*simEvents, events.Load(), len(failed), float64(n)/used.Seconds(), float64(n)/time.Since(start).Seconds(), threads, base)
}

// cpuTime is what this process has used of the processors: other processes of
// a busy machine do not count.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestSimFound plays the histories that once failed.
func TestSimFound(t *testing.T) {
	for _, name := range simFiles() {
		head, choices, err := readSim(name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if text := newSimWorld().simTry(head, choices); text != "" {
			t.Errorf("%s fails again: %s", name, simStory(head, choices))
		}
	}
}

// TestSimDeterministic: R4: the same history gives the same bytes, in whichever
// world it is played, and the scripts' form of it is the same history.
func TestSimDeterministic(t *testing.T) {
	used := newSimWorld()
	for seed := uint64(1); seed <= 40; seed++ {
		head, choices := simHistory(seed, simEvents, nil)
		var hashes [2]uint64
		for i, w := range []*simWorld{newSimWorld(), used} {
			w.hashing = true
			w.simTry(head, choices)
			hashes[i] = w.hash
		}
		if hashes[0] != hashes[1] {
			t.Errorf("R4: seed %d: two runs differ", seed)
		}
		h, c, err := parseSim(simText("why", head, choices))
		if err != nil || h != head || len(c) != len(choices) {
			t.Fatalf("seed %d: read back %d events, %v", seed, len(c), err)
		}
		for i := range c {
			if c[i] != choices[i] {
				t.Fatalf("seed %d: event %d: read back %v, want %v", seed, i, c[i], choices[i])
			}
		}
	}
}
