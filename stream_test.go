package omdp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
)

// openStream begins a stream at a fake broker and returns its request id.
func openStream(t *testing.T, ctx context.Context, config *ClientConfig) (*Client, *fakeLink, *Stream, string) {
	t.Helper()
	c, n := newFakeClient(t, config)
	l := n.next(t)
	l.welcome(t)
	s := c.RequestStream(ctx, "file", "name")
	return c, l, s, ridOf(l.awaitPrefix(t, "C|2|file|"))
}

func (l *fakeLink) partial(rid, value string) {
	l.say("C", "6", rid, okPrefix+value+"}")
}

func (l *fakeLink) final(rid, value string) {
	l.say("C", "3", rid, okPrefix+value+"}")
}

// Node's stream pushes the partials and then the final's value, unless that is null.
func TestStreamRead(t *testing.T) {
	for _, tt := range []struct {
		name     string
		partials []string
		final    string
		want     string
	}{
		{"strings", []string{`"ab"`, `"c\n"`}, `"d"`, "abc\nd"},
		{"null at the end", []string{`"ab"`}, `null`, "ab"},
		{"nothing", nil, `null`, ""},
		{"empty strings", []string{`""`, `"x"`, `""`}, `""`, "x"},
		{"values", []string{`{"a":1}`, `2`, `true`, `[]`}, `3.5`, `{"a":1}2true[]3.5`},
		{"a null between", []string{`null`, `"x"`}, `null`, "x"},
		{"a Buffer of Node", []string{`{"type":"Buffer","data":[0,255]}`}, `null`, "\x00\xff"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, l, s, rid := openStream(t, t.Context(), nil)
				defer c.Close()
				for _, v := range tt.partials {
					l.partial(rid, v)
				}
				l.final(rid, tt.final)
				if err := iotest.TestReader(struct{ io.Reader }{s}, []byte(tt.want)); err != nil {
					t.Error(err)
				}
				if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("after the end Read gives %d, %v; want 0, EOF", n, err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				wantSent(t, l) // the end was reached: nothing to cancel
			})
		})
	}
}

func TestStreamRawBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, s, rid := openStream(t, t.Context(), nil)
		defer c.Close()
		l.say("C", "6", rid, "b", "\x00\x01")
		l.say("C", "6", rid, "b", "")
		l.say("C", "3", rid, "b", "\xff")
		got, err := io.ReadAll(s)
		if err != nil || string(got) != "\x00\x01\xff" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// io.EOF comes only after a good final.
func TestStreamError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, s, rid := openStream(t, t.Context(), nil)
		defer c.Close()
		l.partial(rid, `"some"`)
		l.say("C", "3", rid, `{"status":"W_ERROR"}`)
		for range 2 {
			got, err := io.ReadAll(s)
			wantError(t, "reading", err, ErrWorkerLost, MayHaveExecuted)
			if want := "some"; string(got) != want && string(got) != "" {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		for range s.All() {
			_, err := s.Read(make([]byte, 1))
			wantError(t, "in All", err, ErrWorkerLost, MayHaveExecuted)
		}
	})
}

func TestStreamRefused(t *testing.T) {
	c, err := NewClient("inproc://x", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := c.RequestStream(t.Context(), "echo", nil)
	_, err = s.Read(make([]byte, 1))
	wantError(t, "not started", err, ErrNotStarted, NotSent)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestStreamAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, s, rid := openStream(t, t.Context(), nil)
		defer c.Close()
		l.partial(rid, `"abc"`)
		l.partial(rid, `{"n":1}`)
		l.final(rid, `2`)
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		var got []string
		for m, err := range s.All() { // goes on where Read stopped
			if err != nil {
				t.Error(err)
			}
			got = append(got, m.String())
		}
		if want := []string{"bc", `{"n":1}`, "2"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// "Breaking out of All, or Close, cancels the request at the worker."
func TestStreamBreak(t *testing.T) {
	for name, leave := range map[string]func(s *Stream){
		"break": func(s *Stream) {
			for range s.All() {
				break
			}
		},
		"close":       func(s *Stream) { s.Close() },
		"close twice": func(s *Stream) { s.Close(); s.Close() },
		"writer fails": func(s *Stream) {
			if n, err := s.WriteTo(iotestErrWriter{}); n != 1 || err != io.ErrClosedPipe {
				t.Errorf("WriteTo: %d, %v; want 1, ErrClosedPipe", n, err)
			}
		},
		"writer is short": func(s *Stream) {
			if n, err := s.WriteTo(shortWriter{}); n != 0 || err != io.ErrShortWrite {
				t.Errorf("WriteTo: %d, %v; want 0, ErrShortWrite", n, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, l, s, rid := openStream(t, t.Context(), nil)
				defer c.Close()
				l.partial(rid, `"a"`)
				l.partial(rid, `"b"`)
				leave(s)
				wantSent(t, l, "C|10|"+rid)
				l.partial(rid, `"late"`)
				l.final(rid, `"late"`)
				_, err := s.Read(make([]byte, 1))
				wantError(t, "Read", err, ErrCanceled, MayHaveExecuted)
			})
		})
	}
}

type iotestErrWriter struct{}

func (iotestErrWriter) Write(p []byte) (int, error) { return len(p), io.ErrClosedPipe }

type shortWriter struct{}

func (shortWriter) Write([]byte) (int, error) { return 0, nil }

func TestStreamContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		c, l, s, rid := openStream(t, ctx, nil)
		defer c.Close()
		why := errors.New("enough")
		done := make(chan error)
		go func() {
			_, err := s.Read(make([]byte, 1))
			done <- err
		}()
		synctest.Wait()
		cancel(why)
		err := <-done
		wantError(t, "Read", err, ErrCanceled, MayHaveExecuted)
		if !errors.Is(err, why) {
			t.Errorf("got %v, want the cause in it", err)
		}
		wantSent(t, l, "C|10|"+rid)
	})
}

func TestStreamWriteTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, s, rid := openStream(t, t.Context(), nil)
		defer c.Close()
		go func() {
			for range 300 {
				l.partial(rid, `"0123456789"`)
			}
			l.final(rid, `"end"`)
		}()
		var b bytes.Buffer
		n, err := io.Copy(&b, s)
		if want := strings.Repeat("0123456789", 300) + "end"; err != nil || b.String() != want || n != int64(len(want)) {
			t.Errorf("got %d of %d bytes, %v", n, len(want), err)
		}
	})
}

// Credit is granted for what was read, not for what came.
func TestStreamCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, s, rid := openStream(t, t.Context(), &ClientConfig{Window: 4096})
		defer c.Close()
		for range 8 {
			l.say("C", "6", rid, "b", strings.Repeat("x", 512-partialOverhead))
		}
		wantSent(t, l)
		if _, err := io.ReadFull(s, make([]byte, 513-partialOverhead)); err != nil {
			t.Error(err)
		}
		wantSent(t, l, "C|9|"+rid+"|1024")
		if _, err := io.ReadFull(s, make([]byte, 8*(512-partialOverhead)-(513-partialOverhead))); err != nil {
			t.Error(err)
		}
		wantSent(t, l, "C|9|"+rid+"|1024", "C|9|"+rid+"|1024", "C|9|"+rid+"|1024")
	})
}

// A worker without credit and a reader that is away: what came is read, then
// the error; never a gap and then more.
func TestStreamSlowConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, s, rid := openStream(t, t.Context(), &ClientConfig{BufferLimit: 1000, Window: 4096})
		defer c.Close()
		l.say("C", "6", rid, "b", strings.Repeat("a", 8000)) // a first one is taken, whatever its size
		l.say("C", "6", rid, "b", "more")
		wantSent(t, l, "C|10|"+rid)
		l.say("C", "6", rid, "b", "late")
		got, err := io.ReadAll(s)
		wantError(t, "reading", err, ErrSlowConsumer, MayHaveExecuted)
		if len(got) != 8000 {
			t.Errorf("got %d bytes, want 8000", len(got))
		}
	})
}

// A reader that lags keeps a bounded queue: what was taken is let go.
func TestStreamQueueShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, s, rid := openStream(t, t.Context(), nil)
		defer c.Close()
		buf := make([]byte, 1)
		for range 100 {
			l.partial(rid, `"a"`)
		}
		for range 10_000 {
			l.partial(rid, `"b"`)
			if _, err := s.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
		if n := cap(s.queue); n > 1000 {
			t.Errorf("the queue of 100 messages has room for %d", n)
		}
	})
}
