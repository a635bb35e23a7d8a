package omdp

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// A history that fails is made as short as it gets, and told.

// simTry plays a history, and returns why it fails, or nothing.
func (w *simWorld) simTry(head uint64, choices []choice) (text string) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *simFailure:
			text = r.text
		default:
			text = fmt.Sprint("panic: ", r)
			if w.tracing {
				text += "\n" + simStack()
			}
		}
	}()
	w.reset(head)
	w.play(choices)
	w.heal()
	return ""
}

// kindOf is the part of a failure by which it is known again: shrinking must
// not slip from one into another.
func kindOf(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, text[:min(len(text), 12)])
}

// simShrink removes and simplifies what it can.
func simShrink(head uint64, choices []choice) []choice {
	w := newSimWorld() // a world that failed is not used again
	kind := kindOf(w.simTry(head, choices))
	fails := func(c []choice) bool {
		w = newSimWorld()
		text := w.simTry(head, c)
		return text != "" && kindOf(text) == kind
	}
	for before := -1; before != len(choices); {
		before = len(choices)
		for n := max(len(choices)/2, 1); n > 0; n /= 2 {
			for at := 0; at+n <= len(choices); {
				if less := slices.Delete(slices.Clone(choices), at, at+n); fails(less) {
					choices = less
				} else {
					at += n
				}
			}
		}
	}
	choices = slices.Clone(choices)
	for i := range choices {
		for _, p := range []*uint8{&choices[i].a, &choices[i].b, &choices[i].c} {
			was := *p
			for _, v := range []uint8{0, was & 1, was & 3, was & 15} {
				if *p = v; v < was && fails(choices) {
					break
				}
				*p = was
			}
		}
	}
	return choices
}

// simStory tells a history: what was chosen and what was said.
func simStory(head uint64, choices []choice) string {
	w := newSimWorld()
	w.tracing = true
	text := w.simTry(head, choices)
	tail := w.trace[max(0, len(w.trace)-*simTail):]
	return fmt.Sprintf("%s\n\nscene: %+v\n%s\n=> %s\n", text, w.conf, strings.Join(tail, "\n"), text)
}

func (w *simWorld) tracef(format string, a ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%10v ", w.now)+fmt.Sprintf(format, a...))
}

// traceMessage notes one packed message; routed tells that a routing id stands in front.
func (w *simWorld) traceMessage(who string, l *simLink, packed []byte, routed bool) {
	in := batch.In{B: packed}
	f := in.Next()
	if routed && len(f) > 0 {
		f = f[1:]
	}
	mark := ""
	if len(f) == 1 && len(f[0]) > 0 && f[0][0] == batch.Mark {
		if inner, ok := batch.Unpack(f[0], nil, maxFrames); ok {
			f, mark = inner, "="
		}
	}
	var s []string
	for _, b := range f {
		if len(b) > 60 {
			b = append(slices.Clone(b[:60]), "…"...)
		}
		s = append(s, strings.Trim(strconv.QuoteToASCII(string(b)), `"`))
	}
	w.tracef("%s %s%s %s", who, l.id, mark, strings.ReplaceAll(strings.Join(s, "|"), `\"`, `"`))
}

// simText writes a history as testdata/sim keeps it.
func simText(why string, head uint64, choices []choice) string {
	var b strings.Builder
	for line := range strings.Lines(why) {
		fmt.Fprintf(&b, "# %s\n", strings.TrimSpace(line))
	}
	fmt.Fprintf(&b, "head %#x\n", head)
	for _, c := range choices {
		fmt.Fprintf(&b, "%s %d %d %d\n", simOpNames[c.op], c.a, c.b, c.c)
	}
	return b.String()
}

func parseSim(text string) (head uint64, choices []choice, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if h, ok := strings.CutPrefix(line, "head "); ok {
			if head, err = strconv.ParseUint(h, 0, 64); err != nil {
				return 0, nil, err
			}
			continue
		}
		var name string
		var c choice
		if _, err := fmt.Sscanf(line, "%s %d %d %d", &name, &c.a, &c.b, &c.c); err != nil {
			return 0, nil, fmt.Errorf("%q: %w", line, err)
		}
		i := slices.Index(simOpNames[:], name)
		if i < 0 {
			return 0, nil, fmt.Errorf("%q: no such event", line)
		}
		c.op = simOp(i)
		choices = append(choices, c)
	}
	return head, choices, nil
}

func simFiles() (names []string) {
	names, _ = filepath.Glob("testdata/sim/*.txt")
	return names
}

func readSim(name string) (head uint64, choices []choice, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, nil, err
	}
	return parseSim(string(b))
}

// simStack is where a panic came from, in short.
func simStack() string {
	var s []string
	for line := range strings.Lines(string(debug.Stack())) {
		if strings.Contains(line, ".go:") {
			s = append(s, strings.TrimSpace(line))
		}
	}
	return strings.Join(s[min(3, len(s)):min(9, len(s))], "\n")
}
