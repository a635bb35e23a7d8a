package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/internal/leak"
)

func TestMain(m *testing.M) {
	if text := orderedBy(); text != "" {
		playTestRole(text)
		return
	}
	leak.Main(m)
}

// A history is the logs of some processes, by the names of their lives.
type history struct {
	t    *testing.T
	logs map[string][]byte
	at   time.Time
}

func newHistory(t *testing.T) *history {
	h := &history{t: t, logs: map[string][]byte{}, at: time.Unix(1_700_000_000, 0)}
	for _, name := range []string{"client.1.1", "worker.0.1", "worker.2.1"} {
		h.say(name, wordLife, name, 7)
	}
	return h
}

func (h *history) say(log, word string, fields ...any) {
	h.at = h.at.Add(time.Millisecond)
	h.logs[log] = appendEvent(h.logs[log], h.at, word, fields...)
}

// lines says some lines, each LOG WORD FIELD…, with c for the client's log and
// w and v for those of a worker of each service.
func (h *history) lines(text string) {
	names := map[string]string{"c": "client.1.1", "w": "worker.0.1", "v": "worker.2.1", "h": "harness"}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		fields := make([]any, len(f)-2)
		for i, s := range f[2:] {
			fields[i] = s
		}
		h.say(names[f[0]], f[1], fields...)
	}
}

// judged reads the logs, workers before clients if so asked, and judges them.
func (h *history) judged(workersFirst bool) *recorder {
	h.t.Helper()
	names := []string{"client.1.1", "worker.0.1", "worker.2.1", "harness"}
	if workersFirst {
		slices.Reverse(names)
	}
	r := newRecorder()
	for _, name := range names {
		if err := r.read(name, strings.NewReader(string(h.logs[name]))); err != nil {
			h.t.Fatal(err)
		}
	}
	r.judge()
	return r
}

// well is a history in which all went well: a call of each kind and end.
const well = `
c begin 1.1.1 call even 1000000000 0 -
w start 1.1.1 0.1.1 even 1 rid-1
w finish 1.1.1 0.1.1 ok 0
c end 1.1.1 ok executed 0.1.1 0 3000000
c begin 1.1.2 stream odd 1000000000 0 idem
v start 1.1.2 2.1.1 odd 1 rid-2
v start 1.1.2 2.1.2 odd 2 rid-2
v send 1.1.2 2.1.2 0
c partial 1.1.2 2.1.2 0
v send 1.1.2 2.1.2 1
c partial 1.1.2 2.1.2 1
v finish 1.1.2 2.1.2 ok 2
c end 1.1.2 ok executed 2.1.2 2 3000000
c begin 1.1.3 request even 1000000000 0 -
w start 1.1.3 0.1.2 even 1 rid-3
w send 1.1.3 0.1.2 0
w send 1.1.3 0.1.2 1
c partial 1.1.3 0.1.2 0
c end 1.1.3 worker_lost may_have_executed 0.0.0 0 3000000 omdp: call even: worker lost
c begin 1.1.4 call even 1000000000 0 -
c end 1.1.4 no_worker not_executed 0.0.0 0 3000000 omdp: call even: no worker
c begin 1.1.5 call even 1000000000 0 calm
w start 1.1.5 0.1.3 even 1 rid-5
w finish 1.1.5 0.1.3 ok 0
c end 1.1.5 ok executed 0.1.3 0 3000000
c begin 1.1.6 request even 1000000000 0 -
w start 1.1.6 0.1.4 even 1 rid-6
w finish 1.1.6 0.1.4 failed 0
c end 1.1.6 failed executed 0.1.4 0 3000000 418
`

const bye = `
c bye
w bye
v bye
`

func TestRecorderFindsNothingWhereAllIsWell(t *testing.T) {
	for _, workersFirst := range []bool{false, true} {
		h := newHistory(t)
		h.lines(well + bye)
		r := h.judged(workersFirst)
		if len(r.violations) != 0 {
			t.Errorf("workers first %v: got violations %v, want none", workersFirst, r.violations)
		}
		got := r.tally()
		want := tally{calls: 6, runs: 6, repeats: 1, latest: got.latest, kinds: map[string]int{
			"ok": 3, "failed by the handler": 1, "not executed": 1, "may have executed": 1,
		}, errors: map[string]int{"no_worker not_executed": 1, "worker_lost may_have_executed": 1}}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// Each rule is broken once, and must be found under its name and no other.
func TestRecorderFindsEachViolation(t *testing.T) {
	for _, v := range []struct{ name, rule, more string }{
		{"a call that never ends", "C1", `c begin 1.1.9 call even 1000000000 0 -`},
		{"a call that ends twice", "C1", `c end 1.1.4 timeout may_have_executed 0.0.0 0 3000000`},
		{"a partial after the end", "C1", `c partial 1.1.3 0.1.2 1`},
		{"a call that ends too late", "C2", `
			c begin 1.1.9 call even 1000000000 0 -
			c end 1.1.9 timeout not_executed 0.0.0 0 1700000000`},
		{"a pause that explains a part of it", "C2", `
			c begin 1.1.9 call even 1000000000 0 -
			c hiccup 100000000
			c end 1.1.9 timeout not_executed 0.0.0 0 1700000000`},
		{"a partial of a call that was not made", "C3", `c partial 1.1.9 0.1.2 0`},
		{"a gap in the partials", "I4", `
			c begin 1.1.9 request even 1000000000 0 -
			w start 1.1.9 0.1.9 even 1 rid-9
			w send 1.1.9 0.1.9 0
			w send 1.1.9 0.1.9 1
			c partial 1.1.9 0.1.9 1
			c end 1.1.9 timeout may_have_executed 0.0.0 0 3000000`},
		{"a repeat in the partials", "I4", `
			c begin 1.1.9 request even 1000000000 0 -
			w start 1.1.9 0.1.9 even 1 rid-9
			w send 1.1.9 0.1.9 0
			w send 1.1.9 0.1.9 1
			c partial 1.1.9 0.1.9 0
			c partial 1.1.9 0.1.9 0
			c end 1.1.9 timeout may_have_executed 0.0.0 0 3000000`},
		{"a final after a gap", "I4", `
			c begin 1.1.9 stream even 1000000000 0 -
			w start 1.1.9 0.1.9 even 1 rid-9
			w send 1.1.9 0.1.9 0
			w finish 1.1.9 0.1.9 ok 1
			c end 1.1.9 ok executed 0.1.9 1 3000000`},
		{"more partials than were sent", "I4", `
			c begin 1.1.9 request even 1000000000 0 -
			w start 1.1.9 0.1.9 even 1 rid-9
			c partial 1.1.9 0.1.9 0
			c end 1.1.9 timeout may_have_executed 0.0.0 0 3000000`},
		{"partials of two attempts", "I5", `
			c begin 1.1.9 request even 1000000000 0 idem
			w start 1.1.9 0.1.8 even 1 rid-9
			w start 1.1.9 0.1.9 even 2 rid-9
			w send 1.1.9 0.1.8 0
			w send 1.1.9 0.1.9 0
			w send 1.1.9 0.1.9 1
			c partial 1.1.9 0.1.8 0
			c partial 1.1.9 0.1.9 1
			c end 1.1.9 timeout may_have_executed 0.0.0 0 3000000`},
		{"a final of another attempt than the partials", "I5", `
			c begin 1.1.9 request even 1000000000 0 idem
			w start 1.1.9 0.1.8 even 1 rid-9
			w start 1.1.9 0.1.9 even 2 rid-9
			w send 1.1.9 0.1.8 0
			w finish 1.1.9 0.1.9 ok 1
			c partial 1.1.9 0.1.8 0
			c end 1.1.9 ok executed 0.1.9 1 3000000`},
		{"another call's content", "I1", `c bad 1.1.3 partial: it is of call 1.1.1`},
		{"another call's partials", "I1", `
			c begin 1.1.9 request even 1000000000 0 -
			c partial 1.1.9 0.1.2 0
			c end 1.1.9 timeout may_have_executed 0.0.0 0 3000000`},
		{"another call's final", "I1", `
			c begin 1.1.9 call even 1000000000 0 -
			w start 1.1.9 0.1.9 even 1 rid-9
			w finish 1.1.9 0.1.9 ok 0
			c end 1.1.9 ok executed 0.1.1 0 3000000`},
		{"a good end of a handler that failed", "I1", `
			c begin 1.1.9 call even 1000000000 0 -
			w start 1.1.9 0.1.9 even 1 rid-9
			w finish 1.1.9 0.1.9 failed 0
			c end 1.1.9 ok executed 0.1.9 0 3000000`},
		{"a handler for a call that nobody made", "I1", `w start 1.1.9 0.1.9 even 1 rid-9`},
		{"a handler of the wrong service", "I10", `
			c begin 1.1.9 call even 1000000000 0 -
			v start 1.1.9 2.1.9 odd 1 rid-9
			v finish 1.1.9 2.1.9 ok 0
			c end 1.1.9 ok executed 2.1.9 0 3000000`},
		{"two runs of a call that is not idempotent", "K1", `
			c begin 1.1.9 call even 1000000000 0 -
			w start 1.1.9 0.1.8 even 1 rid-9
			w start 1.1.9 0.1.9 even 2 rid-9
			w finish 1.1.9 0.1.9 ok 0
			c end 1.1.9 ok executed 0.1.9 0 3000000`},
		{"too many attempts", "K1", `
			c begin 1.1.9 call even 1000000000 0 idem
			w start 1.1.9 0.1.6 even 1 rid-9
			w start 1.1.9 0.1.7 even 2 rid-9
			w start 1.1.9 0.1.8 even 3 rid-9
			w start 1.1.9 0.1.9 even 4 rid-9
			c end 1.1.9 timeout may_have_executed 0.0.0 0 3000000`},
		{"two runs of one attempt", "K1", `
			c begin 1.1.9 call even 1000000000 0 idem
			w start 1.1.9 0.1.8 even 1 rid-9
			w start 1.1.9 0.1.9 even 1 rid-9
			c end 1.1.9 timeout may_have_executed 0.0.0 0 3000000`},
		{"two ends of a handler", "K4", `w finish 1.1.6 0.1.4 failed 0`},
		{"not executed, and a handler ran", "C4", `
			c begin 1.1.9 call even 1000000000 0 -
			c end 1.1.9 timeout not_executed 0.0.0 0 3000000
			w start 1.1.9 0.1.9 even 1 rid-9`},
		{"not sent, and a handler ran", "C4", `
			c begin 1.1.9 call even 1000000000 0 -
			c end 1.1.9 canceled not_sent 0.0.0 0 3000000
			w start 1.1.9 0.1.9 even 1 rid-9`},
		{"executed, and no handler ended", "C4", `
			c begin 1.1.9 call even 1000000000 0 -
			w start 1.1.9 0.1.9 even 1 rid-9
			c end 1.1.9 broker_lost executed 0.0.0 0 3000000`},
		{"a good end that may not have executed", "C4", `
			c begin 1.1.9 call even 1000000000 0 -
			w start 1.1.9 0.1.9 even 1 rid-9
			w finish 1.1.9 0.1.9 ok 0
			c end 1.1.9 ok may_have_executed 0.1.9 0 3000000`},
		{"an error of nobody's", "C4", `
			c begin 1.1.9 call even 1000000000 0 -
			c end 1.1.9 other may_have_executed 0.0.0 0 3000000 EOF`},
		{"a failure after healing", "L1", `
			c begin 1.1.9 call even 1000000000 0 calm
			c end 1.1.9 broker_lost may_have_executed 0.0.0 0 3000000`},
	} {
		t.Run(v.name, func(t *testing.T) {
			h := newHistory(t)
			h.lines(well + v.more + bye)
			for _, workersFirst := range []bool{false, true} {
				got := h.judged(workersFirst).violations
				if len(got) != 1 || got[0].rule != v.rule {
					t.Errorf("workers first %v: got %v, want one violation of %s", workersFirst, got, v.rule)
				}
			}
		})
	}
}

func TestRecorderFindsDeaths(t *testing.T) {
	h := newHistory(t)
	h.lines(well + "c bye\nw bye")
	if got := h.judged(false).violations; len(got) != 1 || got[0].rule != "life" {
		t.Errorf("a worker that ended by itself: got %v, want one violation of life", got)
	}
	h.lines("h kill worker.2.1")
	if got := h.judged(false).violations; len(got) != 0 {
		t.Errorf("a worker that was killed: got %v, want none", got)
	}
}

// A killed client's calls need no end, and its last line may be cut short; the
// time that a process did not run is taken off its delays.
func TestRecorderMakesAllowances(t *testing.T) {
	h := newHistory(t)
	h.lines(well + `
		c begin 1.1.9 call even 1000000000 0 -
		c hiccup 900000
		c end 1.1.9 timeout not_executed 0.0.0 0 2000000000
		c begin 1.1.10 call even 1000000000 0 -
		h kill client.1.1
		w bye
		v bye`)
	if got := h.judged(false).violations; len(got) != 1 || got[0].rule != "C2" {
		t.Errorf("a pause of 0.9 ms: got %v, want one violation of C2", got)
	}
	r := newRecorder()
	l := &life{hiccups: []hiccup{{until: 900, took: 100}, {until: 1000, took: 300}, {until: 1950, took: 20}, {until: 2000, took: 100}}}
	for _, v := range []struct {
		from, to int64
		want     time.Duration
	}{{0, 5000, 400}, {800, 5000, 300}, {0, 1950, 350}, {1100, 1800, 0}, {1960, 1970, 10}} {
		if got := l.away(v.from, v.to); got != v.want {
			t.Errorf("away from %d to %d: got %d, want %d", v.from, v.to, got, v.want)
		}
	}
	if err := r.read("cut", strings.NewReader("1 life client.1.1 7\n2 begin 1.1.1 call ev")); err != nil {
		t.Errorf("a line that is cut short: %v", err)
	}
	if err := r.read("bad", strings.NewReader("1 begin 1.1 call even\n")); err == nil {
		t.Error("a line that can't be read: got no error")
	}
}
