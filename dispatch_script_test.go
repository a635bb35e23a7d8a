package omdp

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

var update = flag.Bool("update", false, "rewrite the expected traces in testdata/scripts")

// TestCoreScripts plays the scripts in testdata/scripts and compares what the core
// sends. A script has one event a line; what it sends stands below, indented:
//
//	a> C|2|echo|r1|"x"|{}    a sends these frames; \x01 and the like are bytes
//	    w< W|2|T1|r1|"x"|{}  w is sent these; T1 stands for the first token
//	pigato:a> C|4            a is on a listener for that dialect, or for auto
//	+2.5s                    time passes, with a turn whenever one is due
//	jump 1m                  time passes without any turn
//	full a, gone a, ok a     a's pipe has no room; nobody knows a; a is well
//	drain, shut              the broker is to stop
//	same { … }               the events up to } fall into one turn
//	counts                   shows the counters that are not zero
func TestCoreScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts: %v, %v", files, err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := newScript(t).run(string(b))
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(b) {
				t.Errorf("%s: got\n%s\nwant\n%s", name, got, b)
			}
		})
	}
}

type script struct {
	t      testing.TB
	d      *dispatcher
	now    instant
	full   map[string]bool
	gone   map[string]bool
	tokens []string
	out    strings.Builder
	same   bool
}

func newScript(t testing.TB) *script {
	s := &script{
		t: t, d: newDispatcher(testLimits(), caps{V: 1, ID: "brokers-life", HB: 2500}, [32]byte{3}, len(scriptListeners)),
		full: map[string]bool{}, gone: map[string]bool{},
	}
	copy(s.d.dialects, scriptListeners)
	return s
}

// scriptListeners are the listeners of a script; names without a dialect are on the first.
var scriptListeners = []Dialect{OMDP, Auto, OMDPFinal, PIGATO, MDP02, MDP01}

func scriptListener(id string) int {
	if name, _, ok := strings.Cut(id, ":"); ok {
		return slices.IndexFunc(scriptListeners, func(x Dialect) bool { return x.String() == name })
	}
	return 0
}

// run returns the script with what the core really sent.
func (s *script) run(text string) string {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "    ") {
			continue
		}
		s.out.WriteString(line + "\n")
		if line != "" && line[0] != '#' {
			s.line(line)
		}
	}
	return s.out.String()
}

func (s *script) line(line string) {
	word, rest, _ := strings.Cut(line, " ")
	switch {
	case strings.HasSuffix(word, ">"):
		s.send(strings.TrimSuffix(word, ">"), rest)
	case word[0] == '+':
		s.wait(s.duration(word[1:]))
	case word == "jump":
		s.now += s.duration(rest)
		s.d.expire(s.now)
	case word == "full", word == "gone", word == "ok":
		s.full[rest], s.gone[rest] = word == "full", word == "gone"
	case word == "drain":
		s.d.drain(s.now)
	case word == "shut":
		s.d.shut(s.now)
	case word == "same":
		s.same = true
		return
	case word == "}":
		s.same = false
	case word == "counts":
		s.counts()
	default:
		s.t.Fatalf("a line that is no event: %q", line)
	}
	if !s.same {
		s.flush()
	}
	if err := s.d.check(); err != nil {
		s.t.Fatalf("after %q: %v", line, err)
	}
}

func (s *script) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *script) send(id, text string) {
	for i := len(s.tokens); i > 0; i-- {
		text = strings.ReplaceAll(text, fmt.Sprint("T", i), s.tokens[i-1])
	}
	text = hexByte.ReplaceAllStringFunc(text, func(s string) string {
		n, _ := strconv.ParseUint(s[2:], 16, 8)
		return string([]byte{byte(n)})
	})
	s.sendFrames(id, strings.Split(text, "|"))
}

func (s *script) sendFrames(id string, frames []string) {
	var f [][]byte
	for _, p := range frames {
		for i := len(s.tokens); i > 0; i-- {
			if p == fmt.Sprint("T", i) {
				p = s.tokens[i-1]
			}
		}
		f = append(f, []byte(p))
	}
	var m message
	l := scriptListener(id)
	if s.d.read(l, []byte(id), f, &m) {
		s.d.receive(s.now, l, []byte(id), &m)
	} else {
		s.d.malformed(s.now, l, []byte(id), m.worker)
	}
}

var hexByte = regexp.MustCompile(`\\x[0-9a-f]{2}`)

func (s *script) wait(t time.Duration) {
	end := s.now + t
	for due := s.d.deadline(); due <= end; due = s.d.deadline() {
		s.now = max(due, s.now)
		s.d.expire(s.now)
		s.flush()
	}
	s.now = end
	s.d.expire(end)
}

func (s *script) flush() {
	for again := true; again; {
		again = false
		for l := range scriptListeners {
			if s.d.pending(l) {
				s.flushListener(l)
				again = true
			}
		}
	}
}

func (s *script) flushListener(l int) {
	for s.d.pending(l) {
		s.d.deadline()
		out := s.d.take(l)
		for i := range out.Results {
			f := frameStrings(out.Message(i))
			out.Results[i] = batch.Sent
			note := ""
			if s.full[f[0]] {
				out.Results[i] = batch.Again
				note = "   (no room)"
			}
			if s.gone[f[0]] {
				out.Results[i] = batch.Unreachable
				note = "   (gone)"
			}
			if note == "   (no room)" && s.d.boxes[l].oldOrigin[i].backlog {
				continue
			}
			text := strings.Join(f[1:], "|")
			for _, request := range []string{"W|2|", "MDPW02|\x02|", "|MDPW01|\x02|"} {
				if rest, ok := strings.CutPrefix(text, request); ok {
					token, _, _ := strings.Cut(rest, "|")
					s.tokens = append(s.tokens, token)
				}
			}
			text = controls.ReplaceAllStringFunc(text, func(s string) string { return fmt.Sprintf(`\x%02x`, s[0]) })
			for k, token := range s.tokens {
				text = strings.ReplaceAll(text, token, fmt.Sprint("T", k+1))
			}
			fmt.Fprintf(&s.out, "    %s< %s%s\n", f[0], text, note)
		}
		s.d.settle(s.now, l)
	}
}

var controls = regexp.MustCompile("[\x00-\x1f]")

// counts prints what changed.
func (s *script) counts() {
	text := strings.Trim(fmt.Sprintf("%+v", s.d.stats), "{}")
	for field := range strings.FieldsSeq(text) {
		if !strings.HasSuffix(field, ":0") {
			fmt.Fprintf(&s.out, "    %s\n", field)
		}
	}
}
