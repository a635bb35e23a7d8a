package omdp

import (
	"bytes"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// omdpCodec is OMDP among the dialects; protocol.go and protocol_encode.go have
// its frames.
type omdpCodec struct{}

func (omdpCodec) parseAtBroker(f [][]byte, m *message) bool { return parseAtBroker(f, m) }
func (omdpCodec) parseAtClient(f [][]byte, m *message) bool { return parseAtClient(f, m) }
func (omdpCodec) parseAtWorker(f [][]byte, m *message) bool { return parseAtWorker(f, m) }

// appendReply passes a payload of OMDP on unchanged, and writes any other as one.
// Raw bytes become JSON for a client that does not read them.
func (omdpCodec) appendReply(o *batch.Out, to target, m *message) {
	if m.said == saidNative {
		if m.marks || len(m.body) != 2 || string(m.body[0]) != rawMark {
			appendToClient(o, to.id, m.op, to.rid, m.body)
			return
		}
		m.saysOf()
	}
	if m.said == saidValue && m.form == formJSON && !isJSON(m.body[0]) { // it would be a part of ours
		m.says(saidStatus, statusProtocol, formJSON, nil)
	}
	o.Pack = o.Pack && m.size() <= packMax
	o.Begin()
	o.FrameString(to.id)
	head(o, headerClient, m.op)
	o.Frame(to.rid)
	appendPayload(o, m)
	o.End()
}

// appendPayload writes the frame of a payload.
func appendPayload(o *batch.Out, m *message) {
	switch {
	case m.said == saidValue && m.form == formRaw && m.marks:
		o.FrameString(rawMark)
		o.Frame(m.body[0])
	case m.said == saidValue && m.form == formLoose && len(m.body) == 1 && m.marks && !isJSONText(m.body[0]):
		o.FrameString(rawMark)
		o.Frame(m.body[0])
	case m.said == saidValue && m.form == formJSON:
		o.FrameIn(okPrefix, m.body[0], `}`)
	default:
		o.OpenFrame()
		if m.said == saidValue {
			o.B = append(appendBodyJSON(append(o.B, okPrefix...), m), '}')
		} else {
			o.B = appendErrorObject(o.B, m)
		}
		o.CloseFrame()
	}
}

// neverBegan tells whether a final is a worker's word that no handler ran:
// {"status":WORD,"executed":false}.
func (m *message) neverBegan() bool {
	const head, tail = `{"status":"`, `,"executed":false}`
	if m.said != saidNative {
		return m.said == saidStatus && m.executed == "false"
	}
	if b := m.body[0]; len(m.body) == 1 && len(b) > len(head) && string(b[:len(head)]) == head {
		_, rest, _ := bytes.Cut(b[len(head):], []byte{'"'})
		return string(rest) == tail
	}
	return false
}

// size is about how many bytes a payload has.
func (m *message) size() (n int) {
	for _, f := range m.body {
		n += len(f)
	}
	return n
}

func (omdpCodec) appendError(o *batch.Out, to target, status, executed string) {
	appendStatus(o, to.id, to.rid, status, executed)
}

func (omdpCodec) appendNotice(o *batch.Out, to target) {
	appendToClient(o, to.id, opHeartbeat, to.rid, nil)
}

func (omdpCodec) appendWork(o *batch.Out, id string, w *work) {
	appendDispatch(o, id, w.token, w.rid, w.data, w.options, markOf(w.form == formRaw, w.pieces), w.x)
}

func (omdpCodec) appendBeat(o *batch.Out, id string, token, rid []byte) {
	appendToWorker(o, id, opHeartbeat, token, rid, "")
}

func (omdpCodec) appendFarewell(o *batch.Out, id string) {
	appendToWorker(o, id, opDisconnect, nil, nil, "")
}

func (omdpCodec) appendWelcome(*batch.Out, string) {}

func (omdpCodec) appendAsk(o *batch.Out, service, rid string, data, options []byte, f form) {
	appendClientRequest(o, service, rid, data, options, markOf(f == formRaw, false))
}

func (omdpCodec) appendClientBeat(o *batch.Out) bool {
	appendClientCommand(o, opHeartbeat, "")
	return true
}

func (omdpCodec) appendReady(o *batch.Out, service string) {
	o.Begin()
	head(o, headerWorker, opReady)
	o.FrameString(service)
	o.End()
}

func (omdpCodec) appendResult(o *batch.Out, m *message) {
	o.Pack = o.Pack && m.size() <= packMax
	o.Begin()
	head(o, headerWorker, m.op)
	o.Frame(m.token)
	o.Frame(m.rid)
	appendPayload(o, m)
	o.End()
}

func (omdpCodec) appendWorkerBeat(o *batch.Out, _ int, token, rid string) {
	appendWorkerCommand(o, opHeartbeat, token, rid)
}

func (omdpCodec) appendLeave(o *batch.Out) { appendWorkerCommand(o, opDisconnect, "", "") }
