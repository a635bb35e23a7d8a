//go:build cgo

package zsock

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pebbe/zmq4"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// ConnOptions are those of a Conn.
type ConnOptions struct {
	Options

	// Endpoint to connect to.
	Endpoint string

	// Deliver is called with everything received, in order, never concurrently,
	// on whatever goroutine did the exchange; the frames are borrowed until it
	// returns. It must not block. It may call Begin and Flush of the same Conn, but not Close.
	Deliver func(in *batch.In)

	// Up is called once, when libzmq took the first message: the connection is
	// there. Never concurrently with Deliver, and under the same rules. May be nil.
	Up func()

	// Early has Up called as soon as the connection is there, for who has nothing
	// to send before others ask for it.
	Early bool

	// NoMonitor leaves a cut connection to be found by others' heartbeats: Run then
	// never returns ErrLost.
	NoMonitor bool
}

const (
	// retryAfter is how soon messages that a connection had no room for are tried
	// again when its descriptor does not signal first.
	retryAfter = 2 * time.Millisecond

	// turns bounds the exchanges that one goroutine does for others in a row. A
	// caller then leaves the socket to Run, so that it can see its own reply.
	turns = 16

	// hot is after how many sends since Run last parked the next ones are left to
	// the flusher: so many come close together, and are worth a batch. A lone
	// caller, who waits for each reply, never gets there.
	hot = 2
)

// Conn is a DEALER connected to one endpoint, used from many goroutines by
// combining. All methods are safe for concurrent use, but for Run, which one
// goroutine calls once, and where Begin, Flush and Seq say otherwise.
//
// A Conn is one connection: once it was cut it sends nothing any more, also if
// libzmq reconnects, and Run returns ErrLost.
type Conn struct {
	opts ConnOptions
	w    *waiter
	mon  *monitor // nil: none

	mu      sync.Mutex
	queue   batch.Out // appended between Begin and Flush
	mark    int       // queue.Bytes() at Begin
	taken   uint64    // messages that left queue
	busy    bool      // a goroutine holds the socket
	again   bool      // the holder has to look once more before it leaves
	blocked bool      // the head of sending was refused; Run tries again
	running bool      // Run is going on
	kicked  bool      // the flusher was called and has not begun
	kick    chan struct{}
	closed  bool
	err     error     // why nothing can be sent any more
	idle    sync.Cond // busy was cleared
	waiters []roomWaiter
	flusher sync.WaitGroup

	burst int // exchanges that sent something since Run parked

	// The holder's: whoever set busy.
	s       *socket
	sending batch.Out
	first   int // messages of sending that were taken by libzmq
	in      batch.In
	isUp    bool

	open    atomic.Bool // libzmq may be given messages: the monitor saw a connection, a Router bound the inproc name, or nobody tells
	up      atomic.Bool // a copy of isUp for others
	sent    atomic.Uint64
	queued  atomic.Int64
	stopped atomic.Bool
	lost    atomic.Bool
}

// Dial opens a socket with a fresh identity, 128 random bits in printable ASCII,
// and connects it. It returns at once, also when nobody listens: messages are
// kept, outside libzmq, until the connection is there: over tcp and ipc until the
// handshake (of ZMTP 3, as libzmq 4 and all current implementations speak it) is
// done; over inproc until a Router has bound the name.
func Dial(o ConnOptions) (*Conn, error) {
	o.Options = o.withDefaults()
	if err := checkPort(o.Endpoint); err != nil {
		return nil, fmt.Errorf("connect %q: %w", o.Endpoint, err)
	}
	o.Store = NewStore(o.Options, false) // the holder's
	s, err := openSocket(zmq4.DEALER, o.Options)
	if err != nil {
		return nil, err
	}
	c := &Conn{opts: o, s: s}
	c.queue.Store = NewStore(o.Options, false) // guarded by mu
	c.sending.Store = c.queue.Store
	c.idle.L = &c.mu
	if err := c.connect(); err != nil {
		c.mon.stop(s.z)
		if c.w != nil {
			c.w.close()
		}
		_ = s.close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) connect() error {
	id, err := identity()
	if err != nil {
		return err
	}
	z := c.s.z
	local := isInproc(c.opts.Endpoint)
	watched := !c.opts.NoMonitor && !local
	// A DEALER must not queue messages for a broker that is not there. ZMQ_IMMEDIATE
	// sees to that, but when a connection is cut it also throws away what was
	// received and not read yet (seen in 7 of 10 closes of a peer right after its
	// last words). So where a monitor tells, messages are held back here instead.
	if err := setAll(
		option{"ROUTING_ID", z.SetIdentity(id)},
		option{"IMMEDIATE", z.SetImmediate(!watched)},
	); err != nil {
		return err
	}
	if c.w, err = newWaiter(z, c.ready); err != nil {
		return err
	}
	c.open.Store(!watched && !local)
	if watched {
		if c.mon, err = newMonitor(z, c); err != nil {
			return err
		}
	}
	if local {
		err = dialInproc(c)
	} else {
		err = z.Connect(c.opts.Endpoint)
	}
	if err != nil {
		return fmt.Errorf("connect %q: %w", c.opts.Endpoint, errno(err))
	}
	return nil
}

// identity is 128 random bits as 22 printable characters. Node peers pass
// identities through UTF-8.
func identity() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("new identity: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b[:]), nil
}

// Begin locks the queue and returns it: append whole messages, then call Flush.
// After the end of the Conn what is appended is dropped.
func (c *Conn) Begin() *batch.Out {
	c.mu.Lock()
	c.mark, c.queue.Pack, c.queue.Bundle = c.queue.Bytes(), false, false
	return &c.queue
}

// Seq is the number of the next message to be appended; the first is 0. Call it
// between Begin and Flush.
func (c *Conn) Seq() uint64 { return c.taken + uint64(c.queue.Len()) }

// Flush unlocks what Begin locked, and sends, or leaves it to whoever holds the
// socket. It never blocks on the network.
func (c *Conn) Flush() {
	if c.err != nil {
		c.taken += uint64(c.queue.Len())
		c.queue.Reset()
		c.mu.Unlock()
		return
	}
	c.queued.Add(int64(c.queue.Bytes() - c.mark))
	if c.busy || c.blocked || c.queue.Len() == 0 {
		c.mu.Unlock()
		return
	}
	if c.burst >= hot {
		c.defers()
		c.mu.Unlock()
		return
	}
	c.busy = true
	if c.pump() && c.running {
		c.w.wake()
	}
}

// defers leaves the queue to the flusher. mu is held.
func (c *Conn) defers() {
	if c.kicked {
		return
	}
	c.kicked = true
	if c.kick == nil {
		c.kick = make(chan struct{}, 1)
		c.flusher.Go(c.flush)
	}
	c.kick <- struct{}{} // there is room: kicked was false
}

// flush sends what was deferred. It lets everybody who is about to send go
// first: with 1,000 callers one exchange carries some thirty messages then,
// instead of one or two, which measured 25 to 40 % more calls a second.
func (c *Conn) flush() {
	for range c.kick {
		runtime.Gosched()
		c.mu.Lock()
		c.kicked = false
		if c.busy || c.blocked || c.queue.Len() == 0 || c.err != nil {
			c.mu.Unlock()
			continue
		}
		c.busy = true
		if c.pump() && c.running {
			c.w.wake()
		}
	}
}

// SentSeq is the number of messages handed to libzmq so far: message n was
// handed over if n < SentSeq.
func (c *Conn) SentSeq() uint64 { return c.sent.Load() }

// Queued is the number of bytes appended and not handed to libzmq yet.
func (c *Conn) Queued() int { return int(c.queued.Load()) }

// Wake makes Run call tick soon.
func (c *Conn) Wake() { c.w.wake() }

// Stop makes Run return ErrClosed. Sending goes on until Close.
func (c *Conn) Stop() {
	c.stopped.Store(true)
	c.w.wake()
}

// Close closes the socket after Run returned or was never called. What was
// flushed is handed to libzmq first, if there is room for it; Deliver may be called
// until Close returns, and must not call it. What libzmq still holds is sent for at most Linger. A second Close does nothing.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	for c.busy {
		c.idle.Wait()
	}
	if c.err == nil && !c.blocked && c.queue.Len() > 0 {
		c.busy = true // what was left to the flusher goes out first
		c.pump()
		c.mu.Lock()
	}
	c.endLocked(ErrClosed)
	if c.kick != nil {
		close(c.kick)
	}
	for c.busy {
		c.idle.Wait()
	}
	c.mu.Unlock()
	c.flusher.Wait()

	forgetInproc(c)
	c.mon.stop(c.s.z)
	c.w.close()
	c.in.Invalidate()
	c.mu.Lock()
	c.queue.Reset()
	c.sending.Reset()
	c.mu.Unlock()
	return c.s.close()
}

// endLocked makes the Conn refuse all messages from now on.
func (c *Conn) endLocked(err error) {
	if c.err == nil {
		c.err = err
		c.taken += uint64(c.queue.Len())
		c.queue.Reset()
	}
	c.releaseLocked()
}

// monitorOpen is called by the monitor when the handshake succeeded, and over
// inproc by the Router that bound the name.
func (c *Conn) monitorOpen() {
	c.open.Store(true)
	c.w.wake()
}

// monitorLost is called by the monitor when the connection was cut, and over
// inproc by the Router that is closed.
func (c *Conn) monitorLost() {
	c.lost.Store(true)
	c.w.wake()
}
