package omdp_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// Our own client and worker in each dialect, through our own broker.

var foreignDialects = []omdp.Dialect{omdp.OMDPFinal, omdp.PIGATO, omdp.MDP02, omdp.MDP01}

// opaque: bodies are bytes there, and requests have no ids.
func opaque(d omdp.Dialect) bool { return d == omdp.MDP01 || d == omdp.MDP02 }

// overDialects runs a test in each foreign dialect.
func overDialects(t *testing.T, f func(t *testing.T, d omdp.Dialect)) {
	for _, d := range foreignDialects {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			f(t, d)
		})
	}
}

// trio is a broker, a worker and a client of one dialect.
type trio struct {
	b *omdp.Broker
	w *omdp.Worker
	c *omdp.Client
}

func startTrio(t *testing.T, d omdp.Dialect, transport string, wc *omdp.WorkerConfig, cc *omdp.ClientConfig, h omdp.Handler) *trio {
	t.Helper()
	x := &trio{b: startBroker(t, newEndpoint(t, transport), &omdp.BrokerConfig{Dialect: d})}
	if wc == nil {
		wc = &omdp.WorkerConfig{}
	}
	if cc == nil {
		cc = &omdp.ClientConfig{}
	}
	wc.Dialect, cc.Dialect = d, d
	x.w = startWorker(t, x.b.Endpoint(), "echo", wc, h)
	ready(t, x.w)
	x.c = startClient(t, x.b.Endpoint(), cc)
	return x
}

func TestDialectEcho(t *testing.T) {
	t.Parallel()
	overDialects(t, func(t *testing.T, d omdp.Dialect) {
		for _, transport := range transports {
			x := startTrio(t, d, transport, nil, nil, echo)
			for _, v := range []any{nil, "", "foo", "grüße\n\"", 1.5, []any{"a", 1.0}, map[string]any{"a": []any{true}}, strings.Repeat("x", 100_000)} {
				m, err := x.c.Call(within(t), "echo", v)
				if err != nil {
					t.Fatalf("%.40v: %v", v, err)
				}
				var got any
				if err := m.Decode(&got); err != nil || fmt.Sprint(got) != fmt.Sprint(v) {
					t.Errorf("got %.80v, %v, want %.80v", got, err, v)
				}
			}
			for _, b := range []string{"", "foo", "\xff\x00\xfe", "{not JSON", strings.Repeat("\x80", 100_000)} {
				m, err := x.c.Call(within(t), "echo", []byte(b))
				if err != nil || m.String() != b {
					t.Errorf("got %.40q, %v, want %.40q", m.String(), err, b)
				}
			}
			if s := x.c.Stats(); s.Malformed != 0 || s.Late != 0 || s.State != omdp.Ready {
				t.Errorf("client: %+v", s)
			}
			if s := x.w.Stats(); s.Malformed != 0 || s.Dropped != 0 {
				t.Errorf("worker: %+v", s)
			}
		}
	})
}

func TestDialectErrors(t *testing.T) {
	t.Parallel()
	overDialects(t, func(t *testing.T, d omdp.Dialect) {
		x := startTrio(t, d, "inproc", nil, nil, func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
			switch req.Message().String() {
			case "text":
				return errors.New("SOMETHING_FAILED")
			case "code":
				return &omdp.Error{Code: "418", Message: "TEAPOT"}
			case "word":
				return &omdp.Error{Code: "NOT_MINE", Data: []byte(`{"a":[1]}`)}
			}
			panic("no")
		})
		for in, want := range map[string]omdp.Error{
			"text":  {Code: "500", Message: "SOMETHING_FAILED", Data: []byte(`"SOMETHING_FAILED"`)},
			"code":  {Code: "418", Message: "TEAPOT", Data: []byte(`"TEAPOT"`)},
			"word":  {Code: "NOT_MINE", Message: `{"a":[1]}`, Data: []byte(`{"a":[1]}`)},
			"panic": {Code: "500", Message: "internal error", Data: []byte(`"internal error"`)},
		} {
			_, err := x.c.Call(within(t), "echo", in)
			e, ok := errors.AsType[*omdp.Error](err)
			if !ok || e.Code != want.Code || e.Message != want.Message || string(e.Data) != string(want.Data) || e.Service != "echo" {
				t.Errorf("%s: got %v, want %v", in, err, &want)
			}
		}
	})
}

func TestDialectLookup(t *testing.T) {
	t.Parallel()
	for _, d := range append([]omdp.Dialect{omdp.OMDP}, foreignDialects...) {
		t.Run(d.String(), func(t *testing.T) {
			x := startTrio(t, d, "inproc", nil, nil, echo)
			for name, want := range map[string]bool{"echo": true, "nobody": false} {
				if got, err := x.c.Lookup(within(t), name); err != nil || got != want {
					t.Errorf("%s: got %v, %v, want %v", name, got, err, want)
				}
			}
		})
	}
}

// Callers of a dialect without request ids share a few connections, and each
// gets its own answer.
func TestDialectManyCallers(t *testing.T) {
	t.Parallel()
	overDialects(t, func(t *testing.T, d omdp.Dialect) {
		const callers, each, connections = 50, 40, 4
		x := startTrio(t, d, "inproc", &omdp.WorkerConfig{Concurrency: 8}, &omdp.ClientConfig{MaxConnections: connections}, echo)
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				for n := range each {
					want := fmt.Sprint(i, ".", n)
					if m, err := x.c.Call(t.Context(), "echo", want); err != nil || m.String() != want {
						t.Errorf("got %q, %v, want %q", m.String(), err, want)
						return
					}
				}
			})
		}
		wg.Wait()
		most := uint64(1)
		if opaque(d) {
			most = connections
		}
		if s := x.c.Stats(); s.Connections > most || s.Late != 0 || s.Succeeded != callers*each {
			t.Errorf("got %+v, want at most %d connections", s, most)
		}
	})
}

// Partials arrive one by one where the dialect has them, else in front of the
// final, and what Write wrote is the same bytes.
func TestDialectPartials(t *testing.T) {
	t.Parallel()
	overDialects(t, func(t *testing.T, d omdp.Dialect) {
		x := startTrio(t, d, "tcp", nil, nil, func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
			switch req.Message().String() {
			case "values":
				for i := range 3 {
					if err := res.Send(i); err != nil {
						return err
					}
				}
				return res.End("end")
			case "bytes":
				fmt.Fprint(res, "a\xff")
				fmt.Fprint(res, "b\x00")
				return res.End(nil)
			case "both":
				fmt.Fprint(res, "ab")
				fmt.Fprint(res, "cd")
				res.Send([]byte("ef"))
				fmt.Fprint(res, "gh")
				return res.End([]byte("ij"))
			case "error":
				res.Send("part")
				return errors.New("no")
			}
			return nil
		})
		read := func(data string) (all []string, err error) {
			for m, e := range x.c.RequestStream(within(t), "echo", data).All() {
				if err = e; e == nil {
					all = append(all, m.String())
				}
			}
			return all, err
		}
		for data, want := range map[string][2]string{
			"values": {`["0" "1" "2" "end"]`, `["[0,1,2,\"end\"]"]`},
			"bytes":  {`["a\xff" "b\x00"]`, `["a\xffb\x00"]`},
			"both":   {`["ab" "cd" "ef" "gh" "ij"]`, `["[\"abcd\",\"ef\",\"gh\",\"ij\"]"]`},
			"none":   {`[]`, `[]`},
		} {
			got, err := read(data)
			w := want[0]
			if d == omdp.MDP01 {
				w = want[1]
			}
			if err != nil || fmt.Sprintf("%q", got) != w {
				t.Errorf("%s: got %q, %v, want %s", data, got, err, w)
			}
		}
		got, err := read("error")
		if e, ok := errors.AsType[*omdp.Error](err); !ok || e.Message != "no" || (len(got) == 1) != (d != omdp.MDP01) {
			t.Errorf("got %q, %v", got, err)
		}
		if s := x.c.Stats(); s.Malformed != 0 || s.Late != 0 || s.Connections != 1 {
			t.Errorf("client: %+v", s)
		}
	})
}

// Where there are no partials, what is kept for the final is bounded.
func TestDialectKept(t *testing.T) {
	t.Parallel()
	errs := make(chan error, 100)
	x := startTrio(t, omdp.MDP01, "inproc", &omdp.WorkerConfig{MaxBody: 2048}, nil, func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
		switch req.Message().String() {
		case "many":
			for i := range 12 {
				if err := res.Send(i); err != nil {
					errs <- err
				}
			}
		case "large":
			for range 3 {
				if _, err := res.Write(make([]byte, 1000)); err != nil {
					errs <- err
				}
			}
		}
		return res.End(nil)
	})
	m, err := x.c.Call(within(t), "echo", "many")
	if want := "[0,1,2,3,4,5,6,7,8,9,10]"; err != nil || m.String() != want {
		t.Errorf("got %s, %v, want %s", m, err, want)
	}
	m, err = x.c.Call(within(t), "echo", "large")
	if err != nil || m.String() != strings.Repeat("\x00", 2000) {
		t.Errorf("got %d bytes, %v, want 2000", m.Len(), err)
	}
	for range 2 {
		if err := receive(t, "an error", errs); !errors.Is(err, omdp.ErrTooLarge) {
			t.Errorf("got %v, want %v", err, omdp.ErrTooLarge)
		}
	}
	if len(errs) > 0 {
		t.Errorf("%d errors more", len(errs))
	}
}

// A cancelled call's late answer goes to nobody: the next call has its own.
func TestDialectCancel(t *testing.T) {
	t.Parallel()
	overDialects(t, func(t *testing.T, d omdp.Dialect) {
		for _, transport := range transports {
			began, free := make(chan struct{}, 100), make(chan struct{})
			x := startTrio(t, d, transport, &omdp.WorkerConfig{Concurrency: 4}, &omdp.ClientConfig{MaxConnections: 2}, func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
				if req.Message().String() == "held" {
					began <- struct{}{}
					<-free // it pays no heed to ctx
				}
				return res.End(req.Message())
			})
			addWorker(t, x.b, "echo", &omdp.WorkerConfig{Dialect: d, Concurrency: 4}, echo)
			for i := range 4 {
				ctx, cancel := context.WithCancel(t.Context())
				end := make(chan error, 1)
				go func() {
					_, err := x.c.Call(ctx, "echo", "held")
					end <- err
				}()
				select {
				case <-began:
					cancel()
					if err := receive(t, "the call's end", end); !errors.Is(err, omdp.ErrCanceled) || omdp.OutcomeOf(err) != omdp.MayHaveExecuted {
						t.Errorf("got %v (%v)", err, omdp.OutcomeOf(err))
					}
				case err := <-end: // the other worker had it
					cancel()
					if err != nil {
						t.Error(err)
					}
				}
				if i == 3 {
					close(free)
				}
			}
			for i := range 20 {
				want := fmt.Sprint("own ", i)
				if m, err := x.c.Call(within(t), "echo", want); err != nil || m.String() != want {
					t.Fatalf("got %q, %v, want %q", m, err, want)
				}
			}
		}
	})
}

// A worker that goes away in order, and one that is cut off.
func TestDialectWorkerLost(t *testing.T) {
	t.Parallel()
	overDialects(t, func(t *testing.T, d omdp.Dialect) {
		h := newHeld()
		x := startTrio(t, d, "tcp", nil, nil, h.handle)
		for _, idempotent := range []bool{false, true} {
			var opts []omdp.CallOption
			if idempotent {
				opts = append(opts, omdp.Idempotent())
			}
			type end struct {
				m   omdp.Message
				err error
			}
			done := make(chan end, 1)
			go func() {
				m, err := x.c.Call(within(t), "echo", "x", opts...)
				done <- end{m, err}
			}()
			receive(t, "the request", h.began)
			if err := x.w.Close(); err != nil {
				t.Error(err)
			}
			if idempotent {
				addWorker(t, x.b, "echo", &omdp.WorkerConfig{Dialect: d}, echo)
			}
			r := receive(t, "the call's end", done)
			if idempotent && (r.err != nil || r.m.String() != "x") || !idempotent && (r.err == nil || omdp.OutcomeOf(r.err) == omdp.NotSent) {
				t.Errorf("idempotent %v: got %q, %v (%v)", idempotent, r.m, r.err, omdp.OutcomeOf(r.err))
			}
			if !idempotent {
				x.w = addWorker(t, x.b, "echo", &omdp.WorkerConfig{Dialect: d}, h.handle)
			}
		}
	})
}

// Close ends what is in progress, and what waits.
func TestDialectClose(t *testing.T) {
	t.Parallel()
	overDialects(t, func(t *testing.T, d omdp.Dialect) {
		h := newHeld()
		x := startTrio(t, d, "tcp", &omdp.WorkerConfig{Concurrency: 8}, &omdp.ClientConfig{MaxConnections: 3}, h.handle)
		ends := make(chan error, 10)
		for i := range 10 {
			if err := x.c.Request(t.Context(), "echo", i, nil, func(_ omdp.Message, err error) { ends <- err }); err != nil {
				t.Fatal(err)
			}
		}
		receive(t, "a request", h.began)
		if err := x.c.Close(); err != nil {
			t.Error(err)
		}
		for range 10 {
			if err := receive(t, "an end", ends); !errors.Is(err, omdp.ErrClosed) {
				t.Errorf("got %v", err)
			}
		}
		close(h.free)
	})
}

// The broker restarts: client and worker come back to it.
func TestDialectRestart(t *testing.T) {
	t.Parallel()
	overDialects(t, func(t *testing.T, d omdp.Dialect) {
		for _, transport := range transports {
			endpoint := knownEndpoint(t, transport)
			b := startBroker(t, endpoint, &omdp.BrokerConfig{Dialect: d})
			startWorker(t, endpoint, "echo", &omdp.WorkerConfig{Dialect: d}, echo)
			c := startClient(t, endpoint, &omdp.ClientConfig{Dialect: d})
			for i := range 3 {
				if m, err := c.Call(within(t), "echo", i, omdp.Idempotent()); err != nil || m.String() != fmt.Sprint(i) {
					t.Fatalf("got %q, %v", m, err)
				}
				if err := b.Close(); err != nil {
					t.Error(err)
				}
				b = restartBroker(t, endpoint, &omdp.BrokerConfig{Dialect: d})
			}
			if s := c.Stats(); s.Failed != 0 || s.Late != 0 || s.Malformed != 0 {
				t.Errorf("%+v", s)
			}
		}
	})
}

// What a request says to its handler.
func TestDialectRequest(t *testing.T) {
	t.Parallel()
	overDialects(t, func(t *testing.T, d omdp.Dialect) {
		type seen struct {
			id, service, trace string
			deadline           bool
		}
		all := make(chan seen, 10)
		x := startTrio(t, d, "inproc", nil, nil, func(ctx context.Context, req *omdp.Request, res *omdp.Response) error {
			_, ok := req.Deadline()
			all <- seen{req.ID(), req.Service(), req.Metadata()["trace"], ok}
			if err := res.Heartbeat(); err != nil {
				return err
			}
			return nil
		})
		var opts []omdp.CallOption
		if d == omdp.PIGATO {
			opts = append(opts, omdp.WithMetadata(map[string]string{"trace": "x"}))
		}
		ids := map[string]bool{}
		for range 3 {
			if _, err := x.c.Call(within(t), "echo", 1, opts...); err != nil {
				t.Fatal(err)
			}
			s := receive(t, "a request", all)
			if ids[s.id] || s.id == "" || s.service != "echo" || s.deadline != (d == omdp.PIGATO) || s.trace == "x" != (d == omdp.PIGATO) {
				t.Errorf("got %+v", s)
			}
			ids[s.id] = true
		}
	})
}

// PIGATO's broker is told how many requests a worker takes, also when that
// changes; those of other dialects give one at a time.
func TestDialectConcurrency(t *testing.T) {
	t.Parallel()
	overDialects(t, func(t *testing.T, d omdp.Dialect) {
		h := newHeld()
		x := startTrio(t, d, "inproc", &omdp.WorkerConfig{Concurrency: 2}, nil, h.handle)
		for i := range 5 {
			if err := x.c.Request(t.Context(), "echo", i, nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		active := func(n int) func() bool {
			return func() bool { return x.w.Stats().Active == n && len(h.began) == n }
		}
		several := d == omdp.PIGATO
		if several {
			eventually(t, "two at a time", active(2))
		} else {
			eventually(t, "one at a time", active(1))
		}
		if err := x.w.SetConcurrency(4); err != nil {
			t.Fatal(err)
		}
		if several {
			eventually(t, "four at a time", active(4))
		}
		close(h.free)
		eventually(t, "all", func() bool { return x.w.Stats().Succeeded == 5 })
		if s := x.w.Stats(); s.Dropped != 0 || s.Malformed != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Shutdown of a worker loses nothing that it was given.
func TestDialectShutdown(t *testing.T) {
	t.Parallel()
	overDialects(t, func(t *testing.T, d omdp.Dialect) {
		h := newHeld()
		x := startTrio(t, d, "tcp", nil, nil, h.handle)
		end := make(chan error, 1)
		if err := x.c.Request(t.Context(), "echo", 1, nil, func(_ omdp.Message, err error) { end <- err }); err != nil {
			t.Fatal(err)
		}
		receive(t, "the request", h.began)
		down := make(chan error, 1)
		go func() { down <- x.w.Shutdown(within(t)) }()
		eventually(t, "that it leaves", func() bool { return x.w.Stats().State == omdp.Draining })
		close(h.free)
		if err := receive(t, "the end of Shutdown", down); err != nil {
			t.Error(err)
		}
		if err := receive(t, "the call's end", end); err != nil {
			t.Error(err)
		}
	})
}

// limitConnections: one more request than there may be connections waits.
func limitConnections(t *testing.T) {
	h := newHeld()
	x := startTrio(t, omdp.MDP02, "inproc", nil, &omdp.ClientConfig{MaxConnections: 2}, h.handle)
	for range 2 {
		addWorker(t, x.b, "echo", &omdp.WorkerConfig{Dialect: omdp.MDP02}, h.handle)
	}
	ends := make(chan error, 3)
	for i := range 3 {
		if err := x.c.Request(t.Context(), "echo", i, nil, func(_ omdp.Message, err error) { ends <- err }); err != nil {
			t.Fatal(err)
		}
	}
	receive(t, "a request", h.began)
	receive(t, "another", h.began)
	if s := x.c.Stats(); s.Connections != 2 || s.Waiting != 1 || len(h.began) > 0 {
		t.Errorf("got %+v, want 2 connections, and a request that waits", s)
	}
	close(h.free)
	for range 3 {
		if err := receive(t, "an end", ends); err != nil {
			t.Error(err)
		}
	}
}
