package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A row is one line of latest.json: medians over the rounds.
type row struct {
	Case  string  `json:"case"`
	Stack string  `json:"stack"`
	RPS   float64 `json:"rps"`
	P50   float64 `json:"p50_us"`
	P99   float64 `json:"p99_us"`
	Ratio float64 `json:"ratio_to_c"` // of rps; 0 where c was not measured

	CPU float64 `json:"cpu_us,omitempty"` // of all processes, user and system, for each request

	// Of the idle case only.
	Clients int     `json:"clients,omitempty"`
	MiB     float64 `json:"broker_rss_mib,omitempty"`
	BareMiB float64 `json:"broker_rss_mib_before,omitempty"`
	Idling  float64 `json:"broker_cpu_percent,omitempty"`

	// Of streams only.
	MB   float64 `json:"mb_per_s,omitempty"`
	Even float64 `json:"slowest_to_mean,omitempty"`

	// Of a stuck reader only.
	Beside map[string]beside `json:"beside,omitempty"` // by besideKinds

	low, high float64 // of rps
	failed    bool
	idle      bool
}

// apart tells that a row has a table of its own and is not in the first one.
func (w row) apart() bool { return w.idle || w.Beside != nil || w.MB > 0 && w.Even == 0 }

type report struct {
	rows    []row
	rounds  int
	timing  timing
	elapsed time.Duration
	machine string
	load    float64 // average before the run, -1 for unknown
}

func newReport(results []*result, p plan) *report {
	r := &report{rows: []row{}, rounds: p.done, timing: p.timing, elapsed: time.Since(p.started), machine: machine(), load: p.load}
	for _, res := range results {
		w := row{Case: res.Case, Stack: res.Stack, RPS: round(median(res.rps)), P50: round(median(res.p50)), P99: round(median(res.p99)), CPU: round(median(res.cpu))}
		w.failed = len(res.failures) > 0
		w.idle = res.Case == "idle"
		if len(res.rps) > 0 {
			w.low, w.high = slices.Min(res.rps), slices.Max(res.rps)
		}
		if res.mb > 0 {
			w.MB, w.Even = round(res.mb*median(res.rps)), round(median(res.even))
		}
		if i := res.idle; i != nil {
			w.Clients, w.MiB, w.BareMiB, w.Idling = i.clients, round(i.mib), round(i.bareMiB), round(i.cpu)
		}
		if len(res.beside) > 0 {
			w.Beside = map[string]beside{}
			for i, kind := range besideKinds {
				w.Beside[kind] = besideMedian(res.beside, i)
			}
		}
		if len(res.rps) == 0 && res.idle == nil && !w.failed {
			continue // interrupted before its first round
		}
		// A standing queue is what the latency of its requests is made of: it says nothing of the stack.
		if strings.HasPrefix(w.Case, "queue-") {
			w.P50, w.P99 = 0, 0
		}
		r.rows = append(r.rows, w)
	}
	for i := range r.rows {
		if c := r.find(r.rows[i].Case, "c"); c != nil && c.RPS > 0 {
			r.rows[i].Ratio = float64(int(r.rows[i].RPS/c.RPS*1000+0.5)) / 1000
		}
	}
	return r
}

// besideMedian is the median over the rounds of one kind.
func besideMedian(rounds [][]beside, kind int) beside {
	of := func(get func(beside) float64) float64 {
		var v []float64
		for _, r := range rounds {
			v = append(v, get(r[kind]))
		}
		return round(median(v))
	}
	return beside{
		Without: of(func(b beside) float64 { return b.Without }),
		With:    of(func(b beside) float64 { return b.With }),
		Ratio:   of(func(b beside) float64 { return b.Ratio }),
	}
}

// round keeps two digits behind the point, which is more than is known.
func round(v float64) float64 { return float64(int64(v*100+0.5)) / 100 }

func (r *report) find(name, stack string) *row {
	for i := range r.rows {
		if r.rows[i].Case == name && r.rows[i].Stack == stack {
			return &r.rows[i]
		}
	}
	return nil
}

func (r *report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r.rows, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "latest.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "latest.md"), []byte(r.markdown()), 0o644)
}

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Benchmark\n\n%s. Medians of %d rounds, stacks interleaved, %v measured each after %v of warm-up; %v in all.\n\n",
		r.machine, r.rounds, r.timing.measure, r.timing.warm, r.elapsed.Round(time.Second))
	if r.load > 0.5 {
		fmt.Fprintf(&b, "The machine was busy with something else (load average %.1f at the start): the figures are worth little.\n\n", r.load)
	}
	if slices.ContainsFunc(r.rows, func(w row) bool { return !w.apart() }) {
		r.table(&b)
	}
	r.streamTable(&b)
	r.besideTable(&b)
	r.idleTable(&b)
	r.targets(&b)
	b.WriteString("\n" + notes)
	return b.String()
}

func (r *report) table(b *strings.Builder) {
	b.WriteString("| case | stack | requests/s | min–max | p50 µs | p99 µs | of c | p50 to c | CPU µs |\n|---|---|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, w := range r.rows {
		switch {
		case w.apart():
		case w.failed:
			fmt.Fprintf(b, "| %s | %s | failed | | | | | | |\n", w.Case, w.Stack)
		default:
			p50 := ""
			if c := r.find(w.Case, "c"); c != nil && c.P50 > 0 {
				p50 = fmt.Sprintf("%.2f", w.P50/c.P50)
			}
			fmt.Fprintf(b, "| %s | %s | %s | %s–%s | %s | %s | %s | %s | %s |\n", w.Case, w.Stack, thousands(w.RPS), thousands(w.low), thousands(w.high),
				decimals(w.P50, "%.1f"), decimals(w.P99, "%.1f"), decimals(w.Ratio, "%.3f"), p50, decimals(w.CPU, "%.1f"))
		}
	}
}

func (r *report) streamTable(b *strings.Builder) {
	head := "\n| case | stack | MB/s | slowest caller to mean |\n|---|---|---:|---:|\n"
	for _, w := range r.rows {
		if w.MB > 0 {
			fmt.Fprintf(b, "%s| %s | %s | %s | %s |\n", head, w.Case, w.Stack, thousands(w.MB), decimals(w.Even, "%.2f"))
			head = ""
		}
	}
}

func (r *report) besideTable(b *strings.Builder) {
	head := "\n| case | stack | what goes on | without a stuck reader | beside it | ratio |\n|---|---|---|---:|---:|---:|\n"
	for _, own := range []bool{true, false} {
		name := dialects(dialectCallers, own).Name
		for _, s := range dialectStacks[1:] {
			if theirs, native := r.find(name, s), r.find(name, dialectStacks[0]); theirs != nil && native != nil && native.RPS > 0 {
				fmt.Fprintf(b, "%s| %s, %s to omdp | ≥ 0.7 | %.2f |\n", head, name, s, theirs.RPS/native.RPS)
				head = ""
			}
		}
	}
	for _, w := range r.rows {
		for _, kind := range besideKinds {
			if v, ok := w.Beside[kind]; ok {
				unit := "MB/s"
				if strings.HasPrefix(kind, "calls") {
					unit = "calls/s"
				}
				fmt.Fprintf(b, "%s| %s | %s | %s, %s | %s | %s | %.2f |\n", head, w.Case, w.Stack, kind, unit, thousands(v.Without), thousands(v.With), v.Ratio)
				head = ""
			}
		}
	}
}

func (r *report) idleTable(b *strings.Builder) {
	head := "\n| case | stack | clients | broker MiB | before | KiB a client | CPU, % of a core |\n|---|---|---:|---:|---:|---:|---:|\n"
	for _, w := range r.rows {
		if w.idle && !w.failed {
			fmt.Fprintf(b, "%s| idle | %s | %d | %.1f | %.1f | %.1f | %.2f |\n", head, w.Stack, w.Clients, w.MiB, w.BareMiB, (w.MiB-w.BareMiB)*1024/float64(w.Clients), w.Idling)
			head = ""
		}
	}
}

// targets sets what was measured beside what the project asks for.
func (r *report) targets(b *strings.Builder) {
	rps := func(w *row) float64 { return w.RPS }
	p50 := func(w *row) float64 { return w.P50 }
	head := "\n| target | wanted | measured |\n|---|---|---:|\n"
	for _, t := range []struct {
		name, against, wanted string
		of                    func(*row) float64
	}{
		{"pipeline-1000/16B", "c", "≥ 0.55", rps},
		{"pipeline-1000/16B", "zmq4", "≥ 2.5", rps},
		{"callers-1000/16B", "nats", "≥ 1.0", rps},
		{"callers-1/16B", "c", "p50 ≤ 1.6", p50},
		{"callers-16/64KiB", "c", "≥ 0.8", rps},
		{"callers-16/64KiB", "nats", "≥ 1.0", rps},
		{"stream-64MiB/1", "c", "≥ 0.8", rps},
		{delayedLink().Name, "tcp", "≥ 0.8", rps},
	} {
		ours, theirs := r.find(t.name, "omdp"), r.find(t.name, t.against)
		if ours == nil || theirs == nil || t.of(ours) == 0 || t.of(theirs) == 0 {
			continue
		}
		fmt.Fprintf(b, "%s| %s, omdp to %s | %s | %.2f |\n", head, t.name, t.against, t.wanted, t.of(ours)/t.of(theirs))
		head = ""
	}
	for _, w := range r.rows {
		for _, kind := range besideKinds {
			if v, ok := w.Beside[kind]; ok {
				fmt.Fprintf(b, "%s| %s, %s, with it to without | ≥ 0.9 | %.2f |\n", head, w.Case, kind, v.Ratio)
				head = ""
			}
		}
	}
}

const notes = `Notes
- Broker, worker and client are processes of their own on tcp loopback, new for each measurement. Payloads are equal: the same text as a JSON string, echoed.
- of c: the ratio of the requests/s. CPU µs: user and system time of all processes for each request, which says more than requests/s when something else runs on the machine.
- c keeps N requests in flight from one thread, also in the callers cases; with N = 1 it is a serial loop. zmq4 does the same with one caller and in pipelines, and else hands
  messages to the goroutine that owns its socket.
- nats has no asynchronous request: its pipeline is N goroutines. nats-pipelined keeps its reply inbox by hand, and both do for partials; NATS has no end of a stream and no queue of requests,
  so a final of its own ends the partials, and the queue sweep leaves it out.
- partials: 8 requests at a time, each answered by 1,000 partials and a final; requests/s counts the requests.
- stream: partials of 64 KiB, so many MiB in each answer, so many requests at a time; requests/s counts whole streams. c bounds nothing: it holds in memory what is ahead of the reader,
  and serves one request after another. The slowest caller to the mean is of finals, so a few a second say little of it.
- beside-stuck: two streams after another of 4 MiB to each of two clients, and two callers, all of one worker; every other slice of the time a stream more, to the first client, that
  nobody reads. The ratio is of a slice with it to the ones before and after it.
- delayed: one stream, worker to client, through a relay between client and broker: 25 ms in each direction, 200 MB/s. tcp is what plain TCP makes of the same relay. The second in which
  the window grows is not counted.
- c and zmq4 speak the protocol's native frames, one message in six. omdp's own peers agreed to put small messages into one frame; without that (towards Node peers, or bodies over 4 KiB)
  its pipeline was measured at 0.55 of c.
- dialects: 32 callers and 32 workers, one request at a time each, all of them omdp's own in that dialect. With "clients" each caller has a client, and so a connection, to itself on
  every stack; without, all have one client, which needs a connection for each in mdp02 and mdp01, where a request has no id.
- services: a worker and a connection for each service (NATS: one connection for up to 128), asked in turn. queue: so many requests stand in the broker's queue all the time.
- c and zmq4 send no heartbeats and hold no deadlines: they are the floor, not a broker that one could use. idle: one run.
`

func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// decimals is empty for 0, which means not measured.
func decimals(v float64, format string) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf(format, v)
}

// machine names what the numbers hang on, in general terms.
func machine() string {
	return fmt.Sprintf("%s, %d cores, %s %s, libzmq %s", cpuModel(), runtime.NumCPU(), runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH, libzmqVersion())
}

func libzmqVersion() string {
	bin, err := cStack()
	if err != nil {
		return "unknown"
	}
	out, err := exec.Command(bin, "version").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// loadAverage is how many processes wanted to run over the last minute, or -1.
func loadAverage() float64 {
	var load float64
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return -1
	}
	if _, err := fmt.Sscan(string(b), &load); err != nil {
		return -1
	}
	return load
}

// cpuModel is the maker and the family, without the exact part.
func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "CPU unknown"
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return generalModel(value)
		}
	}
	return "CPU unknown"
}

// generalModel drops marks, part numbers and clock rates from a model's name.
func generalModel(name string) string {
	var kept []string
	for word := range strings.FieldsSeq(strings.NewReplacer("(R)", "", "(TM)", "", "(r)", "", "(tm)", "").Replace(name)) {
		if word == "@" {
			break
		}
		if !strings.ContainsAny(word, "0123456789") && word != "CPU" && word != "Processor" {
			kept = append(kept, word)
		}
	}
	if len(kept) == 0 {
		return "CPU unknown"
	}
	return strings.Join(kept, " ")
}
