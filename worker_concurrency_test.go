package omdp

import (
	"strings"
	"testing"
	"testing/synctest"
)

// said gives the concurrencies that a worker told on its present link, READY not included.
func (w *testWorker) said() string {
	synctest.Wait()
	var all []string
	for _, m := range w.sent() {
		if caps, ok := strings.CutPrefix(m, "W|8|"); ok {
			_, n, _ := strings.Cut(caps, `"concurrency":`)
			n, _, _ = strings.Cut(n, ",")
			all = append(all, n)
		}
	}
	return strings.Join(all, " ")
}

// Each broker that advertised is told, with all that READY said; more places
// are taken at once, and with fewer nothing is taken back.
func TestSetConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h holding
		a, b := newSeveral(t, h.serve, nil)
		set := func(n int) {
			t.Helper()
			if err := a.SetConcurrency(n); err != nil {
				t.Fatal(err)
			}
			check(t, "concurrency", a.Stats().Concurrency, n)
		}
		set(2) // before any broker was heard
		check(t, "told too early", a.said()+b.said(), "")
		a.register()
		b.say("W", "4") // of another make
		check(t, "told a", a.said(), "2")
		for _, token := range []string{"1", "2", "3", "4"} {
			a.request(token, `1`, rawExtra)
		}
		check(t, "began", h.order(), "1 2")
		set(3)
		check(t, "began", h.order(), "1 2 3")
		set(1)
		set(1) // is known
		check(t, "told a", a.said(), "3 1")
		check(t, "told b", b.said(), "")
		h.release("1", "2")
		check(t, "began", h.order(), "1 2 3")
		h.release("3")
		check(t, "began", h.order(), "1 2 3 4")
		h.release("4")
		check(t, "places", a.places.free, 1)

		// What the broker gave before it read of fewer places is not refused.
		set(4)
		set(1)
		for _, token := range []string{"5", "6", "7", "8"} {
			a.request(token, `1`, rawExtra)
		}
		check(t, "dropped", a.Stats().Dropped, 0)
		check(t, "waiting", a.Stats().Waiting, 3)
		h.release("5", "6", "7", "8")

		set(5)
		a.cut()
		a.nextLink() // READY says it: see newSeveral's own test of READY
		a.register()
		check(t, "told again", a.said(), "")

		for _, n := range []int{0, -1, 1001} {
			if err := a.SetConcurrency(n); err == nil || !strings.Contains(err.Error(), "from 1 to 1000") {
				t.Errorf("%d: got %v, want an error that names the bounds", n, err)
			}
		}
		a.close()
		checkIs(t, "after Close", a.SetConcurrency(1), ErrClosed)
	})
}

// I9 at the broker: the moment at which it reads of the change decides.
// Shrinking takes nothing back, and gives nothing new until less is held.
func TestConcurrencyChanges(t *testing.T) {
	const caps = `{"v":1,"id":"w","hb":2500,"concurrency":`
	s := newTestScript(t, nil)
	s.do("w> W|1|s|" + caps + "1}\na> C|8|{\"v\":1,\"id\":\"a\",\"hb\":2500}")
	given := func(rid, token string) string {
		return "w< W|2|" + token + "|" + rid + `|1|{}|{"remaining":60000,"attempt":1,"credit":0,"raw":true}`
	}
	s.expect("a> C|2|s|1|1|{}", given("1", "T1"))
	s.expect("a> C|2|s|2|1|{}\na> C|2|s|3|1|{}\na> C|2|s|4|1|{}")
	s.expect("w> W|8|"+caps+"3}", given("2", "T2"), given("3", "T3"))
	s.expect("w> W|8|" + caps + "2}")
	s.expect("w> W|6|T3|3|b|x", "a< C|6|3|b|x") // still its own
	s.expect("w> W|3|T1|1|b|x", "a< C|3|1|b|x")
	s.expect("w> W|3|T2|2|b|x", "a< C|3|2|b|x", given("4", "T4"))
	s.expect("w> W|3|T3|3|b|x", "a< C|3|3|b|x")
}
