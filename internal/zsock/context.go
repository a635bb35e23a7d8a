//go:build cgo

package zsock

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/pebbe/zmq4"
)

// maxSockets replaces libzmq's 1,023 per context. A slot costs about 12 bytes; a
// Conn with a monitor takes three.
const maxSockets = 1 << 16

// shared is the library's context, counted by its sockets.
var shared struct {
	sync.Mutex
	ctx  *zmq4.Context
	refs int
}

var openSockets atomic.Int64

// OpenSockets is the number of sockets that were opened and not closed yet, for
// leak checks.
func OpenSockets() int { return int(openSockets.Load()) }

// Version is that of the libzmq in use.
func Version() (major, minor, patch int) { return zmq4.Version() }

// FileLimit is RLIMIT_NOFILE's soft limit; ok is false where it can't be read.
// Every connection takes a descriptor, every Conn six with its own: libzmq spins
// when there are none left.
func FileLimit() (soft uint64, ok bool) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, false
	}
	return uint64(l.Cur), true
}

// newSocket opens a socket in the shared context. closeSocket ends it.
func newSocket(t zmq4.Type) (*zmq4.Socket, error) {
	shared.Lock()
	defer shared.Unlock()
	if shared.ctx == nil {
		ctx, err := newContext()
		if err != nil {
			return nil, err
		}
		shared.ctx = ctx
	}
	z, err := shared.ctx.NewSocket(t)
	if err != nil {
		err = fmt.Errorf("open %v socket: %w", t, errno(err))
		if shared.refs == 0 {
			_ = shared.ctx.Term()
			shared.ctx = nil
		}
		return nil, err
	}
	shared.refs++
	openSockets.Add(1)
	return z, nil
}

func newContext() (*zmq4.Context, error) {
	if major, minor, patch := zmq4.Version(); major != 4 || minor < 3 {
		if major == 0 {
			_, err := zmq4.NewContext()
			return nil, fmt.Errorf("libzmq can't be used: %w", err)
		}
		return nil, fmt.Errorf("libzmq %d.%d.%d can't be used: omdp needs 4.3 or newer", major, minor, patch)
	}
	ctx, err := zmq4.NewContext()
	if err != nil {
		return nil, fmt.Errorf("new context: %w", errno(err))
	}
	if err := ctx.SetMaxSockets(maxSockets); err != nil {
		_ = ctx.Term()
		return nil, fmt.Errorf("set ZMQ_MAX_SOCKETS: %w", errno(err))
	}
	return ctx, nil
}

// closeSocket closes z, and the context with the last socket. That waits for at
// most the longest linger.
func closeSocket(z *zmq4.Socket) error {
	err := z.Close()

	shared.Lock()
	shared.refs--
	var last *zmq4.Context
	if shared.refs == 0 {
		last, shared.ctx = shared.ctx, nil
	}
	shared.Unlock()

	if last != nil {
		if e := last.Term(); err == nil {
			err = e
		}
	}
	openSockets.Add(-1)
	if err != nil {
		return fmt.Errorf("close socket: %w", errno(err))
	}
	return nil
}
