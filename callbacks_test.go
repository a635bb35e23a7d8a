package omdp

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// "partialCallback(data) - called whenever the request does not end but emits
// data; finalCallback(err, data) - called when the request will emit no more data".
func TestRequestCallbacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		l := n.next(t)
		l.welcome(t)
		var got []string
		err := c.Request(t.Context(), "echo", "data",
			func(m Message) { got = append(got, "partial "+m.String()) },
			func(m Message, err error) { got = append(got, fmt.Sprint("final ", m, " ", err)) })
		if err != nil {
			t.Fatal(err)
		}
		rid := ridOf(l.awaitPrefix(t, "C|2|echo|"))
		for i := range 5 {
			l.partial(rid, fmt.Sprint(i))
		}
		l.final(rid, `"end"`)
		l.partial(rid, `"late"`)
		l.final(rid, `"late"`)
		if err := c.Close(); err != nil { // waits for the callbacks
			t.Error(err)
		}
		want := []string{"partial 0", "partial 1", "partial 2", "partial 3", "partial 4", "final end <nil>"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// Callbacks that block hold up no other request, and their goroutines end
// when there is nothing more to do.
func TestRequestCallbacksBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		defer c.Close()
		l := n.next(t)
		n.setScript(fakeEcho)
		l.welcome(t)
		const stuck = 200
		release := make(chan struct{})
		var wg sync.WaitGroup
		for range stuck {
			wg.Add(1)
			err := c.Request(t.Context(), "echo", 1, nil, func(Message, error) {
				<-release
				wg.Done()
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		done := make(chan struct{})
		if err := c.Request(t.Context(), "echo", 1, nil, func(Message, error) { close(done) }); err != nil {
			t.Fatal(err)
		}
		<-done
		if d := time.Since(start); d > 20*time.Millisecond {
			t.Errorf("a callback waited %v behind %d that block, want at most 20ms", d, stuck)
		}
		close(release)
		wg.Wait()
		pass(3 * runnerIdle)
		c.runners.mu.Lock()
		defer c.runners.mu.Unlock()
		if c.runners.runners != 0 || c.runners.idle != 0 {
			t.Errorf("%d goroutines, %d idle; want none", c.runners.runners, c.runners.idle)
		}
	})
}

// One request's callbacks never overlap, however many goroutines serve.
func TestRequestCallbacksInTurn(t *testing.T) {
	c, n := newFakeClient(t, nil)
	l := n.next(t)
	l.welcome(t)
	const requests, partials = 20, 50
	n.setScript(func(l *fakeLink, f [][]byte) {
		if string(f[1]) == "2" {
			for i := range partials {
				l.reply(opPartial, f[3], fmt.Appendf(nil, `{"status":200,"msg":%d}`, i))
			}
			l.reply(opReply, f[3], []byte(`{"status":200,"msg":null}`))
		}
	})
	var wg sync.WaitGroup
	for range requests {
		wg.Add(1)
		var busy atomic.Int32
		next := 0
		err := c.Request(context.Background(), "echo", 1, func(m Message) {
			if busy.Add(1) != 1 {
				t.Error("two callbacks of one request at once")
			}
			if want := fmt.Sprint(next); m.String() != want {
				t.Errorf("got partial %s, want %s", m, want)
			}
			if next++; next%10 == 0 {
				<-time.After(2 * stuckAfter) // others join
			}
			busy.Add(-1)
		}, func(_ Message, err error) {
			if busy.Load() != 0 || next != partials || err != nil {
				t.Errorf("final after %d partials, %v", next, err)
			}
			wg.Done()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestRequestCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, nil)
		l := n.next(t)
		l.welcome(t)
		ctx, cancel := context.WithCancel(t.Context())
		hold := make(chan struct{})
		var got []string
		err := c.Request(ctx, "echo", 1,
			func(m Message) { got = append(got, m.String()); <-hold },
			func(_ Message, err error) {
				wantError(t, "final", err, ErrCanceled, MayHaveExecuted)
				got = append(got, "final")
			})
		if err != nil {
			t.Fatal(err)
		}
		rid := ridOf(l.awaitPrefix(t, "C|2|"))
		l.partial(rid, "1")
		synctest.Wait()
		l.partial(rid, "2") // waits while the callback blocks, and is dropped
		cancel()
		wantSent(t, l, "C|10|"+rid)
		close(hold)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if want := []string{"1", "final"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if err := c.Request(ctx, "echo", 1, nil, func(Message, error) { t.Error("called") }); !errors.Is(err, ErrCanceled) {
			t.Errorf("with an ended context: %v", err)
		}
	})
}

func TestRequestSlowConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, &ClientConfig{BufferLimit: 1000, Window: 4096})
		l := n.next(t)
		l.welcome(t)
		hold := make(chan struct{})
		partials := 0
		var final error
		err := c.Request(t.Context(), "echo", 1, func(Message) { partials++; <-hold }, func(_ Message, err error) { final = err })
		if err != nil {
			t.Fatal(err)
		}
		rid := ridOf(l.awaitPrefix(t, "C|2|"))
		for range 5 {
			l.say("C", "6", rid, "b", strings.Repeat("x", 1200))
		}
		wantSent(t, l, "C|10|"+rid)
		close(hold)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		wantError(t, "final", final, ErrSlowConsumer, MayHaveExecuted)
		if partials != 3 {
			t.Errorf("%d partials, want the 3 that fit", partials)
		}
	})
}

// Close waits for callbacks, but not for ever.
func TestRequestCallbackOutlivesClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, &ClientConfig{DrainTimeout: time.Second})
		l := n.next(t)
		n.setScript(fakeEcho)
		l.welcome(t)
		hold := make(chan struct{})
		if err := c.Request(t.Context(), "echo", 1, nil, func(Message, error) { <-hold }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		if err := c.Close(); err == nil {
			t.Error("Close gave no error though a callback runs")
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("Close took %v, want 1s", d)
		}
		close(hold)
	})
}

// A pipeline that asks again from its own callbacks.
func TestRequestFromCallback(t *testing.T) {
	c, n := newFakeClient(t, nil)
	l := n.next(t)
	l.welcome(t)
	n.setScript(fakeEcho)
	var left atomic.Int64
	left.Store(10_000)
	var wg sync.WaitGroup
	var next func(m Message, err error)
	next = func(_ Message, err error) {
		if err != nil {
			t.Error(err)
		}
		if left.Add(-1) < 0 {
			wg.Done()
			return
		}
		if err := c.Request(context.Background(), "echo", "x", nil, next); err != nil {
			t.Error(err)
			wg.Done()
		}
	}
	for range 100 {
		wg.Add(1)
		next(Message{}, nil)
	}
	wg.Wait()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// A callback that ends its goroutine, as t.FailNow does, takes nobody else's
// along, nor what its own request still has to say; and Close finds nobody left.
func TestRequestCallbackGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, &ClientConfig{Window: 4096})
		l := n.next(t)
		l.welcome(t)
		var got []string
		hold := make(chan struct{})
		err := c.Request(t.Context(), "echo", 1, func(m Message) {
			<-hold
			got = append(got, m.String()[:1])
			runtime.Goexit()
		}, func(Message, error) {
			got = append(got, "final")
			runtime.Goexit()
		})
		if err != nil {
			t.Fatal(err)
		}
		rid := ridOf(l.awaitPrefix(t, "C|2|"))
		for _, v := range []string{"1", "2", "3"} {
			l.say("C", "6", rid, "b", v+strings.Repeat("x", 1200))
		}
		l.final(rid, "null")
		synctest.Wait()
		close(hold)
		synctest.Wait()
		if want := []string{"1", "2", "3", "final"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		n.setScript(fakeEcho)
		const requests = 50
		var ended atomic.Int64
		for range requests {
			err := c.Request(t.Context(), "echo", 1, nil, func(Message, error) {
				ended.Add(1)
				runtime.Goexit()
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Close(); err != nil { // waits for the callbacks
			t.Error(err)
		}
		if ended.Load() != requests {
			t.Errorf("%d final callbacks, want %d", ended.Load(), requests)
		}
	})
}

// What a callback took counts as read, whether it returns or ends its goroutine.
func TestRequestCallbackGoexitCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, n := newFakeClient(t, &ClientConfig{Window: 4096})
		defer c.Close()
		l := n.next(t)
		l.welcome(t)
		if err := c.Request(t.Context(), "echo", 1, func(Message) { runtime.Goexit() }, nil); err != nil {
			t.Fatal(err)
		}
		rid := ridOf(l.awaitPrefix(t, "C|2|"))
		l.say("C", "6", rid, "b", strings.Repeat("x", 1024-partialOverhead))
		wantSent(t, l, "C|9|"+rid+"|1024")
	})
}

// Whatever comes after the end of callbacks is dropped.
func TestCallbacksPushAfterClose(t *testing.T) {
	q := callbacks{limit: 1}
	q.close()
	<-q.done()
	r := &call{client: &Client{}, kind: kindRequest, onFinal: func(Message, error) { t.Error("a callback ran after the end") }}
	q.push(r, event{final: true}, 0, false)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.runners != 0 {
		t.Errorf("%d goroutines, want none", q.runners)
	}
}
