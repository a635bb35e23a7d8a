package omdp

import (
	"slices"
	"testing"
	"testing/synctest"
)

func TestStateString(t *testing.T) {
	for s, want := range map[State]string{Connecting: "connecting", Ready: "ready", Lost: "lost", Draining: "draining", Closed: "closed", 9: "State(9)"} {
		if got := s.String(); got != want {
			t.Errorf("State(%d) = %q, want %q", uint8(s), got, want)
		}
	}
}

func TestLifeID(t *testing.T) {
	a, b := newLifeID(), newLifeID()
	if len(a) != 22 || a == b {
		t.Errorf("got %q and %q, want two different ids of 22 characters", a, b)
	}
}

// Hooks run in the order in which they were given, one at a time, also those
// that a hook gives, and leave no goroutine.
func TestHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h hooks
		<-h.done()
		var got []int
		hold := make(chan struct{})
		h.add(func() { <-hold; got = append(got, 0) })
		for i := 1; i < 5; i++ {
			h.add(func() {
				got = append(got, i)
				if i == 4 {
					h.add(func() { got = append(got, 5) })
				}
			})
		}
		select {
		case <-h.done():
			t.Error("done while a hook runs")
		default:
		}
		close(hold)
		<-h.done()
		if want := []int{0, 1, 2, 3, 4, 5}; !slices.Equal(got, want) {
			t.Errorf("ran in order %v, want %v", got, want)
		}
		h.add(func() { got = nil })
		<-h.done()
		if got != nil {
			t.Error("a hook after a pause did not run")
		}
	})
}
