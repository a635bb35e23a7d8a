package omdp

import "github.com/zmq-omdp/omdp/internal/batch"

// mdpCodec is the Majordomo Protocol: MDP/0.2 (RFC 18) and, in protocol_mdp01.go,
// MDP/0.1 (RFC 7). Commands are single bytes, bodies are frames that may be
// anything, and requests have no ids.
type mdpCodec struct {
	dialect        Dialect
	client, worker string
	empty          bool    // an empty frame comes first
	ops            [7]byte // of a worker's commands, by op; 0: there is none
	clientOps      [7]byte // of a client's; all 0: its messages have no command
}

// A worker's commands are numbered otherwise than a client's.
var mdp02 = &mdpCodec{
	dialect: MDP02, client: "MDPC02", worker: "MDPW02",
	ops:       [7]byte{opReady: 1, opRequest: 2, opPartial: 3, opReply: 4, opHeartbeat: 5, opDisconnect: 6},
	clientOps: [7]byte{opRequest: 1, opPartial: 2, opReply: 3},
}

// maxWorkFrames bounds the frames of a REQUEST, but for MDP/0.1's empty one: those
// that a worker has around the longest body of a client are more than the client's.
const maxWorkFrames = maxFrames + 2

// maxReplyFrames bounds the frames of a reply: partials of others may stand in
// front of a final as frames.
const maxReplyFrames = 1024

// header reads what comes before the command, and returns the rest.
func (c *mdpCodec) header(f [][]byte, m *message, most int) ([][]byte, bool) {
	m.reset()
	m.dialect = c.dialect
	if c.empty {
		if len(f) == 0 || len(f[0]) != 0 {
			return nil, false
		}
		f = f[1:]
	}
	if len(f) < 2 || len(f) > most {
		return nil, false
	}
	switch string(f[0]) {
	case c.worker:
		m.worker = true
	case c.client:
	default:
		return nil, false
	}
	return f[1:], true
}

// command reads a command frame.
func command(f []byte, ops *[7]byte, m *message) bool {
	if len(f) != 1 || f[0] == 0 {
		return false
	}
	for o, b := range ops {
		if b == f[0] {
			m.op = op(o)
			return true
		}
	}
	return false
}

func (c *mdpCodec) parseAtBroker(f [][]byte, m *message) bool {
	f, ok := c.header(f, m, maxFrames)
	if !ok {
		return false
	}
	if !m.worker {
		if m.op = opRequest; c.clientOps[opRequest] != 0 { // MDPC02|1|service|body…
			if !command(f[0], &c.clientOps, m) || m.op != opRequest {
				return false
			}
			f = f[1:]
		}
		if len(f) < 2 || !validService(f[0]) {
			return false
		}
		m.service = f[0]
		return m.setBody(f[1:])
	}
	if !command(f[0], &c.ops, m) {
		return false
	}
	f = f[1:]
	switch n := len(f); m.op {
	case opReady: // service
		if n != 1 || !validService(f[0]) {
			return false
		}
		m.service = f[0]
		return true
	case opReply, opPartial: // address||body…
		if n < 3 || !validToken(f[0]) || len(f[1]) != 0 {
			return false
		}
		m.token = f[0]
		return m.saysFrames(f[2:])
	case opHeartbeat, opDisconnect:
		return n == 0
	}
	return false
}

// begin starts a message to a client or a worker; id is empty from a peer of ours.
func (c *mdpCodec) begin(o *batch.Out, id, header string, command byte) {
	o.Pack, o.Bundle = false, false
	o.Begin()
	if id != "" {
		o.FrameString(id)
	}
	if c.empty {
		o.FrameString("")
	}
	o.FrameString(header)
	if command != 0 {
		o.OpenFrame()
		o.B = append(o.B, command)
		o.CloseFrame()
	}
}

// appendBody writes a payload as frames.
func appendBody(o *batch.Out, m *message) {
	m.saysOf()
	if m.said == saidValue && m.form == formJSON && nearlyError(m.body[0]) {
		o.FrameIn("{ ", m.body[0][1:], "") // the same value, and none that is read as an error
		return
	}
	if m.said == saidValue {
		for _, f := range m.body {
			o.Frame(f)
		}
		return
	}
	o.OpenFrame()
	o.B = appendErrorObject(o.B, m)
	o.CloseFrame()
}

func (c *mdpCodec) appendReply(o *batch.Out, to target, m *message) {
	c.begin(o, to.id, c.client, c.clientOps[m.op])
	o.FrameString(to.service)
	appendBody(o, m)
	o.End()
}

func (c *mdpCodec) appendError(o *batch.Out, to target, status, executed string) {
	c.appendReply(o, to, &message{op: opReply, said: saidStatus, code: status, executed: executed})
}

func (c *mdpCodec) appendNotice(*batch.Out, target) {}

func (c *mdpCodec) appendWork(o *batch.Out, id string, w *work) {
	c.begin(o, id, c.worker, c.ops[opRequest])
	o.Frame(w.token)
	o.FrameString("")
	appendDataFrames(o, w.data, w.form)
	o.End()
}

func (c *mdpCodec) appendBeat(o *batch.Out, id string, _, _ []byte) {
	c.begin(o, id, c.worker, c.ops[opHeartbeat])
	o.End()
}

func (c *mdpCodec) appendFarewell(o *batch.Out, id string) {
	c.begin(o, id, c.worker, c.ops[opDisconnect])
	o.End()
}

func (c *mdpCodec) appendWelcome(*batch.Out, string) {}

func (c *mdpCodec) parseAtClient(f [][]byte, m *message) bool {
	f, ok := c.header(f, m, maxReplyFrames)
	if !ok || m.worker {
		return false
	}
	if m.op = opReply; c.clientOps[opReply] != 0 { // MDPC02|3|service|body…
		if !command(f[0], &c.clientOps, m) || m.op == opRequest {
			return false
		}
		f = f[1:]
	}
	if len(f) < 2 || !validService(f[0]) {
		return false
	}
	m.service = f[0]
	return m.saysFrames(f[1:])
}

func (c *mdpCodec) appendAsk(o *batch.Out, service, _ string, data, _ []byte, f form) {
	c.begin(o, "", c.client, c.clientOps[opRequest])
	o.FrameString(service)
	appendDataFrames(o, data, f)
	o.End()
}

func (c *mdpCodec) appendClientBeat(*batch.Out) bool { return false }

func (c *mdpCodec) parseAtWorker(f [][]byte, m *message) bool {
	f, ok := c.header(f, m, maxWorkFrames)
	if !ok || !m.worker || !command(f[0], &c.ops, m) {
		return false
	}
	f = f[1:]
	switch n := len(f); m.op {
	case opRequest: // address||body…
		if n < 3 || !validToken(f[0]) || len(f[1]) != 0 {
			return false
		}
		m.token = f[0]
		return m.setBody(f[2:])
	case opHeartbeat, opDisconnect:
		return n == 0
	}
	return false
}

func (c *mdpCodec) appendReady(o *batch.Out, service string) {
	c.begin(o, "", c.worker, c.ops[opReady])
	o.FrameString(service)
	o.End()
}

func (c *mdpCodec) appendResult(o *batch.Out, m *message) {
	c.begin(o, "", c.worker, c.ops[m.op])
	o.Frame(m.token)
	o.FrameString("")
	appendBody(o, m)
	o.End()
}

func (c *mdpCodec) appendWorkerBeat(o *batch.Out, _ int, _, _ string) {
	c.begin(o, "", c.worker, c.ops[opHeartbeat])
	o.End()
}

func (c *mdpCodec) appendLeave(o *batch.Out) {
	c.begin(o, "", c.worker, c.ops[opDisconnect])
	o.End()
}
