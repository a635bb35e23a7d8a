//go:build cgo

package zsock

import (
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// Run receives and delivers until Stop (ErrClosed) or until the connection was
// cut (ErrLost). After every turn it calls tick, if not nil, which returns when
// it wants to be called next (zero: no need).
func (c *Conn) Run(tick func(now time.Time) (next time.Time)) error {
	c.mu.Lock()
	c.running = true
	c.mu.Unlock()
	for {
		if c.lost.Load() {
			return c.endLost()
		}
		more := c.turn()
		if err := c.ended(); err != nil {
			return err
		}
		var next time.Time
		if tick != nil {
			next = tick(time.Now())
		}
		if more {
			continue
		}
		if c.parks() && c.up.Load() {
			if t := time.Now().Add(retryAfter); next.IsZero() || t.Before(next) {
				next = t
			}
		}
		if err := c.w.wait(next); err != nil {
			return err
		}
	}
}

// ended returns why Run is over, if it is.
func (c *Conn) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.err
	if err == nil && c.stopped.Load() {
		err = ErrClosed
	}
	if err != nil {
		c.running = false
	}
	return err
}

// endLost ends Run after a cut: what came before it is delivered first, also
// what another goroutine is delivering at this moment.
func (c *Conn) endLost() error {
	for more := true; more; {
		c.mu.Lock()
		for c.busy {
			c.idle.Wait()
		}
		c.busy = true
		more = c.pump()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.busy {
		c.idle.Wait()
	}
	// Nothing that libzmq still holds may go out on a connection that it makes anew.
	_ = c.s.z.SetLinger(0)
	_ = c.s.z.Disconnect(c.opts.Endpoint)
	c.endLocked(ErrLost)
	c.running = false
	return c.err
}

// parks notes that Run is about to park, and reports whether something is blocked.
func (c *Conn) parks() (blocked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.burst = 0
	return c.blocked
}

// turn is Run's exchange: it also tries again what was blocked.
func (c *Conn) turn() (more bool) {
	c.mu.Lock()
	if c.busy {
		c.again = true
		c.mu.Unlock()
		return false
	}
	c.busy = true
	return c.pump()
}

// ready is called by Run's waiter before it parks, after the descriptor's
// readiness was reset: whoever holds the socket looks once more, as it may have
// looked for the last time before the reset.
func (c *Conn) ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy {
		c.again = true
		return false
	}
	if c.err != nil || c.queue.Len() > 0 && !c.blocked {
		return true
	}
	in, out := c.s.events()
	return in || out && c.blocked && c.open.Load()
}

// pump exchanges until nothing is left to send or receive, for at most some
// turns; more tells that something is left. The caller has locked mu and set
// busy; pump unlocks and clears it.
func (c *Conn) pump() (more bool) {
	for n := 1; ; n++ {
		if c.first == c.sending.Len() {
			c.first = 0
			c.sending.Reset()
			c.taken += uint64(c.queue.Len())
			c.queue, c.sending = c.sending, c.queue
		}
		c.again = false
		dead := c.err != nil || c.lost.Load()
		c.mu.Unlock()

		before := c.sent.Load()
		writable, drained, err := c.exchange(!dead && c.open.Load())

		c.mu.Lock()
		if c.sent.Load() != before {
			c.burst++
		}
		if err != nil {
			c.endLocked(err)
		}
		left := c.first < c.sending.Len()
		c.blocked = left && !writable && c.err == nil
		if len(c.waiters) > 0 {
			c.releaseLocked()
		}
		if more = c.err == nil && !drained; c.err == nil && !dead {
			more = more || c.again || left && !c.blocked || !left && c.queue.Len() > 0
		}
		if !more || n == turns {
			c.busy = false
			c.idle.Broadcast()
			c.mu.Unlock()
			return more
		}
	}
}

// exchange is one turn of pump, by the holder without the lock.
func (c *Conn) exchange(send bool) (writable, drained bool, err error) {
	var out *batch.Out
	if send {
		out = &c.sending
	}
	oc, err := c.s.exchange(out, c.first, &c.in)
	if oc.sent > 0 {
		bytes := 0
		for i := c.first; i < c.first+oc.sent; i++ {
			bytes += c.sending.Size(i)
		}
		c.first += oc.sent
		c.queued.Add(int64(-bytes))
		c.sent.Add(uint64(oc.sent))
	}
	if !c.isUp && (oc.sent > 0 || send && c.opts.Early) {
		c.isUp = true
		c.up.Store(true)
		if c.opts.Up != nil {
			c.opts.Up()
		}
	}
	if !c.in.Empty() && c.opts.Deliver != nil {
		c.opts.Deliver(&c.in)
		c.in.Invalidate() // large frames are not held until something comes again
	}
	return oc.writable, !oc.more, err
}
