package omdp_test

import (
	"context"
	"time"

	"github.com/zmq-omdp/omdp"
)

// Calls that are sent again: what an attempt may have done is not forgotten by
// what a later one is told.
var retryPaths = []errorPath{
	afterLost("lost, then refused", `{"status":"OVERLOADED","executed":false}`, omdp.ErrOverloaded, omdp.MayHaveExecuted),
	afterLost("lost, then expired in the queue", `{"status":"TIMEOUT","executed":false}`, omdp.ErrTimeout, omdp.MayHaveExecuted),
	afterLost("lost, then told that it had ended", `{"status":"SLOW_CLIENT"}`, omdp.ErrSlowConsumer, omdp.MayHaveExecuted),
	{name: "its id had ended, nobody knows how", want: omdp.ErrBrokerLost, outcome: omdp.MayHaveExecuted, ran: ranOther, fault: func(s *scene) error {
		b := s.rawBroker()
		s.call()
		m := b.next(s.t, "C", "2")
		b.send(m[0], "C", "3", m[4], `{"status":"DUPLICATE"}`)
		return s.end()
	}},
	{name: "all attempts lost", want: omdp.ErrWorkerLost, outcome: omdp.MayHaveExecuted, ran: ranOther, fault: func(s *scene) error {
		b := s.rawBroker()
		s.call(omdp.Idempotent())
		loses(s.t, b, 3)
		return s.end()
	}},
	{name: "lost, cancelled in the next attempt", want: omdp.ErrCanceled, outcome: omdp.MayHaveExecuted, ran: ranOther, fault: func(s *scene) error {
		b := s.rawBroker()
		cancel := s.ender()
		s.call(omdp.Idempotent())
		loses(s.t, b, 1)
		b.next(s.t, "C", "2")
		cancel()
		return s.end()
	}},
	{name: "lost, timeout in the next attempt", want: omdp.ErrTimeout, outcome: omdp.MayHaveExecuted, ran: ranOther, fault: func(s *scene) error {
		b := s.rawBroker()
		s.call(omdp.Idempotent(), omdp.WithTimeout(time.Second))
		loses(s.t, b, 1)
		return s.end()
	}},
	{name: "lost, closed in the next attempt", want: omdp.ErrClosed, outcome: omdp.MayHaveExecuted, ran: ranOther, fault: func(s *scene) error {
		b := s.rawBroker()
		s.call(omdp.Idempotent())
		loses(s.t, b, 1)
		b.next(s.t, "C", "2")
		s.leave()
		return s.end()
	}},
	{name: "worker gone after its handler ran, no attempt left", want: omdp.ErrWorkerLost, outcome: omdp.MayHaveExecuted, ran: ranBegun, fault: func(s *scene) error {
		s.serve("inproc", nil)
		w := s.work(s.endpoint, nil, s.stay)
		s.connect(&omdp.ClientConfig{MaxAttempts: 1})
		s.call(omdp.Idempotent())
		s.runs()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = w.Shutdown(ctx) // what it cuts off is what is looked at
		return s.end()
	}},
}

// afterLost is a call whose first attempt was lost at its worker, and whose
// second one is answered with body.
func afterLost(name, body string, want error, outcome omdp.Outcome) errorPath {
	return errorPath{name: name, want: want, outcome: outcome, ran: ranOther, fault: func(s *scene) error {
		b := s.rawBroker()
		s.call(omdp.Idempotent())
		loses(s.t, b, 1)
		m := b.next(s.t, "C", "2")
		b.send(m[0], "C", "3", m[4], body)
		return s.end()
	}}
}
