package main

import (
	"math"
	"slices"
)

// percentiles sorts v and gives its values at the fractions ps, by the nearest
// rank; zeros when v is empty.
func percentiles(v []int64, ps ...float64) []float64 {
	out := make([]float64, len(ps))
	if len(v) == 0 {
		return out
	}
	slices.Sort(v)
	for i, p := range ps {
		out[i] = float64(v[int(math.Round(p*float64(len(v)-1)))])
	}
	return out
}

// median is the middle of v, the mean of the two middle ones when they are even
// in number, 0 for none. It leaves v as it is.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
