package main

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// A relay stands for a link: it passes TCP connections on to its target, all
// bytes late by a delay, and in each direction of a connection at most so many
// a second. It holds what is on its way and little more, so that a sender who
// is too fast feels it.
type relay struct {
	listener net.Listener
	target   string
	late     time.Duration
	rate     int // bytes a second
}

const (
	relayPiece = 32 << 10              // is read at a time
	relaySlack = 20 * time.Millisecond // the link holds so much more than its delay's worth: the machine is late at times
)

// newRelay listens on a port of the loopback that the system chooses.
// Both the target and what endpoint gives are as ZeroMQ has them, tcp://….
func newRelay(target string, late time.Duration, rate int) (*relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: l, target: strings.TrimPrefix(target, "tcp://"), late: late, rate: rate}
	go r.accept()
	return r, nil
}

func (r *relay) endpoint() string { return "tcp://" + r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		near, err := r.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors, for a moment
			continue
		}
		go r.serve(near)
	}
}

// serve carries one connection until both directions have ended, or one has failed.
func (r *relay) serve(near net.Conn) {
	defer near.Close()
	far, err := net.DialTimeout("tcp", r.target, 5*time.Second)
	if err != nil {
		return
	}
	defer far.Close()
	var wg sync.WaitGroup
	wg.Go(func() { r.pass(far.(*net.TCPConn), near.(*net.TCPConn)) })
	wg.Go(func() { r.pass(near.(*net.TCPConn), far.(*net.TCPConn)) })
	wg.Wait()
}

// piece is some bytes and the time at which they are there.
type piece struct {
	buf *[relayPiece]byte
	n   int
	due time.Time
}

var pieceBuffers = sync.Pool{New: func() any { return new([relayPiece]byte) }}

// pass carries one direction. A piece leaves when the one before it has left,
// and takes its size's time for that.
func (r *relay) pass(from, to *net.TCPConn) {
	room := newRoom(int(float64(r.rate) * (r.late + relaySlack).Seconds()))
	pieces := make(chan piece, room.size/1024+1) // never what limits, if pieces are not tiny
	var wg sync.WaitGroup
	wg.Go(func() { deliver(to, pieces, room) })
	var left time.Time // when the piece before this one left
	for {
		buf, most := pieceBuffers.Get().(*[relayPiece]byte), room.take(relayPiece)
		n, err := from.Read(buf[:most])
		room.give(most - n)
		if n > 0 {
			if now := time.Now(); left.Before(now) {
				left = now
			}
			left = left.Add(time.Duration(float64(n) / float64(r.rate) * float64(time.Second)))
			pieces <- piece{buf, n, left.Add(r.late)}
		}
		if err != nil {
			close(pieces)
			wg.Wait()
			if err == io.EOF {
				_ = to.CloseWrite()
			} else { // the other direction ends as well
				from.Close()
				to.Close()
			}
			return
		}
	}
}

// deliver writes each piece when it is due. After a failure it takes the rest
// and drops it, so that the reader ends.
func deliver(to *net.TCPConn, pieces <-chan piece, room *room) {
	var failed error
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if failed == nil {
			if _, failed = to.Write(p.buf[:p.n]); failed != nil {
				to.Close()
			}
		}
		room.give(p.n)
		pieceBuffers.Put(p.buf)
	}
}

// room is the bytes that one direction may hold. Safe for concurrent use.
type room struct {
	size int
	mu   sync.Mutex
	free int
	more sync.Cond // on mu
}

func newRoom(size int) *room {
	r := &room{size: size, free: size}
	r.more.L = &r.mu
	return r
}

// take waits until there is any, and gives at most n.
func (r *room) take(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.free <= 0 {
		r.more.Wait()
	}
	n = min(n, r.free)
	r.free -= n
	return n
}

func (r *room) give(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free += n
	r.more.Signal()
}
