package omdp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

var sentinels = []error{
	ErrNotStarted, ErrClosed, ErrEnded, ErrTimeout, ErrCanceled, ErrNoWorker, ErrWorkerLost,
	ErrBrokerLost, ErrOverloaded, ErrTooLarge, ErrSlowConsumer, ErrDenied, ErrProtocol,
}

// TestSentinels: each is itself and none other, wrapped or not.
func TestSentinels(t *testing.T) {
	for i, a := range sentinels {
		call := &callError{err: a, service: "s", outcome: NotExecuted}
		for j, b := range sentinels {
			if errors.Is(a, b) != (i == j) || errors.Is(call, b) != (i == j) {
				t.Errorf("errors.Is(%v, %v) is wrong", a, b)
			}
		}
		if !strings.HasPrefix(a.Error(), "omdp: ") || strings.Count(call.Error(), "omdp: ") != 1 {
			t.Errorf("texts %q and %q", a, call)
		}
		if errors.Is(a, context.DeadlineExceeded) != (a == ErrTimeout) || errors.Is(call, context.DeadlineExceeded) != (a == ErrTimeout) {
			t.Errorf("%v and context.DeadlineExceeded", a)
		}
		if errors.Is(a, context.Canceled) != (a == ErrCanceled) || errors.Is(call, context.Canceled) != (a == ErrCanceled) {
			t.Errorf("%v and context.Canceled", a)
		}
		if _, ok := errors.AsType[*Error](call); ok {
			t.Errorf("%v: a local error is an *Error", a)
		}
	}
}

func TestOutcomeOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Outcome
	}{
		{nil, Executed},
		{&Error{Code: "418"}, Executed},
		{fmt.Errorf("wrapped: %w", &Error{}), Executed},
		{&callError{err: ErrTimeout, outcome: NotSent}, NotSent},
		{fmt.Errorf("wrapped: %w", &callError{err: ErrTimeout, outcome: NotExecuted}), NotExecuted},
		{&callError{err: ErrBrokerLost, outcome: MayHaveExecuted}, MayHaveExecuted},
		{&callError{err: ErrClosed, outcome: MayHaveExecuted}, MayHaveExecuted},
		{ErrNotStarted, NotSent},
		{fmt.Errorf("omdp: start: %w", ErrClosed), NotSent},
		{ErrTimeout, MayHaveExecuted},
		{io.EOF, MayHaveExecuted},
	} {
		if got := OutcomeOf(c.err); got != c.want {
			t.Errorf("%v: got %v, want %v", c.err, got, c.want)
		}
	}
	for o, want := range map[Outcome]string{MayHaveExecuted: "may have executed", NotSent: "not sent", NotExecuted: "not executed", Executed: "executed", 9: "Outcome(9)"} {
		if o.String() != want {
			t.Errorf("got %q, want %q", o.String(), want)
		}
	}
}

// TestParseReply: values, what handlers said, and the broker's own statuses.
func TestParseReply(t *testing.T) {
	for _, c := range []struct{ body, json string }{
		{`{"status":200,"msg":"foo"}`, `"foo"`},
		{`{"status":"200","msg":"foo"}`, `"foo"`}, // "A status of 200 is success, as a number or as a string"
		{`{"status":200,"msg":null}`, `null`},
		{`{"status":200}`, `null`},
		{`{"msg":[1],"status":200}`, `[1]`},
		{`{"status":200,"msg":{"a":1},"later":true}`, `{"a":1}`},
		{`{"status":200,"msg":"a","later":"}"}`, `"a"`},
		{`{"status":200,"msg":1,"msg":2}`, `2`},
		{"b|bytes", `"bytes"`},
		{"b|", `""`},
		{"200|data", `"data"`}, // zmq-omdp 955b90d
	} {
		if r := parseReply("s", split(c.body)); r.err != nil || string(r.msg.JSON()) != c.json {
			t.Errorf("%s: got %s, %v, want %s", c.body, r.msg.JSON(), r.err, c.json)
		}
	}
	for _, c := range []struct{ body, code, message, data string }{
		{`{"status":418,"msg":"TEAPOT"}`, "418", "TEAPOT", `"TEAPOT"`},
		{`{"status":500,"msg":"SOMETHING_FAILED"}`, "500", "SOMETHING_FAILED", `"SOMETHING_FAILED"`},
		{`{"status":"MINE","msg":{"a":1}}`, "MINE", `{"a":1}`, `{"a":1}`},
		{`{"status":"TIMEOUT","msg":"the handler's own"}`, "TIMEOUT", "the handler's own", `"the handler's own"`}, // not the broker's: it has msg
		{`{"status":"TIMEOUT","msg":null}`, "TIMEOUT", "", "null"},
		{`{"status":418}`, "418", "", ""},
		{"418|TEAPOT", "418", "TEAPOT", ""}, // zmq-omdp 955b90d
	} {
		r := parseReply("s", split(c.body))
		e, ok := r.err.(*Error)
		if !ok || e.Code != c.code || e.Message != c.message || string(e.Data) != c.data || e.Service != "s" {
			t.Errorf("%s: got %#v", c.body, r.err)
		}
	}
	for _, c := range []struct {
		body    string
		is      error
		outcome Outcome
	}{
		{`{"status":"TIMEOUT"}`, ErrTimeout, MayHaveExecuted},
		{`{"status":"TIMEOUT","executed":false}`, ErrTimeout, NotExecuted},
		{`{"status":"TIMEOUT","executed":true}`, ErrTimeout, Executed},
		{"TIMEOUT", ErrTimeout, MayHaveExecuted}, // zmq-omdp 955b90d: alone
		{`{"status":"W_ERROR"}`, ErrWorkerLost, MayHaveExecuted},
		{`{"status":"LOST"}`, ErrBrokerLost, MayHaveExecuted},
		{`{"status":"OVERLOADED","executed":false}`, ErrOverloaded, NotExecuted},
		{`{"status":"DENIED","executed":false}`, ErrDenied, NotExecuted},
		{`{"status":"NO_WORKER","executed":false}`, ErrNoWorker, NotExecuted},
		{`{"status":"TOO_LARGE","executed":false}`, ErrTooLarge, NotExecuted},
		{`{"status":"DRAINING","executed":false}`, ErrBrokerLost, NotExecuted},
		{`{"status":"OVERLOADED"}`, ErrOverloaded, MayHaveExecuted}, // a Node worker's response.error("OVERLOADED"): its handler ran
		{`{"status":"DUPLICATE"}`, ErrBrokerLost, MayHaveExecuted},
		{`{"status":"DUPLICATE","executed":true}`, ErrBrokerLost, Executed},
		{`{"status":"SLOW_CLIENT"}`, ErrSlowConsumer, MayHaveExecuted},
		{`{"status":"MALFORMED","executed":false}`, ErrProtocol, NotExecuted},
		// What can't be read is an error of this call alone.
		{`{"status":"OF_A_LATER_VERSION"}`, ErrProtocol, MayHaveExecuted},
		{`{"status":null}`, ErrProtocol, MayHaveExecuted},
		{`{"status":"","msg":1}`, ErrProtocol, MayHaveExecuted},
		{`{"status":true,"msg":1}`, ErrProtocol, MayHaveExecuted},
		{`{"status":{}}`, ErrProtocol, MayHaveExecuted},
		{`{"status":""}`, ErrProtocol, MayHaveExecuted},
		{`{"status":200,"msg":}`, ErrProtocol, MayHaveExecuted},
		{`{"status":200,"msg":1`, ErrProtocol, MayHaveExecuted},
		{`{}`, ErrProtocol, MayHaveExecuted},
		{``, ErrProtocol, MayHaveExecuted},
		{`[]`, ErrProtocol, MayHaveExecuted},
		{"\xff", ErrProtocol, MayHaveExecuted},
		{"|x", ErrProtocol, MayHaveExecuted},
		{"{}|x", ErrProtocol, MayHaveExecuted}, // nobody's code: bytes, JSON, something endless
		{`{"status":200,"msg":1}|{"status":200,"msg":1}`, ErrProtocol, MayHaveExecuted},
		{"[418]|x", ErrProtocol, MayHaveExecuted},
		{`"418"|x`, ErrProtocol, MayHaveExecuted},
		{"\xff|x", ErrProtocol, MayHaveExecuted},
		{"\x00|x", ErrProtocol, MayHaveExecuted},
		{strings.Repeat("4", 65) + "|x", ErrProtocol, MayHaveExecuted},
	} {
		r := parseReply("s", split(c.body))
		if !errors.Is(r.err, c.is) || OutcomeOf(r.err) != c.outcome {
			t.Errorf("%s: got %v, %v, want %v, %v", c.body, r.err, OutcomeOf(r.err), c.is, c.outcome)
		}
	}
}

// TestErrorWire: what a handler says arrives as it was said.
func TestErrorWire(t *testing.T) {
	for _, c := range []struct {
		err               Error
		code, value, want string // on the wire; the code at the client
	}{
		{Error{Code: "418", Message: "TEAPOT"}, "418", `"TEAPOT"`, "418"},
		{Error{Code: "MINE", Message: "x"}, `"MINE"`, `"x"`, "MINE"},
		{Error{Message: "x"}, "500", `"x"`, "500"},
		{Error{Code: "200", Message: "x"}, "500", `"x"`, "500"}, // an error is never a success
		{Error{Code: "007", Message: "x"}, `"007"`, `"x"`, "007"},
		{Error{Code: "-1", Message: "x"}, `"-1"`, `"x"`, "-1"},
		{Error{Code: "+5"}, `"+5"`, `""`, "+5"},
		{Error{Code: "99999999999", Message: "x"}, `"99999999999"`, `"x"`, "99999999999"},
		{Error{Code: "TIMEOUT", Message: ""}, `"TIMEOUT"`, `""`, "TIMEOUT"}, // with msg: not the broker's
		{Error{Code: "1", Data: json.RawMessage(`{"a":1}`)}, "1", `{"a":1}`, "1"},
		{Error{Code: "1", Data: json.RawMessage(`{`)}, "1", `""`, "1"},
		{Error{Code: "1", Message: "m", Data: json.RawMessage(`1`)}, "1", `"m"`, "1"},
		{Error{Code: `q"uote`, Message: "x"}, `"q\"uote"`, `"x"`, `q"uote`},
	} {
		code, value := c.err.wire()
		if code != c.code || string(value) != c.value {
			t.Errorf("%+v: got %s, %s, want %s, %s", c.err, code, value, c.code, c.value)
		}
		r := parseReply("s", [][]byte{fmt.Appendf(nil, `{"status":%s,"msg":%s}`, code, value)})
		e, ok := r.err.(*Error)
		if !ok || e.Code != c.want || string(e.Data) != c.value {
			t.Errorf("%+v arrived as %#v", c.err, r.err)
		}
	}
	if e := errorOf(io.ErrUnexpectedEOF); e.Code != "500" || e.Message != "unexpected EOF" {
		t.Errorf("got %+v", e)
	}
	mine := &Error{Code: "1"}
	if e := errorOf(fmt.Errorf("wrapped: %w", mine)); e != mine {
		t.Errorf("got %+v", e)
	}
	for want, e := range map[string]*Error{
		"omdp: service s: 418: TEAPOT": {Service: "s", Code: "418", Message: "TEAPOT"},
		"omdp: 418: TEAPOT":            {Code: "418", Message: "TEAPOT"},
		"omdp: 1: [2]":                 {Code: "1", Data: json.RawMessage("[2]")},
	} {
		if e.Error() != want {
			t.Errorf("got %q, want %q", e.Error(), want)
		}
	}
}
