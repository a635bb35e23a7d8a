package omdp_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// cancelScene is a broker with one worker of one place, and a client whose
// request the worker holds.
type cancelScene struct {
	t      *testing.T
	b      *omdp.Broker
	w      *omdp.Worker
	c      *omdp.Client
	h      *held
	cancel context.CancelFunc // of the context of ask
	stream *omdp.Stream       // of ask, if it made one
}

// Every way in which a request may end before its handler does: the handler's
// context ends at once, with a cause that says which, and the worker is free
// for the next one. What is queued behind it ends the same way, and never runs.
func TestEveryCancel(t *testing.T) {
	t.Parallel()
	stream := func(s *cancelScene, ctx context.Context, data string) {
		s.stream = s.c.RequestStream(ctx, "held", data)
	}
	asCall := func(s *cancelScene, ctx context.Context, data string) { go s.c.Call(ctx, "held", data) }
	withCallbacks := func(s *cancelScene, ctx context.Context, data string) {
		if err := s.c.Request(ctx, "held", data, nil, func(omdp.Message, error) {}); err != nil {
			s.t.Error(err)
		}
	}
	raw := func(hello string) func(s *cancelScene, ctx context.Context, data string) {
		return func(s *cancelScene, ctx context.Context, data string) {
			p := dialRaw(s.t, s.b.Endpoint())
			p.say(hello)
			p.say("C|2|held|raw|" + `"` + data + `"|{"timeout":-1}`)
			context.AfterFunc(ctx, p.close)
		}
	}
	for _, way := range []struct {
		name string
		ask  func(s *cancelScene, ctx context.Context, data string)
		end  func(s *cancelScene)
		want error
		text string
		lost bool // the worker, with its broker or by itself
	}{
		{"ctx of a call", asCall, func(s *cancelScene) { s.cancel() }, omdp.ErrCanceled, "client canceled", false},
		{"ctx of callbacks", withCallbacks, func(s *cancelScene) { s.cancel() }, omdp.ErrCanceled, "client canceled", false},
		{"ctx of a stream", stream, func(s *cancelScene) { s.cancel() }, omdp.ErrCanceled, "client canceled", false},
		{"stream closed", stream, func(s *cancelScene) { s.stream.Close() }, omdp.ErrCanceled, "client canceled", false},
		{"range broken", stream, func(s *cancelScene) {
			for range s.stream.All() { // the first partial is there
				break
			}
		}, omdp.ErrCanceled, "client canceled", false},
		{"client of a call closed", asCall, func(s *cancelScene) { s.c.Close() }, omdp.ErrCanceled, "client canceled", false},
		{"client of callbacks closed", withCallbacks, func(s *cancelScene) { s.c.Close() }, omdp.ErrCanceled, "client canceled", false},
		{"client of a stream closed", stream, func(s *cancelScene) { s.c.Close() }, omdp.ErrCanceled, "client canceled", false},
		{"client process gone", raw(`C|8|{"v":1,"id":"raw","hb":5}`), func(s *cancelScene) { s.cancel() }, omdp.ErrCanceled, "client gone", false},
		{"its deadline", func(s *cancelScene, ctx context.Context, data string) {
			go s.c.Call(ctx, "held", data, omdp.WithTimeout(10*beat))
		}, func(*cancelScene) {}, omdp.ErrTimeout, "timed out", false},
		{"worker closed", asCall, func(s *cancelScene) { go s.w.Close() }, omdp.ErrClosed, "the worker stops", true},
		{"broker closed", asCall, func(s *cancelScene) { s.b.Close() }, omdp.ErrBrokerLost, "the connection ended", true},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			s := &cancelScene{t: t, h: newHeld(), b: startBroker(t, newEndpoint(t, "tcp"), nil)}
			s.w = addWorker(t, s.b, "held", nil, func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
				if err := res.Send("there"); err != nil {
					return err
				}
				return s.h.handle(ctx, req, res)
			})
			s.c = addClient(t, s.b, nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s.cancel = cancel
			way.ask(s, ctx, "first")
			if got := receive(t, "the handler", s.h.began); got != `first` {
				t.Fatalf("got %s", got)
			}
			way.end(s)
			cause := receive(t, "the end of the context", s.h.ended)
			if !errors.Is(cause, way.want) || !strings.Contains(cause.Error(), way.text) {
				t.Errorf("got cause %v, want %v with %q", cause, way.want, way.text)
			}
			if way.lost {
				return
			}
			// The worker's one place is free.
			close(s.h.free)
			served(t, addClient(t, s.b, nil), "held")
			if n := s.b.Stats().InProgress; n != 0 {
				t.Errorf("%d requests are in progress", n)
			}
		})
	}
}

// What is queued is dropped at the broker: its handler never begins.
func TestCancelQueued(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	h := newHeld()
	w := addWorker(t, b, "held", nil, h.handle)
	c, other := addClient(t, b, nil), addClient(t, b, nil)
	first := goCall(t, other, "held", "first")
	receive(t, "the first", h.began)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	go c.Call(ctx, "held", "by its context")
	s := c.RequestStream(within(t), "held", "by its stream")
	d := addClient(t, b, nil)
	go d.Call(within(t), "held", "by its client")
	eventually(t, "all are queued", func() bool { return b.Stats().Queued == 3 })
	cancel()
	s.Close()
	closed(t, "client", d)
	eventually(t, "none is queued", func() bool { return b.Stats().Queued == 0 })
	close(h.free)
	if r := receive(t, "the first", first); r.err != nil {
		t.Error(r)
	}
	served(t, other, "held")
	if n := w.Stats().Requests; n != 2 {
		t.Errorf("the worker was given %d requests, want 2", n)
	}
}

// Towards a broker that did not advertise a cancel is the end of heartbeats:
// "Client MAY send heartbeat for active request", and its worker stops what is
// not active any more. Another request's go on.
func TestCancelAtPlainBroker(t *testing.T) {
	t.Parallel()
	b := bindRaw(t, newEndpoint(t, "inproc"))
	c := startClient(t, b.endpoint, nil)
	client := b.next(t, "C", "8")[0]
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	var rids [2]string
	stays := c.RequestStream(within(t), "echo", "stays")
	defer stays.Close()
	rids[0] = b.next(t, "C", "2")[4]
	goes := c.RequestStream(ctx, "echo", "goes")
	defer goes.Close()
	rids[1] = b.next(t, "C", "2")[4]
	for _, rid := range rids {
		b.send(client, "C", "4", rid) // dispatched
	}
	for seen := [2]bool{}; seen != [2]bool{true, true}; {
		m := b.next(t, "C", "4")
		if i := slices.Index(rids[:], m[len(m)-1]); i >= 0 {
			seen[i] = true
		}
	}
	cancel()
	if _, err := goes.Read(make([]byte, 1)); !errors.Is(err, omdp.ErrCanceled) {
		t.Errorf("got %v, want ErrCanceled", err)
	}
	beats, late := 0, 0
	for beats < 4 {
		m := receive(t, "a heartbeat", b.in)
		switch {
		case m[2] == "10":
			t.Fatalf("got %q, which a Node broker does not know", m)
		case m[2] == "4" && m[len(m)-1] == rids[0]:
			beats++
		case m[2] == "4" && m[len(m)-1] == rids[1]:
			late++
		}
	}
	if late > 1 { // one may have been on its way
		t.Errorf("%d heartbeats for the cancelled request", late)
	}
}

// A worker by hand that holds a request that was cancelled gets CANCEL at once;
// one that did not advertise gets no more heartbeats for it.
func TestCancelAtRawWorkers(t *testing.T) {
	t.Parallel()
	for _, hello := range []string{`W|1|raw|{"v":1,"id":"life","hb":60000}`, "W|1|raw"} {
		b := startBroker(t, newEndpoint(t, "inproc"), nil)
		w := dialRaw(t, b.Endpoint())
		w.say(hello)
		adv := strings.Contains(hello, "{")
		if adv {
			w.next(t)
		}
		c := addClient(t, b, nil)
		ctx, cancel := context.WithCancel(within(t))
		defer cancel()
		go c.Call(ctx, "raw", 1)
		m := w.next(t)
		token, rid := m[2], m[3]
		cancel()
		if adv {
			w.after(t, "W|4|"+token+"|"+rid, "W|10|"+token+"|"+rid+"|client")
			continue
		}
		eventually(t, "the broker knows", func() bool { return b.Stats().Canceled == 1 })
		w.beaten(t) // what was on its way
		if more := w.beaten(t); len(more) > 0 {
			t.Errorf("after the cancel the worker got %q", more)
		}
	}
}
