package conformance

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

const head = "requirement: 1.a\nrole: broker\ndialect: mdp02\n\n"

func TestParseScript(t *testing.T) {
	t.Parallel()
	s, err := parseScript("x/y", `# a comment
requirement: 1.a, 1.b
role: client
dialect: omdp, mdp02
needs: results
about: it is about this

call a "x" timeout 3 beats
peer > W | 0x00ff | $service"-x" | "a | b" | `+"`{}`"+`
# another
peer < W | _ | $x | $y=/a|b/ | json`+"`{\"a\":1}`"+` | ... within 200ms
peer quiet 1.5 beats
final a "1"
`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Requirements, []string{"1.a", "1.b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if s.Role != "client" || !slices.Equal(s.Dialects, []string{"omdp", "mdp02"}) || !slices.Equal(s.Needs, []string{"results"}) || s.About != "it is about this" {
		t.Errorf("got %+v", s)
	}
	if len(s.steps) != 5 {
		t.Fatalf("got %d steps, want 5", len(s.steps))
	}
	if c := s.steps[0]; c.line != 8 || c.verb != "call" || c.peer != "a" || c.value != "x" || c.time != (span{beats: 3}) {
		t.Errorf("got %+v", c)
	}
	m, err := fillAll(s.steps[1].frames, vars{"service": "s"})
	if want := []string{"W", "\x00\xff", "s-x", "a | b", "{}"}; err != nil || !slices.Equal(m, want) {
		t.Errorf("got %q, %v; want %q", m, err, want)
	}
	e := s.steps[2]
	if len(e.frames) != 6 || e.time != (span{fixed: 200 * time.Millisecond}) || e.line != 11 {
		t.Errorf("got %+v", e)
	}
	if q := s.steps[3]; q.time.of(100*time.Millisecond, time.Hour) != 150*time.Millisecond {
		t.Errorf("got %+v", q)
	}
}

// What is wrong in a script is told with its line.
func TestParseScriptErrors(t *testing.T) {
	t.Parallel()
	for _, k := range []struct{ text, want string }{
		{"role: broker\ndialect: mdp02\n\np < a", "x: it names no requirement"},
		{"requirement: 1.a\nrole: king\ndialect: mdp02\n\np < a", `x: role "king" is none of`},
		{"requirement: 1.a\nrole: broker\n\np < a", "x: dialect [] is none of"},
		{"requirement: 1.a\nrole: broker\ndialect: mdp03\n\np < a", `x: dialect ["mdp03"] is none of`},
		{"requirement: 1.a\nrole: broker\ncolour: red", `x:3: there is no field "colour"`},
		{"requirement: 1.a\nrole: broker\np < a", "x:3: \"p < a\" is no field"},
		{strings.Replace(head, "\n\n", "\nneeds: luck\n\n", 1) + "p < a", `x: needs "luck", which is none of`},
		{head, "x: it has no steps"},
		{head + "p > a", "x: it expects nothing, so it can't fail"},
		{head + "p ! a", `x:5: "!" is no verb`},
		{head + "P < a", `x:5: "P" is no name of a peer`},
		{head + "p < a | | b", "x:5: frame 1: nothing stands there"},
		{head + "p < ... | b", "x:5: frame 0: ... is the last"},
		{head + `p < "a`, `x:5: no end of "a`},
		{head + "p < /a", "x:5: no end of /a"},
		{head + "p < /(/", "x:5: frame 0: error parsing regexp"},
		{head + "p < 0x0", "x:5: frame 0: 0x0: not bytes in hexadecimal"},
		{head + "p < json`{`", "x:5: frame 0: json`{`: unexpected end"},
		{head + "p < a b", "x:5: frame 0:  b: neither a word"},
		{head + "p > _", "x:5: frame 0: _ can't be sent"},
		{head + "p > /x/", "x:5: frame 0: /x/ can't be sent"},
		{head + "p beats ...", "x:5: frame 0: ... can't be sent"},
		{head + "p quiet soon", `x:5: "soon" is no time`},
		{head + "p quiet 1000 beats", `x:5: "1000 beats" is no time`},
		{head + "p < a within x", `x:5: "x" is no time`},
		{head + "p mute now", "x:5: nothing follows mute"},
		{head + "start now\np < a", "x:5: start stands alone"},
		{head + "call a \"x\"\np < a", `x: line 5: "call a \"x\"": only a client makes calls`},
		{head + "call a x\np < a", "x:5: x: not quoted"},
		{head + "call a \"x\" soon\np < a", `x:5: "soon" is not understood`},
		{head + "error a b\np < a", "x:5: nothing follows the name"},
		{head + "stop\np < a", `x: line 5: "stop": the script has to say that it needs stop`},
		{head + "p < a\np gone", `x: line 6: "p gone": a broker under test`},
		{head + "others quiet 1 beat", `x: line 5: "others quiet 1 beat": others can only be quiet`},
	} {
		_, err := parseScript("x", k.text)
		if err == nil || !strings.HasPrefix(err.Error(), k.want) {
			t.Errorf("%q:\ngot  %v\nwant %s…", k.text, err, k.want)
		}
	}
}

func TestParseRequirements(t *testing.T) {
	t.Parallel()
	const top = "= Doc\n== Part\n"
	for _, k := range []struct{ text, want string }{
		{"1.a | MUST | x", "requirements.txt:1: \"1.a | MUST | x\": want ID"},
		{top + "1.a | MUST", `requirements.txt:3: "1.a | MUST": want ID`},
		{top + "1 | MUST | x", `requirements.txt:3: "1" is no id`},
		{top + "1.a | WOULD | x", `requirements.txt:3: level "WOULD" is none of`},
		{top + "1.a | MUST | x\n1.a | MAY | y", "requirements.txt:4: 1.a stands there twice"},
		{top + "untested: x", "requirements.txt:3: no requirement stands before"},
	} {
		_, err := parseRequirements(k.text)
		if err == nil || !strings.HasPrefix(err.Error(), k.want) {
			t.Errorf("%q:\ngot  %v\nwant %s…", k.text, err, k.want)
		}
	}
	tree := fstest.MapFS{"x/a.txt": {Data: []byte(head + "p < a")}}
	for _, k := range []struct {
		text, want string
		tree       fs.FS
	}{
		{top + "1.a | MUST | x", "", tree},
		{top + "1.b | MUST | x", `conformance: x/a: there is no requirement "1.a"`, tree},
		{top + "1.a | MUST | x\n1.b | MAY | y", "conformance: requirement 1.b has 0 scripts", tree},
		{top + "1.a | MUST | x\nuntested: y", "conformance: requirement 1.a has 1 scripts", tree},
		{top + "1.a | MUST | x", "conformance: x/a.md: not a script", fstest.MapFS{"x/a.md": {}}},
	} {
		_, err := newKit(k.text, k.tree)
		if (err == nil) != (k.want == "") || err != nil && !strings.HasPrefix(err.Error(), k.want) {
			t.Errorf("%q:\ngot  %v\nwant %s…", k.text, err, k.want)
		}
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, k := range []struct {
		pattern string
		message []string
		want    bool
		bound   string // $x afterwards
	}{
		{"a | b", []string{"a", "b"}, true, ""},
		{"a | b", []string{"a"}, false, ""},
		{"a | b", []string{"a", "b", "c"}, false, ""},
		{"a | ...", []string{"a"}, true, ""},
		{"a | ...", []string{"a", "b", "c"}, true, ""},
		{"a | ...", []string{"b"}, false, ""},
		{"_ | _", []string{"a", ""}, true, ""},
		{`"" | 0x00`, []string{"", "\x00"}, true, ""},
		{"$x | $x", []string{"a", "a"}, true, "a"},
		{"$x | $x", []string{"a", "b"}, false, ""},
		{"$x | a", []string{"a", "b"}, false, ""},
		{"$known", []string{"known"}, true, ""},
		{"$known", []string{"other"}, false, ""},
		{`$known"-x"`, []string{"known-x"}, true, ""},
		{`$unknown"-x"`, []string{"unknown-x"}, false, ""},
		{"$x=/[a-c]+/", []string{"abc"}, true, "abc"},
		{"$x=/[a-c]+/", []string{"abcd"}, false, ""},
		{"/a|b/", []string{"b"}, true, ""},
		{"/.+/", []string{"\n\xff"}, true, ""},
		{"json`{\"a\":1}`", []string{`{"b":2, "a":1.0}`}, true, ""},
		{"json`{\"a\":{\"b\":1}}`", []string{`{"a":{"b":1,"c":2}}`}, true, ""},
		{"json`{\"a\":1}`", []string{`{"a":2}`}, false, ""},
		{"json`{\"a\":1}`", []string{`x`}, false, ""},
		{"json`[1]`", []string{`[1,2]`}, false, ""},
	} {
		frames, err := parseMessage(k.pattern)
		if err != nil {
			t.Fatal(err)
		}
		v := vars{"known": "known"}
		if got := matchAll(frames, k.message, v); got != k.want || v["x"] != k.bound {
			t.Errorf("%s and %q: got %v and $x %q, want %v and %q", k.pattern, k.message, got, v["x"], k.want, k.bound)
		}
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	for want, m := range map[string][]string{
		"nothing":          nil,
		`"" | a.b | 0x01`:  {"", "a.b", "\x01"},
		"`{\"a\": 1}` | 4": {`{"a": 1}`, "4"},
		"0xff | `é`":       {"\xff", "é"},
		"\"`\"":            {"`"},
		"`0x01`":           {"0x01"},
	} {
		if got := show(m); got != want {
			t.Errorf("%q: got %s, want %s", m, got, want)
		}
		if m == nil {
			continue
		}
		frames, err := parseMessage(want)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := fillAll(frames, nil); err != nil || !slices.Equal(back, m) {
			t.Errorf("%s: read as %q, %v; want %q", want, back, err, m)
		}
	}
}
