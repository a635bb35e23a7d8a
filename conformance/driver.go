package conformance

import (
	"fmt"
	"sync"
	"time"
)

// A Driver starts what is under test, or reaches it.
type Driver interface {
	// Beat is the heartbeat interval on both sides.
	Beat() time.Duration
	// Expiry is how long the subject may take to miss a silent peer.
	Expiry() time.Duration
	// Service is the one of a script, for which there is a fresh name; empty: a
	// worker that runs already tells it.
	Service(fresh string) string
	// Listen is where the kit binds its broker. A worker that runs already may
	// come back there on an old connection, and has to be sent away first.
	Listen() (endpoint string, runs bool)
	// Refuses says why the subject can't play this role in this dialect; empty: it can.
	Refuses(role, dialect string) string
	// Offers tells whether there is what a script of this role needs.
	Offers(role, need string) bool
	// Start starts the subject.
	Start(Start) (Subject, error)
}

// Start is what a driver is told when it starts a subject.
type Start struct {
	Script   *Script
	Endpoint string // the kit's broker, for a worker and a client
	Service  string
}

// A Subject is a broker, a worker or a client under test.
type Subject interface {
	// Endpoint is a broker's.
	Endpoint() string
	// Stop ends it in good order: a worker and a broker say DISCONNECT.
	Stop() error
	// Close ends it in any case.
	Close()
	// Call makes a client ask for data; timeout 0 means its default.
	Call(name, data string, timeout time.Duration) error
	// Next is what a call gave next: "partial" or "final" with a JSON value, or "error".
	Next(name string, deadline time.Time) (kind, value string, err error)
}

// calls keeps what each call of a client gave.
type calls struct {
	mu    sync.Mutex
	boxes map[string]*inbox
}

func (c *calls) of(name string) *inbox {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.boxes == nil {
		c.boxes = map[string]*inbox{}
	}
	if c.boxes[name] == nil {
		c.boxes[name] = newInbox()
	}
	return c.boxes[name]
}

// Next implements [Subject].
func (c *calls) Next(name string, deadline time.Time) (kind, value string, err error) {
	m := c.of(name).next(deadline)
	if m == nil {
		return "", "", fmt.Errorf("nothing")
	}
	return m[0], m[1], nil
}
