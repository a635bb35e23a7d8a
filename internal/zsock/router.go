//go:build cgo

package zsock

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"

	"github.com/zmq-omdp/omdp/internal/batch"
)

// Router is the broker's socket. One goroutine owns it and calls its methods;
// others may call Wake.
//
// It is MANDATORY: a message to an unknown peer is Unreachable and one to a peer
// whose pipe is full is Again, and neither blocks. With HANDOVER a peer that
// comes back under the same identity takes over from its dead connection.
type Router struct {
	s     *socket
	w     *waiter
	bound []string
}

// NewRouter opens the socket. The caller owns it and closes it.
func NewRouter(o Options) (*Router, error) {
	o = o.withDefaults()
	s, err := openSocket(zmq4.ROUTER, o)
	if err != nil {
		return nil, err
	}
	r := &Router{s: s}
	err = setAll(
		option{"ROUTER_MANDATORY", s.z.SetRouterMandatory(1)},
		option{"ROUTER_HANDOVER", s.z.SetRouterHandover(true)},
	)
	if err == nil {
		r.w, err = newWaiter(s.z, func() bool { in, _ := s.events(); return in })
	}
	if err != nil {
		_ = s.close()
		return nil, err
	}
	return r, nil
}

// Bind listens on endpoint and returns the one that a peer on this machine can
// dial: wildcard ports are filled in and a wildcard address is the loopback one.
func (r *Router) Bind(endpoint string) (bound string, err error) {
	if r.s.z == nil {
		return "", ErrClosed
	}
	if err := checkPort(endpoint); err != nil {
		return "", fmt.Errorf("bind %q: %w", endpoint, err)
	}
	for {
		if err = r.bind(endpoint); err == nil {
			break
		}
		if !errors.Is(err, syscall.EADDRINUSE) || !closing.wait(endpoint) {
			return "", fmt.Errorf("bind %q: %w", endpoint, err)
		}
	}
	last, err := r.s.z.GetLastEndpoint()
	if err != nil {
		return "", fmt.Errorf("bind %q: get ZMQ_LAST_ENDPOINT: %w", endpoint, errno(err))
	}
	last = strings.TrimRight(last, "\x00")
	r.bound = append(r.bound, last)
	return dialable(last), nil
}

// bind is one try. libzmq takes a Unix socket over from whoever listens on it, so
// that one has to be found here; a path that nobody listens on is a leftover.
func (r *Router) bind(endpoint string) error {
	if path, ok := strings.CutPrefix(endpoint, "ipc://"); ok && path != "*" {
		if c, err := net.Dial("unix", path); err == nil {
			_ = c.Close()
			return syscall.EADDRINUSE
		}
	}
	if isInproc(endpoint) {
		return errno(bindInproc(r.s.z, endpoint))
	}
	return errno(r.s.z.Bind(endpoint))
}

// Exchange sends the messages of out, sets its Results, and then receives into
// in until nothing is left or in is full, which more tells. The first frame of a
// message is the routing id, both ways. After a message to a peer was refused,
// later ones of the batch to that peer get the same result untried, so that none
// overtakes. out may be nil and is not Reset. What in held before is invalid.
//
// An error means that the socket is of no more use.
func (r *Router) Exchange(out *batch.Out, in *batch.In) (more bool, err error) {
	oc, err := r.s.exchange(out, 0, in)
	return oc.more, err
}

// Wait parks until something may be received, Wake was called or deadline
// passed (zero: none). It may return early. Call it after an Exchange that
// returned more == false.
func (r *Router) Wait(deadline time.Time) error {
	if r.s.z == nil {
		return ErrClosed
	}
	return r.w.wait(deadline)
}

// Wake makes the Wait that goes on return, or else the next. Any goroutine, also
// after Close.
func (r *Router) Wake() { r.w.wake() }

// Close closes the socket. The owner calls it, or anybody after the owner has
// returned. What libzmq still holds is sent for at most Linger; only the last
// socket of the process to be closed waits for that. A second Close does nothing.
func (r *Router) Close() error {
	if r.s.z == nil {
		return nil
	}
	r.w.close()
	for _, e := range r.bound {
		if isInproc(e) {
			closeInproc(r.s.z, e)
		} else {
			closing.add(e)
		}
	}
	return r.s.close()
}

// checkPort refuses what libzmq silently takes modulo 65,536.
func checkPort(endpoint string) error {
	if !strings.HasPrefix(endpoint, "tcp://") {
		return nil
	}
	port := endpoint[strings.LastIndexByte(endpoint, ':')+1:]
	if n, err := strconv.ParseUint(port, 10, 64); err == nil && n > 65535 {
		return fmt.Errorf("port %s is not in 0 to 65535", port)
	}
	return nil
}

// dialable turns what a socket is bound to into what can be connected to.
func dialable(endpoint string) string {
	addr, ok := strings.CutPrefix(endpoint, "tcp://")
	if !ok {
		return endpoint
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return endpoint
	}
	switch host {
	case "0.0.0.0", "*":
		host = "127.0.0.1"
	case "::":
		host = "::1"
	default:
		return endpoint
	}
	return "tcp://" + net.JoinHostPort(host, port)
}

// closing holds the endpoints that this process has closed a moment ago: libzmq
// releases them in the background, so a Bind to one of them is tried again for a
// while.
var closing = recent{at: map[string]time.Time{}}

const releaseTime = 2 * time.Second

type recent struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (r *recent) add(endpoint string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for e, t := range r.at {
		if now.Sub(t) > releaseTime {
			delete(r.at, e)
		}
	}
	r.at[address(endpoint)] = now
}

// wait tells whether a Bind to endpoint is worth another try, after a pause.
func (r *recent) wait(endpoint string) bool {
	r.mu.Lock()
	t, ok := r.at[address(endpoint)]
	r.mu.Unlock()
	if !ok || time.Since(t) > releaseTime {
		return false
	}
	time.Sleep(2 * time.Millisecond)
	return true
}

// address is what two endpoints that exclude each other have in common: the port
// of a TCP endpoint, else the endpoint itself.
func address(endpoint string) string {
	if strings.HasPrefix(endpoint, "tcp://") {
		return "tcp" + endpoint[strings.LastIndexByte(endpoint, ':'):]
	}
	return endpoint
}
