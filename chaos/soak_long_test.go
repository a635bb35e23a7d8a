package main

import (
	"strings"
	"testing"
	"time"
)

// A small one, through real processes: all of it comes, and the verdict is
// good. It has a window that grows: the race detector takes more than the other
// one allows.
func TestLongStream(t *testing.T) {
	s := newSpawner()
	defer s.close()
	s.env = thrifty
	seen, err := longStream(t.Context(), s, longOrder{Bytes: 32 << 20, Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	v := &verdict{quiet: true}
	text := judgeLong(v, seen)
	if len(v.failed) > 0 {
		t.Errorf("got %v", v.failed)
	}
	t.Log(text)
}

// A client that lets more come than it said is found: this one has room for
// all and reads nothing until all has come.
func TestLongStreamThatIsHeldIsFound(t *testing.T) {
	s := newSpawner()
	defer s.close()
	s.env = thrifty
	seen, err := longStream(t.Context(), s, longOrder{Bytes: 96 << 20, Seed: 8, Window: 256 << 20, Late: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	seen.order.Window = 0 // as if it had the window that grows
	v := &verdict{quiet: true}
	judgeLong(v, seen)
	if len(v.failed) == 0 || !strings.Contains(strings.Join(v.failed, "; "), "the client's memory") {
		t.Errorf("got %v of %+v, want the client's memory", v.failed, seen)
	}
	t.Log(v.failed)
}

func TestLongStreamIsJudged(t *testing.T) {
	const size = 1 << 30
	good := func() longSeen {
		return longSeen{
			order: longOrder{Bytes: size, Window: longWindow},
			sent:  longEnd{Bytes: size, Sum: "ab"}, read: longEnd{Bytes: size, Sum: "ab"},
			names:  []string{"broker", "worker", "client"},
			before: []int64{13 << 20, 14 << 20, 15 << 20}, peak: []int64{14 << 20, 20 << 20, 25 << 20},
		}
	}
	for _, v := range []struct {
		name   string
		change func(s *longSeen)
		failed string
	}{
		{"as promised", func(*longSeen) {}, ""},
		{"just what is allowed", func(s *longSeen) { s.peak[0] = s.before[0] + 12<<20 + 512<<10 }, ""},
		{"more than that", func(s *longSeen) { s.peak[0] = s.before[0] + 12<<20 + 512<<10 + 1 }, "the broker's memory"},
		{"as much, of a window that grows", func(s *longSeen) { s.order.Window, s.peak[2] = 0, 59<<20 }, ""},
		{"more than a window that grows allows", func(s *longSeen) { s.order.Window, s.peak[2] = 0, 60<<20 }, "the client's memory"},
		{"not measured", func(s *longSeen) { s.before[1], s.peak[1] = 0, 0 }, "the worker's memory"},
		{"other bytes", func(s *longSeen) { s.read.Sum = "ac" }, "SHA-256"},
		{"fewer bytes", func(s *longSeen) { s.read.Bytes--; s.sent.Bytes-- }, "SHA-256"},
		{"an error of the reader", func(s *longSeen) { s.read.Error = "lost" }, "lost"},
		{"an error of the worker", func(s *longSeen) { s.sent.Error = "left" }, "left"},
	} {
		seen, verdict := good(), &verdict{quiet: true}
		v.change(&seen)
		judgeLong(verdict, seen)
		got := strings.Join(verdict.failed, "; ")
		if v.failed == "" && got != "" || v.failed != "" && (len(verdict.failed) != 1 || !strings.Contains(got, v.failed)) {
			t.Errorf("%s: got %q, want %q", v.name, got, v.failed)
		}
	}
}
