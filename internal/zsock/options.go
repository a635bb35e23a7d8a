//go:build cgo

package zsock

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"

	"github.com/zmq-omdp/omdp/internal/batch"
)

var (
	// ErrClosed says that the socket was closed or stopped.
	ErrClosed = errors.New("socket closed")

	// ErrLost says that the connection was cut. What was sent on it may or may
	// not have arrived; the way on is a fresh Conn.
	ErrLost = errors.New("connection lost")
)

// Options are those of any socket. The zero value is usable: zero means the
// default, negative means off where that makes sense.
type Options struct {
	// SndHWM and RcvHWM bound the messages that libzmq holds per peer and
	// direction, outside any accounting of ours. Default 256; negative is no bound.
	//
	// Measured (BenchmarkHWM, 2 cores, medians): at 64, 128, 256 and 1,000 a stopped
	// client makes its peer hold 6.3, 8.4, 16.8 and 65.5 MB of 64 KiB messages, and
	// 1,000 small requests in flight on one connection run at 0.78, 0.84, 0.91 and 1
	// of the throughput.
	SndHWM, RcvHWM int

	// MaxMsgSize is the largest frame accepted from a peer, in bytes. A peer that
	// sends more is disconnected. Default 8 MiB; negative is no bound. inproc
	// ignores it.
	MaxMsgSize int64

	// MaxFrames bounds the frames given of one message: of a longer one the first
	// MaxFrames+1 are given, so that it is seen to be too long. The routing id does
	// not count. Default 16.
	MaxFrames int

	// Linger bounds how long a closed socket still tries to send what libzmq
	// holds. Default 1 s; negative is none.
	Linger time.Duration

	// Backlog is that of listen(2). Default 1,024.
	Backlog int

	// HandshakeTimeout is how long a connection may stay silent before it is
	// closed. Default 5 s; negative is no bound.
	HandshakeTimeout time.Duration

	// Fallback makes the socket use zmq4's public calls instead of the C
	// exchange. OMDP_ZSOCK=fallback in the environment does so for all.
	Fallback bool

	// Store takes the large frames that are received; see NewStore. It is guarded by
	// whatever guards the exchanges. nil: they are copied. Of a Conn it is its own.
	Store *batch.Store
}

const (
	defaultHWM       = 256
	defaultMaxMsg    = 8 << 20
	defaultMaxFrames = 16
	defaultLinger    = time.Second
	defaultBacklog   = 1024
	defaultHandshake = 5 * time.Second

	// A connection whose peer vanished without a word is given up after this by
	// TCP; heartbeats above usually decide earlier.
	keepaliveIdle  = 15 // s
	keepaliveIntvl = 5  // s
	keepaliveCount = 3
	tcpMaxRT       = 30 * time.Second

	// Tries to connect while nobody listens: 100 ms doubling up to 1 s.
	reconnectIvl    = 100 * time.Millisecond
	reconnectIvlMax = time.Second
)

func (o Options) withDefaults() Options {
	o.SndHWM = orDefault(o.SndHWM, defaultHWM, 0)
	o.RcvHWM = orDefault(o.RcvHWM, defaultHWM, 0)
	o.MaxMsgSize = orDefault(o.MaxMsgSize, defaultMaxMsg, -1)
	o.MaxFrames = orDefault(o.MaxFrames, defaultMaxFrames, defaultMaxFrames)
	o.Linger = orDefault(o.Linger, defaultLinger, 0)
	o.Backlog = orDefault(o.Backlog, defaultBacklog, defaultBacklog)
	o.HandshakeTimeout = orDefault(o.HandshakeTimeout, defaultHandshake, 0)
	o.Fallback = o.Fallback || os.Getenv("OMDP_ZSOCK") == "fallback"
	return o
}

func orDefault[T int | int64 | time.Duration](v, zero, negative T) T {
	switch {
	case v == 0:
		return zero
	case v < 0:
		return negative
	}
	return v
}

// apply sets what all sockets have in common, before bind and connect.
func (o Options) apply(z *zmq4.Socket) error {
	return setAll(
		option{"SNDHWM", z.SetSndhwm(o.SndHWM)},
		option{"RCVHWM", z.SetRcvhwm(o.RcvHWM)},
		option{"MAXMSGSIZE", z.SetMaxmsgsize(o.MaxMsgSize)},
		option{"LINGER", z.SetLinger(o.Linger)},
		option{"BACKLOG", z.SetBacklog(o.Backlog)},
		option{"HANDSHAKE_IVL", z.SetHandshakeIvl(o.HandshakeTimeout)},
		option{"TCP_KEEPALIVE", z.SetTcpKeepalive(1)},
		option{"TCP_KEEPALIVE_IDLE", z.SetTcpKeepaliveIdle(keepaliveIdle)},
		option{"TCP_KEEPALIVE_INTVL", z.SetTcpKeepaliveIntvl(keepaliveIntvl)},
		option{"TCP_KEEPALIVE_CNT", z.SetTcpKeepaliveCnt(keepaliveCount)},
		option{"TCP_MAXRT", z.SetTcpMaxrt(tcpMaxRT)},
		option{"RECONNECT_IVL", z.SetReconnectIvl(reconnectIvl)},
		option{"RECONNECT_IVL_MAX", z.SetReconnectIvlMax(reconnectIvlMax)},
	)
}

type option struct {
	name string
	err  error
}

func setAll(options ...option) error {
	for _, o := range options {
		if o.err != nil {
			return fmt.Errorf("set ZMQ_%s: %w", o.name, errno(o.err))
		}
	}
	return nil
}

// errno turns zmq4's error numbers into those of package syscall where they are
// the system's, so that errors.Is(err, syscall.EADDRINUSE) holds.
func errno(err error) error {
	const zmqOwn = 156384712 // ZMQ_HAUSNUMERO
	if e, ok := err.(zmq4.Errno); ok && e < zmqOwn {
		return syscall.Errno(e)
	}
	return err
}
