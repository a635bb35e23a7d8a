package main

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// A proxy passes TCP connections on, and spoils them on demand: it delays,
// throttles, cuts and half-opens them. Its methods are safe for concurrent use.
type proxy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu     sync.Mutex
	conns  []*conn // open ones, in the order of their making
	closed bool
}

// chunk is how much is passed on at a time, and backlog how many chunks may be
// on their way in one direction before the sender feels it.
const (
	chunkSize = 16 << 10
	backlog   = 64
)

// newProxy listens on a port of the loopback that the system chooses.
func newProxy(target string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, target: target}
	p.wg.Go(p.accept)
	return p, nil
}

// addr is where it listens.
func (p *proxy) addr() string { return p.listener.Addr().String() }

// close cuts everything and returns when nothing of it runs any more.
func (p *proxy) close() {
	p.mu.Lock()
	p.closed = true
	conns := p.conns
	p.mu.Unlock()
	p.listener.Close()
	for _, c := range conns {
		c.cut(true)
	}
	p.wg.Wait()
}

func (p *proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors, for a moment
			continue
		}
		p.wg.Go(func() { p.serve(near.(*net.TCPConn)) })
	}
}

// serve connects to the target. While nobody listens there, the peer's
// connection ends, as it would without a proxy.
func (p *proxy) serve(near *net.TCPConn) {
	far, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil {
		near.SetLinger(0)
		near.Close()
		return
	}
	c := &conn{near: near, far: far.(*net.TCPConn), gone: make(chan struct{})}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		c.cut(true)
		return
	}
	p.conns = append(p.conns, c)
	p.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { c.pass(c.near, c.far, up) })
	wg.Go(func() { c.pass(c.far, c.near, down) })
	wg.Wait()
	p.forget(c)
}

func (p *proxy) forget(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, k := range p.conns {
		if k == c {
			p.conns = append(p.conns[:i:i], p.conns[i+1:]...)
			return
		}
	}
}

// pick gives one of the open connections, the same for the same n and
// connections, or nil if there is none.
func (p *proxy) pick(n int) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.conns) == 0 {
		return nil
	}
	return p.conns[n%len(p.conns)]
}

// heal ends delays and throttling of all connections. What is half-open stays
// so: that only ever ends with the connection.
func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.delay(0)
		c.throttle(0)
	}
}

// The two directions of a connection, as bits: from the peer to the target, and back.
const (
	up = 1 << iota
	down
)

// A conn is one connection: near is the peer's, far ours to the target.
type conn struct {
	near, far *net.TCPConn
	gone      chan struct{} // closed when it was cut
	once      sync.Once

	mu    sync.Mutex
	late  time.Duration
	rate  int // bytes a second; 0: no bound
	deafs int // directions that pass nothing on
}

// cut closes both sides: by RST, which drops what is on the way, or by FIN.
func (c *conn) cut(reset bool) {
	c.once.Do(func() {
		close(c.gone)
		for _, s := range []*net.TCPConn{c.near, c.far} {
			if reset {
				s.SetLinger(0)
			}
			s.Close()
		}
	})
}

// delay makes all bytes come d later, in both directions.
func (c *conn) delay(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late = d
}

// throttle passes on at most so many bytes a second; 0 is no bound.
func (c *conn) throttle(rate int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rate = rate
}

// halfOpen swallows all bytes of the given directions from now on, and keeps
// the connection open. There is no way back: bytes are missing.
func (c *conn) halfOpen(ways int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deafs |= ways
}

func (c *conn) state(way int) (late time.Duration, rate int, deaf bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.late, c.rate, c.deafs&way != 0
}

// piece is some bytes and the time at which they are to go on.
type piece struct {
	b   []byte
	due time.Time
}

// pass carries one direction until either side ends, and then ends the other
// one too: after what is on the way if that was the end of the stream.
func (c *conn) pass(from, to *net.TCPConn, way int) {
	pieces := make(chan piece, backlog)
	var wg sync.WaitGroup
	wg.Go(func() { c.deliver(to, pieces, way) })
	for {
		b := make([]byte, chunkSize)
		n, err := from.Read(b)
		if n > 0 {
			late, _, deaf := c.state(way)
			if !deaf {
				select {
				case pieces <- piece{b[:n], time.Now().Add(late)}:
				case <-c.gone:
				}
			}
		}
		if err == nil {
			continue
		}
		close(pieces)
		wg.Wait()
		if _, _, deaf := c.state(way); deaf {
			<-c.gone // the other side is not to learn of it
		}
		c.cut(!errors.Is(err, io.EOF))
		return
	}
}

func (c *conn) deliver(to *net.TCPConn, pieces <-chan piece, way int) {
	for p := range pieces {
		if !c.until(p.due) {
			continue // to drain the channel
		}
		for b := p.b; len(b) > 0; {
			_, rate, deaf := c.state(way)
			n := len(b)
			if rate > 0 {
				n = min(n, max(rate/shares, 1))
			}
			if deaf || rate > 0 && !c.until(time.Now().Add(time.Second/shares)) {
				break
			}
			if _, err := to.Write(b[:n]); err != nil {
				c.cut(true)
				break
			}
			b = b[n:]
		}
	}
}

// shares are how many writes a second a throttled connection has.
const shares = 20

// until waits for a time, and reports false if the connection was cut before.
func (c *conn) until(due time.Time) bool {
	d := time.Until(due)
	if d <= 0 {
		select {
		case <-c.gone:
			return false
		default:
			return true
		}
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.gone:
		return false
	}
}
