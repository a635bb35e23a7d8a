package main

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

func TestHist(t *testing.T) {
	var a, b hist
	for i := 1; i <= 1000; i++ {
		h := &a
		if i%2 == 0 {
			h = &b
		}
		h.add(time.Duration(i) * time.Millisecond)
	}
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	var c hist
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	a.merge(c)
	for _, v := range []struct {
		q    float64
		want time.Duration
	}{{0.5, 500 * time.Millisecond}, {0.99, 990 * time.Millisecond}, {1, time.Second}, {0.001, time.Millisecond}} {
		got := a.quantile(v.q)
		if d := max(got, v.want) - min(got, v.want); d > v.want/50 {
			t.Errorf("quantile %v: got %v, want %v", v.q, got, v.want)
		}
	}
	if got := (&hist{}).quantile(0.99); got != 0 {
		t.Errorf("of nothing: got %v, want 0", got)
	}
}

// What grows by more than a tenth and more than a few is found, of each kind
// and in either direction; so is a process that was not there before.
func TestCompareFindsGrowth(t *testing.T) {
	base := usage{"broker", 100 << 20, 50 << 20, 100, 100}
	for _, v := range []struct {
		name  string
		after usage
		good  bool
	}{
		{"the same", base, true},
		{"a tenth more", usage{"broker", 110 << 20, 55 << 20, 110, 110}, true},
		{"memory", usage{"broker", 111 << 20, 50 << 20, 100, 100}, false},
		{"less memory", usage{"broker", 89 << 20, 50 << 20, 100, 100}, false},
		{"heap", usage{"broker", 100 << 20, 56 << 20, 100, 100}, false},
		{"goroutines", usage{"broker", 100 << 20, 50 << 20, 111, 100}, false},
		{"descriptors", usage{"broker", 100 << 20, 50 << 20, 100, 111}, false},
		{"another process", usage{"worker", 100 << 20, 50 << 20, 100, 100}, false},
	} {
		verdict := &verdict{quiet: true}
		compare(verdict, []usage{base}, []usage{v.after})
		if good := len(verdict.failed) == 0; good != v.good {
			t.Errorf("%s: got good %v (%v), want %v", v.name, good, verdict.failed, v.good)
		}
	}
	if grown(3, 5, fewDescriptors) {
		t.Error("3 and 5 descriptors: got grown, want a few that come and go")
	}
}

func TestOverloadIsJudged(t *testing.T) {
	ms := func(n ...int) (all []time.Duration) {
		for _, v := range n {
			all = append(all, time.Duration(v)*time.Millisecond)
		}
		return all
	}
	honest := taken{Begun: 100, OK: 60, Refused: 30, Others: map[string]int{
		"timeout, " + omdp.NotExecuted.String(): 6, "timeout, " + omdp.MayHaveExecuted.String(): 4,
	}}
	for _, v := range []struct {
		name   string
		change func(t *taken, ran *int64, over *[]time.Duration)
		failed string
	}{
		{"honest", func(*taken, *int64, *[]time.Duration) {}, ""},
		{"some that may have run did", func(_ *taken, ran *int64, _ *[]time.Duration) { *ran = 64 }, ""},
		{"one has not ended", func(t *taken, _ *int64, _ *[]time.Duration) { t.Begun++ }, "have not ended"},
		{"none is refused", func(t *taken, _ *int64, _ *[]time.Duration) { t.Begun, t.Refused = t.Begun-30, 0 }, "were refused"},
		{"another end", func(t *taken, _ *int64, _ *[]time.Duration) { t.Begun++; t.Others["broker_lost, may"] = 1 }, "ended as broker_lost"},
		{"one ran that says it did not", func(_ *taken, ran *int64, _ *[]time.Duration) { *ran = 65 }, "handlers ran"},
		{"one says it ran and did not", func(_ *taken, ran *int64, _ *[]time.Duration) { *ran = 59 }, "handlers ran"},
		{"the accepted wait too long", func(_ *taken, _ *int64, over *[]time.Duration) { *over = ms(10, 81, 90) }, "p99 of the accepted"},
	} {
		sum, ran, over := honest, int64(60), ms(70, 80, 90)
		sum.Others = map[string]int{}
		maps.Copy(sum.Others, honest.Others)
		v.change(&sum, &ran, &over)
		verdict := &verdict{quiet: true}
		judgeOverload(verdict, sum, ran, 1000, ms(30, 40, 50), over, ms(1))
		got := strings.Join(verdict.failed, "; ")
		if v.failed == "" && got != "" || v.failed != "" && (len(verdict.failed) != 1 || !strings.Contains(got, v.failed)) {
			t.Errorf("%s: got %q, want %q", v.name, got, v.failed)
		}
	}
}

// A paced load is due at even times, and calls that are late count from when
// they were due.
func TestLoadIsDueAtEvenTimes(t *testing.T) {
	r := &loadRole{}
	if at, ok := r.due(); ok {
		t.Errorf("without a pace: got due at %v", at)
	}
	r.setPace(100)
	r.from = r.from.Add(-95 * time.Millisecond)
	var got []time.Duration
	for at, ok := r.due(); ok && len(got) < 10; at, ok = r.due() {
		got = append(got, at.Sub(r.from))
	}
	for i, d := range got {
		if want := time.Duration(i) * 10 * time.Millisecond; d != want {
			t.Errorf("call %d: got due after %v, want %v", i, d, want)
		}
	}
	if len(got) != 10 {
		t.Errorf("got %d calls due, want 10", len(got))
	}
}

func TestTakenMerges(t *testing.T) {
	var sum taken
	for range 2 {
		one := taken{Begun: 4, OK: 1, Refused: 1, Others: map[string]int{"a": 1, "b": 1}, Open: 1}
		one.Good.add(time.Second)
		sum.merge(one)
	}
	if sum.Begun != 8 || sum.OK != 2 || sum.Refused != 2 || sum.others() != 4 || sum.Open != 2 || sum.Good.N != 2 {
		t.Errorf("got %+v", sum)
	}
	if got := median([]int{5, 1, 3}, func(n int) int { return n }); got != 3 {
		t.Errorf("median: got %d, want 3", got)
	}
}

func TestSteadyIsJudged(t *testing.T) {
	f := &family{rate: 100}
	if f.keepsUp(taken{Open: 50}) || !f.keepsUp(taken{Open: 49}) {
		t.Error("at 100 calls/s: 49 calls in progress are kept up with, 50 are not")
	}
	for _, v := range []struct {
		name string
		t    taken
		good bool
	}{
		{"all ok", taken{Begun: 1000, OK: 1000}, true},
		{"a few late", taken{Begun: 1000, OK: 995, Others: map[string]int{"timeout, may have executed": 5}}, true},
		{"many late", taken{Begun: 1000, OK: 980, Others: map[string]int{"timeout, may have executed": 20}}, false},
		{"refused", taken{Begun: 1000, OK: 999, Refused: 1}, false},
		{"lost", taken{Begun: 1000, OK: 999, Others: map[string]int{"worker_lost, may have executed": 1}}, false},
	} {
		if got := steadyGood(v.t); got != v.good {
			t.Errorf("%s: got %v, want %v", v.name, got, v.good)
		}
	}
}

// A client that is stuck is held against the phases around it, and one bad
// round among several does not count.
func TestAddedIsAgainstTheNeighbours(t *testing.T) {
	const ms = time.Millisecond
	var a added
	for _, base := range []time.Duration{10 * ms, 100 * ms, 50 * ms} { // the machine's own way
		a.take([5]time.Duration{base, base + 7*ms, base + 2*ms, base + 4*ms, base + 4*ms})
	}
	a.take([5]time.Duration{0, 900 * ms, 0, 900 * ms, 0})
	a.take([5]time.Duration{900 * ms, 0, 900 * ms, 0, 900 * ms})
	if got := median(a.unread, same); got != 6*ms {
		t.Errorf("not read: got %v, want 6ms", got)
	}
	if got := median(a.stopped, same); got != 1*ms {
		t.Errorf("stopped: got %v, want 1ms", got)
	}
	if got := a.most(); got != 6*ms {
		t.Errorf("the most of both: got %v, want 6ms", got)
	}
}
