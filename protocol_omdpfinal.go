package omdp

import (
	"bytes"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// finalCodec is zmq-omdp 9618d5f, its last revision. It differs from OMDP in the
// payload (0 and a value, or the one frame of an error) and in what it leaves
// out: options towards workers, beats for requests but to workers.
type finalCodec struct{}

func (finalCodec) parseAtBroker(f [][]byte, m *message) bool {
	if !parseHeader(f, m) {
		return false
	}
	m.dialect = OMDPFinal
	switch n := len(f); {
	case !m.worker && m.op == opRequest: // C|2|service|rid|data[|options]
		return n <= 6 && parseFromClient(f, m)
	case !m.worker && m.op == opHeartbeat: // C|4
		return n == 2
	case m.worker && m.op == opReady: // W|1|service
		return n == 3 && parseFromWorker(f, m)
	case m.worker && (m.op == opReply || m.op == opPartial): // W|3|cid|rid|0|value, W|3|cid|rid|error
		if n == 5 && bytes.HasPrefix(f[4], []byte(okPrefix)) { // OMDP's, of success
			return false
		}
		return (n == 5 || n == 6) && parseTokenRID(f, m) && m.saysFinal(f[4:])
	case m.worker && m.op == opHeartbeat, m.worker && m.op == opDisconnect: // W|4, W|5
		return n == 2
	}
	return false
}

// saysFinal reads a payload.
func (m *message) saysFinal(f [][]byte) bool {
	switch {
	case len(f) == 1:
		m.saysCoded(f[0])
	case string(f[0]) == "0":
		m.says(saidValue, "", formJSON, f[1])
	default:
		return false
	}
	return true
}

func appendFinalPayload(o *batch.Out, m *message) {
	m.saysOf()
	if m.said == saidValue {
		o.FrameString("0")
		appendValueFrame(o, m)
		return
	}
	o.OpenFrame()
	o.B = appendCoded(o.B, m)
	o.CloseFrame()
}

func (finalCodec) appendReply(o *batch.Out, to target, m *message) {
	o.Begin()
	o.FrameString(to.id)
	head(o, headerClient, m.op)
	o.Frame(to.rid)
	appendFinalPayload(o, m)
	o.End()
}

func (c finalCodec) appendError(o *batch.Out, to target, status, executed string) {
	c.appendReply(o, to, &message{op: opReply, said: saidStatus, code: status})
}

func (finalCodec) appendNotice(o *batch.Out, to target) { omdpCodec{}.appendNotice(o, to) }

func (finalCodec) appendWork(o *batch.Out, id string, w *work) {
	o.Begin()
	o.FrameString(id)
	head(o, headerWorker, opRequest)
	o.Frame(w.token)
	o.Frame(w.rid)
	o.Frame(w.data)
	o.End()
}

func (finalCodec) appendBeat(o *batch.Out, id string, token, rid []byte) {
	omdpCodec{}.appendBeat(o, id, token, rid)
}

func (finalCodec) appendFarewell(o *batch.Out, id string) { omdpCodec{}.appendFarewell(o, id) }
func (finalCodec) appendWelcome(*batch.Out, string)       {}

func (finalCodec) parseAtClient(f [][]byte, m *message) bool {
	if !parseHeader(f, m) || m.worker {
		return false
	}
	m.dialect = OMDPFinal
	switch n := len(f); m.op {
	case opReply, opPartial: // C|3|rid|0|value, C|3|rid|error
		return (n == 4 || n == 5) && parseRID(f[2], m) && m.saysFinal(f[3:]) && m.saysWord()
	case opHeartbeat:
		return n == 2 || n == 3 && parseRID(f[2], m)
	}
	return false
}

func (finalCodec) appendAsk(o *batch.Out, service, rid string, data, options []byte, _ form) {
	appendClientRequest(o, service, rid, data, options, "")
}

func (finalCodec) appendClientBeat(o *batch.Out) bool { return omdpCodec{}.appendClientBeat(o) }

func (finalCodec) parseAtWorker(f [][]byte, m *message) bool {
	if !parseHeader(f, m) || !m.worker {
		return false
	}
	m.dialect = OMDPFinal
	switch n := len(f); m.op {
	case opRequest: // W|2|cid|rid|data[|options], of which its broker drops the last
		if n != 5 && n != 6 || !parseTokenRID(f, m) {
			return false
		}
		if m.data = f[4]; n == 6 {
			m.options = f[5]
		}
		return true
	case opHeartbeat: // W|4[|cid|rid]
		return n == 2 || n == 4 && parseTokenRID(f, m)
	case opDisconnect:
		return n == 2
	}
	return false
}

func (finalCodec) appendReady(o *batch.Out, service string) { omdpCodec{}.appendReady(o, service) }

func (finalCodec) appendResult(o *batch.Out, m *message) {
	o.Begin()
	head(o, headerWorker, m.op)
	o.Frame(m.token)
	o.Frame(m.rid)
	appendFinalPayload(o, m)
	o.End()
}

func (finalCodec) appendWorkerBeat(o *batch.Out, _ int, _, _ string) {
	appendWorkerCommand(o, opHeartbeat, "", "")
}

func (finalCodec) appendLeave(o *batch.Out) { omdpCodec{}.appendLeave(o) }
