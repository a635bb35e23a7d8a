package conformance

import (
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/internal/leak"
	"github.com/zmq-omdp/omdp/internal/zsock"
)

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		os.Exit(runRole())
	}
	leak.Main(m, leak.Count("open sockets", zsock.OpenSockets), leak.Count("libzmq messages", zsock.Blocks))
}

// patience is that of the tests: a machine may be busy.
const patience = 10 * time.Second

// load reads the kit that is built in.
func load(t testing.TB) *Kit {
	t.Helper()
	k, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Every script runs against this library's own broker, worker or client, the
// checklist is the one in the repository, and no check of theirs is one that
// can't fail.
func TestOurs(t *testing.T) {
	t.Parallel()
	k := load(t)
	var checks checks
	o := Options{Driver: Ours(), Parallel: 32, Patience: patience, Trace: true, matched: checks.matched}
	results := Run(t.Context(), k.Scripts, o)
	again(t, k, results, o)
	failed := false
	for _, r := range results {
		deviates := deviates(r.Script)
		failed = failed || r.Failed() != deviates && r.Skipped == ""
		t.Run(r.Script.Name, func(t *testing.T) {
			if r.Skipped != "" {
				t.Skip(r.Skipped)
			}
			if deviates && r.Passed() {
				t.Error("it passes: it is no deviation any more")
			}
			if r.Failed() && !deviates {
				t.Errorf("line %d: %s\nwant %s\ngot  %s", r.Line, r.Step, r.Want, r.Got)
				for _, m := range r.Trace {
					t.Log(m)
				}
			}
		})
	}
	for _, v := range checks.vain {
		t.Errorf("%s: matches also %s", v.line, v.message)
	}
	if len(checks.vain) == 0 && checks.made < len(k.Scripts) {
		t.Errorf("checked only %d messages", checks.made)
	}
	have, err := os.ReadFile("../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	if !failed && string(have) != k.Document(results) {
		t.Error("docs/conformance.md is not what the kit says: run make conformance")
	}
}

// again plays what failed of what only should be, or may, a few times more: that a
// peer beats where it need not is how a busy machine keeps time, once.
func again(t *testing.T, k *Kit, results []Result, o Options) {
	for i := range results {
		for n := 0; n < 5 && results[i].Failed() && !k.bindingOf(results[i].Script); n++ {
			t.Logf("%s: again, after line %d: %s, got %s", results[i].Script.Name, results[i].Line, results[i].Step, results[i].Got)
			results[i] = Run(t.Context(), []*Script{results[i].Script}, o)[0]
		}
	}
}

// deviates tells whether a script shows nothing but what this library does not
// do on purpose.
func deviates(s *Script) bool {
	return !slices.ContainsFunc(s.Requirements, func(id string) bool { return deviations[id] == "" })
}

// checks tries with each message that a script expected what the script would
// have said to it if it had been another.
type checks struct {
	mu   sync.Mutex
	made int
	vain []struct{ line, message string }
}

func (c *checks) matched(x *exchange, s *step, m []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made++
	rest := s.frames[len(s.frames)-1].rest
	wrong := [][]string{m[:len(s.frames)-1]} // a frame is missing, and, where any number may follow, two are
	if rest {
		wrong = [][]string{m[:len(s.frames)-2]}
	} else {
		wrong = append(wrong, append(slices.Clone(m), "more"))
	}
	for i := range s.frames {
		if f := &s.frames[i]; fixed(f, x.vars) {
			other := slices.Clone(m)
			other[i] += "\x00"
			wrong = append(wrong, other)
		}
	}
	for _, m := range wrong {
		if matchAll(s.frames, m, maps.Clone(x.vars)) {
			c.vain = append(c.vain, struct{ line, message string }{x.script.Name + ": " + s.text, show(m)})
		}
	}
}

// fixed tells whether a script knows what the frame is.
func fixed(f *frame, v vars) bool {
	if f.any || f.rest || f.re != nil {
		return false
	}
	for _, p := range f.parts {
		if _, ok := v[p.variable]; p.variable != "" && !ok {
			return false
		}
	}
	return true
}

// The requirements that bind all have scripts, or say why not; that is held by
// Load. What can't be tested is little.
func TestRequirements(t *testing.T) {
	t.Parallel()
	k := load(t)
	for _, r := range k.Requirements {
		if r.Untested != "" && (r.Level == "SHALL" || r.Level == "SHALL NOT") {
			t.Errorf("%s is %s and is not tested: %s", r.ID, r.Level, r.Untested)
		}
		if deviations[r.ID] != "" && r.Binding() {
			t.Errorf("%s is %s and is not met", r.ID, r.Level)
		}
	}
	if n := len(k.Requirements); n < 100 {
		t.Errorf("got %d requirements, want all of them", n)
	}
	for _, s := range k.Scripts {
		if !slices.Contains([]string{"rfc7", "rfc8", "rfc18", "omdp"}, s.Name[:len(s.Name)-len(afterSlash(s.Name))-1]) {
			t.Errorf("%s is in no document's folder", s.Name)
		}
	}
}

func afterSlash(s string) string {
	for i := range s {
		if s[i] == '/' {
			return s[i+1:]
		}
	}
	return ""
}
