package omdp

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zmq-omdp/omdp/internal/batch"
)

func split(text string) [][]byte {
	var f [][]byte
	for p := range strings.SplitSeq(text, "|") {
		f = append(f, []byte(p))
	}
	return f
}

// show writes a parsed message by its fields that are there.
func (m message) show() string {
	var s strings.Builder
	s.WriteString(fmt.Sprint(map[bool]string{true: "W", false: "C"}[m.worker], " ", uint8(m.op)))
	for _, f := range []struct {
		name string
		b    []byte
	}{{"service", m.service}, {"rid", m.rid}, {"token", m.token}, {"data", m.data}, {"options", m.options}, {"extra", m.extra}, {"caps", m.caps}, {"cause", m.cause}} {
		if f.b != nil {
			s.WriteString(fmt.Sprintf(" %s=%s", f.name, f.b))
		}
	}
	if m.form == formRaw {
		s.WriteString(" raw")
	}
	if m.pieces {
		s.WriteString(" pieces")
	}
	if m.body != nil {
		s.WriteString(fmt.Sprintf(" body=%s", bytes.Join(m.body, []byte("|"))))
	}
	if m.credit != 0 {
		s.WriteString(fmt.Sprint(" credit=", m.credit))
	}
	if m.window != 0 {
		s.WriteString(fmt.Sprint(" window=", m.window))
	}
	return s.String()
}

var parsers = map[string]func([][]byte, *message) bool{"broker": parseAtBroker, "client": parseAtClient, "worker": parseAtWorker}

// TestParse reads every message of protocol.md, at each of the three.
func TestParse(t *testing.T) {
	for _, c := range []struct{ at, frames, want string }{
		{"broker", "C|2|echo|r1|\"x\"|{}", `C 2 service=echo rid=r1 data="x" options={}`},
		{"broker", "C|2|echo|r1|\"x\"", `C 2 service=echo rid=r1 data="x"`}, // "Options may be missing"
		{"broker", "C|2|echo|r1|undefined|{}", `C 2 service=echo rid=r1 data=undefined options={}`},
		{"broker", "C|2|echo|r1||", `C 2 service=echo rid=r1 data= options=`},
		{"broker", "C|\x02|echo|r1|1|{}", `C 2 service=echo rid=r1 data=1 options={}`}, // MDP's binary type byte
		{"broker", "C|4", "C 4"},
		{"broker", "C|4|r1", "C 4 rid=r1"},
		{"broker", "C|8|{}", "C 8 caps={}"},
		{"broker", "C|9|r1|1", "C 9 rid=r1 credit=1"},
		{"broker", "C|9|r1|1099511627776", "C 9 rid=r1 credit=1099511627776"},
		{"broker", "C|9|r1|0|1073741824", "C 9 rid=r1 window=1073741824"},
		{"broker", "W|12|tok|r1", "W 12 rid=r1 token=tok"},
		{"client", "C|12|r1", "C 12 rid=r1"},
		{"worker", "W|9|tok|r1|5|8192", "W 9 rid=r1 token=tok credit=5 window=8192"},
		{"broker", "C|10|r1", "C 10 rid=r1"},
		{"broker", "W|1|echo", "W 1 service=echo"},
		{"broker", "W|1|echo|{}", "W 1 service=echo caps={}"},
		{"broker", "W|3|tok|r1|{}", "W 3 rid=r1 token=tok body={}"},
		{"broker", "W|3|tok|r1|b|x", "W 3 rid=r1 token=tok body=b|x"},
		{"broker", "W|6|tok|r1|{}", "W 6 rid=r1 token=tok body={}"},
		{"broker", "W|6|tok|r1|b|", "W 6 rid=r1 token=tok body=b|"},
		{"broker", "W|4", "W 4"},
		{"broker", "W|4|tok|r1", "W 4 rid=r1 token=tok"},
		{"broker", "W|5", "W 5"},
		{"broker", "W|8|{}", "W 8 caps={}"},
		{"broker", "W|11", "W 11"},
		{"client", "C|3|r1|{}", "C 3 rid=r1 body={}"},
		{"client", "C|3|r1|b|x", "C 3 rid=r1 body=b|x"},
		{"client", "C|6|r1|{}", "C 6 rid=r1 body={}"},
		{"client", "C|4", "C 4"},
		{"client", "C|4|r1", "C 4 rid=r1"},
		{"client", "C|8|{}", "C 8 caps={}"},
		{"client", "C|11", "C 11"},
		{"broker", "C|2|echo|r1|b|x|{}", "C 2 service=echo rid=r1 data=x options={} raw"},
		{"broker", "C|2|echo|r1|p||{}", "C 2 service=echo rid=r1 data= options={} pieces"},
		{"broker", "C|2|echo|r1|pb|x|{}", "C 2 service=echo rid=r1 data=x options={} raw pieces"},
		{"worker", "W|2|tok|r1|p|1|{}|x", "W 2 rid=r1 token=tok data=1 options={} extra=x pieces"},
		{"broker", "C|12|r1", "C 12 rid=r1"},
		{"broker", "C|13|r1|x", "C 13 rid=r1 data=x"},
		{"broker", "C|13|r1", "C 13 rid=r1"},
		{"broker", "W|9|tok|r1|17", "W 9 rid=r1 token=tok credit=17"},
		{"broker", "W|13|tok|r1|x", "W 13 rid=r1 token=tok data=x"},
		{"client", "C|9|r1|17", "C 9 rid=r1 credit=17"},
		{"client", "C|13|r1|x", "C 13 rid=r1 data=x"},
		{"worker", "W|2|tok|r1|b|x|{}|y", "W 2 rid=r1 token=tok data=x options={} extra=y raw"},
		{"worker", "W|12|tok|r1", "W 12 rid=r1 token=tok"},
		{"worker", "W|13|tok|r1|x", "W 13 rid=r1 token=tok data=x"},
		{"worker", "W|13|tok|r1", "W 13 rid=r1 token=tok"},
		{"worker", "W|2|tok|r1|1", "W 2 rid=r1 token=tok data=1"},
		{"worker", "W|2|tok|r1|1|{}", "W 2 rid=r1 token=tok data=1 options={}"},
		{"worker", "W|2|tok|r1|1|{}|x", "W 2 rid=r1 token=tok data=1 options={} extra=x"},
		{"worker", "W|4", "W 4"},
		{"worker", "W|4|tok|r1", "W 4 rid=r1 token=tok"},
		{"worker", "W|5", "W 5"},
		{"worker", "W|8|{}", "W 8 caps={}"},
		{"worker", "W|9|tok|r1|17", "W 9 rid=r1 token=tok credit=17"},
		{"worker", "W|10|tok|r1|gone", "W 10 rid=r1 token=tok cause=gone"},
		{"worker", "W|11", "W 11"},
	} {
		var m message
		if ok := parsers[c.at](split(c.frames), &m); !ok {
			t.Errorf("parse at %s %q: refused", c.at, c.frames)
		} else if got := m.show(); got != c.want {
			t.Errorf("parse at %s %q: got %s, want %s", c.at, c.frames, got, c.want)
		}
	}
}

// TestParseMalformed: what is not whole and right is refused, each a single
// frame away from what is right.
func TestParseMalformed(t *testing.T) {
	long := strings.Repeat("x", 300)
	for at, all := range map[string][]string{
		"broker": {
			"", "C", "W", "X|2|echo|r|1", "CC|2|echo|r|1", "|2|echo|r|1", "\x01|2|echo|r|1", "C|", "C|0", "C|7|r", "C|12", "C|99", "C|02", "C|1x", "C|4 ", "C|\x00", "C|\x0d",
			"C|1|echo", "C|3|r|{}", "C|5", "C|6|r|{}", "C|11",
			"C|2", "C|2|echo", "C|2|echo|r", "C|2||r|1|{}", "C|2|echo||1|{}", "C|2|" + long + "|r|1", "C|2|echo|" + long + "|1",
			"C|4||", "C|4|", "C|4|r|x", "C|4|" + long, "C|8", "C|8|{}|x", "C|10", "C|10|", "C|10|r|x",
			"C|9|r", "C|9|r|", "C|9|r|0", "C|9|r|-1", "C|9|r|1.5", "C|9|r|x", "C|9|r|1x", "C|9|r|1099511627777", "C|9|r|9999999999999999999999", "C|9||1", "C|9|r|1|0", "C|9|r|-1|5", "C|9|r|1|-5", "C|9|r|1|1073741825", "C|9|r|1|x", "C|9|r||5", "C|9|r|1|2|3", "C|12|r|x", "C|13", "C|13|", "C|13|r|", "C|13|r|x|y", "C|14", "C|2|echo|r|x|1|{}", "C|2|echo|r||1|{}", "C|2|echo|r|b|1|{}|x",
			"W|1", "W|1|", "W|1|" + long, "W|1|echo|{}|x", "W|2|tok|r|1|{}", "W|3", "W|3|tok", "W|3|tok|r", "W|3||r|{}", "W|3|tok||{}", "W|3|tok|r|b|x|y", "W|3|" + long + "|r|{}",
			"W|6|tok|r", "W|4|tok", "W|4|tok|", "W|4|tok|r|x", "W|4||r", "W|5|x", "W|7|tok|r|{}", "W|8", "W|9|tok|r", "W|9|tok|r|0", "W|9|tok|r|-1", "W|9|tok|r|x", "W|9|tok|r|1|2", "W|9||r|1", "W|9|tok|r|1099511627777", "W|13", "W|13|tok|r", "W|13|tok|r|", "W|13|tok|r|x|y", "W|13|tok||x", "W|10|tok|r|gone", "W|11|x", "W|12", "W|12|tok", "W|12||r", "W|12|tok|r|x",
			strings.Repeat("C|", maxFrames) + "C",
		},
		"client": {"", "C", "W|3|r|{}", "C|1", "C|2|s|r|1", "C|3", "C|3|r", "C|3||{}", "C|3|r|b|x|y", "C|5", "C|6|r", "C|4|r|x", "C|7|r|{}", "C|8", "C|9|r", "C|9|r|0", "C|9|r|-1", "C|9|r|1|2", "C|9||1", "C|10|r", "C|11|x", "C|12", "C|12|", "C|12|r|x", "C|13|r", "C|13|r|", "C|13||x", "C|13|r|x|y"},
		"worker": {"", "W", "C|2|tok|r|1", "W|1|s", "W|2", "W|2|tok", "W|2|tok|r", "W|2||r|1", "W|2|tok||1", "W|2|tok|r|1|{}|x|y", "W|2|tok|r|b|1|{}|x|y", "W|2|tok|r||1|{}|x", "W|3|tok|r|{}", "W|6|tok|r|{}", "W|4|tok", "W|5|x",
			"W|8", "W|9|tok|r", "W|9|tok|r|0", "W|9|tok|r|1|0", "W|9|tok|r|1|2|3", "W|10|tok|r", "W|10|tok|r|gone|x", "W|11|x", "W|12|tok", "W|12||r", "W|12|tok|r|x", "W|13", "W|13|tok", "W|13||r", "W|13|tok|r|", "W|13|tok|r|x|y"},
	} {
		for _, text := range all {
			var m message
			if parsers[at](split(text), &m) {
				t.Errorf("parse at %s %.60q: taken as %s", at, text, m.show())
			}
		}
		var m message
		if parsers[at](nil, &m) {
			t.Errorf("parse at %s: a message without frames was taken", at)
		}
	}
}

// packed returns what an encoder appended, as frames; with id, that is first.
func packed(f func(o *batch.Out)) [][]byte { return packedIn(f, false) }

func packedIn(f func(o *batch.Out), envelope bool) [][]byte {
	o := batch.Out{Pack: envelope}
	f(&o)
	if o.Len() != 1 {
		panic(fmt.Sprint("encoded ", o.Len(), " messages"))
	}
	in := batch.In{B: o.Message(0)}
	return in.Next()
}

// TestAppendParse: parse of what append wrote is what was given to it, for
// every encoder and any content.
func TestAppendParse(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := func(name string, most int) string {
			return string(rapid.SliceOfN(rapid.Byte(), 1, most).Draw(rt, name))
		}
		service, rid, token, cause := text("service", 255), text("rid", 64), text("token", 255), text("cause", 9)
		data, options := []byte(text("data", 50)), []byte(text("options", 9))
		n := rapid.Int64Range(1, 1<<40).Draw(rt, "n")
		c := caps{V: 1, ID: "life", HB: 2500}
		x := extra{remaining: rapid.Int64Range(-1, 1<<40).Draw(rt, "remaining"), attempt: 1, credit: n, raw: rapid.Bool().Draw(rt, "raw"), more: rapid.Int64Range(-1, 1<<40).Draw(rt, "more"), body: rapid.Int64Range(0, 1<<40).Draw(rt, "body")}
		body := [][]byte{data}
		for _, e := range []struct {
			at     string
			id     int // frames before the message
			append func(o *batch.Out)
			want   message
		}{
			{"broker", 0, func(o *batch.Out) { appendClientRequest(o, service, rid, data, options, "") }, message{op: opRequest, service: []byte(service), rid: []byte(rid), data: data, options: options}},
			{"broker", 0, func(o *batch.Out) { appendClientRequest(o, service, rid, data, nil, "") }, message{op: opRequest, service: []byte(service), rid: []byte(rid), data: data, options: []byte("{}")}},
			{"broker", 0, func(o *batch.Out) { appendClientCommand(o, opHeartbeat, "") }, message{op: opHeartbeat}},
			{"broker", 0, func(o *batch.Out) { appendClientCommand(o, opHeartbeat, rid) }, message{op: opHeartbeat, rid: []byte(rid)}},
			{"broker", 0, func(o *batch.Out) { appendClientCommand(o, opCancel, rid) }, message{op: opCancel, rid: []byte(rid)}},
			{"broker", 0, func(o *batch.Out) { appendClientCredit(o, rid, n, 0) }, message{op: opCredit, rid: []byte(rid), credit: n}},
			{"broker", 0, func(o *batch.Out) { appendClientCredit(o, rid, n-1, 1+n%maxWindow) }, message{op: opCredit, rid: []byte(rid), credit: n - 1, window: 1 + n%maxWindow}},
			{"broker", 0, func(o *batch.Out) { appendWorkerCommand(o, opBlocked, token, rid) }, message{worker: true, op: opBlocked, token: []byte(token), rid: []byte(rid)}},
			{"client", 1, func(o *batch.Out) { appendToClient(o, "id", opBlocked, []byte(rid), nil) }, message{op: opBlocked, rid: []byte(rid)}},
			{"broker", 0, func(o *batch.Out) { appendHello(o, headerClient, &c) }, message{op: opHello, caps: c.append(nil)}},
			{"broker", 0, func(o *batch.Out) { appendHello(o, headerWorker, &c) }, message{worker: true, op: opHello, caps: c.append(nil)}},
			{"broker", 0, func(o *batch.Out) { appendReady(o, service, &c) }, message{worker: true, op: opReady, service: []byte(service), caps: c.append(nil)}},
			{"broker", 0, func(o *batch.Out) { appendWorkerCommand(o, opDisconnect, "", "") }, message{worker: true, op: opDisconnect}},
			{"broker", 0, func(o *batch.Out) { appendWorkerCommand(o, opDrain, "", "") }, message{worker: true, op: opDrain}},
			{"broker", 0, func(o *batch.Out) { appendWorkerCommand(o, opHeartbeat, token, rid) }, message{worker: true, op: opHeartbeat, token: []byte(token), rid: []byte(rid)}},
			{"broker", 0, func(o *batch.Out) { appendReplyRaw(o, opPartial, token, rid, rawMark, data) }, message{worker: true, op: opPartial, token: []byte(token), rid: []byte(rid), body: [][]byte{[]byte("b"), data}}},
			{"broker", 0, func(o *batch.Out) { appendReplyJSON(o, opReply, token, rid, "200", data) }, message{worker: true, op: opReply, token: []byte(token), rid: []byte(rid), body: [][]byte{fmt.Appendf(nil, `{"status":200,"msg":%s}`, data)}}},
			{"client", 1, func(o *batch.Out) { appendToClient(o, "id", opReply, []byte(rid), body) }, message{op: opReply, rid: []byte(rid), body: body}},
			{"client", 1, func(o *batch.Out) { appendToClient(o, "id", opDrain, nil, nil) }, message{op: opDrain}},
			{"client", 1, func(o *batch.Out) { appendStatus(o, "id", []byte(rid), "LOST", "") }, message{op: opReply, rid: []byte(rid), body: [][]byte{[]byte(`{"status":"LOST"}`)}}},
			{"client", 1, func(o *batch.Out) { appendStatus(o, "id", []byte(rid), "TIMEOUT", "false") }, message{op: opReply, rid: []byte(rid), body: [][]byte{[]byte(`{"status":"TIMEOUT","executed":false}`)}}},
			{"client", 1, func(o *batch.Out) { appendHelloTo(o, "id", headerClient, &c) }, message{op: opHello, caps: c.append(nil)}},
			{"worker", 1, func(o *batch.Out) { appendDispatch(o, "id", []byte(token), []byte(rid), data, options, "", nil) }, message{worker: true, op: opRequest, token: []byte(token), rid: []byte(rid), data: data, options: options}},
			{"worker", 1, func(o *batch.Out) { appendDispatch(o, "id", []byte(token), []byte(rid), data, nil, "", nil) }, message{worker: true, op: opRequest, token: []byte(token), rid: []byte(rid), data: data}},
			{"worker", 1, func(o *batch.Out) { appendDispatch(o, "id", []byte(token), []byte(rid), data, nil, "", &x) }, message{worker: true, op: opRequest, token: []byte(token), rid: []byte(rid), data: data, options: []byte("{}"), extra: x.append(nil)}},
			{"broker", 0, func(o *batch.Out) { appendClientRequest(o, service, rid, data, options, rawMark) }, message{op: opRequest, service: []byte(service), rid: []byte(rid), data: data, form: formRaw, options: options}},
			{"broker", 0, func(o *batch.Out) { appendClientPiece(o, rid, data) }, message{op: opPiece, rid: []byte(rid), data: data}},
			{"broker", 0, func(o *batch.Out) { appendClientCommand(o, opPiece, rid) }, message{op: opPiece, rid: []byte(rid)}},
			{"broker", 0, func(o *batch.Out) { appendClientCommand(o, opBlocked, rid) }, message{op: opBlocked, rid: []byte(rid)}},
			{"broker", 0, func(o *batch.Out) { appendWorkerPiece(o, token, rid, data) }, message{worker: true, op: opPiece, token: []byte(token), rid: []byte(rid), data: data}},
			{"broker", 0, func(o *batch.Out) { appendWorkerCredit(o, token, rid, n) }, message{worker: true, op: opCredit, token: []byte(token), rid: []byte(rid), credit: n}},
			{"client", 1, func(o *batch.Out) { appendToClient(o, "id", opPiece, []byte(rid), body) }, message{op: opPiece, rid: []byte(rid), data: data}},
			{"client", 1, func(o *batch.Out) { appendCreditToClient(o, "id", []byte(rid), n) }, message{op: opCredit, rid: []byte(rid), credit: n}},
			{"worker", 1, func(o *batch.Out) { appendDispatch(o, "id", []byte(token), []byte(rid), data, options, rawMark, &x) }, message{worker: true, op: opRequest, token: []byte(token), rid: []byte(rid), data: data, form: formRaw, options: options, extra: x.append(nil)}},
			{"worker", 1, func(o *batch.Out) { appendPieceToWorker(o, "id", []byte(token), []byte(rid), data) }, message{worker: true, op: opPiece, token: []byte(token), rid: []byte(rid), data: data}},
			{"worker", 1, func(o *batch.Out) { appendToWorker(o, "id", opPiece, []byte(token), []byte(rid), "") }, message{worker: true, op: opPiece, token: []byte(token), rid: []byte(rid)}},
			{"worker", 1, func(o *batch.Out) { appendToWorker(o, "id", opBlocked, []byte(token), []byte(rid), "") }, message{worker: true, op: opBlocked, token: []byte(token), rid: []byte(rid)}},
			{"worker", 1, func(o *batch.Out) { appendToWorker(o, "id", opHeartbeat, nil, nil, "") }, message{worker: true, op: opHeartbeat}},
			{"worker", 1, func(o *batch.Out) { appendToWorker(o, "id", opCancel, []byte(token), []byte(rid), cause) }, message{worker: true, op: opCancel, token: []byte(token), rid: []byte(rid), cause: []byte(cause)}},
			{"worker", 1, func(o *batch.Out) { appendCreditToWorker(o, "id", []byte(token), []byte(rid), n, 0) }, message{worker: true, op: opCredit, token: []byte(token), rid: []byte(rid), credit: n}},
			{"worker", 1, func(o *batch.Out) { appendCreditToWorker(o, "id", []byte(token), []byte(rid), n-1, 1+n%maxWindow) }, message{worker: true, op: opCredit, token: []byte(token), rid: []byte(rid), credit: n - 1, window: 1 + n%maxWindow}},
			{"worker", 1, func(o *batch.Out) { appendHelloTo(o, "id", headerWorker, &c) }, message{worker: true, op: opHello, caps: c.append(nil)}},
		} {
			f := packed(e.append)
			if e.id == 1 && string(f[0]) != "id" {
				rt.Fatalf("the routing id is %q", f[0])
			}
			var m message
			if !parsers[e.at](f[e.id:], &m) {
				rt.Fatalf("parse at %s of %q: refused", e.at, f)
			}
			if got, want := m.show(), e.want.show(); got != want {
				rt.Fatalf("got %q, want %q", got, want)
			}
			g := packedIn(e.append, true) // in an envelope it is the same message
			var again message
			if len(g) != e.id+1 || !parsers[e.at](g[e.id:], &again) || again.show() != m.show() {
				rt.Fatalf("in an envelope of %d frames: got %q, want %q", len(g), again.show(), m.show())
			}
		}
		if got, ok := parseExtra(x.append(nil)); !ok || got != x {
			rt.Fatalf("extra %+v became %+v", x, got)
		}
	})
}

func envelope(frames [][]byte) []byte {
	b := []byte{batch.Mark}
	for _, f := range frames {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	return b
}

func TestEnvelope(t *testing.T) {
	var m message
	good := envelope(split("C|4|r1"))
	if !parseAtBroker([][]byte{good}, &m) || m.show() != "C 4 rid=r1" {
		t.Errorf("got %s", m.show())
	}
	for name, b := range map[string][]byte{
		"empty": {}, "mark alone": {batch.Mark}, "another mark": append([]byte{2}, good[1:]...), "cut": good[:len(good)-1], "a length cut": good[:3], "more": append(slices.Clone(good), 0),
		"a length past the end": {batch.Mark, 255, 255, 255, 255, 'C'}, "one in another": envelope([][]byte{good}), "too many": envelope(split(strings.Repeat("C|", maxFrames) + "C")),
		"malformed inside": envelope(split("C|9|r|0")),
	} {
		for at, parse := range parsers {
			if parse([][]byte{b}, &m) {
				t.Errorf("%s: taken at %s as %s", name, at, m.show())
			}
		}
	}
	if parseAtBroker([][]byte{good, good}, &m) || parseAtBroker([][]byte{[]byte("C"), good}, &m) {
		t.Error("an envelope among frames was taken")
	}
	// A large body travels as it is.
	large := make([]byte, packMax+1)
	if f := packedIn(func(o *batch.Out) { appendReplyRaw(o, opReply, "t", "r", rawMark, large) }, true); len(f) != 6 {
		t.Errorf("a large body: %d frames", len(f))
	}
	if f := packedIn(func(o *batch.Out) { appendToClient(o, "id", opReply, []byte("r"), [][]byte{[]byte("b"), large}) }, true); len(f) != 6 {
		t.Errorf("a large body: %d frames", len(f))
	}
	var o batch.Out // what is appended next is not in an envelope unless it is asked for
	o.Pack = true
	appendClientCommand(&o, opHeartbeat, "")
	o.Pack = false
	appendClientCommand(&o, opHeartbeat, "")
	in := batch.In{B: o.B}
	if a, b := len(in.Next()), len(in.Next()); a != 1 || b != 2 {
		t.Errorf("%d and %d frames, want 1 and 2", a, b)
	}
}

func TestCaps(t *testing.T) {
	for _, c := range []caps{{V: 1, ID: "a", HB: 1}, {V: 2, ID: strings.Repeat("~", 64), HB: 86_400_000, Concurrency: 7, Credit: 1 << 40, Pack: 1}} {
		if got, ok := parseCaps(c.append(nil)); !ok || got != c {
			t.Errorf("%+v became %+v, %v", c, got, ok)
		}
	}
	for _, s := range []string{`{"v":1,"id":"a","hb":5,"later":{"x":[1]}}`, ` { "hb" : 5, "id":"a", "v" : 1 } `} { // unknown keys are ignored
		if _, ok := parseCaps([]byte(s)); !ok {
			t.Errorf("caps %s: refused", s)
		}
	}
	for _, s := range []string{
		"", "{}", "null", "[]", "1", `{"v":1}`, `{"v":0,"id":"a","hb":5}`, `{"v":1,"id":"","hb":5}`, `{"v":1,"id":"a","hb":0}`, `{"v":1,"id":"a","hb":-5}`, `{"v":1,"id":"a","hb":86400001}`,
		`{"v":1,"id":"a b","hb":5}`, `{"v":1,"id":"é","hb":5}`, `{"v":1,"id":"a","hb":5,"concurrency":-1}`, `{"v":1,"id":"a","hb":5,"credit":-1}`, `{"v":1,"id":"a","hb":5,"credit":1e99}`,
		`{"v":1,"id":"` + strings.Repeat("x", 65) + `","hb":5}`, `{"v":1,"id":"a","hb":5}x`, `{"v":1,"id":"a","hb":5,"x":"` + strings.Repeat("x", 5000) + `"}`,
	} {
		if c, ok := parseCaps([]byte(s)); ok {
			t.Errorf("caps %.80s: taken as %+v", s, c)
		}
	}
}

func TestExtra(t *testing.T) {
	const good = `{"remaining":812,"attempt":1,"credit":262144,"raw":true}` // protocol.md, extensions
	want := extra{812, 1, 262144, true, false, 0, 0}
	if got, ok := parseExtra([]byte(good)); !ok || got != want || string(want.append(nil)) != good {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
	if got, ok := parseExtra([]byte(`{"remaining":-1,"attempt":2,"credit":0,"raw":false,"later":1}`)); !ok || got != (extra{-1, 2, 0, false, false, 0, 0}) {
		t.Errorf("with a later key: got %+v, %v", got, ok)
	}
	grows := strings.Replace(good, `}`, `,"grow":true}`, 1)
	want.grow = true
	if got, ok := parseExtra([]byte(grows)); !ok || got != want || string(want.append(nil)) != grows {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
	for _, s := range []string{"", "{}", good[:len(good)-1], `{"attempt":1,"remaining":812,"credit":1,"raw":true}`, strings.Replace(good, ":1,", ":0,", 1),
		strings.Replace(good, "262144", "-1", 1), strings.Replace(good, "812", "", 1), strings.Replace(good, "812", "9999999999999999", 1), strings.Replace(good, "true", "1", 1), good + "x"} {
		if x, ok := parseExtra([]byte(s)); ok {
			t.Errorf("extra %s: taken as %+v", s, x)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		text string
		want options
	}{
		{"", options{}}, {"{}", options{}}, {`{ }`, options{}}, {`{"timeout":null}`, options{}}, {`{"timeout":0}`, options{}}, {`{"retry":0,"x":{}}`, options{}},
		{`{"timeout":1000}`, options{timeout: time.Second}}, {`{"timeout": 1000 }`, options{timeout: time.Second}}, {`{"timeout":60000,"retry":0}`, options{timeout: time.Minute}},
		{`{"timeout":-1}`, options{timeout: timeoutNone}}, {`{"timeout":-7000}`, options{timeout: timeoutNone}}, {`{"timeout":-0.5}`, options{timeout: timeoutNone}},
		{`{"timeout":1.5}`, options{timeout: time.Millisecond}}, {`{"timeout":0.2}`, options{timeout: time.Millisecond}}, {`{"timeout":1e3}`, options{timeout: time.Second}},
		{`{"timeout":1e300}`, options{timeout: timeoutNone}}, {`{"timeout":999999999999999}`, options{timeout: timeoutNone}},
		{`{"failFast":true}`, options{failFast: true}}, {`{"timeout":5,"failFast":true,"meta":{"a":"b"}}`, options{timeout: 5 * time.Millisecond, failFast: true}},
	} {
		if got, ok := parseOptions([]byte(c.text)); !ok || got != c.want {
			t.Errorf("options %s: got %+v, %v, want %+v", c.text, got, ok, c.want)
		}
	}
	for _, s := range []string{"null", "undefined", "[]", "1", `"x"`, "{", `{"timeout":"1000"}`, `{"timeout":[]}`, `{"timeout":{}}`, `{"timeout":1}x`, `{"timeout":true}`, `x{}`} {
		if o, ok := parseOptions([]byte(s)); ok {
			t.Errorf("options %s: taken as %+v", s, o)
		}
	}
	meta := map[string]string{"b": "2", "a": "1"}
	b, err := appendOptions(nil, options{timeout: 1500 * time.Microsecond, failFast: true}, meta)
	if want := `{"timeout":2,"failFast":true,"meta":{"a":"1","b":"2"}}`; err != nil || string(b) != want {
		t.Errorf("got %s, %v, want %s", b, err, want)
	}
	if got := parseMeta(b); got["a"] != "1" || got["b"] != "2" || len(got) != 2 {
		t.Errorf("metadata: got %v", got)
	}
	if got := parseMeta([]byte(`{"meta":{"a":1,"b":"x"}}`)); len(got) != 1 || got["b"] != "x" {
		t.Errorf("metadata with a number: got %v", got)
	}
	if b, err := appendOptions(nil, options{}, nil); b != nil || err != nil {
		t.Errorf("no options: got %q, %v", b, err)
	}
}

// TestOptionsRoundTrip: what a client of ours writes is what the broker reads.
func TestOptionsRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := options{failFast: rapid.Bool().Draw(rt, "failFast")}
		switch rapid.IntRange(0, 2).Draw(rt, "kind") {
		case 0:
			o.timeout = timeoutNone
		case 1:
			o.timeout = time.Duration(rapid.Int64Range(1, 1<<40).Draw(rt, "ms")) * time.Millisecond
		}
		meta := rapid.MapOf(rapid.String(), rapid.String()).Draw(rt, "meta")
		b, err := appendOptions(nil, o, meta)
		if err != nil {
			rt.Fatal(err)
		}
		if got, ok := parseOptions(b); !ok || got != o {
			rt.Fatalf("%+v became %s became %+v", o, b, got)
		}
		if b != nil && !json.Valid(b) {
			rt.Fatalf("not JSON: %s", b)
		}
	})
}

// TestInt: at most 15 digits, and what follows is left.
func TestInt(t *testing.T) {
	for _, c := range []struct {
		text string
		n    int64
		rest string
		ok   bool
	}{
		{"0", 0, "", true}, {"-12,", -12, ",", true}, {"999999999999999", 999999999999999, "", true}, {"007}", 7, "}", true},
		{"", 0, "", false}, {"-", 0, "", false}, {"+1", 0, "", false}, {"x", 0, "", false}, {"1000000000000000", 0, "", false}, {"--1", 0, "", false},
	} {
		n, rest, ok := parseInt([]byte(c.text))
		if ok != c.ok || ok && (n != c.n || string(rest) != c.rest) {
			t.Errorf("%q: got %d, %q, %v", c.text, n, rest, ok)
		}
	}
	if math.MaxInt64/int64(time.Millisecond) < maxTimeoutMS {
		t.Error("the largest timeout overflows")
	}
}

// TestStringsAsJSON: strings are written as JSON.stringify writes them, and
// bytes so that they can be read back.
func TestStringsAsJSON(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", `""`}, {"foo", `"foo"`}, {`a"b\c`, `"a\"b\\c"`}, {"\n\r\t\b\f\x00\x1f", `"\n\r\t\b\f\u0000\u001f"`}, {"<&>\u2028", "\"<&>\u2028\""},
		{"žluť ☃ 😀", `"žluť ☃ 😀"`}, {"\xff", "\"\ufffd\""}, {"a long one without anything \"", `"a long one without anything \""`}, {"\x7f", "\"\x7f\""},
	} {
		if got := appendJSONString(nil, c.in); string(got) != c.want {
			t.Errorf("%q: got %s, want %s", c.in, got, c.want)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		s := rapid.String().Draw(rt, "text")
		b := rapid.SliceOf(rapid.Byte()).Draw(rt, "bytes")
		if got, ok := unquote(appendJSONString(nil, s)); !ok || string(got) != s {
			rt.Fatalf("%q became %q", s, got)
		}
		if got := (Message{b: appendBytes(nil, b)}).Bytes(); !bytes.Equal(got, b) {
			rt.Fatalf("%q became %q", b, got)
		}
		if got, ok := parseBuffer(appendBuffer(nil, b)); !ok || !bytes.Equal(got, b) {
			rt.Fatalf("%q became %q", b, got)
		}
		if plain := plainText(b); plain != (json.Valid(slices.Concat([]byte{'"'}, b, []byte{'"'})) && !bytes.ContainsAny(b, `"\`) && bytes.Equal(b, bytes.ToValidUTF8(b, nil))) {
			rt.Fatalf("%q is plain: %v", b, plain)
		}
		v, err := appendValue(nil, map[string]any{"s": s, "b": json.RawMessage(appendBytes(nil, b))})
		if err != nil || !json.Valid(v) || !isJSON(v) {
			rt.Fatalf("%q: %v", v, err)
		}
	})
}

// TestValue: the fixed meanings of design.md.
func TestValue(t *testing.T) {
	for _, c := range []struct {
		v    any
		want string
	}{
		{nil, "null"}, {"foo", `"foo"`}, {[]byte("foo"), `"foo"`}, {[]byte{255, 0}, `{"type":"Buffer","data":[255,0]}`}, {[]byte(nil), `""`},
		{json.RawMessage(`{"a": 1}`), `{"a": 1}`}, {Message{b: []byte("[1]")}, "[1]"}, {Message{b: []byte("x"), raw: true}, `"x"`}, {Message{}, "null"},
		{1.5, "1.5"}, {true, "true"}, {map[string]int{"b": 2, "a": 1}, `{"a":1,"b":2}`}, {struct{ A string }{"<>"}, `{"A":"<>"}`}, {[]int{}, "[]"},
	} {
		if got, err := appendValue(nil, c.v); err != nil || string(got) != c.want {
			t.Errorf("%T: got %s, %v, want %s", c.v, got, err, c.want)
		}
	}
	for _, v := range []any{make(chan int), math.NaN(), json.RawMessage("{"), json.RawMessage(nil), func() {}} {
		if got, err := appendValue([]byte("kept"), v); err == nil || string(got) != "kept" {
			t.Errorf("%T: got %s, %v", v, got, err)
		}
	}
}
