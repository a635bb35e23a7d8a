//go:build cgo

package zsock

import (
	"strings"
	"sync"

	"github.com/pebbe/zmq4"
)

// inprocs does for inproc what a monitor does for tcp. libzmq reports nothing
// there, takes messages before there is anybody to get them, and never
// reconnects. But a Router comes by Bind and goes by Close, in this process: it
// tells the Conns that were dialled to it.
var inprocs = struct {
	mu    sync.Mutex
	bound map[string]struct{}           // endpoints that a Router has
	conns map[string]map[*Conn]struct{} // by endpoint
}{bound: map[string]struct{}{}, conns: map[string]map[*Conn]struct{}{}}

func isInproc(endpoint string) bool { return strings.HasPrefix(endpoint, "inproc://") }

// dialInproc connects c. Under the lock, a connect goes either to a Router that
// will tell of its end, or to the next one that binds, which opens c.
func dialInproc(c *Conn) error {
	inprocs.mu.Lock()
	defer inprocs.mu.Unlock()
	e := c.opts.Endpoint
	if err := c.s.z.Connect(e); err != nil {
		return err
	}
	if inprocs.conns[e] == nil {
		inprocs.conns[e] = map[*Conn]struct{}{}
	}
	inprocs.conns[e][c] = struct{}{}
	if _, ok := inprocs.bound[e]; ok {
		c.open.Store(true)
	}
	return nil
}

// bindInproc binds the Router z and opens the Conns that wait for it.
func bindInproc(z *zmq4.Socket, endpoint string) error {
	inprocs.mu.Lock()
	defer inprocs.mu.Unlock()
	if err := z.Bind(endpoint); err != nil {
		return err
	}
	inprocs.bound[endpoint] = struct{}{}
	for c := range inprocs.conns[endpoint] {
		c.monitorOpen()
	}
	return nil
}

// forgetInproc ends what dialInproc began.
func forgetInproc(c *Conn) {
	inprocs.mu.Lock()
	defer inprocs.mu.Unlock()
	e := c.opts.Endpoint
	delete(inprocs.conns[e], c)
	if len(inprocs.conns[e]) == 0 {
		delete(inprocs.conns, e)
	}
}

// closeInproc takes endpoint from the Router z, which is about to be closed, and
// tells its Conns. Unbinding is safe for inproc only: it takes the name from the
// context at once and touches no connection, while a close would do so some
// time later, and a Conn dialled in between would hang on a dead Router.
func closeInproc(z *zmq4.Socket, endpoint string) {
	inprocs.mu.Lock()
	defer inprocs.mu.Unlock()
	_ = z.Unbind(endpoint)
	delete(inprocs.bound, endpoint)
	for c := range inprocs.conns[endpoint] {
		if !c.opts.NoMonitor {
			c.monitorLost()
		}
	}
	delete(inprocs.conns, endpoint)
}
