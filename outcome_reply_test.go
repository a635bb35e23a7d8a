package omdp_test

import (
	"context"
	"runtime"
	"strings"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// Paths on which the answer is the error, or can't be read.
var replyPaths = []errorPath{
	saidByHandler("handler returns an error", func(context.Context, *omdp.Request, *omdp.Response) error {
		return &omdp.Error{Code: "418", Message: "short and stout"}
	}),
	saidByHandler("handler ends with an error", func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		return res.Error(&omdp.Error{Code: "TIMEOUT", Message: "its own, not the broker's"})
	}),
	saidByHandler("handler panics", func(context.Context, *omdp.Request, *omdp.Response) error { panic("on purpose") }),
	saidByHandler("handler ends its goroutine", func(context.Context, *omdp.Request, *omdp.Response) error {
		runtime.Goexit()
		return nil
	}),
	saidByHandler("final too large", func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		res.End(strings.Repeat("x", 64<<20))
		return nil
	}),
	saidByHandler("final that has no JSON", func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		return res.End(make(chan int))
	}),
	saidByHandler("error after partials", func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		res.Send("part")
		return &omdp.Error{Code: "500"}
	}),
	{name: "reply that does not fit", ways: "c", text: "decode", outcome: omdp.Executed, ran: ranWhole, fault: func(s *scene) error {
		s.answers(func(_ context.Context, _ *omdp.Request, res *omdp.Response) error { return res.End("a word") })
		_, err := omdp.CallJSON[int](s.ctx, s.c, "walk", walkData)
		return err
	}},
	{name: "stream closed after its end", ways: "s", want: omdp.ErrCanceled, outcome: omdp.Executed, ran: ranWhole, fault: func(s *scene) error {
		s.read = make(chan struct{})
		s.answers(func(_ context.Context, _ *omdp.Request, res *omdp.Response) error { return res.End("read by nobody") })
		s.call()
		eventually(s.t, "the end is there", func() bool { return s.c.Stats().Succeeded == 1 })
		s.stream.Close()
		close(s.read)
		return s.end()
	}},

	badReply("final that can't be read", "", omdp.ErrProtocol, "3", "garbage"),
	badReply("final whose value is no JSON", "", omdp.ErrProtocol, "3", `{"status":200,"msg":garbage}`),
	badReply("final with a status that is none", "", omdp.ErrProtocol, "3", `{"status":null,"msg":1}`),
	badReply("final with an empty status", "", omdp.ErrProtocol, "3", "", "text"),
	badReply("partial that can't be read", "rs", omdp.ErrProtocol, "6", "garbage"), // Call reads none
	badReply("partial with a status of the broker's", "rs", omdp.ErrOverloaded, "6", `{"status":"OVERLOADED","executed":false}`),
	// Its handler goes on: it has not said its last word.
	badReply("partial that is an error", "rs", omdp.ErrProtocol, "6", `{"status":418,"msg":"short and stout"}`),
	// response.error('OVERLOADED') of a Node worker sends no msg: its handler ran.
	badReply("worker's error without a text", "", omdp.ErrOverloaded, "3", `{"status":"OVERLOADED"}`),

	{name: "reader too slow", ways: "rs", want: omdp.ErrSlowConsumer, outcome: omdp.MayHaveExecuted, ran: ranOther, fault: func(s *scene) error {
		s.serve("inproc", nil)
		w := s.rawWorker("W|1|walk") // heeds no credit
		s.connect(&omdp.ClientConfig{BufferLimit: 50_000, Window: 4 << 10})
		s.read = make(chan struct{})
		s.call()
		token, rid := s.takes(w)
		for range 10 {
			w.send("W", "6", token, rid, `{"status":200,"msg":"`+strings.Repeat("x", 10_000)+`"}`)
		}
		eventually(s.t, "the call is given up", func() bool { return s.c.Stats().Failed == 1 })
		close(s.read)
		return s.end()
	}},

	saidByBroker("TIMEOUT", "", omdp.ErrTimeout, omdp.MayHaveExecuted),
	saidByBroker("TIMEOUT", "false", omdp.ErrTimeout, omdp.NotExecuted),
	saidByBroker("W_ERROR", "", omdp.ErrWorkerLost, omdp.MayHaveExecuted),
	saidByBroker("LOST", "", omdp.ErrBrokerLost, omdp.MayHaveExecuted),
	saidByBroker("OVERLOADED", "false", omdp.ErrOverloaded, omdp.NotExecuted),
	saidByBroker("DENIED", "false", omdp.ErrDenied, omdp.NotExecuted),
	saidByBroker("NO_WORKER", "false", omdp.ErrNoWorker, omdp.NotExecuted),
	saidByBroker("TOO_LARGE", "false", omdp.ErrTooLarge, omdp.NotExecuted),
	saidByBroker("DRAINING", "false", omdp.ErrBrokerLost, omdp.NotExecuted),
	saidByBroker("MALFORMED", "false", omdp.ErrProtocol, omdp.NotExecuted),
	saidByBroker("PROTOCOL", "", omdp.ErrProtocol, omdp.MayHaveExecuted),
	saidByBroker("UNSUPPORTED", "false", omdp.ErrUnsupported, omdp.NotExecuted),
	saidByBroker("REJECTED", "false", omdp.ErrOverloaded, omdp.NotExecuted),
	saidByBroker("DUPLICATE", "true", omdp.ErrBrokerLost, omdp.Executed),
	saidByBroker("SLOW_CLIENT", "", omdp.ErrSlowConsumer, omdp.MayHaveExecuted),
	saidByBroker("SLOW_CLIENT", "false", omdp.ErrSlowConsumer, omdp.NotExecuted),
	saidByBroker("nobody knows", "", omdp.ErrProtocol, omdp.MayHaveExecuted),
	{name: "another broker answers", want: omdp.ErrBrokerLost, outcome: omdp.MayHaveExecuted, ran: ranOther, fault: func(s *scene) error {
		b := s.rawBroker()
		s.call()
		m := b.next(s.t, "C", "2")
		b.send(m[0], "C", "8", `{"v":1,"id":"one","hb":1000}`)
		b.send(m[0], "C", "8", `{"v":1,"id":"two","hb":1000}`)
		return s.end()
	}},
}

// answers sets a scene whose worker answers at once.
func (s *scene) answers(do omdp.Handler) {
	s.t.Helper()
	s.serve("inproc", nil)
	s.work(s.endpoint, nil, do)
	s.connect(nil)
}

// answered is a call whose handler says what failed.
func saidByHandler(name string, do omdp.Handler) errorPath {
	return errorPath{name: name, text: handlerSaid, outcome: omdp.Executed, ran: ranWhole, fault: func(s *scene) error {
		s.answers(do)
		s.call()
		return s.end()
	}}
}

// unreadable is a call that a worker by hand answers with a payload that no
// worker of this library sends. What that worker did nobody can tell.
func badReply(name, ways string, want error, command string, payload ...string) errorPath {
	return errorPath{name: name, ways: ways, want: want, outcome: omdp.MayHaveExecuted, ran: ranOther, fault: func(s *scene) error {
		s.serve("inproc", nil)
		w := s.rawWorker("W|1|walk")
		s.connect(nil)
		s.call()
		token, rid := s.takes(w)
		w.send(append([]string{"W", command, token, rid}, payload...)...)
		return s.end()
	}}
}

// status is a call that a broker ends by a status of its own.
func saidByBroker(word, executed string, want error, outcome omdp.Outcome) errorPath {
	name, payload := "status "+word, `{"status":"`+word+`"}`
	if executed != "" {
		payload = `{"status":"` + word + `","executed":` + executed + `}`
	}
	if want == omdp.ErrTimeout && executed != "" || word == "SLOW_CLIENT" && executed != "" {
		name += ", not executed"
	}
	return errorPath{name: name, want: want, outcome: outcome, ran: ranOther, fault: func(s *scene) error {
		b := s.rawBroker()
		s.call()
		m := b.next(s.t, "C", "2")
		b.send(m[0], "C", "3", m[4], payload)
		return s.end()
	}}
}

// rawBroker is a broker by hand, with the client connected to it.
func (s *scene) rawBroker() *rawBroker {
	s.t.Helper()
	b := bindRaw(s.t, newEndpoint(s.t, "inproc"))
	s.endpoint, s.foreign = b.endpoint, true
	s.connect(nil)
	b.next(s.t, "C", "8")
	return b
}

// A client by hand whose options are no options: refused, and no handler ran.
func TestOutcomeOfMalformedOptions(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	h := newHeld()
	close(h.free)
	addWorker(t, b, "echo", nil, h.handle)
	p := dialRaw(t, b.Endpoint())
	for i, options := range []string{"[]", "nonsense", `{"timeout":"soon"}`, `{"timeout":`} {
		rid := string(rune('a' + i))
		p.send("C", "2", "echo", rid, `"x"`, options)
		p.want(t, "C|3|"+rid+`|{"status":"MALFORMED","executed":false}`)
	}
	served(t, addClient(t, b, nil), "echo")
	if got := receive(t, "a request", h.began); got == "x" || len(h.began) > 0 {
		t.Errorf("a handler got %q, and %d more; want the honest one alone", got, len(h.began))
	}
}
