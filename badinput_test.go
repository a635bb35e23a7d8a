package omdp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
	"github.com/zmq-omdp/omdp/internal/zsock"
)

// Bad input from the program itself: a clear error at once, that names the
// field and its value, and nothing left behind.

const anywhere = "tcp://127.0.0.1:5555"

// says checks that an error has each of the texts.
func says(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("got no error, want one with %q", texts)
		return
	}
	for _, s := range texts {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("got error %q, want %q in it", err, s)
		}
	}
}

var badEndpoints = []string{
	"", "tcp", "tcp:", "tcp://", "127.0.0.1:5555", "tcp://127.0.0.1", "tcp://127.0.0.1:", "tcp://:5555", "tcp://127.0.0.1:x", "tcp://127.0.0.1:-1",
	"tcp://127.0.0.1:65536", "tcp://127.0.0.1:99999999999999999999", "tcp://127.0.0.1:5555:5555", "tcp://::1:5555", "tcp://[::1:5555", "tcp://a b:5555",
	"tcp://127.0.0.1:5555/path", "tcp://127.0.0.1:5555\n", "tcp://127.0.0.1\x00:5555", "TCP://127.0.0.1:5555", "udp://127.0.0.1:5555", "http://localhost", "pgm://x",
	"ipc://", "ipc://" + strings.Repeat("x", 108), "inproc://", "inproc://" + strings.Repeat("x", 256), "://x", " tcp://127.0.0.1:5555",
}

func TestBadEndpoints(t *testing.T) {
	sockets := zsock.OpenSockets()
	for _, e := range badEndpoints {
		quoted := fmt.Sprintf("%q", e)
		_, err := omdp.NewBroker(e, nil)
		says(t, err, "omdp: new broker: endpoint: ", quoted)
		_, err = omdp.NewBroker(anywhere, &omdp.BrokerConfig{Listeners: []omdp.Listener{{Endpoint: "inproc://fine"}, {Endpoint: e}}})
		says(t, err, "omdp: new broker: Listeners[1]: ", quoted)
		_, err = omdp.NewWorker(e, "echo", nil)
		says(t, err, "omdp: new worker: endpoint: ", quoted)
		_, err = omdp.NewClient(e, nil)
		says(t, err, "omdp: new client: endpoint: ", quoted)
	}
	for _, e := range []string{"tcp://*:5555", "tcp://127.0.0.1:*", "tcp://127.0.0.1:0", "ipc://*"} { // only to be bound
		if _, err := omdp.NewBroker(e, nil); err != nil {
			t.Errorf("%s: %v", e, err)
		}
		_, err := omdp.NewWorker(e, "echo", nil)
		says(t, err, "endpoint: ", e)
		_, err = omdp.NewClient(e, nil)
		says(t, err, "endpoint: ", e)
	}
	if n := zsock.OpenSockets(); n != sockets {
		t.Errorf("%d sockets are open, want %d: New opens none", n, sockets)
	}
}

func TestBadConfigs(t *testing.T) {
	t.Parallel()
	for _, k := range []struct {
		config omdp.BrokerConfig
		says   string
	}{
		{omdp.BrokerConfig{Heartbeat: -1}, "Heartbeat: -1ns"},
		{omdp.BrokerConfig{Heartbeat: 9 * time.Millisecond}, "Heartbeat: 9ms"},
		{omdp.BrokerConfig{Heartbeat: 25 * time.Hour}, "Heartbeat: 25h0m0s"},
		{omdp.BrokerConfig{Liveness: -1}, "Liveness: -1"},
		{omdp.BrokerConfig{Liveness: 1001}, "Liveness: 1001"},
		{omdp.BrokerConfig{Dispatch: map[string]omdp.DispatchPolicy{"s": 3}}, `Dispatch["s"]: DispatchPolicy(3)`},
		{omdp.BrokerConfig{Limits: omdp.Limits{MaxFrame: -1}}, "Limits.MaxFrame: -1"},
		{omdp.BrokerConfig{Limits: omdp.Limits{ServiceQueue: -1}}, "Limits.ServiceQueue: -1"},
		{omdp.BrokerConfig{Limits: omdp.Limits{ServiceBytes: -1}}, "Limits.ServiceBytes: -1"},
		{omdp.BrokerConfig{Limits: omdp.Limits{TotalQueue: -1}}, "Limits.TotalQueue: -1"},
		{omdp.BrokerConfig{Limits: omdp.Limits{TotalBytes: -1}}, "Limits.TotalBytes: -1"},
		{omdp.BrokerConfig{Limits: omdp.Limits{Outstanding: -1}}, "Limits.Outstanding: -1"},
		{omdp.BrokerConfig{Limits: omdp.Limits{Services: -1}}, "Limits.Services: -1"},
		{omdp.BrokerConfig{Limits: omdp.Limits{Workers: -1}}, "Limits.Workers: -1"},
		{omdp.BrokerConfig{Limits: omdp.Limits{Clients: -1}}, "Limits.Clients: -1"},
		{omdp.BrokerConfig{Limits: omdp.Limits{Concurrency: -1}}, "Limits.Concurrency: -1"},
		{omdp.BrokerConfig{Limits: omdp.Limits{Outbox: -1}}, "Limits.Outbox: -1"},
		{omdp.BrokerConfig{Limits: omdp.Limits{OutboxBytes: -1}}, "Limits.OutboxBytes: -1"},
		{omdp.BrokerConfig{Limits: omdp.Limits{TotalOutbox: -1}}, "Limits.TotalOutbox: -1"},
		{omdp.BrokerConfig{Limits: omdp.Limits{Malformed: -1}}, "Limits.Malformed: -1"},
		{omdp.BrokerConfig{Limits: omdp.Limits{MalformedTime: -time.Second}}, "Limits.MalformedTime: -1s"},
		{omdp.BrokerConfig{Limits: omdp.Limits{IgnoreTime: -time.Second}}, "Limits.IgnoreTime: -1s"},
		{omdp.BrokerConfig{Limits: omdp.Limits{Handshake: -time.Second}}, "Limits.Handshake: -1s"},
		{omdp.BrokerConfig{Limits: omdp.Limits{Backlog: -1}}, "Limits.Backlog: -1"},
	} {
		_, err := omdp.NewBroker(anywhere, &k.config)
		says(t, err, "omdp: new broker: ", k.says)
	}
	for _, k := range []struct {
		config omdp.WorkerConfig
		says   string
	}{
		{omdp.WorkerConfig{Concurrency: -1}, "Concurrency: -1"},
		{omdp.WorkerConfig{Concurrency: 1001}, "Concurrency: 1001"},
		{omdp.WorkerConfig{ChunkSize: -1}, "ChunkSize: -1"},
		{omdp.WorkerConfig{ChunkSize: 2000, MaxBody: 1024}, "ChunkSize: 2000"},
		{omdp.WorkerConfig{Heartbeat: -1}, "Heartbeat: -1ns"},
		{omdp.WorkerConfig{Heartbeat: time.Millisecond}, "Heartbeat: 1ms"},
		{omdp.WorkerConfig{Heartbeat: 25 * time.Hour}, "Heartbeat: 25h0m0s"},
		{omdp.WorkerConfig{Liveness: -1}, "Liveness: -1"},
		{omdp.WorkerConfig{Liveness: 1001}, "Liveness: 1001"},
		{omdp.WorkerConfig{ReconnectMin: -1}, "ReconnectMin: -1ns"},
		{omdp.WorkerConfig{ReconnectMin: time.Second, ReconnectMax: time.Millisecond}, "ReconnectMax: 1ms"},
		{omdp.WorkerConfig{MaxBody: -1}, "MaxBody: -1"},
		{omdp.WorkerConfig{MaxBody: 1023}, "MaxBody: 1023"},
		{omdp.WorkerConfig{MaxBody: 1<<30 + 1}, "MaxBody: 1073741825"},
	} {
		_, err := omdp.NewWorker(anywhere, "echo", &k.config)
		says(t, err, "omdp: new worker: ", k.says)
	}
	for _, k := range []struct {
		config omdp.ClientConfig
		says   string
	}{
		{omdp.ClientConfig{Heartbeat: -1}, "Heartbeat: -1ns"},
		{omdp.ClientConfig{Heartbeat: time.Millisecond}, "Heartbeat: 1ms"},
		{omdp.ClientConfig{Heartbeat: 25 * time.Hour}, "Heartbeat: 25h0m0s"},
		{omdp.ClientConfig{Liveness: -1}, "Liveness: -1"},
		{omdp.ClientConfig{Liveness: 1001}, "Liveness: 1001"},
		{omdp.ClientConfig{ReconnectMin: -1}, "ReconnectMin: -1ns"},
		{omdp.ClientConfig{ReconnectMin: time.Second, ReconnectMax: time.Millisecond}, "ReconnectMax: 1ms"},
		{omdp.ClientConfig{MaxBody: -1}, "MaxBody: -1"},
		{omdp.ClientConfig{MaxBody: 1023}, "MaxBody: 1023"},
		{omdp.ClientConfig{MaxBody: 1<<30 + 1}, "MaxBody: 1073741825"},
		{omdp.ClientConfig{Window: -1}, "Window: -1"},
		{omdp.ClientConfig{Window: 4095}, "Window: 4095"},
		{omdp.ClientConfig{Window: 1<<30 + 1}, "Window: 1073741825"},
	} {
		_, err := omdp.NewClient(anywhere, &k.config)
		says(t, err, "omdp: new client: ", k.says)
	}
	for _, service := range []string{"", strings.Repeat("x", 256)} {
		_, err := omdp.NewWorker(anywhere, service, nil)
		says(t, err, "omdp: new worker: service: ", fmt.Sprint(len(service)))
	}
	if _, err := omdp.NewWorker(anywhere, strings.Repeat("x", 255), nil); err != nil {
		t.Errorf("a service name of 255 bytes: %v", err)
	}
}

// The largest values that there are either work or are refused by name.
func TestHugeConfigs(t *testing.T) {
	t.Parallel()
	const most = math.MaxInt
	const forever = time.Duration(math.MaxInt64)
	for name, config := range map[string]omdp.BrokerConfig{
		"Timeout":       {Timeout: forever},
		"MaxTimeout":    {MaxTimeout: forever},
		"DrainTimeout":  {DrainTimeout: forever},
		"MaxFrame":      {Limits: omdp.Limits{MaxFrame: most}},
		"MalformedTime": {Limits: omdp.Limits{MalformedTime: forever}},
		"IgnoreTime":    {Limits: omdp.Limits{IgnoreTime: forever}},
		"Handshake":     {Limits: omdp.Limits{Handshake: forever}},
		"Backlog":       {Limits: omdp.Limits{Backlog: most}},
		"numbers":       {Limits: omdp.Limits{ServiceQueue: most, TotalQueue: most, Outstanding: most, Services: most, Workers: most, Clients: most, Concurrency: most, Outbox: most, Malformed: most}},
		"bytes":         {Limits: omdp.Limits{ServiceBytes: most, TotalBytes: most, OutboxBytes: most, TotalOutbox: most}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := omdp.NewBroker(newEndpoint(t, "tcp"), shortBeats(&config))
			if err != nil {
				says(t, err, "Limits."+name+": ")
				return
			}
			if err := b.Start(); err != nil {
				t.Fatal(err)
			}
			defer closed(t, "broker", b)
			addWorker(t, b, "echo", nil, echo)
			c := addClient(t, b, nil)
			p := dialRaw(t, b.Endpoint())
			for range 12 {
				p.say("X|garbage")
			}
			p.say(`C|2|echo|1|"x"|{}`)
			if name != "numbers" {
				eventually(t, "the peer is ignored", func() bool { return b.Stats().Ignored > 0 })
			}
			served(t, c, "echo")
		})
	}
}

// A taken endpoint fails Start, which opens nothing then and may be tried again.
func TestTakenEndpoints(t *testing.T) {
	sockets := zsock.OpenSockets()
	dir := shortDir(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	busy := "tcp://" + l.Addr().String()
	for _, e := range []string{busy, "ipc://" + filepath.Join(dir, "missing", "s"), "tcp://192.0.2.1:5555", "tcp://no.such.host.invalid:5555"} {
		b, err := omdp.NewBroker(newEndpoint(t, "inproc"), &omdp.BrokerConfig{Listeners: []omdp.Listener{{Endpoint: e}}})
		if err != nil {
			t.Fatal(err)
		}
		says(t, b.Start(), "omdp: start broker: bind", e)
		if n := zsock.OpenSockets(); n != sockets {
			t.Errorf("%s: %d sockets are open after a failed Start, want %d", e, n, sockets)
		}
		closed(t, "broker", b)
	}
	b, err := omdp.NewBroker(busy, nil)
	if err != nil {
		t.Fatal(err)
	}
	says(t, b.Start(), busy, "in use")
	l.Close()
	eventually(t, "the port is free", func() bool { err = b.Start(); return err == nil })
	closed(t, "broker", b)

	for _, transport := range transports {
		first := startBroker(t, newEndpoint(t, transport), nil)
		addWorker(t, first, "echo", nil, echo)
		second, err := omdp.NewBroker(first.Endpoint(), nil)
		if err != nil {
			t.Fatal(err)
		}
		says(t, second.Start(), first.Endpoint(), "in use")
		served(t, addClient(t, first, nil), "echo") // the first is as it was
		closed(t, "second broker", second)
		served(t, addClient(t, first, nil), "echo")
	}
}

// The socket of a broker that died stands in the file system and is no
// obstacle; what is no socket is not touched.
func TestStaleIPC(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortDir(t), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	b := startBroker(t, "ipc://"+path, nil)
	addWorker(t, b, "echo", nil, echo)
	served(t, addClient(t, b, nil), "echo")
}

func TestBadCalls(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	addWorker(t, b, "echo", nil, echo)
	c := addClient(t, b, &omdp.ClientConfig{MaxBody: 2000})
	loop := map[string]any{}
	loop["self"] = loop
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, k := range []struct {
		name    string
		ctx     context.Context
		service string
		data    any
		opts    []omdp.CallOption
		is      error
		says    []string
	}{
		{"no service", t.Context(), "", "x", nil, nil, []string{"0 bytes"}},
		{"long service", t.Context(), strings.Repeat("s", 256), "x", nil, nil, []string{"256 bytes", "255"}},
		{"channel", t.Context(), "echo", make(chan int), nil, nil, []string{"chan int"}},
		{"func", t.Context(), "echo", func() {}, nil, nil, []string{"func()"}},
		{"NaN", t.Context(), "echo", math.NaN(), nil, nil, []string{"NaN"}},
		{"loop", t.Context(), "echo", loop, nil, nil, []string{"encode data"}},
		{"marshaler", t.Context(), "echo", failing{}, nil, io.ErrUnexpectedEOF, nil},
		{"raw", t.Context(), "echo", json.RawMessage("{"), nil, nil, []string{"RawMessage"}},
		{"empty raw", t.Context(), "echo", json.RawMessage{}, nil, nil, []string{"RawMessage"}},
		{"two values", t.Context(), "echo", json.RawMessage("1 2"), nil, nil, []string{"RawMessage"}},
		{"large string", t.Context(), "echo", strings.Repeat("x", 1999), nil, omdp.ErrTooLarge, []string{"2001", "2000"}},
		{"large once escaped", t.Context(), "echo", strings.Repeat("\x01", 400), nil, omdp.ErrTooLarge, []string{"2402", "2000"}},
		{"large bytes", t.Context(), "echo", make([]byte, 2001), nil, omdp.ErrTooLarge, nil},
		{"small window", t.Context(), "echo", "x", []omdp.CallOption{omdp.WithWindow(5)}, nil, []string{"WithWindow: 5"}},
		{"negative window", t.Context(), "echo", "x", []omdp.CallOption{omdp.WithWindow(-1)}, nil, []string{"WithWindow: -1"}},
		{"large window", t.Context(), "echo", "x", []omdp.CallOption{omdp.WithWindow(1<<30 + 1)}, nil, []string{"WithWindow: 1073741825"}},
		{"ended context", ended, "echo", "x", nil, context.Canceled, nil},
	} {
		t.Run(k.name, func(t *testing.T) {
			check := func(err error) {
				t.Helper()
				says(t, err, append(k.says, "omdp: call ")...)
				if k.is != nil && !errors.Is(err, k.is) {
					t.Errorf("got error %v, want %v", err, k.is)
				}
				if got := omdp.OutcomeOf(err); got != omdp.NotSent {
					t.Errorf("got outcome %v, want not sent", got)
				}
			}
			_, err := c.Call(k.ctx, k.service, k.data, k.opts...)
			check(err)
			check(c.Request(k.ctx, k.service, k.data, func(omdp.Message) { t.Error("a partial") }, func(omdp.Message, error) { t.Error("a final") }, k.opts...))
			_, err = io.ReadAll(c.RequestStream(k.ctx, k.service, k.data, k.opts...))
			check(err)
		})
	}
	if s := c.Stats(); s.Requests != 0 || s.Outstanding != 0 {
		t.Errorf("got %d requests, %d outstanding; want none", s.Requests, s.Outstanding)
	}
	if got := call(t, c, "echo", strings.Repeat("x", 1998)); len(got) != 1998 {
		t.Errorf("got %d bytes, want the 1,998 that fit", len(got))
	}
	if got, err := omdp.CallJSON[int](t.Context(), c, "echo", "text"); err == nil || got != 0 || omdp.OutcomeOf(err) != omdp.Executed {
		t.Errorf("a reply that does not fit: got %v, %v; want an error and executed", got, err)
	}
}

type failing struct{}

func (failing) MarshalJSON() ([]byte, error) { return nil, io.ErrUnexpectedEOF }

// Values that a handler can't send.
func TestBadReplies(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	got := make(chan error, 10)
	addWorker(t, b, "bad", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		got <- res.Send(make(chan int))
		got <- res.End(math.Inf(1))
		if string(req.Bytes()) == "mended" {
			return res.End("mended")
		}
		return nil
	})
	addWorker(t, b, "error", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
		var code string
		if err := req.Decode(&code); err != nil {
			return err
		}
		return &omdp.Error{Code: code, Message: "text"}
	})
	addWorker(t, b, "typed", nil, omdp.HandleJSON(func(_ context.Context, in int) (int, error) { return in, nil }))
	c := addClient(t, b, nil)
	if m := call(t, c, "bad", "mended"); m != "mended" {
		t.Errorf("got %q, want mended: the response stays open", m)
	}
	_, err := c.Call(within(t), "bad", "x")
	if e, ok := errors.AsType[*omdp.Error](err); !ok || e.Code != "500" {
		t.Errorf("got %v, want an error of the handler's side", err)
	}
	for range 2 {
		says(t, receive(t, "what Send gave", got), "omdp: send partial: ", "chan int")
		says(t, receive(t, "what End gave", got), "omdp: end response: ", "+Inf")
	}
	for code, want := range map[string]string{"": "500", "200": "500", "418": "418", "TIMEOUT": "TIMEOUT", "\"": "\"", "-1": "-1", "0": "0", "é\n": "é\n"} {
		_, err := c.Call(within(t), "error", code)
		if e, ok := errors.AsType[*omdp.Error](err); !ok || e.Code != want || e.Message != "text" {
			t.Errorf("code %q: got %v, want code %q", code, err, want)
		}
	}
	_, err = c.Call(within(t), "typed", "no number")
	if e, ok := errors.AsType[*omdp.Error](err); !ok || e.Code != "400" {
		t.Errorf("got %v, want code 400", err)
	}
}

// Calls before Start, after Close, and twice.
func TestOutOfOrder(t *testing.T) {
	sockets := zsock.OpenSockets()
	func() {
		b, err := omdp.NewBroker(newEndpoint(t, "inproc"), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = b.Stats()
		if err := b.Start(); err != nil {
			t.Fatal(err)
		}
		says(t, b.Start(), "omdp: start broker: already started")
		says(t, b.Run(t.Context()), "already started")

		c, err := omdp.NewClient(b.Endpoint(), &omdp.ClientConfig{Heartbeat: beat})
		if err != nil {
			t.Fatal(err)
		}
		unusable := func(want error) {
			t.Helper()
			_, err := c.Call(t.Context(), "echo", "x")
			failed(t, err, want, omdp.NotSent)
			failed(t, c.Request(t.Context(), "echo", "x", nil, func(omdp.Message, error) { t.Error("a final") }), want, omdp.NotSent)
			s := c.RequestStream(t.Context(), "echo", "x")
			_, err = io.ReadAll(s)
			failed(t, err, want, omdp.NotSent)
			if err := s.Close(); err != nil {
				t.Errorf("close stream: %v", err)
			}
			failed(t, c.WaitReady(t.Context()), want)
			_ = c.Stats()
		}
		unusable(omdp.ErrNotStarted)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		says(t, c.Start(), "omdp: start client: already started")
		ready(t, c)
		closed(t, "client", c)
		unusable(omdp.ErrClosed)
		failed(t, c.Start(), omdp.ErrClosed)
		failed(t, c.Run(t.Context()), omdp.ErrClosed)
		closed(t, "client again", c)
		if err := c.Shutdown(t.Context()); err != nil {
			t.Errorf("shutdown after close: %v", err)
		}

		w, err := omdp.NewWorker(b.Endpoint(), "echo", &omdp.WorkerConfig{Heartbeat: beat})
		if err != nil {
			t.Fatal(err)
		}
		says(t, w.Start(), "no handler")
		says(t, w.OnRequest(nil), "the handler is nil")
		failed(t, w.WaitReady(t.Context()), omdp.ErrNotStarted)
		failed(t, w.Shutdown(t.Context()), omdp.ErrNotStarted)
		if err := w.OnRequest(echo); err != nil {
			t.Fatal(err)
		}
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		says(t, w.Start(), "omdp: start worker: already started")
		says(t, w.OnRequest(echo), "started")
		ready(t, w)
		closed(t, "worker", w)
		closed(t, "worker again", w)
		failed(t, w.Start(), omdp.ErrClosed)
		failed(t, w.OnRequest(echo), omdp.ErrClosed)
		failed(t, w.WaitReady(t.Context()), omdp.ErrClosed)
		failed(t, w.Shutdown(t.Context()), omdp.ErrClosed)
		_ = w.Stats()

		closed(t, "broker", b)
		closed(t, "broker again", b)
		failed(t, b.Start(), omdp.ErrClosed)
		failed(t, b.Run(t.Context()), omdp.ErrClosed)
		if err := b.Shutdown(t.Context()); err != nil {
			t.Errorf("shutdown after close: %v", err)
		}
		_ = b.Stats()
	}()

	// What was never started is closed all the same, and can't be started then.
	b, err := omdp.NewBroker(anywhere, nil)
	if err != nil {
		t.Fatal(err)
	}
	closed(t, "unstarted broker", b)
	failed(t, b.Start(), omdp.ErrClosed)
	c, err := omdp.NewClient(anywhere, nil)
	if err != nil {
		t.Fatal(err)
	}
	closed(t, "unstarted client", c)
	failed(t, c.Start(), omdp.ErrClosed)
	w, err := omdp.NewWorker(anywhere, "echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	closed(t, "unstarted worker", w)
	failed(t, w.Start(), omdp.ErrClosed)
	if n := zsock.OpenSockets(); n != sockets {
		t.Errorf("%d sockets are open, want %d", n, sockets)
	}
}

// Methods may be called at any time from anywhere: nothing hangs, nothing races.
func TestConcurrentLifecycle(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		for range 5 {
			b, err := omdp.NewBroker(newEndpoint(t, transport), shortBeats(nil))
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Start(); err != nil {
				t.Fatal(err)
			}
			w, err := omdp.NewWorker(b.Endpoint(), "echo", nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.OnRequest(echo); err != nil {
				t.Fatal(err)
			}
			c, err := omdp.NewClient(b.Endpoint(), nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx := within(t)
			done := make(chan struct{}, 100)
			n := 0
			run := func(f func()) {
				n++
				go func() {
					defer func() { done <- struct{}{} }()
					f()
				}()
			}
			for range 2 {
				run(func() { w.Start() })
				run(func() { c.Start() })
				run(func() { c.Call(ctx, "echo", "x", omdp.WithTimeout(beat)) })
				run(func() { io.ReadAll(c.RequestStream(ctx, "echo", "x", omdp.WithTimeout(beat))) })
				run(func() { c.WaitReady(ctx) })
				run(func() { w.WaitReady(ctx) })
				run(func() { _, _, _ = b.Stats(), c.Stats(), w.Stats() })
				run(func() { c.Shutdown(ctx) })
				run(func() { w.Shutdown(ctx) })
				run(func() { c.Close() })
				run(func() { w.Close() })
				run(func() { b.Shutdown(ctx) })
				run(func() { b.Close() })
				run(func() { b.Endpoints() })
			}
			for range n {
				receive(t, "a method's return", done)
			}
			closed(t, "broker", b)
			closed(t, "client", c)
			closed(t, "worker", w)
		}
	})
}
