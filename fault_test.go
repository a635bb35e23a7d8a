package omdp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/zmq-omdp/omdp"
)

// What happens when something fails, stops, is slow or is too much: who is
// told, what, and that everybody else goes on.

// childEnv makes the test binary a peer in a process of its own, which can be
// killed and stopped: "broker ENDPOINT", "worker ENDPOINT", "client ENDPOINT", "limited ENDPOINT".
const childEnv = "OMDP_TEST_CHILD"

// child runs until its standard input ends. It prints a line when it is ready.
func child(role string) {
	kind, endpoint, _ := strings.Cut(role, " ")
	if kind == "limited" {
		limited(endpoint)
		return
	}
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
				p.say(`C|8|{"v":1,"id":"life2","hb":1}`) // 1 ms × 100
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
