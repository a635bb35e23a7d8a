package omdp

import (
	"strings"
	"testing"
)

// Workers of which the first message does not tell the dialect.

// TestUnclearFirstRequestIsLong: a worker of the last revision, which does not
// beat for a request, is not taken for one that lost its first.
func TestUnclearFirstRequestIsLong(t *testing.T) {
	s := newTestScript(t, nil)
	s.do("auto:w> W|1|s\na> C|2|s|r1|1|{\"timeout\":-1}\n+100ms")
	for range 20 {
		if got := strings.Join(s.do("auto:w> W|4\na> C|4\n+2s"), "\n"); strings.Contains(got, "W_ERROR") {
			t.Fatalf("sent %s", got)
		}
	}
	if got := strings.Join(s.do(`auto:w> W|3|T1|r1|0|"x"`), "\n"); got != `a< C|3|r1|{"status":200,"msg":"x"}` {
		t.Errorf("sent %s", got)
	}
}

// TestUnclearLeaves: one whose second message is that it leaves is given nothing.
func TestUnclearLeaves(t *testing.T) {
	s := newTestScript(t, nil)
	s.do("auto:w> W|1|s\na> C|2|s|r1|1|{}")
	if got := s.do("auto:w> W|5\n+1s"); len(got) != 0 {
		t.Errorf("sent %q", got)
	}
	if got := strings.Join(s.do("mdp02:v> MDPW02|\\x01|s"), "\n"); !strings.Contains(got, "mdp02:v< MDPW02|\\x02|T1||1") {
		t.Errorf("sent %s", got)
	}
}

// TestUnclearTooLate: PIGATO's can't read what it was given before it showed
// itself: that ends at once.
func TestUnclearTooLate(t *testing.T) {
	s := newTestScript(t, nil)
	s.do("auto:w> W|1|s\na> C|2|s|r1|1|{}\n+100ms")
	got := strings.Join(s.do(`auto:w> W|4||{"concurrency":1}`), "\n")
	if !strings.Contains(got, `a< C|3|r1|{"status":"W_ERROR"}`) || !strings.Contains(got, "auto:w< W|1") {
		t.Errorf("sent %s", got)
	}
	if got := strings.Join(s.do("a> C|2|s|r2|2|{}"), "\n"); !strings.Contains(got, "auto:w< W|2|T2|s||r2|2|") {
		t.Errorf("then %s", got)
	}
}

// TestForgottenSpeaksOn: a peer that advertised and was forgotten is understood
// on an endpoint of another dialect, before it greets again.
func TestForgottenSpeaksOn(t *testing.T) {
	for _, l := range []string{"omdp-final", "pigato"} {
		s := newTestScript(t, nil)
		s.do(l + `:a> C|8|{"v":1,"id":"life","hb":1000}` + "\n" + l + `:w> W|1|s|{"v":1,"id":"w","hb":1000}` + "\n+20s")
		if s.d.clients+s.d.workers != 0 {
			t.Fatalf("%s: %d clients, %d workers", l, s.d.clients, s.d.workers)
		}
		got := strings.Join(s.do(l+":a> C|4|r1\n"+l+":w> W|4|T1|r1"), "\n")
		if want := l + `:a< C|3|r1|{"status":"LOST"}` + "\n" + l + ":w< W|5"; got != want || s.d.stats.Malformed != 0 {
			t.Errorf("got\n%s\nwant\n%s\n%d malformed", got, want, s.d.stats.Malformed)
		}
	}
}

// TestSilentClientsAreFoundOut: one that never beat, and asked for something
// without a deadline, is not kept for ever.
func TestSilentClientsAreFoundOut(t *testing.T) {
	s := newTestScript(t, nil)
	s.do("omdp-final:a> C|2|s|r1|1|{\"timeout\":-1}\npigato:b> C|2|s|r2|1|{\"timeout\":-1}")
	got := strings.Join(s.do("+70s"), "\n")
	if strings.Contains(got, "omdp-final:a<") || !strings.Contains(got, "pigato:b< C|4") || strings.Contains(got, "C|4|r") || s.d.stats.ClientGone != 1 {
		t.Errorf("%d requests ended as their client is gone; sent %s", s.d.stats.ClientGone, got)
	}
}
