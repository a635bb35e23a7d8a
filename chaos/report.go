package main

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// shown is how many violations are printed with their lines.
const shown = 12

// report prints what went wrong, each with the lines of the logs that tell of
// it, and says whether anything did.
func (w *world) report(rec *recorder) bool {
	for _, s := range w.wrong {
		fmt.Printf("chaos: VIOLATION: %s\n", s)
	}
	for i, v := range rec.violations {
		if i == shown {
			fmt.Printf("chaos: … and %d more\n", len(rec.violations)-i)
			break
		}
		fmt.Printf("chaos: VIOLATION: %s\n", v)
		for _, line := range rec.lines(v) {
			fmt.Printf("    %s\n", line)
		}
	}
	return len(w.wrong)+len(rec.violations) > 0
}

// lines gives all lines of a violation's call, and what the harness did from a
// second before it began until it ended, in the order of time.
func (r *recorder) lines(v violation) []string {
	if v.call == (ident{}) {
		return nil
	}
	c := r.calls[v.call]
	var from, to int64
	if c != nil && c.begun != 0 {
		from, to = c.begun-int64(2*time.Second), cmp.Or(c.ended, c.begun+int64(c.limit))+int64(200*time.Millisecond)
	}
	peer := " " + string(roleClient) + "." + strconv.Itoa(int(v.call.who)) + "."
	var all []string
	for _, name := range r.files {
		all = append(all, grep(name, func(line string) bool {
			e, err := parseEvent(line)
			if err != nil {
				return false
			}
			if e.field(0) == v.call.String() {
				return true
			}
			within := e.at >= from && e.at <= to
			switch {
			case filepath.Base(name) != "harness.log":
				return within && (e.word == wordState || e.word == wordHiccup) && strings.HasPrefix(filepath.Base(name), lifeName(roleClient, int(v.call.who), int(v.call.life))+".")
			case strings.Contains(line, " client.") && !strings.Contains(line, peer):
				return false // another client's fate
			}
			return within
		})...)
	}
	slices.Sort(all) // by time, as all times have the same number of digits
	return all
}

func grep(name string, want func(line string) bool) (found []string) {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		if want(in.Text()) {
			found = append(found, fmt.Sprintf("%s  (%s)", in.Text(), filepath.Base(name)))
		}
	}
	return found
}

// summary prints the last line.
func (w *world) summary(rec *recorder) {
	t, n := rec.tally(), w.counts
	fmt.Printf("chaos: errors by outcome: %v; the latest end was %v after its limit\n", t.errors, t.latest.Round(time.Millisecond))
	fmt.Printf("chaos: %v seed %d: %v; killed broker %d, workers %d, clients %d; cut %d, half-open %d, delayed %d, throttled %d, stopped %d, left %d; violations %d\n",
		w.length, w.seed, t,
		n["kill broker"], n["kill worker"], n["kill client"], n["cut"], n["half"], n["delay"], n["throttle"],
		n["stop broker"]+n["stop worker"]+n["stop client"], n["leave broker"]+n["leave worker"]+n["leave client"], len(w.wrong)+len(rec.violations))
}
