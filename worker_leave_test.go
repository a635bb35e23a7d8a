package omdp

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// How a worker of several brokers leaves, and what it waits for.

func sent(w *testWorker) string {
	synctest.Wait()
	return strings.Join(w.sent(), " ")
}

func TestWorkerSeveralShutdown(t *testing.T) {
	bubble(t, "all brokers are told before any has answered", func(t *testing.T) {
		a, b := newSeveral(t, echo, nil)
		a.register()
		b.register()
		done := make(chan error, 1)
		go func() { done <- a.Shutdown(t.Context()) }()
		check(t, "sent to one", sent(a), "W|11")
		check(t, "sent to the other", sent(b), "W|11")
		check(t, "state", a.Stats().State, Draining)
		a.say("W", "11")
		b.request("late", `1`, rawExtra) // dispatched before it read DRAIN
		b.say("W", "11")
		if err := <-done; err != nil {
			t.Error(err)
		}
		check(t, "sent to one", sent(a), "W|5")
		check(t, "sent to the other", sent(b), `W|3|late|rid-late|{"status":200,"msg":1} W|5`)
	})
	bubble(t, "what waits is served", func(t *testing.T) {
		var h holding
		a, b := newSeveral(t, h.serve, nil)
		answersDrain(a, b)
		a.register()
		b.register()
		a.request("a1", `1`, rawExtra)
		synctest.Wait()
		b.request("b1", `2`, rawExtra)
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- a.Shutdown(t.Context()) }()
		check(t, "sent to one", sent(a), "W|11")
		check(t, "sent to the other", sent(b), "W|11")
		h.release("a1")
		check(t, "sent to one", sent(a), `W|3|a1|rid-a1|{"status":200,"msg":1}`)
		check(t, "sent to the other", sent(b), "")
		h.release("b1")
		if err := <-done; err != nil {
			t.Error(err)
		}
		check(t, "sent to one", sent(a), "W|5")
		check(t, "sent to the other", sent(b), `W|3|b1|rid-b1|{"status":200,"msg":2} W|5`)
	})
	bubble(t, "brokers that know no DRAIN", func(t *testing.T) {
		var h holding
		a, b := newSeveral(t, h.serve, nil)
		a.say("W", "4")
		b.say("W", "4")
		a.request("a1", `1`, "")
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- a.Shutdown(t.Context()) }()
		check(t, "sent to the busy one", sent(a), "")
		check(t, "sent to the idle one", sent(b), "W|5")
		check(t, "brokers", a.Stats().Brokers, 1)
		h.release("a1")
		if err := <-done; err != nil {
			t.Error(err)
		}
		check(t, "sent to the busy one", sent(a), `W|3|a1|rid-a1|{"status":200,"msg":1} W|5`)
	})
	bubble(t, "cut off", func(t *testing.T) {
		a, b := newSeveral(t, func(ctx context.Context, req *Request, _ *Response) error {
			if req.ID() != "rid-a1" {
				t.Errorf("%s ran", req.ID())
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}, nil)
		answersDrain(a, b)
		a.register()
		b.register()
		a.request("a1", `1`, rawExtra)
		synctest.Wait()
		b.request("b1", `2`, rawExtra)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		checkIs(t, "Shutdown", a.Shutdown(ctx), context.DeadlineExceeded)
		check(t, "sent to one", sent(a), `W|11 W|3|a1|rid-a1|{"status":500,"msg":"omdp: closed: the worker stops"} W|5`)
		check(t, "sent to the other", sent(b), `W|11 W|3|b1|rid-b1|{"status":"W_ERROR","executed":false} W|5`)
	})
	bubble(t, "cut off, and the one that runs goes on", func(t *testing.T) {
		var h holding
		a, b := newSeveral(t, h.serve, nil)
		answersDrain(a, b)
		a.register()
		b.register()
		a.request("a1", `1`, rawExtra)
		synctest.Wait()
		b.request("b1", `2`, rawExtra)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		checkIs(t, "Shutdown", a.Shutdown(ctx), context.DeadlineExceeded)
		check(t, "sent to one", sent(a), `W|11 W|5`)
		check(t, "sent to the other", sent(b), `W|11 W|3|b1|rid-b1|{"status":"W_ERROR","executed":false} W|5`)
		h.release("a1")
		check(t, "began", h.order(), "a1")
	})
	bubble(t, "one is lost meanwhile, and what waits with it", func(t *testing.T) {
		var h holding
		a, b := newSeveral(t, h.serve, nil)
		answersDrain(a)
		a.register()
		b.register()
		a.request("a1", `1`, rawExtra)
		synctest.Wait()
		b.request("b1", `2`, rawExtra)
		done := make(chan error, 1)
		go func() { done <- a.Shutdown(t.Context()) }()
		check(t, "sent to the other", sent(b), "W|11")
		b.cut()
		again := b.net.next(t)
		again.say("W", "4")
		synctest.Wait()
		check(t, "sent on its next connection", strings.Join(again.sent(), " "), "") // no READY
		h.release("a1")
		if err := <-done; err != nil {
			t.Error(err)
		}
		check(t, "began", h.order(), "a1")
	})
}

func TestWorkerSeveralClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h holding
		a, b := newSeveral(t, h.serve, nil)
		a.register()
		b.register()
		a.request("a1", `1`, rawExtra)
		synctest.Wait()
		b.request("b1", `2`, rawExtra)
		time.AfterFunc(time.Second, func() { close(h.gate("rid-a1")) })
		at := time.Now()
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		check(t, "time it took", time.Since(at), time.Second)
		check(t, "sent to one", sent(a), "W|5")
		check(t, "sent to the other", sent(b), "W|5")
		check(t, "began", h.order(), "a1")
		s := a.Stats()
		check(t, "lost, waiting, active, brokers", fmt.Sprint(s.Lost, s.Waiting, s.Active, s.Brokers), "2 0 0 0")
	})
}

// What a broker dispatched before it read DRAIN is served however long it takes
// to read it, and a broker that answers nothing does not hold Shutdown for ever.
func TestWorkerDrainAnswerIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTestWorker(t, echo, nil)
		w.register()
		at := time.Now()
		done := make(chan error, 1)
		go func() { done <- w.Shutdown(t.Context()) }()
		pass(3 * time.Second)
		w.request("late", `1`, rawExtra)
		check(t, "final", w.final("late"), js("1"))
		if err := <-done; err != nil {
			t.Error(err)
		}
		check(t, "time it took", time.Since(at), 7500*time.Millisecond)
	})
}

// A broker that took READY and was not heard yet may have sent a request: its
// first word shows how to leave it.
func TestWorkerLeavesUnheardBroker(t *testing.T) {
	bubble(t, "ours", func(t *testing.T) {
		w := newTestWorker(t, echo, nil)
		at := time.Now()
		done := make(chan error, 1)
		go func() { done <- w.Shutdown(t.Context()) }()
		synctest.Wait()
		w.say("W", "8", brokerCaps)
		w.request("a", `1`, rawExtra)
		check(t, "final", w.final("a"), js("1"))
		w.say("W", "11")
		if err := <-done; err != nil {
			t.Error(err)
		}
		check(t, "sent besides", sent(w), "W|11 W|5")
		check(t, "time it took", time.Since(at), 0)
	})
	bubble(t, "a Node broker", func(t *testing.T) {
		w := newTestWorker(t, echo, nil)
		done := make(chan error, 1)
		go func() { done <- w.Shutdown(t.Context()) }()
		synctest.Wait()
		w.request("a", `1`, "")
		if err := <-done; err != nil {
			t.Error(err)
		}
		check(t, "sent", sent(w), `W|3|a|rid-a|{"status":200,"msg":1} W|5`)
	})
	bubble(t, "silent", func(t *testing.T) {
		a, b := newSeveral(t, echo, nil)
		answersDrain(a)
		a.register()
		at := time.Now()
		if err := a.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		check(t, "time it took", time.Since(at), drainSettle)
		check(t, "sent to the silent one", sent(b), "W|5")
	})
}
