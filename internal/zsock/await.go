//go:build cgo

package zsock

import (
	"context"
	"slices"
)

// roomWaiter is a goroutine in Await.
type roomWaiter struct {
	limit int
	ready chan struct{} // closed when there is room, or the Conn ended
}

// Await blocks until Queued() < limit, in bytes and at least 1. It returns context.Cause(ctx) when ctx
// ends before, ErrLost or ErrClosed when the Conn did.
func (c *Conn) Await(ctx context.Context, limit int) error {
	limit = max(limit, 1)
	for {
		c.mu.Lock()
		if c.err != nil {
			err := c.err
			c.mu.Unlock()
			return err
		}
		if c.Queued() < limit {
			c.mu.Unlock()
			return nil
		}
		w := roomWaiter{limit, make(chan struct{})}
		c.waiters = append(c.waiters, w)
		c.mu.Unlock()

		select {
		case <-w.ready:
		case <-ctx.Done():
			c.mu.Lock()
			c.waiters = slices.DeleteFunc(c.waiters, func(o roomWaiter) bool { return o.ready == w.ready })
			c.mu.Unlock()
			return context.Cause(ctx)
		}
	}
}

// releaseLocked lets those go on whose limit is met, or all at the end.
func (c *Conn) releaseLocked() {
	queued := c.Queued()
	c.waiters = slices.DeleteFunc(c.waiters, func(w roomWaiter) bool {
		if c.err == nil && queued >= w.limit {
			return false
		}
		close(w.ready)
		return true
	})
}
