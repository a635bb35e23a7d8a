//go:build cgo

package zsock

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pebbe/zmq4"

	"github.com/zmq-omdp/omdp/internal/batch"
)

func TestRoundTrip(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		for name, endpoint := range endpoints(t) {
			t.Run(name, func(t *testing.T) {
				r := newTestRouter(t, o)
				bound := bindTest(t, r, endpoint)
				s := serve(r, echo)
				c := dialTest(t, o, bound)
				for i := range 300 {
					want := []string{fmt.Sprint(i), "", strings.Repeat("x", i)}
					c.send(want...)
					if got := c.receive(t); !slices.Equal(got, want) {
						t.Fatalf("got %q, want %q", got, want)
					}
				}
				closeAll(t, c.close, s.close)
			})
		}
	})
}

func TestBindGivesADialableEndpoint(t *testing.T) {
	r := newTestRouter(t, Options{})
	defer func() { closeAll(t, r.Close) }()
	for endpoint, prefix := range map[string]string{
		"tcp://127.0.0.1:*": "tcp://127.0.0.1:",
		"tcp://*:*":         "tcp://127.0.0.1:",
		"tcp://0.0.0.0:0":   "tcp://127.0.0.1:",
		"inproc://dialable": "inproc://dialable",
	} {
		bound := bindTest(t, r, endpoint)
		if !strings.HasPrefix(bound, prefix) || strings.HasSuffix(bound, ":0") || strings.Contains(bound, "\x00") {
			t.Errorf("bind %q: got %q, want it to start with %q", endpoint, bound, prefix)
		}
	}
	if got := dialable("tcp://[::]:5555"); got != "tcp://[::1]:5555" {
		t.Errorf("got %q, want the loopback address", got)
	}
}

func TestBindErrors(t *testing.T) {
	r := newTestRouter(t, Options{})
	taken := bindTest(t, r, "tcp://127.0.0.1:*")
	r2 := newTestRouter(t, Options{})
	for _, endpoint := range []string{"", "nonsense", "tcp://", "tcp://127.0.0.1:99999", "foo://x", taken} {
		_, err := r2.Bind(endpoint)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", endpoint)) {
			t.Errorf("bind %q: got error %v, want one that names it", endpoint, err)
		}
		if endpoint == taken && !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("bind %q: got error %v, want EADDRINUSE", endpoint, err)
		}
		if endpoint == taken {
			continue
		}
		if _, err := Dial(ConnOptions{Endpoint: endpoint}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", endpoint)) {
			t.Errorf("dial %q: got error %v, want one that names it", endpoint, err)
		}
	}
	closeAll(t, r.Close, r2.Close)
}

// A socket is released in the background; the same endpoint can be bound again
// at once all the same, while others keep the context.
func TestBindAgainAfterClose(t *testing.T) {
	other := newTestRouter(t, Options{})
	for _, endpoint := range []string{"tcp://127.0.0.1:*", inproc()} {
		for range 20 {
			r := newTestRouter(t, Options{})
			endpoint = bindTest(t, r, endpoint)
			closeAll(t, r.Close)
		}
	}
	closeAll(t, other.Close)
}

// Fact 6: with MANDATORY and DONTWAIT an unknown peer is Unreachable, a full pipe
// is Again, and neither blocks.
func TestFact6UnreachableAndAgain(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		o.SndHWM, o.RcvHWM = 5, 5
		r := newTestRouter(t, o)
		bound := bindTest(t, r, inproc())
		var in batch.In
		peer := func(id string) *zmq4.Socket {
			z := rawSocket(t, zmq4.DEALER, id, bound)
			if _, err := z.SendMessage("hello"); err != nil {
				t.Fatal(err)
			}
			if m := receiveOne(t, r, &in); string(m[0]) != id {
				t.Fatalf("got a message of %q, want %q", m[0], id)
			}
			return z
		}
		slow := peer("slow")
		fast := peer("fast")
		if err := fast.SetRcvhwm(0); err != nil {
			t.Fatal(err)
		}

		var out batch.Out
		for i := range 3000 {
			put(&out, "slow", fmt.Sprint(i))
		}
		put(&out, "nobody", "x")
		put(&out, "fast", "x")
		put(&out, "nobody", "y")
		put(&out, "slow", "last")
		if _, err := r.Exchange(&out, &in); err != nil {
			t.Fatal(err)
		}
		taken := slices.Index(out.Results, batch.Again)
		if taken < 1 || taken >= 3000 {
			t.Fatalf("got the first Again at %d, want the pipe to fill up", taken)
		}
		for i, got := range out.Results {
			want := batch.Sent
			switch {
			case i == 3000 || i == 3002:
				want = batch.Unreachable
			case i != 3001 && i >= taken: // none overtakes
				want = batch.Again
			}
			if got != want {
				t.Fatalf("message %d: got %d, want %d", i, got, want)
			}
		}
		for i := range taken {
			m, err := slow.RecvMessage(0)
			if err != nil || m[0] != fmt.Sprint(i) {
				t.Fatalf("message %d: got %q, %v", i, m, err)
			}
		}
		closeAll(t, r.Close)
	})
}

// More peers that refuse than are remembered: the rest of the batch is left.
func TestManyBlockedPeers(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		r := newTestRouter(t, o)
		bound := bindTest(t, r, inproc())
		c := dialTest(t, o, bound)
		c.send("hello")
		var in batch.In
		id := string(receiveOne(t, r, &in)[0])
		var out batch.Out
		for i := range maxRefused + 1 {
			put(&out, fmt.Sprint("nobody-", i), "x")
		}
		put(&out, id, "late")
		if _, err := r.Exchange(&out, &in); err != nil {
			t.Fatal(err)
		}
		for i, got := range out.Results {
			want := batch.Unreachable
			if i > maxRefused {
				want = batch.Again
			}
			if got != want {
				t.Errorf("message %d: got %d, want %d", i, got, want)
			}
		}
		closeAll(t, c.close, r.Close)
	})
}

// Fact 7: a client that reads at full speed still gets a burst by and by, with
// Again in between, and in order.
func TestFact7Burst(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		const n = 20_000
		r := newTestRouter(t, o)
		bound := bindTest(t, r, "tcp://127.0.0.1:*")
		c := dialTest(t, o, bound)
		c.send("go")
		var in batch.In
		id := string(receiveOne(t, r, &in)[0])
		var out batch.Out
		for i := range n {
			put(&out, id, fmt.Sprint(i))
		}
		for out.Len() > 0 {
			if _, err := r.Exchange(&out, &in); err != nil {
				t.Fatal(err)
			}
			k := slices.IndexFunc(out.Results, func(st batch.Status) bool { return st != batch.Sent })
			if k < 0 {
				k = out.Len()
			}
			out.DropFront(k)
			if out.Len() > 0 {
				if err := r.Wait(time.Now().Add(time.Millisecond)); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i := range n {
			if got := c.receive(t); got[0] != fmt.Sprint(i) {
				t.Fatalf("got %q, want %d", got, i)
			}
		}
		closeAll(t, c.close, r.Close)
	})
}

func TestLargeFramesAndManyFrames(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		r := newTestRouter(t, o)
		bound := bindTest(t, r, "tcp://127.0.0.1:*")
		c := dialTest(t, o, bound)
		body := strings.Repeat("0123456789abcdef", 8<<20/16)
		long := make([]string, 100)
		for i := range long {
			long[i] = fmt.Sprint(i)
		}
		c.send("before")
		c.send("large", body)
		c.send(long...)
		c.send("after", "")

		var in batch.In
		if m := receiveOne(t, r, &in); len(m) != 2 || string(m[1]) != "before" {
			t.Errorf("got %d frames, want before", len(m))
		}
		next := func() [][]byte {
			if m := in.Next(); m != nil {
				return m
			}
			return receiveOne(t, r, &in)
		}
		if m := next(); len(m) != 3 || string(m[2]) != body {
			t.Errorf("got %d frames, want the large one whole", len(m))
		}
		if m := next(); len(m) != defaultMaxFrames+2 || string(m[defaultMaxFrames+1]) != fmt.Sprint(defaultMaxFrames) {
			t.Errorf("got %d frames of a long message, want the id and the first %d", len(m), defaultMaxFrames+1)
		}
		if m := next(); len(m) != 3 || string(m[1]) != "after" || len(m[2]) != 0 {
			t.Errorf("got %d frames, want after", len(m))
		}
		for range largeTurns + 2 {
			if _, err := r.Exchange(nil, &in); err != nil {
				t.Fatal(err)
			}
		}
		if cap(in.B) > 2*roomSoft {
			t.Errorf("got room for %d bytes long after a large message, want %d", cap(in.B), roomSoft)
		}
		closeAll(t, c.close, r.Close)
	})
}

// Messages of all sizes and numbers of frames cross whole and in order, however
// the room for a batch cuts them.
func TestRandomMessages(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		rnd := rand.New(rand.NewPCG(seed, 0))
		noise := make([]byte, 400<<10)
		for i := range noise {
			noise[i] = byte(rnd.Uint32())
		}
		r := newTestRouter(t, o)
		bound := bindTest(t, r, "tcp://127.0.0.1:*")
		s := serve(r, echo)
		c := dialTest(t, o, bound)
		var want [][]string
		for range 300 {
			m := make([]string, 1+rnd.IntN(defaultMaxFrames))
			for i := range m {
				n := rnd.IntN(64)
				if rnd.IntN(30) == 0 {
					n = rnd.IntN(len(noise))
				}
				start := rnd.IntN(len(noise) - n + 1)
				m[i] = string(noise[start : start+n])
			}
			want = append(want, m)
			c.send(m...)
		}
		for i := range want {
			if got := c.receive(t); !slices.Equal(got, want[i]) {
				t.Fatalf("message %d: got %d frames, want %d, or other bytes", i, len(got), len(want[i]))
			}
		}
		closeAll(t, c.close, s.close)
	})
}

func TestTooLargeFrameEndsItsSender(t *testing.T) {
	r := newTestRouter(t, Options{MaxMsgSize: 1000})
	c := dialTest(t, Options{}, bindTest(t, r, "tcp://127.0.0.1:*"))
	c.send(strings.Repeat("x", 2000))
	if err := receive(t, c.done); !errors.Is(err, ErrLost) {
		t.Errorf("Run: got %v, want ErrLost", err)
	}
	closeAll(t, c.Close, r.Close)
}

func TestWake(t *testing.T) {
	r := newTestRouter(t, Options{})
	for range 100 {
		r.Wake() // before the wait
		r.Wake()
		if err := r.Wait(time.Time{}); err != nil {
			t.Fatal(err)
		}
		woken := make(chan error, 1)
		go func() { woken <- r.Wait(time.Time{}) }()
		r.Wake()
		if err := receive(t, woken); err != nil {
			t.Fatal(err)
		}
	}
	// A deadline after wakes, and none after a deadline.
	start := time.Now()
	for wait := 20 * time.Millisecond; time.Since(start) < wait; {
		if err := r.Wait(start.Add(wait)); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("waited %v for a deadline of 20 ms", d)
	}
	closeAll(t, r.Close, r.Close)
	r.Wake()
	if err := r.Wait(time.Time{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Wait after Close: got %v, want ErrClosed", err)
	}
	if _, err := r.Exchange(nil, new(batch.In)); !errors.Is(err, ErrClosed) {
		t.Errorf("Exchange after Close: got %v, want ErrClosed", err)
	}
	if _, err := r.Bind("inproc://late"); !errors.Is(err, ErrClosed) {
		t.Errorf("Bind after Close: got %v, want ErrClosed", err)
	}
}

// Fact 16: silent connections are freed by the handshake timeout.
func TestFact16SilentConnectionIsClosed(t *testing.T) {
	r := newTestRouter(t, Options{HandshakeTimeout: 50 * time.Millisecond})
	bound := bindTest(t, r, "tcp://127.0.0.1:*")
	conn, err := net.Dial("tcp", strings.TrimPrefix(bound, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 256)
	for err == nil {
		_, err = conn.Read(buf)
	}
	if errors.Is(err, syscall.ETIMEDOUT) || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the connection stayed: %v", err)
	}
	_ = conn.Close()
	closeAll(t, r.Close)
}

// A message with no frames is our own mistake: Failed, and the socket says so.
func TestEmptyMessageFails(t *testing.T) {
	both(t, func(t *testing.T, o Options) {
		r := newTestRouter(t, o)
		var out batch.Out
		put(&out)
		put(&out, "id")
		if _, err := r.Exchange(&out, new(batch.In)); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("got %v, want EINVAL", err)
		}
		if !slices.Equal(out.Results, []batch.Status{batch.Failed, batch.Failed}) {
			t.Errorf("got %v, want both Failed", out.Results)
		}
		closeAll(t, r.Close)
	})
}
