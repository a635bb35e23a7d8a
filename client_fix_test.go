package omdp

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/zmq-omdp/omdp/internal/zsock"
)

// gatedLink is a fakeLink whose Flush, once armed, waits after it has flushed.
type gatedLink struct {
	*fakeLink
	armed   atomic.Bool
	reached chan struct{}
	open    chan struct{}
}

func (l *gatedLink) Flush() {
	l.fakeLink.Flush()
	if l.armed.Swap(false) {
		close(l.reached)
		<-l.open
	}
}

// Close waits for a cancel that has taken its request out of the table but not
// ended it yet: the final callback runs before Close returns, not after.
func TestClientCloseWaitsForCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet()
		c, err := NewClient("tcp://127.0.0.1:5555", nil)
		if err != nil {
			t.Fatal(err)
		}
		gate := &gatedLink{reached: make(chan struct{}), open: make(chan struct{})}
		c.conns[0].session.dial = func(o zsock.ConnOptions) (link, error) {
			l, err := n.dial(o)
			if err != nil {
				return nil, err
			}
			gate.fakeLink = l.(*fakeLink)
			return gate, nil
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		l := n.next(t)
		l.welcome(t)
		ctx, cancel := context.WithCancel(t.Context())
		var final atomic.Bool
		err = c.Request(ctx, "echo", 1, nil, func(_ Message, err error) {
			wantError(t, "final", err, ErrCanceled, MayHaveExecuted)
			final.Store(true)
		})
		if err != nil {
			t.Fatal(err)
		}
		l.awaitPrefix(t, "C|2|")
		gate.armed.Store(true)
		cancel()
		<-gate.reached
		closed := make(chan error, 1)
		go func() { closed <- c.Close() }()
		synctest.Wait()
		select {
		case <-closed:
			close(gate.open)
			t.Fatal("Close returned before the request had its end")
		default:
		}
		close(gate.open)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if !final.Load() {
			t.Error("Close returned before the final callback ran")
		}
	})
}

// The same with real goroutines, as often as it takes the race detector to see.
func TestClientCloseAmongCancels(t *testing.T) {
	const requests = 20
	for round := range 200 {
		c, n := newFakeClient(t, nil)
		n.next(t).welcome(t)
		var finals atomic.Int64
		cancels := make([]context.CancelFunc, requests)
		for i := range cancels {
			var ctx context.Context
			ctx, cancels[i] = context.WithCancel(context.Background())
			if err := c.Request(ctx, "echo", 1, nil, func(Message, error) { finals.Add(1) }); err != nil {
				t.Fatal(err)
			}
		}
		for _, cancel := range cancels {
			cancel()
		}
		for range round % 40 {
			runtime.Gosched()
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if n := finals.Load(); n != requests {
			t.Fatalf("round %d: %d final callbacks ran before Close returned, want %d", round, n, requests)
		}
	}
}

// Metadata that would be too large a frame for a broker is refused here.
func TestClientMetadataTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		n.setScript(fakeEcho)
		n.next(t).welcome(t)
		for _, tt := range []struct {
			name string
			meta map[string]string
			ok   bool
		}{
			{"at the limit", map[string]string{"k": strings.Repeat("x", maxMetadata-len(`{"k":""}`))}, true},
			{"one byte over", map[string]string{"k": strings.Repeat("x", maxMetadata-len(`{"k":""}`)+1)}, false},
			{"over once escaped", map[string]string{"k": strings.Repeat("\x01", maxMetadata/5)}, false},
			{"a large key", map[string]string{strings.Repeat("k", maxMetadata): ""}, false},
			{"many", manyStrings(maxMetadata / 5), false},
		} {
			_, err := c.Call(t.Context(), "echo", 1, WithMetadata(tt.meta))
			if tt.ok {
				if err != nil {
					t.Errorf("%s: %v", tt.name, err)
				}
				continue
			}
			wantError(t, tt.name, err, ErrTooLarge, NotSent)
			if err != nil && !strings.Contains(err.Error(), "metadata") {
				t.Errorf("%s: %q does not name the metadata", tt.name, err)
			}
		}
		if s := c.Stats(); s.Connections != 1 || s.Outstanding != 0 {
			t.Errorf("stats %+v, want 1 connection and nothing outstanding", s)
		}
	})
}

func manyStrings(n int) map[string]string {
	m := make(map[string]string, n)
	for i := range n {
		m[string(rune(0x4e00+i))] = ""
	}
	return m
}

// What came before Close and was not read is dropped, the end included: a
// reader that gave up never sees io.EOF, which would say that it has read all.
func TestStreamCloseAfterFinal(t *testing.T) {
	for _, tt := range []struct {
		name string
		read int // bytes, before Close
		last string
	}{
		{"nothing read", 0, `"end"`},
		{"a part of a message read", 1, `"end"`},
		{"the partials read", 2, `null`},
		{"a part of the final read", 3, `"end"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, l, s, rid := openStream(t, t.Context(), nil)
				defer c.Close()
				l.partial(rid, `"ab"`)
				l.final(rid, tt.last)
				if _, err := io.ReadFull(s, make([]byte, tt.read)); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if err := s.Close(); err != nil {
						t.Error(err)
					}
					k, err := s.Read(make([]byte, 10))
					wantError(t, "Read", err, ErrCanceled, Executed)
					if k != 0 {
						t.Errorf("Read gave %d bytes after Close, want 0", k)
					}
				}
				for m, err := range s.All() {
					if !errors.Is(err, ErrCanceled) {
						t.Errorf("All gives %q, %v after Close, want ErrCanceled", m, err)
					}
				}
				wantSent(t, l) // it had ended: nothing to cancel
			})
		})
	}
}

// An error that nobody has read yet stays the end of the stream.
func TestStreamCloseAfterError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, s, rid := openStream(t, t.Context(), nil)
		defer c.Close()
		l.partial(rid, `"ab"`)
		l.say("C", "3", rid, `{"status":"W_ERROR"}`)
		s.Close()
		k, err := s.Read(make([]byte, 10))
		wantError(t, "Read", err, ErrWorkerLost, MayHaveExecuted)
		if k != 0 {
			t.Errorf("Read gave %d bytes after Close, want 0", k)
		}
	})
}

// Close ends a reader that waits, also while the final is on its way.
func TestStreamCloseBeforeFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, s, rid := openStream(t, t.Context(), nil)
		defer c.Close()
		l.partial(rid, `"ab"`)
		// As onReply does, stopped between its two steps.
		c.mu.Lock()
		p := c.table.find([]byte(rid))
		c.table.remove(p)
		c.removed(p)
		c.mu.Unlock()
		s.Close()
		done := make(chan error, 1)
		go func() {
			_, err := s.Read(make([]byte, 10))
			done <- err
		}()
		synctest.Wait()
		c.finish(p.owner, reply{msg: Message{b: []byte(`"end"`)}}, false)
		wantError(t, "Read", <-done, ErrCanceled, Executed)
	})
}
