package omdp_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// limitTests has a test for each row of the README's table of limits, by the
// row's first cell. Each hits the limit from outside, over sockets, sees what
// the row says, and that the others go on.
var limitTests = map[string]func(t *testing.T){
	"data of one request, or one partial or final":               limitData,
	"requests in pieces that a worker joins at a time":           limitTotalBody,
	"an upload ahead of its handler":                             limitUpload,
	"an upload that does not go on":                              limitUploadTimeout,
	"metadata of one request":                                    limitMetadata,
	"one frame at the broker":                                    limitFrame,
	"no worker for the service":                                  limitNoWorker,
	"frames in a message; service name; request id":              limitNames,
	"timeout of a request":                                       limitTimeout,
	"what a client may ask for as timeout":                       limitMaxTimeout,
	"requests queued at a service":                               limitServiceQueue,
	"requests queued in all":                                     limitTotalQueue,
	"requests of one client":                                     limitOutstanding,
	"services; workers; clients":                                 limitPeers,
	"requests of a worker at a time":                             limitConcurrency,
	"messages that wait for a peer that does not read":           limitOutbox,
	"partials ahead of a call's reader":                          limitWindow,
	"the same, grown where it is what holds up a stream":         limitMaxWindow,
	"a handler that goes on after its `ctx` ended":               limitStuck,
	"the same from a worker that is not this library":            limitBuffer,
	"connections of a client to a broker of MDP":                 limitConnections,
	"requests that wait for a connection, or behind a slow one":  limitSendQueue,
	"malformed messages of a peer":                               limitMalformed,
	"handshake; connections to accept":                           limitHandshake,
	"heartbeats; missed before a peer is lost":                   limitHeartbeats,
	"attempts of a call":                                         limitAttempts,
	"attempts besides the first, all calls of a client together": limitRetries,
	"ids of ended requests that a broker remembers":              limitFinished,
	"shutdown": limitShutdown,
}

func TestLimit(t *testing.T) {
	t.Parallel()
	rows := limitRows(t)
	for _, row := range rows {
		test := limitTests[row]
		if test == nil {
			t.Errorf("README.md has a limit %q, and limitTests has no test of it", row)
			continue
		}
		t.Run(row, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
	for _, row := range slices.Sorted(maps.Keys(limitTests)) {
		if !slices.Contains(rows, row) {
			t.Errorf("limitTests has %q, and README.md has no such limit", row)
		}
	}
}

// limitRows gives the first cell of each row of the README's table of limits.
func limitRows(t *testing.T) (rows []string) {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(readme), "\n## Limits\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, m := range regexp.MustCompile(`(?m)^\| (.*?) \|`).FindAllStringSubmatch(section, -1) {
		rows = append(rows, m[1])
	}
	if len(rows) < 10 || rows[0] != "limit" {
		t.Fatalf("README.md has no table of limits: got rows %q", rows)
	}
	return rows[1:]
}

// part runs one case of a row beside the others.
func part(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		f(t)
	})
}

// refusedBy is a call that somebody's limit does not let through.
func refusedBy(t *testing.T, c *omdp.Client, service string, data any, outcome omdp.Outcome, opts ...omdp.CallOption) {
	t.Helper()
	_, err := c.Call(within(t), service, data, opts...)
	failed(t, err, omdp.ErrOverloaded, outcome)
}

func limitData(t *testing.T) {
	large := strings.Repeat("x", 2000)
	part(t, "request", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), nil)
		addWorker(t, b, "echo", nil, echo)
		for limit, c := range map[int]*omdp.Client{64 << 20: addClient(t, b, nil), 1 << 10: addClient(t, b, &omdp.ClientConfig{MaxBody: 1 << 10})} {
			_, err := c.Call(within(t), "echo", strings.Repeat("x", limit-1)) // and two quotes
			failed(t, err, omdp.ErrTooLarge, omdp.NotSent)
			served(t, c, "echo")
		}
		if s := b.Stats(); s.Accepted != 2 {
			t.Errorf("the broker saw %d requests, want the honest 2", s.Accepted)
		}
	})
	part(t, "reply", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "inproc"), nil)
		ends := make(chan error, 2)
		addWorker(t, b, "large", &omdp.WorkerConfig{MaxBody: 1 << 10}, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
			ends <- res.Send(large)
			ends <- res.End(large)
			return nil
		})
		_, err := addClient(t, b, nil).Call(within(t), "large", "x")
		e, ok := errors.AsType[*omdp.Error](err)
		if !ok || e.Code != "500" || !strings.Contains(e.Message, "too large") {
			t.Errorf("got %v, want an error of the handler's side that says too large", err)
		}
		for range 2 {
			failed(t, receive(t, "what the handler got", ends), omdp.ErrTooLarge)
		}
	})
	// What the other side does not take is not sent to it.
	part(t, "too large for its receiver", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "tcp"), nil)
		addWorker(t, b, "make", nil, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
			return res.End(strings.Repeat("x", 128<<10))
		})
		addWorker(t, b, "echo", nil, echo)
		w := addWorker(t, b, "small", &omdp.WorkerConfig{MaxBody: 1 << 10}, echo) // its socket takes what metadata may have
		c := addClient(t, b, &omdp.ClientConfig{MaxBody: 64 << 10})
		_, err := c.Call(within(t), "make", nil)
		if e, ok := errors.AsType[*omdp.Error](err); !ok || !strings.Contains(e.Message, "too large") {
			t.Errorf("got %v, want an error of the handler's side that says too large", err)
		}
		served(t, c, "echo")
		large := addClient(t, b, nil)
		_, err = large.Call(within(t), "small", strings.Repeat("x", 128<<10))
		failed(t, err, omdp.ErrTooLarge, omdp.NotExecuted)
		served(t, large, "small")
		if n := w.Stats().Connections; n != 1 {
			t.Errorf("the worker was connected %d times, want once", n)
		}
	})
}

func limitMetadata(t *testing.T) {
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	addWorker(t, b, "size", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		return res.End(len(req.Metadata()["k"]))
	})
	c := addClient(t, b, nil)
	const most = 64<<10 - len(`{"k":""}`)
	if got := call(t, c, "size", nil, omdp.WithMetadata(map[string]string{"k": strings.Repeat("x", most)})); got != "65528" {
		t.Errorf("the handler got %s bytes, want %d", got, most)
	}
	_, err := c.Call(within(t), "size", nil, omdp.WithMetadata(map[string]string{"k": strings.Repeat("x", most+1)}))
	failed(t, err, omdp.ErrTooLarge, omdp.NotSent)
	if s := b.Stats(); s.Accepted != 1 {
		t.Errorf("the broker saw %d requests, want 1", s.Accepted)
	}
}

func limitFrame(t *testing.T) {
	// announce sends the head of a frame of n bytes, and reports whether that cost the connection.
	announce := func(t *testing.T, b *omdp.Broker, n uint64) bool {
		p := dialWire(t, b.Endpoint(), "")
		if err := p.send("C", "4", "fence"); err != nil {
			t.Fatal(err)
		}
		if m, err := p.next(); err != nil || m[2] != "fence" {
			t.Fatalf("got %q, %v; want the answer to a beat", m, err)
		}
		p.Write(binary.BigEndian.AppendUint64([]byte{2}, n))
		p.SetReadDeadline(time.Now().Add(10 * beat))
		_, err := p.next()
		return !errors.Is(err, os.ErrDeadlineExceeded)
	}
	for name, c := range map[string]struct{ limit, want int64 }{"default": {0, 8 << 20}, "own": {64 << 10, 64 << 10}, "least": {16 << 10, 16 << 10}} {
		part(t, name, func(t *testing.T) {
			b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Limits: omdp.Limits{MaxFrame: c.limit}})
			addWorker(t, b, "echo", nil, echo)
			other := addClient(t, b, nil)
			if announce(t, b, uint64(c.want)) {
				t.Errorf("a frame of %d bytes cost the connection", c.want)
			}
			if !announce(t, b, uint64(c.want)+1) {
				t.Errorf("a frame of %d bytes did not cost the connection", c.want+1)
			}
			served(t, other, "echo")
		})
	}
	part(t, "of a client", func(t *testing.T) {
		b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Limits: omdp.Limits{MaxFrame: 32 << 10}})
		addWorker(t, b, "echo", nil, echo)
		c, large := addClient(t, b, nil), addClient(t, b, nil)
		_, err := large.Call(within(t), "echo", "x", omdp.WithMetadata(map[string]string{"much": strings.Repeat("x", 50_000)}))
		failed(t, err, omdp.ErrBrokerLost, omdp.MayHaveExecuted)
		served(t, c, "echo")
		served(t, large, "echo") // on a fresh connection
	})
	if _, err := omdp.NewBroker("inproc://x", &omdp.BrokerConfig{Limits: omdp.Limits{MaxFrame: 16<<10 - 1}}); err == nil || !strings.Contains(err.Error(), "MaxFrame") {
		t.Errorf("a limit under 16 KiB: got %v, want an error that names MaxFrame", err)
	}
}

func limitNoWorker(t *testing.T) {
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	c := addClient(t, b, nil)
	_, err := c.Call(within(t), "echo", "x", omdp.FailFast())
	failed(t, err, omdp.ErrNoWorker, omdp.NotExecuted)
	waits := goCall(t, c, "echo", "x")
	eventually(t, "it waits", func() bool { return b.Stats().Services["echo"].Queued == 1 })
	_, err = c.Call(within(t), "echo", "x", omdp.FailFast()) // the service is there, and has no worker
	failed(t, err, omdp.ErrNoWorker, omdp.NotExecuted)
	h := newHeld()
	w := addWorker(t, b, "echo", nil, h.handle)
	receive(t, "the one that waited", h.began)
	busy := goCall(t, c, "echo", "y", omdp.FailFast()) // a busy worker is one
	eventually(t, "it is queued", func() bool { return b.Stats().Queued == 1 })
	close(h.free)
	for want, r := range map[string]<-chan result{"x": waits, "y": busy} {
		if r := receive(t, "an answer", r); r != (result{want, nil}) {
			t.Errorf("got %v, want %s", r, want)
		}
	}
	closed(t, "worker", w)
	eventually(t, "it has left", func() bool { return b.Stats().Workers == 0 })
	_, err = c.Call(within(t), "echo", "x", omdp.FailFast())
	failed(t, err, omdp.ErrNoWorker, omdp.NotExecuted)
	if s := b.Stats(); s.Refused != 3 || s.Overloaded != 0 {
		t.Errorf("got %d refused, %d overloaded; want 3, 0", s.Refused, s.Overloaded)
	}
}

func limitNames(t *testing.T) {
	long := strings.Repeat("s", 256)
	b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: omdp.Limits{Malformed: 1000}})
	addWorker(t, b, long[:255], nil, echo)
	addWorker(t, b, "echo", nil, echo)
	c := addClient(t, b, nil)
	served(t, c, long[:255])
	_, err := c.Call(within(t), long, "x")
	if err == nil || omdp.OutcomeOf(err) != omdp.NotSent {
		t.Errorf("a service of 256 bytes: got %v, want an error, not sent", err)
	}
	if _, err := omdp.NewWorker(b.Endpoint(), long, nil); err == nil {
		t.Error("a worker of a service of 256 bytes: got no error")
	}
	p, w := dialRaw(t, b.Endpoint()), dialRaw(t, b.Endpoint())
	rid := strings.Repeat("r", 65)
	p.send("C", "2", long[:255], rid[:64], `"x"`, "{}")
	p.want(t, "C|4|"+rid[:64])
	p.after(t, "C|4|"+rid[:64], "C|3|"+rid[:64]+`|{"status":200,"msg":"x"}`)
	for i, m := range [][]string{
		{"C", "2", long, "1", `"x"`, "{}"}, {"C", "2", "", "1", `"x"`, "{}"}, {"C", "2", "echo", rid, `"x"`, "{}"}, {"C", "2", "echo", "", `"x"`, "{}"},
		append(slices.Repeat([]string{"x"}, 16), "C"), append([]string{"C", "4"}, slices.Repeat([]string{"1"}, 15)...), slices.Repeat([]string{"x"}, 10_000),
		{string(envelope(append([]string{"C", "4"}, slices.Repeat([]string{"1"}, 15)...)...))},
	} {
		p.send(m...)
		p.quiet(t)
		if s := b.Stats(); s.Malformed != uint64(i+1) {
			t.Fatalf("message %d, of %d frames: got %d malformed, want %d", i, len(m), s.Malformed, i+1)
		}
	}
	w.send("W", "1", long)
	w.want(t, "W|5")
	served(t, c, "echo")
}

func limitTimeout(t *testing.T) {
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	left := make(chan time.Duration, 1)
	addWorker(t, b, "left", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		d := time.Duration(-1)
		if end, ok := req.Deadline(); ok {
			d = time.Until(end)
		}
		left <- d
		return res.End(nil)
	})
	c, short, none := addClient(t, b, nil), addClient(t, b, &omdp.ClientConfig{Timeout: time.Hour}), addClient(t, b, &omdp.ClientConfig{Timeout: -1})
	by := func(d time.Duration) *omdp.Client {
		switch d {
		case time.Minute:
			return c
		case time.Hour:
			return short
		}
		return none
	}
	for _, want := range []time.Duration{time.Minute, time.Hour, -1} { // the default, the client's own, none
		call(t, by(want), "left", nil)
		// The context of call() ends after patience, which is sooner than the others.
		if got, want := receive(t, "what the handler sees", left), patience; got > want || got < want/2 {
			t.Errorf("got %v left, want at most %v", got, want)
		}
		if _, err := by(want).Call(t.Context(), "left", nil); err != nil {
			t.Error(err)
		}
		if got := receive(t, "what the handler sees", left); want < 0 && got != want || want > 0 && (got > want || got < want/2) {
			t.Errorf("got %v left, want at most %v", got, want)
		}
	}
	if _, err := c.Call(t.Context(), "left", nil, omdp.WithTimeout(-1)); err != nil {
		t.Error(err)
	}
	if got := receive(t, "what the handler sees", left); got != -1 {
		t.Errorf("got %v left, want no deadline", got)
	}
	for _, call := range []func() error{
		func() error { _, err := c.Call(t.Context(), "nobody", nil, omdp.WithTimeout(4*beat)); return err },
		func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 4*beat)
			defer cancel()
			_, err := none.Call(ctx, "nobody", nil)
			return err
		},
	} {
		start := time.Now()
		failed(t, call(), omdp.ErrTimeout, omdp.NotExecuted, omdp.MayHaveExecuted) // whose timer is first is a race
		if d := time.Since(start); d > patience {
			t.Errorf("it took %v", d)
		}
	}
	eventually(t, "they are forgotten", func() bool { return b.Stats().Queued == 0 })
	raw := dialRaw(t, b.Endpoint()) // the broker's own default, for who gives none
	raw.say(`C|2|left|1|"x"|{}`)
	if got := receive(t, "what the handler sees", left); got > time.Minute || got < time.Minute/2 {
		t.Errorf("got %v left, want at most a minute", got)
	}
}

func limitMaxTimeout(t *testing.T) {
	for _, most := range []time.Duration{0, 10 * time.Second} {
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{MaxTimeout: most})
		w := dialRaw(t, b.Endpoint())
		w.say(`W|1|echo|{"v":1,"id":"life","hb":1000,"concurrency":9}`)
		w.next(t)
		c := dialRaw(t, b.Endpoint())
		for i, asked := range []string{"100000000", "-1", "5000"} {
			c.say(fmt.Sprintf(`C|2|echo|%d|"x"|{"timeout":%s}`, i, asked))
			want := asked
			if most > 0 && asked != "5000" {
				want = "10000"
			}
			m := w.next(t)
			if got := m[len(m)-1]; !strings.HasPrefix(got, `{"remaining":`+want+`,`) {
				t.Errorf("MaxTimeout %v, asked for %s: the worker got %s, want %s", most, asked, got, want)
			}
		}
	}
	b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{MaxTimeout: beat})
	_, err := addClient(t, b, nil).Call(t.Context(), "nobody", nil, omdp.WithTimeout(-1))
	failed(t, err, omdp.ErrTimeout, omdp.NotExecuted)
}
