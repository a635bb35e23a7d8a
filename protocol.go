package omdp

import (
	"github.com/zmq-omdp/omdp/internal/batch"
)

// The native dialect: OMDP as zmq-omdp 4f18192 speaks it, and the extensions
// that peers of this library use among themselves. Every message starts with
// a header frame of one letter and a command frame of decimal digits; the
// ROUTER's routing id in front of it belongs to the socket, not to the codec.

// op is a command by its number on the wire.
type op uint8

const (
	opInvalid    op = 0
	opReady      op = 1
	opRequest    op = 2
	opReply      op = 3 // the final
	opHeartbeat  op = 4
	opDisconnect op = 5
	opPartial    op = 6
	opReject     op = 7  // PIGATO's; never sent
	opHello      op = 8  // extension: capabilities
	opCredit     op = 9  // extension: bytes consumed
	opCancel     op = 10 // extension
	opDrain      op = 11 // extension
	opBlocked    op = 12 // extension: who sends partials or pieces waits for credit
	opPiece      op = 13 // extension: a part of a body that is too large for a frame, or of an upload

	opLast = opPiece
)

var opDigits = [...]string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13"}

const (
	headerClient = "C"
	headerWorker = "W"
)

// The two first frames of every message.
var clientHeads, workerHeads = heads(headerClient), heads(headerWorker)

func heads(header string) (h [len(opDigits)]batch.Prefix) {
	for c, digits := range opDigits {
		h[c] = batch.NewPrefix(header, digits)
	}
	return h
}

// Hard limits of the codec, in frames and bytes (reliability.md, Limits).
const (
	maxFrames   = 16
	maxIdentity = 255
	maxService  = 255
	maxRID      = 64
)

// The frame in front of data and payloads that are not whole JSON: bytes as they
// are; JSON, or bytes, of which a part is in pieces. Data has its pieces behind
// it, payloads before them.
const (
	rawMark     = "b"
	joinMark    = "p"
	joinRawMark = "pb"
)

// markOf is the frame in front of a value: "" for whole JSON, which has none.
func markOf(raw, pieces bool) string {
	switch {
	case raw && pieces:
		return joinRawMark
	case pieces:
		return joinMark
	case raw:
		return rawMark
	}
	return ""
}

// parseMark reads the frame in front of data.
func parseMark(f []byte, m *message) bool {
	if m.pieces = string(f) != rawMark; string(f) != joinMark {
		m.form = formRaw
	}
	return string(f) == rawMark || string(f) == joinMark || string(f) == joinRawMark
}

// partialOverhead is what a partial counts for credit besides its payload, in
// bytes: about what its frames and its place in queues cost. Without it a
// window would allow any number of tiny partials.
const partialOverhead = 64

// creditShare: a client tells what it consumed once that is this part of the
// window, so a worker must not wait for the word on less.
const creditShare = 4

// message is one parsed message. Its slices are borrowed from the frames.
// A field that the command does not carry is nil.
type message struct {
	worker  bool // header W; else C
	op      op
	service []byte
	rid     []byte
	token   []byte // the client-address frame: our dispatch token, echoed by workers
	data    []byte // of a REQUEST or PIECE; nil: the PIECE is the end
	form    form   // … of a REQUEST, and of a value in body: JSON, or what else
	pieces  bool   // … of a REQUEST: more follows in pieces
	options []byte
	extra   []byte   // broker → worker REQUEST: remaining, attempt, credit, raw
	body    [][]byte // payload of PARTIAL and REPLY: of OMDP one or two frames
	caps    []byte
	cause   []byte
	credit  int64 // bytes
	window  int64 // … and the window from now on; 0: as before

	// Of other dialects.
	dialect  Dialect // Auto: OMDP
	said     said    // what body is, of a PARTIAL or REPLY
	code     string  // … of an error: its code as JSON; of one of the broker's own: its status
	executed string  // … "", "true" or "false"
	level    int     // the concurrency that a HEARTBEAT tells, or one of the below; 0: none
	marks    bool    // the receiver reads raw bytes

	from    *peer     // who sent it, as far as the broker has looked
	scratch [][]byte  // of an unpacked envelope
	packed  []byte    // of several frames made one
	one     [1][]byte // of body
}

// parseOp reads the digits of a command. A single binary byte is accepted as
// well (MDP's habit), never sent: no Node peer understands it.
func parseOp(f []byte) op {
	switch len(f) {
	case 1:
		c := f[0]
		if c >= '1' && c <= '9' {
			return op(c - '0')
		}
		if c >= 1 && c <= byte(opLast) {
			return op(c)
		}
	case 2:
		if f[0] == '1' && f[1] >= '0' && f[1] <= '0'+byte(opLast-10) {
			return op(10 + f[1] - '0')
		}
	}
	return opInvalid
}

// packMax is the largest body, in bytes, that travels in an envelope: larger
// ones gain nothing by it, and would not fit a frame with what is around them.
const packMax = 4 << 10

// packBundles, as the capability pack: envelopes, and several of them in one frame.
const packBundles = 2

// open takes the frames out of an envelope, if there is one. Between peers
// that told so in their capabilities a message may travel as one frame (after
// the routing id): six frames cost libzmq about twice as much as two.
func (m *message) open(f [][]byte) [][]byte {
	if len(f) != 1 {
		return f
	}
	inner, ok := batch.Unpack(f[0], m.scratch[:0], maxFrames)
	m.scratch = inner
	if !ok {
		return nil
	}
	return inner
}

// reset forgets the last message, but for memory and its sender. It writes the
// fields one by one: as a whole, with what is kept, they would be copied twice.
func (m *message) reset() {
	m.worker, m.op, m.form, m.pieces = false, opInvalid, formJSON, false
	m.service, m.rid, m.token, m.data, m.options = nil, nil, nil, nil, nil
	m.extra, m.body, m.caps, m.cause = nil, nil, nil, nil
	m.credit, m.window = 0, 0
	m.dialect, m.said, m.level, m.marks, m.executed = Auto, saidNative, 0, false, "" // code says nothing without said
}

// parseHeader reads the first two frames.
func parseHeader(f [][]byte, m *message) bool {
	m.reset()
	if len(f) < 2 || len(f) > maxFrames || len(f[0]) != 1 {
		return false
	}
	switch f[0][0] {
	case 'C':
	case 'W':
		m.worker = true
	default:
		return false
	}
	m.op = parseOp(f[1])
	return m.op != opInvalid
}

func validRID(b []byte) bool     { return len(b) > 0 && len(b) <= maxRID }
func validToken(b []byte) bool   { return len(b) > 0 && len(b) <= maxIdentity }
func validService(b []byte) bool { return len(b) > 0 && len(b) <= maxService }

// parseAtBroker reads what a client or a worker sent. It reports false for
// anything that is not whole and right: a Node broker crashes on a missing
// service, rid or payload; here it is one counted drop.
func parseAtBroker(f [][]byte, m *message) bool {
	f = m.open(f)
	if !parseHeader(f, m) {
		return false
	}
	if m.worker {
		return parseFromWorker(f, m)
	}
	return parseFromClient(f, m)
}

func parseFromClient(f [][]byte, m *message) bool {
	switch n := len(f); m.op {
	case opRequest: // C|2|service|rid|data[|options], C|2|service|rid|mark|data|options
		if n < 5 || n > 7 || !validService(f[2]) || !validRID(f[3]) {
			return false
		}
		m.service, m.rid, m.data = f[2], f[3], f[4]
		switch n {
		case 6:
			m.options = f[5]
		case 7:
			m.data, m.options = f[5], f[6]
			return parseMark(f[4], m)
		}
		return true
	case opHeartbeat: // C|4[|rid]
		return n == 2 || n == 3 && parseRID(f[2], m)
	case opHello: // C|8|caps
		if n != 3 {
			return false
		}
		m.caps = f[2]
		return true
	case opCredit: // C|9|rid|bytes[|window]
		return (n == 4 || n == 5) && parseRID(f[2], m) && parseCredit(f[3:], m)
	case opCancel, opBlocked: // C|10|rid, C|12|rid
		return n == 3 && parseRID(f[2], m)
	case opPiece: // C|13|rid[|bytes]
		return (n == 3 || n == 4) && parseRID(f[2], m) && parsePiece(f[3:], m)
	}
	return false
}

func parseFromWorker(f [][]byte, m *message) bool {
	switch n := len(f); m.op {
	case opReady: // W|1|service[|caps]
		if n != 3 && n != 4 || !validService(f[2]) {
			return false
		}
		m.service = f[2]
		if n == 4 {
			m.caps = f[3]
		}
		return true
	case opReply, opPartial: // W|3|cid|rid|payload, W|6|…; the payload is one frame or two
		return (n == 5 || n == 6) && parseTokenRID(f, m) && parseBody(f[4:], m)
	case opHeartbeat: // W|4[|cid|rid]
		return n == 2 || n == 4 && parseTokenRID(f, m)
	case opBlocked: // W|12|cid|rid
		return n == 4 && parseTokenRID(f, m)
	case opPiece: // W|13|cid|rid|bytes
		return n == 5 && parseTokenRID(f, m) && parsePiece(f[4:], m)
	case opCredit: // W|9|cid|rid|bytes
		return n == 5 && parseTokenRID(f, m) && parseCredit(f[4:], m)
	case opDisconnect, opDrain: // W|5, W|11
		return n == 2
	case opHello: // W|8|caps
		if n != 3 {
			return false
		}
		m.caps = f[2]
		return true
	}
	return false
}

// parseAtClient reads what a broker sent to a client.
func parseAtClient(f [][]byte, m *message) bool {
	f = m.open(f)
	if !parseHeader(f, m) || m.worker {
		return false
	}
	switch n := len(f); m.op {
	case opReply, opPartial: // C|3|rid|payload, C|6|…
		return (n == 4 || n == 5) && parseRID(f[2], m) && parseBody(f[3:], m)
	case opHeartbeat: // C|4[|rid]
		return n == 2 || n == 3 && parseRID(f[2], m)
	case opBlocked: // C|12|rid
		return n == 3 && parseRID(f[2], m)
	case opPiece: // C|13|rid|bytes
		return n == 4 && parseRID(f[2], m) && parsePiece(f[3:], m)
	case opCredit: // C|9|rid|bytes
		return n == 4 && parseRID(f[2], m) && parseCredit(f[3:], m)
	case opHello: // C|8|caps
		if n != 3 {
			return false
		}
		m.caps = f[2]
		return true
	case opDrain: // C|11
		return n == 2
	}
	return false
}

// parseAtWorker reads what a broker sent to a worker.
func parseAtWorker(f [][]byte, m *message) bool {
	f = m.open(f)
	if !parseHeader(f, m) || !m.worker {
		return false
	}
	switch n := len(f); m.op {
	case opRequest: // W|2|cid|rid|data[|options[|extra]], W|2|cid|rid|mark|data|options|extra
		if n < 5 || n > 8 || !parseTokenRID(f, m) {
			return false
		}
		m.data = f[4]
		if n == 8 {
			m.data, m.options, m.extra = f[5], f[6], f[7]
			return parseMark(f[4], m)
		}
		if n > 5 {
			m.options = f[5]
		}
		if n > 6 {
			m.extra = f[6]
		}
		return true
	case opHeartbeat: // W|4[|cid|rid]
		return n == 2 || n == 4 && parseTokenRID(f, m)
	case opDisconnect, opDrain: // W|5, W|11
		return n == 2
	case opHello: // W|8|caps
		if n != 3 {
			return false
		}
		m.caps = f[2]
		return true
	case opCredit: // W|9|cid|rid|bytes[|window]
		return (n == 5 || n == 6) && parseTokenRID(f, m) && parseCredit(f[4:], m)
	case opBlocked: // W|12|cid|rid
		return n == 4 && parseTokenRID(f, m)
	case opPiece: // W|13|cid|rid[|bytes]
		return (n == 4 || n == 5) && parseTokenRID(f, m) && parsePiece(f[4:], m)
	case opCancel: // W|10|cid|rid|cause
		if n != 5 || !parseTokenRID(f, m) {
			return false
		}
		m.cause = f[4]
		return true
	}
	return false
}

func parseRID(f []byte, m *message) bool {
	m.rid = f
	return validRID(f)
}

func parseTokenRID(f [][]byte, m *message) bool {
	m.token, m.rid = f[2], f[3]
	return validToken(m.token) && validRID(m.rid)
}

func parseBody(f [][]byte, m *message) bool {
	m.body = f
	return true
}

// parsePiece reads the bytes of a piece, at least one, or that there is none.
func parsePiece(f [][]byte, m *message) bool {
	if len(f) == 0 {
		return true
	}
	m.data = f[0]
	return len(m.data) > 0
}

// maxCredit is the most that one CREDIT may grant, in bytes.
const maxCredit = 1 << 40

// maxWindow is the largest window, in bytes.
const maxWindow = 1 << 30

// parseCredit reads an amount of bytes, 1 to 1 TiB, and a window of at most 1
// GiB, if it is there: then the amount may be 0. Negative and absurd amounts
// are malformed.
func parseCredit(f [][]byte, m *message) bool {
	least := int64(1)
	if len(f) == 2 {
		n, rest, ok := parseInt(f[1])
		if !ok || len(rest) > 0 || n < 1 || n > maxWindow {
			return false
		}
		m.window, least = n, 0
	}
	n, rest, ok := parseInt(f[0])
	m.credit = n
	return ok && len(rest) == 0 && n >= least && n <= maxCredit
}

// parseInt reads a decimal integer of at most 15 digits, with an optional
// minus, and returns what follows it.
func parseInt(b []byte) (n int64, rest []byte, ok bool) {
	neg := len(b) > 0 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	i := 0
	for i < len(b) && i < 16 && b[i] >= '0' && b[i] <= '9' {
		n = n*10 + int64(b[i]-'0')
		i++
	}
	if i == 0 || i == 16 {
		return 0, b, false
	}
	if neg {
		n = -n
	}
	return n, b[i:], true
}
