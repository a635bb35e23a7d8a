//go:build cgo

package zsock

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"
)

// waiter parks one goroutine until a socket's descriptor signals, wake is called
// or a deadline passes.
type waiter struct {
	file *os.File // a duplicate of ZMQ_FD in Go's netpoller
	conn syscall.RawConn
	park func(uintptr) bool // given to RawConn.Read; made once, so that waiting allocates nothing

	// The waiting goroutine's own.
	ready  func() bool // tells whether there is something to do; never blocks
	first  bool        // park runs for the first time in this wait
	armed  time.Time   // the read deadline that is set; zero: none
	failed bool        // the last wait timed out or was woken: set the deadline anew

	woken atomic.Bool
}

// aLongTimeAgo is a deadline that has passed.
var aLongTimeAgo = time.Unix(1, 0)

// newWaiter waits for z. ready is called on the waiting goroutine only, after
// the descriptor's readiness was reset.
func newWaiter(z *zmq4.Socket, ready func() bool) (*waiter, error) {
	fd, err := z.GetFd()
	if err != nil {
		return nil, fmt.Errorf("get ZMQ_FD: %w", errno(err))
	}
	// libzmq closes its own; os.File closes what it is given.
	syscall.ForkLock.RLock()
	dup, err := syscall.Dup(fd)
	if err == nil {
		syscall.CloseOnExec(dup)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("duplicate ZMQ_FD: %w", err)
	}
	w := &waiter{file: os.NewFile(uintptr(dup), "zmq"), ready: ready}
	w.park = func(uintptr) bool {
		if !w.first {
			return true // the descriptor signalled
		}
		w.first = false
		return w.woken.Load() || w.ready()
	}
	if err := w.file.SetReadDeadline(time.Time{}); err != nil {
		w.close()
		return nil, fmt.Errorf("put ZMQ_FD into the netpoller: %w", err)
	}
	if w.conn, err = w.file.SyscallConn(); err != nil {
		w.close()
		return nil, fmt.Errorf("put ZMQ_FD into the netpoller: %w", err)
	}
	return w, nil
}

// wait returns when there may be something to do, after wake, or at deadline
// (zero: none). A wake that came before counts. It may return early for no reason.
func (w *waiter) wait(deadline time.Time) error {
	// An armed deadline that is earlier is left: it costs one idle turn at most,
	// and setting it costs more than all else here.
	late := w.armed.IsZero() || (!deadline.IsZero() && deadline.Before(w.armed))
	if w.failed || (late && !deadline.Equal(w.armed)) {
		w.failed = false
		w.armed = deadline
		if err := w.file.SetReadDeadline(deadline); err != nil {
			return ErrClosed
		}
	}
	// wake sets its flag and then a deadline in the past. If its deadline was
	// overwritten above, its flag is seen in park; if not, Read returns.
	w.first = true
	err := w.conn.Read(w.park)
	if w.woken.Load() {
		w.woken.Store(false)
		w.failed = true
	}
	if err != nil {
		w.failed = true
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return ErrClosed
		}
	}
	return nil
}

// wake ends the wait that is going on, or else the next. Any goroutine.
func (w *waiter) wake() {
	if w.woken.CompareAndSwap(false, true) {
		_ = w.file.SetReadDeadline(aLongTimeAgo) // fails only when closed: nobody waits
	}
}

// close frees the descriptor; the waiting goroutine has returned.
func (w *waiter) close() { _ = w.file.Close() }
