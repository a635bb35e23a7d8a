package omdp_test

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/zmq-omdp/omdp"
)

// Paths on which nothing leaves the client.
var unsentPaths = []errorPath{
	{name: "not started", want: omdp.ErrNotStarted, outcome: omdp.NotSent, fault: func(s *scene) error {
		s.serve("inproc", nil)
		c, err := omdp.NewClient(s.endpoint, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		s.c = c
		defer s.leave()
		s.call()
		return s.end()
	}},
	{name: "closed", want: omdp.ErrClosed, outcome: omdp.NotSent, fault: func(s *scene) error {
		s.serve("inproc", nil)
		s.connect(nil)
		closed(s.t, "client", s.c)
		s.call()
		err := s.end()
		s.c = nil
		return err
	}},
	{name: "shutting down", want: omdp.ErrClosed, outcome: omdp.NotSent, fault: func(s *scene) error {
		s.serve("inproc", nil)
		s.connect(nil)
		s.occupied()
		c, ctx, done := s.c, within(s.t), make(chan error, 1)
		go func() { done <- c.Shutdown(ctx) }()
		eventually(s.t, "it drains", func() bool { return c.Stats().State == omdp.Draining })
		s.call()
		err := s.end()
		s.restore = append(s.restore, func() { receive(s.t, "the shutdown's end", done) })
		s.c = nil
		return err
	}},
	ownFault("no service name", nil, "service name", func(s *scene) { s.callWith("", walkData) }),
	ownFault("long service name", nil, "service name", func(s *scene) { s.callWith(strings.Repeat("x", 256), walkData) }),
	ownFault("data that has no JSON", nil, "encode data", func(s *scene) { s.callWith("walk", make(chan int)) }),
	ownFault("data too large", omdp.ErrTooLarge, "", func(s *scene) { s.callWith("walk", strings.Repeat("x", 64<<20)) }),
	ownFault("metadata too large", omdp.ErrTooLarge, "", func(s *scene) {
		s.call(omdp.WithMetadata(map[string]string{"k": strings.Repeat("x", 64<<10)}))
	}),
	ownFault("window out of range", nil, "WithWindow", func(s *scene) { s.call(omdp.WithWindow(1)) }),
	ownFault("context cancelled before", omdp.ErrCanceled, "", func(s *scene) {
		s.ender()()
		s.call()
	}),
	ownFault("context cancelled before, with a cause", io.ErrNoProgress, "", func(s *scene) {
		ctx, cancel := context.WithCancelCause(s.t.Context())
		cancel(io.ErrNoProgress)
		s.ctx = ctx
		s.call()
	}),
	ownFault("context's deadline passed before", omdp.ErrTimeout, "", func(s *scene) {
		ctx, cancel := context.WithTimeout(s.t.Context(), 0)
		s.t.Cleanup(cancel)
		s.ctx = ctx
		s.call()
	}),
	{name: "overloaded at the client", want: omdp.ErrOverloaded, outcome: omdp.NotSent, fault: func(s *scene) error {
		s.serve("inproc", nil)
		s.connect(&omdp.ClientConfig{MaxOutstanding: 1})
		s.occupied()
		s.call()
		return s.end()
	}},
	{name: "queue of the client full", want: omdp.ErrOverloaded, outcome: omdp.NotSent, fault: func(s *scene) error {
		s.endpoint = newEndpoint(s.t, "inproc")
		s.connect(&omdp.ClientConfig{SendQueue: 1})
		s.occupied()
		s.call()
		return s.end()
	}},
	whileWaiting("timeout while it waits for a connection", omdp.ErrTimeout, func(s *scene) {
		s.call(omdp.WithTimeout(beat))
	}),
	whileWaiting("deadline of the context while it waits for a connection", omdp.ErrTimeout, func(s *scene) {
		ctx, cancel := context.WithTimeout(s.t.Context(), beat)
		s.t.Cleanup(cancel)
		s.ctx = ctx
		s.call()
	}),
	whileWaiting("cancelled while it waits for a connection", omdp.ErrCanceled, func(s *scene) {
		cancel := s.ender()
		s.call()
		s.waits()
		cancel()
	}),
	whileWaiting("closed while it waits for a connection", omdp.ErrClosed, func(s *scene) {
		s.call()
		s.waits()
		s.leave()
	}),
	{name: "stream closed while it waits for a connection", ways: "s", want: omdp.ErrCanceled, outcome: omdp.NotSent, fault: func(s *scene) error {
		s.endpoint = newEndpoint(s.t, "inproc")
		s.connect(nil)
		s.call()
		s.waits()
		s.stream.Close()
		return s.end()
	}},
	// A broker that shuts down tells its clients: what they begin then waits for another one.
	{name: "timeout while the broker drains", want: omdp.ErrTimeout, outcome: omdp.NotSent, fault: func(s *scene) error {
		s.serve("inproc", nil)
		s.connect(nil)
		s.occupied()
		s.isQueued()
		b, ctx, done := s.b, within(s.t), make(chan error, 1)
		go func() { done <- b.Shutdown(ctx) }()
		eventually(s.t, "the client knows", func() bool { return s.c.Stats().State == omdp.Draining })
		s.call(omdp.WithTimeout(2 * beat))
		err := s.end()
		s.restore = append(s.restore, func() { receive(s.t, "the shutdown's end", done) })
		s.b = nil
		return err
	}},
}

// refusal is a call that its own arguments make fail.
func ownFault(name string, want error, text string, call func(s *scene)) errorPath {
	return errorPath{name: name, want: want, text: text, outcome: omdp.NotSent, fault: func(s *scene) error {
		s.serve("inproc", nil)
		s.work(s.endpoint, nil, s.stay)
		s.connect(nil)
		call(s)
		return s.end()
	}}
}

// waiting is a call that ends before there is a broker.
func whileWaiting(name string, want error, fault func(s *scene)) errorPath {
	return errorPath{name: name, want: want, outcome: omdp.NotSent, fault: func(s *scene) error {
		s.endpoint = newEndpoint(s.t, "inproc")
		s.connect(&omdp.ClientConfig{Timeout: time.Minute})
		fault(s)
		return s.end()
	}}
}
