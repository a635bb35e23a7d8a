package main

import (
	"math"
	"time"
)

// A hist counts durations in steps of about one percent. The zero value is
// empty. It travels as JSON.
type hist struct {
	Counts map[int]int `json:"counts"`
	N      int         `json:"n"`
}

// perOctave is how many steps there are to twice the duration.
const perOctave = 64

func stepOf(d time.Duration) int {
	if d < time.Microsecond {
		return 0
	}
	return int(math.Log2(float64(d)/float64(time.Microsecond)) * perOctave)
}

func (h *hist) add(d time.Duration) {
	if h.Counts == nil {
		h.Counts = map[int]int{}
	}
	h.Counts[stepOf(d)]++
	h.N++
}

func (h *hist) merge(other hist) {
	if h.Counts == nil {
		h.Counts = map[int]int{}
	}
	for step, n := range other.Counts {
		h.Counts[step] += n
	}
	h.N += other.N
}

// quantile is the duration that the share q of all does not exceed; 0 if there is none.
func (h *hist) quantile(q float64) time.Duration {
	if h.N == 0 {
		return 0
	}
	top := 0
	for step := range h.Counts {
		top = max(top, step)
	}
	want, sum := int(math.Ceil(q*float64(h.N))), 0
	for step := 0; step <= top; step++ {
		if sum += h.Counts[step]; sum >= want {
			top = step
			break
		}
	}
	return time.Duration(math.Exp2((float64(top)+0.5)/perOctave) * float64(time.Microsecond))
}
