package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestFrames(t *testing.T) {
	call, run := ident{1, 2, 3}, ident{4, 5, 6}
	var all []byte
	want := []frame{{call, run, 0, 0}, {call, run, 1, 0}, {call, run, finalIndex, 2}}
	for i, f := range want {
		all = appendFrame(all, f, 1000*i)
	}
	rest := all
	for _, w := range want {
		var f frame
		var err error
		if f, rest, err = parseFrame(rest); err != nil || f != w {
			t.Fatalf("got %v, %v, want %v", f, err, w)
		}
	}
	if len(rest) != 0 {
		t.Errorf("%d bytes left", len(rest))
	}
	one := appendFrame(nil, want[1], 100)
	for n := range len(one) {
		if _, _, err := parseFrame(one[:n]); !errors.Is(err, errShort) {
			t.Errorf("the first %d bytes of a frame: got %v, want %v", n, err, errShort)
		}
	}
	if _, err := parseWhole(all); err == nil {
		t.Error("three frames as one message: got no error")
	}
}

// One byte changed, and content that is another frame's, are both found.
func TestFramesFindWhatIsNotTheirs(t *testing.T) {
	f := frame{ident{1, 2, 3}, ident{4, 5, 6}, 7, 0}
	good := appendFrame(nil, f, 50)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if got, err := parseWhole(bad); err == nil && got == f {
			t.Errorf("byte %d changed, and it is not seen: %q", i, bad)
		}
	}
	for _, other := range []frame{
		{ident{1, 2, 4}, f.run, f.index, 0}, {ident{2, 2, 3}, f.run, f.index, 0}, {ident{1, 3, 3}, f.run, f.index, 0},
		{f.call, ident{4, 5, 7}, f.index, 0}, {f.call, f.run, 8, 0},
	} {
		text := string(appendFrame(nil, other, 50))
		_, content, _ := strings.Cut(text, "\n")
		head, _, _ := strings.Cut(string(good), "\n")
		if _, err := parseWhole([]byte(head + "\n" + content)); err == nil {
			t.Errorf("the content of %v under the head of %v is not seen", other, f)
		}
	}
}

func TestEvents(t *testing.T) {
	id := ident{1, 2, 3}
	h := newHistory(t)
	h.say("x", wordEnd, id, "ok", 17, "a\nb c")
	line := strings.TrimSuffix(string(h.logs["x"]), "\n")
	if strings.Contains(line, "\n") {
		t.Fatalf("%q is more than one line", line)
	}
	e, err := parseEvent(line)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseIdent(e.field(0))
	if err != nil || got != id || e.at != h.at.UnixNano() || e.word != wordEnd || e.field(2) != "17" || e.text(3) != `a\nb c` || e.field(9) != "" {
		t.Errorf("got %+v, %v, %v", e, got, err)
	}
	for _, s := range []string{"", "1", "1.2", "1.2.x", "70000.1.1"} {
		if got, err := parseIdent(s); !errors.Is(err, errIdent) {
			t.Errorf("ident %q: got %v, %v", s, got, err)
		}
	}
}
