package omdp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/zmq-omdp/omdp/internal/batch"
	"pgregory.net/rapid"
)

// Fuzz targets over every dialect: its codec at each end, and the core with
// peers of all of them.

// foreignDialects are those that have a codec of their own beside OMDP's.
var foreignDialects = []Dialect{OMDPFinal, PIGATO, MDP02, MDP01}

// seedDialects adds the recorded messages of every dialect, and what was not recorded.
func seedDialects(f *testing.F, to string) {
	add := func(frames []string) {
		for x := range foreignDialects {
			f.Add(uint8(x), bytesOf(frames))
		}
	}
	for _, x := range []Dialect{OMDPFinal, PIGATO} {
		for _, r := range recordedFrom(f, x) {
			if r.To == to && !slices.ContainsFunc(r.Frames, func(s string) bool { return len(s) > 255 }) {
				add(r.Frames)
			}
		}
	}
	for _, s := range []string{
		"MDPC02|\x01|s|a|b", "MDPC02|\x02|s|a", "MDPC02|\x03|s|a", "MDPW02|\x01|s", "MDPW02|\x02|t||a|b", "MDPW02|\x03|t||a", "MDPW02|\x04|t||a", "MDPW02|\x05", "MDPW02|\x06",
		"|MDPC01|s|a|b", "|MDPW01|\x01|s", "|MDPW01|\x02|t||a", "|MDPW01|\x03|t||a|b", "|MDPW01|\x04", "|MDPW01|\x05",
		`|MDPC01|s|{"status":418,"msg":"x"}`, `|MDPC01|s|{"status":"TIMEOUT","executed":false}`, `|MDPW01|` + "\x03" + `|t||{"status":"W_ERROR"}`,
		"W|7|t||r", `W|4||{"concurrency":-1}`, `W|3|t||r|-1|{"code":418,"text":"x"}|undefined`, "C|4|request|r", `C|3|r|"TIMEOUT"`, `C|3||r|-1|"TIMEOUT"|{}`,
	} {
		add(strings.Split(s, "|"))
	}
}

// fuzzCodec: what is parsed is in bounds, and written out again by the encoders
// that the other end has for it, it is the same.
func fuzzCodec(f *testing.F, at string) {
	seedDialects(f, at)
	f.Fuzz(func(t *testing.T, x uint8, b []byte) {
		w := wires[foreignDialects[int(x)%len(foreignDialects)]]
		parse := w.parseAtBroker
		switch at {
		case "client":
			parse = w.parseAtClient
		case "worker":
			parse = w.parseAtWorker
		}
		frames := framesOf(b)
		var m message
		if !parse(frames, &m) {
			return
		}
		switch {
		case m.dialect != w.dialect, m.rid != nil && !validRID(m.rid), m.token != nil && !validToken(m.token), m.service != nil && !validService(m.service), m.level < levelAny:
			t.Fatalf("%v: %q was taken as %s", w.dialect, frames, m.show())
		case m.caps != nil || m.extra != nil || m.pieces || m.credit != 0 || m.op > opReject:
			t.Fatalf("%v: %q has what only OMDP has: %s", w.dialect, frames, m.show())
		case m.said == saidValue && (len(m.body) == 0 || m.form == formJSON && len(m.body) > 1), m.said == saidError && (!json.Valid([]byte(m.code)) || !json.Valid(m.body[0])):
			t.Fatalf("%v: %q says %d %q %q", w.dialect, frames, m.said, m.code, m.body)
		}
		said := told(&m)
		var o batch.Out
		skip := 0
		switch {
		case (m.op == opReply || m.op == opPartial) && at == "client":
			w.appendReply(&o, target{"id", string(m.service), m.rid}, &m)
			skip = 1
		case m.op == opReply || m.op == opPartial:
			w.appendResult(&o, &m)
		case m.op == opRequest && at == "worker":
			w.appendWork(&o, "id", &work{token: m.token, rid: m.rid, service: string(m.service), data: m.data, options: m.options, form: m.form})
			skip = 1
		case m.op == opRequest:
			w.appendAsk(&o, string(m.service), string(m.rid), m.data, m.options, m.form)
		case m.op == opReady && at == "broker":
			w.appendReady(&o, string(m.service))
		case m.op == opHeartbeat && at == "worker":
			w.appendBeat(&o, "id", m.token, m.rid)
			skip = 1
		case m.op == opHeartbeat && m.level != 0:
			n := m.level
			switch n {
			case levelNone:
				n = 0
			case levelAny:
				n = -1
			}
			w.appendWorkerBeat(&o, n, "", "")
		case m.op == opDisconnect && at == "worker":
			w.appendFarewell(&o, "id")
			skip = 1
		case m.op == opDisconnect:
			w.appendLeave(&o)
		default:
			return
		}
		in := batch.In{B: o.B}
		again := in.Next()[skip:]
		var m2 message
		if !parse(again, &m2) {
			t.Fatalf("%v: %q became %q, which can't be read", w.dialect, frames, again)
		}
		if m.op == opRequest && at == "broker" && !w.opaque && m.options == nil || m.op == opRequest && at == "worker" && !w.options {
			m2.options = m.options // absent ones are written as {}, or not at all
		} else if m.op == opRequest && m.options == nil && string(m2.options) == "{}" {
			m2.options = nil
		}
		if now := told(&m2); now != said {
			t.Fatalf("%v: %q became %q:\n%s\n%s", w.dialect, frames, again, said, now)
		}
	})
}

// told is all that a message of another dialect says.
func told(m *message) string {
	return fmt.Sprintf("%v %d %q %q %q %d %q %q level %d, %d %q %q %q", m.worker, m.op, m.service, m.rid, m.token, m.form, m.dataFrames(), m.options, m.level, m.said, m.code, m.executed, m.body)
}

func FuzzDialectAtBroker(f *testing.F) { fuzzCodec(f, "broker") }
func FuzzDialectAtClient(f *testing.F) { fuzzCodec(f, "client") }
func FuzzDialectAtWorker(f *testing.F) { fuzzCodec(f, "worker") }

// FuzzBridge: whatever a worker of one dialect says, a client of any other can
// read, and it says the same: JSON stays JSON of the same value, bytes are found
// again where there is a place for them, an error stays an error of its code.
func FuzzBridge(f *testing.F) {
	for i, s := range []string{`{"a":1}`, `"x"`, "null", "\xff\x00", "plain", "", `{"status":500,"msg":1}`, `{"code":418,"text":"x"}`, `"TIMEOUT"`, "p1:x", "1"} {
		f.Add(uint8(i), uint8(i*5), uint8(i), []byte(s))
	}
	f.Fuzz(func(t *testing.T, from, to, kind uint8, b []byte) {
		a, z := wires[1+int(from)%(len(wires)-1)], wires[1+int(to)%(len(wires)-1)]
		m := message{op: opReply, token: []byte("t"), rid: []byte("r")}
		switch value := [][]byte{b}; {
		case kind%3 == 0 && isJSON(b):
			m.said, m.code, m.form, m.body = saidError, [...]string{"500", "418", `"TEAPOT"`}[kind/3%3], formJSON, value
		case isJSON(b) && !a.opaque:
			m.said, m.form, m.body = saidValue, formJSON, value
		case a.opaque:
			m.said, m.form, m.body = saidValue, formLoose, append(value, slices.Repeat([][]byte{[]byte("x")}, int(kind/3%3))...)
		default:
			return
		}
		var o batch.Out
		a.appendResult(&o, &m)
		in := batch.In{B: o.B}
		var at message
		if !a.parseAtBroker(in.Next(), &at) {
			t.Fatalf("%v says %q, which its codec can't read", a.dialect, m.body)
		}
		want := replyOf("s", &at)
		var p batch.Out
		at.marks = kind&1 == 0 && z == wires[OMDP]
		z.appendReply(&p, target{"id", "s", []byte("r")}, &at)
		in = batch.In{B: p.B}
		var end message
		if frames := in.Next(); !z.parseAtClient(frames[1:], &end) {
			t.Fatalf("from %v to %v: %q can't be read", a.dialect, z.dialect, frames)
		}
		got := replyOf("s", &end)
		if (got.err == nil) != (want.err == nil) && !alike(&m) {
			t.Fatalf("from %v to %v: %v, %v became %v, %v", a.dialect, z.dialect, want.msg, want.err, got.msg, got.err)
		}
		if want.err == nil && got.err == nil && !bytes.Equal(compact(want.msg.JSON()), compact(got.msg.JSON())) {
			t.Fatalf("from %v to %v: %q became %q", a.dialect, z.dialect, want.msg.JSON(), got.msg.JSON())
		}
		x, ok1 := want.err.(*Error)
		y, ok2 := got.err.(*Error)
		if ok1 && ok2 && !alike(&m) && (x.Code != y.Code || !bytes.Equal(compact(x.Data), compact(y.Data))) {
			t.Fatalf("from %v to %v: %+v became %+v", a.dialect, z.dialect, x, y)
		}
	})
}

func compact(b []byte) []byte {
	var o bytes.Buffer
	if json.Compact(&o, b) != nil {
		return b
	}
	return o.Bytes()
}

// alike tells whether a value is, in some dialect, just as an error is, or one
// of the broker's own: nothing can be done about that.
func alike(m *message) bool {
	if len(m.body) != 1 {
		return false
	}
	b := m.body[0]
	s, ok := unquote(b)
	return bytes.HasPrefix(b, []byte(`{"status":`)) || bytes.HasPrefix(b, []byte(`{"code":`)) || ok && statuses[string(s)].err != nil
}

// FuzzDialects plays the bytes as a history of peers of every dialect
// (dispatch_dialects_test.go).
func FuzzDialects(f *testing.F) {
	for n := range 24 {
		src := make([]byte, 60+25*n)
		for i := range src {
			src[i] = byte(i*i*(n+7) + i>>2 + 3*n)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		if len(src) > 800 {
			return
		}
		w := newDialectWorld(t, slices.Clone(src)).play()
		if len(src)%4 == 0 { // minutes of quiet cost more than the history itself
			w.heal()
		}
	})
}

// TestDialectHistories plays such histories that are drawn at random.
func TestDialectHistories(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 0)) // rapid's own bytes are mostly small
		src := make([]byte, rapid.IntRange(60, 700).Draw(r, "length"))
		for i := range src {
			src[i] = byte(random.Uint32())
		}
		newDialectWorld(r, src).play().heal()
	})
}

// FuzzVersion: versions are in one order, and a range allows what its
// comparisons say.
func FuzzVersion(f *testing.F) {
	for _, s := range []string{"1.2.3 1.2.4 ^1.2", "v1.0.0-rc.1 1.0.0 >=1.0.0-rc.1 <2", "0.0.1 0.1.0 ~0.0", "1.2.3 2.0.0 1.x || >=2 <3", "1.0.0 1.2.0 1.0.0 - 1.1", "=1.2.3+b 1.2.3 *", "1.0.0-1 1.0.0-a ="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		one, rest, _ := strings.Cut(s, " ")
		two, wanted, _ := strings.Cut(rest, " ")
		a, ok1 := parseVersion(one)
		b, ok2 := parseVersion(two)
		if !ok1 || !ok2 {
			allows(wanted, a)
			return
		}
		allows(wanted, b)
		sign := func(n int) int { return min(max(n, -1), 1) }
		if c := sign(a.compare(b)); c != -sign(b.compare(a)) || a.compare(a) != 0 {
			t.Fatalf("%q is %d to %q, and that %d to it", one, c, two, sign(b.compare(a)))
		}
		if a.pre != "" || b.pre != "" || strings.ContainsAny(one+two, "+= ") {
			return
		}
		for op, want := range map[string]bool{">=": b.compare(a) >= 0, ">": b.compare(a) > 0, "<": b.compare(a) < 0, "<=": b.compare(a) <= 0, "": b.compare(a) == 0,
			"^": b.compare(a) >= 0 && caret(a, b), "~": b.compare(a) >= 0 && a.n[0] == b.n[0] && a.n[1] == b.n[1]} {
			if got := allows(op+one, b); got != want {
				t.Fatalf("%s%s allows %s: %v, want %v", op, one, two, got, want)
			}
		}
	})
}

// caret tells whether two versions agree up to the first number that is not 0.
func caret(a, b version) bool {
	for i := range a.n {
		if a.n[i] != b.n[i] {
			return false
		}
		if a.n[i] != 0 {
			return true
		}
	}
	return true
}
