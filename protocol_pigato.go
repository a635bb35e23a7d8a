package omdp

import (
	"bytes"
	"encoding/json"
	"math"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// pigatoCodec is PIGATO 0.0.46: OMDP's header and digits, an empty frame more in
// most messages, a status frame of 0 or -1, and options with each reply.
type pigatoCodec struct{}

const pigatoError = "-1"

// pigatoAssumes is its broker's concurrency for a worker that has not told one
// (PIGATO 0.0.46 lib/Broker.js, workerRequire).
const pigatoAssumes = 100

func (pigatoCodec) parseAtBroker(f [][]byte, m *message) bool {
	if !parseHeader(f, m) {
		return false
	}
	m.dialect = PIGATO
	n := len(f)
	if !m.worker {
		switch m.op {
		case opRequest: // C|2|service|rid|data[|options]
			return n <= 6 && parseFromClient(f, m)
		case opHeartbeat: // C|4, C|4|request|rid
			return n == 2 || n == 4 && string(f[2]) == "request" && parseRID(f[3], m)
		}
		return false
	}
	switch m.op {
	case opReady: // W|1|service
		return n == 3 && parseFromWorker(f, m)
	case opReply, opPartial: // W|3|cid||rid|0|value[|options]
		return (n == 7 || n == 8) && m.parseAddress(f) && m.saysPigato(f[5:])
	case opReject: // W|7|cid||rid[|…]
		return n >= 5 && n <= 8 && m.parseAddress(f)
	case opHeartbeat: // W|4, W|4||options
		return n == 2 || n == 4 && len(f[2]) == 0 && m.parseLevel(f[3])
	case opDisconnect: // W|5
		return n == 2
	}
	return false
}

// parseAddress reads cid, an empty frame, and the rid.
func (m *message) parseAddress(f [][]byte) bool {
	m.token, m.rid = f[2], f[4]
	return validToken(m.token) && len(f[3]) == 0 && validRID(m.rid)
}

// saysPigato reads the frames of a payload.
func (m *message) saysPigato(f [][]byte) bool {
	switch string(f[0]) {
	case "0":
		m.says(saidValue, "", formJSON, f[1])
	case pigatoError:
		m.saysCoded(f[1])
	default:
		return false
	}
	return true
}

// What a HEARTBEAT tells instead of a concurrency: no request for now, any number of them.
const (
	levelNone = -1
	levelAny  = -2
)

// parseLevel reads how many requests a worker takes at a time; -1: any number.
// PIGATO's broker gives one more while it holds fewer than that: of 0, none.
func (m *message) parseLevel(b []byte) bool {
	var v struct {
		Concurrency *float64 `json:"concurrency"`
	}
	if len(b) > 4096 || json.Unmarshal(b, &v) != nil {
		return false
	}
	if v.Concurrency == nil {
		return true
	}
	switch n := *v.Concurrency; {
	case n < 0:
		m.level = levelAny
	case n == 0:
		m.level = levelNone
	default:
		m.level = int(math.Ceil(min(n, 1<<30)))
	}
	return true
}

// namesWorker tells whether a request's options ask for one worker by its id.
func namesWorker(options []byte) bool {
	if !bytes.Contains(options, []byte(`"workerId"`)) {
		return false
	}
	var v struct {
		ID any `json:"workerId"`
	}
	return json.Unmarshal(options, &v) == nil && v.ID != nil && v.ID != ""
}

func appendPigatoPayload(o *batch.Out, m *message) {
	m.saysOf()
	if m.said == saidValue {
		o.FrameString("0")
		appendValueFrame(o, m)
		o.FrameString("{}")
		return
	}
	o.FrameString(pigatoError)
	o.OpenFrame()
	o.B = appendCoded(o.B, m)
	o.CloseFrame()
	o.FrameString("undefined") // what its worker says; nobody reads it
}

func (pigatoCodec) appendReply(o *batch.Out, to target, m *message) {
	o.Begin()
	o.FrameString(to.id)
	head(o, headerClient, m.op)
	o.FrameString("")
	o.Frame(to.rid)
	appendPigatoPayload(o, m)
	o.End()
}

func (c pigatoCodec) appendError(o *batch.Out, to target, status, executed string) {
	c.appendReply(o, to, &message{op: opReply, said: saidStatus, code: status})
}

func (pigatoCodec) appendNotice(o *batch.Out, to target) { omdpCodec{}.appendNotice(o, to) }

func (pigatoCodec) appendWork(o *batch.Out, id string, w *work) {
	o.Begin()
	o.FrameString(id)
	head(o, headerWorker, opRequest)
	o.Frame(w.token)
	o.FrameString(w.service)
	o.FrameString("")
	o.Frame(w.rid)
	o.Frame(w.data)
	if w.options == nil {
		o.FrameString("{}")
	} else {
		o.Frame(w.options)
	}
	o.End()
}

func (pigatoCodec) appendBeat(o *batch.Out, id string, token, rid []byte) {
	o.Begin()
	o.FrameString(id)
	head(o, headerWorker, opHeartbeat)
	if token != nil {
		o.Frame(token)
		o.FrameString("")
		o.Frame(rid)
	}
	o.End()
}

func (pigatoCodec) appendFarewell(o *batch.Out, id string) { omdpCodec{}.appendFarewell(o, id) }

func (pigatoCodec) appendWelcome(o *batch.Out, id string) {
	appendToWorker(o, id, opReady, nil, nil, "")
}

func (pigatoCodec) parseAtClient(f [][]byte, m *message) bool {
	if !parseHeader(f, m) || m.worker {
		return false
	}
	m.dialect = PIGATO
	switch n := len(f); m.op {
	case opReply, opPartial: // C|3||rid|0|value[|options]
		return (n == 6 || n == 7) && len(f[2]) == 0 && parseRID(f[3], m) && m.saysPigato(f[4:]) && m.saysWord()
	case opHeartbeat:
		return n == 2
	}
	return false
}

func (pigatoCodec) appendAsk(o *batch.Out, service, rid string, data, options []byte, _ form) {
	appendClientRequest(o, service, rid, data, options, "")
}

func (pigatoCodec) appendClientBeat(o *batch.Out) bool { return omdpCodec{}.appendClientBeat(o) }

func (pigatoCodec) parseAtWorker(f [][]byte, m *message) bool {
	if !parseHeader(f, m) || !m.worker {
		return false
	}
	m.dialect = PIGATO
	switch n := len(f); m.op {
	case opRequest: // W|2|cid|service||rid|data[|options]
		if n != 7 && n != 8 || len(f[4]) != 0 || !validService(f[3]) {
			return false
		}
		m.token, m.service, m.rid, m.data = f[2], f[3], f[5], f[6]
		if n == 8 {
			m.options = f[7]
		}
		return validToken(m.token) && validRID(m.rid)
	case opReady, opDisconnect: // W|1: it is registered; W|5
		return n == 2
	case opHeartbeat: // W|4, W|4|cid||rid
		return n == 2 || n == 5 && m.parseAddress(f)
	}
	return false
}

func (pigatoCodec) appendReady(o *batch.Out, service string) { omdpCodec{}.appendReady(o, service) }

func (pigatoCodec) appendResult(o *batch.Out, m *message) {
	o.Begin()
	head(o, headerWorker, m.op)
	o.Frame(m.token)
	o.FrameString("")
	o.Frame(m.rid)
	appendPigatoPayload(o, m)
	o.End()
}

// appendWorkerBeat tells the concurrency; there are no beats for requests.
func (pigatoCodec) appendWorkerBeat(o *batch.Out, concurrency int, _, _ string) {
	o.Begin()
	head(o, headerWorker, opHeartbeat)
	o.FrameString("")
	o.OpenFrame()
	o.B = append(appendInt(append(o.B, `{"concurrency":`...), int64(concurrency)), '}')
	o.CloseFrame()
	o.End()
}

func (pigatoCodec) appendLeave(o *batch.Out) { omdpCodec{}.appendLeave(o) }
