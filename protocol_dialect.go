package omdp

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// A Dialect is one of the protocols of the Majordomo family, see docs/dialects.md.
// A broker serves them all at once; a worker or client speaks one.
type Dialect uint8

const (
	Auto      Dialect = iota // a listener's: whatever a peer's first message shows, else OMDP; a worker's or client's: OMDP
	OMDP                     // this library's own, and zmq-omdp's as its README describes it
	OMDPFinal                // zmq-omdp's last revision
	PIGATO                   // PIGATO 0.0.46
	MDP02                    // the Majordomo Protocol 0.2, RFC 18
	MDP01                    // the Majordomo Protocol 0.1, RFC 7
)

var dialectTexts = [...]string{"auto", "omdp", "omdp-final", "pigato", "mdp02", "mdp01"}

func (x Dialect) String() string {
	if x.valid() {
		return dialectTexts[x]
	}
	return "Dialect(" + strconv.Itoa(int(x)) + ")"
}

// native is the dialect of this library's own peers, which advertise in it.
const native = OMDP

// advertises tells whether a listener for x takes peers for native ones anyway.
func (x Dialect) advertises() bool { return x == native || x == Auto }

func (x Dialect) valid() bool { return int(x) < len(dialectTexts) }

// wire is all that the rest knows of a dialect: its codec, and what it can say.
type wire struct {
	codec
	dialect Dialect

	extends      bool // its peers may be of this library, and say so
	numbered     bool // its requests and replies carry request ids
	opaque       bool // its bodies are frames that may be anything, else JSON
	options      bool // its REQUEST to a worker carries the client's options
	partials     bool // it has partials
	noticed      bool // its clients take a beat for a request: at its dispatch, and while it is in progress
	beatsRequest bool // its workers beat for each request in progress, and beat bare when they hold none
	watches      bool // its workers take a beat for a request as a sign of its client's life
	answers      bool // the broker answers READY and each beat
	several      bool // its workers tell how many requests they take at a time
	rejects      bool // its workers may hand a request back
	takesOver    bool // its workers take a request while they work on one that has ended
	patterns     bool // its workers may register for patterns of names
	vague        bool // its workers' first message is other dialects' as well
	beats        bool // its clients beat
	quiet        bool // its peers do not beat where they said something else since the last time

	asks    string // what its own clients write in their options besides the timeout
	frames  int    // the most that a message to its clients may have
	assumes int    // how many requests its brokers give a worker that has not told how many it takes; 0: one
}

// wires has every dialect, by its number; Auto is what decides between them.
var wires [len(dialectTexts)]*wire

// Wires refer to codecs, which refer to wires.
func init() {
	wires = [...]*wire{
		OMDP:      {codec: omdpCodec{}, dialect: OMDP, extends: true, numbered: true, options: true, partials: true, noticed: true, beatsRequest: true, watches: true, vague: true, beats: true, frames: maxFrames},
		OMDPFinal: {codec: finalCodec{}, dialect: OMDPFinal, numbered: true, partials: true, watches: true, takesOver: true, beats: true, frames: maxFrames},
		PIGATO:    {codec: pigatoCodec{}, dialect: PIGATO, numbered: true, options: true, partials: true, watches: true, answers: true, several: true, rejects: true, patterns: true, beats: true, asks: `,"retry":0`, frames: maxFrames, assumes: pigatoAssumes},
		MDP02:     {codec: mdp02, dialect: MDP02, opaque: true, quiet: true, partials: true, frames: maxReplyFrames},
		MDP01:     {codec: mdp01, dialect: MDP01, opaque: true, quiet: true, frames: maxReplyFrames},
	}
	wires[Auto] = wires[OMDP]
}

// codec is one dialect between its frames and messages. What it parses borrows
// from the frames; what it appends is one whole message.
type codec interface {
	// At a broker.
	parseAtBroker(f [][]byte, m *message) bool
	appendReply(o *batch.Out, to target, m *message)              // PARTIAL or REPLY, with any payload
	appendError(o *batch.Out, to target, status, executed string) // an error of the broker's own
	appendNotice(o *batch.Out, to target)                         // a beat for a request; without a rid, of the broker itself
	appendWork(o *batch.Out, id string, w *work)                  // REQUEST
	appendBeat(o *batch.Out, id string, token, rid []byte)        // to a worker; token may be nil
	appendFarewell(o *batch.Out, id string)                       // DISCONNECT
	appendWelcome(o *batch.Out, id string)                        // the answer to READY, where there is one

	// At a client.
	parseAtClient(f [][]byte, m *message) bool
	appendAsk(o *batch.Out, service, rid string, data, options []byte, f form) // REQUEST
	appendClientBeat(o *batch.Out) bool                                        // false: there is none

	// At a worker.
	parseAtWorker(f [][]byte, m *message) bool
	appendReady(o *batch.Out, service string)
	appendResult(o *batch.Out, m *message)                             // PARTIAL or REPLY, of a value or an error
	appendWorkerBeat(o *batch.Out, concurrency int, token, rid string) // token may be empty
	appendLeave(o *batch.Out)                                          // DISCONNECT
}

// target is whom a broker answers: a client, and which of its requests.
type target struct {
	id      string
	service string
	rid     []byte
}

// work is a REQUEST on its way to a worker.
type work struct {
	token, rid    []byte
	service       string // that was asked
	data, options []byte
	form          form
	pieces        bool
	x             *extra // nil for workers that did not advertise
}

// form says what data or a value is.
type form uint8

const (
	formJSON   form = iota // one JSON value, or what should be one
	formRaw                // bytes
	formLoose              // of a dialect whose frames may be anything: JSON if it is, else bytes
	formFrames             // several such frames, packed into one; only of requests
)

// said says what a PARTIAL or REPLY holds.
type said uint8

const (
	saidNative said = iota // the payload of OMDP, in body, which may be any of these
	saidValue              // a value, in body: of formLoose any number of frames, else one
	saidError              // an error, its code and its value as JSON in code and body
	saidStatus             // an error of the broker's own, in code as text
)

// maxScratch is how much memory is kept for the next message, in bytes: what is rare
// and large goes back, as no limit counts it.
const maxScratch = 1 << 20

// A value of several frames is a JSON array for who knows but JSON.

// packFrames makes one of several frames; unpackFrames takes them apart.
func packFrames(b []byte, f [][]byte) []byte {
	for _, p := range f {
		b = appendInt(b, int64(len(p)))
		b = append(b, ':')
		b = append(b, p...)
	}
	return b
}

func unpackFrames(b []byte, f [][]byte) [][]byte {
	for len(b) > 0 {
		n, rest, ok := parseInt(b)
		if !ok || len(rest) == 0 || n < 0 || n > int64(len(rest)-1) {
			return f // our own, so it is whole
		}
		f = append(f, rest[1:1+n])
		b = rest[1+n:]
	}
	return f
}

// messageOf is data as the handler of a request sees it; it keeps b.
func messageOf(b []byte, f form) Message {
	switch {
	case f == formFrames:
		return Message{b: appendForm(nil, b, f)}
	case f == formRaw, f == formLoose && !isJSONText(b):
		return Message{b: b, raw: true}
	}
	return Message{b: b}
}

// setBody takes the opaque frames of a REQUEST.
func (m *message) setBody(f [][]byte) bool {
	switch len(f) {
	case 0:
		return false
	case 1:
		m.data, m.form = f[0], formLoose
	default:
		packed := packFrames(m.packed[:0], f)
		if m.data, m.form = packed, formFrames; cap(packed) <= maxScratch {
			m.packed = packed
		}
	}
	return true
}

// appendForm writes data as one JSON value.
func appendForm(b, data []byte, f form) []byte {
	switch f {
	case formRaw:
		return appendBytes(b, data)
	case formLoose:
		return appendLoose(b, data)
	case formFrames:
		return appendArray(b, unpackFrames(data, nil))
	}
	return append(b, data...)
}

func appendLoose(b, frame []byte) []byte {
	if isJSONText(frame) {
		return append(b, frame...)
	}
	return appendBytes(b, frame)
}

func appendArray(b []byte, frames [][]byte) []byte {
	for i, f := range frames {
		if i == 0 {
			b = append(b, '[')
		} else {
			b = append(b, ',')
		}
		b = appendLoose(b, f)
	}
	return append(b, ']')
}

// appendDataFrames writes data as frames of a dialect whose bodies may be anything.
func appendDataFrames(o *batch.Out, data []byte, f form) {
	if f != formFrames {
		o.Frame(data)
		return
	}
	for _, p := range unpackFrames(data, nil) {
		o.Frame(p)
	}
}

// appendValueFrame writes a frame with the value of m as JSON.
func appendValueFrame(o *batch.Out, m *message) {
	if m.form == formJSON {
		o.Frame(m.body[0])
		return
	}
	o.OpenFrame()
	o.B = appendBodyJSON(o.B, m)
	o.CloseFrame()
}

func appendBodyJSON(b []byte, m *message) []byte {
	if m.form == formLoose && len(m.body) > 1 {
		return appendArray(b, m.body)
	}
	return appendForm(b, m.body[0], m.form)
}

// saysOf is what a payload of OMDP says, in terms that other dialects have. What
// can't be read is said to be so.
func (m *message) saysOf() {
	if m.said != saidNative {
		return
	}
	b := m.body[0]
	if len(m.body) == 2 {
		switch {
		case string(b) == rawMark:
			m.says(saidValue, "", formRaw, m.body[1])
		case string(b) == "200":
			m.says(saidValue, "", formLoose, m.body[1])
		case plainCode(b):
			m.says(saidError, codeJSON(string(b)), formJSON, appendLoose(nil, m.body[1]))
		default:
			m.says(saidStatus, statusProtocol, formJSON, nil)
		}
		return
	}
	if rest, ok := bytes.CutPrefix(b, []byte(okPrefix)); ok && len(rest) > 1 && rest[len(rest)-1] == '}' && isJSON(rest[:len(rest)-1]) {
		m.says(saidValue, "", formJSON, rest[:len(rest)-1])
		return
	}
	r := parseReply("", m.body)
	switch e := r.err.(type) {
	case nil:
		m.says(saidValue, "", formJSON, r.msg.JSON())
	case *Error:
		value := []byte(e.Data)
		if value == nil {
			value = []byte("null")
		}
		m.says(saidError, codeJSON(e.Code), formJSON, value)
	default:
		if r.status == "" {
			r.status = statusProtocol
		}
		if r.notExecuted() {
			m.executed = "false"
		}
		m.says(saidStatus, r.status, formJSON, nil)
	}
}

func (r *reply) notExecuted() bool {
	e, ok := r.err.(*callError)
	return ok && e.outcome == NotExecuted
}

// says sets the payload of m, of one value.
func (m *message) says(s said, code string, f form, value []byte) {
	m.said, m.code, m.form = s, code, f
	m.one[0] = value
	m.body = m.one[:]
}

// codeJSON is the code of an error as JSON: a number if it is one.
func codeJSON(code string) string {
	if n, err := strconv.ParseInt(code, 10, 32); err == nil && strconv.FormatInt(n, 10) == code {
		return code
	}
	return string(appendJSONString(nil, code))
}

// Errors where a dialect has one JSON value for them and no code: the value alone
// is one of code 500, any other is {"code":CODE,"text":VALUE}.

const codedHead = `{"code":`

func appendCoded(b []byte, m *message) []byte {
	switch {
	case m.said == saidStatus:
		return appendJSONString(b, m.code)
	case m.code == "500" && bytes.HasPrefix(m.body[0], []byte(codedHead)): // the same value, and no other code
		return append(append(b, "{ "...), m.body[0][1:]...)
	case m.code == "500":
		return append(b, m.body[0]...)
	}
	b = append(b, codedHead...)
	b = append(b, m.code...)
	b = append(b, `,"text":`...)
	b = append(b, bytes.TrimSpace(m.body[0])...) // a handler's JSON may have some around it
	return append(b, '}')
}

// saysCoded reads it. What is no JSON is taken as text.
func (m *message) saysCoded(value []byte) {
	code := "500"
	if bytes.HasPrefix(value, []byte(codedHead)) {
		var v struct {
			Code json.RawMessage `json:"code"`
			Text json.RawMessage `json:"text"`
		}
		if json.Unmarshal(value, &v) == nil && plainJSONCode(v.Code) && v.Text != nil && isMember(value[min(len(codedHead)+len(v.Code), len(value)):], `,"text":`, v.Text) {
			code, value = string(v.Code), v.Text
		}
	}
	if !isJSONText(value) {
		value = appendBytes(nil, value)
	}
	m.says(saidError, code, formJSON, value)
}

// saysWord takes an error that is one of the words of our broker for that. A
// handler may say the same: so nothing is known of what was executed.
func (m *message) saysWord() bool {
	if m.said != saidError || m.code != "500" || len(m.body[0]) > maxRID {
		return true
	}
	if word, ok := unquote(m.body[0]); ok && statuses[string(word)].err != nil {
		m.says(saidStatus, string(word), formJSON, nil)
	}
	return true
}

// plainJSONCode tells whether b is a number or a word as JSON, other than success,
// however that is written.
func plainJSONCode(b []byte) bool {
	s := Message{b: b}.String()
	if len(s) == 0 || s == "200" {
		return false
	}
	if b[0] == '"' {
		return true
	}
	n, err := strconv.ParseFloat(s, 64)
	return err == nil && n != 200
}

// Errors where a dialect knows nothing of them: a body of the one frame
// {"status":CODE,"msg":VALUE}, or {"status":"WORD"} if the broker says it.

// errorHead is how they begin. A value that does is written with a space in it.
const errorHead = `{"status":`

// apart is value, which is JSON, such that it is not read as an error.
func apart(value []byte) []byte {
	if !nearlyError(value) {
		return value
	}
	return append([]byte("{ "), value[1:]...)
}

func nearlyError(b []byte) bool {
	return len(b) > len(errorHead) && string(b[:len(errorHead)]) == errorHead
}

func appendErrorObject(b []byte, m *message) []byte {
	b = append(b, errorHead...)
	if m.said == saidStatus {
		b = appendJSONString(b, m.code)
		if m.executed != "" {
			b = append(b, `,"executed":`...)
			b = append(b, m.executed...)
		}
		return append(b, '}')
	}
	b = append(b, m.code...)
	b = append(b, `,"msg":`...)
	b = append(b, bytes.TrimSpace(m.body[0])...)
	return append(b, '}')
}

// saysFrames takes the opaque frames of a PARTIAL or REPLY: a value, or an
// error that is just as appendErrorObject writes it.
func (m *message) saysFrames(f [][]byte) bool {
	if len(f) == 0 {
		return false
	}
	m.said, m.form, m.body = saidValue, formLoose, f
	if b := f[0]; len(f) == 1 && nearlyError(b) && utf8.Valid(b) {
		m.saysErrorObject(b)
	}
	return true
}

func (m *message) saysErrorObject(b []byte) {
	var v struct {
		Status   json.RawMessage `json:"status"`
		Msg      json.RawMessage `json:"msg"`
		Executed json.RawMessage `json:"executed"`
	}
	if json.Unmarshal(b, &v) != nil || !plainJSONCode(v.Status) {
		return
	}
	rest := b[min(len(errorHead)+len(v.Status), len(b)):]
	switch {
	case v.Msg != nil && isMember(rest, `,"msg":`, v.Msg):
		m.says(saidError, string(v.Status), formJSON, v.Msg)
	case v.Msg == nil && v.Status[0] == '"':
		executed := string(v.Executed)
		known := (executed == "true" || executed == "false") && isMember(rest, `,"executed":`, v.Executed)
		if word := (Message{b: v.Status}).String(); (known || string(rest) == "}") && statuses[word].err != nil {
			m.executed = executed
			m.says(saidStatus, word, formJSON, nil)
		}
	}
}

// isMember tells whether rest is the last member of an object and its end, with
// this key and this value.
func isMember(rest []byte, key string, value []byte) bool {
	return len(rest) == len(key)+len(value)+1 && string(rest[:len(key)]) == key
}

// replyOf is what a PARTIAL or REPLY of any dialect says to a client of ours.
func replyOf(service string, m *message) reply {
	switch m.said {
	case saidValue:
		if m.form == formJSON || len(m.body) > 1 || isJSONText(m.body[0]) && m.form == formLoose {
			b := appendBodyJSON(nil, m)
			if !isJSON(b) {
				return protocolError(service, "a reply that is not JSON")
			}
			return reply{msg: Message{b: b}}
		}
		return reply{msg: Message{b: append([]byte{}, m.body[0]...), raw: true}}
	case saidError:
		value := bytes.Clone(m.body[0])
		return reply{err: &Error{Service: service, Code: Message{b: []byte(m.code)}.String(), Message: Message{b: value}.String(), Data: value}}
	case saidStatus: // a handler's value may look the same, so what it says of the execution is not believed
		return brokerStatus(service, m.code, nil)
	}
	return parseReply(service, m.body)
}

// Which dialect a message is of.

// family is what the first frames tell: those of OMDP's header are one.
func (w *wire) family() Dialect {
	if w.dialect == MDP01 || w.dialect == MDP02 {
		return w.dialect
	}
	return OMDP
}

// named gives the dialect that a message names by how it begins, OMDP for its
// family, nil for none.
func named(f [][]byte) *wire {
	if len(f) == 0 {
		return nil
	}
	if h := string(f[min(len(f)-1, 1)]); len(f[0]) == 0 && (h == mdp01.client || h == mdp01.worker) {
		return wires[MDP01]
	}
	switch string(f[0]) {
	case "MDPC02", "MDPW02":
		return wires[MDP02]
	case headerClient, headerWorker:
		return wires[OMDP]
	}
	return nil
}

// parseFirst parses the first message of a peer on a listener for x. Peers that
// advertise are OMDP's wherever its header is; m.wire() tells which dialect it is,
// or what it would be by its beginning.
func parseFirst(x Dialect, f [][]byte, m *message) bool {
	n := named(f)
	switch {
	case x == Auto || x == OMDP:
		if n == nil || n.dialect == OMDP { // an envelope names nothing
			return parseAtBroker(f, m) || x == Auto && m.worker && wires[PIGATO].parseAtBroker(f, m) // of one that was refused, or forgotten
		}
		if x == Auto {
			return n.parseAtBroker(f, m)
		}
	case n != nil && n.family() == wires[x].family():
		if wires[x].parseAtBroker(f, m) {
			return true
		}
		if n.dialect == OMDP && parseAtBroker(f, m) && m.caps != nil {
			return true
		}
		if o := otherOf(wires[x], f, m); o == nil { // it is wrong in any of them
			n = wires[x]
		}
	case n == nil:
		wires[x].parseAtBroker(f, m)
		m.dialect = x
		return false
	}
	m.reset()
	m.dialect, m.worker = n.dialect, saysWorker(f)
	return false
}

// saysWorker tells whether a message begins as a worker's.
func saysWorker(f [][]byte) bool {
	if len(f) > 1 && len(f[0]) == 0 {
		f = f[1:]
	}
	switch string(f[0]) {
	case headerWorker, mdp02.worker, mdp01.worker:
		return true
	}
	return false
}

// parseUnclear parses a message of a worker that may be of any of OMDP's family,
// and reports whether it shows that it is not OMDP's.
func parseUnclear(f [][]byte, m *message) bool {
	if !parseAtBroker(f, m) {
		return wires[PIGATO].parseAtBroker(f, m)
	}
	if m.op != opReply && m.op != opPartial {
		return false
	}
	b := m.body[0]
	final := len(m.body) == 2 && string(b) == "0" || len(m.body) == 1 && (len(b) == 0 || b[0] != '{' || !hasStatus(b)) && isJSON(b)
	return final && wires[OMDPFinal].parseAtBroker(f, m)
}

// strange tells whether a message that is read as OMDP's shows that it is not.
func (m *message) strange() bool {
	return len(m.body) == 2 && m.said == saidNative && string(m.body[0]) == "0"
}

// otherOf is another dialect of the family of w in which a message is right.
func otherOf(w *wire, f [][]byte, m *message) *wire {
	for _, x := range wires[1:] {
		if x != w && x.family() == w.family() && x.parseAtBroker(f, m) {
			return x
		}
	}
	return nil
}

// hasStatus tells whether an object begins as OMDP's payload does.
func hasStatus(b []byte) bool {
	const head = `{"status":`
	return len(b) >= len(head) && string(b[:len(head)]) == head
}

func (m *message) wire() *wire { return wires[m.dialect] }
