package omdp

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

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
		// Written out again by the encoders it is the same message, as frames and
		// in an envelope.
		for _, pack := range []bool{false, true} {
			var o batch.Out
			o.Pack = pack
			id := rewrite(&o, at, &m)
			in := batch.In{B: o.B}
			var again message
			if f := in.Next(); len(f) <= id || !parsers[at](f[id:], &again) || again.show() != m.show() {
				t.Fatalf("%s became %s", m.show(), again.show())
			}
		}
	})
}

// rewrite encodes a message as its sender does, and tells how many frames come
// before it. What the encoders never write (a missing options frame, a payload
// of other frames than ours) is put frame by frame.
func rewrite(o *batch.Out, at string, m *message) (id int) {
	token, rid := string(m.token), string(m.rid)
	switch {
	case at == "broker" && m.op == opRequest && m.options != nil:
		appendClientRequest(o, string(m.service), rid, m.data, m.options, markOf(m.form == formRaw, m.pieces))
	case at == "broker" && m.op == opPiece && m.worker:
		appendWorkerPiece(o, token, rid, m.data)
	case at == "broker" && m.op == opPiece && m.data != nil:
		appendClientPiece(o, rid, m.data)
	case at == "broker" && m.op == opCredit && m.worker:
		appendWorkerCredit(o, token, rid, m.credit)
	case at == "broker" && m.op == opCredit:
		appendClientCredit(o, rid, m.credit, m.window)
	case at == "broker" && !m.worker && (m.op == opHeartbeat || m.op == opCancel || m.op == opBlocked || m.op == opPiece):
		appendClientCommand(o, m.op, rid)
	case at == "broker" && m.worker && (m.op == opHeartbeat || m.op == opBlocked || m.op == opDisconnect || m.op == opDrain):
		appendWorkerCommand(o, m.op, token, rid)
	case at == "broker" && len(m.body) == 2 && string(m.body[0]) == "b":
		appendReplyRaw(o, m.op, token, rid, rawMark, m.body[1])
	case at == "client" && m.op == opCredit:
		appendCreditToClient(o, "id", m.rid, m.credit)
		return 1
	case at == "client" && m.op == opPiece:
		appendToClient(o, "id", m.op, m.rid, [][]byte{m.data})
		return 1
	case at == "client" && m.op != opHello:
		appendToClient(o, "id", m.op, m.rid, m.body)
		return 1
	case at == "worker" && m.op == opPiece && m.data != nil:
		appendPieceToWorker(o, "id", m.token, m.rid, m.data)
		return 1
	case at == "worker" && m.op == opRequest && m.extra == nil:
		appendDispatch(o, "id", m.token, m.rid, m.data, m.options, "", nil)
		return 1
	case at == "worker" && m.op == opCredit:
		appendCreditToWorker(o, "id", m.token, m.rid, m.credit, m.window)
		return 1
	case at == "worker" && m.op != opRequest && m.op != opHello && (m.op != opCancel || len(m.cause) > 0):
		appendToWorker(o, "id", m.op, m.token, m.rid, string(m.cause))
		return 1
	default:
		o.Begin()
		o.Envelope()
		o.FrameString(map[bool]string{false: headerClient, true: headerWorker}[m.worker])
		o.FrameString(opDigits[m.op])
		var mark []byte
		if m.form == formRaw || m.pieces {
			mark = []byte(markOf(m.form == formRaw, m.pieces))
		}
		for _, f := range append([][]byte{m.service, m.token, m.rid, mark, m.data, m.options, m.extra, m.caps, m.cause}, m.body...) {
			if f != nil {
				o.Frame(f)
			}
		}
		o.End()
	}
	return 0
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

// FuzzEnvelope: what is in an envelope is read as if it had come without, and
// what is no envelope is refused. Nothing is lost or added in between.
func FuzzEnvelope(f *testing.F) {
	for _, s := range []string{"C|4|r", "W|3|t|r|b|x", "C|2|s|r|1|{}", "C|", "", strings.Repeat("|", maxFrames), "W|4"} {
		f.Add(envelope(split(s)))
	}
	f.Add(append(envelope(split("C|4")), 1, 0))
	f.Add([]byte{batch.Mark, 0xff, 0xff, 0xff, 0xff})
	f.Add(envelope([][]byte{envelope(split("C|4|r"))}))
	f.Fuzz(func(t *testing.T, b []byte) {
		inner, ok := batch.Unpack(b, nil, maxFrames)
		if ok && (len(inner) > maxFrames || !bytes.Equal(envelope(inner), b)) {
			t.Fatalf("%q unpacked to %q", b, inner)
		}
		for at, parse := range parsers {
			var whole, plain message
			got := parse([][]byte{b}, &whole)
			want := ok && len(inner) != 1 && parse(inner, &plain) // one frame would be opened again
			if got != want || got && whole.show() != plain.show() {
				t.Fatalf("at %s: %q is %v, %s; without the envelope %v, %s", at, b, got, whole.show(), want, plain.show())
			}
		}
	})
}

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
			if e, ok := r.err.(*Error); ok && (e.Code == "" || e.Code == "200" || two && !utf8.ValidString(e.Code)) {
				t.Fatalf("%q: an error with code %q", body, e.Code)
			}
			return
		}
		if !json.Valid(r.msg.JSON()) {
			t.Fatalf("%q: not JSON: %q", body, r.msg.JSON())
		}
		if o := (batch.Out{}); !r.msg.raw { // our own worker's form of it reads the same
			appendReplyJSON(&o, opReply, "t", "r", "200", r.msg.JSON())
			in := batch.In{B: o.B}
			if again := parseReply("s", in.Next()[4:]); again.err != nil || !bytes.Equal(again.msg.JSON(), r.msg.JSON()) {
				t.Fatalf("%q became %q, %v", r.msg.JSON(), again.msg.JSON(), again.err)
			}
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
	for _, s := range []string{"", "{}", `{"timeout":1000}`, `{"timeout":-1,"failFast":true}`, `{"meta":{"a":"b"}}`, "null", "{", `{"timeout":1e400}`,
		`{"timeout":812,"attempt":2}`, `{"timeout":812,"failFast":true,"credit":65536,"attempt":3}`, `{"attempt":1000000}`, `{"attempt":1}`, `{"attempt":"2"}`, `{"timeout":01}`, `{"timeout":-0}`, `{"timeout":1,"timeout":2}`} {
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
	f.Add([]byte(`{"v":1,"id":"abcdefghijklmnopqrstuv","hb":2500,"credit":262144,"pack":1}`))
	f.Add([]byte(`{"v":01,"id":"a\\","hb":-0,"concurrency":1e3}`))
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

// record is one recorded message (testdata/wire).
type record struct {
	Scenario string   `json:"scenario"`
	MS       int      `json:"ms"`
	From     string   `json:"from"`
	To       string   `json:"to"`
	Frames   []string `json:"frames"`
}

// recorded reads the traffic of zmq-omdp 4f18192, the specification's revision.
func recorded(tb testing.TB) []record { return recordedIn(tb, "omdp-spec") }

func recordedFrom(tb testing.TB, x Dialect) []record { return recordedIn(tb, x.String()) }

func (r *record) bytes() (f [][]byte) {
	for _, s := range r.Frames {
		f = append(f, []byte(s))
	}
	return f
}

func recordedIn(tb testing.TB, name string) []record {
	tb.Helper()
	b, err := os.ReadFile("testdata/wire/" + name + ".jsonl")
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
