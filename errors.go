package omdp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"
)

// sentinel is the type of the package's error values. is lets a sentinel stand
// for the standard error of the same meaning.
type sentinel struct {
	text string
	is   error
}

func (s *sentinel) Error() string        { return "omdp: " + s.text }
func (s *sentinel) Is(target error) bool { return s.is != nil && target == s.is }

// The errors of this package. Compare with errors.Is; errors of calls wrap one
// of them and carry an [Outcome], see [OutcomeOf].
var (
	// ErrNotStarted: the method needs Start first.
	ErrNotStarted error = &sentinel{text: "not started"}
	// ErrClosed: the client, worker or broker was closed.
	ErrClosed error = &sentinel{text: "closed"}
	// ErrEnded: the response has had its final already, or its request has ended.
	ErrEnded error = &sentinel{text: "response ended"}
	// ErrTimeout: the request's timeout passed. It is a context.DeadlineExceeded.
	ErrTimeout error = &sentinel{"request timed out", context.DeadlineExceeded}
	// ErrCanceled: the caller cancelled. It is a context.Canceled.
	ErrCanceled error = &sentinel{"request canceled", context.Canceled}
	// ErrNoWorker: no worker is registered for the service and the call was FailFast.
	ErrNoWorker error = &sentinel{text: "no worker for the service"}
	// ErrWorkerLost: the worker that held the request went away.
	ErrWorkerLost error = &sentinel{text: "worker lost"}
	// ErrBrokerLost: the broker went away, restarted, is shutting down, or knows nothing of the request any more.
	ErrBrokerLost error = &sentinel{text: "broker lost"}
	// ErrOverloaded: a limit of the broker or of this client is reached.
	ErrOverloaded error = &sentinel{text: "overloaded"}
	// ErrTooLarge: the encoded data is over the limit.
	ErrTooLarge error = &sentinel{text: "data too large"}
	// ErrSlowConsumer: replies came faster than they were read, over the bound.
	ErrSlowConsumer error = &sentinel{text: "slow consumer"}
	// ErrDenied: the broker does not allow it.
	ErrDenied error = &sentinel{text: "denied"}
	// ErrUnsupported: the broker or the worker can't do it: it is not of this library.
	ErrUnsupported error = &sentinel{"not supported by the other side", errors.ErrUnsupported}
	// ErrProtocol: the other side sent something that the protocol does not allow.
	ErrProtocol error = &sentinel{text: "protocol error"}
)

// An Outcome tells whether a failed call's work was done, and so whether it is
// safe to call again.
type Outcome uint8

const (
	MayHaveExecuted Outcome = iota // nobody can tell; the zero value, and what unknown errors give
	NotSent                        // the request never left this process
	NotExecuted                    // it was sent, and no handler ran
	Executed                       // a handler ran to its end, or the call succeeded
)

var outcomeTexts = [...]string{"may have executed", "not sent", "not executed", "executed"}

func (o Outcome) String() string {
	if int(o) < len(outcomeTexts) {
		return outcomeTexts[o]
	}
	return "Outcome(" + strconv.Itoa(int(o)) + ")"
}

// OutcomeOf returns the Outcome that err carries: of nil it is Executed, of an
// *[Error] Executed, and MayHaveExecuted of an error that is not this package's.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return Executed
	}
	if c, ok := errors.AsType[*callError](err); ok {
		return c.outcome
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return Executed
	}
	if errors.Is(err, ErrNotStarted) || errors.Is(err, ErrClosed) {
		return NotSent
	}
	return MayHaveExecuted
}

// callError is why a call did not succeed, if it was not the handler who said so.
type callError struct {
	err     error // a sentinel, or a cause of the caller's context
	service string
	outcome Outcome
	detail  string
}

func (e *callError) Error() string {
	s := "omdp: call " + e.service + ": "
	if t, ok := e.err.(*sentinel); ok {
		s += t.text
	} else if e.err != nil {
		s += e.err.Error()
	}
	if e.detail != "" {
		s += ": " + e.detail
	}
	return s + " (" + e.outcome.String() + ")"
}

func (e *callError) Unwrap() error { return e.err }

// An Error is what the handler at the other side said: the error that it
// returned or gave to Response.Error. Nothing local has this type.
//
// A handler chooses code and text by returning one; any other error reaches
// the client with code 500 and its text.
type Error struct {
	Service string          // whose handler; filled in at the client
	Code    string          // a number or a word, never 200; "500" if the handler gave none
	Message string          // the text; for a value that is not a string, its JSON
	Data    json.RawMessage // the value as JSON; to send one that is not a string, set it and leave Message empty
}

func (e *Error) Error() string {
	s := e.Code + ": " + e.Message
	if e.Message == "" && e.Data != nil {
		s = e.Code + ": " + string(e.Data)
	}
	if e.Service != "" {
		return "omdp: service " + e.Service + ": " + s
	}
	return "omdp: " + s
}

// wire returns status and msg as JSON. A code of digits is a number on the
// wire, any other a string; success and emptiness become 500.
func (e *Error) wire() (code string, value []byte) {
	code = e.Code
	switch n, err := strconv.ParseInt(code, 10, 32); {
	case code == "" || code == "200" || code == "500":
		code = "500"
	case err == nil && n > 0 && strconv.FormatInt(n, 10) == code:
	default:
		code = string(appendJSONString(nil, code))
	}
	if e.Message == "" && e.Data != nil && isJSON(e.Data) {
		return code, e.Data
	}
	return code, appendJSONString(nil, e.Message)
}

// errorOf turns what a handler returned into what is sent.
func errorOf(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: "500", Message: err.Error()}
}

// The broker's own statuses (protocol.md, "Errors of the broker").
const (
	statusTimeout    = "TIMEOUT"
	statusWorkerLost = "W_ERROR"
	statusLost       = "LOST"
	statusOverloaded = "OVERLOADED"
	statusDenied     = "DENIED"
	statusNoWorker   = "NO_WORKER"
	statusTooLarge   = "TOO_LARGE"
	statusDraining   = "DRAINING"
	statusDuplicate  = "DUPLICATE"
	statusSlowClient = "SLOW_CLIENT"
	statusMalformed  = "MALFORMED"
	statusProtocol   = "PROTOCOL"
	statusForeign    = "UNSUPPORTED"
	statusRejected   = "REJECTED"
)

var statuses = map[string]struct {
	err     error
	outcome Outcome
}{
	statusTimeout:    {ErrTimeout, MayHaveExecuted}, // NotExecuted when the broker adds executed:false
	statusWorkerLost: {ErrWorkerLost, MayHaveExecuted},
	statusLost:       {ErrBrokerLost, MayHaveExecuted},
	statusOverloaded: {ErrOverloaded, NotExecuted},
	statusDenied:     {ErrDenied, NotExecuted},
	statusNoWorker:   {ErrNoWorker, NotExecuted},
	statusTooLarge:   {ErrTooLarge, NotExecuted},
	statusDraining:   {ErrBrokerLost, NotExecuted},
	statusDuplicate:  {ErrBrokerLost, MayHaveExecuted}, // with executed where the broker knows
	statusSlowClient: {ErrSlowConsumer, MayHaveExecuted},
	statusMalformed:  {ErrProtocol, NotExecuted},
	statusProtocol:   {ErrProtocol, MayHaveExecuted},
	statusForeign:    {ErrUnsupported, NotExecuted},
	statusRejected:   {ErrOverloaded, NotExecuted},
}

// reply is a PARTIAL or a REPLY as the client understands it.
type reply struct {
	msg    Message // copied, not borrowed
	err    error   // *Error or *callError
	status string  // of the broker's own errors
}

const okPrefix = `{"status":200,"msg":`

// parseReply reads the payload of a PARTIAL or REPLY. What can't be read is
// an ErrProtocol of this call alone.
func parseReply(service string, body [][]byte) reply {
	if len(body) == 2 {
		return parseTwoFrames(service, body)
	}
	b := body[0]
	if rest, ok := bytes.CutPrefix(b, []byte(okPrefix)); ok {
		if n := len(rest); n >= 2 && rest[n-1] == '}' && isJSON(rest[:n-1]) {
			return reply{msg: Message{b: bytes.Clone(rest[:n-1])}}
		}
	}
	var p struct {
		Status   json.RawMessage `json:"status"`
		Msg      json.RawMessage `json:"msg"`
		Executed *bool           `json:"executed"`
	}
	if len(b) > 0 && b[0] != '{' { // zmq-omdp 955b90d: the status alone
		return brokerStatus(service, string(b[:min(len(b), 64)]), nil)
	}
	if json.Unmarshal(b, &p) != nil || p.Status == nil {
		return protocolError(service, "a reply that is not {\"status\":…}")
	}
	status := Message{b: p.Status}.String()
	switch c := p.Status[0]; {
	case status == "" || c != '"' && c != '-' && (c < '0' || c > '9'):
		return protocolError(service, "a status that is neither a number nor a word")
	case status == "200":
		return reply{msg: Message{b: p.Msg}}
	case p.Msg == nil && p.Status[0] == '"':
		return brokerStatus(service, status, p.Executed)
	}
	return reply{err: &Error{Service: service, Code: status, Message: Message{b: p.Msg}.String(), Data: p.Msg}}
}

// parseTwoFrames reads b|bytes, our raw form, and STATUS|text, which zmq-omdp
// sent at 955b90d.
func parseTwoFrames(service string, body [][]byte) reply {
	data := bytes.Clone(body[1])
	if data == nil {
		data = []byte{}
	}
	switch status := body[0]; {
	case string(status) == rawMark, string(status) == "200":
		return reply{msg: Message{b: data, raw: true}}
	case !plainCode(status): // not to be taken for what a handler said
		return protocolError(service, "a reply of two frames without a status")
	default:
		return reply{err: &Error{Service: service, Code: string(status), Message: string(data)}}
	}
}

// plainCode tells whether b can be the code of an error that stands in a frame
// of its own: a number or a word, not JSON, not bytes.
func plainCode(b []byte) bool {
	return len(b) > 0 && len(b) <= 64 && plainText(b) && b[0] != '{' && b[0] != '['
}

func brokerStatus(service, status string, executed *bool) reply {
	s, ok := statuses[status]
	if !ok {
		return protocolError(service, "unknown status "+strconv.Quote(status))
	}
	e := &callError{err: s.err, service: service, outcome: s.outcome}
	switch {
	case executed != nil && *executed:
		e.outcome = Executed
	case executed != nil:
		e.outcome = NotExecuted
	case s.outcome == NotExecuted:
		// Our broker says so where it says this. Without it the word may be that of
		// a Node worker, whose response.error(code) sends no msg: its handler ran.
		e.outcome = MayHaveExecuted
	}
	if status != statusTimeout {
		e.detail = status
	}
	return reply{err: e, status: status}
}

func protocolError(service, detail string) reply {
	return reply{err: &callError{err: ErrProtocol, service: service, outcome: MayHaveExecuted, detail: detail}}
}
