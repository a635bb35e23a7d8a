package omdp

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// Fuzz targets: one for each parser, and one for the core. R1: any bytes, any
// number of frames: no panic, and work and memory in proportion to the input.
// Run with -fuzzminimizetime=1x.

// framesOf cuts bytes into frames: a length byte, then so many bytes.
func framesOf(b []byte) [][]byte {
	var f [][]byte
	for len(b) > 0 {
		n := min(int(b[0]), len(b)-1)
		f = append(f, b[1:1+n:1+n])
		b = b[1+n:]
	}
	return f
}

func bytesOf(frames []string) []byte {
	var b []byte
	for _, f := range frames {
		b = append(append(b, byte(len(f))), f...)
	}
	return b
}

// seedFrames adds the recorded messages of one direction.
func seedFrames(f *testing.F, to string) {
	for _, r := range recorded(f) {
		if r.To == to && !slices.ContainsFunc(r.Frames, func(s string) bool { return len(s) > 255 }) {
			f.Add(bytesOf(r.Frames))
		}
	}
	for _, s := range []string{"C|8|{}", "C|9|r|1", "C|10|r", "W|8|{}", "W|9|t|r|5", "W|10|t|r|gone", "W|11", "C|11", "W|3|t|r|b|x", "C|3|r|b|x"} {
		var all []string
		for _, p := range split(s) {
			all = append(all, string(p))
		}
		f.Add(bytesOf(all))
	}
}

func fuzzParse(f *testing.F, at string) {
	seedFrames(f, at)
	f.Add(bytesOf([]string{string(envelope(split("W|4|t|r")))}))
	f.Fuzz(func(t *testing.T, b []byte) {
		frames := framesOf(b)
		var m message
		if !parsers[at](frames, &m) {
			return
		}
		if m.rid != nil && !validRID(m.rid) || m.token != nil && !validToken(m.token) || m.service != nil && !validService(m.service) || m.credit < 0 {
			t.Fatalf("%q was taken as %s", frames, m.show())
		}
		if n := allocations(func() { parsers[at](frames, &m) }); n != 0 {
			t.Fatalf("%q: %v allocations", frames, n)
		}
		// Written out again it is the same message.
		var o batch.Out
		o.Begin()
		for _, p := range frames {
			o.Frame(p)
		}
		o.End()
		in := batch.In{B: o.B}
		var again message
		if !parsers[at](in.Next(), &again) || again.show() != m.show() {
			t.Fatalf("%s became %s", m.show(), again.show())
		}
	})
}

func allocations(f func()) float64 {
	if raceEnabled {
		return 0
	}
	return testing.AllocsPerRun(1, f)
}

func FuzzParseAtBroker(f *testing.F) { fuzzParse(f, "broker") }
func FuzzParseAtClient(f *testing.F) { fuzzParse(f, "client") }
func FuzzParseAtWorker(f *testing.F) { fuzzParse(f, "worker") }

// FuzzParseReply: whatever a worker sends, a call ends with a value or an error.
func FuzzParseReply(f *testing.F) {
	for _, r := range recorded(f) {
		if n := len(r.Frames); r.To == "client" && n > 3 {
			f.Add([]byte(r.Frames[n-1]), []byte{}, false)
		}
	}
	f.Add([]byte("b"), []byte("\xff"), true)
	f.Add([]byte("418"), []byte("TEAPOT"), true)
	f.Fuzz(func(t *testing.T, a, b []byte, two bool) {
		body := [][]byte{a}
		if two {
			body = append(body, b)
		}
		r := parseReply("s", body)
		if r.err != nil {
			_, _ = r.err.Error(), OutcomeOf(r.err)
			if e, ok := r.err.(*Error); ok && (e.Code == "" || e.Code == "200") && e.Data == nil && two {
				t.Fatalf("%q: an error with code %q", body, e.Code)
			}
			return
		}
		if !json.Valid(r.msg.JSON()) {
			t.Fatalf("%q: not JSON: %q", body, r.msg.JSON())
		}
		before := bytes.Clone(r.msg.JSON())
		clear(a)
		clear(b)
		if !bytes.Equal(before, r.msg.JSON()) {
			t.Fatalf("the message shares memory with the frames")
		}
	})
}

func FuzzOptions(f *testing.F) {
	for _, s := range []string{"", "{}", `{"timeout":1000}`, `{"timeout":-1,"failFast":true}`, `{"meta":{"a":"b"}}`, "null", "{", `{"timeout":1e400}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, ok := parseOptions(b)
		if !ok {
			return
		}
		if o.timeout < timeoutNone {
			t.Fatalf("%q: timeout %d", b, o.timeout)
		}
		out, err := appendOptions(nil, o, parseMeta(b))
		if err != nil {
			t.Fatal(err)
		}
		if again, ok := parseOptions(out); !ok || again != o {
			t.Fatalf("%q became %+v became %q became %+v", b, o, out, again)
		}
	})
}

func FuzzExtra(f *testing.F) {
	f.Add([]byte(`{"remaining":812,"attempt":1,"credit":262144,"raw":true}`))
	f.Add([]byte(`{"remaining":-1,"attempt":1,"credit":0,"raw":false,"later":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, ok := parseExtra(b)
		if !ok {
			return
		}
		if again, ok := parseExtra(x.append(nil)); !ok || again != x || x.attempt < 1 || x.credit < 0 {
			t.Fatalf("%q became %+v became %+v", b, x, again)
		}
	})
}

func FuzzCaps(f *testing.F) {
	f.Add([]byte(`{"v":1,"id":"abcdefghijklmnopqrstuv","hb":2500,"concurrency":3,"credit":1000}`))
	f.Add([]byte(`{"v":1,"id":"a","hb":2500,"x":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, ok := parseCaps(b)
		if !ok {
			return
		}
		if again, ok := parseCaps(c.append(nil)); !ok || again != c || c.interval() <= 0 {
			t.Fatalf("%q became %+v became %+v", b, c, again)
		}
	})
}

// FuzzValue: a Message of any JSON or any bytes can be read in every way.
func FuzzValue(f *testing.F) {
	for _, s := range []string{"null", `"foo"`, `"\u0000\ud800"`, `{"type":"Buffer","data":[1,255]}`, `{"type":"Buffer","data":[256]}`, "[1,2]", "\xff\x00", "", `"`} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, raw bool) {
		if isJSON(b) != json.Valid(b) {
			t.Fatalf("isJSON(%q) is %v", b, isJSON(b))
		}
		if !raw && !json.Valid(b) {
			return
		}
		m := Message{b: b, raw: raw}
		if !json.Valid(m.JSON()) {
			t.Fatalf("%q: not JSON: %q", b, m.JSON())
		}
		var v json.RawMessage
		if err := m.Decode(&v); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		if raw && !bytes.Equal(m.Bytes(), b) {
			t.Fatalf("%q reads as %q", b, m.Bytes())
		}
		out, err := appendValue(nil, m)
		if err != nil || !json.Valid(out) {
			t.Fatalf("%q is written as %q, %v", b, out, err)
		}
		if again := (Message{b: out}); raw && !bytes.Equal(again.Bytes(), b) && !looksLikeBuffer(b) {
			t.Fatalf("%q became %q became %q", b, out, again.Bytes())
		}
	})
}

// looksLikeBuffer: such text is taken for what Node prints of a Buffer.
func looksLikeBuffer(b []byte) bool { return bytes.HasPrefix(b, []byte(`{"type":"Buffer"`)) }

// FuzzCore plays the bytes as a history (dispatch_world_test.go).
func FuzzCore(f *testing.F) {
	for n := range 20 {
		src := make([]byte, 50+20*n)
		for i := range src {
			src[i] = byte(i*i*(n+3) + i>>3 + n)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		if len(src) <= 1000 {
			newWorld(t, slices.Clone(src)).play().heal()
		}
	})
}

// record is one recorded message (testdata/wire).
type record struct {
	Scenario string   `json:"scenario"`
	MS       int      `json:"ms"`
	From     string   `json:"from"`
	To       string   `json:"to"`
	Frames   []string `json:"frames"`
}

// recorded reads the traffic of zmq-omdp 4f18192, the specification's revision.
func recorded(tb testing.TB) []record {
	tb.Helper()
	b, err := os.ReadFile("testdata/wire/omdp-spec.jsonl")
	if err != nil {
		tb.Fatal(err)
	}
	var all []record
	for line := range bytes.Lines(b) {
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			tb.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}
