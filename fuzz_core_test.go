package omdp

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Fuzz targets for what has a state: a history is decoded from bytes, and after
// every event the state machine says itself whether it is consistent.

// FuzzCore plays the bytes as a history (dispatch_world_test.go).
func FuzzCore(f *testing.F) {
	for n := range 20 {
		src := make([]byte, 50+20*n)
		for i := range src {
			src[i] = byte(i*i*(n+3) + i>>3 + n)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		if len(src) > 600 {
			return
		}
		w := newWorld(t, slices.Clone(src)).play()
		if len(src)%4 == 0 { // minutes of quiet cost more than the history itself
			w.heal()
		}
	})
}

// FuzzPending draws from the bytes what happens to a client's table: each
// request leaves it once, none stays past its deadline, and what is sent again may be.
func FuzzPending(f *testing.F) {
	for n := range 8 {
		src := make([]byte, 200+100*n)
		for i := range src {
			src[i] = byte(i*(n+5) + i*i>>2 + n)
		}
		f.Add(src)
	}
	f.Fuzz(rapid.MakeFuzz(playTable))
}
