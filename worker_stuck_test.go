package omdp

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// finals gives the tokens of the finals that were sent on the present link since the last call.
func (w *testWorker) finals() string {
	synctest.Wait()
	var all []string
	for _, m := range w.sent() {
		if rest, ok := strings.CutPrefix(m, "W|3|"); ok {
			token, _, _ := strings.Cut(rest, "|")
			all = append(all, token)
		}
	}
	return strings.Join(all, " ")
}

// errorLog is OnError that keeps the texts.
type errorLog struct {
	mu  sync.Mutex
	all []string
}

func (l *errorLog) add(err error) { l.mu.Lock(); l.all = append(l.all, err.Error()); l.mu.Unlock() }

func (l *errorLog) count(text string) int {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, s := range l.all {
		if strings.Contains(s, text) {
			n++
		}
	}
	return n
}

// A handler that ignores its context is reported once and replaced: the broker
// has the final of its request, another runs in its place, and what it says
// after all goes nowhere.
func TestStuckHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h holding
		var log errorLog
		w := newTestWorker(t, h.serve, &WorkerConfig{OnError: log.add})
		answersBeats(w)
		w.register()
		w.request("a", `1`, rawExtra)
		synctest.Wait()
		w.say("W", "10", "a", "rid-a", "client")
		pass(9 * time.Second)
		check(t, "finals too early", w.finals(), "")
		check(t, "stuck too early", w.Stats().Stuck, 0)
		pass(2 * time.Second)
		check(t, "finals", w.finals(), "a")
		s := w.Stats()
		check(t, "stuck", s.Stuck, 1)
		check(t, "active", s.Active, 0)
		check(t, "handlers", s.Handlers, 1)
		if text := "omdp: worker echo: handler goes on 10s after its context ended (omdp: request canceled: client canceled): it is replaced"; log.count(text) != 1 {
			t.Errorf("got %q, want once %q", log.all, text)
		}
		w.request("b", `1`, rawExtra)
		synctest.Wait()
		check(t, "began", h.order(), "a b")
		h.release("a")
		check(t, "a final of a again", w.finals(), "")
		check(t, "places", w.places.free, 0)
		check(t, "replaced", w.places.stuck, 0)
		h.release("b")
		check(t, "finals", w.finals(), "b")
		check(t, "places", w.places.free, 1)
		pass(time.Minute)
		check(t, "reports in all", log.count("goes on"), 1)
		check(t, "stuck in all", w.Stats().Stuck, 1)
		w.close()
	})
}

// answersBeats keeps the worker's broker alive.
func answersBeats(w *testWorker) {
	w.net.setScript(func(l *fakeLink, f [][]byte) {
		if joinFrames(f) == "W|4" {
			l.say("W", "4")
		}
	})
}

// A handler that never returns after its link was lost does not keep its place.
func TestStuckAfterLinkLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h holding
		w := newTestWorker(t, h.serve, &WorkerConfig{StuckAfter: time.Second})
		answersBeats(w)
		w.register()
		w.request("a", `1`, rawExtra)
		synctest.Wait()
		w.cut()
		w.nextLink()
		w.register()
		w.request("b", `1`, rawExtra)
		synctest.Wait()
		check(t, "began", h.order(), "a")
		pass(2 * time.Second)
		check(t, "began", h.order(), "a b")
		h.release("a", "b")
		check(t, "finals", w.finals(), "b")
		check(t, "places", w.places.free, 1)
		check(t, "waiting", w.Stats().Waiting, 0)
		w.close()
	})
}

// What runs is bounded whatever handlers do: as many again as there are places.
// One that returns lets another be replaced.
func TestStuckBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h holding
		var log errorLog
		w := newTestWorker(t, h.serve, &WorkerConfig{Concurrency: 2, StuckAfter: time.Second, OnError: log.add})
		answersBeats(w)
		w.register()
		for i := range 6 {
			token := fmt.Sprint(i)
			w.request(token, `1`, rawExtra)
			synctest.Wait()
			w.say("W", "10", token, "rid-"+token, "client")
			pass(2 * time.Second)
		}
		// Of the last two the broker was told at once: they never had a place.
		check(t, "began", h.order(), "0 1 2 3")
		check(t, "finals", w.finals(), "0 1 4 5")
		check(t, "stuck", w.Stats().Stuck, 4)
		check(t, "kept", log.count("it keeps its place, as 2 others were replaced"), 2)
		h.release("1")
		check(t, "finals", w.finals(), "2")
		h.release("0", "2")
		check(t, "finals", w.finals(), "3")
		w.request("6", `1`, rawExtra)
		synctest.Wait()
		check(t, "began", h.order(), "0 1 2 3 6")
		h.release("3", "6")
		check(t, "places", w.places.free, 2)
		check(t, "replaced", w.places.stuck, 0)
		w.close()
	})
}

// It can be switched off; handlers that return in time are not looked at; a
// worker that is closed does not report what it cut off.
func TestStuckNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, after := range []time.Duration{-1, 0} {
			var h holding
			var log errorLog
			w := newTestWorker(t, h.serve, &WorkerConfig{StuckAfter: after, OnError: log.add, DrainTimeout: -1})
			answersBeats(w)
			w.register()
			for _, token := range []string{"a", "b"} {
				w.request(token, `1`, rawExtra)
				synctest.Wait()
				w.say("W", "10", token, "rid-"+token, "client")
				pass(9 * time.Second)
				h.release(token)
				check(t, "watched", w.overdue.ended.n, 0)
			}
			w.request("c", `1`, rawExtra)
			synctest.Wait()
			w.say("W", "10", "c", "rid-c", "client")
			if after < 0 {
				pass(time.Minute)
			}
			w.Close() // says that a handler runs
			pass(time.Minute)
			check(t, "stuck", w.Stats().Stuck, 0)
			check(t, "reports", log.count("goes on"), 0)
			h.release("c")
			if !slices.Equal(h.began, []string{"rid-a", "rid-b", "rid-c"}) {
				t.Errorf("began %q", h.began)
			}
		}
	})
}
