package omdp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp"
)

// What happens when something fails, stops, is slow or is too much: who is
// told, what, and that everybody else goes on.

// childEnv makes the test binary a peer in a process of its own, which can be
// killed and stopped: "broker ENDPOINT", "worker ENDPOINT", "client ENDPOINT".
const childEnv = "OMDP_TEST_CHILD"

// child runs until its standard input ends. It prints a line when it is ready.
func child(role string) {
	kind, endpoint, _ := strings.Cut(role, " ")
	var err error
	switch kind {
	case "broker":
		var b *omdp.Broker
		if b, err = omdp.NewBroker(endpoint, shortBeats(&omdp.BrokerConfig{Liveness: brief})); err == nil {
			err = b.Start()
			endpoint = b.Endpoint()
		}
	case "worker":
		var w *omdp.Worker
		if w, err = omdp.NewWorker(endpoint, "child", &omdp.WorkerConfig{Heartbeat: beat}); err == nil {
			w.OnRequest(func(context.Context, *omdp.Request, *omdp.Response) error { select {} })
			w.Start()
			err = w.WaitReady(context.Background())
		}
	case "client":
		var c *omdp.Client
		if c, err = omdp.NewClient(endpoint, &omdp.ClientConfig{Heartbeat: beat}); err == nil {
			c.Start()
			go c.Call(context.Background(), "parent", "from the child")
			err = c.WaitReady(context.Background())
		}
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("ready", endpoint)
	io.Copy(io.Discard, os.Stdin)
}

// startChild starts a child and returns the endpoint that it tells. An error
// is that of its Start.
func startChild(t testing.TB, role string) (*exec.Cmd, string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	endpoint, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if !ok {
		return nil, "", fmt.Errorf("child %q said %q, %v", role, line, err)
	}
	return cmd, endpoint, nil
}

func signal(t testing.TB, cmd *exec.Cmd, s os.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// Every call of a killed broker ends, at once, as lost. Its peers wait for the
// next one on the same endpoint and go on.
func TestBrokerKilled(t *testing.T) {
	t.Parallel()
	cmd, endpoint, err := startChild(t, "broker tcp://127.0.0.1:*")
	if err != nil {
		t.Fatal(err)
	}
	h := newHeld()
	w := startWorker(t, endpoint, "echo", &omdp.WorkerConfig{Concurrency: 3}, h.handle)
	c := startClient(t, endpoint, nil)
	ready(t, w)
	ready(t, c)
	var calls []<-chan result
	for i := range 3 {
		calls = append(calls, goCall(t, c, "echo", fmt.Sprint(i)))
		receive(t, "a request in progress", h.began)
	}
	startWorker(t, endpoint, "parts", nil, func(ctx context.Context, _ *omdp.Request, res *omdp.Response) error {
		res.Write([]byte("part"))
		<-ctx.Done()
		return nil
	})
	s := c.RequestStream(within(t), "parts", nil)
	part := make([]byte, 4)
	if _, err := io.ReadFull(s, part); err != nil || string(part) != "part" {
		t.Fatalf("got %q, %v; want part", part, err)
	}
	calls = append(calls, goCall(t, c, "echo", "queued"), goCall(t, c, "nobody", "queued"))
	eventually(t, "all calls are sent", func() bool { s := c.Stats(); return s.Outstanding == 6 && s.Waiting == 0 && s.Queued == 0 })
	signal(t, cmd, syscall.SIGKILL)
	_, err = s.Read(part) // never io.EOF
	failed(t, err, omdp.ErrBrokerLost, omdp.MayHaveExecuted)
	for _, r := range calls {
		failed(t, receive(t, "a call's end", r).err, omdp.ErrBrokerLost, omdp.MayHaveExecuted)
	}
	for range 3 {
		if err := receive(t, "a handler's end", h.ended); !errors.Is(err, omdp.ErrBrokerLost) {
			t.Errorf("got cause %v, want ErrBrokerLost", err)
		}
	}
	late := goCall(t, c, "echo", "late") // waits for a broker
	eventually(t, "a broker on the same port", func() bool { _, _, err = startChild(t, "broker "+endpoint); return err == nil })
	if got := receive(t, "the late request", h.began); got != "late" {
		t.Errorf("got %q, want late: nothing of the old life runs again", got)
	}
	h.free <- struct{}{}
	if r := receive(t, "the late answer", late); r != (result{"late", nil}) {
		t.Errorf("got %v, want late", r)
	}
	if s := w.Stats(); s.Connections < 2 {
		t.Errorf("got %d connections, want 2", s.Connections)
	}
}

// A broker that is stopped, not dead, keeps its connections: the heartbeats tell.
func TestBrokerSilent(t *testing.T) {
	t.Parallel()
	cmd, endpoint, err := startChild(t, "broker tcp://127.0.0.1:*")
	if err != nil {
		t.Fatal(err)
	}
	h := newHeld()
	w := startWorker(t, endpoint, "echo", &omdp.WorkerConfig{Liveness: brief}, h.handle)
	c := startClient(t, endpoint, &omdp.ClientConfig{Liveness: brief})
	ready(t, w)
	ready(t, c)
	r := goCall(t, c, "echo", "x")
	receive(t, "the request", h.began)
	signal(t, cmd, syscall.SIGSTOP)
	failed(t, receive(t, "the call's end", r).err, omdp.ErrBrokerLost, omdp.MayHaveExecuted)
	if err := receive(t, "the handler's end", h.ended); !errors.Is(err, omdp.ErrBrokerLost) {
		t.Errorf("got cause %v, want ErrBrokerLost", err)
	}
	signal(t, cmd, syscall.SIGCONT)
	close(h.free)
	if got := call(t, c, "echo", "again"); got != "again" {
		t.Errorf("got %q, want again", got)
	}
}

func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "tcp"), nil)
	cmd, _, err := startChild(t, "worker "+b.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	c := addClient(t, b, nil)
	r := goCall(t, c, "child", "x")
	eventually(t, "the request is in progress", func() bool { return b.Stats().InProgress == 1 })
	signal(t, cmd, syscall.SIGKILL)
	failed(t, receive(t, "the call's end", r).err, omdp.ErrWorkerLost, omdp.MayHaveExecuted)
	if s := b.Stats(); s.Workers != 0 {
		t.Errorf("got %d workers, want none", s.Workers)
	}
}

func TestWorkerStopped(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Liveness: brief})
	cmd, _, err := startChild(t, "worker "+b.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	c := addClient(t, b, nil)
	r := goCall(t, c, "child", "x")
	eventually(t, "the request is in progress", func() bool { return b.Stats().InProgress == 1 })
	signal(t, cmd, syscall.SIGSTOP)
	failed(t, receive(t, "the call's end", r).err, omdp.ErrWorkerLost, omdp.MayHaveExecuted)
}

func TestClientKilled(t *testing.T) {
	t.Parallel()
	for _, s := range []os.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Liveness: brief})
			h := newHeld()
			addWorker(t, b, "parent", nil, h.handle)
			cmd, _, err := startChild(t, "client "+b.Endpoint())
			if err != nil {
				t.Fatal(err)
			}
			receive(t, "the child's request", h.began)
			signal(t, cmd, s)
			if err := receive(t, "the handler's end", h.ended); !errors.Is(err, omdp.ErrCanceled) {
				t.Errorf("got cause %v, want ErrCanceled", err)
			}
			eventually(t, "the worker is free", func() bool { s := b.Stats(); return s.InProgress == 0 && s.Services["parent"].Free == 1 })
		})
	}
}

// A broker that is closed says so: what was queued was not executed. Peers
// wait for the next one on the same endpoint.
func TestBrokerClosed(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		h := newHeld()
		w := addWorker(t, b, "echo", nil, h.handle)
		c := addClient(t, b, &omdp.ClientConfig{Liveness: brief})
		running := goCall(t, c, "echo", "running")
		receive(t, "a request in progress", h.began)
		queued, waiting := goCall(t, c, "echo", "queued"), goCall(t, c, "nobody", "queued")
		eventually(t, "two are queued", func() bool { return b.Stats().Queued == 2 })
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		failed(t, receive(t, "the end of what was in progress", running).err, omdp.ErrBrokerLost, omdp.MayHaveExecuted)
		failed(t, receive(t, "the end of what was queued", queued).err, omdp.ErrBrokerLost, omdp.NotExecuted)
		failed(t, receive(t, "the end of what had no worker", waiting).err, omdp.ErrBrokerLost, omdp.NotExecuted)
		if err := receive(t, "the handler's end", h.ended); !errors.Is(err, omdp.ErrBrokerLost) {
			t.Errorf("got cause %v, want ErrBrokerLost", err)
		}
		eventually(t, "both see that it is gone", func() bool {
			return w.Stats().State != omdp.Ready && c.Stats().State != omdp.Ready
		})
		close(h.free)
		next := restartBroker(t, b.Endpoint(), nil)
		eventually(t, "the worker is registered again", func() bool { return next.Stats().Workers == 1 })
		served(t, c, "echo")
		if err := b.Start(); !errors.Is(err, omdp.ErrClosed) {
			t.Errorf("start after close: got %v, want ErrClosed", err)
		}
	})
}

func TestWorkerClosed(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		h := newHeld()
		w := addWorker(t, b, "echo", nil, h.handle)
		c := addClient(t, b, nil)
		r := goCall(t, c, "echo", "x")
		receive(t, "the request", h.began)
		if err := w.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := receive(t, "the handler's end", h.ended); !errors.Is(err, omdp.ErrClosed) {
			t.Errorf("got cause %v, want ErrClosed", err)
		}
		failed(t, receive(t, "the call's end", r).err, omdp.ErrWorkerLost, omdp.MayHaveExecuted)
		eventually(t, "the broker forgot it", func() bool { return b.Stats().Workers == 0 })
	})
}

// A worker that vanishes without a word is found by the next heartbeat that
// can't be delivered.
func TestWorkerVanishes(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		for _, hello := range []string{"W|1|echo", `W|1|echo|{"v":1,"id":"life","hb":60000}`} {
			b := startBroker(t, newEndpoint(t, transport), nil)
			w := dialRaw(t, b.Endpoint())
			w.say(hello)
			c := addClient(t, b, nil)
			s := c.RequestStream(within(t), "echo", "x")
			m := w.next(t)
			for m[1] != "2" {
				m = w.next(t)
			}
			w.send("W", "6", m[2], m[3], `{"status":200,"msg":"part"}`)
			part := make([]byte, 4)
			if _, err := io.ReadFull(s, part); err != nil || string(part) != "part" {
				t.Fatalf("got %q, %v; want part", part, err)
			}
			w.close()
			_, err := s.Read(part) // never io.EOF
			failed(t, err, omdp.ErrWorkerLost, omdp.MayHaveExecuted)
			addWorker(t, b, "echo", nil, echo)
			served(t, c, "echo")
		}
	})
}

// A worker that lives but is silent, or beats and has lost its request.
func TestWorkerHangs(t *testing.T) {
	t.Parallel()
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		b := startBroker(t, newEndpoint(t, "inproc"), nil)
		w := dialRaw(t, b.Endpoint())
		w.say(`W|1|echo|{"v":1,"id":"life","hb":5}`) // 5 ms × 100
		c := addClient(t, b, nil)
		r := goCall(t, c, "echo", "x")
		failed(t, receive(t, "the call's end", r).err, omdp.ErrWorkerLost, omdp.MayHaveExecuted)
		for m := w.next(t); m[1] != "5"; m = w.next(t) {
		}
	})
	t.Run("lost its request", func(t *testing.T) {
		t.Parallel()
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Liveness: brief})
		w := dialRaw(t, b.Endpoint())
		w.say(`W|1|echo|{"v":1,"id":"life","hb":50}`)
		c := addClient(t, b, nil)
		r := goCall(t, c, "echo", "x")
		var ended result
		eventually(t, "the call's end", func() bool {
			w.say("W|4")
			select {
			case ended = <-r:
				return true
			default:
				return false
			}
		})
		failed(t, ended.err, omdp.ErrWorkerLost, omdp.MayHaveExecuted)
		m := w.next(t)
		for m[1] != "10" {
			m = w.next(t)
		}
		if m[4] != "stalled" {
			t.Errorf("got %q, want a CANCEL with the cause stalled", m)
		}
		if s := b.Stats(); s.Stalled != 1 || s.Workers != 1 {
			t.Errorf("got %d stalled, %d workers; want 1, 1", s.Stalled, s.Workers)
		}
	})
}

// Broker, worker and client may be started in any order.
func TestAnyStartOrder(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		for _, order := range []string{"bwc", "bcw", "wbc", "wcb", "cbw", "cwb"} {
			t.Run(order, func(t *testing.T) {
				t.Parallel()
				endpoint := knownEndpoint(t, transport)
				var answer <-chan result
				for _, role := range order {
					switch role {
					case 'b':
						restartBroker(t, endpoint, nil)
					case 'w':
						startWorker(t, endpoint, "echo", nil, echo)
					case 'c':
						answer = goCall(t, startClient(t, endpoint, nil), "echo", order)
					}
				}
				if r := receive(t, "the answer", answer); r != (result{order, nil}) {
					t.Errorf("got %v, want %s", r, order)
				}
			})
		}
	})
}

// A request that waits for a broker expires by itself, and was not sent.
func TestNoBroker(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		c := startClient(t, knownEndpoint(t, transport), nil)
		_, err := c.Call(within(t), "echo", "x", omdp.WithTimeout(beat))
		failed(t, err, omdp.ErrTimeout, omdp.NotSent)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(io.ErrShortWrite)
		_, err = c.Call(ctx, "echo", "x")
		failed(t, err, omdp.ErrCanceled, omdp.NotSent)
		failed(t, err, io.ErrShortWrite)
		r := goCall(t, c, "echo", "x")
		eventually(t, "it waits", func() bool { return c.Stats().Outstanding == 1 })
		closed(t, "client", c)
		failed(t, receive(t, "the call's end", r).err, omdp.ErrClosed, omdp.NotSent)
	})
}

// A client that leaves in any way ends its handlers' contexts and frees their
// workers.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		h := newHeld()
		addWorker(t, b, "echo", nil, h.handle)
		for name, leave := range map[string]func(t *testing.T){
			"Close": func(t *testing.T) {
				c := addClient(t, b, nil)
				r := goCall(t, c, "echo", "x")
				receive(t, "the request", h.began)
				closed(t, "client", c)
				failed(t, receive(t, "the call's end", r).err, omdp.ErrClosed, omdp.MayHaveExecuted)
			},
			"cancel": func(t *testing.T) {
				c := addClient(t, b, nil)
				ctx, cancel := context.WithCancel(t.Context())
				s := c.RequestStream(ctx, "echo", "x")
				receive(t, "the request", h.began)
				cancel()
				_, err := io.ReadAll(s)
				failed(t, err, omdp.ErrCanceled, omdp.MayHaveExecuted)
			},
			"stream closed": func(t *testing.T) {
				s := addClient(t, b, nil).RequestStream(t.Context(), "echo", "x")
				receive(t, "the request", h.began)
				s.Close()
				_, err := io.ReadAll(s)
				failed(t, err, omdp.ErrCanceled, omdp.MayHaveExecuted)
			},
			"vanishes": func(t *testing.T) { // the worker's heartbeat for it can't be delivered
				p := dialRaw(t, b.Endpoint())
				p.say(`C|2|echo|1|"x"|{}`)
				receive(t, "the request", h.began)
				p.close()
			},
			"advertised and vanishes": func(t *testing.T) {
				p := dialRaw(t, b.Endpoint())
				p.say(`C|8|{"v":1,"id":"life","hb":60000}`)
				p.say(`C|2|echo|1|"x"|{}`)
				receive(t, "the request", h.began)
				p.close()
			},
			"advertised and silent": func(t *testing.T) {
				p := dialRaw(t, b.Endpoint())
				p.say(`C|8|{"v":1,"id":"life","hb":1}`) // 1 ms × 100
				p.say(`C|2|echo|1|"x"|{}`)
				receive(t, "the request", h.began)
			},
		} {
			t.Run(name, func(t *testing.T) {
				leave(t)
				if err := receive(t, "the handler's end", h.ended); !errors.Is(err, omdp.ErrCanceled) {
					t.Errorf("got cause %v, want ErrCanceled", err)
				}
				eventually(t, "the worker is free", func() bool { s := b.Stats(); return s.InProgress == 0 && s.Services["echo"].Free == 1 })
			})
		}
	})
}

// counted writes to its response until that fails, in numbered partials.
func counted(sent *atomic.Int64, ended chan<- error) omdp.Handler {
	pad := strings.Repeat("x", 10_000)
	return func(ctx context.Context, _ *omdp.Request, res *omdp.Response) error {
		for {
			if err := res.Send(fmt.Sprint(sent.Load(), " ", pad)); err != nil {
				ended <- context.Cause(ctx)
				return err
			}
			sent.Add(1)
		}
	}
}

// A reader that is stuck stops the worker that writes to it after a window,
// and nobody else, also on its own connection.
func TestStuckReader(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		var sent atomic.Int64
		ended := make(chan error, 1)
		addWorker(t, b, "flood", nil, counted(&sent, ended))
		addWorker(t, b, "file", nil, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
			_, err := io.Copy(res, io.LimitReader(zeros{}, 4<<20))
			return err
		})
		c := addClient(t, b, &omdp.ClientConfig{Window: 64 << 10})
		stuck := c.RequestStream(t.Context(), "flood", nil)
		eventually(t, "the window is full", func() bool { return sent.Load() == 6 })
		for range 3 {
			n, err := io.Copy(io.Discard, c.RequestStream(within(t), "file", nil))
			if err != nil || n != 4<<20 {
				t.Fatalf("got %d bytes, %v; want 4 MiB", n, err)
			}
		}
		if n := sent.Load(); n != 6 { // of 10 KB, in 64 KiB
			t.Errorf("the worker sent %d partials, want 6", n)
		}
		n := 0
		for m, err := range stuck.All() { // read on: nothing is missing
			if want := fmt.Sprint(n, " "); err != nil || !strings.HasPrefix(m.String(), want) {
				t.Fatalf("got %.10q, %v; want partial %d", m.String(), err, n)
			}
			if n++; n == 100 {
				break
			}
		}
		if err := receive(t, "the handler's end", ended); !errors.Is(err, omdp.ErrCanceled) {
			t.Errorf("got cause %v, want ErrCanceled", err)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A client that grants no credit and does not read its socket is given up when
// its outbox is full: no gap, then SLOW_CLIENT. The others go on, and so does
// it when it reads again.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	var l logs
	b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Logger: l.logger(), Limits: omdp.Limits{Outbox: 100, OutboxBytes: 1 << 20}})
	var sent atomic.Int64
	ended := make(chan error, 1)
	addWorker(t, b, "flood", nil, counted(&sent, ended))
	addWorker(t, b, "echo", nil, echo)
	c := addClient(t, b, nil)
	p := dialWire(t, b.Endpoint(), "slow")
	p.send("C", "2", "flood", "1", `"x"`, `{"timeout":-1}`)
	for done := false; !done; {
		served(t, c, "echo")
		select {
		case err := <-ended:
			done = true
			if !errors.Is(err, omdp.ErrCanceled) {
				t.Errorf("got cause %v, want ErrCanceled", err)
			}
		default:
		}
	}
	for n := 0; ; {
		m, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		if m[1] == "4" {
			continue
		}
		if m[1] == "3" {
			if want := `{"status":"SLOW_CLIENT"}`; m[3] != want {
				t.Errorf("got the end %q, want %s", m, want)
			}
			break
		}
		if want := fmt.Sprintf(`{"status":200,"msg":"%d x`, n); !strings.HasPrefix(m[3], want) {
			t.Fatalf("got %.40s, want partial %d", m[3], n)
		}
		n++
	}
	p.send("C", "2", "echo", "2", `"back"`, `{}`)
	for {
		m, err := p.next()
		if err != nil {
			t.Fatal(err)
		}
		if m[1] == "3" {
			if want := `{"status":200,"msg":"back"}`; m[2] != "2" || m[3] != want {
				t.Errorf("got %q, want %s", m, want)
			}
			break
		}
	}
	if s := b.Stats(); s.SlowClients != 1 || s.Again == 0 {
		t.Errorf("got %d slow clients, %d times no room; want 1 and some", s.SlowClients, s.Again)
	}
	if l.count("does not read") != 1 {
		t.Errorf("the log does not say that a peer does not read: %q", l.lines)
	}
}

// A reader that reads its socket but nobody its stream, towards a worker that
// knows no credit.
func TestBufferLimit(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	w := dialRaw(t, b.Endpoint())
	w.say("W|1|echo")
	c := addClient(t, b, &omdp.ClientConfig{BufferLimit: 50_000, Window: 4 << 10}) // the limit is never under the window
	s := c.RequestStream(within(t), "echo", "x")
	m := w.next(t)
	for range 10 {
		w.send("W", "6", m[2], m[3], `{"status":200,"msg":"`+strings.Repeat("x", 10_000)+`"}`)
	}
	eventually(t, "the call is given up", func() bool { return c.Stats().Failed == 1 })
	n, err := io.Copy(io.Discard, s)
	failed(t, err, omdp.ErrSlowConsumer, omdp.MayHaveExecuted)
	if n != 40_000 {
		t.Errorf("read %d bytes, want the 40,000 that came before", n)
	}
	eventually(t, "the broker is told", func() bool { return b.Stats().Canceled == 1 })
}

func TestSeveralListeners(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Listeners: []string{newEndpoint(t, "inproc"), newEndpoint(t, "ipc"), newEndpoint(t, "tcp")}})
	all := b.Endpoints()
	if len(all) != 4 || slices.ContainsFunc(all, func(e string) bool { return strings.Contains(e, "*") }) {
		t.Fatalf("got endpoints %q, want four without a wildcard", all)
	}
	for i, e := range all {
		startWorker(t, e, fmt.Sprint("echo", i), nil, echo)
	}
	for _, e := range all {
		c := startClient(t, e, nil)
		for i := range all {
			served(t, c, fmt.Sprint("echo", i))
		}
	}
	// A deadline of a request that came on a later listener holds as well.
	_, err := startClient(t, all[3], nil).Call(within(t), "nobody", "x", omdp.WithTimeout(beat))
	failed(t, err, omdp.ErrTimeout)
}

// A worker that shuts down ends what it has; what comes goes to others.
func TestWorkerDrains(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		h := newHeld()
		w := addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 100}, h.handle)
		c := addClient(t, b, nil)
		var calls []<-chan result
		for i := range 3 {
			calls = append(calls, goCall(t, c, "echo", fmt.Sprint(i)))
			receive(t, "a request", h.began)
		}
		done := make(chan error, 1)
		go func() { done <- w.Shutdown(within(t)) }()
		eventually(t, "it takes no more", func() bool { return b.Stats().Services["echo"].Free == 0 })
		late := goCall(t, c, "echo", "late")
		eventually(t, "the next one is queued", func() bool { return b.Stats().Queued == 1 })
		addWorker(t, b, "echo", nil, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error { return res.End("another") })
		if r := receive(t, "the next one's answer", late); r != (result{"another", nil}) {
			t.Errorf("got %v, want that of another worker", r)
		}
		close(h.free)
		for i, r := range calls {
			if r := receive(t, "an answer", r); r != (result{fmt.Sprint(i), nil}) {
				t.Errorf("got %v, want %d", r, i)
			}
		}
		if err := receive(t, "the shutdown's end", done); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		eventually(t, "the broker forgot it", func() bool { return b.Stats().Workers == 1 })
	})
}

// A shutdown whose context ends cuts off what is left.
func TestWorkerShutdownCutsOff(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	h := newHeld()
	w := addWorker(t, b, "echo", nil, h.handle)
	c := addClient(t, b, nil)
	r := goCall(t, c, "echo", "x")
	receive(t, "the request", h.began)
	ctx, cancel := context.WithTimeoutCause(t.Context(), beat, io.ErrNoProgress)
	defer cancel()
	if err := w.Shutdown(ctx); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("got %v, want the context's cause", err)
	}
	if err := receive(t, "the handler's end", h.ended); !errors.Is(err, omdp.ErrClosed) {
		t.Errorf("got cause %v, want ErrClosed", err)
	}
	if err := receive(t, "the call's end", r).err; err == nil {
		t.Error("the call ended well")
	}
}

// A broker that shuts down refuses new work, lets what it holds end, and tells
// its peers to go elsewhere.
func TestBrokerDrains(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		h := newHeld()
		addWorker(t, b, "echo", nil, h.handle)
		// It comes back when the broker is gone: one that is leaving would refuse it.
		c := addClient(t, b, &omdp.ClientConfig{ReconnectMin: time.Second, ReconnectMax: time.Second})
		raw := dialRaw(t, b.Endpoint())
		running := goCall(t, c, "echo", "running")
		receive(t, "a request in progress", h.began)
		queued := goCall(t, c, "echo", "queued")
		eventually(t, "one is queued", func() bool { return b.Stats().Queued == 1 })
		done := make(chan error, 1)
		go func() { done <- b.Shutdown(within(t)) }()
		eventually(t, "the client knows", func() bool { return c.Stats().State == omdp.Draining })
		raw.say(`C|2|echo|1|"x"|{}`)
		raw.want(t, `C|3|1|{"status":"DRAINING","executed":false}`)
		late := goCall(t, c, "echo", "late") // for the next broker
		eventually(t, "the late one waits", func() bool { return c.Stats().Waiting == 1 })
		close(h.free)
		if r := receive(t, "the end of what was in progress", running); r != (result{"running", nil}) {
			t.Errorf("got %v, want running", r)
		}
		if r := receive(t, "the end of what was queued", queued); r != (result{"queued", nil}) {
			t.Errorf("got %v, want queued: it was accepted", r)
		}
		if err := receive(t, "the shutdown's end", done); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		restartBroker(t, b.Endpoint(), nil)
		if r := receive(t, "the late one's answer", late); r != (result{"late", nil}) {
			t.Errorf("got %v, want late", r)
		}
	})
}

// A shutdown whose context ends, or a second one, closes all the same.
func TestBrokerShutdownCutsOff(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		h := newHeld()
		addWorker(t, b, "echo", nil, h.handle)
		c := addClient(t, b, nil)
		running := goCall(t, c, "echo", "running")
		receive(t, "a request in progress", h.began)
		queued := goCall(t, c, "echo", "queued")
		eventually(t, "one is queued", func() bool { return b.Stats().Queued == 1 })
		ctx, cancel := context.WithTimeoutCause(t.Context(), beat, io.ErrNoProgress)
		defer cancel()
		again := make(chan error, 1)
		go func() { again <- b.Shutdown(ctx) }()
		if err := b.Shutdown(ctx); !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("got %v, want the context's cause", err)
		}
		receive(t, "the other shutdown's end", again)
		failed(t, receive(t, "the end of what was in progress", running).err, omdp.ErrBrokerLost, omdp.MayHaveExecuted)
		failed(t, receive(t, "the end of what was queued", queued).err, omdp.ErrBrokerLost, omdp.NotExecuted)
		if err := b.Shutdown(t.Context()); err != nil {
			t.Errorf("shutdown after it: %v", err)
		}
	})
}

func TestClientDrains(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		h := newHeld()
		addWorker(t, b, "echo", nil, h.handle)
		c := addClient(t, b, nil)
		r := goCall(t, c, "echo", "x")
		receive(t, "the request", h.began)
		done := make(chan error, 1)
		go func() { done <- c.Shutdown(within(t)) }()
		eventually(t, "it drains", func() bool { return c.Stats().State == omdp.Draining })
		_, err := c.Call(within(t), "echo", "refused")
		failed(t, err, omdp.ErrClosed, omdp.NotSent)
		close(h.free)
		if r := receive(t, "the answer", r); r != (result{"x", nil}) {
			t.Errorf("got %v, want x", r)
		}
		if err := receive(t, "the shutdown's end", done); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
}

// Run serves until its context ends.
func TestRunAllRoles(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		endpoint := knownEndpoint(t, transport)
		b, err := omdp.NewBroker(endpoint, nil)
		if err != nil {
			t.Fatal(err)
		}
		w, err := omdp.NewWorker(endpoint, "echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.OnRequest(echo); err != nil {
			t.Fatal(err)
		}
		c, err := omdp.NewClient(endpoint, nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 3)
		var stops []context.CancelFunc
		for _, run := range []func(context.Context) error{c.Run, w.Run, b.Run} {
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			stops = append(stops, stop)
			go func() { done <- run(ctx) }()
		}
		eventually(t, "the client is started", func() bool {
			_, err := c.Call(within(t), "echo", "x")
			return !errors.Is(err, omdp.ErrNotStarted)
		})
		served(t, c, "echo")
		for _, stop := range stops {
			stop()
			if err := receive(t, "the end of Run", done); err != nil {
				t.Errorf("run: %v", err)
			}
		}
	})
}

// A request that is at a worker when its deadline passes ends there too.
func TestDeadlineAfterDispatch(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), &omdp.BrokerConfig{Timeout: -1, MaxTimeout: 4 * beat})
		h := newHeld()
		addWorker(t, b, "echo", nil, h.handle)
		c := addClient(t, b, nil)
		for name, opt := range map[string]omdp.CallOption{"own": omdp.WithTimeout(2 * beat), "MaxTimeout": omdp.WithTimeout(-1)} {
			_, err := c.Call(t.Context(), "echo", name, opt)
			failed(t, err, omdp.ErrTimeout, omdp.MayHaveExecuted)
			// Whose timer is first is a race: a client that gives up cancels.
			if err := receive(t, "the handler's end", h.ended); !errors.Is(err, omdp.ErrTimeout) && !errors.Is(err, omdp.ErrCanceled) {
				t.Errorf("%s: got cause %v, want ErrTimeout or ErrCanceled", name, err)
			}
		}
		eventually(t, "the worker is free", func() bool { return b.Stats().Services["echo"].Free == 1 })
		close(h.free)
		served(t, c, "echo")
	})
}

// The limits of a broker, hit from outside: who hits one is told, nothing was
// executed, and the others go on.
func TestBrokerLimits(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 1000)
	for name, limits := range map[string]omdp.Limits{
		"Outstanding":  {Outstanding: 3},
		"ServiceQueue": {ServiceQueue: 3},
		"ServiceBytes": {ServiceBytes: 3500},
		"TotalQueue":   {TotalQueue: 3},
		"TotalBytes":   {TotalBytes: 3500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: limits})
			c, other := addClient(t, b, nil), addClient(t, b, nil)
			var calls []<-chan result
			for i := range 3 {
				calls = append(calls, goCall(t, c, "echo", body))
				eventually(t, "it is queued", func() bool { return b.Stats().Queued == i+1 })
			}
			_, err := c.Call(within(t), "echo", body)
			failed(t, err, omdp.ErrOverloaded, omdp.NotExecuted)
			if s := b.Stats(); s.Overloaded != 1 || s.Refused != 1 || s.Queued != 3 {
				t.Errorf("got %d overloaded, %d refused, %d queued; want 1, 1, 3", s.Overloaded, s.Refused, s.Queued)
			}
			addWorker(t, b, "echo", nil, echo)
			for _, r := range calls {
				if r := receive(t, "an answer", r); r != (result{body, nil}) {
					t.Errorf("got %.20s, %v; want the body", r.msg, r.err)
				}
			}
			served(t, other, "echo")
			served(t, c, "echo")
		})
	}
	t.Run("Services", func(t *testing.T) {
		t.Parallel()
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: omdp.Limits{Services: 2}})
		addWorker(t, b, "echo", nil, echo)
		c := addClient(t, b, nil)
		waits := c.RequestStream(t.Context(), "second", nil)
		eventually(t, "a second service", func() bool { return len(b.Stats().Services) == 2 })
		_, err := c.Call(within(t), "third", nil)
		failed(t, err, omdp.ErrOverloaded, omdp.NotExecuted)
		w := dialRaw(t, b.Endpoint())
		w.say("W|1|third")
		w.want(t, "W|5")
		served(t, c, "echo")
		waits.Close()
		eventually(t, "a service that nobody needs is forgotten", func() bool { return len(b.Stats().Services) == 1 })
		w.say("W|1|third")
		eventually(t, "the third is there", func() bool { return b.Stats().Services["third"].Workers == 1 })
	})
	t.Run("Workers", func(t *testing.T) {
		t.Parallel()
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: omdp.Limits{Workers: 1}})
		addWorker(t, b, "echo", nil, echo)
		w := dialRaw(t, b.Endpoint())
		w.say("W|1|echo")
		w.want(t, "W|5")
		served(t, addClient(t, b, nil), "echo")
	})
	t.Run("Clients", func(t *testing.T) {
		t.Parallel()
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Limits: omdp.Limits{Clients: 2}})
		addWorker(t, b, "echo", nil, echo)
		one, two := addClient(t, b, nil), addClient(t, b, nil)
		p := dialRaw(t, b.Endpoint())
		p.say(`C|2|echo|1|"x"|{}`)
		p.want(t, `C|3|1|{"status":"OVERLOADED","executed":false}`)
		for range 100 {
			p.say("X|garbage")
		}
		_, err := startClient(t, b.Endpoint(), nil).Call(within(t), "echo", "x")
		failed(t, err, omdp.ErrOverloaded, omdp.NotExecuted)
		served(t, one, "echo")
		served(t, two, "echo")
		closed(t, "client", two)
	})
	t.Run("Concurrency", func(t *testing.T) {
		t.Parallel()
		var l logs
		b := startBroker(t, newEndpoint(t, "inproc"), &omdp.BrokerConfig{Logger: l.logger(), Limits: omdp.Limits{Concurrency: 2}})
		h := newHeld()
		addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 5}, h.handle)
		c := addClient(t, b, nil)
		var calls []<-chan result
		for i := range 4 {
			calls = append(calls, goCall(t, c, "echo", fmt.Sprint(i)))
		}
		eventually(t, "two at the worker, two queued", func() bool { s := b.Stats(); return s.InProgress == 2 && s.Queued == 2 })
		if n := l.count("clipped"); n != 1 {
			t.Errorf("got %d log lines, want 1", n)
		}
		close(h.free)
		for i, r := range calls {
			if r := receive(t, "an answer", r); r != (result{fmt.Sprint(i), nil}) {
				t.Errorf("got %v, want %d", r, i)
			}
		}
	})
	t.Run("MaxFrame", func(t *testing.T) {
		t.Parallel()
		b := startBroker(t, newEndpoint(t, "tcp"), &omdp.BrokerConfig{Limits: omdp.Limits{MaxFrame: 64 << 10}})
		addWorker(t, b, "echo", nil, echo)
		c, large := addClient(t, b, nil), addClient(t, b, nil)
		_, err := large.Call(within(t), "echo", strings.Repeat("x", 100_000))
		failed(t, err, omdp.ErrBrokerLost, omdp.MayHaveExecuted)
		served(t, c, "echo")
		served(t, large, "echo") // on a fresh connection
	})
}

// The limits of a client and a worker are their own.
func TestOwnLimits(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newEndpoint(t, "inproc"), nil)
	large := strings.Repeat("x", 2000)
	ends := make(chan error, 2)
	addWorker(t, b, "large", &omdp.WorkerConfig{MaxBody: 1024}, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
		ends <- res.Send(large)
		ends <- res.End(large)
		return nil
	})
	c := addClient(t, b, &omdp.ClientConfig{MaxBody: 1024, MaxOutstanding: 2})
	_, err := c.Call(within(t), "large", large)
	failed(t, err, omdp.ErrTooLarge, omdp.NotSent)
	_, err = c.Call(within(t), "large", "x")
	e, ok := errors.AsType[*omdp.Error](err)
	if !ok || e.Code != "500" || !strings.Contains(e.Message, "too large") {
		t.Errorf("got %v, want an error of the handler's side that says too large", err)
	}
	for range 2 {
		failed(t, receive(t, "what the handler got", ends), omdp.ErrTooLarge)
	}
	one, two := c.RequestStream(within(t), "nobody", nil), c.RequestStream(within(t), "nobody", nil)
	_, err = c.Call(within(t), "large", "x")
	failed(t, err, omdp.ErrOverloaded, omdp.NotSent)
	one.Close()
	two.Close()

	waits := startClient(t, knownEndpoint(t, "ipc"), &omdp.ClientConfig{SendQueue: 1000}) // ipc: nobody else takes the name meanwhile
	s := waits.RequestStream(within(t), "echo", large)                                    // one of any size is taken
	defer s.Close()
	eventually(t, "it waits", func() bool { return waits.Stats().Waiting == 1 })
	_, err = waits.Call(within(t), "echo", "x")
	failed(t, err, omdp.ErrOverloaded, omdp.NotSent)
}

// The largest values that the limits allow arrive, both ways.
func TestLargestBodies(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		const most, overhead = 8 << 20, len(`{"status":200,"msg":}`) // the defaults, and what a reply in JSON adds
		b := startBroker(t, newEndpoint(t, transport), nil)
		addWorker(t, b, "size", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			return res.End(len(req.Bytes()))
		})
		addWorker(t, b, "make", nil, func(_ context.Context, req *omdp.Request, res *omdp.Response) error {
			var n int
			if err := req.Decode(&n); err != nil {
				return err
			}
			if n == most {
				return res.End(make([]byte, n)) // raw
			}
			return res.End(strings.Repeat("x", n))
		})
		c := addClient(t, b, nil)
		if got, want := call(t, c, "size", strings.Repeat("x", most-2)), fmt.Sprint(most-2); got != want {
			t.Errorf("the worker got %s bytes, want %s", got, want)
		}
		for _, n := range []int{most, most - overhead - 2} {
			if got := call(t, c, "make", n); len(got) != n {
				t.Errorf("got %d bytes, want %d", len(got), n)
			}
		}
		_, err := c.Call(within(t), "make", most-overhead-1)
		if e, ok := errors.AsType[*omdp.Error](err); !ok || e.Code != "500" {
			t.Errorf("one byte more: got %v, want the handler's ErrTooLarge", err)
		}
		if got := call(t, c, "size", "x"); got != "1" {
			t.Errorf("got %s, want 1", got)
		}
	})
}

// What has left is forgotten: nothing grows with the peers that there were.
func TestBrokerForgets(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), &omdp.BrokerConfig{Liveness: brief})
		for range 5 {
			w := addWorker(t, b, "echo", nil, echo)
			c := addClient(t, b, nil)
			served(t, c, "echo")
			closed(t, "client", c)
			closed(t, "worker", w)
		}
		eventually(t, "the broker holds nothing", func() bool {
			s := b.Stats()
			return s.Clients+s.Workers+len(s.Services)+s.Queued+s.InProgress == 0 && s.QueuedBytes+s.OutboxBytes == 0
		})
	})
}

// One connection is enough: many goroutines on one client, many clients.
func TestManyCallers(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, transport string) {
		b := startBroker(t, newEndpoint(t, transport), nil)
		for range 3 {
			addWorker(t, b, "echo", &omdp.WorkerConfig{Concurrency: 20}, echo)
		}
		failures := make(chan error, 40)
		for range 4 {
			c := addClient(t, b, nil)
			for k := range 10 {
				go func() {
					for i := range 50 {
						want := fmt.Sprint(k, "-", i)
						if m, err := c.Call(within(t), "echo", want); err != nil || m.String() != want {
							failures <- fmt.Errorf("got %q, %w; want %s", m, err, want)
							return
						}
					}
					failures <- nil
				}()
			}
		}
		for range 40 {
			if err := receive(t, "a caller's end", failures); err != nil {
				t.Error(err)
			}
		}
		if s := b.Stats(); s.Completed != 2000 || s.Accepted != 2000 {
			t.Errorf("got %d accepted, %d completed; want 2,000", s.Accepted, s.Completed)
		}
	})
}

// A window of a call's own holds in both directions: the worker may be so many
// bytes ahead of a reader that is away, and not more.
func TestWithWindow(t *testing.T) {
	t.Parallel()
	const chunk = 16 << 10
	for _, window := range []int{64 << 10, 1 << 20} {
		b := startBroker(t, newEndpoint(t, "inproc"), nil)
		wrote := make(chan int, 1000)
		addWorker(t, b, "flood", nil, func(_ context.Context, _ *omdp.Request, res *omdp.Response) error {
			for n := 0; ; n += chunk {
				if _, err := res.Write(make([]byte, chunk)); err != nil {
					return err
				}
				wrote <- n + chunk
			}
		})
		c := addClient(t, b, nil)
		s := c.RequestStream(within(t), "flood", nil, omdp.WithWindow(window))
		want := (window - window/64) / chunk * chunk // each partial counts 64 bytes more
		for n := 0; n < want-chunk; {
			n = receive(t, "a chunk", wrote)
		}
		if _, err := io.ReadFull(s, make([]byte, 2*window)); err != nil {
			t.Error(err)
		}
		s.Close()
	}
}
