package omdp

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// mdp01Asks has a client of MDP/0.1 ask a worker of this library; what the worker says follows.
const mdp01Asks = "w> W|1|s|{\"v\":1,\"id\":\"w\",\"hb\":2500}\nmdp01:c> |MDPC01|s|1\n"

func TestDropPartials(t *testing.T) {
	s := newTestScript(t, func(l *limits) { l.dropPartials = true })
	s.do(mdp01Asks + `w> W|6|T1|1|{"status":200,"msg":"a"}`)
	if s.d.joined != 0 {
		t.Errorf("%d bytes are kept", s.d.joined)
	}
	got := s.do(`w> W|3|T1|1|{"status":200,"msg":"end"}`)
	if want := `mdp01:c< |MDPC01|s|"end"`; len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestJoinedLimit: what is joined for one client is bounded, and for all together.
func TestJoinedLimit(t *testing.T) {
	part := `w> W|6|T1|1|{"status":200,"msg":"` + strings.Repeat("x", 434) + `"}` // 500 with its overhead
	for name, change := range map[string]func(*limits){
		"of a request": func(l *limits) { l.frame = 1000 },
		"of all":       func(l *limits) { l.totalOutbox = 4000 },
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestScript(t, change)
			s.do(mdp01Asks)
			for n := 1; n <= 2; n++ {
				if got := s.do(part); len(got) != 0 || s.d.joined != int64(500*n) {
					t.Fatalf("partial %d: sent %q, %d bytes are kept", n, got, s.d.joined)
				}
			}
			got := strings.Join(s.do(part), "\n")
			if !strings.Contains(got, `mdp01:c< |MDPC01|s|{"status":"TOO_LARGE"}`) || !strings.Contains(got, "w< W|10|T1|1|gone") {
				t.Errorf("sent %q", got)
			}
			if s.d.joined != 0 || s.d.stats.Unfit != 1 {
				t.Errorf("%d bytes are kept, %d unfit", s.d.joined, s.d.stats.Unfit)
			}
			s.do(`w> W|3|T1|1|{"status":200,"msg":null}` + "\nmdp01:c> |MDPC01|s|1")
			if got := s.do(`w> W|3|T2|2|{"status":200,"msg":"fine"}`); len(got) != 1 || !strings.HasSuffix(got[0], `"fine"`) {
				t.Errorf("the next one got %q", got)
			}
		})
	}
}

// TestJoinedAtOnce: the first partial is over a limit.
func TestJoinedAtOnce(t *testing.T) {
	s := newTestScript(t, func(l *limits) { l.totalOutbox = 400 })
	s.do(mdp01Asks)
	got := strings.Join(s.do(`w> W|6|T1|1|{"status":200,"msg":"`+strings.Repeat("x", 100)+`"}`), "\n")
	if !strings.Contains(got, `mdp01:c< |MDPC01|s|{"status":"TOO_LARGE"}`) || s.d.joined != 0 {
		t.Errorf("sent %q, %d bytes are kept", got, s.d.joined)
	}
	s.do(`w> W|3|T1|1|{"status":200,"msg":null}` + "\nmdp01:c> |MDPC01|s|1")
	if got := s.do(`w> W|6|T2|2|{"status":200,"msg":"fine"}`); len(got) != 0 || s.d.joined != 6+partialOverhead {
		t.Errorf("sent %q to the next one, %d bytes are kept", got, s.d.joined)
	}
}

// TestRejectedGoesOn: a request is handed to each worker once, whichever is next
// by the policy otherwise.
func TestRejectedGoesOn(t *testing.T) {
	for _, p := range []DispatchPolicy{LeastRecentlyUsed, LeastLoaded, Sticky} {
		s := newTestScript(t, nil)
		s.d.policies = map[string]DispatchPolicy{"": p}
		for _, w := range []string{"u", "v", "w"} {
			s.do("pigato:" + w + "> W|1|s\npigato:" + w + `> W|4||{"concurrency":3}`)
		}
		s.do("a> C|2|s|r1|1|{}\na> C|2|s|r2|2|{}\na> C|2|s|r3|3|{}")
		asked := map[string]bool{}
		for range 3 {
			w := ""
			for _, d := range s.d.slots {
				if d.req != nil && string(d.req.rid()) == "r1" {
					w = d.worker.id
					s.sendFrames(w, []string{"W", "7", string(d.token[:]), "", "r1"})
					break
				}
			}
			asked[w] = true
			s.flush()
		}
		if len(asked) != 3 || s.d.requests.n != 2 {
			t.Errorf("%v: %v were asked, %d requests are left, want 3 and 2", p, asked, s.d.requests.n)
		}
	}
}

// TestInProgressLimit: a worker whose dialect has no beats for requests may have
// one for so long, whatever it says of itself; one that has them goes by these.
func TestInProgressLimit(t *testing.T) {
	s := newTestScript(t, func(l *limits) { l.inProgress = 4 * time.Second })
	s.do("mdp02:w> MDPW02|\\x01|m\npigato:w> W|1|p\nspec> W|1|s\n" +
		"a> C|2|m|r1|1|{}\na> C|2|p|r2|1|{}\na> C|2|s|r3|1|{}\n+2s")
	s.do("mdp02:w> MDPW02|\\x05\npigato:w> W|4\nspec> W|4|T3|r3\n+1.9s")
	if s.d.stats.Stalled != 0 {
		t.Fatal("too early")
	}
	got := strings.Join(s.do("mdp02:w> MDPW02|\\x05\npigato:w> W|6|T2||r2|0|1|{}\nspec> W|4|T3|r3\n+200ms"), "\n")
	if s.d.stats.Stalled != 1 || !strings.Contains(got, `a< C|3|r1|{"status":"W_ERROR"}`) {
		t.Errorf("%d stalled after 4.1 s, sent %s", s.d.stats.Stalled, got)
	}
	got = strings.Join(s.do("pigato:w> W|4\n+4s"), "\n")
	if s.d.stats.Stalled != 2 || !strings.Contains(got, `a< C|3|r2|{"status":"W_ERROR"}`) || strings.Contains(got, "r3|{") {
		t.Errorf("%d stalled, 4 s after a partial; sent %s", s.d.stats.Stalled, got)
	}
}

// TestRejectedKeepsNothing: data that was kept for a worker that may hand it back
// is counted, bounded, and let go with the request.
func TestRejectedKeepsNothing(t *testing.T) {
	const ask = "a> C|2|s|r1|\"12345678\"|{}\n"
	s := newTestScript(t, func(l *limits) { l.totalBytes, l.serviceBytes = 100, 100 })
	s.do("pigato:v> W|1|s\npigato:w> W|1|s\n" + ask)
	if s.d.queuedBytes != 12 {
		t.Errorf("%d bytes are kept, want 12", s.d.queuedBytes)
	}
	s.do(`pigato:v> W|3|T1||r1|0|1|{}`)
	if s.d.queuedBytes != 0 {
		t.Errorf("%d bytes are kept", s.d.queuedBytes)
	}
	// Without room it is given all the same, and can't come back.
	s.do(`a> C|2|s|r2|"` + strings.Repeat("x", 200) + `"|{}`)
	if s.d.queuedBytes != 0 || s.d.stats.Dispatched != 2 {
		t.Errorf("%d bytes are kept, %d dispatched", s.d.queuedBytes, s.d.stats.Dispatched)
	}
	got := s.do("pigato:w> W|7|T2||r2")
	if want := `a< C|3|r2|{"status":"REJECTED","executed":false}`; len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestNoRoomForOriginal: what a worker was given in another form, and comes back,
// does not go to another in that form, should there have been no room to keep it.
func TestNoRoomForOriginal(t *testing.T) {
	for _, w := range []string{"pigato:w", "omdp-final:w", "spec"} {
		s := newTestScript(t, func(l *limits) { l.totalBytes, l.serviceBytes = 10, 10 })
		s.do(w + "> W|1|s\nfull " + w + "\nmdp02:y> MDPW02|\\x01|s\nmdp02:c> MDPC02|\\x01|s|aaaaaaaaaa|b")
		if s.d.stats.Overloaded != 1 || s.d.requests.n != 0 || s.d.stats.Dispatched != 1 {
			t.Errorf("%s: %d overloaded, %d dispatched, %d are left", w, s.d.stats.Overloaded, s.d.stats.Dispatched, s.d.requests.n)
		}
	}
}

// TestIgnoredWrongDialect: of a peer that is ignored nothing is counted, nor said of the next one.
func TestIgnoredWrongDialect(t *testing.T) {
	s := newTestScript(t, func(l *limits) { l.malformed = 3 })
	s.do(strings.Repeat("mdp02:x> C|2|s|r|1|{}\n", 5))
	if c := s.d.stats; c.WrongDialect != 3 || c.Malformed != 3 || c.Ignored != 2 {
		t.Errorf("%d wrong, %d malformed, %d ignored, want 3, 3, 2", c.WrongDialect, c.Malformed, c.Ignored)
	}
	s.d.notes = nil
	s.do("mdp02:y> MDPC02|\\x07")
	if len(s.d.notes) != 1 || s.d.notes[0].kind != noteMalformed || s.d.notes[0].reason != "" {
		t.Errorf("noted %+v of a message that is only malformed", s.d.notes)
	}
}

func TestVersionRanges(t *testing.T) {
	for _, c := range []struct{ wanted, yes, no string }{
		{"1.2.3", "1.2.3 v1.2.3 1.2.3+build", "1.2.4 1.2.3-rc.1"},
		{"1.2", "1.2.0 1.2.9", "1.3.0 1.1.9 2.2.0"},
		{"1", "1.0.0 1.9.9", "2.0.0 0.9.0"},
		{"1.x", "1.0.0 1.9.9", "2.0.0"},
		{"1.2.x", "1.2.0", "1.3.0"},
		{"*", "0.0.1 9.9.9", "1.0.0-rc.1"},
		{"", "0.0.1 9.9.9", ""},
		{"^1.2.3", "1.2.3 1.9.0", "1.2.2 2.0.0 2.0.0-rc.1"},
		{"^0.2.3", "0.2.3 0.2.9", "0.3.0 0.2.2"},
		{"^0.0.3", "0.0.3", "0.0.4"},
		{"^0.x", "0.0.1 0.9.0", "1.0.0"},
		{"^1", "1.0.0 1.9.9", "2.0.0"},
		{"~1.2.3", "1.2.3 1.2.9", "1.3.0 1.2.2"},
		{"~1.2", "1.2.0", "1.3.0"},
		{"~1", "1.9.0", "2.0.0"},
		{">=1.5 <3", "1.5.0 2.9.9", "1.4.9 3.0.0"},
		{">= 1.5", "1.5.0", "1.4.0"},
		{">1.2.3", "1.2.4", "1.2.3"},
		{">1.2", "1.3.0", "1.2.9"},
		{"<=1.2", "1.2.9", "1.3.0"},
		{"<=1.2.3", "1.2.3", "1.2.4"},
		{"<2", "1.9.9", "2.0.0"},
		{"=1.2.3", "1.2.3", "1.2.4"},
		{"1.2 - 1.4", "1.2.0 1.4.9", "1.1.9 1.5.0"},
		{"1.2.3 - 1.4.0", "1.2.3 1.4.0", "1.4.1"},
		{"1 || 3", "1.5.0 3.0.0", "2.0.0"},
		{"^1.2.3-rc.1", "1.2.3-rc.1 1.2.3-rc.2 1.2.3 1.3.0", "1.2.3-beta 1.3.0-rc.1"},
		{"nonsense", "", "1.0.0"},
		{">", "", "1.0.0"},
		{"1.2.3.4", "", "1.2.3"},
		{"1..3", "", "1.2.3"},
		{"x.1", "", "1.1.0"},
	} {
		for text := range strings.FieldsSeq(c.yes) {
			if v, ok := parseVersion(text); !ok || !allows(c.wanted, v) {
				t.Errorf("%q does not allow %s", c.wanted, text)
			}
		}
		for text := range strings.FieldsSeq(c.no) {
			if v, ok := parseVersion(text); !ok || allows(c.wanted, v) {
				t.Errorf("%q allows %s", c.wanted, text)
			}
		}
	}
	for _, order := range []string{"1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 1.0.1 1.1.0 2.0.0 10.0.0"} {
		all := strings.Fields(order)
		for i := range all {
			for j := range all {
				a, _ := parseVersion(all[i])
				b, _ := parseVersion(all[j])
				if c := a.compare(b); (c < 0) != (i < j) || (c > 0) != (i > j) {
					t.Errorf("%s to %s: %d", all[i], all[j], c)
				}
			}
		}
	}
	for _, text := range []string{"", "1", "1.2", "a.b.c", "1.2.x", "1.2.3.4", "-1.2.3", "99999999999999999999.0.0"} {
		if v, ok := parseVersion(text); ok {
			t.Errorf("%q is version %v", text, v)
		}
	}
}

// TestFramesThatFit: a body of several frames is as large as the array that a client of
// ours gets of it: a larger one than it told would cost it its connection.
func TestFramesThatFit(t *testing.T) {
	for _, c := range []struct {
		frame int
		fits  bool
	}{{9_000, true}, {14_000, false}} {
		s := newTestScript(t, func(l *limits) { l.frame = 1 << 20 })
		s.do("a> C|8|{\"v\":1,\"id\":\"a\",\"hb\":2500,\"body\":20000}\nmdp02:w> MDPW02|\\x01|s\na> C|2|s|r1|1|{}\n")
		part := strings.Repeat("x", c.frame)
		got := s.do("mdp02:w> MDPW02|\\x04|T1||" + part + "|" + part + "|" + part[:c.frame/3] + "\n")
		want := `a< C|3|r1|{"status":200,"msg":["` + part + `","` + part + `","` + part[:c.frame/3] + `"]}`
		if !c.fits {
			want = `a< C|3|r1|{"status":"TOO_LARGE"}`
		}
		if len(got) != 1 || got[0] != want {
			t.Errorf("frames of %d bytes: sent %.100q, want %.100q", c.frame, got, want)
		}
	}
}

// TestJoinedFrames: a body of more frames than a client reads would be no answer at all.
func TestJoinedFrames(t *testing.T) {
	s := newTestScript(t, func(l *limits) { l.frame = 1 << 20 })
	s.do("mdp02:w> MDPW02|\\x01|s\nmdp01:c> |MDPC01|s|1\n")
	for range maxJoined {
		if got := s.do("mdp02:w> MDPW02|\\x03|T1||\n"); len(got) != 0 {
			t.Fatalf("got %q", got)
		}
	}
	if got := s.do("mdp02:w> MDPW02|\\x03|T1||\n"); len(got) != 1 || got[0] != `mdp01:c< |MDPC01|s|{"status":"TOO_LARGE"}` || s.d.joined != 0 {
		t.Errorf("got %q, %d bytes are kept", got, s.d.joined)
	}
}

// TestResetForgets: nothing of one message is left in the next, but memory.
func TestResetForgets(t *testing.T) {
	all := [][]byte{{1}}
	m := message{
		worker: true, op: opReply, service: all[0], rid: all[0], token: all[0], data: all[0], form: formRaw, pieces: true, options: all[0], extra: all[0],
		body: all, caps: all[0], cause: all[0], credit: 1, window: 1, dialect: MDP02, said: saidError, code: "x", executed: "true", level: 1, marks: true,
		from: &peer{}, scratch: all, packed: all[0], one: [1][]byte{all[0]},
	}
	kept := []string{"code", "from", "scratch", "packed", "one"}
	v := reflect.ValueOf(&m).Elem()
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Fatalf("%s is not set here", v.Type().Field(i).Name)
		}
	}
	m.reset()
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; v.Field(i).IsZero() == slices.Contains(kept, name) {
			t.Errorf("%s: zero %v after a reset", name, v.Field(i).IsZero())
		}
	}
}

// TestLargeScratch: memory for what is rare and large is not kept.
func TestLargeScratch(t *testing.T) {
	s := newTestScript(t, nil)
	large := strings.Repeat("x", maxScratch)
	s.do("mdp02:w> MDPW02|\\x01|s\na> C|8|{\"v\":1,\"id\":\"a\",\"hb\":2500,\"body\":100000000}\na> C|2|s|r1|1|{}")
	var m message
	says := func(id string, frames ...string) {
		var f [][]byte
		for _, p := range frames {
			f = append(f, []byte(p))
		}
		l := scriptListener(id)
		if !s.d.read(l, []byte(id), f, &m) {
			t.Fatalf("%s: malformed", id)
		}
		s.d.receive(s.now, l, []byte(id), &m)
	}
	says("mdp02:w", "MDPW02", "\x04", s.tokens[0], "", large, large)
	says("mdp02:c", "MDPC02", "\x01", "s", large, large)
	says("mdp02:c", "MDPC02", "\x01", "s", "small", "ones")
	if n := cap(s.d.text); s.d.stats.Completed != 1 || n > maxScratch {
		t.Errorf("%d completed, %d bytes kept for a reply", s.d.stats.Completed, n)
	}
	if n := cap(m.packed); s.d.stats.Accepted != 3 || n > maxScratch {
		t.Errorf("%d accepted, %d bytes kept for a request", s.d.stats.Accepted, n)
	}
}

// TestSlowByAgreement: a peer that does not tell its interval has agreed to the broker's.
func TestSlowByAgreement(t *testing.T) {
	for worker, c := range map[string]struct{ ready, beat, lost string }{
		"w":        {"W|1|s", "W|4", "w< W|5"},
		"pigato:w": {"W|1|s", "W|4||{}", "pigato:w< W|5"},
		"mdp02:w":  {`MDPW02|\x01|s`, `MDPW02|\x05`, `mdp02:w< MDPW02|\x06`},
		"mdp01:w":  {`|MDPW01|\x01|s`, `|MDPW01|\x04`, `mdp01:w< |MDPW01|\x05`},
	} {
		t.Run(worker, func(t *testing.T) {
			s := newTestScript(t, func(l *limits) { l.heartbeat = 20 * time.Second })
			s.do(worker + "> " + c.ready)
			for range 5 {
				if got := strings.Join(s.do("+20s\n"+worker+"> "+c.beat), "\n"); strings.Contains(got, c.lost) {
					t.Fatalf("lost while it beats as agreed: %s", got)
				}
			}
			if got := strings.Join(s.do("+59s"), "\n"); strings.Contains(got, c.lost) {
				t.Errorf("lost before three intervals: %s", got)
			}
			if got := strings.Join(s.do("+2s"), "\n"); !strings.Contains(got, c.lost) {
				t.Errorf("kept after three intervals: %s", got)
			}
		})
	}
}
