package omdp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// The codecs of other dialects as clients and workers use them, against the
// broker's side of the same codec and against what the foreign peers said.

// foreignWires are all dialects but OMDP.
var foreignWires = func() (all []*wire) {
	for d := OMDPFinal; d.valid(); d++ {
		all = append(all, wires[d])
	}
	return all
}

func eachForeign(t *testing.T, f func(t *testing.T, w *wire)) {
	for _, w := range foreignWires() {
		t.Run(w.dialect.String(), func(t *testing.T) { f(t, w) })
	}
}

// Generators of what messages carry.
var (
	genName  = rapid.StringMatching(`[ -~]{1,40}`)
	genToken = rapid.StringMatching(`[A-Za-z0-9_-]{1,36}`)
	genBytes = rapid.SliceOfN(rapid.Byte(), 0, 40)
	genJSON  = rapid.Custom(func(t *rapid.T) []byte {
		v := rapid.OneOf(
			rapid.Just[any](nil), rapid.Map(rapid.Bool(), func(v bool) any { return v }), rapid.Map(rapid.IntRange(-1000, 1000), func(v int) any { return v }),
			rapid.Map(rapid.String(), func(v string) any { return v }), rapid.Map(rapid.SliceOfN(rapid.String(), 0, 3), func(v []string) any { return v }),
			rapid.Map(rapid.MapOfN(rapid.String(), rapid.Int(), 0, 3), func(v map[string]int) any { return v }),
		).Draw(t, "value")
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
)

// What our client asks is what the broker reads.
func TestPeerAsk(t *testing.T) {
	eachForeign(t, func(t *testing.T, w *wire) {
		rapid.Check(t, func(t *rapid.T) {
			service, rid, data, f := genName.Draw(t, "service"), genToken.Draw(t, "rid"), genJSON.Draw(t, "data"), formJSON
			if w.opaque && rapid.Bool().Draw(t, "bytes") {
				data, f = genBytes.Draw(t, "data"), formRaw
			}
			options := appendAskOptions(nil, instant(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "left")), 0, w.asks, map[string]string{"a": genName.Draw(t, "meta")})
			var m message
			if in := packed(func(o *batch.Out) { w.appendAsk(o, service, rid, data, options, f) }); !w.parseAtBroker(in, &m) {
				t.Fatalf("the broker can't read %q", in)
			}
			if m.worker || m.op != opRequest || m.dialect != w.dialect || string(m.service) != service || !bytes.Equal(m.data, data) {
				t.Fatalf("the broker reads %+v", m)
			}
			if !w.numbered {
				if m.rid != nil || m.options != nil || m.form != formLoose {
					t.Fatalf("the broker reads %+v", m)
				}
				return
			}
			o, ok := parseOptions(m.options)
			if string(m.rid) != rid || !ok || o.timeout <= 0 || o.timeout > time.Hour || parseMeta(m.options)["a"] == "" {
				t.Fatalf("the broker reads %+v, %+v", m, o)
			}
		})
	})
}

// What the broker answers is what our client reads: values and handlers' errors.
func TestPeerAnswer(t *testing.T) {
	eachForeign(t, func(t *testing.T, w *wire) {
		rapid.Check(t, func(t *rapid.T) {
			to := target{"peer", genName.Draw(t, "service"), []byte(genToken.Draw(t, "rid"))}
			in := message{op: opReply}
			if w.partials && rapid.Bool().Draw(t, "partial") {
				in.op = opPartial
			}
			var want reply
			switch rapid.SampledFrom([]string{"value", "bytes", "frames", "error"}).Draw(t, "what") {
			case "value":
				in.says(saidValue, "", formJSON, genJSON.Draw(t, "value"))
				want.msg.b = in.body[0]
			case "bytes":
				in.says(saidValue, "", formRaw, genBytes.Draw(t, "value"))
				want.msg = Message{b: in.body[0], raw: true}
			case "frames":
				in.said, in.form, in.body = saidValue, formLoose, rapid.SliceOfN(genBytes, 2, 30).Draw(t, "frames")
				want.msg.b = appendArray(nil, in.body)
			case "error":
				code := rapid.SampledFrom([]string{"500", "418", `"TEAPOT"`, `"TIMEOUT"`, "-1"}).Draw(t, "code")
				in.says(saidError, code, formJSON, genJSON.Draw(t, "value"))
				want.err = &Error{Service: "s", Code: strings.Trim(code, `"`), Message: Message{b: in.body[0]}.String(), Data: in.body[0]}
			}
			f := packed(func(o *batch.Out) { w.appendReply(o, to, &in) })
			if string(f[0]) != to.id {
				t.Fatalf("it goes to %q", f[0])
			}
			var m message
			if !w.parseAtClient(f[1:], &m) {
				t.Fatalf("the client can't read %q", f[1:])
			}
			if m.op != in.op || w.numbered != (string(m.rid) == string(to.rid)) || !w.numbered && string(m.service) != to.service {
				t.Fatalf("the client reads %+v", m)
			}
			got := replyOf("s", &m)
			if want.err != nil {
				if fmt.Sprintf("%#v", got.err) != fmt.Sprintf("%#v", want.err) {
					t.Fatalf("got %#v, want %#v", got.err, want.err)
				}
				return
			}
			// An opaque frame says not whether it is JSON; one that isn't is bytes, and the other way round.
			same := bytes.Equal(got.msg.Bytes(), want.msg.Bytes())
			if got.err != nil || !same && !(w.opaque && string(got.msg.b) == string(want.msg.b)) {
				t.Fatalf("got %s, %v, want %s", got.msg.JSON(), got.err, want.msg.JSON())
			}
		})
	})
}

// The words of our broker arrive as such. That nothing was executed is not
// believed where a handler can say the same.
func TestPeerStatus(t *testing.T) {
	eachForeign(t, func(t *testing.T, w *wire) {
		for word, s := range statuses {
			for _, executed := range []string{"", "false", "true"} {
				f := packed(func(o *batch.Out) { w.appendError(o, target{"peer", "echo", []byte("r1")}, word, executed) })
				var m message
				if !w.parseAtClient(f[1:], &m) {
					t.Fatalf("%s: the client can't read %q", word, f)
				}
				r := replyOf("echo", &m)
				if !errors.Is(r.err, s.err) || OutcomeOf(r.err) != MayHaveExecuted || r.status != word {
					t.Errorf("%s: got %v (%v), status %q", word, r.err, OutcomeOf(r.err), r.status)
				}
			}
		}
		// Of no others.
		m := message{op: opReply}
		m.says(saidError, "500", formJSON, []byte(`"NOT_ONE_OF_THEM"`))
		f := packed(func(o *batch.Out) { w.appendReply(o, target{"peer", "echo", []byte("r1")}, &m) })
		if !w.parseAtClient(f[1:], &m) {
			t.Fatalf("the client can't read %q", f)
		}
		if e, ok := replyOf("echo", &m).err.(*Error); !ok || e.Message != "NOT_ONE_OF_THEM" {
			t.Errorf("got %v", replyOf("echo", &m).err)
		}
	})
}

// A REQUEST as the broker writes it is what our worker reads.
func TestPeerWork(t *testing.T) {
	eachForeign(t, func(t *testing.T, w *wire) {
		rapid.Check(t, func(t *rapid.T) {
			in := work{token: []byte(genToken.Draw(t, "token")), rid: []byte(genToken.Draw(t, "rid")), service: genName.Draw(t, "service"), data: genJSON.Draw(t, "data")}
			if w.options {
				in.options = []byte(`{"timeout":1}`)
			}
			want := Message{b: in.data}
			if w.opaque {
				switch in.form = rapid.SampledFrom([]form{formJSON, formLoose, formFrames}).Draw(t, "form"); in.form {
				case formLoose:
					in.data = genBytes.Draw(t, "bytes")
					want = Message{b: in.data, raw: !json.Valid(in.data)}
				case formFrames:
					frames := rapid.SliceOfN(genBytes, 2, 8).Draw(t, "frames")
					in.data = packFrames(nil, frames)
					want = Message{b: appendArray(nil, frames)}
				}
			}
			f := packed(func(o *batch.Out) { w.appendWork(o, "peer", &in) })
			var m message
			if !w.parseAtWorker(f[1:], &m) {
				t.Fatalf("the worker can't read %q", f[1:])
			}
			if !m.worker || m.op != opRequest || string(m.token) != string(in.token) || w.numbered && string(m.rid) != string(in.rid) || w.options && string(m.options) != string(in.options) {
				t.Fatalf("the worker reads %+v", m)
			}
			if got := messageOf(m.data, m.form); got.raw != want.raw || !bytes.Equal(got.b, want.b) {
				t.Fatalf("got %q, want %q", got.b, want.b)
			}
		})
	})
}

// What our worker answers is what the broker reads.
func TestPeerResult(t *testing.T) {
	eachForeign(t, func(t *testing.T, w *wire) {
		rapid.Check(t, func(t *rapid.T) {
			in := message{op: opReply, token: []byte(genToken.Draw(t, "token")), rid: []byte(genToken.Draw(t, "rid"))}
			if w.partials && rapid.Bool().Draw(t, "partial") {
				in.op = opPartial
			}
			switch rapid.SampledFrom([]string{"value", "bytes", "error", "status"}).Draw(t, "what") {
			case "value":
				in.says(saidValue, "", formJSON, genJSON.Draw(t, "value"))
			case "bytes":
				in.says(saidValue, "", formRaw, genBytes.Draw(t, "value"))
			case "error":
				in.says(saidError, rapid.SampledFrom([]string{"500", "418", `"TEAPOT"`}).Draw(t, "code"), formJSON, genJSON.Draw(t, "value"))
			case "status":
				in.says(saidStatus, statusWorkerLost, formJSON, nil)
				in.executed = "false"
			}
			f := packed(func(o *batch.Out) { c := in; c.body = c.one[:]; w.appendResult(o, &c) })
			var m message
			if !w.parseAtBroker(f, &m) {
				t.Fatalf("the broker can't read %q", f)
			}
			if !m.worker || m.op != in.op || string(m.token) != string(in.token) || w.numbered && string(m.rid) != string(in.rid) {
				t.Fatalf("the broker reads %+v", m)
			}
			switch {
			case in.said == saidStatus && !w.opaque: // a text as any other
				if m.said != saidError || string(m.body[0]) != `"W_ERROR"` {
					t.Fatalf("the broker reads %+v", m)
				}
			case m.said != in.said || m.code != in.code || m.executed != in.executed:
				t.Fatalf("the broker reads %+v, want %+v", m, in)
			case in.said != saidStatus && !w.opaque && string(appendBodyJSON(nil, &m)) != string(appendForm(nil, in.one[0], in.form)),
				in.said == saidValue && w.opaque && string(m.body[0]) != string(in.one[0]):
				t.Fatalf("the broker reads %q, want %q", m.body, in.one)
			}
		})
	})
}

// READY, beats and farewells, both ways.
func TestPeerCommands(t *testing.T) {
	eachForeign(t, func(t *testing.T, w *wire) {
		var m message
		if f := packed(func(o *batch.Out) { w.appendReady(o, "echo") }); !w.parseAtBroker(f, &m) || m.op != opReady || string(m.service) != "echo" || m.caps != nil {
			t.Errorf("READY %q is read as %+v", f, m)
		}
		if f := packed(func(o *batch.Out) { w.appendWorkerBeat(o, 7, "token", "rid") }); !w.parseAtBroker(f, &m) || m.op != opHeartbeat || !m.worker || m.token != nil || w.several != (m.level == 7) {
			t.Errorf("HEARTBEAT %q is read as %+v", f, m)
		}
		if f := packed(w.appendLeave); !w.parseAtBroker(f, &m) || m.op != opDisconnect {
			t.Errorf("DISCONNECT %q is read as %+v", f, m)
		}
		if w.beats {
			if f := packed(func(o *batch.Out) { w.appendClientBeat(o) }); !w.parseAtBroker(f, &m) || m.op != opHeartbeat || m.worker || m.rid != nil {
				t.Errorf("a client's HEARTBEAT %q is read as %+v", f, m)
			}
			if f := packed(func(o *batch.Out) { w.appendNotice(o, target{id: "peer"}) }); !w.parseAtClient(f[1:], &m) || m.op != opHeartbeat {
				t.Errorf("a broker's HEARTBEAT %q is read as %+v", f, m)
			}
		} else if o := new(batch.Out); w.appendClientBeat(o) || o.Len() > 0 {
			t.Error("a client beats, in a dialect that has no such thing")
		}
		if f := packed(func(o *batch.Out) { w.appendBeat(o, "peer", nil, nil) }); !w.parseAtWorker(f[1:], &m) || m.op != opHeartbeat || m.token != nil {
			t.Errorf("a broker's HEARTBEAT %q is read as %+v", f, m)
		}
		if w.watches {
			if f := packed(func(o *batch.Out) { w.appendBeat(o, "peer", []byte("tok"), []byte("rid")) }); !w.parseAtWorker(f[1:], &m) || m.op != opHeartbeat || string(m.token) != "tok" || string(m.rid) != "rid" {
				t.Errorf("a HEARTBEAT for a request, %q, is read as %+v", f, m)
			}
		}
		if f := packed(func(o *batch.Out) { w.appendFarewell(o, "peer") }); !w.parseAtWorker(f[1:], &m) || m.op != opDisconnect {
			t.Errorf("a broker's DISCONNECT %q is read as %+v", f, m)
		}
		if w.answers {
			if f := packed(func(o *batch.Out) { w.appendWelcome(o, "peer") }); !w.parseAtWorker(f[1:], &m) || m.op != opReady {
				t.Errorf("the answer to READY, %q, is read as %+v", f, m)
			}
		}
	})
}

// A worker of another make may answer in more frames than a message of ours has.
func TestPeerManyFrames(t *testing.T) {
	for _, w := range foreignWires() {
		if !w.opaque {
			continue
		}
		in := message{op: opReply, said: saidValue, form: formLoose, body: slices.Repeat([][]byte{[]byte("1")}, 500)}
		f := packed(func(o *batch.Out) { w.appendReply(o, target{"peer", "echo", nil}, &in) })
		var m message
		if !w.parseAtClient(f[1:], &m) || len(m.body) != 500 {
			t.Errorf("%v: %d frames are read as %d", w.dialect, len(f), len(m.body))
		}
		if f = slices.Insert(f, len(f), slices.Repeat([][]byte{nil}, maxReplyFrames)...); w.parseAtClient(f[1:], &m) {
			t.Errorf("%v: %d frames are read", w.dialect, len(f))
		}
	}
}

// What foreign brokers sent is read by our client and worker, and what foreign
// clients and workers sent is what ours send.
func TestPeerRecorded(t *testing.T) {
	for _, w := range []*wire{wires[OMDPFinal], wires[PIGATO]} {
		t.Run(w.dialect.String(), func(t *testing.T) {
			same, read := 0, 0
			for _, rec := range recordedFrom(t, w.dialect) {
				s := rec.Frames
				f := rec.bytes()
				var m message
				if rec.From == "broker" {
					read++
					parse := map[string]func([][]byte, *message) bool{"client": w.parseAtClient, "worker": w.parseAtWorker}[rec.To]
					if !parse(f, &m) {
						t.Errorf("%s at %d ms: our %s can't read %q", rec.Scenario, rec.MS, rec.To, s)
						continue
					}
					if rec.To == "client" && (m.op == opReply || m.op == opPartial) {
						want := map[string]string{"error": "omdp: service echo: 418: TEAPOT", "error2": "omdp: service echo: 500: SOMETHING_FAILED"}[rec.Scenario]
						if r := replyOf("echo", &m); m.op == opReply && fmt.Sprint(r.err) != want && (r.err != nil || want != "") {
							t.Errorf("%s: %q is %v, want %s", rec.Scenario, s, r.err, want)
						}
					}
					continue
				}
				if !w.parseAtBroker(f, &m) {
					t.Errorf("%s at %d ms: our broker can't read %q", rec.Scenario, rec.MS, s)
					continue
				}
				ours := sameAsOurs(w, &m, s)
				if ours == nil {
					continue
				}
				if same++; fmt.Sprintf("%q", ours) != fmt.Sprintf("%q", s) {
					t.Errorf("%s at %d ms: we send %q, they sent %q", rec.Scenario, rec.MS, ours, s)
				}
			}
			if same < 50 || read < 50 {
				t.Errorf("%d messages compared and %d read: this test looks in the wrong place", same, read)
			}
		})
	}
}

// sameAsOurs is what our peer sends where a foreign one sent s; nil: it can't be told.
func sameAsOurs(w *wire, m *message, s []string) [][]byte {
	return packed(func(o *batch.Out) {
		switch {
		case !m.worker && m.op == opRequest:
			var timeout struct {
				Timeout int64 `json:"timeout"`
			}
			if json.Unmarshal(m.options, &timeout) != nil {
				return
			}
			deadline := never
			if timeout.Timeout >= 0 {
				deadline = instant(timeout.Timeout) * time.Millisecond
			}
			w.appendAsk(o, string(m.service), string(m.rid), m.data, appendAskOptions(nil, deadline, 0, w.asks, nil), formJSON)
		case !m.worker:
			w.appendClientBeat(o)
		case m.op == opReady:
			w.appendReady(o, string(m.service))
		case m.op == opHeartbeat:
			w.appendWorkerBeat(o, m.level, "", "")
		case m.op == opDisconnect:
			w.appendLeave(o)
		default:
			w.appendResult(o, m)
		}
	})
}
