//go:build cgo

package zsock

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pebbe/zmq4"
)

// monitor tells a Conn that its connection is there, and that it was cut. libzmq reports on a PAIR; a
// goroutine of its own reads it, parked in the netpoller.
type monitor struct {
	c    *Conn
	z    *zmq4.Socket // the goroutine's
	w    *waiter
	quit atomic.Bool
	done sync.WaitGroup
}

const monitorEvents = zmq4.EVENT_HANDSHAKE_SUCCEEDED | zmq4.EVENT_DISCONNECTED

var monitors atomic.Uint64

// newMonitor reports on what z connects to from now on. The caller owns z.
func newMonitor(z *zmq4.Socket, c *Conn) (*monitor, error) {
	addr := fmt.Sprintf("inproc://omdp.monitor.%d", monitors.Add(1))
	if err := z.Monitor(addr, monitorEvents); err != nil {
		return nil, fmt.Errorf("monitor socket: %w", errno(err))
	}
	pair, err := newSocket(zmq4.PAIR)
	if err != nil {
		_ = z.Monitor("", 0)
		return nil, err
	}
	m := &monitor{c: c, z: pair}
	err = setAll(option{"LINGER", pair.SetLinger(0)})
	if err == nil {
		if err = errno(pair.Connect(addr)); err != nil {
			err = fmt.Errorf("connect monitor: %w", err)
		}
	}
	if err == nil {
		m.w, err = newWaiter(pair, m.ready)
	}
	if err != nil {
		_ = z.Monitor("", 0)
		_ = closeSocket(pair)
		return nil, err
	}
	m.done.Go(m.run)
	return m, nil
}

func (m *monitor) ready() bool {
	ev, err := m.z.GetEvents()
	return err != nil || ev&zmq4.POLLIN != 0
}

func (m *monitor) run() {
	for !m.quit.Load() {
		ev, _, _, err := m.z.RecvEvent(zmq4.DONTWAIT)
		switch {
		case err != nil: // nothing left, or closed; the waiter tells which
			if m.w.wait(time.Time{}) != nil {
				return
			}
		case ev == zmq4.EVENT_HANDSHAKE_SUCCEEDED:
			m.c.monitorOpen()
		case ev == zmq4.EVENT_DISCONNECTED && m.c.open.Load(): // before, it was a failed handshake
			m.c.monitorLost()
		}
	}
}

// stop ends the reports on z and frees the monitor. The caller holds z. libzmq
// writes its reports with a blocking send from its I/O thread, so the reader
// goes after the writer, or the context would never terminate.
func (m *monitor) stop(z *zmq4.Socket) {
	if m == nil {
		return
	}
	_ = z.Monitor("", 0)
	m.quit.Store(true)
	m.w.wake()
	m.done.Wait()
	m.w.close()
	_ = closeSocket(m.z)
}
