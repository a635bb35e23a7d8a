package main

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// relayed gives the two ends of a connection through a fresh relay.
func relayed(t *testing.T, late time.Duration, rate int) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	r, err := newRelay("tcp://"+l.Addr().String(), late, rate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.listener.Close() })
	a, err := net.Dial("tcp", strings.TrimPrefix(r.endpoint(), "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	for _, c := range []net.Conn{a, b} {
		c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// All bytes come, in both directions at a time, no sooner than the rate
// allows, and so does the end of one direction alone.
func TestRelayCarriesItsRate(t *testing.T) {
	const size, rate = 2 << 20, 16 << 20
	near, far := relayed(t, 10*time.Millisecond, rate)
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(i * i >> 8)
	}
	began := time.Now()
	for _, c := range []*net.TCPConn{near, far} {
		go func() {
			_, _ = c.Write(want)
			_ = c.CloseWrite()
		}()
	}
	for _, c := range []*net.TCPConn{near, far} {
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, %v, want the %d that were sent", len(got), err, size)
		}
	}
	least := time.Second * size / rate
	if took := time.Since(began); took < least || took > 8*least {
		t.Errorf("%d bytes took %v, want %v and a little more", size, took, least)
	}
}

// What is sent after a while is as late as what is sent at once.
func TestRelayDelays(t *testing.T) {
	const late = 25 * time.Millisecond
	near, far := relayed(t, late, 1<<30)
	go func() { _, _ = io.Copy(far, far) }()
	least := time.Hour
	for range 5 {
		began := time.Now()
		if _, err := near.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(near, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		if took < 2*late {
			t.Errorf("there and back in %v, want at least %v", took, 2*late)
		}
		least = min(least, took)
	}
	if least > 3*late {
		t.Errorf("there and back in %v at the best, want little more than %v", least, 2*late)
	}
}

// What one side resets ends at the other, whoever sends.
func TestRelayEndsBothSides(t *testing.T) {
	near, far := relayed(t, time.Millisecond, 1<<20)
	go func() { _, _ = near.Write(make([]byte, 8<<20)) }()
	if _, err := far.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	far.SetLinger(0)
	far.Close()
	if _, err := io.Copy(io.Discard, near); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("the other side: %v", err)
	}
}

// The case tells a window that grows from one that does not: the link carries
// eight times what the default window lets through.
func TestLinkNeedsGrowth(t *testing.T) {
	link := delayedLink()
	for _, v := range []struct {
		stack       string
		maxWindow   int
		least, most float64 // of the link's rate
	}{
		{"tcp", 0, 0.8, 1.1},
		{"omdp", 0, 0.5, 1.1},
		{"omdp", -1, 0.03, 0.25},
	} {
		w := workOf(link, v.stack, timing{measure: 300 * time.Millisecond})
		w.Rate, w.MaxWindow = 40_000_000, v.maxWindow
		o, err := measureOnce(t.Context(), w)
		if err != nil {
			t.Errorf("%s, MaxWindow %d: %v", v.stack, v.maxWindow, err)
			continue
		}
		got := float64(o.Count) * chunk / o.Seconds / float64(w.Rate)
		if got < v.least || got > v.most {
			t.Errorf("%s, MaxWindow %d: %.2f of the link's rate, want %v to %v", v.stack, v.maxWindow, got, v.least, v.most)
		}
		t.Logf("%s, MaxWindow %d: %.2f of the link's rate", v.stack, v.maxWindow, got)
	}
}

// The case tells a worker with places for all from one whose only place the
// stuck stream takes.
func TestBesideStuck(t *testing.T) {
	for _, v := range []struct {
		places      int
		least, most float64
	}{{workerConcurrency, 0.4, 1e9}, {1, 0, 0.4}} {
		w := workOf(besideStuck(1), "omdp", timing{warm: 50 * time.Millisecond, measure: 400 * time.Millisecond})
		w.Concurrency = v.places
		o, err := measureOnce(t.Context(), w)
		if err != nil || len(o.Beside) != len(besideKinds) {
			t.Errorf("%d places: got %+v, %v", v.places, o.Beside, err)
			continue
		}
		for i, b := range o.Beside {
			if b.Without <= 0 || b.Ratio < v.least || b.Ratio > v.most {
				t.Errorf("%d places, %s: got %+v, want a ratio of %v to %v", v.places, besideKinds[i], b, v.least, v.most)
			}
			t.Logf("%d places, %s: %+v", v.places, besideKinds[i], b)
		}
	}
}
