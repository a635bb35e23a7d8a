//go:build cgo

package zsock

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pebbe/zmq4"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// The facts are numbered as in the list of measured facts about libzmq that the
// design rests on.

func init() { helpers["claimed"] = claimedProcess }

// unseeded is the identity that a ROUTER gives its first anonymous peer when
// nobody seeds rand().
const unseeded = "006b8b4567"

// Fact 1: automatic identities are not predictable, as rand() is seeded before a
// ROUTER exists.
func TestFact1AutomaticIdentitiesAreRandom(t *testing.T) {
	seen := map[string]bool{unseeded: true}
	for range 3 {
		r := newTestRouter(t, Options{})
		bound := bindTest(t, r, inproc())
		z := rawSocket(t, zmq4.DEALER, "", bound)
		if _, err := z.SendMessage("x"); err != nil {
			t.Fatal(err)
		}
		id := hex.EncodeToString(receiveOne(t, r, new(batch.In))[0])
		if seen[id] || len(id) != 10 || id[:2] != "00" {
			t.Errorf("got identity %s, want a new one of five bytes", id)
		}
		seen[id] = true
		closeAll(t, r.Close)
	}
}

// Fact 1: a peer that claims the well-known automatic identity makes the next
// anonymous connect abort the process, if that gets the same. In a process of its
// own, as an abort takes the tests with it.
func TestFact1ClaimedIdentityDoesNotAbort(t *testing.T) {
	line, cmd := startProcess(t, "claimed")
	if line != "served" {
		t.Errorf("got %q from %v, want the anonymous peer served", line, cmd)
	}
}

func claimedProcess() {
	r, err := NewRouter(Options{})
	if err != nil {
		panic(err)
	}
	bound, err := r.Bind("tcp://127.0.0.1:*")
	if err != nil {
		panic(err)
	}
	send := func(id []byte) *zmq4.Socket {
		z, err := newSocket(zmq4.DEALER)
		if err == nil && id != nil {
			err = z.SetIdentity(string(id))
		}
		if err == nil {
			err = z.Connect(bound)
		}
		if err == nil {
			_, err = z.SendMessage("x")
		}
		if err != nil {
			panic(err)
		}
		return z
	}
	id, _ := hex.DecodeString(unseeded)
	var in batch.In
	for _, id := range [][]byte{id, nil, nil} {
		z := send(id)
		for in.Next() == nil {
			if _, err := r.Exchange(nil, &in); err != nil {
				panic(err)
			}
			if in.Empty() {
				_ = r.Wait(time.Time{})
			}
		}
		_ = closeSocket(z)
	}
	fmt.Println("served")
	_ = r.Close()
}

// Fact 8: our identities are fresh, random and printable.
func TestFact8Identity(t *testing.T) {
	seen := map[string]bool{}
	for range 3 {
		r := newTestRouter(t, Options{})
		c := dialTest(t, Options{}, bindTest(t, r, inproc()))
		c.send("x")
		id := string(receiveOne(t, r, new(batch.In))[0])
		printable := strings.IndexFunc(id, func(r rune) bool { return r <= ' ' || r >= 127 }) < 0
		if len(id) != 22 || !printable || seen[id] {
			t.Errorf("got identity %q, want 22 printable characters, fresh", id)
		}
		seen[id] = true
		closeAll(t, c.close, r.Close)
	}
}

// Fact 8: a peer that comes back under its identity is served although its dead
// connection is still there.
func TestFact8Handover(t *testing.T) {
	r := newTestRouter(t, Options{})
	bound := bindTest(t, r, "tcp://127.0.0.1:*")
	var in batch.In
	for i := range 3 {
		z := rawSocket(t, zmq4.DEALER, "fixed", bound)
		if _, err := z.SendMessage(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		if m := receiveOne(t, r, &in); string(m[1]) != fmt.Sprint(i) {
			t.Fatalf("got %q, want %d", m[1], i)
		}
		var out batch.Out
		put(&out, "fixed", fmt.Sprint("re ", i))
		if _, err := r.Exchange(&out, &in); err != nil {
			t.Fatal(err)
		}
		if m, err := z.RecvMessage(0); err != nil || m[0] != fmt.Sprint("re ", i) {
			t.Errorf("got %q, %v, want the reply on the new connection", m, err)
		}
	}
	closeAll(t, r.Close)
}

// Fact 10: closing waits for what was sent for at most Linger, and the context
// ends with the last socket.
func TestFact10LingerIsBounded(t *testing.T) {
	if OpenSockets() != 0 {
		t.Fatalf("%d sockets are open", OpenSockets())
	}
	for _, linger := range []time.Duration{-1, 50 * time.Millisecond} {

		r := newTestRouter(t, Options{Linger: linger})
		bound := bindTest(t, r, "tcp://127.0.0.1:*")
		_, sink := startProcess(t, "sink", bound)
		var in batch.In
		id := string(receiveOne(t, r, &in)[0])
		if err := sink.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		var out batch.Out
		for range 200 {
			put(&out, id, strings.Repeat("x", 64<<10))
		}
		if _, err := r.Exchange(&out, &in); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		closeAll(t, r.Close)
		if d := time.Since(start); d > 5*time.Second || d < linger/2 {
			t.Errorf("Close took %v with a linger of %v", d, linger)
		}
		_ = sink.Process.Signal(syscall.SIGCONT)
		if OpenSockets() != 0 || shared.ctx != nil {
			t.Errorf("%d sockets, context %v after the last Close", OpenSockets(), shared.ctx)
		}
	}
}

// Fact 10: the context is our own, not zmq4's default one.
func TestFact10OwnContext(t *testing.T) {
	name := inproc()
	r := newTestRouter(t, Options{})
	bindTest(t, r, name)
	other, err := zmq4.NewSocket(zmq4.ROUTER) // in the default context
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Bind(name); err != nil {
		t.Errorf("the same inproc name in the default context: %v", err)
	}
	closeAll(t, other.Close, r.Close)
}

// Fact 11: EINTR, which Go's preemption causes, neither fails a call nor moves a
// deadline.
func TestFact11SignalStorm(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		r := newTestRouter(t, o)
		bound := bindTest(t, r, "tcp://127.0.0.1:*")
		s := serve(r, echo)
		c := dialTest(t, o, bound)
		stop := make(chan struct{})
		var storm sync.WaitGroup
		storm.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = syscall.Kill(os.Getpid(), syscall.SIGURG)
				}
			}
		})
		for i := range 500 {
			c.send(fmt.Sprint(i))
			if got := c.receive(t); got[0] != fmt.Sprint(i) {
				t.Fatalf("got %q, want %d", got, i)
			}
		}
		idle := newTestRouter(t, o)
		start := time.Now()
		for time.Since(start) < 50*time.Millisecond {
			if err := idle.Wait(start.Add(50 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("a wait of 50 ms took %v under signals", d)
		}
		close(stop)
		storm.Wait()
		closeAll(t, c.close, s.close, idle.Close)
	})
}

// Fact 12: the descriptor is edge-triggered, and sends of others in between must
// not swallow a wake-up. One caller, replies that come while it still sends.
func TestFact12NoLostWakeUps(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		for _, endpoint := range []string{"tcp://127.0.0.1:*", inproc()} {
			r := newTestRouter(t, o)
			bound := bindTest(t, r, endpoint)
			s := serve(r, echo)
			c := dialTest(t, o, bound)
			for i := range 2000 {
				c.send("a")
				if i%3 == 0 {
					runtime.Gosched()
				}
				c.send("b")
				c.receive(t)
				c.receive(t)
			}
			closeAll(t, c.close, s.close)
		}
	})
}

// Fact 13 and 14: the options that keep libzmq from holding messages for nobody,
// and from keeping a half-open connection.
func TestFact13And14Options(t *testing.T) {
	c, err := Dial(ConnOptions{Endpoint: inproc()})
	if err != nil {
		t.Fatal(err)
	}
	z := c.s.z
	get := func(name string, want any, got any, err error) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, want)
		}
	}
	immediate, err := z.GetImmediate()
	get("IMMEDIATE", true, immediate, err)
	keepalive, err := z.GetTcpKeepalive()
	get("TCP_KEEPALIVE", 1, keepalive, err)
	maxrt, err := z.GetTcpMaxrt()
	get("TCP_MAXRT", tcpMaxRT, maxrt, err)
	handshake, err := z.GetHandshakeIvl()
	get("HANDSHAKE_IVL", 5*time.Second, handshake, err)
	linger, err := z.GetLinger()
	get("LINGER", time.Second, linger, err)
	size, err := z.GetMaxmsgsize()
	get("MAXMSGSIZE", int64(8<<20), size, err)
	hwm, err := z.GetSndhwm()
	get("SNDHWM", defaultHWM, hwm, err)
	hwm, err = z.GetRcvhwm()
	get("RCVHWM", defaultHWM, hwm, err)
	backlog, err := z.GetBacklog()
	get("BACKLOG", 1024, backlog, err)
	closeAll(t, c.Close)

	off := Options{SndHWM: -1, MaxMsgSize: -1, Linger: -1, HandshakeTimeout: -1}.withDefaults()
	if off.SndHWM != 0 || off.MaxMsgSize != -1 || off.Linger != 0 || off.HandshakeTimeout != 0 {
		t.Errorf("negative values: got %+v, want off", off)
	}
}

// Fact 15: over inproc a client may come before its broker.
func TestFact15InprocConnectBeforeBind(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		for range 20 {
			endpoint := inproc()
			c := dialTest(t, o, endpoint)
			c.send("early")
			r := newTestRouter(t, o)
			parked := make(chan []string, 1)
			bindTest(t, r, endpoint)
			go func() { parked <- toStrings(receiveOne(t, r, new(batch.In))) }()
			if got := receive(t, parked); len(got) != 2 || got[1] != "early" {
				t.Fatalf("got %q, want early", got)
			}
			closeAll(t, c.close, r.Close)
		}
	})
}

// Fact 16: the limit of descriptors can be read, for a check at the start.
func TestFact16FileLimit(t *testing.T) {
	if soft, ok := FileLimit(); !ok || soft == 0 {
		t.Errorf("got %d, %v, want the limit", soft, ok)
	}
}

// Fact 17: waiting holds no OS thread, and idle uses no CPU.
func TestFact17IdleHoldsNoThreadAndNoCPU(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		r := newTestRouter(t, o)
		bound := bindTest(t, r, "tcp://127.0.0.1:*")
		s := serve(r, echo)
		before := pprof.Lookup("threadcreate").Count()
		var cs []*client
		for range 50 {
			c := dialTest(t, o, bound)
			c.send("x")
			c.receive(t)
			cs = append(cs, c)
		}
		if n := pprof.Lookup("threadcreate").Count() - before; n > 8 {
			t.Errorf("50 waiting Conns made %d threads, want a few at most", n)
		}
		defer debug.SetGCPercent(debug.SetGCPercent(-1))
		idle := newTestRouter(t, o)
		const wait = 300 * time.Millisecond
		busy, start := cpuTime(t), time.Now()
		for time.Since(start) < wait {
			if err := idle.Wait(start.Add(wait)); err != nil {
				t.Fatal(err)
			}
		}
		if d := cpuTime(t) - busy; d > wait/10 {
			t.Errorf("idle used %v of CPU in %v", d, wait)
		}
		for _, c := range cs {
			closeAll(t, c.close)
		}
		closeAll(t, s.close, idle.Close)
	})
}

func cpuTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestBorrowedFramesAreOverwritten(t *testing.T) {
	if !checksBorrows() {
		t.Skip("needs -race or -tags omdp_debug")
	}
	both(t, func(t *testing.T, o Options) {
		r := newTestRouter(t, o)
		c := dialTest(t, o, bindTest(t, r, inproc()))
		c.send("secret")
		var in batch.In
		m := receiveOne(t, r, &in)
		frame := m[1]
		if string(frame) != "secret" {
			t.Fatalf("got %q", frame)
		}
		if _, err := r.Exchange(nil, &in); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(frame, bytes.Repeat([]byte{0xDB}, 6)) {
			t.Errorf("got %q in a borrowed frame after the next exchange, want it overwritten", frame)
		}
		closeAll(t, c.close, r.Close)
	})
}

// checksBorrows tells whether this build checks borrowed buffers.
func checksBorrows() bool {
	in := batch.In{B: []byte{1}}
	b := in.B
	in.Invalidate()
	return b[0] != 1
}

func TestFallbackIsChosen(t *testing.T) {
	engine := func(o Options) bool {
		r := newTestRouter(t, o)
		defer func() { closeAll(t, r.Close) }()
		return r.s.st == nil
	}
	if !engine(Options{Fallback: true}) {
		t.Error("Options.Fallback: got the C exchange")
	}
	t.Setenv("OMDP_ZSOCK", "")
	if engine(Options{}) {
		t.Error("by default: got the fallback")
	}
	t.Setenv("OMDP_ZSOCK", "fallback")
	if !engine(Options{}) {
		t.Error("OMDP_ZSOCK=fallback: got the C exchange")
	}
	z, err := newSocket(zmq4.PAIR)
	if err != nil {
		t.Fatal(err)
	}
	if handle(z, zmq4.PAIR) == nil {
		t.Error("the handle of an open socket was not found")
	}
	if handle(z, zmq4.ROUTER) != nil {
		t.Error("a handle of another type was taken")
	}
	closeAll(t, func() error { return closeSocket(z) })
	if handle(z, zmq4.PAIR) != nil {
		t.Error("the handle of a closed socket was taken")
	}
}

func TestVersion(t *testing.T) {
	if major, minor, _ := Version(); major != 4 || minor < 3 {
		t.Errorf("got libzmq %d.%d, want 4.3 or newer", major, minor)
	}
}

// A build without cgo fails with a sentence that says what is missing.
func TestBuildWithoutCgoSaysSo(t *testing.T) {
	cmd := exec.Command("go", "build", "-o", os.DevNull, ".")
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "CGO_ENABLED=") }), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("no go command")
	}
	if err == nil || !strings.Contains(string(out), "omdp_needs_cgo_and_libzmq__set_CGO_ENABLED_1") {
		t.Errorf("got %v:\n%s", err, out)
	}
}

// A libzmq that is too old fails the build with a sentence.
func TestOldLibzmqSaysSo(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no cc")
	}
	dir := t.TempDir()
	old := "#define ZMQ_MAKE_VERSION(a,b,c) ((a)*10000+(b)*100+(c))\n#define ZMQ_VERSION ZMQ_MAKE_VERSION(4,2,5)\ntypedef struct {char c[64];} zmq_msg_t;\n"
	if err := os.WriteFile(dir+"/zmq.h", []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(cc, "-fsyntax-only", "-I", dir, "-x", "c", "exchange.h").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "omdp needs libzmq 4.3 or newer") {
		t.Errorf("got %v:\n%s", err, out)
	}
}
