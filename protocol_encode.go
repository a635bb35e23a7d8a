package omdp

import "github.com/zmq-omdp/omdp/internal/batch"

// The encoders append one whole message each, in an envelope if o.Pack is set
// and the body is small. head writes the two first frames.
func head(o *batch.Out, header string, c op) {
	o.Envelope()
	if header == headerClient {
		o.Prefix(&clientHeads[c])
	} else {
		o.Prefix(&workerHeads[c])
	}
}

// Client to broker.

// appendClientRequest encodes a REQUEST. data is whole JSON or, with a mark, what
// that says: only towards brokers that read it.
func appendClientRequest(o *batch.Out, service, rid string, data, options []byte, mark string) {
	o.Pack = o.Pack && len(data)+len(options) <= packMax
	o.Begin()
	head(o, headerClient, opRequest)
	o.FrameString(service)
	o.FrameString(rid)
	if mark != "" {
		o.FrameString(mark)
	}
	o.Frame(data)
	if options == nil {
		o.FrameString("{}") // what zmq-omdp 4f18192 lib/Client.js sends when there are none
	} else {
		o.Frame(options)
	}
	o.End()
}

// appendClientCommand encodes C|4, C|11 (rid empty), C|4|rid, C|10|rid, C|12|rid
// and, as the end of a body, C|13|rid.
func appendClientCommand(o *batch.Out, c op, rid string) {
	o.Begin()
	head(o, headerClient, c)
	if rid != "" {
		o.FrameString(rid)
	}
	o.End()
}

// appendClientPiece encodes C|13|rid|bytes.
func appendClientPiece(o *batch.Out, rid string, p []byte) {
	o.Pack = o.Pack && len(p) <= packMax
	o.Begin()
	head(o, headerClient, opPiece)
	o.FrameString(rid)
	o.Frame(p)
	o.End()
}

// appendClientCredit encodes C|9|rid|bytes and, with a window that is not 0,
// C|9|rid|bytes|window.
func appendClientCredit(o *batch.Out, rid string, n, window int64) {
	o.Begin()
	head(o, headerClient, opCredit)
	o.FrameString(rid)
	appendCreditFrames(o, n, window)
	o.End()
}

func appendCreditFrames(o *batch.Out, n, window int64) {
	appendIntFrame(o, n)
	if window > 0 {
		appendIntFrame(o, window)
	}
}

// appendHello encodes C|8|caps and W|8|caps, in both directions.
func appendHello(o *batch.Out, header string, c *caps) {
	o.Begin()
	head(o, header, opHello)
	appendCapsFrame(o, c)
	o.End()
}

// Worker to broker.

func appendReady(o *batch.Out, service string, c *caps) {
	o.Begin()
	head(o, headerWorker, opReady)
	o.FrameString(service)
	appendCapsFrame(o, c)
	o.End()
}

// appendWorkerCommand encodes W|4, W|5, W|11 and, with a token, W|4|cid|rid and W|12|cid|rid.
func appendWorkerCommand(o *batch.Out, c op, token, rid string) {
	o.Begin()
	head(o, headerWorker, c)
	if token != "" {
		o.FrameString(token)
		o.FrameString(rid)
	}
	o.End()
}

// appendWorkerCredit encodes W|9|cid|rid|bytes.
func appendWorkerCredit(o *batch.Out, token, rid string, n int64) {
	o.Begin()
	head(o, headerWorker, opCredit)
	o.FrameString(token)
	o.FrameString(rid)
	appendIntFrame(o, n)
	o.End()
}

// appendWorkerPiece encodes W|13|cid|rid|bytes.
func appendWorkerPiece(o *batch.Out, token, rid string, p []byte) {
	o.Pack = o.Pack && len(p) <= packMax
	o.Begin()
	head(o, headerWorker, opPiece)
	o.FrameString(token)
	o.FrameString(rid)
	o.Frame(p)
	o.End()
}

// appendReplyRaw encodes a PARTIAL or REPLY as b|bytes, or with another mark:
// only towards peers that advertised.
func appendReplyRaw(o *batch.Out, c op, token, rid, mark string, p []byte) {
	o.Pack = o.Pack && len(p) <= packMax
	o.Begin()
	head(o, headerWorker, c)
	o.FrameString(token)
	o.FrameString(rid)
	o.FrameString(mark)
	o.Frame(p)
	o.End()
}

// appendReplyJSON encodes a PARTIAL or REPLY as {"status":CODE,"msg":VALUE}.
// Both are JSON already. Without a value it is what the broker says of a request
// that no handler began: {"status":CODE,"executed":false}.
func appendReplyJSON(o *batch.Out, c op, token, rid, code string, value []byte) {
	o.Pack = o.Pack && len(code)+len(value) <= packMax
	o.Begin()
	head(o, headerWorker, c)
	o.FrameString(token)
	o.FrameString(rid)
	if len(value) >= batch.Large {
		o.FrameIn(`{"status":`+code+`,"msg":`, value, `}`)
		o.End()
		return
	}
	o.OpenFrame()
	o.B = append(o.B, `{"status":`...)
	o.B = append(o.B, code...)
	if value == nil {
		o.B = append(o.B, `,"executed":false}`...)
	} else {
		o.B = append(o.B, `,"msg":`...)
		o.B = append(o.B, value...)
		o.B = append(o.B, '}')
	}
	o.CloseFrame()
	o.End()
}

func appendIntFrame(o *batch.Out, n int64) {
	o.OpenFrame()
	o.B = appendInt(o.B, n)
	o.CloseFrame()
}

func appendCapsFrame(o *batch.Out, c *caps) {
	o.OpenFrame()
	o.B = c.append(o.B)
	o.CloseFrame()
}

// Broker to client; id is the routing id.

func appendToClient(o *batch.Out, id string, c op, rid []byte, body [][]byte) {
	size := 0
	for _, f := range body {
		size += len(f)
	}
	o.Pack = o.Pack && size <= packMax
	o.Begin()
	o.FrameString(id)
	head(o, headerClient, c)
	if rid != nil {
		o.Frame(rid)
	}
	for _, f := range body {
		o.Frame(f)
	}
	o.End()
}

// appendStatus encodes an error of the broker's own: a string status without
// msg, so that no worker's error can be taken for it. executed is "", "true" or "false".
func appendStatus(o *batch.Out, id string, rid []byte, status, executed string) {
	o.Begin()
	o.FrameString(id)
	head(o, headerClient, opReply)
	o.Frame(rid)
	o.OpenFrame()
	o.B = append(o.B, `{"status":"`...)
	o.B = append(o.B, status...)
	o.B = append(o.B, '"')
	if executed != "" {
		o.B = append(o.B, `,"executed":`...)
		o.B = append(o.B, executed...)
	}
	o.B = append(o.B, '}')
	o.CloseFrame()
	o.End()
}

// Broker to worker; id is the routing id.

// appendDispatch encodes the REQUEST for a worker. x is nil for workers that
// did not advertise; options nil stay absent, unless x follows. A mark needs x.
func appendDispatch(o *batch.Out, id string, token, rid, data, options []byte, mark string, x *extra) {
	o.Pack = o.Pack && len(data)+len(options) <= packMax
	o.Begin()
	o.FrameString(id)
	head(o, headerWorker, opRequest)
	o.Frame(token)
	o.Frame(rid)
	if mark != "" {
		o.FrameString(mark)
	}
	o.Frame(data)
	if options != nil {
		o.Frame(options)
	} else if x != nil {
		o.FrameString("{}")
	}
	if x != nil {
		o.OpenFrame()
		o.B = x.append(o.B)
		o.CloseFrame()
	}
	o.End()
}

// appendToWorker encodes W|4, W|5, W|11 and, with a token, W|4|cid|rid, W|12|cid|rid,
// W|13|cid|rid and W|10|cid|rid|cause.
func appendToWorker(o *batch.Out, id string, c op, token, rid []byte, cause string) {
	o.Begin()
	o.FrameString(id)
	head(o, headerWorker, c)
	if token != nil {
		o.Frame(token)
		o.Frame(rid)
	}
	if cause != "" {
		o.FrameString(cause)
	}
	o.End()
}

// appendPieceToWorker encodes W|13|cid|rid|bytes.
func appendPieceToWorker(o *batch.Out, id string, token, rid, p []byte) {
	o.Pack = o.Pack && len(p) <= packMax
	o.Begin()
	o.FrameString(id)
	head(o, headerWorker, opPiece)
	o.Frame(token)
	o.Frame(rid)
	o.Frame(p)
	o.End()
}

// appendCreditToClient encodes C|9|rid|bytes.
func appendCreditToClient(o *batch.Out, id string, rid []byte, n int64) {
	o.Begin()
	o.FrameString(id)
	head(o, headerClient, opCredit)
	o.Frame(rid)
	appendIntFrame(o, n)
	o.End()
}

func appendCreditToWorker(o *batch.Out, id string, token, rid []byte, n, window int64) {
	o.Begin()
	o.FrameString(id)
	head(o, headerWorker, opCredit)
	o.Frame(token)
	o.Frame(rid)
	appendCreditFrames(o, n, window)
	o.End()
}

// appendHelloTo encodes the broker's answer to HELLO and READY.
func appendHelloTo(o *batch.Out, id, header string, c *caps) {
	o.Begin()
	o.FrameString(id)
	head(o, header, opHello)
	appendCapsFrame(o, c)
	o.End()
}
