package main

import (
	"slices"
	"testing"
	"time"
)

func TestScheduleIsTheSeeds(t *testing.T) {
	a, b, c := schedule(7, time.Minute), schedule(7, time.Minute), schedule(8, time.Minute)
	if !slices.Equal(a, b) {
		t.Error("the same seed gave two schedules")
	}
	if slices.Equal(a, c) {
		t.Error("two seeds gave the same schedule")
	}
}

// A minute has so many of each; half a minute half of them; and all of them
// are things that can be done.
func TestScheduleCounts(t *testing.T) {
	for _, v := range []struct {
		d    time.Duration
		want map[string]int
	}{
		{time.Minute, map[string]int{"kill broker": 20, "kill worker": 50, "kill client": 50, "cut": 100, "half": 30}},
		{30 * time.Second, map[string]int{"kill broker": 10, "kill worker": 25, "kill client": 25, "cut": 50, "half": 16}},
		{3 * time.Second, map[string]int{"kill broker": 1, "kill worker": 3, "kill client": 3, "cut": 6, "half": 2}},
	} {
		all := schedule(1, v.d)
		if !slices.IsSortedFunc(all, func(a, b action) int { return int(a.at - b.at) }) {
			t.Errorf("%v: not in the order of time", v.d)
		}
		got := map[string]int{}
		for _, a := range all {
			name := string(a.kind)
			if a.kind == actKill || a.kind == actStop || a.kind == actLeave {
				name += " " + string(a.role)
				if a.target < 0 || a.target >= count(a.role) {
					t.Errorf("%v: %v: no such process", v.d, a)
				}
			}
			got[name]++
			if a.at < 0 || a.at >= v.d || a.broker < 0 || a.broker >= brokers || a.kind == actHalf && (a.amount < up || a.amount > up|down) || a.kind == actThrottle && a.amount <= 0 {
				t.Errorf("%v: can't be: %v", v.d, a)
			}
		}
		for name, n := range v.want {
			if got[name] != n {
				t.Errorf("%v: %s %d times, want %d", v.d, name, got[name], n)
			}
		}
		for _, r := range []role{roleBroker, roleWorker, roleClient} {
			if v.d == time.Minute && (got["stop "+string(r)] == 0 || got["leave "+string(r)] == 0) {
				t.Errorf("%v: no %s is stopped, or none leaves", v.d, r)
			}
		}
	}
}
