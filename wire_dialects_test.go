package omdp

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// recordedDialects are the recordings besides OMDP's own.
var recordedDialects = []Dialect{OMDPFinal, PIGATO}

// TestRecordedDialectsAreRead: each recorded message is read by the codec of its
// dialect, where it was sent to.
func TestRecordedDialectsAreRead(t *testing.T) {
	for _, x := range recordedDialects {
		parsers := map[string]func([][]byte, *message) bool{"broker": wires[x].parseAtBroker, "client": wires[x].parseAtClient, "worker": wires[x].parseAtWorker}
		n := 0
		for _, rec := range recordedFrom(t, x) {
			n++
			var m message
			if !parsers[rec.To](rec.bytes(), &m) || m.dialect != x || m.worker != (rec.Frames[0] == "W") {
				t.Errorf("%s: %s at %d ms: the %s can't read %q", x, rec.Scenario, rec.MS, rec.To, rec.Frames)
			}
		}
		if n < 200 {
			t.Errorf("%s: only %d messages", x, n)
		}
	}
}

// TestRecordedDialects: what a recorded broker sent, ours sends, in the order of
// each peer, but for the differences named here.
func TestRecordedDialects(t *testing.T) {
	for _, x := range recordedDialects {
		byName := map[string][]record{}
		var names []string
		for _, r := range recordedFrom(t, x) {
			if byName[r.Scenario] == nil {
				names = append(names, r.Scenario)
			}
			byName[r.Scenario] = append(byName[r.Scenario], r)
		}
		if len(names) < 20 {
			t.Fatalf("%s: only %d scenarios", x, len(names))
		}
		for _, name := range names {
			t.Run(x.String()+"/"+name, func(t *testing.T) { replayDialect(t, x, name, byName[name]) })
		}
	}
}

func replayDialect(t *testing.T, x Dialect, name string, all []record) {
	r := &replay{d: newDispatcher(testLimits(), caps{V: 1, ID: "b", HB: 2500}, [32]byte{5}, 1), t: t}
	r.d.dialects[0] = x
	for _, rec := range all {
		if rec.From == "broker" && rec.Frames[0] == "W" && rec.Frames[1] == "2" {
			r.cid = rec.Frames[2]
		}
	}
	node := map[string][]string{}
	end := time.Duration(0)
	for _, rec := range all {
		end = time.Duration(rec.MS) * time.Millisecond
		if rec.From == "broker" {
			node[rec.To] = append(node[rec.To], strings.Join(rec.Frames, "|"))
		} else {
			r.send(rec)
		}
	}
	r.wait(end)
	ours := map[string][]string{}
	for _, s := range r.got {
		to, frames, _ := strings.Cut(s, "|")
		ours[to] = append(ours[to], frames)
	}
	for _, to := range []string{"client", "worker"} {
		theirs, mine := node[to], ours[to]
		for _, p := range dialectsOnPurpose {
			if p.dialect == x && (p.scenarios == "*" || slices.Contains(strings.Fields(p.scenarios), name)) {
				theirs, mine = p.mend(to, theirs, mine)
			}
		}
		if !slices.Equal(theirs, mine) {
			t.Errorf("to the %s the recorded broker sent\n  %s\nours sends\n  %s", to, strings.Join(theirs, "\n  "), strings.Join(mine, "\n  "))
		}
	}
}

// dialectsOnPurpose are the differences between those brokers and ours, with their reason.
var dialectsOnPurpose = []struct {
	dialect   Dialect
	scenarios string // "*": all
	reason    string
	mend      func(to string, node, ours []string) ([]string, []string)
}{
	{OMDPFinal, "*", "our broker beats every 2.5 s, the recorded one every 0.5 s", bareBeats},
	{PIGATO, "*", "the same; and it beats once more when a worker registers", bareBeats},
	{OMDPFinal, "*", "ours tells the worker that a client lives which has no way to say so", clientBeats},
	{PIGATO, "*", "the same", clientBeats},
	{OMDPFinal, "crash nothing null timeout_noworker timeout_silent undef vanish wstop", "the recorded broker tells nobody of a request that ended without an answer", ownErrors},
	{PIGATO, "crash emptydata nothing null timeout_noworker timeout_silent undef vanish wstop stopclient", "the same", ownErrors},
	{PIGATO, "stopclient", "the recorded broker forgot a request whose client stopped without a word; ours sends the answer to whoever may be there",
		func(to string, node, ours []string) ([]string, []string) {
			return node, slices.DeleteFunc(slices.Clone(ours), func(s string) bool { return strings.Contains(s, "foo-inactive") })
		}},
	{OMDPFinal, "crash wstop", "a worker that told no interval is lost after 15 s, not 1.5 s", farewells},
	{PIGATO, "*", "a worker that says DISCONNECT is not answered by DISCONNECT, which would have it register again", farewells},
}

// clientBeats takes out beats to workers for a request.
func clientBeats(to string, node, ours []string) ([]string, []string) {
	return node, slices.DeleteFunc(slices.Clone(ours), func(s string) bool { return to == "worker" && strings.HasPrefix(s, "W|4|") })
}

// ownErrors takes out what our broker says of a request that got no answer.
func ownErrors(to string, node, ours []string) ([]string, []string) {
	return node, slices.DeleteFunc(slices.Clone(ours), func(s string) bool {
		return to == "client" && strings.HasPrefix(s, "C|3|") && (strings.Contains(s, `"TIMEOUT"`) || strings.Contains(s, `"W_ERROR"`))
	})
}

func farewells(_ string, node, ours []string) ([]string, []string) { return without(node, "W|5"), ours }

// bareBeats takes out beats to workers for no request.
func bareBeats(to string, node, ours []string) ([]string, []string) {
	if to == "worker" {
		return without(node, "W|4"), without(ours, "W|4")
	}
	return node, ours
}
