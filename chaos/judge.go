package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The rules, by their names in the promise: C1 each call ends once, C2 by its
// deadline, C3 and I4 partials in order and its own, C4 the outcome is right,
// K1 no handler runs twice for one dispatch (and none twice without
// Idempotent), I1 no cross-talk, I2 and I3 one end, I5 attempts never mix,
// I10 only the service that was asked, L1 all is well after healing.

// late is what a call may take over its limit: the client's own allowance for
// the broker's word that comes a moment later, and the machine's.
const (
	lateClient  = 50 * time.Millisecond
	lateMachine = 500 * time.Millisecond
)

// judge looks at everything that was read.
func (r *recorder) judge() {
	for _, l := range r.sortedLives() {
		if l.name == "" || l.bye || r.killed[l.name] {
			continue
		}
		r.violate("life", ident{}, "%s neither ended in order nor was killed", l.name)
	}
	ids := make([]ident, 0, len(r.calls))
	for id := range r.calls {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, compareIdents)
	for _, id := range ids {
		r.judgeCall(id, r.calls[id])
	}
}

func (r *recorder) sortedLives() []*life {
	all := make([]*life, 0, len(r.lives))
	for _, l := range r.lives {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *life) int { return cmp.Compare(a.name, b.name) })
	return all
}

func compareIdents(a, b ident) int {
	return cmp.Or(cmp.Compare(a.who, b.who), cmp.Compare(a.life, b.life), cmp.Compare(a.n, b.n))
}

func (r *recorder) judgeCall(id ident, c *call) {
	if c.begun == 0 {
		if len(c.runs) > 0 {
			r.violate("I1", id, "nobody made this call; runs %v", c.runs)
		}
		return
	}
	l := r.lives[lifeName(roleClient, int(id.who), int(id.life))]
	if l == nil {
		r.violate("log", id, "its client has no log")
		return
	}
	r.judgeRuns(id, c)
	r.judgePartials(id, c)
	if c.ends == 0 {
		if l.bye {
			r.violate("C1", id, "it never ended")
		}
		return
	}
	allowed := c.limit + c.slack + lateClient + lateMachine + l.away(c.begun, c.ended)
	if c.took > allowed {
		r.violate("C2", id, "it took %v; with a limit of %v, %v are allowed", c.took, c.limit, allowed)
	}
	r.judgeEnd(id, c)
	if c.calm && c.result != resultOK {
		r.violate("L1", id, "after healing it ended as %s, %s", c.result, c.outcome)
	}
}

// away is how long a process did not run between two times, or one of its
// threads did not: what several hiccups say of the same time counts once.
func (l *life) away(from, to int64) (sum time.Duration) {
	// A hiccup is written down at its end: those that end before from are over,
	// and only the ones that are shorter than a minute are looked for after to.
	first, _ := slices.BinarySearchFunc(l.hiccups, from, func(h hiccup, at int64) int { return cmp.Compare(h.until, at) })
	var spans [][2]int64
	for _, h := range l.hiccups[first:] {
		if h.until > to+int64(time.Minute) {
			break
		}
		if a, b := max(h.until-int64(h.took), from), min(h.until, to); a < b {
			spans = append(spans, [2]int64{a, b})
		}
	}
	slices.SortFunc(spans, func(a, b [2]int64) int { return cmp.Compare(a[0], b[0]) })
	done := from
	for _, s := range spans {
		if s[1] > done {
			sum += time.Duration(s[1] - max(s[0], done))
			done = s[1]
		}
	}
	return sum
}

// judgeRuns: how often handlers ran, and which.
func (r *recorder) judgeRuns(id ident, c *call) {
	most := 1
	if c.idem {
		most = maxAttempts
	}
	if len(c.runs) > most {
		r.violate("K1", id, "%d runs of handlers, %v, want at most %d", len(c.runs), c.runs, most)
	}
	attempts := map[int]ident{}
	for _, name := range c.runs {
		h := r.runs[name]
		if h.service != c.service {
			r.violate("I10", id, "run %v is of service %s, asked was %s", name, h.service, c.service)
		}
		if before, ok := attempts[h.attempt]; ok {
			r.violate("K1", id, "runs %v and %v are both of attempt %d", before, name, h.attempt)
		}
		attempts[h.attempt] = name
	}
}

// judgePartials: what came was sent, by a run of this call.
func (r *recorder) judgePartials(id ident, c *call) {
	if c.partials == 0 {
		return
	}
	h := r.runs[c.partialRun]
	switch {
	case h == nil || h.call != id:
		r.violate("I1", id, "its partials are of run %v, which is not its own", c.partialRun)
	case c.partials > h.sent:
		r.violate("I4", id, "%d partials came of run %v, which sent %d", c.partials, c.partialRun, h.sent)
	}
}

// judgeEnd: the end is a handler's own, whole, and the outcome is right.
func (r *recorder) judgeEnd(id ident, c *call) {
	finished := slices.ContainsFunc(c.runs, func(name ident) bool { return r.runs[name].result != "" })
	switch c.result {
	case resultOK, resultFailed:
		if c.outcome != outcomeExecuted {
			r.violate("C4", id, "it ended as %s and says %s", c.result, c.outcome)
		}
		h := r.runs[c.run]
		switch {
		case h == nil || h.call != id:
			r.violate("I1", id, "its final is of run %v, which is not its own", c.run)
			return
		case h.result != c.result:
			r.violate("I1", id, "it ended as %s, run %v as %q", c.result, c.run, h.result)
		}
		if c.count != h.count {
			r.violate("I1", id, "the final says %d partials, run %v sent %d", c.count, c.run, h.count)
		}
		if c.kind == string(kindCall) {
			return // it drops partials
		}
		if c.partials > 0 && c.partialRun != c.run {
			r.violate("I5", id, "the final is of run %v, the partials of run %v", c.run, c.partialRun)
		}
		if c.partials != c.count {
			r.violate("I4", id, "the final of run %v came after %d of %d partials", c.run, c.partials, c.count)
		}
	case resultOther:
		r.violate("C4", id, "it ended with an error that is none of the package's")
	}
	switch c.outcome {
	case outcomeNot, outcomeNotSent:
		if len(c.runs) > 0 {
			r.violate("C4", id, "it says %s (%s), and these handlers ran: %v", c.outcome, c.result, c.runs)
		}
	case outcomeExecuted:
		if !finished {
			r.violate("C4", id, "it says executed (%s), and no handler came to its end; runs %v", c.result, c.runs)
		}
	case outcomeMay:
	default:
		r.violate("C4", id, "unknown outcome %q", c.outcome)
	}
}

// A tally is what a run's last line says.
type tally struct {
	calls, unfinished int
	kinds             map[string]int // by how they ended
	errors            map[string]int // of those without a handler's word, by error and outcome
	runs, repeats     int            // of handlers; of these, second attempts and later
	latest            time.Duration  // the most that a call took over its limit
}

// kindsOf gives the ways to end, in the order of the last line.
var endings = []string{"ok", "failed by the handler", "executed with the result lost", "not sent", "not executed", "may have executed"}

func (r *recorder) tally() tally {
	t := tally{kinds: map[string]int{}, errors: map[string]int{}, runs: len(r.runs)}
	for _, h := range r.runs {
		if h.attempt > 1 {
			t.repeats++
		}
	}
	for _, c := range r.calls {
		t.calls++
		if c.ends == 0 {
			t.unfinished++
			continue
		}
		t.latest = max(t.latest, c.took-c.limit-c.slack)
		if c.result != resultOK && c.result != resultFailed {
			t.errors[c.result+" "+c.outcome]++
		}
		switch {
		case c.result == resultOK:
			t.kinds[endings[0]]++
		case c.result == resultFailed:
			t.kinds[endings[1]]++
		case c.outcome == outcomeExecuted:
			t.kinds[endings[2]]++
		case c.outcome == outcomeNotSent:
			t.kinds[endings[3]]++
		case c.outcome == outcomeNot:
			t.kinds[endings[4]]++
		default:
			t.kinds[endings[5]]++
		}
	}
	return t
}

func (t tally) String() string {
	var s strings.Builder
	s.WriteString(fmt.Sprintf("%d calls: ", t.calls))
	for i, name := range endings {
		if i > 0 {
			s.WriteString(", ")
		}
		s.WriteString(fmt.Sprintf("%d %s", t.kinds[name], name))
	}
	return s.String() + fmt.Sprintf(", %d of killed clients; %d handler runs, %d of a later attempt", t.unfinished, t.runs, t.repeats)
}
