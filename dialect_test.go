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
