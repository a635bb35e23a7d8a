package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPercentiles(t *testing.T) {
	v := make([]int64, 101)
	for i := range v {
		v[i] = int64(100 - i)
	}
	got := percentiles(v, 0, 0.50, 0.99, 1)
	for i, want := range []float64{0, 50, 99, 100} {
		if got[i] != want {
			t.Errorf("percentile %d: got %v, want %v", i, got[i], want)
		}
	}
	if got := percentiles(nil, 0.5); got[0] != 0 {
		t.Errorf("of nothing: got %v, want 0", got[0])
	}
	if got := percentiles([]int64{7}, 0.5, 0.99); got[0] != 7 || got[1] != 7 {
		t.Errorf("of one: got %v, want 7 twice", got)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		v    []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.v); got != c.want {
			t.Errorf("median of %v: got %v, want %v", c.v, got, c.want)
		}
	}
}

func TestGeneralModel(t *testing.T) {
	for name, want := range map[string]string{
		" AMD EPYC 7B13": "AMD EPYC",
		" Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz": "Intel Xeon Platinum",
		" 1234": "CPU unknown",
	} {
		if got := generalModel(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}

func TestReport(t *testing.T) {
	p := plan{done: 3, timing: fullTiming, started: time.Now()}
	r := newReport([]*result{
		{Case: "pipeline-1000/16B", Stack: "omdp", rps: []float64{150000, 120000, 130000}, p50: []float64{6000, 8000, 7000}, p99: []float64{9000, 9000, 9000}, cpu: []float64{14.5}},
		{Case: "pipeline-1000/16B", Stack: "c", rps: []float64{200000, 200000, 200000}, p50: []float64{5000, 5000, 5000}, p99: []float64{8000, 8000, 8000}},
		{Case: "queue-1000", Stack: "c", rps: []float64{1000}, p50: []float64{5}, p99: []float64{6}},
		{Case: "idle", Stack: "omdp", idle: &idleResult{clients: 1000, mib: 30, bareMiB: 10, cpu: 0.5}},
		{Case: "delayed-50ms/1", Stack: "omdp", rps: []float64{1000, 3000, 2000}, mb: 0.05},
		{Case: "delayed-50ms/1", Stack: "tcp", rps: []float64{4000}, mb: 0.05},
		{Case: "beside-stuck", Stack: "omdp", rps: []float64{9}, beside: [][]beside{
			{{100, 50, 0.5}, {100, 90, 0.9}, {7000, 7000, 1}},
			{{120, 60, 0.6}, {110, 99, 0.9}, {7000, 7000, 1}},
			{{110, 99, 0.9}, {120, 108, 0.9}, {7000, 7000, 1}},
		}},
		{Case: "callers-1/16B", Stack: "nats"}, // interrupted before it had a round
	}, p)
	dir := t.TempDir()
	if err := r.write(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "latest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 7 {
		t.Fatalf("got %d rows, want 7", len(rows))
	}
	for i, row := range rows {
		for _, key := range []string{"case", "stack", "rps", "p50_us", "p99_us", "ratio_to_c"} {
			if _, ok := row[key]; !ok {
				t.Errorf("row %d has no %s", i, key)
			}
		}
	}
	if got := rows[0]; got["rps"] != 130000.0 || got["p50_us"] != 7000.0 || got["ratio_to_c"] != 0.65 {
		t.Errorf("got %v, want the medians and 0.65 of c", got)
	}
	if got := rows[2]["p50_us"]; got != 0.0 {
		t.Errorf("latency of a standing queue: got %v, want none", got)
	}
	md, err := os.ReadFile(filepath.Join(dir, "latest.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| pipeline-1000/16B | omdp | 130,000 | 120,000–150,000 | 7000.0 | 9000.0 | 0.650 | 1.40 | 14.5 |",
		"| idle | omdp | 1000 | 30.0 | 10.0 | 20.5 | 0.50 |",
		"| pipeline-1000/16B, omdp to c | ≥ 0.55 | 0.65 |",
		"| delayed-50ms/1 | omdp | 100 |  |",
		"| delayed-50ms/1, omdp to tcp | ≥ 0.8 | 0.50 |",
		"| beside-stuck | omdp | streams, same client, MB/s | 110 | 60 | 0.60 |",
		"| beside-stuck | omdp | calls, another client, calls/s | 7,000 | 7,000 | 1.00 |",
		"| beside-stuck, streams, same client, with it to without | ≥ 0.9 | 0.60 |",
		"Medians of 3 rounds", "cores", "go1.", "libzmq",
	} {
		if !strings.Contains(string(md), want) {
			t.Errorf("the table lacks %q:\n%s", want, md)
		}
	}
	for _, not := range []string{"| delayed-50ms/1 | omdp | 2,000", "| beside-stuck | omdp | 9"} { // no requests
		if strings.Contains(string(md), not) {
			t.Errorf("the table has %q:\n%s", not, md)
		}
	}
}

// Each slice with a stuck reader is held against those around it, and one bad
// slice among several does not count.
func TestBesideIsAgainstTheNeighbours(t *testing.T) {
	var slices [][3]float64
	for _, v := range []float64{100, 90, 100, 180, 300, 100, 100, 1, 100} { // the machine's own way
		slices = append(slices, [3]float64{1, v, 1})
	}
	got := besideOf(slices, 1)
	if want := (beside{Without: 100, With: 95, Ratio: 0.7}); got.Without != want.Without || got.With != want.With || got.Ratio < 0.69 || got.Ratio > 0.71 {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := besideOf(make([][3]float64, 9), 0); got.Ratio != 0 {
		t.Errorf("of nothing: got %+v, want 0", got)
	}
}

func TestThousands(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 1234567.8: "1,234,568"} {
		if got := thousands(v); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
}

func TestChoose(t *testing.T) {
	p := plan{cases: cases(64)}
	if err := p.choose("callers-16/", []string{"c"}); err != nil {
		t.Fatal(err)
	}
	if len(p.cases) != 2 || len(p.cases[0].Stacks) != 1 || p.cases[0].Stacks[0] != "c" {
		t.Errorf("got %+v, want the two callers-16 cases on c", p.cases)
	}
	for _, bad := range []struct{ text, stack string }{{"nothing like it", "c"}, {"", "grpc"}} {
		p := plan{cases: cases(64)}
		if err := p.choose(bad.text, []string{bad.stack}); err == nil {
			t.Errorf("choose(%q, %q): no error", bad.text, bad.stack)
		}
	}
	if got := len(quickCases()); got != 3 {
		t.Errorf("the quick run has %d cases, want 3", got)
	}
}
