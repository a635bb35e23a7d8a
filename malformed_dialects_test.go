package omdp

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A field of a message that is as it should be, by what it is; what stands for
// it in a message that is not, by name.
type dialectField struct{ kind, value string }

var wrongFields = map[string]map[string]string{
	"header":  {"empty": "", "in lower case": "mdpc02", "with a space": "MDPC02 ", "of a later version": "MDPC03", "one letter": "M", "of nobody": "Q"},
	"letter":  {"empty": "", "in lower case": "c", "twice": "CC", "of nobody": "Q"},
	"byte":    {"missing its byte": "", "zero": "\x00", "a digit": "1", "twice": "\x01\x01", "seven": "\x07", "255": "\xff"},
	"digit":   {"missing its digit": "", "zero": "0", "a word": "two", "with a space": "2 ", "14": "14", "negative": "-2", "a byte of zero": "\x00"},
	"service": {"empty": "", "too long": strings.Repeat("s", 256)},
	"token":   {"empty": "", "too long": strings.Repeat("t", 256)},
	"rid":     {"empty": "", "too long": strings.Repeat("r", 65)},
	"blank":   {"not empty": "x", "a space": " "},
	"status":  {"empty": "", "1": "1", "200": "200", "a word": "ok"},
	"level":   {"empty": "", "no JSON": "{", "an array": "[]", "a word": `"5"`, "zero": `{"concurrency":0}`, "text": `{"concurrency":"5"}`, "too long": `{"concurrency":5` + strings.Repeat(" ", 5000) + "}"},
}

type dialectMessage struct {
	name   string
	worker bool
	fields []dialectField
	rest   int // fields from here on may be missing
}

// fieldsOf reads "kind=value|kind=value"; after a field "?" they may be missing.
func fieldsOf(name string, worker bool, text string) dialectMessage {
	m := dialectMessage{name: name, worker: worker, rest: -1}
	for f := range strings.SplitSeq(text, "|") {
		if f == "?" {
			m.rest = len(m.fields)
			continue
		}
		kind, value, _ := strings.Cut(f, "=")
		m.fields = append(m.fields, dialectField{kind, value})
	}
	if m.rest < 0 {
		m.rest = len(m.fields)
	}
	return m
}

func (m dialectMessage) frames() (f []string) {
	for _, x := range m.fields {
		f = append(f, x.value)
	}
	return f
}

// dialectMessages are all that peers of a dialect say, with T for the token and
// R for the id of the request that the worker holds.
var dialectMessages = map[Dialect][]dialectMessage{
	MDP02: {
		fieldsOf("REQUEST", false, "header=MDPC02|byte=\x01|service=s|body=x"),
		fieldsOf("READY", true, "header=MDPW02|byte=\x01|service=s"),
		fieldsOf("PARTIAL", true, "header=MDPW02|byte=\x03|token=T|blank=|body=x"),
		fieldsOf("FINAL", true, "header=MDPW02|byte=\x04|token=T|blank=|body=x"),
		fieldsOf("HEARTBEAT", true, "header=MDPW02|byte=\x05"),
		fieldsOf("DISCONNECT", true, "header=MDPW02|byte=\x06"),
	},
	MDP01: {
		fieldsOf("REQUEST", false, "blank=|header=MDPC01|service=s|body=x"),
		fieldsOf("READY", true, "blank=|header=MDPW01|byte=\x01|service=s"),
		fieldsOf("REPLY", true, "blank=|header=MDPW01|byte=\x03|token=T|blank=|body=x"),
		fieldsOf("HEARTBEAT", true, "blank=|header=MDPW01|byte=\x04"),
		fieldsOf("DISCONNECT", true, "blank=|header=MDPW01|byte=\x05"),
	},
	OMDPFinal: {
		fieldsOf("REQUEST", false, "letter=C|digit=2|service=s|rid=new|data=1|?|options={}"),
		fieldsOf("HEARTBEAT of a client", false, "letter=C|digit=4"),
		fieldsOf("READY", true, "letter=W|digit=1|service=s"),
		fieldsOf("PARTIAL", true, "letter=W|digit=6|token=T|rid=R|status=0|data=1"),
		fieldsOf("REPLY", true, "letter=W|digit=3|token=T|rid=R|status=0|data=1"),
		fieldsOf("HEARTBEAT", true, "letter=W|digit=4"),
		fieldsOf("DISCONNECT", true, "letter=W|digit=5"),
	},
	PIGATO: {
		fieldsOf("REQUEST", false, "letter=C|digit=2|service=s|rid=new|data=1|?|options={}"),
		fieldsOf("HEARTBEAT of a client", false, "letter=C|digit=4"),
		fieldsOf("HEARTBEAT of a client for a request", false, "letter=C|digit=4|word=request|rid=R"),
		fieldsOf("READY", true, "letter=W|digit=1|service=s"),
		fieldsOf("PARTIAL", true, "letter=W|digit=6|token=T|blank=|rid=R|status=0|data=1|?|options={}"),
		fieldsOf("REPLY", true, "letter=W|digit=3|token=T|blank=|rid=R|status=0|data=1|?|options={}"),
		fieldsOf("REJECT", true, "letter=W|digit=7|token=T|blank=|rid=R"),
		fieldsOf("HEARTBEAT", true, `letter=W|digit=4|blank=|level={"concurrency":1}`),
		fieldsOf("DISCONNECT", true, "letter=W|digit=5"),
	},
}

type dialectCase struct {
	name   string
	worker bool // it is a worker's message, as far as it goes
	frames []string
}

// dialectCases makes everything wrong with the messages of a dialect, a thing at
// a time. What is still well-formed, and so is another message, is not among them.
func dialectCases(x Dialect) []dialectCase {
	return wrongCases(x, dialectMessages, wires[x].parseAtBroker)
}

// wrongCases does so for the messages that parse reads.
func wrongCases(x Dialect, messages map[Dialect][]dialectMessage, parse func([][]byte, *message) bool) (all []dialectCase) {
	seen := map[string]bool{}
	add := func(m dialectMessage, what string, frames []string) {
		var parsed message
		var f [][]byte
		for _, s := range frames {
			f = append(f, []byte(strings.NewReplacer("T", "token-of-22-characters").Replace(s)))
		}
		if key := strings.Join(frames, "|"); !seen[key] && !parse(f, &parsed) {
			seen[key] = true
			all = append(all, dialectCase{m.name + ": " + what, m.worker, frames})
		}
	}
	for _, m := range messages[x] {
		good := m.frames()
		for i, field := range m.fields {
			for name, value := range wrongFields[field.kind] {
				f := slices.Clone(good)
				f[i] = value
				add(m, fmt.Sprintf("%s %d %s", field.kind, i, name), f)
			}
			if i < m.rest {
				add(m, fmt.Sprintf("ends before %s %d", field.kind, i), good[:i])
				add(m, fmt.Sprintf("without %s %d", field.kind, i), slices.Delete(slices.Clone(good), i, i+1))
			}
		}
		for n := range 3 {
			add(m, fmt.Sprintf("%d frames more", n+1), append(slices.Clone(good), []string{"x", "", "{}"}[:n+1]...))
		}
		add(m, "17 frames", append(slices.Clone(good), slices.Repeat([]string{"x"}, 17-len(good))...))
		add(m, "backwards", reversed(good))
		add(m, "an empty frame first", append([]string{""}, good...))
		add(m, "two empty frames first", append([]string{"", ""}, good...))
		for _, other := range []Dialect{MDP02, MDP01, PIGATO} {
			for _, o := range messages[other] {
				if other != x && o.worker == m.worker && o.name == m.name {
					add(m, "as of "+other.String(), o.frames())
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b dialectCase) int { return strings.Compare(a.name, b.name) }) // wrongFields is a map
	return all
}

func reversed(f []string) []string {
	f = slices.Clone(f)
	slices.Reverse(f)
	return f
}

// TestMalformedDialects: each of these, from a stranger, a client and a worker
// that has a request, is counted against its sender alone.
func TestMalformedDialects(t *testing.T) {
	for x := range dialectMessages {
		cases := dialectCases(x)
		if len(cases) < 100 {
			t.Errorf("%s: only %d cases", x, len(cases))
		}
		for _, c := range cases {
			for _, from := range []string{"stranger", "client", "worker"} {
				t.Run(fmt.Sprintf("%s/%s from a %s", x, c.name, from), func(t *testing.T) { playMalformed(t, x, c, from) })
			}
		}
	}
}

// farewellOf is DISCONNECT in each dialect, as scripts print it.
var farewellOf = map[Dialect]string{MDP02: `MDPW02|\x06`, MDP01: `|MDPW01|\x05`, OMDPFinal: "W|5", PIGATO: "W|5"}

func playMalformed(t *testing.T, x Dialect, c dialectCase, from string) {
	s := newScript(t)
	prefix := x.String() + ":"
	ready := map[Dialect]string{MDP02: `MDPW02|\x01|s`, MDP01: `|MDPW01|\x01|s`, OMDPFinal: "W|1|s", PIGATO: "W|1|s"}[x]
	ask := map[Dialect]string{MDP02: `MDPC02|\x01|s|1`, MDP01: "|MDPC01|s|1", OMDPFinal: "C|2|s|R|1|{}", PIGATO: "C|2|s|R|1|{}"}[x]
	s.do(prefix + "worker> " + ready + "\n" + prefix + "client> " + ask + "\na> C|2|other|r|1|{}\nb> W|1|other")
	before := s.d.stats
	s.out.Reset()
	frames := slices.Clone(c.frames)
	for i := range frames {
		if frames[i] == "T" {
			frames[i] = "T1"
		}
	}
	s.sendFrames(prefix+from, frames)
	s.flush()
	if err := s.d.check(); err != nil {
		t.Fatal(err)
	}
	got := s.out.String()
	after := s.d.stats
	if after.Malformed != before.Malformed+1 {
		t.Fatalf("%q: %d counted, want 1; sent:\n%s", frames, after.Malformed-before.Malformed, got)
	}
	lost := after.WorkerLost - before.WorkerLost
	farewell := "    " + prefix + from + "< " + farewellOf[x] + "\n"
	switch {
	case from == "worker" && (lost != 1 || !strings.Contains(got, farewell) || !strings.Contains(got, prefix+"client< ") || !strings.Contains(got, "W_ERROR")):
		t.Errorf("%q of a worker: %d requests lost; sent:\n%s", frames, lost, got)
	case from != "worker" && lost != 0, from == "client" && got != "" && !(c.worker && strings.HasPrefix(got, "    "+prefix+"client< ") && strings.Count(got, "\n") == 1):
		t.Errorf("%q: %d requests lost; sent:\n%s", frames, lost, got)
	case from == "stranger" && got != "" && !strings.Contains(got, "stranger< "), strings.Contains(got, " a<"), strings.Contains(got, " b<"):
		t.Errorf("%q: others were told:\n%s", frames, got)
	}
	// The others go on.
	s.out.Reset()
	s.line(`b> W|3|T2|r|{"status":200,"msg":1}`)
	if got := s.out.String(); !strings.Contains(got, `a< C|3|r|{"status":200,"msg":1}`) {
		t.Errorf("after %q another request ended with %q", frames, got)
	}
	if from == "worker" {
		return
	}
	s.out.Reset()
	s.line(prefix + "worker> " + map[Dialect]string{MDP02: `MDPW02|\x04|T1||fine`, MDP01: `|MDPW01|\x03|T1||fine`, OMDPFinal: `W|3|T1|R|0|"fine"`, PIGATO: `W|3|T1||R|0|"fine"|{}`}[x])
	if got := s.out.String(); !strings.Contains(got, prefix+"client< ") || !strings.Contains(got, "fine") {
		t.Errorf("after %q its own request ended with %q", frames, got)
	}
}
