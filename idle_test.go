package omdp

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A request is given up when no partial came for its idle time, whatever
// heartbeats say: its worker is told, its error says why.
func TestIdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		start := time.Now()
		s := c.RequestStream(t.Context(), "echo", nil, WithIdleTimeout(time.Second), WithTimeout(-1))
		rid := l.request(t, "C|2|echo|")
		for range 5 {
			<-time.After(900 * time.Millisecond)
			l.say("C", "6", rid, `{"status":200,"msg":"x"}`)
			if _, err := s.message(); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			<-time.After(200 * time.Millisecond)
			l.say("C", "4", rid) // a heartbeat is no partial
		}
		_, err := s.message()
		wantError(t, "the stream", err, ErrTimeout, MayHaveExecuted)
		if !strings.Contains(err.Error(), "nothing came for 1s") {
			t.Errorf("%q does not say what was missing", err)
		}
		if took, want := time.Since(start), 5500*time.Millisecond; took != want {
			t.Errorf("it ended after %v, want %v", took, want)
		}
		if m := l.awaitPrefix(t, "C|10|"); m != "C|10|"+rid {
			t.Errorf("sent %q, want a CANCEL", m)
		}
	})
}

// A partial that waits for its reader is not the worker's silence: the time
// runs from the moment when it is read.
func TestIdleTimeoutSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		s := c.RequestStream(t.Context(), "echo", nil, WithIdleTimeout(time.Second), WithTimeout(-1))
		rid := l.request(t, "C|2|echo|")
		for range 3 {
			l.say("C", "6", rid, `{"status":200,"msg":"x"}`)
		}
		for range 3 {
			<-time.After(1500 * time.Millisecond) // the reader is slow
			if _, err := s.message(); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		_, err := s.message()
		wantError(t, "the stream", err, ErrTimeout, MayHaveExecuted)
		if took := time.Since(start); took != time.Second {
			t.Errorf("it ended %v after the last read, want 1s", took)
		}
	})
}

// The whole timeout holds beside it, and it is of no matter to what answers in time.
func TestIdleTimeoutBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		start := time.Now()
		done := goCall(t.Context(), c, "echo", "x", WithIdleTimeout(time.Minute), WithTimeout(2*time.Second))
		l.request(t, "C|2|echo|")
		err := (<-done).err
		wantError(t, "the call", err, ErrTimeout, MayHaveExecuted)
		if took := time.Since(start); took < 2*time.Second || took > 3*time.Second || strings.Contains(err.Error(), "nothing came") {
			t.Errorf("it ended after %v with %v, want the whole timeout", took, err)
		}
		for _, d := range []time.Duration{0, -1} {
			done = goCall(t.Context(), c, "echo", "x", WithIdleTimeout(d))
			rid := l.request(t, "C|2|echo|")
			<-time.After(4 * time.Second)
			l.say("C", "3", rid, `{"status":200,"msg":"x"}`)
			if r := <-done; r.err != nil {
				t.Errorf("without a bound (%v): %v", d, r.err)
			}
		}
	})
}

// Another attempt has the idle time anew; while it waits for its turn the time stands still.
func TestIdleTimeoutAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		done := goCall(t.Context(), c, "echo", "x", Idempotent(), WithIdleTimeout(time.Second), WithTimeout(-1))
		rid := l.request(t, "C|2|echo|")
		<-time.After(999 * time.Millisecond)
		l.say("C", "3", rid, `{"status":"W_ERROR"}`)
		l.request(t, "C|2|echo|")
		start := time.Now()
		err := (<-done).err
		wantError(t, "the call", err, ErrTimeout, MayHaveExecuted)
		if took := time.Since(start); took != time.Second {
			t.Errorf("the second attempt ended after %v, want 1s", took)
		}
		var e *callError
		if !errors.As(err, &e) || !strings.Contains(e.detail, "attempt 2") {
			t.Errorf("%v does not tell of the attempt", err)
		}
	})
}
