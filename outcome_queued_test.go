package omdp_test

import (
	"context"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/zmq-omdp/omdp"
)

// Paths of what the broker refuses, or has queued.
var queuedPaths = []errorPath{
	atLimit("no worker, fail fast", omdp.ErrNoWorker, nil, func(s *scene) { s.call(omdp.FailFast()) }),
	atLimit("queue of the service full", omdp.ErrOverloaded, &omdp.Limits{ServiceQueue: 1}, func(s *scene) {
		s.fill("walk")
		s.call()
	}),
	atLimit("queue of all services full", omdp.ErrOverloaded, &omdp.Limits{TotalQueue: 1}, func(s *scene) {
		s.fill("other")
		s.call()
	}),
	atLimit("too many requests of one client", omdp.ErrOverloaded, &omdp.Limits{Outstanding: 1}, func(s *scene) {
		s.fill("other")
		s.call()
	}),
	atLimit("too many services", omdp.ErrOverloaded, &omdp.Limits{Services: 1}, func(s *scene) {
		s.fill("other")
		s.call()
	}),
	{name: "too many clients", want: omdp.ErrOverloaded, outcome: omdp.NotExecuted, fault: func(s *scene) error {
		s.serve("inproc", &omdp.BrokerConfig{Limits: omdp.Limits{Clients: 1}})
		s.connect(nil)
		first := s.c
		s.c = startClient(s.t, s.endpoint, nil) // HELLO gets no answer
		s.call()
		err := s.end()
		s.leave()
		s.c = first
		return err
	}},
	expiring("expired in the queue", omdp.ErrTimeout, omdp.NotExecuted, &omdp.BrokerConfig{MaxTimeout: beat}, func(s *scene) {}),
	whileQueued("cancelled while queued", omdp.ErrCanceled, omdp.MayHaveExecuted, func(s *scene, cancel context.CancelFunc) { cancel() }),
	whileQueued("closed while queued", omdp.ErrClosed, omdp.MayHaveExecuted, func(s *scene, _ context.CancelFunc) { s.leave() }),
	whileQueued("client cut off while queued", omdp.ErrClosed, omdp.MayHaveExecuted, func(s *scene, _ context.CancelFunc) {
		ctx, cancel := context.WithTimeoutCause(s.t.Context(), 0, io.ErrNoProgress)
		defer cancel()
		failed(s.t, s.c.Shutdown(ctx), io.ErrNoProgress)
		s.c = nil
	}),
	whileQueued("broker closed while queued", omdp.ErrBrokerLost, omdp.NotExecuted, func(s *scene, _ context.CancelFunc) {
		closed(s.t, "broker", s.b)
		s.b = nil
	}),
	whileQueued("broker cut off while queued", omdp.ErrBrokerLost, omdp.NotExecuted, func(s *scene, _ context.CancelFunc) {
		ctx, cancel := context.WithTimeoutCause(s.t.Context(), 0, io.ErrNoProgress)
		defer cancel()
		failed(s.t, s.b.Shutdown(ctx), io.ErrNoProgress)
		s.b = nil
	}),
	{name: "stream closed while queued", ways: "s", want: omdp.ErrCanceled, outcome: omdp.MayHaveExecuted, fault: func(s *scene) error {
		s.serve("inproc", nil)
		s.connect(nil)
		s.call()
		s.isQueued()
		s.stream.Close()
		return s.end()
	}},
	{name: "connection cut while queued", want: omdp.ErrBrokerLost, outcome: omdp.MayHaveExecuted, fault: func(s *scene) error {
		s.serve("tcp", nil)
		p := newBetween(s.t, s.endpoint)
		s.endpoint = p.endpoint
		s.connect(nil)
		s.call()
		s.isQueued()
		p.cut()
		err := s.end()
		// The broker sees that the client is gone when it has something for it, or
		// after its liveness: till then a worker that comes is given the request.
		s.cancelled()
		return err
	}},
	{name: "broker killed while queued", want: omdp.ErrBrokerLost, outcome: omdp.MayHaveExecuted, fault: func(s *scene) error {
		cmd, endpoint, err := startChild(s.t, "broker tcp://127.0.0.1:*")
		if err != nil {
			s.t.Fatal(err)
		}
		s.endpoint = endpoint
		s.connect(nil)
		ready(s.t, s.c)
		s.call()
		eventually(s.t, "it was sent", func() bool { v := s.c.Stats(); return v.Outstanding == 1 && v.Waiting == 0 && v.Queued == 0 })
		_, err = s.c.Call(within(s.t), "nobody", nil, omdp.FailFast()) // is behind it
		failed(s.t, err, omdp.ErrNoWorker, omdp.NotExecuted)
		signal(s.t, cmd, syscall.SIGKILL)
		return s.end()
	}},
	// A client that reads nothing: what it has queued ends, and nobody ran it.
	{name: "slow client, queued", want: omdp.ErrSlowConsumer, outcome: omdp.NotExecuted, fault: func(s *scene) error {
		return slowClient(s, func() { s.call(); s.isQueued() })
	}},
	// A frame over the broker's limit costs the connection: nobody told the client why.
	{name: "frame too large for the broker", want: omdp.ErrBrokerLost, outcome: omdp.MayHaveExecuted, fault: func(s *scene) error {
		s.serve("tcp", &omdp.BrokerConfig{Limits: omdp.Limits{MaxFrame: 16 << 10}})
		s.connect(nil)
		s.call(omdp.WithMetadata(map[string]string{"much": strings.Repeat("x", 32<<10)}))
		return s.end()
	}},
	{name: "timeout at a broker that says nothing", want: omdp.ErrTimeout, outcome: omdp.MayHaveExecuted, ran: ranOther, fault: func(s *scene) error {
		b := s.rawBroker()
		s.call(omdp.WithTimeout(2 * beat))
		b.next(s.t, "C", "2")
		return s.end()
	}},
}

// refused is a call that the broker does not take.
func atLimit(name string, want error, limits *omdp.Limits, call func(s *scene)) errorPath {
	return errorPath{name: name, want: want, outcome: omdp.NotExecuted, fault: func(s *scene) error {
		config := &omdp.BrokerConfig{}
		if limits != nil {
			config.Limits = *limits
		}
		s.serve("inproc", config)
		s.connect(nil)
		call(s)
		return s.end()
	}}
}

// fill queues one request of this client that is not the one under test.
func (s *scene) fill(service string) {
	s.t.Helper()
	first := s.c.RequestStream(s.t.Context(), service, "first")
	s.isQueued()
	s.restore = append(s.restore, func() { first.Close() })
}

// queued is a call that no worker has taken when something happens.
func whileQueued(name string, want error, outcome omdp.Outcome, fault func(s *scene, cancel context.CancelFunc)) errorPath {
	return errorPath{name: name, want: want, outcome: outcome, fault: func(s *scene) error {
		s.serve("inproc", nil)
		s.connect(nil)
		cancel := s.ender()
		s.call()
		s.isQueued()
		b := s.b
		fault(s, cancel)
		err := s.end()
		if s.b == b && outcome == omdp.MayHaveExecuted {
			s.cancelled()
		}
		return err
	}}
}

func expiring(name string, want error, outcome omdp.Outcome, config *omdp.BrokerConfig, fault func(s *scene)) errorPath {
	return errorPath{name: name, want: want, outcome: outcome, fault: func(s *scene) error {
		s.serve("inproc", config)
		s.connect(nil)
		s.call(omdp.WithTimeout(time.Minute))
		fault(s)
		return s.end()
	}}
}

// cancelled waits until the broker holds nothing of the client any more.
func (s *scene) cancelled() {
	s.t.Helper()
	eventually(s.t, "the broker dropped the request", func() bool { return s.b.Stats().Queued == 0 })
}

// slowClient holds back what the broker says until it gives the client up, for
// partials of another call to a worker that heeds no credit.
func slowClient(s *scene, call func()) error {
	s.serve("tcp", &omdp.BrokerConfig{Limits: omdp.Limits{Outbox: 100, OutboxBytes: 100 << 10}})
	flood := dialRaw(s.t, s.endpoint)
	flood.say("W|1|flood")
	p := newBetween(s.t, s.endpoint)
	s.endpoint = p.endpoint
	s.connect(&omdp.ClientConfig{Window: 4 << 10})
	call()
	rest := goCall(s.t, s.c, "flood", nil)
	m := flood.next(s.t)
	p.hold(fromDialled)
	part := `{"status":200,"msg":"` + strings.Repeat("x", 16<<10) + `"}`
	eventually(s.t, "the client is too slow", func() bool {
		if flood.conn.Queued() < 1<<20 {
			flood.send("W", "6", m[2], m[3], part)
		}
		return s.b.Stats().SlowClients == 1
	})
	p.release()
	failed(s.t, receive(s.t, "the end of what was too much", rest).err, omdp.ErrSlowConsumer, omdp.MayHaveExecuted)
	flood.close()
	return s.end()
}
