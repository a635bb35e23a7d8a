package omdp

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zmq-omdp/omdp/internal/batch"
	"github.com/zmq-omdp/omdp/internal/zsock"
)

// fakeLink is a link without a socket: it combines as zsock.Conn does, so what
// it delivers comes on whichever goroutine flushed or said something. It uses
// channels only, so that it can live in a bubble of testing/synctest.
//
// It is made by a fakeNet; the test plays the broker with say, sent, await and
// cut, or sets a script that answers at once.
type fakeLink struct {
	net  *fakeNet
	opts zsock.ConnOptions

	ended chan struct{} // closed when Run is to return err
	woken chan struct{} // capacity 1

	mu      sync.Mutex
	err     error
	idle    *sync.Cond // busy ended
	closed  bool
	up      bool // Up was called
	blocked bool // libzmq takes nothing: no connection yet, or a full pipe
	busy    bool // somebody is in exchange
	out     batch.Out
	spare   batch.Out
	done    uint64 // messages taken
	in      batch.In
	inbox   batch.Out // what the broker said, not yet delivered
	spareIn batch.Out
	log     []string // every message taken, and not yet given out by sent
	changed chan struct{}
}

// fakeNet dials fakeLinks.
type fakeNet struct {
	links chan *fakeLink // every link dialled, in order; capacity 100

	mu      sync.Mutex
	refuse  error                         // what dial gives
	blocked bool                          // links begin without a connection
	script  func(l *fakeLink, f [][]byte) // called with each message taken, no lock held; frames are borrowed; may call l.say and l.reply
	quiet   bool                          // messages are not logged (for benchmarks)
}

func newFakeNet() *fakeNet { return &fakeNet{links: make(chan *fakeLink, 100)} }

// dial is for session.dial.
func (n *fakeNet) dial(o zsock.ConnOptions) (link, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse != nil {
		return nil, n.refuse
	}
	l := &fakeLink{net: n, opts: o, blocked: n.blocked, ended: make(chan struct{}), woken: make(chan struct{}, 1), changed: make(chan struct{})}
	l.idle = sync.NewCond(&l.mu)
	n.links <- l
	return l, nil
}

// setScript changes the script, also of links that were dialled before.
func (n *fakeNet) setScript(f func(l *fakeLink, f [][]byte)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.script = f
}

func (n *fakeNet) getScript() func(l *fakeLink, f [][]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.script
}

// next is the next link that was dialled.
func (n *fakeNet) next(t testing.TB) *fakeLink {
	t.Helper()
	select {
	case l := <-n.links:
		return l
	case <-time.After(time.Minute):
		t.Fatal("no link was dialled within a minute")
		return nil
	}
}

func (l *fakeLink) Begin() *batch.Out {
	l.mu.Lock()
	return &l.out
}

func (l *fakeLink) Flush() {
	if l.gone() {
		l.out.Reset()
	}
	l.exchange()
}

// gone: nothing passes any more. A link that was only stopped still carries
// the last words of its owner.
func (l *fakeLink) gone() bool { return l.closed || l.err == zsock.ErrLost }

func (l *fakeLink) Seq() uint64 { return l.done + uint64(l.out.Len()) }

func (l *fakeLink) SentSeq() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done
}

func (l *fakeLink) Queued() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.out.B)
}

// exchange is called with the lock held and gives it back. Whoever finds the
// link idle takes and delivers for all until nothing is left.
func (l *fakeLink) exchange() {
	if l.busy {
		l.mu.Unlock()
		return
	}
	l.busy = true
	for !l.gone() {
		took := !l.blocked && l.out.Len() > 0
		if took {
			l.out, l.spare = l.spare, l.out
			l.done += uint64(l.spare.Len())
			if !l.net.quiet {
				l.note(&l.spare)
			}
			close(l.changed)
			l.changed = make(chan struct{})
		}
		said := l.inbox.Len() > 0
		if said {
			l.inbox, l.spareIn = l.spareIn, l.inbox
		}
		first := !l.up && (took || l.opts.Early && !l.blocked)
		l.up = l.up || first
		if !took && !said && !first {
			break
		}
		l.mu.Unlock()
		if first && l.opts.Up != nil {
			l.opts.Up()
		}
		if took {
			if script := l.net.getScript(); script != nil {
				l.in.Invalidate()
				l.in.B = append(l.in.B, l.spare.B...)
				for f := l.in.Next(); f != nil; f = l.in.Next() {
					script(l, f)
				}
			}
			l.spare.Reset()
		}
		if said {
			l.in.Invalidate()
			l.in.B = append(l.in.B, l.spareIn.B...)
			l.spareIn.Reset()
			l.opts.Deliver(&l.in)
		}
		l.mu.Lock()
	}
	l.busy = false
	l.idle.Broadcast()
	l.mu.Unlock()
}

func (l *fakeLink) note(o *batch.Out) {
	in := batch.In{B: o.B}
	for f := in.Next(); f != nil; f = in.Next() {
		l.log = append(l.log, joinFrames(f))
	}
}

// joinFrames writes a message as the tests compare it: frames with | between.
func joinFrames(f [][]byte) string {
	var b strings.Builder
	for i, p := range f {
		if i > 0 {
			b.WriteByte('|')
		}
		b.Write(p)
	}
	return b.String()
}

func (l *fakeLink) Await(ctx context.Context, limit int) error {
	for {
		l.mu.Lock()
		n, changed, err := len(l.out.B), l.changed, l.err
		if l.closed && err == nil {
			err = zsock.ErrClosed
		}
		l.mu.Unlock()
		switch {
		case err != nil:
			return err
		case n < limit:
			return nil
		}
		select {
		case <-changed:
		case <-l.ended:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (l *fakeLink) Run(tick func(now time.Time) time.Time) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-l.ended:
			return l.err
		default:
		}
		l.mu.Lock()
		l.exchange()
		next := tick(time.Now())
		var due <-chan time.Time
		if !next.IsZero() {
			timer.Reset(max(time.Until(next), 0))
			due = timer.C
		}
		select {
		case <-l.woken:
		case <-due:
		case <-l.ended:
		}
	}
}

func (l *fakeLink) Wake() {
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

func (l *fakeLink) Stop() { l.end(zsock.ErrClosed) }

func (l *fakeLink) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		close(l.ended)
	}
}

func (l *fakeLink) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.busy {
		l.idle.Wait()
	}
	l.out.Reset()
	if !l.closed {
		l.closed = true
		close(l.changed)
	}
	if l.err == nil {
		l.err = zsock.ErrClosed
		close(l.ended)
	}
	return nil
}

// The broker's side.

// say delivers one message, given as its frames.
func (l *fakeLink) say(frames ...string) {
	l.mu.Lock()
	l.inbox.Begin()
	for _, f := range frames {
		l.inbox.FrameString(f)
	}
	l.inbox.End()
	l.exchange()
}

// reply is say without an allocation: C|op|rid|payload frames.
func (l *fakeLink) reply(c op, rid []byte, body ...[]byte) {
	l.mu.Lock()
	l.inbox.Begin()
	head(&l.inbox, headerClient, c)
	l.inbox.Frame(rid)
	for _, f := range body {
		l.inbox.Frame(f)
	}
	l.inbox.End()
	l.exchange()
}

// hold makes the link take nothing more, or go on.
func (l *fakeLink) hold(on bool) {
	l.mu.Lock()
	l.blocked = on
	l.exchange()
}

// cut loses the connection.
func (l *fakeLink) cut() { l.end(zsock.ErrLost) }

// sent gives every message taken since the last call.
func (l *fakeLink) sent() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.log
	l.log = nil
	return s
}

// await waits until a message was taken for which ok holds, and returns it;
// what was taken before it is dropped.
func (l *fakeLink) await(t testing.TB, what string, ok func(m string) bool) string {
	t.Helper()
	over := time.After(time.Minute)
	for {
		l.mu.Lock()
		changed := l.changed
		i := slices.IndexFunc(l.log, ok)
		if i >= 0 {
			m := l.log[i]
			l.log = l.log[i+1:]
			l.mu.Unlock()
			return m
		}
		all, closed := fmt.Sprint(l.log), l.closed
		l.mu.Unlock()
		if closed {
			t.Fatalf("the link was closed and no %s was sent; sent: %s", what, all)
		}
		select {
		case <-changed:
		case <-over:
			t.Fatalf("within a minute no %s was sent; sent: %s", what, all)
		}
	}
}

// awaitPrefix waits for a message that begins with prefix, e.g. "C|2|echo|".
func (l *fakeLink) awaitPrefix(t testing.TB, prefix string) string {
	t.Helper()
	return l.await(t, prefix+"…", func(m string) bool { return strings.HasPrefix(m, prefix) })
}
