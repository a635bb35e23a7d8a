package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// proxied gives the two ends of a connection through a fresh proxy.
func proxied(t *testing.T) (p *proxy, peer, target net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if p, err = newProxy(l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	if peer, err = net.Dial("tcp", p.addr()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	if target, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { target.Close() })
	echo(t, peer, target, "hello") // now both directions are known to it
	echo(t, target, peer, "there")
	return p, peer, target
}

// limit is how long anything may take on a slow machine.
const limit = 20 * time.Second

// echo sends text and wants it at the other end.
func echo(t *testing.T, from, to net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(from, text); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(text))
	to.SetReadDeadline(time.Now().Add(limit))
	if _, err := io.ReadFull(to, b); err != nil || string(b) != text {
		t.Fatalf("got %q, %v, want %q", b, err, text)
	}
}

func TestProxyPassesOn(t *testing.T) {
	_, peer, target := proxied(t)
	want := appendFill(nil, ident{1, 1, 1}, ident{}, 0, 1<<20)
	go func() {
		_, _ = peer.Write(want)
		_ = peer.(*net.TCPConn).CloseWrite()
	}()
	target.SetReadDeadline(time.Now().Add(limit))
	got, err := io.ReadAll(target)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v, want the %d that were sent", len(got), err, len(want))
	}
}

func TestProxyCuts(t *testing.T) {
	for _, reset := range []bool{false, true} {
		p, peer, target := proxied(t)
		c := p.pick(3)
		if c == nil {
			t.Fatal("no connection to pick")
		}
		c.cut(reset)
		for _, end := range []net.Conn{peer, target} {
			end.SetReadDeadline(time.Now().Add(limit))
			_, err := end.Read(make([]byte, 1))
			if reset && !errors.Is(err, syscall.ECONNRESET) || !reset && err != io.EOF {
				t.Errorf("reset %v: got %v", reset, err)
			}
		}
		for until := time.Now().Add(limit); p.pick(0) != nil; {
			if time.Now().After(until) {
				t.Fatal("the proxy still holds the connection")
			}
			<-time.After(time.Millisecond)
		}
	}
}

func TestProxyHalfOpens(t *testing.T) {
	p, peer, target := proxied(t)
	c := p.pick(0)
	c.halfOpen(up)
	if _, err := io.WriteString(peer, "lost"); err != nil {
		t.Fatal(err)
	}
	echo(t, target, peer, "the other way is open")
	c.halfOpen(down)
	if _, err := io.WriteString(target, "lost too"); err != nil {
		t.Fatal(err)
	}
	peer.Close() // and the target does not learn of it
	target.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := target.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("half-open: got %d bytes, %v, want silence", n, err)
	}
	c.cut(true)
	target.SetReadDeadline(time.Now().Add(limit))
	if _, err := target.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("cut: got %v", err)
	}
}

// What is delayed or throttled comes late, and whole.
func TestProxyDelaysAndThrottles(t *testing.T) {
	p, peer, target := proxied(t)
	c := p.pick(0)
	const late = 50 * time.Millisecond
	c.delay(late)
	began := time.Now()
	echo(t, peer, target, "late")
	if took := time.Since(began); took < late {
		t.Errorf("delayed: it took %v, want at least %v", took, late)
	}
	c.delay(0)
	c.throttle(10_000)
	began = time.Now()
	echo(t, target, peer, string(appendFill(nil, ident{}, ident{}, 0, 1000)))
	if took := time.Since(began); took < 90*time.Millisecond {
		t.Errorf("throttled: 1,000 bytes took %v at 10,000 a second", took)
	}
	p.heal()
	echo(t, peer, target, "well again")
}

func TestProxyWithoutTarget(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProxy(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	l.Close()
	peer, err := net.Dial("tcp", p.addr())
	if err != nil { // the end came so soon
		return
	}
	defer peer.Close()
	peer.SetReadDeadline(time.Now().Add(limit))
	if n, err := peer.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %d bytes, %v, want the connection's end", n, err)
	}
}
