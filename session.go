package omdp

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
	"github.com/zmq-omdp/omdp/internal/zsock"
)

// link is one connection to a broker: a *zsock.Conn, or a scripted one in
// tests, which run in bubbles where no real socket may be.
type link interface {
	Begin() *batch.Out
	Flush()
	Seq() uint64
	SentSeq() uint64
	Queued() int
	Await(ctx context.Context, limit int) error
	Run(tick func(now time.Time) time.Time) error
	Wake()
	Stop()
	Close() error
}

func dialZsock(o zsock.ConnOptions) (link, error) { return zsock.Dial(o) }

// errBrokerSilent ends a link whose broker was not heard for its liveness.
var errBrokerSilent = errors.New("the broker is silent")

// errBrokerChanged ends a link on which another life of the broker answered.
var errBrokerChanged = errors.New("another broker answers")

// errAbandoned ends a link on which the answer to a request that was given up may
// still come, and could be taken for another's. Nothing is wrong with the broker:
// a fresh link follows at once.
var errAbandoned = errors.New("its request was given up")

// errDisconnected ends a worker's link on which the broker said DISCONNECT.
var errDisconnected = errors.New("the broker disconnected this worker")

// session keeps a worker or client connected to its broker. A connection that
// was lost is never continued: a fresh socket with a fresh identity takes its
// place after a jittered wait, and what was in progress ends by its owner's rules.
//
// run is the one goroutine that opens, parks on and closes links. The hooks
// are called on it, except deliver and up, which run on whichever goroutine
// did the exchange; deliver and up of one link never run at the same time, and
// none of them runs after lost.
type session struct {
	endpoint string
	options  zsock.Options
	early    bool // up comes with the connection: nothing is sent before it
	dial     func(zsock.ConnOptions) (link, error)
	backoff  backoff
	random   func() uint64

	open    func(l link)                  // a fresh link; HELLO or READY go out first
	up      func(l link)                  // its first message was taken: there is a connection
	deliver func(l link, in *batch.In)    // frames are borrowed
	tick    func(now instant) instant     // timers; returns the next
	leave   func(l link)                  // the last words on a link that is to be closed in order
	lost    func(l link, reason error)    // the link is closed; never called after leave
	failed  func(err error, wait instant) // dialling failed, or the link was lost; the next try is in wait

	epoch time.Time

	mu     sync.Mutex
	link   link  // nil between links
	reason error // why drop stopped it
	nudge  chan struct{}
}

func (s *session) now() instant { return time.Since(s.epoch) }

// run serves until ctx ends. The last link is closed when it returns.
func (s *session) run(ctx context.Context) {
	defer context.AfterFunc(ctx, s.stop)()
	for ctx.Err() == nil {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == errAbandoned {
			continue
		}
		wait := s.backoff.next(s.random())
		s.failed(err, wait)
		s.pause(ctx, wait)
	}
}

// serve opens a link, runs it to its end and closes it.
func (s *session) serve(ctx context.Context) error {
	var l link
	ready := make(chan struct{}) // deliver and up wait until l is known
	l, err := s.dial(zsock.ConnOptions{
		Options:  s.options,
		Endpoint: s.endpoint,
		Deliver:  func(in *batch.In) { <-ready; s.deliver(l, in) },
		Up:       func() { <-ready; s.up(l) },
		Early:    s.early,
	})
	close(ready)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.link, s.reason = l, nil
	s.mu.Unlock()
	if ctx.Err() != nil { // stop came before the link was known to it
		l.Stop()
	}
	s.open(l)
	err = l.Run(s.turn)
	s.mu.Lock()
	s.link = nil
	if s.reason != nil {
		err = s.reason
	}
	s.mu.Unlock()
	if ctx.Err() != nil {
		s.leave(l)
		return l.Close()
	}
	l.Close()
	s.lost(l, err)
	return err
}

func (s *session) turn(now time.Time) time.Time {
	next := s.tick(now.Sub(s.epoch))
	if next == never {
		return time.Time{}
	}
	return s.epoch.Add(next)
}

// pause waits between links; timers go on.
func (s *session) pause(ctx context.Context, d time.Duration) {
	end := s.now() + d
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := s.now()
		next := min(s.tick(now), end)
		if now >= end {
			return
		}
		timer.Reset(max(next-now, 0))
		select {
		case <-timer.C:
		case <-s.nudge:
		case <-ctx.Done():
			return
		}
	}
}

// wake makes tick be called soon. Safe from any goroutine.
func (s *session) wake() {
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	if l != nil {
		l.Wake()
		return
	}
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// drop gives up the present link, if it is l, for the given reason; a fresh
// one follows. Safe from any goroutine, hooks included.
func (s *session) drop(l link, reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == l && s.reason == nil {
		s.reason = reason
		l.Stop()
	}
}

func (s *session) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link != nil {
		s.link.Stop()
	}
}
